/*
 * http.c - the server's life: bind, serve, drain, stop.
 *
 * One libmicrohttpd thread (epoll) does all I/O and calls the functions of exchange.c; it never decodes and never
 * waits. http_tick(), http_drain() and http_stop() belong to the main thread. What the two share is in connections.c,
 * under its mutex, and two atomics in struct service.
 *
 * Draining loses no request that was accepted. Closing a listening socket resets the connections in its backlog, so
 * first a socket filter drops new SYNs (their clients try again a second later, and are refused then), the
 * backlog empties, and only then is the socket closed. Every reply now says Connection: close; connections that stay
 * idle are shut down. MHD_stop_daemon() comes when no connection is left, since it would abort the process over a
 * suspended one and drop replies that are still being sent.
 */
#include "server/http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http/exchange.h"
#include "server/log.h"
#include "server/work/job.h"

enum {
    BACKLOG = 4096,
    CONNECTION_MEMORY = 65536,  /* bytes; larger headers get 431 */
    SPARE_DESCRIPTORS = 128,    /* beyond one per connection: models, lingering sockets, /proc */
    DRAIN_SETTLE_US = 20000,    /* handshakes under way finish, callbacks under way return */
    DRAIN_BACKLOG_US = 10000000 /* a backlog that does not empty (connection limit) is given up */
};

struct http {
    struct exchange exchange;
    struct MHD_Daemon *daemon;
    int listener; /* -1 once closed */
    char address[INET6_ADDRSTRLEN + 16];
    int64_t drain_us, closed_us; /* when the drain began, when the listener was closed; 0: not yet */
};

/* ---- start ---- */

static bool fail(struct http_error *error, const char *what, const struct config *config, int code)
{
    snprintf(error->message, sizeof error->message, "%s %.64s port %d: %s", what, config->listen.address,
             config->listen.port, strerror(code));
    return false;
}

static bool parse_address(const struct config *config, struct sockaddr_storage *address, socklen_t *length)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)address;
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET, config->listen.address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)config->listen.port);
        *length = sizeof *v4;
    } else if (inet_pton(AF_INET6, config->listen.address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)config->listen.port);
        *length = sizeof *v6;
    } else {
        return false;
    }
    return true;
}

static void describe_address(struct http *http, const struct config *config)
{
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof bound;
    getsockname(http->listener, (struct sockaddr *)&bound, &length);
    bool v6 = bound.ss_family == AF_INET6;
    int port = ntohs(v6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port
                        : ((struct sockaddr_in *)(void *)&bound)->sin_port);
    snprintf(http->address, sizeof http->address, v6 ? "[%.45s]:%d" : "%.45s:%d", config->listen.address, port);
}

static bool open_listener(struct http *http, const struct config *config, struct http_error *error)
{
    struct sockaddr_storage address;
    socklen_t length = 0;
    const int on = 1;
    if (!parse_address(config, &address, &length))
        return fail(error, "listen.address is not a numeric IPv4 or IPv6 address:", config, EINVAL);
    http->listener = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (http->listener < 0)
        return fail(error, "cannot create a socket for", config, errno);
    setsockopt(http->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(http->listener, (struct sockaddr *)&address, length) < 0 || listen(http->listener, BACKLOG) < 0)
        return fail(error, "cannot listen on", config, errno);
    describe_address(http, config);
    return true;
}

/* As many connections as the configuration and the descriptors of this process allow. */
static unsigned connection_limit(const struct config *config)
{
    rlim_t wanted = (rlim_t)config->limits.max_connections + SPARE_DESCRIPTORS;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= wanted)
        return (unsigned)config->limits.max_connections;
    rlim_t before = files.rlim_cur;
    files.rlim_cur = files.rlim_max < wanted ? files.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &files) < 0)
        files.rlim_cur = before;
    if (files.rlim_cur >= wanted)
        return (unsigned)config->limits.max_connections;
    rlim_t limit = files.rlim_cur > 2 * SPARE_DESCRIPTORS ? files.rlim_cur - SPARE_DESCRIPTORS : files.rlim_cur / 2;
    log_warn("limits.max_connections %d lowered to %llu: the process may open %llu files (LimitNOFILE)",
             config->limits.max_connections, (unsigned long long)limit, (unsigned long long)files.rlim_cur);
    return limit ? (unsigned)limit : 1;
}

static __attribute__((format(printf, 2, 0))) void log_library(void *cls, const char *format, va_list arguments)
{
    char line[512];
    (void)cls;
    vsnprintf(line, sizeof line, format, arguments);
    line[strcspn(line, "\n")] = '\0';
    log_debug("libmicrohttpd: %s", line);
}

static bool start_daemon(struct http *http, const struct config *config, struct http_error *error)
{
    /* strictness 0: the framing is checked in request.c, whose 400 says why and carries a request id */
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        exchange_access, &http->exchange, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL, MHD_OPTION_LISTEN_SOCKET,
        http->listener, MHD_OPTION_CONNECTION_LIMIT, connection_limit(config), MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 0,
        MHD_OPTION_URI_LOG_CALLBACK, exchange_request_line, &http->exchange, MHD_OPTION_NOTIFY_COMPLETED,
        exchange_completed, &http->exchange, MHD_OPTION_NOTIFY_CONNECTION, exchange_connection, &http->exchange,
        MHD_OPTION_END);
    return http->daemon || fail(error, "cannot start the HTTP server on", config, errno);
}

bool http_start(struct http **result, struct service *service, struct http_error *error)
{
    const struct config *config = service->config;
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return fail(error, "cannot serve", config, ENOMEM);
    http->listener = -1;
    http->exchange.service = service;
    http->exchange.connections = connections_create(&(struct connection_limits){
        .header_timeout_us = (int64_t)config->limits.header_timeout_ms * 1000,
        .body_timeout_us = (int64_t)config->limits.body_timeout_ms * 1000,
    });
    if (!http->exchange.connections)
        fail(error, "cannot serve", config, ENOMEM);
    else if (open_listener(http, config, error) && start_daemon(http, config, error)) {
        *result = http;
        return true;
    }
    http_stop(http);
    return false;
}

const char *http_address(const struct http *http)
{
    return http->address;
}

/* ---- drain ---- */

/* Lets the listener ignore SYNs, while handshakes under way complete. */
static void refuse_new_connections(int listener)
{
    struct sock_filter drop_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* the flags in the TCP header */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xFFFFFFFF),
    };
    struct sock_fprog program = {.len = sizeof drop_syn / sizeof drop_syn[0], .filter = drop_syn};
    if (setsockopt(listener, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
        log_debug("cannot filter the listening socket: %s", strerror(errno));
}

static bool backlog_is_empty(int listener)
{
    struct pollfd backlog = {.fd = listener, .events = POLLIN};
    return poll(&backlog, 1, 0) == 0;
}

static void close_listener(struct http *http)
{
    MHD_quiesce_daemon(http->daemon);
    for (;;) { /* whoever came between the last look and the quiesce */
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        int fd = accept4(http->listener, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            break;
        MHD_add_connection(http->daemon, fd, (struct sockaddr *)&peer, length);
    }
    close(http->listener);
    http->listener = -1;
    http->closed_us = job_clock_us();
}

void http_drain(struct http *http)
{
    if (http->drain_us)
        return;
    http->drain_us = job_clock_us();
    atomic_store(&http->exchange.service->draining, true);
    refuse_new_connections(http->listener);
}

void http_tick(struct http *http)
{
    connections_sweep(http->exchange.connections, http->drain_us != 0);
    if (!http->drain_us || http->listener < 0)
        return;
    int64_t waited = job_clock_us() - http->drain_us;
    if ((waited >= DRAIN_SETTLE_US && backlog_is_empty(http->listener)) || waited >= DRAIN_BACKLOG_US)
        close_listener(http);
}

bool http_is_drained(const struct http *http)
{
    return http->closed_us && job_clock_us() - http->closed_us >= DRAIN_SETTLE_US &&
           connections_count(http->exchange.connections) == 0;
}

void http_stop(struct http *http)
{
    if (!http)
        return;
    if (http->daemon) {
        if (http->listener >= 0)
            MHD_quiesce_daemon(http->daemon); /* or MHD_stop_daemon() would close our socket */
        MHD_stop_daemon(http->daemon);
    }
    if (http->listener >= 0)
        close(http->listener);
    connections_free(http->exchange.connections);
    free(http);
}
