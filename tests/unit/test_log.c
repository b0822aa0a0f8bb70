#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <unistd.h>

#include "proto/base/arena.h"
#include "proto/rt/clock.h"
#include "proto/rt/log.h"

static int out[2];

static const char *logged(void)
{
    static char line[4096];
    ssize_t n = read(out[0], line, sizeof(line) - 1);
    assert_true(n > 0);
    line[n] = '\0';
    return line;
}

static int setup(void **state)
{
    (void)state;
    return pipe(out);
}

static void logfmt_quotes_what_would_break_a_line(void **state)
{
    (void)state;
    dv_log_setup(DV_LOG_INFO, DV_LOG_LOGFMT, out[1]);
    dv_log(DV_LOG_WARN, "node lost", DV_LS("node", "a b\nc"), DV_LU("ms", 7), DV_LID("id", 255),
           DV_LI("n", -1));
    const char *line = logged();
    assert_non_null(
        strstr(line, " level=warn msg=\"node lost\" node=\"a b\\nc\" ms=7 id=00000000000000ff n=-1\n"));
}

static void json_lines_are_json_even_for_bytes_that_are_not_text(void **state)
{
    (void)state;
    dv_log_setup(DV_LOG_INFO, DV_LOG_JSON, out[1]);
    dv_log(DV_LOG_ERROR, "x", DV_LS("k", "\"\\\t\x01"), DV_LSV("bad", dv_sv("\xff", 1)));
    cJSON *j = cJSON_Parse(logged());
    assert_non_null(j);
    assert_string_equal(cJSON_GetObjectItem(j, "k")->valuestring, "\"\\\t\x01");
    assert_string_equal(cJSON_GetObjectItem(j, "level")->valuestring, "error");
    cJSON_Delete(j);
}

static void lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    dv_log_setup(DV_LOG_WARN, DV_LOG_LOGFMT, out[1]);
    dv_log(DV_LOG_INFO, "quiet");
    dv_log(DV_LOG_ERROR, "loud");
    assert_null(strstr(logged(), "quiet"));
}

static void rfc3339_goes_there_and_back(void **state)
{
    (void)state;
    char text[DV_RFC3339_TEXT];
    int64_t ms;
    dv_rfc3339(1767225599123, text);
    assert_string_equal(text, "2025-12-31T23:59:59.123Z");
    assert_int_equal(dv_rfc3339_parse(text, &ms), DV_OK);
    assert_true(ms == 1767225599123);
    assert_int_equal(dv_rfc3339_parse("2026-01-01T01:59:59.123+02:00", &ms), DV_OK);
    assert_true(ms == 1767225599123);
    const char *bad[] = {"", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00",
                         "2026-01-01T00:00:00Zx"};
    for (size_t i = 0; i < DV_COUNT(bad); i++)
        assert_int_equal(dv_rfc3339_parse(bad[i], &ms), DV_INVALID);
}

static void an_arena_hands_out_aligned_memory_and_frees_it_all(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    for (size_t i = 1; i < 9000; i = i * 2 + 1) {
        char *p = dv_arena_alloc(&a, i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        memset(p, 1, i);
    }
    assert_string_equal(dv_arena_strndup(&a, "abcdef", 3), "abc");
    dv_arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_non_null(dv_arena_alloc(&a, 100));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logfmt_quotes_what_would_break_a_line),
        cmocka_unit_test(json_lines_are_json_even_for_bytes_that_are_not_text),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(rfc3339_goes_there_and_back),
        cmocka_unit_test(an_arena_hands_out_aligned_memory_and_frees_it_all),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
