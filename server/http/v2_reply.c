/*
 * v2_reply.c - see v2_reply.h. Binary tensors follow the JSON that states their size, so they gather in a buffer of
 * their own while the JSON is written.
 */
#include "server/http/v2_reply.h"

#include <inttypes.h>
#include <stdlib.h>

#include "vit.h"

/* ,"key":value, or nothing when there is none */
static void put_optional(struct strbuf *out, const char *key, const char *value)
{
    if (value)
        strbuf_put_text(out, key, value);
}

static void put_name(struct strbuf *out, const char *name, const char *version)
{
    strbuf_text(out, "{\"name\":");
    strbuf_json_string(out, name);
    put_optional(out, "version", version);
}

/* ---- inference ---- */

/* A reply in the making. */
struct writing {
    struct strbuf *out;     /* the JSON */
    struct strbuf binary;   /* the tensors behind it */
    bool any_binary;
    const struct v2_result *result;
    float *scores;          /* [classes] */
    size_t *best;           /* [classes] */
};

/* The values of an image; valid until the next call. */
static const float *image_values(struct writing *writing, enum v2_tensor tensor, size_t image)
{
    const struct v2_result *result = writing->result;
    if (tensor == V2_EMBEDDING)
        return result->features[image];
    if (tensor == V2_LOGITS)
        return result->logits[image];
    vit_scores(writing->scores, result->logits[image], result->classes, VIT_SOFTMAX);
    return writing->scores;
}

/* "value:index:label" of an image's class. */
static void put_class(struct strbuf *text, const struct v2_result *result, const float *values, size_t index)
{
    text->length = 0;
    strbuf_json_float(text, (double)values[index]);
    strbuf_printf(text, ":%zu:", index);
    strbuf_text(text, result->label(result->model, index));
}

static void put_classes(struct writing *writing, const struct v2_output *output, size_t count, size_t image)
{
    const struct v2_result *result = writing->result;
    const float *values = image_values(writing, output->tensor, image);
    struct strbuf text = {0};
    vit_top_k(writing->best, values, result->classes, count);
    for (size_t i = 0; i < count; i++) {
        put_class(&text, result, values, writing->best[i]);
        if (text.failed)
            break;
        if (output->binary) {
            const uint32_t length = (uint32_t)text.length;
            strbuf_add(&writing->binary, &length, sizeof length);
            strbuf_add(&writing->binary, text.data, text.length);
        } else {
            strbuf_text(writing->out, image || i ? "," : "");
            strbuf_json_string(writing->out, text.data);
        }
    }
    writing->out->failed |= text.failed;
    strbuf_release(&text);
}

static void put_values(struct writing *writing, const struct v2_output *output, size_t count, size_t image)
{
    const float *values = image_values(writing, output->tensor, image);
    if (output->binary) {
        strbuf_add(&writing->binary, values, count * sizeof *values);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        strbuf_text(writing->out, image || i ? "," : "");
        strbuf_json_float(writing->out, (double)values[i]);
    }
}

/* {"name","datatype","shape","data"}, or with "parameters" instead of the data when that is binary */
static void put_output(struct writing *writing, const struct v2_output *output)
{
    struct strbuf *out = writing->out;
    const struct v2_result *result = writing->result;
    const size_t before = writing->binary.length;
    const bool classes = output->classification > 0;
    size_t count = output->tensor == V2_EMBEDDING ? result->embedding_width : result->classes;
    if (classes && output->classification < count)
        count = output->classification;
    strbuf_printf(out, "{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[%zu,%zu]", v2_output_names[output->tensor],
                  v2_datatypes[classes ? V2_BYTES : V2_FP32], result->images, count);
    strbuf_text(out, output->binary ? "" : ",\"data\":[");
    for (size_t image = 0; image < result->images; image++)
        (classes ? put_classes : put_values)(writing, output, count, image);
    if (output->binary)
        strbuf_printf(out, ",\"parameters\":{\"binary_data_size\":%zu}}", writing->binary.length - before);
    else
        strbuf_text(out, "]}");
    writing->any_binary |= output->binary;
}

static void put_outputs(struct writing *writing, const struct v2_request *request)
{
    struct strbuf *out = writing->out;
    strbuf_text(out, "{\"model_name\":");
    strbuf_json_string(out, writing->result->model_name);
    put_optional(out, "model_version", writing->result->model_version);
    put_optional(out, "id", *request->id ? request->id : NULL);
    strbuf_text(out, ",\"outputs\":[");
    for (size_t i = 0; i < request->output_count; i++) {
        strbuf_text(out, i ? "," : "");
        put_output(writing, &request->outputs[i]);
    }
    strbuf_text(out, "]}");
}

size_t v2_reply_infer(struct strbuf *out, const struct v2_request *request, const struct v2_result *result)
{
    const size_t before = out->length;
    size_t json_length = V2_ALL_JSON;
    struct writing writing = {
        .out = out,
        .result = result,
        .scores = calloc(result->classes, sizeof(float)),
        .best = calloc(result->classes, sizeof(size_t)),
    };
    if (writing.scores && writing.best)
        put_outputs(&writing, request);
    else
        out->failed = true;
    if (writing.any_binary) {
        json_length = out->length - before;
        strbuf_add(out, writing.binary.data, writing.binary.length);
        out->failed |= writing.binary.failed;
    }
    strbuf_release(&writing.binary);
    free(writing.scores);
    free(writing.best);
    return json_length;
}

/* ---- metadata ---- */

void v2_reply_server(struct strbuf *out, const char *version)
{
    put_name(out, "vitd", version);
    strbuf_text(out, ",\"extensions\":[\"binary_tensor_data\",\"classification\",\"statistics\","
                     "\"model_repository\"]}");
}

void v2_reply_model(struct strbuf *out, const struct v2_model *model)
{
    strbuf_text(out, "{\"name\":");
    strbuf_json_string(out, model->name);
    for (size_t i = 0; i < model->version_count; i++)
        strbuf_printf(out, "%s\"%d\"", i ? "," : ",\"versions\":[", model->versions[i]);
    if (model->version_count)
        strbuf_text(out, "]");
    strbuf_text(out, ",\"platform\":\"vitd\",\"inputs\":[");
    for (int type = 0; type < V2_INPUT_COUNT; type++) {
        strbuf_printf(out, "%s{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":", type ? "," : "", v2_input_names[type],
                      v2_datatypes[type]);
        if (type == V2_FP32)
            strbuf_printf(out, "[-1,3,%zu,%zu]}", model->height, model->width);
        else
            strbuf_text(out, type == V2_BYTES ? "[-1]}" : "[-1,-1,-1,3]}");
    }
    strbuf_text(out, "],\"outputs\":[");
    for (int tensor = model->classes ? 0 : V2_EMBEDDING; tensor < V2_OUTPUT_COUNT; tensor++)
        strbuf_printf(out, "%s{\"name\":\"%s\",\"datatype\":\"FP32\",\"shape\":[-1,%zu]}",
                      tensor && model->classes ? "," : "",
                      v2_output_names[tensor], tensor == V2_EMBEDDING ? model->embedding_width : model->classes);
    strbuf_text(out, "]}");
}

void v2_reply_index(struct strbuf *out, const struct v2_index_entry *entries, size_t count)
{
    strbuf_text(out, "[");
    for (size_t i = 0; i < count; i++) {
        strbuf_text(out, i ? "," : "");
        put_name(out, entries[i].name, entries[i].version);
        strbuf_put_text(out, "state", entries[i].state);
        strbuf_put_text(out, "reason", entries[i].reason);
        strbuf_text(out, "}");
    }
    strbuf_text(out, "]");
}

/* ---- statistics ---- */

static void put_duration(struct strbuf *out, const char *separator, const char *name, struct v2_duration duration)
{
    strbuf_printf(out, "%s\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}", separator, name, duration.count,
                  duration.ns);
}

static void put_model_stats(struct strbuf *out, const struct v2_model_stats *stats)
{
    put_name(out, stats->name, stats->version);
    strbuf_printf(out, ",\"last_inference\":%" PRIu64 ",\"inference_count\":%" PRIu64 ",\"execution_count\":%" PRIu64,
                  stats->last_inference_ms, stats->inference_count, stats->execution_count);
    put_duration(out, ",\"inference_stats\":{", "success", stats->success);
    put_duration(out, ",", "fail", stats->fail);
    put_duration(out, ",", "queue", stats->queue);
    put_duration(out, ",", "compute_input", stats->compute_input);
    put_duration(out, ",", "compute_infer", stats->compute_infer);
    put_duration(out, ",", "compute_output", stats->compute_output);
    put_duration(out, ",", "cache_hit", stats->cache_hit);
    put_duration(out, ",", "cache_miss", stats->cache_miss);
    strbuf_text(out, "},\"batch_stats\":[");
    for (size_t i = 0; i < stats->batch_count; i++) {
        const struct v2_batch_stats *batch = &stats->batches[i];
        strbuf_printf(out, "%s{\"batch_size\":%zu", i ? "," : "", batch->batch_size);
        put_duration(out, ",", "compute_input", batch->compute_input);
        put_duration(out, ",", "compute_infer", batch->compute_infer);
        put_duration(out, ",", "compute_output", batch->compute_output);
        strbuf_text(out, "}");
    }
    strbuf_text(out, "]}");
}

void v2_reply_stats(struct strbuf *out, const struct v2_model_stats *models, size_t count)
{
    strbuf_text(out, "{\"model_stats\":[");
    for (size_t i = 0; i < count; i++) {
        strbuf_text(out, i ? "," : "");
        put_model_stats(out, &models[i]);
    }
    strbuf_text(out, "]}");
}
