/* test_systemd.c - the service manager's protocols, with this test as the service manager. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/systemd.h"
#include "tests/suite.h"

/* ---- notifications ---- */

/* Binds a datagram socket to what NOTIFY_SOCKET is set to, and sets it. */
static int bind_notify_socket(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memcpy(address.sun_path, name, strlen(name));
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    const size_t size = offsetof(struct sockaddr_un, sun_path) + strlen(name) + (name[0] == '/');
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, (socklen_t)size), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static const char *received(int fd)
{
    static char text[256];
    const ssize_t length = recv(fd, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    return text;
}

START_TEST(test_notification_reaches_a_socket_in_a_folder)
{
    char folder[] = "/tmp/vitd-test-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/notify", folder);
    const int fd = bind_notify_socket(path);
    systemd_notify("READY=1\nSTATUS=ready");
    ck_assert_str_eq(received(fd), "READY=1\nSTATUS=ready");
    close(fd);
    unlink(path);
    rmdir(folder);
}
END_TEST

START_TEST(test_notification_reaches_an_abstract_socket)
{
    char name[64];
    snprintf(name, sizeof name, "@vitd-test-%d", (int)getpid());
    const int fd = bind_notify_socket(name);
    systemd_notify("WATCHDOG=1");
    ck_assert_str_eq(received(fd), "WATCHDOG=1");
    close(fd);
}
END_TEST

static int64_t monotonic_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

START_TEST(test_reloading_carries_the_monotonic_time)
{
    char name[64];
    int64_t told = 0;
    int length = 0;
    snprintf(name, sizeof name, "@vitd-test-%d", (int)getpid());
    const int fd = bind_notify_socket(name);
    const int64_t before = monotonic_us();
    systemd_notify_reloading();
    const char *state = received(fd);
    ck_assert_int_eq(sscanf(state, "RELOADING=1\nMONOTONIC_USEC=%" SCNd64 "%n", &told, &length), 1);
    ck_assert_int_eq(state[length], '\0');
    ck_assert_int_ge(told, before);
    ck_assert_int_le(told, monotonic_us());
    close(fd);
}
END_TEST

START_TEST(test_notification_without_a_manager_does_nothing)
{
    char long_name[200];
    memset(long_name, 'x', sizeof long_name);
    long_name[0] = '/';
    long_name[sizeof long_name - 1] = '\0';
    const char *const names[] = {"", "relative", "/nonexistent/notify", "@vitd-test-nobody", long_name};
    unsetenv("NOTIFY_SOCKET");
    systemd_notify("READY=1");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        setenv("NOTIFY_SOCKET", names[i], 1);
        systemd_notify("READY=1");
    }
}
END_TEST

/* ---- watchdog ---- */

static int64_t watchdog(const char *interval, const char *pid)
{
    setenv("WATCHDOG_USEC", interval, 1);
    if (pid)
        setenv("WATCHDOG_PID", pid, 1);
    else
        unsetenv("WATCHDOG_PID");
    return systemd_watchdog_us();
}

START_TEST(test_watchdog_is_for_this_process)
{
    char own[16];
    snprintf(own, sizeof own, "%d", (int)getpid());
    ck_assert_int_eq(watchdog("60000000", own), 60000000);
    ck_assert_int_eq(watchdog("60000000", NULL), 60000000);
    ck_assert_int_eq(watchdog("60000000", "1"), 0);
    ck_assert_int_eq(watchdog("60000000", ""), 0);
    unsetenv("WATCHDOG_USEC");
    ck_assert_int_eq(systemd_watchdog_us(), 0);
}
END_TEST

START_TEST(test_watchdog_of_garbage_is_none)
{
    static const char *const garbage[] = {"", "0", "-1", "+1", " 1", "1s", "0x10", "18446744073709551616"};
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++)
        ck_assert_msg(watchdog(garbage[i], NULL) == 0, "WATCHDOG_USEC=%s", garbage[i]);
}
END_TEST

/* ---- passed sockets ---- */

/* Descriptors from 3 on, and the variables, as a child of the service manager finds them. */
struct passed {
    int fds[2]; /* -1: closed */
    const char *count, *pid; /* NULL: not set; pid "own": the child's */
};

static bool is_prepared(int fd)
{
    return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

/* What systemd_listen_fds() returns in a child that was given `passed`; fails unless the sockets it returns are prepared,
 * and the variables gone. */
static int listen_fds(const struct passed *passed)
{
    enum { FAILED = 100 };
    int status;
    const pid_t child = fork();
    if (child == 0) {
        char own[16];
        snprintf(own, sizeof own, "%d", (int)getpid());
        for (int i = 0; i < 2; i++) /* out of the way of 3 and 4 */
            if (passed->fds[i] >= 0 && dup2(passed->fds[i], 50 + i) < 0)
                _exit(FAILED);
        for (int i = 0; i < 2; i++) {
            close(SYSTEMD_FIRST_FD + i);
            if (passed->fds[i] >= 0 && dup2(50 + i, SYSTEMD_FIRST_FD + i) < 0)
                _exit(FAILED);
        }
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_PID");
        setenv("LISTEN_FDNAMES", "http", 1);
        if (passed->count)
            setenv("LISTEN_FDS", passed->count, 1);
        if (passed->pid)
            setenv("LISTEN_PID", strcmp(passed->pid, "own") == 0 ? own : passed->pid, 1);
        const int count = systemd_listen_fds();
        for (int i = 0; i < count; i++)
            if (!is_prepared(SYSTEMD_FIRST_FD + i))
                _exit(FAILED + 1);
        if (getenv("LISTEN_FDS") || getenv("LISTEN_PID") || getenv("LISTEN_FDNAMES") || systemd_listen_fds() != 0)
            _exit(FAILED + 2);
        _exit(count);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_lt(WEXITSTATUS(status), FAILED);
    return WEXITSTATUS(status);
}

static int listening_socket(void)
{
    const struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (const struct sockaddr *)&loopback, sizeof loopback), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    return fd;
}

START_TEST(test_passed_sockets_are_counted_and_prepared)
{
    const int a = listening_socket(), b = listening_socket();
    ck_assert_int_eq(listen_fds(&(struct passed){{a, b}, "2", "own"}), 2);
    ck_assert_int_eq(listen_fds(&(struct passed){{a, -1}, "1", "own"}), 1);
    ck_assert_int_eq(listen_fds(&(struct passed){{a, b}, "1", "own"}), 1);
    ck_assert_int_eq(listen_fds(&(struct passed){{-1, -1}, "0", "own"}), 0);
    close(a);
    close(b);
}
END_TEST

START_TEST(test_sockets_of_another_process_are_not_taken)
{
    const int a = listening_socket();
    ck_assert_int_eq(listen_fds(&(struct passed){{a, -1}, "1", "1"}), 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{a, -1}, "1", NULL}), 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{a, -1}, NULL, "own"}), 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{a, -1}, "1", ""}), 0);
    close(a);
}
END_TEST

START_TEST(test_garbage_passes_no_sockets)
{
    static const char *const counts[] = {"", "-1", "+1", " 1", "1 ", "1x", "65", "4294967297", "99999999999999999999"};
    const int a = listening_socket();
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        ck_assert_msg(listen_fds(&(struct passed){{a, a}, counts[i], "own"}) == 0, "LISTEN_FDS=%s", counts[i]);
    close(a);
}
END_TEST

START_TEST(test_only_listening_stream_sockets_are_taken)
{
    const int listening = listening_socket(), file = open("/dev/null", O_RDONLY);
    const int datagram = socket(AF_INET, SOCK_DGRAM, 0), idle = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{listening, file}, "2", "own"}), 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{listening, datagram}, "2", "own"}), 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{listening, idle}, "2", "own"}), 0);
    ck_assert_int_eq(listen_fds(&(struct passed){{listening, -1}, "2", "own"}), 0);
    close(listening);
    close(file);
    close(datagram);
    close(idle);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("systemd");
    TCase *tests = tcase_create("systemd");
    tcase_add_test(tests, test_notification_reaches_a_socket_in_a_folder);
    tcase_add_test(tests, test_notification_reaches_an_abstract_socket);
    tcase_add_test(tests, test_reloading_carries_the_monotonic_time);
    tcase_add_test(tests, test_notification_without_a_manager_does_nothing);
    tcase_add_test(tests, test_watchdog_is_for_this_process);
    tcase_add_test(tests, test_watchdog_of_garbage_is_none);
    tcase_add_test(tests, test_passed_sockets_are_counted_and_prepared);
    tcase_add_test(tests, test_sockets_of_another_process_are_not_taken);
    tcase_add_test(tests, test_garbage_passes_no_sockets);
    tcase_add_test(tests, test_only_listening_stream_sockets_are_taken);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
