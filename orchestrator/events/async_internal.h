/* Insides shared by async.c (queues, claiming, start), async_accept.c, async_item.c (one item's way) and
 * async_metrics.c.
 */
#ifndef DV_ASYNC_INTERNAL_H
#define DV_ASYNC_INTERNAL_H

#include "orchestrator/events/async.h"
#include "orchestrator/events/async_record.h"
#include "orchestrator/events/async_retry.h"
#include "orchestrator/store/storer.h"
#include "proto/base/arena.h"
#include "proto/base/list.h"
#include "proto/base/map.h"
#include "proto/base/rng.h"
#include "proto/rt/httpc.h"
#include "proto/rt/loop.h"

enum { DV_ASYNC_QUEUE_NAME = 20 }; /* "fn/" or "cb/", 16 hex digits of the function's uid, NUL */

struct dv_async {
    struct dv_async_cfg cfg;
    char *internal_path;
    struct dv_httpc *http;
    struct dv_rng rng;
    struct dv_map queues; /* by name */
    struct dv_list ready; /* queues that may have due work and may take it, taken in turn */
    struct dv_list
        throttled;          /* queues that have due work but no share; ready again when any item is settled */
    struct dv_list running; /* items whose call is under way */
    struct dv_list accepting; /* requests whose client waits for the store */
    struct dv_timer sweep;    /* looks for deleted functions */
    struct dv_defer pump;
    size_t n_in_flight, n_claims; /* sums over the queues */
    size_t n_jobs;                /* with the store's thread */
    size_t accepting_bytes;       /* payloads in memory: on their way into the store */
    size_t held_bytes;            /* ... and under way to their function, with answers kept for callbacks */
    bool is_loaded;               /* queues of the store are known */
    bool is_closing;              /* freed by its owner; the last job frees the rest */
};

struct dv_async_counts { /* grow for ever */
    uint64_t accepted, attempts, retried, done, failed, refused;
};

struct dv_async_queue {
    char name[DV_ASYNC_QUEUE_NAME];
    struct dv_async *owner;
    char *fn; /* "name.namespace", for labels and logs; NULL while nobody said */
    uint64_t fn_uid;
    bool is_callback;
    bool is_gone;         /* function deleted: freed with its last item and job */
    bool is_in_ready;     /* or among the throttled */
    uint64_t n_items;     /* in the store, claimed ones included */
    uint64_t n_in_flight; /* claimed by us, not yet settled */
    uint64_t n_claims;    /* claim jobs under way */
    uint64_t n_jobs;      /* all jobs under way that name it */
    int64_t next_due_ms;  /* wall time; INT64_MAX: nothing known to become due */
    struct dv_timer timer;
    struct dv_list ready;
    struct dv_async_counts counts;
};

/* One item of work, from the claim on. */
struct dv_async_item {
    struct dv_store_job job; /* claim, then ack or retry */
    struct dv_list node;
    struct dv_async_queue *q;
    struct dv_arena arena; /* holds work and what record points into */
    struct dv_work work;
    struct dv_async_record record;
    struct dv_async_policy policy;
    int64_t timeout_ms, claim_at_ms, lease_until_ms;
    int64_t next_due_ms; /* claim: of the queue, when nothing was due */
    int64_t retry_at_ms; /* retry */
    struct dv_httpc_call *call;
    uint64_t started_ns;
    struct dv_buf answer;   /* body of the answer, for the callback */
    bool is_answer_cut;     /* more than fits was answered */
    struct dv_buf callback; /* record that the ack's transaction appends to the callback queue */
    char callback_queue[DV_ASYNC_QUEUE_NAME];
    uint64_t held_bytes;
};

/* ---- async.c ---- */
/* NULL when out of memory (with create), or unknown (without). */
struct dv_async_queue *dv_async_queue_get(struct dv_async *a, bool is_callback, uint64_t fn_uid, bool create);
void dv_async_queue_name(char out[DV_ASYNC_QUEUE_NAME], bool is_callback, uint64_t fn_uid);
/* Something about the queue changed: put it among the ready, or arm its timer, or free it. */
void dv_async_queue_kick(struct dv_async_queue *q);
/* An item was settled: there is room for others. */
void dv_async_room(struct dv_async *a);
/* May an answer of n more bytes be kept for a callback?  Counts them when so. */
bool dv_async_hold(struct dv_async *a, size_t n);
/* Every job goes in and comes out through these. */
void dv_async_job_start(struct dv_async_queue *q, struct dv_store_job *job,
                        int (*run)(struct dv_store_job *job, struct dv_store *store, struct dv_err *err),
                        void (*done)(struct dv_store_job *job));
/* False: the owner has gone; a (and the queues) may be freed now, so free the job's own memory and return. */
bool dv_async_job_end(struct dv_async *a, struct dv_async_queue *q);

/* The function is gone.  What is under way may end; nothing more is claimed. */
void dv_async_queue_drop(struct dv_async_queue *q);

/* ---- async_accept.c ---- */
/* Nobody is there to wait any longer: answer with DV_CLOSED.  What becomes durable all the same is delivered.
 */
void dv_async_accepts_let_go(struct dv_async *a);

/* ---- async_item.c ---- */
/* Claim the queue's next item and work it off.  DV_E_NOMEM: nothing was started. */
int dv_async_item_claim(struct dv_async_queue *q, const struct dv_async_fn *fn);
void dv_async_items_cut_off(struct dv_async *a);

#endif
