/* libmicrohttpd inside our loop.
 *
 * MHD runs in external mode: its epoll descriptor is one watcher of the loop, MHD_get_timeout one timer, and
 * every resume is followed by MHD_run at the end of the same turn.  What MHD does not do by itself is added
 * here:
 *  - the URI handed to the log callback is cut at '?' and unescaped later, so it is copied there;
 *  - a suspended connection is not watched by MHD, so its client may leave unnoticed: while a request waits
 * for its answer, or a stream for bytes, the socket stands in our own epoll for the hang-up alone;
 *  - version 0.9.75 lets two lengths, and a length beside a transfer coding, through: both are refused with
 * 400;
 *  - a body past the limit is read and thrown away up to DRAIN_MAX, so that the client gets to read its 413.
 *
 * A request has two owners: MHD until its completion callback, the user until the answer (or the stream's
 * end). The later of the two frees it.  dv_httpd_stop frees all that are left. */
#include "proto/rt/httpd_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/sys.h"

#include <sys/socket.h>
#include <unistd.h>

enum { STOP_RUNS = 16, IDLE_S = 120 };
#define DRAIN_MAX (64ull * 1024 * 1024)

static const char k_busy[] = "the server is stopping\n";

/* ---- running MHD ---- */

static void schedule(struct dv_httpd *d)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (MHD_get_timeout(d->mhd, &ms) == MHD_YES) {
        /* Without memory for the timer the next event still runs MHD. */
        (void)dv_timer_set(d->loop, &d->timer, dv_loop_now(d->loop) + ms * DV_MS);
    } else {
        dv_timer_cancel(d->loop, &d->timer);
    }
}

static void run_mhd(struct dv_httpd *d)
{
    (void)MHD_run(d->mhd);
    schedule(d);
}

static void on_epoll(struct dv_io *io, uint32_t events)
{
    (void)events;
    run_mhd(DV_CONTAINER_OF(io, struct dv_httpd, io));
}

static void on_timer(struct dv_timer *t)
{
    run_mhd(DV_CONTAINER_OF(t, struct dv_httpd, timer));
}

static void on_run(struct dv_defer *f)
{
    run_mhd(DV_CONTAINER_OF(f, struct dv_httpd, run));
}

/* ---- life of a request ---- */

static void req_free(struct dv_http_req *r)
{
    dv_io_del(r->d->loop, &r->gone);
    if (r->response)
        MHD_destroy_response(r->response);
    dv_list_remove(&r->node);
    dv_buf_deinit(&r->body);
    dv_buf_deinit(&r->out);
    dv_arena_deinit(&r->arena);
    dv_free(r);
}

void dv_httpd_unref(struct dv_http_req *r)
{
    if (!r->conn && r->is_user_done)
        req_free(r);
}

static void tell_gone(struct dv_http_req *r)
{
    void (*fn)(void *) = r->on_gone;
    r->on_gone = NULL;
    if (fn && !r->is_user_done)
        fn(r->user);
}

void dv_httpd_resume(struct dv_http_req *r)
{
    if (!r->is_suspended)
        return;
    r->is_suspended = false;
    dv_io_del(r->d->loop, &r->gone);
    MHD_resume_connection(r->conn);
    dv_loop_defer(r->d->loop, &r->d->run);
}

/* The socket said its peer is gone while MHD was not looking. */
static void on_hangup(struct dv_io *io, uint32_t events)
{
    struct dv_http_req *r = DV_CONTAINER_OF(io, struct dv_http_req, gone);
    (void)events;
    dv_io_del(r->d->loop, io);
    r->is_gone = true;
    dv_httpd_resume(r); /* MHD closes the connection at its next run; r lives at least until then */
    tell_gone(r);
}

void dv_httpd_suspend(struct dv_http_req *r)
{
    r->is_suspended = true;
    MHD_suspend_connection(r->conn);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    /* A unix socket tells a close from a half-close by itself; on TCP the peer's FIN is all there is to see.
     */
    uint32_t events = r->d->cfg.unix_path ? 0u : (uint32_t)EPOLLRDHUP;
    if (info && r->gone.fd < 0)
        (void)dv_io_add(r->d->loop, &r->gone, info->connect_fd, events,
                        NULL); /* failing: noticed at the write */
}

static void on_completed(void *cls, struct MHD_Connection *conn, void **con_cls,
                         enum MHD_RequestTerminationCode toe)
{
    struct dv_http_req *r = *con_cls;
    (void)cls, (void)conn, (void)toe;
    *con_cls = NULL;
    if (!r)
        return;
    dv_io_del(r->d->loop, &r->gone);
    r->conn = NULL;
    r->is_suspended = false;
    if (r->phase == READING) {
        r->is_user_done = true; /* it never saw the request */
    } else if (!r->is_user_done) {
        r->is_gone = true;
        dv_buf_deinit(&r->out);
        bool was_in_handler = r->is_in_handler;
        r->is_in_handler = true; /* the user may let go inside on_gone: r must outlive this function */
        tell_gone(r);
        r->is_in_handler = was_in_handler;
    }
    dv_httpd_unref(r);
}

/* ---- reading a request ---- */

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *conn)
{
    struct dv_httpd *d = cls;
    struct dv_http_req *r = dv_zalloc(sizeof(*r));
    if (!r)
        return NULL;
    r->d = d;
    r->conn = conn;
    r->gone = (struct dv_io){.fd = -1, .fn = on_hangup};
    dv_list_push_back(&d->reqs, &r->node);
    struct dv_sv path, query;
    (void)dv_sv_cut(dv_sv_c(uri), '?', &path, &query);
    r->path = dv_arena_strndup(&r->arena, path.p, path.n);
    r->query = dv_arena_strndup(&r->arena, query.p ? query.p : "", query.n);
    return r;
}

static size_t keep_escapes(void *cls, struct MHD_Connection *conn, char *s)
{
    (void)cls, (void)conn;
    return strlen(s);
}

struct framing {
    unsigned n_lengths, n_codings;
    uint64_t length;
    bool is_bad, wants_continue;
};

static enum MHD_Result on_field(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct framing *f = cls;
    (void)kind;
    struct dv_sv key = dv_sv_c(name), val = dv_sv_c(value ? value : "");
    if (dv_sv_eq_nocase(key, DV_SV("content-length"))) {
        f->n_lengths++;
        f->is_bad |= !dv_parse_u64(dv_sv_trim(val), &f->length);
    } else if (dv_sv_eq_nocase(key, DV_SV("transfer-encoding"))) {
        f->n_codings++;
    } else if (dv_sv_eq_nocase(key, DV_SV("expect"))) {
        f->wants_continue = true;
    }
    return MHD_YES;
}

static void refuse(struct dv_http_req *r, int status, const char *why)
{
    r->phase = WAITING;
    if (r->d->cfg.on_error)
        r->d->cfg.on_error(r->d->cfg.ctx, r, status, why);
    else
        dv_http_reply(r, status, "text/plain; charset=utf-8", dv_sv_c(why));
}

static void check_head(struct dv_http_req *r)
{
    struct framing f = {0};
    (void)MHD_get_connection_values(r->conn, MHD_HEADER_KIND, on_field, &f);
    if (f.is_bad || f.n_lengths > 1 || f.n_codings > 1 || (f.n_lengths && f.n_codings)) {
        refuse(r, 400, "the body's length is given more than once or is not a number\n");
        return;
    }
    bool is_large = f.length > r->d->cfg.body_max;
    /* Answer at once where the client asked first, or would send more than we care to throw away. */
    if (is_large && (f.wants_continue || f.length > DRAIN_MAX))
        refuse(r, 413, "the body is too large\n");
}

static enum MHD_Result take_body(struct dv_http_req *r, const char *data, size_t n)
{
    if (!r->n_dropped && dv_buf_add(&r->body, data, n) == DV_OK)
        return MHD_YES;
    r->n_dropped += n;
    return r->n_dropped > DRAIN_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result queue(struct dv_http_req *r)
{
    r->is_queued = true;
    enum MHD_Result rc = MHD_queue_response(r->conn, (unsigned)r->status, r->response);
    MHD_destroy_response(r->response); /* MHD holds its own reference */
    r->response = NULL;
    return rc;
}

/* Hand the request to the user, and either queue what came back or park the connection. */
static enum MHD_Result settle(struct dv_http_req *r)
{
    if (r->is_gone)
        return MHD_NO;
    if (r->response)
        return queue(r);
    if (r->phase == WAITING)
        dv_httpd_suspend(r);
    return MHD_YES;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                 const char *version, const char *data, size_t *n_data, void **con_cls)
{
    struct dv_http_req *r = *con_cls;
    (void)cls, (void)url, (void)version, (void)conn;
    if (!r || !r->path || !r->query || r->is_gone || (r->d->is_stopping && !r->is_head_seen))
        return MHD_NO;
    enum MHD_Result rc = MHD_YES;
    r->is_in_handler = true;
    if (!r->is_head_seen) {
        r->is_head_seen = true;
        dv_buf_init(&r->body, r->d->cfg.body_max);
        r->method = dv_arena_strdup(&r->arena, method);
        if (r->method)
            check_head(r);
        rc = !r->method ? MHD_NO : r->phase == READING ? MHD_YES : settle(r);
    } else if (*n_data) {
        rc = take_body(r, data, *n_data);
        *n_data = 0;
    } else if (r->phase == READING) {
        r->phase = WAITING;
        if (r->n_dropped)
            refuse(r, 413, "the body is too large\n");
        else if (!dv_httpd_parse_params(r))
            refuse(r, 503, "out of memory\n"); /* a parameter less would be another request */
        else
            r->d->cfg.on_request(r->d->cfg.ctx, r);
        rc = settle(r);
    } else if (!r->is_queued) {
        rc = settle(r);
    }
    r->is_in_handler = false;
    return rc;
}

/* ---- the server ---- */

static int open_socket(const struct dv_httpd_cfg *cfg, int *out_fd, struct dv_err *err)
{
    if (!cfg->on_request || !cfg->unix_path == !cfg->address)
        return dv_err_set(err, DV_INVALID, "HTTP server: one of a socket path and an address is needed");
    int rc = cfg->unix_path ? dv_listen_unix(cfg->unix_path, 0600, out_fd, err)
                            : dv_listen_tcp(cfg->address, 0, NULL, out_fd, err);
    /* Documented outcomes of the listener are failures of this call, except a bad address. */
    if (rc > 0 && rc != DV_INVALID && err)
        err->code = DV_E_IO;
    return rc > 0 && rc != DV_INVALID ? DV_E_IO : rc;
}

static struct MHD_Daemon *start_mhd(struct dv_httpd *d, int fd)
{
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_access, d,
                            MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_URI_LOG_CALLBACK, on_uri, d,
                            MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_COMPLETED,
                            on_completed, d, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
                            MHD_OPTION_CONNECTION_LIMIT, 1000u, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)(64 * 1024), MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
}

static int watch_mhd(struct dv_httpd *d, struct dv_err *err)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(d->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    if (!info)
        return dv_err_set(err, DV_E_IO, "HTTP server: the library was built without epoll");
    int rc = dv_io_add(d->loop, &d->io, info->epoll_fd, EPOLLIN, err);
    if (rc == DV_OK)
        schedule(d);
    return rc;
}

int dv_httpd_start(struct dv_loop *loop, const struct dv_httpd_cfg *cfg, struct dv_httpd **out,
                   struct dv_err *err)
{
    DV_AUTO_FD int fd = -1;
    int rc = open_socket(cfg, &fd, err);
    if (rc)
        return rc;
    struct dv_httpd *d = dv_zalloc(sizeof(*d));
    char *path = cfg->unix_path ? dv_strdup(cfg->unix_path) : NULL;
    if (!d || (cfg->unix_path && !path)) {
        dv_free(d);
        dv_free(path);
        if (cfg->unix_path)
            (void)unlink(cfg->unix_path);
        return dv_err_set(err, DV_E_NOMEM, "HTTP server");
    }
    *d = (struct dv_httpd){.loop = loop,
                           .cfg = *cfg,
                           .io = {.fd = -1, .fn = on_epoll},
                           .timer = {.fn = on_timer},
                           .run = {.fn = on_run},
                           .port = dv_socket_port(fd)};
    d->unix_path = path;
    d->cfg.unix_path = path;
    d->cfg.address = NULL;
    dv_list_init(&d->reqs);
    d->mhd = start_mhd(d, fd);
    if (d->mhd)
        (void)dv_steal_fd(&fd); /* MHD closes it */
    rc = d->mhd ? watch_mhd(d, err) : dv_err_set(err, DV_E_IO, "HTTP server did not start");
    if (rc) {
        dv_httpd_stop(d);
        return rc;
    }
    *out = d;
    return DV_OK;
}

int dv_httpd_port(const struct dv_httpd *d)
{
    return d->port;
}

/* What is parked must be resumed before MHD may stop: it gets an end first. */
static void end_requests(struct dv_httpd *d)
{
    DV_LIST_FOR_EACH_SAFE (it, &d->reqs) {
        struct dv_http_req *r = DV_LIST_ENTRY(it, struct dv_http_req, node);
        if (r->phase == READING || r->is_user_done)
            continue;
        bool had_conn = r->conn != NULL;
        tell_gone(r);
        if (!had_conn)
            continue; /* the user may have freed it just now */
        if (r->phase == WAITING)
            dv_http_reply(r, 503, "text/plain; charset=utf-8", dv_sv_c(k_busy));
        else if (r->phase == STREAMING)
            dv_http_stream_end(r);
    }
}

void dv_httpd_stop(struct dv_httpd *d)
{
    if (!d)
        return;
    d->is_stopping = true;
    if (d->mhd) {
        (void)close(MHD_quiesce_daemon(d->mhd)); /* no new connection */
        end_requests(d);
        for (int i = 0; i < STOP_RUNS && !dv_list_empty(&d->reqs); i++)
            (void)MHD_run(d->mhd);
        DV_LIST_FOR_EACH (it, &d->reqs)
            dv_httpd_resume(DV_LIST_ENTRY(it, struct dv_http_req, node));
    }
    dv_io_del(d->loop, &d->io);
    dv_timer_cancel(d->loop, &d->timer);
    if (d->mhd)
        MHD_stop_daemon(d->mhd);
    dv_defer_cancel(&d->run);
    DV_LIST_FOR_EACH_SAFE (it, &d->reqs) {
        struct dv_http_req *r = DV_LIST_ENTRY(it, struct dv_http_req, node);
        req_free(r);
    }
    if (d->unix_path)
        (void)unlink(d->unix_path);
    dv_free(d->unix_path);
    dv_free(d);
}
