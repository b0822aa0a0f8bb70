/* Placement among thousands of nodes: what dv_sched_place answers, without looking at every node.
 *
 * The index follows the views: whoever changes one says so (update, relabel), and the answer is then found in
 * about a microsecond, however many nodes there are.
 *   - A node that fits is found whenever there is one, whatever the size of the cluster.
 *   - Up to DV_SCHED_EXACT nodes the choice is dv_sched_place's own.
 *   - Beyond, preferences are followed as far as a bounded search sees: among the nodes promised least that
 * it met, and a few taken at random where those had replicas of the function already, or lacked its image.
 *     (Examining "enough" of the feasible machines in random order is what Borg calls relaxed randomization:
 *     Verma et al., EuroSys 2015, section 3.4; a few random probes per task are Sparrow's: Ousterhout et al.,
 *     SOSP 2013.)
 * One owner; no I/O; randomness is an argument. */
#ifndef DV_SCHED_INDEX_H
#define DV_SCHED_INDEX_H

#include "orchestrator/core/haves.h"
#include "orchestrator/core/sched.h"

enum { DV_SCHED_EXACT = 512, DV_SCHED_CLASSES_MAX = 64 };

struct dv_sched_vertex {
    int64_t free_bytes; /* most of any node below; -1: nothing fits */
    uint64_t id;        /* of the node that key belongs to */
    int32_t free_mcpu;  /* most of any node below */
    uint32_t key;       /* least of any node below: comes first */
};

struct dv_sched_class; /* the nodes that satisfy one list of constraints */

struct dv_sched_index {
    enum dv_spread how;
    struct dv_sched_vertex *v; /* a tournament tree: v[1] the root, v[cap + i] node i */
    size_t n, cap;             /* cap is 0 or a power of two */
    struct dv_sched_class *classes[DV_SCHED_CLASSES_MAX];
    size_t n_classes, next_class;
};

void dv_sched_index_init(struct dv_sched_index *ix, enum dv_spread how);
void dv_sched_index_deinit(struct dv_sched_index *ix);

/* So many nodes now: leaves beyond are empty, new ones too until they are updated.  DV_OK; DV_E_NOMEM
 * (nothing changed; making it smaller cannot fail). */
int dv_sched_index_resize(struct dv_sched_index *ix, size_t n);
/* Node i's readiness, capacity, promises or number of replicas changed. */
void dv_sched_index_update(struct dv_sched_index *ix, const struct dv_node_view *views, size_t i);
/* What constraints look at (name, arch, labels) changed, or another node has this number now. */
void dv_sched_index_relabel(struct dv_sched_index *ix, const struct dv_node_view *views, size_t i);

struct dv_sched_query {
    const struct dv_need *need;
    const struct dv_node_view *views; /* as many as the index has; n_of_function is set, has_image and
                                         n_primed are not looked at */
    const struct dv_have *primed;     /* nodes with a primed sandbox that fits; NULL: none */
    const struct dv_have *image[2];   /* nodes with the image, under one of two names; NULL: none */
    uint64_t seed;                    /* for choices among many nodes */
};

/* As dv_sched_place.  DV_OK, DV_NO_CAPACITY. */
int dv_sched_index_place(struct dv_sched_index *ix, const struct dv_sched_query *q, size_t *out_index);
/* How many more of this need the nodes could hold together; counting stops at limit, so it costs what is
 * found, not what there is. */
int64_t dv_sched_index_room(struct dv_sched_index *ix, const struct dv_sched_query *q, int64_t limit);

#endif
