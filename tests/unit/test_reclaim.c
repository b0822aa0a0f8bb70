/* Who gives memory back when a node runs short of it, and how much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/core/reclaim.h"

#define MI ((int64_t)1 << 20)

static struct dv_reclaim_node node(int64_t available)
{
    return (struct dv_reclaim_node){
        .memory_bytes = 1000 * MI, .available_bytes = available * MI, .percent = 10};
}

static void a_node_is_short_below_its_share_and_until_a_quarter_more_is_there(void **state)
{
    (void)state;
    struct dv_reclaim_node n = node(100);
    assert_int_equal(dv_reclaim_missing(&n), 0);
    n = node(99);
    assert_true(dv_reclaim_missing(&n) > 25 * MI);
    n = node(110);
    assert_int_equal(dv_reclaim_missing(&n), 0);
    n.is_short = true;
    assert_true(dv_reclaim_missing(&n) > 0);
    n = node(126);
    n.is_short = true;
    assert_int_equal(dv_reclaim_missing(&n), 0);
}

static void a_node_that_is_told_so_is_never_short(void **state)
{
    (void)state;
    struct dv_reclaim_node n = node(1);
    n.percent = 0;
    assert_int_equal(dv_reclaim_missing(&n), 0);
}

static void the_one_frozen_longest_gives_first(void **state)
{
    (void)state;
    struct dv_reclaim_node n = node(50);
    struct dv_reclaim_replica r[] = {
        {1, 1000, 300 * MI, false}, {2, 9000, 20 * MI, false}, {3, 5000, 90 * MI, false}};
    struct dv_reclaim_step step;
    assert_true(dv_reclaim_next(&n, r, 3, &step));
    assert_int_equal(step.id, 2);
    assert_int_equal(step.bytes, 19 * MI); /* all but the rest that is left to it */
    r[1].is_spent = true;
    assert_true(dv_reclaim_next(&n, r, 3, &step));
    assert_int_equal(step.id, 3);
    assert_int_equal(step.bytes, DV_RECLAIM_STEP_BYTES);
}

static void no_more_is_asked_for_than_is_missing(void **state)
{
    (void)state;
    struct dv_reclaim_node n = node(99);
    struct dv_reclaim_replica r = {1, 1000, 300 * MI, false};
    struct dv_reclaim_step step;
    assert_true(dv_reclaim_next(&n, &r, 1, &step));
    assert_int_equal(step.bytes, dv_reclaim_missing(&n));
    assert_true(step.bytes < 30 * MI);
}

static void nobody_is_asked_without_need_or_without_anything_to_give(void **state)
{
    (void)state;
    struct dv_reclaim_node n = node(500);
    struct dv_reclaim_replica r[] = {
        {1, 1000, 300 * MI, false}, {2, 9000, 300 * MI, true}, {3, 9000, MI, false}};
    struct dv_reclaim_step step = {77, 77};
    assert_false(dv_reclaim_next(&n, r, 3, &step));
    n = node(5);
    assert_false(dv_reclaim_next(&n, r + 1, 2, &step));
    assert_false(dv_reclaim_next(&n, r, 0, &step));
    assert_int_equal(step.id, 77);
}

static void the_order_of_the_list_says_nothing(void **state)
{
    (void)state;
    struct dv_reclaim_node n = node(5);
    struct dv_reclaim_replica a[] = {{1, 10, 5 * MI, false}, {2, 10, 5 * MI, false}, {3, 10, 9 * MI, false}},
                              b[] = {{2, 10, 5 * MI, false}, {3, 10, 9 * MI, false}, {1, 10, 5 * MI, false}};
    struct dv_reclaim_step x, y;
    for (size_t k = 3; k > 0; k--) { /* the same one each time, until all are spent */
        assert_true(dv_reclaim_next(&n, a, 3, &x));
        assert_true(dv_reclaim_next(&n, b, 3, &y));
        assert_int_equal(x.id, y.id);
        for (size_t i = 0; i < 3; i++) {
            a[i].is_spent |= a[i].id == x.id;
            b[i].is_spent |= b[i].id == x.id;
        }
    }
    assert_false(dv_reclaim_next(&n, a, 3, &x));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_is_short_below_its_share_and_until_a_quarter_more_is_there),
        cmocka_unit_test(a_node_that_is_told_so_is_never_short),
        cmocka_unit_test(the_one_frozen_longest_gives_first),
        cmocka_unit_test(no_more_is_asked_for_than_is_missing),
        cmocka_unit_test(nobody_is_asked_without_need_or_without_anything_to_give),
        cmocka_unit_test(the_order_of_the_list_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
