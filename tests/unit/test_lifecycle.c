#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/crashloop.h"
#include "orchestrator/core/lifecycle.h"
#include "proto/base/auto.h"
#include "proto/base/err.h"

#define S 1000000000ull

struct story {
    const char *name;
    enum dv_life_event events[8];
    size_t n;
    enum dv_replica_state end;
};

static const struct story stories[] = {
    {"from cold to warm", {DV_LIFE_START, DV_LIFE_READY}, 2, DV_REPLICA_WARM},
    {"through the gate", {DV_LIFE_PRIME, DV_LIFE_START, DV_LIFE_READY}, 3, DV_REPLICA_WARM},
    {"seen warm at once", {DV_LIFE_READY}, 1, DV_REPLICA_WARM},
    {"frozen and thawed", {DV_LIFE_READY, DV_LIFE_FREEZE, DV_LIFE_READY}, 3, DV_REPLICA_WARM},
    {"stopped before it began", {DV_LIFE_DRAIN, DV_LIFE_VANISH}, 2, DV_REPLICA_GONE},
    {"drains in spite of a late report",
     {DV_LIFE_READY, DV_LIFE_DRAIN, DV_LIFE_READY},
     3,
     DV_REPLICA_DRAINING},
    {"fails while it starts", {DV_LIFE_START, DV_LIFE_FAIL}, 2, DV_REPLICA_FAILED},
    {"loses readiness and gets it back", {DV_LIFE_READY, DV_LIFE_START, DV_LIFE_READY}, 3, DV_REPLICA_WARM},
};

static void lives_end_where_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < DV_COUNT(stories); i++) {
        enum dv_replica_state s = DV_REPLICA_COLD;
        for (size_t k = 0; k < stories[i].n; k++)
            assert_int_equal(dv_life_move(&s, stories[i].events[k], NULL), DV_OK);
        if (s != stories[i].end)
            fail_msg("%s: ended in state %d", stories[i].name, (int)s);
    }
}

static void what_failed_or_is_gone_never_serves_again(void **state)
{
    (void)state;
    struct dv_life_counts counts = {0};
    for (int from = DV_REPLICA_FAILED; from <= DV_REPLICA_GONE; from++)
        for (int ev = DV_LIFE_PRIME; ev <= DV_LIFE_FREEZE; ev++) {
            enum dv_replica_state s = (enum dv_replica_state)from;
            assert_int_equal(dv_life_move(&s, (enum dv_life_event)ev, &counts), DV_INVALID);
            assert_int_equal(s, from);
        }
    assert_int_equal(counts.refused, 8);
}

static void every_state_can_end(void **state)
{
    (void)state;
    for (int from = 0; from < DV_REPLICA_N_STATES; from++) {
        enum dv_replica_state s = (enum dv_replica_state)from;
        assert_int_equal(dv_life_move(&s, DV_LIFE_VANISH, NULL), DV_OK);
        assert_int_equal(s, DV_REPLICA_GONE);
    }
}

static void moves_are_counted_by_state_and_event_and_repeats_are_not(void **state)
{
    (void)state;
    struct dv_life_counts counts = {0};
    enum dv_replica_state s = DV_REPLICA_COLD;
    assert_int_equal(dv_life_move(&s, DV_LIFE_START, &counts), DV_OK);
    assert_int_equal(dv_life_move(&s, DV_LIFE_START, &counts), DV_OK);
    assert_int_equal(counts.moves[DV_REPLICA_COLD][DV_LIFE_START], 1);
    assert_int_equal(counts.moves[DV_REPLICA_STARTING][DV_LIFE_START], 0);
    assert_int_equal(dv_life_move(&s, (enum dv_life_event)99, &counts), DV_INVALID);
}

static void back_off_doubles_from_one_second_to_a_minute(void **state)
{
    (void)state;
    struct dv_crashloop c = {0};
    static const uint64_t waits[] = {1, 2, 4, 8, 16, 32, 60, 60};
    uint64_t now = 5 * S;
    for (size_t i = 0; i < DV_COUNT(waits); i++) {
        dv_crashloop_fail(&c, now);
        assert_int_equal(c.until_ns - now, waits[i] * S);
        assert_true(dv_crashloop_blocks(&c, c.until_ns - 1));
        assert_false(dv_crashloop_blocks(&c, c.until_ns));
        now = c.until_ns;
    }
}

static void failures_that_began_together_count_once(void **state)
{
    (void)state;
    struct dv_crashloop c = {0};
    for (uint64_t i = 0; i < 10; i++)
        dv_crashloop_fail(&c, 5 * S + i * 1000000);
    assert_int_equal(c.failures, 1);
    assert_int_equal(c.until_ns, 6 * S);
    dv_crashloop_clear(&c);
    assert_false(dv_crashloop_blocks(&c, 5 * S));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lives_end_where_the_table_says),
        cmocka_unit_test(what_failed_or_is_gone_never_serves_again),
        cmocka_unit_test(every_state_can_end),
        cmocka_unit_test(moves_are_counted_by_state_and_event_and_repeats_are_not),
        cmocka_unit_test(back_off_doubles_from_one_second_to_a_minute),
        cmocka_unit_test(failures_that_began_together_count_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
