/* The program itself: version, health, readiness, metrics. */
#include "orchestrator/api/api_internal.h"

#include <sys/utsname.h>

int dv_api_version(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    struct utsname u;
    (void)err;
    dv_jw_open(&w, NULL, '{');
    dv_jw_str(&w, "version", c->api->cfg.version);
    dv_jw_str(&w, "commit", c->api->cfg.commit);
    dv_jw_str(&w, "api", "v1");
    dv_jw_str(&w, "arch", uname(&u) == 0 ? u.machine : "unknown");
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, 200, &b);
    return DV_OK;
}

/* Alive: this loop turns. */
int dv_api_health(struct dv_api_call *c, struct dv_err *err)
{
    (void)err;
    dv_api_reply_text(c->req, 200, "OK");
    return DV_OK;
}

int dv_api_ready(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    char message[256] = "";
    (void)err;
    bool ready = dv_control_ready(c->api->cfg.control, message, sizeof(message));
    dv_jw_open(&w, NULL, '{');
    dv_jw_bool(&w, "ready", ready);
    dv_jw_str(&w, "message", message);
    dv_jw_close(&w, '}');
    dv_api_reply_json(c->req, ready ? 200 : 503, &b);
    return DV_OK;
}

int dv_api_metrics(struct dv_api_call *c, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    if (c->api->cfg.metrics)
        c->api->cfg.metrics(c->api->cfg.metrics_ctx, &b);
    if (b.failed)
        return dv_api_no_memory(err);
    dv_http_reply(c->req, 200, "text/plain; version=0.0.4; charset=utf-8", dv_buf_sv(&b));
    return DV_OK;
}
