/* Frames of the link: twelve bytes of header, a payload whose bounds depend on the type.  One table says who
 * may send what, when and how long, so that a handler only ever sees frames that make sense where they
 * arrive. */
#include "proto/rt/link_internal.h"

void dv_put_u16(char *p, uint16_t v)
{
    p[0] = (char)(v & 0xff);
    p[1] = (char)(v >> 8);
}

void dv_put_u32(char *p, uint32_t v)
{
    dv_put_u16(p, (uint16_t)(v & 0xffff));
    dv_put_u16(p + 2, (uint16_t)(v >> 16));
}

void dv_put_u64(char *p, uint64_t v)
{
    dv_put_u32(p, (uint32_t)(v & 0xffffffff));
    dv_put_u32(p + 4, (uint32_t)(v >> 32));
}

uint16_t dv_get_u16(const char *p)
{
    return (uint16_t)((unsigned char)p[0] | (unsigned)(unsigned char)p[1] << 8);
}

uint32_t dv_get_u32(const char *p)
{
    return dv_get_u16(p) | (uint32_t)dv_get_u16(p + 2) << 16;
}

uint64_t dv_get_u64(const char *p)
{
    return dv_get_u32(p) | (uint64_t)dv_get_u32(p + 4) << 32;
}

enum { FROM_CLIENT = 1, FROM_SERVER = 2, FROM_BOTH = 3 };
enum {
    IN_HELLO = 1 << DV_LS_HELLO,
    IN_WELCOME = 1 << DV_LS_WELCOME,
    IN_PROOF = 1 << DV_LS_PROOF,
    IN_OPEN = 1 << DV_LS_OPEN
};

struct rule {
    const char *name;
    uint32_t min, max;
    uint8_t from, states, flags;
    bool on_stream, on_control; /* on_control: on control connections only */
};

static const struct rule rules[DV_LF_N] = {
    [DV_LF_HELLO] = {"HELLO", 36, 36, FROM_CLIENT, IN_HELLO, 0, false, false},
    [DV_LF_WELCOME] = {"WELCOME", 68, 68, FROM_SERVER, IN_WELCOME, 0, false, false},
    [DV_LF_PROOF] = {"PROOF", 32, 32, FROM_CLIENT, IN_PROOF, 0, false, false},
    /* The client is open as soon as it sent its proof, so a refusal of that proof still finds it open. */
    [DV_LF_REJECT] = {"REJECT", 4, 4, FROM_SERVER, IN_WELCOME | IN_OPEN, 0, false, false},
    [DV_LF_HEADERS] = {"HEADERS", 20, DV_LINK_MAX_HEADERS, FROM_BOTH, IN_OPEN, DV_LF_FLAG_END, true, false},
    [DV_LF_DATA] = {"DATA", 0, DV_LINK_MAX_DATA, FROM_BOTH, IN_OPEN, DV_LF_FLAG_END, true, false},
    [DV_LF_TRAILERS] = {"TRAILERS", 0, DV_H1_MAX_TRAILERS, FROM_BOTH, IN_OPEN, DV_LF_FLAG_END, true, false},
    [DV_LF_WINDOW] = {"WINDOW", 4, 4, FROM_BOTH, IN_OPEN, 0, true, false},
    [DV_LF_RESET] = {"RESET", 4, 4 + DV_LINK_MAX_REASON, FROM_BOTH, IN_OPEN, 0, true, false},
    [DV_LF_PING] = {"PING", 8, 8, FROM_BOTH, IN_OPEN, DV_LF_FLAG_ACK, false, false},
    [DV_LF_GOAWAY] = {"GOAWAY", 0, 0, FROM_BOTH, IN_OPEN, 0, false, false},
    [DV_LF_CONTROL] = {"CONTROL", 0, DV_LINK_MAX_MESSAGE, FROM_CLIENT, IN_OPEN, 0, false, true},
    [DV_LF_REPORT] = {"REPORT", 0, DV_LINK_MAX_MESSAGE, FROM_SERVER, IN_OPEN, 0, false, true},
};

char *dv_lf_begin(struct dv_link *l, enum dv_lf_type type, unsigned flags, uint32_t stream, size_t n)
{
    struct dv_buf *out = &l->out;
    if (dv_buf_len(out) + DV_LF_HEADER + n > DV_LINK_OUT_MAX) {
        l->failed = DV_E_PROTO;
        return NULL;
    }
    if (dv_buf_reserve(out, DV_LF_HEADER + n)) {
        l->failed = DV_E_NOMEM;
        return NULL;
    }
    char *p = dv_buf_end(out);
    dv_put_u32(p, (uint32_t)n);
    p[4] = (char)type;
    p[5] = (char)flags;
    dv_put_u16(p + 6, 0);
    dv_put_u32(p + 8, stream);
    dv_buf_commit(out, DV_LF_HEADER + n);
    l->out_total += DV_LF_HEADER + n;
    return p + DV_LF_HEADER;
}

static int check_header(const struct dv_link *l, const struct dv_lf_frame *f, size_t len, struct dv_err *err)
{
    if (f->type == 0 || f->type >= DV_LF_N)
        return dv_err_set(err, DV_E_PROTO, "frame of unknown type %u", f->type);
    const struct rule *r = &rules[f->type];
    if (!(r->states & 1u << l->state))
        return dv_err_set(err, DV_E_PROTO, "%s out of turn", r->name);
    if (!(r->from & (dv_link_is_client(l) ? FROM_SERVER : FROM_CLIENT)))
        return dv_err_set(err, DV_E_PROTO, "%s from the wrong side", r->name);
    if (r->on_control && l->cfg.purpose != DV_LINK_CONTROL_CONN)
        return dv_err_set(err, DV_E_PROTO, "%s on a data connection", r->name);
    bool is_wordy = f->type == DV_LF_RESET && len > r->min && l->version < 2;
    if (len < r->min || len > r->max || is_wordy)
        return dv_err_set(err, DV_E_PROTO, "%s of %zu bytes", r->name, len);
    if (f->flags & ~(unsigned)r->flags)
        return dv_err_set(err, DV_E_PROTO, "%s with flags %#x", r->name, f->flags);
    if (r->on_stream != (f->stream != 0))
        return dv_err_set(err, DV_E_PROTO, "%s on stream %u", r->name, f->stream);
    return DV_OK;
}

int dv_lf_next(const struct dv_link *l, struct dv_lf_frame *out, size_t *out_missing, struct dv_err *err)
{
    size_t have = dv_buf_len(&l->in);
    if (have < DV_LF_HEADER) {
        *out_missing = DV_LF_HEADER - have;
        return DV_AGAIN;
    }
    const char *p = dv_buf_ptr(&l->in);
    size_t len = dv_get_u32(p);
    struct dv_lf_frame f = {.type = (uint8_t)p[4],
                            .flags = (uint8_t)p[5],
                            .stream = dv_get_u32(p + 8),
                            .payload = {p + DV_LF_HEADER, len}};
    if (dv_get_u16(p + 6) != 0)
        return dv_err_set(err, DV_E_PROTO, "reserved bytes of a frame are not zero");
    int rc = check_header(l, &f, len, err);
    if (rc)
        return rc;
    if (have - DV_LF_HEADER < len) {
        *out_missing = len - (have - DV_LF_HEADER);
        return DV_AGAIN;
    }
    *out = f;
    return DV_OK;
}
