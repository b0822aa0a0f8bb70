/* The stdio server: accepts, waits with poll, reaps, stops.  At most concurrency programs run; further
 * requests wait in their connection, further connections in the kernel's queue. SIGTERM: nothing new is
 * accepted, what runs may end; a second one ends the programs too. */
#include "agent/init/conn.h"
#include "proto/base/alloc.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SPARE_CONNS = 64 };

struct server {
    struct init_server s;
    int listen_fd, signal_fd;
    struct init_conn **conns; /* in order of arrival, so that waiting is fair */
    size_t n_conns, max_conns;
    struct pollfd *polls;
    size_t n_polls;
};

static int64_t clock_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int open_listener(uint16_t port, uint16_t *out_port)
{
    DV_AUTO_FD int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int off = 0, on = 1;
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    bool has_6 = fd >= 0 && !setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) &&
                 !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) &&
                 !bind(fd, (const struct sockaddr *)&a6, sizeof(a6));
    if (!has_6) { /* a machine without IPv6 */
        if (fd >= 0)
            (void)close(fd);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
            bind(fd, (const struct sockaddr *)&a4, sizeof(a4)))
            return -1;
    }
    struct sockaddr_storage bound;
    socklen_t n = sizeof(bound);
    if (listen(fd, SOMAXCONN) || getsockname(fd, (struct sockaddr *)&bound, &n))
        return -1;
    *out_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port
                                                  : ((struct sockaddr_in *)(void *)&bound)->sin_port);
    return dv_steal_fd(&fd);
}

static int open_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL))
        return -1;
    (void)signal(SIGPIPE, SIG_IGN); /* a program that closes its stdin is no reason to die */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void accept_all(struct server *sv)
{
    while (sv->n_conns < sv->max_conns) {
        int fd = accept4(sv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), on = 1;
        if (fd < 0)
            return;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct init_conn *c = init_conn_new(fd);
        if (!c) {
            (void)close(fd);
            return;
        }
        c->at_fd = c->at_in = c->at_out = -1;
        sv->conns[sv->n_conns++] = c;
    }
}

static void reap(struct server *sv)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < sv->n_conns; i++)
            if (sv->conns[i]->has_child && sv->conns[i]->child.pid == pid) {
                sv->conns[i]->child.is_dead = true;
                sv->conns[i]->child.status = status;
            }
}

static void stop(struct server *sv)
{
    for (size_t i = 0; sv->s.is_stopping && i < sv->n_conns; i++)
        if (sv->conns[i]->has_child)
            init_child_end(&sv->conns[i]->child, sv->s.now_ms, 0);
    sv->s.is_stopping = true;
    if (sv->listen_fd >= 0)
        (void)close(sv->listen_fd);
    sv->listen_fd = -1;
}

static void take_signals(struct server *sv)
{
    struct signalfd_siginfo si;
    while (read(sv->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
        if (si.ssi_signo != SIGCHLD)
            stop(sv);
    reap(sv);
}

static int add_poll(struct server *sv, int fd, short events)
{
    sv->polls[sv->n_polls] = (struct pollfd){.fd = fd, .events = events};
    return (int)sv->n_polls++;
}

static int prepare(struct server *sv)
{
    int64_t wake = INT64_MAX;
    sv->n_polls = 0;
    (void)add_poll(sv, sv->signal_fd, POLLIN);
    (void)add_poll(sv, sv->n_conns < sv->max_conns ? sv->listen_fd : -1, POLLIN);
    for (size_t i = 0; i < sv->n_conns; i++) {
        struct init_conn *c = sv->conns[i];
        c->at_fd = c->fd >= 0 ? add_poll(sv, c->fd, init_conn_events(c)) : -1;
        c->at_in = init_conn_wants_stdin(c) ? add_poll(sv, c->child.in_fd, POLLOUT) : -1;
        c->at_out = init_conn_wants_stdout(c) ? add_poll(sv, c->child.out_fd, POLLIN) : -1;
        int64_t at = init_conn_wake_ms(c);
        wake = at < wake ? at : wake;
    }
    if (wake == INT64_MAX)
        return -1;
    int64_t left = wake - clock_ms();
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void step_all(struct server *sv)
{
    size_t kept = 0;
    for (size_t i = 0; i < sv->n_conns; i++) {
        struct init_conn *c = sv->conns[i];
        short got = c->at_fd >= 0 ? sv->polls[c->at_fd].revents : 0;
        if (got & (POLLIN | POLLRDHUP | POLLHUP | POLLERR))
            init_conn_readable(c, &sv->s);
        if (c->state != CONN_GONE && c->is_waiting && (got & (POLLRDHUP | POLLHUP | POLLERR)))
            c->is_eof = true;
        if (init_conn_step(c, &sv->s))
            sv->conns[kept++] = c;
        else
            init_conn_free(c);
    }
    sv->n_conns = kept;
}

static int serve(struct server *sv)
{
    while (!sv->s.is_stopping || sv->n_conns) {
        int wait_ms = prepare(sv);
        if (poll(sv->polls, (nfds_t)sv->n_polls, wait_ms) < 0 && errno != EINTR)
            return 70;
        sv->s.now_ms = clock_ms();
        if (sv->polls[0].revents)
            take_signals(sv);
        step_all(sv);
        if (sv->listen_fd >= 0 && sv->polls[1].revents)
            accept_all(sv);
    }
    return 0;
}

static int fail(const char *what, int code)
{
    (void)fprintf(stderr, "davit-init: %s: %s\n", what, strerror(errno));
    return code;
}

int init_stdio_serve(const struct init_stdio *cfg)
{
    char program[4096];
    const char *why;
    int rc = init_find_program(cfg->argv[0], getenv("PATH"), program, sizeof(program), &why);
    if (rc) {
        (void)fprintf(stderr, "davit-init: cannot run \"%s\": %s\n", cfg->argv[0], why);
        return rc;
    }
    struct server sv = {.s = {.cfg = cfg, .program = program}};
    sv.max_conns = (size_t)cfg->concurrency + SPARE_CONNS;
    sv.conns = dv_zalloc_n(sv.max_conns, sizeof(struct init_conn *));
    sv.polls = dv_zalloc_n(sv.max_conns * 3 + 2, sizeof(*sv.polls));
    uint16_t port = 0;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* reap as process 1 does, whoever we are */
    if (!sv.conns || !sv.polls || (sv.signal_fd = open_signals()) < 0)
        return fail("starting", 70);
    if ((sv.listen_fd = open_listener(cfg->port, &port)) < 0)
        return fail("listening", 69);
    if (!cfg->port)
        (void)fprintf(stderr, "davit-init: listening on port %u\n", (unsigned)port);
    rc = serve(&sv);
    dv_free(sv.conns);
    dv_free(sv.polls);
    return rc;
}
