/* Ready networks against the engine in memory: who gets one, when it is lent again, and what happens when the
 * engine takes it away. */
#include "agent/cgroup/cgroup.h"
#include "agent/engine/engine_fake.h"
#include "tests/support/sandbox_world.h"

enum { WANTED = 2 };

static struct dv_engine_fake *g_fake;
static int g_listen, g_port;

static void on_start(void *ctx, struct dv_engine_fake_started *s)
{
    (void)ctx;
    s->pid = getpid(); /* a process that has control groups */
    (void)dv_copy(s->address, sizeof(s->address), "127.0.0.1");
}

/* ---- what the engine holds and the agent counts ---- */

static uint64_t metric(const char *name)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    dv_sandbox_metrics(sw.sb, &text);
    const char *all = dv_buf_cstr(&text), *at = NULL;
    for (const char *p = all; (p = strstr(p, name)); p++)
        if ((p == all || p[-1] == '\n') && p[strlen(name)] == ' ')
            at = p + strlen(name) + 1;
    if (!at)
        fail_msg("no metric %s", name);
    return strtoull(at, NULL, 10);
}

static uint64_t n_networks(const char *state)
{
    char name[80];
    (void)snprintf(name, sizeof(name), "davit_agent_networks{state=\"%s\"}", state);
    return metric(name);
}

static const struct dv_engine_create *spec_of(uint64_t id)
{
    return dv_engine_fake_spec(g_fake, sw_get(id)->container);
}

/* The holder whose network the replica's container has joined; NULL: it has a network of its own. */
static const char *joined(uint64_t id)
{
    const struct dv_engine_create *c = spec_of(id);
    assert_non_null(c);
    return strncmp(c->network, "container:", 10) == 0 ? c->network + 10 : NULL;
}

static void start(uint64_t id)
{
    char json[256];
    (void)snprintf(json, sizeof(json), "{\"name\":\"hello%u\",\"image\":\"hello:1\",\"port\":%d}",
                   (unsigned)id, g_port);
    sw_start(id, id, json);
}

static void wait_warm(uint64_t id)
{
    SW_UNTIL(sw_state(id) == DV_REPLICA_WARM || sw_state(id) == DV_REPLICA_FAILED);
    if (sw_state(id) == DV_REPLICA_FAILED)
        fail_msg("%s", sw_get(id)->message);
}

static void stop(uint64_t id)
{
    sw_stop(id, true);
    SW_UNTIL(sw_get(id)->n_gone == 1);
}

/* ---- world ---- */

static int setup_with(int64_t wanted)
{
    assert_int_equal(dv_cgroup_setup(NULL), DV_OK);
    sw_open();
    sw.ready_networks = wanted;
    sw.replicas_max = SW_REPLICAS;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &g_listen, NULL), DV_OK);
    g_port = dv_socket_port(g_listen);
    assert_int_equal(dv_engine_fake_open(sw.loop, &g_fake), DV_OK);
    sw.engine = dv_engine_fake_engine(g_fake);
    dv_engine_fake_on_start(g_fake, on_start, NULL);
    dv_engine_fake_add_image(g_fake, "hello:1", NULL, true);
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
    return 0;
}

static int setup(void **state)
{
    (void)state;
    (void)setup_with(WANTED);
    SW_UNTIL(n_networks("ready") == WANTED);
    return 0;
}

static int setup_empty(void **state)
{
    (void)state;
    return setup_with(0);
}

static int teardown(void **state)
{
    (void)state;
    sw.engine->ops->close(sw.engine);
    sw_close();
    (void)close(g_listen);
    return 0;
}

/* The agent is gone without having put anything in order; its containers live on, and another one begins. */
static void restart_agent(void)
{
    dv_engine_fake_down(g_fake, true); /* ends the streams that an ended process would not hear */
    SW_UNTIL(!sw_engine_ok());
    for (int i = 0; i < 3; i++)
        sw_turn();
    dv_sandbox_free(sw.sb);
    sw.sb = NULL;
    dv_engine_fake_down(g_fake, false);
    memset(sw.seen, 0, sizeof(sw.seen));
    sw.n_seen = 0;
    sw_open_sandbox();
}

/* ---- tests ---- */

static void the_pool_is_filled_with_hardened_containers_of_an_image_made_for_it(void **state)
{
    (void)state;
    char id[80];
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), WANTED);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_IMPORT), 1);
    start(1);
    wait_warm(1);
    (void)dv_copy(id, sizeof(id), joined(1));
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, id);
    assert_string_equal(c->network, "davit");
    assert_string_equal(c->entrypoint.v[0], "/.davit/init");
    assert_string_equal(c->command.v[0], "hold");
    assert_true(c->read_only && c->memory_bytes > 0 && c->pids > 0 && c->files > 0);
    assert_int_equal(c->n_mounts, 1);
    assert_true(c->mounts[0].read_only);
}

static void a_replica_joins_a_ready_network_and_another_is_made(void **state)
{
    (void)state;
    start(1);
    wait_warm(1);
    assert_non_null(joined(1));
    assert_int_equal(spec_of(1)->hostname[0], '\0'); /* the engine refuses one */
    SW_UNTIL(n_networks("ready") == WANTED);
    assert_int_equal(n_networks("in_use"), 1);
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), WANTED + 2);
}

static void the_address_is_known_without_asking_and_usage_is_watched_all_the_same(void **state)
{
    (void)state;
    uint64_t begin = dv_clock_now_ns(&dv_clock_system);
    dv_engine_fake_delay(g_fake, DV_FAKE_INSPECT, 500);
    start(1);
    wait_warm(1);
    assert_true(dv_clock_now_ns(&dv_clock_system) - begin < 400 * DV_MS);
    SW_UNTIL((sw_take(true), sw_get(1)->r.memory_bytes > 0));
}

static void no_network_is_lent_twice(void **state)
{
    (void)state;
    char first[80], second[80];
    for (uint64_t id = 1; id <= 4; id++)
        start(id);
    for (uint64_t id = 1; id <= 4; id++)
        wait_warm(id);
    for (uint64_t id = 1; id <= 4; id++)
        for (uint64_t other = id + 1; other <= 4; other++) {
            (void)dv_copy(first, sizeof(first), joined(id) ? joined(id) : "none");
            (void)dv_copy(second, sizeof(second), joined(other) ? joined(other) : "none of them");
            assert_string_not_equal(first, second);
        }
}

static void with_none_ready_a_replica_gets_a_network_of_its_own_at_once(void **state)
{
    (void)state;
    dv_engine_fake_fail(g_fake, DV_FAKE_IMAGE_IMPORT, DV_E_ENGINE, "disk full", -1);
    for (uint64_t id = 1; id <= 3; id++)
        start(id);
    for (uint64_t id = 1; id <= 3; id++)
        wait_warm(id);
    assert_non_null(joined(1));
    assert_non_null(joined(2));
    assert_null(joined(3));
    assert_string_equal(spec_of(3)->hostname, "hello3");
    assert_int_equal(metric("davit_agent_networks_missed_total"), 1);
}

static void a_start_that_a_request_waits_for_goes_before_refills(void **state)
{
    (void)state;
    uint64_t made = metric("davit_agent_networks_made_total");
    dv_engine_fake_delay(g_fake, DV_FAKE_CREATE, 200);
    for (uint64_t id = 1; id <= 16; id++) /* eight at once, one of them a refill: begun when nobody waited */
        start(id);
    SW_UNTIL(metric("davit_agent_networks_made_total") == made + 1);
    assert_int_equal(n_networks("making"), 0); /* nine still waited, and took all the turns */
    for (uint64_t id = 1; id <= 16; id++)
        wait_warm(id);
    SW_UNTIL(n_networks("ready") == WANTED);
}

static void starts_without_end_do_not_starve_the_pool(void **state)
{
    (void)state;
    uint64_t made = metric("davit_agent_networks_made_total");
    dv_engine_fake_delay(g_fake, DV_FAKE_CREATE, 400);
    for (uint64_t id = 1; id <= 14; id++)
        start(id);
    SW_UNTIL(metric("davit_agent_networks_made_total") >= made + 2); /* one began before anybody waited */
    assert_true(sw_state(14) == DV_REPLICA_STARTING);
}

static void a_network_is_lent_again_when_its_replica_is_gone(void **state)
{
    (void)state;
    char network[80];
    start(1);
    wait_warm(1);
    SW_UNTIL(n_networks("ready") == WANTED);
    (void)dv_copy(network, sizeof(network), joined(1));
    stop(1);
    SW_UNTIL(n_networks("ready") == WANTED + 1); /* kept for a while: the next burst may want it */
    for (uint64_t id = 2; id <= 4; id++) {       /* the one that was used last comes last */
        start(id);
        wait_warm(id);
        assert_non_null(joined(id));
        assert_int_equal(strcmp(joined(id), network) == 0, id == 4);
    }
}

static void a_container_that_may_still_be_there_keeps_its_network(void **state)
{
    (void)state;
    char network[80];
    start(1);
    wait_warm(1);
    (void)dv_copy(network, sizeof(network), joined(1));
    SW_UNTIL(n_networks("ready") == WANTED);
    dv_engine_fake_fail(g_fake, DV_FAKE_REMOVE, DV_CONFLICT, "it is stuck", 1);
    stop(1);
    SW_UNTIL(n_networks("ready") == WANTED && !n_networks("removing"));
    assert_null(dv_engine_fake_spec(g_fake, network));
}

static void a_holder_that_dies_idle_is_replaced(void **state)
{
    (void)state;
    char network[80];
    start(1); /* to learn the name of one */
    wait_warm(1);
    (void)dv_copy(network, sizeof(network), joined(1));
    stop(1);
    SW_UNTIL(n_networks("in_use") + n_networks("closing") == 0);
    dv_engine_fake_exit(g_fake, network, 137, false);
    SW_UNTIL(metric("davit_agent_networks_lost_total") == 1);
    SW_UNTIL(n_networks("ready") == WANTED && !dv_engine_fake_spec(g_fake, network));
    start(2);
    wait_warm(2);
    assert_string_not_equal(joined(2), network);
}

static void a_holder_that_dies_in_use_ends_its_replica_for_no_fault_of_the_function(void **state)
{
    (void)state;
    char network[80];
    start(1);
    wait_warm(1);
    (void)dv_copy(network, sizeof(network), joined(1));
    dv_engine_fake_exit(g_fake, network, 137, false);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_ENGINE_DOWN);
    assert_non_null(strstr(sw_get(1)->message, "network"));
    SW_UNTIL(n_networks("ready") == WANTED && !n_networks("in_use") && !n_networks("removing"));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), WANTED);
}

static void a_holder_that_died_unseen_costs_a_start_one_more_try(void **state)
{
    (void)state;
    dv_engine_fake_fail(g_fake, DV_FAKE_START, DV_CONFLICT, "cannot join network of a non running container",
                        1);
    dv_engine_fake_fail(g_fake, DV_FAKE_INSPECT, DV_NOT_FOUND, "No such container", 1);
    start(1);
    wait_warm(1);
    assert_null(joined(1));
    SW_UNTIL(n_networks("ready") == WANTED && !n_networks("in_use") && !n_networks("removing"));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), WANTED + 1); /* nothing of the first try is left */
}

static void a_start_that_fails_in_a_good_network_fails_in_the_engines_words(void **state)
{
    (void)state;
    dv_engine_fake_fail(g_fake, DV_FAKE_START, DV_INVALID, "exec format error", 1);
    start(1);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_CREATE_FAILED);
    assert_non_null(strstr(sw_get(1)->message, "exec format error"));
    SW_UNTIL(n_networks("ready") >= WANTED && !n_networks("in_use"));
    assert_int_equal(metric("davit_agent_networks_lost_total"), 0);
}

static void a_process_that_ends_before_its_start_is_told_fails_with_its_exit_code(void **state)
{
    (void)state;
    char json[256];
    (void)snprintf(
        json, sizeof(json),
        "{\"name\":\"hello\",\"image\":\"hello:1\",\"port\":1,\"command\":[\"sh\",\"-c\",\"exit 3\"]}");
    sw_start(1, 1, json);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_EXITED);
    assert_int_equal(sw_get(1)->r.exit_code, 3);
}

static void a_replica_that_is_stopped_while_it_starts_gives_its_network_back(void **state)
{
    (void)state;
    dv_engine_fake_delay(g_fake, DV_FAKE_START, 20);
    start(1);
    SW_UNTIL(n_networks("in_use") == 1);
    stop(1);
    SW_UNTIL(!n_networks("in_use") && n_networks("ready") >= WANTED);
    assert_int_equal(metric("davit_agent_networks_lost_total"), 0);
}

static void an_engine_that_comes_back_without_its_containers_gets_a_new_pool(void **state)
{
    (void)state;
    start(1);
    wait_warm(1);
    SW_UNTIL(n_networks("ready") == WANTED);
    dv_engine_fake_down(g_fake, true);
    SW_UNTIL(!sw_engine_ok());
    dv_engine_fake_end_all(g_fake);
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    SW_UNTIL(sw_engine_ok() && n_networks("ready") == WANTED && !n_networks("removing"));
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == WANTED);
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), WANTED);
}

static void an_engine_that_kept_its_containers_keeps_the_pool(void **state)
{
    (void)state;
    uint64_t made = metric("davit_agent_networks_made_total");
    dv_engine_fake_down(g_fake, true);
    SW_UNTIL(!sw_engine_ok());
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_engine_ok() && n_networks("ready") == WANTED);
    assert_int_equal(metric("davit_agent_networks_made_total"), made);
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), WANTED);
}

static void a_restarted_agent_takes_over_networks_and_those_inside_them(void **state)
{
    (void)state;
    char network[80];
    start(1);
    wait_warm(1);
    (void)dv_copy(network, sizeof(network), joined(1));
    SW_UNTIL(n_networks("ready") == WANTED);
    restart_agent();
    SW_UNTIL(sw_engine_ok() && n_networks("ready") == WANTED && n_networks("in_use") == 1);
    wait_warm(1);
    assert_int_equal(metric("davit_agent_networks_made_total"), 0);
    for (uint64_t id = 2; id <= 3; id++) {
        start(id);
        wait_warm(id);
        assert_non_null(joined(id));
        assert_string_not_equal(joined(id), network);
    }
    stop(1);
    SW_UNTIL(n_networks("in_use") == 2 && !n_networks("closing"));
    assert_non_null(dv_engine_fake_spec(g_fake, network));
}

static void a_network_with_a_stranger_inside_is_not_lent_until_he_is_gone(void **state)
{
    (void)state;
    char network[80], file[128];
    start(1);
    wait_warm(1);
    (void)dv_copy(network, sizeof(network), joined(1));
    SW_UNTIL(n_networks("ready") == WANTED);
    dv_engine_fake_delay(g_fake, DV_FAKE_REMOVE, 100);
    (void)snprintf(file, sizeof(file), "%s/replicas/0000000000000001.json", sw.dir);
    assert_int_equal(unlink(file), 0); /* its container is nobody's now */
    restart_agent();
    SW_UNTIL(sw_engine_ok() && n_networks("ready") == WANTED);
    assert_int_equal(n_networks("found"), 1);
    for (uint64_t id = 2; id <= 4; id++) {
        start(id);
        wait_warm(id);
        assert_true(!joined(id) || strcmp(joined(id), network) != 0);
    }
}

static void a_restarted_agent_that_wants_fewer_removes_what_is_idle(void **state)
{
    (void)state;
    start(1);
    wait_warm(1);
    SW_UNTIL(n_networks("ready") == WANTED);
    sw.ready_networks = 0;
    restart_agent();
    wait_warm(1);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 2); /* the replica and what it is inside of */
    assert_int_equal(n_networks("in_use"), 1);
    stop(1);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 0);
}

static void none_is_made_when_none_is_wanted(void **state)
{
    (void)state;
    start(1);
    wait_warm(1);
    assert_null(joined(1));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 1);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_IMPORT), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_pool_is_filled_with_hardened_containers_of_an_image_made_for_it),
        T(a_replica_joins_a_ready_network_and_another_is_made),
        T(the_address_is_known_without_asking_and_usage_is_watched_all_the_same),
        T(no_network_is_lent_twice),
        T(with_none_ready_a_replica_gets_a_network_of_its_own_at_once),
        T(a_start_that_a_request_waits_for_goes_before_refills),
        T(starts_without_end_do_not_starve_the_pool),
        T(a_network_is_lent_again_when_its_replica_is_gone),
        T(a_container_that_may_still_be_there_keeps_its_network),
        T(a_holder_that_dies_idle_is_replaced),
        T(a_holder_that_dies_in_use_ends_its_replica_for_no_fault_of_the_function),
        T(a_holder_that_died_unseen_costs_a_start_one_more_try),
        T(a_start_that_fails_in_a_good_network_fails_in_the_engines_words),
        T(a_process_that_ends_before_its_start_is_told_fails_with_its_exit_code),
        T(a_replica_that_is_stopped_while_it_starts_gives_its_network_back),
        T(an_engine_that_comes_back_without_its_containers_gets_a_new_pool),
        T(an_engine_that_kept_its_containers_keeps_the_pool),
        T(a_restarted_agent_takes_over_networks_and_those_inside_them),
        T(a_network_with_a_stranger_inside_is_not_lent_until_he_is_gone),
        T(a_restarted_agent_that_wants_fewer_removes_what_is_idle),
        cmocka_unit_test_setup_teardown(none_is_made_when_none_is_wanted, setup_empty, teardown),
    };
    return cmocka_run_group_tests_name("ready networks", tests, NULL, NULL);
}
