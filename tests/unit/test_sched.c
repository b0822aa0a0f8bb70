#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/sched.h"
#include "proto/base/auto.h"
#include "proto/base/err.h"
#include "proto/base/rng.h"

#define MI (1024 * 1024ll)

static struct dv_node_view a_node(uint64_t id)
{
    return (struct dv_node_view){
        .id = id, .is_ready = true, .cpu_mcpu = 2000, .memory_bytes = 1024 * MI, .max_replicas = 100};
}

static const struct dv_need small = {.cpu_mcpu = 50, .memory_bytes = 64 * MI};

static uint64_t placed_on(const struct dv_need *need, const struct dv_node_view *v, size_t n,
                          enum dv_spread how)
{
    size_t at = 0;
    return dv_sched_place(need, v, n, how, &at) == DV_OK ? v[at].id : 0;
}

static void a_node_is_passed_over_for_the_first_reason_that_holds(void **state)
{
    (void)state;
    struct dv_node_view v = a_node(1);
    assert_int_equal(dv_sched_fit(&small, &v), DV_FITS);
    v.n_replicas = 100;
    assert_int_equal(dv_sched_fit(&small, &v), DV_MISFIT_REPLICAS);
    v = a_node(1);
    v.promised_bytes = 1000 * MI;
    assert_int_equal(dv_sched_fit(&small, &v), DV_MISFIT_MEMORY);
    v = a_node(1);
    v.promised_mcpu = 1951;
    assert_int_equal(dv_sched_fit(&small, &v), DV_MISFIT_CPU);
    v.is_ready = false;
    assert_int_equal(dv_sched_fit(&small, &v), DV_MISFIT_NOT_READY);
}

static void constraints_compare_labels(void **state)
{
    (void)state;
    struct dv_kv kv[] = {{(char *)"zone", (char *)"a"}};
    struct dv_kvs labels = {kv, 1};
    struct dv_node_view v = a_node(1);
    v.labels = &labels;
    static const struct {
        const char *text;
        bool fits;
    } cases[] = {{"zone=a", true},   {"zone==a", true},   {"zone=b", false},   {"zone!=b", true},
                 {"zone!=a", false}, {"disk=ssd", false}, {"disk!=ssd", true}, {"zone", false},
                 {"zone = a", true}, {"zon=a", false}};
    for (size_t i = 0; i < DV_COUNT(cases); i++) {
        char *text = (char *)cases[i].text;
        struct dv_strs constraints = {&text, 1};
        struct dv_need need = {.constraints = &constraints};
        if ((dv_sched_fit(&need, &v) == DV_FITS) != cases[i].fits)
            fail_msg("%s", cases[i].text);
    }
}

static void every_node_has_its_architecture_system_and_name(void **state)
{
    (void)state;
    struct dv_kv kv[] = {{(char *)"zone", (char *)"a"}};
    struct dv_kvs labels = {kv, 1};
    struct dv_node_view v = a_node(1);
    v.name = "rack-1";
    v.arch = "amd64";
    v.labels = &labels;
    static const struct {
        const char *text;
        bool fits;
    } cases[] = {{"kubernetes.io/arch=amd64", true},       {"beta.kubernetes.io/arch = amd64", true},
                 {"kubernetes.io/arch=arm64", false},      {"kubernetes.io/arch!=arm64", true},
                 {"kubernetes.io/os=linux", true},         {"node.platform.os == linux", true},
                 {"node.platform.os == windows", false},   {"node.hostname == rack-1 ", true},
                 {"kubernetes.io/hostname=rack-2", false}, {"node.labels.zone == a", true},
                 {"node.labels.zone != a", false}};
    for (size_t i = 0; i < DV_COUNT(cases); i++) {
        char *text = (char *)cases[i].text;
        struct dv_strs constraints = {&text, 1};
        struct dv_need need = {.constraints = &constraints};
        if ((dv_sched_fit(&need, &v) == DV_FITS) != cases[i].fits)
            fail_msg("%s", cases[i].text);
    }
    kv[0] = (struct dv_kv){(char *)"kubernetes.io/arch", (char *)"mine"}; /* a label of the operator's wins */
    char *text = (char *)"kubernetes.io/arch=mine";
    struct dv_strs constraints = {&text, 1};
    struct dv_need need = {.constraints = &constraints};
    assert_int_equal(dv_sched_fit(&need, &v), DV_FITS);
}

static void primed_beats_image_beats_spread_beats_load_beats_id(void **state)
{
    (void)state;
    struct dv_node_view v[3] = {a_node(1), a_node(2), a_node(3)};
    assert_int_equal(placed_on(&small, v, 3, DV_SPREAD), 1);
    v[0].promised_mcpu = 500;
    assert_int_equal(placed_on(&small, v, 3, DV_SPREAD), 2);
    assert_int_equal(placed_on(&small, v, 3, DV_PACK), 1);
    v[1].n_of_function = v[2].n_of_function = 1;
    assert_int_equal(placed_on(&small, v, 3, DV_SPREAD), 1);
    v[2].has_image = true;
    assert_int_equal(placed_on(&small, v, 3, DV_SPREAD), 3);
    v[1].n_primed = 1;
    assert_int_equal(placed_on(&small, v, 3, DV_SPREAD), 2);
}

static void nothing_is_placed_where_nothing_fits(void **state)
{
    (void)state;
    struct dv_node_view v = a_node(1);
    struct dv_need big = {.memory_bytes = 4096 * MI};
    size_t at = 77;
    assert_int_equal(dv_sched_place(&big, &v, 1, DV_SPREAD, &at), DV_NO_CAPACITY);
    assert_int_equal(at, 77);
    assert_int_equal(dv_sched_place(&small, NULL, 0, DV_SPREAD, &at), DV_NO_CAPACITY);
}

static void the_explanation_names_what_is_missing(void **state)
{
    (void)state;
    struct dv_node_view v[3] = {a_node(1), a_node(2), a_node(3)};
    v[0].is_ready = v[1].is_ready = false;
    v[2].promised_bytes = 960 * MI;
    struct dv_need need = {.cpu_mcpu = 50, .memory_bytes = 128 * MI};
    char text[256];
    dv_sched_explain(&need, v, 3, text, sizeof(text));
    assert_string_equal(text, "no node fits: 2 not ready, 1 without memory (needs 128Mi, most free 64Mi)");
    dv_sched_explain(&need, v, 0, text, sizeof(text));
    assert_string_equal(text, "no node has joined");
    char tight[12];
    dv_sched_explain(&need, v, 3, tight, sizeof(tight));
    assert_string_equal(tight, "no node fit");
}

static void random_views(struct dv_rng *r, struct dv_node_view *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = a_node(i + 1);
        v[i].is_ready = dv_rng_below(r, 4) > 0;
        v[i].has_image = dv_rng_below(r, 2);
        v[i].n_of_function = (int64_t)dv_rng_below(r, 3);
        v[i].promised_mcpu = (int64_t)dv_rng_below(r, 41) * 50;
        v[i].promised_bytes = (int64_t)dv_rng_below(r, 17) * 64 * MI;
        v[i].n_primed = dv_rng_below(r, 8) == 0;
    }
}

static void the_order_of_the_nodes_does_not_matter(void **state)
{
    (void)state;
    enum { N = 12 };
    struct dv_rng r;
    dv_rng_init(&r, 11);
    for (int round = 0; round < 2000; round++) {
        struct dv_node_view v[N], w[N];
        random_views(&r, v, N);
        memcpy(w, v, sizeof(w));
        for (size_t i = N - 1; i > 0; i--) {
            size_t k = dv_rng_below(&r, i + 1);
            struct dv_node_view t = w[i];
            w[i] = w[k];
            w[k] = t;
        }
        enum dv_spread how = round % 2 ? DV_PACK : DV_SPREAD;
        assert_int_equal(placed_on(&small, v, N, how), placed_on(&small, w, N, how));
    }
}

static void filling_a_cluster_never_passes_its_capacity_and_room_says_how_many_go_in(void **state)
{
    (void)state;
    enum { N = 7 };
    struct dv_rng r;
    dv_rng_init(&r, 5);
    for (int round = 0; round < 50; round++) {
        struct dv_node_view v[N];
        random_views(&r, v, N);
        int64_t room = dv_sched_room(&small, v, N, 100000), placed = 0;
        size_t at;
        while (dv_sched_place(&small, v, N, DV_SPREAD, &at) == DV_OK) {
            v[at].promised_mcpu += small.cpu_mcpu;
            v[at].promised_bytes += small.memory_bytes;
            v[at].n_replicas++;
            placed++;
            assert_true(v[at].promised_mcpu <= v[at].cpu_mcpu && v[at].promised_bytes <= v[at].memory_bytes);
        }
        assert_int_equal(placed, room);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_is_passed_over_for_the_first_reason_that_holds),
        cmocka_unit_test(constraints_compare_labels),
        cmocka_unit_test(every_node_has_its_architecture_system_and_name),
        cmocka_unit_test(primed_beats_image_beats_spread_beats_load_beats_id),
        cmocka_unit_test(nothing_is_placed_where_nothing_fits),
        cmocka_unit_test(the_explanation_names_what_is_missing),
        cmocka_unit_test(the_order_of_the_nodes_does_not_matter),
        cmocka_unit_test(filling_a_cluster_never_passes_its_capacity_and_room_says_how_many_go_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
