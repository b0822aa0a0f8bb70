/* davit list, describe, remove, scale: looking at functions and moving them. */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "deploy/cli/cli.h"

static const char *bare_or_full(struct cli *c, const cJSON *fn)
{
    const char *ns = cli_json_text(fn, "spec.namespace", "default"),
               *name = cli_json_text(fn, "spec.name", "?");
    return strcmp(ns, "default") == 0 ? name : cli_format(c, "%s.%s", name, ns);
}

/* ---------------------------------------------------------------- list */

static void list_row(struct cli *c, struct cli_table *t, const cJSON *fn)
{
    cli_table_cell(t, bare_or_full(c, fn));
    cli_table_cell(t, cli_json_text(fn, "status.phase", "?"));
    cli_table_cell(t, cli_format(c, "%lld/%lld", (long long)cli_json_int(fn, "status.ready", 0),
                                 (long long)cli_json_int(fn, "status.wanted", 0)));
    cli_table_cell_int(t, cli_json_int(fn, "status.invocations", 0));
    cli_table_cell(t, cli_json_text(fn, "spec.image", ""));
    if (c->format != CLI_WIDE)
        return;
    cli_table_cell(t, cli_json_text(fn, "spec.protocol", "http"));
    cli_table_cell(t, cli_format(c, "%lld-%lld", (long long)cli_json_int(fn, "spec.scale.min", 0),
                                 (long long)cli_json_int(fn, "spec.scale.max", 20)));
    cli_table_cell_int(t, cli_json_int(fn, "status.waiting", 0));
    cli_table_cell_int(t, cli_json_int(fn, "status.in_flight", 0));
    cli_table_cell(t, cli_age(c, cli_json_int(fn, "created_ms", 0)));
    cli_table_cell(t, cli_json_text(fn, "status.message", ""));
}

/* Every page of a listing, joined into the first one's list. */
static int get_all(struct cli *c, const char *path, const char *member, struct cli_reply *out)
{
    int code = cli_get(c, path, out);
    cJSON *all = code ? NULL : (cJSON *)cli_json_items(out->json, member);
    const char *next = cli_json_text(out->json, "next", NULL);
    while (code == CLI_OK && all && next) {
        CLI_AUTO_REPLY page = {0};
        code = cli_get(
            c, cli_format(c, "%s%cafter=%s", path, strchr(path, '?') ? '&' : '?', cli_escape(c, next)),
            &page);
        cJSON *more = code ? NULL : (cJSON *)cli_json_items(page.json, member);
        while (more && more->child)
            (void)cJSON_AddItemToArray(all, cJSON_DetachItemViaPointer(more, more->child));
        next = cli_json_text(page.json, "next", NULL);
        next = next ? cli_format(c, "%s", next) : NULL;
    }
    if (out->json)
        cJSON_DeleteItemFromObjectCaseSensitive(out->json, "next");
    return code;
}

int cli_cmd_list(struct cli *c, void *args, const struct cli_list *words)
{
    static const char *const columns[] = {"NAME",  "STATE",   "READY",  "CALLS", "IMAGE", "PROTOCOL",
                                          "SCALE", "WAITING", "INSIDE", "AGE",   "WHY"};
    (void)args;
    (void)words;
    CLI_AUTO_REPLY reply = {0};
    int code = get_all(
        c, c->ns ? cli_format(c, "/v1/functions?namespace=%s", cli_escape(c, c->ns)) : "/v1/functions",
        "functions", &reply);
    if (code)
        return code;
    if (c->format == CLI_JSON) {
        cli_json_print(reply.json);
        return CLI_OK;
    }
    struct cli_table *t = cli_table_new(c, columns, c->format == CLI_WIDE ? DV_COUNT(columns) : 5);
    const cJSON *fn, *items = cli_json_items(reply.json, "functions");
    cJSON_ArrayForEach (fn, items)
        list_row(c, t, fn);
    cli_table_print(t);
    if (!cJSON_GetArraySize(items))
        cli_note("no functions yet: davit deploy NAME --image REPOSITORY:TAG");
    return CLI_OK;
}

/* ---------------------------------------------------------------- describe */

static void line(const char *label, const char *text)
{
    if (text && *text)
        printf("%-14s %s\n", label, text);
}

static void line_list(const char *label, const cJSON *list)
{
    const cJSON *v;
    if (!cJSON_GetArraySize(list))
        return;
    printf("%-14s", label);
    cJSON_ArrayForEach (v, list)
        printf(" %s", cJSON_IsString(v) ? v->valuestring : "?");
    putchar('\n');
}

static void line_map(const char *label, const cJSON *map)
{
    const cJSON *v;
    cJSON_ArrayForEach (v, map) {
        printf("%-14s %s=%s\n", label, v->string, cJSON_IsString(v) ? v->valuestring : "?");
        label = "";
    }
}

static void print_metrics(struct cli *c, const cJSON *spec)
{
    const cJSON *m, *w;
    cJSON_ArrayForEach (m, cli_json_at(spec, "scale.metrics"))
        line("Metric",
             cli_format(c, "%s of %s, target %g, every %s", cli_json_text(m, "name", "?"),
                        cli_json_text(m, "url", "?"), cJSON_GetNumberValue(cli_json_at(m, "target")),
                        cli_json_text(m, "interval", "10s")));
    cJSON_ArrayForEach (w, cli_json_at(spec, "scale.schedule"))
        line("Schedule", cli_format(c, "at least %lld from \"%s\" (%s) for %s",
                                    (long long)cli_json_int(w, "min", 0), cli_json_text(w, "cron", "?"),
                                    cli_json_text(w, "timezone", "UTC"), cli_json_text(w, "duration", "?")));
}

static void print_spec(struct cli *c, const cJSON *fn)
{
    const cJSON *spec = cli_json_at(fn, "spec");
    line("Name", cli_json_text(spec, "name", "?"));
    line("Namespace", cli_json_text(spec, "namespace", "default"));
    line("Image", cli_json_text(spec, "image", "?"));
    line("Protocol", cli_format(c, "%s on port %lld", cli_json_text(spec, "protocol", "http"),
                                (long long)cli_json_int(spec, "port", 8080)));
    line_list("Command", cli_json_at(spec, "command"));
    line("Scale",
         cli_format(c, "%lld to %lld replicas, %lld requests at once in each, down after %s",
                    (long long)cli_json_int(spec, "scale.min", 0),
                    (long long)cli_json_int(spec, "scale.max", 20),
                    (long long)cli_json_int(spec, "scale.concurrency", 0),
                    cli_json_text(fn, "status.keep_alive.idle", cli_json_text(spec, "scale.idle", "1m"))));
    line("Frozen",
         strcmp(cli_json_text(spec, "cpu", "requests"), "always") == 0
             ? "never, it has a processor always"
             : cli_format(c, "after %s without requests", cli_json_text(spec, "scale.freeze", "1s")));
    print_metrics(c, spec);
    line("Memory", cli_json_text(spec, "limits.memory", NULL));
    line("CPU", cli_json_text(spec, "limits.cpu", NULL));
    line("Timeout", cli_json_text(spec, "timeout", NULL));
    line_map("Environment", cli_json_at(spec, "env"));
    line_map("Labels", cli_json_at(spec, "labels"));
    line_list("Secrets", cli_json_at(spec, "secrets"));
    line_list("Constraints", cli_json_at(spec, "constraints"));
    line("Generation", cli_format(c, "%lld", (long long)cli_json_int(fn, "generation", 0)));
    line("Created", cli_format(c, "%s ago", cli_age(c, cli_json_int(fn, "created_ms", 0))));
}

static void print_status(struct cli *c, const cJSON *fn)
{
    const char *phase = cli_json_text(fn, "status.phase", "?"),
               *why = cli_json_text(fn, "status.message", "");
    const char *name, *ns;
    const char *color = cli_state_color(c, phase);
    printf("%-14s %s%s%s%s%s\n", "State", color, phase, *color ? cli_color_end(c) : "", *why ? ": " : "",
           why);
    line("Replicas", cli_format(c, "%lld wanted, %lld ready, %lld starting, %lld failed",
                                (long long)cli_json_int(fn, "status.wanted", 0),
                                (long long)cli_json_int(fn, "status.ready", 0),
                                (long long)cli_json_int(fn, "status.starting", 0),
                                (long long)cli_json_int(fn, "status.failed", 0)));
    line("Scaled because", cli_json_text(fn, "status.scale_reason", NULL));
    line("When idle", cli_json_text(fn, "status.keep_alive.why", NULL));
    line("Requests", cli_format(c, "%lld answered, %lld inside, %lld waiting",
                                (long long)cli_json_int(fn, "status.invocations", 0),
                                (long long)cli_json_int(fn, "status.in_flight", 0),
                                (long long)cli_json_int(fn, "status.waiting", 0)));
    cli_fn_split(c, bare_or_full(c, fn), &name, &ns);
    line("URL", cli_format(c, "%s/function/%s", c->gateway, bare_or_full(c, fn)));
}

static const char *phase_times(struct cli *c, const cJSON *r)
{
    static const char *const names[] = {"pull", "create", "start", "ready"};
    const char *out = "";
    for (size_t i = 0; i < DV_COUNT(names); i++) {
        int64_t us = cli_json_int(r, cli_format(c, "times.%s_us", names[i]), 0);
        if (us > 0)
            out = cli_format(c, "%s%s%s %lldms", out, *out ? ", " : "", names[i], (long long)us / 1000);
    }
    return out;
}

static const char *mebibytes(struct cli *c, int64_t bytes)
{
    return bytes > 0 ? cli_format(c, "%.1fMi", (double)bytes / 1048576) : "-";
}

static void print_replicas(struct cli *c, const cJSON *list)
{
    static const char *const columns[] = {"REPLICA", "STATE",  "NODE",       "AGE", "INSIDE",
                                          "SERVED",  "MEMORY", "STARTED IN", "WHY"};
    const cJSON *r;
    if (!cJSON_GetArraySize(list))
        return;
    putchar('\n');
    struct cli_table *t = cli_table_new(c, columns, DV_COUNT(columns));
    cJSON_ArrayForEach (r, list) {
        cli_table_cell(t, cli_json_text(r, "id", "?"));
        cli_table_cell(t, cli_json_text(r, "state", "?"));
        cli_table_cell(t, cli_json_text(r, "node_name", cli_json_text(r, "node", "?")));
        cli_table_cell(t, cli_age(c, cli_json_int(r, "since_ms", 0)));
        cli_table_cell_int(t, cli_json_int(r, "in_flight", 0));
        cli_table_cell_int(t, cli_json_int(r, "requests", 0));
        cli_table_cell(t, mebibytes(c, cli_json_int(r, "memory_bytes", 0)));
        cli_table_cell(t, phase_times(c, r));
        cli_table_cell(t, cli_json_text(r, "message", cli_json_text(r, "why", "")));
    }
    cli_table_print(t);
    cJSON_ArrayForEach (r, list) {
        const char *tail = cli_json_text(r, "log_tail", NULL);
        if (tail && *tail)
            printf("\nLast lines of %s:\n%s\n", cli_json_text(r, "id", "?"), tail);
    }
}

static void print_events(struct cli *c, const cJSON *list)
{
    static const char *const columns[] = {"WHEN", "WHAT", "TIMES", "WHY"};
    int n = cJSON_GetArraySize(list), i = 0;
    const cJSON *e;
    if (n <= 0)
        return;
    putchar('\n');
    struct cli_table *t = cli_table_new(c, columns, DV_COUNT(columns));
    cJSON_ArrayForEach (e, list) {
        if (i++ < n - 15) /* the last ones tell the story; -o json has them all */
            continue;
        cli_table_cell(t, cli_format(c, "%s ago", cli_age(c, cli_json_int(e, "time_ms", 0))));
        cli_table_cell(t, cli_json_text(e, "kind", "?"));
        cli_table_cell_int(t, cli_json_int(e, "count", 1));
        cli_table_cell(t, cli_json_text(e, "message", ""));
    }
    cli_table_print(t);
}

static void print_signals(struct cli *c, const cJSON *list)
{
    static const char *const columns[] = {"SIGNAL", "ASKS FOR", "WHY"};
    const cJSON *s;
    if (!cJSON_GetArraySize(list))
        return;
    putchar('\n');
    struct cli_table *t = cli_table_new(c, columns, DV_COUNT(columns));
    cJSON_ArrayForEach (s, list) {
        const char *metric = cli_json_text(s, "metric", NULL);
        bool is_held = cJSON_IsTrue(cli_json_at(s, "held"));
        cli_table_cell(t, metric ? cli_format(c, "metric %s", metric) : cli_json_text(s, "signal", "?"));
        cli_table_cell(t, is_held ? cli_format(c, "keeps %lld", (long long)cli_json_int(s, "replicas", 0))
                                  : cli_format(c, "%lld", (long long)cli_json_int(s, "replicas", 0)));
        cli_table_cell(t, cli_json_text(s, "message", ""));
    }
    cli_table_print(t);
}

static void print_decisions(struct cli *c, const cJSON *list)
{
    static const char *const columns[] = {"SCALED", "FROM", "TO", "BY", "BECAUSE"};
    int n = cJSON_GetArraySize(list), i = 0;
    const cJSON *d;
    if (n <= 0)
        return;
    putchar('\n');
    struct cli_table *t = cli_table_new(c, columns, DV_COUNT(columns));
    cJSON_ArrayForEach (d, list) {
        if (i++ < n - 5) /* the last ones; -o json has them all */
            continue;
        cli_table_cell(t, cli_format(c, "%s ago", cli_age(c, cli_json_int(d, "time_ms", 0))));
        cli_table_cell_int(t, cli_json_int(d, "from", 0));
        cli_table_cell_int(t, cli_json_int(d, "to", 0));
        cli_table_cell(t, cli_json_text(d, "signal", "?"));
        cli_table_cell(t, cli_json_text(d, "reason", ""));
    }
    cli_table_print(t);
}

int cli_cmd_describe(struct cli *c, void *args, const struct cli_list *words)
{
    (void)args;
    CLI_AUTO_REPLY fn = {0}, events = {0}, why = {0};
    int code = cli_get(c, cli_fn_path(c, words->v[0], ""), &fn);
    if (code == CLI_OK)
        code = cli_get(c, cli_fn_path(c, words->v[0], "/events"), &events);
    if (code == CLI_OK)
        code = cli_get(c, cli_fn_path(c, words->v[0], "/decisions"), &why);
    if (code)
        return code;
    if (c->format == CLI_JSON) {
        (void)cJSON_AddItemReferenceToObject(fn.json, "events",
                                             (cJSON *)cli_json_items(events.json, "events"));
        (void)cJSON_AddItemReferenceToObject(fn.json, "signals",
                                             (cJSON *)cli_json_items(why.json, "signals"));
        (void)cJSON_AddItemReferenceToObject(fn.json, "decisions",
                                             (cJSON *)cli_json_items(why.json, "decisions"));
        cli_json_print(fn.json);
        return CLI_OK;
    }
    print_spec(c, fn.json);
    print_status(c, fn.json);
    print_replicas(c, cli_json_at(fn.json, "replicas"));
    print_signals(c, cli_json_items(why.json, "signals"));
    print_decisions(c, cli_json_items(why.json, "decisions"));
    print_events(c, cli_json_items(events.json, "events"));
    return CLI_OK;
}

/* ---------------------------------------------------------------- remove, scale */

int cli_cmd_remove(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_remove_args *a = args;
    int code = CLI_OK;
    for (size_t i = 0; i < words->n; i++) {
        CLI_AUTO_REPLY reply = {0};
        struct cli_call call = {.method = "DELETE", .path = cli_fn_path(c, words->v[i], ""), .timeout_s = 60};
        int one = cli_send(c, &call, &reply);
        if (one == CLI_OK && reply.status == 404 && a->if_exists)
            continue;
        if (one == CLI_OK && reply.status > 299)
            one = cli_explain(c, &reply);
        if (one == CLI_OK)
            cli_note("%s removed", words->v[i]);
        code = code ? code : one;
    }
    return code;
}

int cli_cmd_scale(struct cli *c, void *args, const struct cli_list *words)
{
    const char *word = words->v[0], *count = words->v[1];
    uint64_t n;
    (void)args;
    bool is_auto = strcmp(count, "auto") == 0;
    if (!is_auto && !dv_parse_u64(dv_sv_c(count), &n))
        return cli_fail(CLI_USAGE, "scale takes a number of replicas or \"auto\", not \"%s\"", count);
    CLI_AUTO_REPLY reply = {0};
    const char *body = cli_format(c, "{\"replicas\":%s}", is_auto ? "null" : count);
    int code = cli_do(
        c,
        &(struct cli_call){
            .method = "POST", .path = cli_fn_path(c, word, "/scale"), .body = dv_sv_c(body), .timeout_s = 60},
        &reply);
    if (code == CLI_OK)
        cli_note(is_auto ? "%s is scaled by its load again" : "%s wants %s replicas now", word, count);
    return code;
}
