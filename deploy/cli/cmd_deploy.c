/* davit deploy, davit apply: writing functions. */
#include <cjson/cJSON.h>
#include <libgen.h>
#include <stdio.h>

#include "deploy/cli/cli.h"
#include "deploy/cli/wait.h"
#include "proto/wire/codec.h"

/* ---------------------------------------------------------------- the spec, from options */

static cJSON *object_in(cJSON *parent, const char *name)
{
    cJSON *v = cJSON_GetObjectItemCaseSensitive(parent, name);
    if (!v)
        v = cJSON_AddObjectToObject(parent, name);
    if (!v)
        cli_out_of_memory();
    return v;
}

static void put_text(cJSON *o, const char *name, const char *text)
{
    if (text && !cJSON_AddStringToObject(o, name, text))
        cli_out_of_memory();
}

static void put_int(cJSON *o, const char *name, int64_t v)
{
    if (v != CLI_UNSET && !cJSON_AddNumberToObject(o, name, (double)v))
        cli_out_of_memory();
}

static void put_quantity(cJSON *o, const char *name, int64_t v, void (*format)(int64_t v, char out[32]))
{
    char text[32];
    if (v == CLI_UNSET)
        return;
    format(v, text);
    put_text(o, name, text);
}

static void put_list(cJSON *o, const char *name, const char *const *v, size_t n)
{
    if (!n)
        return;
    cJSON *list = cJSON_AddArrayToObject(o, name);
    for (size_t i = 0; i < n; i++)
        if (!cJSON_AddItemToArray(list, cJSON_CreateString(v[i])))
            cli_out_of_memory();
}

/* "K=V" options as a map; "K" alone takes V from our own environment. */
static int put_map(struct cli *c, cJSON *o, const char *name, const struct cli_list *pairs)
{
    for (size_t i = 0; i < pairs->n; i++) {
        const char *eq = strchr(pairs->v[i], '=');
        const char *key = eq ? cli_format(c, "%.*s", (int)(eq - pairs->v[i]), pairs->v[i]) : pairs->v[i];
        const char *value = eq ? eq + 1 : getenv(key);
        if (!*key || !value)
            return cli_fail(CLI_USAGE, "%s takes KEY=VALUE, not \"%s\"", name, pairs->v[i]);
        cJSON *map = object_in(o, name);
        cJSON_DeleteItemFromObjectCaseSensitive(map, key);
        put_text(map, key, value);
    }
    return CLI_OK;
}

static void put_scale(cJSON *spec, const struct cli_deploy_args *a)
{
    cJSON *scale = object_in(spec, "scale");
    put_int(scale, "min", a->min);
    put_int(scale, "max", a->max);
    put_int(scale, "concurrency", a->concurrency);
    put_int(scale, "target", a->target);
    put_int(scale, "rps", a->rps);
    put_int(scale, "primed", a->primed);
    put_int(scale, "queue_max", a->queue);
    put_quantity(scale, "idle", a->idle, dv_format_duration);
    put_quantity(scale, "freeze", a->freeze, dv_format_duration);
    if (!scale->child)
        cJSON_DeleteItemFromObjectCaseSensitive(spec, "scale");
}

static void put_rest(cJSON *spec, const struct cli_deploy_args *a)
{
    put_text(spec, "cpu", a->cpu_always ? "always" : NULL);
    put_text(spec, "pull", a->pull);
    put_text(spec, "auth", a->auth);
    put_text(spec, "user", a->user);
    put_int(spec, "port", a->port);
    put_quantity(spec, "timeout", a->timeout, dv_format_duration);
    put_quantity(spec, "grace", a->grace, dv_format_duration);
    if (a->memory != CLI_UNSET)
        put_quantity(object_in(spec, "limits"), "memory", a->memory, dv_format_bytes);
    if (a->cpu != CLI_UNSET)
        put_quantity(object_in(spec, "limits"), "cpu", a->cpu, dv_format_mcpu);
    if (a->health)
        put_text(object_in(spec, "health"), "path", a->health);
    if (a->start_timeout != CLI_UNSET)
        put_quantity(object_in(spec, "health"), "start_timeout", a->start_timeout, dv_format_duration);
    if (a->writable && !cJSON_AddBoolToObject(spec, "read_only", false))
        cli_out_of_memory();
}

static int make_spec(struct cli *c, const struct cli_deploy_args *a, const struct cli_list *words,
                     cJSON *spec)
{
    const char *name, *ns;
    cli_fn_split(c, words->v[0], &name, &ns);
    put_text(spec, "name", name);
    put_text(spec, "namespace", ns);
    put_text(spec, "image", a->image);
    put_text(spec, "protocol", a->stdio ? "stdio" : NULL);
    put_list(spec, "entrypoint", a->entrypoint.v, a->entrypoint.n);
    put_list(spec, "command", words->v + 1, words->n - 1);
    put_list(spec, "secrets", a->secrets.v, a->secrets.n);
    put_list(spec, "constraints", a->constraints.v, a->constraints.n);
    put_scale(spec, a);
    put_rest(spec, a);
    int code = put_map(c, spec, "env", &a->env);
    if (code == CLI_OK)
        code = put_map(c, spec, "labels", &a->labels);
    if (code == CLI_OK)
        code = put_map(c, spec, "annotations", &a->annotations);
    return code;
}

/* ---------------------------------------------------------------- sending it */

static const char *with_query(struct cli *c, const char *path, const char *query)
{
    return cli_format(c, "%s%c%s", path, strchr(path, '?') ? '&' : '?', query);
}

/* Replace what is there, create what is not. */
static int send_spec(struct cli *c, const char *word, const cJSON *spec, bool dry_run, bool create_only,
                     struct cli_reply *out)
{
    struct dv_sv body = dv_sv_c(cli_json_compact(c, spec));
    const char *one = cli_fn_path(c, word, ""), *all = "/v1/functions";
    if (dry_run) {
        one = with_query(c, one, "dry_run=true");
        all = with_query(c, all, "dry_run=true");
    }
    if (!create_only) {
        int code =
            cli_send(c, &(struct cli_call){.method = "PUT", .path = one, .body = body, .timeout_s = 60}, out);
        if (code || out->status != 404)
            return code ? code : out->status < 300 ? CLI_OK : cli_explain(c, out);
        cli_reply_free(out);
    }
    return cli_do(c, &(struct cli_call){.method = "POST", .path = all, .body = body, .timeout_s = 60}, out);
}

static const char *function_url(struct cli *c, const char *word)
{
    const char *name, *ns;
    cli_fn_split(c, word, &name, &ns);
    bool is_default = !ns || strcmp(ns, "default") == 0;
    return cli_format(c, "%s/function/%s%s%s", c->gateway, name, is_default ? "" : ".", is_default ? "" : ns);
}

int cli_cmd_deploy(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_deploy_args *a = args;
    if (!a->image)
        return cli_fail(CLI_USAGE, "--image is missing: davit deploy %s --image REPOSITORY:TAG", words->v[0]);
    if (a->stdio && words->n < 2)
        return cli_fail(
            CLI_USAGE,
            "--stdio needs the program to run: davit deploy %s --image %s --stdio -- PROGRAM [ARGUMENT...]",
            words->v[0], a->image);
    cJSON *spec = cJSON_CreateObject();
    CLI_AUTO_REPLY reply = {0};
    int code = make_spec(c, a, words, spec);
    if (code == CLI_OK)
        code = send_spec(c, words->v[0], spec, a->dry_run, a->create_only, &reply);
    cJSON_Delete(spec);
    if (code)
        return code;
    if (c->format == CLI_JSON && reply.json)
        cli_json_print(reply.json);
    if (a->dry_run) {
        cli_note("%s would be accepted; nothing was changed", words->v[0]);
        return CLI_OK;
    }
    cli_note("%s %s: %s", words->v[0], reply.status == 201 ? "deployed" : "updated",
             function_url(c, words->v[0]));
    return a->wait ? cli_wait_ready(c, words->v[0]) : CLI_OK;
}

/* ---------------------------------------------------------------- apply */

static const char *environment(const char *name)
{
    return getenv(name);
}

static const char *gateway_of(const cJSON *doc)
{
    return cli_json_text(doc, "provider.gateway", NULL);
}

static int put_stack_function(struct cli *c, const cJSON *fn, const char *base_dir, bool dry_run)
{
    struct dv_err err = DV_ERR_INIT;
    cJSON *body = NULL;
    CLI_AUTO_REPLY reply = {0};
    if (cli_stack_function(c, fn, fn->string, base_dir, &body, &err) != DV_OK)
        return cli_fail(CLI_USAGE, "%s%s%s", err.msg, err.field[0] ? ": " : "", err.field);
    if (c->ns && !cJSON_GetObjectItemCaseSensitive(body, "namespace"))
        put_text(body, "namespace", c->ns);
    struct cli_call call = {.method = "PUT", .path = "/system/functions", .timeout_s = 60};
    call.body = dv_sv_c(cli_json_compact(c, body));
    if (dry_run && c->format == CLI_JSON)
        cli_json_print(body);
    cJSON_Delete(body);
    if (dry_run) {
        cli_note("%s would be sent to %s", fn->string, c->gateway);
        return CLI_OK;
    }
    int code = cli_send(c, &call, &reply);
    if (code == CLI_OK && reply.status == 404) {
        cli_reply_free(&reply);
        call.method = "POST";
        code = cli_send(c, &call, &reply);
    }
    if (code == CLI_OK && reply.status > 299)
        code = cli_explain(c, &reply);
    if (code == CLI_OK)
        cli_note("%s %s: %s", fn->string, strcmp(call.method, "PUT") ? "deployed" : "updated",
                 function_url(c, fn->string));
    return code;
}

static int apply_stack(struct cli *c, const char *path, const char *text, size_t n, bool dry_run)
{
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    cJSON *doc = NULL;
    if (cli_stack_substitute(text, n, environment, &b, &err) != DV_OK ||
        cli_yaml_parse(dv_buf_ptr(&b), dv_buf_len(&b), true, &doc, &err) != DV_OK)
        return cli_fail(CLI_USAGE, "%s: %s", path, err.msg);
    const char *gateway = gateway_of(doc), *base_dir = dirname(cli_format(c, "%s", path));
    if (gateway && strcmp(gateway, c->gateway) != 0)
        cli_note("note: %s names %s; %s is used (--gateway changes it)", path, gateway, c->gateway);
    int code = CLI_OK;
    const cJSON *fn;
    cJSON_ArrayForEach (fn, cJSON_GetObjectItemCaseSensitive(doc, "functions")) {
        int one = put_stack_function(c, fn, base_dir, dry_run);
        code = code ? code : one; /* the rest is still sent; the first trouble decides */
    }
    cJSON_Delete(doc);
    return code;
}

static int apply_native(struct cli *c, const cJSON *doc, bool dry_run)
{
    CLI_AUTO_REPLY reply = {0};
    struct cli_call call = {
        .method = "POST", .path = dry_run ? "/v1/apply?dry_run=true" : "/v1/apply", .timeout_s = 60};
    call.body = dv_sv_c(cli_json_compact(c, doc));
    int code = cli_do(c, &call, &reply);
    if (code)
        return code;
    if (c->format == CLI_JSON && reply.json)
        cli_json_print(reply.json);
    const cJSON *fn;
    cJSON_ArrayForEach (fn, cJSON_GetObjectItemCaseSensitive(doc, "functions")) {
        const char *ns = cli_json_text(fn, "namespace", NULL);
        const char *name = cli_json_text(fn, "name", "?");
        cli_note("%s %s: %s", name, dry_run ? "would be applied" : "applied",
                 function_url(c, ns ? cli_format(c, "%s.%s", name, ns) : name));
    }
    return CLI_OK;
}

/* --namespace is for the functions that name none. */
static void default_namespace(struct cli *c, cJSON *functions)
{
    cJSON *fn;
    cJSON_ArrayForEach (fn, functions)
        if (c->ns && cJSON_IsObject(fn) && !cJSON_GetObjectItemCaseSensitive(fn, "namespace"))
            put_text(fn, "namespace", c->ns);
}

static int apply_file(struct cli *c, const char *path, bool dry_run)
{
    struct dv_err err = DV_ERR_INIT;
    size_t n;
    cJSON *doc = NULL;
    const char *text = cli_read_file(c, path, &n);
    if (!text)
        return CLI_FAILURE;
    if (cli_yaml_parse(text, n, false, &doc, &err) != DV_OK)
        return cli_fail(CLI_USAGE, "%s: %s", path, err.msg);
    int code;
    cJSON *functions = cJSON_GetObjectItemCaseSensitive(doc, "functions");
    if (cli_stack_is(doc)) {
        code = apply_stack(c, path, text, n, dry_run);
    } else if (cJSON_IsArray(functions)) {
        default_namespace(c, functions);
        code = apply_native(c, doc, dry_run);
    } else {
        code = cli_fail(CLI_USAGE,
                        "%s: `functions` is missing: a list (davit.yaml) or a map (stack.yml) of functions",
                        path);
    }
    cJSON_Delete(doc);
    return code;
}

int cli_cmd_apply(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_apply_args *a = args;
    (void)words; /* none are taken */
    if (!a->files.n)
        return cli_fail(CLI_USAGE, "name a file: davit apply -f davit.yaml (or stack.yml, or - for stdin)");
    for (size_t i = 0; i < a->files.n; i++) {
        int code = apply_file(c, a->files.v[i], a->dry_run);
        if (code)
            return code;
    }
    return CLI_OK;
}
