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
#include "server/http/trace.h"
#include "server/work/job.h"

struct MHD_Connection;
struct connection;
struct exchange;
struct route;
struct multipart_file;
struct words;
struct words_work;

enum { REQUEST_ID_MAX = 128 };

/* Headers that routes_admit() reads, in libmicrohttpd's memory, as long as the request; NULL: it did not come. */
struct request_headers {
    const char *authorization, *origin, *priority, *timeout_ms, *json_length;
};

struct request {
    struct exchange *exchange;
    struct service *service;
    struct settings *settings; /* a reference: those in force when it began */
    struct MHD_Connection *mhd;
    struct connection *connection;

    char *target;              /* as sent, up to the '?'; owned */
    size_t target_length;      /* of all that was sent, the query included */
    const char *path;          /* in target: without scheme and authority, if the target had them */
    const char *query_text;    /* in target's memory, after the '?'; NULL: none */
    char method[16];
    char id[REQUEST_ID_MAX + 1];
    const struct route *route; /* NULL: none matched */
    char name[128], version[16]; /* the segments of its path that stand for them, decoded; "": none */
    int64_t start_us, deadline_us;
    enum { STAGE_HEADER, STAGE_BODY, STAGE_LOADING, STAGE_LOADED, STAGE_WORKING, STAGE_WORKED, STAGE_REPLIED } stage;

    const char *user;          /* the name of the key that it came with, in settings' memory; "": none */
    struct trace trace;
    const char *origin;        /* a web page's, that may read the reply; as content_type */

    bool length_known;         /* there is a Content-Length, or the body is chunked */
    uint64_t declared_length;  /* Content-Length, or UINT64_MAX when the body is chunked */
    uint8_t *body;             /* owned, until it moves into a job */
    size_t body_length, body_capacity;
    size_t bytes_in;
    size_t held;               /* of them count as waiting in the queue */
    size_t room;               /* taken in the queue for images that are not in a job yet */
    bool discard;              /* the body is read but not kept: the answer is already known */
    const char *content_type;  /* in libmicrohttpd's memory, as long as the request; NULL: none */

    struct request_headers headers;
    struct choices choices;
    const char *accept;        /* as content_type */
    bool wants_picture;        /* rather than JSON, where the route has both */
    uint64_t json_length;      /* Inference-Header-Content-Length; UINT64_MAX: none */
    enum job_priority priority;
    struct model *model;       /* a reference; NULL: none, or not yet */
    char load_id[MODEL_ID_BYTES]; /* the model that has to be brought into memory first; "": none has */
    enum loader_wish wish;     /* how */
    char model_id[MODEL_ID_BYTES]; /* the model that it is for, whether or not it could be had; "": none */
    char asked_id[MODEL_ID_BYTES]; /* of an operator who asks the loader for something; "": not yet */
    struct multipart_file *files; /* [images]: the images in the body; owned */
    struct words *labels, *targets; /* what is asked in words; owned. NULL: nothing */
    const struct words *shown; /* what an explanation in words is of: the targets, or all labels; NULL: nothing. Borrowed */
    struct words_work *words_work; /* while workers embed them; owned */
    void (*next)(struct request *request); /* what follows the job, on a worker; NULL: the reply */
    void *message;             /* what the body says, of the route's own kind; owned */
    void (*free_message)(void *message);
    bool single;               /* one image, answered without "results" */
    struct job *job;           /* from the handler until job->done */

    struct problem problem;    /* status 0: none */
    int status;                /* of the reply; 0: none yet */
    struct strbuf reply;
    size_t reply_length;       /* once it is sent */
    size_t reply_held;         /* bytes of it that count as waiting: of a large one out of the cache, which cost nothing to make */
    const char *reply_type;
    char policy[320];          /* Content-Security-Policy; "": none */
    const char *allow;         /* of a 405, and of OPTIONS */
    unsigned retry_after;      /* seconds, 0: no header */
    size_t reply_json_length;  /* of a reply whose JSON is followed by other bytes; 0: it is not */
    struct cache_key cache_key; /* under which the reply is kept */
    enum { CACHE_UNUSED, CACHE_MISS, CACHE_HIT } cache;

    size_t images, batch_size; /* for the log */
    double queue_ms, preprocess_ms, inference_ms;
};

/* NULL when memory is short. target is what followed the method. */
struct request *request_create(struct service *service, const char *target);
void request_free(struct request *request);

/* Bytes of its body count as waiting, as far as there is room. */
bool request_hold_bytes(struct request *request, size_t count);
/* The body alone is needed no more; neither it nor what was read from it is, words included, and nothing of it waits any
 * longer. */
void request_free_body(struct request *request);
void request_release_body(struct request *request);

/* Takes the client's id (may be NULL; blanks may follow it) if it is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : / + = @ -,
 * else keeps the one that request_create() made. */
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
