/* A certificate for localhost that signs itself, and its key, in files of a directory of their own. */
#ifndef TLS_PAIR_H
#define TLS_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "proto/rt/sys.h"

struct pair {
    char dir[64], cert[96], key[96];
    unsigned serial;
};

static void write_pem(const char *path, const gnutls_datum_t *pem)
{
    assert_int_equal(dv_file_write(path, dv_sv((const char *)pem->data, pem->size), 0600, NULL), DV_OK);
}

/* A certificate for localhost that signs itself, into the pair's files. */
static void pair_write(struct pair *p, unsigned serial)
{
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;
    unsigned char number[1] = {(unsigned char)serial};
    assert_int_equal(gnutls_x509_privkey_init(&key), 0);
    assert_int_equal(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
                     0);
    assert_int_equal(gnutls_x509_crt_init(&crt), 0);
    assert_int_equal(gnutls_x509_crt_set_version(crt, 3), 0);
    assert_int_equal(gnutls_x509_crt_set_serial(crt, number, sizeof(number)), 0);
    assert_int_equal(gnutls_x509_crt_set_activation_time(crt, time(NULL) - 60), 0);
    assert_int_equal(gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 3600), 0);
    assert_int_equal(gnutls_x509_crt_set_dn(crt, "CN=localhost", NULL), 0);
    assert_int_equal(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, "localhost", 9, 0), 0);
    assert_int_equal(gnutls_x509_crt_set_basic_constraints(crt, 1, -1), 0);
    assert_int_equal(gnutls_x509_crt_set_key(crt, key), 0);
    assert_int_equal(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem), 0);
    write_pem(p->cert, &pem);
    gnutls_free(pem.data);
    assert_int_equal(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), 0);
    write_pem(p->key, &pem);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(key);
    p->serial = serial;
}

static struct pair pair_new(unsigned serial)
{
    struct pair p;
    (void)snprintf(p.dir, sizeof(p.dir), "/tmp/davit-tls-XXXXXX");
    assert_non_null(mkdtemp(p.dir));
    (void)snprintf(p.cert, sizeof(p.cert), "%s/cert.pem", p.dir);
    (void)snprintf(p.key, sizeof(p.key), "%s/key.pem", p.dir);
    pair_write(&p, serial);
    return p;
}

static void pair_free(struct pair *p)
{
    (void)unlink(p->cert);
    (void)unlink(p->key);
    assert_int_equal(rmdir(p->dir), 0);
}

#endif
