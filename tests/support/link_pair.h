/* Two machines and the wire between them.  Everything a side is told ends in its log. */
#ifndef DV_TEST_LINK_PAIR_H
#define DV_TEST_LINK_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "proto/base/alloc.h"
#include "proto/base/rng.h"
#include "proto/rt/link.h"

enum { MAX_LOG = 64 };

struct side {
    struct dv_link *l;
    struct side *peer;
    struct dv_link_event log[MAX_LOG]; /* without views */
    size_t n_log;
    char text[256]; /* of the last event with text */
    int rc;
    struct dv_err err;
    void (*react)(struct side *s, const struct dv_link_event *ev);
};

static struct side client, server;
static struct dv_rng rng;

static inline void note(void *ctx, const struct dv_link_event *ev)
{
    struct side *s = ctx;
    if (s->n_log < MAX_LOG)
        s->log[s->n_log++] = *ev;
    struct dv_sv t = ev->bytes;
    if (ev->kind == DV_LINK_EV_REQUEST)
        t = ev->request.fields;
    if (ev->kind == DV_LINK_EV_RESPONSE)
        t = ev->response.fields;
    if (t.n && t.n < sizeof(s->text)) {
        memcpy(s->text, t.p, t.n);
        s->text[t.n] = '\0';
    }
    if (s->react)
        s->react(s, ev);
}

static inline struct dv_link_cfg config(enum dv_link_role role, struct side *s)
{
    struct dv_link_cfg cfg = {.role = role, .purpose = DV_LINK_CONTROL_CONN, .on_event = note, .ctx = s};
    memset(cfg.key, 7, sizeof(cfg.key));
    memset(cfg.nonce, role == DV_LINK_CLIENT ? 1 : 2, sizeof(cfg.nonce));
    cfg.node = 0xabc;
    cfg.incarnation = role == DV_LINK_SERVER ? 99 : 0;
    return cfg;
}

static inline void start(const struct dv_link_cfg *c, const struct dv_link_cfg *s)
{
    client = (struct side){.peer = &server};
    server = (struct side){.peer = &client};
    dv_rng_init(&rng, 42);
    assert_int_equal(dv_link_new(c, &client.l), DV_OK);
    assert_int_equal(dv_link_new(s, &server.l), DV_OK);
}

static inline void stop(void)
{
    dv_link_free(client.l);
    dv_link_free(server.l);
    client.l = server.l = NULL;
}

static inline int feed(struct side *to, const void *bytes, size_t n)
{
    size_t from = 0;
    do {
        char *p;
        size_t room;
        assert_int_equal(dv_link_room(to->l, &p, &room), DV_OK);
        assert_true(room >= 16 * 1024);
        size_t run = n - from < room ? n - from : room;
        if (run)
            memcpy(p, (const char *)bytes + from, run);
        from += run;
        int rc = dv_link_recv(to->l, run, &to->err);
        if (!rc)
            rc = dv_link_recv(to->l, 0, &to->err);
        if (rc)
            return to->rc = rc;
    } while (from < n);
    return DV_OK;
}

/* Up to `most` bytes of what waits travel; false when none did. */
static inline bool carry(struct side *from, size_t most)
{
    struct dv_buf *out = dv_link_out(from->l);
    size_t n = dv_buf_len(out) < most ? dv_buf_len(out) : most;
    if (n == 0 || from->peer->rc)
        return false;
    (void)feed(from->peer, dv_buf_ptr(out), n);
    dv_buf_consume(out, n);
    dv_link_flushed(from->l);
    return true;
}

static inline void settle(void)
{
    bool moved = true;
    while (moved) {
        moved = carry(&client, 1 + dv_rng_below(&rng, 5000));
        moved |= carry(&server, 1 + dv_rng_below(&rng, 5000));
    }
}

static inline void open_pair(void)
{
    struct dv_link_cfg c = config(DV_LINK_CLIENT, &client), s = config(DV_LINK_SERVER, &server);
    start(&c, &s);
    settle();
    assert_true(dv_link_is_open(client.l) && dv_link_is_open(server.l));
    client.n_log = server.n_log = 0;
}

static inline const struct dv_link_event *last(const struct side *s)
{
    static const struct dv_link_event none = {.kind = (enum dv_link_event_kind) - 1};
    return s->n_log ? &s->log[s->n_log - 1] : &none;
}

static inline size_t count(const struct side *s, enum dv_link_event_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_log; i++)
        n += s->log[i].kind == kind;
    return n;
}

static inline struct dv_link_request a_request(enum dv_h1_body body)
{
    return (struct dv_link_request){.replica = 5,
                                    .timeout_ms = 1000,
                                    .body = (uint8_t)body,
                                    .method = DV_SV("POST"),
                                    .target = DV_SV("/x?y"),
                                    .fields = DV_SV("Host: a\r\nX: y\r\n")};
}

static inline uint32_t open_stream(bool end)
{
    uint32_t id = 0;
    struct dv_link_request req = a_request(end ? DV_H1_NO_BODY : DV_H1_CHUNKED);
    assert_int_equal(dv_link_open_stream(client.l, &req, end, &client, &id), DV_OK);
    assert_int_not_equal(id, 0);
    return id;
}

static const struct dv_link_response ok_chunked = {
    .status = 200, .body = DV_H1_CHUNKED, .fields = {"A: b\r\n", 6}};

#endif
