/* The client's body: framed bytes in, plain bytes out to whoever needs them.  What the upstream has no room
 * for waits in r->body, and the connection is not read meanwhile. */
#include "orchestrator/gateway/request_internal.h"

bool dv_gw_request_wants(const struct dv_gw_req *r)
{
    switch (r->state) {
    case GW_REQ_WAITING:
        return !r->body_done && dv_buf_len(&r->body) < GW_KEPT_BODY_BYTES;
    case GW_REQ_RUNNING:
    case GW_REQ_ANSWERING:
        return !r->body_done && !dv_gw_req_unsent(r);
    case GW_REQ_UPGRADED:
        return !dv_gw_req_unsent(r) && !r->end_sent;
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
        room = dv_gw_link_credit(r);
    return room < least ? least : room < most ? room : most;
}

static void no_memory(struct dv_gw_req *r)
{
    if (r->state == GW_REQ_ANSWERING || r->state == GW_REQ_UPGRADED)
        dv_gw_req_abort(r);
    else
        dv_gw_req_answer(r, 503, "out_of_memory", "gateway", "out of memory");
}

static void collect_bytes(struct dv_gw_req *r, struct dv_sv bytes)
{
    struct dv_gw_loop *l = r->conn->loop;
    if (dv_buf_len(&r->body) + bytes.n > GW_ASYNC_BODY_BYTES)
        dv_gw_req_answer(r, 413, "body_too_large", "gateway",
                         "the body of an async request is at most 8 MiB");
    else if (l->async_bytes + bytes.n > GW_ASYNC_TOTAL_BYTES)
        dv_gw_req_answer(r, 503, "async_busy", "gateway", "too many async requests are being accepted");
    else if (dv_buf_add_sv(&r->body, bytes))
        no_memory(r);
    else {
        l->async_bytes += bytes.n;
        dv_gw_conn_arm(r->conn, dv_gw_req_now(r) + GW_BODY_STALL_NS);
    }
}

/* May its function be without any of the body yet?  Then all of it is kept, so that a request which nobody
 * has seen can go elsewhere.  An agent gives no credit back before the container has been sent something:
 * what is kept stays below the window and one read. */
static bool must_keep(const struct dv_gw_req *r, size_t n_more)
{
    size_t most = r->upstream == GW_UP_LINK ? GW_RETRY_BODY_BYTES : GW_KEPT_BODY_BYTES;
    if (!r->body_kept || r->state != GW_REQ_RUNNING)
        return false;
    return dv_buf_len(&r->body) + n_more <= most ||
           (r->upstream == GW_UP_LINK && !dv_gw_link_was_credited(r));
}

void dv_gw_req_unkeep(struct dv_gw_req *r)
{
    if (!r->body_kept)
        return;
    r->body_kept = false;
    dv_buf_consume(&r->body, r->body_sent);
    r->body_sent = 0;
}

/* Bytes on their way through: straight on as far as the upstream takes them, the rest waits in body. */
static void pass_on(struct dv_gw_req *r, struct dv_sv bytes)
{
    size_t taken = 0;
    bool is_last = r->body_done && r->upstream == GW_UP_LINK && r->state != GW_REQ_UPGRADED;
    if (must_keep(r, bytes.n)) {
        if (dv_buf_add_sv(&r->body, bytes))
            no_memory(r);
        else
            dv_gw_req_push(r);
        return;
    }
    dv_gw_req_unkeep(r); /* from here on it is sent once */
    if (!dv_gw_req_unsent(r)) {
        if (dv_gw_req_send(r, bytes, is_last, &taken))
            taken = bytes.n; /* the stream is gone; its event says what comes next */
        if (is_last && taken == bytes.n)
            r->end_sent = true;
    }
    if (taken < bytes.n && dv_buf_add(&r->body, bytes.p + taken, bytes.n - taken))
        no_memory(r);
    else if (r->upstream == GW_UP_API && r->state != GW_REQ_UPGRADED)
        dv_gw_conn_arm(r->conn, dv_gw_req_now(r) + GW_BODY_STALL_NS);
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
        dv_gw_req_push(r);
        return;
    case GW_REQ_DONE:
        dv_gw_req_end(r);
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
        dv_gw_req_abort(r);
    else
        dv_gw_req_answer(r, 400, "bad_chunk", "gateway", dv_err_msg(err, DV_INVALID));
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
