/* davit-init as a container runs it: a process of its own on a free port, spoken to over TCP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/buf.h"
#include "proto/base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct init {
    pid_t pid;
    int port;
    int err_fd;
};

static void launch(struct init *in, char *const argv[])
{
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    in->pid = fork();
    if (!in->pid) {
        (void)dup2(p[1], 2);
        (void)execv(DAVIT_BINARY_DIR "/bin/davit-init", argv);
        _exit(99);
    }
    (void)close(p[1]);
    in->err_fd = p[0];
}

static void read_until(int fd, struct dv_buf *b, const char *needle)
{
    while (!strstr(dv_buf_cstr(b), needle)) {
        struct pollfd pf = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&pf, 1, 5000), 1);
        assert_int_equal(dv_buf_reserve(b, 4096), 0);
        ssize_t n = read(fd, dv_buf_end(b), 4096);
        if (n <= 0)
            return;
        dv_buf_commit(b, (size_t)n);
    }
}

#define START(in, ...) start(in, (char *[]){"davit-init", "stdio", "--port", "0", __VA_ARGS__, NULL})
static void start(struct init *in, char *const argv[])
{
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    launch(in, argv);
    read_until(in->err_fd, &text, "port ");
    read_until(in->err_fd, &text, "\n");
    const char *at = strstr(dv_buf_cstr(&text), "port ");
    assert_non_null(at);
    in->port = (int)strtol(at + 5, NULL, 10);
    assert_true(in->port > 0);
}

static int end(struct init *in, int signal_no)
{
    int status = 0;
    if (signal_no)
        (void)kill(in->pid, signal_no);
    assert_int_equal(waitpid(in->pid, &status, 0), in->pid);
    (void)close(in->err_fd);
    return status;
}

static int dial(const struct init *in)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)in->port)};
    struct timeval limit = {.tv_sec = 5};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void put(int fd, const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t rc = send(fd, (const char *)p + done, n - done, MSG_NOSIGNAL);
        assert_true(rc > 0);
        done += (size_t)rc;
    }
}

static void say(int fd, const char *text)
{
    put(fd, text, strlen(text));
}

/* Everything until the peer closes; false when it broke off with an error instead of an end. */
static void slurp(int fd, struct dv_buf *b)
{
    for (;;) {
        assert_int_equal(dv_buf_reserve(b, 65536), 0);
        ssize_t n = recv(fd, dv_buf_end(b), 65536, 0);
        assert_true(n >= 0 || errno == ECONNRESET);
        if (n <= 0)
            break;
        dv_buf_commit(b, (size_t)n);
    }
    (void)close(fd);
}

/* One request on a connection of its own; the whole answer as text. */
static const char *ask(const struct init *in, struct dv_buf *b, const char *request)
{
    int fd = dial(in);
    dv_buf_clear(b);
    say(fd, request);
    slurp(fd, b);
    return dv_buf_cstr(b);
}

#define CLOSE "Host: f\r\nConnection: close\r\n"

static void body_goes_in_and_output_comes_out_with_its_length(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "wc", "-c");
    const char *answer = ask(&in, &b, "POST / HTTP/1.1\r\n" CLOSE "Content-Length: 5\r\n\r\nhello");
    assert_non_null(strstr(answer, "HTTP/1.1 200 OK\r\n"));
    assert_non_null(strstr(answer, "Content-Length: 2\r\n"));
    assert_non_null(strstr(answer, "Content-Type: text/plain\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\n5\n"));
    answer = ask(&in, &b,
                 "POST / HTTP/1.1\r\n" CLOSE "Transfer-Encoding: chunked\r\nContent-Type: a/b\r\n\r\n"
                 "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    assert_non_null(strstr(answer, "\r\n\r\n7\n"));
    assert_non_null(strstr(answer, "Content-Type: a/b\r\n"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void the_request_is_told_in_the_environment(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "env");
    const char *answer =
        ask(&in, &b,
            "PUT /a/b?x=1&y HTTP/1.1\r\n" CLOSE "x-call-ID: 42\r\nX-Two: first\r\nX-Two: second\r\n"
            "Content-Type: text/csv\r\nContent-Length: 0\r\n\r\n");
    assert_non_null(strstr(answer, "\nHttp_Path=/a/b\n"));
    assert_non_null(strstr(answer, "Http_Method=PUT\n"));
    assert_non_null(strstr(answer, "\nHttp_Query=x=1&y\n"));
    assert_non_null(strstr(answer, "\nHttp_X_Call_Id=42\n"));
    assert_non_null(strstr(answer, "\nHttp_Content_Type=text/csv\n"));
    assert_non_null(strstr(answer, "\nHttp_Content_Length=0\n"));
    assert_non_null(strstr(answer, "\nHttp_X_Two=first\n"));
    assert_null(strstr(answer, "second"));
    assert_non_null(strstr(answer, "\nPATH="));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void a_connection_serves_one_request_after_the_other(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "cat");
    int fd = dial(&in);
    /* the third is already there when the second is answered */
    say(fd, "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 3\r\n\r\none");
    read_until(fd, &b, "one");
    say(fd, "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 3\r\n\r\ntwo"
            "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 5\r\n\r\nthree");
    read_until(fd, &b, "three");
    assert_non_null(strstr(dv_buf_cstr(&b), "two"));
    (void)close(fd);
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void a_program_that_ignores_its_input_still_answers_and_the_connection_lives_on(void **state)
{
    (void)state;
    struct init in;
    enum { BIG = 4 << 20 };
    static char body[BIG];
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "echo", "fixed");
    int fd = dial(&in);
    say(fd, "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 4194304\r\n\r\n");
    put(fd, body, BIG);
    read_until(fd, &b, "fixed");
    say(fd, "GET / HTTP/1.1\r\n" CLOSE "\r\n");
    dv_buf_clear(&b);
    slurp(fd, &b);
    assert_non_null(strstr(dv_buf_cstr(&b), "HTTP/1.1 200"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void a_failing_program_is_told_apart_from_a_failing_server(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "sh", "-c",
          "case $Http_Path in /quiet) exit 3;; /words) echo because; exit 4;; *) kill -9 $$;; esac");
    const char *answer = ask(&in, &b, "GET /quiet HTTP/1.1\r\n" CLOSE "\r\n");
    assert_non_null(strstr(answer, "HTTP/1.1 500 "));
    assert_non_null(strstr(answer, "\r\n\r\nthe program failed: exit code 3\n"));
    answer = ask(&in, &b, "GET /words HTTP/1.1\r\n" CLOSE "\r\n");
    assert_non_null(strstr(answer, "HTTP/1.1 500 "));
    assert_non_null(strstr(answer, "X-Davit-Program: exit code 4\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\nbecause\n"));
    answer = ask(&in, &b, "GET /signal HTTP/1.1\r\n" CLOSE "\r\n");
    assert_non_null(strstr(answer, "the program failed: signal 9"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void output_streams_while_the_program_runs(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "sh", "-c", "echo first; read go; echo got $go");
    int fd = dial(&in);
    say(fd, "POST / HTTP/1.1\r\n" CLOSE "Transfer-Encoding: chunked\r\n\r\n");
    read_until(fd, &b, "first"); /* its input is still open: this came while it ran */
    say(fd, "3\r\non\n\r\n0\r\n\r\n");
    slurp(fd, &b);
    assert_non_null(strstr(dv_buf_cstr(&b), "Transfer-Encoding: chunked\r\n"));
    assert_non_null(strstr(dv_buf_cstr(&b), "got on\n"));
    assert_true(dv_sv_ends(dv_buf_sv(&b), DV_SV("\r\n0\r\n\r\n")));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void a_program_that_fails_after_output_breaks_the_answer_off(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "sh", "-c", "echo partial; read go; exit 1");
    int fd = dial(&in);
    say(fd, "POST / HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\n");
    read_until(fd, &b, "partial");
    say(fd, "3\r\ngo\n\r\n0\r\n\r\n");
    slurp(fd, &b);
    assert_null(strstr(dv_buf_cstr(&b), "\r\n0\r\n\r\n"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void large_output_passes_whole(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "head", "-c", "30000000", "/dev/zero");
    int fd = dial(&in);
    say(fd, "GET / HTTP/1.0\r\nHost: f\r\n\r\n"); /* HTTP/1.0: no chunks, ends with the connection */
    slurp(fd, &b);
    const char *body = memmem(dv_buf_ptr(&b), dv_buf_len(&b), "\r\n\r\n", 4);
    assert_non_null(body);
    assert_int_equal(dv_buf_len(&b) - (size_t)(body + 4 - dv_buf_ptr(&b)), 30000000);
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void head_requests_run_the_program_and_send_no_body(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "echo", "hidden");
    const char *answer = ask(&in, &b, "HEAD / HTTP/1.1\r\n" CLOSE "\r\n");
    assert_non_null(strstr(answer, "Content-Length: 7\r\n"));
    assert_null(strstr(answer, "hidden"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void expecting_clients_are_told_to_continue(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "cat");
    int fd = dial(&in);
    say(fd, "POST / HTTP/1.1\r\n" CLOSE "Expect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    read_until(fd, &b, "HTTP/1.1 100 Continue\r\n\r\n");
    say(fd, "body");
    slurp(fd, &b);
    assert_non_null(strstr(dv_buf_cstr(&b), "\r\n\r\nbody"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void what_is_not_http_is_refused_without_running_anything(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "echo", "ran");
    const char *answer = ask(&in, &b, "GET / HTTP/1.1\nHost: f\n\n");
    assert_non_null(strstr(answer, "HTTP/1.1 400 "));
    assert_null(strstr(answer, "ran"));
    answer =
        ask(&in, &b, "POST / HTTP/1.1\r\nHost: f\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_non_null(strstr(answer, "HTTP/1.1 400 "));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void a_run_past_its_time_is_ended_and_said_so(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--timeout", "50", "--", "sh", "-c", "sleep 30; echo late");
    const char *answer = ask(&in, &b, "GET / HTTP/1.1\r\n" CLOSE "\r\n");
    assert_non_null(strstr(answer, "HTTP/1.1 504 "));
    assert_non_null(strstr(answer, "stopped after 50 ms"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void a_client_that_leaves_ends_its_program_and_frees_the_slot(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "sh", "-c", "[ $Http_Path = /wait ] && echo waiting && sleep 30; echo done");
    int fd = dial(&in);
    say(fd, "GET /wait HTTP/1.1\r\nHost: f\r\n\r\n");
    read_until(fd, &b, "waiting");
    (void)close(fd);
    /* concurrency is 1: this is answered only when the first program is gone */
    const char *answer = ask(&in, &b, "GET / HTTP/1.1\r\n" CLOSE "\r\n");
    assert_non_null(strstr(answer, "done\n"));
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void no_more_programs_run_at_once_than_allowed(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    char path[] = "/tmp/davit-test-init-XXXXXX", script[256];
    int tmp = mkstemp(path);
    assert_true(tmp >= 0);
    /* each run leaves a mark while it is inside and reports how many marks it saw */
    (void)snprintf(script, sizeof(script), "echo x >> %s; grep -c x %s; sleep 0.05; sed -i 1d %s", path, path,
                   path);
    START(&in, "--concurrency", "1", "--", "sh", "-c", script);
    int fds[4];
    for (size_t i = 0; i < DV_COUNT(fds); i++)
        say(fds[i] = dial(&in), "GET / HTTP/1.1\r\n" CLOSE "\r\n");
    for (size_t i = 0; i < DV_COUNT(fds); i++) {
        dv_buf_clear(&b);
        slurp(fds[i], &b);
        assert_non_null(strstr(dv_buf_cstr(&b), "\r\n1\n"));
    }
    (void)close(tmp);
    (void)unlink(path);
    assert_int_equal(end(&in, SIGTERM), 0);
}

static void asked_to_stop_it_lets_the_running_program_end(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    START(&in, "--", "sh", "-c", "echo begun; read go; echo ended");
    int idle = dial(&in), fd = dial(&in);
    say(fd, "POST / HTTP/1.1\r\nHost: f\r\nTransfer-Encoding: chunked\r\n\r\n");
    read_until(fd, &b, "begun");
    (void)kill(in.pid, SIGTERM);
    char byte;
    assert_int_equal(recv(idle, &byte, 1, 0), 0); /* idle connections are closed at once */
    (void)close(idle);
    say(fd, "3\r\ngo\n\r\n0\r\n\r\n");
    slurp(fd, &b);
    assert_true(dv_sv_ends(dv_buf_sv(&b), DV_SV("ended\n\r\n0\r\n\r\n")));
    assert_int_equal(end(&in, 0), 0);
}

static void a_missing_program_is_told_at_the_start(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    launch(&in, (char *[]){"davit-init", "stdio", "--port", "0", "--", "no-such-program", NULL});
    read_until(in.err_fd, &text, "\n");
    assert_non_null(
        strstr(dv_buf_cstr(&text), "cannot run \"no-such-program\": no such program in this image"));
    int status = end(&in, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 127);
    launch(&in, (char *[]){"davit-init", "stdio", "--port", "0", "--", "/etc/passwd", NULL});
    status = end(&in, 0);
    assert_int_equal(WEXITSTATUS(status), 126);
    launch(&in, (char *[]){"davit-init", "stdio", "--port", "x", "--", "true", NULL});
    assert_int_equal(WEXITSTATUS(end(&in, 0)), 64);
}

static void orphans_are_reaped(void **state)
{
    (void)state;
    struct init in;
    DV_AUTO_BUF struct dv_buf b = DV_BUF_INIT;
    /* setsid takes the sleeper out of the run's process group, so it outlives the run and becomes ours */
    START(&in, "--", "sh", "-c", "setsid sh -c 'sleep 0.05' >/dev/null 2>&1 & echo started");
    (void)ask(&in, &b, "GET / HTTP/1.1\r\n" CLOSE "\r\n");
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)in.pid, (int)in.pid);
    size_t n = 1;
    for (int i = 0; i < 1000 && n; i++) {
        char text[256];
        FILE *f = fopen(path, "re");
        assert_non_null(f);
        n = fread(text, 1, sizeof(text), f);
        (void)fclose(f);
        (void)usleep(2000);
    }
    assert_int_equal(n, 0);
    assert_int_equal(end(&in, SIGTERM), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(body_goes_in_and_output_comes_out_with_its_length),
        cmocka_unit_test(the_request_is_told_in_the_environment),
        cmocka_unit_test(a_connection_serves_one_request_after_the_other),
        cmocka_unit_test(a_program_that_ignores_its_input_still_answers_and_the_connection_lives_on),
        cmocka_unit_test(a_failing_program_is_told_apart_from_a_failing_server),
        cmocka_unit_test(output_streams_while_the_program_runs),
        cmocka_unit_test(a_program_that_fails_after_output_breaks_the_answer_off),
        cmocka_unit_test(large_output_passes_whole),
        cmocka_unit_test(head_requests_run_the_program_and_send_no_body),
        cmocka_unit_test(expecting_clients_are_told_to_continue),
        cmocka_unit_test(what_is_not_http_is_refused_without_running_anything),
        cmocka_unit_test(a_run_past_its_time_is_ended_and_said_so),
        cmocka_unit_test(a_client_that_leaves_ends_its_program_and_frees_the_slot),
        cmocka_unit_test(no_more_programs_run_at_once_than_allowed),
        cmocka_unit_test(asked_to_stop_it_lets_the_running_program_end),
        cmocka_unit_test(a_missing_program_is_told_at_the_start),
        cmocka_unit_test(orphans_are_reaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
