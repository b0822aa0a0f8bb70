/* A link on a socket on a loop: reads, gathers a turn's frames into one write, keeps the peer honest with
 * pings. All on the loop's thread. */
#ifndef DV_LINKIO_H
#define DV_LINKIO_H

#include "proto/rt/link.h"
#include "proto/rt/loop.h"

struct dv_linkio;
struct dv_linkio_cfg {
    struct dv_link_cfg link; /* on_event and ctx are the user's; nonce is filled in here */
    bool is_near_first; /* connect: through dv_addr_near where somebody listens there, by address otherwise */
    uint64_t ping_ns;   /* silence after which a ping goes out; default 1 s */
    uint64_t dead_ns;   /* silence after which the connection is given up; default 5 s */
    /* Right after EV_OPEN was delivered, outside of every dv_link call: the place where a link may be
     * detached (frames behind the handshake have not been read yet).  May be NULL. */
    void (*on_open)(void *ctx, struct dv_linkio *io);
    /* Exactly once, never from inside a dv_linkio call of the owner; the link and its streams are still
     * readable (dv_link_each_stream); the owner then calls dv_linkio_free, here or later.  DV_CLOSED: the
     * peer closed; DV_E_NET: connecting or the connection failed; DV_DEADLINE: the peer is silent; else as
     * dv_link_recv. */
    void (*on_closed)(void *ctx, int code, const struct dv_err *err);
};

/* address: as dv_addr_parse takes it, numeric (names block: callers resolve them on a worker).
 * DV_OK (connecting; whether it works is told by EV_OPEN or on_closed); DV_INVALID; DV_E_IO; DV_E_NOMEM. */
int dv_linkio_connect(struct dv_loop *loop, const char *address, const struct dv_linkio_cfg *cfg,
                      struct dv_linkio **out, struct dv_err *err);
/* Server side: takes fd, a connected socket; it is closed when this fails, too.  DV_OK; DV_E_IO; DV_E_NOMEM.
 */
int dv_linkio_accept(struct dv_loop *loop, int fd, const struct dv_linkio_cfg *cfg, struct dv_linkio **out,
                     struct dv_err *err);
struct dv_link *dv_linkio_link(struct dv_linkio *io);
int dv_linkio_fd(const struct dv_linkio *io); /* its socket, to ask it something; -1: none (any more) */
/* After any dv_link_* call that may have produced output: write at the end of this turn. */
void dv_linkio_kick(struct dv_linkio *io);
/* Write now what the socket takes, for an owner that frees the link next.  Outside of this link's callbacks;
 * on_closed may be called. */
void dv_linkio_flush(struct dv_linkio *io);
/* Close at once without on_closed, and free; no event follows.  Allowed inside every callback.  NULL
 * accepted. */
void dv_linkio_free(struct dv_linkio *io);
/* Leave in order: GOAWAY now; when the last stream is gone and everything has been written, our direction of
 * the connection is closed.  The peer, having read all of it, closes the rest: on_closed (DV_CLOSED).  For an
 * open link. */
void dv_linkio_goaway(struct dv_linkio *io);
/* Bytes waiting to be written: a measure of back-pressure. */
size_t dv_linkio_backlog(const struct dv_linkio *io);

/* Move an open server link to another loop: detach on the old loop's thread (in on_open or outside of
 * callbacks, not in on_event), attach on the new one's.  In between nothing is read or written and only
 * dv_linkio_free may be called. cfg: on_event, on_closed, ctx and times of the new owner; the rest is
 * ignored.  attach: DV_OK; DV_E_IO or DV_E_NOMEM (still detached). */
void dv_linkio_detach(struct dv_linkio *io);
int dv_linkio_attach(struct dv_linkio *io, struct dv_loop *loop, const struct dv_linkio_cfg *cfg,
                     struct dv_err *err);

#endif
