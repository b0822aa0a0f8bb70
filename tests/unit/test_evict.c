/* A node short of memory: what goes first, and how the cluster sends it away. */
#include "tests/support/cluster_world.h"

#include "orchestrator/core/evict.h"
#include "proto/base/rng.h"

static void what_is_frozen_idle_large_and_cheap_to_start_goes_first(void **state)
{
    (void)state;
    struct dv_evict_view v[] = {
        {.id = 1, .bytes = 64 * MI, .idle_ns = 60 * S, .back_ns = 300 * MS},  /* the measure */
        {.id = 2, .bytes = 256 * MI, .idle_ns = 60 * S, .back_ns = 300 * MS}, /* larger */
        {.id = 3, .bytes = 64 * MI, .idle_ns = 600 * S, .back_ns = 300 * MS}, /* idle for longer */
        {.id = 4, .bytes = 64 * MI, .idle_ns = 60 * S, .back_ns = 20 * MS},   /* back sooner */
        {.id = 5, .bytes = 64 * MI, .idle_ns = 60 * S, .back_ns = 9000 * MS}, /* much later */
        {.id = 6, .bytes = 8 * MI, .idle_ns = 20 * S, .back_ns = 9000 * MS, .is_frozen = true},
    };
    assert_int_equal(dv_evict_pick(v, 6, 1), 1);
    static const uint64_t order[] = {6, 4, 3, 2, 1, 5};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(v[i].id, order[i]);
    assert_int_equal(dv_evict_pick(v, 6, 0), 0);
    assert_int_equal(dv_evict_pick(v, 6, 72 * MI), 2);
    assert_int_equal(dv_evict_pick(v, 6, 73 * MI), 3);
    assert_int_equal(dv_evict_pick(v, 6, 1 << 30), 6);
}

static void the_order_of_replicas_does_not_matter(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct dv_rng rng;
        dv_rng_init(&rng, seed);
        struct dv_evict_view a[20], b[20];
        for (size_t i = 0; i < 20; i++)
            a[i] = (struct dv_evict_view){.id = i,
                                          .bytes = (int64_t)dv_rng_below(&rng, 4) * 64 * MI,
                                          .idle_ns = dv_rng_below(&rng, 4) * 60 * S,
                                          .back_ns = dv_rng_below(&rng, 3) * 100 * MS,
                                          .is_frozen = dv_rng_below(&rng, 2)};
        for (size_t i = 0; i < 20; i++)
            b[i] = a[(i * 7 + seed) % 20];
        int64_t need = (int64_t)dv_rng_below(&rng, 1 << 30);
        assert_int_equal(dv_evict_pick(a, 20, need), dv_evict_pick(b, 20, need));
        for (size_t i = 0; i < 20; i++)
            assert_int_equal(a[i].id, b[i].id);
    }
}

static void need_begins_below_a_twentieth_and_reaches_to_a_tenth(void **state)
{
    (void)state;
    assert_int_equal(dv_evict_need(1000 * MI, 50 * MI, 0), 0);
    assert_int_equal(dv_evict_need(1000 * MI, 49 * MI, 0), 51 * MI);
    assert_int_equal(dv_evict_need(1000 * MI, 40 * MI, 50 * MI), 10 * MI);
    assert_int_equal(dv_evict_need(1000 * MI, 40 * MI, 90 * MI), 0);
    assert_int_equal(dv_evict_need(1000 * MI, 0, 0), 0); /* not told */
    assert_int_equal(dv_evict_need(0, 10, 0), 0);
}

static uint64_t used_once(struct world *w, int64_t min)
{
    uint64_t f = deploy(w, min, 4);
    w->fns[f - 100].spec.scale.idle_ms = 600000;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    demand(w, f, 1);
    pass(w, 500);
    serve(w, f, 1);
    pass(w, 200);
    serve(w, f, 0);
    pass(w, 100);
    assert_int_equal(tally(w, f).ready, 1);
    return f;
}

static void a_node_short_of_memory_gives_up_what_nobody_uses(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    w->agents[0].replica_bytes = 60 * MI;
    uint64_t old = used_once(w, 0);
    pass(w, 12000);
    uint64_t young = used_once(w, 0), busy = used_once(w, 0), kept = used_once(w, 1);
    demand(w, busy, 1);
    pass(w, 100);
    serve(w, busy, 1);
    pass(w, 15000);
    w->agents[0].available_bytes = 45 * MI; /* of 1024; 102 would do */
    report_node(w, &w->agents[0], true);
    act(w);
    pass(w, 500);
    assert_int_equal(tally(w, old).ready, 0); /* gives back enough, and went before the other */
    assert_int_equal(tally(w, young).ready, 1);
    assert_int_equal(tally(w, busy).ready, 1);
    assert_int_equal(tally(w, kept).ready, 1);
    assert_non_null(strstr(w->log, "pressure"));
    report_node(w, &w->agents[0], true); /* it did not help: the next */
    act(w);
    pass(w, 500);
    assert_int_equal(tally(w, young).ready, 0);
    report_node(w, &w->agents[0], true);
    act(w);
    pass(w, 500);
    assert_int_equal(tally(w, busy).ready, 1);
    assert_int_equal(tally(w, kept).ready, 1);
    demand(w, old, 1); /* used again, it is kept for as long as before */
    pass(w, 500);
    serve(w, old, 0);
    pass(w, 5000);
    assert_int_equal(tally(w, old).ready, 1);
    world_free(w);
}

static void what_was_used_just_now_is_left_alone(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = used_once(w, 0);
    w->agents[0].available_bytes = 10 * MI;
    report_node(w, &w->agents[0], true);
    act(w);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 1);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_frozen_idle_large_and_cheap_to_start_goes_first),
        cmocka_unit_test(the_order_of_replicas_does_not_matter),
        cmocka_unit_test(need_begins_below_a_twentieth_and_reaches_to_a_tenth),
        cmocka_unit_test(a_node_short_of_memory_gives_up_what_nobody_uses),
        cmocka_unit_test(what_was_used_just_now_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
