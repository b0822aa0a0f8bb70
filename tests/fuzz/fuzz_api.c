/* A request as the HTTP server hands it on -> the whole API, against a dv_control in memory.  Input: "METHOD
 * target", a newline, the body.  Whatever comes: exactly one answer, with a status of HTTP, and valid JSON
 * where it says JSON. The second half runs it again as another face's call would, on what the first one left
 * behind. */
#include "tests/support/api_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static void check_answer(struct dv_http_req *r)
{
    must(r->is_answered);
    must(r->status >= 200 && r->status < 600);
    if (dv_sv_starts(dv_sv_c(r->type), DV_SV("application/json")) ||
        dv_sv_starts(dv_sv_c(r->type), DV_SV("application/problem"))) {
        cJSON *tree = NULL;
        must(dv_json_parse(dv_buf_sv(&r->out), SIZE_MAX, &tree, NULL) == DV_OK);
        cJSON_Delete(tree);
    }
}

static void ask(struct world *w, const char *method, const char *target, const char *body)
{
    struct dv_http_req r;
    world_request(&r, method, target, body);
    world_header(&r, "Authorization", strstr(target, "/join") ? "Bearer join-me" : "Bearer secret");
    dv_api_on_request(w->api, &r);
    world_commit(w);
    if (w->control.logs_open) {
        struct dv_log_line line = {.replica = 1, .text = (char *)"\xff not UTF-8"};
        w->control.logs.line(w->control.logs.ctx, 1, &line);
        w->control.logs.end(w->control.logs.ctx);
        w->control.logs_open = false;
    }
    check_answer(&r);
    world_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct world w;
    char *text = dv_strndup((const char *)data, n);
    struct dv_sv line, body, method, target;
    (void)dv_sv_cut(dv_sv_c(text), '\n', &line, &body);
    (void)dv_sv_cut(line, ' ', &method, &target);
    char *m = dv_strndup(method.p, method.n), *t = dv_strndup(target.p, target.n);
    world_init(&w);
    w.control.is_ready = true;
    ask(&w, "POST", "/v1/functions", "{\"name\":\"a\",\"image\":\"i\",\"labels\":{\"x\":\"y\"}}");
    ask(&w, m, t, body.p);
    ask(&w, "GET", "/v1/functions", NULL);
    ask(&w, "GET", "/system/functions", NULL);
    world_deinit(&w);
    dv_free(m);
    dv_free(t);
    dv_free(text);
    return 0;
}
