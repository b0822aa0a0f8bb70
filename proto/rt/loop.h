/* One event loop per thread: epoll, timers, work at the end of a turn.
 * A turn: wait, read the clock once, run what is ready, run due timers, run the deferred work (where frames
 * gathered in the turn leave in one write).  Everything here belongs to the loop's own thread, except
 * dv_loop_wake and dv_loop_stop.  Callbacks may add, change and remove watchers and timers, their own too. */
#ifndef DV_LOOP_H
#define DV_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include "proto/base/list.h"
#include "proto/rt/clock.h"

struct dv_err;
struct dv_loop;

/* Caller's storage; embed it in the object that owns the descriptor. */
struct dv_io {
    int fd;          /* borrowed; -1 while not registered */
    uint32_t events; /* EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET as registered */
    void (*fn)(struct dv_io *io, uint32_t events);
};

struct dv_timer {
    uint64_t at_ns; /* absolute, monotonic */
    size_t pos;     /* 1-based place in the heap; 0 = not armed */
    void (*fn)(struct dv_timer *t);
    bool is_precise; /* due within some 100 us; others within a millisecond, which costs fewer wake-ups */
};

/* Work for the end of this turn; runs once per dv_loop_defer, in order of request. */
struct dv_defer {
    struct dv_list node;
    bool is_queued;
    void (*fn)(struct dv_defer *d);
};

int dv_loop_new(const struct dv_clock *clock, struct dv_loop **out, struct dv_err *err);
void dv_loop_free(struct dv_loop *l); /* NULL accepted; watchers and timers must be gone or are forgotten */
/* Runs on the calling thread until dv_loop_stop; 0, or DV_E_IO. */
int dv_loop_run(struct dv_loop *l);
/* One turn that waits at most max_wait_ms (-1: until something happens).  For tests and embedders. */
int dv_loop_turn(struct dv_loop *l, int max_wait_ms);
void dv_loop_stop(struct dv_loop *l); /* any thread */
/* Where short waits have become the rule, look again for so long before sleeping (busy_poll.h); 0, as in the
 * beginning: never.  Before the loop runs. */
void dv_loop_busy_poll(struct dv_loop *l, uint64_t window_ns);
uint64_t dv_loop_now(const struct dv_loop *l); /* monotonic ns of this turn */
const struct dv_clock *dv_loop_clock(const struct dv_loop *l);
/* Debug builds: abort when called on another thread than the loop's. */
void dv_loop_assert_here(const struct dv_loop *l);

/* io->fn must be set.  0, or DV_E_IO. */
int dv_io_add(struct dv_loop *l, struct dv_io *io, int fd, uint32_t events, struct dv_err *err);
int dv_io_mod(struct dv_loop *l, struct dv_io *io, uint32_t events);
/* After this no callback of io runs, not even one already collected in this turn.  Does not close fd. */
void dv_io_del(struct dv_loop *l, struct dv_io *io);

/* Arm, or move, a timer.  DV_E_NOMEM leaves it as it was. */
int dv_timer_set(struct dv_loop *l, struct dv_timer *t, uint64_t at_ns);
void dv_timer_cancel(struct dv_loop *l, struct dv_timer *t); /* harmless when not armed */

void dv_loop_defer(struct dv_loop *l, struct dv_defer *d);
void dv_defer_cancel(struct dv_defer *d);

#endif
