/* The agent's side of one gate: a listening socket until somebody has come, then that one connection.
 *
 * Only the first process of the box is taken.  Before the box is opened nothing else runs inside; afterwards
 * the function could come too, so once the process is known the kernel's word for who is calling is compared.
 * The path may be longer than a socket's address holds: it is reached through the directory's descriptor. */
#include "agent/sandbox/box.h"
#include "agent/sandbox/sandbox_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void shut(struct sb_gate *g, struct dv_io *io, int *fd)
{
    if (*fd < 0)
        return;
    dv_io_del(g->loop, io);
    (void)close(*fd);
    *fd = -1;
}

void sb_gate_close(struct sb_gate *g)
{
    shut(g, &g->listener, &g->listen_fd);
    shut(g, &g->conn, &g->fd);
    dv_buf_deinit(&g->out);
    g->n_in = 0;
}

/* ---- words ---- */

static void lost(struct sb_gate *g)
{
    sb_gate_close(g);
    g->on_lost(g->ctx); /* may free g */
}

/* False: the gate is closed or gone. */
static bool hear(struct sb_gate *g)
{
    struct dv_gate_word w;
    size_t used;
    int rc;
    while ((rc = dv_gate_word_read(dv_sv(g->in, g->n_in), &w, &used)) == DV_OK) {
        memmove(g->in, g->in + used, g->n_in - used);
        g->n_in -= used;
        if (!g->on_word(g->ctx, &w))
            return false;
    }
    if (rc == DV_AGAIN)
        return true;
    lost(g);
    return false;
}

static int flush(struct sb_gate *g)
{
    while (dv_buf_len(&g->out)) {
        ssize_t n = send(g->fd, dv_buf_ptr(&g->out), dv_buf_len(&g->out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            return DV_CLOSED;
        dv_buf_consume(&g->out, (size_t)n);
    }
    bool is_more = dv_buf_len(&g->out) > 0;
    if (!is_more)
        dv_buf_deinit(&g->out); /* it holds secrets of an environment, and is not needed again */
    return dv_io_mod(g->loop, &g->conn, is_more ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void on_conn(struct dv_io *io, uint32_t events)
{
    struct sb_gate *g = DV_CONTAINER_OF(io, struct sb_gate, conn);
    if ((events & EPOLLOUT) && flush(g)) {
        lost(g);
        return;
    }
    while (events & ~(uint32_t)EPOLLOUT) {
        ssize_t n = recv(g->fd, g->in + g->n_in, sizeof(g->in) - g->n_in, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            lost(g);
            return;
        }
        g->n_in += (size_t)n;
        if (!hear(g))
            return;
    }
}

/* ---- who comes ---- */

static bool is_welcome(const struct sb_gate *g, int fd, int64_t *out_pid)
{
    struct ucred who = {0};
    socklen_t n = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0)
        return false;
    *out_pid = who.pid;
    return !g->only_pid || !who.pid || who.pid == g->only_pid;
}

static void on_listener(struct dv_io *io, uint32_t events)
{
    struct sb_gate *g = DV_CONTAINER_OF(io, struct sb_gate, listener);
    int64_t pid = 0;
    (void)events;
    int fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (!is_welcome(g, fd, &pid) || dv_io_add(g->loop, &g->conn, fd, EPOLLIN, NULL)) {
        (void)close(fd); /* its own process comes again */
        return;
    }
    g->fd = fd;
    g->peer_pid = pid;
    g->n_in = 0;
    shut(g, &g->listener, &g->listen_fd);
}

static int open_listener(const char *dir)
{
    DV_AUTO_FD int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (at < 0 || fd < 0 || (unlinkat(at, DV_GATE_SOCK, 0) < 0 && errno != ENOENT))
        return -1;
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" DV_GATE_SOCK, at);
    if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || fchmodat(at, DV_GATE_SOCK, 0666, 0) < 0 ||
        listen(fd, 4) < 0)
        return -1;
    return dv_steal_fd(&fd);
}

int sb_gate_listen(struct sb_gate *g, const char *dir, struct dv_err *err)
{
    sb_gate_close(g);
    int fd = open_listener(dir);
    if (fd < 0)
        return dv_err_sys(err, DV_E_IO, errno, "a gate in %s", dir);
    int rc = dv_io_add(g->loop, &g->listener, fd, EPOLLIN, err);
    if (rc) {
        (void)close(fd);
        return rc;
    }
    g->listen_fd = fd;
    return DV_OK;
}

int sb_gate_say(struct sb_gate *g, struct dv_buf *msg)
{
    if (g->fd < 0)
        return DV_CLOSED;
    dv_buf_deinit(&g->out);
    g->out = *msg;
    *msg = (struct dv_buf)DV_BUF_INIT;
    return flush(g);
}

void sb_gate_init(struct sb_gate *g, struct dv_loop *loop,
                  bool (*on_word)(void *, const struct dv_gate_word *), void (*on_lost)(void *), void *ctx)
{
    *g = (struct sb_gate){.loop = loop,
                          .listener = {.fd = -1, .fn = on_listener},
                          .conn = {.fd = -1, .fn = on_conn},
                          .listen_fd = -1,
                          .fd = -1,
                          .on_word = on_word,
                          .on_lost = on_lost,
                          .ctx = ctx};
}
