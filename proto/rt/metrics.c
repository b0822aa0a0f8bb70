/* A histogram's count is the sum of its buckets, never a counter of its own, so that a reader that races with
 * writers still sees cumulative buckets that end in the count it prints. */
#include "proto/rt/metrics.h"

#include <math.h>

static const double k_seconds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                   0.5,   1,      2.5,   5,    10,    30,   60};
const struct dv_hist_bounds dv_hist_seconds = {k_seconds, DV_COUNT(k_seconds)};

void dv_hist_add(struct dv_hist *h, const struct dv_hist_bounds *b, double value)
{
    size_t i = 0;
    value = value > 0 ? value : 0;
    while (i < b->n && value > b->upper[i])
        i++;
    atomic_fetch_add_explicit(&h->counts[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, (uint64_t)(value * 1e6 + 0.5), memory_order_relaxed);
}

void dv_hist_add_ns(struct dv_hist *h, uint64_t ns)
{
    dv_hist_add(h, &dv_hist_seconds, (double)ns / 1e9);
}

void dv_hist_merge(struct dv_hist *to, const struct dv_hist *from)
{
    for (size_t i = 0; i <= DV_HIST_MAX_BUCKETS; i++)
        atomic_fetch_add_explicit(&to->counts[i],
                                  atomic_load_explicit(&from->counts[i], memory_order_relaxed),
                                  memory_order_relaxed);
    atomic_fetch_add_explicit(&to->sum_us, atomic_load_explicit(&from->sum_us, memory_order_relaxed),
                              memory_order_relaxed);
}

static void escape(struct dv_buf *out, struct dv_sv s, bool quotes_too)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\n')
            (void)dv_buf_add_c(out, "\\n");
        else if (s.p[i] == '\\')
            (void)dv_buf_add_c(out, "\\\\");
        else if (s.p[i] == '"' && quotes_too)
            (void)dv_buf_add_c(out, "\\\"");
        else
            (void)dv_buf_add_char(out, s.p[i]);
    }
}

int dv_metric_head(struct dv_buf *out, const char *name, enum dv_metric_kind kind, const char *help)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    (void)dv_buf_addf(out, "# HELP %s ", name);
    escape(out, dv_sv_c(help), false);
    (void)dv_buf_addf(out, "\n# TYPE %s %s\n", name, kinds[kind]);
    return out->failed;
}

static void write_labels(struct dv_buf *out, const struct dv_label *labels, size_t n, const char *le)
{
    if (!n && !le)
        return;
    for (size_t i = 0; i < n; i++) {
        (void)dv_buf_add_char(out, i ? ',' : '{');
        (void)dv_buf_addf(out, "%s=\"", labels[i].name);
        escape(out, labels[i].value, true);
        (void)dv_buf_add_char(out, '"');
    }
    if (le)
        (void)dv_buf_addf(out, "%cle=\"%s\"", n ? ',' : '{', le);
    (void)dv_buf_add_char(out, '}');
}

static void sample(struct dv_buf *out, const char *name, const char *suffix, const struct dv_label *labels,
                   size_t n, const char *le)
{
    (void)dv_buf_addf(out, "%s%s", name, suffix);
    write_labels(out, labels, n, le);
    (void)dv_buf_add_char(out, ' ');
}

int dv_metric_u64(struct dv_buf *out, const char *name, const struct dv_label *labels, size_t n,
                  uint64_t value)
{
    sample(out, name, "", labels, n, NULL);
    (void)dv_buf_add_u64(out, value);
    (void)dv_buf_add_char(out, '\n');
    return out->failed;
}

int dv_metric_double(struct dv_buf *out, const char *name, const struct dv_label *labels, size_t n,
                     double value)
{
    sample(out, name, "", labels, n, NULL);
    if (isnan(value))
        (void)dv_buf_add_c(out, "NaN");
    else if (isinf(value))
        (void)dv_buf_add_c(out, value > 0 ? "+Inf" : "-Inf");
    else
        (void)dv_buf_addf(out, "%.15g", value);
    (void)dv_buf_add_char(out, '\n');
    return out->failed;
}

int dv_metric_hist(struct dv_buf *out, const char *name, const struct dv_label *labels, size_t n,
                   const struct dv_hist *h, const struct dv_hist_bounds *b)
{
    uint64_t total = 0;
    for (size_t i = 0; i <= b->n; i++) {
        char le[32] = "+Inf";
        if (i < b->n)
            (void)snprintf(le, sizeof(le), "%.15g", b->upper[i]);
        total += atomic_load_explicit(&h->counts[i], memory_order_relaxed);
        sample(out, name, "_bucket", labels, n, le);
        (void)dv_buf_addf(out, "%llu\n", (unsigned long long)total);
    }
    sample(out, name, "_sum", labels, n, NULL);
    (void)dv_buf_addf(out, "%.15g\n", (double)atomic_load_explicit(&h->sum_us, memory_order_relaxed) / 1e6);
    sample(out, name, "_count", labels, n, NULL);
    (void)dv_buf_addf(out, "%llu\n", (unsigned long long)total);
    return out->failed;
}
