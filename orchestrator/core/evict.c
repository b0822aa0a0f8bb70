#include "orchestrator/core/evict.h"

#include <stdlib.h>

enum { LOW_PART = 20, ENOUGH_PART = 10 };

#define UNKNOWN_BYTES (1024 * 1024ll) /* of a replica that has not said what it holds: little */

int64_t dv_evict_need(int64_t memory_bytes, int64_t available_bytes, int64_t leaving_bytes)
{
    if (memory_bytes <= 0 || available_bytes <= 0 || available_bytes >= memory_bytes / LOW_PART)
        return 0; /* 0 available: not told */
    int64_t need = memory_bytes / ENOUGH_PART - available_bytes - leaving_bytes;
    return need > 0 ? need : 0;
}

static int64_t bytes_of(const struct dv_evict_view *v)
{
    return v->bytes > 0 ? v->bytes : UNKNOWN_BYTES;
}

/* Expected harm of a byte: uses a second so far, times seconds to come back. */
static double harm(const struct dv_evict_view *v)
{
    return (double)(v->back_ns + 1) / (double)(v->idle_ns + 1) / (double)bytes_of(v);
}

bool dv_evict_first(const struct dv_evict_view *a, const struct dv_evict_view *b)
{
    if (a->is_frozen != b->is_frozen)
        return a->is_frozen;
    double x = harm(a), y = harm(b);
    if (x < y || y < x)
        return x < y;
    return a->id < b->id;
}

static int compare(const void *a, const void *b)
{
    return dv_evict_first(a, b) ? -1 : dv_evict_first(b, a);
}

size_t dv_evict_pick(struct dv_evict_view *v, size_t n, int64_t need)
{
    qsort(v, n, sizeof(*v), compare);
    size_t i = 0;
    for (int64_t got = 0; i < n && got < need; i++)
        got += bytes_of(&v[i]);
    return i;
}
