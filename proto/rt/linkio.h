/* A link on a socket on a loop: reads, gathers a turn's frames into one write, keeps the peer honest with pings.
 * All on the loop's thread. */
#ifndef DV_LINKIO_H
#define DV_LINKIO_H

#include "proto/rt/link.h"
#include "proto/rt/loop.h"

struct dv_linkio;
struct dv_linkio_cfg {
    struct dv_link_cfg link;  /* on_event and ctx are the user's; nonce is filled in here */
    uint64_t ping_ns;         /* silence after which a ping goes out; default 1 s */
    uint64_t dead_ns;         /* silence after which the connection is given up; default 5 s */
    /* Exactly once, never from inside dv_linkio_connect/accept; the link and its streams are still readable
     * (dv_link_each_stream); the owner then calls dv_linkio_free, here or later. */
    void (*on_closed)(void *ctx, int code, const struct dv_err *err);
};

/* address: "host:port", numeric host or a name resolved through getaddrinfo on numeric hosts only at first
 * (names block: callers resolve them on a worker).  DV_OK (connecting); DV_INVALID; DV_E_NET; DV_E_NOMEM. */
int dv_linkio_connect(struct dv_loop *loop, const char *address, const struct dv_linkio_cfg *cfg,
                      struct dv_linkio **out, struct dv_err *err);
/* Server side: takes fd. */
int dv_linkio_accept(struct dv_loop *loop, int fd, const struct dv_linkio_cfg *cfg, struct dv_linkio **out,
                     struct dv_err *err);
struct dv_link *dv_linkio_link(struct dv_linkio *io);
/* After any dv_link_* call that may have produced output: write at the end of this turn. */
void dv_linkio_kick(struct dv_linkio *io);
/* Close at once without on_closed, and free.  NULL accepted. */
void dv_linkio_free(struct dv_linkio *io);
/* Bytes waiting to be written: a measure of back-pressure. */
size_t dv_linkio_backlog(const struct dv_linkio *io);

/* Move an open server link to another loop: detach on the old loop's thread, attach on the new one's. */
void dv_linkio_detach(struct dv_linkio *io);
int dv_linkio_attach(struct dv_linkio *io, struct dv_loop *loop, const struct dv_linkio_cfg *cfg, struct dv_err *err);

#endif
