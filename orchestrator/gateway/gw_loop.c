/* A gateway loop: its thread, its listeners, its pools. */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ACCEPTS_PER_TURN = 64, BACKLOG = 4096 };
#define ACCEPT_PAUSE_NS (100 * DV_MS)

/* ---- time ---- */

uint64_t dv_gw_wall_ns(struct dv_gw_loop *l)
{
    uint64_t now = dv_loop_now(l->loop);
    if (!l->wall_base_ns || now - l->mono_base_ns >= DV_S) {
        l->wall_base_ns = (uint64_t)dv_clock_wall_ms(dv_loop_clock(l->loop)) * DV_MS;
        l->mono_base_ns = now;
    }
    return l->wall_base_ns + (now - l->mono_base_ns);
}

struct dv_sv dv_gw_date(struct dv_gw_loop *l)
{
    uint64_t second = dv_gw_wall_ns(l) / DV_S;
    if (second != l->date_second || !l->date[0]) {
        time_t t = (time_t)second;
        struct tm tm;
        (void)gmtime_r(&t, &tm);
        (void)strftime(l->date, sizeof(l->date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        l->date_second = second;
    }
    return dv_sv_c(l->date);
}

/* ---- buffers ---- */

void dv_gw_buf_give(struct dv_gw_loop *l, struct dv_buf *b)
{
    if (!b->data)
        return;
    dv_buf_clear(b);
    if (l->n_bufs < GW_POOLED_BUFS && l->bufs_bytes + b->cap <= GW_POOLED_BYTES) {
        l->bufs_bytes += b->cap;
        l->bufs[l->n_bufs++] = *b;
    } else {
        dv_buf_deinit(b);
    }
    dv_buf_init(b, 0);
}

void dv_gw_buf_take(struct dv_gw_loop *l, struct dv_buf *b)
{
    if (!b->data && l->n_bufs) {
        *b = l->bufs[--l->n_bufs];
        l->bufs_bytes -= b->cap;
    }
}

/* ---- listening ---- */

static void accept_some(struct dv_gw_loop *l, struct dv_io *io, bool is_internal)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct dv_addr from = {.len = sizeof(from) - offsetof(struct dv_addr, sa)};
        int fd = accept4(io->fd, &from.sa, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == ECONNABORTED || errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK && !l->accept_timer.pos) {
                dv_log(DV_LOG_ERROR, "cannot accept connections", DV_LS("error", strerrordesc_np(errno)));
                (void)dv_io_mod(l->loop, io, 0); /* no use asking again at once */
                (void)dv_timer_set(l->loop, &l->accept_timer, dv_loop_now(l->loop) + ACCEPT_PAUSE_NS);
            }
            return;
        }
        if (l->n_conns >= l->g->cfg.max_connections) {
            dv_live_add(&l->n.refused, 1);
            (void)close(fd);
            continue;
        }
        if (!is_internal)
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1},
                             sizeof(int)); /* slower without, not wrong */
        dv_gw_conn_accept(l, fd, &from, is_internal);
    }
}

static void on_listener(struct dv_io *io, uint32_t events)
{
    (void)events;
    accept_some(DV_CONTAINER_OF(io, struct dv_gw_loop, listener), io, false);
}

static void on_internal(struct dv_io *io, uint32_t events)
{
    (void)events;
    accept_some(DV_CONTAINER_OF(io, struct dv_gw_loop, internal), io, true);
}

static void on_accept_timer(struct dv_timer *t)
{
    struct dv_gw_loop *l = DV_CONTAINER_OF(t, struct dv_gw_loop, accept_timer);
    if (l->listener.fd >= 0)
        (void)dv_io_mod(l->loop, &l->listener, EPOLLIN);
    if (l->internal.fd >= 0)
        (void)dv_io_mod(l->loop, &l->internal, EPOLLIN);
}

static int listen_tcp(struct dv_gateway *g, int *out_fd, bool shared, struct dv_err *err)
{
    DV_AUTO_FD int fd = socket(g->listen_addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        (shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one))))
        return dv_err_sys(err, DV_E_IO, errno, "listening on %s", g->cfg.listen);
    if (bind(fd, &g->listen_addr.sa, g->listen_addr.len) || (shared && listen(fd, BACKLOG))) {
        if (errno == EADDRINUSE)
            return dv_err_set(err, DV_E_IO,
                              "listening on %s: address already in use (another program has this port; "
                              "stop it, or choose another with --listen)",
                              g->cfg.listen);
        return dv_err_sys(err, DV_E_IO, errno, "listening on %s", g->cfg.listen);
    }
    socklen_t n = sizeof(g->listen_addr) - offsetof(struct dv_addr, sa);
    if (shared && !g->port) {
        if (getsockname(fd, &g->listen_addr.sa, &n))
            return dv_err_sys(err, DV_E_IO, errno, "listening on %s", g->cfg.listen);
        g->port = ntohs(g->listen_addr.sa.sa_family == AF_INET6 ? g->listen_addr.in6.sin6_port
                                                                : g->listen_addr.in.sin_port);
    }
    *out_fd = dv_steal_fd(&fd);
    return DV_OK;
}

/* SO_REUSEPORT would happily share the port with another program of the same user: ask without it first. */
static int probe_port(struct dv_gateway *g, struct dv_err *err)
{
    DV_AUTO_FD int fd = -1;
    return listen_tcp(g, &fd, false, err);
}

static int listen_unix(const char *path, int *out_fd, struct dv_err *err)
{
    struct dv_addr a = {.len = sizeof(a.un)};
    a.un.sun_family = AF_UNIX;
    if (!dv_copy(a.un.sun_path, sizeof(a.un.sun_path), path))
        return dv_err_set(err, DV_INVALID, "socket path too long: %s", path);
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (unlink(path) && errno != ENOENT)
        return dv_err_sys(err, DV_E_IO, errno, "removing the old socket %s", path);
    if (fd < 0 || bind(fd, &a.sa, a.len) || chmod(path, 0600) ||
        listen(fd, BACKLOG)) /* nobody connects before listen */
        return dv_err_sys(err, DV_E_IO, errno, "listening on %s", path);
    *out_fd = dv_steal_fd(&fd);
    return DV_OK;
}

static int watch(struct dv_gw_loop *l, struct dv_io *io, int *fd, struct dv_err *err)
{
    int rc = dv_io_add(l->loop, io, *fd, EPOLLIN, err);
    if (!rc)
        *fd = -1;
    return rc;
}

static int open_listeners(struct dv_gw_loop *l, struct dv_err *err)
{
    DV_AUTO_FD int fd = -1;
    DV_AUTO_FD int internal = -1;
    int rc = l->index == 0 && !l->g->port ? probe_port(l->g, err) : DV_OK;
    rc = rc ? rc : listen_tcp(l->g, &fd, true, err);
    rc = rc ? rc : watch(l, &l->listener, &fd, err);
    if (rc || l->index || !l->g->internal_path)
        return rc;
    rc = listen_unix(l->g->internal_path, &internal, err);
    return rc ? rc : watch(l, &l->internal, &internal, err);
}

static void close_listener(struct dv_gw_loop *l, struct dv_io *io)
{
    int fd = io->fd;
    if (fd < 0)
        return;
    dv_io_del(l->loop, io);
    (void)close(fd);
}

void dv_gw_loop_listen_stop(struct dv_gw_loop *l)
{
    /* Who stands in the accept queue has connected already: closing would reset it. */
    if (l->listener.fd >= 0)
        accept_some(l, &l->listener, false);
    if (l->internal.fd >= 0)
        accept_some(l, &l->internal, true);
    close_listener(l, &l->listener);
    close_listener(l, &l->internal);
}

/* ---- draining ---- */

void dv_gw_loop_drained_check(struct dv_gw_loop *l)
{
    if (!l->is_draining || l->has_drained || l->n_conns)
        return;
    l->has_drained = true;
    dv_timer_cancel(l->loop, &l->drain_timer);
    dv_gw_told_drained(l);
}

static void on_drain_timer(struct dv_timer *t)
{
    struct dv_gw_loop *l = DV_CONTAINER_OF(t, struct dv_gw_loop, drain_timer);
    DV_LIST_FOR_EACH_SAFE (it, &l->conns)
        dv_gw_conn_close(DV_LIST_ENTRY(it, struct dv_gw_conn, node));
    dv_gw_loop_drained_check(l);
}

void dv_gw_loop_drain(struct dv_gw_loop *l, uint64_t deadline_ns)
{
    l->is_draining = true;
    dv_gw_loop_listen_stop(l);
    dv_gw_conns_drain(l);
    if (dv_timer_set(l->loop, &l->drain_timer, deadline_ns))
        on_drain_timer(&l->drain_timer);
    dv_gw_loop_drained_check(l);
}

/* ---- life ---- */

static void on_flush(struct dv_defer *d)
{
    dv_gw_conns_flush(DV_CONTAINER_OF(d, struct dv_gw_loop, flush));
}

static void on_again(struct dv_timer *t)
{
    dv_gw_conns_again(DV_CONTAINER_OF(t, struct dv_gw_loop, again));
}

int dv_gw_loop_new(struct dv_gateway *g, uint32_t index, struct dv_gw_loop **out, struct dv_err *err)
{
    struct dv_gw_loop *l = dv_zalloc(sizeof(*l));
    if (!l)
        return dv_err_set(err, DV_E_NOMEM, "gateway loop");
    l->g = g;
    l->index = index;
    l->keys = g->keys ? dv_tls_keys_ref(g->keys) : NULL;
    l->listener = (struct dv_io){.fd = -1, .fn = on_listener};
    l->internal = (struct dv_io){.fd = -1, .fn = on_internal};
    l->accept_timer.fn = on_accept_timer;
    l->drain_timer.fn = on_drain_timer;
    l->flush.fn = on_flush;
    dv_map_init(&l->known, g->seed);
    dv_map_init(&l->fns, g->seed + 1);
    dv_map_init(&l->fns_by_uid, g->seed + 2);
    dv_map_init(&l->nodes, g->seed + 3);
    dv_rng_init(&l->rng, g->seed ^ (0x9e3779b97f4a7c15u * (index + 1)));
    dv_list_init(&l->conns);
    dv_list_init(&l->closed);
    dv_list_init(&l->dirty);
    dv_list_init(&l->hurried);
    l->again.fn = on_again;
    dv_list_init(&l->free_reqs);
    dv_list_init(&l->free_conns);
    int rc = dv_loop_new(g->cfg.clock, &l->loop, err);
    if (!rc)
        dv_loop_busy_poll(l->loop, g->cfg.busy_poll_ns);
    rc = rc ? rc : dv_mailbox_new(l->loop, &l->mailbox, err);
    rc = rc ? rc : open_listeners(l, err);
    if (rc) {
        dv_gw_loop_free(l);
        return rc;
    }
    if (g->log)
        l->log = dv_accesslog_ring(g->log, index);
    *out = l;
    return DV_OK;
}

static void *thread_main(void *arg)
{
    struct dv_gw_loop *l = arg;
    struct dv_err err = DV_ERR_INIT;
    char name[16];
    (void)snprintf(name, sizeof(name), "gateway/%d", l->index);
    (void)pthread_setname_np(pthread_self(), name); /* for top, perf, and whoever pins it */
    int rc = dv_loop_run(l->loop);
    if (rc)
        dv_log(DV_LOG_ERROR, "gateway loop ended", DV_LU("loop", l->index), DV_LE((err.code = rc, &err)));
    return NULL;
}

int dv_gw_loop_start(struct dv_gw_loop *l, struct dv_err *err)
{
    int rc = pthread_create(&l->thread, NULL, thread_main, l);
    if (rc)
        return dv_err_sys(err, DV_E_IO, rc, "starting a gateway loop");
    l->has_thread = true;
    return DV_OK;
}

void dv_gw_loop_join(struct dv_gw_loop *l)
{
    if (l->has_thread) {
        dv_loop_stop(l->loop);
        (void)pthread_join(l->thread, NULL);
        l->has_thread = false;
    }
    l->is_stopped = true;
}

void dv_gw_loop_free(struct dv_gw_loop *l)
{
    if (!l)
        return;
    dv_gw_loop_join(l);
    dv_mailbox_free(l->mailbox);
    if (l->loop) {
        close_listener(l, &l->listener);
        close_listener(l, &l->internal);
        dv_gw_conns_free(l);
        dv_gw_api_free(l);
        dv_gw_fns_free(l);
        dv_gw_nodes_free(l);
    }
    for (size_t i = 0; i < l->n_bufs; i++)
        dv_buf_deinit(&l->bufs[i]);
    dv_loop_free(l->loop);
    dv_tls_keys_unref(l->keys);
    dv_free(l);
}
