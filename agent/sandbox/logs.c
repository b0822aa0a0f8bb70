/* Log lines: straight from the engine for replicas that exist, from a small ring per function for those that
 * are gone.
 *
 * A request names a function (or one of its replicas) and may follow: then replicas that start later join in.
 * Lines of one loop turn leave together; a request holds no more than a chunk of them at a time. */
#include "agent/sandbox/sandbox_internal.h"
#include "proto/base/alloc.h"

enum { CHUNK_LINES = 128, REQUESTS_MAX = 64 };

struct log_request {
    struct dv_list node, sources;
    struct dv_sandbox *sb;
    struct dv_cmd_logs cmd;
    struct dv_log_line lines[CHUNK_LINES];
    size_t n_lines;
    struct dv_defer flush;
};

struct log_source {
    struct dv_list node;
    struct log_request *req;
    uint64_t replica;
    void *handle;
    bool is_opening, is_over; /* without memory the engine says so before it returns */
};

struct fn_tail {
    struct dv_list order;
    uint64_t fn_uid;
    struct sb_lines lines;
};

/* ---- bounded lines ---- */

void sb_lines_free(struct sb_lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        dv_free(l->v[i].text);
    dv_free(l->v);
    *l = (struct sb_lines){0};
}

static int lines_push(struct sb_lines *l, struct dv_log_line line)
{
    if (!l->v && !(l->v = dv_zalloc_n(SB_TAIL_LINES, sizeof(*l->v))))
        return DV_E_NOMEM;
    if (l->n == SB_TAIL_LINES) {
        dv_free(l->v[0].text);
        memmove(l->v, l->v + 1, (SB_TAIL_LINES - 1) * sizeof(*l->v));
        l->n--;
    }
    l->v[l->n++] = line;
    return DV_OK;
}

/* What a program writes need not be UTF-8; what we report must be. */
static char *clean_text(struct dv_sv s)
{
    char *p = dv_strndup(s.p, s.n);
    for (size_t i = 0; p && i < s.n; i++)
        if (!p[i])
            p[i] = '?';
    if (p && !dv_utf8_valid(dv_sv(p, s.n)))
        for (size_t i = 0; i < s.n; i++)
            if ((unsigned char)p[i] >= 0x80)
                p[i] = '?';
    return p;
}

int sb_lines_add(struct sb_lines *l, uint64_t replica, const struct dv_engine_log *line)
{
    char *text = clean_text(line->text);
    if (!text)
        return DV_E_NOMEM;
    int rc = lines_push(l, (struct dv_log_line){replica, line->wall_ms, line->is_stderr, text});
    if (rc)
        dv_free(text);
    return rc;
}

char *sb_lines_text(const struct sb_lines *l, size_t n_last)
{
    DV_AUTO_BUF struct dv_buf b;
    dv_buf_init(&b, 8192);
    for (size_t i = l->n > n_last ? l->n - n_last : 0; i < l->n; i++) {
        (void)dv_buf_add_c(&b, l->v[i].text); /* past 8 KiB the rest is left out */
        (void)dv_buf_add_c(&b, i + 1 < l->n ? "\n" : "");
    }
    size_t n;
    return dv_buf_len(&b) ? dv_buf_steal(&b, &n) : NULL;
}

/* ---- rings of functions ---- */

static struct fn_tail *tail_get(struct dv_sandbox *s, uint64_t uid)
{
    struct fn_tail *t = dv_idmap_find(&s->tails, uid);
    if (t) {
        dv_list_remove(&t->order);
        dv_list_push_back(&s->tail_order, &t->order);
        return t;
    }
    if (s->tails.n >= SB_TAIL_FUNCTIONS) {
        struct fn_tail *old = DV_LIST_ENTRY(s->tail_order.next, struct fn_tail, order);
        (void)dv_idmap_remove(&s->tails, old->fn_uid);
        dv_list_remove(&old->order);
        sb_lines_free(&old->lines);
        dv_free(old);
    }
    t = dv_zalloc(sizeof(*t));
    if (t && dv_idmap_put(&s->tails, uid, t)) {
        dv_free(t);
        return NULL;
    }
    if (t) {
        t->fn_uid = uid;
        dv_list_push_back(&s->tail_order, &t->order);
    }
    return t;
}

void sb_tails_take(struct sb_replica *r)
{
    struct fn_tail *t = r->tail.n ? tail_get(r->sb, r->cmd.fn_uid) : NULL;
    for (size_t i = 0; t && i < r->tail.n; i++) {
        if (lines_push(&t->lines, r->tail.v[i]))
            break;
        r->tail.v[i].text = NULL;
    }
    sb_lines_free(&r->tail);
}

void sb_tails_free(struct dv_sandbox *s)
{
    size_t i = 0;
    for (struct fn_tail *t; (t = dv_map_next(&s->tails, &i));) {
        sb_lines_free(&t->lines);
        dv_free(t);
    }
    dv_map_deinit(&s->tails);
}

/* ---- requests ---- */

static void send_lines(struct log_request *q, bool end)
{
    dv_defer_cancel(&q->flush);
    if (q->n_lines || end) {
        struct dv_log_chunk chunk = {
            .request = q->cmd.request, .lines = q->lines, .n_lines = q->n_lines, .end = end};
        q->sb->cfg.on_logs(q->sb->cfg.ctx, &chunk);
    }
    for (size_t i = 0; i < q->n_lines; i++)
        dv_free(q->lines[i].text);
    q->n_lines = 0;
}

static void on_flush(struct dv_defer *d)
{
    send_lines(DV_CONTAINER_OF(d, struct log_request, flush), false);
}

static void put_line(struct log_request *q, struct dv_log_line line)
{
    if (!line.text)
        return;
    q->lines[q->n_lines++] = line;
    if (q->n_lines == CHUNK_LINES)
        send_lines(q, false);
    else
        dv_loop_defer(q->sb->cfg.loop, &q->flush);
}

static void source_free(struct log_source *src)
{
    if (src->handle)
        sb_ops(src->req->sb)->logs_cancel(src->req->sb->cfg.engine, src->handle);
    dv_list_remove(&src->node);
    dv_free(src);
}

static void request_free(struct log_request *q)
{
    DV_LIST_FOR_EACH_SAFE (n, &q->sources)
        source_free(DV_LIST_ENTRY(n, struct log_source, node));
    dv_defer_cancel(&q->flush);
    for (size_t i = 0; i < q->n_lines; i++)
        dv_free(q->lines[i].text);
    dv_list_remove(&q->node);
    dv_free(q);
}

static void end_if_done(struct log_request *q)
{
    if (q->cmd.follow || !dv_list_empty(&q->sources))
        return;
    send_lines(q, true);
    request_free(q);
}

static void on_line(void *ctx, const struct dv_engine_log *line)
{
    struct log_source *src = ctx;
    put_line(src->req,
             (struct dv_log_line){src->replica, line->wall_ms, line->is_stderr, clean_text(line->text)});
}

static void on_source_done(void *ctx, int code, const struct dv_err *err)
{
    struct log_source *src = ctx;
    struct log_request *q = src->req;
    (void)code; /* a container that went away has said what it had to say */
    (void)err;
    src->handle = NULL;
    src->is_over = true;
    if (src->is_opening)
        return;
    source_free(src);
    end_if_done(q);
}

static bool concerns(const struct log_request *q, const struct sb_replica *r)
{
    return r->container[0] && (q->cmd.replica ? r->id == q->cmd.replica : r->cmd.fn_uid == q->cmd.fn_uid);
}

static void add_source(struct log_request *q, const struct sb_replica *r, int64_t tail)
{
    struct log_source *src = dv_zalloc(sizeof(*src));
    if (!src)
        return;
    src->req = q;
    src->replica = r->id;
    dv_list_push_back(&q->sources, &src->node);
    src->is_opening = true;
    void *handle = sb_ops(q->sb)->logs(q->sb->cfg.engine, r->container, tail, q->cmd.since_ms, q->cmd.follow,
                                       on_line, on_source_done, src);
    src->is_opening = false;
    if (src->is_over)
        source_free(src);
    else
        src->handle = handle;
}

static void add_ring(struct log_request *q)
{
    struct fn_tail *t = dv_idmap_find(&q->sb->tails, q->cmd.fn_uid);
    size_t n = t ? t->lines.n : 0;
    size_t from = q->cmd.tail >= 0 && (size_t)q->cmd.tail < n ? n - (size_t)q->cmd.tail : 0;
    for (size_t i = from; i < n; i++) {
        struct dv_log_line line = t->lines.v[i];
        if ((q->cmd.replica && line.replica != q->cmd.replica) || line.wall_ms < q->cmd.since_ms)
            continue;
        line.text = dv_strdup(line.text);
        put_line(q, line);
    }
}

static struct log_request *request_find(struct dv_sandbox *s, uint64_t request, size_t *out_n)
{
    struct log_request *found = NULL;
    *out_n = 0;
    DV_LIST_FOR_EACH (n, &s->log_requests) {
        struct log_request *q = DV_LIST_ENTRY(n, struct log_request, node);
        ++*out_n;
        if (q->cmd.request == request)
            found = q;
    }
    return found;
}

void dv_sandbox_logs(struct dv_sandbox *s, const struct dv_cmd_logs *cmd)
{
    size_t n;
    struct log_request *q = request_find(s, cmd->request, &n);
    if (cmd->cancel || q) {
        if (cmd->cancel && q)
            request_free(q);
        return;
    }
    q = n < REQUESTS_MAX ? dv_zalloc(sizeof(*q)) : NULL;
    if (!q) {
        s->cfg.on_logs(s->cfg.ctx, &(struct dv_log_chunk){.request = cmd->request, .end = true});
        return;
    }
    q->sb = s;
    q->cmd = *cmd;
    q->flush.fn = on_flush;
    dv_list_init(&q->sources);
    dv_list_push_back(&s->log_requests, &q->node);
    add_ring(q);
    DV_LIST_FOR_EACH (it, &s->replicas) {
        struct sb_replica *r = DV_LIST_ENTRY(it, struct sb_replica, node);
        if (concerns(q, r))
            add_source(q, r, cmd->tail);
    }
    end_if_done(q);
}

void sb_logs_replica_up(struct sb_replica *r)
{
    DV_LIST_FOR_EACH (n, &r->sb->log_requests) {
        struct log_request *q = DV_LIST_ENTRY(n, struct log_request, node);
        if (q->cmd.follow && concerns(q, r))
            add_source(q, r, -1);
    }
}

void dv_sandbox_logs_drop(struct dv_sandbox *s)
{
    DV_LIST_FOR_EACH_SAFE (n, &s->log_requests)
        request_free(DV_LIST_ENTRY(n, struct log_request, node));
}

/* The engine is closed by now: its handles are gone. */
void sb_logs_free(struct dv_sandbox *s)
{
    DV_LIST_FOR_EACH (n, &s->log_requests) {
        struct log_request *q = DV_LIST_ENTRY(n, struct log_request, node);
        DV_LIST_FOR_EACH (k, &q->sources)
            DV_LIST_ENTRY(k, struct log_source, node)->handle = NULL;
    }
    dv_sandbox_logs_drop(s);
}
