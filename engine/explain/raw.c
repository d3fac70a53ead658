/* raw.c - attention as it is, at chosen layers and heads: the class token's row over the patches, else the mean row. */
#include <string.h>

#include "engine/explain/explain.h"

static size_t count_of(int chosen, size_t all)
{
    return chosen == VIT_ALL ? all : 1;
}

/* map [patches] += weight * row [keys] without what is no patch */
static void add_row(float *map, const float *row, float weight, const struct attention_view *view)
{
    if (view->places == NULL) {
        for (size_t key = view->prefix; key < view->keys; key++)
            map[key - view->prefix] += weight * row[key];
        return;
    }
    for (size_t key = 0; key < view->keys; key++)
        if (view->places[key] >= 0)
            map[view->places[key]] += weight * row[key];
}

/* The queries of a view's matrix that stand for a token. */
static size_t count_queries(const struct attention_view *view)
{
    size_t count = view->places == NULL ? view->queries : 0;
    for (size_t i = 0; view->places != NULL && i < view->queries; i++)
        count += view->places[i] >= 0;
    return count;
}

static void observe(void *context, const struct attention_view *view)
{
    const struct raw_map *raw = context;
    const vit_explain *explain = raw->explain;
    const vit_model_info *info = raw->info;
    const size_t wanted = explain->layer == VIT_LAYER_DEFAULT ? info->layers - 1 : (size_t)explain->layer;
    if (explain->layer != VIT_ALL && view->layer != wanted)
        return;
    if (explain->head >= 0 && view->head != (size_t)explain->head)
        return;

    const vit_layer_info *layer = &info->layer_info[view->layer];
    const size_t map_layer = explain->layer == VIT_ALL ? view->layer : 0;
    const size_t map_head = explain->head == VIT_ALL ? view->head : 0;
    float *map = raw->map + (map_layer * count_of(explain->head, layer->heads) + map_head) * layer->grid_height *
                                layer->grid_width;
    float weight = explain->head == VIT_HEAD_MEAN ? 1.0f / (float)layer->heads : 1.0f;
    if (info->class_token) {
        if (view->first == 0)
            add_row(map, view->matrix, weight, view);
        return;
    }
    weight /= (float)count_queries(view);
    for (size_t i = 0; i < view->rows; i++)
        if (view->places == NULL || view->places[view->first + i] >= 0)
            add_row(map, view->matrix + i * view->keys, weight, view);
}

struct observer raw_observer(struct raw_map *raw)
{
    vit_map_shape shape;
    explain_shape(raw->info, raw->explain, &shape, NULL);
    memset(raw->map, 0, shape.floats * sizeof *raw->map);
    return (struct observer){.attention = observe, .first_query_only = raw->info->class_token, .context = raw};
}
