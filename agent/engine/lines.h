/* Cut a stream of bytes into lines: JSON objects of the engine's pull and event streams.  Pure. */
#ifndef DV_ENGINE_LINES_H
#define DV_ENGINE_LINES_H

#include "proto/base/buf.h"
#include "proto/base/err.h"

struct dv_lines {
    struct dv_buf part; /* an unfinished line */
    bool is_overlong;   /* ... which has passed max and is being skipped */
};

void dv_lines_init(struct dv_lines *l, size_t max_bytes);
void dv_lines_deinit(struct dv_lines *l);
/* fn is called for every line that is complete, without its end (LF or CRLF), empty ones left out; longer
 * ones than max are dropped whole.  A non-zero result of fn stops and is returned.  DV_OK; DV_E_NOMEM. */
int dv_lines_feed(struct dv_lines *l, struct dv_sv bytes, int (*fn)(void *ctx, struct dv_sv line), void *ctx);
/* The end of the stream: an unfinished line counts. */
int dv_lines_end(struct dv_lines *l, int (*fn)(void *ctx, struct dv_sv line), void *ctx);

#endif
