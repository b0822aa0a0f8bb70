/* Reading an engine's JSON: strict in form, tolerant in content, since engines of ten versions answer here.
 */
#include "agent/engine/docker_internal.h"

#include <cjson/cJSON.h>

#include "proto/wire/codec.h"

int dk_parse(struct dv_sv body, struct cJSON **out, struct dv_err *err)
{
    int rc = dv_json_parse(body, DK_ANSWER_MAX, out, err);
    if (rc > 0)
        return dv_err_set(err, DV_E_ENGINE, "the container engine's answer is not JSON");
    return rc;
}

const struct cJSON *dk_get(const struct cJSON *o, const char *key)
{
    return cJSON_IsObject(o) ? cJSON_GetObjectItemCaseSensitive(o, key) : NULL;
}

const char *dk_str(const struct cJSON *o, const char *key)
{
    const struct cJSON *v = dk_get(o, key);
    return cJSON_IsString(v) ? v->valuestring : "";
}

int64_t dk_i64(const struct cJSON *o, const char *key)
{
    const struct cJSON *v = dk_get(o, key);
    if (!cJSON_IsNumber(v) || v->valuedouble < -9e18 || v->valuedouble > 9e18)
        return 0;
    return (int64_t)v->valuedouble;
}

bool dk_bool(const struct cJSON *o, const char *key)
{
    return cJSON_IsTrue(dk_get(o, key));
}

static size_t size_of(const struct cJSON *v)
{
    return (size_t)cJSON_GetArraySize(v);
}

int dk_strs(const struct cJSON *array, struct dv_arena *a, struct dv_strs *out)
{
    const struct cJSON *item;
    struct dv_strs list = {.v = dv_arena_alloc(a, (size_of(array) + 1) * sizeof(char *))};
    if (!list.v)
        return DV_E_NOMEM;
    cJSON_ArrayForEach (item, array) {
        if (!cJSON_IsString(item))
            continue;
        list.v[list.n] = dv_arena_strdup(a, item->valuestring);
        if (!list.v[list.n++])
            return DV_E_NOMEM;
    }
    *out = list;
    return DV_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct dv_kv *)a)->k, ((const struct dv_kv *)b)->k);
}

/* Maps are sorted, keys unique; of equal ones the last wins, as it does in an environment. */
static void settle(struct dv_kvs *m)
{
    size_t n = 0;
    if (!m->n)
        return;
    for (size_t i = 1; i < m->n; i++) /* few and nearly sorted; stable, which qsort is not */
        for (size_t j = i; j > 0 && by_key(&m->v[j - 1], &m->v[j]) > 0; j--) {
            struct dv_kv t = m->v[j];
            m->v[j] = m->v[j - 1];
            m->v[j - 1] = t;
        }
    for (size_t i = 0; i < m->n; i++)
        if (i + 1 == m->n || strcmp(m->v[i].k, m->v[i + 1].k) != 0)
            m->v[n++] = m->v[i];
    m->n = n;
}

int dk_kvs(const struct cJSON *object, struct dv_arena *a, struct dv_kvs *out)
{
    const struct cJSON *item;
    struct dv_kvs m = {.v = dv_arena_alloc(a, (size_of(object) + 1) * sizeof(struct dv_kv))};
    if (!m.v)
        return DV_E_NOMEM;
    cJSON_ArrayForEach (item, object) {
        if (!item->string || !cJSON_IsString(item))
            continue;
        struct dv_kv kv = {dv_arena_strdup(a, item->string), dv_arena_strdup(a, item->valuestring)};
        if (!kv.k || !kv.v)
            return DV_E_NOMEM;
        m.v[m.n++] = kv;
    }
    settle(&m);
    *out = m;
    return DV_OK;
}

int dk_env(const struct cJSON *array, struct dv_arena *a, struct dv_kvs *out)
{
    const struct cJSON *item;
    struct dv_kvs m = {.v = dv_arena_alloc(a, (size_of(array) + 1) * sizeof(struct dv_kv))};
    if (!m.v)
        return DV_E_NOMEM;
    cJSON_ArrayForEach (item, array) {
        struct dv_sv key, value;
        if (!cJSON_IsString(item))
            continue;
        (void)dv_sv_cut(dv_sv_c(item->valuestring), '=', &key, &value);
        struct dv_kv kv = {dv_arena_strndup(a, key.p, key.n),
                           dv_arena_strndup(a, value.p ? value.p : "", value.n)};
        if (!kv.k || !kv.v)
            return DV_E_NOMEM;
        m.v[m.n++] = kv;
    }
    settle(&m);
    *out = m;
    return DV_OK;
}

void dk_escape(struct dv_buf *b, const char *s, const char *keep)
{
    static const char hex[] = "0123456789ABCDEF";
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) || strchr(keep, c);
        if (plain)
            (void)dv_buf_add_char(b, *s);
        else
            (void)dv_buf_addf(b, "%%%c%c", hex[c >> 4], hex[c & 15]);
    }
}

void dk_inspect_send(struct dk_job *j, const char *noun, const char *name, const char *keep)
{
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, noun);
    dk_escape(&path, name, keep);
    (void)dv_buf_add_c(&path, "/json");
    dk_send(j, "GET", &path, dv_sv(NULL, 0), NULL, DK_CALL_TIMEOUT_MS);
}

int dk_inspect_read(const struct dk_job *j, int code, struct dv_sv body,
                    int (*read)(const struct cJSON *v, struct dv_arena *a, void *out), struct dv_arena *arena,
                    void *out, struct dv_err *err)
{
    struct cJSON *tree = NULL;
    if (code == DV_OK)
        code = dk_parse(body, &tree, err);
    if (code == DV_OK && read(tree, arena, out))
        code = dv_err_set(err, DV_E_NOMEM, "%s", j->what);
    cJSON_Delete(tree);
    return code;
}
