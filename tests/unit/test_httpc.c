#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/httpc.h"
#include "proto/rt/httpd.h"
#include "proto/rt/loop.h"
#include "proto/rt/sys.h"

/* The client against our own server, both on one loop. */
static struct world {
    struct dv_loop *loop;
    struct dv_httpd *d;
    struct dv_httpc *c;
    struct dv_http_req *parked;
    struct dv_httpc_call *call;
    char dir[32], sock[64];
    int n_requests, n_gone, n_done, n_data;
    int code, sys_errno;
    long status;
    char method[16], path[64], body[64], auth[64], type[64], extra[64]; /* as the server saw them */
    char got[4096], err[240], header[64];                               /* as the client did */
    enum { KEEP_GOING, STOP_CALL, CANCEL_CALL, SEND_ANOTHER } on_data_does;
    bool cancel_in_done, free_in_done;
} w;

static void on_gone(void *user)
{
    (void)user;
    w.n_gone++;
}

static void keep(char *to, size_t cap, struct dv_sv s)
{
    (void)snprintf(to, cap, "%.*s", (int)s.n, s.p ? s.p : "");
}

static void on_request(void *ctx, struct dv_http_req *r)
{
    (void)ctx;
    w.n_requests++;
    keep(w.method, sizeof(w.method), dv_http_method(r));
    keep(w.path, sizeof(w.path), dv_http_path(r));
    keep(w.body, sizeof(w.body), dv_http_body(r));
    keep(w.auth, sizeof(w.auth), dv_http_header(r, "Authorization"));
    keep(w.type, sizeof(w.type), dv_http_header(r, "Content-Type"));
    keep(w.extra, sizeof(w.extra), dv_http_header(r, "X-Extra"));
    if (dv_sv_eq(dv_http_path(r), DV_SV("/park"))) {
        w.parked = r;
        dv_http_set_user(r, NULL, on_gone);
    } else if (dv_sv_eq(dv_http_path(r), DV_SV("/big"))) {
        static char big[5000];
        memset(big, 'b', sizeof(big));
        dv_http_reply(r, 200, "text/plain", dv_sv(big, sizeof(big)));
    } else if (dv_sv_eq(dv_http_path(r), DV_SV("/missing"))) {
        dv_http_reply(r, 404, "text/plain", DV_SV("no such thing"));
    } else {
        dv_http_set_header(r, "X-Answer", "  spaced  ");
        dv_http_reply(r, 200, "text/plain", DV_SV("hello"));
    }
}

static void on_done(void *ctx, const struct dv_httpc_result *res)
{
    (void)ctx;
    w.n_done++;
    w.code = res->code;
    w.status = res->status;
    w.sys_errno = res->err ? res->err->sys_errno : 0;
    keep(w.header, sizeof(w.header), dv_httpc_header(res, "x-answer"));
    if (res->body.n)
        keep(w.got, sizeof(w.got), res->body);
    (void)dv_copy(w.err, sizeof(w.err), res->err ? res->err->msg : "");
    if (w.cancel_in_done)
        dv_httpc_cancel(w.call);
    if (w.free_in_done) {
        dv_httpc_free(w.c);
        w.c = NULL;
    }
}

static int send_to(const char *path, const struct dv_httpc_request *more)
{
    struct dv_httpc_request req = more ? *more : (struct dv_httpc_request){0};
    DV_AUTO_STR char *url = dv_asprintf("http://davit%s", path);
    req.url = url;
    req.unix_socket = w.sock;
    req.on_done = on_done;
    return dv_httpc_send(w.c, &req, &w.call, NULL);
}

static int on_data(void *ctx, struct dv_sv bytes)
{
    (void)ctx;
    w.n_data++;
    (void)strncat(w.got, bytes.p, bytes.n < 64 ? bytes.n : 64);
    switch (w.on_data_does) {
    case STOP_CALL:
        return 1;
    case CANCEL_CALL:
        dv_httpc_cancel(w.call);
        return 0;
    case SEND_ANOTHER:
        w.on_data_does = KEEP_GOING;
        return send_to("/other", NULL);
    default:
        return 0;
    }
}

static int start(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    (void)dv_copy(w.dir, sizeof(w.dir), "/tmp/dv-httpc-XXXXXX");
    if (!mkdtemp(w.dir) || dv_loop_new(&dv_clock_system, &w.loop, NULL))
        return -1;
    (void)snprintf(w.sock, sizeof(w.sock), "%s/s", w.dir);
    struct dv_httpd_cfg cfg = {.unix_path = w.sock, .body_max = 1 << 20, .on_request = on_request};
    if (dv_httpd_start(w.loop, &cfg, &w.d, NULL))
        return -1;
    return dv_httpc_new(w.loop, &w.c, NULL);
}

static int stop(void **state)
{
    (void)state;
    dv_httpc_free(w.c);
    dv_httpd_stop(w.d);
    dv_loop_free(w.loop);
    return rmdir(w.dir);
}

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(dv_loop_turn(w.loop, 2), DV_OK);
}

static void until(const int *counter, int value)
{
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + 3 * DV_S;
    while (*counter < value && dv_clock_now_ns(&dv_clock_system) < end)
        turns(1);
    assert_int_equal(*counter, value);
}

static void a_call_is_answered_after_send_returned(void **state)
{
    (void)state;
    assert_int_equal(send_to("/x", NULL), DV_OK);
    assert_int_equal(w.n_done, 0);
    until(&w.n_done, 1);
    assert_int_equal(w.code, DV_OK);
    assert_int_equal(w.status, 200);
    assert_string_equal(w.got, "hello");
    assert_string_equal(w.header, "spaced");
    assert_string_equal(w.method, "GET");
    assert_string_equal(w.path, "/x");
}

static void method_body_and_headers_arrive_as_given(void **state)
{
    (void)state;
    static const char *const headers[] = {"X-Extra: more", NULL};
    struct dv_httpc_request req = {
        .method = "PUT", .body = DV_SV("{}"), .headers = headers, .userpwd = "u:p"};
    assert_int_equal(send_to("/x", &req), DV_OK);
    until(&w.n_done, 1);
    assert_string_equal(w.method, "PUT");
    assert_string_equal(w.body, "{}");
    assert_string_equal(w.type, "application/json");
    assert_string_equal(w.extra, "more");
    assert_string_equal(w.auth, "Basic dTpw");
    req = (struct dv_httpc_request){.method = "POST", .bearer = "t0ken"};
    assert_int_equal(send_to("/x", &req), DV_OK);
    until(&w.n_done, 2);
    assert_string_equal(w.method, "POST");
    assert_string_equal(w.type, "");
    assert_string_equal(w.auth, "Bearer t0ken");
    req = (struct dv_httpc_request){.method = "DELETE"};
    assert_int_equal(send_to("/x", &req), DV_OK);
    until(&w.n_done, 3);
    assert_string_equal(w.method, "DELETE");
    req = (struct dv_httpc_request){.method = "HEAD"};
    assert_int_equal(send_to("/x", &req), DV_OK);
    until(&w.n_done, 4);
    assert_string_equal(w.method, "HEAD");
    assert_int_equal(w.status, 200);
}

static void a_header_with_a_line_break_is_refused(void **state)
{
    (void)state;
    static const char *const headers[] = {"X-Extra: a\r\nX-Smuggled: b", NULL};
    struct dv_httpc_request req = {.headers = headers};
    assert_int_equal(send_to("/x", &req), DV_INVALID);
    req = (struct dv_httpc_request){.bearer = "a\nb"};
    assert_int_equal(send_to("/x", &req), DV_INVALID);
    assert_int_equal(send_to("/x\r\n", NULL), DV_INVALID);
    turns(2);
    assert_int_equal(w.n_done + w.n_requests, 0);
}

static void any_status_is_an_answer(void **state)
{
    (void)state;
    struct dv_httpc_request req = {.on_data = on_data};
    assert_int_equal(send_to("/missing", &req), DV_OK);
    until(&w.n_done, 1);
    assert_int_equal(w.code, DV_OK);
    assert_int_equal(w.status, 404);
    assert_string_equal(w.got, "no such thing"); /* kept for on_done, though the call streams */
    assert_int_equal(w.n_data, 0);
}

static void a_stream_comes_piece_by_piece(void **state)
{
    (void)state;
    struct dv_httpc_request req = {.on_data = on_data};
    assert_int_equal(send_to("/park", &req), DV_OK);
    until(&w.n_requests, 1);
    dv_http_stream(w.parked, 200, "text/plain");
    (void)dv_http_stream_write(w.parked, DV_SV("one,"));
    until(&w.n_data, 1);
    (void)dv_http_stream_write(w.parked, DV_SV("two"));
    until(&w.n_data, 2);
    assert_int_equal(w.n_done, 0);
    dv_http_stream_end(w.parked);
    until(&w.n_done, 1);
    assert_string_equal(w.got, "one,two");
    assert_int_equal(w.code, DV_OK);
}

static void begin_stream(int does)
{
    struct dv_httpc_request req = {.on_data = on_data};
    w.on_data_does = (__typeof__(w.on_data_does))does;
    assert_int_equal(send_to("/park", &req), DV_OK);
    until(&w.n_requests, 1);
    dv_http_stream(w.parked, 200, "text/plain");
    (void)dv_http_stream_write(w.parked, DV_SV("x"));
    until(&w.n_data, 1);
}

static void a_reader_may_end_its_stream(void **state)
{
    (void)state;
    begin_stream(STOP_CALL);
    until(&w.n_done, 1);
    assert_int_equal(w.code, DV_CLOSED);
    until(&w.n_gone, 1);
    dv_http_stream_end(w.parked);
}

static void a_call_may_be_cancelled_inside_its_own_data_callback(void **state)
{
    (void)state;
    begin_stream(CANCEL_CALL);
    until(&w.n_gone, 1);
    dv_http_stream_end(w.parked);
    turns(3);
    assert_int_equal(w.n_done, 0);
}

static void a_call_may_be_sent_from_inside_a_data_callback(void **state)
{
    (void)state;
    begin_stream(SEND_ANOTHER);
    until(&w.n_done, 1);
    assert_int_equal(w.status, 200);
    assert_string_equal(w.path, "/other");
    dv_http_stream_end(w.parked);
    until(&w.n_done, 2);
}

static void a_cancelled_call_says_nothing_more(void **state)
{
    (void)state;
    assert_int_equal(send_to("/x", NULL), DV_OK);
    dv_httpc_cancel(w.call); /* before it began */
    turns(3);
    assert_int_equal(w.n_requests, 0);
    assert_int_equal(send_to("/park", NULL), DV_OK);
    until(&w.n_requests, 1);
    dv_httpc_cancel(w.call); /* under way */
    until(&w.n_gone, 1);
    dv_http_reply(w.parked, 200, NULL, DV_SV(""));
    turns(3);
    assert_int_equal(w.n_done, 0);
    w.cancel_in_done = true; /* too late: nothing happens */
    assert_int_equal(send_to("/x", NULL), DV_OK);
    until(&w.n_done, 1);
}

static void a_call_past_its_deadline_ends(void **state)
{
    (void)state;
    struct dv_httpc_request req = {.timeout_ms = 30};
    assert_int_equal(send_to("/park", &req), DV_OK);
    until(&w.n_done, 1);
    assert_int_equal(w.code, DV_DEADLINE);
    assert_true(w.err[0]);
    until(&w.n_gone, 1);
    dv_http_reply(w.parked, 200, NULL, DV_SV(""));
}

static void an_answer_past_the_limit_ends_the_call(void **state)
{
    (void)state;
    struct dv_httpc_request req = {.body_max = 4999};
    assert_int_equal(send_to("/big", &req), DV_OK);
    until(&w.n_done, 1);
    assert_int_equal(w.code, DV_TOO_LARGE);
    req.body_max = 5000;
    assert_int_equal(send_to("/big", &req), DV_OK);
    until(&w.n_done, 2);
    assert_int_equal(w.code, DV_OK);
}

static void a_server_that_is_not_there_says_why(void **state)
{
    (void)state;
    struct dv_httpc_request req = {
        .url = "http://davit/", .unix_socket = "/tmp/dv-no-such-socket", .on_done = on_done};
    assert_int_equal(dv_httpc_send(w.c, &req, NULL, NULL), DV_OK);
    until(&w.n_done, 1);
    assert_int_equal(w.code, DV_E_NET);
    assert_true(w.err[0]);
    int fd = -1;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    DV_AUTO_STR char *url = dv_asprintf("http://127.0.0.1:%d/", dv_socket_port(fd));
    (void)close(fd);
    req = (struct dv_httpc_request){.url = url, .on_done = on_done};
    assert_int_equal(dv_httpc_send(w.c, &req, NULL, NULL), DV_OK);
    until(&w.n_done, 2);
    assert_int_equal(w.code, DV_E_NET);
    assert_int_equal(w.sys_errno, ECONNREFUSED);
}

static void other_schemes_are_refused(void **state)
{
    (void)state;
    struct dv_httpc_request req = {.url = "file:///etc/hostname", .on_done = on_done};
    assert_int_equal(dv_httpc_send(w.c, &req, NULL, NULL), DV_OK);
    until(&w.n_done, 1);
    assert_int_not_equal(w.code, DV_OK);
    assert_string_equal(w.got, "");
}

static void freeing_the_client_ends_its_calls_first(void **state)
{
    (void)state;
    assert_int_equal(send_to("/park", NULL), DV_OK);
    until(&w.n_requests, 1);
    assert_int_equal(send_to("/never-sent", NULL), DV_OK);
    dv_httpc_free(w.c);
    w.c = NULL;
    assert_int_equal(w.n_done, 2);
    assert_int_equal(w.code, DV_CLOSED);
    until(&w.n_gone, 1);
    dv_http_reply(w.parked, 200, NULL, DV_SV(""));
}

static void the_client_may_be_freed_inside_on_done(void **state)
{
    (void)state;
    w.free_in_done = true;
    assert_int_equal(send_to("/x", NULL), DV_OK);
    until(&w.n_done, 1);
    turns(3);
}

static void fifty_calls_at_once_are_all_answered(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        assert_int_equal(send_to("/x", NULL), DV_OK);
    until(&w.n_done, 50);
    assert_int_equal(w.n_requests, 50);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(a_call_is_answered_after_send_returned),
        T(method_body_and_headers_arrive_as_given),
        T(a_header_with_a_line_break_is_refused),
        T(any_status_is_an_answer),
        T(a_stream_comes_piece_by_piece),
        T(a_reader_may_end_its_stream),
        T(a_call_may_be_cancelled_inside_its_own_data_callback),
        T(a_call_may_be_sent_from_inside_a_data_callback),
        T(a_cancelled_call_says_nothing_more),
        T(a_call_past_its_deadline_ends),
        T(an_answer_past_the_limit_ends_the_call),
        T(a_server_that_is_not_there_says_why),
        T(other_schemes_are_refused),
        T(freeing_the_client_ends_its_calls_first),
        T(the_client_may_be_freed_inside_on_done),
        T(fifty_calls_at_once_are_all_answered),
    };
    return cmocka_run_group_tests_name("httpc", tests, NULL, NULL);
}
