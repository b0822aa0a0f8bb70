/* Payloads of asynchronous work, and the retry policy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/events/async_record.h"
#include "orchestrator/events/async_retry.h"
#include "proto/base/alloc.h"
#include "proto/base/rng.h"
#include "proto/wire/types.h"

static const struct dv_async_record full = {.fn = {"wc.default", 10},
                                            .method = {"POST", 4},
                                            .target = {"/rest?a=b", 9},
                                            .fields = {"A: b\r\nC:\td\r\n", 12},
                                            .body = {"\0\r\n\xff", 4},
                                            .call_id = {"id-1", 4},
                                            .callback_url = {"http://x/", 9},
                                            .status = {"200", 3},
                                            .duration = {"0.5", 3},
                                            .attempts = {"3", 1}};

static void a_record_comes_back_as_it_was(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_async_record r;
    assert_int_equal(dv_async_record_encode(&full, &b, NULL), DV_OK);
    assert_int_equal(dv_async_record_decode(dv_buf_sv(&b), &r, NULL), DV_OK);
    assert_true(dv_sv_eq(r.fn, full.fn) && dv_sv_eq(r.method, full.method) &&
                dv_sv_eq(r.target, full.target));
    assert_true(dv_sv_eq(r.fields, full.fields) && dv_sv_eq(r.body, full.body) &&
                dv_sv_eq(r.call_id, full.call_id));
    assert_true(dv_sv_eq(r.callback_url, full.callback_url) && dv_sv_eq(r.status, full.status));
    assert_true(dv_sv_eq(r.duration, full.duration) && dv_sv_eq(r.attempts, full.attempts));
}

static void the_bytes_of_version_1_do_not_change(void **state)
{
    (void)state;
    static const char golden[] = "DA\x01\x01\x04\x00\x00\x00"
                                 "f.ns\x02\x03\x00\x00\x00GET\x05\x02\x00\x00\x00hi";
    struct dv_async_record r = {.fn = DV_SV("f.ns"), .method = DV_SV("GET"), .body = DV_SV("hi")};
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_async_record_encode(&r, &b, NULL), DV_OK);
    assert_int_equal(dv_buf_len(&b), sizeof(golden) - 1);
    assert_memory_equal(dv_buf_ptr(&b), golden, sizeof(golden) - 1);
}

static void a_record_cut_short_anywhere_is_refused(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_async_record_encode(&full, &b, NULL), DV_OK);
    size_t n_ok = 0;
    for (size_t n = 0; n < dv_buf_len(&b); n++) {
        struct dv_async_record r = {0};
        int rc = dv_async_record_decode(dv_sv(dv_buf_ptr(&b), n), &r, NULL);
        assert_true(rc == DV_OK || rc == DV_INVALID);
        n_ok += rc == DV_OK; /* between two fields, behind the required one */
    }
    assert_int_equal(n_ok, 9);
}

static int decode(struct dv_sv bytes)
{
    struct dv_async_record r;
    return dv_async_record_decode(bytes, &r, NULL);
}

static void what_does_not_belong_is_refused_and_unknown_tags_are_skipped(void **state)
{
    (void)state;
    assert_int_equal(decode(DV_SV("")), DV_INVALID);
    assert_int_equal(decode(DV_SV("XX\x01")), DV_INVALID);
    assert_int_equal(decode(DV_SV("DA\x02\x01\x01\0\0\0f")), DV_UNSUPPORTED);
    assert_int_equal(decode(DV_SV("DA\x01\x02\x01\0\0\0P")), DV_INVALID);                   /* no function */
    assert_int_equal(decode(DV_SV("DA\x01\x01\x01\0\0\0f\x01\x01\0\0\0g")), DV_INVALID);    /* twice */
    assert_int_equal(decode(DV_SV("DA\x01\x01\x01\0\0\0f\xee\x02\0\0\0??")), DV_OK);        /* newer field */
    assert_int_equal(decode(DV_SV("DA\x01\x01\x02\0\0\0f\n")), DV_INVALID);                 /* line break */
    assert_int_equal(decode(DV_SV("DA\x01\x01\x01\0\0\0f\x04\x04\0\0\0a: b")), DV_INVALID); /* no CRLF */
    assert_int_equal(decode(DV_SV("DA\x01\x01\x01\0\0\0f\x04\x05\0\0\0a: \r\n")), DV_OK);
    assert_int_equal(decode(DV_SV("DA\x01\x01\x01\0\0\0f\x04\x03\0\0\0a\r\n")), DV_INVALID); /* no colon */
    assert_int_equal(decode(DV_SV("DA\x01\x01\x01\0\0\0f\x04\x06\0\0\0a: \n\r\n")), DV_INVALID);
    assert_int_equal(decode(DV_SV("DA\x01\x01\xff\xff\xff\xff"
                                  "f")),
                     DV_INVALID);
}

static void encoding_refuses_what_decoding_would(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_err err = DV_ERR_INIT;
    struct dv_async_record r = full;
    r.fn = DV_SV("");
    assert_int_equal(dv_async_record_encode(&r, &b, &err), DV_INVALID);
    assert_string_equal(err.msg, "fn is missing");
    r = full;
    r.target = DV_SV("/a\r\nEvil: 1");
    assert_int_equal(dv_async_record_encode(&r, &b, &err), DV_INVALID);
    r = full;
    r.fields = DV_SV("A: b\r\n\r\nGET / HTTP/1.1\r\n");
    assert_int_equal(dv_async_record_encode(&r, &b, &err), DV_INVALID);
    DV_AUTO_BUF struct dv_buf small;
    dv_buf_init(&small, 20);
    assert_int_equal(dv_async_record_encode(&full, &small, &err), DV_TOO_LARGE);
}

static void random_damage_never_gives_a_record_that_does_not_encode(void **state)
{
    (void)state;
    struct dv_rng rng;
    dv_rng_init(&rng, 11);
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf again = DV_BUF_INIT;
    for (int i = 0; i < 20000; i++) {
        dv_buf_clear(&b);
        assert_int_equal(dv_async_record_encode(&full, &b, NULL), DV_OK);
        for (int k = 0; k < 2; k++)
            dv_buf_ptr(&b)[dv_rng_below(&rng, dv_buf_len(&b))] = (char)dv_rng_u64(&rng);
        struct dv_async_record r;
        if (dv_async_record_decode(dv_buf_sv(&b), &r, NULL))
            continue;
        dv_buf_clear(&again);
        assert_int_equal(dv_async_record_encode(&r, &again, NULL), DV_OK);
    }
}

/* ---- policy ---- */

static struct dv_async_policy policy(const char *attempts, const char *codes, const char *min,
                                     const char *max)
{
    struct dv_kv kv[4];
    struct dv_kvs kvs = {.v = kv};
    if (attempts)
        kv[kvs.n++] = (struct dv_kv){"com.openfaas.retry.attempts", (char *)attempts};
    if (codes)
        kv[kvs.n++] = (struct dv_kv){"com.openfaas.retry.codes", (char *)codes};
    if (max)
        kv[kvs.n++] = (struct dv_kv){"com.openfaas.retry.max_wait", (char *)max};
    if (min)
        kv[kvs.n++] = (struct dv_kv){"com.openfaas.retry.min_wait", (char *)min};
    struct dv_async_policy p;
    dv_async_policy_read(&kvs, &p);
    return p;
}

static void annotations_change_the_policy_and_nonsense_does_not(void **state)
{
    (void)state;
    struct dv_async_policy p;
    dv_async_policy_read(NULL, &p);
    assert_int_equal(p.attempts, 10);
    assert_int_equal(p.min_wait_ms, 10000);
    assert_int_equal(p.max_wait_ms, 120000);
    p = policy("3", "429, 503", "500ms", "1m");
    assert_int_equal(p.attempts, 3);
    assert_int_equal(p.n_codes, 2);
    assert_int_equal(p.codes[1], 503);
    assert_int_equal(p.min_wait_ms, 500);
    assert_int_equal(p.max_wait_ms, 60000);
    p = policy("0", "429,abc", "5m", "1s");
    assert_int_equal(p.attempts, 10);
    assert_int_equal(p.n_codes, 6);
    assert_int_equal(p.min_wait_ms, 10000);
    assert_int_equal(p.max_wait_ms, 120000);
    p = policy(NULL, NULL, "5m", NULL);
    assert_int_equal(p.min_wait_ms, 300000);
    assert_int_equal(p.max_wait_ms, 300000);
    p = policy(NULL, NULL, NULL, "1s");
    assert_int_equal(p.min_wait_ms, 1000);
    assert_int_equal(p.max_wait_ms, 1000);
}

static void what_follows_an_attempt_is_read_from_one_table(void **state)
{
    (void)state;
    enum { DONE = DV_ASYNC_DONE, RETRY = DV_ASYNC_RETRY, GIVE_UP = DV_ASYNC_GIVE_UP };
    static const struct {
        const char *codes;
        int status;
        bool is_ours;
        int retry_after_ms;
        uint32_t attempt;
        int next, wait_ms;
    } rows[] = {
        {NULL, 200, false, -1, 1, DONE, 0},       {NULL, 204, false, -1, 10, DONE, 0},
        {NULL, 302, false, -1, 1, DONE, 0},       {NULL, 404, false, -1, 1, GIVE_UP, 0},
        {NULL, 500, false, -1, 1, GIVE_UP, 0},    {NULL, 500, true, -1, 1, RETRY, 10000},
        {"500", 500, false, -1, 1, RETRY, 10000}, {"500", 503, false, -1, 1, GIVE_UP, 0},
        {NULL, 503, false, -1, 1, RETRY, 10000},  {NULL, 502, false, -1, 2, RETRY, 20000},
        {NULL, 504, false, -1, 3, RETRY, 40000},  {NULL, 408, false, -1, 4, RETRY, 80000},
        {NULL, 429, false, -1, 5, RETRY, 120000}, {NULL, 429, false, -1, 9, RETRY, 120000},
        {NULL, 429, false, -1, 10, GIVE_UP, 0},   {NULL, 0, false, -1, 1, RETRY, 10000},
        {NULL, 0, false, -1, 10, GIVE_UP, 0},     {NULL, 503, true, 45000, 1, RETRY, 45000},
        {NULL, 429, true, 3000, 4, RETRY, 10000}, {NULL, 502, true, 45000, 1, RETRY, 10000},
    };
    for (size_t i = 0; i < DV_COUNT(rows); i++) {
        struct dv_async_policy p = policy(NULL, rows[i].codes, NULL, NULL);
        struct dv_async_outcome o = {rows[i].status, rows[i].is_ours, rows[i].retry_after_ms};
        int64_t wait_ms = 0;
        assert_int_equal(dv_async_decide(&p, &o, rows[i].attempt, 0.0, &wait_ms), rows[i].next);
        assert_int_equal(wait_ms, rows[i].wait_ms);
    }
}

static void waits_vary_by_a_fifth_but_stay_within_their_bounds(void **state)
{
    (void)state;
    struct dv_async_policy p = policy(NULL, NULL, NULL, NULL);
    struct dv_async_outcome o = {.status = 503, .retry_after_ms = -1};
    struct dv_rng rng;
    dv_rng_init(&rng, 3);
    for (int i = 0; i < 1000; i++) {
        int64_t wait_ms = 0;
        uint32_t attempt = 1 + (uint32_t)dv_rng_below(&rng, 9);
        assert_int_equal(dv_async_decide(&p, &o, attempt, dv_rng_unit(&rng), &wait_ms), DV_ASYNC_RETRY);
        assert_in_range(wait_ms, 10000, 120000);
    }
    int64_t wait_ms = 0;
    (void)dv_async_decide(&p, &o, 3, 0.5, &wait_ms);
    assert_int_equal(wait_ms, 36000);
}

static void retry_after_is_seconds_or_a_date(void **state)
{
    (void)state;
    const int64_t now_ms = 1700000000000; /* Tue, 14 Nov 2023 22:13:20 GMT */
    assert_int_equal(dv_async_retry_after_ms(DV_SV("7"), now_ms), 7000);
    assert_int_equal(dv_async_retry_after_ms(DV_SV("99999999999"), now_ms), 3600000);
    assert_int_equal(dv_async_retry_after_ms(DV_SV("Tue, 14 Nov 2023 22:13:50 GMT"), now_ms), 30000);
    assert_int_equal(dv_async_retry_after_ms(DV_SV("Tue, 14 Nov 2023 22:00:00 GMT"), now_ms), 0);
    assert_int_equal(dv_async_retry_after_ms(DV_SV("soon"), now_ms), -1);
    assert_int_equal(dv_async_retry_after_ms(DV_SV("Tue, 14 Nov 2023 22:13:50 GMT and more"), now_ms), -1);
    assert_int_equal(dv_async_retry_after_ms(DV_SV(""), now_ms), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_as_it_was),
        cmocka_unit_test(the_bytes_of_version_1_do_not_change),
        cmocka_unit_test(a_record_cut_short_anywhere_is_refused),
        cmocka_unit_test(what_does_not_belong_is_refused_and_unknown_tags_are_skipped),
        cmocka_unit_test(encoding_refuses_what_decoding_would),
        cmocka_unit_test(random_damage_never_gives_a_record_that_does_not_encode),
        cmocka_unit_test(annotations_change_the_policy_and_nonsense_does_not),
        cmocka_unit_test(what_follows_an_attempt_is_read_from_one_table),
        cmocka_unit_test(waits_vary_by_a_fifth_but_stay_within_their_bounds),
        cmocka_unit_test(retry_after_is_seconds_or_a_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
