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
    struct dv_live_poke *p = &live->cells[loop].poke;
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
    dv_free(f->failing);
    dv_free(f);
}

void dv_gw_fn_unhold(struct dv_gw_fn *f)
{
    if (--f->n_requests == 0 && f->is_removed)
        fn_free(f);
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

static void fn_take_out(struct dv_gw_loop *l, struct dv_gw_fn *f)
{
    (void)dv_map_remove(&l->fns, dv_sv(f->key, f->key_n));
    (void)dv_idmap_remove(&l->fns_by_uid, f->uid);
    f->n_requests++;
    f->is_removed = true;
    refuse_all(f, 404, "function_removed", "the function was removed while the request waited");
    dv_gw_fn_unhold(f);
}

static int fn_new(struct dv_gw_loop *l, struct dv_live_fn *live, const struct dv_route_fn *in,
                  struct dv_gw_fn **out)
{
    struct dv_gw_fn *f = dv_zalloc(sizeof(*f));
    if (!f)
        return DV_E_NOMEM;
    f->key_n = dv_route_key(dv_sv_c(in->name), dv_sv_c(in->ns), f->key);
    f->loop = l;
    f->uid = in->uid;
    f->timer.fn = on_timer;
    struct dv_gw_fn *namesake = dv_map_find(&l->fns, dv_sv(f->key, f->key_n));
    if (namesake)
        fn_take_out(l, namesake); /* deleted and made again; its removal is still on its way */
    if (dv_map_put(&l->fns, dv_sv(f->key, f->key_n), f)) {
        dv_free(f);
        return DV_E_NOMEM;
    }
    if (dv_idmap_put(&l->fns_by_uid, f->uid, f)) {
        (void)dv_map_remove(&l->fns, dv_sv(f->key, f->key_n));
        dv_free(f);
        return DV_E_NOMEM;
    }
    dv_queue_init(&f->queue, live, l->index, in->queue_max, &queue_ops, f);
    *out = f;
    return DV_OK;
}

int dv_gw_fn_put(struct dv_gw_loop *l, struct dv_live_fn *live, const struct dv_route_fn *in)
{
    struct dv_gw_fn *f = dv_gw_fn_by_uid(l, in->uid);
    char *failing = in->failing && in->failing[0] ? dv_strdup(in->failing) : NULL;
    int rc = f ? DV_OK : fn_new(l, live, in, &f);
    if (rc) {
        dv_free(failing);
        return rc;
    }
    f->timeout_ms = in->timeout_ms;
    f->queue_timeout_ms = in->queue_timeout_ms;
    f->auth_required = in->auth_required;
    f->queue.max = in->queue_max;
    dv_free(f->failing);
    f->failing = failing;
    if (failing) {
        dv_gw_fn_pump(f); /* who can still be served is served */
        refuse_all(f, 503, "function_failing", failing);
    }
    return DV_OK;
}

void dv_gw_fn_remove(struct dv_gw_loop *l, uint64_t uid)
{
    struct dv_gw_fn *f = dv_gw_fn_by_uid(l, uid);
    if (f)
        fn_take_out(l, f);
}

int dv_gw_fn_replicas(struct dv_gw_loop *l, uint64_t uid, struct dv_live_replica *const *set, size_t n)
{
    struct dv_gw_fn *f = dv_gw_fn_by_uid(l, uid);
    if (!f)
        return DV_NOT_FOUND;
    int rc = dv_queue_set(&f->queue, set, n);
    if (!rc)
        dv_gw_fn_pump(f);
    return rc;
}

struct dv_gw_fn *dv_gw_fn_by_uid(struct dv_gw_loop *l, uint64_t uid)
{
    return dv_idmap_find(&l->fns_by_uid, uid);
}

struct dv_gw_fn *dv_gw_fn_find(struct dv_gw_loop *l, const struct dv_route *r)
{
    char key[DV_ROUTE_KEY_MAX];
    size_t n = dv_route_key(r->name, r->ns, key);
    return n ? dv_map_find(&l->fns, dv_sv(key, n)) : NULL;
}

void dv_gw_fns_free(struct dv_gw_loop *l)
{
    struct dv_gw_fn *f;
    for (size_t i = 0; (f = dv_map_next(&l->fns_by_uid, &i));)
        fn_free(f);
    dv_map_deinit(&l->fns);
    dv_map_deinit(&l->fns_by_uid);
}
