/* TLS on the public listener: what a certificate and its key become, and the transport of one connection.
 *
 * A set of keys never changes.  Another certificate is another set: new connections take it, those that are
 * there go on with theirs, and the last to let go of a set frees it.
 * HTTP/1.1 only (ALPN), TLS 1.2 and 1.3, ciphers with forward secrecy and authentication alone. */
#ifndef DV_GW_TLS_H
#define DV_GW_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct dv_err;
struct dv_tls_keys;

/* ---- certificates; any thread ---- */

/* Read and check both files (PEM; the certificate first, then those that vouch for it).  Blocks on the disk.
 * DV_OK; DV_NOT_FOUND, DV_DENIED, DV_TOO_LARGE or DV_E_IO of the file that cannot be read; DV_INVALID: not a
 * certificate, not a key, locked with a password, or not a pair; DV_E_NOMEM.  The message names option and
 * file. */
int dv_tls_keys_load(const char *cert_path, const char *key_path, struct dv_tls_keys **out,
                     struct dv_err *err);
struct dv_tls_keys *dv_tls_keys_ref(struct dv_tls_keys *k);
void dv_tls_keys_unref(struct dv_tls_keys *k); /* NULL accepted */
/* Seconds since 1970 from and until which the certificate is good. */
int64_t dv_tls_keys_valid_from_s(const struct dv_tls_keys *k);
int64_t dv_tls_keys_valid_until_s(const struct dv_tls_keys *k);

/* ---- one connection; its loop's thread ---- */

struct dv_gw_tls {
    void *session; /* gnutls_session_t */
    struct dv_tls_keys *keys;
    bool has_begun;  /* the first byte was one of TLS */
    bool is_open;    /* hands have been shaken */
    bool is_drained; /* the last read found the socket empty: the next byte rings */
    bool is_sending; /* a record is under way: its bytes are still those at the front of what is sent next */
    bool is_broken;
};

/* Holds keys.  NULL: out of memory. */
struct dv_gw_tls *dv_gw_tls_new(struct dv_tls_keys *keys, int fd);
void dv_gw_tls_free(struct dv_gw_tls *t); /* NULL accepted; says nothing to the client */

/* DV_OK: open.  DV_AGAIN: the client has to say more.  DV_UNSUPPORTED: it speaks HTTP without TLS, nothing
 * was read.  DV_E_PROTO: it has been told why this cannot be (an alert), as far as it would listen. */
int dv_gw_tls_handshake(struct dv_gw_tls *t, int fd);

/* As recv: bytes, 0 at the end, -1 with errno (EAGAIN: nothing there).  Fewer than n bytes are no sign that
 * the socket is empty: is_drained is. */
ssize_t dv_gw_tls_recv(struct dv_gw_tls *t, char *to, size_t n);
/* As send: how many bytes are on their way, -1 with errno.  What was not counted has to come again, with
 * whatever follows it. */
ssize_t dv_gw_tls_send(struct dv_gw_tls *t, const char *p, size_t n);
/* Everything has been said: whoever relies on the end of the connection may take what came for whole. */
void dv_gw_tls_bye(struct dv_gw_tls *t);

#endif
