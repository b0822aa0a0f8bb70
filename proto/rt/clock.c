#include "proto/rt/clock.h"
#include "proto/base/banned.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

#include <ctype.h>

static uint64_t sys_mono(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * DV_S + (uint64_t)t.tv_nsec;
}

static int64_t sys_wall(void *ctx)
{
    (void)ctx;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const struct dv_clock dv_clock_system = {.mono_ns = sys_mono, .wall_ms = sys_wall};

static uint64_t fake_mono(void *ctx)
{
    return ((struct dv_clock_fake *)ctx)->mono_ns;
}

static int64_t fake_wall(void *ctx)
{
    return ((struct dv_clock_fake *)ctx)->wall_ms;
}

struct dv_clock dv_clock_fake(struct dv_clock_fake *f)
{
    return (struct dv_clock){.mono_ns = fake_mono, .wall_ms = fake_wall, .ctx = f};
}

void dv_rfc3339(int64_t wall_ms, char out[DV_RFC3339_TEXT])
{
    time_t s = (time_t)(wall_ms / 1000);
    int ms = (int)(wall_ms % 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    char text[80]; /* room for whatever an int may print as; a real date takes 24 */
    (void)snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
                   tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ms < 0 ? 0 : ms);
    dv_copy(out, DV_RFC3339_TEXT, text);
}

static int digits(const char **s, int n, int *out)
{
    int v = 0;
    for (; n > 0; n--, (*s)++) {
        if (!isdigit((unsigned char)**s))
            return DV_INVALID;
        v = v * 10 + (**s - '0');
    }
    *out = v;
    return DV_OK;
}

int dv_rfc3339_parse(const char *s, int64_t *out_wall_ms)
{
    struct tm tm = {0};
    int ms = 0, offset_min = 0;
    if (digits(&s, 4, &tm.tm_year) || *s++ != '-' || digits(&s, 2, &tm.tm_mon) || *s++ != '-' ||
        digits(&s, 2, &tm.tm_mday) || !strchr("Tt ", *s) || !*s++ || digits(&s, 2, &tm.tm_hour) ||
        *s++ != ':' || digits(&s, 2, &tm.tm_min) || *s++ != ':' || digits(&s, 2, &tm.tm_sec))
        return DV_INVALID;
    if (tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
        tm.tm_min > 59 || tm.tm_sec > 60)
        return DV_INVALID;
    if (*s == '.') {
        int scale = 100;
        for (s++; isdigit((unsigned char)*s); s++, scale /= 10)
            ms += (*s - '0') * scale;
    }
    if (*s == 'Z' || *s == 'z') {
        s++;
    } else if (*s == '+' || *s == '-') {
        int sign = *s++ == '-' ? -1 : 1, h, m;
        if (digits(&s, 2, &h) || *s++ != ':' || digits(&s, 2, &m))
            return DV_INVALID;
        offset_min = sign * (h * 60 + m);
    } else {
        return DV_INVALID;
    }
    if (*s)
        return DV_INVALID;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    *out_wall_ms = ((int64_t)timegm(&tm) - offset_min * 60) * 1000 + ms;
    return DV_OK;
}
