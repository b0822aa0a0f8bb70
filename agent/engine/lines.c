#include "agent/engine/lines.h"

void dv_lines_init(struct dv_lines *l, size_t max_bytes)
{
    dv_buf_init(&l->part, max_bytes);
    l->is_overlong = false;
}

void dv_lines_deinit(struct dv_lines *l)
{
    dv_buf_deinit(&l->part);
}

static int keep(struct dv_lines *l, struct dv_sv bytes)
{
    if (l->is_overlong)
        return DV_OK;
    int rc = dv_buf_add_sv(&l->part, bytes);
    l->is_overlong = rc == DV_TOO_LARGE;
    return rc < 0 ? rc : DV_OK;
}

static int give(struct dv_lines *l, int (*fn)(void *, struct dv_sv), void *ctx)
{
    struct dv_sv line = dv_buf_sv(&l->part);
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    int rc = l->is_overlong || !line.n ? DV_OK : fn(ctx, line);
    if (rc == DV_OK) { /* after a stop the owner may be gone */
        dv_buf_clear(&l->part);
        l->is_overlong = false;
    }
    return rc;
}

int dv_lines_feed(struct dv_lines *l, struct dv_sv bytes, int (*fn)(void *ctx, struct dv_sv line), void *ctx)
{
    while (bytes.n) {
        const char *lf = memchr(bytes.p, '\n', bytes.n);
        size_t n = lf ? (size_t)(lf - bytes.p) : bytes.n;
        int rc = keep(l, dv_sv(bytes.p, n));
        if (rc == DV_OK && lf)
            rc = give(l, fn, ctx);
        if (rc)
            return rc;
        n += lf != NULL;
        bytes = dv_sv(bytes.p + n, bytes.n - n);
    }
    return DV_OK;
}

int dv_lines_end(struct dv_lines *l, int (*fn)(void *ctx, struct dv_sv line), void *ctx)
{
    return give(l, fn, ctx);
}
