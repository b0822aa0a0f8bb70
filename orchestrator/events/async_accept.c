/* Accepting: what can be refused is refused at once; the rest becomes one append, answered when it is
 * durable. */
#include "orchestrator/events/async_internal.h"
#include "orchestrator/gateway/gateway.h"
#include "proto/base/alloc.h"

struct accept_job {
    struct dv_store_job job;
    struct dv_list node;
    struct dv_async *a;
    struct dv_async_queue *q;
    char queue[DV_ASYNC_QUEUE_NAME];
    struct dv_async_accept *accept; /* NULL: answered when we were freed */
    struct dv_buf payload;
    int64_t now_ms;
};

static int accept_run(struct dv_store_job *job, struct dv_store *store, struct dv_err *err)
{
    struct accept_job *j = DV_CONTAINER_OF(job, struct accept_job, job);
    return store->ops->work_append(store, dv_sv_c(j->queue), dv_buf_sv(&j->payload), 0, j->now_ms, NULL, err);
}

static void accept_free(struct accept_job *j)
{
    dv_buf_deinit(&j->payload);
    dv_free(j);
}

static void answer(struct dv_async *a, struct dv_async_accept *accept, int code, const struct dv_err *err)
{
    a->cfg.answer(a->cfg.answer_ctx, accept, code, err);
}

static void accept_done(struct dv_store_job *job)
{
    struct accept_job *j = DV_CONTAINER_OF(job, struct accept_job, job);
    struct dv_async *a = j->a;
    struct dv_async_queue *q = j->q;
    struct dv_err err = job->err;
    int code = job->code;
    if (!code && q->is_gone)
        code = dv_err_set(&err, DV_NOT_FOUND, "the function was deleted");
    a->accepting_bytes -= dv_buf_len(&j->payload);
    dv_list_remove(&j->node);
    if (j->accept)
        answer(a, j->accept, code, &err);
    bool is_stored = !job->code;
    accept_free(j);
    q->n_items += is_stored;
    q->counts.accepted += !code;
    if (is_stored && q->next_due_ms > dv_clock_wall_ms(a->cfg.clock))
        q->next_due_ms = dv_clock_wall_ms(a->cfg.clock);
    if (!dv_async_job_end(a, q))
        return;
    if (is_stored && q->is_gone)
        dv_async_queue_drop(q); /* it came behind the drop */
    else
        dv_async_queue_kick(q);
}

void dv_async_accepts_let_go(struct dv_async *a)
{
    struct dv_err err = DV_ERR_INIT;
    (void)dv_err_set(&err, DV_CLOSED, "stopping");
    struct dv_list *n;
    while ((n = dv_list_pop_front(&a->accepting))) {
        struct accept_job *j = DV_LIST_ENTRY(n, struct accept_job, node);
        answer(a, dv_steal(&j->accept), DV_CLOSED, &err);
    }
}

static bool callback_valid(const char *url)
{
    struct dv_sv s = dv_sv_c(url);
    return dv_sv_starts(s, DV_SV("http://")) || dv_sv_starts(s, DV_SV("https://"));
}

/* Everything that can be refused at once. */
static int accept_check(struct dv_async *a, const struct dv_async_accept *in, struct dv_err *err)
{
    struct dv_async_fn fn;
    const struct dv_async_queue *q = dv_async_queue_get(a, false, in->fn_uid, false);
    if (a->is_closing)
        return dv_err_set(err, DV_CLOSED, "stopping");
    if (a->cfg.find(a->cfg.find_ctx, in->fn_uid, &fn) || (q && q->is_gone))
        return dv_err_set(err, DV_NOT_FOUND, "no such function");
    if (in->callback_url && !callback_valid(in->callback_url))
        return dv_err_field(err, DV_INVALID, "X-Callback-Url", "not an http:// or https:// URL");
    if (q && q->n_items + q->n_jobs >= a->cfg.backlog_max)
        return dv_err_set(err, DV_QUOTA, "%llu asynchronous requests of this function wait already",
                          (unsigned long long)q->n_items);
    if (a->accepting_bytes + in->body_bytes > a->cfg.held_bytes_max)
        return dv_err_set(err, DV_NO_CAPACITY, "too many asynchronous requests at once");
    return DV_OK;
}

static int accept_encode(const struct dv_async_accept *in, struct dv_buf *out, struct dv_err *err)
{
    struct dv_async_record r = {.fn = dv_sv_c(in->fn),
                                .method = dv_sv_c(in->method),
                                .target = dv_sv_c(in->target),
                                .fields = dv_sv_c(in->fields),
                                .body = dv_sv(in->body, in->body ? in->body_bytes : 0),
                                .call_id = dv_sv_c(in->call_id),
                                .callback_url = dv_sv_c(in->callback_url)};
    dv_buf_init(out, DV_STORE_PAYLOAD_MAX);
    int rc = dv_async_record_encode(&r, out, err);
    if (rc == DV_TOO_LARGE)
        return dv_err_set(err, rc, "an asynchronous request may have %d bytes", DV_STORE_PAYLOAD_MAX);
    return rc;
}

void dv_async_accept(void *async, struct dv_async_accept *in)
{
    struct dv_async *a = async;
    struct dv_err err = DV_ERR_INIT;
    int rc = accept_check(a, in, &err);
    struct accept_job *j = rc ? NULL : dv_zalloc(sizeof(*j));
    if (!rc && !j)
        rc = dv_err_set(&err, DV_E_NOMEM, "asynchronous request");
    if (!rc)
        rc = accept_encode(in, &j->payload, &err);
    struct dv_async_queue *q = rc ? NULL : dv_async_queue_get(a, false, in->fn_uid, true);
    if (!rc && !q)
        rc = dv_err_set(&err, DV_E_NOMEM, "asynchronous request");
    if (rc) {
        q = dv_async_queue_get(a, false, in->fn_uid, false);
        if (q)
            q->counts.refused++;
        if (j)
            accept_free(j);
        answer(a, in, rc, &err);
        return;
    }
    if (!q->fn)
        q->fn = dv_strdup(in->fn); /* NULL: the uid stands in for it */
    j->a = a;
    j->q = q;
    j->accept = in;
    j->now_ms = dv_clock_wall_ms(a->cfg.clock);
    memcpy(j->queue, q->name, sizeof(j->queue));
    a->accepting_bytes += dv_buf_len(&j->payload);
    dv_list_push_back(&a->accepting, &j->node);
    dv_async_job_start(q, &j->job, accept_run, accept_done);
}
