#include "orchestrator/core/decisions.h"

#include <string.h>
#include "proto/base/alloc.h"

#define KEPT_NS (86400ull * 1000000000ull)

#define OF_FN(it)  DV_LIST_ENTRY(it, struct dv_decided, of_fn)
#define OF_ALL(it) DV_LIST_ENTRY(it, struct dv_decided, of_all)

void dv_decisions_init(struct dv_decision_log *l)
{
    dv_list_init(&l->all);
    l->n = 0;
}

static void drop(struct dv_decision_log *l, struct dv_decided *d)
{
    dv_list_remove(&d->of_fn);
    dv_list_remove(&d->of_all);
    d->fn->n--;
    l->n--;
    dv_free(d);
}

/* One block: the decision, its asks, its texts. */
static struct dv_decided *copy(const struct dv_decided *d)
{
    size_t text = strlen(d->reason) + 1;
    for (size_t i = 0; i < d->n_asks; i++)
        text += d->asks[i].name ? strlen(d->asks[i].name) + 1 : 0;
    struct dv_decided *to = dv_alloc(sizeof(*to) + d->n_asks * sizeof(*d->asks) + text);
    if (!to)
        return NULL;
    *to = *d;
    to->asks = (struct dv_decided_ask *)(void *)(to + 1);
    char *p = (char *)(to->asks + d->n_asks);
    for (size_t i = 0; i < d->n_asks; i++) {
        to->asks[i] = d->asks[i];
        if (!d->asks[i].name)
            continue;
        size_t n = strlen(d->asks[i].name) + 1;
        to->asks[i].name = memcpy(p, d->asks[i].name, n);
        p += n;
    }
    to->reason = memcpy(p, d->reason, strlen(d->reason) + 1);
    return to;
}

void dv_decisions_add(struct dv_decision_log *l, struct dv_decisions *of, const struct dv_decided *d)
{
    struct dv_decided *own = copy(d);
    if (!own)
        return; /* for a person; may be lost when memory is short */
    if (of->n == 0)
        dv_list_init(&of->list);
    own->fn = of;
    dv_list_init(&own->of_fn);
    dv_list_init(&own->of_all);
    dv_list_push_back(&of->list, &own->of_fn);
    dv_list_push_back(&l->all, &own->of_all);
    of->n++;
    l->n++;
    if (of->n > DV_DECISIONS_OF_FN)
        drop(l, OF_FN(of->list.next));
    if (l->n > DV_DECISIONS_OF_ALL)
        drop(l, OF_ALL(l->all.next));
}

void dv_decisions_expire(struct dv_decision_log *l, uint64_t now_ns)
{
    while (!dv_list_empty(&l->all) && now_ns - OF_ALL(l->all.next)->at_ns > KEPT_NS)
        drop(l, OF_ALL(l->all.next));
}

void dv_decisions_deinit(struct dv_decision_log *l)
{
    while (!dv_list_empty(&l->all))
        drop(l, OF_ALL(l->all.next));
}

void dv_decisions_forget(struct dv_decision_log *l, struct dv_decisions *of)
{
    while (of->n > 0)
        drop(l, OF_FN(of->list.next));
}
