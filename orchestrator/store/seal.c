/* Sealing: one AEAD call per value, a fresh random nonce each time (96 bits: safe for 2^32 values under one
 * key, far beyond what a cluster writes).  The key never leaves this file and is wiped with the object; so is
 * every plain text that this file had to copy. */
#include "orchestrator/store/seal.h"
#include "proto/base/alloc.h"
#include "proto/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <libgen.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_BYTES = 32, NONCE_BYTES = 12, TAG_BYTES = 16 };
#define MARK DV_SV("v1:")

struct dv_seal {
    uint8_t key[KEY_BYTES];
};

int dv_random_bytes(void *out, size_t n)
{
    uint8_t *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return DV_E_IO;
        p += got;
        n -= (size_t)got;
    }
    return DV_OK;
}

/* ---- the key file ---- */

static int read_key(int fd, const char *path, uint8_t key[KEY_BYTES], struct dv_err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return dv_err_sys(err, DV_E_IO, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return dv_err_set(err, DV_INVALID, "%s: not a regular file", path);
    if (st.st_mode & 077)
        return dv_err_set(err, DV_INVALID, "%s: others may read the key (mode %03o): chmod 600 %s", path,
                          (unsigned)st.st_mode & 0777u, path);
    if (st.st_size != KEY_BYTES)
        return dv_err_set(err, DV_INVALID, "%s: a key has %d bytes, this file %lld: restore it from a backup",
                          path, KEY_BYTES, (long long)st.st_size);
    ssize_t got = pread(fd, key, KEY_BYTES, 0);
    if (got != KEY_BYTES)
        return dv_err_sys(err, DV_E_IO, got < 0 ? errno : EIO, "%s", path);
    return DV_OK;
}

static int sync_dir(const char *path, struct dv_err *err)
{
    DV_AUTO_STR char *copy = dv_strdup(path);
    if (!copy)
        return dv_err_set(err, DV_E_NOMEM, "key file");
    const char *dir = dirname(copy);
    DV_AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return dv_err_sys(err, DV_E_IO, errno, "%s", dir);
    return DV_OK;
}

/* Whole and on the disk before it gets its name: a key half written would lock every secret away. */
static int make_key(const char *path, uint8_t key[KEY_BYTES], struct dv_err *err)
{
    DV_AUTO_STR char *tmp = dv_asprintf("%s.new", path);
    if (!tmp)
        return dv_err_set(err, DV_E_NOMEM, "key file");
    if (dv_random_bytes(key, KEY_BYTES))
        return dv_err_set(err, DV_E_IO, "no random bytes for a new key");
    (void)unlink(tmp); /* what a crash left behind; usually there is none */
    DV_AUTO_FD int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return dv_err_sys(err, DV_E_IO, errno, "%s", tmp);
    ssize_t put = write(fd, key, KEY_BYTES);
    if (put != KEY_BYTES || fsync(fd) < 0 || rename(tmp, path) < 0) {
        int rc = dv_err_sys(err, DV_E_IO, put >= 0 && put != KEY_BYTES ? ENOSPC : errno, "%s", path);
        (void)unlink(tmp);
        return rc;
    }
    return sync_dir(path, err);
}

int dv_seal_open(const char *key_path, struct dv_seal **out, struct dv_err *err)
{
    struct dv_seal *s = dv_zalloc(sizeof(*s));
    if (!s)
        return dv_err_set(err, DV_E_NOMEM, "key");
    DV_AUTO_FD int fd = open(key_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int rc = fd >= 0           ? read_key(fd, key_path, s->key, err)
             : errno == ENOENT ? make_key(key_path, s->key, err)
                               : dv_err_sys(err, DV_E_IO, errno, "%s", key_path);
    if (rc) {
        dv_seal_free(s);
        return rc;
    }
    *out = s;
    return DV_OK;
}

void dv_seal_free(struct dv_seal *s)
{
    if (!s)
        return;
    explicit_bzero(s->key, sizeof(s->key));
    dv_free(s);
}

/* ---- sealing ---- */

static void wipe_free(void *p, size_t n)
{
    if (p)
        explicit_bzero(p, n);
    dv_free(p);
}

static int cipher_new(struct dv_seal *s, gnutls_aead_cipher_hd_t *out, struct dv_err *err)
{
    gnutls_datum_t key = {.data = s->key, .size = KEY_BYTES};
    int rc = gnutls_aead_cipher_init(out, GNUTLS_CIPHER_AES_256_GCM, &key);
    if (rc == GNUTLS_E_MEMORY_ERROR)
        return dv_err_set(err, DV_E_NOMEM, "cipher");
    return rc < 0 ? dv_err_set(err, DV_E_BUG, "cipher: %s", gnutls_strerror(rc)) : DV_OK;
}

/* raw: nonce | ciphertext | tag, plain.n + NONCE_BYTES + TAG_BYTES long. */
static int encrypt(struct dv_seal *s, struct dv_sv name, struct dv_sv plain, uint8_t *raw, struct dv_err *err)
{
    if (dv_random_bytes(raw, NONCE_BYTES))
        return dv_err_set(err, DV_E_IO, "no random bytes to seal with");
    gnutls_aead_cipher_hd_t cipher;
    int rc = cipher_new(s, &cipher, err);
    if (rc)
        return rc;
    size_t n = plain.n + TAG_BYTES;
    int tls = gnutls_aead_cipher_encrypt(cipher, raw, NONCE_BYTES, name.p, name.n, TAG_BYTES, plain.p,
                                         plain.n, raw + NONCE_BYTES, &n);
    gnutls_aead_cipher_deinit(cipher);
    return tls < 0 ? dv_err_set(err, DV_E_BUG, "sealing: %s", gnutls_strerror(tls)) : DV_OK;
}

int dv_seal_wrap(struct dv_seal *s, struct dv_sv name, struct dv_sv plain, struct dv_buf *out,
                 struct dv_err *err)
{
    size_t raw_n = NONCE_BYTES + plain.n + TAG_BYTES, text_n = dv_base64_len(raw_n);
    uint8_t *raw = dv_alloc(raw_n);
    if (!raw)
        return dv_err_set(err, DV_E_NOMEM, "sealing");
    char *text = dv_alloc(text_n + 1);
    int rc = text ? encrypt(s, name, plain, raw, err) : dv_err_set(err, DV_E_NOMEM, "sealing");
    if (!rc) {
        size_t was = dv_buf_len(out);
        dv_base64(raw, raw_n, text);
        rc = dv_buf_add_sv(out, MARK);
        if (!rc && (rc = dv_buf_add(out, text, text_n)))
            dv_buf_truncate(out, was);
        if (rc)
            (void)dv_err_set(err, rc, "sealing");
    }
    dv_free(text);
    dv_free(raw);
    return rc;
}

static int decrypt(struct dv_seal *s, struct dv_sv name, const uint8_t *raw, size_t raw_n, uint8_t *plain,
                   size_t *plain_n, struct dv_err *err)
{
    gnutls_aead_cipher_hd_t cipher;
    int rc = cipher_new(s, &cipher, err);
    if (rc)
        return rc;
    int tls = gnutls_aead_cipher_decrypt(cipher, raw, NONCE_BYTES, name.p, name.n, TAG_BYTES,
                                         raw + NONCE_BYTES, raw_n - NONCE_BYTES, plain, plain_n);
    gnutls_aead_cipher_deinit(cipher);
    if (tls < 0)
        return dv_err_set(
            err, DV_INVALID,
            "a sealed value does not open: it was changed, belongs to another name, or to another key");
    return DV_OK;
}

/* Base64 leaves bits unused in its last group; a text with any of them set is not one that we wrote. */
static bool is_canonical(struct dv_sv text, const uint8_t *raw, size_t raw_n)
{
    size_t tail = raw_n % 3 ? raw_n % 3 : 3;
    char group[5];
    dv_base64(raw + raw_n - tail, tail, group);
    return memcmp(text.p + text.n - 4, group, 4) == 0;
}

int dv_seal_unwrap(struct dv_seal *s, struct dv_sv name, struct dv_sv sealed, struct dv_buf *out,
                   struct dv_err *err)
{
    if (!dv_sv_starts(sealed, MARK))
        return dv_err_set(err, DV_INVALID, "not a sealed value");
    struct dv_sv text = dv_sv(sealed.p + MARK.n, sealed.n - MARK.n);
    size_t cap = text.n / 4 * 3 + 1;
    uint8_t *raw = dv_alloc(cap), *plain = dv_alloc(cap);
    int rc = raw && plain ? DV_OK : dv_err_set(err, DV_E_NOMEM, "opening a sealed value");
    ptrdiff_t raw_n = rc ? 0 : dv_base64_decode(text, raw);
    size_t plain_n = cap;
    if (!rc && (raw_n < NONCE_BYTES + TAG_BYTES || !is_canonical(text, raw, (size_t)raw_n)))
        rc = dv_err_set(err, DV_INVALID, "not a sealed value");
    if (!rc)
        rc = decrypt(s, name, raw, (size_t)raw_n, plain, &plain_n, err);
    if (!rc && (rc = dv_buf_add(out, plain, plain_n)))
        (void)dv_err_set(err, rc, "opening a sealed value");
    wipe_free(plain, cap);
    dv_free(raw);
    return rc;
}
