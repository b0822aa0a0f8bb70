#include "orchestrator/events/async_retry.h"
#include "proto/base/err.h"
#include "proto/wire/codec.h"

enum { RETRY_AFTER_MAX_MS = 3600 * 1000, ATTEMPTS_MAX = 1000 };

static const struct dv_async_policy defaults = {.attempts = 10,
                                                .min_wait_ms = 10000,
                                                .max_wait_ms = 120000,
                                                .codes = {408, 429, 500, 502, 503, 504},
                                                .n_codes = 6};

static void read_codes(struct dv_sv s, struct dv_async_policy *p)
{
    int codes[DV_ASYNC_CODES_MAX];
    size_t n = 0;
    while (s.n && n < DV_ASYNC_CODES_MAX) {
        struct dv_sv one;
        uint64_t code;
        (void)dv_sv_cut(s, ',', &one, &s);
        if (!dv_parse_u64(dv_sv_trim(one), &code) || code < 100 || code > 599)
            return;
        codes[n++] = (int)code;
    }
    if (s.n || !n)
        return;
    memcpy(p->codes, codes, n * sizeof(*codes));
    p->n_codes = n;
    p->codes_given = true;
}

void dv_async_policy_read(const struct dv_kvs *annotations, struct dv_async_policy *out)
{
    *out = defaults;
    if (!annotations)
        return;
    const char *attempts = dv_kvs_find(annotations, "com.openfaas.retry.attempts");
    const char *codes = dv_kvs_find(annotations, "com.openfaas.retry.codes");
    const char *min_wait = dv_kvs_find(annotations, "com.openfaas.retry.min_wait");
    const char *max_wait = dv_kvs_find(annotations, "com.openfaas.retry.max_wait");
    uint64_t n;
    int64_t min_ms = out->min_wait_ms, max_ms = out->max_wait_ms;
    if (attempts && dv_parse_u64(dv_sv_c(attempts), &n) && n >= 1 && n <= ATTEMPTS_MAX)
        out->attempts = (uint32_t)n;
    if (codes)
        read_codes(dv_sv_c(codes), out);
    if (min_wait && dv_parse_duration_ms(dv_sv_c(min_wait), &min_ms))
        min_ms = out->min_wait_ms;
    if (max_wait && dv_parse_duration_ms(dv_sv_c(max_wait), &max_ms))
        max_ms = out->max_wait_ms;
    if (!max_wait && max_ms < min_ms)
        max_ms = min_ms; /* only the lower end was given, above our upper one */
    if (!min_wait && min_ms > max_ms)
        min_ms = max_ms;
    if (min_ms < 0 || min_ms > max_ms)
        return;
    out->min_wait_ms = min_ms;
    out->max_wait_ms = max_ms;
}

void dv_async_policy_callback(struct dv_async_policy *out)
{
    *out = defaults;
    out->attempts = 5;
    out->min_wait_ms = 1000;
    out->max_wait_ms = 30000;
    out->codes_given = true; /* whoever answers a callback with 500 may mean "later" */
}

static bool is_retryable(const struct dv_async_policy *p, const struct dv_async_outcome *o)
{
    if (o->status == 0)
        return true;
    if (o->status == 500 && !o->is_ours && !p->codes_given)
        return false; /* the function itself failed: it has seen the request */
    for (size_t i = 0; i < p->n_codes; i++)
        if (p->codes[i] == o->status)
            return true;
    return false;
}

static int64_t wait_ms(const struct dv_async_policy *p, const struct dv_async_outcome *o, uint32_t attempt,
                       double unit)
{
    if (o->retry_after_ms >= 0 && (o->status == 429 || o->status == 503)) {
        int64_t ms = o->retry_after_ms < RETRY_AFTER_MAX_MS ? o->retry_after_ms : RETRY_AFTER_MAX_MS;
        return ms > p->min_wait_ms ? ms : p->min_wait_ms;
    }
    int64_t ms = p->min_wait_ms;
    for (uint32_t i = 1; i < attempt && ms < p->max_wait_ms; i++)
        ms *= 2;
    ms = ms < p->max_wait_ms ? ms : p->max_wait_ms;
    ms -= (int64_t)((double)ms * unit / 5);
    return ms > p->min_wait_ms ? ms : p->min_wait_ms;
}

enum dv_async_next dv_async_decide(const struct dv_async_policy *p, const struct dv_async_outcome *o,
                                   uint32_t attempt, double unit, int64_t *out_wait_ms)
{
    if (o->status >= 200 && o->status < 400)
        return DV_ASYNC_DONE;
    if (!is_retryable(p, o) || attempt >= p->attempts)
        return DV_ASYNC_GIVE_UP;
    *out_wait_ms = wait_ms(p, o, attempt, unit);
    return DV_ASYNC_RETRY;
}

int64_t dv_async_retry_after_ms(struct dv_sv value, int64_t wall_now_ms)
{
    uint64_t seconds;
    if (dv_parse_u64(value, &seconds))
        return seconds < RETRY_AFTER_MAX_MS / 1000 ? (int64_t)seconds * 1000 : RETRY_AFTER_MAX_MS;
    char text[40];
    struct tm tm = {0};
    if (!value.n || value.n >= sizeof(text))
        return -1;
    memcpy(text, value.p, value.n);
    text[value.n] = '\0';
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end)
        return -1;
    int64_t at_ms = (int64_t)timegm(&tm) * 1000;
    return at_ms > wall_now_ms ? at_ms - wall_now_ms : 0;
}
