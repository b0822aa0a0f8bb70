/* What loops share about a function and its replicas: counters, and the number of requests inside each
 * replica. A cell belongs to one loop, which alone writes it; everybody may read (relaxed: numbers for people
 * and for the autoscaler).  The in-flight count of a replica and the number of waiting requests are written
 * by every loop.
 *
 * Nobody sleeps while a slot is free: a loop that waits first adds itself to its cell's `waiting` and then
 * looks for a slot; a loop that leaves a slot first gives it back and then looks at the others' `waiting`.
 * Both orders are sequentially consistent, so one of the two sees the other. */
#ifndef DV_LIVE_H
#define DV_LIVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "orchestrator/gateway/gateway.h"

enum { DV_LIVE_BUCKETS = 14, DV_LIVE_CODES_MAX = 32 };
/* Upper bounds in microseconds; what is slower is in the count alone. */
extern const uint64_t dv_live_bounds_us[DV_LIVE_BUCKETS];

struct dv_live_hist {
    _Atomic uint64_t n, sum_us, bucket[DV_LIVE_BUCKETS]; /* bucket: not cumulative */
};

struct dv_live_code { /* one status code of one function in one loop */
    _Atomic(struct dv_live_code *) next;
    int status; /* 0: all that did not fit the table */
    struct dv_live_hist hist;
};

struct dv_live_fn;

struct dv_live_poke {
    struct dv_msg msg;
    struct dv_live_fn *fn;
    uint32_t loop; /* whose */
    _Atomic bool is_posted;
};

struct dv_live_cell {
    _Atomic uint64_t arrived, started, answered, failed, in_flight;
    _Atomic uint64_t waiting;         /* sequentially consistent, see above */
    _Atomic uint64_t oldest_since_ns; /* 0: nobody waits */
    _Atomic uint64_t last_activity_ns, service_ns;
    _Atomic uint64_t flight_ns, flight_at_ns; /* integral of in_flight until flight_at_ns */
    _Atomic uint64_t retried, rejected, cancelled;
    struct dv_live_hist wait;
    _Atomic(struct dv_live_code *) codes;
    int n_codes; /* the writer's own */
    struct dv_live_poke poke;
} __attribute__((aligned(64)));

struct dv_live_fn {
    _Atomic uint32_t refs;
    _Atomic uint32_t n_waiting; /* over all loops; bounds the queue */
    uint64_t uid;
    const char *label; /* "name.namespace"; behind the cells */
    void *owner;       /* the gateway */
    uint32_t n_loops;
    _Atomic(struct dv_live_cell *) cells[]; /* NULL: that loop has had nothing to do with it yet */
};

struct dv_live_replica {
    _Atomic uint32_t refs;
    _Atomic uint32_t in_flight;
    _Atomic uint32_t concurrency;
    _Atomic bool is_frozen; /* as last told: a hint */
    uint64_t id, node;
};

/* What that loop counts; NULL: nothing so far. */
static inline struct dv_live_cell *dv_live_cell(const struct dv_live_fn *f, uint32_t loop)
{
    return atomic_load(&f->cells[loop]);
}
static inline struct dv_live_code *dv_live_codes(const struct dv_live_fn *f, uint32_t loop)
{
    struct dv_live_cell *c = dv_live_cell(f, loop);
    return c ? atomic_load_explicit(&c->codes, memory_order_acquire) : NULL;
}
/* For the loop itself: its cell, which is there from now on.  NULL when out of memory. */
struct dv_live_cell *dv_live_cell_make(struct dv_live_fn *f, uint32_t loop);

/* One reference, the caller's.  DV_E_NOMEM. */
int dv_live_fn_new(uint64_t uid, const char *name, const char *ns, uint32_t n_loops, void *owner,
                   struct dv_live_fn **out);
struct dv_live_fn *dv_live_fn_ref(struct dv_live_fn *f);
void dv_live_fn_unref(struct dv_live_fn *f); /* NULL accepted */
int dv_live_replica_new(const struct dv_route_replica *r, struct dv_live_replica **out);
struct dv_live_replica *dv_live_replica_ref(struct dv_live_replica *r);
void dv_live_replica_unref(struct dv_live_replica *r);

/* Take a slot if one is free; give it back. */
bool dv_live_replica_enter(struct dv_live_replica *r);
void dv_live_replica_leave(struct dv_live_replica *r);
uint32_t dv_live_replica_free_slots(struct dv_live_replica *r);

/* Single-writer counters: no locked instruction. */
static inline void dv_live_add(_Atomic uint64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void dv_live_set(_Atomic uint64_t *c, uint64_t v)
{
    atomic_store_explicit(c, v, memory_order_relaxed);
}
static inline uint64_t dv_live_get(const _Atomic uint64_t *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}
void dv_live_hist_add(struct dv_live_hist *h, uint64_t us);

/* In-flight goes up or down by one at now_ns; keeps the integral. */
void dv_live_flight(struct dv_live_cell *c, int delta, uint64_t now_ns);
/* A request of this function ended with status after us microseconds. */
void dv_live_count(struct dv_live_cell *c, int status, uint64_t us);
/* Sum over the loops. */
void dv_live_load(const struct dv_live_fn *f, uint64_t now_ns, struct dv_load *out);

#endif
