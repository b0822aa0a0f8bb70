/* One thread, one epoll, every connection a small state machine.
 *
 * Closed loop: each of the n connections sends its next request when its answer is complete.
 * Open loop: request k is due at start + k / rate whatever the answers do.  It leaves on the connection that
 * became free last; when none is free it waits, and its latency counts from when it was due.  A slow answer
 * is thus paid by everything that should have been sent meanwhile ("coordinated omission" is what is left out
 * otherwise).  For its last millisecond before the next one is due the loop looks and gives way in turn: a
 * sleep of some microseconds costs timers and wake-ups (in a virtual machine 20 us and more of processor time
 * a request), which the function beside it would pay for, and everybody's latencies would be the load's own.
 *
 * Idle connections send one request and then nothing, slow ones a byte of a request each second; both only
 * weigh on the server, their answers are not counted. */
#include "tests/bench/load_run.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/load_answer.h"

enum {
    CONNECTING_MAX = 128,
    EVENTS_MAX = 256,
    READ_BYTES = 256 * 1024,
    WRITE_BYTES = 256 * 1024,
    SHOWN_MAX = 5
};
#define SECOND_NS UINT64_C(1000000000)
#define TICK_NS   UINT64_C(10000000)

const char *const load_trouble_names[LOAD_N_TROUBLES] = {"connect",   "closed", "timeout",
                                                         "malformed", "wrong",  "unfinished"};

volatile sig_atomic_t load_is_interrupted;

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_FREE, CONN_BUSY };
enum conn_kind { CONN_LOAD, CONN_IDLE, CONN_SLOW };

struct conn {
    int fd;
    enum conn_state state;
    enum conn_kind kind;
    bool wants_write;
    uint64_t due_ns;   /* of the request under way: when it should have left */
    uint64_t since_ns; /* when the state began */
    const char *head;
    size_t head_left;
    uint64_t body_left;
    struct conn *next_free;
    struct load_answer answer;
};

struct run {
    const struct load_cfg *cfg;
    struct load_result *out;
    int epoll;
    struct conn *conns;
    unsigned n_conns, n_opened, n_connecting, n_busy, slow_cursor, n_shown;
    struct conn *free; /* connections of kind LOAD without a request, last freed first */
    uint64_t now_ns, start_ns, count_from_ns, end_ns, last_tick_ns;
    uint64_t n_due; /* open loop: requests handed out */
    uint64_t n_sent;
    bool has_started;
    bool was_refused; /* no further attempts in this tick */
};

static char filler[WRITE_BYTES];

static uint64_t clock_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static void watch(struct run *r, struct conn *c, int op, bool wants_write)
{
    struct epoll_event e = {.events = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    c->wants_write = wants_write;
    (void)epoll_ctl(r->epoll, op, c->fd, &e); /* fails on a closed descriptor only, which is a bug of ours */
}

static void trouble(struct run *r, struct conn *c, enum load_trouble what)
{
    if (c->kind == CONN_LOAD)
        r->out->n_trouble[what]++;
}

static void take_from_free(struct run *r, struct conn *c)
{
    for (struct conn **p = &r->free; *p; p = &(*p)->next_free)
        if (*p == c) {
            *p = c->next_free;
            return;
        }
}

static void conn_close(struct run *r, struct conn *c)
{
    if (c->state == CONN_CONNECTING)
        r->n_connecting--;
    if (c->state == CONN_FREE && c->kind == CONN_LOAD)
        take_from_free(r, c);
    if (c->state == CONN_BUSY && c->kind == CONN_LOAD)
        r->n_busy--;
    if (c->kind == CONN_SLOW && c->state != CONN_CONNECTING)
        r->out->n_slow_cut++;
    (void)close(c->fd);
    c->fd = -1;
    c->state = CONN_CLOSED;
}

static int conn_open(struct run *r, struct conn *c)
{
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return perror("davit-load: socket"), -1;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->state = CONN_CONNECTING;
    c->since_ns = r->now_ns;
    r->n_connecting++;
    r->out->n_connects++;
    if (connect(c->fd, (const struct sockaddr *)&r->cfg->address, sizeof(r->cfg->address)) != 0 &&
        errno != EINPROGRESS) {
        trouble(r, c, LOAD_CONNECT);
        conn_close(r, c);
        r->was_refused = true;
        return 0;
    }
    watch(r, c, EPOLL_CTL_ADD, true);
    return 0;
}

/* ---- sending */

/* False when the connection broke. */
static bool conn_flush(struct run *r, struct conn *c)
{
    while (c->head_left || c->body_left) {
        const char *from = c->head_left ? c->head : filler;
        size_t n = c->head_left                    ? c->head_left
                   : c->body_left < sizeof(filler) ? (size_t)c->body_left
                                                   : sizeof(filler);
        ssize_t sent = send(c->fd, from, n, MSG_NOSIGNAL | (c->head_left && c->body_left ? MSG_MORE : 0));
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0) {
            if (!c->wants_write)
                watch(r, c, EPOLL_CTL_MOD, true);
            return true;
        }
        r->out->bytes_out += (uint64_t)sent;
        if (c->head_left) {
            c->head += sent;
            c->head_left -= (size_t)sent;
        } else {
            c->body_left -= (uint64_t)sent;
        }
    }
    if (c->wants_write)
        watch(r, c, EPOLL_CTL_MOD, false);
    return true;
}

static void conn_broke(struct run *r, struct conn *c, enum load_trouble what)
{
    trouble(r, c, what);
    r->was_refused |= what == LOAD_CONNECT;
    conn_close(r, c);
    r->n_opened = 0; /* look for it from the front again */
}

static void conn_send(struct run *r, struct conn *c, uint64_t due_ns)
{
    c->head = r->cfg->requests[r->n_sent++ % r->cfg->n_requests];
    c->head_left = strlen(c->head);
    c->body_left = r->cfg->body_bytes;
    c->due_ns = due_ns;
    c->since_ns = r->now_ns;
    c->state = CONN_BUSY;
    if (c->kind == CONN_LOAD)
        r->n_busy++;
    load_answer_begin(&c->answer, r->cfg->is_head);
    if (c->kind != CONN_SLOW && !conn_flush(r, c))
        conn_broke(r, c, LOAD_CLOSED);
}

static bool is_over(const struct run *r)
{
    return r->cfg->count ? r->out->n_all + r->n_busy >= r->cfg->count : r->now_ns >= r->end_ns;
}

/* The connection has nothing under way: what now? */
static void conn_rest(struct run *r, struct conn *c)
{
    c->state = CONN_FREE;
    c->since_ns = r->now_ns;
    if (c->kind != CONN_LOAD)
        return;
    c->next_free = r->free;
    r->free = c;
}

static uint64_t due_at(const struct run *r, uint64_t k)
{
    return r->start_ns + (uint64_t)((double)k * 1e9 / r->cfg->rate);
}

static struct conn *free_pop(struct run *r)
{
    struct conn *c = r->free;
    if (c)
        r->free = c->next_free;
    return c;
}

/* Everything that may leave now, leaves. */
static void send_due(struct run *r)
{
    if (!r->has_started)
        return;
    if (r->cfg->rate <= 0) {
        while (r->free && !is_over(r))
            conn_send(r, free_pop(r), r->now_ns);
        return;
    }
    for (uint64_t due; r->free && (due = due_at(r, r->n_due)) <= r->now_ns && due < r->end_ns; r->n_due++)
        conn_send(r, free_pop(r), due);
}

/* ---- receiving */

/* Closed loop: what was answered while measuring, so that the rate is right however long an answer takes.
 * Open loop: what was due then, whenever its answer came. */
static bool is_counted(const struct run *r, const struct conn *c, uint64_t now_ns)
{
    if (r->cfg->rate > 0 || r->cfg->count)
        return c->due_ns >= r->count_from_ns;
    return now_ns >= r->count_from_ns && now_ns <= r->end_ns;
}

static void count_answer(struct run *r, struct conn *c)
{
    struct load_result *o = r->out;
    uint64_t now_ns = clock_ns();
    bool is_good = c->answer.status < 400;
    if (is_good && r->cfg->expected_bytes >= 0 && c->answer.n_body != (uint64_t)r->cfg->expected_bytes) {
        trouble(r, c, LOAD_WRONG);
        is_good = false;
    }
    o->n_all++;
    o->n_status[c->answer.status]++;
    if (!is_good || !is_counted(r, c, now_ns))
        return;
    o->n_counted++;
    load_hist_add(&o->latency, now_ns - c->due_ns);
}

static void conn_answered(struct run *r, struct conn *c)
{
    bool is_reusable = !c->answer.closes && c->head_left == 0 && c->body_left == 0;
    if (c->kind == CONN_LOAD) {
        count_answer(r, c);
        r->n_busy--;
    }
    conn_rest(r, c);
    if (!is_reusable || c->kind == CONN_SLOW) {
        conn_close(r, c);
        r->n_opened = 0;
    }
}

/* The first answers that should not have been, for whoever looks for the reason: as they came, on stderr. */
static void show_failure(struct run *r, const struct conn *c, const char *answer, size_t n)
{
    char when[40] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (c->answer.status < 500 || r->n_shown >= SHOWN_MAX)
        return;
    r->n_shown++;
    if (gmtime_r(&now, &utc))
        (void)strftime(when, sizeof(when), "%FT%TZ", &utc);
    (void)fprintf(stderr, "---- %s\n%.*s\n", when, (int)n, answer);
}

static void conn_read(struct run *r, struct conn *c)
{
    static char buf[READ_BYTES];
    ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (n == 0 && c->state == CONN_BUSY && load_answer_end(&c->answer)) {
            c->answer.closes = true;
            conn_answered(r, c);
        } else if (c->state == CONN_BUSY) {
            conn_broke(r, c, LOAD_CLOSED);
        } else { /* kept alive long enough: the server's right */
            conn_close(r, c);
            r->n_opened = 0;
        }
        return;
    }
    r->out->bytes_in += (uint64_t)n;
    if (c->state != CONN_BUSY || load_answer_feed(&c->answer, buf, (size_t)n) != n)
        conn_broke(r, c, LOAD_MALFORMED);
    else if (c->answer.state == LOAD_ANSWER_DONE) {
        show_failure(r, c, buf, (size_t)n);
        conn_answered(r, c);
    }
}

static void conn_connected(struct run *r, struct conn *c)
{
    int error = 0;
    socklen_t n = sizeof(error);
    (void)getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) {
        conn_broke(r, c, LOAD_CONNECT);
        return;
    }
    r->n_connecting--;
    watch(r, c, EPOLL_CTL_MOD, false);
    conn_rest(r, c);
    if (c->kind != CONN_LOAD)
        conn_send(r, c, r->now_ns);
}

static void on_event(struct run *r, struct conn *c, uint32_t events)
{
    if (c->fd < 0) /* closed earlier in this turn */
        return;
    if (c->state == CONN_CONNECTING) {
        conn_connected(r, c);
        return;
    }
    if ((events & EPOLLOUT) && c->state == CONN_BUSY && c->kind != CONN_SLOW && !conn_flush(r, c)) {
        conn_broke(r, c, LOAD_CLOSED);
        return;
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        conn_read(r, c);
}

/* ---- time */

/* Open what is closed, a few at a time: a listener's queue is short. */
static int open_some(struct run *r)
{
    for (; r->n_opened < r->n_conns && r->n_connecting < CONNECTING_MAX && !r->was_refused; r->n_opened++)
        if (r->conns[r->n_opened].state == CONN_CLOSED && conn_open(r, &r->conns[r->n_opened]))
            return -1;
    return 0;
}

static void slow_byte(struct run *r, struct conn *c)
{
    if (c->state != CONN_BUSY || c->head_left <= 4) /* never its empty line: the request does not end */
        return;
    if (send(c->fd, c->head, 1, MSG_NOSIGNAL) == 1) {
        c->head++;
        c->head_left--;
        r->out->bytes_out++;
    } else if (errno != EAGAIN) {
        conn_broke(r, c, LOAD_CLOSED);
    }
}

/* Of the slow connections a hundredth each 10 ms; and what takes too long ends. */
static void tick(struct run *r)
{
    unsigned first = r->cfg->n_connections + r->cfg->n_idle;
    for (unsigned n = r->cfg->n_slow / 100 + 1; r->cfg->n_slow && n > 0; n--)
        slow_byte(r, &r->conns[first + r->slow_cursor++ % r->cfg->n_slow]);
    for (unsigned i = 0; i < r->cfg->n_connections; i++) {
        struct conn *c = &r->conns[i];
        if (r->now_ns - c->since_ns < r->cfg->timeout_ns)
            continue;
        if (c->state == CONN_BUSY)
            conn_broke(r, c, LOAD_TIMEOUT);
        else if (c->state == CONN_CONNECTING)
            conn_broke(r, c, LOAD_CONNECT);
    }
    if (r->was_refused)
        r->n_opened = 0;
    r->was_refused = false;
    r->last_tick_ns = r->now_ns;
}

static bool is_everything_open(const struct run *r)
{
    unsigned idle_open = 0;
    for (unsigned i = 0; i < r->n_conns; i++) {
        const struct conn *c = &r->conns[i];
        if (c->state == CONN_CLOSED || c->state == CONN_CONNECTING)
            return false;
        idle_open += c->kind == CONN_IDLE && c->state == CONN_FREE;
    }
    return idle_open == r->cfg->n_idle;
}

static void start_if_ready(struct run *r, uint64_t begin_ns)
{
    if (r->has_started || (!is_everything_open(r) && r->now_ns - begin_ns < r->cfg->timeout_ns))
        return;
    r->has_started = true;
    r->start_ns = r->now_ns;
    r->count_from_ns = r->now_ns + r->cfg->warmup_ns;
    r->end_ns = r->count_from_ns + r->cfg->duration_ns;
}

/* Sleep through whole milliseconds, then look. */
static int wait_until(struct run *r, uint64_t until_ns, struct epoll_event *events)
{
    uint64_t wait_ns = until_ns > r->now_ns ? until_ns - r->now_ns : 0;
    int n = epoll_wait(r->epoll, events, EVENTS_MAX, (int)(wait_ns / 1000000));
    while (!n && clock_ns() < until_ns) {
        (void)sched_yield();
        n = epoll_wait(r->epoll, events, EVENTS_MAX, 0);
    }
    return n;
}

static void wait_events(struct run *r)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t until_ns = r->now_ns + TICK_NS;
    if (r->has_started && r->cfg->rate > 0 && r->free && due_at(r, r->n_due) < until_ns)
        until_ns = due_at(r, r->n_due);
    int n = wait_until(r, until_ns, events);
    r->now_ns = clock_ns();
    for (int i = 0; i < n; i++) {
        on_event(r, events[i].data.ptr, events[i].events);
        send_due(r);
    }
}

/* Over, and nothing under way; or a second (at most the timeout) after the end. */
static bool is_done(const struct run *r)
{
    if (!r->has_started)
        return false;
    if (r->cfg->count)
        return r->out->n_all >= r->cfg->count || (r->n_busy == 0 && r->now_ns >= r->end_ns);
    if (r->now_ns < r->end_ns)
        return false;
    bool all_sent = r->cfg->rate <= 0 || due_at(r, r->n_due) >= r->end_ns;
    return (all_sent && r->n_busy == 0) || r->now_ns >= r->end_ns + r->cfg->timeout_ns;
}

static int loop(struct run *r)
{
    uint64_t begin_ns = r->now_ns = clock_ns();
    while (!is_done(r) && !load_is_interrupted) {
        if (open_some(r))
            return -1;
        wait_events(r);
        start_if_ready(r, begin_ns);
        send_due(r);
        if (r->now_ns - r->last_tick_ns >= TICK_NS)
            tick(r);
    }
    return 0;
}

static void sum_up(struct run *r)
{
    struct load_result *o = r->out;
    for (unsigned i = 0; i < r->n_conns; i++)
        o->n_idle_open += r->conns[i].kind == CONN_IDLE && r->conns[i].state == CONN_FREE;
    uint64_t until_ns = r->cfg->count || r->now_ns < r->end_ns ? r->now_ns : r->end_ns;
    o->seconds = until_ns > r->count_from_ns ? (double)(until_ns - r->count_from_ns) / 1e9 : 0;
    if (load_is_interrupted) /* what is missing is nobody's fault */
        return;
    o->n_trouble[LOAD_UNFINISHED] += r->n_busy;
    for (; r->cfg->rate > 0 && !r->cfg->count && due_at(r, r->n_due) < r->end_ns; r->n_due++)
        o->n_trouble[LOAD_UNFINISHED]++;
}

int load_run(const struct load_cfg *cfg, struct load_result *out)
{
    memset(filler, 'x', sizeof(filler));
    struct run r = {.cfg = cfg, .out = out, .n_conns = cfg->n_connections + cfg->n_idle + cfg->n_slow};
    r.epoll = epoll_create1(EPOLL_CLOEXEC);
    r.conns = calloc(r.n_conns, sizeof(*r.conns));
    if (r.epoll < 0 || !r.conns) {
        perror("davit-load");
        free(r.conns);
        return -1;
    }
    for (unsigned i = 0; i < r.n_conns; i++)
        r.conns[i] = (struct conn){.fd = -1,
                                   .kind = i < cfg->n_connections                 ? CONN_LOAD
                                           : i < cfg->n_connections + cfg->n_idle ? CONN_IDLE
                                                                                  : CONN_SLOW};
    int rc = loop(&r);
    sum_up(&r);
    for (unsigned i = 0; i < r.n_conns; i++)
        if (r.conns[i].fd >= 0)
            (void)close(r.conns[i].fd);
    free(r.conns);
    (void)close(r.epoll);
    return rc;
}
