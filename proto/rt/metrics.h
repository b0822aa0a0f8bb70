/* Prometheus text exposition (version 0.0.4): helpers that write it, and a histogram to count into.
 * Histograms are counted by any thread and read by any thread; the writers belong to whoever owns the buffer.
 */
#ifndef DV_METRICS_H
#define DV_METRICS_H

#include <stdatomic.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"

enum { DV_HIST_MAX_BUCKETS = 24 };
#define DV_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

enum dv_metric_kind { DV_METRIC_COUNTER, DV_METRIC_GAUGE, DV_METRIC_HISTOGRAM };

struct dv_label {
    const char *name;
    struct dv_sv value; /* any bytes; escaped when written */
};

/* Fixed bounds, ascending; what is above the last falls into +Inf. */
struct dv_hist_bounds {
    const double *upper;
    size_t n; /* at most DV_HIST_MAX_BUCKETS */
};
extern const struct dv_hist_bounds dv_hist_seconds; /* 1 ms ... 60 s: durations of requests and starts */

struct dv_hist {
    _Atomic uint64_t counts[DV_HIST_MAX_BUCKETS + 1]; /* not cumulative; the last used one is +Inf */
    _Atomic uint64_t sum_us; /* in millionths of the unit: seconds are summed in us */
};

/* One observation.  Lock-free; value below 0 counts as 0. */
void dv_hist_add(struct dv_hist *h, const struct dv_hist_bounds *b, double value);
/* An observation of a duration, with dv_hist_seconds. */
void dv_hist_add_ns(struct dv_hist *h, uint64_t ns);
/* to += from; for counters kept per thread. */
void dv_hist_merge(struct dv_hist *to, const struct dv_hist *from);

/* "# HELP ...\n# TYPE ...\n": once per name, before its samples. */
int dv_metric_head(struct dv_buf *out, const char *name, enum dv_metric_kind kind, const char *help);
/* One sample.  Return DV_OK or DV_E_NOMEM / DV_TOO_LARGE of the buffer. */
int dv_metric_u64(struct dv_buf *out, const char *name, const struct dv_label *labels, size_t n,
                  uint64_t value);
int dv_metric_double(struct dv_buf *out, const char *name, const struct dv_label *labels, size_t n,
                     double value);
/* All samples of a histogram: _bucket (cumulative), _sum, _count. */
int dv_metric_hist(struct dv_buf *out, const char *name, const struct dv_label *labels, size_t n,
                   const struct dv_hist *h, const struct dv_hist_bounds *b);

#endif
