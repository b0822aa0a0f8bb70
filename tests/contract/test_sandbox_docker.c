/* Replicas on a real dockerd, end to end: an image of busybox made by the test, functions of both protocols,
 * their ends, and an agent that comes back; all of it with networks of their own and with ready ones.  Needs
 * root (addresses of the bridge), dockerd and a static busybox; says so and skips otherwise.  Everything it
 * makes bears a node id and image name of this run and is removed again. */
#include "tests/support/docker_raw.h"
#include "tests/support/sandbox_world.h"

#include "agent/cgroup/cgroup.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>

static char g_image[64], g_network[64];
static uint64_t g_node;
static int64_t g_ready; /* networks kept ready in this run */
static const char *g_why_skipped;

/* ---- the image ---- */

static bool import_image(void)
{
    static const char *const dirs[] = {"bin/", "www/", "proc/", "sys/", "dev/", "etc/", "tmp/"};
    static const char end[1024];
    DV_AUTO_BUF struct dv_buf file = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf page = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf tar = DV_BUF_INIT;
    DV_AUTO_STR char *path = dv_asprintf("/images/create?fromSrc=-&repo=%s", g_image);
    if (dv_file_read(BUSYBOX, 8 << 20, &file, NULL))
        return false;
    for (size_t i = 0; i < DV_COUNT(dirs); i++)
        tar_entry(&tar, dirs[i], NULL);
    (void)dv_buf_add_c(&page, "a page of the image\n");
    tar_entry(&tar, "bin/busybox", &file);
    tar_entry(&tar, "www/index.html", &page);
    (void)dv_buf_add(&tar, end, sizeof(end));
    return docker_raw("POST", path, dv_buf_sv(&tar), "application/x-tar") == 200;
}

static int prepare(void **state)
{
    (void)state;
    if (dv_random(&g_node, sizeof(g_node), NULL))
        return -1;
    (void)snprintf(g_image, sizeof(g_image), "davit-test-sandbox-%016llx", (unsigned long long)g_node);
    (void)snprintf(g_network, sizeof(g_network), "davit-test-%016llx", (unsigned long long)g_node);
    g_why_skipped = geteuid() != 0          ? "not root"
                    : access(BUSYBOX, X_OK) ? "no static busybox at " BUSYBOX
                    : access(SOCKET, W_OK)  ? "no dockerd at " SOCKET
                    : docker_raw("GET", "/_ping", dv_sv(NULL, 0), NULL) != 200
                        ? "no dockerd answers at " SOCKET
                    : !import_image() ? "dockerd did not import the image"
                                      : NULL;
    if (g_why_skipped)
        print_message("[  SKIPPED ] replicas on a real engine: %s\n", g_why_skipped);
    return 0;
}

static void remove_networks(void);

static int prepare_ready(void **state)
{
    g_ready = 2;
    return prepare(state);
}

static int clean(void **state)
{
    (void)state;
    DV_AUTO_STR char *image = dv_asprintf("/images/%s?force=true", g_image);
    DV_AUTO_STR char *network = dv_asprintf("/networks/%s", g_network);
    if (!g_why_skipped && g_ready)
        remove_networks();
    if (!g_why_skipped) {
        (void)docker_raw("DELETE", image, dv_sv(NULL, 0), NULL);
        (void)docker_raw("DELETE", network, dv_sv(NULL, 0), NULL);
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

static unsigned long n_networks(const char *state)
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    char name[80];
    (void)snprintf(name, sizeof(name), "\ndavit_agent_networks{state=\"%s\"} ", state);
    dv_sandbox_metrics(sw.sb, &text);
    const char *at = strstr(dv_buf_cstr(&text), name);
    assert_non_null(at);
    return strtoul(at + strlen(name), NULL, 10);
}

static int setup(void **state)
{
    (void)state;
    if (g_why_skipped)
        return 0;
    assert_int_equal(dv_cgroup_setup(NULL), DV_OK);
    sw_open();
    sw.init_path = DAVIT_BINARY_DIR "/bin/davit-init";
    sw.network = g_network;
    sw.node = g_node;
    sw.ready_networks = g_ready;
    open_engine();
    if (g_ready)
        SW_UNTIL(n_networks("ready") >= 1); /* the first test makes them, the others take them over */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (g_why_skipped)
        return 0;
    dv_sandbox_sync(sw.sb, &(struct dv_cmd_sync){0});
    for (size_t i = 0; i < sw.n_seen; i++)
        sw_stop(sw.seen[i].id, true);
    SW_UNTIL(dv_sandbox_n_replicas(sw.sb) == 0);
    sw.engine->ops->close(sw.engine);
    sw_close();
    return 0;
}

static void remove_networks(void)
{
    void *nothing = NULL;
    g_ready = 0;
    assert_int_equal(setup(&nothing), 0);
    SW_UNTIL(!n_networks("ready") && !n_networks("found") && !n_networks("removing"));
    assert_int_equal(teardown(&nothing), 0);
}

#define NEEDS_ENGINE()                                                                                       \
    do {                                                                                                     \
        if (g_why_skipped) {                                                                                 \
            print_message("skipped: %s\n", g_why_skipped);                                                   \
            skip();                                                                                          \
        }                                                                                                    \
    } while (0)

static char g_json[2048];

static const char *fn(const char *name, const char *more)
{
    (void)snprintf(g_json, sizeof(g_json), "{\"name\":\"%s\",\"image\":\"%s\",\"grace\":\"1s\"%s}", name,
                   g_image, more);
    return g_json;
}

#define SHELL(script) ",\"command\":[\"/bin/busybox\",\"sh\",\"-c\",\"" script "\"]"

static void wait_warm(uint64_t id)
{
    SW_UNTIL(sw_state(id) == DV_REPLICA_WARM || sw_state(id) == DV_REPLICA_FAILED);
    if (sw_state(id) == DV_REPLICA_FAILED)
        fail_msg("%s\n%s", sw_get(id)->message, sw_get(id)->log_tail);
}

/* A request straight to the container, as the carry would send it. */
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

static bool has_memory(void)
{
    struct dv_sandbox_engine_state e;
    dv_sandbox_engine(sw.sb, &e);
    return e.info->has_memory_limit;
}

/* ---- tests ---- */

static void a_web_server_is_started_serves_and_is_removed(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    sw_start(g_node + 1, 7, fn("web", SHELL("exec /bin/busybox httpd -f -p $PORT -h /www")));
    wait_warm(g_node + 1);
    ask(g_node + 1, "GET /index.html HTTP/1.0\r\n\r\n", &answer);
    assert_non_null(strstr(dv_buf_cstr(&answer), "a page of the image\n"));
    struct sw_seen *s = sw_get(g_node + 1);
    assert_true(s->r.times.create_us > 0);
    assert_true(s->r.times.start_us > 0);
    print_message("create %lld us, start %lld us, ready %lld us\n", (long long)s->r.times.create_us,
                  (long long)s->r.times.start_us, (long long)s->r.times.ready_us);
    for (int i = 0; i < 1500 && !s->r.memory_bytes && has_memory(); i++) {
        sw_turn();
        sw_take(true);
    }
    if (has_memory())
        assert_true(s->r.memory_bytes > 4096); /* from its own control group */
    assert_true(s->r.memory_bytes < 64 << 20);
    sw_stop(g_node + 1, false);
    SW_UNTIL(s->n_gone == 1);
    DV_AUTO_STR char *path = dv_asprintf("/containers/%s/json", s->container);
    assert_int_equal(docker_raw("GET", path, dv_sv(NULL, 0), NULL), 404);
}

static void any_program_is_a_function_under_davit_init(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    sw_start(g_node + 1, 7,
             fn("wc", ",\"protocol\":\"stdio\",\"secrets\":[\"token\"]" SHELL(
                          "cat $DAVIT_SECRETS/token; echo; /bin/busybox wc -c; echo $OPENFAAS_NAME")));
    wait_warm(g_node + 1);
    /* to HTTP/1.0 a program's output comes without chunks, in however many pieces it was written */
    ask(g_node + 1, "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", &answer);
    assert_non_null(strstr(dv_buf_cstr(&answer), "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(dv_buf_cstr(&answer), "\r\n\r\ns3cret\n5\nwc\n"));
}

static void a_process_that_ends_takes_its_words_with_it(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    sw_start(g_node + 1, 7, fn("bad", SHELL("echo no configuration >&2; exit 7")));
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    assert_int_equal(sw_get(g_node + 1)->r.reason, DV_REASON_EXITED);
    assert_int_equal(sw_get(g_node + 1)->r.exit_code, 7);
    assert_non_null(strstr(sw_get(g_node + 1)->log_tail, "no configuration"));
}

static void a_process_without_memory_is_told_so(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    if (!has_memory()) {
        print_message("skipped: this engine has no control groups that bound memory\n");
        skip();
    }
    sw_start(g_node + 1, 7,
             fn("fat", ",\"limits\":{\"memory\":\"8Mi\",\"tmp\":\"64Mi\"}" SHELL(
                           "exec /bin/busybox dd if=/dev/zero of=/tmp/fill bs=1M count=60")));
    SW_UNTIL(sw_state(g_node + 1) == DV_REPLICA_FAILED);
    if (sw_get(g_node + 1)->r.reason != DV_REASON_OOM)
        print_message("%s\n%s\n", sw_get(g_node + 1)->message, sw_get(g_node + 1)->log_tail);
    assert_int_equal(sw_get(g_node + 1)->r.reason, DV_REASON_OOM);
}

static void the_next_agent_takes_the_replica_over(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    char container[80];
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    sw_start(g_node + 1, 7, fn("web", SHELL("exec /bin/busybox httpd -f -p $PORT -h /www")));
    wait_warm(g_node + 1);
    (void)dv_copy(container, sizeof(container), sw_get(g_node + 1)->container);
    sw.engine->ops->close(sw.engine);
    dv_sandbox_free(sw.sb);
    sw.sb = NULL;
    sw.n_seen = 0;
    open_engine();
    wait_warm(g_node + 1);
    assert_string_equal(sw_get(g_node + 1)->container, container);
    ask(g_node + 1, "GET /index.html HTTP/1.0\r\n\r\n", &answer);
    assert_non_null(strstr(dv_buf_cstr(&answer), "a page of the image\n"));
}

/* Name servers come with the network that is joined: names are found as in a network of one's own. */
static void names_are_found_inside(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT, body = DV_BUF_INIT;
    char other[64];
    (void)snprintf(other, sizeof(other), "davit-test-other-%016llx", (unsigned long long)g_node);
    (void)dv_buf_addf(&body,
                      "{\"Image\":\"%s\",\"Cmd\":[\"/bin/busybox\",\"sleep\",\"60\"],"
                      "\"HostConfig\":{\"NetworkMode\":\"%s\"}}",
                      g_image, g_network);
    DV_AUTO_STR char *create = dv_asprintf("/containers/create?name=%s", other);
    DV_AUTO_STR char *begin = dv_asprintf("/containers/%s/start", other);
    DV_AUTO_STR char *remove = dv_asprintf("/containers/%s?force=true", other);
    assert_int_equal(docker_raw("POST", create, dv_buf_sv(&body), "application/json"), 201);
    assert_int_equal(docker_raw("POST", begin, dv_sv(NULL, 0), NULL), 204);
    DV_AUTO_STR char *json = dv_asprintf(",\"protocol\":\"stdio\"" SHELL("/bin/busybox nslookup %s"), other);
    sw_start(g_node + 1, 7, fn("names", json));
    wait_warm(g_node + 1);
    ask(g_node + 1, "GET / HTTP/1.0\r\n\r\n", &answer);
    assert_int_equal(docker_raw("DELETE", remove, dv_sv(NULL, 0), NULL), 204);
    const char *found = strstr(dv_buf_cstr(&answer), "Name:");
    if (!found || !strstr(found, other) || !strstr(found, "Address"))
        fail_msg("%s", dv_buf_cstr(&answer));
}

/* What one replica left open cannot be reached by the next: the address is another's now. */
static void an_address_is_used_again_when_its_replica_is_gone(void **state)
{
    (void)state;
    NEEDS_ENGINE();
    char first[64];
    DV_AUTO_BUF struct dv_buf answer = DV_BUF_INIT;
    sw_start(g_node + 1, 7, fn("web", SHELL("exec /bin/busybox httpd -f -p $PORT -h /www")));
    wait_warm(g_node + 1);
    (void)dv_copy(first, sizeof(first), sw_get(g_node + 1)->address);
    if (g_ready)
        assert_int_equal(n_networks("in_use"), 1);
    sw_stop(g_node + 1, false);
    SW_UNTIL(sw_get(g_node + 1)->n_gone == 1);
    SW_UNTIL(!n_networks("in_use") && !n_networks("closing"));
    bool is_again = false;
    for (uint64_t i = 2; i <= 4; i++) {
        sw_start(g_node + i, 7, fn("web", SHELL("exec /bin/busybox httpd -f -p $PORT -h /www")));
        wait_warm(g_node + i);
        is_again |= strcmp(sw_get(g_node + i)->address, first) == 0;
        dv_buf_clear(&answer);
        ask(g_node + i, "GET /index.html HTTP/1.0\r\n\r\n", &answer);
        assert_non_null(strstr(dv_buf_cstr(&answer), "a page of the image\n"));
    }
    if (g_ready)
        assert_true(is_again);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_web_server_is_started_serves_and_is_removed),
        T(any_program_is_a_function_under_davit_init),
        T(a_process_that_ends_takes_its_words_with_it),
        T(a_process_without_memory_is_told_so),
        T(the_next_agent_takes_the_replica_over),
        T(names_are_found_inside),
        T(an_address_is_used_again_when_its_replica_is_gone),
    };
    int failed = cmocka_run_group_tests_name("networks of their own", tests, prepare, clean);
    return failed + cmocka_run_group_tests_name("ready networks", tests, prepare_ready, clean);
}
