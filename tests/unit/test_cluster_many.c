/* Functions with hundreds of replicas: nothing is done for each of them that looks at all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/cluster.h"
#include "proto/base/err.h"

#define S  1000000000ull
#define MI (1024 * 1024ll)

enum { N = 500, UID = 7, NODE = 1 };

struct scene {
    struct dv_cluster *c;
    uint64_t now;
    struct dv_function fn;
    uint64_t held[N];
    size_t n_held;
    int routes, stops;
    struct dv_scale_sample load;
};

static void act(struct scene *s)
{
    struct dv_action a;
    while (dv_cluster_next(s->c, &a)) {
        s->routes += a.kind == DV_ACT_ROUTES;
        s->stops += a.kind == DV_ACT_STOP;
        if (a.kind == DV_ACT_START) {
            assert_true(s->n_held < N);
            s->held[s->n_held++] = a.replica_id;
        }
    }
}

static void report(struct scene *s, size_t i, enum dv_replica_state state)
{
    struct dv_replica_report r = {.id = s->held[i], .fn_uid = UID, .generation = 1, .state = state};
    assert_int_equal(dv_cluster_reports(s->c, NODE, &r, 1, false, s->now), DV_OK);
    act(s);
}

static void tick(struct scene *s)
{
    s->now += S / 10;
    dv_cluster_load(s->c, UID, &s->load, s->now);
    dv_cluster_tick(s->c, s->now);
    act(s);
}

/* N replicas were started for N who wait; none is ready. */
static void begin(struct scene *s)
{
    *s = (struct scene){.now = 100 * S};
    s->fn = (struct dv_function){
        .uid = UID,
        .generation = 1,
        .desired_override = -1,
        .spec = {.name = (char *)"f",
                 .ns = (char *)"default",
                 .image = (char *)"img",
                 .requests = {.memory_bytes = MI, .cpu_mcpu = 1},
                 .scale = {.max = N, .concurrency = 1, .target = 1, .idle_ms = 5000, .queue_max = N}}};
    struct dv_cluster_cfg cfg = {.seed = 1};
    struct dv_node_record rec = {.node = NODE};
    struct dv_node_report node = {
        .node = NODE, .engine_ok = true, .cpus = 64, .memory_bytes = 1 << 30, .replicas_max = 2 * N};
    assert_int_equal(dv_cluster_new(&cfg, s->now, &s->c), DV_OK);
    assert_int_equal(dv_cluster_node_put(s->c, &rec, s->now), DV_OK);
    dv_cluster_node_up(s->c, NODE, s->now);
    assert_int_equal(dv_cluster_node_report(s->c, NODE, &node, s->now), DV_OK);
    assert_int_equal(dv_cluster_reports(s->c, NODE, NULL, 0, true, s->now), DV_OK);
    assert_int_equal(dv_cluster_fn_put(s->c, &s->fn, s->now), DV_OK);
    s->load = (struct dv_scale_sample){.waiting = N, .last_activity_ns = s->now};
    dv_cluster_load(s->c, UID, &s->load, s->now);
    dv_cluster_demand(s->c, UID, s->now);
    act(s);
    assert_int_equal(s->n_held, N);
}

static void begin_ready(struct scene *s)
{
    begin(s);
    for (size_t i = 0; i < N; i++)
        report(s, i, DV_REPLICA_WARM);
    s->load.waiting = 0;
    s->load.in_flight = N;
    tick(s);
    s->routes = 0;
}

static struct dv_cluster_tally tally(const struct scene *s)
{
    struct dv_cluster_tally t;
    dv_cluster_fn_tally(dv_cluster_fn_find(s->c, UID), &t);
    return t;
}

static void many_that_become_ready_are_told_in_few_steps_and_all_of_them_by_the_next_tick(void **state)
{
    (void)state;
    struct scene s;
    begin(&s);
    s.routes = 0;
    for (size_t i = 0; i < N; i++)
        report(&s, i, DV_REPLICA_WARM);
    assert_true(s.routes >= 1);
    assert_true(s.routes <= 2); /* no time passed */
    assert_int_equal(tally(&s).ready, N);
    int before = s.routes;
    tick(&s);
    assert_int_equal(s.routes, before + 1);
    tick(&s);
    assert_int_equal(s.routes, before + 1); /* nothing new */
    dv_cluster_free(s.c);
}

static void in_time_they_are_told_without_a_tick(void **state)
{
    (void)state;
    struct scene s;
    begin(&s);
    s.routes = 0;
    for (size_t i = 0; i < N; i++) {
        s.now += S / 100;
        report(&s, i, DV_REPLICA_WARM);
    }
    assert_int_equal(s.routes, N);
    dv_cluster_free(s.c);
}

static void one_of_many_that_takes_no_more_requests_is_told_at_once(void **state)
{
    (void)state;
    struct scene s;
    begin_ready(&s);
    for (size_t i = 0; i < 5; i++) {
        report(&s, i, DV_REPLICA_GONE);
        assert_int_equal(s.routes, (int)i + 1);
    }
    dv_cluster_free(s.c);
}

static void one_of_many_that_ends_is_replaced_by_the_next_tick(void **state)
{
    (void)state;
    struct scene s;
    begin_ready(&s);
    s.n_held--; /* room to hold another */
    report(&s, s.n_held, DV_REPLICA_GONE);
    s.load.waiting = 1;
    tick(&s);
    assert_int_equal(s.n_held, N);
    assert_int_equal(tally(&s).starting, 1);
    dv_cluster_free(s.c);
}

static void all_of_many_stop_at_once_when_nobody_comes(void **state)
{
    (void)state;
    struct scene s;
    begin_ready(&s);
    s.load.in_flight = 0;
    s.now += 3600 * S;
    tick(&s);
    assert_int_equal(s.stops, N);
    dv_cluster_free(s.c);
}

static void some_of_many_stop_over_several_ticks_the_idle_ones_first(void **state)
{
    (void)state;
    struct scene s;
    begin_ready(&s);
    for (size_t i = 0; i < N; i++)
        dv_cluster_replica_busy(s.c, s.held[i], i < 100);
    s.load.in_flight = 100;
    dv_cluster_fn_set(s.c, UID, 100, s.now);
    act(&s);
    int at_once = s.stops;
    assert_true(at_once > 0 && at_once < N - 100);
    for (int i = 0; i < 5; i++)
        tick(&s);
    assert_int_equal(s.stops, N - 100);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(dv_cluster_replica_find(s.c, s.held[i])->state, DV_REPLICA_WARM);
    dv_cluster_free(s.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_that_become_ready_are_told_in_few_steps_and_all_of_them_by_the_next_tick),
        cmocka_unit_test(in_time_they_are_told_without_a_tick),
        cmocka_unit_test(one_of_many_that_takes_no_more_requests_is_told_at_once),
        cmocka_unit_test(one_of_many_that_ends_is_replaced_by_the_next_tick),
        cmocka_unit_test(all_of_many_stop_at_once_when_nobody_comes),
        cmocka_unit_test(some_of_many_stop_over_several_ticks_the_idle_ones_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
