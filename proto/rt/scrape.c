#include "proto/rt/scrape.h"

#include "proto/base/alloc.h"
#include "proto/base/arena.h"
#include "proto/base/promtext.h"
#include "proto/rt/httpc.h"
#include "proto/wire/codec.h"

struct dv_scrape {
    struct dv_arena arena;
    struct dv_metric metric;
    struct dv_prom_query query;
    struct dv_prom_reader reader;
    struct dv_httpc_call *call;
    struct dv_err refused; /* by the reader */
    void (*done)(void *ctx, int code, double value, const struct dv_err *err);
    void *ctx;
};

_Static_assert((int)DV_FOLD_SUM == (int)DV_PROM_SUM && (int)DV_FOLD_AVERAGE == (int)DV_PROM_AVERAGE &&
                   (int)DV_FOLD_MAX == (int)DV_PROM_MAX,
               "one order of aggregates");

static void scrape_free(struct dv_scrape *s)
{
    dv_prom_reader_deinit(&s->reader);
    dv_arena_deinit(&s->arena);
    dv_free(s);
}

static int on_data(void *ctx, struct dv_sv bytes)
{
    struct dv_scrape *s = ctx;
    return dv_prom_feed(&s->reader, bytes, &s->refused);
}

static int judge(struct dv_scrape *s, const struct dv_httpc_result *res, double *value, struct dv_err *err)
{
    if (s->reader.failed) {
        *err = s->refused;
        return s->reader.failed;
    }
    if (res->code) {
        *err = res->err ? *res->err : (struct dv_err){.code = res->code};
        return res->code;
    }
    if (res->status / 100 == 3)
        return dv_err_set(err, DV_E_PROTO, "it answers %ld, and redirects are not followed", res->status);
    if (res->status != 200)
        return dv_err_set(err, DV_E_PROTO, "it answers %ld", res->status);
    return dv_prom_finish(&s->reader, value, err);
}

static void on_done(void *ctx, const struct dv_httpc_result *res)
{
    struct dv_scrape *s = ctx;
    struct dv_err err = DV_ERR_INIT;
    double value = 0;
    int rc = judge(s, res, &value, &err);
    s->done(s->ctx, rc, value, &err);
    scrape_free(s);
}

static int ask_for(struct dv_scrape *s, const struct dv_metric *m)
{
    int rc = dv_wire_copy(&dv_type_metric, m, &s->arena, &s->metric);
    size_t n = m->labels.n;
    struct dv_prom_match *matches = rc ? NULL : dv_arena_alloc(&s->arena, (n + 1) * sizeof(*matches));
    if (!matches)
        return DV_E_NOMEM;
    for (size_t i = 0; i < n; i++)
        matches[i] = (struct dv_prom_match){s->metric.labels.v[i].k, s->metric.labels.v[i].v};
    s->query = (struct dv_prom_query){s->metric.name, matches, n, (enum dv_prom_fold)s->metric.aggregate};
    dv_prom_reader_init(&s->reader, &s->query, DV_SCRAPE_BYTES_MAX);
    return DV_OK;
}

int dv_scrape_start(struct dv_httpc *http, const char *url, const struct dv_metric *m, bool is_local,
                    void (*done)(void *ctx, int code, double value, const struct dv_err *err), void *ctx,
                    struct dv_scrape **out, struct dv_err *err)
{
    static const char *const headers[] = {
        "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=1,*/*;q=0.1",
        "User-Agent: davit/" DAVIT_VERSION, NULL, NULL};
    static const char *const local_headers[] = {
        "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=1,*/*;q=0.1",
        "User-Agent: davit/" DAVIT_VERSION, "Connection: close", NULL};
    struct dv_scrape *s = dv_zalloc(sizeof(*s));
    int rc = s ? ask_for(s, m) : DV_E_NOMEM;
    if (!rc) {
        s->done = done;
        s->ctx = ctx;
        struct dv_httpc_request req = {.method = "GET",
                                       .url = url,
                                       .headers = is_local ? local_headers : headers,
                                       .timeout_ms = (uint64_t)dv_metric_timeout_ms(m),
                                       .connect_timeout_ms = (uint64_t)dv_metric_timeout_ms(m),
                                       .body_max = 64 * 1024, /* of an answer that is an error */
                                       .no_proxy = is_local,
                                       .on_data = on_data,
                                       .on_done = on_done,
                                       .ctx = s};
        rc = dv_httpc_send(http, &req, &s->call, err);
    } else {
        (void)dv_err_set(err, rc, "reading a metric");
    }
    if (rc) {
        if (s)
            scrape_free(s);
        return rc;
    }
    *out = s;
    return DV_OK;
}

void dv_scrape_cancel(struct dv_scrape *s)
{
    if (!s)
        return;
    dv_httpc_cancel(s->call);
    scrape_free(s);
}
