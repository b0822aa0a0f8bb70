/* Every promise of orchestrator/store/store.h, held against every backend; then what only a file can promise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/store/store.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the place under test ---- */

enum backend { MEMORY, SQLITE };

struct place {
    enum backend backend;
    char dir[64], path[96];
    struct dv_store *s;
    struct dv_arena arena;
};

static const struct dv_store_ops *ops(const struct place *p)
{
    return p->s->ops;
}

static void place_open(struct place *p)
{
    struct dv_err err = DV_ERR_INIT;
    int rc =
        p->backend == MEMORY ? dv_store_memory_open(&p->s, &err) : dv_store_sqlite_open(p->path, &p->s, &err);
    if (rc)
        print_error("%s\n", err.msg);
    assert_int_equal(rc, DV_OK);
}

static int set_up(void **state, enum backend backend)
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

static int set_up_memory(void **state)
{
    return set_up(state, MEMORY);
}

static int set_up_sqlite(void **state)
{
    return set_up(state, SQLITE);
}

static int tear_down(void **state)
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

static void reopen(struct place *p)
{
    ops(p)->close(p->s);
    p->s = NULL;
    place_open(p);
}

/* ---- verbs ---- */

static int put_if(struct place *p, const char *key, const char *value, uint64_t if_revision, uint64_t *rev)
{
    struct dv_store_write w = {.key = dv_sv_c(key), .value = dv_sv_c(value), .if_revision = if_revision};
    return ops(p)->commit(p->s, &w, 1, rev, NULL);
}

static uint64_t put(struct place *p, const char *key, const char *value)
{
    uint64_t rev = 0;
    assert_int_equal(put_if(p, key, value, DV_REV_ANY, &rev), DV_OK);
    return rev;
}

static int del_if(struct place *p, const char *key, uint64_t if_revision, uint64_t *rev)
{
    struct dv_store_write w = {.key = dv_sv_c(key), .is_delete = true, .if_revision = if_revision};
    return ops(p)->commit(p->s, &w, 1, rev, NULL);
}

static const char *get(struct place *p, const char *key, uint64_t *rev)
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

static int note_entry(void *ctx, const struct dv_store_entry *e)
{
    struct listing *l = ctx;
    (void)dv_buf_addf(&l->text, "%.*s=%.*s@%d ", (int)e->key.n, e->key.p, (int)e->value.n, e->value.p,
                      (int)e->revision);
    return ++l->n == l->stop_after;
}

static const char *list_stop(struct place *p, const char *prefix, const char *after, size_t limit,
                             size_t stop_after)
{
    struct listing l = {.p = p, .stop_after = stop_after};
    assert_int_equal(ops(p)->list(p->s, dv_sv_c(prefix), dv_sv_c(after), limit, note_entry, &l, NULL), DV_OK);
    const char *text = dv_arena_strdup(&p->arena, dv_buf_cstr(&l.text));
    dv_buf_deinit(&l.text);
    return text;
}

static const char *list(struct place *p, const char *prefix, const char *after, size_t limit)
{
    return list_stop(p, prefix, after, limit, 0);
}

static uint64_t append(struct place *p, const char *queue, const char *payload, int64_t not_before_ms,
                       int64_t now_ms)
{
    uint64_t id = 0;
    assert_int_equal(
        ops(p)->work_append(p->s, dv_sv_c(queue), dv_sv_c(payload), not_before_ms, now_ms, &id, NULL), DV_OK);
    return id;
}

static bool claim(struct place *p, const char *queue, int64_t now_ms, int64_t until_ms, struct dv_work *out)
{
    int rc = ops(p)->work_claim(p->s, dv_sv_c(queue), now_ms, until_ms, &p->arena, out, NULL);
    assert_true(rc == DV_OK || rc == DV_NOT_FOUND);
    return rc == DV_OK;
}

/* Payload of the next item; "" when none is due. */
static const char *claimed(struct place *p, const char *queue, int64_t now_ms, int64_t until_ms)
{
    struct dv_work w;
    return claim(p, queue, now_ms, until_ms, &w) ? dv_arena_strndup(&p->arena, w.payload.p, w.payload.n) : "";
}

static int note_queue(void *ctx, struct dv_sv queue, uint64_t n, int64_t next_due_ms)
{
    struct listing *l = ctx;
    (void)dv_buf_addf(&l->text, "%.*s:%d@%lld ", (int)queue.n, queue.p, (int)n, (long long)next_due_ms);
    return 0;
}

static const char *queues(struct place *p)
{
    struct listing l = {.p = p};
    assert_int_equal(ops(p)->work_queues(p->s, note_queue, &l, NULL), DV_OK);
    const char *text = dv_arena_strdup(&p->arena, dv_buf_cstr(&l.text));
    dv_buf_deinit(&l.text);
    return text;
}

/* ---- key-value space ---- */

static void an_empty_store_has_revision_zero_and_finds_nothing(void **state)
{
    struct place *p = *state;
    assert_int_equal(ops(p)->revision(p->s), 0);
    assert_null(get(p, "a", NULL));
    assert_string_equal(list(p, "", "", 0), "");
    assert_string_equal(queues(p), "");
}

static void what_was_written_is_read_at_the_revision_of_its_commit(void **state)
{
    struct place *p = *state;
    uint64_t rev = 0;
    assert_int_equal(put(p, "a", "1"), 1);
    assert_int_equal(put(p, "b", "2"), 2);
    assert_int_equal(put(p, "a", "3"), 3);
    assert_string_equal(get(p, "a", &rev), "3");
    assert_int_equal(rev, 3);
    assert_string_equal(get(p, "b", &rev), "2");
    assert_int_equal(rev, 2);
    assert_int_equal(ops(p)->revision(p->s), 3);
}

static void one_commit_gives_all_its_keys_one_revision(void **state)
{
    struct place *p = *state;
    struct dv_store_write w[] = {{.key = DV_SV("x"), .value = DV_SV("1"), .if_revision = DV_REV_ANY},
                                 {.key = DV_SV("y"), .value = DV_SV("2"), .if_revision = DV_REV_ABSENT},
                                 {.key = DV_SV("x"), .value = DV_SV("3"), .if_revision = DV_REV_ANY}};
    uint64_t rev = 0;
    assert_int_equal(ops(p)->commit(p->s, w, 3, &rev, NULL), DV_OK);
    assert_int_equal(rev, 1);
    assert_string_equal(list(p, "", "", 0), "x=3@1 y=2@1 ");
}

static void unchanged_content_still_takes_a_revision(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    assert_int_equal(put(p, "a", "1"), 2);
    uint64_t rev = 0;
    (void)get(p, "a", &rev);
    assert_int_equal(rev, 2);
}

static void deleting_what_is_not_there_changes_nothing(void **state)
{
    struct place *p = *state;
    uint64_t rev = 99;
    (void)put(p, "a", "1");
    assert_int_equal(del_if(p, "b", DV_REV_ANY, &rev), DV_OK);
    assert_int_equal(rev, 1);
    assert_int_equal(del_if(p, "a", DV_REV_ANY, &rev), DV_OK);
    assert_int_equal(rev, 2);
    assert_null(get(p, "a", NULL));
    assert_int_equal(ops(p)->commit(p->s, NULL, 0, &rev, NULL), DV_OK);
    assert_int_equal(rev, 2);
}

static void a_write_on_a_stale_revision_conflicts_and_names_the_key(void **state)
{
    struct place *p = *state;
    uint64_t first = put(p, "fn/a", "1"), rev = 77;
    (void)put(p, "fn/a", "2");
    struct dv_err err = DV_ERR_INIT;
    struct dv_store_write w[] = {{.key = DV_SV("other"), .value = DV_SV("x"), .if_revision = DV_REV_ANY},
                                 {.key = DV_SV("fn/a"), .value = DV_SV("3"), .if_revision = first}};
    assert_int_equal(ops(p)->commit(p->s, w, 2, &rev, &err), DV_CONFLICT);
    assert_string_equal(err.field, "fn/a");
    assert_int_equal(rev, 77);
    assert_null(get(p, "other", NULL));
    assert_string_equal(get(p, "fn/a", NULL), "2");
    assert_int_equal(ops(p)->revision(p->s), 2);
}

static void conditions_are_held_against_the_state_before_the_commit(void **state)
{
    struct place *p = *state;
    uint64_t rev = put(p, "a", "1");
    assert_int_equal(put_if(p, "a", "2", DV_REV_ABSENT, NULL), DV_CONFLICT);
    assert_int_equal(put_if(p, "b", "2", rev, NULL), DV_CONFLICT);
    assert_int_equal(put_if(p, "a", "2", rev, &rev), DV_OK);
    assert_int_equal(del_if(p, "a", rev - 1, NULL), DV_CONFLICT);
    assert_int_equal(del_if(p, "a", rev, NULL), DV_OK);
    assert_int_equal(del_if(p, "a", rev, NULL), DV_CONFLICT);
    assert_int_equal(put_if(p, "a", "again", DV_REV_ABSENT, NULL), DV_OK);
    /* twice in one commit: both conditions look at what stood before */
    struct dv_store_write w[] = {{.key = DV_SV("n"), .value = DV_SV("1"), .if_revision = DV_REV_ABSENT},
                                 {.key = DV_SV("n"), .value = DV_SV("2"), .if_revision = DV_REV_ABSENT}};
    assert_int_equal(ops(p)->commit(p->s, w, 2, NULL, NULL), DV_OK);
    assert_string_equal(get(p, "n", NULL), "2");
}

static void keys_and_values_may_hold_any_byte(void **state)
{
    struct place *p = *state;
    struct dv_store_write w = {
        .key = DV_SV("k\0\xff"), .value = DV_SV("\0v\n\xfe"), .if_revision = DV_REV_ANY};
    struct dv_store_entry e;
    assert_int_equal(ops(p)->commit(p->s, &w, 1, NULL, NULL), DV_OK);
    assert_int_equal(ops(p)->get(p->s, DV_SV("k\0\xff"), &p->arena, &e, NULL), DV_OK);
    assert_true(dv_sv_eq(e.value, DV_SV("\0v\n\xfe")));
    assert_null(get(p, "k", NULL));
    w = (struct dv_store_write){.key = DV_SV("empty"), .value = DV_SV(""), .if_revision = DV_REV_ANY};
    assert_int_equal(ops(p)->commit(p->s, &w, 1, NULL, NULL), DV_OK);
    assert_string_equal(get(p, "empty", NULL), "");
}

static void keys_and_values_past_their_bounds_are_refused(void **state)
{
    struct place *p = *state;
    static char big[DV_STORE_PAYLOAD_MAX + 1];
    struct dv_store_write w = {.key = DV_SV(""), .value = DV_SV("v"), .if_revision = DV_REV_ANY};
    assert_int_equal(ops(p)->commit(p->s, &w, 1, NULL, NULL), DV_INVALID);
    w.key = dv_sv(big, DV_STORE_KEY_MAX + 1);
    assert_int_equal(ops(p)->commit(p->s, &w, 1, NULL, NULL), DV_INVALID);
    w = (struct dv_store_write){.key = dv_sv(big, DV_STORE_KEY_MAX),
                                .value = dv_sv(big, DV_STORE_VALUE_MAX + 1)};
    w.if_revision = DV_REV_ANY;
    assert_int_equal(ops(p)->commit(p->s, &w, 1, NULL, NULL), DV_TOO_LARGE);
    w.value.n--;
    assert_int_equal(ops(p)->commit(p->s, &w, 1, NULL, NULL), DV_OK);
    assert_int_equal(ops(p)->work_append(p->s, DV_SV(""), DV_SV("x"), 0, 0, NULL, NULL), DV_INVALID);
    assert_int_equal(ops(p)->work_append(p->s, DV_SV("q"), dv_sv(big, sizeof(big)), 0, 0, NULL, NULL),
                     DV_TOO_LARGE);
    assert_string_equal(queues(p), "");
}

static void a_listing_is_in_byte_order_and_stays_within_its_prefix(void **state)
{
    struct place *p = *state;
    (void)put(p, "fn/b", "2");
    (void)put(p, "fn/a", "1");
    (void)put(p, "fn", "0");
    (void)put(p, "fn0", "9");
    (void)put(p, "fn/\xc3\xa4", "3");
    (void)put(p, "gn/a", "4");
    assert_string_equal(list(p, "fn/", "", 0), "fn/a=1@2 fn/b=2@1 fn/\xc3\xa4=3@5 ");
    assert_string_equal(list(p, "", "", 0), "fn=0@3 fn/a=1@2 fn/b=2@1 fn/\xc3\xa4=3@5 fn0=9@4 gn/a=4@6 ");
    assert_string_equal(list(p, "zz", "", 0), "");
}

static void a_listing_is_paged_by_the_last_key_seen(void **state)
{
    struct place *p = *state;
    for (char c = 'a'; c <= 'e'; c++)
        (void)put(p, (char[]){'f', '/', c, 0}, (char[]){c, 0});
    assert_string_equal(list(p, "f/", "", 2), "f/a=a@1 f/b=b@2 ");
    assert_string_equal(list(p, "f/", "f/b", 2), "f/c=c@3 f/d=d@4 ");
    assert_string_equal(list(p, "f/", "f/d", 2), "f/e=e@5 ");
    assert_string_equal(list(p, "f/", "f/e", 2), "");
    assert_int_equal(del_if(p, "f/b", DV_REV_ANY, NULL), DV_OK); /* the key need not be there any more */
    assert_string_equal(list(p, "f/", "f/b", 1), "f/c=c@3 ");
    assert_string_equal(list(p, "f/", "a", 1), "f/a=a@1 "); /* before the prefix: from its first */
    assert_string_equal(list(p, "f/", "z", 1), "");
    assert_string_equal(list_stop(p, "f/", "", 0, 2), "f/a=a@1 f/c=c@3 ");
}

/* ---- work queue ---- */

static void work_is_claimed_in_order_of_append_within_its_queue(void **state)
{
    struct place *p = *state;
    uint64_t a = append(p, "q1", "one", 0, 100), b = append(p, "q2", "other", 0, 100),
             c = append(p, "q1", "two", 0, 100);
    assert_true(a < b && b < c);
    struct dv_work w;
    assert_true(claim(p, "q1", 100, 200, &w));
    assert_int_equal(w.id, a);
    assert_true(dv_sv_eq(w.queue, DV_SV("q1")) && dv_sv_eq(w.payload, DV_SV("one")));
    assert_int_equal(w.attempts, 1);
    assert_int_equal(w.created_ms, 100);
    assert_int_equal(w.not_before_ms, 100);
    assert_string_equal(claimed(p, "q1", 100, 200), "two");
    assert_string_equal(claimed(p, "q1", 100, 200), "");
    assert_string_equal(claimed(p, "none", 100, 200), "");
    assert_string_equal(claimed(p, "q2", 100, 200), "other");
}

static void an_item_waits_for_its_time(void **state)
{
    struct place *p = *state;
    (void)append(p, "q", "later", 500, 100);
    (void)append(p, "q", "now", 0, 100);
    assert_string_equal(claimed(p, "q", 100, 1000), "now");
    assert_string_equal(claimed(p, "q", 499, 1000), "");
    assert_string_equal(claimed(p, "q", 500, 1000), "later");
}

static void a_lease_that_ran_out_lets_the_item_be_claimed_again(void **state)
{
    struct place *p = *state;
    struct dv_work w;
    (void)append(p, "q", "x", 0, 0);
    assert_true(claim(p, "q", 10, 50, &w));
    assert_false(claim(p, "q", 49, 90, &w));
    assert_true(claim(p, "q", 50, 90, &w));
    assert_int_equal(w.attempts, 2);
}

static void acked_work_is_gone_for_good(void **state)
{
    struct place *p = *state;
    uint64_t id = append(p, "q", "x", 0, 0);
    assert_string_equal(claimed(p, "q", 0, 10), "x");
    assert_int_equal(ops(p)->work_ack(p->s, id, NULL), DV_OK);
    assert_int_equal(ops(p)->work_ack(p->s, id, NULL), DV_NOT_FOUND);
    assert_int_equal(ops(p)->work_retry(p->s, id, 0, NULL), DV_NOT_FOUND);
    assert_string_equal(claimed(p, "q", 1000, 2000), "");
    assert_true(append(p, "q", "y", 0, 0) > id); /* ids are not used twice, even for an empty queue */
}

static void retried_work_comes_back_at_its_time_behind_what_was_due_before(void **state)
{
    struct place *p = *state;
    uint64_t id = append(p, "q", "bad", 0, 0);
    assert_string_equal(claimed(p, "q", 0, 1000), "bad");
    assert_int_equal(ops(p)->work_retry(p->s, id, 100, NULL), DV_OK);
    (void)append(p, "q", "good", 0, 50);
    assert_string_equal(claimed(p, "q", 99, 1000), "good");
    assert_string_equal(claimed(p, "q", 99, 1000), "");
    struct dv_work w;
    assert_true(claim(p, "q", 100, 1000, &w));
    assert_int_equal(w.id, id);
    assert_int_equal(w.attempts, 2);
    assert_int_equal(w.not_before_ms, 100);
}

static void after_release_all_everything_claimed_is_claimable_at_its_old_place(void **state)
{
    struct place *p = *state;
    (void)append(p, "q", "first", 0, 0);
    (void)append(p, "q", "second", 0, 1);
    (void)append(p, "q", "later", 900, 1);
    assert_string_equal(claimed(p, "q", 10, 5000), "first");
    assert_int_equal(ops(p)->work_release_all(p->s, NULL), DV_OK);
    assert_string_equal(claimed(p, "q", 10, 5000), "first");
    assert_string_equal(claimed(p, "q", 10, 5000), "second");
    assert_string_equal(claimed(p, "q", 10, 5000), "");
}

static void queues_are_listed_with_their_count_and_next_due_time(void **state)
{
    struct place *p = *state;
    (void)append(p, "b", "1", 0, 10);
    (void)append(p, "b", "2", 70, 10);
    uint64_t id = append(p, "a", "3", 30, 10);
    assert_string_equal(queues(p), "a:1@30 b:2@10 ");
    assert_string_equal(claimed(p, "b", 10, 40), "1");
    assert_string_equal(queues(p), "a:1@30 b:2@40 ");
    assert_int_equal(ops(p)->work_ack(p->s, id, NULL), DV_OK);
    assert_string_equal(queues(p), "b:2@40 ");
}

static void the_next_due_time_of_a_queue_is_known(void **state)
{
    struct place *p = *state;
    int64_t due_ms = 4711;
    assert_int_equal(ops(p)->work_next_due(p->s, DV_SV("q"), &due_ms, NULL), DV_NOT_FOUND);
    assert_int_equal(due_ms, 4711);
    (void)append(p, "q", "later", 80, 10);
    (void)append(p, "q", "sooner", 30, 10);
    (void)append(p, "other", "x", 0, 1);
    assert_int_equal(ops(p)->work_next_due(p->s, DV_SV("q"), &due_ms, NULL), DV_OK);
    assert_int_equal(due_ms, 30);
    assert_string_equal(claimed(p, "q", 30, 500), "sooner");
    assert_int_equal(ops(p)->work_next_due(p->s, DV_SV("q"), &due_ms, NULL), DV_OK);
    assert_int_equal(due_ms, 80);
    assert_string_equal(claimed(p, "q", 80, 400), "later");
    assert_int_equal(ops(p)->work_next_due(p->s, DV_SV("q"), &due_ms, NULL), DV_OK);
    assert_int_equal(due_ms, 400);
}

static void a_dropped_queue_loses_all_its_items_and_no_others(void **state)
{
    struct place *p = *state;
    (void)append(p, "a", "1", 0, 0);
    (void)append(p, "b", "2", 0, 0);
    (void)append(p, "a", "3", 0, 0);
    assert_string_equal(claimed(p, "a", 0, 10), "1");
    uint64_t n = 9;
    assert_int_equal(ops(p)->work_drop(p->s, DV_SV("a"), &n, NULL), DV_OK);
    assert_int_equal(n, 2);
    assert_int_equal(ops(p)->work_drop(p->s, DV_SV("a"), &n, NULL), DV_OK);
    assert_int_equal(n, 0);
    assert_string_equal(queues(p), "b:1@0 ");
}

/* ---- transactions ---- */

static void a_failing_call_in_a_transaction_undoes_only_itself(void **state)
{
    struct place *p = *state;
    assert_int_equal(ops(p)->begin(p->s, NULL), DV_OK);
    (void)put(p, "a", "1");
    assert_int_equal(put_if(p, "a", "2", 99, NULL), DV_CONFLICT);
    (void)append(p, "q", "x", 0, 0);
    assert_int_equal(ops(p)->work_ack(p->s, 4711, NULL), DV_NOT_FOUND);
    (void)put(p, "b", "3");
    assert_int_equal(ops(p)->end(p->s, NULL), DV_OK);
    assert_string_equal(list(p, "", "", 0), "a=1@1 b=3@2 ");
    assert_string_equal(queues(p), "q:1@0 ");
}

static void undo_takes_back_every_call_since_save_and_nothing_before(void **state)
{
    struct place *p = *state;
    uint64_t old = append(p, "q", "old", 0, 0), gone = append(p, "q", "gone", 0, 0);
    (void)put(p, "keep", "0");
    (void)put(p, "dies", "0");
    assert_int_equal(ops(p)->begin(p->s, NULL), DV_OK);
    (void)put(p, "before", "1");
    assert_int_equal(ops(p)->save(p->s, NULL), DV_OK);
    (void)put(p, "keep", "changed");
    (void)put(p, "keep", "twice");
    (void)put(p, "new", "x");
    assert_int_equal(del_if(p, "dies", DV_REV_ANY, NULL), DV_OK);
    assert_string_equal(claimed(p, "q", 5, 100), "old");
    assert_int_equal(ops(p)->work_retry(p->s, old, 50, NULL), DV_OK);
    assert_int_equal(ops(p)->work_ack(p->s, gone, NULL), DV_OK);
    (void)append(p, "r", "new", 0, 0);
    assert_int_equal(ops(p)->work_drop(p->s, DV_SV("q"), NULL, NULL), DV_OK);
    assert_int_equal(ops(p)->undo(p->s, NULL), DV_OK);
    assert_int_equal(ops(p)->revision(p->s), 3);
    assert_int_equal(ops(p)->save(p->s, NULL), DV_OK);
    assert_int_equal(put(p, "after", "2"), 4);
    assert_int_equal(ops(p)->keep(p->s, NULL), DV_OK);
    assert_int_equal(ops(p)->end(p->s, NULL), DV_OK);
    assert_string_equal(list(p, "", "", 0), "after=2@4 before=1@3 dies=0@2 keep=0@1 ");
    assert_string_equal(queues(p), "q:2@0 ");
    struct dv_work w;
    assert_true(claim(p, "q", 5, 100, &w));
    assert_int_equal(w.id, old);
    assert_int_equal(w.attempts, 1);
}

/* ---- what only a file can promise ---- */

static void everything_is_there_after_a_reopen(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    uint64_t rev = put(p, "b", "2");
    uint64_t id = append(p, "q", "x", 0, 5);
    assert_string_equal(claimed(p, "q", 5, 1000), "x");
    reopen(p);
    assert_int_equal(ops(p)->revision(p->s), rev);
    assert_string_equal(list(p, "", "", 0), "a=1@1 b=2@2 ");
    assert_string_equal(claimed(p, "q", 5, 1000), ""); /* the lease stands, until somebody releases it */
    assert_int_equal(ops(p)->work_release_all(p->s, NULL), DV_OK);
    struct dv_work w;
    assert_true(claim(p, "q", 5, 1000, &w));
    assert_int_equal(w.id, id);
    assert_int_equal(w.attempts, 2);
}

static void a_transaction_left_open_is_not_there_after_a_reopen(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    assert_int_equal(ops(p)->begin(p->s, NULL), DV_OK);
    (void)put(p, "b", "2");
    (void)append(p, "q", "x", 0, 0);
    reopen(p);
    assert_string_equal(list(p, "", "", 0), "a=1@1 ");
    assert_string_equal(queues(p), "");
}

static void the_file_is_readable_by_its_owner_only(void **state)
{
    struct place *p = *state;
    struct stat st;
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)put(p, "a", "1");
    char wal[128];
    (void)snprintf(wal, sizeof(wal), "%s-wal", p->path);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_second_owner_is_refused(void **state)
{
    struct place *p = *state;
    pid_t pid = fork(); /* file locks are per process */
    if (pid == 0) {
        struct dv_store *s;
        struct dv_err err = DV_ERR_INIT;
        int rc = dv_store_sqlite_open(p->path, &s, &err);
        _exit(rc == DV_E_IO && strstr(err.msg, "in use by another process") && strstr(err.msg, p->path) ? 0
                                                                                                        : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)put(p, "still", "works");
}

static void close_place(struct place *p)
{
    ops(p)->close(p->s);
    p->s = NULL;
    (void)unlink(p->path);
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *msg = NULL;
    int rc = sqlite3_exec(db, text, NULL, NULL, &msg);
    if (rc)
        print_error("%s\n", msg);
    assert_int_equal(rc, SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static int open_code(struct place *p, struct dv_err *err)
{
    return dv_store_sqlite_open(p->path, &p->s, err);
}

static void a_file_of_the_first_layout_is_migrated_with_its_content(void **state)
{
    struct place *p = *state;
    close_place(p);
    sql(p->path, "CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT);"
                 "INSERT INTO kv VALUES('fn/default/a', '{}'), ('fn/default/b', '{\"x\":1}')");
    place_open(p);
    assert_string_equal(list(p, "", "", 0), "fn/default/a={}@1 fn/default/b={\"x\":1}@1 ");
    assert_int_equal(ops(p)->revision(p->s), 1);
    assert_int_equal(put_if(p, "fn/default/a", "new", 1, NULL), DV_OK);
    (void)append(p, "q", "x", 0, 0);
    reopen(p);
    assert_string_equal(get(p, "fn/default/a", NULL), "new");
    assert_string_equal(queues(p), "q:1@0 ");
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    char *bytes = dv_alloc((size_t)st.st_size + 1);
    assert_int_equal(fread(bytes, 1, (size_t)st.st_size, f), st.st_size);
    assert_int_equal(fclose(f), 0);
    *n = (size_t)st.st_size;
    return bytes;
}

static void a_newer_schema_is_refused_and_the_file_left_as_it_was(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    ops(p)->close(p->s);
    p->s = NULL;
    sql(p->path, "PRAGMA user_version = 7");
    assert_int_equal(chmod(p->path, 0640), 0);
    size_t n, m;
    struct stat st;
    struct dv_err err = DV_ERR_INIT;
    DV_AUTO_STR char *before = slurp(p->path, &n);
    assert_int_equal(open_code(p, &err), DV_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "version 7"));
    assert_non_null(strstr(err.msg, "up to 1"));
    assert_non_null(strstr(err.msg, p->path));
    DV_AUTO_STR char *after = slurp(p->path, &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void spit(const char *path, const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void files_that_are_no_store_are_refused_by_path_and_reason(void **state)
{
    struct place *p = *state;
    struct dv_err err = DV_ERR_INIT;
    close_place(p);
    spit(p->path, "this is not a database, but it is long enough to be mistaken for one by size alone.....",
         87);
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, p->path));
    assert_non_null(strstr(err.msg, "not a database"));
    (void)unlink(p->path);
    sql(p->path, "CREATE TABLE somebody_elses(x)");
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, "not a store of davit"));
    (void)unlink(p->path);
    assert_int_equal(mkdir(p->path, 0700), 0);
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, p->path));
    assert_int_equal(rmdir(p->path), 0);
    struct dv_store *s = NULL;
    assert_int_equal(dv_store_sqlite_open("/nonexistent/dir/store.db", &s, &err), DV_E_IO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_null(s);
}

static void a_damaged_file_gives_an_error_and_not_an_empty_store(void **state)
{
    struct place *p = *state;
    for (int i = 0; i < 200; i++)
        (void)put(p, (char[]){'k', (char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10), 0},
                  "value");
    ops(p)->close(p->s);
    p->s = NULL;
    size_t n;
    DV_AUTO_STR char *bytes = slurp(p->path, &n);
    for (size_t i = 100; i < n; i++)
        bytes[i] = (char)(bytes[i] ^ 0x5a);
    spit(p->path, bytes, n);
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(open_code(p, &err), DV_E_IO);
    assert_non_null(strstr(err.msg, p->path));
    assert_non_null(strstr(err.msg, "malformed"));
}

/* A file size limit in a child stands for a full disk.  Exit status: 0 as it should be. */
static int fill_up(const char *path)
{
    static char big[400 * 1024];
    struct dv_store *s;
    struct dv_err err = DV_ERR_INIT;
    struct rlimit limit = {.rlim_cur = 300 * 1024, .rlim_max = 300 * 1024};
    (void)signal(SIGXFSZ, SIG_IGN);
    if (dv_store_sqlite_open(path, &s, NULL) || setrlimit(RLIMIT_FSIZE, &limit))
        return 1;
    if (s->ops->begin(s, NULL) || s->ops->work_append(s, DV_SV("q"), DV_SV("small"), 0, 0, NULL, NULL))
        return 2;
    struct dv_store_write w = {
        .key = DV_SV("big"), .value = dv_sv(big, sizeof(big)), .if_revision = DV_REV_ANY};
    int rc = s->ops->commit(s, &w, 1, NULL, &err), end_rc = s->ops->end(s, &err);
    if (rc >= 0 && end_rc >= 0)
        return 3;
    if (end_rc != DV_E_STORE || !err.msg[0])
        return 4;
    w.value = DV_SV("fits"); /* and once there is room again, it goes on */
    return s->ops->commit(s, &w, 1, NULL, NULL) ? 5 : 0;
}

static void a_full_disk_fails_the_transaction_and_leaves_what_was_committed(void **state)
{
    struct place *p = *state;
    (void)put(p, "a", "1");
    ops(p)->close(p->s);
    p->s = NULL;
    pid_t pid = fork();
    if (pid == 0)
        _exit(fill_up(p->path));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    place_open(p);
    assert_string_equal(list(p, "", "", 0), "a=1@1 big=fits@2 ");
    assert_string_equal(queues(p), "");
}

/* The child appends and tells each id once its transaction has ended; it is killed while doing so. */
static void append_until_killed(const char *path, int out)
{
    struct dv_store *s;
    if (dv_store_sqlite_open(path, &s, NULL))
        _exit(1);
    for (;;) {
        uint64_t ids[4];
        if (s->ops->begin(s, NULL))
            _exit(2);
        for (size_t i = 0; i < DV_COUNT(ids); i++)
            if (s->ops->work_append(s, DV_SV("q"), DV_SV("payload"), 0, 0, &ids[i], NULL))
                _exit(3);
        if (s->ops->end(s, NULL) || write(out, ids, sizeof(ids)) != sizeof(ids))
            _exit(4);
    }
}

static int count_queue(void *ctx, struct dv_sv queue, uint64_t n, int64_t next_due_ms)
{
    (void)queue, (void)next_due_ms;
    *(uint64_t *)ctx = n;
    return 0;
}

static void whatever_was_acknowledged_survives_kill_9(void **state)
{
    struct place *p = *state;
    ops(p)->close(p->s);
    p->s = NULL;
    uint64_t told = 0, last = 0;
    for (int round = 1; round <= 3; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
            (void)close(fds[0]);
            append_until_killed(p->path, fds[1]);
        }
        (void)close(fds[1]);
        uint64_t id;
        int n = 0;
        while (n < 120 * round && read(fds[0], &id, sizeof(id)) == sizeof(id))
            n++, told++, last = id;
        assert_int_equal(n, 120 * round);
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        while (read(fds[0], &id, sizeof(id)) == sizeof(id))
            told++, last = id;
        (void)close(fds[0]);
    }
    place_open(p);
    uint64_t kept = 0;
    assert_int_equal(ops(p)->work_queues(p->s, count_queue, &kept, NULL), DV_OK);
    assert_true(kept >= told);
    assert_int_equal(kept % 4, 0); /* whole transactions only */
    assert_int_equal(ops(p)->work_ack(p->s, last, NULL), DV_OK);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(an_empty_store_has_revision_zero_and_finds_nothing),
        BOTH(what_was_written_is_read_at_the_revision_of_its_commit),
        BOTH(one_commit_gives_all_its_keys_one_revision),
        BOTH(unchanged_content_still_takes_a_revision),
        BOTH(deleting_what_is_not_there_changes_nothing),
        BOTH(a_write_on_a_stale_revision_conflicts_and_names_the_key),
        BOTH(conditions_are_held_against_the_state_before_the_commit),
        BOTH(keys_and_values_may_hold_any_byte),
        BOTH(keys_and_values_past_their_bounds_are_refused),
        BOTH(a_listing_is_in_byte_order_and_stays_within_its_prefix),
        BOTH(a_listing_is_paged_by_the_last_key_seen),
        BOTH(work_is_claimed_in_order_of_append_within_its_queue),
        BOTH(an_item_waits_for_its_time),
        BOTH(a_lease_that_ran_out_lets_the_item_be_claimed_again),
        BOTH(acked_work_is_gone_for_good),
        BOTH(retried_work_comes_back_at_its_time_behind_what_was_due_before),
        BOTH(after_release_all_everything_claimed_is_claimable_at_its_old_place),
        BOTH(queues_are_listed_with_their_count_and_next_due_time),
        BOTH(the_next_due_time_of_a_queue_is_known),
        BOTH(a_dropped_queue_loses_all_its_items_and_no_others),
        BOTH(a_failing_call_in_a_transaction_undoes_only_itself),
        BOTH(undo_takes_back_every_call_since_save_and_nothing_before),
        SQLITE_ONLY(everything_is_there_after_a_reopen),
        SQLITE_ONLY(a_transaction_left_open_is_not_there_after_a_reopen),
        SQLITE_ONLY(the_file_is_readable_by_its_owner_only),
        SQLITE_ONLY(a_second_owner_is_refused),
        SQLITE_ONLY(a_file_of_the_first_layout_is_migrated_with_its_content),
        SQLITE_ONLY(a_newer_schema_is_refused_and_the_file_left_as_it_was),
        SQLITE_ONLY(files_that_are_no_store_are_refused_by_path_and_reason),
        SQLITE_ONLY(a_damaged_file_gives_an_error_and_not_an_empty_store),
        SQLITE_ONLY(a_full_disk_fails_the_transaction_and_leaves_what_was_committed),
        SQLITE_ONLY(whatever_was_acknowledged_survives_kill_9),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
