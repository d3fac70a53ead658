/* routes.c - the table of routes, and what is checked before their handlers run. */
#include "server/http/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/http/accept.h"
#include "server/http/cors.h"
#include "server/http/handlers.h"
#include "server/http/reply.h"

#define BIT(id) (1u << PARAMETER_##id)
#define EXPLANATION (BIT(ATTENTION) | BIT(LAYER) | BIT(LAYERS) | BIT(HEAD) | BIT(TARGET))
#define WORDS (BIT(LABELS) | BIT(TEMPLATE))
#define CLASSIFICATION (BIT(MODEL) | BIT(TOP_K) | BIT(FUNCTION) | EXPLANATION | WORDS)
#define PICTURE (BIT(COLORMAP) | BIT(ALPHA) | BIT(OVERLAY) | BIT(SIZE))

#define POST_IMAGES .method = "POST", .role = ROLE_INFER, .takes_images = true, .needs_models = true, \
     .handle = handle_images, .parse = parse_images
#define INSIDE .method = "GET", .role = ROLE_INFER, .needs_models = true, .model = MODEL_IN_PATH, .handle = handle_inside

#define V2 .errors = ERRORS_PLAIN
#define V2_MODEL .method = "GET", .role = ROLE_INFER, .needs_models = true, .model = MODEL_IN_PATH, V2
#define V2_INFER .method = "POST", .role = ROLE_INFER, .takes_images = true, .needs_models = true, .model = MODEL_IN_PATH, \
     V2, \
     .handle = handle_v2_infer, .parse = parse_v2_infer, .finish = finish_v2_infer
#define IMAGE_FOR_PATH .role = ROLE_INFER, .takes_images = true, .needs_models = true, .model = MODEL_IN_PATH, \
     .parameters = BIT(TOP_K) | BIT(FUNCTION) | WORDS, .one_image = true

static const struct route routes[] = {
    {.name = "classify", .path = "/classify", POST_IMAGES, .model = MODEL_IN_QUERY, .parameters = CLASSIFICATION,
     .finish = finish_classify},
    {.name = "explain", .path = "/explain", POST_IMAGES, .model = MODEL_IN_QUERY, .parameters = CLASSIFICATION | PICTURE,
     .explains = true, .pictures = PICTURES_PREFERRED, .finish = finish_explain},
    {.name = "attention-distance", .path = "/attention-distance", POST_IMAGES, .model = MODEL_IN_QUERY,
     .parameters = BIT(MODEL), .pictures = PICTURES_POSSIBLE, .finish = finish_attention_distance},
    {.name = "embed", .path = "/embed", POST_IMAGES, .model = MODEL_IN_QUERY, .parameters = BIT(MODEL),
     .finish = finish_embed},
    {.name = "models", .method = "GET", .path = "/models", .role = ROLE_INFER, .needs_models = true,
     .handle = handle_models},
    {.name = "model", .method = "GET", .path = "/models/{name}", .role = ROLE_INFER, .needs_models = true,
     .handle = handle_model},
    {.name = "filters", .path = "/models/{name}/filters", INSIDE, .finish = finish_filters},
    {.name = "filters.png", .path = "/models/{name}/filters.png", INSIDE, .finish = finish_filters_png},
    {.name = "positions", .path = "/models/{name}/positions", INSIDE, .finish = finish_positions},
    {.name = "positions.png", .path = "/models/{name}/positions.png", INSIDE, .finish = finish_positions_png},
    {.name = "v2", .method = "GET", .path = "/v2", .role = ROLE_OPEN, V2, .handle = handle_v2_server},
    {.name = "v2-live", .method = "GET", .path = "/v2/health/live", .role = ROLE_OPEN, V2, .handle = handle_v2_live},
    {.name = "v2-ready", .method = "GET", .path = "/v2/health/ready", .role = ROLE_OPEN, V2, .handle = handle_v2_ready},
    {.name = "v2-stats", .method = "GET", .path = "/v2/models/stats", .role = ROLE_METRICS, V2, .needs_models = true,
     .handle = handle_v2_stats},
    {.name = "v2-model", .path = "/v2/models/{name}", V2_MODEL, .handle = handle_v2_model},
    {.name = "v2-model", .path = "/v2/models/{name}/versions/{version}", V2_MODEL, .handle = handle_v2_model},
    {.name = "v2-model-ready", .method = "GET", .path = "/v2/models/{name}/ready", .role = ROLE_OPEN, V2,
     .needs_models = true, .handle = handle_v2_model_ready},
    {.name = "v2-model-ready", .method = "GET", .path = "/v2/models/{name}/versions/{version}/ready", .role = ROLE_OPEN,
     V2, .needs_models = true, .handle = handle_v2_model_ready},
    {.name = "v2-infer", .path = "/v2/models/{name}/infer", V2_INFER},
    {.name = "v2-infer", .path = "/v2/models/{name}/versions/{version}/infer", V2_INFER},
    {.name = "v2-stats", .path = "/v2/models/{name}/stats", V2_MODEL, .handle = handle_v2_stats},
    {.name = "v2-stats", .path = "/v2/models/{name}/versions/{version}/stats", V2_MODEL, .handle = handle_v2_stats},
    {.name = "v2-index", .method = "POST", .path = "/v2/repository/index", .role = ROLE_INFER, V2, .needs_models = true,
     .handle = handle_v2_index},
    {.name = "v2-load", .method = "POST", .path = "/v2/repository/models/{name}/load", .role = ROLE_ADMIN, V2,
     .needs_models = true, .handle = handle_reload},
    {.name = "v2-unload", .method = "POST", .path = "/v2/repository/models/{name}/unload", .role = ROLE_ADMIN, V2,
     .needs_models = true, .handle = handle_unload},
    {.name = "hf", .method = "POST", .path = "/hf/{name}", IMAGE_FOR_PATH, .errors = ERRORS_PLAIN, .handle = handle_hf,
     .parse = parse_hf, .finish = finish_hf},
    {.name = "predictions", .method = "POST", .path = "/predictions/{name}", IMAGE_FOR_PATH, .handle = handle_images,
     .finish = finish_predictions},
    {.name = "predictions", .method = "POST", .path = "/predictions/{name}/{version}", IMAGE_FOR_PATH,
     .handle = handle_images, .finish = finish_predictions},
    {.name = "ping", .method = "GET", .path = "/ping", .role = ROLE_OPEN, .handle = handle_ping},
    {.name = "load", .method = "POST", .path = "/models/{name}/load", .role = ROLE_ADMIN, .needs_models = true,
     .handle = handle_load},
    {.name = "reload", .method = "POST", .path = "/models/{name}/reload", .role = ROLE_ADMIN, .needs_models = true,
     .handle = handle_reload},
    {.name = "unload", .method = "POST", .path = "/models/{name}/unload", .role = ROLE_ADMIN, .needs_models = true,
     .handle = handle_unload},
    {.name = "page", .method = "GET", .path = "/", .role = ROLE_OPEN, .handle = handle_page},
    {.name = "openapi", .method = "GET", .path = "/openapi.json", .role = ROLE_OPEN, .handle = handle_openapi},
    {.name = "healthz", .method = "GET", .path = "/healthz", .role = ROLE_OPEN, .handle = handle_healthz},
    {.name = "readyz", .method = "GET", .path = "/readyz", .role = ROLE_OPEN, .handle = handle_readyz},
    {.name = "metrics", .method = "GET", .path = "/metrics", .role = ROLE_METRICS, .handle = handle_metrics},
    {.name = "debug-queue", .method = "GET", .path = "/debug/queue", .role = ROLE_ADMIN, .handle = handle_debug_queue},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

const struct route *routes_table(size_t *count)
{
    *count = ROUTE_COUNT;
    return routes;
}

/* ---- finding the route ---- */

/* The segment of the path that {name} or {version} of the pattern stands for, decoded; false: none can be. */
static bool take_segment(struct request *request, const char *pattern, const char *path, size_t length)
{
    const bool version = strncmp(pattern, "{version}", 9) == 0;
    char *out = version ? request->version : request->name;
    return length > 0 && percent_decode(path, length, false, out, version ? sizeof request->version : sizeof request->name);
}

/* Whether the path is the route's, whose segments are then in the request. */
static bool path_matches(const struct route *route, struct request *request)
{
    const char *pattern = route->path, *path = request->path;
    request->name[0] = request->version[0] = '\0';
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        const size_t length = strcspn(path, "/");
        if (!take_segment(request, pattern, path, length))
            return false;
        path += length;
        pattern = strchr(pattern, '}') + 1;
    }
    return *path == '\0';
}

static bool is_served(const struct route *route, const struct request *request)
{
    return route->role != ROLE_ADMIN || request->settings->config.access.admin;
}

static bool method_matches(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0) ||
           (strcmp(method, "PUT") == 0 && route->finish == finish_predictions); /* as TorchServe takes curl -T */
}

static void find_route(struct request *request)
{
    const struct route *row = routes;
    while (row < routes + ROUTE_COUNT && !path_matches(row, request))
        row++;
    if (row < routes + ROUTE_COUNT && !is_served(row, request)) {
        problem_set(&request->problem, 404, "route_not_found", "%s is only there with access.admin in the configuration",
                    row->path);
        return;
    }
    if (row == routes + ROUTE_COUNT) {
        problem_set(&request->problem, 404, "route_not_found",
                    "there is no %.80s here; GET /openapi.json says what there is", request->path);
        return;
    }
    request->route = row;
    if (!method_matches(row, request->method)) {
        request->allow = strcmp(row->method, "GET") == 0          ? "GET, HEAD"
                         : row->finish == finish_predictions ? "POST, PUT"
                                                               : row->method;
        if (request->origin && strcmp(request->method, "OPTIONS") == 0)
            request->status = 204; /* a browser asks before it sends the request itself */
        else
            problem_set(&request->problem, 405, "method_not_allowed", "%s takes %s, not %s", row->path, request->allow,
                        request->method);
    }
}

/* ---- admission ---- */

/* Without `attention`, /explain gives the best explanation that the model has. */
static vit_attention best_method(const vit_model_info *info)
{
    static const vit_attention best_first[] = {VIT_ATTENTION_LEGRAD, VIT_ATTENTION_ROLLOUT, VIT_ATTENTION_RAW};
    for (size_t i = 0; i < sizeof best_first / sizeof best_first[0]; i++)
        if (info->explanations & 1u << best_first[i])
            return best_first[i];
    return VIT_ATTENTION_LEGRAD;
}

static void check_explanation(struct request *request)
{
    vit_error error = {{0}};
    struct choices *choices = &request->choices;
    const vit_model *model = request->model->vit;
    const vit_model_info *info = vit_model_describe(model);
    if (request->route->explains && !(choices->given & BIT(ATTENTION)))
        choices->explain.method = best_method(info);
    if (request->route->explains && choices->explain.method == VIT_ATTENTION_NONE) {
        problem_set(&request->problem, 400, "invalid_parameter", "there is nothing to explain with attention=none");
        return;
    }
    vit_status status = choices_resolve(choices, model, &error);
    if (status == VIT_ERR_UNSUPPORTED)
        problem_set(&request->problem, 422, "unsupported_explanation", "%s", error.message);
    else if (status != VIT_OK)
        problem_set(&request->problem, 400, "invalid_parameter", "%s", error.message);
    else if (request->route->finish == finish_attention_distance && !info->distances)
        problem_set(&request->problem, 422, "unsupported_explanation",
                    "attention distances are not defined for this model (architecture %s)", info->architecture);
}

static void refuse_without_models(struct request *request)
{
    if (atomic_load(&request->service->draining)) { /* they will never be ready */
        problem_set(&request->problem, 503, "draining", "the server is shutting down");
        return;
    }
    problem_set(&request->problem, 503, "loading", "the models are still loading; GET /readyz says when they are");
    request->retry_after = 1;
}

static void check_access(struct request *request)
{
    const struct access *access = request->settings->access;
    if (!access || request->route->role == ROLE_OPEN)
        return;
    switch (access_check(access, request->headers.authorization, request->route->role, &request->user)) {
    case ACCESS_GRANTED:
        break;
    case ACCESS_UNKNOWN:
        problem_set(&request->problem, 401, "unauthorized", "%s",
                    request->headers.authorization ? "this key is not known here" : "send a key: Authorization: Bearer KEY");
        break;
    case ACCESS_FORBIDDEN:
        problem_set(&request->problem, 403, "forbidden", "this key may not do this: %s needs the role %s",
                    request->route->path, access_role_name(request->route->role));
    }
}

/* Until when the answer is wanted: as configured, or sooner if the client says so. */
static void read_timeout(struct request *request)
{
    const char *text = request->headers.timeout_ms;
    int64_t timeout_ms = request->settings->config.batching.request_timeout_ms;
    if (text) {
        char *end;
        const long wanted = strtol(text, &end, 10);
        if (*text < '0' || *text > '9' || end[strspn(end, " \t")] || wanted < 1 || wanted > 86400000)
            problem_set(&request->problem, 400, "invalid_header",
                        "X-Request-Timeout-Ms: '%.40s' is not allowed, it takes 1 to 86400000", text);
        else if (wanted < timeout_ms)
            timeout_ms = wanted;
    }
    request->deadline_us = request->start_us + timeout_ms * 1000;
}

/* RFC 9218: an urgency of 4 to 7, where 3 is what is not said, is low. Unknown members are ignored, as it wants. */
static enum job_priority read_priority(const char *text)
{
    const char *urgency = text ? strstr(text, "u=") : NULL;
    while (urgency && urgency != text && !strchr(", \t", urgency[-1])) /* the end of another key */
        urgency = strstr(urgency + 1, "u=");
    return urgency && urgency[2] >= '4' && urgency[2] <= '7' ? PRIORITY_LOW : PRIORITY_NORMAL;
}

static void read_json_length(struct request *request)
{
    const char *text = request->headers.json_length;
    const size_t length = text ? strlen(text) : 0;
    if (!text)
        return;
    if (length < 1 || length > 15 || strspn(text, "0123456789") != length)
        problem_set(&request->problem, 400, "invalid_header",
                    "Inference-Header-Content-Length: '%.40s' is not allowed, it takes a number of bytes", text);
    else
        request->json_length = strtoull(text, NULL, 10);
}

static void check_body(struct request *request)
{
    const size_t limit = (size_t)request->settings->config.limits.max_body_bytes;
    if (request->route->takes_images && !request->length_known)
        problem_set(&request->problem, 411, "length_required",
                    "there is no body: send an image, with Content-Length or Transfer-Encoding: chunked");
    else if (request->declared_length != UINT64_MAX && request->declared_length > limit)
        problem_set(&request->problem, 413, "body_too_large", "the body is larger than limits.max_body_bytes, %zu", limit);
}

void request_unknown_model(struct request *request, const char *name)
{
    char names[400] = "";
    const bool stranger = request->route->role == ROLE_OPEN && request->settings->access; /* who may not list models */
    if (!stranger)
        registry_names(request->service->registry, names, sizeof names);
    problem_set(&request->problem, 404, "model_not_found", "there is no model '%.80s%s%s'%s%s", name,
                *request->version ? ":" : "", request->version, stranger ? "" : "; this server has ", names);
}

static void find_model(struct request *request)
{
    struct registry *registry = request->service->registry;
    const bool in_path = request->route->model == MODEL_IN_PATH;
    const char *name = in_path ? request->name : request->choices.model;
    const enum found found = registry_find(registry, name, *request->version ? request->version : NULL, &request->model,
                                           request->load_id);
    if (found != FOUND_NOTHING)
        snprintf(request->model_id, sizeof request->model_id, "%s", request->load_id);
    switch (found) {
    case FOUND_READY:
        request->load_id[0] = '\0';
        break;
    case FOUND_LAZY:
        request->wish = LOADER_LOAD;
        break;
    case FOUND_AWAY:
        problem_set(&request->problem, 503, "model_unloaded", "the model '%s' is not loaded; %s", request->load_id,
                    request->settings->config.access.admin ? "POST /models/NAME/load loads it" : "a reload brings it back");
        request->load_id[0] = '\0';
        break;
    case FOUND_NOTHING:
        request_unknown_model(request, name);
    }
}

/* What is known before the body is in; the first thing that is wrong counts. */
static void check_header(struct request *request)
{
    const struct route *route = request->route;
    check_access(request);
    if (request->problem.status)
        return;
    if (route->needs_models && !atomic_load(&request->service->ready))
        refuse_without_models(request);
    else
        check_body(request);
    if (!request->problem.status)
        read_timeout(request);
    if (!request->problem.status)
        read_json_length(request);
    request->priority = read_priority(request->headers.priority);
}

void routes_admit(struct request *request)
{
    const struct config *config = &request->settings->config;
    if (cors_allows(config->access.cors_origins, request->headers.origin))
        request->origin = request->headers.origin;
    find_route(request);
    const struct route *route = request->route;
    if (!route || request->problem.status || request->status)
        return;
    check_header(request);
    if (!request->problem.status && route->takes_images)
        query_parse(request->query_text, route->parameters, &request->choices, &request->problem);
    if (!request->problem.status && route->model != MODEL_NONE)
        find_model(request);
    if (request->model && route->takes_images)
        check_explanation(request);
    if (route->pictures)
        request->wants_picture = accepts_picture(request->accept, route->pictures == PICTURES_PREFERRED);
    /* a cached reply needs no room, and is known when the body is in */
    if (!request->problem.status && route->takes_images && !config->cache.max_bytes &&
        !queue_has_room(request->service->queue, request->priority))
        request_queue_full(request);
}

void routes_loaded(struct request *request, struct model *model, vit_status status, const vit_error *error)
{
    request->load_id[0] = '\0';
    request->model = model;
    if (request->problem.status) /* it did not wait for the end */
        return;
    if (status == VIT_ERR_UNSUPPORTED && atomic_load(&request->service->draining))
        problem_set(&request->problem, 503, "draining", "the server is shutting down");
    else if (status == VIT_ERR_NO_MEMORY)
        problem_set(&request->problem, 503, "out_of_memory", "%s", error->message);
    else if (status == VIT_ERR_ARGUMENT)
        problem_set(&request->problem, 404, "model_not_found", "%s", error->message);
    else if (status != VIT_OK)
        problem_set(&request->problem, 503, "model_failed", "%s", error->message);
    else if (request->route->takes_images)
        check_explanation(request);
}

/* ---- shared by the handlers ---- */

void request_queue_full(struct request *request)
{
    request->retry_after = queue_retry_after(request->service->queue);
    problem_set(&request->problem, 429, "queue_full", "the queue is full; retry in %u s", request->retry_after);
}

/* Takes room in the queue for a job with `images` images, or sets the problem: the queue is full. What room the request has
 * already is enough for one, however full the queue is by now for others of its priority. */
static bool reserve(struct request *request, size_t images)
{
    const size_t kept = images < request->room ? images : request->room;
    if (images == kept || queue_reserve(request->service->queue, images - kept, request->priority)) {
        request->room -= kept;
        return true;
    }
    request_queue_full(request);
    return false;
}

bool request_make_job(struct request *request, size_t images)
{
    if (!reserve(request, images))
        return false;
    struct job *job = job_create(NULL, 0, images);
    if (!job) {
        queue_unreserve(request->service->queue, images);
        request_out_of_memory(request);
        return false;
    }
    job->model = request->model;
    job->priority = request->priority;
    job->max_pixels = (size_t)request->settings->config.limits.max_pixels;
    job->accepted_us = job_clock_us();
    job->waited_ms = request->queue_ms;
    job->deadline_us = request->deadline_us;
    job->owner = request;
    request->job = job;
    return true;
}

void request_image_problem(struct request *request, const struct job_image *image)
{
    reply_image_problem(image, &request->problem);
}

bool request_is_json(const struct request *request)
{
    static const char json[] = "application/json";
    return request->content_type && strncasecmp(request->content_type, json, sizeof json - 1) == 0;
}

enum outcome request_parse_on_worker(struct request *request)
{
    if (!request_make_job(request, 1))
        return OUTCOME_REPLY;
    request->job->without_image = true;
    request->job->keep_room = true;
    request->single = true;
    return OUTCOME_WORK;
}

bool request_answer_from_cache(struct request *request, const struct part *parts, size_t count)
{
    struct cache_hash hash;
    struct cache_value value;
    if (!request->settings->config.cache.max_bytes)
        return false;
    cache_hash_init(&hash);
    cache_hash_add(&hash, request->route->name, strlen(request->route->name));
    cache_hash_add(&hash, &request->model->serial, sizeof request->model->serial);
    cache_hash_add(&hash, request->query_text, request->query_text ? strlen(request->query_text) : 0);
    cache_hash_add(&hash, &request->wants_picture, sizeof request->wants_picture);
    cache_hash_add(&hash, &request->json_length, sizeof request->json_length);
    for (size_t i = 0; i < count; i++)
        cache_hash_add(&hash, parts[i].bytes, parts[i].length);
    if (!cache_hash_finish(&hash, &request->cache_key))
        return false;
    const bool hit = cache_get(request->service->cache, &request->cache_key, &value);
    metrics_cache(request->model->metrics, hit);
    request->cache = hit ? CACHE_HIT : CACHE_MISS;
    if (hit) {
        request->reply = (struct strbuf){.data = value.bytes, .length = value.length, .capacity = value.length};
        request->reply_type = value.type;
    }
    return hit;
}

void request_out_of_memory(struct request *request)
{
    problem_set(&request->problem, 503, "out_of_memory", "the server is short of memory; retry later");
}

void request_reply_png(struct request *request, uint8_t *png, size_t length)
{
    strbuf_release(&request->reply);
    request->reply = (struct strbuf){.data = (char *)png, .length = length, .capacity = length};
    request->reply_type = "image/png";
}

/* ---- replies ---- */

static void note_for_log(struct request *request, const struct job *job)
{
    for (size_t i = 0; i < job->image_count; i++) {
        const struct job_image *image = &job->images[i];
        if (image->queue_ms > request->queue_ms)
            request->queue_ms = image->queue_ms;
        if (image->inference_ms > request->inference_ms)
            request->inference_ms = image->inference_ms;
        if (image->batch_size > request->batch_size)
            request->batch_size = image->batch_size;
        request->preprocess_ms += image->preprocess_ms;
    }
}

/* A failure of the request as a whole: its only image failed, all came too late, or the client has left. */
static bool job_failed(struct request *request, const struct job *job)
{
    size_t late = 0, gone = 0;
    const struct job_image *failed = NULL;
    for (size_t i = 0; i < job->image_count; i++) {
        late += job->images[i].failure == FAILURE_DEADLINE;
        if (job->images[i].failure == FAILURE_CLIENT_GONE) {
            gone++;
            failed = &job->images[i];
        }
    }
    if (!gone && (late == job->image_count || (request->single && job->images[0].state == IMAGE_FAILED)))
        failed = &job->images[0];
    if (!failed)
        return false;
    request_image_problem(request, failed);
    return true;
}

void routes_reply_problem(struct request *request)
{
    const bool plain = request->route ? request->route->errors == ERRORS_PLAIN : strncmp(request->path, "/v2/", 4) == 0;
    strbuf_release(&request->reply);
    request->status = request->problem.status;
    request->reply_type = "application/json";
    request->reply_json_length = 0;
    if (plain)
        reply_error_plain(&request->reply, &request->problem);
    else
        reply_error(&request->reply, &request->problem);
    if (request->reply.failed)
        strbuf_release(&request->reply); /* the status says enough */
}

static void settle(struct request *request)
{
    if (!request->problem.status && request->reply.failed)
        request_out_of_memory(request);
    if (request->problem.status)
        routes_reply_problem(request);
    else if (!request->status)
        request->status = 200;
}

enum outcome routes_handle(struct request *request)
{
    enum outcome outcome = OUTCOME_REPLY;
    if (!request->problem.status && request->load_id[0])
        return OUTCOME_LOAD;
    if (!request->problem.status && !request->status)
        outcome = request->route->handle(request);
    if (outcome == OUTCOME_REPLY)
        settle(request);
    return outcome;
}

/* Keeps a reply that depends on nothing else than what the key holds. */
static void keep(struct request *request, const struct job *job)
{
    const struct cache_value value = {request->reply.data, request->reply.length, request->reply_type};
    if (request->cache != CACHE_MISS || request->status != 200)
        return;
    for (size_t i = 0; i < job->image_count; i++)
        if (job->images[i].state != IMAGE_DONE)
            return;
    cache_put(request->service->cache, &request->cache_key, &value);
}

/* A job that is no end in itself has been done: what follows makes another, in its room, or the reply. */
static enum outcome go_on(struct request *request, void (*next)(struct request *request))
{
    request->next = NULL;
    if (!request->problem.status)
        next(request);
    if (request->room)
        queue_unreserve(request->service->queue, request->room);
    request->room = 0;
    if (request->job)
        return OUTCOME_WORK;
    settle(request);
    return OUTCOME_REPLY;
}

/* What the body says has been waiting for a worker. */
static enum outcome parse(struct request *request, const struct job *job)
{
    request->single = false;
    request->queue_ms = job->images[0].queue_ms;
    request->room = 1; /* of the job that has waited */
    return go_on(request, request->route->parse);
}

/* Its words have been embedded. */
static enum outcome take_words(struct request *request, const struct job *job)
{
    request->queue_ms = job->images[0].queue_ms;
    for (size_t i = 0; i < job->image_count; i++)
        if (job->images[i].state == IMAGE_DONE)
            request->room++;
        else if (!request->problem.status)
            request_words_problem(request, &job->images[i]);
    if (!request->problem.status)
        request_take_words(request);
    return go_on(request, request->next);
}

enum outcome routes_finish(struct request *request, const struct job *job)
{
    if (request->words_work)
        return take_words(request, job);
    const bool failed = job_failed(request, job);
    if (!failed && request->route->parse && job->without_image)
        return parse(request, job);
    note_for_log(request, job);
    if (!failed)
        request->route->finish(request, job);
    settle(request);
    keep(request, job);
    return OUTCOME_REPLY;
}
