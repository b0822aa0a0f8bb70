/* The agent's end of the node links: takes connections, hands those for data to the carry, and holds the one
 * for control: commands in, reports out.  State loop. */
#ifndef DV_SESSION_H
#define DV_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include "agent/carry/carry.h"
#include "agent/node/identity.h"
#include "agent/sandbox/sandbox.h"

struct dv_session;

struct dv_session_cfg {
    struct dv_loop *loop;
    int listen_fd;          /* taken */
    const char *address;    /* as the orchestrator knows it: taken from near it, too; NULL: not */
    struct dv_carry *carry; /* borrowed */
    int64_t replicas_max;
    void (*on_control)(void *ctx, bool is_open); /* a control link opened, or the only one closed */
    void *ctx;
};

/* DV_OK; DV_E_NOMEM; DV_E_IO.  listen_fd is closed when it fails, too. */
int dv_session_new(const struct dv_session_cfg *cfg, struct dv_session **out, struct dv_err *err);
void dv_session_free(struct dv_session *s); /* NULL accepted; closes every link that it holds */
/* From now on links are taken: they prove this key.  May be called again with another identity: links of the
 * old one are closed then.  sandbox: borrowed, commands go there. */
void dv_session_open(struct dv_session *s, const struct dv_identity *id, struct dv_sandbox *sandbox);
/* Take no more links, tell the control link that this agent leaves; it goes on reporting and obeying. */
void dv_session_goaway(struct dv_session *s);
/* No link is in its handshake: none can become a data link before the next one is taken. */
bool dv_session_is_quiet(const struct dv_session *s);
bool dv_session_has_control(const struct dv_session *s);
uint64_t
dv_session_last_control_ns(const struct dv_session *s); /* monotonic: when the control link was last open */
/* From the sandbox. */
void dv_session_changed(struct dv_session *s);
void dv_session_logs(struct dv_session *s, const struct dv_log_chunk *chunk);

#endif
