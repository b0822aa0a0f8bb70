/* The cluster as a state machine: what is wanted and what was seen go in, actions come out as data.
 *
 * Inputs are the functions dv_cluster_fn_*, _node_*, _reports, _demand, _load, _tick; each may leave actions
 * behind, which dv_cluster_next hands out one by one.  Actions are kept as marks on functions and replicas,
 * not as a queue: one that was not carried out (a link broke) is found again by comparing wanted with seen,
 * at the next full report or tick, and every command is safe to repeat.
 *
 * No I/O, no clock, no log; randomness (replica ids) from the seed.  One owner (the state loop).
 * The structs below are for reading; only the core writes them. */
#ifndef DV_CLUSTER_H
#define DV_CLUSTER_H

#include "orchestrator/core/autoscale.h"
#include "orchestrator/core/crashloop.h"
#include "orchestrator/core/decisions.h"
#include "orchestrator/core/haves.h"
#include "orchestrator/core/keepalive.h"
#include "orchestrator/core/lifecycle.h"
#include "orchestrator/core/metric.h"
#include "orchestrator/core/sched.h"
#include "orchestrator/core/signals.h"
#include "proto/base/list.h"
#include "proto/base/map.h"
#include "proto/base/rng.h"

struct dv_cluster_cfg {
    uint64_t seed;
    uint64_t node_lost_ns; /* 0: 10 s.  Silence after which a node's replicas are given up */
    uint64_t suspect_ns;   /* 0: 2 s.  Cut off for this long, its replicas are replaced where there is room */
    uint64_t learn_ns;    /* 0: 5 s.  After the beginning, for nodes to say what they hold; nothing is stopped
                             before */
    uint64_t unplaced_ns; /* 0: 5 s.  Without a place for this long, waiting callers are told so */
    enum dv_spread spread;
    int64_t default_idle_ms; /* of functions that say nothing of idle; 0: the table's */
    struct dv_keep_cfg keep;
};

enum dv_cluster_mark { /* what is to be done about a replica */
                       DV_MARK_NONE,
                       DV_MARK_START,
                       DV_MARK_STOP,
                       DV_MARK_FORGET
};

/* What is kept of a function only while something goes on: made of the definition when it wakes, forgotten
 * when it is at rest (no replica, nobody waits, nothing failed lately). */
struct dv_cluster_hot {
    struct dv_scale_policy policy;
    struct dv_scale_state scale;
    struct dv_scale_decision decision;
    struct dv_backlog backlog;
    bool is_evicted; /* its idle time is over, since a node is short of memory; until it is used */
};

/* The metrics of a function, in the order of its definition. */
struct dv_cluster_watch {
    size_t n;
    struct dv_metric_track v[];
};

struct dv_cluster_fn {
    uint64_t uid, generation;
    const struct dv_function
        *def; /* borrowed from the caller: until the next fn_put of this uid, or fn_remove */
    struct dv_cluster_hot *hot; /* NULL: at rest */
    int32_t scheduled_min;      /* what an open window of its schedule asks for; 0: none is open */
    int64_t asked;              /* what the autoscaler would like; decision.wanted is what can be had of it */
    struct dv_crashloop crash;
    struct dv_list replicas;        /* struct dv_cluster_replica, by of_fn */
    uint64_t unplaced_since_ns;     /* 0: all have a place */
    uint64_t asked_ns;              /* somebody began to wait for a replica; 0: nobody does */
    const char *failing;            /* told to callers at once; empty: they may wait.  Never NULL */
    const char *trouble;            /* last failure, for a person; empty once it was overcome.  Never NULL */
    struct dv_cluster_watch *watch; /* NULL: it names no metrics */
    struct dv_decisions decisions;  /* its last changes of `asked` */
    /* internal */
    struct dv_cluster_keep *keep; /* its habits, and what it wants of pools; NULL: neither is known */
    uint64_t used_ns;             /* last sign of use; 0: none yet */
    uint32_t own_start_us;        /* from its program's start to its first answer; 0: not known */
    uint32_t n_replicas;          /* in the list */
    uint64_t reconciled_ns;
    struct dv_list active, busy, dirty, lacking, due;
    uint64_t routed_ns; /* routes were told last */
    bool routes_dirty, routes_urgent, failing_dirty, spent_override;
};

struct dv_cluster_replica {
    uint64_t id, fn_uid, generation;
    struct dv_cluster_fn *fn;     /* NULL: of no function that is known (any more) */
    struct dv_cluster_node *node; /* NULL once the node is lost or removed */
    enum dv_replica_state state;
    enum dv_reason reason;
    bool is_adopted;   /* found, not made */
    uint64_t since_ns; /* of this state */
    uint64_t asked_ns, placed_ns, sent_ns, warm_ns;
    int64_t in_flight;
    struct dv_usage usage;
    char why[160]; /* it is where it is */
    /* internal */
    struct dv_list of_fn, of_node, pending;
    enum dv_cluster_mark mark;
    bool was_reported, in_last_full, is_promised;
    int64_t promised_mcpu, promised_bytes;
};

struct dv_cluster_node {
    uint64_t id;
    bool is_connected, is_cordoned, is_draining, is_lost;
    bool is_reported; /* its own state is known */
    bool is_learned;  /* it has said what it holds, on this connection */
    bool engine_ok;
    uint64_t seen_ns, down_ns;
    struct dv_list replicas; /* struct dv_cluster_replica, by of_node */
    /* internal */
    int64_t memory_bytes;         /* as reported; what pools hold is taken off in the view */
    int64_t primed_max;           /* likewise */
    struct dv_list places, ready; /* primed sandboxes that it should keep, and that it has */
    struct dv_list pools_dirty;
    int64_t n_places[2], share;
    bool has_places, pools_told; /* pools may be kept on it; it was told of them on this connection */
    size_t index;
    char name[64], arch[24];
    struct dv_have_list images, primed;
    struct dv_kvs labels; /* one block */
};

enum dv_action_kind {
    DV_ACT_START,   /* replica, node, fn: send `start` */
    DV_ACT_STOP,    /* replica, node: send `stop`; fn NULL when it is unknown */
    DV_ACT_FORGET,  /* replica is gone and will not be spoken of again (the pointer is valid for this action
                       only) */
    DV_ACT_ROUTES,  /* fn: the set of replicas that may take requests changed */
    DV_ACT_FAILING, /* fn: fn->failing changed */
    DV_ACT_AWAKE,   /* fn: the override 0 is spent; put it back to -1 for good */
    DV_ACT_POOLS,   /* node: send `pools`, all of dv_cluster_pools */
    DV_ACT_EVENT    /* something happened that a person may want to know */
};

struct dv_action {
    enum dv_action_kind kind;
    const struct dv_cluster_fn *fn;
    const struct dv_cluster_replica *replica;
    const struct dv_cluster_node *node;
    /* EVENT */
    uint64_t fn_uid, replica_id, node_id;
    const char *event; /* "placed" "ready" "failed" "stopped" "scaled" "unplaceable" "adopted" "lost" ... */
    char message[240];
};

struct dv_cluster;

int dv_cluster_new(const struct dv_cluster_cfg *cfg, uint64_t now_ns,
                   struct dv_cluster **out); /* DV_OK, DV_E_NOMEM */
void dv_cluster_free(struct dv_cluster *c);

/* ---- wanted ---- */
/* New, or changed: of another generation its replicas are replaced, new ones first.  DV_OK, DV_E_NOMEM. */
int dv_cluster_fn_put(struct dv_cluster *c, const struct dv_function *def, uint64_t now_ns);
/* A new function begins with so many replicas; no more than its minimum says nothing. */
void dv_cluster_fn_begin(struct dv_cluster *c, uint64_t uid, int64_t replicas, uint64_t now_ns);
/* Replicas now, once: kept for a window, then the autoscaler's business again.  Ends a pin; the definition
 * without it is put afterwards. */
void dv_cluster_fn_set(struct dv_cluster *c, uint64_t uid, int64_t replicas, uint64_t now_ns);
void dv_cluster_fn_remove(struct dv_cluster *c, uint64_t uid, uint64_t now_ns);

/* ---- nodes ---- */
/* A node that is known: loaded from the store, or joined.  Again: labels and cordon may have changed. */
int dv_cluster_node_put(struct dv_cluster *c, const struct dv_node_record *rec, uint64_t now_ns);
void dv_cluster_node_remove(struct dv_cluster *c, uint64_t id, uint64_t now_ns);
void dv_cluster_node_cordon(struct dv_cluster *c, uint64_t id, bool is_cordoned, bool is_draining,
                            uint64_t now_ns);
void dv_cluster_node_up(struct dv_cluster *c, uint64_t id, uint64_t now_ns);   /* the control link is open */
void dv_cluster_node_down(struct dv_cluster *c, uint64_t id, uint64_t now_ns); /* it broke */
int dv_cluster_node_report(struct dv_cluster *c, uint64_t id, const struct dv_node_report *r,
                           uint64_t now_ns);

/* ---- seen ---- */
/* Replicas that changed; all of them when is_full.  DV_OK, DV_E_NOMEM (what did not fit comes with the next
 * full one). */
int dv_cluster_reports(struct dv_cluster *c, uint64_t node, const struct dv_replica_report *r, size_t n,
                       bool is_full, uint64_t now_ns);
/* Somebody waits for this function and no slot is free. */
void dv_cluster_demand(struct dv_cluster *c, uint64_t fn_uid, uint64_t now_ns);
void dv_cluster_load(struct dv_cluster *c, uint64_t fn_uid, const struct dv_scale_sample *s, uint64_t now_ns);
/* Accepted work of this function that waits elsewhere than at the gateway. */
void dv_cluster_backlog(struct dv_cluster *c, uint64_t fn_uid, const struct dv_backlog *b);
/* The minimum by the clock is this from now on; 0: no window is open. */
void dv_cluster_schedule(struct dv_cluster *c, uint64_t fn_uid, int64_t min, uint64_t now_ns);
/* A metric of the function's definition was read: in one of its replicas, or elsewhere (replica 0); or it
 * could not be read, and why.  value: finite, not negative. */
void dv_cluster_metric(struct dv_cluster *c, uint64_t fn_uid, size_t index, uint64_t replica, double value,
                       uint64_t now_ns);
void dv_cluster_metric_missed(struct dv_cluster *c, uint64_t fn_uid, size_t index, const char *why);
void dv_cluster_replica_busy(struct dv_cluster *c, uint64_t replica, int64_t in_flight);
/* Time passed: decide for functions in use, and once a second for those that only have something (a replica,
 * a failure); give up silent nodes. */
void dv_cluster_tick(struct dv_cluster *c, uint64_t now_ns);
/* When the next tick is due; UINT64_MAX: nothing goes on. */
uint64_t dv_cluster_next_tick(const struct dv_cluster *c, uint64_t now_ns);

/* ---- out ---- */
/* The next action; false: none left.  Pointers in it are valid until the next input. */
bool dv_cluster_next(struct dv_cluster *c, struct dv_action *out);

/* ---- reading ---- */
const struct dv_cluster_fn *dv_cluster_fn_find(const struct dv_cluster *c, uint64_t uid);
const struct dv_cluster_node *dv_cluster_node_find(const struct dv_cluster *c, uint64_t id);
const struct dv_cluster_replica *dv_cluster_replica_find(const struct dv_cluster *c, uint64_t id);
void dv_cluster_each_active(struct dv_cluster *c, void (*fn)(void *ctx, const struct dv_cluster_fn *f),
                            void *ctx);
/* Those of them that the next tick will decide about: what it should know of their load is told before. */
void dv_cluster_each_due(struct dv_cluster *c, uint64_t now_ns,
                         void (*fn)(void *ctx, const struct dv_cluster_fn *f), void *ctx);
void dv_cluster_each_replica(struct dv_cluster *c, void (*fn)(void *ctx, const struct dv_cluster_replica *r),
                             void *ctx);
bool dv_cluster_routable(const struct dv_cluster_replica *r); /* may take requests now */
bool dv_cluster_learned(const struct dv_cluster *c);
/* How long it keeps what it has, and what is made ready ahead, as of now. */
void dv_cluster_fn_keep(const struct dv_cluster *c, const struct dv_cluster_fn *f, struct dv_keep_plan *out);
/* The pools that a node should keep, at most cap of them (dv_cluster_pools_max is enough); their texts are
 * borrowed until the next input.  Returns how many. */
size_t dv_cluster_pools(const struct dv_cluster *c, const struct dv_cluster_node *n, struct dv_pool *out,
                        size_t cap);
size_t dv_cluster_pools_max(const struct dv_cluster_node *n);
const struct dv_node_view *dv_cluster_view(const struct dv_cluster *c, const struct dv_cluster_node *n);
const struct dv_life_counts *dv_cluster_counts(const struct dv_cluster *c);

/* How many it should have, of those that can be had; and why, for a person.  Never NULL. */
int64_t dv_cluster_fn_wanted(const struct dv_cluster_fn *f);
const char *dv_cluster_fn_reason(const struct dv_cluster_fn *f);
uint64_t dv_cluster_fn_waiting(const struct dv_cluster_fn *f); /* requests, as last told */

/* What each signal asks for now, for reading. */
enum { DV_CLUSTER_SIGNALS_MAX = DV_SIG_N_OWN + 3 + DV_METRICS_MAX };
struct dv_cluster_signal {
    enum dv_scale_signal signal;
    uint8_t index; /* of the metric */
    bool is_hold, is_active;
    int64_t replicas;       /* when held: what there is */
    char text[DV_ASK_TEXT]; /* empty: its name says it */
};
size_t dv_cluster_fn_signals(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns,
                             struct dv_cluster_signal out[DV_CLUSTER_SIGNALS_MAX]);

struct dv_cluster_tally {
    int64_t ready, starting, draining, failed;
};
void dv_cluster_fn_tally(const struct dv_cluster_fn *f, struct dv_cluster_tally *out);

#endif
