/* Capacity by the clock: during a window a function's minimum is raised.  Pure; any thread. */
#ifndef DV_SCHEDULE_H
#define DV_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>
#include "proto/base/cron.h"

struct dv_schedule_entry {
    struct dv_cron begins;
    const struct dv_tz *tz; /* borrowed; NULL: UTC */
    int64_t duration_s, min;
};

struct dv_schedule_state {
    int64_t min;    /* the largest of the windows that are open; 0: none is */
    int64_t next_s; /* Unix time: nothing changes before; INT64_MAX: never */
};
struct dv_schedule_state dv_schedule_at(const struct dv_schedule_entry *v, size_t n, int64_t now_s);

#endif
