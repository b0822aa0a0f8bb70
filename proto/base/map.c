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
    dv_free(m->slots);
    *m = (struct dv_map){.seed = m->seed};
}

static uint64_t hash_key(const struct dv_map *m, struct dv_sv key)
{
    uint64_t h = dv_hash_bytes(key.p, key.n, m->seed);
    return h ? h : 1;
}

static uint64_t hash_id(const struct dv_map *m, uint64_t id)
{
    uint64_t h = (id ^ m->seed) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing */
    h ^= h >> 32;
    return h ? h : 1;
}

static bool same(const struct dv_map_slot *s, const struct dv_map_slot *key)
{
    return s->hash == key->hash && s->id == key->id && dv_sv_eq(s->key, key->key);
}

/* The slot that holds key, or the empty one where it would go; NULL when the map has no slots. */
static struct dv_map_slot *probe(const struct dv_map *m, const struct dv_map_slot *key)
{
    if (!m->cap)
        return NULL;
    size_t mask = m->cap - 1, i = key->hash & mask;
    while (m->slots[i].hash && !same(&m->slots[i], key))
        i = (i + 1) & mask;
    return &m->slots[i];
}

static int grow(struct dv_map *m)
{
    struct dv_map big = {.cap = m->cap ? m->cap * 2 : 16, .seed = m->seed, .n = m->n};
    big.slots = dv_zalloc_n(big.cap, sizeof(*big.slots));
    if (!big.slots)
        return DV_E_NOMEM;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].hash)
            *probe(&big, &m->slots[i]) = m->slots[i];
    dv_free(m->slots);
    *m = big;
    return DV_OK;
}

static int put(struct dv_map *m, struct dv_map_slot entry)
{
    assert(entry.value);
    struct dv_map_slot *s = probe(m, &entry);
    if (s && s->hash)
        return DV_EXISTS;
    if (m->n + 1 > m->cap / 4 * 3) {
        int rc = grow(m);
        if (rc)
            return rc;
        s = probe(m, &entry);
    }
    *s = entry;
    m->n++;
    return DV_OK;
}

static void *take(struct dv_map *m, const struct dv_map_slot *key)
{
    struct dv_map_slot *s = probe(m, key);
    if (!s || !s->hash)
        return NULL;
    void *value = s->value;
    size_t mask = m->cap - 1, hole = (size_t)(s - m->slots);
    for (size_t i = (hole + 1) & mask; m->slots[i].hash; i = (i + 1) & mask) {
        size_t home = m->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - hole) & mask))
            continue; /* already as near its home as it can be */
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct dv_map_slot){0};
    m->n--;
    return value;
}

void *dv_map_find(const struct dv_map *m, struct dv_sv key)
{
    struct dv_map_slot *s = probe(m, &(struct dv_map_slot){.hash = hash_key(m, key), .key = key});
    return s ? s->value : NULL;
}

int dv_map_put(struct dv_map *m, struct dv_sv key, void *value)
{
    return put(m, (struct dv_map_slot){.hash = hash_key(m, key), .key = key, .value = value});
}

void *dv_map_remove(struct dv_map *m, struct dv_sv key)
{
    return take(m, &(struct dv_map_slot){.hash = hash_key(m, key), .key = key});
}

void *dv_idmap_find(const struct dv_map *m, uint64_t id)
{
    struct dv_map_slot *s = probe(m, &(struct dv_map_slot){.hash = hash_id(m, id), .id = id});
    return s ? s->value : NULL;
}

int dv_idmap_put(struct dv_map *m, uint64_t id, void *value)
{
    return put(m, (struct dv_map_slot){.hash = hash_id(m, id), .id = id, .value = value});
}

void *dv_idmap_remove(struct dv_map *m, uint64_t id)
{
    return take(m, &(struct dv_map_slot){.hash = hash_id(m, id), .id = id});
}

void *dv_map_next(const struct dv_map *m, size_t *i)
{
    while (*i < m->cap)
        if (m->slots[(*i)++].hash)
            return m->slots[*i - 1].value;
    return NULL;
}
