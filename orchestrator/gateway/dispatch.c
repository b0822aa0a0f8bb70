/* Invariants: cell->waiting == n_waiting; live->n_waiting is the sum over loops; each request inside holds
 * one unit of its replica's in_flight, taken by dv_live_replica_enter and given back exactly once; the FIFO
 * is ordered by since_ns.
 *
 * Fairness between loops: a loop whose waiters are younger than another's leaves the slots those older ones
 * need to that loop and pokes it.  Should the other be unable to use them (its link to that node is down),
 * nobody is stuck: YIELD_NS later the loop helps itself. */
#include "orchestrator/gateway/dispatch.h"
#include "proto/base/alloc.h"

#include <assert.h>

enum { YIELD_NS = 2000000, MISS_NS = 5000000, MISS_MAX_SHIFT = 7 };

int dv_queue_init(struct dv_queue *q, struct dv_live_fn *live, uint32_t loop, uint32_t max,
                  const struct dv_queue_ops *ops, void *ctx)
{
    struct dv_live_cell *cell = dv_live_cell_make(live, loop);
    if (!cell)
        return DV_E_NOMEM;
    *q = (struct dv_queue){
        .live = dv_live_fn_ref(live), .cell = cell, .loop = loop, .max = max, .ops = ops, .ctx = ctx};
    dv_list_init(&q->waiters);
    dv_list_init(&q->replicas);
    dv_map_init(&q->by_live, live->uid);
    return DV_OK;
}

static void slots_free(struct dv_queue *q, struct dv_slots *s)
{
    q->ops->slots_removed(q->ctx, s);
    dv_list_remove(&s->in_queue);
    (void)dv_idmap_remove(&q->by_live, (uintptr_t)s->live);
    q->n_replicas--;
    dv_live_replica_unref(s->live);
    dv_free(s);
}

void dv_queue_deinit(struct dv_queue *q)
{
    assert(dv_list_empty(&q->waiters));
    DV_LIST_FOR_EACH_SAFE (it, &q->replicas)
        slots_free(q, DV_LIST_ENTRY(it, struct dv_slots, in_queue));
    dv_map_deinit(&q->by_live);
    dv_live_fn_unref(q->live);
    q->live = NULL;
}

/* ---- the set ---- */

static struct dv_slots *slots_find(struct dv_queue *q, const struct dv_live_replica *live)
{
    return dv_idmap_find(&q->by_live, (uintptr_t)live);
}

static int slots_add(struct dv_queue *q, struct dv_live_replica *live)
{
    struct dv_slots *s = dv_zalloc(sizeof(*s));
    if (!s || dv_idmap_put(&q->by_live, (uintptr_t)live, s)) {
        dv_free(s);
        return DV_E_NOMEM;
    }
    s->live = dv_live_replica_ref(live);
    s->queue = q;
    dv_list_init(&s->in_node);
    dv_list_push_back(&q->replicas, &s->in_queue);
    q->n_replicas++;
    q->ops->slots_added(q->ctx, s);
    return DV_OK;
}

/* Those that were added by a call that then failed have not been marked wanted: they go again. */
static void slots_sweep(struct dv_queue *q)
{
    DV_LIST_FOR_EACH_SAFE (it, &q->replicas) {
        struct dv_slots *s = DV_LIST_ENTRY(it, struct dv_slots, in_queue);
        if (!s->is_wanted && !s->n_inside)
            slots_free(q, s);
    }
}

int dv_queue_set(struct dv_queue *q, struct dv_live_replica *const *set, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!slots_find(q, set[i]) && slots_add(q, set[i])) {
            slots_sweep(q);
            return DV_E_NOMEM;
        }
    DV_LIST_FOR_EACH (it, &q->replicas)
        DV_LIST_ENTRY(it, struct dv_slots, in_queue)->is_wanted = false;
    for (size_t i = 0; i < n; i++) {
        struct dv_slots *s = slots_find(q, set[i]);
        s->is_wanted = true;
        s->suspended_until_ns = 0; /* fresh news of it: ask again */
    }
    slots_sweep(q);
    return DV_OK;
}

/* ---- slots ---- */

static bool usable(const struct dv_slots *s, uint64_t now_ns)
{
    return s->is_wanted && s->is_reachable && s->suspended_until_ns <= now_ns;
}

static void retry_by(struct dv_queue *q, uint64_t at_ns)
{
    if (!q->retry_at_ns || at_ns < q->retry_at_ns)
        q->retry_at_ns = at_ns;
}

static bool is_frozen(const struct dv_slots *s)
{
    return atomic_load_explicit(&s->live->is_frozen, memory_order_relaxed);
}

static struct dv_slots *entered(struct dv_queue *q, struct dv_slots *s)
{
    s->n_inside++;
    if (q->replicas.next != &s->in_queue) {
        dv_list_remove(&s->in_queue);
        dv_list_push_front(&q->replicas, &s->in_queue);
    }
    return s;
}

static struct dv_slots *enter_frozen(struct dv_queue *q, uint64_t now_ns)
{
    DV_LIST_FOR_EACH (it, &q->replicas) {
        struct dv_slots *s = DV_LIST_ENTRY(it, struct dv_slots, in_queue);
        if (is_frozen(s) && usable(s, now_ns) && dv_live_replica_enter(s->live))
            return entered(q, s);
    }
    return NULL;
}

static struct dv_slots *enter(struct dv_queue *q, uint64_t now_ns)
{
    uint64_t soonest = 0;
    bool has_frozen = false;
    DV_LIST_FOR_EACH (it, &q->replicas) {
        struct dv_slots *s = DV_LIST_ENTRY(it, struct dv_slots, in_queue);
        if (is_frozen(s))
            has_frozen = true;
        else if (usable(s, now_ns) && dv_live_replica_enter(s->live))
            return entered(q, s);
        if (s->is_wanted && s->suspended_until_ns > now_ns && (!soonest || s->suspended_until_ns < soonest))
            soonest = s->suspended_until_ns;
    }
    struct dv_slots *frozen = has_frozen ? enter_frozen(q, now_ns) : NULL;
    if (!frozen && soonest)
        retry_by(q, soonest);
    return frozen;
}

static uint64_t free_slots(const struct dv_queue *q, uint64_t now_ns)
{
    uint64_t n = 0;
    DV_LIST_FOR_EACH (it, &q->replicas) {
        const struct dv_slots *s = DV_LIST_ENTRY(it, struct dv_slots, in_queue);
        if (usable(s, now_ns))
            n += dv_live_replica_free_slots(s->live);
    }
    return n;
}

/* ---- other loops ---- */

/* How many requests of other loops have waited longer than one that waits since then; *oldest: the loop whose
 * first has waited longest (q->loop: none). */
static uint64_t older_elsewhere(const struct dv_queue *q, uint64_t since_ns, uint32_t *oldest)
{
    uint64_t n = 0, first = since_ns;
    *oldest = q->loop;
    for (uint32_t i = 0; i < q->live->n_loops; i++) {
        const struct dv_live_cell *c = dv_live_cell(q->live, i);
        uint64_t waiting = i == q->loop || !c ? 0 : atomic_load(&c->waiting);
        uint64_t since = waiting ? dv_live_get(&c->oldest_since_ns) : 0;
        if (!since || since >= since_ns)
            continue;
        n += waiting;
        if (since < first) {
            first = since;
            *oldest = i;
        }
    }
    return n;
}

static void poke_oldest(struct dv_queue *q)
{
    uint32_t loop;
    if (older_elsewhere(q, UINT64_MAX, &loop))
        q->ops->poke(q->ctx, q->live, loop);
}

/* ---- the FIFO ---- */

static void note_oldest(struct dv_queue *q)
{
    const struct dv_waiter *w = dv_queue_first(q);
    dv_live_set(&q->cell->oldest_since_ns, w ? w->since_ns : 0);
}

struct dv_waiter *dv_queue_first(const struct dv_queue *q)
{
    return dv_list_empty(&q->waiters) ? NULL : DV_LIST_ENTRY(q->waiters.next, struct dv_waiter, node);
}

static void counted_in(struct dv_queue *q, struct dv_waiter *w)
{
    w->is_waiting = true;
    q->n_waiting++;
    note_oldest(q);
    atomic_store(&q->cell->waiting, q->n_waiting); /* before the slots are looked at: see live.h */
}

void dv_queue_drop(struct dv_queue *q, struct dv_waiter *w)
{
    if (!w->is_waiting)
        return;
    dv_list_remove(&w->node);
    w->is_waiting = false;
    q->n_waiting--;
    atomic_store(&q->cell->waiting, q->n_waiting);
    atomic_fetch_sub(&q->live->n_waiting, 1);
    note_oldest(q);
}

void dv_queue_put_back(struct dv_queue *q, struct dv_waiter *w)
{
    struct dv_list *at = q->waiters.next;
    while (at != &q->waiters && DV_LIST_ENTRY(at, struct dv_waiter, node)->since_ns <= w->since_ns)
        at = at->next;
    dv_list_insert_(at, &w->node);
    atomic_fetch_add(&q->live->n_waiting, 1);
    counted_in(q, w);
}

int dv_queue_admit(struct dv_queue *q, struct dv_waiter *w, uint64_t now_ns, struct dv_slots **out)
{
    w->since_ns = now_ns;
    w->is_waiting = false;
    if (atomic_load_explicit(&q->live->n_waiting, memory_order_relaxed) == 0) {
        struct dv_slots *s = enter(q, now_ns); /* nobody is overtaken */
        if (s) {
            *out = s;
            return DV_OK;
        }
    }
    if (atomic_fetch_add(&q->live->n_waiting, 1) >= q->max) {
        atomic_fetch_sub(&q->live->n_waiting, 1);
        return DV_NO_CAPACITY;
    }
    dv_list_push_back(&q->waiters, &w->node);
    counted_in(q, w);
    if (q->n_waiting > 1)
        return DV_AGAIN; /* those before it would have been served */
    return dv_queue_next(q, now_ns, out) == w ? DV_OK : DV_AGAIN;
}

/* May this loop take a slot now, or is it due to older requests elsewhere? */
static bool is_our_turn(struct dv_queue *q, const struct dv_waiter *w, uint64_t now_ns)
{
    uint32_t loop;
    if (atomic_load_explicit(&q->live->n_waiting, memory_order_relaxed) == q->n_waiting)
        return true;
    uint64_t older = older_elsewhere(q, w->since_ns, &loop);
    if (!older || free_slots(q, now_ns) > older)
        return true;
    if (q->retry_at_ns && q->retry_at_ns <= now_ns)
        return true; /* it has had its chance */
    if (!free_slots(q, now_ns))
        return true; /* nothing to yield; enter will say so */
    q->ops->poke(q->ctx, q->live, loop);
    retry_by(q, now_ns + YIELD_NS);
    return false;
}

struct dv_waiter *dv_queue_next(struct dv_queue *q, uint64_t now_ns, struct dv_slots **out)
{
    struct dv_waiter *w = dv_queue_first(q);
    if (!w) {
        q->retry_at_ns = 0;
        return NULL;
    }
    if (!is_our_turn(q, w, now_ns))
        return NULL;
    q->retry_at_ns = 0;
    struct dv_slots *s = enter(q, now_ns);
    if (!s)
        return NULL;
    dv_queue_drop(q, w);
    *out = s;
    return w;
}

void dv_queue_leave(struct dv_queue *q, struct dv_slots *s, uint64_t now_ns)
{
    (void)now_ns;
    assert(s->n_inside > 0);
    s->n_inside--;
    dv_live_replica_leave(s->live);
    if (!s->is_wanted && !s->n_inside) {
        slots_free(q, s);
        return;
    }
    if (q->replicas.next != &s->in_queue) {
        dv_list_remove(&s->in_queue);
        dv_list_push_front(&q->replicas, &s->in_queue);
    }
    if (!q->n_waiting && atomic_load(&q->live->n_waiting))
        poke_oldest(q);
}

void dv_queue_refused(struct dv_queue *q, struct dv_slots *s, uint64_t now_ns)
{
    uint32_t shift = s->n_misses < MISS_MAX_SHIFT ? s->n_misses : MISS_MAX_SHIFT;
    s->n_misses++;
    s->suspended_until_ns = now_ns + ((uint64_t)MISS_NS << shift);
    retry_by(q, s->suspended_until_ns);
}

void dv_queue_accepted(struct dv_slots *s)
{
    s->n_misses = 0;
}
