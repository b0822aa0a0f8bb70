/* Baseline: one replica per concurrent request, kept ten minutes after its last use.  This is how Apache
 * OpenWhisk (stemCell pools aside) keeps containers, and what the study of the Azure Functions trace calls
 * the fixed keep-alive policy of providers (Shahrad et al., ATC 2020, section 2.4).
 *
 * In its favour: a waiting request takes whichever replica is free first, the one made for it or another, and
 * the decision to start takes no time. */
#include "tests/sim/sim.h"

#define KEPT_NS (600 * SIM_S)

static void routes(struct sim *s, struct sim_fn *f)
{
    struct sim_replica *set[4096];
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_fn);
        if (dv_life_is_ready(r->state) && !r->is_stopping && n < DV_COUNT(set))
            set[n++] = r;
    }
    sim_routes(s, f, set, n);
}

static void waits(struct sim *s, struct sim_fn *f)
{
    size_t starting = 0;
    DV_LIST_FOR_EACH (it, &f->replicas)
        starting += DV_LIST_ENTRY(it, struct sim_replica, of_fn)->state == DV_REPLICA_STARTING;
    size_t needed = (f->queue.n_waiting + (size_t)f->def.spec.scale.concurrency - 1) /
                    (size_t)f->def.spec.scale.concurrency;
    while (starting < needed && f->n_replicas < (size_t)f->def.spec.scale.max && sim_start_somewhere(s, f))
        starting++;
}

static void on_idle(struct sim *s, struct sim_event *e)
{
    struct sim_replica *r = sim_replica_find(s, e->a);
    if (!r)
        return;
    r->has_idle_event = false;
    if (r->in_flight)
        return;
    if (s->now >= r->used_ns + KEPT_NS) {
        sim_agent_stop(s, r);
        return;
    }
    r->has_idle_event = true;
    sim_at(s, r->used_ns + KEPT_NS, on_idle, NULL, r->id, 0);
}

static void idle(struct sim *s, struct sim_replica *r)
{
    if (r->has_idle_event)
        return;
    r->has_idle_event = true;
    sim_at(s, r->used_ns + KEPT_NS, on_idle, NULL, r->id, 0);
}

static void changed(struct sim *s, struct sim_replica *r, enum dv_reason why)
{
    (void)why;
    if (r->state == DV_REPLICA_FAILED) {
        sim_agent_stop(s, r);
        return;
    }
    if (r->state == DV_REPLICA_STARTING)
        return;
    struct sim_fn *f = r->fn;
    routes(s, f);
    if (f->queue.n_waiting && r->state == DV_REPLICA_GONE)
        waits(s, f);
}

static void nothing(struct sim *s)
{
    (void)s;
}

static void nothing_fn(struct sim *s, struct sim_fn *f)
{
    (void)s;
    (void)f;
}

static void nothing_node(struct sim *s, struct sim_node *n)
{
    (void)s;
    (void)n;
}

const struct sim_sys_ops sim_fixed = {.name = "fixed 10 min",
                                      .init = nothing,
                                      .fn_added = nothing_fn,
                                      .waits = waits,
                                      .idle = idle,
                                      .changed = changed,
                                      .link = nothing_node,
                                      .node = nothing_node,
                                      .deinit = nothing};
