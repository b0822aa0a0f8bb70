/* Replicas and their life against the engine in memory: what the orchestrator asks for, what it is told, and
 * what the engine is left with. */
#include "agent/engine/engine_fake.h"
#include "tests/support/sandbox_world.h"

#include <netinet/in.h>

static struct dv_engine_fake *g_fake;
static int g_listen, g_port;
static bool g_is_silent; /* containers get an address where nobody listens */

static void on_start(void *ctx, struct dv_engine_fake_started *s)
{
    (void)ctx;
    s->pid = getpid(); /* a process that has control groups */
    (void)dv_copy(s->address, sizeof(s->address), g_is_silent ? "127.0.0.2" : "127.0.0.1");
}

static void on_removed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)err;
    assert_int_equal(code, DV_OK);
}

static char g_json[1024];

/* A function on the test's own port. */
static const char *fn(const char *more)
{
    (void)snprintf(g_json, sizeof(g_json), "{\"name\":\"hello\",\"image\":\"hello:1\",\"port\":%d%s}", g_port,
                   more);
    return g_json;
}

static int setup(void **state)
{
    (void)state;
    g_is_silent = false;
    sw_open();
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &g_listen, NULL), DV_OK);
    g_port = dv_socket_port(g_listen);
    assert_int_equal(dv_engine_fake_open(sw.loop, &g_fake), DV_OK);
    sw.engine = dv_engine_fake_engine(g_fake);
    dv_engine_fake_on_start(g_fake, on_start, NULL);
    dv_engine_fake_add_image(g_fake, "hello:1", NULL, true);
    dv_engine_fake_add_image(g_fake, "far:1", NULL, false);
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sw.engine->ops->close(sw.engine);
    sw_close();
    (void)close(g_listen);
    return 0;
}

static bool file_exists(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", sw.dir, name);
    return access(path, F_OK) == 0;
}

static void wait_warm(uint64_t id)
{
    SW_UNTIL(sw_state(id) == DV_REPLICA_WARM || sw_state(id) == DV_REPLICA_FAILED);
    if (sw_state(id) == DV_REPLICA_FAILED)
        fail_msg("%s", sw_get(id)->message);
}

static void a_started_replica_becomes_warm_and_says_where_it_is(void **state)
{
    (void)state;
    char address[32];
    sw_start(1, 7, fn(""));
    wait_warm(1);
    struct sw_seen *s = sw_get(1);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", g_port);
    assert_string_equal(s->address, address);
    assert_int_equal(strlen(s->container), 64);
    assert_true(s->r.times.ready_us > 0);
    assert_int_equal(s->r.fn_uid, 7);
    assert_true(file_exists("replicas/0000000000000001.json"));
    uint64_t n, served;
    assert_int_equal(dv_carry_load(sw.carry, 1, &n, &served), DV_OK);
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, s->container);
    assert_string_equal(c->name, "davit-hello-00000000");
    assert_string_equal(c->network, "davit");
    assert_true(c->read_only);
}

static void starting_twice_makes_one_container(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    sw_start(1, 7, fn(""));
    wait_warm(1);
    int before = sw_get(1)->n_reports;
    sw_start(1, 7, fn("")); /* reported again, nothing else */
    SW_UNTIL(sw_get(1)->n_reports > before);
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 1);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), 1);
}

static void a_cold_start_asks_the_engine_for_nothing_twice(void **state)
{
    (void)state;
    const uint64_t second = 2ull << 32; /* of another short name */
    sw_start(1, 7, fn(""));
    wait_warm(1);
    uint64_t inspects = dv_engine_fake_calls(g_fake, DV_FAKE_INSPECT),
             images = dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_INSPECT);
    sw_start(second, 7, fn(""));
    wait_warm(second);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), 2);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_INSPECT), inspects + 1);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_INSPECT), images);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_START), 2);
}

static void an_absent_image_is_pulled_once_for_all_that_wait(void **state)
{
    (void)state;
    char json[256];
    dv_engine_fake_delay(g_fake, DV_FAKE_IMAGE_PULL, 20);
    (void)snprintf(json, sizeof(json), "{\"name\":\"far\",\"image\":\"far:1\",\"port\":%d}", g_port);
    for (uint64_t id = 1; id <= 3; id++)
        sw_start(id, 7, json);
    for (uint64_t id = 1; id <= 3; id++)
        wait_warm(id);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_PULL), 1);
    assert_true(sw_get(1)->r.times.pull_us > 0);
}

static void an_image_nobody_has_fails_with_the_registrys_words(void **state)
{
    (void)state;
    sw_start(1, 7, "{\"name\":\"gone\",\"image\":\"nowhere:1\"}");
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_IMAGE_MISSING);
    assert_true(sw_get(1)->message[0] != '\0');
    dv_engine_fake_fail(g_fake, DV_FAKE_IMAGE_PULL, DV_DENIED, "pull access denied", 1);
    sw_start(2, 7, "{\"name\":\"gone\",\"image\":\"private:1\"}");
    SW_UNTIL(sw_state(2) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(2)->r.reason, DV_REASON_IMAGE_DENIED);
    assert_non_null(strstr(sw_get(2)->message, "pull access denied"));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
}

static void an_image_for_another_machine_is_refused_by_name(void **state)
{
    (void)state;
    struct dv_engine_image img = {.id = "sha256:1", .arch = "s390x", .os = "linux"};
    dv_engine_fake_add_image(g_fake, "big:1", &img, true);
    sw_start(1, 7, "{\"name\":\"big\",\"image\":\"big:1\"}");
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_WRONG_ARCH);
    assert_non_null(strstr(sw_get(1)->message, "s390x"));
}

static void a_process_that_ends_at_once_fails_with_its_exit_code_and_last_words(void **state)
{
    (void)state;
    g_is_silent = true;
    sw_start(1, 7, fn(",\"command\":[\"sh\",\"-c\",\"echo hello; echo no config >&2; exit 3\"]"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    struct sw_seen *s = sw_get(1);
    assert_int_equal(s->r.reason, DV_REASON_EXITED);
    assert_int_equal(s->r.exit_code, 3);
    assert_non_null(strstr(s->message, "exit code 3"));
    assert_string_equal(s->log_tail, "hello\nno config");
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
    assert_false(file_exists("replicas/0000000000000001.json"));
}

static void a_process_that_never_listens_is_given_up(void **state)
{
    (void)state;
    g_is_silent = true;
    sw_start(1, 7, fn(",\"health\":{\"start_timeout\":\"1s\"}"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_NOT_READY);
    assert_non_null(strstr(sw_get(1)->message, "nothing answers on port"));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
}

static void the_end_of_a_warm_replica_is_told_at_once(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    sw_start(2, 7, fn(""));
    wait_warm(1);
    wait_warm(2);
    dv_engine_fake_exit(g_fake, sw_get(1)->container, 1, false);
    dv_engine_fake_exit(g_fake, sw_get(2)->container, 137, true);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED && sw_state(2) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_EXITED);
    assert_int_equal(sw_get(2)->r.reason, DV_REASON_OOM);
    uint64_t n, served;
    assert_int_equal(dv_carry_load(sw.carry, 1, &n, &served), DV_NOT_FOUND);
}

static void a_stopped_replica_is_gone_with_all_it_had(void **state)
{
    (void)state;
    sw_start(1, 7, fn(",\"secrets\":[\"token\"]"));
    wait_warm(1);
    assert_true(file_exists("secrets/0000000000000001/token"));
    sw_stop(1, false);
    SW_UNTIL(sw_get(1)->n_gone);
    assert_int_equal(sw_get(1)->n_gone, 1);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_STOPPED);
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
    assert_false(file_exists("secrets/0000000000000001"));
    assert_false(file_exists("replicas/0000000000000001.json"));
    sw_stop(1, false); /* again: harmless */
    sw_take(true);
    assert_int_equal(sw_get(1)->n_gone, 1);
    assert_int_equal(dv_sandbox_n_replicas(sw.sb), 0);
}

static void a_replica_stopped_on_its_way_up_leaves_nothing(void **state)
{
    (void)state;
    const enum dv_engine_fake_op ops[] = {DV_FAKE_IMAGE_INSPECT, DV_FAKE_CREATE, DV_FAKE_START,
                                          DV_FAKE_INSPECT};
    for (uint64_t i = 0; i < DV_COUNT(ops); i++) {
        uint64_t before = dv_engine_fake_calls(g_fake, ops[i]);
        dv_engine_fake_delay(g_fake, ops[i], 15);
        sw_start(i + 1, 7, fn(""));
        SW_UNTIL(dv_engine_fake_calls(g_fake, ops[i]) > before);
        sw_stop(i + 1, false);
        SW_UNTIL(sw_get(i + 1)->n_gone == 1);
        dv_engine_fake_delay(g_fake, ops[i], 0);
        assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
    }
}

static void a_failed_replica_is_kept_for_the_report_until_it_is_stopped(void **state)
{
    (void)state;
    sw_start(1, 7, "{\"name\":\"gone\",\"image\":\"nowhere:1\"}");
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    int n = sw_get(1)->n_reports;
    sw_take(true);
    assert_int_equal(sw_get(1)->n_reports, n + 1);
    sw_stop(1, false);
    SW_UNTIL(sw_get(1)->n_gone == 1);
}

static void what_the_orchestrator_does_not_list_is_stopped(void **state)
{
    (void)state;
    uint64_t keep = 2;
    sw_start(1, 7, fn(""));
    sw_start(2, 7, fn(""));
    wait_warm(1);
    wait_warm(2);
    struct dv_cmd_sync sync = {&keep, 1};
    dv_sandbox_sync(sw.sb, &sync); /* too young */
    sw_turn();
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
    (void)usleep(2050000);
    sw_turn();
    dv_sandbox_sync(sw.sb, &sync);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    assert_int_equal(sw_state(2), DV_REPLICA_WARM);
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), 1);
}

static void no_more_are_created_at_once_than_processors_can_do(void **state)
{
    (void)state;
    dv_engine_fake_delay(g_fake, DV_FAKE_CREATE, 300);
    for (uint64_t id = 1; id <= 10; id++)
        sw_start(id, 7, fn(""));
    for (int i = 0; i < 3; i++)
        sw_turn();
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), 8); /* it says that it has four */
    for (uint64_t id = 1; id <= 10; id++)
        wait_warm(id);
}

static void a_node_that_is_full_says_so(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 11; id++)
        sw_start(id, 7, fn(""));
    SW_UNTIL(sw_state(11) == DV_REPLICA_FAILED);
    assert_non_null(strstr(sw_get(11)->message, "--max-replicas"));
    wait_warm(10);
}

static void an_engine_that_goes_away_is_told_and_taken_back(void **state)
{
    (void)state;
    struct dv_sandbox_engine_state e;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    dv_engine_fake_down(g_fake, true);
    SW_UNTIL(!sw_engine_ok());
    dv_sandbox_engine(sw.sb, &e);
    assert_non_null(e.message);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM); /* it serves without the engine */
    sw_start(2, 7, fn(""));
    SW_UNTIL(sw_state(2) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(2)->r.reason, DV_REASON_ENGINE_DOWN);
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_engine_ok());
    sw_start(3, 7, fn(""));
    wait_warm(3);
    assert_int_equal(sw_state(1), DV_REPLICA_WARM);
}

static void a_stop_the_engine_did_not_hear_is_said_again(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    dv_engine_fake_down(g_fake, true);
    sw_stop(1, false);
    SW_UNTIL(!sw_engine_ok());
    for (int i = 0; i < 20; i++)
        sw_turn();
    assert_int_equal(sw_get(1)->n_gone, 0);
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
}

static void a_process_that_died_while_the_engine_was_unheard_is_noticed(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    dv_engine_fake_down(g_fake, true);
    SW_UNTIL(!sw_engine_ok());
    dv_engine_fake_exit(g_fake, sw_get(1)->container, 9, false);
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.exit_code, 9);
}

/* The agent is gone without having put anything in order; its containers live on. */
static void agent_dies(void)
{
    dv_engine_fake_down(g_fake, true); /* ends the streams that an ended process would not hear */
    SW_UNTIL(!sw_engine_ok());
    for (int i = 0; i < 3; i++)
        sw_turn();
    dv_sandbox_free(sw.sb);
    sw.sb = NULL;
    dv_engine_fake_down(g_fake, false);
}

static void a_restarted_agent_takes_its_replicas_over_and_removes_what_is_nobodys(void **state)
{
    (void)state;
    char container[80];
    sw_start(1, 7, fn(""));
    sw_start(2, 7, fn(""));
    wait_warm(1);
    wait_warm(2);
    (void)dv_copy(container, sizeof(container), sw_get(1)->container);
    agent_dies();
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/replicas/0000000000000002.json", sw.dir);
    assert_int_equal(unlink(path), 0); /* the second one is not remembered */
    memset(sw.seen, 0, sizeof(sw.seen));
    sw.n_seen = 0;
    sw_open_sandbox();
    wait_warm(1);
    assert_string_equal(sw_get(1)->container, container);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 1);
    sw_stop(1, false);
    SW_UNTIL(sw_get(1)->n_gone == 1);
}

/* Its container has been sent SIGTERM, or will be: requests would be cut off there. */
static void a_replica_that_was_being_stopped_is_not_taken_over(void **state)
{
    (void)state;
    char mark[256];
    (void)snprintf(mark, sizeof(mark), "%s/replicas/0000000000000001.stop", sw.dir);
    sw_start(1, 7, fn(""));
    wait_warm(1);
    agent_dies();
    assert_int_not_equal(access(mark, F_OK), 0);
    assert_int_equal(dv_file_write(mark, DV_SV(""), 0600, NULL), DV_OK);
    memset(sw.seen, 0, sizeof(sw.seen));
    sw.n_seen = 0;
    sw_open_sandbox();
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), 1);
    uint64_t inside, served;
    for (int i = 0; i < 5000 && dv_engine_fake_count(g_fake, NULL); i++) {
        sw_turn();
        assert_int_equal(dv_carry_load(sw.carry, 1, &inside, &served), DV_NOT_FOUND);
    }
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
    SW_UNTIL(access(mark, F_OK) != 0);
}

static void a_stop_is_noted_before_the_engine_hears_of_it(void **state)
{
    (void)state;
    char mark[256];
    (void)snprintf(mark, sizeof(mark), "%s/replicas/0000000000000001.stop", sw.dir);
    sw_start(1, 7, fn(""));
    wait_warm(1);
    sw_stop(1, true); /* in this very call */
    assert_int_equal(access(mark, F_OK), 0);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    assert_int_not_equal(access(mark, F_OK), 0);
}

static void a_replica_that_died_with_the_agent_away_is_reported(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    agent_dies();
    dv_engine_fake_exit(g_fake, sw_get(1)->container, 5, false);
    sw.n_seen = 0;
    sw_open_sandbox();
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.exit_code, 5);
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
}

static void a_container_that_somebody_removed_is_missed(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    sw.engine->ops->remove(sw.engine, sw_get(1)->container, true, on_removed, NULL);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_REMOVED);
}

static void stdio_functions_run_under_davit_init(void **state)
{
    (void)state;
    char json[256];
    (void)snprintf(json, sizeof(json),
                   "{\"name\":\"wc\",\"image\":\"hello:1\",\"protocol\":\"stdio\",\"command\":[\"wc\",\"-c\"]"
                   ",\"port\":%d,"
                   "\"timeout\":\"2s\"}",
                   g_port);
    sw_start(1, 7, json);
    wait_warm(1);
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, sw_get(1)->container);
    assert_int_equal(c->entrypoint.n, 1);
    assert_string_equal(c->entrypoint.v[0], "/.davit/init");
    assert_string_equal(c->command.v[0], "stdio");
    assert_string_equal(c->command.v[c->command.n - 3], "--");
    assert_string_equal(c->command.v[c->command.n - 2], "wc");
    assert_string_equal(c->command.v[c->command.n - 1], "-c");
    assert_int_equal(c->n_mounts, 1);
    assert_string_equal(c->mounts[0].target, "/.davit/init");
    assert_true(c->mounts[0].read_only);
}

static void secrets_are_files_and_nowhere_else(void **state)
{
    (void)state;
    char path[256];
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    sw_start(1, 7, fn(",\"secrets\":[\"token\"]"));
    wait_warm(1);
    (void)snprintf(path, sizeof(path), "%s/secrets/0000000000000001/token", sw.dir);
    assert_int_equal(dv_file_read(path, 100, &text, NULL), DV_OK);
    assert_string_equal(dv_buf_cstr(&text), "s3cret");
    dv_buf_clear(&text);
    (void)snprintf(path, sizeof(path), "%s/replicas/0000000000000001.json", sw.dir);
    assert_int_equal(dv_file_read(path, 10000, &text, NULL), DV_OK);
    assert_null(strstr(dv_buf_cstr(&text), "czNjcmV0"));
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, sw_get(1)->container);
    assert_string_equal(c->mounts[0].target, "/var/openfaas/secrets");
    for (size_t i = 0; i < c->env.n; i++)
        assert_null(strstr(c->env.v[i], "s3cret"));
}

static void replicas_whose_short_names_collide_get_long_ones(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    sw_start(2, 7, fn(""));
    wait_warm(1);
    wait_warm(2);
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), 2);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_REMOVE), 0);
    assert_string_equal(dv_engine_fake_spec(g_fake, sw_get(1)->container)->name, "davit-hello-00000000");
    assert_string_equal(dv_engine_fake_spec(g_fake, sw_get(2)->container)->name,
                        "davit-hello-0000000000000002");
}

static void a_refused_create_or_start_fails_with_the_engines_words(void **state)
{
    (void)state;
    dv_engine_fake_fail(g_fake, DV_FAKE_CREATE, DV_INVALID, "invalid reference", 1);
    sw_start(1, 7, fn(""));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_CREATE_FAILED);
    assert_non_null(strstr(sw_get(1)->message, "invalid reference"));
    dv_engine_fake_fail(g_fake, DV_FAKE_START, DV_INVALID, "exec: no such file", 1);
    sw_start(2, 7, fn(""));
    SW_UNTIL(sw_state(2) == DV_REPLICA_FAILED);
    assert_non_null(strstr(sw_get(2)->message, "no such file"));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 0);
}

static void lines_of_replicas_here_and_gone_are_found_by_function(void **state)
{
    (void)state;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    dv_engine_fake_log(g_fake, sw_get(1)->container, false, "from the first");
    sw_stop(1, false);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    sw_start(2, 7, fn(""));
    wait_warm(2);
    dv_engine_fake_log(g_fake, sw_get(2)->container, true, "from the second");
    dv_sandbox_logs(sw.sb, &(struct dv_cmd_logs){.request = 5, .fn_uid = 7, .tail = -1});
    SW_UNTIL(sw.n_log_ends == 1);
    assert_string_equal(sw.logs, "from the first\nfrom the second\n");
}

static void a_follower_hears_replicas_that_start_later(void **state)
{
    (void)state;
    dv_sandbox_logs(sw.sb, &(struct dv_cmd_logs){.request = 5, .fn_uid = 7, .tail = -1, .follow = true});
    sw_start(1, 7, fn(""));
    sw_start(2, 8, fn(""));
    wait_warm(1);
    wait_warm(2);
    dv_engine_fake_log(g_fake, sw_get(1)->container, false, "heard");
    dv_engine_fake_log(g_fake, sw_get(2)->container, false, "another function");
    SW_UNTIL(strstr(sw.logs, "heard\n"));
    assert_int_equal(sw.n_log_ends, 0);
    dv_sandbox_logs(sw.sb, &(struct dv_cmd_logs){.request = 5, .cancel = true});
    dv_engine_fake_log(g_fake, sw_get(1)->container, false, "unheard");
    for (int i = 0; i < 5; i++)
        sw_turn();
    assert_string_equal(sw.logs, "heard\n");
}

static void metrics_tell_states_and_engine(void **state)
{
    (void)state;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    sw_start(1, 7, fn(""));
    wait_warm(1);
    dv_sandbox_metrics(sw.sb, &b);
    assert_non_null(strstr(dv_buf_cstr(&b), "davit_agent_replicas{state=\"warm\"} 1\n"));
    assert_non_null(strstr(dv_buf_cstr(&b), "\ndavit_agent_engine_up 1\n"));
    assert_non_null(strstr(dv_buf_cstr(&b), "davit_agent_start_seconds_count{phase=\"total\"} 1\n"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_started_replica_becomes_warm_and_says_where_it_is),
        T(starting_twice_makes_one_container),
        T(a_cold_start_asks_the_engine_for_nothing_twice),
        T(an_absent_image_is_pulled_once_for_all_that_wait),
        T(an_image_nobody_has_fails_with_the_registrys_words),
        T(an_image_for_another_machine_is_refused_by_name),
        T(a_process_that_ends_at_once_fails_with_its_exit_code_and_last_words),
        T(a_process_that_never_listens_is_given_up),
        T(the_end_of_a_warm_replica_is_told_at_once),
        T(a_stopped_replica_is_gone_with_all_it_had),
        T(a_replica_stopped_on_its_way_up_leaves_nothing),
        T(a_failed_replica_is_kept_for_the_report_until_it_is_stopped),
        T(what_the_orchestrator_does_not_list_is_stopped),
        T(no_more_are_created_at_once_than_processors_can_do),
        T(a_node_that_is_full_says_so),
        T(an_engine_that_goes_away_is_told_and_taken_back),
        T(a_stop_the_engine_did_not_hear_is_said_again),
        T(a_process_that_died_while_the_engine_was_unheard_is_noticed),
        T(a_restarted_agent_takes_its_replicas_over_and_removes_what_is_nobodys),
        T(a_replica_that_was_being_stopped_is_not_taken_over),
        T(a_stop_is_noted_before_the_engine_hears_of_it),
        T(a_replica_that_died_with_the_agent_away_is_reported),
        T(a_container_that_somebody_removed_is_missed),
        T(stdio_functions_run_under_davit_init),
        T(secrets_are_files_and_nowhere_else),
        T(replicas_whose_short_names_collide_get_long_ones),
        T(a_refused_create_or_start_fails_with_the_engines_words),
        T(lines_of_replicas_here_and_gone_are_found_by_function),
        T(a_follower_hears_replicas_that_start_later),
        T(metrics_tell_states_and_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
