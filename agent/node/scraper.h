/* Reads metrics of this node's replicas for the orchestrator, which cannot reach their addresses itself.
 * Asked each time anew; what was read is gathered for the next report.  State loop. */
#ifndef DV_SCRAPER_H
#define DV_SCRAPER_H

#include "proto/base/arena.h"
#include "proto/rt/loop.h"
#include "proto/wire/types.h"

struct dv_sandbox;
struct dv_scraper;

/* on_result: something is there to be told; may be called many times a turn. */
int dv_scraper_new(struct dv_loop *loop, void (*on_result)(void *ctx), void *ctx, struct dv_scraper **out,
                   struct dv_err *err);
void dv_scraper_free(struct dv_scraper *s); /* NULL accepted */
/* Every replica named is answered for, sooner or later; a frozen one at once, since it is not woken for this.
 */
void dv_scraper_obey(struct dv_scraper *s, const struct dv_sandbox *sandbox, const struct dv_cmd_scrape *cmd);
/* The results since the last call, in arena.  DV_OK; DV_E_NOMEM: they stay for the next time. */
int dv_scraper_take(struct dv_scraper *s, struct dv_arena *arena, struct dv_scrape_result **out,
                    size_t *out_n);
void dv_scraper_drop(struct dv_scraper *s); /* nobody waits for them any more */

#endif
