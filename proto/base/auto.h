/* Scope cleanup: locals own what they hold until they hand it over.
 *
 *     DV_AUTO(dv_buf_free) struct dv_buf *b = NULL;
 *     ...
 *     *out = dv_steal(&b);
 *
 * The cleanup function takes the value itself and accepts NULL (or -1 for DV_AUTO_FD). */
#ifndef DV_AUTO_H
#define DV_AUTO_H

#include "proto/base/banned.h"

#define DV_AUTO_DEFINE(type, func)                                                                           \
    static inline void func##_auto_(type *p)                                                                 \
    {                                                                                                        \
        func(*p);                                                                                            \
    }                                                                                                        \
    struct dv_auto_semicolon_
#define DV_AUTO(func) __attribute__((cleanup(func##_auto_)))

/* Take the pointer out of *pp, leaving NULL behind. */
#define dv_steal(pp)                                                                                         \
    __extension__({                                                                                          \
        __typeof__(*(pp)) dv_steal_v_ = *(pp);                                                               \
        *(pp) = NULL;                                                                                        \
        dv_steal_v_;                                                                                         \
    })

void dv_fd_close_auto_(int *fd);
#define DV_AUTO_FD __attribute__((cleanup(dv_fd_close_auto_)))

static inline int dv_steal_fd(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

#define DV_CONTAINER_OF(ptr, type, member)                                                                   \
    ((type *)(void *)((char *)(ptr) - __builtin_offsetof(type, member)))
#define DV_COUNT(a) (sizeof(a) / sizeof((a)[0]))

#endif
