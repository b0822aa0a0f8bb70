/* What the store gives back as payload of asynchronous work, and a Retry-After that a function sent.  What
 * decodes must encode, decode to the same again, and hold nothing that could break a request line or a
 * header. */
#include "orchestrator/events/async_record.h"
#include "orchestrator/events/async_retry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

static bool has_line_break(struct dv_sv s)
{
    return s.n && (memchr(s.p, '\n', s.n) || memchr(s.p, '\r', s.n) || memchr(s.p, '\0', s.n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct dv_sv bytes = dv_sv((const char *)data, n);
    struct dv_async_record r, back;
    struct dv_err err = DV_ERR_INIT;
    int64_t after_ms = dv_async_retry_after_ms(bytes, 1700000000000);
    must(after_ms >= -1);
    int rc = dv_async_record_decode(bytes, &r, &err);
    must(rc == DV_OK || rc == DV_INVALID || rc == DV_UNSUPPORTED);
    if (rc) {
        must(err.msg[0] != '\0');
        return 0;
    }
    must(r.fn.n > 0);
    must(!has_line_break(r.fn) && !has_line_break(r.method) && !has_line_break(r.target));
    must(!has_line_break(r.call_id) && !has_line_break(r.callback_url));
    DV_AUTO_BUF struct dv_buf first = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf second = DV_BUF_INIT;
    must(dv_async_record_encode(&r, &first, &err) == DV_OK);
    must(dv_async_record_decode(dv_buf_sv(&first), &back, &err) == DV_OK);
    must(dv_async_record_encode(&back, &second, &err) == DV_OK);
    must(dv_sv_eq(dv_buf_sv(&first), dv_buf_sv(&second)));
    return 0;
}
