/* reply.c - results of the engine as JSON, written straight into the reply (no tree in between). */
#include "server/http/reply.h"

#include <stdlib.h>

#include "server/work/words.h"

void reply_error(struct strbuf *out, const struct problem *problem)
{
    strbuf_text(out, "{\"error\":{\"code\":");
    strbuf_json_string(out, problem->code);
    strbuf_text(out, ",\"message\":");
    strbuf_json_string(out, problem->message);
    strbuf_text(out, "}}");
}

void reply_error_plain(struct strbuf *out, const struct problem *problem)
{
    strbuf_text(out, "{\"error\":");
    strbuf_json_string(out, problem->message);
    strbuf_text(out, "}");
}

void reply_image_problem(const struct job_image *image, struct problem *problem)
{
    const char *why = image->error.message;
    switch (image->failure) {
    case FAILURE_DEADLINE:
        problem_set(problem, 504, "deadline_exceeded",
                    "it waited longer than batching.request_timeout_ms, or X-Request-Timeout-Ms, allows; send fewer at "
                    "once or retry later");
        return;
    case FAILURE_CLIENT_GONE:
        problem_set(problem, 499, "client_gone", "the client left before the reply");
        return;
    case FAILURE_NONE:
    case FAILURE_IMAGE:
    case FAILURE_PREPROCESS:
    case FAILURE_INTERNAL:
        break;
    }
    switch (image->status) {
    case VIT_ERR_IMAGE_TYPE:
        problem_set(problem, 415, "unsupported_image_type", "%s", why);
        return;
    case VIT_ERR_IMAGE_DAMAGED:
        problem_set(problem, 422, "undecodable_image", "%s", why);
        return;
    case VIT_ERR_IMAGE_SIZE:
        problem_set(problem, 422, image->failure == FAILURE_PREPROCESS ? "unsuitable_size" : "too_many_pixels", "%s",
                    why);
        return;
    case VIT_ERR_NO_MEMORY:
        problem_set(problem, 503, "out_of_memory", "the server is short of memory; retry later");
        return;
    default:
        problem_set(problem, 500, "internal_error", "%s", why);
    }
}

static void put_class(struct strbuf *out, const struct job *job, size_t index)
{
    strbuf_text(out, "{\"label\":");
    strbuf_json_string(out, job_class_label(job, index));
    strbuf_printf(out, ",\"index\":%zu", index);
}

static void put_timing(struct strbuf *out, const struct job_image *image)
{
    strbuf_printf(out, ",\"timing\":{\"queue_ms\":%.3f,\"preprocess_ms\":%.3f,\"inference_ms\":%.3f", image->queue_ms,
                  image->preprocess_ms, image->inference_ms);
    strbuf_printf(out, ",\"batch_size\":%zu}", image->batch_size);
}

/* "predictions":[...], best first. The logits become the scores in place. */
static void put_predictions(struct strbuf *out, const struct job_image *image, const struct choices *choices)
{
    const size_t classes = job_class_count(image->job);
    const size_t count = choices->top_k && choices->top_k < classes ? choices->top_k : classes;
    size_t *best = malloc((count ? count : 1) * sizeof *best);
    if (!best) {
        out->failed = true;
        return;
    }
    vit_scores(image->logits, image->logits, classes, choices->function);
    vit_top_k(best, image->logits, classes, count);
    strbuf_text(out, "\"predictions\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            strbuf_add(out, ",", 1);
        put_class(out, image->job, best[i]);
        strbuf_text(out, ",\"score\":");
        strbuf_json_float(out, (double)image->logits[best[i]]);
        strbuf_add(out, "}", 1);
    }
    strbuf_add(out, "]", 1);
    free(best);
}

/* ---- attention ---- */

static void put_choice(struct strbuf *out, const char *key, int choice, size_t layers)
{
    strbuf_printf(out, ",\"%s\":", key);
    if (choice == VIT_ALL)
        strbuf_text(out, "\"all\"");
    else if (choice == VIT_HEAD_MEAN)
        strbuf_text(out, "\"mean\"");
    else if (choice == VIT_LAYER_DEFAULT)
        strbuf_printf(out, "%zu", layers - 1);
    else
        strbuf_printf(out, "%d", choice);
}

/* The i-th target; without one the top class. */
static void put_target(struct strbuf *out, const struct job *job, size_t i, size_t top_class)
{
    if (!job->targets) {
        put_class(out, job, job->explain.target_count ? job->explain.targets[i] : top_class);
    } else {
        strbuf_text(out, "{\"label\":");
        strbuf_json_string(out, job->targets->texts[i]);
    }
    strbuf_add(out, "}", 1);
}

static void put_targets(struct strbuf *out, const struct job *job, size_t top_class)
{
    if (job->explain.target_count < 2) {
        strbuf_text(out, ",\"target\":");
        put_target(out, job, 0, top_class);
        return;
    }
    strbuf_text(out, ",\"targets\":[");
    for (size_t i = 0; i < job->explain.target_count; i++) {
        strbuf_text(out, i ? "," : "");
        put_target(out, job, i, top_class);
    }
    strbuf_add(out, "]", 1);
}

/* What the map shows: the choices that its method has. */
static void put_choices(struct strbuf *out, const struct job *job, size_t top_class)
{
    const vit_explain *explain = &job->explain;
    const size_t layers = vit_model_describe(job->model->vit)->layers;
    if (explain->method == VIT_ATTENTION_LEGRAD)
        put_targets(out, job, top_class);
    if (explain->method == VIT_ATTENTION_LEGRAD && explain->layer == VIT_LAYER_DEFAULT)
        strbuf_put_size(out, "layers", explain->last_layers ? explain->last_layers : layers);
    else if (explain->method != VIT_ATTENTION_ROLLOUT)
        put_choice(out, "layer", explain->layer, layers);
    if (explain->method == VIT_ATTENTION_RAW)
        put_choice(out, "head", explain->head, layers);
}

/* values [gh][gw]; before it a dimension for every choice of several: [targets], [L], [NH], in this order. */
static void put_attention(struct strbuf *out, const struct job *job, const float *map, size_t top_class)
{
    vit_map_shape shape;
    const vit_explain *explain = &job->explain;
    size_t dimensions[5], count = 0;
    vit_explain_shape(job->model->vit, explain, &shape, NULL);
    if (explain->target_count > 1)
        dimensions[count++] = shape.targets;
    if (explain->layer == VIT_ALL)
        dimensions[count++] = shape.layers;
    if (explain->head == VIT_ALL)
        dimensions[count++] = shape.heads;
    dimensions[count++] = shape.grid_height;
    dimensions[count++] = shape.grid_width;
    strbuf_printf(out, ",\"attention\":{\"method\":\"%s\"", vit_attention_name(explain->method));
    put_choices(out, job, top_class);
    strbuf_printf(out, ",\"grid\":[%zu,%zu],\"values\":", shape.grid_height, shape.grid_width);
    strbuf_json_nested(out, map, dimensions, count);
    strbuf_add(out, "}", 1);
}

/* ---- jobs ---- */

static void put_classified(struct strbuf *out, const struct model *model, const struct job_image *image,
                           const struct choices *choices)
{
    size_t top_class = 0;
    (void)model;
    if (job_class_count(image->job))
        vit_top_k(&top_class, image->logits, job_class_count(image->job), 1);
    put_predictions(out, image, choices);
    if (image->map)
        put_attention(out, image->job, image->map, top_class);
    put_timing(out, image);
}

static void put_embedded(struct strbuf *out, const struct model *model, const struct job_image *image,
                         const struct choices *choices)
{
    (void)choices;
    const size_t width = vit_model_describe(model->vit)->embedding_width;
    strbuf_text(out, "\"embedding\":");
    strbuf_json_floats(out, image->features, width);
    strbuf_put_size(out, "dim", width);
    put_timing(out, image);
}

void reply_begin(struct strbuf *out, const struct model *model)
{
    strbuf_text(out, "{\"model\":");
    strbuf_json_string(out, model->name);
    if (model->version)
        strbuf_put_size(out, "version", (size_t)model->version);
}

typedef void put_image(struct strbuf *out, const struct model *model, const struct job_image *image,
                       const struct choices *choices);

static void put_job(struct strbuf *out, const struct model *model, const struct job *job,
                    const struct choices *choices, bool single, put_image *put)
{
    reply_begin(out, model);
    strbuf_add(out, ",", 1);
    if (single) {
        put(out, model, &job->images[0], choices);
        strbuf_add(out, "}", 1);
        return;
    }
    strbuf_text(out, "\"results\":[");
    for (size_t i = 0; i < job->image_count; i++) {
        const struct job_image *image = &job->images[i];
        strbuf_text(out, i ? "," : "");
        if (image->state == IMAGE_DONE) {
            strbuf_add(out, "{", 1);
            put(out, model, image, choices);
            strbuf_add(out, "}", 1);
        } else {
            struct problem problem = {0};
            reply_image_problem(image, &problem);
            reply_error(out, &problem);
        }
    }
    strbuf_text(out, "]}");
}

void reply_classify(struct strbuf *out, const struct model *model, const struct job *job,
                    const struct choices *choices, bool single)
{
    put_job(out, model, job, choices, single, put_classified);
}

void reply_embed(struct strbuf *out, const struct model *model, const struct job *job, bool single)
{
    put_job(out, model, job, NULL, single, put_embedded);
}

static void put_distances(struct strbuf *out, const struct model *model, const struct job_image *image,
                          const struct choices *choices)
{
    (void)choices;
    const vit_model_info *info = vit_model_describe(model->vit);
    strbuf_text(out, "\"unit\":\"pixels\",\"distances\":");
    strbuf_json_nested(out, image->distances, (size_t[]){info->layers, info->heads}, 2);
    put_timing(out, image);
}

void reply_distances(struct strbuf *out, const struct model *model, const struct job *job, bool single)
{
    put_job(out, model, job, NULL, single, put_distances);
}

void reply_texts(struct strbuf *out, const struct model *model, const struct words *words)
{
    reply_begin(out, model);
    strbuf_text(out, ",\"embeddings\":");
    strbuf_json_nested(out, words->embeddings, (size_t[]){words->count, words->width}, 2);
    strbuf_put_size(out, "dim", words->width);
    strbuf_text(out, "}");
}
