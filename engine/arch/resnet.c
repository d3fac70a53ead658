/*
 * resnet.c - the forward pass of ResNetV2 (arXiv 1603.05027) with group normalisation, and its row as a classifier (BiT,
 * timm's resnetv2_*_bit).
 *
 *     map = pool(conv7x7 / 2 (picture))
 *     BIT:    p = relu(norm1(map));  map = shortcut(p or map) + conv3(relu(norm3(conv2(relu(norm2(conv1(p)))))))
 *     HYBRID: map = relu(shortcut(map) + norm3(conv3(relu(norm2(conv2(relu(norm1(conv1(map))))))))
 *     logits = head(mean(relu(norm(map))))
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/resnet_network.h"
#include "engine/base/error.h"
#include "engine/store/json.h"

enum { MAPS = 4 };

/* Working memory: maps that change roles from block to block, and scratch. */
struct resnet_memory {
    float *maps[MAPS];
    float *columns;
};

static size_t lay_out(const struct resnet *resnet, float *memory, struct resnet_memory *parts)
{
    const size_t map = resnet->map_floats;
    const size_t sizes[MAPS + 1] = {map, map, map, map, 3 * resnet->most_channels};
    size_t at[MAPS + 1];
    const size_t floats = parts_lay_out(at, sizes, MAPS + 1);
    if (memory != NULL)
        *parts = (struct resnet_memory){.maps = {memory + at[0], memory + at[1], memory + at[2], memory + at[3]},
                                        .columns = memory + at[4]};
    return floats;
}

size_t resnet_stride(const struct resnet *resnet)
{
    size_t stride = resnet->stem.sliding.stride * resnet->pool.stride;
    for (size_t i = 0; i < resnet->count; i++)
        stride *= resnet->blocks[i].conv2.sliding.stride;
    return stride;
}

size_t resnet_floats(const struct resnet *resnet)
{
    return lay_out(resnet, NULL, NULL);
}

static void normalise(const struct norm *norm, const struct compute *compute, const struct resnet_memory *memory,
                      float *map, const struct conv *conv, bool output, float floor)
{
    const struct sliding *s = &conv->sliding;
    group_norm(norm, compute, memory->columns, map, output ? sliding_positions(s) : s->height * s->width,
               output ? conv->out : conv->in, floor);
}

/* maps[0] to maps[0] */
static void run_preactivated(const struct bottleneck *block, const struct compute *compute, struct resnet_memory *memory)
{
    float *map = memory->maps[0], *activated = memory->maps[1], *hidden = memory->maps[2], *other = memory->maps[3];
    const struct sliding *in = &block->conv1.sliding;
    memcpy(activated, map, in->height * in->width * block->conv1.in * sizeof *map);
    normalise(&block->norm1, compute, memory, activated, &block->conv1, false, 0);
    conv_forward(&block->conv1, compute, hidden, activated, false);
    if (block->shortcut.out > 0)
        conv_forward(&block->shortcut, compute, map, activated, false);
    normalise(&block->norm2, compute, memory, hidden, &block->conv2, false, 0);
    conv_forward(&block->conv2, compute, other, hidden, false);
    normalise(&block->norm3, compute, memory, other, &block->conv3, false, 0);
    conv_forward(&block->conv3, compute, map, other, true);
}

/* maps[0] to maps[0], with the maps exchanged where the shortcut needs a map of its own */
static void run_postactivated(const struct bottleneck *block, const struct compute *compute, struct resnet_memory *memory)
{
    float *map = memory->maps[0], *hidden = memory->maps[1], *other = memory->maps[2], *shortcut = memory->maps[3];
    const size_t floats = sliding_positions(&block->conv3.sliding) * block->conv3.out;
    conv_forward(&block->conv1, compute, hidden, map, false);
    normalise(&block->norm1, compute, memory, hidden, &block->conv1, true, 0);
    conv_forward(&block->conv2, compute, other, hidden, false);
    normalise(&block->norm2, compute, memory, other, &block->conv2, true, 0);
    conv_forward(&block->conv3, compute, hidden, other, false);
    normalise(&block->norm3, compute, memory, hidden, &block->conv3, true, -INFINITY);
    if (block->shortcut.out > 0) {
        conv_forward(&block->shortcut, compute, shortcut, map, false);
        normalise(&block->shortcut_norm, compute, memory, shortcut, &block->shortcut, true, -INFINITY);
        memory->maps[0] = shortcut;
        memory->maps[3] = map;
    }
    compute->kernels->add(memory->maps[0], hidden, 0, floats);
}

float *resnet_forward(const struct resnet *resnet, const struct compute *compute, float *memory, const float *pixels)
{
    struct resnet_memory parts;
    lay_out(resnet, memory, &parts);
    const bool hybrid = resnet->kind == RESNET_HYBRID;
    pixels_to_map(parts.maps[0], pixels, resnet->image_height, resnet->image_width);
    conv_forward(&resnet->stem, compute, parts.maps[1], parts.maps[0], false);
    if (hybrid)
        normalise(&resnet->stem_norm, compute, &parts, parts.maps[1], &resnet->stem, true, 0);
    /* BiT pads with zeros before it pools */
    max_pool(parts.maps[0], parts.maps[1], &resnet->pool, compute, resnet->stem.out, hybrid ? -INFINITY : 0);
    for (size_t i = 0; i < resnet->count; i++)
        (hybrid ? run_postactivated : run_preactivated)(&resnet->blocks[i], compute, &parts);
    return parts.maps[0];
}

/* ---- the classifier ---- */

struct bit {
    struct resnet resnet;
    struct norm norm;
    struct linear head;
    vit_layer_info *layer_info; /* [blocks] */
};

static void release(void *state)
{
    struct bit *bit = state;
    if (bit == NULL)
        return;
    resnet_free(&bit->resnet);
    free(bit->layer_info);
    free(bit);
}

static size_t memory(const void *state, size_t batch)
{
    const struct bit *bit = state;
    (void)batch; /* image by image */
    return resnet_floats(&bit->resnet);
}

static void forward(const void *state, const struct compute *compute, float *floats, const struct arch_image *images,
                    size_t count)
{
    const struct bit *bit = state;
    const struct resnet *resnet = &bit->resnet;
    const size_t rows = resnet->out_height * resnet->out_width, channels = resnet->channels;
    struct resnet_memory parts = {0};
    lay_out(resnet, floats, &parts);
    float *columns = parts.columns;
    for (size_t i = 0; i < count; i++) {
        float *map = resnet_forward(resnet, compute, floats, images[i].pixels);
        group_norm(&bit->norm, compute, columns, map, rows, channels, 0);
        mean_rows(columns, map, rows, channels);
        linear_forward(&bit->head, compute, images[i].logits, columns, channels, 1);
        if (images[i].features != NULL)
            memcpy(images[i].features, columns, channels * sizeof *columns);
    }
}

static vit_status describe(struct bit *bit, vit_model_info *info, vit_error *err)
{
    const struct resnet *resnet = &bit->resnet;
    bit->layer_info = calloc(resnet->count + 1, sizeof *bit->layer_info);
    if (bit->layer_info == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for %zu layers", resnet->count);
    for (size_t i = 0; i < resnet->count; i++) {
        const struct conv *last = &resnet->blocks[i].conv3;
        bit->layer_info[i] = (vit_layer_info){.width = last->out, .grid_height = last->sliding.out_height,
                                              .grid_width = last->sliding.out_width};
    }
    info->pooling = "avg";
    info->activation = "relu";
    info->image_height = resnet->image_height;
    info->image_width = resnet->image_width;
    info->grid_height = resnet->out_height;
    info->grid_width = resnet->out_width;
    info->patch_size = resnet_stride(resnet);
    info->tokens = resnet->out_height * resnet->out_width;
    info->layers = resnet->count;
    info->layer_info = bit->layer_info;
    info->width = info->embedding_width = resnet->channels;
    info->classes = bit->head.out;
    return VIT_OK;
}

static vit_status load_parts(struct bit *bit, const struct folder *folder, vit_error *err)
{
    static const char *const known[] = {"in_chans", "num_classes", "drop_rate", "drop_path_rate", "img_size", "global_pool"};
    struct loader loader = {.folder = folder, .err = err, .eps = 1e-5f};
    size_t height = folder->image_size, width = folder->image_size;
    vit_status status = load_check_model_args(&loader, "resnetv2", known, sizeof known / sizeof known[0]);
    const char *pool = "avg";
    if (status == VIT_OK)
        status = load_global_pool(&loader, &pool);
    if (status == VIT_OK && strcmp(pool, "avg") != 0)
        return load_refuse_pool(&loader, pool, "avg");
    if (status == VIT_OK && folder->image_size == 0)
        status = load_image_size(&loader, &height, &width);
    if (status == VIT_OK)
        status = resnet_load(&bit->resnet, &loader, "", RESNET_BIT, height, width);
    if (status == VIT_OK && bit->resnet.count == 0)
        status = vit_error_set(err, VIT_ERR_FORMAT, "tensor 'stages.0.blocks.0.conv1.weight' is missing");
    if (status == VIT_OK)
        status = load_norm(&loader, &bit->norm, "norm", bit->resnet.channels);
    if (status == VIT_OK)
        status = load_head(&loader, &bit->head, "head.fc", bit->resnet.channels);
    return status;
}

static vit_status load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    struct bit *bit = calloc(1, sizeof *bit);
    if (bit == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the model");
    vit_status status = load_parts(bit, folder, err);
    if (status == VIT_OK)
        status = weights_finish(folder->weights, "resnetv2", NULL, 0, err);
    if (status == VIT_OK)
        status = describe(bit, info, err);
    if (status != VIT_OK) {
        release(bit);
        return status;
    }
    *state = bit;
    return VIT_OK;
}

static bool recognise(const struct folder *folder)
{
    return folder->layout == LAYOUT_TIMM && strncmp(folder->name, "resnetv2_", 9) == 0 &&
           strstr(folder->name, "_bit") != NULL; /* older names go on: _bitm, _bit_distilled */
}

const struct arch arch_resnet = {
    .name = "resnetv2",
    .runs = {[LAYOUT_TIMM] = "resnetv2_*_bit*"},
    .recognise = recognise,
    .load = load,
    .free = release,
    .memory = memory,
    .forward = forward,
};
