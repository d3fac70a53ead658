/* images.c - POST of images: from the body to a job, and from the finished job to the reply. */
#include <stdlib.h>
#include <string.h>

#include "server/draw.h"
#include "server/http/handlers.h"
#include "server/http/multipart.h"
#include "server/http/reply.h"

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
        request_too_many_images(request);
        return 0;
    case MULTIPART_OK:
        break;
    }
    if (!count)
        problem_set(&request->problem, 400, "no_image", "the form has no file: send one with curl -F image=@photo.jpg");
    request->single = count == 1;
    return count;
}

static bool answer_from_cache(struct request *request, const struct multipart_file *files, size_t count)
{
    struct part *parts = calloc(count, sizeof *parts);
    for (size_t i = 0; parts && i < count; i++)
        parts[i] = (struct part){files[i].bytes, files[i].length};
    const bool hit = parts && request_answer_from_cache(request, parts, count);
    free(parts);
    return hit;
}

static size_t map_floats(const vit_model *model, const vit_explain *explain)
{
    vit_map_shape shape;
    if (explain->method == VIT_ATTENTION_NONE || vit_explain_shape(model, explain, &shape, NULL) != VIT_OK)
        return 0;
    return shape.floats;
}

/* The body moves into the job. */
static void fill_job(struct request *request, const struct multipart_file *files)
{
    struct job *job = request->job;
    const bool pictured = request->route->finish == finish_explain && request->wants_picture;
    job->body = request->body;
    job->body_length = request->body_length;
    request->body = NULL;
    for (size_t i = 0; i < job->image_count; i++) {
        job->images[i].bytes = files[i].bytes;
        job->images[i].length = files[i].length;
    }
    job->want_features = request->route->finish == finish_embed;
    job->want_distances = request->route->finish == finish_attention_distance;
    job->keep_pixels = pictured && !request->choices.original_size;
    job->keep_body = pictured && request->choices.original_size;
    job->explain = request->choices.explain;
    job->map_floats = map_floats(request->model->vit, &job->explain);
}

size_t request_most_images(const struct request *request)
{
    const struct config *config = &request->settings->config;
    const int room = request->priority == PRIORITY_LOW ? (config->batching.max_queue_size + 1) / 2
                                                       : config->batching.max_queue_size;
    return (size_t)(config->limits.max_images_per_request < room ? config->limits.max_images_per_request : room);
}

void request_too_many_images(struct request *request)
{
    const size_t most = request_most_images(request);
    problem_set(&request->problem, 413, "too_many_images", "one request may carry %zu images (%s)", most,
                most < (size_t)request->settings->config.limits.max_images_per_request
                    ? "batching.max_queue_size: more could never be accepted"
                    : "limits.max_images_per_request");
}

enum outcome handle_images(struct request *request)
{
    const size_t max_files = request_most_images(request);
    struct multipart_file *files = calloc(max_files, sizeof *files);
    size_t count = files ? find_images(request, files, max_files) : 0;
    request->images = count;
    if (!files)
        request_out_of_memory(request);
    else if (count > 1 && request->route->one_image)
        problem_set(&request->problem, 400, "one_image_only", "there are %zu images, and here is an answer for one: send one, "
                    "or several to /classify", count);
    else if (count > 1 && request->wants_picture)
        problem_set(&request->problem, 400, "one_image_only",
                    "a picture shows one image, and there are %zu: send one, or Accept: application/json", count);
    else if (count && !answer_from_cache(request, files, count) && request_make_job(request, count))
        fill_job(request, files);
    free(files);
    return request->job ? OUTCOME_WORK : OUTCOME_REPLY;
}

/* ---- replies ---- */

void finish_classify(struct request *request, const struct job *job)
{
    reply_classify(&request->reply, request->model, job, &request->choices,
                   request->single);
}

void finish_embed(struct request *request, const struct job *job)
{
    reply_embed(&request->reply, request->model, job, request->single);
}

/* The picture of the only image; what is wrong with it is told as for any other image. */
static void reply_picture(struct request *request, const struct job *job, const struct drawing *drawing,
                          vit_status status, const vit_error *error)
{
    if (status == VIT_OK) {
        request_reply_png(request, drawing->png, drawing->length);
        return;
    }
    if (status == VIT_ERR_ARGUMENT) { /* the montage would be too large */
        problem_set(&request->problem, 422, "picture_too_large", "%s (limits.max_pixels)", error->message);
        return;
    }
    struct job_image failed = job->images[0];
    failed.failure = FAILURE_IMAGE;
    failed.status = status;
    failed.error = *error;
    reply_image_problem(&failed, &request->problem);
}

void finish_explain(struct request *request, const struct job *job)
{
    if (!request->wants_picture) {
        finish_classify(request, job);
        return;
    }
    const struct job_image *image = &job->images[0];
    struct drawing drawing = {0};
    vit_error error = {{0}};
    const struct explained explained = {
        .model = request->model->vit,
        .choices = &request->choices,
        .map = image->map,
        .pixels = image->pixels,
        .encoded = image->bytes,
        .encoded_length = image->length,
        .max_pixels = (size_t)request->settings->config.limits.max_pixels,
    };
    vit_status status = draw_explanation(&drawing, &explained, &error);
    reply_picture(request, job, &drawing, status, &error);
}

void finish_attention_distance(struct request *request, const struct job *job)
{
    if (!request->wants_picture) {
        reply_distances(&request->reply, request->model, job, request->single);
        return;
    }
    struct drawing drawing = {0};
    vit_error error = {{0}};
    vit_status status = draw_distances(&drawing, request->model->vit, job->images[0].distances, &error);
    reply_picture(request, job, &drawing, status, &error);
}
