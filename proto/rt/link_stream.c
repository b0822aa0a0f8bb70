/* Streams: one invocation each, both directions with their own end and their own credit.
 *
 *                 HEADERS      DATA*         TRAILERS? / END           RESET (either side, any time)
 *   client ------> request --> body ------> ended                  --> gone at once on both sides
 *   server <------ answer  <-- body <------ ended
 *
 * A stream is gone when both directions have ended or a RESET passed.  Frames for a stream that is gone were
 * on their way when it went: they are dropped.  Frames that no correct peer could have sent end the
 * connection. */
#include "proto/rt/link_internal.h"

enum { REQUEST_FIXED = 24, RESPONSE_FIXED = 20, MAX_BACKLOG = 4 * DV_LINK_OUT_BYTES };

static void emit(struct dv_link *l, const struct dv_link_event *ev)
{
    l->cfg.on_event(l->cfg.ctx, ev);
}

static bool is_out_full(const struct dv_link *l)
{
    return dv_buf_len(&l->out) >= DV_LINK_OUT_BYTES;
}

/* Field lines that cannot end a head early or hide a second one.  What stands inside a line is the sender's
 * affair: it parsed them strictly before it sent them. */
static bool lines_ok(struct dv_sv f)
{
    if (f.n == 0)
        return true;
    return f.n >= 2 && f.p[0] != '\r' && memcmp(f.p + f.n - 2, "\r\n", 2) == 0 && !memchr(f.p, '\0', f.n) &&
           !memmem(f.p, f.n, "\r\n\r\n", 4);
}

/* Our direction is complete. */
static void end_local(struct dv_link *l, struct dv_link_stream *s)
{
    s->local_ended = true;
    if (s->remote_ended)
        dv_link_slot_give(l, s);
}

/* The peer's direction is complete; the stream may have gone in an earlier callback of the same frame. */
static void end_remote(struct dv_link *l, uint32_t id)
{
    struct dv_link_stream *s = dv_link_find(l, id);
    if (!s)
        return;
    struct dv_link_event ev = {.kind = DV_LINK_EV_END, .stream = id, .user = s->user};
    s->remote_ended = true;
    if (s->local_ended)
        dv_link_slot_give(l, s);
    emit(l, &ev);
}

/* ---- sending ---- */

static int put_request(struct dv_link *l, uint32_t id, const struct dv_link_request *r, bool end)
{
    size_t n = REQUEST_FIXED + r->method.n + r->target.n + r->fields.n;
    char *p = dv_lf_begin(l, DV_LF_HEADERS, end ? DV_LF_FLAG_END : 0, id, n);
    if (!p)
        return l->failed;
    dv_put_u64(p, r->replica);
    dv_put_u64(p + 8, r->content_length);
    dv_put_u32(p + 16, r->timeout_ms);
    p[20] = (char)r->body;
    p[21] = (char)r->method.n;
    dv_put_u16(p + 22, (uint16_t)r->target.n);
    p += REQUEST_FIXED;
    memcpy(p, r->method.p, r->method.n);
    memcpy(p + r->method.n, r->target.p, r->target.n);
    if (r->fields.n)
        memcpy(p + r->method.n + r->target.n, r->fields.p, r->fields.n);
    return DV_OK;
}

static bool request_fits(const struct dv_link_request *r)
{
    return r->method.n && r->method.n <= DV_LINK_MAX_METHOD && r->target.n &&
           r->target.n <= DV_H1_MAX_TARGET &&
           r->fields.n <= (size_t)DV_LINK_MAX_HEADERS - REQUEST_FIXED - DV_LINK_MAX_METHOD - DV_H1_MAX_TARGET;
}

int dv_link_open_stream(struct dv_link *l, const struct dv_link_request *req, bool end, void *user,
                        uint32_t *out_stream)
{
    if (l->state != DV_LS_OPEN || l->failed || !dv_link_is_client(l) || l->has_goaway || l->has_sent_goaway)
        return DV_CLOSED;
    if (!request_fits(req))
        return DV_TOO_LARGE;
    if (dv_buf_len(&l->out) >= MAX_BACKLOG)
        return DV_NO_CAPACITY;
    struct dv_link_stream *s;
    int rc = dv_link_slot_take(l, &s);
    if (rc)
        return rc;
    rc = put_request(l, s->id, req, end);
    if (rc) {
        dv_link_slot_give(l, s);
        return rc;
    }
    s->user = user;
    s->local_ended = end;
    s->head_end = l->out_total;
    *out_stream = s->id;
    return DV_OK;
}

int dv_link_respond(struct dv_link *l, uint32_t stream, const struct dv_link_response *resp, bool end)
{
    struct dv_link_stream *s = dv_link_find(l, stream);
    if (!s)
        return DV_NOT_FOUND;
    bool is_interim = resp->status < 200 && resp->status != 101;
    if (dv_link_is_client(l) || s->has_head || s->local_ended || resp->status < 100 || resp->status > 999 ||
        (is_interim && end))
        return DV_INVALID;
    if (resp->fields.n > (size_t)DV_LINK_MAX_HEADERS - RESPONSE_FIXED)
        return DV_TOO_LARGE;
    char *p =
        dv_lf_begin(l, DV_LF_HEADERS, end ? DV_LF_FLAG_END : 0, stream, RESPONSE_FIXED + resp->fields.n);
    if (!p)
        return l->failed;
    dv_put_u64(p, resp->content_length);
    dv_put_u32(p + 8, resp->start_us);
    dv_put_u32(p + 12, resp->run_us);
    dv_put_u16(p + 16, resp->status);
    p[18] = (char)resp->body;
    p[19] = 0;
    if (resp->fields.n)
        memcpy(p + RESPONSE_FIXED, resp->fields.p, resp->fields.n);
    s->has_head = !is_interim;
    if (end)
        end_local(l, s);
    return DV_OK;
}

static void block(struct dv_link *l, struct dv_link_stream *s)
{
    s->is_blocked = true;
    dv_list_remove(&s->blocked);
    if (s->send_credit) /* it is the output that is full; without credit a WINDOW wakes it */
        dv_list_push_back(&l->blocked, &s->blocked);
}

static bool may_send(const struct dv_link *l, const struct dv_link_stream *s)
{
    return !s->local_ended && (dv_link_is_client(l) || s->has_head);
}

int dv_link_send(struct dv_link *l, uint32_t stream, const void *p, size_t n, bool end, size_t *out_taken)
{
    *out_taken = 0;
    struct dv_link_stream *s = dv_link_find(l, stream);
    if (!s)
        return DV_NOT_FOUND;
    if (!may_send(l, s))
        return DV_INVALID;
    size_t taken = 0;
    while (taken < n && s->send_credit && !is_out_full(l)) {
        size_t run = n - taken < DV_LINK_MAX_DATA ? n - taken : DV_LINK_MAX_DATA;
        if (run > s->send_credit)
            run = s->send_credit;
        bool is_last = end && taken + run == n;
        char *to = dv_lf_begin(l, DV_LF_DATA, is_last ? DV_LF_FLAG_END : 0, stream, run);
        if (!to)
            return l->failed;
        memcpy(to, (const char *)p + taken, run);
        s->send_credit -= (uint32_t)run;
        *out_taken = taken += run;
    }
    if (taken < n) {
        block(l, s);
        return DV_OK;
    }
    if (end && n == 0 && !dv_lf_begin(l, DV_LF_DATA, DV_LF_FLAG_END, stream, 0))
        return l->failed;
    if (end)
        end_local(l, s);
    return DV_OK;
}

int dv_link_send_trailers(struct dv_link *l, uint32_t stream, struct dv_sv fields)
{
    struct dv_link_stream *s = dv_link_find(l, stream);
    if (!s)
        return DV_NOT_FOUND;
    if (!may_send(l, s))
        return DV_INVALID;
    if (fields.n > DV_H1_MAX_TRAILERS)
        return DV_TOO_LARGE;
    char *p = dv_lf_begin(l, DV_LF_TRAILERS, DV_LF_FLAG_END, stream, fields.n);
    if (!p)
        return l->failed;
    if (fields.n)
        memcpy(p, fields.p, fields.n);
    end_local(l, s);
    return DV_OK;
}

static int put_u32(struct dv_link *l, enum dv_lf_type type, uint32_t stream, uint32_t v)
{
    char *p = dv_lf_begin(l, type, 0, stream, 4);
    if (!p)
        return l->failed;
    dv_put_u32(p, v);
    return DV_OK;
}

int dv_link_reset_because(struct dv_link *l, uint32_t stream, enum dv_link_reset why, struct dv_sv text)
{
    struct dv_link_stream *s = dv_link_find(l, stream);
    if (!s)
        return DV_NOT_FOUND;
    dv_link_slot_give(l, s);
    size_t n = l->version < 2 ? 0 : text.n < DV_LINK_MAX_REASON ? text.n : DV_LINK_MAX_REASON;
    char *p = dv_lf_begin(l, DV_LF_RESET, 0, stream, 4 + n);
    if (!p)
        return l->failed;
    dv_put_u32(p, why);
    if (n)
        memcpy(p + 4, text.p, n);
    return DV_OK;
}

int dv_link_reset(struct dv_link *l, uint32_t stream, enum dv_link_reset why)
{
    return dv_link_reset_because(l, stream, why, dv_sv("", 0));
}

void dv_link_consumed(struct dv_link *l, uint32_t stream, size_t n)
{
    struct dv_link_stream *s = dv_link_find(l, stream);
    if (!s)
        return;
    size_t held = DV_LINK_WINDOW - s->recv_credit - s->unacked;
    s->unacked += (uint32_t)(n < held ? n : held);
    if (s->remote_ended || s->unacked < DV_LINK_WINDOW / 2)
        return;
    if (put_u32(l, DV_LF_WINDOW, stream, s->unacked) == DV_OK) {
        s->recv_credit += s->unacked;
        s->unacked = 0;
    }
}

/* ---- receiving ---- */

static bool decode_request(struct dv_sv in, struct dv_link_request *out)
{
    if (in.n < REQUEST_FIXED)
        return false;
    const char *p = in.p;
    size_t method = (unsigned char)p[21], target = dv_get_u16(p + 22), left = in.n - REQUEST_FIXED;
    if (method > DV_LINK_MAX_METHOD || target == 0 || target > DV_H1_MAX_TARGET || method + target > left)
        return false;
    const char *text = p + REQUEST_FIXED;
    *out = (struct dv_link_request){
        .replica = dv_get_u64(p),
        .content_length = dv_get_u64(p + 8),
        .timeout_ms = dv_get_u32(p + 16),
        .body = (uint8_t)p[20],
        .method = {text, method},
        .target = {text + method, target},
        .fields = {text + method + target, left - method - target},
    };
    for (size_t i = 0; i < target; i++)
        if ((unsigned char)out->target.p[i] <= ' ' || (unsigned char)out->target.p[i] >= 0x7f)
            return false;
    return dv_h1_is_token(out->method) && lines_ok(out->fields) && out->body <= DV_H1_UPGRADED &&
           out->body != DV_H1_UNTIL_CLOSE;
}

static bool decode_response(struct dv_sv in, struct dv_link_response *out)
{
    const char *p = in.p;
    *out = (struct dv_link_response){
        .content_length = dv_get_u64(p),
        .start_us = dv_get_u32(p + 8),
        .run_us = dv_get_u32(p + 12),
        .status = dv_get_u16(p + 16),
        .body = (uint8_t)p[18],
        .fields = {p + RESPONSE_FIXED, in.n - RESPONSE_FIXED},
    };
    return p[19] == 0 && out->status >= 100 && out->status <= 999 && out->body <= DV_H1_UPGRADED &&
           out->body != DV_H1_UNTIL_CLOSE && lines_ok(out->fields);
}

static int on_request(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    struct dv_link_event ev = {.kind = DV_LINK_EV_REQUEST, .stream = f->stream};
    if (!decode_request(f->payload, &ev.request))
        return dv_err_set(err, DV_E_PROTO, "malformed head of a request");
    if (l->is_quiet) /* before that it may have crossed our GOAWAY, and is a stream like any other */
        return dv_err_set(err, DV_E_PROTO, "stream %u opened after GOAWAY", f->stream);
    struct dv_link_stream *s;
    int rc = dv_link_slot_claim(l, f->stream, &s);
    if (rc)
        return dv_err_set(err, rc, rc == DV_E_PROTO ? "stream %u opened twice" : "stream %u", f->stream);
    emit(l, &ev);
    if (f->flags & DV_LF_FLAG_END)
        end_remote(l, f->stream);
    return DV_OK;
}

static int on_response(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    struct dv_link_event ev = {.kind = DV_LINK_EV_RESPONSE, .stream = f->stream};
    if (!decode_response(f->payload, &ev.response))
        return dv_err_set(err, DV_E_PROTO, "malformed head of an answer");
    struct dv_link_stream *s = dv_link_find(l, f->stream);
    if (!s)
        return DV_OK;
    bool is_interim = ev.response.status < 200 && ev.response.status != 101;
    if (s->has_head || s->remote_ended || (is_interim && f->flags & DV_LF_FLAG_END))
        return dv_err_set(err, DV_E_PROTO, "second head of an answer, or one without an answer behind it");
    s->has_head = !is_interim;
    ev.user = s->user;
    emit(l, &ev);
    if (f->flags & DV_LF_FLAG_END)
        end_remote(l, f->stream);
    return DV_OK;
}

int dv_link_on_headers(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    return dv_link_is_client(l) ? on_response(l, f, err) : on_request(l, f, err);
}

/* DATA or TRAILERS may come now. */
static bool may_receive(const struct dv_link *l, const struct dv_link_stream *s)
{
    return !s->remote_ended && (!dv_link_is_client(l) || s->has_head);
}

int dv_link_on_data(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    struct dv_link_stream *s = dv_link_find(l, f->stream);
    if (!s)
        return DV_OK;
    size_t n = f->payload.n;
    if (!may_receive(l, s))
        return dv_err_set(err, DV_E_PROTO, "DATA before the answer's head or after the end of stream %u",
                          f->stream);
    if (n == 0 && !(f->flags & DV_LF_FLAG_END))
        return dv_err_set(err, DV_E_PROTO, "DATA without bytes and without end");
    if (n > s->recv_credit)
        return dv_err_set(err, DV_E_PROTO, "DATA beyond the credit of stream %u", f->stream);
    s->recv_credit -= (uint32_t)n;
    if (n)
        emit(l, &(struct dv_link_event){
                    .kind = DV_LINK_EV_DATA, .stream = f->stream, .user = s->user, .bytes = f->payload});
    if (f->flags & DV_LF_FLAG_END)
        end_remote(l, f->stream);
    return DV_OK;
}

int dv_link_on_trailers(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    if (!lines_ok(f->payload))
        return dv_err_set(err, DV_E_PROTO, "malformed trailers");
    struct dv_link_stream *s = dv_link_find(l, f->stream);
    if (!s)
        return DV_OK;
    if (!may_receive(l, s))
        return dv_err_set(err, DV_E_PROTO, "TRAILERS before the answer's head or after the end of stream %u",
                          f->stream);
    emit(l, &(struct dv_link_event){
                .kind = DV_LINK_EV_TRAILERS, .stream = f->stream, .user = s->user, .bytes = f->payload});
    end_remote(l, f->stream);
    return DV_OK;
}

static void wake(struct dv_link *l, struct dv_link_stream *s)
{
    s->is_blocked = false;
    emit(l, &(struct dv_link_event){.kind = DV_LINK_EV_WRITABLE, .stream = s->id, .user = s->user});
}

int dv_link_on_window(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    struct dv_link_stream *s = dv_link_find(l, f->stream);
    if (!s)
        return DV_OK;
    uint32_t more = dv_get_u32(f->payload.p);
    if (more == 0 || more > DV_LINK_WINDOW - s->send_credit)
        return dv_err_set(err, DV_E_PROTO, "WINDOW of %u on stream %u, which has %u", more, f->stream,
                          s->send_credit);
    s->send_credit += more;
    s->was_credited = true;
    if (s->is_blocked && is_out_full(l))
        block(l, s);
    else if (s->is_blocked)
        wake(l, s);
    return DV_OK;
}

int dv_link_on_reset(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    (void)err;
    struct dv_link_stream *s = dv_link_find(l, f->stream);
    if (!s)
        return DV_OK;
    uint32_t why = dv_get_u32(f->payload.p);
    struct dv_link_event ev = {.kind = DV_LINK_EV_RESET,
                               .stream = f->stream,
                               .user = s->user,
                               .bytes = dv_sv(f->payload.p + 4, f->payload.n - 4),
                               .reset = why < DV_RESET_N ? (enum dv_link_reset)why : DV_RESET_PROTOCOL};
    dv_link_slot_give(l, s);
    emit(l, &ev);
    return DV_OK;
}

/* Those that waited are moved aside first: one that blocks again waits for the next time. */
void dv_link_flushed(struct dv_link *l)
{
    if (dv_list_empty(&l->blocked) || dv_buf_len(&l->out) > DV_LINK_OUT_BYTES / 2)
        return;
    struct dv_list waiting;
    dv_list_init(&waiting);
    struct dv_list *n;
    while ((n = dv_list_pop_front(&l->blocked)))
        dv_list_push_back(&waiting, n);
    while (!is_out_full(l) && (n = dv_list_pop_front(&waiting)))
        wake(l, DV_LIST_ENTRY(n, struct dv_link_stream, blocked));
    while ((n = dv_list_pop_front(&waiting)))
        dv_list_push_back(&l->blocked, n);
}

/* ---- questions ---- */

void dv_link_set_user(struct dv_link *l, uint32_t stream, void *user)
{
    struct dv_link_stream *s = dv_link_find(l, stream);
    if (s)
        s->user = user;
}

size_t dv_link_credit(const struct dv_link *l, uint32_t stream)
{
    const struct dv_link_stream *s = dv_link_find(l, stream);
    return s && !s->local_ended ? s->send_credit : 0;
}

bool dv_link_was_credited(const struct dv_link *l, uint32_t stream)
{
    const struct dv_link_stream *s = dv_link_find(l, stream);
    return s && s->was_credited;
}

bool dv_link_is_unsent(const struct dv_link *l, uint32_t stream)
{
    const struct dv_link_stream *s = dv_link_find(l, stream);
    return s && s->head_end > l->out_total - dv_buf_len(&l->out);
}
