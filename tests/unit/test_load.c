/* The load generator is trusted with every figure, so it is held to known answers first. */
#include "tests/bench/load_answer.c" /* its sources: the program itself is no library */
#include "tests/bench/load_run.c"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* ---- answers */

static const char *feed_in_two(struct load_answer *a, const char *text, size_t cut)
{
    size_t n = strlen(text), at = 0;
    load_answer_begin(a, false);
    for (size_t end = cut; at < n && a->state != LOAD_ANSWER_DONE; end = n) {
        ssize_t took = load_answer_feed(a, text + at, end - at);
        assert_true(took >= 0);
        at += (size_t)took;
    }
    return text + at;
}

static void an_answer_ends_where_its_framing_says_wherever_it_is_cut(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
        uint64_t body;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello|", 200, 5},
        {"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n|", 204, 0},
        {"HTTP/1.1 503 Busy\r\ncontent-length:0\r\n\r\n|", 503, 0},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx|", 200, 1},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: "
         "v\r\n\r\n|",
         200, 13},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (size_t cut = 1; cut < strlen(rows[i].text); cut++) {
            struct load_answer a;
            assert_string_equal(feed_in_two(&a, rows[i].text, cut), "|");
            assert_int_equal(a.state, LOAD_ANSWER_DONE);
            assert_int_equal(a.status, rows[i].status);
            assert_int_equal(a.n_body, rows[i].body);
        }
}

static void an_answer_without_length_ends_with_its_connection(void **state)
{
    (void)state;
    struct load_answer a;
    (void)feed_in_two(&a, "HTTP/1.0 200 OK\r\n\r\nall of this", 30);
    assert_int_equal(a.state, LOAD_ANSWER_UNTIL_CLOSE);
    assert_true(a.closes);
    assert_true(load_answer_end(&a));
    assert_int_equal(a.n_body, 11);
}

static void what_is_no_answer_is_refused_and_a_cut_one_is_no_whole_one(void **state)
{
    (void)state;
    static const char *const wrong[] = {"SSH-2.0-OpenSSH\r\n", "HTTP/1.1 99 Low\r\n",
                                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n"};
    struct load_answer a;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        load_answer_begin(&a, false);
        assert_int_equal(load_answer_feed(&a, wrong[i], strlen(wrong[i])), -1);
    }
    (void)feed_in_two(&a, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", 20);
    assert_false(load_answer_end(&a));
}

/* ---- percentiles */

static void percentiles_are_within_one_percent(void **state)
{
    (void)state;
    static struct load_hist h;
    static const double shares[] = {0.01, 0.5, 0.9, 0.99, 0.999, 1};
    for (uint64_t us = 1; us <= 100000; us++)
        load_hist_add(&h, us * 1000);
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        double wanted = shares[i] * 1e8, got = (double)load_hist_at(&h, shares[i]);
        assert_true(got >= wanted * 0.999 && got <= wanted * 1.01);
    }
    assert_int_equal(load_hist_at(&h, 1), 100000000);
}

static void percentiles_of_nothing_and_of_one_value(void **state)
{
    (void)state;
    static struct load_hist h;
    assert_int_equal(load_hist_at(&h, 0.99), 0);
    load_hist_add(&h, 123456789);
    assert_int_equal(load_hist_at(&h, 0.5), 123456789);
    assert_int_equal(load_hist_at(&h, 0.001), 123456789);
}

/* ---- runs, against a server that answers one connection, and sleeps once */

struct server {
    int listener;
    unsigned stall_at, stall_ms; /* before the answer to this request */
    int status;
};

static bool serve_one(struct server *s, int fd, unsigned i)
{
    char in[4096], out[128];
    size_t have = 0;
    for (ssize_t n; have < 4 || memcmp(in + have - 4, "\r\n\r\n", 4) != 0; have += (size_t)n)
        if ((n = recv(fd, in + have, sizeof(in) - have, 0)) <= 0)
            return false;
    if (s->stall_ms && i == s->stall_at)
        (void)nanosleep(&(struct timespec){.tv_nsec = (long)s->stall_ms * 1000000}, NULL);
    int n = snprintf(out, sizeof(out), "HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok", s->status);
    return send(fd, out, (size_t)n, MSG_NOSIGNAL) == n;
}

static void *serve(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    for (unsigned i = 0; serve_one(s, fd, i); i++)
        ;
    (void)close(fd);
    return NULL;
}

static void run_against(struct server *s, struct load_cfg *cfg, struct load_result *out)
{
    char head[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", *heads[] = {head};
    socklen_t n = sizeof(cfg->address);
    pthread_t thread;
    memset(out, 0, sizeof(*out));
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cfg->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(s->listener, (struct sockaddr *)&cfg->address, n), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&cfg->address, &n), 0);
    assert_int_equal(pthread_create(&thread, NULL, serve, s), 0);
    cfg->requests = heads;
    cfg->n_requests = 1;
    cfg->n_connections = 1;
    cfg->timeout_ns = 5 * SECOND_NS;
    assert_int_equal(load_run(cfg, out), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    (void)close(s->listener);
}

static void an_open_loop_charges_a_stall_to_everything_that_was_due_meanwhile(void **state)
{
    (void)state;
    static struct load_result r;
    struct server s = {.stall_at = 50, .stall_ms = 200, .status = 200};
    struct load_cfg cfg = {.rate = 1000, .duration_ns = 400000000, .expected_bytes = -1};
    run_against(&s, &cfg, &r);
    assert_int_equal(r.n_counted, 400);
    assert_int_equal(r.latency.n, 400);
    /* 200 of 400 were due while the server slept: theirs are spread over 0..200 ms. */
    assert_true(load_hist_at(&r.latency, 0.75) > 60000000);
    assert_true(load_hist_at(&r.latency, 0.95) > 150000000);
}

static void a_closed_loop_sees_a_stall_once(void **state)
{
    (void)state;
    static struct load_result r;
    struct server s = {.stall_at = 50, .stall_ms = 200, .status = 200};
    struct load_cfg cfg = {.duration_ns = 400000000, .expected_bytes = 2};
    run_against(&s, &cfg, &r);
    assert_true(r.n_counted > 60);
    assert_true(r.latency.max_ns >= 200000000);
    assert_true(load_hist_at(&r.latency, 0.95) < 150000000);
}

static void errors_are_counted_by_status_and_not_as_latencies(void **state)
{
    (void)state;
    static struct load_result r;
    struct server s = {.status = 503};
    struct load_cfg cfg = {.duration_ns = 2 * SECOND_NS, .count = 30, .expected_bytes = -1};
    run_against(&s, &cfg, &r);
    assert_int_equal(r.n_status[503], 30);
    assert_int_equal(r.n_all, 30);
    assert_int_equal(r.n_counted + r.latency.n, 0);
}

static void a_body_of_another_length_is_wrong(void **state)
{
    (void)state;
    static struct load_result r;
    struct server s = {.status = 200};
    struct load_cfg cfg = {.duration_ns = 2 * SECOND_NS, .count = 10, .expected_bytes = 3};
    run_against(&s, &cfg, &r);
    assert_int_equal(r.n_trouble[LOAD_WRONG], 10);
    assert_int_equal(r.n_counted, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_ends_where_its_framing_says_wherever_it_is_cut),
        cmocka_unit_test(an_answer_without_length_ends_with_its_connection),
        cmocka_unit_test(what_is_no_answer_is_refused_and_a_cut_one_is_no_whole_one),
        cmocka_unit_test(percentiles_are_within_one_percent),
        cmocka_unit_test(percentiles_of_nothing_and_of_one_value),
        cmocka_unit_test(an_open_loop_charges_a_stall_to_everything_that_was_due_meanwhile),
        cmocka_unit_test(a_closed_loop_sees_a_stall_once),
        cmocka_unit_test(errors_are_counted_by_status_and_not_as_latencies),
        cmocka_unit_test(a_body_of_another_length_is_wrong),
    };
    return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}
