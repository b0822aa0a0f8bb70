/* The dispatcher of one function in one loop: replicas with their free slots, and a bounded FIFO of waiting
 * requests. A request meets a replica only when a slot is free (late binding).  The replica used last is
 * asked first, so that idle ones stay idle and can be frozen or stopped, and one that is frozen only when no
 * other has a free slot.  Slots are shared between loops
 * (live.h); a loop that leaves a slot and has nobody waiting pokes the loop whose waiter is oldest.  No
 * sockets, no clock: time is an argument. */
#ifndef DV_DISPATCH_H
#define DV_DISPATCH_H

#include "orchestrator/gateway/live.h"
#include "proto/base/list.h"
#include "proto/base/map.h"

struct dv_queue;
struct dv_slots {                 /* one replica in one loop */
    struct dv_live_replica *live; /* a reference */
    struct dv_queue *queue;       /* whose member it is */
    struct dv_list in_queue;      /* replicas of the function, most recently used first */
    struct dv_list in_node;       /* for the owner of the node's link */
    uint32_t n_inside;            /* requests of this loop in it */
    uint32_t n_misses;            /* refusals in a row */
    uint64_t suspended_until_ns;  /* after a refusal */
    bool is_wanted;               /* still in the set; otherwise it goes when the last request leaves */
    bool is_reachable;            /* the owner says so: the link to its node is open */
};

struct dv_waiter {
    struct dv_list node;
    uint64_t since_ns; /* when it began to wait */
    bool is_waiting;
};

struct dv_queue_ops {
    void (*poke)(void *ctx, struct dv_live_fn *fn, uint32_t loop); /* tell that loop to call dv_queue_next */
    void (*slots_added)(void *ctx, struct dv_slots *s);            /* set is_reachable, keep a list by node */
    void (*slots_removed)(void *ctx, struct dv_slots *s);          /* about to be freed */
};

struct dv_queue {
    struct dv_live_fn *live;   /* a reference */
    struct dv_live_cell *cell; /* this loop's in live */
    uint32_t loop;
    uint32_t max; /* waiting requests of the function, over all loops */
    struct dv_list waiters;
    struct dv_list replicas;
    struct dv_map by_live; /* struct dv_slots by the address of their live object */
    size_t n_waiting, n_replicas;
    uint64_t retry_at_ns; /* call dv_queue_next again then although nothing happened; 0: no need */
    const struct dv_queue_ops *ops;
    void *ctx;
};

/* Takes a reference to live.  DV_OK; DV_E_NOMEM (q untouched). */
int dv_queue_init(struct dv_queue *q, struct dv_live_fn *live, uint32_t loop, uint32_t max,
                  const struct dv_queue_ops *ops, void *ctx);
void dv_queue_deinit(struct dv_queue *q); /* nobody may wait or be inside */

/* The whole set of replicas; those already known keep their state and their place.  DV_OK or DV_E_NOMEM (set
 * unchanged). */
int dv_queue_set(struct dv_queue *q, struct dv_live_replica *const *set, size_t n);

/* A new request.  DV_OK: *out is its slot; DV_AGAIN: it waits; DV_NO_CAPACITY: the queue is full. */
int dv_queue_admit(struct dv_queue *q, struct dv_waiter *w, uint64_t now_ns, struct dv_slots **out);
/* A request that lost its slot before the function saw it goes back to where its age puts it, whatever the
 * bound. */
void dv_queue_put_back(struct dv_queue *q, struct dv_waiter *w);
/* The next waiting request that can run, with its slot; NULL when nobody waits, or no slot is free (or is due
 * to an older request of another loop; retry_at_ns is then set). */
struct dv_waiter *dv_queue_next(struct dv_queue *q, uint64_t now_ns, struct dv_slots **out);
/* A waiting request leaves: client gone, deadline, function removed. */
void dv_queue_drop(struct dv_queue *q, struct dv_waiter *w);
/* The request in this slot is over.  The caller then asks dv_queue_next. */
void dv_queue_leave(struct dv_queue *q, struct dv_slots *s, uint64_t now_ns);
/* The replica refused a request that it cannot have seen: ask others for a while. */
void dv_queue_refused(struct dv_queue *q, struct dv_slots *s, uint64_t now_ns);
void dv_queue_accepted(struct dv_slots *s); /* it answered: forget earlier refusals */

struct dv_waiter *dv_queue_first(const struct dv_queue *q); /* NULL when nobody waits */

#endif
