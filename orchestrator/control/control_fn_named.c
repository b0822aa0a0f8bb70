/* What is done to one function by its name: it is deleted, or scaled. */
#include "orchestrator/control/control_internal.h"

#include <inttypes.h>

/* ---- delete ---- */

struct named {
    char *ns, *name;
    uint64_t if_revision, uid;
    int64_t replicas;
    bool is_once; /* replicas is where the autoscaler goes on from, not a pin */
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
    if (!f)
        return;
    ctl_fn_drop(w->c, f);
    if (w->c->on_removed)
        w->c->on_removed(w->c->on_removed_ctx, a->uid);
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
    ctl_def_free(a->made);
    a->made = NULL;
    int rc = ctl_def_new(w->c, &f->v->def.spec, f, &a->made);
    if (rc)
        return dv_err_set(err, rc, "scaling %s", a->name);
    a->made->def.generation = f->v->def.generation; /* nothing of the replicas changes */
    a->made->def.updated_ms = f->v->def.updated_ms;
    a->made->def.desired_override = pin;
    return ctl_def_write(w, a->made, f->v->def.revision);
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
        ctl_def_free(v);
        return;
    }
    struct ctl_def *old = f->v;
    f->v = v;
    if (a->is_once) /* before the pin is taken off, or what it held would be stopped */
        dv_cluster_fn_set(c->cluster, f->uid, a->replicas, ctl_now(c));
    (void)dv_cluster_fn_put(c->cluster, &v->def, ctl_now(c)); /* it exists: nothing to allocate */
    ctl_def_free(old);
}

static void scale_cleanup(struct ctl_write *w)
{
    ctl_def_free(((struct named *)w->payload)->made);
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
