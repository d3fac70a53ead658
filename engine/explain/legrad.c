/* legrad.c - LeGrad (arXiv 2404.03214): what the score of a class or text would gain if a layer attended more to a
 * patch. */
#include <string.h>

#include "engine/explain/explain.h"

/* Where the gradients of a layer's heads are gathered. */
struct gathering {
    const struct kernels *kernels;
    float *relevance; /* [T] */
};

static void gather(void *context, const struct attention_view *view)
{
    const struct gathering *gathering = context;
    gathering->kernels->add_positive(gathering->relevance, view->matrix, view->rows, view->keys);
}

struct observer legrad_observer(struct legrad *legrad)
{
    return (struct observer){.tapes = legrad->tapes};
}

/* map [gh*gw] += the layer's map */
static void add_layer(struct legrad *legrad, const struct compute *compute, size_t layer, size_t class_index,
                      const float *text, float *map)
{
    const vit_model_info *info = legrad->info;
    struct gathering gathering = {.kernels = compute->kernels, .relevance = legrad->relevance};
    const struct observer observer = {.attention = gather, .context = &gathering};
    memset(legrad->relevance, 0, info->tokens * sizeof *legrad->relevance);
    legrad->score_gradient(legrad->state, compute, legrad->head, legrad->gradient, legrad->tapes[layer].mean,
                           class_index, text);
    block_backward(&legrad->blocks[layer], compute, &legrad->scratch, &legrad->tapes[layer], legrad->gradient,
                   info->tokens, layer, &observer);
    const float scale = 1.0f / (float)(info->heads * info->tokens);
    for (size_t i = 0; i < info->grid_height * info->grid_width; i++)
        map[i] += scale * legrad->relevance[info->prefix_tokens + i];
}

/* To [0, 1]; a map of one value only becomes 0. */
static void scale_to_unit(float *map, size_t n)
{
    float low = map[0], high = map[0];
    for (size_t i = 1; i < n; i++) {
        low = map[i] < low ? map[i] : low;
        high = map[i] > high ? map[i] : high;
    }
    for (size_t i = 0; i < n; i++)
        map[i] = high > low ? (map[i] - low) / (high - low) : 0;
}

void legrad_finish(struct legrad *legrad, const struct compute *compute, const vit_explain *explain,
                   size_t class_index, const float *text, float *map)
{
    const vit_model_info *info = legrad->info;
    const size_t patches = info->grid_height * info->grid_width;
    if (explain->layer == VIT_LAYER_DEFAULT) {
        const size_t count = explain->last_layers > 0 ? explain->last_layers : info->layers;
        memset(map, 0, patches * sizeof *map);
        for (size_t layer = info->layers - count; layer < info->layers; layer++)
            add_layer(legrad, compute, layer, class_index, text, map);
        scale_to_unit(map, patches);
        return;
    }
    const size_t first = explain->layer == VIT_ALL ? 0 : (size_t)explain->layer;
    const size_t count = explain->layer == VIT_ALL ? info->layers : 1;
    memset(map, 0, count * patches * sizeof *map);
    for (size_t i = 0; i < count; i++)
        add_layer(legrad, compute, first + i, class_index, text, map + i * patches);
}
