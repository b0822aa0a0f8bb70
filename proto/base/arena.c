#include "proto/base/arena.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"

enum { BLOCK_BYTES = 4096 };

struct dv_arena_block {
    struct dv_arena_block *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
};

static struct dv_arena_block *add_block(struct dv_arena *a, size_t cap)
{
    struct dv_arena_block *b = dv_alloc(sizeof(*b) + cap);
    if (!b)
        return NULL;
    *b = (struct dv_arena_block){.next = a->blocks, .cap = cap};
    a->blocks = b;
    return b;
}

int dv_arena_reserve(struct dv_arena *a, size_t n)
{
    if (n > SIZE_MAX / 2)
        return DV_E_NOMEM;
    return n == 0 || add_block(a, n) ? DV_OK : DV_E_NOMEM;
}

/* align: a power of two, at most 16. */
static void *take(struct dv_arena *a, size_t n, size_t align)
{
    if (n > SIZE_MAX / 2)
        return NULL;
    struct dv_arena_block *b = a->blocks;
    size_t at = b ? (b->used + align - 1) & ~(align - 1) : 0;
    if (!b || at > b->cap || b->cap - at < n) {
        size_t ordinary = BLOCK_BYTES - sizeof(*b);
        b = add_block(a, n > ordinary ? n : ordinary);
        if (!b)
            return NULL;
        at = 0;
    }
    b->used = at + n;
    a->used_bytes += n;
    return b->bytes + at;
}

void *dv_arena_alloc(struct dv_arena *a, size_t n)
{
    return take(a, n, 16);
}

void *dv_arena_zalloc(struct dv_arena *a, size_t n)
{
    void *p = dv_arena_alloc(a, n);
    return p ? memset(p, 0, n) : NULL;
}

char *dv_arena_strndup(struct dv_arena *a, const char *s, size_t n)
{
    char *p = n < SIZE_MAX ? take(a, n + 1, 1) : NULL;
    if (!p)
        return NULL;
    if (n)
        memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *dv_arena_strdup(struct dv_arena *a, const char *s)
{
    return s ? dv_arena_strndup(a, s, strlen(s)) : NULL;
}

struct dv_sv dv_arena_sv(struct dv_arena *a, struct dv_sv s)
{
    char *p = dv_arena_strndup(a, s.p, s.n);
    return dv_sv(p, p ? s.n : 0);
}

void dv_arena_reset(struct dv_arena *a)
{
    struct dv_arena_block *keep = NULL;
    while (a->blocks) {
        struct dv_arena_block *b = a->blocks;
        a->blocks = b->next;
        if (!keep && b->cap == BLOCK_BYTES - sizeof(*b))
            keep = b;
        else
            dv_free(b);
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->blocks = keep;
    a->used_bytes = 0;
}

void dv_arena_deinit(struct dv_arena *a)
{
    while (a->blocks) {
        struct dv_arena_block *b = a->blocks;
        a->blocks = b->next;
        dv_free(b);
    }
    a->used_bytes = 0;
}
