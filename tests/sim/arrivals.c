/* One function's stream of requests. */
#include "tests/sim/sim.h"

#include <math.h>
#include "proto/base/alloc.h"

static double exponential(struct dv_rng *rng, double mean)
{
    return -log(1 - dv_rng_unit(rng)) * mean;
}

static uint64_t ns_of(double seconds)
{
    return seconds < 1e9 ? (uint64_t)(seconds * 1e9) : (uint64_t)1e18;
}

/* From half the peak at night to the peak by day; 1 on average. */
static double day_factor(const struct sim_arrivals *a, double t_s)
{
    return a->has_day ? 1 + sin(6.283185307179586 * (t_s / SIM_DAY_S + a->day_phase)) / 3 : 1;
}

static uint64_t next_stream(struct sim_arrivals *a, uint64_t after_ns, struct dv_rng *rng)
{
    if (a->rate_s <= 0)
        return UINT64_MAX;
    double bound = a->rate_s * (a->has_day ? 4.0 / 3 : 1);
    uint64_t t = after_ns, last = after_ns + (uint64_t)1e17;
    if (a->off_s > 0 && !a->turn_ns) {
        a->is_on = dv_rng_unit(rng) < a->on_s / (a->on_s + a->off_s);
        a->turn_ns = t + ns_of(exponential(rng, a->is_on ? a->on_s : a->off_s));
    }
    while (t < last) {
        bool is_off = a->off_s > 0 && !a->is_on;
        uint64_t at = is_off ? UINT64_MAX : t + ns_of(exponential(rng, 1 / bound));
        if (a->off_s > 0 && at >= a->turn_ns) {
            t = a->turn_ns;
            a->is_on = !a->is_on;
            a->turn_ns = t + ns_of(exponential(rng, a->is_on ? a->on_s : a->off_s));
            continue;
        }
        t = at;
        if (dv_rng_unit(rng) * bound <= a->rate_s * day_factor(a, (double)(t - SIM_BEGIN) / 1e9))
            return t;
    }
    return UINT64_MAX;
}

static uint64_t next_periodic(const struct sim_arrivals *a, uint64_t after_ns)
{
    uint64_t since =
        after_ns < SIM_BEGIN + a->phase_ns ? 0 : (after_ns - SIM_BEGIN - a->phase_ns) / a->period_ns + 1;
    return SIM_BEGIN + a->phase_ns + since * a->period_ns;
}

static int by_time(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return a < b ? -1 : a > b;
}

/* A minute's requests, anywhere in it. */
static void fill_minute(struct sim_arrivals *a, struct dv_rng *rng)
{
    struct sim_minute m = a->minutes[a->next_minute++];
    if (m.n > a->cap_times) {
        a->times_ns = dv_realloc(a->times_ns, m.n * sizeof(*a->times_ns));
        if (!a->times_ns)
            abort();
        a->cap_times = m.n;
    }
    for (uint32_t i = 0; i < m.n; i++)
        a->times_ns[i] = m.minute * 60 * SIM_S + (uint64_t)(dv_rng_unit(rng) * 60e9);
    qsort(a->times_ns, m.n, sizeof(*a->times_ns), by_time);
    a->n_times = m.n;
    a->next_time = 0;
}

static uint64_t next_listed(struct sim_arrivals *a, struct dv_rng *rng)
{
    while (a->next_time >= a->n_times && a->next_minute < a->n_minutes)
        fill_minute(a, rng);
    return a->next_time < a->n_times ? SIM_BEGIN + a->times_ns[a->next_time++] : UINT64_MAX;
}

static uint64_t next_profiled(const struct sim_arrivals *a, uint64_t after_ns, struct dv_rng *rng)
{
    double t = (double)(after_ns - SIM_BEGIN) / 1e9, bound = a->peak_s, last = t + 7 * SIM_DAY_S;
    while (bound > 0 && t < last) {
        t += exponential(rng, 1 / bound);
        if (dv_rng_unit(rng) < a->profile(t + a->shift_s))
            return SIM_BEGIN + ns_of(t);
    }
    return UINT64_MAX;
}

uint64_t sim_arrivals_next(struct sim_arrivals *a, uint64_t after_ns, struct dv_rng *rng)
{
    switch (a->kind) {
    case SIM_STREAM:
        return next_stream(a, after_ns, rng);
    case SIM_PERIODIC:
        return next_periodic(a, after_ns);
    case SIM_LIST:
        return next_listed(a, rng);
    case SIM_PROFILE:
        return next_profiled(a, after_ns, rng);
    }
    return UINT64_MAX;
}

void sim_arrivals_deinit(struct sim_arrivals *a)
{
    dv_free(a->times_ns);
    dv_free(a->durations_s);
    dv_free(a->minutes);
}
