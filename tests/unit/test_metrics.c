#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>

#include "proto/rt/metrics.h"

static void samples_have_help_type_and_escaped_labels(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    const struct dv_label labels[] = {{"fn", DV_SV("a\"b\\c\nd")}, {"ns", DV_SV("default")}};
    assert_int_equal(dv_metric_head(&b, "davit_x_total", DV_METRIC_COUNTER, "Lines\nand \\ \"quotes\"."),
                     DV_OK);
    assert_int_equal(dv_metric_u64(&b, "davit_x_total", labels, 2, UINT64_MAX), DV_OK);
    assert_int_equal(dv_metric_u64(&b, "davit_x_total", NULL, 0, 0), DV_OK);
    assert_string_equal(dv_buf_cstr(&b),
                        "# HELP davit_x_total Lines\\nand \\\\ \"quotes\".\n"
                        "# TYPE davit_x_total counter\n"
                        "davit_x_total{fn=\"a\\\"b\\\\c\\nd\",ns=\"default\"} 18446744073709551615\n"
                        "davit_x_total 0\n");
}

static void numbers_are_written_as_prometheus_reads_them(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    static const double v[] = {0.25, -3, 1e21, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < DV_COUNT(v); i++)
        assert_int_equal(dv_metric_double(&b, "m", NULL, 0, v[i]), DV_OK);
    assert_string_equal(dv_buf_cstr(&b), "m 0.25\nm -3\nm 1e+21\nm +Inf\nm -Inf\nm NaN\n");
}

static void histogram_buckets_are_cumulative_and_include_their_bound(void **state)
{
    (void)state;
    static const double upper[] = {0.1, 1};
    const struct dv_hist_bounds bounds = {upper, 2};
    struct dv_hist h = {0}, sum = {0};
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    static const double seen[] = {-1, 0.1, 0.5, 1, 7};
    for (size_t i = 0; i < DV_COUNT(seen); i++)
        dv_hist_add(&h, &bounds, seen[i]);
    dv_hist_merge(&sum, &h);
    dv_hist_merge(&sum, &h);
    const struct dv_label label = {"fn", DV_SV("x")};
    assert_int_equal(dv_metric_hist(&b, "d", &label, 1, &sum, &bounds), DV_OK);
    assert_string_equal(dv_buf_cstr(&b), "d_bucket{fn=\"x\",le=\"0.1\"} 4\n"
                                         "d_bucket{fn=\"x\",le=\"1\"} 8\n"
                                         "d_bucket{fn=\"x\",le=\"+Inf\"} 10\n"
                                         "d_sum{fn=\"x\"} 17.2\n"
                                         "d_count{fn=\"x\"} 10\n");
}

static void *count_many(void *arg)
{
    for (int i = 0; i < 20000; i++)
        dv_hist_add_ns(arg, 3000000);
    return NULL;
}

static void no_observation_is_lost_between_threads(void **state)
{
    (void)state;
    struct dv_hist h = {0};
    pthread_t t[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, count_many, &h), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    assert_int_equal(h.counts[2], 40000); /* 3 ms: up to 5 ms */
    assert_int_equal(h.sum_us, 40000ull * 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_have_help_type_and_escaped_labels),
        cmocka_unit_test(numbers_are_written_as_prometheus_reads_them),
        cmocka_unit_test(histogram_buckets_are_cumulative_and_include_their_bound),
        cmocka_unit_test(no_observation_is_lost_between_threads),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
