/* OpenFaaS: info, secrets, namespaces, and the paths that only need to be there. */
#include "orchestrator/api/api_internal.h"

#include <cjson/cJSON.h>
#include <sys/utsname.h>

/* ---------------------------------------------------------------- info */

static void put_version(struct dv_jw *w, const struct dv_api *a)
{
    dv_jw_open(w, "version", '{');
    dv_jw_str(w, "commit_message", "");
    dv_jw_str(w, "sha", a->cfg.commit);
    dv_jw_str(w, "release", a->cfg.version);
    dv_jw_close(w, '}');
}

int dv_of_info(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct utsname u;
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "provider", '{');
    dv_jw_str(&w, "provider", "davit");
    put_version(&w, c->api);
    dv_jw_str(&w, "orchestration", "davit");
    dv_jw_close(&w, '}');
    put_version(&w, c->api);
    dv_jw_str(&w, "arch", uname(&u) == 0 ? u.machine : "unknown");
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

/* ---------------------------------------------------------------- secrets */

static int put_secret_name(void *ctx, const char *ns, const char *name, int64_t updated_ms)
{
    struct dv_jw *w = ctx;
    (void)updated_ms;
    dv_jw_open(w, NULL, '{');
    dv_jw_str(w, "name", name);
    dv_jw_str(w, "namespace", dv_of_ns_out(ns));
    dv_jw_close(w, '}');
    return 0;
}

int dv_of_secrets_list(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    (void)err;
    dv_jw_open(&w, NULL, '[');
    dv_control_secrets_each(c->api->cfg.control, dv_sv_c(dv_of_ns_in(dv_http_param(c->req, "namespace"))),
                            put_secret_name, &w);
    dv_jw_close(&w, ']');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

/* rawValue (base64) wins over value. */
static int secret_bytes(struct dv_api_call *c, const cJSON *body, struct dv_sv *out, struct dv_err *err)
{
    const char *raw = dv_of_text(body, "rawValue"), *value = dv_of_text(body, "value");
    if (!raw) {
        *out = dv_sv_c(value ? value : "");
        return DV_OK;
    }
    int rc = dv_api_base64(c, raw, out, err);
    return rc == DV_INVALID ? dv_err_set(err, rc, "rawValue is not base64") : rc;
}

static int send_secret(struct dv_api_call *c, const cJSON *body, enum dv_put_mode mode, struct dv_err *err)
{
    const char *name = dv_of_text(body, "name");
    struct dv_sv value;
    if (!name || !dv_name_valid(name))
        return dv_err_set(err, DV_INVALID, "name must be 1 to 63 of a-z, 0-9 and '-'");
    int rc = secret_bytes(c, body, &value, err);
    return rc ? rc
              : dv_api_secret_write(c, dv_of_ns_in(dv_of_text(body, "namespace")), name, value, mode, 202,
                                    dv_api_ok_status, err);
}

/* faas-cli sends a file twice: its bytes as rawValue, and as well as a string allows as value, with \u0000
 * for NUL.  No string of ours holds NUL, so it becomes U+FFFD, as Go writes whatever else is no text. */
static size_t without_nul(const struct dv_sv json, char *out)
{
    size_t n_found = 0;
    if (json.n)
        memcpy(out, json.p, json.n);
    for (size_t i = 0; i + 6 <= json.n; i++) {
        if (out[i] != '\\')
            continue;
        if (memcmp(out + i, "\\u0000", 6) == 0) {
            memcpy(out + i, "\\ufffd", 6);
            n_found++;
        }
        i++; /* what is escaped begins no escape */
    }
    return n_found;
}

static int secret_body(struct dv_api_call *c, cJSON **out, struct dv_err *err)
{
    struct dv_sv json = dv_http_body(c->req);
    char *text = dv_arena_alloc(c->arena, json.n + 1);
    if (!text)
        return dv_api_no_memory(err);
    size_t n_nul = without_nul(json, text);
    int rc = dv_json_parse(dv_sv(text, json.n), SIZE_MAX, out, err);
    if (rc)
        return rc;
    if (cJSON_IsObject(*out) && (!n_nul || dv_of_text(*out, "rawValue")))
        return DV_OK;
    rc = dv_err_set(err, DV_INVALID,
                    n_nul ? "a value with NUL must be sent as rawValue, in base64"
                          : "the body must be a JSON object");
    cJSON_Delete(*out);
    return rc;
}

static int put_secret(struct dv_api_call *c, enum dv_put_mode mode, struct dv_err *err)
{
    cJSON *body;
    int rc = secret_body(c, &body, err);
    if (rc)
        return rc;
    rc = send_secret(c, body, mode, err);
    cJSON_Delete(body);
    return rc;
}

int dv_of_secrets_create(struct dv_api_call *c, struct dv_err *err)
{
    return put_secret(c, DV_PUT_CREATE, err);
}

int dv_of_secrets_update(struct dv_api_call *c, struct dv_err *err)
{
    return put_secret(c, DV_PUT_REPLACE, err);
}

static int send_secret_delete(struct dv_api_call *c, const cJSON *body, struct dv_err *err)
{
    const char *name = dv_of_text(body, "name"), *ns = dv_of_text(body, "namespace");
    if (!name)
        return dv_err_set(err, DV_INVALID, "the secret's name is missing");
    ns = dv_of_ns_in(ns ? ns : dv_http_param(c->req, "namespace"));
    return dv_api_secret_remove(c, dv_sv_c(ns), name, 202, err);
}

int dv_of_secrets_delete(struct dv_api_call *c, struct dv_err *err)
{
    cJSON *body;
    int rc = dv_api_body_tree(c, &body, err);
    if (rc)
        return rc;
    rc = send_secret_delete(c, body, err);
    cJSON_Delete(body);
    return rc;
}

/* ---------------------------------------------------------------- namespaces */

static int put_ns_name(void *ctx, const struct dv_ns_view *ns)
{
    dv_jw_str(ctx, NULL, dv_of_ns_out(ns->name));
    return 0;
}

int dv_of_namespaces(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    (void)err;
    dv_jw_open(&w, NULL, '[');
    dv_control_ns_each(c->api->cfg.control, put_ns_name, &w);
    dv_jw_close(&w, ']');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

static void put_ns(struct dv_jw *w, const struct dv_ns_view *ns)
{
    dv_jw_open(w, NULL, '{');
    dv_jw_str(w, "name", dv_of_ns_out(ns->name));
    dv_jw_kvs(w, "annotations", ns->annotations);
    dv_jw_kvs(w, "labels", ns->labels);
    dv_jw_close(w, '}');
}

int dv_of_ns_get(struct dv_api_call *c, struct dv_err *err)
{
    return dv_api_ns_reply(c->api, c->req, dv_of_ns_in(c->arg), 200, put_ns)
               ? DV_OK
               : dv_err_set(err, DV_NOT_FOUND, "there is no namespace \"%.64s\"", c->arg);
}

static int write_ns(struct dv_api_call *c, bool create, int status, struct dv_err *err)
{
    cJSON *body;
    struct dv_ns_put ns;
    int rc = dv_api_body_tree(c, &body, err);
    if (rc)
        return rc;
    if (c->arg) { /* the address decides; what older clients put into the body may be anything */
        cJSON_DeleteItemFromObjectCaseSensitive(body, "name");
        rc = dv_api_fill_in(body, "name", dv_of_ns_in(c->arg), err);
    }
    if (!rc)
        rc = dv_wire_from_json(&dv_type_ns_put, body, DV_WIRE_IGNORE_UNKNOWN, c->arena, &ns, err);
    cJSON_Delete(body);
    return rc ? rc : dv_api_ns_write(c, dv_of_ns_in(ns.name), &ns, create, status, dv_api_ok_status, err);
}

int dv_of_ns_create(struct dv_api_call *c, struct dv_err *err)
{
    return write_ns(c, true, 201, err);
}

int dv_of_ns_update(struct dv_api_call *c, struct dv_err *err)
{
    return write_ns(c, false, 202, err);
}

int dv_of_ns_delete(struct dv_api_call *c, struct dv_err *err)
{
    return dv_api_ns_remove(c, dv_of_ns_in(c->arg), 202, err);
}

/* ---------------------------------------------------------------- the rest */

/* Alertmanager's webhook drove the community edition's autoscaler.  Davit scales by itself: taken note of,
 * not needed. */
int dv_of_alert(struct dv_api_call *c, struct dv_err *err)
{
    cJSON *body;
    int rc = dv_api_body_tree(c, &body, err);
    if (rc)
        return rc;
    cJSON_Delete(body);
    dv_api_reply_text(c->req, 200, "OK");
    return DV_OK;
}

/* Nothing is collected and nothing is sent anywhere. */
int dv_of_telemetry(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_bool(&w, "enabled", false);
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

int dv_of_root(struct dv_api_call *c, struct dv_err *err)
{
    (void)err;
    dv_http_set_header(c->req, "Location", "/ui/");
    dv_api_reply_empty(c->req, 307);
    return DV_OK;
}

struct count_ctx {
    size_t functions, nodes;
};

static int count_fn(void *ctx, const struct dv_function *fn)
{
    (void)fn;
    ((struct count_ctx *)ctx)->functions++;
    return 0;
}

static int count_node(void *ctx, const struct dv_node_status *n)
{
    (void)n;
    ((struct count_ctx *)ctx)->nodes++;
    return 0;
}

/* A page that says what is here and where to go on; no scripts, nothing from elsewhere. */
int dv_of_ui(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct count_ctx n = {0};
    if (c->arg && *c->arg)
        return dv_err_set(err, DV_NOT_FOUND, "there is nothing at this address; the page is /ui/");
    dv_control_fn_each(c->api->cfg.control, DV_SV(""), DV_SV(""), count_fn, &n);
    dv_control_nodes_each(c->api->cfg.control, count_node, &n);
    (void)dv_buf_addf(
        &b,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Davit</title>"
        "<style>body{font:16px/1.5 sans-serif;max-width:40em;margin:3em auto;padding:0 1em}"
        "code{background:#eee;padding:.1em .3em}</style><h1>Davit %s</h1>"
        "<p>%zu function%s on %zu node%s.</p><p>Functions: <a href=\"/v1/functions\">/v1/functions</a>, "
        "nodes: <a href=\"/v1/nodes\">/v1/nodes</a>, metrics: <a href=\"/metrics\">/metrics</a>.</p>"
        "<p>On the command line: <code>davit list</code>, <code>davit deploy NAME --image IMAGE</code>, or "
        "<code>faas-cli</code> with this address as its gateway.</p></html>\n",
        c->api->cfg.version, n.functions, n.functions == 1 ? "" : "s", n.nodes, n.nodes == 1 ? "" : "s");
    if (b.failed)
        return dv_api_no_memory(err);
    dv_http_reply(c->req, 200, "text/html; charset=utf-8", dv_buf_sv(&b));
    return DV_OK;
}
