/* routes.c - the table of routes, in the order in which a 404 lists them, and their handlers. */
#include "server/http/routes.h"

#include <stdlib.h>
#include <string.h>

#include "server/http/accept.h"
#include "server/http/handlers.h"
#include "server/http/reply.h"

#define BIT(id) (1u << PARAMETER_##id)
#define EXPLANATION (BIT(ATTENTION) | BIT(LAYER) | BIT(LAYERS) | BIT(HEAD) | BIT(TARGET))
#define CLASSIFICATION (BIT(MODEL) | BIT(TOP_K) | BIT(FUNCTION) | EXPLANATION)
#define PICTURE (BIT(COLORMAP) | BIT(ALPHA) | BIT(OVERLAY) | BIT(SIZE))

static const struct route routes[] = {
    {.name = "classify", .method = "POST", .path = "/classify", .takes_images = true, .needs_models = true,
     .parameters = CLASSIFICATION, .handle = handle_images, .finish = finish_classify},
    {.name = "explain", .method = "POST", .path = "/explain", .takes_images = true, .needs_models = true,
     .parameters = CLASSIFICATION | PICTURE, .explains = true, .pictures = PICTURES_PREFERRED,
     .handle = handle_images, .finish = finish_explain},
    {.name = "attention-distance", .method = "POST", .path = "/attention-distance", .takes_images = true,
     .needs_models = true, .parameters = BIT(MODEL), .pictures = PICTURES_POSSIBLE, .handle = handle_images,
     .finish = finish_attention_distance},
    {.name = "embed", .method = "POST", .path = "/embed", .takes_images = true, .needs_models = true,
     .parameters = BIT(MODEL), .handle = handle_images, .finish = finish_embed},
    {.name = "models", .method = "GET", .path = "/models", .needs_models = true, .handle = handle_models},
    {.name = "model", .method = "GET", .path = "/models/{name}", .needs_models = true, .handle = handle_model},
    {.name = "filters", .method = "GET", .path = "/models/{name}/filters", .needs_models = true,
     .handle = handle_inside, .finish = finish_filters},
    {.name = "filters.png", .method = "GET", .path = "/models/{name}/filters.png", .needs_models = true,
     .handle = handle_inside, .finish = finish_filters_png},
    {.name = "positions", .method = "GET", .path = "/models/{name}/positions", .needs_models = true,
     .handle = handle_inside, .finish = finish_positions},
    {.name = "positions.png", .method = "GET", .path = "/models/{name}/positions.png", .needs_models = true,
     .handle = handle_inside, .finish = finish_positions_png},
    {.name = "page", .method = "GET", .path = "/", .handle = handle_page},
    {.name = "openapi", .method = "GET", .path = "/openapi.json", .handle = handle_openapi},
    {.name = "healthz", .method = "GET", .path = "/healthz", .handle = handle_healthz},
    {.name = "readyz", .method = "GET", .path = "/readyz", .handle = handle_readyz},
    {.name = "metrics", .method = "GET", .path = "/metrics", .handle = handle_metrics},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0] };

const struct route *routes_table(size_t *count)
{
    *count = ROUTE_COUNT;
    return routes;
}

/* ---- admission ---- */

/* {name} in a route's path stands for one segment, which is left in the request. */
static bool path_matches(const struct route *route, struct request *request)
{
    const char *pattern = route->path, *path = request->path;
    const size_t before = strcspn(pattern, "{");
    if (!pattern[before])
        return strcmp(path, pattern) == 0;
    if (strncmp(path, pattern, before) != 0)
        return false;
    request->segment = path + before;
    request->segment_length = strcspn(request->segment, "/");
    return request->segment_length &&
           strcmp(request->segment + request->segment_length, strchr(pattern, '}') + 1) == 0;
}

static bool method_matches(const struct route *route, const char *method)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

static void unknown_route(struct request *request)
{
    struct strbuf list = {0};
    for (size_t i = 0; i < ROUTE_COUNT; i++)
        strbuf_printf(&list, "%s%s %s", i ? ", " : "", routes[i].method, routes[i].path);
    problem_set(&request->problem, 404, "route_not_found", "there is no %.80s here; the routes are %s", request->path,
                list.data ? list.data : "");
    strbuf_release(&list);
}

static void find_route(struct request *request)
{
    const struct route *row = routes;
    while (row < routes + ROUTE_COUNT && !path_matches(row, request))
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
    const vit_model *model = request->service->registry->entries[request->model].model;
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

void routes_admit(struct request *request)
{
    find_route(request);
    const struct route *route = request->route;
    if (!route || request->problem.status)
        return;
    struct service *service = request->service;
    if (route->needs_models && !atomic_load(&service->ready)) {
        refuse_without_models(request);
        return;
    }
    if (route->takes_images && !request->length_known) {
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
    if (route->takes_images && query_parse(request->query_text, route->parameters, &request->choices, &request->problem) &&
        request_find_model(request, request->choices.model))
        check_explanation(request);
    if (route->pictures)
        request->wants_picture = accepts_picture(request->accept, route->pictures == PICTURES_PREFERRED);
}

/* ---- shared by the handlers ---- */

bool request_find_model(struct request *request, const char *name)
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

bool request_reserve(struct request *request, size_t images)
{
    struct queue *queue = request->service->queue;
    if (queue_reserve(queue, images))
        return true;
    request->retry_after = queue_retry_after(queue);
    return problem_set(&request->problem, 429, "queue_full", "the queue is full; retry in %u s", request->retry_after);
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
    reply_image_problem(failed, &request->problem);
    return true;
}


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
        request_out_of_memory(request);
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
