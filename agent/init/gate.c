/* The gate: first process of a container that was made before anybody knew what for.
 *
 * It connects to the agent's socket, says hello and sleeps in poll until the agent says, once, what to run.
 * That runs as its child in a session of its own; from then on every signal that comes here goes there, the
 * way it would have come to the program had it been process 1.  When the program has ended its fate and what
 * it used are told over the socket before anything else, then this process ends in the same way, and the
 * container with it.
 *
 * An agent that is away (restarting) is looked for again and again, at most half a second apart; what runs
 * meanwhile runs on.  Half a message is no message: it ends with its connection. */
#include "agent/init/init.h"
#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/rt/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RETRY_MIN_MS = 10, RETRY_MAX_MS = 500, FAREWELL_MS = 100, MALFORMED = 125 };

struct gate {
    const char *dir;
    int fd, signal_fd; /* fd -1: the agent is away */
    int retry_ms;
    pid_t pid; /* of the program; 0: not yet */
    char head[DV_GATE_HEAD];
    char *body; /* of a message that is coming in */
    size_t n_got, n_body;
};

/* ---- the connection ---- */

static void drop(struct gate *g)
{
    if (g->fd >= 0)
        (void)close(g->fd);
    g->fd = -1;
    dv_free(g->body);
    g->body = NULL;
    g->n_got = g->n_body = 0;
}

static void say(struct gate *g, const struct dv_gate_word *w)
{
    char bytes[DV_GATE_WORD_MAX];
    size_t n = dv_gate_word_write(w, bytes);
    if (g->fd < 0)
        return;
    if (send(g->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
        drop(g); /* it holds far more than all we ever say: who does not read is gone */
}

static int dial(const char *dir)
{
    DV_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", dir, DV_GATE_SOCK);
    if (fd < 0 || n < 0 || (size_t)n >= sizeof(a.sun_path) ||
        connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return -1;
    return dv_steal_fd(&fd);
}

static void look_for_agent(struct gate *g)
{
    g->fd = dial(g->dir);
    if (g->fd < 0) {
        g->retry_ms = g->retry_ms * 2 < RETRY_MAX_MS ? g->retry_ms * 2 : RETRY_MAX_MS;
        return;
    }
    g->retry_ms = RETRY_MIN_MS;
    say(g, &(struct dv_gate_word){.type = DV_GATE_HELLO, .pid = (uint32_t)g->pid});
}

/* ---- running it ---- */

static struct dv_sv key_of(const char *variable)
{
    return dv_sv(variable, strcspn(variable, "="));
}

static bool has_key(const struct dv_strs *env, struct dv_sv key)
{
    for (size_t i = 0; i < env->n; i++)
        if (dv_sv_eq(key_of(env->v[i]), key))
            return true;
    return false;
}

/* What was said, and of the container's own what it does not hide. */
static char **merge_env(const struct dv_strs *said)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **v = dv_zalloc_n(said->n + n + 1, sizeof(*v));
    if (!v)
        return NULL;
    size_t k = 0;
    for (size_t i = 0; i < said->n; i++)
        v[k++] = said->v[i];
    for (size_t i = 0; i < n; i++)
        if (!has_key(said, key_of(environ[i])))
            v[k++] = environ[i];
    return v;
}

static const char *path_of(char *const env[])
{
    for (; *env; env++)
        if (!strncmp(*env, "PATH=", 5))
            return *env + 5;
    return NULL;
}

static int spawn(pid_t *pid, const char *path, char *const argv[], char *const env[])
{
    posix_spawnattr_t attr;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int rc = posix_spawnattr_init(&attr);
    if (rc)
        return rc;
    (void)posix_spawnattr_setflags(&attr,
                                   POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setsigmask(&attr, &none);
    (void)posix_spawnattr_setsigdefault(&attr, &all);
    rc = posix_spawn(pid, path, NULL, &attr, argv, env);
    (void)posix_spawnattr_destroy(&attr);
    return rc;
}

static const char *why_not(int e, int *out_code)
{
    *out_code = e == ENOENT ? 127 : 126;
    return e == ENOENT    ? "its interpreter or its dynamic loader is missing in this image"
           : e == ENOEXEC ? "it is neither a program of this machine nor a script that names its interpreter"
                          : strerror(e);
}

/* 0, or the exit code that a shell would give, with the reason in why. */
static int start(struct gate *g, const struct dv_gate_run *run, char *why, size_t cap)
{
    char program[4096];
    const char *reason = NULL;
    if (run->workdir[0] && chdir(run->workdir) < 0) {
        (void)snprintf(why, cap, "cannot enter its directory %.100s: %s", run->workdir, strerror(errno));
        return 126;
    }
    DV_AUTO(dv_free) void *held = merge_env(&run->env);
    char **env = held;
    if (!env) {
        (void)snprintf(why, cap, "out of memory");
        return 126;
    }
    int code = init_find_program(run->argv.v[0], path_of(env), program, sizeof(program), &reason);
    int e = code ? 0 : spawn(&g->pid, program, run->argv.v, env);
    if (e)
        reason = why_not(e, &code);
    if (code)
        (void)snprintf(why, cap, "cannot run \"%.80s\": %s", run->argv.v[0], reason);
    return code;
}

/* The other side closes when it has heard; without it nobody would know whether the last word arrived before
 * the control group went away with the container. */
static void farewell(struct gate *g)
{
    struct pollfd p = {.fd = g->fd, .events = POLLIN};
    if (g->fd < 0)
        return;
    (void)shutdown(g->fd, SHUT_WR);
    (void)poll(&p, 1, FAREWELL_MS);
    drop(g);
}

static int refuse(struct gate *g, int code, const char *why)
{
    struct dv_gate_word w = {.type = DV_GATE_REFUSED, .code = (uint32_t)code};
    bool is_text = dv_utf8_valid(dv_sv_c(why)); /* a name may be cut inside a character, or never have been */
    (void)dv_copy(w.text, sizeof(w.text), why);
    for (char *p = w.text; *p && !is_text; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    (void)fprintf(stderr, "davit-init: %s\n", why);
    say(g, &w);
    farewell(g);
    return code;
}

/* A whole run message is here.  -1: go on; else the exit code of this process. */
static int obey(struct gate *g)
{
    struct dv_gate_run run;
    char why[DV_GATE_TEXT_MAX + 1] = "";
    int rc = g->pid ? DV_E_PROTO : dv_gate_run_read(dv_sv(g->body, g->n_body), &run);
    if (rc && g->pid) {
        drop(g); /* this sandbox has its program */
        return -1;
    }
    if (rc)
        return refuse(g, MALFORMED, "the agent's order is malformed; is davit-init of the same version?");
    int code = start(g, &run, why, sizeof(why));
    dv_gate_run_deinit(&run);
    dv_free(g->body);
    g->body = NULL;
    g->n_got = g->n_body = 0;
    if (code)
        return refuse(g, code, why);
    say(g, &(struct dv_gate_word){.type = DV_GATE_STARTED, .pid = (uint32_t)g->pid});
    return -1;
}

/* ---- listening ---- */

/* Into at, whose first n bytes are wanted of which `got` are here.  True: there are more now. */
static bool take(struct gate *g, char *at, size_t got, size_t n)
{
    ssize_t k = recv(g->fd, at + got, n - got, 0);
    if (k > 0) {
        g->n_got += (size_t)k;
        return true;
    }
    if (k == 0 || (errno != EAGAIN && errno != EINTR))
        drop(g);
    return false;
}

/* -1: go on; else the exit code of this process. */
static int listen_on(struct gate *g)
{
    while (g->fd >= 0) {
        struct dv_gate_head head;
        if (g->n_got < DV_GATE_HEAD) {
            if (!take(g, g->head, g->n_got, DV_GATE_HEAD))
                return -1;
            continue;
        }
        if (!g->body) {
            if (dv_gate_head_read(g->head, &head) || head.type != DV_GATE_RUN ||
                !(g->body = dv_alloc(head.n))) {
                drop(g);
                return -1;
            }
            g->n_body = head.n;
        }
        size_t got = g->n_got - DV_GATE_HEAD;
        if (got < g->n_body && !take(g, g->body, got, g->n_body))
            return -1;
        if (g->fd >= 0 && g->n_got == DV_GATE_HEAD + g->n_body)
            return obey(g);
    }
    return -1;
}

/* ---- signals and ends ---- */

static uint64_t us(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_usec;
}

static int over(struct gate *g, int status, const struct rusage *used)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int code = sig ? 128 + sig : WEXITSTATUS(status);
    say(g, &(struct dv_gate_word){.type = DV_GATE_EXITED,
                                  .code = (uint32_t)code,
                                  .signal = (uint32_t)sig,
                                  .user_us = us(used->ru_utime),
                                  .sys_us = us(used->ru_stime),
                                  .max_rss_bytes = (uint64_t)used->ru_maxrss * 1024});
    farewell(g);
    return code;
}

/* Everybody who lost his parent comes to us; only one of them is the program. */
static int reap(struct gate *g)
{
    int status;
    struct rusage used;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &used)) > 0;)
        if (pid == g->pid)
            return over(g, status, &used);
    return -1;
}

static int take_signals(struct gate *g)
{
    struct signalfd_siginfo si;
    while (read(g->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        int no = (int)si.ssi_signo;
        if (no == SIGCHLD)
            continue;
        if (g->pid)
            (void)kill(g->pid, no);
        else if (no == SIGTERM || no == SIGINT || no == SIGQUIT)
            return 128 + no;
    }
    return reap(g);
}

static int open_signals(void)
{
    sigset_t all;
    (void)sigfillset(&all);
    if (sigprocmask(SIG_BLOCK, &all, NULL) < 0)
        return -1;
    return signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
}

int init_gate(const char *dir)
{
    struct gate g = {.dir = dir, .fd = -1, .retry_ms = RETRY_MIN_MS / 2};
    int code = -1;
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1); /* reap as process 1 does, whoever we are */
    g.signal_fd = open_signals();
    if (g.signal_fd < 0)
        return 70;
    while (code < 0) {
        if (g.fd < 0)
            look_for_agent(&g);
        struct pollfd p[] = {{.fd = g.signal_fd, .events = POLLIN}, {.fd = g.fd, .events = POLLIN}};
        if (poll(p, 2, g.fd < 0 ? g.retry_ms : -1) < 0)
            continue;
        if (p[0].revents)
            code = take_signals(&g);
        if (code < 0 && p[1].revents)
            code = listen_on(&g);
    }
    return code;
}
