#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/h1up.h"
#include "proto/rt/loop.h"

/* The upstream is the test itself, with a plain socket in its hand. */

static struct dv_loop *loop;
static int listener_fd, peer = -1;
static struct dv_addr address;
static struct dv_h1up *up;
static struct dv_buf heard; /* by the upstream */

static struct {
    int n_heads, n_ends, n_errors, n_writable, last_status;
    bool is_reusable;
    enum dv_h1up_fail why;
    struct dv_buf body, trailers;
    size_t take_max; /* per call */
    bool free_in_data, free_in_end, begin_in_end;
} seen;

static void begin(const char *method, enum dv_h1_body body, uint64_t length);

static void on_head(void *ctx, const struct dv_h1_head *head)
{
    (void)ctx;
    seen.n_heads++;
    seen.last_status = head->status;
}

static size_t on_data(void *ctx, struct dv_sv bytes)
{
    (void)ctx;
    size_t n = bytes.n < seen.take_max ? bytes.n : seen.take_max;
    assert_int_equal(dv_buf_add(&seen.body, bytes.p, n), DV_OK);
    if (seen.free_in_data) {
        dv_h1up_free(up);
        up = NULL;
    }
    return n;
}

static void on_trailers(void *ctx, struct dv_sv fields)
{
    (void)ctx;
    assert_int_equal(dv_buf_add_sv(&seen.trailers, fields), DV_OK);
}

static void on_end(void *ctx, bool is_reusable)
{
    (void)ctx;
    seen.n_ends++;
    seen.is_reusable = is_reusable;
    if (seen.begin_in_end && seen.n_ends == 1)
        begin("GET", DV_H1_NO_BODY, 0);
    if (seen.free_in_end) {
        dv_h1up_free(up);
        up = NULL;
    }
}

static void on_writable(void *ctx)
{
    (void)ctx;
    seen.n_writable++;
}

static void on_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    (void)ctx;
    assert_true(err->msg[0] != '\0');
    seen.n_errors++;
    seen.why = why;
    dv_h1up_free(up);
    up = NULL;
}

static const struct dv_h1up_ops ops = {on_head, on_data, on_trailers, on_end, on_writable, on_error};

static int set_up(void **state)
{
    (void)state;
    memset(&seen, 0, sizeof(seen));
    seen.take_max = SIZE_MAX;
    peer = -1;
    assert_int_equal(dv_addr_parse("127.0.0.1:0", &address, NULL), DV_OK);
    listener_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener_fd, &address.sa, address.len), 0);
    assert_int_equal(listen(listener_fd, 4), 0);
    assert_int_equal(getsockname(listener_fd, &address.sa, &address.len), 0);
    return dv_loop_new(&dv_clock_system, &loop, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    dv_h1up_free(up);
    up = NULL;
    dv_buf_deinit(&seen.body);
    dv_buf_deinit(&seen.trailers);
    dv_buf_deinit(&heard);
    if (peer >= 0)
        (void)close(peer);
    (void)close(listener_fd);
    dv_loop_free(loop);
    return 0;
}

#define RUN_UNTIL(cond)                                                                                      \
    do {                                                                                                     \
        uint64_t end_ns_ = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;                                     \
        while (!(cond)) {                                                                                    \
            assert_true(dv_clock_now_ns(&dv_clock_system) < end_ns_);                                        \
            assert_int_equal(dv_loop_turn(loop, 5), DV_OK);                                                  \
        }                                                                                                    \
    } while (0)

static bool accepted(void)
{
    if (peer < 0)
        peer = accept4(listener_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return peer >= 0;
}

static void open_up(void)
{
    assert_int_equal(dv_h1up_connect(loop, &address, &ops, NULL, &up, NULL), DV_OK);
    RUN_UNTIL(accepted() && dv_h1up_is_connected(up));
}

static void begin(const char *method, enum dv_h1_body body, uint64_t length)
{
    struct dv_h1up_request req = {.method = dv_sv_c(method),
                                  .target = DV_SV("/x"),
                                  .fields = DV_SV("Host: a\r\n"),
                                  .body = body,
                                  .content_length = length};
    assert_int_equal(dv_h1up_begin(up, &req), DV_OK);
}

static void say(const char *text)
{
    size_t n = strlen(text);
    assert_int_equal(send(peer, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* The upstream hears this much; its end is looked at, since bytes may have come before. */
static void hear(const char *text)
{
    dv_buf_reset(&heard, 0);
    uint64_t end_ns = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;
    while (dv_buf_len(&heard) < strlen(text)) {
        assert_true(dv_clock_now_ns(&dv_clock_system) < end_ns);
        assert_int_equal(dv_loop_turn(loop, 5), DV_OK);
        char bytes[4096];
        ssize_t n = recv(peer, bytes, sizeof(bytes), 0);
        if (n > 0)
            assert_int_equal(dv_buf_add(&heard, bytes, (size_t)n), DV_OK);
    }
    assert_string_equal(dv_buf_cstr(&heard), text);
}

/* Nothing is ready again and again: a turn of the loop waits. */
static void assert_quiet(void)
{
    assert_int_equal(dv_loop_turn(loop, 0), DV_OK);
    uint64_t from_ns = dv_clock_now_ns(&dv_clock_system);
    assert_int_equal(dv_loop_turn(loop, 20), DV_OK);
    assert_true(dv_clock_now_ns(&dv_clock_system) - from_ns >= 15 * DV_MS);
}

static void answered(const char *text)
{
    say(text);
    RUN_UNTIL(seen.n_ends || seen.n_errors);
}

static void assert_body(const char *text)
{
    assert_string_equal(dv_buf_cstr(&seen.body), text);
}

/* ---- plain requests ---- */

static void one_connection_carries_request_after_request(void **state)
{
    (void)state;
    open_up();
    for (int i = 1; i <= 3; i++) {
        begin("GET", DV_H1_NO_BODY, 0);
        hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        RUN_UNTIL(seen.n_ends == i);
        assert_true(seen.is_reusable);
        assert_body("hello");
        dv_buf_clear(&seen.body);
    }
}

static void a_request_may_begin_before_the_connection_stands_and_inside_on_end(void **state)
{
    (void)state;
    seen.begin_in_end = true;
    assert_int_equal(dv_h1up_connect(loop, &address, &ops, NULL, &up, NULL), DV_OK);
    begin("GET", DV_H1_NO_BODY, 0);
    RUN_UNTIL(accepted());
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    answered("HTTP/1.1 204 No Content\r\n\r\n");
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    RUN_UNTIL(seen.n_ends == 2);
    assert_true(seen.is_reusable);
}

static void bodies_are_framed_as_the_request_says(void **state)
{
    (void)state;
    open_up();
    size_t taken;
    begin("POST", DV_H1_LENGTH, 5);
    assert_int_equal(dv_h1up_finish(up, DV_SV("")), DV_INVALID); /* five bytes are missing */
    assert_int_equal(dv_h1up_send(up, "helloo", 6, &taken), DV_INVALID);
    assert_int_equal(dv_h1up_send(up, "hello", 5, &taken), DV_OK);
    assert_int_equal(taken, 5);
    assert_int_equal(dv_h1up_finish(up, DV_SV("")), DV_OK);
    hear("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    answered("HTTP/1.1 204 No Content\r\n\r\n");
    assert_true(seen.is_reusable);

    begin("POST", DV_H1_CHUNKED, 0);
    assert_int_equal(dv_h1up_send(up, "hello, wide world!", 18, &taken), DV_OK);
    assert_int_equal(dv_h1up_finish(up, DV_SV("A: b\r\n")), DV_OK);
    assert_int_equal(dv_h1up_send(up, "x", 1, &taken), DV_INVALID);
    hear("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         "12\r\nhello, wide world!\r\n0\r\nA: b\r\n\r\n");
    say("HTTP/1.1 204 No Content\r\n\r\n");
    RUN_UNTIL(seen.n_ends == 2);
    assert_true(seen.is_reusable);
}

static void a_second_request_at_once_is_our_bug_and_none_follows_a_failure(void **state)
{
    (void)state;
    open_up();
    begin("GET", DV_H1_NO_BODY, 0);
    struct dv_h1up_request req = {.method = DV_SV("GET"), .target = DV_SV("/")};
    assert_int_equal(dv_h1up_begin(up, &req), DV_E_BUG);
    RUN_UNTIL(dv_h1up_backlog(up) == 0);
    answered("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_int_equal(dv_h1up_begin(up, &req), DV_CLOSED);
}

/* ---- answers ---- */

static void an_answer_reads_the_same_however_its_bytes_arrive(void **state)
{
    (void)state;
    static const char text[] =
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
        "\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nDigest: z\r\n\r\n";
    open_up();
    for (size_t piece = 1; piece < sizeof(text); piece += piece < 8 ? 1 : 23) {
        seen.n_heads = seen.n_ends = 0;
        dv_buf_clear(&seen.body);
        dv_buf_clear(&seen.trailers);
        begin("GET", DV_H1_NO_BODY, 0);
        hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        for (size_t i = 0; i < sizeof(text) - 1; i += piece) {
            size_t n = sizeof(text) - 1 - i < piece ? sizeof(text) - 1 - i : piece;
            assert_int_equal(send(peer, text + i, n, 0), (ssize_t)n);
            assert_int_equal(dv_loop_turn(loop, 0), DV_OK);
        }
        RUN_UNTIL(seen.n_ends);
        assert_true(seen.is_reusable);
        assert_int_equal(seen.n_heads, 2);
        assert_int_equal(seen.last_status, 200);
        assert_body("hello, world");
        assert_string_equal(dv_buf_cstr(&seen.trailers), "Digest: z\r\n");
    }
}

static void reuse_is_judged_by_what_is_certain(void **state)
{
    (void)state;
    static const struct {
        const char *method, *text;
        bool closes, is_reusable;
        const char *body;
    } rows[] = {
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, true, "ok"},
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false, false, "ok"},
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", false, false, "ok"},
        {"GET", "HTTP/1.1 200 OK\r\n\r\nuntil the end", true, false, "until the end"},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false, false, "ok"},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", false, true,
         "ok"},
        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false, true, ""},
        {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", false, true, ""},
        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nx", false, false,
         "ok"},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        open_up();
        begin(rows[i].method, DV_H1_NO_BODY, 0);
        RUN_UNTIL(dv_h1up_backlog(up) == 0);
        say(rows[i].text);
        if (rows[i].closes)
            assert_int_equal(shutdown(peer, SHUT_WR), 0);
        RUN_UNTIL(seen.n_ends);
        assert_int_equal(seen.n_errors, 0);
        assert_int_equal(seen.is_reusable, rows[i].is_reusable);
        assert_quiet();
        assert_body(rows[i].body);
        (void)tear_down(NULL);
        (void)set_up(NULL);
    }
}

/* It promises keep-alive, but its end stands behind the answer: whoever is lent the connection in the same
 * turn would write into it. */
static void an_end_right_behind_the_answer_is_seen_with_it(void **state)
{
    (void)state;
    int on = 1;
    open_up();
    begin("GET", DV_H1_NO_BODY, 0);
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(setsockopt(peer, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)), 0); /* both in one segment */
    say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    RUN_UNTIL(seen.n_ends);
    assert_false(seen.is_reusable);
    assert_body("ok");
    assert_int_equal(seen.n_errors, 0);
}

static void an_answer_that_was_there_before_its_request_is_not_its_answer(void **state)
{
    (void)state;
    open_up();
    begin("GET", DV_H1_NO_BODY, 0);
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    answered("HTTP/1.1 204 No Content\r\n\r\n");
    assert_true(seen.is_reusable);
    say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
    begin("POST", DV_H1_NO_BODY, 0);
    RUN_UNTIL(seen.n_errors);
    assert_int_equal(seen.why, DV_H1UP_UNSENT); /* safe to send elsewhere */
    assert_int_equal(seen.n_ends, 1);
}

static void an_answer_that_overtakes_its_request_arrives_and_ends_the_connection(void **state)
{
    (void)state;
    open_up();
    begin("POST", DV_H1_LENGTH, 1000000);
    size_t taken;
    assert_int_equal(dv_h1up_send(up, "start", 5, &taken), DV_OK);
    RUN_UNTIL(dv_h1up_backlog(up) == 0);
    answered("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig!");
    assert_int_equal(seen.last_status, 413);
    assert_body("big!");
    assert_false(seen.is_reusable);
    static const char rest[100000];
    assert_int_equal(dv_h1up_send(up, rest, sizeof(rest), &taken), DV_OK);
    assert_int_equal(taken, sizeof(rest)); /* swallowed */
}

/* ---- failures ---- */

static void failures_say_whether_the_upstream_can_have_seen_the_request(void **state)
{
    (void)state;
    static const struct {
        const char *answer; /* then close */
        bool second;        /* the connection was used before */
        enum dv_h1up_fail why;
    } rows[] = {
        {"", false, DV_H1UP_BROKEN},
        {"", true, DV_H1UP_STALE},
        {"HTTP/1.1 2", true, DV_H1UP_BROKEN},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", false, DV_H1UP_BROKEN},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true, DV_H1UP_BROKEN},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", false, DV_H1UP_BAD_ANSWER},
        {"HTTP/1.1 200 OK\nContent-Length: 5\n\n", false, DV_H1UP_BAD_ANSWER},
        {"SSH-2.0-OpenSSH_9.2\r\n", false, DV_H1UP_BAD_ANSWER},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false, DV_H1UP_BAD_ANSWER},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        open_up();
        if (rows[i].second) {
            begin("GET", DV_H1_NO_BODY, 0);
            hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
            answered("HTTP/1.1 204 No Content\r\n\r\n");
        }
        begin("GET", DV_H1_NO_BODY, 0);
        hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        say(rows[i].answer);
        assert_int_equal(shutdown(peer, SHUT_WR), 0);
        RUN_UNTIL(seen.n_errors);
        if (seen.why != rows[i].why)
            print_error("row %zu\n", i);
        assert_int_equal(seen.why, rows[i].why);
        (void)tear_down(NULL);
        (void)set_up(NULL);
    }
}

/* Between the turn's events and its writes. */
static struct {
    struct dv_timer timer;
    bool is_half;
} meanwhile;

static void close_and_ask(struct dv_timer *t)
{
    (void)t;
    if (meanwhile.is_half) {
        assert_int_equal(shutdown(peer, SHUT_WR), 0);
    } else {
        (void)close(peer);
        peer = -1;
    }
    begin("POST", DV_H1_LENGTH, 5);
    size_t taken;
    assert_int_equal(dv_h1up_send(up, "hello", 5, &taken), DV_OK);
}

static void ask_while_it_closes(bool is_half)
{
    open_up();
    begin("GET", DV_H1_NO_BODY, 0);
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    answered("HTTP/1.1 204 No Content\r\n\r\n");
    assert_true(seen.is_reusable);
    meanwhile.timer = (struct dv_timer){.fn = close_and_ask};
    meanwhile.is_half = is_half;
    assert_int_equal(dv_timer_set(loop, &meanwhile.timer, 1), DV_OK);
    assert_int_equal(dv_loop_turn(loop, 5), DV_OK);
    assert_true(seen.n_errors || dv_h1up_has_written(up)); /* else the test would show nothing */
    RUN_UNTIL(seen.n_errors);
}

static void a_request_written_to_a_connection_that_is_just_being_closed_was_not_seen(void **state)
{
    (void)state;
    ask_while_it_closes(false);
    assert_int_equal(seen.why, DV_H1UP_UNSENT);
}

static void a_half_closed_upstream_may_have_read_it(void **state)
{
    (void)state;
    ask_while_it_closes(true);
    assert_int_equal(seen.why, DV_H1UP_STALE);
}

static void an_upstream_that_closes_with_the_request_unread_may_have_read_it(void **state)
{
    (void)state;
    open_up();
    begin("GET", DV_H1_NO_BODY, 0);
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    answered("HTTP/1.1 204 No Content\r\n\r\n");
    begin("POST", DV_H1_NO_BODY, 0);
    assert_int_equal(dv_loop_turn(loop, 0), DV_OK);
    char byte;
    RUN_UNTIL(recv(peer, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1);
    (void)close(peer); /* part of it may have been looked at: nobody knows */
    peer = -1;
    RUN_UNTIL(seen.n_errors);
    assert_int_equal(seen.why, DV_H1UP_STALE);
}

static void a_refused_connection_is_told_later_and_apart(void **state)
{
    (void)state;
    (void)close(listener_fd);
    listener_fd = -1;
    assert_int_equal(dv_h1up_connect(loop, &address, &ops, NULL, &up, NULL), DV_OK);
    begin("GET", DV_H1_NO_BODY, 0);
    assert_int_equal(seen.n_errors, 0);
    RUN_UNTIL(seen.n_errors);
    assert_int_equal(seen.why, DV_H1UP_REFUSED);

    struct dv_addr nowhere;
    assert_int_equal(dv_addr_parse("unix:/nonexistent/socket", &nowhere, NULL), DV_OK);
    assert_int_equal(dv_h1up_connect(loop, &nowhere, &ops, NULL, &up, NULL), DV_OK);
    assert_int_equal(seen.n_errors, 1);
    RUN_UNTIL(seen.n_errors == 2);
    assert_int_equal(seen.why, DV_H1UP_REFUSED);
}

static void an_idle_connection_that_closes_or_speaks_is_given_up(void **state)
{
    (void)state;
    open_up();
    (void)close(peer);
    peer = -1;
    RUN_UNTIL(seen.n_errors);
    assert_int_equal(seen.why, DV_H1UP_IDLE_CLOSED);
    open_up();
    say("HTTP/1.1 408 Request Timeout\r\n\r\n");
    RUN_UNTIL(seen.n_errors == 2);
    assert_int_equal(seen.why, DV_H1UP_IDLE_CLOSED);
}

static void a_connection_may_be_freed_inside_its_callbacks(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        seen.free_in_data = i == 0;
        seen.free_in_end = i == 1;
        open_up();
        begin("GET", DV_H1_NO_BODY, 0);
        hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        RUN_UNTIL(!up);
        assert_int_equal(seen.n_ends, i);
        (void)close(peer);
        peer = -1;
    }
}

/* ---- back-pressure ---- */

static void a_slow_owner_gets_every_byte_once_and_memory_stays_bounded(void **state)
{
    (void)state;
    enum { TOTAL = 1000000, CHUNK = 1000 };
    for (int chunked = 0; chunked < 2; chunked++) {
        open_up();
        begin("GET", DV_H1_NO_BODY, 0);
        hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        seen.take_max = 7001;
        DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT, want = DV_BUF_INIT;
        (void)dv_buf_add_c(&answer, chunked ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                            : "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        for (int i = 0; i < TOTAL / CHUNK; i++) {
            char block[CHUNK + 1];
            (void)snprintf(block, sizeof(block), "%0*d", CHUNK, i);
            (void)dv_buf_addf(&answer, chunked ? "%x\r\n%s\r\n" : "%.0x%s", chunked ? CHUNK : 0, block);
            (void)dv_buf_add_c(&want, block);
        }
        (void)dv_buf_add_c(&answer, chunked ? "0\r\n\r\n" : "");
        assert_int_equal(answer.failed | want.failed, 0);
        while (!seen.n_ends) {
            ssize_t n =
                dv_buf_len(&answer) ? send(peer, dv_buf_ptr(&answer), dv_buf_len(&answer), MSG_NOSIGNAL) : 0;
            if (n > 0)
                dv_buf_consume(&answer, (size_t)n);
            assert_int_equal(seen.n_errors, 0);
            dv_h1up_resume(up);
            assert_int_equal(dv_loop_turn(loop, 5), DV_OK);
        }
        assert_int_equal(dv_buf_len(&seen.body), TOTAL);
        assert_memory_equal(dv_buf_ptr(&seen.body), dv_buf_ptr(&want), TOTAL);
        (void)tear_down(NULL);
        (void)set_up(NULL);
    }
}

static void a_paused_connection_reads_nothing_until_resumed_even_when_the_upstream_is_gone(void **state)
{
    (void)state;
    open_up();
    begin("GET", DV_H1_NO_BODY, 0);
    hear("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    dv_h1up_pause(up);
    say("HTTP/1.1 200 OK\r\n\r\nbye");
    (void)close(peer);
    peer = -1;
    for (int i = 0; i < 5; i++)
        assert_int_equal(dv_loop_turn(loop, 1), DV_OK);
    assert_int_equal(seen.n_heads + seen.n_errors, 0);
    assert_quiet();
    dv_h1up_resume(up);
    RUN_UNTIL(seen.n_ends);
    assert_body("bye");
}

static void an_upstream_that_does_not_read_stops_the_sender_at_the_bound(void **state)
{
    (void)state;
    open_up();
    begin("POST", DV_H1_CHUNKED, 0);
    static const char block[16 * 1024];
    size_t total = 0, taken = 1;
    uint64_t end_ns = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;
    while (taken || seen.n_writable) { /* the kernel's buffers first */
        assert_true(dv_clock_now_ns(&dv_clock_system) < end_ns);
        seen.n_writable = 0;
        assert_int_equal(dv_h1up_send(up, block, sizeof(block), &taken), DV_OK);
        total += taken;
        assert_true(dv_h1up_backlog(up) <= DV_H1UP_OUT_BYTES + 1024);
        assert_int_equal(dv_loop_turn(loop, taken ? 0 : 20), DV_OK);
    }
    assert_int_equal(seen.n_writable, 0);
    char sink[65536];
    size_t got = 0;
    while (!seen.n_writable) {
        ssize_t n = recv(peer, sink, sizeof(sink), 0);
        got += n > 0 ? (size_t)n : 0;
        assert_int_equal(dv_loop_turn(loop, 0), DV_OK);
    }
    assert_true(got > 0 && total > 0);
}

/* ---- upgrades ---- */

static void an_upgraded_connection_carries_raw_bytes_both_ways_until_each_side_closes(void **state)
{
    (void)state;
    open_up();
    struct dv_h1up_request req = {.method = DV_SV("GET"),
                                  .target = DV_SV("/ws"),
                                  .fields = DV_SV("Host: a\r\nUpgrade: echo\r\n"),
                                  .body = DV_H1_UPGRADED};
    assert_int_equal(dv_h1up_begin(up, &req), DV_OK);
    size_t taken;
    assert_int_equal(dv_h1up_send(up, "early", 5, &taken), DV_OK);
    assert_int_equal(taken, 0); /* not before the 101 */
    hear("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
    say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nraw");
    RUN_UNTIL(seen.n_writable && dv_buf_len(&seen.body) == 3);
    assert_body("raw");
    assert_int_equal(dv_h1up_send(up, "\0ping", 5, &taken), DV_OK);
    assert_int_equal(taken, 5);
    char bytes[8];
    RUN_UNTIL(recv(peer, bytes, sizeof(bytes), 0) == 5);
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    RUN_UNTIL(seen.n_ends);
    assert_false(seen.is_reusable);
    assert_quiet();
    assert_int_equal(dv_h1up_send(up, "still", 5, &taken), DV_OK);
    assert_int_equal(dv_h1up_finish(up, DV_SV("")), DV_OK);
    assert_int_equal(dv_h1up_send(up, "more", 4, &taken), DV_INVALID);
    RUN_UNTIL(recv(peer, bytes, sizeof(bytes), 0) == 5);
    RUN_UNTIL(recv(peer, bytes, sizeof(bytes), 0) == 0);
    assert_int_equal(seen.n_ends, 1);
    assert_int_equal(seen.n_errors, 0);
    (void)close(peer);
    peer = -1;
    assert_quiet();
}

static void our_direction_closes_only_once_the_upgrade_was_made(void **state)
{
    (void)state;
    open_up();
    struct dv_h1up_request req = {.method = DV_SV("GET"), .target = DV_SV("/ws"), .body = DV_H1_UPGRADED};
    assert_int_equal(dv_h1up_begin(up, &req), DV_OK);
    assert_int_equal(dv_h1up_finish(up, DV_SV("")), DV_OK);
    hear("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\n\r\n");
    char byte;
    for (int i = 0; i < 3; i++)
        assert_int_equal(dv_loop_turn(loop, 1), DV_OK);
    assert_int_equal(recv(peer, &byte, 1, 0), -1); /* still open */
    say("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    RUN_UNTIL(recv(peer, &byte, 1, 0) == 0);
}

static void an_upgrade_that_is_declined_is_an_ordinary_answer(void **state)
{
    (void)state;
    open_up();
    struct dv_h1up_request req = {.method = DV_SV("GET"), .target = DV_SV("/ws"), .body = DV_H1_UPGRADED};
    assert_int_equal(dv_h1up_begin(up, &req), DV_OK);
    hear("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\n\r\n");
    answered("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
    assert_true(seen.is_reusable);
    assert_body("no");
}

static void steady_state_allocates_nothing(void **state)
{
    (void)state;
    open_up();
    static const char request[] = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for (int i = 1; i <= 20; i++) {
        char bytes[256];
        size_t taken;
        if (i == 10)
            dv_alloc_fail_at(UINT64_MAX); /* counts from here */
        begin("POST", DV_H1_LENGTH, 5);
        assert_int_equal(dv_h1up_send(up, "hello", 5, &taken), DV_OK);
        RUN_UNTIL(recv(peer, bytes, sizeof(bytes), 0) == sizeof(request) - 1);
        say("HTTP/1.1 204 No Content\r\n\r\n");
        RUN_UNTIL(seen.n_ends == i);
    }
    assert_int_equal(dv_alloc_count(), 0);
    dv_alloc_fail_at(0);
}

#define with_peer(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_peer(one_connection_carries_request_after_request),
        with_peer(a_request_may_begin_before_the_connection_stands_and_inside_on_end),
        with_peer(bodies_are_framed_as_the_request_says),
        with_peer(a_second_request_at_once_is_our_bug_and_none_follows_a_failure),
        with_peer(an_answer_reads_the_same_however_its_bytes_arrive),
        with_peer(reuse_is_judged_by_what_is_certain),
        with_peer(an_end_right_behind_the_answer_is_seen_with_it),
        with_peer(an_answer_that_was_there_before_its_request_is_not_its_answer),
        with_peer(an_answer_that_overtakes_its_request_arrives_and_ends_the_connection),
        with_peer(failures_say_whether_the_upstream_can_have_seen_the_request),
        with_peer(a_request_written_to_a_connection_that_is_just_being_closed_was_not_seen),
        with_peer(a_half_closed_upstream_may_have_read_it),
        with_peer(an_upstream_that_closes_with_the_request_unread_may_have_read_it),
        with_peer(a_refused_connection_is_told_later_and_apart),
        with_peer(an_idle_connection_that_closes_or_speaks_is_given_up),
        with_peer(a_connection_may_be_freed_inside_its_callbacks),
        with_peer(a_slow_owner_gets_every_byte_once_and_memory_stays_bounded),
        with_peer(a_paused_connection_reads_nothing_until_resumed_even_when_the_upstream_is_gone),
        with_peer(an_upstream_that_does_not_read_stops_the_sender_at_the_bound),
        with_peer(an_upgraded_connection_carries_raw_bytes_both_ways_until_each_side_closes),
        with_peer(our_direction_closes_only_once_the_upgrade_was_made),
        with_peer(an_upgrade_that_is_declined_is_an_ordinary_answer),
        with_peer(steady_state_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
