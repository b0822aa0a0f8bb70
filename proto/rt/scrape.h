/* One reading of a metrics endpoint: fetched with a deadline and a bound on its size, read while it comes
 * (proto/base/promtext.h), never redirected elsewhere, TLS verified.  All on the loop's thread. */
#ifndef DV_SCRAPE_H
#define DV_SCRAPE_H

#include <stdbool.h>
#include "proto/base/err.h"
#include "proto/wire/types.h"

struct dv_httpc;
struct dv_scrape;

enum { DV_SCRAPE_BYTES_MAX = 2 * 1024 * 1024 };

/* url: where; of the metric count name, labels, aggregate and timeout (copied).  is_local: an address of this
 * machine's containers: no proxy, and no connection is kept to what may go away.
 * done: exactly once, never before this returned, not after a cancel: DV_OK with the value (finite, not
 * negative), or why not.  DV_OK with *out borrowed until then; DV_E_NOMEM; DV_INVALID. */
int dv_scrape_start(struct dv_httpc *http, const char *url, const struct dv_metric *m, bool is_local,
                    void (*done)(void *ctx, int code, double value, const struct dv_err *err), void *ctx,
                    struct dv_scrape **out, struct dv_err *err);
void dv_scrape_cancel(struct dv_scrape *s); /* NULL accepted */

#endif
