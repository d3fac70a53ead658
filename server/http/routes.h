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

/* Whether the reply can be a picture instead of JSON, and which it is when the client does not say. */
enum pictures { PICTURES_NONE, PICTURES_POSSIBLE, PICTURES_PREFERRED };

struct route {
    const char *name;     /* for metrics and the log */
    const char *method;   /* GET also serves HEAD */
    const char *path;     /* {name} stands for one segment */
    bool takes_images;    /* has a body and a query; otherwise both are ignored */
    bool needs_models;    /* answers 503 while they load */
    unsigned parameters;  /* bits 1 << parameter_id: those allowed in the query */
    bool explains;        /* an explanation is what it is for */
    enum pictures pictures;
    enum outcome (*handle)(struct request *request);
    void (*finish)(struct request *request, const struct job *job);
};

/* All of them, in the order in which a 404 lists them. */
const struct route *routes_table(size_t *count);

/* Everything that can be refused once the header is in: sets request->route, and request->problem to what is wrong. */
void routes_admit(struct request *request);

/* Once the body is in and nothing was wrong. */
enum outcome routes_handle(struct request *request);

/* The job is done: writes the reply. */
void routes_finish(struct request *request, const struct job *job);

/* Makes request->problem the reply; status 500 when even that fails for want of memory. */
void routes_reply_problem(struct request *request);

#endif
