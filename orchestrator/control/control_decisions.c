/* What the core keeps of its decisions, with wall time and names. */
#include "orchestrator/control/control_internal.h"

static const char *or_null(const char *text)
{
    return text[0] ? text : NULL;
}

void dv_control_decisions_each(struct dv_control *c, uint64_t fn_uid,
                               int (*each)(void *ctx, const struct dv_fn_decision *d), void *ctx)
{
    const struct dv_cluster_fn *f = dv_cluster_fn_find(c->cluster, fn_uid);
    if (!f || f->decisions.n == 0)
        return;
    DV_LIST_FOR_EACH (it, &f->decisions.list) {
        const struct dv_decided *d = DV_LIST_ENTRY(it, struct dv_decided, of_fn);
        struct dv_fn_ask asks[DV_CLUSTER_SIGNALS_MAX];
        for (size_t i = 0; i < d->n_asks; i++)
            asks[i] = (struct dv_fn_ask){dv_scale_signal_name((enum dv_scale_signal)d->asks[i].signal),
                                         d->asks[i].name, d->asks[i].replicas, d->asks[i].is_hold, NULL};
        struct dv_fn_decision view = {ctl_wall_of(c, d->at_ns),
                                      d->from,
                                      d->to,
                                      dv_scale_signal_name((enum dv_scale_signal)d->signal),
                                      d->reason,
                                      asks,
                                      d->n_asks};
        if (each(ctx, &view))
            return;
    }
}

void dv_control_asks(struct dv_control *c, uint64_t fn_uid,
                     void (*tell)(void *ctx, const struct dv_fn_ask *asks, size_t n), void *ctx)
{
    const struct dv_cluster_fn *f = dv_cluster_fn_find(c->cluster, fn_uid);
    struct dv_cluster_signal now[DV_CLUSTER_SIGNALS_MAX];
    struct dv_fn_ask asks[DV_CLUSTER_SIGNALS_MAX];
    size_t n = f ? dv_cluster_fn_signals(c->cluster, f, ctl_now(c), now) : 0;
    for (size_t i = 0; i < n; i++)
        asks[i] = (struct dv_fn_ask){
            dv_scale_signal_name(now[i].signal),
            now[i].signal == DV_SIG_METRIC ? f->def->spec.scale.metrics[now[i].index].name : NULL,
            now[i].replicas, now[i].is_hold, or_null(now[i].text)};
    tell(ctx, asks, n);
}
