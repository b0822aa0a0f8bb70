/* Times that come again: the five fields of cron (minute hour day-of-month month day-of-week), in a time
 * zone. Pure; any thread.
 *
 * Fields take numbers, names (JAN, mon), lists, ranges and steps ("1-5", "*" with "/15"); 7 is Sunday, too.
 * @yearly @annually @monthly @weekly @daily @midnight @hourly stand for the usual ones.  Where both days are
 * restricted one of them is enough, as cron has always had it.
 *
 * When clocks change, a time of day that is left out comes at the moment of the change, and one that comes
 * twice counts the first time; what runs every hour ('*' in the hour) goes by the clock as it is. */
#ifndef DV_CRON_H
#define DV_CRON_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/str.h"
#include "proto/base/tz.h"

struct dv_cron {
    uint64_t minutes; /* bit sets */
    uint32_t hours, days;
    uint16_t months;
    uint8_t weekdays; /* bit 0: Sunday */
    bool is_any_day, is_any_weekday, is_any_hour;
};

/* DV_OK; DV_INVALID with *why (static; may be NULL) saying what is wrong, *out untouched. */
int dv_cron_parse(struct dv_sv s, struct dv_cron *out, const char **why);

/* The first time after `after_s`, the last one before `before_s`, in Unix seconds; both whole minutes of the
 * zone's clock.  tz: NULL is UTC.  None within a dozen years: INT64_MAX, INT64_MIN. */
int64_t dv_cron_next(const struct dv_cron *c, const struct dv_tz *tz, int64_t after_s);
int64_t dv_cron_prev(const struct dv_cron *c, const struct dv_tz *tz, int64_t before_s);

#endif
