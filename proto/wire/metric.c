/* Metrics that users name: where they stand, and how long they may take and count. */
#include "proto/wire/codec.h"

enum { TIMEOUT_MS = 5000, STALE_MS = 15000, STALE_INTERVALS = 3 };

static int wrong(const char **why, const char *text)
{
    if (why)
        *why = text;
    return DV_INVALID;
}

/* [":"] [port] "/path" */
static int in_replica(const char *s, struct dv_metric_source *out, const char **why)
{
    int64_t port = 0;
    const char *slash = strchr(s, '/');
    struct dv_sv digits = dv_sv(s, slash ? (size_t)(slash - s) : 0);
    if (!slash)
        return wrong(why, "must name a path, as \"replica:/metrics\" or \":9090/metrics\"");
    if (digits.n && (!dv_parse_i64(digits, &port) || port < 1 || port > 65535))
        return wrong(why, "must name a port from 1 to 65535, as \":9090/metrics\"");
    *out = (struct dv_metric_source){true, port, slash};
    return DV_OK;
}

static int elsewhere(const char *s, struct dv_metric_source *out, const char **why)
{
    size_t n = strcspn(s, "/?");
    if (memchr(s, '@', n))
        return wrong(why, "must not hold a user or password");
    if (n == 0 || s[0] == ':')
        return wrong(why, "must name a host");
    *out = (struct dv_metric_source){0};
    return DV_OK;
}

int dv_metric_source_of(const char *url, struct dv_metric_source *out, const char **why)
{
    struct dv_sv s = dv_sv_c(url);
    for (const char *c = url; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f || *c == '#')
            return wrong(why, "must not contain blanks, control characters, '#' or letters beyond ASCII");
    if (dv_sv_starts(s, DV_SV("http://")))
        return elsewhere(url + 7, out, why);
    if (dv_sv_starts(s, DV_SV("https://")))
        return elsewhere(url + 8, out, why);
    if (dv_sv_starts(s, DV_SV("replica:")))
        return in_replica(url + 8, out, why);
    if (url[0] == ':' && url[1] != '/')
        return in_replica(url + 1, out, why);
    return wrong(why,
                 "must be \"replica:/path\" or \":port/path\" of the function's replicas, or an http:// or "
                 "https:// URL");
}

int64_t dv_metric_timeout_ms(const struct dv_metric *m)
{
    int64_t preset = m->interval_ms < TIMEOUT_MS ? m->interval_ms : TIMEOUT_MS;
    return m->timeout_ms > 0 ? m->timeout_ms : preset;
}

int64_t dv_metric_stale_ms(const struct dv_metric *m)
{
    int64_t ms = STALE_INTERVALS * m->interval_ms;
    return ms > STALE_MS ? ms : STALE_MS;
}
