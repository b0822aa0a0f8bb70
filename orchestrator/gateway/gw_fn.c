/* Functions in one loop: the route table, and the queue of each turned into requests that run. */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"

static struct dv_gw_req *req_of(struct dv_waiter *w)
{
    return DV_CONTAINER_OF(w, struct dv_gw_req, waiter);
}

/* ---- the queue's callbacks ---- */

/* On the poked loop. */
static void on_poke(struct dv_msg *m)
{
    struct dv_live_poke *p = DV_CONTAINER_OF(m, struct dv_live_poke, msg);
    struct dv_live_fn *live = p->fn;
    struct dv_gateway *g = live->owner;
    atomic_store(&p->is_posted, false); /* first: what happens from here on deserves another poke */
    struct dv_gw_loop *l = g->loops[p->loop];
    struct dv_gw_fn *f = l->is_stopped ? NULL : dv_gw_fn_by_uid(l, live->uid);
    if (f && f->queue.live == live)
        dv_gw_fn_pump(f);
    dv_live_fn_unref(live);
}

static void poke(void *ctx, struct dv_live_fn *live, uint32_t loop)
{
    (void)ctx;
    struct dv_gateway *g = live->owner;
    struct dv_live_poke *p = &dv_live_cell(live, loop)->poke; /* it waits there, so it has a cell */
    if (!g->loops[loop]->mailbox || atomic_exchange(&p->is_posted, true))
        return;                 /* no mailbox: the gateway is being freed */
    (void)dv_live_fn_ref(live); /* the message's own */
    p->msg.fn = on_poke;
    dv_mailbox_post(g->loops[loop]->mailbox, &p->msg);
}

static void slots_added(void *ctx, struct dv_slots *s)
{
    struct dv_gw_fn *f = ctx;
    dv_gw_slots_attach(f->loop, s);
}

static void slots_removed(void *ctx, struct dv_slots *s)
{
    (void)ctx;
    dv_list_remove(&s->in_node);
}

static const struct dv_queue_ops queue_ops = {poke, slots_added, slots_removed};

/* ---- waiting and running ---- */

static void arm(struct dv_gw_fn *f)
{
    struct dv_loop *loop = f->loop->loop;
    if (!f->queue.n_waiting) {
        dv_timer_cancel(loop, &f->timer);
        return;
    }
    uint64_t at = f->demand_ns + GW_DEMAND_NS;
    if (f->queue.retry_at_ns && f->queue.retry_at_ns < at)
        at = f->queue.retry_at_ns;
    if (!f->timer.pos || f->timer.at_ns != at)
        (void)dv_timer_set(loop, &f->timer, at); /* without memory the next arrival or departure does it */
}

void dv_gw_fn_pump(struct dv_gw_fn *f)
{
    struct dv_slots *s;
    struct dv_waiter *w;
    f->n_requests++; /* running one may end the last */
    while (!f->is_removed && (w = dv_queue_next(&f->queue, dv_loop_now(f->loop->loop), &s)))
        dv_gw_request_run(req_of(w), s);
    arm(f);
    dv_gw_fn_unhold(f);
}

struct demand {
    struct dv_msg msg;
    struct dv_gw_face *face;
    uint64_t uid;
};

static void on_demand(struct dv_msg *m)
{
    struct demand *d = DV_CONTAINER_OF(m, struct demand, msg);
    if (d->face->g)
        d->face->g->cfg.on_demand(d->face->g->cfg.ctx, d->uid);
    dv_gw_face_unref(d->face);
    dv_free(d);
}

void dv_gw_fn_demand(struct dv_gw_fn *f)
{
    struct dv_gateway *g = f->loop->g;
    uint64_t now = dv_loop_now(f->loop->loop);
    if (g->cfg.on_demand && (!f->demand_ns || now >= f->demand_ns + GW_DEMAND_NS)) {
        struct demand *d = dv_alloc(sizeof(*d));
        if (d) { /* otherwise the timer tries again */
            *d = (struct demand){.msg.fn = on_demand, .face = dv_gw_face_ref(g->face), .uid = f->uid};
            dv_mailbox_post(g->cfg.state, &d->msg);
        }
        f->demand_ns = now;
    }
    arm(f);
}

static void on_timer(struct dv_timer *t)
{
    struct dv_gw_fn *f = DV_CONTAINER_OF(t, struct dv_gw_fn, timer);
    f->n_requests++;
    dv_gw_fn_pump(f);
    if (f->queue.n_waiting)
        dv_gw_fn_demand(f);
    dv_gw_fn_unhold(f);
}

/* ---- the table ---- */

static void fn_free(struct dv_gw_fn *f)
{
    dv_timer_cancel(f->loop->loop, &f->timer);
    dv_queue_deinit(&f->queue);
    dv_gw_def_unref(f->def);
    dv_free(f);
}

static void fn_unlist(struct dv_gw_fn *f)
{
    (void)dv_map_remove(&f->loop->fns, dv_sv(f->key, f->key_n));
    (void)dv_idmap_remove(&f->loop->fns_by_uid, f->uid);
}

static bool is_needed(const struct dv_gw_fn *f)
{
    return f->n_requests > 0 || (!f->is_removed && f->queue.n_replicas > 0);
}

static void free_unneeded(struct dv_gw_fn *f)
{
    if (is_needed(f))
        return;
    if (!f->is_removed)
        fn_unlist(f);
    fn_free(f);
}

void dv_gw_fn_unhold(struct dv_gw_fn *f)
{
    f->n_requests--;
    free_unneeded(f);
}

static void refuse_all(struct dv_gw_fn *f, int status, const char *code, const char *detail)
{
    struct dv_waiter *w;
    f->n_requests++;
    while ((w = dv_queue_first(&f->queue))) {
        dv_queue_drop(&f->queue, w);
        dv_gw_request_refuse_waiting(req_of(w), status, code, detail);
    }
    arm(f);
    dv_gw_fn_unhold(f);
}

static void fn_take_out(struct dv_gw_fn *f)
{
    f->n_requests++;
    fn_unlist(f);
    f->is_removed = true;
    refuse_all(f, 404, "function_removed", "the function was removed while the request waited");
    dv_gw_fn_unhold(f);
}

static void take_def(struct dv_gw_fn *f, struct dv_gw_def *def)
{
    struct dv_gw_def *old = f->def;
    f->def = dv_gw_def_ref(def);
    f->timeout_ms = def->timeout_ms;
    f->queue_timeout_ms = def->queue_timeout_ms;
    f->auth_required = def->auth_required;
    f->queue.max = def->queue_max;
    f->failing = def->failing[0] ? def->failing : NULL;
    dv_gw_def_unref(old);
}

/* A function comes into use. */
static int fn_new(struct dv_gw_loop *l, struct dv_gw_def *def, struct dv_gw_fn **out)
{
    struct dv_gw_fn *f = dv_zalloc(sizeof(*f));
    if (!f || dv_queue_init(&f->queue, def->live, l->index, def->queue_max, &queue_ops, f)) {
        dv_free(f);
        return DV_E_NOMEM;
    }
    f->loop = l;
    f->uid = def->live->uid;
    f->key = def->live->label;
    f->key_n = strlen(f->key);
    f->timer.fn = on_timer;
    take_def(f, def);
    int rc = dv_map_put(&l->fns, dv_sv(f->key, f->key_n), f);
    if (!rc && (rc = dv_idmap_put(&l->fns_by_uid, f->uid, f)))
        (void)dv_map_remove(&l->fns, dv_sv(f->key, f->key_n));
    if (rc) {
        fn_free(f);
        return rc < 0 ? rc : DV_E_BUG;
    }
    *out = f;
    return DV_OK;
}

static struct dv_gw_def *known(const struct dv_gw_loop *l, const struct dv_live_fn *live)
{
    struct dv_gw_def *def = dv_map_find(&l->known, dv_sv_c(live->label));
    return def && def->live == live ? def : NULL;
}

static void forget(struct dv_gw_loop *l, struct dv_gw_def *def)
{
    struct dv_gw_fn *f = dv_gw_fn_by_uid(l, def->live->uid);
    (void)dv_map_remove(&l->known, dv_sv_c(def->live->label));
    if (f)
        fn_take_out(f);
    dv_gw_def_unref(def);
}

int dv_gw_fn_put(struct dv_gw_loop *l, struct dv_gw_def *def)
{
    struct dv_sv key = dv_sv_c(def->live->label);
    struct dv_gw_def *old = dv_map_find(&l->known, key);
    if (old && old->live != def->live) {
        forget(l, old); /* deleted and made again; its removal is still on its way */
        old = NULL;
    }
    if (old)
        (void)dv_map_remove(&l->known, key);
    int rc = dv_map_put(&l->known, key, dv_gw_def_ref(def));
    if (rc) { /* only without an old one: its place is free otherwise */
        dv_gw_def_unref(def);
        return rc;
    }
    struct dv_gw_fn *f = dv_gw_fn_by_uid(l, def->live->uid);
    if (f) {
        f->n_requests++;
        take_def(f, def);
        if (f->failing) {
            dv_gw_fn_pump(f); /* who can still be served is served */
            refuse_all(f, 503, "function_failing", f->failing);
        }
        dv_gw_fn_unhold(f);
    }
    dv_gw_def_unref(old);
    return DV_OK;
}

void dv_gw_fn_remove(struct dv_gw_loop *l, const struct dv_live_fn *live)
{
    struct dv_gw_def *def = known(l, live);
    if (def)
        forget(l, def);
}

int dv_gw_fn_replicas(struct dv_gw_loop *l, const struct dv_live_fn *live, struct dv_live_replica *const *set,
                      size_t n)
{
    struct dv_gw_def *def = known(l, live);
    if (!def)
        return DV_NOT_FOUND;
    struct dv_gw_fn *f = dv_gw_fn_by_uid(l, live->uid);
    int rc = DV_OK;
    if (!f && n == 0)
        return DV_OK;
    if (!f && (rc = fn_new(l, def, &f)))
        return rc;
    f->n_requests++;
    rc = dv_queue_set(&f->queue, set, n);
    if (!rc)
        dv_gw_fn_pump(f);
    dv_gw_fn_unhold(f);
    return rc;
}

struct dv_gw_fn *dv_gw_fn_by_uid(struct dv_gw_loop *l, uint64_t uid)
{
    return dv_idmap_find(&l->fns_by_uid, uid);
}

int dv_gw_fn_find(struct dv_gw_loop *l, const struct dv_route *r, struct dv_gw_fn **out)
{
    char key[DV_ROUTE_KEY_MAX];
    size_t n = dv_route_key(r->name, r->ns, key);
    struct dv_gw_fn *f = n ? dv_map_find(&l->fns, dv_sv(key, n)) : NULL;
    struct dv_gw_def *def = n && !f ? dv_map_find(&l->known, dv_sv(key, n)) : NULL;
    if (!f && !def)
        return DV_NOT_FOUND;
    int rc = f ? DV_OK : fn_new(l, def, &f);
    if (rc)
        return rc;
    f->n_requests++;
    *out = f;
    return DV_OK;
}

void dv_gw_fns_free(struct dv_gw_loop *l)
{
    struct dv_gw_fn *f;
    struct dv_gw_def *def;
    for (size_t i = 0; (f = dv_map_next(&l->fns_by_uid, &i));)
        fn_free(f);
    for (size_t i = 0; (def = dv_map_next(&l->known, &i));)
        dv_gw_def_unref(def);
    dv_map_deinit(&l->known);
    dv_map_deinit(&l->fns);
    dv_map_deinit(&l->fns_by_uid);
}
