/* Memory freed all at once: request and message memory.  Not thread-safe; one owner. */
#ifndef DV_ARENA_H
#define DV_ARENA_H

#include <stddef.h>
#include "proto/base/auto.h"
#include "proto/base/str.h"

struct dv_arena_block;
struct dv_arena {
    struct dv_arena_block *blocks; /* newest first */
    size_t used_bytes;             /* handed out since init or reset, alignment not counted */
};

#define DV_ARENA_INIT                                                                                        \
    {                                                                                                        \
        0                                                                                                    \
    }

/* Aligned to 16, uninitialised; NULL when out of memory. */
void *dv_arena_alloc(struct dv_arena *a, size_t n);
void *dv_arena_zalloc(struct dv_arena *a, size_t n);
/* The next allocations, up to n bytes with their alignment, come from one block of just that size: for what
 * is kept, where a block of ordinary size (4 KB) would be mostly air.  DV_OK or DV_E_NOMEM. */
int dv_arena_reserve(struct dv_arena *a, size_t n);
/* Strings are not aligned. */
char *dv_arena_strndup(struct dv_arena *a, const char *s, size_t n); /* NUL-terminated */
char *dv_arena_strdup(struct dv_arena *a, const char *s);            /* NULL in, NULL out */
struct dv_sv dv_arena_sv(struct dv_arena *a, struct dv_sv s);        /* .p NULL when out of memory */
/* Frees everything but one block of ordinary size, which is kept for reuse. */
void dv_arena_reset(struct dv_arena *a);
void dv_arena_deinit(struct dv_arena *a);
static inline void dv_arena_deinit_auto_(struct dv_arena *a)
{
    dv_arena_deinit(a);
}
#define DV_AUTO_ARENA __attribute__((cleanup(dv_arena_deinit_auto_)))

#endif
