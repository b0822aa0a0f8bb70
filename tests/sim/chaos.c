#include "tests/sim/chaos.h"

#include <math.h>

static double between(struct dv_rng *rng, double least, double most)
{
    return least * exp(dv_rng_unit(rng) * log(most / least));
}

static struct sim_cfg draw_cfg(struct dv_rng *rng, uint64_t seed)
{
    struct sim_cfg cfg;
    sim_cfg_default(&cfg);
    cfg.seed = seed;
    cfg.is_checked = true;
    cfg.n_nodes = 1 + (size_t)dv_rng_below(rng, 5);
    cfg.node_bytes = (512 + (int64_t)dv_rng_below(rng, 2048)) * SIM_MI;
    cfg.node_mcpu = 1000 * (1 + (int64_t)dv_rng_below(rng, 4));
    cfg.node_replicas = 4 + (int64_t)dv_rng_below(rng, 60);
    cfg.nets_per_node = (int)dv_rng_below(rng, 8);
    cfg.starts_at_once = 2 + (int)dv_rng_below(rng, 4);
    cfg.has_pools = dv_rng_below(rng, 4) > 0;
    cfg.idle_ms = (int64_t)between(rng, 1000, 20000);
    cfg.own_start_ms = dv_rng_below(rng, 3) ? 0 : between(rng, 1, 2000);
    cfg.link_ns = (uint64_t)(between(rng, 0.05, 50) * 1e6);
    return cfg;
}

static struct sim_faults draw_faults(struct dv_rng *rng)
{
    struct sim_faults f = {0};
    if (dv_rng_below(rng, 8) == 0)
        return f;
    double *const all[] = {&f.start_fails, &f.crashes_s, &f.slow_starts, &f.cut_s,     &f.dies_s,
                           &f.engine_s,    &f.drains_s,  &f.deploys_s,   &f.restarts_s};
    static const double least[] = {.01, .001, .01, .005, .002, .005, .005, .005, .002},
                        most[] = {.3, .1, .3, .1, .05, .05, .05, .2, .05};
    for (size_t i = 0; i < DV_COUNT(all); i++)
        if (dv_rng_below(rng, 2))
            *all[i] = between(rng, least[i], most[i]);
    return f;
}

static void draw_fn(struct sim *s, struct dv_rng *rng, size_t i, struct dv_requests *left,
                    int64_t *replicas_left)
{
    char name[32];
    (void)snprintf(name, sizeof(name), "f%zu", i);
    struct sim_fn *f = sim_fn_add(s, name, "");
    f->image_no = (int)dv_rng_below(rng, 3);
    (void)snprintf(f->image, sizeof(f->image), "runtime-%d", f->image_no);
    struct dv_scale *sc = &f->def.spec.scale;
    struct dv_requests *q = &f->def.spec.requests;
    q->memory_bytes = (int64_t)(between(rng, 16, 256)) * SIM_MI;
    q->cpu_mcpu = 10 + (int64_t)dv_rng_below(rng, 200);
    sc->max = 1 + (int64_t)dv_rng_below(rng, 16);
    sc->min =
        dv_rng_below(rng, 3) ? 0 : (int64_t)dv_rng_below(rng, (uint64_t)(sc->max < 3 ? sc->max : 3) + 1);
    if (sc->min * q->memory_bytes > left->memory_bytes || sc->min * q->cpu_mcpu > left->cpu_mcpu ||
        sc->min > *replicas_left)
        sc->min = 0; /* all minima must fit on one node, or nothing can settle */
    left->memory_bytes -= sc->min * q->memory_bytes;
    left->cpu_mcpu -= sc->min * q->cpu_mcpu;
    *replicas_left -= sc->min;
    sc->concurrency = dv_rng_below(rng, 2) ? 1 : 1 + (int64_t)dv_rng_below(rng, 20);
    sc->target = 1 + (int64_t)dv_rng_below(rng, (uint64_t)sc->concurrency);
    sc->idle_ms = dv_rng_below(rng, 2) ? (int64_t)between(rng, 1000, 20000) : 0; /* 0: as it learns */
    sc->freeze_ms = (int64_t)between(rng, 100, 5000);
    sc->primed = dv_rng_below(rng, 3) ? 0 : (int64_t)dv_rng_below(rng, 6);
    f->mean_s = between(rng, 0.005, 3);
    f->spread = 0.5;
    f->arrivals.rate_s = between(rng, 0.02, 1.5 * (double)sc->max) / f->mean_s;
    if (dv_rng_below(rng, 2)) {
        f->arrivals.on_s = between(rng, 0.1, 20);
        f->arrivals.off_s = between(rng, 1, 40);
    }
    if (f->arrivals.rate_s > 50)
        f->arrivals.rate_s = 50;
    sim_fn_begin(s, f);
}

static void end_faults(struct sim *s)
{
    s->faults_on = s->load_on = false;
    for (size_t i = 0; i < s->cfg.n_nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        sim_node_mend(s, n);
        if (n->is_draining)
            sim_davit_cordon(s, n, false);
        if (!n->engine_ok) {
            n->engine_ok = true;
            s->sys->node(s, n);
        }
    }
    sim_trace(s, "no more faults, and no more load");
}

void sim_chaos(uint64_t seed, double seconds, bool is_lenient, struct sim_chaos_result *out)
{
    struct dv_rng rng;
    dv_rng_init(&rng, seed * 2654435761u + 1);
    struct sim_cfg cfg = draw_cfg(&rng, seed);
    struct sim *s = sim_new(&cfg, &sim_davit);
    s->is_lenient = is_lenient;
    s->faults = draw_faults(&rng);
    struct dv_requests left = {cfg.node_bytes / 2, cfg.node_mcpu / 2};
    int64_t replicas_left = cfg.node_replicas / 2;
    size_t n_fns = 1 + (size_t)dv_rng_below(&rng, 10);
    for (size_t i = 0; i < n_fns; i++)
        draw_fn(s, &rng, i, &left, &replicas_left);
    sim_faults_begin(s);
    sim_run(s, s->now + (uint64_t)(seconds * 1e9));
    end_faults(s);
    for (int i = 0; i < 200 && !dv_list_empty(&s->waiting);
         i++) /* an overloaded function has an hour's work left */
        sim_run(s, s->now + 30 * SIM_S);
    sim_run(s, s->now + 400 * SIM_S); /* the longest back-off, a window, idleness */
    sim_check_settled(s);
    sim_settle(s);
    *out = (struct sim_chaos_result){.steps = s->steps,
                                     .requests = s->stats.arrived,
                                     .lost = s->stats.lost,
                                     .refused = s->stats.refused,
                                     .starts = s->stats.containers + s->stats.opened,
                                     .violations = (uint64_t)s->n_violations};
    (void)dv_copy(out->violation, sizeof(out->violation), s->violation);
    sim_free(s);
}
