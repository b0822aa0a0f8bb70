#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/httpc.h"
#include "proto/rt/httpd.h"
#include "proto/rt/loop.h"
#include "proto/rt/scrape.h"
#include "proto/wire/codec.h"

/* A reading against our own server, both on one loop. */
static struct world {
    struct dv_loop *loop;
    struct dv_httpd *d;
    struct dv_httpc *c;
    struct dv_http_req *parked;
    int n_requests, n_done, code;
    double value;
    char err[240], accept[200], connection[32];
} w;

static void on_gone(void *user)
{
    (void)user;
    dv_http_reply(w.parked, 200, "text/plain", DV_SV(""));
    w.parked = NULL;
}

static void on_request(void *ctx, struct dv_http_req *r)
{
    (void)ctx;
    struct dv_sv path = dv_http_path(r), accept = dv_http_header(r, "Accept"),
                 connection = dv_http_header(r, "Connection");
    w.n_requests++;
    (void)snprintf(w.accept, sizeof(w.accept), "%.*s", (int)accept.n, accept.p ? accept.p : "");
    (void)snprintf(w.connection, sizeof(w.connection), "%.*s", (int)connection.n,
                   connection.p ? connection.p : "");
    if (dv_sv_eq(path, DV_SV("/ok"))) {
        dv_http_reply(r, 200, "text/plain", DV_SV("depth{q=\"a\"} 3\ndepth{q=\"b\"} 4\n"));
    } else if (dv_sv_eq(path, DV_SV("/nan"))) {
        dv_http_reply(r, 200, "text/plain", DV_SV("depth{q=\"a\"} NaN\n"));
    } else if (dv_sv_eq(path, DV_SV("/garbage"))) {
        dv_http_reply(r, 200, "text/plain", DV_SV("<html>depth 4</html>\n"));
    } else if (dv_sv_eq(path, DV_SV("/away"))) {
        dv_http_set_header(r, "Location", "/ok");
        dv_http_reply(r, 302, "text/plain", DV_SV("depth 9\n"));
    } else if (dv_sv_eq(path, DV_SV("/big"))) {
        DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
        while (dv_buf_len(&b) < DV_SCRAPE_BYTES_MAX)
            dv_buf_addf(&b, "other{n=\"%d\"} 1\n", (int)dv_buf_len(&b));
        dv_buf_add_c(&b, "depth 5\n");
        dv_http_reply(r, 200, "text/plain", dv_buf_sv(&b));
    } else if (dv_sv_eq(path, DV_SV("/hang"))) {
        w.parked = r;
        dv_http_set_user(r, NULL, on_gone);
    } else {
        dv_http_reply(r, 404, "text/plain", DV_SV("depth 5\n"));
    }
}

static int set_up(void **state)
{
    (void)state;
    struct dv_httpd_cfg cfg = {.address = "127.0.0.1:0", .body_max = 100, .on_request = on_request};
    w = (struct world){0};
    return dv_loop_new(&dv_clock_system, &w.loop, NULL) || dv_httpd_start(w.loop, &cfg, &w.d, NULL) ||
           dv_httpc_new(w.loop, &w.c, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    dv_httpc_free(w.c);
    dv_httpd_stop(w.d);
    dv_loop_free(w.loop);
    return 0;
}

static void done(void *ctx, int code, double value, const struct dv_err *err)
{
    assert_ptr_equal(ctx, &w);
    w.n_done++;
    w.code = code;
    w.value = value;
    (void)dv_copy(w.err, sizeof(w.err), dv_err_msg(err, code));
}

static struct dv_scrape *start(const char *path, const char *q, int64_t timeout_ms, bool is_local)
{
    struct dv_kv label = {(char *)"q", (char *)q};
    struct dv_metric m = {.name = (char *)"depth",
                          .labels = {q ? &label : NULL, q != NULL},
                          .interval_ms = 10000,
                          .timeout_ms = timeout_ms};
    struct dv_scrape *s = NULL;
    char url[100];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", dv_httpd_port(w.d), path);
    w.n_done = 0;
    assert_int_equal(dv_scrape_start(w.c, url, &m, is_local, done, &w, &s, NULL), DV_OK);
    assert_int_equal(w.n_done, 0);
    return s;
}

static int reading(const char *path, const char *q)
{
    (void)start(path, q, 30000, false);
    while (!w.n_done)
        assert_int_equal(dv_loop_turn(w.loop, 1000), 0);
    assert_int_equal(w.n_done, 1);
    return w.code;
}

static void a_value_is_read(void **state)
{
    (void)state;
    assert_int_equal(reading("/ok", NULL), DV_OK);
    assert_true(w.value == 7);
    assert_int_equal(reading("/ok", "b"), DV_OK);
    assert_true(w.value == 4);
    assert_non_null(strstr(w.accept, "text/plain;version=0.0.4"));
    assert_string_equal(w.connection, "");
    (void)start("/ok", "b", 3000, true);
    while (!w.n_done)
        assert_int_equal(dv_loop_turn(w.loop, 1000), 0);
    assert_string_equal(w.connection, "close");
}

static void lies_and_errors_give_no_value_and_say_why(void **state)
{
    (void)state;
    assert_int_equal(reading("/ok", "c"), DV_NOT_FOUND);
    assert_non_null(strstr(w.err, "no series"));
    assert_int_equal(reading("/nan", NULL), DV_INVALID);
    assert_non_null(strstr(w.err, "NaN"));
    assert_int_equal(reading("/garbage", NULL), DV_INVALID);
    assert_non_null(strstr(w.err, "line 1"));
    assert_int_equal(reading("/missing", NULL), DV_E_PROTO);
    assert_string_equal(w.err, "it answers 404");
    assert_int_equal(reading("/big", NULL), DV_TOO_LARGE);
    assert_non_null(strstr(w.err, "larger than allowed"));
}

static void redirects_are_not_followed(void **state)
{
    (void)state;
    assert_int_equal(reading("/away", NULL), DV_E_PROTO);
    assert_non_null(strstr(w.err, "redirects are not followed"));
    assert_int_equal(w.n_requests, 1);
}

static void what_hangs_ends_at_its_time(void **state)
{
    (void)state;
    (void)start("/hang", NULL, 50, false);
    while (!w.n_done)
        assert_int_equal(dv_loop_turn(w.loop, 1000), 0);
    assert_int_equal(w.code, DV_DEADLINE);
    while (w.parked)
        assert_int_equal(dv_loop_turn(w.loop, 1000), 0);
}

static void what_was_called_off_tells_nothing(void **state)
{
    (void)state;
    struct dv_scrape *s = start("/hang", NULL, 3000, false);
    while (!w.parked)
        assert_int_equal(dv_loop_turn(w.loop, 1000), 0);
    dv_scrape_cancel(s);
    while (w.parked)
        assert_int_equal(dv_loop_turn(w.loop, 1000), 0);
    assert_int_equal(w.n_done, 0);
    dv_scrape_cancel(NULL);
}

static void without_memory_nothing_is_begun(void **state)
{
    (void)state;
    struct dv_metric m = {.name = (char *)"depth", .interval_ms = 1000};
    struct dv_kv label = {(char *)"q", (char *)"a"};
    m.labels = (struct dv_kvs){&label, 1};
    int rc = DV_E_NOMEM;
    for (uint64_t n = 1; rc == DV_E_NOMEM; n++) {
        struct dv_scrape *s = NULL;
        dv_alloc_fail_at(n);
        rc = dv_scrape_start(w.c, "http://127.0.0.1:1/m", &m, false, done, &w, &s, NULL);
        dv_alloc_fail_at(0);
        dv_scrape_cancel(s);
        assert_true(n < 1000);
    }
    assert_int_equal(rc, DV_OK);
    assert_int_equal(w.n_done, 0);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_value_is_read),
        TEST(lies_and_errors_give_no_value_and_say_why),
        TEST(redirects_are_not_followed),
        TEST(what_hangs_ends_at_its_time),
        TEST(what_was_called_off_tells_nothing),
        TEST(without_memory_nothing_is_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
