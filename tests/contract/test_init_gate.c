/* davit-init at the gate, as a process of its own; the test is the agent on the other side of the socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/err.h"
#include "proto/rt/gate.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    char dir[64], sock[96];
    int listener, fd, out_fd;
    pid_t pid;
    char in[1024];
    size_t n_in;
} g;

/* ---- the agent's side ---- */

static void listen_again(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, g.sock, strlen(g.sock));
    (void)unlink(g.sock);
    g.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(g.listener, (const struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(g.listener, 1), 0);
}

static bool readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}

static void welcome(void)
{
    assert_true(readable(g.listener, 5000));
    g.fd = accept4(g.listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(g.fd >= 0);
    g.n_in = 0;
}

static struct dv_gate_word hear(enum dv_gate_type type)
{
    struct dv_gate_word w;
    size_t used;
    int rc;
    while ((rc = dv_gate_word_read(dv_sv(g.in, g.n_in), &w, &used)) == DV_AGAIN) {
        assert_true(readable(g.fd, 5000));
        ssize_t n = read(g.fd, g.in + g.n_in, sizeof(g.in) - g.n_in);
        assert_true(n > 0);
        g.n_in += (size_t)n;
    }
    assert_int_equal(rc, DV_OK);
    memmove(g.in, g.in + used, g.n_in - used);
    g.n_in -= used;
    assert_int_equal(w.type, type);
    return w;
}

static size_t n_of(char *const *v)
{
    size_t n = 0;
    while (v && v[n])
        n++;
    return n;
}

static void order(char *const argv[], char *const env[], const char *workdir)
{
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    struct dv_gate_run run = {.argv = {(char **)(uintptr_t)argv, n_of(argv)},
                              .env = {(char **)(uintptr_t)env, n_of(env)},
                              .workdir = workdir};
    assert_int_equal(dv_gate_run_write(&b, &run), DV_OK);
    /* in two pieces, so that the middle of a message is met */
    size_t half = dv_buf_len(&b) / 2;
    assert_int_equal(send(g.fd, dv_buf_ptr(&b), half, MSG_NOSIGNAL), (ssize_t)half);
    (void)usleep(2000);
    size_t rest = dv_buf_len(&b) - half;
    assert_int_equal(send(g.fd, dv_buf_ptr(&b) + half, rest, MSG_NOSIGNAL), (ssize_t)rest);
}

#define RUN(...) order((char *[]){__VA_ARGS__, NULL}, NULL, NULL)

/* Waits for the end of davit-init; the wait status. */
static int ended(void)
{
    int status;
    assert_int_equal(waitpid(g.pid, &status, 0), g.pid);
    g.pid = 0;
    return status;
}

static void gone_with(int code)
{
    (void)close(g.fd);
    g.fd = -1;
    int status = ended();
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

static const char *said(char *out, size_t cap)
{
    size_t n = 0;
    for (ssize_t k; n + 1 < cap && (k = read(g.out_fd, out + n, cap - 1 - n)) > 0;)
        n += (size_t)k;
    out[n] = '\0';
    return out;
}

/* ---- the world ---- */

static void launch(void)
{
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    g.pid = fork();
    if (!g.pid) {
        char *argv[] = {"davit-init", "gate", g.dir, NULL};
        char *env[] = {"PATH=/usr/bin:/bin", "OF_IMAGE=image", "HIDDEN=image", NULL};
        (void)dup2(p[1], 1);
        (void)dup2(p[1], 2);
        if (!chdir("/usr"))
            (void)execve(DAVIT_BINARY_DIR "/bin/davit-init", argv, env);
        _exit(99);
    }
    (void)close(p[1]);
    g.out_fd = p[0];
}

static int setup(void **state)
{
    (void)state;
    memset(&g, 0, sizeof(g));
    (void)snprintf(g.dir, sizeof(g.dir), "/tmp/davit-test-gate-XXXXXX");
    assert_non_null(mkdtemp(g.dir));
    (void)snprintf(g.sock, sizeof(g.sock), "%s/%s", g.dir, DV_GATE_SOCK);
    g.fd = -1;
    listen_again();
    launch();
    welcome();
    assert_int_equal(hear(DV_GATE_HELLO).pid, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (g.pid) {
        (void)kill(g.pid, SIGKILL);
        (void)ended();
    }
    (void)close(g.listener);
    if (g.fd >= 0)
        (void)close(g.fd);
    (void)close(g.out_fd);
    (void)unlink(g.sock);
    return rmdir(g.dir);
}

/* ---- tests ---- */

static void what_it_is_told_runs_and_its_end_is_told_with_what_it_used(void **state)
{
    (void)state;
    char text[256];
    RUN("sh", "-c", "echo hello; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 7");
    assert_true(hear(DV_GATE_STARTED).pid > 0);
    struct dv_gate_word w = hear(DV_GATE_EXITED);
    assert_int_equal(w.code, 7);
    assert_int_equal(w.signal, 0);
    assert_true(w.user_us > 0);
    assert_true(w.max_rss_bytes > 100 * 1024 && w.max_rss_bytes < 1ull << 30);
    gone_with(7);
    assert_string_equal(said(text, sizeof(text)), "hello\n");
}

static void the_order_s_variables_go_before_the_image_s(void **state)
{
    (void)state;
    char text[512];
    order((char *[]){"env", NULL}, (char *[]){"PORT=99", "HIDDEN=function", NULL}, NULL);
    (void)hear(DV_GATE_STARTED);
    assert_int_equal(hear(DV_GATE_EXITED).code, 0);
    gone_with(0);
    (void)said(text, sizeof(text));
    assert_non_null(strstr(text, "PORT=99\n"));
    assert_non_null(strstr(text, "OF_IMAGE=image\n"));
    assert_non_null(strstr(text, "HIDDEN=function\n"));
    assert_null(strstr(text, "HIDDEN=image"));
    assert_non_null(strstr(text, "PATH=/usr/bin:/bin\n"));
}

static void programs_are_found_on_the_functions_path_and_from_its_directory(void **state)
{
    (void)state;
    char text[256], script[96];
    (void)snprintf(script, sizeof(script), "%s/tool", g.dir);
    int fd = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_int_equal(write(fd, "#!/bin/sh\npwd\n", 14), 14);
    (void)fchmod(fd, 0755);
    (void)close(fd);
    char *path = NULL;
    assert_true(asprintf(&path, "PATH=%s:/bin:/usr/bin", g.dir) > 0);
    order((char *[]){"tool", NULL}, (char *[]){path, NULL}, NULL);
    (void)hear(DV_GATE_STARTED);
    assert_int_equal(hear(DV_GATE_EXITED).code, 0);
    gone_with(0);
    assert_string_equal(said(text, sizeof(text)), "/usr\n"); /* where the container stands */
    free(path);
    (void)close(g.out_fd);
    launch();
    welcome();
    (void)hear(DV_GATE_HELLO);
    order((char *[]){"./tool", NULL}, NULL, g.dir);
    (void)hear(DV_GATE_STARTED);
    assert_int_equal(hear(DV_GATE_EXITED).code, 0);
    gone_with(0);
    (void)said(text, sizeof(text));
    assert_memory_equal(text, g.dir, strlen(g.dir));
    (void)unlink(script);
}

static void refused_with(char *const argv[], const char *workdir, int code, const char *why)
{
    order(argv, NULL, workdir);
    struct dv_gate_word w = hear(DV_GATE_REFUSED);
    assert_int_equal(w.code, code);
    assert_non_null(strstr(w.text, why));
    gone_with(code);
}

static void again(void)
{
    (void)close(g.out_fd);
    launch();
    welcome();
    (void)hear(DV_GATE_HELLO);
}

static void what_cannot_be_run_is_told_with_the_reason(void **state)
{
    (void)state;
    char text[512], bad[96];
    refused_with((char *[]){"no-such-program", NULL}, NULL, 127, "\"no-such-program\": no such program");
    assert_non_null(strstr(said(text, sizeof(text)), "davit-init: cannot run")); /* in its log too */
    again();
    refused_with((char *[]){"/etc/passwd", NULL}, NULL, 126, "not an executable file");
    again();
    refused_with((char *[]){"/bin/true", NULL}, "/no/such/place", 126, "cannot enter its directory");
    again();
    (void)snprintf(bad, sizeof(bad), "%s/bad", g.dir);
    int fd = open(bad, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    assert_int_equal(write(fd, "#!/no/interpreter\n", 18), 18);
    (void)fchmod(fd, 0755);
    (void)close(fd);
    refused_with((char *[]){bad, NULL}, NULL, 127, "interpreter");
    again();
    fd = open(bad, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, "just text\n", 10), 10);
    (void)close(fd);
    refused_with((char *[]){bad, NULL}, NULL, 126, "neither a program");
    (void)unlink(bad);
}

static void bytes_that_are_no_order_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(send(g.fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    char byte;
    assert_true(readable(g.fd, 5000));
    assert_int_equal(recv(g.fd, &byte, 1, 0) <= 0, 1);
    (void)close(g.fd);
    welcome(); /* it comes again, still without a program */
    assert_int_equal(hear(DV_GATE_HELLO).pid, 0);
    /* half an order and then no agent: no order */
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    char *argv[] = {"/bin/true"};
    assert_int_equal(dv_gate_run_write(&b, &(struct dv_gate_run){.argv = {argv, 1}}), DV_OK);
    assert_true(send(g.fd, dv_buf_ptr(&b), dv_buf_len(&b) - 3, MSG_NOSIGNAL) > 0);
    (void)close(g.fd);
    welcome();
    assert_int_equal(hear(DV_GATE_HELLO).pid, 0);
    RUN("sh", "-c", "exit 3");
    (void)hear(DV_GATE_STARTED);
    assert_int_equal(hear(DV_GATE_EXITED).code, 3);
    gone_with(3);
}

static void signals_go_to_the_program(void **state)
{
    (void)state;
    static const struct {
        int no;
        const char *name;
    } signals[] = {{SIGHUP, "HUP"},   {SIGUSR1, "USR1"}, {SIGUSR2, "USR2"}, {SIGWINCH, "WINCH"},
                   {SIGQUIT, "QUIT"}, {SIGINT, "INT"},   {SIGTERM, "TERM"}};
    char text[256], script[512] = "", line[64];
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        const char *end = signals[i].no == SIGTERM ? ";exit 0" : "";
        (void)snprintf(line, sizeof(line), "trap 'echo got %s%s' %s;", signals[i].name, end, signals[i].name);
        (void)strncat(script, line, sizeof(script) - strlen(script) - 1);
    }
    (void)strncat(script, "echo ready; while :; do sleep 0.01; done", sizeof(script) - strlen(script) - 1);
    RUN("sh", "-c", script);
    (void)hear(DV_GATE_STARTED);
    assert_true(read(g.out_fd, text, sizeof(text)) > 0);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        (void)snprintf(line, sizeof(line), "got %s\n", signals[i].name);
        (void)kill(g.pid, signals[i].no);
        assert_true(readable(g.out_fd, 5000));
        ssize_t n = read(g.out_fd, text, sizeof(text) - 1);
        assert_true(n > 0);
        text[n] = '\0';
        assert_string_equal(text, line);
    }
    assert_int_equal(hear(DV_GATE_EXITED).code, 0);
    gone_with(0);
}

static void a_program_ended_by_a_signal_is_told_so(void **state)
{
    (void)state;
    RUN("sh", "-c", "kill -9 $$");
    (void)hear(DV_GATE_STARTED);
    struct dv_gate_word w = hear(DV_GATE_EXITED);
    assert_int_equal(w.signal, 9);
    assert_int_equal(w.code, 137);
    gone_with(137);
}

static void asked_to_stop_at_a_closed_gate_it_goes_at_once(void **state)
{
    (void)state;
    (void)kill(g.pid, SIGTERM);
    gone_with(128 + SIGTERM);
}

static void an_agent_that_comes_back_is_met_with_what_runs(void **state)
{
    (void)state;
    RUN("sleep", "30");
    uint32_t pid = hear(DV_GATE_STARTED).pid;
    (void)close(g.fd);
    (void)close(g.listener);
    (void)unlink(g.sock);
    (void)usleep(50000);
    listen_again(); /* another inode, as another agent makes it */
    welcome();
    assert_int_equal(hear(DV_GATE_HELLO).pid, pid);
    RUN("sh", "-c", "echo second"); /* it has its program */
    char byte;
    assert_true(readable(g.fd, 5000));
    assert_true(recv(g.fd, &byte, 1, 0) <= 0);
    (void)close(g.fd);
    welcome();
    assert_int_equal(hear(DV_GATE_HELLO).pid, pid);
    (void)kill((pid_t)pid, SIGTERM);
    struct dv_gate_word w = hear(DV_GATE_EXITED);
    assert_int_equal(w.signal, SIGTERM);
    gone_with(128 + SIGTERM);
}

static void without_an_agent_the_end_is_not_held_up(void **state)
{
    (void)state;
    RUN("sh", "-c", "sleep 0.05; exit 4");
    (void)hear(DV_GATE_STARTED);
    (void)close(g.listener);
    (void)unlink(g.sock);
    gone_with(4);
    listen_again();
}

static void orphans_are_reaped(void **state)
{
    (void)state;
    char path[64], text[64];
    RUN("sh", "-c", "setsid sh -c 'exit 0' >/dev/null 2>&1 & exec sleep 30");
    (void)hear(DV_GATE_STARTED);
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)g.pid, (int)g.pid);
    size_t n_children = 0;
    for (int i = 0; i < 500 && n_children != 1; i++) { /* the program alone */
        FILE *f = fopen(path, "re");
        assert_non_null(f);
        size_t n = fread(text, 1, sizeof(text) - 1, f);
        text[n] = '\0';
        (void)fclose(f);
        n_children = 0;
        for (char *p = text; *p; p++)
            n_children += *p == ' ';
        (void)usleep(2000);
    }
    assert_int_equal(n_children, 1);
}

static void the_wait_costs_no_time_and_little_memory(void **state)
{
    (void)state;
    char path[64], line[256];
    long private_kb = 0, v;
    unsigned long user, sys;
    (void)usleep(100000);
    (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)g.pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "Private_Dirty: %ld kB", &v) == 1)
            private_kb = v;
    (void)fclose(f);
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)g.pid);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys),
                     2);
    (void)fclose(f);
    print_message("a closed gate: %ld KiB of its own, %lu ticks\n", private_kb, user + sys);
    assert_true(private_kb > 0 && private_kb <= 128);
    assert_true(user + sys <= 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_it_is_told_runs_and_its_end_is_told_with_what_it_used),
        T(the_order_s_variables_go_before_the_image_s),
        T(programs_are_found_on_the_functions_path_and_from_its_directory),
        T(what_cannot_be_run_is_told_with_the_reason),
        T(bytes_that_are_no_order_change_nothing),
        T(signals_go_to_the_program),
        T(a_program_ended_by_a_signal_is_told_so),
        T(asked_to_stop_at_a_closed_gate_it_goes_at_once),
        T(an_agent_that_comes_back_is_met_with_what_runs),
        T(without_an_agent_the_end_is_not_held_up),
        T(orphans_are_reaped),
        T(the_wait_costs_no_time_and_little_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
