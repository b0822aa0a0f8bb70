/* The lexical half of HTTP/1.1: which byte may stand where, and one field line.  What RFC 9112 lets a lenient
 * recipient repair (bare LF, obs-fold, blanks before the colon) is refused here, because two parsers that
 * repair differently are what request smuggling is made of. */
#include "proto/rt/http1_internal.h"

#include <string.h>

#define T   DV_H1_C_TOKEN
#define V   DV_H1_C_VALUE
#define G   DV_H1_C_TARGET
#define H   DV_H1_C_HOST
#define VG  (V | G)
#define VGH (V | G | H)
#define ALL (T | V | G | H)
#define TVG (T | V | G)

/* '#' may stand in a value but not in a target: a fragment never travels.  Host: reg-name, IP literal and
 * port. */
const uint8_t dv_h1_class[256] = {
    ['\t'] = V,          [' '] = V,           ['!'] = ALL,         ['"'] = VG,   ['#'] = T | V,
    ['$'] = ALL,         ['%'] = ALL,         ['&'] = ALL,         ['\''] = ALL, ['('] = VGH,
    [')'] = VGH,         ['*'] = ALL,         ['+'] = ALL,         [','] = VGH,  ['-'] = ALL,
    ['.'] = ALL,         ['/'] = VG,          [':'] = VGH,         [';'] = VGH,  ['<'] = VG,
    ['='] = VGH,         ['>'] = VG,          ['?'] = VG,          ['@'] = VG,   ['['] = VGH,
    ['\\'] = VG,         [']'] = VGH,         ['^'] = TVG,         ['_'] = ALL,  ['`'] = TVG,
    ['{'] = VG,          ['|'] = TVG,         ['}'] = VG,          ['~'] = ALL,  ['0' ... '9'] = ALL,
    ['A' ... 'Z'] = ALL, ['a' ... 'z'] = ALL, [0x80 ... 0xff] = V,
};

#undef T
#undef V
#undef G
#undef H

int dv_h1_starved(const struct dv_h1_scan *s)
{
    return s->is_full ? dv_err_set(s->err, DV_TOO_LARGE, "head is too long") : DV_AGAIN;
}

int dv_h1_scan_eol(struct dv_h1_scan *s)
{
    if (s->p == s->end)
        return dv_h1_starved(s);
    if (*s->p == '\n')
        return dv_err_set(s->err, DV_INVALID, "line ends in a bare LF");
    if (*s->p != '\r')
        return dv_err_set(s->err, DV_INVALID, "unexpected byte at the end of a line");
    if (s->p + 1 == s->end)
        return dv_h1_starved(s);
    if (s->p[1] != '\n')
        return dv_err_set(s->err, DV_INVALID, "bare CR in a line");
    s->p += 2;
    return DV_OK;
}

/* Eight bytes at a time past everything that is neither a control character nor DEL. */
static const char *skip_plain(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, high = ones * 0x80;
    while (end - p >= 8) {
        uint64_t x, del;
        memcpy(&x, p, sizeof(x));
        del = x ^ (ones * 0x7f);
        if ((((x - ones * 0x20) & ~x) | ((del - ones) & ~del)) & high)
            break;
        p += 8;
    }
    while (p < end && dv_h1_is(*p, DV_H1_C_VALUE))
        p++;
    return p;
}

static int scan_name(struct dv_h1_scan *s, struct dv_sv *out)
{
    const char *p = s->p, *end = s->end;
    while (p < end && dv_h1_is(*p, DV_H1_C_TOKEN))
        p++;
    if (p == end)
        return dv_h1_starved(s);
    if (*p == ':' && p > s->p) {
        *out = dv_sv(s->p, (size_t)(p - s->p));
        s->p = p + 1;
        return DV_OK;
    }
    if (*p == ' ' || *p == '\t')
        return p == s->p ? dv_err_set(s->err, DV_INVALID, "folded field line")
                         : dv_err_set(s->err, DV_INVALID, "blank between field name and colon");
    return p == s->p ? dv_err_set(s->err, DV_INVALID, "field line without a name")
                     : dv_err_set(s->err, DV_INVALID, "invalid character in a field name");
}

int dv_h1_scan_field(struct dv_h1_scan *s, struct dv_h1_field *out)
{
    struct dv_sv name;
    int rc = scan_name(s, &name);
    if (rc)
        return rc;
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
        s->p++;
    const char *from = s->p;
    s->p = skip_plain(s->p, s->end);
    const char *to = s->p;
    rc = dv_h1_scan_eol(s);
    if (rc)
        return rc;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    out->name = name;
    out->value = dv_sv(from, (size_t)(to - from));
    return DV_OK;
}

static bool all_of(struct dv_sv s, int cls)
{
    for (size_t i = 0; i < s.n; i++)
        if (!dv_h1_is(s.p[i], cls))
            return false;
    return true;
}

bool dv_h1_is_token(struct dv_sv s)
{
    return s.n > 0 && all_of(s, DV_H1_C_TOKEN);
}

bool dv_h1_value_valid(struct dv_sv s)
{
    return all_of(s, DV_H1_C_VALUE);
}
