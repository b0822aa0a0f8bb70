/* Pools of primed sandboxes, in the cluster: who wants them, which nodes keep them, and which have some
 * ready.
 *
 * A want is a kind of sandbox under one set of constraints; functions point to it while they ask
 * (scale.primed) or are expected (cluster_keep.c), and it stays while starts of it are remembered.  Its
 * places stand on nodes in two parts with budgets of their own, so that what is expected never takes the room
 * of what was asked for.  Wants that changed, or all of them when nodes did, are spread anew at the next
 * tick; the nodes that this changes are told the whole of theirs (DV_ACT_POOLS). On one node, wants of one
 * kind share: the largest number asked for counts, plus all that is expected.
 *
 * A node keeps its places while it is away, until it is lost: a link that breaks for a moment moves nothing.
 * Nothing is told before the cluster is learned: an orchestrator that has just started does not know all
 * nodes, and would take away on one what another is soon told to make. */
#include "orchestrator/core/cluster_internal.h"

#include "orchestrator/core/pools.h"
#include "proto/wire/codec.h"

#define HABITS_NS 10000000000ull /* how often they are looked at for fading */

struct cl_place { /* sandboxes of one want on one node */
    struct dv_list of_want, of_node;
    struct cl_want *want;
    struct dv_cluster_node *node;
    enum dv_pools_part part;
    int64_t n;
};

struct cl_want {
    uint64_t key; /* of kind and constraints */
    struct cl_kind *kind;
    struct dv_strs constraints; /* in arena */
    struct dv_arena arena;
    struct dv_list askers; /* struct cl_keep, by of_want: functions with scale.primed */
    int64_t n_users;       /* functions that point here */
    int64_t asked, expected_permille, habitual;
    struct dv_pools_habit habit;
    struct dv_list of_habits; /* while there is one */
    struct dv_list places, dirty;
    bool is_short; /* of memory for a place: spread again */
};

#define PLACE_OF_WANT(n) DV_LIST_ENTRY(n, struct cl_place, of_want)
#define PLACE_OF_NODE(n) DV_LIST_ENTRY(n, struct cl_place, of_node)

/* ---- wants ---- */

static uint64_t key_of(const struct cl_kind *k, const struct dv_strs *constraints)
{
    uint64_t h = k->hash;
    for (size_t i = 0; i < constraints->n; i++) {
        for (const char *s = constraints->v[i]; *s; s++)
            h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
        h = (h ^ 0xff) * 0x100000001b3ull;
    }
    return h;
}

static bool same_strs(const struct dv_strs *a, const struct dv_strs *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->v[i], b->v[i]) != 0)
            return false;
    return true;
}

static void want_free(struct dv_cluster *c, struct cl_want *w)
{
    dv_list_remove(&w->dirty);
    dv_list_remove(&w->of_habits);
    dv_arena_deinit(&w->arena);
    if (w->kind) {
        w->kind->n_wants--;
        dv_cl_kind_drop_unused(c, w->kind);
    }
    dv_free(w);
}

static int copy_strs(struct cl_want *w, const struct dv_strs *from)
{
    w->constraints.v = dv_arena_alloc(&w->arena, (from->n + 1) * sizeof(char *));
    for (size_t i = 0; w->constraints.v && i < from->n; i++) {
        char *s = dv_arena_strdup(&w->arena, from->v[i]);
        if (!s)
            return DV_E_NOMEM;
        w->constraints.v[w->constraints.n++] = s;
    }
    return w->constraints.v ? DV_OK : DV_E_NOMEM;
}

static struct cl_want *want_new(struct dv_cluster *c, struct cl_kind *k, uint64_t key,
                                const struct dv_strs *constraints)
{
    struct cl_want *w = dv_zalloc(sizeof(*w));
    if (!w) {
        dv_cl_kind_drop_unused(c, k);
        return NULL;
    }
    dv_list_init(&w->askers);
    dv_list_init(&w->places);
    dv_list_init(&w->dirty);
    dv_list_init(&w->of_habits);
    w->key = key;
    w->kind = k;
    k->n_wants++;
    if (copy_strs(w, constraints) || dv_idmap_put(&c->wants, key, w)) {
        want_free(c, w);
        return NULL;
    }
    return w;
}

/* The want of a function; made when it is not there.  NULL: short of memory, or no sandbox can serve it. */
static struct cl_want *want_of(struct dv_cluster *c, const struct dv_fn_spec *spec)
{
    struct dv_pool pool;
    dv_pool_of(spec, &pool);
    struct cl_kind *k = dv_cl_kind_of(c, &pool);
    if (!k)
        return NULL;
    uint64_t key = key_of(k, &spec->constraints);
    struct cl_want *w;
    for (; key == 0 || (w = dv_idmap_find(&c->wants, key)); key++)
        if (key && w->kind == k && same_strs(&w->constraints, &spec->constraints))
            return w;
    return want_new(c, k, key, &spec->constraints);
}

static void want_dirty(struct dv_cluster *c, struct cl_want *w)
{
    if (dv_list_empty(&w->dirty))
        dv_list_push_back(&c->dirty_wants, &w->dirty);
}

static void want_recount(struct dv_cluster *c, struct cl_want *w)
{
    int64_t most = 0;
    DV_LIST_FOR_EACH (it, &w->askers) {
        const struct dv_cluster_keep *k = DV_LIST_ENTRY(it, struct dv_cluster_keep, of_want);
        most = k->asks > most ? k->asks : most;
    }
    w->asked = most;
    want_dirty(c, w);
}

bool dv_cl_pools_work(const struct dv_cluster *c)
{
    return c->primed_seen || !c->primed_told;
}

static int64_t expected(const struct cl_want *w)
{
    int64_t n = (w->expected_permille + 999) / 1000;
    return n > w->habitual ? n : w->habitual;
}

bool dv_cl_may_be_primed(const struct dv_fn_spec *spec)
{
    return spec->pull != DV_PULL_ALWAYS;
}

/* ---- functions ---- */

int dv_cl_pools_expect(struct dv_cluster *c, struct dv_cluster_fn *f, int64_t permille)
{
    struct dv_cluster_keep *k = f->keep;
    if (!k || k->expects == permille)
        return DV_OK;
    if (!k->want) {
        if (!(k->want = want_of(c, &f->def->spec)))
            return DV_E_NOMEM;
        k->want->n_users++;
    }
    int64_t before = expected(k->want);
    k->want->expected_permille += permille - k->expects;
    k->expects = permille;
    if (expected(k->want) != before)
        want_dirty(c, k->want);
    return DV_OK;
}

void dv_cl_pools_forget_fn(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    struct dv_cluster_keep *k = f->keep;
    struct cl_want *w = k ? k->want : NULL;
    if (!w)
        return;
    dv_list_remove(&k->of_want);
    w->expected_permille -= k->expects;
    k->expects = k->asks = 0;
    k->want = NULL;
    w->n_users--;
    want_recount(c, w); /* the last user gone, its places go at the next tick, and it with them */
}

int dv_cl_pools_fn(struct dv_cluster *c, struct dv_cluster_fn *f)
{
    const struct dv_fn_spec *spec = &f->def->spec;
    int64_t asks = dv_cl_may_be_primed(spec) ? spec->scale.primed : 0;
    dv_cl_pools_forget_fn(c, f); /* its kind may be another */
    if (asks <= 0)
        return DV_OK;
    if (dv_cl_keep_of(c, f) || !(f->keep->want = want_of(c, spec)))
        return DV_E_NOMEM;
    f->keep->asks = asks;
    f->keep->want->n_users++;
    dv_list_push_back(&f->keep->want->askers, &f->keep->of_want);
    want_recount(c, f->keep->want);
    return DV_OK;
}

/* ---- habits ---- */

static void see_habit(struct dv_cluster *c, struct cl_want *w, uint64_t now_ns)
{
    int64_t n = dv_pools_habitual(&w->habit, now_ns);
    if (n == w->habitual)
        return;
    w->habitual = n;
    want_dirty(c, w);
}

void dv_cl_pools_started(struct dv_cluster *c, const struct dv_cluster_fn *f, uint64_t now_ns)
{
    if (c->cfg.keep.is_fixed || !dv_cl_may_be_primed(&f->def->spec))
        return;
    struct cl_want *w = f->keep && f->keep->want ? f->keep->want : want_of(c, &f->def->spec);
    if (!w)
        return; /* short of memory: one start less is known */
    dv_pools_started(&w->habit, now_ns);
    if (dv_list_empty(&w->of_habits))
        dv_list_push_back(&c->habits, &w->of_habits);
    see_habit(c, w, now_ns);
}

void dv_cl_pools_habits(struct dv_cluster *c, uint64_t now_ns)
{
    if (now_ns < c->habits_at_ns)
        return;
    c->habits_at_ns = now_ns + HABITS_NS;
    DV_LIST_FOR_EACH_SAFE (it, &c->habits) {
        struct cl_want *w = DV_LIST_ENTRY(it, struct cl_want, of_habits);
        see_habit(c, w, now_ns);
        if (!dv_pools_forgotten(&w->habit))
            continue;
        dv_list_remove(&w->of_habits);
        want_dirty(c, w);
    }
}

/* ---- places ---- */

static bool may_hold(const struct dv_cluster *c, const struct dv_cluster_node *n, const struct cl_want *w)
{
    if (!n->has_places)
        return false;
    if (w->constraints.n == 0)
        return true;
    struct dv_need need = {.constraints = &w->constraints};
    struct dv_node_view v = c->views[n->index]; /* what it is, not how it is at the moment */
    v.is_ready = true;
    v.n_replicas = v.promised_bytes = v.promised_mcpu = 0;
    v.cpu_mcpu = v.memory_bytes = v.max_replicas = 1;
    return dv_sched_fit(&need, &v) == DV_FITS;
}

/* What it holds changed. */
static void node_dirty(struct dv_cluster *c, struct dv_cluster_node *n)
{
    dv_cl_view_refresh(c, n);
    if (dv_list_empty(&n->pools_dirty))
        dv_list_push_back(&c->dirty_nodes, &n->pools_dirty);
}

static void place_free(struct dv_cluster *c, struct cl_place *p)
{
    p->node->n_places[p->part] -= p->n;
    node_dirty(c, p->node);
    dv_list_remove(&p->of_node);
    dv_list_remove(&p->of_want);
    dv_free(p);
}

static void place_put(struct dv_cluster *c, struct cl_want *w, enum dv_pools_part part,
                      struct dv_cluster_node *n, int64_t count)
{
    struct cl_place *p = dv_zalloc(sizeof(*p));
    if (!p) {
        w->is_short = true;
        return;
    }
    *p = (struct cl_place){.want = w, .node = n, .part = part, .n = count};
    c->primed_told = true;
    n->n_places[part] += count;
    dv_list_push_back(&w->places, &p->of_want);
    dv_list_push_back(&n->places, &p->of_node);
    node_dirty(c, n);
}

/* Bring the places of one part in line with what the spread gave; scratch is by node, `given` entries long.
 */
static void place_all(struct dv_cluster *c, struct cl_want *w, enum dv_pools_part part,
                      const struct dv_pools_node *given, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c->by_index[given[i].index]->share = given[i].n;
    DV_LIST_FOR_EACH_SAFE (it, &w->places) {
        struct cl_place *p = PLACE_OF_WANT(it);
        if (p->part != part)
            continue;
        int64_t share = p->node->share;
        p->node->share = 0;
        if (share == p->n)
            continue;
        if (share == 0) {
            place_free(c, p);
            continue;
        }
        p->node->n_places[part] += share - p->n;
        p->n = share;
        node_dirty(c, p->node);
    }
    for (size_t i = 0; i < n; i++) {
        struct dv_cluster_node *node = c->by_index[given[i].index];
        if (node->share > 0)
            place_put(c, w, part, node, node->share);
        node->share = 0;
    }
}

static void spread_part(struct dv_cluster *c, struct cl_want *w, enum dv_pools_part part, int64_t wanted,
                        struct dv_pools_node *nodes)
{
    size_t n = 0;
    for (size_t i = 0; wanted > 0 && i < c->n_views; i++) {
        struct dv_cluster_node *node = c->by_index[i];
        if (!may_hold(c, node, w))
            continue;
        int64_t room = dv_pools_budget(part, node->memory_bytes, node->primed_max) - node->n_places[part];
        nodes[n++] = (struct dv_pools_node){.id = node->id, .index = i, .room = room};
    }
    DV_LIST_FOR_EACH (it, &w->places) /* its own places are its own room */
        if (PLACE_OF_WANT(it)->part == part)
            PLACE_OF_WANT(it)->node->share = PLACE_OF_WANT(it)->n;
    for (size_t i = 0; i < n; i++) {
        struct dv_cluster_node *node = c->by_index[nodes[i].index];
        nodes[i].room += node->share;
        nodes[i].room = nodes[i].room > 0 ? nodes[i].room : 0;
    }
    DV_LIST_FOR_EACH (it, &w->places)
        PLACE_OF_WANT(it)->node->share = 0;
    (void)dv_pools_spread(w->kind->hash, wanted, nodes, n);
    place_all(c, w, part, nodes, n);
}

static int spread_dirty(struct dv_cluster *c)
{
    if (dv_list_empty(&c->dirty_wants))
        return DV_OK;
    struct dv_pools_node *nodes = dv_zalloc_n(c->n_views + 1, sizeof(*nodes));
    if (!nodes)
        return DV_E_NOMEM;
    DV_LIST_FOR_EACH_SAFE (it, &c->dirty_wants) {
        struct cl_want *w = DV_LIST_ENTRY(it, struct cl_want, dirty);
        w->is_short = false;
        spread_part(c, w, DV_POOLS_ASKED, w->asked, nodes);
        spread_part(c, w, DV_POOLS_EXPECTED, expected(w), nodes);
        if (!w->is_short)
            dv_list_remove(&w->dirty);
        if (w->n_users == 0 && dv_list_empty(&w->places) && dv_list_empty(&w->of_habits)) {
            (void)dv_idmap_remove(&c->wants, w->key);
            want_free(c, w);
        }
    }
    dv_free(nodes);
    return DV_OK;
}

void dv_cl_pools_settle(struct dv_cluster *c)
{
    if (!dv_cl_pools_unsettled(c))
        return;
    struct cl_want *w;
    for (size_t i = 0; c->nodes_changed && (w = dv_map_next(&c->wants, &i));)
        want_dirty(c, w);
    if (spread_dirty(c))
        return; /* still dirty: the next tick tries again */
    c->nodes_changed = false;
    struct dv_list *it;
    while ((it = dv_list_pop_front(&c->dirty_nodes)))
        dv_list_push_back(&c->tells, it);
}

bool dv_cl_pools_unsettled(const struct dv_cluster *c)
{
    return c->is_learned &&
           (c->nodes_changed || !dv_list_empty(&c->dirty_wants) || !dv_list_empty(&c->dirty_nodes));
}

/* ---- nodes ---- */

void dv_cl_pools_node(struct dv_cluster *c, struct dv_cluster_node *n)
{
    bool knows = n->has_places || (n->is_reported && n->is_learned);
    bool may = knows && !n->is_lost && !n->is_cordoned && !n->is_draining && n->memory_bytes > 0;
    if (may != n->has_places) {
        n->has_places = may;
        c->nodes_changed = true;
    }
    if (n->is_connected && n->is_learned && !n->pools_told) {
        n->pools_told = true; /* once a connection, even where there is nothing to keep */
        node_dirty(c, n);
    }
    if (c->wants.n == 0)
        dv_cl_pools_settle(c); /* nothing to spread, so it need not be gathered for a tick */
}

void dv_cl_pools_forget_node(struct dv_cluster *c, struct dv_cluster_node *n)
{
    while (!dv_list_empty(&n->places))
        place_free(c, PLACE_OF_NODE(n->places.next));
    dv_list_remove(&n->pools_dirty);
    n->has_places = false;
    dv_cl_primed_forget_node(c, n);
    c->nodes_changed = true;
}

static struct dv_pool *entry_of(const struct cl_place *p, struct dv_pool *out, size_t *n, size_t cap)
{
    const struct dv_pool *kind = &p->want->kind->pool;
    for (size_t i = 0; i < *n; i++)
        if (out[i].image == kind->image) /* a kind has a text of its own */
            return &out[i];
    if (*n == cap)
        return NULL;
    out[*n] = *kind;
    out[*n].n = 0;
    return &out[(*n)++];
}

/* What was asked for comes first: a node that keeps fewer than all leaves out the last. */
size_t dv_cluster_pools(const struct dv_cluster *c, const struct dv_cluster_node *n, struct dv_pool *out,
                        size_t cap)
{
    (void)c;
    size_t count = 0;
    for (int part = 0; part < DV_POOLS_PARTS; part++)
        DV_LIST_FOR_EACH (it, &n->places) {
            const struct cl_place *p = PLACE_OF_NODE(it);
            struct dv_pool *e = (int)p->part == part ? entry_of(p, out, &count, cap) : NULL;
            if (!e)
                continue;
            if (part == DV_POOLS_EXPECTED)
                e->n += p->n;
            else if (p->n > e->n)
                e->n = p->n;
        }
    return count;
}

size_t dv_cluster_pools_max(const struct dv_cluster_node *n)
{
    size_t count = 0;
    DV_LIST_FOR_EACH (it, &n->places)
        count++;
    return count;
}

/* ---- life ---- */

void dv_cl_pools_init(struct dv_cluster *c)
{
    dv_map_init(&c->kinds, dv_rng_u64(&c->rng));
    dv_map_init(&c->wants, dv_rng_u64(&c->rng));
    dv_haves_init(&c->primed, dv_rng_u64(&c->rng));
    dv_list_init(&c->dirty_wants);
    dv_list_init(&c->habits);
    dv_list_init(&c->dirty_nodes);
    dv_list_init(&c->tells);
}

void dv_cl_pools_deinit(struct dv_cluster *c)
{
    struct cl_want *w;
    for (size_t i = 0; (w = dv_map_next(&c->wants, &i));) {
        dv_arena_deinit(&w->arena);
        dv_free(w);
    }
    struct cl_kind *k;
    for (size_t i = 0; (k = dv_map_next(&c->kinds, &i));)
        dv_cl_kind_free(k);
    dv_map_deinit(&c->wants);
    dv_map_deinit(&c->kinds);
    dv_haves_deinit(&c->primed);
}
