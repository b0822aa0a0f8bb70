#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/signals.h"
#include "proto/base/rng.h"
#include "proto/base/str.h"

#define MS 1000000ull
#define S  1000000000ull

/* ---------------------------------------------------------------- use of processors and memory */

static void a_rate_is_told_by_two_reports_and_forgotten_with_time(void **state)
{
    (void)state;
    struct dv_usage u = {0};
    dv_usage_note(&u, 1000000, 4 << 20, 100 * S);
    assert_false(dv_usage_has_cpu(&u, 100 * S));
    assert_true(dv_usage_has_memory(&u, 100 * S));
    dv_usage_note(&u, 1100000, 4 << 20, 100 * S + 500 * MS); /* too close */
    assert_false(dv_usage_has_cpu(&u, 101 * S));
    dv_usage_note(&u, 2000000, 4 << 20, 105 * S);
    assert_true(dv_usage_has_cpu(&u, 105 * S));
    assert_float_equal(u.cpu_mcpu, 200, 1e-3); /* one second of processor in five */
    assert_true(dv_usage_has_cpu(&u, 121 * S));
    assert_false(dv_usage_has_cpu(&u, 122 * S));
    assert_false(dv_usage_has_memory(&u, 122 * S));
}

static void counters_that_begin_anew_and_long_silences_tell_no_rate(void **state)
{
    (void)state;
    struct dv_usage u = {0};
    dv_usage_note(&u, 9000000, 1 << 20, 100 * S);
    dv_usage_note(&u, 9500000, 1 << 20, 105 * S);
    dv_usage_note(&u, 100, 1 << 20, 110 * S);
    assert_false(dv_usage_has_cpu(&u, 110 * S));
    dv_usage_note(&u, 5000100, 1 << 20, 115 * S);
    assert_float_equal(u.cpu_mcpu, 1000, 1e-3);
    dv_usage_note(&u, 6000100, 1 << 20, 600 * S);
    assert_false(dv_usage_has_cpu(&u, 600 * S));
    dv_usage_note(&u, 0, 0, 605 * S); /* an agent that does not know says nothing */
    assert_int_equal(u.cpu_us, 6000100);
}

static int64_t level(int64_t known, int64_t missing, int64_t starting, double mean)
{
    struct dv_level l = {known, missing, starting, mean * (double)known};
    int64_t n = -1;
    return dv_level_replicas(&l, &n) ? n : -1;
}

static void replicas_bring_the_mean_to_the_target(void **state)
{
    (void)state;
    assert_int_equal(level(4, 0, 0, 1.0), 4);
    assert_int_equal(level(4, 0, 0, 1.09), 4); /* within a tenth */
    assert_int_equal(level(4, 0, 0, 0.91), 4);
    assert_int_equal(level(4, 0, 0, 1.5), 6);
    assert_int_equal(level(4, 0, 0, 0.5), 2);
    assert_int_equal(level(4, 0, 0, 0), 0);
    assert_int_equal(level(1, 0, 0, 3.2), 4);
}

static void missing_measures_count_as_idle_upwards_and_as_just_right_downwards(void **state)
{
    (void)state;
    assert_int_equal(level(0, 4, 0, 0), -1);
    assert_int_equal(level(2, 2, 0, 1.5), 4); /* three replicas' worth: four will do */
    assert_int_equal(level(2, 2, 0, 3), 6);
    assert_int_equal(level(2, 0, 2, 1.5), 4); /* those starting will take their share */
    assert_int_equal(level(2, 2, 0, 0.2), 3);
    assert_int_equal(level(1, 7, 0, 0.5), 8); /* one of eight says little */
}

static void more_use_never_means_fewer_and_silence_never_fewer_than_there_are(void **state)
{
    (void)state;
    struct dv_rng r;
    dv_rng_init(&r, 11);
    for (int i = 0; i < 20000; i++) {
        int64_t known = 1 + (int64_t)dv_rng_below(&r, 30), missing = (int64_t)dv_rng_below(&r, 5),
                starting = (int64_t)dv_rng_below(&r, 5);
        double low = dv_rng_unit(&r) * 4, high = low + dv_rng_unit(&r);
        int64_t a = level(known, missing, starting, low), b = level(known, missing, starting, high);
        assert_true(b >= a);
        /* what is missing keeps its own number at the least */
        assert_true(a >= missing);
        if (missing > 0)
            assert_true(level(known, missing, 0, low) >= level(known, 0, 0, low) || low > 1);
    }
}

static void use_is_told_in_percent_and_names_what_is_not_known(void **state)
{
    (void)state;
    char text[DV_ASK_TEXT];
    struct dv_scale_ask a;
    struct dv_level l = {2, 0, 0, 3.0};
    dv_signal_usage(DV_SIG_CPU, &l, 60, text, &a);
    assert_int_equal(a.replicas, 3);
    assert_true(a.is_active && !a.is_hold);
    assert_string_equal(a.text, "cpu at 90 %, target 60 %");
    l = (struct dv_level){0, 2, 0, 0};
    dv_signal_usage(DV_SIG_MEMORY, &l, 80, text, &a);
    assert_true(a.is_hold && !a.is_active && !a.keeps_awake);
    assert_non_null(strstr(a.text, "memory of its replicas is not known"));
    l = (struct dv_level){1, 0, 0, 1.0};
    dv_signal_usage(DV_SIG_MEMORY, &l, 80, text, &a);
    assert_false(a.is_active); /* a full memory does not keep a function from sleeping */
}

/* ---------------------------------------------------------------- backlog */

static int64_t backlog(uint64_t items, uint64_t parallel, int64_t concurrency, double service_s)
{
    struct dv_scale_policy p = {.concurrency = concurrency, .drain_ns = 500 * MS};
    struct dv_backlog b = {items, parallel};
    char text[DV_ASK_TEXT];
    struct dv_scale_ask a;
    dv_signal_backlog(&b, &p, service_s, text, &a);
    assert_true(a.is_active == (items > 0));
    return a.replicas;
}

static void a_backlog_asks_for_what_works_it_off_and_can_be_handed_out(void **state)
{
    (void)state;
    assert_int_equal(backlog(0, 64, 1, 0.1), 0);
    assert_int_equal(backlog(3, 64, 1, 0), 3);
    assert_int_equal(backlog(100, 64, 1, 0.1), 20);   /* ten seconds of work in half a second */
    assert_int_equal(backlog(10000, 64, 1, 0.1), 64); /* more are not handed out */
    assert_int_equal(backlog(10000, 64, 16, 0.1), 4);
    assert_int_equal(backlog(10, 64, 1, 20), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_is_told_by_two_reports_and_forgotten_with_time),
        cmocka_unit_test(counters_that_begin_anew_and_long_silences_tell_no_rate),
        cmocka_unit_test(replicas_bring_the_mean_to_the_target),
        cmocka_unit_test(missing_measures_count_as_idle_upwards_and_as_just_right_downwards),
        cmocka_unit_test(more_use_never_means_fewer_and_silence_never_fewer_than_there_are),
        cmocka_unit_test(use_is_told_in_percent_and_names_what_is_not_known),
        cmocka_unit_test(a_backlog_asks_for_what_works_it_off_and_can_be_handed_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
