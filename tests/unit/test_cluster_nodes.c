/* What the cluster makes of nodes that come, go, are drained and lie; and of everything at once. */
#include "tests/support/cluster_world.h"

static void a_lost_node_is_replaced_and_its_return_leaves_no_duplicate(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 4, 4);
    pass(w, 1000);
    assert_int_equal(w->agents[0].n, 2);
    cut_agent(w, 0);
    assert_int_equal(tally(w, f).ready, 2);
    pass(w, 3000);
    assert_int_equal(tally(w, f).ready, 4); /* replaced as soon as it is suspect */
    pass(w, 12000);
    assert_true(dv_cluster_node_find(w->c, 1)->is_lost);
    connect_agent(w, 0);
    pass(w, 1000);
    assert_int_equal(tally(w, f).ready, 4);
    assert_int_equal(held_by(w), 4);
    world_free(w);
}

static void a_link_that_breaks_for_a_moment_changes_nothing(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 4, 4);
    pass(w, 1000);
    int starts = w->starts;
    cut_agent(w, 0);
    pass(w, 1000);
    connect_agent(w, 0);
    assert_int_equal(tally(w, f).ready, 4);
    pass(w, 6000);
    assert_int_equal(w->starts, starts);
    assert_int_equal(w->stops, 0);
    world_free(w);
}

static void a_lost_command_is_repeated(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 0, 4);
    w->agents[0].is_deaf = true;
    demand(w, f, 1);
    w->agents[0].is_deaf = false;
    pass(w, 6000);
    assert_int_equal(tally(w, f).ready, 1);
    assert_int_equal(held_by(w), 1);
    w->agents[0].is_deaf = true;
    serve(w, f, 0);
    pass(w, 5000);
    w->agents[0].is_deaf = false;
    pass(w, 6000);
    assert_int_equal(held_by(w), 0);
    world_free(w);
}

static void a_new_orchestrator_adopts_what_runs_and_stops_nothing_before_all_have_spoken(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 8);
    demand(w, f, 8);
    pass(w, 500);
    serve(w, f, 8);
    pass(w, 1000);
    w->agents[1].held[w->agents[1].n++] = (struct held){.id = 999, .fn_uid = 4711, .state = DV_REPLICA_WARM};
    int starts = w->starts, stops = w->stops;

    dv_cluster_free(w->c); /* kill -9 */
    assert_int_equal(dv_cluster_new(&cfg_default, w->now, &w->c), DV_OK);
    know_node(w, 0);
    know_node(w, 1);
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    w->agents[0].is_up = w->agents[1].is_up = false;
    connect_agent(w, 1);
    demand(w, f, 3);
    pass(w, 500);
    assert_int_equal(w->stops, stops); /* the stranger lives on: node 1 has not spoken */
    assert_int_equal(w->starts, starts);
    connect_agent(w, 0);
    serve(w, f, 8);
    pass(w, 1000);
    assert_int_equal(w->starts, starts);
    assert_int_equal(tally(w, f).ready, 8);
    assert_int_equal(w->stops, stops + 1);
    assert_int_equal(held_by(w), 8);
    world_free(w);
}

static void a_drained_node_is_emptied_without_losing_capacity(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 4, 8);
    pass(w, 1000);
    dv_cluster_node_cordon(w->c, 1, true, true, w->now);
    act(w);
    for (int i = 0; i < 20; i++) {
        assert_true(tally(w, f).ready >= 4);
        pass(w, 50);
    }
    assert_int_equal(w->agents[0].n, 0);
    assert_int_equal(w->agents[1].n, 4);
    world_free(w);
}

static void a_cordoned_node_keeps_what_it_has_and_gets_nothing_new(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    deploy(w, 2, 8);
    pass(w, 1000);
    dv_cluster_node_cordon(w->c, 1, true, false, w->now);
    demand(w, 100, 6);
    pass(w, 1000);
    assert_int_equal(w->agents[0].n, 1);
    assert_true(w->agents[1].n >= 5);
    world_free(w);
}

static void starts_on_a_node_whose_engine_died_move_elsewhere(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 2);
    w->agents[0].start_ms = 60000;
    demand(w, f, 2);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 1);
    report_node(w, &w->agents[0], false);
    act(w);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 2);
    world_free(w);
}

static void with_no_node_callers_wait_five_seconds_and_a_joining_node_serves_them(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    uint64_t f = deploy(w, 0, 3);
    pass(w, 100);
    demand(w, f, 1);
    pass(w, 6000);
    assert_string_equal(dv_cluster_fn_find(w->c, f)->failing, "no node has joined");
    w->n_agents = 1;
    w->agents[0] = (struct agent){.id = 1, .start_ms = 100};
    know_node(w, 0);
    connect_agent(w, 0);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 1);
    assert_string_equal(dv_cluster_fn_find(w->c, f)->failing, "");
    world_free(w);
}

/* Whatever happens, what must hold does (pass checks it), and once it stops happening, wanted and seen meet.
 */
static void chaos(uint64_t seed)
{
    struct dv_rng r;
    dv_rng_init(&r, seed);
    struct world *w = world_new(3);
    for (int i = 0; i < 3; i++)
        deploy(w, (int64_t)dv_rng_below(&r, 3), 3 + (int64_t)dv_rng_below(&r, 8));
    for (int step = 0; step < 120; step++) {
        size_t a = dv_rng_below(&r, 3), f = dv_rng_below(&r, 3);
        switch (dv_rng_below(&r, 9)) {
        case 0:
            if (w->agents[a].is_up)
                cut_agent(w, a);
            break;
        case 1:
        case 2:
            if (!w->agents[a].is_up)
                connect_agent(w, a);
            break;
        case 3:
            w->agents[a].n /= 2; /* containers died unseen */
            break;
        case 4:
            w->agents[a].is_deaf = !w->agents[a].is_deaf;
            break;
        case 5:
            w->fns[f].generation++;
            assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f], w->now), DV_OK);
            act(w);
            break;
        case 6:
            demand(w, 100 + f, 1 + dv_rng_below(&r, 20));
            break;
        case 7:
            serve(w, 100 + f, dv_rng_below(&r, 4));
            break;
        case 8:
            w->agents[a].breaks = dv_rng_below(&r, 3) ? DV_REASON_NONE : DV_REASON_EXITED;
            break;
        }
        pass(w, 50 * (1 + dv_rng_below(&r, 30)));
    }
    for (size_t a = 0; a < 3; a++) {
        w->agents[a].is_deaf = false;
        w->agents[a].breaks = DV_REASON_NONE;
        if (!w->agents[a].is_up)
            connect_agent(w, a);
        serve(w, 100 + a, 0);
    }
    pass(w, 200000);
    size_t expected = 0;
    for (size_t f = 0; f < 3; f++) {
        int64_t min = w->fns[f].spec.scale.min;
        if (tally(w, 100 + f).ready != min)
            fail_msg("seed %llu: function %zu has %lld ready, minimum %lld", (unsigned long long)seed, f,
                     (long long)tally(w, 100 + f).ready, (long long)min);
        expected += (size_t)min;
    }
    if (held_by(w) != expected)
        fail_msg("seed %llu: agents hold %zu, %zu wanted", (unsigned long long)seed, held_by(w), expected);
    world_free(w);
}

static void whatever_happens_wanted_and_seen_meet_in_the_end(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 25; seed++)
        chaos(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_node_is_replaced_and_its_return_leaves_no_duplicate),
        cmocka_unit_test(a_link_that_breaks_for_a_moment_changes_nothing),
        cmocka_unit_test(a_lost_command_is_repeated),
        cmocka_unit_test(a_new_orchestrator_adopts_what_runs_and_stops_nothing_before_all_have_spoken),
        cmocka_unit_test(a_drained_node_is_emptied_without_losing_capacity),
        cmocka_unit_test(a_cordoned_node_keeps_what_it_has_and_gets_nothing_new),
        cmocka_unit_test(starts_on_a_node_whose_engine_died_move_elsewhere),
        cmocka_unit_test(with_no_node_callers_wait_five_seconds_and_a_joining_node_serves_them),
        cmocka_unit_test(whatever_happens_wanted_and_seen_meet_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
