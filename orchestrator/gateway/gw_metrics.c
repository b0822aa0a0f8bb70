/* Prometheus text of the gateway.
 *
 *   gateway_function_invocation_total{function_name,code}   as OpenFaaS names them; function_name is
 * "name.namespace" gateway_functions_seconds{function_name,code}           with the default namespace as
 * "openfaas-fn" gateway_function_invocation_started{function_name} davit_gateway_waiting{function} requests
 * in the queue now davit_gateway_oldest_wait_seconds{function}     age of the one that waits longest
 *   davit_gateway_in_flight{function}               requests inside replicas now
 *   davit_gateway_arrived_total, _answered_total, _failed_total, _retried_total, _rejected_total,
 * _cancelled_total{function} davit_gateway_wait_seconds{function}            time from arrival to a slot
 *   davit_gateway_connections, _accepted_total, _refused_total, _requests_total, _bad_heads_total,
 * _api_seconds, davit_gateway_links_open, _link_failures_total, _bytes_in_total, _bytes_out_total,
 * _access_log_dropped_total, _tls_handshakes_total, _tls_failures_total, _tls_certificate_expiry_seconds */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/rt/metrics.h"
#include "proto/wire/codec.h"

static const double bounds_s[DV_LIVE_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                 0.1,    0.25,  0.5,    1,     2.5,  5,     10};
static const struct dv_hist_bounds bounds = {bounds_s, DV_LIVE_BUCKETS};

static void hist_merge(struct dv_hist *to, const struct dv_live_hist *from)
{
    uint64_t n = dv_live_get(&from->n), in_buckets = 0;
    for (size_t i = 0; i < DV_LIVE_BUCKETS; i++) {
        uint64_t k = dv_live_get(&from->bucket[i]);
        to->counts[i] += k;
        in_buckets += k;
    }
    to->counts[DV_LIVE_BUCKETS] += n > in_buckets ? n - in_buckets : 0;
    to->sum_us += dv_live_get(&from->sum_us);
}

/* ---- per function ---- */

struct walk {
    struct dv_gateway *g;
    struct dv_buf *out;
    const char *name;
    uint64_t (*value)(const struct dv_live_cell *c); /* summed over the loops */
    uint64_t now_ns;
};

/* Calls each(status, histogram over all loops) for every status code that the function has answered with. */
static void codes_each(const struct dv_live_fn *fn,
                       void (*each)(void *ctx, int status, const struct dv_hist *h), void *ctx)
{
    int done[DV_LIVE_CODES_MAX * 4], n_done = 0;
    for (uint32_t i = 0; i < fn->n_loops; i++)
        for (struct dv_live_code *c = dv_live_codes(fn, i); c;
             c = atomic_load_explicit(&c->next, memory_order_acquire)) {
            bool is_done = n_done == (int)DV_COUNT(done);
            for (int k = 0; k < n_done && !is_done; k++)
                is_done = done[k] == c->status;
            if (is_done)
                continue;
            struct dv_hist h = {0};
            for (uint32_t j = i; j < fn->n_loops; j++)
                for (struct dv_live_code *o = dv_live_codes(fn, j); o;
                     o = atomic_load_explicit(&o->next, memory_order_acquire))
                    if (o->status == c->status)
                        hist_merge(&h, &o->hist);
            done[n_done++] = c->status;
            each(ctx, c->status, &h);
        }
}

struct code_out {
    struct dv_buf *out;
    struct dv_sv function;
    bool as_hist;
};

static void put_code(void *ctx, int status, const struct dv_hist *h)
{
    struct code_out *o = ctx;
    char code[12];
    int n = status ? snprintf(code, sizeof(code), "%d", status) : snprintf(code, sizeof(code), "other");
    struct dv_label labels[] = {{"function_name", o->function}, {"code", dv_sv(code, (size_t)n)}};
    uint64_t total = 0;
    for (size_t i = 0; i <= DV_LIVE_BUCKETS; i++)
        total += h->counts[i];
    if (o->as_hist) /* a buffer without memory stays marked failed; its owner checks that once */
        (void)dv_metric_hist(o->out, "gateway_functions_seconds", labels, 2, h, &bounds);
    else
        (void)dv_metric_u64(o->out, "gateway_function_invocation_total", labels, 2, total);
}

static void put_invocations(void *ctx, const struct dv_live_fn *fn)
{
    char label[2 * DV_NAME_MAX + 2];
    struct code_out o = {.out = ctx, .function = dv_openfaas_name(dv_sv_c(fn->label), label)};
    codes_each(fn, put_code, &o);
}

static void put_seconds(void *ctx, const struct dv_live_fn *fn)
{
    char label[2 * DV_NAME_MAX + 2];
    struct code_out o = {
        .out = ctx, .function = dv_openfaas_name(dv_sv_c(fn->label), label), .as_hist = true};
    codes_each(fn, put_code, &o);
}

static uint64_t sum(const struct dv_live_fn *fn, uint64_t (*value)(const struct dv_live_cell *c))
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < fn->n_loops; i++)
        n += dv_live_cell(fn, i) ? value(dv_live_cell(fn, i)) : 0;
    return n;
}

static void put_started(void *ctx, const struct dv_live_fn *fn)
{
    struct walk *w = ctx;
    char label[2 * DV_NAME_MAX + 2];
    struct dv_label l = {"function_name", dv_openfaas_name(dv_sv_c(fn->label), label)};
    (void)dv_metric_u64(w->out, w->name, &l, 1, sum(fn, w->value));
}

static void put_cell(void *ctx, const struct dv_live_fn *fn)
{
    struct walk *w = ctx;
    struct dv_label l = {"function", dv_sv_c(fn->label)};
    (void)dv_metric_u64(w->out, w->name, &l, 1, sum(fn, w->value));
}

static void put_oldest(void *ctx, const struct dv_live_fn *fn)
{
    struct walk *w = ctx;
    struct dv_label l = {"function", dv_sv_c(fn->label)};
    struct dv_load load;
    dv_live_load(fn, w->now_ns, &load);
    (void)dv_metric_double(w->out, w->name, &l, 1, (double)load.oldest_wait_ns / 1e9);
}

static void put_wait(void *ctx, const struct dv_live_fn *fn)
{
    struct walk *w = ctx;
    struct dv_label l = {"function", dv_sv_c(fn->label)};
    struct dv_hist h = {0};
    for (uint32_t i = 0; i < fn->n_loops; i++)
        if (dv_live_cell(fn, i))
            hist_merge(&h, &dv_live_cell(fn, i)->wait);
    (void)dv_metric_hist(w->out, w->name, &l, 1, &h, &bounds);
}

#define CELL(field)                                                                                          \
    static uint64_t cell_##field(const struct dv_live_cell *c)                                               \
    {                                                                                                        \
        return dv_live_get(&c->field);                                                                       \
    }
CELL(arrived)
CELL(answered)
CELL(failed)
CELL(waiting)
CELL(in_flight)
CELL(retried)
CELL(rejected)
CELL(cancelled)

static void functions(struct dv_gateway *g, struct dv_buf *out)
{
    static const struct {
        const char *name;
        enum dv_metric_kind kind;
        uint64_t (*value)(const struct dv_live_cell *c);
        const char *help;
    } cells[] = {
        {"davit_gateway_waiting", DV_METRIC_GAUGE, cell_waiting, "Requests waiting for a slot."},
        {"davit_gateway_in_flight", DV_METRIC_GAUGE, cell_in_flight, "Requests inside replicas."},
        {"davit_gateway_arrived_total", DV_METRIC_COUNTER, cell_arrived, "Requests that arrived."},
        {"davit_gateway_answered_total", DV_METRIC_COUNTER, cell_answered,
         "Requests that the function answered."},
        {"davit_gateway_failed_total", DV_METRIC_COUNTER, cell_failed,
         "Requests answered with a 5xx of our own."},
        {"davit_gateway_retried_total", DV_METRIC_COUNTER, cell_retried,
         "Requests sent again, unseen by the function."},
        {"davit_gateway_rejected_total", DV_METRIC_COUNTER, cell_rejected,
         "Requests refused because the queue was full."},
        {"davit_gateway_cancelled_total", DV_METRIC_COUNTER, cell_cancelled,
         "Requests whose client left first."},
    };
    struct walk w = {.g = g, .out = out, .now_ns = dv_clock_now_ns(g->cfg.clock)};
    (void)dv_metric_head(out, "gateway_function_invocation_total", DV_METRIC_COUNTER,
                         "Invocations by status code.");
    dv_gw_fns_each(g, put_invocations, out);
    (void)dv_metric_head(out, "gateway_functions_seconds", DV_METRIC_HISTOGRAM, "Duration of invocations.");
    dv_gw_fns_each(g, put_seconds, out);
    w.name = "gateway_function_invocation_started";
    w.value = cell_arrived;
    (void)dv_metric_head(out, w.name, DV_METRIC_COUNTER, "Invocations begun.");
    dv_gw_fns_each(g, put_started, &w);
    for (size_t i = 0; i < DV_COUNT(cells); i++) {
        w.name = cells[i].name;
        w.value = cells[i].value;
        (void)dv_metric_head(out, w.name, cells[i].kind, cells[i].help);
        dv_gw_fns_each(g, put_cell, &w);
    }
    w.name = "davit_gateway_oldest_wait_seconds";
    (void)dv_metric_head(out, w.name, DV_METRIC_GAUGE, "Age of the request that waits longest.");
    dv_gw_fns_each(g, put_oldest, &w);
    w.name = "davit_gateway_wait_seconds";
    (void)dv_metric_head(out, w.name, DV_METRIC_HISTOGRAM, "Time from arrival to a slot.");
    dv_gw_fns_each(g, put_wait, &w);
}

/* ---- of the whole ---- */

#define COUNTER(field)                                                                                       \
    static const _Atomic uint64_t *counter_##field(const struct dv_gw_counters *n)                           \
    {                                                                                                        \
        return &n->field;                                                                                    \
    }
COUNTER(connections)
COUNTER(accepted)
COUNTER(refused)
COUNTER(requests)
COUNTER(bad_heads)
COUNTER(links_open)
COUNTER(link_failures)
COUNTER(bytes_in)
COUNTER(bytes_out)
COUNTER(tls_handshakes)
COUNTER(tls_failures)

void dv_gateway_metrics(struct dv_gateway *g, struct dv_buf *out)
{
    static const struct {
        const char *name;
        enum dv_metric_kind kind;
        const _Atomic uint64_t *(*counter)(const struct dv_gw_counters *n);
        const char *help;
    } table[] = {
        {"davit_gateway_connections", DV_METRIC_GAUGE, counter_connections, "Client connections open."},
        {"davit_gateway_accepted_total", DV_METRIC_COUNTER, counter_accepted, "Client connections accepted."},
        {"davit_gateway_refused_total", DV_METRIC_COUNTER, counter_refused,
         "Connections closed at the limit."},
        {"davit_gateway_requests_total", DV_METRIC_COUNTER, counter_requests, "Requests of all kinds."},
        {"davit_gateway_bad_heads_total", DV_METRIC_COUNTER, counter_bad_heads, "Request heads refused."},
        {"davit_gateway_links_open", DV_METRIC_GAUGE, counter_links_open, "Data connections to agents."},
        {"davit_gateway_link_failures_total", DV_METRIC_COUNTER, counter_link_failures,
         "Data connections lost or refused."},
        {"davit_gateway_bytes_in_total", DV_METRIC_COUNTER, counter_bytes_in, "Bytes read from clients."},
        {"davit_gateway_bytes_out_total", DV_METRIC_COUNTER, counter_bytes_out, "Bytes written to clients."},
        {"davit_gateway_tls_handshakes_total", DV_METRIC_COUNTER, counter_tls_handshakes,
         "TLS connections opened."},
        {"davit_gateway_tls_failures_total", DV_METRIC_COUNTER, counter_tls_failures,
         "Connections that ended without having opened TLS."},
    };
    functions(g, out);
    for (size_t i = 0; i < DV_COUNT(table); i++) {
        uint64_t n = 0;
        for (uint32_t k = 0; k < g->n_loops; k++)
            n += dv_live_get(table[i].counter(&g->loops[k]->n));
        (void)dv_metric_head(out, table[i].name, table[i].kind, table[i].help);
        (void)dv_metric_u64(out, table[i].name, NULL, 0, n);
    }
    if (g->keys) {
        (void)dv_metric_head(out, "davit_gateway_tls_certificate_expiry_seconds", DV_METRIC_GAUGE,
                             "When the certificate ends, in seconds since 1970.");
        (void)dv_metric_double(out, "davit_gateway_tls_certificate_expiry_seconds", NULL, 0,
                               (double)dv_tls_keys_valid_until_s(g->keys));
    }
    struct dv_hist api = {0};
    for (uint32_t k = 0; k < g->n_loops; k++)
        hist_merge(&api, &g->loops[k]->n.api);
    (void)dv_metric_head(out, "davit_gateway_api_seconds", DV_METRIC_HISTOGRAM, "Duration of API requests.");
    (void)dv_metric_hist(out, "davit_gateway_api_seconds", NULL, 0, &api, &bounds);
    (void)dv_metric_head(out, "davit_gateway_access_log_dropped_total", DV_METRIC_COUNTER,
                         "Access log lines dropped.");
    (void)dv_metric_u64(out, "davit_gateway_access_log_dropped_total", NULL, 0,
                        g->log ? dv_accesslog_dropped(g->log) : 0);
}
