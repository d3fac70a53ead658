/* test_startup.c - the real binary ($VITD_BINARY, default build/vitd) where the system gives it less than usual. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/suite.h"

/* Lets this process execute `program`, known by its address, and nothing after that: as in a system without /proc. */
static bool forbid_other_programs(const char *program)
{
    const uint32_t low = (uint32_t)(uintptr_t)program, high = (uint32_t)((uint64_t)(uintptr_t)program >> 32);
    struct sock_filter only_this[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])), /* little-endian: the low half */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, low, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOENT),
    };
    struct sock_fprog filter = {.len = sizeof only_this / sizeof only_this[0], .filter = only_this};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/* Runs vitd until it fails for want of a model; what it says on standard error. */
static const char *failed_start(bool may_restart)
{
    static char text[4096];
    const char *binary = getenv("VITD_BINARY") != NULL ? getenv("VITD_BINARY") : "build/vitd";
    int ends[2], status;
    size_t length = 0;
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        unsetenv("OPENBLAS_NUM_THREADS");
        unsetenv("OPENBLAS_CORETYPE");
        if (may_restart || forbid_other_programs(binary))
            execl(binary, binary, "serve", "--port", "0", "--model", "/nonexistent", NULL);
        _exit(127);
    }
    close(ends[1]);
    for (ssize_t n; (n = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)n;
    text[length] = '\0';
    close(ends[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %d: %s", status, text);
    return text;
}

START_TEST(test_failed_restart_is_told)
{
    if (sysconf(_SC_NPROCESSORS_CONF) == 1) {
        puts("SKIPPED: with one CPU there is no need to restart");
        return;
    }
    const char *said = failed_start(false);
    ck_assert_msg(strstr(said, "/proc/self/exe: No such file or directory") != NULL, "%s", said);
    ck_assert_msg(strstr(said, "set OPENBLAS_NUM_THREADS=1") != NULL, "%s", said);
    ck_assert_msg(strstr(said, "OPENBLAS_CORETYPE=") == NULL || strstr(said, "does not know this CPU") != NULL, "%s", said);
    said = failed_start(true);
    ck_assert_msg(strstr(said, "restart") == NULL, "%s", said);
}
END_TEST

/* What the descriptor of another process refers to. */
static const char *descriptor(pid_t pid, int fd)
{
    static char target[256];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    return target;
}

START_TEST(test_closed_standard_descriptors_take_no_socket)
{
    fcntl(STDIN_FILENO, F_SETFD, FD_CLOEXEC);
    fcntl(STDOUT_FILENO, F_SETFD, FD_CLOEXEC);
    struct daemon daemon = daemon_start(NULL, (const char *[]){"--model", "tests/golden/vit-hf", NULL});
    ck_assert_str_eq(descriptor(daemon.pid, STDIN_FILENO), "/dev/null");
    ck_assert_str_eq(descriptor(daemon.pid, STDOUT_FILENO), "/dev/null");
    daemon_stop(&daemon);
    fcntl(STDIN_FILENO, F_SETFD, 0);
    fcntl(STDOUT_FILENO, F_SETFD, 0);
}
END_TEST

/* Output that nobody gets is an error, whatever stands in for it. */
START_TEST(test_closed_standard_output_is_an_error)
{
    char command[256];
    const char *binary = getenv("VITD_BINARY") != NULL ? getenv("VITD_BINARY") : "build/vitd";
    snprintf(command, sizeof command, "%.200s --version >&- 2>/dev/null", binary);
    int status = system(command);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%d", status);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("startup");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_failed_restart_is_told);
    tcase_add_test(tests, test_closed_standard_descriptors_take_no_socket);
    tcase_add_test(tests, test_closed_standard_output_is_an_error);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
