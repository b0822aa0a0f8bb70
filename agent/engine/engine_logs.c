/* Logs of a container: the multiplexed stream, line by line. */
#include "agent/engine/docker_internal.h"
#include "agent/engine/logframe.h"

struct logs_job {
    struct dk_job job;
    struct dv_logframe frames;
    struct dv_err broken; /* why we ended the stream ourselves; code 0: we did not */
    void (*line)(void *ctx, const struct dv_engine_log *l);
    dv_engine_done *done;
};

static int logs_line(void *ctx, const struct dv_engine_log *l)
{
    struct logs_job *q = ctx;
    q->line(q->job.ctx, l);
    return q->job.is_cancelled;
}

static int logs_data(struct dk_job *j, struct dv_sv bytes)
{
    struct logs_job *q = DV_CONTAINER_OF(j, struct logs_job, job);
    return dv_logframe_feed(&q->frames, bytes, logs_line, q, &q->broken);
}

static void logs_discard(struct dk_job *j)
{
    dv_logframe_deinit(&DV_CONTAINER_OF(j, struct logs_job, job)->frames);
}

static void logs_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct logs_job *q = DV_CONTAINER_OF(j, struct logs_job, job);
    (void)body;
    if (q->broken.code) {
        (void)dv_err_wrap(&q->broken, "%s", j->what);
        code = q->broken.code;
        *err = q->broken;
    }
    q->done(j->ctx, code, code ? err : NULL);
}

void *dk_logs(struct dv_engine *e, const char *id, int64_t tail, int64_t since_ms, bool follow,
              void (*line)(void *, const struct dv_engine_log *), dv_engine_done *done, void *ctx)
{
    struct logs_job *q = dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*q), ctx, logs_answer);
    if (!q) {
        done(ctx, DV_E_NOMEM, dk_no_memory());
        return NULL;
    }
    q->line = line;
    q->done = done;
    q->job.data = logs_data;
    q->job.discard = logs_discard;
    dv_logframe_init(&q->frames);
    (void)snprintf(q->job.what, sizeof(q->job.what), "reading logs of container %.12s", id);
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    (void)dv_buf_add_c(&path, "/containers/");
    dk_escape(&path, id, "");
    (void)dv_buf_addf(&path, "/logs?stdout=true&stderr=true&timestamps=true&follow=%s",
                      follow ? "true" : "false");
    if (tail >= 0)
        (void)dv_buf_addf(&path, "&tail=%lld", (long long)tail);
    if (since_ms > 0)
        (void)dv_buf_addf(&path, "&since=%lld.%03lld000000", (long long)(since_ms / 1000),
                          (long long)(since_ms % 1000));
    dk_send(&q->job, "GET", &path, dv_sv(NULL, 0), NULL, follow ? 0 : DK_CALL_TIMEOUT_MS);
    return q;
}

void dk_logs_cancel(struct dv_engine *e, void *handle)
{
    struct logs_job *q = handle;
    (void)e;
    if (q)
        dk_cancel(&q->job);
}
