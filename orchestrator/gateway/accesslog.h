/* The access log, off the path of a request: each loop copies a record into its own ring (one writer, one
 * reader), one thread turns records into lines and writes them.  A full ring drops the record and counts it.
 */
#ifndef DV_ACCESSLOG_H
#define DV_ACCESSLOG_H

#include <stdint.h>
#include "proto/base/err.h"
#include "proto/base/str.h"

struct dv_accesslog;
struct dv_accesslog_ring;

struct dv_access {
    uint64_t wall_ns;
    int status;
    uint64_t bytes_in, bytes_out, total_us, queue_us, start_us, run_us;
    uint32_t attempts;
    struct dv_sv method, target, fn, peer, call_id; /* cut when long */
};

/* fd: borrowed; lines are written to it by the log's own thread.  n_rings writers. */
int dv_accesslog_start(int fd, uint32_t n_rings, struct dv_accesslog **out, struct dv_err *err);
void dv_accesslog_stop(struct dv_accesslog *a); /* writes what is left; NULL accepted */
struct dv_accesslog_ring *dv_accesslog_ring(struct dv_accesslog *a, uint32_t i);
/* The ring's own loop only.  Never blocks. */
void dv_accesslog_add(struct dv_accesslog_ring *r, const struct dv_access *a);
uint64_t dv_accesslog_dropped(const struct dv_accesslog *a); /* any thread */

#endif
