/* reply_models.c - what a model is, and what its weights show, as JSON. */
#include <stdlib.h>

#include "server/http/reply.h"
#include "server/stages.h"

static const char *const resize_names[] = {
    [VIT_RESIZE_NONE] = "none",
    [VIT_RESIZE_EXACT] = "exact",
    [VIT_RESIZE_SHORTEST_EDGE] = "shortest_edge",
    [VIT_RESIZE_LONGEST_EDGE] = "longest_edge",
};

static void put_preprocess(struct strbuf *out, const vit_preprocess *preprocess, bool draft)
{
    strbuf_printf(out, ",\"preprocessing\":{\"resize\":\"%s\"", resize_names[preprocess->resize]);
    if (preprocess->resize == VIT_RESIZE_SHORTEST_EDGE)
        strbuf_put_size(out, "resize_shortest_edge", preprocess->resize_height);
    else if (preprocess->resize != VIT_RESIZE_NONE)
        strbuf_printf(out, ",\"resize_size\":[%zu,%zu]", preprocess->resize_height, preprocess->resize_width);
    if (preprocess->resize != VIT_RESIZE_NONE)
        strbuf_put_text(out, "resample", vit_filter_name(preprocess->filter));
    strbuf_printf(out, ",\"center_crop\":%s,\"size\":[%zu,%zu],\"rescale_factor\":",
                  preprocess->crop == VIT_CROP_NONE ? "false" : "true", preprocess->height, preprocess->width);
    strbuf_json_float(out, preprocess->rescale_factor);
    strbuf_text(out, ",\"mean\":");
    strbuf_json_floats(out, preprocess->mean, 3);
    strbuf_text(out, ",\"std\":");
    strbuf_json_floats(out, preprocess->std, 3);
    strbuf_printf(out, ",\"draft\":%s}", draft ? "true" : "false");
}

static void put_explanations(struct strbuf *out, const vit_model_info *info)
{
    strbuf_text(out, ",\"explanations\":[");
    const char *before = "";
    for (int method = VIT_ATTENTION_RAW; method < VIT_ATTENTION_COUNT; method++)
        if (info->explanations & 1u << method) {
            strbuf_printf(out, "%s\"%s\"", before, vit_attention_name((vit_attention)method));
            before = ",";
        }
    strbuf_add(out, "]", 1);
}

/* Layers of one kind in a row. */
static void put_stages(struct strbuf *out, const vit_model_info *info)
{
    strbuf_text(out, ",\"stages\":[");
    for (size_t first = 0, length; first < info->layers; first += length) {
        const vit_layer_info *layer = &info->layer_info[first];
        length = stage_length(info, first);
        strbuf_printf(out, "%s{\"layers\":%zu,\"width\":%zu,\"heads\":%zu,\"grid\":[%zu,%zu]}", first > 0 ? "," : "", length,
                      layer->width, layer->heads, layer->grid_height, layer->grid_width);
    }
    strbuf_text(out, "]");
}

static void put_description(struct strbuf *out, const struct model *model)
{
    const vit_model_info *info = vit_model_describe(model->vit);
    strbuf_put_text(out, "architecture", info->architecture);
    strbuf_put_text(out, "layout", info->layout);
    strbuf_put_text(out, "dtype", info->dtype);
    strbuf_put_text(out, "stored_dtype", info->stored_dtype);
    strbuf_printf(out, ",\"image_size\":[%zu,%zu]", info->image_height, info->image_width);
    strbuf_put_size(out, "patch_size", info->patch_size);
    strbuf_printf(out, ",\"grid\":[%zu,%zu]", info->grid_height, info->grid_width);
    strbuf_put_size(out, "tokens", info->tokens);
    strbuf_put_size(out, "layers", info->layers);
    strbuf_put_size(out, "heads", info->heads);
    strbuf_put_size(out, "width", info->width);
    strbuf_put_size(out, "mlp_width", info->mlp_width);
    put_stages(out, info);
    strbuf_put_text(out, "pooling", info->pooling);
    strbuf_put_text(out, "activation", info->activation);
    strbuf_put_size(out, "embedding_dim", info->embedding_width);
    strbuf_printf(out, ",\"parameters\":%llu", (unsigned long long)info->parameters);
    strbuf_put_size(out, "memory_bytes", model->bytes);
    strbuf_put_size(out, "classes", model_class_count(model));
    if (info->text)
        strbuf_printf(out, ",\"text\":{\"layers\":%zu,\"heads\":%zu,\"width\":%zu,\"context_length\":%zu,\"vocabulary\":%zu}",
                      info->text_layers, info->text_heads, info->text_width, info->context_length, info->vocabulary);
    put_explanations(out, info);
    strbuf_printf(out, ",\"attention_distances\":%s,\"filters\":%s,\"positions\":%s", info->distances ? "true" : "false",
                  info->filters ? "true" : "false", info->positions ? "true" : "false");
    put_preprocess(out, info->preprocess, model->draft);
}

static void put_model(struct strbuf *out, const struct listed *listed, bool with_labels)
{
    const struct config_model *configured = &listed->configured;
    strbuf_text(out, "{\"name\":");
    strbuf_json_string(out, configured->name);
    if (configured->version)
        strbuf_put_size(out, "version", (size_t)configured->version);
    strbuf_put_text(out, "state", model_state_name(listed->state));
    if (*listed->why)
        strbuf_put_text(out, "reason", listed->why);
    strbuf_printf(out, ",\"lazy\":%s,\"max_batch_size\":%d,\"max_queue_delay_us\":%d", configured->lazy ? "true" : "false",
                  configured->max_batch_size, configured->max_queue_delay_us);
    if (listed->model)
        put_description(out, listed->model);
    if (with_labels && listed->model) {
        const struct job asked = {.model = listed->model, .words = listed->model->words};
        const size_t classes = job_class_count(&asked);
        strbuf_text(out, ",\"labels\":[");
        for (size_t i = 0; i < classes; i++) {
            strbuf_text(out, i ? "," : "");
            strbuf_json_string(out, job_class_label(&asked, i));
        }
        strbuf_add(out, "]", 1);
    }
    strbuf_add(out, "}", 1);
}

void reply_models(struct strbuf *out, const struct listed *list, size_t count)
{
    strbuf_text(out, "{\"models\":[");
    for (size_t i = 0; i < count; i++) {
        strbuf_text(out, i ? "," : "");
        put_model(out, &list[i], false);
    }
    strbuf_text(out, "]}");
}

void reply_model(struct strbuf *out, const struct listed *listed)
{
    put_model(out, listed, true);
}

/* ---- inside ---- */

static vit_status out_of_memory(vit_error *err)
{
    err->message[0] = '\0';
    return VIT_ERR_NO_MEMORY;
}

vit_status reply_filters(struct strbuf *out, const struct model *model, vit_error *err)
{
    const size_t patch = vit_model_describe(model->vit)->patch_size, size = 3 * patch * patch;
    float *components = calloc(VIT_FILTERS * size, sizeof *components), variances[VIT_FILTERS];
    size_t count = 0;
    vit_status status = components ? vit_model_filters(model->vit, components, variances, &count, err)
                                   : out_of_memory(err);
    if (status == VIT_OK) {
        reply_begin(out, model);
        strbuf_put_size(out, "patch_size", patch);
        strbuf_text(out, ",\"variances\":");
        strbuf_json_floats(out, variances, count);
        strbuf_text(out, ",\"components\":");
        strbuf_json_nested(out, components, (size_t[]){count, 3, patch, patch}, 4);
        strbuf_add(out, "}", 1);
    }
    free(components);
    return status;
}

vit_status reply_positions(struct strbuf *out, const struct model *model, vit_error *err)
{
    const vit_model_info *info = vit_model_describe(model->vit);
    const size_t height = info->grid_height, width = info->grid_width, patches = height * width;
    float *similarity = calloc(patches * patches, sizeof *similarity);
    vit_status status = similarity ? vit_model_positions(model->vit, similarity, err) : out_of_memory(err);
    if (status == VIT_OK) {
        reply_begin(out, model);
        strbuf_printf(out, ",\"grid\":[%zu,%zu],\"similarity\":", height, width);
        strbuf_json_nested(out, similarity, (size_t[]){height, width, height, width}, 4);
        strbuf_add(out, "}", 1);
    }
    free(similarity);
    return status;
}
