/* A hostile peer's bytes, to either role, before the handshake and behind a valid one (the byte at the front
 * says).
 *
 * It may have said GOAWAY before: once its echo has come, no request may reach it.
 *
 * The owner behaves like a busy one: it answers, sends, consumes, resets and opens streams from inside the
 * events. Whatever comes, one stream never holds more than its window, the connection never more than its
 * bound of output, and a link that failed stays failed. */
#include "proto/base/alloc.h"
#include "proto/rt/link.h"

#define REQUIRE(cond)                                                                                        \
    do {                                                                                                     \
        if (!(cond))                                                                                         \
            abort();                                                                                         \
    } while (0)

enum { SLOTS = DV_LINK_MAX_STREAMS };

struct owner {
    struct dv_link *l;
    uint8_t mood;
    uint32_t turn;
    bool is_victim;
    uint32_t ids[SLOTS];
    size_t held[SLOTS]; /* received and not consumed */
};

static struct owner victim, other;

static void use_stream(struct owner *o, uint32_t id)
{
    static const char block[3000];
    struct dv_link_response resp = {.status = 200, .body = DV_H1_CHUNKED, .fields = DV_SV("A: b\r\n")};
    size_t taken;
    switch ((o->mood + o->turn++) % 5) {
    case 0:
        (void)dv_link_respond(o->l, id, &resp, false);
        (void)dv_link_send(o->l, id, block, sizeof(block), o->turn % 3 == 0, &taken);
        break;
    case 1:
        (void)dv_link_respond(o->l, id, &resp, true);
        break;
    case 2:
        (void)dv_link_reset(o->l, id, DV_RESET_REFUSED);
        break;
    case 3:
        (void)dv_link_send_trailers(o->l, id, DV_SV("T: x\r\n"));
        break;
    default:
        break;
    }
}

static void on_data(struct owner *o, const struct dv_link_event *ev)
{
    uint32_t slot = ev->stream % SLOTS;
    if (o->ids[slot] != ev->stream) {
        o->ids[slot] = ev->stream;
        o->held[slot] = 0;
    }
    o->held[slot] += ev->bytes.n;
    REQUIRE(ev->bytes.n > 0 && ev->bytes.n <= DV_LINK_MAX_DATA);
    REQUIRE(o->held[slot] <= DV_LINK_WINDOW);
    size_t n = o->mood & 1 ? o->held[slot] : o->held[slot] / 2;
    dv_link_consumed(o->l, ev->stream, n);
    o->held[slot] -= n;
}

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct owner *o = ctx;
    if (!o->is_victim)
        return;
    if (ev->kind == DV_LINK_EV_DATA)
        on_data(o, ev);
    if (ev->kind == DV_LINK_EV_REQUEST)
        REQUIRE(!dv_link_is_quiet(o->l));
    if (ev->kind == DV_LINK_EV_REQUEST)
        REQUIRE(dv_h1_is_token(ev->request.method) && ev->request.target.n > 0);
    if (ev->kind == DV_LINK_EV_RESPONSE)
        REQUIRE(ev->response.status >= 100 && ev->response.status <= 999);
    if (ev->stream)
        use_stream(o, ev->stream);
    struct dv_link_request req = {.method = DV_SV("GET"), .target = DV_SV("/")};
    uint32_t id;
    if (o->turn++ % 4 == 0)
        (void)dv_link_open_stream(o->l, &req, o->turn % 8 == 0, o, &id);
}

static int feed(struct dv_link *l, const void *bytes, size_t n, size_t piece)
{
    for (size_t from = 0; from < n;) {
        char *p;
        size_t room, run = n - from < piece ? n - from : piece;
        REQUIRE(dv_link_room(l, &p, &room) == DV_OK);
        if (run > room)
            run = room;
        memcpy(p, (const char *)bytes + from, run);
        from += run;
        int rc = dv_link_recv(l, run, NULL);
        if (!rc)
            rc = dv_link_recv(l, 0, NULL);
        REQUIRE(rc == DV_OK || rc == DV_E_PROTO || rc == DV_DENIED || rc == DV_UNSUPPORTED);
        if (rc)
            return rc;
    }
    return DV_OK;
}

static void carry(struct owner *from, struct owner *to)
{
    struct dv_buf *out = dv_link_out(from->l);
    if (dv_buf_len(out))
        REQUIRE(feed(to->l, dv_buf_ptr(out), dv_buf_len(out), SIZE_MAX) == DV_OK);
    dv_buf_consume(out, dv_buf_len(out));
}

static void create(struct owner *o, enum dv_link_role role)
{
    struct dv_link_cfg cfg = {.role = role,
                              .purpose = DV_LINK_CONTROL_CONN,
                              .on_event = on_event,
                              .ctx = o,
                              .node = 1,
                              .incarnation = 2};
    memset(cfg.nonce, (int)role, sizeof(cfg.nonce));
    REQUIRE(dv_link_new(&cfg, &o->l) == DV_OK);
}

static void count(void *ctx, uint32_t stream, void *user)
{
    (void)user;
    REQUIRE(stream != 0);
    (*(size_t *)ctx)++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    memset(&victim, 0, sizeof(victim));
    memset(&other, 0, sizeof(other));
    enum dv_link_role role = data[0] & 1 ? DV_LINK_SERVER : DV_LINK_CLIENT;
    victim.mood = data[1];
    create(&victim, role);
    create(&other, role == DV_LINK_SERVER ? DV_LINK_CLIENT : DV_LINK_SERVER);
    if (data[0] & 2) {
        for (int i = 0; i < 3; i++) {
            carry(&victim, &other);
            carry(&other, &victim);
        }
        REQUIRE(dv_link_is_open(victim.l));
    }
    struct dv_link_request req = {.method = DV_SV("GET"), .target = DV_SV("/"), .body = DV_H1_CHUNKED};
    uint32_t id;
    for (int i = 0; i < 4; i++) /* a client has something for its peer to answer */
        (void)dv_link_open_stream(victim.l, &req, i & 1, NULL, &id);
    victim.is_victim = true;
    if (data[0] & 8)
        (void)dv_link_goaway(victim.l);
    int rc = feed(victim.l, data + 2, n - 2, data[0] & 4 ? 7 : SIZE_MAX);
    if (rc)
        REQUIRE(dv_link_recv(victim.l, 0, NULL) == rc && !dv_link_is_open(victim.l));
    if (!(data[0] & 2))
        REQUIRE(!dv_link_is_open(victim.l)); /* nobody guesses a proof */
    REQUIRE(dv_buf_len(dv_link_out(victim.l)) <= 16 * 1024 * 1024);
    size_t n_streams = 0;
    dv_link_each_stream(victim.l, count, &n_streams);
    REQUIRE(n_streams == dv_link_n_streams(victim.l));
    dv_buf_clear(dv_link_out(victim.l));
    dv_link_flushed(victim.l);
    dv_link_free(victim.l);
    dv_link_free(other.l);
    return 0;
}
