/* The store's thread, on the memory store (with a gate to hold a round open) and on SQLite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/store/storer.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

/* ---- a store that counts rounds, can be held at begin, and can fail at its end ---- */

struct watched {
    struct dv_store base;
    struct dv_store_ops ops;
    struct dv_store *inner;
    pthread_mutex_t gate; /* held by the test: begin waits */
    _Atomic int n_begin, n_end;
    _Atomic bool end_fails;
};

static struct watched watched;

static int gated_begin(struct dv_store *s, struct dv_err *err)
{
    (void)s;
    atomic_fetch_add(&watched.n_begin, 1);
    pthread_mutex_lock(&watched.gate);
    pthread_mutex_unlock(&watched.gate);
    return watched.inner->ops->begin(watched.inner, err);
}

static int counted_end(struct dv_store *s, struct dv_err *err)
{
    (void)s;
    atomic_fetch_add(&watched.n_end, 1);
    if (atomic_load(&watched.end_fails))
        return dv_err_set(err, DV_E_STORE, "the disk is gone");
    return watched.inner->ops->end(watched.inner, err);
}

static int pass_save(struct dv_store *s, struct dv_err *err)
{
    (void)s;
    return watched.inner->ops->save(watched.inner, err);
}

static int pass_keep(struct dv_store *s, struct dv_err *err)
{
    (void)s;
    return watched.inner->ops->keep(watched.inner, err);
}

static int pass_undo(struct dv_store *s, struct dv_err *err)
{
    (void)s;
    return watched.inner->ops->undo(watched.inner, err);
}

static void keep_open(struct dv_store *s)
{
    (void)s; /* the test looks into the inner store after the thread has ended */
}

struct rig {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_storer *storer;
    int n_done;
};

static int set_up(void **state)
{
    struct rig *r = dv_zalloc(sizeof(*r));
    assert_int_equal(dv_loop_new(&dv_clock_system, &r->loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(r->loop, &r->mailbox, NULL), DV_OK);
    memset(&watched, 0, sizeof(watched));
    pthread_mutex_init(&watched.gate, NULL);
    assert_int_equal(dv_store_memory_open(&watched.inner, NULL), DV_OK);
    watched.ops = (struct dv_store_ops){.begin = gated_begin,
                                        .end = counted_end,
                                        .save = pass_save,
                                        .keep = pass_keep,
                                        .undo = pass_undo,
                                        .close = keep_open};
    watched.base.ops = &watched.ops;
    assert_int_equal(dv_storer_start(&watched.base, &r->storer, NULL), DV_OK);
    *state = r;
    return 0;
}

static void stop(struct rig *r)
{
    dv_storer_stop(r->storer);
    r->storer = NULL;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    if (r->storer)
        stop(r);
    dv_mailbox_free(r->mailbox);
    dv_loop_free(r->loop);
    watched.inner->ops->close(watched.inner);
    pthread_mutex_destroy(&watched.gate);
    dv_free(r);
    return 0;
}

/* ---- jobs ---- */

struct job {
    struct dv_store_job base;
    struct rig *rig;
    int number, result; /* what run returns after writing */
    int done_as;        /* place in the order of answers, from 1 */
};

static int write_key(struct dv_store_job *base, struct dv_store *store, struct dv_err *err)
{
    (void)store;
    struct job *j = DV_CONTAINER_OF(base, struct job, base);
    char key[16];
    (void)snprintf(key, sizeof(key), "k%05d", j->number);
    struct dv_store_write w = {.key = dv_sv_c(key), .value = DV_SV("v"), .if_revision = DV_REV_ANY};
    int rc = watched.inner->ops->commit(watched.inner, &w, 1, NULL, err);
    if (rc)
        return rc;
    return j->result ? dv_err_set(err, j->result, "job %d does not want to", j->number) : DV_OK;
}

static void note_done(struct dv_store_job *base)
{
    struct job *j = DV_CONTAINER_OF(base, struct job, base);
    j->done_as = ++j->rig->n_done;
}

static void submit(struct rig *r, struct job *j, int number, int result)
{
    *j = (struct job){.rig = r, .number = number, .result = result};
    j->base = (struct dv_store_job){.reply_to = r->mailbox, .run = write_key, .done = note_done};
    dv_storer_submit(r->storer, &j->base);
}

static void turn_until(struct rig *r, int n_done)
{
    for (int i = 0; i < 1000 && r->n_done < n_done; i++)
        assert_int_equal(dv_loop_turn(r->loop, 10), DV_OK);
    assert_int_equal(r->n_done, n_done);
}

static bool has_key(int number)
{
    DV_AUTO_ARENA struct dv_arena a = DV_ARENA_INIT;
    struct dv_store_entry e;
    char key[16];
    (void)snprintf(key, sizeof(key), "k%05d", number);
    return watched.inner->ops->get(watched.inner, dv_sv_c(key), &a, &e, NULL) == DV_OK;
}

static void wait_for(const _Atomic int *counter, int n)
{
    for (int i = 0; i < 5000 && atomic_load(counter) < n; i++)
        (void)usleep(1000);
    assert_int_equal(atomic_load(counter), n);
}

/* ---- tests ---- */

static void jobs_run_and_are_answered_in_order(void **state)
{
    struct rig *r = *state;
    enum { N = 50 };
    struct job jobs[N];
    for (int i = 0; i < N; i++)
        submit(r, &jobs[i], i, DV_OK);
    turn_until(r, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(jobs[i].base.code, DV_OK);
        assert_int_equal(jobs[i].done_as, i + 1);
    }
    assert_int_equal(dv_storer_backlog(r->storer), 0);
}

static void jobs_that_come_while_a_round_is_under_way_share_the_next_one(void **state)
{
    struct rig *r = *state;
    enum { N = 200 };
    struct job first, jobs[N];
    pthread_mutex_lock(&watched.gate);
    submit(r, &first, 9000, DV_OK);
    wait_for(&watched.n_begin, 1);
    for (int i = 0; i < N; i++)
        submit(r, &jobs[i], i, DV_OK);
    assert_int_equal(dv_storer_backlog(r->storer), N + 1);
    pthread_mutex_unlock(&watched.gate);
    turn_until(r, N + 1);
    assert_int_equal(atomic_load(&watched.n_end), 2);
}

static void nobody_is_answered_before_the_end_of_the_transaction(void **state)
{
    struct rig *r = *state;
    struct job j;
    pthread_mutex_lock(&watched.gate);
    submit(r, &j, 1, DV_OK);
    wait_for(&watched.n_begin, 1);
    assert_int_equal(dv_loop_turn(r->loop, 5), DV_OK);
    assert_int_equal(r->n_done, 0);
    pthread_mutex_unlock(&watched.gate);
    turn_until(r, 1);
}

static void a_failing_job_undoes_itself_and_not_its_neighbours(void **state)
{
    struct rig *r = *state;
    struct job first, jobs[3];
    pthread_mutex_lock(&watched.gate);
    submit(r, &first, 9000, DV_OK);
    wait_for(&watched.n_begin, 1);
    submit(r, &jobs[0], 0, DV_OK);
    submit(r, &jobs[1], 1, DV_CONFLICT);
    submit(r, &jobs[2], 2, DV_OK);
    pthread_mutex_unlock(&watched.gate);
    turn_until(r, 4);
    assert_int_equal(jobs[0].base.code, DV_OK);
    assert_int_equal(jobs[1].base.code, DV_CONFLICT);
    assert_string_equal(jobs[1].base.err.msg, "job 1 does not want to");
    assert_int_equal(jobs[2].base.code, DV_OK);
    stop(r);
    assert_true(has_key(0) && has_key(2));
    assert_false(has_key(1));
}

static void when_the_transaction_fails_every_job_of_it_is_told_so(void **state)
{
    struct rig *r = *state;
    struct job jobs[3];
    atomic_store(&watched.end_fails, true);
    pthread_mutex_lock(&watched.gate);
    for (int i = 0; i < 3; i++)
        submit(r, &jobs[i], i, i == 1 ? DV_CONFLICT : DV_OK);
    pthread_mutex_unlock(&watched.gate);
    turn_until(r, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(jobs[i].base.code, DV_E_STORE);
        assert_string_equal(jobs[i].base.err.msg, "the disk is gone");
    }
}

static void jobs_submitted_before_stop_are_run_and_answered(void **state)
{
    struct rig *r = *state;
    enum { N = 3000 }; /* more than one round */
    struct job *jobs = dv_zalloc_n(N, sizeof(*jobs));
    for (int i = 0; i < N; i++)
        submit(r, &jobs[i], i, DV_OK);
    stop(r);
    turn_until(r, N);
    for (int i = 0; i < N; i++)
        assert_true(has_key(i));
    dv_free(jobs);
}

/* ---- many loops at once ---- */

enum { THREADS = 4, JOBS_EACH = 500 };

struct sender {
    struct rig rig;
    struct dv_storer *storer;
    int base;
    struct job jobs[JOBS_EACH];
    pthread_t thread;
    int n_in_order;
};

static void *send_many(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < JOBS_EACH; i++) {
        submit(&s->rig, &s->jobs[i], s->base + i, i % 7 == 3 ? DV_QUOTA : DV_OK);
        if (i % 50 == 0)
            (void)dv_loop_turn(s->rig.loop, 0);
    }
    while (s->rig.n_done < JOBS_EACH)
        (void)dv_loop_turn(s->rig.loop, 10);
    for (int i = 0; i < JOBS_EACH; i++)
        s->n_in_order += s->jobs[i].done_as == i + 1 && s->jobs[i].base.code == s->jobs[i].result;
    return NULL;
}

static void many_threads_each_get_their_own_answers_in_their_own_order(void **state)
{
    struct rig *r = *state;
    struct sender *senders = dv_zalloc_n(THREADS, sizeof(*senders));
    for (int t = 0; t < THREADS; t++) {
        struct sender *s = &senders[t];
        s->base = t * JOBS_EACH;
        s->rig.storer = r->storer;
        assert_int_equal(dv_loop_new(&dv_clock_system, &s->rig.loop, NULL), DV_OK);
        assert_int_equal(dv_mailbox_new(s->rig.loop, &s->rig.mailbox, NULL), DV_OK);
        assert_int_equal(pthread_create(&s->thread, NULL, send_many, s), 0);
    }
    for (int t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_join(senders[t].thread, NULL), 0);
        assert_int_equal(senders[t].n_in_order, JOBS_EACH);
        dv_mailbox_free(senders[t].rig.mailbox);
        dv_loop_free(senders[t].rig.loop);
    }
    stop(r);
    for (int i = 0; i < THREADS * JOBS_EACH; i++)
        assert_true(has_key(i) == (i % JOBS_EACH % 7 != 3));
    dv_free(senders);
}

/* ---- the same on a file ---- */

static int append_two(struct dv_store_job *base, struct dv_store *store, struct dv_err *err)
{
    struct job *j = DV_CONTAINER_OF(base, struct job, base);
    for (int i = 0; i < 2; i++) {
        int rc = store->ops->work_append(store, DV_SV("q"), DV_SV("x"), 0, 0, NULL, err);
        if (rc)
            return rc;
    }
    return j->result;
}

static int count_queue(void *ctx, struct dv_sv queue, uint64_t n, int64_t due_ms)
{
    (void)queue, (void)due_ms;
    *(uint64_t *)ctx = n;
    return 0;
}

static void on_sqlite_what_was_answered_is_in_the_file_and_what_failed_is_not(void **state)
{
    struct rig *r = *state;
    char dir[] = "/tmp/davit-test-storer-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/store.db", dir);
    struct dv_store *store;
    assert_int_equal(dv_store_sqlite_open(path, &store, NULL), DV_OK);
    stop(r);
    assert_int_equal(dv_storer_start(store, &r->storer, NULL), DV_OK);
    enum { N = 60 };
    struct job jobs[N];
    for (int i = 0; i < N; i++) {
        jobs[i] = (struct job){.rig = r, .result = i % 3 == 0 ? DV_CONFLICT : DV_OK};
        jobs[i].base = (struct dv_store_job){.reply_to = r->mailbox, .run = append_two, .done = note_done};
        dv_storer_submit(r->storer, &jobs[i].base);
    }
    turn_until(r, N);
    stop(r);
    uint64_t n = 0;
    assert_int_equal(dv_store_sqlite_open(path, &store, NULL), DV_OK);
    assert_int_equal(store->ops->work_queues(store, count_queue, &n, NULL), DV_OK);
    assert_int_equal(n, 2 * N * 2 / 3);
    store->ops->close(store);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(jobs_run_and_are_answered_in_order),
        TEST(jobs_that_come_while_a_round_is_under_way_share_the_next_one),
        TEST(nobody_is_answered_before_the_end_of_the_transaction),
        TEST(a_failing_job_undoes_itself_and_not_its_neighbours),
        TEST(when_the_transaction_fails_every_job_of_it_is_told_so),
        TEST(jobs_submitted_before_stop_are_run_and_answered),
        TEST(many_threads_each_get_their_own_answers_in_their_own_order),
        TEST(on_sqlite_what_was_answered_is_in_the_file_and_what_failed_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
