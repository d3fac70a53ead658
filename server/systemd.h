/*
 * systemd.h - the protocols of the service manager, without libsystemd: sd_notify(3), sd_listen_fds(3),
 * sd_watchdog_enabled(3). All of it is told by the environment; where that says nothing, nothing happens.
 */
#ifndef SERVER_SYSTEMD_H
#define SERVER_SYSTEMD_H

#include <stdint.h>

enum { SYSTEMD_FIRST_FD = 3, SYSTEMD_MAX_FDS = 64 };

/* Sends e.g. "READY=1\nSTATUS=serving 1 model"; does nothing when NOTIFY_SOCKET is not set. Waits for a service manager that
 * does not read, for a second at most. Thread-safe. */
void systemd_notify(const char *state);
/* The same of what will soon be told again, without waiting: it is lost then. */
void systemd_mention(const char *state);

/* Says that a reload begins, as Type=notify-reload wants it; READY=1 ends it. Thread-safe. */
void systemd_notify_reloading(void);

/* How many listening stream sockets were passed to this process, from descriptor SYSTEMD_FIRST_FD on; the caller owns them.
 * They are made close-on-exec and non-blocking. Anything but such sockets is logged and counts as none. The variables are
 * gone afterwards, for a child must not take them for its own: call once, before there are threads. */
int systemd_listen_fds(void);

/* After how many microseconds without WATCHDOG=1 the service manager ends this process; 0: never. */
int64_t systemd_watchdog_us(void);

#endif
