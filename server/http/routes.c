/* routes.c - the table of routes, in the order in which a 404 lists them, and their handlers. */
#include "server/http/routes.h"

#include <stdlib.h>
#include <string.h>

#include "server/http/multipart.h"
#include "server/http/reply.h"

static enum outcome handle_images(struct request *request);
static void finish_classify(struct request *request, const struct job *job);
static void finish_embed(struct request *request, const struct job *job);
static enum outcome handle_models(struct request *request);
static enum outcome handle_model(struct request *request);
static enum outcome handle_healthz(struct request *request);
static enum outcome handle_readyz(struct request *request);
static enum outcome handle_metrics(struct request *request);

static const struct route routes[] = {
    {.name = "classify", .method = "POST", .path = "/classify", .takes_body = true, .needs_models = true,
     .has_query = true,
     .parameters = QUERY_MODEL | QUERY_TOP_K | QUERY_FUNCTION | QUERY_ATTENTION | QUERY_LAYER | QUERY_HEAD,
     .handle = handle_images, .finish = finish_classify},
    {.name = "embed", .method = "POST", .path = "/embed", .takes_body = true, .needs_models = true,
     .has_query = true, .parameters = QUERY_MODEL, .handle = handle_images, .finish = finish_embed},
    {.name = "models", .method = "GET", .path = "/models", .needs_models = true, .handle = handle_models},
    {.name = "model", .method = "GET", .path = "/models/", .needs_models = true, .handle = handle_model},
    {.name = "healthz", .method = "GET", .path = "/healthz", .handle = handle_healthz},
    {.name = "readyz", .method = "GET", .path = "/readyz", .handle = handle_readyz},
    {.name = "metrics", .method = "GET", .path = "/metrics", .handle = handle_metrics},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

/* ---- admission ---- */

static bool path_matches(const struct route *route, const char *path)
{
    size_t length = strlen(route->path);
    if (route->path[length - 1] != '/')
        return strcmp(path, route->path) == 0;
    return strncmp(path, route->path, length) == 0 && path[length] && !strchr(path + length, '/');
}

static bool method_matches(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

static void unknown_route(struct request *request)
{
    struct strbuf list = {0};
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        const char *segment = routes[i].path[strlen(routes[i].path) - 1] == '/' ? "{name}" : "";
        strbuf_printf(&list, "%s%s %s%s", i ? ", " : "", routes[i].method, routes[i].path, segment);
    }
    problem_set(&request->problem, 404, "route_not_found", "there is no %.80s here; the routes are %s", request->path,
                list.data ? list.data : "");
    strbuf_release(&list);
}

static void find_route(struct request *request)
{
    const struct route *row = routes;
    while (row < routes + ROUTE_COUNT && !path_matches(row, request->path))
        row++;
    if (row == routes + ROUTE_COUNT) {
        unknown_route(request);
        return;
    }
    request->route = row;
    if (!method_matches(row, request->method)) {
        request->allow = strcmp(row->method, "GET") == 0 ? "GET, HEAD" : row->method;
        problem_set(&request->problem, 405, "method_not_allowed", "%.40s takes %s, not %s", row->path, request->allow,
                    request->method);
    }
}

static bool find_model(struct request *request, const char *name)
{
    const struct registry *registry = request->service->registry;
    request->model = registry_find(registry, name);
    if (request->model >= 0)
        return true;
    struct strbuf list = {0};
    for (size_t i = 0; i < registry->count; i++)
        strbuf_printf(&list, "%s%s", i ? ", " : "", registry->entries[i].name);
    problem_set(&request->problem, 404, "model_not_found", "there is no model '%.80s'; this server has %.400s", name,
                list.data ? list.data : "none");
    strbuf_release(&list);
    return false;
}

/* The layer and the head exist in the model. */
static void check_explanation(struct request *request)
{
    size_t layers, heads;
    vit_error error = {{0}};
    const vit_explain *explain = &request->query.explain;
    if (explain->method == VIT_ATTENTION_NONE)
        return;
    const vit_model *model = request->service->registry->entries[request->model].model;
    if (vit_explain_shape(model, explain, &layers, &heads, &error) != VIT_OK)
        problem_set(&request->problem, 400, "invalid_parameter", "%s", error.message);
}

void routes_admit(struct request *request)
{
    find_route(request);
    const struct route *route = request->route;
    if (!route || request->problem.status)
        return;
    struct service *service = request->service;
    if (route->needs_models && !atomic_load(&service->ready)) {
        problem_set(&request->problem, 503, "loading", "the models are still loading; GET /readyz says when they are");
        request->retry_after = 1;
        return;
    }
    if (route->takes_body && !request->length_known) {
        problem_set(&request->problem, 411, "length_required",
                    "there is no body: send an image, with Content-Length or Transfer-Encoding: chunked");
        return;
    }
    size_t limit = (size_t)service->config->limits.max_body_bytes;
    if (request->declared_length != UINT64_MAX && request->declared_length > limit) {
        problem_set(&request->problem, 413, "body_too_large", "the body is larger than limits.max_body_bytes, %zu",
                    limit);
        return;
    }
    if (route->has_query && query_parse(request->query_text, route->parameters, &request->query, &request->problem) &&
        find_model(request, request->query.model))
        check_explanation(request);
}

/* ---- images ---- */

/* Finds the images in the body; at most one more than there may be. */
static size_t find_images(struct request *request, struct multipart_file *files, size_t max_files)
{
    char boundary[MULTIPART_MAX_BOUNDARY + 1];
    const char *why = "";
    size_t count = 0;
    request->single = true;
    if (!request->body_length) {
        problem_set(&request->problem, 400, "empty_body", "the body is empty: send an image, or a form with images");
        return 0;
    }
    switch (multipart_boundary(request->content_type, boundary)) {
    case MULTIPART_NONE:
        files[0] = (struct multipart_file){request->body, request->body_length};
        return 1;
    case MULTIPART_INVALID:
        problem_set(&request->problem, 400, "malformed_multipart",
                    "the Content-Type is multipart/form-data without a boundary of 1 to 70 characters");
        return 0;
    case MULTIPART_FORM:
        break;
    }
    switch (multipart_files(request->body, request->body_length, boundary, files, max_files, &count, &why)) {
    case MULTIPART_MALFORMED:
        problem_set(&request->problem, 400, "malformed_multipart", "%s", why);
        return 0;
    case MULTIPART_TOO_MANY:
        problem_set(&request->problem, 413, "too_many_images", "one request may carry %zu images", max_files);
        return 0;
    case MULTIPART_OK:
        break;
    }
    if (!count)
        problem_set(&request->problem, 400, "no_image", "the form has no file: send one with curl -F image=@photo.jpg");
    request->single = count == 1;
    return count;
}

static size_t map_floats(const vit_model *model, const vit_explain *explain)
{
    size_t layers = 0, heads = 0;
    const vit_model_info *info = vit_model_describe(model);
    if (explain->method == VIT_ATTENTION_NONE || vit_explain_shape(model, explain, &layers, &heads, NULL) != VIT_OK)
        return 0;
    return layers * heads * info->grid_height * info->grid_width;
}

/* The body moves into the job. */
static bool create_job(struct request *request, const struct multipart_file *files, size_t count)
{
    struct job *job = job_create(request->body, request->body_length, count);
    if (!job)
        return false;
    request->body = NULL;
    for (size_t i = 0; i < count; i++) {
        job->images[i].bytes = files[i].bytes;
        job->images[i].length = files[i].length;
    }
    job->model = (size_t)request->model;
    job->want_features = request->route->finish == finish_embed;
    job->explain = request->query.explain;
    job->map_floats = map_floats(request->service->registry->entries[request->model].model, &job->explain);
    job->accepted_us = job_clock_us();
    job->deadline_us = job->accepted_us + (int64_t)request->service->config->batching.request_timeout_ms * 1000;
    job->owner = request;
    request->job = job;
    return true;
}

static enum outcome handle_images(struct request *request)
{
    struct service *service = request->service;
    size_t max_files = (size_t)service->config->limits.max_images_per_request;
    if (max_files > (size_t)service->config->batching.max_queue_size)
        max_files = (size_t)service->config->batching.max_queue_size; /* more could never be accepted */
    struct multipart_file *files = calloc(max_files, sizeof *files);
    size_t count = files ? find_images(request, files, max_files) : 0;
    if (!files) {
        problem_set(&request->problem, 503, "out_of_memory", "the server is short of memory; retry later");
    } else if (count && !queue_reserve(service->queue, count)) {
        request->retry_after = queue_retry_after(service->queue);
        problem_set(&request->problem, 429, "queue_full", "the queue is full; retry in %u s", request->retry_after);
    } else if (count && !create_job(request, files, count)) {
        queue_unreserve(service->queue, count);
        problem_set(&request->problem, 503, "out_of_memory", "the server is short of memory; retry later");
    }
    free(files);
    request->images = count;
    return request->problem.status ? OUTCOME_REPLY : OUTCOME_WORK;
}

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
    reply_image_problem(failed, (size_t)request->service->config->limits.max_pixels, &request->problem);
    return true;
}

static void finish_classify(struct request *request, const struct job *job)
{
    reply_classify(&request->reply, &request->service->registry->entries[request->model], job, &request->query,
                   request->single, (size_t)request->service->config->limits.max_pixels);
}

static void finish_embed(struct request *request, const struct job *job)
{
    reply_embed(&request->reply, &request->service->registry->entries[request->model], job, request->single,
                (size_t)request->service->config->limits.max_pixels);
}

/* ---- everything else ---- */

static enum outcome handle_models(struct request *request)
{
    reply_models(&request->reply, request->service->registry);
    return OUTCOME_REPLY;
}

static enum outcome handle_model(struct request *request)
{
    const char *segment = request->path + strlen(request->route->path);
    char name[128];
    if (!percent_decode(segment, strlen(segment), false, name, sizeof name))
        problem_set(&request->problem, 404, "model_not_found", "there is no model of that name");
    else if (find_model(request, name))
        reply_model(&request->reply, &request->service->registry->entries[request->model]);
    return OUTCOME_REPLY;
}

static enum outcome handle_healthz(struct request *request)
{
    strbuf_text(&request->reply, "{\"status\":\"ok\"}");
    return OUTCOME_REPLY;
}

static enum outcome handle_readyz(struct request *request)
{
    if (atomic_load(&request->service->draining))
        problem_set(&request->problem, 503, "draining", "the server is shutting down");
    else if (!atomic_load(&request->service->ready))
        problem_set(&request->problem, 503, "loading", "the models are still loading");
    else
        strbuf_text(&request->reply, "{\"status\":\"ready\"}");
    return OUTCOME_REPLY;
}

static enum outcome handle_metrics(struct request *request)
{
    struct service *service = request->service;
    size_t length = 0, depth = atomic_load(&service->ready) ? queue_depth(service->queue) : 0;
    char *text = metrics_render(service->metrics, depth, &length);
    if (text)
        strbuf_add(&request->reply, text, length);
    else
        request->reply.failed = true;
    free(text);
    request->reply_type = "text/plain; version=0.0.4; charset=utf-8";
    return OUTCOME_REPLY;
}

/* ---- replies ---- */

void routes_reply_problem(struct request *request)
{
    strbuf_release(&request->reply);
    request->status = request->problem.status;
    request->reply_type = "application/json";
    reply_error(&request->reply, &request->problem);
    if (request->reply.failed)
        strbuf_release(&request->reply); /* the status says enough */
}

static void settle(struct request *request)
{
    if (!request->problem.status && request->reply.failed)
        problem_set(&request->problem, 503, "out_of_memory", "the server is short of memory; retry later");
    if (request->problem.status)
        routes_reply_problem(request);
    else
        request->status = 200;
}

enum outcome routes_handle(struct request *request)
{
    if (request->problem.status || request->route->handle(request) == OUTCOME_REPLY) {
        settle(request);
        return OUTCOME_REPLY;
    }
    return OUTCOME_WORK;
}

void routes_finish(struct request *request, const struct job *job)
{
    note_for_log(request, job);
    if (!job_failed(request, job))
        request->route->finish(request, job);
    settle(request);
}
