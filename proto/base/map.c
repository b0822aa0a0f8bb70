#include "proto/base/map.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

#include <assert.h>

void dv_map_init(struct dv_map *m, uint64_t seed)
{
    *m = (struct dv_map){.seed = seed};
}

void dv_map_deinit(struct dv_map *m)
{
    dv_free(m->strs);
    dv_free(m->ids);
    *m = (struct dv_map){.seed = m->seed};
}

static bool is_crowded(const struct dv_map *m)
{
    return m->n + 1 > m->cap / 4 * 3;
}

static size_t next_cap(const struct dv_map *m)
{
    return m->cap ? m->cap * 2 : 16;
}

/* Is the entry at i, whose home is `home`, to move back to `hole`?  Not if it is already as near its home as
 * it can be. */
static bool may_move(size_t home, size_t i, size_t hole, size_t mask)
{
    return ((i - home) & mask) >= ((i - hole) & mask);
}

/* ---- from strings ---- */

static uint32_t hash_str(const struct dv_map *m, struct dv_sv key)
{
    uint64_t h = dv_hash_bytes(key.p, key.n, m->seed);
    uint32_t folded = (uint32_t)(h ^ h >> 32);
    return folded ? folded : 1;
}

/* The slot that holds key, or the empty one where it would go; NULL when the map has no slots. */
static struct dv_map_str *probe_str(const struct dv_map *m, uint32_t hash, struct dv_sv key)
{
    if (!m->strs)
        return NULL;
    size_t mask = m->cap - 1, i = hash & mask;
    for (; m->strs[i].hash; i = (i + 1) & mask)
        if (m->strs[i].hash == hash && dv_sv_eq(dv_sv(m->strs[i].p, m->strs[i].n), key))
            break;
    return &m->strs[i];
}

static int grow_strs(struct dv_map *m)
{
    struct dv_map big = {.cap = next_cap(m), .seed = m->seed, .n = m->n};
    big.strs = dv_zalloc_n(big.cap, sizeof(*big.strs));
    if (!big.strs)
        return DV_E_NOMEM;
    for (size_t i = 0; i < m->cap; i++) {
        const struct dv_map_str *s = &m->strs[i];
        if (s->hash)
            *probe_str(&big, s->hash, dv_sv(s->p, s->n)) = *s;
    }
    dv_free(m->strs);
    *m = big;
    return DV_OK;
}

void *dv_map_find(const struct dv_map *m, struct dv_sv key)
{
    const struct dv_map_str *s = probe_str(m, hash_str(m, key), key);
    return s ? s->value : NULL;
}

int dv_map_put(struct dv_map *m, struct dv_sv key, void *value)
{
    assert(value && key.n <= UINT32_MAX);
    uint32_t hash = hash_str(m, key);
    struct dv_map_str *s = probe_str(m, hash, key);
    if (s && s->hash)
        return DV_EXISTS;
    if (is_crowded(m)) {
        int rc = grow_strs(m);
        if (rc)
            return rc;
        s = probe_str(m, hash, key);
    }
    *s = (struct dv_map_str){hash, (uint32_t)key.n, key.p, value};
    m->n++;
    return DV_OK;
}

void *dv_map_remove(struct dv_map *m, struct dv_sv key)
{
    struct dv_map_str *s = probe_str(m, hash_str(m, key), key);
    if (!s || !s->hash)
        return NULL;
    void *value = s->value;
    size_t mask = m->cap - 1, hole = (size_t)(s - m->strs);
    for (size_t i = (hole + 1) & mask; m->strs[i].hash; i = (i + 1) & mask)
        if (may_move(m->strs[i].hash & mask, i, hole, mask)) {
            m->strs[hole] = m->strs[i];
            hole = i;
        }
    m->strs[hole] = (struct dv_map_str){0};
    m->n--;
    return value;
}

/* ---- from ids ---- */

static size_t home_of(const struct dv_map *m, uint64_t id)
{
    uint64_t h = (id ^ m->seed) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing */
    return (size_t)(h ^ h >> 32) & (m->cap - 1);
}

static struct dv_map_id *probe_id(const struct dv_map *m, uint64_t id)
{
    if (!m->ids)
        return NULL;
    size_t mask = m->cap - 1, i = home_of(m, id);
    while (m->ids[i].value && m->ids[i].id != id)
        i = (i + 1) & mask;
    return &m->ids[i];
}

static int grow_ids(struct dv_map *m)
{
    struct dv_map big = {.cap = next_cap(m), .seed = m->seed, .n = m->n};
    big.ids = dv_zalloc_n(big.cap, sizeof(*big.ids));
    if (!big.ids)
        return DV_E_NOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->ids[i].value)
            *probe_id(&big, m->ids[i].id) = m->ids[i];
    dv_free(m->ids);
    *m = big;
    return DV_OK;
}

void *dv_idmap_find(const struct dv_map *m, uint64_t id)
{
    const struct dv_map_id *s = probe_id(m, id);
    return s ? s->value : NULL;
}

int dv_idmap_put(struct dv_map *m, uint64_t id, void *value)
{
    assert(value);
    struct dv_map_id *s = probe_id(m, id);
    if (s && s->value)
        return DV_EXISTS;
    if (is_crowded(m)) {
        int rc = grow_ids(m);
        if (rc)
            return rc;
        s = probe_id(m, id);
    }
    *s = (struct dv_map_id){id, value};
    m->n++;
    return DV_OK;
}

void *dv_idmap_remove(struct dv_map *m, uint64_t id)
{
    struct dv_map_id *s = probe_id(m, id);
    if (!s || !s->value)
        return NULL;
    void *value = s->value;
    size_t mask = m->cap - 1, hole = (size_t)(s - m->ids);
    for (size_t i = (hole + 1) & mask; m->ids[i].value; i = (i + 1) & mask)
        if (may_move(home_of(m, m->ids[i].id), i, hole, mask)) {
            m->ids[hole] = m->ids[i];
            hole = i;
        }
    m->ids[hole] = (struct dv_map_id){0};
    m->n--;
    return value;
}

void *dv_map_next(const struct dv_map *m, size_t *i)
{
    while (*i < m->cap) {
        size_t at = (*i)++;
        bool is_there = m->strs ? m->strs[at].hash != 0 : m->ids[at].value != NULL;
        if (is_there)
            return m->strs ? m->strs[at].value : m->ids[at].value;
    }
    return NULL;
}
