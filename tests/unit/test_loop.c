#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/base/rng.h"
#include "proto/rt/loop.h"
#include "proto/rt/mailbox.h"

static struct dv_loop *new_loop(const struct dv_clock *clock)
{
    struct dv_loop *l;
    assert_int_equal(dv_loop_new(clock, &l, NULL), DV_OK);
    return l;
}

/* ---- timers ---- */

enum { N_TIMERS = 500 };
static uint64_t fired_at[N_TIMERS];
static size_t n_fired;

static void note_fired(struct dv_timer *t)
{
    fired_at[n_fired++] = t->at_ns;
}

static void timers_fire_in_order_of_deadline_whatever_order_they_were_set_moved_and_cancelled_in(void **state)
{
    (void)state;
    struct dv_clock_fake fake = {.mono_ns = 1000};
    struct dv_clock clock = dv_clock_fake(&fake);
    struct dv_loop *l = new_loop(&clock);
    static struct dv_timer timers[N_TIMERS];
    struct dv_rng r;
    dv_rng_init(&r, 3);
    n_fired = 0;
    for (size_t i = 0; i < N_TIMERS; i++) {
        timers[i] = (struct dv_timer){.fn = note_fired};
        assert_int_equal(dv_timer_set(l, &timers[i], 2000 + dv_rng_below(&r, 1000)), DV_OK);
    }
    for (size_t i = 0; i < N_TIMERS; i += 3)
        assert_int_equal(dv_timer_set(l, &timers[i], 2000 + dv_rng_below(&r, 1000)), DV_OK);
    size_t n_cancelled = 0;
    for (size_t i = 0; i < N_TIMERS; i += 7, n_cancelled++)
        dv_timer_cancel(l, &timers[i]);
    dv_timer_cancel(l, &timers[0]); /* twice is harmless */
    assert_int_equal(dv_loop_turn(l, 0), DV_OK);
    assert_int_equal(n_fired, 0);
    fake.mono_ns = 3000;
    assert_int_equal(dv_loop_turn(l, 0), DV_OK);
    assert_int_equal(n_fired, N_TIMERS - n_cancelled);
    for (size_t i = 1; i < n_fired; i++)
        assert_true(fired_at[i - 1] <= fired_at[i]);
    dv_loop_free(l);
}

/* ---- descriptors ---- */

struct pair {
    struct dv_loop *loop;
    struct dv_io a, b;
    int n_calls;
};
static struct pair pair;

static void first_removes_the_other(struct dv_io *io, uint32_t events)
{
    (void)events;
    pair.n_calls++;
    dv_io_del(pair.loop, io == &pair.a ? &pair.b : &pair.a);
}

static void a_watcher_removed_by_another_in_the_same_turn_is_not_called(void **state)
{
    (void)state;
    pair = (struct pair){.loop = new_loop(&dv_clock_system)};
    int p[2], q[2];
    assert_int_equal(pipe(p) | pipe(q), 0);
    assert_int_equal(write(p[1], "x", 1) + write(q[1], "x", 1), 2);
    pair.a.fn = pair.b.fn = first_removes_the_other;
    assert_int_equal(dv_io_add(pair.loop, &pair.a, p[0], EPOLLIN, NULL), DV_OK);
    assert_int_equal(dv_io_add(pair.loop, &pair.b, q[0], EPOLLIN, NULL), DV_OK);
    assert_int_equal(dv_loop_turn(pair.loop, 1000), DV_OK);
    assert_int_equal(pair.n_calls, 1);
    for (int i = 0; i < 2; i++) {
        close(p[i]);
        close(q[i]);
    }
    dv_loop_free(pair.loop);
}

/* ---- deferred work ---- */

static struct dv_loop *defer_loop;
static int n_deferred;

static void count_and_repeat_once(struct dv_defer *d)
{
    if (++n_deferred == 1)
        dv_loop_defer(defer_loop, d);
}

static void deferred_work_runs_once_per_request_at_the_end_of_the_turn(void **state)
{
    (void)state;
    defer_loop = new_loop(&dv_clock_system);
    struct dv_defer d = {.fn = count_and_repeat_once}, cancelled = {.fn = count_and_repeat_once};
    n_deferred = 0;
    dv_loop_defer(defer_loop, &d);
    dv_loop_defer(defer_loop, &d);
    dv_loop_defer(defer_loop, &cancelled);
    dv_defer_cancel(&cancelled);
    assert_int_equal(dv_loop_turn(defer_loop, 0), DV_OK);
    assert_int_equal(n_deferred, 2);
    dv_loop_free(defer_loop);
}

/* ---- mailbox ---- */

enum { N_SENDERS = 4, N_EACH = 2000 };
struct note {
    struct dv_msg msg;
    int sender, seq;
};
static int last_seq[N_SENDERS], n_received;
static struct dv_loop *rx_loop;
static struct dv_mailbox *rx;

static void receive(struct dv_msg *m)
{
    struct note *n = DV_CONTAINER_OF(m, struct note, msg);
    assert_int_equal(n->seq, last_seq[n->sender] + 1);
    last_seq[n->sender] = n->seq;
    dv_free(n);
    if (++n_received == N_SENDERS * N_EACH)
        dv_loop_stop(rx_loop);
}

static void *send_all(void *arg)
{
    int sender = *(int *)arg;
    for (int i = 1; i <= N_EACH; i++) {
        struct note *n = dv_alloc(sizeof(*n));
        *n = (struct note){.msg.fn = receive, .sender = sender, .seq = i};
        dv_mailbox_post(rx, &n->msg);
    }
    return NULL;
}

static void messages_of_one_sender_arrive_in_order_and_none_is_lost(void **state)
{
    (void)state;
    rx_loop = new_loop(&dv_clock_system);
    assert_int_equal(dv_mailbox_new(rx_loop, &rx, NULL), DV_OK);
    pthread_t threads[N_SENDERS];
    int ids[N_SENDERS];
    for (int i = 0; i < N_SENDERS; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &ids[i]), 0);
    }
    assert_int_equal(dv_loop_run(rx_loop), DV_OK);
    for (int i = 0; i < N_SENDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(last_seq[i], N_EACH);
    }
    dv_mailbox_free(rx);
    dv_loop_free(rx_loop);
}

static int n_calls_run;

static void run_it(void *arg)
{
    n_calls_run += *(int *)arg;
}

static void freeing_a_mailbox_runs_what_is_still_inside(void **state)
{
    (void)state;
    struct dv_loop *l = new_loop(&dv_clock_system);
    struct dv_mailbox *mb;
    int one = 1;
    n_calls_run = 0;
    assert_int_equal(dv_mailbox_new(l, &mb, NULL), DV_OK);
    assert_int_equal(dv_mailbox_call(mb, run_it, &one), DV_OK);
    assert_int_equal(dv_mailbox_call(mb, run_it, &one), DV_OK);
    dv_mailbox_free(mb);
    assert_int_equal(n_calls_run, 2);
    dv_loop_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            timers_fire_in_order_of_deadline_whatever_order_they_were_set_moved_and_cancelled_in),
        cmocka_unit_test(a_watcher_removed_by_another_in_the_same_turn_is_not_called),
        cmocka_unit_test(deferred_work_runs_once_per_request_at_the_end_of_the_turn),
        cmocka_unit_test(messages_of_one_sender_arrive_in_order_and_none_is_lost),
        cmocka_unit_test(freeing_a_mailbox_runs_what_is_still_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
