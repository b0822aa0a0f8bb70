/* A real gateway between raw client sockets and a fake agent (a real link, answers made up from the target).
 * Gateway loops run on their own threads; state loop, agent and API run on the test's thread, inside
 * rig_turn. For inclusion by one test program. */
#ifndef GATEWAY_RIG_H
#define GATEWAY_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "orchestrator/gateway/gateway.h"
#include "proto/base/alloc.h"
#include "proto/rt/addr.h"
#include "proto/rt/httpd.h"
#include "proto/rt/linkio.h"
#include "proto/rt/loop.h"

enum { RIG_NODE = 77, RIG_FN = 1000, RIG_REPLICA = 5000, RIG_HELD_MAX = 64 };

struct agent_stream {
    struct dv_list node;
    struct dv_linkio *io;
    uint32_t id;
    uint64_t replica;
    char method[16], target[512], fields[4096];
    uint8_t body;
    uint64_t content_length, got, to_send, sent;
    uint32_t timeout_ms;
    bool is_echo, is_raw, is_counting, responded, swallows, local_end, remote_end;
};

struct rig {
    struct dv_loop *loop;
    struct dv_mailbox *mailbox;
    struct dv_gateway *g;
    char dir[64], internal[128], api[128], log_path[128];
    int log_fd;
    struct dv_httpd *httpd;
    /* the fake agent */
    struct dv_io listener;
    struct dv_linkio *links[16];
    size_t n_links;
    struct dv_list streams;
    int n_requests, n_resets, n_refused, refuse_next, on_demand;
    enum dv_link_reset refuse_why, last_reset;
    bool hold;          /* answer nothing until released */
    bool withhold;      /* give no credit: nothing of a body has been passed on yet */
    uint64_t agent_got; /* body bytes of requests */
    uint8_t key[DV_LINK_KEY_BYTES];
    int port;
    /* async */
    struct dv_async_accept *accepted;
    int n_accepted;
    bool drained;
};

static struct rig *the_rig;

static void rig_turn(struct rig *g)
{
    assert_int_equal(dv_loop_turn(g->loop, 2), DV_OK);
}

/* Turn until the condition holds; fails after 5 s. */
#define rig_until(g, condition)                                                                              \
    do {                                                                                                     \
        uint64_t until_ = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;                                      \
        while (!(condition)) {                                                                               \
            if (dv_clock_now_ns(&dv_clock_system) > until_)                                                  \
                fail_msg("%s:%d: waited in vain for: %s", __FILE__, __LINE__, #condition);                   \
            rig_turn(g);                                                                                     \
        }                                                                                                    \
    } while (0)

static inline void rig_for(struct rig *g, uint64_t ms)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + ms * DV_MS;
    while (dv_clock_now_ns(&dv_clock_system) < until)
        rig_turn(g);
}

/* ---- agent ---- */

static void stream_free(struct agent_stream *s)
{
    dv_list_remove(&s->node);
    free(s);
}

static void respond(struct agent_stream *s, int status, uint8_t body, uint64_t length, const char *fields,
                    bool end)
{
    struct dv_link_response r = {.status = (uint16_t)status,
                                 .body = body,
                                 .content_length = length,
                                 .start_us = 1500,
                                 .run_us = 2500,
                                 .fields = dv_sv_c(fields)};
    assert_int_equal(dv_link_respond(dv_linkio_link(s->io), s->id, &r, end), DV_OK);
    s->responded = status >= 200 || status == 101;
    s->local_end = end;
    dv_linkio_kick(s->io);
}

static void send_all(struct agent_stream *s, const char *p, bool end)
{
    size_t taken;
    assert_int_equal(dv_link_send(dv_linkio_link(s->io), s->id, p, strlen(p), end, &taken), DV_OK);
    assert_int_equal(taken, strlen(p));
    s->local_end = end;
    dv_linkio_kick(s->io);
}

/* Both directions over: the link has forgotten it, so do we. */
static void stream_check(struct agent_stream *s)
{
    if (s->local_end && s->remote_end)
        stream_free(s);
}

static void send_zeros(struct agent_stream *s)
{
    static const char block[32 * 1024];
    while (s->sent < s->to_send) {
        size_t n = s->to_send - s->sent < sizeof(block) ? (size_t)(s->to_send - s->sent) : sizeof(block),
               taken;
        if (dv_link_send(dv_linkio_link(s->io), s->id, block, n, s->sent + n == s->to_send, &taken))
            break;
        s->sent += taken;
        if (taken < n)
            break;
    }
    s->local_end = s->sent == s->to_send;
    dv_linkio_kick(s->io);
}

/* What a target asks the agent to answer; held requests are answered by rig_release. */
static void answer(struct rig *g, struct agent_stream *s)
{
    (void)g;
    const char *t = s->target;
    if (strncmp(t, "/echo", 5) == 0) {
        s->is_echo = true;
        respond(s, 200, DV_H1_CHUNKED, 0, "Content-Type: text/plain\r\n", false);
    } else if (strcmp(t, "/count") == 0) {
        s->is_counting = true; /* answers with the number of body bytes when they have ended */
    } else if (strcmp(t, "/swallow") == 0) {
        s->swallows = true; /* reads nothing */
    } else if (strncmp(t, "/big", 4) == 0) {
        s->to_send = strtoull(t + 5, NULL, 10);
        respond(s, 200, DV_H1_LENGTH, s->to_send, "", false);
        send_zeros(s);
    } else if (strcmp(t, "/trailers") == 0) {
        respond(s, 200, DV_H1_CHUNKED, 0, "Trailer: X-Sum\r\n", false);
        send_all(s, "abc", false);
        assert_int_equal(dv_link_send_trailers(dv_linkio_link(s->io), s->id, DV_SV("X-Sum: 6\r\n")), DV_OK);
        s->local_end = true;
    } else if (strcmp(t, "/204") == 0) {
        respond(s, 204, DV_H1_NO_BODY, 0, "", true);
    } else if (strcmp(t, "/304") == 0) {
        respond(s, 304, DV_H1_NO_BODY, 0, "ETag: \"x\"\r\n", true);
    } else if (strcmp(t, "/hints") == 0) {
        respond(s, 103, DV_H1_NO_BODY, 0, "Link: </a.css>\r\n", false);
        respond(s, 200, DV_H1_LENGTH, 2, "", false);
        send_all(s, "ok", true);
    } else if (strcmp(t, "/cookies") == 0) {
        respond(s, 200, DV_H1_NO_BODY, 0, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Call-Id: forged\r\n",
                true);
    } else if (strcmp(t, "/head") == 0) {
        respond(s, 200, DV_H1_NO_BODY, 1234, "", true);
    } else if (strcmp(t, "/head-field") == 0) { /* as an agent passes on a container's answer to HEAD */
        respond(s, 200, DV_H1_NO_BODY, 0, "Content-Length: 99\r\n", true);
    } else if (strcmp(t, "/upgrade") == 0 && s->body == DV_H1_UPGRADED) {
        s->is_raw = true;
        respond(s, 101, DV_H1_UPGRADED, 0, "Upgrade: chat\r\n", false);
    } else if (strcmp(t, "/broken") == 0) {
        respond(s, 200, DV_H1_LENGTH, 100, "", false);
        send_all(s, "only this", false);
        assert_int_equal(dv_link_reset(dv_linkio_link(s->io), s->id, DV_RESET_BROKEN), DV_OK);
        dv_linkio_kick(s->io);
        stream_free(s);
    } else if (strcmp(t, "/exits") == 0) {
        assert_int_equal(dv_link_reset_because(dv_linkio_link(s->io), s->id, DV_RESET_EXITED,
                                               DV_SV("its process ended with exit code 3")),
                         DV_OK);
        dv_linkio_kick(s->io);
        stream_free(s);
    } else if (strcmp(t, "/fields") == 0) { /* what the function was sent, as the answer's body */
        DV_AUTO_STR char *text = dv_asprintf("%s %s\n%s", s->method, s->target, s->fields);
        respond(s, 200, DV_H1_LENGTH, strlen(text), "", false);
        send_all(s, text, true);
    } else {
        char text[600];
        int n =
            snprintf(text, sizeof(text), "%s %s %llu", s->method, s->target, (unsigned long long)s->replica);
        respond(s, 200, DV_H1_LENGTH, (uint64_t)n, "X-Fn: yes\r\n", false);
        send_all(s, text, true);
    }
}

static void agent_request(struct rig *g, struct dv_linkio *io, const struct dv_link_event *ev)
{
    const struct dv_link_request *q = &ev->request;
    g->n_requests++;
    if (g->refuse_next > 0) {
        g->refuse_next--;
        g->n_refused++;
        assert_int_equal(dv_link_reset(dv_linkio_link(io), ev->stream, g->refuse_why), DV_OK);
        dv_linkio_kick(io);
        return;
    }
    struct agent_stream *s = calloc(1, sizeof(*s)); /* not dv_alloc: what is counted is the gateway's */
    s->io = io;
    s->id = ev->stream;
    s->replica = q->replica;
    s->body = q->body;
    s->content_length = q->content_length;
    s->timeout_ms = q->timeout_ms;
    (void)snprintf(s->method, sizeof(s->method), "%.*s", (int)q->method.n, q->method.p);
    (void)snprintf(s->target, sizeof(s->target), "%.*s", (int)q->target.n, q->target.p);
    (void)snprintf(s->fields, sizeof(s->fields), "%.*s", (int)q->fields.n, q->fields.p);
    dv_list_push_back(&g->streams, &s->node);
    dv_link_set_user(dv_linkio_link(io), ev->stream, s);
    if (!g->hold)
        answer(g, s);
}

static void agent_end(struct agent_stream *s)
{
    char text[32];
    size_t taken;
    if (s->is_counting) {
        int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)s->got);
        respond(s, 200, DV_H1_LENGTH, (uint64_t)n, "", false);
        send_all(s, text, true);
    } else if (s->is_echo || s->is_raw) {
        (void)dv_link_send(dv_linkio_link(s->io), s->id, "", 0, true, &taken);
        s->local_end = true;
        dv_linkio_kick(s->io);
    }
    s->remote_end = true;
    stream_check(s);
}

static void on_link_event(void *ctx, const struct dv_link_event *ev)
{
    struct dv_linkio *io = NULL;
    struct rig *g = the_rig;
    struct agent_stream *s = ev->user;
    size_t slot = (size_t)(uintptr_t)ctx, taken;
    io = g->links[slot];
    switch (ev->kind) {
    case DV_LINK_EV_REQUEST:
        agent_request(g, io, ev);
        return;
    case DV_LINK_EV_DATA:
        g->agent_got += ev->bytes.n;
        if (!s || s->swallows)
            return;
        s->got += ev->bytes.n;
        if (g->withhold)
            return;
        if (s->is_echo || s->is_raw) { /* bodies that are echoed in the tests fit the window */
            assert_int_equal(dv_link_send(dv_linkio_link(io), s->id, ev->bytes.p, ev->bytes.n, false, &taken),
                             DV_OK);
            assert_int_equal(taken, ev->bytes.n);
        }
        dv_link_consumed(dv_linkio_link(io), ev->stream, ev->bytes.n);
        dv_linkio_kick(io);
        return;
    case DV_LINK_EV_TRAILERS:
        if (s)
            (void)snprintf(s->fields, sizeof(s->fields), "trailers: %.*s", (int)ev->bytes.n, ev->bytes.p);
        return;
    case DV_LINK_EV_END:
        if (s)
            agent_end(s);
        return;
    case DV_LINK_EV_WRITABLE:
        if (s && s->to_send) {
            send_zeros(s);
            stream_check(s);
        }
        return;
    case DV_LINK_EV_RESET:
        g->n_resets++;
        g->last_reset = ev->reset;
        if (s)
            stream_free(s);
        return;
    default:
        return;
    }
}

static void on_link_closed(void *ctx, int code, const struct dv_err *err)
{
    size_t slot = (size_t)(uintptr_t)ctx;
    (void)code;
    (void)err;
    struct rig *g = the_rig;
    DV_LIST_FOR_EACH_SAFE (it, &g->streams) {
        struct agent_stream *s = DV_LIST_ENTRY(it, struct agent_stream, node);
        if (s->io == g->links[slot])
            stream_free(s);
    }
    dv_linkio_free(g->links[slot]);
    g->links[slot] = NULL;
}

static void on_agent_accept(struct dv_io *io, uint32_t events)
{
    struct rig *g = DV_CONTAINER_OF(io, struct rig, listener);
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    assert_true(g->n_links < DV_COUNT(g->links));
    struct dv_linkio_cfg cfg = {.link = {.role = DV_LINK_SERVER,
                                         .node = RIG_NODE,
                                         .incarnation = 1,
                                         .on_event = on_link_event,
                                         .ctx = (void *)(uintptr_t)g->n_links},
                                .on_closed = on_link_closed};
    memcpy(cfg.link.key, g->key, sizeof(cfg.link.key));
    assert_int_equal(dv_linkio_accept(g->loop, fd, &cfg, &g->links[g->n_links], NULL), DV_OK);
    g->n_links++;
}

static size_t agent_open_links(const struct rig *g)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_links; i++)
        n += g->links[i] && dv_link_is_open(dv_linkio_link(g->links[i]));
    return n;
}

static inline size_t agent_streams(const struct rig *g)
{
    size_t n = 0;
    DV_LIST_FOR_EACH (it, &g->streams)
        n++;
    return n;
}

/* Answer everything that is held, and stop holding. */
static inline void rig_release(struct rig *g)
{
    g->hold = false;
    DV_LIST_FOR_EACH_SAFE (it, &g->streams) {
        struct agent_stream *s = DV_LIST_ENTRY(it, struct agent_stream, node);
        if (s->responded)
            continue;
        answer(g, s); /* held ones ask for nothing that frees the stream */
        stream_check(s);
    }
}

/* End every stream out of turn. */
static inline void agent_reset_all(struct rig *g, enum dv_link_reset why)
{
    DV_LIST_FOR_EACH_SAFE (it, &g->streams) {
        struct agent_stream *s = DV_LIST_ENTRY(it, struct agent_stream, node);
        assert_int_equal(dv_link_reset(dv_linkio_link(s->io), s->id, why), DV_OK);
        dv_linkio_kick(s->io);
        stream_free(s);
    }
}

static inline void agent_drop_links(struct rig *g)
{
    for (size_t i = 0; i < g->n_links; i++)
        if (g->links[i])
            on_link_closed((void *)(uintptr_t)i, DV_OK, NULL);
}

/* ---- API and state loop ---- */

static void on_api(void *ctx, struct dv_http_req *req)
{
    (void)ctx;
    struct dv_sv path = dv_http_path(req), body = dv_http_body(req),
                 xff = dv_http_header(req, "X-Forwarded-For");
    DV_AUTO_BUF struct dv_buf out = DV_BUF_INIT;
    (void)dv_buf_addf(&out, "api %.*s %.*s %.*s", (int)path.n, path.p, (int)body.n, body.p, (int)xff.n,
                      xff.p);
    dv_http_set_header(req, "X-Api", "yes");
    dv_http_reply(req, dv_sv_eq(path, DV_SV("/v1/nothing")) ? 404 : 200, "text/plain", dv_buf_sv(&out));
}

static void rig_on_demand(void *ctx, uint64_t uid)
{
    struct rig *g = ctx;
    assert_true(uid >= RIG_FN);
    g->on_demand++;
}

static void rig_on_async(void *ctx, struct dv_async_accept *a)
{
    struct rig *g = ctx;
    assert_null(g->accepted);
    g->accepted = a;
    g->n_accepted++;
}

static inline void rig_on_drained(void *ctx)
{
    ((struct rig *)ctx)->drained = true;
}

static inline void rig_fn(struct rig *g, const struct dv_route_fn *fn)
{
    assert_int_equal(dv_gateway_fn_put(g->g, fn), DV_OK);
}

/* The function "f" with n replicas; 0: none yet. */
static inline void rig_replicas(struct rig *g, size_t n, uint32_t concurrency)
{
    struct dv_route_replica r[16];
    for (size_t i = 0; i < n; i++)
        r[i] = (struct dv_route_replica){.id = RIG_REPLICA + i, .node = RIG_NODE, .concurrency = concurrency};
    assert_int_equal(dv_gateway_replicas_put(g->g, RIG_FN, r, n), DV_OK);
}

#define RIG_FN_DEFAULT                                                                                       \
    {                                                                                                        \
        .uid = RIG_FN, .name = "f", .ns = "default", .timeout_ms = 10000, .queue_max = 100,                  \
        .queue_timeout_ms = 10000                                                                            \
    }

struct rig_options {
    int n_loops;
    bool no_node;
    uint64_t head_timeout_ms, idle_timeout_ms;
    struct dv_tls_keys *tls;
};

static void rig_start_agent(struct rig *g)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    char address[64];
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    g->listener.fn = on_agent_accept;
    assert_int_equal(dv_io_add(g->loop, &g->listener, fd, EPOLLIN, NULL), DV_OK);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", ntohs(a.sin_port));
    struct dv_route_node node = {.id = RIG_NODE, .address = address};
    memcpy(node.key, g->key, sizeof(node.key));
    assert_int_equal(dv_gateway_node_put(g->g, &node), DV_OK);
}

/* A gateway with function "f" (no replica yet), an agent and an API. */
static struct rig *rig_start(const struct rig_options *o)
{
    struct rig *g = dv_zalloc(sizeof(*g));
    struct dv_err err = DV_ERR_INIT;
    the_rig = g;
    dv_list_init(&g->streams);
    g->listener.fd = -1;
    (void)snprintf(g->dir, sizeof(g->dir), "/tmp/davit-gw-XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    (void)snprintf(g->internal, sizeof(g->internal), "%s/gateway.sock", g->dir);
    (void)snprintf(g->api, sizeof(g->api), "%s/api.sock", g->dir);
    (void)snprintf(g->log_path, sizeof(g->log_path), "%s/access.log", g->dir);
    g->log_fd = open(g->log_path, O_CREAT | O_RDWR | O_CLOEXEC | O_APPEND, 0600);
    memset(g->key, 0x5a, sizeof(g->key));
    assert_int_equal(dv_loop_new(&dv_clock_system, &g->loop, &err), DV_OK);
    assert_int_equal(dv_mailbox_new(g->loop, &g->mailbox, &err), DV_OK);
    struct dv_httpd_cfg httpd = {.unix_path = g->api, .body_max = 1 << 20, .on_request = on_api, .ctx = g};
    assert_int_equal(dv_httpd_start(g->loop, &httpd, &g->httpd, &err), DV_OK);
    struct dv_gateway_cfg cfg = {.clock = &dv_clock_system,
                                 .listen = "127.0.0.1:0",
                                 .tls = o->tls,
                                 .internal_path = g->internal,
                                 .api_path = g->api,
                                 .n_loops = o->n_loops ? o->n_loops : 1,
                                 .user = "admin",
                                 .password = "secret",
                                 .head_timeout_ms = o->head_timeout_ms,
                                 .idle_timeout_ms = o->idle_timeout_ms,
                                 .access_log_fd = g->log_fd,
                                 .state = g->mailbox,
                                 .on_demand = rig_on_demand,
                                 .on_async = rig_on_async,
                                 .ctx = g};
    if (dv_gateway_start(&cfg, &g->g, &err))
        fail_msg("gateway: %s", err.msg);
    g->port = dv_gateway_port(g->g);
    rig_fn(g, &(struct dv_route_fn)RIG_FN_DEFAULT);
    if (!o->no_node) {
        rig_start_agent(g);
        rig_until(g, agent_open_links(g) == (size_t)cfg.n_loops);
    }
    return g;
}

static void rig_stop(struct rig *g)
{
    dv_gateway_free(g->g);
    rig_for(g, 1);
    agent_drop_links(g);
    if (g->listener.fd >= 0) {
        int fd = g->listener.fd;
        dv_io_del(g->loop, &g->listener);
        (void)close(fd);
    }
    dv_httpd_stop(g->httpd);
    dv_mailbox_free(g->mailbox);
    dv_loop_free(g->loop);
    (void)close(g->log_fd);
    (void)unlink(g->log_path);
    (void)unlink(g->api);
    (void)rmdir(g->dir);
    dv_free(g);
}

/* ---- clients ---- */

struct client {
    struct rig *g;
    int fd;
    struct dv_buf in;
    bool eof;
    /* NULL: plain.  Otherwise as send and recv are, non-blocking. */
    void *tls;
    ssize_t (*tls_send)(struct client *c, const char *p, size_t n);
    ssize_t (*tls_recv)(struct client *c, char *p, size_t n);
};

static struct client client_open_at(struct rig *g, const char *unix_path)
{
    struct client c = {.g = g};
    struct dv_addr a = {0};
    if (unix_path) {
        a.un.sun_family = AF_UNIX;
        (void)dv_copy(a.un.sun_path, sizeof(a.un.sun_path), unix_path);
        a.len = sizeof(a.un);
    } else {
        a.in = (struct sockaddr_in){.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                    .sin_port = htons((uint16_t)g->port)};
        a.len = sizeof(a.in);
    }
    c.fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c.fd >= 0);
    if (connect(c.fd, &a.sa, a.len))
        fail_msg("connect: %s", strerror(errno));
    assert_int_equal(fcntl(c.fd, F_SETFL, O_NONBLOCK), 0);
    return c;
}

static inline struct client client_open(struct rig *g)
{
    return client_open_at(g, NULL);
}

static inline void client_close(struct client *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    dv_buf_deinit(&c->in);
}

static void client_send_n(struct client *c, const char *p, size_t n)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 10 * DV_S;
    while (n) {
        ssize_t k = c->tls ? c->tls_send(c, p, n) : send(c->fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN)
            fail_msg("send: %s", strerror(errno));
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else {
            rig_turn(c->g);
        }
        assert_true(dv_clock_now_ns(&dv_clock_system) < until);
    }
}

static inline void client_send(struct client *c, const char *text)
{
    client_send_n(c, text, strlen(text));
}

/* One turn, and whatever the socket has. */
static void client_poll(struct client *c)
{
    for (;;) {
        assert_int_equal(dv_buf_reserve(&c->in, 65536), DV_OK);
        ssize_t n = c->eof   ? -1
                    : c->tls ? c->tls_recv(c, dv_buf_end(&c->in), 65536)
                             : recv(c->fd, dv_buf_end(&c->in), 65536, 0);
        if (n > 0) {
            dv_buf_commit(&c->in, (size_t)n);
            continue;
        }
        if (n == 0 || (n < 0 && !c->eof && errno != EAGAIN))
            c->eof = true;
        break;
    }
    rig_turn(c->g);
}

struct reply {
    int status;
    struct dv_h1_head head; /* views into text */
    char *text;             /* head as it came */
    struct dv_buf body, trailers;
    bool keep_alive;
};

static inline void reply_free(struct reply *r)
{
    dv_free(r->text);
    dv_buf_deinit(&r->body);
    dv_buf_deinit(&r->trailers);
    *r = (struct reply){0};
}

static const char *reply_body(struct reply *r)
{
    const char *s = dv_buf_cstr(&r->body);
    return s ? s : "";
}

static inline bool reply_has(struct reply *r, const char *name, const char *value)
{
    struct dv_sv v = dv_h1_find(&r->head, name);
    return v.p && (!value || dv_sv_eq(v, dv_sv_c(value)));
}

static void read_chunked(struct client *c, struct reply *r)
{
    struct dv_h1_chunked ch;
    dv_h1_chunked_init(&ch);
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 10 * DV_S;
    for (;;) {
        enum dv_h1_chunk_event ev;
        struct dv_sv out = {0};
        size_t used = 0;
        assert_int_equal(
            dv_h1_chunked_next(&ch, dv_buf_ptr(&c->in), dv_buf_len(&c->in), &ev, &out, &used, NULL), DV_OK);
        if (ev == DV_H1_CHUNK_DATA)
            (void)dv_buf_add_sv(&r->body, out);
        if (ev == DV_H1_CHUNK_TRAILERS)
            (void)dv_buf_add_sv(&r->trailers, out);
        dv_buf_consume(&c->in, used);
        if (ev == DV_H1_CHUNK_DONE)
            return;
        if (ev == DV_H1_CHUNK_MORE) {
            assert_false(c->eof);
            assert_true(dv_clock_now_ns(&dv_clock_system) < until);
            client_poll(c);
        }
    }
}

/* Read one answer to a request with this method. */
static void client_read(struct client *c, const char *method, struct reply *r)
{
    size_t used = 0;
    int rc;
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 10 * DV_S;
    struct dv_err err = DV_ERR_INIT;
    *r = (struct reply){0};
    while ((rc = dv_h1_parse_response(dv_buf_ptr(&c->in), dv_buf_len(&c->in), dv_sv_c(method), &r->head,
                                      &used, &err)) == DV_AGAIN) {
        if (c->eof)
            fail_msg("closed without an answer; got \"%.*s\"", (int)dv_buf_len(&c->in), dv_buf_ptr(&c->in));
        if (dv_clock_now_ns(&dv_clock_system) > until)
            fail_msg("no answer; got \"%.*s\"", (int)dv_buf_len(&c->in), dv_buf_ptr(&c->in));
        client_poll(c);
    }
    if (rc)
        fail_msg("answer: %s: \"%.*s\"", err.msg, (int)dv_buf_len(&c->in), dv_buf_ptr(&c->in));
    r->text = dv_strndup(dv_buf_ptr(&c->in), used);
    assert_int_equal(dv_h1_parse_response(r->text, used, dv_sv_c(method), &r->head, &used, &err), DV_OK);
    r->status = r->head.status;
    dv_buf_consume(&c->in, used);
    if (r->head.body == DV_H1_CHUNKED)
        read_chunked(c, r);
    else if (r->head.body == DV_H1_LENGTH) {
        while (dv_buf_len(&c->in) < r->head.content_length && !c->eof &&
               dv_clock_now_ns(&dv_clock_system) < until)
            client_poll(c);
        assert_true(dv_buf_len(&c->in) >= r->head.content_length);
        (void)dv_buf_add(&r->body, dv_buf_ptr(&c->in), r->head.content_length);
        dv_buf_consume(&c->in, r->head.content_length);
    } else if (r->head.body == DV_H1_UNTIL_CLOSE) {
        while (!c->eof && dv_clock_now_ns(&dv_clock_system) < until)
            client_poll(c);
        (void)dv_buf_add(&r->body, dv_buf_ptr(&c->in), dv_buf_len(&c->in));
        dv_buf_clear(&c->in);
    }
}

/* Send and read on one connection; the caller frees the reply. */
static struct reply client_ask(struct client *c, const char *request, const char *method)
{
    struct reply r;
    client_send(c, request);
    client_read(c, method, &r);
    return r;
}

static inline void client_expect_eof(struct client *c)
{
    uint64_t until = dv_clock_now_ns(&dv_clock_system) + 5 * DV_S;
    while (!c->eof && dv_clock_now_ns(&dv_clock_system) < until)
        client_poll(c);
    assert_true(c->eof);
}

/* A connection of its own: ask, check the status, close. */
static inline void expect_status(struct rig *g, const char *request, const char *method, int status)
{
    struct client c = client_open(g);
    struct reply r = client_ask(&c, request, method);
    if (r.status != status)
        fail_msg("%s -> %d, expected %d: %s", request, r.status, status, reply_body(&r));
    reply_free(&r);
    client_close(&c);
}

#endif
