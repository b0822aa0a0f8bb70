/* Pools of primed sandboxes against the engine in memory, whose primed containers are davit-init processes of
 * their own: kept, opened, lost, refused, found again. */
#include "agent/engine/engine_fake.h"
#include "proto/rt/gate.h"
#include "tests/support/sandbox_world.h"

#include <dirent.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { PROCS = 128 };

static struct dv_engine_fake *g_fake;
static struct {
    pid_t pid;
    char container[72];
} g_procs[PROCS];
static size_t g_n_procs;
static char g_order[2048]; /* names of what was started, in order */
static bool g_is_foreign;  /* the engine tells another process than the one at the gate */
static int g_port;
static char g_json[1024];

/* ---- the world ---- */

static const char *gate_dir(const struct dv_engine_create *spec)
{
    for (size_t i = 0; i < spec->n_mounts; i++)
        if (!strcmp(spec->mounts[i].target, DV_GATE_DIR))
            return spec->mounts[i].source;
    return NULL;
}

static pid_t run_gate(const char *dir)
{
    pid_t pid = fork();
    if (!pid) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)execl(DAVIT_BINARY_DIR "/bin/davit-init", "davit-init", "gate", dir, NULL);
        _exit(99);
    }
    return pid;
}

static void on_start(void *ctx, struct dv_engine_fake_started *s)
{
    size_t n = strlen(g_order);
    const char *dir = gate_dir(s->spec);
    (void)ctx;
    (void)snprintf(g_order + n, sizeof(g_order) - n, "%s ", dir ? "primed" : "cold");
    s->pid = getpid();
    (void)dv_copy(s->address, sizeof(s->address), "127.0.0.1");
    if (!dir)
        return;
    assert_true(g_n_procs < PROCS);
    pid_t pid = run_gate(dir);
    g_procs[g_n_procs].pid = pid;
    (void)dv_copy(g_procs[g_n_procs++].container, 72, s->id);
    if (!g_is_foreign)
        s->pid = pid;
}

/* The process of a container, or all of them; the engine notices in its own time. */
static void kill_procs(const char *container)
{
    for (size_t i = 0; i < g_n_procs; i++) {
        if (!g_procs[i].pid || (container && strcmp(container, g_procs[i].container) != 0))
            continue;
        (void)kill(g_procs[i].pid, SIGTERM); /* its program, too */
        (void)waitpid(g_procs[i].pid, NULL, 0);
        g_procs[i].pid = 0;
    }
}

static int free_port(void)
{
    int fd;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    int port = dv_socket_port(fd);
    (void)close(fd);
    return port;
}

static const char *fn(const char *more)
{
    (void)snprintf(g_json, sizeof(g_json), "{\"name\":\"hello\",\"image\":\"probe:1\",\"port\":%d%s}", g_port,
                   more);
    return g_json;
}

static int setup(void **state)
{
    static char *entry[] = {(char *)(uintptr_t)(DAVIT_BINARY_DIR "/bin/davit-probe")};
    const struct dv_engine_image img = {
        .id = "sha256:1111", .arch = "amd64", .os = "linux", .entrypoint = {entry, 1}};
    (void)state;
    g_n_procs = 0;
    g_order[0] = '\0';
    g_is_foreign = false;
    g_port = free_port();
    sw_open();
    sw.primed_max = 4;
    sw.replicas_max = 20;
    assert_int_equal(dv_engine_fake_open(sw.loop, &g_fake), DV_OK);
    sw.engine = dv_engine_fake_engine(g_fake);
    dv_engine_fake_on_start(g_fake, on_start, NULL);
    dv_engine_fake_add_image(g_fake, "probe:1", &img, true);
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
    kill_procs(NULL);
    return 0;
}

static void want(const char *image, int64_t n)
{
    struct dv_pool pool = {
        .image = (char *)(uintptr_t)image, .read_only = true, .tmp_bytes = 64 << 20, .files = 4096, .n = n};
    dv_sandbox_pools(sw.sb, &(struct dv_cmd_pools){&pool, 1});
}

static int64_t n_ready(void)
{
    struct dv_sandbox_engine_state e;
    int64_t n = 0;
    dv_sandbox_engine(sw.sb, &e);
    for (size_t i = 0; i < e.n_pools; i++)
        n += e.pools[i].n;
    return n;
}

static uint64_t metric(const char *name)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    char line[96];
    (void)snprintf(line, sizeof(line), "\n%s ", name);
    dv_sandbox_metrics(sw.sb, &text);
    const char *at = strstr(dv_buf_cstr(&text), line);
    assert_non_null(at);
    return strtoull(at + strlen(line), NULL, 10);
}

static size_t n_box_dirs(void)
{
    char path[128];
    size_t n = 0;
    (void)snprintf(path, sizeof(path), "%s/box", sw.dir);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

static void turns_for_ms(uint64_t ms)
{
    uint64_t end = dv_clock_now_ns(&dv_clock_system) + ms * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < end)
        sw_turn();
}

static void wait_warm(uint64_t id)
{
    SW_UNTIL(sw_state(id) == DV_REPLICA_WARM || sw_state(id) == DV_REPLICA_FAILED);
    if (sw_state(id) == DV_REPLICA_FAILED)
        fail_msg("%s", sw_get(id)->message);
}

/* kill -9 of the agent, as its containers see it, and another one. */
static void restart(void)
{
    dv_engine_fake_down(g_fake, true); /* ends the streams that an ended process would not hear */
    SW_UNTIL(!sw_engine_ok());
    for (int i = 0; i < 3; i++)
        sw_turn();
    dv_sandbox_free(sw.sb);
    sw.sb = NULL;
    sw.n_seen = 0;
    dv_engine_fake_down(g_fake, false);
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
}

/* ---- tests ---- */

static void a_pool_is_filled_within_the_nodes_budget_and_told(void **state)
{
    (void)state;
    want("probe:1", 9);
    SW_UNTIL(n_ready() == 4);
    turns_for_ms(50);
    assert_int_equal(dv_engine_fake_count(g_fake, "running"), 4);
    assert_int_equal(metric("davit_agent_primed_wanted"), 9);
    assert_int_equal(metric("davit_agent_primed_ready"), 4);
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1 && dv_engine_fake_count(g_fake, NULL) == 1);
    want("probe:1", 0);
    SW_UNTIL(n_ready() == 0 && dv_engine_fake_count(g_fake, NULL) == 0);
    assert_int_equal(n_box_dirs(), 0);
}

static void the_container_waits_with_what_its_kind_fixes_and_nothing_else(void **state)
{
    (void)state;
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, g_procs[0].container);
    assert_string_equal(c->image, "sha256:1111"); /* what the name stood for, exactly */
    assert_string_equal(c->entrypoint.v[0], "/.davit/init");
    assert_string_equal(c->command.v[0], "gate");
    assert_true(c->read_only);
    assert_int_equal(c->files, 4096);
    assert_int_equal(c->memory_bytes, 0);
    assert_int_equal(c->env.n, 0);
    assert_int_equal(c->n_mounts, 3);
    for (size_t i = 0; i < c->n_mounts; i++)
        assert_true(c->mounts[i].read_only);
}

static void a_start_takes_one_and_the_pool_is_refilled_when_it_is_quiet(void **state)
{
    (void)state;
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    uint64_t creates = dv_engine_fake_calls(g_fake, DV_FAKE_CREATE);
    sw_start(1, 7, fn(",\"secrets\":[\"token\"],\"limits\":{\"memory\":\"32Mi\",\"pids\":40}"));
    wait_warm(1);
    assert_int_equal(sw_get(1)->r.times.create_us, 0);
    assert_true(sw_get(1)->r.times.start_us > 0 && sw_get(1)->r.times.ready_us > 0);
    assert_int_equal(n_ready(), 1);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), creates); /* not while it started */
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, sw_get(1)->container);
    assert_int_equal(c->memory_bytes, 32 << 20); /* without control groups: through the engine */
    assert_int_equal(c->pids, 41);               /* the process at the gate is one */
    char path[256];
    DV_AUTO_BUF struct dv_buf secret = DV_BUF_INIT;
    (void)snprintf(path, sizeof(path), "%s/token", c->mounts[2].source);
    assert_string_equal(c->mounts[2].target, "/var/openfaas/secrets");
    assert_int_equal(dv_file_read(path, 100, &secret, NULL), DV_OK);
    assert_string_equal(dv_buf_cstr(&secret), "s3cret");
    SW_UNTIL(n_ready() == 2);
    assert_int_equal(metric("davit_agent_primed_opened_total"), 1);
    assert_int_equal(metric("davit_agent_primed_missed_total"), 0);
    sw_stop(1, true);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(n_box_dirs(), 2);
}

static void starts_go_before_refills(void **state)
{
    (void)state;
    char json[256];
    const struct dv_engine_image img = {.id = "sha256:2222", .arch = "amd64", .os = "linux"};
    dv_engine_fake_add_image(g_fake, "other:1", &img, true);
    dv_engine_fake_delay(g_fake, DV_FAKE_CREATE, 20);
    for (uint64_t id = 1; id <= 12; id++) {
        (void)snprintf(json, sizeof(json), "{\"name\":\"f%d\",\"image\":\"other:1\",\"port\":%d}", (int)id,
                       g_port);
        sw_start(id, id, json);
    }
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    const char *first = strstr(g_order, "primed");
    assert_non_null(first);
    /* none was queued any more: what is left of them was on its way */
    assert_true((size_t)(first - g_order) >= (12 - 4) * strlen("cold "));
}

static void an_empty_pool_lets_starts_go_their_cold_way(void **state)
{
    (void)state;
    int listener;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &listener, NULL), DV_OK);
    g_port = dv_socket_port(listener); /* a cold container of the fake runs nothing: we answer its probe */
    dv_engine_fake_delay(g_fake, DV_FAKE_CREATE, 2);
    dv_engine_fake_fail(g_fake, DV_FAKE_CREATE, DV_INVALID, "no room for this", 1);
    want("probe:1", 1);
    SW_UNTIL(metric("davit_agent_primed_failures_total") == 1);
    turns_for_ms(100);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), 1); /* it waits before it tries again */
    sw_start(1, 7, fn(""));
    wait_warm(1);
    assert_true(sw_get(1)->r.times.create_us > 0);
    assert_int_equal(metric("davit_agent_primed_missed_total"), 1);
    SW_UNTIL(n_ready() == 1); /* and then it does */
    (void)close(listener);
}

static void an_image_that_is_not_here_is_pulled_and_one_that_nobody_has_is_given_time(void **state)
{
    (void)state;
    want("far:1", 1);
    SW_UNTIL(n_ready() == 1);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_PULL), 1);
    want("nowhere:1", 1);
    SW_UNTIL(metric("davit_agent_primed_failures_total") == 1);
    turns_for_ms(200);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_IMAGE_PULL), 2);
}

static void one_that_dies_is_replaced(void **state)
{
    (void)state;
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    char container[72];
    (void)dv_copy(container, sizeof(container), g_procs[0].container);
    kill_procs(container); /* its gate closes; the engine says nothing yet */
    SW_UNTIL(metric("davit_agent_primed_lost_total") == 1);
    SW_UNTIL(n_ready() == 2);
    assert_null(dv_engine_fake_spec(g_fake, container));
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 2);
}

static void an_opened_one_is_never_used_again(void **state)
{
    (void)state;
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    sw_start(1, 7, fn(""));
    wait_warm(1);
    char container[80];
    (void)dv_copy(container, sizeof(container), sw_get(1)->container);
    sw_stop(1, true);
    SW_UNTIL(sw_get(1)->n_gone == 1);
    assert_null(dv_engine_fake_spec(g_fake, container));
    kill_procs(container); /* the fake's containers are processes of ours */
    g_port = free_port();
    SW_UNTIL(n_ready() == 1);
    sw_start(2, 7, fn(""));
    wait_warm(2);
    assert_string_not_equal(sw_get(2)->container, container);
}

static void the_end_of_the_program_is_told_over_the_gate(void **state)
{
    (void)state;
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    sw_start(1, 7, fn(",\"entrypoint\":[\"/bin/sh\",\"-c\",\"exit 5\"]"));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED); /* the engine in memory does not know */
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_EXITED);
    assert_int_equal(sw_get(1)->r.exit_code, 5);
    sw_start(2, 7, fn(",\"entrypoint\":[\"no-such-program\"]"));
    SW_UNTIL(sw_state(2) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(2)->r.reason, DV_REASON_CREATE_FAILED);
    assert_int_equal(sw_get(2)->r.exit_code, 127);
}

static void somebody_else_at_the_gate_is_not_let_in(void **state)
{
    (void)state;
    g_is_foreign = true;
    want("probe:1", 1);
    SW_UNTIL(metric("davit_agent_primed_failures_total") == 1);
    assert_int_equal(n_ready(), 0);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 0);
}

static void after_a_restart_of_the_engine_the_pool_is_made_anew(void **state)
{
    (void)state;
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    char ids[2][72];
    for (int i = 0; i < 2; i++)
        (void)dv_copy(ids[i], 72, g_procs[i].container);
    dv_engine_fake_down(g_fake, true);
    kill_procs(NULL);
    for (int i = 0; i < 2; i++)
        dv_engine_fake_exit(g_fake, ids[i], 137, false);
    SW_UNTIL(!sw_engine_ok());
    SW_UNTIL(n_ready() == 0);
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_engine_ok());
    SW_UNTIL(n_ready() == 2);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 2); /* what was left of the old ones is removed */
    assert_int_equal(n_box_dirs(), 2);
}

/* Where the agent may not write to control groups. */
static void with_the_engine_away_limits_cannot_be_set_and_it_is_told(void **state)
{
    (void)state;
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    dv_engine_fake_down(g_fake, true); /* its containers live on */
    SW_UNTIL(!sw_engine_ok());
    sw_start(1, 7, fn(""));
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_ENGINE_DOWN);
    dv_engine_fake_down(g_fake, false);
    SW_UNTIL(sw_engine_ok());
    SW_UNTIL(n_ready() == 1 && dv_engine_fake_count(g_fake, NULL) == 1);
}

static void the_next_agent_takes_closed_ones_over(void **state)
{
    (void)state;
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    uint64_t creates = dv_engine_fake_calls(g_fake, DV_FAKE_CREATE);
    restart();
    SW_UNTIL(n_ready() == 2); /* before the orchestrator has said anything */
    want("probe:1", 2);
    turns_for_ms(50);
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), creates);
    sw_start(1, 7, fn(""));
    wait_warm(1);
    assert_int_equal(sw_get(1)->r.times.create_us, 0);
}

/* The agent that was asked for replica 1 died on the way: what it had written by then. */
static void left_behind(const char *file, struct dv_sv bytes)
{
    char path[256];
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, g_procs[0].container);
    (void)snprintf(path, sizeof(path), "%s/../%s", gate_dir(c), file);
    assert_int_equal(dv_file_write(path, bytes, 0600, NULL), DV_OK);
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    struct dv_cmd_start cmd = {.id = 1, .fn_uid = 7, .generation = 1};
    assert_int_equal(
        dv_wire_decode(&dv_type_fn_spec, dv_sv_c(fn("")), 1 << 20, DV_WIRE_STRICT, &arena, &cmd.spec, NULL),
        0);
    struct dv_control_msg msg = {.type = "start", .start = &cmd};
    assert_int_equal(dv_wire_encode(&dv_type_control, &msg, &text), DV_OK);
    (void)snprintf(path, sizeof(path), "%s/replicas", sw.dir);
    assert_int_equal(dv_mkdirs(path, 0700, NULL), DV_OK);
    (void)snprintf(path, sizeof(path), "%s/replicas/0000000000000001.json", sw.dir);
    assert_int_equal(dv_file_write(path, dv_buf_sv(&text), 0600, NULL), DV_OK);
}

static void one_signed_over_but_never_told_is_given_up(void **state)
{
    (void)state;
    char container[72];
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    (void)dv_copy(container, sizeof(container), g_procs[0].container);
    left_behind("replica", DV_SV("0000000000000001"));
    restart();
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_INTERRUPTED);
    SW_UNTIL(!dv_engine_fake_spec(g_fake, container));
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    assert_int_equal(dv_engine_fake_count(g_fake, NULL), 1);
}

static void one_that_was_about_to_be_signed_over_stays_closed(void **state)
{
    (void)state;
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    uint64_t creates = dv_engine_fake_calls(g_fake, DV_FAKE_CREATE);
    left_behind("replica.new", DV_SV("00000"));
    restart();
    SW_UNTIL(sw_state(1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(1)->r.reason, DV_REASON_INTERRUPTED);
    SW_UNTIL(n_ready() == 1);
    want("probe:1", 1);
    sw_start(2, 7, fn(""));
    wait_warm(2);
    assert_int_equal(sw_get(2)->r.times.create_us, 0);
    SW_UNTIL(n_ready() == 1); /* the one that was made for the next */
    assert_int_equal(dv_engine_fake_calls(g_fake, DV_FAKE_CREATE), creates + 1);
}

/* Signed over to a replica that the agent no longer knows: it may be running somebody's program. */
static void one_of_a_replica_that_is_forgotten_is_removed(void **state)
{
    (void)state;
    char path[256];
    want("probe:1", 1);
    SW_UNTIL(n_ready() == 1);
    const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, g_procs[0].container);
    (void)snprintf(path, sizeof(path), "%s/../replica", gate_dir(c));
    assert_int_equal(dv_file_write(path, DV_SV("0000000000000009"), 0600, NULL), DV_OK);
    restart();
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 0);
    assert_int_equal(n_ready(), 0);
    assert_int_equal(n_box_dirs(), 0);
}

static void another_image_under_the_name_empties_the_pool(void **state)
{
    (void)state;
    static char *entry[] = {(char *)(uintptr_t)(DAVIT_BINARY_DIR "/bin/davit-probe")};
    const struct dv_engine_image img = {
        .id = "sha256:3333", .arch = "amd64", .os = "linux", .entrypoint = {entry, 1}};
    want("probe:1", 2);
    SW_UNTIL(n_ready() == 2);
    dv_engine_fake_add_image(g_fake, "probe:1", &img, true);
    restart(); /* an agent looks at once at what the names stand for */
    want("probe:1", 2);
    SW_UNTIL(metric("davit_agent_primed_made_total") >= 2 && n_ready() == 2);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 2);
    for (size_t i = 0; i < g_n_procs; i++) {
        const struct dv_engine_create *c = dv_engine_fake_spec(g_fake, g_procs[i].container);
        assert_true(!c || !strcmp(c->image, "sha256:3333"));
    }
}

/* Every allocation on the way fails once: the start goes another way or fails with a reason, and nothing is
 * lost. */
static void an_opening_without_memory_ends_well_or_is_told(void **state)
{
    (void)state;
    int n_warm = 0, n_failed = 0;
    sw.primed_max = 40;
    restart();
    want("probe:1", 30);
    SW_UNTIL(n_ready() == 30);
    bool is_whole = false;
    for (uint64_t n = 1; !is_whole; n++) {
        uint64_t id = 100 + n;
        g_port = free_port();
        const char *json = fn(",\"health\":{\"start_timeout\":\"1s\"}");
        DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
        struct dv_cmd_start cmd = {.id = id, .fn_uid = 7, .generation = 1};
        assert_int_equal(
            dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 1 << 20, DV_WIRE_STRICT, &arena, &cmd.spec, NULL),
            0);
        assert_int_equal(dv_fn_spec_finish(&cmd.spec, &arena, NULL), DV_OK);
        dv_alloc_fail_at(n);
        dv_sandbox_start(sw.sb, &cmd);
        is_whole = dv_alloc_count() < n;
        dv_alloc_fail_at(0);
        sw_take(true);
        if (!sw_get(id)->n_reports) { /* no memory to even know it: asked for again */
            sw.n_seen = 0;
            continue;
        }
        SW_UNTIL(sw_state(id) == DV_REPLICA_WARM || sw_state(id) == DV_REPLICA_FAILED);
        n_warm += sw_state(id) == DV_REPLICA_WARM;
        n_failed += sw_state(id) == DV_REPLICA_FAILED;
        if (sw_state(id) == DV_REPLICA_FAILED)
            assert_true(sw_get(id)->message[0] != '\0');
        sw_stop(id, true);
        SW_UNTIL(sw_get(id)->n_gone == 1);
        sw.n_seen = 0;
    }
    print_message("%d became ready, %d failed\n", n_warm, n_failed);
    assert_true(n_warm > 0 && n_failed > 0);
    want("probe:1", 0);
    SW_UNTIL(dv_engine_fake_count(g_fake, NULL) == 0);
    assert_int_equal(n_box_dirs(), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_pool_is_filled_within_the_nodes_budget_and_told),
        T(the_container_waits_with_what_its_kind_fixes_and_nothing_else),
        T(a_start_takes_one_and_the_pool_is_refilled_when_it_is_quiet),
        T(starts_go_before_refills),
        T(an_empty_pool_lets_starts_go_their_cold_way),
        T(an_image_that_is_not_here_is_pulled_and_one_that_nobody_has_is_given_time),
        T(one_that_dies_is_replaced),
        T(an_opened_one_is_never_used_again),
        T(the_end_of_the_program_is_told_over_the_gate),
        T(somebody_else_at_the_gate_is_not_let_in),
        T(after_a_restart_of_the_engine_the_pool_is_made_anew),
        T(with_the_engine_away_limits_cannot_be_set_and_it_is_told),
        T(the_next_agent_takes_closed_ones_over),
        T(one_signed_over_but_never_told_is_given_up),
        T(one_that_was_about_to_be_signed_over_stays_closed),
        T(one_of_a_replica_that_is_forgotten_is_removed),
        T(another_image_under_the_name_empties_the_pool),
        T(an_opening_without_memory_ends_well_or_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
