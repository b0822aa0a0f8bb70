/* Requests that wait at the gateway: for a replica, in a full queue, past a deadline, for another try. */
#include "tests/support/gateway_plain.h"

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

/* A POST to /function/f/count with a body of n bytes. */
static char *upload(size_t n, bool chunked, size_t *out_n)
{
    struct dv_buf b = DV_BUF_INIT;
    (void)dv_buf_addf(&b, "POST /function/f/count HTTP/1.1\r\nHost: h\r\n");
    if (!chunked)
        (void)dv_buf_addf(&b, "Content-Length: %zu\r\n\r\n", n);
    else
        (void)dv_buf_addf(&b, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", n);
    for (size_t i = 0; i < n; i++)
        (void)dv_buf_add_char(&b, 'b');
    if (chunked)
        (void)dv_buf_addf(&b, "\r\n0\r\n\r\n");
    assert_int_equal(b.failed, 0);
    char *text = dv_strndup(dv_buf_ptr(&b), dv_buf_len(&b));
    assert_non_null(text);
    *out_n = dv_buf_len(&b);
    dv_buf_deinit(&b);
    return text;
}

static void expect_count(struct client *c, size_t n)
{
    struct reply r;
    char count[24];
    client_read(c, "POST", &r);
    if (r.status != 200)
        fail_msg("%d %s", r.status, reply_body(&r));
    (void)snprintf(count, sizeof(count), "%zu", n);
    assert_string_equal(reply_body(&r), count);
    reply_free(&r);
}

static void a_body_that_nobody_has_seen_goes_elsewhere_whole_whatever_its_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {16 * 1024 + 1, 100 * 1000, DV_LINK_WINDOW, DV_LINK_WINDOW + 1,
                                   3000 * 1000};
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    for (size_t i = 0; i < 2 * DV_COUNT(sizes); i++) {
        size_t n = sizes[i / 2], len;
        char *text = upload(n, i % 2, &len);
        g->refuse_next = 2;
        g->refuse_why = DV_RESET_REFUSED;
        client_send_n(&c, text, len);
        expect_count(&c, n);
        dv_free(text);
    }
    assert_int_equal(g->n_refused, 4 * (int)DV_COUNT(sizes));
    client_close(&c);
    rig_stop(g);
}

/* The agent holds the request for seconds (a container that hangs in its connect), then it turns out that
 * nobody has seen it.  Until then no more than a window is on its way. */
static void a_body_is_kept_until_credit_comes_back(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    size_t len, n = 250 * 1000;
    char *text = upload(n, false, &len);
    for (int i = 0; i < 2; i++) {
        struct client c = client_open(g);
        g->hold = g->withhold = true;
        g->agent_got = 0;
        client_send_n(&c, text, len); /* the rest waits in sockets */
        rig_until(g, g->agent_got == DV_LINK_WINDOW);
        rig_for(g, 30);
        assert_int_equal(g->agent_got, DV_LINK_WINDOW);
        g->hold = g->withhold = false;
        agent_reset_all(g, DV_RESET_CONNECT);
        expect_count(&c, n);
        client_close(&c);
    }
    dv_free(text);
    rig_stop(g);
}

/* Once part of it has been passed on there is no second try. */
static void a_body_that_was_seen_in_part_is_not_sent_again(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    size_t len, n = 250 * 1000;
    char *text = upload(n, false, &len);
    struct client c = client_open(g);
    struct reply r;
    g->hold = true;
    client_send_n(&c, text, len);
    rig_until(g, g->agent_got == n);
    int before = g->n_requests;
    agent_reset_all(g, DV_RESET_CONNECT);
    client_read(&c, "POST", &r);
    assert_int_equal(r.status, 502);
    assert_int_equal(g->n_requests, before);
    reply_free(&r);
    client_close(&c);
    dv_free(text);
    rig_stop(g);
}

/* Without a turn of the agent's loop. */
static void expect_inside(struct rig *g, uint64_t n)
{
    struct dv_load load = {0};
    for (int i = 0; i < 5000 && load.in_flight != n; i++) {
        (void)usleep(1000);
        assert_int_equal(dv_gateway_load(g->g, RIG_FN, &load), DV_OK);
    }
    assert_int_equal(load.in_flight, n);
}

/* Its connection is full of others' bodies and then breaks: those are told so, the one that never left is
 * answered by the next connection. */
static void a_request_that_never_left_is_not_lost_with_its_link(void **state)
{
    (void)state;
    enum { N = 60 };
    struct rig *g = rig_start(&(struct rig_options){.n_loops = 1});
    rig_replicas(g, 1, 100);
    size_t len, n = DV_LINK_WINDOW;
    char *text = upload(n, false, &len);
    struct client c[N], late = client_open(g);
    expect_status(g, GET("/function/f"), "GET", 200); /* the link is there */
    for (int i = 0; i < N; i++)
        c[i] = client_open(g);
    g->hold = true;
    for (int i = 0; i < N; i++) { /* nobody turns the agent's loop */
        size_t from = 0;
        for (uint64_t until = dv_clock_now_ns(&dv_clock_system) + 20 * DV_MS;
             from < len && dv_clock_now_ns(&dv_clock_system) < until;) {
            ssize_t k = send(c[i].fd, text + from, len - from, MSG_NOSIGNAL | MSG_DONTWAIT);
            from += k > 0 ? (size_t)k : 0;
        }
    }
    expect_inside(g, N);
    (void)usleep(100 * 1000); /* until nothing moves any more */
    client_send(&late, GET("/function/f"));
    expect_inside(g, N + 1);
    g->hold = false;
    agent_drop_links(g);
    struct reply r;
    client_read(&late, "GET", &r);
    if (r.status != 200)
        fail_msg("%d %s", r.status, reply_body(&r));
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&late);
    client_read(&c[0], "POST", &r); /* had arrived, for all anybody knows */
    assert_int_equal(r.status, 502);
    reply_free(&r);
    for (int i = 0; i < N; i++)
        client_close(&c[i]);
    dv_free(text);
    rig_stop(g);
}

static void an_agent_that_is_stopped_is_named(void **state)
{
    (void)state;
    struct rig *g = plain_rig();
    struct client c = client_open(g);
    struct reply r;
    g->hold = true;
    client_send(&c, GET("/function/f"));
    rig_until(g, agent_streams(g) == 1);
    agent_reset_all(g, DV_RESET_SHUTDOWN);
    client_read(&c, "GET", &r);
    assert_int_equal(r.status, 502);
    assert_non_null(strstr(reply_body(&r), "node_stopped"));
    reply_free(&r);
    client_close(&c);
    rig_stop(g);
}

/* An agent that has just started knows none of its replicas for a while, however many there are. */
static void refusals_by_agents_cost_time_and_no_attempts(void **state)
{
    (void)state;
    struct rig *g = rig_start(&(struct rig_options){0});
    rig_replicas(g, 8, 1);
    g->refuse_next = 26;
    g->refuse_why = DV_RESET_NOT_HERE;
    expect_status(g, GET("/function/f"), "GET", 200);
    assert_int_equal(g->n_refused, 26);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_without_a_replica_waits_asks_for_one_and_is_served),
        cmocka_unit_test(a_full_queue_refuses_with_503_and_retry_after),
        cmocka_unit_test(deadlines_end_waiting_and_running_requests_and_name_the_hop),
        cmocka_unit_test(a_client_that_leaves_cancels_its_request),
        cmocka_unit_test(a_failing_function_refuses_waiting_and_new_requests_with_its_reason),
        cmocka_unit_test(a_function_removed_while_requests_wait_is_unknown_to_them),
        cmocka_unit_test(a_function_removed_while_a_request_is_inside_lets_it_end),
        cmocka_unit_test(concurrency_is_kept_over_all_loops),
        cmocka_unit_test(a_replica_that_refuses_unseen_costs_the_client_nothing),
        cmocka_unit_test(a_body_that_nobody_has_seen_goes_elsewhere_whole_whatever_its_size),
        cmocka_unit_test(a_body_is_kept_until_credit_comes_back),
        cmocka_unit_test(a_body_that_was_seen_in_part_is_not_sent_again),
        cmocka_unit_test(a_request_that_never_left_is_not_lost_with_its_link),
        cmocka_unit_test(an_agent_that_is_stopped_is_named),
        cmocka_unit_test(refusals_by_agents_cost_time_and_no_attempts),
        cmocka_unit_test(a_replica_that_never_takes_a_request_is_given_up),
        cmocka_unit_test(a_broken_link_ends_its_requests_and_is_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
