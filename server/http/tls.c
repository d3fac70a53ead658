/*
 * tls.c - certificate pairs, one per (re)load, each kept for as long as a connection uses it.
 *
 * libmicrohttpd 0.9.75 takes a certificate as a string at the start, or asks a callback for one in every handshake
 * (MHD_OPTION_HTTPS_CERT_CALLBACK and ..CALLBACK2). The callback gets no context of ours: the session's user pointer is
 * libmicrohttpd's own, and what it points to is not documented. So the certificate comes by another way, of documented parts:
 * when a connection begins, before the first byte of its handshake, libmicrohttpd tells of it and gives its GnuTLS session
 * away (MHD_CONNECTION_INFO_GNUTLS_SESSION), and there gnutls_credentials_set() puts our pair in the place of
 * libmicrohttpd's. Theirs is needed all the same, or the daemon does not start; it holds a callback that refuses.
 *
 * GnuTLS keeps the pointer to the credentials until the session ends. libmicrohttpd ends it before it tells that the connection
 * is closed, so until then the connection holds a reference.
 */
#include "server/http/tls.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/small_file.h"

struct tls_pair {
    size_t references; /* the connections', and that of struct tls while it is the current one */
    gnutls_certificate_credentials_t credentials;
    char subject[128];
    time_t valid_from, valid_until;
};

struct tls {
    char *certificate_path, *key_path;
    pthread_mutex_t mutex; /* protects `current` and every pair's references */
    struct tls_pair *current;
};

static int refuse(gnutls_session_t session, const gnutls_datum_t *authorities, int authority_count,
                  const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **certificates,
                  unsigned int *certificate_count, gnutls_privkey_t *key)
{
    (void)session, (void)authorities, (void)authority_count, (void)algorithms, (void)algorithm_count;
    (void)certificates, (void)certificate_count, (void)key;
    return -1;
}

struct MHD_OptionItem tls_options[] = {
    {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)TLS_PRIORITIES},
    {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)refuse},
    {MHD_OPTION_END, 0, NULL},
};

/* ---- files ---- */

/* "FILE: ..."; leaves room for a reason, or for a second path. */
static bool fail(struct tls_error *error, const char *path, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool fail(struct tls_error *error, const char *path, const char *format, ...)
{
    va_list arguments;
    const int length = snprintf(error->message, sizeof error->message, "%.160s: ", path);
    va_start(arguments, format);
    vsnprintf(error->message + length, sizeof error->message - (size_t)length, format, arguments);
    va_end(arguments);
    return false;
}

/* A key leaves no copy of itself behind. */
static void free_bytes(gnutls_datum_t *bytes)
{
    if (bytes->data)
        gnutls_memset(bytes->data, 0, bytes->size);
    free(bytes->data);
    *bytes = (gnutls_datum_t){0};
}

static bool read_file(const char *path, gnutls_datum_t *bytes, struct tls_error *error)
{
    size_t length = 0;
    const char *why;
    bytes->data = (unsigned char *)small_file_read(path, &length, NULL, &why);
    bytes->size = (unsigned)length;
    return bytes->data || fail(error, path, "%s", why);
}

/* ---- parsing ---- */

struct chain {
    gnutls_x509_crt_t *certificates;
    unsigned count;
};

static void free_chain(struct chain *chain)
{
    for (unsigned i = 0; i < chain->count; i++)
        gnutls_x509_crt_deinit(chain->certificates[i]);
    gnutls_free(chain->certificates);
}

static bool read_chain(const char *path, struct chain *chain, struct tls_error *error)
{
    gnutls_datum_t text = {0};
    if (!read_file(path, &text, error))
        return false;
    const int code = gnutls_x509_crt_list_import2(&chain->certificates, &chain->count, &text, GNUTLS_X509_FMT_PEM,
                                                  GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    free_bytes(&text);
    if (code >= 0)
        return true;
    if (code == GNUTLS_E_NO_CERTIFICATE_FOUND || code == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR)
        return fail(error, path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)");
    if (code == GNUTLS_E_CERTIFICATE_LIST_UNSORTED)
        return fail(error, path, "its certificates are out of order: the server's own comes first, then each one's issuer");
    return fail(error, path, "not a certificate in PEM: %s", gnutls_strerror(code));
}

static bool read_key(const char *path, gnutls_x509_privkey_t key, struct tls_error *error)
{
    gnutls_datum_t text = {0};
    if (!read_file(path, &text, error))
        return false;
    const int code = gnutls_x509_privkey_import2(key, &text, GNUTLS_X509_FMT_PEM, NULL, 0);
    free_bytes(&text);
    if (code >= 0)
        return true;
    if (code == GNUTLS_E_DECRYPTION_FAILED)
        return fail(error, path, "the key is encrypted; vitd has no password for it");
    return fail(error, path, "holds no private key in PEM that can be used: %s", gnutls_strerror(code));
}

/* ---- pairs ---- */

static void free_pair(struct tls_pair *pair)
{
    if (pair && pair->credentials)
        gnutls_certificate_free_credentials(pair->credentials);
    free(pair);
}

static void describe_certificate(struct tls_pair *pair, gnutls_x509_crt_t certificate)
{
    gnutls_datum_t name;
    pair->valid_from = gnutls_x509_crt_get_activation_time(certificate);
    pair->valid_until = gnutls_x509_crt_get_expiration_time(certificate);
    if (gnutls_x509_crt_get_dn3(certificate, &name, 0) >= 0) {
        snprintf(pair->subject, sizeof pair->subject, "%s", (const char *)name.data);
        gnutls_free(name.data);
    }
}

static struct tls_pair *join(const struct tls *tls, const struct chain *chain, gnutls_x509_privkey_t key,
                             struct tls_error *error)
{
    struct tls_pair *pair = calloc(1, sizeof *pair);
    int code = pair ? gnutls_certificate_allocate_credentials(&pair->credentials) : GNUTLS_E_MEMORY_ERROR;
    if (code >= 0)
        code = gnutls_certificate_set_x509_key(pair->credentials, chain->certificates, (int)chain->count, key);
    if (code < 0) {
        if (code == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
            fail(error, tls->key_path, "the key does not belong to the certificate in %.160s", tls->certificate_path);
        else
            fail(error, tls->key_path, "%s", gnutls_strerror(code));
        free_pair(pair);
        return NULL;
    }
    describe_certificate(pair, chain->certificates[0]);
    pair->references = 1;
    return pair;
}

static struct tls_pair *load_pair(const struct tls *tls, struct tls_error *error)
{
    struct tls_pair *pair = NULL;
    struct chain chain = {0};
    gnutls_x509_privkey_t key = NULL;
    if (gnutls_x509_privkey_init(&key) < 0)
        fail(error, tls->key_path, "out of memory");
    else if (read_chain(tls->certificate_path, &chain, error) && read_key(tls->key_path, key, error))
        pair = join(tls, &chain, key, error);
    if (key)
        gnutls_x509_privkey_deinit(key);
    free_chain(&chain);
    return pair;
}

/* ---- the whole ---- */

bool tls_create(struct tls **result, const char *certificate_path, const char *key_path, struct tls_error *error)
{
    struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return fail(error, certificate_path, "out of memory");
    pthread_mutex_init(&tls->mutex, NULL);
    tls->certificate_path = strdup(certificate_path);
    tls->key_path = strdup(key_path);
    if (!tls->certificate_path || !tls->key_path)
        fail(error, certificate_path, "out of memory");
    else if ((tls->current = load_pair(tls, error)) != NULL) {
        *result = tls;
        return true;
    }
    tls_free(tls);
    return false;
}

bool tls_reload(struct tls *tls, struct tls_error *error)
{
    struct tls_pair *fresh = load_pair(tls, error);
    if (!fresh)
        return false;
    pthread_mutex_lock(&tls->mutex);
    struct tls_pair *old = tls->current;
    tls->current = fresh;
    pthread_mutex_unlock(&tls->mutex);
    tls_end(tls, old);
    return true;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    free_pair(tls->current);
    pthread_mutex_destroy(&tls->mutex);
    free(tls->certificate_path);
    free(tls->key_path);
    free(tls);
}

void tls_status(const struct tls *tls, struct tls_status *status)
{
    const struct tls_pair *pair = tls->current;
    const time_t now = time(NULL);
    char day[32];
    *status = (struct tls_status){.valid_from = pair->valid_from, .valid_until = pair->valid_until};
    memcpy(status->subject, pair->subject, sizeof status->subject);
    const bool early = now < pair->valid_from;
    if (!early && now <= pair->valid_until)
        return;
    struct tm utc;
    gmtime_r(early ? &pair->valid_from : &pair->valid_until, &utc);
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(status->warning, sizeof status->warning, "%.250s: the certificate %s %s", tls->certificate_path,
             early ? "is not valid before" : "expired at", day);
}

/* ---- connections ---- */

struct tls_pair *tls_begin(struct tls *tls, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    if (!info)
        return NULL;
    pthread_mutex_lock(&tls->mutex);
    struct tls_pair *pair = tls->current;
    pair->references++;
    pthread_mutex_unlock(&tls->mutex);
    if (gnutls_credentials_set(info->tls_session, GNUTLS_CRD_CERTIFICATE, pair->credentials) >= 0)
        return pair;
    tls_end(tls, pair);
    return NULL;
}

void tls_end(struct tls *tls, struct tls_pair *pair)
{
    if (!pair)
        return;
    pthread_mutex_lock(&tls->mutex);
    const bool unused = --pair->references == 0;
    pthread_mutex_unlock(&tls->mutex);
    if (unused)
        free_pair(pair);
}
