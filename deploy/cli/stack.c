/* stack.yml as faas-cli writes it: each function becomes the body of PUT /system/functions, so that what it
 * means is decided in one place, the server's OpenFaaS face.  All scalars are read as texts, as that API
 * wants them. */
#include <cjson/cJSON.h>
#include <ctype.h>

#include "deploy/cli/cli.h"

bool cli_stack_is(const struct cJSON *doc)
{
    return cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(doc, "functions"));
}

/* ---------------------------------------------------------------- ${NAME} */

static size_t name_length(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && (isalnum((unsigned char)p[i]) || p[i] == '_'))
        i++;
    return i;
}

/* p[0..n) is what stands between the braces: NAME, NAME:-default, NAME-default, NAME:=default. */
static int substitute_one(const char *p, size_t n, const char *(*get)(const char *), struct dv_buf *out,
                          struct dv_err *err)
{
    char name[128];
    size_t len = name_length(p, n);
    if (len == 0 || len >= sizeof(name))
        return dv_err_set(err, DV_INVALID, "\"${%.*s}\" names no variable", (int)n, p);
    memcpy(name, p, len);
    name[len] = 0;
    const char *value = get(name);
    size_t skip = len < n && p[len] == ':' ? len + 1 : len;
    if (len < n && !(skip < n && (p[skip] == '-' || p[skip] == '=')))
        return dv_err_set(err, DV_INVALID, "\"${%.*s}\" is not understood; ${NAME} and ${NAME:-default} are",
                          (int)n, p);
    bool use_default = len < n && (!value || (skip > len && !*value));
    if (use_default)
        return dv_buf_add(out, p + skip + 1, n - skip - 1);
    return dv_buf_add_c(out, value ? value : "");
}

int cli_stack_substitute(const char *text, size_t n, const char *(*get)(const char *name), struct dv_buf *out,
                         struct dv_err *err)
{
    for (size_t i = 0; i < n;) {
        int code;
        if (text[i] == '$' && i + 1 < n && text[i + 1] == '$') {
            code = dv_buf_add_char(out, '$');
            i += 2;
        } else if (text[i] == '$' && i + 1 < n && text[i + 1] == '{') {
            const char *end = memchr(text + i, '}', n - i);
            if (!end)
                return dv_err_set(err, DV_INVALID, "\"${\" without its \"}\"");
            code = substitute_one(text + i + 2, (size_t)(end - text) - i - 2, get, out, err);
            i = (size_t)(end - text) + 1;
        } else {
            code = dv_buf_add_char(out, text[i++]);
        }
        if (code)
            return code;
    }
    return DV_OK;
}

/* ---------------------------------------------------------------- one function */

enum shape { TEXT, TEXTS, MAP, BOOL, IGNORED };

static const struct member {
    const char *yaml, *api;
    enum shape shape;
} members[] = {
    {"image", "image", TEXT},
    {"fprocess", "envProcess", TEXT},
    {"namespace", "namespace", TEXT},
    {"environment", "envVars", MAP},
    {"labels", "labels", MAP},
    {"annotations", "annotations", MAP},
    {"limits", "limits", MAP},
    {"requests", "requests", MAP},
    {"secrets", "secrets", TEXTS},
    {"constraints", "constraints", TEXTS},
    {"readonly_root_filesystem", "readOnlyRootFilesystem", BOOL},
    /* Read by `faas-cli build` and `publish` only. */
    {"lang", NULL, IGNORED},
    {"handler", NULL, IGNORED},
    {"environment_file", NULL, IGNORED},
    {"skip_build", NULL, IGNORED},
    {"build_args", NULL, IGNORED},
    {"build_options", NULL, IGNORED},
    {"build_secrets", NULL, IGNORED},
    {"copy", NULL, IGNORED},
    {"platforms", NULL, IGNORED},
};

static const struct member *find_member(const char *name)
{
    for (size_t i = 0; i < DV_COUNT(members); i++)
        if (strcmp(members[i].yaml, name) == 0)
            return &members[i];
    return NULL;
}

static int check_texts(const cJSON *list, const char *field, struct dv_err *err)
{
    const cJSON *v;
    cJSON_ArrayForEach (v, list)
        if (!cJSON_IsString(v) && !cJSON_IsNull(v))
            return dv_err_field(err, DV_INVALID, field, "must hold texts only");
    return DV_OK;
}

static int convert(const cJSON *v, const struct member *m, cJSON **out, struct dv_err *err)
{
    bool fits = m->shape == TEXT    ? cJSON_IsString(v)
                : m->shape == TEXTS ? cJSON_IsArray(v)
                : m->shape == MAP   ? cJSON_IsObject(v)
                                    : cJSON_IsString(v);
    static const char *const wanted[] = {"a text", "a list of texts", "a map of texts", "true or false", ""};
    if (!fits)
        return dv_err_field(err, DV_INVALID, m->yaml, "must be %s", wanted[m->shape]);
    if (m->shape == BOOL)
        *out = cJSON_CreateBool(strcasecmp(v->valuestring, "true") == 0);
    else if (check_texts(m->shape == TEXT ? NULL : v, m->yaml, err) != DV_OK)
        return DV_INVALID;
    else
        *out = cJSON_Duplicate(v, true);
    if (!*out)
        return DV_E_NOMEM;
    /* `KEY:` without a value is the empty text. */
    if (m->shape == MAP)
        for (cJSON *i = (*out)->child, *next; i; i = next) {
            next = i->next;
            if (cJSON_IsNull(i) &&
                !cJSON_ReplaceItemInObjectCaseSensitive(*out, i->string, cJSON_CreateString("")))
                return DV_E_NOMEM;
        }
    return DV_OK;
}

/* environment_file: files that each hold an `environment` map; what stands in the stack itself wins. */
static int add_environment_files(struct cli *c, const cJSON *files, const char *base_dir, cJSON *env,
                                 struct dv_err *err)
{
    const cJSON *f;
    cJSON_ArrayForEach (f, files) {
        size_t n;
        const char *name = cJSON_IsString(f) ? f->valuestring : "";
        const char *path = name[0] == '/' ? name : cli_format(c, "%s/%s", base_dir, name);
        const char *text = cli_read_file(c, path, &n);
        cJSON *doc = NULL;
        if (!text)
            return dv_err_field(err, DV_INVALID, "environment_file", "cannot read %s", path);
        int code = cli_yaml_parse(text, n, true, &doc, err);
        if (code)
            return dv_err_wrap(err, "%s", path), code;
        cJSON *map = cJSON_GetObjectItemCaseSensitive(doc, "environment");
        for (cJSON *v = map ? map->child : NULL; v; v = v->next)
            if (cJSON_IsString(v) && !cJSON_GetObjectItemCaseSensitive(env, v->string) &&
                !cJSON_AddStringToObject(env, v->string, v->valuestring))
                cli_out_of_memory();
        cJSON_Delete(doc);
    }
    return DV_OK;
}

static int fill(struct cli *c, const cJSON *fn, const char *base_dir, cJSON *body, struct dv_err *err)
{
    const cJSON *v;
    cJSON_ArrayForEach (v, fn) {
        const struct member *m = find_member(v->string);
        cJSON *item = NULL;
        if (!m)
            return dv_err_field(err, DV_INVALID, v->string,
                                "unknown; a stack.yml function has no such field");
        if (m->shape == IGNORED || cJSON_IsNull(v))
            continue;
        int code = convert(v, m, &item, err);
        if (code == DV_OK && !cJSON_AddItemToObject(body, m->api, item))
            code = DV_E_NOMEM;
        if (code) {
            cJSON_Delete(item);
            return code;
        }
    }
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(fn, "environment_file");
    if (!files)
        return DV_OK;
    cJSON *env = cJSON_GetObjectItemCaseSensitive(body, "envVars");
    return add_environment_files(c, files, base_dir, env ? env : cJSON_AddObjectToObject(body, "envVars"),
                                 err);
}

int cli_stack_function(struct cli *c, const struct cJSON *fn, const char *name, const char *base_dir,
                       struct cJSON **out, struct dv_err *err)
{
    cJSON *body = cJSON_CreateObject();
    if (!body || !cJSON_AddStringToObject(body, "service", name))
        cli_out_of_memory();
    int code =
        cJSON_IsObject(fn) ? fill(c, fn, base_dir, body, err) : dv_err_set(err, DV_INVALID, "must be a map");
    if (code == DV_OK && !cJSON_GetObjectItemCaseSensitive(body, "image"))
        code = dv_err_field(err, DV_INVALID, "image", "is missing");
    if (code) {
        (void)dv_err_wrap(err, "function %s", name);
        cJSON_Delete(body);
        return code;
    }
    *out = body;
    return DV_OK;
}
