/* Fake agents: a node's engine makes containers, a few at once, each slowed by the others; primed sandboxes
 * are opened beside it.  Times are sim_cfg's, give or take 15 %.
 *
 * A start takes a primed sandbox of its image when one is ready, else it queues for the engine, with a ready
 * network where the node has one left.  Sandboxes are made when no start waits, and never take the engine's
 * last place. */
#include "tests/sim/sim.h"

#include <math.h>
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"

struct sim_replica *sim_replica_find(struct sim *s, uint64_t id)
{
    return dv_idmap_find(&s->replicas, id);
}

void sim_agents_init(struct sim *s)
{
    s->nodes = dv_zalloc_n(s->cfg.n_nodes, sizeof(*s->nodes));
    if (!s->nodes)
        abort();
    for (size_t i = 0; i < s->cfg.n_nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        n->id = i + 1;
        n->index = i;
        n->link_up = n->engine_ok = n->is_alive = true;
        n->slow = 1;
        dv_list_init(&n->replicas);
        dv_list_init(&n->starts);
    }
}

void sim_charge_primed(struct sim *s)
{
    s->stats.primed_s += (double)s->n_primed * (double)(s->now - s->primed_at_ns) / 1e9;
    s->primed_at_ns = s->now;
}

static void count_primed(struct sim *s, int64_t more)
{
    sim_charge_primed(s);
    s->n_primed += more;
}

/* ---- the engine ---- */

static uint64_t takes(struct sim *s, const struct sim_node *n, double ms)
{
    double crowd = n->n_starting > 1 ? 1 + s->cfg.crowding * (n->n_starting - 1) : 1;
    return (uint64_t)(ms * crowd * n->slow * (0.85 + 0.3 * dv_rng_unit(&s->start_rng)) * 1e6);
}

static void kick(struct sim *s, struct sim_node *n);

static void on_crash(struct sim *s, struct sim_event *e)
{
    struct sim_replica *r = sim_replica_find(s, e->a);
    if (r && s->faults_on && dv_life_is_ready(r->state))
        sim_agent_fail(s, r, DV_REASON_OOM);
}

static void on_ready(struct sim *s, struct sim_event *e)
{
    struct sim_replica *r = sim_replica_find(s, e->a);
    if (!r || r->state != DV_REPLICA_STARTING)
        return;
    struct sim_node *n = r->node;
    if (r->is_made) {
        r->is_made = false;
        n->n_starting--;
    }
    double p = s->faults_on ? s->faults.start_fails : 0;
    if (p > 0 && dv_rng_unit(&s->start_rng) < p) {
        sim_agent_fail(s, r, DV_REASON_EXITED);
    } else {
        r->state = DV_REPLICA_WARM;
        r->ready_ns = r->used_ns = s->now;
        if (s->faults.crashes_s > 0) {
            double life_s = -log(1 - dv_rng_unit(&s->start_rng)) / s->faults.crashes_s;
            sim_at(s, s->now + (uint64_t)(life_s * 1e9), on_crash, NULL, r->id, 0);
        }
        s->sys->changed(s, r, DV_REASON_NONE);
        if ((r = sim_replica_find(s, e->a)) && !r->in_flight)
            sim_agent_idle(s, r);
    }
    kick(s, n);
}

static void make(struct sim *s, struct sim_node *n, struct sim_replica *r)
{
    n->n_starting++;
    r->is_made = true;
    r->has_net = n->n_nets_used < s->cfg.nets_per_node;
    n->n_nets_used += r->has_net;
    s->stats.containers++;
    uint64_t ns =
        takes(s, n, (r->has_net ? s->cfg.net_ms : s->cfg.cold_ms)) + (uint64_t)(s->cfg.own_start_ms * 1e6);
    if (s->faults_on && dv_rng_unit(&s->start_rng) < s->faults.slow_starts)
        ns *= 20;
    sim_at(s, s->now + ns, on_ready, NULL, r->id, 0);
}

static void on_primed(struct sim *s, struct sim_event *e)
{
    struct sim_node *n = e->ptr;
    if (n->life != e->b)
        return;
    n->n_starting--;
    n->pools[e->a].making--;
    n->pools[e->a].ready++;
    s->sys->node(s, n);
    kick(s, n);
}

static void refill(struct sim *s, struct sim_node *n)
{
    for (size_t i = 0; i < SIM_IMAGES_MAX && n->n_starting + 1 < s->cfg.starts_at_once; i++) {
        struct sim_pool *p = &n->pools[i];
        if (p->ready + p->making >= p->wanted)
            continue;
        n->n_starting++;
        p->making++;
        count_primed(s, 1);
        s->stats.primed++;
        sim_at(s, s->now + takes(s, n, s->cfg.net_ms), on_primed, n, i, n->life);
        i--; /* the same once more */
    }
}

static void kick(struct sim *s, struct sim_node *n)
{
    while (n->is_alive && n->n_starting < s->cfg.starts_at_once) {
        struct dv_list *it = dv_list_pop_front(&n->starts);
        if (!it)
            break;
        struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, queued);
        if (n->engine_ok)
            make(s, n, r);
        else
            sim_agent_fail(s, r, DV_REASON_ENGINE_DOWN);
    }
    if (n->is_alive && n->engine_ok && dv_list_empty(&n->starts))
        refill(s, n);
}

void sim_agent_pools(struct sim *s, struct sim_node *n)
{
    for (size_t i = 0; i < SIM_IMAGES_MAX; i++) {
        struct sim_pool *p = &n->pools[i];
        if (p->ready > 0 && p->ready + p->making > p->wanted) {
            int64_t over = p->ready + p->making - p->wanted;
            over = over > p->ready ? p->ready : over;
            p->ready -= over;
            count_primed(s, -over);
        }
    }
    kick(s, n);
}

/* ---- commands ---- */

static void open_primed(struct sim *s, struct sim_replica *r)
{
    r->node->pools[r->fn->image_no].ready--;
    count_primed(s, -1);
    s->stats.opened++;
    r->tier = SIM_PRIMED;
    double ms = s->cfg.primed_ms * (0.85 + 0.3 * dv_rng_unit(&s->start_rng)) + s->cfg.own_start_ms;
    sim_at(s, s->now + (uint64_t)(ms * 1e6), on_ready, NULL, r->id, 0);
    s->sys->node(s, r->node);
}

void sim_agent_start(struct sim *s, struct sim_node *n, struct sim_fn *f, uint64_t id, uint64_t generation)
{
    struct sim_replica *r = sim_replica_find(s, id);
    if (r) {
        s->sys->changed(s, r, DV_REASON_NONE);
        return;
    }
    r = dv_zalloc(sizeof(*r));
    struct dv_requests q = dv_fn_requests(&f->def.spec);
    struct dv_route_replica route = {id, n->id, (uint32_t)f->def.spec.scale.concurrency};
    if (!r || dv_live_replica_new(&route, &r->live) || dv_idmap_put(&s->replicas, id, r))
        abort();
    r->id = id;
    r->generation = generation;
    r->fn = f;
    r->node = n;
    r->state = DV_REPLICA_STARTING;
    r->made_ns = s->now;
    r->bytes = q.memory_bytes;
    r->mcpu = q.cpu_mcpu;
    dv_list_init(&r->inside);
    dv_list_init(&r->queued);
    dv_list_push_back(&f->replicas, &r->of_fn);
    dv_list_push_back(&n->replicas, &r->of_node);
    f->n_replicas++;
    n->n_replicas++;
    n->used_bytes += r->bytes;
    n->used_mcpu += r->mcpu;
    if (s->cfg.has_pools && n->pools[f->image_no].ready > 0)
        open_primed(s, r);
    else
        dv_list_push_back(&n->starts, &r->queued);
    kick(s, n);
}

/* What it holds is given back; what is left is its name. */
static void release(struct sim *s, struct sim_replica *r)
{
    double t = (double)(s->now - r->made_ns) / 1e9;
    s->stats.replica_s += r->bytes ? t : 0;
    s->stats.replica_gb_s += t * (double)r->bytes / 1e9;
    r->node->used_bytes -= r->bytes;
    r->node->used_mcpu -= r->mcpu;
    r->node->n_nets_used -= r->has_net;
    r->node->n_starting -= r->is_made;
    r->bytes = r->mcpu = 0;
    r->has_net = r->is_made = false;
    dv_list_remove(&r->queued);
}

void sim_agent_gone(struct sim *s, struct sim_replica *r)
{
    sim_lose_requests(s, r);
    release(s, r);
    if (r->slots)
        r->slots = NULL;
    dv_list_remove(&r->of_fn);
    dv_list_remove(&r->of_node);
    r->fn->n_replicas--;
    r->node->n_replicas--;
    r->state = DV_REPLICA_GONE;
    (void)dv_idmap_remove(&s->replicas, r->id);
    s->sys->changed(s, r, DV_REASON_STOPPED);
    struct sim_node *n = r->node;
    struct sim_fn *f = r->fn;
    dv_live_replica_unref(r->live);
    dv_free(r);
    sim_pump(s, f);
    kick(s, n);
}

void sim_agent_stop(struct sim *s, struct sim_replica *r)
{
    if (r->state == DV_REPLICA_FAILED || !r->in_flight) {
        sim_agent_gone(s, r);
        return;
    }
    if (r->is_stopping)
        return;
    r->is_stopping = true;
    r->state = DV_REPLICA_DRAINING;
    s->sys->changed(s, r, DV_REASON_NONE);
}

void sim_agent_fail(struct sim *s, struct sim_replica *r, enum dv_reason why)
{
    sim_trace(s, "node %llu: replica %016llx of %s fails: %s", (unsigned long long)r->node->id,
              (unsigned long long)r->id, r->fn->name, dv_reason_name(why));
    struct sim_fn *f = r->fn;
    sim_lose_requests(s, r);
    release(s, r);
    if (r->is_stopping) {
        sim_agent_gone(s, r);
        return;
    }
    r->state = DV_REPLICA_FAILED;
    s->sys->changed(s, r, why);
    sim_pump(s, f); /* who was behind those inside learns that it is gone */
}

/* ---- freezing ---- */

static void on_freeze(struct sim *s, struct sim_event *e)
{
    struct sim_replica *r = sim_replica_find(s, e->a);
    if (!r)
        return;
    r->has_freeze_event = false;
    uint64_t at = r->used_ns + (uint64_t)r->fn->def.spec.scale.freeze_ms * SIM_MS;
    if (r->in_flight || r->state != DV_REPLICA_WARM)
        return;
    if (at > s->now) {
        r->has_freeze_event = true;
        sim_at(s, at, on_freeze, NULL, r->id, 0);
        return;
    }
    r->state = DV_REPLICA_FROZEN;
    s->sys->changed(s, r, DV_REASON_NONE);
}

void sim_agent_used(struct sim *s, struct sim_replica *r)
{
    r->state = DV_REPLICA_WARM;
    s->sys->changed(s, r, DV_REASON_NONE);
}

void sim_agent_idle(struct sim *s, struct sim_replica *r)
{
    if (r->is_stopping) {
        sim_agent_gone(s, r);
        return;
    }
    int64_t freeze_ms = r->fn->def.spec.scale.freeze_ms;
    if (s->sys == &sim_davit && freeze_ms > 0 && !r->has_freeze_event && r->state == DV_REPLICA_WARM &&
        r->fn->def.spec.cpu != DV_CPU_ALWAYS) {
        r->has_freeze_event = true;
        sim_at(s, s->now + (uint64_t)freeze_ms * SIM_MS, on_freeze, NULL, r->id, 0);
    }
    s->sys->idle(s, r);
}

/* ---- the machine ---- */

void sim_agent_die(struct sim *s, struct sim_node *n)
{
    n->life++;
    n->is_alive = false;
    while (!dv_list_empty(&n->replicas))
        sim_agent_gone(s, DV_LIST_ENTRY(n->replicas.next, struct sim_replica, of_node));
    n->n_starting = 0;
    for (size_t i = 0; i < SIM_IMAGES_MAX; i++) {
        count_primed(s, -(n->pools[i].ready + n->pools[i].making));
        n->pools[i] = (struct sim_pool){0};
    }
}

bool sim_start_somewhere(struct sim *s, struct sim_fn *f)
{
    struct dv_requests q = dv_fn_requests(&f->def.spec);
    struct sim_node *best = NULL;
    for (size_t i = 0; i < s->cfg.n_nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        if (n->used_bytes + q.memory_bytes <= s->cfg.node_bytes &&
            n->used_mcpu + q.cpu_mcpu <= s->cfg.node_mcpu && (!best || n->n_replicas < best->n_replicas))
            best = n;
    }
    if (best)
        sim_agent_start(s, best, f, s->next_id++, f->def.generation);
    return best != NULL;
}
