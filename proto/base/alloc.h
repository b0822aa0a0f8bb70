/* The one door to the heap.  Returns NULL honestly; base, proto and core pass it up as DV_E_NOMEM.
 * Fault tests make the n-th allocation fail; production code pays one relaxed load for that. */
#ifndef DV_ALLOC_H
#define DV_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/auto.h"

void *dv_alloc(size_t n) __attribute__((malloc));  /* uninitialised; NULL when out of memory */
void *dv_zalloc(size_t n) __attribute__((malloc)); /* zeroed */
void *dv_zalloc_n(size_t count, size_t n) __attribute__((malloc)); /* zeroed; NULL on overflow too */
void *dv_realloc(void *p, size_t n);                               /* p untouched when NULL is returned */
char *dv_strdup(const char *s);                                    /* NULL in, NULL out */
char *dv_strndup(const char *s, size_t n);
char *dv_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void dv_free(void *p);
DV_AUTO_DEFINE(void *, dv_free);
static inline void dv_free_char_(char *p)
{
    dv_free(p);
}
DV_AUTO_DEFINE(char *, dv_free_char_);
#define DV_AUTO_STR DV_AUTO(dv_free_char_)

/* Tests only: the n-th allocation from now (1 = the next) returns NULL, once.  0 switches it off. */
void dv_alloc_fail_at(uint64_t n);
/* Allocations counted since the last dv_alloc_fail_at call. */
uint64_t dv_alloc_count(void);

#endif
