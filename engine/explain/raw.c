/* raw.c - attention as it is: the class token's row over the patches, at chosen layers and heads. */
#include <string.h>

#include "engine/explain/explain.h"

static size_t count_of(int chosen, size_t all)
{
    return chosen == VIT_ALL ? all : 1;
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
    const size_t wanted = explain->layer == VIT_LAYER_DEFAULT ? info->layers - 1 : (size_t)explain->layer;
    if (explain->layer != VIT_ALL && layer != wanted)
        return;
    if (explain->head >= 0 && head != (size_t)explain->head)
        return;

    const size_t map_layer = explain->layer == VIT_ALL ? layer : 0, map_head = explain->head == VIT_ALL ? head : 0;
    float *map = raw->map + (map_layer * count_of(explain->head, info->heads) + map_head) * patches;
    float weight = explain->head == VIT_HEAD_MEAN ? 1.0f / (float)info->heads : 1.0f;
    if (info->prefix_tokens > 0) {
        add_row(map, probabilities, weight, info->prefix_tokens, patches);
        return;
    }
    weight /= (float)tokens;
    for (size_t query = 0; query < tokens; query++)
        add_row(map, probabilities + query * tokens, weight, info->prefix_tokens, patches);
}

struct observer raw_observer(struct raw_map *raw)
{
    const vit_model_info *info = raw->info;
    const size_t maps =
        count_of(raw->explain->layer, info->layers) * count_of(raw->explain->head, info->heads);
    memset(raw->map, 0, maps * info->grid_height * info->grid_width * sizeof *raw->map);
    return (struct observer){.attention = observe, .context = raw};
}
