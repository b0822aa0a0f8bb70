/* Containers: made hard to escape from, started, stopped, looked at. */
#include "agent/engine/docker_internal.h"

#include <cjson/cJSON.h>

#include "proto/rt/clock.h"

/* ---- create ---- */

struct create_job {
    struct dk_job job;
    void (*done)(void *ctx, int code, const char *id, const struct dv_err *err);
};

static void key(struct dv_buf *b, const char *name)
{
    (void)dv_buf_addf(b, "%s\"%s\":", b->tail && b->data[b->tail - 1] == '{' ? "" : ",", name);
}

static void put_str(struct dv_buf *b, const char *name, const char *value)
{
    if (!value || !value[0])
        return;
    key(b, name);
    (void)dv_buf_add_json(b, dv_sv_c(value));
}

static void put_i64(struct dv_buf *b, const char *name, int64_t value)
{
    if (value <= 0)
        return;
    key(b, name);
    (void)dv_buf_addf(b, "%lld", (long long)value);
}

static void put_strs(struct dv_buf *b, const char *name, const struct dv_strs *list)
{
    if (!list->n)
        return;
    key(b, name);
    for (size_t i = 0; i < list->n; i++) {
        (void)dv_buf_add_char(b, i ? ',' : '[');
        (void)dv_buf_add_json(b, dv_sv_c(list->v[i]));
    }
    (void)dv_buf_add_char(b, ']');
}

static void put_labels(struct dv_buf *b, const struct dv_kvs *m)
{
    key(b, "Labels");
    (void)dv_buf_add_char(b, '{');
    for (size_t i = 0; i < m->n; i++) {
        if (i)
            (void)dv_buf_add_char(b, ',');
        (void)dv_buf_add_json(b, dv_sv_c(m->v[i].k));
        (void)dv_buf_add_char(b, ':');
        (void)dv_buf_add_json(b, dv_sv_c(m->v[i].v));
    }
    (void)dv_buf_add_char(b, '}');
}

static void put_mounts(struct dv_buf *b, const struct dv_engine_create *spec)
{
    if (!spec->n_mounts)
        return;
    key(b, "Mounts");
    for (size_t i = 0; i < spec->n_mounts; i++) {
        const struct dv_engine_mount *m = &spec->mounts[i];
        (void)dv_buf_add_c(b, i ? "," : "[");
        (void)dv_buf_add_c(b, "{\"Type\":\"bind\"");
        put_str(b, "Source", m->source);
        put_str(b, "Target", m->target);
        (void)dv_buf_addf(b, ",\"ReadOnly\":%s}", m->read_only ? "true" : "false");
    }
    (void)dv_buf_add_char(b, ']');
}

/* Swap is as large as memory, that is none of its own: a function past its limit is killed, not slowed to a
 * crawl. */
static void put_limits(struct dv_buf *b, int64_t memory_bytes, int64_t cpu_mcpu, int64_t pids)
{
    put_i64(b, "PidsLimit", pids);
    put_i64(b, "Memory", memory_bytes);
    put_i64(b, "MemorySwap", memory_bytes);
    put_i64(b, "NanoCpus", cpu_mcpu * 1000000);
}

/* What a container may not do, and how much it may use. */
static void put_host_config(struct dv_buf *b, const struct dv_engine_create *spec)
{
    key(b, "HostConfig");
    (void)dv_buf_add_c(b,
                       "{\"CapDrop\":[\"ALL\"],\"SecurityOpt\":[\"no-new-privileges\"],\"Privileged\":false,"
                       "\"RestartPolicy\":{\"Name\":\"no\"},\"AutoRemove\":false,\"Init\":false,"
                       "\"IpcMode\":\"private\",\"LogConfig\":{\"Type\":\"json-file\",\"Config\":"
                       "{\"max-size\":\"1m\",\"max-file\":\"2\"}}");
    (void)dv_buf_addf(b, ",\"ReadonlyRootfs\":%s", spec->read_only ? "true" : "false");
    put_str(b, "NetworkMode", spec->network);
    if (spec->tmp_bytes > 0) /* programs unpack and run things there, on every platform; where the image has
                              * its own /tmp, runc 1.1 keeps that directory's mode */
        (void)dv_buf_addf(b, ",\"Tmpfs\":{\"/tmp\":\"rw,exec,nosuid,nodev,mode=1777,size=%lld\"}",
                          (long long)spec->tmp_bytes);
    put_limits(b, spec->memory_bytes, spec->cpu_mcpu, spec->pids);
    if (spec->files > 0)
        (void)dv_buf_addf(b, ",\"Ulimits\":[{\"Name\":\"nofile\",\"Soft\":%lld,\"Hard\":%lld}]",
                          (long long)spec->files, (long long)spec->files);
    put_mounts(b, spec);
    (void)dv_buf_add_char(b, '}');
}

static void put_container(struct dv_buf *b, const struct dv_engine_create *spec)
{
    (void)dv_buf_add_char(b, '{');
    put_str(b, "Image", spec->image);
    put_str(b, "Hostname", spec->hostname);
    put_str(b, "User", spec->user);
    put_str(b, "WorkingDir", spec->workdir);
    put_strs(b, "Env", &spec->env);
    put_strs(b, "Entrypoint", &spec->entrypoint);
    put_strs(b, "Cmd", &spec->command);
    put_labels(b, &spec->labels);
    key(b, "Tty");
    (void)dv_buf_add_c(b, "false,\"OpenStdin\":false,\"AttachStdin\":false,\"AttachStdout\":false,"
                          "\"AttachStderr\":false");
    put_host_config(b, spec);
    (void)dv_buf_add_char(b, '}');
}

static void create_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct create_job *c = DV_CONTAINER_OF(j, struct create_job, job);
    struct cJSON *tree = NULL;
    const char *id = "";
    if (code == DV_OK)
        code = dk_parse(body, &tree, err);
    if (code == DV_OK)
        id = dk_str(tree, "Id");
    if (code == DV_OK && !id[0])
        code = dv_err_set(err, DV_E_ENGINE, "%s: the container engine's answer has no id", j->what);
    c->done(j->ctx, code, code ? NULL : id, code ? err : NULL);
    cJSON_Delete(tree);
}

void dk_create(struct dv_engine *e, const struct dv_engine_create *spec,
               void (*done)(void *, int, const char *, const struct dv_err *), void *ctx)
{
    struct create_job *c =
        dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*c), ctx, create_answer);
    if (!c) {
        done(ctx, DV_E_NOMEM, NULL, dk_no_memory());
        return;
    }
    c->done = done;
    (void)snprintf(c->job.what, sizeof(c->job.what), "creating container %s", spec->name);
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, "/containers/create?name=");
    dk_escape(&path, spec->name, "");
    struct dv_engine_create settled = *spec;
    if (spec->network && strcmp(spec->network, DV_ENGINE_NETWORK_AUTO) == 0)
        settled.network = c->job.d->network;
    put_container(&body, &settled);
    if (body.failed)
        path.failed = body.failed;
    dk_send(&c->job, "POST", &path, dv_buf_sv(&body), NULL, DK_CALL_TIMEOUT_MS);
}

/* ---- plain orders ---- */

/* METHOD /containers/ID + tail; p may be NULL, its user has been told. */
static void order(struct dk_plain *p, const char *method, const char *verb, const char *id, const char *tail,
                  const char *value, uint64_t timeout_ms)
{
    if (!p)
        return;
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    (void)snprintf(p->job.what, sizeof(p->job.what), "%s container %.12s", verb, id);
    (void)dv_buf_add_c(&path, "/containers/");
    dk_escape(&path, id, "");
    (void)dv_buf_add_c(&path, tail);
    dk_escape(&path, value, "");
    dk_send(&p->job, method, &path, dv_sv(NULL, 0), NULL, timeout_ms);
}

static struct docker *of(struct dv_engine *e)
{
    return DV_CONTAINER_OF(e, struct docker, base);
}

void dk_start(struct dv_engine *e, const char *id, dv_engine_done *done, void *ctx)
{
    order(dk_plain_new(of(e), done, ctx, 0), "POST", "starting", id, "/start", "", DK_CALL_TIMEOUT_MS);
}

void dk_stop(struct dv_engine *e, const char *id, int64_t grace_ms, dv_engine_done *done, void *ctx)
{
    /* The engine counts in seconds, and holds the call open for as long. */
    uint64_t s = grace_ms <= 0 ? 0 : ((uint64_t)grace_ms + 999) / 1000;
    char text[24];
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)s);
    order(dk_plain_new(of(e), done, ctx, 1u << DV_NOT_FOUND), "POST", "stopping", id, "/stop?t=", text,
          DK_CALL_TIMEOUT_MS + s * 1000);
}

void dk_kill(struct dv_engine *e, const char *id, const char *signal, dv_engine_done *done, void *ctx)
{
    order(dk_plain_new(of(e), done, ctx, 0), "POST", "signalling", id, "/kill?signal=", signal,
          DK_CALL_TIMEOUT_MS);
}

void dk_remove(struct dv_engine *e, const char *id, bool force, dv_engine_done *done, void *ctx)
{
    /* Forced, the only conflict is a removal that is under way already. */
    unsigned ok = 1u << DV_NOT_FOUND | (force ? 1u << DV_CONFLICT : 0);
    order(dk_plain_new(of(e), done, ctx, ok), "DELETE", "removing", id,
          "?v=true&force=", force ? "true" : "false", DK_CALL_TIMEOUT_MS);
}

void dk_update(struct dv_engine *e, const char *id, const struct dv_engine_limits *limits,
               dv_engine_done *done, void *ctx)
{
    struct dk_plain *p = dk_plain_new(of(e), done, ctx, 0);
    if (!p)
        return;
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT;
    (void)snprintf(p->job.what, sizeof(p->job.what), "limiting container %.12s", id);
    (void)dv_buf_add_c(&path, "/containers/");
    dk_escape(&path, id, "");
    (void)dv_buf_add_c(&path, "/update");
    (void)dv_buf_add_char(&body, '{');
    put_limits(&body, limits->memory_bytes, limits->cpu_mcpu, limits->pids);
    (void)dv_buf_add_char(&body, '}');
    if (body.failed)
        path.failed = body.failed;
    dk_send(&p->job, "POST", &path, dv_buf_sv(&body), NULL, DK_CALL_TIMEOUT_MS);
}

/* ---- inspect and list ---- */

static void copy_address(const struct cJSON *settings, char out[64])
{
    const struct cJSON *network;
    (void)dv_copy(out, 64, dk_str(settings, "IPAddress"));
    cJSON_ArrayForEach (network, dk_get(settings, "Networks")) {
        if (out[0])
            return;
        (void)dv_copy(out, 64, dk_str(network, "IPAddress"));
    }
}

static void copy_network(struct dv_engine_container *c, const struct cJSON *host_config)
{
    static const char joined[] = "container:";
    const char *mode = dk_str(host_config, "NetworkMode");
    c->is_network_told = mode[0] != '\0';
    if (strncmp(mode, joined, sizeof(joined) - 1) == 0)
        (void)dv_copy(c->joins, sizeof(c->joins), mode + sizeof(joined) - 1);
}

/* Containers that were never started carry the year 1. */
static int64_t read_time(const char *text)
{
    int64_t ms = 0;
    return dv_rfc3339_parse(text, &ms) == DV_OK && ms > 0 ? ms : 0;
}

static void copy_name(char out[80], const char *name)
{
    (void)dv_copy(out, 80, name + (name[0] == '/'));
}

static int read_inspected(const struct cJSON *v, struct dv_arena *a, void *out)
{
    struct dv_engine_container *c = out;
    const struct cJSON *state = dk_get(v, "State");
    (void)dv_copy(c->id, sizeof(c->id), dk_str(v, "Id"));
    copy_name(c->name, dk_str(v, "Name"));
    (void)dv_copy(c->state, sizeof(c->state), dk_str(state, "Status"));
    (void)dv_copy(c->error, sizeof(c->error), dk_str(state, "Error"));
    copy_address(dk_get(v, "NetworkSettings"), c->address);
    copy_network(c, dk_get(v, "HostConfig"));
    c->pid = dk_i64(state, "Pid");
    c->exit_code = dk_i64(state, "ExitCode");
    c->oom_killed = dk_bool(state, "OOMKilled");
    c->started_ms = read_time(dk_str(state, "StartedAt"));
    return dk_kvs(dk_get(dk_get(v, "Config"), "Labels"), a, &c->labels);
}

struct inspect_job {
    struct dk_job job;
    void (*done)(void *ctx, int code, const struct dv_engine_container *c, const struct dv_err *err);
};

static void inspect_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct inspect_job *q = DV_CONTAINER_OF(j, struct inspect_job, job);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_engine_container c = {0};
    code = dk_inspect_read(j, code, body, read_inspected, &arena, &c, err);
    q->done(j->ctx, code, code ? NULL : &c, code ? err : NULL);
}

void dk_inspect(struct dv_engine *e, const char *id,
                void (*done)(void *, int, const struct dv_engine_container *, const struct dv_err *),
                void *ctx)
{
    struct inspect_job *q =
        dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*q), ctx, inspect_answer);
    if (!q) {
        done(ctx, DV_E_NOMEM, NULL, dk_no_memory());
        return;
    }
    q->done = done;
    (void)snprintf(q->job.what, sizeof(q->job.what), "inspecting container %.12s", id);
    dk_inspect_send(&q->job, "/containers/", id, "");
}

/* "Exited (137) 2 minutes ago": a listing has no other place for the code. */
static int64_t code_in_status(const char *status)
{
    struct dv_sv head, rest, number;
    int64_t code = 0;
    if (dv_sv_cut(dv_sv_c(status), '(', &head, &rest) && dv_sv_cut(rest, ')', &number, &rest) &&
        dv_sv_starts(head, DV_SV("Exited")))
        (void)dv_parse_i64(number, &code);
    return code;
}

static int read_listed(const struct cJSON *v, struct dv_arena *a, struct dv_engine_container *c)
{
    const struct cJSON *name = cJSON_GetArrayItem(dk_get(v, "Names"), 0);
    *c = (struct dv_engine_container){0};
    (void)dv_copy(c->id, sizeof(c->id), dk_str(v, "Id"));
    copy_name(c->name, cJSON_IsString(name) ? name->valuestring : "");
    (void)dv_copy(c->state, sizeof(c->state), dk_str(v, "State"));
    copy_address(dk_get(v, "NetworkSettings"), c->address);
    copy_network(c, dk_get(v, "HostConfig"));
    c->exit_code = code_in_status(dk_str(v, "Status"));
    return dk_kvs(dk_get(v, "Labels"), a, &c->labels);
}

struct list_job {
    struct dk_job job;
    void (*done)(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                 const struct dv_err *err);
};

static void list_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct list_job *q = DV_CONTAINER_OF(j, struct list_job, job);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_engine_container *list = NULL;
    const struct cJSON *item;
    struct cJSON *tree = NULL;
    size_t n = 0;
    int rc = DV_OK;
    if (code == DV_OK)
        code = dk_parse(body, &tree, err);
    if (code == DV_OK) {
        list = dv_arena_alloc(&arena, ((size_t)cJSON_GetArraySize(tree) + 1) * sizeof(*list));
        rc = list ? DV_OK : DV_E_NOMEM;
        cJSON_ArrayForEach (item, tree)
            rc = rc ? rc : read_listed(item, &arena, &list[n++]);
    }
    cJSON_Delete(tree);
    if (rc)
        code = dv_err_set(err, rc, "listing containers");
    q->done(j->ctx, code, code ? NULL : list, code ? 0 : n, code ? err : NULL);
}

void dk_list(struct dv_engine *e, const char *label,
             void (*done)(void *, int, const struct dv_engine_container *, size_t, const struct dv_err *),
             void *ctx)
{
    struct list_job *q = dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*q), ctx, list_answer);
    if (!q) {
        done(ctx, DV_E_NOMEM, NULL, 0, dk_no_memory());
        return;
    }
    q->done = done;
    (void)dv_copy(q->job.what, sizeof(q->job.what), "listing containers");
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf filter = DV_BUF_INIT;
    (void)dv_buf_add_c(&filter, "{\"label\":[");
    (void)dv_buf_add_json(&filter, dv_sv_c(label));
    (void)dv_buf_add_c(&filter, "]}");
    const char *text = dv_buf_cstr(&filter);
    (void)dv_buf_add_c(&path, "/containers/json?all=true&filters=");
    if (text)
        dk_escape(&path, text, "");
    else
        path.failed = DV_E_NOMEM;
    dk_send(&q->job, "GET", &path, dv_sv(NULL, 0), NULL, DK_CALL_TIMEOUT_MS);
}
