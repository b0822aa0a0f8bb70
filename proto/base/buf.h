/* A growable run of bytes with a read position and an upper bound.
 * [data + head, data + tail) is what is in it.  Not thread-safe; one owner.
 * Writers return DV_OK, DV_TOO_LARGE past `max`, or DV_E_NOMEM; on failure nothing was added and
 * `failed` stays set until dv_buf_clear, so that a run of writes may be checked once at its end. */
#ifndef DV_BUF_H
#define DV_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/auto.h"
#include "proto/base/str.h"

struct dv_buf {
    char *data;
    size_t head, tail, cap;
    size_t max; /* bytes it may hold; 0 = no bound */
    int failed; /* first failure since the last clear */
};

#define DV_BUF_INIT                                                                                          \
    {                                                                                                        \
        0                                                                                                    \
    }

void dv_buf_init(struct dv_buf *b, size_t max);
void dv_buf_deinit(struct dv_buf *b); /* frees the bytes; the buffer may be used again */
static inline void dv_buf_deinit_auto_(struct dv_buf *b)
{
    dv_buf_deinit(b);
}
#define DV_AUTO_BUF __attribute__((cleanup(dv_buf_deinit_auto_)))

static inline size_t dv_buf_len(const struct dv_buf *b)
{
    return b->tail - b->head;
}
static inline char *dv_buf_ptr(const struct dv_buf *b)
{
    return b->data ? b->data + b->head : (char *)"";
}
static inline struct dv_sv dv_buf_sv(const struct dv_buf *b)
{
    return dv_sv(dv_buf_ptr(b), dv_buf_len(b));
}

void dv_buf_clear(struct dv_buf *b); /* empties, keeps the memory */
/* Empties; gives memory above keep_bytes back. */
void dv_buf_reset(struct dv_buf *b, size_t keep_bytes);
void dv_buf_consume(struct dv_buf *b, size_t n);    /* n <= len */
void dv_buf_truncate(struct dv_buf *b, size_t len); /* len <= dv_buf_len */

/* Room for n more bytes at dv_buf_end(b); follow with dv_buf_commit(b, written). */
int dv_buf_reserve(struct dv_buf *b, size_t n);
static inline char *dv_buf_end(const struct dv_buf *b)
{
    return b->data + b->tail;
}
static inline size_t dv_buf_room(const struct dv_buf *b)
{
    return b->cap - b->tail;
}
void dv_buf_commit(struct dv_buf *b, size_t n);

int dv_buf_add(struct dv_buf *b, const void *p, size_t n);
int dv_buf_add_sv(struct dv_buf *b, struct dv_sv s);
int dv_buf_add_c(struct dv_buf *b, const char *s);
int dv_buf_add_char(struct dv_buf *b, char c);
int dv_buf_add_u64(struct dv_buf *b, uint64_t v);
int dv_buf_addf(struct dv_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* s as a JSON string with its quotes; control characters escaped. s must be valid UTF-8. */
int dv_buf_add_json(struct dv_buf *b, struct dv_sv s);

/* NUL-terminate behind the content (the NUL is not content) and return it; NULL when out of memory. */
const char *dv_buf_cstr(struct dv_buf *b);
/* Hand the bytes over as a NUL-terminated heap string (dv_free it); the buffer is empty afterwards. */
char *dv_buf_steal(struct dv_buf *b, size_t *out_len);

#endif
