/* shape.c - which explanations a model can give, and how large their maps are. */
#include "engine/base/error.h"
#include "engine/explain/explain.h"

const char *vit_attention_name(vit_attention method)
{
    static const char *const names[VIT_ATTENTION_COUNT] = {
        [VIT_ATTENTION_NONE] = "none",
        [VIT_ATTENTION_RAW] = "raw",
        [VIT_ATTENTION_ROLLOUT] = "rollout",
        [VIT_ATTENTION_LEGRAD] = "legrad",
    };
    return names[method];
}

static vit_status unsupported(const vit_model_info *info, vit_attention method, vit_error *err)
{
    const bool legrad = info->explanations & 1u << VIT_ATTENTION_LEGRAD;
    if (info->explanations == 0)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED, "this model (architecture %s) has no attention to show",
                             info->architecture);
    if (method == VIT_ATTENTION_ROLLOUT && legrad && !info->class_token)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                             "rollout is the class token's row, and this model has no class token: ask for raw or legrad");
    if (method == VIT_ATTENTION_ROLLOUT && legrad && info->distances)
        return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                             "rollout over %zu layers of %zu tokens takes too much memory: ask for raw or legrad",
                             info->layers, info->tokens);
    return vit_error_set(err, VIT_ERR_UNSUPPORTED, "%s is not defined for this model (architecture %s): ask for raw%s",
                         vit_attention_name(method), info->architecture, legrad ? " or legrad" : "");
}

static vit_status check_method(const vit_model_info *info, const vit_explain *explain, vit_error *err)
{
    const vit_attention method = explain->method;
    if (method == VIT_ATTENTION_NONE || (int)method >= VIT_ATTENTION_COUNT)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "no such attention method");
    if (!(info->explanations & 1u << method))
        return unsupported(info, method, err);
    if (method != VIT_ATTENTION_RAW && explain->head != VIT_HEAD_MEAN)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "head only goes with attention=raw");
    if (method == VIT_ATTENTION_ROLLOUT && explain->layer != VIT_LAYER_DEFAULT)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "layer only goes with attention=raw and attention=legrad");
    if (method != VIT_ATTENTION_LEGRAD && explain->last_layers != 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "layers only goes with attention=legrad");
    if (method != VIT_ATTENTION_LEGRAD && explain->target_count != 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "target only goes with attention=legrad");
    return VIT_OK;
}

/* Classes, or the embeddings of texts. */
static vit_status check_targets(const vit_model_info *info, const vit_explain *explain, vit_error *err)
{
    if (explain->target_count > VIT_MAX_TARGETS)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "%zu targets: %d are possible", explain->target_count,
                             VIT_MAX_TARGETS);
    if (!info->text && explain->target_vectors != NULL)
        return vit_error_set(err, VIT_ERR_ARGUMENT,
                             "texts are no targets of this model (architecture %s): it has no text tower",
                             info->architecture);
    if (info->text && explain->method == VIT_ATTENTION_LEGRAD &&
        (explain->target_count == 0 || explain->target_vectors == NULL))
        return vit_error_set(err, VIT_ERR_ARGUMENT,
                             "legrad of this model (architecture %s) is of texts: it needs at least one for a target",
                             info->architecture);
    for (size_t i = 0; i < explain->target_count && !info->text; i++)
        if (explain->targets[i] >= info->classes)
            return vit_error_set(err, VIT_ERR_ARGUMENT, "class %zu does not exist: the model has classes 0 to %zu",
                                 explain->targets[i], info->classes - 1);
    return VIT_OK;
}

/* The layer whose heads and grid a map has. */
static const vit_layer_info *layer_of(const vit_model_info *info, const vit_explain *explain)
{
    return &info->layer_info[explain->layer >= 0 ? (size_t)explain->layer : info->layers - 1];
}

static bool layers_are_alike(const vit_model_info *info)
{
    const vit_layer_info *first = &info->layer_info[0];
    for (size_t i = 1; i < info->layers; i++)
        if (info->layer_info[i].grid_height != first->grid_height ||
            info->layer_info[i].grid_width != first->grid_width || info->layer_info[i].heads != first->heads)
            return false;
    return true;
}

static vit_status check_layer(const vit_model_info *info, const vit_explain *explain, vit_error *err)
{
    if (explain->layer == VIT_ALL && !layers_are_alike(info))
        return vit_error_set(err, VIT_ERR_UNSUPPORTED,
                             "the layers of this model (architecture %s) have different grids: ask for one layer, 0 to "
                             "%zu", info->architecture, info->layers - 1);
    if (explain->layer != VIT_LAYER_DEFAULT && explain->layer != VIT_ALL &&
        (explain->layer < 0 || (size_t)explain->layer >= info->layers))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "layer %d does not exist: the model has layers 0 to %zu",
                             explain->layer, info->layers - 1);
    return VIT_OK;
}

static vit_status check_choices(const vit_model_info *info, const vit_explain *explain, vit_error *err)
{
    vit_status status = check_layer(info, explain, err);
    if (status != VIT_OK)
        return status;
    const size_t heads = layer_of(info, explain)->heads;
    if (explain->head != VIT_HEAD_MEAN && explain->head != VIT_ALL &&
        (explain->head < 0 || (size_t)explain->head >= heads))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "head %d does not exist: %s has heads 0 to %zu", explain->head,
                             layers_are_alike(info) ? "the model" : "the layer", heads - 1);
    if (explain->last_layers > info->layers)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "the last %zu layers: the model has %zu", explain->last_layers,
                             info->layers);
    if (explain->last_layers != 0 && explain->layer != VIT_LAYER_DEFAULT)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "layer and layers exclude each other");
    return check_targets(info, explain, err);
}

vit_status explain_shape(const vit_model_info *info, const vit_explain *explain, vit_map_shape *shape, vit_error *err)
{
    vit_status status = check_method(info, explain, err);
    if (status == VIT_OK)
        status = check_choices(info, explain, err);
    if (status != VIT_OK)
        return status;
    const vit_layer_info *layer = layer_of(info, explain);
    vit_map_shape s = {
        .targets = explain->target_count > 0 ? explain->target_count : 1,
        .layers = explain->layer == VIT_ALL ? info->layers : 1,
        .heads = explain->head == VIT_ALL ? layer->heads : 1,
        .grid_height = layer->grid_height,
        .grid_width = layer->grid_width,
    };
    s.floats = s.targets * s.layers * s.heads * s.grid_height * s.grid_width;
    *shape = s;
    return VIT_OK;
}
