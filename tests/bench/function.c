/* The function that is measured: as little work as a function can be, so that the path in front of it shows.
 * Static, alone in its image, one thread, HTTP/1.1 on $PORT with connections kept alive.
 *
 *     GET  /                     13 bytes
 *     GET  /?bytes=N             N bytes, length known
 *     GET  /?bytes=N&chunk=C     N bytes in chunks of C, length unknown
 *     POST /                     takes the body, answers how many bytes it had
 *
 * It trusts its caller as far as a benchmark may: heads fit its buffer, requests are not pipelined. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUF_BYTES = 256 * 1024, HEAD_BYTES = 16 * 1024, EVENTS_MAX = 256 };

struct conn {
    int fd;
    bool is_in_body, is_chunked_in, is_chunk_start;
    unsigned long long in_left, in_total; /* of the request's body */
    unsigned long long out_left;          /* of the answer's body */
    unsigned long chunk, frame_at, frame_bytes;
    bool wants_write;
    size_t have;
    char head[HEAD_BYTES + 1];
};

static char in[BUF_BYTES], *frame; /* frame: one chunk with its size line and end, or plain bytes */
static unsigned long frame_chunk, frame_size;
static int epoll;

static void end_conn(struct conn *c)
{
    (void)close(c->fd);
    free(c);
}

static void want_write(struct conn *c, bool on)
{
    struct epoll_event e = {.events = EPOLLIN | (on ? (unsigned)EPOLLOUT : 0), .data.ptr = c};
    if (c->wants_write != on)
        (void)epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
    c->wants_write = on;
}

static unsigned long long query(const char *target, const char *name)
{
    const char *end = strchr(target, ' ');
    for (const char *p = strpbrk(target, "?&"); p && p < end; p = strpbrk(p + 1, "?&"))
        if (strncmp(p + 1, name, strlen(name)) == 0 && p[1 + strlen(name)] == '=')
            return strtoull(p + 2 + strlen(name), NULL, 10);
    return 0;
}

static const char *field(const char *head, const char *name)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, strlen(name)) == 0 && line[2 + strlen(name)] == ':')
            return line + 3 + strlen(name) + strspn(line + 3 + strlen(name), " \t");
    return NULL;
}

/* All chunks of an answer look alike: made once per size, sent as often as needed. */
static void make_frame(unsigned long chunk)
{
    if (frame && frame_chunk == chunk)
        return;
    free(frame);
    frame = calloc(1, (chunk ? chunk : BUF_BYTES) + 64);
    if (!frame)
        abort();
    frame_chunk = chunk;
    if (!chunk) {
        frame_size = BUF_BYTES;
        return;
    }
    frame_size = (unsigned long)sprintf(frame, "%lx\r\n", chunk) + chunk;
    memcpy(frame + frame_size, "\r\n", 2);
    frame_size += 2;
}

static bool send_all(int fd, const char *data, size_t n)
{
    return send(fd, data, n, MSG_NOSIGNAL) == (ssize_t)n; /* short answers always fit the socket */
}

/* More of a long answer, as far as the socket takes it; false when the connection is broken. */
static bool pump(struct conn *c)
{
    make_frame(c->chunk);
    while (c->out_left) {
        unsigned long n = c->chunk                   ? frame_size - c->frame_at
                          : c->out_left < frame_size ? c->out_left
                                                     : frame_size;
        ssize_t sent = send(c->fd, frame + c->frame_at, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            want_write(c, true);
            return true;
        }
        if (sent < 0)
            return false;
        if (!c->chunk) {
            c->out_left -= (unsigned long long)sent;
            continue;
        }
        c->frame_at += (unsigned long)sent;
        if (c->frame_at == frame_size) {
            c->frame_at = 0;
            c->out_left -= c->chunk;
        }
    }
    want_write(c, false);
    return !c->chunk || send_all(c->fd, "0\r\n\r\n", 5);
}

static bool answer_long(struct conn *c, unsigned long long bytes, unsigned long chunk)
{
    char out[160];
    c->chunk = chunk;
    c->frame_at = 0;
    c->out_left = chunk ? (bytes + chunk - 1) / chunk * chunk : bytes;
    int n = chunk
                ? sprintf(out,
                          "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
                : sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %llu\r\n\r\n",
                          bytes);
    return send_all(c->fd, out, (size_t)n) && pump(c);
}

static bool answer_body(struct conn *c)
{
    char out[192], body[48];
    int n_body = sprintf(body, "%llu\n", c->in_total);
    int n = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
                    n_body, body);
    c->is_in_body = false;
    return send_all(c->fd, out, (size_t)n);
}

/* Chunked bodies are counted with their framing and end at the last chunk's line. */
static bool take_body(struct conn *c, const char *data, size_t n)
{
    c->in_total += n;
    if (c->is_chunked_in)
        return n < 5 || memcmp(data + n - 5, "0\r\n\r\n", 5) != 0 || answer_body(c);
    c->in_left -= n < c->in_left ? n : c->in_left;
    return c->in_left > 0 || answer_body(c);
}

static bool serve(struct conn *c, char *end)
{
    static const char hello[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, Davit\n";
    *end = 0;
    size_t body = c->have - (size_t)(end + 4 - c->head);
    if (strncmp(c->head, "GET ", 4) == 0) {
        unsigned long long bytes = query(c->head + 4, "bytes");
        c->have = 0;
        return bytes ? answer_long(c, bytes, (unsigned long)query(c->head + 4, "chunk"))
                     : send_all(c->fd, hello, sizeof(hello) - 1);
    }
    const char *length = field(c->head, "Content-Length"), *expect = field(c->head, "Expect");
    c->is_chunked_in = field(c->head, "Transfer-Encoding") != NULL;
    c->in_left = length ? strtoull(length, NULL, 10) : 0;
    c->in_total = c->have = 0;
    c->is_in_body = true;
    if (expect && !send_all(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return false;
    return take_body(c, end + 4, body);
}

static bool on_readable(struct conn *c)
{
    ssize_t n = c->is_in_body ? recv(c->fd, in, sizeof(in), 0)
                              : recv(c->fd, c->head + c->have, HEAD_BYTES - c->have, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    if (c->is_in_body)
        return take_body(c, in, (size_t)n);
    c->have += (size_t)n;
    c->head[c->have] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    return end ? serve(c, end) : c->have < HEAD_BYTES;
}

static void on_connection(int listener)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    struct conn *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (!c) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    c->fd = fd;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static void on_term(int signal)
{
    (void)signal;
    _exit(0);
}

int main(void)
{
    const char *port = getenv("PORT");
    struct sockaddr_in any = {.sin_family = AF_INET,
                              .sin_port = htons(port ? (unsigned short)strtoul(port, NULL, 10) : 8080)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct epoll_event e = {.events = EPOLLIN}, events[EVENTS_MAX];
    (void)signal(SIGTERM, on_term); /* process 1 has no default action */
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    epoll = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 4096) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e)) {
        perror("function: cannot listen");
        return 1;
    }
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c)
                on_connection(listener);
            else if (!((events[i].events & EPOLLOUT) && c->out_left ? pump(c) : on_readable(c)))
                end_conn(c);
        }
    }
}
