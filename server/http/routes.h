/*
 * routes.h - what the daemon answers: one row per route, and the handlers behind them.
 *
 * Handlers know requests, jobs and JSON; they do not know libmicrohttpd. All run on the HTTP thread and must not block,
 * except `finish`, which runs on a worker.
 */
#ifndef SERVER_HTTP_ROUTES_H
#define SERVER_HTTP_ROUTES_H

#include <stdbool.h>

#include "server/http/request.h"

enum outcome {
    OUTCOME_REPLY, /* the reply is in the request */
    OUTCOME_WORK   /* request->job waits to be pushed (room for it is reserved); `finish` writes the reply */
};

struct route {
    const char *name;     /* for metrics and the log */
    const char *method;   /* GET also serves HEAD */
    const char *path;     /* a trailing slash: one more segment follows, the handler's to read */
    bool takes_body;      /* otherwise a body is read and ignored */
    bool needs_models;    /* answers 503 while they load */
    bool has_query;       /* false: a query string is ignored */
    unsigned parameters;  /* enum query_parameter: those allowed in the query */
    enum outcome (*handle)(struct request *request);
    void (*finish)(struct request *request, const struct job *job);
};

/* Everything that can be refused once the header is in: sets request->route, and request->problem to what is wrong. */
void routes_admit(struct request *request);

/* Once the body is in and nothing was wrong. */
enum outcome routes_handle(struct request *request);

/* The job is done: writes the reply. */
void routes_finish(struct request *request, const struct job *job);

/* Makes request->problem the reply; status 500 when even that fails for want of memory. */
void routes_reply_problem(struct request *request);

#endif
