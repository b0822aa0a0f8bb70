/* What the files of the link share: frames, streams, the machine itself.  proto/link.md is the specification.
 */
#ifndef DV_LINK_INTERNAL_H
#define DV_LINK_INTERNAL_H

#include "proto/base/list.h"
#include "proto/rt/link.h"

enum {
    DV_LF_HEADER = 12,
    DV_LF_FLAG_END = 1,
    DV_LF_FLAG_ACK = 2,
    DV_LINK_SLOT_BITS = 14,
    DV_LINK_CHUNK = 128,                /* streams allocated at a time */
    DV_LINK_OUT_MAX = 16 * 1024 * 1024, /* output no sane peer leaves unread */
    DV_LINK_IN_BYTES = 64 * 1024,
    DV_LINK_REST_IN_BYTES =
        1024, /* of a link at rest: a ping fits, a report grows it for as long as it is read */
    DV_LINK_MAX_METHOD = 32,
    DV_LINK_PROOF_BYTES = 32
};

enum dv_lf_type {
    DV_LF_HELLO = 1,
    DV_LF_WELCOME,
    DV_LF_PROOF,
    DV_LF_REJECT,
    DV_LF_HEADERS,
    DV_LF_DATA,
    DV_LF_TRAILERS,
    DV_LF_WINDOW,
    DV_LF_RESET,
    DV_LF_PING,
    DV_LF_GOAWAY,
    DV_LF_CONTROL,
    DV_LF_REPORT,
    DV_LF_N
};

enum dv_link_reject { DV_REJECT_VERSION = 1, DV_REJECT_DENIED = 2 };

enum dv_link_state { DV_LS_HELLO, DV_LS_WELCOME, DV_LS_PROOF, DV_LS_OPEN, DV_LS_FAILED };

struct dv_link_stream {
    uint32_t id;        /* 0 = free */
    uint32_t gen;       /* of the last id given out for this slot; client */
    uint32_t next_free; /* slot + 1; client */
    uint32_t send_credit;
    uint32_t recv_credit; /* what the peer may still send */
    uint32_t unacked;     /* consumed, not yet given back */
    uint64_t head_end;    /* of all output: where our HEADERS end; client */
    bool has_head;        /* the answer's final head has passed */
    bool local_ended, remote_ended;
    bool was_credited; /* the peer gave credit back */
    bool is_blocked;   /* a send was cut short; EV_WRITABLE is owed */
    void *user;
    struct dv_list blocked; /* waits for room in the output */
};

struct dv_link {
    struct dv_link_cfg cfg;
    enum dv_link_state state;
    struct dv_buf in, out;
    uint64_t out_total;             /* bytes ever put into out */
    struct dv_link_stream **chunks; /* NULL before the first stream; one for every DV_LINK_CHUNK slots */
    uint32_t n_slots;               /* ever used; client */
    uint32_t free_slot;             /* slot + 1 of the first free one, 0 = none; client */
    size_t n_streams;
    struct dv_list blocked;
    uint8_t peer_nonce[DV_LINK_NONCE_BYTES];
    uint16_t version, lowest, highest; /* spoken; offered by the client */
    uint64_t node, incarnation;        /* of the server */
    bool has_sent_goaway, has_goaway;
    bool is_quiet; /* the ping behind our GOAWAY came back */
    bool is_at_rest;
    int failed; /* sticky */
};

/* ---- link_frame.c ---- */

struct dv_lf_frame {
    uint8_t type, flags;
    uint32_t stream;
    struct dv_sv payload;
};

static inline bool dv_link_is_client(const struct dv_link *l)
{
    return l->cfg.role == DV_LINK_CLIENT;
}

void dv_put_u16(char *p, uint16_t v);
void dv_put_u32(char *p, uint32_t v);
void dv_put_u64(char *p, uint64_t v);
uint16_t dv_get_u16(const char *p);
uint32_t dv_get_u32(const char *p);
uint64_t dv_get_u64(const char *p);

/* Room in the output for a frame with its header written; the payload of n bytes goes to the returned place,
 * which is already counted as written.  NULL: out of memory, or the peer leaves too much unread; the link has
 * failed. */
char *dv_lf_begin(struct dv_link *l, enum dv_lf_type type, unsigned flags, uint32_t stream, size_t n);
/* The first whole frame of the input, checked against what its type, the role and the state allow.
 * DV_OK; DV_AGAIN (*out_missing bytes more are needed); DV_E_PROTO. */
int dv_lf_next(const struct dv_link *l, struct dv_lf_frame *out, size_t *out_missing, struct dv_err *err);

/* ---- link_handshake.c ---- */
int dv_link_hello(struct dv_link *l);
int dv_link_on_hello(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_welcome(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_proof(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_reject(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);

/* ---- link_stream.c ---- */
int dv_link_on_headers(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_data(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_trailers(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_window(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);
int dv_link_on_reset(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);

/* ---- link_slots.c ---- */
struct dv_link_stream *dv_link_find(const struct dv_link *l, uint32_t id); /* NULL = not open */
/* Client: a fresh stream.  DV_OK, DV_NO_CAPACITY, DV_E_NOMEM. */
int dv_link_slot_take(struct dv_link *l, struct dv_link_stream **out);
/* Server: the stream that the peer's id names.  DV_OK, DV_E_PROTO (slot in use, bad id), DV_E_NOMEM. */
int dv_link_slot_claim(struct dv_link *l, uint32_t id, struct dv_link_stream **out);
void dv_link_slot_give(struct dv_link *l, struct dv_link_stream *s);
void dv_link_slots_free(struct dv_link *l);

#endif
