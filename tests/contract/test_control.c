/* The state loop's centre with real neighbours: SQLite, the gateway, links on sockets; the agents are made up
 * and hold replicas that answer "hello". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "orchestrator/control/control.h"
#include "proto/base/alloc.h"
#include "proto/rt/addr.h"
#include "proto/rt/httpc.h"
#include "proto/rt/linkio.h"
#include "proto/rt/log.h"
#include "proto/wire/codec.h"

enum { HELD_MAX = 32, LINKS_MAX = 16 };

/* ---------------------------------------------------------------- an agent */

struct held {
    uint64_t id, fn_uid, generation;
    enum dv_replica_state state;
    uint64_t ready_at;
    bool had_secret;
};

struct agent;
struct agent_link {
    struct agent *agent;
    struct dv_linkio *io;
    bool is_control;
};

struct agent {
    struct dv_loop *loop;
    uint64_t id, incarnation;
    uint8_t key[DV_LINK_KEY_BYTES];
    char name[32], address[64];
    struct dv_io listener;
    struct agent_link links[LINKS_MAX];
    struct held held[HELD_MAX];
    size_t n_held;
    struct dv_timer work;
    bool fails; /* every replica exits at once */
    int started, stopped, syncs;
    size_t synced;
};

static struct agent_link *control_link(struct agent *a)
{
    for (size_t i = 0; i < LINKS_MAX; i++)
        if (a->links[i].io && a->links[i].is_control)
            return &a->links[i];
    return NULL;
}

static void send_report(struct agent *a, const struct dv_report *r)
{
    struct agent_link *l = control_link(a);
    if (!l)
        return;
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    assert_int_equal(dv_wire_encode(&dv_type_report, r, &json), DV_OK);
    assert_int_equal(dv_link_report(dv_linkio_link(l->io), dv_buf_sv(&json)), DV_OK);
    dv_linkio_kick(l->io);
}

static void tell(struct agent *a, bool is_full, const struct held *one)
{
    struct dv_replica_report reps[HELD_MAX + 1] = {0};
    size_t n = one ? 1 : a->n_held;
    for (size_t i = 0; i < n; i++) {
        const struct held *h = one ? one : &a->held[i];
        reps[i] = (struct dv_replica_report){
            .id = h->id, .fn_uid = h->fn_uid, .generation = h->generation, .state = h->state};
        if (h->state == DV_REPLICA_FAILED) {
            reps[i].reason = DV_REASON_EXITED;
            reps[i].exit_code = 7;
            reps[i].log_tail = (char *)"no such file";
        }
        reps[i].times = (struct dv_start_times){0, 1000, 2000, 3000};
    }
    send_report(a, &(struct dv_report){
                       .type = (char *)"replicas", .replicas = reps, .n_replicas = n, .is_full = is_full});
}

static void agent_work(struct dv_timer *t)
{
    struct agent *a = DV_CONTAINER_OF(t, struct agent, work);
    for (size_t i = 0; i < a->n_held; i++) {
        struct held *h = &a->held[i];
        if (h->state != DV_REPLICA_STARTING || h->ready_at > dv_loop_now(a->loop))
            continue;
        h->state = a->fails ? DV_REPLICA_FAILED : DV_REPLICA_WARM;
        tell(a, false, h);
    }
    (void)dv_timer_set(a->loop, t, dv_loop_now(a->loop) + 5 * DV_MS);
}

static struct held *held_of(struct agent *a, uint64_t id)
{
    for (size_t i = 0; i < a->n_held; i++)
        if (a->held[i].id == id)
            return &a->held[i];
    return NULL;
}

static void release(struct agent *a, uint64_t id)
{
    struct held *h = held_of(a, id);
    if (!h)
        return;
    struct held gone = *h;
    *h = a->held[--a->n_held];
    gone.state = DV_REPLICA_GONE;
    a->stopped++;
    tell(a, false, &gone);
}

static void obey(struct agent *a, struct dv_sv json)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_control_msg m;
    assert_int_equal(
        dv_wire_decode(&dv_type_control, json, 4 << 20, DV_WIRE_IGNORE_UNKNOWN, &arena, &m, NULL), DV_OK);
    if (m.start && !held_of(a, m.start->id)) {
        assert_true(a->n_held < HELD_MAX);
        bool had_secret =
            m.start->n_secrets == 1 && strcmp(m.start->secrets[0].value_base64, "czNjcmV0") == 0;
        a->held[a->n_held++] = (struct held){m.start->id,
                                             m.start->fn_uid,
                                             m.start->generation,
                                             DV_REPLICA_STARTING,
                                             dv_loop_now(a->loop) + 10 * DV_MS,
                                             had_secret};
        a->started++;
    }
    if (m.stop)
        release(a, m.stop->id);
    if (m.sync) {
        a->syncs++;
        a->synced = m.sync->n_ids;
    }
    if (m.logs && !m.logs->cancel) {
        struct dv_log_line lines[] = {{1, 1000, false, (char *)"first"}, {1, 1001, true, (char *)"second"}};
        struct dv_log_chunk chunk = {m.logs->request, lines, 2, !m.logs->follow};
        send_report(a, &(struct dv_report){.type = (char *)"logs", .logs = &chunk});
    }
}

static void answer(struct agent *a, struct agent_link *l, const struct dv_link_event *ev)
{
    struct dv_link *link = dv_linkio_link(l->io);
    const struct held *h = held_of(a, ev->request.replica);
    if (!h || h->state != DV_REPLICA_WARM) {
        (void)dv_link_reset(link, ev->stream, DV_RESET_NOT_HERE);
    } else {
        size_t taken;
        struct dv_link_response r = {.status = 200, .body = DV_H1_LENGTH, .content_length = 5};
        (void)dv_link_respond(link, ev->stream, &r, false);
        (void)dv_link_send(link, ev->stream, "hello", 5, true, &taken);
    }
    dv_linkio_kick(l->io);
}

static void agent_event(void *ctx, const struct dv_link_event *ev)
{
    struct agent_link *l = ctx;
    struct agent *a = l->agent;
    if (ev->kind == DV_LINK_EV_OPEN && dv_link_purpose(dv_linkio_link(l->io)) == DV_LINK_CONTROL_CONN) {
        struct dv_node_report n = {.node = a->id,
                                   .incarnation = a->incarnation,
                                   .engine_ok = true,
                                   .cpus = 2,
                                   .memory_bytes = 1 << 30,
                                   .replicas_max = HELD_MAX};
        l->is_control = true;
        send_report(a, &(struct dv_report){.type = (char *)"node", .node = &n});
        tell(a, true, NULL);
    } else if (ev->kind == DV_LINK_EV_CONTROL) {
        obey(a, ev->bytes);
    } else if (ev->kind == DV_LINK_EV_REQUEST) {
        answer(a, l, ev);
    }
}

static void agent_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)code;
    (void)err;
    struct agent_link *l = ctx;
    dv_linkio_free(l->io);
    *l = (struct agent_link){0};
}

static void agent_accept(struct dv_io *io, uint32_t events)
{
    (void)events;
    struct agent *a = DV_CONTAINER_OF(io, struct agent, listener);
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct agent_link *l = &a->links[i];
        if (l->io)
            continue;
        *l = (struct agent_link){.agent = a};
        struct dv_linkio_cfg cfg = {.link = {.role = DV_LINK_SERVER,
                                             .node = a->id,
                                             .incarnation = a->incarnation,
                                             .on_event = agent_event,
                                             .ctx = l},
                                    .on_closed = agent_closed};
        memcpy(cfg.link.key, a->key, sizeof(cfg.link.key));
        assert_int_equal(dv_linkio_accept(a->loop, fd, &cfg, &l->io, NULL), DV_OK);
        return;
    }
    fail_msg("more links than expected");
}

static void agent_up(struct agent *a)
{
    struct dv_addr addr;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(dv_addr_parse(a->address[0] ? a->address : "127.0.0.1:0", &addr, NULL), DV_OK);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
    assert_int_equal(bind(fd, &addr.sa, addr.len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, &addr.sa, &addr.len), 0);
    dv_addr_text(&addr, a->address, sizeof(a->address));
    a->incarnation++;
    a->listener = (struct dv_io){.fd = -1, .fn = agent_accept};
    assert_int_equal(dv_io_add(a->loop, &a->listener, fd, EPOLLIN, NULL), DV_OK);
    a->work.fn = agent_work;
    assert_int_equal(dv_timer_set(a->loop, &a->work, dv_loop_now(a->loop) + 5 * DV_MS), DV_OK);
}

static void agent_cut_links(struct agent *a)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        dv_linkio_free(a->links[i].io);
        a->links[i] = (struct agent_link){0};
    }
}

static void agent_down(struct agent *a)
{
    int fd = a->listener.fd;
    dv_io_del(a->loop, &a->listener);
    if (fd >= 0)
        (void)close(fd);
    dv_timer_cancel(a->loop, &a->work);
    agent_cut_links(a);
}

/* ---------------------------------------------------------------- the rig */

struct rig {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_storer *storer;
    struct dv_seal *seal;
    struct dv_control *control;
    struct dv_gateway *gateway;
    struct dv_httpc *http;
    struct agent agents[2];
    char dir[64];
    int loaded, code, dones;
    struct dv_err err;
    uint64_t revision;
    int status;
    char body[512];
};

static struct rig rig;

#define WAIT_FOR(cond)                                                                                       \
    do {                                                                                                     \
        uint64_t deadline_ = dv_clock_now_ns(&dv_clock_system) + 10 * DV_S;                                  \
        while (!(cond)) {                                                                                    \
            if (dv_clock_now_ns(&dv_clock_system) > deadline_)                                               \
                fail_msg("waited 10 s for: %s", #cond);                                                      \
            assert_int_equal(dv_loop_turn(rig.loop, 20), DV_OK);                                             \
        }                                                                                                    \
    } while (0)

static void turn_for(uint64_t ms)
{
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + ms * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < end)
        assert_int_equal(dv_loop_turn(rig.loop, 5), DV_OK);
}

static void on_loaded(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    rig.loaded++;
    rig.code = code;
    rig.err = *err;
}

static void done(void *ctx, int code, const struct dv_err *err, uint64_t revision)
{
    (void)ctx;
    rig.dones++;
    rig.code = code;
    rig.revision = revision;
    if (err)
        rig.err = *err;
}

/* A write: its own code, or what done was told. */
#define WRITE(call)                                                                                          \
    __extension__({                                                                                          \
        rig.dones = 0;                                                                                       \
        rig.err = (struct dv_err)DV_ERR_INIT;                                                                \
        int code_ = (call);                                                                                  \
        if (code_ == DV_OK) {                                                                                \
            assert_int_equal(rig.dones, 0);                                                                  \
            WAIT_FOR(rig.dones == 1);                                                                        \
            code_ = rig.code;                                                                                \
        }                                                                                                    \
        code_;                                                                                               \
    })

static void on_async(void *ctx, struct dv_async_accept *a)
{
    (void)ctx;
    dv_gateway_async_done(rig.gateway, a, DV_UNSUPPORTED, NULL);
}

static void on_demand(void *ctx, uint64_t uid)
{
    (void)ctx;
    if (rig.control)
        dv_control_on_demand(rig.control, uid);
}

static void orchestrator_up(void)
{
    char path[128], internal[128];
    struct dv_store *store;
    struct dv_err err = DV_ERR_INIT;
    (void)snprintf(path, sizeof(path), "%s/store.db", rig.dir);
    assert_int_equal(dv_store_sqlite_open(path, &store, &err), DV_OK);
    assert_int_equal(dv_storer_start(store, &rig.storer, &err), DV_OK);
    struct dv_control_cfg cfg = {.loop = rig.loop,
                                 .mailbox = rig.mailbox,
                                 .clock = &dv_clock_system,
                                 .storer = rig.storer,
                                 .seal = rig.seal,
                                 .seed = 42};
    rig.loaded = 0;
    assert_int_equal(dv_control_new(&cfg, on_loaded, NULL, &rig.control, &err), DV_OK);
    assert_int_equal(rig.loaded, 0);
    WAIT_FOR(rig.loaded == 1);
    assert_int_equal(rig.code, DV_OK);
    (void)snprintf(internal, sizeof(internal), "%s/gateway.sock", rig.dir);
    struct dv_gateway_cfg gw = {.clock = &dv_clock_system,
                                .listen = "127.0.0.1:0",
                                .internal_path = internal,
                                .api_path = "/nonexistent",
                                .n_loops = 1,
                                .user = "admin",
                                .password = "x",
                                .access_log_fd = -1,
                                .state = rig.mailbox,
                                .on_demand = on_demand,
                                .on_async = on_async};
    if (dv_gateway_start(&gw, &rig.gateway, &err))
        fail_msg("gateway: %s", err.msg);
    dv_control_serve(rig.control, rig.gateway);
}

static void orchestrator_down(void)
{
    dv_control_free(rig.control);
    rig.control = NULL;
    dv_gateway_free(rig.gateway);
    dv_storer_stop(rig.storer);
    turn_for(10); /* replies that were posted last */
}

static int set_up(void **state)
{
    (void)state;
    char path[128];
    struct dv_err err = DV_ERR_INIT;
    rig = (struct rig){0};
    (void)snprintf(rig.dir, sizeof(rig.dir), "/tmp/davit-control-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    (void)snprintf(path, sizeof(path), "%s/seal.key", rig.dir);
    assert_int_equal(dv_loop_new(&dv_clock_system, &rig.loop, &err), DV_OK);
    assert_int_equal(dv_mailbox_new(rig.loop, &rig.mailbox, &err), DV_OK);
    assert_int_equal(dv_seal_open(path, &rig.seal, &err), DV_OK);
    assert_int_equal(dv_httpc_new(rig.loop, &rig.http, &err), DV_OK);
    for (int i = 0; i < 2; i++) {
        rig.agents[i].loop = rig.loop;
        (void)snprintf(rig.agents[i].name, sizeof(rig.agents[i].name), "node%d", i);
    }
    orchestrator_up();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    dv_httpc_free(rig.http);
    orchestrator_down();
    for (int i = 0; i < 2; i++)
        if (rig.agents[i].address[0])
            agent_down(&rig.agents[i]);
    dv_seal_free(rig.seal);
    dv_mailbox_free(rig.mailbox);
    dv_loop_free(rig.loop);
    static const char *const files[] = {"store.db",      "store.db-wal", "store.db-shm", "store.db-journal",
                                        "store.db.lock", "seal.key",     "gateway.sock"};
    for (size_t i = 0; i < DV_COUNT(files); i++) {
        (void)snprintf(command, sizeof(command), "%s/%s", rig.dir, files[i]);
        (void)unlink(command);
    }
    (void)rmdir(rig.dir);
    return 0;
}

static void joined(void *ctx, int code, const struct dv_err *err, const struct dv_join_reply *reply)
{
    struct agent *a = ctx;
    done(NULL, code, err, 0);
    if (code)
        return;
    a->id = reply->node;
    assert_true(dv_unhex(dv_sv_c(reply->key), a->key, sizeof(a->key)));
}

static int join(struct agent *a)
{
    if (!a->address[0])
        agent_up(a);
    struct dv_join j = {.name = a->name, .node = a->id, .incarnation = a->incarnation, .address = a->address};
    return WRITE(dv_control_node_join(rig.control, &j, joined, a, &rig.err));
}

static enum dv_node_state node_state(const char *name)
{
    struct dv_node_status s;
    return dv_control_node_find(rig.control, dv_sv_c(name), &s) == DV_OK ? s.state : DV_NODE_LOST;
}

static void join_and_wait(struct agent *a)
{
    assert_int_equal(join(a), DV_OK);
    WAIT_FOR(node_state(a->name) == DV_NODE_READY);
}

static struct dv_fn_spec spec_of(const char *name, struct dv_arena *arena)
{
    struct dv_fn_spec s;
    dv_wire_defaults(&dv_type_fn_spec, &s);
    s.name = (char *)name;
    s.ns = (char *)"default";
    s.image = (char *)"img";
    s.scale.concurrency = 1;
    s.scale.max = 4;
    assert_int_equal(dv_fn_spec_finish(&s, arena, NULL), DV_OK);
    return s;
}

static int put(const struct dv_fn_spec *s, enum dv_put_mode mode, uint64_t if_revision)
{
    struct dv_fn_put p = {.spec = s, .mode = mode, .if_revision = if_revision};
    return WRITE(dv_control_fn_put(rig.control, &p, 1, false, done, NULL, &rig.err));
}

static uint64_t deploy(const char *name)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of(name, &arena);
    assert_int_equal(put(&s, DV_PUT_UPSERT, DV_REV_ANY), DV_OK);
    return dv_control_fn_find(rig.control, DV_SV("default"), dv_sv_c(name))->uid;
}

static struct dv_fn_status status_of(uint64_t uid)
{
    struct dv_fn_status s;
    assert_int_equal(dv_control_fn_status(rig.control, uid, &s), DV_OK);
    return s;
}

static void on_answer(void *ctx, const struct dv_httpc_result *res)
{
    (void)ctx;
    rig.status = res->code ? -1 : (int)res->status;
    (void)snprintf(rig.body, sizeof(rig.body), "%.*s", (int)res->body.n, res->body.p);
}

static void call(const char *fn)
{
    char url[128];
    rig.status = 0;
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/function/%s", dv_gateway_port(rig.gateway), fn);
    struct dv_httpc_request req = {.method = "GET", .url = url, .timeout_ms = 9000, .on_done = on_answer};
    assert_int_equal(dv_httpc_send(rig.http, &req, NULL, NULL), DV_OK);
}

static int call_and_wait(const char *fn)
{
    call(fn);
    WAIT_FOR(rig.status != 0);
    return rig.status;
}

struct seen_event {
    const char *kind;
    bool found;
};

static int look(void *ctx, const struct dv_fn_event *e)
{
    struct seen_event *s = ctx;
    s->found |= strcmp(e->kind, s->kind) == 0;
    return 0;
}

static bool happened(uint64_t uid, const char *kind)
{
    struct seen_event s = {kind, false};
    dv_control_events_each(rig.control, uid, look, &s);
    return s.found;
}

/* ---------------------------------------------------------------- tests */

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

struct reader {
    int lines, ends;
    struct dv_logs *logs;
};

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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

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
        TEST(writes_are_refused_for_the_reasons_that_the_header_names),
        TEST(of_several_functions_all_are_written_or_none),
        TEST(writes_that_overtake_each_other_are_all_carried_out),
        TEST(functions_are_listed_in_order_of_namespace_and_name_and_from_a_place_on),
        TEST(secrets_reach_the_agent_and_nothing_else),
        TEST(namespaces_hold_what_is_in_them),
        TEST(a_node_keeps_its_identity_and_a_stranger_does_not_get_its_name),
        TEST(draining_moves_replicas_and_outlives_a_restart),
        TEST(a_connected_node_is_removed_only_by_force_and_then_stops_its_replicas),
        TEST(requests_wait_for_the_only_node_while_its_agent_restarts),
        TEST(a_scale_request_pins_and_sleep_lasts_until_the_next_request),
        TEST(a_set_number_is_there_at_once_and_ends_a_pin),
        TEST(a_new_function_may_begin_with_replicas),
        TEST(a_note_of_a_write_is_an_event_of_the_function),
        TEST(logs_are_gathered_from_all_nodes),
        TEST(readiness_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
