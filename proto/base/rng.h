/* Seeded random numbers: xoshiro256** (Blackman, Vigna 2018), seeded by splitmix64.  Not for secrets. */
#ifndef DV_RNG_H
#define DV_RNG_H

#include <stdint.h>

struct dv_rng {
    uint64_t s[4];
};

void dv_rng_init(struct dv_rng *r, uint64_t seed);
uint64_t dv_rng_u64(struct dv_rng *r);
uint64_t dv_rng_below(struct dv_rng *r, uint64_t n); /* uniform in [0, n), n > 0 */
double dv_rng_unit(struct dv_rng *r);                /* uniform in [0, 1) */

#endif
