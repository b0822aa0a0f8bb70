/* What idle functions keep, and what is made ready before their next request: the policy at work in a
 * cluster. */
#include "tests/support/cluster_world.h"

/* Gives no idle time of its own. */
static uint64_t deploy_free(struct world *w)
{
    uint64_t f = deploy(w, 0, 10);
    w->fns[f - 100].spec.scale.idle_ms = 0;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    return f;
}

static void seconds(struct world *w, uint64_t s)
{
    for (uint64_t t = 0; t < s; t++) {
        w->now += S;
        agents_work(w);
        for (size_t i = 0; i < w->n_agents && w->now >= w->full_at; i++)
            if (w->agents[i].is_up) {
                report_node(w, &w->agents[i], true);
                report_full(w, &w->agents[i]);
            }
        if (w->now >= w->full_at)
            w->full_at = w->now + 5 * S;
        feed_load(w);
        dv_cluster_tick(w->c, w->now);
        act(w);
        check(w);
        w->log[0] = '\0'; /* only what happened last is of interest */
    }
}

static void request(struct world *w, uint64_t f)
{
    if (tally(w, f).ready == 0)
        demand(w, f, 1);
    pass(w, 300);
    assert_int_equal(tally(w, f).ready, 1);
    serve(w, f, 1);
    pass(w, 100);
    serve(w, f, 0);
    pass(w, 50);
}

static int64_t primed(const struct world *w)
{
    int64_t n = 0;
    for (size_t a = 0; a < w->n_agents; a++)
        for (size_t i = 0; i < w->agents[a].n_pools; i++)
            n += w->agents[a].pools[i].n;
    return n;
}

static struct dv_keep_plan plan_of(const struct world *w, uint64_t f)
{
    struct dv_keep_plan p;
    dv_cluster_fn_keep(w->c, dv_cluster_fn_find(w->c, f), &p);
    return p;
}

static void a_timer_finds_a_sandbox_that_was_primed_for_it(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy_free(w);
    for (int i = 0; i < 5; i++) {
        request(w, f);
        seconds(w, 1800);
        assert_int_equal(held_by(w), 0); /* a minute, while nothing is known */
    }
    request(w, f);
    assert_int_equal(plan_of(w, f).basis, DV_KEEP_HISTOGRAM);
    seconds(w, 30);
    assert_int_equal(held_by(w), 0); /* not even a minute, now */
    seconds(w, 1500);
    assert_int_equal(primed(w), 0);
    seconds(w, 270);
    assert_int_equal(primed(w), 1);
    assert_int_equal(held_by(w), 0);
    seconds(w, 10); /* reported as ready */
    demand(w, f, 1);
    assert_non_null(strstr(w->log, "placed"));
    pass(w, 1000);
    assert_int_equal(primed(w), 0); /* it is in use: nothing is kept for it beside */
    world_free(w);
}

static void a_function_that_starts_slowly_finds_a_replica_started_ahead(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    uint64_t f = deploy_free(w);
    w->fns[f - 100].spec.pull = DV_PULL_ALWAYS; /* nor may it have a sandbox */
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    for (int i = 0; i < 6; i++) {
        request(w, f);
        seconds(w, 1799);
    }
    assert_int_equal(tally(w, f).ready, 1); /* 5 gaps are known, and it is nearly half an hour again */
    assert_string_equal(dv_cluster_fn_reason(dv_cluster_fn_find(w->c, f)), "ready ahead of its next request");
    int starts = w->starts;
    request(w, f);
    assert_int_equal(w->starts, starts);
    seconds(w, 30);
    assert_int_equal(held_by(w), 0);
    seconds(w, 1700);
    assert_int_equal(tally(w, f).ready, 1);
    seconds(w, 600); /* nobody comes */
    assert_int_equal(held_by(w), 0);
    seconds(w, 7200);
    assert_int_equal(w->starts, starts + 1);
    world_free(w);
}

static void where_no_node_has_sandboxes_replicas_are_started_ahead(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    w->agents[0].fills_none = true;
    uint64_t f = deploy_free(w);
    for (int i = 0; i < 5; i++) {
        request(w, f);
        seconds(w, 1799);
    }
    request(w, f); /* a sandbox was asked for in vain */
    seconds(w, 1799);
    request(w, f);
    assert_int_equal(plan_of(w, f).ahead, DV_KEEP_REPLICA);
    seconds(w, 1799);
    assert_int_equal(tally(w, f).ready, 1);
    world_free(w);
}

static void irregular_gaps_keep_a_replica_and_then_a_sandbox(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy_free(w);
    for (uint64_t i = 0; i < 12; i++) {
        request(w, f);
        seconds(w, 60 + i % 2 * 840);
    }
    request(w, f);
    seconds(w, 500);
    assert_int_equal(held_by(w), 1);
    seconds(w, 200);
    assert_int_equal(held_by(w), 0);
    assert_int_equal(primed(w), 1);
    seconds(w, 600);
    assert_int_equal(primed(w), 0);
    world_free(w);
}

static void pinned_functions_and_fixed_orchestrators_keep_to_their_times(void **state)
{
    (void)state;
    for (int fixed = 0; fixed < 2; fixed++) {
        cfg_default.keep.is_fixed = fixed;
        struct world *w = world_new(1);
        uint64_t f = fixed ? deploy_free(w) : deploy(w, 0, 10);
        for (int i = 0; i < 8; i++) {
            request(w, f);
            seconds(w, 1799);
            assert_int_equal(held_by(w), 0);
            assert_int_equal(primed(w), 0);
        }
        assert_int_equal(plan_of(w, f).basis, fixed ? DV_KEEP_OFF : DV_KEEP_PINNED);
        assert_null(dv_cluster_fn_find(w->c, f)->keep); /* nor is any history kept */
        world_free(w);
        cfg_default.keep.is_fixed = false;
    }
}

static void a_pinned_time_given_later_ends_what_was_made_ready(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy_free(w);
    for (int i = 0; i < 6; i++) {
        request(w, f);
        seconds(w, 1799);
    }
    assert_int_equal(primed(w), 1);
    w->fns[f - 100].spec.scale.idle_ms = 5000;
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    seconds(w, 2);
    assert_int_equal(primed(w), 0);
    w->fns[f - 100].spec.scale.idle_ms = 0; /* and taken back: its history is still known */
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[f - 100], w->now), DV_OK);
    seconds(w, 2);
    assert_int_equal(primed(w), 1);
    dv_cluster_fn_remove(w->c, f, w->now);
    w->n_fns = 0;
    seconds(w, 2);
    assert_int_equal(primed(w), 0);
    world_free(w);
}

/* The reasons that a person reads. */
static void what_is_kept_says_why(void **state)
{
    (void)state;
    struct world *w = world_new(1);
    uint64_t f = deploy_free(w);
    for (int i = 0; i < 6; i++) {
        request(w, f);
        seconds(w, 1795);
    }
    request(w, f);
    struct dv_action x;
    char stopped[240] = "", ahead[240] = "";
    for (int s = 0; s < 1700; s++) {
        w->now += S;
        agents_work(w);
        feed_load(w);
        dv_cluster_tick(w->c, w->now);
        while (dv_cluster_next(w->c, &x)) {
            if (x.kind == DV_ACT_STOP)
                agent_stop(w, &w->agents[0], x.replica_id);
            if (x.kind == DV_ACT_EVENT && strcmp(x.event, "scaled") == 0)
                memcpy(stopped, x.message, sizeof(stopped));
            if (x.kind == DV_ACT_EVENT && strcmp(x.event, "ahead") == 0)
                memcpy(ahead, x.message, sizeof(ahead));
        }
    }
    assert_string_equal(stopped,
                        "1 to 0: no request for 10s, minimum is 0; kept 10s, and a primed sandbox from "
                        "26m6s to 33m: gaps of 29m to 30m, 6 seen");
    assert_string_equal(ahead,
                        "a primed sandbox is kept for its next request: kept 10s, and a primed sandbox "
                        "from 26m6s to 33m: gaps of 29m to 30m, 6 seen");
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timer_finds_a_sandbox_that_was_primed_for_it),
        cmocka_unit_test(a_function_that_starts_slowly_finds_a_replica_started_ahead),
        cmocka_unit_test(where_no_node_has_sandboxes_replicas_are_started_ahead),
        cmocka_unit_test(irregular_gaps_keep_a_replica_and_then_a_sandbox),
        cmocka_unit_test(pinned_functions_and_fixed_orchestrators_keep_to_their_times),
        cmocka_unit_test(a_pinned_time_given_later_ends_what_was_made_ready),
        cmocka_unit_test(what_is_kept_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
