/* Secrets and registry credentials.  What is secret is sealed in the store and in memory, and opened
 * only into the message that carries it to an agent. */
#include "orchestrator/control/control_internal.h"

#include <cjson/cJSON.h>
#include <limits.h>

static const char *text_of(const cJSON *tree, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, name));
}

static int64_t number_of(const cJSON *tree, const char *name)
{
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(tree, name);
    return cJSON_IsNumber(n) ? (int64_t)n->valuedouble : 0;
}

static void add_text(struct dv_buf *b, const char *name, const char *value)
{
    (void)dv_buf_addf(b, "%s\"%s\":", dv_buf_len(b) > 1 ? "," : "",
                      name); /* failures are remembered by the buffer */
    (void)dv_buf_add_json(b, dv_sv_c(value));
}

/* ---- secrets ---- */

static void secret_free(struct ctl_secret *s)
{
    if (!s)
        return;
    dv_free(s->key);
    dv_free(s->sealed);
    dv_free(s);
}

static int secret_install(struct dv_control *c, struct dv_sv key, const char *sealed, int64_t updated_ms,
                          uint64_t revision)
{
    struct ctl_secret *s = dv_zalloc(sizeof(*s));
    if (!s)
        return DV_E_NOMEM;
    s->key = dv_strndup(key.p, key.n);
    s->sealed = dv_strdup(sealed);
    s->updated_ms = updated_ms;
    s->revision = revision;
    if (!s->key || !s->sealed) {
        secret_free(s);
        return DV_E_NOMEM;
    }
    secret_free(dv_map_remove(&c->secrets, key));
    int rc = dv_map_put(&c->secrets, dv_sv_c(s->key), s);
    if (rc)
        secret_free(s);
    return rc;
}

int ctl_secret_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err)
{
    cJSON *tree = NULL;
    int rc = dv_json_parse(e->value, DV_STORE_VALUE_MAX, &tree, err);
    if (rc)
        return rc;
    const char *sealed = text_of(tree, "sealed");
    if (!sealed)
        rc = dv_err_set(err, DV_E_STORE, "%.*s holds no sealed value", (int)e->key.n, e->key.p);
    else if ((rc = secret_install(c, dv_sv(e->key.p + 7, e->key.n - 7), sealed, number_of(tree, "updated_ms"),
                                  e->revision)))
        (void)dv_err_set(err, rc, "loading secrets");
    cJSON_Delete(tree);
    return rc;
}

bool ctl_secret_exists(const struct dv_control *c, const char *ns, const char *name)
{
    char key[2 * DV_NAME_MAX + 8];
    int n = snprintf(key, sizeof(key), "%s/%s", ns, name);
    return n > 0 && (size_t)n < sizeof(key) && dv_map_find(&c->secrets, dv_sv(key, (size_t)n));
}

struct secret_args {
    const char *key; /* "ns/name" */
    const char *store_key;
    char *sealed;
    struct dv_sv value;
    enum dv_put_mode mode;
    int64_t updated_ms;
};

static void secret_cleanup(struct ctl_write *w)
{
    const struct secret_args *a = w->payload;
    if (a->value.n)
        explicit_bzero((char *)a->value.p, a->value.n);
}

static int secret_put_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct secret_args *a = w->payload;
    struct dv_control *c = w->c;
    const struct ctl_secret *have = dv_map_find(&c->secrets, dv_sv_c(a->key));
    if (a->mode == DV_PUT_CREATE && have)
        return dv_err_field(err, DV_EXISTS, "name", "secret \"%s\" exists already", a->key);
    if (a->mode == DV_PUT_REPLACE && !have)
        return dv_err_field(err, DV_NOT_FOUND, "name", "no secret \"%s\"", a->key);
    struct dv_sv ns, name;
    (void)dv_sv_cut(dv_sv_c(a->key), '/', &ns, &name);
    if (!dv_control_ns_exists(c, ns))
        return dv_err_field(err, DV_INVALID, "namespace", "namespace \"%.*s\" does not exist", (int)ns.n,
                            ns.p);
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT, json = DV_BUF_INIT;
    int rc = dv_seal_wrap(c->cfg.seal, dv_sv_c(a->store_key), a->value, &sealed, err);
    if (rc)
        return rc;
    a->sealed = dv_arena_strndup(&w->arena, dv_buf_ptr(&sealed), dv_buf_len(&sealed));
    if (!a->sealed)
        return dv_err_set(err, DV_E_NOMEM, "writing a secret");
    a->updated_ms = ctl_wall(c);
    (void)dv_buf_addf(&json, "{\"updated_ms\":%lld", (long long)a->updated_ms);
    add_text(&json, "sealed", a->sealed);
    (void)dv_buf_add_char(&json, '}');
    rc = json.failed
             ? json.failed
             : ctl_write_add(w, a->store_key, dv_buf_sv(&json), false, have ? have->revision : DV_REV_ABSENT);
    return rc ? dv_err_set(err, rc, "writing a secret") : DV_OK;
}

static void secret_put_apply(struct ctl_write *w)
{
    const struct secret_args *a = w->payload;
    if (secret_install(w->c, dv_sv_c(a->key), a->sealed, a->updated_ms, w->revision))
        dv_log(DV_LOG_ERROR, "out of memory: a secret is committed and not known before the next start");
}

static int secret_write(struct dv_control *c, struct dv_sv ns, struct dv_sv name, dv_control_done *done,
                        void *ctx, struct ctl_write **out, struct dv_err *err)
{
    struct ctl_write *w = ctl_write_new(c, sizeof(struct secret_args), done, ctx);
    if (!w)
        return dv_err_set(err, DV_E_NOMEM, "writing a secret");
    struct secret_args *a = w->payload;
    char text[2 * DV_NAME_MAX + 16];
    char *n = dv_arena_strndup(&w->arena, name.p, name.n), *space = dv_arena_strndup(&w->arena, ns.p, ns.n);
    int rc = n && space ? DV_OK : dv_err_set(err, DV_E_NOMEM, "writing a secret");
    if (!rc && !dv_name_valid(n))
        rc = dv_err_field(err, DV_INVALID, "name", "must be lower-case letters, digits and '-', at most %d",
                          DV_NAME_MAX);
    if (!rc && !dv_name_valid(space))
        rc = dv_err_field(err, DV_INVALID, "namespace",
                          "must be lower-case letters, digits and '-', at most %d", DV_NAME_MAX);
    if (!rc) {
        (void)snprintf(text, sizeof(text), "secret/%s/%s", space, n);
        a->store_key = dv_arena_strdup(&w->arena, text);
        a->key = a->store_key ? a->store_key + 7 : NULL;
        rc = a->key ? DV_OK : dv_err_set(err, DV_E_NOMEM, "writing a secret");
    }
    if (rc)
        ctl_write_free(w);
    else
        *out = w;
    return rc;
}

int dv_control_secret_put(struct dv_control *c, struct dv_sv ns, struct dv_sv name, struct dv_sv value,
                          enum dv_put_mode mode, dv_control_done *done, void *ctx, struct dv_err *err)
{
    if (value.n > CTL_SECRET_MAX)
        return dv_err_field(err, DV_TOO_LARGE, "value", "a secret has at most %d bytes", CTL_SECRET_MAX);
    struct ctl_write *w;
    int rc = secret_write(c, ns, name, done, ctx, &w, err);
    if (rc)
        return rc;
    struct secret_args *a = w->payload;
    a->mode = mode;
    w->prepare = secret_put_prepare;
    w->apply = secret_put_apply;
    w->cleanup = secret_cleanup;
    if (value.n > 0)
        a->value = dv_arena_sv(&w->arena, value);
    if (value.n > 0 && !a->value.p) {
        a->value = dv_sv("", 0);
        ctl_write_free(w);
        return dv_err_set(err, DV_E_NOMEM, "writing a secret");
    }
    return ctl_write_submit(w, err);
}

static int secret_delete_prepare(struct ctl_write *w, struct dv_err *err)
{
    const struct secret_args *a = w->payload;
    const struct ctl_secret *have = dv_map_find(&w->c->secrets, dv_sv_c(a->key));
    if (!have)
        return dv_err_set(err, DV_NOT_FOUND, "no secret \"%s\"", a->key);
    return ctl_write_add(w, a->store_key, dv_sv("", 0), true, have->revision);
}

static void secret_delete_apply(struct ctl_write *w)
{
    const struct secret_args *a = w->payload;
    secret_free(dv_map_remove(&w->c->secrets, dv_sv_c(a->key)));
}

int dv_control_secret_delete(struct dv_control *c, struct dv_sv ns, struct dv_sv name, dv_control_done *done,
                             void *ctx, struct dv_err *err)
{
    struct ctl_write *w;
    int rc = secret_write(c, ns, name, done, ctx, &w, err);
    if (rc)
        return rc;
    w->prepare = secret_delete_prepare;
    w->apply = secret_delete_apply;
    return ctl_write_submit(w, err);
}

static int by_secret_key(const void *a, const void *b)
{
    const struct ctl_secret *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

void dv_control_secrets_each(struct dv_control *c, struct dv_sv ns,
                             int (*each)(void *ctx, const char *ns, const char *name, int64_t updated_ms),
                             void *ctx)
{
    void **all;
    size_t n;
    if (ctl_sorted(&c->secrets, by_secret_key, &all, &n))
        return;
    for (size_t i = 0; i < n; i++) {
        const struct ctl_secret *s = all[i];
        char space[DV_NAME_MAX + 1];
        const char *slash = strchr(s->key, '/');
        (void)snprintf(space, sizeof(space), "%.*s", (int)(slash - s->key), s->key);
        if (ns.n > 0 && !dv_sv_eq(dv_sv_c(space), ns))
            continue;
        if (each(ctx, space, slash + 1, s->updated_ms))
            break;
    }
    dv_free(all);
}

static int open_secret(struct dv_control *c, const struct ctl_secret *s, struct dv_arena *arena,
                       char **out_base64, struct dv_err *err)
{
    char name[2 * DV_NAME_MAX + 16];
    (void)snprintf(name, sizeof(name), "secret/%s", s->key);
    DV_AUTO_BUF struct dv_buf plain = DV_BUF_INIT;
    int rc = dv_seal_unwrap(c->cfg.seal, dv_sv_c(name), dv_sv_c(s->sealed), &plain, err);
    if (rc)
        return rc;
    char *text = dv_arena_alloc(arena, dv_base64_len(dv_buf_len(&plain)) + 1);
    if (text)
        dv_base64(dv_buf_ptr(&plain), dv_buf_len(&plain), text);
    if (plain.data)
        explicit_bzero(plain.data, plain.cap);
    *out_base64 = text;
    return text ? DV_OK : dv_err_set(err, DV_E_NOMEM, "opening a secret");
}

int ctl_secrets_for(struct dv_control *c, const struct dv_fn_spec *spec, struct dv_arena *arena,
                    struct dv_secret_value **out, size_t *out_n, struct dv_err *err)
{
    struct dv_secret_value *v = dv_arena_zalloc(arena, (spec->secrets.n + 1) * sizeof(*v));
    if (!v)
        return dv_err_set(err, DV_E_NOMEM, "opening secrets");
    size_t n = 0;
    for (size_t i = 0; i < spec->secrets.n; i++) {
        char key[2 * DV_NAME_MAX + 8];
        (void)snprintf(key, sizeof(key), "%s/%s", spec->ns, spec->secrets.v[i]);
        const struct ctl_secret *s = dv_map_find(&c->secrets, dv_sv_c(key));
        if (!s)
            continue; /* deleted since: allowed, it is just not mounted */
        int rc = open_secret(c, s, arena, &v[n].value_base64, err);
        if (rc)
            return rc;
        v[n++].name = spec->secrets.v[i];
    }
    *out = v;
    *out_n = n;
    return DV_OK;
}

/* ---- registries ---- */

static void registry_free(struct ctl_registry *r)
{
    if (!r)
        return;
    dv_free(r->server);
    dv_free(r->username);
    dv_free(r->sealed);
    dv_free(r);
}

static int registry_install(struct dv_control *c, const char *server, const char *username,
                            const char *sealed, uint64_t revision)
{
    struct ctl_registry *r = dv_zalloc(sizeof(*r));
    if (!r)
        return DV_E_NOMEM;
    r->server = dv_strdup(server);
    r->username = dv_strdup(username);
    r->sealed = dv_strdup(sealed);
    r->revision = revision;
    if (!r->server || !r->username || !r->sealed) {
        registry_free(r);
        return DV_E_NOMEM;
    }
    registry_free(dv_map_remove(&c->registries, dv_sv_c(server)));
    int rc = dv_map_put(&c->registries, dv_sv_c(r->server), r);
    if (rc)
        registry_free(r);
    return rc;
}

int ctl_registry_load(struct dv_control *c, const struct dv_store_entry *e, struct dv_err *err)
{
    cJSON *tree = NULL;
    int rc = dv_json_parse(e->value, DV_STORE_VALUE_MAX, &tree, err);
    if (rc)
        return rc;
    const char *server = text_of(tree, "server"), *username = text_of(tree, "username");
    const char *sealed = text_of(tree, "sealed");
    if (!server || !username || !sealed)
        rc = dv_err_set(err, DV_E_STORE, "%.*s is not whole", (int)e->key.n, e->key.p);
    else if ((rc = registry_install(c, server, username, sealed, e->revision)))
        (void)dv_err_set(err, rc, "loading registries");
    cJSON_Delete(tree);
    return rc;
}

struct registry_args {
    const char *server, *username, *store_key;
    char *password, *sealed;
};

static void registry_cleanup(struct ctl_write *w)
{
    const struct registry_args *a = w->payload;
    if (a->password)
        explicit_bzero(a->password, strlen(a->password));
}

static int registry_prepare(struct ctl_write *w, struct dv_err *err)
{
    struct registry_args *a = w->payload;
    const struct ctl_registry *have = dv_map_find(&w->c->registries, dv_sv_c(a->server));
    if (!a->password) {
        if (!have)
            return dv_err_set(err, DV_NOT_FOUND, "no credentials for registry \"%s\"", a->server);
        return ctl_write_add(w, a->store_key, dv_sv("", 0), true, have->revision);
    }
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT, json = DV_BUF_INIT;
    int rc = dv_seal_wrap(w->c->cfg.seal, dv_sv_c(a->store_key), dv_sv_c(a->password), &sealed, err);
    if (rc)
        return rc;
    a->sealed = dv_arena_strndup(&w->arena, dv_buf_ptr(&sealed), dv_buf_len(&sealed));
    (void)dv_buf_add_char(&json, '{');
    add_text(&json, "server", a->server);
    add_text(&json, "username", a->username);
    add_text(&json, "sealed", a->sealed ? a->sealed : "");
    (void)dv_buf_add_char(&json, '}');
    rc = !a->sealed ? DV_E_NOMEM : json.failed;
    if (!rc)
        rc = ctl_write_add(w, a->store_key, dv_buf_sv(&json), false, have ? have->revision : DV_REV_ABSENT);
    return rc ? dv_err_set(err, rc, "registry %s", a->server) : DV_OK;
}

static void registry_apply(struct ctl_write *w)
{
    const struct registry_args *a = w->payload;
    if (!a->password)
        registry_free(dv_map_remove(&w->c->registries, dv_sv_c(a->server)));
    else if (registry_install(w->c, a->server, a->username, a->sealed, w->revision))
        dv_log(DV_LOG_ERROR,
               "out of memory: registry credentials are committed and not known before the next start");
}

int dv_control_registry_put(struct dv_control *c, const struct dv_registry_auth *auth, dv_control_done *done,
                            void *ctx, struct dv_err *err)
{
    if (!auth->server || !*auth->server || strlen(auth->server) > 255)
        return dv_err_field(err, DV_INVALID, "server", "must be a registry's host, as \"ghcr.io\"");
    if (auth->password && (!auth->username || !*auth->username))
        return dv_err_field(err, DV_INVALID, "username", "must be given");
    struct ctl_write *w = ctl_write_new(c, sizeof(struct registry_args), done, ctx);
    if (!w)
        return dv_err_set(err, DV_E_NOMEM, "writing registry credentials");
    struct registry_args *a = w->payload;
    char key[300];
    (void)snprintf(key, sizeof(key), "registry/%s", auth->server);
    a->store_key = dv_arena_strdup(&w->arena, key);
    a->server = dv_arena_strdup(&w->arena, auth->server);
    a->username = dv_arena_strdup(&w->arena, auth->username ? auth->username : "");
    a->password = dv_arena_strdup(&w->arena, auth->password);
    w->cleanup = registry_cleanup;
    if (!a->store_key || !a->server || !a->username || (auth->password && !a->password)) {
        ctl_write_free(w);
        return dv_err_set(err, DV_E_NOMEM, "writing registry credentials");
    }
    w->prepare = registry_prepare;
    w->apply = registry_apply;
    return ctl_write_submit(w, err);
}

static int by_server(const void *a, const void *b)
{
    const struct ctl_registry *const *x = a, *const *y = b;
    return strcmp((*x)->server, (*y)->server);
}

void dv_control_registries_each(struct dv_control *c,
                                int (*each)(void *ctx, const char *server, const char *username), void *ctx)
{
    void **all;
    size_t n;
    if (ctl_sorted(&c->registries, by_server, &all, &n))
        return;
    for (size_t i = 0; i < n; i++) {
        const struct ctl_registry *r = all[i];
        if (each(ctx, r->server, r->username))
            break;
    }
    dv_free(all);
}

/* The host that an image's name begins with; Docker Hub when it names none. */
static struct dv_sv registry_of(const char *image)
{
    struct dv_sv head, rest;
    if (!dv_sv_cut(dv_sv_c(image), '/', &head, &rest))
        return DV_SV("docker.io");
    bool is_host =
        memchr(head.p, '.', head.n) || memchr(head.p, ':', head.n) || dv_sv_eq(head, DV_SV("localhost"));
    return is_host ? head : DV_SV("docker.io");
}

int ctl_registry_for(struct dv_control *c, const char *image, struct dv_arena *arena,
                     struct dv_registry_auth *out, struct dv_err *err)
{
    *out = (struct dv_registry_auth){0};
    const struct ctl_registry *r = dv_map_find(&c->registries, registry_of(image));
    if (!r)
        return DV_OK;
    char name[300];
    (void)snprintf(name, sizeof(name), "registry/%s", r->server);
    DV_AUTO_BUF struct dv_buf plain = DV_BUF_INIT;
    int rc = dv_seal_unwrap(c->cfg.seal, dv_sv_c(name), dv_sv_c(r->sealed), &plain, err);
    if (rc)
        return rc;
    out->password = dv_arena_strndup(arena, dv_buf_ptr(&plain), dv_buf_len(&plain));
    if (plain.data)
        explicit_bzero(plain.data, plain.cap);
    out->username = r->username;
    out->server = r->server;
    return out->password ? DV_OK : dv_err_set(err, DV_E_NOMEM, "opening registry credentials");
}

void ctl_secrets_free(struct dv_control *c)
{
    void *v;
    for (size_t i = 0; (v = dv_map_next(&c->secrets, &i));)
        secret_free(v);
    for (size_t i = 0; (v = dv_map_next(&c->registries, &i));)
        registry_free(v);
    dv_map_deinit(&c->secrets);
    dv_map_deinit(&c->registries);
}
