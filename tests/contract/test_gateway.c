/* The gateway from outside: raw client sockets on one side, a fake agent on the other. */

#include "tests/support/gateway_rig.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>

#define GET(path)  "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"
#define HEAD(path) "HEAD " path " HTTP/1.1\r\nHost: h\r\n\r\n"

static struct rig *plain_rig(void)
{
    struct rig *g = rig_start(&(struct rig_options){0});
    rig_replicas(g, 1, 10);
    return g;
}

/* ---- the ordinary way ---- */

static void a_request_reaches_the_function_and_its_answer_the_client(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/function/f/a/b?x=1"), "GET");
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_body(&r), "GET /a/b?x=1 5000");
    assert_true(reply_has(&r, "x-fn", "yes"));
    assert_true(reply_has(&r, "x-call-id", NULL));
    assert_true(reply_has(&r, "traceparent", NULL));
    assert_true(reply_has(&r, "date", NULL));
    assert_non_null(strstr(r.text, "start;dur=1.500, run;dur=2.500"));
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void names_resolve_with_namespace_and_openfaas_alias(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    rig_fn(g, &(struct dv_route_fn){
                  .uid = RIG_FN + 1, .name = "f", .ns = "team", .timeout_ms = 1000, .queue_max = 0});
    expect_status(g, GET("/function/f.default/x"), "GET", 200);
    expect_status(g, GET("/function/f.openfaas-fn/x"), "GET", 200);
    expect_status(g, GET("/function/f.team/x"), "GET", 503); /* another function: no replica, no queue */
    expect_status(g, GET("/function/f.nope/x"), "GET", 404);
    expect_status(g, GET("/function/unknown"), "GET", 404);
    assert_int_equal(g->n_requests, 2);
    rig_stop(g);
}

static void one_connection_carries_many_requests_pipelined_ones_in_order(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    char want[64];
    DV_AUTO_BUF struct dv_buf all = DV_BUF_INIT;
    for (int i = 0; i < 50; i++)
        (void)dv_buf_addf(&all, "POST /function/f/%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", i);
    client_send_n(&c, dv_buf_ptr(&all), dv_buf_len(&all));
    for (int i = 0; i < 50; i++) {
        client_read(&c, "POST", &r);
        (void)snprintf(want, sizeof(want), "POST /%d 5000", i);
        assert_string_equal(reply_body(&r), want);
        reply_free(&r);
    }
    client_close(&c);
    rig_stop(g);
}

static void the_function_is_told_who_asked_and_nothing_of_one_hop(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r = client_ask(
        &c,
        "GET /function/f/fields HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, X-Hop\r\n"
        "X-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nX-Forwarded-For: 10.0.0.1\r\nX-Mine: 2\r\n"
        "Authorization: Bearer of-the-function\r\nX-Call-Id: my.id-1\r\n"
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        "GET");
    const char *b = reply_body(&r);
    assert_non_null(strstr(b, "\nHost: shop.example\r\n"));
    assert_non_null(strstr(b, "X-Mine: 2\r\n"));
    assert_non_null(strstr(b, "Authorization: Bearer of-the-function\r\n"));
    assert_non_null(strstr(b, "X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n"));
    assert_non_null(strstr(b, "X-Forwarded-Host: shop.example\r\n"));
    assert_non_null(strstr(b, "X-Forwarded-Proto: http\r\n"));
    assert_non_null(strstr(b, "Forwarded: for=127.0.0.1;host=\"shop.example\";proto=http\r\n"));
    assert_non_null(strstr(b, "X-Call-Id: my.id-1\r\n"));
    assert_non_null(strstr(b, "X-Start-Time: 1"));
    assert_non_null(strstr(b, "traceparent: 00-0af7651916cd43dd8448eb211c80319c-"));
    assert_null(strstr(b, "b7ad6b7169203331")); /* our span is the function's parent */
    assert_null(strcasestr(b, "x-hop"));
    assert_null(strcasestr(b, "keep-alive"));
    assert_null(strcasestr(b, "\nTE:"));
    assert_true(reply_has(&r, "x-call-id", "my.id-1"));
    assert_int_equal(dv_h1_find(&r.head, "x-start-time").n, 19); /* ns since 1970 */
    reply_free(&r);
    r = client_ask(&c, "GET /function/f/x HTTP/1.1\r\nHost: h\r\nX-Call-Id: bad id with spaces\r\n\r\n",
                   "GET");
    assert_int_equal(dv_h1_find(&r.head, "x-call-id").n, 36);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void health_is_answered_by_the_gateway_itself(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){.no_node = true});
    expect_status(g, GET("/healthz"), "GET", 200);
    expect_status(g, HEAD("/healthz"), "HEAD", 200);
    expect_status(g, "POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST", 405);
    rig_stop(g);
}

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
    assert_non_null(strstr(reply_body(&r), "\"function\":\"f.default\""));
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/x"), "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

/* ---- waiting ---- */

static void a_request_without_a_replica_waits_asks_for_one_and_is_served(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    struct client c = client_open(g);
    struct reply r;
    struct dv_load load;
    client_send(&c, "POST /function/f/count HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
    rig_until(g, g->on_demand == 1);
    assert_int_equal(dv_gateway_load(g->g, RIG_FN, &load), DV_OK);
    assert_int_equal(load.waiting, 1);
    assert_int_equal(load.arrived, 1);
    rig_until(g, g->on_demand >= 2); /* and asks again */
    assert_int_equal(dv_gateway_load(g->g, RIG_FN, &load), DV_OK);
    assert_true(load.oldest_wait_ns >= 90 * DV_MS);
    rig_replicas(g, 1, 1);
    client_read(&c, "POST", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_body(&r), "4");
    reply_free(&r);
    rig_until(g, (dv_gateway_load(g->g, RIG_FN, &load), load.answered == 1));
    assert_int_equal(load.waiting + load.in_flight, 0);
    assert_true(load.service_ns > 0);
    assert_int_equal(dv_gateway_invocations(g->g, RIG_FN), 1);
    client_close(&c);
    rig_stop(g);
}

static void a_full_queue_refuses_with_503_and_retry_after(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    struct dv_route_fn fn = RIG_FN_DEFAULT;
    struct dv_load load;
    fn.queue_max = 2;
    rig_fn(g, &fn);
    struct client c[3] = {client_open(g), client_open(g), client_open(g)};
    client_send(&c[0], GET("/function/f"));
    client_send(&c[1], GET("/function/f"));
    rig_until(g, (dv_gateway_load(g->g, RIG_FN, &load), load.waiting == 2));
    struct reply r = client_ask(&c[2], GET("/function/f"), "GET");
    assert_int_equal(r.status, 503);
    assert_true(reply_has(&r, "retry-after", NULL));
    assert_non_null(strstr(reply_body(&r), "queue_full"));
    reply_free(&r);
    client_close(&c[0]); /* one leaves: its place is free at once */
    rig_until(g, (dv_gateway_load(g->g, RIG_FN, &load), load.waiting == 1));
    client_send(&c[2], GET("/function/f"));
    rig_until(g, (dv_gateway_load(g->g, RIG_FN, &load), load.waiting == 2));
    rig_replicas(g, 1, 1);
    for (int i = 1; i < 3; i++) {
        client_read(&c[i], "GET", &r);
        assert_int_equal(r.status, 200);
        reply_free(&r);
        client_close(&c[i]);
    }
    assert_int_equal(g->n_requests, 2); /* the one that left never reached the function */
    rig_stop(g);
}

static void deadlines_end_waiting_and_running_requests_and_name_the_hop(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    struct dv_route_fn fn = RIG_FN_DEFAULT;
    fn.timeout_ms = fn.queue_timeout_ms = 150;
    rig_fn(g, &fn);
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 504);
    assert_non_null(strstr(reply_body(&r), "\"hop\":\"queue\""));
    reply_free(&r);
    fn.timeout_ms = 10000;
    fn.queue_timeout_ms = 50;
    rig_fn(g, &fn);
    r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 503);
    assert_true(reply_has(&r, "retry-after", NULL));
    reply_free(&r);
    fn.timeout_ms = 150;
    rig_fn(g, &fn);
    rig_replicas(g, 1, 1);
    g->hold = true;
    r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 504);
    assert_non_null(strstr(reply_body(&r), "\"hop\":\"function\""));
    reply_free(&r);
    rig_until(g, g->n_resets == 1);
    assert_int_equal(g->last_reset, DV_RESET_TIMEOUT);
    assert_int_equal(dv_gateway_replica_in_flight(g->g, RIG_FN, RIG_REPLICA), 0);
    client_close(&c);
    rig_stop(g);
}

static void a_client_that_leaves_cancels_its_request(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    rig_replicas(g, 1, 1);
    g->hold = true;
    struct client a = client_open(g), b = client_open(g);
    struct reply r;
    client_send(&a, GET("/function/f/a"));
    rig_until(g, agent_streams(g) == 1);
    assert_int_equal(dv_gateway_replica_in_flight(g->g, RIG_FN, RIG_REPLICA), 1);
    client_send(&b, GET("/function/f/b")); /* waits behind a */
    rig_for(g, 20);
    assert_int_equal(g->n_requests, 1);
    g->hold = false;
    client_close(&a);
    client_read(&b, "GET", &r); /* a's slot is b's now */
    assert_string_equal(reply_body(&r), "GET /b 5000");
    assert_int_equal(g->n_resets, 1);
    assert_int_equal(g->last_reset, DV_RESET_CANCEL);
    reply_free(&r);
    client_close(&b);
    rig_stop(g);
}

static void a_failing_function_refuses_waiting_and_new_requests_with_its_reason(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    struct dv_route_fn fn = RIG_FN_DEFAULT;
    struct client c = client_open(g);
    struct reply r;
    client_send(&c, GET("/function/f"));
    rig_until(g, g->on_demand >= 1);
    fn.failing = "image not found: \"nope\"";
    rig_fn(g, &fn);
    for (int i = 0; i < 2; i++) {
        client_read(&c, "GET", &r);
        assert_int_equal(r.status, 503);
        assert_non_null(strstr(reply_body(&r), "image not found: \\\"nope\\\""));
        reply_free(&r);
        if (i == 0)
            client_send(&c, GET("/function/f"));
    }
    fn.failing = NULL;
    rig_fn(g, &fn);
    rig_replicas(g, 1, 1);
    r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void a_function_removed_while_requests_wait_is_unknown_to_them(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    struct client c = client_open(g);
    struct reply r;
    client_send(&c, GET("/function/f"));
    rig_until(g, g->on_demand >= 1);
    dv_gateway_fn_remove(g->g, RIG_FN);
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 404);
    reply_free(&r);
    r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 404);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void a_function_removed_while_a_request_is_inside_lets_it_end(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    g->hold = true;
    client_send(&c, GET("/function/f/inside"));
    rig_until(g, agent_streams(g) == 1);
    dv_gateway_fn_remove(g->g, RIG_FN);
    expect_status(g, GET("/function/f"), "GET", 404);
    rig_release(g);
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void concurrency_is_kept_over_all_loops(void **state)
{
    (void)state;
    enum { N = 12 };
    struct rig *g = rig_start(&(struct rig_options){.n_loops = 3});
    struct client c[N];
    struct reply r;
    struct dv_load load;
    rig_replicas(g, 2, 2);
    g->hold = true;
    for (int i = 0; i < N; i++) {
        c[i] = client_open(g);
        client_send(&c[i], GET("/function/f"));
    }
    rig_until(g, (dv_gateway_load(g->g, RIG_FN, &load), load.waiting == N - 4 && load.in_flight == 4));
    rig_for(g, 30);
    assert_int_equal(agent_streams(g), 4);
    rig_release(g);
    for (int i = 0; i < N; i++) {
        client_read(&c[i], "GET", &r);
        assert_int_equal(r.status, 200);
        reply_free(&r);
        client_close(&c[i]);
    }
    rig_until(g,
              (dv_gateway_load(g->g, RIG_FN, &load), load.answered == N && !load.in_flight && !load.waiting));
    rig_stop(g);
}

/* ---- other nodes, other tries ---- */

static void a_replica_that_refuses_unseen_costs_the_client_nothing(void **state)
{
    (void)state;
    static const enum dv_link_reset unseen[] = {DV_RESET_NOT_HERE, DV_RESET_REFUSED, DV_RESET_CONNECT};
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    for (size_t i = 0; i < DV_COUNT(unseen); i++) {
        g->refuse_next = 2;
        g->refuse_why = unseen[i];
        struct reply r = client_ask(
            &c, "POST /function/f/count HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "POST");
        assert_int_equal(r.status, 200);
        assert_string_equal(reply_body(&r), "5"); /* the kept body was sent again, once */
        reply_free(&r);
    }
    assert_int_equal(g->n_refused, 6);
    client_close(&c);
    rig_stop(g);
}

static void a_replica_that_never_takes_a_request_is_given_up(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct dv_route_fn fn = RIG_FN_DEFAULT;
    fn.timeout_ms = 700;
    rig_fn(g, &fn);
    g->refuse_next = 1000000;
    g->refuse_why = DV_RESET_CONNECT;
    struct reply r = client_ask(&c, GET("/function/f"), "GET");
    assert_true(r.status == 502 || r.status == 504);
    assert_true(g->n_refused > 2 && g->n_refused <= 12);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

static void a_broken_link_ends_its_requests_and_is_made_again(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    g->hold = true;
    client_send(&c, GET("/function/f"));
    rig_until(g, agent_streams(g) == 1);
    agent_drop_links(g);
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 502);
    assert_non_null(strstr(reply_body(&r), "\"hop\":\"agent\""));
    reply_free(&r);
    g->hold = false;
    r = client_ask(&c, GET("/function/f"), "GET"); /* waits for the connection, not for a replica */
    assert_int_equal(r.status, 200);
    assert_int_equal(g->n_links, 2);
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

/* ---- who may ---- */

static void invoke_and_protected_functions_want_credentials(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct dv_route_fn fn = RIG_FN_DEFAULT;
    struct client c = client_open(g);
    struct reply r = client_ask(&c, GET("/v1/functions/f/invoke/x"), "GET");
    assert_int_equal(r.status, 401);
    assert_true(reply_has(&r, "www-authenticate", NULL));
    reply_free(&r);
    r = client_ask(&c,
                   "GET /v1/functions/f/invoke/fields HTTP/1.1\r\nHost: h\r\nAuthorization: basic "
                   "YWRtaW46c2VjcmV0\r\n\r\n",
                   "GET");
    assert_int_equal(r.status, 200);
    assert_null(strstr(reply_body(&r), "YWRtaW46c2VjcmV0")); /* our password stays ours */
    reply_free(&r);
    expect_status(
        g, "GET /v1/functions/unknown/invoke HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n",
        "GET", 404);
    expect_status(g, GET("/v1/functions/unknown/invoke"), "GET",
                  401); /* strangers do not learn what exists */
    expect_status(g, "GET /function/f HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer wrong\r\n\r\n", "GET",
                  200);
    fn.auth_required = true;
    rig_fn(g, &fn);
    rig_until(g, (r = client_ask(&c, GET("/function/f"), "GET"), reply_free(&r), true));
    expect_status(g, "GET /function/f HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer wrong\r\n\r\n", "GET",
                  401);
    expect_status(g, "GET /function/f HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n", "GET",
                  200);
    client_close(&c);
    c = client_open_at(g, g->internal); /* our own workers */
    r = client_ask(&c, GET("/function/f"), "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&c);
    struct stat st;
    assert_int_equal(stat(g->internal, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    rig_stop(g);
}

/* ---- async ---- */

static void an_async_request_is_handed_over_and_answered_when_it_is_safe(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    client_send(
        &c, "POST /async-function/f/a?b=c HTTP/1.1\r\nHost: h\r\nContent-Type: text/x\r\nX-Call-Id: id7\r\n"
            "X-Callback-Url: http://cb/\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    rig_until(g, g->accepted != NULL);
    struct dv_async_accept *a = g->accepted;
    assert_int_equal(a->fn_uid, RIG_FN);
    assert_string_equal(a->fn, "f.default");
    assert_string_equal(a->method, "POST");
    assert_string_equal(a->target, "/a?b=c");
    assert_string_equal(a->call_id, "id7");
    assert_string_equal(a->callback_url, "http://cb/");
    assert_int_equal(a->body_bytes, 3);
    assert_memory_equal(a->body, "abc", 3);
    assert_non_null(strstr(a->fields, "Content-Type: text/x\r\n"));
    assert_null(strcasestr(a->fields, "callback"));
    assert_null(strcasestr(a->fields, "x-call-id"));
    for (int i = 0; i < 10; i++)
        client_poll(&c);
    assert_int_equal(dv_buf_len(&c.in), 0); /* not before it is durable */
    g->accepted = NULL;
    dv_gateway_async_done(g->g, a, DV_OK, NULL);
    client_read(&c, "POST", &r);
    assert_int_equal(r.status, 202);
    assert_true(reply_has(&r, "x-call-id", "id7"));
    assert_true(reply_has(&r, "x-start-time", NULL));
    assert_int_equal(dv_buf_len(&r.body), 0);
    reply_free(&r);

    client_send(&c, "POST /async-function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    rig_until(g, g->accepted != NULL);
    struct dv_err err;
    (void)dv_err_set(&err, DV_QUOTA, "the queue of this function is full");
    dv_gateway_async_done(g->g, g->accepted, DV_QUOTA, &err);
    g->accepted = NULL;
    client_read(&c, "POST", &r);
    assert_int_equal(r.status, 429);
    assert_non_null(strstr(reply_body(&r), "the queue of this function is full"));
    reply_free(&r);

    client_send(&c, "POST /async-function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    rig_until(g, g->accepted != NULL);
    client_close(&c); /* leaves before the answer */
    rig_for(g, 20);
    dv_gateway_async_done(g->g, g->accepted, DV_OK, NULL);
    rig_for(g, 20);
    expect_status(g, "POST /async-function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n", "POST",
                  413);
    expect_status(g, "POST /async-function/nope HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "POST",
                  404);
    assert_int_equal(g->n_requests, 0);
    rig_stop(g);
}

static void an_async_body_in_chunks_is_bounded_too(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    char *chunk = dv_zalloc(1024 * 1024);
    client_send(&c, "POST /async-function/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 8; i++) {
        client_send(&c, "100000\r\n");
        client_send_n(&c, chunk, 1024 * 1024);
        client_send(&c, "\r\n");
    }
    client_send(&c, "1\r\nx\r\n");
    client_read(&c, "POST", &r);
    assert_int_equal(r.status, 413);
    reply_free(&r);
    dv_free(chunk);
    client_close(&c);
    rig_stop(g);
}

/* ---- the API ---- */

static void every_other_path_is_the_apis(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    for (int i = 0; i < 3; i++) {
        struct reply r = client_ask(&c, GET("/v1/functions?x=1"), "GET");
        assert_int_equal(r.status, 200);
        assert_string_equal(reply_body(&r), "api /v1/functions  127.0.0.1");
        assert_true(reply_has(&r, "x-api", "yes"));
        reply_free(&r);
        r = client_ask(&c,
                       "PUT /v1/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:1}\r\n0\r\n\r\n",
                       "PUT");
        assert_string_equal(reply_body(&r), "api /v1/x {\"a\":1} 127.0.0.1");
        reply_free(&r);
        r = client_ask(&c, HEAD("/v1/nothing"), "HEAD");
        assert_int_equal(r.status, 404);
        reply_free(&r);
        r = client_ask(&c,
                       "POST /v1/y HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
                       "POST");
        assert_int_equal(r.status, 100);
        reply_free(&r);
        client_send(&c, "ab");
        client_read(&c, "POST", &r);
        assert_string_equal(reply_body(&r), "api /v1/y ab 127.0.0.1");
        reply_free(&r);
    }
    client_close(&c);
    rig_stop(g);
}

static void an_api_that_is_not_there_gives_503(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    assert_int_equal(unlink(g->api), 0);
    expect_status(g, GET("/v1/functions"), "GET", 503);
    expect_status(g, "POST /v1/functions HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "POST", 503);
    rig_stop(g);
}

/* ---- numbers, log, end ---- */

static void metrics_and_access_log_tell_what_happened(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r =
        client_ask(&c, "GET /function/f/a\"b HTTP/1.1\r\nHost: h\r\nX-Call-Id: call-1\r\n\r\n", "GET");
    int first = r.status;
    reply_free(&r);
    if (first == 400)
        client_close(&c), c = client_open(g);
    r = client_ask(&c, "GET /function/f/logged HTTP/1.1\r\nHost: h\r\nX-Call-Id: call-2\r\n\r\n", "GET");
    reply_free(&r);
    r = client_ask(&c, GET("/function/f/exits"), "GET");
    reply_free(&r);
    rig_until(g, dv_gateway_invocations(g->g, RIG_FN) >= 2);
    DV_AUTO_BUF struct dv_buf m = DV_BUF_INIT;
    dv_gateway_metrics(g->g, &m);
    const char *text = dv_buf_cstr(&m);
    assert_non_null(
        strstr(text, "gateway_function_invocation_total{function_name=\"f.openfaas-fn\",code=\"502\"} 1\n"));
    assert_non_null(
        strstr(text, "gateway_functions_seconds_count{function_name=\"f.openfaas-fn\",code=\"200\"}"));
    assert_non_null(strstr(text, "davit_gateway_failed_total{function=\"f.default\"} 1\n"));
    assert_non_null(strstr(text, "davit_gateway_waiting{function=\"f.default\"} 0\n"));
    assert_non_null(strstr(text, "davit_gateway_links_open 1\n"));
    assert_non_null(strstr(text, "davit_gateway_wait_seconds_count{function=\"f.default\"}"));
    char line[4096] = "";
    rig_until(g, pread(g->log_fd, line, sizeof(line) - 1, 0) > 0 && strstr(line, "status=502"));
    assert_non_null(strstr(
        line, "status=200 method=GET target=/logged function=f.default client=127.0.0.1 call_id=call-2"));
    client_close(&c);
    rig_stop(g);
}

static void draining_ends_requests_inside_and_takes_no_new_connection(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){.n_loops = 2});
    rig_replicas(g, 1, 10);
    g->hold = true;
    struct client c = client_open(g), idle = client_open(g);
    struct reply r;
    client_send(&c, GET("/function/f"));
    rig_until(g, agent_streams(g) == 1);
    dv_gateway_drain(g->g, dv_clock_now_ns(&dv_clock_system) + 20 * DV_S, rig_on_drained);
    client_expect_eof(&idle);
    assert_false(g->drained);
    rig_release(g);
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_expect_eof(&c);
    rig_until(g, g->drained);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons((uint16_t)g->port)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), -1);
    (void)close(fd);
    client_close(&c);
    client_close(&idle);
    rig_stop(g);
}

static void draining_gives_up_at_its_deadline(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    g->hold = true;
    struct client c = client_open(g);
    client_send(&c, GET("/function/f"));
    rig_until(g, agent_streams(g) == 1);
    dv_gateway_drain(g->g, dv_clock_now_ns(&dv_clock_system) + 50 * DV_MS, rig_on_drained);
    rig_until(g, g->drained);
    client_expect_eof(&c);
    client_close(&c);
    rig_stop(g);
}

static void a_port_in_use_is_refused_with_the_address_and_the_cure(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    char listen_on[32];
    struct dv_err err = DV_ERR_INIT;
    struct dv_gateway *second = NULL;
    (void)snprintf(listen_on, sizeof(listen_on), "127.0.0.1:%d", g->port);
    struct dv_gateway_cfg cfg = {.clock = &dv_clock_system,
                                 .listen = listen_on,
                                 .n_loops = 1,
                                 .access_log_fd = -1,
                                 .state = g->mailbox};
    assert_int_equal(dv_gateway_start(&cfg, &second, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, listen_on));
    assert_non_null(strstr(err.msg, "already in use"));
    rig_stop(g);
}

static void stopping_with_requests_everywhere_leaves_nothing_behind(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){.n_loops = 2});
    struct client c[8];
    struct dv_load load;
    rig_replicas(g, 1, 2);
    g->hold = true;
    for (int i = 0; i < 8; i++) {
        c[i] = client_open(g);
        client_send(&c[i], i < 6
                               ? GET("/function/f")
                               : "POST /async-function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
    }
    rig_until(g, (dv_gateway_load(g->g, RIG_FN, &load), load.waiting == 4 && load.in_flight == 2));
    rig_stop(g); /* the leak checker is the judge */
    for (int i = 0; i < 8; i++)
        client_close(&c[i]);
}

static void a_warm_request_allocates_nothing(void **state)
{
    (void)state;
    static const char ask[] =
        "POST /function/f/x HTTP/1.1\r\nHost: h\r\nUser-Agent: t\r\nContent-Length: 5\r\n\r\nhello";
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    assert_int_equal(dv_buf_reserve(&c.in, 1 << 20), DV_OK);
    for (int i = 0; i < 80; i++) {
        if (i == 30)
            dv_alloc_fail_at(0); /* counts from here on, in every thread: gateway, agent's link, loops */
        client_send(&c, ask);
        rig_until(g,
                  (client_poll(&c), dv_buf_len(&c.in) > 4 && memcmp(dv_buf_end(&c.in) - 4, "5000", 4) == 0));
        dv_buf_clear(&c.in);
    }
    assert_int_equal(dv_alloc_count(), 0);
    client_close(&c);
    rig_stop(g);
}

/* One more request in parallel, its n-th allocation failing: an honest answer or a closed connection, and the
 * gateway goes on. */
static void a_request_without_memory_harms_nobody_else(void **state)
{
    (void)state;
    static const char *const asks[] = {
        "POST /function/f/count HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST /async-function/f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        GET("/function/unknown"),
    };
    for (size_t k = 0; k < DV_COUNT(asks); k++) {
        struct rig *g = plain_rig();
        struct client busy = client_open(g);
        client_send(&busy, "POST /function/f/swallow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab");
        rig_until(g, agent_streams(g) == 1);
        for (uint64_t n = 1; n <= 12; n++) {
            struct client c = client_open(g);
            dv_alloc_fail_at(n);
            client_send(&c, asks[k]);
            uint64_t until = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;
            char first[16] = "";
            while (!first[0] && !c.eof && dv_clock_now_ns(&dv_clock_system) < until) {
                ssize_t got = recv(c.fd, first, sizeof(first) - 1, 0);
                c.eof = got == 0 || (got < 0 && errno != EAGAIN);
                if (g->accepted)
                    dv_gateway_async_done(g->g, dv_steal(&g->accepted), DV_OK, NULL);
                (void)dv_loop_turn(g->loop, 1);
            }
            dv_alloc_fail_at(0);
            assert_true(c.eof || strncmp(first, "HTTP/1.1 ", 9) == 0);
            client_close(&c);
            rig_until(g, agent_open_links(g) == 1);
            expect_status(g, GET("/function/f/after"), "GET", 200);
        }
        client_close(&busy);
        rig_stop(g);
    }
}

static void one_who_never_stops_sending_does_not_hold_up_the_others(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client flood = client_open(g), c = client_open(g);
    DV_AUTO_BUF struct dv_buf many = DV_BUF_INIT;
    for (int i = 0; i < 20000; i++)
        (void)dv_buf_add_c(&many, GET("/function/unknown"));
    size_t at = 0, answered = 0;
    for (int i = 0; i < 8; i++) {
        for (int k = 0; k < 8; k++) { /* keep its socket full, and read what it is told */
            ssize_t n =
                send(flood.fd, dv_buf_ptr(&many) + at, dv_buf_len(&many) - at, MSG_NOSIGNAL | MSG_DONTWAIT);
            at = n > 0 ? (at + (size_t)n) % dv_buf_len(&many) : at;
            client_poll(&flood);
            answered += dv_buf_len(&flood.in);
            dv_buf_clear(&flood.in);
        }
        struct reply r = client_ask(&c, GET("/function/f/quiet"), "GET");
        assert_string_equal(reply_body(&r), "GET /quiet 5000");
        reply_free(&r);
    }
    assert_true(answered > 20000);
    client_close(&flood);
    client_close(&c);
    rig_stop(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_reaches_the_function_and_its_answer_the_client),
        cmocka_unit_test(names_resolve_with_namespace_and_openfaas_alias),
        cmocka_unit_test(one_connection_carries_many_requests_pipelined_ones_in_order),
        cmocka_unit_test(the_function_is_told_who_asked_and_nothing_of_one_hop),
        cmocka_unit_test(health_is_answered_by_the_gateway_itself),
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
        cmocka_unit_test(a_request_without_a_replica_waits_asks_for_one_and_is_served),
        cmocka_unit_test(a_full_queue_refuses_with_503_and_retry_after),
        cmocka_unit_test(deadlines_end_waiting_and_running_requests_and_name_the_hop),
        cmocka_unit_test(a_client_that_leaves_cancels_its_request),
        cmocka_unit_test(a_failing_function_refuses_waiting_and_new_requests_with_its_reason),
        cmocka_unit_test(a_function_removed_while_requests_wait_is_unknown_to_them),
        cmocka_unit_test(a_function_removed_while_a_request_is_inside_lets_it_end),
        cmocka_unit_test(concurrency_is_kept_over_all_loops),
        cmocka_unit_test(a_replica_that_refuses_unseen_costs_the_client_nothing),
        cmocka_unit_test(a_replica_that_never_takes_a_request_is_given_up),
        cmocka_unit_test(a_broken_link_ends_its_requests_and_is_made_again),
        cmocka_unit_test(invoke_and_protected_functions_want_credentials),
        cmocka_unit_test(an_async_request_is_handed_over_and_answered_when_it_is_safe),
        cmocka_unit_test(an_async_body_in_chunks_is_bounded_too),
        cmocka_unit_test(every_other_path_is_the_apis),
        cmocka_unit_test(an_api_that_is_not_there_gives_503),
        cmocka_unit_test(metrics_and_access_log_tell_what_happened),
        cmocka_unit_test(draining_ends_requests_inside_and_takes_no_new_connection),
        cmocka_unit_test(draining_gives_up_at_its_deadline),
        cmocka_unit_test(a_port_in_use_is_refused_with_the_address_and_the_cure),
        cmocka_unit_test(a_warm_request_allocates_nothing),
        cmocka_unit_test(a_request_without_memory_harms_nobody_else),
        cmocka_unit_test(one_who_never_stops_sending_does_not_hold_up_the_others),
        cmocka_unit_test(stopping_with_requests_everywhere_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
