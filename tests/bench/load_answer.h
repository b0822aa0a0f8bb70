/* Answers as the load generator reads them: HTTP/1.1 heads, lengths and chunks, nothing kept.
 * Trusting where a client under test would be strict: what counts here is where an answer ends. */
#ifndef DV_LOAD_ANSWER_H
#define DV_LOAD_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum load_answer_state {
    LOAD_ANSWER_STATUS,
    LOAD_ANSWER_FIELD,
    LOAD_ANSWER_BODY,        /* `left` bytes of it */
    LOAD_ANSWER_UNTIL_CLOSE, /* ended by the peer */
    LOAD_ANSWER_CHUNK_SIZE,
    LOAD_ANSWER_CHUNK,     /* `left` bytes of it */
    LOAD_ANSWER_CHUNK_END, /* the line end behind its bytes */
    LOAD_ANSWER_TRAILER,
    LOAD_ANSWER_DONE,
};

struct load_answer {
    enum load_answer_state state;
    int status;
    bool is_head; /* set by the caller: the request was HEAD, no body follows */
    bool is_chunked, has_length, closes;
    uint64_t left, n_body;
    size_t n_line;
    char line[256]; /* longer lines are cut: the fields that matter are short */
};

void load_answer_begin(struct load_answer *a, bool is_head);

/* Takes bytes up to the end of the answer at most: how many, or -1 when they are no HTTP. */
ssize_t load_answer_feed(struct load_answer *a, const char *data, size_t n);

/* The peer closed: does that complete the answer? */
bool load_answer_end(struct load_answer *a);

#endif
