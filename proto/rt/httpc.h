/* HTTP client for what is not the path of a request: Docker Engine (unix socket), joining, webhooks, metrics
 * endpoints.  libcurl's multi interface on our loop; one handle, one thread; never follows redirects unless
 * told. */
#ifndef DV_HTTPC_H
#define DV_HTTPC_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

struct dv_loop;
struct dv_httpc;
struct dv_httpc_call;

struct dv_httpc_result {
    int code; /* DV_OK: an answer came (any status); DV_E_NET, DV_DEADLINE, DV_TOO_LARGE, DV_CLOSED (cancelled
                 by stop) */
    long status;
    struct dv_sv body;        /* borrowed for the callback; empty when on_data took it */
    struct dv_sv headers;     /* raw field lines of the answer, CRLF-separated; borrowed */
    const struct dv_err *err; /* detail when code is not DV_OK */
};

struct dv_httpc_request {
    const char *method; /* copied, as everything here */
    const char *url;
    const char *unix_socket;    /* path; NULL: TCP */
    const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
    struct dv_sv body;
    const char *content_type;    /* NULL: application/json when there is a body */
    const char *userpwd;         /* "user:password" for basic auth, or NULL */
    const char *bearer;          /* or NULL */
    uint64_t timeout_ms;         /* whole call; 0: none (streams) */
    uint64_t connect_timeout_ms; /* default 2000 */
    size_t body_max;             /* of the answer; default 8 MiB */
    bool no_tls_verify;
    bool no_proxy; /* whatever the environment says */
    /* Streams: body bytes of a 2xx answer as they come (the body of any other answer is kept for on_done).
     * Return non-zero to end the call (code DV_CLOSED). */
    int (*on_data)(void *ctx, struct dv_sv bytes);
    /* Exactly once, on the loop, never before dv_httpc_send returned; not after dv_httpc_cancel. */
    void (*on_done)(void *ctx, const struct dv_httpc_result *res);
    void *ctx;
};

int dv_httpc_new(struct dv_loop *loop, struct dv_httpc **out, struct dv_err *err);
/* Calls under way end with DV_CLOSED first.  Not from on_data; from on_done the memory goes when it returned.
 */
void dv_httpc_free(struct dv_httpc *c);
/* DV_OK with *out (may be NULL) borrowed until on_done; DV_E_NOMEM; DV_INVALID. */
int dv_httpc_send(struct dv_httpc *c, const struct dv_httpc_request *req, struct dv_httpc_call **out,
                  struct dv_err *err);
void dv_httpc_cancel(
    struct dv_httpc_call *call); /* no on_done follows; from any callback, its own too; NULL accepted */
/* Value of an answer's header inside res->headers, trimmed; .p NULL = absent. */
struct dv_sv dv_httpc_header(const struct dv_httpc_result *res, const char *name);

#endif
