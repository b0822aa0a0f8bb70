/* Nodes: what they offer, when they come and go.  The views that the scheduler reads stand in one dense array
 * and are kept current here, so that placing a replica walks memory in order and computes nothing. */
#include "orchestrator/core/cluster_internal.h"

void dv_cl_view_refresh(struct dv_cluster *c, struct dv_cluster_node *n)
{
    struct dv_node_view *v = &c->views[n->index];
    v->id = n->id;
    v->name = n->name;
    v->arch = n->arch;
    v->labels = &n->labels;
    v->is_ready = n->is_connected && n->is_reported && n->is_learned && n->engine_ok && !n->is_cordoned &&
                  !n->is_draining;
}

static bool is_ready(const struct dv_cluster *c, const struct dv_cluster_node *n)
{
    return c->views[n->index].is_ready;
}

static void clear_images(struct dv_cluster_node *n)
{
    uint64_t seed = n->images.seed;
    dv_map_deinit(&n->images);
    dv_map_init(&n->images, seed);
    dv_arena_reset(&n->images_arena);
}

void dv_cl_node_free(struct dv_cluster *c, struct dv_cluster_node *n)
{
    (void)c;
    dv_map_deinit(&n->images);
    dv_arena_deinit(&n->images_arena);
    dv_arena_deinit(&n->labels_arena);
    dv_free(n);
}

static int room_for_one(struct dv_cluster *c)
{
    if (c->n_views < c->cap_views)
        return DV_OK;
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
    dv_list_init(&n->replicas);
    dv_map_init(&n->images, dv_rng_u64(&c->rng));
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

static int copy_labels(struct dv_cluster_node *n, const struct dv_kvs *from)
{
    struct dv_arena arena = DV_ARENA_INIT;
    struct dv_kvs to = {dv_arena_alloc(&arena, (from->n + 1) * sizeof(struct dv_kv)), from->n};
    bool ok = to.v != NULL;
    for (size_t i = 0; ok && i < from->n; i++) {
        to.v[i].k = dv_arena_strdup(&arena, from->v[i].k);
        to.v[i].v = dv_arena_strdup(&arena, from->v[i].v ? from->v[i].v : "");
        ok = to.v[i].k && to.v[i].v;
    }
    if (!ok) {
        dv_arena_deinit(&arena);
        return DV_E_NOMEM;
    }
    dv_arena_deinit(&n->labels_arena);
    n->labels_arena = arena;
    n->labels = to;
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
    return rc;
}

static void reconcile_active(struct dv_cluster *c, uint64_t now_ns)
{
    DV_LIST_FOR_EACH_SAFE (it, &c->active)
        dv_cl_reconcile(c, DV_LIST_ENTRY(it, struct dv_cluster_fn, active), now_ns);
}

void dv_cl_reconcile_node(struct dv_cluster *c, struct dv_cluster_node *n, uint64_t now_ns)
{
    /* A reconcile may take replicas off this list, so walk the functions with something going on instead. */
    DV_LIST_FOR_EACH_SAFE (it, &c->active) {
        struct dv_cluster_fn *f = DV_LIST_ENTRY(it, struct dv_cluster_fn, active);
        bool concerned = is_ready(c, n) && (f->unplaced_since_ns || dv_cluster_fn_waiting(f));
        DV_LIST_FOR_EACH (jt, &f->replicas)
            if (REPLICA_OF_FN(jt)->node == n)
                concerned = true;
        if (concerned)
            dv_cl_reconcile(c, f, now_ns);
    }
}

static void dirty_routes_of(struct dv_cluster *c, struct dv_cluster_node *n)
{
    DV_LIST_FOR_EACH (it, &n->replicas) {
        struct dv_cluster_replica *r = REPLICA_OF_NODE(it);
        if (r->fn && dv_life_is_ready(r->state))
            dv_cl_dirty_routes(c, r->fn);
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

void dv_cluster_node_remove(struct dv_cluster *c, uint64_t id, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_remove(&c->nodes, id);
    if (!n)
        return;
    n->is_connected = false;
    dv_cl_view_refresh(c, n);
    give_up(c, n, "its node was removed from the cluster", now_ns);
    size_t last = --c->n_views;
    c->views[n->index] = c->views[last];
    c->by_index[n->index] = c->by_index[last];
    c->by_index[n->index]->index = n->index;
    dv_cl_node_free(c, n);
    dv_cl_learn(c, now_ns);
    reconcile_active(c, now_ns);
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
    dv_cl_reconcile_node(c, n, now_ns);
}

void dv_cluster_node_up(struct dv_cluster *c, uint64_t id, uint64_t now_ns)
{
    struct dv_cluster_node *n = dv_idmap_find(&c->nodes, id);
    if (!n)
        return;
    n->is_connected = true;
    n->is_lost = n->is_learned = false;
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

static void take_images(struct dv_cluster_node *n, const struct dv_strs *images)
{
    clear_images(n);
    for (size_t i = 0; i < images->n; i++) {
        char *name = dv_arena_strdup(&n->images_arena, images->v[i]);
        if (!name || dv_map_put(&n->images, dv_sv_c(name), name) < 0)
            return; /* fewer known images only cost a better choice */
    }
}

bool dv_cl_has_image(const struct dv_cluster_node *n, const char *image)
{
    if (!image || n->images.n == 0)
        return false;
    if (dv_map_find(&n->images, dv_sv_c(image)))
        return true;
    /* "busybox" is what the engine lists as "busybox:latest" */
    const char *slash = strrchr(image, '/');
    char tagged[512];
    if (strchr(slash ? slash : image, ':') || strlen(image) + sizeof(":latest") > sizeof(tagged))
        return false;
    (void)snprintf(tagged, sizeof(tagged), "%s:latest", image);
    return dv_map_find(&n->images, dv_sv_c(tagged)) != NULL;
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
    (void)dv_copy(n->arch, sizeof(n->arch), r->arch ? r->arch : "");
    struct dv_node_view *v = &c->views[n->index];
    if (r->cpus > 0)
        v->cpu_mcpu = r->cpus * 1000;
    if (r->memory_bytes > 0)
        v->memory_bytes = r->memory_bytes;
    if (r->replicas_max > 0)
        v->max_replicas = r->replicas_max;
    if (r->images.n > 0)
        take_images(n, &r->images);
    dv_cl_view_refresh(c, n);
    if (was_ready != is_ready(c, n) || had_engine != n->engine_ok)
        dv_cl_reconcile_node(c, n, now_ns);
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
        dv_cl_event(c, NULL, NULL, n, "lost", "the node has been silent for %llu s",
                    (unsigned long long)((now_ns - n->down_ns) / 1000000000ull));
        give_up(c, n, "its node was lost", now_ns);
    }
}
