/* What the container of a replica is made of. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"

static char *text(struct dv_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static char *text(struct dv_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *p = n < 0 ? NULL : dv_arena_alloc(a, (size_t)n + 1);
    if (p)
        (void)vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}

/* A list being filled; a string that could not be made (NULL) is remembered until the end. */
struct list {
    struct dv_strs s;
    bool is_broken;
};

static void add(struct list *l, char *s)
{
    l->is_broken = l->is_broken || !s;
    if (s)
        l->s.v[l->s.n++] = s;
}

static int list_init(struct list *l, struct dv_arena *a, size_t cap)
{
    *l = (struct list){.s.v = dv_arena_alloc(a, (cap ? cap : 1) * sizeof(char *))};
    return l->s.v ? DV_OK : DV_E_NOMEM;
}

static bool is_given(const struct dv_fn_spec *spec, const char *key)
{
    for (size_t i = 0; i < spec->env.n; i++)
        if (!strcmp(spec->env.v[i].k, key))
            return true;
    return false;
}

static int fill_env(const struct sb_replica *r, struct dv_arena *a, struct dv_strs *out)
{
    const struct dv_fn_spec *spec = &r->cmd.spec;
    struct list env;
    if (list_init(&env, a, spec->env.n + 4))
        return DV_E_NOMEM;
    add(&env, text(a, "PORT=%lld", (long long)spec->port));
    if (!is_given(spec, "OPENFAAS_NAME"))
        add(&env, text(a, "OPENFAAS_NAME=%s", spec->name));
    if (spec->secrets.n)
        add(&env, text(a, "DAVIT_SECRETS=%s", SB_SECRETS_TARGET));
    for (size_t i = 0; i < spec->env.n; i++)
        if (strcmp(spec->env.v[i].k, "PORT") != 0) /* the platform's: the probe goes there */
            add(&env, text(a, "%s=%s", spec->env.v[i].k, spec->env.v[i].v));
    *out = env.s;
    return env.is_broken ? DV_E_NOMEM : DV_OK;
}

static int fill_argv(const struct sb_replica *r, struct dv_arena *a, struct dv_engine_create *out)
{
    const struct dv_fn_spec *spec = &r->cmd.spec;
    struct list entry, command;
    if (spec->protocol != DV_PROTO_STDIO) {
        out->entrypoint = spec->entrypoint;
        out->command = spec->command;
        return DV_OK;
    }
    if (list_init(&entry, a, 1) || list_init(&command, a, spec->entrypoint.n + spec->command.n + 8))
        return DV_E_NOMEM;
    add(&entry, text(a, "%s", SB_INIT_TARGET));
    add(&command, text(a, "stdio"));
    add(&command, text(a, "--port"));
    add(&command, text(a, "%lld", (long long)spec->port));
    add(&command, text(a, "--concurrency"));
    add(&command, text(a, "%lld", (long long)spec->scale.concurrency));
    add(&command, text(a, "--timeout"));
    add(&command, text(a, "%lld", (long long)spec->timeout_ms));
    add(&command, text(a, "--"));
    for (size_t i = 0; i < spec->entrypoint.n; i++)
        add(&command, spec->entrypoint.v[i]);
    for (size_t i = 0; i < spec->command.n; i++)
        add(&command, spec->command.v[i]);
    out->entrypoint = entry.s;
    out->command = command.s;
    return entry.is_broken || command.is_broken ? DV_E_NOMEM : DV_OK;
}

static int fill_labels(const struct sb_replica *r, struct dv_arena *a, struct dv_kvs *out)
{
    enum { N = 5 };
    struct dv_kv *v = dv_arena_alloc(a, N * sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    /* sorted by key, as every string map is */
    v[0] = (struct dv_kv){"dev.davit.function", (char *)(uintptr_t)r->fn_name};
    v[1] = (struct dv_kv){"dev.davit.generation", text(a, "%llu", (unsigned long long)r->cmd.generation)};
    v[2] = (struct dv_kv){"dev.davit.node", text(a, "%016llx", (unsigned long long)r->sb->cfg.node)};
    v[3] = (struct dv_kv){"dev.davit.replica", text(a, "%016llx", (unsigned long long)r->id)};
    v[4] = (struct dv_kv){"dev.davit.uid", text(a, "%016llx", (unsigned long long)r->cmd.fn_uid)};
    for (size_t i = 0; i < N; i++)
        if (!v[i].v)
            return DV_E_NOMEM;
    *out = (struct dv_kvs){v, N};
    return DV_OK;
}

static int fill_mounts(const struct sb_replica *r, struct dv_arena *a, struct dv_engine_create *out)
{
    char secrets[4096];
    struct dv_engine_mount *m = dv_arena_alloc(a, 2 * sizeof(*m));
    if (!m)
        return DV_E_NOMEM;
    out->mounts = m;
    if (r->cmd.spec.protocol == DV_PROTO_STDIO)
        m[out->n_mounts++] = (struct dv_engine_mount){r->sb->cfg.init_path, SB_INIT_TARGET, true};
    if (r->cmd.n_secrets) {
        int rc = sb_secrets_path(r, secrets, sizeof(secrets));
        char *source = rc ? NULL : dv_arena_strdup(a, secrets);
        if (!source)
            return DV_E_NOMEM;
        m[out->n_mounts++] = (struct dv_engine_mount){source, SB_SECRETS_TARGET, true};
    }
    return DV_OK;
}

int sb_container_spec(struct sb_replica *r, struct dv_arena *a, struct dv_engine_create *out)
{
    const struct dv_fn_spec *spec = &r->cmd.spec;
    *out = (struct dv_engine_create){
        .name = r->retried_create ? text(a, "davit-%s-%016llx", spec->name, (unsigned long long)r->id)
                                  : text(a, "davit-%s-%08x", spec->name, (unsigned)(r->id >> 32)),
        .image = spec->image,
        .user = spec->user,
        .network = r->holder ? text(a, "container:%s", r->holder->container) : r->sb->cfg.network,
        .hostname = r->holder ? NULL : spec->name, /* that of whose network it joins: the engine insists */
        .memory_bytes = spec->limits.memory_bytes,
        .cpu_mcpu = spec->limits.cpu_mcpu,
        .pids = spec->limits.pids,
        .files = spec->limits.files,
        .tmp_bytes = spec->limits.tmp_bytes,
        .read_only = spec->read_only,
    };
    int rc = out->name && out->network ? fill_env(r, a, &out->env) : DV_E_NOMEM;
    if (!rc)
        rc = fill_argv(r, a, out);
    if (!rc)
        rc = fill_labels(r, a, &out->labels);
    return rc ? rc : fill_mounts(r, a, out);
}

int sb_container_run(const struct sb_replica *r, const struct sb_pool *p, struct dv_arena *a,
                     struct dv_gate_run *out)
{
    struct dv_engine_create asked = {0};
    struct list argv;
    *out = (struct dv_gate_run){0};
    int rc = fill_env(r, a, &out->env);
    if (!rc)
        rc = fill_argv(r, a, &asked);
    if (rc)
        return rc;
    /* As the engine does: a command replaces the image's, an entrypoint drops that too. */
    bool is_whole = asked.entrypoint.n > 0;
    const struct dv_strs *entry = is_whole ? &asked.entrypoint : &p->entrypoint;
    const struct dv_strs *command = asked.command.n || is_whole ? &asked.command : &p->command;
    if (!entry->n && !command->n)
        return DV_INVALID;
    if (list_init(&argv, a, entry->n + command->n))
        return DV_E_NOMEM;
    for (size_t i = 0; i < entry->n; i++)
        add(&argv, entry->v[i]);
    for (size_t i = 0; i < command->n; i++)
        add(&argv, command->v[i]);
    out->argv = argv.s;
    return DV_OK;
}
