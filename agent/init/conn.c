/* A connection of the stdio server.
 *
 * The answer is held back for a moment (16 KiB or 10 ms): most programs are done by then, so that their
 * answer gets a Content-Length and their exit code its say.  Past that it is streamed, chunked, and a failing
 * program can only break it off.  Nothing grows: in and out are bounded, and a side that does not read stops
 * the other one. */
#include "agent/init/conn.h"
#include "proto/base/alloc.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUFFER = 64 * 1024,
    HOLD = 16 * 1024,
    HOLD_MS = 10,
    GRACE_MS = 2000,
    HEAD_MS = 30000,
    PIECE = 32 * 1024
};

struct init_conn *init_conn_new(int fd)
{
    struct init_conn *c = dv_zalloc(sizeof(*c));
    if (!c)
        return NULL;
    c->fd = fd;
    c->child = (struct init_child){.in_fd = -1, .out_fd = -1};
    dv_buf_init(&c->in, DV_H1_MAX_HEAD + BUFFER);
    dv_buf_init(&c->out, 0);
    dv_buf_init(&c->held, 0);
    return c;
}

void init_conn_free(struct init_conn *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    init_child_deinit(&c->child);
    dv_buf_deinit(&c->in);
    dv_buf_deinit(&c->out);
    dv_buf_deinit(&c->held);
    dv_free(c);
}

static void leave(struct init_conn *c, struct init_server *s)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    if (c->has_child)
        init_child_end(&c->child, s->now_ms, GRACE_MS);
    c->state = CONN_GONE;
}

/* ---- the answer ---- */

static void answer(struct init_conn *c, int status, struct dv_sv type, struct dv_sv body, const char *fate)
{
    struct init_answer a = {.status = status,
                            .content_type = type,
                            .length = (int64_t)body.n,
                            .fate = fate,
                            .keep_alive = c->keep_alive,
                            .minor = c->minor};
    (void)init_answer_head(&c->out, &a); /* out of memory shows in out.failed */
    if (!c->is_head_method)
        (void)dv_buf_add_sv(&c->out, body);
    c->state = CONN_END;
}

static void answer_text(struct init_conn *c, int status, const char *text, const char *fate)
{
    char line[300];
    int n = snprintf(line, sizeof(line), "%s\n", text);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1;
    answer(c, status, DV_SV("text/plain; charset=utf-8"), dv_sv(line, len), fate);
}

static void add_output(struct init_conn *c, struct dv_sv bytes)
{
    if (!bytes.n || c->is_head_method)
        return;
    if (c->minor >= 1)
        (void)dv_buf_addf(&c->out, "%zx\r\n", bytes.n);
    (void)dv_buf_add_sv(&c->out, bytes);
    if (c->minor >= 1)
        (void)dv_buf_add_c(&c->out, "\r\n");
}

static void start_streaming(struct init_conn *c)
{
    if (c->minor < 1)
        c->keep_alive = false;
    struct init_answer a = {.status = 200,
                            .content_type = dv_sv_c(c->content_type),
                            .length = -1,
                            .keep_alive = c->keep_alive,
                            .minor = c->minor};
    (void)init_answer_head(&c->out, &a);
    add_output(c, dv_buf_sv(&c->held));
    dv_buf_reset(&c->held, 0);
    c->is_started = true;
    c->first_out_ms = 0;
}

static void conclude(struct init_conn *c, struct init_server *s)
{
    bool ok = c->child.status == 0 && !c->is_timed_out;
    char fate[96], why[160];
    init_child_fate(c->child.status, fate, sizeof(fate));
    if (c->is_timed_out)
        (void)snprintf(fate, sizeof(fate), "stopped after %lld ms", (long long)s->cfg->timeout_ms);
    init_child_deinit(&c->child);
    c->has_child = false;
    c->first_out_ms = c->deadline_ms = 0;
    if (c->is_started && !ok) {
        leave(c, s); /* no last chunk: the client sees that the answer broke off */
    } else if (c->is_started) {
        if (c->minor >= 1 && !c->is_head_method)
            (void)dv_buf_add_c(&c->out, "0\r\n\r\n");
        c->state = CONN_END;
    } else if (!ok && (!dv_buf_len(&c->held) || c->is_timed_out)) {
        (void)snprintf(why, sizeof(why), "the program failed: %s", fate);
        answer_text(c, c->is_timed_out ? 504 : 500, why, fate);
    } else {
        answer(c, ok ? 200 : 500, dv_sv_c(c->content_type), dv_buf_sv(&c->held), ok ? NULL : fate);
    }
    dv_buf_reset(&c->held, 0);
}

/* ---- the program's pipes ---- */

static void take_output(struct init_conn *c, const char *p, size_t n, int64_t now_ms)
{
    if (c->is_started) {
        add_output(c, dv_sv(p, n));
        return;
    }
    (void)dv_buf_add(&c->held, p, n);
    if (!c->first_out_ms)
        c->first_out_ms = now_ms;
    if (dv_buf_len(&c->held) >= HOLD)
        start_streaming(c);
}

static void pump_output(struct init_conn *c, struct init_server *s)
{
    char piece[PIECE];
    while (!c->is_output_end && (c->state == CONN_GONE || dv_buf_len(&c->out) < BUFFER)) {
        ssize_t n = read(c->child.out_fd, piece, sizeof(piece));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && !c->child.is_dead)
            break;
        if (n <= 0) {
            c->is_output_end = true; /* closed, or the program is dead and what it wrote has been read */
            (void)close(c->child.out_fd);
            c->child.out_fd = -1;
        } else if (c->state == CONN_RUN) {
            take_output(c, piece, (size_t)n, s->now_ms);
        }
    }
    if (c->first_out_ms && s->now_ms >= c->first_out_ms + HOLD_MS && !c->child.is_dead &&
        c->state == CONN_RUN)
        start_streaming(c);
}

static void close_stdin(struct init_conn *c)
{
    if (c->child.in_fd >= 0)
        (void)close(c->child.in_fd);
    c->child.in_fd = -1;
}

/* Make `run` say how many bytes of body stand at the front of in.  False: none yet, or no more (is_body_end).
 */
static bool next_run(struct init_conn *c)
{
    size_t have = dv_buf_len(&c->in);
    if (c->run || c->is_body_end)
        return c->run != 0;
    if (c->body == DV_H1_LENGTH) {
        c->run = c->left < have ? (size_t)c->left : have;
        c->left -= c->run;
        c->run_after = 0;
    }
    while (c->body == DV_H1_CHUNKED && !c->run && !c->is_body_end) {
        enum dv_h1_chunk_event ev;
        struct dv_sv out = {NULL, 0};
        size_t used = 0;
        const char *p = dv_buf_ptr(&c->in);
        if (dv_h1_chunked_next(&c->chunked, p, dv_buf_len(&c->in), &ev, &out, &used, NULL) != DV_OK) {
            c->is_eof = true; /* not HTTP: as if the client had left */
            return false;
        }
        size_t before = ev == DV_H1_CHUNK_DATA ? (size_t)(out.p - p) : used;
        dv_buf_consume(&c->in, before);
        if (ev == DV_H1_CHUNK_DATA) {
            c->run = out.n;
            c->run_after = used - before - out.n;
        }
        c->is_body_end = ev == DV_H1_CHUNK_DONE;
        if (ev == DV_H1_CHUNK_MORE)
            return false;
    }
    if (c->body != DV_H1_CHUNKED && !c->run && !c->left)
        c->is_body_end = true;
    return c->run != 0;
}

static void pass_run(struct init_conn *c, size_t n)
{
    dv_buf_consume(&c->in, n);
    c->run -= n;
    if (!c->run)
        dv_buf_consume(&c->in, c->run_after);
}

/* Body to the program's stdin; to nowhere once it has closed that. */
static void pump_input(struct init_conn *c)
{
    while (next_run(c)) {
        size_t n = c->run;
        if (c->child.in_fd >= 0) {
            ssize_t rc = write(c->child.in_fd, dv_buf_ptr(&c->in), n);
            if (rc < 0 && errno == EAGAIN)
                return;
            if (rc < 0 && errno != EINTR)
                close_stdin(c);
            n = rc > 0 ? (size_t)rc : 0;
        }
        pass_run(c, n);
    }
    if (c->is_body_end)
        close_stdin(c);
}

/* ---- requests ---- */

static void refuse(struct init_conn *c, int code, const struct dv_err *err)
{
    int status = code == DV_TOO_LARGE     ? (!strcmp(err->field, "target") ? 414 : 431)
                 : code == DV_UNSUPPORTED ? (!strcmp(err->field, "transfer-encoding") ? 501 : 505)
                                          : 400;
    c->keep_alive = false;
    c->is_body_end = true;
    answer_text(c, status, dv_err_msg(err, code), NULL);
}

static void begin(struct init_conn *c, struct init_server *s, const struct dv_h1_head *h)
{
    struct dv_sv type = dv_h1_find(h, "Content-Type");
    bool fits = type.n && type.n < sizeof(c->content_type);
    (void)snprintf(c->content_type, sizeof(c->content_type), "%.*s", fits ? (int)type.n : 10,
                   fits ? type.p : "text/plain");
    c->is_head_method = dv_sv_eq(h->method, DV_SV("HEAD"));
    c->keep_alive = h->keep_alive && !s->is_stopping;
    c->minor = h->minor;
    c->body = h->body;
    c->left = h->body == DV_H1_LENGTH ? h->content_length : 0;
    dv_h1_chunked_init(&c->chunked);
    c->run = c->run_after = 0;
    c->is_body_end = h->body != DV_H1_CHUNKED && !c->left;
    c->is_started = c->is_timed_out = c->is_output_end = c->is_waiting = false;
    c->first_out_ms = c->deadline_ms = 0;
    struct init_env env;
    int rc = init_env_build(&env, h) ? ENOMEM : init_child_spawn(&c->child, s->program, s->cfg->argv, env.v);
    if (env.v)
        init_env_deinit(&env);
    if (rc) {
        char why[160];
        (void)snprintf(why, sizeof(why), "the program could not be started: %s", strerror(rc));
        answer_text(c, rc == E2BIG ? 431 : 503, why, NULL);
        return;
    }
    c->has_child = true;
    c->state = CONN_RUN;
    s->n_running++;
    if (s->cfg->timeout_ms)
        c->deadline_ms = s->now_ms + s->cfg->timeout_ms;
    if (h->expect_continue && !c->is_body_end)
        (void)dv_buf_add_c(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
}

static void try_head(struct init_conn *c, struct init_server *s)
{
    static struct dv_h1_head head; /* one thread; too large for a comfortable stack frame */
    struct dv_err err = DV_ERR_INIT;
    size_t used;
    if (!dv_buf_len(&c->in)) {
        c->deadline_ms = 0;
        return;
    }
    int rc = dv_h1_parse_request(dv_buf_ptr(&c->in), dv_buf_len(&c->in), &head, &used, &err);
    if (rc == DV_AGAIN) {
        if (!c->deadline_ms)
            c->deadline_ms = s->now_ms + HEAD_MS;
    } else if (rc) {
        refuse(c, rc, &err);
    } else if (s->n_running >= s->cfg->concurrency) {
        c->is_waiting = true;
        c->deadline_ms = 0;
    } else {
        begin(c, s, &head);
        dv_buf_consume(&c->in, used);
    }
}

static bool flush(struct init_conn *c)
{
    while (dv_buf_len(&c->out)) {
        ssize_t n = send(c->fd, dv_buf_ptr(&c->out), dv_buf_len(&c->out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        dv_buf_consume(&c->out, (size_t)n);
    }
    dv_buf_reset(&c->out, BUFFER);
    return true;
}

void init_conn_readable(struct init_conn *c, struct init_server *s)
{
    if (dv_buf_len(&c->in) >= DV_H1_MAX_HEAD || dv_buf_reserve(&c->in, PIECE)) {
        c->is_eof = c->is_eof || c->in.failed; /* full: only reached through a hang-up */
    } else {
        ssize_t n = recv(c->fd, dv_buf_end(&c->in), dv_buf_room(&c->in), 0);
        if (n > 0)
            dv_buf_commit(&c->in, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            c->is_eof = true;
    }
    /* Whoever stops sending in the middle of a run has left: our one client never half-closes. */
    if (c->is_eof && c->state == CONN_RUN)
        leave(c, s);
}

static void tick(struct init_conn *c, struct init_server *s)
{
    if (c->has_child)
        init_child_tick(&c->child, s->now_ms);
    if (!c->deadline_ms || s->now_ms < c->deadline_ms)
        return;
    c->deadline_ms = 0;
    if (c->state == CONN_RUN) {
        c->is_timed_out = true;
        init_child_end(&c->child, s->now_ms, GRACE_MS);
    } else if (c->state == CONN_HEAD) {
        c->is_eof = true;
    }
}

static void step_run(struct init_conn *c, struct init_server *s)
{
    if (c->state == CONN_RUN)
        pump_input(c);
    if (!c->is_output_end)
        pump_output(c, s);
    if (c->state == CONN_RUN && c->is_eof)
        leave(c, s);
    if (!c->child.is_dead || !c->is_output_end)
        return;
    s->n_running--;
    if (c->state == CONN_RUN)
        conclude(c, s);
    else
        c->has_child = false;
}

bool init_conn_step(struct init_conn *c, struct init_server *s)
{
    tick(c, s);
    if (c->state == CONN_HEAD)
        try_head(c, s);
    if (c->has_child)
        step_run(c, s);
    if (c->out.failed && c->state != CONN_GONE)
        leave(c, s);
    if (c->state == CONN_GONE)
        return c->has_child;
    if (!flush(c)) {
        leave(c, s);
        return c->has_child;
    }
    if (c->state == CONN_END) {
        pump_input(c);
        if (dv_buf_len(&c->out) || (!c->is_body_end && !c->is_eof))
            return true;
        if (!c->keep_alive || c->is_eof)
            return false;
        c->state = CONN_HEAD;
        if (dv_buf_len(&c->in))
            return init_conn_step(c, s);
        dv_buf_reset(&c->in, BUFFER);
    }
    return c->state != CONN_HEAD || !(c->is_eof || (s->is_stopping && !dv_buf_len(&c->in)));
}

/* ---- what to wait for ---- */

short init_conn_events(const struct init_conn *c)
{
    short events = POLLRDHUP;
    if (!c->is_waiting && dv_buf_len(&c->in) < DV_H1_MAX_HEAD)
        events |= POLLIN;
    if (dv_buf_len(&c->out))
        events |= POLLOUT;
    return events;
}

bool init_conn_wants_stdin(const struct init_conn *c)
{
    return c->state == CONN_RUN && c->child.in_fd >= 0 && c->run > 0;
}

bool init_conn_wants_stdout(const struct init_conn *c)
{
    return c->has_child && !c->is_output_end && (c->state == CONN_GONE || dv_buf_len(&c->out) < BUFFER);
}

int64_t init_conn_wake_ms(const struct init_conn *c)
{
    int64_t at = INT64_MAX;
    if (c->deadline_ms)
        at = c->deadline_ms;
    if (c->has_child && c->child.kill_at_ms && c->child.kill_at_ms < at)
        at = c->child.kill_at_ms;
    if (c->first_out_ms && c->first_out_ms + HOLD_MS < at)
        at = c->first_out_ms + HOLD_MS;
    return at;
}
