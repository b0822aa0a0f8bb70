/* The engine's log stream: frames of [stream, 0, 0, 0, length (big endian)] and payload, as written for
 * containers without a terminal, each payload one message with its time in front
 * ("2024-01-02T03:04:05.678901234Z text\n"). Pure: bytes in, lines out; memory is bounded by one line
 * whatever the frames claim. */
#ifndef DV_LOGFRAME_H
#define DV_LOGFRAME_H

#include <stdint.h>
#include "agent/engine/engine.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"

enum { DV_LOG_LINE_MAX = 16 * 1024 };

struct dv_logframe {
    unsigned char head[8];
    unsigned n_head; /* header bytes so far */
    uint32_t left;   /* payload bytes still to come; only once n_head is 8 */
    struct dv_buf line;
};

void dv_logframe_init(struct dv_logframe *f);
void dv_logframe_deinit(struct dv_logframe *f);
/* line is called once per line: at each newline and at the end of a frame (the engine cuts long lines into
 * frames).  Text is valid UTF-8 without NUL (other bytes become '?'), at most DV_LOG_LINE_MAX bytes, the rest
 * is dropped; wall_ms is 0 when the line has no time in front.  Views live for the callback.  A non-zero
 * result of line stops, and is returned at once without touching f again. DV_OK; DV_E_PROTO (not a frame: the
 * stream is of no use any more); DV_E_NOMEM. */
int dv_logframe_feed(struct dv_logframe *f, struct dv_sv bytes,
                     int (*line)(void *ctx, const struct dv_engine_log *l), void *ctx, struct dv_err *err);
/* True in the middle of a frame: a stream that ends here was cut off. */
bool dv_logframe_is_partial(const struct dv_logframe *f);

#endif
