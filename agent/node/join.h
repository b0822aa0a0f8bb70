/* Joining: POST /v1/nodes/join until the orchestrator has taken this node in.  State loop. */
#ifndef DV_JOIN_CLIENT_H
#define DV_JOIN_CLIENT_H

#include <stdbool.h>
#include "proto/base/err.h"
#include "proto/wire/types.h"

struct dv_loop;
struct dv_join_client;

struct dv_join_cfg {
    struct dv_loop *loop;
    const char *orchestrator; /* "http://127.0.0.1:8080" */
    const char *token;        /* NULL: none */
    /* On the loop.  reply is borrowed. */
    void (*on_joined)(void *ctx, const struct dv_join_reply *reply);
    void *ctx;
};

/* All strings are borrowed for its life.  DV_OK; DV_E_NOMEM; DV_E_IO. */
int dv_join_new(const struct dv_join_cfg *cfg, struct dv_join_client **out, struct dv_err *err);
void dv_join_free(struct dv_join_client *j); /* NULL accepted; no callback follows */
/* Ask now and again, with pauses of 0.5 to 2 s, until it works or dv_join_stop is called.  join: borrowed for
 * the call. While it is asking already this only replaces what is said.  DV_OK or DV_E_NOMEM. */
int dv_join_start(struct dv_join_client *j, const struct dv_join *join);
void dv_join_stop(struct dv_join_client *j);
bool dv_join_is_asking(const struct dv_join_client *j);
/* Why it did not work the last time; empty when it did, or was never tried. */
const char *dv_join_error(const struct dv_join_client *j);

#endif
