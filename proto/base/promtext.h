/* Reading metrics: Prometheus' text exposition (version 0.0.4) and what OpenMetrics adds to it.  Strict: one
 * line that is not of the format makes the whole answer worthless, since nobody can say what the rest means.
 * Bounded: a line is at most DV_PROM_LINE_MAX bytes, whatever is fed is gone through once.  Pure. */
#ifndef DV_PROMTEXT_H
#define DV_PROMTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

enum { DV_PROM_LABELS_MAX = 64, DV_PROM_LINE_MAX = 16 * 1024 };

struct dv_prom_label {
    struct dv_sv name, escaped; /* views of the line */
};

struct dv_prom_sample {
    struct dv_sv name;
    struct dv_prom_label labels[DV_PROM_LABELS_MAX];
    size_t n_labels;
    double value; /* NaN and infinities are values of the format */
};

/* One line without its newline.  DV_OK: a sample; DV_NOT_FOUND: blank or a comment; DV_CLOSED: "# EOF";
 * DV_INVALID: *why (static) says what is wrong. */
int dv_prom_line(struct dv_sv line, struct dv_prom_sample *out, const char **why);
/* Does the label have this value, its escapes undone? */
bool dv_prom_label_is(const struct dv_prom_label *l, const char *value);

/* ---- one number out of a whole answer ---- */

enum dv_prom_fold { DV_PROM_SUM, DV_PROM_AVERAGE, DV_PROM_MAX };

struct dv_prom_match {
    const char *label, *value;
};
struct dv_prom_query { /* borrowed while a reader uses it */
    const char *name;
    const struct dv_prom_match *matches; /* all must be there; others may */
    size_t n_matches;
    enum dv_prom_fold fold; /* of the series that fit */
};

struct dv_prom_reader {
    const struct dv_prom_query *query;
    struct dv_buf rest; /* of a line whose end has not come */
    size_t left;        /* bytes that may still come */
    uint64_t n_lines, n_series;
    double sum, max;
    bool is_over; /* "# EOF" came */
    int failed;   /* what feed returned; it returns it again */
};
void dv_prom_reader_init(struct dv_prom_reader *r, const struct dv_prom_query *q, size_t max_bytes);
void dv_prom_reader_deinit(struct dv_prom_reader *r);
/* More of the answer, cut anywhere.  DV_OK; DV_INVALID (a line, or a value that cannot be an amount: NaN,
 * infinite, negative); DV_TOO_LARGE; DV_E_NOMEM. */
int dv_prom_feed(struct dv_prom_reader *r, struct dv_sv bytes, struct dv_err *err);
/* The answer is complete.  DV_OK; DV_NOT_FOUND: no such series in it; DV_INVALID: it ends inside a line. */
int dv_prom_finish(struct dv_prom_reader *r, double *out, struct dv_err *err);

#endif
