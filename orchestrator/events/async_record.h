/* The payload of a work item: one asynchronous request, or the answer to one on its way to a callback URL.
 *
 *     "DA" version(1) then fields: tag(1) length(4, little-endian) bytes
 *
 * Every tag at most once, in any order; unknown tags are skipped, so that an older program can work off what
 * a newer one accepted.  Texts hold no NUL and no line break (fields: whole "Name: value\r\n" lines). */
#ifndef DV_ASYNC_RECORD_H
#define DV_ASYNC_RECORD_H

#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/str.h"

enum { DV_ASYNC_RECORD_VERSION = 1 };

/*   tag  member        kind     required */
#define DV_ASYNC_RECORD_FIELDS(X)                                                                            \
    X(1, fn, TEXT, true)       /* "name.namespace" */                                                        \
    X(2, method, TEXT, false)  /* requests */                                                                \
    X(3, target, TEXT, false)  /* below the function: "/rest?query" */                                       \
    X(4, fields, LINES, false) /* header of the request; of the function's answer in a callback */           \
    X(5, body, BYTES, false)                                                                                 \
    X(6, call_id, TEXT, false)                                                                               \
    X(7, callback_url, TEXT, false)                                                                          \
    X(8, status, TEXT, false)    /* callbacks: the function's, decimal */                                    \
    X(9, duration, TEXT, false)  /* callbacks: seconds, decimal */                                           \
    X(10, attempts, TEXT, false) /* callbacks: calls that were made, decimal */

struct dv_async_record { /* views; empty when absent */
#define DV_ASYNC_RECORD_MEMBER(tag, member, kind, required) struct dv_sv member;
    DV_ASYNC_RECORD_FIELDS(DV_ASYNC_RECORD_MEMBER)
#undef DV_ASYNC_RECORD_MEMBER
};

/* Append.  DV_OK; DV_INVALID (a text that may not be in it: err says which); DV_TOO_LARGE, DV_E_NOMEM from
 * out. */
int dv_async_record_encode(const struct dv_async_record *r, struct dv_buf *out, struct dv_err *err);
/* Views into bytes.  DV_OK; DV_UNSUPPORTED (a newer version); DV_INVALID.  Out untouched unless DV_OK.  Pure.
 */
int dv_async_record_decode(struct dv_sv bytes, struct dv_async_record *out, struct dv_err *err);

#endif
