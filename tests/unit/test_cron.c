#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/schedule.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/rng.h"

enum { MINUTE = 60, HOUR = 3600, DAY = 86400 };

static struct dv_cron cron(const char *s)
{
    struct dv_cron c;
    const char *why = "";
    if (dv_cron_parse(dv_sv_c(s), &c, &why))
        fail_msg("%s: %s", s, why);
    return c;
}

static int64_t at(int64_t year, int month, int day, int hour, int minute)
{
    return dv_days_from_date(year, month, day) * DAY + hour * HOUR + minute * MINUTE;
}

/* A zone file with this rule alone, or with one change listed before it. */
static struct dv_tz *zone(const char *rule)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_tz *tz = NULL;
    struct dv_err err = DV_ERR_INIT;
    for (int i = 0; i < 2; i++) { /* the old block and the new one, both with one type and one letter */
        static const char head[20] = "TZif2";
        static const char counts[24] = {[19] = 1, [23] = 1};
        dv_buf_add(&b, head, sizeof(head));
        dv_buf_add(&b, counts, sizeof(counts));
        dv_buf_add(&b, "\0\0\0\0\0\0", 7);
    }
    dv_buf_addf(&b, "\n%s\n", rule);
    if (dv_tz_parse(dv_buf_sv(&b), &tz, &err))
        fail_msg("%s: %s", rule, err.msg);
    return tz;
}

#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"

static void dates_are_counted_both_ways(void **state)
{
    (void)state;
    assert_int_equal(dv_days_from_date(1970, 1, 1), 0);
    assert_int_equal(dv_days_from_date(2000, 3, 1), 11017);
    assert_int_equal(dv_days_from_date(1969, 12, 31), -1);
    for (int64_t days = -800000; days < 800000; days += 37) {
        int64_t y;
        int m, d;
        dv_date_from_days(days, &y, &m, &d);
        assert_int_equal(dv_days_from_date(y, m, d), days);
        assert_true(d >= 1 && d <= dv_days_in_month(y, m));
    }
}

static void the_next_time_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *cron;
        int64_t from[5], to[5];
    } rows[] = {
        {"* * * * *", {2026, 1, 1, 0, 0}, {2026, 1, 1, 0, 1}},
        {"0 8 * * 1-5", {2026, 1, 2, 9, 0}, {2026, 1, 5, 8, 0}}, /* a Friday */
        {"0 8 * * MON-fri", {2026, 1, 4, 9, 0}, {2026, 1, 5, 8, 0}},
        {"30 4 1,15 * 5", {2026, 1, 1, 4, 30}, {2026, 1, 2, 4, 30}}, /* either day */
        {"30 4 1,15 * *", {2026, 1, 1, 4, 30}, {2026, 1, 15, 4, 30}},
        {"0 0 29 2 *", {2026, 1, 1, 0, 0}, {2028, 2, 29, 0, 0}},
        {"0 0 31 * *", {2026, 1, 31, 0, 0}, {2026, 3, 31, 0, 0}},
        {"*/15 9-17/4 * DEC *", {2026, 12, 31, 17, 45}, {2027, 12, 1, 9, 0}},
        {"5/20 * * * *", {2026, 1, 1, 0, 5}, {2026, 1, 1, 0, 25}},
        {"0 0 * * 7", {2026, 1, 1, 0, 0}, {2026, 1, 4, 0, 0}},
        {"0 0 * * FRI-SUN", {2026, 1, 3, 0, 0}, {2026, 1, 4, 0, 0}},
        {"59 23 31 12 *", {2026, 12, 31, 23, 59}, {2027, 12, 31, 23, 59}},
        {"@hourly", {2026, 1, 1, 0, 0}, {2026, 1, 1, 1, 0}},
        {"@yearly", {2026, 1, 1, 0, 0}, {2027, 1, 1, 0, 0}},
        {"  @Weekly ", {2026, 1, 1, 0, 0}, {2026, 1, 4, 0, 0}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct dv_cron c = cron(rows[i].cron);
        const int64_t *f = rows[i].from, *t = rows[i].to;
        int64_t from = at(f[0], (int)f[1], (int)f[2], (int)f[3], (int)f[4]),
                to = at(t[0], (int)t[1], (int)t[2], (int)t[3], (int)t[4]);
        if (dv_cron_next(&c, NULL, from) != to)
            fail_msg("%s: %lld, not %lld", rows[i].cron, (long long)dv_cron_next(&c, NULL, from),
                     (long long)to);
        assert_int_equal(dv_cron_prev(&c, NULL, to + 1), to);
        assert_true(dv_cron_prev(&c, NULL, to) <= from);
    }
}

static void what_is_no_cron_is_refused_with_the_field_at_fault(void **state)
{
    (void)state;
    static const struct {
        const char *cron, *why;
    } rows[] = {
        {"", "five fields"},
        {"* * * *", "five fields"},
        {"* * * * * *", "more than five"},
        {"60 * * * *", "minute"},
        {"-1 * * * *", "minute"},
        {"*/0 * * * *", "minute"},
        {"1,,2 * * * *", "minute"},
        {"1, * * * *", "minute"},
        {"5-1 * * * *", "minute"},
        {"* 24 * * *", "hour"},
        {"* * 0 * *", "day of the month"},
        {"* * L * *", "day of the month"},
        {"* * * 13 *", "month"},
        {"* * * janu *", "month"},
        {"* * * * 8", "day of the week"},
        {"* * * * mon#2", "day of the week"},
        {"0 0 30 2 *", "never comes"},
        {"@never", "minute"},
        {"0000000001 * * * *", "minute"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct dv_cron c = {.hours = 77};
        const char *why = "";
        int rc = dv_cron_parse(dv_sv_c(rows[i].cron), &c, &why);
        if (rc != DV_INVALID || !strstr(why, rows[i].why))
            fail_msg("\"%s\": %d, %s", rows[i].cron, rc, why);
        assert_int_equal(c.hours, 77);
    }
}

static bool fits(const struct dv_cron *c, int64_t local)
{
    int64_t days = local / DAY, year;
    int month, day, weekday = (int)((days + 4) % 7);
    dv_date_from_days(days, &year, &month, &day);
    bool d = c->days >> day & 1, w = c->weekdays >> weekday & 1;
    return (c->minutes >> local / MINUTE % 60 & 1) && (c->hours >> local / HOUR % 24 & 1) &&
           (c->months >> month & 1) && (c->is_any_day || c->is_any_weekday ? d && w : d || w);
}

/* Against looking at every minute. */
static void random_crons_come_when_their_fields_say(void **state)
{
    (void)state;
    struct dv_rng r;
    struct dv_tz *tz = zone(BERLIN);
    dv_rng_init(&r, 42);
    for (int i = 0; i < 300; i++) {
        char s[64];
        (void)snprintf(s, sizeof(s), "%d-59/%d %s * %d-12 %s", (int)dv_rng_below(&r, 50),
                       1 + (int)dv_rng_below(&r, 30), dv_rng_below(&r, 2) ? "*" : "1-12,20",
                       1 + (int)dv_rng_below(&r, 3), dv_rng_below(&r, 2) ? "*" : "1-5");
        struct dv_cron c = cron(s);
        bool in_zone = c.is_any_hour && dv_rng_below(&r, 2);
        int64_t from = at(2026, 1, 1, 0, 0) + (int64_t)dv_rng_below(&r, 365 * DAY), t = from;
        do
            t = (t / MINUTE + 1) * MINUTE;
        while (!fits(&c, t + dv_tz_at(in_zone ? tz : NULL, t).offset_s));
        int64_t found = dv_cron_next(&c, in_zone ? tz : NULL, from);
        if (found != t)
            fail_msg("%s after %lld: %lld, not %lld", s, (long long)from, (long long)found, (long long)t);
        assert_int_equal(dv_cron_prev(&c, in_zone ? tz : NULL, t + 1), t);
        assert_true(dv_cron_prev(&c, in_zone ? tz : NULL, t) <= from);
    }
    dv_tz_free(tz);
}

static void a_zone_follows_its_rule(void **state)
{
    (void)state;
    struct dv_tz *tz = zone(BERLIN);
    assert_int_equal(dv_tz_at(tz, at(2026, 1, 15, 12, 0)).offset_s, HOUR);
    assert_int_equal(dv_tz_at(tz, at(2026, 7, 15, 12, 0)).offset_s, 2 * HOUR);
    struct dv_tz_span s = dv_tz_at(tz, at(2026, 3, 29, 1, 0));
    assert_int_equal(s.offset_s, 2 * HOUR);
    assert_int_equal(s.since_s, at(2026, 3, 29, 1, 0));
    assert_int_equal(s.until_s, at(2026, 10, 25, 1, 0));
    assert_int_equal(dv_tz_at(tz, at(2026, 3, 29, 1, 0) - 1).offset_s, HOUR);
    dv_tz_free(tz);
    tz = zone("<+0545>-5:45");
    assert_int_equal(dv_tz_at(tz, 0).offset_s, 5 * HOUR + 45 * MINUTE);
    dv_tz_free(tz);
    tz = zone("AEST-10AEDT,M10.1.0,M4.1.0/3"); /* the southern half */
    assert_int_equal(dv_tz_at(tz, at(2026, 1, 15, 0, 0)).offset_s, 11 * HOUR);
    assert_int_equal(dv_tz_at(tz, at(2026, 7, 15, 0, 0)).offset_s, 10 * HOUR);
    dv_tz_free(tz);
    tz = zone("IST-1GMT0,M10.5.0,M3.5.0/1"); /* winter time as the exception */
    assert_int_equal(dv_tz_at(tz, at(2026, 1, 15, 0, 0)).offset_s, 0);
    assert_int_equal(dv_tz_at(tz, at(2026, 7, 15, 0, 0)).offset_s, HOUR);
    dv_tz_free(tz);
}

static void what_clocks_leave_out_comes_at_the_change_and_what_they_repeat_once(void **state)
{
    (void)state;
    struct dv_tz *tz = zone(BERLIN);
    struct dv_cron c = cron("30 2 * * *"), hourly = cron("30 * * * *");
    /* 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC */
    int64_t t = dv_cron_next(&c, tz, at(2026, 3, 28, 12, 0));
    assert_int_equal(t, at(2026, 3, 29, 1, 0));
    assert_int_equal(dv_cron_next(&c, tz, t), at(2026, 3, 30, 0, 30));
    assert_int_equal(dv_cron_prev(&c, tz, t + 1), t);
    assert_int_equal(dv_cron_next(&hourly, tz, at(2026, 3, 29, 0, 30)), at(2026, 3, 29, 1, 30));
    /* 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC */
    t = dv_cron_next(&c, tz, at(2026, 10, 24, 12, 0));
    assert_int_equal(t, at(2026, 10, 25, 0, 30));
    assert_int_equal(dv_cron_next(&c, tz, t), at(2026, 10, 26, 1, 30));
    assert_int_equal(dv_cron_next(&c, tz, at(2026, 10, 25, 1, 5)), at(2026, 10, 26, 1, 30));
    assert_int_equal(dv_cron_next(&hourly, tz, at(2026, 10, 25, 0, 30)), at(2026, 10, 25, 1, 30));
    dv_tz_free(tz);
}

static void broken_zone_files_are_refused(void **state)
{
    (void)state;
    struct dv_tz *tz = NULL;
    static const char *const rules[] = {"CET",
                                        "-1",
                                        "CET-1CEST",
                                        "CET-1CEST,M13.1.0,M10.5.0",
                                        "CET-1CEST,M3.5.0",
                                        "CET-1CEST,M3.6.0,M10.5.0",
                                        "CET-1CEST,J0,J1",
                                        "CET-1:99"};
    DV_AUTO_BUF struct dv_buf good = DV_BUF_INIT;
    assert_int_equal(dv_tz_parse(DV_SV(""), &tz, NULL), DV_INVALID);
    assert_int_equal(dv_tz_parse(DV_SV("TZif2 and nothing behind it"), &tz, NULL), DV_INVALID);
    for (int i = 0; i < 2; i++) {
        static const char head[20] = "TZif2";
        static const char counts[24] = {[19] = 1, [23] = 1};
        dv_buf_add(&good, head, sizeof(head));
        dv_buf_add(&good, counts, sizeof(counts));
        dv_buf_add(&good, "\0\0\0\0\0\0", 7);
    }
    size_t n = dv_buf_len(&good);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        dv_buf_truncate(&good, n);
        dv_buf_addf(&good, "\n%s\n", rules[i]);
        if (dv_tz_parse(dv_buf_sv(&good), &tz, NULL) != DV_INVALID)
            fail_msg("%s", rules[i]);
    }
    dv_buf_truncate(&good, n);
    dv_buf_add_c(&good, "\nUTC0\n");
    for (size_t cut = 0; cut < dv_buf_len(&good); cut++)
        assert_int_equal(dv_tz_parse(dv_sv(dv_buf_ptr(&good), cut), &tz, NULL), DV_INVALID);
    assert_null(tz);
}

/* ---------------------------------------------------------------- windows */

static struct dv_schedule_state at_time(const struct dv_schedule_entry *v, size_t n, int64_t t)
{
    return dv_schedule_at(v, n, t);
}

static void a_window_raises_the_minimum_from_its_time_for_its_duration(void **state)
{
    (void)state;
    struct dv_tz *tz = zone(BERLIN);
    struct dv_schedule_entry v[] = {{cron("0 8 * * 1-5"), tz, 10 * HOUR, 5},
                                    {cron("0 12 * * *"), NULL, HOUR, 8}};
    int64_t monday = at(2026, 1, 5, 7, 0); /* eight in Berlin */
    assert_int_equal(at_time(v, 1, monday - 1).min, 0);
    assert_int_equal(at_time(v, 1, monday - 1).next_s, monday);
    assert_int_equal(at_time(v, 1, monday).min, 5);
    assert_int_equal(at_time(v, 1, monday).next_s, monday + 10 * HOUR);
    assert_int_equal(at_time(v, 1, monday + 10 * HOUR - 1).min, 5);
    assert_int_equal(at_time(v, 1, monday + 10 * HOUR).min, 0);
    assert_int_equal(at_time(v, 2, monday).next_s, at(2026, 1, 5, 12, 0)); /* the other one opens */
    assert_int_equal(at_time(v, 2, at(2026, 1, 5, 12, 30)).min, 8);        /* the larger counts */
    assert_int_equal(at_time(v, 2, at(2026, 1, 5, 13, 0)).min, 5);
    assert_int_equal(at_time(v, 1, at(2026, 7, 6, 6, 0)).min, 5); /* eight in summer */
    assert_int_equal(at_time(NULL, 0, monday).next_s, INT64_MAX);
    dv_tz_free(tz);
}

static void windows_that_meet_are_one(void **state)
{
    (void)state;
    struct dv_schedule_entry v = {cron("*/10 * * * *"), NULL, 15 * MINUTE, 2};
    for (int64_t t = at(2026, 1, 1, 0, 0); t < at(2026, 1, 1, 2, 0); t += 7) {
        struct dv_schedule_state s = at_time(&v, 1, t);
        assert_int_equal(s.min, 2);
        assert_true(s.next_s > t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates_are_counted_both_ways),
        cmocka_unit_test(the_next_time_is_found),
        cmocka_unit_test(what_is_no_cron_is_refused_with_the_field_at_fault),
        cmocka_unit_test(random_crons_come_when_their_fields_say),
        cmocka_unit_test(a_zone_follows_its_rule),
        cmocka_unit_test(what_clocks_leave_out_comes_at_the_change_and_what_they_repeat_once),
        cmocka_unit_test(broken_zone_files_are_refused),
        cmocka_unit_test(a_window_raises_the_minimum_from_its_time_for_its_duration),
        cmocka_unit_test(windows_that_meet_are_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
