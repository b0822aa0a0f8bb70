/* A request with its upstream: sent, answered, sent again when the replica cannot have seen it; and what
 * becomes of it when its connection or its deadline says so. */
#include "orchestrator/gateway/request_internal.h"

/* ---- sending ---- */

int dv_gw_req_send(struct dv_gw_req *r, struct dv_sv bytes, bool end, size_t *taken)
{
    if (r->upstream == GW_UP_API)
        return dv_gw_api_send(r, bytes, taken);
    return dv_gw_link_send(r, bytes, end, taken);
}

void dv_gw_req_send_end(struct dv_gw_req *r)
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
void dv_gw_req_push(struct dv_gw_req *r)
{
    size_t n = dv_gw_req_unsent(r), taken = 0;
    bool is_last = r->body_done && !dv_buf_len(&r->trailers) && r->upstream == GW_UP_LINK;
    if (n) {
        if (dv_gw_req_send(r, dv_sv(dv_buf_ptr(&r->body) + r->body_sent, n), is_last, &taken))
            return;
        r->body_sent += taken;
        if (is_last && taken == n)
            r->end_sent = true;
    }
    if (dv_gw_req_unsent(r))
        return;
    if (!r->body_kept) {
        dv_buf_clear(&r->body);
        r->body_sent = 0;
    }
    if (r->body_done)
        dv_gw_req_send_end(r);
}

/* The replica cannot have seen it: once more, somewhere else or later.  An agent that has just started does
 * not know its replicas for a moment, one that drains refuses: waiting for either is waiting in the queue,
 * and ends with its time. */
static void requeue(struct dv_gw_req *r)
{
    struct dv_gw_fn *f = r->fn;
    r->state = GW_REQ_WAITING;
    r->upstream = GW_UP_NONE;
    r->node = NULL;
    r->body_sent = 0;
    r->end_sent = false;
    r->started_ns = 0;
    dv_live_add(&dv_gw_req_cell(r)->retried, 1);
    dv_queue_put_back(&f->queue, &r->waiter);
    dv_gw_req_arm_queue(r);
}

/* Upgraded streams are ended by their ends; to the agent 0 says that no deadline is to be kept there. */
static uint32_t timeout_left_ms(const struct dv_gw_req *r)
{
    if (r->deadline_ns == GW_NEVER_NS || r->upgrade[0])
        return 0;
    uint64_t left = (r->deadline_ns - dv_gw_req_now(r)) / DV_MS;
    return left > UINT32_MAX ? UINT32_MAX : left ? (uint32_t)left : 1;
}

/* Called by the pump, and by admit: must not pump itself. */
void dv_gw_request_run(struct dv_gw_req *r, struct dv_slots *s)
{
    struct dv_gw_fn *f = r->fn;
    uint64_t now = dv_gw_req_now(r);
    if (now >= r->deadline_ns) { /* its timer is due in this very turn */
        dv_queue_leave(&f->queue, s, now);
        dv_gw_req_answer(r, 504, "queue_timeout", "queue",
                         "the function's deadline passed while the request waited");
        return;
    }
    r->slot = s;
    r->state = GW_REQ_RUNNING;
    r->upstream = GW_UP_LINK;
    r->started_ns = now;
    r->attempts++;
    dv_live_flight(dv_gw_req_cell(r), 1, now);
    int rc = dv_gw_link_open(r, timeout_left_ms(r));
    if (rc) {
        dv_queue_refused(&f->queue, s, now);
        dv_gw_req_leave_slot(r);
        if (rc == DV_TOO_LARGE)
            dv_gw_req_answer(r, 431, "head_too_large", "gateway", "the request's head is too large");
        else
            requeue(r);
        return;
    }
    dv_live_add(&dv_gw_req_cell(r)->started, 1);
    dv_live_hist_add(&dv_gw_req_cell(r)->wait, (now - r->arrived_ns) / 1000);
    dv_gw_conn_arm(r->conn, r->deadline_ns);
    if (r->wants_continue) { /* only now is the body needed */
        r->wants_continue = false;
        dv_gw_answer_info(r, 100, dv_sv("", 0));
    }
    if (!r->upgrade[0])
        dv_gw_req_push(r);
    dv_gw_conn_pump(r->conn);
}

/* The upstream let us down: say so when nothing has been said yet. */
static void fail_upstream(struct dv_gw_req *r, int status, const char *code, const char *hop,
                          const char *detail)
{
    if (r->state == GW_REQ_RUNNING)
        dv_gw_req_answer(r, status, code, hop, detail);
    else
        dv_gw_req_abort(r);
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
    dv_gw_req_unkeep(r);
    if (status == 101) {
        r->conn->keep_alive = false;
        r->conn->needs_linger = true;
        r->body_done = r->end_sent = false; /* from here on: what the client sends until it closes */
        dv_gw_conn_arm(r->conn, GW_NEVER_NS);
    } else if (r->upgrade[0]) {
        dv_gw_req_send_end(r); /* refused: an answer like any other */
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
            dv_gw_req_abort(r);
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
        dv_gw_req_abort(r);
}

void dv_gw_up_end(struct dv_gw_req *r)
{
    if (r->end_sent)
        r->node = NULL; /* both directions are over: the stream is, too */
    if (r->state == GW_REQ_UPGRADED) {
        dv_gw_req_end(r);
        return;
    }
    if (r->state != GW_REQ_ANSWERING) {
        fail_upstream(r, 502, "bad_answer", "function", "the function ended without an answer");
        return;
    }
    if (r->answer_kind == DV_H1_LENGTH && r->answer_left) {
        dv_gw_req_abort(r);
        return;
    }
    dv_gw_answer_end(r, dv_buf_sv(&r->trailers));
    dv_gw_req_answered(r);
}

void dv_gw_up_writable(struct dv_gw_req *r)
{
    dv_gw_req_push(r);
    if (!dv_gw_req_unsent(r))
        dv_gw_conn_pump(r->conn);
}

void dv_gw_up_failed(struct dv_gw_req *r, int status, const char *code, const char *detail)
{
    r->node = NULL;
    fail_upstream(r, status, code, r->kind == DV_ROUTE_API ? "gateway" : "agent", detail);
}

static void fail_broken(struct dv_gw_req *r, enum dv_link_reset why, struct dv_sv text)
{
    bool unseen = dv_link_reset_unseen(why);
    char detail[DV_LINK_MAX_REASON + 120];
    (void)snprintf(detail, sizeof(detail), "%s%s%.*s", dv_link_reset_text(why), text.n ? ": " : "",
                   (int)text.n, text.n ? text.p : "");
    fail_upstream(r, 502, unseen ? "replica_unreachable" : "function_broken", unseen ? "agent" : "function",
                  detail);
}

void dv_gw_up_reset(struct dv_gw_req *r, enum dv_link_reset why, struct dv_sv text)
{
    bool unseen = dv_link_reset_unseen(why);
    r->node = NULL; /* the stream is forgotten already */
    if (unseen && r->slot)
        dv_queue_refused(&r->fn->queue, r->slot, dv_gw_req_now(r));
    r->n_refused += why == DV_RESET_CONNECT;
    if (r->state == GW_REQ_RUNNING && unseen && r->body_kept && r->n_refused < GW_CONNECTS_MAX &&
        dv_gw_req_now(r) < r->deadline_ns) {
        struct dv_gw_fn *f = r->fn;
        dv_gw_req_leave_slot(r);
        requeue(r);
        f->n_requests++; /* running it may end it */
        dv_gw_fn_pump(f);
        if (f->queue.n_waiting)
            dv_gw_fn_demand(f);
        dv_gw_fn_unhold(f);
        return;
    }
    if (why == DV_RESET_TIMEOUT)
        fail_upstream(r, 504, "function_timeout", "function",
                      "the function did not answer before its deadline");
    else if (why == DV_RESET_REFUSED)
        fail_upstream(r, 503, "replica_busy", "agent", dv_link_reset_text(why));
    else if (why == DV_RESET_SHUTDOWN)
        fail_upstream(r, 502, "node_stopped", "agent",
                      "the agent of the function's node was stopped before the request had ended");
    else
        fail_broken(r, why, text);
}

void dv_gw_request_accepted(struct dv_gw_req *r, int code, const char *detail)
{
    if (code == DV_OK) {
        r->state = GW_REQ_DONE;
        dv_gw_answer_text(r, 202, dv_sv("", 0), dv_sv("", 0));
        dv_gw_req_answered(r);
        return;
    }
    int status = dv_err_http(code);
    dv_gw_req_answer(r, status, "not_accepted", "gateway", detail);
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
    if (!dv_gw_req_unsent(r))
        dv_gw_req_send_end(r);
}

void dv_gw_request_abandon(struct dv_gw_req *r)
{
    if (r->fn && r->state != GW_REQ_DONE && r->state != GW_REQ_UPGRADED)
        dv_live_add(&dv_gw_req_cell(r)->cancelled, 1);
    if (r->state == GW_REQ_WAITING || r->state == GW_REQ_RUNNING || r->state == GW_REQ_COLLECTING)
        r->status = 499; /* nothing was said; the log and the counters call it so, as nginx does */
    dv_gw_req_end(r);
}

void dv_gw_request_timeout(struct dv_gw_req *r)
{
    switch (r->state) {
    case GW_REQ_WAITING:
        if (dv_gw_req_now(r) >= r->deadline_ns)
            dv_gw_req_answer(r, 504, "queue_timeout", "queue",
                             "the function's deadline passed while the request waited");
        else
            dv_gw_req_answer(r, 503, "queue_timeout", "queue",
                             "the request waited longer than the queue allows");
        return;
    case GW_REQ_RUNNING:
        if (r->kind == DV_ROUTE_API) {
            dv_gw_req_answer(r, 408, "body_timeout", "gateway", "the request's body did not arrive in time");
            return;
        }
        dv_gw_link_reset(r, DV_RESET_TIMEOUT);
        dv_gw_req_answer(r, 504, "function_timeout", "function",
                         "the function did not answer before its deadline");
        return;
    case GW_REQ_COLLECTING:
        dv_gw_req_answer(r, 408, "body_timeout", "gateway", "the request's body did not arrive in time");
        return;
    case GW_REQ_ANSWERING:
    case GW_REQ_UPGRADED:
    case GW_REQ_DONE:
        dv_gw_req_abort(r);
        return;
    case GW_REQ_FREE:
    case GW_REQ_ACCEPTING:
        return;
    }
}
