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
#define MI (1024 * 1024ll)

/* A small world: the cluster under test, agents that do what they are told after a while, and a gateway that
 * remembers routes.  Time moves in steps of 50 ms; invariants are checked after each. */

enum { NODES = 4, FNS = 4, AGENT_REPLICAS = 64 };

struct held {
    uint64_t id, fn_uid, generation, ready_at;
    enum dv_replica_state state;
};

struct agent {
    uint64_t id;
    bool is_up;
    struct held held[AGENT_REPLICAS];
    size_t n;
    uint64_t start_ms;     /* from the command to warm */
    enum dv_reason breaks; /* every start ends like this */
    bool is_deaf;          /* commands are lost */
};

struct world {
    struct dv_cluster *c;
    uint64_t now, full_at;
    struct agent agents[NODES];
    size_t n_agents;
    struct dv_function fns[FNS];
    size_t n_fns;
    uint64_t waiting[FNS], in_flight[FNS];
    uint64_t active_ns[FNS];
    int starts, stops, forgets, awakes;
    char log[16384];
};

static struct dv_cluster_cfg cfg_default = {.seed = 1};

__attribute__((format(printf, 2, 3))) static void note(struct world *w, const char *fmt, ...)
{
    size_t n = strlen(w->log);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(w->log + n, sizeof(w->log) - n, fmt, ap);
    va_end(ap);
}

static struct agent *agent_of(struct world *w, uint64_t id)
{
    for (size_t i = 0; i < w->n_agents; i++)
        if (w->agents[i].id == id)
            return &w->agents[i];
    return NULL;
}

static struct dv_function *fn_of(struct world *w, uint64_t uid)
{
    for (size_t i = 0; i < w->n_fns; i++)
        if (w->fns[i].uid == uid)
            return &w->fns[i];
    return NULL;
}

static void report(struct world *w, struct agent *a, const struct held *h, enum dv_reason reason)
{
    struct dv_replica_report r = {.id = h->id,
                                  .fn_uid = h->fn_uid,
                                  .generation = h->generation,
                                  .state = h->state,
                                  .reason = reason,
                                  .exit_code = 3,
                                  .message = (char *)"as the test has it"};
    if (a->is_up)
        assert_int_equal(dv_cluster_reports(w->c, a->id, &r, 1, false, w->now), DV_OK);
}

static void report_full(struct world *w, struct agent *a)
{
    struct dv_replica_report r[AGENT_REPLICAS] = {0};
    for (size_t i = 0; i < a->n; i++)
        r[i] = (struct dv_replica_report){.id = a->held[i].id,
                                          .fn_uid = a->held[i].fn_uid,
                                          .generation = a->held[i].generation,
                                          .state = a->held[i].state};
    assert_int_equal(dv_cluster_reports(w->c, a->id, r, a->n, true, w->now), DV_OK);
}

static void report_node(struct world *w, struct agent *a, bool engine_ok)
{
    struct dv_node_report r = {.node = a->id,
                               .engine_ok = engine_ok,
                               .cpus = 2,
                               .memory_bytes = 1024 * MI,
                               .replicas_max = AGENT_REPLICAS};
    assert_int_equal(dv_cluster_node_report(w->c, a->id, &r, w->now), DV_OK);
}

static void agent_start(struct world *w, struct agent *a, const struct dv_cluster_replica *r)
{
    w->starts++;
    if (!a || !a->is_up || a->is_deaf)
        return;
    for (size_t i = 0; i < a->n; i++)
        if (a->held[i].id == r->id)
            return;
    assert_true(a->n < AGENT_REPLICAS);
    a->held[a->n++] =
        (struct held){r->id, r->fn_uid, r->generation, w->now + a->start_ms * MS, DV_REPLICA_STARTING};
}

static void agent_stop(struct world *w, struct agent *a, uint64_t id)
{
    w->stops++;
    if (!a || !a->is_up || a->is_deaf)
        return;
    for (size_t i = 0; i < a->n; i++) {
        if (a->held[i].id != id)
            continue;
        struct held gone = a->held[i];
        a->held[i] = a->held[--a->n];
        gone.state = DV_REPLICA_GONE;
        report(w, a, &gone, DV_REASON_STOPPED);
        return;
    }
}

static void act(struct world *w)
{
    struct dv_action x;
    while (dv_cluster_next(w->c, &x)) {
        switch (x.kind) {
        case DV_ACT_START:
            agent_start(w, x.node ? agent_of(w, x.node->id) : NULL, x.replica);
            break;
        case DV_ACT_STOP:
            agent_stop(w, x.node ? agent_of(w, x.node->id) : NULL, x.replica_id);
            break;
        case DV_ACT_FORGET:
            w->forgets++;
            break;
        case DV_ACT_AWAKE:
            w->awakes++;
            fn_of(w, x.fn_uid)->desired_override = -1;
            break;
        case DV_ACT_FAILING:
            note(w, "failing(%s) ", x.fn->failing);
            break;
        case DV_ACT_EVENT:
            note(w, "%s ", x.event);
            break;
        case DV_ACT_ROUTES:
            break;
        }
    }
}

/* ---- what must hold ---- */

struct sums {
    struct world *w;
    int64_t live[FNS];
    int64_t promised[NODES];
};

static void sum(void *ctx, const struct dv_cluster_replica *r)
{
    struct sums *s = ctx;
    for (size_t i = 0; i < s->w->n_fns; i++)
        if (r->fn && r->fn->uid == s->w->fns[i].uid && r->generation == s->w->fns[i].generation && r->node &&
            r->node->is_connected && dv_life_is_live(r->state))
            s->live[i]++;
    for (size_t i = 0; i < s->w->n_agents; i++)
        if (r->node && r->node->id == s->w->agents[i].id)
            s->promised[i] += r->promised_bytes * r->is_promised;
}

static void check(struct world *w)
{
    struct sums s = {.w = w};
    dv_cluster_each_replica(w->c, sum, &s);
    for (size_t i = 0; i < w->n_agents; i++) {
        const struct dv_cluster_node *n = dv_cluster_node_find(w->c, w->agents[i].id);
        if (!n)
            continue;
        const struct dv_node_view *v = dv_cluster_view(w->c, n);
        assert_int_equal(v->promised_bytes, s.promised[i]);
        if (v->is_ready)
            assert_true(v->promised_bytes <= v->memory_bytes);
    }
    if (dv_cluster_learned(w->c))
        for (size_t i = 0; i < w->n_fns; i++)
            if (w->fns[i].uid)
                assert_true(s.live[i] <= w->fns[i].spec.scale.max);
}

/* ---- time ---- */

static void agents_work(struct world *w)
{
    for (size_t i = 0; i < w->n_agents; i++) {
        struct agent *a = &w->agents[i];
        for (size_t k = 0; k < a->n; k++) {
            struct held *h = &a->held[k];
            if (h->state != DV_REPLICA_STARTING || h->ready_at > w->now)
                continue;
            h->state = a->breaks ? DV_REPLICA_FAILED : DV_REPLICA_WARM;
            struct held copy = *h; /* a stop may come back at once */
            report(w, a, &copy, a->breaks);
            act(w);
        }
    }
}

static void feed_load(struct world *w)
{
    for (size_t i = 0; i < w->n_fns; i++) {
        if (w->waiting[i] + w->in_flight[i])
            w->active_ns[i] = w->now;
        struct dv_scale_sample s = {
            .waiting = w->waiting[i], .in_flight = w->in_flight[i], .last_activity_ns = w->active_ns[i]};
        dv_cluster_load(w->c, w->fns[i].uid, &s, w->now);
    }
}

static void pass(struct world *w, uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 50) {
        w->now += 50 * MS;
        agents_work(w);
        if (w->now >= w->full_at) {
            w->full_at = w->now + 5 * S;
            for (size_t i = 0; i < w->n_agents; i++)
                if (w->agents[i].is_up)
                    report_full(w, &w->agents[i]);
        }
        feed_load(w);
        dv_cluster_tick(w->c, w->now);
        act(w);
        check(w);
    }
}

/* ---- scenes ---- */

static void connect_agent(struct world *w, size_t i)
{
    struct agent *a = &w->agents[i];
    a->is_up = true;
    dv_cluster_node_up(w->c, a->id, w->now);
    report_node(w, a, true);
    report_full(w, a);
    act(w);
}

static void cut_agent(struct world *w, size_t i)
{
    w->agents[i].is_up = false;
    dv_cluster_node_down(w->c, w->agents[i].id, w->now);
    act(w);
}

static void know_node(struct world *w, size_t i)
{
    struct dv_node_record rec = {.node = w->agents[i].id};
    assert_int_equal(dv_cluster_node_put(w->c, &rec, w->now), DV_OK);
}

static struct world *world_new(size_t n_agents)
{
    struct world *w = dv_zalloc(sizeof(*w));
    w->now = 100 * S;
    w->full_at = w->now + 5 * S;
    w->n_agents = n_agents;
    assert_int_equal(dv_cluster_new(&cfg_default, w->now, &w->c), DV_OK);
    for (size_t i = 0; i < n_agents; i++) {
        w->agents[i] = (struct agent){.id = i + 1, .start_ms = 200};
        know_node(w, i);
    }
    for (size_t i = 0; i < n_agents; i++)
        connect_agent(w, i);
    return w;
}

static void world_free(struct world *w)
{
    dv_cluster_free(w->c);
    dv_free(w);
}

static uint64_t deploy(struct world *w, int64_t min, int64_t max)
{
    size_t i = w->n_fns++;
    w->fns[i] = (struct dv_function){
        .uid = 100 + i,
        .generation = 1,
        .desired_override = -1,
        .spec = {.name = (char *)"f",
                 .ns = (char *)"default",
                 .image = (char *)"img",
                 .requests = {.memory_bytes = 64 * MI, .cpu_mcpu = 50},
                 .scale = {.min = min, .max = max, .concurrency = 1, .target = 1, .idle_ms = 5000}}};
    assert_int_equal(dv_cluster_fn_put(w->c, &w->fns[i], w->now), DV_OK);
    act(w);
    return w->fns[i].uid;
}

static void demand(struct world *w, uint64_t uid, uint64_t waiting)
{
    size_t i = uid - 100;
    w->waiting[i] = waiting;
    feed_load(w);
    dv_cluster_demand(w->c, uid, w->now);
    act(w);
}

static void serve(struct world *w, uint64_t uid, uint64_t in_flight)
{
    w->waiting[uid - 100] = 0;
    w->in_flight[uid - 100] = in_flight;
}

static struct dv_cluster_tally tally(struct world *w, uint64_t uid)
{
    struct dv_cluster_tally t;
    dv_cluster_fn_tally(dv_cluster_fn_find(w->c, uid), &t);
    return t;
}

static size_t held_by(const struct world *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_agents; i++)
        n += w->agents[i].n;
    return n;
}

/* ---- tests ---- */

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
        cmocka_unit_test(nothing_starts_without_need),
        cmocka_unit_test(one_waiting_request_starts_one_replica_at_once_and_idleness_stops_it),
        cmocka_unit_test(a_burst_scales_to_the_maximum_on_both_nodes_and_back_to_nothing),
        cmocka_unit_test(a_minimum_is_kept_and_made_good),
        cmocka_unit_test(a_full_cluster_gets_what_fits_and_waiting_callers_are_told_when_nothing_does),
        cmocka_unit_test(a_deploy_starts_the_new_before_it_stops_the_old),
        cmocka_unit_test(a_deploy_in_a_full_cluster_makes_room_one_by_one),
        cmocka_unit_test(a_failing_function_tells_its_callers_at_once_and_backs_off),
        cmocka_unit_test(a_deploy_or_a_success_ends_the_trouble),
        cmocka_unit_test(one_failed_replica_beside_others_does_not_make_the_function_fail),
        cmocka_unit_test(a_lost_node_is_replaced_and_its_return_leaves_no_duplicate),
        cmocka_unit_test(a_link_that_breaks_for_a_moment_changes_nothing),
        cmocka_unit_test(a_lost_command_is_repeated),
        cmocka_unit_test(a_new_orchestrator_adopts_what_runs_and_stops_nothing_before_all_have_spoken),
        cmocka_unit_test(a_drained_node_is_emptied_without_losing_capacity),
        cmocka_unit_test(a_cordoned_node_keeps_what_it_has_and_gets_nothing_new),
        cmocka_unit_test(starts_on_a_node_whose_engine_died_move_elsewhere),
        cmocka_unit_test(a_removed_function_is_stopped_everywhere_and_late_reports_do_no_harm),
        cmocka_unit_test(a_function_that_says_nothing_of_idle_takes_the_clusters),
        cmocka_unit_test(a_number_that_was_set_is_made_at_once_and_taken_back_after_the_window),
        cmocka_unit_test(from_a_pin_to_the_same_number_nothing_is_stopped),
        cmocka_unit_test(a_function_put_to_sleep_wakes_for_a_request),
        cmocka_unit_test(with_no_node_callers_wait_five_seconds_and_a_joining_node_serves_them),
        cmocka_unit_test(an_idle_cluster_asks_for_rare_ticks_or_none),
        cmocka_unit_test(whatever_happens_wanted_and_seen_meet_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
