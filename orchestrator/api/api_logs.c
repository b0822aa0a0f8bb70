/* Log streams, one JSON object a line, on both faces.  A reader that is too slow loses lines rather than
 * making the agents wait: what it missed is said in a line of its own. */
#include "orchestrator/api/api_internal.h"

#include <inttypes.h>

enum { LINES_MAX = 1000000 };

struct stream {
    struct dv_api_op *op;
    bool is_openfaas;
    const char *name, *ns; /* as shown */
    uint64_t n_lost;
};

static void put_line(struct stream *s, struct dv_jw *w, const char *node, const struct dv_log_line *line)
{
    dv_jw_open(w, NULL, '{');
    if (s->is_openfaas) {
        dv_jw_str(w, "name", s->name);
        dv_jw_str(w, "namespace", s->ns);
        dv_jw_id(w, "instance", line->replica);
        dv_jw_time(w, "timestamp", line->wall_ms);
    } else {
        dv_jw_time(w, "time", line->wall_ms);
        dv_jw_id(w, "replica", line->replica);
        dv_jw_str(w, "node", node);
        dv_jw_str(w, "stream", line->is_stderr ? "stderr" : "stdout");
    }
    dv_jw_str(w, "text", line->text);
    dv_jw_close(w, '}');
}

static void send_line(struct stream *s, const char *node, const struct dv_log_line *line)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_jw w = {.b = &b};
    if (s->n_lost) {
        char text[80];
        (void)snprintf(text, sizeof(text), "(%" PRIu64 " lines were left out: the reader was too slow)",
                       s->n_lost);
        struct dv_log_line gap = {
            .replica = line->replica, .wall_ms = line->wall_ms, .is_stderr = true, .text = text};
        put_line(s, &w, node, &gap);
        (void)dv_buf_add_char(&b, '\n');
        w.is_after_value = false;
    }
    put_line(s, &w, node, line);
    (void)dv_buf_add_char(&b, '\n');
    if (b.failed || dv_http_stream_write(s->op->req, dv_buf_sv(&b)) == DV_AGAIN)
        s->n_lost++;
    else
        s->n_lost = 0;
}

static void on_line(void *ctx, uint64_t node, const struct dv_log_line *line)
{
    struct stream *s = ctx;
    struct dv_node_status n;
    char id[DV_ID_TEXT];
    dv_id_text(node, id);
    bool known = dv_control_node_find(s->op->api->cfg.control, dv_sv_c(id), &n) == DV_OK;
    if (s->op->req)
        send_line(s, known ? n.record->name : id, line);
}

static void on_end(void *ctx)
{
    struct stream *s = ctx;
    struct dv_api_op *op = s->op;
    if (op->req) {
        dv_http_set_user(op->req, NULL, NULL);
        dv_http_stream_end(op->req);
    }
    op->logs = NULL;
    dv_api_op_free(op);
}

static void on_gone(struct dv_api_op *op)
{
    if (op->logs)
        dv_control_logs_close(op->logs);
    dv_api_op_free(op);
}

/* Starts the stream; r is filled in but for its callbacks. */
static int open_stream(struct dv_api_call *c, struct dv_logs_request *r, const char *name, const char *ns,
                       struct dv_err *err)
{
    struct dv_api_op *op = dv_api_op_new(c, NULL);
    struct stream *s = op ? dv_arena_zalloc(&op->arena, sizeof(*s)) : NULL;
    if (s) {
        *s = (struct stream){.op = op, .is_openfaas = dv_api_face_of(c->route) == DV_API_OPENFAAS};
        s->name = dv_arena_strdup(&op->arena, name);
        s->ns = dv_arena_strdup(&op->arena, ns);
    }
    if (!s || !s->name || !s->ns) {
        if (op)
            (void)dv_api_op_sent(op, DV_E_NOMEM, err); /* only to let it go */
        return dv_api_no_memory(err);
    }
    op->on_gone = on_gone;
    r->line = on_line;
    r->end = on_end;
    r->ctx = s;
    int rc = dv_control_logs_open(c->api->cfg.control, r, &op->logs, err);
    if (rc)
        return dv_api_op_sent(op, rc, err);
    dv_http_stream(c->req, 200, "application/x-ndjson");
    return DV_OK;
}

/* RFC 3339, or a duration back from now ("10m"). */
static int read_since(struct dv_api_call *c, int64_t *out_ms)
{
    const char *v = dv_http_param(c->req, "since");
    int64_t ago;
    *out_ms = 0;
    if (!v || !*v || dv_rfc3339_parse(v, out_ms) == 0)
        return DV_OK;
    if (dv_parse_duration_ms(dv_sv_c(v), &ago))
        return DV_INVALID;
    *out_ms = dv_clock_wall_ms(c->api->cfg.clock) - ago;
    return DV_OK;
}

static int read_replica(struct dv_api_call *c, const char *param, uint64_t *out, struct dv_err *err)
{
    const char *v = dv_http_param(c->req, param);
    *out = 0;
    if (v && *v && (strlen(v) != 16 || !dv_parse_hex64(dv_sv_c(v), out)))
        return dv_err_field(err, DV_INVALID, param, "%s must be a replica's id: 16 hex digits", param);
    return DV_OK;
}

int dv_api_function_logs(struct dv_api_call *c, struct dv_err *err)
{
    const struct dv_function *fn;
    struct dv_logs_request r = {0};
    int rc = dv_api_find_fn(c, &fn, err);
    if (!rc)
        rc = dv_api_number(c, "tail", -1, LINES_MAX, -1, &r.tail, err);
    if (!rc)
        r.follow = dv_api_flag(c, "follow", err, &rc);
    if (!rc)
        rc = read_replica(c, "replica", &r.replica, err);
    if (!rc && read_since(c, &r.since_ms))
        rc = dv_err_field(err, DV_INVALID, "since",
                          "since must be a time (2026-01-31T12:00:00Z) or a duration back (10m)");
    if (rc)
        return rc;
    r.fn_uid = fn->uid;
    return open_stream(c, &r, fn->spec.name, fn->spec.ns, err);
}

/* ---------------------------------------------------------------- OpenFaaS */

static bool unprocessable(struct dv_api_call *c, const char *why)
{
    dv_api_reply_text(c->req, 422, why);
    return true;
}

/* Answers 422 itself and returns true when a parameter cannot be read. */
static bool of_refused(struct dv_api_call *c, struct dv_logs_request *r)
{
    const char *tail = dv_http_param(c->req, "tail"), *follow = dv_http_param(c->req, "follow");
    r->tail = -1;
    if (tail && *tail && !dv_parse_i64(dv_sv_c(tail), &r->tail))
        return unprocessable(c, "tail must be a number");
    if (r->tail <= 0 || r->tail > LINES_MAX)
        r->tail = -1;
    if (follow && *follow && !strchr("01", *follow) && strcmp(follow, "true") != 0 &&
        strcmp(follow, "false") != 0)
        return unprocessable(c, "follow must be true or false");
    r->follow = follow && (*follow == '1' || strcmp(follow, "true") == 0);
    if (read_since(c, &r->since_ms))
        return unprocessable(c, "since must be a time as RFC 3339 writes it");
    if (read_replica(c, "instance", &r->replica, NULL))
        return unprocessable(c, "instance must be 16 hex digits");
    return false;
}

int dv_of_logs(struct dv_api_call *c, struct dv_err *err)
{
    const char *given = dv_http_param(c->req, "name");
    struct dv_logs_request r = {0};
    struct dv_sv name, dotted;
    if (!given || !*given)
        return dv_err_set(err, DV_INVALID, "name is missing: /system/logs?name=FUNCTION");
    if (of_refused(c, &r))
        return DV_OK;
    bool has_dot = dv_sv_cut(dv_sv_c(given), '.', &name, &dotted);
    const char *ns = dv_of_ns_in(has_dot ? dotted.p : dv_http_param(c->req, "namespace"));
    const struct dv_function *fn = dv_control_fn_find(c->api->cfg.control, dv_sv_c(ns), name);
    if (!fn)
        return dv_err_set(err, DV_NOT_FOUND, "there is no function \"%.64s\"", given);
    r.fn_uid = fn->uid;
    return open_stream(c, &r, fn->spec.name, dv_of_ns_out(fn->spec.ns), err);
}
