/* What a function's spec needs beyond its single fields: rules that span several, and defaults that depend on
 * others.  A finished spec holds a usable value everywhere, but for two things that are worked out where they
 * are used: scale.idle, whose default is the cluster's, and requests, which are shown to OpenFaaS clients
 * only when they were sent.  dv_fn_spec_resolved fills in these too.
 *
 * Derived values are written into the spec and kept with it.  dv_fn_spec_unfinish takes out again those that
 * still equal what would be derived, so that a change of one field (the protocol, the timeout) moves what
 * hangs on it, while a value that the user chose stays. */
#include "proto/wire/codec_internal.h"

#include <inttypes.h>

enum { CONCURRENCY_HTTP = 100, CONCURRENCY_STDIO = 1, TARGET_PERCENT = 70 };
enum { REQUEST_MCPU = 50, IDLE_MS = 60000, IDLE_OPENFAAS_MS = 45000 };
static const int64_t request_memory_bytes = 64ll << 20;

static int64_t derived_concurrency(const struct dv_fn_spec *s)
{
    return s->protocol == DV_PROTO_STDIO ? CONCURRENCY_STDIO : CONCURRENCY_HTTP;
}

static int64_t derived_target(const struct dv_fn_spec *s)
{
    int64_t t = s->scale.concurrency * TARGET_PERCENT / 100;
    return t > 0 ? t : 1;
}

struct dv_requests dv_fn_requests(const struct dv_fn_spec *s)
{
    struct dv_requests r = s->requests;
    if (!r.memory_bytes)
        r.memory_bytes = s->limits.memory_bytes ? s->limits.memory_bytes : request_memory_bytes;
    if (!r.cpu_mcpu)
        r.cpu_mcpu =
            s->limits.cpu_mcpu && s->limits.cpu_mcpu < REQUEST_MCPU ? s->limits.cpu_mcpu : REQUEST_MCPU;
    return r;
}

/* OpenFaaS's users expect the minimum within a minute of the load's end, windows and stopping included. */
int64_t dv_fn_idle_ms(const struct dv_fn_spec *s, int64_t cluster_default_ms)
{
    if (s->scale.idle_ms)
        return s->scale.idle_ms;
    if (cluster_default_ms > 0)
        return cluster_default_ms;
    return s->face && strcmp(s->face, "openfaas") == 0 ? IDLE_OPENFAAS_MS : IDLE_MS;
}

void dv_fn_spec_resolved(const struct dv_fn_spec *s, int64_t cluster_idle_ms, struct dv_fn_spec *out)
{
    *out = *s;
    out->requests = dv_fn_requests(s);
    out->scale.idle_ms = dv_fn_idle_ms(s, cluster_idle_ms);
}

void dv_fn_spec_unfinish(struct dv_fn_spec *s)
{
    if (s->scale.queue_timeout_ms == s->timeout_ms)
        s->scale.queue_timeout_ms = 0;
    if (s->scale.target == derived_target(s))
        s->scale.target = 0;
    if (s->scale.concurrency == derived_concurrency(s))
        s->scale.concurrency = 0;
}

void dv_pool_of(const struct dv_fn_spec *s, struct dv_pool *out)
{
    *out = (struct dv_pool){.image = s->image,
                            .user = s->user,
                            .read_only = s->read_only,
                            .tmp_bytes = s->limits.tmp_bytes,
                            .files = s->limits.files};
}

bool dv_pool_same(const struct dv_pool *a, const struct dv_pool *b)
{
    bool same_user = a->user && b->user ? !strcmp(a->user, b->user) : a->user == b->user;
    return same_user && !strcmp(a->image, b->image) && a->read_only == b->read_only &&
           a->tmp_bytes == b->tmp_bytes && a->files == b->files;
}

static int check_lists(const struct dv_fn_spec *s, struct dv_err *err)
{
    for (size_t i = 0; i < s->secrets.n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(s->secrets.v[i], s->secrets.v[j]) == 0) {
                char field[32];
                (void)snprintf(field, sizeof(field), "secrets[%zu]", i);
                return dv_err_field(err, DV_INVALID, field, "secret \"%s\" stands there twice",
                                    s->secrets.v[i]);
            }
    bool stdio_without_program = s->protocol == DV_PROTO_STDIO && !s->command.n && !s->entrypoint.n;
    if (stdio_without_program)
        return dv_err_field(err, DV_INVALID, "command",
                            "a stdio function needs the program to run, as [\"wc\",\"-c\"]");
    if (s->command.n && !s->command.v[0][0])
        return dv_err_field(err, DV_INVALID, "command[0]", "the program must not be empty");
    if (s->entrypoint.n && !s->entrypoint.v[0][0])
        return dv_err_field(err, DV_INVALID, "entrypoint[0]", "the program must not be empty");
    return DV_OK;
}

static int check_metrics(const struct dv_fn_spec *s, struct dv_err *err)
{
    char field[48];
    for (size_t i = 0; i < s->scale.n_metrics; i++) {
        const struct dv_metric *m = &s->scale.metrics[i];
        struct dv_metric_source source = {0};
        (void)snprintf(field, sizeof(field), "scale.metrics[%zu].target", i);
        if (!(m->target > 0))
            return dv_err_field(err, DV_INVALID, field, "%s must be above 0", field);
        (void)snprintf(field, sizeof(field), "scale.metrics[%zu].timeout", i);
        if (m->timeout_ms > m->interval_ms)
            return dv_err_field(err, DV_INVALID, field, "%s must not be above the interval", field);
        (void)snprintf(field, sizeof(field), "scale.metrics[%zu].url", i);
        (void)dv_metric_source_of(m->url, &source, NULL); /* it has been checked */
        if (source.is_replica && s->protocol == DV_PROTO_STDIO)
            return dv_err_field(err, DV_INVALID, field,
                                "%s: the replicas of a stdio function have no endpoint", field);
    }
    return DV_OK;
}

static int check_numbers(const struct dv_fn_spec *s, struct dv_err *err)
{
    if (s->scale.min > s->scale.max)
        return dv_err_field(err, DV_INVALID, "scale.min",
                            "scale.min (%" PRId64 ") must not be above scale.max (%" PRId64 ")", s->scale.min,
                            s->scale.max);
    if (s->scale.target > s->scale.concurrency)
        return dv_err_field(err, DV_INVALID, "scale.target",
                            "scale.target (%" PRId64 ") must not be above scale.concurrency (%" PRId64 ")",
                            s->scale.target, s->scale.concurrency);
    if (s->scale.cpu && !s->limits.cpu_mcpu && !s->requests.cpu_mcpu)
        return dv_err_field(err, DV_INVALID, "scale.cpu",
                            "scale.cpu is a percentage of limits.cpu or requests.cpu: give one of them");
    if (s->scale.memory && !s->limits.memory_bytes && !s->requests.memory_bytes)
        return dv_err_field(
            err, DV_INVALID, "scale.memory",
            "scale.memory is a percentage of limits.memory or requests.memory: give one of them");
    int rc = check_metrics(s, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->scale.n_schedule; i++) {
        char field[48];
        (void)snprintf(field, sizeof(field), "scale.schedule[%zu].min", i);
        if (s->scale.schedule[i].min > s->scale.max)
            return dv_err_field(err, DV_INVALID, field,
                                "%s (%" PRId64 ") must not be above scale.max (%" PRId64 ")", field,
                                s->scale.schedule[i].min, s->scale.max);
    }
    char a[32], b[32];
    if (s->limits.memory_bytes && s->requests.memory_bytes > s->limits.memory_bytes) {
        dv_format_bytes(s->requests.memory_bytes, a);
        dv_format_bytes(s->limits.memory_bytes, b);
        return dv_err_field(err, DV_INVALID, "requests.memory",
                            "requests.memory (%s) must not be above limits.memory (%s)", a, b);
    }
    if (s->limits.cpu_mcpu && s->requests.cpu_mcpu > s->limits.cpu_mcpu) {
        dv_format_mcpu(s->requests.cpu_mcpu, a);
        dv_format_mcpu(s->limits.cpu_mcpu, b);
        return dv_err_field(err, DV_INVALID, "requests.cpu",
                            "requests.cpu (%s) must not be above limits.cpu (%s)", a, b);
    }
    return DV_OK;
}

int dv_fn_spec_finish(struct dv_fn_spec *spec, struct dv_arena *arena, struct dv_err *err)
{
    (void)arena; /* nothing derived needs memory so far */
    struct dv_fn_spec s = *spec;
    if (!s.scale.concurrency)
        s.scale.concurrency = derived_concurrency(&s);
    if (!s.scale.target)
        s.scale.target = derived_target(&s);
    if (!s.scale.queue_timeout_ms)
        s.scale.queue_timeout_ms = s.timeout_ms;
    int rc = check_lists(&s, err);
    if (!rc)
        rc = check_numbers(&s, err);
    if (!rc)
        *spec = s;
    return rc;
}
