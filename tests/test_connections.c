/* test_connections.c - what the real daemon does to connections that are idle, slow, or open when it ends. */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/daemon.h"

static const char *const small_model[] = {"--model", "small=tests/golden/vit-hf", "--threads", "1", NULL};
static const char header_timeout[] = "{\"limits\": {\"header_timeout_ms\": 1500}}";

static const char whole_request[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

enum { SECOND = 1000000 }; /* for usleep() */

static void say(int fd, const char *text)
{
    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What comes on a connection until it ends, or until `end` is there. */
static const char *hear(int fd, const char *end)
{
    static char answer[65536];
    size_t got = 0;
    ssize_t n = 1;
    const struct timeval wait = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    answer[0] = '\0';
    while (n > 0 && (end == NULL || strstr(answer, end) == NULL)) {
        n = recv(fd, answer + got, sizeof answer - 1 - got, 0);
        ck_assert_msg(n >= 0, "nothing in 10 s after \"%s\"", answer);
        got += (size_t)n;
        answer[got] = '\0';
    }
    return answer;
}

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

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    Suite *suite = suite_create("connections");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_idle_connection_ends_without_a_word);
    tcase_add_test(tests, test_idle_time_is_not_the_next_requests);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
