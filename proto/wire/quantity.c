/* Durations, amounts of bytes, amounts of processors: the spellings that people know from Go, Docker and
 * Kubernetes, held as whole milliseconds, bytes and thousandths of a core. */
#include "proto/wire/codec.h"

#include <inttypes.h>
#include <limits.h>

enum { FRACTION_DIGITS = 9 };
static const int64_t fraction_one = 1000000000;

/* digits [ '.' digits ] at the front of *s: whole part and billionths.  Moves *s behind it. */
static bool take_decimal(struct dv_sv *s, int64_t *whole, int64_t *billionths)
{
    size_t i = 0;
    int64_t w = 0, f = 0;
    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++)
        if (__builtin_mul_overflow(w, 10, &w) || __builtin_add_overflow(w, s->p[i] - '0', &w))
            return false;
    if (i == 0)
        return false;
    if (i < s->n && s->p[i] == '.') {
        size_t first = ++i;
        int64_t unit = fraction_one / 10;
        for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++, unit /= 10)
            f += (s->p[i] - '0') * unit;
        if (i == first || i - first > FRACTION_DIGITS)
            return false;
    }
    *whole = w;
    *billionths = f;
    s->p += i;
    s->n -= i;
    return true;
}

/* (whole + billionths / 10^9) * unit, rounded down. */
static bool scale(int64_t whole, int64_t billionths, int64_t unit, int64_t *out)
{
    int64_t v;
    __int128 part = (__int128)billionths * unit / fraction_one;
    if (__builtin_mul_overflow(whole, unit, &v) || __builtin_add_overflow(v, (int64_t)part, &v))
        return false;
    *out = v;
    return true;
}

struct unit {
    const char *name;
    int64_t value;
};

/* The longest unit that stands at the front of s; NULL when none does. */
static const struct unit *find_unit(struct dv_sv s, const struct unit *units, size_t n)
{
    const struct unit *best = NULL;
    for (size_t i = 0; i < n; i++)
        if (dv_sv_starts(s, dv_sv_c(units[i].name)) && (!best || strlen(units[i].name) > strlen(best->name)))
            best = &units[i];
    return best;
}

int dv_parse_duration_ms(struct dv_sv s, int64_t *out_ms)
{
    static const struct unit units[] = {{"h", 3600000}, {"ms", 1}, {"m", 60000}, {"s", 1000}};
    int64_t sum = 0;
    if (dv_sv_eq(s, DV_SV("0"))) {
        *out_ms = 0;
        return DV_OK;
    }
    if (s.n == 0)
        return DV_INVALID;
    while (s.n) {
        int64_t whole, billionths, part;
        if (!take_decimal(&s, &whole, &billionths))
            return DV_INVALID;
        const struct unit *u = find_unit(s, units, DV_COUNT(units));
        if (!u || !scale(whole, billionths, u->value, &part) || __builtin_add_overflow(sum, part, &sum))
            return DV_INVALID;
        s.p += strlen(u->name);
        s.n -= strlen(u->name);
    }
    *out_ms = sum;
    return DV_OK;
}

int dv_parse_bytes(struct dv_sv s, int64_t *out_bytes)
{
    static const struct unit units[] = {
        {"k", 1000},       {"K", 1000},       {"M", 1000000},    {"G", 1000000000}, {"T", 1000000000000},
        {"Ki", 1ll << 10}, {"Mi", 1ll << 20}, {"Gi", 1ll << 30}, {"Ti", 1ll << 40},
    };
    static const struct unit plain = {"", 1};
    int64_t whole, billionths, v;
    if (!take_decimal(&s, &whole, &billionths))
        return DV_INVALID;
    const struct unit *u = s.n ? find_unit(s, units, DV_COUNT(units)) : &plain;
    if (!u || s.n != strlen(u->name) || (u == &plain && billionths) ||
        !scale(whole, billionths, u->value, &v))
        return DV_INVALID;
    *out_bytes = v;
    return DV_OK;
}

int dv_parse_mcpu(struct dv_sv s, int64_t *out_mcpu)
{
    int64_t whole, billionths, v;
    if (!take_decimal(&s, &whole, &billionths))
        return DV_INVALID;
    bool milli = dv_sv_eq(s, DV_SV("m"));
    if ((s.n && !milli) || (milli && billionths) || !scale(whole, billionths, milli ? 1 : 1000, &v))
        return DV_INVALID;
    *out_mcpu = v;
    return DV_OK;
}

void dv_format_duration(int64_t ms, char out[32])
{
    if (ms < 1000) {
        (void)snprintf(out, 32, ms ? "%" PRId64 "ms" : "0s", ms);
        return;
    }
    int64_t h = ms / 3600000, m = ms / 60000 % 60, s = ms / 1000 % 60, rest = ms % 1000;
    size_t n = 0;
    out[0] = '\0';
    /* The widest, 2562047788015h12m55.807s, has 24 characters: nothing is ever cut short here. */
    if (h)
        n += (size_t)snprintf(out + n, 32 - n, "%" PRId64 "h", h);
    if (m)
        n += (size_t)snprintf(out + n, 32 - n, "%" PRId64 "m", m);
    if (rest) {
        char fraction[8];
        (void)snprintf(fraction, sizeof(fraction), "%03d", (int)rest);
        for (size_t i = 3; fraction[i - 1] == '0'; i--)
            fraction[i - 1] = '\0';
        (void)snprintf(out + n, 32 - n, "%d.%ss", (int)s, fraction);
    } else if (s) {
        (void)snprintf(out + n, 32 - n, "%ds", (int)s);
    }
}

void dv_format_bytes(int64_t bytes, char out[32])
{
    static const char *const suffix[] = {"", "Ki", "Mi", "Gi", "Ti"};
    size_t i = 0;
    while (bytes && bytes % 1024 == 0 && i + 1 < DV_COUNT(suffix)) {
        bytes /= 1024;
        i++;
    }
    (void)snprintf(out, 32, "%" PRId64 "%s", bytes, suffix[i]); /* 22 characters at most */
}

void dv_format_mcpu(int64_t mcpu, char out[32])
{
    if (mcpu % 1000 == 0)
        (void)snprintf(out, 32, "%" PRId64, mcpu / 1000);
    else
        (void)snprintf(out, 32, "%" PRId64 "m", mcpu);
}
