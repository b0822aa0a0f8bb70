/* A write under way: between the call to dv_control and its done.  The op holds what the answer needs; the
 * client may leave meanwhile, and the write goes on without it. */
#include "orchestrator/api/api_internal.h"

#include "proto/base/alloc.h"

int dv_api_no_memory(struct dv_err *err)
{
    return dv_err_set(err, DV_E_NOMEM, "out of memory; try again");
}

/* The client left: the server wants its request back all the same. */
static void on_gone(void *user)
{
    struct dv_api_op *op = user;
    struct dv_http_req *req = op->req;
    op->req = NULL;
    if (op->on_gone) {
        dv_http_stream_end(req);
        op->on_gone(op);
    } else {
        dv_http_reply(req, 503, NULL, DV_SV(""));
    }
}

struct dv_api_op *dv_api_op_new(struct dv_api_call *c, void (*ok)(struct dv_api_op *op))
{
    struct dv_api_op *op = dv_zalloc(sizeof(*op));
    if (!op)
        return NULL;
    op->api = c->api;
    op->req = c->req;
    op->route = c->route;
    op->ok = ok;
    dv_list_push_back(&c->api->ops, &op->node);
    dv_http_set_user(c->req, op, on_gone);
    return op;
}

void dv_api_op_free(struct dv_api_op *op)
{
    if (!op)
        return;
    if (op->api)
        dv_list_remove(&op->node);
    dv_arena_deinit(&op->arena);
    dv_free(op);
}

/* dv_control says "functions[i].x" where it was given several functions; the client is told so when it sent a
 * list. */
static void settle_field(const struct dv_api_op *op, struct dv_err *err)
{
    static const char first[] = "functions[0].";
    bool is_prefixed = dv_sv_starts(dv_sv_c(err->field), DV_SV("functions["));
    char field[sizeof(err->field)];
    if (op->is_list && !is_prefixed && err->field[0])
        (void)snprintf(field, sizeof(field), "%s%.70s", first, err->field);
    else if (!op->is_list && dv_sv_starts(dv_sv_c(err->field), dv_sv_c(first)))
        (void)snprintf(field, sizeof(field), "%s", err->field + strlen(first));
    else
        return;
    memcpy(err->field, field, sizeof(field));
}

int dv_api_op_sent(struct dv_api_op *op, int rc, struct dv_err *err)
{
    if (rc) {
        if (err)
            settle_field(op, err);
        dv_http_set_user(op->req, NULL, NULL);
        dv_api_op_free(op);
    }
    return rc;
}

void dv_api_op_done(void *ctx, int code, const struct dv_err *err, uint64_t revision)
{
    struct dv_api_op *op = ctx;
    op->revision = revision;
    if (!op->req || !op->api) {
        dv_api_op_free(op);
        return;
    }
    dv_http_set_user(op->req, NULL, NULL);
    if (code) {
        struct dv_err settled = DV_ERR_INIT;
        if (err)
            settled = *err;
        settle_field(op, &settled);
        /* Nobody asked for a precondition: what failed is that somebody else wrote at the same time. */
        if (code == DV_PRECONDITION && !op->has_if_match)
            code = DV_CONFLICT;
        dv_api_reply_error(op->req, dv_api_face_of(op->route), dv_err_http(code), code, &settled);
    } else {
        op->ok(op);
    }
    op->req = NULL;
    dv_api_op_free(op);
}

void dv_api_ok_status(struct dv_api_op *op)
{
    dv_api_reply_empty(op->req, op->status);
}
