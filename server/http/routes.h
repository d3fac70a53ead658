/*
 * routes.h - what the daemon answers: one row per route, and the handlers behind them.
 *
 * Handlers know requests, jobs and JSON; they do not know libmicrohttpd. All run on an HTTP thread and must not block,
 * except `finish`, which runs on a worker.
 */
#ifndef SERVER_HTTP_ROUTES_H
#define SERVER_HTTP_ROUTES_H

#include <stdbool.h>

#include "server/http/request.h"

enum outcome {
    OUTCOME_REPLY, /* the reply is in the request */
    OUTCOME_WORK,  /* request->job waits to be pushed (room for it is reserved); `finish` writes the reply */
    OUTCOME_LOAD   /* request->load_id has to be brought into memory first (request->wish); then it is handled anew */
};

/* Whether the reply can be a picture instead of JSON, and which it is when the client does not say. */
enum pictures { PICTURES_NONE, PICTURES_POSSIBLE, PICTURES_PREFERRED };

/* Which model a request is for, to be found in memory or brought there before it is handled. */
enum model_source { MODEL_NONE, MODEL_IN_QUERY, MODEL_IN_PATH };

/* How an error is told. */
enum error_style {
    ERRORS_WITH_CODE, /* {"error":{"code":...,"message":...}} */
    ERRORS_PLAIN      /* {"error":"..."}, as the Open Inference Protocol and Hugging Face have it */
};

struct route {
    const char *name;     /* for metrics and the log */
    const char *method;   /* GET also serves HEAD */
    const char *path;     /* {name} and {version} stand for one segment each */
    enum role role;       /* that a key needs; ROLE_ADMIN: the route is only there with config.access.admin */
    bool takes_images;    /* has a body and a query; otherwise both are ignored */
    bool needs_models;    /* answers 503 while they load */
    enum model_source model;
    enum error_style errors;
    unsigned parameters;  /* bits 1 << parameter_id: those allowed in the query */
    bool explains;        /* an explanation is what it is for */
    enum pictures pictures;
    bool one_image;       /* there is no answer for several */
    enum outcome (*handle)(struct request *request);
    void (*parse)(struct request *request); /* for request_parse_on_worker() */
    void (*finish)(struct request *request, const struct job *job);
};

/* All of them; the first that matches a path counts. */
const struct route *routes_table(size_t *count);

/* Sets request->route to the route that the path and the method name; else request->problem, or, where a browser asks what
 * it may send, request->status. */
void routes_find(struct request *request);

/* Everything that can be refused, or answered (request->status), once the header is in: sets request->route, and
 * request->problem to what is wrong. */
void routes_admit(struct request *request);

/* Once the body is in and nothing was wrong. */
enum outcome routes_handle(struct request *request);

/* The loader has done what was asked of it; takes the model over. */
void routes_loaded(struct request *request, struct model *model, vit_status status, const vit_error *error);

/* The job is done: OUTCOME_REPLY, with the reply written, or OUTCOME_WORK, with another job to be pushed. */
enum outcome routes_finish(struct request *request, const struct job *job);

/* Makes request->problem the reply; status 500 when even that fails for want of memory. */
void routes_reply_problem(struct request *request);

#endif
