#include "agent/node/join.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/httpc.h"
#include "proto/rt/log.h"
#include "proto/rt/loop.h"
#include "proto/wire/codec.h"

enum { PAUSE_MIN_MS = 500, PAUSE_MAX_MS = 2000, CALL_MS = 10000, REPLY_MAX = 64 * 1024 };

struct dv_join_client {
    struct dv_join_cfg cfg;
    struct dv_httpc *http;
    struct dv_httpc_call *call; /* NULL: none under way */
    struct dv_timer timer;
    char *url;
    struct dv_buf body;
    uint64_t pause_ms;
    bool is_asking;
    char error[240];
};

static void pause_then_again(struct dv_join_client *j, const char *why)
{
    if (strcmp(why, j->error) != 0)
        dv_log(DV_LOG_WARN, "not joined yet", DV_LS("orchestrator", j->cfg.orchestrator),
               DV_LS("error", why));
    (void)dv_copy(j->error, sizeof(j->error), why);
    if (dv_timer_set(j->cfg.loop, &j->timer, dv_loop_now(j->cfg.loop) + j->pause_ms * DV_MS))
        j->is_asking = false; /* whoever wanted it asks again when it still has no link */
    j->pause_ms = j->pause_ms * 2 < PAUSE_MAX_MS ? j->pause_ms * 2 : PAUSE_MAX_MS;
}

/* The orchestrator's own words out of a problem document, else its status. */
static void refused(struct dv_join_client *j, const struct dv_httpc_result *res)
{
    char why[240];
    (void)snprintf(why, sizeof(why), "the orchestrator answers %ld%s: %.*s", res->status,
                   res->status == 401 || res->status == 403 ? " (is the join token right?)" : "",
                   (int)(res->body.n < 160 ? res->body.n : 160), res->body.p);
    for (char *p = why; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    pause_then_again(j, why);
}

static void on_done(void *ctx, const struct dv_httpc_result *res)
{
    struct dv_join_client *j = ctx;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_err err = DV_ERR_INIT;
    struct dv_join_reply reply;
    j->call = NULL;
    if (res->code) {
        pause_then_again(j, dv_err_msg(res->err, res->code));
        return;
    }
    if (res->status / 100 != 2) {
        refused(j, res);
        return;
    }
    int rc = dv_wire_decode(&dv_type_join_reply, res->body, REPLY_MAX, DV_WIRE_IGNORE_UNKNOWN, &arena, &reply,
                            &err);
    if (rc) {
        (void)dv_err_wrap(&err, "the orchestrator's answer is not understood");
        pause_then_again(j, dv_err_msg(&err, rc));
        return;
    }
    j->is_asking = false;
    j->error[0] = '\0';
    j->cfg.on_joined(j->cfg.ctx, &reply);
}

static void ask(struct dv_join_client *j)
{
    struct dv_err err = DV_ERR_INIT;
    struct dv_httpc_request req = {.method = "POST",
                                   .url = j->url,
                                   .body = dv_buf_sv(&j->body),
                                   .bearer = j->cfg.token,
                                   .timeout_ms = CALL_MS,
                                   .body_max = REPLY_MAX,
                                   .on_done = on_done,
                                   .ctx = j};
    int rc = dv_httpc_send(j->http, &req, &j->call, &err);
    if (rc) {
        j->call = NULL;
        pause_then_again(j, dv_err_msg(&err, rc));
    }
}

static void on_timer(struct dv_timer *t)
{
    ask(DV_CONTAINER_OF(t, struct dv_join_client, timer));
}

int dv_join_new(const struct dv_join_cfg *cfg, struct dv_join_client **out, struct dv_err *err)
{
    struct dv_join_client *j = dv_zalloc(sizeof(*j));
    if (!j)
        return dv_err_set(err, DV_E_NOMEM, "joining");
    size_t n = strlen(cfg->orchestrator);
    while (n && cfg->orchestrator[n - 1] == '/')
        n--;
    bool has_scheme = strstr(cfg->orchestrator, "://") != NULL;
    j->cfg = *cfg;
    j->timer.fn = on_timer;
    j->url = dv_asprintf("%s%.*s/v1/nodes/join", has_scheme ? "" : "http://", (int)n, cfg->orchestrator);
    int rc = j->url ? dv_httpc_new(cfg->loop, &j->http, err) : dv_err_set(err, DV_E_NOMEM, "joining");
    if (rc) {
        dv_free(j->url);
        dv_free(j);
        return rc;
    }
    *out = j;
    return DV_OK;
}

void dv_join_free(struct dv_join_client *j)
{
    if (!j)
        return;
    dv_join_stop(j);
    dv_httpc_free(j->http);
    dv_buf_deinit(&j->body);
    dv_free(j->url);
    dv_free(j);
}

int dv_join_start(struct dv_join_client *j, const struct dv_join *join)
{
    dv_buf_clear(&j->body);
    int rc = dv_wire_encode(&dv_type_join, join, &j->body);
    if (rc || j->is_asking)
        return rc;
    j->is_asking = true;
    j->pause_ms = PAUSE_MIN_MS;
    ask(j);
    return DV_OK;
}

void dv_join_stop(struct dv_join_client *j)
{
    if (j->call)
        dv_httpc_cancel(j->call);
    j->call = NULL;
    j->is_asking = false;
    dv_timer_cancel(j->cfg.loop, &j->timer);
}

bool dv_join_is_asking(const struct dv_join_client *j)
{
    return j->is_asking;
}

const char *dv_join_error(const struct dv_join_client *j)
{
    return j->error;
}
