#include "agent/core/reclaim.h"

int64_t dv_reclaim_missing(const struct dv_reclaim_node *node)
{
    int64_t low = node->memory_bytes / 100 * node->percent, high = low + low / 4;
    if (high > node->memory_bytes)
        high = node->memory_bytes;
    if (node->percent <= 0 || node->available_bytes >= (node->is_short ? high : low))
        return 0;
    return high - node->available_bytes;
}

static bool can_give(const struct dv_reclaim_replica *r)
{
    return !r->is_spent && r->memory_bytes > DV_RECLAIM_REST_BYTES;
}

static bool goes_first(const struct dv_reclaim_replica *a, const struct dv_reclaim_replica *b)
{
    if (a->frozen_ms != b->frozen_ms)
        return a->frozen_ms > b->frozen_ms;
    if (a->memory_bytes != b->memory_bytes)
        return a->memory_bytes > b->memory_bytes;
    return a->id < b->id;
}

bool dv_reclaim_next(const struct dv_reclaim_node *node, const struct dv_reclaim_replica *r, size_t n,
                     struct dv_reclaim_step *out)
{
    const struct dv_reclaim_replica *best = NULL;
    int64_t bytes = dv_reclaim_missing(node);
    for (size_t i = 0; bytes && i < n; i++)
        if (can_give(&r[i]) && (!best || goes_first(&r[i], best)))
            best = &r[i];
    if (!best)
        return false;
    if (bytes > best->memory_bytes - DV_RECLAIM_REST_BYTES)
        bytes = best->memory_bytes - DV_RECLAIM_REST_BYTES;
    if (bytes > DV_RECLAIM_STEP_BYTES)
        bytes = DV_RECLAIM_STEP_BYTES;
    *out = (struct dv_reclaim_step){best->id, bytes};
    return true;
}
