#include "orchestrator/gateway/live.h"
#include "proto/base/alloc.h"

#include <string.h>

const uint64_t dv_live_bounds_us[DV_LIVE_BUCKETS] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};

int dv_live_fn_new(uint64_t uid, const char *name, const char *ns, uint32_t n_loops, void *owner,
                   struct dv_live_fn **out)
{
    size_t cells = n_loops * sizeof(struct dv_live_cell *), label = strlen(name) + 1 + strlen(ns) + 1;
    struct dv_live_fn *f = dv_zalloc(sizeof(*f) + cells + label);
    if (!f)
        return DV_E_NOMEM;
    char *text = (char *)(f + 1) + cells;
    (void)snprintf(text, label, "%s.%s", name, ns);
    f->label = text;
    atomic_init(&f->refs, 1);
    f->uid = uid;
    f->owner = owner;
    f->n_loops = n_loops;
    *out = f;
    return DV_OK;
}

struct dv_live_cell *dv_live_cell_make(struct dv_live_fn *f, uint32_t loop)
{
    struct dv_live_cell *c = dv_live_cell(f, loop);
    if (c)
        return c;
    /* dv_zalloc promises 16 bytes of alignment; the padding lets the cell start on a cache line of its own.
     */
    char *raw = dv_zalloc(sizeof(*c) + 64 + sizeof(void *));
    if (!raw)
        return NULL;
    c = (void *)(((uintptr_t)raw + sizeof(void *) + 63) & ~(uintptr_t)63);
    ((void **)(void *)c)[-1] = raw;
    c->poke = (struct dv_live_poke){.fn = f, .loop = loop};
    atomic_store(&f->cells[loop], c);
    return c;
}

static void cell_free(struct dv_live_cell *cell)
{
    if (!cell)
        return;
    for (struct dv_live_code *c = atomic_load(&cell->codes), *next; c; c = next) {
        next = atomic_load(&c->next);
        dv_free(c);
    }
    dv_free(((void **)(void *)cell)[-1]);
}

struct dv_live_fn *dv_live_fn_ref(struct dv_live_fn *f)
{
    atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
    return f;
}

void dv_live_fn_unref(struct dv_live_fn *f)
{
    if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < f->n_loops; i++)
        cell_free(dv_live_cell(f, i));
    dv_free(f);
}

int dv_live_replica_new(const struct dv_route_replica *r, struct dv_live_replica **out)
{
    struct dv_live_replica *l = dv_zalloc(sizeof(*l));
    if (!l)
        return DV_E_NOMEM;
    atomic_init(&l->refs, 1);
    atomic_init(&l->concurrency, r->concurrency);
    l->id = r->id;
    l->node = r->node;
    *out = l;
    return DV_OK;
}

struct dv_live_replica *dv_live_replica_ref(struct dv_live_replica *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void dv_live_replica_unref(struct dv_live_replica *r)
{
    if (r && atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
        dv_free(r);
}

bool dv_live_replica_enter(struct dv_live_replica *r)
{
    uint32_t max = atomic_load_explicit(&r->concurrency, memory_order_relaxed);
    uint32_t n = atomic_load(&r->in_flight);
    while (n < max)
        if (atomic_compare_exchange_weak(&r->in_flight, &n, n + 1))
            return true;
    return false;
}

void dv_live_replica_leave(struct dv_live_replica *r)
{
    atomic_fetch_sub(&r->in_flight, 1);
}

uint32_t dv_live_replica_free_slots(struct dv_live_replica *r)
{
    uint32_t max = atomic_load_explicit(&r->concurrency, memory_order_relaxed);
    uint32_t n = atomic_load_explicit(&r->in_flight, memory_order_relaxed);
    return n < max ? max - n : 0;
}

void dv_live_hist_add(struct dv_live_hist *h, uint64_t us)
{
    dv_live_add(&h->n, 1);
    dv_live_add(&h->sum_us, us);
    for (int i = 0; i < DV_LIVE_BUCKETS; i++)
        if (us <= dv_live_bounds_us[i]) {
            dv_live_add(&h->bucket[i], 1);
            return;
        }
}

void dv_live_flight(struct dv_live_cell *c, int delta, uint64_t now_ns)
{
    uint64_t n = dv_live_get(&c->in_flight), since = dv_live_get(&c->flight_at_ns);
    if (n && now_ns > since)
        dv_live_add(&c->flight_ns, n * (now_ns - since));
    dv_live_set(&c->flight_at_ns, now_ns);
    dv_live_set(&c->in_flight, delta > 0 ? n + 1 : n - 1);
}

static struct dv_live_code *code_find(struct dv_live_cell *c, int status)
{
    struct dv_live_code *it = atomic_load_explicit(&c->codes, memory_order_relaxed);
    while (it && it->status != status)
        it = atomic_load_explicit(&it->next, memory_order_relaxed);
    return it;
}

void dv_live_count(struct dv_live_cell *c, int status, uint64_t us)
{
    struct dv_live_code *it = code_find(c, status);
    if (!it && c->n_codes >= DV_LIVE_CODES_MAX)
        it = code_find(c, status = 0); /* a function that invents codes shares one line for the rest */
    if (!it) {
        it = dv_zalloc(sizeof(*it));
        if (!it)
            return; /* a number less in a graph is the better loss */
        it->status = status;
        atomic_store_explicit(&it->next, atomic_load_explicit(&c->codes, memory_order_relaxed),
                              memory_order_relaxed);
        atomic_store_explicit(&c->codes, it, memory_order_release);
        c->n_codes++;
    }
    dv_live_hist_add(&it->hist, us);
}

void dv_live_load(const struct dv_live_fn *f, uint64_t now_ns, struct dv_load *out)
{
    struct dv_load l = {0};
    uint64_t oldest = 0, flight_ns = 0;
    for (uint32_t i = 0; i < f->n_loops; i++) {
        const struct dv_live_cell *c = dv_live_cell(f, i);
        if (!c)
            continue;
        l.arrived += dv_live_get(&c->arrived);
        l.answered += dv_live_get(&c->answered);
        l.failed += dv_live_get(&c->failed);
        l.waiting += dv_live_get(&c->waiting);
        l.service_ns += dv_live_get(&c->service_ns);
        uint64_t n = dv_live_get(&c->in_flight), at = dv_live_get(&c->flight_at_ns);
        l.in_flight += n;
        flight_ns += dv_live_get(&c->flight_ns) + (now_ns > at ? n * (now_ns - at) : 0);
        uint64_t since = dv_live_get(&c->oldest_since_ns), last = dv_live_get(&c->last_activity_ns);
        if (since && (!oldest || since < oldest))
            oldest = since;
        if (last > l.last_activity_ns)
            l.last_activity_ns = last;
    }
    l.oldest_wait_ns = oldest && now_ns > oldest ? now_ns - oldest : 0;
    l.in_flight_time = (double)flight_ns / 1e9;
    *out = l;
}
