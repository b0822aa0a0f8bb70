/* The state loop's centre: what is wanted (through the store), what is seen (from agents), and the actions
 * that the pure core (orchestrator/core) decides.  Single writer: everything here runs on the state loop's
 * thread. The API and the events rows are its callers; gateway, store and node sessions its tools.
 *
 * Reads answer at once from memory; views are borrowed until the next call that writes or the next loop turn.
 * Writes are checked at once (their own return code), committed by the store thread, applied, and then told
 * to done exactly once, never before the call returned.  A write that returned anything but DV_OK calls no
 * done. */
#ifndef DV_CONTROL_H
#define DV_CONTROL_H

#include "orchestrator/core/keepalive.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/store/seal.h"
#include "orchestrator/store/storer.h"
#include "proto/base/arena.h"
#include "proto/rt/loop.h"
#include "proto/wire/types.h"

struct dv_control;

struct dv_control_cfg {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox; /* of the loop */
    const struct dv_clock *clock;
    struct dv_storer *storer; /* running; borrowed */
    struct dv_seal *seal;     /* borrowed */
    uint64_t seed;
    uint64_t node_lost_ms;   /* silence after which a node's replicas are replaced; default 10000 */
    int64_t default_idle_ms; /* of functions that say nothing of idle; 0: the built-in one */
    struct dv_keep_cfg keep; /* how long idle functions keep what they have */
};

/* Loads everything from the store first: on_loaded (state loop) with DV_OK, or why not. */
int dv_control_new(const struct dv_control_cfg *cfg,
                   void (*on_loaded)(void *ctx, int code, const struct dv_err *err), void *ctx,
                   struct dv_control **out, struct dv_err *err);
/* From now on routes and replicas are told to this gateway, demand is taken from it, agents are connected to.
 * (Use dv_control_on_demand as the gateway's on_demand.) */
void dv_control_serve(struct dv_control *c, struct dv_gateway *g);
void dv_control_on_demand(void *control, uint64_t fn_uid);
/* Who knows of accepted work that waits elsewhere than at the gateway: asked for functions with something
 * going on.  items: due and not settled; parallel: handed out at a time. */
void dv_control_set_backlog(struct dv_control *c,
                            void (*backlog)(void *ctx, uint64_t fn_uid, uint64_t *items, uint64_t *parallel),
                            void *ctx);
/* Who keeps something for functions is told when one has been deleted for good, once it cannot be found any
 * more.  fn NULL: nobody. */
void dv_control_set_on_removed(struct dv_control *c, void (*fn)(void *ctx, uint64_t fn_uid), void *ctx);
void dv_control_free(struct dv_control *c); /* replicas keep running on their nodes */

typedef void dv_control_done(void *ctx, int code, const struct dv_err *err, uint64_t revision);

/* ---- functions ---- */
enum dv_put_mode { DV_PUT_CREATE, DV_PUT_REPLACE, DV_PUT_UPSERT };
struct dv_fn_put {
    const struct dv_fn_spec *spec; /* finished (dv_fn_spec_finish); copied */
    enum dv_put_mode mode; /* CREATE: DV_EXISTS when it is there; REPLACE: DV_NOT_FOUND when it is not */
    uint64_t if_revision;  /* DV_REV_ANY, or what If-Match said: DV_PRECONDITION otherwise */
    const char *note;      /* an event ("note") that goes with it; NULL: none.  Copied */
    int64_t begin_with;    /* replicas a new function starts with, if above its minimum */
};
/* Checked: namespace exists, secrets exist (DV_INVALID naming secrets[i]).  n functions in one commit
 * (apply): all or none; err->field then starts with "functions[i].".  dry_run: checks only; done follows with
 * revision 0. */
int dv_control_fn_put(struct dv_control *c, const struct dv_fn_put *puts, size_t n, bool dry_run,
                      dv_control_done *done, void *ctx, struct dv_err *err);
int dv_control_fn_delete(struct dv_control *c, struct dv_sv ns, struct dv_sv name, uint64_t if_revision,
                         dv_control_done *done, void *ctx, struct dv_err *err);
/* Replicas wanted now; within the function's min..max.  -1 gives it back to the autoscaler; 0 lets it sleep
 * until the next request.  DV_NOT_FOUND, DV_INVALID. */
int dv_control_fn_scale(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas,
                        dv_control_done *done, void *ctx, struct dv_err *err);
/* Replicas now, and once: ends a pin, stays for one stable window, then the autoscaler decides again.  Within
 * the function's min..max and at least 1.  DV_NOT_FOUND, DV_INVALID. */
int dv_control_fn_set(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas,
                      dv_control_done *done, void *ctx, struct dv_err *err);
const struct dv_function *dv_control_fn_find(struct dv_control *c, struct dv_sv ns,
                                             struct dv_sv name); /* NULL = absent */
const struct dv_function *dv_control_fn_by_uid(struct dv_control *c, uint64_t uid);
/* In order of namespace and name; each returns non-zero to stop.  ns empty: every namespace.  after: resume
 * behind "ns/name". */
void dv_control_fn_each(struct dv_control *c, struct dv_sv ns, struct dv_sv after,
                        int (*each)(void *ctx, const struct dv_function *fn), void *ctx);

enum dv_fn_phase {
    DV_FN_ASLEEP,
    DV_FN_STARTING,
    DV_FN_READY,
    DV_FN_FAILED
}; /* "asleep" "starting" "ready" "failed" */
struct dv_fn_status {
    enum dv_fn_phase phase;
    const char *message;                     /* why it is so, for a person; never NULL */
    int64_t asked;                           /* what the autoscaler would like */
    int64_t wanted, ready, starting, failed; /* wanted: what can be had of it */
    const char *scale_reason;                /* of the last decision */
    struct dv_keep_plan keep;                /* what is kept while nobody uses it, as of now */
    struct dv_load load;
};
int dv_control_fn_status(struct dv_control *c, uint64_t uid,
                         struct dv_fn_status *out); /* DV_OK or DV_NOT_FOUND */

/* ---- what happened and why ---- */
struct dv_fn_event {
    int64_t wall_ms;
    const char *kind; /* "created" "updated" "note" "scaled" "placed" "started" "ready" "failed" "stopped"
                         "unplaceable" ... */
    const char *message;
    uint64_t replica, node; /* 0 when it concerns none */
    uint32_t count;         /* the same thing in a row is counted, not repeated */
};
/* The last 100 of a function, oldest first. */
void dv_control_events_each(struct dv_control *c, uint64_t fn_uid,
                            int (*each)(void *ctx, const struct dv_fn_event *e), void *ctx);

/* ---- why it has the number of replicas that it has ---- */
struct dv_fn_ask {      /* what one signal asks for */
    const char *signal; /* "stable" "panic" "queue" "rps" "backlog" "cpu" "memory" "metric" */
    const char *metric; /* its name; NULL for the others */
    int64_t replicas;
    bool is_held;     /* nothing is known that may be believed: asks to keep what there is */
    const char *text; /* for a person; NULL: there is no more to say */
};
struct dv_fn_decision {
    int64_t wall_ms;
    int64_t from, to;
    const char *signal; /* that it rests on: one of the above, or "minimum" "idle" "used" "burst" "waits"
                           "set" "pinned" "ahead" */
    const char *reason;
    const struct dv_fn_ask *asks; /* at that time */
    size_t n_asks;
};
/* The last changes of what it should have (at most 50, of a day at most), oldest first. */
void dv_control_decisions_each(struct dv_control *c, uint64_t fn_uid,
                               int (*each)(void *ctx, const struct dv_fn_decision *d), void *ctx);
/* What the signals ask for now; none of a function at rest.  Borrowed for the call. */
void dv_control_asks(struct dv_control *c, uint64_t fn_uid,
                     void (*tell)(void *ctx, const struct dv_fn_ask *asks, size_t n), void *ctx);

/* ---- replicas and nodes ---- */
struct dv_replica_view {
    const struct dv_replica_report *report; /* as last told; state may be ahead of it */
    enum dv_replica_state state;
    uint64_t node;
    const char *node_name;
    const char *why;    /* why it is where it is */
    uint64_t in_flight; /* as the gateway counts */
    int64_t since_ms;   /* wall time of the last change of state */
};
/* fn_uid 0: all. */
void dv_control_replicas_each(struct dv_control *c, uint64_t fn_uid,
                              int (*each)(void *ctx, const struct dv_replica_view *r), void *ctx);

enum dv_node_state {
    DV_NODE_JOINING,
    DV_NODE_READY,
    DV_NODE_NOT_READY,
    DV_NODE_CORDONED,
    DV_NODE_DRAINING,
    DV_NODE_LOST
};
const char *dv_node_state_name(enum dv_node_state s);
struct dv_node_status {
    const struct dv_node_record *record;
    const struct dv_node_report *report; /* NULL before the first; without its images */
    const char *const *images;           /* that it has, in order.  dv_control_nodes_each, _node_find only */
    size_t n_images;
    enum dv_node_state state;
    const char *message;
    int64_t n_replicas, promised_mcpu, promised_bytes;
    int64_t last_seen_ms; /* wall */
};
void dv_control_nodes_each(struct dv_control *c, int (*each)(void *ctx, const struct dv_node_status *n),
                           void *ctx);
int dv_control_node_find(struct dv_control *c, struct dv_sv name_or_id,
                         struct dv_node_status *out); /* DV_OK, DV_NOT_FOUND */
/* An agent joins (its token has been checked by the caller).  The reply is given to done through *out_reply,
 * valid in it. */
int dv_control_node_join(struct dv_control *c, const struct dv_join *join,
                         void (*done)(void *ctx, int code, const struct dv_err *err,
                                      const struct dv_join_reply *reply),
                         void *ctx, struct dv_err *err);
/* REMOVE: DV_CONFLICT while the node is connected, since its agent would only join again.  REMOVE_FORCED
 * takes a connected one, too: its replicas are stopped, calls inside are cut, and its agent is refused
 * (DV_CONFLICT) until it restarts, which makes a node removed by mistake come back by the usual means.  That
 * refusal is kept in memory, for the last 64 nodes removed so: an orchestrator that restarts lets the agent
 * in again. */
enum dv_node_op { DV_NODE_CORDON, DV_NODE_UNCORDON, DV_NODE_DRAIN, DV_NODE_REMOVE, DV_NODE_REMOVE_FORCED };
int dv_control_node_op(struct dv_control *c, struct dv_sv name_or_id, enum dv_node_op op,
                       dv_control_done *done, void *ctx, struct dv_err *err);

/* ---- namespaces and secrets ---- */
/* "default" always exists.  create: DV_EXISTS; delete: DV_NOT_FOUND, DV_CONFLICT while it holds functions or
 * secrets. */
int dv_control_ns_put(struct dv_control *c, struct dv_sv name, const struct dv_kvs *labels,
                      const struct dv_kvs *annotations, bool create, dv_control_done *done, void *ctx,
                      struct dv_err *err);
int dv_control_ns_delete(struct dv_control *c, struct dv_sv name, dv_control_done *done, void *ctx,
                         struct dv_err *err);
struct dv_ns_view {
    const char *name;
    const struct dv_kvs *labels, *annotations;
    int64_t created_ms;
};
void dv_control_ns_each(struct dv_control *c, int (*each)(void *ctx, const struct dv_ns_view *ns), void *ctx);
bool dv_control_ns_exists(struct dv_control *c, struct dv_sv name);

/* mode CREATE: DV_EXISTS; REPLACE: DV_NOT_FOUND.  A value is at most 1 MiB.  Deleting a mounted secret is
 * allowed. */
int dv_control_secret_put(struct dv_control *c, struct dv_sv ns, struct dv_sv name, struct dv_sv value,
                          enum dv_put_mode mode, dv_control_done *done, void *ctx, struct dv_err *err);
int dv_control_secret_delete(struct dv_control *c, struct dv_sv ns, struct dv_sv name, dv_control_done *done,
                             void *ctx, struct dv_err *err);
void dv_control_secrets_each(struct dv_control *c, struct dv_sv ns,
                             int (*each)(void *ctx, const char *ns, const char *name, int64_t updated_ms),
                             void *ctx);
/* Registry credentials, sealed like secrets, used for pulls by registry host. value NULL deletes. */
int dv_control_registry_put(struct dv_control *c, const struct dv_registry_auth *auth, dv_control_done *done,
                            void *ctx, struct dv_err *err);
void dv_control_registries_each(struct dv_control *c,
                                int (*each)(void *ctx, const char *server, const char *username), void *ctx);

/* ---- logs ---- */
struct dv_logs_request {
    uint64_t fn_uid, replica; /* replica 0: all */
    int64_t tail, since_ms;   /* -1: all; 0: from the start */
    bool follow;
    void (*line)(void *ctx, uint64_t node, const struct dv_log_line *line);
    void (*end)(
        void *ctx); /* exactly once, unless closed first; nodes that do not answer in 5 s are given up */
    void *ctx;
};
struct dv_logs;
int dv_control_logs_open(struct dv_control *c, const struct dv_logs_request *req, struct dv_logs **out,
                         struct dv_err *err);
void dv_control_logs_close(struct dv_logs *l); /* no end follows */

/* Ready: store loaded and at least one node ready.  message says what is missing. */
bool dv_control_ready(struct dv_control *c, char *message, size_t cap);
void dv_control_metrics(struct dv_control *c, struct dv_buf *out); /* Prometheus text */

#endif
