/* What goes first when a node is short of memory: what gives back most for the least harm.  Pure; any thread.
 *
 * Harm is the time it takes to come back, times how likely that is soon; the longer idle, the less likely.
 * Harm per byte is the order, as in Greedy-Dual caching of functions (Fuerst, Sharma: "FaasCache", ASPLOS
 * 2021).  What is frozen goes before what is not. */
#ifndef DV_EVICT_H
#define DV_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dv_evict_view {
    uint64_t id;
    int64_t bytes;    /* held; 0: not known */
    uint64_t idle_ns; /* since its last use */
    uint64_t back_ns; /* it takes to come back */
    bool is_frozen;
    void *ref; /* the caller's */
};

/* Bytes to get back on a node: 0 while at least a twentieth of its memory is available, what lacks to a tenth
 * otherwise.  leaving: what is on its way back already. */
int64_t dv_evict_need(int64_t memory_bytes, int64_t available_bytes, int64_t leaving_bytes);
/* a is to go before b. */
bool dv_evict_first(const struct dv_evict_view *a, const struct dv_evict_view *b);
/* Put v in the order of going; returns how many must go to give back need bytes (all when that is not
 * enough). The order of the input does not matter. */
size_t dv_evict_pick(struct dv_evict_view *v, size_t n, int64_t need);

#endif
