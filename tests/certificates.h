/* certificates.h - keys and certificates, made for a test. Every failure is a failed Check assertion. */
#ifndef TESTS_CERTIFICATES_H
#define TESTS_CERTIFICATES_H

#include <gnutls/x509.h>

struct maker {
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t certificate;
};

/* Makes a key (P-256) and a certificate CN=name for it, valid for these days from now; issuer NULL: self-signed. */
struct maker make_certificate(const char *name, int from_days, int until_days, const struct maker *issuer);
void free_maker(struct maker *made);

/* In PEM; mode as fopen()'s. */
void write_certificate(const struct maker *made, const char *path, const char *mode);
void write_key(const struct maker *made, const char *path);
/* A new self-signed pair in both files. */
void write_pair(const char *name, const char *certificate_path, const char *key_path);

#endif
