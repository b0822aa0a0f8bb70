/* The Docker Engine API over libcurl: the connection, the version, and what every call has in common.
 *
 * Every call goes through dk_job_new and dk_send and comes back, once, through its `answer` with a code that
 * is already sorted: the engine could not be reached (DV_E_ENGINE, saying which socket and what to do), the
 * engine refused (by its status, in its own words), or DV_OK with the body.  The kinds (images, containers,
 * logs, events) stand in a file each.
 *
 * Version: the highest that both sides know, since 1.41 (Docker 20.10); engines that demand more than we
 * know, or offer less, are refused by name.  podman's compatible service is told apart by its Server header.
 */
#include "agent/engine/docker_internal.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

enum { API_MIN = 41, API_MAX = 47 }; /* minor numbers of version 1 */

/* ---- errors ---- */

const struct dv_err *dk_no_memory(void)
{
    static const struct dv_err err = {.code = DV_E_NOMEM,
                                      .msg = "out of memory for a call to the container engine"};
    return &err;
}

/* curl does not always keep errno of a unix socket's connect: ask again. */
static int connect_errno(const struct docker *d)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (!d->socket || !dv_copy(sun.sun_path, sizeof(sun.sun_path), d->socket))
        return 0;
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
        return 0;
    return errno;
}

static int unreachable(const struct docker *d, const struct dv_httpc_result *res, const char *what,
                       struct dv_err *err)
{
    const char *where = d->socket ? d->socket : d->origin;
    int why = res->err->sys_errno ? res->err->sys_errno : connect_errno(d);
    switch (why) {
    case EACCES:
    case EPERM:
        return dv_err_set(
            err, DV_E_ENGINE,
            "permission denied on the container engine's socket %s: run as root, or put this user into the "
            "docker group and log in again",
            where);
    case ENOENT:
        return dv_err_set(
            err, DV_E_ENGINE,
            "no container engine at %s: there is no such socket; start dockerd, or name another with "
            "--docker",
            where);
    case ECONNREFUSED:
        return dv_err_set(err, DV_E_ENGINE, "no container engine at %s: nobody listens there; start dockerd",
                          where);
    default:
        return dv_err_set(err, DV_E_ENGINE, "%s: container engine at %s: %s", what, where, res->err->msg);
    }
}

static int refused(long status, struct dv_sv body, const char *what, struct dv_err *err)
{
    struct cJSON *tree = NULL;
    int code = status == 404                    ? DV_NOT_FOUND
               : status == 409                  ? DV_CONFLICT
               : status == 401 || status == 403 ? DV_DENIED
               : status == 400                  ? DV_INVALID
                                                : DV_E_ENGINE;
    const char *words = "";
    if (dv_json_parse(body, DK_ANSWER_MAX, &tree, NULL) == DV_OK)
        words = dk_str(tree, "message");
    if (words[0])
        (void)dv_err_set(err, code, "%s: %s", what, words);
    else
        (void)dv_err_set(err, code, "%s: the container engine answered %ld", what, status);
    cJSON_Delete(tree);
    return code;
}

static int judge(struct docker *d, const struct dk_job *j, const struct dv_httpc_result *res,
                 struct dv_err *err)
{
    if (res->code == DV_OK && res->status == 304)
        return DV_OK; /* already as wanted */
    if (res->code == DV_OK && res->status / 100 == 2)
        return DV_OK;
    if (res->code == DV_OK)
        return refused(res->status, res->body, j->what, err);
    if (res->code == DV_E_NET)
        return unreachable(d, res, j->what, err);
    if (res->code == DV_DEADLINE)
        return dv_err_set(err, DV_E_ENGINE, "%s: the container engine did not answer in time (%s)", j->what,
                          res->err->msg);
    if (res->code == DV_E_NOMEM)
        return dv_err_set(err, DV_E_NOMEM, "%s: out of memory", j->what);
    return dv_err_set(err, DV_E_ENGINE, "%s: %s", j->what, res->err->msg);
}

/* ---- jobs ---- */

static void job_free(struct dk_job *j)
{
    dv_list_remove(&j->node);
    dv_defer_cancel(&j->late);
    if (j->discard)
        j->discard(j);
    dv_free(j);
}

static void conclude(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct docker *d = j->d;
    dv_list_remove(&j->node);
    j->call = NULL;
    if (code < 0)
        d->errors++;
    j->answer(j, code, body, err);
    job_free(j);
}

static void on_done(void *ctx, const struct dv_httpc_result *res)
{
    struct dk_job *j = ctx;
    struct dv_err err = DV_ERR_INIT;
    j->api_version = dv_httpc_header(res, "Api-Version");
    j->server = dv_httpc_header(res, "Server");
    int code = judge(j->d, j, res, &err);
    conclude(j, code, res->body, &err);
}

static void on_late(struct dv_defer *f)
{
    struct dk_job *j = DV_CONTAINER_OF(f, struct dk_job, late);
    struct dv_err err = j->late_err;
    conclude(j, err.code, dv_sv(NULL, 0), &err);
}

static void docker_free(struct docker *d);

static int on_data(void *ctx, struct dv_sv bytes)
{
    struct dk_job *j = ctx;
    struct docker *d = j->d;
    d->in_data++;
    j->in_data = true;
    int rc = j->data(j, bytes);
    j->in_data = false;
    d->in_data--;
    if (j->is_cancelled) { /* by its own callback; curl asks no more of it */
        job_free(j);
        rc = 1;
    }
    return rc;
}

void *dk_job_new(struct docker *d, size_t size, void *ctx,
                 void (*answer)(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err))
{
    dv_loop_assert_here(d->loop);
    struct dk_job *j = dv_zalloc(size);
    d->calls++;
    if (!j) {
        d->errors++;
        return NULL;
    }
    j->d = d;
    j->ctx = ctx;
    j->answer = answer;
    j->late.fn = on_late;
    dv_list_push_back(&d->jobs, &j->node);
    return j;
}

void dk_send(struct dk_job *j, const char *method, struct dv_buf *path, struct dv_sv body,
             const char *const *headers, uint64_t timeout_ms)
{
    struct docker *d = j->d;
    DV_AUTO_BUF struct dv_buf url = DV_BUF_INIT;
    (void)dv_buf_addf(&url, "%s%s", d->origin, d->prefix);
    (void)dv_buf_add_sv(&url, dv_buf_sv(path));
    const char *text = path->failed ? NULL : dv_buf_cstr(&url);
    int rc = DV_E_NOMEM;
    if (text && !url.failed) {
        const struct dv_httpc_request req = {.method = method,
                                             .url = text,
                                             .unix_socket = d->socket,
                                             .headers = headers,
                                             .body = body,
                                             .timeout_ms = timeout_ms,
                                             .body_max = DK_ANSWER_MAX,
                                             .on_data = j->data ? on_data : NULL,
                                             .on_done = on_done,
                                             .ctx = j};
        rc = dv_httpc_send(d->http, &req, &j->call, &j->late_err);
    }
    if (rc == DV_OK)
        return;
    (void)dv_err_set(&j->late_err, rc, "%s: %s", j->what, dv_err_text(rc));
    dv_loop_defer(d->loop, &j->late);
}

void dk_cancel(struct dk_job *j)
{
    if (j->is_cancelled)
        return;
    dv_httpc_cancel(j->call);
    j->call = NULL;
    j->is_cancelled = true;
    dv_list_remove(&j->node);
    if (!j->in_data)
        job_free(j);
}

static void plain_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct dk_plain *p = DV_CONTAINER_OF(j, struct dk_plain, job);
    (void)body;
    if (code > 0 && (p->ok_codes & 1u << code))
        code = DV_OK;
    p->done(j->ctx, code, code ? err : NULL);
}

struct dk_plain *dk_plain_new(struct docker *d, dv_engine_done *done, void *ctx, unsigned ok_codes)
{
    struct dk_plain *p = dk_job_new(d, sizeof(*p), ctx, plain_answer);
    if (p) {
        p->done = done;
        p->ok_codes = ok_codes;
    } else {
        done(ctx, DV_E_NOMEM, dk_no_memory());
    }
    return p;
}

/* ---- connecting ---- */

struct connect_job {
    struct dk_job job;
    enum { ASK_PING, ASK_VERSION, ASK_INFO } step;
    struct dv_engine_info info;
    void (*done)(void *ctx, int code, const struct dv_engine_info *info, const struct dv_err *err);
};

/* "1.41" -> 41; -1 when it is no version 1. */
static int api_minor(struct dv_sv text)
{
    struct dv_sv major, minor;
    uint64_t n;
    if (!dv_sv_cut(text, '.', &major, &minor) || !dv_sv_eq(major, DV_SV("1")) || !dv_parse_u64(minor, &n) ||
        n > 9999)
        return -1;
    return (int)n;
}

static int agree(struct docker *d, struct connect_job *c, const struct cJSON *v, struct dv_err *err)
{
    int highest = api_minor(dv_sv_c(dk_str(v, "ApiVersion"))),
        lowest = api_minor(dv_sv_c(dk_str(v, "MinAPIVersion")));
    const char *version = dk_str(v, "Version");
    if (highest < API_MIN)
        return dv_err_set(err, DV_E_ENGINE,
                          "container engine %s speaks API %s; Davit needs 1.%d (Docker 20.10) or later",
                          version, dk_str(v, "ApiVersion"), API_MIN);
    if (lowest > API_MAX)
        return dv_err_set(err, DV_E_ENGINE,
                          "container engine %s wants API 1.%d or later; this agent knows 1.%d to 1.%d",
                          version, lowest, API_MIN, API_MAX);
    int chosen = highest < API_MAX ? highest : API_MAX;
    (void)snprintf(d->prefix, sizeof(d->prefix), "/v1.%d", chosen);
    (void)snprintf(c->info.api, sizeof(c->info.api), "1.%d", chosen);
    (void)dv_copy(c->info.version, sizeof(c->info.version), version);
    (void)dv_copy(c->info.arch, sizeof(c->info.arch), dk_str(v, "Arch"));
    (void)dv_copy(c->info.os, sizeof(c->info.os), dk_str(v, "Os"));
    return DV_OK;
}

static void read_info(struct dv_engine_info *info, const struct cJSON *v)
{
    const char *cgroup = dk_str(v, "CgroupVersion");
    (void)snprintf(info->cgroup, sizeof(info->cgroup), "v%s", strcmp(cgroup, "2") == 0 ? "2" : "1");
    info->cpus = dk_i64(v, "NCPU");
    info->memory_bytes = dk_i64(v, "MemTotal");
    info->has_memory_limit = dk_bool(v, "MemoryLimit");
    info->has_pids_limit = dk_bool(v, "PidsLimit");
    info->has_cpu_quota = dk_bool(v, "CpuCfsQuota");
}

static void connect_step(struct docker *d, const struct connect_job *prev);

static void connect_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct connect_job *c = DV_CONTAINER_OF(j, struct connect_job, job);
    struct docker *d = j->d;
    struct cJSON *tree = NULL;
    if (code == DV_OK && c->step == ASK_PING)
        d->is_podman = dv_sv_starts(j->server, DV_SV("Libpod"));
    else if (code == DV_OK)
        code = dk_parse(body, &tree, err);
    if (code == DV_OK && c->step == ASK_VERSION)
        code = agree(d, c, tree, err);
    if (code == DV_OK && c->step == ASK_INFO)
        read_info(&c->info, tree);
    cJSON_Delete(tree);
    /* Whatever answered so is not an engine: no outcome of the table but a failure. */
    if (code > 0)
        code = dv_err_set(err, DV_E_ENGINE, "%s does not answer as a container engine does",
                          d->socket ? d->socket : d->origin);
    if (code == DV_OK && c->step != ASK_INFO) {
        connect_step(d, c);
        return;
    }
    (void)dv_copy(c->info.name, sizeof(c->info.name), d->is_podman ? "podman" : "docker");
    c->done(j->ctx, code, code ? NULL : &c->info, code ? err : NULL);
}

static void connect_step(struct docker *d, const struct connect_job *prev)
{
    static const char *const paths[] = {"/_ping", "/version", "/info"};
    struct connect_job *c = dk_job_new(d, sizeof(*c), prev->job.ctx, connect_answer);
    if (!c) {
        prev->done(prev->job.ctx, DV_E_NOMEM, NULL, dk_no_memory());
        return;
    }
    c->done = prev->done;
    c->info = prev->info;
    c->step = prev->job.d ? (__typeof__(c->step))(prev->step + 1) : ASK_PING;
    (void)dv_copy(c->job.what, sizeof(c->job.what), "asking the container engine who it is");
    if (c->step != ASK_INFO)
        d->prefix[0] = '\0';
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, paths[c->step]);
    dk_send(&c->job, "GET", &path, dv_sv(NULL, 0), NULL, 20000);
}

static void dk_connect(struct dv_engine *e,
                       void (*done)(void *ctx, int code, const struct dv_engine_info *info,
                                    const struct dv_err *err),
                       void *ctx)
{
    const struct connect_job first = {.job.ctx = ctx, .done = done};
    connect_step(DV_CONTAINER_OF(e, struct docker, base), &first);
}

/* ---- network ---- */

struct network_job {
    struct dk_job job;
    dv_engine_done *done;
    char name[64];
};

static void make_network(struct docker *d, const struct network_job *n)
{
    struct dk_plain *p = dk_plain_new(d, n->done, n->job.ctx, 1u << DV_CONFLICT);
    if (!p)
        return;
    (void)snprintf(p->job.what, sizeof(p->job.what), "creating network %s", n->name);
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, "/networks/create");
    (void)dv_buf_add_c(&body, "{\"Name\":");
    (void)dv_buf_add_json(&body, dv_sv_c(n->name));
    (void)dv_buf_add_c(
        &body, ",\"Driver\":\"bridge\",\"CheckDuplicate\":true,\"Labels\":{\"dev.davit.network\":\"1\"}");
    if (!d->is_podman) /* which refuses options it does not know */
        (void)dv_buf_add_c(&body, ",\"Options\":{\"com.docker.network.bridge.enable_icc\":\"false\"}");
    (void)dv_buf_add_c(&body, "}");
    path.failed |= body.failed;
    dk_send(&p->job, "POST", &path, dv_buf_sv(&body), NULL, DK_CALL_TIMEOUT_MS);
}

static void ensure(struct docker *d, const char *name, dv_engine_done *done, void *ctx);

static bool keeps_containers_apart(struct dv_sv network)
{
    struct cJSON *tree = NULL;
    if (dv_json_parse(network, DK_ANSWER_MAX, &tree, NULL))
        return false;
    const char *icc = dk_str(dk_get(tree, "Options"), "com.docker.network.bridge.enable_icc");
    bool is_apart = strcmp(icc, "false") == 0;
    cJSON_Delete(tree);
    return is_apart;
}

/* What the engine said of its default bridge; any failure shows again with a network of our own. */
static void default_bridge_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct network_job *n = DV_CONTAINER_OF(j, struct network_job, job);
    (void)err;
    if (code == DV_OK && keeps_containers_apart(body)) {
        j->d->network = "bridge";
        n->done(j->ctx, DV_OK, NULL);
        return;
    }
    j->d->network = DV_ENGINE_NETWORK_OWN;
    ensure(j->d, DV_ENGINE_NETWORK_OWN, n->done, j->ctx);
}

static void network_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct network_job *n = DV_CONTAINER_OF(j, struct network_job, job);
    (void)body;
    if (code == DV_NOT_FOUND)
        make_network(j->d, n);
    else
        n->done(j->ctx, code, code ? err : NULL);
}

static void look_for(struct docker *d, const char *name, dv_engine_done *done, void *ctx,
                     void (*answer)(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err))
{
    struct network_job *n = dk_job_new(d, sizeof(*n), ctx, answer);
    if (!n) {
        done(ctx, DV_E_NOMEM, dk_no_memory());
        return;
    }
    n->done = done;
    (void)dv_copy(n->name, sizeof(n->name), name);
    (void)snprintf(n->job.what, sizeof(n->job.what), "looking for network %s", name);
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, "/networks/");
    dk_escape(&path, name, "");
    dk_send(&n->job, "GET", &path, dv_sv(NULL, 0), NULL, DK_CALL_TIMEOUT_MS);
}

static void ensure(struct docker *d, const char *name, dv_engine_done *done, void *ctx)
{
    look_for(d, name, done, ctx, network_answer);
}

static void network_ensure(struct dv_engine *e, const char *name, dv_engine_done *done, void *ctx)
{
    struct docker *d = DV_CONTAINER_OF(e, struct docker, base);
    if (strcmp(name, DV_ENGINE_NETWORK_AUTO) == 0)
        look_for(d, "bridge", done, ctx, default_bridge_answer);
    else
        ensure(d, name, done, ctx);
}

/* ---- opening and closing ---- */

static void dk_stats(const struct dv_engine *e, uint64_t *calls, uint64_t *errors)
{
    const struct docker *d = (const struct docker *)e;
    *calls = d->calls;
    *errors = d->errors;
}

static void docker_free(struct docker *d)
{
    dv_httpc_free(d->http);
    dv_free(d->socket);
    dv_free(d->origin);
    dv_free(d);
}

static void dk_close(struct dv_engine *e)
{
    struct docker *d = DV_CONTAINER_OF(e, struct docker, base);
    dv_loop_assert_here(d->loop);
    assert(!d->in_data);
    DV_LIST_FOR_EACH_SAFE (it, &d->jobs)
        dk_cancel(DV_LIST_ENTRY(it, struct dk_job, node));
    docker_free(d);
}

static const struct dv_engine_ops docker_ops = {
    .connect = dk_connect,
    .image_inspect = dk_image_inspect,
    .image_pull = dk_image_pull,
    .image_import = dk_image_import,
    .image_list = dk_image_list,
    .create = dk_create,
    .start = dk_start,
    .stop = dk_stop,
    .kill = dk_kill,
    .remove = dk_remove,
    .update = dk_update,
    .inspect = dk_inspect,
    .list = dk_list,
    .logs = dk_logs,
    .logs_cancel = dk_logs_cancel,
    .events = dk_events,
    .network_ensure = network_ensure,
    .stats = dk_stats,
    .close = dk_close,
};

static int read_endpoint(struct docker *d, const char *endpoint, struct dv_err *err)
{
    struct dv_sv text = dv_sv_c(endpoint), unix_scheme = DV_SV("unix://"), tcp_scheme = DV_SV("tcp://");
    struct dv_hostport hp;
    if (dv_sv_starts(text, unix_scheme) && text.n > unix_scheme.n && endpoint[unix_scheme.n] == '/') {
        d->socket = dv_strdup(endpoint + unix_scheme.n);
        d->origin = dv_strdup("http://docker");
        struct sockaddr_un sun;
        if (text.n - unix_scheme.n >= sizeof(sun.sun_path))
            return dv_err_set(err, DV_INVALID, "socket path longer than %zu bytes: %s",
                              sizeof(sun.sun_path) - 1, endpoint);
        return d->socket && d->origin ? DV_OK : dv_err_set(err, DV_E_NOMEM, "container engine");
    }
    if (dv_sv_starts(text, tcp_scheme)) {
        int rc = dv_hostport_parse(endpoint + tcp_scheme.n, 2375, &hp, err);
        if (rc)
            return rc;
        bool v6 = strchr(hp.host, ':') != NULL;
        d->origin = dv_asprintf("http://%s%s%s:%u", v6 ? "[" : "", hp.host, v6 ? "]" : "", hp.port);
        return d->origin ? DV_OK : dv_err_set(err, DV_E_NOMEM, "container engine");
    }
    return dv_err_set(
        err, DV_INVALID,
        "\"%s\" is no container engine's address: write unix:///var/run/docker.sock or tcp://HOST:PORT",
        endpoint);
}

int dv_engine_docker_open(struct dv_loop *loop, const char *endpoint, struct dv_engine **out,
                          struct dv_err *err)
{
    struct docker *d = dv_zalloc(sizeof(*d));
    if (!d)
        return dv_err_set(err, DV_E_NOMEM, "container engine");
    d->base.ops = &docker_ops;
    d->loop = loop;
    d->network = DV_ENGINE_NETWORK_OWN;
    dv_list_init(&d->jobs);
    int rc = read_endpoint(d, endpoint, err);
    if (rc == DV_OK)
        rc = dv_httpc_new(loop, &d->http, err);
    if (rc) {
        docker_free(d);
        return rc;
    }
    *out = &d->base;
    return DV_OK;
}
