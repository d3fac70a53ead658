/*
 * systemd.c - what the service manager tells by the environment, and what it is told by datagrams to NOTIFY_SOCKET.
 *
 * Numbers in the environment may be meant for another process: a parent's, left behind. LISTEN_PID and WATCHDOG_PID say
 * whose they are. main() restarts the program once by exec, which keeps pid, environment and descriptors, so nothing
 * here may run before that.
 */
#include "server/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"

/* ---- notifications ---- */

static void tell(const char *state, int flags)
{
    const struct timeval patience = {.tv_sec = 1};
    const char *path = getenv("NOTIFY_SOCKET");
    if (!path || !*path)
        return;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof address.sun_path) {
        log_warn("NOTIFY_SOCKET=%s is not a socket address that vitd can use", path);
        return;
    }
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* the abstract namespace: the name is not terminated */
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/'));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if ((fd < 0 || sendto(fd, state, strlen(state), flags | MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0) &&
        !(errno == EAGAIN && (flags & MSG_DONTWAIT)))
        log_warn("cannot notify the service manager at %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void systemd_notify(const char *state)
{
    tell(state, 0);
}

void systemd_mention(const char *state)
{
    tell(state, MSG_DONTWAIT);
}

void systemd_notify_reloading(void)
{
    struct timespec now;
    char state[64];
    clock_gettime(CLOCK_MONOTONIC, &now); /* the clock it compares with its own */
    snprintf(state, sizeof state, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
             (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    systemd_notify(state);
}

/* ---- numbers from the environment ---- */

/* Decimal digits and nothing else, up to max. */
static bool parse_number(const char *text, int64_t max, int64_t *number)
{
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0')
        return false;
    errno = 0;
    const long long parsed = strtoll(text, NULL, 10);
    if (errno != 0 || parsed > max)
        return false;
    *number = parsed;
    return true;
}

static bool is_this_process(const char *text)
{
    int64_t pid;
    return parse_number(text, INT64_MAX, &pid) && pid == getpid();
}

int64_t systemd_watchdog_us(void)
{
    const char *interval = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    int64_t us = 0;
    if (!interval || (pid && !is_this_process(pid)))
        return 0;
    if (!parse_number(interval, INT64_MAX, &us))
        log_warn("WATCHDOG_USEC=%s is not a number of microseconds: no watchdog", interval);
    return us;
}

/* ---- sockets ---- */

static bool take_socket(int fd)
{
    int listening = 0, type = 0;
    socklen_t size = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) {
        log_warn("descriptor %d of LISTEN_FDS: %s", fd, strerror(errno));
        return false;
    }
    if (!listening || type != SOCK_STREAM) {
        log_warn("descriptor %d of LISTEN_FDS is not a listening stream socket (ListenStream= and Accept=no)", fd);
        return false;
    }
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        log_warn("descriptor %d of LISTEN_FDS: %s", fd, strerror(errno));
        return false;
    }
    return true;
}

static int take_sockets(const char *count_text)
{
    int64_t count;
    if (!parse_number(count_text, SYSTEMD_MAX_FDS, &count)) {
        log_warn("LISTEN_FDS=%s, allowed is 0 to %d: no passed sockets", count_text, SYSTEMD_MAX_FDS);
        return 0;
    }
    for (int i = 0; i < (int)count; i++)
        if (!take_socket(SYSTEMD_FIRST_FD + i))
            return 0;
    return (int)count;
}

int systemd_listen_fds(void)
{
    const char *pid = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
    const int count = pid && count_text && is_this_process(pid) ? take_sockets(count_text) : 0;
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return count;
}
