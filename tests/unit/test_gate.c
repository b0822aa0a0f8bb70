/* Messages at the gate: what is written is read back, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/err.h"
#include "proto/rt/gate.h"

static char *g_argv[] = {"/bin/server", "--port", "8080", ""};
static char *g_env[] = {"PORT=8080", "EMPTY=", "A=b=c"};
static const struct dv_gate_run g_run = {.argv = {g_argv, 4}, .env = {g_env, 3}, .workdir = "/srv"};

static void written(struct dv_buf *b, const struct dv_gate_run *run)
{
    dv_buf_clear(b);
    assert_int_equal(dv_gate_run_write(b, run), DV_OK);
}

static int read_back(struct dv_sv bytes, struct dv_gate_run *out)
{
    struct dv_gate_head head;
    assert_true(bytes.n >= DV_GATE_HEAD);
    int rc = dv_gate_head_read(bytes.p, &head);
    if (rc)
        return rc;
    assert_int_equal(head.type, DV_GATE_RUN);
    assert_int_equal(head.n, bytes.n - DV_GATE_HEAD);
    return dv_gate_run_read(dv_sv(bytes.p + DV_GATE_HEAD, head.n), out);
}

static void an_order_is_read_as_it_was_written(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_gate_run got;
    written(&b, &g_run);
    assert_int_equal(read_back(dv_buf_sv(&b), &got), DV_OK);
    assert_int_equal(got.argv.n, 4);
    assert_int_equal(got.env.n, 3);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(got.argv.v[i], g_argv[i]);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(got.env.v[i], g_env[i]);
    assert_null(got.argv.v[4]); /* as exec wants them */
    assert_null(got.env.v[3]);
    assert_string_equal(got.workdir, "/srv");
    dv_gate_run_deinit(&got);
    struct dv_gate_run bare = {.argv = {g_argv, 1}};
    written(&b, &bare);
    assert_int_equal(read_back(dv_buf_sv(&b), &got), DV_OK);
    assert_string_equal(got.workdir, "");
    assert_int_equal(got.env.n, 0);
    dv_gate_run_deinit(&got);
}

static void an_order_that_could_not_be_run_is_not_written(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_gate_run r = g_run;
    r.argv.n = 0;
    assert_int_equal(dv_gate_run_write(&b, &r), DV_INVALID);
    r = g_run;
    r.workdir = "relative";
    assert_int_equal(dv_gate_run_write(&b, &r), DV_INVALID);
    char *bad[] = {"NOVALUE", "=x", ""};
    for (size_t i = 0; i < 3; i++) {
        r = g_run;
        r.env = (struct dv_strs){&bad[i], 1};
        assert_int_equal(dv_gate_run_write(&b, &r), DV_INVALID);
    }
    static char big[DV_GATE_RUN_MAX];
    memset(big, 'x', sizeof(big) - 1);
    char *huge[] = {"/bin/true", big};
    r = (struct dv_gate_run){.argv = {huge, 2}};
    assert_int_equal(dv_gate_run_write(&b, &r), DV_TOO_LARGE);
    assert_int_equal(dv_buf_len(&b), 0);
}

/* However it is cut short, and whichever byte is another one, the reader neither accepts what the writer
 * would not write nor touches what is not its own (the sanitizers watch). */
static void a_damaged_order_is_refused_or_another_order(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf again = DV_BUF_INIT;
    struct dv_gate_run got;
    written(&b, &g_run);
    size_t n = dv_buf_len(&b) - DV_GATE_HEAD;
    for (size_t k = 0; k < n; k++)
        assert_int_equal(dv_gate_run_read(dv_sv(dv_buf_ptr(&b) + DV_GATE_HEAD, k), &got), DV_E_PROTO);
    for (size_t k = DV_GATE_HEAD; k < dv_buf_len(&b); k++)
        for (int bit = 0; bit < 8; bit++) {
            dv_buf_ptr(&b)[k] = (char)(dv_buf_ptr(&b)[k] ^ 1 << bit);
            int rc = read_back(dv_buf_sv(&b), &got);
            assert_true(rc == DV_OK || rc == DV_E_PROTO);
            if (!rc) {
                written(&again, &got);
                assert_memory_equal(dv_buf_ptr(&again), dv_buf_ptr(&b), dv_buf_len(&b));
                dv_gate_run_deinit(&got);
            }
            dv_buf_ptr(&b)[k] = (char)(dv_buf_ptr(&b)[k] ^ 1 << bit);
        }
    char more[512];
    memcpy(more, dv_buf_ptr(&b) + DV_GATE_HEAD, n);
    more[n] = '\0'; /* one empty string too many */
    assert_int_equal(dv_gate_run_read(dv_sv(more, n + 1), &got), DV_E_PROTO);
}

static void a_head_of_another_version_or_size_is_refused(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_gate_head head;
    written(&b, &g_run);
    char good[DV_GATE_HEAD], bad[DV_GATE_HEAD];
    memcpy(good, dv_buf_ptr(&b), sizeof(good));
    assert_int_equal(dv_gate_head_read(good, &head), DV_OK);
    for (size_t i = 0; i < 8; i++) { /* magic, type, zeros */
        memcpy(bad, good, sizeof(bad));
        bad[i] = (char)(bad[i] + 100);
        assert_int_equal(dv_gate_head_read(bad, &head), DV_E_PROTO);
    }
    memcpy(bad, good, sizeof(bad));
    bad[11] = 1; /* 16 MiB */
    assert_int_equal(dv_gate_head_read(bad, &head), DV_E_PROTO);
    memset(bad + 8, 0, 4);
    assert_int_equal(dv_gate_head_read(bad, &head), DV_E_PROTO);
}

static void words_pass_whole_and_in_pieces(void **state)
{
    (void)state;
    const struct dv_gate_word words[] = {
        {.type = DV_GATE_HELLO, .pid = 0},
        {.type = DV_GATE_STARTED, .pid = 7},
        {.type = DV_GATE_REFUSED, .code = 127, .text = "no such program in this image"},
        {.type = DV_GATE_EXITED,
         .code = 137,
         .signal = 9,
         .user_us = 1ull << 40,
         .sys_us = 3,
         .max_rss_bytes = 1ull << 33},
    };
    char bytes[4 * DV_GATE_WORD_MAX];
    size_t n = 0, used, at = 0;
    struct dv_gate_word w;
    for (size_t i = 0; i < 4; i++)
        n += dv_gate_word_write(&words[i], bytes + n);
    for (size_t i = 0; i < 4; i++) {
        size_t k = 0;
        while (dv_gate_word_read(dv_sv(bytes + at, k), &w, &used) == DV_AGAIN)
            k++;
        assert_int_equal(dv_gate_word_read(dv_sv(bytes + at, n - at), &w, &used), DV_OK);
        assert_int_equal(used, k);
        assert_int_equal(w.type, words[i].type);
        assert_int_equal(w.pid, words[i].pid);
        assert_int_equal(w.code, words[i].code);
        assert_int_equal(w.signal, words[i].signal);
        assert_true(w.user_us == words[i].user_us && w.sys_us == words[i].sys_us &&
                    w.max_rss_bytes == words[i].max_rss_bytes);
        assert_string_equal(w.text, words[i].text);
        at += used;
    }
    assert_int_equal(at, n);
}

static void words_that_are_no_words_are_refused(void **state)
{
    (void)state;
    char bytes[DV_GATE_WORD_MAX];
    struct dv_gate_word w = {.type = DV_GATE_REFUSED, .code = 126, .text = "because"};
    size_t used, n = dv_gate_word_write(&w, bytes);
    bytes[n - 2] = (char)0xff; /* not text */
    assert_int_equal(dv_gate_word_read(dv_sv(bytes, n), &w, &used), DV_E_PROTO);
    bytes[n - 2] = 0;
    assert_int_equal(dv_gate_word_read(dv_sv(bytes, n), &w, &used), DV_E_PROTO);
    bytes[n - 2] = 's';
    bytes[4] = DV_GATE_HELLO; /* which has no text */
    assert_int_equal(dv_gate_word_read(dv_sv(bytes, n), &w, &used), DV_E_PROTO);
    bytes[4] = DV_GATE_RUN; /* which only the agent says */
    assert_int_equal(dv_gate_word_read(dv_sv(bytes, n), &w, &used), DV_E_PROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_is_read_as_it_was_written),
        cmocka_unit_test(an_order_that_could_not_be_run_is_not_written),
        cmocka_unit_test(a_damaged_order_is_refused_or_another_order),
        cmocka_unit_test(a_head_of_another_version_or_size_is_refused),
        cmocka_unit_test(words_pass_whole_and_in_pieces),
        cmocka_unit_test(words_that_are_no_words_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
