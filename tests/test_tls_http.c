/*
 * test_tls_http.c - HTTPS by the real daemon: with libcurl, which trusts the test's certificate alone, and with a GnuTLS
 * client of our own where it matters what happens on one connection.
 */
#include <arpa/inet.h>
#include <check.h>
#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/certificates.h"
#include "tests/daemon.h"
#include "tests/photos.h"
#include "tests/scratch.h"
#include "tests/suite.h"

#define SMALL "tests/golden/vit-hf"
#define BUNDLED "config/models/vit-tiny-64"

/* `more` are members. */
static const char *write_config(const char *model, const char *more)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    return scratch_text("vitd.json", "{\"tls\": {\"certificate\": \"cert.pem\", \"key\": \"key.pem\"}, %s "
                                     "\"threads\": 2, \"models\": [{\"name\": \"small\", \"path\": \"%s/%s\"}]}",
                        more, here, model);
}

/* With the pair CN=first. */
static struct daemon start_with(const char *model, const char *more)
{
    write_pair("first", scratch_path("cert.pem"), scratch_path("key.pem"));
    struct daemon daemon = daemon_start_file(write_config(model, more), NULL);
    snprintf(daemon.certificate, sizeof daemon.certificate, "%s", scratch_path("cert.pem"));
    return daemon;
}

static struct daemon start(const char *more)
{
    return start_with(SMALL, more);
}

static void assert_served(const struct daemon *daemon)
{
    struct reply reply = daemon_get(daemon, "/models/small");
    ck_assert_msg(reply.curl == CURLE_OK && reply.status == 200, "%s", curl_easy_strerror(reply.curl));
    reply_free(&reply);
}

/* ---- one connection ---- */

struct client {
    int fd;
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
};

/* Connected, and not a byte of a handshake sent. */
static struct client connect_to(const struct daemon *daemon)
{
    const struct timeval limit = {.tv_sec = 20};
    struct client client = {.fd = daemon_connect(daemon)};
    setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ck_assert_int_ge(gnutls_init(&client.session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), 0);
    ck_assert_int_ge(gnutls_set_default_priority(client.session), 0);
    ck_assert_int_ge(gnutls_certificate_allocate_credentials(&client.credentials), 0);
    ck_assert_int_ge(gnutls_credentials_set(client.session, GNUTLS_CRD_CERTIFICATE, client.credentials), 0);
    gnutls_transport_set_int(client.session, client.fd);
    return client;
}

static void shake_hands(struct client *client)
{
    int code;
    do
        code = gnutls_handshake(client->session);
    while (code < 0 && !gnutls_error_is_fatal(code));
    ck_assert_msg(code == 0, "%s", gnutls_strerror(code));
}

static struct client open_client(const struct daemon *daemon)
{
    struct client client = connect_to(daemon);
    shake_hands(&client);
    return client;
}

static void close_client(struct client *client)
{
    gnutls_deinit(client->session);
    gnutls_certificate_free_credentials(client->credentials);
    close(client->fd);
}

/* The name in the certificate that the server showed; in static memory. */
static const char *peer_name(const struct client *client)
{
    static char name[64];
    size_t length = sizeof name;
    unsigned count;
    gnutls_x509_crt_t certificate;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(client->session, &count);
    ck_assert_ptr_nonnull(list);
    ck_assert_int_ge(gnutls_x509_crt_init(&certificate), 0);
    ck_assert_int_ge(gnutls_x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER), 0);
    ck_assert_int_ge(gnutls_x509_crt_get_dn(certificate, name, &length), 0);
    gnutls_x509_crt_deinit(certificate);
    return name;
}

static void send_all(struct client *client, const void *bytes, size_t length)
{
    for (size_t sent = 0; sent < length;) {
        const ssize_t n = gnutls_record_send(client->session, (const char *)bytes + sent, length - sent);
        ck_assert_msg(n > 0 || n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED, "%s", gnutls_strerror((int)n));
        sent += n > 0 ? (size_t)n : 0;
    }
}

/* What gnutls_record_recv() says, session tickets aside. */
static ssize_t receive(struct client *client, char *bytes, size_t size)
{
    ssize_t n;
    do
        n = gnutls_record_recv(client->session, bytes, size);
    while (n == GNUTLS_E_INTERRUPTED || (n == GNUTLS_E_AGAIN && gnutls_record_check_pending(client->session) > 0));
    return n;
}

/* A whole reply with a Content-Length, and its status; *text is to be freed. */
static long read_reply(struct client *client, char **text)
{
    enum { MOST = 1 << 20 };
    char *reply = calloc(1, MOST);
    size_t got = 0, wanted = SIZE_MAX;
    while (got < wanted) {
        const ssize_t n = receive(client, reply + got, MOST - 1 - got);
        ck_assert_msg(n > 0, "%s, after \"%s\"", n < 0 ? gnutls_strerror((int)n) : "the end", reply);
        got += (size_t)n;
        const char *end = strstr(reply, "\r\n\r\n"), *length = strcasestr(reply, "content-length: ");
        if (end != NULL && length != NULL)
            wanted = (size_t)(end + 4 - reply) + (size_t)atol(length + 16);
    }
    ck_assert_int_eq(strncmp(reply, "HTTP/1.1 ", 9), 0);
    const long status = atol(reply + 9);
    if (text != NULL)
        *text = reply;
    else
        free(reply);
    return status;
}

static long ask(struct client *client, const char *request)
{
    send_all(client, request, strlen(request));
    return read_reply(client, NULL);
}

/* ---- requests ---- */

START_TEST(test_photographs_over_https_are_those_of_http)
{
    const size_t most = getenv("VITD_SANITIZED") != NULL ? 2 : 12; /* the arithmetic takes their time */
    char *names[MAX_PHOTOS];
    char member[300];
    size_t count = photos_list(names);
    if (count == 0) {
        names[count++] = strdup("config/samples/cat.jpg");
        names[count++] = strdup("config/samples/coffee.jpg");
    }
    snprintf(member, sizeof member, "\"listen\": {\"socket\": \"%s\"},", scratch_path("vitd.sock"));
    struct daemon daemon = start_with(BUNDLED, member), plain = daemon;
    snprintf(plain.socket, sizeof plain.socket, "%s", scratch_path("vitd.sock"));
    plain.certificate[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t length;
        unsigned char *photo = i < most ? test_file(names[i], &length) : NULL;
        free(names[i]);
        if (photo == NULL)
            continue;
        struct reply over_tls = daemon_post(&daemon, "/explain", photo, length);
        struct reply over_unix = daemon_post(&plain, "/explain", photo, length);
        ck_assert_msg(over_tls.status == 200 && over_unix.status == 200, "%ld %ld", over_tls.status, over_unix.status);
        ck_assert_str_eq(reply_header(&over_tls, "Content-Type"), "image/png");
        ck_assert_uint_eq(over_tls.length, over_unix.length);
        ck_assert_mem_eq(over_tls.body, over_unix.body, over_tls.length);
        reply_free(&over_tls);
        reply_free(&over_unix);
        free(photo);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_large_bodies_are_refused_over_https)
{
    const size_t length = 3 << 20;
    char *body = calloc(1, length);
    struct daemon daemon = start("\"limits\": {\"max_body_bytes\": 1000000},");
    for (int i = 0; i < 4; i++) {
        struct reply reply = daemon_post(&daemon, "/classify", body, length);
        reply_assert_error(&reply, 413, "body_too_large");
        reply_free(&reply);
    }
    assert_served(&daemon);
    free(body);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_connections_are_kept)
{
    size_t length;
    char head[128];
    struct daemon daemon = start("");
    unsigned char *picture = test_file("tests/golden/vit-hf/input.png", &length);
    struct client client = open_client(&daemon);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(ask(&client, "GET /models HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
        sprintf(head, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", length);
        send_all(&client, head, strlen(head));
        send_all(&client, picture, length);
        ck_assert_int_eq(read_reply(&client, NULL), 200);
    }
    ck_assert_int_eq(ask(&client, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 200);
    char rest[64];
    ck_assert_int_eq(receive(&client, rest, sizeof rest), 0); /* a close_notify, no cut */
    daemon_await_log(&daemon, "GET /healthz 200 ", 1);
    daemon_await_log(&daemon, " peer=127.0.0.1", 1);
    close_client(&client);
    free(picture);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_plain_http_is_not_answered)
{
    struct daemon daemon = start("");
    const char *const texts[] = {"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
                                 "\r\n\r\n\r\n\r\n\r\n\r\n"};
    for (size_t i = 0; i < 3; i++) {
        const double begin = test_clock();
        char *answer = daemon_exchange(&daemon, texts[i], strlen(texts[i]));
        ck_assert_msg(strstr(answer, "HTTP/") == NULL, "%s", answer);
        ck_assert_double_lt(test_clock() - begin, 5); /* limits.header_timeout_ms is 15 s */
        free(answer);
    }
    assert_served(&daemon);
    daemon.certificate[0] = '\0';
    struct reply reply = daemon_get(&daemon, "/healthz");
    ck_assert_int_ne(reply.curl, CURLE_OK);
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the certificate ---- */

START_TEST(test_certificate_changes_while_connections_are_open)
{
    struct daemon daemon = start("");
    struct client open = open_client(&daemon), silent = connect_to(&daemon);
    assert_served(&daemon); /* whose connection came after the silent one */
    write_pair("second", scratch_path("cert.pem"), scratch_path("key.pem"));
    ck_assert(daemon_reload(&daemon));
    assert_served(&daemon); /* libcurl trusts nothing but the second now */
    ck_assert_int_eq(ask(&open, "GET /models HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    shake_hands(&silent);
    ck_assert_str_eq(peer_name(&silent), "CN=first");
    ck_assert_int_eq(ask(&silent, "GET /models HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    struct client fresh = open_client(&daemon);
    ck_assert_str_eq(peer_name(&fresh), "CN=second");
    close_client(&open);
    close_client(&silent);
    close_client(&fresh);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_broken_certificate_is_refused)
{
    char byte;
    struct daemon daemon = start("");
    struct maker other = make_certificate("second", -1, 30, NULL);
    write_key(&other, scratch_path("key.pem")); /* and the certificate is the first one's */
    write_config(SMALL, "\"limits\": {\"header_timeout_ms\": 300},");
    ck_assert(!daemon_reload(&daemon));
    daemon_await_log(&daemon, "does not belong to the certificate", 1);
    assert_served(&daemon);
    write_certificate(&other, scratch_path("cert.pem"), "w");
    ck_assert(daemon_reload(&daemon));
    assert_served(&daemon); /* with the second: libcurl trusts nothing else now */
    const double begin = test_clock();
    const int fd = daemon_connect(&daemon);
    ck_assert_int_eq(recv(fd, &byte, 1, 0), 0);
    ck_assert_double_lt(test_clock() - begin, 5); /* and no 15 s */
    close(fd);
    free_maker(&other);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_start_needs_a_pair)
{
    const char *path = scratch_text("vitd.json", "{\"tls\": {\"certificate\": \"cert.pem\", \"key\": \"key.pem\"}}");
    char *log = daemon_fail(path);
    ck_assert_msg(strstr(log, "cert.pem: No such file") != NULL, "%s", log);
    free(log);
    write_pair("first", scratch_path("cert.pem"), scratch_path("key.pem"));
    scratch_text("key.pem", "no key");
    log = daemon_fail(path);
    ck_assert_msg(strstr(log, "key.pem: holds no private key") != NULL, "%s", log);
    free(log);
}
END_TEST

/* ---- slow clients ---- */

/* Sends `head`, then a byte every 50 ms; the seconds until the daemon ends the connection, which is asserted to be without
 * a byte that is not TLS. */
static double drip(const struct daemon *daemon, const char *head)
{
    char byte = 'x';
    struct client client = open_client(daemon);
    const double begin = test_clock();
    gnutls_record_set_timeout(client.session, 50);
    send_all(&client, head, strlen(head));
    ssize_t n;
    do {
        n = gnutls_record_recv(client.session, &byte, 1);
        ck_assert_msg(n <= 0, "an answer: %c...", byte);
        byte = 'x';
    } while ((n == GNUTLS_E_TIMEDOUT || n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) &&
             test_clock() - begin < 20 && gnutls_record_send(client.session, &byte, 1) == 1);
    ck_assert_msg(n == 0 || n == GNUTLS_E_PREMATURE_TERMINATION || n == GNUTLS_E_PULL_ERROR || n == GNUTLS_E_AGAIN ||
                      n == GNUTLS_E_TIMEDOUT, "%s", gnutls_strerror((int)n));
    close_client(&client);
    return test_clock() - begin;
}

START_TEST(test_slow_clients_are_cut)
{
    static const char hello[] = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"; /* the start of a ClientHello */
    static const char *const heads[] = {"", "GET /models HTTP/1.1\r\nHost: a\r\nX-A: ",
                                        "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"};
    struct daemon daemon = start("\"limits\": {\"header_timeout_ms\": 700, \"body_timeout_ms\": 700},");
    for (size_t i = 0; i < 3; i++) {
        const double seconds = drip(&daemon, heads[i]);
        ck_assert_msg(seconds > 0.5 && seconds < 5, "case %zu: %g s", i, seconds);
    }
    for (int i = 0; i < 2; i++) {
        const double begin = test_clock();
        char *answer = daemon_exchange(&daemon, hello, i == 0 ? 0 : sizeof hello - 1);
        ck_assert_msg(*answer == '\0', "%s", answer);
        ck_assert_double_lt(test_clock() - begin, 5);
        free(answer);
    }
    struct reply reply = daemon_get(&daemon, "/metrics"); /* those whose requests had begun */
    ck_assert_double_eq(reply_metric(&reply, "vitd_rejected_total{reason=\"slow_client\"}"), 2);
    ck_assert_double_eq(reply_metric(&reply, "vitd_rejected_total{reason=\"client_gone\"}"), 0);
    reply_free(&reply);
    daemon_await_log(&daemon, " - /models 408 ", 1);
    daemon_await_log(&daemon, "POST /classify 408 ", 1);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the end ---- */

START_TEST(test_idle_connections_do_not_hold_up_the_end)
{
    struct daemon daemon = start("");
    struct client silent = connect_to(&daemon), ready = open_client(&daemon), used = open_client(&daemon);
    ck_assert_int_eq(ask(&used, "GET /models HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
    usleep(300000); /* the sweep has seen the bytes of the handshakes */
    ck_assert_double_lt(daemon_stop(&daemon), 5); /* limits.header_timeout_ms is 15 s */
    close_client(&silent);
    close_client(&ready);
    close_client(&used);
}
END_TEST

START_TEST(test_requests_under_way_are_finished)
{
    size_t length;
    char head[128], *reply;
    struct daemon daemon = start("");
    unsigned char *picture = test_file("tests/golden/vit-hf/input.png", &length);
    struct client client = open_client(&daemon);
    sprintf(head, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", length);
    send_all(&client, head, strlen(head));
    send_all(&client, picture, length / 2);
    usleep(100000);
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    usleep(700000); /* by then what is idle is closed */
    send_all(&client, picture + length / 2, length - length / 2);
    ck_assert_int_eq(read_reply(&client, &reply), 200);
    ck_assert_msg(strcasestr(reply, "\r\nConnection: close\r\n") != NULL, "%s", reply);
    ck_assert_double_lt(daemon_end(&daemon), 5);
    close_client(&client);
    free(picture);
    free(reply);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("TLS over HTTP");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, scratch_make, scratch_remove);
    tcase_add_test(tests, test_photographs_over_https_are_those_of_http);
    tcase_add_test(tests, test_large_bodies_are_refused_over_https);
    tcase_add_test(tests, test_connections_are_kept);
    tcase_add_test(tests, test_plain_http_is_not_answered);
    tcase_add_test(tests, test_certificate_changes_while_connections_are_open);
    tcase_add_test(tests, test_broken_certificate_is_refused);
    tcase_add_test(tests, test_start_needs_a_pair);
    tcase_add_test(tests, test_slow_clients_are_cut);
    tcase_add_test(tests, test_idle_connections_do_not_hold_up_the_end);
    tcase_add_test(tests, test_requests_under_way_are_finished);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
