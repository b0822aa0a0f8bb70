/* Metrics of the user's.
 *
 * A sum is shared by the replicas: as many as value / target.  An average or a maximum is a level that each
 * of them sees (a latency, a share): as many as bring it to the target, the present ones times value /
 * target. Present are those that were ready when the value was read: a value is worth one step, however often
 * it is looked at before the next one comes.  Both leave the number alone within a tenth of the target. */
#include "orchestrator/core/metric.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/wire/codec.h"

#define MS        1000000ull
#define SECOND    1000000000ull
#define TOLERANCE 0.1

void dv_metric_deinit(struct dv_metric_track *t)
{
    dv_free(t->of);
    *t = (struct dv_metric_track){0};
}

static uint64_t stale_ns(const struct dv_metric *m)
{
    return (uint64_t)dv_metric_stale_ms(m) * MS;
}

static bool is_fresh(const struct dv_metric *m, uint64_t at_ns, uint64_t now_ns)
{
    return at_ns != 0 && (now_ns <= at_ns || now_ns - at_ns <= stale_ns(m));
}

void dv_metric_note(struct dv_metric_track *t, double value, int64_t n_ready, uint64_t now_ns)
{
    t->value = value;
    t->n_then = n_ready;
    t->at_ns = now_ns;
    t->why[0] = '\0';
}

/* Replicas that have not been heard of for long are gone. */
static void drop_old(struct dv_metric_track *t, const struct dv_metric *m, uint64_t now_ns)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->n; i++)
        if (is_fresh(m, t->of[i].at_ns, now_ns))
            t->of[kept++] = t->of[i];
    t->n = kept;
}

static int reserve(struct dv_metric_track *t, const struct dv_metric *m, uint64_t now_ns)
{
    if (t->n == t->cap)
        drop_old(t, m, now_ns);
    if (t->n < t->cap)
        return DV_OK;
    size_t cap = t->cap ? t->cap * 2 : 4;
    struct dv_metric_of *more = dv_realloc(t->of, cap * sizeof(*more));
    if (!more)
        return DV_E_NOMEM;
    t->of = more;
    t->cap = cap;
    return DV_OK;
}

int dv_metric_note_of(struct dv_metric_track *t, const struct dv_metric *m, uint64_t replica, double value,
                      uint64_t now_ns)
{
    size_t i = 0;
    while (i < t->n && t->of[i].replica != replica)
        i++;
    if (i == t->n) {
        int rc = reserve(t, m, now_ns);
        if (rc)
            return rc;
        i = t->n++;
    }
    t->of[i] = (struct dv_metric_of){replica, now_ns, value};
    t->why[0] = '\0';
    return DV_OK;
}

void dv_metric_missed(struct dv_metric_track *t, const char *why)
{
    (void)dv_copy(t->why, sizeof(t->why), why && *why ? why : "no answer");
}

const struct dv_metric_of *dv_metric_fresh(const struct dv_metric_track *t, const struct dv_metric *m,
                                           uint64_t replica, uint64_t now_ns)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->of[i].replica == replica)
            return is_fresh(m, t->of[i].at_ns, now_ns) ? &t->of[i] : NULL;
    return NULL;
}

void dv_metric_add(struct dv_metric_sum *s, const struct dv_metric *m, double value)
{
    s->level.n_known++;
    s->level.sum += value / m->target;
    s->sum += value;
    s->max = fmax(s->max, value);
}

static int64_t up(double x)
{
    return x <= 0 ? 0 : x >= 1e9 ? 1000000000 : (int64_t)ceil(x - 1e-9);
}

/* x replicas' worth, where n are present. */
static int64_t settle(double x, int64_t n)
{
    return n > 0 && fabs(x - (double)n) <= TOLERANCE * (double)n ? n : up(x);
}

static void hold(struct dv_scale_ask *out, const struct dv_metric_track *t, const struct dv_metric *m,
                 const char *what, int64_t keeps, char *text)
{
    out->is_hold = out->keeps_awake = true;
    (void)snprintf(text, DV_ASK_TEXT, "metric %.24s %.32s%s%.24s%s: keeps %" PRId64, m->name, what,
                   t->why[0] ? " (" : "", t->why, t->why[0] ? ")" : "", keeps);
}

static void tell(const struct dv_metric *m, double value, char *text)
{
    (void)snprintf(text, DV_ASK_TEXT, "metric %.60s is %.6g, target %.6g%s", m->name, value, m->target,
                   m->aggregate == DV_FOLD_SUM ? " a replica" : "");
}

void dv_metric_ask(const struct dv_metric_track *t, const struct dv_metric *m, int64_t keeps, uint64_t now_ns,
                   char *text, struct dv_scale_ask *out)
{
    *out = (struct dv_scale_ask){.signal = DV_SIG_METRIC, .text = text};
    if (!is_fresh(m, t->at_ns, now_ns)) {
        char what[40] = "has told nothing yet";
        if (t->at_ns)
            (void)snprintf(what, sizeof(what), "stale for %" PRIu64 " s",
                           (uint64_t)((now_ns - t->at_ns) / SECOND));
        hold(out, t, m, what, keeps, text);
        return;
    }
    out->is_active = t->value > m->activation;
    double worth = t->value / m->target;
    int64_t present = t->n_then > 0 ? t->n_then : 1;
    if (m->aggregate != DV_FOLD_SUM)
        out->replicas = settle(worth * (double)present, present);
    else
        out->replicas = settle(worth, t->n_then);
    tell(m, t->value, text);
}

bool dv_metric_ask_of_replicas(const struct dv_metric_track *t, const struct dv_metric *m,
                               const struct dv_metric_sum *s, int64_t keeps, char *text,
                               struct dv_scale_ask *out)
{
    int64_t n = s->level.n_known, present = n + s->level.n_missing;
    if (present == 0)
        return false;
    *out = (struct dv_scale_ask){.signal = DV_SIG_METRIC, .text = text};
    if (n == 0) {
        hold(out, t, m, "is not told by its replicas", keeps, text);
        return true;
    }
    double value = m->aggregate == DV_FOLD_SUM   ? s->sum
                   : m->aggregate == DV_FOLD_MAX ? s->max
                                                 : s->sum / (double)n;
    out->is_active = value > m->activation;
    if (m->aggregate == DV_FOLD_MAX) {
        out->replicas = settle(s->max / m->target * (double)n, n);
        if (s->level.n_missing > 0 && out->replicas < present)
            out->replicas = present; /* the missing one may be the worst */
    } else {
        (void)dv_level_replicas(&s->level, &out->replicas);
    }
    out->keeps_awake = s->level.n_missing > 0;
    tell(m, value, text);
    return true;
}
