/* Functions: kept under fn/<ns>/<name>, in memory twice indexed (by name, by uid) and once in order.
 *
 * A version of a function never changes; a write makes another one, hands it to the core and the gateway, and
 * frees the old.  Its generation grows only with what its replicas are made of: an edit of scale.max does not
 * restart them. */
#include "orchestrator/control/control_internal.h"

#include <inttypes.h>

/* ---- memory ---- */

static void def_free(struct ctl_def *v)
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
    def_free(f->v);
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

/* Takes v. */
static int fn_insert(struct dv_control *c, struct ctl_def *v)
{
    struct ctl_fn *f = dv_zalloc(sizeof(*f));
    int rc = f ? reserve(c) : DV_E_NOMEM;
    if (!rc && !(f->key = dv_asprintf("%s/%s", v->def.spec.ns, v->def.spec.name)))
        rc = DV_E_NOMEM;
    if (!rc)
        rc = dv_idmap_put(&c->fns_by_uid, v->def.uid, f);
    if (rc) {
        ctl_fn_free(f);
        def_free(v);
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

static void fn_drop(struct dv_control *c, struct ctl_fn *f)
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
    int rc = dv_wire_decode(&dv_type_function, e->value, DV_STORE_VALUE_MAX, DV_WIRE_IGNORE_UNKNOWN,
                            &v->arena, &v->def, err);
    if (!rc)
        rc = dv_fn_spec_finish(&v->def.spec, &v->arena, err);
    if (rc) {
        def_free(v);
        return rc;
    }
    v->def.revision = e->revision;
    if ((rc = fn_insert(c, v)))
        return dv_err_set(err, rc, "loading functions");
    return dv_cluster_fn_put(c->cluster, &v->def, ctl_now(c));
}

size_t ctl_fns_in(const struct dv_control *c, struct dv_sv ns)
{
    size_t i = lower_bound(c, ns, dv_sv("", 0)), n = 0;
    while (i < c->n_fns && dv_sv_eq(dv_sv_c(c->fns[i]->v->def.spec.ns), ns))
        i++, n++;
    return n;
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

/* ---- put ---- */

struct put_item {
    struct dv_fn_spec spec;
    enum dv_put_mode mode;
    uint64_t if_revision;
    bool has_condition;
    const char *note;
    int64_t begin_with;
    struct ctl_def *made; /* decided by the last prepare; owned until applied */
};

struct put {
    struct put_item *items;
    size_t n;
};

static int item_err(struct dv_err *err, const struct put *p, size_t i, int code, const char *field,
                    const char *text)
{
    char path[96];
    if (p->n > 1)
        (void)snprintf(path, sizeof(path), "functions[%zu].%s", i, field);
    else
        (void)snprintf(path, sizeof(path), "%s", field);
    return dv_err_field(err, code, path, "%s", text);
}

static int check_item(struct dv_control *c, const struct put *p, size_t i, const struct ctl_fn *have,
                      struct dv_err *err)
{
    const struct put_item *it = &p->items[i];
    char text[200];
    if (!dv_control_ns_exists(c, dv_sv_c(it->spec.ns))) {
        (void)snprintf(text, sizeof(text), "namespace \"%s\" does not exist", it->spec.ns);
        return item_err(err, p, i, DV_INVALID, "namespace", text);
    }
    for (size_t k = 0; k < it->spec.secrets.n; k++) {
        if (ctl_secret_exists(c, it->spec.ns, it->spec.secrets.v[k]))
            continue;
        char field[32];
        (void)snprintf(field, sizeof(field), "secrets[%zu]", k);
        (void)snprintf(text, sizeof(text), "secret \"%s\" does not exist in namespace \"%s\"",
                       it->spec.secrets.v[k], it->spec.ns);
        return item_err(err, p, i, DV_INVALID, field, text);
    }
    (void)snprintf(text, sizeof(text), "function \"%s\" %s in namespace \"%s\"", it->spec.name,
                   have ? "exists already" : "does not exist", it->spec.ns);
    if (it->mode == DV_PUT_CREATE && have)
        return item_err(err, p, i, DV_EXISTS, "name", text);
    if (it->mode == DV_PUT_REPLACE && !have)
        return item_err(err, p, i, DV_NOT_FOUND, "name", text);
    if (it->has_condition && it->if_revision != (have ? have->v->def.revision : DV_REV_ABSENT))
        return item_err(err, p, i, DV_PRECONDITION, "name", "it was changed since it was read (If-Match)");
    return DV_OK;
}

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

static int make_version(struct dv_control *c, const struct dv_fn_spec *spec, const struct ctl_fn *have,
                        struct ctl_def **out)
{
    struct ctl_def *v = dv_zalloc(sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    int rc = dv_wire_copy(&dv_type_fn_spec, spec, &v->arena, &v->def.spec);
    if (rc) {
        def_free(v);
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

static int add_version(struct ctl_write *w, const struct ctl_def *v, uint64_t if_revision)
{
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    char key[DV_STORE_KEY_MAX];
    (void)snprintf(key, sizeof(key), "fn/%s/%s", v->def.spec.ns, v->def.spec.name);
    int rc = dv_wire_encode(&dv_type_function, &v->def, &json);
    return rc ? rc : ctl_write_add(w, key, dv_buf_sv(&json), false, if_revision);
}

static void drop_made(struct put *p)
{
    for (size_t i = 0; i < p->n; i++) {
        def_free(p->items[i].made);
        p->items[i].made = NULL;
    }
}

static int put_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct put *p = w->payload;
    drop_made(p);
    int rc = DV_OK;
    for (size_t i = 0; !rc && i < p->n; i++) {
        struct put_item *it = &p->items[i];
        const struct ctl_fn *have = ctl_fn_find(w->c, dv_sv_c(it->spec.ns), dv_sv_c(it->spec.name));
        if ((rc = check_item(w->c, p, i, have, err)))
            break;
        if (!(rc = make_version(w->c, &it->spec, have, &it->made)))
            rc = add_version(w, it->made, have ? have->v->def.revision : DV_REV_ABSENT);
        if (rc)
            (void)dv_err_set(err, rc, "function %s", it->spec.name);
    }
    if (rc)
        drop_made(p);
    return rc;
}

/* v is committed: in memory, in the core, in the gateway.  Takes v. */
static void adopt_version(struct dv_control *c, struct ctl_def *v)
{
    struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, v->def.uid);
    struct ctl_def *old = NULL;
    bool is_new = f == NULL;
    if (f) {
        old = f->v;
        f->v = v;
    } else if (fn_insert(c, v)) {
        dv_log(DV_LOG_ERROR, "out of memory: a function is committed and not served before the next start");
        return;
    } else {
        f = dv_idmap_find(&c->fns_by_uid, v->def.uid);
    }
    if (dv_cluster_fn_put(c->cluster, &v->def, ctl_now(c)))
        dv_log(DV_LOG_ERROR, "out of memory: a function is committed and not scaled",
               DV_LS("function", f->key));
    ctl_fn_tell_gateway(c, dv_cluster_fn_find(c->cluster, f->uid), f);
    char text[96];
    bool is_replaced = old && old->def.generation != v->def.generation;
    (void)snprintf(text, sizeof(text), "generation %" PRIu64 "%s", v->def.generation,
                   is_replaced ? ", its replicas are replaced" : "");
    ctl_event(c, f->uid, is_new ? "created" : "updated", text, 0, 0);
    def_free(old);
}

static void put_apply(struct ctl_write *w)
{
    struct put *p = w->payload;
    for (size_t i = 0; i < p->n; i++) {
        struct ctl_def *v = p->items[i].made;
        p->items[i].made = NULL;
        v->def.revision = w->revision;
        uint64_t uid = v->def.uid;
        bool begins = p->items[i].begin_with > 0 && !dv_idmap_find(&w->c->fns_by_uid, uid);
        adopt_version(w->c, v);
        if (begins)
            dv_cluster_fn_begin(w->c->cluster, uid, p->items[i].begin_with, ctl_now(w->c));
        if (p->items[i].note)
            ctl_event(w->c, uid, "note", p->items[i].note, 0, 0);
    }
}

/* The versions made by prepare are not in the arena. */
static void put_cleanup(struct ctl_write *w)
{
    drop_made(w->payload);
}

static int copy_items(struct ctl_write *w, const struct dv_fn_put *puts, size_t n)
{
    struct put *p = w->payload;
    p->items = dv_arena_zalloc(&w->arena, n * sizeof(*p->items));
    if (!p->items)
        return DV_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        struct put_item *it = &p->items[i];
        int rc = dv_wire_copy(&dv_type_fn_spec, puts[i].spec, &w->arena, &it->spec);
        if (rc)
            return rc;
        it->mode = puts[i].mode;
        it->has_condition = puts[i].if_revision != DV_REV_ANY;
        it->if_revision = puts[i].if_revision;
        it->begin_with = puts[i].begin_with;
        if (puts[i].note && !(it->note = dv_arena_strdup(&w->arena, puts[i].note)))
            return DV_E_NOMEM;
        p->n = i + 1;
    }
    return DV_OK;
}

static int check_twice(const struct put *p, struct dv_err *err)
{
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(p->items[i].spec.name, p->items[k].spec.name) == 0 &&
                strcmp(p->items[i].spec.ns, p->items[k].spec.ns) == 0)
                return item_err(err, p, i, DV_INVALID, "name", "the same function stands there twice");
    return DV_OK;
}

int dv_control_fn_put(struct dv_control *c, const struct dv_fn_put *puts, size_t n, bool dry_run,
                      dv_control_done *done, void *ctx, struct dv_err *err)
{
    struct ctl_write *w = ctl_write_new(c, sizeof(struct put), done, ctx);
    int rc = w ? copy_items(w, puts, n) : DV_E_NOMEM;
    if (!rc)
        rc = check_twice(w->payload, err);
    else
        (void)dv_err_set(err, rc, "writing a function");
    if (rc) {
        if (w)
            ctl_write_free(w);
        return rc;
    }
    w->prepare = put_prepare;
    w->apply = put_apply;
    w->cleanup = put_cleanup;
    if (!dry_run)
        return ctl_write_submit(w, err);
    if ((rc = put_prepare(w, err)))
        ctl_write_free(w);
    else
        ctl_write_answer(w, DV_OK);
    return rc;
}

/* ---- delete ---- */

struct named {
    char *ns, *name;
    uint64_t if_revision, uid;
    int64_t replicas;
    bool is_once; /* replicas is a number for now, not a pin */
    struct ctl_def *made;
};

static struct ctl_write *named_write(struct dv_control *c, struct dv_sv ns, struct dv_sv name,
                                     dv_control_done *done, void *ctx)
{
    struct ctl_write *w = ctl_write_new(c, sizeof(struct named), done, ctx);
    if (!w)
        return NULL;
    struct named *a = w->payload;
    a->ns = dv_arena_strndup(&w->arena, ns.p, ns.n);
    a->name = dv_arena_strndup(&w->arena, name.p, name.n);
    if (a->ns && a->name)
        return w;
    ctl_write_free(w);
    return NULL;
}

static int missing(struct dv_err *err, const struct named *a)
{
    return dv_err_set(err, DV_NOT_FOUND, "no function \"%s\" in namespace \"%s\"", a->name, a->ns);
}

static int delete_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct named *a = w->payload;
    const struct ctl_fn *f = ctl_fn_find(w->c, dv_sv_c(a->ns), dv_sv_c(a->name));
    if (!f)
        return missing(err, a);
    uint64_t revision = f->v->def.revision;
    if (a->if_revision != DV_REV_ANY && a->if_revision != revision)
        return dv_err_set(err, DV_PRECONDITION, "it was changed since it was read (If-Match)");
    char key[DV_STORE_KEY_MAX];
    (void)snprintf(key, sizeof(key), "fn/%s/%s", a->ns, a->name);
    a->uid = f->uid;
    return ctl_write_add(w, key, dv_sv("", 0), true, revision);
}

static void delete_apply(struct ctl_write *w)
{
    const struct named *a = w->payload;
    struct ctl_fn *f = dv_idmap_find(&w->c->fns_by_uid, a->uid);
    if (f)
        fn_drop(w->c, f);
}

int dv_control_fn_delete(struct dv_control *c, struct dv_sv ns, struct dv_sv name, uint64_t if_revision,
                         dv_control_done *done, void *ctx, struct dv_err *err)
{
    struct ctl_write *w = named_write(c, ns, name, done, ctx);
    if (!w)
        return dv_err_set(err, DV_E_NOMEM, "deleting a function");
    ((struct named *)w->payload)->if_revision = if_revision;
    w->prepare = delete_prepare;
    w->apply = delete_apply;
    return ctl_write_submit(w, err);
}

/* ---- scale ---- */

static int scale_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct named *a = w->payload;
    const struct ctl_fn *f = ctl_fn_find(w->c, dv_sv_c(a->ns), dv_sv_c(a->name));
    if (!f)
        return missing(err, a);
    const struct dv_scale *sc = &f->v->def.spec.scale;
    if (a->replicas > 0 && (a->replicas < sc->min || a->replicas > sc->max))
        return dv_err_field(err, DV_INVALID, "replicas", "must be 0, or from %" PRId64 " to %" PRId64,
                            sc->min > 1 ? sc->min : (int64_t)1, sc->max);
    int64_t pin = a->is_once ? -1 : a->replicas;
    if (f->v->def.desired_override == pin) {
        if (a->is_once) { /* nothing to keep, so nothing to wait for */
            dv_cluster_fn_set(w->c->cluster, f->uid, a->replicas, ctl_now(w->c));
            ctl_pump(w->c);
        }
        return DV_OK;
    }
    def_free(a->made);
    a->made = NULL;
    int rc = make_version(w->c, &f->v->def.spec, f, &a->made);
    if (rc)
        return dv_err_set(err, rc, "scaling %s", a->name);
    a->made->def.generation = f->v->def.generation; /* nothing of the replicas changes */
    a->made->def.updated_ms = f->v->def.updated_ms;
    a->made->def.desired_override = pin;
    return add_version(w, a->made, f->v->def.revision);
}

static void scale_apply(struct ctl_write *w)
{
    struct named *a = w->payload;
    struct dv_control *c = w->c;
    struct ctl_def *v = a->made;
    a->made = NULL;
    v->def.revision = w->revision;
    struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, v->def.uid);
    if (!f) {
        def_free(v);
        return;
    }
    struct ctl_def *old = f->v;
    f->v = v;
    if (a->is_once) /* before the pin is taken off, or what it held would be stopped */
        dv_cluster_fn_set(c->cluster, f->uid, a->replicas, ctl_now(c));
    (void)dv_cluster_fn_put(c->cluster, &v->def, ctl_now(c)); /* it exists: nothing to allocate */
    def_free(old);
}

static void scale_cleanup(struct ctl_write *w)
{
    def_free(((struct named *)w->payload)->made);
}

static int scale(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas, bool is_once,
                 dv_control_done *done, void *ctx, struct dv_err *err)
{
    struct ctl_write *w = named_write(c, ns, name, done, ctx);
    if (!w)
        return dv_err_set(err, DV_E_NOMEM, "scaling a function");
    struct named *a = w->payload;
    a->replicas = replicas;
    a->is_once = is_once;
    w->cleanup = scale_cleanup;
    w->prepare = scale_prepare;
    w->apply = scale_apply;
    return ctl_write_submit(w, err);
}

int dv_control_fn_scale(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas,
                        dv_control_done *done, void *ctx, struct dv_err *err)
{
    if (replicas < -1)
        return dv_err_field(err, DV_INVALID, "replicas", "must be -1 or more");
    return scale(c, ns, name, replicas, false, done, ctx, err);
}

int dv_control_fn_set(struct dv_control *c, struct dv_sv ns, struct dv_sv name, int64_t replicas,
                      dv_control_done *done, void *ctx, struct dv_err *err)
{
    if (replicas < 1)
        return dv_err_field(err, DV_INVALID, "replicas", "must be 1 or more");
    return scale(c, ns, name, replicas, true, done, ctx, err);
}

void ctl_fn_awake(struct dv_control *c, uint64_t fn_uid)
{
    const struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, fn_uid);
    if (!f)
        return;
    struct dv_err err = DV_ERR_INIT;
    if (dv_control_fn_scale(c, dv_sv_c(f->v->def.spec.ns), dv_sv_c(f->v->def.spec.name), -1, NULL, NULL,
                            &err))
        dv_log(DV_LOG_WARN, "could not take back a scale override", DV_LS("function", f->key), DV_LE(&err));
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
                             .wanted = f->decision.wanted,
                             .ready = t.ready,
                             .starting = t.starting,
                             .failed = t.failed,
                             .scale_reason = f->decision.reason};
    s.message = f->decision.reason;
    if (s.phase == DV_FN_FAILED)
        s.message = f->failing[0] ? f->failing : f->trouble;
    if (c->gateway)
        (void)dv_gateway_load(c->gateway, uid, &s.load); /* not known there yet: no load */
    *out = s;
    return DV_OK;
}

/* ---- events ---- */

static struct ctl_event *event_at(const struct ctl_fn *f, size_t i)
{
    return &f->events[(f->first_event + i) % f->cap_events];
}

static struct ctl_event *event_slot(struct ctl_fn *f)
{
    if (f->n_events < f->cap_events)
        return event_at(f, f->n_events++);
    if (f->cap_events < CTL_EVENTS_MAX &&
        f->first_event == 0) { /* the ring has not turned yet: it may grow in place */
        size_t cap = f->cap_events ? f->cap_events * 2 : 8;
        if (cap > CTL_EVENTS_MAX)
            cap = CTL_EVENTS_MAX;
        struct ctl_event *more = dv_realloc(f->events, cap * sizeof(*more));
        if (more) {
            memset(more + f->cap_events, 0, (cap - f->cap_events) * sizeof(*more));
            f->events = more;
            f->cap_events = cap;
            return event_at(f, f->n_events++);
        }
        if (f->cap_events == 0)
            return NULL;
    }
    struct ctl_event *oldest = event_at(f, 0);
    f->first_event = (f->first_event + 1) % f->cap_events;
    return oldest;
}

void ctl_event(struct dv_control *c, uint64_t fn_uid, const char *kind, const char *message, uint64_t replica,
               uint64_t node)
{
    struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, fn_uid);
    if (!f)
        return;
    if (f->n_events) {
        struct ctl_event *last = event_at(f, f->n_events - 1);
        if (strcmp(last->kind, kind) == 0 && last->message && strcmp(last->message, message) == 0) {
            last->count++;
            last->wall_ms = ctl_wall(c);
            last->replica = replica;
            last->node = node;
            return;
        }
    }
    struct ctl_event *e = event_slot(f);
    if (!e)
        return; /* for people; may be lost when memory is short */
    dv_free(e->message);
    *e = (struct ctl_event){ctl_wall(c), kind, dv_strdup(message), replica, node, 1};
}

void dv_control_events_each(struct dv_control *c, uint64_t fn_uid,
                            int (*each)(void *ctx, const struct dv_fn_event *e), void *ctx)
{
    const struct ctl_fn *f = dv_idmap_find(&c->fns_by_uid, fn_uid);
    for (size_t i = 0; f && i < f->n_events; i++) {
        const struct ctl_event *e = event_at(f, i);
        struct dv_fn_event view = {e->wall_ms, e->kind, e->message ? e->message : "",
                                   e->replica, e->node, e->count};
        if (each(ctx, &view))
            return;
    }
}
