/* Who this node is: the id and link key that the orchestrator gave at the first join, kept in the state
 * directory (node.json, 0600), so that a restart needs no orchestrator.  Start-up and joining only: blocks on
 * the disk. */
#ifndef DV_IDENTITY_H
#define DV_IDENTITY_H

#include <stdint.h>
#include "proto/base/err.h"
#include "proto/rt/link.h"
#include "proto/wire/types.h"

struct dv_identity {
    uint64_t node;        /* 0: not joined yet */
    uint64_t incarnation; /* new at every start */
    uint8_t key[DV_LINK_KEY_BYTES];
};

/* A new incarnation, and what the file says.  DV_OK (also without a file); DV_INVALID (malformed: the message
 * names the file and the cure); DV_E_IO; DV_E_NOMEM. */
int dv_identity_load(const char *state_dir, struct dv_identity *out, struct dv_err *err);
/* Take over what the orchestrator said and keep it.  DV_OK; DV_INVALID; DV_E_IO; DV_E_NOMEM: then *id is
 * untouched. */
int dv_identity_take(struct dv_identity *id, const char *state_dir, const struct dv_join_reply *reply,
                     struct dv_err *err);

#endif
