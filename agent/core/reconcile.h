/* What is wanted against what is seen, on one node.  Pure: no I/O, no clock, same input gives same answer.
 *
 * Three lists meet: the replicas the agent knows (its memory, after a restart its files), the containers the
 * engine shows under this node's label, and the replicas the orchestrator wants.  Nothing here is remembered
 * between calls, so lost messages, restarts of the agent and restarts of the engine need no path of their
 * own. */
#ifndef DV_RECONCILE_H
#define DV_RECONCILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dv_rc_replica { /* one that the agent knows */
    uint64_t id;
    const char *container; /* engine id; NULL: not known (not yet made, or the agent has just started) */
    bool is_busy;          /* an engine call about its container is under way: leave it alone */
    bool is_attached;      /* its container is known to run and is watched */
    bool is_ended;         /* failed or gone: it has, or should have, no container */
    bool is_stopping;      /* already asked to end */
    uint64_t started_ms;   /* monotonic: when it was asked for */
};

struct dv_rc_container { /* one that the engine shows */
    const char *id;
    uint64_t replica; /* from its label; 0: unreadable */
    bool is_running;  /* paused counts as running */
};

enum dv_rc_action_kind {
    DV_RC_ADOPT,  /* container belongs to replica and runs: watch it */
    DV_RC_EXITED, /* container belongs to replica and does not run */
    DV_RC_LOST,   /* replica's container is not there any more */
    DV_RC_REMOVE, /* container belongs to nobody */
    DV_RC_STOP    /* replica is not wanted */
};

struct dv_rc_action {
    enum dv_rc_action_kind kind;
    uint64_t replica;      /* 0 for DV_RC_REMOVE */
    const char *container; /* borrowed from the input; NULL for DV_RC_LOST and DV_RC_STOP */
};

/* Known replicas against the engine's containers.  out has room for n_replicas + n_containers; returns how
 * many were written: containers in their order first, then lost replicas in theirs.  Of two containers of one
 * replica the known one wins, else the first that runs, else the first; the others are removed.  Any thread.
 */
size_t dv_rc_containers(const struct dv_rc_replica *replicas, size_t n_replicas,
                        const struct dv_rc_container *containers, size_t n_containers,
                        struct dv_rc_action *out);

enum { DV_RC_SYNC_GRACE_MS = 2000 };
/* Known replicas against the orchestrator's whole list: those not listed are stopped, except what was started
 * within the last DV_RC_SYNC_GRACE_MS (the list may be older than the start).  out has room for n_replicas.
 * Any thread. */
size_t dv_rc_sync(const struct dv_rc_replica *replicas, size_t n_replicas, const uint64_t *wanted,
                  size_t n_wanted, uint64_t now_ms, struct dv_rc_action *out);

#endif
