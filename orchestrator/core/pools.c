#include "orchestrator/core/pools.h"

#include <math.h>
#include <stdbool.h>
#include "proto/base/str.h"

int64_t dv_pools_budget(enum dv_pools_part part, int64_t memory_bytes, int64_t primed_max)
{
    int64_t most = primed_max ? primed_max : DV_POOLS_NODE_MAX;
    int64_t n = memory_bytes / (part == DV_POOLS_ASKED ? 10 : 50) / DV_POOLS_SANDBOX_BYTES;
    n = n > most ? most : n;
    return n > 0 ? n : 0;
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

/* ---- habits ---- */

#define MINUTE_NS        60000000000ull
#define LEVEL_HALVES_NS  (10 * MINUTE_NS)
#define MINUTE_HALVES_NS (60 * MINUTE_NS)
static const float minutes_enough = 6; /* eight of the last ten, or twelve of the last sixty */

static void fade(struct dv_pools_habit *h, uint64_t now_ns)
{
    if (now_ns <= h->at_ns)
        return;
    double dt = (double)(now_ns - h->at_ns);
    h->level = (float)((double)h->level * pow(0.5, dt / (double)LEVEL_HALVES_NS));
    h->minutes = (float)((double)h->minutes * pow(0.5, dt / (double)MINUTE_HALVES_NS));
    h->at_ns = now_ns;
}

void dv_pools_started(struct dv_pools_habit *h, uint64_t now_ns)
{
    uint64_t window = now_ns / DV_POOLS_REFILL_NS, minute = now_ns / MINUTE_NS;
    fade(h, now_ns);
    h->n = window == h->window ? h->n + 1 : 1;
    h->window = window;
    h->minutes += minute != h->minute;
    h->minute = minute;
    if (h->level < (float)h->n)
        h->level = (float)h->n;
}

int64_t dv_pools_habitual(struct dv_pools_habit *h, uint64_t now_ns)
{
    fade(h, now_ns);
    return h->minutes < minutes_enough ? 0 : (int64_t)((double)h->level + 0.5);
}

bool dv_pools_forgotten(const struct dv_pools_habit *h)
{
    return h->minutes < 1 && h->level < 0.5f;
}

/* ---- spreading ---- */

static bool ranks_first(const struct dv_pools_node *x, const struct dv_pools_node *y)
{
    return x->rank != y->rank ? x->rank > y->rank : x->id < y->id;
}

static void swap(struct dv_pools_node *x, struct dv_pools_node *y)
{
    struct dv_pools_node t = *x;
    *x = *y;
    *y = t;
}

/* Bring the k that rank first to the front, in any order (Hoare's selection; ranks are as good as random). */
static void select_first(struct dv_pools_node *v, size_t n, size_t k)
{
    while (k > 0 && k < n) {
        size_t before = 0;
        swap(&v[n / 2], &v[n - 1]);
        for (size_t i = 0; i + 1 < n; i++)
            if (ranks_first(&v[i], &v[n - 1]))
                swap(&v[i], &v[before++]);
        swap(&v[before], &v[n - 1]);
        if (before >= k) {
            n = before;
        } else {
            v += before + 1;
            n -= before + 1;
            k -= before + 1;
        }
    }
}

/* Those with room left come to the front; returns how many they are. */
static size_t open_first(struct dv_pools_node *nodes, size_t n)
{
    size_t open = 0;
    for (size_t i = 0; i < n; i++)
        if (nodes[i].n < nodes[i].room)
            swap(&nodes[i], &nodes[open++]);
    return open;
}

int64_t dv_pools_spread(uint64_t kind, int64_t n, struct dv_pools_node *nodes, size_t n_nodes)
{
    int64_t left = n, each;
    for (size_t i = 0; i < n_nodes; i++) {
        nodes[i].n = 0;
        nodes[i].rank = mix(kind ^ mix(nodes[i].id + 0x9e3779b97f4a7c15ull));
    }
    size_t open = open_first(nodes, n_nodes);
    for (; open > 0 && (each = left / (int64_t)open) > 0; open = open_first(nodes, open))
        for (size_t i = 0; i < open; i++) {
            int64_t room = nodes[i].room - nodes[i].n, give = room < each ? room : each;
            nodes[i].n += give;
            left -= give;
        }
    if (open > 0 && left > 0) { /* fewer than there are nodes: one each for those that rank first */
        select_first(nodes, open, (size_t)left);
        for (; left > 0; left--)
            nodes[left - 1].n++;
    }
    return n - left;
}
