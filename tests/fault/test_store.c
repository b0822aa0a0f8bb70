/* Every call of the store with its first, second, third ... allocation failing: the answer is DV_E_NOMEM,
 * nothing has changed and nothing leaks (the sanitizer builds look); then, with memory back, it works. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/store/seal.h"
#include "orchestrator/store/storer.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/rt/loop.h"

#include <unistd.h>

static struct dv_store *store;
static char dir[64], path[96];

static int set_up_memory(void **state)
{
    (void)state;
    assert_int_equal(dv_store_memory_open(&store, NULL), DV_OK);
    return 0;
}

static int set_up_sqlite(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/davit-test-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/store.db", dir);
    assert_int_equal(dv_store_sqlite_open(path, &store, NULL), DV_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dv_alloc_fail_at(0);
    store->ops->close(store);
    if (path[0])
        (void)unlink(path);
    if (dir[0])
        (void)rmdir(dir);
    path[0] = dir[0] = '\0';
    return 0;
}

/* What is in the store, as text. */
static int add_entry(void *ctx, const struct dv_store_entry *e)
{
    return dv_buf_addf(ctx, "%.*s=%.*s@%d ", (int)e->key.n, e->key.p, (int)e->value.n, e->value.p,
                       (int)e->revision);
}

static int add_queue(void *ctx, struct dv_sv queue, uint64_t n, int64_t due_ms)
{
    return dv_buf_addf(ctx, "%.*s:%d@%d ", (int)queue.n, queue.p, (int)n, (int)due_ms);
}

static void picture(struct dv_buf *out)
{
    dv_buf_clear(out);
    assert_int_equal(store->ops->list(store, DV_SV(""), DV_SV(""), 0, add_entry, out, NULL), DV_OK);
    assert_int_equal(store->ops->work_queues(store, add_queue, out, NULL), DV_OK);
    assert_int_equal(dv_buf_addf(out, "rev %d", (int)store->ops->revision(store)), DV_OK);
}

static uint64_t item;
typedef int action(struct dv_arena *arena, struct dv_err *err);

static int do_commit(struct dv_arena *arena, struct dv_err *err)
{
    (void)arena;
    struct dv_store_write w[] = {{.key = DV_SV("a"), .value = DV_SV("new"), .if_revision = DV_REV_ANY},
                                 {.key = DV_SV("b"), .is_delete = true, .if_revision = DV_REV_ANY},
                                 {.key = DV_SV("c"), .value = DV_SV("new"), .if_revision = DV_REV_ABSENT}};
    return store->ops->commit(store, w, DV_COUNT(w), NULL, err);
}

static int do_get(struct dv_arena *arena, struct dv_err *err)
{
    struct dv_store_entry e;
    return store->ops->get(store, DV_SV("a"), arena, &e, err);
}

static int do_append(struct dv_arena *arena, struct dv_err *err)
{
    (void)arena;
    return store->ops->work_append(store, DV_SV("q"), DV_SV("payload"), 0, 5, NULL, err);
}

static int do_claim(struct dv_arena *arena, struct dv_err *err)
{
    struct dv_work w;
    return store->ops->work_claim(store, DV_SV("q"), 50, 90, arena, &w, err);
}

static int do_retry(struct dv_arena *arena, struct dv_err *err)
{
    (void)arena;
    return store->ops->work_retry(store, item, 77, err);
}

static int do_release(struct dv_arena *arena, struct dv_err *err)
{
    (void)arena;
    return store->ops->work_release_all(store, err);
}

static int do_ack(struct dv_arena *arena, struct dv_err *err)
{
    (void)arena;
    return store->ops->work_ack(store, item, err);
}

static int do_drop(struct dv_arena *arena, struct dv_err *err)
{
    (void)arena;
    return store->ops->work_drop(store, DV_SV("q"), NULL, err);
}

/* How many times it failed before it went through. */
static int until_it_works(action *act)
{
    DV_AUTO_BUF struct dv_buf before = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf after = DV_BUF_INIT;
    for (uint64_t n = 1; n < 1000; n++) {
        DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
        struct dv_err err = DV_ERR_INIT;
        picture(&before);
        dv_alloc_fail_at(n);
        int rc = act(&arena, &err);
        dv_alloc_fail_at(0);
        if (rc == DV_OK)
            return (int)n - 1;
        assert_int_equal(rc, DV_E_NOMEM);
        assert_int_equal(err.code, DV_E_NOMEM);
        picture(&after);
        assert_string_equal(dv_buf_cstr(&before), dv_buf_cstr(&after));
    }
    fail_msg("never went through");
    return 0;
}

static void no_call_changes_anything_when_memory_runs_out(void **state)
{
    (void)state;
    struct dv_store_write w[] = {{.key = DV_SV("a"), .value = DV_SV("1"), .if_revision = DV_REV_ANY},
                                 {.key = DV_SV("b"), .value = DV_SV("2"), .if_revision = DV_REV_ANY}};
    assert_int_equal(store->ops->commit(store, w, 2, NULL, NULL), DV_OK);
    assert_int_equal(store->ops->work_append(store, DV_SV("q"), DV_SV("1"), 0, 1, &item, NULL), DV_OK);
    static action *const actions[] = {do_get,   do_append, do_claim, do_release, do_claim,
                                      do_retry, do_commit, do_ack,   do_drop};
    int n_failed = 0;
    for (size_t i = 0; i < DV_COUNT(actions); i++)
        n_failed += until_it_works(actions[i]);
    assert_true(n_failed > 0);
}

static void undo_needs_no_memory(void **state)
{
    (void)state;
    struct dv_arena arena = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf before = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf after = DV_BUF_INIT;
    struct dv_store_write w = {.key = DV_SV("b"), .value = DV_SV("1"), .if_revision = DV_REV_ANY};
    assert_int_equal(store->ops->commit(store, &w, 1, NULL, NULL), DV_OK);
    assert_int_equal(store->ops->work_append(store, DV_SV("q"), DV_SV("1"), 0, 1, &item, NULL), DV_OK);
    picture(&before);
    assert_int_equal(store->ops->begin(store, NULL), DV_OK);
    assert_int_equal(store->ops->save(store, NULL), DV_OK);
    assert_int_equal(do_claim(&arena, NULL), DV_OK);
    assert_int_equal(do_commit(&arena, NULL), DV_OK);
    assert_int_equal(do_append(&arena, NULL), DV_OK);
    assert_int_equal(do_drop(&arena, NULL), DV_OK);
    dv_alloc_fail_at(1);
    assert_int_equal(store->ops->undo(store, NULL), DV_OK);
    dv_alloc_fail_at(0);
    assert_int_equal(store->ops->end(store, NULL), DV_OK);
    picture(&after);
    assert_string_equal(dv_buf_cstr(&before), dv_buf_cstr(&after));
    dv_arena_deinit(&arena);
}

static void opening_and_starting_fail_whole(void **state)
{
    (void)state;
    struct dv_store *s = NULL;
    struct dv_storer *storer = NULL;
    dv_alloc_fail_at(1);
    assert_int_equal(dv_store_memory_open(&s, NULL), DV_E_NOMEM);
    assert_null(s);
    dv_alloc_fail_at(1);
    assert_int_equal(dv_storer_start(store, &storer, NULL), DV_E_NOMEM);
    assert_null(storer); /* and the store is still ours: tear_down closes it */
    char other[128];
    (void)snprintf(other, sizeof(other), "/tmp/davit-test-fault-%d.db", (int)getpid());
    dv_alloc_fail_at(1);
    assert_int_equal(dv_store_sqlite_open(other, &s, NULL), DV_E_NOMEM);
    dv_alloc_fail_at(0);
    assert_null(s);
    (void)unlink(other);
}

static void sealing_and_opening_fail_whole(void **state)
{
    (void)state;
    char key[128];
    (void)snprintf(key, sizeof(key), "/tmp/davit-test-fault-%d.key", (int)getpid());
    struct dv_seal *s = NULL;
    uint64_t n = 0;
    do {
        dv_alloc_fail_at(++n);
        (void)unlink(key);
    } while (dv_seal_open(key, &s, NULL) == DV_E_NOMEM && n < 100);
    dv_alloc_fail_at(0);
    assert_true(n > 1);
    assert_non_null(s);
    DV_AUTO_BUF struct dv_buf sealed = DV_BUF_INIT;
    int rc = DV_E_NOMEM;
    for (n = 1; rc == DV_E_NOMEM && n < 100; n++) {
        dv_buf_deinit(&sealed);
        dv_alloc_fail_at(n);
        rc = dv_seal_wrap(s, DV_SV("n"), DV_SV("value"), &sealed, NULL);
        assert_true(rc == DV_OK || dv_buf_len(&sealed) == 0);
    }
    assert_int_equal(rc, DV_OK);
    DV_AUTO_BUF struct dv_buf plain = DV_BUF_INIT;
    rc = DV_E_NOMEM;
    for (n = 1; rc == DV_E_NOMEM && n < 100; n++) {
        dv_buf_deinit(&plain);
        dv_alloc_fail_at(n);
        rc = dv_seal_unwrap(s, DV_SV("n"), dv_buf_sv(&sealed), &plain, NULL);
    }
    dv_alloc_fail_at(0);
    assert_int_equal(rc, DV_OK);
    assert_true(dv_sv_eq(dv_buf_sv(&plain), DV_SV("value")));
    dv_seal_free(s);
    assert_int_equal(unlink(key), 0);
}

#define BOTH(test)                                                                                           \
    {#test " (memory)", test, set_up_memory, tear_down, NULL},                                               \
    {                                                                                                        \
#test " (sqlite)", test, set_up_sqlite, tear_down, NULL                                              \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(no_call_changes_anything_when_memory_runs_out),
        BOTH(undo_needs_no_memory),
        cmocka_unit_test_setup_teardown(opening_and_starting_fail_whole, set_up_memory, tear_down),
        cmocka_unit_test_setup_teardown(sealing_and_opening_fail_whole, set_up_memory, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
