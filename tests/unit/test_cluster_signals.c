/* Signals beside the gateway's load, through the whole of the core. */
#include "tests/support/cluster_world.h"

static struct dv_metric elsewhere = {
    .name = (char *)"depth", .url = (char *)"http://broker/metrics", .target = 10, .interval_ms = 5000};
static struct dv_metric inside = {
    .name = (char *)"jobs", .url = (char *)"replica:/metrics", .target = 10, .interval_ms = 5000};

static int64_t asked(struct world *w)
{
    return dv_cluster_fn_find(w->c, 100)->asked;
}

static void read_every_5_s(struct world *w, double value, uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 5000) {
        dv_cluster_metric(w->c, 100, 0, 0, value, w->now);
        pass(w, 5000);
    }
}

static struct dv_function *define(struct world *w, struct dv_metric *m)
{
    (void)deploy(w, 0, 20);
    struct dv_function *f = &w->fns[0];
    f->spec.scale.idle_ms = 10000;
    f->spec.scale.metrics = m;
    f->spec.scale.n_metrics = m != NULL;
    assert_int_equal(dv_cluster_fn_put(w->c, f, w->now), DV_OK);
    return f;
}

static void a_metric_wakes_a_function_drives_it_and_lets_it_sleep(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)define(w, &elsewhere);
    pass(w, 1000);
    dv_cluster_metric(w->c, 100, 0, 0, 0, w->now);
    assert_null(dv_cluster_fn_find(w->c, 100)->hot); /* nothing to do: at rest it stays */
    read_every_5_s(w, 3, 5000);
    assert_int_equal(asked(w), 1);
    read_every_5_s(w, 60, 10000);
    assert_int_equal(asked(w), 6);
    assert_non_null(
        strstr(dv_cluster_fn_reason(dv_cluster_fn_find(w->c, 100)), "metric depth is 60, target 10"));
    read_every_5_s(w, 25, 60000);
    assert_int_equal(asked(w), 3);
    read_every_5_s(w, 0, 30000);
    assert_int_equal(asked(w), 0);
    world_free(w);
}

static void what_falls_silent_keeps_what_there_is_until_it_speaks_again(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)define(w, &elsewhere);
    pass(w, 1000);
    read_every_5_s(w, 60, 60000);
    assert_int_equal(asked(w), 6);
    dv_cluster_metric_missed(w->c, 100, 0, "it answers 500");
    pass(w, 120000);
    assert_int_equal(asked(w), 6);
    const char *why = dv_cluster_fn_reason(dv_cluster_fn_find(w->c, 100));
    assert_non_null(strstr(why, "metric depth stale for"));
    assert_non_null(strstr(why, "(it answers 500): keeps 6"));
    read_every_5_s(w, 0, 30000);
    assert_int_equal(asked(w), 0);
    world_free(w);
}

static void a_changed_metric_begins_anew_and_others_stay(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    struct dv_function *f = define(w, &elsewhere);
    pass(w, 1000);
    read_every_5_s(w, 60, 10000);
    struct dv_function next = *f;
    struct dv_metric two[] = {elsewhere, inside};
    next.spec.scale.metrics = two;
    next.spec.scale.n_metrics = 2;
    assert_int_equal(dv_cluster_fn_put(w->c, &next, w->now), DV_OK);
    const struct dv_cluster_watch *watch = dv_cluster_fn_find(w->c, 100)->watch;
    assert_int_equal(watch->n, 2);
    assert_true(watch->v[0].value == 60);
    struct dv_function last = next;
    struct dv_metric other = elsewhere;
    other.target = 7;
    last.spec.scale.metrics = &other;
    last.spec.scale.n_metrics = 1;
    assert_int_equal(dv_cluster_fn_put(w->c, &last, w->now), DV_OK);
    assert_int_equal(dv_cluster_fn_find(w->c, 100)->watch->v[0].at_ns, 0);
    dv_cluster_metric(w->c, 100, 1, 0, 5, w->now); /* of a list that is no more */
    dv_cluster_metric_missed(w->c, 2, 0, "no such function");
    assert_int_equal(dv_cluster_fn_put(w->c, f, w->now), DV_OK); /* the world frees its own */
    world_free(w);
}

/* Every replica tells `value` from now on. */
static void all_tell(struct world *w, double value, uint64_t ms)
{
    for (uint64_t t = 0; t < ms; t += 5000) {
        DV_LIST_FOR_EACH (it, &dv_cluster_fn_find(w->c, 100)->replicas) {
            const struct dv_cluster_replica *r = DV_LIST_ENTRY(it, struct dv_cluster_replica, of_fn);
            if (r->state == DV_REPLICA_WARM)
                dv_cluster_metric(w->c, 100, 0, r->id, value, w->now);
        }
        pass(w, 5000);
    }
}

static void replicas_are_made_for_what_replicas_tell(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)define(w, &inside);
    pass(w, 1000);
    assert_int_equal(asked(w), 0);
    demand(w, 100, 1);
    pass(w, 2000);
    serve(w, 100, 0);
    all_tell(w, 30, 5000);
    assert_int_equal(asked(w), 3);
    all_tell(w, 10, 30000);
    assert_int_equal(asked(w), 3);
    pass(w, 60000); /* silence, and no request: it stays as it is */
    assert_int_equal(asked(w), 3);
    all_tell(w, 0, 30000);
    assert_int_equal(asked(w), 0);
    world_free(w);
}

static void use_of_processors_moves_replicas(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)deploy(w, 1, 20);
    struct dv_function *f = &w->fns[0];
    f->spec.limits.cpu_mcpu = 100;
    f->spec.scale.cpu = 50;
    f->spec.scale.idle_ms = 10000;
    f->spec.cpu = DV_CPU_ALWAYS;
    assert_int_equal(dv_cluster_fn_put(w->c, f, w->now), DV_OK);
    pass(w, 2000);
    int64_t used_us = 1000000;
    for (int i = 0; i < 6; i++) { /* 150 of 100 thousandths: three times what is wanted */
        struct held *h = &w->agents[0].held[0];
        struct agent *a = &w->agents[0];
        if (a->n == 0) {
            a = &w->agents[1];
            h = &a->held[0];
        }
        struct dv_replica_report r = {.id = h->id,
                                      .fn_uid = 100,
                                      .generation = h->generation,
                                      .state = h->state,
                                      .cpu_us = used_us,
                                      .memory_bytes = 4 << 20};
        assert_int_equal(dv_cluster_reports(w->c, a->id, &r, 1, false, w->now), DV_OK);
        used_us += 150000 * 5;
        pass(w, 5000);
    }
    assert_int_equal(asked(w), 3);
    assert_non_null(strstr(dv_cluster_fn_reason(dv_cluster_fn_find(w->c, 100)), "cpu at 150 %, target 50 %"));
    pass(w, 120000); /* its agents say nothing any more */
    assert_true(asked(w) >= 1);
    world_free(w);
}

/* ---------------------------------------------------------------- what is kept of it */

static const struct dv_decided *decided(struct world *w, size_t from_last)
{
    const struct dv_decisions *d = &dv_cluster_fn_find(w->c, 100)->decisions;
    assert_true(d->n > from_last);
    const struct dv_list *it = d->list.prev;
    while (from_last--)
        it = it->prev;
    return DV_LIST_ENTRY(it, struct dv_decided, of_fn);
}

static void every_change_keeps_its_reason_and_what_all_signals_asked_for(void **state)
{
    (void)state;
    struct world *w = world_new(2);
    (void)define(w, &elsewhere);
    pass(w, 1000);
    read_every_5_s(w, 60, 10000);
    const struct dv_decided *d = decided(w, 0);
    assert_int_equal(d->to, 6);
    assert_int_equal(d->signal, DV_SIG_METRIC);
    assert_non_null(strstr(d->reason, "metric depth is 60"));
    size_t found = 0;
    for (size_t i = 0; i < d->n_asks; i++)
        if (d->asks[i].signal == DV_SIG_METRIC) {
            assert_string_equal(d->asks[i].name, "depth");
            assert_int_equal(d->asks[i].replicas, 6);
            found++;
        } else {
            assert_true(d->asks[i].replicas <= 1 && !d->asks[i].name);
        }
    assert_int_equal(found, 1);
    struct dv_cluster_signal now[DV_CLUSTER_SIGNALS_MAX];
    size_t n = dv_cluster_fn_signals(w->c, dv_cluster_fn_find(w->c, 100), w->now, now);
    assert_int_equal(now[n - 1].signal, DV_SIG_METRIC);
    assert_string_equal(now[n - 1].text, "metric depth is 60, target 10 a replica");
    read_every_5_s(w, 0, 60000);
    assert_int_equal(decided(w, 0)->to, 0);
    assert_int_equal(decided(w, 0)->signal, DV_SIG_IDLE);
    w->now += 86500 * S; /* a day later nobody asks any more */
    pass(w, 50);
    assert_int_equal(dv_cluster_fn_find(w->c, 100)->decisions.n, 0);
    world_free(w);
}

static void fifty_are_kept_of_a_function_and_none_of_one_that_is_gone(void **state)
{
    (void)state;
    struct dv_decision_log log;
    struct dv_decisions a = {0}, b = {0};
    dv_decisions_init(&log);
    for (int i = 0; i < 120; i++) {
        struct dv_decided d = {.at_ns = (uint64_t)i, .to = i, .reason = "r"};
        dv_decisions_add(&log, i % 2 ? &a : &b, &d);
    }
    assert_int_equal(a.n, DV_DECISIONS_OF_FN);
    assert_int_equal(log.n, 2 * DV_DECISIONS_OF_FN);
    assert_int_equal(DV_LIST_ENTRY(a.list.next, struct dv_decided, of_fn)->to, 21);
    dv_decisions_forget(&log, &a);
    assert_int_equal(log.n, DV_DECISIONS_OF_FN);
    dv_decisions_deinit(&log);
    assert_int_equal(b.n, 0);
    static struct dv_decisions many[DV_DECISIONS_OF_ALL / 40 + 10];
    for (size_t i = 0; i < sizeof(many) / sizeof(many[0]) * 40; i++)
        dv_decisions_add(&log, &many[i / 40], &(struct dv_decided){.at_ns = i, .reason = ""});
    assert_int_equal(log.n, DV_DECISIONS_OF_ALL); /* and all of them together are bounded */
    assert_int_equal(many[0].n, 0);
    dv_decisions_deinit(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_metric_wakes_a_function_drives_it_and_lets_it_sleep),
        cmocka_unit_test(what_falls_silent_keeps_what_there_is_until_it_speaks_again),
        cmocka_unit_test(a_changed_metric_begins_anew_and_others_stay),
        cmocka_unit_test(replicas_are_made_for_what_replicas_tell),
        cmocka_unit_test(use_of_processors_moves_replicas),
        cmocka_unit_test(every_change_keeps_its_reason_and_what_all_signals_asked_for),
        cmocka_unit_test(fifty_are_kept_of_a_function_and_none_of_one_that_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
