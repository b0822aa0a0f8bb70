/* One connection of the stdio server: requests one after the other, each with its program.  The server
 * (stdio.c) owns the descriptors' readiness; a connection only moves bytes. */
#ifndef DV_INIT_CONN_H
#define DV_INIT_CONN_H

#include "agent/init/init.h"

enum init_conn_state {
    CONN_HEAD, /* between requests, or inside a request's head */
    CONN_RUN,  /* the program runs */
    CONN_END,  /* answer complete; the rest of the request's body is thrown away */
    CONN_GONE  /* client gone; only the program's end is waited for */
};

struct init_conn {
    enum init_conn_state state;
    int fd; /* -1 when CONN_GONE */
    struct dv_buf in, out;
    struct dv_buf held; /* output not yet promised to the client */
    bool is_waiting;    /* a whole head is there, no slot is free */
    bool is_eof;        /* the client sends nothing more */
    bool is_head_method, keep_alive, is_started, is_timed_out, is_output_end;
    int minor;
    char content_type[160];
    /* body */
    enum dv_h1_body body;
    uint64_t left; /* LENGTH */
    struct dv_h1_chunked chunked;
    size_t run, run_after; /* decoded bytes at the front of in, and framing behind them */
    bool is_body_end;
    /* program */
    bool has_child;
    struct init_child child;
    int64_t first_out_ms; /* 0: nothing held */
    int64_t deadline_ms;  /* of the run, or of the head; 0: none */
    /* places in the poll set; -1: not in it */
    int at_fd, at_in, at_out;
};

struct init_server {
    const struct init_stdio *cfg;
    const char *program; /* absolute path */
    int64_t now_ms;
    int n_running;
    bool is_stopping;
};

struct init_conn *init_conn_new(int fd);
void init_conn_free(struct init_conn *c);
/* Do what can be done without waiting.  False when the connection is over and may be freed. */
bool init_conn_step(struct init_conn *c, struct init_server *s);
/* What to wait for: poll events on fd; whether stdin and stdout are wanted. */
short init_conn_events(const struct init_conn *c);
bool init_conn_wants_stdin(const struct init_conn *c);
bool init_conn_wants_stdout(const struct init_conn *c);
/* Earliest time at which step has something to do by itself; INT64_MAX: none. */
int64_t init_conn_wake_ms(const struct init_conn *c);
/* The descriptor became readable, or its peer left. */
void init_conn_readable(struct init_conn *c, struct init_server *s);

#endif
