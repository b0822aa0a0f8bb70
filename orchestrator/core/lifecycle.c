/* Life of a replica.
 *
 *     cold -> primed -> starting -> warm <-> frozen
 *     any of these -> draining -> gone
 *     any but gone -> failed -> gone
 *
 * Agents report states, not moves, and reports are gathered: a replica may be seen cold and next warm.  So
 * the table allows going forward over what was not seen.  What it refuses are the impossible: a replica that
 * failed or is gone never serves again under the same id, and one that drains does not come back, however
 * late a report from before the drain arrives. */
#include "orchestrator/core/lifecycle.h"

#include "proto/base/auto.h"
#include "proto/base/err.h"

#define NO 0xff

#define COLD     DV_REPLICA_COLD
#define PRIMED   DV_REPLICA_PRIMED
#define STARTING DV_REPLICA_STARTING
#define WARM     DV_REPLICA_WARM
#define FROZEN   DV_REPLICA_FROZEN
#define DRAINING DV_REPLICA_DRAINING
#define FAILED   DV_REPLICA_FAILED
#define GONE     DV_REPLICA_GONE

/* clang-format off */
static const uint8_t table[][DV_LIFE_N_EVENTS] = {
    /*              prime     start     ready     freeze    drain     fail    vanish */
    [COLD]      = { PRIMED,   STARTING, WARM,     FROZEN,   DRAINING, FAILED, GONE },
    [PRIMED]    = { PRIMED,   STARTING, WARM,     FROZEN,   DRAINING, FAILED, GONE },
    [STARTING]  = { STARTING, STARTING, WARM,     FROZEN,   DRAINING, FAILED, GONE },
    [WARM]      = { NO,       STARTING, WARM,     FROZEN,   DRAINING, FAILED, GONE },
    [FROZEN]    = { NO,       STARTING, WARM,     FROZEN,   DRAINING, FAILED, GONE },
    [DRAINING]  = { DRAINING, DRAINING, DRAINING, DRAINING, DRAINING, FAILED, GONE },
    [FAILED]    = { NO,       NO,       NO,       NO,       FAILED,   FAILED, GONE },
    [GONE]      = { NO,       NO,       NO,       NO,       NO,       NO,     GONE },
};
/* clang-format on */

_Static_assert(DV_COUNT(table) == DV_REPLICA_N_STATES, "every state has its row");
_Static_assert(sizeof(table[0]) == DV_LIFE_N_EVENTS, "every event has its column");
_Static_assert(DV_REPLICA_N_STATES < NO, "states fit beside NO");

static const char *const event_names[] = {"prime", "start", "ready", "freeze", "drain", "fail", "vanish"};
_Static_assert(DV_COUNT(event_names) == DV_LIFE_N_EVENTS, "every event has its name");

int dv_life_move(enum dv_replica_state *state, enum dv_life_event event, struct dv_life_counts *counts)
{
    if ((unsigned)*state >= DV_REPLICA_N_STATES || (unsigned)event >= DV_LIFE_N_EVENTS)
        return DV_INVALID;
    uint8_t next = table[*state][event];
    if (next == NO) {
        if (counts)
            counts->refused++;
        return DV_INVALID;
    }
    if (counts && next != *state)
        counts->moves[*state][event]++;
    *state = (enum dv_replica_state)next;
    return DV_OK;
}

enum dv_life_event dv_life_event_of(enum dv_replica_state reported)
{
    static const uint8_t events[] = {
        [COLD] = DV_LIFE_START,  [PRIMED] = DV_LIFE_PRIME,  [STARTING] = DV_LIFE_START,
        [WARM] = DV_LIFE_READY,  [FROZEN] = DV_LIFE_FREEZE, [DRAINING] = DV_LIFE_DRAIN,
        [FAILED] = DV_LIFE_FAIL, [GONE] = DV_LIFE_VANISH,
    };
    _Static_assert(DV_COUNT(events) == DV_REPLICA_N_STATES, "every state has its event");
    return (unsigned)reported < DV_COUNT(events) ? (enum dv_life_event)events[reported] : DV_LIFE_FAIL;
}

const char *dv_life_event_name(enum dv_life_event event)
{
    return (unsigned)event < DV_COUNT(event_names) ? event_names[event] : "unknown";
}
