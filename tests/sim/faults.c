/* What goes wrong, by chance: links are cut, nodes die and come back empty, engines go away for a while,
 * starts take twenty times as long, replicas fail at the start or later (agents.c). */
#include "tests/sim/sim.h"

#include <math.h>

static uint64_t after(struct sim *s, double mean_s)
{
    return s->now + (uint64_t)(-log(1 - dv_rng_unit(&s->rng)) * mean_s * 1e9);
}

void sim_node_cut(struct sim *s, struct sim_node *n)
{
    if (!n->link_up)
        return;
    sim_trace(s, "the link to node %llu is cut", (unsigned long long)n->id);
    n->link_up = false;
    n->epoch++;
    sim_link_changed(s, n);
    s->sys->link(s, n);
}

void sim_node_mend(struct sim *s, struct sim_node *n)
{
    if (n->link_up)
        return;
    sim_trace(s, "the link to node %llu is open", (unsigned long long)n->id);
    n->link_up = n->is_alive = true;
    n->epoch++;
    n->up_at_ns = s->now;
    sim_link_changed(s, n);
    s->sys->link(s, n);
}

static void on_mend(struct sim *s, struct sim_event *e)
{
    sim_node_mend(s, e->ptr);
}

static void on_engine_back(struct sim *s, struct sim_event *e)
{
    struct sim_node *n = e->ptr;
    sim_trace(s, "the engine of node %llu is back", (unsigned long long)n->id);
    n->engine_ok = true;
    s->sys->node(s, n);
}

static void cut(struct sim *s, struct sim_node *n)
{
    sim_node_cut(s, n);
    sim_at(s, after(s, dv_rng_below(&s->rng, 2) ? 1 : 15), on_mend, n, 0, 0);
}

static void die(struct sim *s, struct sim_node *n)
{
    sim_node_cut(s, n);
    sim_trace(s, "node %llu dies", (unsigned long long)n->id);
    sim_agent_die(s, n);
    sim_at(s, after(s, 10), on_mend, n, 0, 0);
}

static void lose_engine(struct sim *s, struct sim_node *n)
{
    if (!n->engine_ok)
        return;
    sim_trace(s, "the engine of node %llu goes away", (unsigned long long)n->id);
    n->engine_ok = false;
    s->sys->node(s, n);
    sim_at(s, after(s, 8), on_engine_back, n, 0, 0);
}

/* ---- what people do ---- */

static void on_drain_over(struct sim *s, struct sim_event *e)
{
    struct sim_node *n = e->ptr;
    sim_trace(s, "node %llu is in use again", (unsigned long long)n->id);
    sim_davit_cordon(s, n, false);
}

static void drain(struct sim *s, struct sim_node *n)
{
    if (n->is_draining)
        return;
    sim_trace(s, "node %llu is drained", (unsigned long long)n->id);
    sim_davit_cordon(s, n, true);
    sim_at(s, after(s, 15), on_drain_over, n, 0, 0);
}

static void deploy(struct sim *s, struct sim_node *n)
{
    (void)n;
    struct sim_fn *f = s->fns[dv_rng_below(&s->rng, s->n_fns)];
    if (f->is_removed)
        return;
    if (dv_rng_below(&s->rng, 8) == 0) {
        sim_trace(s, "%s is removed", f->name);
        sim_davit_remove(s, f);
        return;
    }
    f->def.generation++;
    sim_trace(s, "%s is deployed anew", f->name);
    s->sys->fn_added(s, f);
}

static void restart(struct sim *s, struct sim_node *n)
{
    (void)n;
    sim_trace(s, "the orchestrator restarts");
    sim_davit_restart(s);
}

typedef void mishap(struct sim *s, struct sim_node *n);
static mishap *const mishaps[] = {cut, die, lose_engine, drain, deploy, restart};

static double rate_of(const struct sim *s, size_t i)
{
    const struct sim_faults *f = &s->faults;
    double n = (double)s->cfg.n_nodes;
    const double rates[] = {f->cut_s,        f->dies_s,        f->engine_s,
                            f->drains_s / n, f->deploys_s / n, f->restarts_s / n};
    _Static_assert(DV_COUNT(rates) == DV_COUNT(mishaps), "every mishap has its rate");
    return rates[i];
}

static void on_mishap(struct sim *s, struct sim_event *e)
{
    if (!s->faults_on)
        return;
    struct sim_node *n = &s->nodes[dv_rng_below(&s->rng, s->cfg.n_nodes)];
    if (n->link_up || e->a > 3) /* people do not ask */
        mishaps[e->a](s, n);
    sim_at(s, after(s, 1 / (rate_of(s, e->a) * (double)s->cfg.n_nodes)), on_mishap, NULL, e->a, 0);
}

void sim_faults_begin(struct sim *s)
{
    s->faults_on = true;
    for (size_t i = 0; i < DV_COUNT(mishaps); i++)
        if (rate_of(s, i) > 0)
            sim_at(s, after(s, 1 / (rate_of(s, i) * (double)s->cfg.n_nodes)), on_mishap, NULL, i, 0);
}
