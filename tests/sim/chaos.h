/* One world drawn from a seed: a few small nodes, functions with limits and loads of all kinds, and faults.
 * Runs with the invariants checked after every step, then without faults and load until everything must have
 * settled. */
#ifndef DV_SIM_CHAOS_H
#define DV_SIM_CHAOS_H

#include "tests/sim/sim.h"

struct sim_chaos_result {
    uint64_t steps, requests, lost, refused, starts, violations;
    char violation[240];
};
/* seconds: with faults.  is_lenient: count violations instead of aborting with the trace. */
void sim_chaos(uint64_t seed, double seconds, bool is_lenient, struct sim_chaos_result *out);

#endif
