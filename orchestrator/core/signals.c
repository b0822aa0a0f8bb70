/* Signals beside the gateway's load.
 *
 * Use of processors and memory follows the rule of Kubernetes' horizontal autoscaler: replicas = ceil(sum of
 * use / target), with a dead band of a tenth around the target.  A replica without a fresh report counts as
 * idle where more is asked for and as exactly at the target where fewer is, so that silence moves nothing.
 *
 * The agents tell counters about every five seconds; a rate is taken over at least one second. */
#include "orchestrator/core/signals.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define SECOND    1000000000ull
#define STALE_NS  (16 * SECOND)
#define TOLERANCE 0.1

/* ---- usage ---- */

void dv_usage_note(struct dv_usage *u, int64_t cpu_us, int64_t memory_bytes, uint64_t now_ns)
{
    if (cpu_us <= 0 && memory_bytes <= 0)
        return; /* its agent does not know them (yet) */
    bool is_first = u->at_ns == 0, is_anew = cpu_us < u->cpu_us;
    if (!is_first && !is_anew && now_ns < u->at_ns + SECOND)
        return; /* too close to tell a rate */
    bool is_late = now_ns - u->at_ns > STALE_NS;
    u->has_cpu = !is_first && !is_anew && !is_late;
    if (u->has_cpu)
        u->cpu_mcpu = (double)(cpu_us - u->cpu_us) * 1e6 / (double)(now_ns - u->at_ns);
    u->cpu_us = cpu_us;
    u->memory_bytes = memory_bytes;
    u->at_ns = now_ns;
}

static bool is_fresh(const struct dv_usage *u, uint64_t now_ns)
{
    return u->at_ns != 0 && (now_ns < u->at_ns || now_ns - u->at_ns <= STALE_NS);
}

bool dv_usage_has_cpu(const struct dv_usage *u, uint64_t now_ns)
{
    return u->has_cpu && is_fresh(u, now_ns);
}

bool dv_usage_has_memory(const struct dv_usage *u, uint64_t now_ns)
{
    return u->memory_bytes > 0 && is_fresh(u, now_ns);
}

/* ---- levels ---- */

static int64_t up(double x)
{
    return x <= 0 ? 0 : x >= 1e9 ? 1000000000 : (int64_t)ceil(x - 1e-9);
}

bool dv_level_replicas(const struct dv_level *l, int64_t *out)
{
    if (l->n_known <= 0)
        return false;
    int64_t present = l->n_known + l->n_missing + l->n_starting;
    double ratio = l->sum / (double)l->n_known;
    *out = present;
    if (ratio > 1 + TOLERANCE) {
        if (l->sum > (double)present * (1 + TOLERANCE))
            *out = up(l->sum);
    } else if (ratio < 1 - TOLERANCE) {
        double sum = l->sum + (double)l->n_missing;
        if (sum < (double)(l->n_known + l->n_missing) * (1 - TOLERANCE))
            *out = up(sum);
    }
    return true;
}

void dv_signal_usage(enum dv_scale_signal which, const struct dv_level *l, int64_t percent, char *text,
                     struct dv_scale_ask *out)
{
    const char *name = dv_scale_signal_name(which);
    *out = (struct dv_scale_ask){.signal = which, .text = text};
    out->is_hold = !dv_level_replicas(l, &out->replicas);
    if (out->is_hold) {
        (void)snprintf(text, DV_ASK_TEXT, "%s of its replicas is not known (yet): keeps what there is", name);
        return;
    }
    double mean = l->sum / (double)l->n_known;
    out->is_active = which == DV_SIG_CPU && mean >= 1 - TOLERANCE;
    (void)snprintf(text, DV_ASK_TEXT, "%s at %.0f %%, target %" PRId64 " %%", name,
                   fmin(mean * (double)percent, 99999), percent);
}

/* ---- backlog ---- */

void dv_signal_backlog(const struct dv_backlog *b, const struct dv_scale_policy *p, double service_s,
                       char *text, struct dv_scale_ask *out)
{
    double slots = (double)b->items;
    if (service_s > 0)
        slots = fmin(slots, slots * service_s * 1e9 / (double)p->drain_ns);
    slots = fmin(slots, (double)b->parallel);
    *out = (struct dv_scale_ask){.signal = DV_SIG_BACKLOG, .is_active = b->items > 0, .text = text};
    out->replicas = dv_scale_replicas_of(slots / (double)p->concurrency);
    (void)snprintf(text, DV_ASK_TEXT, "%" PRIu64 " accepted requests wait to be worked off", b->items);
}
