/* One request's life, from its head to its end.
 *
 *   a function   begin -> WAITING -> RUNNING -> ANSWERING -> over
 *                            ^--------|   `---> UPGRADED --> over     (back: refused, unseen by the function)
 *   the API      begin -> RUNNING -> ANSWERING -> over
 *   async        begin -> COLLECTING -> ACCEPTING -> DONE -> over
 *   our answer   anywhere before ANSWERING -> DONE -> over
 *
 * Invariants: in WAITING exactly, the request is in its function's queue.
 * It holds a slot from dv_gw_request_run until dv_gw_req_leave_slot.
 * `body` holds what came and has not been sent, and with body_kept all that came: then, and only then, the
 * request can be sent again.  It is kept for as long as its function may not have seen it.
 * dv_gw_req_end is the only way out; afterwards the object is in the pool and its serial has changed.
 *
 * What a client is told by us: 404 unknown at once; 405 with Allow; 401; 503 + Retry-After when the queue is
 * full (queue_max, over all loops) or the wait was longer than queue_timeout; 504 naming the hop when the
 * function's deadline (timeout, waiting included) has passed; 503 with the reason while the function fails;
 * 502 when the replica broke; 413 for an async body above 8 MiB; 408 for a body that stalls. */
#include "orchestrator/gateway/request_internal.h"
#include "proto/base/alloc.h"

#include <assert.h>

enum { DISCARD_BYTES = 64 * 1024 };

/* ---- pool ---- */

static struct dv_gw_req *req_take(struct dv_gw_conn *c)
{
    struct dv_gw_loop *l = c->loop;
    struct dv_list *n = dv_list_pop_front(&l->free_reqs);
    struct dv_gw_req *r = n ? DV_LIST_ENTRY(n, struct dv_gw_req, waiter.node) : dv_zalloc(sizeof(*r));
    if (!r)
        return NULL;
    struct dv_buf head = r->head, body = r->body, trailers = r->trailers;
    *r = (struct dv_gw_req){.conn = c,
                            .serial = ++l->serial,
                            .head = head,
                            .body = body,
                            .trailers = trailers,
                            .body_kept = true};
    dv_list_init(&r->waiter.node);
    c->req = r;
    return r;
}

void dv_gw_req_free(struct dv_gw_req *r)
{
    dv_buf_deinit(&r->head);
    dv_buf_deinit(&r->body);
    dv_buf_deinit(&r->trailers);
    dv_free(r);
}

void dv_gw_req_leave_slot(struct dv_gw_req *r)
{
    struct dv_slots *s = r->slot;
    if (!s)
        return;
    r->slot = NULL;
    dv_live_flight(dv_gw_req_cell(r), -1, dv_gw_req_now(r));
    dv_queue_leave(&r->fn->queue, s, dv_gw_req_now(r));
}

static void let_go_of_upstream(struct dv_gw_req *r, enum dv_link_reset why)
{
    if (r->node)
        dv_gw_link_reset(r, why);
    if (r->api)
        dv_gw_api_drop(r);
    r->upstream = GW_UP_NONE;
}

/* ---- the end ---- */

/* What it waited for: a free slot, or a replica to start.  A wait that began where no replica was is a start,
 * at the agent too. */
void dv_gw_req_waits(const struct dv_gw_req *r, uint64_t now_ns, uint64_t *out_queue_us,
                     uint64_t *out_start_us)
{
    uint64_t us = ((r->started_ns ? r->started_ns : now_ns) - r->arrived_ns) / 1000;
    *out_queue_us = r->met_none ? 0 : us;
    *out_start_us = r->start_us + (r->met_none ? us : 0);
}

static void log_access(const struct dv_gw_req *r, uint64_t now)
{
    struct dv_gw_loop *l = r->conn->loop;
    if (!l->log)
        return;
    uint64_t queue_us, start_us;
    dv_gw_req_waits(r, now, &queue_us, &start_us);
    struct dv_access a = {.wall_ns = dv_gw_wall_ns(l),
                          .status = r->status,
                          .bytes_in = r->bytes_in,
                          .bytes_out = r->bytes_out,
                          .total_us = (now - r->arrived_ns) / 1000,
                          .queue_us = r->fn ? queue_us : 0,
                          .start_us = start_us,
                          .run_us = r->run_us,
                          .attempts = r->attempts,
                          .method = dv_gw_req_method(r),
                          .target = dv_gw_req_target(r),
                          .fn = r->fn ? dv_sv(r->fn->key, r->fn->key_n) : dv_sv("", 0),
                          .peer = dv_sv_c(r->conn->peer),
                          .call_id = dv_sv_c(r->call_id)};
    dv_accesslog_add(l->log, &a);
}

static void count(const struct dv_gw_req *r, uint64_t now)
{
    struct dv_gw_counters *n = &r->conn->loop->n;
    uint64_t us = (now - r->arrived_ns) / 1000;
    dv_live_add(&n->requests, 1);
    if (r->kind == DV_ROUTE_API) {
        dv_live_add(&n->api_requests, 1);
        dv_live_hist_add(&n->api, us);
    }
    if (!r->fn || r->kind == DV_ROUTE_ASYNC)
        return;
    struct dv_live_cell *cell = dv_gw_req_cell(r);
    dv_live_count(cell, r->status, us);
    dv_live_set(&cell->last_activity_ns, now);
    if (r->made_here && r->status >= 500)
        dv_live_add(&cell->failed, 1);
    else if (!r->made_here && r->status != 499) {
        dv_live_add(&cell->answered, 1);
        dv_live_add(&cell->service_ns, now - r->started_ns);
    }
}

void dv_gw_req_end(struct dv_gw_req *r)
{
    struct dv_gw_conn *c = r->conn;
    struct dv_gw_loop *l = c->loop;
    struct dv_gw_fn *f = r->fn;
    uint64_t now = dv_gw_req_now(r);
    bool had_slot = r->slot != NULL;
    if (f)
        dv_queue_drop(&f->queue, &r->waiter);
    let_go_of_upstream(r, DV_RESET_CANCEL);
    dv_gw_req_leave_slot(r);
    count(r, now);
    log_access(r, now);
    if (r->state == GW_REQ_COLLECTING || r->state == GW_REQ_ACCEPTING)
        l->async_bytes -= dv_buf_len(&r->body);
    if (r->callback_url) {
        dv_free(r->callback_url);
        r->callback_url = NULL;
    }
    r->state = GW_REQ_FREE;
    r->serial = 0;
    r->fn = NULL;
    c->req = NULL;
    dv_buf_reset(&r->head, GW_KEPT_BODY_BYTES);
    dv_buf_reset(&r->body, GW_KEPT_BODY_BYTES);
    dv_buf_reset(&r->trailers, GW_KEPT_BODY_BYTES);
    dv_list_push_front(&l->free_reqs, &r->waiter.node);
    if (f && had_slot)
        dv_gw_fn_pump(f);
    if (f)
        dv_gw_fn_unhold(f);
    dv_gw_conn_request_done(c);
}

/* The answer is complete.  What is left of the request's body must not be taken for another request. */
void dv_gw_req_answered(struct dv_gw_req *r)
{
    struct dv_gw_conn *c = r->conn;
    if (!r->body_done) {
        bool little = r->state == GW_REQ_DONE && r->body_kind == DV_H1_LENGTH &&
                      r->body_left <= DISCARD_BYTES && !r->wants_continue && c->keep_alive;
        if (little)
            return; /* read it and go on with the connection: dv_gw_request_feed ends the request */
        c->keep_alive = false;
        c->needs_linger = true;
    }
    dv_gw_req_end(r);
}

void dv_gw_req_abort(struct dv_gw_req *r)
{
    dv_gw_conn_close(r->conn); /* the only honest sign that an answer already begun is not whole */
}

/* ---- our own answers ---- */

static void answer_here(struct dv_gw_req *r, const struct dv_gw_error *e)
{
    struct dv_gw_fn *f = r->slot ? r->fn : NULL;
    let_go_of_upstream(r, DV_RESET_CANCEL);
    if (r->fn)
        dv_queue_drop(&r->fn->queue, &r->waiter);
    if (r->state == GW_REQ_COLLECTING)
        r->conn->loop->async_bytes -= dv_buf_len(&r->body);
    dv_gw_req_leave_slot(r); /* not only when the rest of its body has come in */
    if (f)
        f->n_requests++;
    r->state = GW_REQ_DONE;
    dv_buf_clear(&r->body);
    r->body_sent = 0;
    if (!r->body_done && (r->body_kind == DV_H1_CHUNKED || r->body_left > DISCARD_BYTES || r->wants_continue))
        r->conn->keep_alive = false;
    dv_gw_answer_error(r, e);
    dv_gw_conn_arm(r->conn, dv_gw_req_now(r) + GW_STALL_NS);
    dv_gw_req_answered(r);
    if (!f)
        return;
    dv_gw_fn_pump(f);
    dv_gw_fn_unhold(f);
}

void dv_gw_req_answer(struct dv_gw_req *r, int status, const char *code, const char *hop, const char *detail)
{
    answer_here(r, &(struct dv_gw_error){.status = status,
                                         .code = code,
                                         .hop = hop,
                                         .detail = detail,
                                         .retry_after_s = status == 503 ? 1 : 0});
}

void dv_gw_request_refuse_waiting(struct dv_gw_req *r, int status, const char *code, const char *detail)
{
    dv_gw_req_answer(r, status, code, "queue", detail);
}

/* ---- begin ---- */

static bool is_one_of(struct dv_sv s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (dv_sv_eq(s, dv_sv_c(list[i])))
            return true;
    return false;
}

static bool method_allowed(enum dv_route_kind kind, struct dv_sv m, const char **allow)
{
    static const char *const fn[] = {"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"};
    static const char *const health[] = {"GET", "HEAD"};
    static const char *const async[] = {"POST"};
    switch (kind) {
    case DV_ROUTE_API:
        return true;
    case DV_ROUTE_HEALTH:
        *allow = "GET, HEAD";
        return is_one_of(m, health, DV_COUNT(health));
    case DV_ROUTE_ASYNC:
        *allow = "POST";
        return is_one_of(m, async, DV_COUNT(async));
    case DV_ROUTE_SYNC:
    case DV_ROUTE_INVOKE:
        break;
    }
    *allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    return is_one_of(m, fn, DV_COUNT(fn));
}

void dv_gw_req_arm_queue(struct dv_gw_req *r)
{
    uint64_t at = r->arrived_ns + (uint64_t)r->fn->queue_timeout_ms * DV_MS;
    dv_gw_conn_arm(r->conn, at < r->deadline_ns && r->fn->queue_timeout_ms ? at : r->deadline_ns);
}

static void admit(struct dv_gw_req *r)
{
    struct dv_gw_fn *f = r->fn;
    struct dv_live_cell *cell = dv_gw_req_cell(r);
    struct dv_slots *s;
    r->deadline_ns = f->timeout_ms ? r->arrived_ns + (uint64_t)f->timeout_ms * DV_MS : GW_NEVER_NS;
    dv_live_add(&cell->arrived, 1);
    dv_live_set(&cell->last_activity_ns, r->arrived_ns);
    r->state = GW_REQ_WAITING;
    r->met_none = f->queue.n_replicas == 0;
    int rc = dv_queue_admit(&f->queue, &r->waiter, r->arrived_ns, &s);
    if (rc == DV_OK) {
        dv_gw_request_run(r, s);
        if (f->queue.n_waiting)
            dv_gw_fn_demand(f); /* it could not be sent after all */
    } else if (rc == DV_AGAIN && !f->failing) {
        dv_gw_req_arm_queue(r);
        dv_gw_fn_demand(f);
    } else if (rc == DV_AGAIN) {
        dv_gw_fn_demand(f); /* whether to try again is the state loop's to decide */
        dv_gw_req_answer(r, 503, "function_failing", "function", f->failing);
    } else {
        dv_live_add(&cell->rejected, 1);
        dv_gw_req_answer(r, 503, "queue_full", "queue", "too many requests wait for this function already");
    }
}

static void collect(struct dv_gw_req *r, const struct dv_h1_head *h)
{
    struct dv_sv callback = dv_h1_find(h, "x-callback-url");
    r->state = GW_REQ_COLLECTING;
    if (callback.n && !(r->callback_url = dv_strndup(callback.p, callback.n))) {
        dv_gw_req_answer(r, 500, "out_of_memory", "gateway", "out of memory");
        return;
    }
    if (r->body_kind == DV_H1_LENGTH && r->content_length > GW_ASYNC_BODY_BYTES) {
        dv_gw_req_answer(r, 413, "body_too_large", "gateway",
                         "the body of an async request is at most 8 MiB");
        return;
    }
    if (r->body_done) {
        dv_gw_async_collected(r);
        return;
    }
    dv_gw_conn_arm(r->conn, dv_gw_req_now(r) + GW_BODY_STALL_NS);
    if (r->wants_continue) {
        r->wants_continue = false;
        dv_gw_answer_info(r, 100, dv_sv("", 0));
    }
}

static void begin_api(struct dv_gw_req *r)
{
    r->state = GW_REQ_RUNNING;
    r->upstream = GW_UP_API;
    r->started_ns = r->arrived_ns;
    dv_gw_conn_arm(r->conn, r->body_done ? GW_NEVER_NS : dv_gw_req_now(r) + GW_BODY_STALL_NS);
    if (dv_gw_api_open(r)) {
        dv_gw_req_answer(r, 503, "api_unavailable", "gateway", "the API does not answer");
        return;
    }
    if (r->wants_continue && !r->body_done) {
        r->wants_continue = false;
        dv_gw_answer_info(r, 100, dv_sv("", 0));
    }
}

static void take_facts(struct dv_gw_req *r, const struct dv_h1_head *h)
{
    r->arrived_ns = dv_gw_req_now(r);
    r->is_head = dv_sv_eq(h->method, DV_SV("HEAD"));
    r->minor_0 = h->minor == 0;
    r->body_kind = h->body;
    r->content_length = r->body_left = h->body == DV_H1_LENGTH ? h->content_length : 0;
    r->body_done = h->body == DV_H1_NO_BODY || (h->body == DV_H1_LENGTH && !h->content_length);
    r->wants_continue = h->expect_continue && !r->body_done && !r->minor_0;
    dv_h1_chunked_init(&r->chunked);
    r->conn->keep_alive = h->keep_alive && !r->conn->loop->is_draining;
    if (h->upgrade.n && h->upgrade.n < sizeof(r->upgrade) && r->body_done && !r->minor_0 &&
        dv_sv_eq(h->method, DV_SV("GET"))) {
        memcpy(r->upgrade, h->upgrade.p, h->upgrade.n);
        r->upgrade[h->upgrade.n] = 0;
    }
}

static void answer_health(struct dv_gw_req *r)
{
    r->state = GW_REQ_DONE;
    dv_gw_answer_text(r, r->conn->loop->is_draining ? 503 : 200, DV_SV("text/plain; charset=utf-8"),
                      r->conn->loop->is_draining ? DV_SV("draining\n") : DV_SV("OK\n"));
    dv_gw_req_answered(r);
}

/* Which refusal this request deserves before anything else happens to it, if any. */
static bool refused_at_once(struct dv_gw_req *r, const struct dv_h1_head *h)
{
    const char *allow = NULL;
    bool is_fn = r->kind != DV_ROUTE_API && r->kind != DV_ROUTE_HEALTH;
    bool needs_auth = r->kind == DV_ROUTE_INVOKE || (r->fn && r->fn->auth_required);
    if (needs_auth && !r->conn->is_internal && !dv_gw_auth_ok(r->conn->loop->g, h))
        dv_gw_req_answer(r, 401, "unauthenticated", "gateway", "credentials are missing or wrong");
    else if (is_fn && !r->fn)
        dv_gw_req_answer(r, 404, "function_unknown", "gateway", "there is no function of this name");
    else if (!method_allowed(r->kind, h->method, &allow))
        answer_here(r, &(struct dv_gw_error){.status = 405,
                                             .code = "method_not_allowed",
                                             .detail = "this method is not allowed here",
                                             .allow = allow});
    else
        return false;
    return true;
}

void dv_gw_request_begin(struct dv_gw_conn *c, const struct dv_h1_head *h)
{
    struct dv_gw_req *r = req_take(c);
    if (!r) {
        dv_gw_answer_bad_head(c, 503, "out of memory");
        return;
    }
    struct dv_route route;
    c->is_stalled = false; /* at_ns is this request's from now on */
    dv_route_parse(h->target, &route);
    take_facts(r, h);
    r->kind = route.kind;
    r->state = GW_REQ_DONE;
    int rc = DV_OK;
    if (route.kind != DV_ROUTE_API && route.kind != DV_ROUTE_HEALTH)
        rc = dv_gw_fn_find(c->loop, &route, &r->fn); /* not found: told below */
    if (rc < 0 || dv_gw_forward_build(r, h, &route)) {
        dv_buf_clear(&r->head);
        r->method_n = r->target_n = 0;
        dv_gw_req_answer(r, 503, "out_of_memory", "gateway", "out of memory");
        return;
    }
    if (refused_at_once(r, h))
        return;
    if (r->kind == DV_ROUTE_HEALTH)
        answer_health(r);
    else if (r->kind == DV_ROUTE_API)
        begin_api(r);
    else if (r->kind == DV_ROUTE_ASYNC)
        collect(r, h);
    else
        admit(r);
}
