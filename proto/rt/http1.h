/* HTTP/1.1 on the wire (RFC 9112), strict: heads, chunked bodies.  Pure; bytes in, facts out; no allocation.
 * Used by the gateway's ingress (requests) and by whoever talks to a container (responses). */
#ifndef DV_HTTP1_H
#define DV_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

enum {
    DV_H1_MAX_FIELDS = 100,
    DV_H1_MAX_HEAD = 64 * 1024,
    DV_H1_MAX_TARGET = 16 * 1024,
    DV_H1_MAX_CHUNK_LINE = 256, /* a chunk's size and its extensions */
    DV_H1_MAX_TRAILERS = 8 * 1024
};

struct dv_h1_field {
    struct dv_sv name, value; /* value trimmed */
};

enum dv_h1_body {
    DV_H1_NO_BODY,
    DV_H1_LENGTH, /* content_length bytes (0 included, when it was said) */
    DV_H1_CHUNKED,
    DV_H1_UNTIL_CLOSE, /* responses only */
    DV_H1_UPGRADED     /* 101: raw bytes both ways */
};

struct dv_h1_head {
    struct dv_sv method, target; /* requests */
    int status;                  /* responses */
    struct dv_sv reason;
    int minor; /* HTTP/1.minor */
    struct dv_h1_field fields[DV_H1_MAX_FIELDS];
    size_t n_fields;
    enum dv_h1_body body;
    uint64_t content_length;
    bool has_length;            /* Content-Length was said; answers to HEAD and 304 say it without a body */
    struct dv_sv host, upgrade; /* empty when absent */
    bool keep_alive;            /* the connection may carry another message after this one */
    bool expect_continue;
    bool names_hop_fields; /* Connection names fields beside close, keep-alive and upgrade */
};

/* Parse one head from p[0..n).  Views in *out point into p (or at constants).  *out is only meaningful after
 * DV_OK. A target in absolute form ("http://host/path") is taken apart: target becomes the path, host (and
 * the value of the Host field, which such a target overrides) its authority.  Authority form is for CONNECT
 * alone, "*" for OPTIONS. DV_OK: *out_consumed bytes are the head; DV_AGAIN: more bytes needed; DV_INVALID:
 * answer 400 (err says why: bare LF, obs-fold, space before colon, two lengths, length with chunked, bad or
 * missing Host, bad version ...); DV_TOO_LARGE: answer 431 (414 when err->field is "target"); DV_UNSUPPORTED:
 * 505 for the version, 501 for an unknown transfer coding (err->field "transfer-encoding"). */
int dv_h1_parse_request(const char *p, size_t n, struct dv_h1_head *out, size_t *out_consumed,
                        struct dv_err *err);

/* to_method: the request's method (HEAD has no body); a 1xx other than 101 is returned like any head: body
 * NO_BODY. DV_OK, DV_AGAIN, DV_INVALID, DV_TOO_LARGE. */
int dv_h1_parse_response(const char *p, size_t n, struct dv_sv to_method, struct dv_h1_head *out,
                         size_t *out_consumed, struct dv_err *err);

struct dv_sv dv_h1_find(const struct dv_h1_head *h,
                        const char *name); /* first of that name; .p NULL = absent */
/* Connection, Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade, Content-Length and what
 * Connection names: fields of one hop only, which a proxy frames anew. */
bool dv_h1_is_hop_field(const struct dv_h1_head *h, struct dv_sv name);

/* Chunked bodies, incrementally. */
struct dv_h1_chunked {
    int state;
    uint64_t left;
    size_t line_bytes; /* of the size line or trailer section so far */
    uint8_t digits;
};
enum dv_h1_chunk_event { DV_H1_CHUNK_MORE, DV_H1_CHUNK_DATA, DV_H1_CHUNK_TRAILERS, DV_H1_CHUNK_DONE };

void dv_h1_chunked_init(struct dv_h1_chunked *c);
/* Take what comes next from p[0..n): *out_consumed bytes are used up; on DATA, *out is a run of body bytes
 * inside p; on TRAILERS, *out is the whole trailer section's field lines ("Name: value\r\n"...), inside p,
 * and DONE follows at the next call.  MORE: nothing more to say about these bytes; those not consumed (a
 * trailer section still incomplete, at most DV_H1_MAX_TRAILERS) must be offered again with more behind them.
 * An empty trailer section is not reported. Returns DV_OK with *event, or DV_INVALID. */
int dv_h1_chunked_next(struct dv_h1_chunked *c, const char *p, size_t n, enum dv_h1_chunk_event *event,
                       struct dv_sv *out, size_t *out_consumed, struct dv_err *err);

const char *dv_h1_reason(int status); /* "Not Found"; "" when unknown */
bool dv_h1_is_token(struct dv_sv s);
bool dv_h1_value_valid(struct dv_sv s); /* no CTL but HTAB */

#endif
