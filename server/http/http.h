/*
 * http.h - the HTTP server: libmicrohttpd with a thread for each listening socket, and an orderly end.
 */
#ifndef SERVER_HTTP_HTTP_H
#define SERVER_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "server/config.h"
#include "server/http/service.h"

struct http;

struct http_error {
    char message[512];
};

/* Binds to what config.listen says, or takes the `inherited` sockets from descriptor 3 on instead (sd_listen_fds(3)), and
 * serves at once; until service->ready is set, what needs a model is answered 503. service is borrowed. On inherited sockets
 * nothing is accepted before http_take_passed(), to be called once it is set: who comes between two processes waits there, and
 * is answered by the second as if there had been one. */
bool http_start(struct http **http, struct service *service, const struct config *config, size_t inherited,
                struct http_error *error);
bool http_take_passed(struct http *http, struct http_error *error);

/* "http://127.0.0.1:8080" with the port that was chosen, "https://[::1]:8443", "unix:/run/vitd/socket": the i-th; NULL past
 * the last. */
const char *http_address(const struct http *http, size_t i);

/* Whether the certificate that the configuration names, if it does, can be read. */
bool http_check(const struct config *config, struct http_error *error);
/* Timeouts and limits for what comes from now on, and the certificate as its files are now (false: it stays as it was). */
bool http_configure(struct http *http, const struct config *config, struct http_error *error);

/* Cuts late connections and goes on with a drain; to be called every 100 ms or so, every 10 while draining. */
void http_tick(struct http *http);

/* Begins to drain, service->draining being set, so that every reply says Connection: close: no new connections once those
 * waiting are accepted, idle ones are shut down. Requests on open connections are still served. */
void http_drain(struct http *http);
/* Whether no connection is left, and how many are. */
bool http_is_drained(const struct http *http);
size_t http_connections(const struct http *http);

/* After http_is_drained(), or before anything was ready: ends the server and frees it. Accepts NULL. */
void http_stop(struct http *http);

#endif
