/* Primed sandboxes on a real dockerd: made, opened, run, ended, found again.  Two images of the test's own:
 * one holds a static program and nothing else, the other busybox, a user, a directory and an entrypoint
 * through a shell.  Needs root, dockerd and a static busybox; says so and skips otherwise. */
#include "tests/support/docker_raw.h"
#include "tests/support/sandbox_world.h"

#include "agent/cgroup/cgroup.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

static char g_bare[64], g_box[64];
static uint64_t g_node;
static const char *g_why_skipped;

/* ---- images ---- */

static bool import(const char *image, const char *program, const char *at, const char *const *dirs,
                   const char *changes)
{
    static const char end[1024];
    DV_AUTO_BUF struct dv_buf file = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf page = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf tar = DV_BUF_INIT;
    DV_AUTO_STR char *path = dv_asprintf("/images/create?fromSrc=-&repo=%s%s", image, changes);
    if (dv_file_read(program, 8 << 20, &file, NULL))
        return false;
    for (size_t i = 0; dirs[i]; i++)
        tar_entry(&tar, dirs[i], NULL);
    (void)dv_buf_add_c(&page, "a page of the image\n");
    tar_entry(&tar, at, &file);
    if (dirs[0])
        tar_entry(&tar, "www/index.html", &page);
    (void)dv_buf_add(&tar, end, sizeof(end));
    return docker_raw("POST", path, dv_buf_sv(&tar), "application/x-tar") == 200;
}

static bool import_both(void)
{
    static const char *const dirs[] = {"bin/", "www/", "proc/", "sys/", "dev/", "etc/", NULL};
    static const char *const none[] = {NULL};
    return import(g_bare, DAVIT_BINARY_DIR "/bin/davit-probe", "davit-probe", none,
                  "&changes=ENTRYPOINT%20%5B%22/davit-probe%22%5D") &&
           import(g_box, BUSYBOX, "bin/busybox", dirs,
                  "&changes=USER%201000:1000&changes=WORKDIR%20/www&changes=ENV%20GREETING=hello"
                  "&changes=ENTRYPOINT%20%5B%22/bin/busybox%22,%22sh%22,%22-c%22,"
                  "%22exec%20/bin/busybox%20httpd%20-f%20-p%20$PORT%20-h%20.%22%5D");
}

static int prepare(void **state)
{
    (void)state;
    if (dv_random(&g_node, sizeof(g_node), NULL))
        return -1;
    (void)snprintf(g_bare, sizeof(g_bare), "davit-test-bare-%016llx", (unsigned long long)g_node);
    (void)snprintf(g_box, sizeof(g_box), "davit-test-box-%016llx", (unsigned long long)g_node);
    g_why_skipped = geteuid() != 0          ? "not root"
                    : access(BUSYBOX, X_OK) ? "no static busybox at " BUSYBOX
                    : access(SOCKET, W_OK)  ? "no dockerd at " SOCKET
                    : docker_raw("GET", "/_ping", dv_sv(NULL, 0), NULL) != 200
                        ? "no dockerd answers at " SOCKET
                    : !import_both() ? "dockerd did not import the images"
                                     : NULL;
    if (g_why_skipped)
        print_message("[  SKIPPED ] primed sandboxes on a real engine: %s\n", g_why_skipped);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    DV_AUTO_STR char *bare = dv_asprintf("/images/%s?force=true", g_bare);
    DV_AUTO_STR char *box = dv_asprintf("/images/%s?force=true", g_box);
    DV_AUTO_STR char *old = dv_asprintf("/images/%s-old?force=true", g_box);
    if (!g_why_skipped) {
        (void)docker_raw("DELETE", bare, dv_sv(NULL, 0), NULL);
        (void)docker_raw("DELETE", box, dv_sv(NULL, 0), NULL);
        (void)docker_raw("DELETE", old, dv_sv(NULL, 0), NULL);
        (void)docker_raw("DELETE", "/networks/davit-test", dv_sv(NULL, 0), NULL);
    }
    return 0;
}

/* ---- the world ---- */

static void open_engine(void)
{
    assert_int_equal(dv_engine_docker_open(sw.loop, "unix://" SOCKET, &sw.engine, NULL), DV_OK);
    sw_open_sandbox();
    SW_UNTIL(sw_engine_ok());
}

static int setup(void **state)
{
    (void)state;
    if (g_why_skipped)
        return 0;
    assert_int_equal(dv_cgroup_setup(NULL), DV_OK);
    sw_open();
    sw.init_path = DAVIT_BINARY_DIR "/bin/davit-init";
    sw.network = "davit-test";
    sw.node = g_node;
    sw.primed_max = 10;
    open_engine();
    return 0;
}

static void count_containers(void *ctx, int code, const struct dv_engine_container *c, size_t n,
                             const struct dv_err *err)
{
    (void)c;
    (void)err;
    *(int *)ctx = code ? -1 : (int)n;
}

static int n_containers(void)
{
    char label[64];
    int n = -2;
    (void)snprintf(label, sizeof(label), "dev.davit.node=%016llx", (unsigned long long)g_node);
    sw.engine->ops->list(sw.engine, label, count_containers, &n);
    SW_UNTIL(n != -2);
    return n;
}

static int teardown(void **state)
{
    (void)state;
    if (g_why_skipped)
        return 0;
    dv_sandbox_pools(sw.sb, &(struct dv_cmd_pools){0});
    for (size_t i = 0; i < sw.n_seen; i++)
        sw_stop(sw.seen[i].id, true);
    SW_UNTIL(dv_sandbox_n_replicas(sw.sb) == 0);
    int n = 1;
    for (int i = 0; i < 100 && n; i++) {
        for (int k = 0; k < 20; k++)
            sw_turn();
        n = n_containers();
    }
    sw.engine->ops->close(sw.engine);
    sw_close();
    return n; /* nothing is left behind */
}

#define NEEDS_ENGINE()                                                                                       \
    do {                                                                                                     \
        if (g_why_skipped) {                                                                                 \
            print_message("skipped: %s\n", g_why_skipped);                                                   \
            skip();                                                                                          \
        }                                                                                                    \
    } while (0)

static char g_json[2048];

static const char *fn(const char *name, const char *image, const char *more)
{
    (void)snprintf(g_json, sizeof(g_json), "{\"name\":\"%s\",\"image\":\"%s\",\"grace\":\"1s\"%s}", name,
                   image, more);
    return g_json;
}

#define SHELL(script) ",\"entrypoint\":[\"/bin/busybox\",\"sh\",\"-c\",\"" script "\"]"

/* Keep n sandboxes for functions as this one, and wait until they are there. */
static void prime(const char *json, int64_t n)
{
    DV_AUTO_ARENA struct dv_arena arena = DV_ARENA_INIT;
    struct dv_fn_spec spec;
    struct dv_pool pool;
    struct dv_sandbox_engine_state e;
    assert_int_equal(
        dv_wire_decode(&dv_type_fn_spec, dv_sv_c(json), 1 << 20, DV_WIRE_STRICT, &arena, &spec, NULL), DV_OK);
    assert_int_equal(dv_fn_spec_finish(&spec, &arena, NULL), DV_OK);
    dv_pool_of(&spec, &pool);
    pool.n = n;
    dv_sandbox_pools(sw.sb, &(struct dv_cmd_pools){&pool, 1});
    dv_sandbox_engine(sw.sb, &e);
    for (int i = 0; i < 10000 && !(e.n_pools == 1 && e.pools[0].n == n); i++) {
        sw_turn();
        dv_sandbox_engine(sw.sb, &e);
    }
    assert_int_equal(e.n_pools, 1);
    assert_int_equal(e.pools[0].n, n);
    assert_true(dv_pool_same(&e.pools[0], &pool));
}

static void wait_warm(uint64_t id)
{
    SW_UNTIL(sw_state(id) == DV_REPLICA_WARM || sw_state(id) == DV_REPLICA_FAILED);
    if (sw_state(id) == DV_REPLICA_FAILED)
        fail_msg("%s\n%s", sw_get(id)->message, sw_get(id)->log_tail);
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

/* It came out of a pool, and the engine was not asked for it. */
static void was_opened(uint64_t id, uint64_t calls_before)
{
    uint64_t calls, errors;
    struct sw_seen *s = sw_get(id);
    assert_int_equal(s->r.times.create_us, 0);
    assert_true(s->r.times.start_us > 0);
    if (!calls_before)
        return;
    dv_sandbox_engine_stats(sw.sb, &calls, &errors);
    assert_int_equal(calls, calls_before);
}

static void ask(uint64_t id, const char *request, struct dv_buf *answer)
{
    struct dv_hostport hp;
    struct timeval limit = {.tv_sec = 5};
    assert_int_equal(dv_hostport_parse(sw_get(id)->address, -1, &hp, NULL), DV_OK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(hp.port)};
    assert_int_equal(inet_pton(AF_INET, hp.host, &a.sin_addr), 1);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), (ssize_t)strlen(request));
    for (ssize_t n = 1; n > 0;) {
        assert_int_equal(dv_buf_reserve(answer, 4096), DV_OK);
        n = recv(fd, dv_buf_end(answer), 4096, 0);
        if (n > 0)
            dv_buf_commit(answer, (size_t)n);
    }
    (void)close(fd);
}

/* ---- tests ---- */

static void an_image_that_holds_one_program_is_primed_opened_and_served(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    enum { N = 5 };
    uint64_t calls, errors;
    int64_t best_open = INT64_MAX, best_ready = INT64_MAX;
    prime(fn("bare", g_bare, ""), N);
    for (uint64_t i = 1; i <= N; i++) {
        DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
        dv_sandbox_engine_stats(sw.sb, &calls, &errors);
        sw_start(g_node + i, 7,
                 fn("bare", g_bare, ",\"limits\":{\"memory\":\"32Mi\",\"cpu\":\"500m\",\"pids\":33}"));
        SW_UNTIL(sw_state(g_node + i) != DV_REPLICA_STARTING && sw_get(g_node + i)->n_reports);
        was_opened(g_node + i, calls);
        wait_warm(g_node + i);
        ask(g_node + i, "GET /status/200 HTTP/1.0\r\nHost: f\r\n\r\n", &answer);
        assert_non_null(strstr(dv_buf_cstr(&answer), " 200 "));
        struct dv_start_times *t = &sw_get(g_node + i)->r.times;
        best_open = t->start_us < best_open ? t->start_us : best_open;
        best_ready = t->ready_us < best_ready ? t->ready_us : best_ready;
        print_message("opened after %lld us, ready %lld us later\n", (long long)t->start_us,
                      (long long)t->ready_us);
    }
    assert_true(best_open < 20000); /* what a busy machine allows; 0.2 ms by itself */
    assert_true(best_ready < 50000);
    for (uint64_t i = 2; i <= N; i++) /* one sandbox each */
        assert_string_not_equal(sw_get(g_node + i)->container, sw_get(g_node + 1)->container);
    for (int i = 0; i < 1500 && !sw_get(g_node + 1)->r.memory_bytes; i++) {
        sw_turn();
        sw_take(true);
    }
    assert_true(sw_get(g_node + 1)->r.memory_bytes > 4096); /* from its own control group */
    sw_stop(g_node + 1, false);
    SW_UNTIL(sw_get(g_node + 1)->n_gone == 1);
    assert_int_equal(metric("davit_agent_primed_opened_total"), N);
    assert_int_equal(metric("davit_agent_primed_failures_total"), 0);
}

static void the_images_entrypoint_user_and_directory_hold_and_its_environment_too(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7, fn("web", g_box, ""));
    wait_warm(g_node + 1);
    was_opened(g_node + 1, 0);
    ask(g_node + 1, "GET /index.html HTTP/1.0\r\n\r\n", &answer); /* -h . is the image's directory */
    assert_non_null(strstr(dv_buf_cstr(&answer), "a page of the image\n"));
    prime(fn("web", g_box, ""), 1);
    dv_buf_clear(&answer);
    sw_start(
        g_node + 2, 8,
        fn("tell", g_box,
           ",\"protocol\":\"stdio\",\"secrets\":[\"token\"],\"env\":{\"MINE\":\"1\"},\"command\":[\"/bin/"
           "busybox\",\"sh\",\"-c\",\"echo $GREETING $MINE $PORT $(/bin/busybox id -u) $(pwd); "
           "/bin/busybox cat $DAVIT_SECRETS/token; echo; /bin/busybox touch /x 2>&1\"]"));
    wait_warm(g_node + 2);
    was_opened(g_node + 2, 0);
    ask(g_node + 2, "POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n", &answer);
    assert_non_null(strstr(dv_buf_cstr(&answer), "hello 1 8080 1000 /www\ns3cret\n"));
    assert_non_null(strstr(dv_buf_cstr(&answer), "Read-only file system"));
}

static void another_user_is_another_kind(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7, fn("web", g_box, ",\"user\":\"1001\""));
    wait_warm(g_node + 1);
    assert_true(sw_get(g_node + 1)->r.times.create_us > 0); /* cold */
    sw_start(g_node + 2, 7, fn("web", g_box, ",\"pull\":\"always\",\"health\":{\"start_timeout\":\"1s\"}"));
    SW_UNTIL(sw_state(g_node + 2) == DV_REPLICA_FAILED); /* no registry has it: it was asked for */
    assert_int_equal(sw_get(g_node + 2)->r.reason, DV_REASON_IMAGE_MISSING);
}

static void a_program_that_is_not_there_is_told_with_the_reason(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7, fn("web", g_box, ",\"entrypoint\":[\"/no/such/program\"]"));
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    struct sw_seen *s = sw_get(g_node + 1);
    assert_int_equal(s->r.reason, DV_REASON_CREATE_FAILED);
    assert_int_equal(s->r.exit_code, 127);
    assert_non_null(strstr(s->message, "cannot run \"/no/such/program\": no such program in this image"));
    was_opened(g_node + 1, 0);
}

static void a_program_that_ends_takes_its_code_and_its_words_with_it_once(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7, fn("web", g_box, SHELL("echo first; echo no configuration >&2; exit 7")));
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    struct sw_seen *s = sw_get(g_node + 1);
    assert_int_equal(s->r.reason, DV_REASON_EXITED);
    assert_int_equal(s->r.exit_code, 7);
    assert_non_null(strstr(s->log_tail, "no configuration"));
    for (int i = 0; i < 100; i++) /* the engine's own events come later, and say nothing new */
        sw_turn();
    assert_int_equal(s->r.state, DV_REPLICA_FAILED);
    assert_int_equal(metric("davit_agent_replica_failures_total{reason=\"exited\"}"), 1);
}

static void the_end_of_a_warm_one_is_known_before_the_engine_tells(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("bare", g_bare, ""), 1);
    sw_start(g_node + 1, 7, fn("bare", g_bare, ""));
    wait_warm(g_node + 1);
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    ask(g_node + 1, "GET /exit HTTP/1.0\r\nHost: f\r\n\r\n", &answer);
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(g_node + 1)->r.reason, DV_REASON_EXITED);
    assert_int_equal(sw_get(g_node + 1)->r.exit_code, 7);
}

static void a_program_without_memory_is_told_so(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7,
             fn("fat", g_box,
                ",\"limits\":{\"memory\":\"8Mi\"}" SHELL(
                    "exec /bin/busybox dd if=/dev/zero of=/tmp/fill bs=1M count=60")));
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    if (sw_get(g_node + 1)->r.reason != DV_REASON_OOM)
        print_message("%s\n%s\n", sw_get(g_node + 1)->message, sw_get(g_node + 1)->log_tail);
    assert_int_equal(sw_get(g_node + 1)->r.reason, DV_REASON_OOM);
    was_opened(g_node + 1, 0);
}

static void stopping_lets_the_program_end_well(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7,
             fn("web", g_box,
                SHELL("trap 'echo goodbye; exit 0' TERM; /bin/busybox httpd -p $PORT -h /www; while :; do "
                      "/bin/busybox sleep 0.05; done")));
    wait_warm(g_node + 1);
    sw_stop(g_node + 1, false);
    SW_UNTIL(sw_get(g_node + 1)->n_gone == 1);
    dv_sandbox_logs(sw.sb, &(struct dv_cmd_logs){.request = 1, .fn_uid = 7, .tail = -1});
    SW_UNTIL(sw.n_log_ends == 1);
    assert_non_null(strstr(sw.logs, "goodbye\n"));
}

static void restart(void)
{
    sw.engine->ops->close(sw.engine);
    dv_sandbox_free(sw.sb);
    sw.sb = NULL;
    sw.n_seen = 0;
    open_engine();
}

static void the_next_agent_finds_open_and_closed_ones(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    char container[80];
    prime(fn("bare", g_bare, ""), 3);
    sw_start(g_node + 1, 7, fn("bare", g_bare, ""));
    wait_warm(g_node + 1);
    (void)dv_copy(container, sizeof(container), sw_get(g_node + 1)->container);
    uint64_t made = metric("davit_agent_primed_made_total");
    assert_true(made >= 3);
    restart();
    wait_warm(g_node + 1);
    assert_string_equal(sw_get(g_node + 1)->container, container);
    prime(fn("bare", g_bare, ""), 2); /* those two that were closed */
    assert_int_equal(n_containers(), 3);
    assert_int_equal(metric("davit_agent_primed_failures_total"), 0);
    assert_int_equal(metric("davit_agent_orphans_removed_total"), 0);
    /* they open as ever, and the end of the old one is still told at once */
    sw_start(g_node + 2, 7, fn("bare", g_bare, ""));
    wait_warm(g_node + 2);
    was_opened(g_node + 2, 0);
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    ask(g_node + 1, "GET /exit HTTP/1.0\r\nHost: f\r\n\r\n", &answer);
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(g_node + 1)->r.exit_code, 7);
}

static void another_image_under_the_name_empties_the_pool(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    prime(fn("web", g_box, ""), 1);
    DV_AUTO_STR char *keep = dv_asprintf("/images/%s/tag?repo=%s-old", g_box, g_box); /* to be removed by */
    assert_int_equal(docker_raw("POST", keep, dv_sv(NULL, 0), NULL), 201);
    static const char *const dirs[] = {"bin/", "www/", "proc/", "sys/", "dev/", NULL};
    assert_true(import(g_box, BUSYBOX, "bin/busybox", dirs,
                       "&changes=ENTRYPOINT%20%5B%22/bin/busybox%22,%22httpd%22,%22-f%22,%22-p%22,%228080%22,"
                       "%22-h%22,%22/www%22%5D"));
    uint64_t made = metric("davit_agent_primed_made_total");
    for (int i = 0; i < 10000 && metric("davit_agent_primed_made_total") == made; i++)
        sw_turn(); /* noticed within seconds */
    prime(fn("web", g_box, ""), 1);
    sw_start(g_node + 1, 7, fn("web", g_box, ""));
    wait_warm(g_node + 1); /* the new one has no user, and an entrypoint that needs no shell */
    was_opened(g_node + 1, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(an_image_that_holds_one_program_is_primed_opened_and_served),
        T(the_images_entrypoint_user_and_directory_hold_and_its_environment_too),
        T(another_user_is_another_kind),
        T(a_program_that_is_not_there_is_told_with_the_reason),
        T(a_program_that_ends_takes_its_code_and_its_words_with_it_once),
        T(the_end_of_a_warm_one_is_known_before_the_engine_tells),
        T(a_program_without_memory_is_told_so),
        T(stopping_lets_the_program_end_well),
        T(the_next_agent_finds_open_and_closed_ones),
        T(another_image_under_the_name_empties_the_pool),
    };
    return cmocka_run_group_tests(tests, prepare, clean);
}
