/* State that must survive: a revisioned key-value space and a durable work queue behind one table of
 * functions. Backends: memory (store_memory.c), SQLite in WAL mode (store_sqlite.c).  One contract suite
 * holds both to this page. A backend is used by one thread at a time (the store thread, see storer.h); calls
 * may block.
 *
 * Revisions: one counter for the whole space, starting at 1; every commit that changes something takes the
 * next. Keys are 1 to DV_STORE_KEY_MAX bytes of any kind (DV_INVALID otherwise), values at most
 * DV_STORE_VALUE_MAX, payloads DV_STORE_PAYLOAD_MAX (DV_TOO_LARGE).  Outputs are untouched on anything but
 * DV_OK.  A failure of the backend is DV_E_STORE with its own words; DV_E_NOMEM where memory ran out. */
#ifndef DV_STORE_H
#define DV_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/arena.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

enum {
    DV_STORE_KEY_MAX = 512,
    DV_STORE_VALUE_MAX = 4 * 1024 * 1024,
    DV_STORE_PAYLOAD_MAX = 8 * 1024 * 1024 + 256 * 1024, /* of work: a body of 8 MiB and its header */
    DV_STORE_SCHEMA = 1
};

struct dv_store;

struct dv_store_entry {
    struct dv_sv key, value; /* in the caller's arena, or borrowed for a callback */
    uint64_t revision;       /* of the commit that last wrote it */
};

#define DV_REV_ANY    UINT64_MAX /* write whatever is there */
#define DV_REV_ABSENT 0          /* only when the key does not exist */

struct dv_store_write {
    struct dv_sv key;
    struct dv_sv value; /* ignored for a delete */
    bool is_delete;
    uint64_t if_revision; /* DV_REV_ANY, DV_REV_ABSENT, or the revision that must still stand */
};

struct dv_work {        /* an item of the work queue */
    uint64_t id;        /* grows with every append */
    struct dv_sv queue; /* one per function */
    struct dv_sv payload;
    int64_t not_before_ms; /* wall time */
    int64_t created_ms;
    uint32_t attempts; /* claims so far */
};

struct dv_store_ops {
    /* DV_OK; DV_NOT_FOUND; failure. */
    int (*get)(struct dv_store *s, struct dv_sv key, struct dv_arena *arena, struct dv_store_entry *out,
               struct dv_err *err);
    /* Keys that start with prefix, in byte order, after `after` (empty: from the first), at most limit (0:
     * all). each returns non-zero to stop early (the list still answers DV_OK); it must not call the store.
     */
    int (*list)(struct dv_store *s, struct dv_sv prefix, struct dv_sv after, size_t limit,
                int (*each)(void *ctx, const struct dv_store_entry *e), void *ctx, struct dv_err *err);
    /* All or nothing; every condition is held against the state before the commit, and of two writes of one
     * key the later stays.  DV_OK (*out_revision, may be NULL: of this commit; unchanged content still
     * counts; when all it did was to delete what was not there, the revision stays); DV_CONFLICT (err->field:
     * the key whose revision did not match, nothing written); DV_INVALID, DV_TOO_LARGE; failure. */
    int (*commit)(struct dv_store *s, const struct dv_store_write *writes, size_t n, uint64_t *out_revision,
                  struct dv_err *err);
    uint64_t (*revision)(struct dv_store *s); /* of the latest commit; 0 for an empty store */

    /* Work queue.  Items are claimed one claimer at a time until lease_until_ms; then they may be claimed
     * again. An item is due from max(not_before_ms, the time of its append). */
    int (*work_append)(struct dv_store *s, struct dv_sv queue, struct dv_sv payload, int64_t not_before_ms,
                       int64_t now_ms, uint64_t *out_id, struct dv_err *err);
    /* The item that has been due longest; among equals the one appended first.  Time going backwards only
     * delays. DV_OK (out's strings in arena), DV_NOT_FOUND. */
    int (*work_claim)(struct dv_store *s, struct dv_sv queue, int64_t now_ms, int64_t lease_until_ms,
                      struct dv_arena *arena, struct dv_work *out, struct dv_err *err);
    int (*work_ack)(struct dv_store *s, uint64_t id, struct dv_err *err); /* DV_OK, DV_NOT_FOUND */
    /* Ends the lease; the item is due again at not_before_ms. */
    int (*work_retry)(struct dv_store *s, uint64_t id, int64_t not_before_ms,
                      struct dv_err *err); /* DV_OK, DV_NOT_FOUND */
    /* Everything claimed becomes claimable, at its old place: after a restart no lease of the dead process
     * holds. */
    int (*work_release_all)(struct dv_store *s, struct dv_err *err);
    /* Queues that hold items, in byte order: name, count (claimed ones included), earliest time at which one
     * may be claimed.  each as for list. */
    int (*work_queues)(struct dv_store *s,
                       int (*each)(void *ctx, struct dv_sv queue, uint64_t n, int64_t next_due_ms), void *ctx,
                       struct dv_err *err);
    /* The earliest time at which an item of the queue may be claimed.  DV_OK; DV_NOT_FOUND: the queue is
     * empty. */
    int (*work_next_due)(struct dv_store *s, struct dv_sv queue, int64_t *out_due_ms, struct dv_err *err);
    /* Delete a queue's items, claimed ones too; *out_n (may be NULL): how many. */
    int (*work_drop)(struct dv_store *s, struct dv_sv queue, uint64_t *out_n, struct dv_err *err);

    /* Several commits and work calls in one transaction of the backend, for group commit: begin, calls, end.
     * A failing call inside undoes only itself.  When end fails, nothing of the transaction stays. */
    int (*begin)(struct dv_store *s, struct dv_err *err);
    int (*end)(struct dv_store *s, struct dv_err *err); /* durable when it returned DV_OK */
    /* Inside a transaction, not nested: after save, undo takes back every call since, keep lets them stand.
     */
    int (*save)(struct dv_store *s, struct dv_err *err);
    int (*keep)(struct dv_store *s, struct dv_err *err);
    int (*undo)(struct dv_store *s, struct dv_err *err);
    void (*close)(struct dv_store *s); /* frees s; a transaction left open is undone; NULL accepted */
};

struct dv_store {
    const struct dv_store_ops *ops;
};

int dv_store_memory_open(struct dv_store **out, struct dv_err *err);
/* path: the database file; made when absent (0600).  An older schema is migrated; a newer one is refused,
 * untouched: DV_UNSUPPORTED with both numbers in the message.  DV_E_IO names the path and what failed: not
 * readable, damaged, not a store of ours, in use by another process (a store has one owner at a time). */
int dv_store_sqlite_open(const char *path, struct dv_store **out, struct dv_err *err);

#endif
