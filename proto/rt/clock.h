/* Time.  Monotonic nanoseconds for every decision; wall time only for display and records.
 * A clock is a value passed down from main, so that tests and the simulation supply their own. */
#ifndef DV_CLOCK_H
#define DV_CLOCK_H

#include <stdint.h>

struct dv_clock {
    uint64_t (*mono_ns)(void *ctx);
    int64_t (*wall_ms)(void *ctx); /* Unix epoch, milliseconds */
    void *ctx;
};

extern const struct dv_clock dv_clock_system;

/* A clock that stands still until told otherwise; ctx is the struct itself. */
struct dv_clock_fake {
    uint64_t mono_ns;
    int64_t wall_ms;
};
struct dv_clock dv_clock_fake(struct dv_clock_fake *f);

static inline uint64_t dv_clock_now_ns(const struct dv_clock *c)
{
    return c->mono_ns(c->ctx);
}
static inline int64_t dv_clock_wall_ms(const struct dv_clock *c)
{
    return c->wall_ms(c->ctx);
}

#define DV_MS 1000000ull
#define DV_S  1000000000ull

/* "2026-01-31T12:00:00.123Z"; out needs 25 bytes. */
#define DV_RFC3339_TEXT 25
void dv_rfc3339(int64_t wall_ms, char out[DV_RFC3339_TEXT]);
/* RFC 3339 with any offset -> Unix milliseconds; 0, or DV_INVALID. */
int dv_rfc3339_parse(const char *s, int64_t *out_wall_ms);

#endif
