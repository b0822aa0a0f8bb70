#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/arena.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/map.h"
#include "proto/base/rng.h"
#include "proto/base/str.h"

static void error_codes_have_a_name_a_status_and_a_text(void **state)
{
    (void)state;
    assert_string_equal(dv_err_name(DV_NOT_FOUND), "DV_NOT_FOUND");
    assert_int_equal(dv_err_http(DV_NO_CAPACITY), 503);
    assert_true(dv_err_retryable(DV_NO_CAPACITY));
    assert_string_equal(dv_err_name(12345), "DV_UNKNOWN");
}

static void wrapping_an_error_puts_context_before_it(void **state)
{
    (void)state;
    struct dv_err e = DV_ERR_INIT;
    assert_int_equal(dv_err_field(&e, DV_INVALID, "scale.max", "must be at least %d", 1), DV_INVALID);
    assert_int_equal(dv_err_wrap(&e, "function %s", "wc"), DV_INVALID);
    assert_string_equal(e.msg, "function wc: must be at least 1");
    assert_string_equal(e.field, "scale.max");
}

static void numbers_are_parsed_whole_or_not_at_all(void **state)
{
    (void)state;
    uint64_t u = 7;
    assert_true(dv_parse_u64(DV_SV("18446744073709551615"), &u));
    assert_true(u == UINT64_MAX);
    assert_false(dv_parse_u64(DV_SV("18446744073709551616"), &u));
    assert_false(dv_parse_u64(DV_SV("12 "), &u));
    assert_false(dv_parse_u64(DV_SV(""), &u));
    int64_t i;
    assert_true(dv_parse_i64(DV_SV("-9223372036854775808"), &i));
    assert_true(i == INT64_MIN);
    assert_false(dv_parse_i64(DV_SV("9223372036854775808"), &i));
}

static void base64_survives_a_round_trip_and_refuses_rubbish(void **state)
{
    (void)state;
    for (size_t n = 0; n < 9; n++) {
        char text[16], back[16];
        dv_base64("abcdefghi", n, text);
        assert_int_equal(strlen(text), dv_base64_len(n));
        assert_int_equal(dv_base64_decode(dv_sv_c(text), back), n);
        assert_memory_equal(back, "abcdefghi", n);
    }
    char out[8];
    assert_int_equal(dv_base64_decode(DV_SV("abc"), out), -1);
    assert_int_equal(dv_base64_decode(DV_SV("a=bc"), out), -1);
    assert_int_equal(dv_base64_decode(DV_SV("ab!="), out), -1);
}

static void utf8_is_checked_as_rfc_3629_says(void **state)
{
    (void)state;
    assert_true(dv_utf8_valid(DV_SV("gr\xc3\xbc\xc3\x9f \xf0\x9f\x9a\xa2")));
    assert_false(dv_utf8_valid(DV_SV("\xc0\xaf")));         /* overlong */
    assert_false(dv_utf8_valid(DV_SV("\xed\xa0\x80")));     /* surrogate */
    assert_false(dv_utf8_valid(DV_SV("\xf4\x90\x80\x80"))); /* past U+10FFFF */
    assert_false(dv_utf8_valid(DV_SV("\xe2\x82")));         /* cut short */
}

static void a_buffer_refuses_to_grow_past_its_bound_and_keeps_what_it_had(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b;
    dv_buf_init(&b, 8);
    assert_int_equal(dv_buf_add_c(&b, "12345678"), DV_OK);
    assert_int_equal(dv_buf_add_char(&b, '9'), DV_TOO_LARGE);
    assert_true(dv_sv_eq(dv_buf_sv(&b), DV_SV("12345678")));
    dv_buf_consume(&b, 6);
    assert_true(dv_sv_eq(dv_buf_sv(&b), DV_SV("78")));
}

static void json_strings_are_escaped(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_buf_add_json(&b, DV_SV("a\"b\\c\n\x01")), DV_OK);
    assert_string_equal(dv_buf_cstr(&b), "\"a\\\"b\\\\c\\n\\u0001\"");
}

static void a_map_keeps_what_was_put_through_any_order_of_removal(void **state)
{
    (void)state;
    enum { N = 2000 };
    static int values[N];
    bool in[N] = {false};
    struct dv_map m;
    struct dv_rng r;
    dv_map_init(&m, 42);
    dv_rng_init(&r, 7);
    size_t n = 0;
    for (int step = 0; step < 40000; step++) {
        size_t k = dv_rng_below(&r, N);
        if (in[k]) {
            assert_ptr_equal(dv_idmap_remove(&m, k), &values[k]);
            n--;
        } else {
            assert_int_equal(dv_idmap_put(&m, k, &values[k]), DV_OK);
            assert_int_equal(dv_idmap_put(&m, k, &values[k]), DV_EXISTS);
            n++;
        }
        in[k] = !in[k];
    }
    assert_int_equal(m.n, n);
    for (size_t k = 0; k < N; k++)
        assert_ptr_equal(dv_idmap_find(&m, k), in[k] ? &values[k] : NULL);
    size_t walked = 0;
    for (size_t i = 0; dv_map_next(&m, &i);)
        walked++;
    assert_int_equal(walked, n);
    dv_map_deinit(&m);
}

static void a_map_of_strings_does_too(void **state)
{
    (void)state;
    enum { N = 1000 };
    static char names[N][8];
    bool in[N] = {false};
    struct dv_map m;
    struct dv_rng r;
    dv_map_init(&m, 43);
    dv_rng_init(&r, 8);
    size_t n = 0;
    for (size_t k = 0; k < N; k++)
        (void)snprintf(names[k], sizeof(names[k]), "n%zu", k);
    for (int step = 0; step < 20000; step++) {
        size_t k = dv_rng_below(&r, N);
        struct dv_sv key = dv_sv_c(names[k]);
        if (in[k]) {
            assert_ptr_equal(dv_map_remove(&m, key), names[k]);
            assert_null(dv_map_remove(&m, key));
            n--;
        } else {
            assert_int_equal(dv_map_put(&m, key, names[k]), DV_OK);
            assert_int_equal(dv_map_put(&m, key, names[k]), DV_EXISTS);
            n++;
        }
        in[k] = !in[k];
    }
    assert_int_equal(m.n, n);
    size_t walked = 0;
    for (size_t k = 0; k < N; k++)
        assert_ptr_equal(dv_map_find(&m, dv_sv_c(names[k])), in[k] ? names[k] : NULL);
    for (size_t i = 0; dv_map_next(&m, &i);)
        walked++;
    assert_int_equal(walked, n);
    dv_map_deinit(&m);
}

static void a_failing_allocation_leaves_a_buffer_usable(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    dv_alloc_fail_at(1);
    assert_int_equal(dv_buf_add_c(&b, "x"), DV_E_NOMEM);
    dv_alloc_fail_at(0);
    assert_int_equal(b.failed, DV_E_NOMEM);
    dv_buf_clear(&b);
    assert_int_equal(dv_buf_add_c(&b, "x"), DV_OK);
}

static void an_arena_gives_aligned_objects_and_packed_strings_in_blocks_as_large_as_reserved(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    dv_alloc_fail_at(UINT64_MAX); /* counts */
    assert_int_equal(dv_arena_reserve(&a, 16 + 4 + 3 + 9 + 32), DV_OK);
    char *object = dv_arena_alloc(&a, 16), *s = dv_arena_strdup(&a, "abc"), *t = dv_arena_strdup(&a, "de");
    assert_ptr_equal(s, object + 16);
    assert_ptr_equal(t, s + 4);
    char *other = dv_arena_zalloc(&a, 32);
    assert_int_equal((uintptr_t)object % 16, 0);
    assert_ptr_equal(other, object + 32);
    assert_int_equal(dv_alloc_count(), 1);
    assert_string_equal(s, "abc");
    assert_string_equal(t, "de");
    assert_int_equal(a.used_bytes, 16 + 4 + 3 + 32);
    assert_non_null(dv_arena_strdup(&a, "more")); /* goes on in a block of ordinary size */
    assert_non_null(dv_arena_alloc(&a, 2000));
    assert_int_equal(dv_alloc_count(), 2);
    dv_alloc_fail_at(1);
    assert_int_equal(dv_arena_reserve(&a, 10), DV_E_NOMEM);
    dv_alloc_fail_at(0);
    assert_int_equal(dv_arena_reserve(&a, SIZE_MAX), DV_E_NOMEM);
    assert_null(dv_arena_alloc(&a, SIZE_MAX - 8));
    assert_null(dv_arena_strndup(&a, "", SIZE_MAX));
    dv_arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_codes_have_a_name_a_status_and_a_text),
        cmocka_unit_test(wrapping_an_error_puts_context_before_it),
        cmocka_unit_test(numbers_are_parsed_whole_or_not_at_all),
        cmocka_unit_test(base64_survives_a_round_trip_and_refuses_rubbish),
        cmocka_unit_test(utf8_is_checked_as_rfc_3629_says),
        cmocka_unit_test(a_buffer_refuses_to_grow_past_its_bound_and_keeps_what_it_had),
        cmocka_unit_test(json_strings_are_escaped),
        cmocka_unit_test(a_map_keeps_what_was_put_through_any_order_of_removal),
        cmocka_unit_test(a_map_of_strings_does_too),
        cmocka_unit_test(a_failing_allocation_leaves_a_buffer_usable),
        cmocka_unit_test(an_arena_gives_aligned_objects_and_packed_strings_in_blocks_as_large_as_reserved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
