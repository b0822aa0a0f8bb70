/* Pools of primed sandboxes: how many of a kind the cluster keeps, and on which nodes.  Pure; any thread.
 *
 * How many: functions of one kind share a pool, so the largest scale.primed among them is what they get, not
 * the sum; sandboxes for requests that are expected (keepalive.h) come on top.  Who comes by the clock may
 * come together with others and counts whole; who comes at some time within a long wait counts by the chance
 * that it is within the time a taken sandbox takes to be replaced.  What functions in use take when they grow
 * nobody foretells one by one; of a kind it is a habit (dv_pools_habit), and where that is larger it counts
 * instead.
 *
 * Where: rendezvous hashing (Thaler, Ravishankar 1998).  Each kind ranks the nodes in its own order, which no
 * other node's coming and going changes; the places go down that ranking, one a node, then round again. */
#ifndef DV_POOLS_H
#define DV_POOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/wire/types.h"

#define DV_POOLS_SANDBOX_BYTES (3 * 1024 * 1024ll) /* what a primed sandbox costs its node */
#define DV_POOLS_REFILL_NS     5000000000ull       /* a sandbox that was taken is replaced within */

/* What a node may hold: of its memory a tenth for what users ask, a fiftieth for what is expected; and no
 * more than it says that it keeps (primed_max of its report). */
enum dv_pools_part { DV_POOLS_ASKED, DV_POOLS_EXPECTED, DV_POOLS_PARTS };
enum { DV_POOLS_NODE_MAX = 100 }; /* of a node that does not say */
int64_t dv_pools_budget(enum dv_pools_part part, int64_t memory_bytes, int64_t primed_max);

uint64_t dv_pools_hash(const struct dv_pool *kind); /* n apart; equal for kinds that are the same */

/* A thousandth of a sandbox is what a function counts that is expected within a window: 1 to 1000. */
int64_t dv_pools_share(uint64_t window_ns);

/* How often replicas of one kind are started: the most within one refill time, fading by half in ten minutes.
 * A habit only once they were started in enough different minutes (these fade by half in an hour): a burst or
 * two, or a test, keeps no sandboxes.  Zero to begin. */
struct dv_pools_habit {
    uint64_t window, minute; /* numbers of the newest */
    uint32_t n;              /* starts in that window */
    float level, minutes;
    uint64_t at_ns; /* faded until then */
};
void dv_pools_started(struct dv_pools_habit *h, uint64_t now_ns);
/* Sandboxes that the habit is worth. */
int64_t dv_pools_habitual(struct dv_pools_habit *h, uint64_t now_ns);
bool dv_pools_forgotten(const struct dv_pools_habit *h); /* nothing would be lost with it */

struct dv_pools_node {
    uint64_t id;
    int64_t room;  /* sandboxes that it may hold beside what it holds for others; not negative */
    int64_t n;     /* out */
    size_t index;  /* the caller's */
    uint64_t rank; /* scratch */
};
/* Spread n sandboxes over the nodes; returns how many found room.  The order of nodes is changed; what each
 * gets does not depend on it.  O(nodes). */
int64_t dv_pools_spread(uint64_t kind, int64_t n, struct dv_pools_node *nodes, size_t n_nodes);

#endif
