/* HTTP's corners at the gateway, and bodies that flow, stop and break off. */
#include "tests/support/gateway_plain.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

/* ---- HTTP's corners ---- */

static void cookies_stay_apart_and_a_forged_call_id_is_dropped(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/function/f/cookies"), "GET");
    assert_non_null(strstr(r.text, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"));
    assert_null(strstr(r.text, "forged"));
    assert_true(reply_has(&r, "content-length", "0"));
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void answers_without_a_body_have_none(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/function/f/204"), "GET");
    assert_int_equal(r.status, 204);
    assert_null(strcasestr(r.text, "content-length"));
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/304"), "GET");
    assert_int_equal(r.status, 304);
    assert_null(strcasestr(r.text, "transfer-encoding"));
    reply_free(&r);
    r = client_ask(&c, HEAD("/function/f/head"), "HEAD");
    assert_true(reply_has(&r, "content-length", "1234"));
    reply_free(&r);
    r = client_ask(&c, HEAD("/function/f/head-field"), "HEAD");
    assert_true(reply_has(&r, "content-length", "99"));
    assert_null(strcasestr(strcasestr(r.text, "content-length") + 1, "content-length"));
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/after"), "GET"); /* nothing of those was taken for a body */
    assert_string_equal(reply_body(&r), "GET /after 5000");
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void trailers_and_early_hints_pass(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/function/f/trailers"), "GET");
    assert_string_equal(reply_body(&r), "abc");
    assert_string_equal(dv_buf_cstr(&r.trailers), "X-Sum: 6\r\n");
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/hints"), "GET");
    assert_int_equal(r.status, 103);
    assert_true(reply_has(&r, "link", "</a.css>"));
    reply_free(&r);
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_body(&r), "ok");
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void chunked_requests_stream_with_their_trailers(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    client_send(
        &c, "POST /function/f/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    rig_until(g, g->agent_got == 5); /* it does not wait for the end */
    client_send(&c, "7;x=y\r\n, world\r\n0\r\nX-T: 1\r\n\r\n");
    client_read(&c, "POST", &r);
    assert_string_equal(reply_body(&r), "hello, world");
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/next"), "GET");
    assert_string_equal(reply_body(&r), "GET /next 5000");
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void one_byte_at_a_time_is_a_request_like_any_other(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    const char *q = "POST /function/f/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "3\r\nabc\r\n0\r\nA: b\r\n\r\n" GET("/function/f/z");
    struct reply r;
    for (; *q; q++) {
        client_send_n(&c, q, 1);
        rig_turn(g);
    }
    client_read(&c, "POST", &r);
    assert_string_equal(reply_body(&r), "abc");
    reply_free(&r);
    client_read(&c, "GET", &r);
    assert_string_equal(reply_body(&r), "GET /z 5000");
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void a_client_is_told_to_continue_only_when_its_body_is_needed(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    struct client c = client_open(g);
    struct reply r;
    client_send(
        &c, "POST /function/f/echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    rig_until(g, g->on_demand > 0);
    for (int i = 0; i < 10; i++)
        client_poll(&c);
    assert_int_equal(dv_buf_len(&c.in), 0); /* it waits for a replica: nobody wants the body yet */
    rig_replicas(g, 1, 1);
    client_read(&c, "POST", &r);
    assert_int_equal(r.status, 100);
    reply_free(&r);
    client_send(&c, "hi");
    client_read(&c, "POST", &r);
    assert_string_equal(reply_body(&r), "hi");
    reply_free(&r);
    r = client_ask(
        &c, "POST /function/nope HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        "POST");
    assert_int_equal(r.status, 404); /* refused without having asked for it */
    assert_true(reply_has(&r, "connection", "close"));
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void http_1_0_clients_get_no_chunks(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, "GET /function/f/trailers HTTP/1.0\r\n\r\n", "GET");
    assert_string_equal(reply_body(&r), "abc");
    assert_null(strcasestr(r.text, "chunked"));
    assert_true(c.eof);
    reply_free(&r);
    client_close(&c);
    c = client_open(g);
    r = client_ask(&c, "GET /function/f/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET");
    assert_true(reply_has(&r, "connection", "keep-alive"));
    reply_free(&r);
    r = client_ask(&c, "GET /function/f/x HTTP/1.0\r\n\r\n", "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_expect_eof(&c);
    client_close(&c);
    rig_stop(g);
}

static void connection_close_is_honoured(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r =
        client_ask(&c, "GET /function/f/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET");
    assert_true(reply_has(&r, "connection", "close"));
    reply_free(&r);
    client_expect_eof(&c);
    client_close(&c);
    rig_stop(g);
}

static void an_upgrade_carries_raw_bytes_both_ways(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(
        &c, "GET /function/f/upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
        "GET");
    assert_int_equal(r.status, 101);
    assert_true(reply_has(&r, "upgrade", "chat"));
    assert_true(reply_has(&r, "connection", "Upgrade"));
    reply_free(&r);
    client_send(&c, "GET /not-http \r\n\0raw");
    rig_until(g, (client_poll(&c), dv_buf_len(&c.in) >= 16));
    assert_memory_equal(dv_buf_ptr(&c.in), "GET /not-http \r\n", 16);
    assert_int_equal(shutdown(c.fd, SHUT_WR), 0); /* one direction ends, the other follows */
    client_expect_eof(&c);
    client_close(&c);
    rig_until(g, agent_streams(g) == 0);
    expect_status(g, "GET /function/f/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
                  "GET", 200);
    rig_stop(g);
}

static void what_could_be_smuggled_is_refused(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    static const struct {
        const char *head;
        int status;
    } bad[] = {
        {"POST /function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
         400},
        {"POST /function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400},
        {"POST /function/f HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\n", 400},
        {"POST /function/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
        {"GET /function/f HTTP/1.1\nHost: h\n\n", 400},
        {"GET /function/f HTTP/1.1\r\nHost : h\r\n\r\n", 400},
        {"GET /function/f HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400},
        {"GET /function/f HTTP/1.1\r\n\r\n", 400},
        {"GET /function/f HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        {"GET /function/f HTTP/2.0\r\nHost: h\r\n\r\n", 505},
        {"GET  /function/f HTTP/1.1\r\nHost: h\r\n\r\n", 400},
    };
    for (size_t i = 0; i < DV_COUNT(bad); i++) {
        struct client c = client_open(g);
        struct reply r = client_ask(&c, bad[i].head, "GET");
        if (r.status != bad[i].status)
            fail_msg("%s -> %d", bad[i].head, r.status);
        assert_true(reply_has(&r, "connection", "close"));
        reply_free(&r);
        client_expect_eof(&c);
        client_close(&c);
    }
    assert_int_equal(g->n_requests, 0);
    rig_stop(g);
}

static void a_bad_chunk_ends_the_request_and_the_connection(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r =
        client_ask(&c,
                   "POST /function/f/count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "3\r\nabc\r\nzz\r\n" GET("/function/f/smuggled"),
                   "POST");
    assert_int_equal(r.status, 400);
    reply_free(&r);
    client_expect_eof(&c);
    client_close(&c);
    rig_until(g, g->n_resets == 1 || g->n_requests == 0);
    assert_true(g->n_requests <= 1);
    rig_stop(g);
}

static void limits_of_head_and_target_have_their_own_answers(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    DV_AUTO_BUF struct dv_buf q = DV_BUF_INIT;
    (void)dv_buf_add_c(&q, "GET /function/f/");
    for (int i = 0; i < 17000; i++)
        (void)dv_buf_add_char(&q, 'a');
    (void)dv_buf_add_c(&q, " HTTP/1.1\r\nHost: h\r\n\r\n");
    client_send_n(&c, dv_buf_ptr(&q), dv_buf_len(&q));
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 414);
    reply_free(&r);
    client_close(&c);
    c = client_open(g);
    client_send(&c, "GET /function/f HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 4000; i++)
        client_send(&c, "X-Many: aaaaaaaaaaaaaaaaaaaaaa\r\n");
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 431);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void methods_that_are_not_allowed_get_405_with_allow(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, "TRACE /function/f HTTP/1.1\r\nHost: h\r\n\r\n", "TRACE");
    assert_int_equal(r.status, 405);
    assert_true(reply_has(&r, "allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    reply_free(&r);
    r = client_ask(&c, GET("/async-function/f"), "GET");
    assert_int_equal(r.status, 405);
    assert_true(reply_has(&r, "allow", "POST"));
    assert_true(reply_has(&r, "x-openfaas-internal", "proxy"));
    assert_true(reply_has(&r, "content-type", "application/problem+json"));
    reply_free(&r);
    static const char *const good[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < DV_COUNT(good); i++) {
        char q[128];
        (void)snprintf(q, sizeof(q), "%s /function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
                       good[i]);
        r = client_ask(&c, q, good[i]);
        assert_int_equal(r.status, 200);
        reply_free(&r);
    }
    client_close(&c);
    rig_stop(g);
}

static void a_head_that_drips_in_too_slowly_gets_408(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){.head_timeout_ms = 100, .idle_timeout_ms = 200});
    rig_replicas(g, 1, 1);
    struct client c = client_open(g), idle = client_open(g);
    struct reply r;
    client_send(&c, "GET /function/f HT");
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 408);
    reply_free(&r);
    client_expect_eof(&idle); /* said nothing at all: closed without a word */
    assert_int_equal(dv_buf_len(&idle.in), 0);
    client_close(&c);
    client_close(&idle);
    c = client_open(g);
    r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_expect_eof(&c); /* idle_timeout */
    client_close(&c);
    rig_stop(g);
}

/* ---- bodies ---- */

static void a_large_upload_flows_and_stops_while_nobody_reads(void **state)
{
    (void)state;
    enum { BYTES = 3 * 1024 * 1024 };
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    char head[128], want[32];
    char *body = dv_zalloc(BYTES);
    (void)snprintf(head, sizeof(head),
                   "POST /function/f/count HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", BYTES);
    client_send(&c, head);
    client_send_n(&c, body, BYTES);
    client_read(&c, "POST", &r);
    (void)snprintf(want, sizeof(want), "%d", BYTES);
    assert_string_equal(reply_body(&r), want);
    reply_free(&r);

    (void)snprintf(head, sizeof(head),
                   "POST /function/f/swallow HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 100 * BYTES);
    client_send(&c, head);
    g->agent_got = 0;
    size_t sent = 0;
    uint64_t quiet = dv_clock_now_ns(&dv_clock_system) + 300 * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < quiet) { /* until the socket has been full for a while */
        ssize_t n = send(c.fd, body, BYTES, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            sent += (size_t)n;
            quiet = dv_clock_now_ns(&dv_clock_system) + 300 * DV_MS;
        }
        rig_turn(g);
        assert_true(sent < (size_t)20 * BYTES);
    }
    assert_int_equal(g->agent_got, DV_LINK_WINDOW); /* not a byte beyond the credit */
    dv_free(body);
    /* A plain close would stand behind the bytes that nobody reads; a reset is seen at once. */
    assert_int_equal(
        setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger)), 0);
    client_close(&c);
    rig_until(g, agent_streams(g) == 0);
    assert_int_equal(g->last_reset, DV_RESET_CANCEL);
    rig_stop(g);
}

static void a_client_that_leaves_while_its_upload_is_stopped_is_noticed(void **state)
{
    (void)state;
    enum { MORE = 16 * 1024 }; /* than the function takes: it stands in the socket, which nobody reads */
    static const char *const heads[] = {
        "POST /function/f/swallow HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n",
        "POST /function/f/swallow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5f00000\r\n"};
    struct rig *g = plain_rig();
    char *body = dv_zalloc(DV_LINK_WINDOW + MORE);
    for (size_t i = 0; i < DV_COUNT(heads); i++) {
        struct client c = client_open(g);
        g->agent_got = 0;
        client_send(&c, heads[i]);
        client_send_n(&c, body, DV_LINK_WINDOW + MORE);
        rig_until(g, g->agent_got == DV_LINK_WINDOW);
        int pending = 1;
        rig_until(g, ioctl(c.fd, SIOCOUTQ, &pending) == 0 && pending == 0); /* all of it has arrived */
        rig_for(g, 20);
        assert_int_equal(agent_streams(g), 1);
        assert_int_equal(g->agent_got, DV_LINK_WINDOW);
        client_close(&c); /* an ordinary end, behind bytes that nobody reads */
        rig_until(g, agent_streams(g) == 0);
        assert_int_equal(g->last_reset, DV_RESET_CANCEL);
    }
    dv_free(body);
    rig_stop(g);
}

static void a_large_answer_waits_for_a_slow_reader(void **state)
{
    (void)state;
    enum { BYTES = 40 * 1024 * 1024 };
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    char q[128];
    (void)snprintf(q, sizeof(q), "GET /function/f/big/%d HTTP/1.1\r\nHost: h\r\n\r\n", BYTES);
    client_send(&c, q);
    rig_until(g, agent_streams(g) == 1);
    rig_for(g, 200);
    struct agent_stream *s = DV_LIST_ENTRY(g->streams.next, struct agent_stream, node);
    assert_true(s->sent < BYTES); /* what it sent stands in socket buffers and one window */
    uint64_t stuck = s->sent;
    rig_for(g, 100);
    assert_true(s->sent - stuck < 1024 * 1024);
    client_read(&c, "GET", &r);
    assert_int_equal(dv_buf_len(&r.body), BYTES);
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/x"), "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void an_answer_that_breaks_off_is_not_made_to_look_whole(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    client_send(&c, GET("/function/f/broken"));
    client_expect_eof(&c);
    const char *got = dv_buf_cstr(&c.in);
    assert_true(!strstr(got, "\r\n\r\n") || strlen(strstr(got, "\r\n\r\n") + 4) < 100);
    client_close(&c);
    rig_stop(g);
}

static void a_function_that_dies_inside_gives_502_with_the_reason(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/function/f/exits"), "GET");
    assert_int_equal(r.status, 502);
    assert_non_null(strstr(reply_body(&r), dv_link_reset_text(DV_RESET_EXITED)));
    assert_non_null(strstr(reply_body(&r), "exit code 3"));
    assert_non_null(strstr(reply_body(&r), "\"function\":\"f.default\""));
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/x"), "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cookies_stay_apart_and_a_forged_call_id_is_dropped),
        cmocka_unit_test(answers_without_a_body_have_none),
        cmocka_unit_test(trailers_and_early_hints_pass),
        cmocka_unit_test(chunked_requests_stream_with_their_trailers),
        cmocka_unit_test(one_byte_at_a_time_is_a_request_like_any_other),
        cmocka_unit_test(a_client_is_told_to_continue_only_when_its_body_is_needed),
        cmocka_unit_test(http_1_0_clients_get_no_chunks),
        cmocka_unit_test(connection_close_is_honoured),
        cmocka_unit_test(an_upgrade_carries_raw_bytes_both_ways),
        cmocka_unit_test(what_could_be_smuggled_is_refused),
        cmocka_unit_test(a_bad_chunk_ends_the_request_and_the_connection),
        cmocka_unit_test(limits_of_head_and_target_have_their_own_answers),
        cmocka_unit_test(methods_that_are_not_allowed_get_405_with_allow),
        cmocka_unit_test(a_head_that_drips_in_too_slowly_gets_408),
        cmocka_unit_test(a_large_upload_flows_and_stops_while_nobody_reads),
        cmocka_unit_test(a_client_that_leaves_while_its_upload_is_stopped_is_noticed),
        cmocka_unit_test(a_large_answer_waits_for_a_slow_reader),
        cmocka_unit_test(an_answer_that_breaks_off_is_not_made_to_look_whole),
        cmocka_unit_test(a_function_that_dies_inside_gives_502_with_the_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
