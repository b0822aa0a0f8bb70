/* davit-init: the first process of a container.  Static, no library beyond libc; everything here is one
 * thread. */
#ifndef DV_INIT_H
#define DV_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "proto/base/buf.h"
#include "proto/rt/http1.h"

/* ---- child.c: one program, one request ---- */

struct init_child {
    pid_t pid;          /* also its process group; 0: none */
    int in_fd, out_fd;  /* our ends of stdin and stdout, non-blocking; -1 when closed */
    bool is_dead;       /* reaped */
    int status;         /* as waitpid tells */
    int64_t kill_at_ms; /* SIGKILL then; 0: not asked to end */
};

/* argv0 as execvp would find it with this PATH (NULL or "": the usual one), in out.  0; 127 (no such program)
 * or 126 (not executable), reason told in why. */
int init_find_program(const char *argv0, const char *path, char *out, size_t cap, const char **why);
/* Start path with argv and env; stderr is ours.  0, or errno. */
int init_child_spawn(struct init_child *c, const char *path, char *const argv[], char *const env[]);
/* SIGTERM to the whole group now, SIGKILL when grace_ms have passed (see init_child_tick). */
void init_child_end(struct init_child *c, int64_t now_ms, int64_t grace_ms);
void init_child_tick(struct init_child *c, int64_t now_ms);
/* Close both pipes, kill what is left of its group. */
void init_child_deinit(struct init_child *c);
/* "exit code 3", "signal 9 (Killed)". */
void init_child_fate(int status, char *out, size_t cap);

/* ---- http.c: what a request and an answer look like ---- */

struct init_env {
    struct dv_buf text; /* the strings, NUL-terminated, one after the other */
    char **v;           /* NULL-terminated; points into text and into environ */
};
/* The container's environment with the request's: Http_Method, Http_Path, Http_Query, Http_<Header>.  0 or
 * DV_E_NOMEM. */
int init_env_build(struct init_env *e, const struct dv_h1_head *h);
void init_env_deinit(struct init_env *e);

struct init_answer {
    int status;
    struct dv_sv content_type;
    int64_t length;   /* -1: chunked, or until close for HTTP/1.0 */
    const char *fate; /* not NULL: how the program failed, for X-Davit-Program */
    bool keep_alive;
    int minor;
};
int init_answer_head(struct dv_buf *out, const struct init_answer *a);

/* ---- stdio.c: the server ---- */

struct init_stdio {
    uint16_t port;      /* 0: any free one, told on stderr */
    int concurrency;    /* programs at once; more requests wait */
    int64_t timeout_ms; /* of one run; 0: none */
    char **argv;
};
/* Serves until SIGTERM; returns the exit code of the process. */
int init_stdio_serve(const struct init_stdio *cfg);

/* ---- gate.c: waiting to be told what to run ---- */

/* Waits at the socket in dir, runs what it is told there once, and returns the exit code of the process: the
 * program's own, or 128 + the signal that ended it. */
int init_gate(const char *dir);

/* ---- hold.c: a container that only waits ---- */

/* Waits for SIGTERM or SIGINT, reaping meanwhile; returns the exit code of the process. */
int init_hold(void);

#endif
