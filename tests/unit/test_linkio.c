#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/rt/addr.h"
#include "proto/rt/linkio.h"
#include "proto/rt/mailbox.h"
#include "proto/rt/sys.h"

/* Real sockets on loopback, one loop for both ends unless a test says otherwise. */

struct end {
    struct dv_linkio *io;
    struct dv_linkio_cfg cfg;
    int opened, closed, code;
    struct dv_err err;
    size_t n_requests, n_responses, n_ends, n_resets, got_bytes, to_send;
    uint32_t stream;
    void (*react)(struct end *e, const struct dv_link_event *ev);
    bool free_on_open, free_on_closed;
};

static struct dv_loop *loop;
static struct end client, server;
static struct dv_io listener;
static char address[64];

static void on_event(void *ctx, const struct dv_link_event *ev)
{
    struct end *e = ctx;
    e->opened += ev->kind == DV_LINK_EV_OPEN;
    e->n_requests += ev->kind == DV_LINK_EV_REQUEST;
    e->n_responses += ev->kind == DV_LINK_EV_RESPONSE;
    e->n_ends += ev->kind == DV_LINK_EV_END;
    e->n_resets += ev->kind == DV_LINK_EV_RESET;
    if (ev->kind == DV_LINK_EV_DATA)
        e->got_bytes += ev->bytes.n;
    if (e->react)
        e->react(e, ev);
    if (ev->kind == DV_LINK_EV_OPEN && e->free_on_open) {
        dv_linkio_free(e->io);
        e->io = NULL;
    }
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    struct end *e = ctx;
    e->closed++;
    e->code = code;
    e->err = *err;
    if (e->free_on_closed) {
        dv_linkio_free(e->io);
        e->io = NULL;
    }
}

static struct dv_linkio_cfg config(enum dv_link_role role, struct end *e)
{
    struct dv_linkio_cfg cfg = {
        .link = {.role = role, .on_event = on_event, .ctx = e, .node = 3, .incarnation = 4},
        .on_closed = on_closed};
    memset(cfg.link.key, 9, sizeof(cfg.link.key));
    return cfg;
}

static void on_accept(struct dv_io *io, uint32_t events)
{
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        assert_int_equal(dv_linkio_accept(loop, fd, &server.cfg, &server.io, NULL), DV_OK);
}

/* A listening socket on an ephemeral port; its address is left in `address`. */
static int listen_somewhere(void)
{
    struct dv_addr a;
    assert_int_equal(dv_addr_parse("127.0.0.1:0", &a, NULL), DV_OK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, &a.sa, a.len), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, &a.sa, &a.len), 0);
    dv_addr_text(&a, address, sizeof(address));
    return fd;
}

static int set_up(void **state)
{
    (void)state;
    client = server = (struct end){0};
    client.cfg = config(DV_LINK_CLIENT, &client);
    server.cfg = config(DV_LINK_SERVER, &server);
    if (dv_loop_new(&dv_clock_system, &loop, NULL))
        return -1;
    listener = (struct dv_io){.fd = -1, .fn = on_accept};
    return dv_io_add(loop, &listener, listen_somewhere(), EPOLLIN, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    dv_linkio_free(client.io);
    dv_linkio_free(server.io);
    int fd = listener.fd;
    dv_io_del(loop, &listener);
    (void)close(fd);
    dv_loop_free(loop);
    return 0;
}

#define RUN_UNTIL(cond)                                                                                      \
    do {                                                                                                     \
        uint64_t end_ns_ = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;                                     \
        while (!(cond)) {                                                                                    \
            assert_true(dv_clock_now_ns(&dv_clock_system) < end_ns_);                                        \
            assert_int_equal(dv_loop_turn(loop, 20), DV_OK);                                                 \
        }                                                                                                    \
    } while (0)

static void connect_client(void)
{
    assert_int_equal(dv_linkio_connect(loop, address, &client.cfg, &client.io, NULL), DV_OK);
}

static void open_both(void)
{
    connect_client();
    RUN_UNTIL(client.opened && server.opened);
}

static uint32_t open_stream(bool end)
{
    struct dv_link_request req = {.method = DV_SV("GET"), .target = DV_SV("/"), .body = DV_H1_CHUNKED};
    uint32_t id;
    assert_int_equal(dv_link_open_stream(dv_linkio_link(client.io), &req, end, NULL, &id), DV_OK);
    dv_linkio_kick(client.io);
    return id;
}

static void answer_at_once(struct end *e, const struct dv_link_event *ev)
{
    if (ev->kind != DV_LINK_EV_REQUEST)
        return;
    struct dv_link_response resp = {.status = 204};
    assert_int_equal(dv_link_respond(dv_linkio_link(e->io), ev->stream, &resp, true), DV_OK);
}

static void a_request_goes_over_a_socket_and_comes_back(void **state)
{
    (void)state;
    server.react = answer_at_once;
    open_both();
    assert_int_equal(dv_link_peer_incarnation(dv_linkio_link(client.io)), 4);
    for (int i = 0; i < 100; i++)
        open_stream(true);
    RUN_UNTIL(client.n_ends == 100);
    assert_int_equal(client.n_responses, 100);
    assert_int_equal(dv_linkio_backlog(client.io), 0);
}

static void a_refused_connection_is_told_from_the_loop_and_once(void **state)
{
    (void)state;
    int fd = listener.fd;
    dv_io_del(loop, &listener);
    (void)close(fd); /* nobody listens there now */
    connect_client();
    assert_int_equal(client.closed, 0);
    RUN_UNTIL(client.closed);
    assert_int_equal(client.code, DV_E_NET);
    assert_non_null(strstr(client.err.msg, "refused"));
    dv_linkio_free(client.io);
    client.io = NULL;
    assert_int_equal(client.closed, 1);
    assert_int_equal(dv_io_add(loop, &listener, listen_somewhere(), EPOLLIN, NULL), DV_OK);
}

static void an_owner_connects_again_after_the_peer_closed(void **state)
{
    (void)state;
    client.free_on_closed = true;
    open_both();
    open_stream(false);
    for (int i = 1; i <= 3; i++) {
        dv_linkio_free(server.io);
        server.io = NULL;
        RUN_UNTIL(client.closed == i);
        assert_int_equal(client.code, DV_CLOSED);
        assert_null(client.io);
        connect_client();
        RUN_UNTIL(client.opened == i + 1 && server.opened == i + 1);
    }
}

static void count_stream(void *ctx, uint32_t stream, void *user)
{
    (void)stream;
    (void)user;
    (*(int *)ctx)++;
}

static void streams_can_still_be_counted_when_the_connection_broke(void **state)
{
    (void)state;
    open_both();
    open_stream(false);
    open_stream(true);
    dv_linkio_free(server.io);
    server.io = NULL;
    RUN_UNTIL(client.closed);
    int n = 0;
    dv_link_each_stream(dv_linkio_link(client.io), count_stream, &n);
    assert_int_equal(n, 2);
}

static void a_wrong_key_is_refused_on_both_sides(void **state)
{
    (void)state;
    client.cfg.link.key[0] ^= 1;
    connect_client();
    RUN_UNTIL(client.closed && server.closed);
    assert_int_equal(client.code, DV_DENIED);
    assert_false(client.opened || server.opened);
}

static void a_wrong_node_is_told_so(void **state)
{
    (void)state;
    client.cfg.link.node = 77;
    connect_client();
    RUN_UNTIL(client.closed && server.closed);
    assert_int_equal(server.code, DV_DENIED);
    assert_int_equal(client.code, DV_DENIED); /* the refusal was written before the socket closed */
}

static void a_peer_that_never_speaks_is_given_up(void **state)
{
    (void)state;
    int fd = listener.fd;
    dv_io_del(loop, &listener); /* the kernel accepts, nobody answers */
    client.cfg.ping_ns = 10 * DV_MS;
    client.cfg.dead_ns = 40 * DV_MS;
    connect_client();
    RUN_UNTIL(client.closed);
    assert_int_equal(client.code, DV_DEADLINE);
    (void)close(fd);
    assert_int_equal(dv_io_add(loop, &listener, listen_somewhere(), EPOLLIN, NULL), DV_OK);
}

static void a_peer_that_falls_silent_is_given_up_and_one_that_answers_pings_is_not(void **state)
{
    (void)state;
    client.cfg.ping_ns = 10 * DV_MS;
    client.cfg.dead_ns = 60 * DV_MS;
    server.cfg.ping_ns = 100 * DV_S; /* answers only */
    server.cfg.dead_ns = 100 * DV_S;
    open_both();
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 150 * DV_MS;
    RUN_UNTIL(dv_clock_now_ns(&dv_clock_system) > until);
    assert_int_equal(client.closed, 0); /* alive through pings */
    dv_linkio_detach(server.io);        /* as if its machine stood still */
    RUN_UNTIL(client.closed);
    assert_int_equal(client.code, DV_DEADLINE);
}

static void a_link_may_be_freed_inside_its_callbacks(void **state)
{
    (void)state;
    client.free_on_open = true;
    server.free_on_closed = true;
    connect_client();
    RUN_UNTIL(server.closed);
    assert_null(client.io);
    assert_null(server.io);
    assert_int_equal(client.closed, 0);
}

static void garbage_on_the_port_closes_the_connection(void **state)
{
    (void)state;
    struct dv_addr a;
    int fd;
    assert_int_equal(dv_addr_parse(address, &a, NULL), DV_OK);
    assert_int_equal(dv_addr_connect(&a, &fd, NULL), DV_OK);
    RUN_UNTIL(server.io);
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.code, DV_E_PROTO);
    (void)close(fd);
}

/* ---- back-pressure ---- */

enum { BIG = 8 * 1024 * 1024 };

static void push_more(struct end *e, uint32_t stream)
{
    static const char block[64 * 1024];
    size_t taken;
    do {
        size_t n = e->to_send < sizeof(block) ? e->to_send : sizeof(block);
        assert_int_equal(dv_link_send(dv_linkio_link(e->io), stream, block, n, n == e->to_send, &taken),
                         DV_OK);
        e->to_send -= taken;
    } while (taken && e->to_send);
    dv_linkio_kick(e->io);
}

static void push_when_writable(struct end *e, const struct dv_link_event *ev)
{
    if (ev->kind == DV_LINK_EV_WRITABLE)
        push_more(e, ev->stream);
}

static void consume_at_once(struct end *e, const struct dv_link_event *ev)
{
    if (ev->kind == DV_LINK_EV_DATA)
        dv_link_consumed(dv_linkio_link(e->io), ev->stream, ev->bytes.n);
}

static void a_large_body_passes_within_the_window(void **state)
{
    (void)state;
    client.react = push_when_writable;
    server.react = consume_at_once;
    open_both();
    client.to_send = BIG;
    push_more(&client, open_stream(false));
    while (!server.n_ends) {
        assert_int_equal(dv_loop_turn(loop, 100), DV_OK);
        assert_true(dv_linkio_backlog(client.io) <= DV_LINK_WINDOW + 4096);
    }
    assert_int_equal(server.got_bytes, BIG);
}

/* ---- leaving ---- */

static void answer_big(struct end *e, const struct dv_link_event *ev)
{
    struct dv_link_response resp = {.status = 200, .body = DV_H1_CHUNKED};
    if (ev->kind == DV_LINK_EV_REQUEST) {
        assert_int_equal(dv_link_respond(dv_linkio_link(e->io), ev->stream, &resp, false), DV_OK);
        push_more(e, ev->stream);
    }
    push_when_writable(e, ev);
}

/* The client pings and gives credit back until the end: a server that just closed would reset what it has not
 * read yet. */
static void a_side_that_leaves_closes_after_its_last_answer_has_arrived(void **state)
{
    (void)state;
    server.to_send = BIG;
    server.react = answer_big;
    client.react = consume_at_once;
    client.cfg.ping_ns = DV_MS;
    open_both();
    open_stream(true);
    RUN_UNTIL(client.got_bytes > 0);
    dv_linkio_goaway(server.io);
    open_stream(true); /* crosses: has its place behind the first, and nothing left to send */
    RUN_UNTIL(client.closed);
    assert_int_equal(client.code, DV_CLOSED);
    assert_int_equal(client.got_bytes, BIG);
    assert_int_equal(client.n_ends, 2);
    RUN_UNTIL(server.closed);
    assert_int_equal(server.code, DV_CLOSED);
}

static void a_side_that_leaves_gives_up_a_peer_that_does_not_close(void **state)
{
    (void)state;
    server.cfg.ping_ns = 5 * DV_MS;
    server.cfg.dead_ns = 50 * DV_MS;
    open_both();
    dv_linkio_goaway(server.io);
    RUN_UNTIL(dv_link_is_quiet(dv_linkio_link(server.io)));
    dv_linkio_detach(client.io); /* it reads no more, and does not close */
    RUN_UNTIL(server.closed);
    assert_int_equal(server.code, DV_DEADLINE);
}

/* ---- another loop ---- */

static struct {
    struct dv_loop *loop;
    struct dv_mailbox *mb;
    pthread_t thread;
    struct dv_linkio *io;
    struct end end;
} other;

static void attach_there(void *arg)
{
    struct dv_linkio_cfg cfg = config(DV_LINK_SERVER, &other.end);
    other.end.io = arg;
    other.end.react = answer_at_once;
    assert_int_equal(dv_linkio_attach(arg, other.loop, &cfg, NULL), DV_OK);
}

static void *run_other(void *arg)
{
    (void)arg;
    assert_int_equal(dv_loop_run(other.loop), DV_OK);
    return NULL;
}

static void move_away(void *ctx, struct dv_linkio *io)
{
    struct end *e = ctx;
    e->io = NULL;
    dv_linkio_detach(io);
    assert_int_equal(dv_mailbox_call(other.mb, attach_there, io), DV_OK);
}

static void ask_when_open(struct end *e, const struct dv_link_event *ev)
{
    (void)e;
    if (ev->kind == DV_LINK_EV_OPEN) /* leaves together with the handshake's last frame */
        open_stream(true);
}

static void a_link_that_opened_moves_to_another_loop_with_the_frames_behind_the_handshake(void **state)
{
    (void)state;
    other.end = (struct end){0};
    assert_int_equal(dv_loop_new(&dv_clock_system, &other.loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(other.loop, &other.mb, NULL), DV_OK);
    assert_int_equal(pthread_create(&other.thread, NULL, run_other, NULL), 0);
    server.cfg.on_open = move_away;
    client.react = ask_when_open;
    connect_client();
    RUN_UNTIL(client.n_ends == 1);
    open_stream(true);
    RUN_UNTIL(client.n_ends == 2);
    dv_loop_stop(other.loop);
    assert_int_equal(pthread_join(other.thread, NULL), 0);
    assert_int_equal(server.n_requests, 0);
    assert_int_equal(other.end.n_requests, 2);
    dv_linkio_free(other.end.io);
    dv_mailbox_free(other.mb);
    dv_loop_free(other.loop);
}

/* ---- on the same machine ---- */

static sa_family_t family_of_server(void)
{
    struct dv_addr a = {.len = sizeof(a.un)};
    assert_int_equal(getsockname(dv_linkio_fd(server.io), &a.sa, &a.len), 0);
    return a.sa.sa_family;
}

static void a_server_of_the_same_machine_is_met_near_its_address(void **state)
{
    (void)state;
    struct dv_io near = {.fd = -1, .fn = on_accept};
    int fd, second;
    assert_int_equal(dv_listen_near(address, &fd, NULL), DV_OK);
    assert_int_equal(dv_listen_near(address, &second, NULL), DV_EXISTS);
    assert_int_equal(dv_io_add(loop, &near, fd, EPOLLIN, NULL), DV_OK);
    client.cfg.is_near_first = true;
    open_both();
    assert_int_equal(family_of_server(), AF_UNIX);
    open_stream(true);
    RUN_UNTIL(server.n_requests == 1);
    dv_io_del(loop, &near);
    (void)close(fd);
}

static void where_nobody_is_near_the_address_is_taken(void **state)
{
    (void)state;
    client.cfg.is_near_first = true;
    open_both();
    assert_int_equal(family_of_server(), AF_INET);
}

static void whoever_wants_the_address_gets_it(void **state)
{
    (void)state;
    int fd;
    assert_int_equal(dv_listen_near(address, &fd, NULL), DV_OK);
    open_both();
    assert_int_equal(family_of_server(), AF_INET);
    (void)close(fd);
}

static void another_users_socket_near_the_address_is_not_believed(void **state)
{
    (void)state;
    int ready[2], fd;
    char byte = 0;
    if (geteuid() != 0)
        skip();
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* a nobody who was there first */
        bool is_there = setuid(65534) == 0 && dv_listen_near(address, &fd, NULL) == DV_OK;
        _exit(is_there && write(ready[1], "x", 1) == 1 ? pause() : 1);
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    client.cfg.is_near_first = true;
    open_both();
    assert_int_equal(family_of_server(), AF_INET);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    (void)close(ready[0]);
}

/* ---- addresses ---- */

static void addresses_are_numeric_hosts_with_ports_or_unix_paths(void **state)
{
    (void)state;
    static const char *const good[][2] = {{"127.0.0.1:80", "127.0.0.1:80"}, {"localhost:1", "127.0.0.1:1"},
                                          {":8080", "0.0.0.0:8080"},        {"[::1]:65535", "[::1]:65535"},
                                          {"unix:/a/b", "unix:/a/b"},       {"unix:///a", "unix:/a"}};
    static const char *const bad[] = {
        "",      "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "a.example:80", "::1:80",
        "[::1]", "unix:",     "1.2.3:80",   "[127.0.0.1]:80",  "1.2.3.4:+5"};
    struct dv_addr a;
    char text[64];
    for (size_t i = 0; i < DV_COUNT(good); i++) {
        assert_int_equal(dv_addr_parse(good[i][0], &a, NULL), DV_OK);
        dv_addr_text(&a, text, sizeof(text));
        assert_string_equal(text, good[i][1]);
        assert_int_equal(dv_addr_is_loopback(&a), i != 2);
    }
    for (size_t i = 0; i < DV_COUNT(bad); i++)
        assert_int_equal(dv_addr_parse(bad[i], &a, NULL), DV_INVALID);
    char path[200] = "unix:";
    memset(path + 5, 'x', 120);
    assert_int_equal(dv_addr_parse(path, &a, NULL), DV_INVALID);
}

#define on_sockets(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        on_sockets(a_request_goes_over_a_socket_and_comes_back),
        on_sockets(a_refused_connection_is_told_from_the_loop_and_once),
        on_sockets(an_owner_connects_again_after_the_peer_closed),
        on_sockets(streams_can_still_be_counted_when_the_connection_broke),
        on_sockets(a_wrong_key_is_refused_on_both_sides),
        on_sockets(a_wrong_node_is_told_so),
        on_sockets(a_peer_that_never_speaks_is_given_up),
        on_sockets(a_peer_that_falls_silent_is_given_up_and_one_that_answers_pings_is_not),
        on_sockets(a_link_may_be_freed_inside_its_callbacks),
        on_sockets(garbage_on_the_port_closes_the_connection),
        on_sockets(a_large_body_passes_within_the_window),
        on_sockets(a_side_that_leaves_closes_after_its_last_answer_has_arrived),
        on_sockets(a_side_that_leaves_gives_up_a_peer_that_does_not_close),
        on_sockets(a_link_that_opened_moves_to_another_loop_with_the_frames_behind_the_handshake),
        on_sockets(a_server_of_the_same_machine_is_met_near_its_address),
        on_sockets(where_nobody_is_near_the_address_is_taken),
        on_sockets(whoever_wants_the_address_gets_it),
        on_sockets(another_users_socket_near_the_address_is_not_believed),
        cmocka_unit_test(addresses_are_numeric_hosts_with_ports_or_unix_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
