/* YAML -> JSON tree, by libyaml's documents.  Aliases are followed, "<<" merges, both under a bound on the
 * nodes made, so that a small file cannot unfold into a huge one. */
#include <cjson/cJSON.h>
#include <yaml.h>

#include "deploy/cli/cli.h"

enum { MAX_NODES = 100000, MAX_DEPTH = 32 };

struct reader {
    yaml_document_t *doc;
    int n_nodes;
    struct dv_err *err;
};

static int complain(struct reader *r, const yaml_node_t *at, const char *what)
{
    return dv_err_set(r->err, DV_INVALID, "line %zu: %s", at->start_mark.line + 1, what);
}

/* Keys whose values are texts for whoever reads the API, whatever they look like: `env: {PORT: 8080}`. */
static bool holds_texts(const char *key)
{
    static const char *const keys[] = {"env",        "labels",  "annotations", "command",
                                       "entrypoint", "secrets", "constraints"};
    for (size_t i = 0; i < DV_COUNT(keys); i++)
        if (strcmp(keys[i], key) == 0)
            return true;
    return false;
}

static cJSON *plain_scalar(const char *s)
{
    double d;
    if (!*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0 || strcmp(s, "Null") == 0 ||
        strcmp(s, "NULL") == 0)
        return cJSON_CreateNull();
    if (strcmp(s, "true") == 0 || strcmp(s, "True") == 0 || strcmp(s, "TRUE") == 0)
        return cJSON_CreateTrue();
    if (strcmp(s, "false") == 0 || strcmp(s, "False") == 0 || strcmp(s, "FALSE") == 0)
        return cJSON_CreateFalse();
    if (dv_parse_double(dv_sv_c(s), &d))
        return cJSON_CreateNumber(d);
    return cJSON_CreateString(s);
}

static int read_scalar(struct reader *r, const yaml_node_t *n, bool as_text, cJSON **out)
{
    const char *s = (const char *)n->data.scalar.value;
    if (strlen(s) != n->data.scalar.length)
        return complain(r, n, "a text with a NUL in it");
    bool is_plain = n->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    bool is_null = is_plain && (!*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0);
    if (is_null)
        *out = cJSON_CreateNull();
    else
        *out = is_plain && !as_text ? plain_scalar(s) : cJSON_CreateString(s);
    return *out ? DV_OK : DV_E_NOMEM;
}

static int read_node(struct reader *r, const yaml_node_t *n, bool as_text, int depth, cJSON **out);

static int read_sequence(struct reader *r, const yaml_node_t *n, bool as_text, int depth, cJSON *list)
{
    for (yaml_node_item_t *i = n->data.sequence.items.start; i < n->data.sequence.items.top; i++) {
        cJSON *item = NULL;
        int code = read_node(r, yaml_document_get_node(r->doc, *i), as_text, depth + 1, &item);
        if (code)
            return code;
        if (!cJSON_AddItemToArray(list, item)) {
            cJSON_Delete(item);
            return DV_E_NOMEM;
        }
    }
    return DV_OK;
}

/* `<<: *base`: members that the mapping does not have itself. */
static int merge(struct reader *r, const yaml_node_t *at, cJSON *map, cJSON *base)
{
    int code = cJSON_IsObject(base) ? DV_OK : complain(r, at, "\"<<\" wants a mapping");
    while (code == DV_OK && base->child) {
        cJSON *item = cJSON_DetachItemViaPointer(base, base->child);
        if (cJSON_GetObjectItemCaseSensitive(map, item->string))
            cJSON_Delete(item);
        else if (!cJSON_AddItemToObject(map, item->string, item))
            code = DV_E_NOMEM;
    }
    cJSON_Delete(base);
    return code;
}

static int read_pair(struct reader *r, const yaml_node_pair_t *pair, bool as_text, int depth, bool merging,
                     cJSON *map)
{
    const yaml_node_t *key = yaml_document_get_node(r->doc, pair->key);
    const yaml_node_t *value = yaml_document_get_node(r->doc, pair->value);
    if (key->type != YAML_SCALAR_NODE)
        return complain(r, key, "a key must be a text");
    const char *name = (const char *)key->data.scalar.value;
    bool is_merge = strcmp(name, "<<") == 0 && key->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (is_merge != merging)
        return DV_OK;
    if (!is_merge && cJSON_GetObjectItemCaseSensitive(map, name))
        return complain(r, key, "this key stands there twice");
    cJSON *item = NULL;
    int code = read_node(r, value, as_text || holds_texts(name), depth + 1, &item);
    if (code)
        return code;
    if (is_merge)
        return merge(r, key, map, item);
    if (!cJSON_AddItemToObject(map, name, item)) {
        cJSON_Delete(item);
        return DV_E_NOMEM;
    }
    return DV_OK;
}

static int read_mapping(struct reader *r, const yaml_node_t *n, bool as_text, int depth, cJSON *map)
{
    for (int merging = 0; merging < 2; merging++)
        for (yaml_node_pair_t *p = n->data.mapping.pairs.start; p < n->data.mapping.pairs.top; p++) {
            int code = read_pair(r, p, as_text, depth, merging != 0, map);
            if (code)
                return code;
        }
    return DV_OK;
}

static int read_node(struct reader *r, const yaml_node_t *n, bool as_text, int depth, cJSON **out)
{
    if (++r->n_nodes > MAX_NODES || depth > MAX_DEPTH)
        return complain(r, n, "too much in one file");
    if (n->type == YAML_SCALAR_NODE)
        return read_scalar(r, n, as_text, out);
    cJSON *v = n->type == YAML_SEQUENCE_NODE ? cJSON_CreateArray() : cJSON_CreateObject();
    if (!v)
        return DV_E_NOMEM;
    int code = n->type == YAML_SEQUENCE_NODE ? read_sequence(r, n, as_text, depth, v)
                                             : read_mapping(r, n, as_text, depth, v);
    if (code)
        cJSON_Delete(v);
    else
        *out = v;
    return code;
}

int cli_yaml_parse(const char *text, size_t n, bool as_text, struct cJSON **out, struct dv_err *err)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    if (!yaml_parser_initialize(&parser))
        return DV_E_NOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    int code = DV_OK;
    if (!yaml_parser_load(&parser, &doc)) {
        code = dv_err_set(err, DV_INVALID, "line %zu: %s", parser.problem_mark.line + 1,
                          parser.problem ? parser.problem : "not YAML");
        yaml_parser_delete(&parser);
        return code;
    }
    struct reader r = {.doc = &doc, .err = err};
    const yaml_node_t *root = yaml_document_get_root_node(&doc);
    code = root ? read_node(&r, root, as_text, 0, out) : dv_err_set(err, DV_INVALID, "the file is empty");
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    return code;
}
