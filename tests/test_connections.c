/* test_connections.c - what the real daemon does to connections that are idle, slow, or open when it ends. */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http/connections.h"
#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/suite.h"

static const char *const small_model[] = {"--model", "small=tests/golden/vit-hf", "--threads", "1", NULL};
static const char header_timeout[] = "{\"limits\": {\"header_timeout_ms\": 1500}}";

static const char whole_request[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

enum { SECOND = 1000000 }; /* for usleep() */

static void assert_answered(int fd, const char *status)
{
    const char *answer = hear(fd, "}");
    ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && strncmp(answer + 9, status, 3) == 0, "\"%s\"", answer);
}

/* ---- idle ---- */

START_TEST(test_idle_connection_ends_without_a_word)
{
    struct daemon daemon = daemon_start(header_timeout, small_model);
    const int fresh = daemon_connect(&daemon), used = daemon_connect(&daemon);
    say(used, whole_request);
    assert_answered(used, "200");
    const double start = test_clock();
    ck_assert_str_eq(hear(used, NULL), "");
    ck_assert_double_ge(test_clock() - start, 1.3);
    ck_assert_str_eq(hear(fresh, NULL), "");
    ck_assert_double_lt(test_clock() - start, 5);
    close(fresh);
    close(used);
    daemon_stop(&daemon);
}
END_TEST

/* A second of silence before a request, and a second in its header: more than the limit only together. */
START_TEST(test_idle_time_is_not_the_next_requests)
{
    static const char *const pieces[][2] = {
        {"GET /healthz HTTP/1.1\r\n", "Host: a\r\n\r\n"},
        {"GET /hea", "lthz HTTP/1.1\r\nHost: a\r\n\r\n"},
    };
    struct daemon daemon = daemon_start(header_timeout, small_model);
    for (size_t i = 0; i < 2; i++) {
        int fd = daemon_connect(&daemon);
        for (int request = 0; request < 2; request++) {
            usleep(SECOND);
            say(fd, pieces[i][0]);
            usleep(SECOND);
            say(fd, pieces[i][1]);
            assert_answered(fd, "200");
        }
        close(fd);
    }
    daemon_stop(&daemon);
}
END_TEST

/* ---- slow ---- */

/* Asserts that the log has a line for the 408 in `answer`, with its id, and no second one. */
static void assert_logged(const struct daemon *daemon, const char *answer)
{
    char field[64], *log = daemon_log(daemon);
    const char *id = strstr(answer, "X-Request-Id: ");
    ck_assert_msg(id != NULL, "%s", answer);
    id += strlen("X-Request-Id: ");
    snprintf(field, sizeof field, "id=%.*s", (int)strcspn(id, "\r"), id);
    const char *line = strstr(log, field);
    ck_assert_msg(line != NULL && strstr(line + 1, field) == NULL, "%s: %s", field, log);
    while (line > log && line[-1] != '\n')
        line--;
    line = strndupa(line, strcspn(line, "\n"));
    ck_assert_msg(strstr(line, "408") != NULL && strstr(line, "request_timeout") != NULL, "%s", line);
    free(log);
}

/* A request line that comes too slowly is told so, logged and counted, like any other part of a request. */
START_TEST(test_slow_request_line_is_answered_and_logged)
{
    struct daemon daemon = daemon_start(header_timeout, small_model);
    const int fresh = daemon_connect(&daemon), used = daemon_connect(&daemon);
    say(used, whole_request);
    assert_answered(used, "200");
    const int fds[] = {fresh, used};
    const double start = test_clock();
    say(fresh, "GET /hea");
    say(used, "G");
    for (size_t i = 0; i < 2; i++) {
        const char *answer = hear(fds[i], NULL);
        ck_assert_msg(strncmp(answer, "HTTP/1.1 408 ", 13) == 0, "\"%s\"", answer);
        ck_assert_ptr_nonnull(strstr(answer, "\"code\":\"request_timeout\""));
        ck_assert_double_ge(test_clock() - start, 1.3);
        ck_assert_double_lt(test_clock() - start, 5);
        close(fds[i]);
        usleep(SECOND / 2);
        assert_logged(&daemon, answer);
    }
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_rejected_total{reason=\"slow_client\"}"), 2);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"other\",model=\"\",code=\"408\"}"), 2);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_inflight_requests"), 1);
    daemon_stop(&daemon);
}
END_TEST

/* ---- open at the end ---- */

/* Two requests of which a part has come when SIGTERM does: one is finished and answered, the other gets its 408. */
START_TEST(test_half_a_request_line_survives_sigterm)
{
    struct daemon daemon = daemon_start(header_timeout, small_model);
    const int finished = daemon_connect(&daemon), abandoned = daemon_connect(&daemon);
    say(finished, "GET /hea");
    say(abandoned, "GET /hea");
    usleep(SECOND / 20);
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    usleep(SECOND);
    say(finished, "lthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_answered(finished, "200");
    assert_answered(abandoned, "408");
    close(finished);
    close(abandoned);
    ck_assert_int_eq(daemon_wait(&daemon), 0);
    close(daemon.log_fd);
    unlink(daemon.log_path);
}
END_TEST

/* A copy of golden/vit-hf that takes its time to be opened: config.json has a member of 32 MB. */
static void make_slow_model(char folder[32])
{
    enum { PADDING = 32 << 20 };
    char command[128], path[64];
    size_t length;
    strcpy(folder, "/tmp/vitd-model-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(command, sizeof command, "cp tests/golden/vit-hf/*.safetensors tests/golden/vit-hf/pre*.json %s", folder);
    ck_assert_int_eq(system(command), 0);
    char *config = (char *)test_file("tests/golden/vit-hf/config.json", &length), *padding = malloc(PADDING);
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    memset(padding, 'x', PADDING);
    fprintf(file, "{\"padding\": \"%.*s\", %s", PADDING, padding, strchr(config, '{') + 1);
    fclose(file);
    free(padding);
    free(config);
}

/* SIGTERM while the models load: an upload is told of the end, not to try again when they are there, and counted. */
START_TEST(test_drain_while_loading)
{
    enum { MODELS = 40 };
    char folder[32], config[4096] = "{\"models\": [", command[64];
    make_slow_model(folder);
    for (int i = 0; i < MODELS; i++)
        snprintf(config + strlen(config), 80, "%s{\"name\": \"m%d\", \"path\": \"%s\"}", i ? ", " : "", i, folder);
    strcat(config, "]}");
    struct daemon daemon = daemon_start_loading(config);
    const int upload = daemon_connect(&daemon), scrape = daemon_connect(&daemon);
    say(upload, "POST /classify HTTP/1.1\r\nHost: a\r\n");
    say(scrape, "GET /metrics HTTP/1.1\r\nHost: a\r\n");
    usleep(SECOND / 5);
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    usleep(SECOND / 5);
    say(upload, "Content-Length: 1\r\n\r\nx");
    const char *answer = hear(upload, NULL);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 503 ", 13) == 0, "%s", answer);
    ck_assert_msg(strstr(answer, "\"code\":\"draining\"") != NULL, "%s", answer);
    ck_assert_ptr_null(strstr(answer, "Retry-After"));
    say(scrape, "\r\n");
    ck_assert_ptr_nonnull(strstr(hear(scrape, NULL), "\nvitd_rejected_total{reason=\"draining\"} 1\n"));
    close(upload);
    close(scrape);
    ck_assert_int_eq(daemon_wait(&daemon), 0);
    close(daemon.log_fd);
    unlink(daemon.log_path);
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* ---- refused before the body ---- */

enum { LINGERING = 64 };

static size_t unread(const int fds[LINGERING][2])
{
    size_t sum = 0;
    for (size_t i = 0; i < LINGERING; i++) {
        int bytes = 0;
        ck_assert_int_eq(ioctl(fds[i][0], FIONREAD, &bytes), 0);
        sum += (size_t)bytes;
    }
    return sum;
}

/* Clients that send on after their refusal, all that they can: one sweep, for which the others have to wait, throws away so
 * much in all as it would of one, and the next ones go on. */
START_TEST(test_many_who_send_on_are_swept_a_part_at_a_time)
{
    static char bytes[65536];
    const size_t most = 8 << 20;
    const struct connection_limits limits = {.header_timeout_us = 1000000000, .body_timeout_us = 1000000000};
    struct connections *connections = connections_create(&limits);
    int fds[LINGERING][2];
    for (size_t i = 0; i < LINGERING; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds[i]), 0);
        while (write(fds[i][1], bytes, sizeof bytes) > 0)
            ;
        struct connection *connection = connection_open(connections, fds[i][0], NULL, NULL);
        connection_linger(connections, connection);
        connection_close(connections, connection);
    }
    size_t left = unread(fds);
    ck_assert_uint_gt(left, most);
    while (left > 0) {
        const size_t before = left;
        connections_sweep(connections, false);
        left = unread(fds);
        ck_assert_uint_lt(left, before);
        ck_assert_uint_le(before - left, most);
    }
    for (size_t i = 0; i < LINGERING; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
    connections_free(connections);
}
END_TEST

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    Suite *suite = suite_create("connections");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_idle_connection_ends_without_a_word);
    tcase_add_test(tests, test_idle_time_is_not_the_next_requests);
    tcase_add_test(tests, test_slow_request_line_is_answered_and_logged);
    tcase_add_test(tests, test_half_a_request_line_survives_sigterm);
    tcase_add_test(tests, test_drain_while_loading);
    tcase_add_test(tests, test_many_who_send_on_are_swept_a_part_at_a_time);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
