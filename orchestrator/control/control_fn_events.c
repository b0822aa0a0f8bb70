/* What happened to a function: a ring of its latest events, for people.  Not kept over a restart. */
#include "orchestrator/control/control_internal.h"

static struct ctl_event *event_at(const struct ctl_fn *f, size_t i)
{
    return &f->events[(f->first_event + i) % f->cap_events];
}

static struct ctl_event *event_slot(struct ctl_fn *f)
{
    if (f->n_events < f->cap_events)
        return event_at(f, f->n_events++);
    if (f->cap_events < CTL_EVENTS_MAX &&
        f->first_event == 0) { /* the ring has not turned yet: it may grow in place */
        size_t cap = f->cap_events ? f->cap_events * 2 : 1;
        if (cap > CTL_EVENTS_MAX)
            cap = CTL_EVENTS_MAX;
        struct ctl_event *more = dv_realloc(f->events, cap * sizeof(*more));
        if (more) {
            memset(more + f->cap_events, 0, (cap - f->cap_events) * sizeof(*more));
            f->events = more;
            f->cap_events = cap;
            return event_at(f, f->n_events++);
        }
        if (f->cap_events == 0)
            return NULL;
    }
    struct ctl_event *oldest = event_at(f, 0);
    f->first_event = (f->first_event + 1) % f->cap_events;
    return oldest;
}

void ctl_event(struct dv_control *c, uint64_t fn_uid, const char *kind, const char *message, uint64_t replica,
               uint64_t node)
{
    struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, fn_uid);
    if (!f)
        return;
    if (f->n_events) {
        struct ctl_event *last = event_at(f, f->n_events - 1);
        if (strcmp(last->kind, kind) == 0 && last->message && strcmp(last->message, message) == 0) {
            last->count++;
            last->wall_ms = ctl_wall(c);
            last->replica = replica;
            last->node = node;
            return;
        }
    }
    struct ctl_event *e = event_slot(f);
    if (!e)
        return; /* for people; may be lost when memory is short */
    dv_free(e->message);
    *e = (struct ctl_event){ctl_wall(c), kind, dv_strdup(message), replica, node, 1};
}

void dv_control_events_each(struct dv_control *c, uint64_t fn_uid,
                            int (*each)(void *ctx, const struct dv_fn_event *e), void *ctx)
{
    const struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, fn_uid);
    for (size_t i = 0; f && i < f->n_events; i++) {
        const struct ctl_event *e = event_at(f, i);
        struct dv_fn_event view = {e->wall_ms, e->kind, e->message ? e->message : "",
                                   e->replica, e->node, e->count};
        if (each(ctx, &view))
            return;
    }
}
