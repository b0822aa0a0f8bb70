/* The REST API: /v1 (ours) and /system (OpenFaaS), one route table for both.  Requests come from dv_httpd on
 * the state loop; every call here is made on that loop.  Reads answer at once from dv_control; writes answer
 * when the store has committed.  Invocations never come here: the gateway's ingress serves them itself. */
#ifndef DV_API_H
#define DV_API_H

#include "orchestrator/control/control.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"

struct dv_api;
struct dv_http_req;

struct dv_api_cfg { /* all borrowed, and must outlive the api */
    struct dv_control *control;
    struct dv_gateway *gateway; /* NULL: call counts come from dv_control's load */
    const struct dv_clock *clock;
    const char *user, *password; /* of the admin: basic auth, or the password as bearer token */
    const char *join_token;      /* bearer token of POST /v1/nodes/join */
    const char *version;         /* NULL: DAVIT_VERSION */
    const char *commit;          /* NULL: "unknown" */
    int64_t default_idle_ms;     /* as dv_control's: shown where a function says nothing of idle */
    void (*metrics)(void *ctx, struct dv_buf *out); /* Prometheus text of the whole program; may be NULL */
    void *metrics_ctx;
};

/* DV_OK; DV_INVALID (no password); DV_E_NOMEM. */
int dv_api_new(const struct dv_api_cfg *cfg, struct dv_api **out, struct dv_err *err);
/* After the HTTP server was stopped and before dv_control_free.  NULL accepted. */
void dv_api_free(struct dv_api *a);

/* For struct dv_httpd_cfg (ctx: the api). */
void dv_api_on_request(void *api, struct dv_http_req *req);
void dv_api_on_error(void *api, struct dv_http_req *req, int status, const char *why);
/* The metrics listener: GET /metrics, /healthz and /readyz, without credentials. */
void dv_api_on_metrics_request(void *api, struct dv_http_req *req);

/* The route table, one line a route: "METHOD PATTERN STATUS,STATUS,... PARAMETER,...|-\n".  DV_OK or
 * DV_E_NOMEM. */
int dv_api_routes(struct dv_buf *out);

#endif
