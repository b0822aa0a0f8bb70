/* davit logs: NDJSON lines of the API, printed as they come. */
#include <cjson/cJSON.h>
#include <stdio.h>

#include "deploy/cli/cli.h"

struct printer {
    struct cli *c;
    const struct cli_logs_args *args;
    struct dv_buf line;
};

static void print_line(struct printer *p, const cJSON *v)
{
    const char *replica = cli_json_text(v, "replica", ""), *text = cli_json_text(v, "text", "");
    if (p->args->timestamps)
        printf("%s ", cli_json_text(v, "time", "-"));
    if (p->c->format == CLI_WIDE)
        printf("%s/%.8s ", cli_json_text(v, "node", "-"), replica);
    else
        printf("%.8s ", replica);
    puts(text);
}

static int on_bytes(void *ctx, struct dv_sv bytes)
{
    struct printer *p = ctx;
    for (size_t i = 0; i < bytes.n; i++) {
        if (bytes.p[i] != '\n') {
            if (dv_buf_add_char(&p->line, bytes.p[i]) != DV_OK)
                cli_out_of_memory();
            continue;
        }
        if (p->c->format == CLI_JSON) {
            printf("%.*s\n", (int)dv_buf_len(&p->line), dv_buf_ptr(&p->line));
        } else {
            cJSON *v = cJSON_ParseWithLength(dv_buf_ptr(&p->line), dv_buf_len(&p->line));
            if (v)
                print_line(p, v);
            cJSON_Delete(v);
        }
        dv_buf_clear(&p->line);
    }
    return fflush(stdout) == 0 ? 0 : -1;
}

static const char *add(struct cli *c, const char *path, const char *name, const char *value)
{
    return value ? cli_format(c, "%s%c%s=%s", path, strchr(path, '?') ? '&' : '?', name, cli_escape(c, value))
                 : path;
}

int cli_cmd_logs(struct cli *c, void *args, const struct cli_list *words)
{
    const struct cli_logs_args *a = args;
    const char *path = cli_fn_path(c, words->v[0], "/logs");
    path = add(c, path, "follow", a->follow ? "true" : NULL);
    path = add(c, path, "since", a->since);
    path = add(c, path, "replica", a->replica);
    path = add(c, path, "tail", a->tail == CLI_UNSET ? NULL : cli_format(c, "%lld", (long long)a->tail));
    struct printer p = {.c = c, .args = a};
    CLI_AUTO_REPLY reply = {0};
    int code =
        cli_do(c, &(struct cli_call){.method = "GET", .path = path, .on_data = on_bytes, .ctx = &p}, &reply);
    dv_buf_deinit(&p.line);
    return code;
}
