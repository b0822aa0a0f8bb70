/* A tournament tree over the nodes.  Every vertex knows the most memory and the most processor that any node
 * below it has free, and the least key below it (how much is promised, then the id: what dv_sched_place ends
 * its comparison with).  A search goes down the branch with the lesser key first and leaves out branches that
 * cannot hold the need, or cannot beat what was found; in a cluster without a place it ends at the root.
 * The bounds are optimistic (memory and processor may be free on different nodes), so leaves are looked at
 * in full; they never hide a node that fits.
 *
 * Preferences that are no constraint (primed sandbox, image, no replica of this function) are asked for in
 * tiers: the nodes of a short list one by one, those of a long list by the same search with a filter.
 * Constraints are evaluated once per list of constraints and kept as a set of nodes (a class); of few nodes
 * it is walked, of many it filters the search. */
#include "orchestrator/core/sched_index.h"

#include "orchestrator/core/sched_internal.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

enum {
    FEW = 64,    /* so many candidates are looked at one by one */
    VISITS = 64, /* leaves that a search among many looks at once it has found something */
    PROBES = 24, /* taken at random when those had replicas of the function, or would be hard to meet */
    DENSE = 4,   /* a list of more than one node in so many is searched by what is promised */
    WORD = 64,
    STACK = 2 * WORD
};

static const struct dv_sched_vertex nowhere = {
    .free_bytes = -1, .free_mcpu = -1, .key = UINT32_MAX, .id = UINT64_MAX};

/* ---- classes ---- */

struct dv_sched_class {
    uint64_t hash;
    struct dv_strs constraints; /* own copies, behind the struct */
    uint64_t *bits;             /* one a node, ix->cap of them */
    size_t n;                   /* set */
};

static bool has_bit(const struct dv_sched_class *k, size_t i)
{
    return k->bits[i / WORD] >> (i % WORD) & 1;
}

static void put_bit(struct dv_sched_class *k, size_t i, bool is_set)
{
    uint64_t bit = 1ull << (i % WORD), *word = &k->bits[i / WORD];
    k->n += is_set && !(*word & bit);
    k->n -= !is_set && (*word & bit);
    *word = is_set ? *word | bit : *word & ~bit;
}

static void class_free(struct dv_sched_class *k)
{
    if (!k)
        return;
    dv_free(k->bits);
    dv_free(k);
}

static void forget_classes(struct dv_sched_index *ix)
{
    while (ix->n_classes > 0) {
        class_free(ix->classes[--ix->n_classes]);
        ix->classes[ix->n_classes] = NULL;
    }
    ix->next_class = 0;
}

static bool same(const struct dv_strs *a, const struct dv_strs *b)
{
    for (size_t i = 0; a->n == b->n && i < a->n; i++)
        if (strcmp(a->v[i], b->v[i]) != 0)
            return false;
    return a->n == b->n;
}

static struct dv_sched_class *class_new(const struct dv_sched_index *ix, const struct dv_strs *from)
{
    size_t bytes = sizeof(struct dv_sched_class) + from->n * sizeof(char *);
    for (size_t i = 0; i < from->n; i++)
        bytes += strlen(from->v[i]) + 1;
    struct dv_sched_class *k = dv_zalloc(bytes);
    if (!k)
        return NULL;
    k->constraints = (struct dv_strs){(char **)(void *)(k + 1), from->n};
    char *text = (char *)(k->constraints.v + from->n);
    for (size_t i = 0; i < from->n; i++) {
        size_t n = strlen(from->v[i]) + 1;
        k->constraints.v[i] = memcpy(text, from->v[i], n);
        text += n;
    }
    k->bits = dv_zalloc_n(ix->cap / WORD + 1, sizeof(*k->bits));
    if (k->bits)
        return k;
    class_free(k);
    return NULL;
}

/* NULL: short of memory. */
static const struct dv_sched_class *class_of(struct dv_sched_index *ix, const struct dv_strs *constraints,
                                             const struct dv_node_view *views)
{
    uint64_t hash = dv_sched_constraints_hash(constraints);
    for (size_t i = 0; i < ix->n_classes; i++)
        if (ix->classes[i]->hash == hash && same(&ix->classes[i]->constraints, constraints))
            return ix->classes[i];
    struct dv_sched_class *k = class_new(ix, constraints);
    if (!k)
        return NULL;
    k->hash = hash;
    for (size_t i = 0; i < ix->n; i++)
        put_bit(k, i, dv_sched_constraints_hold(constraints, &views[i]));
    size_t at =
        ix->n_classes < DV_SCHED_CLASSES_MAX ? ix->n_classes++ : ix->next_class++ % DV_SCHED_CLASSES_MAX;
    class_free(ix->classes[at]);
    ix->classes[at] = k;
    return k;
}

void dv_sched_index_relabel(struct dv_sched_index *ix, const struct dv_node_view *views, size_t i)
{
    for (size_t k = 0; k < ix->n_classes; k++)
        put_bit(ix->classes[k], i, dv_sched_constraints_hold(&ix->classes[k]->constraints, &views[i]));
}

/* ---- the tree ---- */

void dv_sched_index_init(struct dv_sched_index *ix, enum dv_spread how)
{
    *ix = (struct dv_sched_index){.how = how};
}

void dv_sched_index_deinit(struct dv_sched_index *ix)
{
    forget_classes(ix);
    dv_free(ix->v);
    ix->v = NULL;
    ix->n = ix->cap = 0;
}

static bool comes_first(uint32_t key, uint64_t id, uint32_t than_key, uint64_t than_id)
{
    return key != than_key ? key < than_key : id < than_id;
}

static struct dv_sched_vertex merge(const struct dv_sched_vertex *a, const struct dv_sched_vertex *b)
{
    bool a_first = comes_first(a->key, a->id, b->key, b->id);
    return (struct dv_sched_vertex){
        .free_bytes = a->free_bytes > b->free_bytes ? a->free_bytes : b->free_bytes,
        .free_mcpu = a->free_mcpu > b->free_mcpu ? a->free_mcpu : b->free_mcpu,
        .key = a_first ? a->key : b->key,
        .id = a_first ? a->id : b->id,
    };
}

static void put_leaf(struct dv_sched_index *ix, size_t i, struct dv_sched_vertex leaf)
{
    size_t at = ix->cap + i;
    ix->v[at] = leaf;
    while (at > 1) {
        at /= 2;
        struct dv_sched_vertex m = merge(&ix->v[2 * at], &ix->v[2 * at + 1]), *v = &ix->v[at];
        if (m.free_bytes == v->free_bytes && m.free_mcpu == v->free_mcpu && m.key == v->key && m.id == v->id)
            return;
        *v = m;
    }
}

static uint32_t key_of(const struct dv_sched_index *ix, const struct dv_node_view *view)
{
    enum { MOST = 1 << 20 }; /* adopted replicas may exceed what a node has */
    int64_t promised = dv_sched_permille(view);
    promised = promised < 0 ? 0 : promised > MOST ? MOST : promised;
    return (uint32_t)(ix->how == DV_PACK ? MOST - promised : promised);
}

static int32_t clamp32(int64_t v)
{
    return v < -1 ? -1 : v > INT32_MAX ? INT32_MAX : (int32_t)v;
}

void dv_sched_index_update(struct dv_sched_index *ix, const struct dv_node_view *views, size_t i)
{
    const struct dv_node_view *view = &views[i];
    int64_t bytes = view->memory_bytes - view->promised_bytes, mcpu = view->cpu_mcpu - view->promised_mcpu;
    if (!view->is_ready || view->n_replicas >= view->max_replicas || bytes < 0 || mcpu < 0)
        put_leaf(ix, i, nowhere);
    else
        put_leaf(ix, i, (struct dv_sched_vertex){bytes, view->id, clamp32(mcpu), key_of(ix, view)});
}

static int grow(struct dv_sched_index *ix, size_t n)
{
    size_t cap = ix->cap ? ix->cap : 16;
    while (cap < n)
        cap *= 2;
    struct dv_sched_vertex *v = dv_alloc(2 * cap * sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    for (size_t i = 0; i < 2 * cap; i++)
        v[i] = nowhere;
    for (size_t i = 0; i < ix->n; i++)
        v[cap + i] = ix->v[ix->cap + i];
    for (size_t i = cap; i-- > 1;)
        v[i] = merge(&v[2 * i], &v[2 * i + 1]);
    dv_free(ix->v);
    ix->v = v;
    ix->cap = cap;
    forget_classes(ix); /* their sets are too small now */
    return DV_OK;
}

int dv_sched_index_resize(struct dv_sched_index *ix, size_t n)
{
    if (n > ix->cap) {
        int rc = grow(ix, n);
        if (rc)
            return rc;
    }
    while (ix->n > n) {
        put_leaf(ix, --ix->n, nowhere);
        for (size_t k = 0; k < ix->n_classes; k++)
            put_bit(ix->classes[k], ix->n, false);
    }
    ix->n = n;
    return DV_OK;
}

/* ---- searching ---- */

struct search {
    struct dv_sched_index *ix;
    const struct dv_sched_query *q;
    struct dv_need need;                /* without constraints, where a class stands for them */
    const struct dv_sched_class *class; /* NULL: all nodes */
    const struct dv_have *among[2];     /* both NULL: all nodes */
    bool is_exact;
    bool is_found, has_image;
    size_t best, visits;
    int64_t own;
    uint32_t key;
};

static bool beats(const struct search *s, size_t i, bool has_image)
{
    const struct dv_node_view *a = &s->q->views[i];
    if (!s->is_found)
        return true;
    if (has_image != s->has_image)
        return has_image;
    if (s->ix->how == DV_SPREAD && a->n_of_function != s->own)
        return a->n_of_function < s->own;
    return comes_first(s->ix->v[s->ix->cap + i].key, a->id, s->key, s->q->views[s->best].id);
}

static bool is_among(const struct search *s, size_t i)
{
    if (s->class && !has_bit(s->class, i))
        return false;
    bool is_any = !s->among[0] && !s->among[1];
    return is_any || dv_have_has(s->among[0], (uint32_t)i) || dv_have_has(s->among[1], (uint32_t)i);
}

static void look_at(struct search *s, size_t i, bool has_image)
{
    const struct dv_node_view *view = &s->q->views[i];
    if (!beats(s, i, has_image) || dv_sched_fit(&s->need, view) != DV_FITS)
        return;
    s->is_found = true;
    s->has_image = has_image;
    s->best = i;
    s->own = view->n_of_function;
    s->key = s->ix->v[s->ix->cap + i].key;
}

static bool could_hold(const struct search *s, const struct dv_sched_vertex *v)
{
    return v->free_bytes >= s->need.memory_bytes && v->free_mcpu >= s->need.cpu_mcpu && v->free_bytes >= 0;
}

static bool could_beat(const struct search *s, const struct dv_sched_vertex *v)
{
    if (!s->is_found || (s->ix->how == DV_SPREAD && s->own > 0))
        return true;
    return comes_first(v->key, v->id, s->key, s->q->views[s->best].id);
}

/* Of all nodes in `among`: best first.  must_find: the bound on visits counts only once something was found.
 */
static void descend(struct search *s, bool must_find)
{
    const struct dv_sched_index *ix = s->ix;
    size_t stack[STACK], depth = 0;
    stack[depth++] = 1;
    s->visits = 0;
    while (depth > 0) {
        size_t at = stack[--depth];
        const struct dv_sched_vertex *v = &ix->v[at];
        if (!could_hold(s, v) || !could_beat(s, v))
            continue;
        if (at < ix->cap) {
            const struct dv_sched_vertex *l = &ix->v[2 * at], *r = l + 1;
            size_t first = 2 * at + comes_first(r->key, r->id, l->key, l->id);
            stack[depth++] = first ^ 1;
            stack[depth++] = first;
            continue;
        }
        if (++s->visits > VISITS && !s->is_exact && (s->is_found || !must_find))
            return;
        if (is_among(s, at - ix->cap))
            look_at(s, at - ix->cap, false);
    }
}

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void walk(struct search *s, const struct dv_have *list, const struct dv_have *image[2])
{
    for (uint32_t k = 0; list && k < list->n; k++) {
        uint32_t i = list->nodes[k];
        if (!s->class || has_bit(s->class, i))
            look_at(s, i, image && (dv_have_has(image[0], i) || dv_have_has(image[1], i)));
    }
}

static void probe_list(struct search *s, const struct dv_have *list, uint64_t *random)
{
    for (int k = 0; list && list->n && k < PROBES; k++) {
        uint32_t i = list->nodes[mix(random) % list->n];
        if (!s->class || has_bit(s->class, i))
            look_at(s, i, false);
    }
}

static bool is_unsatisfied(const struct search *s)
{
    return !s->is_exact && (!s->is_found || (s->ix->how == DV_SPREAD && s->own > 0));
}

/* The nodes of one or two lists: all of them when they are few. */
static bool from_lists(struct search *s, const struct dv_have *const lists[2], const struct dv_have *image[2],
                       uint64_t *random)
{
    size_t n = (lists[0] ? lists[0]->n : 0) + (lists[1] ? lists[1]->n : 0);
    if (n == 0)
        return false;
    bool is_dense = n * DENSE > s->ix->n; /* so a search by what is promised soon meets one */
    if (n > FEW && !s->is_exact && is_dense) {
        s->among[0] = lists[0];
        s->among[1] = lists[1];
        descend(s, false);
        s->among[0] = s->among[1] = NULL;
    }
    if (n > FEW && is_unsatisfied(s)) {
        probe_list(s, lists[0], random);
        probe_list(s, lists[1], random);
    }
    if (n <= FEW || s->is_exact || (!s->is_found && n <= DV_SCHED_EXACT)) {
        walk(s, lists[0], image);
        walk(s, lists[1], image);
    }
    return s->is_found;
}

static void walk_class(struct search *s)
{
    for (size_t w = 0; w * WORD < s->ix->n; w++)
        for (uint64_t bits = s->class->bits[w]; bits; bits &= bits - 1)
            look_at(s, w * WORD + (size_t)__builtin_ctzll(bits), false);
}

static void from_all(struct search *s, uint64_t *random)
{
    if (s->class && s->class->n <= FEW) {
        walk_class(s);
        return;
    }
    descend(s, true);
    for (int k = 0; s->is_found && is_unsatisfied(s) && k < PROBES; k++) {
        size_t i = mix(random) % s->ix->n;
        if (is_among(s, i))
            look_at(s, i, false);
    }
}

static struct search search_of(struct dv_sched_index *ix, const struct dv_sched_query *q)
{
    struct search s = {.ix = ix, .q = q, .need = *q->need, .is_exact = ix->n <= DV_SCHED_EXACT};
    if (q->need->constraints && q->need->constraints->n > 0 &&
        (s.class = class_of(ix, q->need->constraints, q->views)))
        s.need.constraints = NULL; /* otherwise every node that is looked at is asked */
    return s;
}

int dv_sched_index_place(struct dv_sched_index *ix, const struct dv_sched_query *q, size_t *out_index)
{
    if (ix->n == 0)
        return DV_NO_CAPACITY;
    struct search s = search_of(ix, q);
    if (!could_hold(&s, &ix->v[1]))
        return DV_NO_CAPACITY;
    uint64_t random = q->seed;
    const struct dv_have *image[2] = {q->image[0], q->image[1]};
    const struct dv_have *primed[2] = {q->primed, NULL};
    if (!from_lists(&s, primed, image, &random) && !from_lists(&s, image, NULL, &random))
        from_all(&s, &random);
    if (!s.is_found)
        return DV_NO_CAPACITY;
    *out_index = s.best;
    return DV_OK;
}

int64_t dv_sched_index_room(struct dv_sched_index *ix, const struct dv_sched_query *q, int64_t limit)
{
    if (ix->n == 0)
        return 0;
    struct search s = search_of(ix, q);
    size_t stack[STACK], depth = 0;
    int64_t room = 0;
    stack[depth++] = 1;
    while (depth > 0 && room < limit) {
        size_t at = stack[--depth];
        if (!could_hold(&s, &ix->v[at]))
            continue;
        if (at < ix->cap) {
            stack[depth++] = 2 * at + 1;
            stack[depth++] = 2 * at;
        } else if (is_among(&s, at - ix->cap) && dv_sched_fit(&s.need, &q->views[at - ix->cap]) == DV_FITS) {
            room += dv_sched_room_on(&s.need, &q->views[at - ix->cap]);
        }
    }
    return room < limit ? room : limit;
}
