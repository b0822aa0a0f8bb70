/* Nodes: what they offer, when they come and go.  The views that the scheduler reads stand in one dense array
 * and are kept current here, so that placing a replica walks memory in order and computes nothing. */
#include "orchestrator/core/cluster_internal.h"

#include "orchestrator/core/pools.h"

void dv_cl_view_changed(struct dv_cluster *c, const struct dv_cluster_node *n)
{
    dv_sched_index_update(&c->index, c->views, n->index);
}

void dv_cl_view_refresh(struct dv_cluster *c, struct dv_cluster_node *n)
{
    struct dv_node_view *v = &c->views[n->index];
    v->id = n->id;
    v->name = n->name;
    v->arch = n->arch;
    v->labels = &n->labels;
    v->memory_bytes = n->memory_bytes - (n->n_places[0] + n->n_places[1]) * DV_POOLS_SANDBOX_BYTES;
    v->is_ready = n->is_connected && n->is_reported && n->is_learned && n->engine_ok && !n->is_cordoned &&
                  !n->is_draining;
    dv_cl_view_changed(c, n);
}

static bool is_ready(const struct dv_cluster *c, const struct dv_cluster_node *n)
{
    return c->views[n->index].is_ready;
}

void dv_cl_node_free(struct dv_cluster *c, struct dv_cluster_node *n)
{
    dv_cl_pools_forget_node(c, n);
    dv_haves_clear(&c->images, (uint32_t)n->index, &n->images);
    dv_free(n->labels.v);
    dv_free(n);
}

static int room_for_one(struct dv_cluster *c)
{
    int rc = dv_sched_index_resize(&c->index, c->n_views + 1);
    if (rc || c->n_views < c->cap_views)
        return rc;
    size_t cap = c->cap_views ? c->cap_views * 2 : 16;
    struct dv_node_view *views = dv_realloc(c->views, cap * sizeof(*views));
    if (!views)
        return DV_E_NOMEM;
    c->views = views;
    struct dv_cluster_node **by_index = dv_realloc(c->by_index, cap * sizeof(struct dv_cluster_node *));
    if (!by_index)
        return DV_E_NOMEM;
    c->by_index = by_index;
    c->cap_views = cap;
    return DV_OK;
}

static int node_new(struct dv_cluster *c, uint64_t id, uint64_t now_ns, struct dv_cluster_node **out)
{
    int rc = room_for_one(c);
    if (rc)
        return rc;
    struct dv_cluster_node *n = dv_zalloc(sizeof(*n));
    if (!n)
        return DV_E_NOMEM;
    n->id = id;
    n->seen_ns = n->down_ns = now_ns;
    n->engine_ok = true;
    struct dv_list *const lists[] = {&n->replicas, &n->places, &n->ready, &n->pools_dirty};
    for (size_t i = 0; i < DV_COUNT(lists); i++)
        dv_list_init(lists[i]);
    if ((rc = dv_idmap_put(&c->nodes, id, n))) {
        dv_free(n);
        return rc;
    }
    n->index = c->n_views++;
    c->by_index[n->index] = n;
    c->views[n->index] = (struct dv_node_view){.max_replicas = 500};
    *out = n;
    return DV_OK;
}

/* Into one block: a node has few labels, and thousands of nodes have them. */
static int copy_labels(struct dv_cluster_node *n, const struct dv_kvs *from)
{
    size_t bytes = from->n * sizeof(struct dv_kv);
    for (size_t i = 0; i < from->n; i++)
        bytes += strlen(from->v[i].k) + strlen(from->v[i].v ? from->v[i].v : "") + 2;
    struct dv_kv *v = bytes ? dv_alloc(bytes) : NULL;
    if (bytes && !v)
        return DV_E_NOMEM;
    char *text = (char *)(v + from->n);
    for (size_t i = 0; i < from->n; i++) {
        const char *const pair[] = {from->v[i].k, from->v[i].v ? from->v[i].v : ""};
        char **const to[] = {&v[i].k, &v[i].v};
        for (size_t k = 0; k < DV_COUNT(pair); k++) {
            size_t len = strlen(pair[k]) + 1;
            *to[k] = memcpy(text, pair[k], len);
            text += len;
        }
    }
    dv_free(n->labels.v);
    n->labels = (struct dv_kvs){v, from->n};
    return DV_OK;
}

int dv_cluster_node_put(struct dv_cluster *c, const struct dv_node_record *rec, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, rec->node);
    int rc = DV_OK;
    if (!n && (rc = node_new(c, rec->node, now_ns, &n)))
        return rc;
    n->is_cordoned = rec->is_cordoned;
    (void)dv_copy(n->name, sizeof(n->name), rec->name ? rec->name : "");
    rc = copy_labels(n, &rec->labels);
    dv_cl_view_refresh(c, n);
    dv_sched_index_relabel(&c->index, c->views, n->index);
    dv_cl_pools_node(c, n);
    c->nodes_changed = true; /* its labels may have */
    return rc;
}

static void due_on(struct dv_cluster *c, struct dv_cluster_node *n)
{
    DV_LIST_FOR_EACH (it, &n->replicas)
        if (REPLICA_OF_NODE(it)->fn)
            dv_cl_due(c, REPLICA_OF_NODE(it)->fn);
}

void dv_cl_reconcile_node(struct dv_cluster *c, struct dv_cluster_node *n, uint64_t now_ns)
{
    /* A reconcile may take replicas off the node's list, so those concerned are listed first. */
    due_on(c, n);
    if (is_ready(c, n))
        DV_LIST_FOR_EACH (it, &c->lacking)
            dv_cl_due(c, DV_LIST_ENTRY(it, struct dv_cluster_fn, lacking));
    dv_cl_reconcile_due(c, now_ns);
}

static void dirty_routes_of(struct dv_cluster *c, struct dv_cluster_node *n)
{
    DV_LIST_FOR_EACH (it, &n->replicas) {
        struct dv_cluster_replica *r = REPLICA_OF_NODE(it);
        if (r->fn && dv_life_is_ready(r->state))
            dv_cl_dirty_routes(c, r->fn, true);
    }
}

/* Everything on it is given up; should it come back, its full report offers them again. */
static void give_up(struct dv_cluster *c, struct dv_cluster_node *n, const char *why, uint64_t now_ns)
{
    while (!dv_list_empty(&n->replicas)) {
        struct dv_cluster_replica *r = REPLICA_OF_NODE(n->replicas.next);
        if (r->state == DV_REPLICA_FAILED && r->fn) {
            dv_cl_detach_node(c, r); /* what is left of it is its story */
            continue;
        }
        r->reason = DV_REASON_NODE_LOST;
        if (r->fn && dv_life_is_live(r->state))
            dv_cl_event(c, r->fn, r, n, "lost", "%s", why);
        dv_cl_gone(c, r, now_ns);
    }
}

/* Free it; the last node takes its number. */
static void take_out(struct dv_cluster *c, struct dv_cluster_node *n)
{
    size_t at = n->index, last = --c->n_views;
    dv_cl_node_free(c, n);
    if (at != last) {
        struct dv_cluster_node *moved = c->by_index[last];
        dv_haves_renumber(&moved->images, (uint32_t)last, (uint32_t)at);
        dv_haves_renumber(&moved->primed, (uint32_t)last, (uint32_t)at);
        c->views[at] = c->views[last];
        c->by_index[at] = moved;
        moved->index = at;
        dv_sched_index_update(&c->index, c->views, at);
        dv_sched_index_relabel(&c->index, c->views, at);
    }
    (void)dv_sched_index_resize(&c->index, c->n_views); /* smaller: cannot fail */
}

void dv_cluster_node_remove(struct dv_cluster *c, uint64_t id, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_remove(&c->nodes, id);
    if (!n)
        return;
    n->is_connected = false;
    dv_cl_view_refresh(c, n);
    due_on(c, n);
    give_up(c, n, "its node was removed from the cluster", now_ns);
    dv_cl_pools_forget_node(c, n);
    take_out(c, n);
    dv_cl_learn(c, now_ns);
    dv_cl_reconcile_due(c, now_ns);
}

void dv_cluster_node_cordon(struct dv_cluster *c, uint64_t id, bool is_cordoned, bool is_draining,
                            uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, id);
    if (!n)
        return;
    n->is_cordoned = is_cordoned;
    n->is_draining = is_draining;
    dv_cl_view_refresh(c, n);
    dv_cl_pools_node(c, n);
    dv_cl_reconcile_node(c, n, now_ns);
}

void dv_cluster_node_up(struct dv_cluster *c, uint64_t id, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, id);
    if (!n)
        return;
    n->is_connected = true;
    n->is_lost = n->is_learned = n->pools_told = false;
    n->seen_ns = now_ns;
    dv_cl_view_refresh(c, n);
    dirty_routes_of(c, n);
}

void dv_cluster_node_down(struct dv_cluster *c, uint64_t id, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, id);
    if (!n || !n->is_connected)
        return;
    n->is_connected = n->is_learned = false;
    n->down_ns = now_ns;
    dv_cl_view_refresh(c, n);
    dirty_routes_of(c, n);
}

void dv_cl_image_find(const struct dv_cluster *c, const char *image, const struct dv_have *out[2])
{
    out[0] = out[1] = NULL;
    if (!image)
        return;
    out[0] = dv_haves_find(&c->images, dv_sv_c(image));
    /* "busybox" is what the engine lists as "busybox:latest" */
    const char *slash = strrchr(image, '/');
    char tagged[512];
    if (strchr(slash ? slash : image, ':') || strlen(image) + sizeof(":latest") > sizeof(tagged))
        return;
    (void)snprintf(tagged, sizeof(tagged), "%s:latest", image);
    out[1] = dv_haves_find(&c->images, dv_sv_c(tagged));
}

int dv_cluster_node_report(struct dv_cluster *c, uint64_t id, const struct dv_node_report *r, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, id);
    if (!n)
        return DV_NOT_FOUND;
    bool was_ready = is_ready(c, n), had_engine = n->engine_ok;
    n->seen_ns = now_ns;
    n->is_reported = true;
    n->engine_ok = r->engine_ok;
    bool has_other_arch = strncmp(n->arch, r->arch ? r->arch : "", sizeof(n->arch) - 1) != 0;
    (void)dv_copy(n->arch, sizeof(n->arch), r->arch ? r->arch : "");
    struct dv_node_view *v = &c->views[n->index];
    if (r->cpus > 0)
        v->cpu_mcpu = r->cpus * 1000;
    if (r->memory_bytes > 0)
        n->memory_bytes = r->memory_bytes;
    if (r->replicas_max > 0)
        v->max_replicas = r->replicas_max;
    if (r->images.n > 0) /* short of memory: fewer known images only cost a better choice */
        (void)dv_haves_put(&c->images, (uint32_t)n->index, &n->images, r->images.v, r->images.n);
    c->nodes_changed |= n->primed_max != r->primed_max;
    n->primed_max = r->primed_max;
    dv_cl_pools_report(c, n, r->pools, r->n_pools);
    dv_cl_view_refresh(c, n);
    dv_cl_pools_node(c, n);
    if (has_other_arch)
        dv_sched_index_relabel(&c->index, c->views, n->index);
    if (was_ready != is_ready(c, n) || had_engine != n->engine_ok)
        dv_cl_reconcile_node(c, n, now_ns);
    dv_cl_evict(c, n, r->memory_available_bytes, now_ns);
    return DV_OK;
}

void dv_cl_nodes_tick(struct dv_cluster *c, uint64_t now_ns)
{
    for (size_t i = 0; i < c->n_views; i++) {
        struct dv_cluster_node *n = c->by_index[i];
        if (n->is_connected || n->is_lost || now_ns - n->seen_ns < c->cfg.node_lost_ns ||
            now_ns - n->down_ns < c->cfg.node_lost_ns)
            continue;
        n->is_lost = true;
        dv_cl_pools_node(c, n);
        dv_cl_event(c, NULL, NULL, n, "lost", "the node has been silent for %llu s",
                    (unsigned long long)((now_ns - n->down_ns) / 1000000000ull));
        give_up(c, n, "its node was lost", now_ns);
    }
}
