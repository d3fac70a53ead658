/*
 * test_sockets.c - where the real daemon listens: a Unix socket of its own, sockets that were passed to it; and how many
 * connections one address may have.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/scratch.h"
#include "tests/suite.h"

/* `more` are members. */
static const char *write_config(const char *more)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    return scratch_text("vitd.json", "{%s%s \"models\": [{\"name\": \"small\", \"path\": \"%s/tests/golden/vit-hf\"}]}",
                        more, *more ? "," : "", here);
}

static struct daemon start_at(const char *socket)
{
    char more[400];
    snprintf(more, sizeof more, "\"listen\": {\"socket\": \"%s\"}", socket);
    struct daemon daemon = daemon_start_file(write_config(more), NULL);
    snprintf(daemon.socket, sizeof daemon.socket, "%s", socket);
    return daemon;
}

static long status_of(const struct daemon *daemon)
{
    struct reply reply = daemon_get(daemon, "/models/small");
    const long status = reply.curl == CURLE_OK ? reply.status : 0;
    reply_free(&reply);
    return status;
}

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return address;
}

/* A socket bound to the path; type as socket()'s. */
static int bind_unix(const char *path, int type)
{
    const struct sockaddr_un address = unix_address(path);
    const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static bool exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

/* Asserts that it does not start with that socket, and says why. */
static void assert_refused(const char *socket, const char *says)
{
    char more[600];
    snprintf(more, sizeof more, "\"listen\": {\"socket\": \"%s\", \"port\": 0}", socket);
    char *log = daemon_fail(write_config(more));
    ck_assert_msg(strstr(log, says) != NULL, "no \"%s\" in %s", says, log);
    free(log);
}

/* ---- a Unix socket ---- */

START_TEST(test_unix_socket_serves_beside_tcp)
{
    size_t length;
    const char *path = scratch_path("vitd.sock");
    unsigned char *picture = test_file("tests/golden/vit-hf/input.png", &length);
    struct daemon daemon = start_at(path), tcp = daemon;
    tcp.socket[0] = '\0';
    struct reply reply = daemon_post(&daemon, "/classify", picture, length);
    cJSON *json = reply_json(&reply);
    ck_assert_int_eq(reply.status, 200);
    ck_assert_ptr_nonnull(top_label(json));
    cJSON_Delete(json);
    reply_free(&reply);
    ck_assert_int_eq(status_of(&tcp), 200);
    char line[400];
    snprintf(line, sizeof line, "listening on unix:%s ", path);
    daemon_await_log(&daemon, line, 1);
    daemon_await_log(&daemon, "listening on http://127.0.0.1:", 1);
    daemon_await_log(&daemon, " peer=-\n", 1);
    daemon_await_log(&daemon, " peer=127.0.0.1\n", 1);
    daemon_stop(&daemon);
    ck_assert(!exists(path));
    free(picture);
}
END_TEST

START_TEST(test_stale_socket_is_replaced)
{
    const char *path = scratch_path("vitd.sock");
    struct daemon daemon = start_at(path);
    ck_assert_int_eq(kill(daemon.pid, SIGKILL), 0);
    daemon_wait(&daemon);
    ck_assert(exists(path));
    close(daemon.log_fd);
    unlink(daemon.log_path);
    daemon = start_at(path);
    ck_assert_int_eq(status_of(&daemon), 200);
    daemon_stop(&daemon);
    ck_assert(!exists(path));
}
END_TEST

START_TEST(test_socket_in_use_is_refused)
{
    const char *path = scratch_path("vitd.sock");
    struct daemon daemon = start_at(path);
    assert_refused(path, "Address already in use");
    assert_refused(path, path);
    ck_assert_int_eq(status_of(&daemon), 200); /* the first has kept it */
    daemon_stop(&daemon);
    const int other = bind_unix(path, SOCK_DGRAM); /* of another program, in another way */
    assert_refused(path, "Address already in use");
    ck_assert(exists(path));
    close(other);
}
END_TEST

/* Connecting to a file fails just as connecting to a socket that nobody listens on. */
START_TEST(test_files_are_not_taken_for_stale_sockets)
{
    const char *path = scratch_text("precious", "text"), *link = scratch_path("link");
    assert_refused(path, "Address already in use");
    ck_assert_int_eq(symlink(path, link), 0);
    assert_refused(link, "Address already in use");
    ck_assert(exists(path) && exists(link));
    size_t length;
    char *text = (char *)test_file(path, &length);
    ck_assert_str_eq(text, "text");
    free(text);
    assert_refused(scratch_path(""), "Address already in use"); /* a folder */
    assert_refused(scratch_path("nowhere/vitd.sock"), "No such file or directory");
}
END_TEST

START_TEST(test_length_of_a_path_is_bounded)
{
    char name[128], says[64];
    const size_t most = sizeof ((struct sockaddr_un *)0)->sun_path - 1, folder = strlen(scratch_path(""));
    memset(name, 'a', sizeof name);
    name[most - folder + 1] = '\0';
    snprintf(says, sizeof says, "listen.socket: found a path of %zu bytes, allowed is up to %zu", most + 1, most);
    assert_refused(scratch_path(name), says);
    name[most - folder] = '\0';
    struct daemon daemon = start_at(scratch_path(name));
    ck_assert_int_eq(status_of(&daemon), 200);
    daemon_stop(&daemon);
    ck_assert(!exists(scratch_path(name)));
}
END_TEST

/* The next process may begin as soon as the old one has given the name up, and keeps it when that one ends. */
START_TEST(test_successor_keeps_its_socket)
{
    static const char head[] = "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    const char *path = scratch_path("vitd.sock");
    const struct sockaddr_un address = unix_address(path);
    struct daemon old = start_at(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* holds up the end of the old one */
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(send(fd, head, sizeof head - 1, MSG_NOSIGNAL), sizeof head - 1);
    usleep(100000);
    ck_assert_int_eq(kill(old.pid, SIGTERM), 0);
    for (int i = 0; exists(path) && i < 1000; i++)
        usleep(10000);
    ck_assert(!exists(path));
    struct daemon new = start_at(path);
    ck_assert_int_eq(status_of(&new), 200);
    ck_assert_int_eq(kill(old.pid, 0), 0);
    close(fd);
    const int status = daemon_wait(&old);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", status);
    ck_assert_int_eq(status_of(&new), 200);
    daemon_stop(&new);
    close(old.log_fd);
    unlink(old.log_path);
}
END_TEST

/* ---- sockets that are passed ---- */

START_TEST(test_passed_sockets_are_served)
{
    const char *path = scratch_path("passed.sock"), *own = scratch_path("own.sock");
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char more[400], line[400];
    const int sockets[] = {bind_unix(path, SOCK_STREAM), socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ck_assert_int_eq(bind(sockets[1], (struct sockaddr *)&address, length), 0);
    ck_assert_int_eq(getsockname(sockets[1], (struct sockaddr *)&address, &length), 0);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(listen(sockets[i], 16), 0);
    snprintf(more, sizeof more, "\"listen\": {\"socket\": \"%s\"}", own);
    struct daemon daemon = daemon_start_on(sockets, 2, write_config(more)), local = daemon;
    ck_assert_int_eq(daemon.port, ntohs(address.sin_port));
    snprintf(local.socket, sizeof local.socket, "%s", path);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(status_of(&daemon), 200);
        ck_assert_int_eq(status_of(&local), 200);
    }
    snprintf(line, sizeof line, "listening on unix:%s ", path);
    daemon_await_log(&daemon, line, 1);
    ck_assert(!exists(own)); /* where others say where to listen, the configuration does not */
    daemon_stop(&daemon);
    ck_assert(exists(path)); /* it is not the daemon's */
    daemon = daemon_start_on(sockets, 1, write_config("")); /* the next process serves what waits there */
    ck_assert_int_eq(daemon.port, 0);
    snprintf(daemon.socket, sizeof daemon.socket, "%s", path);
    ck_assert_int_eq(status_of(&daemon), 200);
    daemon_stop(&daemon);
    close(sockets[0]);
    close(sockets[1]);
}
END_TEST

/* ---- connections per address ---- */

/* A connection from an address of this machine (NULL: what the system takes) to the daemon at `to`. */
static int connect_from(int port, const char *from, const char *to)
{
    const bool v6 = strchr(to, ':') != NULL;
    struct sockaddr_in v4_from = {.sin_family = AF_INET};
    struct sockaddr_in v4_to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in6 v6_to = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    const int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (from != NULL) {
        inet_pton(AF_INET, from, &v4_from.sin_addr);
        ck_assert_int_eq(bind(fd, (struct sockaddr *)&v4_from, sizeof v4_from), 0);
    }
    ck_assert_int_eq(v6 ? inet_pton(AF_INET6, to, &v6_to.sin6_addr) : inet_pton(AF_INET, to, &v4_to.sin_addr), 1);
    const int code = v6 ? connect(fd, (struct sockaddr *)&v6_to, sizeof v6_to)
                        : connect(fd, (struct sockaddr *)&v4_to, sizeof v4_to);
    ck_assert_msg(code == 0, "%s", strerror(errno));
    return fd;
}

/* Whether a request on the connection is answered. */
static bool answers(int fd)
{
    static const char text[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    char reply[1024];
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    if (send(fd, text, sizeof text - 1, MSG_NOSIGNAL) < 0)
        return false;
    ck_assert_int_eq(poll(&poller, 1, 10000), 1);
    const ssize_t n = recv(fd, reply, sizeof reply, 0);
    return n > 12 && strncmp(reply, "HTTP/1.1 200", 12) == 0;
}

/* Opens connections until one is not answered; how many were, in fds. */
static int fill(int port, const char *from, const char *to, int *fds, int most)
{
    for (int count = 0; count < most; count++) {
        fds[count] = connect_from(port, from, to);
        if (!answers(fds[count])) {
            close(fds[count]);
            return count;
        }
    }
    return most;
}

static void close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static void assert_answers_soon(int port, const char *from, const char *to)
{
    for (int tries = 0; tries < 500; tries++) {
        const int fd = connect_from(port, from, to);
        const bool good = answers(fd);
        close(fd);
        if (good)
            return;
        usleep(10000);
    }
    ck_abort_msg("connections of %s are not freed", from ? from : to);
}

START_TEST(test_connections_of_an_address_are_bounded)
{
    int fds[8], others[8];
    char more[400];
    const char *path = scratch_path("vitd.sock");
    snprintf(more, sizeof more, "\"limits\": {\"max_connections_per_address\": 3}, \"listen\": {\"socket\": \"%s\"}",
             path);
    struct daemon daemon = daemon_start_file(write_config(more), NULL);
    ck_assert_int_eq(fill(daemon.port, "127.0.0.1", "127.0.0.1", fds, 8), 3);
    ck_assert_int_eq(fill(daemon.port, "127.0.0.2", "127.0.0.1", others, 8), 3); /* counted for itself */
    for (int i = 0; i < 3; i++)
        ck_assert(answers(fds[i])); /* those that are there stay */
    close(fds[1]);
    assert_answers_soon(daemon.port, "127.0.0.1", "127.0.0.1");
    close_all(others, 3);
    close(fds[0]);
    close(fds[2]);
    assert_answers_soon(daemon.port, "127.0.0.1", "127.0.0.1");
    const struct sockaddr_un address = unix_address(path);
    for (int i = 0; i < 8; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(connect(fds[i], (const struct sockaddr *)&address, sizeof address), 0);
        ck_assert(answers(fds[i]));
    }
    close_all(fds, 8);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_bound_changes_by_reload)
{
    int fds[8];
    struct daemon daemon = daemon_start_file(write_config(""), NULL);
    ck_assert_int_eq(fill(daemon.port, NULL, "127.0.0.1", fds, 8), 8);
    close_all(fds, 8);
    write_config("\"limits\": {\"max_connections_per_address\": 2}");
    ck_assert(daemon_reload(&daemon));
    assert_answers_soon(daemon.port, NULL, "127.0.0.1");
    usleep(200000);
    ck_assert_int_eq(fill(daemon.port, NULL, "127.0.0.1", fds, 8), 2);
    close_all(fds, 2);
    usleep(200000);
    ck_assert_double_ge(daemon_metric(&daemon, "vitd_rejected_total{reason=\"connections\"}"), 1);
    char *log = daemon_log(&daemon);
    ck_assert_ptr_nonnull(strstr(log, "a connection was refused: its address has limits.max_connections_per_address open"));
    free(log);
    daemon_stop(&daemon);
}
END_TEST

static bool has_ipv6(void)
{
    const struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    if (!has)
        puts("SKIPPED: this machine has no IPv6");
    return has;
}

START_TEST(test_connections_over_ipv6_are_bounded)
{
    int fds[8];
    if (!has_ipv6())
        return;
    struct daemon daemon = daemon_start_file(
        write_config("\"limits\": {\"max_connections_per_address\": 3}, \"listen\": {\"address\": \"::1\"}"), NULL);
    ck_assert_int_eq(fill(daemon.port, NULL, "::1", fds, 8), 3);
    close_all(fds, 3);
    assert_answers_soon(daemon.port, NULL, "::1");
    daemon_await_log(&daemon, "listening on http://[::1]:", 1);
    daemon_await_log(&daemon, " peer=::1\n", 1);
    daemon_stop(&daemon);
}
END_TEST

/* A socket of both kinds tells IPv4 addresses as ::ffff:a.b.c.d, which are not the one network that their first half is. */
START_TEST(test_ipv4_on_a_socket_of_both_kinds_is_ipv4)
{
    int fds[8], others[8], v6[8];
    if (!has_ipv6())
        return;
    struct daemon daemon = daemon_start_file(
        write_config("\"limits\": {\"max_connections_per_address\": 3}, \"listen\": {\"address\": \"::\"}"), NULL);
    ck_assert_int_eq(fill(daemon.port, "127.0.0.1", "127.0.0.1", fds, 8), 3);
    ck_assert_int_eq(fill(daemon.port, "127.0.0.2", "127.0.0.1", others, 8), 3);
    ck_assert_int_eq(fill(daemon.port, NULL, "::1", v6, 8), 3);
    daemon_await_log(&daemon, " peer=127.0.0.2\n", 1);
    daemon_await_log(&daemon, " peer=::1\n", 1);
    close_all(fds, 3);
    close_all(others, 3);
    close_all(v6, 3);
    daemon_stop(&daemon);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sockets");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_make, scratch_remove);
    tcase_add_test(tests, test_unix_socket_serves_beside_tcp);
    tcase_add_test(tests, test_stale_socket_is_replaced);
    tcase_add_test(tests, test_socket_in_use_is_refused);
    tcase_add_test(tests, test_files_are_not_taken_for_stale_sockets);
    tcase_add_test(tests, test_length_of_a_path_is_bounded);
    tcase_add_test(tests, test_successor_keeps_its_socket);
    tcase_add_test(tests, test_passed_sockets_are_served);
    tcase_add_test(tests, test_connections_of_an_address_are_bounded);
    tcase_add_test(tests, test_bound_changes_by_reload);
    tcase_add_test(tests, test_connections_over_ipv6_are_bounded);
    tcase_add_test(tests, test_ipv4_on_a_socket_of_both_kinds_is_ipv4);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
