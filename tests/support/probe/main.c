/* davit-probe: a function that behaves on demand, well and badly, so that tests can see what becomes of it on
 * its way through gateway and agent.  One thread, poll; static and alone in its image; listens on $PORT.
 *
 *   conn.c       a connection: requests in (a parser of its own, that the product's can be held against),
 * bytes out behave.c     what each path does websocket.c  as much of RFC 6455 as an echo needs */
#define _GNU_SOURCE
#include "probe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNS = 1024 };

struct seen seen;

static struct conn *conns[MAX_CONNS];
static size_t n_conns;

uint64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void on_term(int signo)
{
    (void)signo;
    _exit(0);
}

static int listen_on(uint16_t port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0 && listen(fd, 512) == 0)
        return fd;
    perror("probe: cannot listen");
    exit(1);
}

static void take_connection(int listener)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c = fd >= 0 && n_conns < MAX_CONNS ? conn_new(fd) : NULL;
    if (!c) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    conns[n_conns++] = c;
}

static short events_of(const struct conn *c)
{
    return (short)(POLLRDHUP | (conn_wants_input(c) ? POLLIN : 0) | (conn_unsent(c) ? POLLOUT : 0));
}

static int time_to_wait(uint64_t now)
{
    int wait = -1;
    for (size_t i = 0; i < n_conns; i++) {
        uint64_t due = conns[i]->due_ms;
        int left = !due ? -1 : due <= now ? 0 : (int)(due - now);
        if (left >= 0 && (wait < 0 || left < wait))
            wait = left;
    }
    return wait;
}

/* Whoever hangs up is looked at by reading, where reading is wanted; otherwise it has left its request. */
static bool serve(struct conn *c, short events)
{
    if (events & POLLOUT && !conn_writable(c))
        return false;
    if (events & POLLIN && conn_wants_input(c))
        return conn_readable(c);
    if (events & (POLLRDHUP | POLLHUP | POLLERR))
        return conn_wants_input(c) && !(events & (POLLHUP | POLLERR)) ? conn_readable(c) : false;
    return !c->due_ms || c->due_ms > now_ms() || conn_due(c);
}

static void drop(size_t i)
{
    bool is_under_way = conns[i]->does && !(conns[i]->is_answered && !conn_unsent(conns[i]));
    if (is_under_way && !conns[i]->close_after)
        seen.n_cut++;
    conn_free(conns[i]);
    conns[i] = conns[--n_conns];
}

static void turn(int listener)
{
    static struct pollfd polled[MAX_CONNS + 1];
    size_t n = n_conns;
    polled[n] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (size_t i = 0; i < n; i++)
        polled[i] = (struct pollfd){.fd = conns[i]->fd, .events = events_of(conns[i])};
    if (poll(polled, n + 1, time_to_wait(now_ms())) < 0)
        return;
    bool has_news = polled[n].revents & POLLIN;
    for (size_t i = n; i-- > 0;) /* from behind: the last one takes the place of one that is dropped */
        if (!serve(conns[i], polled[i].revents))
            drop(i);
    if (has_news)
        take_connection(listener);
}

int main(void)
{
    const char *port = getenv("PORT");
    (void)signal(SIGTERM, on_term); /* process 1 has no default action */
    (void)signal(SIGPIPE, SIG_IGN);
    int listener = listen_on((uint16_t)(port ? strtoul(port, NULL, 10) : 8080));
    for (;;)
        turn(listener);
}
