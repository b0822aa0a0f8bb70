/* The index answers as the plain search does: the same choice up to DV_SCHED_EXACT nodes, a choice that fits
 * beyond.  Clusters, needs and changes are drawn from a seed, which is printed when an answer differs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "orchestrator/core/sched_index.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/base/rng.h"

#define GI (1ll << 30)
#define MI (1ll << 20)

enum { MAX = 3000, IMAGES = 5, ZONES = 4 };

struct town {
    struct dv_rng rng;
    uint64_t seed;
    struct dv_sched_index ix;
    struct dv_haves images, pools;
    struct dv_node_view views[MAX];
    struct dv_have_list has[MAX], primed[MAX];
    struct dv_kv labels[MAX];
    struct dv_kvs label_lists[MAX];
    size_t n;
    uint64_t next_id;
};

static char *const zones[ZONES] = {(char *)"a", (char *)"b", (char *)"c", (char *)"rare"};
static char *const images[IMAGES] = {(char *)"everywhere", (char *)"often", (char *)"half", (char *)"seldom",
                                     (char *)"nowhere"};
static const unsigned percents[IMAGES] = {100, 80, 50, 2, 0};

static uint64_t below(struct town *t, uint64_t n)
{
    return dv_rng_below(&t->rng, n);
}

static void label(struct town *t, size_t i)
{
    uint64_t z = below(t, 100);
    t->labels[i] = (struct dv_kv){(char *)"zone", zones[z < 2 ? 3 : z % 3]};
    t->label_lists[i] = (struct dv_kvs){&t->labels[i], 1};
    t->views[i].labels = &t->label_lists[i];
    dv_sched_index_relabel(&t->ix, t->views, i);
}

static void give_images(struct town *t, size_t i)
{
    char *names[IMAGES];
    size_t n = 0;
    for (size_t k = 0; k < IMAGES; k++)
        if (below(t, 100) < percents[k])
            names[n++] = images[k];
    assert_int_equal(dv_haves_put(&t->images, (uint32_t)i, &t->has[i], names, n), DV_OK);
    char *pool = (char *)"pool";
    assert_int_equal(dv_haves_put(&t->pools, (uint32_t)i, &t->primed[i], &pool, below(t, 30) == 0), DV_OK);
}

static void add_node(struct town *t)
{
    size_t i = t->n++;
    assert_int_equal(dv_sched_index_resize(&t->ix, t->n), DV_OK);
    t->views[i] = (struct dv_node_view){.id = t->next_id++ * 7919 % 1000003,
                                        .is_ready = below(t, 10) > 0,
                                        .name = "n",
                                        .cpu_mcpu = (int64_t)(1 + below(t, 16)) * 1000,
                                        .memory_bytes = (int64_t)(1 + below(t, 32)) * GI,
                                        .max_replicas = 1 + (int64_t)below(t, 40)};
    give_images(t, i);
    label(t, i);
    dv_sched_index_update(&t->ix, t->views, i);
}

static void remove_node(struct town *t, size_t i)
{
    size_t last = --t->n;
    dv_haves_clear(&t->images, (uint32_t)i, &t->has[i]);
    dv_haves_clear(&t->pools, (uint32_t)i, &t->primed[i]);
    if (i != last) {
        dv_haves_renumber(&t->has[last], (uint32_t)last, (uint32_t)i);
        dv_haves_renumber(&t->primed[last], (uint32_t)last, (uint32_t)i);
        t->has[i] = t->has[last];
        t->primed[i] = t->primed[last];
        t->has[last] = t->primed[last] = (struct dv_have_list){0};
        t->views[i] = t->views[last];
        t->labels[i] = t->labels[last];
        t->views[i].labels = &t->label_lists[i];
        dv_sched_index_update(&t->ix, t->views, i);
        dv_sched_index_relabel(&t->ix, t->views, i);
    }
    assert_int_equal(dv_sched_index_resize(&t->ix, t->n), DV_OK);
}

static struct town *town_new(uint64_t seed, size_t n, enum dv_spread how)
{
    struct town *t = dv_zalloc(sizeof(*t));
    assert_non_null(t);
    t->seed = seed;
    dv_rng_init(&t->rng, seed);
    dv_haves_init(&t->images, seed);
    dv_haves_init(&t->pools, seed);
    dv_sched_index_init(&t->ix, how);
    while (t->n < n)
        add_node(t);
    return t;
}

static void town_free(struct town *t)
{
    while (t->n > 0)
        remove_node(t, t->n - 1);
    assert_int_equal(t->images.by_name.n, 0);
    dv_haves_deinit(&t->images);
    dv_haves_deinit(&t->pools);
    dv_sched_index_deinit(&t->ix);
    dv_free(t);
}

/* What one function asks, and where it has replicas already. */
struct ask {
    struct dv_need need;
    struct dv_strs constraints;
    char *texts[2];
    struct dv_sched_query q;
};

static void ask_init(struct town *t, struct ask *a)
{
    static char *const texts[] = {(char *)"zone=a", (char *)"zone!=b", (char *)"zone=rare",
                                  (char *)"zone==c"};
    *a = (struct ask){.need = {(int64_t)below(t, 4000), (int64_t)below(t, 8192) * MI, NULL}};
    size_t n = below(t, 3);
    for (size_t i = 0; i < n; i++)
        a->texts[i] = texts[below(t, DV_COUNT(texts))];
    a->constraints = (struct dv_strs){a->texts, n};
    a->need.constraints = n || below(t, 2) ? &a->constraints : NULL;
    const struct dv_have *one = dv_haves_find(&t->images, dv_sv_c(images[below(t, IMAGES)]));
    const struct dv_have *two =
        below(t, 3) ? NULL : dv_haves_find(&t->images, dv_sv_c(images[below(t, IMAGES)]));
    const struct dv_have *pool = below(t, 3) ? NULL : dv_haves_find(&t->pools, DV_SV("pool"));
    a->q = (struct dv_sched_query){&a->need, t->views, pool, {one, two}, dv_rng_u64(&t->rng)};
    for (size_t i = 0; i < t->n; i++) {
        struct dv_node_view *v = &t->views[i];
        v->has_image = dv_have_has(one, (uint32_t)i) || dv_have_has(two, (uint32_t)i);
        v->n_primed = dv_have_has(pool, (uint32_t)i);
        v->n_of_function = below(t, 4) ? 0 : (int64_t)below(t, 3);
    }
}

static void change_something(struct town *t)
{
    size_t i = below(t, t->n);
    struct dv_node_view *v = &t->views[i];
    switch (below(t, 8)) {
    case 0:
        v->is_ready = !v->is_ready;
        break;
    case 1:
        v->promised_bytes +=
            (int64_t)below(t, (uint64_t)(2 * GI)) - GI / 2; /* what was found may exceed it */
        v->promised_bytes = v->promised_bytes < 0 ? 0 : v->promised_bytes;
        break;
    case 2:
        label(t, i);
        break;
    case 3:
        give_images(t, i);
        break;
    case 4:
        if (t->n > 1)
            remove_node(t, i);
        return;
    case 5:
        if (t->n < MAX)
            add_node(t);
        return;
    default:
        v->promised_mcpu = (int64_t)below(t, (uint64_t)v->cpu_mcpu + 500);
        v->n_replicas = (int64_t)below(t, (uint64_t)v->max_replicas + 1);
        break;
    }
    dv_sched_index_update(&t->ix, t->views, i);
}

static void take(struct town *t, const struct ask *a, size_t at)
{
    t->views[at].promised_mcpu += a->need.cpu_mcpu;
    t->views[at].promised_bytes += a->need.memory_bytes;
    t->views[at].n_replicas++;
    t->views[at].n_of_function++;
    dv_sched_index_update(&t->ix, t->views, at);
}

/* Ask for some replicas in a row, as a burst does. */
static void compare(struct town *t, bool is_exact)
{
    struct ask a;
    ask_init(t, &a);
    for (int k = 0; k < 3; k++) {
        size_t want = SIZE_MAX, got = SIZE_MAX;
        int rc_want = dv_sched_place(&a.need, t->views, t->n, t->ix.how, &want);
        int rc_got = dv_sched_index_place(&t->ix, &a.q, &got);
        if (rc_want != rc_got || (is_exact && want != got))
            fail_msg("seed %llu: %d node %zu instead of %d node %zu, of %zu", (unsigned long long)t->seed,
                     rc_got, got, rc_want, want, t->n);
        if (rc_got)
            assert_int_equal(got, SIZE_MAX); /* untouched */
        else
            assert_int_equal(dv_sched_fit(&a.need, &t->views[got]), DV_FITS);
        int64_t limit = (int64_t)below(t, 50);
        assert_int_equal(dv_sched_index_room(&t->ix, &a.q, limit),
                         dv_sched_room(&a.need, t->views, t->n, limit));
        if (rc_got)
            return;
        take(t, &a, got);
        a.q.seed++;
    }
}

static void up_to_the_limit_the_choice_is_the_plain_searchs(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        size_t n = seed % 3 == 0 ? DV_SCHED_EXACT - 20 : 1 + seed * 4;
        struct town *t = town_new(seed, n, seed % 2 ? DV_SPREAD : DV_PACK);
        for (int i = 0; i < 60 && t->n <= DV_SCHED_EXACT; i++) {
            compare(t, true);
            change_something(t);
        }
        town_free(t);
    }
}

static void beyond_the_limit_a_node_that_fits_is_found_whenever_there_is_one(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct town *t = town_new(seed, 2000, seed % 2 ? DV_SPREAD : DV_PACK);
        for (int i = 0; i < 60; i++) {
            compare(t, false);
            change_something(t);
        }
        /* and when one node alone has a place */
        for (size_t i = 0; i < t->n; i++) {
            t->views[i].n_replicas = t->views[i].max_replicas;
            dv_sched_index_update(&t->ix, t->views, i);
        }
        compare(t, true);
        size_t lone = below(t, t->n);
        t->views[lone].is_ready = true;
        t->views[lone].n_replicas = 0;
        dv_sched_index_update(&t->ix, t->views, lone);
        for (int i = 0; i < 20; i++)
            compare(t, true);
        town_free(t);
    }
}

/* Alike and empty. */
static struct town *plain_town(size_t n)
{
    struct town *t = town_new(5, n, DV_SPREAD);
    for (size_t i = 0; i < n; i++) {
        t->views[i] = (struct dv_node_view){.id = 1 + i,
                                            .is_ready = true,
                                            .cpu_mcpu = 64000,
                                            .memory_bytes = 256 * GI,
                                            .max_replicas = 500,
                                            .labels = &t->label_lists[i]};
        dv_sched_index_update(&t->ix, t->views, i);
    }
    return t;
}

static void among_thousands_a_function_is_still_spread(void **state)
{
    (void)state;
    struct town *t = plain_town(MAX);
    struct dv_need need = {10, 16 * MI, NULL}; /* too little to show in what is promised */
    struct dv_sched_query q = {.need = &need, .views = t->views, .seed = 1};
    struct ask a = {.need = need};
    for (int i = 0; i < 1000; i++) {
        size_t at;
        assert_int_equal(dv_sched_index_place(&t->ix, &q, &at), DV_OK);
        assert_int_equal(t->views[at].n_of_function, 0);
        take(t, &a, at);
        q.seed++;
    }
    town_free(t);
}

static void among_thousands_nodes_with_the_image_come_first(void **state)
{
    (void)state;
    struct town *t = plain_town(MAX);
    struct dv_need need = {10, 16 * MI, NULL};
    for (size_t k = 0; k < IMAGES - 1; k++) {
        const struct dv_have *image = dv_haves_find(&t->images, dv_sv_c(images[k]));
        struct dv_sched_query q = {.need = &need, .views = t->views, .image = {image, NULL}, .seed = k};
        size_t at;
        assert_int_equal(dv_sched_index_place(&t->ix, &q, &at), DV_OK);
        assert_true(dv_have_has(image, (uint32_t)at));
    }
    const struct dv_have *pool = dv_haves_find(&t->pools, DV_SV("pool"));
    struct dv_sched_query q = {.need = &need, .views = t->views, .primed = pool, .seed = 1};
    size_t at;
    assert_int_equal(dv_sched_index_place(&t->ix, &q, &at), DV_OK);
    assert_true(dv_have_has(pool, (uint32_t)at));
    town_free(t);
}

static void constraints_hold_without_memory_for_their_set(void **state)
{
    (void)state;
    struct town *t = town_new(3, 300, DV_SPREAD);
    char *text = (char *)"zone=rare";
    struct dv_strs constraints = {&text, 1};
    struct dv_need need = {0, 0, &constraints};
    struct dv_sched_query q = {.need = &need, .views = t->views};
    size_t want, got;
    assert_int_equal(dv_sched_place(&need, t->views, t->n, DV_SPREAD, &want), DV_OK);
    for (uint64_t n = 1; n <= 2; n++) {
        dv_alloc_fail_at(n);
        int rc = dv_sched_index_place(&t->ix, &q, &got);
        dv_alloc_fail_at(0);
        assert_int_equal(rc, DV_OK);
        assert_int_equal(got, want);
    }
    town_free(t);
}

static void more_lists_of_constraints_than_are_kept_are_answered_all_the_same(void **state)
{
    (void)state;
    struct town *t = town_new(4, 200, DV_PACK);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 2 * DV_SCHED_CLASSES_MAX; i++) {
            char buf[32], *text = buf;
            (void)snprintf(buf, sizeof(buf), i % 2 ? "zone!=%d" : "zone==%c", i % 2 ? i : 'a' + i % 3);
            struct dv_strs constraints = {&text, 1};
            struct dv_need need = {100, 64 * MI, &constraints};
            struct dv_sched_query q = {.need = &need, .views = t->views};
            size_t want = 0, got = 0;
            assert_int_equal(dv_sched_place(&need, t->views, t->n, DV_PACK, &want),
                             dv_sched_index_place(&t->ix, &q, &got));
            assert_int_equal(got, want);
        }
    town_free(t);
}

/* Not a benchmark: searching all nodes for each would take a hundred times as long. */
static void what_is_looked_at_does_not_grow_with_the_cluster(void **state)
{
    (void)state;
    struct town *t = plain_town(MAX);
    struct dv_need big = {1, 257 * GI, NULL};
    struct dv_sched_query q = {.need = &big, .views = NULL}; /* the root says no: no view is read */
    size_t at;
    assert_int_equal(dv_sched_index_place(&t->ix, &q, &at), DV_NO_CAPACITY);
    assert_int_equal(dv_sched_index_room(&t->ix, &q, 1000), 0);
    town_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(up_to_the_limit_the_choice_is_the_plain_searchs),
        cmocka_unit_test(beyond_the_limit_a_node_that_fits_is_found_whenever_there_is_one),
        cmocka_unit_test(among_thousands_a_function_is_still_spread),
        cmocka_unit_test(among_thousands_nodes_with_the_image_come_first),
        cmocka_unit_test(constraints_hold_without_memory_for_their_set),
        cmocka_unit_test(more_lists_of_constraints_than_are_kept_are_answered_all_the_same),
        cmocka_unit_test(what_is_looked_at_does_not_grow_with_the_cluster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
