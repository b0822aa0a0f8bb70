/* What the orchestrator finds, or makes, before it serves: its state directory and its credentials.
 * Start-up only; the calls block on the disk. */
#ifndef DV_BOOT_H
#define DV_BOOT_H

#include "proto/base/arena.h"
#include "proto/base/err.h"

struct dv_tls_keys;

/* /var/lib/davit/orchestrator for root; $XDG_STATE_HOME or ~/.local/state, then davit/orchestrator,
 * otherwise. In arena; NULL when out of memory. */
const char *dv_boot_state_dir(struct dv_arena *arena);

/* A credential in a file of one line.  path NULL: `name` in dir, made at random with mode 0600 when it is
 * absent (the only case in which something is written).  *out in arena. DV_OK; DV_NOT_FOUND (path given and
 * absent); DV_INVALID (empty, too long, or readable by everybody: the message names the cure); DV_DENIED;
 * DV_E_IO; DV_E_NOMEM. */
int dv_boot_credential(const char *path, const char *dir, const char *name, struct dv_arena *arena,
                       const char **out, struct dv_err *err);

/* Certificate and key of the public listener, checked and logged.  Both paths NULL: DV_OK, *out NULL (without
 * TLS).  DV_INVALID when one of them is missing; otherwise as dv_tls_keys_load.  At a reload too. */
int dv_boot_tls_keys(const char *cert_path, const char *key_path, struct dv_tls_keys **out,
                     struct dv_err *err);

/* As many descriptors as we may have; a refusal is no failure. */
void dv_boot_raise_limits(void);

#endif
