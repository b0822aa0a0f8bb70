/* The hybrid histogram policy (Shahrad et al., USENIX ATC 2020, section 4), and what we do differently.
 *
 * As published: a histogram of idle times to four hours; its 5th and 99th percentile, with 10 % taken off the
 * first and put on the second, are the time before which nobody comes and the time by which somebody came.  A
 * histogram counts as a pattern when its bins are uneven enough (coefficient of variation of the counts of
 * one- minute bins at least 2, which is what gaps spread over more than 48 of the 240 minutes do not reach);
 * where most gaps are beyond the range, the next one is forecast from their series, with 15 % on either side.
 *
 * Differently:
 *  - Bins are finer at the low end (10 s in the first minute) and coarser past an hour (5 min): never wider
 *    than the margin, so the edges say as much in less memory.  Gaps below 10 s are not counted: nothing is
 *    given up that soon, and a burst's thousand tiny gaps would hide the one that costs a start.
 *  - Old history fades: counts are halved whenever 128 gaps have come together, and when the last eight gaps
 *    all lie where less than a quarter of the history does, history begins anew with these eight.
 *  - Too few gaps, or no pattern: the function's fixed time, where the paper keeps a replica for four hours.
 * A primed sandbox does that for us, where one can be had, at a thirtieth of the memory.
 *  - A replica is kept for warm_max_ns at the most where a primed sandbox can stand in for the rest.
 *  - It is stopped early (and something made ready ahead) only when the wait is worth a start, and when the
 * low percentile means something: from 20 gaps on, or when all of them are alike.
 *  - Forecast: the paper fits an ARIMA model.  What comes regularly past four hours are timers: the mean of
 *    the last gaps, when their coefficient of variation is at most 0.15.
 *
 * What is made ready ahead is a place in a pool of primed sandboxes when the function's own start is short:
 * such a sandbox hides the engine's part of a start only.  Otherwise it is a replica.
 *
 * History lives in memory: an orchestrator that restarts learns anew, with fixed times meanwhile. */
#include "orchestrator/core/keepalive.h"

#include <math.h>
#include "proto/base/auto.h"
#include "proto/wire/codec.h"

#define SECOND 1000000000ull
#define MINUTE (60 * SECOND)

enum {
    UNIT = 64,              /* weight of one gap */
    TOTAL_MAX = 128 * UNIT, /* then all are halved */
    HEAD_PERMILLE = 50,
    TAIL_PERMILLE = 990,
    ENOUGH_FOR_HEAD = 20,
    LONG_MIN = 3 /* long gaps that a forecast takes */
};

/* ---- bins ---- */

/* DV_KEEP_BINS: beyond the range. */
static size_t bin_of_s(uint32_t gap_s)
{
    if (gap_s < 60)
        return gap_s / 10;
    if (gap_s < 3600)
        return DV_KEEP_FINE + gap_s / 60 - 1;
    size_t i = DV_KEEP_FINE + DV_KEEP_MINUTES + (size_t)(gap_s - 3600) / 300;
    return i < DV_KEEP_BINS ? i : DV_KEEP_BINS;
}

/* Where bin i begins; that of DV_KEEP_BINS is the end of the range. */
static uint64_t edge(size_t i)
{
    if (i < DV_KEEP_FINE)
        return i * 10 * SECOND;
    if (i < DV_KEEP_FINE + DV_KEEP_MINUTES)
        return (i - DV_KEEP_FINE + 1) * MINUTE;
    return (60 + 5 * (i - DV_KEEP_FINE - DV_KEEP_MINUTES)) * MINUTE;
}

/* First bin up to which `permille` of what is in range lies; DV_KEEP_BINS: nothing is. */
static size_t percentile(const struct dv_keep_history *h, unsigned permille)
{
    uint32_t in_range = (uint32_t)h->total - h->beyond, sum = 0;
    for (size_t i = 0; i < DV_KEEP_BINS; i++) {
        sum += h->weight[i];
        if (sum > 0 && sum * 1000 >= in_range * permille)
            return i;
    }
    return DV_KEEP_BINS;
}

/* Squared coefficient of variation of the counts of 240 one-minute bins. */
static double unevenness(const struct dv_keep_history *h)
{
    double sum = 0, squares = 0, minute = 0;
    for (size_t i = 0; i < DV_KEEP_FINE; i++)
        minute += h->weight[i];
    sum = minute;
    squares = minute * minute;
    for (size_t i = DV_KEEP_FINE; i < DV_KEEP_BINS; i++) {
        double w = h->weight[i], minutes = i < DV_KEEP_FINE + DV_KEEP_MINUTES ? 1 : 5;
        sum += w;
        squares += w * w / minutes;
    }
    return sum > 0 ? 240 * squares / (sum * sum) - 1 : 0;
}

/* ---- learning ---- */

static void fade(struct dv_keep_history *h)
{
    h->beyond = h->total = (uint16_t)(h->beyond / 2);
    for (size_t i = 0; i < DV_KEEP_BINS; i++) {
        h->weight[i] = (uint16_t)(h->weight[i] / 2);
        h->total = (uint16_t)(h->total + h->weight[i]);
    }
}

static void count(struct dv_keep_history *h, uint32_t gap_s)
{
    if (h->total + UNIT > TOTAL_MAX)
        fade(h);
    size_t bin = bin_of_s(gap_s);
    uint16_t *w = bin < DV_KEEP_BINS ? &h->weight[bin] : &h->beyond;
    *w = (uint16_t)(*w + UNIT);
    h->total = (uint16_t)(h->total + UNIT);
    h->seen++;
}

static void remember(struct dv_keep_history *h, uint32_t gap_s)
{
    if (h->n_recent == DV_KEEP_RECENT)
        memmove(h->recent_s, h->recent_s + 1, --h->n_recent * sizeof(h->recent_s[0]));
    h->recent_s[h->n_recent++] = gap_s;
}

/* The last gaps all lie where the history before them hardly ever was: were they of the same pattern, eight
 * in a row would do so once in some thousand times. */
static bool is_new_pattern(const struct dv_keep_history *h)
{
    if (h->n_recent < DV_KEEP_RECENT)
        return false;
    size_t lo = DV_KEEP_BINS, hi = 0;
    for (size_t i = 0; i < h->n_recent; i++) {
        size_t bin = bin_of_s(h->recent_s[i]);
        lo = bin < lo ? bin : lo;
        hi = bin > hi ? bin : hi;
    }
    uint32_t there = hi == DV_KEEP_BINS ? h->beyond : 0;
    for (size_t i = lo; i <= hi && i < DV_KEEP_BINS; i++)
        there += h->weight[i];
    return there * 4 < h->total;
}

void dv_keep_gap(struct dv_keep_history *h, uint64_t gap_ns)
{
    if (gap_ns < DV_KEEP_IGNORED_NS)
        return;
    uint64_t s = gap_ns / SECOND;
    remember(h, s < UINT32_MAX ? (uint32_t)s : UINT32_MAX);
    count(h, h->recent_s[h->n_recent - 1]);
    if (!is_new_pattern(h))
        return;
    struct dv_keep_history anew = {.n_recent = h->n_recent};
    memcpy(anew.recent_s, h->recent_s, sizeof(anew.recent_s));
    for (size_t i = 0; i < anew.n_recent; i++)
        count(&anew, anew.recent_s[i]);
    *h = anew;
}

/* ---- planning ---- */

static uint64_t less(uint64_t t, unsigned percent)
{
    return t - t / 100 * percent;
}

static uint64_t more(uint64_t t, unsigned percent)
{
    return t + t / 100 * percent;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct dv_keep_cfg with_defaults(const struct dv_keep_cfg *cfg, uint64_t idle_ns)
{
    struct dv_keep_cfg c = *cfg;
    c.floor_ns = min_u64(c.floor_ns ? c.floor_ns : 10 * SECOND, idle_ns);
    c.warm_max_ns = c.warm_max_ns ? c.warm_max_ns : 10 * MINUTE;
    c.min_gaps = c.min_gaps ? c.min_gaps : 4;
    c.own_start_max_ns = c.own_start_max_ns ? c.own_start_max_ns : SECOND / 4;
    return c;
}

static bool takes_place(const struct dv_keep_cfg *cfg, const struct dv_keep_fn *fn)
{
    return fn->has_place && fn->own_start_ns <= cfg->own_start_max_ns;
}

/* Something stands ready from then until then; nothing when that is no time at all. */
static void ready_ahead(struct dv_keep_plan *p, enum dv_keep_ahead what, uint64_t from_ns, uint64_t until_ns)
{
    if (from_ns >= until_ns)
        return;
    p->ahead = what;
    p->from_ns = from_ns;
    p->until_ns = until_ns;
}

static void by_histogram(const struct dv_keep_history *h, const struct dv_keep_cfg *cfg,
                         const struct dv_keep_fn *fn, struct dv_keep_plan *p)
{
    p->basis = DV_KEEP_HISTOGRAM;
    p->least_ns = edge(percentile(h, HEAD_PERMILLE));
    p->most_ns = edge(percentile(h, TAIL_PERMILLE) + 1);
    uint64_t head = less(p->least_ns, 10), tail = max_u64(more(p->most_ns, 10), cfg->floor_ns);
    bool are_alike = p->most_ns * 2 <= p->least_ns * 3;
    bool place = takes_place(cfg, fn);
    if (head >= cfg->floor_ns + MINUTE && (are_alike || h->seen >= ENOUGH_FOR_HEAD)) {
        p->idle_ns = cfg->floor_ns;
        p->by_the_clock = are_alike;
        ready_ahead(p, place ? DV_KEEP_PLACE : DV_KEEP_REPLICA, head, tail);
        return;
    }
    p->idle_ns = place ? min_u64(tail, max_u64(cfg->warm_max_ns, fn->idle_ns)) : tail;
    ready_ahead(p, DV_KEEP_PLACE, p->idle_ns, tail);
}

static bool by_forecast(const struct dv_keep_history *h, const struct dv_keep_cfg *cfg,
                        const struct dv_keep_fn *fn, struct dv_keep_plan *p)
{
    double n = 0, mean = 0, m2 = 0; /* Welford, of the long ones */
    for (size_t i = 0; i < h->n_recent; i++) {
        double s = h->recent_s[i];
        if (s * 1e9 < (double)DV_KEEP_RANGE_NS)
            continue;
        double d = s - mean;
        mean += d / ++n;
        m2 += d * (s - mean);
    }
    if (n < LONG_MIN || sqrt(m2 / n) > 0.15 * mean)
        return false;
    p->basis = DV_KEEP_FORECAST;
    p->by_the_clock = true;
    p->least_ns = p->most_ns = (uint64_t)mean * SECOND;
    ready_ahead(p, takes_place(cfg, fn) ? DV_KEEP_PLACE : DV_KEEP_REPLICA, less(p->least_ns, 15),
                more(p->most_ns, 15));
    return true;
}

void dv_keep_plan(const struct dv_keep_history *h, const struct dv_keep_cfg *cfg, const struct dv_keep_fn *fn,
                  struct dv_keep_plan *out)
{
    struct dv_keep_cfg c = with_defaults(cfg, fn->idle_ns);
    *out = (struct dv_keep_plan){.basis = fn->is_pinned     ? DV_KEEP_PINNED
                                          : c.is_fixed      ? DV_KEEP_OFF
                                          : fn->has_minimum ? DV_KEEP_MINIMUM
                                                            : DV_KEEP_THIN,
                                 .idle_ns = fn->idle_ns,
                                 .seen = h ? h->seen : 0};
    if (out->basis != DV_KEEP_THIN || out->seen < c.min_gaps)
        return;
    if (h->beyond * 2 > h->total) {
        if (!by_forecast(h, &c, fn, out))
            out->basis = DV_KEEP_PATTERNLESS;
    } else if (unevenness(h) >= 2 * 2) {
        by_histogram(h, &c, fn, out);
    } else {
        out->basis = DV_KEEP_PATTERNLESS;
        if (takes_place(&c, fn))
            ready_ahead(out, DV_KEEP_PLACE, out->idle_ns, DV_KEEP_RANGE_NS);
    }
}

/* ---- for people ---- */

const char *dv_keep_basis_name(enum dv_keep_basis b)
{
    static const char *const names[] = {"fixed",       "pinned",    "minimum", "thin",
                                        "patternless", "histogram", "forecast"};
    _Static_assert(DV_COUNT(names) == DV_KEEP_N_BASES, "every basis has its name");
    return (unsigned)b < DV_KEEP_N_BASES ? names[b] : "unknown";
}

const char *dv_keep_ahead_name(enum dv_keep_ahead a)
{
    static const char *const names[] = {"nothing", "primed", "replica"};
    return (unsigned)a < DV_COUNT(names) ? names[a] : "unknown";
}

/* To the second: what is shown is a habit, not a measurement. */
static const char *duration(uint64_t ns, char out[32])
{
    dv_format_duration((int64_t)((ns + SECOND / 2) / SECOND * 1000), out);
    return out;
}

static void explain_basis(const struct dv_keep_plan *p, char *out, size_t cap)
{
    char a[32], b[32];
    switch (p->basis) {
    case DV_KEEP_PINNED:
        (void)snprintf(out, cap, "as scale.idle says");
        break;
    case DV_KEEP_MINIMUM:
        (void)snprintf(out, cap, "then scale.min");
        break;
    case DV_KEEP_THIN:
        (void)snprintf(out, cap, "%u gaps seen, too few to know", (unsigned)p->seen);
        break;
    case DV_KEEP_PATTERNLESS:
        (void)snprintf(out, cap, "gaps without a pattern, %u seen", (unsigned)p->seen);
        break;
    case DV_KEEP_HISTOGRAM:
        (void)snprintf(out, cap, "gaps of %s to %s, %u seen", duration(p->least_ns, a),
                       duration(p->most_ns, b), (unsigned)p->seen);
        break;
    case DV_KEEP_FORECAST:
        (void)snprintf(out, cap, "comes every %s or so, %u gaps seen", duration(p->most_ns, a),
                       (unsigned)p->seen);
        break;
    case DV_KEEP_OFF:
    case DV_KEEP_N_BASES:
        (void)snprintf(out, cap, "fixed times");
        break;
    }
}

void dv_keep_explain(const struct dv_keep_plan *p, char *out, size_t cap)
{
    char basis[96], idle[32], from[32], until[32], ahead[128] = "";
    const char *what = p->ahead == DV_KEEP_PLACE ? "a primed sandbox" : "a replica";
    explain_basis(p, basis, sizeof(basis));
    if (p->ahead != DV_KEEP_NOTHING && p->from_ns == p->idle_ns)
        (void)snprintf(ahead, sizeof(ahead), ", then %s until %s", what, duration(p->until_ns, until));
    else if (p->ahead != DV_KEEP_NOTHING)
        (void)snprintf(ahead, sizeof(ahead), ", and %s from %s to %s", what, duration(p->from_ns, from),
                       duration(p->until_ns, until));
    (void)snprintf(out, cap, "kept %s%s: %s", duration(p->idle_ns, idle), ahead, basis);
}
