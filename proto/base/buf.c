#include "proto/base/buf.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

#include <stdarg.h>

#include <assert.h>

void dv_buf_init(struct dv_buf *b, size_t max)
{
    *b = (struct dv_buf){.max = max};
}

void dv_buf_deinit(struct dv_buf *b)
{
    dv_free(b->data);
    *b = (struct dv_buf){.max = b->max};
}

void dv_buf_clear(struct dv_buf *b)
{
    b->head = b->tail = 0;
    b->failed = 0;
}

void dv_buf_reset(struct dv_buf *b, size_t keep_bytes)
{
    dv_buf_clear(b);
    if (b->cap > keep_bytes)
        dv_buf_deinit(b);
}

void dv_buf_consume(struct dv_buf *b, size_t n)
{
    assert(n <= dv_buf_len(b));
    b->head += n;
    if (b->head == b->tail)
        b->head = b->tail = 0;
}

void dv_buf_truncate(struct dv_buf *b, size_t len)
{
    assert(len <= dv_buf_len(b));
    b->tail = b->head + len;
}

static int fail(struct dv_buf *b, int code)
{
    if (!b->failed)
        b->failed = code;
    return code;
}

int dv_buf_reserve(struct dv_buf *b, size_t n)
{
    if (b->cap - b->tail >= n)
        return DV_OK;
    size_t len = dv_buf_len(b), need;
    if (__builtin_add_overflow(len, n, &need))
        return fail(b, DV_TOO_LARGE);
    if (b->head && b->cap >= need && b->head >= b->cap / 2) { /* cheap enough: half or more is spent */
        memmove(b->data, b->data + b->head, len);
        b->head = 0;
        b->tail = len;
        return DV_OK;
    }
    size_t cap = b->cap ? b->cap : 256;
    while (cap < need)
        if (__builtin_mul_overflow(cap, 2u, &cap))
            return fail(b, DV_TOO_LARGE);
    char *data = dv_alloc(cap);
    if (!data)
        return fail(b, DV_E_NOMEM);
    if (len)
        memcpy(data, b->data + b->head, len);
    dv_free(b->data);
    b->data = data;
    b->cap = cap;
    b->head = 0;
    b->tail = len;
    return DV_OK;
}

void dv_buf_commit(struct dv_buf *b, size_t n)
{
    assert(n <= dv_buf_room(b));
    b->tail += n;
}

int dv_buf_add(struct dv_buf *b, const void *p, size_t n)
{
    if (n == 0)
        return DV_OK;
    if (b->max && (n > b->max || dv_buf_len(b) > b->max - n))
        return fail(b, DV_TOO_LARGE);
    int rc = dv_buf_reserve(b, n);
    if (rc)
        return rc;
    memcpy(b->data + b->tail, p, n);
    b->tail += n;
    return DV_OK;
}

int dv_buf_add_sv(struct dv_buf *b, struct dv_sv s)
{
    return dv_buf_add(b, s.p, s.n);
}

int dv_buf_add_c(struct dv_buf *b, const char *s)
{
    return dv_buf_add(b, s, strlen(s));
}

int dv_buf_add_char(struct dv_buf *b, char c)
{
    return dv_buf_add(b, &c, 1);
}

int dv_buf_add_u64(struct dv_buf *b, uint64_t v)
{
    char text[20];
    size_t i = sizeof(text);
    do
        text[--i] = (char)('0' + v % 10);
    while (v /= 10);
    return dv_buf_add(b, text + i, sizeof(text) - i);
}

int dv_buf_addf(struct dv_buf *b, const char *fmt, ...)
{
    char small[256];
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    int rc = DV_E_BUG;
    if (n >= 0 && (size_t)n < sizeof(small)) {
        rc = dv_buf_add(b, small, (size_t)n);
    } else if (n >= 0) {
        if (b->max && dv_buf_len(b) + (size_t)n > b->max)
            rc = fail(b, DV_TOO_LARGE);
        else
            rc = dv_buf_reserve(b, (size_t)n + 1);
        if (rc == DV_OK) {
            (void)vsnprintf(b->data + b->tail, (size_t)n + 1, fmt, again);
            b->tail += (size_t)n;
        }
    }
    va_end(again);
    return rc;
}

int dv_buf_add_json(struct dv_buf *b, struct dv_sv s)
{
    size_t was = dv_buf_len(b);
    (void)dv_buf_add_char(b, '"'); /* one check at the end */
    size_t from = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        (void)dv_buf_add(b, s.p + from, i - from);
        from = i + 1;
        if (c == '"' || c == '\\')
            (void)dv_buf_addf(b, "\\%c", c);
        else if (c == '\n')
            (void)dv_buf_add_c(b, "\\n");
        else if (c == '\t')
            (void)dv_buf_add_c(b, "\\t");
        else if (c == '\r')
            (void)dv_buf_add_c(b, "\\r");
        else
            (void)dv_buf_addf(b, "\\u%04x", c);
    }
    (void)dv_buf_add(b, s.p + from, s.n - from);
    (void)dv_buf_add_char(b, '"');
    if (b->failed)
        dv_buf_truncate(b, was < dv_buf_len(b) ? was : dv_buf_len(b));
    return b->failed;
}

const char *dv_buf_cstr(struct dv_buf *b)
{
    if (dv_buf_reserve(b, 1))
        return NULL;
    b->data[b->tail] = '\0';
    return b->data + b->head;
}

char *dv_buf_steal(struct dv_buf *b, size_t *out_len)
{
    if (!dv_buf_cstr(b))
        return NULL;
    size_t len = dv_buf_len(b);
    if (b->head)
        memmove(b->data, b->data + b->head, len + 1);
    char *p = b->data;
    b->data = NULL;
    dv_buf_deinit(b);
    if (out_len)
        *out_len = len;
    return p;
}
