/* Durable asynchronous invocations (POST /async-function/...): the request is committed to the store's work
 * queue before its 202, then delivered at least once through the gateway's own internal socket, retried with
 * back-off, and its answer posted to X-Callback-Url.  One queue per function; nothing a function does holds
 * up another. All on the state loop's thread. */
#ifndef DV_ASYNC_H
#define DV_ASYNC_H

#include <stddef.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"

struct dv_async;
struct dv_async_accept;
struct dv_clock;
struct dv_control;
struct dv_gateway;
struct dv_kvs;
struct dv_loop;
struct dv_mailbox;
struct dv_storer;

/* What asynchronous work needs to know of a function; borrowed until the next loop turn. */
struct dv_async_fn {
    const char *name, *ns;
    int64_t timeout_ms;
    int64_t parallel; /* requests that all its replicas together may hold: max x concurrency */
    const struct dv_kvs *annotations; /* com.openfaas.retry.*; NULL: none */
};

struct dv_async_cfg {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox; /* of the loop */
    struct dv_storer *storer;   /* running */
    const struct dv_clock *clock;
    const char *internal_path; /* the gateway's internal unix socket; copied */
    uint64_t seed;
    /* DV_OK or DV_NOT_FOUND: the function is gone, its queue is dropped. */
    int (*find)(void *ctx, uint64_t fn_uid, struct dv_async_fn *out);
    /* Takes a: answers the waiting client (dv_gateway_async_done). */
    void (*answer)(void *ctx, struct dv_async_accept *a, int code, const struct dv_err *err);
    void *find_ctx, *answer_ctx;
    /* Bounds; 0 takes the default. */
    size_t per_function_max; /* calls in flight of one function; default 64 */
    size_t in_flight_max;    /* calls in flight of all; default 512 */
    size_t held_bytes_max;   /* payloads in memory, waiting to be committed or under way; default 64 MiB */
    uint64_t sweep_ms;       /* how often deleted functions are looked for; default 30000 */
    uint64_t backlog_max;    /* items that one function may have in the store; default 100000 */
};

/* Fill find and answer for the real control and gateway. */
void dv_async_wire(struct dv_async_cfg *cfg, struct dv_control *control, struct dv_gateway *gateway);

/* Call it once the functions are known (control's on_loaded): queues of functions that find does not know are
 * dropped. Releases the leases of the process before, then works off what the store holds.  DV_OK;
 * DV_E_NOMEM. */
int dv_async_new(const struct dv_async_cfg *cfg, struct dv_async **out, struct dv_err *err);
/* The gateway's on_async, with the dv_async as ctx.  Takes accept; it is answered exactly once, later:
 * DV_OK once the request is durable; DV_NOT_FOUND; DV_INVALID (callback URL); DV_TOO_LARGE; DV_QUOTA
 * (backlog_max); DV_NO_CAPACITY (too much at once); DV_CLOSED; a failure of the store. */
void dv_async_accept(void *async, struct dv_async_accept *accept);
/* The function was deleted: drop what waits for it, now instead of at the next look.
 * (dv_control_set_on_removed's function, with the dv_async as ctx.) */
void dv_async_fn_removed(void *async, uint64_t fn_uid);
/* Items accepted and not yet settled, those under way included. */
uint64_t dv_async_backlog(const struct dv_async *a, uint64_t fn_uid);
/* The same, as the autoscaler wants it: those that are due, and how many are handed out at a time.  async may
 * be NULL.  (dv_control_set_backlog's function.) */
void dv_async_depth(void *async, uint64_t fn_uid, uint64_t *items, uint64_t *parallel);
/* Prometheus text: davit_async_* and the names of OpenFaaS' queue worker. */
void dv_async_metrics(const struct dv_async *a, struct dv_buf *out);
/* Calls under way are cut off and delivered again after the next start; clients still waiting for their 202
 * are answered with DV_CLOSED (their request may yet become durable).  find and answer are not called any
 * more.  Jobs at the store's thread come back to the mailbox and free the rest there: dv_async_free,
 * dv_storer_stop, dv_mailbox_free.  NULL accepted. */
void dv_async_free(struct dv_async *a);

#endif
