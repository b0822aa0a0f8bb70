/* A node that is short of memory gives up what idle functions hold there, before the kernel chooses for it.
 *
 * Only functions that nobody uses are concerned, and none that its user keeps: a minimum, a pinned or set
 * number, an async backlog.  A function that is chosen has been idle long enough, from now until somebody
 * uses it again: the autoscaler sends it to zero as it does after any idle time.  (So its replicas on other
 * nodes go, too; an idle function has one, or is about to.)  Reports come every second, and what is being
 * stopped counts as given back, so no more is chosen than is needed. */
#include "orchestrator/core/cluster_internal.h"

#include "orchestrator/core/evict.h"

#define MS 1000000ull

#define IDLE_MIN_NS (10000 * MS) /* what was used that lately would only be started again */
#define ENGINE_NS   (250 * MS)   /* of a start that a primed sandbox spares */

static bool may_go(const struct dv_cluster_replica *r, uint64_t now_ns)
{
    const struct dv_cluster_fn *f = r->fn;
    if (!f || !f->hot || !dv_life_is_ready(r->state) || r->in_flight > 0 || f->hot->is_evicted)
        return false;
    const struct dv_scale_state *s = &f->hot->scale;
    const struct dv_scale_policy *p = &f->hot->policy;
    bool is_idle = s->last.waiting + s->last.in_flight == 0 && f->hot->backlog.items == 0 &&
                   now_ns - f->used_ns >= IDLE_MIN_NS && now_ns - r->since_ns >= IDLE_MIN_NS;
    return is_idle && p->min == 0 && p->override < 0 && now_ns >= s->set_until_ns;
}

static uint64_t back_ns(const struct dv_cluster *c, const struct dv_cluster_fn *f)
{
    const struct cl_kind *kind = dv_cl_primed_kind(c, &f->def->spec);
    return (uint64_t)f->own_start_us * 1000 + (dv_cl_primed_nodes(c, kind) ? 0 : ENGINE_NS);
}

static size_t gather(const struct dv_cluster *c, const struct dv_cluster_node *n, uint64_t now_ns,
                     struct dv_evict_view *v, int64_t *leaving)
{
    size_t count = 0;
    DV_LIST_FOR_EACH (it, &n->replicas) {
        struct dv_cluster_replica *r = REPLICA_OF_NODE(it);
        bool leaves = r->state == DV_REPLICA_DRAINING || (r->fn && r->fn->hot && r->fn->hot->is_evicted);
        *leaving += leaves ? r->usage.memory_bytes : 0;
        if (!v || !may_go(r, now_ns))
            continue;
        v[count++] = (struct dv_evict_view){.id = r->id,
                                            .bytes = r->usage.memory_bytes,
                                            .idle_ns = now_ns - r->fn->used_ns,
                                            .back_ns = back_ns(c, r->fn),
                                            .is_frozen = r->state == DV_REPLICA_FROZEN,
                                            .ref = r->fn};
    }
    return count;
}

void dv_cl_evict(struct dv_cluster *c, struct dv_cluster_node *n, int64_t available_bytes, uint64_t now_ns)
{
    if (!c->is_learned || dv_evict_need(n->memory_bytes, available_bytes, 0) == 0)
        return;
    int64_t leaving = 0;
    size_t count = 0;
    DV_LIST_FOR_EACH (it, &n->replicas)
        count++;
    struct dv_evict_view *v = dv_zalloc_n(count + 1, sizeof(*v));
    if (!v)
        return; /* the next report is a second away */
    count = gather(c, n, now_ns, v, &leaving);
    size_t go = dv_evict_pick(v, count, dv_evict_need(n->memory_bytes, available_bytes, leaving));
    for (size_t i = 0; i < go; i++) {
        struct dv_cluster_fn *f = v[i].ref;
        f->hot->is_evicted = true;
        dv_cl_keep_give_up(c, f);
        dv_cl_due(c, f);
    }
    dv_free(v);
    if (go > 0)
        dv_cl_event(c, NULL, NULL, n, "pressure", "%lld MiB of memory are available: %zu idle replicas go",
                    (long long)(available_bytes >> 20), go);
    dv_cl_reconcile_due(c, now_ns);
}
