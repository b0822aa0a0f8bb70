/* Kinds of primed sandboxes, and which nodes have how many of each ready.
 *
 * A kind is kept while somebody wants it (cluster_pools.c) or a node has one ready.  Nodes tell what they
 * have in their reports; what is about to be opened is taken off at once, so that a burst goes on to where
 * more are. */
#include "orchestrator/core/cluster_internal.h"

#include "orchestrator/core/pools.h"

struct cl_ready { /* sandboxes of one kind that one node has ready */
    struct dv_list of_node;
    struct cl_kind *kind;
    struct dv_cluster_node *node;
    int64_t n;
    bool in_report;
};

#define READY_OF_NODE(n) DV_LIST_ENTRY(n, struct cl_ready, of_node)

/* ---- kinds ---- */

static struct cl_kind *kind_find(const struct dv_cluster *c, const struct dv_pool *pool)
{
    struct cl_kind *k;
    for (uint64_t hash = dv_pools_hash(pool); (k = dv_idmap_find(&c->kinds, hash)); hash++)
        if (dv_pool_same(&k->pool, pool))
            return k;
    return NULL;
}

void dv_cl_kind_free(struct cl_kind *k)
{
    if (!k)
        return;
    dv_arena_deinit(&k->arena);
    dv_free(k);
}

struct cl_kind *dv_cl_kind_of(struct dv_cluster *c, const struct dv_pool *pool)
{
    struct cl_kind *k = kind_find(c, pool);
    if (k || !(k = dv_zalloc(sizeof(*k))))
        return k;
    for (k->hash = dv_pools_hash(pool); k->hash == 0 || dv_idmap_find(&c->kinds, k->hash);)
        k->hash++;
    (void)snprintf(k->name, sizeof(k->name), "%016llx", (unsigned long long)k->hash);
    if (dv_wire_copy(&dv_type_pool, pool, &k->arena, &k->pool) || dv_idmap_put(&c->kinds, k->hash, k)) {
        dv_cl_kind_free(k);
        return NULL;
    }
    return k;
}

void dv_cl_kind_drop_unused(struct dv_cluster *c, struct cl_kind *k)
{
    if (k->n_wants + k->n_ready > 0)
        return;
    (void)dv_idmap_remove(&c->kinds, k->hash);
    dv_cl_kind_free(k);
}

/* ---- what is ready ---- */

static struct cl_ready *ready_at(struct dv_cluster_node *n, const struct cl_kind *k)
{
    DV_LIST_FOR_EACH (it, &n->ready)
        if (READY_OF_NODE(it)->kind == k)
            return READY_OF_NODE(it);
    return NULL;
}

static void ready_free(struct dv_cluster *c, struct cl_ready *r)
{
    struct cl_kind *k = r->kind;
    dv_haves_drop(&c->primed, (uint32_t)r->node->index, &r->node->primed, dv_sv_c(k->name));
    dv_list_remove(&r->of_node);
    k->n_ready--;
    dv_free(r);
    dv_cl_kind_drop_unused(c, k);
}

static void take_ready(struct dv_cluster *c, struct dv_cluster_node *n, const struct dv_pool *seen)
{
    struct cl_kind *k = dv_cl_kind_of(c, seen);
    if (!k)
        return;
    struct cl_ready *r = ready_at(n, k);
    if (!r && seen->n > 0 && (r = dv_zalloc(sizeof(*r)))) {
        r->kind = k;
        r->node = n;
        k->n_ready++;
        dv_list_push_back(&n->ready, &r->of_node);
    }
    /* Short of memory: a sandbox that is not known of only costs a better choice. */
    if (r && seen->n > 0 &&
        dv_haves_add(&c->primed, (uint32_t)n->index, &n->primed, dv_sv_c(k->name)) == DV_OK) {
        c->primed_seen = true;
        r->n = seen->n;
        r->in_report = true;
    }
    dv_cl_kind_drop_unused(c, k);
}

void dv_cl_pools_report(struct dv_cluster *c, struct dv_cluster_node *n, const struct dv_pool *pools,
                        size_t n_pools)
{
    DV_LIST_FOR_EACH (it, &n->ready)
        READY_OF_NODE(it)->in_report = false;
    for (size_t i = 0; i < n_pools; i++)
        if (pools[i].image)
            take_ready(c, n, &pools[i]);
    DV_LIST_FOR_EACH_SAFE (it, &n->ready) {
        if (!READY_OF_NODE(it)->in_report)
            ready_free(c, READY_OF_NODE(it));
    }
}

void dv_cl_primed_forget_node(struct dv_cluster *c, struct dv_cluster_node *n)
{
    while (!dv_list_empty(&n->ready))
        ready_free(c, READY_OF_NODE(n->ready.next));
}

struct cl_kind *dv_cl_primed_kind(const struct dv_cluster *c, const struct dv_fn_spec *spec)
{
    struct dv_pool pool;
    if (c->kinds.n == 0 || !dv_cl_may_be_primed(spec))
        return NULL;
    dv_pool_of(spec, &pool);
    return kind_find(c, &pool);
}

const struct dv_have *dv_cl_primed_nodes(const struct dv_cluster *c, const struct cl_kind *k)
{
    return k ? dv_haves_find(&c->primed, dv_sv_c(k->name)) : NULL;
}

bool dv_cl_primed_take(struct dv_cluster *c, const struct cl_kind *k, struct dv_cluster_node *n)
{
    struct cl_ready *r = k ? ready_at(n, k) : NULL;
    if (!r || r->n <= 0)
        return false;
    if (--r->n == 0)
        dv_haves_drop(&c->primed, (uint32_t)n->index, &n->primed, dv_sv_c(k->name));
    return true;
}
