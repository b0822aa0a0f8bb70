/* Requests at a replica that sleeps: held until it is awake, whatever happens meanwhile.  Two links (one for
 * each loop of the carry) from a gateway on the test's loop, which is the state loop too; the function is a
 * server on threads of its own that notices when it is given a request while it should be frozen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/carry/carry.h"
#include "proto/base/alloc.h"
#include "proto/rt/loop.h"
#include "proto/rt/sys.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REPLICA = 7, LINKS = 2, CALLS = 48 };

/* ---- the function ---- */

static _Atomic bool g_frozen, g_is_slow; /* slow: answers only when this is over */
static _Atomic int g_requests, g_while_frozen, g_connections;
static int g_listen = -1;

/* Heads without a body only. */
static void *serve(void *arg)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    int fd = (int)(intptr_t)arg;
    char in[4096];
    size_t have = 0;
    for (ssize_t n; (n = recv(fd, in + have, sizeof(in) - 1 - have, 0)) > 0;) {
        have += (size_t)n;
        in[have] = '\0';
        for (char *end; (end = strstr(in, "\r\n\r\n"));) {
            atomic_fetch_add(&g_requests, 1);
            while (atomic_load(&g_is_slow))
                (void)usleep(1000);
            if (atomic_load(&g_frozen))
                atomic_fetch_add(&g_while_frozen, 1);
            have -= (size_t)(end + 4 - in);
            memmove(in, end + 4, have + 1);
            if (send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) < 0)
                break;
        }
    }
    (void)close(fd);
    return NULL;
}

static void *accept_all(void *arg)
{
    (void)arg;
    for (int fd; (fd = accept(g_listen, NULL, NULL)) >= 0;) {
        pthread_t t;
        atomic_fetch_add(&g_connections, 1);
        if (!pthread_create(&t, NULL, serve, (void *)(intptr_t)fd))
            (void)pthread_detach(t);
    }
    return NULL;
}

static int start_server(void **state)
{
    pthread_t t;
    (void)state;
    if (dv_listen_tcp("127.0.0.1:0", 0, NULL, &g_listen, NULL) || fcntl(g_listen, F_SETFL, 0) < 0 ||
        pthread_create(&t, NULL, accept_all, NULL))
        return -1;
    return pthread_detach(t);
}

/* ---- the gateway and the state loop ---- */

struct call {
    uint32_t stream;
    int link;
    bool is_end, is_reset;
    uint16_t status;
    enum dv_link_reset reset;
};

struct world {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_carry *carry;
    struct dv_linkio *client[LINKS], *server;
    int n_open;
    struct call calls[CALLS];
    int n_calls, n_wakes, n_drained;
    uint64_t held_ns;
    bool wakes_at_once;
};

static void on_client_event(void *ctx, const struct dv_link_event *ev)
{
    struct world *w = ctx;
    struct call *c = ev->user;
    w->n_open += ev->kind == DV_LINK_EV_OPEN;
    if (!c)
        return;
    if (ev->kind == DV_LINK_EV_RESPONSE)
        c->status = ev->response.status;
    else if (ev->kind == DV_LINK_EV_DATA)
        dv_link_consumed(dv_linkio_link(w->client[c->link]), c->stream, ev->bytes.n);
    c->is_end = c->is_end || ev->kind == DV_LINK_EV_END;
    if (ev->kind == DV_LINK_EV_RESET) {
        c->is_reset = true;
        c->reset = ev->reset;
    }
}

static void on_closed(void *ctx, int code, const struct dv_err *err)
{
    (void)ctx;
    (void)code;
    (void)err;
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

static void wake(struct world *w)
{
    atomic_store(&g_frozen, false);
    dv_carry_replica_wake(w->carry, REPLICA);
}

static void on_wake(void *ctx, uint64_t replica, uint64_t held_ns)
{
    struct world *w = ctx;
    assert_int_equal(replica, REPLICA);
    w->n_wakes++;
    w->held_ns = held_ns;
    if (w->wakes_at_once)
        wake(w);
}

static void on_drained(void *ctx, uint64_t replica)
{
    struct world *w = ctx;
    assert_int_equal(replica, REPLICA);
    w->n_drained++;
}

#define UNTIL(w, what)                                                                                       \
    do {                                                                                                     \
        for (int turn_ = 0; turn_ < 5000 && !(what); turn_++)                                                \
            assert_int_equal(dv_loop_turn((w)->loop, 2), DV_OK);                                             \
        assert_true(what);                                                                                   \
    } while (0)

static void connect_link(struct world *w, int i)
{
    struct dv_linkio_cfg sc = {
        .link = {.role = DV_LINK_SERVER, .node = 1, .incarnation = 2, .on_event = on_server_event, .ctx = w},
        .on_open = on_server_open,
        .on_closed = on_closed};
    struct dv_linkio_cfg cc = {
        .link = {.role = DV_LINK_CLIENT, .purpose = DV_LINK_DATA_CONN, .on_event = on_client_event, .ctx = w},
        .on_closed = on_closed};
    int listen_fd, fd = -1;
    char address[32];
    assert_int_equal(dv_listen_tcp("127.0.0.1:0", 0, NULL, &listen_fd, NULL), DV_OK);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", dv_socket_port(listen_fd));
    assert_int_equal(dv_linkio_connect(w->loop, address, &cc, &w->client[i], NULL), DV_OK);
    for (int k = 0; k < 1000 && fd < 0; k++) {
        fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            assert_int_equal(dv_loop_turn(w->loop, 1), DV_OK);
    }
    assert_true(fd >= 0);
    (void)close(listen_fd);
    assert_int_equal(dv_linkio_accept(w->loop, fd, &sc, &w->server, NULL), DV_OK);
    UNTIL(w, w->n_open == i + 1);
}

static int setup(void **state)
{
    struct world *w = dv_zalloc(sizeof(*w));
    char address[32];
    g_frozen = false;
    g_requests = g_while_frozen = g_connections = 0;
    assert_int_equal(dv_loop_new(&dv_clock_system, &w->loop, NULL), DV_OK);
    assert_int_equal(dv_mailbox_new(w->loop, &w->mailbox, NULL), DV_OK);
    struct dv_carry_cfg cfg = {.clock = &dv_clock_system,
                               .n_loops = LINKS,
                               .state = w->mailbox,
                               .on_drained = on_drained,
                               .on_wake = on_wake,
                               .ctx = w};
    assert_int_equal(dv_carry_start(&cfg, &w->carry, NULL), DV_OK);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", dv_socket_port(g_listen));
    assert_int_equal(dv_carry_replica_put(w->carry, &(struct dv_carry_replica){REPLICA, address, CALLS}),
                     DV_OK);
    for (int i = 0; i < LINKS; i++)
        connect_link(w, i);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    dv_carry_free(w->carry);
    for (int i = 0; i < LINKS; i++)
        dv_linkio_free(w->client[i]);
    dv_mailbox_free(w->mailbox);
    dv_loop_free(w->loop);
    dv_free(w);
    return 0;
}

static void ask(struct world *w, struct call *c, int link, uint32_t timeout_ms)
{
    struct dv_link_request req = {.replica = REPLICA,
                                  .timeout_ms = timeout_ms,
                                  .body = DV_H1_NO_BODY,
                                  .method = DV_SV("GET"),
                                  .target = DV_SV("/"),
                                  .fields = DV_SV("Host: f\r\n")};
    *c = (struct call){.link = link};
    assert_int_equal(dv_link_open_stream(dv_linkio_link(w->client[link]), &req, true, c, &c->stream), DV_OK);
    dv_linkio_kick(w->client[link]);
}

static void leave(struct world *w, struct call *c)
{
    (void)dv_link_reset(dv_linkio_link(w->client[c->link]), c->stream, DV_RESET_CANCEL);
    dv_linkio_kick(w->client[c->link]);
}

static struct call *ask_next(struct world *w, int link, uint32_t timeout_ms)
{
    struct call *c = &w->calls[w->n_calls++];
    ask(w, c, link, timeout_ms);
    return c;
}

static uint64_t inside(struct world *w)
{
    uint64_t n, served;
    assert_int_equal(dv_carry_load(w->carry, REPLICA, &n, &served), DV_OK);
    return n;
}

static void fall_asleep(struct world *w)
{
    assert_int_equal(dv_carry_replica_sleep(w->carry, REPLICA), DV_OK);
    atomic_store(&g_frozen, true);
}

/* ---- tests ---- */

static void a_request_at_a_sleeping_replica_is_held_until_it_is_awake(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    struct call *c = ask_next(w, 0, 0);
    UNTIL(w, w->n_wakes == 1);
    assert_true(w->held_ns > 0);
    assert_int_equal(inside(w), 1);
    for (int i = 0; i < 5; i++)
        assert_int_equal(dv_loop_turn(w->loop, 1), DV_OK);
    assert_int_equal(g_requests, 0);
    wake(w);
    UNTIL(w, c->is_end);
    assert_int_equal(c->status, 200);
    assert_int_equal(g_while_frozen, 0);
}

static void however_many_wait_each_loop_asks_once(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    for (int i = 0; i < 10; i++)
        (void)ask_next(w, i % LINKS, 0);
    UNTIL(w, inside(w) == 10 && w->n_wakes == LINKS);
    wake(w);
    for (int i = 0; i < 10; i++)
        UNTIL(w, w->calls[i].is_end);
    assert_int_equal(w->n_wakes, LINKS);
    assert_int_equal(g_requests, 10);
}

static void a_replica_with_a_request_inside_does_not_fall_asleep(void **state)
{
    struct world *w = *state;
    uint64_t since = 1;
    fall_asleep(w);
    struct call *c = ask_next(w, 0, 0);
    UNTIL(w, w->n_wakes == 1);
    atomic_store(&g_is_slow, true);
    atomic_store(&g_frozen, false);
    dv_carry_replica_wake(w->carry, REPLICA);
    assert_int_equal(dv_carry_replica_sleep(w->carry, REPLICA), DV_NO_CAPACITY);
    assert_int_equal(dv_carry_idle_since(w->carry, REPLICA, &since), DV_OK);
    assert_int_equal(since, 0);
    atomic_store(&g_is_slow, false);
    UNTIL(w, c->is_end && inside(w) == 0);
    assert_int_equal(dv_carry_idle_since(w->carry, REPLICA, &since), DV_OK);
    assert_true(since > 0);
    assert_int_equal(dv_carry_replica_sleep(w->carry, REPLICA), DV_OK);
    assert_int_equal(dv_carry_replica_sleep(w->carry, REPLICA), DV_OK); /* it sleeps already */
    assert_int_equal(dv_carry_replica_sleep(w->carry, 99), DV_NOT_FOUND);
}

static void a_held_request_keeps_its_deadline(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    struct call *c = ask_next(w, 0, 30);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_TIMEOUT);
    UNTIL(w, inside(w) == 0);
    assert_int_equal(g_requests, 0);
}

static void a_late_answer_wakes_nobody_at_a_replica_that_sleeps_again(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    struct call *first = ask_next(w, 0, 0);
    UNTIL(w, w->n_wakes == 1);
    leave(w, first);
    UNTIL(w, inside(w) == 0);
    wake(w); /* the answer to the first is on its way */
    fall_asleep(w);
    struct call *second = ask_next(w, 0, 0);
    UNTIL(w, w->n_wakes == 2);
    assert_int_equal(g_requests, 0);
    wake(w);
    UNTIL(w, second->is_end);
    assert_int_equal(second->status, 200);
    assert_int_equal(g_while_frozen, 0);
}

static void a_removed_replica_sends_held_requests_elsewhere(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    struct call *c = ask_next(w, 1, 0);
    UNTIL(w, w->n_wakes == 1);
    dv_carry_replica_remove(w->carry, REPLICA, DV_RESET_EXITED);
    UNTIL(w, c->is_reset);
    assert_int_equal(c->reset, DV_RESET_REFUSED); /* the function has not seen it */
    dv_carry_replica_wake(w->carry, REPLICA);     /* too late, and harmless */
}

static void a_sleeping_replica_drains_when_its_held_requests_are_over(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    struct call *c = ask_next(w, 0, 0);
    UNTIL(w, w->n_wakes == 1);
    dv_carry_replica_drain(w->carry, REPLICA);
    assert_int_equal(w->n_drained, 0);
    wake(w);
    UNTIL(w, c->is_end && w->n_drained == 1);
    assert_int_equal(c->status, 200);
}

static void an_idle_sleeping_replica_is_drained_at_once(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    dv_carry_replica_drain(w->carry, REPLICA);
    UNTIL(w, w->n_drained == 1);
}

static void the_end_of_the_carry_leaves_nothing_behind(void **state)
{
    struct world *w = *state;
    fall_asleep(w);
    struct call *c = ask_next(w, 0, 0), *late = ask_next(w, 1, 0);
    UNTIL(w, w->n_wakes == 2);
    dv_carry_free(w->carry);
    w->carry = NULL;
    UNTIL(w, c->is_reset && late->is_reset);
    assert_int_equal(c->reset, DV_RESET_REFUSED);
}

/* Requests on two loops against a freezer that tries in every turn: none is given to the function while it is
 * frozen, none is forgotten.  Under TSan the orders are checked as well. */
static void requests_and_freezes_that_race_never_meet(void **state)
{
    struct world *w = *state;
    uint64_t begin = dv_clock_now_ns(&dv_clock_system);
    int n_done = 0, n_freezes = 0;
    w->wakes_at_once = true;
    for (int i = 0; i < 4; i++)
        ask(w, &w->calls[i], i % LINKS, 0);
    while (dv_clock_now_ns(&dv_clock_system) - begin < 800 * DV_MS || n_freezes < 20) {
        assert_int_equal(dv_loop_turn(w->loop, 1), DV_OK);
        if (!atomic_load(&g_frozen) && dv_carry_replica_sleep(w->carry, REPLICA) == DV_OK) {
            atomic_store(&g_frozen, true);
            n_freezes++;
        }
        for (int i = 0; i < 4; i++) {
            assert_false(w->calls[i].is_reset);
            if (!w->calls[i].is_end)
                continue;
            assert_int_equal(w->calls[i].status, 200);
            ask(w, &w->calls[i], i % LINKS, 0);
            if (++n_done % 5 == 0) { /* a client that leaves at once */
                leave(w, &w->calls[i]);
                ask(w, &w->calls[i], i % LINKS, 0);
            }
        }
    }
    for (int i = 0; i < 4; i++)
        UNTIL(w, w->calls[i].is_end);
    assert_int_equal(g_while_frozen, 0);
    print_message("%d requests, %d freezes, %d wakes\n", n_done, n_freezes, w->n_wakes);
    assert_true(n_done > n_freezes / 4);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_request_at_a_sleeping_replica_is_held_until_it_is_awake),
        T(however_many_wait_each_loop_asks_once),
        T(a_replica_with_a_request_inside_does_not_fall_asleep),
        T(a_held_request_keeps_its_deadline),
        T(a_late_answer_wakes_nobody_at_a_replica_that_sleeps_again),
        T(a_removed_replica_sends_held_requests_elsewhere),
        T(a_sleeping_replica_drains_when_its_held_requests_are_over),
        T(an_idle_sleeping_replica_is_drained_at_once),
        T(the_end_of_the_carry_leaves_nothing_behind),
        T(requests_and_freezes_that_race_never_meet),
    };
    return cmocka_run_group_tests(tests, start_server, NULL);
}
