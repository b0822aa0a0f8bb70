/* TLS by GnuTLS, non-blocking, on the connection's own descriptor.
 *
 * GnuTLS keeps at most one record of each direction: read and not yet asked for, or encrypted and not yet
 * sent.  Bytes of a record under way count as sent only when all of it has left, so the sender's buffer keeps
 * them; they are not encrypted again.
 *
 * Tickets let a client that comes back skip the signature, which is most of what a handshake costs; their key
 * belongs to the set of keys, so that after a change of certificate everybody sees the new one.  Clients may
 * not renegotiate, nor send data before the handshake is over (which could be replayed). */
#include "orchestrator/gateway/gw_tls.h"
#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/rt/sys.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

enum { FILE_BYTES_MAX = 1024 * 1024, ODD_MESSAGES_MAX = 8 };

static const char PRIORITIES[] =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-DHE-RSA:-CIPHER-ALL:"
    "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1";

struct dv_tls_keys {
    _Atomic uint32_t refs;
    gnutls_certificate_credentials_t creds;
    gnutls_priority_t priorities;
    gnutls_datum_t ticket_key;
    int64_t valid_from_s, valid_until_s;
};

/* ---- certificates ---- */

static int tls_err(struct dv_err *err, int rc, const char *option, const char *path, const char *what)
{
    if (rc == GNUTLS_E_MEMORY_ERROR)
        return dv_err_set(err, DV_E_NOMEM, "%s %s", option, path);
    return dv_err_set(err, DV_INVALID, "%s %s: %s (%s)", option, path, what, gnutls_strerror(rc));
}

static gnutls_datum_t datum_of(const struct dv_buf *b)
{
    return (gnutls_datum_t){.data = (unsigned char *)dv_buf_ptr(b), .size = (unsigned)dv_buf_len(b)};
}

/* Looked at alone, so that the message can name the file at fault. */
static int check_cert(struct dv_tls_keys *k, const char *path, const gnutls_datum_t *pem, struct dv_err *err)
{
    gnutls_x509_crt_t *list = NULL;
    unsigned n = 0;
    int rc = gnutls_x509_crt_list_import2(&list, &n, pem, GNUTLS_X509_FMT_PEM, 0);
    if (rc < 0 || !n)
        return tls_err(err, rc < 0 ? rc : GNUTLS_E_NO_CERTIFICATE_FOUND, "--tls-cert", path,
                       "no certificate in PEM form");
    k->valid_from_s = (int64_t)gnutls_x509_crt_get_activation_time(list[0]);
    k->valid_until_s = (int64_t)gnutls_x509_crt_get_expiration_time(list[0]);
    for (unsigned i = 0; i < n; i++)
        gnutls_x509_crt_deinit(list[i]);
    gnutls_free(list);
    return DV_OK;
}

static int check_key(const char *path, const gnutls_datum_t *pem, struct dv_err *err)
{
    gnutls_x509_privkey_t key;
    int rc = gnutls_x509_privkey_init(&key);
    if (rc < 0)
        return dv_err_set(err, DV_E_NOMEM, "--tls-key %s", path);
    rc = gnutls_x509_privkey_import2(key, pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_x509_privkey_deinit(key);
    if (rc == GNUTLS_E_DECRYPTION_FAILED)
        return tls_err(err, rc, "--tls-key", path, "the key is locked with a password; store it without one");
    return rc < 0 ? tls_err(err, rc, "--tls-key", path, "no private key in PEM form") : DV_OK;
}

static int take_pair(struct dv_tls_keys *k, const char *cert_path, const gnutls_datum_t *cert,
                     const char *key_path, const gnutls_datum_t *key, struct dv_err *err)
{
    int rc = check_cert(k, cert_path, cert, err);
    rc = rc ? rc : check_key(key_path, key, err);
    if (rc)
        return rc;
    rc = gnutls_certificate_set_x509_key_mem2(k->creds, cert, key, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (rc == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
        return dv_err_set(err, DV_INVALID, "--tls-key %s is not the key of the certificate in --tls-cert %s",
                          key_path, cert_path);
    return rc < 0 ? tls_err(err, rc, "--tls-cert", cert_path, "not usable") : DV_OK;
}

static int read_pair(struct dv_tls_keys *k, const char *cert_path, const char *key_path, struct dv_err *err)
{
    DV_AUTO_BUF struct dv_buf cert = DV_BUF_INIT;
    DV_AUTO_BUF struct dv_buf key = DV_BUF_INIT;
    int rc = dv_file_read(cert_path, FILE_BYTES_MAX, &cert, err);
    if (rc)
        return dv_err_wrap(err, "--tls-cert");
    rc = dv_file_read(key_path, FILE_BYTES_MAX, &key, err);
    if (rc)
        return dv_err_wrap(err, "--tls-key");
    gnutls_datum_t c = datum_of(&cert), p = datum_of(&key);
    rc = take_pair(k, cert_path, &c, key_path, &p, err);
    if (key.data)
        explicit_bzero(key.data, key.cap);
    return rc;
}

int dv_tls_keys_load(const char *cert_path, const char *key_path, struct dv_tls_keys **out,
                     struct dv_err *err)
{
    struct dv_tls_keys *k = dv_zalloc(sizeof(*k));
    if (!k)
        return dv_err_set(err, DV_E_NOMEM, "certificate");
    atomic_init(&k->refs, 1);
    int rc = gnutls_certificate_allocate_credentials(&k->creds);
    rc = rc < 0 ? rc : gnutls_priority_init2(&k->priorities, PRIORITIES, NULL, 0);
    rc = rc < 0 ? rc : gnutls_session_ticket_key_generate(&k->ticket_key);
    if (rc < 0)
        rc = rc == GNUTLS_E_MEMORY_ERROR ? dv_err_set(err, DV_E_NOMEM, "certificate")
                                         : dv_err_set(err, DV_E_BUG, "TLS: %s", gnutls_strerror(rc));
    else
        rc = read_pair(k, cert_path, key_path, err);
    if (rc) {
        dv_tls_keys_unref(k);
        return rc;
    }
    *out = k;
    return DV_OK;
}

struct dv_tls_keys *dv_tls_keys_ref(struct dv_tls_keys *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void dv_tls_keys_unref(struct dv_tls_keys *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (k->creds)
        gnutls_certificate_free_credentials(k->creds);
    if (k->priorities)
        gnutls_priority_deinit(k->priorities);
    if (k->ticket_key.data) {
        explicit_bzero(k->ticket_key.data, k->ticket_key.size);
        gnutls_free(k->ticket_key.data);
    }
    dv_free(k);
}

int64_t dv_tls_keys_valid_from_s(const struct dv_tls_keys *k)
{
    return k->valid_from_s;
}

int64_t dv_tls_keys_valid_until_s(const struct dv_tls_keys *k)
{
    return k->valid_until_s;
}

/* ---- a connection ---- */

static int open_session(struct dv_gw_tls *t, int fd)
{
    static const char http[] = "http/1.1";
    const gnutls_datum_t alpn = {.data = (unsigned char *)(uintptr_t)http, .size = sizeof(http) - 1};
    gnutls_session_t s;
    int rc = gnutls_init(&s, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    if (rc < 0)
        return rc;
    t->session = s;
    rc = gnutls_priority_set(s, t->keys->priorities);
    rc = rc < 0 ? rc : gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, t->keys->creds);
    rc = rc < 0 ? rc : gnutls_session_ticket_enable_server(s, &t->keys->ticket_key);
    /* Who offers protocols and not ours is refused; who offers none speaks HTTP/1.1. */
    rc = rc < 0 ? rc : gnutls_alpn_set_protocols(s, &alpn, 1, GNUTLS_ALPN_MANDATORY);
    gnutls_certificate_server_set_request(s, GNUTLS_CERT_IGNORE);
    gnutls_transport_set_int(s, fd);
    return rc;
}

struct dv_gw_tls *dv_gw_tls_new(struct dv_tls_keys *keys, int fd)
{
    struct dv_gw_tls *t = dv_zalloc(sizeof(*t));
    if (!t)
        return NULL;
    t->keys = dv_tls_keys_ref(keys);
    if (open_session(t, fd) < 0) {
        dv_gw_tls_free(t);
        return NULL;
    }
    return t;
}

void dv_gw_tls_free(struct dv_gw_tls *t)
{
    if (!t)
        return;
    if (t->session)
        gnutls_deinit(t->session);
    dv_tls_keys_unref(t->keys);
    dv_free(t);
}

/* The first byte decides: a handshake record, or the first letter of a method. */
static int look_first(int fd)
{
    unsigned char first;
    ssize_t n = recv(fd, &first, 1, MSG_PEEK);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? DV_AGAIN : DV_E_PROTO;
    return n == 1 && first >= 'A' && first <= 'Z' ? DV_UNSUPPORTED : n == 1 ? DV_OK : DV_E_PROTO;
}

/* A message that is neither data nor the end: a few are harmless. */
static bool is_odd(ssize_t rc, int *odd)
{
    return rc != GNUTLS_E_AGAIN && rc != GNUTLS_E_REHANDSHAKE && !gnutls_error_is_fatal((int)rc) &&
           (*odd)++ < ODD_MESSAGES_MAX;
}

int dv_gw_tls_handshake(struct dv_gw_tls *t, int fd)
{
    int rc = t->has_begun ? DV_OK : look_first(fd), odd = 0;
    if (rc)
        return rc;
    t->has_begun = true;
    do
        rc = gnutls_handshake(t->session);
    while (rc < 0 && is_odd(rc, &odd));
    if (rc == GNUTLS_E_AGAIN)
        return DV_AGAIN;
    if (rc < 0) {
        (void)gnutls_alert_send_appropriate(t->session, rc); /* the connection ends either way */
        return DV_E_PROTO;
    }
    t->is_open = true;
    return DV_OK;
}

static ssize_t broken(struct dv_gw_tls *t)
{
    t->is_broken = true;
    errno = EPROTO;
    return -1;
}

ssize_t dv_gw_tls_recv(struct dv_gw_tls *t, char *to, size_t n)
{
    size_t got = 0;
    int odd = 0;
    ssize_t k = 0;
    t->is_drained = false;
    if (t->is_broken)
        return broken(t);
    while (got < n) {
        k = gnutls_record_recv(t->session, to + got, n - got);
        if (k > 0)
            got += (size_t)k;
        else if (k == 0 || !is_odd(k, &odd))
            break;
    }
    if (k == GNUTLS_E_AGAIN)
        t->is_drained = true;
    else if (k < 0)
        t->is_broken = true;
    if (got || k == 0) /* the end and what is wrong are told again by the next call */
        return (ssize_t)got;
    if (t->is_broken)
        return broken(t);
    errno = EAGAIN;
    return -1;
}

ssize_t dv_gw_tls_send(struct dv_gw_tls *t, const char *p, size_t n)
{
    size_t done = 0;
    ssize_t k = 0;
    if (t->is_broken)
        return broken(t);
    while (done < n) {
        k = t->is_sending ? gnutls_record_send(t->session, NULL, 0)
                          : gnutls_record_send(t->session, p + done, n - done);
        t->is_sending = k == GNUTLS_E_AGAIN || k == GNUTLS_E_INTERRUPTED;
        if (k > 0)
            done += (size_t)k;
        else if (k != GNUTLS_E_INTERRUPTED)
            break;
    }
    if (k <= 0 && k != GNUTLS_E_AGAIN && n)
        return broken(t);
    if (done || !n)
        return (ssize_t)done;
    errno = EAGAIN;
    return -1;
}

void dv_gw_tls_bye(struct dv_gw_tls *t)
{
    if (t->is_open && !t->is_broken && !t->is_sending)
        (void)gnutls_bye(t->session, GNUTLS_SHUT_WR); /* a full socket: the client is not reading anyway */
}
