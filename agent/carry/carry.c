/* The carry, state loop's side: which replicas exist, and the loops that carry requests to them.
 *
 * A replica's in-flight count is shared by all loops (any of them may hold links that ask for it), so it is
 * an atomic in a small shared object, and taking a slot is one compare-and-swap against its concurrency.
 * Everything else of a request belongs to one loop.
 *
 * Draining: the flag is set first and the count read after it; a stream that ends lowers the count first and
 * reads the flag after it.  One of the two therefore sees a drained replica, and an exchange makes it one
 * telling. */
#include "agent/carry/carry_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/metrics.h"

static const char *const outcome_names[CARRY_N_OUTCOMES] = {[CARRY_OK] = "ok",
                                                            [CARRY_CANCEL] = "cancelled",
                                                            [CARRY_NOT_HERE] = "not_here",
                                                            [CARRY_REFUSED] = "refused",
                                                            [CARRY_CONNECT] = "connect_refused",
                                                            [CARRY_BROKEN] = "broken",
                                                            [CARRY_BAD_ANSWER] = "bad_answer",
                                                            [CARRY_TIMEOUT] = "timeout",
                                                            [CARRY_EXITED] = "exited",
                                                            [CARRY_SHUTDOWN] = "shutdown"};

/* ---- shared replicas ---- */

static void carry_unref(struct dv_carry *c)
{
    if (atomic_fetch_sub(&c->refs, 1) == 1)
        dv_free(c);
}

void carry_live_ref(struct carry_live *live)
{
    atomic_fetch_add(&live->refs, 1);
}

void carry_live_unref(struct carry_live *live)
{
    if (atomic_fetch_sub(&live->refs, 1) != 1)
        return;
    carry_unref(live->carry);
    dv_free(live);
}

static void on_drained(struct dv_msg *m)
{
    struct carry_live *live = DV_CONTAINER_OF(m, struct carry_live, drained_msg);
    struct dv_carry *c = live->carry;
    if (!c->is_closed && dv_idmap_find(&c->lives, live->id) == live && c->cfg.on_drained)
        c->cfg.on_drained(c->cfg.ctx, live->id);
    carry_live_unref(live);
}

static void on_closed(struct dv_msg *m)
{
    struct carry_live *live = DV_CONTAINER_OF(m, struct carry_live, closed_msg);
    struct dv_carry *c = live->carry;
    if (!c->is_closed && c->cfg.on_closed)
        c->cfg.on_closed(c->cfg.ctx, live->id);
    carry_live_unref(live);
}

static void on_trouble(struct dv_msg *m)
{
    struct carry_live *live = DV_CONTAINER_OF(m, struct carry_live, trouble_msg);
    struct dv_carry *c = live->carry;
    enum dv_link_reset what = (enum dv_link_reset)atomic_load(&live->trouble);
    atomic_store(&live->is_trouble_pending, false);
    if (!c->is_closed && dv_idmap_find(&c->lives, live->id) == live && c->cfg.on_trouble)
        c->cfg.on_trouble(c->cfg.ctx, live->id, what);
    carry_live_unref(live);
}

void carry_tell_drained(struct carry_live *live)
{
    if (atomic_exchange(&live->is_drain_told, true))
        return;
    carry_live_ref(live);
    dv_mailbox_post(live->carry->cfg.state, &live->drained_msg);
}

void carry_tell_closed(struct carry_live *live)
{
    if (atomic_fetch_sub(&live->n_holding, 1) != 1 || !live->is_close_told)
        return;
    carry_live_ref(live);
    dv_mailbox_post(live->carry->cfg.state, &live->closed_msg);
}

void carry_tell_trouble(struct carry_live *live, enum dv_link_reset what)
{
    atomic_store(&live->trouble, (int)what);
    if (atomic_exchange(&live->is_trouble_pending, true))
        return;
    carry_live_ref(live);
    dv_mailbox_post(live->carry->cfg.state, &live->trouble_msg);
}

static void on_left(struct dv_msg *m)
{
    struct dv_carry *c = DV_CONTAINER_OF(m, struct dv_carry, left_msg);
    atomic_store(&c->is_left_pending, false);
    if (!c->is_closed && !atomic_load(&c->n_links) && c->cfg.on_left)
        c->cfg.on_left(c->cfg.ctx);
    carry_unref(c);
}

void carry_tell_if_left(struct dv_carry *c)
{
    if (!atomic_load(&c->is_leaving) || atomic_load(&c->n_links) ||
        atomic_exchange(&c->is_left_pending, true))
        return;
    atomic_fetch_add(&c->refs, 1);
    dv_mailbox_post(c->cfg.state, &c->left_msg);
}

void carry_link_gone(struct dv_carry *c)
{
    atomic_fetch_sub(&c->n_links, 1);
    carry_tell_if_left(c);
}

static int live_new(struct dv_carry *c, const struct dv_carry_replica *r, struct carry_live **out)
{
    struct carry_live *live = dv_zalloc(sizeof(*live) + (size_t)c->n_loops * sizeof(live->news[0]));
    if (!live)
        return DV_E_NOMEM;
    int rc = dv_addr_parse(r->address, &live->address, NULL);
    if (rc) {
        dv_free(live);
        return rc;
    }
    (void)dv_copy(live->address_text, sizeof(live->address_text), r->address);
    live->refs = 1;
    live->carry = c;
    atomic_fetch_add(&c->refs, 1);
    live->id = r->id;
    live->concurrency = r->concurrency;
    live->drained_msg.fn = on_drained;
    live->trouble_msg.fn = on_trouble;
    live->closed_msg.fn = on_closed;
    live->n_holding = c->n_loops;
    for (int i = 0; i < c->n_loops; i++)
        live->news[i] = (struct carry_news){
            .put.fn = carry_loop_put, .remove.fn = carry_loop_remove, .loop = &c->loops[i], .live = live};
    live->left_ns = dv_clock_now_ns(c->cfg.clock);
    *out = live;
    return DV_OK;
}

/* ---- the interface ---- */

int dv_carry_start(const struct dv_carry_cfg *cfg, struct dv_carry **out, struct dv_err *err)
{
    struct dv_carry *c = dv_zalloc(sizeof(*c));
    if (!c)
        return dv_err_set(err, DV_E_NOMEM, "carry");
    c->cfg = *cfg;
    c->refs = 1;
    c->left_msg.fn = on_left;
    int n = cfg->n_loops > 0 ? cfg->n_loops : 1;
    dv_map_init(&c->lives, 0);
    c->loops = dv_zalloc_n((size_t)n, sizeof(*c->loops));
    int rc = c->loops ? DV_OK : dv_err_set(err, DV_E_NOMEM, "carry");
    while (!rc && c->n_loops < n) {
        rc = carry_loop_init(&c->loops[c->n_loops], c, c->n_loops, err);
        c->n_loops++; /* deinit copes with one that began to be made */
    }
    if (rc) {
        dv_carry_free(c);
        return rc;
    }
    *out = c;
    return DV_OK;
}

void dv_carry_free(struct dv_carry *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n_loops; i++)
        carry_loop_join(&c->loops[i]);
    for (int i = 0; i < c->n_loops; i++)
        carry_loop_deinit(&c->loops[i]);
    size_t i = 0;
    for (struct carry_live *live; (live = dv_map_next(&c->lives, &i));) {
        carry_unasked(live);
        carry_live_unref(live);
    }
    dv_map_deinit(&c->lives);
    dv_free(c->loops);
    c->is_closed = true;
    carry_unref(c);
}

void dv_carry_adopt(struct dv_carry *c, struct dv_linkio *io)
{
    atomic_fetch_add(&c->n_links, 1);
    carry_loop_adopt(&c->loops[c->next_loop], io);
    c->next_loop = (c->next_loop + 1) % c->n_loops;
}

static int replica_remove(struct dv_carry *c, uint64_t id, enum dv_link_reset why, bool is_told)
{
    struct carry_live *live = dv_idmap_remove(&c->lives, id);
    if (!live)
        return DV_NOT_FOUND;
    live->why_gone = why;
    live->is_close_told = is_told;
    carry_unasked(live);
    for (int i = 0; i < c->n_loops; i++) {
        carry_live_ref(live);
        dv_mailbox_post(c->loops[i].mailbox, &live->news[i].remove);
    }
    carry_live_unref(live);
    return DV_OK;
}

int dv_carry_replica_put(struct dv_carry *c, const struct dv_carry_replica *r)
{
    struct carry_live *live = dv_idmap_find(&c->lives, r->id);
    if (live && !strcmp(live->address_text, r->address) && !atomic_load(&live->is_draining)) {
        atomic_store(&live->concurrency, r->concurrency);
        return DV_OK;
    }
    struct carry_live *fresh = NULL;
    int rc = live_new(c, r, &fresh);
    if (rc)
        return rc;
    if (live) /* it moved, or comes back from draining: a new life under the same id */
        (void)replica_remove(c, r->id, DV_RESET_BROKEN, false);
    rc = dv_idmap_put(&c->lives, r->id, fresh);
    if (rc) {
        carry_live_unref(fresh);
        return rc;
    }
    for (int i = 0; i < c->n_loops; i++) {
        carry_live_ref(fresh);
        dv_mailbox_post(c->loops[i].mailbox, &fresh->news[i].put);
    }
    return DV_OK;
}

void dv_carry_replica_drain(struct dv_carry *c, uint64_t id)
{
    struct carry_live *live = dv_idmap_find(&c->lives, id);
    if (!live)
        return;
    atomic_store(&live->is_draining, true);
    if (carry_inside(live) == 0)
        carry_tell_drained(live);
}

int dv_carry_replica_remove(struct dv_carry *c, uint64_t id, enum dv_link_reset why)
{
    return replica_remove(c, id, why, true);
}

int dv_carry_replica_ended(struct dv_carry *c, uint64_t id, const char *text)
{
    struct carry_live *live = dv_idmap_find(&c->lives, id);
    if (live)
        (void)dv_copy(live->why_text, sizeof(live->why_text), text); /* cut, if need be */
    return replica_remove(c, id, DV_RESET_EXITED, true);
}

int dv_carry_load(struct dv_carry *c, uint64_t id, uint64_t *out_in_flight, uint64_t *out_served)
{
    struct carry_live *live = dv_idmap_find(&c->lives, id);
    if (!live)
        return DV_NOT_FOUND;
    *out_in_flight = carry_inside(live);
    *out_served = atomic_load(&live->served);
    return DV_OK;
}

void dv_carry_goaway(struct dv_carry *c)
{
    atomic_store(&c->is_leaving, true); /* seen by whoever lowers n_links from here on */
    for (int i = 0; i < c->n_loops;
         i++) /* without memory the links are closed all the same, only less politely */
        (void)dv_mailbox_call(c->loops[i].mailbox, carry_loop_goaway, &c->loops[i]);
    carry_tell_if_left(c);
}

size_t dv_carry_n_links(struct dv_carry *c)
{
    return (size_t)atomic_load(&c->n_links);
}

/* ---- metrics ---- */

static uint64_t sum(const struct dv_carry *c, size_t offset)
{
    uint64_t n = 0;
    for (int i = 0; i < c->n_loops; i++)
        n += atomic_load_explicit((_Atomic uint64_t *)(void *)((char *)&c->loops[i] + offset),
                                  memory_order_relaxed);
    return n;
}

uint64_t dv_carry_n_inside(struct dv_carry *c)
{
    return sum(c, offsetof(struct carry_loop, n_streams));
}

static void metric(struct dv_buf *out, const char *name, enum dv_metric_kind kind, const char *help,
                   uint64_t value)
{
    (void)dv_metric_head(out, name, kind, help); /* failures stay in out->failed */
    (void)dv_metric_u64(out, name, NULL, 0, value);
}

void dv_carry_metrics(struct dv_carry *c, struct dv_buf *out)
{
    static const char total[] = "davit_agent_requests_total";
    (void)dv_metric_head(out, total, DV_METRIC_COUNTER,
                         "Requests that gateways sent here, by how they ended.");
    for (size_t k = 0; k < CARRY_N_OUTCOMES; k++) {
        struct dv_label result = {"result", dv_sv_c(outcome_names[k])};
        (void)dv_metric_u64(out, total, &result, 1,
                            sum(c, offsetof(struct carry_loop, outcomes) + k * sizeof(uint64_t)));
    }
    metric(out, "davit_agent_requests_in_flight", DV_METRIC_GAUGE, "Requests inside containers now.",
           dv_carry_n_inside(c));
    metric(out, "davit_agent_connections_total", DV_METRIC_COUNTER, "Connections opened to containers.",
           sum(c, offsetof(struct carry_loop, connects)));
    metric(out, "davit_agent_connections_reused_total", DV_METRIC_COUNTER,
           "Requests that found a connection kept alive.", sum(c, offsetof(struct carry_loop, reuses)));
    metric(out, "davit_agent_retries_total", DV_METRIC_COUNTER, "Requests repeated on a fresh connection.",
           sum(c, offsetof(struct carry_loop, retries)));
    metric(out, "davit_agent_requests_held_total", DV_METRIC_COUNTER,
           "Requests that came to a frozen replica and waited until it ran.",
           sum(c, offsetof(struct carry_loop, held)));
    metric(out, "davit_agent_request_body_bytes_total", DV_METRIC_COUNTER, "Bytes of request bodies.",
           sum(c, offsetof(struct carry_loop, bytes_in)));
    metric(out, "davit_agent_response_body_bytes_total", DV_METRIC_COUNTER, "Bytes of answers' bodies.",
           sum(c, offsetof(struct carry_loop, bytes_out)));
}
