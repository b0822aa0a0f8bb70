/* A replica's life under a control link (start, ready, stop) with every allocation of it failing in turn,
 * engine in memory: whatever was missed, the whole reports and the orchestrator's asking again bring the node
 * to where it is wanted, and nothing stays behind in the engine. */
#include "agent/engine/engine_fake.h"
#include "agent/node/session.h"
#include "tests/support/sandbox_world.h"

enum { REPLICA = 0x51, TURNS_MAX = 20000 };

static struct {
    struct dv_engine_fake *fake;
    struct dv_session *session;
    struct dv_linkio *control;
    int listen_fd, fn_port, port;
    bool is_open, is_closed;
    enum dv_replica_state told;
    bool was_told;
} w;

static int64_t g_networks; /* kept ready in this run */

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

static void on_control(void *ctx, bool is_open)
{
    (void)ctx;
    (void)is_open;
}

static void on_start(void *ctx, struct dv_engine_fake_started *s)
{
    (void)ctx;
    (void)dv_copy(s->address, sizeof(s->address), "127.0.0.1");
}

/* ---- the orchestrator's end: it repeats itself, and its own allocations fail as well ---- */

static void on_report(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    w.is_open = w.is_open || ev->kind == DV_LINK_EV_OPEN;
    if (ev->kind != DV_LINK_EV_REPORT)
        return;
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_report r;
    if (dv_wire_decode(&dv_type_report, ev->bytes, DV_LINK_MAX_MESSAGE, DV_WIRE_STRICT, &arena, &r, NULL))
        return;
    for (size_t i = 0; i < r.n_replicas; i++)
        if (r.replicas[i].id == REPLICA) {
            w.was_told = true;
            w.told = r.replicas[i].state;
        }
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)code;
    (void)err;
    w.is_closed = true;
}

static void dial(void)
{
    char address[32];
    struct dv_linkio_cfg cfg = {.link = {.role = DV_LINK_CLIENT,
                                         .purpose = DV_LINK_CONTROL_CONN,
                                         .node = SW_NODE,
                                         .on_event = on_report},
                                .on_closed = on_closed};
    memset(cfg.link.key, 'k', sizeof(cfg.link.key));
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", w.port);
    if (w.is_closed) {
        dv_linkio_free(w.control);
        w.control = NULL;
        w.is_open = w.is_closed = false;
    }
    if (!w.control && dv_linkio_connect(sw.loop, address, &cfg, &w.control, NULL))
        w.control = NULL;
}

static void command(struct dv_control_msg *msg)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    if (!w.is_open || w.is_closed || dv_wire_encode(&dv_type_control, msg, &b))
        return;
    if (!dv_link_control(dv_linkio_link(w.control), dv_buf_sv(&b)))
        dv_linkio_kick(w.control);
}

static void send_start(void)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    char json[128];
    struct dv_cmd_start start = {.id = REPLICA, .fn_uid = 7, .generation = 1};
    (void)snprintf(json, sizeof(json), "{\"name\":\"hello\",\"image\":\"hello:1\",\"port\":%d}", w.fn_port);
    if (dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 4096, 0, &arena, &start.spec, NULL) ||
        dv_fn_spec_finish(&start.spec, &arena, NULL))
        return;
    command(&(struct dv_control_msg){.type = "start", .start = &start});
}

static void send_stop(void)
{
    struct dv_cmd_stop stop = {.id = REPLICA, .grace_ms = 0, .now = true};
    command(&(struct dv_control_msg){.type = "stop", .stop = &stop});
}

/* ---- a world per round ---- */

static void open_world(void)
{
    int fd;
    memset(&w, 0, sizeof(w));
    sw_open();
    assert_int_equal(dv_engine_fake_open(sw.loop, &w.fake), DV_OK);
    sw.engine = dv_engine_fake_engine(w.fake);
    dv_engine_fake_on_start(w.fake, on_start, NULL);
    dv_engine_fake_add_image(w.fake, "hello:1", NULL, true);
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &w.listen_fd, NULL), DV_OK);
    w.fn_port = dv_socket_port(w.listen_fd);
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    w.port = dv_socket_port(fd);
    struct dv_session_cfg sc = {
        .loop = sw.loop, .listen_fd = fd, .carry = sw.carry, .replicas_max = 10, .on_control = on_control};
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
                                 .ready_networks = g_networks,
                                 .on_change = on_change,
                                 .on_logs = on_logs};
    assert_int_equal(dv_sandbox_new(&cfg, &sw.sb, NULL), DV_OK);
    struct dv_identity id = {.node = SW_NODE, .incarnation = 3};
    memset(id.key, 'k', sizeof(id.key));
    dv_session_open(w.session, &id, sw.sb);
    for (int i = 0; i < TURNS_MAX && !(w.is_open && sw_engine_ok()); i++) {
        dial();
        assert_int_equal(dv_loop_turn(sw.loop, 2), DV_OK);
    }
    assert_true(w.is_open && sw_engine_ok());
}

static void close_world(void)
{
    dv_linkio_free(w.control);
    dv_session_free(w.session);
    w.session = NULL;
    sw.engine->ops->close(sw.engine);
    sw_close();
    (void)close(w.listen_fd);
}

/* The node is where it is wanted, or said honestly that it cannot. */
static bool reached(bool up)
{
    if (up)
        return w.was_told && (w.told == DV_REPLICA_WARM || w.told == DV_REPLICA_FAILED);
    size_t n = dv_engine_fake_labelled(w.fake, "dev.davit.holder");
    return dv_sandbox_n_replicas(sw.sb) == 0 && dv_engine_fake_count(w.fake, NULL) == n &&
           (int64_t)n <= g_networks + 1; /* and the one that came back */
}

/* Asks again every 20 ms. */
static void drive(bool up, uint64_t n)
{
    uint64_t begin = dv_clock_now_ns(&dv_clock_system), end = begin + 15 * DV_S, again = 0;
    bool is_bounced = false;
    while (!reached(up)) {
        uint64_t now = dv_clock_now_ns(&dv_clock_system);
        if (now > end)
            fail_msg("allocation %llu: the replica is not %s after 15 s (told %d, state %d, %zu containers)",
                     (unsigned long long)n, up ? "up" : "gone", w.was_told, (int)w.told,
                     dv_engine_fake_count(w.fake, NULL));
        dial();
        if (!up && now > begin + 200 * DV_MS && !is_bounced && dv_sandbox_n_replicas(sw.sb) == 0) {
            /* What was left behind goes with the next comparison, ten seconds away or when the engine is
             * back. */
            dv_engine_fake_down(w.fake, true);
            for (int i = 0; i < TURNS_MAX && sw_engine_ok(); i++)
                (void)dv_loop_turn(sw.loop, 2);
            dv_engine_fake_down(w.fake, false);
            is_bounced = true;
        }
        if (now >= again && w.is_open) {
            if (up)
                send_start();
            else
                send_stop();
            again = now + 20 * DV_MS;
        }
        int rc = dv_loop_turn(sw.loop, 2);
        assert_true(rc == DV_OK || rc == DV_E_NOMEM);
    }
}

static void every_allocation_may_fail(void)
{
    static const char *const phases[] = {"start", "stop"};
    int n_warm = 0;
    for (size_t phase = 0; phase < DV_COUNT(phases); phase++) {
        uint64_t used = 1;
        for (uint64_t n = 1; n <= used; n++) {
            open_world();
            if (phase == 0)
                dv_alloc_fail_at(n);
            drive(true, n);
            if (phase == 0)
                used = n > 1 ? used : dv_alloc_count() + 20;
            n_warm += w.told == DV_REPLICA_WARM;
            if (phase == 1)
                dv_alloc_fail_at(n);
            drive(false, n);
            if (phase == 1 && n == 1)
                used = dv_alloc_count() + 20;
            dv_alloc_fail_at(0);
            close_world();
            assert_true(used < 3000);
        }
        print_message("%s: %llu allocations failed in turn\n", phases[phase], (unsigned long long)used);
        assert_true(used > 25);
    }
    assert_true(n_warm > 50); /* a failed allocation is no failed replica, as a rule */
}

static void every_allocation_of_start_ready_and_stop_may_fail(void **state)
{
    (void)state;
    g_networks = 0;
    every_allocation_may_fail();
}

static void every_allocation_may_fail_where_networks_are_ready(void **state)
{
    (void)state;
    g_networks = 1;
    every_allocation_may_fail();
}

int main(void)
{
    dv_alloc_fail_at(0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_of_start_ready_and_stop_may_fail),
        cmocka_unit_test(every_allocation_may_fail_where_networks_are_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
