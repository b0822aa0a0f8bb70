/* The agent's end of the cluster: joining over HTTP, and the node links, with an orchestrator played by the
 * test on the same loop.  The engine is the one in memory. */
#include "agent/engine/engine_fake.h"
#include "agent/node/identity.h"
#include "agent/node/join.h"
#include "agent/node/session.h"
#include "agent/cgroup/cgroup.h"
#include "proto/rt/httpd.h"
#include "tests/support/sandbox_world.h"

#include <sys/socket.h>
#include <sys/stat.h>

static struct {
    struct dv_engine_fake *fake;
    struct dv_session *session;
    struct dv_identity id;
    int listen_fd, fn_port;
    char address[32];
    /* the orchestrator */
    struct dv_linkio *control, *data;
    bool is_control_open, is_data_open, is_control_closed, is_going;
    int n_node, n_full, n_partial, n_log_chunks, n_opens, n_closes;
    bool engine_ok;
    char last_state[32], log_text[64];
    uint64_t node_told;
} w;

static void on_control_event(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    w.is_control_open = w.is_control_open || ev->kind == DV_LINK_EV_OPEN;
    w.is_going = w.is_going || ev->kind == DV_LINK_EV_GOAWAY;
    if (ev->kind != DV_LINK_EV_REPORT)
        return;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_report r;
    struct dv_err err = DV_ERR_INIT;
    if (dv_wire_decode(&dv_type_report, ev->bytes, DV_LINK_MAX_MESSAGE, DV_WIRE_STRICT, &arena, &r, &err))
        fail_msg("%s: %s", err.field, err.msg);
    if (r.node) {
        w.n_node++;
        w.engine_ok = r.node->engine_ok;
        w.node_told = r.node->node;
        assert_true(r.node->cpus > 0 && r.node->memory_bytes > 0);
    } else if (r.logs) {
        w.n_log_chunks++;
        if (r.logs->n_lines)
            (void)dv_copy(w.log_text, sizeof(w.log_text), r.logs->lines[0].text);
    } else {
        *(r.is_full ? &w.n_full : &w.n_partial) += 1;
        for (size_t i = 0; i < r.n_replicas; i++)
            (void)dv_copy(w.last_state, sizeof(w.last_state), dv_replica_state_name(r.replicas[i].state));
    }
}

static void on_control_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)code;
    (void)err;
    w.is_control_closed = true;
}

static void on_data_event(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    w.is_data_open = w.is_data_open || ev->kind == DV_LINK_EV_OPEN;
}

static void on_control(void *ctx, bool is_open)
{
    (void)ctx;
    *(is_open ? &w.n_opens : &w.n_closes) += 1;
}

static void on_change(void *ctx)
{
    (void)ctx;
    if (w.session)
        dv_session_changed(w.session);
}

static void on_logs(void *ctx, const struct dv_log_chunk *chunk)
{
    (void)ctx;
    dv_session_logs(w.session, chunk);
}

static void on_start(void *ctx, struct dv_engine_fake_started *s)
{
    (void)ctx;
    (void)dv_copy(s->address, sizeof(s->address), "127.0.0.1");
}

#define UNTIL(what)                                                                                          \
    do {                                                                                                     \
        for (int turn_ = 0; turn_ < 5000 && !(what); turn_++)                                                \
            assert_int_equal(dv_loop_turn(sw.loop, 2), DV_OK);                                               \
        assert_true(what);                                                                                   \
    } while (0)

static struct dv_linkio *dial(enum dv_link_purpose purpose, uint8_t key_byte,
                              void (*on_event)(void *ctx, const struct dv_link_event *ev))
{
    struct dv_linkio *io;
    struct dv_linkio_cfg cfg = {
        .link = {.role = DV_LINK_CLIENT, .purpose = purpose, .node = w.id.node, .on_event = on_event},
        .is_near_first = purpose == DV_LINK_DATA_CONN,
        .on_closed = on_control_closed};
    memset(cfg.link.key, key_byte, sizeof(cfg.link.key));
    assert_int_equal(dv_linkio_connect(sw.loop, w.address, &cfg, &io, NULL), DV_OK);
    return io;
}

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    sw_open();
    assert_int_equal(dv_engine_fake_open(sw.loop, &w.fake), DV_OK);
    sw.engine = dv_engine_fake_engine(w.fake);
    dv_engine_fake_on_start(w.fake, on_start, NULL);
    dv_engine_fake_add_image(w.fake, "hello:1", NULL, true);
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &w.listen_fd, NULL), DV_OK);
    w.fn_port = dv_socket_port(w.listen_fd);
    int fd;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    (void)snprintf(w.address, sizeof(w.address), "127.0.0.1:%d", dv_socket_port(fd));
    struct dv_session_cfg sc = {.loop = sw.loop,
                                .listen_fd = fd,
                                .address = w.address,
                                .carry = sw.carry,
                                .replicas_max = 10,
                                .on_control = on_control};
    assert_int_equal(dv_session_new(&sc, &w.session, NULL), DV_OK);
    struct dv_sandbox_cfg cfg = {.loop = sw.loop,
                                 .engine = sw.engine,
                                 .carry = sw.carry,
                                 .node = SW_NODE,
                                 .state_dir = sw.dir,
                                 .run_dir = sw.dir,
                                 .init_path = "/x",
                                 .network = "davit",
                                 .replicas_max = 10,
                                 .on_change = on_change,
                                 .on_logs = on_logs};
    assert_int_equal(dv_sandbox_new(&cfg, &sw.sb, NULL), DV_OK);
    w.id = (struct dv_identity){.node = SW_NODE, .incarnation = 3};
    memset(w.id.key, 'k', sizeof(w.id.key));
    dv_session_open(w.session, &w.id, sw.sb);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dv_linkio_free(w.control);
    dv_linkio_free(w.data);
    dv_session_free(w.session);
    sw.engine->ops->close(sw.engine);
    sw_close();
    (void)close(w.listen_fd);
    return 0;
}

static void open_control(void)
{
    w.control = dial(DV_LINK_CONTROL_CONN, 'k', on_control_event);
    UNTIL(w.is_control_open && dv_session_has_control(w.session));
}

static void command(struct dv_control_msg *msg)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    assert_int_equal(dv_wire_encode(&dv_type_control, msg, &b), DV_OK);
    assert_int_equal(dv_link_control(dv_linkio_link(w.control), dv_buf_sv(&b)), DV_OK);
    dv_linkio_kick(w.control);
}

static void start_hello(uint64_t id)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    char json[128];
    struct dv_cmd_start start = {.id = id, .fn_uid = 7, .generation = 1};
    (void)snprintf(json, sizeof(json), "{\"name\":\"hello\",\"image\":\"hello:1\",\"port\":%d}", w.fn_port);
    assert_int_equal(dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 4096, 0, &arena, &start.spec, NULL),
                     DV_OK);
    assert_int_equal(dv_fn_spec_finish(&start.spec, &arena, NULL), DV_OK);
    command(&(struct dv_control_msg){.type = "start", .start = &start});
}

/* ---- links ---- */

static void a_control_link_begins_with_a_whole_report_and_the_node(void **state)
{
    (void)state;
    open_control();
    UNTIL(w.n_full == 1 && w.n_node >= 1);
    assert_true(w.node_told == SW_NODE);
    assert_int_equal(w.n_opens, 1);
    UNTIL(w.engine_ok); /* told without waiting for the next regular report */
}

static void a_start_command_is_obeyed_and_every_step_reported(void **state)
{
    (void)state;
    open_control();
    UNTIL(w.engine_ok);
    start_hello(1);
    UNTIL(!strcmp(w.last_state, "warm"));
    assert_true(w.n_partial >= 1);
    assert_int_equal(dv_engine_fake_count(w.fake, "running"), 1);
    command(&(struct dv_control_msg){.type = "stop", .stop = &(struct dv_cmd_stop){.id = 1, .grace_ms = -1}});
    UNTIL(!strcmp(w.last_state, "gone"));
    assert_int_equal(dv_engine_fake_count(w.fake, NULL), 0);
}

static void log_lines_are_sent_as_asked(void **state)
{
    (void)state;
    open_control();
    UNTIL(w.engine_ok);
    start_hello(1);
    UNTIL(!strcmp(w.last_state, "warm"));
    dv_engine_fake_log(w.fake, "davit-hello-00000000", false, "a line");
    command(&(struct dv_control_msg){.type = "logs",
                                     .logs = &(struct dv_cmd_logs){.request = 4, .fn_uid = 7, .tail = -1}});
    UNTIL(w.log_text[0]);
    assert_string_equal(w.log_text, "a line");
}

static void rubbish_on_the_control_link_is_not_obeyed_and_does_no_harm(void **state)
{
    (void)state;
    open_control();
    UNTIL(w.engine_ok);
    assert_int_equal(dv_link_control(dv_linkio_link(w.control), DV_SV("{\"type\":\"start\"}")), DV_OK);
    assert_int_equal(dv_link_control(dv_linkio_link(w.control), DV_SV("no json")), DV_OK);
    dv_linkio_kick(w.control);
    start_hello(1);
    UNTIL(!strcmp(w.last_state, "warm"));
}

static void the_newest_control_link_counts(void **state)
{
    (void)state;
    open_control();
    struct dv_linkio *old = w.control;
    w.is_control_open = false;
    w.control = dial(DV_LINK_CONTROL_CONN, 'k', on_control_event);
    UNTIL(w.is_control_open && w.is_control_closed);
    dv_linkio_free(old);
    assert_true(dv_session_has_control(w.session));
    assert_int_equal(w.n_closes, 0); /* there was never none */
}

static void a_link_with_a_wrong_key_is_refused(void **state)
{
    (void)state;
    w.control = dial(DV_LINK_CONTROL_CONN, 'x', on_control_event);
    UNTIL(w.is_control_closed);
    assert_false(w.is_control_open);
    assert_false(dv_session_has_control(w.session));
}

static void data_links_go_to_the_carry(void **state)
{
    (void)state;
    w.data = dial(DV_LINK_DATA_CONN, 'k', on_data_event);
    UNTIL(w.is_data_open);
    assert_false(dv_session_has_control(w.session));
    struct dv_link_request req = {.replica = 99, .method = DV_SV("GET"), .target = DV_SV("/")};
    uint32_t stream;
    assert_int_equal(dv_link_open_stream(dv_linkio_link(w.data), &req, true, NULL, &stream), DV_OK);
    dv_linkio_kick(w.data);
    UNTIL(dv_link_n_streams(dv_linkio_link(w.data)) == 0); /* reset: no such replica */
}

static void a_gateway_of_the_same_machine_comes_without_tcp_until_the_agent_leaves(void **state)
{
    (void)state;
    struct sockaddr_storage peer;
    socklen_t n = sizeof(peer);
    int fd;
    assert_int_equal(dv_listen_near(w.address, &fd, NULL), DV_EXISTS);
    w.data = dial(DV_LINK_DATA_CONN, 'k', on_data_event);
    UNTIL(w.is_data_open);
    assert_int_equal(getpeername(dv_linkio_fd(w.data), (struct sockaddr *)&peer, &n), 0);
    assert_int_equal(peer.ss_family, AF_UNIX);
    open_control();
    dv_session_goaway(w.session);
    assert_int_equal(dv_listen_near(w.address, &fd, NULL), DV_OK); /* the next agent's place */
    (void)close(fd);
}

static void losing_the_control_link_is_told_and_replicas_stay(void **state)
{
    (void)state;
    open_control();
    UNTIL(w.engine_ok);
    start_hello(1);
    UNTIL(!strcmp(w.last_state, "warm"));
    dv_linkio_free(w.control);
    w.control = NULL;
    UNTIL(w.n_closes == 1);
    assert_int_equal(dv_engine_fake_count(w.fake, "running"), 1);
    w.is_control_open = false;
    w.last_state[0] = '\0';
    w.n_full = 0;
    open_control();
    UNTIL(w.n_full == 1);
    assert_string_equal(w.last_state, "warm"); /* learned back from the agent */
}

static void a_leaving_agent_says_so(void **state)
{
    (void)state;
    open_control();
    UNTIL(dv_session_is_quiet(w.session) && w.n_full);
    dv_session_goaway(w.session);
    UNTIL(w.is_going);
    w.last_state[0] = '\0';
    start_hello(1); /* and goes on obeying and reporting */
    UNTIL(!strcmp(w.last_state, "warm"));
}

static void a_link_in_its_handshake_may_still_bring_requests(void **state)
{
    (void)state;
    open_control();
    UNTIL(dv_session_is_quiet(w.session));
    w.data = dial(DV_LINK_DATA_CONN, 'k', on_data_event);
    UNTIL(!dv_session_is_quiet(w.session));
    dv_session_goaway(w.session); /* it was taken before */
    UNTIL(w.is_data_open && dv_session_is_quiet(w.session));
}

/* ---- joining ---- */

static struct {
    int n_asked, status;
    char token[64], name[32], body[160];
    bool is_joined;
    uint64_t node;
} j;

static void on_join_request(void *ctx, struct dv_http_req *r)
{
    (void)ctx;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_join join;
    struct dv_sv auth = dv_http_header(r, "Authorization");
    j.n_asked++;
    (void)snprintf(j.token, sizeof(j.token), "%.*s", (int)auth.n, auth.p ? auth.p : "");
    assert_true(dv_sv_eq(dv_http_path(r), DV_SV("/v1/nodes/join")));
    assert_int_equal(dv_wire_decode(&dv_type_join, dv_http_body(r), 65536, 0, &arena, &join, NULL), DV_OK);
    (void)dv_copy(j.name, sizeof(j.name), join.name);
    dv_http_reply(r, j.n_asked == 1 ? j.status : 200, "application/json", dv_sv_c(j.body));
}

static void on_joined(void *ctx, const struct dv_join_reply *reply)
{
    struct dv_identity *id = ctx;
    assert_int_equal(dv_identity_take(id, sw.dir, reply, NULL), DV_OK);
    j.is_joined = true;
}

static void joining_is_tried_until_it_works_and_kept(void **state)
{
    (void)state;
    struct dv_httpd *httpd;
    struct dv_join_client *client;
    struct dv_identity id = {0}, again;
    char url[64], path[128];
    memset(&j, 0, sizeof(j));
    j.status = 401;
    (void)snprintf(j.body, sizeof(j.body), "{\"node\":\"00000000000000ab\",\"key\":\"%064d\"}", 7);
    struct dv_httpd_cfg hc = {.address = "127.0.0.1:0", .body_max = 65536, .on_request = on_join_request};
    assert_int_equal(dv_httpd_start(sw.loop, &hc, &httpd, NULL), DV_OK);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/", dv_httpd_port(httpd));
    struct dv_join_cfg jc = {
        .loop = sw.loop, .orchestrator = url, .token = "t0ken", .on_joined = on_joined, .ctx = &id};
    assert_int_equal(dv_join_new(&jc, &client, NULL), DV_OK);
    struct dv_join join = {.name = "n1", .incarnation = 5, .address = "127.0.0.1:1", .version = "0"};
    assert_int_equal(dv_join_start(client, &join), DV_OK);
    UNTIL(j.n_asked == 1 && dv_join_error(client)[0]);
    assert_non_null(strstr(dv_join_error(client), "join token"));
    UNTIL(j.is_joined); /* a second later, by itself */
    assert_false(dv_join_is_asking(client));
    assert_string_equal(j.token, "Bearer t0ken");
    assert_string_equal(j.name, "n1");
    assert_int_equal(id.node, 0xab);
    dv_join_free(client);
    dv_httpd_stop(httpd);
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/node.json", sw.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(dv_identity_load(sw.dir, &again, NULL), DV_OK);
    assert_int_equal(again.node, 0xab);
    assert_memory_equal(again.key, id.key, sizeof(id.key));
    assert_true(again.incarnation != 0);
}

static void a_damaged_identity_is_refused_with_the_cure(void **state)
{
    (void)state;
    char path[128];
    struct dv_identity id = {.node = 9};
    struct dv_err err = DV_ERR_INIT;
    (void)snprintf(path, sizeof(path), "%s/node.json", sw.dir);
    assert_int_equal(dv_file_write(path, DV_SV("{\"node\":"), 0600, NULL), DV_OK);
    assert_int_equal(dv_identity_load(sw.dir, &id, &err), DV_INVALID);
    assert_non_null(strstr(err.msg, "remove it to join as a new node"));
    assert_int_equal(id.node, 9);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    (void)dv_cgroup_setup(NULL); /* only the version is of interest here */
    const struct CMUnitTest tests[] = {
        T(a_control_link_begins_with_a_whole_report_and_the_node),
        T(a_start_command_is_obeyed_and_every_step_reported),
        T(log_lines_are_sent_as_asked),
        T(rubbish_on_the_control_link_is_not_obeyed_and_does_no_harm),
        T(the_newest_control_link_counts),
        T(a_link_with_a_wrong_key_is_refused),
        T(data_links_go_to_the_carry),
        T(a_gateway_of_the_same_machine_comes_without_tcp_until_the_agent_leaves),
        T(losing_the_control_link_is_told_and_replicas_stay),
        T(a_leaving_agent_says_so),
        T(a_link_in_its_handshake_may_still_bring_requests),
        T(joining_is_tried_until_it_works_and_kept),
        T(a_damaged_identity_is_refused_with_the_cure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
