#include "server/draw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Small models see small pictures: they are enlarged until the shorter side has so many pixels. */
enum { SMALLEST_SIDE = 224 };

static vit_status out_of_memory(vit_error *err)
{
    snprintf(err->message, sizeof err->message, "out of memory");
    return VIT_ERR_NO_MEMORY;
}

/* Encodes and releases the picture, if the status is still good. */
static vit_status encode(vit_status status, vit_image *picture, struct drawing *drawing, vit_error *err)
{
    if (status == VIT_OK)
        status = vit_png_encode(&drawing->png, &drawing->length, picture, err);
    vit_image_release(picture);
    return status;
}

/* ---- heatmaps ---- */

/* The picture under the maps and the part of it that they cover. */
static vit_status open_picture(const struct explained *e, vit_image *picture, vit_region *region, size_t *scale,
                               vit_error *err)
{
    const vit_model_info *info = vit_model_describe(e->model);
    const size_t side = info->image_width < info->image_height ? info->image_width : info->image_height;
    if (e->choices->original_size) {
        *scale = 1;
        vit_status status = vit_image_decode(picture, e->encoded, e->encoded_length, e->max_pixels, err);
        return status == VIT_OK
                   ? vit_preprocess_region(info->preprocess, picture->width, picture->height, region, err)
                   : status;
    }
    *scale = side < SMALLEST_SIDE ? (SMALLEST_SIDE + side - 1) / side : 1;
    *region = (vit_region){0, 0, (double)info->image_width, (double)info->image_height};
    return vit_preprocess_undo(info->preprocess, e->pixels, picture, err);
}

/* What tells this map from the others of the picture. */
static char *make_label(const struct explained *e, const vit_map_shape *shape, size_t i)
{
    const vit_explain *explain = &e->choices->explain;
    const size_t head = i % shape->heads, layer = i / shape->heads % shape->layers,
                 target = i / (shape->heads * shape->layers);
    char layer_text[32] = "", head_text[32] = "", *label;
    const char *class = "";
    if (shape->targets > 1)
        class = e->target_texts ? e->target_texts[target] : vit_model_label(e->model, explain->targets[target]);
    if (shape->layers > 1)
        snprintf(layer_text, sizeof layer_text, "%slayer %zu", *class ? ", " : "", layer);
    if (shape->heads > 1)
        snprintf(head_text, sizeof head_text, "%shead %zu", *layer_text ? ", " : "", head);
    /* of ImageNet's "tabby, tabby cat" the first name, since tiles are narrow */
    const int class_length = (int)strcspn(class, ",");
    return asprintf(&label, "%.*s%s%s", class_length, class, layer_text, head_text) < 0 ? NULL : label;
}

static vit_status draw_maps(vit_image *out, const struct explained *e, const vit_map_shape *shape, vit_map *maps,
                            vit_error *err)
{
    const size_t count = shape->targets * shape->layers * shape->heads;
    vit_image picture = {0};
    vit_heatmap heatmap = {
        .picture = &picture,
        .grid_height = shape->grid_height,
        .grid_width = shape->grid_width,
        .maps = maps,
        .count = count,
        .columns = shape->heads > 1 && shape->layers > 1     ? shape->heads
                   : shape->layers > 1 && shape->targets > 1 ? shape->layers
                                                             : 0,
        .max_pixels = e->max_pixels,
        .colormap = e->choices->colormap,
        .alpha = e->choices->alpha,
        .overlay = e->choices->overlay,
    };
    vit_status status = open_picture(e, &picture, &heatmap.region, &heatmap.scale, err);
    if (status == VIT_OK)
        status = vit_heatmap_draw(out, &heatmap, err);
    vit_image_release(&picture);
    return status;
}

vit_status draw_explanation(struct drawing *drawing, const struct explained *explained, vit_error *err)
{
    vit_map_shape shape;
    vit_status status = vit_explain_shape(explained->model, &explained->choices->explain, &shape, err);
    if (status != VIT_OK)
        return status;
    const size_t count = shape.targets * shape.layers * shape.heads;
    char **labels = calloc(count, sizeof *labels);
    vit_map *maps = calloc(count, sizeof *maps);
    bool good = labels != NULL && maps != NULL;
    for (size_t i = 0; good && i < count; i++) {
        if (count > 1)
            good = (labels[i] = make_label(explained, &shape, i)) != NULL;
        maps[i] = (vit_map){.values = explained->map + i * shape.grid_height * shape.grid_width, .label = labels[i]};
    }
    vit_image out = {0};
    status = good ? draw_maps(&out, explained, &shape, maps, err) : out_of_memory(err);
    for (size_t i = 0; labels != NULL && i < count; i++)
        free(labels[i]);
    free(labels);
    free(maps);
    return encode(status, &out, drawing, err);
}

/* ---- the inside of the model ---- */

vit_status draw_filters(struct drawing *drawing, const vit_model *model, vit_error *err)
{
    const size_t patch = vit_model_describe(model)->patch_size;
    float *components = calloc(VIT_FILTERS * 3 * patch * patch, sizeof *components), variances[VIT_FILTERS];
    size_t count;
    vit_image out = {0};
    vit_status status = components != NULL ? vit_model_filters(model, components, variances, &count, err)
                                           : out_of_memory(err);
    if (status == VIT_OK)
        status = vit_filters_draw(&out, components, count, patch, err);
    free(components);
    return encode(status, &out, drawing, err);
}

vit_status draw_positions(struct drawing *drawing, const vit_model *model, vit_error *err)
{
    const vit_model_info *info = vit_model_describe(model);
    const size_t patches = info->grid_height * info->grid_width;
    float *similarity = calloc(patches * patches, sizeof *similarity);
    vit_image out = {0};
    vit_status status =
        similarity != NULL ? vit_model_positions(model, similarity, err) : out_of_memory(err);
    if (status == VIT_OK)
        status = vit_positions_draw(&out, similarity, info->grid_height, info->grid_width, VIT_COLORMAP_VIRIDIS, err);
    free(similarity);
    return encode(status, &out, drawing, err);
}

vit_status draw_distances(struct drawing *drawing, const vit_model *model, const float *distances, vit_error *err)
{
    const vit_model_info *info = vit_model_describe(model);
    vit_image out = {0};
    vit_status status = vit_distances_draw(&out, distances, info->layers, info->heads, err);
    return encode(status, &out, drawing, err);
}
