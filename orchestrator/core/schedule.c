#include "orchestrator/core/schedule.h"

/* A window is open from each time it begins, for its duration; windows that meet are one. */
static int64_t open_until(const struct dv_schedule_entry *e, int64_t now_s, int64_t *out_begins_s)
{
    *out_begins_s = dv_cron_next(&e->begins, e->tz, now_s - e->duration_s);
    if (*out_begins_s > now_s)
        return 0;
    return dv_cron_prev(&e->begins, e->tz, now_s + 1) + e->duration_s;
}

struct dv_schedule_state dv_schedule_at(const struct dv_schedule_entry *v, size_t n, int64_t now_s)
{
    struct dv_schedule_state out = {0, INT64_MAX};
    for (size_t i = 0; i < n; i++) {
        int64_t begins_s, until_s = open_until(&v[i], now_s, &begins_s);
        if (until_s && v[i].min > out.min)
            out.min = v[i].min;
        int64_t change_s = until_s ? until_s : begins_s;
        if (change_s < out.next_s)
            out.next_s = change_s;
    }
    return out;
}
