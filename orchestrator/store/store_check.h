/* The bounds of store.h, held the same way by every backend. */
#ifndef DV_STORE_CHECK_H
#define DV_STORE_CHECK_H

#include "orchestrator/store/store.h"

/* DV_OK; DV_INVALID. */
static inline int dv_store_check_key(struct dv_sv key, struct dv_err *err)
{
    if (key.n == 0 || key.n > DV_STORE_KEY_MAX)
        return dv_err_set(err, DV_INVALID, "a key has 1 to %d bytes, not %zu", DV_STORE_KEY_MAX, key.n);
    return DV_OK;
}

/* max: DV_STORE_VALUE_MAX or DV_STORE_PAYLOAD_MAX.  DV_OK; DV_TOO_LARGE. */
static inline int dv_store_check_size(struct dv_sv bytes, size_t max, struct dv_err *err)
{
    if (bytes.n > max)
        return dv_err_set(err, DV_TOO_LARGE, "%zu bytes are more than the store takes in one piece (%zu)",
                          bytes.n, max);
    return DV_OK;
}

static inline int dv_store_check_write(const struct dv_store_write *w, struct dv_err *err)
{
    int rc = dv_store_check_key(w->key, err);
    return rc || w->is_delete ? rc : dv_store_check_size(w->value, DV_STORE_VALUE_MAX, err);
}

/* current: revision of the key now, 0 when absent.  DV_OK; DV_CONFLICT naming the key. */
static inline int dv_store_check_revision(const struct dv_store_write *w, uint64_t current,
                                          struct dv_err *err)
{
    if (w->if_revision == DV_REV_ANY || w->if_revision == current)
        return DV_OK;
    char key[96];
    (void)snprintf(key, sizeof(key), "%.*s", (int)(w->key.n < 95 ? w->key.n : 95), w->key.p);
    return dv_err_field(err, DV_CONFLICT, key, "revision is %llu, not %llu", (unsigned long long)current,
                        (unsigned long long)w->if_revision);
}

#endif
