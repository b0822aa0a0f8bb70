/* Bytes of an engine's log stream, cut in two ways: the first byte is the length of the pieces.  However it
 * is cut, the same lines come out; every line is text within its bound. */
#include "agent/engine/logframe.h"
#include "agent/engine/lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

struct sum {
    uint64_t hash;
    size_t n;
};

static int on_line(void *ctx, const struct dv_engine_log *l)
{
    struct sum *s = ctx;
    must(l->text.n <= DV_LOG_LINE_MAX);
    must(memchr(l->text.p, 0, l->text.n) == NULL || l->text.n == 0);
    must(memchr(l->text.p, '\n', l->text.n) == NULL || l->text.n == 0);
    s->hash = dv_hash_bytes(l->text.p, l->text.n, s->hash * 31 + (uint64_t)l->wall_ms * 2 + l->is_stderr);
    s->n++;
    return DV_OK;
}

static int on_text(void *ctx, struct dv_sv line)
{
    struct sum *s = ctx;
    must(line.n > 0 && line.n <= 64);
    s->hash = dv_hash_bytes(line.p, line.n, s->hash);
    s->n++;
    return DV_OK;
}

static int feed(struct dv_sv bytes, size_t step, struct sum *frames, struct sum *lines)
{
    struct dv_logframe f;
    struct dv_lines l;
    int rc = DV_OK;
    dv_logframe_init(&f);
    dv_lines_init(&l, 64);
    for (size_t i = 0; i < bytes.n; i += step) {
        struct dv_sv piece = dv_sv(bytes.p + i, bytes.n - i < step ? bytes.n - i : step);
        must(dv_lines_feed(&l, piece, on_text, lines) == DV_OK);
        rc = rc ? rc : dv_logframe_feed(&f, piece, on_line, frames, NULL);
        must(rc == DV_OK || rc == DV_E_PROTO);
    }
    must(dv_lines_end(&l, on_text, lines) == DV_OK);
    dv_logframe_deinit(&f);
    dv_lines_deinit(&l);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    struct dv_sv bytes = dv_sv((const char *)data + 1, n - 1);
    struct sum a[2] = {{0, 0}}, b[2] = {{0, 0}};
    int whole = feed(bytes, bytes.n, &a[0], &a[1]), cut = feed(bytes, data[0] ? data[0] : 1, &b[0], &b[1]);
    must(whole == cut);
    must(a[0].hash == b[0].hash && a[0].n == b[0].n);
    must(a[1].hash == b[1].hash && a[1].n == b[1].n);
    return 0;
}
