/* serving.c - from the handler to the reply: the jobs that handlers make, what follows them, and how it all ends. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "server/http/handlers.h"
#include "server/http/reply.h"

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

const char *request_label(const void *job, size_t index)
{
    return job_class_label(job, index);
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

/* Clients that ask for what is there already, and read it slowly, are not to take memory without bound. */
static bool hold_reply(struct request *request, size_t length)
{
    enum { A_LITTLE = 65536 };
    if (length <= A_LITTLE)
        return true;
    if (!queue_hold_bytes(request->service->queue, length)) {
        request_queue_full(request);
        return false;
    }
    request->reply_held = length;
    return true;
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
    if (hit && !hold_reply(request, value.length)) {
        free(value.bytes);
        return true;
    }
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
