/* Client connections: strict HTTP/1.1, one request at a time (pipelined ones wait in the buffer),
 * edge-triggered.
 *
 * A connection is registered once and for all directions; `readable` and `writable` remember what the kernel
 * said, and pausing is simply not reading.  Bytes are read into the loop's scratch space and used from there;
 * only what cannot be used yet is copied to the connection's own buffer.  Answers gather in `out` and leave
 * at the end of the loop turn.  A connection without a request holds no buffer at all.
 *
 * One lazy timer per connection: at_ns says when something is due; the timer in the heap may be earlier and
 * is then moved when it fires, so that a keep-alive connection touches the heap once a minute and not with
 * every request.
 *
 * With TLS a connection begins with a handshake; from then on only the two calls that move bytes differ
 * (c->tls).  The time for the first head includes the handshake.  A connection that ends in order says so in
 * TLS too; one that is broken off does not, so that nobody takes half an answer for a whole one. */
#include "orchestrator/gateway/gw_internal.h"
#include "proto/base/alloc.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void close_in_order(struct dv_gw_conn *c)
{
    if (c->tls)
        dv_gw_tls_bye(c->tls);
    dv_gw_conn_close(c);
}

/* From here on the connection is plain. */
static void drop_tls(struct dv_gw_conn *c)
{
    if (!c->tls)
        return;
    if (!c->tls->is_open)
        dv_live_add(&c->loop->n.tls_failures, 1);
    dv_gw_tls_free(c->tls);
    c->tls = NULL;
}

/* ---- timer ---- */

void dv_gw_conn_arm(struct dv_gw_conn *c, uint64_t at_ns)
{
    c->at_ns = at_ns;
    if (at_ns == GW_NEVER_NS || (c->timer.pos && c->timer.at_ns <= at_ns))
        return;
    (void)dv_timer_set(c->loop->loop, &c->timer,
                       at_ns); /* without memory it is armed with the next request */
}

static void arm_in(struct dv_gw_conn *c, uint64_t ns)
{
    dv_gw_conn_arm(c, dv_loop_now(c->loop->loop) + ns);
}

static void on_timer(struct dv_timer *t)
{
    struct dv_gw_conn *c = DV_CONTAINER_OF(t, struct dv_gw_conn, timer);
    if (c->at_ns > dv_loop_now(c->loop->loop)) {
        dv_gw_conn_arm(c, c->at_ns);
        return;
    }
    c->at_ns = GW_NEVER_NS;
    if (c->req)
        dv_gw_request_timeout(c->req);
    else if (c->state == GW_CONN_OPEN && dv_buf_len(&c->in) && !c->close_after_out)
        dv_gw_answer_bad_head(c, 408, "the request's head did not arrive in time");
    else if (c->close_after_out)
        dv_gw_conn_close(c); /* it did not take the end of its answer */
    else
        close_in_order(c);
}

/* ---- output ---- */

struct dv_buf *dv_gw_conn_out(struct dv_gw_conn *c)
{
    dv_gw_buf_take(c->loop, &c->out);
    return &c->out;
}

void dv_gw_conn_dirty(struct dv_gw_conn *c)
{
    if (dv_list_empty(&c->dirty) && c->state != GW_CONN_CLOSED) {
        dv_list_push_back(&c->loop->dirty, &c->dirty);
        dv_loop_defer(c->loop->loop, &c->loop->flush);
    }
}

static void linger(struct dv_gw_conn *c)
{
    if (c->tls)
        dv_gw_tls_bye(c->tls);
    drop_tls(c); /* what still comes is thrown away as it is */
    (void)shutdown(c->io.fd, SHUT_WR);
    c->state = GW_CONN_LINGER;
    c->close_after_out = false;
    dv_gw_buf_give(c->loop, &c->in);
    arm_in(c, GW_LINGER_NS);
    if (c->peer_closed)
        dv_gw_conn_close(c);
    else
        dv_gw_conn_pump(c);
}

static void after_output(struct dv_gw_conn *c)
{
    dv_gw_buf_give(c->loop, &c->out);
    if (c->is_stalled) { /* it takes bytes again */
        c->is_stalled = false;
        if (c->req && c->req->body_done)
            dv_gw_conn_arm(c, GW_NEVER_NS);
        else if (!c->req)
            arm_in(c, c->loop->g->cfg.idle_timeout_ms * DV_MS);
    }
    if (!c->close_after_out)
        return;
    if (c->needs_linger || c->readable || dv_buf_len(&c->in))
        linger(c);
    else
        close_in_order(c);
}

static void flush(struct dv_gw_conn *c)
{
    size_t before = dv_buf_len(&c->out);
    if (c->out.failed) { /* no memory for part of the answer: what is there would be read as all of it */
        dv_gw_conn_close(c);
        return;
    }
    while (c->writable && dv_buf_len(&c->out)) {
        ssize_t n = c->tls ? dv_gw_tls_send(c->tls, dv_buf_ptr(&c->out), dv_buf_len(&c->out))
                           : send(c->io.fd, dv_buf_ptr(&c->out), dv_buf_len(&c->out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            dv_gw_conn_close(c);
            return;
        }
        if (n > 0) {
            dv_live_add(&c->loop->n.bytes_out, (uint64_t)n);
            dv_buf_consume(&c->out, (size_t)n);
        }
        if (n < 0 || dv_buf_len(&c->out))
            c->writable = false;
    }
    size_t left = dv_buf_len(&c->out);
    if (left && (!c->req || c->req->upstream == GW_UP_API) && (left < before || c->at_ns == GW_NEVER_NS)) {
        c->is_stalled = true; /* a function's answer has the function's deadline instead */
        arm_in(c, GW_STALL_NS);
    }
    if (!left)
        after_output(c);
    if (c->state == GW_CONN_OPEN && c->req && left < before)
        dv_gw_request_flushed(c->req);
    if (c->state == GW_CONN_OPEN && !c->req && !left && !c->close_after_out)
        dv_gw_conn_pump(c); /* pipelined requests that waited for room */
}

static void reap(struct dv_gw_loop *l)
{
    struct dv_list *n;
    while ((n = dv_list_pop_front(&l->closed))) {
        struct dv_gw_conn *c = DV_LIST_ENTRY(n, struct dv_gw_conn, node);
        dv_list_push_front(&l->free_conns, &c->node);
    }
}

/* End of a turn: one write per connection that has something to say.  Writing may end requests and so give
 * others something to say: the list is walked until it is empty. */
void dv_gw_conns_flush(struct dv_gw_loop *l)
{
    struct dv_list *n;
    while ((n = dv_list_pop_front(&l->dirty)))
        flush(DV_LIST_ENTRY(n, struct dv_gw_conn, dirty));
    reap(l);
    dv_gw_loop_drained_check(l);
}

/* ---- closing ---- */

void dv_gw_conn_close(struct dv_gw_conn *c)
{
    struct dv_gw_loop *l = c->loop;
    if (c->state == GW_CONN_CLOSED)
        return;
    c->state = GW_CONN_CLOSED;
    int fd = c->io.fd;
    dv_io_del(l->loop, &c->io);
    (void)close(fd);
    drop_tls(c);
    dv_timer_cancel(l->loop, &c->timer);
    dv_list_remove(&c->dirty);
    dv_list_remove(&c->hurried);
    dv_list_remove(&c->node);
    if (c->req)
        dv_gw_request_abandon(c->req);
    dv_gw_buf_give(l, &c->in);
    dv_gw_buf_give(l, &c->out);
    l->n_conns--;
    dv_live_set(&l->n.connections, l->n_conns);
    dv_list_push_back(&l->closed,
                      &c->node); /* callers up the stack still look at c: used again from the next turn on */
    dv_loop_defer(l->loop, &l->flush);
}

/* ---- input ---- */

static bool wants_input(const struct dv_gw_conn *c)
{
    if (c->state == GW_CONN_LINGER)
        return true;
    if (c->state != GW_CONN_OPEN || c->close_after_out)
        return false;
    return c->req ? dv_gw_request_wants(c->req) : dv_buf_len(&c->out) < GW_OUT_BYTES;
}

static size_t feed_head(struct dv_gw_conn *c, const char *p, size_t n)
{
    struct dv_gw_loop *l = c->loop;
    struct dv_err err = DV_ERR_INIT;
    size_t used = 0;
    int rc = dv_h1_parse_request(p, n, &l->head, &used, &err);
    if (rc == DV_OK) {
        dv_gw_request_begin(c, &l->head);
        return used;
    }
    if (rc == DV_AGAIN)
        return 0;
    dv_live_add(&l->n.bad_heads, 1);
    int status = rc == DV_TOO_LARGE     ? strcmp(err.field, "target") == 0 ? 414 : 431
                 : rc == DV_UNSUPPORTED ? strcmp(err.field, "transfer-encoding") == 0 ? 501 : 505
                                        : 400;
    dv_gw_answer_bad_head(c, status, dv_err_msg(&err, rc));
    return n;
}

/* Use what can be used of p[0..n). */
static size_t feed(struct dv_gw_conn *c, const char *p, size_t n)
{
    size_t used = 0;
    while (used < n && wants_input(c)) {
        if (c->state == GW_CONN_LINGER)
            return n;
        size_t k = c->req ? dv_gw_request_feed(c->req, p + used, n - used) : feed_head(c, p + used, n - used);
        if (!k)
            break;
        used += k;
    }
    return c->state == GW_CONN_OPEN ? used : n;
}

/* One read.  False: nothing came. */
static bool read_some(struct dv_gw_conn *c)
{
    struct dv_gw_loop *l = c->loop;
    size_t have = dv_buf_len(&c->in);
    size_t want = c->req ? dv_gw_request_read_size(c->req) : have ? GW_HEAD_READ_BYTES : GW_SCRATCH_BYTES;
    char *to = l->scratch;
    if (have) {
        if (dv_buf_reserve(&c->in, want)) {
            dv_gw_conn_close(c);
            return false;
        }
        to = dv_buf_end(&c->in);
    }
    ssize_t got = c->tls ? dv_gw_tls_recv(c->tls, to, want) : recv(c->io.fd, to, want, 0);
    if (got < 0 && errno == EINTR)
        return true;
    if (got <= 0) {
        bool is_over = got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
        c->readable = false;
        if (is_over)
            c->peer_closed = true;
        if (is_over && c->req)
            dv_gw_request_peer_closed(c->req);
        else if (is_over && !dv_buf_len(&c->out))
            close_in_order(c);
        else if (is_over)
            c->close_after_out = true;
        return false;
    }
    size_t n = (size_t)got;
    dv_live_add(&l->n.bytes_in, n);
    if (c->tls ? c->tls->is_drained : n < want && !c->peer_closed)
        c->readable = false; /* the socket is empty; the next byte rings again */
    if (have) {
        dv_buf_commit(&c->in, n);
        return true;
    }
    size_t used = feed(c, l->scratch, n);
    if (used < n && c->state == GW_CONN_OPEN) {
        if (dv_buf_add(&c->in, l->scratch + used, n - used))
            dv_gw_conn_close(c);
    }
    return true;
}

static void feed_kept(struct dv_gw_conn *c)
{
    size_t used = feed(c, dv_buf_ptr(&c->in), dv_buf_len(&c->in));
    if (c->state != GW_CONN_OPEN)
        return;
    if (used)
        dv_buf_consume(&c->in, used);
    if (!dv_buf_len(&c->in))
        dv_gw_buf_give(c->loop, &c->in);
}

/* In the next turn, behind everybody else. */
static void wait_turn(struct dv_gw_conn *c)
{
    struct dv_gw_loop *l = c->loop;
    if (dv_list_empty(&c->hurried))
        dv_list_push_back(&l->hurried, &c->hurried);
    if (!l->again.pos) /* strictly later than this turn, or the loop would never come to the others */
        (void)dv_timer_set(l->loop, &l->again, dv_loop_now(l->loop) + 1);
}

/* One who sends without pause reads its share and goes on in the next turn. */
static bool has_turn(struct dv_gw_conn *c)
{
    struct dv_gw_loop *l = c->loop;
    if (c->turn_ns != dv_loop_now(l->loop)) {
        c->turn_ns = dv_loop_now(l->loop);
        c->reads_left = GW_READS_PER_TURN;
    }
    if (c->reads_left) {
        c->reads_left--;
        return true;
    }
    wait_turn(c);
    return false;
}

/* Who waited for it comes before those who have just come. */
static bool may_shake_hands(struct dv_gw_conn *c)
{
    struct dv_gw_loop *l = c->loop;
    if (l->handshakes_ns != dv_loop_now(l->loop)) {
        l->handshakes_ns = dv_loop_now(l->loop);
        l->handshakes_left = GW_HANDSHAKES_PER_TURN;
    }
    if (l->handshakes_left && (l->is_again || dv_list_empty(&l->hurried))) {
        l->handshakes_left--;
        return true;
    }
    wait_turn(c);
    return false;
}

/* True: TLS is open, what was read may be used. */
static bool shake_hands(struct dv_gw_conn *c)
{
    if (!c->readable || !may_shake_hands(c))
        return false;
    switch (dv_gw_tls_handshake(c->tls, c->io.fd)) {
    case DV_OK:
        dv_live_add(&c->loop->n.tls_handshakes, 1);
        return true;
    case DV_AGAIN:
        c->readable = false;
        return false;
    case DV_UNSUPPORTED:
        drop_tls(c);
        dv_live_add(&c->loop->n.bad_heads, 1);
        dv_gw_answer_bad_head(c, 400, "this port speaks HTTPS, and the request came without TLS");
        return false;
    default:
        linger(c); /* until the client has read the alert */
        return false;
    }
}

void dv_gw_conns_again(struct dv_gw_loop *l)
{
    struct dv_list now;
    struct dv_list *n;
    dv_list_init(&now);
    while ((n = dv_list_pop_front(&l->hurried)))
        dv_list_push_back(&now, n);
    l->is_again = true;
    while ((n = dv_list_pop_front(&now)))
        dv_gw_conn_pump(DV_LIST_ENTRY(n, struct dv_gw_conn, hurried));
    l->is_again = false;
}

void dv_gw_conn_pump(struct dv_gw_conn *c)
{
    if (c->is_feeding || c->state == GW_CONN_CLOSED)
        return;
    if (c->tls && !c->tls->is_open && !shake_hands(c))
        return;
    c->is_feeding = true;
    if (dv_buf_len(&c->in))
        feed_kept(c);
    while (c->readable && wants_input(c) && has_turn(c) && read_some(c))
        if (dv_buf_len(&c->in))
            feed_kept(c);
    c->is_feeding = false;
    if (c->state != GW_CONN_OPEN || c->req || c->close_after_out)
        return;
    /* Between requests: a head has begun, or the connection is idle. */
    bool has_begun = dv_buf_len(&c->in) > 0;
    if (!has_begun && c->loop->is_draining && !dv_buf_len(&c->out))
        close_in_order(c);
    else if (has_begun && (c->at_ns == GW_NEVER_NS || c->had_request)) {
        c->had_request = false; /* the clock of a head starts once, however slowly it drips in */
        arm_in(c, c->loop->g->cfg.head_timeout_ms * DV_MS);
    }
}

void dv_gw_conn_request_done(struct dv_gw_conn *c)
{
    assert(!c->req);
    if (c->state != GW_CONN_OPEN)
        return;
    dv_gw_conn_dirty(c);
    if (!c->keep_alive || c->loop->is_draining) {
        c->close_after_out = true;
        arm_in(c, GW_STALL_NS);
        return;
    }
    c->had_request = true;
    arm_in(c, c->loop->g->cfg.idle_timeout_ms * DV_MS);
    dv_gw_conn_pump(c);
}

static void on_conn(struct dv_io *io, uint32_t events)
{
    struct dv_gw_conn *c = DV_CONTAINER_OF(io, struct dv_gw_conn, io);
    if (events & (EPOLLHUP | EPOLLERR)) {
        dv_gw_conn_close(c);
        return;
    }
    if (c->tls && (events & EPOLLOUT))
        events |= EPOLLIN; /* its handshake may have waited for room to write */
    if (events & EPOLLRDHUP)
        c->peer_closed = true;
    if (events & (EPOLLIN | EPOLLRDHUP))
        c->readable = true;
    if ((events & EPOLLOUT) && !c->writable) {
        c->writable = true;
        if (dv_buf_len(&c->out))
            dv_gw_conn_dirty(c);
    }
    if (events & (EPOLLIN | EPOLLRDHUP))
        dv_gw_conn_pump(c);
    /* Whoever closes while its request is under way has left: nobody would read the answer. */
    if (c->peer_closed && c->state == GW_CONN_OPEN && c->req && c->req->state != GW_REQ_UPGRADED)
        dv_gw_conn_close(c);
}

/* ---- opening ---- */

static void peer_text(struct dv_gw_conn *c, const struct dv_addr *from)
{
    c->peer[0] = 0;
    if (from->sa.sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &from->in.sin_addr, c->peer, sizeof(c->peer));
    else if (from->sa.sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &from->in6.sin6_addr, c->peer, sizeof(c->peer));
}

void dv_gw_conn_accept(struct dv_gw_loop *l, int fd, const struct dv_addr *from, bool is_internal)
{
    struct dv_list *n = dv_list_pop_front(&l->free_conns);
    struct dv_gw_conn *c = n ? DV_LIST_ENTRY(n, struct dv_gw_conn, node) : dv_alloc(sizeof(*c));
    if (!c) {
        (void)close(fd);
        return;
    }
    *c = (struct dv_gw_conn){.io = {.fd = -1, .fn = on_conn},
                             .loop = l,
                             .timer.fn = on_timer,
                             .at_ns = GW_NEVER_NS,
                             .writable = true,
                             .is_internal = is_internal};
    dv_list_init(&c->dirty);
    dv_list_init(&c->hurried);
    dv_list_init(&c->node);
    if (dv_io_add(l->loop, &c->io, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, NULL)) {
        (void)close(fd);
        dv_list_push_front(&l->free_conns, &c->node);
        return;
    }
    if (!is_internal && l->keys && !(c->tls = dv_gw_tls_new(l->keys, fd))) {
        dv_io_del(l->loop, &c->io);
        (void)close(fd);
        dv_list_push_front(&l->free_conns, &c->node);
        return;
    }
    peer_text(c, from);
    dv_list_push_back(&l->conns, &c->node);
    l->n_conns++;
    dv_live_set(&l->n.connections, l->n_conns);
    dv_live_add(&l->n.accepted, 1);
    arm_in(c, l->g->cfg.head_timeout_ms * DV_MS); /* for its first head */
}

/* ---- all of them ---- */

void dv_gw_conns_drain(struct dv_gw_loop *l)
{
    DV_LIST_FOR_EACH_SAFE (it, &l->conns) {
        struct dv_gw_conn *c = DV_LIST_ENTRY(it, struct dv_gw_conn, node);
        if (!c->req && !dv_buf_len(&c->out) && !dv_buf_len(&c->in)) {
            c->readable = true; /* its request may stand in the socket already: look once */
            dv_gw_conn_pump(c);
        }
        if (c->state == GW_CONN_OPEN && c->tls && !c->tls->is_open)
            arm_in(c, GW_LINGER_NS); /* a handshake under way may end, and bring its request */
    }
}

void dv_gw_conns_free(struct dv_gw_loop *l)
{
    while (!dv_list_empty(&l->conns))
        dv_gw_conn_close(DV_LIST_ENTRY(l->conns.next, struct dv_gw_conn, node));
    reap(l);
    struct dv_list *n;
    while ((n = dv_list_pop_front(&l->free_conns)))
        dv_free(DV_LIST_ENTRY(n, struct dv_gw_conn, node));
    while ((n = dv_list_pop_front(&l->free_reqs)))
        dv_gw_req_free(DV_LIST_ENTRY(n, struct dv_gw_req, waiter.node));
    dv_defer_cancel(&l->flush);
}
