/* The way of an API call: find the route, check who is asking, check the query's names, run the handler.
 *
 * A handler answers at once, or leaves an op (api_op.c) behind that answers when the store has committed.
 * When it returns an error the router answers for it: problem+json naming the field and the cure on our own
 * face, a line of plain text on OpenFaaS's.  Credentials are compared in constant time; nothing of a request
 * is logged here.
 *
 * Reading order: routes.c (what there is), this file, api_functions.c, then the rest by noun. */
#include "orchestrator/api/api_internal.h"

#include "proto/base/alloc.h"

/* ---------------------------------------------------------------- paths */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decode into the arena.  NULL: a broken escape, a NUL, or no memory. */
static char *decode(struct dv_arena *arena, struct dv_sv s)
{
    char *out = dv_arena_alloc(arena, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < s.n; i++) {
        char c = s.p[i];
        if (c == '%') {
            int hi = i + 2 < s.n ? hex(s.p[i + 1]) : -1, lo = i + 2 < s.n ? hex(s.p[i + 2]) : -1;
            if (hi < 0 || lo < 0 || (hi | lo) == 0)
                return NULL;
            c = (char)(hi * 16 + lo);
            i += 2;
        }
        out[n++] = c;
    }
    if (out)
        out[n] = '\0';
    return out && dv_utf8_valid(dv_sv(out, n)) ? out : NULL;
}

/* Does path fit pattern?  *arg gets what {..} stands for; .p stays NULL when the pattern has none. */
static bool fits(const char *pattern, struct dv_sv path, struct dv_sv *arg)
{
    struct dv_sv p = dv_sv_c(pattern), ps, ss;
    bool more_p = true, more_s = true;
    arg->p = NULL;
    while (more_p && more_s) {
        if (dv_sv_eq(p, DV_SV("{rest}"))) {
            *arg = path;
            return true;
        }
        more_p = dv_sv_cut(p, '/', &ps, &p);
        more_s = dv_sv_cut(path, '/', &ss, &path);
        if (ps.n && ps.p[0] == '{') {
            if (!ss.n)
                return false;
            *arg = ss;
        } else if (!dv_sv_eq(ps, ss)) {
            return false;
        }
    }
    return !more_p && !more_s;
}

struct match {
    const struct dv_api_route *route; /* NULL: none for this method */
    const struct dv_api_route *any;   /* some route of this path */
    struct dv_sv arg;
    char allow[96];
};

static void add_allow(struct match *m, const char *method)
{
    size_t n = strlen(m->allow);
    bool get = strcmp(method, "GET") == 0;
    (void)snprintf(m->allow + n, sizeof(m->allow) - n, "%s%s", n ? ", " : "", get ? "GET, HEAD" : method);
}

/* Patterns without {..} win: "/v1/nodes/join" is not a node's name for the methods it has. */
static void find_route(struct dv_sv method, struct dv_sv path, struct match *m)
{
    if (dv_sv_eq(method, DV_SV("HEAD")))
        method = DV_SV("GET");
    for (size_t i = 0; i < dv_api_n_routes; i++) {
        const struct dv_api_route *r = &dv_api_route_table[i];
        struct dv_sv arg;
        if (!fits(r->pattern, path, &arg))
            continue;
        m->any = m->any ? m->any : r;
        if (!m->route && dv_sv_eq(method, dv_sv_c(r->method))) {
            m->route = r;
            m->arg = arg;
        }
        add_allow(m, r->method);
    }
}

/* ---------------------------------------------------------------- credentials */

static bool bearer_is(struct dv_sv given, const char *secret)
{
    struct dv_sv scheme, rest;
    return dv_sv_cut(given, ' ', &scheme, &rest) && dv_sv_eq_nocase(scheme, DV_SV("Bearer")) && secret &&
           *secret && dv_secret_eq(dv_sv_trim(rest), dv_sv_c(secret));
}

static bool basic_is(struct dv_sv given, const char *pair)
{
    struct dv_sv scheme, rest;
    char plain[768];
    if (!dv_sv_cut(given, ' ', &scheme, &rest) || !dv_sv_eq_nocase(scheme, DV_SV("Basic")))
        return false;
    rest = dv_sv_trim(rest);
    if (rest.n > 1000)
        return false;
    ptrdiff_t n = dv_base64_decode(rest, plain);
    bool ok = n > 0 && dv_secret_eq(dv_sv(plain, (size_t)n), dv_sv_c(pair));
    explicit_bzero(plain, sizeof(plain));
    return ok;
}

static bool may(const struct dv_api *a, const struct dv_api_route *route, struct dv_sv authorization)
{
    switch (route->auth) {
    case DV_API_OPEN:
        return true;
    case DV_API_JOIN:
        return bearer_is(authorization, a->cfg.join_token);
    case DV_API_ADMIN:
        return basic_is(authorization, a->basic) || bearer_is(authorization, a->cfg.password);
    }
    return false;
}

static int refuse(struct dv_api_call *c, struct dv_err *err)
{
    if (c->route->auth == DV_API_JOIN) {
        dv_http_set_header(c->req, "WWW-Authenticate", "Bearer realm=\"davit nodes\"");
        return dv_err_set(
            err, DV_UNAUTHENTICATED,
            "the join token is missing or wrong; it stands in join-token in the orchestrator's state "
            "directory");
    }
    dv_http_set_header(c->req, "WWW-Authenticate", "Basic realm=\"Restricted\"");
    return dv_err_set(err, DV_UNAUTHENTICATED,
                      "user or password is missing or wrong; the password stands in admin-password in the "
                      "orchestrator's state directory");
}

/* ---------------------------------------------------------------- dispatch */

static bool is_listed(const char *list, const char *name)
{
    struct dv_sv rest = dv_sv_c(list), one;
    while (rest.n) {
        (void)dv_sv_cut(rest, ',', &one, &rest);
        if (dv_sv_eq(one, dv_sv_c(name)))
            return true;
    }
    return false;
}

/* Our own face refuses parameters it does not know: a mistyped ?namespace= must not delete another function.
 */
static int check_params(struct dv_api_call *c, struct dv_err *err)
{
    const char *name, *value;
    if (dv_api_face_of(c->route) == DV_API_OPENFAAS || c->route->handler == dv_of_root)
        return DV_OK;
    for (size_t i = 0; dv_http_param_at(c->req, i, &name, &value); i++)
        if (!is_listed(c->route->params, name))
            return dv_err_field(err, DV_INVALID, name, "unknown query parameter \"%s\"%s%s", name,
                                *c->route->params ? "; known here: " : "", c->route->params);
    return DV_OK;
}

static int run(struct dv_api_call *c, struct dv_sv arg, struct dv_err *err)
{
    if (!may(c->api, c->route, dv_http_header(c->req, "Authorization")))
        return refuse(c, err);
    if (arg.p && !(c->arg = decode(c->arena, arg)))
        return dv_err_set(err, DV_INVALID, "the path is not valid percent-encoding");
    int rc = check_params(c, err);
    return rc ? rc : c->route->handler(c, err);
}

static void no_route(struct dv_http_req *req, const struct match *m)
{
    struct dv_err err = DV_ERR_INIT;
    struct dv_sv method = dv_http_method(req), path = dv_http_path(req);
    if (m->any) {
        dv_http_set_header(req, "Allow", m->allow);
        dv_err_set(&err, DV_UNSUPPORTED, "%.*s is not possible here; %s is", (int)method.n, method.p,
                   m->allow);
        dv_api_reply_error(req, dv_api_face_of(m->any), 405, DV_UNSUPPORTED, &err);
        return;
    }
    dv_err_set(&err, DV_NOT_FOUND, "there is nothing at %.*s", path.n < 150 ? (int)path.n : 150, path.p);
    dv_api_reply_error(req, dv_sv_starts(path, DV_SV("/system/")) ? DV_API_OPENFAAS : DV_API_V1, 404,
                       DV_NOT_FOUND, &err);
}

void dv_api_on_request(void *api, struct dv_http_req *req)
{
    struct match m = {0};
    struct dv_err err = DV_ERR_INIT;
    find_route(dv_http_method(req), dv_http_path(req), &m);
    if (!m.route) {
        no_route(req, &m);
        return;
    }
    struct dv_api_call c = {.api = api, .req = req, .route = m.route, .arena = dv_http_arena(req)};
    int rc = run(&c, m.arg, &err);
    if (rc)
        dv_api_reply_error(req, dv_api_face_of(m.route), dv_err_http(rc), rc, &err);
}

void dv_api_on_error(void *api, struct dv_http_req *req, int status, const char *why)
{
    struct dv_err err = DV_ERR_INIT;
    struct dv_sv text = dv_sv_c(why);
    (void)api;
    while (text.n && text.p[text.n - 1] == '\n')
        text.n--;
    int code = status == 413 ? DV_TOO_LARGE : DV_INVALID;
    dv_err_set(&err, code, "%.*s", (int)text.n, text.p);
    bool theirs = dv_sv_starts(dv_http_path(req), DV_SV("/system/"));
    dv_api_reply_error(req, theirs ? DV_API_OPENFAAS : DV_API_V1, status, code, &err);
}

void dv_api_on_metrics_request(void *api, struct dv_http_req *req)
{
    struct match m = {0};
    struct dv_err err = DV_ERR_INIT;
    find_route(dv_http_method(req), dv_http_path(req), &m);
    bool ours = m.any && (m.any->handler == dv_api_metrics || m.any->handler == dv_api_health ||
                          m.any->handler == dv_api_ready);
    if (!ours)
        m = (struct match){0};
    if (!m.route) {
        no_route(req, &m);
        return;
    }
    struct dv_api_call c = {.api = api, .req = req, .route = m.route, .arena = dv_http_arena(req)};
    int rc = m.route->handler(&c, &err);
    if (rc)
        dv_api_reply_error(req, DV_API_V1, dv_err_http(rc), rc, &err);
}

/* ---------------------------------------------------------------- life */

int dv_api_new(const struct dv_api_cfg *cfg, struct dv_api **out, struct dv_err *err)
{
    if (!cfg->user || !cfg->password || !*cfg->password)
        return dv_err_set(err, DV_INVALID, "the API needs an admin user and password");
    struct dv_api *a = dv_zalloc(sizeof(*a));
    char *basic = dv_asprintf("%s:%s", cfg->user, cfg->password);
    if (!a || !basic) {
        dv_free(a);
        dv_free(basic);
        return dv_api_no_memory(err);
    }
    a->cfg = *cfg;
    a->cfg.version = cfg->version ? cfg->version : DAVIT_VERSION;
    a->cfg.commit = cfg->commit ? cfg->commit : "unknown";
    a->basic = basic;
    dv_list_init(&a->ops);
    *out = a;
    return DV_OK;
}

void dv_api_free(struct dv_api *a)
{
    if (!a)
        return;
    DV_LIST_FOR_EACH_SAFE (it, &a->ops) {
        struct dv_api_op *op = DV_LIST_ENTRY(it, struct dv_api_op, node);
        if (op->logs) {
            dv_control_logs_close(op->logs);
            dv_api_op_free(op);
        } else {
            op->api = NULL; /* its done is still to come, and frees it */
            dv_list_remove(&op->node);
        }
    }
    explicit_bzero(a->basic, strlen(a->basic));
    dv_free(a->basic);
    dv_free(a);
}
