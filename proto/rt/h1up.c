/* One connection to an upstream, one request at a time.
 *
 *   phase:  IDLE --begin--> HEAD --head--> BODY ---------end---> IDLE (reusable) or DONE
 *                            | ^ 1xx   \-> RAW (101) --eof-----> DONE
 *                            \-/
 *
 * Writing and reading are independent: an answer may come before its request is complete, and an upstream
 * that stops reading (413 and close) has usually answered, so a failed write only stops writing; reading
 * decides what happened.
 *
 * Reading goes into one buffer per thread; what the owner does not take, or what is not yet a whole head,
 * moves to the connection's own.  An idle connection thus holds no buffers worth mentioning.
 *
 * While the owner has paused, readiness is not watched; a hang-up is reported by epoll all the same, so it
 * takes the descriptor out of the watch until the owner wants to read on.
 *
 * A connection may be used again only if nothing about it is in doubt: both messages complete and written,
 * the answer's length known, keep-alive agreed, not one byte too many received, and the upstream's direction
 * still open, whatever its head has promised: a request written behind such an end could not be told from one
 * that the upstream died of.
 *
 * An upstream may close an idle connection in the very moment that a request is written to it.  TCP tells
 * whether it can have read any of that: its end (FIN) acknowledges what had arrived before, and what arrives
 * later is answered by a reset.  An end, then a reset, and not one byte of the request acknowledged: it was
 * never there. */
#include "proto/rt/h1up.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/loop.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { READ_BYTES = 64 * 1024, MAX_READS = 4, KEEP_BYTES = 16 * 1024, MAX_CHUNK_FRAMING = 16 };
enum phase { IDLE, HEAD, BODY, RAW, DONE };

struct dv_h1up {
    struct dv_loop *loop;
    struct dv_io io;
    struct dv_defer defer;
    const struct dv_h1up_ops *ops;
    void *ctx;
    int fd;            /* -1 once failed or freed */
    int connect_errno; /* connecting failed at once; told from the loop */
    int depth;         /* callbacks running */
    bool is_connecting, is_freed;
    bool is_paused, is_resuming;
    bool is_used; /* a request before this one */
    /* our direction */
    struct dv_buf out;
    enum dv_h1_body request_body;
    uint64_t request_left; /* of a length */
    uint64_t n_written;    /* of this request */
    bool is_head_request, is_request_done, is_blocked;
    bool is_deaf;     /* the upstream reads no more: bytes are swallowed */
    bool shut_at_end; /* close our direction when everything is written; upgraded */
    bool is_finished; /* our direction of an upgraded connection */
    /* the upstream's direction */
    enum phase phase;
    struct dv_buf in; /* read, not yet taken */
    enum dv_h1_body answer_body;
    uint64_t answer_left;
    struct dv_h1_chunked chunked;
    size_t unchunked; /* bytes at the front of `in` that left the chunked decoder already */
    bool has_answer_bytes, keep_alive, has_eof;
    bool is_ending; /* an end stands behind what is still to be read */
};

static _Thread_local char scratch[READ_BYTES];

/* ---- life ---- */

static void close_fd(struct dv_h1up *u)
{
    if (u->fd < 0)
        return;
    dv_io_del(u->loop, &u->io);
    dv_defer_cancel(&u->defer);
    (void)close(u->fd);
    u->fd = -1;
}

static void destroy(struct dv_h1up *u)
{
    close_fd(u);
    dv_defer_cancel(&u->defer);
    dv_buf_deinit(&u->in);
    dv_buf_deinit(&u->out);
    dv_free(u);
}

static void enter(struct dv_h1up *u)
{
    u->depth++;
}

/* True while the connection still exists and works; the owner may have ended it in the callback. */
static bool leave(struct dv_h1up *u)
{
    if (--u->depth == 0 && u->is_freed) {
        destroy(u);
        return false;
    }
    return u->fd >= 0;
}

void dv_h1up_free(struct dv_h1up *u)
{
    if (!u)
        return;
    if (!u->depth) {
        destroy(u);
        return;
    }
    u->is_freed = true;
    close_fd(u);
}

static void fail(struct dv_h1up *u, enum dv_h1up_fail why, const struct dv_err *err)
{
    close_fd(u);
    u->phase = DONE;
    enter(u);
    u->ops->on_error(u->ctx, why, err);
    (void)leave(u);
}

/* The upstream has closed.  Did it so before any byte of this request had reached it? */
static bool has_missed_it(const struct dv_h1up *u)
{
    int domain = 0, unacked = 0;
    struct tcp_info info;
    socklen_t n_domain = sizeof(domain), n_info = sizeof(info);
    if (getsockopt(u->fd, SOL_SOCKET, SO_DOMAIN, &domain, &n_domain) < 0 || domain == AF_UNIX ||
        getsockopt(u->fd, IPPROTO_TCP, TCP_INFO, &info, &n_info) < 0 || info.tcpi_state != TCP_CLOSE)
        return false; /* not reset: it may be reading still */
    return ioctl(u->fd, SIOCOUTQ, &unacked) == 0 && (uint64_t)unacked >= u->n_written;
}

/* The upstream has closed or broken off (sys_errno 0: closed); what that means depends on how far we are. */
static void lost(struct dv_h1up *u, int sys_errno)
{
    struct dv_err err = DV_ERR_INIT;
    const char *what = u->is_connecting       ? "connecting to the upstream"
                       : u->phase == IDLE     ? "the upstream closed the idle connection"
                       : !u->has_answer_bytes ? "the upstream closed the connection without an answer"
                                              : "the upstream broke off in the middle of its answer";
    if (sys_errno)
        (void)dv_err_sys(&err, DV_E_NET, sys_errno, "%s", what);
    else
        (void)dv_err_set(&err, DV_E_NET, "%s", what);
    enum dv_h1up_fail why = u->is_connecting                 ? DV_H1UP_REFUSED
                            : u->phase == IDLE               ? DV_H1UP_IDLE_CLOSED
                            : u->has_answer_bytes            ? DV_H1UP_BROKEN
                            : !u->n_written                  ? DV_H1UP_UNSENT
                            : !sys_errno && has_missed_it(u) ? DV_H1UP_UNSENT
                            : u->is_used && u->phase == HEAD ? DV_H1UP_STALE
                                                             : DV_H1UP_BROKEN;
    fail(u, why, &err);
}

/* ---- writing ---- */

static bool wants_bytes(const struct dv_h1up *u)
{
    return !u->is_paused && !u->has_eof && u->phase != DONE;
}

/* Watch for what is of use now.  A descriptor taken out after a hang-up stays out. */
static void watch(struct dv_h1up *u)
{
    if (u->fd < 0 || u->io.fd < 0)
        return;
    uint32_t events = wants_bytes(u) || u->is_connecting ? EPOLLIN | EPOLLRDHUP : 0;
    if (dv_buf_len(&u->out) || u->is_connecting)
        events |= EPOLLOUT;
    (void)dv_io_mod(u->loop, &u->io,
                    events); /* EPOLL_CTL_MOD of a watched descriptor fails for want of nothing */
}

static void stop_writing(struct dv_h1up *u)
{
    u->is_deaf = true;
    dv_buf_clear(&u->out);
}

static void all_written(struct dv_h1up *u)
{
    dv_buf_reset(&u->out, KEEP_BYTES);
    if (!u->shut_at_end || u->phase != RAW)
        return;
    u->shut_at_end = false;
    (void)shutdown(u->fd, SHUT_WR); /* fails only when it is closed already */
}

static void flush(struct dv_h1up *u)
{
    while (dv_buf_len(&u->out)) {
        ssize_t n = send(u->fd, dv_buf_ptr(&u->out), dv_buf_len(&u->out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            stop_writing(u);
            break;
        }
        u->n_written += (uint64_t)n;
        dv_buf_consume(&u->out, (size_t)n);
    }
    if (!dv_buf_len(&u->out))
        all_written(u);
    watch(u);
    if (!u->is_blocked || dv_buf_len(&u->out) > DV_H1UP_OUT_BYTES / 2 || u->phase == DONE)
        return;
    if (u->request_body == DV_H1_UPGRADED && u->phase != RAW)
        return; /* waits for the 101 */
    u->is_blocked = false;
    enter(u);
    u->ops->on_writable(u->ctx);
    (void)leave(u);
}

/* ---- the answer ---- */

/* The answer is complete; n_left bytes came behind it. */
static void end_answer(struct dv_h1up *u, size_t n_left)
{
    bool is_reusable = u->keep_alive && !u->is_ending && u->answer_body != DV_H1_UNTIL_CLOSE &&
                       u->answer_body != DV_H1_UPGRADED && u->is_request_done && !u->is_deaf &&
                       dv_buf_len(&u->out) == 0 && n_left == 0;
    u->phase = is_reusable ? IDLE : DONE;
    u->is_paused = false;
    u->is_used = true;
    if (u->answer_body == DV_H1_UPGRADED)
        u->phase = RAW; /* our direction may go on */
    else if (!is_reusable)
        stop_writing(u);
    enter(u);
    u->ops->on_end(u->ctx, is_reusable);
    (void)leave(u);
}

static void bad_answer(struct dv_h1up *u, const struct dv_err *err)
{
    fail(u, DV_H1UP_BAD_ANSWER, err);
}

/* Each take_* uses up bytes from p[0..n) and returns how many; 0 means that it wants more, or that reading is
 * over. */

static size_t take_head(struct dv_h1up *u, const char *p, size_t n)
{
    struct dv_h1_head head;
    struct dv_err err = DV_ERR_INIT;
    size_t used = 0;
    int rc =
        dv_h1_parse_response(p, n, u->is_head_request ? DV_SV("HEAD") : DV_SV("GET"), &head, &used, &err);
    if (rc == DV_AGAIN)
        return 0;
    if (!rc && head.status == 101 && u->request_body != DV_H1_UPGRADED)
        rc = dv_err_set(&err, DV_INVALID, "the upstream switches protocols without having been asked");
    if (rc) {
        bad_answer(u, &err);
        return 0;
    }
    bool is_interim = head.status < 200 && head.status != 101;
    if (!is_interim) {
        u->answer_body = head.body;
        u->keep_alive = head.keep_alive;
        u->answer_left = head.content_length;
        dv_h1_chunked_init(&u->chunked);
        u->unchunked = 0;
        u->phase = head.body == DV_H1_UPGRADED ? RAW : BODY;
    }
    enter(u);
    u->ops->on_head(u->ctx, &head);
    if (!leave(u) || is_interim)
        return used;
    if (u->phase == RAW && (u->is_blocked || u->shut_at_end))
        dv_loop_defer(u->loop, &u->defer); /* it was waiting for this */
    bool is_empty = head.body == DV_H1_NO_BODY || (head.body == DV_H1_LENGTH && head.content_length == 0);
    if (is_empty && u->phase == BODY)
        end_answer(u, n - used);
    return used;
}

/* Hand n body bytes on; how many were taken.  *out_alive: the connection still is. */
static size_t give(struct dv_h1up *u, const char *p, size_t n, bool *out_alive)
{
    enter(u);
    size_t taken = u->ops->on_data(u->ctx, dv_sv(p, n));
    if (taken < n)
        u->is_paused = true;
    *out_alive = leave(u);
    return taken;
}

static size_t take_plain(struct dv_h1up *u, const char *p, size_t n)
{
    bool is_alive, has_length = u->answer_body == DV_H1_LENGTH;
    size_t run = has_length && u->answer_left < n ? (size_t)u->answer_left : n;
    size_t taken = give(u, p, run, &is_alive);
    if (!is_alive || !has_length)
        return taken;
    u->answer_left -= taken;
    if (u->answer_left == 0)
        end_answer(u, n - taken);
    return taken;
}

static size_t take_chunked(struct dv_h1up *u, const char *p, size_t n)
{
    bool is_alive;
    if (u->unchunked) {
        size_t taken = give(u, p, u->unchunked < n ? u->unchunked : n, &is_alive);
        if (is_alive)
            u->unchunked -= taken;
        return taken;
    }
    struct dv_err err = DV_ERR_INIT;
    enum dv_h1_chunk_event event;
    struct dv_sv run;
    size_t used;
    if (dv_h1_chunked_next(&u->chunked, p, n, &event, &run, &used, &err)) {
        bad_answer(u, &err);
        return 0;
    }
    if (event == DV_H1_CHUNK_DATA) { /* the run is the last of what was used */
        size_t taken = give(u, run.p, run.n, &is_alive);
        if (is_alive)
            u->unchunked = run.n - taken;
        return used - (run.n - taken);
    }
    if (event == DV_H1_CHUNK_TRAILERS) {
        enter(u);
        u->ops->on_trailers(u->ctx, run);
        if (!leave(u))
            return used;
    }
    if (event != DV_H1_CHUNK_MORE)
        end_answer(u, n - used);
    return used;
}

static size_t take(struct dv_h1up *u, const char *p, size_t n)
{
    switch (u->phase) {
    case HEAD:
        return take_head(u, p, n);
    case BODY:
        return u->answer_body == DV_H1_CHUNKED ? take_chunked(u, p, n) : take_plain(u, p, n);
    case RAW:
        return take_plain(u, p, n);
    default:
        return 0;
    }
}

/* As much of p[0..n) as the owner takes; how much that was. */
static size_t digest(struct dv_h1up *u, const char *p, size_t n)
{
    size_t done = 0;
    enter(u); /* keeps u in place for the caller's own leave */
    while (done < n && u->fd >= 0 && !u->is_paused) {
        size_t used = take(u, p + done, n - done);
        if (!used)
            break;
        done += used;
    }
    return done;
}

/* No request has been written to which these bytes could be the answer. */
static void fail_unasked(struct dv_h1up *u)
{
    struct dv_err err = DV_ERR_INIT;
    (void)dv_err_set(&err, DV_E_NET, "the upstream sent bytes that nobody asked for");
    fail(u, u->phase == IDLE ? DV_H1UP_IDLE_CLOSED : DV_H1UP_UNSENT, &err);
}

/* New bytes, in the thread's buffer.  False: the connection is gone. */
static bool digest_fresh(struct dv_h1up *u, const char *p, size_t n)
{
    if (u->phase == IDLE || (u->phase == HEAD && !u->n_written)) {
        fail_unasked(u);
        return false;
    }
    u->has_answer_bytes = true;
    size_t done = digest(u, p, n);
    if (!leave(u))
        return false;
    if (done < n && u->phase != DONE && dv_buf_add(&u->in, p + done, n - done)) {
        struct dv_err err = DV_ERR_INIT;
        (void)dv_err_set(&err, DV_E_NOMEM, "keeping bytes of an answer");
        fail(u, DV_H1UP_BROKEN, &err);
        return false;
    }
    return true;
}

static bool digest_kept(struct dv_h1up *u)
{
    if (!dv_buf_len(&u->in))
        return true;
    size_t done = digest(u, dv_buf_ptr(&u->in), dv_buf_len(&u->in));
    if (!leave(u))
        return false;
    dv_buf_consume(&u->in, done);
    if (!dv_buf_len(&u->in))
        dv_buf_reset(&u->in, KEEP_BYTES);
    return true;
}

static void on_eof(struct dv_h1up *u)
{
    if (u->phase == BODY && u->answer_body == DV_H1_UNTIL_CLOSE) {
        end_answer(u, 0);
        return;
    }
    if (u->phase != RAW) {
        lost(u, 0);
        return;
    }
    u->has_eof = true; /* nothing more to read; our direction may go on */
    end_answer(u, 0);
}

/* Read and digest until the socket is empty, the owner pauses, or others deserve a turn. */
static void read_on(struct dv_h1up *u)
{
    for (int i = 0; i < MAX_READS && wants_bytes(u); i++) {
        bool has_kept = dv_buf_len(&u->in) != 0;
        if (has_kept && dv_buf_reserve(&u->in, KEEP_BYTES)) {
            lost(u, ENOMEM);
            return;
        }
        char *p = has_kept ? dv_buf_end(&u->in) : scratch;
        size_t room = has_kept ? dv_buf_room(&u->in) : sizeof(scratch);
        ssize_t n = recv(u->fd, p, room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            lost(u, errno);
        if (n == 0)
            on_eof(u);
        if (n <= 0)
            break; /* an end stays readable: it must not be watched any longer */
        if (has_kept)
            dv_buf_commit(&u->in, (size_t)n);
        if (has_kept ? !digest_kept(u) : !digest_fresh(u, p, (size_t)n))
            return;
        if ((size_t)n < room)
            break;
    }
    watch(u);
}

/* ---- the loop's calls ---- */

static void finish_connect(struct dv_h1up *u)
{
    int e = 0;
    socklen_t n = sizeof(e);
    if (getsockopt(u->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
        e = errno;
    if (e) {
        lost(u, e);
        return;
    }
    u->is_connecting = false;
    flush(u);
}

static void on_io(struct dv_io *io, uint32_t events)
{
    struct dv_h1up *u = DV_CONTAINER_OF(io, struct dv_h1up, io);
    if (u->is_connecting) {
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            finish_connect(u);
        return;
    }
    enter(u);
    u->is_ending |= (events & EPOLLRDHUP) != 0;
    if (events & EPOLLOUT)
        flush(u);
    if (u->fd >= 0 && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        if (wants_bytes(u))
            read_on(u);
        else if (events & (EPOLLERR | EPOLLHUP)) /* would be reported for ever */
            dv_io_del(u->loop, &u->io);
    }
    (void)leave(u);
}

static void resume(struct dv_h1up *u)
{
    u->is_resuming = false;
    if (!digest_kept(u))
        return;
    if (u->io.fd < 0 && wants_bytes(u) &&
        dv_io_add(u->loop, &u->io, u->fd, EPOLLIN | EPOLLRDHUP, NULL)) { /* it hung up meanwhile */
        lost(u, ENOMEM);
        return;
    }
    watch(u);
}

static void on_defer(struct dv_defer *d)
{
    struct dv_h1up *u = DV_CONTAINER_OF(d, struct dv_h1up, defer);
    if (u->fd < 0) {
        lost(u, u->connect_errno);
        return;
    }
    enter(u);
    if (!u->is_connecting)
        flush(u);
    if (u->fd >= 0 && u->is_resuming)
        resume(u);
    (void)leave(u);
}

int dv_h1up_connect(struct dv_loop *loop, const struct dv_addr *to, const struct dv_h1up_ops *ops, void *ctx,
                    struct dv_h1up **out, struct dv_err *err)
{
    struct dv_h1up *u = dv_zalloc(sizeof(*u));
    if (!u)
        return dv_err_set(err, DV_E_NOMEM, "upstream connection");
    u->loop = loop;
    u->ops = ops;
    u->ctx = ctx;
    u->fd = -1;
    u->io = (struct dv_io){.fd = -1, .fn = on_io};
    u->defer.fn = on_defer;
    dv_list_init(&u->defer.node);
    u->is_connecting = true;
    struct dv_err why = DV_ERR_INIT;
    if (dv_addr_connect(to, &u->fd, &why)) {
        u->connect_errno = why.sys_errno; /* told from the loop, like any later failure */
        dv_loop_defer(loop, &u->defer);
    } else {
        int rc = dv_io_add(loop, &u->io, u->fd, EPOLLIN | EPOLLRDHUP | EPOLLOUT, err);
        if (rc) {
            destroy(u);
            return rc;
        }
    }
    *out = u;
    return DV_OK;
}

void dv_h1up_set_owner(struct dv_h1up *u, const struct dv_h1up_ops *ops, void *ctx)
{
    u->ops = ops;
    u->ctx = ctx;
}

/* ---- the request ---- */

static int put_head(struct dv_h1up *u, const struct dv_h1up_request *r)
{
    struct dv_buf *b = &u->out;
    int rc = dv_buf_reserve(b, r->method.n + r->target.n + r->fields.n + 80); /* the rest cannot fail then */
    if (rc) {
        dv_buf_clear(b);
        return rc;
    }
    (void)dv_buf_add_sv(b, r->method);
    (void)dv_buf_add_char(b, ' ');
    (void)dv_buf_add_sv(b, r->target);
    (void)dv_buf_add_sv(b, DV_SV(" HTTP/1.1\r\n"));
    (void)dv_buf_add_sv(b, r->fields);
    if (r->body == DV_H1_LENGTH) {
        (void)dv_buf_add_sv(b, DV_SV("Content-Length: "));
        (void)dv_buf_add_u64(b, r->content_length);
        (void)dv_buf_add_sv(b, DV_SV("\r\n"));
    } else if (r->body == DV_H1_CHUNKED) {
        (void)dv_buf_add_sv(b, DV_SV("Transfer-Encoding: chunked\r\n"));
    } else if (r->body == DV_H1_UPGRADED) {
        (void)dv_buf_add_sv(b, DV_SV("Connection: Upgrade\r\n"));
    }
    return dv_buf_add_sv(b, DV_SV("\r\n"));
}

int dv_h1up_begin(struct dv_h1up *u, const struct dv_h1up_request *req)
{
    if (u->phase == DONE || u->is_freed)
        return DV_CLOSED;
    if (u->phase != IDLE)
        return DV_E_BUG;
    int rc = put_head(u, req);
    if (rc)
        return rc;
    u->phase = HEAD;
    u->request_body = req->body;
    u->request_left = req->body == DV_H1_LENGTH ? req->content_length : 0;
    u->is_head_request = dv_sv_eq(req->method, DV_SV("HEAD"));
    u->is_request_done = req->body != DV_H1_CHUNKED && u->request_left == 0;
    u->n_written = 0;
    u->is_blocked = u->has_answer_bytes = u->is_paused = u->is_resuming = u->is_finished = false;
    dv_loop_defer(u->loop, &u->defer);
    return DV_OK;
}

static int put_bytes(struct dv_h1up *u, const void *p, size_t n)
{
    struct dv_buf *b = &u->out;
    int rc = dv_buf_reserve(b, n + MAX_CHUNK_FRAMING);
    if (rc)
        return DV_E_NOMEM;
    if (u->request_body == DV_H1_CHUNKED)
        (void)dv_buf_addf(b, "%zx\r\n", n);
    (void)dv_buf_add(b, p, n);
    if (u->request_body == DV_H1_CHUNKED)
        (void)dv_buf_add_sv(b, DV_SV("\r\n"));
    return DV_OK;
}

int dv_h1up_send(struct dv_h1up *u, const void *p, size_t n, size_t *out_taken)
{
    *out_taken = 0;
    bool is_raw = u->request_body == DV_H1_UPGRADED;
    if (u->request_body == DV_H1_LENGTH && n > u->request_left)
        return DV_INVALID;
    if (!is_raw && u->phase != DONE && u->is_request_done && n)
        return DV_INVALID;
    if (is_raw && u->is_finished)
        return DV_INVALID;
    size_t run = n;
    if (!u->is_deaf && u->phase != DONE) {
        size_t waiting = dv_buf_len(&u->out);
        size_t room =
            waiting >= DV_H1UP_OUT_BYTES || (is_raw && u->phase != RAW) ? 0 : DV_H1UP_OUT_BYTES - waiting;
        run = n < room ? n : room;
        u->is_blocked = run < n;
        int rc = run ? put_bytes(u, p, run) : DV_OK;
        if (rc)
            return rc;
        if (run)
            dv_loop_defer(u->loop, &u->defer);
    }
    if (u->request_body == DV_H1_LENGTH) {
        u->request_left -= run;
        u->is_request_done = u->request_left == 0;
    }
    *out_taken = run;
    return DV_OK;
}

int dv_h1up_finish(struct dv_h1up *u, struct dv_sv trailers)
{
    if (u->request_body == DV_H1_LENGTH && u->request_left)
        return DV_INVALID;
    if (u->is_deaf || u->phase == DONE) {
        u->is_request_done = true;
        return DV_OK;
    }
    if (u->request_body == DV_H1_UPGRADED) {
        u->shut_at_end = !u->is_finished;
        u->is_finished = true;
    } else if (u->request_body == DV_H1_CHUNKED && !u->is_request_done) {
        struct dv_buf *b = &u->out;
        if (dv_buf_reserve(b, trailers.n + 5))
            return DV_E_NOMEM;
        (void)dv_buf_add_sv(b, DV_SV("0\r\n"));
        (void)dv_buf_add_sv(b, trailers);
        (void)dv_buf_add_sv(b, DV_SV("\r\n"));
    }
    u->is_request_done = true;
    dv_loop_defer(u->loop, &u->defer);
    return DV_OK;
}

/* ---- reading, as the owner wants it ---- */

void dv_h1up_pause(struct dv_h1up *u)
{
    u->is_paused = true;
    watch(u);
}

void dv_h1up_resume(struct dv_h1up *u)
{
    if (!u->is_paused || u->fd < 0)
        return;
    u->is_paused = false;
    u->is_resuming = true;
    dv_loop_defer(u->loop, &u->defer);
}

bool dv_h1up_is_connected(const struct dv_h1up *u)
{
    return !u->is_connecting && u->fd >= 0;
}

bool dv_h1up_has_written(const struct dv_h1up *u)
{
    return u->n_written != 0;
}

size_t dv_h1up_backlog(const struct dv_h1up *u)
{
    return dv_buf_len(&u->out);
}
