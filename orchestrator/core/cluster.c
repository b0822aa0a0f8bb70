/* The cluster state machine: its insides in eight files.
 *
 *   cluster.c            making, ending, marks and actions, ticking, reading
 *   cluster_functions.c  functions: how many replicas, which to start, which to stop
 *   cluster_nodes.c      nodes: up, down, lost, and what they offer
 *   cluster_replicas.c   replicas: moves, reports, adoption
 *   cluster_keep.c       what functions keep while idle, and what is made ready ahead
 *   cluster_evict.c      what goes when a node is short of memory
 *   cluster_pools.c      pools of primed sandboxes: who wants them, where they are
 *   cluster_primed.c     which of them are ready
 *
 * What must hold after every input:
 *   - a function has at most max live replicas of its generation that count (are where they can be reached);
 *   - a node is promised at most its capacity by what was placed on it (adopted replicas may exceed it: they
 * run);
 *   - a replica is started only for somebody who waits or is expected, a minimum, or in place of one that
 *     leaves;
 *   - nothing is stopped before every known node has said what it holds, or learn_ns has passed;
 *   - a replica of an older generation, or on a draining node, serves until another serves in its place.
 *
 * Idle functions (no replica, nobody waiting) are not visited by ticks: a hundred thousand of them cost
 * memory only.  Those that expect a request stand in a heap, by the moment when something should be ready. */
#include "orchestrator/core/cluster_internal.h"

#include <stdarg.h>

enum {
    EVENTS_MAX = 4096,
    MANY = 64 /* replicas of one function that are not all counted anew for what happens to one of them */
};
#define PAUSE_NS 5000ull                /* for each of many replicas */
#define CALM_NS  (SECOND - SECOND / 20) /* between decisions about functions that are not busy */

#define SECOND 1000000000ull

static uint64_t or_default(uint64_t v, uint64_t dflt)
{
    return v ? v : dflt;
}

int dv_cluster_new(const struct dv_cluster_cfg *cfg, uint64_t now_ns, struct dv_cluster **out)
{
    struct dv_cluster *c = dv_zalloc(sizeof(*c));
    if (!c)
        return DV_E_NOMEM;
    c->cfg = *cfg;
    c->cfg.node_lost_ns = or_default(cfg->node_lost_ns, 10 * SECOND);
    c->cfg.suspect_ns = or_default(cfg->suspect_ns, 2 * SECOND);
    c->cfg.learn_ns = or_default(cfg->learn_ns, 5 * SECOND);
    c->cfg.unplaced_ns = or_default(cfg->unplaced_ns, 5 * SECOND);
    c->born_ns = now_ns;
    dv_rng_init(&c->rng, cfg->seed);
    dv_map_init(&c->fns, dv_rng_u64(&c->rng));
    dv_map_init(&c->nodes, dv_rng_u64(&c->rng));
    dv_map_init(&c->replicas, dv_rng_u64(&c->rng));
    dv_haves_init(&c->images, dv_rng_u64(&c->rng));
    dv_sched_index_init(&c->index, cfg->spread);
    dv_list_init(&c->active);
    dv_list_init(&c->busy);
    dv_list_init(&c->lacking);
    dv_list_init(&c->due);
    dv_list_init(&c->dirty);
    dv_list_init(&c->held);
    dv_list_init(&c->pending);
    dv_list_init(&c->stops);
    dv_list_init(&c->events);
    dv_cl_pools_init(c);
    dv_decisions_init(&c->decisions);
    *out = c;
    return DV_OK;
}

static void free_handed_out(struct dv_cluster *c)
{
    dv_free(c->out_event);
    c->out_event = NULL;
    dv_free(c->out_gone);
    c->out_gone = NULL;
}

void dv_cluster_free(struct dv_cluster *c)
{
    if (!c)
        return;
    free_handed_out(c);
    void *v;
    for (size_t i = 0; (v = dv_map_next(&c->replicas, &i));)
        dv_free(v);
    /* Those gone but not yet told stand on the pending list alone. */
    DV_LIST_FOR_EACH_SAFE (it, &c->pending) {
        struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, pending);
        if (r->mark == DV_MARK_FORGET)
            dv_free(r);
    }
    dv_decisions_deinit(&c->decisions);
    for (size_t i = 0; (v = dv_map_next(&c->fns, &i));)
        dv_cl_fn_free(v);
    for (size_t i = 0; (v = dv_map_next(&c->nodes, &i));)
        dv_cl_node_free(c, v);
    DV_LIST_FOR_EACH_SAFE (it, &c->events)
        dv_free(DV_LIST_ENTRY(it, struct event, node));
    dv_cl_pools_deinit(c);
    dv_dues_deinit(&c->dues);
    dv_map_deinit(&c->replicas);
    dv_map_deinit(&c->fns);
    dv_map_deinit(&c->nodes);
    dv_haves_deinit(&c->images);
    dv_sched_index_deinit(&c->index);
    dv_free(c->views);
    dv_free(c->by_index);
    dv_free(c);
}

/* ---- marks ---- */

void dv_cl_event(struct dv_cluster *c, const struct dv_cluster_fn *f, const struct dv_cluster_replica *r,
                 const struct dv_cluster_node *n, const char *kind, const char *fmt, ...)
{
    if (c->n_events >= EVENTS_MAX) /* nobody takes them; they are for people and may be lost */
        return;
    struct event *e = dv_zalloc(sizeof(*e));
    if (!e)
        return;
    e->fn_uid = f ? f->uid : 0;
    e->replica_id = r ? r->id : 0;
    e->node_id = n ? n->id : r && r->node ? r->node->id : 0;
    e->kind = kind;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(e->message, sizeof(e->message), fmt, ap);
    va_end(ap);
    dv_list_push_back(&c->events, &e->node);
    c->n_events++;
}

void dv_cl_mark(struct dv_cluster *c, struct dv_cluster_replica *r, enum dv_cluster_mark mark)
{
    dv_list_remove(&r->pending);
    r->mark = mark;
    if (mark == DV_MARK_STOP && !c->is_learned)
        dv_list_push_back(&c->stops, &r->pending);
    else if (mark != DV_MARK_NONE)
        dv_list_push_back(&c->pending, &r->pending);
}

void dv_cl_dirty(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    if (dv_list_empty(&f->dirty))
        dv_list_push_back(&c->dirty, &f->dirty);
}

void dv_cl_dirty_routes(struct dv_cluster *c, struct dv_cluster_fn *f, bool is_urgent)
{
    f->routes_dirty = true;
    f->routes_urgent |= is_urgent;
    if (is_urgent)
        dv_list_remove(&f->dirty); /* it may be held back */
    dv_cl_dirty(c, f);
}

uint64_t dv_cl_pause_ns(const struct dv_cluster_fn *f)
{
    return f->n_replicas <= MANY ? 0 : f->n_replicas * PAUSE_NS;
}

void dv_cl_begin(struct dv_cluster *c, uint64_t now_ns)
{
    c->now_ns = now_ns;
    DV_LIST_FOR_EACH_SAFE (it, &c->held) {
        dv_list_remove(it);
        dv_list_push_back(&c->dirty, it);
    }
}

static const char unsaid[] = "there was no memory to say why";

void dv_cl_text_set(const char **slot, const char *text)
{
    if (*slot && **slot && *slot != unsaid)
        dv_free((void *)(uintptr_t)*slot);
    *slot = "";
    if (*text)
        *slot = dv_strndup(text, strnlen(text, DV_CL_TEXT_MAX));
    if (!*slot)
        *slot = unsaid;
}

void dv_cl_set_failing(struct dv_cluster *c, struct dv_cluster_fn *f, const char *text)
{
    if (strncmp(f->failing, text, DV_CL_TEXT_MAX) == 0)
        return;
    dv_cl_text_set(&f->failing, text);
    f->failing_dirty = true;
    dv_cl_dirty(c, f);
}

/* ---- actions ---- */

static bool next_replica(struct dv_cluster *c, struct dv_action *out)
{
    struct dv_list *it = dv_list_pop_front(&c->pending);
    if (!it)
        return false;
    struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, pending);
    static const enum dv_action_kind kinds[] = {
        [DV_MARK_START] = DV_ACT_START, [DV_MARK_STOP] = DV_ACT_STOP, [DV_MARK_FORGET] = DV_ACT_FORGET};
    out->kind = kinds[r->mark];
    out->replica = r;
    out->replica_id = r->id;
    out->fn = r->fn;
    out->fn_uid = r->fn_uid;
    out->node = r->node;
    if (r->mark == DV_MARK_FORGET)
        c->out_gone = r;
    r->mark = DV_MARK_NONE;
    return true;
}

static bool next_fn(struct dv_cluster *c, struct dv_action *out)
{
    while (!dv_list_empty(&c->dirty)) {
        struct dv_cluster_fn *f = DV_LIST_ENTRY(c->dirty.next, struct dv_cluster_fn, dirty);
        out->fn = f;
        out->fn_uid = f->uid;
        if (f->routes_dirty && !f->routes_urgent && c->now_ns - f->routed_ns < dv_cl_pause_ns(f)) {
            dv_list_remove(&f->dirty);
            dv_list_push_back(&c->held, &f->dirty);
            continue;
        }
        if (f->routes_dirty) {
            f->routes_dirty = f->routes_urgent = false;
            f->routed_ns = c->now_ns;
            out->kind = DV_ACT_ROUTES;
            return true;
        }
        if (f->failing_dirty) {
            f->failing_dirty = false;
            out->kind = DV_ACT_FAILING;
            return true;
        }
        if (f->spent_override) {
            f->spent_override = false;
            out->kind = DV_ACT_AWAKE;
            return true;
        }
        dv_list_remove(&f->dirty);
    }
    return false;
}

static bool next_pools(struct dv_cluster *c, struct dv_action *out)
{
    struct dv_list *it;
    while ((it = dv_list_pop_front(&c->tells))) {
        const struct dv_cluster_node *n = DV_LIST_ENTRY(it, struct dv_cluster_node, pools_dirty);
        if (!n->is_connected || !n->pools_told)
            continue; /* it is told when it has said what it holds */
        out->kind = DV_ACT_POOLS;
        out->node = n;
        out->node_id = n->id;
        return true;
    }
    return false;
}

static bool next_event(struct dv_cluster *c, struct dv_action *out)
{
    struct dv_list *it = dv_list_pop_front(&c->events);
    if (!it)
        return false;
    struct event *e = DV_LIST_ENTRY(it, struct event, node);
    c->n_events--;
    c->out_event = e;
    out->kind = DV_ACT_EVENT;
    out->fn_uid = e->fn_uid;
    out->replica_id = e->replica_id;
    out->node_id = e->node_id;
    out->event = e->kind;
    memcpy(out->message, e->message, sizeof(out->message));
    return true;
}

bool dv_cluster_next(struct dv_cluster *c, struct dv_action *out)
{
    free_handed_out(c);
    *out = (struct dv_action){0};
    /* Routes first: a replica must take no new request before its agent is told to stop it. */
    return next_fn(c, out) || next_replica(c, out) || next_pools(c, out) || next_event(c, out);
}

/* ---- time ---- */

void dv_cl_learn(struct dv_cluster *c, uint64_t now_ns)
{
    if (c->is_learned)
        return;
    if (now_ns - c->born_ns < c->cfg.learn_ns) {
        for (size_t i = 0; i < c->n_views; i++)
            if (!c->by_index[i]->is_learned)
                return;
    }
    c->is_learned = true;
    DV_LIST_FOR_EACH_SAFE (it, &c->stops) {
        dv_list_remove(it);
        dv_list_push_back(&c->pending, it);
    }
}

void dv_cl_active(struct dv_cluster *c, struct dv_cluster_fn *f, bool is_busy)
{
    dv_list_remove(&f->active);
    dv_list_push_back(&c->active, &f->active);
    if (!is_busy)
        dv_list_remove(&f->busy);
    else if (dv_list_empty(&f->busy))
        dv_list_push_back(&c->busy, &f->busy);
}

static bool is_due(const struct dv_list *active, uint64_t now_ns)
{
    return now_ns - DV_LIST_ENTRY(active, struct dv_cluster_fn, active)->reconciled_ns >= CALM_NS;
}

void dv_cluster_tick(struct dv_cluster *c, uint64_t now_ns)
{
    dv_cl_begin(c, now_ns);
    dv_cl_learn(c, now_ns);
    dv_cl_nodes_tick(c, now_ns);
    dv_cl_keep_tick(c, now_ns);
    dv_decisions_expire(&c->decisions, now_ns);
    DV_LIST_FOR_EACH_SAFE (it, &c->busy)
        dv_cl_reconcile(c, DV_LIST_ENTRY(it, struct dv_cluster_fn, busy), now_ns);
    while (!dv_list_empty(&c->active) &&
           is_due(c->active.next, now_ns)) /* it is the last afterwards, or gone */
        dv_cl_reconcile(c, DV_LIST_ENTRY(c->active.next, struct dv_cluster_fn, active), now_ns);
    dv_cl_pools_habits(c, now_ns);
    dv_cl_pools_settle(c);
}

uint64_t dv_cluster_next_tick(const struct dv_cluster *c, uint64_t now_ns)
{
    if (!dv_list_empty(&c->busy))
        return now_ns + SECOND / 10;
    if (dv_cl_pools_unsettled(c))
        return now_ns + SECOND / 10;
    if (!c->is_learned)
        return now_ns + SECOND / 4;
    if (!dv_list_empty(&c->active) || c->n_views > 0)
        return now_ns + SECOND;
    return UINT64_MAX;
}

/* ---- reading ---- */

const struct dv_cluster_fn *dv_cluster_fn_find(const struct dv_cluster *c, uint64_t uid)
{
    return dv_idmap_find(&c->fns, uid);
}

const struct dv_cluster_node *dv_cluster_node_find(const struct dv_cluster *c, uint64_t id)
{
    return dv_idmap_find(&c->nodes, id);
}

const struct dv_cluster_replica *dv_cluster_replica_find(const struct dv_cluster *c, uint64_t id)
{
    return dv_idmap_find(&c->replicas, id);
}

void dv_cluster_each_active(struct dv_cluster *c, void (*fn)(void *ctx, const struct dv_cluster_fn *f),
                            void *ctx)
{
    DV_LIST_FOR_EACH_SAFE (it, &c->active)
        fn(ctx, DV_LIST_ENTRY(it, struct dv_cluster_fn, active));
}

void dv_cluster_each_due(struct dv_cluster *c, uint64_t now_ns,
                         void (*fn)(void *ctx, const struct dv_cluster_fn *f), void *ctx)
{
    struct dv_list *it = c->active.next;
    for (; it != &c->active && is_due(it, now_ns); it = it->next)
        fn(ctx, DV_LIST_ENTRY(it, struct dv_cluster_fn, active));
    DV_LIST_FOR_EACH_SAFE (jt, &c->busy) {
        const struct dv_cluster_fn *f = DV_LIST_ENTRY(jt, struct dv_cluster_fn, busy);
        if (!is_due(&f->active, now_ns))
            fn(ctx, f);
    }
}

void dv_cluster_each_replica(struct dv_cluster *c, void (*fn)(void *ctx, const struct dv_cluster_replica *r),
                             void *ctx)
{
    const struct dv_cluster_replica *r;
    for (size_t i = 0; (r = dv_map_next(&c->replicas, &i));)
        fn(ctx, r);
}

bool dv_cluster_routable(const struct dv_cluster_replica *r)
{
    return r->fn && r->node && r->node->is_connected && dv_life_is_ready(r->state);
}

bool dv_cluster_learned(const struct dv_cluster *c)
{
    return c->is_learned;
}

const struct dv_node_view *dv_cluster_view(const struct dv_cluster *c, const struct dv_cluster_node *n)
{
    return &c->views[n->index];
}

const struct dv_life_counts *dv_cluster_counts(const struct dv_cluster *c)
{
    return &c->counts;
}

int64_t dv_cluster_fn_wanted(const struct dv_cluster_fn *f)
{
    return f->hot ? f->hot->decision.wanted : 0;
}

const char *dv_cluster_fn_reason(const struct dv_cluster_fn *f)
{
    if (f->hot)
        return f->hot->decision.reason;
    return f->def->desired_override == 0 ? "put to sleep by the scale API, until the next request"
                                         : "nobody waits, minimum is 0";
}

uint64_t dv_cluster_fn_waiting(const struct dv_cluster_fn *f)
{
    return f->hot ? f->hot->scale.last.waiting : 0;
}

void dv_cluster_fn_tally(const struct dv_cluster_fn *f, struct dv_cluster_tally *out)
{
    *out = (struct dv_cluster_tally){0};
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *r = REPLICA_OF_FN(it);
        out->ready += dv_cluster_routable(r);
        out->starting += dv_life_is_live(r->state) && !dv_life_is_ready(r->state);
        out->draining += r->state == DV_REPLICA_DRAINING;
        out->failed += r->state == DV_REPLICA_FAILED;
    }
}
