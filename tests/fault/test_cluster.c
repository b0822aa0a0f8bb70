/* The core and the autoscaler's surroundings without memory: nothing breaks, nothing leaks, and once there is
 * memory again wanted and seen meet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/cluster.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

#define MS 1000000ull
#define S  1000000000ull

enum { HELD_MAX = 64 };

struct scene {
    struct dv_cluster *c;
    uint64_t now;
    struct dv_function fn;
    uint64_t held[HELD_MAX];
    size_t n_held;
    int64_t n_primed; /* sandboxes that the node was told to keep */
};

static void act(struct scene *s)
{
    struct dv_action a;
    while (dv_cluster_next(s->c, &a)) {
        if (a.kind == DV_ACT_START) {
            bool has = false;
            for (size_t i = 0; i < s->n_held; i++)
                has |= s->held[i] == a.replica_id;
            if (!has && s->n_held < HELD_MAX)
                s->held[s->n_held++] = a.replica_id;
        }
        struct dv_pool pool = {.n = 0};
        if (a.kind == DV_ACT_POOLS && dv_cluster_pools(s->c, a.node, &pool, 1) <= 1)
            s->n_primed = pool.n;
        for (size_t i = 0; a.kind == DV_ACT_STOP && i < s->n_held; i++)
            if (s->held[i] == a.replica_id)
                s->held[i--] = s->held[--s->n_held];
    }
}

static void report(struct scene *s, bool is_full)
{
    struct dv_replica_report r[HELD_MAX] = {0};
    for (size_t i = 0; i < s->n_held; i++)
        r[i] = (struct dv_replica_report){
            .id = s->held[i], .fn_uid = 7, .generation = s->fn.generation, .state = DV_REPLICA_WARM};
    (void)dv_cluster_reports(s->c, 1, r, s->n_held, is_full, s->now);
}

static void report_node(struct scene *s)
{
    char *image = (char *)"img:1";
    struct dv_pool pool = {.image = image, .n = s->n_primed};
    struct dv_node_report n = {.node = 1,
                               .engine_ok = true,
                               .cpus = 4,
                               .memory_bytes = 1ll << 32,
                               .replicas_max = 50,
                               .images = {&image, 1},
                               .pools = &pool,
                               .n_pools = 1};
    (void)dv_cluster_node_report(s->c, 1, &n, s->now);
}

static void step(struct scene *s)
{
    s->now += 500 * MS;
    report_node(s);
    report(s, true);
    dv_cluster_demand(s->c, 7, s->now);
    dv_cluster_tick(s->c, s->now);
    act(s);
}

/* Everything that allocates, each result looked at; an input refused for want of memory is given again later.
 */
static void inputs(struct scene *s)
{
    struct dv_kv kv = {(char *)"zone", (char *)"a"};
    struct dv_node_record rec = {.node = 1, .labels = {&kv, 1}};
    int rc = dv_cluster_node_put(s->c, &rec, s->now);
    assert_true(rc == DV_OK || rc == DV_E_NOMEM);
    dv_cluster_node_up(s->c, 1, s->now);
    rc = dv_cluster_fn_put(s->c, &s->fn, s->now);
    assert_true(rc == DV_OK || rc == DV_E_NOMEM);
    step(s);
    step(s);
}

static void every_allocation_may_fail_once(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 200; n++) {
        struct dv_cluster_cfg cfg = {.seed = 3};
        struct scene s = {.now = 10 * S};
        s.fn = (struct dv_function){
            .uid = 7,
            .generation = 1,
            .desired_override = -1,
            .spec = {
                .name = (char *)"f",
                .ns = (char *)"default",
                .image = (char *)"img:1",
                .scale = {.min = 3, .max = 5, .concurrency = 1, .target = 1, .idle_ms = 60000, .primed = 4}}};
        dv_alloc_fail_at(n);
        int rc = dv_cluster_new(&cfg, s.now, &s.c);
        if (rc) {
            assert_int_equal(rc, DV_E_NOMEM);
            dv_alloc_fail_at(0);
            continue;
        }
        inputs(&s);
        bool all_passed = dv_alloc_count() < n;
        dv_alloc_fail_at(0);
        inputs(&s);
        for (int i = 0; i < 10; i++)
            step(&s);
        struct dv_cluster_tally t;
        dv_cluster_fn_tally(dv_cluster_fn_find(s.c, 7), &t);
        assert_int_equal(t.ready, 3);
        assert_int_equal(s.n_held, 3);
        assert_int_equal(s.n_primed, 4);
        dv_cluster_free(s.c);
        if (all_passed)
            return;
    }
    fail_msg("more allocations than expected");
}

/* Used, at rest for half an hour, and again. */
static void use_and_rest(struct scene *s)
{
    struct dv_scale_sample load = {.arrived = 1, .last_activity_ns = s->now};
    dv_cluster_demand(s->c, 7, s->now);
    act(s);
    report(s, true);
    dv_cluster_load(s->c, 7, &load, s->now);
    for (int i = 0; i < 180; i++) {
        s->now += 10 * S;
        report_node(s);
        dv_cluster_load(s->c, 7, &load, s->now);
        dv_cluster_tick(s->c, s->now);
        act(s);
        report(s, true);
    }
}

static void a_history_that_could_not_be_kept_is_made_good(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 20000; n += n < 300 ? 1 : 23) {
        struct dv_cluster_cfg cfg = {.seed = 3};
        struct scene s = {.now = 10 * S};
        s.fn = (struct dv_function){.uid = 7,
                                    .generation = 1,
                                    .desired_override = -1,
                                    .spec = {.name = (char *)"f",
                                             .ns = (char *)"default",
                                             .image = (char *)"img:1",
                                             .scale = {.max = 5, .concurrency = 1, .target = 1}}};
        assert_int_equal(dv_cluster_new(&cfg, s.now, &s.c), DV_OK);
        inputs(&s);
        for (int i = 0; i < 4; i++)
            use_and_rest(&s);
        dv_alloc_fail_at(n);
        for (int i = 0; i < 3; i++)
            use_and_rest(&s);
        bool all_passed = dv_alloc_count() < n;
        dv_alloc_fail_at(0);
        for (int i = 0; i < 2; i++)
            use_and_rest(&s);
        assert_int_equal(s.n_held, 0);
        assert_int_equal(s.n_primed, 1); /* half an hour is nearly over, and a sandbox waits */
        dv_cluster_free(s.c);
        if (all_passed)
            return;
    }
    fail_msg("more allocations than expected");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail_once),
                                       cmocka_unit_test(a_history_that_could_not_be_kept_is_made_good)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
