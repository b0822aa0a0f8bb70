/* A function in C: a small HTTP/1.1 server on $PORT, static, alone in its image.
 *
 *   GET  /            "Hello from Davit!" and which replica it was
 *   POST /            "Hello, BODY!"
 *   ?ms=50            answer 50 ms later (waiting, as for a database)
 *   ?work=50          answer after 50 ms of computing
 *
 * One thread per connection; connections are kept alive, as the platform expects.  SIGTERM ends it at once:
 * by then the platform has stopped sending requests and waited for those inside. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 32 * 1024, BODY_SHOWN = 256 };

struct conn {
    int fd;
    size_t have; /* bytes in buf */
    char buf[HEAD_MAX + 1];
};

static bool more(struct conn *c)
{
    ssize_t n = c->have < HEAD_MAX ? read(c->fd, c->buf + c->have, HEAD_MAX - c->have) : 0;
    if (n <= 0)
        return false;
    c->have += (size_t)n;
    c->buf[c->have] = 0;
    return true;
}

static void drop(struct conn *c, size_t n)
{
    c->have -= n;
    memmove(c->buf, c->buf + n, c->have + 1);
}

/* Take n body bytes; the first of them are kept in shown. */
static bool take_body(struct conn *c, size_t n, char *shown, size_t *n_shown)
{
    while (n > 0) {
        if (c->have == 0 && !more(c))
            return false;
        size_t now = n < c->have ? n : c->have;
        size_t keep = now < BODY_SHOWN - *n_shown ? now : BODY_SHOWN - *n_shown;
        memcpy(shown + *n_shown, c->buf, keep);
        *n_shown += keep;
        drop(c, now);
        n -= now;
    }
    return true;
}

/* The line up to CRLF, NUL-terminated in place; its length with the CRLF. */
static size_t take_line(struct conn *c)
{
    char *end;
    while (!(end = strstr(c->buf, "\r\n")))
        if (!more(c))
            return 0;
    *end = 0;
    return (size_t)(end - c->buf) + 2;
}

static bool take_chunks(struct conn *c, char *shown, size_t *n_shown)
{
    for (;;) {
        size_t line = take_line(c);
        if (!line)
            return false;
        size_t n = strtoul(c->buf, NULL, 16);
        drop(c, line);
        if (n == 0)
            break;
        if (!take_body(c, n, shown, n_shown) || !(line = take_line(c)))
            return false;
        drop(c, line);
    }
    for (size_t line = take_line(c); line; line = take_line(c)) { /* trailers, up to the empty line */
        drop(c, line);
        if (line == 2)
            return true;
    }
    return false;
}

/* Value of a header field in the head; NULL when absent. */
static const char *field(const char *head, const char *name)
{
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, strlen(name)) == 0 && line[2 + strlen(name)] == ':')
            return line + 3 + strlen(name) + strspn(line + 3 + strlen(name), " \t");
    return NULL;
}

static long query(const char *target, const char *name)
{
    for (const char *p = strpbrk(target, "?&"); p; p = strpbrk(p + 1, "&"))
        if (strncmp(p + 1, name, strlen(name)) == 0 && p[1 + strlen(name)] == '=')
            return strtol(p + 2 + strlen(name), NULL, 10);
    return 0;
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void spend(long wait_ms, long work_ms)
{
    if (wait_ms > 0)
        (void)nanosleep(&(struct timespec){wait_ms / 1000, wait_ms % 1000 * 1000000}, NULL);
    for (double end = seconds() + (double)work_ms / 1e3; work_ms > 0 && seconds() < end;)
        ;
}

static bool answer(struct conn *c, bool is_head, const char *shown, size_t n_shown)
{
    char host[64] = "", body[BODY_SHOWN + 128], out[sizeof(body) + 256];
    (void)gethostname(host, sizeof(host) - 1);
    int n = n_shown ? snprintf(body, sizeof(body), "Hello, %.*s!\n", (int)n_shown, shown)
                    : snprintf(body, sizeof(body), "Hello from Davit! This is replica %s.\n", host);
    int all = snprintf(out, sizeof(out),
                       "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", n,
                       is_head ? "" : body);
    return write(c->fd, out, (size_t)all) == all;
}

/* One request; false when the connection is done. */
static bool serve_one(struct conn *c)
{
    char *end, shown[BODY_SHOWN];
    size_t n_shown = 0;
    while (!(end = strstr(c->buf, "\r\n\r\n")))
        if (!more(c))
            return false;
    *end = 0;
    const char *length = field(c->buf, "Content-Length"), *coding = field(c->buf, "Transfer-Encoding");
    const char *connection = field(c->buf, "Connection"), *expect = field(c->buf, "Expect");
    bool close_after = connection && strncasecmp(connection, "close", 5) == 0;
    bool is_head = strncmp(c->buf, "HEAD ", 5) == 0;
    size_t n_body = length ? strtoul(length, NULL, 10) : 0;
    char *line_end = strchr(c->buf, '\r');
    if (line_end)
        *line_end = 0; /* only the request line from here on */
    long wait_ms = query(c->buf, "ms"), work_ms = query(c->buf, "work");
    drop(c, (size_t)(end - c->buf) + 4);
    if (expect && write(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25) != 25)
        return false;
    if (!(coding ? take_chunks(c, shown, &n_shown) : take_body(c, n_body, shown, &n_shown)))
        return false;
    spend(wait_ms, work_ms);
    return answer(c, is_head, shown, n_shown) && !close_after;
}

static void *serve(void *arg)
{
    struct conn *c = arg;
    while (serve_one(c))
        ;
    (void)close(c->fd);
    free(c);
    return NULL;
}

static void on_term(int signal)
{
    (void)signal;
    _exit(0);
}

static int listen_on(int port)
{
    int on = 1, off = 0, fd = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons((unsigned short)port)};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd >= 0 && bind(fd, (struct sockaddr *)&any6, sizeof(any6)) == 0 && listen(fd, 1024) == 0)
        return fd;
    (void)close(fd); /* no IPv6 here */
    fd = socket(AF_INET, SOCK_STREAM, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    return fd >= 0 && bind(fd, (struct sockaddr *)&any4, sizeof(any4)) == 0 && listen(fd, 1024) == 0 ? fd
                                                                                                     : -1;
}

int main(void)
{
    const char *port = getenv("PORT");
    pthread_attr_t small;
    (void)signal(SIGTERM, on_term); /* process 1 has no default action */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)pthread_attr_init(&small);
    (void)pthread_attr_setstacksize(&small, 128 * 1024);
    (void)pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    int fd = listen_on(port ? (int)strtol(port, NULL, 10) : 8080);
    if (fd < 0) {
        perror("hello: cannot listen");
        return 1;
    }
    printf("hello: listening on %s\n", port ? port : "8080");
    (void)fflush(stdout);
    for (;;) {
        pthread_t thread;
        int on = 1, client = accept(fd, NULL, NULL);
        struct conn *c = client < 0 ? NULL : calloc(1, sizeof(*c));
        if (c) {
            c->fd = client;
            (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        }
        if (c && pthread_create(&thread, &small, serve, c) != 0) {
            (void)close(client);
            free(c);
        }
    }
}
