/* Functions written: created, replaced, one or several in one commit. */
#include "orchestrator/control/control_internal.h"

#include <inttypes.h>

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
    char zone[48];
    struct dv_err why = DV_ERR_INIT;
    int rc = ctl_schedule_check(c, &it->spec, zone, sizeof(zone), &why);
    if (rc)
        return item_err(err, p, i, rc, zone, dv_err_msg(&why, rc));
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

static void drop_made(struct put *p)
{
    for (size_t i = 0; i < p->n; i++) {
        ctl_def_free(p->items[i].made);
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
        if (!(rc = ctl_def_new(w->c, &it->spec, have, &it->made)))
            rc = ctl_def_write(w, it->made, have ? have->v->def.revision : DV_REV_ABSENT);
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
    } else if (ctl_fn_insert(c, v)) {
        dv_log(DV_LOG_ERROR, "out of memory: a function is committed and not served before the next start");
        return;
    } else {
        f = dv_idmap_find(&c->fns_by_uid, v->def.uid);
    }
    if (dv_cluster_fn_put(c->cluster, &v->def, ctl_now(c)))
        dv_log(DV_LOG_ERROR, "out of memory: a function is committed and not scaled",
               DV_LS("function", f->key));
    ctl_schedule_put(c, f);
    ctl_scrapes_put(c, f);
    ctl_fn_tell_gateway(c, dv_cluster_fn_find(c->cluster, f->uid), f);
    char text[96];
    bool is_replaced = old && old->def.generation != v->def.generation;
    (void)snprintf(text, sizeof(text), "generation %" PRIu64 "%s", v->def.generation,
                   is_replaced ? ", its replicas are replaced" : "");
    ctl_event(c, f->uid, is_new ? "created" : "updated", text, 0, 0);
    ctl_def_free(old);
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
