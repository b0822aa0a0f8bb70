/* What the core holds for functions that nobody uses. */
#include "tests/support/cluster_world.h"

static const struct dv_cluster_fn *fn(struct world *w, uint64_t uid)
{
    return dv_cluster_fn_find(w->c, uid);
}

static void a_function_keeps_what_it_works_with_only_while_something_goes_on(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t uid = deploy(w, 0, 5);
    assert_null(fn(w, uid)->hot);
    assert_string_equal(dv_cluster_fn_reason(fn(w, uid)), "nobody waits, minimum is 0");
    assert_int_equal(dv_cluster_fn_wanted(fn(w, uid)), 0);
    demand(w, uid, 2);
    assert_non_null(fn(w, uid)->hot);
    assert_int_equal(dv_cluster_fn_waiting(fn(w, uid)), 2);
    pass(w, 500);
    serve(w, uid, 1);
    pass(w, 3000);
    assert_non_null(fn(w, uid)->hot);
    serve(w, uid, 0);
    pass(w, 30000);
    assert_int_equal(held_by(w), 0);
    assert_null(fn(w, uid)->hot);
    assert_int_equal(fn(w, uid)->asked, 0);
    demand(w, uid, 1); /* and it wakes as before */
    pass(w, 500);
    assert_int_equal(tally(w, uid).ready, 1);
    world_free(w);
}

static void load_that_says_nobody_waits_does_not_wake_a_function(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t uid = deploy(w, 0, 5);
    struct dv_scale_sample s = {.arrived = 5, .answered = 5, .last_activity_ns = w->now};
    dv_cluster_load(w->c, uid, &s, w->now);
    assert_null(fn(w, uid)->hot);
    world_free(w);
}

static void why_it_failed_outlives_what_it_worked_with(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t uid = deploy(w, 0, 5);
    w->agents[0].breaks = DV_REASON_EXITED;
    demand(w, uid, 1);
    pass(w, 500);
    assert_non_null(strstr(fn(w, uid)->failing, "as the test has it"));
    serve(w, uid, 0);
    pass(w, 900000); /* until what is left of its replicas is cleared away */
    assert_null(fn(w, uid)->hot);
    assert_string_equal(fn(w, uid)->failing, "");
    assert_non_null(strstr(fn(w, uid)->trouble, "as the test has it"));
    world_free(w);
}

static void a_function_put_to_sleep_says_so_at_rest(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t uid = deploy(w, 0, 5);
    w->fns[0].desired_override = 0;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[0], w->now), DV_OK);
    assert_null(fn(w, uid)->hot);
    assert_non_null(strstr(dv_cluster_fn_reason(fn(w, uid)), "put to sleep"));
    world_free(w);
}

static void a_tick_decides_about_what_is_in_use_and_once_a_second_about_what_is_merely_there(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t used = deploy(w, 1, 5), idle = deploy(w, 1, 5);
    pass(w, 2000);
    demand(w, used, 1);
    serve(w, used, 1);
    int used_ticks = 0, idle_ticks = 0;
    for (int i = 0; i < 60; i++) {
        uint64_t before_used = fn(w, used)->reconciled_ns, before_idle = fn(w, idle)->reconciled_ns;
        pass(w, 50);
        used_ticks += fn(w, used)->reconciled_ns != before_used;
        idle_ticks += fn(w, idle)->reconciled_ns != before_idle;
    }
    assert_int_equal(used_ticks, 60);
    assert_in_range(idle_ticks, 3, 4);
    assert_int_equal(dv_cluster_next_tick(w->c, w->now), w->now + S / 10);
    serve(w, used, 0);
    pass(w, 2000);
    assert_int_equal(dv_cluster_next_tick(w->c, w->now), w->now + S);
    world_free(w);
}

static void count(void *ctx, const struct dv_cluster_fn *f)
{
    ((int *)ctx)[f->uid - 100]++;
}

static void load_is_asked_for_of_those_alone_that_the_tick_decides_about(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t used = deploy(w, 1, 5);
    deploy(w, 1, 5);
    deploy(w, 0, 5); /* at rest */
    pass(w, 2000);
    demand(w, used, 1);
    serve(w, used, 1);
    pass(w, 1000);
    int asked[3] = {0};
    for (int i = 0; i < 20; i++) {
        dv_cluster_each_due(w->c, w->now + 50 * MS, count, asked);
        pass(w, 50);
    }
    assert_int_equal(asked[0], 20);
    assert_in_range(asked[1], 1, 2);
    assert_int_equal(asked[2], 0);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_function_keeps_what_it_works_with_only_while_something_goes_on),
        cmocka_unit_test(load_that_says_nobody_waits_does_not_wake_a_function),
        cmocka_unit_test(why_it_failed_outlives_what_it_worked_with),
        cmocka_unit_test(a_function_put_to_sleep_says_so_at_rest),
        cmocka_unit_test(a_tick_decides_about_what_is_in_use_and_once_a_second_about_what_is_merely_there),
        cmocka_unit_test(load_is_asked_for_of_those_alone_that_the_tick_decides_about),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
