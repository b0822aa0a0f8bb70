/* Async requests: the body is collected, the whole goes to the state loop, which commits it and tells; only
 * then the client gets its 202.  A client that leaves in between does not undo what was handed over. */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"

struct accept {
    struct dv_async_accept pub;
    struct dv_gw_face *face;
    struct dv_gw_loop *loop;
    struct dv_gw_req *r; /* looked at only while its serial is ours */
    uint64_t serial;
    int code;
    char detail[240];
};

static void accept_free(struct accept *a)
{
    dv_free(a->pub.fn);
    dv_free(a->pub.method);
    dv_free(a->pub.target);
    dv_free(a->pub.fields);
    dv_free(a->pub.body);
    dv_free(a->pub.callback_url);
    dv_gw_face_unref(a->face);
    dv_free(a);
}

/* On the state loop. */
static void on_posted(struct dv_msg *m)
{
    struct dv_async_accept *pub = DV_CONTAINER_OF(m, struct dv_async_accept, msg);
    struct accept *a = DV_CONTAINER_OF(pub, struct accept, pub);
    if (a->face->g)
        a->face->g->cfg.on_async(a->face->g->cfg.ctx, pub);
    else
        accept_free(a); /* the gateway is gone, and its client with it */
}

/* Back on the loop. */
static void on_answered(struct dv_msg *m)
{
    struct dv_async_accept *pub = DV_CONTAINER_OF(m, struct dv_async_accept, msg);
    struct accept *a = DV_CONTAINER_OF(pub, struct accept, pub);
    if (!a->loop->is_stopped && a->r->serial == a->serial && a->r->state == GW_REQ_ACCEPTING)
        dv_gw_request_accepted(a->r, a->code, a->detail);
    accept_free(a);
}

void dv_gateway_async_done(struct dv_gateway *g, struct dv_async_accept *pub, int code,
                           const struct dv_err *err)
{
    struct accept *a = DV_CONTAINER_OF(pub, struct accept, pub);
    (void)g;
    a->code = code;
    (void)dv_copy(a->detail, sizeof(a->detail), dv_err_msg(err, code)); /* cut when long */
    pub->msg.fn = on_answered;
    dv_mailbox_post(a->loop->mailbox, &pub->msg);
}

static char *copy(struct dv_sv s)
{
    return dv_strndup(s.n ? s.p : "", s.n);
}

void dv_gw_async_collected(struct dv_gw_req *r)
{
    struct dv_gw_loop *l = r->conn->loop;
    struct accept *a = dv_zalloc(sizeof(*a));
    if (!a || !l->g->cfg.on_async) {
        bool no_memory = !a;
        dv_free(a);
        dv_gw_request_accepted(r, no_memory ? DV_E_NOMEM : DV_UNSUPPORTED,
                               no_memory ? "out of memory" : "async requests are not served here");
        return;
    }
    l->async_bytes -= dv_buf_len(&r->body);
    a->face = dv_gw_face_ref(l->g->face);
    a->loop = l;
    a->r = r;
    a->serial = r->serial;
    a->pub.msg.fn = on_posted;
    a->pub.fn_uid = r->fn->uid;
    a->pub.fn = copy(dv_sv(r->fn->key, r->fn->key_n));
    a->pub.method = copy(dv_gw_req_method(r));
    a->pub.target = copy(dv_gw_req_target(r));
    a->pub.fields = copy(dv_gw_req_fields(r));
    a->pub.callback_url = dv_steal(&r->callback_url);
    (void)dv_copy(a->pub.call_id, sizeof(a->pub.call_id), r->call_id); /* the same size */
    a->pub.body = dv_buf_steal(&r->body, &a->pub.body_bytes);
    r->state = GW_REQ_ACCEPTING;
    dv_gw_conn_arm(r->conn, GW_NEVER_NS);
    if (!a->pub.fn || !a->pub.method || !a->pub.target || !a->pub.fields || !a->pub.body) {
        accept_free(a);
        dv_gw_request_accepted(r, DV_E_NOMEM, "out of memory");
        return;
    }
    dv_mailbox_post(l->g->cfg.state, &a->pub.msg);
}
