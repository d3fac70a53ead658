/* admission.c - everything that can be refused before a handler runs: once the header is in, and once a model is loaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/accept.h"
#include "server/http/cors.h"
#include "server/http/handlers.h"

#define BIT(id) (1u << PARAMETER_##id)

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

void request_not_ready(struct request *request)
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
    const size_t length = text ? strspn(text, "0123456789") : 0;
    if (!text)
        return;
    if (length < 1 || length > 15 || text[length + strspn(text + length, " \t")])
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

static void refuse_unloaded(struct request *request)
{
    const char *id = request->load_id;
    if (request->settings->config.access.admin)
        problem_set(&request->problem, 503, "model_unloaded", "the model '%s' is not loaded; POST /models/%s/load loads it", id,
                    id);
    else
        problem_set(&request->problem, 503, "model_unloaded", "the model '%s' is not loaded; a reload brings it back", id);
    request->load_id[0] = '\0';
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
        request->wish = LOADER_NEED;
        break;
    case FOUND_AWAY:
        refuse_unloaded(request);
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
        request_not_ready(request);
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
    routes_find(request);
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
