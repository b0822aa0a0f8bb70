/* Signals as events of a loop, through a signalfd. */
#include "proto/rt/sys.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct dv_signals {
    struct dv_loop *loop;
    struct dv_io io;
    int fd;
    void (*fn)(void *ctx, int signo);
    void *ctx;
};

static void on_readable(struct dv_io *io, uint32_t events)
{
    struct dv_signals *s = DV_CONTAINER_OF(io, struct dv_signals, io);
    struct signalfd_siginfo info;
    (void)events;
    /* One a turn: fn may stop and free s; what else waits is reported again, since the watch is
     * level-triggered. */
    if (read(s->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        s->fn(s->ctx, (int)info.ssi_signo);
}

int dv_signals_start(struct dv_loop *loop, const int *signals, size_t n, void (*fn)(void *ctx, int signo),
                     void *ctx, struct dv_signals **out, struct dv_err *err)
{
    struct dv_signals *s = dv_zalloc(sizeof(*s));
    if (!s)
        return dv_err_set(err, DV_E_NOMEM, "signals");
    *s = (struct dv_signals){.loop = loop, .io = {.fd = -1, .fn = on_readable}, .fn = fn, .ctx = ctx};
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < n; i++)
        (void)sigaddset(&set, signals[i]);
    int why = pthread_sigmask(SIG_BLOCK, &set, NULL);
    s->fd = why ? -1 : signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->fd < 0) {
        why = why ? why : errno;
        dv_free(s);
        return dv_err_sys(err, DV_E_IO, why, "signals");
    }
    int rc = dv_io_add(loop, &s->io, s->fd, EPOLLIN, err);
    if (rc) {
        (void)close(s->fd);
        dv_free(s);
        return rc;
    }
    *out = s;
    return DV_OK;
}

void dv_signals_stop(struct dv_signals *s)
{
    if (!s)
        return;
    dv_io_del(s->loop, &s->io);
    (void)close(s->fd);
    dv_free(s);
}
