/* What must hold, whatever went wrong.
 *
 * After every step:
 *   - no node is promised more than it has, by the core's count and by the agents' own (a node that came back
 * with what it held before excepted: that runs, and is taken over);
 *   - no function has more replicas than its maximum, of those that count;
 *   - no request waits while a slot of its function that can be reached is free.
 * At every start: somebody needs it.  The function has no more replicas than its minimum, or than what was
 * waiting or in flight in the last stable window takes, at most. When load and faults are over: each function
 * has its minimum, its replicas are seen by the core and known to their agents, and nothing else is left
 * anywhere. */
#include "tests/sim/sim.h"

#include "orchestrator/core/cluster_internal.h"
#include "proto/base/alloc.h"
#include "proto/wire/codec.h"

static const struct dv_cluster_fn *core_fn(struct sim *s, const struct sim_fn *f)
{
    return dv_cluster_fn_find(sim_davit_cluster(s), f->def.uid);
}

/* ---- after every step ---- */

static void check_nodes(struct sim *s)
{
    struct dv_cluster *c = sim_davit_cluster(s);
    for (size_t i = 0; i < s->cfg.n_nodes; i++) {
        const struct sim_node *n = &s->nodes[i];
        const struct dv_cluster_node *cn = dv_cluster_node_find(c, n->id);
        const struct dv_node_view *v = dv_cluster_view(c, cn);
        int64_t bytes = 0, mcpu = 0, replicas = 0;
        bool has_adopted = false;
        DV_LIST_FOR_EACH (it, &cn->replicas) {
            const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_node);
            bytes += r->is_promised ? r->promised_bytes : 0;
            mcpu += r->is_promised ? r->promised_mcpu : 0;
            replicas += r->is_promised;
            has_adopted |= r->is_adopted;
        }
        if (bytes != v->promised_bytes || mcpu != v->promised_mcpu || replicas != v->n_replicas)
            sim_violation(s, "node %zu: promises do not add up", i);
        if (has_adopted || !v->is_ready)
            continue;
        if (bytes > cn->memory_bytes || mcpu > v->cpu_mcpu || replicas > v->max_replicas)
            sim_violation(s, "node %zu is promised more than it has: %lld of %lld bytes, %lld of %lld mcpu",
                          i, (long long)bytes, (long long)cn->memory_bytes, (long long)mcpu,
                          (long long)v->cpu_mcpu);
        if (n->used_bytes > s->cfg.node_bytes || n->used_mcpu > s->cfg.node_mcpu)
            sim_violation(s, "node %zu holds more than it can: %lld of %lld bytes", i,
                          (long long)n->used_bytes, (long long)s->cfg.node_bytes);
    }
}

/* Of its generation, on nodes that have said what they hold since they came back, not ending. */
static int64_t live_of(const struct dv_cluster_fn *cf)
{
    int64_t n = 0;
    DV_LIST_FOR_EACH (it, &cf->replicas) {
        const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
        bool is_leaving =
            r->generation != cf->generation || !r->node || !r->node->is_learned || dv_cl_is_leaving(r);
        n += dv_life_is_live(r->state) && !is_leaving && !r->is_adopted;
    }
    return n;
}

static void check_waiting(struct sim *s)
{
    DV_LIST_FOR_EACH (it, &s->waiting) {
        struct sim_fn *f = DV_LIST_ENTRY(it, struct sim_fn, busy);
        DV_LIST_FOR_EACH (jt, &f->queue.replicas) {
            const struct dv_slots *slots = DV_LIST_ENTRY(jt, struct dv_slots, in_queue);
            if (slots->is_wanted && slots->is_reachable && slots->suspended_until_ns < s->now &&
                dv_live_replica_free_slots(slots->live) > 0)
                sim_violation(s, "%s: %zu requests wait while replica %016llx has a free slot", f->name,
                              f->queue.n_waiting, (unsigned long long)slots->live->id);
        }
    }
}

/* Ready, reachable and not to be stopped, yet nobody may use it: for longer than news can take. */
static void check_unused(struct sim *s, struct sim_fn *f)
{
    uint64_t patience = s->cfg.full_report_ns + SIM_S;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct sim_replica *r = DV_LIST_ENTRY(it, struct sim_replica, of_fn);
        const struct dv_cluster_replica *seen = dv_cluster_replica_find(sim_davit_cluster(s), r->id);
        if (seen && seen->state == DV_REPLICA_DRAINING)
            continue; /* the word is on its way */
        if (f->queue.n_waiting && dv_life_is_ready(r->state) && r->generation == f->def.generation &&
            !r->in_flight && r->node->link_up && s->now - r->ready_ns > patience &&
            s->now - r->node->up_at_ns > patience && s->now - f->queue.cell->oldest_since_ns > patience &&
            (!r->slots || !r->slots->is_wanted))
            sim_violation(s,
                          "%s: requests wait, and replica %016llx is ready and not known to the dispatcher",
                          f->name, (unsigned long long)r->id);
    }
}

void sim_check(struct sim *s)
{
    check_waiting(s);
    struct dv_cluster *c = sim_davit_cluster(s);
    if (!c)
        return;
    check_nodes(s);
    for (size_t i = 0; i < s->n_fns; i++) {
        struct sim_fn *f = s->fns[i];
        if (f->is_removed)
            continue;
        int64_t live = live_of(core_fn(s, f));
        if (live > f->def.spec.scale.max)
            sim_violation(s, "%s has %lld replicas, at most %lld are allowed", f->name, (long long)live,
                          (long long)f->def.spec.scale.max);
        if (f->queue.n_waiting)
            check_unused(s, f);
    }
}

/* ---- need ---- */

enum { PEAKS = DV_COUNT(((struct sim_fn *)NULL)->recent_peak) };

void sim_note_load(struct sim *s, struct sim_fn *f)
{
    uint64_t now_s = s->now / SIM_S, load = sim_load_of(f);
    for (; f->recent_s<now_s; f->recent_s = now_s - f->recent_s> PEAKS ? now_s - PEAKS : f->recent_s + 1)
        f->recent_peak[(f->recent_s + 1) % PEAKS] = 0;
    uint32_t *peak = &f->recent_peak[now_s % PEAKS];
    if (load > *peak)
        *peak = (uint32_t)load;
}

/* Replicas that leave, each with its successor: those were needed once, and their number stays. */
static int64_t replaced_by(const struct dv_cluster_fn *cf)
{
    int64_t live = 0, leaving = 0;
    DV_LIST_FOR_EACH (it, &cf->replicas) {
        const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
        live += dv_life_is_live(r->state);
        leaving += dv_life_is_ready(r->state) && dv_cl_is_leaving(r);
    }
    return leaving ? live : 0;
}

void sim_check_start(struct sim *s, struct sim_fn *f, uint64_t replica)
{
    const struct dv_cluster_replica *r = dv_cluster_replica_find(sim_davit_cluster(s), replica);
    if (r->was_reported || s->now - r->placed_ns > 0)
        return; /* the same start again: its command was lost */
    const struct dv_cluster_fn *cf = core_fn(s, f);
    const struct dv_scale_policy *p = cf->hot ? &cf->hot->policy : NULL;
    uint64_t window_s = p ? (p->stable_ns + p->down_ns) / SIM_S + 2 : PEAKS, most = 0;
    sim_note_load(s, f);
    for (uint64_t i = 0; i < window_s && i < PEAKS; i++) {
        uint32_t peak = f->recent_peak[(s->now / SIM_S - i) % PEAKS];
        most = peak > most ? peak : most;
    }
    int64_t target = f->def.spec.scale.target, needed = ((int64_t)most + target - 1) / target,
            live = live_of(cf);
    if (needed < f->def.spec.scale.min)
        needed = f->def.spec.scale.min;
    if (needed < 1 && dv_cl_keep_holds(cf))
        needed = 1; /* its next request is expected */
    if (live > needed && live > replaced_by(cf))
        sim_violation(
            s, "%s: replica %016llx is started for nobody: %lld live, %lld needed (at most %llu at once)",
            f->name, (unsigned long long)replica, (long long)live, (long long)needed,
            (unsigned long long)most);
}

/* ---- in the end ---- */

struct seen {
    struct sim *s;
    size_t n;
};

static void check_known(void *ctx, const struct dv_cluster_replica *r)
{
    struct seen *seen = ctx;
    const struct sim_replica *held = sim_replica_find(seen->s, r->id);
    if (r->state == DV_REPLICA_FAILED)
        return; /* its story is kept */
    seen->n++;
    if (!held || held->node->id != (r->node ? r->node->id : 0))
        sim_violation(seen->s, "replica %016llx is %s to the core, and not on its node",
                      (unsigned long long)r->id, dv_replica_state_name(r->state));
    else if (held->state != r->state)
        sim_violation(seen->s, "replica %016llx is %s to the core and %s to its agent",
                      (unsigned long long)r->id, dv_replica_state_name(r->state),
                      dv_replica_state_name(held->state));
}

void sim_check_settled(struct sim *s)
{
    struct seen seen = {.s = s};
    dv_cluster_each_replica(sim_davit_cluster(s), check_known, &seen);
    if (seen.n != s->replicas.n)
        sim_violation(s, "the core knows of %zu replicas, agents hold %zu", seen.n, s->replicas.n);
    for (size_t i = 0; i < s->n_fns; i++) {
        struct sim_fn *f = s->fns[i];
        if (f->is_removed)
            continue;
        struct dv_cluster_tally t;
        const struct dv_cluster_fn *cf = core_fn(s, f);
        dv_cluster_fn_tally(cf, &t);
        if (f->queue.n_waiting)
            sim_violation(s, "%s: %zu requests wait still", f->name, f->queue.n_waiting);
        bool is_ahead = f->def.spec.scale.min == 0 && t.ready == 1 && dv_cl_keep_holds(cf);
        if ((t.ready != f->def.spec.scale.min && !is_ahead) || t.starting || t.draining)
            sim_violation(s, "%s has %lld ready, %lld starting, %lld draining; its minimum is %lld (%s)",
                          f->name, (long long)t.ready, (long long)t.starting, (long long)t.draining,
                          (long long)f->def.spec.scale.min, dv_cluster_fn_reason(cf));
    }
}
