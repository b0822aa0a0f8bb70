/* Every allocation of the codec fails once: no crash, no leak (the sanitizer and valgrind runs say so),
 * outputs untouched, and the failure has its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"

static const char start[] =
    "{\"type\":\"start\",\"start\":{\"id\":\"0000000000000001\",\"fn_uid\":\"00000000000000ff\","
    "\"generation\":3,\"spec\":{"
    "\"name\":\"wc\",\"image\":\"busybox\",\"protocol\":\"stdio\",\"command\":[\"wc\",\"-c\"],\"env\":{\"A\":"
    "\"1\",\"B\":\"2\",\"C\":"
    "\"3\",\"D\":\"4\",\"E\":\"5\",\"F\":\"6\",\"G\":\"7\",\"H\":\"8\",\"I\":\"9\",\"J\":\"10\",\"K\":\"11\","
    "\"L\":\"12\",\"M\":\"13\"}},"
    "\"secrets\":[{\"name\":\"db\",\"value_base64\":\"cHc=\"}],\"registry\":{\"username\":\"u\"}}}";

static void decoding_with_a_failing_allocation_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
        struct dv_control_msg c = {.type = (char *)"before"};
        struct dv_err e = DV_ERR_INIT;
        dv_alloc_fail_at(n);
        int rc = dv_wire_decode(&dv_type_control, dv_sv_c(start), 65536, 0, &a, &c, &e);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            assert_true(n > 50); /* the loop did reach the allocations of both halves */
            return;
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_int_equal(e.code, DV_E_NOMEM);
        assert_string_equal(c.type, "before");
    }
}

static void encoding_with_a_failing_allocation_says_so(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_control_msg c;
    assert_int_equal(dv_wire_decode(&dv_type_control, dv_sv_c(start), 65536, 0, &a, &c, NULL), DV_OK);
    for (uint64_t n = 1;; n++) {
        DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
        dv_alloc_fail_at(n);
        int rc = dv_wire_encode(&dv_type_control, &c, &b);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            assert_true(n > 1);
            return;
        }
        assert_int_equal(rc, DV_E_NOMEM);
    }
}

static void copying_with_a_failing_allocation_changes_nothing(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_control_msg c;
    assert_int_equal(dv_wire_decode(&dv_type_control, dv_sv_c(start), 65536, 0, &a, &c, NULL), DV_OK);
    for (uint64_t n = 1;; n++) {
        DV_AUTO_ARENA struct dv_arena to = DV_ARENA_INIT;
        struct dv_control_msg copy = {.type = (char *)"before"};
        dv_alloc_fail_at(n);
        int rc = dv_wire_copy(&dv_type_control, &c, &to, &copy);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            assert_true(n > 1);
            assert_true(dv_wire_equal(&dv_type_control, &c, &copy));
            return;
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_string_equal(copy.type, "before");
    }
}

static void patching_with_a_failing_allocation_keeps_the_spec(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_fn_spec before;
    assert_int_equal(dv_wire_decode(&dv_type_fn_spec,
                                    DV_SV("{\"name\":\"f\",\"image\":\"i\",\"env\":{\"A\":\"1\"}}"), 1000, 0,
                                    &a, &before, NULL),
                     DV_OK);
    for (uint64_t n = 1;; n++) {
        DV_AUTO_ARENA struct dv_arena to = DV_ARENA_INIT;
        struct dv_fn_spec s = before;
        dv_alloc_fail_at(n);
        int rc = dv_wire_decode(&dv_type_fn_spec, DV_SV("{\"env\":{\"B\":\"2\"},\"command\":[\"x\"]}"), 1000,
                                DV_WIRE_PARTIAL, &to, &s, NULL);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            assert_int_equal(s.env.n, 2);
            return;
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_true(dv_wire_equal(&dv_type_fn_spec, &s, &before));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_with_a_failing_allocation_changes_nothing),
        cmocka_unit_test(encoding_with_a_failing_allocation_says_so),
        cmocka_unit_test(copying_with_a_failing_allocation_changes_nothing),
        cmocka_unit_test(patching_with_a_failing_allocation_keeps_the_spec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
