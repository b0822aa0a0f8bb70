/* What the cluster's files share. */
#ifndef DV_CLUSTER_INTERNAL_H
#define DV_CLUSTER_INTERNAL_H

#include "orchestrator/core/cluster.h"
#include "orchestrator/core/due.h"
#include "orchestrator/core/sched_index.h"

#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/wire/codec.h"

enum { DV_CL_TEXT_MAX = 239, DV_CL_EXPLAINED = 16 };

struct event {
    struct dv_list node;
    uint64_t fn_uid, replica_id, node_id;
    const char *kind;
    char message[240];
};

/* Why a need has no place, so that a thousand functions that need the same ask once a second. */
struct explained {
    int64_t cpu_mcpu, memory_bytes;
    uint64_t constraints, at_ns; /* 0: nothing here */
    char text[DV_CL_TEXT_MAX + 1];
};

struct dv_cluster {
    struct dv_cluster_cfg cfg;
    struct dv_rng rng;
    uint64_t born_ns;
    bool is_learned;
    struct dv_map fns, nodes, replicas; /* by id */
    struct dv_node_view *views;         /* one a node, dense; node->index */
    struct dv_cluster_node **by_index;
    size_t n_views, cap_views;
    struct dv_sched_index index; /* over the views */
    struct dv_haves images;      /* by the node's index */
    struct dv_haves primed;      /* likewise: kinds of primed sandboxes that are ready, by cl_kind's name */
    struct dv_list active;       /* functions with something going on, the longest undecided first */
    struct dv_list busy;         /* of those: somebody waits or is inside, or a replica starts */
    struct dv_list lacking;      /* those for which somebody waits, or a replica has no place */
    struct dv_list due;          /* to be reconciled within this input */
    struct dv_list dirty;        /* functions with marks */
    struct dv_list held;         /* of those: more replicas to be told of, a little later */
    uint64_t now_ns;             /* of the input at hand, as far as it matters to these */
    struct dv_list pending;      /* replicas with marks */
    struct dv_list stops;        /* stops held back while learning */
    struct dv_list events;
    size_t n_events;
    struct explained explained[DV_CL_EXPLAINED];
    struct event *out_event;             /* handed out; freed at the next call */
    struct dv_cluster_replica *out_gone; /* likewise */
    struct dv_life_counts counts;
    struct dv_decision_log decisions;
    struct dv_dues dues;                            /* struct dv_cluster_keep, by due */
    struct dv_map kinds, wants;                     /* struct cl_kind, struct cl_want */
    struct dv_list dirty_wants, dirty_nodes, tells; /* tells: nodes to be told of their pools */
    bool nodes_changed;                             /* which may hold pools */
    bool primed_told, primed_seen; /* some node was to keep a sandbox, some node had one ready */
    struct dv_list habits;         /* kinds whose starts are remembered */
    uint64_t habits_at_ns;         /* they are looked at again */
};

enum dv_keep_phase {
    DV_KEEP_IN_USE,
    DV_KEEP_WAITS, /* at rest; something is to be made ready later */
    DV_KEEP_READY, /* it is */
    DV_KEEP_OVER   /* nobody came */
};

struct dv_cluster_keep {
    struct dv_cluster_fn *fn;
    struct dv_keep_history history;
    struct dv_keep_plan plan;
    enum dv_keep_phase phase;
    struct dv_due due;
    struct cl_want *want;   /* NULL: wants nothing of pools */
    struct dv_list of_want; /* in its askers */
    int64_t asks, expects;  /* scale.primed; thousandths of a sandbox */
};

#define REPLICA_OF_FN(n)   DV_LIST_ENTRY(n, struct dv_cluster_replica, of_fn)
#define REPLICA_OF_NODE(n) DV_LIST_ENTRY(n, struct dv_cluster_replica, of_node)

/* cluster.c */
void dv_cl_event(struct dv_cluster *c, const struct dv_cluster_fn *f, const struct dv_cluster_replica *r,
                 const struct dv_cluster_node *n, const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
void dv_cl_mark(struct dv_cluster *c, struct dv_cluster_replica *r, enum dv_cluster_mark mark);
/* Who may take requests changed.  is_urgent: one may no longer. */
void dv_cl_dirty_routes(struct dv_cluster *c, struct dv_cluster_fn *f, bool is_urgent);
/* It is active, decided about just now; in the busy list or not. */
void dv_cl_active(struct dv_cluster *c, struct dv_cluster_fn *f, bool is_busy);
/* An input begins. */
void dv_cl_begin(struct dv_cluster *c, uint64_t now_ns);
/* What counts every replica of this one is not repeated before so long. */
uint64_t dv_cl_pause_ns(const struct dv_cluster_fn *f);
void dv_cl_set_failing(struct dv_cluster *c, struct dv_cluster_fn *f, const char *text);
/* Put another text (cut at DV_CL_TEXT_MAX) in the place of *slot.  Without memory: a general one. */
void dv_cl_text_set(const char **slot, const char *text);
void dv_cl_dirty(struct dv_cluster *c, struct dv_cluster_fn *f);
void dv_cl_learn(struct dv_cluster *c, uint64_t now_ns); /* is the learning over? */

/* cluster_functions.c */
/* As soon as that is worth its while: for what happens to a single replica. */
void dv_cl_reconcile_soon(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns);
/* Reconcile it with the others that are due (dv_cl_reconcile_due). */
void dv_cl_due(struct dv_cluster *c, struct dv_cluster_fn *f);
void dv_cl_reconcile_due(struct dv_cluster *c, uint64_t now_ns);
void dv_cl_reconcile(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns);
void dv_cl_failed(struct dv_cluster *c, struct dv_cluster_fn *f, const struct dv_cluster_replica *r,
                  const struct dv_replica_report *rep, bool was_ready, uint64_t now_ns);
void dv_cl_fn_free(struct dv_cluster_fn *f);
/* f->hot is there afterwards.  DV_OK or DV_E_NOMEM. */
int dv_cl_heat(struct dv_cluster *c, struct dv_cluster_fn *f);

/* cluster_signals.c */
enum { CL_ASKS_MAX = 3 + DV_METRICS_MAX };
struct cl_asks {
    struct dv_scale_ask v[CL_ASKS_MAX];
    char text[CL_ASKS_MAX][DV_ASK_TEXT];
    size_t n;
};
/* f->hot is there. */
/* Its definition changed from `old` (NULL: it is new): what is known of metrics that stayed, stays.  DV_OK,
 * DV_E_NOMEM. */
int dv_cl_watch(struct dv_cluster_fn *f, const struct dv_function *old);
void dv_cl_watch_free(struct dv_cluster_fn *f);
/* f->asked was `from` before; f->hot->decision says why it is not now. */
void dv_cl_decided(struct dv_cluster *c, struct dv_cluster_fn *f, int64_t from, uint64_t now_ns);
void dv_cl_asks(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns,
                struct cl_asks *out);

/* cluster_replicas.c */
int dv_cl_replica_new(struct dv_cluster *c, uint64_t id, struct dv_cluster_fn *f, struct dv_cluster_node *n,
                      uint64_t now_ns, struct dv_cluster_replica **out);
/* Move along the life-cycle table; routes become dirty where it matters.  DV_OK or DV_INVALID. */
int dv_cl_move(struct dv_cluster *c, struct dv_cluster_replica *r, enum dv_life_event ev, uint64_t now_ns);
void dv_cl_why(struct dv_cluster_replica *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dv_cl_stop(struct dv_cluster *c, struct dv_cluster_replica *r, const char *why, uint64_t now_ns);
void dv_cl_gone(struct dv_cluster *c, struct dv_cluster_replica *r, uint64_t now_ns); /* nothing left of it */
/* The function, or the node, of a replica goes away. */
void dv_cl_detach_fn(struct dv_cluster *c, struct dv_cluster_replica *r);
void dv_cl_detach_node(struct dv_cluster *c, struct dv_cluster_replica *r);
/* Is to be replaced as soon as another can serve: older generation, draining node, start on a broken engine.
 */
bool dv_cl_is_leaving(const struct dv_cluster_replica *r);
/* Is where it can be reached, or was until a moment ago. */
bool dv_cl_is_counted(const struct dv_cluster *c, const struct dv_cluster_replica *r, uint64_t now_ns);

/* cluster_keep.c */
int dv_cl_keep_of(struct dv_cluster *c, struct dv_cluster_fn *f); /* f->keep is there.  DV_OK, DV_E_NOMEM */
/* There is a sign of use at that time; nothing went on since the last one when was_idle. */
void dv_cl_keep_used(struct dv_cluster *c, struct dv_cluster_fn *f, bool was_idle, uint64_t at_ns);
void dv_cl_keep_changed(struct dv_cluster *c, struct dv_cluster_fn *f);               /* its definition did */
void dv_cl_keep_rest(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns); /* it came to rest */
bool dv_cl_keep_holds(const struct dv_cluster_fn *f); /* a replica for the request that is expected */
void dv_cl_keep_give_up(struct dv_cluster *c, struct dv_cluster_fn *f); /* no longer */
void dv_cl_keep_policy(const struct dv_cluster_fn *f, struct dv_scale_policy *p);
void dv_cl_keep_explain(const struct dv_cluster_fn *f, char *reason, size_t cap); /* appended */
void dv_cl_keep_own_start(struct dv_cluster_fn *f, int64_t ready_us);
void dv_cl_keep_forget(struct dv_cluster *c, struct dv_cluster_fn *f);
void dv_cl_keep_tick(struct dv_cluster *c, uint64_t now_ns);

/* cluster_evict.c */
/* The node said how much memory it has available. */
void dv_cl_evict(struct dv_cluster *c, struct dv_cluster_node *n, int64_t available_bytes, uint64_t now_ns);

/* cluster_pools.c */
void dv_cl_pools_init(struct dv_cluster *c);
void dv_cl_pools_deinit(struct dv_cluster *c); /* after functions and nodes */
bool dv_cl_may_be_primed(const struct dv_fn_spec *spec);
bool dv_cl_pools_work(const struct dv_cluster *c); /* as far as was seen: nodes that were to keep some did */
int dv_cl_pools_fn(struct dv_cluster *c, struct dv_cluster_fn *f); /* new, or changed.  DV_OK, DV_E_NOMEM */
void dv_cl_pools_forget_fn(struct dv_cluster *c, struct dv_cluster_fn *f);
/* So many thousandths of a sandbox for a request that is expected; f->keep is there.  DV_OK, DV_E_NOMEM. */
int dv_cl_pools_expect(struct dv_cluster *c, struct dv_cluster_fn *f, int64_t permille);
void dv_cl_pools_node(struct dv_cluster *c, struct dv_cluster_node *n); /* its state changed */
void dv_cl_pools_forget_node(struct dv_cluster *c, struct dv_cluster_node *n);
/* A replica of it is started. */
void dv_cl_pools_started(struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns);
void dv_cl_pools_habits(struct dv_cluster *c, uint64_t now_ns); /* time passed */
void dv_cl_pools_settle(struct dv_cluster *c);
bool dv_cl_pools_unsettled(const struct dv_cluster *c);

/* cluster_primed.c */
struct cl_kind {
    uint64_t hash;
    char name[17];       /* the hash, for dv_haves */
    struct dv_pool pool; /* in arena */
    struct dv_arena arena;
    size_t n_wants, n_ready; /* that point here */
};
/* Made when it is not there; NULL: short of memory. */
struct cl_kind *dv_cl_kind_of(struct dv_cluster *c, const struct dv_pool *pool);
void dv_cl_kind_drop_unused(struct dv_cluster *c, struct cl_kind *k);
void dv_cl_kind_free(struct cl_kind *k);
void dv_cl_primed_forget_node(struct dv_cluster *c, struct dv_cluster_node *n);
void dv_cl_pools_report(struct dv_cluster *c, struct dv_cluster_node *n, const struct dv_pool *pools,
                        size_t n_pools);
/* NULL: no node has any.  Valid until the next report of pools, or until one is taken. */
struct cl_kind *dv_cl_primed_kind(const struct dv_cluster *c, const struct dv_fn_spec *spec);
const struct dv_have *dv_cl_primed_nodes(const struct dv_cluster *c, const struct cl_kind *k);
/* One is about to be opened there: fewer are ready, without waiting for the next report.  False: none is. */
bool dv_cl_primed_take(struct dv_cluster *c, const struct cl_kind *k, struct dv_cluster_node *n);

/* cluster_nodes.c */
void dv_cl_view_refresh(struct dv_cluster *c, struct dv_cluster_node *n);
void dv_cl_node_free(struct dv_cluster *c, struct dv_cluster_node *n);
/* What it may hold, or holds, changed. */
void dv_cl_view_changed(struct dv_cluster *c, const struct dv_cluster_node *n);
/* Who has this image: by its name, and by the name with its tag where it has none. */
void dv_cl_image_find(const struct dv_cluster *c, const char *image, const struct dv_have *out[2]);
void dv_cl_nodes_tick(struct dv_cluster *c, uint64_t now_ns);
/* Reconcile every function with a replica on this node, or for which there may be a place now. */
void dv_cl_reconcile_node(struct dv_cluster *c, struct dv_cluster_node *n, uint64_t now_ns);

#endif
