/* Many small worlds, each from a seed.  A seed that once failed stands in the list by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/sim/chaos.h"

static void whatever_goes_wrong_the_invariants_hold_and_all_settles(void **state)
{
    (void)state;
    const char *first = getenv("DAVIT_SIM_SEED"), *many = getenv("DAVIT_SIM_SEEDS");
    uint64_t from = 1, n = 60;
    if (first && !dv_parse_u64(dv_sv_c(first), &from))
        fail_msg("DAVIT_SIM_SEED is no number");
    if (many && !dv_parse_u64(dv_sv_c(many), &n))
        fail_msg("DAVIT_SIM_SEEDS is no number");
    struct sim_chaos_result r, sum = {0};
    for (uint64_t seed = from; seed < from + n; seed++) {
        sim_chaos(seed, 120, false, &r); /* aborts with the seed and what happened */
        sum.steps += r.steps;
        sum.requests += r.requests;
        sum.lost += r.lost;
        sum.starts += r.starts;
    }
    print_message("%llu worlds, %llu steps, %llu requests (%llu lost), %llu starts\n", (unsigned long long)n,
                  (unsigned long long)sum.steps, (unsigned long long)sum.requests,
                  (unsigned long long)sum.lost, (unsigned long long)sum.starts);
    if (n >= 60) { /* the worlds are worth it */
        assert_true(sum.starts > 1000);
        assert_true(sum.lost > 100);
    }
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    struct sim_chaos_result a, b;
    sim_chaos(4711, 60, false, &a);
    sim_chaos(4711, 60, false, &b);
    assert_true(a.steps == b.steps && a.requests == b.requests && a.starts == b.starts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_goes_wrong_the_invariants_hold_and_all_settles),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
