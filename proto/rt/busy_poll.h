/* Whether a loop should look again for a few microseconds before it sleeps.  Pure; one owner, the loop.
 *
 * A sleeping processor costs some 20 to 50 us to wake, in a virtual machine more: with few requests in flight
 * that is most of what a hop adds.  A loop whose last waits were short looks again and again, giving way to
 * whoever else wants the processor, for at most `window_ns`; one whose waits are long sleeps at once.  The
 * rule is that of KVM's halt polling (Linux, Documentation/virt/kvm/halt-polling.rst) with a counter in place
 * of a growing window. */
#ifndef DV_BUSY_POLL_H
#define DV_BUSY_POLL_H

#include <stdbool.h>
#include <stdint.h>

struct dv_busy_poll {
    uint64_t window_ns; /* 0: never */
    int score;          /* short waits lately, long ones taken off */
};

enum {
    DV_BUSY_POLL_ENOUGH = 4, /* short sleeps before looking is tried */
    DV_BUSY_POLL_MAX = 8,
    DV_BUSY_POLL_MISS = 2,       /* looking in vain takes back as much as two short sleeps gave */
    DV_BUSY_POLL_CROWDED = -256, /* short sleeps before the next try where others compute */
    DV_BUSY_POLL_SLEEP =
        4, /* a sleep of so many windows is short: most of it was falling asleep and waking */
};

static inline bool dv_busy_poll_pays(const struct dv_busy_poll *p)
{
    return p->window_ns && p->score >= DV_BUSY_POLL_ENOUGH;
}

static inline void dv_busy_poll_looked(struct dv_busy_poll *p, bool in_vain)
{
    if (!in_vain)
        p->score += p->score < DV_BUSY_POLL_MAX;
    else
        p->score -= p->score > 0 ? DV_BUSY_POLL_MISS : 0;
}

static inline void dv_busy_poll_slept(struct dv_busy_poll *p, uint64_t ns)
{
    if (ns <= DV_BUSY_POLL_SLEEP * p->window_ns)
        p->score += p->score < DV_BUSY_POLL_MAX;
    else if (p->score > 0)
        p->score--;
}

/* Giving way took longer than the whole window: others compute here, and a loop that looks loses its turn to
 * them where one that sleeps would be woken ahead of them. */
static inline void dv_busy_poll_crowded(struct dv_busy_poll *p)
{
    p->score = DV_BUSY_POLL_CROWDED;
}

#endif
