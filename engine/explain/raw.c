/* raw.c - attention as it is: the class token's row over the patches, at chosen layers and heads. */
#include <string.h>

#include "engine/base/error.h"
#include "engine/explain/explain.h"

static size_t count_of(int chosen, size_t all)
{
    return chosen == VIT_ALL ? all : 1;
}

vit_status explain_shape(const vit_model_info *info, const vit_explain *explain, size_t *layers, size_t *heads,
                         vit_error *err)
{
    if (explain->method != VIT_ATTENTION_RAW)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "no such attention method");
    if (explain->layer != VIT_LAYER_LAST && explain->layer != VIT_ALL &&
        (explain->layer < 0 || (size_t)explain->layer >= info->layers))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "layer %d does not exist: the model has layers 0 to %zu",
                             explain->layer, info->layers - 1);
    if (explain->head != VIT_HEAD_MEAN && explain->head != VIT_ALL &&
        (explain->head < 0 || (size_t)explain->head >= info->heads))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "head %d does not exist: the model has heads 0 to %zu",
                             explain->head, info->heads - 1);
    *layers = count_of(explain->layer, info->layers);
    *heads = count_of(explain->head, info->heads);
    return VIT_OK;
}

/* map [patches] += weight * row [T] without its prefix tokens */
static void add_row(float *map, const float *row, float weight, size_t prefix, size_t patches)
{
    for (size_t i = 0; i < patches; i++)
        map[i] += weight * row[prefix + i];
}

static void observe(void *context, size_t layer, size_t head, const float *probabilities, size_t tokens)
{
    const struct raw_map *raw = context;
    const vit_explain *explain = raw->explain;
    const vit_model_info *info = raw->info;
    const size_t patches = info->grid_height * info->grid_width;
    const size_t wanted = explain->layer == VIT_LAYER_LAST ? info->layers - 1 : (size_t)explain->layer;
    if (explain->layer != VIT_ALL && layer != wanted)
        return;
    if (explain->head >= 0 && head != (size_t)explain->head)
        return;

    const size_t map_layer = explain->layer == VIT_ALL ? layer : 0, map_head = explain->head == VIT_ALL ? head : 0;
    float *map = raw->map + (map_layer * count_of(explain->head, info->heads) + map_head) * patches;
    float weight = explain->head == VIT_HEAD_MEAN ? 1.0f / (float)info->heads : 1.0f;
    if (raw->has_class_token) {
        add_row(map, probabilities, weight, info->prefix_tokens, patches);
        return;
    }
    weight /= (float)tokens;
    for (size_t query = 0; query < tokens; query++)
        add_row(map, probabilities + query * tokens, weight, info->prefix_tokens, patches);
}

struct attention_observer raw_observer(struct raw_map *raw)
{
    const vit_model_info *info = raw->info;
    const size_t maps =
        count_of(raw->explain->layer, info->layers) * count_of(raw->explain->head, info->heads);
    memset(raw->map, 0, maps * info->grid_height * info->grid_width * sizeof *raw->map);
    return (struct attention_observer){.observe = observe, .context = raw};
}
