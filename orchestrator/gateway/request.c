/* One request's life.
 *
 *   begin -> (answered here) DONE
 *         -> WAITING -> RUNNING -> ANSWERING -> over         a function; back to WAITING when the replica
 * refused unseen
 *                                -> UPGRADED -> over
 *         -> RUNNING -> ANSWERING -> over                    the API
 *         -> COLLECTING -> ACCEPTING -> DONE                 async
 *
 * Invariants: in WAITING exactly, the request is in its function's queue.  It holds a slot from run until
 * leave_slot. `body` holds what came and has not been sent, and with body_kept all that came: then, and only
 * then, the request can be sent again.  end_request is the only way out; afterwards the object is in the pool
 * and its serial has changed. */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"

#include <assert.h>

#define API_BODY_STALL_NS (60 * DV_S)
enum { DISCARD_BYTES = 64 * 1024 };

static uint64_t now_of(const struct dv_gw_req *r)
{
    return dv_loop_now(r->conn->loop->loop);
}

static struct dv_live_cell *cell_of(const struct dv_gw_req *r)
{
    return r->fn->queue.cell;
}

static size_t unsent(const struct dv_gw_req *r)
{
    return dv_buf_len(&r->body) - r->body_sent;
}

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

static void leave_slot(struct dv_gw_req *r)
{
    struct dv_slots *s = r->slot;
    if (!s)
        return;
    r->slot = NULL;
    dv_live_flight(cell_of(r), -1, now_of(r));
    dv_queue_leave(&r->fn->queue, s, now_of(r));
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

static void log_access(const struct dv_gw_req *r, uint64_t now)
{
    struct dv_gw_loop *l = r->conn->loop;
    if (!l->log)
        return;
    uint64_t started = r->started_ns ? r->started_ns : now;
    struct dv_access a = {.wall_ns = dv_gw_wall_ns(l),
                          .status = r->status,
                          .bytes_in = r->bytes_in,
                          .bytes_out = r->bytes_out,
                          .total_us = (now - r->arrived_ns) / 1000,
                          .queue_us = r->fn ? (started - r->arrived_ns) / 1000 : 0,
                          .start_us = r->start_us,
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
    struct dv_live_cell *cell = cell_of(r);
    dv_live_count(cell, r->status, us);
    dv_live_set(&cell->last_activity_ns, now);
    if (r->made_here && r->status >= 500)
        dv_live_add(&cell->failed, 1);
    else if (!r->made_here && r->status != 499) {
        dv_live_add(&cell->answered, 1);
        dv_live_add(&cell->service_ns, now - r->started_ns);
    }
}

static void end_request(struct dv_gw_req *r)
{
    struct dv_gw_conn *c = r->conn;
    struct dv_gw_loop *l = c->loop;
    struct dv_gw_fn *f = r->fn;
    uint64_t now = now_of(r);
    bool had_slot = r->slot != NULL;
    if (f)
        dv_queue_drop(&f->queue, &r->waiter);
    let_go_of_upstream(r, DV_RESET_CANCEL);
    leave_slot(r);
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
static void answer_complete(struct dv_gw_req *r)
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
    end_request(r);
}

static void abort_connection(struct dv_gw_req *r)
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
    leave_slot(r); /* not only when the rest of its body has come in */
    if (f)
        f->n_requests++;
    r->state = GW_REQ_DONE;
    dv_buf_clear(&r->body);
    r->body_sent = 0;
    if (!r->body_done && (r->body_kind == DV_H1_CHUNKED || r->body_left > DISCARD_BYTES || r->wants_continue))
        r->conn->keep_alive = false;
    dv_gw_answer_error(r, e);
    dv_gw_conn_arm(r->conn, now_of(r) + GW_STALL_NS);
    answer_complete(r);
    if (!f)
        return;
    dv_gw_fn_pump(f);
    dv_gw_fn_unhold(f);
}

static void answer_simple(struct dv_gw_req *r, int status, const char *code, const char *hop,
                          const char *detail)
{
    answer_here(r, &(struct dv_gw_error){.status = status,
                                         .code = code,
                                         .hop = hop,
                                         .detail = detail,
                                         .retry_after_s = status == 503 ? 1 : 0});
}

void dv_gw_request_refuse_waiting(struct dv_gw_req *r, int status, const char *code, const char *detail)
{
    answer_simple(r, status, code, "queue", detail);
}

/* The upstream let us down: say so when nothing has been said yet. */
static void fail_upstream(struct dv_gw_req *r, int status, const char *code, const char *hop,
                          const char *detail)
{
    if (r->state == GW_REQ_RUNNING)
        answer_simple(r, status, code, hop, detail);
    else
        abort_connection(r);
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

static void arm_queue(struct dv_gw_req *r)
{
    uint64_t at = r->arrived_ns + (uint64_t)r->fn->queue_timeout_ms * DV_MS;
    dv_gw_conn_arm(r->conn, at < r->deadline_ns && r->fn->queue_timeout_ms ? at : r->deadline_ns);
}

static void admit(struct dv_gw_req *r)
{
    struct dv_gw_fn *f = r->fn;
    struct dv_live_cell *cell = cell_of(r);
    struct dv_slots *s;
    r->deadline_ns = f->timeout_ms ? r->arrived_ns + (uint64_t)f->timeout_ms * DV_MS : GW_NEVER_NS;
    dv_live_add(&cell->arrived, 1);
    dv_live_set(&cell->last_activity_ns, r->arrived_ns);
    r->state = GW_REQ_WAITING;
    int rc = dv_queue_admit(&f->queue, &r->waiter, r->arrived_ns, &s);
    if (rc == DV_OK) {
        dv_gw_request_run(r, s);
        if (f->queue.n_waiting)
            dv_gw_fn_demand(f); /* it could not be sent after all */
    } else if (rc == DV_AGAIN && !f->failing) {
        arm_queue(r);
        dv_gw_fn_demand(f);
    } else if (rc == DV_AGAIN) {
        dv_gw_fn_demand(f); /* whether to try again is the state loop's to decide */
        answer_simple(r, 503, "function_failing", "function", f->failing);
    } else {
        dv_live_add(&cell->rejected, 1);
        answer_simple(r, 503, "queue_full", "queue", "too many requests wait for this function already");
    }
}

static void collect(struct dv_gw_req *r, const struct dv_h1_head *h)
{
    struct dv_sv callback = dv_h1_find(h, "x-callback-url");
    r->state = GW_REQ_COLLECTING;
    if (callback.n && !(r->callback_url = dv_strndup(callback.p, callback.n))) {
        answer_simple(r, 500, "out_of_memory", "gateway", "out of memory");
        return;
    }
    if (r->body_kind == DV_H1_LENGTH && r->content_length > GW_ASYNC_BODY_BYTES) {
        answer_simple(r, 413, "body_too_large", "gateway", "the body of an async request is at most 8 MiB");
        return;
    }
    if (r->body_done) {
        dv_gw_async_collected(r);
        return;
    }
    dv_gw_conn_arm(r->conn, now_of(r) + API_BODY_STALL_NS);
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
    dv_gw_conn_arm(r->conn, r->body_done ? GW_NEVER_NS : now_of(r) + API_BODY_STALL_NS);
    if (dv_gw_api_open(r)) {
        answer_simple(r, 503, "api_unavailable", "gateway", "the API does not answer");
        return;
    }
    if (r->wants_continue && !r->body_done) {
        r->wants_continue = false;
        dv_gw_answer_info(r, 100, dv_sv("", 0));
    }
}

static void take_facts(struct dv_gw_req *r, const struct dv_h1_head *h)
{
    r->arrived_ns = now_of(r);
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
    answer_complete(r);
}

/* Which refusal this request deserves before anything else happens to it, if any. */
static bool refused_at_once(struct dv_gw_req *r, const struct dv_h1_head *h)
{
    const char *allow = NULL;
    bool is_fn = r->kind != DV_ROUTE_API && r->kind != DV_ROUTE_HEALTH;
    bool needs_auth = r->kind == DV_ROUTE_INVOKE || (r->fn && r->fn->auth_required);
    if (needs_auth && !r->conn->is_internal && !dv_gw_auth_ok(r->conn->loop->g, h))
        answer_simple(r, 401, "unauthenticated", "gateway", "credentials are missing or wrong");
    else if (is_fn && !r->fn)
        answer_simple(r, 404, "function_unknown", "gateway", "there is no function of this name");
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
    if (route.kind != DV_ROUTE_API && route.kind != DV_ROUTE_HEALTH)
        r->fn = dv_gw_fn_find(c->loop, &route);
    if (r->fn)
        r->fn->n_requests++;
    if (dv_gw_forward_build(r, h, &route)) {
        dv_buf_clear(&r->head);
        r->method_n = r->target_n = 0;
        answer_simple(r, 503, "out_of_memory", "gateway", "out of memory");
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

/* ---- with a replica ---- */

static int send_up(struct dv_gw_req *r, struct dv_sv bytes, bool end, size_t *taken)
{
    if (r->upstream == GW_UP_API)
        return dv_gw_api_send(r, bytes, taken);
    return dv_gw_link_send(r, bytes, end, taken);
}

static void send_end(struct dv_gw_req *r)
{
    size_t none;
    if (r->end_sent)
        return;
    r->end_sent = true;
    if (r->upstream == GW_UP_API)
        dv_gw_api_finish(r, dv_buf_sv(&r->trailers));
    else if (dv_buf_len(&r->trailers))
        dv_gw_link_trailers(r, dv_buf_sv(&r->trailers));
    else
        (void)dv_gw_link_send(r, dv_sv("", 0), true, &none); /* a stream that is gone tells so itself */
}

/* Send what stands in body, then the end if there is one. */
static void push(struct dv_gw_req *r)
{
    size_t n = unsent(r), taken = 0;
    bool is_last = r->body_done && !dv_buf_len(&r->trailers) && r->upstream == GW_UP_LINK;
    if (n) {
        if (send_up(r, dv_sv(dv_buf_ptr(&r->body) + r->body_sent, n), is_last, &taken))
            return;
        r->body_sent += taken;
        if (is_last && taken == n)
            r->end_sent = true;
    }
    if (unsent(r))
        return;
    if (!r->body_kept) {
        dv_buf_clear(&r->body);
        r->body_sent = 0;
    }
    if (r->body_done)
        send_end(r);
}

/* The replica cannot have seen it: once more, somewhere else or later. */
static void requeue(struct dv_gw_req *r)
{
    struct dv_gw_fn *f = r->fn;
    r->state = GW_REQ_WAITING;
    r->upstream = GW_UP_NONE;
    r->node = NULL;
    r->body_sent = 0;
    r->end_sent = false;
    r->started_ns = 0;
    dv_live_add(&cell_of(r)->retried, 1);
    dv_queue_put_back(&f->queue, &r->waiter);
    arm_queue(r);
}

/* Upgraded streams are ended by their ends; to the agent 0 says that no deadline is to be kept there. */
static uint32_t timeout_left_ms(const struct dv_gw_req *r)
{
    if (r->deadline_ns == GW_NEVER_NS || r->upgrade[0])
        return 0;
    uint64_t left = (r->deadline_ns - now_of(r)) / DV_MS;
    return left > UINT32_MAX ? UINT32_MAX : left ? (uint32_t)left : 1;
}

/* Called by the pump, and by admit: must not pump itself. */
void dv_gw_request_run(struct dv_gw_req *r, struct dv_slots *s)
{
    struct dv_gw_fn *f = r->fn;
    uint64_t now = now_of(r);
    if (now >= r->deadline_ns) { /* its timer is due in this very turn */
        dv_queue_leave(&f->queue, s, now);
        answer_simple(r, 504, "queue_timeout", "queue",
                      "the function's deadline passed while the request waited");
        return;
    }
    r->slot = s;
    r->state = GW_REQ_RUNNING;
    r->upstream = GW_UP_LINK;
    r->started_ns = now;
    r->attempts++;
    dv_live_flight(cell_of(r), 1, now);
    int rc = dv_gw_link_open(r, timeout_left_ms(r));
    if (rc) {
        dv_queue_refused(&f->queue, s, now);
        leave_slot(r);
        if (rc == DV_TOO_LARGE)
            answer_simple(r, 431, "head_too_large", "gateway", "the request's head is too large");
        else if (r->attempts >= GW_ATTEMPTS_MAX)
            answer_simple(r, 503, "node_unavailable", "gateway", "the function's node takes no request now");
        else
            requeue(r);
        return;
    }
    dv_live_add(&cell_of(r)->started, 1);
    dv_live_hist_add(&cell_of(r)->wait, (now - r->arrived_ns) / 1000);
    dv_gw_conn_arm(r->conn, r->deadline_ns);
    if (r->wants_continue) { /* only now is the body needed */
        r->wants_continue = false;
        dv_gw_answer_info(r, 100, dv_sv("", 0));
    }
    if (!r->upgrade[0])
        push(r);
    dv_gw_conn_pump(r->conn);
}

/* ---- the client's body ---- */

bool dv_gw_request_wants(const struct dv_gw_req *r)
{
    switch (r->state) {
    case GW_REQ_WAITING:
        return !r->body_done && dv_buf_len(&r->body) < GW_KEPT_BODY_BYTES;
    case GW_REQ_RUNNING:
    case GW_REQ_ANSWERING:
        return !r->body_done && !unsent(r);
    case GW_REQ_UPGRADED:
        return !unsent(r) && !r->end_sent;
    case GW_REQ_COLLECTING:
    case GW_REQ_DONE:
        return !r->body_done;
    case GW_REQ_FREE:
    case GW_REQ_ACCEPTING:
        break;
    }
    return false;
}

/* How much to read at once: no more than can go on its way, but enough to be cut short, since only then the
 * upstream tells when there is room again. */
size_t dv_gw_request_read_size(const struct dv_gw_req *r)
{
    size_t least = 4096, most = GW_SCRATCH_BYTES, room = most;
    if (r->state == GW_REQ_WAITING)
        room = GW_KEPT_BODY_BYTES - dv_buf_len(&r->body);
    else if (r->upstream == GW_UP_LINK && r->node)
        room = dv_gw_link_credit((struct dv_gw_req *)(uintptr_t)r);
    return room < least ? least : room < most ? room : most;
}

static void no_memory(struct dv_gw_req *r)
{
    if (r->state == GW_REQ_ANSWERING || r->state == GW_REQ_UPGRADED)
        abort_connection(r);
    else
        answer_simple(r, 503, "out_of_memory", "gateway", "out of memory");
}

static void collect_bytes(struct dv_gw_req *r, struct dv_sv bytes)
{
    struct dv_gw_loop *l = r->conn->loop;
    if (dv_buf_len(&r->body) + bytes.n > GW_ASYNC_BODY_BYTES)
        answer_simple(r, 413, "body_too_large", "gateway", "the body of an async request is at most 8 MiB");
    else if (l->async_bytes + bytes.n > GW_ASYNC_TOTAL_BYTES)
        answer_simple(r, 503, "async_busy", "gateway", "too many async requests are being accepted");
    else if (dv_buf_add_sv(&r->body, bytes))
        no_memory(r);
    else {
        l->async_bytes += bytes.n;
        dv_gw_conn_arm(r->conn, now_of(r) + API_BODY_STALL_NS);
    }
}

/* Bytes on their way through: straight on as far as the upstream takes them, the rest waits in body. */
static void pass_on(struct dv_gw_req *r, struct dv_sv bytes)
{
    size_t taken = 0;
    bool is_last = r->body_done && r->upstream == GW_UP_LINK && r->state != GW_REQ_UPGRADED;
    if (r->body_kept && dv_buf_len(&r->body) + bytes.n <= GW_KEPT_BODY_BYTES && r->state == GW_REQ_RUNNING) {
        if (dv_buf_add_sv(&r->body, bytes))
            no_memory(r);
        else
            push(r);
        return;
    }
    if (r->body_kept) { /* too much to keep: from here on it is sent once */
        r->body_kept = false;
        dv_buf_consume(&r->body, r->body_sent);
        r->body_sent = 0;
    }
    if (!unsent(r)) {
        if (send_up(r, bytes, is_last, &taken))
            taken = bytes.n; /* the stream is gone; its event says what comes next */
        if (is_last && taken == bytes.n)
            r->end_sent = true;
    }
    if (taken < bytes.n && dv_buf_add(&r->body, bytes.p + taken, bytes.n - taken))
        no_memory(r);
    else if (r->upstream == GW_UP_API && r->state != GW_REQ_UPGRADED)
        dv_gw_conn_arm(r->conn, now_of(r) + API_BODY_STALL_NS);
}

static void body_bytes(struct dv_gw_req *r, struct dv_sv bytes)
{
    r->bytes_in += bytes.n;
    switch (r->state) {
    case GW_REQ_COLLECTING:
        collect_bytes(r, bytes);
        return;
    case GW_REQ_WAITING:
        if (dv_buf_add_sv(&r->body, bytes))
            no_memory(r);
        return;
    case GW_REQ_RUNNING:
    case GW_REQ_ANSWERING:
    case GW_REQ_UPGRADED:
        pass_on(r, bytes);
        return;
    case GW_REQ_DONE:
    case GW_REQ_FREE:
    case GW_REQ_ACCEPTING:
        return; /* nobody needs it any more */
    }
}

static void body_over(struct dv_gw_req *r)
{
    switch (r->state) {
    case GW_REQ_COLLECTING:
        dv_gw_async_collected(r);
        return;
    case GW_REQ_RUNNING:
    case GW_REQ_ANSWERING:
        if (r->upstream == GW_UP_API)
            dv_gw_conn_arm(r->conn, GW_NEVER_NS);
        push(r);
        return;
    case GW_REQ_DONE:
        end_request(r);
        return;
    case GW_REQ_WAITING:
    case GW_REQ_UPGRADED:
    case GW_REQ_FREE:
    case GW_REQ_ACCEPTING:
        return;
    }
}

static size_t feed_length(struct dv_gw_req *r, const char *p, size_t n)
{
    uint64_t serial = r->serial;
    size_t k = n < r->body_left ? n : (size_t)r->body_left;
    r->body_left -= k;
    r->body_done = r->body_left == 0;
    body_bytes(r, dv_sv(p, k));
    if (r->serial == serial && r->body_done)
        body_over(r);
    return k;
}

static void bad_chunk(struct dv_gw_req *r, const struct dv_err *err)
{
    r->conn->keep_alive = false;
    if (r->state == GW_REQ_DONE || r->state == GW_REQ_ANSWERING)
        abort_connection(r);
    else
        answer_simple(r, 400, "bad_chunk", "gateway", dv_err_msg(err, DV_INVALID));
}

static size_t feed_chunked(struct dv_gw_req *r, const char *p, size_t n)
{
    uint64_t serial = r->serial;
    size_t used = 0;
    bool at_end = false; /* trailers were the last that came: DONE is told without further bytes */
    while ((used < n || at_end) && r->serial == serial && dv_gw_request_wants(r)) {
        enum dv_h1_chunk_event ev;
        struct dv_sv out = {0};
        struct dv_err err = DV_ERR_INIT;
        size_t k = 0;
        if (dv_h1_chunked_next(&r->chunked, p + used, n - used, &ev, &out, &k, &err)) {
            bad_chunk(r, &err);
            return n;
        }
        used += k;
        if (ev == DV_H1_CHUNK_MORE && !k)
            break;
        at_end = ev == DV_H1_CHUNK_TRAILERS;
        if (ev == DV_H1_CHUNK_DATA)
            body_bytes(r, out);
        else if (at_end && dv_buf_add_sv(&r->trailers, out))
            no_memory(r);
        else if (ev == DV_H1_CHUNK_DONE) {
            r->body_done = true;
            body_over(r);
            return used;
        }
    }
    return used;
}

size_t dv_gw_request_feed(struct dv_gw_req *r, const char *p, size_t n)
{
    if (!dv_gw_request_wants(r))
        return 0;
    if (r->state == GW_REQ_UPGRADED) {
        body_bytes(r, dv_sv(p, n));
        return n;
    }
    return r->body_kind == DV_H1_CHUNKED ? feed_chunked(r, p, n) : feed_length(r, p, n);
}

/* ---- what the upstream says ---- */

void dv_gw_up_head(struct dv_gw_req *r, int status, enum dv_h1_body body, uint64_t length,
                   struct dv_sv fields)
{
    if (r->state != GW_REQ_RUNNING)
        return;
    if (status < 200 && status != 101) {
        if (status != 100) /* we have said that ourselves */
            dv_gw_answer_info(r, status, fields);
        return;
    }
    if (r->slot)
        dv_queue_accepted(r->slot);
    if (status == 101 && !r->upgrade[0]) {
        fail_upstream(r, 502, "bad_answer", "function",
                      "the function switched protocols although nobody asked");
        return;
    }
    r->state = status == 101 ? GW_REQ_UPGRADED : GW_REQ_ANSWERING;
    if (status == 101) {
        r->conn->keep_alive = false;
        r->conn->needs_linger = true;
        r->body_kept = false;
        r->body_done = r->end_sent = false; /* from here on: what the client sends until it closes */
        dv_gw_conn_arm(r->conn, GW_NEVER_NS);
    } else if (r->upgrade[0]) {
        send_end(r); /* refused: an answer like any other */
    }
    dv_gw_answer_head(r, status, body, length, fields);
    if (status == 101)
        dv_gw_conn_pump(r->conn);
}

void dv_gw_up_data(struct dv_gw_req *r, struct dv_sv bytes)
{
    bool takes =
        r->state == GW_REQ_UPGRADED || (r->state == GW_REQ_ANSWERING && r->answer_kind != DV_H1_NO_BODY);
    if (!takes) {
        dv_gw_link_consumed(r, bytes.n);
        return;
    }
    if (r->answer_kind == DV_H1_LENGTH) {
        if (bytes.n > r->answer_left) {
            abort_connection(r);
            return;
        }
        r->answer_left -= bytes.n;
    }
    if (bytes.n)
        dv_gw_answer_data(r, bytes);
    r->unconsumed += bytes.n;
}

void dv_gw_up_trailers(struct dv_gw_req *r, struct dv_sv fields)
{
    dv_buf_clear(&r->trailers); /* the request's own have been sent, or never will be */
    if (dv_buf_add_sv(&r->trailers, fields))
        abort_connection(r);
}

void dv_gw_up_end(struct dv_gw_req *r)
{
    if (r->end_sent)
        r->node = NULL; /* both directions are over: the stream is, too */
    if (r->state == GW_REQ_UPGRADED) {
        end_request(r);
        return;
    }
    if (r->state != GW_REQ_ANSWERING) {
        fail_upstream(r, 502, "bad_answer", "function", "the function ended without an answer");
        return;
    }
    if (r->answer_kind == DV_H1_LENGTH && r->answer_left) {
        abort_connection(r);
        return;
    }
    dv_gw_answer_end(r, dv_buf_sv(&r->trailers));
    answer_complete(r);
}

void dv_gw_up_writable(struct dv_gw_req *r)
{
    push(r);
    if (!unsent(r))
        dv_gw_conn_pump(r->conn);
}

void dv_gw_up_failed(struct dv_gw_req *r, int status, const char *code, const char *detail)
{
    r->node = NULL;
    fail_upstream(r, status, code, r->kind == DV_ROUTE_API ? "gateway" : "agent", detail);
}

void dv_gw_up_reset(struct dv_gw_req *r, enum dv_link_reset why)
{
    bool unseen = dv_link_reset_unseen(why);
    r->node = NULL; /* the stream is forgotten already */
    if (unseen && r->slot)
        dv_queue_refused(&r->fn->queue, r->slot, now_of(r));
    if (r->state == GW_REQ_RUNNING && unseen && r->body_kept && r->attempts < GW_ATTEMPTS_MAX &&
        now_of(r) < r->deadline_ns) {
        struct dv_gw_fn *f = r->fn;
        leave_slot(r);
        requeue(r);
        dv_gw_fn_pump(f);
        if (f->queue.n_waiting)
            dv_gw_fn_demand(f);
        return;
    }
    if (why == DV_RESET_TIMEOUT)
        fail_upstream(r, 504, "function_timeout", "function",
                      "the function did not answer before its deadline");
    else if (why == DV_RESET_REFUSED || why == DV_RESET_SHUTDOWN)
        fail_upstream(r, 503, "replica_busy", "agent", dv_link_reset_text(why));
    else
        fail_upstream(r, 502, unseen ? "replica_unreachable" : "function_broken",
                      unseen ? "agent" : "function", dv_link_reset_text(why));
}

void dv_gw_request_accepted(struct dv_gw_req *r, int code, const char *detail)
{
    if (code == DV_OK) {
        r->state = GW_REQ_DONE;
        dv_gw_answer_text(r, 202, dv_sv("", 0), dv_sv("", 0));
        answer_complete(r);
        return;
    }
    int status = dv_err_http(code);
    answer_simple(r, status, "not_accepted", "gateway", detail);
}

/* ---- what the connection says ---- */

void dv_gw_request_flushed(struct dv_gw_req *r)
{
    size_t waiting = dv_buf_len(&r->conn->out);
    if (r->unconsumed > waiting) {
        size_t gone = r->unconsumed - waiting;
        r->unconsumed = waiting;
        dv_gw_link_consumed(r, gone);
    }
    if (r->api && waiting < GW_OUT_BYTES / 2)
        dv_gw_api_resume(r);
}

void dv_gw_request_peer_closed(struct dv_gw_req *r)
{
    if (r->state != GW_REQ_UPGRADED)
        return;          /* the connection is closed by the caller's caller, see on_conn */
    r->body_done = true; /* of an upgraded stream one direction may end before the other */
    if (!unsent(r))
        send_end(r);
}

void dv_gw_request_abandon(struct dv_gw_req *r)
{
    if (r->fn && r->state != GW_REQ_DONE && r->state != GW_REQ_UPGRADED)
        dv_live_add(&cell_of(r)->cancelled, 1);
    if (r->state == GW_REQ_WAITING || r->state == GW_REQ_RUNNING || r->state == GW_REQ_COLLECTING)
        r->status = 499; /* nothing was said; the log and the counters call it so, as nginx does */
    end_request(r);
}

void dv_gw_request_timeout(struct dv_gw_req *r)
{
    switch (r->state) {
    case GW_REQ_WAITING:
        if (now_of(r) >= r->deadline_ns)
            answer_simple(r, 504, "queue_timeout", "queue",
                          "the function's deadline passed while the request waited");
        else
            answer_simple(r, 503, "queue_timeout", "queue",
                          "the request waited longer than the queue allows");
        return;
    case GW_REQ_RUNNING:
        if (r->kind == DV_ROUTE_API) {
            answer_simple(r, 408, "body_timeout", "gateway", "the request's body did not arrive in time");
            return;
        }
        dv_gw_link_reset(r, DV_RESET_TIMEOUT);
        answer_simple(r, 504, "function_timeout", "function",
                      "the function did not answer before its deadline");
        return;
    case GW_REQ_COLLECTING:
        answer_simple(r, 408, "body_timeout", "gateway", "the request's body did not arrive in time");
        return;
    case GW_REQ_ANSWERING:
    case GW_REQ_UPGRADED:
    case GW_REQ_DONE:
        abort_connection(r);
        return;
    case GW_REQ_FREE:
    case GW_REQ_ACCEPTING:
        return;
    }
}
