/*
 * tls.h - the server's certificate and key, which can be read again while it runs.
 *
 * For libmicrohttpd: MHD_USE_TLS, MHD_OPTION_ARRAY with tls_options, and in the callback of MHD_OPTION_NOTIFY_CONNECTION
 * tls_begin() and tls_end(). A connection keeps the pair that was in use when it began, whatever is loaded meanwhile.
 *
 * tls_reload() and tls_status() belong to one thread, tls_begin() and tls_end() may be called by any.
 */
#ifndef SERVER_HTTP_TLS_H
#define SERVER_HTTP_TLS_H

#include <microhttpd.h>
#include <stdbool.h>
#include <time.h>

struct tls;
struct tls_pair; /* a certificate with its key */

struct tls_error {
    char message[384];
};

/* TLS 1.3 and 1.2, key exchanges with forward secrecy, ciphers that authenticate; the server's order counts. */
#define TLS_PRIORITIES \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-DHE-RSA:-AES-128-CBC:-AES-256-CBC:-SHA1:%SERVER_PRECEDENCE"

/* The priorities, and no certificate but that of tls_begin(); ends with MHD_OPTION_END. */
extern struct MHD_OptionItem tls_options[];

/* Reads PEM files of at most 1 MiB: a certificate, or a chain that begins with the server's own, and its unencrypted key.
 * An error names the file and says what is wrong with it. The paths are copied. */
bool tls_create(struct tls **tls, const char *certificate_path, const char *key_path, struct tls_error *error);
/* Reads both files again, for the connections to come; on failure the old pair stays in use. */
bool tls_reload(struct tls *tls, struct tls_error *error);
/* Accepts NULL. Every connection has ended. */
void tls_free(struct tls *tls);

/* The certificate in use, for the log. */
struct tls_status {
    char subject[128];              /* distinguished name, cut to fit */
    time_t valid_from, valid_until;
    char warning[320];              /* names the file if it has expired or is not valid yet; else "" */
};
void tls_status(const struct tls *tls, struct tls_status *status);

/* On MHD_CONNECTION_NOTIFY_STARTED: has the connection's handshake use the current pair. What it returns is for tls_end(), on
 * MHD_CONNECTION_NOTIFY_CLOSED. NULL when the connection is not TLS, or memory is short; its handshake will then fail. */
struct tls_pair *tls_begin(struct tls *tls, struct MHD_Connection *connection);
/* Accepts a NULL pair. */
void tls_end(struct tls *tls, struct tls_pair *pair);

#endif
