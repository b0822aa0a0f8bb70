/* Time zones, from the bytes of a TZif file (RFC 8536, version 2 and later).  Pure: who reads the file is
 * proto/rt/tzfile.h.  Any thread once made. */
#ifndef DV_TZ_H
#define DV_TZ_H

#include <stdint.h>
#include "proto/base/err.h"
#include "proto/base/str.h"

struct dv_tz;

/* *out is the caller's (dv_tz_free).  DV_OK; DV_INVALID; DV_E_NOMEM. */
int dv_tz_parse(struct dv_sv bytes, struct dv_tz **out, struct dv_err *err);
void dv_tz_free(struct dv_tz *tz); /* NULL accepted */

struct dv_tz_span {
    int64_t since_s, until_s; /* Unix time; INT64_MIN, INT64_MAX: for ever */
    int64_t offset_s;         /* local minus UTC, the same all through it */
};
/* The span that holds at_s.  tz NULL: UTC. */
struct dv_tz_span dv_tz_at(const struct dv_tz *tz, int64_t at_s);

/* Days since 1970-01-01 of a date in the Gregorian calendar, and back.  month 1-12, day from 1. */
int64_t dv_days_from_date(int64_t year, int month, int day);
void dv_date_from_days(int64_t days, int64_t *out_year, int *out_month, int *out_day);
int dv_days_in_month(int64_t year, int month);

#endif
