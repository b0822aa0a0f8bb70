/* OpenFaaS: functions and scale.  202 for every write, as its CLI wants; errors are one line of plain text.
 */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>

/* ---------------------------------------------------------------- rendering */

struct usage {
    int64_t memory_bytes, cpu_us, age_ms;
    int64_t now_ms;
};

static int add_usage(void *ctx, const struct dv_replica_view *v)
{
    struct usage *u = ctx;
    u->memory_bytes += v->report->memory_bytes;
    u->cpu_us += v->report->cpu_us;
    if (v->report->started_ms)
        u->age_ms += u->now_ms - v->report->started_ms;
    return 0;
}

/* Millicores averaged over the replicas' lives: all that two readings a report apart would add is noise. */
static void put_usage(struct dv_jw *w, struct dv_api *a, uint64_t fn_uid)
{
    struct usage u = {.now_ms = dv_clock_wall_ms(a->cfg.clock)};
    dv_control_replicas_each(a->cfg.control, fn_uid, add_usage, &u);
    dv_jw_open(w, "usage", '{');
    dv_jw_double(w, "cpu", u.age_ms > 0 ? (double)u.cpu_us / (double)u.age_ms : 0);
    dv_jw_i64(w, "totalMemoryBytes", u.memory_bytes);
    dv_jw_close(w, '}');
}

static void put_function(struct dv_jw *w, struct dv_api *a, const struct dv_function *fn, bool with_usage)
{
    struct dv_fn_status s = {0};
    dv_jw_open(w, NULL, '{');
    dv_of_put_spec(w, &fn->spec);
    if (dv_control_fn_status(a->cfg.control, fn->uid, &s) == DV_OK) {
        uint64_t calls = dv_api_invocations(a, fn->uid, &s);
        /* What was asked for counts from the moment the call returned. */
        int64_t wanted = fn->desired_override >= 0 ? fn->desired_override : s.asked;
        if (calls)
            dv_jw_u64(w, "invocationCount", calls);
        if (wanted)
            dv_jw_i64(w, "replicas", wanted);
        if (s.ready)
            dv_jw_i64(w, "availableReplicas", s.ready);
    }
    dv_jw_time(w, "createdAt", fn->created_ms);
    if (with_usage)
        put_usage(w, a, fn->uid);
    dv_jw_close(w, '}');
}

struct list_ctx {
    struct dv_jw *w;
    struct dv_api *api;
};

static int list_one(void *ctx, const struct dv_function *fn)
{
    struct list_ctx *c = ctx;
    put_function(c->w, c->api, fn, false);
    return 0;
}

int dv_of_functions_list(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct list_ctx list = {&w, c->api};
    (void)err;
    dv_jw_open(&w, NULL, '[');
    dv_control_fn_each(c->api->cfg.control, dv_sv_c(dv_of_ns_in(dv_http_param(c->req, "namespace"))),
                       DV_SV(""), list_one, &list);
    dv_jw_close(&w, ']');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

/* "name", or "name.namespace"; a namespace after the dot wins over the one given apart. */
static int find_fn(struct dv_api_call *c, const char *given, const char *ns, const struct dv_function **out,
                   struct dv_err *err)
{
    struct dv_sv name, dotted;
    if (!given || !*given)
        return dv_err_set(err, DV_INVALID, "the function's name is missing");
    bool has_dot = dv_sv_cut(dv_sv_c(given), '.', &name, &dotted);
    const char *in = dv_of_ns_in(has_dot ? dotted.p : ns);
    *out = dv_control_fn_find(c->api->cfg.control, dv_sv_c(in), name);
    return *out ? DV_OK
                : dv_err_set(err, DV_NOT_FOUND, "there is no function \"%.64s\" in namespace \"%.64s\"",
                             given, dv_of_ns_out(in));
}

int dv_of_function_get(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    const struct dv_function *fn;
    const char *usage = dv_http_param(c->req, "usage");
    int rc = find_fn(c, c->arg, dv_http_param(c->req, "namespace"), &fn, err);
    if (rc)
        return rc;
    put_function(&w, c->api, fn, usage && (strcmp(usage, "1") == 0 || strcmp(usage, "true") == 0));
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

/* ---------------------------------------------------------------- create, update */

static int read_spec(struct dv_api_call *c, struct dv_arena *arena, struct dv_fn_spec *out,
                     struct dv_err *err)
{
    cJSON *tree;
    int rc = dv_api_body_tree(c, &tree, err);
    if (rc)
        return rc;
    rc = dv_of_spec(tree, arena, out, err);
    cJSON_Delete(tree);
    return rc;
}

static int put_fn(struct dv_api_call *c, enum dv_put_mode mode, struct dv_err *err)
{
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    struct dv_fn_spec spec;
    if (!op)
        return dv_api_no_memory(err);
    op->status = 202;
    int rc = read_spec(c, &op->arena, &spec, err);
    char note[160];
    struct dv_fn_put put = {.spec = &spec, .mode = mode, .if_revision = DV_REV_ANY};
    if (!rc && dv_of_scale_note(&spec, note, sizeof(note)))
        put.note = note;
    if (!rc)
        put.begin_with = dv_of_first_replicas(&spec);
    if (!rc)
        rc = dv_control_fn_put(c->api->cfg.control, &put, 1, false, dv_api_op_done, op, err);
    return dv_api_op_sent(op, rc, err);
}

int dv_of_functions_create(struct dv_api_call *c, struct dv_err *err)
{
    return put_fn(c, DV_PUT_CREATE, err);
}

int dv_of_functions_update(struct dv_api_call *c, struct dv_err *err)
{
    return put_fn(c, DV_PUT_REPLACE, err);
}

/* ---------------------------------------------------------------- delete, scale */

/* The namespace stands in the body, or, from older clients, in the query. */
static const char *ns_of(struct dv_api_call *c, const cJSON *body)
{
    const char *ns = dv_of_text(body, "namespace");
    return ns ? ns : dv_http_param(c->req, "namespace");
}

int dv_of_functions_delete(struct dv_api_call *c, struct dv_err *err)
{
    cJSON *body;
    const struct dv_function *fn;
    int rc = dv_api_body_tree(c, &body, err);
    if (rc)
        return rc;
    rc = find_fn(c, dv_of_text(body, "functionName"), ns_of(c, body), &fn, err);
    cJSON_Delete(body);
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    if (!op)
        return dv_api_no_memory(err);
    op->status = 202;
    return dv_api_op_sent(op,
                          dv_control_fn_delete(c->api->cfg.control, dv_sv_c(fn->spec.ns),
                                               dv_sv_c(fn->spec.name), DV_REV_ANY, dv_api_op_done, op, err),
                          err);
}

/* OpenFaaS clients may name any number: it is brought into the function's range.  0 lets it sleep until the
 * next request.  What they set is no pin: the autoscaler goes on from there. */
static int64_t in_range(const struct dv_scale *s, double replicas)
{
    if (replicas <= 0)
        return 0;
    if (replicas > (double)s->max)
        return s->max;
    return replicas < (double)s->min ? s->min : (int64_t)replicas;
}

int dv_of_scale(struct dv_api_call *c, struct dv_err *err)
{
    cJSON *body;
    const struct dv_function *fn;
    int rc = dv_api_body_tree(c, &body, err);
    if (rc)
        return rc;
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(body, "replicas");
    double replicas = cJSON_IsNumber(n) ? n->valuedouble : 0;
    if (n && (!cJSON_IsNumber(n) || replicas < 0))
        rc = dv_err_set(err, DV_INVALID, "replicas must be a number from 0");
    if (!rc)
        rc = find_fn(c, c->arg, ns_of(c, body), &fn, err);
    cJSON_Delete(body);
    if (rc)
        return rc;
    struct dv_api_op *op = dv_api_op_new(c, dv_api_ok_status);
    if (!op)
        return dv_api_no_memory(err);
    op->status = 202;
    int64_t number = in_range(&fn->spec.scale, replicas);
    rc = (number ? dv_control_fn_set : dv_control_fn_scale)(
        c->api->cfg.control, dv_sv_c(fn->spec.ns), dv_sv_c(fn->spec.name), number, dv_api_op_done, op, err);
    return dv_api_op_sent(op, rc, err);
}
