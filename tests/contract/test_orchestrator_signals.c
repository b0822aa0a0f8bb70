/* The program itself: what signals do to it, and what it says about its certificate.  Its log is read through
 * a pipe; nothing of it outlives the test. */
#include "tests/support/tls_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "proto/rt/clock.h"

#define PROGRAM DAVIT_BINARY_DIR "/bin/davit-orchestrator"

struct program {
    char dir[64];
    pid_t pid;
    int fd; /* its log */
    char log[16384];
    size_t n;
};

static void start(struct program *p, const char *cert, const char *key)
{
    int fds[2];
    char state[96];
    const char *argv[16] = {PROGRAM,       "--listen",    "127.0.0.1:0", "--metrics-listen",
                            "127.0.0.1:0", "--state-dir", state};
    int n = 7;
    *p = (struct program){.dir = "/tmp/davit-signals-XXXXXX"};
    assert_non_null(mkdtemp(p->dir));
    (void)snprintf(state, sizeof(state), "%s/state", p->dir);
    if (cert) {
        argv[n++] = "--tls-cert";
        argv[n++] = cert;
    }
    if (key) {
        argv[n++] = "--tls-key";
        argv[n++] = key;
    }
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    p->pid = fork();
    assert_true(p->pid >= 0);
    if (!p->pid) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(fds[1], STDERR_FILENO);
        (void)execv(PROGRAM, (char **)(uintptr_t)argv);
        _exit(127);
    }
    (void)close(fds[1]);
    p->fd = fds[0];
}

/* Until the text stands in the log; what came before it is forgotten. */
static void expect_log(struct program *p, const char *text)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 20 * DV_S;
    char *at;
    while (!(at = strstr(p->log, text))) {
        struct pollfd fd = {.fd = p->fd, .events = POLLIN};
        if (dv_clock_now_ns(&dv_clock_system) > until || p->n + 1 >= sizeof(p->log))
            fail_msg("no \"%s\" in: %s", text, p->log);
        if (poll(&fd, 1, 100) <= 0)
            continue;
        ssize_t n = read(p->fd, p->log + p->n, sizeof(p->log) - 1 - p->n);
        if (n <= 0)
            fail_msg("ended without \"%s\": %s", text, p->log);
        p->n += (size_t)n;
        p->log[p->n] = 0;
    }
    at += strlen(text);
    p->n -= (size_t)(at - p->log);
    memmove(p->log, at, p->n + 1);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static void expect_exit(struct program *p, int code)
{
    int status = 0;
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
    (void)close(p->fd);
    assert_int_equal(nftw(p->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void hangup_without_tls_changes_nothing(void **state)
{
    (void)state;
    struct program p;
    start(&p, NULL, NULL);
    expect_log(&p, "scheme=http ");
    assert_int_equal(kill(p.pid, SIGHUP), 0);
    expect_log(&p, "nothing to reload");
    assert_int_equal(kill(p.pid, SIGTERM), 0); /* and it still ends as it should */
    expect_log(&p, "draining");
    expect_exit(&p, 0);
}

static void hangup_reloads_a_good_certificate_and_survives_a_bad_one(void **state)
{
    (void)state;
    struct program p;
    struct pair pair = pair_new(1);
    start(&p, pair.cert, pair.key);
    expect_log(&p, "certificate loaded");
    expect_log(&p, "scheme=https ");
    assert_int_equal(dv_file_write(pair.key, dv_sv("no key", 6), 0600, NULL), DV_OK);
    assert_int_equal(kill(p.pid, SIGHUP), 0);
    expect_log(&p, "certificate not reloaded; the present one stays in use");
    expect_log(&p, pair.key);
    pair_write(&pair, 2);
    assert_int_equal(kill(p.pid, SIGHUP), 0);
    expect_log(&p, "certificate loaded");
    assert_int_equal(kill(p.pid, SIGTERM), 0);
    expect_exit(&p, 0);
    pair_free(&pair);
}

static void a_start_with_half_a_pair_or_without_its_file_is_refused(void **state)
{
    (void)state;
    struct program p;
    struct pair pair = pair_new(1);
    start(&p, pair.cert, NULL);
    expect_log(&p, "--tls-key is missing");
    expect_exit(&p, 1);
    start(&p, NULL, pair.key);
    expect_log(&p, "--tls-cert is missing");
    expect_exit(&p, 1);
    start(&p, "/nonexistent/cert.pem", pair.key);
    expect_log(&p, "--tls-cert: opening /nonexistent/cert.pem");
    expect_exit(&p, 1);
    pair_free(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hangup_without_tls_changes_nothing),
        cmocka_unit_test(hangup_reloads_a_good_certificate_and_survives_a_bad_one),
        cmocka_unit_test(a_start_with_half_a_pair_or_without_its_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
