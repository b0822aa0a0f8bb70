/* Metrics of asynchronous work, one table.  The names of OpenFaaS' queue worker stand beside ours, so that
 * its dashboards and autoscaling queries work; queue_name is its default queue. */
#include "orchestrator/events/async_internal.h"
#include "proto/rt/metrics.h"
#include "proto/wire/codec.h"

enum source { ACCEPTED, REFUSED, DONE, FAILED, RETRIED, ATTEMPTS, BACKLOG, WAITING, IN_FLIGHT };

struct metric {
    const char *name;
    enum dv_metric_kind kind;
    bool is_callback; /* of the callback queues */
    bool is_openfaas; /* labels as OpenFaaS has them */
    enum source source;
    const char *help;
};

static const struct metric metrics[] = {
    {"davit_async_accepted_total", DV_METRIC_COUNTER, false, false, ACCEPTED,
     "Asynchronous requests accepted durably."},
    {"davit_async_refused_total", DV_METRIC_COUNTER, false, false, REFUSED, "Asynchronous requests refused."},
    {"davit_async_done_total", DV_METRIC_COUNTER, false, false, DONE,
     "Asynchronous requests answered below 400."},
    {"davit_async_failed_total", DV_METRIC_COUNTER, false, false, FAILED,
     "Asynchronous requests given up after their last attempt."},
    {"davit_async_attempts_total", DV_METRIC_COUNTER, false, false, ATTEMPTS,
     "Calls made for asynchronous requests."},
    {"davit_async_retries_total", DV_METRIC_COUNTER, false, false, RETRIED,
     "Attempts put off to a later time."},
    {"davit_async_backlog", DV_METRIC_GAUGE, false, false, BACKLOG, "Asynchronous requests not yet settled."},
    {"davit_async_in_flight", DV_METRIC_GAUGE, false, false, IN_FLIGHT,
     "Asynchronous requests being called now."},
    {"davit_async_callbacks_total", DV_METRIC_COUNTER, true, false, DONE, "Callbacks delivered."},
    {"davit_async_callbacks_failed_total", DV_METRIC_COUNTER, true, false, FAILED, "Callbacks given up."},
    {"davit_async_callbacks_backlog", DV_METRIC_GAUGE, true, false, BACKLOG, "Callbacks not yet delivered."},
    {"queue_worker_pending_messages", DV_METRIC_GAUGE, false, true, WAITING,
     "Asynchronous requests waiting."},
    {"queue_worker_messages_submitted_total", DV_METRIC_COUNTER, false, true, ACCEPTED,
     "Asynchronous requests accepted."},
    {"queue_worker_messages_processed_total", DV_METRIC_COUNTER, false, true, ATTEMPTS,
     "Asynchronous requests taken off the queue."},
    {"queue_worker_function_invocation_inflight", DV_METRIC_GAUGE, false, true, IN_FLIGHT,
     "Asynchronous requests being called now."},
};

static uint64_t value_of(const struct dv_async_queue *q, enum source source)
{
    switch (source) {
    case ACCEPTED:
        return q->counts.accepted;
    case REFUSED:
        return q->counts.refused;
    case DONE:
        return q->counts.done;
    case FAILED:
        return q->counts.failed;
    case RETRIED:
        return q->counts.retried;
    case ATTEMPTS:
        return q->counts.attempts;
    case BACKLOG:
        return q->n_items;
    case WAITING:
        return q->n_items > q->n_in_flight ? q->n_items - q->n_in_flight : 0;
    case IN_FLIGHT:
        return q->n_in_flight;
    }
    return 0;
}

static void add_sample(const struct metric *m, const struct dv_async_queue *q, struct dv_buf *out)
{
    struct dv_sv fn = dv_sv_c(q->fn ? q->fn : q->name);
    const struct dv_label ours[] = {{"function", fn}};
    char name[2 * DV_NAME_MAX + 2];
    const struct dv_label theirs[] = {{"queue_name", DV_SV("faas-request")},
                                      {"function_name", m->is_openfaas ? dv_openfaas_name(fn, name) : fn}};
    (void)dv_metric_u64(out, m->name, m->is_openfaas ? theirs : ours, m->is_openfaas ? 2 : 1,
                        value_of(q, m->source)); /* out remembers a failure */
}

void dv_async_metrics(const struct dv_async *a, struct dv_buf *out)
{
    for (size_t i = 0; i < DV_COUNT(metrics); i++) {
        const struct metric *m = &metrics[i];
        (void)dv_metric_head(out, m->name, m->kind, m->help); /* out remembers a failure */
        const struct dv_async_queue *q;
        for (size_t at = 0; (q = dv_map_next(&a->queues, &at));)
            if (q->is_callback == m->is_callback && !q->is_gone)
                add_sample(m, q, out);
    }
    (void)dv_metric_head(out, "davit_async_held_bytes", DV_METRIC_GAUGE,
                         "Payloads of asynchronous requests in memory.");
    (void)dv_metric_u64(out, "davit_async_held_bytes", NULL, 0, a->accepting_bytes + a->held_bytes);
}
