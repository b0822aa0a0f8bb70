/* Namespaces: kept under ns/<name>.  "default" exists without a record; it gets one when it is given labels.
 */
#include "orchestrator/control/control_internal.h"

#include <cjson/cJSON.h>

static int64_t number_of(const cJSON *tree, const char *name)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(tree, name);
    return cJSON_IsNumber(n) ? (int64_t)n->valuedouble : 0;
}

static void add_kvs(struct dv_buf *b, const char *name, const struct dv_kvs *m)
{
    (void)dv_buf_addf(b, ",\"%s\":{", name);
    for (size_t i = 0; i < m->n; i++) {
        if (i)
            (void)dv_buf_add_char(b, ',');
        (void)dv_buf_add_json(b, dv_sv_c(m->v[i].k));
        (void)dv_buf_add_char(b, ':');
        (void)dv_buf_add_json(b, dv_sv_c(m->v[i].v));
    }
    (void)dv_buf_add_char(b, '}');
}

int ctl_sorted(const struct dv_map *m, int (*cmp)(const void *, const void *), void ***out, size_t *out_n)
{
    void **all = dv_zalloc_n(m->n + 1, sizeof(void *)), *v;
    if (!all)
        return DV_E_NOMEM;
    size_t n = 0;
    for (size_t i = 0; (v = dv_map_next(m, &i));)
        all[n++] = v;
    qsort(all, n, sizeof(void *), cmp);
    *out = all;
    *out_n = n;
    return DV_OK;
}

static void ns_free(struct ctl_ns *ns)
{
    if (!ns)
        return;
    dv_arena_deinit(&ns->arena);
    dv_free(ns);
}

static struct ctl_ns *ns_of(const struct dv_control *c, const char *name)
{
    return dv_map_find(&c->namespaces, dv_sv_c(name));
}

bool dv_control_ns_exists(struct dv_control *c, struct dv_sv name)
{
    return dv_sv_eq(name, DV_SV(DV_NS_DEFAULT)) || dv_map_find(&c->namespaces, name) != NULL;
}

static int copy_kvs(struct dv_arena *arena, const struct dv_kvs *from, struct dv_kvs *to)
{
    to->n = 0;
    to->v = dv_arena_alloc(arena, ((from ? from->n : 0) + 1) * sizeof(struct dv_kv));
    if (!to->v)
        return DV_E_NOMEM;
    for (size_t i = 0; from && i < from->n; i++) {
        struct dv_kv *kv = &to->v[to->n];
        kv->k = dv_arena_strdup(arena, from->v[i].k);
        kv->v = dv_arena_strdup(arena, from->v[i].v ? from->v[i].v : "");
        if (!kv->k || !kv->v)
            return DV_E_NOMEM;
        to->n++;
    }
    return DV_OK;
}

static int kvs_of(const cJSON *tree, const char *name, struct dv_arena *arena, struct dv_kvs *out)
{
    const cJSON *o = cJSON_GetObjectItemCaseSensitive(tree, name), *it;
    int n = cJSON_GetArraySize(o);
    out->n = 0;
    out->v = dv_arena_alloc(arena, ((size_t)n + 1) * sizeof(struct dv_kv));
    if (!out->v)
        return DV_E_NOMEM;
    cJSON_ArrayForEach (it, o) {
        struct dv_kv *kv = &out->v[out->n];
        kv->k = dv_arena_strdup(arena, it->string);
        kv->v = dv_arena_strdup(arena, it->valuestring ? it->valuestring : "");
        if (!kv->k || !kv->v)
            return DV_E_NOMEM;
        out->n++;
    }
    return DV_OK;
}

/* Takes ns; replaces what was there. */
static int ns_install(struct dv_control *c, struct ctl_ns *ns)
{
    ns_free(dv_map_remove(&c->namespaces, dv_sv_c(ns->name)));
    int rc = dv_map_put(&c->namespaces, dv_sv_c(ns->name), ns);
    if (rc)
        ns_free(ns);
    return rc;
}

int ctl_ns_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err)
{
    cJSON *tree = NULL;
    int rc = dv_json_parse(e->value, DV_STORE_VALUE_MAX, &tree, err);
    if (rc)
        return rc;
    struct ctl_ns *ns = dv_zalloc(sizeof(*ns));
    rc = ns ? DV_OK : DV_E_NOMEM;
    if (!rc) {
        ns->name = dv_arena_strndup(&ns->arena, e->key.p + 3, e->key.n - 3);
        ns->created_ms = number_of(tree, "created_ms");
        ns->revision = e->revision;
        rc = ns->name ? kvs_of(tree, "labels", &ns->arena, &ns->labels) : DV_E_NOMEM;
    }
    if (!rc)
        rc = kvs_of(tree, "annotations", &ns->arena, &ns->annotations);
    cJSON_Delete(tree);
    if (rc)
        ns_free(ns);
    else
        rc = ns_install(c, ns);
    return rc ? dv_err_set(err, rc, "namespace %.*s", (int)e->key.n, e->key.p) : DV_OK;
}

struct ns_args {
    struct ctl_ns *made;
    const char *name;
    struct dv_kvs labels, annotations;
    bool create;
};

static void ns_cleanup(struct ctl_write *w)
{
    ns_free(((struct ns_args *)w->payload)->made);
}

static int ns_make(struct dv_control *c, const struct ns_args *a, const struct ctl_ns *have,
                   struct ctl_ns **out)
{
    struct ctl_ns *ns = dv_zalloc(sizeof(*ns));
    if (!ns)
        return DV_E_NOMEM;
    ns->name = dv_arena_strdup(&ns->arena, a->name);
    ns->created_ms = have ? have->created_ms : ctl_wall(c);
    int rc = ns->name ? copy_kvs(&ns->arena, &a->labels, &ns->labels) : DV_E_NOMEM;
    if (!rc)
        rc = copy_kvs(&ns->arena, &a->annotations, &ns->annotations);
    if (rc)
        ns_free(ns);
    else
        *out = ns;
    return rc;
}

static int ns_put_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct ns_args *a = w->payload;
    const struct ctl_ns *have = ns_of(w->c, a->name);
    bool exists = dv_control_ns_exists(w->c, dv_sv_c(a->name));
    if (a->create && exists)
        return dv_err_field(err, DV_EXISTS, "name", "namespace \"%s\" exists already", a->name);
    if (!a->create && !exists)
        return dv_err_field(err, DV_NOT_FOUND, "name", "no namespace \"%s\"", a->name);
    ns_free(a->made);
    a->made = NULL;
    int rc = ns_make(w->c, a, have, &a->made);
    if (rc)
        return dv_err_set(err, rc, "namespace %s", a->name);
    char key[DV_STORE_KEY_MAX];
    (void)snprintf(key, sizeof(key), "ns/%s", a->name);
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    (void)dv_buf_addf(&json, "{\"created_ms\":%lld", (long long)a->made->created_ms);
    add_kvs(&json, "labels", &a->made->labels);
    add_kvs(&json, "annotations", &a->made->annotations);
    (void)dv_buf_add_char(&json, '}');
    rc = json.failed ? json.failed
                     : ctl_write_add(w, key, dv_buf_sv(&json), false, have ? have->revision : DV_REV_ABSENT);
    return rc ? dv_err_set(err, rc, "namespace %s", a->name) : DV_OK;
}

static void ns_put_apply(struct ctl_write *w)
{
    struct ns_args *a = w->payload;
    struct ctl_ns *ns = a->made;
    a->made = NULL;
    ns->revision = w->revision;
    if (ns_install(w->c, ns))
        dv_log(DV_LOG_ERROR, "out of memory: a namespace is committed and not known before the next start");
}

int dv_control_ns_put(struct dv_control *c, struct dv_sv name, const struct dv_kvs *labels,
                      const struct dv_kvs *annotations, bool create, dv_control_done *done, void *ctx,
                      struct dv_err *err)
{
    struct ctl_write *w = ctl_write_new(c, sizeof(struct ns_args), done, ctx);
    if (!w)
        return dv_err_set(err, DV_E_NOMEM, "writing a namespace");
    struct ns_args *a = w->payload;
    a->create = create;
    a->name = dv_arena_strndup(&w->arena, name.p, name.n);
    int rc = a->name ? copy_kvs(&w->arena, labels, &a->labels) : DV_E_NOMEM;
    if (!rc)
        rc = copy_kvs(&w->arena, annotations, &a->annotations);
    if (!rc && !dv_name_valid(a->name))
        rc = dv_err_field(err, DV_INVALID, "name", "must be lower-case letters, digits and '-', at most %d",
                          DV_NAME_MAX);
    else if (rc)
        (void)dv_err_set(err, rc, "writing a namespace");
    if (rc) {
        ctl_write_free(w);
        return rc;
    }
    w->prepare = ns_put_prepare;
    w->apply = ns_put_apply;
    w->cleanup = ns_cleanup;
    return ctl_write_submit(w, err);
}

static bool holds_secrets(const struct dv_control *c, const char *ns)
{
    const struct ctl_secret *s;
    size_t n = strlen(ns);
    for (size_t i = 0; (s = dv_map_next(&c->secrets, &i));)
        if (strncmp(s->key, ns, n) == 0 && s->key[n] == '/')
            return true;
    return false;
}

static int ns_delete_prepare(struct ctl_write *w, struct dv_err *err)
{
    const struct ns_args *a = w->payload;
    const struct ctl_ns *have = ns_of(w->c, a->name);
    if (strcmp(a->name, DV_NS_DEFAULT) == 0)
        return dv_err_set(err, DV_CONFLICT, "namespace \"%s\" always exists", a->name);
    if (!have)
        return dv_err_set(err, DV_NOT_FOUND, "no namespace \"%s\"", a->name);
    if (ctl_fns_in(w->c, dv_sv_c(a->name)) > 0 || holds_secrets(w->c, a->name))
        return dv_err_set(err, DV_CONFLICT, "namespace \"%s\" still holds functions or secrets", a->name);
    char key[DV_STORE_KEY_MAX];
    (void)snprintf(key, sizeof(key), "ns/%s", a->name);
    return ctl_write_add(w, key, dv_sv("", 0), true, have->revision);
}

static void ns_delete_apply(struct ctl_write *w)
{
    const struct ns_args *a = w->payload;
    ns_free(dv_map_remove(&w->c->namespaces, dv_sv_c(a->name)));
}

int dv_control_ns_delete(struct dv_control *c, struct dv_sv name, dv_control_done *done, void *ctx,
                         struct dv_err *err)
{
    struct ctl_write *w = ctl_write_new(c, sizeof(struct ns_args), done, ctx);
    struct ns_args *a = w ? w->payload : NULL;
    if (a)
        a->name = dv_arena_strndup(&w->arena, name.p, name.n);
    if (!a || !a->name) {
        if (w)
            ctl_write_free(w);
        return dv_err_set(err, DV_E_NOMEM, "deleting a namespace");
    }
    w->prepare = ns_delete_prepare;
    w->apply = ns_delete_apply;
    return ctl_write_submit(w, err);
}

static int by_ns_name(const void *a, const void *b)
{
    const struct ctl_ns *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

void dv_control_ns_each(struct dv_control *c, int (*each)(void *ctx, const struct dv_ns_view *ns), void *ctx)
{
    static const struct dv_kvs none = {0};
    void **all;
    size_t n;
    struct dv_ns_view dflt = {DV_NS_DEFAULT, &none, &none, 0};
    if (!ns_of(c, DV_NS_DEFAULT) && each(ctx, &dflt))
        return;
    if (ctl_sorted(&c->namespaces, by_ns_name, &all, &n))
        return;
    for (size_t i = 0; i < n; i++) {
        const struct ctl_ns *ns = all[i];
        struct dv_ns_view v = {ns->name, &ns->labels, &ns->annotations, ns->created_ms};
        if (each(ctx, &v))
            break;
    }
    dv_free(all);
}

void ctl_namespaces_free(struct dv_control *c)
{
    struct ctl_ns *ns;
    for (size_t i = 0; (ns = dv_map_next(&c->namespaces, &i));)
        ns_free(ns);
    dv_map_deinit(&c->namespaces);
}
