/* The gateway's public listener with TLS: real GnuTLS clients that trust nothing but the certificate made
 * here.
 */

#include "tests/support/gateway_rig.h"

#include <gnutls/gnutls.h>
#include "orchestrator/gateway/gw_tls.h"
#include "tests/support/tls_pair.h"

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"

/* ---- a gateway ---- */

static struct dv_tls_keys *pair_load(const struct pair *p)
{
    struct dv_tls_keys *k = NULL;
    struct dv_err err = DV_ERR_INIT;
    if (dv_tls_keys_load(p->cert, p->key, &k, &err))
        fail_msg("%s", err.msg);
    return k;
}

struct world {
    struct pair pair;
    struct rig *g;
};

static struct world world_start(const struct rig_options *options)
{
    struct world w = {.pair = pair_new(1)};
    struct rig_options o = *options;
    struct dv_tls_keys *keys = pair_load(&w.pair);
    o.tls = keys;
    w.g = rig_start(&o);
    dv_tls_keys_unref(keys); /* the gateway has a reference of its own */
    rig_replicas(w.g, 1, 10);
    return w;
}

static void world_stop(struct world *w)
{
    rig_stop(w->g);
    pair_free(&w->pair);
}

static uint64_t counter(struct rig *g, const char *name)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    dv_gateway_metrics(g->g, &b);
    const char *text = dv_buf_cstr(&b), *at = text;
    size_t n = strlen(name);
    assert_non_null(text);
    while (at && !(strncmp(at, name, n) == 0 && at[n] == ' '))
        at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
    assert_non_null(at);
    return strtoull(at + n, NULL, 10);
}

/* ---- clients ---- */

struct peer {
    gnutls_session_t session;
    gnutls_certificate_credentials_t creds;
};

static ssize_t peer_send(struct client *c, const char *p, size_t n)
{
    ssize_t k = gnutls_record_send(((struct peer *)c->tls)->session, p, n);
    errno = k == GNUTLS_E_AGAIN || k == GNUTLS_E_INTERRUPTED ? EAGAIN : EPIPE;
    return k < 0 ? -1 : k;
}

static int last_recv; /* what the last read of a client ended with */

static ssize_t peer_recv(struct client *c, char *p, size_t n)
{
    ssize_t k;
    do /* tickets are no data */
        k = gnutls_record_recv(((struct peer *)c->tls)->session, p, n);
    while (k < 0 && k != GNUTLS_E_AGAIN && !gnutls_error_is_fatal((int)k));
    last_recv = (int)k;
    errno = k == GNUTLS_E_AGAIN ? EAGAIN : ECONNRESET;
    return k < 0 ? -1 : k;
}

static struct client tls_client(struct rig *g, const char *priorities, const char *alpn)
{
    struct client c = client_open(g);
    struct peer *p = calloc(1, sizeof(*p));
    gnutls_datum_t protocol = {.data = (unsigned char *)(uintptr_t)alpn,
                               .size = alpn ? (unsigned)strlen(alpn) : 0};
    assert_int_equal(gnutls_certificate_allocate_credentials(&p->creds), 0);
    assert_int_equal(gnutls_init(&p->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL), 0);
    assert_int_equal(gnutls_priority_set_direct(p->session, priorities ? priorities : "NORMAL", NULL), 0);
    assert_int_equal(gnutls_credentials_set(p->session, GNUTLS_CRD_CERTIFICATE, p->creds), 0);
    assert_int_equal(gnutls_server_name_set(p->session, GNUTLS_NAME_DNS, "localhost", 9), 0);
    if (alpn)
        assert_int_equal(gnutls_alpn_set_protocols(p->session, &protocol, 1, 0), 0);
    gnutls_transport_set_int(p->session, c.fd);
    c.tls = p;
    c.tls_send = peer_send;
    c.tls_recv = peer_recv;
    return c;
}

static int try_handshake(struct client *c)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;
    int rc;
    while ((rc = gnutls_handshake(((struct peer *)c->tls)->session)) < 0 && !gnutls_error_is_fatal(rc)) {
        assert_true(dv_clock_now_ns(&dv_clock_system) < until);
        rig_turn(c->g);
    }
    return rc;
}

static struct client tls_open(struct rig *g)
{
    struct client c = tls_client(g, NULL, "http/1.1");
    int rc = try_handshake(&c);
    if (rc < 0)
        fail_msg("handshake: %s", gnutls_strerror(rc));
    return c;
}

static void tls_close(struct client *c)
{
    struct peer *p = c->tls;
    gnutls_deinit(p->session);
    gnutls_certificate_free_credentials(p->creds);
    free(p);
    client_close(c);
}

/* Which certificate this connection was shown. */
static unsigned serial_of(struct client *c)
{
    unsigned n = 0;
    unsigned char number[8];
    size_t size = sizeof(number);
    gnutls_x509_crt_t crt;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(((struct peer *)c->tls)->session, &n);
    assert_true(n == 1);
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    assert_int_equal(gnutls_x509_crt_import(crt, list, GNUTLS_X509_FMT_DER), 0);
    assert_int_equal(gnutls_x509_crt_get_serial(crt, number, &size), 0);
    gnutls_x509_crt_deinit(crt);
    return number[size - 1];
}

static void expect_ask(struct client *c, const char *path, const char *body)
{
    char ask[128];
    (void)snprintf(ask, sizeof(ask), "GET /function/f%s HTTP/1.1\r\nHost: h\r\n\r\n", path);
    struct reply r = client_ask(c, ask, "GET");
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_body(&r), body);
    reply_free(&r);
}

/* ---- the ordinary way ---- */

static void requests_over_tls_share_a_connection_and_the_function_learns_of_https(void **state)
{
    (void)state;
    static const char *const versions[] = {"NORMAL:-VERS-ALL:+VERS-TLS1.3", "NORMAL:-VERS-ALL:+VERS-TLS1.2"};
    struct world w = world_start(&(struct rig_options){0});
    for (size_t i = 0; i < DV_COUNT(versions); i++) {
        struct client c = tls_client(w.g, versions[i], "http/1.1");
        gnutls_datum_t chosen;
        assert_int_equal(try_handshake(&c), 0);
        assert_int_equal(gnutls_alpn_get_selected_protocol(((struct peer *)c.tls)->session, &chosen), 0);
        assert_memory_equal(chosen.data, "http/1.1", 8);
        for (int k = 0; k < 20; k++)
            expect_ask(&c, "/a/b?x=1", "GET /a/b?x=1 5000");
        struct reply r = client_ask(&c, GET("/function/f/fields"), "GET");
        assert_non_null(strstr(reply_body(&r), "X-Forwarded-Proto: https\r\n"));
        assert_non_null(strstr(reply_body(&r), "Forwarded: for=127.0.0.1;host=\"h\";proto=https\r\n"));
        reply_free(&r);
        tls_close(&c);
    }
    assert_int_equal(counter(w.g, "davit_gateway_tls_handshakes_total"), 2);
    assert_int_equal(counter(w.g, "davit_gateway_tls_failures_total"), 0);
    assert_true(counter(w.g, "davit_gateway_tls_certificate_expiry_seconds") > (uint64_t)time(NULL));
    struct client in = client_open_at(w.g, w.g->internal); /* our own workers need none */
    expect_ask(&in, "/x", "GET /x 5000");
    client_close(&in);
    world_stop(&w);
}

static void pipelined_requests_in_one_record_are_all_answered(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client c = tls_open(w.g);
    client_send(&c, GET("/function/f/1") GET("/function/f/2") GET("/function/f/3"));
    for (int i = 1; i <= 3; i++) {
        struct reply r;
        char want[32];
        client_read(&c, "GET", &r);
        (void)snprintf(want, sizeof(want), "GET /%d 5000", i);
        assert_string_equal(reply_body(&r), want);
        reply_free(&r);
    }
    tls_close(&c);
    world_stop(&w);
}

static void only_clients_that_can_speak_http_1_1_and_modern_tls_are_let_in(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client c = tls_client(w.g, NULL, "h2");
    assert_int_equal(try_handshake(&c), GNUTLS_E_FATAL_ALERT_RECEIVED);
    assert_int_equal(gnutls_alert_get(((struct peer *)c.tls)->session), GNUTLS_A_NO_APPLICATION_PROTOCOL);
    tls_close(&c);
    c = tls_client(w.g, "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%DISABLE_TLS13_COMPAT_MODE", NULL);
    assert_int_equal(try_handshake(&c), GNUTLS_E_FATAL_ALERT_RECEIVED);
    assert_int_equal(gnutls_alert_get(((struct peer *)c.tls)->session), GNUTLS_A_PROTOCOL_VERSION);
    tls_close(&c);
    c = tls_client(w.g, NULL, NULL); /* names no protocol: HTTP/1.1 is understood */
    assert_int_equal(try_handshake(&c), 0);
    expect_ask(&c, "/x", "GET /x 5000");
    tls_close(&c);
    rig_until(w.g, counter(w.g, "davit_gateway_tls_failures_total") == 2);
    world_stop(&w);
}

static void many_handshakes_at_once_all_come_to_their_end(void **state)
{
    (void)state;
    enum { N = 40 };
    struct world w = world_start(&(struct rig_options){0});
    struct client c[N];
    bool done[N] = {0};
    for (int i = 0; i < N; i++)
        c[i] = tls_client(w.g, NULL, NULL);
    for (int left = N; left;) { /* far more than one turn of the loop takes on */
        for (int i = 0; i < N; i++) {
            int rc = done[i] ? 0 : gnutls_handshake(((struct peer *)c[i].tls)->session);
            assert_true(rc == 0 || !gnutls_error_is_fatal(rc));
            left -= !rc && !done[i];
            done[i] = !rc;
        }
        rig_turn(w.g);
    }
    for (int i = 0; i < N; i++) {
        expect_ask(&c[i], "/x", "GET /x 5000");
        tls_close(&c[i]);
    }
    world_stop(&w);
}

/* ---- bodies ---- */

static void large_bodies_stream_both_ways_and_stop_while_nobody_reads(void **state)
{
    (void)state;
    enum { BYTES = 2 * 1024 * 1024 };
    struct world w = world_start(&(struct rig_options){0});
    struct client c = tls_open(w.g);
    struct reply r;
    char head[128];
    char *body = dv_zalloc(BYTES);
    (void)snprintf(head, sizeof(head),
                   "POST /function/f/count HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", BYTES);
    client_send(&c, head);
    client_send_n(&c, body, BYTES);
    client_read(&c, "POST", &r);
    assert_string_equal(reply_body(&r), "2097152");
    reply_free(&r);

    client_send(&c, GET("/function/f/big/3000000")); /* with a reader that rests in between */
    rig_for(w.g, 100);
    client_read(&c, "GET", &r);
    assert_int_equal(dv_buf_len(&r.body), 3000000);
    reply_free(&r);
    client_send(&c, "POST /function/f/echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "5\r\nhello\r\n");
    rig_until(w.g,
              (client_poll(&c), dv_buf_len(&c.in) > 5 && memcmp(dv_buf_end(&c.in) - 7, "hello\r\n", 7) == 0));
    client_send(&c, "6\r\n world\r\n0\r\n\r\n");
    client_read(&c, "POST", &r);
    assert_string_equal(reply_body(&r), "hello world");
    reply_free(&r);

    (void)snprintf(head, sizeof(head),
                   "POST /function/f/swallow HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 100 * BYTES);
    client_send(&c, head);
    w.g->agent_got = 0;
    uint64_t quiet = dv_clock_now_ns(&dv_clock_system) + 200 * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < quiet) {
        if (peer_send(&c, body, 16384) > 0)
            quiet = dv_clock_now_ns(&dv_clock_system) + 200 * DV_MS;
        rig_turn(w.g);
    }
    assert_int_equal(w.g->agent_got, DV_LINK_WINDOW); /* not a byte beyond the credit */
    dv_free(body);
    tls_close(&c);
    world_stop(&w);
}

static void an_upgraded_connection_carries_raw_bytes_both_ways(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client c = tls_open(w.g);
    struct reply r = client_ask(
        &c, "GET /function/f/upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n",
        "GET");
    assert_int_equal(r.status, 101);
    reply_free(&r);
    client_send(&c, "\x01raw");
    rig_until(w.g, (client_poll(&c), dv_buf_len(&c.in) == 4));
    assert_memory_equal(dv_buf_ptr(&c.in), "\x01raw", 4);
    tls_close(&c);
    world_stop(&w);
}

/* ---- ends ---- */

static void an_end_in_order_is_told_and_a_broken_one_is_not(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client c = tls_open(w.g);
    struct reply r =
        client_ask(&c, "GET /function/f/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_expect_eof(&c);
    assert_int_equal(last_recv, 0); /* close_notify */
    tls_close(&c);

    c = tls_open(w.g);
    client_send(&c, GET("/function/f/broken"));
    client_expect_eof(&c);
    assert_int_equal(last_recv, GNUTLS_E_PREMATURE_TERMINATION);
    tls_close(&c);
    world_stop(&w);
}

static void a_client_that_leaves_cancels_its_request(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    w.g->hold = true;
    for (int polite = 0; polite < 2; polite++) {
        struct client c = tls_open(w.g);
        client_send(&c, GET("/function/f/a"));
        rig_until(w.g, agent_streams(w.g) == 1);
        if (polite)
            (void)gnutls_bye(((struct peer *)c.tls)->session, GNUTLS_SHUT_WR);
        tls_close(&c);
        rig_until(w.g, agent_streams(w.g) == 0);
        assert_int_equal(w.g->last_reset, DV_RESET_CANCEL);
    }
    world_stop(&w);
}

static void a_slow_handshake_is_given_up(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){.head_timeout_ms = 150});
    struct client silent = client_open(w.g), begun = client_open(w.g);
    uint64_t from = dv_clock_now_ns(&dv_clock_system);
    client_send_n(&begun, "\x16\x03\x01\x02\x00\x01", 6); /* the first bytes of a greeting, and no more */
    client_expect_eof(&silent);
    client_expect_eof(&begun);
    uint64_t took = dv_clock_now_ns(&dv_clock_system) - from;
    assert_true(took >= 100 * DV_MS && took < 2 * DV_S);
    client_close(&silent);
    client_close(&begun);
    struct client c = tls_open(w.g); /* open, but the head does not come: the same clock */
    client_expect_eof(&c);
    tls_close(&c);
    world_stop(&w);
}

static void http_without_tls_is_told_so_and_other_noise_gets_an_alert(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client c = client_open(w.g);
    struct reply r = client_ask(&c, GET("/function/f/x"), "GET");
    assert_int_equal(r.status, 400);
    assert_non_null(strstr(reply_body(&r), "this port speaks HTTPS"));
    assert_true(reply_has(&r, "connection", "close"));
    reply_free(&r);
    client_expect_eof(&c);
    client_close(&c);
    assert_int_equal(w.g->n_requests, 0);

    c = client_open(w.g);
    client_send_n(&c, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a", 11);
    client_expect_eof(&c);
    assert_true(dv_buf_len(&c.in) >= 7);
    assert_int_equal(dv_buf_ptr(&c.in)[0], 21); /* an alert */
    client_close(&c);
    rig_until(w.g, counter(w.g, "davit_gateway_tls_failures_total") == 2);
    world_stop(&w);
}

static void draining_lets_requests_over_tls_end(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client busy = tls_open(w.g), idle = tls_open(w.g), begun = client_open(w.g);
    struct reply r;
    w.g->hold = true;
    client_send(&busy, GET("/function/f/last"));
    rig_until(w.g, agent_streams(w.g) == 1);
    dv_gateway_drain(w.g->g, dv_clock_now_ns(&dv_clock_system) + 5 * DV_S, rig_on_drained);
    client_expect_eof(&idle);
    assert_int_equal(last_recv, 0);
    rig_release(w.g);
    client_read(&busy, "GET", &r);
    assert_string_equal(reply_body(&r), "GET /last 5000");
    reply_free(&r);
    client_expect_eof(&busy);
    client_expect_eof(&begun); /* it may still come to its end, for a second */
    rig_until(w.g, w.g->drained);
    client_close(&begun);
    tls_close(&busy);
    tls_close(&idle);
    world_stop(&w);
}

/* ---- another certificate ---- */

static void a_new_certificate_is_for_new_connections_and_old_ones_go_on(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){.n_loops = 2});
    struct client old = tls_open(w.g);
    struct reply r;
    assert_int_equal(serial_of(&old), 1);
    w.g->hold = true;
    client_send(&old, GET("/function/f/during")); /* a request is inside meanwhile */
    rig_until(w.g, agent_streams(w.g) == 1);
    pair_write(&w.pair, 2);
    struct dv_tls_keys *keys = pair_load(&w.pair);
    assert_int_equal(dv_gateway_tls_put(w.g->g, keys), DV_OK);
    dv_tls_keys_unref(keys);
    rig_for(w.g, 20);
    for (int i = 0; i < 6; i++) { /* whichever loop takes it */
        struct client c = tls_open(w.g);
        assert_int_equal(serial_of(&c), 2);
        tls_close(&c);
    }
    rig_release(w.g);
    client_read(&old, "GET", &r);
    assert_string_equal(reply_body(&r), "GET /during 5000");
    reply_free(&r);
    expect_ask(&old, "/after", "GET /after 5000");
    tls_close(&old);
    world_stop(&w);
}

static void who_comes_back_skips_the_signature_until_the_certificate_changes(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    gnutls_datum_t ticket = {0};
    for (int i = 0; i < 3; i++) {
        struct client c = tls_client(w.g, NULL, "http/1.1");
        gnutls_session_t s = ((struct peer *)c.tls)->session;
        if (i)
            assert_int_equal(gnutls_session_set_data(s, ticket.data, ticket.size), 0);
        gnutls_free(ticket.data);
        ticket.data = NULL;
        assert_int_equal(try_handshake(&c), 0);
        assert_int_equal(gnutls_session_is_resumed(s) != 0, i == 1);
        expect_ask(&c, "/x", "GET /x 5000"); /* and the ticket comes with it */
        assert_int_equal(gnutls_session_get_data2(s, &ticket), 0);
        tls_close(&c);
        if (i == 1) {
            pair_write(&w.pair, 2);
            struct dv_tls_keys *keys = pair_load(&w.pair);
            assert_int_equal(dv_gateway_tls_put(w.g->g, keys), DV_OK);
            dv_tls_keys_unref(keys);
            rig_for(w.g, 20);
        }
    }
    gnutls_free(ticket.data);
    world_stop(&w);
}

static void expect_refused(const char *cert, const char *key, int code, const char *text)
{
    struct dv_tls_keys *k = NULL;
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_tls_keys_load(cert, key, &k, &err), code);
    assert_null(k);
    if (!strstr(err.msg, text))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, text);
}

static void files_that_cannot_be_used_are_refused_by_name(void **state)
{
    (void)state;
    struct pair a = pair_new(1), b = pair_new(2);
    char text[160];
    expect_refused("/nonexistent/cert.pem", a.key, DV_NOT_FOUND, "--tls-cert: ");
    expect_refused(a.cert, "/nonexistent/key.pem", DV_NOT_FOUND, "/nonexistent/key.pem");
    (void)snprintf(text, sizeof(text), "--tls-cert %s: no certificate", a.key);
    expect_refused(a.key, a.key, DV_INVALID, text);
    (void)snprintf(text, sizeof(text), "--tls-key %s: no private key", a.cert);
    expect_refused(a.cert, a.cert, DV_INVALID, text);
    (void)snprintf(text, sizeof(text), "--tls-key %s is not the key", b.key);
    expect_refused(a.cert, b.key, DV_INVALID, text);
    assert_int_equal(dv_file_write(b.cert, dv_sv("", 0), 0600, NULL), DV_OK);
    expect_refused(b.cert, b.key, DV_INVALID, "no certificate");
    pair_free(&a);
    pair_free(&b);
}

static void a_gateway_without_tls_takes_no_certificate(void **state)
{
    (void)state;
    struct pair p = pair_new(1);
    struct rig *g = rig_start(&(struct rig_options){0});
    struct dv_tls_keys *keys = pair_load(&p);
    assert_int_equal(dv_gateway_tls_put(g->g, keys), DV_UNSUPPORTED);
    dv_tls_keys_unref(keys);
    rig_replicas(g, 1, 1);
    expect_status(g, GET("/function/f/x"), "GET", 200);
    rig_stop(g);
    pair_free(&p);
}

static void a_connection_without_memory_is_closed_and_the_next_one_served(void **state)
{
    (void)state;
    struct world w = world_start(&(struct rig_options){0});
    struct client warm = tls_open(w.g); /* pools are filled */
    for (uint64_t n = 1; n <= 3; n++) {
        dv_alloc_fail_at(n); /* the client's own memory comes from elsewhere */
        struct client c = tls_client(w.g, NULL, NULL);
        int rc = try_handshake(&c);
        dv_alloc_fail_at(0);
        assert_true(rc < 0 || n > 1);
        tls_close(&c);
        c = tls_open(w.g);
        expect_ask(&c, "/x", "GET /x 5000");
        tls_close(&c);
    }
    tls_close(&warm);
    world_stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_over_tls_share_a_connection_and_the_function_learns_of_https),
        cmocka_unit_test(pipelined_requests_in_one_record_are_all_answered),
        cmocka_unit_test(only_clients_that_can_speak_http_1_1_and_modern_tls_are_let_in),
        cmocka_unit_test(many_handshakes_at_once_all_come_to_their_end),
        cmocka_unit_test(large_bodies_stream_both_ways_and_stop_while_nobody_reads),
        cmocka_unit_test(an_upgraded_connection_carries_raw_bytes_both_ways),
        cmocka_unit_test(an_end_in_order_is_told_and_a_broken_one_is_not),
        cmocka_unit_test(a_client_that_leaves_cancels_its_request),
        cmocka_unit_test(a_slow_handshake_is_given_up),
        cmocka_unit_test(http_without_tls_is_told_so_and_other_noise_gets_an_alert),
        cmocka_unit_test(draining_lets_requests_over_tls_end),
        cmocka_unit_test(a_new_certificate_is_for_new_connections_and_old_ones_go_on),
        cmocka_unit_test(who_comes_back_skips_the_signature_until_the_certificate_changes),
        cmocka_unit_test(files_that_cannot_be_used_are_refused_by_name),
        cmocka_unit_test(a_gateway_without_tls_takes_no_certificate),
        cmocka_unit_test(a_connection_without_memory_is_closed_and_the_next_one_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
