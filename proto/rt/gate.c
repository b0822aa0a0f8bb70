/* Strict on both sides: what one side would not write the other does not take.  The agent reads words from a
 * socket that a function may have got at; davit-init must not be confused by an agent of another version. */
#include "proto/rt/gate.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

enum { WORD_FIXED = 40, RUN_FIXED = 8 };
static const char magic[4] = {'D', 'V', 'G', '1'};

static void put32(char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (char)(v >> 8 * i & 0xff);
}

static void put64(char *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static uint32_t get32(const char *p)
{
    uint32_t v = 0;
    for (int i = 3; i >= 0; i--)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

static uint64_t get64(const char *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* ---- head ---- */

static void head_write(char *p, enum dv_gate_type type, size_t n)
{
    memcpy(p, magic, sizeof(magic));
    put32(p + 4, (uint32_t)type); /* one byte and three of zero */
    put32(p + 8, (uint32_t)n);
}

int dv_gate_head_read(const char *p, struct dv_gate_head *out)
{
    uint32_t type = get32(p + 4), n = get32(p + 8);
    bool is_word = type >= DV_GATE_HELLO && type <= DV_GATE_EXITED;
    if (memcmp(p, magic, sizeof(magic)) != 0 || (!is_word && type != DV_GATE_RUN))
        return DV_E_PROTO;
    if (is_word ? n < WORD_FIXED || n > WORD_FIXED + DV_GATE_TEXT_MAX : n < RUN_FIXED || n > DV_GATE_RUN_MAX)
        return DV_E_PROTO;
    *out = (struct dv_gate_head){(enum dv_gate_type)type, n};
    return DV_OK;
}

/* ---- words ---- */

size_t dv_gate_word_write(const struct dv_gate_word *w, char out[DV_GATE_WORD_MAX])
{
    size_t n_text = w->type == DV_GATE_REFUSED ? strnlen(w->text, DV_GATE_TEXT_MAX) : 0;
    char *p = out + DV_GATE_HEAD;
    head_write(out, w->type, WORD_FIXED + n_text);
    put32(p, w->pid);
    put32(p + 4, w->code);
    put32(p + 8, w->signal);
    put32(p + 12, 0);
    put64(p + 16, w->user_us);
    put64(p + 24, w->sys_us);
    put64(p + 32, w->max_rss_bytes);
    memcpy(p + WORD_FIXED, w->text, n_text);
    return DV_GATE_HEAD + WORD_FIXED + n_text;
}

int dv_gate_word_read(struct dv_sv bytes, struct dv_gate_word *out, size_t *out_used)
{
    struct dv_gate_head head;
    if (bytes.n < DV_GATE_HEAD)
        return DV_AGAIN;
    if (dv_gate_head_read(bytes.p, &head) || head.type == DV_GATE_RUN)
        return DV_E_PROTO;
    if (bytes.n - DV_GATE_HEAD < head.n)
        return DV_AGAIN;
    const char *p = bytes.p + DV_GATE_HEAD;
    struct dv_sv text = dv_sv(p + WORD_FIXED, head.n - WORD_FIXED);
    if (get32(p + 12) || (text.n && head.type != DV_GATE_REFUSED) || memchr(text.p, 0, text.n) ||
        !dv_utf8_valid(text))
        return DV_E_PROTO;
    *out = (struct dv_gate_word){.type = head.type,
                                 .pid = get32(p),
                                 .code = get32(p + 4),
                                 .signal = get32(p + 8),
                                 .user_us = get64(p + 16),
                                 .sys_us = get64(p + 24),
                                 .max_rss_bytes = get64(p + 32)};
    memcpy(out->text, text.p, text.n);
    *out_used = DV_GATE_HEAD + head.n;
    return DV_OK;
}

/* ---- run: number of arguments, number of variables, then directory, arguments, variables, each with its NUL
 * ---- */

static bool is_variable(const char *s)
{
    const char *eq = strchr(s, '=');
    return eq && eq > s;
}

static int check(const struct dv_gate_run *r)
{
    const char *dir = r->workdir ? r->workdir : "";
    if (!r->argv.n || !r->argv.v[0][0] || (dir[0] && dir[0] != '/'))
        return DV_INVALID;
    for (size_t i = 0; i < r->env.n; i++)
        if (!is_variable(r->env.v[i]))
            return DV_INVALID;
    return r->argv.n > DV_GATE_STRINGS_MAX || r->env.n > DV_GATE_STRINGS_MAX ? DV_TOO_LARGE : DV_OK;
}

static size_t size_of(const struct dv_gate_run *r)
{
    size_t n = RUN_FIXED + strlen(r->workdir ? r->workdir : "") + 1;
    for (size_t i = 0; i < r->argv.n; i++)
        n += strlen(r->argv.v[i]) + 1;
    for (size_t i = 0; i < r->env.n; i++)
        n += strlen(r->env.v[i]) + 1;
    return n;
}

static void put_string(struct dv_buf *b, const char *s)
{
    (void)dv_buf_add(b, s, strlen(s) + 1); /* there is room */
}

int dv_gate_run_write(struct dv_buf *out, const struct dv_gate_run *r)
{
    char fixed[DV_GATE_HEAD + RUN_FIXED];
    int rc = check(r);
    if (rc)
        return rc;
    size_t n = size_of(r);
    if (n > DV_GATE_RUN_MAX)
        return DV_TOO_LARGE;
    rc = dv_buf_reserve(out, DV_GATE_HEAD + n);
    if (rc)
        return rc;
    head_write(fixed, DV_GATE_RUN, n);
    put32(fixed + DV_GATE_HEAD, (uint32_t)r->argv.n);
    put32(fixed + DV_GATE_HEAD + 4, (uint32_t)r->env.n);
    (void)dv_buf_add(out, fixed, sizeof(fixed));
    put_string(out, r->workdir ? r->workdir : "");
    for (size_t i = 0; i < r->argv.n; i++)
        put_string(out, r->argv.v[i]);
    for (size_t i = 0; i < r->env.n; i++)
        put_string(out, r->env.v[i]);
    return DV_OK;
}

/* The next string of *rest; NULL when none ends in it. */
static char *cut_string(struct dv_sv *rest)
{
    const char *end = memchr(rest->p, 0, rest->n);
    const char *s = rest->p;
    if (!end)
        return NULL;
    *rest = dv_sv(end + 1, rest->n - (size_t)(end + 1 - s));
    return (char *)(uintptr_t)s;
}

static int cut_list(struct dv_sv *rest, char **v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(v[i] = cut_string(rest)))
            return DV_E_PROTO;
    return DV_OK;
}

int dv_gate_run_read(struct dv_sv body, struct dv_gate_run *out)
{
    if (body.n < RUN_FIXED || body.n > DV_GATE_RUN_MAX)
        return DV_E_PROTO;
    uint32_t n_argv = get32(body.p), n_env = get32(body.p + 4);
    if (n_argv > DV_GATE_STRINGS_MAX || n_env > DV_GATE_STRINGS_MAX)
        return DV_E_PROTO;
    struct dv_sv rest = dv_sv(body.p + RUN_FIXED, body.n - RUN_FIXED);
    char **v = dv_zalloc_n((size_t)n_argv + n_env + 2, sizeof(*v));
    if (!v)
        return DV_E_NOMEM;
    struct dv_gate_run run = {.argv = {v, n_argv}, .env = {v + n_argv + 1, n_env}};
    run.workdir = cut_string(&rest);
    int rc = run.workdir ? cut_list(&rest, run.argv.v, n_argv) : DV_E_PROTO;
    if (!rc)
        rc = cut_list(&rest, run.env.v, n_env);
    if (rc || rest.n || check(&run)) {
        dv_free(v);
        return DV_E_PROTO;
    }
    *out = run;
    return DV_OK;
}

void dv_gate_run_deinit(struct dv_gate_run *r)
{
    dv_free(r->argv.v); /* env.v is its second half */
    *r = (struct dv_gate_run){0};
}
