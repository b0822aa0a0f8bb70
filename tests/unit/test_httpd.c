#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/arena.h"
#include "proto/rt/httpd.h"
#include "proto/rt/loop.h"

/* A server with a handler that acts by the path, and raw sockets as clients. */
static struct world {
    struct dv_loop *loop;
    struct dv_httpd *d;
    struct dv_http_req *parked;
    int n_requests, n_gone;
    char method[16], path[128], query[128], header[64], body[256], param[64];
} w;

static void on_gone(void *user)
{
    struct world *world = user;
    world->n_gone++;
}

static void on_request(void *ctx, struct dv_http_req *r)
{
    (void)ctx;
    w.n_requests++;
    (void)snprintf(w.method, sizeof(w.method), "%.*s", (int)dv_http_method(r).n, dv_http_method(r).p);
    (void)snprintf(w.path, sizeof(w.path), "%.*s", (int)dv_http_path(r).n, dv_http_path(r).p);
    (void)snprintf(w.query, sizeof(w.query), "%.*s", (int)dv_http_query(r).n, dv_http_query(r).p);
    (void)snprintf(w.body, sizeof(w.body), "%.*s", (int)dv_http_body(r).n, dv_http_body(r).p);
    (void)snprintf(w.header, sizeof(w.header), "%.*s", (int)dv_http_header(r, "x-test").n,
                   dv_http_header(r, "x-test").n ? dv_http_header(r, "x-test").p : "");
    if (dv_sv_starts(dv_http_path(r), DV_SV("/park"))) {
        w.parked = r;
        dv_http_set_user(r, &w, on_gone);
        return;
    }
    dv_http_set_header(r, "X-Answer", "yes");
    dv_http_reply(r, 200, "text/plain", DV_SV("hello"));
}

static void on_error(void *ctx, struct dv_http_req *r, int status, const char *why)
{
    (void)ctx;
    char text[128];
    (void)snprintf(text, sizeof(text), "problem %d: %s", status, why);
    dv_http_reply(r, status, "application/problem+json", dv_sv_c(text));
}

static int start(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    if (dv_loop_new(&dv_clock_system, &w.loop, NULL))
        return -1;
    struct dv_httpd_cfg cfg = {
        .address = "127.0.0.1:0", .body_max = 100, .on_request = on_request, .on_error = on_error};
    return dv_httpd_start(w.loop, &cfg, &w.d, NULL);
}

static int stop(void **state)
{
    (void)state;
    dv_httpd_stop(w.d);
    dv_loop_free(w.loop);
    return 0;
}

static int dial(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)dv_httpd_port(w.d)),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    return fd;
}

static void put(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(dv_loop_turn(w.loop, 2), DV_OK);
}

/* Turn the loop until what came contains `want`, or two seconds passed. */
static const char *get(int fd, const char *want)
{
    static char in[8192];
    size_t n = 0;
    in[0] = '\0';
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 2 * DV_S;
    while (!strstr(in, want) && dv_clock_now_ns(&dv_clock_system) < until) {
        turns(1);
        ssize_t got = recv(fd, in + n, sizeof(in) - 1 - n, MSG_DONTWAIT);
        if (got > 0)
            in[n += (size_t)got] = '\0';
    }
    if (!strstr(in, want))
        fail_msg("no \"%s\" in \"%s\"", want, in);
    return in;
}

static void until(const int *counter, int value)
{
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + 2 * DV_S;
    while (*counter < value && dv_clock_now_ns(&dv_clock_system) < end)
        turns(1);
    assert_int_equal(*counter, value);
}

static bool is_closed(int fd)
{
    char c;
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + 2 * DV_S;
    while (dv_clock_now_ns(&dv_clock_system) < end) {
        turns(1);
        ssize_t n = recv(fd, &c, 1, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return true;
    }
    return false;
}

static void a_request_is_seen_as_it_was_sent(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd,
        "POST /a%2Fb/c?x=1%202&y&z=%00 HTTP/1.1\r\nHost: h\r\nX-Test: v\r\nContent-Length: 4\r\n\r\nbody");
    const char *in = get(fd, "\r\n\r\nhello");
    assert_true(strstr(in, "HTTP/1.1 200 OK\r\n") == in);
    assert_non_null(strstr(in, "X-Answer: yes\r\n"));
    assert_non_null(strstr(in, "Content-Type: text/plain\r\n"));
    assert_string_equal(w.method, "POST");
    assert_string_equal(w.path, "/a%2Fb/c");
    assert_string_equal(w.query, "x=1%202&y&z=%00");
    assert_string_equal(w.header, "v");
    assert_string_equal(w.body, "body");
}

static void query_parameters_are_decoded(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd, "GET /park?a=1%2B2+3&b&&c=%zz%00&a=second HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    assert_string_equal(dv_http_param(w.parked, "a"), "1+2 3");
    assert_string_equal(dv_http_param(w.parked, "b"), "");
    assert_string_equal(dv_http_param(w.parked, "c"), "%zz%00");
    assert_null(dv_http_param(w.parked, "d"));
    const char *k, *v;
    assert_true(dv_http_param_at(w.parked, 3, &k, &v));
    assert_string_equal(v, "second");
    assert_false(dv_http_param_at(w.parked, 4, &k, &v));
    dv_http_reply(w.parked, 204, NULL, DV_SV(""));
    (void)get(fd, "HTTP/1.1 204 No Content\r\n");
}

static void an_answer_may_come_later_and_the_connection_is_kept(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    for (int i = 1; i <= 3; i++) {
        put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
        until(&w.n_requests, i);
        turns(2);
        dv_http_reply(w.parked, 200, "text/plain", DV_SV("late"));
        (void)get(fd, "\r\n\r\nlate");
    }
    assert_int_equal(w.n_gone, 0);
}

static void head_gets_the_length_and_no_body(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *in = get(fd, "\r\n\r\n");
    assert_non_null(strstr(in, "Content-Length: 5\r\n"));
    assert_null(strstr(in, "hello"));
}

static void a_client_that_leaves_while_parked_is_noticed(void **state)
{
    (void)state;
    int fd = dial();
    put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    (void)close(fd);
    until(&w.n_gone, 1);
    dv_http_reply(w.parked, 200, "text/plain", DV_SV("nobody reads this"));
    turns(3);
    assert_int_equal(w.n_gone, 1);
}

static void a_stream_is_delivered_piece_by_piece(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    dv_http_stream(w.parked, 200, "text/event-stream");
    const char *in = get(fd, "\r\n\r\n");
    assert_non_null(strstr(in, "Transfer-Encoding: chunked\r\n"));
    assert_int_equal(dv_http_stream_write(w.parked, DV_SV("one\n")), DV_OK);
    (void)get(fd, "one\n");
    assert_int_equal(dv_http_stream_write(w.parked, DV_SV("two\n")), DV_OK);
    assert_int_equal(dv_http_stream_write(w.parked, DV_SV("three\n")), DV_OK);
    (void)get(fd, "three\n");
    dv_http_stream_end(w.parked);
    (void)get(fd, "0\r\n\r\n");
    put(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); /* the connection goes on */
    (void)get(fd, "\r\n\r\nhello");
    assert_int_equal(w.n_gone, 0);
}

static void a_stream_ended_before_anything_left_is_complete(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    dv_http_stream(w.parked, 200, "text/plain");
    (void)dv_http_stream_write(w.parked, DV_SV("all"));
    dv_http_stream_end(w.parked);
    const char *in = get(fd, "0\r\n\r\n");
    assert_non_null(strstr(in, "3\r\nall\r\n"));
}

static void a_client_that_leaves_a_silent_stream_is_noticed(void **state)
{
    (void)state;
    int fd = dial();
    put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    dv_http_stream(w.parked, 200, "text/plain");
    (void)dv_http_stream_write(w.parked, DV_SV("x"));
    (void)get(fd, "x");
    (void)close(fd);
    until(&w.n_gone, 1);
    assert_int_equal(dv_http_stream_write(w.parked, DV_SV("y")), DV_OK);
    turns(2);
    assert_int_equal(dv_http_stream_write(w.parked, DV_SV("z")), DV_OK);
    dv_http_stream_end(w.parked);
}

static void a_slow_reader_makes_the_writer_slow_down(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    dv_http_stream(w.parked, 200, "text/plain");
    static char block[65536];
    memset(block, 'b', sizeof(block));
    int rc = DV_OK, n = 0;
    for (; rc == DV_OK && n < 1000; n++) {
        rc = dv_http_stream_write(w.parked, dv_sv(block, sizeof(block)));
        turns(1);
    }
    assert_int_equal(rc, DV_AGAIN);
    assert_true(n > 16);
    dv_http_stream_end(w.parked);
}

static void a_body_past_the_limit_gets_413_shaped_by_on_error(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    char big[400];
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    put(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 399\r\n\r\n");
    turns(2);
    put(fd, big);
    const char *in = get(fd, "problem 413");
    assert_non_null(strstr(in, "application/problem+json"));
    assert_int_equal(w.n_requests, 0);
    put(fd, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n18f\r\n");
    put(fd, big);
    put(fd, "\r\n0\r\n\r\n");
    (void)get(fd, "problem 413");
    assert_int_equal(w.n_requests, 0);
}

static void a_client_that_asks_first_gets_413_without_sending(void **state)
{
    (void)state;
    DV_AUTO_FD int fd = dial();
    put(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n");
    const char *in = get(fd, "problem 413");
    assert_null(strstr(in, "100 Continue"));
    assert_true(is_closed(fd));
}

static void two_lengths_and_length_beside_chunked_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < DV_COUNT(bad); i++) {
        DV_AUTO_FD int fd = dial();
        put(fd, bad[i]);
        (void)get(fd, "problem 400");
        assert_true(is_closed(fd));
    }
    assert_int_equal(w.n_requests, 0);
}

static void rubbish_and_half_requests_leave_nothing_behind(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x16\x03\x01\x02", "GET\r\n\r\n", "GET / HTTP/1.1\r\n no\r\n\r\n",
                                      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhalf"};
    for (size_t i = 0; i < DV_COUNT(bad); i++) {
        int fd = dial();
        put(fd, bad[i]);
        turns(3);
        (void)close(fd);
        turns(3);
    }
    assert_int_equal(w.n_requests, 0);
}

static void stopping_answers_what_waits_and_ends_streams(void **state)
{
    (void)state;
    DV_AUTO_FD int a = dial();
    DV_AUTO_FD int b = dial();
    put(a, "GET /park/a HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 1);
    put(b, "GET /park/b HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 2);
    dv_http_stream(w.parked, 200, "text/plain");
    (void)dv_http_stream_write(w.parked, DV_SV("part"));
    (void)get(b, "part");
    dv_httpd_stop(w.d);
    w.d = NULL;
    assert_int_equal(w.n_gone, 2);
    char in[512] = "";
    assert_true(recv(a, in, sizeof(in) - 1, MSG_DONTWAIT) > 0);
    assert_non_null(strstr(in, "HTTP/1.1 503"));
    memset(in, 0, sizeof(in));
    assert_true(recv(b, in, sizeof(in) - 1, MSG_DONTWAIT) > 0);
    assert_non_null(strstr(in, "0\r\n\r\n"));
}

static void a_taken_address_is_an_error_that_names_it(void **state)
{
    (void)state;
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", dv_httpd_port(w.d));
    struct dv_httpd_cfg cfg = {.address = address, .body_max = 100, .on_request = on_request};
    struct dv_httpd *second = NULL;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_httpd_start(w.loop, &cfg, &second, &err), DV_E_IO);
    assert_int_equal(err.code, DV_E_IO);
    assert_non_null(strstr(err.msg, address));
    assert_non_null(strstr(err.msg, "already in use"));
    assert_null(second);
}

static void it_serves_on_a_unix_socket_and_notices_who_leaves(void **state)
{
    (void)state;
    char dir[] = "/tmp/dv-httpd-XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    (void)snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", dir);
    struct dv_httpd_cfg cfg = {.unix_path = sun.sun_path, .body_max = 100, .on_request = on_request};
    struct dv_httpd *u = NULL;
    assert_int_equal(dv_httpd_start(w.loop, &cfg, &u, NULL), DV_OK);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    put(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    (void)get(fd, "hello");
    put(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n");
    until(&w.n_requests, 2);
    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* says all it had to say, still reads */
    turns(3);
    assert_int_equal(w.n_gone, 0);
    (void)close(fd);
    until(&w.n_gone, 1);
    dv_http_reply(w.parked, 200, NULL, DV_SV(""));
    dv_httpd_stop(u);
    assert_int_equal(access(sun.sun_path, F_OK), -1);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, start, stop)
    const struct CMUnitTest tests[] = {
        T(a_request_is_seen_as_it_was_sent),
        T(query_parameters_are_decoded),
        T(an_answer_may_come_later_and_the_connection_is_kept),
        T(head_gets_the_length_and_no_body),
        T(a_client_that_leaves_while_parked_is_noticed),
        T(a_stream_is_delivered_piece_by_piece),
        T(a_stream_ended_before_anything_left_is_complete),
        T(a_client_that_leaves_a_silent_stream_is_noticed),
        T(a_slow_reader_makes_the_writer_slow_down),
        T(a_body_past_the_limit_gets_413_shaped_by_on_error),
        T(a_client_that_asks_first_gets_413_without_sending),
        T(two_lengths_and_length_beside_chunked_are_refused),
        T(rubbish_and_half_requests_leave_nothing_behind),
        T(stopping_answers_what_waits_and_ends_streams),
        T(a_taken_address_is_an_error_that_names_it),
        T(it_serves_on_a_unix_socket_and_notices_who_leaves),
    };
    return cmocka_run_group_tests_name("httpd", tests, NULL, NULL);
}
