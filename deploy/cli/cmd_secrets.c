/* davit secret, davit namespace.  Values come from a file or stdin rather than from the command line, where
 * other users of the machine could read them (--from-literal is there for trying things out). */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "deploy/cli/cli.h"

static const char *secrets_path(struct cli *c, const char *name)
{
    const char *ns = c->ns ? cli_format(c, "?namespace=%s", cli_escape(c, c->ns)) : "";
    return cli_format(c, "/v1/secrets%s%s%s", name ? "/" : "", name ? cli_escape(c, name) : "", ns);
}

static int secret_body(struct cli *c, const struct cli_secret_args *a, const char *name, struct dv_sv *out)
{
    size_t n;
    const char *value = a->from_literal;
    if (value)
        n = strlen(value);
    else
        value = cli_read_file(c, a->from_file ? a->from_file : "-", &n);
    if (!value)
        return CLI_FAILURE;
    bool is_text = dv_utf8_valid(dv_sv(value, n)) && !memchr(value, 0, n);
    char *base64 = dv_arena_alloc(&c->arena, dv_base64_len(n) + 1);
    cJSON *o = cJSON_CreateObject();
    if (!base64 || !o)
        cli_out_of_memory();
    dv_base64(value, n, base64);
    (void)cJSON_AddStringToObject(o, "name", name);
    if (c->ns)
        (void)cJSON_AddStringToObject(o, "namespace", c->ns);
    (void)cJSON_AddStringToObject(o, is_text ? "value" : "value_base64", is_text ? value : base64);
    *out = dv_sv_c(cli_json_compact(c, o));
    cJSON_Delete(o);
    return CLI_OK;
}

static int put_secret(struct cli *c, const struct cli_secret_args *a, const char *name, const char *method)
{
    CLI_AUTO_REPLY reply = {0};
    struct cli_call call = {.method = method, .timeout_s = 60};
    int code = secret_body(c, a, name, &call.body);
    if (code)
        return code;
    call.path = secrets_path(c, strcmp(method, "PUT") == 0 ? name : NULL);
    code = cli_send(c, &call, &reply);
    if (code == CLI_OK && reply.status == 409 && a->replace) {
        cli_reply_free(&reply);
        call.method = "PUT";
        call.path = secrets_path(c, name);
        code = cli_send(c, &call, &reply);
    }
    if (code == CLI_OK && reply.status > 299)
        code = cli_explain(c, &reply);
    if (code == CLI_OK)
        cli_note("secret %s %s", name, strcmp(call.method, "PUT") == 0 ? "updated" : "created");
    return code;
}

int cli_cmd_secret_put(struct cli *c, void *args, const struct cli_list *words)
{
    return put_secret(c, args, words->v[0], "POST");
}

int cli_cmd_secret_update(struct cli *c, void *args, const struct cli_list *words)
{
    return put_secret(c, args, words->v[0], "PUT");
}

static void secret_row(struct cli *c, struct cli_table *t, const cJSON *s)
{
    cli_table_cell(t, cli_json_text(s, "name", "?"));
    cli_table_cell(t, cli_json_text(s, "namespace", "default"));
    cli_table_cell(t, cli_format(c, "%s ago", cli_age(c, cli_json_int(s, "updated_ms", 0))));
}

int cli_cmd_secret_list(struct cli *c, void *args, const struct cli_list *words)
{
    static const char *const columns[] = {"NAME", "NAMESPACE", "UPDATED"};
    (void)args;
    (void)words;
    return cli_show_list(c, secrets_path(c, NULL), "secrets", columns, DV_COUNT(columns), secret_row);
}

int cli_cmd_secret_remove(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    return cli_remove_each(c, words, "secret", "removed", secrets_path);
}

/* ---------------------------------------------------------------- namespaces */

static const char *namespace_path(struct cli *c, const char *name)
{
    return cli_format(c, "/v1/namespaces/%s", cli_escape(c, name));
}

int cli_cmd_ns_create(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    CLI_AUTO_REPLY reply = {0};
    cJSON *o = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(o, "name", words->v[0]))
        cli_out_of_memory();
    struct dv_sv body = dv_sv_c(cli_json_compact(c, o));
    cJSON_Delete(o);
    int code = cli_do(
        c, &(struct cli_call){.method = "POST", .path = "/v1/namespaces", .body = body, .timeout_s = 60},
        &reply);
    if (code == CLI_OK)
        cli_note("namespace %s created", words->v[0]);
    return code;
}

static void namespace_row(struct cli *c, struct cli_table *t, const cJSON *ns)
{
    cli_table_cell(t, cli_json_text(ns, "name", "?"));
    cli_table_cell(t, cli_age(c, cli_json_int(ns, "created_ms", 0)));
}

int cli_cmd_ns_list(struct cli *c, void *args, const struct cli_list *words)
{
    static const char *const columns[] = {"NAME", "AGE"};
    (void)args;
    (void)words;
    return cli_show_list(c, "/v1/namespaces", "namespaces", columns, DV_COUNT(columns), namespace_row);
}

int cli_cmd_ns_remove(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    return cli_remove_each(c, words, "namespace", "removed", namespace_path);
}
