/* The program itself: how it ends.  A gateway's link is played by the test; no engine is needed.  Its log is
 * read through a pipe; nothing of it outlives the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/linkio.h"
#include "proto/rt/sys.h"

#define PROGRAM DAVIT_BINARY_DIR "/bin/davit-agent"

static struct {
    char dir[64], log[16384];
    size_t n;
    pid_t pid;
    int fd;
    struct dv_loop *loop;
    struct dv_linkio *data;
    bool is_open, is_going, is_closed;
} w;

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    w.is_open = w.is_open || ev->kind == DV_LINK_EV_OPEN;
    w.is_going = w.is_going || ev->kind == DV_LINK_EV_GOAWAY;
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)code;
    (void)err;
    w.is_closed = true;
}

static void start(const char *drain_timeout)
{
    int fds[2];
    char state[96], file[112], key[65], json[160];
    memset(&w, 0, sizeof(w));
    (void)snprintf(w.dir, sizeof(w.dir), "/tmp/davit-agent-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    (void)snprintf(state, sizeof(state), "%s/state", w.dir);
    (void)snprintf(file, sizeof(file), "%s/node.json", state);
    assert_int_equal(mkdir(state, 0700), 0);
    memset(key, '7', 64);
    key[64] = '\0';
    int n = snprintf(json, sizeof(json), "{\"node\":\"00000000000000ab\",\"key\":\"%s\"}", key);
    assert_int_equal(dv_file_write(file, dv_sv(json, (size_t)n), 0600, NULL), DV_OK);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    w.pid = fork();
    assert_true(w.pid >= 0);
    if (!w.pid) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(fds[1], STDERR_FILENO);
        (void)execl(PROGRAM, PROGRAM, "--orchestrator", "http://127.0.0.1:1", "--listen", "127.0.0.1:0",
                    "--metrics-listen", "", "--docker", "unix:///nowhere/docker.sock", "--state-dir", state,
                    "--drain-timeout", drain_timeout, (char *)NULL);
        _exit(127);
    }
    (void)close(fds[1]);
    w.fd = fds[0];
    assert_int_equal(dv_loop_new(&dv_clock_system, &w.loop, NULL), DV_OK);
}

/* Until the text stands in the log. */
static const char *expect_log(const char *text)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 20 * DV_S;
    char *at;
    while (!(at = strstr(w.log, text))) {
        struct pollfd fd = {.fd = w.fd, .events = POLLIN};
        if (dv_clock_now_ns(&dv_clock_system) > until || w.n + 1 >= sizeof(w.log))
            fail_msg("no \"%s\" in: %s", text, w.log);
        if (poll(&fd, 1, 100) <= 0)
            continue;
        ssize_t n = read(w.fd, w.log + w.n, sizeof(w.log) - 1 - w.n);
        if (n <= 0)
            fail_msg("ended without \"%s\": %s", text, w.log);
        w.n += (size_t)n;
        w.log[w.n] = 0;
    }
    return at + strlen(text);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static void expect_exit(int code)
{
    int status = 0;
    assert_int_equal(waitpid(w.pid, &status, 0), w.pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
    (void)close(w.fd);
    dv_linkio_free(w.data);
    dv_loop_free(w.loop);
    assert_int_equal(nftw(w.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

#define UNTIL(what)                                                                                          \
    do {                                                                                                     \
        for (int turn_ = 0; turn_ < 5000 && !(what); turn_++)                                                \
            assert_int_equal(dv_loop_turn(w.loop, 2), DV_OK);                                                \
        assert_true(what);                                                                                   \
    } while (0)

static void connect_gateway(void)
{
    char address[32];
    struct dv_linkio_cfg cfg = {
        .link = {.role = DV_LINK_CLIENT, .purpose = DV_LINK_DATA_CONN, .node = 0xab, .on_event = on_event},
        .on_closed = on_closed};
    memset(cfg.link.key, 0x77, sizeof(cfg.link.key));
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d",
                   (int)strtol(expect_log("advertise=127.0.0.1:"), NULL, 10));
    assert_int_equal(dv_linkio_connect(w.loop, address, &cfg, &w.data, NULL), DV_OK);
    UNTIL(w.is_open);
    for (int i = 0; i < 10; i++) /* its place in the carry */
        assert_int_equal(dv_loop_turn(w.loop, 2), DV_OK);
}

static void an_idle_agent_ends_at_once(void **state)
{
    (void)state;
    start("1m");
    connect_gateway();
    assert_int_equal(kill(w.pid, SIGTERM), 0);
    UNTIL(w.is_going && w.is_closed);
    dv_linkio_free(w.data); /* as a gateway does when its peer has closed */
    w.data = NULL;
    (void)expect_log("draining; replicas keep running");
    (void)expect_log("ended; replicas keep running");
    expect_exit(0);
}

static void an_agent_whose_gateway_does_not_let_go_ends_when_its_time_is_over(void **state)
{
    (void)state;
    start("1500ms");
    connect_gateway();
    uint64_t began = dv_clock_now_ns(&dv_clock_system);
    assert_int_equal(kill(w.pid, SIGTERM), 0); /* and from here on the gateway does nothing */
    (void)expect_log("draining: waits for requests inside");
    (void)expect_log("links=1");
    (void)expect_log("the time to drain is over");
    expect_exit(0);
    assert_true(dv_clock_now_ns(&dv_clock_system) - began >= 1400 * DV_MS);
}

static void a_second_signal_ends_it_at_once(void **state)
{
    (void)state;
    start("1m");
    connect_gateway();
    assert_int_equal(kill(w.pid, SIGTERM), 0);
    (void)expect_log("draining; replicas keep running");
    assert_int_equal(kill(w.pid, SIGTERM), 0);
    (void)expect_log("a second signal");
    expect_exit(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_agent_ends_at_once),
        cmocka_unit_test(an_agent_whose_gateway_does_not_let_go_ends_when_its_time_is_over),
        cmocka_unit_test(a_second_signal_ends_it_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
