/*
 * connections.h - every open connection, how far it is, and until when: the total deadlines that libmicrohttpd lacks.
 *
 * The HTTP thread reports what happens to a connection; the main thread sweeps the list and cuts those that are late.
 * One mutex protects the list and every connection in it. A socket is closed by libmicrohttpd after connection_close()
 * has taken it off the list, so the sweep never touches a closed descriptor.
 */
#ifndef SERVER_HTTP_CONNECTIONS_H
#define SERVER_HTTP_CONNECTIONS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/request.h"

struct connection;
struct tls_pair;
struct connections;

enum connection_state {
    CONNECTION_IDLE,   /* no request yet, or the previous reply is sent */
    CONNECTION_LINE,   /* some of a request line is in */
    CONNECTION_HEADER, /* the request line is in */
    CONNECTION_BODY,   /* the header is in */
    CONNECTION_WORK,   /* suspended: the workers have the request, and their own deadline */
    CONNECTION_REPLY,  /* the reply is being sent */
    CONNECTION_CUT     /* answered 408 behind libmicrohttpd's back; nothing more will be sent */
};

struct connection_limits {
    int64_t header_timeout_us; /* from a request's first byte to a complete header; and to be idle */
    int64_t body_timeout_us;   /* from the header to the end of the body; and to send a reply */
    size_t per_address;        /* connections; 0: no bound */
};

struct connections *connections_create(const struct connection_limits *limits);
/* Accepts NULL. Every connection has been closed. */
void connections_free(struct connections *connections);

/* For what comes from now on. */
void connections_set_limits(struct connections *connections, const struct connection_limits *limits);

/* Whether one more from that address is within the limits. An IPv6 network of 64 bits counts as one address. */
bool connections_admit(struct connections *connections, const struct sockaddr *peer);

/* NULL when memory is short. pair: of a TLS connection, whose bytes only libmicrohttpd can write; else NULL. */
struct connection *connection_open(struct connections *connections, int fd, const struct sockaddr *peer,
                                   struct tls_pair *pair);
struct tls_pair *connection_pair(const struct connection *connection);
void connection_close(struct connections *connections, struct connection *connection);

int connection_fd(const struct connection *connection);
const char *connection_peer(const struct connection *connection);

/* The connection goes on to a state (CONNECTION_LINE is left to the sweep). False when it has been cut: then close it.
 * request_id is for the 408, in CONNECTION_HEADER and CONNECTION_BODY. */
bool connection_enter(struct connections *connections, struct connection *connection, enum connection_state state,
                      const char *request_id);
/* Whether it has been cut. */
bool connection_was_cut(struct connections *connections, struct connection *connection);
/* Whether it has been cut in a request's first line, so that there is no request to tell of it: then the id in the 408, and
 * when the line began. */
bool connection_was_cut_in_line(struct connections *connections, const struct connection *connection,
                                char id[REQUEST_ID_MAX + 1], int64_t *since_us);
/* The reply goes out before the body was read: after closing, go on reading for a moment, or the reset that unread
 * bytes cause would destroy the reply on its way. */
void connection_linger(struct connections *connections, struct connection *connection);

/* Cuts what is late; with draining, also what has been idle for a while. */
void connections_sweep(struct connections *connections, bool draining);
/* Open and lingering ones. */
size_t connections_count(struct connections *connections);

#endif
