#include "orchestrator/control/control.h"
#include "orchestrator/events/async.h"
#include "orchestrator/gateway/gateway.h"

static int find_in_control(void *ctx, uint64_t fn_uid, struct dv_async_fn *out)
{
    const struct dv_function *fn = dv_control_fn_by_uid(ctx, fn_uid);
    if (!fn)
        return DV_NOT_FOUND;
    const struct dv_fn_spec *s = &fn->spec;
    *out = (struct dv_async_fn){.name = s->name,
                                .ns = s->ns,
                                .timeout_ms = s->timeout_ms,
                                .parallel = s->scale.max * s->scale.concurrency,
                                .annotations = &s->annotations};
    return DV_OK;
}

static void answer_by_gateway(void *ctx, struct dv_async_accept *a, int code, const struct dv_err *err)
{
    dv_gateway_async_done(ctx, a, code, err);
}

void dv_async_wire(struct dv_async_cfg *cfg, struct dv_control *control, struct dv_gateway *gateway)
{
    cfg->find = find_in_control;
    cfg->find_ctx = control;
    cfg->answer = answer_by_gateway;
    cfg->answer_ctx = gateway;
}
