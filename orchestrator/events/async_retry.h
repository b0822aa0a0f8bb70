/* What happens after an attempt: done, again later, or given up.  Pure.
 * Policy of a function: annotations com.openfaas.retry.{attempts,codes,min_wait,max_wait}, defaults as
 * OpenFaaS has them: 10 attempts, waits from 10 s doubling up to 120 s, codes 408 429 500 502 503 504. */
#ifndef DV_ASYNC_RETRY_H
#define DV_ASYNC_RETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/str.h"

struct dv_kvs;

enum { DV_ASYNC_CODES_MAX = 32 };

struct dv_async_policy {
    uint32_t attempts; /* calls in all; at least 1 */
    int64_t min_wait_ms, max_wait_ms;
    int codes[DV_ASYNC_CODES_MAX];
    size_t n_codes;
    bool codes_given; /* by the function: then a 500 of its own making counts too */
};

struct dv_async_outcome {
    int status;             /* 0: no answer came (gateway not reachable, broken off, deadline) */
    bool is_ours;           /* X-OpenFaaS-Internal: made by the platform, not by the function */
    int64_t retry_after_ms; /* -1: not said */
};

enum dv_async_next { DV_ASYNC_DONE, DV_ASYNC_RETRY, DV_ASYNC_GIVE_UP };

/* A value that cannot be read, or makes no sense (attempts 0, min above max), leaves its default. */
void dv_async_policy_read(const struct dv_kvs *annotations, struct dv_async_policy *out);
/* Of callbacks: 5 attempts, 1 s to 30 s. */
void dv_async_policy_callback(struct dv_async_policy *out);

/* attempt: of this outcome, from 1.  unit: random in [0, 1); takes up to a fifth off the wait, so that what
 * failed together does not come back together.  A Retry-After is obeyed within min_wait and one hour.
 * *out_wait_ms is set with DV_ASYNC_RETRY only. */
enum dv_async_next dv_async_decide(const struct dv_async_policy *p, const struct dv_async_outcome *o,
                                   uint32_t attempt, double unit, int64_t *out_wait_ms);

/* A Retry-After value: seconds or an HTTP date.  -1 when it is neither. */
int64_t dv_async_retry_after_ms(struct dv_sv value, int64_t wall_now_ms);

#endif
