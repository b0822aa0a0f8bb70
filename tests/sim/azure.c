/* Functions drawn from the distributions that were published with the Azure Functions 2019 trace (M. Shahrad
 * et al., "Serverless in the Wild", USENIX ATC 2020; data CC-BY).
 *
 *   requests a day   the cumulative distribution of figure 5a, read off at 26 points, linear in the exponent
 * between duration         log-normal, log-mean -0.38, sigma 2.36 (figure 7) memory           Burr XII,
 * c 11.652, k 0.221, lambda 107.083 (figure 8) triggers         15.6 % timers: those that fall on a step of
 * the rate's distribution (every minute, five minutes, hour), and some of the others, moved to the nearest
 * usual period regularity       of the others, gaps with a coefficient of variation of 1 (Poisson) or more:
 * 40 % of functions above 1, 28 % above 2, 15 % above 4, 6 % above 10 (figure 6), by being on and off: with m
 *                    requests in a burst and on for a share p of the time, CV^2 = 1 + 2 m (1-p)^2
 *   time of day      from half the peak to the peak
 *
 * tests/sim/test_azure.c compares what comes out with the published curves. */
#include "tests/sim/load.h"

#include <math.h>

static const struct {
    double x, u; /* log10 of requests a day, share of functions at or below */
} rate_points[] = {{-1.15, 0},   {-1.149, .07}, {-.6, .15},   {-.001, .27},  {0, .34},     {.3, .42},
                   {.7, .50},    {1, .555},     {1.38, .62},  {1.381, .64},  {1.68, .685}, {1.98, .735},
                   {2.458, .79}, {2.46, .83},   {3.157, .90}, {3.159, .925}, {4, .968},    {4.6, .985},
                   {5, .9905},   {5.5, .9960},  {6, .9988},   {6.5, .99970}, {7, .99993},  {7.5, .999985},
                   {8, .999998}, {8.2, 1}};

static double interpolate(double u)
{
    size_t i = 1;
    while (i + 1 < DV_COUNT(rate_points) && rate_points[i].u < u)
        i++;
    double share = (u - rate_points[i - 1].u) / (rate_points[i].u - rate_points[i - 1].u);
    return rate_points[i - 1].x + share * (rate_points[i].x - rate_points[i - 1].x);
}

double sim_azure_rate(double u)
{
    return pow(10, interpolate(u));
}

double sim_azure_memory_mb(double u)
{
    return 107.083 * pow(pow(1 - u, -1 / 0.221) - 1, 1 / 11.652);
}

static const double usual_s[] = {60, 300, 900, 1800, 3600, 86400};

static double nearest_period(double period_s)
{
    double best = usual_s[0];
    for (size_t i = 1; i < DV_COUNT(usual_s); i++)
        if (fabs(log(usual_s[i] / period_s)) < fabs(log(best / period_s)))
            best = usual_s[i];
    /* what fires far more often, or far more rarely, keeps its own */
    return fabs(log(best / period_s)) < log(2.5) ? best : period_s;
}

static bool is_step(double per_day)
{
    double x = log10(per_day);
    return (x > 1.38 && x < 1.381) || (x > 2.458 && x < 2.46) || (x > 3.157 && x < 3.159);
}

static double cv_of(double u) /* among functions that are no timers: of all, 40 % lie above 1 */
{
    static const double cv[] = {1, 2, 4, 10, 30}, share[] = {.60, .72, .85, .94, 1.0};
    double of_all = 0.156 + u * (1 - 0.156);
    if (of_all <= share[0])
        return 1;
    size_t i = 1;
    while (share[i] < of_all)
        i++;
    double part = (of_all - share[i - 1]) / (share[i] - share[i - 1]);
    return cv[i - 1] * pow(cv[i] / cv[i - 1], part);
}

static double normal(struct dv_rng *rng)
{
    return sqrt(-2 * log(1 - dv_rng_unit(rng))) * cos(6.283185307179586 * dv_rng_unit(rng));
}

void sim_azure_draw(struct dv_rng *rng, struct sim_azure_draw *out)
{
    out->per_day = sim_azure_rate(dv_rng_unit(rng));
    out->mean_s = exp(-0.38 + 2.36 * normal(rng));
    out->memory_mb = sim_azure_memory_mb(dv_rng_unit(rng));
    double u = dv_rng_unit(rng);
    out->is_timer = is_step(out->per_day) || u < 0.078;
    out->period_s = out->is_timer ? nearest_period(SIM_DAY_S / out->per_day) : 0;
    out->cv = out->is_timer ? 0 : cv_of(dv_rng_unit(rng));
}

static void arrivals_of(const struct sim_azure_draw *d, struct dv_rng *rng, struct sim_arrivals *a)
{
    if (d->is_timer) {
        *a = (struct sim_arrivals){.kind = SIM_PERIODIC, .period_ns = (uint64_t)(d->period_s * 1e9)};
        a->phase_ns = (uint64_t)(dv_rng_unit(rng) * (double)a->period_ns);
        return;
    }
    double rate_s = d->per_day / SIM_DAY_S, on_share = 0.1;
    *a = (struct sim_arrivals){.kind = SIM_STREAM, .rate_s = rate_s, .has_day = true};
    if (d->cv <= 1)
        return;
    double in_burst = (d->cv * d->cv - 1) / (2 * (1 - on_share) * (1 - on_share));
    a->rate_s = rate_s / on_share;
    a->on_s = in_burst / a->rate_s;
    a->off_s = a->on_s * (1 - on_share) / on_share;
}

void sim_image(struct sim_fn *f, int i)
{
    f->image_no = i % SIM_IMAGES_MAX;
    (void)snprintf(f->image, sizeof(f->image), "runtime-%d", f->image_no);
}

void sim_azure_load(struct sim *s, const struct sim_azure *p)
{
    struct dv_rng rng;
    dv_rng_init(&rng, s->cfg.seed * 7919 + 17);
    for (size_t i = 0; i < p->n_fns; i++) {
        struct sim_azure_draw d;
        char name[32];
        sim_azure_draw(&rng, &d);
        if (p->clip_per_day > 0 && d.per_day > p->clip_per_day) {
            d.per_day = p->clip_per_day;
            d.period_s = SIM_DAY_S / d.per_day;
        }
        (void)snprintf(name, sizeof(name), "f%zu", i);
        struct sim_fn *f = sim_fn_add(s, name, "");
        sim_image(f, (int)dv_rng_below(&rng, (uint64_t)p->n_images));
        f->mean_s = d.mean_s < 0.001 ? 0.001 : d.mean_s > p->longest_s ? p->longest_s : d.mean_s;
        f->spread = 0.3;
        double mb = d.memory_mb > 4096 ? 4096 : d.memory_mb;
        f->def.spec.requests.memory_bytes = (int64_t)(mb * 1e6);
        f->def.spec.scale.concurrency = p->concurrency;
        f->def.spec.scale.target = p->concurrency * 7 / 10 > 0 ? p->concurrency * 7 / 10 : 1;
        arrivals_of(&d, &rng, &f->arrivals);
        sim_fn_begin(s, f);
    }
}
