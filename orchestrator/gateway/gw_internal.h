/* What the gateway's files share.  Everything here belongs to one loop's thread unless said otherwise.
 *
 *   gateway.c   the state loop's face        gw_loop.c  a loop: thread, listeners, news from the state loop
 *   ingress.c   client connections           request*.c one request's life        answer.c  what the client
 * is sent forward.c   what the function is sent    gw_fn.c    functions in a loop       gw_link.c streams to
 * agents gw_api.c    the API as an upstream       gw_async.c accepting async requests  gw_tls.c TLS of a
 * connection, accesslog.c, gw_metrics.c */
#ifndef DV_GW_INTERNAL_H
#define DV_GW_INTERNAL_H

#include <pthread.h>
#include "orchestrator/gateway/accesslog.h"
#include "orchestrator/gateway/dispatch.h"
#include "orchestrator/gateway/gateway.h"
#include "orchestrator/gateway/gw_tls.h"
#include "orchestrator/gateway/route.h"
#include "proto/base/map.h"
#include "proto/base/rng.h"
#include "proto/rt/addr.h"
#include "proto/rt/h1up.h"
#include "proto/rt/http1.h"
#include "proto/rt/linkio.h"
#include "proto/rt/loop.h"

enum {
    GW_SCRATCH_BYTES = 64 * 1024,
    GW_KEPT_BODY_BYTES = 16 * 1024,       /* of a request body: held while it waits */
    GW_RETRY_BODY_BYTES = DV_LINK_WINDOW, /* held for a retry, while its function may not have seen it */
    GW_ASYNC_BODY_BYTES = 8 * 1024 * 1024,
    GW_ASYNC_TOTAL_BYTES = 256 * 1024 * 1024, /* bodies being collected by one loop */
    GW_OUT_BYTES = 192 * 1024,                /* waiting for a slow client before its upstream is stopped */
    GW_CONNECTS_MAX = 12,                     /* refusals by containers; agents' own cost time alone */
    GW_CALL_ID_MAX = 48,
    GW_POOLED_BUFS = 256,
    GW_POOLED_BYTES = 2 * 1024 * 1024,
    GW_HEAD_READ_BYTES = 4096,  /* more of a head that came in part */
    GW_READS_PER_TURN = 16,     /* of one connection, before the others' turn */
    GW_HANDSHAKES_PER_TURN = 4, /* each is up to a millisecond of arithmetic that the others wait for */
    GW_API_IDLE_MAX = 8
};
#define GW_DEMAND_NS (100 * DV_MS)
#define GW_LINGER_NS (1 * DV_S)
#define GW_STALL_NS  (30 * DV_S) /* a client that takes nothing of a finished answer */
#define GW_NEVER_NS  UINT64_MAX

struct dv_gw_loop;
struct dv_gw_req;

/* ---- a function in one loop (gw_fn.c) ---- */

/* What a loop knows of a function that it has nothing to do with at present: one object for all loops, never
 * changed but replaced.  A hundred thousand functions that nobody calls cost each loop a slot of its table.
 */
struct dv_gw_def {
    _Atomic uint32_t refs;
    struct dv_live_fn *live; /* a reference; its label is the key */
    uint32_t timeout_ms, queue_max, queue_timeout_ms;
    bool auth_required;
    char failing[]; /* empty: not failing */
};
struct dv_gw_def *dv_gw_def_ref(struct dv_gw_def *d);
void dv_gw_def_unref(struct dv_gw_def *d); /* NULL accepted */

/* There while it has replicas or requests. */
struct dv_gw_fn {
    struct dv_queue queue;
    struct dv_gw_loop *loop;
    struct dv_gw_def *def; /* a reference */
    uint64_t uid;
    const char *key; /* "name.ns", of queue.live */
    size_t key_n;
    uint32_t timeout_ms, queue_timeout_ms;
    bool auth_required, is_removed;
    const char *failing;   /* NULL: not failing.  In def */
    uint32_t n_requests;   /* that point here; what nobody needs goes with the last */
    struct dv_timer timer; /* demand again, try again */
    uint64_t demand_ns;    /* when the state loop was told last */
};

int dv_gw_fn_put(struct dv_gw_loop *l, struct dv_gw_def *def); /* takes a reference of its own */
void dv_gw_fn_remove(struct dv_gw_loop *l, const struct dv_live_fn *live);
int dv_gw_fn_replicas(struct dv_gw_loop *l, const struct dv_live_fn *live, struct dv_live_replica *const *set,
                      size_t n);
/* For a request: *out is held, dv_gw_fn_unhold lets go of it.  DV_OK, DV_NOT_FOUND, DV_E_NOMEM. */
int dv_gw_fn_find(struct dv_gw_loop *l, const struct dv_route *r, struct dv_gw_fn **out);
struct dv_gw_fn *dv_gw_fn_by_uid(struct dv_gw_loop *l, uint64_t uid); /* of those that are there */
void dv_gw_fn_pump(struct dv_gw_fn *f);   /* run whoever can run; f may be gone then, unless held */
void dv_gw_fn_demand(struct dv_gw_fn *f); /* somebody waits */
void dv_gw_fn_unhold(struct dv_gw_fn *f); /* a request lets go of it */
void dv_gw_fns_free(struct dv_gw_loop *l);

/* ---- links to agents (gw_link.c) ---- */

struct dv_gw_node {
    uint64_t id;
    struct dv_gw_loop *loop;
    char *address; /* NULL: not told yet */
    uint8_t key[DV_LINK_KEY_BYTES];
    struct dv_linkio *io;
    bool is_open, is_going; /* going: the agent takes no new streams on this connection */
    uint64_t backoff_ns;
    struct dv_timer timer; /* reconnect */
    struct dv_list slots;  /* of replicas there (dv_slots.in_node) */
};

int dv_gw_node_put(struct dv_gw_loop *l, const struct dv_route_node *n);
void dv_gw_node_remove(struct dv_gw_loop *l, uint64_t id);
void dv_gw_nodes_free(struct dv_gw_loop *l);
void dv_gw_slots_attach(struct dv_gw_loop *l, struct dv_slots *s);
/* Open a stream for the request in r->slot.  DV_OK, or why not (nothing was sent). */
int dv_gw_link_open(struct dv_gw_req *r, uint32_t timeout_ms);
int dv_gw_link_send(struct dv_gw_req *r, struct dv_sv bytes, bool end, size_t *out_taken);
size_t dv_gw_link_credit(const struct dv_gw_req *r);
bool dv_gw_link_was_credited(const struct dv_gw_req *r); /* the agent has passed some of the body on */
void dv_gw_link_trailers(struct dv_gw_req *r, struct dv_sv fields);
void dv_gw_link_consumed(struct dv_gw_req *r, size_t n);
void dv_gw_link_reset(struct dv_gw_req *r, enum dv_link_reset why); /* r lets go of its stream */

/* ---- one request (request.c) ---- */

enum dv_gw_req_state {
    GW_REQ_FREE,
    GW_REQ_WAITING,    /* in its function's queue */
    GW_REQ_RUNNING,    /* with its upstream, no answer yet */
    GW_REQ_ANSWERING,  /* head of the answer is out */
    GW_REQ_UPGRADED,   /* raw bytes both ways */
    GW_REQ_COLLECTING, /* async: body comes in */
    GW_REQ_ACCEPTING,  /* async: the state loop has it */
    GW_REQ_DONE        /* answered by us */
};
enum dv_gw_upstream { GW_UP_NONE, GW_UP_LINK, GW_UP_API };

struct dv_gw_req {
    struct dv_waiter waiter;
    struct dv_gw_conn *conn;
    struct dv_gw_fn *fn; /* held; NULL for the API */
    struct dv_slots *slot;
    struct dv_gw_node *node; /* of the stream */
    uint32_t stream;
    struct dv_h1up *api;
    bool api_paused; /* it waits for a slow client */
    uint64_t serial; /* of this use of the object: late answers are known by it */
    enum dv_gw_req_state state;
    enum dv_gw_upstream upstream;
    enum dv_route_kind kind;

    /* the request */
    struct dv_buf head; /* method, target and field lines as the upstream is sent them */
    size_t method_n, target_n;
    struct dv_buf body; /* what was read and not sent, or is kept for a retry */
    size_t body_sent;   /* of it */
    bool body_kept;     /* all of what came is still in body */
    enum dv_h1_body body_kind;
    uint64_t content_length, body_left;
    struct dv_h1_chunked chunked;
    bool body_done; /* the client has sent all of it */
    bool end_sent;  /* and the upstream knows */
    struct dv_buf trailers;
    bool wants_continue, is_head, minor_0;
    char upgrade[32];   /* protocol asked for; empty: none */
    char *callback_url; /* async */

    /* the answer */
    int status;
    enum dv_h1_body answer_kind;
    uint64_t answer_left;
    bool raw_until_close; /* HTTP/1.0 client: no chunks */
    size_t unconsumed;    /* answer bytes in conn->out that the upstream has not been credited for */
    uint64_t bytes_in, bytes_out;
    bool made_here; /* the answer is our own */

    uint64_t arrived_ns, started_ns, deadline_ns;
    uint32_t start_us, run_us, attempts; /* start_us: at the agent */
    uint32_t n_refused;                  /* of the attempts: no container would take the connection */
    bool met_none; /* no replica existed when it came: its wait was a start, not a queue */
    char call_id[GW_CALL_ID_MAX];
    char traceparent[56];
    uint64_t start_wall_ns; /* X-Start-Time */
};

struct dv_gw_conn;
/* A head has been parsed.  The connection's request from now on, unless it was answered at once.
 * More of its body goes to dv_gw_request_feed. */
void dv_gw_req_free(struct dv_gw_req *r); /* of the pool */
void dv_gw_req_waits(const struct dv_gw_req *r, uint64_t now_ns, uint64_t *out_queue_us,
                     uint64_t *out_start_us);
void dv_gw_request_begin(struct dv_gw_conn *c, const struct dv_h1_head *h);
/* Body bytes (framed as they came).  Returns how many were used; 0: it wants none now, or needs more to go
 * on. */
size_t dv_gw_request_feed(struct dv_gw_req *r, const char *p, size_t n);
bool dv_gw_request_wants(const struct dv_gw_req *r);
size_t dv_gw_request_read_size(const struct dv_gw_req *r);
void dv_gw_request_peer_closed(struct dv_gw_req *r); /* the client's direction ended */
void dv_gw_request_abandon(struct dv_gw_req *r);     /* the connection is gone */
void dv_gw_request_flushed(struct dv_gw_req *r);     /* bytes have left conn->out */
void dv_gw_request_timeout(struct dv_gw_req *r);
void dv_gw_request_accepted(struct dv_gw_req *r, int code,
                            const char *detail); /* async: the state loop has answered */
void dv_gw_request_run(struct dv_gw_req *r, struct dv_slots *s);
void dv_gw_request_refuse_waiting(struct dv_gw_req *r, int status, const char *code, const char *detail);
/* From an upstream. */
void dv_gw_up_head(struct dv_gw_req *r, int status, enum dv_h1_body body, uint64_t length,
                   struct dv_sv fields);
void dv_gw_up_data(struct dv_gw_req *r, struct dv_sv bytes);
void dv_gw_up_trailers(struct dv_gw_req *r, struct dv_sv fields);
void dv_gw_up_end(struct dv_gw_req *r);
void dv_gw_up_writable(struct dv_gw_req *r);
/* The stream is gone already.  text: what the agent adds for a person, or empty. */
void dv_gw_up_reset(struct dv_gw_req *r, enum dv_link_reset why, struct dv_sv text);
void dv_gw_up_failed(struct dv_gw_req *r, int status, const char *code, const char *detail);

/* ---- what the upstream is sent (forward.c) ---- */
int dv_gw_forward_build(struct dv_gw_req *r, const struct dv_h1_head *h, const struct dv_route *route);
struct dv_sv dv_gw_req_method(const struct dv_gw_req *r);
struct dv_sv dv_gw_req_target(const struct dv_gw_req *r);
struct dv_sv dv_gw_req_fields(const struct dv_gw_req *r);
bool dv_gw_auth_ok(const struct dv_gateway *g, const struct dv_h1_head *h); /* constant time */

/* ---- what the client is sent (answer.c) ---- */
void dv_gw_answer_head(struct dv_gw_req *r, int status, enum dv_h1_body body, uint64_t length,
                       struct dv_sv fields);
void dv_gw_answer_info(struct dv_gw_req *r, int status, struct dv_sv fields); /* 100, 103 */
void dv_gw_answer_data(struct dv_gw_req *r, struct dv_sv bytes);
void dv_gw_answer_end(struct dv_gw_req *r, struct dv_sv trailers);
struct dv_gw_error {
    int status;
    const char *code;       /* machine-readable: "queue_full" */
    const char *detail;     /* a sentence */
    const char *hop;        /* "gateway", "queue", "agent", "function"; NULL: gateway */
    const char *allow;      /* for 405 */
    uint32_t retry_after_s; /* 0: none */
};
/* Our own answer, complete. */
void dv_gw_answer_error(struct dv_gw_req *r, const struct dv_gw_error *e);
void dv_gw_answer_text(struct dv_gw_req *r, int status, struct dv_sv content_type, struct dv_sv body);
/* For a head that could not be understood: no request exists. */
void dv_gw_answer_bad_head(struct dv_gw_conn *c, int status, const char *detail);

/* ---- client connections (ingress.c) ---- */

enum dv_gw_conn_state { GW_CONN_OPEN, GW_CONN_LINGER, GW_CONN_CLOSED };

struct dv_gw_conn {
    struct dv_io io;
    struct dv_gw_tls *tls; /* NULL: plain */
    struct dv_gw_loop *loop;
    struct dv_list node;    /* of all, or of those closed in this turn */
    struct dv_list dirty;   /* has output to write */
    struct dv_list hurried; /* has more to read than one turn allows */
    uint32_t reads_left;    /* in the turn that began at turn_ns */
    uint64_t turn_ns;
    struct dv_timer timer; /* lazy: fires at or before at_ns */
    uint64_t at_ns;
    struct dv_buf in, out;
    struct dv_gw_req *req;
    enum dv_gw_conn_state state;
    bool readable, writable, peer_closed, is_internal, is_feeding, had_request;
    bool keep_alive;                  /* another request may follow the present one */
    bool close_after_out, is_stalled; /* stalled: at_ns is the limit for a client that takes nothing */
    bool needs_linger; /* the client may still be sending: a plain close would reset what we said last */
    char peer[48];     /* the client's address as text */
};

void dv_gw_conn_accept(struct dv_gw_loop *l, int fd, const struct dv_addr *from, bool is_internal);
void dv_gw_conn_dirty(struct dv_gw_conn *c);         /* out has something to write */
struct dv_buf *dv_gw_conn_out(struct dv_gw_conn *c); /* takes a buffer from the pool when it has none */
void dv_gw_conn_arm(struct dv_gw_conn *c, uint64_t at_ns);
void dv_gw_conn_pump(struct dv_gw_conn *c);         /* use what was read, read more */
void dv_gw_conn_request_done(struct dv_gw_conn *c); /* c->req is over (already NULL) */
void dv_gw_conn_close(struct dv_gw_conn *c);        /* at once; its request is abandoned */
void dv_gw_conns_flush(struct dv_gw_loop *l);
void dv_gw_conns_drain(struct dv_gw_loop *l); /* idle ones close, the others after their request */
void dv_gw_conns_again(struct dv_gw_loop *l); /* the next turn of those that had more to read */
void dv_gw_conns_free(struct dv_gw_loop *l);

/* ---- the API as upstream (gw_api.c) ---- */
struct dv_gw_api_idle {
    struct dv_h1up *up;
    struct dv_gw_loop *loop;
};
int dv_gw_api_open(struct dv_gw_req *r);
int dv_gw_api_send(struct dv_gw_req *r, struct dv_sv bytes, size_t *out_taken);
void dv_gw_api_finish(struct dv_gw_req *r, struct dv_sv trailers);
void dv_gw_api_drop(struct dv_gw_req *r);
void dv_gw_api_resume(struct dv_gw_req *r);
void dv_gw_api_free(struct dv_gw_loop *l);

/* ---- async (gw_async.c) ---- */
void dv_gw_async_collected(struct dv_gw_req *r); /* body is whole: to the state loop */

/* ---- a loop (gw_loop.c) ---- */

struct dv_gw_counters { /* written by the loop, read by anybody */
    _Atomic uint64_t connections, accepted, refused, requests, bad_heads, api_requests, links_open,
        link_failures, bytes_in, bytes_out, tls_handshakes, tls_failures;
    struct dv_live_hist api;
};

struct dv_gw_loop {
    struct dv_gateway *g;
    uint32_t index;
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    pthread_t thread;
    bool has_thread;
    struct dv_io listener, internal;
    struct dv_tls_keys *keys; /* held; NULL: the public listener is plain */
    uint32_t handshakes_left; /* in the turn that began at handshakes_ns */
    uint64_t handshakes_ns;
    struct dv_timer accept_timer;  /* out of descriptors: listen again later */
    bool is_stopped;               /* the thread has ended: news is only freed */
    struct dv_map known;           /* struct dv_gw_def by key */
    struct dv_map fns, fns_by_uid; /* struct dv_gw_fn: of these, those in use */
    struct dv_map nodes;           /* struct dv_gw_node by id */
    struct dv_list conns, closed, dirty;
    struct dv_defer flush;
    size_t n_conns;
    struct dv_list free_reqs;  /* by waiter.node */
    struct dv_list free_conns; /* by node */
    struct dv_buf bufs[GW_POOLED_BUFS];
    size_t n_bufs, bufs_bytes;
    struct dv_timer again;  /* for connections that used up their turn */
    struct dv_list hurried; /* those, by dv_gw_conn.hurried */
    bool is_again;          /* it is their turn */
    struct dv_gw_api_idle api_idle[GW_API_IDLE_MAX];
    struct dv_rng rng;
    uint64_t serial;
    uint64_t wall_base_ns, mono_base_ns; /* wall time of a turn without asking for it */
    char date[40];
    uint64_t date_second;
    size_t async_bytes;
    bool is_draining, has_drained;
    uint64_t drain_at_ns;
    struct dv_timer drain_timer;
    struct dv_gw_counters n;
    struct dv_accesslog_ring *log;
    struct dv_h1_head head; /* of the request being parsed: large, used within one call */
    char scratch[GW_SCRATCH_BYTES];
};

int dv_gw_loop_new(struct dv_gateway *g, uint32_t index, struct dv_gw_loop **out, struct dv_err *err);
int dv_gw_loop_start(struct dv_gw_loop *l, struct dv_err *err);
void dv_gw_loop_join(
    struct dv_gw_loop *l); /* ends its thread; before any loop is freed, since loops poke each other */
void dv_gw_loop_free(struct dv_gw_loop *l); /* NULL accepted */
void dv_gw_loop_listen_stop(struct dv_gw_loop *l);
void dv_gw_loop_drain(struct dv_gw_loop *l, uint64_t deadline_ns);
void dv_gw_loop_drained_check(struct dv_gw_loop *l);
uint64_t dv_gw_wall_ns(struct dv_gw_loop *l);
struct dv_sv dv_gw_date(struct dv_gw_loop *l);               /* "Date: ...\r\n" */
void dv_gw_buf_give(struct dv_gw_loop *l, struct dv_buf *b); /* its memory goes to the pool */
void dv_gw_buf_take(struct dv_gw_loop *l, struct dv_buf *b); /* from the pool, when it has any */

/* ---- the whole (gateway.c); written before the loops start, or by the state loop alone ---- */

struct dv_gateway {
    struct dv_gateway_cfg cfg;
    char *user, *password, *internal_path, *api_path, *basic; /* basic: base64 of user:password */
    struct dv_addr api_addr, listen_addr;
    struct dv_tls_keys *keys; /* held; NULL: without TLS.  The loops have references of their own */
    int port;
    struct dv_gw_loop **loops;
    uint32_t n_loops;
    struct dv_map fns; /* struct dv_gw_shared_fn by uid: the state loop's */
    struct dv_accesslog *log;
    struct dv_gw_face *face;
    void (*on_drained)(void *ctx);
    uint32_t n_draining;
    uint64_t seed;
};

/* What messages to the state loop hold, since they may arrive after the gateway is gone. */
struct dv_gw_face {
    _Atomic uint32_t refs;
    struct dv_gateway *g; /* NULL: gone; state loop only */
};
struct dv_gw_face *dv_gw_face_ref(struct dv_gw_face *f);
void dv_gw_face_unref(struct dv_gw_face *f);

void dv_gw_fns_each(struct dv_gateway *g, void (*each)(void *ctx, const struct dv_live_fn *fn),
                    void *ctx);                /* state loop */
void dv_gw_told_drained(struct dv_gw_loop *l); /* on the loop: tells the state loop */

#endif
