#include "tests/bench/load_answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void load_answer_begin(struct load_answer *a, bool is_head)
{
    *a = (struct load_answer){.is_head = is_head};
}

static bool take_status(struct load_answer *a)
{
    if (strncmp(a->line, "HTTP/1.", 7) != 0 || a->n_line < 12)
        return false;
    a->status = (int)strtol(a->line + 9, NULL, 10);
    a->closes = a->line[7] == '0';
    a->state = LOAD_ANSWER_FIELD;
    return a->status >= 100 && a->status <= 599;
}

static const char *value_of(const char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0 || line[n] != ':')
        return NULL;
    return line + n + 1 + strspn(line + n + 1, " \t");
}

static void take_field(struct load_answer *a)
{
    const char *value = value_of(a->line, "content-length");
    if (value) {
        a->has_length = true;
        a->left = strtoull(value, NULL, 10);
    } else if ((value = value_of(a->line, "transfer-encoding"))) {
        a->is_chunked = strcasestr(value, "chunked") != NULL;
    } else if ((value = value_of(a->line, "connection"))) {
        a->closes = strncasecmp(value, "close", 5) == 0;
    }
}

static void end_head(struct load_answer *a)
{
    if (a->status < 200) { /* an interim answer: the real one follows */
        load_answer_begin(a, a->is_head);
        return;
    }
    if (a->is_head || a->status == 204 || a->status == 304)
        a->state = LOAD_ANSWER_DONE;
    else if (a->is_chunked)
        a->state = LOAD_ANSWER_CHUNK_SIZE;
    else if (a->has_length)
        a->state = a->left ? LOAD_ANSWER_BODY : LOAD_ANSWER_DONE;
    else
        a->state = LOAD_ANSWER_UNTIL_CLOSE;
}

static bool take_chunk_size(struct load_answer *a)
{
    char *end;
    a->left = strtoull(a->line, &end, 16);
    a->state = a->left ? LOAD_ANSWER_CHUNK : LOAD_ANSWER_TRAILER;
    return end > a->line;
}

static bool take_line(struct load_answer *a)
{
    switch (a->state) {
    case LOAD_ANSWER_STATUS:
        return take_status(a);
    case LOAD_ANSWER_FIELD:
        if (a->n_line)
            take_field(a);
        else
            end_head(a);
        return true;
    case LOAD_ANSWER_CHUNK_SIZE:
        return take_chunk_size(a);
    case LOAD_ANSWER_CHUNK_END:
        a->state = LOAD_ANSWER_CHUNK_SIZE;
        return a->n_line == 0;
    default: /* trailers, up to the empty line */
        if (a->n_line == 0)
            a->state = LOAD_ANSWER_DONE;
        return true;
    }
}

static size_t feed_body(struct load_answer *a, size_t n)
{
    if (a->state != LOAD_ANSWER_UNTIL_CLOSE) {
        if (n > a->left)
            n = (size_t)a->left;
        a->left -= n;
        if (a->left == 0)
            a->state = a->state == LOAD_ANSWER_BODY ? LOAD_ANSWER_DONE : LOAD_ANSWER_CHUNK_END;
    }
    a->n_body += n;
    return n;
}

/* Bytes taken; *is_line when a whole line is in a->line now, without its end. */
static size_t feed_line(struct load_answer *a, const char *data, size_t n, bool *is_line)
{
    const char *end = memchr(data, '\n', n);
    size_t took = end ? (size_t)(end - data) + 1 : n;
    size_t room = sizeof(a->line) - 1 - a->n_line, keep = took < room ? took : room;
    memcpy(a->line + a->n_line, data, keep);
    a->n_line += keep;
    if ((*is_line = end != NULL))
        while (a->n_line && (a->line[a->n_line - 1] == '\n' || a->line[a->n_line - 1] == '\r'))
            a->n_line--;
    a->line[a->n_line] = 0;
    return took;
}

ssize_t load_answer_feed(struct load_answer *a, const char *data, size_t n)
{
    size_t at = 0;
    while (at < n && a->state != LOAD_ANSWER_DONE) {
        bool is_line = false;
        if (a->state == LOAD_ANSWER_BODY || a->state == LOAD_ANSWER_CHUNK ||
            a->state == LOAD_ANSWER_UNTIL_CLOSE)
            at += feed_body(a, n - at);
        else
            at += feed_line(a, data + at, n - at, &is_line);
        if (is_line && !take_line(a))
            return -1;
        if (is_line)
            a->n_line = 0;
    }
    return (ssize_t)at;
}

bool load_answer_end(struct load_answer *a)
{
    if (a->state == LOAD_ANSWER_UNTIL_CLOSE)
        a->state = LOAD_ANSWER_DONE;
    return a->state == LOAD_ANSWER_DONE;
}
