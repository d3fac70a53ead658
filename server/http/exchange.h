/* exchange.h - the callbacks that libmicrohttpd makes for one request; private to http/. */
#ifndef SERVER_HTTP_EXCHANGE_H
#define SERVER_HTTP_EXCHANGE_H

#include <microhttpd.h>

#include "server/http/connections.h"
#include "server/http/service.h"
#include "server/http/tls.h"

/* What every callback is given. */
struct exchange {
    struct service *service;
    struct connections *connections;
    struct tls *tls; /* NULL: none */
    atomic_int_fast64_t refusal_told_us; /* when the log last said that a connection was refused */
};

enum MHD_Result exchange_accept(void *exchange, const struct sockaddr *peer, socklen_t length);

void exchange_connection(void *exchange, struct MHD_Connection *mhd, void **socket_context,
                         enum MHD_ConnectionNotificationCode code);
void *exchange_request_line(void *exchange, const char *target, struct MHD_Connection *mhd);
enum MHD_Result exchange_access(void *exchange, struct MHD_Connection *mhd, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **context);
void exchange_completed(void *exchange, struct MHD_Connection *mhd, void **context,
                        enum MHD_RequestTerminationCode how);

#endif
