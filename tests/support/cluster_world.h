/* A small world: the cluster under test, agents that do what they are told after a while, and a gateway that
 * remembers routes.  Time moves in steps of 50 ms; invariants are checked after each. */
#ifndef DV_TEST_CLUSTER_WORLD_H
#define DV_TEST_CLUSTER_WORLD_H

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

enum { NODES = 4, FNS = 4, AGENT_REPLICAS = 64, AGENT_POOLS = 16 };

struct held {
    uint64_t id, fn_uid, generation, ready_at;
    enum dv_replica_state state;
};

struct agent {
    uint64_t id;
    bool is_up;
    struct held held[AGENT_REPLICAS];
    size_t n;
    uint64_t start_ms;                 /* from the command to warm */
    enum dv_reason breaks;             /* every start ends like this */
    int64_t available_bytes;           /* 0: it does not say */
    int64_t replica_bytes;             /* what each replica says that it holds */
    bool is_deaf;                      /* commands are lost */
    struct dv_pool pools[AGENT_POOLS]; /* that it was told to keep; it has them at its next node report */
    size_t n_pools;
    int n_told;
    bool has_no_pools, fills_none; /* it says that it keeps none; it never has one ready */
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

static inline struct agent *agent_of(struct world *w, uint64_t id)
{
    for (size_t i = 0; i < w->n_agents; i++)
        if (w->agents[i].id == id)
            return &w->agents[i];
    return NULL;
}

static inline struct dv_function *fn_of(struct world *w, uint64_t uid)
{
    for (size_t i = 0; i < w->n_fns; i++)
        if (w->fns[i].uid == uid)
            return &w->fns[i];
    return NULL;
}

static inline void report(struct world *w, struct agent *a, const struct held *h, enum dv_reason reason)
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

static inline void report_full(struct world *w, struct agent *a)
{
    struct dv_replica_report r[AGENT_REPLICAS] = {0};
    for (size_t i = 0; i < a->n; i++)
        r[i] = (struct dv_replica_report){.id = a->held[i].id,
                                          .fn_uid = a->held[i].fn_uid,
                                          .generation = a->held[i].generation,
                                          .state = a->held[i].state,
                                          .memory_bytes = a->replica_bytes};
    assert_int_equal(dv_cluster_reports(w->c, a->id, r, a->n, true, w->now), DV_OK);
}

static inline void report_node(struct world *w, struct agent *a, bool engine_ok)
{
    struct dv_node_report r = {.node = a->id,
                               .engine_ok = engine_ok,
                               .cpus = 2,
                               .memory_bytes = 1024 * MI,
                               .memory_available_bytes = a->available_bytes,
                               .replicas_max = AGENT_REPLICAS,
                               .primed_max = a->has_no_pools ? -1 : 0,
                               .pools = a->pools,
                               .n_pools = a->has_no_pools || a->fills_none ? 0 : a->n_pools};
    assert_int_equal(dv_cluster_node_report(w->c, a->id, &r, w->now), DV_OK);
}

static inline void agent_start(struct world *w, struct agent *a, const struct dv_cluster_replica *r)
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

static inline void agent_stop(struct world *w, struct agent *a, uint64_t id)
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

static inline void agent_pools(struct world *w, const struct dv_cluster_node *n)
{
    struct agent *a = agent_of(w, n->id);
    assert_non_null(a);
    assert_true(dv_cluster_pools_max(n) <= AGENT_POOLS);
    a->n_pools = dv_cluster_pools(w->c, n, a->pools, AGENT_POOLS);
    a->n_told++;
}

static inline void act(struct world *w)
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
        case DV_ACT_POOLS:
            agent_pools(w, x.node);
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

static inline void sum(void *ctx, const struct dv_cluster_replica *r)
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

static inline void check(struct world *w)
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

static inline void agents_work(struct world *w)
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

static inline void feed_load(struct world *w)
{
    for (size_t i = 0; i < w->n_fns; i++) {
        if (w->waiting[i] + w->in_flight[i])
            w->active_ns[i] = w->now;
        struct dv_scale_sample s = {
            .waiting = w->waiting[i], .in_flight = w->in_flight[i], .last_activity_ns = w->active_ns[i]};
        dv_cluster_load(w->c, w->fns[i].uid, &s, w->now);
    }
}

static inline void pass(struct world *w, uint64_t ms)
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

static inline void connect_agent(struct world *w, size_t i)
{
    struct agent *a = &w->agents[i];
    a->is_up = true;
    dv_cluster_node_up(w->c, a->id, w->now);
    report_node(w, a, true);
    report_full(w, a);
    act(w);
}

static inline void cut_agent(struct world *w, size_t i)
{
    w->agents[i].is_up = false;
    dv_cluster_node_down(w->c, w->agents[i].id, w->now);
    act(w);
}

static inline void know_node(struct world *w, size_t i)
{
    struct dv_node_record rec = {.node = w->agents[i].id};
    assert_int_equal(dv_cluster_node_put(w->c, &rec, w->now), DV_OK);
}

static inline struct world *world_new(size_t n_agents)
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

static inline void world_free(struct world *w)
{
    dv_cluster_free(w->c);
    dv_free(w);
}

static inline uint64_t deploy(struct world *w, int64_t min, int64_t max)
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

static inline void demand(struct world *w, uint64_t uid, uint64_t waiting)
{
    size_t i = uid - 100;
    w->waiting[i] = waiting;
    feed_load(w);
    dv_cluster_demand(w->c, uid, w->now);
    act(w);
}

static inline void serve(struct world *w, uint64_t uid, uint64_t in_flight)
{
    w->waiting[uid - 100] = 0;
    w->in_flight[uid - 100] = in_flight;
}

static inline struct dv_cluster_tally tally(struct world *w, uint64_t uid)
{
    struct dv_cluster_tally t;
    dv_cluster_fn_tally(dv_cluster_fn_find(w->c, uid), &t);
    return t;
}

static inline size_t held_by(const struct world *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_agents; i++)
        n += w->agents[i].n;
    return n;
}

#endif
