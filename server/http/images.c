/* images.c - POST of images: from the body to a job, and from the finished job to the reply. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/draw.h"
#include "server/http/handlers.h"
#include "server/http/image_message.h"
#include "server/http/multipart.h"
#include "server/http/reply.h"
#include "server/work/words.h"

/* Finds the images in the body; at most one more than there may be. */
static size_t find_images(struct request *request, struct multipart_file *files, size_t max_files,
                          struct multipart_file *labels)
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
    switch (multipart_files(request->body, request->body_length, boundary, files, max_files, &count, labels, &why)) {
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

static bool answer_from_cache(struct request *request, const struct multipart_file *labels)
{
    struct part *parts = calloc(request->images + 1, sizeof *parts);
    for (size_t i = 0; parts && i < request->images; i++)
        parts[i] = (struct part){request->files[i].bytes, request->files[i].length};
    if (parts)
        parts[request->images] = (struct part){labels->bytes, labels->length};
    const bool hit = parts && request_answer_from_cache(request, parts, request->images + 1);
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
static void fill_job(struct request *request)
{
    struct job *job = request->job;
    const bool pictured = request->route->finish == finish_explain && request->wants_picture;
    job->body = request->body;
    job->body_length = request->body_length;
    request->body = NULL;
    for (size_t i = 0; i < job->image_count; i++) {
        job->images[i].bytes = request->files[i].bytes;
        job->images[i].length = request->files[i].length;
    }
    job->words = request->labels ? request->labels : request->model->words;
    job->targets = request->shown;
    job->want_features = request->route->finish == finish_embed;
    job->want_distances = request->route->finish == finish_attention_distance;
    job->keep_pixels = pictured && !request->choices.original_size;
    job->keep_body = pictured && request->choices.original_size;
    job->explain = request->choices.explain;
    job->map_floats = map_floats(request->model->vit, &job->explain);
}

static void make_images_job(struct request *request)
{
    if (request_make_job(request, request->images))
        fill_job(request);
}

/* The words first, if anybody has to embed them. */
void request_make_images_job(struct request *request)
{
    if (!request_read_words(request))
        return;
    const enum words_state state = request_settle_words(request);
    if (state == WORDS_KNOWN)
        make_images_job(request);
    else if (state == WORDS_ASKED)
        request->next = make_images_job;
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

static bool suits_the_route(struct request *request)
{
    const size_t count = request->images;
    if (count > 1 && request->route->one_image)
        return problem_set(&request->problem, 400, "one_image_only",
                           "there are %zu images, and here is an answer for one: send one, or several to /classify", count);
    if (count > 1 && request->wants_picture)
        return problem_set(&request->problem, 400, "one_image_only",
                           "a picture shows one image, and there are %zu: send one, or Accept: application/json", count);
    return count > 0;
}

/* A form's labels, one on each line. */
static bool read_form_labels(struct request *request, const struct multipart_file *labels)
{
    const char *text = (const char *)labels->bytes, *end = text ? text + labels->length : text;
    while (end > text && (end[-1] == '\n' || end[-1] == '\r'))
        end--;
    while (text && text <= end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        if (!line_end)
            line_end = end;
        if (!request_add_text(request, &request->labels, request->choices.template, text, (size_t)(line_end - text)))
            return false;
        text = line_end + 1;
    }
    return true;
}

/* As no picture begins. */
static bool is_json_object(const struct request *request)
{
    size_t i = 0;
    while (i < request->body_length && strchr(" \t\r\n", request->body[i]) && request->body[i])
        i++;
    return i < request->body_length && request->body[i] == '{';
}

enum outcome handle_images(struct request *request)
{
    const size_t max_files = request_most_images(request);
    struct multipart_file labels = {0};
    if (request->route->parse == parse_images && is_json_object(request)) {
        if (request_is_json(request))
            return request_parse_on_worker(request);
        problem_set(&request->problem, 415, "unsupported_image_type",
                    "this is no picture: if it is JSON, send it with Content-Type: application/json");
        return OUTCOME_REPLY;
    }
    request->files = calloc(max_files, sizeof *request->files);
    if (!request->files) {
        request_out_of_memory(request);
        return OUTCOME_REPLY;
    }
    request->images = find_images(request, request->files, max_files, &labels);
    if (suits_the_route(request) && !answer_from_cache(request, &labels) && read_form_labels(request, &labels))
        request_make_images_job(request);
    return request->job ? OUTCOME_WORK : OUTCOME_REPLY;
}

/* ---- JSON ---- */

static void release_message(void *message)
{
    image_message_release(message);
    free(message);
}

static struct image_message *read_message(struct request *request)
{
    struct image_message *message = calloc(1, sizeof *message);
    if (!message) {
        request_out_of_memory(request);
        return NULL;
    }
    message->max_images = request_most_images(request);
    message->max_texts = (size_t)request->settings->config.limits.max_texts_per_request;
    if (!image_message_parse(message, request->body, request->body_length, &request->problem)) {
        free(message);
        return NULL;
    }
    request->message = message;
    request->free_message = release_message;
    return message;
}

static bool add_texts(struct request *request, struct words **words, const struct image_message_texts *texts,
                      const char *template)
{
    for (size_t i = 0; i < texts->count; i++)
        if (!request_add_text(request, words, template, texts->items[i].text, texts->items[i].length))
            return false;
    return true;
}

static void add_target(vit_explain *explain, size_t class)
{
    for (size_t i = 0; i < explain->target_count; i++)
        if (explain->targets[i] == class)
            return;
    explain->targets[explain->target_count++] = class;
}

/* Targets of a model that has classes: by index or label, each class once, as in a query. */
static bool find_targets(struct request *request, const struct image_message_texts *texts)
{
    vit_error error = {{0}};
    char name[512];
    vit_explain *explain = &request->choices.explain;
    if (texts->count == 0)
        return true;
    if (explain->method != VIT_ATTENTION_LEGRAD)
        return problem_set(&request->problem, 400, "invalid_parameter", "target only goes with attention=legrad");
    if (texts->count > VIT_MAX_TARGETS)
        return problem_set(&request->problem, 400, "invalid_parameter", "found %zu targets, allowed is up to %d",
                           texts->count, VIT_MAX_TARGETS);
    explain->target_count = 0; /* those of the query */
    for (size_t i = 0; i < texts->count; i++) {
        size_t class;
        snprintf(name, sizeof name, "%.*s", (int)texts->items[i].length, texts->items[i].text);
        if (vit_model_find_class(request->model->vit, name, &class, &error) != VIT_OK)
            return problem_set(&request->problem, 400, "invalid_parameter", "%s", error.message);
        add_target(explain, class);
    }
    return true;
}

/* In words, or of classes. */
static bool take_targets(struct request *request, const struct image_message_texts *texts, const char *template)
{
    return vit_model_describe(request->model->vit)->text ? add_texts(request, &request->targets, texts, template)
                                                         : find_targets(request, texts);
}

/* The embeddings of texts, all of which are known. */
static void reply_embedded_texts(struct request *request)
{
    reply_texts(&request->reply, request->model, request->labels);
}

static void embed_texts(struct request *request, const struct image_message *message)
{
    if (!vit_model_describe(request->model->vit)->text) {
        problem_set(&request->problem, 400, "invalid_request", "%s has no text tower: it embeds images only",
                    request->model->id);
        return;
    }
    if (!add_texts(request, &request->labels, &message->texts, ""))
        return;
    const enum words_state state = request_settle_words(request);
    if (state == WORDS_KNOWN)
        reply_embedded_texts(request);
    else if (state == WORDS_ASKED)
        request->next = reply_embedded_texts;
}

void parse_images(struct request *request)
{
    struct image_message *message = read_message(request);
    if (!message)
        return;
    const char *template = message->template[0] ? message->template : request->choices.template;
    const bool embeds = request->route->finish == finish_embed;
    const struct part body = {request->body, request->body_length};
    if (message->texts.count > 0 && (message->image_count > 0 || !embeds))
        problem_set(&request->problem, 400, "invalid_request", "text: goes alone, and to /embed; labels go with an image");
    else if (message->texts.count == 0 && message->image_count == 0)
        problem_set(&request->problem, 400, "no_image", "%s: missing, allowed is %s",
                    embeds ? "image and text" : "image",
                    embeds ? "one of them: pictures as strings of base64, or texts" : "a picture as a string of base64");
    if (request->problem.status || (message->image_count > 0 && request_answer_from_cache(request, &body, 1)))
        return;
    request_free_body(request); /* all of it is in the message */
    if (message->texts.count > 0) { /* which have a cache of their own */
        embed_texts(request, message);
        return;
    }
    request->files = message->images;
    message->images = NULL;
    request->images = message->image_count;
    request->single = request->images == 1;
    if (suits_the_route(request) && add_texts(request, &request->labels, &message->labels, template) &&
        take_targets(request, &message->targets, template))
        request_make_images_job(request);
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
        .target_texts = job->targets ? (const char *const *)job->targets->texts : NULL,
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
