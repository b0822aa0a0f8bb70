/* Pools of primed sandboxes as the cluster keeps them: who is told what, and who is placed where. */
#include "tests/support/cluster_world.h"

#include "orchestrator/core/pools.h"

static uint64_t deploy_primed(struct world *w, int64_t primed)
{
    uint64_t f = deploy(w, 0, 10);
    w->fns[f - 100].spec.scale.primed = primed;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    return f;
}

static int64_t told(const struct world *w, size_t agent)
{
    int64_t n = 0;
    for (size_t i = 0; i < w->agents[agent].n_pools; i++)
        n += w->agents[agent].pools[i].n;
    return n;
}

static int64_t told_all(const struct world *w)
{
    int64_t n = 0;
    for (size_t i = 0; i < w->n_agents; i++)
        n += told(w, i);
    return n;
}

static void a_node_is_told_once_a_connection_even_of_nothing(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    pass(w, 20000);
    assert_int_equal(w->agents[0].n_told, 1);
    assert_int_equal(w->agents[0].n_pools, 0);
    cut_agent(w, 0);
    pass(w, 500);
    connect_agent(w, 0);
    pass(w, 20000);
    assert_int_equal(w->agents[0].n_told, 2);
    assert_int_equal(w->agents[1].n_told, 1);
    world_free(w);
}

static void functions_of_a_kind_share_the_largest_number(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)deploy_primed(w, 4);
    uint64_t big = deploy_primed(w, 10);
    (void)deploy_primed(w, 6);
    pass(w, 200);
    assert_int_equal(told(w, 0), 5);
    assert_int_equal(told(w, 1), 5);
    assert_int_equal(w->agents[0].n_pools, 1);
    assert_string_equal(w->agents[0].pools[0].image, "img");
    dv_cluster_fn_remove(w->c, big, w->now);
    w->fns[big - 100].uid = 0;
    pass(w, 200);
    assert_int_equal(told_all(w), 6);
    for (size_t i = 0; i < FNS; i++)
        if (w->fns[i].uid) {
            w->fns[i].spec.scale.primed = 0;
            assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[i], w->now), DV_OK);
        }
    pass(w, 200);
    assert_int_equal(told_all(w), 0);
    world_free(w);
}

static void kinds_that_differ_have_pools_of_their_own(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy_primed(w, 2), g = deploy_primed(w, 3), h = deploy_primed(w, 7);
    w->fns[g - 100].spec.image = (char *)"other";
    w->fns[h - 100].spec.pull = DV_PULL_ALWAYS; /* never takes one from a pool */
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[g - 100], w->now), DV_OK);
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[h - 100], w->now), DV_OK);
    pass(w, 200);
    assert_int_equal(w->agents[0].n_pools, 2);
    assert_int_equal(told(w, 0), 5);
    w->fns[f - 100].spec.image = (char *)"other"; /* moves to the other pool, and shares it */
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    pass(w, 200);
    assert_int_equal(w->agents[0].n_pools, 1);
    assert_int_equal(told(w, 0), 3);
    world_free(w);
}

static void constraints_and_cordons_choose_the_nodes(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    struct dv_kv label = {(char *)"disk", (char *)"ssd"};
    struct dv_node_record rec = {.node = w->agents[1].id, .labels = {&label, 1}};
    assert_int_equal(dv_cluster_node_put(w->c, &rec, w->now), DV_OK);
    uint64_t f = deploy_primed(w, 6);
    char *only[] = {(char *)"disk=ssd"};
    w->fns[f - 100].spec.constraints = (struct dv_strs){only, 1};
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    pass(w, 200);
    assert_int_equal(told(w, 0), 0);
    assert_int_equal(told(w, 1), 6);
    dv_cluster_node_cordon(w->c, w->agents[1].id, true, false, w->now);
    pass(w, 200);
    assert_int_equal(told_all(w), 0);
    w->fns[f - 100].spec.constraints = (struct dv_strs){0};
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    pass(w, 200);
    assert_int_equal(told(w, 0), 6);
    dv_cluster_node_cordon(w->c, w->agents[1].id, false, false, w->now);
    pass(w, 200);
    assert_int_equal(told(w, 0), 3);
    assert_int_equal(told(w, 1), 3);
    world_free(w);
}

static void a_link_that_breaks_for_a_moment_moves_nothing_and_a_lost_node_does(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)deploy_primed(w, 8);
    pass(w, 200);
    int before = w->agents[1].n_told;
    cut_agent(w, 0);
    pass(w, 5000);
    assert_int_equal(w->agents[1].n_told, before);
    connect_agent(w, 0);
    pass(w, 1000);
    assert_int_equal(told(w, 0), 4);
    assert_int_equal(w->agents[1].n_told, before);
    cut_agent(w, 0);
    pass(w, 12000);
    assert_int_equal(told(w, 1), 8);
    world_free(w);
}

static void nothing_is_told_before_all_nodes_were_heard(void **state)
{
    (void)state;
    struct world *w = world_new(0);
    w->n_agents = 2;
    for (size_t i = 0; i < 2; i++) {
        w->agents[i] = (struct agent){.id = i + 1, .start_ms = 200};
        know_node(w, i);
    }
    (void)deploy_primed(w, 4);
    connect_agent(w, 0);
    pass(w, 1000);
    assert_int_equal(w->agents[0].n_told, 0);
    connect_agent(w, 1);
    pass(w, 200);
    assert_int_equal(w->agents[0].n_told, 1);
    assert_int_equal(told(w, 0), 2);
    assert_int_equal(told(w, 1), 2);
    world_free(w);
}

static void what_pools_hold_is_taken_off_what_can_be_promised(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    (void)deploy_primed(w, 1000);
    pass(w, 200);
    int64_t budget = dv_pools_budget(DV_POOLS_ASKED, 1024 * MI, 0);
    assert_int_equal(told(w, 0), budget);
    const struct dv_cluster_node *n = dv_cluster_node_find(w->c, w->agents[0].id);
    assert_int_equal(dv_cluster_view(w->c, n)->memory_bytes, 1024 * MI - budget * DV_POOLS_SANDBOX_BYTES);
    world_free(w);
}

static void a_node_that_keeps_none_is_left_out(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)deploy_primed(w, 8);
    pass(w, 200);
    assert_int_equal(told(w, 0), 4);
    w->agents[0].has_no_pools = true;
    report_node(w, &w->agents[0], true);
    pass(w, 200);
    assert_int_equal(told(w, 0), 0);
    assert_int_equal(told(w, 1), 8);
    world_free(w);
}

static void starts_go_where_sandboxes_are_ready_and_no_further(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 12);
    struct dv_pool kind = {.image = (char *)"img", .n = 5};
    w->agents[1].pools[0] = kind;
    w->agents[1].n_pools = 1;
    report_node(w, &w->agents[1], true); /* five on the second node, none on the first */
    demand(w, f, 3);
    assert_int_equal(w->agents[1].n, 3);
    assert_int_equal(w->agents[0].n, 0);
    assert_non_null(strstr(w->log, "placed"));
    demand(w, f, 9); /* two are left, no new report came */
    assert_int_equal(w->agents[1].n + w->agents[0].n, 9);
    assert_int_equal(w->agents[0].n, 4);
    pass(w, 1000);
    world_free(w);
}

static void sandboxes_of_another_kind_draw_nobody(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 12);
    struct dv_pool kind = {.image = (char *)"img", .user = (char *)"65534", .n = 5};
    w->agents[1].pools[0] = kind;
    w->agents[1].n_pools = 1;
    report_node(w, &w->agents[1], true);
    demand(w, f, 4);
    assert_int_equal(w->agents[0].n, 2);
    assert_int_equal(w->agents[1].n, 2);
    world_free(w);
}

static void start_every_minute(struct world *w, uint64_t f, int minutes)
{
    for (int m = 0; m < minutes; m++) {
        demand(w, f, 4);
        pass(w, 5000);
        serve(w, f, 0);
        pass(w, 55000); /* idle for 5 s: gone */
    }
}

static void functions_that_keep_starting_get_sandboxes_unasked_and_lose_them_when_they_stop(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy(w, 0, 10);
    start_every_minute(w, f, 4);
    assert_int_equal(told_all(w), 0); /* not yet a habit */
    start_every_minute(w, f, 8);
    assert_int_equal(told_all(w), 4);
    pass(w, 3600000);
    assert_int_equal(told_all(w), 0);
    world_free(w);
}

static void with_fixed_times_nothing_is_kept_by_habit(void **state)
{
    (void)state;
    cfg_default.keep.is_fixed = true;
    struct world *w = world_new(2);
    cfg_default.keep.is_fixed = false;
    start_every_minute(w, deploy(w, 0, 10), 12);
    assert_int_equal(told_all(w), 0);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_is_told_once_a_connection_even_of_nothing),
        cmocka_unit_test(functions_of_a_kind_share_the_largest_number),
        cmocka_unit_test(kinds_that_differ_have_pools_of_their_own),
        cmocka_unit_test(constraints_and_cordons_choose_the_nodes),
        cmocka_unit_test(a_link_that_breaks_for_a_moment_moves_nothing_and_a_lost_node_does),
        cmocka_unit_test(nothing_is_told_before_all_nodes_were_heard),
        cmocka_unit_test(what_pools_hold_is_taken_off_what_can_be_promised),
        cmocka_unit_test(a_node_that_keeps_none_is_left_out),
        cmocka_unit_test(starts_go_where_sandboxes_are_ready_and_no_further),
        cmocka_unit_test(sandboxes_of_another_kind_draw_nobody),
        cmocka_unit_test(functions_that_keep_starting_get_sandboxes_unasked_and_lose_them_when_they_stop),
        cmocka_unit_test(with_fixed_times_nothing_is_kept_by_habit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
