/* Streams to agents: one DATA connection per node and loop, reconnected with back-off for as long as the node
 * is known. */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"
#include "proto/rt/log.h"

#define BACKOFF_MIN_NS (20 * DV_MS)
#define BACKOFF_MAX_NS (1 * DV_S)

static void node_connect(struct dv_gw_node *n);

static struct dv_gw_node *node_get(struct dv_gw_loop *l, uint64_t id);

/* ---- who may be asked ---- */

static void set_reachable(struct dv_gw_node *n, bool yes)
{
    DV_LIST_FOR_EACH (it, &n->slots)
        DV_LIST_ENTRY(it, struct dv_slots, in_node)->is_reachable = yes;
    if (!yes)
        return;
    /* Running a request may end requests and so change the list; each function is found again by its uid. */
    for (size_t skip = 0;; skip++) {
        struct dv_list *it = n->slots.next;
        for (size_t i = 0; i < skip && it != &n->slots; i++)
            it = it->next;
        if (it == &n->slots)
            return;
        struct dv_slots *s = DV_LIST_ENTRY(it, struct dv_slots, in_node);
        dv_gw_fn_pump(DV_CONTAINER_OF(s->queue, struct dv_gw_fn, queue));
    }
}

void dv_gw_slots_attach(struct dv_gw_loop *l, struct dv_slots *s)
{
    struct dv_gw_node *n = node_get(l, s->live->node);
    if (!n)
        return; /* no memory: not reachable until the set is told again */
    s->is_reachable = n->is_open && !n->is_going;
    dv_list_push_back(&n->slots, &s->in_node);
}

/* ---- what the agent says ---- */

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct dv_gw_node *n = ctx;
    struct dv_gw_req *r = ev->user;
    switch (ev->kind) {
    case DV_LINK_EV_OPEN:
        n->is_open = true;
        n->is_going = false;
        n->backoff_ns = 0;
        dv_live_add(&n->loop->n.links_open, 1);
        set_reachable(n, true);
        return;
    case DV_LINK_EV_GOAWAY:
        n->is_going = true;
        set_reachable(n, false);
        return;
    case DV_LINK_EV_RESPONSE:
        if (r) {
            const struct dv_link_response *resp = &ev->response;
            r->start_us = resp->start_us;
            r->run_us = resp->run_us;
            dv_gw_up_head(r, resp->status, (enum dv_h1_body)resp->body, resp->content_length, resp->fields);
        }
        return;
    case DV_LINK_EV_DATA:
        if (r)
            dv_gw_up_data(r, ev->bytes);
        return;
    case DV_LINK_EV_TRAILERS:
        if (r)
            dv_gw_up_trailers(r, ev->bytes);
        return;
    case DV_LINK_EV_END:
        if (r)
            dv_gw_up_end(r);
        return;
    case DV_LINK_EV_WRITABLE:
        if (r)
            dv_gw_up_writable(r);
        return;
    case DV_LINK_EV_RESET:
        if (r)
            dv_gw_up_reset(r, ev->reset, ev->bytes);
        return;
    case DV_LINK_EV_REQUEST: /* an agent opens no streams, and sends nothing else on a connection for data */
    case DV_LINK_EV_CONTROL:
    case DV_LINK_EV_REPORT:
    case DV_LINK_EV_PONG:
        return;
    }
}

/* ---- the connection ---- */

struct gone {
    struct dv_gw_req *r;
    uint64_t serial;
    bool is_unsent; /* the agent cannot have read its head */
};
struct gone_list {
    const struct dv_link *link;
    struct gone *v;
    size_t n, cap;
};

static void collect(void *ctx, uint32_t stream, void *user)
{
    struct gone_list *g = ctx;
    struct dv_gw_req *r = user;
    if (r && g->n < g->cap)
        g->v[g->n++] = (struct gone){r, r->serial, dv_link_is_unsent(g->link, stream)};
}

/* The connection is no more: its requests end, those that had not left and whoever waits look elsewhere. */
static void drop_link(struct dv_gw_node *n, const char *why)
{
    struct dv_linkio *io = n->io;
    if (!io)
        return;
    if (n->is_open)
        dv_live_add(&n->loop->n.links_open, (uint64_t)-1);
    n->is_open = n->is_going = false;
    n->io = NULL;
    set_reachable(n, false);
    struct gone_list g = {.link = dv_linkio_link(io), .cap = dv_link_n_streams(dv_linkio_link(io))};
    g.v = g.cap ? dv_zalloc_n(g.cap, sizeof(*g.v)) : NULL;
    if (!g.v)
        g.cap = 0; /* without memory they end at their deadline */
    dv_link_each_stream(dv_linkio_link(io), collect, &g);
    dv_linkio_free(io);
    for (size_t i = 0; i < g.n; i++) {
        struct dv_gw_req *r = g.v[i].r;
        if (r->serial != g.v[i].serial || r->node != n)
            continue;
        if (g.v[i].is_unsent)
            dv_gw_up_reset(r, DV_RESET_NOT_HERE, dv_sv("", 0));
        else
            dv_gw_up_failed(r, 502, "node_lost", why);
    }
    dv_free(g.v);
}

static void reconnect_later(struct dv_gw_node *n)
{
    n->backoff_ns = !n->backoff_ns                       ? BACKOFF_MIN_NS
                    : n->backoff_ns < BACKOFF_MAX_NS / 2 ? n->backoff_ns * 2
                                                         : BACKOFF_MAX_NS;
    (void)dv_timer_set(n->loop->loop, &n->timer, dv_loop_now(n->loop->loop) + n->backoff_ns);
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    struct dv_gw_node *n = ctx;
    if (n->is_open && !n->is_going)
        dv_log(DV_LOG_WARN, "link to node broke", DV_LID("node", n->id), DV_LU("loop", n->loop->index),
               DV_LS("error", dv_err_msg(err, code)));
    if (!n->is_going) /* an agent that has said so may close */
        dv_live_add(&n->loop->n.link_failures, 1);
    drop_link(n, "the connection to the function's node broke while the request was inside");
    reconnect_later(n);
}

static void node_connect(struct dv_gw_node *n)
{
    struct dv_linkio_cfg cfg = {.link = {.role = DV_LINK_CLIENT,
                                         .purpose = DV_LINK_DATA_CONN,
                                         .node = n->id,
                                         .on_event = on_event,
                                         .ctx = n},
                                .is_near_first = true,
                                .on_closed = on_closed};
    memcpy(cfg.link.key, n->key, sizeof(cfg.link.key));
    struct dv_err err = DV_ERR_INIT;
    if (dv_linkio_connect(n->loop->loop, n->address, &cfg, &n->io, &err)) {
        n->io = NULL;
        dv_live_add(&n->loop->n.link_failures, 1);
        reconnect_later(n);
    }
}

static void on_timer(struct dv_timer *t)
{
    struct dv_gw_node *n = DV_CONTAINER_OF(t, struct dv_gw_node, timer);
    if (!n->io && n->address)
        node_connect(n);
}

/* ---- nodes ---- */

/* A replica may be told before its node: the node is then an empty place that waits for its address. */
static struct dv_gw_node *node_get(struct dv_gw_loop *l, uint64_t id)
{
    struct dv_gw_node *n = dv_idmap_find(&l->nodes, id);
    if (n)
        return n;
    n = dv_zalloc(sizeof(*n));
    if (!n)
        return NULL;
    n->id = id;
    n->loop = l;
    n->timer.fn = on_timer;
    dv_list_init(&n->slots);
    if (dv_idmap_put(&l->nodes, id, n)) {
        dv_free(n);
        return NULL;
    }
    return n;
}

int dv_gw_node_put(struct dv_gw_loop *l, const struct dv_route_node *in)
{
    struct dv_gw_node *n = node_get(l, in->id);
    char *address = dv_strdup(in->address);
    if (!n || !address) {
        dv_free(address);
        return DV_E_NOMEM;
    }
    bool same =
        n->address && strcmp(n->address, address) == 0 && memcmp(n->key, in->key, sizeof(n->key)) == 0;
    dv_free(n->address);
    n->address = address;
    memcpy(n->key, in->key, sizeof(n->key));
    if (same && n->io)
        return DV_OK;
    drop_link(n, "the function's node moved while the request was inside");
    n->backoff_ns = 0;
    dv_timer_cancel(l->loop, &n->timer);
    node_connect(n);
    return DV_OK;
}

void dv_gw_node_remove(struct dv_gw_loop *l, uint64_t id)
{
    struct dv_gw_node *n = dv_idmap_find(&l->nodes, id);
    if (!n)
        return;
    drop_link(n, "the function's node left the cluster while the request was inside");
    dv_timer_cancel(l->loop, &n->timer);
    dv_free(n->address);
    n->address = NULL; /* the place stays while replicas are listed under it */
    if (!dv_list_empty(&n->slots))
        return;
    (void)dv_idmap_remove(&l->nodes, id);
    dv_free(n);
}

void dv_gw_nodes_free(struct dv_gw_loop *l)
{
    struct dv_gw_node *n;
    for (size_t i = 0; (n = dv_map_next(&l->nodes, &i));) {
        dv_timer_cancel(l->loop, &n->timer);
        dv_linkio_free(n->io);
        dv_free(n->address);
        dv_free(n);
    }
    dv_map_deinit(&l->nodes);
}

/* ---- streams ---- */

int dv_gw_link_open(struct dv_gw_req *r, uint32_t timeout_ms)
{
    struct dv_gw_node *n = dv_idmap_find(&r->conn->loop->nodes, r->slot->live->node);
    if (!n || !n->is_open || n->is_going)
        return DV_CLOSED;
    struct dv_link_request req = {.replica = r->slot->live->id,
                                  .timeout_ms = timeout_ms,
                                  .body = (uint8_t)(r->upgrade[0] ? DV_H1_UPGRADED : r->body_kind),
                                  .content_length = r->content_length,
                                  .method = dv_gw_req_method(r),
                                  .target = dv_gw_req_target(r),
                                  .fields = dv_gw_req_fields(r)};
    bool end = !r->upgrade[0] && r->body_kind == DV_H1_NO_BODY;
    int rc = dv_link_open_stream(dv_linkio_link(n->io), &req, end, r, &r->stream);
    if (rc)
        return rc;
    r->node = n;
    r->end_sent = end;
    dv_linkio_kick(n->io);
    return DV_OK;
}

int dv_gw_link_send(struct dv_gw_req *r, struct dv_sv bytes, bool end, size_t *out_taken)
{
    int rc = dv_link_send(dv_linkio_link(r->node->io), r->stream, bytes.p, bytes.n, end, out_taken);
    dv_linkio_kick(r->node->io);
    return rc;
}

size_t dv_gw_link_credit(const struct dv_gw_req *r)
{
    return dv_link_credit(dv_linkio_link(r->node->io), r->stream);
}

bool dv_gw_link_was_credited(const struct dv_gw_req *r)
{
    return r->node && dv_link_was_credited(dv_linkio_link(r->node->io), r->stream);
}

void dv_gw_link_trailers(struct dv_gw_req *r, struct dv_sv fields)
{
    (void)dv_link_send_trailers(dv_linkio_link(r->node->io), r->stream,
                                fields); /* a stream that is gone tells so itself */
    dv_linkio_kick(r->node->io);
}

void dv_gw_link_consumed(struct dv_gw_req *r, size_t n)
{
    if (!r->node)
        return;
    dv_link_consumed(dv_linkio_link(r->node->io), r->stream, n);
    dv_linkio_kick(r->node->io);
}

void dv_gw_link_reset(struct dv_gw_req *r, enum dv_link_reset why)
{
    struct dv_gw_node *n = r->node;
    r->node = NULL;
    if (!n || !n->io)
        return;
    dv_link_set_user(dv_linkio_link(n->io), r->stream, NULL);
    (void)dv_link_reset(dv_linkio_link(n->io), r->stream, why); /* gone already: nothing to reset */
    dv_linkio_kick(n->io);
}
