/* A store of either backend to hold promises against, and short verbs for it. */
#ifndef DV_TEST_STORE_PLACE_H
#define DV_TEST_STORE_PLACE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/store/store.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the place under test ---- */

enum backend { MEMORY, SQLITE };

struct place {
    enum backend backend;
    char dir[64], path[96];
    struct dv_store *s;
    struct dv_arena arena;
};

static inline const struct dv_store_ops *ops(const struct place *p)
{
    return p->s->ops;
}

static inline void place_open(struct place *p)
{
    struct dv_err err = DV_ERR_INIT;
    int rc =
        p->backend == MEMORY ? dv_store_memory_open(&p->s, &err) : dv_store_sqlite_open(p->path, &p->s, &err);
    if (rc)
        print_error("%s\n", err.msg);
    assert_int_equal(rc, DV_OK);
}

static inline int set_up(void **state, enum backend backend)
{
    struct place *p = dv_zalloc(sizeof(*p));
    p->backend = backend;
    (void)snprintf(p->dir, sizeof(p->dir), "/tmp/davit-test-store-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(p->path, sizeof(p->path), "%s/store.db", p->dir);
    place_open(p);
    *state = p;
    return 0;
}

static inline int set_up_memory(void **state)
{
    return set_up(state, MEMORY);
}

static inline int set_up_sqlite(void **state)
{
    return set_up(state, SQLITE);
}

static inline int tear_down(void **state)
{
    struct place *p = *state;
    if (p->s)
        ops(p)->close(p->s);
    char path[128];
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < DV_COUNT(suffixes); i++) {
        (void)snprintf(path, sizeof(path), "%s%s", p->path, suffixes[i]);
        (void)unlink(path);
    }
    (void)rmdir(p->dir);
    dv_arena_deinit(&p->arena);
    dv_free(p);
    return 0;
}

static inline void reopen(struct place *p)
{
    ops(p)->close(p->s);
    p->s = NULL;
    place_open(p);
}

/* ---- verbs ---- */

static inline int put_if(struct place *p, const char *key, const char *value, uint64_t if_revision,
                         uint64_t *rev)
{
    struct dv_store_write w = {.key = dv_sv_c(key), .value = dv_sv_c(value), .if_revision = if_revision};
    return ops(p)->commit(p->s, &w, 1, rev, NULL);
}

static inline uint64_t put(struct place *p, const char *key, const char *value)
{
    uint64_t rev = 0;
    assert_int_equal(put_if(p, key, value, DV_REV_ANY, &rev), DV_OK);
    return rev;
}

static inline int del_if(struct place *p, const char *key, uint64_t if_revision, uint64_t *rev)
{
    struct dv_store_write w = {.key = dv_sv_c(key), .is_delete = true, .if_revision = if_revision};
    return ops(p)->commit(p->s, &w, 1, rev, NULL);
}

static inline const char *get(struct place *p, const char *key, uint64_t *rev)
{
    struct dv_store_entry e;
    int rc = ops(p)->get(p->s, dv_sv_c(key), &p->arena, &e, NULL);
    if (rc == DV_NOT_FOUND)
        return NULL;
    assert_int_equal(rc, DV_OK);
    assert_true(dv_sv_eq(e.key, dv_sv_c(key)));
    if (rev)
        *rev = e.revision;
    return dv_arena_strndup(&p->arena, e.value.p, e.value.n);
}

struct listing {
    struct place *p;
    struct dv_buf text;
    size_t stop_after, n;
};

static inline int note_entry(void *ctx, const struct dv_store_entry *e)
{
    struct listing *l = ctx;
    (void)dv_buf_addf(&l->text, "%.*s=%.*s@%d ", (int)e->key.n, e->key.p, (int)e->value.n, e->value.p,
                      (int)e->revision);
    return ++l->n == l->stop_after;
}

static inline const char *list_stop(struct place *p, const char *prefix, const char *after, size_t limit,
                                    size_t stop_after)
{
    struct listing l = {.p = p, .stop_after = stop_after};
    assert_int_equal(ops(p)->list(p->s, dv_sv_c(prefix), dv_sv_c(after), limit, note_entry, &l, NULL), DV_OK);
    const char *text = dv_arena_strdup(&p->arena, dv_buf_cstr(&l.text));
    dv_buf_deinit(&l.text);
    return text;
}

static inline const char *list(struct place *p, const char *prefix, const char *after, size_t limit)
{
    return list_stop(p, prefix, after, limit, 0);
}

static inline uint64_t append(struct place *p, const char *queue, const char *payload, int64_t not_before_ms,
                              int64_t now_ms)
{
    uint64_t id = 0;
    assert_int_equal(
        ops(p)->work_append(p->s, dv_sv_c(queue), dv_sv_c(payload), not_before_ms, now_ms, &id, NULL), DV_OK);
    return id;
}

static inline bool claim(struct place *p, const char *queue, int64_t now_ms, int64_t until_ms,
                         struct dv_work *out)
{
    int rc = ops(p)->work_claim(p->s, dv_sv_c(queue), now_ms, until_ms, &p->arena, out, NULL);
    assert_true(rc == DV_OK || rc == DV_NOT_FOUND);
    return rc == DV_OK;
}

/* Payload of the next item; "" when none is due. */
static inline const char *claimed(struct place *p, const char *queue, int64_t now_ms, int64_t until_ms)
{
    struct dv_work w;
    return claim(p, queue, now_ms, until_ms, &w) ? dv_arena_strndup(&p->arena, w.payload.p, w.payload.n) : "";
}

static inline int note_queue(void *ctx, struct dv_sv queue, uint64_t n, int64_t next_due_ms)
{
    struct listing *l = ctx;
    (void)dv_buf_addf(&l->text, "%.*s:%d@%lld ", (int)queue.n, queue.p, (int)n, (long long)next_due_ms);
    return 0;
}

static inline const char *queues(struct place *p)
{
    struct listing l = {.p = p};
    assert_int_equal(ops(p)->work_queues(p->s, note_queue, &l, NULL), DV_OK);
    const char *text = dv_arena_strdup(&p->arena, dv_buf_cstr(&l.text));
    dv_buf_deinit(&l.text);
    return text;
}

#define BOTH(test)                                                                                           \
    {#test " (memory)", test, set_up_memory, tear_down, NULL},                                               \
    {                                                                                                        \
#test " (sqlite)", test, set_up_sqlite, tear_down, NULL                                              \
    }
#define SQLITE_ONLY(test)                                                                                    \
    {                                                                                                        \
#test, test, set_up_sqlite, tear_down, NULL                                                          \
    }

#endif
