/* Answers, and reading what a request says besides its path. */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <inttypes.h>

/* ---------------------------------------------------------------- answers */

static const char out_of_memory[] =
    "{\"type\":\"about:blank\",\"title\":\"out of memory\",\"status\":500,\"code\":\"e_nomem\"}";

void dv_api_reply_json(struct dv_http_req *req, int status, const struct dv_buf *body)
{
    if (body->failed)
        dv_http_reply(req, 500, "application/problem+json", dv_sv_c(out_of_memory));
    else
        dv_http_reply(req, status, "application/json", dv_buf_sv(body));
}

void dv_api_reply_empty(struct dv_http_req *req, int status)
{
    dv_http_reply(req, status, NULL, DV_SV(""));
}

void dv_api_reply_text(struct dv_http_req *req, int status, const char *text)
{
    dv_http_reply(req, status, "text/plain; charset=utf-8", dv_sv_c(text));
}

/* "DV_NOT_FOUND" -> "not_found" */
static void put_code(struct dv_jw *w, int code)
{
    char text[48];
    const char *name = dv_err_name(code) + strlen("DV_");
    size_t i = 0;
    for (; name[i] && i + 1 < sizeof(text); i++)
        text[i] = (char)tolower((unsigned char)name[i]);
    text[i] = '\0';
    dv_jw_str(w, "code", text);
}

static void reply_problem(struct dv_http_req *req, int status, int code, const struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    dv_jw_open(&w, NULL, '{');
    dv_jw_str(&w, "type", "about:blank");
    dv_jw_str(&w, "title", status == 405 ? "method not allowed" : dv_err_text(code));
    dv_jw_i64(&w, "status", status);
    dv_jw_str(&w, "detail", dv_err_msg(err, code));
    if (err && err->field[0])
        dv_jw_str(&w, "field", err->field);
    put_code(&w, code);
    dv_jw_close(&w, '}');
    dv_http_reply(req, b.failed ? 500 : status, "application/problem+json",
                  b.failed ? dv_sv_c(out_of_memory) : dv_buf_sv(&b));
}

void dv_api_reply_error(struct dv_http_req *req, enum dv_api_face face, int status, int code,
                        const struct dv_err *err)
{
    if (dv_err_retryable(code) && status != 500)
        dv_http_set_header(req, "Retry-After", "1");
    if (face == DV_API_OPENFAAS)
        dv_api_reply_text(req, status, dv_err_msg(err, code));
    else
        reply_problem(req, status, code, err);
}

void dv_api_set_etag(struct dv_http_req *req, uint64_t revision)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "\"%" PRIu64 "\"", revision); /* 22 characters at most */
    dv_http_set_header(req, "ETag", text);
}

/* ---------------------------------------------------------------- questions */

int dv_api_body_tree(struct dv_api_call *c, struct cJSON **out, struct dv_err *err)
{
    cJSON *tree;
    int rc = dv_json_parse(dv_http_body(c->req), SIZE_MAX, &tree, err); /* the server has bounded it */
    if (rc)
        return rc;
    if (!cJSON_IsObject(tree)) {
        cJSON_Delete(tree);
        return dv_err_set(err, DV_INVALID, "the body must be a JSON object");
    }
    *out = tree;
    return DV_OK;
}

int dv_api_fill_in(struct cJSON *tree, const char *key, const char *value, struct dv_err *err)
{
    const cJSON *there = cJSON_GetObjectItemCaseSensitive(tree, key);
    if (!value)
        return DV_OK;
    if (cJSON_IsString(there) && strcmp(there->valuestring, value) != 0)
        return dv_err_field(err, DV_INVALID, key, "%s: \"%s\" in the body, \"%s\" in the address", key,
                            there->valuestring, value);
    if (!there && !cJSON_AddStringToObject(tree, key, value))
        return dv_api_no_memory(err);
    return DV_OK;
}

int dv_api_body_named(struct dv_api_call *c, const struct dv_wire_type *t, const char *key, const char *ns,
                      void *out, struct dv_err *err)
{
    cJSON *tree;
    int rc = dv_api_body_tree(c, &tree, err);
    if (rc)
        return rc;
    rc = dv_api_fill_in(tree, key, c->arg, err);
    if (!rc)
        rc = dv_api_fill_in(tree, "namespace", ns, err);
    if (!rc)
        rc = dv_wire_from_json(t, tree, DV_WIRE_STRICT, c->arena, out, err);
    cJSON_Delete(tree);
    return rc;
}

int dv_api_body(struct dv_api_call *c, const struct dv_wire_type *t, unsigned flags, void *out,
                struct dv_err *err)
{
    cJSON *tree;
    int rc = dv_api_body_tree(c, &tree, err);
    if (rc)
        return rc;
    rc = dv_wire_from_json(t, tree, flags, c->arena, out, err);
    cJSON_Delete(tree);
    return rc;
}

struct dv_sv dv_api_ns(struct dv_api_call *c)
{
    const char *ns = dv_http_param(c->req, "namespace");
    return dv_sv_c(ns && *ns ? ns : DV_NS_DEFAULT);
}

bool dv_api_flag(struct dv_api_call *c, const char *name, struct dv_err *err, int *rc)
{
    const char *v = dv_http_param(c->req, name);
    if (!v || strcmp(v, "false") == 0 || strcmp(v, "0") == 0)
        return false;
    if (*v && strcmp(v, "true") != 0 && strcmp(v, "1") != 0)
        *rc = dv_err_field(err, DV_INVALID, name, "%s must be true or false", name);
    return true;
}

int dv_api_number(struct dv_api_call *c, const char *name, int64_t min, int64_t max, int64_t preset,
                  int64_t *out, struct dv_err *err)
{
    const char *v = dv_http_param(c->req, name);
    int64_t n = preset;
    if (v && (!dv_parse_i64(dv_sv_c(v), &n) || n < min || n > max))
        return dv_err_field(err, DV_INVALID, name, "%s must be a number from %" PRId64 " to %" PRId64, name,
                            min, max);
    *out = n;
    return DV_OK;
}

int dv_api_if_match(struct dv_api_call *c, uint64_t *out_revision, struct dv_err *err)
{
    struct dv_sv v = dv_sv_trim(dv_http_header(c->req, "If-Match"));
    *out_revision = DV_REV_ANY;
    if (!v.p || dv_sv_eq(v, DV_SV("*")))
        return DV_OK;
    uint64_t n;
    bool quoted = v.n > 2 && v.p[0] == '"' && v.p[v.n - 1] == '"';
    if (!quoted || !dv_parse_u64(dv_sv(v.p + 1, v.n - 2), &n))
        return dv_err_set(err, DV_PRECONDITION,
                          "If-Match is not an ETag of this server: send it as it was received");
    *out_revision = n;
    return DV_OK;
}

int dv_api_find_fn(struct dv_api_call *c, const struct dv_function **out, struct dv_err *err)
{
    struct dv_sv ns = dv_api_ns(c);
    *out = dv_control_fn_find(c->api->cfg.control, ns, dv_sv_c(c->arg));
    return *out ? DV_OK
                : dv_err_set(err, DV_NOT_FOUND, "there is no function \"%.64s\" in namespace \"%.*s\"",
                             c->arg, ns.n < 64 ? (int)ns.n : 64, ns.p);
}
