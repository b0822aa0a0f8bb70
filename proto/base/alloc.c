#include "proto/base/alloc.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <unistd.h>

static _Atomic uint64_t fail_at;
static _Atomic uint64_t counted;

static bool refuse(void)
{
    uint64_t at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (__builtin_expect(at == 0, 1))
        return false;
    return atomic_fetch_add_explicit(&counted, 1, memory_order_relaxed) + 1 == at;
}

void *dv_alloc(size_t n)
{
    return refuse() ? NULL : malloc(n ? n : 1);
}

void *dv_zalloc(size_t n)
{
    return refuse() ? NULL : calloc(1, n ? n : 1);
}

void *dv_zalloc_n(size_t count, size_t n)
{
    return refuse() ? NULL : calloc(count ? count : 1, n ? n : 1);
}

void *dv_realloc(void *p, size_t n)
{
    return refuse() ? NULL : realloc(p, n ? n : 1);
}

char *dv_strndup(const char *s, size_t n)
{
    if (!s)
        return NULL;
    char *p = dv_alloc(n + 1);
    if (!p)
        return NULL;
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *dv_strdup(const char *s)
{
    return s ? dv_strndup(s, strlen(s)) : NULL;
}

char *dv_asprintf(const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : dv_alloc((size_t)n + 1);
    if (p)
        (void)vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

void dv_free(void *p)
{
    free(p);
}

void dv_alloc_fail_at(uint64_t n)
{
    atomic_store(&counted, 0);
    atomic_store(&fail_at, n);
}

uint64_t dv_alloc_count(void)
{
    return atomic_load(&counted);
}

void dv_fd_close_auto_(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd); /* nothing can be done about a failing close here */
}
