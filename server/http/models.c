/* models.c - GET /models and below. What has to be computed first goes through the queue, as a job without an image. */
#include <stdlib.h>
#include <string.h>

#include "server/draw.h"
#include "server/http/handlers.h"
#include "server/http/reply.h"

enum outcome handle_models(struct request *request)
{
    size_t count = 0;
    struct listed *list = registry_list(request->service->registry, &count);
    if (list)
        reply_models(&request->reply, list, count);
    else
        request_out_of_memory(request);
    registry_list_free(list, count);
    return OUTCOME_REPLY;
}

/* Of a model that is not in memory it tells what it can: nobody has to wait for it. */
enum outcome handle_model(struct request *request)
{
    char id[MODEL_ID_BYTES];
    struct listed listed;
    struct registry *registry = request->service->registry;
    const enum found found = registry_find(registry, request->name, NULL, NULL, id);
    if (found != FOUND_NOTHING && registry_look(registry, id, &listed)) {
        reply_model(&request->reply, &listed);
        listed_release(&listed);
        return OUTCOME_REPLY;
    }
    request_unknown_model(request, request->name);
    return OUTCOME_REPLY;
}

enum outcome handle_inside(struct request *request)
{
    if (!request_make_job(request, 1))
        return OUTCOME_REPLY;
    request->job->without_image = true;
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

void finish_filters(struct request *request, const struct job *job)
{
    (void)job;
    vit_error error = {{0}};
    set_problem(request, reply_filters(&request->reply, request->model, &error), &error);
}

void finish_positions(struct request *request, const struct job *job)
{
    (void)job;
    vit_error error = {{0}};
    set_problem(request, reply_positions(&request->reply, request->model, &error), &error);
}

static void finish_drawing(struct request *request,
                           vit_status (*draw)(struct drawing *drawing, const vit_model *model, vit_error *err))
{
    struct drawing drawing = {0};
    vit_error error = {{0}};
    vit_status status = draw(&drawing, request->model->vit, &error);
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
