/* The path of a request inside the agent: data links from gateways on one side, containers' HTTP/1.1 on the
 * other. N loops.  The agent's state loop tells it which replicas may be reached; all calls here on that
 * thread. */
#ifndef DV_CARRY_H
#define DV_CARRY_H

#include "proto/base/err.h"
#include "proto/rt/linkio.h"
#include "proto/rt/mailbox.h"

struct dv_carry;

struct dv_carry_cfg {
    const struct dv_clock *clock;
    int n_loops;
    uint64_t busy_poll_ns; /* dv_loop_busy_poll of the loops; 0: off */
    struct dv_mailbox *state;
    /* On the state loop: the container's side refused connections or broke (readiness should look again). */
    void (*on_trouble)(void *ctx, uint64_t replica, enum dv_link_reset what);
    /* On the state loop: a draining replica has no request inside any more. */
    void (*on_drained)(void *ctx, uint64_t replica);
    /* On the state loop: a request is held at a replica that sleeps, since held_ns (monotonic); answer with
     * dv_carry_replica_wake as soon as it can run.  May come once more than needed.  NULL: woken at once. */
    void (*on_wake)(void *ctx, uint64_t replica, uint64_t held_ns);
    /* On the state loop: after dv_carry_replica_remove, every connection to the replica is closed.  May be
     * NULL. */
    void (*on_closed)(void *ctx, uint64_t replica);
    /* On the state loop, after dv_carry_goaway: the last data link is gone.  Again, should one more have come
     * and gone. */
    void (*on_left)(void *ctx);
    void *ctx;
};

int dv_carry_start(const struct dv_carry_cfg *cfg, struct dv_carry **out, struct dv_err *err);
void dv_carry_free(struct dv_carry *c); /* resets every stream with SHUTDOWN, joins the loops */

/* Takes an open server link whose purpose is data (already detached from its loop); loops take turns. */
void dv_carry_adopt(struct dv_carry *c, struct dv_linkio *io);

struct dv_carry_replica {
    uint64_t id;
    const char *address; /* "172.17.0.2:8080" */
    uint32_t concurrency;
};
int dv_carry_replica_put(struct dv_carry *c,
                         const struct dv_carry_replica *r); /* may take requests from now on */
void dv_carry_replica_drain(struct dv_carry *c,
                            uint64_t id); /* refuses new ones; on_drained follows, at once when idle */
/* Put to sleep, before it is frozen: requests that come from now on are held until dv_carry_replica_wake and
 * reported through on_wake.  DV_OK; DV_NO_CAPACITY (a request is inside: nothing changed); DV_NOT_FOUND. */
int dv_carry_replica_sleep(struct dv_carry *c, uint64_t id);
/* It runs: held requests go on.  Harmless when it does not sleep or is not known. */
void dv_carry_replica_wake(struct dv_carry *c, uint64_t id);
/* When the last request left (or the replica was put), monotonic; 0 while one is inside.  DV_OK or
 * DV_NOT_FOUND. */
int dv_carry_idle_since(struct dv_carry *c, uint64_t id, uint64_t *out_since_ns);
/* Gone: requests inside end with `why` (EXITED ...).  DV_OK: on_closed follows, once (not after
 * dv_carry_free); DV_NOT_FOUND: there is no such replica, nothing follows. */
int dv_carry_replica_remove(struct dv_carry *c, uint64_t id, enum dv_link_reset why);
/* The same, with EXITED and words that a caller is told ("its process ended with exit code 3"); copied. */
int dv_carry_replica_ended(struct dv_carry *c, uint64_t id, const char *text);
/* Now, over the loops; DV_OK or DV_NOT_FOUND. */
int dv_carry_load(struct dv_carry *c, uint64_t id, uint64_t *out_in_flight, uint64_t *out_served);
/* Before the agent stops: gateways are told to open no new streams; those inside, and those on their way, go
 * on.  Links close one by one as their last stream ends; on_left follows, at once when there is none.  Links
 * adopted later are treated alike. */
void dv_carry_goaway(struct dv_carry *c);
uint64_t dv_carry_n_inside(struct dv_carry *c); /* requests inside containers now, over the loops */
size_t dv_carry_n_links(struct dv_carry *c);    /* data links, those on their way to a loop included */
void dv_carry_metrics(struct dv_carry *c, struct dv_buf *out);

#endif
