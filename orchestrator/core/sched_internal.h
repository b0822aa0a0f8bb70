/* What the scheduler's files share. */
#ifndef DV_SCHED_INTERNAL_H
#define DV_SCHED_INTERNAL_H

#include "orchestrator/core/sched.h"

/* Share of the node that is promised, in thousandths; the scarcer of cpu and memory counts. */
int64_t dv_sched_permille(const struct dv_node_view *n);
uint64_t dv_sched_constraints_hash(const struct dv_strs *constraints); /* NULL: none */
bool dv_sched_constraints_hold(const struct dv_strs *constraints, const struct dv_node_view *node);
/* How many of this need fit there; it is known that one does. */
int64_t dv_sched_room_on(const struct dv_need *need, const struct dv_node_view *node);

#endif
