#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/h1up.h"
#include "proto/rt/linkio.h"

/* Allocation number 1, 2, 3 ... fails until the whole path succeeds: no crash, no leak (the sanitizer says),
 * and the only outcome beside success is DV_E_NOMEM. */

enum { MAX_ALLOCATIONS = 500 };

struct side {
    struct dv_link *l;
    size_t n_data, n_end;
    int rc; /* first failure of a call made inside an event */
};

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct side *s = ctx;
    if (ev->kind == DV_LINK_EV_REQUEST) {
        struct dv_link_response resp = {.status = 200, .body = DV_H1_CHUNKED, .fields = DV_SV("A: b\r\n")};
        s->rc = dv_link_respond(s->l, ev->stream, &resp, false);
    }
    if (ev->kind == DV_LINK_EV_DATA) {
        s->n_data += ev->bytes.n;
        dv_link_consumed(s->l, ev->stream, ev->bytes.n);
    }
    s->n_end += ev->kind == DV_LINK_EV_END;
}

static int carry(struct side *from, struct side *to)
{
    struct dv_buf *out = dv_link_out(from->l);
    while (dv_buf_len(out)) {
        char *p;
        size_t room;
        int rc = dv_link_room(to->l, &p, &room);
        if (rc)
            return rc;
        size_t n = dv_buf_len(out) < room ? dv_buf_len(out) : room;
        memcpy(p, dv_buf_ptr(out), n);
        dv_buf_consume(out, n);
        rc = dv_link_recv(to->l, n, NULL);
        if (!rc)
            rc = dv_link_recv(to->l, 0, NULL);
        if (rc || to->rc)
            return rc ? rc : to->rc;
    }
    return DV_OK;
}

static int settle(struct side *a, struct side *b)
{
    int rc = DV_OK;
    while (!rc && (dv_buf_len(dv_link_out(a->l)) || dv_buf_len(dv_link_out(b->l)))) {
        rc = carry(a, b);
        if (!rc)
            rc = carry(b, a);
    }
    return rc;
}

static int exchange(struct side *client, struct side *server)
{
    static const char block[100 * 1000];
    struct dv_link_request req = {.method = DV_SV("POST"), .target = DV_SV("/"), .body = DV_H1_CHUNKED};
    uint32_t id;
    size_t taken = 0;
    int rc = settle(client, server);
    if (!rc)
        rc = dv_link_open_stream(client->l, &req, false, NULL, &id);
    if (!rc)
        rc = dv_link_send(client->l, id, block, sizeof(block), true, &taken);
    if (!rc)
        rc = settle(client, server);
    if (!rc)
        rc = dv_link_send(server->l, id, block, sizeof(block), true, &taken);
    if (!rc)
        rc = dv_link_control(client->l, dv_sv(block, sizeof(block)));
    return rc ? rc : settle(client, server);
}

static int whole_path(struct side *client, struct side *server)
{
    struct dv_link_cfg c = {
        .role = DV_LINK_CLIENT, .purpose = DV_LINK_CONTROL_CONN, .on_event = on_event, .ctx = client};
    struct dv_link_cfg s = {.role = DV_LINK_SERVER, .on_event = on_event, .ctx = server};
    *client = *server = (struct side){0};
    int rc = dv_link_new(&c, &client->l);
    if (!rc)
        rc = dv_link_new(&s, &server->l);
    if (!rc)
        rc = exchange(client, server);
    dv_link_free(client->l);
    dv_link_free(server->l);
    return rc;
}

static void a_link_survives_the_failure_of_any_allocation(void **state)
{
    (void)state;
    struct side client, server;
    int rc = DV_E_NOMEM;
    uint64_t n = 0;
    while (rc) {
        assert_true(n++ < MAX_ALLOCATIONS);
        dv_alloc_fail_at(n);
        rc = whole_path(&client, &server);
        dv_alloc_fail_at(0);
        if (rc)
            assert_int_equal(rc, DV_E_NOMEM);
    }
    assert_true(n > 8); /* something did fail */
    assert_int_equal(client.n_data, 100 * 1000);
    assert_int_equal(server.n_data, 100 * 1000);
    assert_int_equal(client.n_end + server.n_end, 2);
}

/* ---- on sockets ---- */

static int n_open, n_closed, closed_code;

static void count_event(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    n_open += ev->kind == DV_LINK_EV_OPEN;
}

static void count_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)err;
    if (n_closed++ == 0) /* the other end only sees the first one go */
        closed_code = code;
}

static int listen_on_loopback(struct dv_addr *out)
{
    assert_int_equal(dv_addr_parse("127.0.0.1:0", out, NULL), DV_OK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &out->sa, out->len), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, &out->sa, &out->len), 0);
    return fd;
}

static bool path_on_sockets(struct dv_loop *loop, int listener, const char *address)
{
    struct dv_linkio_cfg c = {.link = {.role = DV_LINK_CLIENT, .on_event = count_event},
                              .on_closed = count_closed};
    struct dv_linkio_cfg s = c;
    s.link.role = DV_LINK_SERVER;
    struct dv_linkio *client = NULL, *server = NULL;
    n_open = n_closed = 0;
    int rc = dv_linkio_connect(loop, address, &c, &client, NULL);
    if (!rc) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        rc = dv_linkio_accept(loop, fd, &s, &server, NULL);
    }
    if (rc)
        assert_int_equal(rc, DV_E_NOMEM);
    while (!rc && n_open < 2 && !n_closed)
        assert_int_equal(dv_loop_turn(loop, 1000), DV_OK);
    if (n_closed)
        assert_int_equal(closed_code, DV_E_NOMEM);
    bool is_open = n_open == 2;
    dv_linkio_free(client);
    dv_linkio_free(server);
    return is_open;
}

static void a_link_on_sockets_survives_the_failure_of_any_allocation(void **state)
{
    (void)state;
    struct dv_addr a;
    char address[64];
    bool is_open = false;
    uint64_t n = 0;
    while (!is_open) {
        struct dv_loop *loop; /* a fresh one: its timer heap is allocated, too; the listener, so that nothing
                                 is left in it */
        int listener = listen_on_loopback(&a);
        dv_addr_text(&a, address, sizeof(address));
        assert_int_equal(dv_loop_new(&dv_clock_system, &loop, NULL), DV_OK);
        assert_true(n++ < MAX_ALLOCATIONS);
        dv_alloc_fail_at(n);
        is_open = path_on_sockets(loop, listener, address);
        dv_alloc_fail_at(0);
        dv_loop_free(loop);
        (void)close(listener);
    }
    assert_true(n > 5);
}

/* ---- the upstream client ---- */

static int n_ended, n_failed;
static size_t n_body;

static void on_head(void *ctx, const struct dv_h1_head *head)
{
    (void)ctx;
    (void)head;
}

static size_t on_data(void *ctx, struct dv_sv bytes)
{
    (void)ctx;
    size_t taken = (bytes.n + 1) / 2; /* the rest is kept, in memory that may be refused */
    n_body += taken;
    return taken;
}

static void on_trailers(void *ctx, struct dv_sv fields)
{
    (void)ctx;
    (void)fields;
}

static void on_end(void *ctx, bool is_reusable)
{
    (void)ctx;
    (void)is_reusable;
    n_ended++;
}

static void on_writable(void *ctx)
{
    (void)ctx;
}

static void on_error(void *ctx, enum dv_h1up_fail why, const struct dv_err *err)
{
    (void)ctx;
    (void)err;
    assert_int_equal(why, DV_H1UP_BROKEN);
    n_failed++;
}

static const struct dv_h1up_ops ops = {on_head, on_data, on_trailers, on_end, on_writable, on_error};
static const char answer[] =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n";

static int one_request(struct dv_loop *loop, struct dv_h1up *up, int peer)
{
    static const char block[20000];
    struct dv_h1up_request req = {.method = DV_SV("POST"), .target = DV_SV("/"), .body = DV_H1_CHUNKED};
    size_t taken;
    int rc = dv_h1up_begin(up, &req);
    if (!rc)
        rc = dv_h1up_send(up, block, sizeof(block), &taken);
    if (!rc)
        rc = dv_h1up_finish(up, DV_SV("A: b\r\n"));
    if (rc)
        return rc;
    while (dv_h1up_backlog(up))
        assert_int_equal(dv_loop_turn(loop, 10), DV_OK);
    assert_int_equal(write(peer, answer, sizeof(answer) - 1), sizeof(answer) - 1);
    while (!n_ended && !n_failed) {
        dv_h1up_resume(up);
        assert_int_equal(dv_loop_turn(loop, 10), DV_OK);
    }
    return n_failed ? DV_E_NOMEM : DV_OK;
}

static void the_upstream_client_survives_the_failure_of_any_allocation(void **state)
{
    (void)state;
    struct dv_addr a;
    int listener = listen_on_loopback(&a), rc = DV_E_NOMEM;
    struct dv_loop *loop;
    assert_int_equal(dv_loop_new(&dv_clock_system, &loop, NULL), DV_OK);
    uint64_t n = 0;
    while (rc) {
        struct dv_h1up *up = NULL;
        n_ended = n_failed = 0;
        n_body = 0;
        assert_true(n++ < MAX_ALLOCATIONS);
        dv_alloc_fail_at(n);
        rc = dv_h1up_connect(loop, &a, &ops, NULL, &up, NULL);
        int peer = rc ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (!rc)
            rc = one_request(loop, up, peer);
        dv_alloc_fail_at(0);
        if (rc)
            assert_int_equal(rc, DV_E_NOMEM);
        dv_h1up_free(up);
        if (peer >= 0)
            (void)close(peer);
    }
    assert_true(n > 3);
    assert_int_equal(n_body, 5);
    dv_loop_free(loop);
    (void)close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_survives_the_failure_of_any_allocation),
        cmocka_unit_test(a_link_on_sockets_survives_the_failure_of_any_allocation),
        cmocka_unit_test(the_upstream_client_survives_the_failure_of_any_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
