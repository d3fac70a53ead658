#include "server/stages.h"

static bool alike(const vit_layer_info *a, const vit_layer_info *b)
{
    return a->width == b->width && a->heads == b->heads && a->grid_height == b->grid_height &&
           a->grid_width == b->grid_width;
}

size_t stage_length(const vit_model_info *info, size_t first)
{
    size_t end = first + 1;
    while (end < info->layers && alike(&info->layer_info[first], &info->layer_info[end]))
        end++;
    return end - first;
}
