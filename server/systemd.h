/* systemd.h - tells the service manager how the daemon is doing, by the datagram protocol of sd_notify(3). */
#ifndef SERVER_SYSTEMD_H
#define SERVER_SYSTEMD_H

/* Sends e.g. "READY=1\nSTATUS=serving 1 model"; does nothing when NOTIFY_SOCKET is not set. */
void systemd_notify(const char *state);

#endif
