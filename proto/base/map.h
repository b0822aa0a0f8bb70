/* Hash maps from a string, or a 64-bit id, to a pointer.  Open addressing with linear probing and
 * backward-shift deletion (Knuth, TAOCP 3, 6.4 algorithm R).  Values are borrowed, string keys are borrowed
 * too: they must live in the value.  Not thread-safe; one owner.  Seeded, so outside keys cannot be chosen
 * to collide. */
#ifndef DV_MAP_H
#define DV_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/str.h"

struct dv_map_str {
    uint32_t hash; /* 0 = empty */
    uint32_t n;
    const char *p;
    void *value;
};

struct dv_map_id {
    uint64_t id;
    void *value; /* NULL = empty */
};

/* A map is of one kind, which its first entry decides. */
struct dv_map {
    struct dv_map_str *strs; /* NULL: of ids */
    struct dv_map_id *ids;
    size_t n, cap; /* cap is 0 or a power of two */
    uint64_t seed;
};

void dv_map_init(struct dv_map *m, uint64_t seed);
void dv_map_deinit(struct dv_map *m); /* values are the caller's */

void *dv_map_find(const struct dv_map *m, struct dv_sv key); /* NULL = absent */
/* DV_OK; DV_EXISTS (nothing changed); DV_E_NOMEM.  value must not be NULL. */
int dv_map_put(struct dv_map *m, struct dv_sv key, void *value);
void *dv_map_remove(struct dv_map *m, struct dv_sv key); /* the value removed, NULL = absent */

void *dv_idmap_find(const struct dv_map *m, uint64_t id);
int dv_idmap_put(struct dv_map *m, uint64_t id, void *value);
void *dv_idmap_remove(struct dv_map *m, uint64_t id);

/* Walk: for (size_t i = 0; (v = dv_map_next(m, &i)); ).  No put or remove during a walk. */
void *dv_map_next(const struct dv_map *m, size_t *i);

#endif
