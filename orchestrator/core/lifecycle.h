/* The life of a replica: one table of state x event, one function that moves.  Pure; any thread. */
#ifndef DV_LIFECYCLE_H
#define DV_LIFECYCLE_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/wire/types.h"

enum dv_life_event {
    DV_LIFE_PRIME,  /* its sandbox exists, the gate is closed */
    DV_LIFE_START,  /* it is being made, or started again */
    DV_LIFE_READY,  /* it answered its probe, or was thawed */
    DV_LIFE_FREEZE, /* its cgroup is frozen */
    DV_LIFE_DRAIN,  /* no longer wanted: takes no new request, ends when idle */
    DV_LIFE_FAIL,   /* ended, or never began, against our will */
    DV_LIFE_VANISH, /* nothing of it is left */
    DV_LIFE_N_EVENTS
};

/* How often each move was made, by the state it left and the event; for metrics. */
struct dv_life_counts {
    uint64_t moves[DV_REPLICA_N_STATES][DV_LIFE_N_EVENTS];
    uint64_t refused;
};

/* Move *state.  counts may be NULL.
 * DV_OK (*state may be what it was: repeating an event is harmless); DV_INVALID: the table knows no such
 * move, *state untouched. */
int dv_life_move(enum dv_replica_state *state, enum dv_life_event event, struct dv_life_counts *counts);

/* The event that a report of this state stands for. */
enum dv_life_event dv_life_event_of(enum dv_replica_state reported);

const char *dv_life_event_name(enum dv_life_event event);

/* Holds, or will hold, a place among the replicas that serve: neither ending nor ended. */
static inline bool dv_life_is_live(enum dv_replica_state s)
{
    return s <= DV_REPLICA_FROZEN;
}
/* May be given requests (a frozen one is thawed by its agent before the first byte). */
static inline bool dv_life_is_ready(enum dv_replica_state s)
{
    return s == DV_REPLICA_WARM || s == DV_REPLICA_FROZEN;
}

#endif
