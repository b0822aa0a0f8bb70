#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/rng.h"
#include "proto/rt/http1.h"

static struct dv_h1_head head;
static size_t consumed;
static struct dv_err err;

static int request(const char *text)
{
    err = (struct dv_err)DV_ERR_INIT;
    return dv_h1_parse_request(text, strlen(text), &head, &consumed, &err);
}

static int response_to(const char *method, const char *text)
{
    err = (struct dv_err)DV_ERR_INIT;
    return dv_h1_parse_response(text, strlen(text), dv_sv_c(method), &head, &consumed, &err);
}

static int response(const char *text)
{
    return response_to("GET", text);
}

#define assert_sv(sv, lit) assert_true(dv_sv_eq((sv), DV_SV(lit)))

/* ---- requests that are fine ---- */

static void a_plain_request_gives_method_target_host_and_fields(void **state)
{
    (void)state;
    const char *text =
        "GET /function/hello?x=1 HTTP/1.1\r\nHost: davit:8080\r\nX-A:  two words \t\r\nEmpty:\r\n\r\nrest";
    assert_int_equal(request(text), DV_OK);
    assert_int_equal(consumed, strlen(text) - 4);
    assert_sv(head.method, "GET");
    assert_sv(head.target, "/function/hello?x=1");
    assert_sv(head.host, "davit:8080");
    assert_int_equal(head.n_fields, 3);
    assert_sv(head.fields[1].name, "X-A");
    assert_sv(head.fields[1].value, "two words");
    assert_sv(head.fields[2].value, "");
    assert_int_equal(head.body, DV_H1_NO_BODY);
    assert_false(head.has_length);
    assert_true(head.keep_alive);
    assert_int_equal(head.minor, 1);
    assert_sv(dv_h1_find(&head, "x-a"), "two words");
    assert_null(dv_h1_find(&head, "absent").p);
}

static void bodies_are_framed_by_length_or_chunks(void **state)
{
    (void)state;
    assert_int_equal(request("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), DV_OK);
    assert_int_equal(head.body, DV_H1_LENGTH);
    assert_int_equal(head.content_length, 0);
    assert_int_equal(request("POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 1073741824\r\n\r\n"), DV_OK);
    assert_int_equal(head.content_length, 1073741824);
    assert_int_equal(request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"), DV_OK);
    assert_int_equal(head.body, DV_H1_CHUNKED);
}

static void keep_alive_follows_version_and_connection(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep_alive;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, ,CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.7\r\nHost: a\r\n\r\n", true},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        assert_int_equal(request(rows[i].text), DV_OK);
        assert_int_equal(head.keep_alive, rows[i].keep_alive);
    }
}

static void expect_and_upgrade_count_only_where_they_mean_something(void **state)
{
    (void)state;
    assert_int_equal(
        request("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"), DV_OK);
    assert_true(head.expect_continue);
    assert_int_equal(request("PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"), DV_OK);
    assert_false(head.expect_continue);
    assert_int_equal(
        request("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), DV_OK);
    assert_sv(head.upgrade, "websocket");
    assert_int_equal(request("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), DV_OK);
    assert_int_equal(head.upgrade.n, 0);
}

static void every_form_of_target_is_understood(void **state)
{
    (void)state;
    assert_int_equal(request("GET http://h:81/p?q HTTP/1.1\r\nHost: other\r\n\r\n"), DV_OK);
    assert_sv(head.target, "/p?q");
    assert_sv(head.host, "h:81");
    assert_sv(head.fields[0].value, "h:81"); /* what is forwarded says the same */
    assert_int_equal(request("GET HTTPS://h HTTP/1.1\r\nHost: h\r\n\r\n"), DV_OK);
    assert_sv(head.target, "/");
    assert_int_equal(request("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"), DV_OK);
    assert_sv(head.target, "*");
    assert_int_equal(request("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n"), DV_OK);
    assert_int_equal(request("GET /\"{}|\\^`<> HTTP/1.1\r\nHost: h\r\n\r\n"), DV_OK);
}

static void one_empty_line_may_come_before_a_request(void **state)
{
    (void)state;
    assert_int_equal(request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), DV_OK);
    assert_int_equal(request("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), DV_INVALID);
}

static void hosts_may_be_names_addresses_and_literals_with_ports(void **state)
{
    (void)state;
    static const char *const good[] = {"a",     "a.b-c_d",    "a:80", "127.0.0.1:8080",
                                       "[::1]", "[::1]:8080", "a:",   "a,b:80"};
    static const char *const bad[] = {"",       "a b",   "a/b",  "a@b", "a:b",  "a:123456", "[::1", "[]",
                                      "[::1]x", ":8080", "a\\b", "a#b", "a:-1", "[[::1]]",  "a]b",  "\x80"};
    char text[128];
    for (size_t i = 0; i < DV_COUNT(good); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", good[i]);
        assert_int_equal(request(text), DV_OK);
    }
    for (size_t i = 0; i < DV_COUNT(bad); i++) {
        (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", bad[i]);
        assert_int_equal(request(text), DV_INVALID);
    }
}

/* ---- requests that are not ---- */

static void whatever_two_parsers_could_read_differently_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int code;
    } rows[] = {
        /* how long is the body */
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
         DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", DV_UNSUPPORTED},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", DV_UNSUPPORTED},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n", DV_UNSUPPORTED},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", DV_UNSUPPORTED},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", DV_UNSUPPORTED},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \vchunked\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", DV_INVALID},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", DV_INVALID},
        /* where does a line end */
        {"GET / HTTP/1.1\nHost: a\n\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\n\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\n\rX", DV_INVALID},
        {"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        /* folding, names, values */
        {"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX(: z\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX\x80: z\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: 12345678\x7f\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: 1234567\x1f"
         "9abcdef\r\n\r\n",
         DV_INVALID},
        /* which host */
        {"GET / HTTP/1.1\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", DV_INVALID},
        {"GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", DV_INVALID},
        {"GET http:/// HTTP/1.1\r\nHost: b\r\n\r\n", DV_INVALID},
        {"GET http://b?x HTTP/1.1\r\nHost: b\r\n\r\n", DV_INVALID},
        {"GET http://b/ HTTP/1.1\r\n\r\n", DV_INVALID},
        /* the request line */
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET / http/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET / HTTP/1.10\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", DV_UNSUPPORTED},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", DV_UNSUPPORTED},
        {"GET / HTTP/0.9\r\n\r\n", DV_UNSUPPORTED},
        {"GET /\r\n\r\n", DV_INVALID},
        {"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", DV_INVALID},
        {"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", DV_INVALID},
        {"\x16\x03\x01", DV_INVALID}, /* TLS on the plain port */
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        int rc = request(rows[i].text);
        if (rc != rows[i].code)
            print_error("row %zu: got %s: %s\n", i, dv_err_name(rc), rows[i].text);
        assert_int_equal(rc, rows[i].code);
        assert_true(err.msg[0] != '\0');
    }
}

static void a_nul_is_refused_wherever_it_stands(void **state)
{
    (void)state;
    static const char text[] = "GET /a HTTP/1.1\r\nHost: a\r\nXyz: some value\r\n\r\n";
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        char copy[sizeof(text)];
        memcpy(copy, text, sizeof(text));
        copy[i] = '\0';
        assert_int_equal(dv_h1_parse_request(copy, sizeof(text) - 1, &head, &consumed, &err), DV_INVALID);
    }
}

static void an_unknown_coding_names_its_field_and_a_long_target_its_own(void **state)
{
    (void)state;
    assert_int_equal(request("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
                     DV_UNSUPPORTED);
    assert_string_equal(err.field, "transfer-encoding");
    assert_int_equal(request("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), DV_UNSUPPORTED);
    assert_string_equal(err.field, "");
    static char text[DV_H1_MAX_TARGET + 64];
    memset(text, 'a', sizeof(text));
    memcpy(text, "GET /", 5);
    assert_int_equal(dv_h1_parse_request(text, DV_H1_MAX_TARGET, &head, &consumed, &err), DV_AGAIN);
    assert_int_equal(dv_h1_parse_request(text, sizeof(text), &head, &consumed, &err), DV_TOO_LARGE);
    assert_string_equal(err.field, "target");
}

static void heads_are_bounded_in_bytes_and_fields(void **state)
{
    (void)state;
    static char text[DV_H1_MAX_HEAD + 100];
    int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    memset(text + n, 'x', sizeof(text) - (size_t)n);
    assert_int_equal(dv_h1_parse_request(text, DV_H1_MAX_HEAD, &head, &consumed, &err), DV_AGAIN);
    err = (struct dv_err)DV_ERR_INIT;
    assert_int_equal(dv_h1_parse_request(text, DV_H1_MAX_HEAD + 1, &head, &consumed, &err), DV_TOO_LARGE);
    assert_string_equal(err.field, "");

    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_buf_add_c(&b, "GET / HTTP/1.1\r\nHost: a\r\n"), DV_OK);
    for (int i = 0; i < DV_H1_MAX_FIELDS - 1; i++)
        assert_int_equal(dv_buf_add_c(&b, "a: b\r\n"), DV_OK);
    size_t full = dv_buf_len(&b);
    assert_int_equal(dv_buf_add_c(&b, "\r\n"), DV_OK);
    assert_int_equal(dv_h1_parse_request(dv_buf_ptr(&b), dv_buf_len(&b), &head, &consumed, &err), DV_OK);
    assert_int_equal(head.n_fields, DV_H1_MAX_FIELDS);
    dv_buf_truncate(&b, full);
    assert_int_equal(dv_buf_add_c(&b, "a: b\r\n\r\n"), DV_OK);
    assert_int_equal(dv_h1_parse_request(dv_buf_ptr(&b), dv_buf_len(&b), &head, &consumed, &err),
                     DV_TOO_LARGE);
}

static void every_prefix_of_a_good_head_asks_for_more(void **state)
{
    (void)state;
    static const char req[] = "\r\nPOST http://a/b HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y\r\n\r\n";
    static const char resp[] = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\n";
    for (size_t i = 0; i < sizeof(req) - 1; i++)
        assert_int_equal(dv_h1_parse_request(req, i, &head, &consumed, NULL), DV_AGAIN);
    assert_int_equal(dv_h1_parse_request(req, sizeof(req) - 1, &head, &consumed, NULL), DV_OK);
    for (size_t i = 0; i < sizeof(resp) - 1; i++)
        assert_int_equal(dv_h1_parse_response(resp, i, DV_SV("GET"), &head, &consumed, NULL), DV_AGAIN);
    assert_int_equal(dv_h1_parse_response(resp, sizeof(resp) - 1, DV_SV("GET"), &head, &consumed, NULL),
                     DV_OK);
}

/* ---- hop by hop ---- */

static void hop_fields_are_the_fixed_ones_and_those_connection_names_but_never_host(void **state)
{
    (void)state;
    assert_int_equal(
        request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop ,host\r\nX-Hop: 1\r\n\r\n"), DV_OK);
    static const char *const hop[] = {
        "connection", "Keep-Alive",       "TE",    "Trailer",       "Transfer-Encoding",
        "Upgrade",    "Proxy-Connection", "x-hop", "Content-Length"};
    static const char *const not_hop[] = {"Host",   "X-Other", "Content-Type",
                                          "Cookie", "Proxy",   "Content-Length2"};
    for (size_t i = 0; i < DV_COUNT(hop); i++)
        assert_true(dv_h1_is_hop_field(&head, dv_sv_c(hop[i])));
    for (size_t i = 0; i < DV_COUNT(not_hop); i++)
        assert_false(dv_h1_is_hop_field(&head, dv_sv_c(not_hop[i])));
}

/* ---- responses ---- */

static void responses_say_how_their_body_ends(void **state)
{
    (void)state;
    static const struct {
        const char *method, *text;
        enum dv_h1_body body;
        bool keep_alive;
    } rows[] = {
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", DV_H1_LENGTH, true},
        {"GET", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", DV_H1_LENGTH, true},
        {"GET", "HTTP/1.1 200 \r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", DV_H1_LENGTH, true},
        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", DV_H1_CHUNKED, true},
        {"GET", "HTTP/1.1 200 OK\r\n\r\n", DV_H1_UNTIL_CLOSE, false},
        {"GET", "HTTP/1.0 200 OK\r\n\r\n", DV_H1_UNTIL_CLOSE, false},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", DV_H1_LENGTH, false},
        {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", DV_H1_LENGTH, true},
        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", DV_H1_LENGTH, false},
        {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", DV_H1_NO_BODY, true},
        {"GET", "HTTP/1.1 204 No Content\r\n\r\n", DV_H1_NO_BODY, true},
        {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", DV_H1_NO_BODY, true},
        {"GET", "HTTP/1.1 100 Continue\r\n\r\n", DV_H1_NO_BODY, true},
        {"GET", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", DV_H1_UPGRADED, false},
        {"GET", "HTTP/1.1 999 what \xff ever\r\nContent-Length: 0\r\n\r\n", DV_H1_LENGTH, true},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        assert_int_equal(response_to(rows[i].method, rows[i].text), DV_OK);
        assert_int_equal(head.body, rows[i].body);
        assert_int_equal(head.keep_alive, rows[i].keep_alive);
        assert_int_equal(consumed, strlen(rows[i].text));
    }
    assert_int_equal(response_to("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), DV_OK);
    assert_true(head.has_length);
    assert_int_equal(head.content_length, 5);
}

static void responses_with_doubtful_framing_are_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200 O\x01K\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "hello\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        assert_int_equal(response(rows[i]), DV_INVALID);
        assert_true(err.msg[0] != '\0');
    }
}

/* ---- chunked ---- */

/* Feeds text in pieces of at most `piece` bytes the way a connection does; appends data to *body, trailers to
 * *lines. DV_OK when DONE was reached (*rest = bytes behind it), DV_AGAIN when bytes ran out. */
static int decode(struct dv_sv text, size_t piece, struct dv_rng *r, struct dv_buf *body,
                  struct dv_buf *lines, size_t *rest)
{
    struct dv_h1_chunked c;
    dv_h1_chunked_init(&c);
    size_t from = 0, to = 0;
    for (;;) {
        enum dv_h1_chunk_event ev;
        struct dv_sv out;
        size_t used;
        int rc = dv_h1_chunked_next(&c, text.p + from, to - from, &ev, &out, &used, &err);
        if (rc)
            return rc;
        from += used;
        if (ev == DV_H1_CHUNK_DATA)
            assert_int_equal(dv_buf_add_sv(body, out), DV_OK);
        if (ev == DV_H1_CHUNK_TRAILERS)
            assert_int_equal(dv_buf_add_sv(lines, out), DV_OK);
        if (ev == DV_H1_CHUNK_DONE) {
            *rest = text.n - from;
            return DV_OK;
        }
        if (ev != DV_H1_CHUNK_MORE)
            continue;
        if (to == text.n)
            return DV_AGAIN;
        size_t more = r ? 1 + dv_rng_below(r, piece) : piece;
        to = more > text.n - to ? text.n : to + more;
    }
}

static void a_chunked_body_reads_the_same_however_its_bytes_arrive(void **state)
{
    (void)state;
    struct dv_sv text = DV_SV(
        "5\r\nhello\r\n00A;name=\"v;w\"\r\n, wide wor\r\n2\r\nld\r\n0;last\r\nDigest: abc\r\nX:\r\n\r\nGET ");
    struct dv_rng r;
    dv_rng_init(&r, 1);
    for (size_t piece = 1; piece <= text.n; piece++) {
        for (int random = 0; random < 2; random++) {
            DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT, lines = DV_BUF_INIT;
            size_t rest;
            assert_int_equal(decode(text, piece, random ? &r : NULL, &body, &lines, &rest), DV_OK);
            assert_sv(dv_buf_sv(&body), "hello, wide world");
            assert_sv(dv_buf_sv(&lines), "Digest: abc\r\nX:\r\n");
            assert_int_equal(rest, 4);
        }
    }
}

static void chunked_bodies_with_doubtful_framing_are_refused_at_any_split(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "g\r\n",
        "\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "5\nhello\r\n",
        "5\rhello\r\n",
        "5\r\nhello\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5;a\nb\r\nhello\r\n",
        "5;a\x01\r\nhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "1000000000000000\r\n",
        "0000000000000000\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0\r\nnonsense\r\n\r\n",
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        for (size_t piece = 1; piece < 40; piece++) {
            DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT, lines = DV_BUF_INIT;
            size_t rest;
            err = (struct dv_err)DV_ERR_INIT;
            int rc = decode(dv_sv_c(rows[i]), piece, NULL, &body, &lines, &rest);
            if (rc != DV_INVALID)
                print_error("row %zu: %s\n", i, rows[i]);
            assert_int_equal(rc, DV_INVALID);
            assert_true(err.msg[0] != '\0');
        }
    }
}

static void extensions_and_trailers_are_bounded(void **state)
{
    (void)state;
    static char text[DV_H1_MAX_TRAILERS + 200];
    memset(text, 'x', sizeof(text));
    memcpy(text, "5;", 2);
    struct dv_h1_chunked c;
    enum dv_h1_chunk_event ev;
    struct dv_sv out;
    dv_h1_chunked_init(&c);
    assert_int_equal(dv_h1_chunked_next(&c, text, DV_H1_MAX_CHUNK_LINE, &ev, &out, &consumed, NULL), DV_OK);
    assert_int_equal(dv_h1_chunked_next(&c, "x", 1, &ev, &out, &consumed, NULL), DV_INVALID);

    memcpy(text, "0\r\nX: ", 6);
    dv_h1_chunked_init(&c);
    assert_int_equal(dv_h1_chunked_next(&c, text, 3 + DV_H1_MAX_TRAILERS, &ev, &out, &consumed, NULL), DV_OK);
    assert_int_equal(ev, DV_H1_CHUNK_MORE);
    assert_int_equal(consumed, 3);
    assert_int_equal(dv_h1_chunked_next(&c, text + 3, DV_H1_MAX_TRAILERS + 1, &ev, &out, &consumed, NULL),
                     DV_INVALID);
}

static void an_empty_body_is_done_at_once_and_stays_done(void **state)
{
    (void)state;
    struct dv_h1_chunked c;
    enum dv_h1_chunk_event ev;
    struct dv_sv out;
    dv_h1_chunked_init(&c);
    assert_int_equal(dv_h1_chunked_next(&c, "0\r\n\r\nmore", 9, &ev, &out, &consumed, NULL), DV_OK);
    assert_int_equal(ev, DV_H1_CHUNK_DONE);
    assert_int_equal(consumed, 5);
    assert_int_equal(dv_h1_chunked_next(&c, "more", 4, &ev, &out, &consumed, NULL), DV_OK);
    assert_int_equal(ev, DV_H1_CHUNK_DONE);
    assert_int_equal(consumed, 0);
}

/* ---- properties ---- */

static const char alphabet[] =
    "GET / HTTP/1.1\r\n\r\nHost: a:\r\nContent-Length: 5\t ,Transfer-Encoding: chunked";

static void random_heads_never_read_past_their_end_and_cut_heads_never_succeed(void **state)
{
    (void)state;
    struct dv_rng r;
    dv_rng_init(&r, 7);
    static const char base[] =
        "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    for (int round = 0; round < 20000; round++) {
        size_t n = sizeof(base) - 1;
        char *copy = dv_alloc(n); /* exact size, so that a sanitizer sees one byte too many */
        assert_non_null(copy);
        memcpy(copy, base, n);
        for (uint64_t i = dv_rng_below(&r, 4); i > 0; i--)
            copy[dv_rng_below(&r, n)] =
                dv_rng_below(&r, 2) ? alphabet[dv_rng_below(&r, sizeof(alphabet) - 1)] : (char)dv_rng_u64(&r);
        int rc = dv_h1_parse_request(copy, n, &head, &consumed, NULL);
        if (rc == DV_OK) {
            assert_in_range(consumed, 1, n);
            for (size_t cut = 0; cut < consumed; cut++) {
                int early = dv_h1_parse_request(copy, cut, &head, &(size_t){0}, NULL);
                assert_int_equal(early, DV_AGAIN);
            }
        }
        dv_free(copy);
    }
}

static void reasons_are_known_for_usual_statuses(void **state)
{
    (void)state;
    assert_string_equal(dv_h1_reason(200), "OK");
    assert_string_equal(dv_h1_reason(404), "Not Found");
    assert_string_equal(dv_h1_reason(299), "");
}

static void tokens_and_values_are_told_apart(void **state)
{
    (void)state;
    assert_true(dv_h1_is_token(DV_SV("X-Call-Id")));
    assert_false(dv_h1_is_token(DV_SV("")));
    assert_false(dv_h1_is_token(DV_SV("a b")));
    assert_false(dv_h1_is_token(DV_SV("a:")));
    assert_true(dv_h1_value_valid(DV_SV("a b\t\xc3\xa9")));
    assert_true(dv_h1_value_valid(DV_SV("")));
    assert_false(dv_h1_value_valid(DV_SV("a\r\nb")));
    assert_false(dv_h1_value_valid(DV_SV("a\0b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_request_gives_method_target_host_and_fields),
        cmocka_unit_test(bodies_are_framed_by_length_or_chunks),
        cmocka_unit_test(keep_alive_follows_version_and_connection),
        cmocka_unit_test(expect_and_upgrade_count_only_where_they_mean_something),
        cmocka_unit_test(every_form_of_target_is_understood),
        cmocka_unit_test(one_empty_line_may_come_before_a_request),
        cmocka_unit_test(hosts_may_be_names_addresses_and_literals_with_ports),
        cmocka_unit_test(whatever_two_parsers_could_read_differently_is_refused),
        cmocka_unit_test(a_nul_is_refused_wherever_it_stands),
        cmocka_unit_test(an_unknown_coding_names_its_field_and_a_long_target_its_own),
        cmocka_unit_test(heads_are_bounded_in_bytes_and_fields),
        cmocka_unit_test(every_prefix_of_a_good_head_asks_for_more),
        cmocka_unit_test(hop_fields_are_the_fixed_ones_and_those_connection_names_but_never_host),
        cmocka_unit_test(responses_say_how_their_body_ends),
        cmocka_unit_test(responses_with_doubtful_framing_are_refused),
        cmocka_unit_test(a_chunked_body_reads_the_same_however_its_bytes_arrive),
        cmocka_unit_test(chunked_bodies_with_doubtful_framing_are_refused_at_any_split),
        cmocka_unit_test(extensions_and_trailers_are_bounded),
        cmocka_unit_test(an_empty_body_is_done_at_once_and_stays_done),
        cmocka_unit_test(random_heads_never_read_past_their_end_and_cut_heads_never_succeed),
        cmocka_unit_test(reasons_are_known_for_usual_statuses),
        cmocka_unit_test(tokens_and_values_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
