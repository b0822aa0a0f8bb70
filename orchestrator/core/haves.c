/* Invariant: x->nodes holds exactly the nodes in whose list x stands, so x->n is also its number of owners.
 */
#include "orchestrator/core/haves.h"

#include "proto/base/alloc.h"
#include "proto/base/err.h"

void dv_haves_init(struct dv_haves *h, uint64_t seed)
{
    *h = (struct dv_haves){0};
    dv_map_init(&h->by_name, seed);
}

static void have_free(struct dv_have *x)
{
    dv_free(x->nodes);
    dv_free(x);
}

void dv_haves_deinit(struct dv_haves *h)
{
    struct dv_have *x;
    for (size_t i = 0; (x = dv_map_next(&h->by_name, &i));)
        have_free(x);
    dv_map_deinit(&h->by_name);
}

const struct dv_have *dv_haves_find(const struct dv_haves *h, struct dv_sv name)
{
    return dv_map_find(&h->by_name, name);
}

/* Index of the first member that is not below node. */
static uint32_t lower_bound(const struct dv_have *x, uint32_t node)
{
    uint32_t lo = 0, hi = x->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (x->nodes[mid] < node)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool dv_have_has(const struct dv_have *x, uint32_t node)
{
    if (!x)
        return false;
    uint32_t at = lower_bound(x, node);
    return at < x->n && x->nodes[at] == node;
}

static int member_add(struct dv_have *x, uint32_t node)
{
    if (x->n == x->cap) {
        uint32_t cap = x->cap ? x->cap + x->cap / 2 + 1 : 2;
        uint32_t *nodes = dv_realloc(x->nodes, cap * sizeof(*nodes));
        if (!nodes)
            return DV_E_NOMEM;
        x->nodes = nodes;
        x->cap = cap;
    }
    uint32_t at = lower_bound(x, node);
    memmove(x->nodes + at + 1, x->nodes + at, (x->n - at) * sizeof(*x->nodes));
    x->nodes[at] = node;
    x->n++;
    return DV_OK;
}

static void member_remove(struct dv_have *x, uint32_t node)
{
    uint32_t at = lower_bound(x, node);
    memmove(x->nodes + at, x->nodes + at + 1, (x->n - at - 1) * sizeof(*x->nodes));
    x->n--;
}

static void drop_if_nobodys(struct dv_haves *h, struct dv_have *x)
{
    if (x->n > 0)
        return;
    (void)dv_map_remove(&h->by_name, dv_sv_c(x->name));
    have_free(x);
}

static struct dv_have *intern(struct dv_haves *h, struct dv_sv name)
{
    struct dv_have *x = dv_map_find(&h->by_name, name);
    if (x)
        return x;
    x = dv_zalloc(sizeof(*x) + name.n + 1);
    if (!x)
        return NULL;
    memcpy(x->name, name.p, name.n);
    if (dv_map_put(&h->by_name, dv_sv(x->name, name.n), x)) {
        dv_free(x);
        return NULL;
    }
    return x;
}

/* list->v has room for one more. */
static int list_add(struct dv_haves *h, uint32_t node, struct dv_have_list *list, struct dv_sv name)
{
    struct dv_have *x = intern(h, name);
    if (!x)
        return DV_E_NOMEM;
    x->stamp = h->stamp;
    if (dv_have_has(x, node))
        return DV_OK;
    if (member_add(x, node)) {
        drop_if_nobodys(h, x);
        return DV_E_NOMEM;
    }
    list->v[list->n++] = x;
    return DV_OK;
}

static int reserve(struct dv_have_list *list, size_t more)
{
    struct dv_have **v = dv_realloc(list->v, (list->n + more) * sizeof(struct dv_have *));
    if (!v)
        return DV_E_NOMEM;
    list->v = v;
    return DV_OK;
}

static void list_take_out(struct dv_haves *h, uint32_t node, struct dv_have_list *list, size_t i)
{
    struct dv_have *x = list->v[i];
    list->v[i] = list->v[--list->n];
    member_remove(x, node);
    drop_if_nobodys(h, x);
}

/* Room that is no longer used goes back; failing to shrink changes nothing. */
static void shrink(struct dv_have_list *list)
{
    if (list->n == 0) {
        dv_free(list->v);
        list->v = NULL;
        return;
    }
    struct dv_have **v = dv_realloc(list->v, list->n * sizeof(struct dv_have *));
    if (v)
        list->v = v;
}

int dv_haves_put(struct dv_haves *h, uint32_t node, struct dv_have_list *list, char *const *names, size_t n)
{
    int rc = n ? reserve(list, n) : DV_OK;
    if (rc)
        return rc;
    h->stamp++;
    for (size_t i = 0; i < n; i++) {
        int one = list_add(h, node, list, dv_sv_c(names[i]));
        rc = rc ? rc : one;
    }
    for (size_t i = list->n; i-- > 0;)
        if (list->v[i]->stamp != h->stamp)
            list_take_out(h, node, list, i);
    shrink(list);
    return rc;
}

int dv_haves_add(struct dv_haves *h, uint32_t node, struct dv_have_list *list, struct dv_sv name)
{
    int rc = reserve(list, 1);
    if (!rc)
        rc = list_add(h, node, list, name);
    if (list->n == 0)
        shrink(list);
    return rc;
}

void dv_haves_drop(struct dv_haves *h, uint32_t node, struct dv_have_list *list, struct dv_sv name)
{
    const struct dv_have *x = dv_haves_find(h, name);
    for (size_t i = 0; x && i < list->n; i++) {
        if (list->v[i] != x)
            continue;
        list_take_out(h, node, list, i);
        shrink(list);
        return;
    }
}

void dv_haves_clear(struct dv_haves *h, uint32_t node, struct dv_have_list *list)
{
    while (list->n > 0)
        list_take_out(h, node, list, list->n - 1);
    shrink(list);
}

void dv_haves_renumber(const struct dv_have_list *list, uint32_t from, uint32_t to)
{
    for (size_t i = 0; i < list->n; i++) {
        struct dv_have *x = list->v[i];
        member_remove(x, from);
        (void)member_add(x, to); /* there is room: one just left */
    }
}
