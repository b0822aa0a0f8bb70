/* What the cluster decides for functions: demand, minima, deploys, failures, pins. */
#include "tests/support/cluster_world.h"

static void nothing_starts_without_need(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    deploy(w, 0, 10);
    pass(w, 20000);
    assert_int_equal(w->starts, 0);
    world_free(w);
}

static void one_waiting_request_starts_one_replica_at_once_and_idleness_stops_it(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 10);
    demand(w, f, 1);
    assert_int_equal(w->starts, 1); /* no tick in between */
    for (int i = 0; i < 10; i++)
        demand(w, f, 1);
    pass(w, 300);
    assert_int_equal(tally(w, f).ready, 1);
    serve(w, f, 0);
    pass(w, 6000);
    assert_int_equal(w->starts, 1);
    assert_int_equal(held_by(w), 0);
    assert_int_equal(w->forgets, 1);
    world_free(w);
}

static void a_burst_scales_to_the_maximum_on_both_nodes_and_back_to_nothing(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 12);
    demand(w, f, 200);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 12);
    assert_int_equal(w->agents[0].n, 6);
    assert_int_equal(w->agents[1].n, 6);
    serve(w, f, 12);
    pass(w, 2000);
    serve(w, f, 0);
    pass(w, 6000);
    assert_int_equal(held_by(w), 0);
    assert_int_equal(w->starts, 12);
    world_free(w);
}

static void what_is_kept_for_a_past_burst_is_not_made_again(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 12);
    demand(w, f, 10);
    pass(w, 500);
    assert_int_equal(w->starts, 10);
    serve(w, f, 1);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 10); /* patience */
    w->agents[0].n = 0;
    report_full(w, &w->agents[0]);
    act(w);
    serve(w, f, 1);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 5);
    assert_int_equal(w->starts, 10);
    demand(w, f, 8); /* needed: at once */
    pass(w, 500);
    assert_true(w->starts > 10);
    world_free(w);
}

static void a_minimum_is_kept_and_made_good(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 3, 10);
    pass(w, 10000);
    assert_int_equal(tally(w, f).ready, 3);
    w->agents[0].n = 0; /* somebody removed its containers by hand */
    report_full(w, &w->agents[0]);
    act(w);
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 3);
    world_free(w);
}

static void a_full_cluster_gets_what_fits_and_waiting_callers_are_told_when_nothing_does(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 0, 100), g = deploy(w, 0, 100);
    demand(w, f, 100); /* 1024 MiB hold 16 of 64 */
    pass(w, 1000);
    assert_int_equal(tally(w, f).ready, 16);
    demand(w, g, 1);
    pass(w, 4000);
    assert_string_equal(dv_cluster_fn_find(w->c, g)->failing, "");
    pass(w, 2000);
    assert_non_null(strstr(dv_cluster_fn_find(w->c, g)->failing, "without memory"));
    serve(w, g, 0);
    pass(w, 3000);
    assert_string_not_equal(dv_cluster_fn_find(w->c, g)->failing, "");
    serve(w, f, 0); /* room again: callers may wait again */
    pass(w, 7000);
    assert_string_equal(dv_cluster_fn_find(w->c, g)->failing, "");
    world_free(w);
}

static void a_deploy_starts_the_new_before_it_stops_the_old(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 4);
    demand(w, f, 4);
    pass(w, 500);
    serve(w, f, 4);
    struct dv_function next = w->fns[0];
    next.generation = 2;
    assert_int_equal(dv_cluster_fn_put(w->c, &next, w->now), DV_OK);
    w->fns[0] = next;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    act(w);
    for (int i = 0; i < 40; i++) {
        assert_true(tally(w, f).ready >= 4);
        pass(w, 50);
    }
    assert_int_equal(held_by(w), 4);
    for (size_t a = 0; a < 2; a++)
        for (size_t i = 0; i < w->agents[a].n; i++)
            assert_int_equal(w->agents[a].held[i].generation, 2);
    world_free(w);
}

static void a_deploy_in_a_full_cluster_makes_room_one_by_one(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 16, 16);
    pass(w, 1000);
    assert_int_equal(tally(w, f).ready, 16);
    w->fns[0].generation = 2;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    act(w);
    for (int i = 0; i < 2400; i++) {
        assert_true(tally(w, f).ready >= 15);
        pass(w, 50);
    }
    for (size_t i = 0; i < w->agents[0].n; i++)
        assert_int_equal(w->agents[0].held[i].generation, 2);
    assert_int_equal(w->agents[0].n, 16);
    world_free(w);
}

static void a_failing_function_tells_its_callers_at_once_and_backs_off(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 0, 4);
    w->agents[0].breaks = DV_REASON_EXITED;
    demand(w, f, 4);
    pass(w, 300);
    const struct dv_cluster_fn *fn = dv_cluster_fn_find(w->c, f);
    assert_non_null(strstr(fn->failing, "exit code 3"));
    assert_int_equal(fn->crash.failures, 1);
    serve(w, f, 0);
    pass(w, 700);
    assert_int_equal(w->starts, 4);
    pass(w, 400); /* the back-off is over: callers may try again, nobody is started for nobody */
    assert_string_equal(fn->failing, "");
    assert_int_equal(w->starts, 4);
    assert_non_null(strstr(fn->trouble, "exit code 3"));
    demand(w, f, 1);
    assert_int_equal(w->starts, 5);
    pass(w, 300);
    assert_string_not_equal(fn->failing, "");
    assert_int_equal(fn->crash.failures, 2);
    world_free(w);
}

static void a_deploy_or_a_success_ends_the_trouble(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 1, 4);
    w->agents[0].breaks = DV_REASON_OOM;
    w->fns[0].generation = 2;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    act(w);
    pass(w, 500);
    const struct dv_cluster_fn *fn = dv_cluster_fn_find(w->c, f);
    assert_string_not_equal(fn->failing, "");
    w->agents[0].breaks = DV_REASON_NONE;
    w->fns[0].generation = 3;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    act(w);
    assert_string_equal(fn->failing, "");
    pass(w, 500);
    assert_int_equal(tally(w, f).ready, 1);
    assert_int_equal(tally(w, f).failed, 0);
    world_free(w);
}

static void what_befell_a_replica_is_not_held_against_its_function(void **state)
{
    (void)state;
    const enum dv_reason befell[] = {DV_REASON_NODE_LOST, DV_REASON_ENGINE_DOWN, DV_REASON_INTERRUPTED,
                                     DV_REASON_REMOVED};
    for (size_t i = 0; i < DV_COUNT(befell); i++) {
        struct world *w = world_new(1);
        uint64_t f = deploy(w, 0, 4);
        w->agents[0].breaks = befell[i];
        demand(w, f, 1);
        for (int turn = 0; turn < 100 && w->starts < 2; turn++)
            pass(w, 10);
        assert_int_equal(w->starts, 2); /* another one at once */
        w->agents[0].breaks = DV_REASON_NONE;
        pass(w, 500);
        const struct dv_cluster_fn *fn = dv_cluster_fn_find(w->c, f);
        assert_int_equal(fn->crash.failures, 0);
        assert_string_equal(fn->failing, "");
        assert_string_equal(fn->trouble, "");
        assert_int_equal(tally(w, f).ready, 1);
        world_free(w);
    }
}

static void one_failed_replica_beside_others_does_not_make_the_function_fail(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 4);
    w->agents[1].breaks = DV_REASON_CREATE_FAILED;
    demand(w, f, 2);
    pass(w, 400);
    assert_string_equal(dv_cluster_fn_find(w->c, f)->failing, "");
    assert_int_equal(tally(w, f).ready, 1);
    world_free(w);
}

static void a_removed_function_is_stopped_everywhere_and_late_reports_do_no_harm(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 3, 3);
    pass(w, 1000);
    struct held late = w->agents[0].held[0];
    w->fns[0].uid = 0;
    dv_cluster_fn_remove(w->c, f, w->now);
    act(w);
    assert_int_equal(held_by(w), 0);
    report(w, &w->agents[0], &late, DV_REASON_NONE);
    pass(w, 6000);
    assert_int_equal(held_by(w), 0);
    assert_null(dv_cluster_replica_find(w->c, late.id));
    world_free(w);
}

static void a_function_that_says_nothing_of_idle_takes_the_clusters(void **state)
{
    (void)state;
    cfg_default.default_idle_ms = 2000;
    struct world *w = world_new(1);
    cfg_default.default_idle_ms = 0;
    uint64_t f = deploy(w, 0, 3);
    w->fns[0].spec.scale.idle_ms = 0;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    pass(w, 6000);
    demand(w, f, 1);
    pass(w, 1000);
    serve(w, f, 0);
    pass(w, 1000);
    assert_int_equal(tally(w, f).ready, 1);
    pass(w, 2000);
    assert_int_equal(held_by(w), 0);
    world_free(w);
}

static void a_replica_first_told_as_frozen_is_ready_and_goes_before_one_that_runs(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 2, 2);
    struct agent *a = &w->agents[0];
    act(w);
    assert_int_equal(a->n, 2);
    for (size_t i = 0; i < a->n; i++) {
        a->held[i].state = i == 0 ? DV_REPLICA_FROZEN : DV_REPLICA_WARM;
        report(w, a, &a->held[i], DV_REASON_NONE);
    }
    uint64_t frozen = a->held[0].id;
    assert_int_equal(tally(w, f).ready, 2);
    const struct dv_cluster_replica *r = dv_cluster_replica_find(w->c, frozen);
    assert_int_equal(r->state, DV_REPLICA_FROZEN);
    assert_int_equal(r->warm_ns, w->now);
    assert_true(dv_cluster_routable(r));
    w->fns[0].spec.scale.min = 1;
    w->fns[0].spec.scale.max = 1;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    pass(w, 6000);
    assert_int_equal(tally(w, f).ready, 1);
    assert_null(dv_cluster_replica_find(w->c, frozen));
    world_free(w);
}

static void a_number_that_was_set_is_made_at_once_and_taken_back_after_the_window(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 0, 3);
    pass(w, 6000);
    dv_cluster_fn_set(w->c, f, 3, w->now);
    dv_cluster_fn_set(w->c, 77777, 3, w->now); /* not there (any more): nothing */
    act(w);
    assert_int_equal(dv_cluster_fn_find(w->c, f)->asked, 3);
    pass(w, 9000);
    assert_int_equal(tally(w, f).ready, 3);
    pass(w, 2000);
    assert_int_equal(held_by(w), 0);
    world_free(w);
}

static void from_a_pin_to_the_same_number_nothing_is_stopped(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 0, 3);
    w->fns[0].desired_override = 3;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    pass(w, 9000);
    assert_int_equal(tally(w, f).ready, 3);
    dv_cluster_fn_set(w->c, f, 3, w->now);
    w->fns[0].desired_override = -1;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    act(w);
    assert_int_equal(tally(w, f).ready, 3);
    pass(w, 9000);
    assert_int_equal(tally(w, f).ready, 3);
    pass(w, 2000);
    assert_int_equal(held_by(w), 0);
    world_free(w);
}

static void a_function_put_to_sleep_wakes_for_a_request(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 1, 3);
    pass(w, 1000);
    w->fns[0].desired_override = 0;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    act(w);
    pass(w, 1000);
    assert_int_equal(held_by(w), 0);
    demand(w, f, 1);
    assert_int_equal(w->awakes, 1);
    pass(w, 1000);
    assert_int_equal(tally(w, f).ready, 1);
    world_free(w);
}

static void an_idle_cluster_asks_for_rare_ticks_or_none(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy(w, 0, 3);
    assert_int_equal(dv_cluster_next_tick(w->c, w->now), w->now + S);
    demand(w, f, 1);
    assert_int_equal(dv_cluster_next_tick(w->c, w->now), w->now + S / 10);
    dv_cluster_node_remove(w->c, 1, w->now);
    serve(w, f, 0);
    w->n_agents = 0;
    pass(w, 30000);
    assert_true(dv_cluster_next_tick(w->c, w->now) == UINT64_MAX);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_starts_without_need),
        cmocka_unit_test(one_waiting_request_starts_one_replica_at_once_and_idleness_stops_it),
        cmocka_unit_test(a_burst_scales_to_the_maximum_on_both_nodes_and_back_to_nothing),
        cmocka_unit_test(what_is_kept_for_a_past_burst_is_not_made_again),
        cmocka_unit_test(a_minimum_is_kept_and_made_good),
        cmocka_unit_test(a_full_cluster_gets_what_fits_and_waiting_callers_are_told_when_nothing_does),
        cmocka_unit_test(a_deploy_starts_the_new_before_it_stops_the_old),
        cmocka_unit_test(a_deploy_in_a_full_cluster_makes_room_one_by_one),
        cmocka_unit_test(a_failing_function_tells_its_callers_at_once_and_backs_off),
        cmocka_unit_test(a_deploy_or_a_success_ends_the_trouble),
        cmocka_unit_test(what_befell_a_replica_is_not_held_against_its_function),
        cmocka_unit_test(one_failed_replica_beside_others_does_not_make_the_function_fail),
        cmocka_unit_test(a_removed_function_is_stopped_everywhere_and_late_reports_do_no_harm),
        cmocka_unit_test(a_function_that_says_nothing_of_idle_takes_the_clusters),
        cmocka_unit_test(a_replica_first_told_as_frozen_is_ready_and_goes_before_one_that_runs),
        cmocka_unit_test(a_number_that_was_set_is_made_at_once_and_taken_back_after_the_window),
        cmocka_unit_test(from_a_pin_to_the_same_number_nothing_is_stopped),
        cmocka_unit_test(a_function_put_to_sleep_wakes_for_a_request),
        cmocka_unit_test(an_idle_cluster_asks_for_rare_ticks_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
