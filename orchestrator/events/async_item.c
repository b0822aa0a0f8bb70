/* One item's way: claim -> call -> (ack | retry at | ack and callback).
 *
 * A request is called through the gateway's internal socket like any other, so a sleeping function wakes
 * because this call waits there.  The lease outlives the longest call; nobody renews it, since after a crash
 * the next start releases every lease.  An attempt that a crash cut off counts: a request that kills the
 * orchestrator ends too.
 *
 * The answer's body is kept only for a callback, up to ANSWER_MAX; the rest is read and thrown away, so that
 * the function can finish. */
#include "orchestrator/events/async_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"
#include "proto/wire/codec.h"

#include <inttypes.h>

enum {
    SPARE_MS = 30000,       /* a call may take the function's timeout, and this much for the way */
    LEASE_SPARE_MS = 60000, /* and a lease as much as the call, and this for the commit */
    CALLBACK_TIMEOUT_MS = 30000,
    FAILURE_BODY_MAX = 1024 * 1024, /* of answers other than 2xx */
};
static const size_t answer_max =
    DV_STORE_PAYLOAD_MAX - 128 * 1024; /* room for the header in the callback's record */

static void item_free(struct dv_async_item *it)
{
    dv_list_remove(&it->node);
    dv_arena_deinit(&it->arena);
    dv_buf_deinit(&it->answer);
    dv_buf_deinit(&it->callback);
    dv_free(it);
}

/* ---- settling ---- */

/* Off the books; the queue may take the next one. */
static void item_release(struct dv_async_item *it, bool is_settled)
{
    struct dv_async_queue *q = it->q;
    struct dv_async *a = q->owner;
    q->n_in_flight--;
    a->n_in_flight--;
    a->held_bytes -= it->held_bytes;
    if (is_settled && q->n_items)
        q->n_items--;
    item_free(it);
    dv_async_queue_kick(q);
    dv_async_room(a);
}

static int ack_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct dv_async_item *it = DV_CONTAINER_OF(job, struct dv_async_item, job);
    int rc = store->ops->work_ack(store, it->work.id, err);
    if (rc == DV_NOT_FOUND) /* its queue was dropped meanwhile; a callback goes out all the same */
        rc = DV_OK;
    if (!rc && dv_buf_len(&it->callback))
        rc = store->ops->work_append(store, dv_sv_c(it->callback_queue), dv_buf_sv(&it->callback), 0,
                                     it->claim_at_ms, NULL, err);
    return rc;
}

/* The callback's record is in the store: its queue has one more. */
static void callback_added(struct dv_async_item *it)
{
    struct dv_async_queue *q = dv_async_queue_get(it->q->owner, true, it->q->fn_uid, true);
    if (!q) {
        dv_log(DV_LOG_ERROR, "callback waits for the next start: out of memory",
               DV_LSV("call_id", it->record.call_id));
        return;
    }
    if (!q->fn)
        q->fn = dv_strdup(it->q->fn); /* NULL: the uid stands in for it */
    q->n_items++;
    q->counts.accepted++;
    q->next_due_ms = it->claim_at_ms < q->next_due_ms ? it->claim_at_ms : q->next_due_ms;
    dv_async_queue_kick(q);
}

static void ack_done(struct dv_store_job *job)
{
    struct dv_async_item *it = DV_CONTAINER_OF(job, struct dv_async_item, job);
    if (!dv_async_job_end(it->q->owner, it->q)) {
        item_free(it);
        return;
    }
    if (job->code)
        dv_log(DV_LOG_ERROR, "asynchronous request done but not acknowledged: it will be delivered again",
               DV_LSV("function", it->record.fn), DV_LSV("call_id", it->record.call_id), DV_LE(&job->err));
    else if (dv_buf_len(&it->callback))
        callback_added(it);
    item_release(it, job->code == DV_OK);
}

static int retry_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct dv_async_item *it = DV_CONTAINER_OF(job, struct dv_async_item, job);
    return store->ops->work_retry(store, it->work.id, it->retry_at_ms, err);
}

static void retry_done(struct dv_store_job *job)
{
    struct dv_async_item *it = DV_CONTAINER_OF(job, struct dv_async_item, job);
    struct dv_async_queue *q = it->q;
    if (!dv_async_job_end(q->owner, q)) {
        item_free(it);
        return;
    }
    int64_t due_ms = job->code ? it->lease_until_ms : it->retry_at_ms;
    if (job->code && job->code != DV_NOT_FOUND)
        dv_log(DV_LOG_ERROR, "asynchronous request keeps its lease", DV_LSV("function", it->record.fn),
               DV_LSV("call_id", it->record.call_id), DV_LE(&job->err));
    q->next_due_ms = due_ms < q->next_due_ms ? due_ms : q->next_due_ms;
    item_release(it, job->code == DV_NOT_FOUND);
}

static void item_ack(struct dv_async_item *it)
{
    it->claim_at_ms = dv_clock_wall_ms(it->q->owner->cfg.clock); /* the callback's time of append */
    dv_async_job_start(it->q, &it->job, ack_run, ack_done);
}

static void item_retry(struct dv_async_item *it, int64_t wait_ms)
{
    it->q->counts.retried++;
    it->retry_at_ms = dv_clock_wall_ms(it->q->owner->cfg.clock) + wait_ms;
    dv_async_job_start(it->q, &it->job, retry_run, retry_done);
}

/* ---- header lines ---- */

static bool is_one_of(struct dv_sv name, const char *const *names)
{
    for (; *names; names++)
        if (dv_sv_eq_nocase(name, dv_sv_c(*names)))
            return true;
    return false;
}

static bool next_line(struct dv_sv *rest, struct dv_sv *line, struct dv_sv *name)
{
    struct dv_sv value;
    if (!rest->n)
        return false;
    (void)dv_sv_cut(*rest, '\n', line, rest);
    if (line->n && line->p[line->n - 1] == '\r')
        line->n--;
    if (!dv_sv_cut(*line, ':', name, &value))
        name->n = 0;
    return true;
}

/* Of one hop only, or written by whoever sends. */
#define HOP_FIELDS                                                                                           \
    "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE",       \
        "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect"

static const char *const request_skips[] = {HOP_FIELDS, "Content-Type", "X-Call-Id", NULL};
static const char *const answer_skips[] = {HOP_FIELDS,          "X-Call-Id",       "X-Duration-Seconds",
                                           "X-Function-Status", "X-Function-Name", NULL};

/* Lines of from, but those to skip, into out as the client of HTTP wants them; *content_type gets its value.
 * Horizontal tabs become spaces. */
static int add_lines(struct dv_arena *arena, struct dv_sv from, const char **out, size_t max, size_t *n,
                     const char **content_type)
{
    struct dv_sv line, name;
    while (next_line(&from, &line, &name)) {
        bool is_type = dv_sv_eq_nocase(name, DV_SV("Content-Type"));
        if (!name.n || *n >= max || (!is_type && is_one_of(name, request_skips)))
            continue;
        char *copy = dv_arena_strndup(arena, line.p, line.n);
        if (!copy)
            return DV_E_NOMEM;
        for (char *p = copy; *p; p++)
            if (*p == '\t')
                *p = ' ';
        if (is_type)
            *content_type = copy + name.n + 1 + (copy[name.n + 1] == ' ');
        else
            out[(*n)++] = copy;
    }
    return DV_OK;
}

static const char *text_line(struct dv_arena *arena, const char *name, struct dv_sv value)
{
    size_t n = strlen(name) + value.n + 3;
    char *line = dv_arena_alloc(arena, n);
    if (line)
        (void)snprintf(line, n, "%s: %.*s", name, (int)value.n, value.p ? value.p : "");
    return line;
}

/* ---- what came of it ---- */

static void log_end(const struct dv_async_item *it, const char *what, int status, const struct dv_err *err)
{
    char text[DV_ID_TEXT];
    dv_id_text(it->q->fn_uid, text);
    dv_log(DV_LOG_WARN, what, DV_LSV("function", it->record.fn), DV_LSV("call_id", it->record.call_id),
           DV_LI("status", status), DV_LU("attempts", it->work.attempts), DV_LS("uid", text),
           DV_LS("error", err && err->msg[0] ? err->msg : ""));
}

/* The function's header for the callback: without what belongs to the hop, and what we say ourselves. */
static int add_answer_fields(struct dv_sv from, struct dv_buf *out, bool is_cut)
{
    struct dv_sv line, name;
    while (next_line(&from, &line, &name)) {
        if (!name.n || is_one_of(name, answer_skips))
            continue;
        (void)dv_buf_add_sv(out, line); /* a run of writes is checked at its end */
        (void)dv_buf_add_c(out, "\r\n");
    }
    if (is_cut)
        (void)dv_buf_add_c(out, "X-Davit-Body-Cut: true\r\n");
    return out->failed;
}

/* Prepare the record that goes to the callback queue with the ack.  status 0: no answer ever came. */
static int prepare_callback(struct dv_async_item *it, const struct dv_httpc_result *res, int status,
                            uint64_t now_ns)
{
    DV_AUTO_BUF struct dv_buf fields = DV_BUF_INIT;
    char code[16], duration[32], attempts[16];
    (void)snprintf(code, sizeof(code), "%d", status ? status : res->code == DV_DEADLINE ? 504 : 502);
    (void)snprintf(duration, sizeof(duration), "%.6f", (double)(now_ns - it->started_ns) / 1e9);
    (void)snprintf(attempts, sizeof(attempts), "%" PRIu32, it->work.attempts);
    struct dv_sv said = dv_httpc_header(res, "X-Duration-Seconds");
    bool is_cut = it->is_answer_cut || res->code == DV_TOO_LARGE;
    int rc = add_answer_fields(res->headers, &fields, is_cut);
    struct dv_async_record r = {.fn = it->record.fn,
                                .call_id = it->record.call_id,
                                .callback_url = it->record.callback_url,
                                .fields = dv_buf_sv(&fields),
                                .body = dv_buf_len(&it->answer) ? dv_buf_sv(&it->answer) : res->body,
                                .status = dv_sv_c(code),
                                .duration = said.n && said.n < 32 ? said : dv_sv_c(duration),
                                .attempts = dv_sv_c(attempts)};
    dv_buf_init(&it->callback, DV_STORE_PAYLOAD_MAX);
    dv_async_queue_name(it->callback_queue, true, it->q->fn_uid);
    if (!rc)
        rc = dv_async_record_encode(&r, &it->callback, NULL);
    if (rc == DV_INVALID) { /* header that nobody should pass on: the callback goes without it */
        dv_buf_clear(&it->callback);
        r.fields = DV_SV("");
        rc = dv_async_record_encode(&r, &it->callback, NULL);
    }
    if (rc)
        dv_buf_clear(&it->callback);
    return rc;
}

static struct dv_async_outcome outcome_of(const struct dv_async_item *it, const struct dv_httpc_result *res)
{
    struct dv_async_outcome o = {.retry_after_ms = -1};
    if (res->code && res->code != DV_TOO_LARGE)
        return o;
    o.status = (int)res->status;
    o.is_ours = dv_httpc_header(res, "X-OpenFaaS-Internal").p != NULL;
    struct dv_sv after = dv_httpc_header(res, "Retry-After");
    if (after.p)
        o.retry_after_ms = dv_async_retry_after_ms(after, dv_clock_wall_ms(it->q->owner->cfg.clock));
    return o;
}

static void on_called(void *ctx, const struct dv_httpc_result *res)
{
    struct dv_async_item *it = ctx;
    struct dv_async_queue *q = it->q;
    struct dv_async *a = q->owner;
    it->call = NULL;
    dv_list_remove(&it->node);
    struct dv_async_outcome o = outcome_of(it, res);
    int64_t wait_ms = 0;
    enum dv_async_next next =
        dv_async_decide(&it->policy, &o, it->work.attempts, dv_rng_unit(&a->rng), &wait_ms);
    if (next == DV_ASYNC_RETRY) {
        item_retry(it, wait_ms);
        return;
    }
    if (next == DV_ASYNC_GIVE_UP)
        log_end(it, q->is_callback ? "callback given up" : "asynchronous request failed", o.status, res->err);
    uint64_t now_ns = dv_clock_now_ns(a->cfg.clock);
    if (!q->is_callback && it->record.callback_url.n && prepare_callback(it, res, o.status, now_ns)) {
        log_end(it, "no memory for the callback: delivered again", o.status, NULL);
        item_retry(it, it->policy.max_wait_ms);
        return;
    }
    q->counts.done += next == DV_ASYNC_DONE;
    q->counts.failed += next == DV_ASYNC_GIVE_UP;
    item_ack(it);
}

static int on_data(void *ctx, struct dv_sv bytes)
{
    struct dv_async_item *it = ctx;
    if (it->q->is_callback || !it->record.callback_url.n || it->is_answer_cut)
        return 0;
    it->is_answer_cut = !dv_async_hold(it->q->owner, bytes.n);
    if (it->is_answer_cut)
        return 0;
    it->held_bytes += bytes.n;
    it->is_answer_cut = dv_buf_add_sv(&it->answer, bytes) != DV_OK;
    return 0;
}

/* ---- the call ---- */

enum { HEADERS_MAX = 128 };

static int call_function(struct dv_async_item *it)
{
    struct dv_async *a = it->q->owner;
    const struct dv_async_record *r = &it->record;
    const char *headers[HEADERS_MAX + 2] = {NULL}, *type = "text/plain";
    size_t n = 0;
    if (add_lines(&it->arena, r->fields, headers, HEADERS_MAX, &n, &type))
        return DV_E_NOMEM;
    headers[n] = text_line(&it->arena, "X-Call-Id", r->call_id);
    DV_AUTO_STR char *method = dv_strndup(r->method.n ? r->method.p : "POST", r->method.n ? r->method.n : 4);
    DV_AUTO_STR char *url =
        dv_asprintf("http://davit/function/%.*s%.*s", (int)r->fn.n, r->fn.p, (int)r->target.n, r->target.p);
    if (!headers[n] || !method || !url)
        return DV_E_NOMEM;
    struct dv_httpc_request req = {.method = method,
                                   .url = url,
                                   .unix_socket = a->internal_path,
                                   .headers = headers,
                                   .body = r->body,
                                   .content_type = type,
                                   .timeout_ms = (uint64_t)(it->timeout_ms + SPARE_MS),
                                   .body_max = FAILURE_BODY_MAX,
                                   .on_data = on_data,
                                   .on_done = on_called,
                                   .ctx = it};
    dv_buf_init(&it->answer, answer_max);
    return dv_httpc_send(a->http, &req, &it->call, NULL);
}

static int call_callback(struct dv_async_item *it)
{
    const struct dv_async_record *r = &it->record;
    const char *headers[HEADERS_MAX + 6] = {NULL}, *type = "text/plain";
    char fn[2 * DV_NAME_MAX + 2];
    size_t n = 0;
    if (add_lines(&it->arena, r->fields, headers, HEADERS_MAX, &n, &type))
        return DV_E_NOMEM;
    const char *ours[] = {text_line(&it->arena, "X-Call-Id", r->call_id),
                          text_line(&it->arena, "X-Duration-Seconds", r->duration),
                          text_line(&it->arena, "X-Function-Status", r->status),
                          text_line(&it->arena, "X-Function-Name", dv_openfaas_name(r->fn, fn)),
                          text_line(&it->arena, "X-Retry", r->attempts)};
    for (size_t i = 0; i < DV_COUNT(ours); i++) {
        if (!ours[i])
            return DV_E_NOMEM;
        headers[n++] = ours[i];
    }
    DV_AUTO_STR char *url = dv_strndup(r->callback_url.p, r->callback_url.n);
    if (!url)
        return DV_E_NOMEM;
    struct dv_httpc_request req = {.method = "POST",
                                   .url = url,
                                   .headers = headers,
                                   .body = r->body,
                                   .content_type = type,
                                   .timeout_ms = CALLBACK_TIMEOUT_MS,
                                   .body_max = FAILURE_BODY_MAX,
                                   .on_data = on_data,
                                   .on_done = on_called,
                                   .ctx = it};
    return dv_httpc_send(it->q->owner->http, &req, &it->call, NULL);
}

static void item_call(struct dv_async_item *it)
{
    struct dv_async_queue *q = it->q;
    struct dv_err err = DV_ERR_INIT;
    int rc = dv_async_record_decode(it->work.payload, &it->record, &err);
    if (!rc) {
        q->counts.attempts++;
        it->started_ns = dv_clock_now_ns(q->owner->cfg.clock);
        rc = q->is_callback ? call_callback(it) : call_function(it);
    }
    if (rc == DV_OK) {
        dv_list_push_back(&q->owner->running, &it->node);
    } else if (rc == DV_UNSUPPORTED ||
               dv_err_retryable(rc)) { /* left for a newer program, or for more memory */
        item_retry(it, it->policy.max_wait_ms);
    } else {
        q->counts.failed++;
        log_end(it, "asynchronous request cannot be sent", 0, &err);
        item_ack(it);
    }
}

/* ---- claiming ---- */

static int claim_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct dv_async_item *it = DV_CONTAINER_OF(job, struct dv_async_item, job);
    struct dv_sv queue = dv_sv_c(it->callback_queue); /* holds the queue's own name until then */
    int rc =
        store->ops->work_claim(store, queue, it->claim_at_ms, it->lease_until_ms, &it->arena, &it->work, err);
    if (rc == DV_NOT_FOUND && store->ops->work_next_due(store, queue, &it->next_due_ms, err) == DV_NOT_FOUND)
        it->next_due_ms = INT64_MAX;
    return rc;
}

static void claim_failed(struct dv_async_item *it, int code)
{
    struct dv_async_queue *q = it->q;
    int64_t now_ms = dv_clock_wall_ms(q->owner->cfg.clock);
    if (code == DV_NOT_FOUND) {
        q->next_due_ms = it->next_due_ms;
        if (it->next_due_ms == INT64_MAX)
            q->n_items = q->n_in_flight; /* the queue is empty but for what is being settled */
    } else {
        dv_log(DV_LOG_ERROR, "asynchronous work not claimed", DV_LS("queue", q->name), DV_LE(&it->job.err));
        q->next_due_ms = now_ms + 1000;
    }
    item_free(it);
    dv_async_queue_kick(q);
}

static void claim_done(struct dv_store_job *job)
{
    struct dv_async_item *it = DV_CONTAINER_OF(job, struct dv_async_item, job);
    struct dv_async_queue *q = it->q;
    struct dv_async *a = q->owner;
    if (!dv_async_job_end(a, q)) {
        item_free(it);
        return;
    }
    q->n_claims--;
    a->n_claims--;
    if (job->code) {
        claim_failed(it, job->code);
    } else {
        q->n_in_flight++;
        a->n_in_flight++;
        it->held_bytes = it->work.payload.n;
        a->held_bytes += it->held_bytes;
        item_call(it);
    }
    dv_loop_defer(a->cfg.loop, &a->pump);
}

int dv_async_item_claim(struct dv_async_queue *q, const struct dv_async_fn *fn)
{
    struct dv_async *a = q->owner;
    struct dv_async_item *it = dv_zalloc(sizeof(*it));
    if (!it)
        return DV_E_NOMEM;
    dv_list_init(&it->node);
    it->q = q;
    if (q->is_callback)
        dv_async_policy_callback(&it->policy);
    else
        dv_async_policy_read(fn->annotations, &it->policy);
    it->timeout_ms = q->is_callback ? CALLBACK_TIMEOUT_MS : fn->timeout_ms;
    it->claim_at_ms = dv_clock_wall_ms(a->cfg.clock);
    it->lease_until_ms = it->claim_at_ms + it->timeout_ms + SPARE_MS + LEASE_SPARE_MS;
    memcpy(it->callback_queue, q->name, sizeof(it->callback_queue));
    q->n_claims++;
    a->n_claims++;
    dv_async_job_start(q, &it->job, claim_run, claim_done);
    return DV_OK;
}

void dv_async_items_cut_off(struct dv_async *a)
{
    struct dv_list *n;
    while ((n = dv_list_pop_front(&a->running))) {
        struct dv_async_item *it = DV_LIST_ENTRY(n, struct dv_async_item, node);
        dv_httpc_cancel(it->call);
        item_free(it);
    }
}
