/* The node link: what belongs to the connection and not to a stream of it.  proto/link.md specifies the
 * protocol.
 *
 *   link_frame.c      bytes <-> frames; who may send what, when, how long
 *   link_handshake.c  HELLO, WELCOME, PROOF
 *   link_slots.c      stream ids <-> slots
 *   link_stream.c     an invocation's two directions, credit
 *
 * The machine does no I/O and reads no clock.  Output gathers in one buffer, so that all frames of a loop
 * turn leave in one write; input is parsed where it was read, events carry views into it.  In steady state
 * nothing is allocated: streams come from slots, both buffers keep their memory.
 *
 * What a peer can make us hold is bounded: per stream by its window, per connection by DV_LINK_MAX_STREAMS,
 * one frame of input, and DV_LINK_OUT_MAX of output that it asked for and does not read. */
#include "proto/rt/link_internal.h"
#include "proto/base/alloc.h"

/* "goaway": behind our GOAWAY; its echo stands behind every stream that the client had opened before it knew.
 */
#define GOAWAY_PING 0x79617761676fu

static const struct {
    const char *text;
    bool is_unseen;
} resets[DV_RESET_N] = {
    [DV_RESET_CANCEL] = {"the caller left", false},
    [DV_RESET_NOT_HERE] = {"the replica is not on this node or not started", true},
    [DV_RESET_REFUSED] = {"the replica takes no more requests", true},
    [DV_RESET_CONNECT] = {"the function's container refused the connection", true},
    [DV_RESET_BROKEN] = {"the function's container broke off the connection", false},
    [DV_RESET_BAD_ANSWER] = {"the function's answer is not valid HTTP", false},
    [DV_RESET_TIMEOUT] = {"the function did not answer in time", false},
    [DV_RESET_EXITED] = {"the function's process ended during the request", false},
    [DV_RESET_PROTOCOL] = {"the node link's protocol was broken", false},
    [DV_RESET_SHUTDOWN] = {"the node's agent shut down", false},
};

const char *dv_link_reset_text(enum dv_link_reset r)
{
    return (unsigned)r < DV_RESET_N ? resets[r].text : "unknown reason";
}

bool dv_link_reset_unseen(enum dv_link_reset r)
{
    return (unsigned)r < DV_RESET_N && resets[r].is_unseen;
}

int dv_link_new(const struct dv_link_cfg *cfg, struct dv_link **out)
{
    struct dv_link *l = dv_zalloc(sizeof(*l));
    if (!l)
        return DV_E_NOMEM;
    l->cfg = *cfg;
    dv_list_init(&l->blocked);
    l->state = dv_link_is_client(l) ? DV_LS_WELCOME : DV_LS_HELLO;
    int rc = dv_link_is_client(l) ? dv_link_hello(l) : DV_OK;
    if (rc) {
        dv_link_free(l);
        return rc;
    }
    *out = l;
    return DV_OK;
}

void dv_link_free(struct dv_link *l)
{
    if (!l)
        return;
    dv_link_slots_free(l);
    dv_buf_deinit(&l->in);
    dv_buf_deinit(&l->out);
    explicit_bzero(l->cfg.key, sizeof(l->cfg.key));
    dv_free(l);
}

void dv_link_set_handler(struct dv_link *l, void (*on_event)(void *ctx, const struct dv_link_event *ev),
                         void *ctx)
{
    l->cfg.on_event = on_event;
    l->cfg.ctx = ctx;
}

struct dv_buf *dv_link_out(struct dv_link *l)
{
    return &l->out;
}

bool dv_link_is_open(const struct dv_link *l)
{
    return l->state == DV_LS_OPEN;
}

int dv_link_failure(const struct dv_link *l)
{
    return l->failed;
}

enum dv_link_purpose dv_link_purpose(const struct dv_link *l)
{
    return l->cfg.purpose;
}

uint64_t dv_link_peer_incarnation(const struct dv_link *l)
{
    return l->incarnation;
}

uint64_t dv_link_peer_node(const struct dv_link *l)
{
    return l->node;
}

size_t dv_link_n_streams(const struct dv_link *l)
{
    return l->n_streams;
}

/* ---- input ---- */

/* The rest of a frame cut off at the end of the buffer moves to its front, so that the buffer does not creep.
 */
static void compact(struct dv_buf *b)
{
    size_t len = dv_buf_len(b);
    if (b->head == 0)
        return;
    memmove(b->data, b->data + b->head, len);
    b->head = 0;
    b->tail = len;
}

int dv_link_room(struct dv_link *l, char **out_p, size_t *out_n)
{
    if (dv_buf_len(&l->in) == 0 && l->in.cap > 4 * DV_LINK_IN_BYTES)
        dv_buf_reset(&l->in, 4 * DV_LINK_IN_BYTES); /* a large message has passed */
    bool is_small = l->is_at_rest && l->n_streams == 0;
    size_t missing = 0, want = is_small ? DV_LINK_REST_IN_BYTES : 16 * 1024;
    struct dv_lf_frame f;
    if (dv_lf_next(l, &f, &missing, NULL) == DV_AGAIN && missing > want)
        want = missing;
    if (!is_small && l->in.cap < DV_LINK_IN_BYTES && want < DV_LINK_IN_BYTES)
        want = DV_LINK_IN_BYTES;
    if (dv_buf_room(&l->in) < want)
        compact(&l->in);
    if (dv_buf_reserve(&l->in, want))
        return DV_E_NOMEM;
    *out_p = dv_buf_end(&l->in);
    *out_n = dv_buf_room(&l->in);
    return DV_OK;
}

void dv_link_rest(struct dv_link *l)
{
    l->is_at_rest = true;
    if (dv_buf_len(&l->in) == 0)
        dv_buf_reset(&l->in, 0);
    if (dv_buf_len(&l->out) == 0)
        dv_buf_reset(&l->out, 0);
}

static int on_ping(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    (void)err;
    uint64_t value = dv_get_u64(f->payload.p);
    if (f->flags & DV_LF_FLAG_ACK && l->has_sent_goaway && value == GOAWAY_PING) {
        l->is_quiet = true;
        return DV_OK;
    }
    if (f->flags & DV_LF_FLAG_ACK) {
        l->cfg.on_event(l->cfg.ctx, &(struct dv_link_event){.kind = DV_LINK_EV_PONG, .value = value});
        return DV_OK;
    }
    char *p = dv_lf_begin(l, DV_LF_PING, DV_LF_FLAG_ACK, 0, 8);
    if (p)
        dv_put_u64(p, value);
    return DV_OK; /* a failure is sticky and seen by the caller */
}

static int on_goaway(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    (void)f;
    (void)err;
    if (!l->has_goaway) {
        l->has_goaway = true;
        l->cfg.on_event(l->cfg.ctx, &(struct dv_link_event){.kind = DV_LINK_EV_GOAWAY});
    }
    return DV_OK;
}

static int on_message(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err)
{
    (void)err;
    enum dv_link_event_kind kind = f->type == DV_LF_CONTROL ? DV_LINK_EV_CONTROL : DV_LINK_EV_REPORT;
    l->cfg.on_event(l->cfg.ctx, &(struct dv_link_event){.kind = kind, .bytes = f->payload});
    return DV_OK;
}

typedef int (*frame_handler)(struct dv_link *l, const struct dv_lf_frame *f, struct dv_err *err);

static const frame_handler handlers[DV_LF_N] = {
    [DV_LF_HELLO] = dv_link_on_hello,
    [DV_LF_WELCOME] = dv_link_on_welcome,
    [DV_LF_PROOF] = dv_link_on_proof,
    [DV_LF_REJECT] = dv_link_on_reject,
    [DV_LF_HEADERS] = dv_link_on_headers,
    [DV_LF_DATA] = dv_link_on_data,
    [DV_LF_TRAILERS] = dv_link_on_trailers,
    [DV_LF_WINDOW] = dv_link_on_window,
    [DV_LF_RESET] = dv_link_on_reset,
    [DV_LF_PING] = on_ping,
    [DV_LF_GOAWAY] = on_goaway,
    [DV_LF_CONTROL] = on_message,
    [DV_LF_REPORT] = on_message,
};

static int fail(struct dv_link *l, int rc)
{
    l->failed = rc;
    l->state = DV_LS_FAILED;
    return rc;
}

int dv_link_recv(struct dv_link *l, size_t n, struct dv_err *err)
{
    if (n)
        dv_buf_commit(&l->in, n);
    while (!l->failed) {
        struct dv_lf_frame f;
        size_t missing;
        int rc = dv_lf_next(l, &f, &missing, err);
        if (rc == DV_AGAIN)
            return DV_OK;
        bool was_open = dv_link_is_open(l);
        if (!rc)
            rc = handlers[f.type](l, &f, err);
        if (rc)
            return fail(l, rc);
        dv_buf_consume(&l->in, DV_LF_HEADER + f.payload.n);
        if (!l->failed && !was_open && dv_link_is_open(l))
            return DV_OK; /* the owner may hand the link over before the rest is read */
    }
    (void)dv_err_set(err, l->failed,
                     l->failed == DV_E_NOMEM ? "link" : "the link has failed, or the peer does not read");
    return fail(l, l->failed);
}

/* ---- output of the connection itself ---- */

static int put_message(struct dv_link *l, enum dv_lf_type type, enum dv_link_role role, struct dv_sv json)
{
    if (l->cfg.role != role || l->cfg.purpose != DV_LINK_CONTROL_CONN)
        return DV_INVALID;
    if (!dv_link_is_open(l) || l->failed)
        return DV_CLOSED;
    if (json.n > DV_LINK_MAX_MESSAGE)
        return DV_TOO_LARGE;
    if (dv_buf_len(&l->out) > DV_LINK_OUT_MAX / 2)
        return DV_NO_CAPACITY;
    char *p = dv_lf_begin(l, type, 0, 0, json.n);
    if (!p)
        return l->failed;
    if (json.n)
        memcpy(p, json.p, json.n);
    return DV_OK;
}

int dv_link_control(struct dv_link *l, struct dv_sv json)
{
    return put_message(l, DV_LF_CONTROL, DV_LINK_CLIENT, json);
}

int dv_link_report(struct dv_link *l, struct dv_sv json)
{
    return put_message(l, DV_LF_REPORT, DV_LINK_SERVER, json);
}

int dv_link_ping(struct dv_link *l, uint64_t value)
{
    if (!dv_link_is_open(l) || l->failed)
        return DV_CLOSED;
    char *p = dv_lf_begin(l, DV_LF_PING, 0, 0, 8);
    if (!p)
        return l->failed;
    dv_put_u64(p, value);
    return DV_OK;
}

int dv_link_goaway(struct dv_link *l)
{
    if (!dv_link_is_open(l) || l->failed)
        return DV_CLOSED;
    if (l->has_sent_goaway)
        return DV_OK;
    l->has_sent_goaway = true;
    if (!dv_lf_begin(l, DV_LF_GOAWAY, 0, 0, 0))
        return l->failed;
    l->is_quiet = dv_link_is_client(l); /* a server opens no streams */
    return l->is_quiet ? DV_OK : dv_link_ping(l, GOAWAY_PING);
}

bool dv_link_is_quiet(const struct dv_link *l)
{
    return l->is_quiet;
}
