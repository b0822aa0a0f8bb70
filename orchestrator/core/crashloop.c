/* Crash-loop back-off.  Attempts are made only outside of a back-off, so a failure that arrives inside one
 * belongs to an attempt made beside the first: ten replicas of a broken image started for a burst fail within
 * milliseconds of each other and must not push the wait to a minute at once. */
#include "orchestrator/core/crashloop.h"

void dv_crashloop_fail(struct dv_crashloop *c, uint64_t now_ns)
{
    if (dv_crashloop_blocks(c, now_ns))
        return;
    uint64_t wait = DV_CRASHLOOP_MAX_NS;
    if (c->failures < 6)
        wait = DV_CRASHLOOP_FIRST_NS << c->failures;
    if (wait > DV_CRASHLOOP_MAX_NS)
        wait = DV_CRASHLOOP_MAX_NS;
    c->failures++;
    c->until_ns = now_ns + wait;
}

void dv_crashloop_clear(struct dv_crashloop *c)
{
    *c = (struct dv_crashloop){0};
}

bool dv_crashloop_blocks(const struct dv_crashloop *c, uint64_t now_ns)
{
    return now_ns < c->until_ns;
}
