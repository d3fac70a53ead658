/*
 * http.h - the HTTP server: libmicrohttpd with one thread, and an orderly end.
 */
#ifndef SERVER_HTTP_HTTP_H
#define SERVER_HTTP_HTTP_H

#include <stdbool.h>

#include "server/http/service.h"

struct http;

struct http_error {
    char message[384];
};

/* Binds to listen.address and listen.port and serves at once; until service->ready is set, what needs a model is
 * answered 503. service is borrowed. */
bool http_start(struct http **http, struct service *service, struct http_error *error);

/* "127.0.0.1:8080" or "[::1]:8080", with the port that was chosen. */
const char *http_address(const struct http *http);

/* Cuts late connections and goes on with a drain; to be called every 100 ms or so, every 10 while draining. */
void http_tick(struct http *http);

/* Begins to drain: /readyz says 503, no new connections once those waiting are accepted, every reply says
 * Connection: close. Requests on open connections are still served. */
void http_drain(struct http *http);
/* Whether no connection is left. */
bool http_is_drained(const struct http *http);

/* After http_is_drained(), or before anything was ready: ends the server and frees it. Accepts NULL. */
void http_stop(struct http *http);

#endif
