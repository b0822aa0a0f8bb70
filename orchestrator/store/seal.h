/* Secrets at rest: AES-256-GCM (GnuTLS) under a key kept in the state directory (0600, made at the first
 * start). A sealed text is "v1:" + base64(nonce | ciphertext | tag); the name it is stored under is
 * authenticated with it, so one sealed value cannot be moved to another name. */
#ifndef DV_SEAL_H
#define DV_SEAL_H

#include <stdint.h>
#include "proto/base/buf.h"
#include "proto/base/err.h"

struct dv_seal;
/* Reads, or makes, the key file.  DV_OK; DV_E_IO; DV_INVALID (wrong size or readable by others: message names
 * the cure). */
int dv_seal_open(const char *key_path, struct dv_seal **out, struct dv_err *err);
void dv_seal_free(struct dv_seal *s); /* wipes the key */
/* Any thread.  Both append to out.  wrap: DV_OK; DV_E_IO (no random bytes); DV_E_BUG (crypto library);
 * DV_E_NOMEM, DV_TOO_LARGE from out.  unwrap: also DV_INVALID (not a sealed text; or changed, of another
 * name, or under another key: the message does not tell these apart, and nothing is given out). */
int dv_seal_wrap(struct dv_seal *s, struct dv_sv name, struct dv_sv plain, struct dv_buf *out,
                 struct dv_err *err);
int dv_seal_unwrap(struct dv_seal *s, struct dv_sv name, struct dv_sv sealed, struct dv_buf *out,
                   struct dv_err *err);
int dv_random_bytes(void *out, size_t n); /* from the kernel; DV_OK or DV_E_IO */

#endif
