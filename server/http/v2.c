/*
 * v2.c - the Open Inference Protocol v2, and Triton's statistics and model repository. The codec is in v2_message.h and
 * v2_reply.h; here requests become jobs, jobs replies, and what the registry and the counters know is told in its words.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/handlers.h"
#include "server/http/v2_message.h"
#include "server/http/v2_reply.h"

/* ---- the server ---- */

enum outcome handle_v2_server(struct request *request)
{
    v2_reply_server(&request->reply, VITD_VERSION);
    return OUTCOME_REPLY;
}

enum outcome handle_v2_live(struct request *request)
{
    strbuf_text(&request->reply, "{\"live\":true}");
    return OUTCOME_REPLY;
}

enum outcome handle_v2_ready(struct request *request)
{
    const struct service *service = request->service;
    const bool ready = atomic_load(&service->ready) && !atomic_load(&service->draining);
    strbuf_printf(&request->reply, "{\"ready\":%s}", ready ? "true" : "false");
    request->status = ready ? 200 : 503;
    return OUTCOME_REPLY;
}

/* ---- models ---- */

/* The version as the protocol wants it, a text; NULL: none. */
static const char *version_text(int version, char text[16])
{
    snprintf(text, 16, "%d", version);
    return version ? text : NULL;
}

enum outcome handle_v2_model(struct request *request)
{
    size_t count = 0, found = 0;
    const struct model *model = request->model;
    const vit_model_info *info = vit_model_describe(model->vit);
    struct listed *list = registry_list(request->service->registry, &count);
    int *versions = calloc(count + 1, sizeof *versions);
    for (size_t i = 0; list && versions && i < count; i++)
        if (list[i].configured.version && strcmp(list[i].configured.name, model->name) == 0)
            versions[found++] = list[i].configured.version;
    if (list && versions)
        v2_reply_model(&request->reply, &(struct v2_model){.name = model->name,
                                                           .versions = versions,
                                                           .version_count = found,
                                                           .height = info->image_height,
                                                           .width = info->image_width,
                                                           .classes = model_class_count(model),
                                                           .embedding_width = info->embedding_width});
    else
        request_out_of_memory(request);
    free(versions);
    registry_list_free(list, count);
    return OUTCOME_REPLY;
}

/* A lazy model is ready: it will answer, unless it could not when it was last asked. */
enum outcome handle_v2_model_ready(struct request *request)
{
    char id[MODEL_ID_BYTES];
    const struct service *service = request->service;
    const enum found found = registry_find(service->registry, request->name, *request->version ? request->version : NULL,
                                           NULL, id);
    struct listed listed;
    bool failed = false;
    if (found != FOUND_NOTHING && registry_look(service->registry, id, &listed)) {
        failed = listed.state == MODEL_FAILED;
        listed_release(&listed);
    }
    const bool ready = (found == FOUND_READY || found == FOUND_LAZY) && !failed && !atomic_load(&service->draining);
    if (found == FOUND_NOTHING) {
        request_unknown_model(request, request->name);
        return OUTCOME_REPLY;
    }
    strbuf_text(&request->reply, "{\"name\":");
    strbuf_json_string(&request->reply, request->name);
    strbuf_printf(&request->reply, ",\"ready\":%s}", ready ? "true" : "false");
    request->status = ready ? 200 : 503;
    return OUTCOME_REPLY;
}

/* ---- inference ---- */

static void release_message(void *message)
{
    v2_release(message);
    free(message);
}

/* The body is read on a worker, since a tensor in JSON takes time; but in a raw one there is nothing to read. */
enum outcome handle_v2_infer(struct request *request)
{
    if (request->json_length)
        return request_parse_on_worker(request);
    parse_v2_infer(request);
    return request->job ? OUTCOME_WORK : OUTCOME_REPLY;
}

static size_t json_length(const struct request *request)
{
    return request->json_length == UINT64_MAX ? V2_ALL_JSON : (size_t)request->json_length;
}

static bool wants_binary(const struct v2_request *message)
{
    for (size_t i = 0; i < message->output_count; i++)
        if (message->outputs[i].binary)
            return true;
    return false;
}

static bool wants(const struct v2_request *message, enum v2_tensor tensor)
{
    for (size_t i = 0; i < message->output_count; i++)
        if (message->outputs[i].tensor == tensor)
            return true;
    return false;
}

static struct v2_request *parse(struct request *request)
{
    const struct config *config = &request->settings->config;
    const vit_model_info *info = vit_model_describe(request->model->vit);
    const struct v2_limits limits = {.max_images = (size_t)config->limits.max_images_per_request,
                                     .height = info->image_height,
                                     .width = info->image_width,
                                     .without_classes = !model_class_count(request->model)};
    struct v2_request *message = calloc(1, sizeof *message);
    if (!message) {
        request_out_of_memory(request);
        return NULL;
    }
    if (!v2_parse(message, request->body, request->body_length, json_length(request), &limits, &request->problem)) {
        free(message);
        return NULL;
    }
    request->message = message;
    request->free_message = release_message;
    return message;
}

static void fill_job(struct job *job, const struct v2_request *message)
{
    for (size_t i = 0; i < message->image_count; i++) {
        struct job_image *image = &job->images[i];
        image->bytes = message->images[i].bytes;
        image->length = message->images[i].length;
        image->is_tensor = message->input.type == V2_FP32;
        if (message->input.type == V2_UINT8) {
            image->width = message->input.width;
            image->height = message->input.height;
        }
    }
    job->want_features = wants(message, V2_EMBEDDING);
    job->words = job->model->words;
}

void parse_v2_infer(struct request *request)
{
    const struct v2_request *message = parse(request);
    if (!message)
        return;
    request->images = message->image_count;
    if (message->priority > 1)
        request->priority = PRIORITY_LOW;
    if (message->timeout_us && message->timeout_us < request->deadline_us - request->start_us)
        request->deadline_us = request->start_us + message->timeout_us;
    if (message->image_count > request_most_images(request)) {
        request_too_many_images(request);
        return;
    }
    if (vit_model_describe(request->model->vit)->text && !request->model->words &&
        (wants(message, V2_LOGITS) || wants(message, V2_PROBABILITIES))) {
        problem_set(&request->problem, 400, "labels_needed",
                    "%s has no labels of its own: ask for the output embedding, or configure labels", request->model->id);
        return;
    }
    const struct part body = {request->body, request->body_length};
    if (!wants_binary(message) && request_answer_from_cache(request, &body, 1))
        return;
    if (message->memory) /* and so the images are not in the body */
        request_free_body(request);
    if (request_make_job(request, message->image_count))
        fill_job(request->job, message);
}

/* The protocol knows no error of one image among several: one that fails fails the request. */
static bool fails(struct request *request, const struct job *job)
{
    for (size_t i = 0; i < job->image_count; i++) {
        char why[sizeof request->problem.message];
        if (job->images[i].state == IMAGE_DONE)
            continue;
        request_image_problem(request, &job->images[i]);
        snprintf(why, sizeof why, "%s", request->problem.message);
        if (job->image_count > 1)
            snprintf(request->problem.message, sizeof request->problem.message, "image %zu: %.550s", i, why);
        return true;
    }
    return false;
}

void finish_v2_infer(struct request *request, const struct job *job)
{
    char version[16];
    const vit_model_info *info = vit_model_describe(request->model->vit);
    if (fails(request, job))
        return;
    const float **rows = calloc(2 * job->image_count, sizeof *rows);
    if (!rows) {
        request_out_of_memory(request);
        return;
    }
    for (size_t i = 0; i < job->image_count; i++) {
        rows[i] = job->images[i].logits;
        rows[job->image_count + i] = job->images[i].features;
    }
    const struct v2_result result = {.model_name = request->model->name,
                                     .model_version = version_text(request->model->version, version),
                                     .images = job->image_count,
                                     .classes = job_class_count(job),
                                     .embedding_width = info->embedding_width,
                                     .logits = rows,
                                     .features = rows + job->image_count,
                                     .label = request_label,
                                     .model = job};
    const size_t length = v2_reply_infer(&request->reply, request->message, &result);
    free(rows);
    if (length != V2_ALL_JSON) {
        request->reply_json_length = length;
        request->reply_type = "application/octet-stream";
    }
}

/* ---- the repository ---- */

enum outcome handle_v2_index(struct request *request)
{
    size_t count = 0;
    struct listed *list = registry_list(request->service->registry, &count);
    struct v2_index_entry *entries = calloc(count + 1, sizeof *entries);
    char(*versions)[16] = calloc(count + 1, sizeof *versions);
    for (size_t i = 0; list && entries && versions && i < count; i++)
        entries[i] = (struct v2_index_entry){
            .name = list[i].configured.name,
            .version = version_text(list[i].configured.version, versions[i]),
            .state = list[i].state == MODEL_READY ? "READY" : list[i].state == MODEL_LOADING ? "LOADING" : "UNAVAILABLE",
            .reason = *list[i].why ? list[i].why : list[i].state == MODEL_UNLOADED ? "unloaded" : NULL,
        };
    if (list && entries && versions)
        v2_reply_index(&request->reply, entries, count);
    else
        request_out_of_memory(request);
    free(versions);
    free(entries);
    registry_list_free(list, count);
    return OUTCOME_REPLY;
}

/* ---- statistics ---- */

static struct v2_duration duration_of(struct metrics_sum sum)
{
    return (struct v2_duration){sum.count, (uint64_t)(sum.seconds * 1e9)};
}

/* What is counted of one model; batches [METRICS_MAX_BATCH + 1]. */
static void fill_stats(struct v2_model_stats *stats, const struct listed *listed, const struct model_metrics *counted,
                       struct v2_batch_stats *batches, struct metrics_counts *counts)
{
    metrics_read(counted, counts);
    *stats = (struct v2_model_stats){
        .name = listed->configured.name,
        .last_inference_ms = (uint64_t)counts->last_inference_ms,
        .inference_count = counts->images,
        .success = duration_of(counts->succeeded),
        .fail = duration_of(counts->failed),
        .queue = duration_of(counts->durations[DURATION_QUEUE]),
        .compute_input = duration_of(counts->durations[DURATION_PREPROCESS]),
        .compute_infer = duration_of(counts->durations[DURATION_INFERENCE]),
        .cache_hit = {counts->cache_hits, 0},
        .cache_miss = {counts->cache_misses, 0},
        .batches = batches,
    };
    for (size_t size = 1; size <= METRICS_MAX_BATCH; size++) {
        stats->execution_count += counts->batches[size].count;
        if (counts->batches[size].count)
            batches[stats->batch_count++] =
                (struct v2_batch_stats){.batch_size = size, .compute_infer = duration_of(counts->batches[size])};
    }
}

/* Of one model, in memory or not, or of all that are. */
static void put_stats(struct request *request, const struct listed *list, size_t count, const char *id)
{
    struct v2_model_stats *stats = calloc(count + 1, sizeof *stats);
    char(*versions)[16] = calloc(count + 1, sizeof *versions);
    struct v2_batch_stats *batches = calloc((count + 1) * (METRICS_MAX_BATCH + 1), sizeof *batches);
    struct metrics_counts *counts = calloc(1, sizeof *counts);
    size_t told = 0;
    const bool room = stats && versions && batches && counts;
    for (size_t i = 0; room && i < count; i++) {
        if (id ? strcmp(id, list[i].id) != 0 : !list[i].model)
            continue;
        const struct model_metrics *counted = metrics_model(request->service->metrics, list[i].id);
        if (!counted)
            continue;
        fill_stats(&stats[told], &list[i], counted, batches + told * (METRICS_MAX_BATCH + 1), counts);
        stats[told].version = version_text(list[i].configured.version, versions[told]);
        told++;
    }
    if (room)
        v2_reply_stats(&request->reply, stats, told);
    else
        request_out_of_memory(request);
    free(counts);
    free(batches);
    free(versions);
    free(stats);
}

/* A model need not be in memory: who looks at counters does not use it. */
enum outcome handle_v2_stats(struct request *request)
{
    size_t count = 0;
    char id[MODEL_ID_BYTES];
    struct registry *registry = request->service->registry;
    if (*request->name && registry_find(registry, request->name, *request->version ? request->version : NULL, NULL, id) ==
                              FOUND_NOTHING) {
        request_unknown_model(request, request->name);
        return OUTCOME_REPLY;
    }
    struct listed *list = registry_list(registry, &count);
    if (list)
        put_stats(request, list, count, *request->name ? id : NULL);
    else
        request_out_of_memory(request);
    registry_list_free(list, count);
    return OUTCOME_REPLY;
}
