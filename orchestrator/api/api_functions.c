/* Functions as they are read: lists, descriptions, events, replicas. */
#include "orchestrator/api/api_internal.h"

#include <inttypes.h>

enum { LIST_DEFAULT = 500, LIST_MAX = 1000 };

/* ---------------------------------------------------------------- rendering */

static const char *const phase_names[] = {[DV_FN_ASLEEP] = "asleep",
                                          [DV_FN_STARTING] = "starting",
                                          [DV_FN_READY] = "ready",
                                          [DV_FN_FAILED] = "failed"};

uint64_t dv_api_invocations(struct dv_api *a, uint64_t fn_uid, const struct dv_fn_status *status)
{
    return a->cfg.gateway ? dv_gateway_invocations(a->cfg.gateway, fn_uid) : status->load.answered;
}

static void put_load(struct dv_jw *w, const struct dv_load *l)
{
    dv_jw_open(w, "load", '{');
    dv_jw_u64(w, "arrived", l->arrived);
    dv_jw_u64(w, "answered", l->answered);
    dv_jw_u64(w, "failed", l->failed);
    dv_jw_u64(w, "oldest_wait_ms", l->oldest_wait_ns / DV_MS);
    dv_jw_double(w, "service_ms", l->answered ? (double)l->service_ns / (double)l->answered / 1e6 : 0);
    dv_jw_close(w, '}');
}

static void put_duration(struct dv_jw *w, const char *key, uint64_t ns)
{
    char text[32];
    dv_format_duration((int64_t)(ns / (1000 * DV_MS) * 1000),
                       text); /* a habit, not a measurement: seconds do */
    dv_jw_str(w, key, text);
}

static void put_keep(struct dv_jw *w, const struct dv_keep_plan *p)
{
    char why[200];
    dv_keep_explain(p, why, sizeof(why));
    dv_jw_open(w, "keep_alive", '{');
    dv_jw_str(w, "basis", dv_keep_basis_name(p->basis));
    put_duration(w, "idle", p->idle_ns);
    dv_jw_str(w, "ahead", dv_keep_ahead_name(p->ahead));
    if (p->ahead != DV_KEEP_NOTHING) {
        put_duration(w, "from", p->from_ns);
        put_duration(w, "until", p->until_ns);
    }
    dv_jw_u64(w, "gaps", p->seen);
    dv_jw_str(w, "why", why);
    dv_jw_close(w, '}');
}

static void put_status(struct dv_jw *w, struct dv_api *a, const struct dv_function *fn)
{
    struct dv_fn_status s;
    if (dv_control_fn_status(a->cfg.control, fn->uid, &s))
        return; /* it is being made or deleted: no status yet, or no more */
    dv_jw_open(w, "status", '{');
    dv_jw_str(w, "phase", phase_names[s.phase]);
    dv_jw_str(w, "message", s.message);
    dv_jw_i64(w, "wanted", s.wanted);
    dv_jw_i64(w, "ready", s.ready);
    dv_jw_i64(w, "starting", s.starting);
    dv_jw_i64(w, "failed", s.failed);
    dv_jw_str(w, "scale_reason", s.scale_reason);
    if (fn->desired_override >= 0)
        dv_jw_i64(w, "override", fn->desired_override);
    dv_jw_u64(w, "invocations", dv_api_invocations(a, fn->uid, &s));
    dv_jw_u64(w, "waiting", s.load.waiting);
    dv_jw_u64(w, "in_flight", s.load.in_flight);
    put_load(w, &s.load);
    put_keep(w, &s.keep);
    dv_jw_close(w, '}');
}

struct replica_ctx {
    struct dv_jw *w;
    struct dv_api *api;
    const char *ns; /* NULL: every namespace */
};

static void put_times(struct dv_jw *w, const struct dv_start_times *t)
{
    dv_jw_open(w, "times", '{');
    dv_jw_i64(w, "pull_us", t->pull_us);
    dv_jw_i64(w, "create_us", t->create_us);
    dv_jw_i64(w, "start_us", t->start_us);
    dv_jw_i64(w, "ready_us", t->ready_us);
    dv_jw_close(w, '}');
}

static int put_replica(void *ctx, const struct dv_replica_view *v)
{
    struct replica_ctx *c = ctx;
    struct dv_jw *w = c->w;
    const struct dv_replica_report *r = v->report;
    const struct dv_function *fn = dv_control_fn_by_uid(c->api->cfg.control, r->fn_uid);
    if (c->ns && (!fn || strcmp(fn->spec.ns, c->ns) != 0))
        return 0;
    dv_jw_open(w, NULL, '{');
    dv_jw_id(w, "id", r->id);
    dv_jw_str(w, "function", fn ? fn->spec.name : r->fn);
    if (fn)
        dv_jw_str(w, "namespace", fn->spec.ns);
    dv_jw_u64(w, "generation", r->generation);
    dv_jw_str(w, "state", dv_replica_state_name(v->state));
    dv_jw_str(w, "why", v->why);
    if (r->reason != DV_REASON_NONE)
        dv_jw_str(w, "reason", dv_reason_name(r->reason));
    dv_jw_str(w, "message", r->message);
    if (v->state == DV_REPLICA_FAILED)
        dv_jw_i64(w, "exit_code", r->exit_code);
    dv_jw_str(w, "log_tail", r->log_tail);
    dv_jw_id(w, "node", v->node);
    dv_jw_str(w, "node_name", v->node_name);
    dv_jw_str(w, "container", r->container);
    dv_jw_str(w, "address", r->address);
    dv_jw_i64(w, "since_ms", v->since_ms);
    dv_jw_i64(w, "started_ms", r->started_ms);
    dv_jw_i64(w, "restarts", r->restarts);
    dv_jw_u64(w, "in_flight", v->in_flight);
    dv_jw_i64(w, "requests", r->requests);
    dv_jw_i64(w, "memory_bytes", r->memory_bytes);
    dv_jw_i64(w, "cpu_us", r->cpu_us);
    dv_jw_i64(w, "oom_kills", r->oom_kills);
    put_times(w, &r->times);
    dv_jw_close(w, '}');
    return 0;
}

static void put_replicas(struct dv_jw *w, struct dv_api *a, const char *key, uint64_t fn_uid, const char *ns)
{
    struct replica_ctx c = {w, a, ns};
    dv_jw_open(w, key, '[');
    dv_control_replicas_each(a->cfg.control, fn_uid, put_replica, &c);
    dv_jw_close(w, ']');
}

void dv_api_put_function(struct dv_jw *w, struct dv_api *a, const struct dv_function *fn, bool with_replicas)
{
    dv_jw_open(w, NULL, '{');
    dv_jw_str(w, "name", fn->spec.name);
    dv_jw_str(w, "namespace", fn->spec.ns);
    dv_jw_id(w, "uid", fn->uid);
    dv_jw_u64(w, "generation", fn->generation);
    dv_jw_u64(w, "revision", fn->revision);
    dv_jw_i64(w, "created_ms", fn->created_ms);
    dv_jw_i64(w, "updated_ms", fn->updated_ms);
    struct dv_fn_spec spec;
    dv_fn_spec_resolved(&fn->spec, a->cfg.default_idle_ms, &spec);
    dv_jw_wire(w, "spec", &dv_type_fn_spec, &spec);
    put_status(w, a, fn);
    if (with_replicas)
        put_replicas(w, a, "replicas", fn->uid, NULL);
    dv_jw_close(w, '}');
}

/* ---------------------------------------------------------------- lists */

struct list_ctx {
    struct dv_api_call *call;
    struct dv_jw *w;
    const char *image, *q;
    int64_t left;
    char next[2 * DV_NAME_MAX + 2], last[2 * DV_NAME_MAX + 2];
};

/* Every ?label=k=v (or ?label=k: there at all) must fit. */
static bool matches_labels(struct dv_api_call *c, const struct dv_kvs *labels)
{
    const char *name, *value;
    for (size_t i = 0; dv_http_param_at(c->req, i, &name, &value); i++) {
        if (strcmp(name, "label") != 0)
            continue;
        struct dv_sv key, wanted;
        bool has_value = dv_sv_cut(dv_sv_c(value), '=', &key, &wanted);
        char *k = dv_arena_strndup(c->arena, key.p, key.n);
        const char *v = k ? dv_kvs_find(labels, k) : NULL;
        if (!v || (has_value && !dv_sv_eq(dv_sv_c(v), wanted)))
            return false;
    }
    return true;
}

static int list_one(void *ctx, const struct dv_function *fn)
{
    struct list_ctx *c = ctx;
    const struct dv_fn_spec *s = &fn->spec;
    if ((c->image && !strstr(s->image, c->image)) || (c->q && !strstr(s->name, c->q)) ||
        !matches_labels(c->call, &s->labels))
        return 0;
    if (c->left == 0) { /* there is one more: say where to go on */
        memcpy(c->next, c->last, sizeof(c->next));
        return 1;
    }
    c->left--;
    (void)snprintf(c->last, sizeof(c->last), "%s/%s", s->ns, s->name); /* both are at most DV_NAME_MAX */
    dv_api_put_function(c->w, c->call->api, fn, false);
    return 0;
}

int dv_api_functions_list(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct list_ctx list = {.call = c, .w = &w};
    list.image = dv_http_param(c->req, "image");
    list.q = dv_http_param(c->req, "q");
    int rc = dv_api_number(c, "limit", 1, LIST_MAX, LIST_DEFAULT, &list.left, err);
    if (rc)
        return rc;
    const char *after = dv_http_param(c->req, "after"), *ns = dv_http_param(c->req, "namespace");
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "functions", '[');
    dv_control_fn_each(c->api->cfg.control, dv_sv_c(ns ? ns : ""), dv_sv_c(after ? after : ""), list_one,
                       &list);
    dv_jw_close(&w, ']');
    if (list.next[0])
        dv_jw_str(&w, "next", list.next);
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

int dv_api_function_get(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    const struct dv_function *fn;
    int rc = dv_api_find_fn(c, &fn, err);
    if (rc)
        return rc;
    dv_api_put_function(&w, c->api, fn, true);
    dv_api_set_etag(c->req, fn->revision);
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

/* ---------------------------------------------------------------- events and replicas */

static int put_event(void *ctx, const struct dv_fn_event *e)
{
    struct dv_jw *w = ctx;
    dv_jw_open(w, NULL, '{');
    dv_jw_i64(w, "time_ms", e->wall_ms);
    dv_jw_time(w, "time", e->wall_ms);
    dv_jw_str(w, "kind", e->kind);
    dv_jw_str(w, "message", e->message);
    if (e->replica)
        dv_jw_id(w, "replica", e->replica);
    if (e->node)
        dv_jw_id(w, "node", e->node);
    dv_jw_i64(w, "count", e->count);
    dv_jw_close(w, '}');
    return 0;
}

int dv_api_function_events(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    const struct dv_function *fn;
    int rc = dv_api_find_fn(c, &fn, err);
    if (rc)
        return rc;
    dv_jw_open(&w, NULL, '{');
    dv_jw_open(&w, "events", '[');
    dv_control_events_each(c->api->cfg.control, fn->uid, put_event, &w);
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

static void put_asks(void *ctx, const struct dv_fn_ask *asks, size_t n)
{
    struct dv_jw *w = ctx;
    dv_jw_open(w, "signals", '[');
    for (size_t i = 0; i < n; i++) {
        dv_jw_open(w, NULL, '{');
        dv_jw_str(w, "signal", asks[i].signal);
        dv_jw_str(w, "metric", asks[i].metric);
        dv_jw_i64(w, "replicas", asks[i].replicas);
        if (asks[i].is_held)
            dv_jw_bool(w, "held", true);
        dv_jw_str(w, "message", asks[i].text);
        dv_jw_close(w, '}');
    }
    dv_jw_close(w, ']');
}

static int put_decision(void *ctx, const struct dv_fn_decision *d)
{
    struct dv_jw *w = ctx;
    dv_jw_open(w, NULL, '{');
    dv_jw_i64(w, "time_ms", d->wall_ms);
    dv_jw_time(w, "time", d->wall_ms);
    dv_jw_i64(w, "from", d->from);
    dv_jw_i64(w, "to", d->to);
    dv_jw_str(w, "signal", d->signal);
    dv_jw_str(w, "reason", d->reason);
    put_asks(w, d->asks, d->n_asks);
    dv_jw_close(w, '}');
    return 0;
}

int dv_api_function_decisions(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct dv_fn_status status;
    const struct dv_function *fn;
    int rc = dv_api_find_fn(c, &fn, err);
    if (rc)
        return rc;
    dv_jw_open(&w, NULL, '{');
    if (dv_control_fn_status(c->api->cfg.control, fn->uid, &status) == DV_OK) {
        dv_jw_i64(&w, "asked", status.asked);
        dv_jw_i64(&w, "wanted", status.wanted);
        dv_jw_str(&w, "reason", status.scale_reason);
    }
    dv_control_asks(c->api->cfg.control, fn->uid, put_asks, &w);
    dv_jw_open(&w, "decisions", '[');
    dv_control_decisions_each(c->api->cfg.control, fn->uid, put_decision, &w);
    dv_jw_close(&w, ']');
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

static int reply_replicas(struct dv_api_call *c, uint64_t fn_uid, const char *ns)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    dv_jw_open(&w, NULL, '{');
    put_replicas(&w, c->api, "replicas", fn_uid, ns);
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

int dv_api_function_replicas(struct dv_api_call *c, struct dv_err *err)
{
    const struct dv_function *fn;
    int rc = dv_api_find_fn(c, &fn, err);
    return rc ? rc : reply_replicas(c, fn->uid, NULL);
}

int dv_api_replicas(struct dv_api_call *c, struct dv_err *err)
{
    (void)err;
    return reply_replicas(c, 0, dv_http_param(c->req, "namespace"));
}
