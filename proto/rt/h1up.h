/* One HTTP/1.1 connection to an upstream (a container, the API's unix socket) on a loop: a request at a time,
 * body streamed both ways with back-pressure, kept alive between requests.  Bytes of one loop turn leave in
 * one write. Everything belongs to the loop's thread.  Steady state allocates nothing per request. */
#ifndef DV_H1UP_H
#define DV_H1UP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/err.h"
#include "proto/base/str.h"
#include "proto/rt/addr.h"
#include "proto/rt/http1.h"

struct dv_loop;
struct dv_h1up;

/* Bytes of a request that may wait for the upstream before dv_h1up_send takes no more. */
enum { DV_H1UP_OUT_BYTES = 64 * 1024 };

enum dv_h1up_fail {
    DV_H1UP_REFUSED, /* no connection: refused, unreachable, no such socket; nothing was sent */
    DV_H1UP_UNSENT,  /* closed before a byte of this request was written, or before one had arrived: safe to
                        send elsewhere */
    DV_H1UP_STALE,   /* a kept-alive connection closed before a byte of the answer: very likely the upstream's
                        idle   time-out; repeat where the method allows it (idempotent) and the body is still at
                        hand */
    DV_H1UP_BROKEN,  /* closed or broke off after bytes were sent: the upstream may have seen it */
    DV_H1UP_BAD_ANSWER, /* the answer is not HTTP, or its framing is wrong */
    DV_H1UP_IDLE_CLOSED /* between requests; the normal end of a kept-alive connection */
};

/* Callbacks run on the loop, never inside the call that caused them, and may call every function below,
 * dv_h1up_free included.  After on_error nothing follows: only dv_h1up_free is left to be called. */
struct dv_h1up_ops {
    /* Informational answers (100, 103; head->status < 200, not 101) first, then the final one; 101 is final:
     * raw bytes both ways from then on.  Views borrowed. */
    void (*on_head)(void *ctx, const struct dv_h1_head *head);
    /* Returns how many it took.  Fewer than given: the rest stays here (bounded) and reading stops until
     * dv_h1up_resume, then the rest comes again.  Upgraded connections: raw bytes. */
    size_t (*on_data)(void *ctx, struct dv_sv bytes);
    void (*on_trailers)(void *ctx, struct dv_sv fields); /* "Name: value\r\n" lines; on_end follows */
    /* The answer is complete.  is_reusable: another dv_h1up_begin may follow, even inside this callback;
     * otherwise free it (an answer that overtook its request's body ends so).  Upgraded: the upstream has
     * closed its direction; ours may go on. */
    void (*on_end)(void *ctx, bool is_reusable);
    /* Room again, after dv_h1up_send was cut short. */
    void (*on_writable)(void *ctx);
    void (*on_error)(void *ctx, enum dv_h1up_fail why, const struct dv_err *err);
};

/* DV_OK: connecting (a request may begin at once; failures come through on_error); DV_E_NOMEM; DV_E_IO.
 * ops is borrowed for the connection's life. */
int dv_h1up_connect(struct dv_loop *loop, const struct dv_addr *to, const struct dv_h1up_ops *ops, void *ctx,
                    struct dv_h1up **out, struct dv_err *err);
void dv_h1up_free(struct dv_h1up *u); /* closes at once; no callback follows; NULL accepted */
/* Whom the callbacks tell from now on: a pool hands the connection to a request and takes it back. */
void dv_h1up_set_owner(struct dv_h1up *u, const struct dv_h1up_ops *ops, void *ctx);

struct dv_h1up_request {
    struct dv_sv method, target;
    struct dv_sv fields; /* "Name: value\r\n" lines, Host among them, no framing fields, no hop-by-hop ones
                            but Upgrade when body is UPGRADED */
    enum dv_h1_body
        body; /* NO_BODY, LENGTH (Content-Length is written), CHUNKED, UPGRADED (Connection: Upgrade is) */
    uint64_t content_length;
};
/* Start a request.  With NO_BODY, UPGRADED or a length of 0 it is complete at once.  Borrowed for the call.
 * DV_OK; DV_CLOSED (failed or not reusable); DV_E_NOMEM; DV_E_BUG (one is under way). */
int dv_h1up_begin(struct dv_h1up *u, const struct dv_h1up_request *req);
/* Body bytes (raw bytes once upgraded).  Takes what there is room for; on_writable follows when it was cut
 * short. DV_OK; DV_E_NOMEM; DV_INVALID (more than content_length, or after the end).  An upstream that no
 * longer reads (it answered early) swallows the bytes: its answer follows. */
int dv_h1up_send(struct dv_h1up *u, const void *p, size_t n, size_t *out_taken);
/* The body is complete.  trailers: field lines for a chunked body, or empty.  Upgraded: closes our direction.
 * DV_OK; DV_E_NOMEM; DV_INVALID (fewer bytes than content_length). */
int dv_h1up_finish(struct dv_h1up *u, struct dv_sv trailers);

void dv_h1up_pause(struct dv_h1up *u);  /* no on_data until resumed; what has been read stays here */
void dv_h1up_resume(struct dv_h1up *u); /* on_data follows in a later callback */

bool dv_h1up_is_connected(
    const struct dv_h1up *u);                      /* tells a connect that hangs from an upstream that does */
bool dv_h1up_has_written(const struct dv_h1up *u); /* bytes of the present request have left */
size_t dv_h1up_backlog(const struct dv_h1up *u);   /* request bytes not yet written */

#endif
