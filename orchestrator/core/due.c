#include "orchestrator/core/due.h"

#include "proto/base/alloc.h"
#include "proto/base/err.h"

static void put(struct dv_dues *h, size_t i, struct dv_due *d)
{
    h->v[i] = d;
    d->pos = i + 1;
}

static void up(struct dv_dues *h, size_t i)
{
    struct dv_due *d = h->v[i];
    for (; i > 0 && h->v[(i - 1) / 2]->at_ns > d->at_ns; i = (i - 1) / 2)
        put(h, i, h->v[(i - 1) / 2]);
    put(h, i, d);
}

static void down(struct dv_dues *h, size_t i)
{
    struct dv_due *d = h->v[i];
    for (size_t k; (k = 2 * i + 1) < h->n; i = k) {
        k += k + 1 < h->n && h->v[k + 1]->at_ns < h->v[k]->at_ns;
        if (h->v[k]->at_ns >= d->at_ns)
            break;
        put(h, i, h->v[k]);
    }
    put(h, i, d);
}

int dv_due_set(struct dv_dues *h, struct dv_due *d, uint64_t at_ns)
{
    if (d->pos == 0) {
        if (h->n == h->cap) {
            size_t cap = h->cap ? h->cap * 2 : 64;
            struct dv_due **v = dv_realloc(h->v, cap * sizeof(struct dv_due *));
            if (!v)
                return DV_E_NOMEM;
            h->v = v;
            h->cap = cap;
        }
        put(h, h->n++, d);
    }
    d->at_ns = at_ns;
    up(h, d->pos - 1);
    down(h, d->pos - 1);
    return DV_OK;
}

void dv_due_cancel(struct dv_dues *h, struct dv_due *d)
{
    if (d->pos == 0)
        return;
    size_t i = d->pos - 1;
    struct dv_due *last = h->v[--h->n];
    d->pos = 0;
    if (last == d)
        return;
    put(h, i, last);
    up(h, i);
    down(h, last->pos - 1);
}

struct dv_due *dv_due_first(const struct dv_dues *h)
{
    return h->n ? h->v[0] : NULL;
}

void dv_dues_deinit(struct dv_dues *h)
{
    dv_free(h->v);
    *h = (struct dv_dues){0};
}
