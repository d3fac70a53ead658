/*
 * request.h - one HTTP request from its request line to its last byte, and the checks on its header.
 *
 * Created when the request line is in, released when libmicrohttpd reports the request as completed. It belongs to the
 * HTTP thread; while its job is with the workers, only they touch it (in job->done), the connection being suspended.
 */
#ifndef SERVER_HTTP_REQUEST_H
#define SERVER_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/query.h"
#include "server/http/service.h"
#include "server/http/strbuf.h"
#include "server/work/job.h"

struct MHD_Connection;
struct connection;
struct exchange;
struct route;

enum { REQUEST_ID_MAX = 128 };

struct request {
    struct exchange *exchange;
    struct service *service;
    struct MHD_Connection *mhd;
    struct connection *connection;

    char *target;              /* as sent, up to the '?'; owned */
    size_t target_length;      /* of all that was sent, the query included */
    const char *path;          /* in target: without scheme and authority, if the target had them */
    const char *query_text;    /* in target's memory, after the '?'; NULL: none */
    char method[16];
    char id[REQUEST_ID_MAX + 1];
    const struct route *route; /* NULL: none matched */
    int64_t start_us;
    enum { STAGE_HEADER, STAGE_BODY, STAGE_WORKING, STAGE_WORKED, STAGE_REPLIED } stage;

    bool length_known;         /* there is a Content-Length, or the body is chunked */
    uint64_t declared_length;  /* Content-Length, or UINT64_MAX when the body is chunked */
    uint8_t *body;             /* owned, until it moves into a job */
    size_t body_length, body_capacity;
    size_t bytes_in;
    bool discard;              /* the body is read but not kept: the answer is already known */
    const char *content_type;  /* in libmicrohttpd's memory, as long as the request; NULL: none */

    struct choices choices;
    const char *accept;        /* as content_type */
    bool wants_picture;        /* rather than JSON, where the route has both */
    const char *segment;       /* of the path, where the route has {name}; [segment_length] */
    size_t segment_length;
    int model;                 /* index in the registry, or -1 */
    bool single;               /* one image, answered without "results" */
    struct job *job;           /* from the handler until job->done */

    struct problem problem;    /* status 0: none */
    int status;                /* of the reply; 0: none yet */
    struct strbuf reply;
    size_t reply_length;       /* once it is sent */
    const char *reply_type;
    char policy[320];          /* Content-Security-Policy; "": none */
    const char *allow;         /* of a 405 */
    unsigned retry_after;      /* seconds, 0: no header */

    size_t images, batch_size; /* for the log */
    double queue_ms, preprocess_ms, inference_ms;
};

/* NULL when memory is short. target is what followed the method. */
struct request *request_create(struct service *service, const char *target);
void request_free(struct request *request);

/* Takes the client's id (may be NULL; blanks may follow it) if it is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : / + = @ -,
 * else makes one. */
void request_set_id(struct request *request, const char *client_id);
void request_make_id(char id[REQUEST_ID_MAX + 1]);

/* ---- framing: libmicrohttpd lets through what RFC 9112 forbids, so every header passes here first ---- */

struct framing {
    unsigned hosts, lengths, encodings; /* how often each header was seen */
    uint64_t content_length;
    bool expects_continue;
};

/* One header, in order. False with a 400 in *problem: what a proxy in front might have read otherwise. */
bool framing_header(struct framing *framing, const char *name, size_t name_length, const char *value,
                    size_t value_length, struct problem *problem);
/* After the last header. */
bool framing_end(const struct framing *framing, const char *method, const char *target, const char *version,
                 struct problem *problem);

#endif
