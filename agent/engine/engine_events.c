/* The engine's events: one JSON object a line, for as long as the engine lives. */
#include "agent/engine/docker_internal.h"
#include "agent/engine/lines.h"

#include <cjson/cJSON.h>

#include "proto/wire/codec.h"

enum { EVENT_MAX = 256 * 1024 }; /* an event carries all labels of its container */

struct events_job {
    struct dk_job job;
    struct dv_lines lines;
    void (*event)(void *ctx, const struct dv_engine_event *ev);
    dv_engine_done *done;
};

static int64_t exit_code_of(const struct cJSON *attributes)
{
    int64_t code = 0;
    if (!dv_parse_i64(dv_sv_c(dk_str(attributes, "exitCode")), &code))
        (void)dv_parse_i64(dv_sv_c(dk_str(attributes, "containerExitCode")), &code); /* podman */
    return code;
}

static int event_line(void *ctx, struct dv_sv line)
{
    struct events_job *q = ctx;
    struct cJSON *tree = NULL;
    /* One event that we cannot read is no reason to lose the others: what it said is seen at the next
     * inspection. */
    if (dv_json_parse(line, EVENT_MAX, &tree, NULL)) {
        q->job.d->errors++;
        return DV_OK;
    }
    const struct cJSON *actor = dk_get(tree, "Actor");
    struct dv_engine_event ev = {.action = dk_str(tree, "Action"),
                                 .container = dk_str(actor, "ID"),
                                 .exit_code = exit_code_of(dk_get(actor, "Attributes")),
                                 .time_ns = dk_i64(tree, "timeNano")};
    if (!ev.time_ns)
        ev.time_ns = dk_i64(tree, "time") * 1000000000;
    if (ev.action[0] && ev.container[0])
        q->event(q->job.ctx, &ev);
    cJSON_Delete(tree);
    return q->job.is_cancelled;
}

static int events_data(struct dk_job *j, struct dv_sv bytes)
{
    struct events_job *q = DV_CONTAINER_OF(j, struct events_job, job);
    return dv_lines_feed(&q->lines, bytes, event_line, q);
}

static void events_discard(struct dk_job *j)
{
    dv_lines_deinit(&DV_CONTAINER_OF(j, struct events_job, job)->lines);
}

static void events_answer(struct dk_job *j, int code, struct dv_sv body, struct dv_err *err)
{
    struct events_job *q = DV_CONTAINER_OF(j, struct events_job, job);
    (void)body;
    if (code == DV_OK)
        code = dv_err_set(err, DV_CLOSED, "the container engine ended the stream of events");
    q->done(j->ctx, code, err);
}

void dk_events(struct dv_engine *e, const char *label, void (*event)(void *, const struct dv_engine_event *),
               dv_engine_done *done, void *ctx)
{
    struct events_job *q =
        dk_job_new(DV_CONTAINER_OF(e, struct docker, base), sizeof(*q), ctx, events_answer);
    if (!q) {
        done(ctx, DV_E_NOMEM, dk_no_memory());
        return;
    }
    q->event = event;
    q->done = done;
    q->job.data = events_data;
    q->job.discard = events_discard;
    dv_lines_init(&q->lines, EVENT_MAX);
    (void)dv_copy(q->job.what, sizeof(q->job.what), "watching events");
    DV_AUTO_BUF struct dv_buf path = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf filter = DV_BUF_INIT;
    (void)dv_buf_add_c(&filter, "{\"type\":[\"container\"],\"event\":[\"start\",\"die\",\"oom\",\"destroy\","
                                "\"kill\",\"exec_create\"],\"label\":[");
    (void)dv_buf_add_json(&filter, dv_sv_c(label));
    (void)dv_buf_add_c(&filter, "]}");
    const char *text = dv_buf_cstr(&filter);
    (void)dv_buf_add_c(&path, "/events?filters=");
    if (text)
        dk_escape(&path, text, "");
    else
        path.failed = DV_E_NOMEM;
    dk_send(&q->job, "GET", &path, dv_sv(NULL, 0), NULL, 0);
}
