#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/engine/lines.h"
#include "agent/engine/logframe.h"
#include "proto/base/alloc.h"

static char seen[65536];
static int n_seen, stop_at;
static int64_t last_ms;
static size_t longest;

static int on_line(void *ctx, const struct dv_engine_log *l)
{
    (void)ctx;
    size_t n = strlen(seen);
    last_ms = l->wall_ms;
    longest = l->text.n > longest ? l->text.n : longest;
    (void)snprintf(seen + n, sizeof(seen) - n, "%d:%.*s|", l->is_stderr, (int)l->text.n, l->text.p);
    return ++n_seen == stop_at ? DV_CLOSED : DV_OK;
}

static int reset(void **state)
{
    (void)state;
    seen[0] = '\0';
    n_seen = stop_at = 0;
    last_ms = 0;
    longest = 0;
    return 0;
}

static void add_frame(struct dv_buf *b, unsigned char stream, const char *payload, size_t n)
{
    const unsigned char head[8] = {
        stream,          0, 0, 0, (unsigned char)(n >> 24), (unsigned char)(n >> 16), (unsigned char)(n >> 8),
        (unsigned char)n};
    assert_int_equal(dv_buf_add(b, head, 8), DV_OK);
    assert_int_equal(dv_buf_add(b, payload, n), DV_OK);
}

static void add_line(struct dv_buf *b, unsigned char stream, const char *text)
{
    add_frame(b, stream, text, strlen(text));
}

/* Feed in pieces of `step` bytes. */
static int feed(struct dv_sv bytes, size_t step)
{
    struct dv_logframe f;
    struct dv_err err = DV_ERR_INIT;
    int rc = DV_OK;
    dv_logframe_init(&f);
    for (size_t i = 0; i < bytes.n && rc == DV_OK; i += step)
        rc = dv_logframe_feed(&f, dv_sv(bytes.p + i, bytes.n - i < step ? bytes.n - i : step), on_line, NULL,
                              &err);
    dv_logframe_deinit(&f);
    return rc;
}

static void lines_come_out_however_the_bytes_are_cut(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    add_line(&b, 1, "2024-01-02T03:04:05.678901234Z hello world\n");
    add_line(&b, 2, "2024-01-02T03:04:06Z \n");
    add_line(&b, 1, "");
    add_line(&b, 1, "2024-01-02T03:04:07Z a\nb\nc");
    for (size_t step = 1; step < dv_buf_len(&b) + 1; step++) {
        (void)reset(NULL);
        assert_int_equal(feed(dv_buf_sv(&b), step), DV_OK);
        assert_string_equal(seen, "0:hello world|1:|0:a|0:b|0:c|");
    }
}

static void the_time_is_taken_off_a_line(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    add_line(&b, 1, "2024-01-02T03:04:05.678901234Z x\n");
    assert_int_equal(feed(dv_buf_sv(&b), 1000), DV_OK);
    assert_true(last_ms == 1704164645678);
    add_line(&b, 1, "not a time x\n");
    assert_int_equal(feed(dv_buf_sv(&b), 1000), DV_OK);
    assert_true(last_ms == 0);
    assert_non_null(strstr(seen, "not a time x"));
}

static void what_is_no_text_becomes_text(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    static const char raw[] = "a\0b\xff\xc3\xa9\xe2\x82 \xf0\x9f\x98\x80\xc3\n";
    add_frame(&b, 1, raw, sizeof(raw) - 1);
    assert_int_equal(feed(dv_buf_sv(&b), 3), DV_OK);
    assert_string_equal(seen, "0:a?b?\xc3\xa9?? \xf0\x9f\x98\x80?|");
    assert_true(dv_utf8_valid(dv_sv_c(seen)));
}

static void long_lines_are_cut_and_the_next_one_is_whole(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    static char big[3 * DV_LOG_LINE_MAX];
    memset(big, 'x', sizeof(big));
    big[sizeof(big) - 1] = '\n';
    add_frame(&b, 1, big, sizeof(big));
    add_line(&b, 1, "short\n");
    assert_int_equal(feed(dv_buf_sv(&b), 777), DV_OK);
    assert_int_equal(n_seen, 2);
    assert_int_equal(longest, DV_LOG_LINE_MAX);
    assert_non_null(strstr(seen, "|0:short|"));
}

static void what_is_not_a_frame_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x03\0\0\0\0\0\0\1x", "\x01\1\0\0\0\0\0\1x", "HTTP/1.1"};
    for (size_t i = 0; i < DV_COUNT(bad); i++)
        assert_int_equal(feed(dv_sv(bad[i], 8), 8), DV_E_PROTO);
    assert_int_equal(n_seen, 0);
}

static void a_huge_claim_costs_no_memory_and_is_known_as_cut_off(void **state)
{
    (void)state;
    struct dv_logframe f;
    dv_logframe_init(&f);
    dv_alloc_fail_at(1ull << 60); /* counts */
    assert_int_equal(dv_logframe_feed(&f, dv_sv("\x01\0\0\0\xff\xff\xff\xffpart", 12), on_line, NULL, NULL),
                     DV_OK);
    assert_true(dv_alloc_count() <= 1);
    dv_alloc_fail_at(0);
    assert_true(dv_logframe_is_partial(&f));
    assert_int_equal(n_seen, 0);
    dv_logframe_deinit(&f);
}

static void a_reader_may_stop(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    add_line(&b, 1, "a\nb\nc\n");
    stop_at = 2;
    assert_int_equal(feed(dv_buf_sv(&b), 1000), DV_CLOSED);
    assert_string_equal(seen, "0:a|0:b|");
}

static int on_text(void *ctx, struct dv_sv line)
{
    (void)ctx;
    size_t n = strlen(seen);
    (void)snprintf(seen + n, sizeof(seen) - n, "%.*s|", (int)line.n, line.p);
    return ++n_seen == stop_at ? DV_CLOSED : DV_OK;
}

static void text_is_cut_into_lines_and_overlong_ones_dropped(void **state)
{
    (void)state;
    static const char text[] = "one\r\n\ntwo\n01234567890\nthree\nend";
    for (size_t step = 1; step < sizeof(text); step++) {
        struct dv_lines l;
        (void)reset(NULL);
        dv_lines_init(&l, 10);
        for (size_t i = 0; i < sizeof(text) - 1; i += step)
            assert_int_equal(
                dv_lines_feed(&l, dv_sv(text + i, i + step < sizeof(text) ? step : sizeof(text) - 1 - i),
                              on_text, NULL),
                DV_OK);
        assert_string_equal(seen, "one|two|three|");
        assert_int_equal(dv_lines_end(&l, on_text, NULL), DV_OK);
        assert_string_equal(seen, "one|two|three|end|");
        dv_lines_deinit(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(lines_come_out_however_the_bytes_are_cut, reset),
        cmocka_unit_test_setup(the_time_is_taken_off_a_line, reset),
        cmocka_unit_test_setup(what_is_no_text_becomes_text, reset),
        cmocka_unit_test_setup(long_lines_are_cut_and_the_next_one_is_whole, reset),
        cmocka_unit_test_setup(what_is_not_a_frame_is_refused, reset),
        cmocka_unit_test_setup(a_huge_claim_costs_no_memory_and_is_known_as_cut_off, reset),
        cmocka_unit_test_setup(a_reader_may_stop, reset),
        cmocka_unit_test_setup(text_is_cut_into_lines_and_overlong_ones_dropped, reset),
    };
    return cmocka_run_group_tests_name("logframe", tests, NULL, NULL);
}
