/* One request on its way through the agent: a stream of a data link on one side, a connection to a container
 * on the other.
 *
 * Back-pressure: what the connection does not take waits in `pending`, which credit of the link bounds (a
 * window); what the link does not take stays in the connection, which stops reading.
 *
 * A second try.  Only on a connection that had been kept alive, only once, only while no byte of an answer
 * has come, and only from a copy of everything sent (`kept`, 16 KiB at most).  If nothing of the request was
 * written, any request is tried again; if it was, only those that may be repeated (RFC 9110, 9.2.2): a server
 * that closed an idle connection looks the same as a function that died of the request.  Once that has been
 * possible no later failure says "unseen": the gateway would try a request that kills on replica after
 * replica.
 *
 * Whoever sent the request keeps its body for as long as no credit comes back (proto/link.md, section 5).  So
 * none is given before the container has been sent something: until then the request can go elsewhere whole.
 * A body that its sender cannot keep to the end (longer than a window, or of unknown length) gets a fresh
 * connection: an idle one might be closed by its server in the very moment that credit is given.
 *
 * The slot is given back when the answer is complete.  The rest of a request's body that the function did not
 * care for is then thrown away as it comes (the stream's user is NULL from there on). */
#include "agent/carry/carry_internal.h"
#include "proto/base/alloc.h"

static struct dv_link *link_of(const struct carry_stream *s)
{
    return dv_linkio_link(s->link->io);
}

static void kick(const struct carry_stream *s)
{
    dv_linkio_kick(s->link->io);
}

/* ---- slots ---- */

/* DV_OK: inside; whether it sleeps was read in the same instant (see hold.c). */
static int slot_enter(struct carry_live *live, bool *is_asleep)
{
    if (atomic_load(&live->is_draining))
        return DV_NO_CAPACITY;
    uint64_t n = atomic_load(&live->in_flight);
    do {
        if ((n & ~CARRY_ASLEEP) >= atomic_load(&live->concurrency))
            return DV_NO_CAPACITY;
    } while (!atomic_compare_exchange_weak(&live->in_flight, &n, n + 1));
    *is_asleep = n & CARRY_ASLEEP;
    return DV_OK;
}

static void slot_leave(struct carry_live *live, uint64_t now_ns)
{
    /* before the count: whoever sees nobody inside sees since when */
    atomic_store_explicit(&live->left_ns, now_ns, memory_order_relaxed);
    if ((atomic_fetch_sub(&live->in_flight, 1) & ~CARRY_ASLEEP) == 1 && atomic_load(&live->is_draining))
        carry_tell_drained(live);
}

/* Once more behind the count: a drain that began in between has looked at the count and seen nobody. */
static int slot_enter_open(struct carry_live *live, uint64_t now_ns, bool *is_asleep)
{
    int rc = slot_enter(live, is_asleep);
    if (rc || !atomic_load(&live->is_draining))
        return rc;
    slot_leave(live, now_ns);
    return DV_NO_CAPACITY;
}

/* ---- life ---- */

static struct carry_stream *stream_new(struct carry_loop *l)
{
    struct dv_list *n = dv_list_pop_front(&l->spare);
    if (n) {
        l->n_spare--;
        return DV_LIST_ENTRY(n, struct carry_stream, node);
    }
    struct carry_stream *s = dv_zalloc(sizeof(*s));
    if (!s)
        return NULL;
    dv_list_init(&s->node);
    dv_buf_init(&s->pending, DV_LINK_WINDOW);
    dv_buf_init(&s->kept, CARRY_KEPT_BYTES);
    return s;
}

void carry_stream_destroy(struct carry_stream *s)
{
    dv_buf_deinit(&s->head);
    dv_buf_deinit(&s->pending);
    dv_buf_deinit(&s->kept);
    dv_buf_deinit(&s->trailers);
    dv_buf_deinit(&s->answer_trailers);
    dv_free(s);
}

static void stream_spare(struct carry_loop *l, struct carry_stream *s)
{
    if (l->n_spare >= CARRY_SPARE_STREAMS) {
        carry_stream_destroy(s);
        return;
    }
    dv_buf_reset(&s->head, CARRY_SPARE_BYTES);
    dv_buf_reset(&s->pending, CARRY_SPARE_BYTES);
    dv_buf_reset(&s->kept, CARRY_SPARE_BYTES);
    dv_buf_reset(&s->trailers, 0);
    dv_buf_reset(&s->answer_trailers, 0);
    dv_list_push_front(&l->spare, &s->node);
    l->n_spare++;
}

/* Leaves its slot, its connection (dropped unless it was given back before) and its link. */
static void stream_free(struct carry_stream *s, enum carry_outcome outcome)
{
    struct carry_loop *l = s->loop;
    if (s->up)
        carry_up_drop(s->up);
    s->up = NULL;
    carry_inquiry_end(s);
    dv_timer_cancel(l->loop, &s->timer);
    dv_list_remove(&s->node);
    if (outcome == CARRY_OK)
        atomic_fetch_add(&s->slot->live->served, 1);
    slot_leave(s->slot->live, dv_loop_now(l->loop));
    carry_count(&l->outcomes[outcome], 1);
    carry_count(&l->n_streams, (uint64_t)-1);
    stream_spare(l, s);
}

static enum carry_outcome outcome_of(enum dv_link_reset why)
{
    static const enum carry_outcome table[DV_RESET_N] = {
        [DV_RESET_CANCEL] = CARRY_CANCEL,       [DV_RESET_NOT_HERE] = CARRY_NOT_HERE,
        [DV_RESET_REFUSED] = CARRY_REFUSED,     [DV_RESET_CONNECT] = CARRY_CONNECT,
        [DV_RESET_BROKEN] = CARRY_BROKEN,       [DV_RESET_BAD_ANSWER] = CARRY_BAD_ANSWER,
        [DV_RESET_TIMEOUT] = CARRY_TIMEOUT,     [DV_RESET_EXITED] = CARRY_EXITED,
        [DV_RESET_PROTOCOL] = CARRY_BAD_ANSWER, [DV_RESET_SHUTDOWN] = CARRY_SHUTDOWN};
    return table[why];
}

/* Nothing of it has been written to a container. */
static bool is_unseen(const struct carry_stream *s)
{
    return !s->is_seen && !(s->up && dv_h1up_has_written(s->up->up));
}

void carry_stream_abort(struct carry_stream *s, enum dv_link_reset why)
{
    struct dv_sv text = why == DV_RESET_EXITED ? dv_sv_c(s->slot->live->why_text) : dv_sv("", 0);
    /* Not found: the gateway has let go of it already. */
    (void)dv_link_reset_because(link_of(s), s->id, why, text);
    kick(s);
    stream_free(s, outcome_of(why));
}

void carry_stream_cut(struct carry_stream *s, enum dv_link_reset why)
{
    carry_stream_abort(s, s->is_held || is_unseen(s) ? DV_RESET_REFUSED : why);
}

void carry_stream_vanish(struct carry_stream *s)
{
    stream_free(s, CARRY_CANCEL);
}

static void trouble(struct carry_stream *s, enum dv_link_reset why)
{
    carry_tell_trouble(s->slot->live, why);
    carry_stream_abort(s, why);
}

/* ---- credit ---- */

/* The connection has taken n bytes of the body. */
static void give_credit(struct carry_stream *s, size_t n)
{
    s->owed += n;
    if (is_unseen(s))
        return; /* with the next bytes: what it may still send does not fit the connection's buffer */
    dv_link_consumed(link_of(s), s->id, s->owed);
    s->owed = 0;
    kick(s);
}

/* ---- time ---- */

static bool set_timer(struct carry_stream *s, uint64_t at_ns)
{
    if (!at_ns) {
        dv_timer_cancel(s->loop->loop, &s->timer);
        return true;
    }
    return dv_timer_set(s->loop->loop, &s->timer, at_ns) == DV_OK;
}

static void on_timer(struct dv_timer *t)
{
    struct carry_stream *s = DV_CONTAINER_OF(t, struct carry_stream, timer);
    bool is_over = s->deadline_ns && dv_loop_now(s->loop->loop) >= s->deadline_ns;
    if (s->up && !dv_h1up_is_connected(s->up->up))
        trouble(s, s->is_seen ? DV_RESET_BROKEN : DV_RESET_CONNECT); /* it hangs in connecting */
    else if (s->inquiry && !is_over)
        carry_inquiry_on_timer(s);
    else if (is_over)
        carry_stream_abort(s, DV_RESET_TIMEOUT);
    else
        (void)set_timer(s, s->deadline_ns); /* there was one a moment ago: its place in the heap is free */
}

/* ---- the request ---- */

static bool has_host(struct dv_sv fields)
{
    for (struct dv_sv line; fields.n;) {
        (void)dv_sv_cut(fields, '\n', &line, &fields);
        if (line.n > 5 && dv_sv_eq_nocase(dv_sv(line.p, 5), DV_SV("host:")))
            return true;
    }
    return false;
}

static int save_head(struct carry_stream *s, const struct dv_link_request *r)
{
    s->n_method = r->method.n;
    s->n_target = r->target.n;
    s->body = (enum dv_h1_body)r->body;
    s->content_length = r->content_length;
    (void)dv_buf_add_sv(&s->head, r->method); /* failures stay in head.failed */
    (void)dv_buf_add_sv(&s->head, r->target);
    if (!has_host(r->fields))
        (void)dv_buf_addf(&s->head, "Host: %s\r\n", s->slot->live->address_text);
    (void)dv_buf_add_sv(&s->head, r->fields);
    return s->head.failed;
}

static struct dv_sv method_of(const struct carry_stream *s)
{
    return dv_sv(dv_buf_ptr(&s->head), s->n_method);
}

/* For whoever sent it, and keeps it while nobody has seen it. */
static bool is_too_large_to_keep(const struct carry_stream *s)
{
    return s->body == DV_H1_CHUNKED || (s->body == DV_H1_LENGTH && s->content_length > DV_LINK_WINDOW);
}

/* Send the head on a connection.  DV_OK, or why not; then the stream is untouched but for its connection. */
static int begin(struct carry_stream *s, bool fresh)
{
    int rc = carry_up_take(s, fresh);
    if (rc)
        return rc;
    const char *p = dv_buf_ptr(&s->head);
    struct dv_h1up_request req = {
        .method = method_of(s),
        .target = dv_sv(p + s->n_method, s->n_target),
        .fields = dv_sv(p + s->n_method + s->n_target, dv_buf_len(&s->head) - s->n_method - s->n_target),
        .body = s->body,
        .content_length = s->content_length};
    s->begun_ns = dv_loop_now(s->loop->loop);
    s->is_finished = s->body == DV_H1_NO_BODY || (s->body == DV_H1_LENGTH && !s->content_length);
    uint64_t connect_by = s->begun_ns + CARRY_CONNECT_MS * DV_MS;
    bool is_near = s->deadline_ns && s->deadline_ns < connect_by;
    rc = dv_h1up_begin(s->up->up, &req);
    if (!rc && !set_timer(s, s->up->was_used || is_near ? s->deadline_ns : connect_by))
        rc = DV_E_NOMEM;
    return rc;
}

/* Offer bytes to the connection; *taken of them are gone.  False when the stream ended over it. */
static bool offer(struct carry_stream *s, const char *p, size_t n, size_t *taken)
{
    int rc = s->up ? dv_h1up_send(s->up->up, p, n, taken) : DV_OK;
    if (rc) {
        carry_stream_abort(s, rc == DV_INVALID ? DV_RESET_PROTOCOL : DV_RESET_BROKEN);
        return false;
    }
    if (s->is_kept_whole && (*taken > CARRY_KEPT_BYTES || dv_buf_add(&s->kept, p, *taken)))
        s->is_kept_whole = false;
    return true;
}

static bool try_finish(struct carry_stream *s)
{
    if (!s->is_request_end || s->is_finished || dv_buf_len(&s->pending) || !s->up)
        return true;
    s->is_finished = true;
    if (dv_h1up_finish(s->up->up, dv_buf_sv(&s->trailers)) == DV_OK)
        return true;
    carry_stream_abort(s, DV_RESET_PROTOCOL); /* fewer bytes than its Content-Length said */
    return false;
}

/* Pending bytes to the connection; credit back for what it took. */
static bool flush(struct carry_stream *s)
{
    size_t taken = 0;
    if (dv_buf_len(&s->pending)) {
        if (!offer(s, dv_buf_ptr(&s->pending), dv_buf_len(&s->pending), &taken))
            return false;
        dv_buf_consume(&s->pending, taken);
        give_credit(s, taken);
    }
    return try_finish(s);
}

static void refuse(struct carry_link *link, uint32_t id, enum dv_link_reset why)
{
    (void)dv_link_reset(dv_linkio_link(link->io), id, why);
    carry_count(&link->loop->outcomes[outcome_of(why)], 1);
}

void carry_stream_open(struct carry_link *link, const struct dv_link_event *ev)
{
    struct carry_loop *l = link->loop;
    struct carry_slot *slot = l->is_stopping ? NULL : dv_idmap_find(&l->slots, ev->request.replica);
    if (!slot) {
        refuse(link, ev->stream, DV_RESET_NOT_HERE);
        return;
    }
    struct carry_stream *s = stream_new(l);
    bool is_asleep;
    if (!s || slot_enter_open(slot->live, dv_loop_now(l->loop), &is_asleep)) {
        if (s)
            stream_spare(l, s);
        refuse(link, ev->stream, DV_RESET_REFUSED);
        return;
    }
    s->loop = l;
    s->link = link;
    s->id = ev->stream;
    s->slot = slot;
    s->up = NULL;
    s->timer = (struct dv_timer){.fn = on_timer};
    s->arrived_ns = dv_loop_now(l->loop);
    s->deadline_ns = ev->request.timeout_ms ? s->arrived_ns + ev->request.timeout_ms * DV_MS : 0;
    s->is_kept_whole = true;
    s->is_request_end = s->has_head = s->is_upgraded = s->is_answer_end = s->was_retried = false;
    s->is_seen = s->is_held = false;
    s->inquiry = CARRY_NO_INQUIRY;
    s->knock_fd = -1;
    s->owed = 0;
    dv_list_push_back(&slot->streams, &s->node);
    carry_count(&l->n_streams, 1);
    dv_link_set_user(link_of(s), s->id, s);
    if (save_head(s, &ev->request))
        carry_stream_abort(s, DV_RESET_CONNECT);
    else if (is_asleep)
        carry_hold(s);
    else if (begin(s, is_too_large_to_keep(s)))
        carry_stream_abort(s, DV_RESET_CONNECT);
}

void carry_stream_go(struct carry_stream *s)
{
    s->is_held = false;
    if (begin(s, is_too_large_to_keep(s)))
        carry_stream_abort(s, DV_RESET_CONNECT);
    else
        (void)flush(s); /* when that ends it, it has said so */
}

static void on_link_data(struct carry_stream *s, struct dv_sv bytes)
{
    size_t taken = 0;
    carry_count(&s->loop->bytes_in, bytes.n);
    if (!dv_buf_len(&s->pending) && !offer(s, bytes.p, bytes.n, &taken))
        return;
    give_credit(s, taken);
    if (taken < bytes.n && dv_buf_add(&s->pending, bytes.p + taken, bytes.n - taken))
        carry_stream_abort(s, DV_RESET_BROKEN); /* no memory: the window bounds it otherwise */
}

/* Our caller's direction of an upgraded connection and the function's end apart; the request is over with the
 * second. */
static void end_upgraded(struct carry_stream *s)
{
    if (s->is_answer_end && s->is_finished)
        stream_free(s, CARRY_OK);
}

void carry_stream_event(struct carry_stream *s, const struct dv_link_event *ev)
{
    switch (ev->kind) {
    case DV_LINK_EV_DATA:
        on_link_data(s, ev->bytes);
        break;
    case DV_LINK_EV_TRAILERS:
        if (dv_buf_add_sv(&s->trailers, ev->bytes))
            carry_stream_abort(s, DV_RESET_BROKEN);
        break;
    case DV_LINK_EV_END:
        s->is_request_end = true;
        if (try_finish(s) && s->is_upgraded)
            end_upgraded(s);
        break;
    case DV_LINK_EV_RESET:
        stream_free(s, outcome_of(ev->reset));
        break;
    case DV_LINK_EV_WRITABLE:
        if (s->up)
            dv_h1up_resume(s->up->up);
        break;
    default:
        break;
    }
}

void carry_stream_on_writable(struct carry_stream *s)
{
    if (flush(s) && s->is_upgraded)
        end_upgraded(s);
}

/* ---- the answer ---- */

static uint32_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    uint64_t us = to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
    return us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

/* Field lines for the gateway: everything that is not of this hop.  The length a HEAD or 304 answer tells of
 * a body that does not come is no framing and stays. */
static int copy_fields(struct carry_stream *s, const struct dv_h1_head *head)
{
    struct dv_buf *b = &s->loop->lines;
    bool keeps_length = head->body == DV_H1_NO_BODY && head->status >= 200 && head->status != 204;
    dv_buf_clear(b);
    for (size_t i = 0; i < head->n_fields; i++) {
        const struct dv_h1_field *f = &head->fields[i];
        bool is_length = keeps_length && dv_sv_eq_nocase(f->name, DV_SV("content-length"));
        bool is_upgrade = head->status == 101 && dv_sv_eq_nocase(f->name, DV_SV("upgrade"));
        if (!is_length && !is_upgrade && dv_h1_is_hop_field(head, f->name))
            continue;
        (void)dv_buf_add_sv(b, f->name); /* failures stay in b->failed */
        (void)dv_buf_add_c(b, ": ");
        (void)dv_buf_add_sv(b, f->value);
        (void)dv_buf_add_c(b, "\r\n");
    }
    return b->failed;
}

void carry_stream_on_head(struct carry_stream *s, const struct dv_h1_head *head)
{
    bool is_interim = head->status < 200 && head->status != 101;
    s->is_kept_whole = false; /* an answer has begun: no second try */
    if (is_interim && head->status == 100)
        return; /* the gateway has told its client to go on, or none was waiting */
    uint64_t now = dv_loop_now(s->loop->loop);
    struct dv_link_response r = {.status = (uint16_t)head->status,
                                 .body =
                                     (uint8_t)(head->body == DV_H1_UNTIL_CLOSE ? DV_H1_CHUNKED : head->body),
                                 .content_length = head->body == DV_H1_LENGTH ? head->content_length : 0,
                                 .start_us = us_between(s->arrived_ns, s->begun_ns),
                                 .run_us = us_between(s->begun_ns, now)};
    int rc = copy_fields(s, head);
    r.fields = dv_buf_sv(&s->loop->lines);
    if (!rc)
        rc = dv_link_respond(link_of(s), s->id, &r, false);
    if (rc) {
        carry_stream_abort(s, DV_RESET_BAD_ANSWER);
        return;
    }
    kick(s);
    s->has_head = !is_interim;
    if (head->status == 101) {
        s->is_upgraded = true;
        s->deadline_ns = 0; /* a conversation, not a run: it lasts as long as both sides want */
        (void)set_timer(s, 0);
    }
}

size_t carry_stream_on_data(struct carry_stream *s, struct dv_sv bytes)
{
    size_t taken = 0;
    if (dv_link_send(link_of(s), s->id, bytes.p, bytes.n, false, &taken)) {
        carry_stream_abort(s, DV_RESET_BROKEN);
        return 0;
    }
    carry_count(&s->loop->bytes_out, taken);
    kick(s);
    return taken;
}

void carry_stream_on_trailers(struct carry_stream *s, struct dv_sv fields)
{
    (void)dv_buf_add_sv(&s->answer_trailers, fields); /* failure is seen at the end */
}

static int send_end(struct carry_stream *s)
{
    size_t taken;
    if (s->answer_trailers.failed)
        return s->answer_trailers.failed;
    return dv_buf_len(&s->answer_trailers)
               ? dv_link_send_trailers(link_of(s), s->id, dv_buf_sv(&s->answer_trailers))
               : dv_link_send(link_of(s), s->id, NULL, 0, true, &taken);
}

void carry_stream_on_end(struct carry_stream *s, bool is_reusable)
{
    s->is_answer_end = true;
    if (send_end(s)) {
        carry_stream_abort(s, DV_RESET_BROKEN);
        return;
    }
    kick(s);
    if (s->is_upgraded) {
        end_upgraded(s);
        return;
    }
    struct carry_up *u = s->up;
    if (is_reusable) {
        s->up = NULL;
        carry_up_give(u);
    }
    dv_link_set_user(link_of(s), s->id, NULL);
    /* What came of the body and was not wanted: the gateway may send the rest, to be thrown away. */
    dv_link_consumed(link_of(s), s->id, s->owed + dv_buf_len(&s->pending));
    stream_free(s, CARRY_OK);
}

/* ---- trouble ---- */

static bool may_repeat(struct dv_sv method)
{
    static const char *const safe[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
    for (size_t i = 0; i < DV_COUNT(safe); i++)
        if (dv_sv_eq(method, dv_sv_c(safe[i])))
            return true;
    return false;
}

/* Once more on a fresh connection: everything kept first, then what still waits. */
static void retry(struct carry_stream *s)
{
    DV_AUTO_BUF struct dv_buf kept = s->kept;
    dv_buf_init(&s->kept, CARRY_KEPT_BYTES);
    carry_up_drop(s->up);
    s->was_retried = true;
    carry_count(&s->loop->retries, 1);
    if (begin(s, true)) {
        carry_stream_abort(s, s->is_seen ? DV_RESET_BROKEN : DV_RESET_CONNECT);
        return;
    }
    size_t taken = 0;
    if (dv_buf_len(&kept) && !offer(s, dv_buf_ptr(&kept), dv_buf_len(&kept), &taken))
        return;
    if (taken < dv_buf_len(&kept)) { /* cannot be: a fresh connection has room for 64 KiB */
        carry_stream_abort(s, DV_RESET_BROKEN);
        return;
    }
    (void)flush(s);
}

void carry_stream_on_error(struct carry_stream *s, enum dv_h1up_fail why)
{
    bool can_retry = !s->was_retried && !s->has_head && s->is_kept_whole && s->up->was_used;
    s->is_seen |= why == DV_H1UP_STALE || why == DV_H1UP_BROKEN || why == DV_H1UP_BAD_ANSWER;
    if (can_retry && (why == DV_H1UP_UNSENT || (why == DV_H1UP_STALE && may_repeat(method_of(s)))))
        retry(s);
    else if (why == DV_H1UP_BAD_ANSWER)
        carry_stream_abort(s, DV_RESET_BAD_ANSWER);
    else if (!s->is_seen)
        trouble(s, DV_RESET_CONNECT);
    else if (s->has_head)
        trouble(s, DV_RESET_BROKEN);
    else {
        carry_tell_trouble(s->slot->live, DV_RESET_BROKEN);
        carry_inquiry_begin(s);
    }
}
