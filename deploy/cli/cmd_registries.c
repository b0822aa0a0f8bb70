/* davit registry: passwords that nodes pull images with. */
#include <cjson/cJSON.h>

#include "deploy/cli/cli.h"

static const char *registry_path(struct cli *c, const char *server)
{
    return cli_format(c, "/v1/registries/%s", cli_escape(c, server));
}

int cli_cmd_registry_login(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_login_args *a = args;
    if (!a->user)
        return cli_fail(CLI_USAGE, "--user is missing: davit registry login %s --user NAME", words->v[0]);
    const char *password = cli_ask_password(c);
    if (!password || !*password)
        return cli_fail(CLI_USAGE, "no password given");
    cJSON *o = cJSON_CreateObject();
    if (!cJSON_AddStringToObject(o, "username", a->user) || !cJSON_AddStringToObject(o, "password", password))
        cli_out_of_memory();
    CLI_AUTO_REPLY reply = {0};
    struct cli_call call = {.method = "PUT", .path = registry_path(c, words->v[0]), .timeout_s = 60};
    call.body = dv_sv_c(cli_json_compact(c, o));
    cJSON_Delete(o);
    int code = cli_do(c, &call, &reply);
    if (code == CLI_OK)
        cli_note("images of %s are pulled as %s", words->v[0], a->user);
    return code;
}

static void registry_row(struct cli *c, struct cli_table *t, const cJSON *r)
{
    (void)c;
    cli_table_cell(t, cli_json_text(r, "server", "?"));
    cli_table_cell(t, cli_json_text(r, "username", "?"));
}

int cli_cmd_registry_list(struct cli *c, void *args, const struct cli_list *words)
{
    static const char *const columns[] = {"SERVER", "USER"};
    (void)args;
    (void)words;
    return cli_show_list(c, "/v1/registries", "registries", columns, DV_COUNT(columns), registry_row);
}

int cli_cmd_registry_remove(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    return cli_remove_each(c, words, "registry", "forgotten", registry_path);
}
