/* What the probe's files share: a connection, and what is done on it. */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { IN_BYTES = 256 * 1024, OUT_ENOUGH = 128 * 1024, TRAILER_BYTES = 16 * 1024 };

struct conn;

/* What a path does.  Every member but path and on_head may be NULL. */
struct behaviour {
    const char *path;                /* "/status/" stands for all below it */
    void (*on_head)(struct conn *c); /* the request's head is there */
    void (*on_body)(struct conn *c, const char *p,
                    size_t n);       /* a piece of its body, or of an upgraded stream */
    void (*on_end)(struct conn *c);  /* its body is complete */
    void (*on_due)(struct conn *c);  /* c->due_ms has come */
    void (*on_room)(struct conn *c); /* less than OUT_ENOUGH waits to be written */
};

enum input {
    IN_HEAD,
    IN_LENGTH,
    IN_CHUNK_SIZE,
    IN_CHUNK_DATA,
    IN_CHUNK_END,
    IN_TRAILERS,
    IN_DONE, /* the whole request is in; the next one waits for the end of the answer */
    IN_RAW   /* upgraded */
};

struct conn {
    int fd;
    unsigned number, n_requests;
    const struct behaviour *does;
    /* the request */
    enum input input;
    char *head; /* as it came, NUL-terminated */
    char *target;
    bool is_head, is_chunked, is_http10;
    uint64_t left;   /* of the body, or of the chunk */
    uint64_t n_body; /* bytes of it so far */
    uint32_t sum;    /* FNV-1a of them */
    char trailers[TRAILER_BYTES];
    size_t n_trailers;
    size_t kept;  /* of a piece of an upgraded stream, at its end: to be offered again with more */
    bool is_deaf; /* reads nothing while set */
    /* the answer */
    bool is_answered; /* all of it stands in out */
    bool close_after, shut_after;
    bool is_last;     /* nothing may follow on this connection */
    uint64_t to_send; /* of a generated body */
    uint64_t step, steps, pause_ms;
    uint64_t due_ms; /* 0: nothing is due */
    /* bytes */
    size_t n_in;
    char in[IN_BYTES + 1];
    char *out;
    size_t n_out, at_out, cap_out;
};

/* Of the whole process; /seen tells them. */
struct seen {
    unsigned n_conns, n_requests;
    unsigned n_cut;   /* the other side left before its answer was complete */
    unsigned n_again; /* requests on a connection that was said to be over */
};
extern struct seen seen;

uint64_t now_ms(void);

/* conn.c */
struct conn *conn_new(int fd);
void conn_free(struct conn *c);
bool conn_wants_input(const struct conn *c);
size_t conn_unsent(const struct conn *c);
/* What poll said; false when the connection is over. */
bool conn_readable(struct conn *c);
bool conn_writable(struct conn *c);
bool conn_due(struct conn *c);
void say(struct conn *c, const void *p, size_t n);
void sayf(struct conn *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A whole answer with a length; fields are "Name: value\r\n" lines. */
void answer(struct conn *c, int status, const char *fields, const char *body, size_t n);
void answerf(struct conn *c, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Status line and fields every answer has; the caller adds its own, and the empty line. */
void start_answer(struct conn *c, int status);
void chunk(struct conn *c, const void *p, size_t n); /* n 0: the last one, without trailers */
void end_answer(struct conn *c);
/* Value of a field of the request's head, NUL-terminated in buf; false when absent. */
bool field(const struct conn *c, const char *name, char *buf, size_t cap);
/* Number of a query parameter, or what stands for it. */
uint64_t query(const struct conn *c, const char *name, uint64_t otherwise);

/* behave.c */
const struct behaviour *behaviour_of(const char *target);

/* websocket.c */
void websocket_accept(const char *key, char out[32]);
/* Echo the whole frames among the n bytes at p; how many bytes were used. */
size_t websocket_echo(struct conn *c, const unsigned char *p, size_t n);

#endif
