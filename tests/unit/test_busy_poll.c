#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "proto/rt/busy_poll.h"
#include "proto/rt/loop.h"

enum { WINDOW_NS = 100000, SHORT_NS = 50000, LONG_NS = 50000000 };

static struct dv_busy_poll after(int n_short)
{
    struct dv_busy_poll p = {.window_ns = WINDOW_NS};
    for (int i = 0; i < n_short; i++)
        dv_busy_poll_slept(&p, SHORT_NS);
    return p;
}

static void looking_begins_when_short_waits_have_become_the_rule_and_not_before(void **state)
{
    (void)state;
    struct dv_busy_poll p = after(DV_BUSY_POLL_ENOUGH - 1);
    assert_false(dv_busy_poll_pays(&p));
    dv_busy_poll_slept(&p, SHORT_NS);
    assert_true(dv_busy_poll_pays(&p));
}

static void an_idle_loop_stops_looking_after_a_few_long_sleeps_however_busy_it_was(void **state)
{
    (void)state;
    struct dv_busy_poll p = after(100000);
    int looks = 0;
    while (dv_busy_poll_pays(&p)) {
        dv_busy_poll_looked(&p, true);
        dv_busy_poll_slept(&p, LONG_NS);
        looks++;
    }
    assert_in_range(looks, 1, DV_BUSY_POLL_MAX);
}

static void waits_just_past_the_window_are_looked_for_in_vain_less_than_every_other_time(void **state)
{
    (void)state;
    struct dv_busy_poll p = after(100);
    int vain = 0;
    for (int i = 0; i < 1000; i++) {
        if (dv_busy_poll_pays(&p)) {
            dv_busy_poll_looked(&p, true);
            vain++;
        }
        dv_busy_poll_slept(&p, WINDOW_NS + 1);
    }
    assert_in_range(vain, 1, 510);
}

static void where_others_compute_it_takes_hundreds_of_short_waits_to_look_again(void **state)
{
    (void)state;
    struct dv_busy_poll p = after(100);
    dv_busy_poll_crowded(&p);
    dv_busy_poll_slept(&p, LONG_NS); /* a long one neither helps nor makes it worse */
    int waits = 0;
    for (; !dv_busy_poll_pays(&p); waits++)
        dv_busy_poll_slept(&p, SHORT_NS);
    assert_int_equal(waits, DV_BUSY_POLL_ENOUGH - DV_BUSY_POLL_CROWDED);
}

static void a_window_of_zero_never_looks(void **state)
{
    (void)state;
    struct dv_busy_poll p = {.window_ns = 0};
    for (int i = 0; i < 1000; i++)
        dv_busy_poll_slept(&p, 0);
    assert_false(dv_busy_poll_pays(&p));
}

/* ---- in a loop: two of them throw a ball to and fro ---- */

enum { THROWS = 2000 };

struct player {
    struct dv_loop *loop;
    struct dv_io io;
    int to_fd, left;
};

static void on_ball(struct dv_io *io, uint32_t events)
{
    (void)events;
    struct player *p = DV_CONTAINER_OF(io, struct player, io);
    uint64_t ball;
    assert_int_equal(read(io->fd, &ball, sizeof(ball)), sizeof(ball));
    if (write(p->to_fd, &ball, sizeof(ball)) != sizeof(ball) || --p->left == 0)
        dv_loop_stop(p->loop);
}

static void *play(void *arg)
{
    struct player *p = arg;
    return dv_loop_run(p->loop) ? p : NULL;
}

static void loops_that_look_lose_nothing(void **state)
{
    (void)state;
    int fds[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
    struct player players[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        players[i] = (struct player){.io = {.fd = -1, .fn = on_ball}, .to_fd = fds[1 - i], .left = THROWS};
        assert_int_equal(dv_loop_new(&dv_clock_system, &players[i].loop, NULL), 0);
        dv_loop_busy_poll(players[i].loop, WINDOW_NS);
        assert_int_equal(dv_io_add(players[i].loop, &players[i].io, fds[i], EPOLLIN, NULL), 0);
    }
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    uint64_t ball = 1;
    assert_int_equal(write(fds[0], &ball, sizeof(ball)), sizeof(ball));
    for (int i = 0; i < 2; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    for (int i = 0; i < 2; i++) { /* each throws to the other's descriptor until both are done */
        assert_int_equal(players[i].left, 0);
        dv_io_del(players[i].loop, &players[i].io);
        dv_loop_free(players[i].loop);
        (void)close(fds[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(looking_begins_when_short_waits_have_become_the_rule_and_not_before),
        cmocka_unit_test(an_idle_loop_stops_looking_after_a_few_long_sleeps_however_busy_it_was),
        cmocka_unit_test(waits_just_past_the_window_are_looked_for_in_vain_less_than_every_other_time),
        cmocka_unit_test(where_others_compute_it_takes_hundreds_of_short_waits_to_look_again),
        cmocka_unit_test(a_window_of_zero_never_looks),
        cmocka_unit_test(loops_that_look_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
