/* Images: what is there, what is in one, and fetching one. */
#include "agent/engine/docker_internal.h"

#include <cjson/cJSON.h>

#include "agent/engine/lines.h"
#include "agent/engine/pull.h"
#include "proto/base/alloc.h"

/* ---- inspect ---- */

struct inspect_job {
    struct dk_job job;
    void (*done)(void *ctx, int code, const struct dv_engine_image *img, const struct dv_err *err);
};

static int64_t lowest_port(const struct cJSON *exposed)
{
    const struct cJSON *item;
    int64_t lowest = 0;
    cJSON_ArrayForEach (item, exposed) /* "8080/tcp": {} */
    {
        struct dv_sv port, proto;
        uint64_t n;
        (void)dv_sv_cut(dv_sv_c(item->string), '/', &port, &proto);
        if ((!proto.n || dv_sv_eq(proto, DV_SV("tcp"))) && dv_parse_u64(port, &n) && n > 0 && n < 65536 &&
            (!lowest || (int64_t)n < lowest))
            lowest = (int64_t)n;
    }
    return lowest;
}

static int read_image(const struct cJSON *v, struct dv_arena *a, void *out)
{
    struct dv_engine_image *img = out;
    const struct cJSON *config = dk_get(v, "Config");
    (void)dv_copy(img->id, sizeof(img->id), dk_str(v, "Id"));
    (void)dv_copy(img->arch, sizeof(img->arch), dk_str(v, "Architecture"));
    (void)dv_copy(img->os, sizeof(img->os), dk_str(v, "Os"));
    (void)dv_copy(img->user, sizeof(img->user), dk_str(config, "User"));
    (void)dv_copy(img->workdir, sizeof(img->workdir), dk_str(config, "WorkingDir"));
    img->size_bytes = dk_i64(v, "Size");
    img->exposed_port = lowest_port(dk_get(config, "ExposedPorts"));
    int rc = dk_strs(dk_get(config, "Entrypoint"), a, &img->entrypoint);
    if (rc == DV_OK)
        rc = dk_strs(dk_get(config, "Cmd"), a, &img->command);
    return rc ? rc : dk_env(dk_get(config, "Env"), a, &img->env);
}

static void inspect_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct inspect_job *q = DV_CONTAINER_OF(j, struct inspect_job, job);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_engine_image img = {0};
    code = dk_inspect_read(j, code, body, read_image, &arena, &img, err);
    q->done(j->ctx, code, code ? NULL : &img, code ? err : NULL);
}

void dk_image_inspect(struct dv_engine *e, const char *image,
                      void (*done)(void *, int, const struct dv_engine_image *, const struct dv_err *),
                      void *ctx)
{
    struct inspect_job *q =
        dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*q), ctx, inspect_answer);
    if (!q) {
        done(ctx, DV_E_NOMEM, NULL, dk_no_memory());
        return;
    }
    q->done = done;
    (void)snprintf(q->job.what, sizeof(q->job.what), "looking for image %s", image);
    dk_inspect_send(&q->job, "/images/", image, "/:@");
}

/* ---- pull ---- */

struct pull_job {
    struct dk_job job;
    struct dv_lines lines;
    struct dv_pull_state state;
    void (*progress)(void *ctx, int percent, const char *status);
    dv_engine_done *done;
};

static int pull_line(void *ctx, struct dv_sv line)
{
    struct pull_job *p = ctx;
    bool is_news = dv_pull_line(&p->state, line);
    if (is_news && p->progress)
        p->progress(p->job.ctx, p->state.percent, p->state.status);
    return p->job.is_cancelled; /* the user may have closed the engine */
}

static int pull_data(struct dk_job *j, struct dv_sv bytes)
{
    struct pull_job *p = DV_CONTAINER_OF(j, struct pull_job, job);
    return dv_lines_feed(&p->lines, bytes, pull_line, p);
}

static void pull_discard(struct dk_job *j)
{
    dv_lines_deinit(&DV_CONTAINER_OF(j, struct pull_job, job)->lines);
}

/* The engine answers 200 and then tells of failure inside the stream, or refuses at once by status: both say
 * the same in words, and the words decide. */
static int pull_outcome(const struct pull_job *p, int code, struct dv_err *err)
{
    if (code == DV_OK && !p->state.error[0])
        return DV_OK;
    if (code == DV_OK)
        return dv_err_set(err, dv_pull_classify(p->state.error), "%s: %s", p->job.what, p->state.error);
    size_t n = strlen(p->job.what); /* begins every message, and names the image: not the engine's words */
    int meant = dv_pull_classify(strncmp(err->msg, p->job.what, n) == 0 ? err->msg + n : err->msg);
    if (meant > 0)
        code = meant;
    else if (code > 0 && code != DV_NOT_FOUND)
        code = DV_E_ENGINE;
    err->code = code;
    return code;
}

static void pull_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct pull_job *p = DV_CONTAINER_OF(j, struct pull_job, job);
    (void)body;
    if (code == DV_OK)
        (void)dv_lines_end(&p->lines, pull_line, p);
    code = pull_outcome(p, code, err);
    p->done(j->ctx, code, code ? err : NULL);
}

/* Registry credentials travel as base64url of a JSON object. */
static char *auth_header(const struct dv_registry_auth *auth)
{
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    (void)dv_buf_add_c(&json, "{\"username\":");
    (void)dv_buf_add_json(&json, dv_sv_c(auth->username));
    (void)dv_buf_add_c(&json, ",\"password\":");
    (void)dv_buf_add_json(&json, dv_sv_c(auth->password ? auth->password : ""));
    (void)dv_buf_add_c(&json, ",\"serveraddress\":");
    (void)dv_buf_add_json(&json, dv_sv_c(auth->server ? auth->server : ""));
    (void)dv_buf_add_char(&json, '}');
    static const char name[] = "X-Registry-Auth: ";
    size_t n_name = sizeof(name) - 1;
    char *out = json.failed ? NULL : dv_alloc(n_name + dv_base64_len(dv_buf_len(&json)) + 1);
    if (!out)
        return NULL;
    memcpy(out, name, n_name);
    dv_base64(dv_buf_ptr(&json), dv_buf_len(&json), out + n_name);
    for (char *c = out + n_name; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    explicit_bzero(dv_buf_ptr(&json), dv_buf_len(&json));
    return out;
}

/* "repo:tag" -> what + escaped repository + between + escaped tag */
static void split_path(struct dv_buf *path, const char *image, const char *what, const char *between)
{
    DV_AUTO_STR char *name = dv_strdup(image);
    const char *tag;
    if (!name) {
        path->failed = DV_E_NOMEM;
        return;
    }
    tag = dv_pull_split(name);
    (void)dv_buf_add_c(path, what);
    dk_escape(path, name, "/:");
    (void)dv_buf_add_c(path, between);
    dk_escape(path, tag, ":");
}

static struct pull_job *pull_new(struct dv_engine *e, const char *verb, const char *image,
                                 void (*progress)(void *, int, const char *), dv_engine_done *done, void *ctx)
{
    struct pull_job *p = dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*p), ctx, pull_answer);
    if (!p) {
        done(ctx, DV_E_NOMEM, dk_no_memory());
        return NULL;
    }
    p->progress = progress;
    p->done = done;
    p->job.data = pull_data;
    p->job.discard = pull_discard;
    dv_lines_init(&p->lines, 64 * 1024);
    dv_pull_init(&p->state);
    (void)snprintf(p->job.what, sizeof(p->job.what), "%s %s", verb, image);
    return p;
}

void dk_image_pull(struct dv_engine *e, const char *image, const struct dv_registry_auth *auth,
                   void (*progress)(void *, int, const char *), dv_engine_done *done, void *ctx)
{
    struct pull_job *p = pull_new(e, "pulling", image, progress, done, ctx);
    if (!p)
        return;
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    split_path(&path, image, "/images/create?fromImage=", "&tag=");
    DV_AUTO_STR char *header = auth && auth->username ? auth_header(auth) : NULL;
    if (auth && auth->username && !header)
        path.failed = DV_E_NOMEM;
    const char *const headers[] = {header, NULL};
    dk_send(&p->job, "POST", &path, dv_sv(NULL, 0), headers, DK_PULL_TIMEOUT_MS);
    if (header)
        explicit_bzero(header, strlen(header));
}

/* The answer is a pull's: lines that may tell of a failure after a good status. */
void dk_image_import(struct dv_engine *e, const char *image, struct dv_sv tar, dv_engine_done *done,
                     void *ctx)
{
    static const char *const headers[] = {"Content-Type: application/x-tar", NULL};
    struct pull_job *p = pull_new(e, "importing", image, NULL, done, ctx);
    if (!p)
        return;
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    split_path(&path, image, "/images/create?fromSrc=-&repo=", "&tag=");
    dk_send(&p->job, "POST", &path, tar, headers, DK_CALL_TIMEOUT_MS);
}

/* ---- list ---- */

struct list_job {
    struct dk_job job;
    void (*done)(void *ctx, int code, const struct dv_image_ref *images, size_t n, const struct dv_err *err);
};

/* Names of one image: its tags, and its digests as "repo@sha256:...". */
static size_t add_names(const struct cJSON *names, const char *id, struct dv_arena *a,
                        struct dv_image_ref *out)
{
    const struct cJSON *name;
    size_t n = 0;
    cJSON_ArrayForEach (name, names) {
        if (!cJSON_IsString(name) || strncmp(name->valuestring, "<none>", 6) == 0)
            continue;
        out[n] = (struct dv_image_ref){dv_arena_strdup(a, name->valuestring), dv_arena_strdup(a, id)};
        n += out[n].name && out[n].id;
    }
    return n;
}

static void list_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct list_job *q = DV_CONTAINER_OF(j, struct list_job, job);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct cJSON *tree = NULL;
    const struct cJSON *image;
    size_t n = 0, room = 1;
    if (code == DV_OK)
        code = dk_parse(body, &tree, err);
    cJSON_ArrayForEach (image, tree)
        room += (size_t)cJSON_GetArraySize(dk_get(image, "RepoTags")) +
                (size_t)cJSON_GetArraySize(dk_get(image, "RepoDigests"));
    struct dv_image_ref *refs = dv_arena_alloc(&arena, room * sizeof(*refs));
    if (!refs && code == DV_OK)
        code = dv_err_set(err, DV_E_NOMEM, "listing images");
    if (code == DV_OK)
        cJSON_ArrayForEach (image, tree) {
            n += add_names(dk_get(image, "RepoTags"), dk_str(image, "Id"), &arena, refs + n);
            n += add_names(dk_get(image, "RepoDigests"), dk_str(image, "Id"), &arena, refs + n);
        }
    cJSON_Delete(tree);
    q->done(j->ctx, code, code ? NULL : refs, code ? 0 : n, code ? err : NULL);
}

void dk_image_list(struct dv_engine *e,
                   void (*done)(void *, int, const struct dv_image_ref *, size_t, const struct dv_err *),
                   void *ctx)
{
    struct list_job *q = dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*q), ctx, list_answer);
    if (!q) {
        done(ctx, DV_E_NOMEM, NULL, 0, dk_no_memory());
        return;
    }
    q->done = done;
    (void)dv_copy(q->job.what, sizeof(q->job.what), "listing images");
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, "/images/json");
    dk_send(&q->job, "GET", &path, dv_sv(NULL, 0), NULL, DK_CALL_TIMEOUT_MS);
}
