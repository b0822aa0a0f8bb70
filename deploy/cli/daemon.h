/* A program of ours in the background: started, found again by its pid file, stopped. */
#ifndef DV_CLI_DAEMON_H
#define DV_CLI_DAEMON_H

#include <stdbool.h>
#include <sys/types.h>

struct cli;

struct cli_daemon {
    const char *program;  /* "davit-agent"; looked for beside ourselves, then in PATH */
    const char *pid_path; /* in the state directory */
    const char *log_path; /* its stderr and stdout, appended */
};

/* 0 when it does not run (a pid that belongs to somebody else by now does not count). */
pid_t cli_daemon_pid(const struct cli_daemon *d);
/* argv[0] is ignored; both lists end with NULL.  env: "NAME=VALUE", added to ours.  CLI_OK, or CLI_FAILURE
 * after saying why. */
int cli_daemon_start(struct cli *c, const struct cli_daemon *d, const char *const *argv,
                     const char *const *env);
/* TERM, then KILL after the given seconds; the pid file is removed.  True when it ran. */
bool cli_daemon_stop(const struct cli_daemon *d, int seconds);
/* Last lines of its log, to stderr. */
void cli_daemon_show_log(struct cli *c, const struct cli_daemon *d);
int cli_make_dir(
    struct cli *c,
    const char *path); /* with its parents, 0700 for the last; CLI_OK or CLI_FAILURE after saying why */

#endif
