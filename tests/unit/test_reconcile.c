/* Reconciling as tables: what the agent knows, what the engine shows, what is to be done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/core/reconcile.h"
#include "proto/base/rng.h"

#include <string.h>

enum { MAX = 4 };

struct row {
    const char *name;
    struct dv_rc_replica replicas[MAX];
    struct dv_rc_container containers[MAX];
    struct dv_rc_action expected[2 * MAX];
    size_t n_expected;
};

static const struct row rows[] = {
    {"nothing known, nothing there: nothing to do", {{0}}, {{0}}, {{0}}, 0},
    {"a watched replica whose container runs is left alone",
     {{.id = 1, .container = "a", .is_attached = true}},
     {{"a", 1, true}},
     {{0}},
     0},
    {"after a restart of the agent a running container is adopted",
     {{.id = 1}},
     {{"a", 1, true}},
     {{DV_RC_ADOPT, 1, "a"}},
     1},
    {"a known replica whose container has stopped has exited",
     {{.id = 1, .container = "a", .is_attached = true}},
     {{"a", 1, false}},
     {{DV_RC_EXITED, 1, "a"}},
     1},
    {"a replica whose container somebody removed is lost",
     {{.id = 1, .container = "a", .is_attached = true}},
     {{0}},
     {{DV_RC_LOST, 1, NULL}},
     1},
    {"a container of an unknown replica is removed, running or not",
     {{0}},
     {{"a", 7, true}, {"b", 8, false}},
     {{DV_RC_REMOVE, 0, "a"}, {DV_RC_REMOVE, 0, "b"}},
     2},
    {"a container without a readable label is removed", {{0}}, {{"a", 0, true}}, {{DV_RC_REMOVE, 0, "a"}}, 1},
    {"a replica that is being made or unmade is left alone",
     {{.id = 1, .is_busy = true}, {.id = 2, .container = "b", .is_busy = true}},
     {{"a", 1, false}},
     {{0}},
     0},
    {"of two containers the known one stays",
     {{.id = 1, .container = "b", .is_attached = true}},
     {{"a", 1, true}, {"b", 1, true}},
     {{DV_RC_REMOVE, 0, "a"}},
     1},
    {"of two unknown containers the running one is adopted",
     {{.id = 1}},
     {{"a", 1, false}, {"b", 1, true}},
     {{DV_RC_REMOVE, 0, "a"}, {DV_RC_ADOPT, 1, "b"}},
     2},
    {"another container is no stand-in for the known one",
     {{.id = 1, .container = "x", .is_attached = true}},
     {{"a", 1, true}},
     {{DV_RC_REMOVE, 0, "a"}, {DV_RC_LOST, 1, NULL}},
     2},
    {"what is left of an ended replica is removed",
     {{.id = 1, .container = "a", .is_ended = true}},
     {{"a", 1, false}},
     {{DV_RC_REMOVE, 0, "a"}},
     1},
};

static size_t count_replicas(const struct row *r)
{
    size_t n = 0;
    while (n < MAX && r->replicas[n].id)
        n++;
    return n;
}

static size_t count_containers(const struct row *r)
{
    size_t n = 0;
    while (n < MAX && r->containers[n].id)
        n++;
    return n;
}

static void containers_are_compared_as_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        struct dv_rc_action got[2 * MAX];
        size_t n = dv_rc_containers(r->replicas, count_replicas(r), r->containers, count_containers(r), got);
        if (n != r->n_expected)
            print_message("%s\n", r->name);
        assert_int_equal(n, r->n_expected);
        for (size_t k = 0; k < n; k++) {
            bool same = got[k].kind == r->expected[k].kind && got[k].replica == r->expected[k].replica &&
                        (got[k].container == NULL) == (r->expected[k].container == NULL) &&
                        (!got[k].container || !strcmp(got[k].container, r->expected[k].container));
            if (!same)
                print_message("%s: action %zu\n", r->name, k);
            assert_true(same);
        }
    }
}

static void what_is_not_listed_is_stopped_unless_it_is_young_or_stopping(void **state)
{
    (void)state;
    const struct dv_rc_replica replicas[] = {{.id = 1, .started_ms = 1000},
                                             {.id = 2, .started_ms = 1000},
                                             {.id = 3, .started_ms = 8500},
                                             {.id = 4, .started_ms = 1000, .is_stopping = true},
                                             {.id = 5, .started_ms = 1000, .is_ended = true}};
    const uint64_t wanted[] = {2, 99};
    struct dv_rc_action got[5];
    assert_int_equal(dv_rc_sync(replicas, 5, wanted, 2, 10000, got), 2);
    assert_int_equal(got[0].replica, 1);
    assert_int_equal(got[0].kind, DV_RC_STOP);
    assert_int_equal(got[1].replica,
                     5); /* failed ones are kept for the report only while somebody wants them */
    assert_int_equal(dv_rc_sync(replicas, 5, wanted, 2, 10500, got), 3);
}

/* Carry the actions out on a toy engine, compare again: nothing may be left to do. */
static void carrying_the_actions_out_leaves_nothing_to_do(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct dv_rng rng;
    dv_rng_init(&rng, 11);
    for (int round = 0; round < 20000; round++) {
        struct dv_rc_replica r[4];
        struct dv_rc_container c[8];
        struct dv_rc_action acts[12];
        size_t n = dv_rng_below(&rng, 5), m = dv_rng_below(&rng, 9), n_acts;
        for (size_t i = 0; i < n; i++) {
            bool known = dv_rng_below(&rng, 2);
            r[i] = (struct dv_rc_replica){.id = i + 1,
                                          .container = known ? names[dv_rng_below(&rng, 8)] : NULL,
                                          .is_attached = known && dv_rng_below(&rng, 2),
                                          .is_ended = !dv_rng_below(&rng, 5)};
        }
        for (size_t i = 0; i < m; i++)
            c[i] = (struct dv_rc_container){names[i], dv_rng_below(&rng, 6), dv_rng_below(&rng, 2)};
        n_acts = dv_rc_containers(r, n, c, m, acts);
        for (size_t k = 0; k < n_acts; k++) {
            struct dv_rc_replica *own = acts[k].replica ? &r[acts[k].replica - 1] : NULL;
            if (acts[k].kind == DV_RC_ADOPT) {
                own->container = acts[k].container;
                own->is_attached = true;
            } else if (own) {
                own->is_ended = true;
            }
            bool gone = acts[k].kind == DV_RC_REMOVE || acts[k].kind == DV_RC_EXITED;
            for (size_t i = 0; gone && i < m; i++)
                if (!strcmp(c[i].id, acts[k].container))
                    c[i--] = c[--m];
        }
        assert_int_equal(dv_rc_containers(r, n, c, m, acts), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(containers_are_compared_as_the_table_says),
        cmocka_unit_test(what_is_not_listed_is_stopped_unless_it_is_young_or_stopping),
        cmocka_unit_test(carrying_the_actions_out_leaves_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
