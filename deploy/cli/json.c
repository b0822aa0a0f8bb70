/* Reading answers: members by path, with a fallback where one is absent. */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "deploy/cli/cli.h"

const struct cJSON *cli_json_at(const struct cJSON *root, const char *path)
{
    struct dv_sv head, rest = dv_sv_c(path);
    while (root && rest.n) {
        char name[64];
        (void)dv_sv_cut(rest, '.', &head, &rest);
        if (head.n >= sizeof(name))
            return NULL;
        memcpy(name, head.p, head.n);
        name[head.n] = 0;
        root = cJSON_GetObjectItemCaseSensitive(root, name);
    }
    return root;
}

const char *cli_json_text(const struct cJSON *root, const char *path, const char *fallback)
{
    const cJSON *v = cli_json_at(root, path);
    return cJSON_IsString(v) ? v->valuestring : fallback;
}

int64_t cli_json_int(const struct cJSON *root, const char *path, int64_t fallback)
{
    const cJSON *v = cli_json_at(root, path);
    int64_t n;
    if (cJSON_IsNumber(v))
        return (int64_t)v->valuedouble;
    if (cJSON_IsString(v) &&
        dv_parse_i64(dv_sv_c(v->valuestring), &n)) /* beyond 2^52 numbers travel as texts */
        return n;
    return fallback;
}

const struct cJSON *cli_json_items(const struct cJSON *root, const char *name)
{
    return cJSON_IsArray(root) ? root : cli_json_at(root, name);
}

void cli_json_print(const struct cJSON *root)
{
    char *s = cJSON_Print(root);
    if (!s)
        cli_out_of_memory();
    puts(s);
    cJSON_free(s);
}

char *cli_json_compact(struct cli *c, const struct cJSON *root)
{
    char *s = cJSON_PrintUnformatted(root);
    char *copy = s ? dv_arena_strdup(&c->arena, s) : NULL;
    cJSON_free(s);
    if (!copy)
        cli_out_of_memory();
    return copy;
}
