/* reply.c - results of the engine as JSON, written straight into the reply (no tree in between). */
#include "server/http/reply.h"

#include <stdlib.h>

void reply_error(struct strbuf *out, const struct problem *problem)
{
    strbuf_text(out, "{\"error\":{\"code\":");
    strbuf_json_string(out, problem->code);
    strbuf_text(out, ",\"message\":");
    strbuf_json_string(out, problem->message);
    strbuf_text(out, "}}");
}

void reply_image_problem(const struct job_image *image, size_t max_pixels, struct problem *problem)
{
    const char *why = image->error.message;
    switch (image->failure) {
    case FAILURE_DEADLINE:
        problem_set(problem, 504, "deadline_exceeded",
                    "the image waited longer than batching.request_timeout_ms; send fewer at once or retry later");
        return;
    case FAILURE_CLIENT_GONE:
        problem_set(problem, 499, "client_gone", "the client left before the reply");
        return;
    case FAILURE_NONE:
    case FAILURE_IMAGE:
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
        problem_set(problem, 422, "too_many_pixels", "%s (limits.max_pixels is %zu)", why, max_pixels);
        return;
    case VIT_ERR_NO_MEMORY:
        problem_set(problem, 503, "out_of_memory", "the server is short of memory; retry later");
        return;
    default:
        problem_set(problem, 500, "internal_error", "%s", why);
    }
}

static void put_size(struct strbuf *out, const char *key, size_t value)
{
    strbuf_printf(out, ",\"%s\":%zu", key, value);
}

static void put_text(struct strbuf *out, const char *key, const char *value)
{
    strbuf_printf(out, ",\"%s\":", key);
    strbuf_json_string(out, value ? value : "");
}

static void put_class(struct strbuf *out, const vit_model *model, size_t index)
{
    strbuf_text(out, "{\"label\":");
    strbuf_json_string(out, vit_model_label(model, index));
    strbuf_printf(out, ",\"index\":%zu", index);
}

static void put_timing(struct strbuf *out, const struct job_image *image)
{
    strbuf_printf(out, ",\"timing\":{\"queue_ms\":%.3f,\"preprocess_ms\":%.3f,\"inference_ms\":%.3f", image->queue_ms,
                  image->preprocess_ms, image->inference_ms);
    strbuf_printf(out, ",\"batch_size\":%zu}", image->batch_size);
}

/* "predictions":[...], best first. The logits become the scores in place. */
static void put_predictions(struct strbuf *out, const vit_model *model, const struct job_image *image,
                            const struct query *query)
{
    const size_t classes = vit_model_describe(model)->classes;
    const size_t count = query->top_k && query->top_k < classes ? query->top_k : classes;
    size_t *best = malloc((count ? count : 1) * sizeof *best);
    if (!best) {
        out->failed = true;
        return;
    }
    vit_scores(image->logits, image->logits, classes, query->function);
    vit_top_k(best, image->logits, classes, count);
    strbuf_text(out, "\"predictions\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            strbuf_add(out, ",", 1);
        put_class(out, model, best[i]);
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
    else if (choice == VIT_LAYER_LAST)
        strbuf_printf(out, "%zu", layers - 1);
    else
        strbuf_printf(out, "%d", choice);
}

/* Nested arrays, outermost dimension first; returns the values after those written. */
static const float *put_nested(struct strbuf *out, const float *values, const size_t *shape, size_t dimensions)
{
    if (dimensions == 1) {
        strbuf_json_floats(out, values, shape[0]);
        return values + shape[0];
    }
    strbuf_add(out, "[", 1);
    for (size_t i = 0; i < shape[0]; i++) {
        if (i)
            strbuf_add(out, ",", 1);
        values = put_nested(out, values, shape + 1, dimensions - 1);
    }
    strbuf_add(out, "]", 1);
    return values;
}

/* values [gh][gw]; a dimension [L] before it with layer=all, [NH] with head=all, [L][NH] with both. */
static void put_attention(struct strbuf *out, const vit_model_info *info, const vit_explain *explain, const float *map)
{
    size_t shape[4], dimensions = 0;
    if (explain->layer == VIT_ALL)
        shape[dimensions++] = info->layers;
    if (explain->head == VIT_ALL)
        shape[dimensions++] = info->heads;
    shape[dimensions++] = info->grid_height;
    shape[dimensions++] = info->grid_width;
    strbuf_text(out, ",\"attention\":{\"method\":\"raw\"");
    put_choice(out, "layer", explain->layer, info->layers);
    put_choice(out, "head", explain->head, info->layers);
    strbuf_printf(out, ",\"grid\":[%zu,%zu],\"values\":", info->grid_height, info->grid_width);
    put_nested(out, map, shape, dimensions);
    strbuf_add(out, "}", 1);
}

/* ---- jobs ---- */

static void put_classified(struct strbuf *out, const struct registry_entry *model, const struct job_image *image,
                           const struct query *query)
{
    put_predictions(out, model->model, image, query);
    if (image->map)
        put_attention(out, vit_model_describe(model->model), &image->job->explain, image->map);
    put_timing(out, image);
}

static void put_embedded(struct strbuf *out, const struct registry_entry *model, const struct job_image *image,
                         const struct query *query)
{
    (void)query;
    const size_t width = vit_model_describe(model->model)->embedding_width;
    strbuf_text(out, "\"embedding\":");
    strbuf_json_floats(out, image->features, width);
    put_size(out, "dim", width);
    put_timing(out, image);
}

typedef void put_image(struct strbuf *out, const struct registry_entry *model, const struct job_image *image,
                       const struct query *query);

static void put_job(struct strbuf *out, const struct registry_entry *model, const struct job *job,
                    const struct query *query, bool single, size_t max_pixels, put_image *put)
{
    strbuf_text(out, "{\"model\":");
    strbuf_json_string(out, model->name);
    strbuf_add(out, ",", 1);
    if (single) {
        put(out, model, &job->images[0], query);
        strbuf_add(out, "}", 1);
        return;
    }
    strbuf_text(out, "\"results\":[");
    for (size_t i = 0; i < job->image_count; i++) {
        const struct job_image *image = &job->images[i];
        strbuf_text(out, i ? "," : "");
        if (image->state == IMAGE_DONE) {
            strbuf_add(out, "{", 1);
            put(out, model, image, query);
            strbuf_add(out, "}", 1);
        } else {
            struct problem problem = {0};
            reply_image_problem(image, max_pixels, &problem);
            reply_error(out, &problem);
        }
    }
    strbuf_text(out, "]}");
}

void reply_classify(struct strbuf *out, const struct registry_entry *model, const struct job *job,
                    const struct query *query, bool single, size_t max_pixels)
{
    put_job(out, model, job, query, single, max_pixels, put_classified);
}

void reply_embed(struct strbuf *out, const struct registry_entry *model, const struct job *job, bool single,
                 size_t max_pixels)
{
    put_job(out, model, job, NULL, single, max_pixels, put_embedded);
}

/* ---- models ---- */

static const char *const resize_names[] = {
    [VIT_RESIZE_NONE] = "none",
    [VIT_RESIZE_EXACT] = "exact",
    [VIT_RESIZE_SHORTEST_EDGE] = "shortest_edge",
    [VIT_RESIZE_LONGEST_EDGE] = "longest_edge",
};
static const char *const filter_names[] = {
    [VIT_FILTER_NEAREST] = "nearest", [VIT_FILTER_BOX] = "box",         [VIT_FILTER_BILINEAR] = "bilinear",
    [VIT_FILTER_HAMMING] = "hamming", [VIT_FILTER_BICUBIC] = "bicubic", [VIT_FILTER_LANCZOS] = "lanczos",
};

static void put_preprocess(struct strbuf *out, const vit_preprocess *preprocess)
{
    strbuf_printf(out, ",\"preprocessing\":{\"resize\":\"%s\"", resize_names[preprocess->resize]);
    if (preprocess->resize == VIT_RESIZE_SHORTEST_EDGE)
        put_size(out, "resize_shortest_edge", preprocess->resize_height);
    else if (preprocess->resize != VIT_RESIZE_NONE)
        strbuf_printf(out, ",\"resize_size\":[%zu,%zu]", preprocess->resize_height, preprocess->resize_width);
    if (preprocess->resize != VIT_RESIZE_NONE)
        put_text(out, "resample", filter_names[preprocess->filter]);
    strbuf_printf(out, ",\"center_crop\":%s,\"size\":[%zu,%zu],\"rescale_factor\":",
                  preprocess->crop == VIT_CROP_NONE ? "false" : "true", preprocess->height, preprocess->width);
    strbuf_json_float(out, preprocess->rescale_factor);
    strbuf_text(out, ",\"mean\":");
    strbuf_json_floats(out, preprocess->mean, 3);
    strbuf_text(out, ",\"std\":");
    strbuf_json_floats(out, preprocess->std, 3);
    strbuf_add(out, "}", 1);
}

static void put_model(struct strbuf *out, const struct registry_entry *model, bool with_labels)
{
    const vit_model_info *info = vit_model_describe(model->model);
    strbuf_text(out, "{\"name\":");
    strbuf_json_string(out, model->name);
    put_text(out, "architecture", info->architecture);
    put_text(out, "layout", info->layout);
    put_text(out, "dtype", info->dtype);
    put_text(out, "stored_dtype", info->stored_dtype);
    strbuf_printf(out, ",\"image_size\":[%zu,%zu]", info->image_height, info->image_width);
    put_size(out, "patch_size", info->patch_size);
    strbuf_printf(out, ",\"grid\":[%zu,%zu]", info->grid_height, info->grid_width);
    put_size(out, "tokens", info->tokens);
    put_size(out, "layers", info->layers);
    put_size(out, "heads", info->heads);
    put_size(out, "width", info->width);
    put_size(out, "mlp_width", info->mlp_width);
    put_text(out, "pooling", info->pooling);
    put_text(out, "activation", info->activation);
    put_size(out, "embedding_dim", info->embedding_width);
    strbuf_printf(out, ",\"parameters\":%llu", (unsigned long long)info->parameters);
    put_size(out, "classes", info->classes);
    put_preprocess(out, info->preprocess);
    if (with_labels) {
        strbuf_text(out, ",\"labels\":[");
        for (size_t i = 0; i < info->classes; i++) {
            strbuf_text(out, i ? "," : "");
            strbuf_json_string(out, vit_model_label(model->model, i));
        }
        strbuf_add(out, "]", 1);
    }
    strbuf_add(out, "}", 1);
}

void reply_models(struct strbuf *out, const struct registry *registry)
{
    strbuf_text(out, "{\"models\":[");
    for (size_t i = 0; i < registry->count; i++) {
        strbuf_text(out, i ? "," : "");
        put_model(out, &registry->entries[i], false);
    }
    strbuf_text(out, "]}");
}

void reply_model(struct strbuf *out, const struct registry_entry *model)
{
    put_model(out, model, true);
}
