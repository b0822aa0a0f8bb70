#include "deploy/cli/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deploy/cli/cli.h"

enum { STEP_MS = 20 };

static void pause_ms(int ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL);
}

static ssize_t read_small(const char *path, char *out, size_t cap)
{
    DV_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, cap - 1);
    out[n > 0 ? n : 0] = 0;
    return n;
}

/* Whether the process still is that program, and not dead already. */
static bool is_alive(pid_t pid, const char *program)
{
    char path[64], stat[512];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (read_small(path, stat, sizeof(stat)) <= 0)
        return false;
    /* "123 (davit-orchestr) S ...": the kernel keeps 15 bytes of the name. */
    const char *open = strchr(stat, '('), *close = strrchr(stat, ')');
    if (!open || !close || close - open < 2)
        return false;
    return strncmp(open + 1, program, (size_t)(close - open - 1)) == 0 && close[1] == ' ' && close[2] != 'Z';
}

pid_t cli_daemon_pid(const struct cli_daemon *d)
{
    char text[32];
    uint64_t pid;
    if (read_small(d->pid_path, text, sizeof(text)) <= 0)
        return 0;
    text[strcspn(text, "\n")] = 0;
    if (!dv_parse_u64(dv_sv_c(text), &pid) || pid < 2 || pid > INT32_MAX)
        return 0;
    return is_alive((pid_t)pid, d->program) ? (pid_t)pid : 0;
}

static const char *find_program(struct cli *c, const char *name)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash) {
        *slash = 0;
        const char *beside = cli_format(c, "%s/%s", self, name);
        if (access(beside, X_OK) == 0)
            return beside;
    }
    return name; /* execvp looks in PATH */
}

static int write_pid(const struct cli_daemon *d, pid_t pid)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%d\n", (int)pid);
    DV_AUTO_FD int fd = open(d->pid_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd >= 0 && write(fd, text, (size_t)n) == n ? 0 : errno;
}

/* In the child: nothing of ours but the log.  The pipe tells the parent when exec failed. */
static _Noreturn void become(const char *program, const char *const *argv, const char *const *env, int log_fd,
                             int fail_fd)
{
    int null_fd = open("/dev/null", O_RDONLY);
    (void)setsid();
    (void)dup2(null_fd, 0);
    (void)dup2(log_fd, 1);
    (void)dup2(log_fd, 2);
    for (size_t i = 0; env && env[i]; i++)
        (void)putenv((char *)(uintptr_t)env[i]);
    (void)execvp(program, (char *const *)(uintptr_t)argv);
    int err = errno;
    (void)!write(fail_fd, &err, sizeof(err)); /* nobody left to tell when this fails too */
    _exit(127);
}

int cli_daemon_start(struct cli *c, const struct cli_daemon *d, const char *const *argv,
                     const char *const *env)
{
    DV_AUTO_FD int log_fd = open(d->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    int fail[2];
    if (log_fd < 0)
        return cli_fail(CLI_FAILURE, "cannot write %s: %s", d->log_path, strerror(errno));
    if (pipe2(fail, O_CLOEXEC) != 0)
        return cli_fail(CLI_FAILURE, "cannot start %s: %s", d->program, strerror(errno));
    const char *program = find_program(c, d->program);
    pid_t pid = fork();
    if (pid == 0)
        become(program, argv, env, log_fd, fail[1]);
    int err = pid < 0 ? errno : 0;
    (void)close(fail[1]);
    if (pid > 0 && read(fail[0], &err, sizeof(err)) == sizeof(err))
        (void)waitpid(pid, NULL, 0);
    (void)close(fail[0]);
    if (!err)
        err = write_pid(d, pid);
    if (err)
        return cli_fail(CLI_FAILURE, "cannot start %s: %s", program, strerror(err));
    return CLI_OK;
}

bool cli_daemon_stop(const struct cli_daemon *d, int seconds)
{
    pid_t pid = cli_daemon_pid(d);
    if (pid) {
        (void)kill(pid, SIGTERM);
        for (int left = seconds * 1000; left > 0 && cli_daemon_pid(d) == pid; left -= STEP_MS) {
            (void)waitpid(pid, NULL, WNOHANG); /* when it is our own child */
            pause_ms(STEP_MS);
        }
        if (cli_daemon_pid(d) == pid)
            (void)kill(pid, SIGKILL);
    }
    (void)unlink(d->pid_path);
    return pid != 0;
}

void cli_daemon_show_log(struct cli *c, const struct cli_daemon *d)
{
    size_t n;
    const char *text = access(d->log_path, R_OK) == 0 ? cli_read_file(c, d->log_path, &n) : NULL;
    if (!text)
        return;
    const char *from = text + n;
    for (int lines = 0; from > text && lines <= 10; lines += from > text && from[-1] == '\n')
        from--;
    cli_note("---- the end of %s\n%s----", d->log_path, from > text ? from + 1 : text);
}

int cli_make_dir(struct cli *c, const char *path)
{
    char *p = cli_format(c, "%s", path);
    for (char *slash = p; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
        *slash = 0;
        if (mkdir(p, 0755) != 0 && errno != EEXIST)
            return cli_fail(CLI_FAILURE, "cannot make %s: %s", p, strerror(errno));
    }
    if (mkdir(p, 0700) != 0 && errno != EEXIST)
        return cli_fail(CLI_FAILURE, "cannot make %s: %s", p, strerror(errno));
    return CLI_OK;
}
