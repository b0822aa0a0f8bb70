/* Cron.
 *
 * A zone's clock is a row of spans, each with one offset to UTC; inside of a span local time and real time go
 * along, so the search is one over calendar fields (next_local), span by span.  At the seam of two spans the
 * clock jumps: what it jumps over comes at the seam, what it repeats is left out the second time.
 *
 * The last time before a moment is found by bisection: dv_cron_next never decreases with its argument. */
#include "proto/base/cron.h"

#include "proto/base/err.h"

enum { DAY = 86400, HOUR = 3600, MINUTE = 60 };
static const int64_t far_s = 13ll * 366 * DAY; /* 29 February may be eight years away, on a Monday more */

/* ---- parsing ---- */

static const char *const month_names[] = {"jan", "feb", "mar", "apr", "may", "jun",
                                          "jul", "aug", "sep", "oct", "nov", "dec"};
static const char *const day_names[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat"};

struct field {
    int min, max;
    const char *const *names;
    int n_names, first_name;
    const char *wrong;
};
static const struct field fields[] = {
    {0, 59, NULL, 0, 0, "the minute must be 0 to 59, as \"*/15\" or \"0,30\""},
    {0, 23, NULL, 0, 0, "the hour must be 0 to 23, as \"8-17\""},
    {1, 31, NULL, 0, 0, "the day of the month must be 1 to 31"},
    {1, 12, month_names, 12, 1, "the month must be 1 to 12 or JAN to DEC"},
    {0, 7, day_names, 7, 0, "the day of the week must be 0 to 7 or SUN to SAT"},
};

static bool take_value(struct dv_sv *s, const struct field *f, int *out)
{
    size_t i = 0;
    int v = 0;
    while (i < s->n && i < 3 && s->p[i] >= '0' && s->p[i] <= '9')
        v = v * 10 + (s->p[i++] - '0');
    for (int k = 0; i == 0 && k < f->n_names && s->n >= 3; k++)
        if (dv_sv_eq_nocase(dv_sv(s->p, 3), dv_sv_c(f->names[k]))) {
            v = f->first_name + k;
            i = 3;
        }
    if (i == 0 || v < f->min || v > f->max)
        return false;
    *s = dv_sv(s->p + i, s->n - i);
    *out = v;
    return true;
}

/* One of a list: "*", a, a-b, each with "/step". */
static bool add_item(struct dv_sv s, const struct field *f, uint64_t *bits)
{
    int from = f->min, to = f->max, step = 1;
    bool is_star = s.n && s.p[0] == '*', is_range = is_star;
    if (is_star) {
        s = dv_sv(s.p + 1, s.n - 1);
    } else {
        if (!take_value(&s, f, &from))
            return false;
        to = from;
        if (s.n && s.p[0] == '-') {
            s = dv_sv(s.p + 1, s.n - 1);
            if (!take_value(&s, f, &to))
                return false;
            is_range = true;
            if (to == 0 && from > 0 && f->max == 7)
                to = 7; /* FRI-SUN */
        }
    }
    if (s.n && s.p[0] == '/') {
        static const struct field steps = {1, 59, NULL, 0, 0, NULL};
        s = dv_sv(s.p + 1, s.n - 1);
        if (!take_value(&s, &steps, &step))
            return false;
        if (!is_range)
            to = f->max; /* "5/10": from 5 on */
    }
    if (s.n || from > to)
        return false;
    for (int v = from; v <= to; v += step)
        *bits |= 1ull << v;
    return true;
}

static bool read_field(struct dv_sv s, const struct field *f, uint64_t *out)
{
    struct dv_sv item;
    *out = 0;
    bool more = true;
    while (more) {
        more = dv_sv_cut(s, ',', &item, &s);
        if (!add_item(item, f, out))
            return false;
    }
    return true;
}

static struct dv_sv next_word(struct dv_sv *s)
{
    struct dv_sv t = dv_sv_trim(*s);
    size_t i = 0;
    while (i < t.n && t.p[i] != ' ' && t.p[i] != '\t')
        i++;
    *s = dv_sv(t.p + i, t.n - i);
    return dv_sv(t.p, i);
}

static struct dv_sv spelled_out(struct dv_sv s)
{
    static const struct {
        const char *name, *means;
    } words[] = {{"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
                 {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
                 {"@hourly", "0 * * * *"}};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (dv_sv_eq_nocase(s, dv_sv_c(words[i].name)))
            return dv_sv_c(words[i].means);
    return s;
}

static int refuse(const char **why, const char *text)
{
    if (why)
        *why = text;
    return DV_INVALID;
}

int dv_cron_parse(struct dv_sv s, struct dv_cron *out, const char **why)
{
    enum { N = sizeof(fields) / sizeof(fields[0]) };
    uint64_t bits[N];
    bool is_star[N];
    struct dv_sv rest = spelled_out(dv_sv_trim(s));
    for (size_t i = 0; i < N; i++) {
        struct dv_sv word = next_word(&rest);
        if (word.n == 0)
            return refuse(why, "needs five fields: minute hour day month weekday, as \"0 8 * * 1-5\"");
        if (!read_field(word, &fields[i], &bits[i]))
            return refuse(why, fields[i].wrong);
        is_star[i] = word.p[0] == '*';
    }
    if (dv_sv_trim(rest).n)
        return refuse(why, "has more than five fields (minute hour day month weekday)");
    struct dv_cron c = {.minutes = bits[0],
                        .hours = (uint32_t)bits[1],
                        .days = (uint32_t)bits[2],
                        .months = (uint16_t)bits[3],
                        .weekdays = (uint8_t)((bits[4] | bits[4] >> 7) & 0x7f),
                        .is_any_hour = is_star[1],
                        .is_any_day = is_star[2],
                        .is_any_weekday = is_star[4]};
    if (dv_cron_next(&c, NULL, 0) == INT64_MAX)
        return refuse(why, "names a day that never comes");
    *out = c;
    return DV_OK;
}

/* ---- searching ---- */

static bool fits_day(const struct dv_cron *c, int day, int64_t days)
{
    int weekday = (int)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
    bool by_day = c->days >> day & 1, by_weekday = c->weekdays >> weekday & 1;
    return c->is_any_day || c->is_any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* The first fitting minute at or after `local`, in local seconds; past `limit`: INT64_MAX. */
static int64_t next_local(const struct dv_cron *c, int64_t local, int64_t limit)
{
    int64_t t = floor_div(local + MINUTE - 1, MINUTE) * MINUTE;
    while (t <= limit) {
        int64_t days = floor_div(t, DAY), year;
        int month, day, second = (int)(t - days * DAY), hour = second / HOUR, minute = second % HOUR / MINUTE;
        dv_date_from_days(days, &year, &month, &day);
        if (!(c->months >> month & 1)) {
            t = dv_days_from_date(month == 12 ? year + 1 : year, month == 12 ? 1 : month + 1, 1) * DAY;
        } else if (!fits_day(c, day, days) || c->hours >> hour == 0) {
            t = (days + 1) * DAY;
        } else if (!(c->hours >> hour & 1)) {
            t = days * DAY + (hour + __builtin_ctz(c->hours >> hour)) * HOUR;
        } else if (c->minutes >> minute == 0) {
            t = days * DAY + (hour + 1) * HOUR;
        } else {
            return t + __builtin_ctzll(c->minutes >> minute) * MINUTE;
        }
    }
    return INT64_MAX;
}

/* In one span, from `from` on.  INT64_MAX: not in this one. */
static int64_t next_in_span(const struct dv_cron *c, const struct dv_tz *tz, const struct dv_tz_span *s,
                            int64_t from, int64_t limit)
{
    int64_t local = from + s->offset_s;
    if (s->since_s != INT64_MIN && !c->is_any_hour) {
        int64_t before_s = dv_tz_at(tz, s->since_s - 1).offset_s;
        int64_t seam = s->since_s + before_s; /* what the clock showed there */
        bool is_left_out = before_s < s->offset_s && from <= s->since_s &&
                           next_local(c, seam, limit) < s->since_s + s->offset_s;
        if (is_left_out)
            return s->since_s;
        if (before_s > s->offset_s && local < seam)
            local = seam; /* that was shown before */
    }
    int64_t at = next_local(c, local, limit);
    return at == INT64_MAX || at - s->offset_s >= s->until_s ? INT64_MAX : at - s->offset_s;
}

int64_t dv_cron_next(const struct dv_cron *c, const struct dv_tz *tz, int64_t after_s)
{
    int64_t from = after_s + 1, limit = after_s + far_s;
    while (from <= limit) {
        struct dv_tz_span s = dv_tz_at(tz, from);
        int64_t at = next_in_span(c, tz, &s, from, limit);
        if (at != INT64_MAX)
            return at;
        if (s.until_s == INT64_MAX)
            return INT64_MAX;
        from = s.until_s;
    }
    return INT64_MAX;
}

int64_t dv_cron_prev(const struct dv_cron *c, const struct dv_tz *tz, int64_t before_s)
{
    int64_t lo = before_s - far_s, hi = before_s; /* next(lo) is before, next(hi) is not */
    if (dv_cron_next(c, tz, lo) >= before_s)
        return INT64_MIN;
    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if (dv_cron_next(c, tz, mid) < before_s)
            lo = mid;
        else
            hi = mid;
    }
    return dv_cron_next(c, tz, lo);
}
