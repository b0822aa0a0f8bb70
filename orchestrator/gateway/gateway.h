/* The path of a request inside the orchestrator: N loops, each with its own listener, routes, queues and
 * links. The state loop tells it what exists (functions, replicas, nodes) and reads what is going on (loads);
 * the gateway tells the state loop when somebody waits (on_demand).  All calls below are made on the state
 * loop's thread and return at once; the loops learn of them through their mailboxes. */
#ifndef DV_GATEWAY_H
#define DV_GATEWAY_H

#include "proto/base/err.h"
#include "proto/rt/clock.h"
#include "proto/rt/link.h"
#include "proto/rt/mailbox.h"
#include "proto/wire/types.h"

struct dv_gateway;
struct dv_async_accept;
struct dv_tls_keys; /* gw_tls.h */

struct dv_gateway_cfg {
    const struct dv_clock *clock;
    const char *listen;      /* "127.0.0.1:8080" */
    struct dv_tls_keys *tls; /* of that listener, the caller's own; NULL: plain, as the internal one always */
    const char
        *internal_path; /* unix socket, 0600: the same ingress for our own async workers (trusted: no auth) */
    const char *api_path; /* unix socket of the API: every path that is not a function goes there */
    int n_loops;
    uint64_t busy_poll_ns;       /* dv_loop_busy_poll of the loops; 0: off */
    const char *user, *password; /* basic auth (user) or bearer: for functions whose auth is "required" */
    size_t max_connections;      /* per loop; default 65536 */
    uint64_t head_timeout_ms;    /* for a request head to arrive; default 10000 */
    uint64_t idle_timeout_ms;    /* keep-alive connection without a request; default 75000 */
    int access_log_fd;           /* -1: none */
    struct dv_mailbox *state;    /* of the state loop, for what follows */
    /* On the state loop: requests wait for this function and no slot is free (repeated at most every 100 ms a
     * loop). */
    void (*on_demand)(void *ctx, uint64_t fn_uid);
    /* On the state loop: POST /async-function/...; answer through dv_gateway_async_done, exactly once. */
    void (*on_async)(void *ctx, struct dv_async_accept *a);
    void *ctx;
};

/* What an async request carries to the state loop; owned by the state loop until dv_gateway_async_done. */
struct dv_async_accept {
    struct dv_msg msg; /* internal */
    uint64_t fn_uid;
    char *fn;              /* "name.namespace" */
    char *method, *target; /* target below the function: "/rest?query" */
    char *fields;          /* "Name: value\r\n" lines; X-Call-Id and X-Callback-Url are not among them */
    char *body;
    size_t body_bytes;
    char call_id[48];
    char *callback_url; /* or NULL */
};

int dv_gateway_start(const struct dv_gateway_cfg *cfg, struct dv_gateway **out, struct dv_err *err);
/* Stop taking connections; requests inside may end until deadline_ns (monotonic); on_drained on the state
 * loop. */
void dv_gateway_drain(struct dv_gateway *g, uint64_t deadline_ns, void (*on_drained)(void *ctx));
void dv_gateway_free(struct dv_gateway *g); /* joins the loops */
int dv_gateway_port(const struct dv_gateway *g);
/* Another certificate for the connections yet to come; k stays the caller's.  DV_OK; DV_UNSUPPORTED: the
 * gateway was started without TLS; DV_E_NOMEM: some loops may have it already, try again. */
int dv_gateway_tls_put(struct dv_gateway *g, struct dv_tls_keys *k);

/* What the gateway needs to know of a function.  Copied. */
struct dv_route_fn {
    uint64_t uid;
    const char *name, *ns;
    uint32_t timeout_ms, queue_max, queue_timeout_ms;
    bool auth_required;
    /* Not empty: no replica can be had and waiting is no use ("image not found: ..."); waiting and new
     * requests get 503 with this text. */
    const char *failing;
};
int dv_gateway_fn_put(struct dv_gateway *g, const struct dv_route_fn *fn);
void dv_gateway_fn_remove(struct dv_gateway *g,
                          uint64_t uid); /* waiting requests get 404; those inside may end */

struct dv_route_replica {
    uint64_t id, node;
    uint32_t concurrency;
};
/* The whole set of replicas that may take requests of the function now.  Those no longer in it get no new
 * request. */
int dv_gateway_replicas_put(struct dv_gateway *g, uint64_t fn_uid, const struct dv_route_replica *r,
                            size_t n);

/* It is frozen, or runs again: of two with a free slot the one that runs is asked. */
void dv_gateway_replica_frozen(struct dv_gateway *g, uint64_t fn_uid, uint64_t replica, bool is_frozen);

struct dv_route_node {
    uint64_t id;
    const char *address;
    uint8_t key[DV_LINK_KEY_BYTES];
};
int dv_gateway_node_put(struct dv_gateway *g, const struct dv_route_node *node);
void dv_gateway_node_remove(struct dv_gateway *g, uint64_t node);

/* Load of one function, summed over the loops; counters grow for ever. */
struct dv_load {
    uint64_t arrived, answered, failed; /* requests; failed: 5xx made by us */
    uint64_t waiting, in_flight;        /* now */
    uint64_t oldest_wait_ns;            /* age of the longest waiting request; 0: none */
    uint64_t last_activity_ns;          /* monotonic: last arrival or end of a request */
    uint64_t service_ns;                /* sum of time inside replicas of answered requests */
    double in_flight_time;              /* integral of in-flight over seconds, for averages */
};
/* DV_OK or DV_NOT_FOUND. */
int dv_gateway_load(struct dv_gateway *g, uint64_t fn_uid, struct dv_load *out);
uint64_t dv_gateway_replica_in_flight(struct dv_gateway *g, uint64_t fn_uid, uint64_t replica);

/* Answer an async request: code DV_OK -> 202, anything else by its HTTP status with err's text.  Frees a. */
void dv_gateway_async_done(struct dv_gateway *g, struct dv_async_accept *a, int code,
                           const struct dv_err *err);

/* Prometheus text of the gateway's own counters and histograms (names: see the list at the top of
 * gw_metrics.c). */
void dv_gateway_metrics(struct dv_gateway *g, struct dv_buf *out);
/* Per function: OpenFaaS needs the number of calls by status code. */
uint64_t dv_gateway_invocations(struct dv_gateway *g, uint64_t fn_uid);

#endif
