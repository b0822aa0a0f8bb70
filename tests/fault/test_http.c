/* HTTP server, client and options with the first, second, third ... allocation failing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/arena.h"
#include "proto/rt/httpc.h"
#include "proto/rt/httpd.h"
#include "proto/rt/loop.h"
#include "proto/rt/opts.h"

static struct dv_loop *loop;
static char dir[32], sock[64];
static int n_done, last_code;
static long last_status;
static char last_body[64];

static void on_request(void *ctx, struct dv_http_req *r)
{
    (void)ctx;
    const char *x = dv_http_param(r, "x");
    dv_http_set_header(r, "X-One", "1");
    if (x && strcmp(x, "stream") == 0) {
        dv_http_stream(r, 200, "text/plain");
        (void)dv_http_stream_write(r, DV_SV("whole"));
        dv_http_stream_end(r);
        return;
    }
    dv_http_reply(r, 200, "text/plain", DV_SV("whole"));
}

static void on_done(void *ctx, const struct dv_httpc_result *res)
{
    (void)ctx;
    n_done++;
    last_code = res->code;
    last_status = res->status;
    (void)snprintf(last_body, sizeof(last_body), "%.*s", (int)res->body.n, res->body.p);
    assert_true(res->code == DV_OK || res->err->msg[0]);
}

static int start(void **state)
{
    (void)state;
    (void)dv_copy(dir, sizeof(dir), "/tmp/dv-http-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    (void)snprintf(sock, sizeof(sock), "%s/s", dir);
    return dv_loop_new(&dv_clock_system, &loop, NULL);
}

static int stop(void **state)
{
    (void)state;
    dv_loop_free(loop);
    return rmdir(dir);
}

static int call(struct dv_httpc *c, const char *url)
{
    const struct dv_httpc_request req = {.method = "POST",
                                         .url = url,
                                         .unix_socket = sock,
                                         .body = DV_SV("body"),
                                         .on_done = on_done,
                                         .timeout_ms = 5000};
    int rc = dv_httpc_send(c, &req, NULL, NULL);
    for (int i = 0; rc == DV_OK && !n_done && i < 1000; i++)
        (void)dv_loop_turn(loop, 10);
    return rc;
}

static void a_request_is_answered_whole_or_not_at_all(void **state)
{
    (void)state;
    static const char *const urls[] = {"http://x/?a=b&x=y", "http://x/?x=stream"};
    const struct dv_httpd_cfg cfg = {.unix_path = sock, .body_max = 100, .on_request = on_request};
    for (size_t which = 0; which < DV_COUNT(urls); which++) {
        bool is_past = false;
        for (uint64_t n = 1; !is_past; n++) {
            struct dv_httpd *d = NULL;
            struct dv_httpc *c = NULL;
            assert_int_equal(dv_httpd_start(loop, &cfg, &d, NULL), DV_OK);
            assert_int_equal(dv_httpc_new(loop, &c, NULL), DV_OK);
            n_done = 0;
            dv_alloc_fail_at(n);
            int rc = call(c, urls[which]);
            is_past = dv_alloc_count() < n;
            dv_alloc_fail_at(0);
            assert_true(rc == DV_OK || rc == DV_E_NOMEM);
            assert_int_equal(n_done, rc == DV_OK);
            if (rc == DV_OK && last_code == DV_OK && last_status == 200 && which == 0)
                assert_string_equal(last_body, "whole");
            if (is_past)
                assert_int_equal(last_code, DV_OK);
            dv_httpc_free(c);
            dv_httpd_stop(d);
            assert_true(n < 200);
        }
    }
}

static void starting_gives_up_cleanly(void **state)
{
    (void)state;
    const struct dv_httpd_cfg cfg = {.unix_path = sock, .body_max = 100, .on_request = on_request};
    int rc = -1;
    for (uint64_t n = 1; rc; n++) {
        struct dv_httpd *d = NULL;
        struct dv_err err = DV_ERR_INIT;
        dv_alloc_fail_at(n);
        rc = dv_httpd_start(loop, &cfg, &d, &err);
        dv_alloc_fail_at(0);
        assert_true(rc == DV_OK ? d != NULL : d == NULL && rc == DV_E_NOMEM && access(sock, F_OK) != 0);
        dv_httpd_stop(d);
    }
    rc = -1;
    for (uint64_t n = 1; rc; n++) {
        struct dv_httpc *c = NULL;
        dv_alloc_fail_at(n);
        rc = dv_httpc_new(loop, &c, NULL);
        dv_alloc_fail_at(0);
        assert_true(rc == DV_OK ? c != NULL : c == NULL && rc == DV_E_NOMEM);
        dv_httpc_free(c);
    }
}

static void options_are_read_or_refused_for_want_of_memory(void **state)
{
    (void)state;
    const char *text = NULL;
    struct dv_strs list = {0};
    const struct dv_opt opts[] = {
        {.name = "text", .kind = DV_OPT_STR, .out = &text, .help = "t", .preset = "x"},
        {.name = "list", .kind = DV_OPT_STRS, .out = &list, .help = "l"}};
    const struct dv_opts_spec spec = {.program = "p", .opts = opts, .n_opts = 2, .takes_args = true};
    static const char *const argv[] = {"p", "--text", "a", "--list=b", "arg", "--", "after"};
    int rc = -1;
    for (uint64_t n = 1; rc; n++) {
        struct dv_arena arena = DV_ARENA_INIT;
        struct dv_opts_result res;
        dv_alloc_fail_at(n);
        rc = dv_opts_parse(&spec, (int)DV_COUNT(argv), (char *const *)(uintptr_t)argv, NULL, &arena, &res,
                           NULL);
        dv_alloc_fail_at(0);
        assert_true(rc == DV_OK || rc == DV_E_NOMEM);
        if (rc == DV_OK) {
            assert_string_equal(text, "a");
            assert_int_equal(list.n, 1);
            assert_int_equal(res.after.n, 1);
        }
        dv_arena_deinit(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_is_answered_whole_or_not_at_all, start, stop),
        cmocka_unit_test_setup_teardown(starting_gives_up_cleanly, start, stop),
        cmocka_unit_test(options_are_read_or_refused_for_want_of_memory),
    };
    return cmocka_run_group_tests_name("http and options without memory", tests, NULL, NULL);
}
