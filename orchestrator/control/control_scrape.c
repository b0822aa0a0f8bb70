/* Metrics that users name: read at their intervals, told to the core.
 *
 * An endpoint elsewhere is read from here.  The function's own replicas are read by their nodes' agents,
 * since their addresses mean nothing on other machines: a command names the replicas of one node, the results
 * come with its reports, and frozen replicas are left to sleep (they do no work, and the core counts them
 * so).
 *
 * Nothing read here decides: a value that is late, refused or absurd is told as missing, and the core keeps
 * what there is (orchestrator/core/metric.h).  An epoch tells results of an older definition from those of
 * the present one. */
#include "orchestrator/control/control_internal.h"

#include "proto/rt/httpc.h"
#include "proto/rt/scrape.h"

enum { CTL_SCRAPES_MAX = 256, FIRST_WITHIN_MS = 1000, BUSY_AGAIN_MS = 250 };

struct ctl_scrape {
    struct ctl_scrapes *of;
    size_t index;
    struct dv_timer timer;
    struct dv_scrape *call; /* under way; NULL: none is */
};

struct ctl_scrapes { /* of one function */
    struct dv_control *c;
    uint64_t fn_uid, epoch;
    size_t n;
    struct ctl_scrape v[];
};

static const struct dv_metric *metric_of(const struct ctl_scrape *s)
{
    const struct ctl_fn *f = dv_idmap_find(&s->of->c->fns_by_uid, s->of->fn_uid);
    return f ? &f->v->def.spec.scale.metrics[s->index] : NULL;
}

static void missed(struct dv_control *c, uint64_t fn_uid, size_t index, const char *why)
{
    c->n.scrape_failures++;
    dv_cluster_metric_missed(c->cluster, fn_uid, index, why);
}

/* ---- elsewhere ---- */

static void on_read(void *ctx, int code, double value, const struct dv_err *err)
{
    struct ctl_scrape *s = ctx;
    struct dv_control *c = s->of->c;
    s->call = NULL;
    c->n_scraping--;
    if (code) {
        missed(c, s->of->fn_uid, s->index, dv_err_msg(err, code));
        return;
    }
    dv_cluster_metric(c->cluster, s->of->fn_uid, s->index, 0, value, ctl_now(c));
    ctl_pump(c);
}

static void read_elsewhere(struct ctl_scrape *s, const struct dv_metric *m)
{
    struct dv_control *c = s->of->c;
    struct dv_err err = DV_ERR_INIT;
    int rc = c->http ? DV_OK : dv_httpc_new(c->cfg.loop, &c->http, &err);
    if (!rc)
        rc = dv_scrape_start(c->http, m->url, m, false, on_read, s, &s->call, &err);
    if (rc)
        missed(c, s->of->fn_uid, s->index, dv_err_msg(&err, rc));
    else
        c->n_scraping++;
}

/* ---- in replicas ---- */

struct target {
    uint64_t node, replica;
};

static int by_node(const void *a, const void *b)
{
    const struct target *x = a, *y = b;
    return x->node < y->node ? -1 : x->node > y->node;
}

static size_t list_targets(const struct dv_cluster_fn *f, struct dv_arena *arena, struct target **out)
{
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas)
        n++;
    struct target *v = n ? dv_arena_alloc(arena, n * sizeof(*v)) : NULL;
    n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
        if (v && r->node && r->state == DV_REPLICA_WARM)
            v[n++] = (struct target){r->node->id, r->id};
    }
    if (n > 1)
        qsort(v, n, sizeof(*v), by_node);
    *out = v;
    return n;
}

static void ask_node(struct ctl_scrape *s, const struct dv_metric *m, uint64_t node, uint64_t *ids, size_t n)
{
    struct dv_control *c = s->of->c;
    struct ctl_node *cn = ctl_node_of(c, node);
    struct dv_cmd_scrape cmd = {.fn_uid = s->of->fn_uid,
                                .epoch = s->of->epoch,
                                .index = (int64_t)s->index,
                                .metric = *m,
                                .replicas = ids,
                                .n_replicas = n};
    if (!cn || ctl_session_send(cn, &(struct dv_control_msg){.type = (char *)"scrape", .scrape = &cmd}))
        missed(c, s->of->fn_uid, s->index, "the node is not connected");
}

static void read_replicas(struct ctl_scrape *s, const struct dv_metric *m)
{
    struct dv_control *c = s->of->c;
    const struct dv_cluster_fn *f = dv_cluster_fn_find(c->cluster, s->of->fn_uid);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct target *v;
    size_t n = f ? list_targets(f, &arena, &v) : 0, i = 0;
    uint64_t *ids = n ? dv_arena_alloc(&arena, n * sizeof(*ids)) : NULL;
    while (ids && i < n) {
        size_t k = 0;
        uint64_t node = v[i].node;
        while (i < n && v[i].node == node)
            ids[k++] = v[i++].replica;
        ask_node(s, m, node, ids, k);
    }
}

void ctl_scrapes_take(struct ctl_node *n, const struct dv_report *rep)
{
    struct dv_control *c = n->c;
    for (size_t i = 0; i < rep->n_scrapes; i++) {
        const struct dv_scrape_result *r = &rep->scrapes[i];
        const struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, r->fn_uid);
        const struct dv_cluster_replica *of = dv_cluster_replica_find(c->cluster, r->replica);
        bool is_ours = f && f->scrapes && f->scrapes->epoch == r->epoch && of && of->fn_uid == r->fn_uid &&
                       of->node && of->node->id == n->id && r->index >= 0;
        if (!is_ours)
            continue;
        if (r->ok && r->value >= 0)
            dv_cluster_metric(c->cluster, r->fn_uid, (size_t)r->index, r->replica, r->value, ctl_now(c));
        else
            missed(c, r->fn_uid, (size_t)r->index, r->message);
    }
}

/* ---- time ---- */

static void on_timer(struct dv_timer *t)
{
    struct ctl_scrape *s = DV_CONTAINER_OF(t, struct ctl_scrape, timer);
    struct dv_control *c = s->of->c;
    const struct dv_metric *m = metric_of(s);
    if (!m)
        return;
    struct dv_metric_source source = {0};
    (void)dv_metric_source_of(m->url, &source, NULL); /* it has been checked */
    bool is_full = !source.is_replica && c->n_scraping >= CTL_SCRAPES_MAX;
    uint64_t wait_ms = is_full ? BUSY_AGAIN_MS : (uint64_t)m->interval_ms;
    /* Its place in the heap is still there. */
    (void)dv_timer_set(c->cfg.loop, t, ctl_now(c) + wait_ms * CTL_MS);
    if (is_full || s->call)
        return;
    c->n.scrapes++;
    if (source.is_replica)
        read_replicas(s, m);
    else
        read_elsewhere(s, m);
}

void ctl_scrapes_free(struct ctl_scrapes *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        dv_timer_cancel(s->c->cfg.loop, &s->v[i].timer);
        if (s->v[i].call)
            s->c->n_scraping--;
        dv_scrape_cancel(s->v[i].call);
    }
    dv_free(s);
}

void ctl_scrapes_put(struct dv_control *c, struct ctl_fn *f)
{
    size_t n = f->v->def.spec.scale.n_metrics;
    ctl_scrapes_free(f->scrapes);
    f->scrapes = n ? dv_zalloc(sizeof(*f->scrapes) + n * sizeof(struct ctl_scrape)) : NULL;
    if (!f->scrapes) {
        if (n)
            dv_log(DV_LOG_ERROR, "out of memory: a function's metrics are not read",
                   DV_LS("function", f->key));
        return;
    }
    *f->scrapes = (struct ctl_scrapes){.c = c, .fn_uid = f->uid, .epoch = ++c->last_epoch, .n = n};
    for (size_t i = 0; i < n; i++) {
        struct ctl_scrape *s = &f->scrapes->v[i];
        *s = (struct ctl_scrape){.of = f->scrapes, .index = i, .timer = {.fn = on_timer}};
        uint64_t first_ms = dv_rng_below(&c->rng, FIRST_WITHIN_MS);
        if (dv_timer_set(c->cfg.loop, &s->timer, ctl_now(c) + first_ms * CTL_MS))
            dv_log(DV_LOG_ERROR, "out of memory: a metric is not read", DV_LS("function", f->key));
    }
}
