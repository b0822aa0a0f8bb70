/* When replicas are frozen and thawed: against the engine in memory and a freezer of the test's own, which
 * remembers what it was told, and can be slow or fail. */
#include "agent/cgroup/cgroup.h"
#include "agent/engine/engine_fake.h"
#include "tests/support/sandbox_world.h"

#include <stdatomic.h>

static struct dv_engine_fake *g_fake;
static int g_listen, g_port;

static struct {
    bool is_frozen, never_confirms;
    int fail_freezes, fail_thaws; /* the next so many */
    int n_freezes, n_thaws;
    bool has_reclaim;
    _Atomic int n_reclaims;
    _Atomic int64_t left_bytes; /* that can be had */
    int64_t available_bytes;    /* of 1 GiB */
    uint64_t stops_at_thaw;     /* stops the engine had been asked for when it was thawed last */
} fz;

static bool fz_can(const struct dv_cgroup *g, const char *container)
{
    (void)g;
    return container[0];
}

static int fz_set(struct dv_cgroup *g, bool frozen, struct dv_err *err)
{
    int *fails = frozen ? &fz.fail_freezes : &fz.fail_thaws;
    (void)g;
    if (*fails) {
        (*fails)--;
        return dv_err_set(err, DV_E_IO, "the test says no");
    }
    fz.is_frozen = frozen;
    fz.n_freezes += frozen;
    fz.n_thaws += !frozen;
    if (!frozen && g_fake)
        fz.stops_at_thaw = dv_engine_fake_calls(g_fake, DV_FAKE_STOP);
    return DV_OK;
}

static int fz_is_frozen(struct dv_cgroup *g, bool *out, struct dv_err *err)
{
    (void)g;
    (void)err;
    *out = fz.is_frozen && !fz.never_confirms;
    return DV_OK;
}

static bool fz_can_reclaim(const struct dv_cgroup *g)
{
    (void)g;
    return fz.has_reclaim;
}

static int fz_reclaim(const char *dir, int64_t bytes, int64_t *out_bytes, struct dv_err *err)
{
    (void)dir;
    (void)err;
    int64_t left = atomic_load(&fz.left_bytes), got = bytes < left ? bytes : left;
    (void)usleep(20000); /* as a kernel that swaps */
    atomic_fetch_sub(&fz.left_bytes, got);
    atomic_fetch_add(&fz.n_reclaims, 1);
    *out_bytes = got;
    return got == bytes ? DV_OK : DV_NO_CAPACITY;
}

static int fz_memory(int64_t *out_total, int64_t *out_available, struct dv_err *err)
{
    (void)err;
    *out_total = (int64_t)1 << 30;
    *out_available = fz.available_bytes;
    return DV_OK;
}

static const struct dv_freezer freezer = {.can = fz_can,
                                          .set = fz_set,
                                          .is_frozen = fz_is_frozen,
                                          .can_reclaim = fz_can_reclaim,
                                          .reclaim = fz_reclaim,
                                          .memory = fz_memory};

/* ---- the world ---- */

static void on_start(void *ctx, struct dv_engine_fake_started *s)
{
    (void)ctx;
    s->pid = getpid(); /* a process that has control groups; the freezer above leaves them alone */
    (void)dv_copy(s->address, sizeof(s->address), "127.0.0.1");
}

static void open_engine(void)
{
    assert_int_equal(dv_engine_fake_open(sw.loop, &g_fake), DV_OK);
    sw.engine = dv_engine_fake_engine(g_fake);
    dv_engine_fake_on_start(g_fake, on_start, NULL);
    dv_engine_fake_add_image(g_fake, "hello:1", NULL, true);
}

static int setup(void **state)
{
    (void)state;
    memset(&fz, 0, sizeof(fz));
    assert_int_equal(dv_cgroup_setup(NULL), DV_OK);
    sw_open();
    sw.freezer = &freezer;
    sw.reclaim_percent = 10;
    fz.available_bytes = (int64_t)1 << 30;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &g_listen, NULL), DV_OK);
    g_port = dv_socket_port(g_listen);
    open_engine();
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sw.engine->ops->close(sw.engine);
    g_fake = NULL;
    sw_close();
    (void)close(g_listen);
    return 0;
}

static void start(const char *more)
{
    char json[512];
    (void)snprintf(json, sizeof(json), "{\"name\":\"hello\",\"image\":\"hello:1\",\"port\":%d%s}", g_port,
                   more);
    sw_start(1, 7, json);
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
}

#define FREEZE(time) ",\"scale\":{\"freeze\":\"" time "\"}"

static void turns(uint64_t ms)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + ms * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < until)
        sw_turn();
}

static bool metric_is_now(const char *line)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    dv_sandbox_metrics(sw.sb, &text);
    return strstr(dv_buf_cstr(&text), line) != NULL;
}

static bool metric_is(const char *line)
{
    bool is_there = metric_is_now(line);
    if (!is_there)
        print_message("not there: %s\n", line);
    return is_there;
}

/* ---- tests ---- */

static void an_idle_replica_is_frozen_after_its_time_and_reported_so(void **state)
{
    (void)state;
    start(FREEZE("60ms"));
    uint64_t begin = dv_clock_now_ns(&dv_clock_system);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    assert_true(dv_clock_now_ns(&dv_clock_system) - begin >= 50 * DV_MS);
    assert_int_equal(fz.n_freezes, 1);
    assert_true(metric_is("davit_agent_freezes_total 1\n"));
    assert_true(metric_is("davit_agent_replicas{state=\"frozen\"} 1\n"));
}

static void a_request_thaws_it_and_later_it_is_frozen_again(void **state)
{
    (void)state;
    start(FREEZE("20ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    dv_sandbox_on_wake(sw.sb, 1, dv_clock_now_ns(&dv_clock_system));
    assert_false(fz.is_frozen);
    sw_take(false);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
    assert_true(metric_is("davit_agent_thaws_total 1\n"));
    assert_true(metric_is("davit_agent_thaw_seconds_count 1\n"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    assert_int_equal(fz.n_freezes, 2);
}

static void one_that_always_has_a_processor_is_never_frozen(void **state)
{
    (void)state;
    start(FREEZE("10ms") ",\"cpu\":\"always\"");
    turns(60);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
    assert_int_equal(fz.n_freezes, 0);
}

static void a_frozen_one_is_thawed_before_it_is_asked_to_end(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    sw_stop(1, false);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    assert_false(fz.is_frozen);
    assert_int_equal(fz.stops_at_thaw, 0);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_STOP), 1);
}

static void a_frozen_one_that_dies_is_told_as_any_other(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    dv_engine_fake_exit(g_fake, sw_get(1)->container, 3, false);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.exit_code, 3);
}

static void a_freeze_that_the_kernel_does_not_finish_is_undone(void **state)
{
    (void)state;
    fz.never_confirms = true;
    start(FREEZE("10ms"));
    SW_UNTIL(fz.n_freezes == 1 && fz.n_thaws == 1);
    sw_take(false);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
    assert_true(metric_is("davit_agent_freeze_failures_total{what=\"freeze\"} 1\n"));
    assert_int_equal(dv_carry_replica_sleep(sw.carry, 1), DV_OK); /* requests had been let in again */
    dv_carry_replica_wake(sw.carry, 1);
    fz.never_confirms = false;
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN); /* tried again */
}

static void a_request_does_not_wait_for_a_freeze_to_finish(void **state)
{
    (void)state;
    fz.never_confirms = true;
    start(FREEZE("10ms"));
    SW_UNTIL(fz.n_freezes == 1);
    dv_sandbox_on_wake(sw.sb, 1, dv_clock_now_ns(&dv_clock_system));
    assert_int_equal(fz.n_thaws, 1);
    assert_true(metric_is("davit_agent_freeze_failures_total{what=\"freeze\"} 0\n"));
}

static void a_freezer_that_refuses_leaves_it_warm(void **state)
{
    (void)state;
    fz.fail_freezes = 1000; /* however often it is tried on a slow machine */
    fz.fail_thaws = 1000;
    start(FREEZE("10ms"));
    SW_UNTIL(fz.fail_freezes < 1000);
    turns(5);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
    assert_int_equal(fz.fail_thaws, 1000); /* nothing was frozen: nothing is thawed */
    fz.fail_thaws = 0;
    fz.fail_freezes = 0;
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN); /* tried again */
}

static void a_thaw_that_fails_is_tried_again(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    fz.fail_thaws = 3;
    dv_sandbox_on_wake(sw.sb, 1, dv_clock_now_ns(&dv_clock_system));
    assert_true(fz.is_frozen);
    SW_UNTIL(!fz.is_frozen);
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
    assert_true(metric_is("davit_agent_freeze_failures_total{what=\"thaw\"} 3\n"));
}

static void one_that_cannot_be_thawed_at_all_is_replaced(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    fz.fail_thaws = 1000;
    dv_sandbox_on_wake(sw.sb, 1, dv_clock_now_ns(&dv_clock_system));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_non_null(strstr(sw_get(1)->message, "cannot be thawed"));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
}

static void on_killed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)err;
    assert_int_equal(code, DV_OK);
}

static void a_signal_sent_through_the_engine_thaws_it_and_it_is_left_alone(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    sw.engine->ops->kill(sw.engine, sw_get(1)->container, "HUP", on_killed, NULL);
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
    assert_false(fz.is_frozen);
    turns(50);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
}

static void trouble_with_its_connections_thaws_it_for_the_probe(void **state)
{
    (void)state;
    start(FREEZE("30ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    dv_sandbox_on_trouble(sw.sb, 1, DV_RESET_CONNECT);
    assert_false(fz.is_frozen);
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
}

static void an_agent_that_stops_leaves_nothing_frozen(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    dv_sandbox_free(sw.sb);
    assert_false(fz.is_frozen);
    sw.sb = NULL;
    sw.n_seen = 0;
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
}

/* As after kill -9: the group is frozen, and only the files of the agent before tell of the replica. */
static void reopen_frozen(void)
{
    dv_sandbox_free(sw.sb);
    dv_carry_replica_remove(sw.carry, 1, DV_RESET_EXITED);
    fz.is_frozen = true;
    fz.n_thaws = 0;
    sw.sb = NULL;
    sw.n_seen = 0;
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
}

static void a_frozen_one_is_taken_over_frozen_by_the_next_agent(void **state)
{
    (void)state;
    start(FREEZE("10ms"));
    reopen_frozen();
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    assert_int_equal(fz.n_thaws, 0);
    dv_sandbox_on_wake(sw.sb, 1, dv_clock_now_ns(&dv_clock_system));
    assert_false(fz.is_frozen);
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
}

static void a_half_frozen_one_is_thawed_and_probed_by_the_next_agent(void **state)
{
    (void)state;
    start(FREEZE("1s"));
    fz.never_confirms = true;
    reopen_frozen();
    SW_UNTIL(sw_state(1) == DV_REPLICA_WARM);
    assert_int_equal(fz.n_thaws, 1);
}

static void a_short_node_takes_memory_from_frozen_replicas_until_they_have_no_more(void **state)
{
    (void)state;
    fz.has_reclaim = true;
    fz.left_bytes = (int64_t)3 << 19; /* 1.5 MiB: less than the test's own process has */
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    turns(1100);
    assert_int_equal(fz.n_reclaims, 0); /* there is enough */
    fz.available_bytes = 1 << 20;
    SW_UNTIL(fz.n_reclaims > 0);
    SW_UNTIL(metric_is_now("davit_agent_reclaims_total 1\n"));
    assert_true(metric_is("davit_agent_reclaimed_bytes_total 1572864\n"));
    turns(1200);
    assert_int_equal(fz.n_reclaims, 1); /* it gave less than was asked for: it is left alone */
    assert_int_equal(sw_state(1), DV_REPLICA_FROZEN);
}

static void a_replica_may_go_while_memory_is_taken_from_it(void **state)
{
    (void)state;
    fz.has_reclaim = true;
    fz.left_bytes = 1 << 20;
    start(FREEZE("10ms"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FROZEN);
    fz.available_bytes = 1 << 20;
    SW_UNTIL(atomic_load(&fz.n_reclaims) > 0);
    sw_stop(1, true);
    SW_UNTIL(sw_get(1)->n_gone == 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_idle_replica_is_frozen_after_its_time_and_reported_so),
        T(a_request_thaws_it_and_later_it_is_frozen_again),
        T(one_that_always_has_a_processor_is_never_frozen),
        T(a_frozen_one_is_thawed_before_it_is_asked_to_end),
        T(a_frozen_one_that_dies_is_told_as_any_other),
        T(a_freeze_that_the_kernel_does_not_finish_is_undone),
        T(a_request_does_not_wait_for_a_freeze_to_finish),
        T(a_freezer_that_refuses_leaves_it_warm),
        T(a_thaw_that_fails_is_tried_again),
        T(one_that_cannot_be_thawed_at_all_is_replaced),
        T(a_signal_sent_through_the_engine_thaws_it_and_it_is_left_alone),
        T(trouble_with_its_connections_thaws_it_for_the_probe),
        T(an_agent_that_stops_leaves_nothing_frozen),
        T(a_frozen_one_is_taken_over_frozen_by_the_next_agent),
        T(a_half_frozen_one_is_thawed_and_probed_by_the_next_agent),
        T(a_short_node_takes_memory_from_frozen_replicas_until_they_have_no_more),
        T(a_replica_may_go_while_memory_is_taken_from_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
