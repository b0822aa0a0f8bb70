/* Back-off of a function whose replicas fail: 1 s, 2 s, 4 s ... 60 s between attempts.  Pure; any thread. */
#ifndef DV_CRASHLOOP_H
#define DV_CRASHLOOP_H

#include <stdbool.h>
#include <stdint.h>

#define DV_CRASHLOOP_FIRST_NS 1000000000ull
#define DV_CRASHLOOP_MAX_NS   60000000000ull
/* A replica that served this long has proved its function; its end later is not part of a loop. */
#define DV_CRASHLOOP_PROVEN_NS 10000000000ull

struct dv_crashloop {  /* zero: nothing failed */
    uint32_t failures; /* in a row */
    uint64_t until_ns; /* no attempt before; 0: none */
};

/* One more failure.  Several within one back-off are one: they began together. */
void dv_crashloop_fail(struct dv_crashloop *c, uint64_t now_ns);
/* A deploy, or a replica that proved itself: forget. */
void dv_crashloop_clear(struct dv_crashloop *c);
bool dv_crashloop_blocks(const struct dv_crashloop *c, uint64_t now_ns);

#endif
