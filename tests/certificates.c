/* certificates.c - see certificates.h. */
#include "tests/certificates.h"

#include <check.h>
#include <stdio.h>
#include <time.h>

enum { DAY = 86400, PEM_BYTES = 8192 };

static struct maker make_key(void)
{
    struct maker made;
    ck_assert_int_ge(gnutls_x509_privkey_init(&made.key), 0);
    ck_assert_int_ge(gnutls_x509_crt_init(&made.certificate), 0);
    ck_assert_int_ge(gnutls_x509_privkey_generate(made.key, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0), 0);
    return made;
}

struct maker make_certificate(const char *name, int from_days, int until_days, const struct maker *issuer)
{
    static unsigned char serial;
    struct maker made = make_key();
    const gnutls_x509_crt_t crt = made.certificate;
    char dn[64];
    snprintf(dn, sizeof dn, "CN=%s", name);
    serial++;
    ck_assert_int_ge(gnutls_x509_crt_set_version(crt, 3), 0);
    ck_assert_int_ge(gnutls_x509_crt_set_serial(crt, &serial, 1), 0);
    ck_assert_int_ge(gnutls_x509_crt_set_activation_time(crt, time(NULL) + from_days * DAY), 0);
    ck_assert_int_ge(gnutls_x509_crt_set_expiration_time(crt, time(NULL) + until_days * DAY), 0);
    ck_assert_int_ge(gnutls_x509_crt_set_dn(crt, dn, NULL), 0);
    ck_assert_int_ge(gnutls_x509_crt_set_key(crt, made.key), 0);
    ck_assert_int_ge(gnutls_x509_crt_set_basic_constraints(crt, issuer == NULL, -1), 0);
    ck_assert_int_ge(gnutls_x509_crt_sign2(crt, issuer ? issuer->certificate : crt, issuer ? issuer->key : made.key,
                                           GNUTLS_DIG_SHA256, 0), 0);
    return made;
}

void free_maker(struct maker *made)
{
    gnutls_x509_privkey_deinit(made->key);
    gnutls_x509_crt_deinit(made->certificate);
}

static void write_pem(const char *path, const char *mode, const char *pem, size_t length)
{
    FILE *file = fopen(path, mode);
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(pem, 1, length, file), length);
    fclose(file);
}

void write_certificate(const struct maker *made, const char *path, const char *mode)
{
    char pem[PEM_BYTES];
    size_t length = sizeof pem;
    ck_assert_int_ge(gnutls_x509_crt_export(made->certificate, GNUTLS_X509_FMT_PEM, pem, &length), 0);
    write_pem(path, mode, pem, length);
}

void write_key(const struct maker *made, const char *path)
{
    char pem[PEM_BYTES];
    size_t length = sizeof pem;
    ck_assert_int_ge(gnutls_x509_privkey_export(made->key, GNUTLS_X509_FMT_PEM, pem, &length), 0);
    write_pem(path, "w", pem, length);
}

void write_pair(const char *name, const char *certificate_path, const char *key_path)
{
    struct maker made = make_certificate(name, -1, 30, NULL);
    write_certificate(&made, certificate_path, "w");
    write_key(&made, key_path);
    free_maker(&made);
}
