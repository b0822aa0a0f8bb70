/* What is drawn, beside the published curves. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/alloc.h"
#include "tests/sim/load.h"

enum { N = 640000 };

struct draws {
    double *rate, *seconds, *mb;
    size_t n_timers, above_1, above_2, above_4, above_10;
};

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static int draw_all(void **state)
{
    struct draws *d = dv_zalloc(sizeof(*d));
    struct dv_rng rng;
    dv_rng_init(&rng, 7);
    d->rate = dv_zalloc(N * sizeof(double));
    d->seconds = dv_zalloc(N * sizeof(double));
    d->mb = dv_zalloc(N * sizeof(double));
    for (size_t i = 0; i < N; i++) {
        struct sim_azure_draw x;
        sim_azure_draw(&rng, &x);
        d->rate[i] = x.per_day;
        d->seconds[i] = x.mean_s;
        d->mb[i] = x.memory_mb;
        d->n_timers += x.is_timer;
        d->above_1 += x.cv > 1;
        d->above_2 += x.cv > 2;
        d->above_4 += x.cv > 4;
        d->above_10 += x.cv > 10;
    }
    qsort(d->rate, N, sizeof(double), ascending);
    qsort(d->seconds, N, sizeof(double), ascending);
    qsort(d->mb, N, sizeof(double), ascending);
    *state = d;
    return 0;
}

static int free_all(void **state)
{
    struct draws *d = *state;
    dv_free(d->rate);
    dv_free(d->seconds);
    dv_free(d->mb);
    dv_free(d);
    return 0;
}

static void near_to(double got, double published, double tolerance)
{
    if (fabs(got - published) > tolerance)
        fail_msg("%g drawn, %g published", got, published);
}

static double share_up_to(const double *sorted, double value)
{
    size_t n = 0;
    while (n < N && sorted[n] <= value)
        n++;
    return (double)n / N;
}

static double top_share(const double *sorted, double share)
{
    double all = 0, top = 0;
    size_t from = N - (size_t)(share * N + 0.5);
    for (size_t i = 0; i < N; i++) {
        all += sorted[i];
        top += i >= from ? sorted[i] : 0;
    }
    return top / all;
}

static void requests_a_day_follow_figure_5a(void **state)
{
    const struct draws *d = *state;
    near_to(share_up_to(d->rate, 1), .34, .01);
    near_to(share_up_to(d->rate, 2), .42, .01);
    near_to(share_up_to(d->rate, 5), .50, .01);
    near_to(share_up_to(d->rate, 24.1), .64, .01); /* at most hourly */
    near_to(share_up_to(d->rate, 96), .735, .01);
    near_to(share_up_to(d->rate, 1443), .925, .01); /* at most every minute */
    near_to(share_up_to(d->rate, 1e4), .968, .005);
    near_to(share_up_to(d->rate, 1e5), .99, .003);
}

static void a_few_functions_have_nearly_all_requests_as_in_figure_5b(void **state)
{
    const struct draws *d = *state;
    near_to(top_share(d->rate, 0.00001), .12, .04); /* six or seven functions */
    near_to(top_share(d->rate, 0.0001), .30, .05);
    near_to(top_share(d->rate, 0.001), .64, .09); /* the recipe gives .55 to .60 */
    near_to(top_share(d->rate, 0.01), .91, .02);
    near_to(top_share(d->rate, 0.10), .993, .003);
}

static void durations_and_memory_follow_the_published_fits(void **state)
{
    const struct draws *d = *state;
    near_to(d->seconds[N / 100] / .003, 1, .2);
    near_to(d->seconds[N / 10] / .032, 1, .1);
    near_to(d->seconds[N / 2] / .68, 1, .05);
    near_to(d->seconds[N * 9 / 10] / 14, 1, .1);
    near_to(d->mb[N / 10], 102, 2);
    near_to(d->mb[N / 2], 140, 2);
    near_to(d->mb[N * 9 / 10], 261, 6);
    near_to(d->mb[N * 99 / 100], 645, 30);
}

static void timers_and_the_regularity_of_the_others_have_their_published_shares(void **state)
{
    const struct draws *d = *state;
    near_to((double)d->n_timers / N, .156, .005);
    near_to((double)d->above_1 / N, .40, .01);
    near_to((double)d->above_2 / N, .28, .01);
    near_to((double)d->above_4 / N, .15, .01);
    near_to((double)d->above_10 / N, .06, .01);
}

/* ---- streams ---- */

struct gaps {
    double mean, cv;
    size_t n;
};

static struct gaps gaps_of(struct sim_arrivals *a, uint64_t seed, double seconds)
{
    struct dv_rng rng;
    dv_rng_init(&rng, seed);
    double sum = 0, squares = 0;
    size_t n = 0;
    uint64_t last = SIM_BEGIN;
    while (last < SIM_BEGIN + (uint64_t)(seconds * 1e9)) {
        uint64_t t = sim_arrivals_next(a, last, &rng);
        assert_true(t >= last);
        double gap = (double)(t - last) / 1e9;
        sum += gap;
        squares += gap * gap;
        n++;
        last = t;
    }
    double mean = sum / (double)n;
    return (struct gaps){mean, sqrt(squares / (double)n - mean * mean) / mean, n};
}

static void a_stream_has_the_rate_and_the_irregularity_that_were_asked_for(void **state)
{
    (void)state;
    struct sim_arrivals poisson = {.kind = SIM_STREAM, .rate_s = 1},
                        timer = {.kind = SIM_PERIODIC, .period_ns = 60 * SIM_S};
    struct gaps g = gaps_of(&poisson, 1, 1e6);
    near_to(g.mean, 1, .02);
    near_to(g.cv, 1, .02);
    g = gaps_of(&timer, 1, 1e6);
    near_to(g.mean, 60, .01);
    near_to(g.cv, 0, .01);
    double m = (16.0 - 1) / (2 * .9 * .9); /* on a tenth of the time: a coefficient of 4 */
    struct sim_arrivals bursts = {.kind = SIM_STREAM, .rate_s = 10, .on_s = m / 10, .off_s = 9 * m / 10};
    g = gaps_of(&bursts, 1, 1e6);
    near_to(g.mean, 1, .05);
    near_to(g.cv, 4, .2);
}

static void by_day_there_is_twice_the_load_of_the_night(void **state)
{
    (void)state;
    struct sim_arrivals a = {.kind = SIM_STREAM, .rate_s = 1, .has_day = true};
    struct dv_rng rng;
    dv_rng_init(&rng, 5);
    size_t by_day = 0, by_night = 0, n = 0;
    for (uint64_t t = SIM_BEGIN; t < SIM_BEGIN + 10 * 86400 * SIM_S; n++) {
        t = sim_arrivals_next(&a, t, &rng);
        double hour = fmod((double)(t - SIM_BEGIN) / 3.6e12, 24);
        by_day += hour >= 5 && hour < 7;
        by_night += hour >= 17 && hour < 19;
    }
    near_to((double)by_day / (double)by_night, 2, .1);
    near_to((double)n / 864000, 1, .01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_a_day_follow_figure_5a),
        cmocka_unit_test(a_few_functions_have_nearly_all_requests_as_in_figure_5b),
        cmocka_unit_test(durations_and_memory_follow_the_published_fits),
        cmocka_unit_test(timers_and_the_regularity_of_the_others_have_their_published_shares),
        cmocka_unit_test(a_stream_has_the_rate_and_the_irregularity_that_were_asked_for),
        cmocka_unit_test(by_day_there_is_twice_the_load_of_the_night),
    };
    return cmocka_run_group_tests(tests, draw_all, free_all);
}
