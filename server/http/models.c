/* models.c - GET /models and below. What has to be computed first goes through the queue, as a job without an image. */
#include <stdlib.h>
#include <string.h>

#include "server/draw.h"
#include "server/http/handlers.h"
#include "server/http/reply.h"

enum outcome handle_models(struct request *request)
{
    reply_models(&request->reply, request->service->registry);
    return OUTCOME_REPLY;
}

/* The model that the path names. */
static bool find_model_of_path(struct request *request)
{
    char name[128];
    if (!percent_decode(request->segment, request->segment_length, false, name, sizeof name))
        return problem_set(&request->problem, 404, "model_not_found", "there is no model of that name");
    return request_find_model(request, name);
}

enum outcome handle_model(struct request *request)
{
    if (find_model_of_path(request))
        reply_model(&request->reply, &request->service->registry->entries[request->model]);
    return OUTCOME_REPLY;
}

enum outcome handle_inside(struct request *request)
{
    if (!find_model_of_path(request) || !request_reserve(request, 1))
        return OUTCOME_REPLY;
    struct job *job = job_create(NULL, 0, 1);
    if (!job) {
        queue_unreserve(request->service->queue, 1);
        request_out_of_memory(request);
        return OUTCOME_REPLY;
    }
    job->without_image = true;
    job->model = (size_t)request->model;
    job->accepted_us = job_clock_us();
    job->deadline_us = job->accepted_us + (int64_t)request->service->config->batching.request_timeout_ms * 1000;
    job->owner = request;
    request->job = job;
    request->single = true;
    return OUTCOME_WORK;
}

static void set_problem(struct request *request, vit_status status, const vit_error *error)
{
    if (status == VIT_ERR_UNSUPPORTED)
        problem_set(&request->problem, 422, "unsupported_explanation", "%s", error->message);
    else if (status == VIT_ERR_NO_MEMORY)
        request_out_of_memory(request);
    else if (status != VIT_OK)
        problem_set(&request->problem, 500, "internal_error", "%s", error->message);
}

static const struct registry_entry *entry_of(const struct request *request)
{
    return &request->service->registry->entries[request->model];
}

void finish_filters(struct request *request, const struct job *job)
{
    (void)job;
    vit_error error = {{0}};
    set_problem(request, reply_filters(&request->reply, entry_of(request), &error), &error);
}

void finish_positions(struct request *request, const struct job *job)
{
    (void)job;
    vit_error error = {{0}};
    set_problem(request, reply_positions(&request->reply, entry_of(request), &error), &error);
}

static void finish_drawing(struct request *request,
                           vit_status (*draw)(struct drawing *drawing, const vit_model *model, vit_error *err))
{
    struct drawing drawing = {0};
    vit_error error = {{0}};
    vit_status status = draw(&drawing, entry_of(request)->model, &error);
    set_problem(request, status, &error);
    if (status == VIT_OK)
        request_reply_png(request, drawing.png, drawing.length);
}

void finish_filters_png(struct request *request, const struct job *job)
{
    (void)job;
    finish_drawing(request, draw_filters);
}

void finish_positions_png(struct request *request, const struct job *job)
{
    (void)job;
    finish_drawing(request, draw_positions);
}
