/* Nodes: who carries replicas; joining, cordoning, draining, removing. */
#include "orchestrator/api/api_internal.h"

static void put_node(struct dv_jw *w, const struct dv_node_status *n)
{
    const struct dv_node_report *r = n->report;
    dv_jw_open(w, NULL, '{');
    dv_jw_id(w, "id", n->record->node);
    dv_jw_str(w, "name", n->record->name);
    dv_jw_str(w, "address", n->record->address);
    dv_jw_str(w, "state", dv_node_state_name(n->state));
    dv_jw_str(w, "message", n->message);
    dv_jw_kvs(w, "labels", &n->record->labels);
    dv_jw_bool(w, "is_cordoned", n->record->is_cordoned);
    dv_jw_i64(w, "joined_ms", n->record->joined_ms);
    dv_jw_i64(w, "last_seen_ms", n->last_seen_ms);
    dv_jw_i64(w, "replicas", n->n_replicas);
    dv_jw_i64(w, "promised_mcpu", n->promised_mcpu);
    dv_jw_i64(w, "promised_bytes", n->promised_bytes);
    if (r) {
        dv_jw_str(w, "version", r->version);
        dv_jw_bool(w, "engine_ok", r->engine_ok);
        dv_jw_str(w, "engine_message", r->engine_message);
        dv_jw_str(w, "engine_version", r->engine_version);
        dv_jw_str(w, "api_version", r->api_version);
        dv_jw_str(w, "arch", r->arch);
        dv_jw_str(w, "os", r->os);
        dv_jw_str(w, "cgroup", r->cgroup);
        dv_jw_i64(w, "cpus", r->cpus);
        dv_jw_i64(w, "cpu_used_mcpu", r->cpu_used_mcpu);
        dv_jw_i64(w, "memory_bytes", r->memory_bytes);
        dv_jw_i64(w, "memory_available_bytes", r->memory_available_bytes);
        dv_jw_i64(w, "replicas_max", r->replicas_max);
        dv_jw_i64(w, "primed_max", r->primed_max > 0 ? r->primed_max : 0);
        dv_jw_open(w, "primed", '[');
        for (size_t i = 0; i < r->n_pools; i++)
            dv_jw_wire(w, NULL, &dv_type_pool, &r->pools[i]);
        dv_jw_close(w, ']');
        dv_jw_open(w, "images", '[');
        for (size_t i = 0; i < n->n_images; i++)
            dv_jw_str(w, NULL, n->images[i]);
        dv_jw_close(w, ']');
    }
    dv_jw_close(w, '}');
}

static int put_each(void *ctx, const struct dv_node_status *n)
{
    put_node(ctx, n);
    return 0;
}

int dv_api_nodes(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "nodes", '[');
    dv_control_nodes_each(c->api->cfg.control, put_each, &w);
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

static int reply_node(struct dv_api *a, struct dv_http_req *req, const char *name_or_id, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct dv_node_status n;
    if (dv_control_node_find(a->cfg.control, dv_sv_c(name_or_id), &n))
        return dv_err_set(err, DV_NOT_FOUND, "there is no node \"%.128s\"", name_or_id);
    put_node(&w, &n);
    dv_api_reply_json(req, 200, &b);
    return DV_OK;
}

int dv_api_node_get(struct dv_api_call *c, struct dv_err *err)
{
    return reply_node(c->api, c->req, c->arg, err);
}

/* ---------------------------------------------------------------- operations */

static void ok_node(struct dv_api_op *op)
{
    struct dv_err err = DV_ERR_INIT;
    int rc = op->status == 204 ? DV_OK : reply_node(op->api, op->req, op->name, &err);
    if (op->status == 204)
        dv_api_reply_empty(op->req, 204);
    else if (rc)
        dv_api_reply_error(op->req, DV_API_V1, 404, rc, &err);
}

static int node_op(struct dv_api_call *c, enum dv_node_op what, int status, struct dv_err *err)
{
    struct dv_api_op *op = dv_api_op_new(c, ok_node);
    if (!op)
        return dv_api_no_memory(err);
    op->status = status;
    op->name = dv_arena_strdup(&op->arena, c->arg);
    int rc = op->name
                 ? dv_control_node_op(c->api->cfg.control, dv_sv_c(op->name), what, dv_api_op_done, op, err)
                 : dv_api_no_memory(err);
    return dv_api_op_sent(op, rc, err);
}

int dv_api_node_delete(struct dv_api_call *c, struct dv_err *err)
{
    int rc = DV_OK;
    bool is_forced = dv_api_flag(c, "force", err, &rc);
    return rc ? rc : node_op(c, is_forced ? DV_NODE_REMOVE_FORCED : DV_NODE_REMOVE, 204, err);
}

int dv_api_node_cordon(struct dv_api_call *c, struct dv_err *err)
{
    return node_op(c, DV_NODE_CORDON, 200, err);
}

int dv_api_node_uncordon(struct dv_api_call *c, struct dv_err *err)
{
    return node_op(c, DV_NODE_UNCORDON, 200, err);
}

int dv_api_node_drain(struct dv_api_call *c, struct dv_err *err)
{
    return node_op(c, DV_NODE_DRAIN, 200, err);
}

/* ---------------------------------------------------------------- joining */

static void join_done(void *ctx, int code, const struct dv_err *err, const struct dv_join_reply *reply)
{
    struct dv_api_op *op = ctx;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    if (op->req)
        dv_http_set_user(op->req, NULL, NULL);
    if (op->req && op->api && code) {
        dv_api_reply_error(op->req, DV_API_V1, dv_err_http(code), code, err);
    } else if (op->req && op->api) {
        (void)dv_wire_encode(&dv_type_join_reply, reply, &b); /* b.failed is read by the reply */
        dv_api_reply_json(op->req, 200, &b);
    }
    dv_api_op_free(op);
}

int dv_api_node_join(struct dv_api_call *c, struct dv_err *err)
{
    struct dv_join join;
    /* An agent may be newer than this program: what it says beyond the table is not for us. */
    int rc = dv_api_body(c, &dv_type_join, DV_WIRE_IGNORE_UNKNOWN, &join, err);
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, NULL);
    if (!op)
        return dv_api_no_memory(err);
    return dv_api_op_sent(op, dv_control_node_join(c->api->cfg.control, &join, join_done, op, err), err);
}
