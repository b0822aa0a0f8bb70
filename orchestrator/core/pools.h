/* Pools of primed sandboxes: how many of a kind the cluster keeps, and on which nodes.  Pure; any thread.
 *
 * How many: functions of one kind share a pool, so the largest scale.primed among them is what they get, not
 * the sum; sandboxes for requests that are expected (keepalive.h) come on top.  Who comes by the clock may
 * come together with others and counts whole; who comes at some time within a long wait counts by the chance
 * that it is within the time a taken sandbox takes to be replaced.
 *
 * Where: rendezvous hashing (Thaler, Ravishankar 1998).  Each kind ranks the nodes in its own order, which no
 * other node's coming and going changes; the places go down that ranking, one a node, then round again. */
#ifndef DV_POOLS_H
#define DV_POOLS_H

#include <stddef.h>
#include <stdint.h>
#include "proto/wire/types.h"

#define DV_POOLS_SANDBOX_BYTES (3 * 1024 * 1024ll) /* what a primed sandbox costs its node */
#define DV_POOLS_REFILL_NS     5000000000ull       /* a sandbox that was taken is replaced within */

/* What a node may hold: of its memory a tenth for what users ask, a fiftieth for what is expected. */
enum dv_pools_part { DV_POOLS_ASKED, DV_POOLS_EXPECTED, DV_POOLS_PARTS };
enum { DV_POOLS_NODE_MAX = 256 };
int64_t dv_pools_budget(enum dv_pools_part part, int64_t memory_bytes);

uint64_t dv_pools_hash(const struct dv_pool *kind); /* n apart; equal for kinds that are the same */

/* A thousandth of a sandbox is what a function counts that is expected within a window: 1 to 1000. */
int64_t dv_pools_share(uint64_t window_ns);

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
