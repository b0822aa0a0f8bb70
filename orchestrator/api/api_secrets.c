/* Secrets and registry credentials: written, listed by name, never read back. */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>

/* ---------------------------------------------------------------- secrets */

static int put_secret_name(void *ctx, const char *ns, const char *name, int64_t updated_ms)
{
    struct dv_jw *w = ctx;
    dv_jw_open(w, NULL, '{');
    dv_jw_str(w, "name", name);
    dv_jw_str(w, "namespace", ns);
    dv_jw_i64(w, "updated_ms", updated_ms);
    dv_jw_close(w, '}');
    return 0;
}

int dv_api_secrets_list(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    const char *ns = dv_http_param(c->req, "namespace");
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "secrets", '[');
    dv_control_secrets_each(c->api->cfg.control, dv_sv_c(ns ? ns : ""), put_secret_name, &w);
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

static void ok_secret(struct dv_api_op *op)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    dv_jw_open(&w, NULL, '{');
    dv_jw_str(&w, "name", op->name);
    dv_jw_str(&w, "namespace", op->ns);
    dv_jw_close(&w, '}');
    dv_api_reply_json(op->req, op->status, &b);
}

static int read_secret(struct dv_api_call *c, struct dv_secret_put *out, struct dv_err *err)
{
    return dv_api_body_named(c, &dv_type_secret_put, "name", dv_http_param(c->req, "namespace"), out, err);
}

int dv_api_base64(struct dv_api_call *c, const char *text, struct dv_sv *out, struct dv_err *err)
{
    struct dv_sv in = dv_sv_c(text);
    char *raw = dv_arena_alloc(c->arena, in.n / 4 * 3 + 1);
    if (!raw)
        return dv_api_no_memory(err);
    ptrdiff_t n = dv_base64_decode(in, raw);
    if (n < 0)
        return DV_INVALID;
    *out = dv_sv(raw, (size_t)n);
    return DV_OK;
}

/* The value's bytes, in the request's arena. */
static int secret_bytes(struct dv_api_call *c, const struct dv_secret_put *s, struct dv_sv *out,
                        struct dv_err *err)
{
    if (s->value) {
        *out = dv_sv_c(s->value);
        return DV_OK;
    }
    int rc = dv_api_base64(c, s->value_base64, out, err);
    return rc == DV_INVALID ? dv_err_field(err, rc, "value_base64",
                                           "value_base64: this is not base64 (RFC 4648, with padding)")
                            : rc;
}

int dv_api_secret_write(struct dv_api_call *c, const char *ns, const char *name, struct dv_sv value,
                        enum dv_put_mode mode, int status, void (*ok)(struct dv_api_op *op),
                        struct dv_err *err)
{
    struct dv_api_op *op = dv_api_op_new(c, ok);
    if (!op)
        return dv_api_no_memory(err);
    op->status = status;
    op->ns = dv_arena_strdup(&op->arena, ns);
    op->name = dv_arena_strdup(&op->arena, name);
    int rc = op->ns && op->name
                 ? dv_control_secret_put(c->api->cfg.control, dv_sv_c(op->ns), dv_sv_c(op->name), value, mode,
                                         dv_api_op_done, op, err)
                 : dv_api_no_memory(err);
    return dv_api_op_sent(op, rc, err);
}

static int put_secret(struct dv_api_call *c, enum dv_put_mode mode, int status, struct dv_err *err)
{
    struct dv_secret_put s;
    struct dv_sv value;
    int rc = read_secret(c, &s, err);
    if (!rc)
        rc = secret_bytes(c, &s, &value, err);
    return rc ? rc : dv_api_secret_write(c, s.ns, s.name, value, mode, status, ok_secret, err);
}

int dv_api_secret_post(struct dv_api_call *c, struct dv_err *err)
{
    return put_secret(c, DV_PUT_CREATE, 201, err);
}

int dv_api_secret_put(struct dv_api_call *c, struct dv_err *err)
{
    return put_secret(c, DV_PUT_REPLACE, 200, err);
}

int dv_api_secret_remove(struct dv_api_call *c, struct dv_sv ns, const char *name, int status,
                         struct dv_err *err)
{
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    if (!op)
        return dv_api_no_memory(err);
    op->status = status;
    return dv_api_op_sent(
        op, dv_control_secret_delete(c->api->cfg.control, ns, dv_sv_c(name), dv_api_op_done, op, err), err);
}

int dv_api_secret_delete(struct dv_api_call *c, struct dv_err *err)
{
    return dv_api_secret_remove(c, dv_api_ns(c), c->arg, 204, err);
}

/* ---------------------------------------------------------------- registries */

struct registry_ctx {
    struct dv_jw *w;
    const char *server;
    bool found;
};

static int put_registry(void *ctx, const char *server, const char *username)
{
    struct registry_ctx *c = ctx;
    dv_jw_open(c->w, NULL, '{');
    dv_jw_str(c->w, "server", server);
    dv_jw_str(c->w, "username", username);
    dv_jw_close(c->w, '}');
    return 0;
}

int dv_api_registries_list(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct registry_ctx ctx = {.w = &w};
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "registries", '[');
    dv_control_registries_each(c->api->cfg.control, put_registry, &ctx);
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

static void ok_registry(struct dv_api_op *op)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    dv_jw_open(&w, NULL, '{');
    dv_jw_str(&w, "server", op->name);
    dv_jw_close(&w, '}');
    dv_api_reply_json(op->req, 200, &b);
}

static int read_registry(struct dv_api_call *c, struct dv_registry_auth *out, struct dv_err *err)
{
    int rc = dv_api_body_named(c, &dv_type_registry_auth, "server", NULL, out, err);
    if (rc)
        return rc;
    const char *missing = !out->server || !*out->server       ? "server"
                          : !out->username || !*out->username ? "username"
                          : !out->password                    ? "password"
                                                              : NULL;
    return missing ? dv_err_field(err, DV_INVALID, missing, "%s: must be given", missing) : DV_OK;
}

int dv_api_registry_put(struct dv_api_call *c, struct dv_err *err)
{
    struct dv_registry_auth auth;
    int rc = read_registry(c, &auth, err);
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, ok_registry);
    if (!op)
        return dv_api_no_memory(err);
    op->name = dv_arena_strdup(&op->arena, auth.server);
    rc = op->name ? dv_control_registry_put(c->api->cfg.control, &auth, dv_api_op_done, op, err)
                  : dv_api_no_memory(err);
    return dv_api_op_sent(op, rc, err);
}

static int find_registry(void *ctx, const char *server, const char *username)
{
    struct registry_ctx *c = ctx;
    (void)username;
    c->found = strcmp(server, c->server) == 0;
    return c->found;
}

int dv_api_registry_delete(struct dv_api_call *c, struct dv_err *err)
{
    struct registry_ctx ctx = {.server = c->arg};
    dv_control_registries_each(c->api->cfg.control, find_registry, &ctx);
    if (!ctx.found)
        return dv_err_set(err, DV_NOT_FOUND, "there are no credentials for \"%.128s\"", c->arg);
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    if (!op)
        return dv_api_no_memory(err);
    op->status = 204;
    struct dv_registry_auth auth = {.server = (char *)c->arg}; /* no name and no password: delete */
    return dv_api_op_sent(op, dv_control_registry_put(c->api->cfg.control, &auth, dv_api_op_done, op, err),
                          err);
}
