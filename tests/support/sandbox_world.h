/* A sandbox with a carry and an engine, and what it reports: for tests of the sandbox against either engine.
 */
#ifndef DV_SANDBOX_WORLD_H
#define DV_SANDBOX_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/sandbox/sandbox.h"
#include "proto/base/alloc.h"
#include "proto/rt/sys.h"
#include "proto/wire/codec.h"

#include <ftw.h>
#include <unistd.h>

enum { SW_REPLICAS = 16, SW_NODE = 0x0a0b0c0d };

struct sw_seen { /* the last report of one replica */
    uint64_t id;
    struct dv_replica_report r;
    char message[256], log_tail[1024], container[80], address[64];
    int n_reports, n_gone;
};

static struct sandbox_world {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_carry *carry;
    struct dv_engine *engine;
    struct dv_sandbox *sb;
    char dir[64];
    const char *init_path, *network;
    uint64_t node;
    int64_t replicas_max, primed_max, ready_networks;
    int64_t reclaim_percent;
    const struct dv_freezer *freezer;
    struct sw_seen seen[SW_REPLICAS];
    size_t n_seen;
    char logs[4096]; /* "text\n" */
    int n_log_ends;
} sw;

static void sw_on_trouble(void *ctx, uint64_t replica, enum dv_link_reset what)
{
    (void)ctx;
    if (sw.sb)
        dv_sandbox_on_trouble(sw.sb, replica, what);
}

static void sw_on_drained(void *ctx, uint64_t replica)
{
    (void)ctx;
    if (sw.sb)
        dv_sandbox_on_drained(sw.sb, replica);
}

static void sw_on_closed(void *ctx, uint64_t replica)
{
    (void)ctx;
    if (sw.sb)
        dv_sandbox_on_closed(sw.sb, replica);
}

static void sw_on_wake(void *ctx, uint64_t replica, uint64_t held_ns)
{
    (void)ctx;
    if (sw.sb)
        dv_sandbox_on_wake(sw.sb, replica, held_ns);
}

static void sw_on_change(void *ctx)
{
    (void)ctx;
}

static void sw_on_logs(void *ctx, const struct dv_log_chunk *chunk)
{
    (void)ctx;
    for (size_t i = 0; i < chunk->n_lines; i++) {
        size_t n = strlen(sw.logs);
        (void)snprintf(sw.logs + n, sizeof(sw.logs) - n, "%s\n", chunk->lines[i].text);
    }
    sw.n_log_ends += chunk->end;
}

static struct sw_seen *sw_get(uint64_t id)
{
    for (size_t i = 0; i < sw.n_seen; i++)
        if (sw.seen[i].id == id)
            return &sw.seen[i];
    assert_true(sw.n_seen < SW_REPLICAS);
    sw.seen[sw.n_seen] = (struct sw_seen){.id = id};
    return &sw.seen[sw.n_seen++];
}

__attribute__((unused)) static void sw_take(bool full)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_replica_report *v;
    size_t n;
    assert_int_equal(dv_sandbox_report(sw.sb, full, &arena, &v, &n), DV_OK);
    for (size_t i = 0; i < n; i++) {
        struct sw_seen *s = sw_get(v[i].id);
        s->r = v[i];
        s->n_reports++;
        s->n_gone += v[i].state == DV_REPLICA_GONE;
        (void)dv_copy(s->message, sizeof(s->message), v[i].message ? v[i].message : "");
        (void)dv_copy(s->log_tail, sizeof(s->log_tail), v[i].log_tail ? v[i].log_tail : "");
        (void)dv_copy(s->container, sizeof(s->container), v[i].container ? v[i].container : "");
        (void)dv_copy(s->address, sizeof(s->address), v[i].address ? v[i].address : "");
    }
}

__attribute__((unused)) static void sw_turn(void)
{
    assert_int_equal(dv_loop_turn(sw.loop, 2), DV_OK);
    if (sw.sb)
        sw_take(false);
}

#define SW_UNTIL(what)                                                                                       \
    do {                                                                                                     \
        for (int turn_ = 0; turn_ < 10000 && !(what); turn_++)                                               \
            sw_turn();                                                                                       \
        assert_true(what);                                                                                   \
    } while (0)

__attribute__((unused)) static bool sw_engine_ok(void)
{
    struct dv_sandbox_engine_state e;
    dv_sandbox_engine(sw.sb, &e);
    return e.is_ok;
}

__attribute__((unused)) static enum dv_replica_state sw_state(uint64_t id)
{
    return sw_get(id)->r.state;
}

__attribute__((unused)) static void sw_open_sandbox(void)
{
    struct dv_sandbox_cfg cfg = {.loop = sw.loop,
                                 .engine = sw.engine,
                                 .carry = sw.carry,
                                 .node = sw.node ? sw.node : SW_NODE,
                                 .state_dir = sw.dir,
                                 .run_dir = sw.dir,
                                 .init_path = sw.init_path ? sw.init_path : "/usr/bin/davit-init",
                                 .network = sw.network ? sw.network : "davit",
                                 .replicas_max = sw.replicas_max ? sw.replicas_max : 10,
                                 .primed_max = sw.primed_max,
                                 .ready_networks = sw.ready_networks,
                                 .reclaim_percent = sw.reclaim_percent,
                                 .freezer = sw.freezer,
                                 .on_change = sw_on_change,
                                 .on_logs = sw_on_logs};
    assert_int_equal(dv_sandbox_new(&cfg, &sw.sb, NULL), DV_OK);
}

/* Loop, carry and a directory; the engine and the sandbox are the caller's next steps. */
__attribute__((unused)) static void sw_open(void)
{
    memset(&sw, 0, sizeof(sw));
    (void)dv_copy(sw.dir, sizeof(sw.dir), "/tmp/davit-test-sandbox-XXXXXX");
    assert_non_null(mkdtemp(sw.dir));
    assert_int_equal(dv_loop_new(&dv_clock_system, &sw.loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(sw.loop, &sw.mailbox, NULL), DV_OK);
    struct dv_carry_cfg cc = {.clock = &dv_clock_system,
                              .n_loops = 1,
                              .state = sw.mailbox,
                              .on_trouble = sw_on_trouble,
                              .on_drained = sw_on_drained,
                              .on_closed = sw_on_closed,
                              .on_wake = sw_on_wake};
    assert_int_equal(dv_carry_start(&cc, &sw.carry, NULL), DV_OK);
}

static int sw_rm(const char *path, const struct stat *st, int flag, struct FTW *f)
{
    (void)st;
    (void)flag;
    (void)f;
    return remove(path);
}

/* After the engine was closed. */
__attribute__((unused)) static void sw_close(void)
{
    dv_sandbox_free(sw.sb);
    sw.sb = NULL;
    dv_carry_free(sw.carry);
    dv_mailbox_free(sw.mailbox);
    dv_loop_free(sw.loop);
    assert_int_equal(nftw(sw.dir, sw_rm, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* Ask for a replica of the function that json describes. */
__attribute__((unused)) static void sw_start(uint64_t id, uint64_t fn_uid, const char *json)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_cmd_start cmd = {.id = id, .fn_uid = fn_uid, .generation = 1};
    struct dv_err err = DV_ERR_INIT;
    int rc =
        dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 1 << 20, DV_WIRE_STRICT, &arena, &cmd.spec, &err);
    if (!rc)
        rc = dv_fn_spec_finish(&cmd.spec, &arena, &err);
    if (rc)
        fail_msg("%s: %s", err.field, err.msg);
    struct dv_secret_value secret = {"token", "czNjcmV0"}; /* s3cret */
    if (cmd.spec.secrets.n) {
        cmd.secrets = &secret;
        cmd.n_secrets = 1;
    }
    dv_sandbox_start(sw.sb, &cmd);
}

__attribute__((unused)) static void sw_stop(uint64_t id, bool now)
{
    dv_sandbox_stop(sw.sb, &(struct dv_cmd_stop){.id = id, .grace_ms = -1, .now = now});
}

#endif
