/* Functions as they are written: create, replace, patch, delete, scale, apply.
 *
 * A spec is decoded, finished and copied into the op before dv_control sees it, so that a dry run can show
 * what would be kept, and an error names the field before anything happened. */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>

/* ---------------------------------------------------------------- answers */

/* {"dry_run":true,"functions":[{"spec":{..}}]}: what would be kept. */
static void reply_dry_run(struct dv_api_op *op)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    dv_jw_open(&w, NULL, '{');
    dv_jw_bool(&w, "dry_run", true);
    dv_jw_open(&w, "functions", '[');
    for (size_t i = 0; i < op->n_specs; i++) {
        dv_jw_open(&w, NULL, '{');
        dv_jw_str(&w, "name", op->specs[i].name);
        dv_jw_str(&w, "namespace", op->specs[i].ns);
        struct dv_fn_spec spec;
        dv_fn_spec_resolved(&op->specs[i], op->api->cfg.default_idle_ms, &spec);
        dv_jw_wire(&w, "spec", &dv_type_fn_spec, &spec);
        dv_jw_close(&w, '}');
    }
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(op->req, 200, &b);
}

static const struct dv_function *find_written(struct dv_api_op *op, size_t i)
{
    return dv_control_fn_find(op->api->cfg.control, dv_sv_c(op->specs[i].ns), dv_sv_c(op->specs[i].name));
}

static void ok_function(struct dv_api_op *op)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    if (op->is_dry_run) {
        reply_dry_run(op);
        return;
    }
    const struct dv_function *fn = find_written(op, 0);
    if (!fn) { /* deleted again meanwhile */
        dv_api_reply_error(op->req, DV_API_V1, 409, DV_CONFLICT, NULL);
        return;
    }
    dv_api_put_function(&w, op->api, fn, false);
    dv_api_set_etag(op->req, fn->revision);
    if (op->status == 201) {
        char where[256];
        (void)snprintf(where, sizeof(where), "/v1/functions/%s?namespace=%s", fn->spec.name, fn->spec.ns);
        dv_http_set_header(op->req, "Location", where);
    }
    dv_api_reply_json(op->req, op->status, &b);
}

static void ok_apply(struct dv_api_op *op)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    if (op->is_dry_run) {
        reply_dry_run(op);
        return;
    }
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "functions", '[');
    for (size_t i = 0; i < op->n_specs; i++) {
        const struct dv_function *fn = find_written(op, i);
        if (fn)
            dv_api_put_function(&w, op->api, fn, false);
    }
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(op->req, 200, &b);
}

/* ---------------------------------------------------------------- one function */

/* Finish spec, keep a copy in a new op, and hand it to dv_control. */
static int put_one(struct dv_api_call *c, struct dv_fn_spec *spec, struct dv_fn_put put, int status,
                   bool has_if_match, struct dv_err *err)
{
    int rc = DV_OK;
    bool dry_run = dv_api_flag(c, "dry_run", err, &rc);
    if (!rc)
        rc = dv_fn_spec_finish(spec, c->arena, err);
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, ok_function);
    struct dv_fn_spec *copy = op ? dv_arena_alloc(&op->arena, sizeof(*copy)) : NULL;
    if (!copy || dv_wire_copy(&dv_type_fn_spec, spec, &op->arena, copy)) {
        if (op)
            (void)dv_api_op_sent(op, DV_E_NOMEM, err); /* only to let it go */
        return dv_api_no_memory(err);
    }
    op->specs = copy;
    op->n_specs = 1;
    op->is_dry_run = dry_run;
    op->status = status;
    op->has_if_match = has_if_match;
    put.spec = copy;
    return dv_api_op_sent(
        op, dv_control_fn_put(c->api->cfg.control, &put, 1, dry_run, dv_api_op_done, op, err), err);
}

/* The body as a spec, with the name of the path and the namespace of the query filled in. */
static int read_spec(struct dv_api_call *c, struct dv_fn_spec *out, struct dv_err *err)
{
    const char *ns = dv_http_param(c->req, "namespace");
    if (!ns && c->arg)
        ns = DV_NS_DEFAULT; /* a path without a namespace names a function of the default one */
    return dv_api_body_named(c, &dv_type_fn_spec, "name", ns, out, err);
}

int dv_api_functions_create(struct dv_api_call *c, struct dv_err *err)
{
    struct dv_fn_spec spec;
    int rc = read_spec(c, &spec, err);
    if (rc)
        return rc;
    struct dv_fn_put put = {.mode = DV_PUT_CREATE, .if_revision = DV_REV_ANY};
    return put_one(c, &spec, put, 201, false, err);
}

int dv_api_function_put(struct dv_api_call *c, struct dv_err *err)
{
    struct dv_fn_spec spec;
    struct dv_fn_put put = {.mode = DV_PUT_UPSERT};
    int rc = read_spec(c, &spec, err);
    if (!rc)
        rc = dv_api_if_match(c, &put.if_revision, err);
    if (rc)
        return rc;
    bool is_there = dv_control_fn_find(c->api->cfg.control, dv_sv_c(spec.ns), dv_sv_c(spec.name)) != NULL;
    struct dv_sv none_match = dv_http_header(c->req, "If-None-Match"),
                 match = dv_http_header(c->req, "If-Match");
    if (match.p && !is_there)
        return dv_err_set(err, DV_PRECONDITION, "If-Match was sent, but there is no function \"%s\" any more",
                          spec.name);
    if (none_match.p && is_there)
        return dv_err_set(err, DV_PRECONDITION,
                          "If-None-Match was sent, but function \"%s\" is there already", spec.name);
    if (none_match.p)
        put.mode = DV_PUT_CREATE;
    return put_one(c, &spec, put, is_there ? 200 : 201, match.p != NULL, err);
}

/* Names cannot be patched: they are the function. */
static int check_same_name(const struct dv_fn_spec *before, const struct dv_fn_spec *after,
                           struct dv_err *err)
{
    if (strcmp(before->name, after->name) != 0)
        return dv_err_field(err, DV_INVALID, "name",
                            "name: a function cannot be renamed; create another and delete this one");
    if (strcmp(before->ns, after->ns) != 0)
        return dv_err_field(err, DV_INVALID, "namespace",
                            "namespace: a function cannot be moved; create another and delete this one");
    return DV_OK;
}

int dv_api_function_patch(struct dv_api_call *c, struct dv_err *err)
{
    const struct dv_function *fn;
    struct dv_fn_put put = {.mode = DV_PUT_REPLACE};
    uint64_t wanted;
    int rc = dv_api_find_fn(c, &fn, err);
    if (!rc)
        rc = dv_api_if_match(c, &wanted, err);
    if (rc)
        return rc;
    /* Even without If-Match the patch belongs to what was read here, and to nothing newer. */
    put.if_revision = wanted == DV_REV_ANY ? fn->revision : wanted;
    struct dv_fn_spec spec = fn->spec;
    dv_fn_spec_unfinish(&spec);
    rc = dv_api_body(c, &dv_type_fn_spec, DV_WIRE_PARTIAL, &spec, err);
    if (!rc)
        rc = check_same_name(&fn->spec, &spec, err);
    return rc ? rc : put_one(c, &spec, put, 200, wanted != DV_REV_ANY, err);
}

int dv_api_function_delete(struct dv_api_call *c, struct dv_err *err)
{
    const struct dv_function *fn;
    uint64_t revision;
    int rc = dv_api_find_fn(c, &fn, err);
    if (!rc)
        rc = dv_api_if_match(c, &revision, err);
    if (rc)
        return rc;
    bool dry_run = dv_api_flag(c, "dry_run", err, &rc);
    if (!rc && revision != DV_REV_ANY && revision != fn->revision)
        rc = dv_err_field(err, DV_PRECONDITION, "name", "it was changed since it was read (If-Match)");
    if (rc)
        return rc;
    if (dry_run) {
        dv_api_reply_empty(c->req, 204);
        return DV_OK;
    }
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    if (!op)
        return dv_api_no_memory(err);
    op->status = 204;
    op->has_if_match = revision != DV_REV_ANY;
    return dv_api_op_sent(op,
                          dv_control_fn_delete(c->api->cfg.control, dv_sv_c(fn->spec.ns),
                                               dv_sv_c(fn->spec.name), revision, dv_api_op_done, op, err),
                          err);
}

/* ---------------------------------------------------------------- scale */

static void ok_scale(struct dv_api_op *op)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    const struct dv_function *fn =
        dv_control_fn_find(op->api->cfg.control, dv_sv_c(op->ns), dv_sv_c(op->name));
    if (!fn) {
        dv_api_reply_error(op->req, DV_API_V1, 404, DV_NOT_FOUND, NULL);
        return;
    }
    dv_api_put_function(&w, op->api, fn, false);
    dv_api_set_etag(op->req, fn->revision);
    dv_api_reply_json(op->req, 200, &b);
}

static int read_scale(struct dv_api_call *c, struct dv_scale_put *out, struct dv_err *err)
{
    cJSON *tree;
    int rc = dv_api_body_tree(c, &tree, err);
    if (rc)
        return rc;
    if (!cJSON_GetObjectItemCaseSensitive(tree, "replicas"))
        rc = dv_err_field(err, DV_INVALID, "replicas",
                          "replicas: give a number, or null to hand it back to the autoscaler");
    else
        rc = dv_wire_from_json(&dv_type_scale_put, tree, DV_WIRE_STRICT, c->arena, out, err);
    cJSON_Delete(tree);
    return rc;
}

int dv_api_function_scale(struct dv_api_call *c, struct dv_err *err)
{
    const struct dv_function *fn;
    struct dv_scale_put body;
    int rc = dv_api_find_fn(c, &fn, err);
    if (!rc)
        rc = read_scale(c, &body, err);
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, ok_scale);
    if (!op)
        return dv_api_no_memory(err);
    op->ns = dv_arena_strdup(&op->arena, fn->spec.ns);
    op->name = dv_arena_strdup(&op->arena, fn->spec.name);
    rc = op->ns && op->name ? dv_control_fn_scale(c->api->cfg.control, dv_sv_c(op->ns), dv_sv_c(op->name),
                                                  body.replicas, dv_api_op_done, op, err)
                            : dv_api_no_memory(err);
    return dv_api_op_sent(op, rc, err);
}

/* ---------------------------------------------------------------- apply */

/* "scale.max" of function 3 -> "functions[3].scale.max" */
static int name_function(struct dv_err *err, size_t i)
{
    struct dv_err inner = *err;
    char field[sizeof(err->field)];
    (void)snprintf(field, sizeof(field), "functions[%zu]%s%.70s", i, inner.field[0] ? "." : "", inner.field);
    return dv_err_field(err, inner.code, field, "functions[%zu]: %.200s", i, inner.msg);
}

static int check_twice(const struct dv_apply *a, size_t i, struct dv_err *err)
{
    for (size_t j = 0; j < i; j++)
        if (strcmp(a->functions[i].name, a->functions[j].name) == 0 &&
            strcmp(a->functions[i].ns, a->functions[j].ns) == 0)
            return dv_err_field(err, DV_INVALID, "name", "function \"%s\" stands in the list twice",
                                a->functions[i].name);
    return DV_OK;
}

static int send_apply(struct dv_api_call *c, struct dv_api_op *op, const struct dv_apply *a, bool dry_run,
                      struct dv_err *err)
{
    struct dv_apply *copy = dv_arena_alloc(&op->arena, sizeof(*copy));
    struct dv_fn_put *puts = dv_arena_zalloc(c->arena, a->n_functions * sizeof(*puts));
    if (!copy || !puts || dv_wire_copy(&dv_type_apply, a, &op->arena, copy))
        return dv_api_no_memory(err);
    op->specs = copy->functions;
    op->n_specs = copy->n_functions;
    op->is_dry_run = dry_run;
    op->is_list = true;
    for (size_t i = 0; i < copy->n_functions; i++)
        puts[i] =
            (struct dv_fn_put){.spec = &copy->functions[i], .mode = DV_PUT_UPSERT, .if_revision = DV_REV_ANY};
    return dv_control_fn_put(c->api->cfg.control, puts, copy->n_functions, dry_run, dv_api_op_done, op, err);
}

int dv_api_apply(struct dv_api_call *c, struct dv_err *err)
{
    struct dv_apply a;
    int rc = dv_api_body(c, &dv_type_apply, DV_WIRE_STRICT, &a, err);
    bool dry_run = rc ? false : dv_api_flag(c, "dry_run", err, &rc);
    for (size_t i = 0; !rc && i < a.n_functions; i++) {
        rc = dv_fn_spec_finish(&a.functions[i], c->arena, err);
        if (!rc)
            rc = check_twice(&a, i, err);
        if (rc)
            rc = name_function(err, i);
    }
    if (!rc && !a.n_functions)
        rc = dv_err_field(err, DV_INVALID, "functions", "functions: the list is empty");
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, ok_apply);
    return op ? dv_api_op_sent(op, send_apply(c, op, &a, dry_run, err), err) : dv_api_no_memory(err);
}
