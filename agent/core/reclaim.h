/* Which frozen replica gives memory back while the node runs short of it.  Pure: no I/O, no clock, same input
 * gives same answer.
 *
 * The one that has been frozen longest comes first: it is the least likely to be called next, and what it
 * loses it reads back only then.  It goes step by step, since what a step gave is known only after it, and
 * the shortage may be over by then. */
#ifndef DV_RECLAIM_H
#define DV_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DV_RECLAIM_STEP_BYTES = 64 << 20, /* asked of a replica at once, at most */
    DV_RECLAIM_REST_BYTES = 1 << 20   /* left to each: less is not worth a call */
};

struct dv_reclaim_node {
    int64_t memory_bytes, available_bytes; /* of the machine */
    int64_t percent;                       /* short below this share available; 0: never */
    bool is_short;                         /* it was, at the last look: then until a quarter more is there */
};

struct dv_reclaim_replica { /* frozen ones */
    uint64_t id;
    uint64_t frozen_ms; /* for so long */
    int64_t memory_bytes;
    bool is_spent; /* gave less than it was asked for since it was frozen */
};

struct dv_reclaim_step {
    uint64_t id;
    int64_t bytes;
};

/* How much is missing; 0: the node is not short. */
int64_t dv_reclaim_missing(const struct dv_reclaim_node *node);
/* True: *out is the next step.  False: nothing is missing, or nobody has anything to give (*out untouched).
 */
bool dv_reclaim_next(const struct dv_reclaim_node *node, const struct dv_reclaim_replica *r, size_t n,
                     struct dv_reclaim_step *out);

#endif
