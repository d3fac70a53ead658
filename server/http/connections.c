/*
 * connections.c - the watchdog over connections.
 *
 * libmicrohttpd's own timeout counts inactivity, so one byte every few seconds keeps a connection for ever. Here each
 * state has a total deadline. What happens to a late connection depends on its state:
 *
 *   LINE, HEADER, BODY  libmicrohttpd writes nothing in these states, so the sweep sends a complete 408 itself, closes
 *                       the sending side, and gives the client a second to read it (state CUT) before it shuts the
 *                       socket down; with TLS, where it cannot, it only does the last (in LINE there may be no request
 *                       at all, only a handshake);
 *   IDLE, REPLY         shut down: there is nobody to tell, or nobody who listens;
 *   WORK                has no deadline here: the job has one.
 *
 * libmicrohttpd tells nothing of a request before its whole first line is in, and has taken the bytes from the socket; so
 * it is the kernel's count of them that says when an idle connection has begun another request. (The start of a line that
 * came together with the end of the request before it is not seen until more follows.)
 *
 * shutdown() makes the socket readable, libmicrohttpd sees its end and closes it on its own thread.
 *
 * Lingering sockets are duplicates of closed ones. They are read (and what comes is thrown away) until the client
 * closes or the time is up.
 */
#include "server/http/connections.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/work/job.h"

enum {
    LINGER_US = 2000000,      /* after a reply that came before the body's end */
    CUT_LINGER_US = 1000000,  /* after a 408 */
    DRAIN_IDLE_US = 250000,   /* how long an idle connection is left to a client that may be sending */
    MAX_LINGERING = 64,
    LINGER_READS = 128        /* of 64 KiB each, per sweep: all others wait for it */
};

/* Who counts as one client. */
struct network {
    int family; /* 0: neither IPv4 nor IPv6 */
    unsigned char address[8]; /* an IPv4 address, or half an IPv6 one */
};

struct connection {
    struct connection *previous, *next;
    int fd;
    enum connection_state state;
    int64_t deadline_us, since_us; /* of the state */
    uint64_t received;             /* bytes in all, to the end of the last request */
    struct tls_pair *pair; /* NULL: not TLS */
    bool linger;
    bool left;                     /* the client has closed its side, at the last look */
    struct network network;
    bool cut_in_line;              /* before there was a request */
    char peer[INET6_ADDRSTRLEN + 8];
    char request_id[REQUEST_ID_MAX + 1];
};

struct lingering {
    int fd;
    int64_t deadline_us;
};

struct connections {
    struct connection_limits limits;
    pthread_mutex_t mutex; /* protects what follows, and every connection */
    struct connection *first;
    size_t count;
    int64_t drain_since_us; /* 0: not draining */
    struct lingering lingering[MAX_LINGERING];
    size_t lingering_count;
    struct pollfd *polled; /* the sweep's [polled_room] */
    size_t polled_room;
};

struct connections *connections_create(const struct connection_limits *limits)
{
    struct connections *connections = calloc(1, sizeof *connections);
    if (!connections)
        return NULL;
    connections->limits = *limits;
    pthread_mutex_init(&connections->mutex, NULL);
    return connections;
}

void connections_free(struct connections *connections)
{
    if (!connections)
        return;
    for (size_t i = 0; i < connections->lingering_count; i++)
        close(connections->lingering[i].fd);
    pthread_mutex_destroy(&connections->mutex);
    free(connections->polled);
    free(connections);
}

void connections_set_limits(struct connections *connections, const struct connection_limits *limits)
{
    pthread_mutex_lock(&connections->mutex);
    connections->limits = *limits;
    pthread_mutex_unlock(&connections->mutex);
}

/* AF_INET or AF_INET6, and the address in *bytes; 0: neither. A socket of both kinds tells 192.0.2.1 as
 * ::ffff:192.0.2.1. */
static int address_of(const struct sockaddr *peer, const unsigned char **bytes)
{
    if (peer && peer->sa_family == AF_INET) {
        *bytes = (const void *)&((const struct sockaddr_in *)(const void *)peer)->sin_addr;
        return AF_INET;
    }
    if (!peer || peer->sa_family != AF_INET6)
        return 0;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
    const bool mapped = IN6_IS_ADDR_V4MAPPED(v6);
    *bytes = v6->s6_addr + (mapped ? 12 : 0);
    return mapped ? AF_INET : AF_INET6;
}

static struct network network_of(const struct sockaddr *peer)
{
    struct network network = {0};
    const unsigned char *bytes;
    network.family = address_of(peer, &bytes);
    if (network.family)
        memcpy(network.address, bytes, network.family == AF_INET ? 4 : 8);
    return network;
}

bool connections_admit(struct connections *connections, const struct sockaddr *peer)
{
    const struct network network = network_of(peer);
    size_t count = 0;
    pthread_mutex_lock(&connections->mutex);
    const size_t most = connections->limits.per_address;
    if (most && network.family)
        for (const struct connection *at = connections->first; at; at = at->next)
            count += at->network.family == network.family && memcmp(at->network.address, network.address, 8) == 0;
    pthread_mutex_unlock(&connections->mutex);
    return !most || count < most;
}

static void describe_peer(struct connection *connection, const struct sockaddr *peer)
{
    const unsigned char *bytes;
    const int family = address_of(peer, &bytes);
    if (!family || !inet_ntop(family, bytes, connection->peer, INET6_ADDRSTRLEN))
        snprintf(connection->peer, sizeof connection->peer, "-");
}

struct connection *connection_open(struct connections *connections, int fd, const struct sockaddr *peer,
                                   struct tls_pair *pair)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return NULL;
    connection->fd = fd;
    connection->pair = pair;
    connection->network = network_of(peer);
    describe_peer(connection, peer);
    pthread_mutex_lock(&connections->mutex);
    connection->since_us = job_clock_us();
    connection->deadline_us = connection->since_us + connections->limits.header_timeout_us;
    connection->next = connections->first;
    if (connection->next)
        connection->next->previous = connection;
    connections->first = connection;
    connections->count++;
    pthread_mutex_unlock(&connections->mutex);
    return connection;
}

/* Keeps the socket alive beyond libmicrohttpd's close(). */
static void start_lingering(struct connections *connections, const struct connection *connection)
{
    if (connections->lingering_count == MAX_LINGERING)
        return;
    int fd = dup(connection->fd);
    if (fd < 0)
        return;
    shutdown(fd, SHUT_WR);
    connections->lingering[connections->lingering_count++] =
        (struct lingering){.fd = fd, .deadline_us = job_clock_us() + LINGER_US};
}

void connection_close(struct connections *connections, struct connection *connection)
{
    if (!connection)
        return;
    pthread_mutex_lock(&connections->mutex);
    if (connection->linger)
        start_lingering(connections, connection);
    if (connection->previous)
        connection->previous->next = connection->next;
    else
        connections->first = connection->next;
    if (connection->next)
        connection->next->previous = connection->previous;
    connections->count--;
    pthread_mutex_unlock(&connections->mutex);
    free(connection);
}

int connection_fd(const struct connection *connection)
{
    return connection->fd;
}

struct tls_pair *connection_pair(const struct connection *connection)
{
    return connection->pair;
}

const char *connection_peer(const struct connection *connection)
{
    return connection->peer;
}

/* Zeros where the kernel does not tell. */
static struct tcp_info look_at(const struct connection *connection)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    getsockopt(connection->fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    return info;
}

static uint64_t bytes_received(const struct connection *connection)
{
    return look_at(connection).tcpi_bytes_received;
}

static void set_state(const struct connection_limits *limits, struct connection *connection,
                      enum connection_state state, int64_t now_us)
{
    const bool header_goes_on = connection->state == CONNECTION_LINE && state == CONNECTION_HEADER;
    const bool in_header = state == CONNECTION_IDLE || state == CONNECTION_LINE || state == CONNECTION_HEADER;
    if (!header_goes_on)
        connection->deadline_us = now_us + (in_header ? limits->header_timeout_us : limits->body_timeout_us);
    if (state == CONNECTION_WORK)
        connection->received = bytes_received(connection);
    connection->state = state;
    connection->since_us = now_us;
}

bool connection_enter(struct connections *connections, struct connection *connection, enum connection_state state,
                      const char *request_id)
{
    pthread_mutex_lock(&connections->mutex);
    bool cut = connection->state == CONNECTION_CUT;
    if (!cut) {
        set_state(&connections->limits, connection, state, job_clock_us());
        if (request_id)
            snprintf(connection->request_id, sizeof connection->request_id, "%s", request_id);
    }
    pthread_mutex_unlock(&connections->mutex);
    return !cut;
}

bool connection_was_cut(struct connections *connections, struct connection *connection)
{
    pthread_mutex_lock(&connections->mutex);
    bool cut = connection->state == CONNECTION_CUT;
    pthread_mutex_unlock(&connections->mutex);
    return cut;
}

bool connection_was_cut_in_line(struct connections *connections, const struct connection *connection,
                                char id[REQUEST_ID_MAX + 1], int64_t *since_us)
{
    pthread_mutex_lock(&connections->mutex);
    bool cut = connection->cut_in_line;
    if (cut) {
        snprintf(id, REQUEST_ID_MAX + 1, "%s", connection->request_id);
        *since_us = connection->since_us;
    }
    pthread_mutex_unlock(&connections->mutex);
    return cut;
}

void connection_linger(struct connections *connections, struct connection *connection)
{
    pthread_mutex_lock(&connections->mutex);
    connection->linger = true;
    pthread_mutex_unlock(&connections->mutex);
}

/* ---- the sweep ---- */

static void answer_408(struct connection *connection, int64_t now_us)
{
    static const char body[] = "{\"error\":{\"code\":\"request_timeout\",\"message\":\"the request did not arrive in "
                               "time: limits.header_timeout_ms and limits.body_timeout_ms bound it\"}}";
    char reply[1024];
    connection->cut_in_line = connection->state == CONNECTION_LINE;
    if (connection->cut_in_line)
        request_make_id(connection->request_id);
    int length = snprintf(reply, sizeof reply,
                          "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\nX-Request-Id: %s\r\nCache-Control: no-store\r\n"
                          "X-Content-Type-Options: nosniff\r\n\r\n%s",
                          sizeof body - 1, connection->request_id, body);
    if (send(connection->fd, reply, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) < length)
        shutdown(connection->fd, SHUT_RDWR);
    else
        shutdown(connection->fd, SHUT_WR);
    connection->state = CONNECTION_CUT;
    connection->deadline_us = now_us + CUT_LINGER_US;
}

/* A TLS connection, into which only libmicrohttpd can write. */
static void cut_silently(struct connection *connection, int64_t now_us)
{
    shutdown(connection->fd, SHUT_RDWR);
    if (connection->state == CONNECTION_HEADER || connection->state == CONNECTION_BODY)
        connection->state = CONNECTION_CUT;
    connection->deadline_us = now_us + CUT_LINGER_US;
}

/* Without a request, as far as one can see: the bytes of a TLS connection may have been its handshake. */
static bool is_idle(const struct connection *connection)
{
    if (connection->state == CONNECTION_LINE && connection->pair)
        return (int64_t)look_at(connection).tcpi_last_data_recv * 1000 >= DRAIN_IDLE_US;
    return connection->state == CONNECTION_IDLE;
}

/* Idle for a while since the drain began or since the last reply, with nothing waiting to be read. */
static bool is_drained(const struct connections *connections, const struct connection *connection, int64_t now_us)
{
    int64_t since = connection->since_us;
    int unread = 0;
    if (!connections->drain_since_us || !is_idle(connection))
        return false;
    if (since < connections->drain_since_us)
        since = connections->drain_since_us;
    return now_us - since >= DRAIN_IDLE_US && ioctl(connection->fd, FIONREAD, &unread) == 0 && unread == 0;
}

/* The client has closed in the middle of a request, or between two. libmicrohttpd may have used up the event that told so
 * while it read the last bytes, and would wait for more until the deadline. */
static bool is_deserted(const struct connection *connection)
{
    int unread = 0;
    if (connection->state == CONNECTION_WORK || connection->state == CONNECTION_REPLY ||
        connection->state == CONNECTION_CUT)
        return false;
    return connection->left && ioctl(connection->fd, FIONREAD, &unread) == 0 && unread == 0;
}

static void sweep_one(const struct connections *connections, struct connection *connection, int64_t now_us)
{
    if (connection->state == CONNECTION_IDLE && bytes_received(connection) > connection->received)
        set_state(&connections->limits, connection, CONNECTION_LINE, now_us);
    const bool late = now_us >= connection->deadline_us && connection->state != CONNECTION_WORK;
    const bool receiving = connection->state == CONNECTION_LINE || connection->state == CONNECTION_HEADER ||
                           connection->state == CONNECTION_BODY;
    if (is_deserted(connection))
        shutdown(connection->fd, SHUT_RDWR);
    else if (late && receiving && connection->pair)
        cut_silently(connection, now_us);
    else if (late && receiving)
        answer_408(connection, now_us);
    else if (late || is_drained(connections, connection, now_us))
        shutdown(connection->fd, SHUT_RDWR);
}

/* Throws away what has arrived; false when the client has closed. */
static bool discard_input(int fd, size_t reads)
{
    char scratch[65536];
    for (size_t i = 0; i < reads; i++) {
        ssize_t got = recv(fd, scratch, sizeof scratch, MSG_DONTWAIT);
        if (got < 0)
            return errno == EAGAIN || errno == EINTR;
        if (got == 0)
            return false;
    }
    return true;
}

static void sweep_lingering(struct connections *connections, int64_t now_us)
{
    const size_t each = connections->lingering_count ? LINGER_READS / connections->lingering_count : 0;
    for (size_t i = 0; i < connections->lingering_count;) {
        struct lingering *lingering = &connections->lingering[i];
        if (discard_input(lingering->fd, each) && now_us < lingering->deadline_us) {
            i++;
            continue;
        }
        close(lingering->fd);
        *lingering = connections->lingering[--connections->lingering_count];
    }
}

/* One look at all connections: a thousand slow clients are not to cost a thousand system calls each time. */
static void look_who_left(struct connections *connections)
{
    size_t count = 0;
    if (connections->polled_room < connections->count) {
        const size_t room = 2 * connections->count;
        struct pollfd *polled = reallocarray(connections->polled, room, sizeof *polled);
        if (!polled)
            return;
        connections->polled = polled;
        connections->polled_room = room;
    }
    for (const struct connection *at = connections->first; at; at = at->next)
        connections->polled[count++] = (struct pollfd){.fd = at->fd, .events = POLLRDHUP};
    if (poll(connections->polled, count, 0) < 0)
        return;
    count = 0;
    for (struct connection *at = connections->first; at; at = at->next)
        at->left = connections->polled[count++].revents & (POLLRDHUP | POLLHUP | POLLERR);
}

void connections_sweep(struct connections *connections, bool draining)
{
    pthread_mutex_lock(&connections->mutex);
    int64_t now_us = job_clock_us();
    if (draining && !connections->drain_since_us)
        connections->drain_since_us = now_us;
    look_who_left(connections);
    for (struct connection *at = connections->first; at; at = at->next)
        sweep_one(connections, at, now_us);
    sweep_lingering(connections, now_us);
    pthread_mutex_unlock(&connections->mutex);
}

size_t connections_count(struct connections *connections)
{
    pthread_mutex_lock(&connections->mutex);
    size_t count = connections->count + connections->lingering_count;
    pthread_mutex_unlock(&connections->mutex);
    return count;
}
