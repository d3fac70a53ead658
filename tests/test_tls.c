/* test_tls.c - certificates: what is wrong with files, and which pair a live libmicrohttpd serves while they change. */
#include <arpa/inet.h>
#include <check.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/http/tls.h"
#include "tests/certificates.h"
#include "tests/suite.h"

enum { DAY = 86400, PEM_BYTES = 8192 };

/* ---- a folder with cert.pem and key.pem ---- */

static char folder[32], certificate_path[64], key_path[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/vitd-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(certificate_path, sizeof certificate_path, "%s/cert.pem", folder);
    snprintf(key_path, sizeof key_path, "%s/key.pem", folder);
}

static void remove_folder(void)
{
    unlink(certificate_path);
    unlink(key_path);
    rmdir(folder);
}

static void write_text(const char *path, const char *mode, const void *text, size_t length)
{
    FILE *file = fopen(path, mode);
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, length, file), length);
    fclose(file);
}

static struct tls *create(void)
{
    struct tls *tls = NULL;
    struct tls_error error = {""};
    ck_assert_msg(tls_create(&tls, certificate_path, key_path, &error), "%s", error.message);
    return tls;
}

/* The error of loading what is there: names `path`, and says `what`. */
static void assert_refused(const char *path, const char *what)
{
    struct tls *tls = NULL;
    struct tls_error error = {""};
    ck_assert_msg(!tls_create(&tls, certificate_path, key_path, &error), "taken, though: %s", what);
    ck_assert_ptr_null(tls);
    ck_assert_msg(strncmp(error.message, path, strlen(path)) == 0 && strstr(error.message, what) != NULL, "%s",
                  error.message);
}

/* ---- a server, and clients of it ---- */

struct server {
    struct MHD_Daemon *daemon;
    struct tls *tls;
    int port;
    atomic_int begun, ended;
};

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct server *server = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = tls_begin(server->tls, connection);
        server->begun++;
    } else {
        tls_end(server->tls, *socket_context);
        server->ended++;
    }
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **request)
{
    (void)context, (void)url, (void)method, (void)version, (void)upload, (void)upload_size, (void)request;
    struct MHD_Response *response = MHD_create_response_from_buffer(5, "hello", MHD_RESPMEM_PERSISTENT);
    const enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

/* As http.c starts it, and with TLS. */
static void start(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 16), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    server->tls = create();
    server->port = ntohs(address.sin_port);
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_TLS, 0,
        NULL, NULL, on_request, server, MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        server, MHD_OPTION_ARRAY, tls_options, MHD_OPTION_END);
    ck_assert_ptr_nonnull(server->daemon);
}

static void stop(struct server *server)
{
    MHD_stop_daemon(server->daemon); /* closes the listener, too */
    ck_assert_int_eq(server->begun, server->ended);
    tls_free(server->tls);
}

struct client {
    int fd;
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
};

/* Connects, and returns when the server has begun the connection; not a byte of a handshake is sent. */
static struct client connect_to(struct server *server, const char *priorities)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)server->port)};
    const struct timeval limit = {.tv_sec = 10};
    const int begun = server->begun;
    struct client client = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ck_assert_int_eq(connect(client.fd, (const struct sockaddr *)&address, sizeof address), 0);
    for (int tries = 0; server->begun == begun && tries < 5000; tries++)
        usleep(1000);
    ck_assert_int_eq(server->begun, begun + 1);
    ck_assert_int_ge(gnutls_init(&client.session, GNUTLS_CLIENT), 0);
    ck_assert_int_ge(gnutls_priority_set_direct(client.session, priorities, NULL), 0);
    ck_assert_int_ge(gnutls_certificate_allocate_credentials(&client.credentials), 0);
    ck_assert_int_ge(gnutls_credentials_set(client.session, GNUTLS_CRD_CERTIFICATE, client.credentials), 0);
    gnutls_transport_set_int(client.session, client.fd);
    return client;
}

static void disconnect(struct client *client)
{
    gnutls_deinit(client->session);
    gnutls_certificate_free_credentials(client->credentials);
    close(client->fd);
}

static int shake_hands(struct client *client)
{
    int code;
    do
        code = gnutls_handshake(client->session);
    while (code < 0 && !gnutls_error_is_fatal(code));
    return code;
}

/* The name of the certificate that the server showed. */
static const char *peer_name(const struct client *client, unsigned *count)
{
    static char name[64];
    size_t length = sizeof name;
    gnutls_x509_crt_t certificate;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(client->session, count);
    ck_assert_ptr_nonnull(list);
    ck_assert_int_ge(gnutls_x509_crt_init(&certificate), 0);
    ck_assert_int_ge(gnutls_x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER), 0);
    ck_assert_int_ge(gnutls_x509_crt_get_dn(certificate, name, &length), 0);
    gnutls_x509_crt_deinit(certificate);
    return name;
}

static void assert_answers(struct client *client)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    char reply[1024] = "";
    size_t got = 0;
    ck_assert_int_eq(gnutls_record_send(client->session, request, sizeof request - 1), sizeof request - 1);
    while (strstr(reply, "hello") == NULL) {
        const ssize_t n = gnutls_record_recv(client->session, reply + got, sizeof reply - 1 - got);
        if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
            continue; /* a session ticket came */
        ck_assert_msg(n > 0, "%s, after \"%s\"", n < 0 ? gnutls_strerror((int)n) : "the end", reply);
        got += (size_t)n;
        reply[got] = '\0';
    }
    ck_assert_int_eq(strncmp(reply, "HTTP/1.1 200 ", 13), 0);
}

static void assert_serves(struct server *server, const char *name)
{
    unsigned count;
    struct client client = connect_to(server, "NORMAL");
    const int code = shake_hands(&client);
    ck_assert_msg(code == 0, "%s", gnutls_strerror(code));
    ck_assert_str_eq(peer_name(&client, &count), name);
    assert_answers(&client);
    disconnect(&client);
}

/* ---- serving ---- */

START_TEST(test_reload_serves_the_new_pair)
{
    struct server server = {0};
    struct tls_error error = {""};
    write_pair("first", certificate_path, key_path);
    start(&server);
    assert_serves(&server, "CN=first");
    write_pair("second", certificate_path, key_path);
    assert_serves(&server, "CN=first"); /* nobody has asked for a reload */
    ck_assert_msg(tls_reload(server.tls, &error), "%s", error.message);
    assert_serves(&server, "CN=second");
    ck_assert_msg(tls_reload(server.tls, &error), "%s", error.message);
    assert_serves(&server, "CN=second");
    stop(&server);
}
END_TEST

START_TEST(test_failed_reload_keeps_the_old_pair)
{
    struct server server = {0};
    struct tls_error error = {""};
    write_pair("first", certificate_path, key_path);
    start(&server);
    struct maker other = make_certificate("second", -1, 30, NULL);
    write_certificate(&other, certificate_path, "w"); /* the key is still the first one's */
    ck_assert(!tls_reload(server.tls, &error));
    ck_assert_msg(strstr(error.message, "does not belong to the certificate") != NULL, "%s", error.message);
    assert_serves(&server, "CN=first");
    write_text(key_path, "w", "broken", 6);
    ck_assert(!tls_reload(server.tls, &error));
    ck_assert_int_eq(strncmp(error.message, key_path, strlen(key_path)), 0);
    assert_serves(&server, "CN=first");
    write_key(&other, key_path);
    ck_assert_msg(tls_reload(server.tls, &error), "%s", error.message);
    assert_serves(&server, "CN=second");
    free_maker(&other);
    stop(&server);
}
END_TEST

/* One connection has shaken hands, one has not said a word yet, while the pair changes twice. */
START_TEST(test_connections_keep_the_pair_they_began_with)
{
    struct server server = {0};
    struct tls_error error = {""};
    unsigned count;
    write_pair("first", certificate_path, key_path);
    start(&server);
    struct client open = connect_to(&server, "NORMAL"), silent = connect_to(&server, "NORMAL");
    ck_assert_int_eq(shake_hands(&open), 0);
    write_pair("second", certificate_path, key_path);
    ck_assert_msg(tls_reload(server.tls, &error), "%s", error.message);
    ck_assert_msg(tls_reload(server.tls, &error), "%s", error.message);
    assert_answers(&open);
    ck_assert_int_eq(shake_hands(&silent), 0);
    ck_assert_str_eq(peer_name(&silent, &count), "CN=first");
    assert_answers(&silent);
    assert_serves(&server, "CN=second");
    disconnect(&open);
    disconnect(&silent);
    stop(&server);
}
END_TEST

START_TEST(test_chain_is_served_whole)
{
    struct server server = {0};
    unsigned count;
    struct maker issuer = make_certificate("issuer", -1, 30, NULL);
    struct maker leaf = make_certificate("leaf", -1, 30, &issuer);
    write_certificate(&leaf, certificate_path, "w");
    write_certificate(&issuer, certificate_path, "a");
    write_key(&leaf, key_path);
    start(&server);
    struct client client = connect_to(&server, "NORMAL");
    ck_assert_int_eq(shake_hands(&client), 0);
    ck_assert_str_eq(peer_name(&client, &count), "CN=leaf");
    ck_assert_uint_eq(count, 2);
    disconnect(&client);
    stop(&server);
    free_maker(&issuer);
    free_maker(&leaf);
}
END_TEST

START_TEST(test_protocol_is_at_least_tls_1_2)
{
    static const struct {
        const char *priorities;
        bool accepted;
    } cases[] = {
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC:+AES-256-CBC", false},
    };
    struct server server = {0};
    write_pair("first", certificate_path, key_path);
    start(&server);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct client client = connect_to(&server, cases[i].priorities);
        ck_assert_msg((shake_hands(&client) == 0) == cases[i].accepted, "%s", cases[i].priorities);
        disconnect(&client);
    }
    stop(&server);
}
END_TEST

/* ---- files ---- */

START_TEST(test_errors_name_the_file_and_what_is_wrong)
{
    static const char no_pem[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    static char large[(1 << 20) + 1];
    struct maker other = make_certificate("other", -1, 30, NULL);
    assert_refused(certificate_path, "No such file");
    write_certificate(&other, certificate_path, "w");
    assert_refused(key_path, "No such file");
    write_text(key_path, "w", "", 0);
    assert_refused(key_path, "no private key in PEM");
    unlink(key_path);
    ck_assert_int_eq(mkdir(key_path, 0700), 0);
    assert_refused(key_path, "Is a directory");
    rmdir(key_path);
    write_text(key_path, "w", large, sizeof large);
    assert_refused(key_path, "more than 1 MiB");
    write_pair("first", certificate_path, key_path);
    write_text(certificate_path, "w", "", 0);
    assert_refused(certificate_path, "no certificate in PEM");
    write_text(certificate_path, "w", no_pem, sizeof no_pem - 1);
    assert_refused(certificate_path, "not a certificate in PEM");
    write_key(&other, key_path);
    rename(key_path, certificate_path);
    write_key(&other, key_path);
    assert_refused(certificate_path, "no certificate in PEM");
    write_pair("first", certificate_path, key_path);
    write_key(&other, key_path);
    assert_refused(key_path, "does not belong to the certificate");
    free_maker(&other);
}
END_TEST

START_TEST(test_chain_begins_with_the_leaf)
{
    struct maker issuer = make_certificate("issuer", -1, 30, NULL);
    struct maker leaf = make_certificate("leaf", -1, 30, &issuer);
    write_certificate(&issuer, certificate_path, "w");
    write_certificate(&leaf, certificate_path, "a");
    write_key(&leaf, key_path);
    assert_refused(certificate_path, "out of order");
    free_maker(&issuer);
    free_maker(&leaf);
}
END_TEST

START_TEST(test_encrypted_key_is_refused)
{
    char pem[PEM_BYTES];
    size_t length = sizeof pem;
    struct maker made = make_certificate("first", -1, 30, NULL);
    write_certificate(&made, certificate_path, "w");
    ck_assert_int_ge(gnutls_x509_privkey_export_pkcs8(made.key, GNUTLS_X509_FMT_PEM, "secret", GNUTLS_PKCS_PBES2_AES_128,
                                                      pem, &length), 0);
    write_text(key_path, "w", pem, length);
    assert_refused(key_path, "encrypted");
    free_maker(&made);
}
END_TEST

START_TEST(test_dates_are_only_warned_of)
{
    static const struct {
        int from, until;
        const char *warning;
    } cases[] = {{-1, 30, ""}, {-30, -1, "expired at 20"}, {1, 30, "is not valid before 20"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tls_status status;
        struct maker made = make_certificate("first", cases[i].from, cases[i].until, NULL);
        write_certificate(&made, certificate_path, "w");
        write_key(&made, key_path);
        struct tls *tls = create();
        tls_status(tls, &status);
        ck_assert_str_eq(status.subject, "CN=first");
        ck_assert_int_le(labs((long)(status.valid_until - (time(NULL) + cases[i].until * DAY))), 60);
        ck_assert_msg(strstr(status.warning, cases[i].warning) != NULL, "%s", status.warning);
        ck_assert_int_eq(status.warning[0] == '\0', cases[i].warning[0] == '\0');
        tls_free(tls);
        free_maker(&made);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tls");
    TCase *tests = tcase_create("tls");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, make_folder, remove_folder);
    tcase_add_test(tests, test_reload_serves_the_new_pair);
    tcase_add_test(tests, test_failed_reload_keeps_the_old_pair);
    tcase_add_test(tests, test_connections_keep_the_pair_they_began_with);
    tcase_add_test(tests, test_chain_is_served_whole);
    tcase_add_test(tests, test_protocol_is_at_least_tls_1_2);
    tcase_add_test(tests, test_errors_name_the_file_and_what_is_wrong);
    tcase_add_test(tests, test_chain_begins_with_the_leaf);
    tcase_add_test(tests, test_encrypted_key_is_refused);
    tcase_add_test(tests, test_dates_are_only_warned_of);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
