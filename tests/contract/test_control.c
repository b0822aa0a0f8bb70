/* The state loop and its nodes: demand, links that break, restarts of either side, drains, logs. */
#include "proto/rt/httpd.h"
#include "tests/support/control_rig.h"

static void a_request_starts_a_function_from_zero_and_is_answered(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy("echo");
    assert_int_equal(status_of(uid).phase, DV_FN_ASLEEP);
    assert_int_equal(call_and_wait("echo"), 200);
    assert_string_equal(rig.body, "hello");
    assert_int_equal(rig.agents[0].started, 1);
    assert_int_equal(status_of(uid).phase, DV_FN_READY);
    assert_true(happened(uid, "created") && happened(uid, "placed") && happened(uid, "ready"));
    assert_true(rig.agents[0].syncs >= 1);
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    dv_control_metrics(rig.control, &text);
    assert_non_null(strstr(dv_buf_cstr(&text), "davit_cold_start_seconds_count{phase=\"total\"} 1"));
    assert_non_null(strstr(dv_buf_cstr(&text), "davit_replicas{state=\"warm\"} 1"));
}

static void a_request_that_came_before_any_node_is_answered_when_one_joins(void **state)
{
    (void)state;
    deploy("echo");
    call("echo");
    turn_for(100);
    assert_int_equal(join(&rig.agents[0]), DV_OK);
    WAIT_FOR(rig.status != 0);
    assert_int_equal(rig.status, 200);
}

static void a_broken_link_is_opened_again_and_changes_nothing(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy("echo");
    assert_int_equal(call_and_wait("echo"), 200);
    agent_cut_links(&rig.agents[0]);
    WAIT_FOR(node_state("node0") == DV_NODE_NOT_READY);
    assert_int_equal(status_of(uid).ready, 0);
    WAIT_FOR(status_of(uid).ready == 1);
    assert_int_equal(call_and_wait("echo"), 200);
    assert_int_equal(rig.agents[0].started, 1);
    assert_int_equal(rig.agents[0].stopped, 0);
}

static void a_restarted_agent_is_found_again_at_its_address(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    deploy("echo");
    assert_int_equal(call_and_wait("echo"), 200);
    agent_down(&rig.agents[0]);
    WAIT_FOR(node_state("node0") == DV_NODE_NOT_READY);
    call("echo");
    turn_for(100);
    assert_int_equal(rig.status, 0); /* it waits */
    agent_up(&rig.agents[0]);
    WAIT_FOR(rig.status != 0);
    assert_int_equal(rig.status, 200);
    assert_int_equal(rig.agents[0].started, 1);
}

static void a_restarted_orchestrator_adopts_what_runs_and_starts_no_duplicate(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    join_and_wait(&rig.agents[1]);
    uint64_t uid = deploy("echo");
    assert_int_equal(call_and_wait("echo"), 200);
    rig.agents[1].held[rig.agents[1].n_held++] = (struct held){77, 4711, 1, DV_REPLICA_WARM, 0, false};
    orchestrator_down();
    orchestrator_up();
    assert_int_equal(dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("echo"))->uid, uid);
    call("echo");
    WAIT_FOR(rig.status != 0);
    assert_int_equal(rig.status, 200);
    WAIT_FOR(rig.agents[1].n_held + rig.agents[0].n_held == 1); /* the stranger was stopped */
    assert_int_equal(rig.agents[0].started + rig.agents[1].started, 1);
    assert_int_equal(status_of(uid).ready, 1);
    assert_true(happened(uid, "adopted"));
}

static void a_failing_function_answers_503_with_its_reason_at_once(void **state)
{
    (void)state;
    rig.agents[0].fails = true;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy("broken");
    assert_int_equal(call_and_wait("broken"), 503);
    assert_non_null(strstr(rig.body, "no such file"));
    assert_int_equal(status_of(uid).phase, DV_FN_FAILED);
    assert_non_null(strstr(status_of(uid).message, "exit code 7"));
    assert_true(happened(uid, "failed"));
    rig.agents[0].fails = false; /* a deploy ends the back-off */
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("broken", &arena);
    s.image = (char *)"mended";
    assert_int_equal(put(&s, DV_PUT_REPLACE, DV_REV_ANY), DV_OK);
    assert_int_equal(call_and_wait("broken"), 200);
}

static void a_new_generation_replaces_the_old_and_a_new_maximum_does_not(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("echo", &arena);
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_OK);
    assert_int_equal(call_and_wait("echo"), 200);
    s.scale.max = 3;
    assert_int_equal(put(&s, DV_PUT_REPLACE, DV_REV_ANY), DV_OK);
    turn_for(50);
    assert_int_equal(rig.agents[0].started, 1);
    s.image = (char *)"other";
    assert_int_equal(put(&s, DV_PUT_REPLACE, DV_REV_ANY), DV_OK);
    WAIT_FOR(rig.agents[0].stopped == 1);
    assert_int_equal(rig.agents[0].started, 2);
    assert_int_equal(rig.agents[0].held[0].generation, 2);
    assert_int_equal(call_and_wait("echo"), 200);
}

static void a_node_keeps_its_identity_and_a_stranger_does_not_get_its_name(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    uint64_t id = rig.agents[0].id;
    uint8_t key[DV_LINK_KEY_BYTES];
    memcpy(key, rig.agents[0].key, sizeof(key));
    assert_int_equal(join(&rig.agents[0]), DV_OK);
    assert_true(rig.agents[0].id == id);
    assert_memory_equal(key, rig.agents[0].key, sizeof(key));
    (void)snprintf(rig.agents[1].name, sizeof(rig.agents[1].name), "node0");
    assert_int_equal(join(&rig.agents[1]), DV_CONFLICT);
    agent_down(&rig.agents[0]);
    WAIT_FOR(node_state("node0") == DV_NODE_NOT_READY);
    rig.agents[0].id = 0; /* its state directory was lost */
    agent_up(&rig.agents[0]);
    assert_int_equal(join(&rig.agents[0]), DV_OK);
    assert_true(rig.agents[0].id == id);
    WAIT_FOR(node_state("node0") == DV_NODE_READY);
}

static void draining_moves_replicas_and_outlives_a_restart(void **state)
{
    (void)state;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy("echo");
    assert_int_equal(call_and_wait("echo"), 200);
    join_and_wait(&rig.agents[1]);
    assert_int_equal(WRITE(dv_control_node_op(rig.control, DV_SV("node0"), DV_NODE_DRAIN, done, NULL, NULL)),
                     DV_OK);
    WAIT_FOR(rig.agents[0].n_held == 0);
    assert_int_equal(rig.agents[1].n_held, 1);
    assert_int_equal(status_of(uid).ready, 1);
    orchestrator_down();
    orchestrator_up();
    WAIT_FOR(node_state("node0") == DV_NODE_DRAINING);
    assert_int_equal(
        WRITE(dv_control_node_op(rig.control, DV_SV("node0"), DV_NODE_UNCORDON, done, NULL, NULL)), DV_OK);
    WAIT_FOR(node_state("node0") == DV_NODE_READY);
    agent_down(&rig.agents[0]);
    WAIT_FOR(node_state("node0") == DV_NODE_NOT_READY);
    assert_int_equal(WRITE(dv_control_node_op(rig.control, DV_SV("node0"), DV_NODE_REMOVE, done, NULL, NULL)),
                     DV_OK);
    assert_int_equal(dv_control_node_op(rig.control, DV_SV("node0"), DV_NODE_DRAIN, done, NULL, NULL),
                     DV_NOT_FOUND);
}

static void a_connected_node_is_removed_only_by_force_and_then_stops_its_replicas(void **state)
{
    (void)state;
    struct agent *a = &rig.agents[0];
    join_and_wait(a);
    uint64_t uid = deploy("echo");
    assert_int_equal(call_and_wait("echo"), 200);
    struct dv_err err = DV_ERR_INIT;
    assert_int_equal(dv_control_node_op(rig.control, DV_SV("node0"), DV_NODE_REMOVE, done, NULL, &err),
                     DV_CONFLICT);
    assert_non_null(strstr(err.msg, "drain it and stop its agent"));
    assert_non_null(strstr(err.msg, "--force"));
    assert_int_equal(node_state("node0"), DV_NODE_READY);
    assert_int_equal(a->n_held, 1);
    assert_int_equal(
        WRITE(dv_control_node_op(rig.control, DV_SV("node0"), DV_NODE_REMOVE_FORCED, done, NULL, NULL)),
        DV_OK);
    struct dv_node_status none;
    assert_int_equal(dv_control_node_find(rig.control, DV_SV("node0"), &none), DV_NOT_FOUND);
    WAIT_FOR(a->n_held == 0);
    assert_int_equal(status_of(uid).ready, 0);
    assert_int_equal(join(a), DV_CONFLICT); /* it lives on and asks again */
    assert_non_null(strstr(rig.err.msg, "restart its agent"));
    agent_down(a);
    agent_up(a); /* another incarnation */
    join_and_wait(a);
    assert_int_equal(call_and_wait("echo"), 200);
}

static void requests_wait_for_the_only_node_while_its_agent_restarts(void **state)
{
    (void)state;
    struct agent *a = &rig.agents[0];
    join_and_wait(a);
    (void)deploy("echo");
    assert_int_equal(call_and_wait("echo"), 200);
    for (int with_replica = 1; with_replica >= 0; with_replica--) {
        agent_down(a);
        if (!with_replica)
            a->n_held = 0; /* the whole machine came anew */
        WAIT_FOR(node_state("node0") == DV_NODE_NOT_READY);
        call("echo");
        turn_for(300);
        assert_int_equal(rig.status, 0);
        agent_up(a);
        WAIT_FOR(rig.status != 0);
        assert_int_equal(rig.status, 200);
    }
}

struct reader {
    int lines, ends;
    struct dv_logs *logs;
};

static void nodes_are_told_their_pools_when_they_connect_and_when_it_changes(void **state)
{
    (void)state;
    struct agent *a = &rig.agents[0], *b = &rig.agents[1];
    join_and_wait(a);
    WAIT_FOR(a->pools == 1);
    assert_int_equal(a->primed, 0);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("echo", &arena);
    s.scale.primed = 6;
    assert_int_equal(put(&s, DV_PUT_CREATE, DV_REV_ANY), DV_OK);
    WAIT_FOR(a->pools == 2);
    assert_int_equal(a->primed, 6);
    assert_string_equal(a->primed_image, s.image);
    join_and_wait(b);
    WAIT_FOR(b->primed == 3 && a->primed == 3);
    int told = a->pools;
    agent_cut_links(a);
    WAIT_FOR(a->pools == told + 1);
    assert_int_equal(a->primed, 3);
    orchestrator_down();
    orchestrator_up();
    WAIT_FOR(a->pools == told + 2 && b->pools > 1); /* at once with the right number: not to zero and back */
    assert_int_equal(a->primed, 3);
    assert_int_equal(WRITE(dv_control_fn_delete(rig.control, DV_SV("default"), DV_SV("echo"), DV_REV_ANY,
                                                done, NULL, &rig.err)),
                     DV_OK);
    WAIT_FOR(a->primed == 0 && b->primed == 0);
}

static void on_line(void *ctx, uint64_t node, const struct dv_log_line *line)
{
    (void)node;
    (void)line;
    ((struct reader *)ctx)->lines++;
}

static void on_end(void *ctx)
{
    ((struct reader *)ctx)->ends++;
}

static void logs_are_gathered_from_all_nodes(void **state)
{
    (void)state;
    struct reader r = {0};
    uint64_t uid = deploy("echo");
    struct dv_logs_request req = {.fn_uid = uid, .tail = -1, .line = on_line, .end = on_end, .ctx = &r};
    assert_int_equal(dv_control_logs_open(rig.control, &req, &r.logs, NULL), DV_OK);
    WAIT_FOR(r.ends == 1); /* no node at all */
    join_and_wait(&rig.agents[0]);
    join_and_wait(&rig.agents[1]);
    assert_int_equal(dv_control_logs_open(rig.control, &req, &r.logs, NULL), DV_OK);
    WAIT_FOR(r.ends == 2);
    assert_int_equal(r.lines, 4);
    req.follow = true;
    assert_int_equal(dv_control_logs_open(rig.control, &req, &r.logs, NULL), DV_OK);
    WAIT_FOR(r.lines == 8);
    turn_for(50);
    assert_int_equal(r.ends, 2);
    dv_control_logs_close(r.logs);
    turn_for(20);
    assert_int_equal(r.ends, 2);
    assert_int_equal(dv_control_logs_open(rig.control, &req, &r.logs, NULL), DV_OK);
    WAIT_FOR(r.lines == 12);
    assert_int_equal(WRITE(dv_control_fn_delete(rig.control, DV_SV(DV_NS_DEFAULT), DV_SV("echo"), DV_REV_ANY,
                                                done, NULL, NULL)),
                     DV_OK);
    WAIT_FOR(r.ends == 3); /* nobody follows what is gone */
}

static void readiness_says_what_is_missing(void **state)
{
    (void)state;
    char text[128];
    assert_false(dv_control_ready(rig.control, text, sizeof(text)));
    assert_string_equal(text, "no node has joined");
    join_and_wait(&rig.agents[0]);
    assert_true(dv_control_ready(rig.control, text, sizeof(text)));
    assert_string_equal(text, "1 of 1 nodes ready");
}

static double served; /* by an endpoint elsewhere */

static void serve_metric(void *ctx, struct dv_http_req *r)
{
    char text[64];
    (void)ctx;
    (void)snprintf(text, sizeof(text), "depth %g\n", served);
    dv_http_reply(r, 200, "text/plain", dv_sv_c(text));
}

static uint64_t deploy_with_metric(const char *url, double target)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of("metered", &arena);
    struct dv_metric m = {
        .name = (char *)"depth", .url = (char *)(uintptr_t)url, .target = target, .interval_ms = 1000};
    s.scale.idle_ms = 500;
    s.scale.window_ms = 6000;
    s.scale.down_ms = 1;
    s.scale.metrics = &m;
    s.scale.n_metrics = 1;
    assert_int_equal(put(&s, DV_PUT_UPSERT, DV_REV_ANY), DV_OK);
    return dv_control_fn_find(rig.control, DV_SV("default"), DV_SV("metered"))->uid;
}

static void a_metric_elsewhere_is_read_and_followed(void **state)
{
    (void)state;
    struct dv_httpd_cfg cfg = {.address = "127.0.0.1:0", .body_max = 100, .on_request = serve_metric};
    struct dv_httpd *d;
    char url[64];
    assert_int_equal(dv_httpd_start(rig.loop, &cfg, &d, NULL), DV_OK);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/metrics", dv_httpd_port(d));
    served = 25;
    join_and_wait(&rig.agents[0]);
    uint64_t uid = deploy_with_metric(url, 10);
    WAIT_FOR(status_of(uid).ready == 3);
    assert_non_null(strstr(status_of(uid).scale_reason, "metric depth is 25"));
    served = 0;
    WAIT_FOR(status_of(uid).asked == 0);
    assert_int_equal(WRITE(dv_control_fn_delete(rig.control, DV_SV("default"), DV_SV("metered"), DV_REV_ANY,
                                                done, NULL, NULL)),
                     DV_OK);
    dv_httpd_stop(d);
}

static void a_metric_of_replicas_is_read_by_their_agents_and_what_is_not_theirs_is_not_taken(void **state)
{
    (void)state;
    struct agent *a = &rig.agents[0];
    join_and_wait(a);
    a->metric = 0;
    uint64_t uid = deploy_with_metric("replica:/metrics", 10);
    assert_int_equal(status_of(uid).asked, 0);
    a->metric = 20; /* of each: with one there is work for two, with two for four, and four is the maximum */
    assert_int_equal(call_and_wait("metered"), 200);
    WAIT_FOR(status_of(uid).ready == 4);
    assert_true(a->readings > 0);
    a->metric = 5; /* half as many, and again; were the forged ones taken, it would stay at the maximum */
    WAIT_FOR(status_of(uid).asked == 1);
    a->metric = -1;
    turn_for(3000); /* longer than its idle time */
    assert_int_equal(status_of(uid).asked, 1);
}

int main(void)
{
    dv_log_setup(DV_LOG_ERROR, DV_LOG_LOGFMT, 2);
    const struct CMUnitTest tests[] = {
        TEST(a_request_starts_a_function_from_zero_and_is_answered),
        TEST(a_request_that_came_before_any_node_is_answered_when_one_joins),
        TEST(a_broken_link_is_opened_again_and_changes_nothing),
        TEST(a_restarted_agent_is_found_again_at_its_address),
        TEST(a_restarted_orchestrator_adopts_what_runs_and_starts_no_duplicate),
        TEST(a_failing_function_answers_503_with_its_reason_at_once),
        TEST(a_new_generation_replaces_the_old_and_a_new_maximum_does_not),
        TEST(a_node_keeps_its_identity_and_a_stranger_does_not_get_its_name),
        TEST(draining_moves_replicas_and_outlives_a_restart),
        TEST(a_connected_node_is_removed_only_by_force_and_then_stops_its_replicas),
        TEST(requests_wait_for_the_only_node_while_its_agent_restarts),
        TEST(nodes_are_told_their_pools_when_they_connect_and_when_it_changes),
        TEST(logs_are_gathered_from_all_nodes),
        TEST(a_metric_elsewhere_is_read_and_followed),
        TEST(a_metric_of_replicas_is_read_by_their_agents_and_what_is_not_theirs_is_not_taken),
        TEST(readiness_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
