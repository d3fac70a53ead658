/*
 * http.c - the server's life: bind, serve, drain, stop.
 *
 * Each listening socket (TCP, a Unix socket, those that systemd hands over) has a libmicrohttpd daemon of one thread
 * (epoll), which does all I/O and calls the functions of exchange.c; it never decodes and never waits. http_tick(),
 * http_drain() and http_stop() belong to the main thread. What they share is in connections.c, under its mutex, and in
 * struct service.
 *
 * Draining loses no request that was accepted. Closing a listening TCP socket resets the connections in its backlog, so
 * first a socket filter drops new SYNs (their clients try again a second later, and are refused then), the backlog empties,
 * and only then is the socket closed. A Unix socket loses its name first. A socket of systemd's is left as it is: what waits
 * there is for the next process, which takes it once it has its models. Every reply now says Connection: close; connections
 * that stay idle are shut down. MHD_stop_daemon() comes when no connection is left, since it would abort the process over a
 * suspended one and drop replies that are still being sent.
 */
#include "server/http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/http/exchange.h"
#include "server/http/tls.h"
#include "server/log.h"
#include "server/systemd.h"
#include "server/work/job.h"

enum {
    BACKLOG = 4096,
    CONNECTION_MEMORY = 65536,  /* bytes; larger headers get 431 */
    SPARE_DESCRIPTORS = 128,    /* beyond one per connection: models, lingering sockets, /proc */
    MAX_LISTENERS = 2 + SYSTEMD_MAX_FDS,
    DRAIN_SETTLE_US = 20000,    /* handshakes under way finish, callbacks under way return */
    DRAIN_BACKLOG_US = 10000000 /* a backlog that does not empty (connection limit) is given up */
};

struct listener {
    int fd; /* -1: closed, or not there */
    int family;
    bool inherited;
    struct MHD_Daemon *daemon;
    char address[128]; /* "http://127.0.0.1:8080" */
    char path[108];    /* of our own Unix socket */
};

struct http {
    struct exchange exchange;
    struct tls *tls; /* NULL: none */
    struct listener listeners[MAX_LISTENERS];
    size_t count;
    unsigned limit; /* of connections, of each listener */
    int64_t drain_us, closed_us; /* when the drain began, when the last listener was closed; 0: not yet */
};

/* ---- sockets ---- */

static bool fail(struct http_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct http_error *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return false;
}

/* A place for one more, without a socket. */
static struct listener *add_listener(struct http *http)
{
    struct listener *listener = &http->listeners[http->count++];
    *listener = (struct listener){.fd = -1};
    return listener;
}

static void describe(struct listener *listener, bool tls)
{
    char text[INET6_ADDRSTRLEN] = "";
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof bound;
    getsockname(listener->fd, (struct sockaddr *)&bound, &length);
    listener->family = bound.ss_family;
    const char *scheme = tls && bound.ss_family != AF_UNIX ? "https" : "http";
    if (bound.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)&bound;
        inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        snprintf(listener->address, sizeof listener->address, "%s://%s:%d", scheme, text, ntohs(v4->sin_port));
    } else if (bound.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const void *)&bound;
        inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        snprintf(listener->address, sizeof listener->address, "%s://[%s]:%d", scheme, text, ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_un *path = (const void *)&bound;
        snprintf(listener->address, sizeof listener->address, "unix:%.107s", path->sun_path);
    }
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

static bool open_tcp(struct http *http, const struct config *config, struct http_error *error)
{
    struct sockaddr_storage address;
    socklen_t length = 0;
    const int on = 1;
    const char *where = config->listen.address;
    struct listener *listener = add_listener(http);
    if (!parse_address(config, &address, &length))
        return fail(error, "listen.address is not a numeric IPv4 or IPv6 address: %.64s", where);
    listener->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        return fail(error, "cannot create a socket for %.64s: %s", where, strerror(errno));
    setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener->fd, (struct sockaddr *)&address, length) < 0 || listen(listener->fd, BACKLOG) < 0)
        return fail(error, "cannot listen on %.64s port %d: %s", where, config->listen.port, strerror(errno));
    describe(listener, http->tls != NULL);
    return true;
}

/* A socket that nobody listens on any more is in the way. Connecting to a file of another kind fails in the same way. */
static void remove_stale_socket(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    if (fd >= 0)
        close(fd);
}

static bool open_unix(struct http *http, const struct config *config, struct http_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = config->listen.socket;
    struct listener *listener = add_listener(http);
    if (strlen(path) >= sizeof address.sun_path)
        return fail(error, "listen.socket: found a path of %zu bytes, allowed is up to %zu", strlen(path),
                    sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    remove_stale_socket(&address);
    listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0 || bind(listener->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return fail(error, "cannot listen on %.107s: %s", path, strerror(errno));
    memcpy(listener->path, address.sun_path, sizeof listener->path);
    if (listen(listener->fd, BACKLOG) < 0)
        return fail(error, "cannot listen on %.107s: %s", path, strerror(errno));
    describe(listener, false);
    return true;
}

static void take_inherited(struct http *http, int fd)
{
    struct listener *listener = add_listener(http);
    listener->fd = fd;
    listener->inherited = true;
    describe(listener, http->tls != NULL);
}

/* Those that were passed, or those of the configuration. */
static bool open_listeners(struct http *http, const struct config *config, size_t inherited, struct http_error *error)
{
    for (size_t i = 0; i < inherited; i++)
        take_inherited(http, SYSTEMD_FIRST_FD + (int)i);
    if (inherited > 0)
        return true;
    return open_tcp(http, config, error) && (*config->listen.socket == '\0' || open_unix(http, config, error));
}

/* ---- start ---- */

/* As many connections on each listener as the configuration and the descriptors of this process allow. */
static unsigned connection_limit(const struct config *config, size_t listeners)
{
    rlim_t wanted = (rlim_t)config->limits.max_connections * listeners + SPARE_DESCRIPTORS;
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
    limit /= listeners;
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

/* strictness 0: the framing is checked in request.c, whose 400 says why and carries a request id */
static bool start_daemon(struct http *http, struct listener *listener, struct http_error *error)
{
    struct exchange *exchange = &http->exchange;
    const bool tls = http->tls != NULL && listener->family != AF_UNIX;
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    listener->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
            (tls ? MHD_USE_TLS : 0u),
        0, exchange_accept, exchange, exchange_access, exchange, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_LISTEN_SOCKET, listener->fd, MHD_OPTION_CONNECTION_LIMIT, http->limit, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 0,
        MHD_OPTION_URI_LOG_CALLBACK, exchange_request_line, exchange, MHD_OPTION_NOTIFY_COMPLETED, exchange_completed,
        exchange, MHD_OPTION_NOTIFY_CONNECTION, exchange_connection, exchange, MHD_OPTION_ARRAY, tls ? tls_options : none,
        MHD_OPTION_END);
    return listener->daemon || fail(error, "cannot serve on %s: %s", listener->address, strerror(errno));
}

static void warn_of_certificate(const struct tls *tls)
{
    struct tls_status status;
    tls_status(tls, &status);
    if (*status.warning)
        log_warn("%s", status.warning);
}

/* *tls stays NULL where there is none. */
static bool open_tls(struct tls **tls, const struct config *config, struct http_error *error)
{
    struct tls_error why = {""};
    return *config->tls.certificate == '\0' || tls_create(tls, config->tls.certificate, config->tls.key, &why) ||
           fail(error, "tls: %s", why.message);
}

bool http_check(const struct config *config, struct http_error *error)
{
    struct tls *tls = NULL;
    const bool sound = open_tls(&tls, config, error);
    tls_free(tls);
    return sound;
}

static bool start_tls(struct http *http, const struct config *config, struct http_error *error)
{
    if (!open_tls(&http->tls, config, error))
        return false;
    if (!http->tls)
        return true;
    http->exchange.tls = http->tls;
    warn_of_certificate(http->tls);
    return true;
}

static bool start(struct http *http, const struct config *config, size_t inherited, struct http_error *error)
{
    if (!http->exchange.connections)
        return fail(error, "out of memory");
    if (!start_tls(http, config, error) || !open_listeners(http, config, inherited, error))
        return false;
    http->limit = connection_limit(config, http->count);
    for (size_t i = 0; i < http->count; i++)
        if (!http->listeners[i].inherited && !start_daemon(http, &http->listeners[i], error))
            return false;
    return true;
}

bool http_take_passed(struct http *http, struct http_error *error)
{
    for (size_t i = 0; i < http->count; i++)
        if (http->listeners[i].inherited && !start_daemon(http, &http->listeners[i], error))
            return false;
    return true;
}

static struct connection_limits limits_of(const struct config *config)
{
    return (struct connection_limits){
        .header_timeout_us = (int64_t)config->limits.header_timeout_ms * 1000,
        .body_timeout_us = (int64_t)config->limits.body_timeout_ms * 1000,
        .per_address = (size_t)config->limits.max_connections_per_address,
    };
}

bool http_start(struct http **result, struct service *service, const struct config *config, size_t inherited,
                struct http_error *error)
{
    const struct connection_limits limits = limits_of(config);
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return fail(error, "out of memory");
    http->exchange.service = service;
    http->exchange.connections = connections_create(&limits);
    if (start(http, config, inherited, error)) {
        *result = http;
        return true;
    }
    http_stop(http);
    return false;
}

const char *http_address(const struct http *http, size_t i)
{
    return i < http->count ? http->listeners[i].address : NULL;
}

bool http_configure(struct http *http, const struct config *config, struct http_error *error)
{
    const struct connection_limits limits = limits_of(config);
    struct tls_error why = {""};
    connections_set_limits(http->exchange.connections, &limits);
    if (http->tls && !tls_reload(http->tls, &why))
        return fail(error, "%s", why.message);
    if (http->tls)
        warn_of_certificate(http->tls);
    return true;
}

/* ---- drain ---- */

/* Lets the listener ignore SYNs, while handshakes under way complete. */
static void refuse_new_connections(struct listener *listener)
{
    struct sock_filter drop_syn[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* the flags in the TCP header */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xFFFFFFFF),
    };
    struct sock_fprog program = {.len = sizeof drop_syn / sizeof drop_syn[0], .filter = drop_syn};
    if (listener->path[0]) {
        unlink(listener->path);
        listener->path[0] = '\0'; /* the next process may have it by the time this one ends */
    } else if (!listener->inherited &&
               setsockopt(listener->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0) {
        log_debug("cannot filter the listening socket: %s", strerror(errno));
    }
}

static bool backlog_is_empty(int listener)
{
    struct pollfd backlog = {.fd = listener, .events = POLLIN};
    return poll(&backlog, 1, 0) == 0;
}

/* Whoever came between the last look and the quiesce. */
static void accept_rest(struct listener *listener)
{
    for (;;) {
        struct sockaddr_storage peer = {0};
        socklen_t length = sizeof peer;
        int fd = accept4(listener->fd, (struct sockaddr *)&peer, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            break;
        MHD_add_connection(listener->daemon, fd, (struct sockaddr *)&peer, length);
    }
}

static void close_listener(struct listener *listener)
{
    if (listener->daemon)
        MHD_quiesce_daemon(listener->daemon);
    if (!listener->inherited)
        accept_rest(listener);
    close(listener->fd);
    listener->fd = -1;
}

void http_drain(struct http *http)
{
    if (http->drain_us)
        return;
    http->drain_us = job_clock_us();
    for (size_t i = 0; i < http->count; i++)
        refuse_new_connections(&http->listeners[i]);
}

/* Whether every listener is closed. */
static bool close_listeners(struct http *http)
{
    const int64_t waited = job_clock_us() - http->drain_us;
    bool all = true;
    for (size_t i = 0; i < http->count; i++) {
        struct listener *listener = &http->listeners[i];
        if (listener->fd < 0)
            continue;
        if (listener->inherited || waited >= DRAIN_BACKLOG_US ||
            (waited >= DRAIN_SETTLE_US && backlog_is_empty(listener->fd)))
            close_listener(listener);
        else
            all = false;
    }
    return all;
}

void http_tick(struct http *http)
{
    connections_sweep(http->exchange.connections, http->drain_us != 0);
    if (http->drain_us && !http->closed_us && close_listeners(http))
        http->closed_us = job_clock_us();
}

bool http_is_drained(const struct http *http)
{
    return http->closed_us && job_clock_us() - http->closed_us >= DRAIN_SETTLE_US &&
           connections_count(http->exchange.connections) == 0;
}

size_t http_connections(const struct http *http)
{
    return connections_count(http->exchange.connections);
}

static void stop_listener(struct listener *listener)
{
    if (listener->daemon) {
        if (listener->fd >= 0)
            MHD_quiesce_daemon(listener->daemon); /* or MHD_stop_daemon() would close our socket */
        MHD_stop_daemon(listener->daemon);
    }
    if (listener->path[0])
        unlink(listener->path);
    if (listener->fd >= 0)
        close(listener->fd);
}

void http_stop(struct http *http)
{
    if (!http)
        return;
    for (size_t i = 0; i < http->count; i++)
        stop_listener(&http->listeners[i]);
    tls_free(http->tls);
    connections_free(http->exchange.connections);
    free(http);
}
