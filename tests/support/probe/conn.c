/* One connection: a request at a time, its body handed to the behaviour piece by piece, the answer from a
 * buffer.
 *
 * Input and answer go their own ways (an answer may begin, and end, before the body has come); the next
 * request is looked at when both are complete and everything is written. */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- life ---- */

struct conn *conn_new(int fd)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->fd = fd;
    c->number = ++seen.n_conns;
    return c;
}

void conn_free(struct conn *c)
{
    (void)close(c->fd);
    free(c->head);
    free(c->target);
    free(c->out);
    free(c);
}

/* Between requests everything is as in a new connection, but for what has been read already. */
static void forget_request(struct conn *c)
{
    free(c->head);
    free(c->target);
    c->head = c->target = NULL;
    c->does = NULL;
    c->input = IN_HEAD;
    c->is_head = c->is_chunked = c->is_http10 = c->is_deaf = c->is_answered = c->shut_after = false;
    c->left = c->n_body = c->to_send = c->step = c->steps = c->pause_ms = c->due_ms = 0;
    c->n_trailers = 0;
    c->sum = 2166136261u;
}

/* ---- questions ---- */

size_t conn_unsent(const struct conn *c)
{
    return c->n_out - c->at_out;
}

bool conn_wants_input(const struct conn *c)
{
    return c->input != IN_DONE && !c->is_deaf && c->n_in < IN_BYTES && conn_unsent(c) < OUT_ENOUGH;
}

bool field(const struct conn *c, const char *name, char *buf, size_t cap)
{
    size_t n = strlen(name);
    for (const char *line = strstr(c->head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) != 0 || line[2 + n] != ':')
            continue;
        const char *value = line + 3 + n + strspn(line + 3 + n, " \t");
        (void)snprintf(buf, cap, "%.*s", (int)strcspn(value, "\r"), value);
        return true;
    }
    return false;
}

uint64_t query(const struct conn *c, const char *name, uint64_t otherwise)
{
    size_t n = strlen(name);
    for (const char *p = strchr(c->target, '?'); p; p = strchr(p + 1, '&'))
        if (strncmp(p + 1, name, n) == 0 && p[1 + n] == '=')
            return strtoull(p + 2 + n, NULL, 10);
    return otherwise;
}

/* ---- output ---- */

void say(struct conn *c, const void *p, size_t n)
{
    if (c->at_out == c->n_out)
        c->at_out = c->n_out = 0;
    if (c->n_out + n > c->cap_out) {
        size_t cap = 2 * (c->n_out + n);
        char *grown = realloc(c->out, cap);
        if (!grown)
            abort(); /* a test function: the test sees it */
        c->out = grown;
        c->cap_out = cap;
    }
    memcpy(c->out + c->n_out, p, n);
    c->n_out += n;
}

void sayf(struct conn *c, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    say(c, text, n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

void start_answer(struct conn *c, int status)
{
    sayf(c, "HTTP/1.1 %d As Asked\r\nX-Probe-Connection: %u\r\nX-Probe-Request: %u\r\n", status, c->number,
         c->n_requests);
}

void answer(struct conn *c, int status, const char *fields, const char *body, size_t n)
{
    start_answer(c, status);
    sayf(c, "%sContent-Length: %zu\r\n\r\n", fields, n);
    if (!c->is_head)
        say(c, body, n);
    end_answer(c);
}

void answerf(struct conn *c, int status, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    answer(c, status, "Content-Type: text/plain\r\n", text, n < 0 ? 0 : strlen(text));
}

void chunk(struct conn *c, const void *p, size_t n)
{
    sayf(c, "%zx\r\n", n);
    say(c, p, n);
    say(c, "\r\n", 2);
}

void end_answer(struct conn *c)
{
    c->is_answered = true;
}

/* ---- input ---- */

static void bad_request(struct conn *c, const char *what)
{
    answerf(c, 400, "the probe was sent %s\n", what);
    c->close_after = true;
    c->input = IN_DONE;
}

static void take(struct conn *c, size_t n)
{
    c->n_in -= n;
    memmove(c->in, c->in + n, c->n_in);
    c->in[c->n_in] = 0;
}

/* Length of the line at the front with its CRLF; 0 when it is not whole. */
static size_t line_length(const struct conn *c)
{
    const char *end = memmem(c->in, c->n_in, "\r\n", 2);
    return end ? (size_t)(end - c->in) + 2 : 0;
}

static void body_over(struct conn *c)
{
    c->input = IN_DONE;
    if (c->does->on_end)
        c->does->on_end(c);
}

static void find_framing(struct conn *c)
{
    char text[64];
    if (field(c, "Transfer-Encoding", text, sizeof(text))) {
        c->is_chunked = true;
        c->input = IN_CHUNK_SIZE;
    } else if (field(c, "Content-Length", text, sizeof(text)) && (c->left = strtoull(text, NULL, 10)) > 0) {
        c->input = IN_LENGTH;
    } else {
        c->input = IN_DONE;
    }
}

static bool take_head(struct conn *c)
{
    const char *end = memmem(c->in, c->n_in, "\r\n\r\n", 4);
    if (!end)
        return false;
    size_t n = (size_t)(end - c->in) + 4;
    char connection[64];
    forget_request(c);
    c->head = strndup(c->in, n);
    take(c, n);
    const char *from = strchr(c->head, ' '), *to = from ? strchr(from + 1, ' ') : NULL;
    if (!to || strncmp(to, " HTTP/1.", 8) != 0) {
        c->target = strdup("/");
        bad_request(c, "no request line");
        return true;
    }
    c->target = strndup(from + 1, (size_t)(to - from) - 1);
    c->is_head = strncmp(c->head, "HEAD ", 5) == 0;
    c->is_http10 = to[8] == '0';
    c->close_after = c->is_http10 || (field(c, "Connection", connection, sizeof(connection)) &&
                                      strcasecmp(connection, "close") == 0);
    c->n_requests++;
    seen.n_requests++;
    seen.n_again += c->is_last;
    find_framing(c);
    c->does = behaviour_of(c->target);
    bool is_whole = c->input == IN_DONE;
    c->does->on_head(c);
    if (is_whole && c->input == IN_DONE)
        body_over(c);
    return true;
}

static bool take_bytes(struct conn *c)
{
    size_t n = c->input == IN_RAW || c->left > c->n_in ? c->n_in : (size_t)c->left;
    if (!n)
        return false;
    for (size_t i = 0; i < n; i++)
        c->sum = (c->sum ^ (unsigned char)c->in[i]) * 16777619u;
    c->n_body += n;
    if (c->does->on_body)
        c->does->on_body(c, c->in, n);
    if (c->input == IN_RAW) {
        size_t kept = c->kept;
        c->kept = 0;
        take(c, n - kept);
        return kept < n;
    }
    take(c, n);
    c->left -= n;
    if (c->left)
        return true;
    if (c->input == IN_LENGTH)
        body_over(c);
    else
        c->input = IN_CHUNK_END;
    return true;
}

static bool take_chunk_line(struct conn *c)
{
    size_t n = line_length(c);
    if (!n)
        return false;
    if (c->input == IN_CHUNK_END) {
        if (n != 2)
            bad_request(c, "a chunk that is longer than it said");
        else
            c->input = IN_CHUNK_SIZE;
    } else {
        char *end;
        c->left = strtoull(c->in, &end, 16);
        if (end == c->in || *end != '\r')
            bad_request(c, "a chunk size that is none");
        else
            c->input = c->left ? IN_CHUNK_DATA : IN_TRAILERS;
    }
    take(c, n);
    return true;
}

static bool take_trailer(struct conn *c)
{
    size_t n = line_length(c);
    if (!n)
        return false;
    if (n > 2 && c->n_trailers + n < TRAILER_BYTES) {
        memcpy(c->trailers + c->n_trailers, c->in, n);
        c->n_trailers += n;
    }
    take(c, n);
    if (n == 2)
        body_over(c);
    return true;
}

static bool step(struct conn *c)
{
    switch (c->input) {
    case IN_HEAD:
        return take_head(c);
    case IN_LENGTH:
    case IN_CHUNK_DATA:
    case IN_RAW:
        return take_bytes(c);
    case IN_CHUNK_SIZE:
    case IN_CHUNK_END:
        return take_chunk_line(c);
    case IN_TRAILERS:
        return take_trailer(c);
    case IN_DONE:
        break;
    }
    return false;
}

/* Everything that can be done with what has been read, and the ends of things.  False: close. */
static bool go_on(struct conn *c)
{
    for (;;) {
        while (c->n_in && !c->is_deaf && conn_unsent(c) < OUT_ENOUGH && step(c))
            ;
        if (c->does && c->does->on_room && !c->is_answered && conn_unsent(c) < OUT_ENOUGH)
            c->does->on_room(c);
        if (!c->is_answered || conn_unsent(c))
            return true;
        if (c->close_after)
            return false;
        if (c->shut_after)
            (void)shutdown(c->fd, SHUT_WR);
        c->shut_after = false;
        if (c->input != IN_DONE)
            return true;
        forget_request(c);
        if (!c->n_in)
            return true;
    }
}

bool conn_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->n_in, IN_BYTES - c->n_in, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    c->n_in += (size_t)n;
    c->in[c->n_in] = 0;
    return go_on(c) && conn_writable(c);
}

bool conn_writable(struct conn *c)
{
    while (conn_unsent(c)) {
        ssize_t n = send(c->fd, c->out + c->at_out, conn_unsent(c), MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        c->at_out += (size_t)n;
        if (conn_unsent(c) < OUT_ENOUGH && !go_on(c))
            return false;
    }
    return go_on(c);
}

bool conn_due(struct conn *c)
{
    c->due_ms = 0;
    if (c->does && c->does->on_due)
        c->does->on_due(c);
    return go_on(c) && conn_writable(c);
}
