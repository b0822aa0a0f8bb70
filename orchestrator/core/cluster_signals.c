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

static bool is_of_replicas(const struct dv_metric *m)
{
    struct dv_metric_source source = {0};
    (void)dv_metric_source_of(m->url, &source, NULL); /* the definition has been checked */
    return source.is_replica;
}

static void sum_up(const struct dv_cluster *c, const struct dv_cluster_fn *f, const struct dv_metric_track *t,
                   const struct dv_metric *m, uint64_t now_ns, struct dv_metric_sum *s)
{
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        if (!dv_life_is_live(r->state) || !dv_cl_is_counted(c, r, now_ns) || dv_cl_is_leaving(r))
            continue;
        const struct dv_metric_of *fresh = dv_metric_fresh(t, m, r->id, now_ns);
        if (!dv_life_is_ready(r->state))
            s->level.n_starting++;
        else if (r->state == DV_REPLICA_FROZEN)
            dv_metric_add(s, m, 0);
        else if (fresh)
            dv_metric_add(s, m, fresh->value);
        else
            s->level.n_missing++;
    }
}

static void ask_metric(const struct dv_cluster *c, const struct dv_cluster_fn *f, size_t i, uint64_t now_ns,
                       struct cl_asks *a)
{
    const struct dv_metric *m = &f->def->spec.scale.metrics[i];
    const struct dv_metric_track *t = &f->watch->v[i];
    struct dv_metric_sum s = {0};
    struct dv_scale_ask *ask = &a->v[a->n];
    if (!is_of_replicas(m)) {
        dv_metric_ask(t, m, f->asked, now_ns, a->text[a->n], ask);
    } else {
        sum_up(c, f, t, m, now_ns, &s);
        if (!dv_metric_ask_of_replicas(t, m, &s, f->asked, a->text[a->n], ask))
            return;
    }
    ask->index = (uint8_t)i;
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
    for (size_t i = 0; f->watch && i < f->watch->n; i++)
        ask_metric(c, f, i, now_ns, out);
}

void dv_cluster_backlog(struct dv_cluster *c, uint64_t fn_uid, const struct dv_backlog *b)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (f && f->hot) /* at rest the first of them that is handed out wakes it */
        f->hot->backlog = *b;
}

/* ---- metrics ---- */

void dv_cl_watch_free(struct dv_cluster_fn *f)
{
    for (size_t i = 0; f->watch && i < f->watch->n; i++)
        dv_metric_deinit(&f->watch->v[i]);
    dv_free(f->watch);
    f->watch = NULL;
}

int dv_cl_watch(struct dv_cluster_fn *f, const struct dv_function *old)
{
    const struct dv_scale *sc = &f->def->spec.scale, *was = old ? &old->spec.scale : NULL;
    struct dv_cluster_watch *w = NULL;
    if (sc->n_metrics && !(w = dv_zalloc(sizeof(*w) + sc->n_metrics * sizeof(w->v[0])))) {
        dv_cl_watch_free(f);
        return DV_E_NOMEM;
    }
    for (size_t i = 0; i < sc->n_metrics; i++) {
        bool stays = was && f->watch && i < f->watch->n && i < was->n_metrics &&
                     dv_wire_equal(&dv_type_metric, &sc->metrics[i], &was->metrics[i]);
        if (!stays)
            continue;
        w->v[i] = f->watch->v[i];
        f->watch->v[i] = (struct dv_metric_track){0};
    }
    if (w)
        w->n = sc->n_metrics;
    dv_cl_watch_free(f);
    f->watch = w;
    return DV_OK;
}

static int64_t n_ready(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns)
{
    int64_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        n += dv_life_is_ready(r->state) && dv_cl_is_counted(c, r, now_ns) && !dv_cl_is_leaving(r);
    }
    return n;
}

void dv_cluster_metric(struct dv_cluster *c, uint64_t fn_uid, size_t index, uint64_t replica, double value,
                       uint64_t now_ns)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (!f || !f->watch || index >= f->watch->n)
        return;
    const struct dv_metric *m = &f->def->spec.scale.metrics[index];
    struct dv_metric_track *t = &f->watch->v[index];
    if (replica) { /* it has a replica, so it is looked at within a second; without memory it counts as
                      missing */
        (void)dv_metric_note_of(t, m, replica, value, now_ns);
        return;
    }
    dv_metric_note(t, value, n_ready(c, f, now_ns), now_ns);
    if (f->hot || value > m->activation)
        dv_cl_reconcile(c, f, now_ns);
}

void dv_cluster_metric_missed(struct dv_cluster *c, uint64_t fn_uid, size_t index, const char *why)
{
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, fn_uid);
    if (f && f->watch && index < f->watch->n)
        dv_metric_missed(&f->watch->v[index], why);
}

/* ---- reading ---- */

size_t dv_cluster_fn_signals(const struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns,
                             struct dv_cluster_signal out[DV_CLUSTER_SIGNALS_MAX])
{
    size_t n = 0;
    struct cl_asks asks;
    int64_t own[DV_SIG_N_OWN];
    if (!f->hot)
        return 0;
    dv_scale_own(&f->hot->scale, &f->hot->policy, own);
    for (int i = 0; i < DV_SIG_N_OWN; i++)
        if (i != DV_SIG_RATE || f->hot->policy.rps > 0)
            out[n++] = (struct dv_cluster_signal){.signal = (enum dv_scale_signal)i, .replicas = own[i]};
    dv_cl_asks(c, f, now_ns, &asks);
    for (size_t i = 0; i < asks.n; i++) {
        const struct dv_scale_ask *a = &asks.v[i];
        struct dv_cluster_signal *s = &out[n++];
        *s = (struct dv_cluster_signal){
            a->signal, a->index, a->is_hold, a->is_active, a->is_hold ? f->asked : a->replicas, ""};
        (void)dv_copy(s->text, sizeof(s->text), a->text);
    }
    return n;
}

void dv_cl_decided(struct dv_cluster *c, struct dv_cluster_fn *f, int64_t from, uint64_t now_ns)
{
    struct dv_cluster_signal now[DV_CLUSTER_SIGNALS_MAX];
    struct dv_decided_ask asks[DV_CLUSTER_SIGNALS_MAX];
    size_t n = dv_cluster_fn_signals(c, f, now_ns, now);
    for (size_t i = 0; i < n; i++)
        asks[i] = (struct dv_decided_ask){
            (uint8_t)now[i].signal, now[i].is_hold, now[i].is_hold ? from : now[i].replicas,
            now[i].signal == DV_SIG_METRIC ? f->def->spec.scale.metrics[now[i].index].name : NULL};
    dv_decisions_add(&c->decisions, &f->decisions,
                     &(struct dv_decided){.at_ns = now_ns,
                                          .from = from,
                                          .to = f->asked,
                                          .signal = f->hot->decision.signal,
                                          .reason = f->hot->decision.reason,
                                          .n_asks = n,
                                          .asks = asks});
}
