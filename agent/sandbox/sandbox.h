/* The replicas of a node and their life: what the orchestrator's commands ask for becomes containers, and
 * what becomes of those is told back.  One owner, the agent's state loop; every function on its thread;
 * nothing here blocks but short file operations.
 *
 * The replicas outlive the process: dv_sandbox_free leaves them running (frozen ones are thawed), and the
 * next dv_sandbox_new on the same state directory takes them over by their label. */
#ifndef DV_SANDBOX_H
#define DV_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include "agent/carry/carry.h"
#include "agent/engine/engine.h"
#include "proto/base/arena.h"
#include "proto/base/buf.h"
#include "proto/rt/loop.h"
#include "proto/wire/types.h"

struct dv_sandbox;

struct dv_freezer;

struct dv_sandbox_cfg {
    struct dv_loop *loop;
    struct dv_engine *engine; /* borrowed; closed by its owner before dv_sandbox_free */
    struct dv_carry *carry;   /* borrowed; its on_trouble, on_drained and on_wake come here */
    uint64_t node;
    const char *state_dir;   /* replicas/ID.json; must exist */
    const char *run_dir;     /* secrets, gone with a reboot; must exist */
    const char *init_path;   /* davit-init on the host, for stdio functions */
    const char *network;     /* bridge that replicas join; "davit" */
    int64_t replicas_max;    /* refused beyond: CREATE_FAILED */
    int64_t primed_max;      /* primed sandboxes kept at most, whatever is wanted; 0: none */
    int64_t ready_networks;  /* kept beyond those in use; 0: every container gets a network of its own */
    int64_t reclaim_percent; /* of memory available, below which frozen replicas give theirs; 0: never */
    const struct dv_freezer *freezer; /* NULL: control groups */
    /* Something to report has changed (engine, a replica, log lines).  May be called many times a turn. */
    void (*on_change)(void *ctx);
    /* Lines for a request of dv_sandbox_logs; end: nothing follows.  Borrowed for the call. */
    void (*on_logs)(void *ctx, const struct dv_log_chunk *chunk);
    void *ctx;
};

/* Reads the files of replicas from earlier life and begins to connect to the engine.  DV_OK; DV_E_NOMEM;
 * DV_E_IO. */
int dv_sandbox_new(const struct dv_sandbox_cfg *cfg, struct dv_sandbox **out, struct dv_err *err);
void dv_sandbox_free(struct dv_sandbox *s); /* NULL accepted; containers keep running */

/* ---- commands; all safe to repeat, none fails: what goes wrong is reported as the replica's state ---- */
void dv_sandbox_start(struct dv_sandbox *s, const struct dv_cmd_start *cmd); /* copied */
void dv_sandbox_stop(struct dv_sandbox *s, const struct dv_cmd_stop *cmd);
void dv_sandbox_sync(struct dv_sandbox *s, const struct dv_cmd_sync *cmd);
/* How many primed sandboxes of which kind to keep: the whole truth. */
void dv_sandbox_pools(struct dv_sandbox *s, const struct dv_cmd_pools *cmd);
void dv_sandbox_logs(struct dv_sandbox *s, const struct dv_cmd_logs *cmd);
void dv_sandbox_logs_drop(struct dv_sandbox *s); /* the asker is gone: every request for logs ends silently */

/* ---- from the carry ---- */
void dv_sandbox_on_trouble(struct dv_sandbox *s, uint64_t replica, enum dv_link_reset what);
void dv_sandbox_on_drained(struct dv_sandbox *s, uint64_t replica);
void dv_sandbox_on_closed(struct dv_sandbox *s, uint64_t replica);
void dv_sandbox_on_wake(struct dv_sandbox *s, uint64_t replica, uint64_t held_ns);

/* ---- reports ---- */
/* Replicas changed since the last call (all of them when full), as an array in arena whose strings are
 * borrowed until the next call into the sandbox or loop turn.  Replicas that are gone are told once, as GONE.
 * DV_OK; DV_E_NOMEM (then nothing counts as told). */
int dv_sandbox_report(struct dv_sandbox *s, bool full, struct dv_arena *arena, struct dv_replica_report **out,
                      size_t *out_n);
/* Where a replica answers, while it is warm; false: it is not. */
bool dv_sandbox_address(const struct dv_sandbox *s, uint64_t replica, char *out, size_t cap);
bool dv_sandbox_has_changes(const struct dv_sandbox *s);
size_t dv_sandbox_n_replicas(const struct dv_sandbox *s); /* that hold, or will hold, a container */

struct dv_sandbox_engine_state {
    bool is_ok;
    const char *message;               /* why not; NULL when it is */
    const struct dv_engine_info *info; /* of the last time it answered; zeroed before */
    const struct dv_strs *images;      /* names and tags present */
    uint64_t images_version;           /* grows when they change */
    const struct dv_pool *pools;       /* primed sandboxes that are ready */
    size_t n_pools;
    int64_t primed_max;     /* of them, as configured */
    uint64_t pools_version; /* grows when there are more, or some went away by themselves */
};
void dv_sandbox_engine(const struct dv_sandbox *s, struct dv_sandbox_engine_state *out);

/* The engine has answered, or has failed to, since dv_sandbox_new.  Before that, "engine down" and "not
 * ready" would be guesses, and whoever believed them would replace replicas that are about to be adopted. */
bool dv_sandbox_is_settled(const struct dv_sandbox *s);

void dv_sandbox_engine_stats(const struct dv_sandbox *s, uint64_t *out_calls, uint64_t *out_errors);

void dv_sandbox_metrics(struct dv_sandbox *s, struct dv_buf *out); /* Prometheus text */

#endif
