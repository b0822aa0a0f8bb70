/* What is written to the orchestrator: functions, secrets, namespaces, numbers of replicas; refused,
 * committed, told. */
#include "tests/support/control_rig.h"

static uint64_t removed_uid;

static void on_removed(void *ctx, uint64_t fn_uid)
{
    assert_ptr_equal(ctx, &removed_uid);
    assert_null(dv_control_fn_by_uid(rig.control, fn_uid)); /* whoever is told cannot find it any more */
    removed_uid = fn_uid;
}

static void a_deletion_is_told_once_it_is_kept(void **state)
{
    (void)state;
    uint64_t uid = deploy("echo"), revision = rig.revision;
    dv_control_set_on_removed(rig.control, on_removed, &removed_uid);
    assert_int_equal(WRITE(dv_control_fn_delete(rig.control, DV_SV("default"), DV_SV("echo"), revision + 7,
                                                done, NULL, NULL)),
                     DV_PRECONDITION);
    assert_int_equal(removed_uid, 0);
    assert_int_equal(WRITE(dv_control_fn_delete(rig.control, DV_SV("default"), DV_SV("echo"), DV_REV_ANY,
                                                done, NULL, NULL)),
                     DV_OK);
    assert_int_equal(removed_uid, uid);
}

static void writes_are_refused_for_the_reasons_that_the_header_names(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("echo", &arena);
    assert_int_equal(put(&s, DV_PUT_REPLACE, DV_REV_ANY), DV_NOT_FOUND);
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_OK);
    uint64_t first = rig.revision;
    assert_int_equal(dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("echo"))->revision, first);
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_EXISTS);
    assert_int_equal(put(&s, DV_PUT_UPSERT, first + 1), DV_PRECONDITION);
    assert_int_equal(put(&s, DV_PUT_UPSERT, first), DV_OK);
    assert_int_equal(put(&s, DV_PUT_UPSERT, first), DV_PRECONDITION);
    s.ns = (char *)"nowhere";
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_INVALID);
    assert_string_equal(rig.err.field, "namespace");
    s.ns = (char *)"default";
    char *secret = (char *)"token";
    s.secrets = (struct dv_strs){&secret, 1};
    assert_int_equal(put(&s, DV_PUT_UPSERT, DV_REV_ANY), DV_INVALID);
    assert_string_equal(rig.err.field, "secrets[0]");
    assert_int_equal(
        WRITE(dv_control_fn_delete(rig.control, DV_SV("default"), DV_SV("echo"), first, done, NULL, NULL)),
        DV_PRECONDITION);
    assert_int_equal(WRITE(dv_control_fn_delete(rig.control, DV_SV("default"), DV_SV("echo"), DV_REV_ANY,
                                                done, NULL, NULL)),
                     DV_OK);
    assert_null(dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("echo")));
    assert_int_equal(call_and_wait("echo"), 404);
}

static void of_several_functions_all_are_written_or_none(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec a = spec_of("one", &arena), b = spec_of("two", &arena);
    struct dv_fn_put p[] = {{.spec = &a, .mode = DV_PUT_UPSERT, .if_revision = DV_REV_ANY},
                            {.spec = &b, .mode = DV_PUT_REPLACE, .if_revision = DV_REV_ANY}};
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, p, 2, false, done, NULL, &rig.err)), DV_NOT_FOUND);
    assert_string_equal(rig.err.field, "functions[1].name");
    assert_null(dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("one")));
    p[1].mode = DV_PUT_UPSERT;
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, p, 2, true, done, NULL, &rig.err)), DV_OK);
    assert_int_equal(rig.revision, 0);
    assert_null(dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("one")));
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, p, 2, false, done, NULL, &rig.err)), DV_OK);
    assert_non_null(dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("one")));
    p[1].spec = &a;
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, p, 2, false, done, NULL, &rig.err)), DV_INVALID);
}

static void writes_that_overtake_each_other_are_all_carried_out(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("echo", &arena);
    struct dv_fn_put p = {.spec = &s, .mode = DV_PUT_UPSERT, .if_revision = DV_REV_ANY};
    static const char *const images[] = {"a", "b", "c", "d"};
    rig.dones = 0;
    for (size_t i = 0; i < 4; i++) { /* none waits for the one before */
        s.image = (char *)images[i];
        assert_int_equal(dv_control_fn_put(rig.control, &p, 1, false, done, NULL, NULL), DV_OK);
    }
    WAIT_FOR(rig.dones == 4);
    assert_int_equal(rig.code, DV_OK);
    const struct dv_function *f = dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("echo"));
    assert_string_equal(f->spec.image, "d");
    assert_int_equal(f->generation, 4);
    uint64_t uid = f->uid;
    orchestrator_down();
    orchestrator_up();
    f = dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("echo"));
    assert_string_equal(f->spec.image, "d");
    assert_int_equal(f->uid, uid);
}

static int collect_name(void *ctx, const struct dv_function *f)
{
    char *text = ctx;
    size_t n = strlen(text);
    (void)snprintf(text + n, 256 - n, "%s/%s ", f->spec.ns, f->spec.name);
    return 0;
}

static void functions_are_listed_in_order_of_namespace_and_name_and_from_a_place_on(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    static const char *const spaces[] = {"a", "a-b"};
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(
            WRITE(dv_control_ns_put(rig.control, dv_sv_c(spaces[i]), NULL, NULL, true, done, NULL, NULL)),
            DV_OK);
    static const char *const names[][2] = {
        {"a-b", "x"}, {"default", "z"}, {"a", "y"}, {"a", "b"}, {"default", "c"}};
    for (size_t i = 0; i < DV_COUNT(names); i++) {
        struct dv_fn_spec s = spec_of(names[i][1], &arena);
        s.ns = (char *)names[i][0];
        assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_OK);
    }
    char text[256] = "";
    dv_control_fn_each(rig.control, DV_SV(""), DV_SV(""), collect_name, text);
    assert_string_equal(text, "a/b a/y a-b/x default/c default/z ");
    text[0] = '\0';
    dv_control_fn_each(rig.control, DV_SV(""), DV_SV("a/y"), collect_name, text);
    assert_string_equal(text, "a-b/x default/c default/z ");
    text[0] = '\0';
    dv_control_fn_each(rig.control, DV_SV("a"), DV_SV(""), collect_name, text);
    assert_string_equal(text, "a/b a/y ");
}

static void secrets_reach_the_agent_and_nothing_else(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    struct dv_sv ns = DV_SV("default"), name = DV_SV("token");
    assert_int_equal(
        WRITE(dv_control_secret_put(rig.control, ns, name, DV_SV("old"), DV_PUT_REPLACE, done, NULL, NULL)),
        DV_NOT_FOUND);
    assert_int_equal(
        WRITE(dv_control_secret_put(rig.control, ns, name, DV_SV("old"), DV_PUT_CREATE, done, NULL, NULL)),
        DV_OK);
    assert_int_equal(
        WRITE(dv_control_secret_put(rig.control, ns, name, DV_SV("x"), DV_PUT_CREATE, done, NULL, NULL)),
        DV_EXISTS);
    assert_int_equal(WRITE(dv_control_secret_put(rig.control, ns, name, DV_SV("s3cret"), DV_PUT_REPLACE, done,
                                                 NULL, NULL)),
                     DV_OK);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("vault", &arena);
    char *secret = (char *)"token";
    s.secrets = (struct dv_strs){&secret, 1};
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_OK);
    orchestrator_down(); /* sealed values survive */
    orchestrator_up();
    assert_int_equal(call_and_wait("vault"), 200);
    assert_true(rig.agents[0].held[0].had_secret);
    assert_int_equal(WRITE(dv_control_secret_delete(rig.control, ns, name, done, NULL, NULL)), DV_OK);
    assert_int_equal(WRITE(dv_control_secret_delete(rig.control, ns, name, done, NULL, NULL)), DV_NOT_FOUND);
}

static void namespaces_hold_what_is_in_them(void **state)
{
    (void)state;
    struct dv_sv ns = DV_SV("team");
    struct dv_kv kv = {(char *)"k", (char *)"v"};
    struct dv_kvs labels = {&kv, 1};
    assert_true(dv_control_ns_exists(rig.control, DV_SV("default")));
    assert_int_equal(WRITE(dv_control_ns_put(rig.control, ns, &labels, NULL, false, done, NULL, NULL)),
                     DV_NOT_FOUND);
    assert_int_equal(WRITE(dv_control_ns_put(rig.control, ns, &labels, NULL, true, done, NULL, NULL)), DV_OK);
    assert_int_equal(WRITE(dv_control_ns_put(rig.control, ns, &labels, NULL, true, done, NULL, NULL)),
                     DV_EXISTS);
    assert_int_equal(WRITE(dv_control_ns_put(rig.control, DV_SV("No"), NULL, NULL, true, done, NULL, NULL)),
                     DV_INVALID);
    assert_int_equal(WRITE(dv_control_secret_put(rig.control, ns, DV_SV("s"), DV_SV("v"), DV_PUT_CREATE, done,
                                                 NULL, NULL)),
                     DV_OK);
    orchestrator_down();
    orchestrator_up();
    assert_int_equal(WRITE(dv_control_ns_delete(rig.control, ns, done, NULL, NULL)), DV_CONFLICT);
    assert_int_equal(WRITE(dv_control_secret_delete(rig.control, ns, DV_SV("s"), done, NULL, NULL)), DV_OK);
    assert_int_equal(WRITE(dv_control_ns_delete(rig.control, ns, done, NULL, NULL)), DV_OK);
    assert_int_equal(WRITE(dv_control_ns_delete(rig.control, ns, done, NULL, NULL)), DV_NOT_FOUND);
    assert_int_equal(WRITE(dv_control_ns_delete(rig.control, DV_SV("default"), done, NULL, NULL)),
                     DV_CONFLICT);
}

static void a_scale_request_pins_and_sleep_lasts_until_the_next_request(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy("echo");
    struct dv_sv ns = DV_SV("default"), name = DV_SV("echo");
    assert_int_equal(WRITE(dv_control_fn_scale(rig.control, ns, name, 9, done, NULL, NULL)), DV_INVALID);
    assert_int_equal(WRITE(dv_control_fn_scale(rig.control, ns, name, 3, done, NULL, NULL)), DV_OK);
    WAIT_FOR(status_of(uid).ready == 3);
    assert_int_equal(WRITE(dv_control_fn_scale(rig.control, ns, name, 0, done, NULL, NULL)), DV_OK);
    WAIT_FOR(rig.agents[0].n_held == 0);
    assert_int_equal(call_and_wait("echo"), 200);
    WAIT_FOR(dv_control_fn_by_uid(rig.control, uid)->desired_override == -1);
    assert_int_equal(dv_control_fn_by_uid(rig.control, uid)->generation, 1);
}

static void a_set_number_is_there_at_once_and_ends_a_pin(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy("echo");
    struct dv_sv ns = DV_SV("default"), name = DV_SV("echo");
    assert_int_equal(WRITE(dv_control_fn_set(rig.control, ns, name, 0, done, NULL, NULL)), DV_INVALID);
    assert_int_equal(WRITE(dv_control_fn_set(rig.control, ns, name, 9, done, NULL, NULL)), DV_INVALID);
    assert_int_equal(WRITE(dv_control_fn_set(rig.control, ns, DV_SV("nope"), 1, done, NULL, NULL)),
                     DV_NOT_FOUND);
    assert_int_equal(WRITE(dv_control_fn_set(rig.control, ns, name, 3, done, NULL, NULL)), DV_OK);
    assert_int_equal(status_of(uid).asked, 3);
    WAIT_FOR(status_of(uid).ready == 3);
    assert_int_equal(WRITE(dv_control_fn_scale(rig.control, ns, name, 1, done, NULL, NULL)), DV_OK);
    WAIT_FOR(status_of(uid).ready == 1);
    assert_int_equal(WRITE(dv_control_fn_set(rig.control, ns, name, 2, done, NULL, NULL)), DV_OK);
    assert_int_equal(status_of(uid).asked, 2);
    assert_int_equal(dv_control_fn_by_uid(rig.control, uid)->desired_override, -1);
    WAIT_FOR(status_of(uid).ready == 2);
}

static void a_new_function_may_begin_with_replicas(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("early", &arena);
    struct dv_fn_put put = {.spec = &s, .mode = DV_PUT_UPSERT, .if_revision = DV_REV_ANY, .begin_with = 2};
    join_and_wait(&rig.agents[0]);
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, &put, 1, false, done, NULL, NULL)), DV_OK);
    uint64_t uid = dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("early"))->uid;
    assert_int_equal(status_of(uid).asked, 2);
    WAIT_FOR(status_of(uid).ready == 2);
    put.begin_with = 3; /* it is there already */
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, &put, 1, false, done, NULL, NULL)), DV_OK);
    assert_int_equal(status_of(uid).asked, 2);
}

static void an_open_window_of_the_schedule_raises_the_minimum(void **state)
{
    (void)state;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("office", &arena);
    struct dv_window w[] = {{(char *)"* * * * *", (char *)"Nowhere/City", 120000, 2},
                            {(char *)"0 0 29 2 *", NULL, 60000, 3}};
    s.scale.schedule = w;
    s.scale.idle_ms = 500;
    s.scale.n_schedule = 1;
    join_and_wait(&rig.agents[0]);
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_INVALID);
    assert_string_equal(rig.err.field, "scale.schedule[0].timezone");
    assert_non_null(strstr(rig.err.msg, "Nowhere/City"));
    w[0].timezone = NULL;
    s.scale.n_schedule = 2;
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_OK);
    uint64_t uid = dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("office"))->uid;
    assert_int_equal(status_of(uid).asked, 2);
    assert_non_null(strstr(status_of(uid).scale_reason, "minimum is 2 by schedule"));
    WAIT_FOR(status_of(uid).ready == 2);
    orchestrator_down();
    orchestrator_up();
    WAIT_FOR(status_of(uid).ready == 2 && status_of(uid).asked == 2);
    s.scale.n_schedule = 0;
    assert_int_equal(put(&s, DV_PUT_UPSERT, DV_REV_ANY), DV_OK);
    WAIT_FOR(status_of(uid).asked == 0);
}

static int count_note(void *ctx, const struct dv_fn_event *e)
{
    *(int *)ctx += strcmp(e->kind, "note") == 0 && strcmp(e->message, "by the way") == 0;
    return 0;
}

static void a_note_of_a_write_is_an_event_of_the_function(void **state)
{
    (void)state;
    int n = 0;
    uint64_t uid = deploy("echo");
    struct dv_fn_put put = {.spec = &dv_control_fn_by_uid(rig.control, uid)->spec,
                            .mode = DV_PUT_REPLACE,
                            .if_revision = DV_REV_ANY,
                            .note = "by the way"};
    assert_int_equal(WRITE(dv_control_fn_put(rig.control, &put, 1, false, done, NULL, NULL)), DV_OK);
    dv_control_events_each(rig.control, uid, count_note, &n);
    assert_int_equal(n, 1);
}

int main(void)
{
    dv_log_setup(DV_LOG_ERROR, DV_LOG_LOGFMT, 2);
    const struct CMUnitTest tests[] = {
        TEST(a_deletion_is_told_once_it_is_kept),
        TEST(writes_are_refused_for_the_reasons_that_the_header_names),
        TEST(of_several_functions_all_are_written_or_none),
        TEST(writes_that_overtake_each_other_are_all_carried_out),
        TEST(functions_are_listed_in_order_of_namespace_and_name_and_from_a_place_on),
        TEST(secrets_reach_the_agent_and_nothing_else),
        TEST(namespaces_hold_what_is_in_them),
        TEST(a_scale_request_pins_and_sleep_lasts_until_the_next_request),
        TEST(a_set_number_is_there_at_once_and_ends_a_pin),
        TEST(a_new_function_may_begin_with_replicas),
        TEST(a_note_of_a_write_is_an_event_of_the_function),
        TEST(an_open_window_of_the_schedule_raises_the_minimum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
