#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "orchestrator/core/pools.h"
#include "proto/base/rng.h"
#include "proto/wire/codec.h"

enum { MAX = 64 };

struct spread {
    struct dv_pools_node nodes[MAX];
    size_t n;
};

static struct spread of(size_t n, int64_t room)
{
    struct spread s = {.n = n};
    for (size_t i = 0; i < n; i++)
        s.nodes[i] = (struct dv_pools_node){.id = 1000 + i, .room = room};
    return s;
}

static int64_t at(const struct spread *s, uint64_t id)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->nodes[i].id == id)
            return s->nodes[i].n;
    return 0;
}

static void drop(struct spread *s, uint64_t id)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->nodes[i].id == id)
            s->nodes[i] = s->nodes[--s->n];
}

static void sandboxes_go_round_the_nodes(void **state)
{
    (void)state;
    struct spread s = of(8, 100);
    assert_int_equal(dv_pools_spread(7, 3, s.nodes, s.n), 3);
    int64_t ones = 0;
    for (uint64_t id = 1000; id < 1008; id++) {
        assert_true(at(&s, id) <= 1);
        ones += at(&s, id);
    }
    assert_int_equal(ones, 3);
    assert_int_equal(dv_pools_spread(7, 50, s.nodes, s.n), 50);
    for (uint64_t id = 1000; id < 1008; id++)
        assert_true(at(&s, id) == 6 || at(&s, id) == 7);
    assert_int_equal(dv_pools_spread(7, 0, s.nodes, s.n), 0);
    assert_int_equal(at(&s, 1000), 0);
    assert_int_equal(dv_pools_spread(7, 5, s.nodes, 0), 0);
}

static void what_one_node_cannot_hold_others_do(void **state)
{
    (void)state;
    struct spread s = of(4, 100);
    s.nodes[0].room = 2;
    s.nodes[1].room = 0;
    assert_int_equal(dv_pools_spread(7, 50, s.nodes, s.n), 50);
    assert_int_equal(at(&s, 1000), 2);
    assert_int_equal(at(&s, 1001), 0);
    assert_int_equal(at(&s, 1002), 24);
    assert_int_equal(at(&s, 1003), 24);
    s = of(4, 3);
    assert_int_equal(dv_pools_spread(7, 50, s.nodes, s.n), 12);
}

/* A node that leaves takes along what it had, and only that moves; one that comes is given only its share. */
static void nodes_that_come_and_go_do_not_shuffle_the_others(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct dv_rng rng;
        dv_rng_init(&rng, seed);
        uint64_t kind = dv_rng_u64(&rng);
        size_t n_nodes = 2 + dv_rng_below(&rng, MAX - 2);
        int64_t n = (int64_t)dv_rng_below(&rng, 3 * MAX);
        struct spread before = of(n_nodes, 1000), after = before;
        uint64_t gone = 1000 + dv_rng_below(&rng, n_nodes);
        drop(&after, gone);
        assert_int_equal(dv_pools_spread(kind, n, before.nodes, before.n), n);
        assert_int_equal(dv_pools_spread(kind, n, after.nodes, after.n), n);
        int64_t given = 0;
        for (uint64_t id = 1000; id < 1000 + n_nodes; id++) {
            if (id == gone)
                continue;
            assert_true(at(&after, id) >= at(&before, id));
            given += at(&after, id) - at(&before, id);
        }
        assert_int_equal(given, at(&before, gone));
    }
}

static void the_order_of_nodes_does_not_matter_and_kinds_differ(void **state)
{
    (void)state;
    struct spread a = of(16, 10), b = {.n = 16};
    for (size_t i = 0; i < 16; i++)
        b.nodes[i] = a.nodes[15 - i];
    (void)dv_pools_spread(42, 5, a.nodes, 16);
    (void)dv_pools_spread(42, 5, b.nodes, 16);
    for (uint64_t id = 1000; id < 1016; id++)
        assert_int_equal(at(&a, id), at(&b, id));
    int64_t used[16] = {0};
    for (uint64_t kind = 1; kind <= 320; kind++) {
        struct spread s = of(16, 10);
        (void)dv_pools_spread(kind * 77, 1, s.nodes, 16);
        for (uint64_t id = 1000; id < 1016; id++)
            used[id - 1000] += at(&s, id);
    }
    for (size_t i = 0; i < 16; i++) /* 20 on average */
        assert_true(used[i] > 4 && used[i] < 50);
}

static void kinds_that_are_the_same_have_the_same_hash(void **state)
{
    (void)state;
    struct dv_pool a = {.image = (char *)"img", .read_only = true, .tmp_bytes = 64, .files = 4096, .n = 3};
    struct dv_pool b = a;
    b.n = 9;
    b.image = strdup("img");
    assert_true(dv_pool_same(&a, &b));
    assert_true(dv_pools_hash(&a) == dv_pools_hash(&b));
    struct dv_pool others[5] = {b, b, b, b, b};
    others[0].image = (char *)"img2";
    others[1].user = (char *)"";
    others[2].read_only = false;
    others[3].tmp_bytes = 65;
    others[4].files = 4097;
    for (size_t i = 0; i < 5; i++)
        assert_true(dv_pools_hash(&a) != dv_pools_hash(&others[i]));
    free(b.image);
}

static void who_may_come_at_any_time_of_a_long_wait_counts_little(void **state)
{
    (void)state;
    assert_int_equal(dv_pools_share(0), 1000);
    assert_int_equal(dv_pools_share(DV_POOLS_REFILL_NS), 1000);
    assert_int_equal(dv_pools_share(600 * 1000000000ull), 8);
    assert_int_equal(dv_pools_share(UINT64_MAX), 1);
}

static void a_nodes_budget_follows_its_memory_and_what_it_says(void **state)
{
    (void)state;
    assert_int_equal(dv_pools_budget(DV_POOLS_ASKED, 4ll << 30, 500), 136);
    assert_int_equal(dv_pools_budget(DV_POOLS_ASKED, 4ll << 30, 40), 40);
    assert_int_equal(dv_pools_budget(DV_POOLS_EXPECTED, 4ll << 30, 40), 27);
    assert_int_equal(dv_pools_budget(DV_POOLS_ASKED, 1ll << 40, 0), DV_POOLS_NODE_MAX);
    assert_int_equal(dv_pools_budget(DV_POOLS_ASKED, 1ll << 40, -1), 0);
    assert_int_equal(dv_pools_budget(DV_POOLS_ASKED, 0, 100), 0);
}

/* ---- habits ---- */

static const uint64_t second = 1000000000ull;

static void a_burst_or_two_is_no_habit(void **state)
{
    (void)state;
    struct dv_pools_habit h = {0};
    for (uint64_t t = 1000; t < 1002; t++)
        for (int i = 0; i < 50; i++)
            dv_pools_started(&h, t * second);
    assert_int_equal(dv_pools_habitual(&h, 1003 * second), 0);
    for (int i = 0; i < 200; i++) /* one after another, as a measurement does */
        dv_pools_started(&h, (2000 + (uint64_t)i) * second);
    assert_int_equal(dv_pools_habitual(&h, 2200 * second), 0);
    assert_false(dv_pools_forgotten(&h));
    assert_int_equal(dv_pools_habitual(&h, 20000 * second), 0);
    assert_true(dv_pools_forgotten(&h));
}

static void starts_in_many_minutes_are_worth_the_most_that_came_within_a_refill(void **state)
{
    (void)state;
    struct dv_pools_habit h = {0};
    for (uint64_t m = 0; m < 10; m++)
        for (int i = 0; i < (m == 9 ? 6 : 2); i++)
            dv_pools_started(&h, (6000 + m * 60) * second);
    assert_int_equal(dv_pools_habitual(&h, 6541 * second), 6);
    assert_int_equal(dv_pools_habitual(&h, (6540 + 600) * second), 3);
    dv_pools_started(&h, (6540 + 605) * second);
    assert_int_equal(dv_pools_habitual(&h, (6540 + 605) * second), 3);
    assert_int_equal(dv_pools_habitual(&h, (6540 + 3000) * second), 0);
}

static void a_function_that_starts_every_half_hour_is_none(void **state)
{
    (void)state;
    struct dv_pools_habit h = {0};
    for (uint64_t t = 1; t < 100; t++) {
        dv_pools_started(&h, t * 1800 * second);
        assert_int_equal(dv_pools_habitual(&h, t * 1800 * second), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sandboxes_go_round_the_nodes),
        cmocka_unit_test(what_one_node_cannot_hold_others_do),
        cmocka_unit_test(nodes_that_come_and_go_do_not_shuffle_the_others),
        cmocka_unit_test(the_order_of_nodes_does_not_matter_and_kinds_differ),
        cmocka_unit_test(kinds_that_are_the_same_have_the_same_hash),
        cmocka_unit_test(who_may_come_at_any_time_of_a_long_wait_counts_little),
        cmocka_unit_test(a_nodes_budget_follows_its_memory_and_what_it_says),
        cmocka_unit_test(a_burst_or_two_is_no_habit),
        cmocka_unit_test(starts_in_many_minutes_are_worth_the_most_that_came_within_a_refill),
        cmocka_unit_test(a_function_that_starts_every_half_hour_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
