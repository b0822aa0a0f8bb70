/* One program run: spawned into a process group of its own, so that ending it ends all it started.  The run
 * is over when its first process has ended; what that left behind in the group is killed then. */
#include "agent/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int runnable(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno == EACCES ? EACCES : ENOENT;
    if (!S_ISREG(st.st_mode))
        return EACCES;
    return access(path, X_OK) < 0 ? EACCES : 0;
}

static int verdict(int code, const char **why)
{
    *why = code == ENOENT ? "no such program in this image" : "not an executable file";
    return code == ENOENT ? 127 : 126;
}

int init_find_program(const char *argv0, const char *path, char *out, size_t cap, const char **why)
{
    int best = ENOENT;
    if (strchr(argv0, '/')) {
        if (!dv_copy(out, cap, argv0))
            return verdict(ENOENT, why);
        best = runnable(argv0);
        return best ? verdict(best, why) : 0;
    }
    struct dv_sv rest =
        dv_sv_c(path && *path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    while (rest.n) {
        struct dv_sv dir;
        (void)dv_sv_cut(rest, ':', &dir, &rest);
        int n = snprintf(out, cap, "%.*s/%s", (int)dir.n, dir.p, argv0);
        if (!dir.n || n < 0 || (size_t)n >= cap)
            continue;
        int code = runnable(out);
        if (!code)
            return 0;
        if (code == EACCES)
            best = EACCES;
    }
    return verdict(best, why);
}

static int spawn_with(pid_t *pid, const char *path, char *const argv[], char *const env[], int in_fd,
                      int out_fd)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int rc = posix_spawn_file_actions_init(&files);
    if (rc)
        return rc;
    rc = posix_spawnattr_init(&attr);
    if (!rc) {
        (void)posix_spawn_file_actions_adddup2(&files, in_fd, STDIN_FILENO);
        (void)posix_spawn_file_actions_adddup2(&files, out_fd, STDOUT_FILENO);
        (void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                  POSIX_SPAWN_SETSIGDEF);
        (void)posix_spawnattr_setpgroup(&attr, 0);
        (void)posix_spawnattr_setsigmask(&attr, &none);
        (void)posix_spawnattr_setsigdefault(&attr, &all);
        rc = posix_spawn(pid, path, &files, &attr, argv, env);
        (void)posix_spawnattr_destroy(&attr);
    }
    (void)posix_spawn_file_actions_destroy(&files);
    return rc;
}

int init_child_spawn(struct init_child *c, const char *path, char *const argv[], char *const env[])
{
    DV_AUTO_FD int in_ours = -1;
    DV_AUTO_FD int in_theirs = -1;
    DV_AUTO_FD int out_ours = -1;
    DV_AUTO_FD int out_theirs = -1;
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return errno;
    in_theirs = p[0];
    in_ours = p[1];
    if (pipe2(p, O_CLOEXEC) < 0)
        return errno;
    out_ours = p[0];
    out_theirs = p[1];
    if (fcntl(in_ours, F_SETFL, O_NONBLOCK) < 0 || fcntl(out_ours, F_SETFL, O_NONBLOCK) < 0)
        return errno;
    pid_t pid;
    int rc = spawn_with(&pid, path, argv, env, in_theirs, out_theirs);
    if (rc)
        return rc;
    *c = (struct init_child){.pid = pid, .in_fd = dv_steal_fd(&in_ours), .out_fd = dv_steal_fd(&out_ours)};
    return 0;
}

void init_child_end(struct init_child *c, int64_t now_ms, int64_t grace_ms)
{
    if (c->is_dead || c->kill_at_ms)
        return;
    (void)kill(-c->pid, SIGTERM);
    c->kill_at_ms = now_ms + grace_ms;
}

void init_child_tick(struct init_child *c, int64_t now_ms)
{
    if (c->is_dead || !c->kill_at_ms || now_ms < c->kill_at_ms)
        return;
    (void)kill(-c->pid, SIGKILL);
    c->kill_at_ms = INT64_MAX; /* once is enough: the kernel does not forget */
}

static void shut(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

void init_child_deinit(struct init_child *c)
{
    shut(&c->in_fd);
    shut(&c->out_fd);
    if (c->pid)
        (void)kill(-c->pid, SIGKILL);
    c->pid = 0;
}

void init_child_fate(int status, char *out, size_t cap)
{
    if (WIFSIGNALED(status))
        (void)snprintf(out, cap, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)snprintf(out, cap, "exit code %d", WEXITSTATUS(status));
}
