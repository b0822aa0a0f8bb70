/* The carry between a gateway's link and real HTTP servers: the link's client side runs on the test's loop,
 * the servers on a thread of their own, both over TCP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/carry/carry.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"
#include "proto/rt/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- the function: a server, a thread per connection ---- */

static _Atomic int g_connections, g_requests, g_inside, g_most_inside, g_stale_left;
static _Atomic bool g_release;

static bool send_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t rc = send(fd, p, n, MSG_NOSIGNAL);
        if (rc <= 0)
            return false;
        p += rc;
        n -= (size_t)rc;
    }
    return true;
}

static bool say(int fd, const char *s)
{
    return send_all(fd, s, strlen(s));
}

static bool more(int fd, struct dv_buf *b)
{
    if (dv_buf_reserve(b, 65536))
        return false;
    ssize_t n = recv(fd, dv_buf_end(b), 65536, 0);
    if (n > 0)
        dv_buf_commit(b, (size_t)n);
    return n > 0;
}

/* The request's body into *body (may be NULL); its trailers too, marked. */
static bool read_body(int fd, struct dv_buf *in, const struct dv_h1_head *h, struct dv_buf *body)
{
    uint64_t left = h->body == DV_H1_LENGTH ? h->content_length : 0;
    while (h->body == DV_H1_LENGTH && left) {
        size_t n = dv_buf_len(in) < left ? dv_buf_len(in) : (size_t)left;
        (void)dv_buf_add(body, dv_buf_ptr(in), n);
        dv_buf_consume(in, n);
        left -= n;
        if (left && !more(fd, in))
            return false;
    }
    struct dv_h1_chunked c;
    dv_h1_chunked_init(&c);
    for (bool done = h->body != DV_H1_CHUNKED; !done;) {
        enum dv_h1_chunk_event ev;
        struct dv_sv out;
        size_t used;
        if (dv_h1_chunked_next(&c, dv_buf_ptr(in), dv_buf_len(in), &ev, &out, &used, NULL))
            return false;
        if (ev == DV_H1_CHUNK_DATA || ev == DV_H1_CHUNK_TRAILERS)
            (void)dv_buf_add_sv(body, out);
        done = ev == DV_H1_CHUNK_DONE;
        bool hungry = ev == DV_H1_CHUNK_MORE;
        dv_buf_consume(in, used);
        if (hungry && !more(fd, in))
            return false;
    }
    return true;
}

static bool answer(int fd, const char *extra, struct dv_sv body, bool is_head)
{
    char head[256];
    (void)snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n%s\r\n", body.n, extra);
    return say(fd, head) && (is_head || send_all(fd, body.p, body.n));
}

static void raw_echo(int fd, struct dv_buf *in)
{
    while (dv_buf_len(in) || more(fd, in)) {
        if (!send_all(fd, dv_buf_ptr(in), dv_buf_len(in)))
            return;
        dv_buf_clear(in);
    }
}

static bool big(int fd)
{
    static const char block[65536];
    bool ok = say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 128 && ok; i++)
        ok = say(fd, "10000\r\n") && send_all(fd, block, sizeof(block)) && say(fd, "\r\n");
    return ok && say(fd, "0\r\n\r\n");
}

static bool wait_inside(int fd)
{
    int now = atomic_fetch_add(&g_inside, 1) + 1, most = atomic_load(&g_most_inside);
    while (now > most && !atomic_compare_exchange_weak(&g_most_inside, &most, now))
        ;
    char byte;
    while (!atomic_load(&g_release) && recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
        (void)usleep(500);
    atomic_fetch_sub(&g_inside, 1);
    return answer(fd, "", DV_SV("waited"), false);
}

/* True: the connection goes on. */
static _Atomic int g_listen = -1;

/* A server that has waited long enough, just as the next request comes. */
static bool answer_and_close_soon(int fd)
{
    static _Atomic unsigned turn;
    if (!answer(fd, "", DV_SV("whole"), false))
        return false;
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + (atomic_fetch_add(&turn, 1) % 100) * 1000;
    while (dv_clock_now_ns(&dv_clock_system) < until)
        ;
    return false;
}

static bool serve_one(int fd, struct dv_buf *in, const struct dv_h1_head *h)
{
    DV_AUTO_BUF struct dv_buf body = DV_BUF_INIT;
    struct dv_sv t = h->target;
    atomic_fetch_add(&g_requests, 1);
    if (dv_sv_eq(t, DV_SV("/early")))
        return say(fd, "HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno") && false;
    if (dv_sv_eq(t, DV_SV("/close")))
        return false;
    if (dv_sv_eq(t, DV_SV("/stale")) && atomic_fetch_sub(&g_stale_left, 1) > 0)
        return false;
    if (dv_sv_eq(t, DV_SV("/die"))) { /* as when the process ends: nobody listens any more */
        (void)shutdown(g_listen, SHUT_RDWR);
        g_listen = -1; /* the next test starts another */
        return false;
    }
    if (dv_sv_eq(t, DV_SV("/cut")))
        return say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") && false;
    if (dv_sv_eq(t, DV_SV("/rubbish")))
        return say(fd, "ICY 200 OK\r\n\r\n") && false;
    if (dv_sv_eq(t, DV_SV("/upgrade"))) {
        bool ok = say(fd, "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        if (ok)
            raw_echo(fd, in);
        return false;
    }
    if (!read_body(fd, in, h, &body))
        return false;
    if (dv_sv_eq(t, DV_SV("/wait")))
        return wait_inside(fd);
    if (dv_sv_eq(t, DV_SV("/hasty")))
        return answer_and_close_soon(fd);
    if (dv_sv_eq(t, DV_SV("/hints")))
        return say(fd, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") &&
               answer(fd, "", DV_SV("after"), false);
    if (dv_sv_eq(t, DV_SV("/204")))
        return say(fd, "HTTP/1.1 204 No Content\r\nX-Empty: yes\r\n\r\n");
    if (dv_sv_eq(t, DV_SV("/big")))
        return big(fd);
    if (dv_sv_eq(t, DV_SV("/until-close")))
        return say(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end") && false;
    if (dv_sv_eq(t, DV_SV("/trailers")))
        return say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: "
                       "X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n");
    if (dv_sv_eq(t, DV_SV("/head")))
        return answer(fd, "X-Method: seen\r\n", DV_SV("hidden"), dv_sv_eq(h->method, DV_SV("HEAD")));
    if (dv_sv_eq(t, DV_SV("/host")))
        return answer(fd, "", h->host, false);
    return answer(fd, "Keep-Alive: timeout=5\r\nX-Echo: 1\r\n", dv_buf_sv(&body), false);
}

static void *serve(void *arg)
{
    int fd = (int)(intptr_t)arg;
    DV_AUTO_BUF struct dv_buf in = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf head = DV_BUF_INIT;
    struct dv_h1_head *h = dv_zalloc(sizeof(*h));
    for (bool on = h != NULL; on;) {
        size_t used = 0;
        int rc = dv_buf_len(&in) ? dv_h1_parse_request(dv_buf_ptr(&in), dv_buf_len(&in), h, &used, NULL)
                                 : DV_AGAIN;
        if (rc == DV_AGAIN && more(fd, &in))
            continue;
        if (rc)
            break;
        dv_buf_clear(&head);
        (void)dv_buf_add(&head, dv_buf_ptr(&in), used);
        (void)dv_h1_parse_request(dv_buf_ptr(&head), used, h, &used, NULL);
        dv_buf_consume(&in, used);
        on = serve_one(fd, &in, h);
    }
    dv_free(h);
    (void)close(fd);
    return NULL;
}

static void *accept_all(void *arg)
{
    int listener = (int)(intptr_t)arg;
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
        pthread_t t;
        atomic_fetch_add(&g_connections, 1);
        if (!pthread_create(&t, NULL, serve, (void *)(intptr_t)fd))
            (void)pthread_detach(t);
    }
    (void)close(listener);
    return NULL;
}

static void start_server(void)
{
    pthread_t t;
    int fd;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    assert_int_equal(fcntl(fd, F_SETFL, 0), 0); /* the test's server waits */
    assert_int_equal(pthread_create(&t, NULL, accept_all, (void *)(intptr_t)fd), 0);
    (void)pthread_detach(t);
    g_listen = fd;
}

/* ---- the gateway: client side of a link on the test's loop ---- */

enum { REPLICA = 7, MAX_CALLS = 64 };

struct call {
    uint32_t stream;
    bool has_head, is_end, is_reset, stop_reading;
    enum dv_link_reset reset;
    char why[DV_LINK_MAX_REASON + 1];
    uint16_t status, hint;
    uint8_t body_kind;
    uint64_t length;
    struct dv_buf fields, body, trailers;
    const char *left; /* of a body too large for one send */
    size_t n_left, unread;
};

struct world {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_carry *carry;
    struct dv_linkio *client, *server;
    struct call calls[MAX_CALLS];
    size_t n_calls;
    bool is_open, is_going, is_client_closed;
    int n_drained, n_closed, n_trouble, n_left;
    enum dv_link_reset trouble;
};

static void push(struct world *w, struct call *c)
{
    size_t taken = 0;
    if (c->n_left && !c->is_reset)
        (void)dv_link_send(dv_linkio_link(w->client), c->stream, c->left, c->n_left, true, &taken);
    c->left += taken;
    c->n_left -= taken;
    dv_linkio_kick(w->client);
}

static void on_client_event(void *ctx, const struct dv_link_event *ev)
{
    struct world *w = ctx;
    struct call *c = ev->user;
    w->is_open = w->is_open || ev->kind == DV_LINK_EV_OPEN;
    w->is_going = w->is_going || ev->kind == DV_LINK_EV_GOAWAY;
    if (!c)
        return;
    switch (ev->kind) {
    case DV_LINK_EV_RESPONSE:
        if (ev->response.status < 200 && ev->response.status != 101) {
            c->hint = ev->response.status;
            break;
        }
        c->has_head = true;
        c->status = ev->response.status;
        c->body_kind = ev->response.body;
        c->length = ev->response.content_length;
        (void)dv_buf_add_sv(&c->fields, ev->response.fields);
        break;
    case DV_LINK_EV_DATA:
        (void)dv_buf_add_sv(&c->body, ev->bytes);
        if (c->stop_reading)
            c->unread += ev->bytes.n;
        else
            dv_link_consumed(dv_linkio_link(w->client), c->stream, ev->bytes.n);
        dv_linkio_kick(w->client);
        break;
    case DV_LINK_EV_TRAILERS:
        (void)dv_buf_add_sv(&c->trailers, ev->bytes);
        break;
    case DV_LINK_EV_END:
        c->is_end = true;
        break;
    case DV_LINK_EV_RESET:
        c->is_reset = true;
        c->reset = ev->reset;
        (void)snprintf(c->why, sizeof(c->why), "%.*s", (int)ev->bytes.n, ev->bytes.p);
        break;
    case DV_LINK_EV_WRITABLE:
        push(w, c);
        break;
    default:
        break;
    }
}

static void on_client_closed(void *ctx, int code, const struct dv_err *err)
{
    struct world *w = ctx;
    (void)code;
    (void)err;
    w->is_client_closed = true;
}

static void on_server_event(void *ctx, const struct dv_link_event *ev)
{
    (void)ctx;
    (void)ev;
}

static void on_server_open(void *ctx, struct dv_linkio *io)
{
    struct world *w = ctx;
    w->server = NULL;
    dv_linkio_detach(io);
    dv_carry_adopt(w->carry, io);
}

static void on_server_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)code;
    (void)err;
    fail_msg("the link closed before it was adopted");
}

static void on_trouble(void *ctx, uint64_t replica, enum dv_link_reset what)
{
    struct world *w = ctx;
    assert_int_equal(replica, REPLICA);
    w->n_trouble++;
    w->trouble = what;
}

static void on_closed(void *ctx, uint64_t replica)
{
    struct world *w = ctx;
    assert_int_equal(replica, REPLICA);
    w->n_closed++;
}

static void on_drained(void *ctx, uint64_t replica)
{
    struct world *w = ctx;
    assert_int_equal(replica, REPLICA);
    w->n_drained++;
}

static void on_left(void *ctx)
{
    struct world *w = ctx;
    w->n_left++;
}

#define UNTIL(w, what)                                                                                       \
    do {                                                                                                     \
        for (int turn_ = 0; turn_ < 5000 && !(what); turn_++)                                                \
            assert_int_equal(dv_loop_turn((w)->loop, 2), DV_OK);                                             \
        assert_true(what);                                                                                   \
    } while (0)

static void put_replica(struct world *w, int port, uint32_t concurrency)
{
    char address[32];
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    assert_int_equal(
        dv_carry_replica_put(w->carry, &(struct dv_carry_replica){REPLICA, address, concurrency}), DV_OK);
}

static void connect_link(struct world *w)
{
    struct dv_linkio_cfg sc = {
        .link = {.role = DV_LINK_SERVER, .node = 1, .incarnation = 2, .on_event = on_server_event, .ctx = w},
        .on_open = on_server_open,
        .on_closed = on_server_closed};
    int listen_fd;
    char address[32];
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &listen_fd, NULL), DV_OK);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", dv_socket_port(listen_fd));
    struct dv_linkio_cfg cc = {
        .link = {.role = DV_LINK_CLIENT, .purpose = DV_LINK_DATA_CONN, .on_event = on_client_event, .ctx = w},
        .on_closed = on_client_closed};
    assert_int_equal(dv_linkio_connect(w->loop, address, &cc, &w->client, NULL), DV_OK);
    int fd = -1;
    for (int i = 0; i < 1000 && fd < 0; i++) {
        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            assert_int_equal(dv_loop_turn(w->loop, 1), DV_OK);
    }
    assert_true(fd >= 0);
    (void)close(listen_fd);
    assert_int_equal(dv_linkio_accept(w->loop, fd, &sc, &w->server, NULL), DV_OK);
    UNTIL(w, w->is_open);
}

static int setup(void **state)
{
    struct world *w = dv_zalloc(sizeof(*w));
    g_release = false;
    g_requests = g_connections = g_most_inside = 0;
    if (g_listen < 0)
        start_server();
    assert_int_equal(dv_loop_new(&dv_clock_system, &w->loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(w->loop, &w->mailbox, NULL), DV_OK);
    struct dv_carry_cfg cfg = {.clock = &dv_clock_system,
                               .n_loops = 2,
                               .state = w->mailbox,
                               .on_trouble = on_trouble,
                               .on_drained = on_drained,
                               .on_closed = on_closed,
                               .on_left = on_left,
                               .ctx = w};
    assert_int_equal(dv_carry_start(&cfg, &w->carry, NULL), DV_OK);
    put_replica(w, dv_socket_port(g_listen), 4);
    connect_link(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    g_release = true;
    dv_carry_free(w->carry);
    dv_linkio_free(w->client);
    dv_mailbox_free(w->mailbox);
    dv_loop_free(w->loop);
    for (size_t i = 0; i < w->n_calls; i++) {
        dv_buf_deinit(&w->calls[i].fields);
        dv_buf_deinit(&w->calls[i].body);
        dv_buf_deinit(&w->calls[i].trailers);
    }
    dv_free(w);
    return 0;
}

struct ask {
    const char *method, *target;
    enum dv_h1_body kind;
    const char *body;
    size_t n; /* of body */
    uint32_t timeout_ms;
    uint64_t replica;
    bool keep_open; /* more body follows */
};

static struct call *ask(struct world *w, struct ask a)
{
    struct call *c = &w->calls[w->n_calls++];
    bool has_body = a.kind != DV_H1_NO_BODY;
    struct dv_link_request req = {.replica = a.replica ? a.replica : REPLICA,
                                  .timeout_ms = a.timeout_ms,
                                  .body = (uint8_t)a.kind,
                                  .content_length = a.kind == DV_H1_LENGTH ? a.n : 0,
                                  .method = dv_sv_c(a.method ? a.method : "GET"),
                                  .target = dv_sv_c(a.target),
                                  .fields = a.kind == DV_H1_UPGRADED ? DV_SV("Host: f\r\nUpgrade: echo\r\n")
                                                                     : DV_SV("Host: f\r\n")};
    assert_int_equal(dv_link_open_stream(dv_linkio_link(w->client), &req, !has_body, c, &c->stream), DV_OK);
    size_t taken = 0;
    if (has_body && (a.n || !a.keep_open))
        assert_int_equal(
            dv_link_send(dv_linkio_link(w->client), c->stream, a.body, a.n, !a.keep_open, &taken), DV_OK);
    c->left = a.body ? a.body + taken : NULL;
    c->n_left = a.n - taken;
    dv_linkio_kick(w->client);
    return c;
}

static void send_more(struct world *w, struct call *c, const char *text, bool end)
{
    size_t taken;
    assert_int_equal(dv_link_send(dv_linkio_link(w->client), c->stream, text, strlen(text), end, &taken),
                     DV_OK);
    assert_int_equal(taken, strlen(text));
    dv_linkio_kick(w->client);
}

#define ASK(w, ...) ask(w, (struct ask){__VA_ARGS__})

static void assert_body(struct call *c, const char *text)
{
    assert_true(c->is_end);
    assert_false(c->is_reset);
    assert_string_equal(dv_buf_cstr(&c->body), text);
}

static uint64_t in_flight(struct world *w)
{
    uint64_t n = 0, served;
    assert_int_equal(dv_carry_load(w->carry, REPLICA, &n, &served), DV_OK);
    return n;
}

/* ---- tests ---- */

static void a_request_reaches_the_container_and_its_answer_comes_back(void **state)
{
    struct world *w = *state;
    struct call *c =
        ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "hello", .n = 5);
    UNTIL(w, c->is_end);
    assert_int_equal(c->status, 200);
    assert_int_equal(c->body_kind, DV_H1_LENGTH);
    assert_int_equal(c->length, 5);
    assert_body(c, "hello");
    assert_non_null(strstr(dv_buf_cstr(&c->fields), "X-Echo: 1\r\n"));
    assert_null(strcasestr(dv_buf_cstr(&c->fields), "keep-alive")); /* of one hop only */
    assert_null(strcasestr(dv_buf_cstr(&c->fields), "content-length"));
}

static void connections_are_kept_and_used_again(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 5; i++) {
        struct call *c =
            ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
        UNTIL(w, c->is_end);
        UNTIL(w, in_flight(w) == 0);
    }
    assert_int_equal(g_requests, 5);
    assert_int_equal(g_connections, 1);
    uint64_t n, served;
    assert_int_equal(dv_carry_load(w->carry, REPLICA, &n, &served), DV_OK);
    assert_int_equal(served, 5);
}

static void chunked_bodies_and_trailers_pass_both_ways(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_CHUNKED, .keep_open = true);
    send_more(w, c, "one ", false);
    send_more(w, c, "two", false);
    assert_int_equal(dv_link_send_trailers(dv_linkio_link(w->client), c->stream, DV_SV("X-T: t\r\n")), DV_OK);
    dv_linkio_kick(w->client);
    UNTIL(w, c->is_end);
    assert_body(c, "one twoX-T: t\r\n");
    struct call *t = ASK(w, .method = "GET", .target = "/trailers");
    UNTIL(w, t->is_end);
    assert_body(t, "abc");
    assert_int_equal(t->body_kind, DV_H1_CHUNKED);
    assert_string_equal(dv_buf_cstr(&t->trailers), "X-Sum: 7\r\n");
}

static void answers_without_a_body_have_none(void **state)
{
    struct world *w = *state;
    struct call *h = ASK(w, .method = "HEAD", .target = "/head"),
                *n = ASK(w, .method = "GET", .target = "/204");
    UNTIL(w, h->is_end && n->is_end);
    assert_int_equal(h->status, 200);
    assert_body(h, "");
    assert_non_null(strstr(dv_buf_cstr(&h->fields), "Content-Length: 6\r\n"));
    assert_int_equal(n->status, 204);
    assert_body(n, "");
    assert_non_null(strstr(dv_buf_cstr(&n->fields), "X-Empty: yes\r\n"));
}

static void an_answer_that_ends_with_its_connection_is_whole(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/until-close");
    UNTIL(w, c->is_end);
    assert_int_equal(c->body_kind, DV_H1_CHUNKED);
    assert_body(c, "to the end");
}

static void informational_answers_come_before_the_final_one(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/hints");
    UNTIL(w, c->is_end);
    assert_int_equal(c->hint, 103);
    assert_body(c, "after");
}

static void a_request_without_a_host_is_given_one(void **state)
{
    struct world *w = *state;
    struct call *c = &w->calls[w->n_calls++];
    struct dv_link_request req = {.replica = REPLICA, .method = DV_SV("GET"), .target = DV_SV("/host")};
    assert_int_equal(dv_link_open_stream(dv_linkio_link(w->client), &req, true, c, &c->stream), DV_OK);
    dv_linkio_kick(w->client);
    UNTIL(w, c->is_end);
    assert_memory_equal(dv_buf_cstr(&c->body), "127.0.0.1:", 10);
}

static void an_upload_larger_than_every_buffer_arrives_whole(void **state)
{
    struct world *w = *state;
    enum { N = 3 << 20 };
    char *body = dv_alloc(N);
    for (size_t i = 0; i < N; i++)
        body[i] = (char)('a' + i % 23);
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = body, .n = N);
    UNTIL(w, c->is_end);
    assert_int_equal(dv_buf_len(&c->body), N);
    assert_memory_equal(dv_buf_ptr(&c->body), body, N);
    dv_free(body);
}

static void a_reader_that_stops_holds_the_sender_back(void **state)
{
    struct world *w = *state;
    struct call *c = &w->calls[w->n_calls];
    c->stop_reading = true;
    c = ASK(w, .method = "GET", .target = "/big");
    UNTIL(w, dv_buf_len(&c->body) == DV_LINK_WINDOW);
    for (int i = 0; i < 20; i++)
        assert_int_equal(dv_loop_turn(w->loop, 2), DV_OK);
    assert_int_equal(dv_buf_len(&c->body), DV_LINK_WINDOW);
    c->stop_reading = false;
    dv_link_consumed(dv_linkio_link(w->client), c->stream, c->unread);
    dv_linkio_kick(w->client);
    UNTIL(w, c->is_end);
    assert_int_equal(dv_buf_len(&c->body), 128 * 65536);
}

static void an_answer_before_the_body_was_read_arrives_and_frees_the_slot(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "POST", .target = "/early", .kind = DV_H1_CHUNKED, .keep_open = true);
    UNTIL(w, c->is_end);
    assert_int_equal(c->status, 413);
    assert_body(c, "no");
    UNTIL(w, in_flight(w) == 0);
    send_more(w, c, "still talking", false); /* thrown away */
    send_more(w, c, "done", true);
    struct call *d = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
    UNTIL(w, d->is_end);
    assert_body(d, "x");
}

static void upgraded_connections_carry_raw_bytes_both_ways(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/upgrade", .kind = DV_H1_UPGRADED, .keep_open = true,
                         .timeout_ms = 100);
    UNTIL(w, c->has_head);
    assert_int_equal(c->status, 101);
    assert_int_equal(c->body_kind, DV_H1_UPGRADED);
    assert_non_null(strcasestr(dv_buf_cstr(&c->fields), "Upgrade: echo\r\n"));
    send_more(w, c, "ping", false);
    UNTIL(w, dv_buf_len(&c->body) == 4);
    (void)usleep(120000); /* the deadline of a request is not one of a conversation */
    send_more(w, c, "pong", true);
    UNTIL(w, c->is_end);
    assert_body(c, "pingpong");
    UNTIL(w, in_flight(w) == 0);
}

static void no_more_requests_enter_than_the_replica_takes(void **state)
{
    struct world *w = *state;
    struct call *c[6];
    for (int i = 0; i < 6; i++)
        c[i] = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 4);
    UNTIL(w, c[4]->is_reset && c[5]->is_reset);
    assert_int_equal(c[4]->reset, DV_RESET_REFUSED);
    assert_int_equal(in_flight(w), 4);
    g_release = true;
    for (int i = 0; i < 4; i++)
        UNTIL(w, c[i]->is_end);
    assert_int_equal(g_most_inside, 4);
}

static void an_unknown_replica_is_not_here(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/echo", .replica = 99);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_NOT_HERE);
}

static void draining_refuses_new_requests_and_tells_when_the_last_has_ended(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    dv_carry_replica_drain(w->carry, REPLICA);
    struct call *late = ASK(w, .method = "GET", .target = "/echo");
    UNTIL(w, late->is_reset);
    assert_int_equal(late->reset, DV_RESET_REFUSED);
    assert_int_equal(w->n_drained, 0);
    g_release = true;
    UNTIL(w, c->is_end && w->n_drained == 1);
    dv_carry_replica_drain(w->carry, REPLICA);
    for (int i = 0; i < 5; i++)
        assert_int_equal(dv_loop_turn(w->loop, 1), DV_OK);
    assert_int_equal(w->n_drained, 1); /* once */
}

static void an_idle_replica_is_drained_at_once(void **state)
{
    struct world *w = *state;
    dv_carry_replica_drain(w->carry, REPLICA);
    UNTIL(w, w->n_drained == 1);
}

static void a_removed_replica_ends_what_is_inside(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    dv_carry_replica_remove(w->carry, REPLICA, DV_RESET_EXITED);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_EXITED);
    c = ASK(w, .method = "GET", .target = "/echo");
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_NOT_HERE);
}

static void the_last_connection_to_a_removed_replica_is_told_once(void **state)
{
    struct world *w = *state;
    struct call *kept = ASK(w, .method = "GET", .target = "/echo");
    UNTIL(w, kept->is_end); /* its connection stays open, idle */
    struct call *c = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    assert_int_equal(dv_carry_replica_remove(w->carry, REPLICA, DV_RESET_EXITED), DV_OK);
    assert_int_equal(dv_carry_replica_remove(w->carry, REPLICA, DV_RESET_EXITED), DV_NOT_FOUND);
    UNTIL(w, w->n_closed == 1);
    UNTIL(w, g_inside == 0); /* the server saw its end of the connection close */
    UNTIL(w, c->is_reset);
    assert_int_equal(w->n_closed, 1);
}

static void a_replica_that_moves_tells_nothing(void **state)
{
    struct world *w = *state;
    int fd;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    put_replica(w, dv_socket_port(fd), 4);
    (void)close(fd);
    struct call *c = ASK(w, .method = "GET", .target = "/echo");
    UNTIL(w, c->is_reset);
    assert_int_equal(w->n_closed, 0);
}

static void a_refused_connection_is_told_to_both_sides(void **state)
{
    struct world *w = *state;
    int fd;
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &fd, NULL), DV_OK);
    int port = dv_socket_port(fd);
    (void)close(fd);
    put_replica(w, port, 4); /* it moved there, where nobody listens */
    struct call *c = ASK(w, .method = "GET", .target = "/echo");
    UNTIL(w, c->is_reset && w->n_trouble == 1);
    assert_int_equal(c->reset, DV_RESET_CONNECT);
    assert_int_equal(w->trouble, DV_RESET_CONNECT);
}

static void a_container_that_breaks_off_is_broken(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "POST", .target = "/close", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_BROKEN);
    assert_false(c->has_head);
    struct call *half = ASK(w, .method = "GET", .target = "/cut");
    UNTIL(w, half->is_reset);
    assert_true(half->has_head);
    assert_int_equal(half->reset, DV_RESET_BROKEN);
    struct call *r = ASK(w, .method = "GET", .target = "/rubbish");
    UNTIL(w, r->is_reset);
    assert_int_equal(r->reset, DV_RESET_BAD_ANSWER);
}

static void whoever_dies_of_a_request_is_told_apart_from_who_breaks_off(void **state)
{
    struct world *w = *state;
    struct call *told = ASK(w, .method = "POST", .target = "/die", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
    UNTIL(w, w->n_trouble == 1); /* the connection has ended; the engine's word comes later */
    assert_false(told->is_reset);
    assert_int_equal(dv_carry_replica_ended(w->carry, REPLICA, "its process ended with exit code 3"), DV_OK);
    UNTIL(w, told->is_reset);
    assert_int_equal(told->reset, DV_RESET_EXITED);
    assert_string_equal(told->why, "its process ended with exit code 3");
    assert_int_equal(dv_carry_replica_ended(w->carry, REPLICA, "again"), DV_NOT_FOUND);
}

/* A listener whose queue is full takes no connection, and refuses none. */
struct full {
    int fd, port, filler[4];
};

static void full_open(struct full *f)
{
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &f->fd, NULL), DV_OK);
    f->port = dv_socket_port(f->fd);
    assert_int_equal(listen(f->fd, 0), 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)f->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (size_t i = 0; i < DV_COUNT(f->filler); i++) {
        f->filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(f->filler[i], (struct sockaddr *)&to, sizeof(to));
    }
}

static void full_close(struct full *f)
{
    for (size_t i = 0; i < DV_COUNT(f->filler); i++)
        (void)close(f->filler[i]);
    (void)close(f->fd);
}

static void a_request_that_was_not_written_yet_survives_its_replica(void **state)
{
    struct world *w = *state;
    struct full full;
    full_open(&full);
    put_replica(w, full.port, 4);
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(dv_loop_turn(w->loop, 5), DV_OK);
    assert_int_equal(in_flight(w), 1);
    assert_int_equal(dv_carry_replica_ended(w->carry, REPLICA, "it is no more"), DV_OK);
    UNTIL(w, c->is_reset);
    assert_true(dv_link_reset_unseen(c->reset));
    full_close(&full);
}

static void a_death_that_nobody_explains_is_broken_in_the_end(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "POST", .target = "/die", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_BROKEN);
    assert_int_equal(in_flight(w), 0);
}

static void warm_up(struct world *w)
{
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "x", .n = 1);
    UNTIL(w, c->is_end);
    UNTIL(w, in_flight(w) == 0);
}

static void a_repeatable_request_on_a_dead_kept_connection_is_tried_once_more(void **state)
{
    struct world *w = *state;
    warm_up(w);
    g_stale_left = 1;
    struct call *c =
        ASK(w, .method = "PUT", .target = "/stale", .kind = DV_H1_LENGTH, .body = "again", .n = 5);
    UNTIL(w, c->is_end || c->is_reset);
    assert_body(c, "again");
    assert_int_equal(g_connections, 2);
    warm_up(w);
    g_stale_left = 2;
    c = ASK(w, .method = "PUT", .target = "/stale", .kind = DV_H1_LENGTH, .body = "again", .n = 5);
    UNTIL(w, c->is_end || c->is_reset);
    assert_true(c->is_reset);
    assert_int_equal(c->reset, DV_RESET_BROKEN);
}

/* Otherwise the gateway, told that nobody had seen it, would take it to replica after replica. */
static void a_request_that_kills_is_never_called_unseen(void **state)
{
    struct world *w = *state;
    warm_up(w);
    struct call *c = ASK(w, .method = "GET", .target = "/die");
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_BROKEN);
    assert_int_equal(g_connections, 1); /* the second try met nobody */
}

static void a_request_that_may_not_be_repeated_is_not(void **state)
{
    struct world *w = *state;
    warm_up(w);
    g_stale_left = 1;
    int before = g_requests;
    struct call *c =
        ASK(w, .method = "POST", .target = "/stale", .kind = DV_H1_LENGTH, .body = "once", .n = 4);
    UNTIL(w, c->is_end || c->is_reset);
    assert_true(c->is_reset);
    assert_int_equal(c->reset, DV_RESET_BROKEN);
    assert_int_equal(g_requests, before + 1);
}

/* Some are in the server's socket when it closes, unread: TCP cannot tell those from one that was read in
 * part and is the reason for the end, so they are told as broken.  The others are answered. */
static void
requests_that_meet_a_connection_being_closed_are_repeated_if_unseen_and_never_doubled(void **state)
{
    struct world *w = *state;
    enum { N = 1000 };
    static char body[4000];
    memset(body, 'b', sizeof(body));
    int n_answered = 0;
    for (int i = 0; i < N; i++) {
        w->n_calls = 0;
        struct call *c = &w->calls[0];
        dv_buf_deinit(&c->fields);
        dv_buf_deinit(&c->body);
        *c = (struct call){0};
        (void)ASK(w, .method = "POST", .target = "/hasty", .kind = DV_H1_LENGTH, .body = body,
                  .n = sizeof(body));
        UNTIL(w, c->is_end || c->is_reset);
        n_answered += c->is_end;
        if (c->is_reset)
            assert_int_equal(c->reset, DV_RESET_BROKEN);
        else
            assert_body(c, "whole");
    }
    assert_int_equal(g_requests, n_answered);
    assert_true(n_answered > N / 2);
}

static void a_body_that_its_sender_cannot_keep_gets_a_connection_of_its_own(void **state)
{
    struct world *w = *state;
    static char body[DV_LINK_WINDOW + 1];
    memset(body, 'b', sizeof(body));
    warm_up(w);
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = body,
                         .n = sizeof(body) - 1);
    UNTIL(w, c->is_end);
    assert_int_equal(g_connections, 1);
    c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = body, .n = sizeof(body));
    UNTIL(w, c->is_end);
    assert_int_equal(dv_buf_len(&c->body), sizeof(body));
    assert_int_equal(g_connections, 2);
    c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_CHUNKED, .body = "x", .n = 1);
    UNTIL(w, c->is_end);
    assert_int_equal(g_connections, 3);
    warm_up(w); /* and took the place of the idle one */
    assert_int_equal(g_connections, 3);
}

static void no_credit_comes_back_before_the_container_was_sent_anything(void **state)
{
    struct world *w = *state;
    static char body[2 * DV_LINK_WINDOW];
    struct full full;
    full_open(&full);
    put_replica(w, full.port, 4);
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = body,
                         .n = sizeof(body), .timeout_ms = 200);
    for (int i = 0; i < 30; i++)
        assert_int_equal(dv_loop_turn(w->loop, 5), DV_OK);
    assert_false(dv_link_was_credited(dv_linkio_link(w->client), c->stream));
    assert_int_equal(c->n_left, sizeof(body) - DV_LINK_WINDOW);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_CONNECT); /* and so it may go elsewhere, whole */
    full_close(&full);
}

static void a_request_past_its_deadline_is_ended(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/wait", .timeout_ms = 30);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_TIMEOUT);
    assert_int_equal(in_flight(w), 0);
    UNTIL(w, g_inside == 0); /* its connection was closed: the function knows */
}

static void a_caller_that_leaves_frees_the_slot(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    assert_int_equal(dv_link_reset(dv_linkio_link(w->client), c->stream, DV_RESET_CANCEL), DV_OK);
    dv_linkio_kick(w->client);
    UNTIL(w, in_flight(w) == 0 && g_inside == 0);
}

static void a_link_that_breaks_ends_its_requests(void **state)
{
    struct world *w = *state;
    (void)ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    dv_linkio_free(w->client);
    w->client = NULL;
    UNTIL(w, in_flight(w) == 0 && g_inside == 0);
}

static void goaway_lets_requests_inside_end(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    dv_carry_goaway(w->carry);
    UNTIL(w, w->is_going);
    assert_int_equal(dv_carry_n_links(w->carry), 1);
    assert_int_equal(dv_carry_n_inside(w->carry), 1);
    g_release = true;
    UNTIL(w, c->is_end);
    assert_body(c, "waited");
    UNTIL(w, w->is_client_closed);
    UNTIL(w, w->n_left == 1);
    assert_int_equal(dv_carry_n_links(w->carry), 0);
}

static void requests_with_large_bodies_that_cross_goaway_are_answered(void **state)
{
    struct world *w = *state;
    static char body[300 * 1000];
    memset(body, 'b', sizeof(body));
    dv_carry_goaway(w->carry); /* tells the loops; this one's gateway does not know yet */
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = body,
                         .n = sizeof(body)),
                *s = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "s", .n = 1);
    UNTIL(w, w->is_going && c->is_end && s->is_end);
    assert_int_equal(c->status, 200);
    assert_int_equal(dv_buf_len(&c->body), sizeof(body));
    assert_body(s, "s");
}

static void a_link_that_comes_late_is_served_and_leaves_too(void **state)
{
    struct world *w = *state;
    struct dv_linkio *first = w->client;
    dv_carry_goaway(w->carry);
    UNTIL(w, w->is_client_closed);
    dv_linkio_free(first);
    UNTIL(w, w->n_left == 1);
    w->is_open = w->is_going = w->is_client_closed = false;
    connect_link(w);
    struct call *c = ASK(w, .method = "POST", .target = "/echo", .kind = DV_H1_LENGTH, .body = "hi", .n = 2);
    UNTIL(w, c->is_end && w->is_client_closed);
    assert_body(c, "hi");
    dv_linkio_free(w->client);
    w->client = NULL;
    UNTIL(w, w->n_left == 2);
}

static void a_carry_without_links_has_left_at_once(void **state)
{
    struct world *w = *state;
    dv_linkio_free(w->client);
    w->client = NULL;
    UNTIL(w, !dv_carry_n_links(w->carry));
    assert_int_equal(w->n_left, 0); /* nobody asked */
    dv_carry_goaway(w->carry);
    UNTIL(w, w->n_left);
}

static void the_end_of_the_carry_is_told_to_the_gateway(void **state)
{
    struct world *w = *state;
    struct call *c = ASK(w, .method = "GET", .target = "/wait");
    UNTIL(w, g_inside == 1);
    dv_carry_free(w->carry);
    w->carry = NULL;
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_SHUTDOWN);
}

static void metrics_count_how_requests_ended(void **state)
{
    struct world *w = *state;
    DV_AUTO_BUF struct dv_buf text = DV_BUF_INIT;
    struct call *c = ASK(w, .method = "GET", .target = "/echo"),
                *n = ASK(w, .method = "GET", .target = "/echo", .replica = 99);
    UNTIL(w, c->is_end && n->is_reset && in_flight(w) == 0);
    dv_carry_metrics(w->carry, &text);
    assert_non_null(strstr(dv_buf_cstr(&text), "davit_agent_requests_total{result=\"ok\"} 1\n"));
    assert_non_null(strstr(dv_buf_cstr(&text), "davit_agent_requests_total{result=\"not_here\"} 1\n"));
    assert_non_null(strstr(dv_buf_cstr(&text), "\ndavit_agent_requests_in_flight 0\n"));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_request_reaches_the_container_and_its_answer_comes_back),
        T(connections_are_kept_and_used_again),
        T(chunked_bodies_and_trailers_pass_both_ways),
        T(answers_without_a_body_have_none),
        T(an_answer_that_ends_with_its_connection_is_whole),
        T(informational_answers_come_before_the_final_one),
        T(a_request_without_a_host_is_given_one),
        T(an_upload_larger_than_every_buffer_arrives_whole),
        T(a_reader_that_stops_holds_the_sender_back),
        T(an_answer_before_the_body_was_read_arrives_and_frees_the_slot),
        T(upgraded_connections_carry_raw_bytes_both_ways),
        T(no_more_requests_enter_than_the_replica_takes),
        T(an_unknown_replica_is_not_here),
        T(draining_refuses_new_requests_and_tells_when_the_last_has_ended),
        T(an_idle_replica_is_drained_at_once),
        T(a_removed_replica_ends_what_is_inside),
        T(the_last_connection_to_a_removed_replica_is_told_once),
        T(a_replica_that_moves_tells_nothing),
        T(a_refused_connection_is_told_to_both_sides),
        T(a_container_that_breaks_off_is_broken),
        T(whoever_dies_of_a_request_is_told_apart_from_who_breaks_off),
        T(a_request_that_was_not_written_yet_survives_its_replica),
        T(a_death_that_nobody_explains_is_broken_in_the_end),
        T(a_request_that_kills_is_never_called_unseen),
        T(a_repeatable_request_on_a_dead_kept_connection_is_tried_once_more),
        T(a_request_that_may_not_be_repeated_is_not),
        T(requests_that_meet_a_connection_being_closed_are_repeated_if_unseen_and_never_doubled),
        T(a_body_that_its_sender_cannot_keep_gets_a_connection_of_its_own),
        T(no_credit_comes_back_before_the_container_was_sent_anything),
        T(a_request_past_its_deadline_is_ended),
        T(a_caller_that_leaves_frees_the_slot),
        T(a_link_that_breaks_ends_its_requests),
        T(goaway_lets_requests_inside_end),
        T(requests_with_large_bodies_that_cross_goaway_are_answered),
        T(a_link_that_comes_late_is_served_and_leaves_too),
        T(a_carry_without_links_has_left_at_once),
        T(the_end_of_the_carry_is_told_to_the_gateway),
        T(metrics_count_how_requests_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
