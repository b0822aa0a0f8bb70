/* What was last read of a metric that a user names, and what it asks for.  Pure; one owner per track.
 *
 * What is older than dv_metric_stale_ms says nothing any more: the ask is then to keep what there is. */
#ifndef DV_METRIC_H
#define DV_METRIC_H

#include "orchestrator/core/signals.h"

struct dv_metric_of { /* of one replica */
    uint64_t replica, at_ns;
    double value;
};

struct dv_metric_track { /* zero to begin */
    uint64_t at_ns;      /* of the last good value, of an endpoint elsewhere; 0: none yet */
    double value;
    int64_t n_then;          /* replicas that were ready at that time */
    struct dv_metric_of *of; /* of the function's replicas */
    size_t n, cap;
    char why[96]; /* the last try failed so; empty: it did not */
};
void dv_metric_deinit(struct dv_metric_track *t);

/* A value was read elsewhere while so many replicas were ready; or in a replica (DV_OK, DV_E_NOMEM). */
void dv_metric_note(struct dv_metric_track *t, double value, int64_t n_ready, uint64_t now_ns);
int dv_metric_note_of(struct dv_metric_track *t, const struct dv_metric *m, uint64_t replica, double value,
                      uint64_t now_ns);
void dv_metric_missed(struct dv_metric_track *t, const char *why);
/* The fresh value of a replica; NULL: there is none. */
const struct dv_metric_of *dv_metric_fresh(const struct dv_metric_track *t, const struct dv_metric *m,
                                           uint64_t replica, uint64_t now_ns);

/* What the replicas of a function say together; a frozen one does no work and counts with 0. */
struct dv_metric_sum {
    struct dv_level level; /* in targets */
    double sum, max;       /* of the values */
};
void dv_metric_add(struct dv_metric_sum *s, const struct dv_metric *m, double value);

/* The asks; `keeps` is the number that stays when nothing can be said.  text: DV_ASK_TEXT bytes, borrowed.
 * of_replicas: false when there is no replica to ask. */
void dv_metric_ask(const struct dv_metric_track *t, const struct dv_metric *m, int64_t keeps, uint64_t now_ns,
                   char *text, struct dv_scale_ask *out);
bool dv_metric_ask_of_replicas(const struct dv_metric_track *t, const struct dv_metric *m,
                               const struct dv_metric_sum *s, int64_t keeps, char *text,
                               struct dv_scale_ask *out);

#endif
