/* The gateway from outside: raw client sockets on one side, a fake agent on the other.  The ordinary way, who
 * may, the paths that go elsewhere, and the end. */
#include "tests/support/gateway_plain.h"

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
