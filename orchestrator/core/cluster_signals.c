/* What a function's signals beside the gateway's load ask for, gathered for its decision. */
#include "orchestrator/core/cluster_internal.h"

/* What the scheduler promises, or the limit where there is one: a percentage is of that. */
static double whole_of(const struct dv_fn_spec *s, enum dv_scale_signal which)
{
    struct dv_requests q = dv_fn_requests(s);
    if (which == DV_SIG_CPU)
        return (double)(s->limits.cpu_mcpu ? s->limits.cpu_mcpu : q.cpu_mcpu);
    return (double)(s->limits.memory_bytes ? s->limits.memory_bytes : q.memory_bytes);
}

static bool measure(const struct dv_cluster_replica *r, enum dv_scale_signal which, uint64_t now_ns,
                    double *out)
{
    bool is_known =
        which == DV_SIG_CPU ? dv_usage_has_cpu(&r->usage, now_ns) : dv_usage_has_memory(&r->usage, now_ns);
    if (is_known)
        *out = which == DV_SIG_CPU ? r->usage.cpu_mcpu : (double)r->usage.memory_bytes;
    return is_known;
}

static void ask_usage(const struct dv_cluster *c, const struct dv_cluster_fn *f, enum dv_scale_signal which,
                      uint64_t now_ns, struct cl_asks *a)
{
    int64_t percent = which == DV_SIG_CPU ? f->hot->policy.cpu : f->hot->policy.memory;
    double target = whole_of(&f->def->spec, which) * (double)percent / 100, use;
    struct dv_level l = {0};
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (!dv_life_is_live(r->state) || !dv_cl_is_counted(c, r, now_ns) || dv_cl_is_leaving(r))
            continue;
        if (!dv_life_is_ready(r->state)) {
            l.n_starting++;
        } else if (measure(r, which, now_ns, &use) && target > 0) {
            l.n_known++;
            l.sum += use / target;
        } else {
            l.n_missing++;
        }
    }
    if (l.n_known + l.n_missing == 0)
        return; /* nobody serves, so there is nothing to measure */
    dv_signal_usage(which, &l, percent, a->text[a->n], &a->v[a->n]);
    a->n++;
}

void dv_cl_asks(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns,
                struct cl_asks *out)
{
    out->n = 0;
    if (f->hot->policy.cpu)
        ask_usage(c, f, DV_SIG_CPU, now_ns, out);
    if (f->hot->policy.memory)
        ask_usage(c, f, DV_SIG_MEMORY, now_ns, out);
    if (f->hot->backlog.items > 0) {
        dv_signal_backlog(&f->hot->backlog, &f->hot->policy, dv_scale_service_s(&f->hot->scale),
                          out->text[out->n], &out->v[out->n]);
        out->n++;
    }
}

void dv_cluster_backlog(struct dv_cluster *c, uint64_t fn_uid, const struct dv_backlog *b)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (f && f->hot) /* at rest the first of them that is handed out wakes it */
        f->hot->backlog = *b;
}
