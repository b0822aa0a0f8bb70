/* Replicas: every change of state goes through dv_cl_move; promises to nodes are made and taken back here. */
#include "orchestrator/core/cluster_internal.h"

#include <stdarg.h>
#include "proto/wire/codec.h"

#define SECOND 1000000000ull

/* A start that an agent has not mentioned for this long did not reach it; the same of a stop. */
#define RESEND_NS (1 * SECOND)

void dv_cl_why(struct dv_cluster_replica *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(r->why, sizeof(r->why), fmt, ap);
    va_end(ap);
}

static void promise(struct dv_cluster *c, struct dv_cluster_replica *r)
{
    struct dv_node_view *v = &c->views[r->node->index];
    if (r->fn) {
        struct dv_requests q = dv_fn_requests(&r->fn->def->spec);
        r->promised_mcpu = q.cpu_mcpu;
        r->promised_bytes = q.memory_bytes;
    }
    v->promised_mcpu += r->promised_mcpu;
    v->promised_bytes += r->promised_bytes;
    v->n_replicas++;
    r->is_promised = true;
    dv_cl_view_changed(c, r->node);
}

static void release(struct dv_cluster *c, struct dv_cluster_replica *r)
{
    if (!r->is_promised || !r->node)
        return;
    struct dv_node_view *v = &c->views[r->node->index];
    v->promised_mcpu -= r->promised_mcpu;
    v->promised_bytes -= r->promised_bytes;
    v->n_replicas--;
    r->is_promised = false;
    dv_cl_view_changed(c, r->node);
}

int dv_cl_replica_new(struct dv_cluster *c, uint64_t id, struct dv_cluster_fn *f, struct dv_cluster_node *n,
                      uint64_t now_ns, struct dv_cluster_replica **out)
{
    struct dv_cluster_replica *r = dv_zalloc(sizeof(*r));
    if (!r)
        return DV_E_NOMEM;
    while (id == 0 || dv_idmap_find(&c->replicas, id))
        id = dv_rng_u64(&c->rng);
    r->id = id;
    r->fn = f;
    r->node = n;
    r->since_ns = r->placed_ns = now_ns;
    int rc = dv_idmap_put(&c->replicas, id, r);
    if (rc) {
        dv_free(r);
        return rc < 0 ? rc : DV_E_BUG;
    }
    dv_list_init(&r->of_fn);
    dv_list_init(&r->pending);
    if (f) {
        r->fn_uid = f->uid;
        r->generation = f->generation;
        dv_list_push_back(&f->replicas, &r->of_fn);
        f->n_replicas++;
    }
    dv_list_push_back(&n->replicas, &r->of_node);
    promise(c, r);
    *out = r;
    return DV_OK;
}

int dv_cl_move(struct dv_cluster *c, struct dv_cluster_replica *r, enum dv_life_event ev, uint64_t now_ns)
{
    enum dv_replica_state before = r->state;
    int rc = dv_life_move(&r->state, ev, &c->counts);
    if (rc || r->state == before)
        return rc;
    r->since_ns = now_ns;
    if (r->fn && dv_life_is_ready(before) != dv_life_is_ready(r->state))
        dv_cl_dirty_routes(c, r->fn, dv_life_is_ready(before));
    if (dv_life_is_ready(r->state) && r->warm_ns == 0) /* idle ones may be frozen before they are told */
        r->warm_ns = now_ns;
    if (r->state == DV_REPLICA_FAILED || r->state == DV_REPLICA_GONE)
        release(c, r);
    return DV_OK;
}

void dv_cl_stop(struct dv_cluster *c, struct dv_cluster_replica *r, const char *why, uint64_t now_ns)
{
    if (dv_cl_move(c, r, DV_LIFE_DRAIN, now_ns))
        return;
    dv_cl_why(r, "%s", why);
    dv_cl_mark(c, r, DV_MARK_STOP);
    dv_cl_event(c, r->fn, r, NULL, "stopping", "%s", why);
}

void dv_cl_detach_fn(struct dv_cluster *c, struct dv_cluster_replica *r)
{
    if (r->fn && dv_life_is_ready(r->state))
        dv_cl_dirty_routes(c, r->fn, true);
    dv_list_remove(&r->of_fn);
    if (r->fn)
        r->fn->n_replicas--;
    r->fn = NULL;
}

void dv_cl_detach_node(struct dv_cluster *c, struct dv_cluster_replica *r)
{
    release(c, r);
    dv_list_remove(&r->of_node);
    r->node = NULL;
    dv_cl_mark(c, r, DV_MARK_NONE);
}

void dv_cl_gone(struct dv_cluster *c, struct dv_cluster_replica *r, uint64_t now_ns)
{
    dv_cl_detach_fn(c, r);
    (void)dv_cl_move(c, r, DV_LIFE_VANISH, now_ns); /* allowed from every state */
    if (r->node)
        dv_cl_detach_node(c, r);
    (void)dv_idmap_remove(&c->replicas, r->id);
    dv_cl_mark(c, r, DV_MARK_FORGET);
}

bool dv_cl_is_leaving(const struct dv_cluster_replica *r)
{
    if (!r->fn || r->generation != r->fn->generation)
        return true;
    return r->node && (r->node->is_draining || (!dv_life_is_ready(r->state) && !r->node->engine_ok));
}

bool dv_cl_is_counted(const struct dv_cluster *c, const struct dv_cluster_replica *r, uint64_t now_ns)
{
    return r->node && (r->node->is_connected || now_ns - r->node->down_ns < c->cfg.suspect_ns);
}

void dv_cluster_replica_busy(struct dv_cluster *c, uint64_t replica, int64_t in_flight)
{
    struct dv_cluster_replica *r = dv_idmap_find(&c->replicas, replica);
    if (r)
        r->in_flight = in_flight;
}

/* ---- reports ---- */

static int64_t n_live(const struct dv_cluster_fn *f)
{
    int64_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas)
        n += dv_life_is_live(REPLICA_OF_FN(it)->state);
    return n;
}

/* A replica that an agent holds and we do not know: ours from before a restart, or from before its node was
 * lost. */
static int adopt(struct dv_cluster *c, struct dv_cluster_node *n, const struct dv_replica_report *rep,
                 uint64_t now_ns)
{
    if (rep->state == DV_REPLICA_GONE || rep->id == 0)
        return DV_OK;
    struct dv_cluster_fn *f = dv_idmap_find(&c->fns, rep->fn_uid);
    bool is_welcome = f && dv_life_is_live(rep->state);
    struct dv_cluster_replica *r = NULL;
    int rc = dv_cl_replica_new(c, rep->id, is_welcome ? f : NULL, n, now_ns, &r);
    if (rc)
        return rc;
    r->fn_uid = rep->fn_uid;
    r->generation = rep->generation;
    r->is_adopted = r->was_reported = r->in_last_full = true;
    r->in_flight = rep->in_flight;
    if (!is_welcome) {
        dv_cl_stop(c, r, f ? "it had ended, or was to end" : "its function is not known", now_ns);
        return DV_OK;
    }
    (void)dv_cl_move(c, r, dv_life_event_of(rep->state), now_ns);
    r->warm_ns = 0; /* when it became warm is not known */
    dv_cl_why(r, "found running on its node");
    dv_cl_event(c, f, r, n, "adopted", "found %s on its node", dv_replica_state_name(rep->state));
    if (!c->is_learned && dv_cl_heat(c, f) == DV_OK)
        dv_scale_hold(&f->hot->scale, &f->hot->policy, n_live(f), now_ns);
    dv_cl_reconcile_soon(c, f, now_ns);
    return DV_OK;
}

static void became_ready(struct dv_cluster *c, struct dv_cluster_replica *r,
                         const struct dv_replica_report *rep, uint64_t now_ns)
{
    uint64_t from = r->asked_ns ? r->asked_ns : r->placed_ns;
    dv_cl_why(r, "serves");
    dv_cl_event(c, r->fn, r, NULL, "ready", "after %llu ms (pull %lld, create %lld, start %lld, ready %lld)",
                (unsigned long long)((now_ns - from) / 1000000), (long long)rep->times.pull_us / 1000,
                (long long)rep->times.create_us / 1000, (long long)rep->times.start_us / 1000,
                (long long)rep->times.ready_us / 1000);
    if (!r->fn)
        return;
    r->fn->asked_ns = 0;
    dv_cl_keep_own_start(r->fn, rep->times.ready_us);
}

static void ended(struct dv_cluster *c, struct dv_cluster_replica *r, uint64_t now_ns)
{
    struct dv_cluster_fn *f = r->fn;
    if (f)
        dv_cl_event(c, f, r, NULL, "stopped", "%s",
                    r->state == DV_REPLICA_DRAINING ? r->why : "it is not on its node any more");
    dv_cl_gone(c, r, now_ns);
    if (f)
        dv_cl_reconcile_soon(c, f, now_ns);
}

static void apply(struct dv_cluster *c, struct dv_cluster_replica *r, const struct dv_replica_report *rep,
                  bool is_full, uint64_t now_ns)
{
    enum dv_replica_state before = r->state;
    r->was_reported = r->in_last_full = true;
    r->in_flight = rep->in_flight;
    dv_usage_note(&r->usage, rep->cpu_us, rep->memory_bytes, now_ns);
    if (rep->state == DV_REPLICA_GONE) {
        if (before == DV_REPLICA_FAILED && r->fn)
            dv_cl_detach_node(c, r);
        else
            ended(c, r, now_ns);
        return;
    }
    (void)dv_cl_move(c, r, dv_life_event_of(rep->state),
                     now_ns); /* refused: a late report; what we know stands */
    struct dv_cluster_fn *f = r->fn;
    if (r->state == DV_REPLICA_FAILED && before != DV_REPLICA_FAILED) {
        r->reason = rep->reason;
        if (f && before != DV_REPLICA_DRAINING)
            dv_cl_failed(c, f, r, rep, dv_life_is_ready(before), now_ns);
        dv_cl_mark(c, r, DV_MARK_STOP); /* its agent may clear it away */
    } else if (is_full && !dv_life_is_live(r->state)) {
        dv_cl_mark(
            c, r,
            DV_MARK_STOP); /* still there: the command was lost, or takes its time; repeating is harmless */
    } else if (r->state == DV_REPLICA_DRAINING && before != DV_REPLICA_DRAINING) {
        dv_cl_why(r, "its node stops it");
        dv_cl_mark(c, r, DV_MARK_STOP);
    } else if (dv_life_is_ready(r->state) && !dv_life_is_ready(before)) {
        became_ready(c, r, rep, now_ns);
    } else if (r->state == DV_REPLICA_STARTING && before == DV_REPLICA_COLD) {
        dv_cl_why(r, "starts on its node");
    }
    if (f && r->state != before && !(dv_life_is_ready(r->state) && dv_life_is_ready(before)))
        dv_cl_reconcile_soon(c, f, now_ns); /* freezing and thawing change nothing that is wanted */
}

/* Not in a full report of its node. */
static void missing(struct dv_cluster *c, struct dv_cluster_replica *r, uint64_t now_ns)
{
    if (r->state == DV_REPLICA_FAILED && r->fn) {
        dv_cl_detach_node(c, r);
    } else if (!r->was_reported && now_ns - r->sent_ns < RESEND_NS) {
        return; /* the report was on its way before the command was */
    } else if (dv_life_is_live(r->state) && !r->was_reported) {
        r->sent_ns = now_ns;
        dv_cl_mark(c, r, DV_MARK_START);
    } else {
        ended(c, r, now_ns);
    }
}

static void sweep(struct dv_cluster *c, struct dv_cluster_node *n, uint64_t now_ns)
{
    struct dv_list checked;
    dv_list_init(&checked);
    while (!dv_list_empty(&n->replicas)) { /* ending one may reconcile its function and place another here */
        struct dv_cluster_replica *r = REPLICA_OF_NODE(n->replicas.next);
        dv_list_remove(&r->of_node);
        dv_list_push_back(&checked, &r->of_node);
        if (!r->in_last_full && r->placed_ns < now_ns)
            missing(c, r, now_ns);
    }
    while (!dv_list_empty(&checked)) {
        struct dv_list *it = dv_list_pop_front(&checked);
        dv_list_push_back(&n->replicas, it);
    }
}

int dv_cluster_reports(struct dv_cluster *c, uint64_t node, const struct dv_replica_report *reps,
                       size_t n_reps, bool is_full, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, node);
    if (!n)
        return DV_NOT_FOUND;
    dv_cl_begin(c, now_ns);
    n->seen_ns = now_ns;
    if (is_full)
        DV_LIST_FOR_EACH (it, &n->replicas)
            REPLICA_OF_NODE(it)->in_last_full = false;
    int result = DV_OK;
    for (size_t i = 0; i < n_reps; i++) {
        struct dv_cluster_replica *r = dv_idmap_find(&c->replicas, reps[i].id);
        if (r && r->node == n) {
            apply(c, r, &reps[i], is_full, now_ns);
        } else if (!r) {
            int rc = adopt(c, n, &reps[i], now_ns);
            result = rc ? rc : result;
        }
    }
    if (!is_full)
        return result;
    if (!result)
        sweep(c, n, now_ns);
    bool is_first = !n->is_learned;
    n->is_learned = true;
    dv_cl_view_refresh(c, n);
    dv_cl_learn(c, now_ns);
    dv_cl_pools_node(c, n);
    if (is_first)
        dv_cl_reconcile_node(c, n, now_ns);
    return result;
}
