/* The world around the API, in memory: an HTTP server that keeps the answer, and a dv_control that holds its
 * state in arrays and commits when the test says so.  A test that includes this gets these instead of the
 * real rows. The contract suite runs the real ones. */
#ifndef DV_TEST_API_WORLD_H
#define DV_TEST_API_WORLD_H

#include <cjson/cJSON.h>
#include "orchestrator/api/api_internal.h"
#include "proto/base/alloc.h"

/* ---------------------------------------------------------------- HTTP */

enum { WORLD_HEADERS = 8, WORLD_PARAMS = 8, WORLD_FNS = 16, WORLD_NAMES = 16, WORLD_PENDING = 8 };

struct dv_http_req {
    struct dv_arena arena;
    const char *method, *path, *query, *body;
    const char *headers[WORLD_HEADERS][2];
    size_t n_headers;
    char *params[WORLD_PARAMS][2];
    size_t n_params;
    /* the answer */
    int status;
    char type[64];
    struct dv_buf out;
    char out_headers[WORLD_HEADERS][2][256];
    size_t n_out_headers;
    bool is_answered, is_stream, is_ended;
    void *user;
    void (*on_gone)(void *user);
};

struct dv_sv dv_http_method(const struct dv_http_req *r)
{
    return dv_sv_c(r->method);
}

struct dv_sv dv_http_path(const struct dv_http_req *r)
{
    return dv_sv_c(r->path);
}

struct dv_sv dv_http_query(const struct dv_http_req *r)
{
    return dv_sv_c(r->query);
}

struct dv_sv dv_http_header(const struct dv_http_req *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcmp(r->headers[i][0], name) == 0)
            return dv_sv_c(r->headers[i][1]);
    return dv_sv(NULL, 0);
}

struct dv_sv dv_http_body(const struct dv_http_req *r)
{
    return dv_sv_c(r->body ? r->body : "");
}

bool dv_http_param_at(struct dv_http_req *r, size_t i, const char **name, const char **value)
{
    if (i >= r->n_params)
        return false;
    *name = r->params[i][0];
    *value = r->params[i][1];
    return true;
}

const char *dv_http_param(struct dv_http_req *r, const char *name)
{
    for (size_t i = 0; i < r->n_params; i++)
        if (strcmp(r->params[i][0], name) == 0)
            return r->params[i][1];
    return NULL;
}

struct dv_arena *dv_http_arena(struct dv_http_req *r)
{
    return &r->arena;
}

void dv_http_set_user(struct dv_http_req *r, void *user, void (*on_gone)(void *user))
{
    r->user = user;
    r->on_gone = on_gone;
}

void dv_http_set_header(struct dv_http_req *r, const char *name, const char *value)
{
    if (r->n_out_headers == WORLD_HEADERS)
        abort();
    (void)snprintf(r->out_headers[r->n_out_headers][0], 256, "%s", name);
    (void)snprintf(r->out_headers[r->n_out_headers++][1], 256, "%s", value);
}

void dv_http_reply(struct dv_http_req *r, int status, const char *content_type, struct dv_sv body)
{
    if (r->is_answered)
        abort(); /* exactly once */
    r->is_answered = true;
    r->status = status;
    (void)snprintf(r->type, sizeof(r->type), "%s", content_type ? content_type : "");
    (void)dv_buf_add_sv(&r->out, body); /* fails under fault tests only: they look at the status */
}

void dv_http_stream(struct dv_http_req *r, int status, const char *content_type)
{
    dv_http_reply(r, status, content_type, DV_SV(""));
    r->is_stream = true;
}

int dv_http_stream_write(struct dv_http_req *r, struct dv_sv bytes)
{
    if (!r->is_stream || r->is_ended)
        abort();
    return dv_buf_add_sv(&r->out, bytes) ? DV_AGAIN : DV_OK;
}

void dv_http_stream_end(struct dv_http_req *r)
{
    if (!r->is_stream || r->is_ended)
        abort();
    r->is_ended = true;
}

/* ---------------------------------------------------------------- control */

struct pending {
    dv_control_done *done;
    void *ctx;
    void (*apply)(struct dv_control *c, struct pending *p);
    struct dv_function fns[4];
    size_t n;
    char ns[64], name[64], value[64];
    int64_t number;
    bool is_once;
    uint64_t revision;
};

struct dv_control {
    struct dv_arena arena;
    struct dv_function *fns[WORLD_FNS];
    size_t n_fns;
    char secrets[WORLD_NAMES][2][64];
    size_t n_secrets;
    char spaces[WORLD_NAMES][64];
    size_t n_spaces;
    char registries[WORLD_NAMES][64];
    size_t n_registries;
    struct pending pending[WORLD_PENDING];
    size_t n_pending;
    uint64_t revision;
    struct dv_node_record node;
    struct dv_replica_report replica;
    bool is_ready;
    int64_t asked;  /* as the last scale call left it */
    char note[200]; /* of the last put */
    int64_t begin_with;
    int commit_fails; /* code that the next commit ends with */
    struct dv_logs_request logs;
    bool logs_open;
};

static struct pending *world_pending(struct dv_control *c, dv_control_done *done, void *ctx,
                                     void (*apply)(struct dv_control *c, struct pending *p))
{
    if (c->n_pending == WORLD_PENDING)
        abort();
    struct pending *p = &c->pending[c->n_pending++];
    *p = (struct pending){.done = done, .ctx = ctx, .apply = apply};
    return p;
}

static void world_set(char out[64], struct dv_sv s)
{
    (void)snprintf(out, 64, "%.*s", (int)s.n, s.p);
}

static struct dv_function **world_slot(struct dv_control *c, struct dv_sv ns, struct dv_sv name)
{
    for (size_t i = 0; i < c->n_fns; i++)
        if (dv_sv_eq(ns, dv_sv_c(c->fns[i]->spec.ns)) && dv_sv_eq(name, dv_sv_c(c->fns[i]->spec.name)))
            return &c->fns[i];
    return NULL;
}

const struct dv_function *dv_control_fn_find(struct dv_control *c, struct dv_sv ns, struct dv_sv name)
{
    struct dv_function **slot = world_slot(c, ns, name);
    return slot ? *slot : NULL;
}

const struct dv_function *dv_control_fn_by_uid(struct dv_control *c, uint64_t uid)
{
    for (size_t i = 0; i < c->n_fns; i++)
        if (c->fns[i]->uid == uid)
            return c->fns[i];
    return NULL;
}

static int world_order(const void *a, const void *b)
{
    const struct dv_function *x = *(struct dv_function *const *)a, *y = *(struct dv_function *const *)b;
    int by_ns = strcmp(x->spec.ns, y->spec.ns);
    return by_ns ? by_ns : strcmp(x->spec.name, y->spec.name);
}

static void world_apply_put(struct dv_control *c, struct pending *p)
{
    uint64_t revision = ++c->revision;
    for (size_t i = 0; i < p->n; i++) {
        struct dv_function *fn = &p->fns[i];
        struct dv_function **slot = world_slot(c, dv_sv_c(fn->spec.ns), dv_sv_c(fn->spec.name));
        fn->revision = revision;
        fn->uid = slot ? (*slot)->uid : 0xf00 + revision + i;
        fn->generation = slot ? (*slot)->generation + 1 : 1;
        fn->desired_override = -1;
        struct dv_function *kept = dv_arena_alloc(&c->arena, sizeof(*kept));
        if (!kept)
            abort();
        *kept = *fn;
        if (slot)
            *slot = kept;
        else
            c->fns[c->n_fns++] = kept;
        qsort(c->fns, c->n_fns, sizeof(c->fns[0]), world_order);
    }
    p->revision = revision;
}

/* "functions[i].x" when there are several, as the real one does it. */
static const char *world_field(size_t n, size_t i, const char *name)
{
    static char field[64];
    if (n == 1)
        return name;
    (void)snprintf(field, sizeof(field), "functions[%zu].%s", i, name);
    return field;
}

static int world_check_put(struct dv_control *c, const struct dv_fn_put *put, size_t n, size_t i,
                           struct dv_err *err)
{
    const struct dv_function *there = dv_control_fn_find(c, dv_sv_c(put->spec->ns), dv_sv_c(put->spec->name));
    if (!dv_control_ns_exists(c, dv_sv_c(put->spec->ns)))
        return dv_err_field(err, DV_INVALID, world_field(n, i, "namespace"), "namespace does not exist");
    if (put->mode == DV_PUT_CREATE && there)
        return dv_err_field(err, DV_EXISTS, world_field(n, i, "name"), "function exists already");
    if (put->mode == DV_PUT_REPLACE && !there)
        return dv_err_field(err, DV_NOT_FOUND, world_field(n, i, "name"), "function does not exist");
    if (put->if_revision != DV_REV_ANY && (!there || there->revision != put->if_revision))
        return dv_err_field(err, DV_PRECONDITION, world_field(n, i, "name"),
                            "it was changed since it was read");
    for (size_t k = 0; k < put->spec->secrets.n; k++) {
        char name[32];
        bool found = false;
        for (size_t s = 0; s < c->n_secrets; s++)
            found |= strcmp(c->secrets[s][1], put->spec->secrets.v[k]) == 0;
        (void)snprintf(name, sizeof(name), "secrets[%zu]", k);
        if (!found)
            return dv_err_field(err, DV_INVALID, world_field(n, i, name), "secret does not exist");
    }
    return DV_OK;
}

int dv_control_fn_put(struct dv_control *c, const struct dv_fn_put *puts, size_t n, bool dry_run,
                      dv_control_done *done, void *ctx, struct dv_err *err)
{
    struct dv_function fns[4] = {0};
    if (n > DV_COUNT(fns) || c->n_fns + n > WORLD_FNS)
        return dv_err_set(err, DV_QUOTA, "this world is small");
    for (size_t i = 0; i < n; i++) {
        int rc = world_check_put(c, &puts[i], n, i, err);
        if (!rc)
            rc = dv_wire_copy(&dv_type_fn_spec, puts[i].spec, &c->arena, &fns[i].spec);
        if (rc)
            return rc;
    }
    (void)snprintf(c->note, sizeof(c->note), "%s", n && puts[0].note ? puts[0].note : "");
    c->begin_with = n ? puts[0].begin_with : 0;
    struct pending *p = world_pending(c, done, ctx, dry_run ? NULL : world_apply_put);
    memcpy(p->fns, fns, sizeof(fns));
    p->n = n;
    return DV_OK;
}

static void world_apply_delete(struct dv_control *c, struct pending *p)
{
    struct dv_function **slot = world_slot(c, dv_sv_c(p->ns), dv_sv_c(p->name));
    if (!slot)
        return;
    memmove(slot, slot + 1, (size_t)(&c->fns[c->n_fns] - slot - 1) * sizeof(*slot));
    c->n_fns--;
}

int dv_control_fn_delete(struct dv_control *c, struct dv_sv ns, struct dv_sv name, uint64_t if_revision,
                         dv_control_done *done, void *ctx, struct dv_err *err)
{
    const struct dv_function *fn = dv_control_fn_find(c, ns, name);
    if (!fn)
        return dv_err_set(err, DV_NOT_FOUND, "no such function");
    if (if_revision != DV_REV_ANY && if_revision != fn->revision)
        return dv_err_set(err, DV_PRECONDITION, "changed");
    struct pending *p = world_pending(c, done, ctx, world_apply_delete);
    world_set(p->ns, ns);
    world_set(p->name, name);
    return DV_OK;
}

static void world_apply_scale(struct dv_control *c, struct pending *p)
{
    struct dv_function *fn = *world_slot(c, dv_sv_c(p->ns), dv_sv_c(p->name));
    fn->desired_override = p->is_once ? -1 : p->number;
    c->asked = p->is_once ? p->number : 1;
}

int dv_control_fn_scale(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas,
                        dv_control_done *done, void *ctx, struct dv_err *err)
{
    const struct dv_function *fn = dv_control_fn_find(c, ns, name);
    if (!fn)
        return dv_err_set(err, DV_NOT_FOUND, "no such function");
    if (replicas > fn->spec.scale.max)
        return dv_err_field(err, DV_INVALID, "replicas", "replicas: above scale.max");
    struct pending *p = world_pending(c, done, ctx, world_apply_scale);
    world_set(p->ns, ns);
    world_set(p->name, name);
    p->number = replicas;
    return DV_OK;
}

int dv_control_fn_set(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas,
                      dv_control_done *done, void *ctx, struct dv_err *err)
{
    int rc = dv_control_fn_scale(c, ns, name, replicas, done, ctx, err);
    if (!rc)
        c->pending[c->n_pending - 1].is_once = true;
    return rc;
}

void dv_control_fn_each(struct dv_control *c, struct dv_sv ns, struct dv_sv after,
                        int (*each)(void *ctx, const struct dv_function *fn), void *ctx)
{
    for (size_t i = 0; i < c->n_fns; i++) {
        char at[140], from[140];
        (void)snprintf(at, sizeof(at), "%s/%s", c->fns[i]->spec.ns, c->fns[i]->spec.name);
        (void)snprintf(from, sizeof(from), "%.*s", (int)after.n, after.p ? after.p : "");
        if ((ns.n && !dv_sv_eq(ns, dv_sv_c(c->fns[i]->spec.ns))) || strcmp(at, from) <= 0)
            continue;
        if (each(ctx, c->fns[i]))
            return;
    }
}

int dv_control_fn_status(struct dv_control *c, uint64_t uid, struct dv_fn_status *out)
{
    if (!dv_control_fn_by_uid(c, uid))
        return DV_NOT_FOUND;
    *out = (struct dv_fn_status){.phase = DV_FN_READY,
                                 .message = "1 replica answers",
                                 .asked = c->asked ? c->asked : 1,
                                 .wanted = 1,
                                 .ready = 1,
                                 .scale_reason = "1 request in flight",
                                 .keep = {.basis = DV_KEEP_HISTOGRAM,
                                          .ahead = DV_KEEP_PLACE,
                                          .idle_ns = 600 * DV_S,
                                          .from_ns = 600 * DV_S,
                                          .until_ns = 1386 * DV_S,
                                          .least_ns = 60 * DV_S,
                                          .most_ns = 1260 * DV_S,
                                          .seen = 43},
                                 .load = {.arrived = 9, .answered = 7, .in_flight = 1}};
    return DV_OK;
}

void dv_control_decisions_each(struct dv_control *c, uint64_t fn_uid,
                               int (*each)(void *ctx, const struct dv_fn_decision *d), void *ctx)
{
    struct dv_fn_ask asks[] = {{"stable", NULL, 1, false, NULL}, {"metric", "depth", 4, true, NULL}};
    struct dv_fn_decision d = {1767225600000, 0, 4, "metric", "more needed: metric depth is 40", asks, 2};
    (void)c;
    (void)fn_uid;
    (void)each(ctx, &d);
}

void dv_control_asks(struct dv_control *c, uint64_t fn_uid,
                     void (*tell)(void *ctx, const struct dv_fn_ask *asks, size_t n), void *ctx)
{
    struct dv_fn_ask ask = {"cpu", NULL, 2, false, "cpu at 90 %, target 70 %"};
    (void)c;
    (void)fn_uid;
    tell(ctx, &ask, 1);
}

void dv_control_events_each(struct dv_control *c, uint64_t fn_uid,
                            int (*each)(void *ctx, const struct dv_fn_event *e), void *ctx)
{
    struct dv_fn_event e = {
        .wall_ms = 1700000000000, .kind = "created", .message = "by the API", .count = 1, .node = 0xa1};
    (void)c, (void)fn_uid;
    (void)each(ctx, &e);
}

void dv_control_replicas_each(struct dv_control *c, uint64_t fn_uid,
                              int (*each)(void *ctx, const struct dv_replica_view *r), void *ctx)
{
    if (!c->n_fns || (fn_uid && fn_uid != c->fns[0]->uid))
        return;
    c->replica = (struct dv_replica_report){.id = 1,
                                            .fn_uid = c->fns[0]->uid,
                                            .reason = DV_REASON_EXITED,
                                            .exit_code = 3,
                                            .log_tail = (char *)"boom",
                                            .memory_bytes = 1024,
                                            .cpu_us = 500000,
                                            .started_ms = 1699999999000};
    struct dv_replica_view v = {.report = &c->replica,
                                .state = DV_REPLICA_FAILED,
                                .node = 0xa1,
                                .node_name = "n1",
                                .why = "exit code 3"};
    (void)each(ctx, &v);
}

const char *dv_node_state_name(enum dv_node_state s)
{
    return s == DV_NODE_READY ? "ready" : "other";
}

int dv_control_node_find(struct dv_control *c, struct dv_sv name_or_id, struct dv_node_status *out)
{
    if (!dv_sv_eq(name_or_id, DV_SV("n1")) && !dv_sv_eq(name_or_id, DV_SV("00000000000000a1")))
        return DV_NOT_FOUND;
    static const struct dv_node_report report = {.engine_ok = true, .arch = (char *)"amd64", .cpus = 2};
    c->node = (struct dv_node_record){
        .node = 0xa1, .name = (char *)"n1", .address = (char *)"10.0.0.7:8090", .key = (char *)"sealed-key"};
    *out = (struct dv_node_status){
        .record = &c->node, .report = &report, .state = DV_NODE_READY, .message = "ready", .n_replicas = 1};
    return DV_OK;
}

void dv_control_nodes_each(struct dv_control *c, int (*each)(void *ctx, const struct dv_node_status *n),
                           void *ctx)
{
    struct dv_node_status n;
    if (dv_control_node_find(c, DV_SV("n1"), &n) == DV_OK)
        (void)each(ctx, &n);
}

int dv_control_node_op(struct dv_control *c, struct dv_sv name_or_id, enum dv_node_op op,
                       dv_control_done *done, void *ctx, struct dv_err *err)
{
    struct dv_node_status n;
    if (dv_control_node_find(c, name_or_id, &n))
        return dv_err_set(err, DV_NOT_FOUND, "no such node");
    world_pending(c, done, ctx, NULL)->number = op;
    return DV_OK;
}

int dv_control_node_join(struct dv_control *c, const struct dv_join *join,
                         void (*done)(void *ctx, int code, const struct dv_err *err,
                                      const struct dv_join_reply *reply),
                         void *ctx, struct dv_err *err)
{
    static const struct dv_join_reply reply = {.node = 0xa1, .key = (char *)"0011", .version = (char *)"t"};
    (void)c, (void)err;
    if (strcmp(join->name, "refused") == 0)
        return dv_err_set(err, DV_CONFLICT, "name taken");
    done(ctx, DV_OK, NULL, &reply);
    return DV_OK;
}

bool dv_control_ns_exists(struct dv_control *c, struct dv_sv name)
{
    for (size_t i = 0; i < c->n_spaces; i++)
        if (dv_sv_eq(name, dv_sv_c(c->spaces[i])))
            return true;
    return dv_sv_eq(name, DV_SV("default"));
}

static void world_apply_ns(struct dv_control *c, struct pending *p)
{
    if (!dv_control_ns_exists(c, dv_sv_c(p->name)))
        world_set(c->spaces[c->n_spaces++], dv_sv_c(p->name));
}

int dv_control_ns_put(struct dv_control *c, struct dv_sv name, const struct dv_kvs *labels,
                      const struct dv_kvs *annotations, bool create, dv_control_done *done, void *ctx,
                      struct dv_err *err)
{
    (void)labels, (void)annotations;
    if (create && dv_control_ns_exists(c, name))
        return dv_err_set(err, DV_EXISTS, "namespace exists");
    world_set(world_pending(c, done, ctx, world_apply_ns)->name, name);
    return DV_OK;
}

int dv_control_ns_delete(struct dv_control *c, struct dv_sv name, dv_control_done *done, void *ctx,
                         struct dv_err *err)
{
    if (!dv_control_ns_exists(c, name))
        return dv_err_set(err, DV_NOT_FOUND, "no such namespace");
    (void)world_pending(c, done, ctx, NULL);
    return DV_OK;
}

void dv_control_ns_each(struct dv_control *c, int (*each)(void *ctx, const struct dv_ns_view *ns), void *ctx)
{
    static const struct dv_kvs none = {0};
    struct dv_ns_view v = {.name = "default", .labels = &none, .annotations = &none};
    if (each(ctx, &v))
        return;
    for (size_t i = 0; i < c->n_spaces; i++) {
        v.name = c->spaces[i];
        if (each(ctx, &v))
            return;
    }
}

static void world_apply_secret(struct dv_control *c, struct pending *p)
{
    world_set(c->secrets[c->n_secrets][0], dv_sv_c(p->ns));
    world_set(c->secrets[c->n_secrets++][1], dv_sv_c(p->name));
}

static bool world_has_secret(struct dv_control *c, struct dv_sv ns, struct dv_sv name)
{
    for (size_t i = 0; i < c->n_secrets; i++)
        if (dv_sv_eq(ns, dv_sv_c(c->secrets[i][0])) && dv_sv_eq(name, dv_sv_c(c->secrets[i][1])))
            return true;
    return false;
}

int dv_control_secret_put(struct dv_control *c, struct dv_sv ns, struct dv_sv name, struct dv_sv value,
                          enum dv_put_mode mode, dv_control_done *done, void *ctx, struct dv_err *err)
{
    bool there = world_has_secret(c, ns, name);
    if (!dv_control_ns_exists(c, ns))
        return dv_err_set(err, DV_NOT_FOUND, "no such namespace");
    if (mode == DV_PUT_CREATE && there)
        return dv_err_set(err, DV_EXISTS, "secret exists");
    if (mode == DV_PUT_REPLACE && !there)
        return dv_err_set(err, DV_NOT_FOUND, "no such secret");
    struct pending *p = world_pending(c, done, ctx, there ? NULL : world_apply_secret);
    world_set(p->ns, ns);
    world_set(p->name, name);
    world_set(p->value, value);
    return DV_OK;
}

int dv_control_secret_delete(struct dv_control *c, struct dv_sv ns, struct dv_sv name, dv_control_done *done,
                             void *ctx, struct dv_err *err)
{
    if (!world_has_secret(c, ns, name))
        return dv_err_set(err, DV_NOT_FOUND, "no such secret");
    (void)world_pending(c, done, ctx, NULL);
    return DV_OK;
}

void dv_control_secrets_each(struct dv_control *c, struct dv_sv ns,
                             int (*each)(void *ctx, const char *ns, const char *name, int64_t updated_ms),
                             void *ctx)
{
    for (size_t i = 0; i < c->n_secrets; i++)
        if ((!ns.n || dv_sv_eq(ns, dv_sv_c(c->secrets[i][0]))) &&
            each(ctx, c->secrets[i][0], c->secrets[i][1], 1))
            return;
}

static void world_apply_registry(struct dv_control *c, struct pending *p)
{
    if (p->number)
        world_set(c->registries[c->n_registries++], dv_sv_c(p->name));
    else
        c->n_registries = 0;
}

int dv_control_registry_put(struct dv_control *c, const struct dv_registry_auth *auth, dv_control_done *done,
                            void *ctx, struct dv_err *err)
{
    (void)err;
    struct pending *p = world_pending(c, done, ctx, world_apply_registry);
    world_set(p->name, dv_sv_c(auth->server));
    p->number = auth->username != NULL;
    return DV_OK;
}

void dv_control_registries_each(struct dv_control *c,
                                int (*each)(void *ctx, const char *server, const char *username), void *ctx)
{
    for (size_t i = 0; i < c->n_registries; i++)
        if (each(ctx, c->registries[i], "u"))
            return;
}

struct dv_logs {
    int unused;
};

int dv_control_logs_open(struct dv_control *c, const struct dv_logs_request *req, struct dv_logs **out,
                         struct dv_err *err)
{
    static struct dv_logs one;
    (void)err;
    c->logs = *req;
    c->logs_open = true;
    *out = &one;
    return DV_OK;
}

static struct dv_control *world_control;

void dv_control_logs_close(struct dv_logs *l)
{
    (void)l;
    world_control->logs_open = false;
}

bool dv_control_ready(struct dv_control *c, char *message, size_t cap)
{
    (void)snprintf(message, cap, "%s", c->is_ready ? "ready" : "no node has joined");
    return c->is_ready;
}

uint64_t dv_gateway_invocations(struct dv_gateway *g, uint64_t fn_uid)
{
    (void)g, (void)fn_uid;
    abort(); /* the world has no gateway */
}

/* ---------------------------------------------------------------- asking */

struct world {
    struct dv_control control;
    struct dv_clock_fake time;
    struct dv_clock clock;
    struct dv_api *api;
};

static void world_metrics(void *ctx, struct dv_buf *out)
{
    (void)ctx;
    (void)dv_buf_add_c(out, "davit_up 1\n");
}

__attribute__((unused)) static void world_init(struct world *w)
{
    *w = (struct world){.time = {.wall_ms = 1700000000000}};
    w->clock = dv_clock_fake(&w->time);
    world_control = &w->control;
    struct dv_api_cfg cfg = {.control = &w->control,
                             .clock = &w->clock,
                             .user = "admin",
                             .password = "secret",
                             .join_token = "join-me",
                             .version = "1.2.3",
                             .default_idle_ms = 7000,
                             .metrics = world_metrics};
    struct dv_err err = DV_ERR_INIT;
    if (dv_api_new(&cfg, &w->api, &err))
        abort();
}

__attribute__((unused)) static void world_deinit(struct world *w)
{
    dv_api_free(w->api);
    dv_arena_deinit(&w->control.arena);
}

/* What the store does: commit what waits, tell everybody. */
__attribute__((unused)) static void world_commit(struct world *w)
{
    struct dv_control *c = &w->control;
    size_t n = c->n_pending;
    struct pending all[WORLD_PENDING];
    memcpy(all, c->pending, sizeof(all));
    c->n_pending = 0;
    for (size_t i = 0; i < n; i++) {
        struct dv_err err = DV_ERR_INIT;
        int code = c->commit_fails;
        c->commit_fails = 0;
        if (code)
            dv_err_set(&err, code, "the store said no");
        else if (all[i].apply)
            all[i].apply(c, &all[i]);
        all[i].done(all[i].ctx, code, &err, all[i].revision);
    }
}

__attribute__((unused)) static void world_header(struct dv_http_req *r, const char *name, const char *value)
{
    r->headers[r->n_headers][0] = name;
    r->headers[r->n_headers++][1] = value;
}

/* target: path and query, already decoded. */
__attribute__((unused)) static void world_request(struct dv_http_req *r, const char *method,
                                                  const char *target, const char *body)
{
    *r = (struct dv_http_req){.method = method, .body = body, .query = ""};
    struct dv_sv path, query, pair, name, value;
    bool more = dv_sv_cut(dv_sv_c(target), '?', &path, &query);
    r->path = dv_arena_strndup(&r->arena, path.p, path.n);
    while (more && query.n && r->n_params < WORLD_PARAMS) {
        (void)dv_sv_cut(query, '&', &pair, &query);
        (void)dv_sv_cut(pair, '=', &name, &value);
        r->params[r->n_params][0] = dv_arena_strndup(&r->arena, name.p, name.n);
        r->params[r->n_params++][1] = dv_arena_strndup(&r->arena, value.p ? value.p : "", value.n);
    }
}

__attribute__((unused)) static void world_free(struct dv_http_req *r)
{
    dv_buf_deinit(&r->out);
    dv_arena_deinit(&r->arena);
}

__attribute__((unused)) static const char *world_answer_header(const struct dv_http_req *r, const char *name)
{
    for (size_t i = 0; i < r->n_out_headers; i++)
        if (strcmp(r->out_headers[i][0], name) == 0)
            return r->out_headers[i][1];
    return NULL;
}

#endif
