/* Signals beside the gateway's load: what each asks for, as data for dv_scale_decide.  Pure; any thread, one
 * owner per state. */
#ifndef DV_SIGNALS_H
#define DV_SIGNALS_H

#include "orchestrator/core/autoscale.h"

enum { DV_ASK_TEXT = 120 };

/* ---- use of a replica's processors and memory, as its agent reports it ---- */

struct dv_usage {    /* of one replica; zero to begin */
    uint64_t at_ns;  /* of the last report that counted; 0: none yet */
    int64_t cpu_us;  /* its counter then */
    double cpu_mcpu; /* mean between the last two; negative or not told yet: unknown */
    int64_t memory_bytes;
    bool has_cpu;
};
/* A report came: cpu_us since the replica's start. */
void dv_usage_note(struct dv_usage *u, int64_t cpu_us, int64_t memory_bytes, uint64_t now_ns);
/* Neither older than three of the agent's full reports nor a guess. */
bool dv_usage_has_cpu(const struct dv_usage *u, uint64_t now_ns);
bool dv_usage_has_memory(const struct dv_usage *u, uint64_t now_ns);

/* ---- a level that replicas share: so much of the target each ---- */

struct dv_level {
    int64_t n_known, n_missing; /* replicas that serve, with a measure and without */
    int64_t n_starting;
    double sum; /* of measure / target over the known */
};
/* Kubernetes' rule: as many as bring the mean to the target, unless it is within a tenth of it already.  What
 * is not known counts as idle when that asks for fewer than without it, and as just right when the others say
 * fewer: missing data never scales down.  False: nothing is known. */
bool dv_level_replicas(const struct dv_level *l, int64_t *out);

/* Fill *out from a level of cpu or memory; text (DV_ASK_TEXT bytes) is written and borrowed. */
void dv_signal_usage(enum dv_scale_signal which, const struct dv_level *l, int64_t percent, char *text,
                     struct dv_scale_ask *out);

/* ---- accepted work that waits in the store ---- */

struct dv_backlog {
    uint64_t items;    /* due and not settled, those under way included */
    uint64_t parallel; /* that many are handed out at a time */
};
/* Enough replicas to work it off within the drain time at the measured time of a request, no more than can
 * be handed out at once.  service_s 0: not known, each takes a slot. */
void dv_signal_backlog(const struct dv_backlog *b, const struct dv_scale_policy *p, double service_s,
                       char *text, struct dv_scale_ask *out);

#endif
