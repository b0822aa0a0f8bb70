/* Functions: kept under fn/<ns>/<name>, in memory twice indexed (by name, by uid) and once in order.
 *
 * A version of a function never changes; a write makes another one, hands it to the core and the gateway, and
 * frees the old.  Its generation grows only with what its replicas are made of: an edit of scale.max does not
 * restart them. */
#include "orchestrator/control/control_internal.h"

/* ---- memory ---- */

void ctl_def_free(struct ctl_def *v)
{
    if (!v)
        return;
    dv_arena_deinit(&v->arena);
    dv_free(v);
}

void ctl_fn_free(struct ctl_fn *f)
{
    if (!f)
        return;
    for (size_t i = 0; i < f->n_events; i++)
        dv_free(f->events[i].message);
    dv_free(f->events);
    dv_free(f->key);
    ctl_schedule_free(f->schedule);
    ctl_scrapes_free(f->scrapes);
    ctl_def_free(f->v);
    dv_free(f);
}

static int compare(const struct ctl_fn *f, struct dv_sv ns, struct dv_sv name)
{
    const struct dv_fn_spec *s = &f->v->def.spec;
    size_t n = strlen(s->ns), m = n < ns.n ? n : ns.n;
    int d = memcmp(s->ns, ns.p, m);
    if (d || n != ns.n)
        return d ? d : n < ns.n ? -1 : 1;
    n = strlen(s->name);
    m = n < name.n ? n : name.n;
    d = memcmp(s->name, name.p, m);
    return d ? d : n == name.n ? 0 : n < name.n ? -1 : 1;
}

/* Index of the first function that is not before ns/name. */
static size_t lower_bound(const struct dv_control *c, struct dv_sv ns, struct dv_sv name)
{
    size_t lo = 0, hi = c->n_fns;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare(c->fns[mid], ns, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct ctl_fn *ctl_fn_find(struct dv_control *c, struct dv_sv ns, struct dv_sv name)
{
    size_t i = lower_bound(c, ns, name);
    return i < c->n_fns && compare(c->fns[i], ns, name) == 0 ? c->fns[i] : NULL;
}

static int reserve(struct dv_control *c)
{
    if (c->n_fns < c->cap_fns)
        return DV_OK;
    size_t cap = c->cap_fns ? c->cap_fns * 2 : 64;
    struct ctl_fn **fns = dv_realloc(c->fns, cap * sizeof(*fns));
    if (!fns)
        return DV_E_NOMEM;
    c->fns = fns;
    c->cap_fns = cap;
    return DV_OK;
}

int ctl_fn_insert(struct dv_control *c, struct ctl_def *v)
{
    struct ctl_fn *f = dv_zalloc(sizeof(*f));
    int rc = f ? reserve(c) : DV_E_NOMEM;
    if (!rc && !(f->key = dv_asprintf("%s/%s", v->def.spec.ns, v->def.spec.name)))
        rc = DV_E_NOMEM;
    if (!rc)
        rc = dv_idmap_put(&c->fns_by_uid, v->def.uid, f);
    if (rc) {
        ctl_fn_free(f);
        ctl_def_free(v);
        return rc;
    }
    f->uid = v->def.uid;
    f->v = v;
    size_t at = lower_bound(c, dv_sv_c(v->def.spec.ns), dv_sv_c(v->def.spec.name));
    memmove(&c->fns[at + 1], &c->fns[at], (c->n_fns - at) * sizeof(struct ctl_fn *));
    c->fns[at] = f;
    c->n_fns++;
    return DV_OK;
}

void ctl_fn_drop(struct dv_control *c, struct ctl_fn *f)
{
    const struct dv_fn_spec *s = &f->v->def.spec;
    size_t at = lower_bound(c, dv_sv_c(s->ns), dv_sv_c(s->name));
    memmove(&c->fns[at], &c->fns[at + 1], (c->n_fns - at - 1) * sizeof(struct ctl_fn *));
    c->n_fns--;
    (void)dv_idmap_remove(&c->fns_by_uid, f->uid);
    dv_cluster_fn_remove(c->cluster, f->uid, ctl_now(c));
    if (c->gateway)
        dv_gateway_fn_remove(c->gateway, f->uid);
    ctl_logs_fn_gone(c, f->uid);
    ctl_fn_free(f);
}

int ctl_fn_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err)
{
    struct ctl_def *v = dv_zalloc(sizeof(*v));
    if (!v)
        return dv_err_set(err, DV_E_NOMEM, "loading functions");
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_function def;
    int rc = dv_wire_decode(&dv_type_function, e->value, DV_STORE_VALUE_MAX, DV_WIRE_IGNORE_UNKNOWN, &arena,
                            &def, err);
    if (!rc)
        rc = dv_fn_spec_finish(&def.spec, &arena, err);
    if (!rc &&
        (rc = dv_wire_copy(&dv_type_function, &def, &v->arena, &v->def))) /* what is kept takes no more */
        (void)dv_err_set(err, rc, "loading functions");
    if (rc) {
        ctl_def_free(v);
        return rc;
    }
    v->def.revision = e->revision;
    if ((rc = ctl_fn_insert(c, v)))
        return dv_err_set(err, rc, "loading functions");
    if ((rc = dv_cluster_fn_put(c->cluster, &v->def, ctl_now(c))))
        return rc;
    struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, v->def.uid);
    ctl_schedule_put(c, f);
    ctl_scrapes_put(c, f);
    return DV_OK;
}

size_t ctl_fns_in(const struct dv_control *c, struct dv_sv ns)
{
    size_t i = lower_bound(c, ns, dv_sv("", 0)), n = 0;
    while (i < c->n_fns && dv_sv_eq(dv_sv_c(c->fns[i]->v->def.spec.ns), ns))
        i++, n++;
    return n;
}

/* ---- versions ---- */

/* What replicas are made of: everything but what only the orchestrator looks at. */
static bool same_replicas(const struct dv_fn_spec *a, const struct dv_fn_spec *b)
{
    struct dv_fn_spec x = *a;
    int64_t concurrency = a->scale.concurrency;
    x.scale = b->scale;
    x.scale.concurrency = concurrency;
    x.auth = b->auth;
    x.annotations = b->annotations;
    x.face = b->face;
    return b->pull != DV_PULL_ALWAYS && dv_wire_equal(&dv_type_fn_spec, &x, b);
}

int ctl_def_new(struct dv_control *c, const struct dv_fn_spec *spec, const struct ctl_fn *have,
                struct ctl_def **out)
{
    struct ctl_def *v = dv_zalloc(sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    int rc = dv_wire_copy(&dv_type_fn_spec, spec, &v->arena, &v->def.spec);
    if (rc) {
        ctl_def_free(v);
        return rc;
    }
    struct dv_function *d = &v->def;
    d->created_ms = d->updated_ms = ctl_wall(c);
    d->generation = 1;
    d->desired_override = -1;
    if (have) {
        const struct dv_function *old = &have->v->def;
        d->uid = old->uid;
        d->created_ms = old->created_ms;
        d->desired_override = old->desired_override;
        d->generation = old->generation + !same_replicas(&old->spec, &d->spec);
    }
    while (d->uid == 0 || (!have && dv_idmap_find(&c->fns_by_uid, d->uid)))
        if (dv_random_bytes(&d->uid, sizeof(d->uid)))
            d->uid = dv_rng_u64(&c->rng);
    *out = v;
    return DV_OK;
}

int ctl_def_write(struct ctl_write *w, const struct ctl_def *v, uint64_t if_revision)
{
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    char key[DV_STORE_KEY_MAX];
    (void)snprintf(key, sizeof(key), "fn/%s/%s", v->def.spec.ns, v->def.spec.name);
    int rc = dv_wire_encode(&dv_type_function, &v->def, &json);
    return rc ? rc : ctl_write_add(w, key, dv_buf_sv(&json), false, if_revision);
}

/* ---- towards the gateway ---- */

static uint32_t u32(int64_t v)
{
    return v < 0 ? 0 : v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

void ctl_fn_tell_gateway(struct dv_control *c, const struct dv_cluster_fn *f, const struct ctl_fn *cf)
{
    if (!c->gateway)
        return;
    const struct dv_fn_spec *s = &cf->v->def.spec;
    struct dv_route_fn r = {
        .uid = cf->uid,
        .name = s->name,
        .ns = s->ns,
        .timeout_ms = u32(s->timeout_ms),
        .queue_max = u32(s->scale.queue_max),
        .queue_timeout_ms = u32(s->scale.queue_timeout_ms),
        .auth_required = s->auth == DV_AUTH_REQUIRED,
        .failing = f ? f->failing : "",
    };
    if (dv_gateway_fn_put(c->gateway, &r))
        dv_log(DV_LOG_ERROR, "gateway did not learn a function", DV_LS("function", cf->key));
}

void ctl_fn_routes(struct dv_control *c, const struct dv_cluster_fn *f)
{
    if (!c->gateway)
        return;
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas)
        n++;
    struct dv_route_replica *r = dv_zalloc_n(n + 1, sizeof(*r));
    if (!r)
        return; /* the next change tells all of it */
    n = 0;
    DV_LIST_FOR_EACH (it, &f->replicas) {
        const struct dv_cluster_replica *x = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
        if (dv_cluster_routable(x))
            r[n++] = (struct dv_route_replica){x->id, x->node->id, u32(f->def->spec.scale.concurrency)};
    }
    (void)dv_gateway_replicas_put(c->gateway, f->uid, r, n);
    dv_free(r);
}

/* ---- reading ---- */

const struct dv_function *dv_control_fn_find(struct dv_control *c, struct dv_sv ns, struct dv_sv name)
{
    const struct ctl_fn *f = ctl_fn_find(c, ns, name);
    return f ? &f->v->def : NULL;
}

const struct dv_function *dv_control_fn_by_uid(struct dv_control *c, uint64_t uid)
{
    const struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, uid);
    return f ? &f->v->def : NULL;
}

void dv_control_fn_each(struct dv_control *c, struct dv_sv ns, struct dv_sv after,
                        int (*each)(void *ctx, const struct dv_function *fn), void *ctx)
{
    struct dv_sv from_ns = ns, from_name = dv_sv("", 0);
    if (after.n > 0)
        (void)dv_sv_cut(after, '/', &from_ns, &from_name);
    size_t i = lower_bound(c, from_ns, from_name);
    if (after.n > 0 && i < c->n_fns && compare(c->fns[i], from_ns, from_name) == 0)
        i++;
    for (; i < c->n_fns; i++) {
        const struct dv_function *d = &c->fns[i]->v->def;
        if (ns.n > 0 && !dv_sv_eq(dv_sv_c(d->spec.ns), ns))
            return;
        if (each(ctx, d))
            return;
    }
}

static enum dv_fn_phase phase_of(const struct dv_cluster_fn *f, const struct dv_cluster_tally *t)
{
    if (t->ready > 0)
        return DV_FN_READY;
    if (f->failing[0] || (f->crash.failures && t->starting == 0))
        return DV_FN_FAILED;
    return t->starting > 0 || f->asked > 0 ? DV_FN_STARTING : DV_FN_ASLEEP;
}

int dv_control_fn_status(struct dv_control *c, uint64_t uid, struct dv_fn_status *out)
{
    const struct dv_cluster_fn *f = dv_cluster_fn_find(c->cluster, uid);
    if (!f)
        return DV_NOT_FOUND;
    struct dv_cluster_tally t;
    dv_cluster_fn_tally(f, &t);
    struct dv_fn_status s = {.phase = phase_of(f, &t),
                             .asked = f->asked,
                             .wanted = dv_cluster_fn_wanted(f),
                             .ready = t.ready,
                             .starting = t.starting,
                             .failed = t.failed,
                             .scale_reason = dv_cluster_fn_reason(f)};
    dv_cluster_fn_keep(c->cluster, f, &s.keep);
    s.message = dv_cluster_fn_reason(f);
    if (s.phase == DV_FN_FAILED)
        s.message = f->failing[0] ? f->failing : f->trouble;
    if (c->gateway)
        (void)dv_gateway_load(c->gateway, uid, &s.load); /* not known there yet: no load */
    *out = s;
    return DV_OK;
}
