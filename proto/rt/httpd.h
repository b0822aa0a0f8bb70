/* HTTP server for what is not the path of a request: REST API, console, metrics.  libmicrohttpd in
 * external-epoll mode inside our loop.  Handlers run on the loop's thread with the whole body; they answer at
 * once or later. */
#ifndef DV_HTTPD_H
#define DV_HTTPD_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

struct dv_loop;
struct dv_httpd;
struct dv_http_req; /* one request; lives until it was answered (streams: until ended) */

struct dv_httpd_cfg {
    const char *unix_path; /* listen here (0600, stale socket replaced) ... */
    const char *address;   /* ... or on "host:port" */
    size_t body_max;       /* larger: 413 by itself, through on_error */
    /* Once per request, whole body present.  It must answer exactly once, now or later. */
    void (*on_request)(void *ctx, struct dv_http_req *req);
    /* Shape errors that the server finds itself (413, 400) like the API's own; NULL: plain text. */
    void (*on_error)(void *ctx, struct dv_http_req *req, int status, const char *why);
    void *ctx;
};

/* DV_OK; DV_INVALID; DV_E_IO ("address already in use": the message names the address and the cure);
 * DV_E_NOMEM. */
int dv_httpd_start(struct dv_loop *loop, const struct dv_httpd_cfg *cfg, struct dv_httpd **out,
                   struct dv_err *err);
/* Requests not yet answered get 503, streams end (on_gone tells both); then everything is freed, the requests
 * too. Not from inside a handler. */
void dv_httpd_stop(struct dv_httpd *d);
int dv_httpd_port(const struct dv_httpd *d); /* as bound; for "host:0" */

struct dv_sv dv_http_method(const struct dv_http_req *r);
struct dv_sv dv_http_path(const struct dv_http_req *r);  /* as sent, percent-encoded, without the query */
struct dv_sv dv_http_query(const struct dv_http_req *r); /* raw, without '?' */
struct dv_sv dv_http_header(const struct dv_http_req *r,
                            const char *name); /* .p NULL = absent, or client gone */
struct dv_sv dv_http_body(const struct dv_http_req *r);
/* Decoded query parameter, in the request's arena; NULL = absent.  "" when present without value. */
const char *dv_http_param(struct dv_http_req *r, const char *name);
/* Walk the query parameters: false when i is past the last. */
bool dv_http_param_at(struct dv_http_req *r, size_t i, const char **name, const char **value);
struct dv_arena *dv_http_arena(struct dv_http_req *r);
/* on_gone runs at most once, when the client left (or the server stops) before the request was answered or
 * its stream ended.  r is still to be answered or ended, inside on_gone or later, which then only lets go of
 * it; after a stop it must not be used any more. */
void dv_http_set_user(struct dv_http_req *r, void *user, void (*on_gone)(void *user));

/* Header for the answer; before the reply.  Copied.  Without memory for it the connection is closed
 * unanswered. */
void dv_http_set_header(struct dv_http_req *r, const char *name, const char *value);
/* Answer; body is copied.  r must not be used afterwards. */
void dv_http_reply(struct dv_http_req *r, int status, const char *content_type, struct dv_sv body);

/* Streaming answers (chunked): start, write any number of times, end.  A client that left is told through
 * on_gone; writes after it do nothing.  DV_OK or DV_AGAIN when more than 1 MiB waits (drop or slow down). */
void dv_http_stream(struct dv_http_req *r, int status, const char *content_type);
int dv_http_stream_write(struct dv_http_req *r, struct dv_sv bytes);
void dv_http_stream_end(struct dv_http_req *r);

#endif
