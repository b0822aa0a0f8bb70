/* What each path does.
 *
 *   /echo                body back as it comes, framed as it came; trailers too
 *   /sum                 {"bytes":N,"sum":FNV-1a} of the body
 *   /headers             the head as the probe saw it
 *   /status/N            status N, a line of text
 *   /204  /304           without a body; 304 tells a length and an ETag
 *   /head                12345 bytes; what a HEAD of it says must not depend on their being sent
 *   /cookies             three Set-Cookie fields
 *   /chunked?n=5         n chunks of growing size;  ?ext=1 with chunk extensions
 *   /trailers            the request's trailers as a chunked body, and trailers of its own
 *   /sse?n=3&ms=100      server-sent events, a pause between them          /ndjson the same, lines of JSON
 *   /close?minor=1       no length: the end of the connection is the end of the body
 *   /100                 103 Early Hints, 100 Continue, then 200 when the body is in
 *   /early?keep=0        413 before the body is read, and closes;  ?keep=1 reads it all the same and stays
 *   /big?bytes=N&framing=0   N bytes;  framing 0: length, 1: chunked, 2: until close
 *   /slow-read?ms=500    reads nothing of the body for that time, then answers as /sum does
 *   /sleep?ms=500        answers that much later
 *   /half-close?cork=1   a whole answer that promises keep-alive, and closes its direction;  cork: in one
 * segment /break?after=0       promises more than the `after` bytes it sends, and closes /garbage bytes that
 * are no HTTP /say?close=0&last=0  the request's body is the answer, byte by byte;  last: no request may
 * follow, see /seen /ws  /upgrade        101; WebSocket echo when a key was sent, otherwise every byte back
 *   /exit                the process ends
 *   /seen                {"connections":..,"requests":..,"cut":..,"again":..} so far, this one included */
#define _GNU_SOURCE
#include "probe.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNKED_HEAD = 1, UNTIL_CLOSE = 2, BIG_PIECE = 16 * 1024, HEAD_BYTES = 12345, PROBE_EXIT_CODE = 7 };

static void later(struct conn *c, uint64_t ms)
{
    c->due_ms = now_ms() + (ms ? ms : 1);
}

static void start_chunked(struct conn *c, const char *fields)
{
    start_answer(c, 200);
    sayf(c, "%sTransfer-Encoding: chunked\r\n\r\n", fields);
}

static void nothing(struct conn *c)
{
    (void)c;
}

/* ---- bodies back and counted ---- */

static void echo_head(struct conn *c)
{
    start_answer(c, 200);
    if (c->is_chunked)
        sayf(c, "Transfer-Encoding: chunked\r\n\r\n");
    else
        sayf(c, "Content-Length: %" PRIu64 "\r\n\r\n", c->left);
}

static void echo_body(struct conn *c, const char *p, size_t n)
{
    if (c->is_chunked)
        chunk(c, p, n);
    else
        say(c, p, n);
}

static void echo_end(struct conn *c)
{
    if (c->is_chunked) {
        sayf(c, "0\r\n");
        say(c, c->trailers, c->n_trailers);
        sayf(c, "\r\n");
    }
    end_answer(c);
}

static void tell_sum(struct conn *c)
{
    answerf(c, 200, "{\"bytes\":%" PRIu64 ",\"sum\":%" PRIu32 "}\n", c->n_body, c->sum);
}

static void slow_read_head(struct conn *c)
{
    c->is_deaf = true;
    later(c, query(c, "ms", 500));
}

static void listen_again(struct conn *c)
{
    c->is_deaf = false;
}

/* ---- plain answers ---- */

static void tell_head(struct conn *c)
{
    answer(c, 200, "Content-Type: text/plain\r\n", c->head, strlen(c->head));
}

static void tell_status(struct conn *c)
{
    int status = atoi(c->target + strlen("/status/"));
    answerf(c, status, "status %d\n", status);
}

static void no_content(struct conn *c)
{
    start_answer(c, 204);
    sayf(c, "X-Empty: yes\r\n\r\n");
    end_answer(c);
}

static void not_modified(struct conn *c)
{
    start_answer(c, 304);
    sayf(c, "ETag: \"as-before\"\r\nContent-Length: 42\r\n\r\n");
    end_answer(c);
}

static void fixed_body(struct conn *c)
{
    static char body[HEAD_BYTES];
    memset(body, 'h', sizeof(body));
    answer(c, 200, "Content-Type: text/plain\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", body,
           sizeof(body));
}

static void cookies(struct conn *c)
{
    answer(c, 200,
           "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Expires=Wed, 21 Oct 2099 07:28:00 GMT\r\nset-cookie: "
           "c=3\r\n"
           "Connection: X-Only-Here\r\nX-Only-Here: hop\r\nKeep-Alive: timeout=5\r\nX-Twice: one\r\nX-Twice: "
           "two\r\n",
           "cookies\n", 8);
}

static void tell_seen(struct conn *c)
{
    answerf(c, 200, "{\"connections\":%u,\"requests\":%u,\"cut\":%u,\"again\":%u}\n", seen.n_conns,
            seen.n_requests, seen.n_cut, seen.n_again);
}

static void unknown(struct conn *c)
{
    answerf(c, 404, "the probe knows no such path: %s\n", c->target);
}

/* ---- streamed answers ---- */

static void chunks(struct conn *c)
{
    uint64_t n = query(c, "n", 5);
    bool has_extensions = query(c, "ext", 0);
    start_chunked(c, "Content-Type: text/plain\r\n");
    for (uint64_t i = 1; i <= n; i++) {
        char text[64];
        int size =
            snprintf(text, sizeof(text), "%.*s", (int)(i % 40), "----------------------------------------");
        if (has_extensions)
            sayf(c, "%x;name=\"a value\";flag\r\n%s\r\n", (unsigned)size, text);
        else if (size)
            chunk(c, text, (size_t)size);
    }
    chunk(c, "", 0);
    end_answer(c);
}

static void trailers_end(struct conn *c)
{
    start_chunked(c, "Trailer: X-Sum, X-Bytes\r\n");
    if (c->n_trailers)
        chunk(c, c->trailers, c->n_trailers);
    sayf(c, "0\r\nX-Sum: %" PRIu32 "\r\nX-Bytes: %" PRIu64 "\r\n\r\n", c->sum, c->n_body);
    end_answer(c);
}

static void events_start(struct conn *c, const char *type)
{
    c->steps = query(c, "n", 3);
    c->pause_ms = query(c, "ms", 100);
    start_answer(c, 200);
    sayf(c, "Content-Type: %s\r\nCache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n", type);
    later(c, 1);
}

static void sse_head(struct conn *c)
{
    events_start(c, "text/event-stream");
}

static void ndjson_head(struct conn *c)
{
    events_start(c, "application/x-ndjson");
}

static void next_event(struct conn *c, const char *before, const char *behind)
{
    char text[64];
    if (c->step == c->steps) {
        chunk(c, "", 0);
        end_answer(c);
        return;
    }
    int n = snprintf(text, sizeof(text), "%s%u%s", before, (unsigned)c->step++, behind);
    chunk(c, text, (size_t)n);
    later(c, c->pause_ms);
}

static void sse_due(struct conn *c)
{
    next_event(c, "data: ", "\n\n");
}

static void ndjson_due(struct conn *c)
{
    next_event(c, "{\"n\":", "}\n");
}

static void big_head(struct conn *c)
{
    c->to_send = query(c, "bytes", 1 << 20);
    c->steps = query(c, "framing", 0);
    start_answer(c, 200);
    if (c->steps == CHUNKED_HEAD)
        sayf(c, "Transfer-Encoding: chunked\r\n\r\n");
    else if (c->steps == UNTIL_CLOSE)
        sayf(c, "Connection: close\r\n\r\n");
    else
        sayf(c, "Content-Length: %" PRIu64 "\r\n\r\n", c->to_send);
    c->close_after |= c->steps == UNTIL_CLOSE;
    if (c->is_head)
        c->to_send = 0;
}

/* Byte i of the body is i modulo 251, so that nothing lost or doubled goes unseen. */
static void big_room(struct conn *c)
{
    static char pattern[BIG_PIECE + 251];
    if (!pattern[1])
        for (size_t i = 0; i < sizeof(pattern); i++)
            pattern[i] = (char)(i % 251);
    while (c->to_send && conn_unsent(c) < OUT_ENOUGH) {
        size_t n = c->to_send < BIG_PIECE ? (size_t)c->to_send : BIG_PIECE;
        const char *p = pattern + c->step % 251;
        if (c->steps == CHUNKED_HEAD)
            chunk(c, p, n);
        else
            say(c, p, n);
        c->step += n;
        c->to_send -= n;
    }
    if (c->to_send)
        return;
    if (c->steps == CHUNKED_HEAD && !c->is_head)
        chunk(c, "", 0);
    end_answer(c);
}

static void close_head(struct conn *c)
{
    sayf(c, "HTTP/1.%d 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the connection ends\n",
         (int)query(c, "minor", 1));
    c->close_after = true;
    end_answer(c);
}

/* ---- before, between and after ---- */

static void hints(struct conn *c)
{
    sayf(c, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nX-Hint: 1\r\n\r\nHTTP/1.1 100 "
            "Continue\r\n\r\n");
}

static void early(struct conn *c)
{
    bool stays = query(c, "keep", 0);
    c->is_deaf = !stays;
    c->close_after |= !stays;
    answerf(c, 413, "too much, whatever it was\n");
}

static void sleep_end(struct conn *c)
{
    later(c, query(c, "ms", 500));
}

static void slept(struct conn *c)
{
    answerf(c, 200, "slept\n");
}

/* ---- bad manners ---- */

static void half_close_end(struct conn *c)
{
    int is_corked = (int)query(c, "cork", 1);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_CORK, &is_corked, sizeof(is_corked));
    answerf(c, 200, "goes on, or so it says\n");
    c->shut_after = true;
}

static void break_end(struct conn *c)
{
    uint64_t after = query(c, "after", 0);
    if (after) {
        start_answer(c, 200);
        sayf(c, "Content-Length: %" PRIu64 "\r\n\r\n", after + 1000);
    }
    for (uint64_t i = 0; i < after; i++)
        say(c, "b", 1);
    c->close_after = true;
    end_answer(c);
}

static void garbage(struct conn *c)
{
    sayf(c, "This is a telephone exchange, not HTTP.\r\n\r\n");
    c->close_after = true;
    end_answer(c);
}

static void say_head(struct conn *c)
{
    c->close_after = query(c, "close", 0);
    c->is_last = query(c, "last", 0);
}

static void say_body(struct conn *c, const char *p, size_t n)
{
    say(c, p, n);
}

static void end_process(struct conn *c)
{
    (void)c;
    _exit(PROBE_EXIT_CODE);
}

/* ---- upgrades ---- */

static void upgrade_head(struct conn *c)
{
    char key[64], to[64], token[32];
    if (!field(c, "Upgrade", to, sizeof(to))) {
        answerf(c, 426, "an upgrade was expected\n");
        return;
    }
    if (query(c, "refuse", 0)) {
        answerf(c, 403, "no upgrade\n");
        return;
    }
    sayf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", to);
    c->steps = field(c, "Sec-WebSocket-Key", key, sizeof(key));
    if (c->steps) {
        websocket_accept(key, token);
        sayf(c, "Sec-WebSocket-Accept: %s\r\n", token);
    }
    sayf(c, "\r\n");
    c->input = IN_RAW;
    if (query(c, "greet", 0))
        sayf(c, "first words");
}

static void upgrade_body(struct conn *c, const char *p, size_t n)
{
    if (c->steps)
        c->kept = n - websocket_echo(c, (const unsigned char *)p, n);
    else
        say(c, p, n);
}

/* ---- the table ---- */

static const struct behaviour table[] = {
    {.path = "/echo", .on_head = echo_head, .on_body = echo_body, .on_end = echo_end},
    {.path = "/sum", .on_head = nothing, .on_end = tell_sum},
    {.path = "/slow-read", .on_head = slow_read_head, .on_due = listen_again, .on_end = tell_sum},
    {.path = "/headers", .on_head = nothing, .on_end = tell_head},
    {.path = "/status/", .on_head = nothing, .on_end = tell_status},
    {.path = "/204", .on_head = nothing, .on_end = no_content},
    {.path = "/304", .on_head = nothing, .on_end = not_modified},
    {.path = "/head", .on_head = nothing, .on_end = fixed_body},
    {.path = "/cookies", .on_head = nothing, .on_end = cookies},
    {.path = "/seen", .on_head = nothing, .on_end = tell_seen},
    {.path = "/chunked", .on_head = nothing, .on_end = chunks},
    {.path = "/trailers", .on_head = nothing, .on_end = trailers_end},
    {.path = "/sse", .on_head = sse_head, .on_due = sse_due},
    {.path = "/ndjson", .on_head = ndjson_head, .on_due = ndjson_due},
    {.path = "/big", .on_head = big_head, .on_room = big_room},
    {.path = "/close", .on_head = close_head},
    {.path = "/100", .on_head = hints, .on_end = tell_sum},
    {.path = "/early", .on_head = early},
    {.path = "/sleep", .on_head = nothing, .on_end = sleep_end, .on_due = slept},
    {.path = "/half-close", .on_head = nothing, .on_end = half_close_end},
    {.path = "/break", .on_head = nothing, .on_end = break_end},
    {.path = "/garbage", .on_head = nothing, .on_end = garbage},
    {.path = "/say", .on_head = say_head, .on_body = say_body, .on_end = end_answer},
    {.path = "/exit", .on_head = end_process},
    {.path = "/ws", .on_head = upgrade_head, .on_body = upgrade_body},
    {.path = "/upgrade", .on_head = upgrade_head, .on_body = upgrade_body},
};

const struct behaviour *behaviour_of(const char *target)
{
    static const struct behaviour other = {.path = "/", .on_head = nothing, .on_end = unknown};
    static const struct behaviour shown = {.path = "/headers", .on_head = nothing, .on_end = tell_head};
    size_t n = strcspn(target, "?");
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        size_t m = strlen(table[i].path);
        bool is_folder = table[i].path[m - 1] == '/';
        if ((is_folder ? n > m : n == m) && strncmp(target, table[i].path, m) == 0)
            return &table[i];
    }
    return strncmp(target, "/headers/", 9) == 0 ? &shown
                                                : &other; /* any path below it, to see what arrives */
}
