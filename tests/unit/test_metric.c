#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/metric.h"
#include "proto/base/err.h"
#include "proto/base/rng.h"
#include "proto/base/str.h"
#include "proto/wire/codec.h"

#define S 1000000000ull

static struct dv_metric metric(enum dv_fold fold, double target)
{
    return (struct dv_metric){.name = (char *)"depth",
                              .url = (char *)"http://x/metrics",
                              .target = target,
                              .aggregate = fold,
                              .interval_ms = 10000};
}

static struct dv_scale_ask ask(const struct dv_metric_track *t, const struct dv_metric *m, int64_t keeps,
                               uint64_t now_ns, char *text)
{
    struct dv_scale_ask a;
    dv_metric_ask(t, m, keeps, now_ns, text, &a);
    assert_int_equal(a.signal, DV_SIG_METRIC);
    assert_ptr_equal(a.text, text);
    return a;
}

static int64_t asked_for(enum dv_fold fold, double target, double value, int64_t n_ready)
{
    struct dv_metric m = metric(fold, target);
    struct dv_metric_track t = {0};
    char text[DV_ASK_TEXT];
    dv_metric_note(&t, value, n_ready, 100 * S);
    struct dv_scale_ask a = ask(&t, &m, n_ready, 101 * S, text);
    assert_false(a.is_hold);
    return a.replicas;
}

static void a_sum_is_shared_by_the_replicas(void **state)
{
    (void)state;
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 0, 3), 0);
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 4, 0), 1);
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 40, 1), 4);
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 41, 1), 5);
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 43, 4), 4); /* within a tenth of what there is */
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 45, 4), 5);
    assert_int_equal(asked_for(DV_FOLD_SUM, 10, 1e300, 1), 1000000000);
}

static void a_level_multiplies_what_was_ready_when_it_was_read(void **state)
{
    (void)state;
    assert_int_equal(asked_for(DV_FOLD_AVERAGE, 0.1, 0.3, 2), 6);
    assert_int_equal(asked_for(DV_FOLD_MAX, 0.1, 0.05, 4), 2);
    assert_int_equal(asked_for(DV_FOLD_AVERAGE, 0.1, 0.105, 4), 4);
    assert_int_equal(asked_for(DV_FOLD_AVERAGE, 0.1, 0.3, 0), 3); /* none was: as if one had been */
}

static void what_is_stale_keeps_what_there_is_and_says_since_when(void **state)
{
    (void)state;
    struct dv_metric m = metric(DV_FOLD_SUM, 10);
    struct dv_metric_track t = {0};
    char text[DV_ASK_TEXT];
    struct dv_scale_ask a = ask(&t, &m, 4, 100 * S, text);
    assert_true(a.is_hold && a.keeps_awake && !a.is_active);
    assert_string_equal(text, "metric depth has told nothing yet: keeps 4");
    dv_metric_missed(&t, "it answers 404");
    a = ask(&t, &m, 4, 100 * S, text);
    assert_string_equal(text, "metric depth has told nothing yet (it answers 404): keeps 4");
    dv_metric_note(&t, 40, 4, 100 * S);
    a = ask(&t, &m, 4, 130 * S, text); /* three intervals */
    assert_false(a.is_hold);
    assert_string_equal(text, "metric depth is 40, target 10 a replica");
    dv_metric_missed(&t, "timed out");
    a = ask(&t, &m, 4, 140 * S, text);
    assert_true(a.is_hold);
    assert_string_equal(text, "metric depth stale for 40 s (timed out): keeps 4");
    m.interval_ms = 1000; /* never less than a quarter of a minute */
    assert_false(ask(&t, &m, 4, 115 * S, text).is_hold);
    assert_true(ask(&t, &m, 4, 116 * S, text).is_hold);
}

static void above_its_activation_it_is_active(void **state)
{
    (void)state;
    struct dv_metric m = metric(DV_FOLD_SUM, 10);
    struct dv_metric_track t = {0};
    char text[DV_ASK_TEXT];
    dv_metric_note(&t, 0, 0, 100 * S);
    assert_false(ask(&t, &m, 0, 100 * S, text).is_active);
    dv_metric_note(&t, 0.5, 0, 100 * S);
    assert_true(ask(&t, &m, 0, 100 * S, text).is_active);
    m.activation = 5;
    assert_false(ask(&t, &m, 0, 100 * S, text).is_active);
    dv_metric_note(&t, 5.1, 0, 100 * S);
    assert_true(ask(&t, &m, 0, 100 * S, text).is_active);
}

static void values_of_replicas_are_kept_by_replica_and_age(void **state)
{
    (void)state;
    struct dv_metric m = metric(DV_FOLD_SUM, 10);
    struct dv_metric_track t = {0};
    for (uint64_t round = 0; round < 20; round++) /* replicas come and go; the memory does not grow */
        for (uint64_t r = 1; r <= 8; r++)
            assert_int_equal(dv_metric_note_of(&t, &m, round * 100 + r, (double)r, (100 + round * 60) * S),
                             DV_OK);
    assert_true(t.cap <= 16);
    uint64_t now = (100 + 19 * 60) * S;
    assert_true(dv_metric_fresh(&t, &m, 1903, now)->value == 3);
    assert_null(dv_metric_fresh(&t, &m, 1803, now));
    assert_null(dv_metric_fresh(&t, &m, 1903, now + 31 * S));
    assert_int_equal(dv_metric_note_of(&t, &m, 1903, 33, now), DV_OK);
    assert_true(dv_metric_fresh(&t, &m, 1903, now)->value == 33);
    dv_metric_deinit(&t);
}

static int64_t of_replicas(enum dv_fold fold, const double *values, int n, int64_t missing,
                           struct dv_scale_ask *a)
{
    struct dv_metric m = metric(fold, 10);
    struct dv_metric_sum s = {.level = {.n_missing = missing}};
    static char text[DV_ASK_TEXT];
    for (int i = 0; i < n; i++)
        dv_metric_add(&s, &m, values[i]);
    return dv_metric_ask_of_replicas(&(struct dv_metric_track){0}, &m, &s, 7, text, a) ? a->replicas : -1;
}

static void replicas_answer_together(void **state)
{
    (void)state;
    struct dv_scale_ask a;
    static const double values[] = {30, 10, 20, 0};
    assert_int_equal(of_replicas(DV_FOLD_SUM, values, 4, 0, &a), 6);
    assert_int_equal(of_replicas(DV_FOLD_AVERAGE, values, 4, 0, &a), 6);
    assert_int_equal(of_replicas(DV_FOLD_MAX, values, 4, 0, &a), 12);
    assert_true(a.is_active);
    assert_int_equal(of_replicas(DV_FOLD_SUM, values, 0, 0, &a), -1); /* nobody to ask */
    (void)of_replicas(DV_FOLD_SUM, values, 0, 2, &a);
    assert_true(a.is_hold && a.keeps_awake);
    assert_non_null(strstr(a.text, "keeps 7"));
    static const double idle[] = {0, 0};
    assert_int_equal(of_replicas(DV_FOLD_SUM, idle, 2, 0, &a), 0);
    assert_false(a.is_active || a.keeps_awake);
    assert_true(of_replicas(DV_FOLD_SUM, idle, 2, 2, &a) >= 2); /* those that say nothing may be busy */
    assert_true(a.keeps_awake);
    assert_int_equal(of_replicas(DV_FOLD_MAX, idle, 2, 2, &a), 4);
}

static void a_larger_value_never_asks_for_fewer(void **state)
{
    (void)state;
    struct dv_rng r;
    dv_rng_init(&r, 8);
    for (int i = 0; i < 20000; i++) {
        enum dv_fold fold = (enum dv_fold)dv_rng_below(&r, 3);
        double target = 0.01 + dv_rng_unit(&r) * 20, low = dv_rng_unit(&r) * 500,
               high = low + dv_rng_unit(&r) * 50;
        int64_t n = (int64_t)dv_rng_below(&r, 40);
        assert_true(asked_for(fold, target, high, n) >= asked_for(fold, target, low, n));
    }
}

static void endpoints_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool is_replica;
        int64_t port;
        const char *path;
    } good[] = {
        {"replica:/metrics", true, 0, "/metrics"}, {"replica:9090/m?x=1", true, 9090, "/m?x=1"},
        {":9090/metrics", true, 9090, "/metrics"}, {"http://10.0.0.1:9090/metrics", false, 0, NULL},
        {"https://[::1]/m", false, 0, NULL},       {"http://x?y=@", false, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct dv_metric_source s;
        const char *why = "";
        if (dv_metric_source_of(good[i].url, &s, &why))
            fail_msg("%s: %s", good[i].url, why);
        assert_true(s.is_replica == good[i].is_replica && s.port == good[i].port);
        if (good[i].path)
            assert_string_equal(s.path, good[i].path);
    }
    static const struct {
        const char *url, *why;
    } bad[] = {
        {"", "must be"},
        {"/metrics", "must be"},
        {"file:///etc/passwd", "must be"},
        {":/metrics", "must be"},
        {"gopher://x/", "must be"},
        {"http://", "host"},
        {"http://:80/", "host"},
        {"http://me:secret@x/", "user or password"},
        {"http://x/ y", "blanks"},
        {"http://x/#y", "'#'"},
        {":0/metrics", "port"},
        {":65536/metrics", "port"},
        {":80a/metrics", "port"},
        {":9090", "path"},
        {"replica:metrics", "path"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dv_metric_source s;
        const char *why = "";
        if (dv_metric_source_of(bad[i].url, &s, &why) != DV_INVALID || !strstr(why, bad[i].why))
            fail_msg("%s: %s", bad[i].url, why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sum_is_shared_by_the_replicas),
        cmocka_unit_test(a_level_multiplies_what_was_ready_when_it_was_read),
        cmocka_unit_test(what_is_stale_keeps_what_there_is_and_says_since_when),
        cmocka_unit_test(above_its_activation_it_is_active),
        cmocka_unit_test(values_of_replicas_are_kept_by_replica_and_age),
        cmocka_unit_test(replicas_answer_together),
        cmocka_unit_test(a_larger_value_never_asks_for_fewer),
        cmocka_unit_test(endpoints_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
