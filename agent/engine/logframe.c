#include "agent/engine/logframe.h"
#include "proto/rt/clock.h"

enum { TIME_MAX = 40, LINE_ROOM = DV_LOG_LINE_MAX + TIME_MAX };

void dv_logframe_init(struct dv_logframe *f)
{
    *f = (struct dv_logframe){.n_head = 0};
    dv_buf_init(&f->line, LINE_ROOM);
}

void dv_logframe_deinit(struct dv_logframe *f)
{
    dv_buf_deinit(&f->line);
}

bool dv_logframe_is_partial(const struct dv_logframe *f)
{
    return f->n_head > 0;
}

/* Length of the UTF-8 sequence at p, 0 when it is none. */
static size_t sequence(const unsigned char *p, size_t n)
{
    size_t want = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
    if (!want || want > n || (want == 1 && p[0] == 0))
        return 0;
    return dv_utf8_valid(dv_sv((const char *)p, want)) ? want : 0;
}

/* What a function prints is any bytes; from here on it is text. */
static void make_text(char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = sequence((const unsigned char *)s + i, n - i);
        if (!len)
            s[i] = '?';
        i += len ? len : 1;
    }
}

static int64_t take_time(struct dv_sv *text)
{
    char stamp[TIME_MAX];
    struct dv_sv head, rest;
    int64_t ms = 0;
    if (!dv_sv_cut(*text, ' ', &head, &rest) || head.n < 20 || head.n >= sizeof(stamp))
        return 0;
    memcpy(stamp, head.p, head.n);
    stamp[head.n] = '\0';
    if (dv_rfc3339_parse(stamp, &ms))
        return 0;
    *text = rest;
    return ms;
}

static int give(struct dv_logframe *f, int (*line)(void *, const struct dv_engine_log *), void *ctx)
{
    make_text(dv_buf_ptr(&f->line), dv_buf_len(&f->line));
    struct dv_engine_log l = {.is_stderr = f->head[0] == 2, .text = dv_buf_sv(&f->line)};
    l.wall_ms = take_time(&l.text);
    if (l.text.n > DV_LOG_LINE_MAX)
        l.text.n = DV_LOG_LINE_MAX;
    int rc = line(ctx, &l);
    if (rc == DV_OK)
        dv_buf_clear(&f->line);
    return rc;
}

static int take_head(struct dv_logframe *f, struct dv_err *err)
{
    if (f->head[0] > 2 || f->head[1] || f->head[2] || f->head[3])
        return dv_err_set(err, DV_E_PROTO, "the engine's log stream is not in frames");
    f->left =
        (uint32_t)f->head[4] << 24 | (uint32_t)f->head[5] << 16 | (uint32_t)f->head[6] << 8 | f->head[7];
    return DV_OK;
}

/* A run of payload that holds at most one newline, at its end. */
static int take_payload(struct dv_logframe *f, struct dv_sv run,
                        int (*line)(void *, const struct dv_engine_log *), void *ctx, struct dv_err *err)
{
    bool is_ended = run.p[run.n - 1] == '\n';
    size_t room = LINE_ROOM - dv_buf_len(&f->line), n = run.n - is_ended;
    if (dv_buf_add(&f->line, run.p, n < room ? n : room))
        return dv_err_set(err, DV_E_NOMEM, "log line");
    f->left -= (uint32_t)run.n;
    bool is_last = f->left == 0;
    if (is_last)
        f->n_head = 0;
    return is_ended || is_last ? give(f, line, ctx) : DV_OK;
}

int dv_logframe_feed(struct dv_logframe *f, struct dv_sv bytes,
                     int (*line)(void *ctx, const struct dv_engine_log *l), void *ctx, struct dv_err *err)
{
    while (bytes.n) {
        int rc = DV_OK;
        size_t n = 1;
        if (f->n_head < sizeof(f->head)) {
            f->head[f->n_head++] = (unsigned char)bytes.p[0];
            if (f->n_head == sizeof(f->head)) {
                rc = take_head(f, err);
                if (rc == DV_OK && !f->left)
                    f->n_head = 0; /* an empty frame says nothing */
            }
        } else {
            n = bytes.n < f->left ? bytes.n : f->left;
            const char *lf = memchr(bytes.p, '\n', n);
            n = lf ? (size_t)(lf - bytes.p) + 1 : n;
            rc = take_payload(f, dv_sv(bytes.p, n), line, ctx, err);
        }
        if (rc)
            return rc;
        bytes = dv_sv(bytes.p + n, bytes.n - n);
    }
    return DV_OK;
}
