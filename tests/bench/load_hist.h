/* Latencies: buckets of under 1 % width from a nanosecond to hours, so that nothing is sampled or kept. */
#ifndef DV_LOAD_HIST_H
#define DV_LOAD_HIST_H

#include <stdint.h>

enum { LOAD_HIST_SUB = 128, LOAD_HIST_SUB_BITS = 7, LOAD_HIST_EXPONENTS = 40 };

struct load_hist {
    uint64_t n, sum_ns, max_ns;
    uint64_t buckets[LOAD_HIST_EXPONENTS * LOAD_HIST_SUB];
};

static inline unsigned load_hist_index(uint64_t ns)
{
    if (ns < LOAD_HIST_SUB)
        return (unsigned)ns;
    unsigned shift = 63U - (unsigned)__builtin_clzll(ns) - LOAD_HIST_SUB_BITS;
    unsigned i = (shift + 1) * LOAD_HIST_SUB + (unsigned)((ns >> shift) - LOAD_HIST_SUB);
    return i < LOAD_HIST_EXPONENTS * LOAD_HIST_SUB ? i : LOAD_HIST_EXPONENTS * LOAD_HIST_SUB - 1;
}

static inline void load_hist_add(struct load_hist *h, uint64_t ns)
{
    h->n++;
    h->sum_ns += ns;
    h->max_ns = ns > h->max_ns ? ns : h->max_ns;
    h->buckets[load_hist_index(ns)]++;
}

/* The upper end of the bucket that holds the share (0..1) of all values; 0 without any. */
static inline uint64_t load_hist_at(const struct load_hist *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->n + 0.999999), seen = 0;
    for (unsigned i = 0; i < LOAD_HIST_EXPONENTS * LOAD_HIST_SUB && h->n; i++) {
        seen += h->buckets[i];
        if (seen < wanted || seen == 0)
            continue;
        unsigned shift = i < 2 * LOAD_HIST_SUB ? 0 : i / LOAD_HIST_SUB - 1;
        uint64_t lower = i < LOAD_HIST_SUB ? i : (uint64_t)(i % LOAD_HIST_SUB + LOAD_HIST_SUB) << shift;
        uint64_t upper = lower + (1ULL << shift) - 1;
        return upper < h->max_ns ? upper : h->max_ns;
    }
    return h->max_ns;
}

#endif
