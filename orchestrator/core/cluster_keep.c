/* What functions keep while nobody uses them, and what is made ready before somebody does.
 *
 * A gap ends when a function that was idle is used: its history takes it and the plan is made anew
 * (keepalive.h); while the function has replicas, the plan's time stands in place of its idle time.  At rest
 * it waits in a heap for the moment from which something should be ready, and then for the moment until
 * which; a function that has nothing to wait for is in no heap, and no tick visits it.
 *
 * Something ready is a share in the pool of its kind (cluster_pools.c), or a replica that nobody asked for:
 * `decide` keeps one as long as dv_cl_keep_holds says so. */
#include "orchestrator/core/cluster_internal.h"

#include "orchestrator/core/pools.h"
#include "proto/wire/codec.h"

int dv_cl_keep_of(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    (void)c;
    if (f->keep)
        return DV_OK;
    struct dv_cluster_keep *k = dv_zalloc(sizeof(*k));
    if (!k)
        return DV_E_NOMEM;
    k->fn = f;
    dv_list_init(&k->of_want);
    f->keep = k;
    return DV_OK;
}

void dv_cluster_fn_keep(const struct dv_cluster *c, const struct dv_cluster_fn *f, struct dv_keep_plan *out)
{
    const struct dv_fn_spec *spec = &f->def->spec;
    struct dv_keep_fn fn = {.is_pinned = spec->scale.idle_ms > 0,
                            .has_minimum = spec->scale.min > 0,
                            .has_place = dv_cl_may_be_primed(spec) && dv_cl_pools_work(c),
                            .idle_ns = (uint64_t)dv_fn_idle_ms(spec, c->cfg.default_idle_ms) * 1000000,
                            .own_start_ns = (uint64_t)f->own_start_us * 1000};
    dv_keep_plan(f->keep ? &f->keep->history : NULL, &c->cfg.keep, &fn, out);
}

static bool is_planned(const struct dv_cluster_fn *f)
{
    return f->keep && (f->keep->plan.basis == DV_KEEP_HISTOGRAM || f->keep->plan.basis == DV_KEEP_FORECAST);
}

void dv_cl_keep_policy(const struct dv_cluster_fn *f, struct dv_scale_policy *p)
{
    if (is_planned(f))
        p->idle_ns = f->keep->plan.idle_ns;
}

static void stand_down(struct dv_cluster *c, struct dv_cluster_fn *f, enum dv_keep_phase phase)
{
    f->keep->phase = phase;
    dv_due_cancel(&c->dues, &f->keep->due);
    (void)dv_cl_pools_expect(c, f, 0); /* taking back allocates nothing */
}

static void learn_gap(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t gap_ns)
{
    const struct dv_scale *scale = &f->def->spec.scale;
    if (gap_ns < DV_KEEP_IGNORED_NS || c->cfg.keep.is_fixed || scale->idle_ms > 0 || scale->min > 0)
        return;
    if (dv_cl_keep_of(c, f))
        return; /* one gap less is known */
    dv_keep_gap(&f->keep->history, gap_ns);
    dv_cluster_fn_keep(c, f, &f->keep->plan);
    if (f->hot)
        dv_cl_keep_policy(f, &f->hot->policy);
}

void dv_cl_keep_used(struct dv_cluster *c, struct dv_cluster_fn *f, bool was_idle, uint64_t at_ns)
{
    if (at_ns <= f->used_ns)
        return;
    uint64_t before = f->used_ns;
    f->used_ns = at_ns;
    if (f->keep && f->keep->phase != DV_KEEP_IN_USE)
        stand_down(c, f, DV_KEEP_IN_USE);
    if (f->hot)
        f->hot->is_evicted = false;
    if (was_idle && before)
        learn_gap(c, f, at_ns - before);
}

void dv_cl_keep_changed(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    if (!f->keep)
        return;
    stand_down(c, f, DV_KEEP_IN_USE);
    dv_cluster_fn_keep(c, f, &f->keep->plan);
}

void dv_cl_keep_rest(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    struct dv_cluster_keep *k = f->keep;
    if (!k || k->phase != DV_KEEP_IN_USE || k->plan.ahead == DV_KEEP_NOTHING || f->used_ns == 0)
        return;
    if (f->hot && f->hot->is_evicted && k->plan.ahead == DV_KEEP_REPLICA) {
        k->phase = DV_KEEP_OVER; /* there is no memory for it */
        return;
    }
    uint64_t from = f->used_ns + k->plan.from_ns, until = f->used_ns + k->plan.until_ns;
    if (now_ns < until && dv_due_set(&c->dues, &k->due, from > now_ns ? from : now_ns) == DV_OK)
        k->phase = DV_KEEP_WAITS;
}

bool dv_cl_keep_holds(const struct dv_cluster_fn *f)
{
    return f->keep && f->keep->phase == DV_KEEP_READY && f->keep->plan.ahead == DV_KEEP_REPLICA;
}

void dv_cl_keep_give_up(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    if (dv_cl_keep_holds(f))
        stand_down(c, f, DV_KEEP_OVER);
}

/* Short of memory: nothing is made ready this time. */
static void make_ready(struct dv_cluster *c, struct dv_cluster_fn *f, uint64_t now_ns)
{
    struct dv_cluster_keep *k = f->keep;
    bool is_place = k->plan.ahead == DV_KEEP_PLACE;
    uint64_t window = k->plan.until_ns - k->plan.from_ns;
    if (dv_due_set(&c->dues, &k->due, f->used_ns + k->plan.until_ns) ||
        (is_place && k->asks == 0 &&
         dv_cl_pools_expect(c, f, k->plan.by_the_clock ? 1000 : dv_pools_share(window)))) {
        stand_down(c, f, DV_KEEP_OVER);
        return;
    }
    k->phase = DV_KEEP_READY;
    char why[160];
    dv_keep_explain(&k->plan, why, sizeof(why));
    dv_cl_event(c, f, NULL, NULL, "ahead", "%s for its next request: %s",
                is_place ? "a primed sandbox is kept" : "a replica is started", why);
    if (!is_place)
        dv_cl_reconcile(c, f, now_ns);
}

void dv_cl_keep_tick(struct dv_cluster *c, uint64_t now_ns)
{
    struct dv_due *d;
    while ((d = dv_due_first(&c->dues)) && d->at_ns <= now_ns) {
        struct dv_cluster_keep *k = DV_CONTAINER_OF(d, struct dv_cluster_keep, due);
        struct dv_cluster_fn *f = k->fn;
        if (k->phase == DV_KEEP_WAITS && now_ns < f->used_ns + k->plan.until_ns) {
            make_ready(c, f, now_ns);
            continue;
        }
        bool held = dv_cl_keep_holds(f);
        stand_down(c, f, DV_KEEP_OVER);
        if (held)
            dv_cl_reconcile(c, f, now_ns);
    }
}

void dv_cl_keep_explain(const struct dv_cluster_fn *f, char *reason, size_t cap)
{
    size_t n = strlen(reason);
    if (!is_planned(f) || n + 3 >= cap)
        return;
    memcpy(reason + n, "; ", 3);
    dv_keep_explain(&f->keep->plan, reason + n + 2, cap - n - 2);
}

void dv_cl_keep_own_start(struct dv_cluster_fn *f, int64_t ready_us)
{
    uint32_t us = ready_us > UINT32_MAX ? UINT32_MAX : ready_us > 0 ? (uint32_t)ready_us : 0;
    f->own_start_us = f->own_start_us ? f->own_start_us / 2 + us / 2 : us;
}

void dv_cl_keep_forget(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    if (!f->keep)
        return;
    stand_down(c, f, DV_KEEP_OVER);
    dv_cl_pools_forget_fn(c, f);
    dv_free(f->keep);
    f->keep = NULL;
}
