#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "orchestrator/core/keepalive.h"
#include "proto/base/auto.h"
#include "proto/base/rng.h"

#define S 1000000000ull
#define M (60 * S)
#define H (60 * M)

static const struct dv_keep_cfg cfg; /* the defaults */
static const struct dv_keep_fn small = {.idle_ns = M, .has_place = true};
static const struct dv_keep_fn big = {.idle_ns = M, .has_place = true, .own_start_ns = 2 * S};

static void gaps(struct dv_keep_history *h, uint64_t gap_ns, int n)
{
    for (int i = 0; i < n; i++)
        dv_keep_gap(h, gap_ns);
}

static struct dv_keep_plan plan(const struct dv_keep_history *h, const struct dv_keep_fn *fn)
{
    struct dv_keep_plan p;
    dv_keep_plan(h, &cfg, fn, &p);
    return p;
}

/* What a request after such a gap would find. */
static enum { REPLICA, SANDBOX, NOTHING } finds(const struct dv_keep_plan *p, uint64_t gap_ns)
{
    if (gap_ns < p->idle_ns)
        return REPLICA;
    if (p->ahead == DV_KEEP_NOTHING || gap_ns < p->from_ns || gap_ns >= p->until_ns)
        return NOTHING;
    return p->ahead == DV_KEEP_PLACE ? SANDBOX : REPLICA;
}

static void without_history_the_times_are_fixed(void **state)
{
    (void)state;
    struct dv_keep_plan p = plan(NULL, &small);
    assert_int_equal(p.basis, DV_KEEP_THIN);
    assert_int_equal(p.idle_ns, M);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
    struct dv_keep_history h = {0};
    gaps(&h, 20 * M, 3);
    assert_int_equal(plan(&h, &small).basis, DV_KEEP_THIN);
    gaps(&h, 20 * M, 1);
    assert_int_equal(plan(&h, &small).basis, DV_KEEP_HISTOGRAM);
}

static void what_the_user_gave_always_wins(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    gaps(&h, 20 * M, 100);
    struct dv_keep_fn fn = big;
    fn.is_pinned = true;
    fn.idle_ns = 7 * S;
    struct dv_keep_plan p = plan(&h, &fn);
    assert_int_equal(p.basis, DV_KEEP_PINNED);
    assert_int_equal(p.idle_ns, 7 * S);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
    fn.is_pinned = false;
    fn.has_minimum = true;
    p = plan(&h, &fn);
    assert_int_equal(p.basis, DV_KEEP_MINIMUM);
    assert_int_equal(p.idle_ns, 7 * S);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
    dv_keep_plan(&h, &(struct dv_keep_cfg){.is_fixed = true}, &big, &p);
    assert_int_equal(p.basis, DV_KEEP_OFF);
    assert_int_equal(p.idle_ns, M);
}

static void a_timer_is_stopped_at_once_and_made_ready_before_its_time(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    gaps(&h, 30 * M + 20 * S, 12);
    struct dv_keep_plan p = plan(&h, &big);
    assert_int_equal(p.basis, DV_KEEP_HISTOGRAM);
    assert_int_equal(p.ahead, DV_KEEP_REPLICA);
    assert_true(p.by_the_clock);
    assert_int_equal(p.idle_ns, 10 * S);
    assert_int_equal(p.from_ns, 27 * M);
    assert_int_equal(p.until_ns, 31 * M + 31 * M / 10);
    assert_int_equal(finds(&p, 30 * M + 20 * S), REPLICA);
    assert_int_equal(finds(&p, 20 * M), NOTHING);
    char text[200];
    dv_keep_explain(&p, text, sizeof(text));
    assert_string_equal(text, "kept 10s, and a replica from 27m to 34m6s: gaps of 30m to 31m, 12 seen");
    p = plan(&h, &small); /* its own start is short: a place in a pool does */
    assert_int_equal(p.ahead, DV_KEEP_PLACE);
    assert_int_equal(p.from_ns, 27 * M);
}

static void a_timer_of_a_minute_stays_warm(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    for (int i = 0; i < 40; i++)
        dv_keep_gap(&h, 59 * S + (uint64_t)i % 3 * S / 2);
    struct dv_keep_plan p = plan(&h, &small);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
    assert_true(p.idle_ns > 61 * S && p.idle_ns < 3 * M);
}

static void irregular_gaps_are_waited_for_to_their_99th_percentile(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    for (uint64_t i = 0; i < 43; i++)
        dv_keep_gap(&h, M + (i * 7 % 20) * M); /* 1 to 20 minutes */
    struct dv_keep_plan p = plan(&h, &big);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
    assert_int_equal(p.idle_ns, 21 * M + 21 * M / 10);
    char text[200];
    dv_keep_explain(&p, text, sizeof(text));
    assert_string_equal(text, "kept 23m6s: gaps of 1m to 21m, 43 seen");
    p = plan(&h, &small); /* a sandbox waits in place of the replica */
    assert_int_equal(p.idle_ns, 10 * M);
    assert_int_equal(p.ahead, DV_KEEP_PLACE);
    assert_int_equal(p.from_ns, 10 * M);
    assert_int_equal(p.until_ns, 21 * M + 21 * M / 10);
    dv_keep_explain(&p, text, sizeof(text));
    assert_string_equal(text, "kept 10m, then a primed sandbox until 23m6s: gaps of 1m to 21m, 43 seen");
}

static void gaps_all_over_the_range_are_no_pattern(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    struct dv_rng rng;
    dv_rng_init(&rng, 4);
    for (int i = 0; i < 400; i++)
        dv_keep_gap(&h, 10 * S + dv_rng_below(&rng, DV_KEEP_RANGE_NS - 11 * S));
    struct dv_keep_plan p = plan(&h, &big);
    assert_int_equal(p.basis, DV_KEEP_PATTERNLESS);
    assert_int_equal(p.idle_ns, M);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
    p = plan(&h, &small);
    assert_int_equal(p.ahead, DV_KEEP_PLACE); /* which is cheap */
    assert_int_equal(p.until_ns, DV_KEEP_RANGE_NS);
}

static void a_single_long_gap_does_not_keep_a_busy_function_for_hours(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    gaps(&h, 90 * S, 120);
    gaps(&h, 3 * H, 1);
    gaps(&h, 90 * S, 20);
    struct dv_keep_plan p = plan(&h, &big);
    assert_int_equal(p.basis, DV_KEEP_HISTOGRAM);
    assert_true(p.idle_ns < 3 * M);
}

static void long_regular_gaps_are_forecast(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    for (int i = 0; i < 6; i++)
        dv_keep_gap(&h, 24 * H + (uint64_t)i % 2 * 10 * M);
    struct dv_keep_plan p = plan(&h, &big);
    assert_int_equal(p.basis, DV_KEEP_FORECAST);
    assert_int_equal(p.ahead, DV_KEEP_REPLICA);
    assert_int_equal(p.idle_ns, M);
    assert_true(p.from_ns > 20 * H && p.from_ns < 21 * H);
    assert_true(p.until_ns > 27 * H && p.until_ns < 28 * H);
    for (int i = 0; i < 8; i++)
        dv_keep_gap(&h, i % 2 ? 5 * H : 90 * H);
    p = plan(&h, &big);
    assert_int_equal(p.basis, DV_KEEP_PATTERNLESS);
    assert_int_equal(p.ahead, DV_KEEP_NOTHING);
}

static void short_gaps_are_not_counted(void **state)
{
    (void)state;
    struct dv_keep_history h = {0};
    for (int i = 0; i < 20; i++) {
        gaps(&h, 2 * S, 1000);
        gaps(&h, 15 * M, 1);
    }
    assert_int_equal(h.seen, 20);
    assert_true(plan(&h, &big).until_ns > 15 * M);
}

static void a_changed_pattern_is_learned_within_eight_gaps(void **state)
{
    (void)state;
    static const uint64_t periods[] = {2 * M, 30 * M, 5 * M, 12 * H, 10 * M, 3 * H};
    struct dv_keep_history h = {0};
    for (size_t i = 0; i < DV_COUNT(periods); i++) {
        gaps(&h, periods[i], 8);
        struct dv_keep_plan p = plan(&h, &big);
        assert_int_equal(finds(&p, periods[i]), REPLICA);
        assert_true(p.until_ns == 0 || p.until_ns < periods[i] * 13 / 10 + M);
        assert_true(p.idle_ns < periods[i] * 2);
        gaps(&h, periods[i], 300);
    }
}

/* Of whatever shape the gaps are, at least nine of ten find something where a plan was made of a history; and
 * all times are within their bounds. */
static void plans_cover_what_they_were_made_of_and_stay_within_bounds(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct dv_rng rng;
        dv_rng_init(&rng, seed);
        struct dv_keep_history h = {0};
        struct dv_keep_fn fn = {.idle_ns = (1 + dv_rng_below(&rng, 300)) * S,
                                .has_place = seed % 2,
                                .own_start_ns = dv_rng_below(&rng, 2) * S};
        double log_mean = 3 + 6 * dv_rng_unit(&rng), sigma = 0.02 + dv_rng_unit(&rng);
        int covered = 0, n = 0;
        for (int i = 0; i < 600; i++) {
            double z = 0; /* near enough to normal */
            for (int k = 0; k < 12; k++)
                z += dv_rng_unit(&rng);
            uint64_t gap = (uint64_t)(exp(log_mean + sigma * (z - 6)) * 1e9);
            struct dv_keep_plan p = plan(&h, &fn);
            assert_true(p.idle_ns >= (fn.idle_ns < 10 * S ? fn.idle_ns : 10 * S));
            assert_true(p.idle_ns <= DV_KEEP_RANGE_NS + DV_KEEP_RANGE_NS / 10);
            assert_true((p.ahead == DV_KEEP_NOTHING) == (p.until_ns == 0));
            assert_true(p.ahead == DV_KEEP_NOTHING || (p.from_ns >= p.idle_ns && p.from_ns < p.until_ns));
            assert_true(p.ahead != DV_KEEP_PLACE || (fn.has_place && fn.own_start_ns == 0));
            if (i >= 100 && p.basis == DV_KEEP_HISTOGRAM && gap >= 10 * S && gap < DV_KEEP_RANGE_NS) {
                n++;
                covered += finds(&p, gap) != NOTHING;
            }
            dv_keep_gap(&h, gap);
        }
        if (n > 100 && covered * 10 < n * 9)
            fail_msg("seed %llu: %d of %d found something", (unsigned long long)seed, covered, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_history_the_times_are_fixed),
        cmocka_unit_test(what_the_user_gave_always_wins),
        cmocka_unit_test(a_timer_is_stopped_at_once_and_made_ready_before_its_time),
        cmocka_unit_test(a_timer_of_a_minute_stays_warm),
        cmocka_unit_test(irregular_gaps_are_waited_for_to_their_99th_percentile),
        cmocka_unit_test(gaps_all_over_the_range_are_no_pattern),
        cmocka_unit_test(a_single_long_gap_does_not_keep_a_busy_function_for_hours),
        cmocka_unit_test(long_regular_gaps_are_forecast),
        cmocka_unit_test(short_gaps_are_not_counted),
        cmocka_unit_test(a_changed_pattern_is_learned_within_eight_gaps),
        cmocka_unit_test(plans_cover_what_they_were_made_of_and_stay_within_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
