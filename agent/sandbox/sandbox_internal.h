/* Inside of the sandbox row.
 *   sandbox.c    the node's replicas together: engine up and down, listing, reconciling, commands
 *   replica.c    one replica's way up: image, create, start, probe
 *   ending.c     one replica's way down: drain, stop, last words, remove
 *   image.c      which images are here; one pull at a time for each
 *   holder.c     ready networks that replicas join; whose turn it is at the engine (nets.h)
 *   pool.c box.c adopt.c gate.c   primed sandboxes (box.h): kept ready, opened, found again
 *   container.c  what a replica's container is made of
 *   probe.c      is it listening yet
 *   freeze.c     idle ones are frozen
 *   reclaim.c    frozen ones give memory back while the node is short of it
 *   files.c      what survives the process
 *   logs.c       requests for log lines; last lines of replicas that are gone
 *   report.c     what the orchestrator and Prometheus are told */
#ifndef DV_SANDBOX_INTERNAL_H
#define DV_SANDBOX_INTERNAL_H

#include "agent/cgroup/cgroup.h"
#include "agent/sandbox/box.h"
#include "agent/sandbox/nets.h"
#include "agent/sandbox/sandbox.h"
#include "proto/base/list.h"
#include "proto/base/map.h"
#include "proto/rt/addr.h"
#include "proto/rt/metrics.h"

enum {
    SB_TAIL_LINES = 200,     /* last lines kept of a replica that ended */
    SB_TAIL_FUNCTIONS = 256, /* functions whose last lines are kept */
    SB_REPORT_LINES = 20,    /* of them in the report of a failure */
    SB_LAST_WORDS_MS = 2000, /* longest wait for the logs of a replica that ended */
    SB_TICK_MS = 1000,
    SB_IMAGES_MS = 30000,
    SB_END_TRIES = 5, /* at stopping and removing while the engine fails */
    SB_PROBE_IDLE_MS =
        1000 /* a replica that stays silent is looked at again, should its end have been missed */
};

enum sb_phase {
    PH_LOST,  /* known from a file; its container is to be found */
    PH_IMAGE, /* waits for its image */
    PH_QUEUE, /* waits for its turn to be created */
    PH_CREATE,
    PH_START,
    PH_INSPECT, /* where is it listening */
    PH_PROBE,   /* is it listening */
    PH_WARM,
    PH_DRAIN, /* waits for the requests inside */
    PH_STOP,  /* waits for the engine's stop */
    PH_WORDS, /* collects its last words */
    PH_REMOVE,
    PH_FAILED,
    PH_GONE,
    PH_N
};

struct sb_image;
struct sb_probe;

struct sb_lines { /* text lines, oldest first, bounded */
    struct dv_log_line *v;
    size_t n;
};

struct sb_sleep {                                                        /* freeze.c */
    enum { SLEEP_OFF, SLEEP_AWAKE, SLEEP_FREEZING, SLEEP_FROZEN } state; /* OFF: not ready, or never frozen */
    struct dv_timer timer;
    uint64_t began_ns;                 /* of this FREEZING or FROZEN */
    uint64_t not_before_ns;            /* may be frozen again */
    uint64_t measured_ns;              /* its usage, while frozen */
    unsigned n_failures, n_thaw_tries; /* in a row */
    bool is_spent;                     /* gave less memory than it was asked for (reclaim.c) */
    bool was_found;                    /* frozen by an agent before us */
};

struct sb_replica {
    struct dv_sandbox *sb;
    struct dv_list node;
    uint64_t id;
    struct dv_arena arena; /* cmd's */
    struct dv_cmd_start cmd;
    enum sb_phase phase;
    unsigned calls;         /* engine calls under way that will come back to it */
    bool is_dirty, is_dead; /* dead: freed as soon as calls is 0 */
    bool want_stop, stop_now;
    int end_tries;
    bool was_oom, was_adopted, retried_create, retried_image, is_counted;
    int64_t grace_ms;
    uint64_t asked_ns, phase_ns, start_ns; /* monotonic */
    int64_t started_ms;                    /* wall */
    /* container */
    struct sb_holder *holder; /* whose network it has joined; NULL: it has its own */
    struct sb_box *box;       /* the primed sandbox that was opened for it; NULL: it was started cold */
    bool is_end_told;         /* by the process at the gate: the engine has yet to notice */
    bool is_alone;            /* joining failed: the next try gets a network of its own */
    bool is_network_lost;     /* the holder went away while a call was under way */
    bool is_unsure;           /* its create may have succeeded without an answer */
    bool died_early;          /* its end was told before its start was */
    char container[72], address[64];
    int64_t pid;
    char fn_name[160];
    struct dv_cgroup *cgroup;
    struct dv_cgroup_usage usage;
    struct sb_sleep sleep;
    struct sb_image *image;
    struct dv_list in_image, in_queue;
    struct sb_probe *probe;
    struct dv_timer timer; /* draining, last words */
    /* how it ended */
    enum dv_reason reason;
    char message[240];
    int64_t exit_code;
    struct sb_lines tail;
    char *tail_text;
    void *logs_handle;
    struct dv_start_times times;
    uint64_t in_flight, served;
};

struct sb_images {
    struct dv_map by_name; /* sb_image */
    struct dv_strs names;  /* present on the engine */
    uint64_t version;
    bool is_listing;
    uint64_t listed_ns;
};

struct sb_counts { /* for metrics */
    uint64_t started, ready, failed[DV_REASON_N], stopped, adopted, orphans, pulls, pull_failures,
        engine_losses, freezes, thaws, freeze_failures, thaw_failures;
    uint64_t reclaims, reclaimed_bytes;
    struct dv_hist pull, create, start, open, ready_time, total, thaw;
};

struct dv_sandbox {
    struct dv_sandbox_cfg cfg;
    char label[64]; /* dev.davit.node=ID */
    char *replicas_dir, *secrets_dir;
    struct dv_map by_id;
    struct dv_list replicas; /* in order of their start */
    struct dv_list queue;    /* PH_QUEUE, first come first served */
    int n_creating;
    size_t n_gone_told;
    struct sb_nets nets;
    struct sb_pools pools;
    struct sb_images images;
    struct dv_timer tick, engine_timer;
    /* engine */
    enum { ENG_DOWN, ENG_CONNECTING, ENG_NETWORK, ENG_LISTING, ENG_UP } engine_state;
    struct dv_engine_info info;
    char engine_message[240];
    bool is_ok; /* it answered and its containers were compared */
    bool is_listing, has_events;
    unsigned backoff_ms;
    uint64_t list_began_ns;
    uint64_t freeze_turn_ns; /* the loop's turn in which n_freeze_turn replicas were frozen */
    unsigned n_freeze_turn;
    struct sb_reclaim *reclaim;
    /* logs */
    struct dv_list log_requests;
    struct dv_map tails;       /* fn_uid -> sb_fn_tail */
    struct dv_list tail_order; /* least recently used first */
    struct sb_counts counts;
};

static inline uint64_t sb_now(const struct dv_sandbox *s)
{
    return dv_loop_now(s->cfg.loop);
}
static inline const struct dv_engine_ops *sb_ops(const struct dv_sandbox *s)
{
    return s->cfg.engine->ops;
}

/* sandbox.c */
void sb_changed(struct dv_sandbox *s);
void sb_engine_suspect(
    struct dv_sandbox *s);               /* a call failed for no reason of its own: ask whether it is there */
void sb_list_soon(struct dv_sandbox *s); /* compare containers with replicas */
struct sb_replica *sb_find(struct dv_sandbox *s, uint64_t id);
struct sb_replica *sb_by_container(struct dv_sandbox *s, const char *container);
/* One that belongs to nobody any more; should that fail, the next comparison finds it again. */
void sb_container_remove(struct dv_sandbox *s, const char *container);

/* replica.c */
struct sb_replica *sb_replica_new(struct dv_sandbox *s,
                                  const struct dv_cmd_start *cmd); /* PH_LOST; NULL: no memory */
void sb_replica_free(struct sb_replica *r);
void sb_replica_move(struct sb_replica *r, enum sb_phase to); /* the one place where phase changes */
void sb_replica_begin(struct sb_replica *r);                  /* from PH_LOST: make it */
void sb_replica_image_ready(struct sb_replica *r);            /* its image is here */
void sb_replica_adopt(struct sb_replica *r, const char *container);
void sb_queue_run(struct dv_sandbox *s);
void sb_replica_probe(struct sb_replica *r);
void sb_replica_look(
    struct sb_replica *r); /* ask the engine whether it still runs; its end may have been missed */
/* An engine call of r came back.  True: go on.  False: r is dead, or was asked to stop, and has been dealt
 * with. */
bool sb_replica_back(struct sb_replica *r);
void sb_replica_set_address(struct sb_replica *r, const char *ip);
enum dv_replica_state sb_replica_state(const struct sb_replica *r);

/* ending.c */
void sb_replica_fail(struct sb_replica *r, enum dv_reason reason, const char *message);
void sb_replica_fail_engine(struct sb_replica *r, enum dv_reason reason, int code, const struct dv_err *err);
void sb_replica_exited(struct sb_replica *r, int64_t exit_code, bool oom);
void sb_replica_stop(struct sb_replica *r, int64_t grace_ms, bool now);
void sb_replica_drained(struct sb_replica *r);
void sb_replica_stop_again(struct sb_replica *r); /* found, and the process before had begun to stop it */
void sb_replica_resume_ending(
    struct sb_replica *r);                    /* the engine is back: say again what it may not have heard */
void sb_replica_forget(struct sb_replica *r); /* PH_GONE and away */

/* image.c */
void sb_image_want(struct sb_replica *r,
                   bool refresh); /* -> sb_replica_image_ready or sb_replica_fail, at once when it is known */
void sb_image_leave(struct sb_replica *r);
void sb_image_forget(struct dv_sandbox *s, const char *name);
void sb_images_list(struct dv_sandbox *s);
void sb_images_free(struct dv_sandbox *s);

/* container.c */
#define SB_INIT_TARGET    "/.davit/init"
#define SB_SECRETS_TARGET "/var/openfaas/secrets"
/* Fill the engine's request; strings live in arena or r.  DV_OK or DV_E_NOMEM. */
int sb_container_spec(struct sb_replica *r, struct dv_arena *arena, struct dv_engine_create *out);
/* The same for a container that exists: what runs in a sandbox of p.  DV_OK; DV_INVALID (neither function nor
 * image name a program); DV_E_NOMEM. */
int sb_container_run(const struct sb_replica *r, const struct sb_pool *p, struct dv_arena *arena,
                     struct dv_gate_run *out);

/* probe.c */
struct sb_probe_cfg {
    struct dv_loop *loop;
    const char *address, *path; /* path NULL: connecting is enough */
    uint64_t timeout_ms, interval_ms;
    uint64_t deadline_ns; /* 0: none */
    bool is_eager;        /* it may listen within a fraction of a millisecond */
    /* Exactly once, never from inside sb_probe_start: DV_OK, or DV_DEADLINE with the last reason. */
    void (*on_done)(void *ctx, int code, const char *why);
    /* Now and then while it stays silent. */
    void (*on_waiting)(void *ctx);
    void *ctx;
};
int sb_probe_start(const struct sb_probe_cfg *cfg, struct sb_probe **out);
void sb_probe_free(struct sb_probe *p); /* NULL accepted; no callback follows */

/* freeze.c */
void sb_sleep_begin(struct sb_replica *r); /* it is ready and its group known: may be frozen from now on */
void sb_sleep_wake(struct sb_replica *r);  /* thaw it, and let its held requests go on */
void sb_sleep_rouse(struct sb_replica *r); /* the same, and leave it alone for a while */
void sb_sleep_end(struct sb_replica *r);   /* the same, for good */
void sb_sleep_free(struct sb_replica *r);  /* the same, when there is no carry any more */
/* It was adopted: is it frozen, as only ready ones are?  Then it is left so; else it runs. */
bool sb_sleep_found(struct sb_replica *r);
bool sb_sleep_is_measured(struct sb_replica *r); /* is its usage worth reading now */
void sb_sleep_metrics(const struct dv_sandbox *s, struct dv_buf *out);

/* reclaim.c */
int sb_reclaim_new(struct dv_sandbox *s, struct dv_err *err);
void sb_reclaim_free(struct dv_sandbox *s);     /* waits for a step under way */
void sb_reclaim_consider(struct dv_sandbox *s); /* every second, and after each step */

/* files.c */
/* The whole file, not synced.  DV_OK; DV_E_IO. */
int sb_file_put(const char *path, struct dv_sv bytes, mode_t mode, struct dv_err *err);
/* The same at once: whoever reads it finds the old one or the new one, whenever this process ends.  Not
 * dv_file_write, which waits for the disk: a start is waiting for us. */
int sb_file_replace(const char *path, struct dv_sv bytes, struct dv_err *err);
int sb_file_save(struct sb_replica *r, struct dv_err *err);
/* The engine is about to be told to stop it: should this process end before that has happened, the next one
 * must not take it for a replica that may be given requests. */
void sb_file_stopping(const struct sb_replica *r);
bool sb_file_was_stopping(const struct sb_replica *r);
void sb_file_drop(struct sb_replica *r);
int sb_files_load(struct dv_sandbox *s, void (*each)(struct dv_sandbox *s, const struct dv_cmd_start *cmd),
                  struct dv_err *err);
int sb_secrets_write(struct sb_replica *r, struct dv_err *err);
int sb_secrets_path(const struct sb_replica *r, char *out, size_t cap);

/* logs.c */
void sb_lines_free(struct sb_lines *l);
int sb_lines_add(struct sb_lines *l, uint64_t replica,
                 const struct dv_engine_log *line);           /* keeps the last SB_TAIL_LINES */
char *sb_lines_text(const struct sb_lines *l, size_t n_last); /* joined; NULL when none */
void sb_tails_take(struct sb_replica *r);                     /* its last words go to its function */
void sb_tails_free(struct dv_sandbox *s);
void sb_logs_replica_up(struct sb_replica *r); /* followers want its lines too */
void sb_logs_free(struct dv_sandbox *s);

#endif
