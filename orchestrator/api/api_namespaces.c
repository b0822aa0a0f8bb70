/* Namespaces. */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>

static void put_ns(struct dv_jw *w, const struct dv_ns_view *ns)
{
    dv_jw_open(w, NULL, '{');
    dv_jw_str(w, "name", ns->name);
    dv_jw_kvs(w, "labels", ns->labels);
    dv_jw_kvs(w, "annotations", ns->annotations);
    dv_jw_i64(w, "created_ms", ns->created_ms);
    dv_jw_close(w, '}');
}

static int put_each(void *ctx, const struct dv_ns_view *ns)
{
    put_ns(ctx, ns);
    return 0;
}

int dv_api_ns_list(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "namespaces", '[');
    dv_control_ns_each(c->api->cfg.control, put_each, &w);
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

struct find_ctx {
    const char *name;
    struct dv_jw *w;
    void (*put)(struct dv_jw *w, const struct dv_ns_view *ns);
    bool found;
};

static int put_if_it(void *ctx, const struct dv_ns_view *ns)
{
    struct find_ctx *f = ctx;
    f->found = strcmp(ns->name, f->name) == 0;
    if (f->found)
        f->put(f->w, ns);
    return f->found;
}

bool dv_api_ns_reply(struct dv_api *a, struct dv_http_req *req, const char *name, int status,
                     void (*put)(struct dv_jw *w, const struct dv_ns_view *ns))
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct find_ctx f = {.name = name, .w = &w, .put = put};
    dv_control_ns_each(a->cfg.control, put_if_it, &f);
    if (f.found)
        dv_api_reply_json(req, status, &b);
    return f.found;
}

static int reply_ns(struct dv_api *a, struct dv_http_req *req, const char *name, int status,
                    struct dv_err *err)
{
    return dv_api_ns_reply(a, req, name, status, put_ns)
               ? DV_OK
               : dv_err_set(err, DV_NOT_FOUND, "there is no namespace \"%.64s\"", name);
}

int dv_api_ns_get(struct dv_api_call *c, struct dv_err *err)
{
    return reply_ns(c->api, c->req, c->arg, 200, err);
}

static void ok_ns(struct dv_api_op *op)
{
    struct dv_err err = DV_ERR_INIT;
    int rc = reply_ns(op->api, op->req, op->name, op->status, &err);
    if (rc)
        dv_api_reply_error(op->req, DV_API_V1, 409, DV_CONFLICT, &err);
}

static int read_ns(struct dv_api_call *c, struct dv_ns_put *out, struct dv_err *err)
{
    return dv_api_body_named(c, &dv_type_ns_put, "name", NULL, out, err);
}

int dv_api_ns_write(struct dv_api_call *c, const char *name, const struct dv_ns_put *ns, bool create,
                    int status, void (*ok)(struct dv_api_op *op), struct dv_err *err)
{
    if (!create && !dv_control_ns_exists(c->api->cfg.control, dv_sv_c(name)))
        return dv_err_set(err, DV_NOT_FOUND, "there is no namespace \"%s\"", ns->name);
    struct dv_api_op *op = dv_api_op_new(c, ok);
    if (!op)
        return dv_api_no_memory(err);
    op->status = status;
    op->name = dv_arena_strdup(&op->arena, name);
    int rc = op->name ? dv_control_ns_put(c->api->cfg.control, dv_sv_c(op->name), &ns->labels,
                                          &ns->annotations, create, dv_api_op_done, op, err)
                      : dv_api_no_memory(err);
    return dv_api_op_sent(op, rc, err);
}

static int write_ns(struct dv_api_call *c, bool create, int status, struct dv_err *err)
{
    struct dv_ns_put ns;
    int rc = read_ns(c, &ns, err);
    return rc ? rc : dv_api_ns_write(c, ns.name, &ns, create, status, ok_ns, err);
}

int dv_api_ns_create(struct dv_api_call *c, struct dv_err *err)
{
    return write_ns(c, true, 201, err);
}

int dv_api_ns_put(struct dv_api_call *c, struct dv_err *err)
{
    return write_ns(c, false, 200, err);
}

int dv_api_ns_remove(struct dv_api_call *c, const char *name, int status, struct dv_err *err)
{
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    if (!op)
        return dv_api_no_memory(err);
    op->status = status;
    return dv_api_op_sent(
        op, dv_control_ns_delete(c->api->cfg.control, dv_sv_c(name), dv_api_op_done, op, err), err);
}

int dv_api_ns_delete(struct dv_api_call *c, struct dv_err *err)
{
    return dv_api_ns_remove(c, c->arg, 204, err);
}
