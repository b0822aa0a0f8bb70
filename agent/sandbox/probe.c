/* Is a container listening yet?  A TCP connect, or a GET of its health path that answers below 400.
 *
 * The first probes come in quick steps (2, 5, 10 ms), since most functions listen within a few milliseconds
 * and every one of these is part of a cold start; after that at the function's own interval.  Eager ones, of
 * a program that begins in a sandbox made before, start at 0.3 ms and grow by half each time. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/h1up.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { EAGER_NS = 300000 };

struct sb_probe {
    struct sb_probe_cfg cfg;
    struct dv_addr address;
    struct dv_io io; /* connect probe */
    int fd;
    struct dv_h1up *up;    /* health path */
    struct dv_timer timer; /* next try, or the end of this one */
    bool is_trying;
    unsigned tries;
    uint64_t started_ns, told_ns;
    char path[512];
    char why[160];
};

static void try_now(struct sb_probe *p);

static void drop_try(struct sb_probe *p)
{
    if (p->io.fd >= 0)
        dv_io_del(p->cfg.loop, &p->io);
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
    dv_h1up_free(p->up);
    p->up = NULL;
    p->is_trying = false;
}

static uint64_t step_ns(const struct sb_probe *p)
{
    uint64_t step = p->tries <= 5 ? 2 : p->tries <= 10 ? 5 : p->tries <= 20 ? 10 : p->cfg.interval_ms;
    step *= DV_MS;
    if (p->cfg.is_eager && p->tries < 16) { /* half as long again each time: never found a third too late */
        step = EAGER_NS;
        for (unsigned i = 0; i < p->tries; i++)
            step += step / 2;
    }
    return step < p->cfg.interval_ms * DV_MS ? step : p->cfg.interval_ms * DV_MS;
}

static void finish(struct sb_probe *p, int code)
{
    drop_try(p);
    dv_timer_cancel(p->cfg.loop, &p->timer);
    p->cfg.on_done(p->cfg.ctx, code, p->why); /* may free p */
}

static void again(struct sb_probe *p, const char *why)
{
    uint64_t now = dv_loop_now(p->cfg.loop);
    drop_try(p);
    (void)dv_copy(p->why, sizeof(p->why), why);
    if (p->cfg.deadline_ns && now >= p->cfg.deadline_ns) {
        finish(p, DV_DEADLINE);
        return;
    }
    if (dv_timer_set(p->cfg.loop, &p->timer, now + step_ns(p))) {
        finish(p, DV_E_NOMEM);
        return;
    }
    if (now - p->told_ns >= SB_PROBE_IDLE_MS * DV_MS) {
        p->told_ns = now;
        p->cfg.on_waiting(p->cfg.ctx); /* may free p */
    }
}

static void on_timer(struct dv_timer *t)
{
    struct sb_probe *p = DV_CONTAINER_OF(t, struct sb_probe, timer);
    if (p->is_trying)
        again(p, p->cfg.path ? "its health path does not answer in time" : "connecting takes too long");
    else
        try_now(p);
}

/* ---- connect ---- */

static void on_connect(struct dv_io *io, uint32_t events)
{
    struct sb_probe *p = DV_CONTAINER_OF(io, struct sb_probe, io);
    int e = 0;
    socklen_t n = sizeof(e);
    (void)events;
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
        e = errno;
    if (e)
        again(p, strerror(e));
    else
        finish(p, DV_OK);
}

static void try_connect(struct sb_probe *p)
{
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_addr_connect(&p->address, &p->fd, &err);
    if (!rc)
        rc = dv_io_add(p->cfg.loop, &p->io, p->fd, EPOLLOUT, &err);
    if (rc)
        again(p, err.sys_errno ? strerror(err.sys_errno) : err.msg);
}

/* ---- health path ---- */

static void on_head(void *ctx, const struct dv_h1_head *head)
{
    struct sb_probe *p = ctx;
    char why[64];
    if (head->status < 200)
        return;
    (void)snprintf(why, sizeof(why), "its health path answers %d", head->status);
    if (head->status < 400)
        finish(p, DV_OK);
    else
        again(p, why);
}

static size_t on_data(void *ctx, struct dv_sv bytes)
{
    (void)ctx;
    return bytes.n;
}

static void on_trailers(void *ctx, struct dv_sv fields)
{
    (void)ctx;
    (void)fields;
}

static void on_end(void *ctx, bool is_reusable)
{
    (void)ctx;
    (void)is_reusable;
}

static void on_writable(void *ctx)
{
    (void)ctx;
}

static void on_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    (void)why;
    again(ctx, err && err->sys_errno ? strerror(err->sys_errno) : "its health path does not answer in HTTP");
}

static const struct dv_h1up_ops probe_ops = {.on_head = on_head,
                                             .on_data = on_data,
                                             .on_trailers = on_trailers,
                                             .on_end = on_end,
                                             .on_writable = on_writable,
                                             .on_error = on_error};

static void try_health(struct sb_probe *p)
{
    char fields[160];
    (void)snprintf(fields, sizeof(fields), "Host: %s\r\nUser-Agent: davit-probe\r\n", p->cfg.address);
    struct dv_h1up_request req = {
        .method = DV_SV("GET"), .target = dv_sv_c(p->path), .fields = dv_sv_c(fields), .body = DV_H1_NO_BODY};
    int rc = dv_h1up_connect(p->cfg.loop, &p->address, &probe_ops, p, &p->up, NULL);
    if (!rc)
        rc = dv_h1up_begin(p->up, &req);
    if (rc)
        again(p, dv_err_text(rc));
}

static void try_now(struct sb_probe *p)
{
    p->tries++;
    p->is_trying = true;
    if (dv_timer_set(p->cfg.loop, &p->timer, dv_loop_now(p->cfg.loop) + p->cfg.timeout_ms * DV_MS))
        finish(p, DV_E_NOMEM);
    else if (p->cfg.path)
        try_health(p);
    else
        try_connect(p);
}

int sb_probe_start(const struct sb_probe_cfg *cfg, struct sb_probe **out)
{
    struct sb_probe *p = dv_zalloc(sizeof(*p));
    if (!p)
        return DV_E_NOMEM;
    p->cfg = *cfg;
    p->fd = -1;
    p->io = (struct dv_io){.fd = -1, .fn = on_connect};
    p->timer.fn = on_timer;
    p->timer.is_precise = cfg->is_eager;
    p->started_ns = p->told_ns = dv_loop_now(cfg->loop);
    (void)snprintf(p->path, sizeof(p->path), "%s%s", cfg->path && cfg->path[0] == '/' ? "" : "/",
                   cfg->path ? cfg->path : "");
    int rc = dv_addr_parse(cfg->address, &p->address, NULL);
    if (!rc) /* now, but from the loop */
        rc = dv_timer_set(cfg->loop, &p->timer,
                          cfg->is_eager ? dv_clock_now_ns(dv_loop_clock(cfg->loop)) + EAGER_NS
                                        : p->started_ns);
    if (rc) {
        dv_free(p);
        return rc;
    }
    *out = p;
    return DV_OK;
}

void sb_probe_free(struct sb_probe *p)
{
    if (!p)
        return;
    drop_try(p);
    dv_timer_cancel(p->cfg.loop, &p->timer);
    dv_free(p);
}
