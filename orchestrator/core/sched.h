/* Placement: filter, then score.  Pure. */
#ifndef DV_SCHED_H
#define DV_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/wire/types.h"

/* What the scheduler sees of a node. */
struct dv_node_view {
    uint64_t id;
    bool is_ready;           /* connected, engine up, not cordoned, not draining */
    const char *name, *arch; /* NULL: not known */
    const struct dv_kvs *labels;
    int64_t cpu_mcpu, memory_bytes;        /* capacity */
    int64_t promised_mcpu, promised_bytes; /* to replicas placed there */
    int64_t n_replicas, max_replicas;
    int64_t n_of_function; /* replicas of this very function there */
    bool has_image;
    int64_t n_primed; /* primed sandboxes that fit */
};

struct dv_need {
    int64_t cpu_mcpu, memory_bytes;
    const struct dv_strs *constraints; /* "label=value", "label!=value".  Every node has kubernetes.io/arch,
                                        * /os and /hostname, unless its labels say otherwise */
};

enum dv_spread { DV_SPREAD, DV_PACK };

/* Why a node was passed over. */
enum dv_misfit {
    DV_FITS,
    DV_MISFIT_NOT_READY,
    DV_MISFIT_CONSTRAINT,
    DV_MISFIT_CPU,
    DV_MISFIT_MEMORY,
    DV_MISFIT_REPLICAS,
    DV_MISFIT_N
};

enum dv_misfit dv_sched_fit(const struct dv_need *need, const struct dv_node_view *node);
/* Primed sandbox here > image here > fewest of this function (spread) or most used (pack) > least promised >
 * lowest id. DV_OK: *out_index; DV_NO_CAPACITY: nothing fits (out untouched).  O(n), no allocation. */
int dv_sched_place(const struct dv_need *need, const struct dv_node_view *nodes, size_t n, enum dv_spread how,
                   size_t *out_index);
/* How many more of this need the nodes could hold together; counting stops at limit. */
int64_t dv_sched_room(const struct dv_need *need, const struct dv_node_view *nodes, size_t n, int64_t limit);
/* "no node fits: 2 not ready, 1 without memory (needs 128Mi, most free 64Mi)" */
void dv_sched_explain(const struct dv_need *need, const struct dv_node_view *nodes, size_t n, char *out,
                      size_t cap);

#endif
