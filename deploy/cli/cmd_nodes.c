/* davit nodes: who carries the replicas. */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "deploy/cli/cli.h"

static const char *gibibytes(struct cli *c, int64_t bytes)
{
    return bytes > 0 ? cli_format(c, "%.1fGi", (double)bytes / 1073741824) : "-";
}

static void row(struct cli *c, struct cli_table *t, const cJSON *n)
{
    cli_table_cell(t, cli_json_text(n, "name", "?"));
    cli_table_cell(t, cli_json_text(n, "state", "?"));
    cli_table_cell_int(t, cli_json_int(n, "replicas", 0));
    cli_table_cell(t, cli_format(c, "%s of %s", gibibytes(c, cli_json_int(n, "memory_available_bytes", 0)),
                                 gibibytes(c, cli_json_int(n, "memory_bytes", 0))));
    cli_table_cell(t, cli_format(c, "%.2f of %lld", (double)cli_json_int(n, "cpu_used_mcpu", 0) / 1000,
                                 (long long)cli_json_int(n, "cpus", 0)));
    cli_table_cell(t, cli_json_text(n, "address", ""));
    cli_table_cell(t, cli_json_text(n, "message", ""));
    if (c->format != CLI_WIDE)
        return;
    cli_table_cell(t, cli_json_text(n, "id", ""));
    cli_table_cell(t, cli_json_text(n, "engine_version", ""));
    cli_table_cell(t, cli_json_text(n, "arch", ""));
    cli_table_cell(t, cli_json_text(n, "cgroup", ""));
    cli_table_cell(t, cli_json_text(n, "version", ""));
}

int cli_cmd_nodes(struct cli *c, void *args, const struct cli_list *words)
{
    static const char *const columns[] = {"NAME", "STATE", "REPLICAS", "MEMORY FREE", "CPU USED", "ADDRESS",
                                          "WHY",  "ID",    "ENGINE",   "ARCH",        "CGROUP",   "AGENT"};
    (void)args;
    (void)words;
    CLI_AUTO_REPLY reply = {0};
    int code = cli_get(c, "/v1/nodes", &reply);
    if (code)
        return code;
    if (c->format == CLI_JSON) {
        cli_json_print(reply.json);
        return CLI_OK;
    }
    struct cli_table *t = cli_table_new(c, columns, c->format == CLI_WIDE ? DV_COUNT(columns) : 7);
    const cJSON *n, *items = cli_json_items(reply.json, "nodes");
    cJSON_ArrayForEach (n, items)
        row(c, t, n);
    cli_table_print(t);
    return CLI_OK;
}

static int node_op(struct cli *c, const char *node, const char *method, const char *verb, const char *outcome)
{
    CLI_AUTO_REPLY reply = {0};
    struct cli_call call = {.method = method, .timeout_s = 60};
    call.path = cli_format(c, "/v1/nodes/%s%s", cli_escape(c, node), verb);
    int code = cli_do(c, &call, &reply);
    if (code == CLI_OK)
        cli_note("node %s %s", node, outcome);
    return code;
}

int cli_cmd_node_cordon(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    return node_op(c, words->v[0], "POST", "/cordon", "takes no new replicas");
}

int cli_cmd_node_uncordon(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    return node_op(c, words->v[0], "POST", "/uncordon", "takes replicas again");
}

int cli_cmd_node_drain(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    return node_op(c, words->v[0], "POST", "/drain", "is being emptied; davit nodes shows how far it is");
}

int cli_cmd_node_remove(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_node_remove_args *a = args;
    return node_op(c, words->v[0], "DELETE", a->force ? "?force=true" : "", "was removed");
}
