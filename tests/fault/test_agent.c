/* The agent's start-up with every allocation failing in turn: an honest DV_E_NOMEM, nothing left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/carry/carry.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"

/* Run `attempt` with the n-th allocation failing, n = 1, 2, ..., until none of its allocations was the n-th.
 */
static void each_allocation(int (*attempt)(void *ctx), void *ctx, uint64_t at_least)
{
    for (uint64_t n = 1;; n++) {
        dv_alloc_fail_at(n);
        int rc = attempt(ctx);
        dv_alloc_fail_at(0);
        if (rc == DV_OK) {
            assert_true(n > at_least);
            return;
        }
        assert_int_equal(rc, DV_E_NOMEM);
        assert_true(n < 1000);
    }
}

struct world {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_carry *carry;
};

static int start_carry(void *ctx)
{
    struct world *w = ctx;
    struct dv_carry_cfg cfg = {.clock = &dv_clock_system, .n_loops = 2, .state = w->mailbox};
    return dv_carry_start(&cfg, &w->carry, NULL);
}

static int put_replica(void *ctx)
{
    struct world *w = ctx;
    struct dv_carry_replica r = {.id = 5, .address = "127.0.0.1:9", .concurrency = 1};
    int rc = dv_carry_replica_put(w->carry, &r);
    if (rc) {
        uint64_t n, served;
        assert_int_equal(dv_carry_load(w->carry, 5, &n, &served), DV_NOT_FOUND);
    }
    return rc;
}

static void a_carry_and_its_replicas_are_made_whole_or_not_at_all(void **state)
{
    (void)state;
    struct world w = {0};
    assert_int_equal(dv_loop_new(&dv_clock_system, &w.loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(w.loop, &w.mailbox, NULL), DV_OK);
    each_allocation(start_carry, &w, 5);
    each_allocation(put_replica, &w, 1);
    dv_carry_replica_remove(w.carry, 5, DV_RESET_EXITED);
    dv_carry_free(w.carry);
    dv_mailbox_free(w.mailbox);
    dv_loop_free(w.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_carry_and_its_replicas_are_made_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
