#include "orchestrator/core/pools.h"

#include <stdlib.h>
#include "proto/base/str.h"

int64_t dv_pools_budget(enum dv_pools_part part, int64_t memory_bytes)
{
    int64_t n = memory_bytes / (part == DV_POOLS_ASKED ? 10 : 50) / DV_POOLS_SANDBOX_BYTES;
    return n > DV_POOLS_NODE_MAX ? DV_POOLS_NODE_MAX : n < 0 ? 0 : n;
}

/* splitmix64's finisher */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* FNV-1a, the end of the text included */
static uint64_t add_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
    return (h ^ 0xff) * 0x100000001b3ull;
}

uint64_t dv_pools_hash(const struct dv_pool *kind)
{
    uint64_t h = add_text(0xcbf29ce484222325ull, kind->image);
    h = add_text(h, kind->user ? kind->user : "\x01");
    h = mix(h ^ (uint64_t)kind->tmp_bytes);
    h = mix(h ^ (uint64_t)kind->files);
    h = mix(h ^ (kind->read_only ? 1 : 2));
    return h ? h : 1;
}

int64_t dv_pools_share(uint64_t window_ns)
{
    if (window_ns <= DV_POOLS_REFILL_NS)
        return 1000;
    int64_t share = (int64_t)(DV_POOLS_REFILL_NS / (window_ns / 1000));
    return share > 1000 ? 1000 : share > 0 ? share : 1;
}

/* ---- spreading ---- */

static int by_rank(const void *a, const void *b)
{
    const struct dv_pools_node *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank > y->rank ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

int64_t dv_pools_spread(uint64_t kind, int64_t n, struct dv_pools_node *nodes, size_t n_nodes)
{
    int64_t left = n, room = 0;
    for (size_t i = 0; i < n_nodes; i++) {
        nodes[i].n = 0;
        nodes[i].rank = mix(kind ^ mix(nodes[i].id + 0x9e3779b97f4a7c15ull));
        room += nodes[i].room;
    }
    if (left > room)
        left = room;
    int64_t placed = left;
    if (left <= 0)
        return 0;
    qsort(nodes, n_nodes, sizeof(*nodes), by_rank);
    while (left > 0) { /* a round gives each its share of what is left, and one at least */
        int64_t open = 0;
        for (size_t i = 0; i < n_nodes; i++)
            open += nodes[i].n < nodes[i].room;
        int64_t each = left / open > 0 ? left / open : 1;
        for (size_t i = 0; i < n_nodes && left > 0; i++) {
            int64_t give = nodes[i].room - nodes[i].n;
            give = give > each ? each : give;
            give = give > left ? left : give;
            nodes[i].n += give;
            left -= give;
        }
    }
    return placed;
}
