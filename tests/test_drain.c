/*
 * test_drain.c - how the real daemon ends: readiness goes first, connections later, requests never; on TCP, on a Unix socket
 * and on a socket that a service manager passes.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/suite.h"

enum kind { ON_TCP, ON_UNIX, ON_PASSED, KINDS };

static char folder[FOLDER_BYTES], socket_path[64];
static unsigned char *picture;
static size_t picture_length;
static int passed; /* the listening socket of ON_PASSED */

static void prepare(void)
{
    picture = test_file("tests/golden/vit-hf/input.png", &picture_length);
    folder_make(folder);
    snprintf(socket_path, sizeof socket_path, "%s/vitd.sock", folder);
    const struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    passed = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(passed, (const struct sockaddr *)&loopback, sizeof loopback), 0);
    ck_assert_int_eq(listen(passed, 100), 0);
}

static void clean_up(void)
{
    close(passed);
    folder_remove(folder);
    free(picture);
}

/* A small model, and more of a configuration: ", ..." or "". */
static struct daemon start(enum kind kind, const char *more)
{
    char config[8192], text[1024], unix_socket[128] = "";
    if (kind == ON_UNIX)
        snprintf(unix_socket, sizeof unix_socket, ", \"listen\": {\"socket\": \"%s\"}", socket_path);
    snprintf(text, sizeof text, "{\"threads\": 2, \"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}]%s%s}", unix_socket,
             more);
    folder_expand(config, sizeof config, text);
    struct daemon daemon = kind == ON_PASSED ? daemon_start_passed(config, passed) : daemon_start(config, NULL);
    if (kind == ON_UNIX)
        snprintf(daemon.socket, sizeof daemon.socket, "%s", socket_path);
    return daemon;
}

static void signal_end(const struct daemon *daemon)
{
    ck_assert_int_eq(kill(daemon->pid, SIGTERM), 0);
}

static long get(const struct daemon *daemon, const char *path)
{
    struct reply reply = daemon_get(daemon, path);
    const long status = reply.curl == CURLE_OK ? reply.status : -1;
    reply_free(&reply);
    return status;
}

/* An upload of which the header and one byte are there. */
static int begin_upload(const struct daemon *daemon)
{
    const int fd = daemon_connect(daemon);
    say(fd, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
    usleep(50000);
    return fd;
}

/* ---- drain_delay_ms ---- */

/* Not ready at once, and open to those who have not heard of it yet. */
START_TEST(test_delay)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        struct daemon daemon = start(kind, ", \"drain_delay_ms\": 800");
        const int idle = daemon_connect(&daemon);
        ck_assert_int_eq(get(&daemon, "/readyz"), 200);
        const double start_time = test_clock();
        signal_end(&daemon);
        daemon_await_log(&daemon, "SIGTERM", 1);
        usleep(50000);
        struct reply reply = daemon_get(&daemon, "/readyz");
        reply_assert_error(&reply, 503, "draining");
        ck_assert_ptr_nonnull(strcasestr(reply.headers, "\nconnection: close\r"));
        reply_free(&reply);
        ck_assert_int_eq(get(&daemon, "/healthz"), 200);
        reply = daemon_post(&daemon, "/classify", picture, picture_length);
        ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
        ck_assert_ptr_nonnull(strcasestr(reply.headers, "\nconnection: close\r"));
        reply_free(&reply);
        usleep(400000); /* an idle connection is left to its client for so long */
        say(idle, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        const char *answer = hear(idle, NULL);
        ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0, "%s", answer);
        close(idle);
        ck_assert_int_eq(daemon_wait(&daemon), 0);
        ck_assert_double_ge(test_clock() - start_time, 0.75);
        ck_assert_double_lt(test_clock() - start_time, 3);
        if (kind != ON_PASSED)
            ck_assert_int_eq(get(&daemon, "/healthz"), -1);
        if (kind == ON_UNIX)
            ck_assert_int_ne(access(socket_path, F_OK), 0);
        close(daemon.log_fd);
        unlink(daemon.log_path);
    }
}
END_TEST

/* While requests are finished, nobody new is taken. */
START_TEST(test_drain_refuses_new_connections)
{
    for (enum kind kind = 0; kind < ON_PASSED; kind++) {
        struct daemon daemon = start(kind, ", \"drain_timeout_ms\": 5000");
        const int upload = begin_upload(&daemon);
        signal_end(&daemon);
        usleep(300000);
        const double start_time = test_clock();
        ck_assert_int_eq(get(&daemon, "/healthz"), -1);
        ck_assert_double_lt(test_clock() - start_time, 2);
        close(upload);
        daemon_end(&daemon);
    }
}
END_TEST

/* ---- drain_timeout_ms ---- */

START_TEST(test_timeout_cuts_what_is_stuck)
{
    for (enum kind kind = 0; kind < KINDS; kind++) {
        struct daemon daemon = start(kind, ", \"drain_timeout_ms\": 400");
        const int upload = begin_upload(&daemon);
        const double start_time = test_clock();
        signal_end(&daemon);
        ck_assert_str_eq(hear(upload, NULL), "");
        ck_assert_double_ge(test_clock() - start_time, 0.35);
        ck_assert_double_lt(test_clock() - start_time, 2);
        close(upload);
        daemon_await_log(&daemon, "drain_timeout_ms is over: stopped with 1 connection", 1);
        daemon_end(&daemon); /* 0: it was asked to end */
    }
}
END_TEST

START_TEST(test_second_signal_ends_at_once)
{
    static const char *const phases[] = {", \"drain_delay_ms\": 60000", ", \"drain_timeout_ms\": 60000"};
    for (size_t i = 0; i < 2; i++)
        for (int number = SIGINT; number <= SIGTERM; number += SIGTERM - SIGINT) {
            struct daemon daemon = start(ON_UNIX, phases[i]);
            const int upload = begin_upload(&daemon);
            signal_end(&daemon);
            daemon_await_log(&daemon, "a second signal stops at once", 1);
            usleep(100000);
            const double start_time = test_clock();
            ck_assert_int_eq(kill(daemon.pid, number), 0);
            const int status = daemon_wait(&daemon);
            ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 128 + number, "%d", status);
            ck_assert_double_lt(test_clock() - start_time, 0.5);
            close(upload);
            close(daemon.log_fd);
            unlink(daemon.log_path);
        }
    struct daemon daemon = start(ON_UNIX, ""); /* a name that one has left behind is no obstacle */
    ck_assert_int_eq(get(&daemon, "/healthz"), 200);
    daemon_stop(&daemon);
}
END_TEST

/* ---- nothing is lost ---- */

/* Where in a request SIGTERM comes: so many bytes of it are in before. */
START_TEST(test_signal_at_any_moment_of_a_request)
{
    enum { MOMENTS = 8 };
    char *request = malloc(picture_length + 256);
    const int head = sprintf(request, "POST /classify?top_k=1 HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", picture_length);
    const size_t length = (size_t)head + picture_length;
    memcpy(request + head, picture, picture_length);
    const size_t moments[MOMENTS] = {0, 1, 20, 34, (size_t)head - 2, (size_t)head, (size_t)head + 5000, length};
    for (enum kind kind = 0; kind < KINDS; kind++) {
        struct daemon daemon = start(kind, "");
        int fds[MOMENTS];
        for (int i = 0; i < MOMENTS; i++) {
            fds[i] = daemon_connect(&daemon);
            ck_assert_int_eq(send(fds[i], request, moments[i], MSG_NOSIGNAL), (ssize_t)moments[i]);
        }
        usleep(20000);
        signal_end(&daemon);
        usleep(30000);
        for (int i = 0; moments[i] < length; i++) /* the last is there, and may be answered by now */
            ck_assert_int_eq(send(fds[i], request + moments[i], length - moments[i], MSG_NOSIGNAL),
                             (ssize_t)(length - moments[i]));
        for (int i = 0; i < MOMENTS; i++) {
            const char *answer = hear(fds[i], i == MOMENTS - 1 ? "}" : NULL);
            ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0 && strstr(answer, "\"predictions\"") != NULL,
                          "kind %d, after %zu bytes: %s", kind, moments[i], answer);
            close(fds[i]);
        }
        daemon_end(&daemon);
    }
    free(request);
}
END_TEST

/* What waits to be accepted when the signal comes is served: by the process that is about to end, or, on a passed socket, by
 * the next. */
START_TEST(test_backlog_is_served)
{
    enum { WAITING = 60 };
    for (enum kind kind = 0; kind < KINDS; kind++) {
        struct daemon daemon = start(kind, "");
        int fds[WAITING];
        ck_assert_int_eq(kill(daemon.pid, SIGSTOP), 0);
        for (int i = 0; i < WAITING; i++) {
            fds[i] = daemon_connect(&daemon);
            say(fds[i], "GET /models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        }
        signal_end(&daemon);
        ck_assert_int_eq(kill(daemon.pid, SIGCONT), 0);
        if (kind == ON_PASSED) {
            daemon_end(&daemon);
            daemon = start(kind, "");
        }
        for (int i = 0; i < WAITING; i++) {
            const char *answer = hear(fds[i], NULL);
            ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0, "kind %d, %d: \"%s\"", kind, i, answer);
            close(fds[i]);
        }
        if (kind == ON_PASSED)
            signal_end(&daemon);
        daemon_end(&daemon);
    }
}
END_TEST

START_TEST(test_crowd_loses_nothing)
{
    static const char *const paths[] = {"/classify", "/embed", "/explain", NULL};
    for (enum kind kind = 0; kind < ON_PASSED; kind++)
        for (int delay = 0; delay < 2; delay++) {
            struct daemon daemon = start(kind, delay ? ", \"drain_delay_ms\": 200" : "");
            struct crowd crowd = {.daemon = &daemon, .paths = paths, .body = picture, .length = picture_length};
            crowd_begin(&crowd, CROWD_MAX);
            usleep(150000);
            struct daemon ended = daemon;
            const double seconds = daemon_stop(&ended);
            crowd_end(&crowd);
            ck_assert_msg(crowd.lost == 0 && crowd.wrong == 0, "%d lost, %d wrong (%s) of %d", crowd.lost, crowd.wrong,
                          crowd.first_wrong, crowd.ok);
            ck_assert_int_gt(crowd.ok, 0);
            ck_assert_double_lt(seconds, 5);
        }
}
END_TEST

/* One process after another on a socket that stays open: clients notice nothing. */
START_TEST(test_passed_socket_has_no_gap)
{
    static const char *const paths[] = {"/classify", "/embed", NULL};
    const int rounds = getenv("VITD_SANITIZED") != NULL ? 2 : 5;
    struct daemon daemon = start(ON_PASSED, ""), shown = daemon;
    struct crowd crowd = {.daemon = &shown, .paths = paths, .body = picture, .length = picture_length};
    crowd_begin(&crowd, 8);
    for (int i = 0; i < rounds; i++) {
        usleep(100000);
        daemon_stop(&daemon);
        const int before = atomic_load(&crowd.ok);
        usleep(50000); /* they wait in the backlog */
        ck_assert_int_le(atomic_load(&crowd.ok), before + 8);
        daemon = start(ON_PASSED, "");
    }
    usleep(100000);
    crowd_end(&crowd);
    ck_assert_msg(crowd.lost + crowd.wrong + crowd.refused == 0, "%d lost, %d wrong (%s), %d refused of %d", crowd.lost,
                  crowd.wrong, crowd.first_wrong, crowd.refused, crowd.ok);
    ck_assert_int_gt(crowd.ok, rounds);
    daemon_stop(&daemon);
}
END_TEST

/* The next process may listen where the one before is still finishing. */
START_TEST(test_unix_socket_is_left_to_the_successor)
{
    struct daemon old = start(ON_UNIX, "");
    const int upload = begin_upload(&old);
    signal_end(&old);
    const double start_time = test_clock();
    while (access(socket_path, F_OK) == 0)
        ck_assert_double_lt(test_clock() - start_time, 5);
    struct daemon new = start(ON_UNIX, "");
    ck_assert_int_eq(get(&new, "/readyz"), 200);
    close(upload);
    daemon_end(&old);
    ck_assert_int_eq(get(&new, "/readyz"), 200);
    daemon_stop(&new);
    ck_assert_int_ne(access(socket_path, F_OK), 0);
}
END_TEST

int main(void)
{
    const TTest *const all[] = {test_delay, test_drain_refuses_new_connections, test_timeout_cuts_what_is_stuck,
                                test_second_signal_ends_at_once, test_signal_at_any_moment_of_a_request,
                                test_backlog_is_served, test_crowd_loses_nothing, test_passed_socket_has_no_gap,
                                test_unix_socket_is_left_to_the_successor};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("drain");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, prepare, clean_up);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
