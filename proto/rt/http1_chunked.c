/* Chunked bodies (RFC 9112, 7.1), incrementally and strictly: the size is bare hex, extensions are skipped
 * but bounded, every line ends in CRLF.  A trailer section is handed on as a whole, so its bytes stay with
 * the caller until its last line is there; fields that would change what was already decided about the
 * message are refused. */
#include "proto/rt/http1_internal.h"

enum state { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILERS, ENDED };
enum { MAX_DIGITS = 15 }; /* 60 bits: no overflow */

void dv_h1_chunked_init(struct dv_h1_chunked *c)
{
    *c = (struct dv_h1_chunked){.state = SIZE};
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int step_size(struct dv_h1_chunked *c, char ch, struct dv_err *err)
{
    int v = hex_value(ch);
    if (v >= 0) {
        if (c->digits == MAX_DIGITS)
            return dv_err_set(err, DV_INVALID, "chunk size is too large");
        c->left = c->left * 16 + (uint64_t)v;
        c->digits++;
        return DV_OK;
    }
    if (!c->digits || (ch != ';' && ch != '\r'))
        return dv_err_set(err, DV_INVALID, "chunk size is not a hexadecimal number");
    c->state = ch == ';' ? EXTENSION : SIZE_LF;
    return DV_OK;
}

/* One byte of the framing between runs of data. */
static int step(struct dv_h1_chunked *c, char ch, struct dv_err *err)
{
    switch ((enum state)c->state) {
    case SIZE:
    case EXTENSION:
        if (++c->line_bytes > DV_H1_MAX_CHUNK_LINE)
            return dv_err_set(err, DV_INVALID, "chunk extensions are too long");
        if (c->state == SIZE)
            return step_size(c, ch, err);
        if (ch == '\r')
            c->state = SIZE_LF;
        else if (!dv_h1_is(ch, DV_H1_C_VALUE))
            return dv_err_set(err, DV_INVALID, "control character in a chunk extension");
        return DV_OK;
    case DATA_CR:
        if (ch != '\r')
            return dv_err_set(err, DV_INVALID, "chunk is longer than its size");
        c->state = DATA_LF;
        return DV_OK;
    case SIZE_LF:
    case DATA_LF:
        if (ch != '\n')
            return dv_err_set(err, DV_INVALID, "bare CR in chunked framing");
        if (c->state == DATA_LF)
            dv_h1_chunked_init(c);
        else
            c->state = c->left ? DATA : TRAILERS;
        return DV_OK;
    default:
        return dv_err_set(err, DV_E_BUG, "chunked decoder in state %d", c->state);
    }
}

static bool changes_framing(struct dv_sv name)
{
    return dv_sv_eq_nocase(name, DV_SV("content-length")) ||
           dv_sv_eq_nocase(name, DV_SV("transfer-encoding")) || dv_sv_eq_nocase(name, DV_SV("host")) ||
           dv_sv_eq_nocase(name, DV_SV("connection")) || dv_sv_eq_nocase(name, DV_SV("trailer"));
}

/* The whole section or nothing. */
static int take_trailers(struct dv_h1_chunked *c, const char *p, size_t n, enum dv_h1_chunk_event *event,
                         struct dv_sv *out, size_t *out_consumed, struct dv_err *err)
{
    bool is_full = n > DV_H1_MAX_TRAILERS;
    struct dv_h1_scan s = {p, p + (is_full ? DV_H1_MAX_TRAILERS : n), is_full, err};
    size_t n_fields = 0;
    int rc = DV_OK;
    while (!rc && s.p < s.end && *s.p != '\r') {
        struct dv_h1_field f;
        rc = dv_h1_scan_field(&s, &f);
        if (!rc && (changes_framing(f.name) || ++n_fields > DV_H1_MAX_FIELDS))
            return dv_err_set(err, DV_INVALID, "forbidden field, or too many of them, in the trailers");
    }
    struct dv_sv lines = dv_sv(p, (size_t)(s.p - p));
    if (!rc)
        rc = dv_h1_scan_eol(&s);
    if (rc == DV_AGAIN)
        return DV_OK; /* MORE, nothing consumed */
    if (rc)
        return dv_err_set(err, DV_INVALID, "trailers: %s", rc == DV_TOO_LARGE ? "too long" : "malformed");
    c->state = ENDED;
    *event = lines.n ? DV_H1_CHUNK_TRAILERS : DV_H1_CHUNK_DONE;
    *out = lines;
    *out_consumed = (size_t)(s.p - p);
    return DV_OK;
}

int dv_h1_chunked_next(struct dv_h1_chunked *c, const char *p, size_t n, enum dv_h1_chunk_event *event,
                       struct dv_sv *out, size_t *out_consumed, struct dv_err *err)
{
    *event = DV_H1_CHUNK_MORE;
    *out = dv_sv(NULL, 0);
    *out_consumed = 0;
    size_t i = 0;
    while (i < n && c->state != DATA && c->state != TRAILERS && c->state != ENDED) {
        int rc = step(c, p[i], err);
        if (rc)
            return rc;
        i++;
    }
    if (c->state == ENDED) {
        *event = DV_H1_CHUNK_DONE;
        return DV_OK;
    }
    if (c->state == TRAILERS) {
        size_t used = 0;
        int rc = take_trailers(c, p + i, n - i, event, out, &used, err);
        *out_consumed = i + used;
        return rc;
    }
    if (c->state == DATA && i < n) {
        size_t run = n - i < c->left ? n - i : (size_t)c->left;
        *event = DV_H1_CHUNK_DATA;
        *out = dv_sv(p + i, run);
        c->left -= run;
        i += run;
        if (!c->left)
            c->state = DATA_CR;
    }
    *out_consumed = i;
    return DV_OK;
}
