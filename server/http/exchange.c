/*
 * exchange.c - one request and its reply, as libmicrohttpd calls us.
 *
 *     exchange_accept         a connection comes: may it stay?
 *     exchange_request_line   the request line is in: the request is created
 *     exchange_access         first call: the header is in. Refuse, or go on
 *                             next calls: pieces of the body
 *                             last call: the body is in. Reply, or suspend the connection and either push the job or,
 *                             where the model is not in memory, ask the loader first
 *     (model_loaded)          on the loader's thread, or the main one, which looks who has waited too long for it: resume
 *                             the connection; exchange_access goes on as after the body
 *     (job_done)              on a worker, or on the main thread where its deadline has passed: render the reply, resume the
 *                             connection
 *     exchange_access         once more: send the rendered reply
 *     exchange_completed      log, count, free
 *
 * All but those two run on the HTTP thread of the connection. While a job is with the workers, or the loader is asked, the
 * request belongs to them; the mutex inside MHD_resume_connection() hands it back. The push comes after the suspension, so a
 * resume can never come first.
 *
 * libmicrohttpd closes a connection whose request is refused in the first call. That is right for broken framing, for a
 * body that is too large, for Expect: 100-continue (which then never gets its 100) and for more than a little from whoever
 * may not ask; any other refusal waits until the body has been read and thrown away, and the connection lives on.
 */
#include "server/http/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/http/handlers.h"
#include "server/http/record.h"
#include "server/http/request.h"
#include "server/http/routes.h"
#include "server/log.h"

/* ---- connections ---- */

static struct connection *connection_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* A request that was cut off in its first line, of which libmicrohttpd never told. */
static void record_cut_line(struct exchange *exchange, struct connection *connection)
{
    char id[REQUEST_ID_MAX + 1];
    int64_t since_us;
    if (!connection_was_cut_in_line(exchange->connections, connection, id, &since_us))
        return;
    struct request *request = request_create(exchange->service, "");
    if (!request)
        return;
    request_set_id(request, id);
    request->connection = connection;
    request->start_us = since_us;
    request->status = 408;
    request->problem.code = "request_timeout";
    record_request(request);
    request_free(request);
}

enum { BETWEEN_REFUSALS_US = 10000000 };

enum MHD_Result exchange_accept(void *cls, const struct sockaddr *peer, socklen_t length)
{
    struct exchange *exchange = cls;
    (void)length;
    if (connections_admit(exchange->connections, peer))
        return MHD_YES;
    metrics_rejected(exchange->service->metrics, REJECT_CONNECTIONS);
    const int64_t now_us = job_clock_us(), told_us = atomic_load(&exchange->refusal_told_us);
    if (now_us - told_us > BETWEEN_REFUSALS_US) { /* one line tells of many */
        atomic_store(&exchange->refusal_told_us, now_us);
        log_warn("a connection was refused: its address has limits.max_connections_per_address open "
                 "(told every 10 s at most)");
    }
    return MHD_NO;
}

void exchange_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                         enum MHD_ConnectionNotificationCode code)
{
    struct exchange *exchange = cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        struct tls_pair *pair = *socket_context ? connection_pair(*socket_context) : NULL;
        if (*socket_context)
            record_cut_line(exchange, *socket_context);
        connection_close(exchange->connections, *socket_context);
        atomic_fetch_sub(&exchange->service->connections, 1);
        tls_end(exchange->tls, pair);
        return;
    }
    atomic_fetch_add(&exchange->service->connections, 1);
    const union MHD_ConnectionInfo *fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    const union MHD_ConnectionInfo *peer = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    struct tls_pair *pair = exchange->tls ? tls_begin(exchange->tls, mhd) : NULL;
    *socket_context = fd ? connection_open(exchange->connections, fd->connect_fd, peer ? peer->client_addr : NULL, pair)
                         : NULL;
    if (!*socket_context)
        tls_end(exchange->tls, pair);
}

void *exchange_request_line(void *cls, const char *target, struct MHD_Connection *mhd)
{
    struct exchange *exchange = cls;
    struct request *request = request_create(exchange->service, target ? target : "");
    if (!request)
        return NULL;
    request->exchange = exchange;
    request->mhd = mhd;
    request->connection = connection_of(mhd);
    if (request->connection &&
        !connection_enter(exchange->connections, request->connection, CONNECTION_HEADER, request->id)) {
        request_free(request); /* too late: it has got its 408 */
        return NULL;
    }
    metrics_inflight(exchange->service->metrics, 1);
    return request;
}

/* ---- replies ---- */

static void add_number(struct MHD_Response *response, const char *name, size_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%zu", number);
    MHD_add_response_header(response, name, text);
}

static void add_cors(const struct request *request, struct MHD_Response *response)
{
    MHD_add_response_header(response, "Access-Control-Allow-Origin", request->origin);
    if (strcmp(request->method, "OPTIONS") == 0) {
        MHD_add_response_header(response, "Access-Control-Allow-Methods", request->allow ? request->allow : "GET");
        MHD_add_response_header(response, "Access-Control-Allow-Headers",
                                "Authorization, Content-Type, Inference-Header-Content-Length, Priority, Traceparent, "
                                "X-Request-Id, X-Request-Timeout-Ms");
        MHD_add_response_header(response, "Access-Control-Max-Age", "600");
    } else {
        MHD_add_response_header(response, "Access-Control-Expose-Headers",
                                "Inference-Header-Content-Length, Retry-After, Traceparent, X-Cache, X-Request-Id");
    }
}

static void add_headers(const struct request *request, struct MHD_Response *response)
{
    char trace[TRACEPARENT_LENGTH + 1];
    if (request->status != 204)
        MHD_add_response_header(response, "Content-Type", request->reply_type);
    MHD_add_response_header(response, "X-Request-Id", request->id);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (request->trace.id[0]) {
        trace_write(&request->trace, trace);
        MHD_add_response_header(response, "Traceparent", trace);
    }
    if (request->policy[0])
        MHD_add_response_header(response, "Content-Security-Policy", request->policy);
    if (request->allow)
        MHD_add_response_header(response, "Allow", request->allow);
    if (*request->settings->config.access.cors_origins) /* so also without an origin, as a cache must know */
        MHD_add_response_header(response, "Vary", "Origin");
    if (request->origin)
        add_cors(request, response);
    if (request->status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"vitd\"");
    if (request->retry_after)
        add_number(response, "Retry-After", request->retry_after);
    if (request->reply_json_length)
        add_number(response, "Inference-Header-Content-Length", request->reply_json_length);
    if (request->cache != CACHE_UNUSED && request->status == 200)
        MHD_add_response_header(response, "X-Cache", request->cache == CACHE_HIT ? "hit" : "miss");
    if (atomic_load(&request->service->draining))
        MHD_add_response_header(response, "Connection", "close");
}

static enum MHD_Result send_reply(struct request *request)
{
    struct strbuf *reply = &request->reply;
    if (!connection_enter(request->exchange->connections, request->connection, CONNECTION_REPLY, NULL))
        return MHD_NO;
    struct MHD_Response *response =
        reply->data ? MHD_create_response_from_buffer(reply->length, reply->data, MHD_RESPMEM_MUST_FREE)
                    : MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    request->reply_length = reply->length;
    *reply = (struct strbuf){0};
    add_headers(request, response);
    enum MHD_Result queued = MHD_queue_response(request->mhd, (unsigned)request->status, response);
    MHD_destroy_response(response);
    if (queued == MHD_YES)
        request->stage = STAGE_REPLIED;
    return queued;
}

/* ---- the header ---- */

struct header_walk {
    struct framing framing;
    struct problem *problem;
    size_t traces; /* how often traceparent came */
    const char *expected; /* where the next header line starts if all went well; NULL: not checked */
};

/*
 * libmicrohttpd ends lines and strings with NULs inside its buffer, so a NUL that was sent, a bare LF and a folded line
 * leave no trace in the values it hands out; but then the next header does not start two bytes after the value.
 * That layout is the one of 0.9.75, whose leniency it makes up for.
 */
static enum MHD_Result walk_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_length,
                                   const char *value, size_t value_length)
{
    struct header_walk *walk = cls;
    (void)kind;
    if (!value) {
        value = name + name_length;
        value_length = 0;
    }
    if (!framing_header(&walk->framing, name, name_length, value, value_length, walk->problem))
        return MHD_NO;
    walk->traces += name_length == 11 && strncasecmp(name, "traceparent", name_length) == 0;
    if (walk->expected && walk->expected != name) {
        problem_set(walk->problem, 400, "malformed_request", "a header holds a NUL, a bare line feed or a folded line");
        return MHD_NO;
    }
    if (walk->expected)
        walk->expected = value + value_length + 2;
    return MHD_YES;
}

static void check_framing(struct request *request, struct header_walk *walk, const char *method, const char *url,
                          const char *version)
{
    enum { CHECKED_LAYOUT = 0x00097500 };
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    walk->problem = &request->problem;
    if (MHD_VERSION == CHECKED_LAYOUT && strcmp(MHD_get_version(), "0.9.75") == 0 && size)
        walk->expected = version + strlen(version) + 2;
    if (walk->expected &&
        (url != method + strlen(method) + 1 || version != url + request->target_length + 1)) {
        problem_set(&request->problem, 400, "malformed_request", "the request line holds a NUL or a doubled space");
        return;
    }
    MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, walk_header, walk);
    if (request->problem.status)
        return;
    if (walk->expected && walk->expected + 2 != method + size->header_size) {
        problem_set(&request->problem, 400, "malformed_request", "the header holds a NUL or a bare line feed");
        return;
    }
    framing_end(&walk->framing, method, request->target, version, &request->problem);
}

static const char *header(const struct request *request, const char *name)
{
    return MHD_lookup_connection_value(request->mhd, MHD_HEADER_KIND, name);
}

static void read_header(struct request *request, const char *method)
{
    snprintf(request->method, sizeof request->method, "%s", method);
    request_set_id(request, header(request, "X-Request-Id"));
    request->content_type = header(request, "Content-Type");
    request->accept = header(request, "Accept");
    request->headers = (struct request_headers){
        .authorization = header(request, "Authorization"),
        .origin = header(request, "Origin"),
        .priority = header(request, "Priority"),
        .timeout_ms = header(request, "X-Request-Timeout-Ms"),
        .json_length = header(request, "Inference-Header-Content-Length"),
    };
    trace_read(&request->trace, header(request, "Traceparent"));
}

/* Whether a refusal goes out before the body comes. */
static bool refuses_now(const struct request *request, const struct framing *framing)
{
    enum { A_LITTLE = 65536 }; /* bytes */
    const bool stranger = request->problem.status == 401 || request->problem.status == 403;
    const uint64_t length = request->declared_length, limit = (uint64_t)request->settings->config.limits.max_body_bytes;
    return framing->expects_continue || (length != UINT64_MAX && length > limit) || (stranger && length > A_LITTLE);
}

static enum MHD_Result begin(struct request *request, const char *method, const char *url, const char *version)
{
    struct connections *connections = request->exchange->connections;
    struct header_walk walk = {0};
    read_header(request, method);
    if (!connection_enter(connections, request->connection, CONNECTION_BODY, request->id))
        return MHD_NO;
    request->stage = STAGE_BODY;
    check_framing(request, &walk, method, url, version);
    if (walk.traces > 1) /* as if it had not come */
        request->trace = (struct trace){0};
    request->length_known = walk.framing.lengths || walk.framing.encodings;
    request->declared_length = walk.framing.encodings ? UINT64_MAX : walk.framing.content_length;
    bool now = request->problem.status != 0;
    if (!now)
        routes_admit(request);
    now = now || refuses_now(request, &walk.framing);
    request->discard = request->problem.status || request->status || !request->route->takes_images;
    if (!request->problem.status || !now)
        return MHD_YES;
    connection_linger(connections, request->connection);
    routes_reply_problem(request);
    return send_reply(request);
}

/* ---- the body ---- */

/* Room for `more` bytes: exactly what was declared, or doubling up to the limit. */
static bool grow_body(struct request *request, size_t more, size_t limit)
{
    if (more <= request->body_capacity - request->body_length)
        return true;
    size_t capacity = request->body_capacity ? request->body_capacity * 2 : 65536;
    if (request->declared_length != UINT64_MAX)
        capacity = (size_t)request->declared_length;
    while (capacity < request->body_length + more)
        capacity *= 2;
    if (capacity > limit)
        capacity = limit;
    uint8_t *body = realloc(request->body, capacity);
    if (!body)
        return false;
    request->body = body;
    request->body_capacity = capacity;
    return true;
}

static void collect(struct request *request, const char *bytes, size_t length)
{
    const size_t limit = (size_t)request->settings->config.limits.max_body_bytes;
    request->bytes_in += length;
    if (request->discard)
        return;
    if (length > limit - request->body_length)
        problem_set(&request->problem, 413, "body_too_large", "the body is larger than limits.max_body_bytes, %zu",
                    limit);
    else if (!request_hold_bytes(request, length))
        request_queue_full(request);
    else if (!grow_body(request, length, limit))
        request_out_of_memory(request);
    if (request->problem.status) {
        request_release_body(request);
        request->discard = true;
        return;
    }
    memcpy(request->body + request->body_length, bytes, length);
    request->body_length += length;
}

/* On the main thread: an upload that waits for its model does not wait for ever, as it would not for a worker. */
static bool waits_no_more(void *context)
{
    struct request *request = context;
    struct job_image image = {.failure = FAILURE_NONE};
    if (job_clock_us() >= request->deadline_us)
        image.failure = FAILURE_DEADLINE;
    else if (job_socket_left(connection_fd(request->connection)))
        image.failure = FAILURE_CLIENT_GONE;
    else
        return false;
    request_image_problem(request, &image);
    return true;
}

/* On the loader's thread, or the main one after waits_no_more(). */
static void model_loaded(void *context, struct model *model, vit_status status, const vit_error *error)
{
    struct request *request = context;
    struct MHD_Connection *mhd = request->mhd;
    routes_loaded(request, model, status, error);
    request->stage = STAGE_LOADED;
    MHD_resume_connection(mhd);
}

static enum MHD_Result ask_loader(struct request *request)
{
    loader_given_up *given_up = request->wish == LOADER_NEED ? waits_no_more : NULL; /* an operator waits */
    request->stage = STAGE_LOADING;
    MHD_suspend_connection(request->mhd);
    if (!loader_ask(request->service->loader, request->wish, request->load_id, given_up, model_loaded, request)) {
        request_out_of_memory(request);
        request->stage = STAGE_LOADED;
        MHD_resume_connection(request->mhd);
    }
    return MHD_YES;
}

static void job_done(struct job *job);

static void push(struct request *request)
{
    struct job *job = request->job;
    job->client_fd = connection_fd(request->connection);
    job->done = job_done;
    request->job = NULL;
    queue_push(request->service->queue, job);
}

/* Where the job's last image was finished. */
static void job_done(struct job *job)
{
    struct request *request = job->owner;
    struct MHD_Connection *mhd = request->mhd;
    const enum outcome outcome = routes_finish(request, job);
    job_free(job);
    if (outcome == OUTCOME_WORK) { /* the connection is suspended still */
        push(request);
        return;
    }
    request_release_body(request); /* a client may take its time to read the reply */
    request->stage = STAGE_WORKED;
    MHD_resume_connection(mhd); /* the request may be gone from here on */
}

static enum MHD_Result end_of_body(struct request *request)
{
    if (!connection_enter(request->exchange->connections, request->connection, CONNECTION_WORK, NULL))
        return MHD_NO;
    switch (routes_handle(request)) {
    case OUTCOME_REPLY:
        request_release_body(request);
        return send_reply(request);
    case OUTCOME_LOAD:
        return ask_loader(request);
    case OUTCOME_WORK:
        request->stage = STAGE_WORKING;
        MHD_suspend_connection(request->mhd);
        push(request);
    }
    return MHD_YES;
}

enum MHD_Result exchange_access(void *exchange, struct MHD_Connection *mhd, const char *url, const char *method,
                                const char *version, const char *upload, size_t *upload_size, void **context)
{
    struct request *request = *context;
    (void)exchange;
    (void)mhd;
    if (!request || !request->connection)
        return MHD_NO;
    switch (request->stage) {
    case STAGE_HEADER:
        return begin(request, method, url, version);
    case STAGE_BODY:
        if (!*upload_size)
            return end_of_body(request);
        collect(request, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    case STAGE_LOADED:
        return request->problem.status == 499 ? MHD_NO : end_of_body(request);
    case STAGE_WORKED:
        return request->status == 499 ? MHD_NO : send_reply(request);
    case STAGE_LOADING:
    case STAGE_WORKING:
    case STAGE_REPLIED:
        break;
    }
    return MHD_YES;
}

/* ---- the end ---- */

/* The status as the client saw it, where libmicrohttpd or the watchdog answered, or nobody could. */
static void settle_status(struct request *request, enum MHD_RequestTerminationCode how)
{
    const union MHD_ConnectionInfo *replied = MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_HTTP_STATUS);
    if (request->connection && connection_was_cut(request->exchange->connections, request->connection)) {
        request->status = 408;
        request->problem.code = "request_timeout";
    } else if (request->stage != STAGE_REPLIED && replied && replied->http_status) {
        request->status = (int)replied->http_status;
        request->problem.code = "malformed_request";
    } else if (request->stage != STAGE_REPLIED || how != MHD_REQUEST_TERMINATED_COMPLETED_OK) {
        request->status = 499;
        request->problem.code = "client_gone";
    }
}

void exchange_completed(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode how)
{
    struct exchange *exchange = cls;
    struct request *request = *context;
    (void)mhd;
    *context = NULL;
    if (!request)
        return;
    settle_status(request, how);
    metrics_inflight(exchange->service->metrics, -1);
    record_request(request);
    if (request->connection)
        connection_enter(exchange->connections, request->connection, CONNECTION_IDLE, NULL);
    request_free(request);
}
