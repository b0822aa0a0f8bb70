#include "proto/base/str.h"

#include <math.h>

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool dv_sv_eq(struct dv_sv a, struct dv_sv b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool dv_sv_eq_nocase(struct dv_sv a, struct dv_sv b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

bool dv_sv_starts(struct dv_sv s, struct dv_sv prefix)
{
    return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

bool dv_sv_ends(struct dv_sv s, struct dv_sv suffix)
{
    return s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0;
}

struct dv_sv dv_sv_trim(struct dv_sv s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

bool dv_sv_cut(struct dv_sv s, char c, struct dv_sv *head, struct dv_sv *rest)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    if (!at) {
        *head = s;
        *rest = (struct dv_sv){s.p + s.n, 0};
        return false;
    }
    size_t n = (size_t)(at - s.p);
    *head = (struct dv_sv){s.p, n};
    *rest = (struct dv_sv){at + 1, s.n - n - 1};
    return true;
}

bool dv_parse_u64(struct dv_sv s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 20)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

bool dv_parse_i64(struct dv_sv s, int64_t *out)
{
    bool neg = s.n && s.p[0] == '-';
    uint64_t v;
    if (!dv_parse_u64(neg ? dv_sv(s.p + 1, s.n - 1) : s, &v))
        return false;
    if (v > (uint64_t)INT64_MAX + (neg ? 1 : 0))
        return false;
    *out = neg ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool dv_parse_hex64(struct dv_sv s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 16)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        int d = hex_digit(s.p[i]);
        if (d < 0)
            return false;
        v = v << 4 | (uint64_t)d;
    }
    *out = v;
    return true;
}

bool dv_parse_double(struct dv_sv s, double *out)
{
    char text[64];
    if (s.n == 0 || s.n >= sizeof(text))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789+-.eE", s.p[i]) || !s.p[i])
            return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    char *end;
    double v = strtod(text, &end);
    if (*end || !isfinite(v))
        return false;
    *out = v;
    return true;
}

bool dv_secret_eq(struct dv_sv a, struct dv_sv b)
{
    unsigned char diff = a.n == b.n ? 0 : 1;
    for (size_t i = 0; i < a.n; i++)
        diff |= (unsigned char)(a.p[i] ^ (b.n ? b.p[i % b.n] : 0));
    return diff == 0;
}

void dv_hex(const void *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[b[i] >> 4];
        out[2 * i + 1] = digits[b[i] & 15];
    }
    out[2 * n] = '\0';
}

bool dv_unhex(struct dv_sv hex, void *out, size_t out_n)
{
    unsigned char *o = out;
    if (hex.n != 2 * out_n)
        return false;
    for (size_t i = 0; i < hex.n; i++)
        if (hex_digit(hex.p[i]) < 0)
            return false;
    for (size_t i = 0; i < out_n; i++)
        o[i] = (unsigned char)(hex_digit(hex.p[2 * i]) << 4 | hex_digit(hex.p[2 * i + 1]));
    return true;
}

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t dv_base64_len(size_t n)
{
    return (n + 2) / 3 * 4;
}

void dv_base64(const void *in, size_t n, char *out)
{
    const unsigned char *b = in;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v =
            (uint32_t)b[i] << 16 | (left > 1 ? (uint32_t)b[i + 1] << 8 : 0) | (left > 2 ? b[i + 2] : 0u);
        *out++ = b64[v >> 18 & 63];
        *out++ = b64[v >> 12 & 63];
        *out++ = left > 1 ? b64[v >> 6 & 63] : '=';
        *out++ = left > 2 ? b64[v & 63] : '=';
    }
    *out = '\0';
}

static int b64_digit(char c)
{
    const char *at = c ? strchr(b64, c) : NULL;
    return at ? (int)(at - b64) : -1;
}

ptrdiff_t dv_base64_decode(struct dv_sv in, void *out)
{
    unsigned char *o = out;
    if (in.n % 4)
        return -1;
    size_t pad = in.n && in.p[in.n - 1] == '=' ? (in.p[in.n - 2] == '=' ? 2 : 1) : 0;
    for (size_t i = 0; i < in.n; i += 4) {
        uint32_t v = 0;
        size_t n_pad = i + 4 == in.n ? pad : 0;
        for (size_t k = 0; k < 4; k++) {
            int d = k >= 4 - n_pad ? 0 : b64_digit(in.p[i + k]);
            if (d < 0)
                return -1;
            v = v << 6 | (uint32_t)d;
        }
        *o++ = (unsigned char)(v >> 16);
        if (n_pad < 2)
            *o++ = (unsigned char)(v >> 8);
        if (n_pad < 1)
            *o++ = (unsigned char)v;
    }
    return o - (unsigned char *)out;
}

bool dv_utf8_valid(struct dv_sv s)
{
    const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;
    while (p < end) {
        unsigned char c = *p++;
        if (c < 0x80)
            continue;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
        if (c < 0xc2 || c > 0xf4 || end - p < more)
            return false;
        if ((c == 0xe0 && p[0] < 0xa0) || (c == 0xed && p[0] > 0x9f) || (c == 0xf0 && p[0] < 0x90) ||
            (c == 0xf4 && p[0] > 0x8f))
            return false;
        for (; more > 0; more--)
            if ((*p++ & 0xc0) != 0x80)
                return false;
    }
    return true;
}

void dv_id_text(uint64_t id, char out[DV_ID_TEXT])
{
    (void)snprintf(out, DV_ID_TEXT, "%016llx", (unsigned long long)id);
}

uint64_t dv_hash_bytes(const void *p, size_t n, uint64_t seed)
{
    const unsigned char *b = p;
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    h ^= h >> 32; /* FNV's low bits are weak for tables sized by powers of two */
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

bool dv_copy(char *dst, size_t cap, const char *s)
{
    size_t n = s ? strlen(s) : 0;
    size_t m = n < cap ? n : cap - 1;
    if (m)
        memcpy(dst, s, m);
    dst[m] = '\0';
    return n < cap;
}
