/* The simulator itself: baselines do what their descriptions say, costs and waits add up, traces are read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <unistd.h>
#include "proto/base/alloc.h"
#include "tests/sim/load.h"
#include "tests/sim/report.h"

static struct sim *world(const struct sim_sys_ops *sys)
{
    struct sim_cfg cfg;
    sim_cfg_default(&cfg);
    cfg.is_checked = true;
    cfg.n_nodes = 2;
    cfg.nets_per_node = 0;
    cfg.has_pools = false;
    return sim_new(&cfg, sys);
}

static struct sim_fn *function(struct sim *s, const double *times_s, size_t n, double seconds)
{
    struct sim_fn *f = sim_fn_add(s, "f", "img");
    f->mean_s = seconds;
    f->arrivals =
        (struct sim_arrivals){.kind = SIM_LIST, .n_times = n, .times_ns = dv_zalloc(n * sizeof(uint64_t))};
    for (size_t i = 0; i < n; i++)
        f->arrivals.times_ns[i] = (uint64_t)(times_s[i] * 1e9);
    sim_fn_begin(s, f);
    return f;
}

static size_t replicas_at(struct sim *s, double t_s)
{
    sim_run(s, SIM_BEGIN + (uint64_t)(t_s * 1e9));
    return s->replicas.n;
}

static void near_to(double got, double want, double tolerance)
{
    if (fabs(got - want) > tolerance)
        fail_msg("%g, not %g", got, want);
}

/* ---- baselines ---- */

static void the_fixed_policy_keeps_a_replica_ten_minutes_after_its_last_use(void **state)
{
    (void)state;
    struct sim *s = world(&sim_fixed);
    const double times[] = {10, 300, 880, 1600};
    function(s, times, 4, 1);
    assert_int_equal(replicas_at(s, 5), 0);
    assert_int_equal(replicas_at(s, 870), 1);
    assert_int_equal(replicas_at(s, 1480), 1); /* 880 + 1 + 600 */
    assert_int_equal(replicas_at(s, 1485), 0);
    (void)replicas_at(s, 3000);
    sim_settle(s);
    assert_int_equal(s->stats.how[SIM_HOW_COLD], 2);
    assert_int_equal(s->stats.how[SIM_HOW_WARM], 2);
    near_to(s->stats.replica_s, (880 + 601 - 10) + (601), 2);
    near_to(s->stats.replica_gb_s, s->stats.replica_s * 128 * 1048576 / 1e9, 1);
    sim_free(s);
}

static void the_fixed_policy_has_a_replica_for_each_concurrent_request(void **state)
{
    (void)state;
    struct sim *s = world(&sim_fixed);
    const double times[] = {10, 10, 10, 10, 10};
    function(s, times, 5, 5);
    assert_int_equal(replicas_at(s, 11), 5);
    assert_int_equal(replicas_at(s, 614), 5);
    assert_int_equal(replicas_at(s, 620), 0);
    assert_int_equal(s->stats.how[SIM_HOW_COLD], 5);
    sim_free(s);
}

static void knative_goes_to_zero_after_a_stable_window_and_the_grace_period(void **state)
{
    (void)state;
    struct sim *s = world(&sim_kpa);
    const double times[] = {10};
    struct sim_fn *f = function(s, times, 1, 1);
    f->def.spec.scale.concurrency = 10;
    assert_int_equal(replicas_at(s, 12), 1);
    assert_int_equal(replicas_at(s, 98), 1); /* 11.2 + 60 + 30 */
    assert_int_equal(replicas_at(s, 106), 0);
    sim_free(s);
}

static void knative_follows_a_steady_load_at_seven_tenths_of_what_replicas_can(void **state)
{
    (void)state;
    struct sim *s = world(&sim_kpa);
    struct sim_fn *f = sim_fn_add(s, "f", "img");
    f->mean_s = 0.5;
    f->def.spec.scale.concurrency = 10;
    f->arrivals = (struct sim_arrivals){.kind = SIM_PERIODIC, .period_ns = 10 * SIM_MS}; /* 50 in flight */
    sim_fn_begin(s, f);
    near_to((double)replicas_at(s, 300), 8, 0); /* 50 / 7 */
    sim_free(s);
}

static void knative_at_most_halves_in_a_tick_and_never_shrinks_in_panic(void **state)
{
    (void)state;
    struct sim *s = world(&sim_kpa);
    double times[400];
    for (size_t i = 0; i < DV_COUNT(times); i++)
        times[i] = 10 + (double)i / 100;
    struct sim_fn *f = function(s, times, DV_COUNT(times), 1);
    f->def.spec.scale.concurrency = 10;
    size_t most = replicas_at(s, 20), last = most;
    assert_true(most >= 8);
    assert_int_equal(replicas_at(s, 60), most);
    for (double t = 61; t < 200; t++) {
        size_t n = replicas_at(s, t);
        assert_true(n == 0 || n >= last / 2);
        last = n;
    }
    assert_int_equal(last, 0);
    sim_free(s);
}

/* ---- ours, and the accounting ---- */

static void a_request_that_waits_for_its_container_is_cold_and_one_behind_another_is_queued(void **state)
{
    (void)state;
    struct sim *s = world(&sim_davit);
    const double times[] = {10, 20, 20.5};
    struct sim_fn *f = function(s, times, 3, 1);
    f->def.spec.scale.max = 1;
    sim_run(s, SIM_BEGIN + 40 * SIM_S);
    assert_int_equal(s->stats.how[SIM_HOW_COLD], 1);
    assert_int_equal(s->stats.how[SIM_HOW_FROZEN], 1);
    assert_int_equal(s->stats.how[SIM_HOW_QUEUED], 1);
    assert_int_equal(s->stats.containers, 1);
    near_to(sim_hist_ms(&s->stats.wait, 0.99), 500, 30);
    sim_free(s);
}

static void a_primed_sandbox_is_opened_within_milliseconds_and_charged_by_its_memory(void **state)
{
    (void)state;
    struct sim_cfg cfg;
    sim_cfg_default(&cfg);
    cfg.n_nodes = 1;
    struct sim *s = sim_new(&cfg, &sim_davit);
    const double times[] = {100};
    struct sim_fn *f = function(s, times, 1, 1);
    f->def.spec.requests.memory_bytes = 300 * SIM_MI;
    s->nodes[0].pools[0].wanted = 1;
    sim_agent_pools(s, &s->nodes[0]);
    sim_run(s, SIM_BEGIN + 99 * SIM_S);
    s->nodes[0].pools[0].wanted = 0; /* the one that is there is taken, and not replaced */
    sim_run(s, SIM_BEGIN + 150 * SIM_S);
    sim_settle(s);
    assert_int_equal(s->stats.opened, 1);
    assert_int_equal(s->stats.containers, 0);
    assert_int_equal(s->stats.how[SIM_HOW_PRIMED], 1);
    assert_true(sim_hist_ms(&s->stats.wait, 0.5) < 6);
    near_to(s->stats.primed_s, 100, 1);
    near_to(s->stats.primed_replica_s, 1, .02); /* 3 MB of 300 */
    sim_free(s);
}

static void quantiles_are_within_a_sixteenth(void **state)
{
    (void)state;
    struct sim_hist h = {0};
    for (uint64_t i = 0; i < 10000; i++)
        sim_hist_add(&h, i * 100000); /* up to a second */
    near_to(sim_hist_ms(&h, 0.5), 500, 32);
    near_to(sim_hist_ms(&h, 0.99), 990, 62);
    struct sim_hist none = {0};
    for (int i = 0; i < 10; i++)
        sim_hist_add(&none, 0);
    near_to(sim_hist_ms(&none, 0.99), 0, 0);
}

/* ---- traces ---- */

static uint64_t run_trace(int (*read)(struct sim *s, const char *path, int n_images), const char *name,
                          size_t n_fns)
{
    struct sim *s = world(&sim_fixed);
    s->cfg.is_checked = false;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/tests/sim/sample%s", DAVIT_SOURCE_DIR, name);
    assert_int_equal(read(s, path, 4), n_fns);
    assert_int_equal(s->n_fns, n_fns);
    sim_run(s, SIM_BEGIN + 86400 * SIM_S);
    uint64_t n = s->stats.arrived;
    sim_free(s);
    return n;
}

static uint64_t calls_in_sample(void)
{
    FILE *f = fopen(DAVIT_SOURCE_DIR "/tests/sim/sample/invocations.csv", "re");
    uint64_t sum = 0;
    assert_non_null(f);
    static char line[65536];
    assert_non_null(fgets(line, sizeof(line), f));
    while (fgets(line, sizeof(line), f)) {
        char *p = line;
        for (int commas = 0; commas < 4; p++)
            commas += *p == ',';
        for (; *p; p = *p == ',' ? p + 1 : p)
            sum += strtoull(p, &p, 10) + (*p == '\n' ? (uint64_t)(*p = '\0') : 0);
    }
    (void)fclose(f);
    return sum;
}

static void the_2019_format_is_replayed_call_by_call(void **state)
{
    (void)state;
    uint64_t n = run_trace(sim_trace_2019, "", 6);
    assert_true(n > 1000);
    assert_int_equal(n, calls_in_sample());
}

static void durations_and_memory_of_the_2019_format_reach_their_functions(void **state)
{
    (void)state;
    struct sim *s = world(&sim_fixed);
    assert_int_equal(sim_trace_2019(s, DAVIT_SOURCE_DIR "/tests/sim/sample", 4), 6);
    near_to(s->fns[0]->mean_s, 0.320, 1e-9);
    near_to(s->fns[5]->mean_s, 0.680, 1e-9); /* not in durations.csv: the published median */
    near_to((double)s->fns[0]->def.spec.requests.memory_bytes, 150e6, 1);
    sim_free(s);
}

static void the_2021_format_is_replayed_with_its_own_durations(void **state)
{
    (void)state;
    assert_int_equal(run_trace(sim_trace_2021, "/azure2021.csv", 6), 200);
}

static void a_trace_that_cannot_be_read_says_where(void **state)
{
    (void)state;
    struct sim *s = world(&sim_fixed);
    char path[] = "/tmp/davit-sim-trace-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "app,func,end_timestamp,duration\na,f,12,1\na,f,soon,1\n";
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    assert_int_equal(sim_trace_2021(s, path, 1), -1);
    assert_int_equal(sim_trace_2021(s, "/nowhere/at/all", 1), -1);
    (void)close(fd);
    (void)unlink(path);
    sim_free(s);
}

/* ---- what is promised of the policies, small enough for every run ---- */

static struct sim_figures shape_run(const struct sim_sys_ops *sys, bool has_tiers, const char *name)
{
    struct sim_cfg cfg;
    sim_cfg_default(&cfg);
    cfg.seed = 3;
    if (!has_tiers)
        cfg.nets_per_node = 0;
    struct sim *s = sim_new(&cfg, sys);
    for (size_t i = 0; i < sim_n_shapes; i++)
        if (strcmp(sim_shapes[i].name, name) == 0)
            sim_shape_load(s, &sim_shapes[i], 10);
    sim_run(s, SIM_BEGIN + 1200 * SIM_S);
    sim_settle(s);
    struct sim_figures f;
    sim_figures_of(&s->stats, &f);
    sim_free(s);
    return f;
}

static void on_spikes_waits_are_at_most_half_of_knatives_at_no_more_than_its_cost(void **state)
{
    (void)state;
    static const char *const names[] = {"spikes", "bursts"};
    for (size_t i = 0; i < DV_COUNT(names); i++) {
        struct sim_figures ours = shape_run(&sim_davit, true, names[i]),
                           theirs = shape_run(&sim_kpa, false, names[i]);
        assert_true(ours.requests == theirs.requests && ours.requests > 1000);
        assert_true(theirs.p99_ms > 0);
        assert_true(ours.p99_ms <= theirs.p99_ms / 2);
        assert_true(ours.replica_s <= 1.1 * theirs.replica_s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fixed_policy_keeps_a_replica_ten_minutes_after_its_last_use),
        cmocka_unit_test(the_fixed_policy_has_a_replica_for_each_concurrent_request),
        cmocka_unit_test(knative_goes_to_zero_after_a_stable_window_and_the_grace_period),
        cmocka_unit_test(knative_follows_a_steady_load_at_seven_tenths_of_what_replicas_can),
        cmocka_unit_test(knative_at_most_halves_in_a_tick_and_never_shrinks_in_panic),
        cmocka_unit_test(a_request_that_waits_for_its_container_is_cold_and_one_behind_another_is_queued),
        cmocka_unit_test(a_primed_sandbox_is_opened_within_milliseconds_and_charged_by_its_memory),
        cmocka_unit_test(quantiles_are_within_a_sixteenth),
        cmocka_unit_test(the_2019_format_is_replayed_call_by_call),
        cmocka_unit_test(durations_and_memory_of_the_2019_format_reach_their_functions),
        cmocka_unit_test(the_2021_format_is_replayed_with_its_own_durations),
        cmocka_unit_test(a_trace_that_cannot_be_read_says_where),
        cmocka_unit_test(on_spikes_waits_are_at_most_half_of_knatives_at_no_more_than_its_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
