/* Every promise of orchestrator/store/store.h, held against every backend. */
#include "tests/support/store_place.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
