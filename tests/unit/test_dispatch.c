/* The dispatcher: slots, FIFO, bounds, and two loops that share replicas. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/gateway/dispatch.h"
#include "proto/base/alloc.h"

enum { LOOPS = 2, MS = 1000000 };

struct world {
    struct dv_live_fn *fn;
    struct dv_queue q[LOOPS];
    struct dv_live_replica *r[8];
    size_t n_r;
    int pokes[LOOPS];
    bool unreachable[LOOPS]; /* by that loop */
    uint64_t now;
};

static struct world *world_of;

static void on_poke(void *ctx, struct dv_live_fn *fn, uint32_t loop)
{
    (void)ctx;
    (void)fn;
    world_of->pokes[loop]++;
}

static void on_added(void *ctx, struct dv_slots *s)
{
    s->is_reachable = !world_of->unreachable[s->queue->loop];
    (void)ctx;
}

static void on_removed(void *ctx, struct dv_slots *s)
{
    (void)ctx;
    (void)s;
}

static const struct dv_queue_ops ops = {on_poke, on_added, on_removed};

static void setup(struct world *w, uint32_t max)
{
    *w = (struct world){.now = 1000 * (uint64_t)MS};
    world_of = w;
    assert_int_equal(dv_live_fn_new(7, "f", "default", LOOPS, NULL, &w->fn), DV_OK);
    for (uint32_t i = 0; i < LOOPS; i++)
        assert_int_equal(dv_queue_init(&w->q[i], w->fn, i, max, &ops, NULL), DV_OK);
}

static void replicas(struct world *w, size_t n, uint32_t concurrency)
{
    for (; w->n_r < n; w->n_r++)
        assert_int_equal(
            dv_live_replica_new(
                &(struct dv_route_replica){.id = 100 + w->n_r, .node = 1, .concurrency = concurrency},
                &w->r[w->n_r]),
            DV_OK);
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(dv_queue_set(&w->q[i], w->r, n), DV_OK);
}

static void teardown(struct world *w)
{
    for (int i = 0; i < LOOPS; i++)
        dv_queue_deinit(&w->q[i]);
    for (size_t i = 0; i < w->n_r; i++)
        dv_live_replica_unref(w->r[i]);
    dv_live_fn_unref(w->fn);
}

/* Admit and say which replica it got, 0 when it waits. */
static uint64_t admit(struct world *w, int loop, struct dv_waiter *wt, struct dv_slots **s)
{
    *wt = (struct dv_waiter){0};
    w->now++;
    int rc = dv_queue_admit(&w->q[loop], wt, w->now, s);
    assert_true(rc == DV_OK || rc == DV_AGAIN);
    return rc == DV_OK ? (*s)->live->id : 0;
}

static void waiting_requests_run_in_order_of_arrival(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b, c;
    struct dv_slots *s, *t;
    setup(&w, 10);
    assert_int_equal(admit(&w, 0, &a, &s), 0);
    assert_int_equal(admit(&w, 0, &b, &s), 0);
    assert_null(dv_queue_next(&w.q[0], w.now, &s));
    replicas(&w, 1, 1);
    assert_ptr_equal(dv_queue_next(&w.q[0], w.now, &s), &a);
    assert_null(dv_queue_next(&w.q[0], w.now, &t));
    assert_int_equal(admit(&w, 0, &c, &t), 0);
    dv_queue_leave(&w.q[0], s, w.now);
    assert_ptr_equal(dv_queue_next(&w.q[0], w.now, &s), &b);
    dv_queue_leave(&w.q[0], s, w.now);
    assert_ptr_equal(dv_queue_next(&w.q[0], w.now, &s), &c);
    dv_queue_leave(&w.q[0], s, w.now);
    assert_null(dv_queue_next(&w.q[0], w.now, &s));
    teardown(&w);
}

static void a_full_queue_refuses_and_the_bound_counts_all_loops(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b, c = {0};
    struct dv_slots *s;
    setup(&w, 2);
    assert_int_equal(admit(&w, 0, &a, &s), 0);
    assert_int_equal(admit(&w, 1, &b, &s), 0);
    assert_int_equal(dv_queue_admit(&w.q[0], &c, w.now, &s), DV_NO_CAPACITY);
    assert_false(c.is_waiting);
    dv_queue_drop(&w.q[1], &b);
    assert_int_equal(dv_queue_admit(&w.q[0], &c, w.now, &s), DV_AGAIN);
    dv_queue_drop(&w.q[0], &a);
    dv_queue_drop(&w.q[0], &c);
    assert_int_equal(atomic_load(&w.fn->n_waiting), 0);
    teardown(&w);
}

static void a_replica_never_holds_more_than_its_concurrency_over_all_loops(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter wt[8];
    struct dv_slots *s[8];
    setup(&w, 100);
    replicas(&w, 2, 3);
    int ran = 0;
    for (int i = 0; i < 8; i++)
        ran += admit(&w, i % 2, &wt[i], &s[i]) != 0;
    assert_int_equal(ran, 6);
    assert_int_equal(atomic_load(&w.r[0]->in_flight), 3);
    assert_int_equal(atomic_load(&w.r[1]->in_flight), 3);
    for (int i = 0; i < 6; i++)
        dv_queue_leave(&w.q[i % 2], s[i], w.now);
    for (int i = 0; i < 2; i++) {
        struct dv_slots *t;
        assert_ptr_equal(dv_queue_next(&w.q[i], w.now, &t), &wt[6 + i]);
        dv_queue_leave(&w.q[i], t, w.now);
    }
    assert_int_equal(atomic_load(&w.r[0]->in_flight) + atomic_load(&w.r[1]->in_flight), 0);
    teardown(&w);
}

static void the_replica_used_last_is_asked_first(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b, c;
    struct dv_slots *s, *t, *u;
    setup(&w, 10);
    replicas(&w, 3, 1);
    uint64_t first = admit(&w, 0, &a, &s), second = admit(&w, 0, &b, &t);
    assert_int_not_equal(first, second);
    dv_queue_leave(&w.q[0], s, w.now);
    dv_queue_leave(&w.q[0], t, w.now);
    for (int i = 0; i < 5; i++) { /* one after the other: always the same one, the others stay idle */
        assert_int_equal(admit(&w, 0, &c, &u), second);
        dv_queue_leave(&w.q[0], u, w.now);
    }
    teardown(&w);
}

static void a_frozen_replica_is_asked_when_no_other_has_a_slot(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b, c;
    struct dv_slots *sa, *sb, *sc;
    setup(&w, 10);
    replicas(&w, 2, 1);
    atomic_store(&w.r[0]->is_frozen, true);
    uint64_t first = admit(&w, 0, &a, &sa);
    assert_int_equal(first, 101);
    assert_int_equal(admit(&w, 0, &b, &sb), 100);
    assert_int_equal(admit(&w, 0, &c, &sc), 0);
    dv_queue_drop(&w.q[0], &c);
    dv_queue_leave(&w.q[0], sb, w.now); /* used last, and frozen since */
    dv_queue_leave(&w.q[0], sa, w.now);
    assert_int_equal(admit(&w, 0, &a, &sa), 101);
    dv_queue_leave(&w.q[0], sa, w.now);
    teardown(&w);
}

static void a_slot_left_by_one_loop_wakes_the_loop_that_waits(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b;
    struct dv_slots *s, *t;
    setup(&w, 10);
    replicas(&w, 1, 1);
    assert_int_not_equal(admit(&w, 0, &a, &s), 0);
    assert_int_equal(admit(&w, 1, &b, &t), 0);
    assert_int_equal(w.pokes[1], 0);
    dv_queue_leave(&w.q[0], s, w.now);
    assert_int_equal(w.pokes[1], 1);
    assert_ptr_equal(dv_queue_next(&w.q[1], w.now, &t), &b);
    dv_queue_leave(&w.q[1], t, w.now);
    teardown(&w);
}

static void a_newcomer_does_not_overtake_the_older_request_of_another_loop(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b, c;
    struct dv_slots *s, *t, *u;
    setup(&w, 10);
    replicas(&w, 1, 1);
    assert_int_not_equal(admit(&w, 0, &a, &s), 0);
    assert_int_equal(admit(&w, 1, &b, &t), 0);
    dv_queue_leave(&w.q[0], s, w.now);
    assert_int_equal(admit(&w, 0, &c, &u), 0); /* the slot is free, but it is b's */
    assert_ptr_equal(dv_queue_next(&w.q[1], w.now, &t), &b);
    dv_queue_leave(&w.q[1], t, w.now);
    assert_int_equal(w.pokes[0], 1);
    assert_ptr_equal(dv_queue_next(&w.q[0], w.now, &u), &c);
    dv_queue_leave(&w.q[0], u, w.now);
    teardown(&w);
}

static void a_loop_that_cannot_use_its_turn_holds_up_nobody(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter b, c;
    struct dv_slots *u;
    setup(&w, 10);
    w.unreachable[1] = true;
    assert_int_equal(admit(&w, 1, &b, &u), 0);
    assert_int_equal(admit(&w, 0, &c, &u), 0);
    replicas(&w, 1, 1);
    assert_null(dv_queue_next(&w.q[1], w.now, &u));
    assert_null(dv_queue_next(&w.q[0], w.now, &u)); /* leaves it to loop 1 */
    assert_true(w.q[0].retry_at_ns > w.now);
    assert_ptr_equal(dv_queue_next(&w.q[0], w.q[0].retry_at_ns, &u), &c);
    dv_queue_leave(&w.q[0], u, w.now);
    dv_queue_drop(&w.q[1], &b);
    teardown(&w);
}

static void a_request_sent_back_keeps_its_place(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b;
    struct dv_slots *s, *t;
    setup(&w, 1);
    replicas(&w, 1, 1);
    assert_int_not_equal(admit(&w, 0, &a, &s), 0);
    assert_int_equal(admit(&w, 0, &b, &t), 0);
    dv_queue_refused(&w.q[0], s, w.now);
    dv_queue_leave(&w.q[0], s, w.now);
    dv_queue_put_back(&w.q[0], &a); /* beyond the bound, and before b */
    assert_ptr_equal(dv_queue_first(&w.q[0]), &a);
    assert_null(dv_queue_next(&w.q[0], w.now, &s)); /* the replica that refused is left alone for a while */
    uint64_t later = w.q[0].retry_at_ns;
    assert_true(later > w.now);
    assert_ptr_equal(dv_queue_next(&w.q[0], later, &s), &a);
    dv_queue_leave(&w.q[0], s, later);
    dv_queue_drop(&w.q[0], &b);
    teardown(&w);
}

static void a_waiting_request_that_leaves_makes_room_at_once(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b;
    struct dv_slots *s;
    struct dv_load load;
    setup(&w, 1);
    assert_int_equal(admit(&w, 0, &a, &s), 0);
    dv_live_load(w.fn, w.now + 5 * MS, &load);
    assert_int_equal(load.waiting, 1);
    assert_int_equal(load.oldest_wait_ns, 5 * MS);
    dv_queue_drop(&w.q[0], &a);
    dv_queue_drop(&w.q[0], &a); /* twice is harmless */
    dv_live_load(w.fn, w.now, &load);
    assert_int_equal(load.waiting, 0);
    assert_int_equal(load.oldest_wait_ns, 0);
    assert_int_equal(admit(&w, 0, &b, &s), 0);
    dv_queue_drop(&w.q[0], &b);
    teardown(&w);
}

static void a_replica_that_left_the_set_takes_nobody_new_and_goes_with_its_last(void **state)
{
    (void)state;
    struct world w;
    struct dv_waiter a, b;
    struct dv_slots *s, *t;
    setup(&w, 10);
    replicas(&w, 1, 2);
    assert_int_not_equal(admit(&w, 0, &a, &s), 0);
    assert_int_equal(dv_queue_set(&w.q[0], NULL, 0), DV_OK);
    assert_int_equal(w.q[0].n_replicas, 1);
    assert_int_equal(admit(&w, 0, &b, &t), 0);
    dv_queue_leave(&w.q[0], s, w.now);
    assert_int_equal(w.q[0].n_replicas, 0);
    dv_queue_drop(&w.q[0], &b);
    teardown(&w);
}

static void a_set_without_memory_leaves_the_old_one(void **state)
{
    (void)state;
    struct world w;
    setup(&w, 10);
    replicas(&w, 1, 1);
    struct dv_live_replica *two[2] = {w.r[0], NULL};
    assert_int_equal(dv_live_replica_new(&(struct dv_route_replica){.id = 9, .concurrency = 1}, &two[1]),
                     DV_OK);
    dv_alloc_fail_at(1);
    assert_int_equal(dv_queue_set(&w.q[0], two, 2), DV_E_NOMEM);
    dv_alloc_fail_at(0);
    assert_int_equal(w.q[0].n_replicas, 1);
    struct dv_waiter a;
    struct dv_slots *s;
    assert_int_equal(admit(&w, 0, &a, &s), 100);
    dv_queue_leave(&w.q[0], s, w.now);
    dv_live_replica_unref(two[1]);
    teardown(&w);
}

static void load_adds_up_in_flight_over_time(void **state)
{
    (void)state;
    struct world w;
    struct dv_load load;
    setup(&w, 10);
    uint64_t t = w.now;
    dv_live_flight(dv_live_cell(w.fn, 0), 1, t);
    dv_live_flight(dv_live_cell(w.fn, 1), 1, t);
    dv_live_flight(dv_live_cell(w.fn, 0), -1, t + 500 * (uint64_t)MS);
    dv_live_load(w.fn, t + 1000 * (uint64_t)MS, &load);
    assert_int_equal(load.in_flight, 1);
    assert_true(load.in_flight_time > 1.499 && load.in_flight_time < 1.501);
    teardown(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_requests_run_in_order_of_arrival),
        cmocka_unit_test(a_full_queue_refuses_and_the_bound_counts_all_loops),
        cmocka_unit_test(a_replica_never_holds_more_than_its_concurrency_over_all_loops),
        cmocka_unit_test(the_replica_used_last_is_asked_first),
        cmocka_unit_test(a_frozen_replica_is_asked_when_no_other_has_a_slot),
        cmocka_unit_test(a_slot_left_by_one_loop_wakes_the_loop_that_waits),
        cmocka_unit_test(a_newcomer_does_not_overtake_the_older_request_of_another_loop),
        cmocka_unit_test(a_loop_that_cannot_use_its_turn_holds_up_nobody),
        cmocka_unit_test(a_request_sent_back_keeps_its_place),
        cmocka_unit_test(a_waiting_request_that_leaves_makes_room_at_once),
        cmocka_unit_test(a_replica_that_left_the_set_takes_nobody_new_and_goes_with_its_last),
        cmocka_unit_test(a_set_without_memory_leaves_the_old_one),
        cmocka_unit_test(load_adds_up_in_flight_over_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
