/* The state loop's centre with real neighbours: SQLite, the gateway, links on sockets; the agents are made up
 * and hold replicas that answer "hello". */
#ifndef DV_TEST_CONTROL_RIG_H
#define DV_TEST_CONTROL_RIG_H

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
    bool fails;                         /* every replica exits at once */
    int started, stopped, syncs, pools; /* how often it was told */
    size_t synced;
    int64_t primed; /* sandboxes it was told to keep */
    int readings;
    double metric; /* that replicas tell; negative: they tell nothing */
    char primed_image[64];
};

static inline struct agent_link *control_link(struct agent *a)
{
    for (size_t i = 0; i < LINKS_MAX; i++)
        if (a->links[i].io && a->links[i].is_control)
            return &a->links[i];
    return NULL;
}

static inline void send_report(struct agent *a, const struct dv_report *r)
{
    struct agent_link *l = control_link(a);
    if (!l)
        return;
    DV_AUTO_BUF struct dv_buf json = DV_BUF_INIT;
    assert_int_equal(dv_wire_encode(&dv_type_report, r, &json), DV_OK);
    assert_int_equal(dv_link_report(dv_linkio_link(l->io), dv_buf_sv(&json)), DV_OK);
    dv_linkio_kick(l->io);
}

static inline void tell(struct agent *a, bool is_full, const struct held *one)
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

static inline void agent_work(struct dv_timer *t)
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

static inline struct held *held_of(struct agent *a, uint64_t id)
{
    for (size_t i = 0; i < a->n_held; i++)
        if (a->held[i].id == id)
            return &a->held[i];
    return NULL;
}

static inline void release(struct agent *a, uint64_t id)
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

/* Every replica says a->metric; beside it come results that are none of this reading's. */
static inline void read_metric(struct agent *a, const struct dv_cmd_scrape *s)
{
    struct dv_scrape_result r[16];
    size_t n = 0;
    a->readings++;
    for (size_t i = 0; i < s->n_replicas && n < 12; i++)
        r[n++] = (struct dv_scrape_result){.fn_uid = s->fn_uid,
                                           .epoch = s->epoch,
                                           .index = s->index,
                                           .replica = s->replicas[i],
                                           .ok = a->metric >= 0,
                                           .value = a->metric >= 0 ? a->metric : 0,
                                           .message = a->metric >= 0 ? NULL : (char *)"it answers 404"};
    struct dv_scrape_result forged = r[0];
    forged.ok = true;
    forged.value = 1e9;
    r[n] = forged;
    r[n++].epoch = s->epoch + 1;
    r[n] = forged;
    r[n++].replica = 4711;
    r[n] = forged;
    r[n++].fn_uid = 4711;
    r[n] = forged;
    r[n++].index = DV_METRICS_MAX - 1;
    send_report(a, &(struct dv_report){.type = (char *)"scrapes", .scrapes = r, .n_scrapes = n});
}

static inline void obey(struct agent *a, struct dv_sv json)
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
    if (m.pools) {
        a->pools++;
        a->primed = 0;
        for (size_t i = 0; i < m.pools->n_pools; i++) {
            a->primed += m.pools->pools[i].n;
            (void)dv_copy(a->primed_image, sizeof(a->primed_image), m.pools->pools[i].image);
        }
    }
    if (m.scrape)
        read_metric(a, m.scrape);
    if (m.logs && !m.logs->cancel) {
        struct dv_log_line lines[] = {{1, 1000, false, (char *)"first"}, {1, 1001, true, (char *)"second"}};
        struct dv_log_chunk chunk = {m.logs->request, lines, 2, !m.logs->follow};
        send_report(a, &(struct dv_report){.type = (char *)"logs", .logs = &chunk});
    }
}

static inline void answer(struct agent *a, struct agent_link *l, const struct dv_link_event *ev)
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

static inline void agent_event(void *ctx, const struct dv_link_event *ev)
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

static inline void agent_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)code;
    (void)err;
    struct agent_link *l = ctx;
    dv_linkio_free(l->io);
    *l = (struct agent_link){0};
}

static inline void agent_accept(struct dv_io *io, uint32_t events)
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

static inline void agent_up(struct agent *a)
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

static inline void agent_cut_links(struct agent *a)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        dv_linkio_free(a->links[i].io);
        a->links[i] = (struct agent_link){0};
    }
}

static inline void agent_down(struct agent *a)
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
static int rig_n_loops = 1; /* of the gateway */

#define WAIT_FOR(cond)                                                                                       \
    do {                                                                                                     \
        uint64_t deadline_ = dv_clock_now_ns(&dv_clock_system) + 10 * DV_S;                                  \
        while (!(cond)) {                                                                                    \
            if (dv_clock_now_ns(&dv_clock_system) > deadline_)                                               \
                fail_msg("waited 10 s for: %s", #cond);                                                      \
            assert_int_equal(dv_loop_turn(rig.loop, 20), DV_OK);                                             \
        }                                                                                                    \
    } while (0)

static inline void turn_for(uint64_t ms)
{
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + ms * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < end)
        assert_int_equal(dv_loop_turn(rig.loop, 5), DV_OK);
}

static inline void on_loaded(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    rig.loaded++;
    rig.code = code;
    rig.err = *err;
}

static inline void done(void *ctx, int code, const struct dv_err *err, uint64_t revision)
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

static inline void on_async(void *ctx, struct dv_async_accept *a)
{
    (void)ctx;
    dv_gateway_async_done(rig.gateway, a, DV_UNSUPPORTED, NULL);
}

static inline void on_demand(void *ctx, uint64_t uid)
{
    (void)ctx;
    if (rig.control)
        dv_control_on_demand(rig.control, uid);
}

static inline void orchestrator_up(void)
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
                                .n_loops = rig_n_loops,
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

static inline void orchestrator_down(void)
{
    dv_control_free(rig.control);
    rig.control = NULL;
    dv_gateway_free(rig.gateway);
    dv_storer_stop(rig.storer);
    turn_for(10); /* replies that were posted last */
}

static inline int set_up(void **state)
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

static inline int tear_down(void **state)
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

static inline void joined(void *ctx, int code, const struct dv_err *err, const struct dv_join_reply *reply)
{
    struct agent *a = ctx;
    done(NULL, code, err, 0);
    if (code)
        return;
    a->id = reply->node;
    assert_true(dv_unhex(dv_sv_c(reply->key), a->key, sizeof(a->key)));
}

static inline int join(struct agent *a)
{
    if (!a->address[0])
        agent_up(a);
    struct dv_join j = {.name = a->name, .node = a->id, .incarnation = a->incarnation, .address = a->address};
    return WRITE(dv_control_node_join(rig.control, &j, joined, a, &rig.err));
}

static inline enum dv_node_state node_state(const char *name)
{
    struct dv_node_status s;
    return dv_control_node_find(rig.control, dv_sv_c(name), &s) == DV_OK ? s.state : DV_NODE_LOST;
}

static inline void join_and_wait(struct agent *a)
{
    assert_int_equal(join(a), DV_OK);
    WAIT_FOR(node_state(a->name) == DV_NODE_READY);
}

static inline struct dv_fn_spec spec_of(const char *name, struct dv_arena *arena)
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

static inline int put(const struct dv_fn_spec *s, enum dv_put_mode mode, uint64_t if_revision)
{
    struct dv_fn_put p = {.spec = s, .mode = mode, .if_revision = if_revision};
    return WRITE(dv_control_fn_put(rig.control, &p, 1, false, done, NULL, &rig.err));
}

static inline uint64_t deploy(const char *name)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec s = spec_of(name, &arena);
    assert_int_equal(put(&s, DV_PUT_UPSERT, DV_REV_ANY), DV_OK);
    return dv_control_fn_find(rig.control, DV_SV("default"), dv_sv_c(name))->uid;
}

static inline struct dv_fn_status status_of(uint64_t uid)
{
    struct dv_fn_status s;
    assert_int_equal(dv_control_fn_status(rig.control, uid, &s), DV_OK);
    return s;
}

static inline void on_answer(void *ctx, const struct dv_httpc_result *res)
{
    (void)ctx;
    rig.status = res->code ? -1 : (int)res->status;
    (void)snprintf(rig.body, sizeof(rig.body), "%.*s", (int)res->body.n, res->body.p);
}

static inline void call(const char *fn)
{
    char url[128];
    rig.status = 0;
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/function/%s", dv_gateway_port(rig.gateway), fn);
    struct dv_httpc_request req = {.method = "GET", .url = url, .timeout_ms = 9000, .on_done = on_answer};
    assert_int_equal(dv_httpc_send(rig.http, &req, NULL, NULL), DV_OK);
}

static inline int call_and_wait(const char *fn)
{
    call(fn);
    WAIT_FOR(rig.status != 0);
    return rig.status;
}

struct seen_event {
    const char *kind;
    bool found;
};

static inline int look(void *ctx, const struct dv_fn_event *e)
{
    struct seen_event *s = ctx;
    s->found |= strcmp(e->kind, s->kind) == 0;
    return 0;
}

static inline bool happened(uint64_t uid, const char *kind)
{
    struct seen_event s = {kind, false};
    dv_control_events_each(rig.control, uid, look, &s);
    return s.found;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

#endif
