/* Results and failures.
 *
 * Every function that can fail returns int: 0 is success; a positive code is an outcome that its header
 * documents and its caller handles; a negative code is a failure that is passed up unchanged.
 * One table owns code, name, default text, HTTP status and whether the same call may succeed later.
 * struct dv_err carries detail for a person; it never allocates and may be NULL. */
#ifndef DV_ERR_H
#define DV_ERR_H

#include <stdarg.h>
#include <stdbool.h>

/*      code   name               http  retry  text */
#define DV_ERR_TABLE(X)                                                                                      \
    X(0, DV_OK, 200, false, "ok")                                                                            \
    X(1, DV_NOT_FOUND, 404, false, "not found")                                                              \
    X(2, DV_CONFLICT, 409, false, "conflict")                                                                \
    X(3, DV_EXISTS, 409, false, "already exists")                                                            \
    X(4, DV_NO_CAPACITY, 503, true, "no capacity")                                                           \
    X(5, DV_QUOTA, 429, true, "over quota")                                                                  \
    X(6, DV_DEADLINE, 504, false, "deadline exceeded")                                                       \
    X(7, DV_INVALID, 400, false, "invalid input")                                                            \
    X(8, DV_AGAIN, 503, true, "not ready, try again")                                                        \
    X(9, DV_DENIED, 403, false, "denied")                                                                    \
    X(10, DV_UNAUTHENTICATED, 401, false, "no or wrong credentials")                                         \
    X(11, DV_TOO_LARGE, 413, false, "too large")                                                             \
    X(12, DV_PRECONDITION, 412, false, "precondition failed")                                                \
    X(13, DV_CLOSED, 503, true, "closed")                                                                    \
    X(14, DV_UNSUPPORTED, 501, false, "not supported")                                                       \
    X(-1, DV_E_NOMEM, 500, true, "out of memory")                                                            \
    X(-2, DV_E_IO, 500, true, "input/output error")                                                          \
    X(-3, DV_E_PROTO, 502, false, "protocol error")                                                          \
    X(-4, DV_E_BUG, 500, false, "internal error")                                                            \
    X(-5, DV_E_STORE, 500, true, "store failure")                                                            \
    X(-6, DV_E_ENGINE, 502, true, "container engine failure")                                                \
    X(-7, DV_E_NET, 502, true, "network failure")

enum dv_code {
#define DV_ERR_ENUM(code, name, http, retry, text) name = (code),
    DV_ERR_TABLE(DV_ERR_ENUM)
#undef DV_ERR_ENUM
};

struct dv_err {
    int code;       /* enum dv_code */
    int sys_errno;  /* errno of the failing call, 0 when none */
    char msg[240];  /* for a person; empty when nothing was said */
    char field[96]; /* path of the offending input field, empty when none */
};

#define DV_ERR_INIT                                                                                          \
    {                                                                                                        \
        0                                                                                                    \
    }

/* Fill err (may be NULL) and return code, so that `return dv_err_set(err, DV_INVALID, "...")` is one line.
 * Any thread. */
int dv_err_set(struct dv_err *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As dv_err_set, and names the input field at fault ("scale.max"). */
int dv_err_field(struct dv_err *err, int code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* As dv_err_set with errno's text appended; sys_errno is recorded. */
int dv_err_sys(struct dv_err *err, int code, int sys_errno, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Put "context: " before the message already there; returns err->code (0 when err is NULL). */
int dv_err_wrap(struct dv_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

const char *dv_err_name(int code); /* "DV_CONFLICT"; "DV_UNKNOWN" for a code outside the table */
const char *dv_err_text(int code);
int dv_err_http(int code); /* 500 for a code outside the table */
bool dv_err_retryable(int code);
/* err's own message, or the code's default text when it has none (err may be NULL). */
const char *dv_err_msg(const struct dv_err *err, int code);

#endif
