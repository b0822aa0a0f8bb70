/* What httpd.c (the server, reading requests) and httpd_reply.c (answering them) share. */
#ifndef DV_HTTPD_INTERNAL_H
#define DV_HTTPD_INTERNAL_H

#include <microhttpd.h>
#include "proto/base/arena.h"
#include "proto/base/list.h"
#include "proto/rt/httpd.h"
#include "proto/rt/loop.h"

struct dv_httpd {
    struct dv_loop *loop;
    struct dv_httpd_cfg cfg;
    char *unix_path;
    struct MHD_Daemon *mhd;
    struct dv_io io;
    struct dv_timer timer;
    struct dv_defer run;
    struct dv_list reqs;
    int port;
    bool is_stopping;
};

enum phase {
    READING,   /* head known, body arriving */
    WAITING,   /* with the user */
    ANSWERED,  /* a whole response is set, not yet queued */
    STREAMING, /* response queued or about to be, body still to come */
    ENDED,     /* the user is done with it */
};

struct param {
    const char *name, *value;
};

struct dv_http_req {
    struct dv_list node;
    struct dv_httpd *d;
    struct MHD_Connection *conn; /* NULL once MHD is done with it */
    struct dv_arena arena;
    struct dv_io gone; /* watches the socket while MHD does not */
    enum phase phase;
    char *method, *path, *query;
    struct dv_buf body;
    uint64_t n_dropped; /* bytes past the body limit */
    struct MHD_Response *response;
    int status;
    struct param *headers, *params;
    size_t n_headers, cap_headers, n_params;
    struct dv_buf out;       /* stream bytes not yet taken by MHD */
    bool is_head_seen;       /* the first handler call is over */
    bool is_short_of_memory; /* a header was lost: no answer rather than a wrong one */
    bool is_suspended;
    bool is_queued;     /* response given to MHD */
    bool is_in_handler; /* MHD is on the stack, no resume needed */
    bool is_gone;       /* client left, or the answer could not be made */
    bool is_user_done;
    void *user;
    void (*on_gone)(void *user);
};

/* MHD looks away; our loop watches for the hang-up. */
void dv_httpd_suspend(struct dv_http_req *r);
/* MHD looks again, and runs at the end of this turn; nothing when not suspended. */
void dv_httpd_resume(struct dv_http_req *r);
/* Free it once both MHD and the user are done with it. */
void dv_httpd_unref(struct dv_http_req *r);
/* Once, before the handler; false: no memory. */
bool dv_httpd_parse_params(struct dv_http_req *r);

#endif
