/* A link on a socket.
 *
 * Reading: as much as one turn finds, in a few large reads, so that one busy link does not starve the others.
 * Writing: whoever produced output calls dv_linkio_kick; the write happens once, at the end of the turn. When
 * the socket is full, EPOLLOUT continues; when the output has left, the machine tells streams that waited for
 * room.
 *
 * A peer is alive as long as bytes come.  After ping_ns of silence it is asked, after dead_ns it is given up:
 * a node that lost power is noticed without a FIN.  The same clock bounds connecting and the handshake.
 *
 * Leaving: the connection is not closed while the peer may have something on its way to us (a WINDOW, a
 * PING), since bytes that nobody reads turn a close into a reset, and a reset throws away what the peer has
 * not read yet.
 *
 * Owners may free the link inside every callback.  `depth` counts how deep we are inside the machine; a free
 * that comes meanwhile only silences it, the memory goes when the last frame of ours has returned. */
#include "proto/rt/linkio.h"
#include "proto/base/alloc.h"
#include "proto/base/auto.h"
#include "proto/rt/addr.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAX_READS = 4, KEEP_OUT_BYTES = 256 * 1024 };
#define REST_NS DV_S

struct dv_linkio {
    struct dv_loop *loop; /* NULL while detached */
    struct dv_io io;
    struct dv_timer timer;
    struct dv_defer defer;
    void *ctx; /* of the callbacks; the rest of what the link was made with is its own */
    void (*on_open)(void *ctx, struct dv_linkio *io);
    void (*on_closed)(void *ctx, int code, const struct dv_err *err);
    uint64_t ping_ns, dead_ns;
    struct dv_link *link;
    int fd;
    int connect_errno; /* connecting failed at once; told from the loop */
    uint64_t asked_ns; /* first ping, or first look, in this silence; 0: none */
    uint64_t heard_ns; /* when bytes last came */
    uint64_t used_ns;  /* when a stream was last seen on it */
    int depth;
    bool is_server, is_connecting, is_freed;
    bool is_leaving, is_shut; /* shut: our direction is closed */
    bool *out_detached;       /* set while on_open runs: a detached link may already live on another thread */
};

static void ignore_event(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    (void)ev;
}

/* Stop watching; the descriptor stays open. */
static void unwatch(struct dv_linkio *io)
{
    if (!io->loop)
        return;
    dv_io_del(io->loop, &io->io);
    dv_timer_cancel(io->loop, &io->timer);
    dv_defer_cancel(&io->defer);
    io->loop = NULL;
}

static void destroy(struct dv_linkio *io)
{
    unwatch(io);
    if (io->fd >= 0)
        (void)close(io->fd);
    dv_link_free(io->link);
    dv_free(io);
}

/* True when the owner freed the link meanwhile: it is gone now. */
static bool leave(struct dv_linkio *io)
{
    if (--io->depth || !io->is_freed)
        return false;
    destroy(io);
    return true;
}

/* Tell the owner; the link may be gone afterwards. */
static void fail(struct dv_linkio *io, int code, const struct dv_err *err)
{
    struct dv_buf *out = dv_link_out(io->link);
    bool may_be_reject = io->is_server; /* it should arrive, if it can */
    if (may_be_reject && io->fd >= 0 && dv_buf_len(out))
        (void)!send(io->fd, dv_buf_ptr(out), dv_buf_len(out), MSG_NOSIGNAL | MSG_DONTWAIT);
    unwatch(io);
    if (io->fd >= 0)
        (void)close(io->fd);
    io->fd = -1;
    io->depth++;
    io->on_closed(io->ctx, code, err);
    (void)leave(io);
}

static void fail_sys(struct dv_linkio *io, int sys_errno, const char *what)
{
    struct dv_err err = DV_ERR_INIT;
    int code = sys_errno ? dv_err_sys(&err, DV_E_NET, sys_errno, "%s", what)
                         : dv_err_set(&err, DV_CLOSED, "%s", what);
    fail(io, code, &err);
}

/* ---- writing ---- */

static int want_out(struct dv_linkio *io, bool on)
{
    return dv_io_mod(io->loop, &io->io, on ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void shut_when_done(struct dv_linkio *io)
{
    if (!io->is_leaving || io->is_shut || !dv_link_is_quiet(io->link) || dv_link_n_streams(io->link))
        return;
    io->is_shut = true;
    (void)shutdown(io->fd, SHUT_WR); /* fails only when the connection is gone, which reading tells */
}

/* Everything that can leave now.  False: the link is gone or has failed. */
static bool flush(struct dv_linkio *io)
{
    struct dv_buf *out = dv_link_out(io->link);
    struct dv_err err = DV_ERR_INIT;
    if (dv_link_failure(io->link)) { /* a WINDOW or RESET that was lost would leave a stream hanging */
        fail(io, dv_err_set(&err, dv_link_failure(io->link), "a frame of the link could not be made"), &err);
        return false;
    }
    if (io->is_shut) /* answers to what was on its way: nobody waits for them */
        dv_buf_clear(out);
    while (dv_buf_len(out)) {
        ssize_t n = send(io->fd, dv_buf_ptr(out), dv_buf_len(out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (want_out(io, true) == DV_OK)
                return true;
            errno = EIO;
        }
        if (n < 0) {
            fail_sys(io, errno, "writing to the link");
            return false;
        }
        dv_buf_consume(out, (size_t)n);
        if (!dv_buf_len(out))
            dv_buf_reset(out, dv_loop_now(io->loop) - io->used_ns < REST_NS ? KEEP_OUT_BYTES : 0);
        io->depth++;
        dv_link_flushed(io->link);
        if (leave(io))
            return false;
    }
    (void)want_out(io, false); /* at worst one turn too many */
    shut_when_done(io);
    return true;
}

static void on_defer(struct dv_defer *d)
{
    struct dv_linkio *io = DV_CONTAINER_OF(d, struct dv_linkio, defer);
    if (io->connect_errno)
        fail_sys(io, io->connect_errno, "connecting the link");
    else if (!io->is_connecting)
        (void)flush(io);
}

void dv_linkio_kick(struct dv_linkio *io)
{
    if (io->loop && (dv_buf_len(dv_link_out(io->link)) || dv_link_failure(io->link) || io->is_leaving))
        dv_loop_defer(io->loop, &io->defer);
}

void dv_linkio_goaway(struct dv_linkio *io)
{
    io->is_leaving = true;
    (void)dv_link_goaway(io->link); /* a failure is the link's, and seen when it is flushed */
    dv_linkio_kick(io);
}

void dv_linkio_flush(struct dv_linkio *io)
{
    assert(!io->depth);
    if (io->loop && !io->is_connecting && !io->connect_errno)
        (void)flush(io);
}

/* ---- reading ---- */

/* False: the link is gone or somebody else's. */
static bool tell_open(struct dv_linkio *io)
{
    bool is_detached = false;
    dv_linkio_kick(io);
    io->out_detached = &is_detached;
    io->depth++;
    io->on_open(io->ctx, io);
    if (is_detached)
        return false;
    io->out_detached = NULL;
    return !leave(io);
}

/* Let the machine take n new bytes, and what it left over when it opened.  False: gone, failed or detached.
 */
static bool take(struct dv_linkio *io, size_t n)
{
    struct dv_err err = DV_ERR_INIT;
    for (;;) {
        bool was_open = dv_link_is_open(io->link);
        io->depth++;
        int rc = dv_link_recv(io->link, n, &err);
        if (leave(io))
            return false;
        if (rc) {
            fail(io, rc, &err);
            return false;
        }
        if (was_open || !dv_link_is_open(io->link))
            return true;
        if (io->on_open && !tell_open(io))
            return false;
        n = 0;
    }
}

/* A busy link keeps its buffers, since the next request is near.  One without streams for a second, as
 * control links are and most data links of a large cluster, keeps none. */
static void rest(struct dv_linkio *io)
{
    uint64_t now = dv_loop_now(io->loop);
    if (dv_link_n_streams(io->link))
        io->used_ns = now;
    else if (now - io->used_ns >= REST_NS)
        dv_link_rest(io->link);
}

static void read_some(struct dv_linkio *io)
{
    rest(io);
    for (int i = 0; i < MAX_READS; i++) {
        char *p;
        size_t room;
        struct dv_err err = DV_ERR_INIT;
        if (dv_link_room(io->link, &p, &room)) {
            fail(io, dv_err_set(&err, DV_E_NOMEM, "reading from the link"), &err);
            return;
        }
        ssize_t n = recv(io->fd, p, room, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            fail_sys(io, n < 0 ? errno : 0, n < 0 ? "reading from the link" : "the peer closed the link");
            return;
        }
        io->heard_ns = dv_loop_now(io->loop);
        io->asked_ns = 0;
        if (!take(io, (size_t)n))
            return;
        if ((size_t)n < room)
            break;
    }
    rest(io);
    dv_linkio_kick(io);
}

static bool finish_connect(struct dv_linkio *io)
{
    int e = 0;
    socklen_t n = sizeof(e);
    if (getsockopt(io->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
        e = errno;
    if (e) {
        fail_sys(io, e, "connecting the link");
        return false;
    }
    io->is_connecting = false;
    io->heard_ns = dv_loop_now(io->loop);
    io->asked_ns = 0;
    return flush(io);
}

static void on_io(struct dv_io *w, uint32_t events)
{
    struct dv_linkio *io = DV_CONTAINER_OF(w, struct dv_linkio, io);
    if (io->is_connecting) {
        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            (void)finish_connect(io);
        return;
    }
    if (events & EPOLLOUT && !flush(io))
        return;
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        read_some(io);
}

/* ---- being alive ---- */

static void on_timer(struct dv_timer *t)
{
    struct dv_linkio *io = DV_CONTAINER_OF(t, struct dv_linkio, timer);
    uint64_t now = dv_loop_now(io->loop), silent = now > io->heard_ns ? now - io->heard_ns : 0;
    struct dv_err err = DV_ERR_INIT;
    if (io->asked_ns && now - io->asked_ns + io->ping_ns >= io->dead_ns) {
        (void)dv_err_set(&err, DV_DEADLINE, "the peer has been silent for %llu ms",
                         (unsigned long long)(silent / DV_MS));
        fail(io, DV_DEADLINE, &err);
        return;
    }
    if (silent >= io->ping_ns) {
        if (!io->asked_ns)
            io->asked_ns = now;
        if (!io->is_shut &&
            dv_link_ping(io->link, now) == DV_OK) /* during the handshake there is nobody to ask yet */
            dv_linkio_kick(io);
    }
    (void)dv_timer_set(io->loop, t, now + io->ping_ns); /* it has just left the heap: there is room */
}

/* ---- life ---- */

static void take_times(struct dv_linkio *io, const struct dv_linkio_cfg *cfg)
{
    io->ping_ns = cfg->ping_ns ? cfg->ping_ns : DV_S;
    io->dead_ns = cfg->dead_ns ? cfg->dead_ns : 5 * DV_S;
}

/* Takes fd (-1: connecting failed at once). */
static int create(const struct dv_linkio_cfg *cfg, int fd, struct dv_linkio **out, struct dv_err *err)
{
    struct dv_linkio *io = dv_zalloc(sizeof(*io));
    if (!io) {
        if (fd >= 0)
            (void)close(fd);
        return dv_err_set(err, DV_E_NOMEM, "link");
    }
    *io = (struct dv_linkio){.ctx = cfg->link.ctx,
                             .on_open = cfg->on_open,
                             .on_closed = cfg->on_closed,
                             .is_server = cfg->link.role == DV_LINK_SERVER,
                             .fd = fd};
    io->io = (struct dv_io){.fd = -1, .fn = on_io};
    io->timer.fn = on_timer;
    io->defer.fn = on_defer;
    dv_list_init(&io->defer.node);
    take_times(io, cfg);
    struct dv_link_cfg link = cfg->link;
    int rc = DV_OK;
    if (getrandom(link.nonce, sizeof(link.nonce), 0) != sizeof(link.nonce))
        rc = dv_err_sys(err, DV_E_IO, errno, "random bytes");
    if (!rc && dv_link_new(&link, &io->link))
        rc = dv_err_set(err, DV_E_NOMEM, "link");
    explicit_bzero(&link, sizeof(link));
    if (rc) {
        destroy(io);
        return rc;
    }
    *out = io;
    return DV_OK;
}

static int watch(struct dv_linkio *io, struct dv_loop *loop, uint32_t events, struct dv_err *err)
{
    if (io->fd >= 0) {
        int rc = dv_io_add(loop, &io->io, io->fd, events, err);
        if (rc)
            return rc;
    }
    io->heard_ns =
        dv_clock_now_ns(dv_loop_clock(loop)); /* not the turn's: the loop may not have started yet */
    io->asked_ns = 0;
    io->loop = loop;
    if (dv_timer_set(loop, &io->timer, io->heard_ns + io->ping_ns)) {
        unwatch(io);
        return dv_err_set(err, DV_E_NOMEM, "link timer");
    }
    return DV_OK;
}

/* Where dv_addr_near leads any user may have listened first, and could pass on what he reads to whom we
 * meant: only root and our own user are believed.  -1: nobody of them is there. */
static int connect_near(const char *address)
{
    DV_AUTO_FD int fd = -1;
    struct dv_addr near;
    struct ucred peer;
    socklen_t n = sizeof(peer);
    if (dv_addr_near(address, &near) || dv_addr_connect(&near, &fd, NULL) ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        return -1;
    return peer.uid == 0 || peer.uid == geteuid() ? dv_steal_fd(&fd) : -1;
}

int dv_linkio_connect(struct dv_loop *loop, const char *address, const struct dv_linkio_cfg *cfg,
                      struct dv_linkio **out, struct dv_err *err)
{
    struct dv_addr to;
    int rc = dv_addr_parse(address, &to, err);
    if (rc)
        return rc;
    int fd = -1;
    struct dv_err why = DV_ERR_INIT;
    if (cfg->is_near_first)
        fd = connect_near(address);
    if (fd < 0)
        (void)dv_addr_connect(&to, &fd, &why); /* its failure is told from the loop, like any later one */
    struct dv_linkio *io;
    rc = create(cfg, fd, &io, err);
    if (rc)
        return rc;
    io->is_connecting = true;
    io->connect_errno = why.sys_errno;
    rc = watch(io, loop, EPOLLIN | EPOLLOUT, err);
    if (rc) {
        destroy(io);
        return rc;
    }
    if (fd < 0)
        dv_loop_defer(loop, &io->defer);
    *out = io;
    return DV_OK;
}

int dv_linkio_accept(struct dv_loop *loop, int fd, const struct dv_linkio_cfg *cfg, struct dv_linkio **out,
                     struct dv_err *err)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* not a TCP socket: nothing lost */
    struct dv_linkio *io;
    int rc = create(cfg, fd, &io, err);
    if (rc)
        return rc;
    rc = watch(io, loop, EPOLLIN, err);
    if (rc) {
        destroy(io);
        return rc;
    }
    *out = io;
    return DV_OK;
}

struct dv_link *dv_linkio_link(struct dv_linkio *io)
{
    return io->link;
}

int dv_linkio_fd(const struct dv_linkio *io)
{
    return io->fd;
}

size_t dv_linkio_backlog(const struct dv_linkio *io)
{
    return dv_buf_len(dv_link_out(io->link));
}

void dv_linkio_free(struct dv_linkio *io)
{
    if (!io)
        return;
    if (!io->depth) {
        destroy(io);
        return;
    }
    io->is_freed = true;
    dv_link_set_handler(io->link, ignore_event, NULL);
    unwatch(io);
    if (io->fd >= 0)
        (void)close(io->fd);
    io->fd = -1;
}

void dv_linkio_detach(struct dv_linkio *io)
{
    unwatch(io);
    dv_link_set_handler(io->link, ignore_event, NULL);
    if (!io->out_detached)
        return;
    *io->out_detached = true;
    io->out_detached = NULL;
    io->depth--;
}

static void on_attached(struct dv_defer *d)
{
    struct dv_linkio *io = DV_CONTAINER_OF(d, struct dv_linkio, defer);
    io->defer.fn = on_defer;
    if (take(io, 0)) /* frames that came with the handshake */
        (void)flush(io);
}

int dv_linkio_attach(struct dv_linkio *io, struct dv_loop *loop, const struct dv_linkio_cfg *cfg,
                     struct dv_err *err)
{
    assert(!io->loop && io->fd >= 0);
    io->on_open = NULL;
    io->on_closed = cfg->on_closed;
    io->ctx = cfg->link.ctx;
    take_times(io, cfg);
    int rc = watch(io, loop, EPOLLIN, err);
    if (rc)
        return rc;
    dv_link_set_handler(io->link, cfg->link.on_event, cfg->link.ctx);
    io->defer.fn = on_attached;
    dv_loop_defer(loop, &io->defer);
    return DV_OK;
}
