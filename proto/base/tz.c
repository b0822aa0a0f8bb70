/* Time zones.
 *
 * A TZif file lists the moments at which the offset changed, up to some year, and ends with a rule in POSIX
 * form ("CET-1CEST,M3.5.0,M10.5.0/3") for the time after.  Files of today may hold few moments and leave most
 * to the rule, so both are read. */
#include "proto/base/tz.h"

#include "proto/base/alloc.h"

enum { HEAD_BYTES = 44, TIMES_MAX = 4096, TYPES_MAX = 256, FILE_MAX = 256 * 1024, DAY = 86400 };

struct rule_day { /* when in a year */
    char kind;    /* 'M' month.week.day, 'J' 1-365 without 29 February, 'D' 0-365 */
    int month, week, day;
    int64_t time_s; /* of local time; may be negative or past a day */
};

struct rule {
    bool is_there, has_dst;
    int64_t std_s, dst_s;
    struct rule_day start, end;
};

struct dv_tz {
    size_t n;
    int64_t *times;   /* n; in order */
    int64_t *offsets; /* n + 1; offsets[i] holds before times[i], offsets[n] after the last */
    struct rule rule;
};

/* ---- dates (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms") ---- */

int64_t dv_days_from_date(int64_t year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

void dv_date_from_days(int64_t days, int64_t *out_year, int *out_month, int *out_day)
{
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *out_day = (int)(doy - (153 * mp + 2) / 5 + 1);
    *out_month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *out_year = yoe + era * 400 + (*out_month <= 2);
}

static bool is_leap(int64_t y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

int dv_days_in_month(int64_t year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* ---- the POSIX rule ---- */

static bool take(struct dv_sv *s, char c)
{
    if (s->n == 0 || s->p[0] != c)
        return false;
    s->p++;
    s->n--;
    return true;
}

static bool take_number(struct dv_sv *s, int max, int *out)
{
    int v = 0;
    size_t i = 0;
    for (; i < s->n && i < 4 && s->p[i] >= '0' && s->p[i] <= '9'; i++)
        v = v * 10 + (s->p[i] - '0');
    if (i == 0 || v > max)
        return false;
    s->p += i;
    s->n -= i;
    *out = v;
    return true;
}

static bool take_name(struct dv_sv *s)
{
    bool is_quoted = take(s, '<');
    size_t i = 0;
    while (i < s->n && (is_quoted ? s->p[i] != '>'
                                  : (s->p[i] >= 'A' && s->p[i] <= 'Z') || (s->p[i] >= 'a' && s->p[i] <= 'z')))
        i++;
    s->p += i;
    s->n -= i;
    return i > 0 && (!is_quoted || take(s, '>'));
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct dv_sv *s, int max_hours, int64_t *out)
{
    bool is_minus = take(s, '-');
    int h, m = 0, sec = 0;
    if (!is_minus)
        (void)take(s, '+');
    if (!take_number(s, max_hours, &h))
        return false;
    if (take(s, ':') && !take_number(s, 59, &m))
        return false;
    if (m >= 0 && s->n && s->p[0] == ':') {
        (void)take(s, ':');
        if (!take_number(s, 59, &sec))
            return false;
    }
    int64_t v = h * 3600 + m * 60 + sec;
    *out = is_minus ? -v : v;
    return true;
}

static bool take_day(struct dv_sv *s, struct rule_day *d)
{
    bool ok;
    d->time_s = 7200;
    if (take(s, 'M')) {
        d->kind = 'M';
        ok = take_number(s, 12, &d->month) && d->month > 0 && take(s, '.') && take_number(s, 5, &d->week) &&
             d->week > 0 && take(s, '.') && take_number(s, 6, &d->day);
    } else if (take(s, 'J')) {
        d->kind = 'J';
        ok = take_number(s, 365, &d->day) && d->day > 0;
    } else {
        d->kind = 'D';
        ok = take_number(s, 365, &d->day);
    }
    if (ok && take(s, '/'))
        ok = take_time(s, 167, &d->time_s);
    return ok;
}

static bool parse_rule(struct dv_sv s, struct rule *r)
{
    *r = (struct rule){0};
    if (s.n == 0)
        return true;
    if (!take_name(&s) || !take_time(&s, 24, &r->std_s))
        return false;
    r->std_s = -r->std_s; /* POSIX counts westwards */
    r->is_there = true;
    if (s.n == 0)
        return true;
    r->has_dst = true;
    r->dst_s = r->std_s + 3600;
    if (!take_name(&s))
        return false;
    if (s.n && s.p[0] != ',') {
        if (!take_time(&s, 24, &r->dst_s))
            return false;
        r->dst_s = -r->dst_s;
    }
    return take(&s, ',') && take_day(&s, &r->start) && take(&s, ',') && take_day(&s, &r->end) && s.n == 0;
}

/* Local seconds since the epoch. */
static int64_t day_in_year(const struct rule_day *d, int64_t year)
{
    int64_t days = dv_days_from_date(year, 1, 1);
    if (d->kind == 'D') {
        days += d->day;
    } else if (d->kind == 'J') {
        days += d->day - 1 + (is_leap(year) && d->day > 59);
    } else {
        days = dv_days_from_date(year, d->month, 1);
        int64_t weekday = ((days + 4) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
        int64_t first = 1 + (d->day - weekday + 7) % 7, day = first + 7 * (d->week - 1);
        while (day > dv_days_in_month(year, d->month))
            day -= 7;
        days += day - 1;
    }
    return days * DAY + d->time_s;
}

static struct dv_tz_span rule_at(const struct rule *r, int64_t at_s)
{
    struct dv_tz_span out = {INT64_MIN, INT64_MAX, r->std_s};
    if (!r->has_dst)
        return out;
    int64_t year;
    int month, day;
    dv_date_from_days(floor_div(at_s, DAY), &year, &month, &day);
    for (int64_t y = year - 1; y <= year + 1; y++) {
        struct {
            int64_t at, offset;
        } change[2] = {{day_in_year(&r->start, y) - r->std_s, r->dst_s},
                       {day_in_year(&r->end, y) - r->dst_s, r->std_s}};
        for (int i = 0; i < 2; i++) {
            if (change[i].at <= at_s && change[i].at > out.since_s) {
                out.since_s = change[i].at;
                out.offset_s = change[i].offset;
            }
            if (change[i].at > at_s && change[i].at < out.until_s)
                out.until_s = change[i].at;
        }
    }
    return out;
}

/* ---- TZif ---- */

static uint64_t big_endian(const char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | (uint8_t)p[i];
    return v;
}

struct head {
    size_t isut, isstd, leap, time, type, chars;
};

static bool read_head(struct dv_sv *s, struct head *h)
{
    if (s->n < HEAD_BYTES || memcmp(s->p, "TZif", 4) != 0 || s->p[4] < '2')
        return false;
    size_t *const counts[] = {&h->isut, &h->isstd, &h->leap, &h->time, &h->type, &h->chars};
    for (size_t i = 0; i < DV_COUNT(counts); i++)
        *counts[i] = (size_t)big_endian(s->p + 20 + 4 * i, 4);
    s->p += HEAD_BYTES;
    s->n -= HEAD_BYTES;
    return h->time <= TIMES_MAX && h->type > 0 && h->type <= TYPES_MAX && h->chars <= 4096 &&
           h->leap <= 4096 && h->isut <= TYPES_MAX && h->isstd <= TYPES_MAX;
}

static size_t body_bytes(const struct head *h, size_t time_bytes)
{
    return h->time * time_bytes + h->time + h->type * 6 + h->chars + h->leap * (time_bytes + 4) + h->isstd +
           h->isut;
}

static bool read_times(struct dv_sv body, const struct head *h, struct dv_tz *tz)
{
    const char *kinds = body.p + h->time * 8, *types = kinds + h->time;
    for (size_t i = 0; i <= h->time; i++) {
        size_t kind = i == 0 ? 0 : (uint8_t)kinds[i - 1];
        if (kind >= h->type)
            return false;
        int32_t offset = (int32_t)big_endian(types + kind * 6, 4);
        if (offset < -25 * 3600 || offset > 26 * 3600)
            return false;
        tz->offsets[i] = offset;
        if (i < h->time) {
            tz->times[i] = (int64_t)big_endian(body.p + i * 8, 8);
            if (i > 0 && tz->times[i] <= tz->times[i - 1])
                return false;
        }
    }
    tz->n = h->time;
    return true;
}

int dv_tz_parse(struct dv_sv bytes, struct dv_tz **out, struct dv_err *err)
{
    struct dv_sv s = bytes;
    struct head h;
    static const char wrong[] = "not a time zone file (TZif, version 2 or later)";
    if (bytes.n > FILE_MAX || !read_head(&s, &h) || s.n < body_bytes(&h, 4))
        return dv_err_set(err, DV_INVALID, "%s", wrong);
    s = dv_sv(s.p + body_bytes(&h, 4), s.n - body_bytes(&h, 4));
    if (!read_head(&s, &h) || s.n < body_bytes(&h, 8))
        return dv_err_set(err, DV_INVALID, "%s", wrong);
    struct dv_sv foot = dv_sv(s.p + body_bytes(&h, 8), s.n - body_bytes(&h, 8)), line, rest;
    struct dv_tz *tz = dv_zalloc(sizeof(*tz) + (2 * h.time + 1) * sizeof(int64_t));
    if (!tz)
        return dv_err_set(err, DV_E_NOMEM, "time zone");
    tz->offsets = (int64_t *)(void *)(tz + 1);
    tz->times = tz->offsets + h.time + 1;
    bool ok = read_times(s, &h, tz) && take(&foot, '\n') && dv_sv_cut(foot, '\n', &line, &rest) &&
              parse_rule(line, &tz->rule);
    if (!ok) {
        dv_tz_free(tz);
        return dv_err_set(err, DV_INVALID, "%s", wrong);
    }
    *out = tz;
    return DV_OK;
}

void dv_tz_free(struct dv_tz *tz)
{
    dv_free(tz);
}

struct dv_tz_span dv_tz_at(const struct dv_tz *tz, int64_t at_s)
{
    if (!tz)
        return (struct dv_tz_span){INT64_MIN, INT64_MAX, 0};
    size_t lo = 0, hi = tz->n; /* first change after at_s */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (tz->times[mid] <= at_s)
            lo = mid + 1;
        else
            hi = mid;
    }
    struct dv_tz_span out = {lo ? tz->times[lo - 1] : INT64_MIN, lo < tz->n ? tz->times[lo] : INT64_MAX,
                             tz->offsets[lo]};
    if (lo < tz->n || !tz->rule.is_there)
        return out;
    struct dv_tz_span by_rule = rule_at(&tz->rule, at_s);
    if (by_rule.since_s > out.since_s)
        return by_rule;
    by_rule.since_s = out.since_s; /* the rule holds since the last change that is listed */
    return by_rule;
}
