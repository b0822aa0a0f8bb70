/* The node link, a pure state machine: bytes in, events and bytes out.  proto/link.md is its specification.
 * The orchestrator is the client (opens connections and streams), the agent the server.
 * An invocation is a stream: HEADERS, DATA..., END; the answer comes back the same way on the same stream.
 * Each direction of a stream has a window of credit; DATA beyond it is a protocol error, so what a slow
 * reader costs is bounded by the window.  CONTROL and REPORT frames carry one JSON message each
 * (proto/wire/types.h). One owner; no I/O, no clock: time and randomness come as arguments. */
#ifndef DV_LINK_H
#define DV_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"
#include "proto/rt/http1.h"

enum {
    DV_LINK_VERSION = 2,
    DV_LINK_VERSION_LOWEST = 1,
    DV_LINK_KEY_BYTES = 32,
    DV_LINK_NONCE_BYTES = 16,
    DV_LINK_WINDOW = 128 * 1024,
    DV_LINK_MAX_DATA = 32 * 1024,
    DV_LINK_MAX_HEADERS = 96 * 1024,
    DV_LINK_MAX_MESSAGE = 4 * 1024 * 1024,
    DV_LINK_MAX_STREAMS = 16384,
    DV_LINK_MAX_REASON = 240,       /* text of a RESET */
    DV_LINK_OUT_BYTES = 1024 * 1024 /* unwritten output above which dv_link_send takes nothing */
};

enum dv_link_role { DV_LINK_CLIENT, DV_LINK_SERVER };
enum dv_link_purpose { DV_LINK_DATA_CONN, DV_LINK_CONTROL_CONN }; /* said by the client in its HELLO */

enum dv_link_reset {                    /* why a stream was ended out of turn */
                     DV_RESET_CANCEL,   /* the client left */
                     DV_RESET_NOT_HERE, /* no such replica here, or it is not started: never reached the
                                           function; safe to retry */
                     DV_RESET_REFUSED,  /* the replica is at its concurrency, or draining; never reached the
                                           function */
                     DV_RESET_CONNECT,  /* connection to the container refused; never reached the function */
                     DV_RESET_BROKEN,   /* the container closed or broke off: the function may have seen it */
                     DV_RESET_BAD_ANSWER, /* the container's answer was not HTTP */
                     DV_RESET_TIMEOUT,    /* the function's deadline passed */
                     DV_RESET_EXITED,     /* the function's process ended while inside */
                     DV_RESET_PROTOCOL,
                     DV_RESET_SHUTDOWN,
                     DV_RESET_N
};
const char *dv_link_reset_text(enum dv_link_reset r); /* for a person */
bool dv_link_reset_unseen(enum dv_link_reset r);      /* the function cannot have seen the request */

enum dv_link_event_kind {
    DV_LINK_EV_OPEN,     /* handshake done; purpose, incarnation and node are known */
    DV_LINK_EV_REQUEST,  /* server: HEADERS opened a stream */
    DV_LINK_EV_RESPONSE, /* client: head of the answer */
    DV_LINK_EV_DATA,     /* bytes; call dv_link_consumed when they have left */
    DV_LINK_EV_TRAILERS, /* bytes = field lines; always followed by END */
    DV_LINK_EV_END,      /* the peer's direction is complete; the stream is gone when ours was, too */
    DV_LINK_EV_RESET,    /* stream is gone; reset says why, bytes may say more */
    DV_LINK_EV_WRITABLE, /* credit came back to a stream whose send was cut short */
    DV_LINK_EV_CONTROL,  /* bytes = JSON */
    DV_LINK_EV_REPORT,
    DV_LINK_EV_GOAWAY, /* the peer takes no new streams */
    DV_LINK_EV_PONG    /* value = the ping's */
};

/* Head of a request as it travels: what the container will be sent. */
struct dv_link_request {
    uint64_t replica;
    uint32_t timeout_ms; /* left for the function; 0: none */
    uint8_t body;        /* enum dv_h1_body: NO_BODY, LENGTH, CHUNKED or UPGRADED (asks for an upgrade) */
    uint64_t content_length;
    struct dv_sv method, target;
    struct dv_sv fields; /* "Name: value\r\n" lines, no hop-by-hop ones, ready to be written */
};

struct dv_link_response {
    uint16_t status;
    uint8_t body; /* enum dv_h1_body; UNTIL_CLOSE travels as CHUNKED */
    uint64_t content_length;
    uint32_t start_us; /* time the request waited at the agent for its replica */
    uint32_t run_us;   /* from first byte to the container to the answer's head */
    struct dv_sv fields;
};

struct dv_link_event {
    enum dv_link_event_kind kind;
    uint32_t stream;
    void *user;         /* of the stream; NULL until set */
    struct dv_sv bytes; /* borrowed for the callback */
    enum dv_link_reset reset;
    uint64_t value;
    union {
        struct dv_link_request request; /* views borrowed for the callback */
        struct dv_link_response response;
    };
};

struct dv_link;
struct dv_link_cfg {
    enum dv_link_role role;
    enum dv_link_purpose purpose;       /* client */
    uint8_t key[DV_LINK_KEY_BYTES];     /* shared by the pair; both prove it (HMAC-SHA256 over both nonces) */
    uint8_t nonce[DV_LINK_NONCE_BYTES]; /* fresh random bytes */
    uint64_t node;                      /* agent's id: server says it, client requires it (0: any) */
    uint64_t incarnation;               /* server's */
    void (*on_event)(void *ctx,
                     const struct dv_link_event *ev); /* inside dv_link_recv; may call every function
                                                         below except dv_link_recv and dv_link_free */
    void *ctx;
};

/* The client's HELLO is in dv_link_out at once.  DV_OK or DV_E_NOMEM. */
int dv_link_new(const struct dv_link_cfg *cfg, struct dv_link **out);
void dv_link_free(struct dv_link *l); /* NULL accepted; open streams just vanish */
/* Nothing went on for a while: give back what both directions hold.  The next stream makes it busy again;
 * until then what comes in is read in small pieces. */
void dv_link_rest(struct dv_link *l);

/* Bytes from the peer: read into dv_link_room's place (at least 16 KiB), then tell how many came.
 * DV_OK; DV_E_PROTO (err says what; write what is left in dv_link_out, then close the connection); DV_DENIED
 * (wrong key or node); DV_UNSUPPORTED (version); DV_E_NOMEM.  A link that failed once fails for ever. It
 * returns right after EV_OPEN although bytes may be left, so that the link can get another owner first: call
 * again with n = 0. */
int dv_link_room(struct dv_link *l, char **out_p, size_t *out_n);
int dv_link_recv(struct dv_link *l, size_t n, struct dv_err *err);
/* Bytes for the peer: write them, dv_buf_consume, then dv_link_flushed. */
struct dv_buf *dv_link_out(struct dv_link *l);
/* Output has left: streams that were cut short because too much of it waited hear EV_WRITABLE. */
void dv_link_flushed(struct dv_link *l);

bool dv_link_is_open(const struct dv_link *l);
/* DV_OK, or why the link cannot go on (DV_E_NOMEM: a frame that had to be sent could not be made; DV_E_PROTO
 * ...). */
int dv_link_failure(const struct dv_link *l);
enum dv_link_purpose dv_link_purpose(const struct dv_link *l);
uint64_t dv_link_peer_incarnation(const struct dv_link *l); /* client: the agent's, once open */
uint64_t dv_link_peer_node(const struct dv_link *l);        /* client: the agent's id, once open */
size_t dv_link_n_streams(const struct dv_link *l);
/* Hand a server link that has just opened to another owner (same thread or after moving it to another loop).
 */
void dv_link_set_handler(struct dv_link *l, void (*on_event)(void *ctx, const struct dv_link_event *ev),
                         void *ctx);
/* Every open stream, for cleanup when the connection broke. */
void dv_link_each_stream(struct dv_link *l, void (*fn)(void *ctx, uint32_t stream, void *user), void *ctx);

/* Client: open a stream.  end: the request has no body.  DV_OK; DV_CLOSED (not open, or GOAWAY);
 * DV_NO_CAPACITY (streams, or output that the peer does not take); DV_TOO_LARGE (head); DV_E_NOMEM. */
int dv_link_open_stream(struct dv_link *l, const struct dv_link_request *req, bool end, void *user,
                        uint32_t *out_stream);
void dv_link_set_user(struct dv_link *l, uint32_t stream, void *user);
/* Server: send the answer's head.  Any number of informational ones (status below 200, not 101; never with
 * end) may come before the final one.  DV_OK; DV_NOT_FOUND (stream gone); DV_INVALID (a second final head);
 * DV_TOO_LARGE; DV_E_NOMEM. */
int dv_link_respond(struct dv_link *l, uint32_t stream, const struct dv_link_response *resp, bool end);
/* Takes as much as credit allows and returns that count through *out_taken; EV_WRITABLE follows when it was
 * cut short.  end applies once everything of this call was taken.  DV_OK; DV_NOT_FOUND (stream gone);
 * DV_INVALID (after the end, or before the answer's head); DV_E_NOMEM. */
int dv_link_send(struct dv_link *l, uint32_t stream, const void *p, size_t n, bool end, size_t *out_taken);
size_t dv_link_credit(const struct dv_link *l, uint32_t stream);
/* The peer has given credit back: it has passed bytes of ours on.  Before that a request cannot have been
 * seen by its function (proto/link.md, section 5). */
bool dv_link_was_credited(const struct dv_link *l, uint32_t stream);
/* Not even the whole head of this stream has been taken from dv_link_out. */
bool dv_link_is_unsent(const struct dv_link *l, uint32_t stream);
int dv_link_send_trailers(struct dv_link *l, uint32_t stream, struct dv_sv fields); /* ends our direction */
int dv_link_reset(struct dv_link *l, uint32_t stream, enum dv_link_reset why);      /* forgets the stream */
/* With words for a person, cut at DV_LINK_MAX_REASON; a peer of version 1 does without. */
int dv_link_reset_because(struct dv_link *l, uint32_t stream, enum dv_link_reset why, struct dv_sv text);
/* The receiver has passed n bytes of DATA on: credit goes back (gathered; sent at half a window). */
void dv_link_consumed(struct dv_link *l, uint32_t stream, size_t n);

/* On control connections, once open; client and server respectively.  DV_OK; DV_CLOSED; DV_TOO_LARGE;
 * DV_NO_CAPACITY (the peer does not read); DV_INVALID (not this role's, or not this connection's);
 * DV_E_NOMEM. */
int dv_link_control(struct dv_link *l, struct dv_sv json);
int dv_link_report(struct dv_link *l, struct dv_sv json);
int dv_link_ping(struct dv_link *l, uint64_t value);
/* Ask for no new streams; those that are open, and those that cross it, go on.  Once is enough.  DV_OK;
 * DV_CLOSED; DV_E_NOMEM. */
int dv_link_goaway(struct dv_link *l);
/* Our GOAWAY has been heard: no stream can come any more (proto/link.md, section 6).  Then, and when
 * dv_link_n_streams is 0, nothing is left to be done on this connection. */
bool dv_link_is_quiet(const struct dv_link *l);

#endif
