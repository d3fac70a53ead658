/* distance.c - the mean attention distance of every head (arXiv 2010.11929, figure 7, right). */
#include <math.h>
#include <string.h>

#include "engine/explain/explain.h"

/* The mean distance, in patches, from query patch (y, x) to where its row attends; row [gh, gw]. */
static float distance_of(const float *row, const float *table, size_t y, size_t x, size_t height, size_t width)
{
    float sum = 0, weighted = 0;
    for (size_t key_y = 0; key_y < height; key_y++, row += width) {
        const float *distances = table + (key_y > y ? key_y - y : y - key_y) * (2 * width - 1) + width - 1 - x;
        for (size_t key_x = 0; key_x < width; key_x++) {
            sum += row[key_x];
            weighted += row[key_x] * distances[key_x];
        }
    }
    return sum > 0 ? weighted / sum : 0;
}

static void observe(void *context, const struct attention_view *view)
{
    const struct distance_map *map = context;
    const vit_model_info *info = map->info;
    const size_t patches = info->grid_height * info->grid_width;
    double sum = 0;
    for (size_t i = 0; i < view->rows; i++) {
        if (view->first + i < view->prefix)
            continue;
        const size_t patch = view->first + i - view->prefix;
        sum += distance_of(view->matrix + i * view->keys + view->prefix, map->table, patch / info->grid_width,
                           patch % info->grid_width, info->grid_height, info->grid_width);
    }
    map->distances[view->layer * info->heads + view->head] += (float)(sum * (double)info->patch_size / (double)patches);
}

struct observer distance_observer(struct distance_map *map)
{
    const size_t height = map->info->grid_height, width = map->info->grid_width;
    memset(map->distances, 0, map->info->layers * map->info->heads * sizeof *map->distances);
    for (size_t dy = 0; dy < height; dy++)
        for (size_t i = 0; i < 2 * width - 1; i++)
            map->table[dy * (2 * width - 1) + i] = hypotf((float)dy, (float)i - (float)(width - 1));
    return (struct observer){.attention = observe, .context = map};
}
