/*
 * vit.c - ViT (arXiv 2010.11929) and DeiT (arXiv 2012.12877), as transformers and timm write them.
 *
 *     tokens = [class, distillation, patches W_e + b_e] + positions
 *     tokens = block(tokens)                                        L times
 *     token pooling:        features = norm(tokens)[class]
 *     token + distillation: the mean of both tokens' heads, (head(class) + head_dist(distillation)) / 2
 *     average pooling:      features = fc_norm(mean(patches)), or mean(norm(tokens)) over patches without fc_norm
 *     logits = head(features)
 */
#include <string.h>

#include "engine/arch/vit_network.h"

/* The memory of a run: the batch's tokens, then one image's scratch. */
struct layout_in_memory {
    float *tokens; /* [B, T, C] */
    struct block_scratch scratch; /* hidden also holds an image's patches, and a second head's logits */
    size_t floats; /* all together */
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static struct layout_in_memory lay_out(const struct vit *vit, float *memory, size_t batch)
{
    const size_t width = vit->width, patches = vit->grid_height * vit->grid_width * vit->patches.in;
    const size_t hidden = larger(larger(vit->tokens * vit->mlp_width, patches), vit->classes);
    const size_t sizes[] = {batch * vit->tokens * width, vit->tokens * width, vit->tokens * 3 * width,
                            vit->tokens * vit->tokens, hidden};
    size_t starts[sizeof sizes / sizeof sizes[0]], next = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        starts[i] = next;
        next += (sizes[i] + 15) / 16 * 16;
    }
    struct layout_in_memory layout = {.floats = next};
    if (memory != NULL) {
        layout.tokens = memory + starts[0];
        layout.scratch = (struct block_scratch){.normed = memory + starts[1], .qkv = memory + starts[2],
                                                .probabilities = memory + starts[3], .hidden = memory + starts[4]};
    }
    return layout;
}

static size_t memory(const void *state, size_t batch)
{
    return lay_out(state, NULL, batch).floats;
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* tokens [T, C] = [class, distillation, patches] + positions */
static void embed(const struct vit *vit, const struct compute *compute, float *patches, float *tokens,
                  const float *pixels)
{
    const size_t width = vit->width;
    float *next = tokens;
    if (vit->class_token != NULL) {
        memcpy(next, vit->class_token, width * sizeof *next);
        next += width;
    }
    if (vit->distillation_token != NULL) {
        memcpy(next, vit->distillation_token, width * sizeof *next);
        next += width;
    }
    patches_unfold(patches, pixels, vit->image_height, vit->image_width, vit->patch);
    linear_forward(&vit->patches, compute, next, patches, vit->patches.in, vit->grid_height * vit->grid_width);
    add(tokens, vit->positions, vit->tokens * width);
}

static void normalise(const struct vit *vit, const struct compute *compute, float *y, const float *x, size_t rows)
{
    compute->kernels->layernorm(y, x, vit->norm.weight, vit->norm.bias, vit->norm.eps, rows, vit->width);
}

/* pooled [C] (and, with distillation, a second row) from the last block's tokens [T, C], which are overwritten. */
static void pool(const struct vit *vit, const struct compute *compute, float *pooled, float *tokens)
{
    float *patches = tokens + vit->prefix * vit->width;
    const size_t count = vit->tokens - vit->prefix;
    if (vit->pooling != POOL_AVERAGE) {
        normalise(vit, compute, pooled, tokens, vit->pooling == POOL_DISTILLED ? 2 : 1);
    } else if (vit->norm_first) {
        normalise(vit, compute, patches, patches, count);
        mean_rows(pooled, patches, count, vit->width);
    } else {
        mean_rows(pooled, patches, count, vit->width);
        normalise(vit, compute, pooled, pooled, 1);
    }
}

/* (a + b) / 2 into a */
static void halve_sum(float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        a[i] = (a[i] + b[i]) / 2;
}

static void classify(const struct vit *vit, const struct compute *compute, const struct block_scratch *scratch,
                     float *tokens, const struct arch_image *image)
{
    float *pooled = scratch->normed, *second = pooled + vit->width;
    pool(vit, compute, pooled, tokens);
    linear_forward(&vit->head, compute, image->logits, pooled, vit->width, 1);
    if (vit->pooling == POOL_DISTILLED) {
        float *logits = scratch->hidden;
        linear_forward(&vit->head_distilled, compute, logits, second, vit->width, 1);
        halve_sum(image->logits, logits, vit->classes);
        halve_sum(pooled, second, vit->width);
    }
    if (image->features != NULL)
        memcpy(image->features, pooled, vit->width * sizeof *pooled);
}

/* Layer by layer, and in each layer image by image: the layer's weights are used while they are in cache. */
static void forward(const void *state, const struct compute *compute, float *arena, const struct arch_image *images,
                    size_t count)
{
    const struct vit *vit = state;
    const struct layout_in_memory layout = lay_out(vit, arena, count);
    const size_t image_floats = vit->tokens * vit->width;

    for (size_t i = 0; i < count; i++)
        embed(vit, compute, layout.scratch.hidden, layout.tokens + i * image_floats, images[i].pixels);
    for (size_t layer = 0; layer < vit->layers; layer++)
        for (size_t i = 0; i < count; i++)
            block_forward(&vit->blocks[layer], compute, &layout.scratch, layout.tokens + i * image_floats, vit->tokens,
                          layer, images[i].observer);
    for (size_t i = 0; i < count; i++)
        classify(vit, compute, &layout.scratch, layout.tokens + i * image_floats, &images[i]);
}

static const struct block *blocks(const void *state)
{
    return ((const struct vit *)state)->blocks;
}

static void score_gradient(const void *state, const struct compute *compute, float *gradient, const float *mean,
                           size_t class_index)
{
    const struct vit *vit = state;
    memcpy(gradient, vit->head.weight + class_index * vit->width, vit->width * sizeof *gradient);
    if (vit->pooling == POOL_DISTILLED)
        halve_sum(gradient, vit->head_distilled.weight + class_index * vit->width, vit->width);
    compute->kernels->layernorm_gradient(gradient, mean, vit->norm.weight, vit->norm.eps, 1, vit->width);
}

static struct arch_inside inside(const void *state)
{
    const struct vit *vit = state;
    return (struct arch_inside){.filters = vit->patches.weight, .filter_count = vit->width,
                                .positions = vit->positions + vit->prefix * vit->width};
}

const struct arch arch_vit = {
    .name = "vit",
    .runs = "transformers vit and deit, timm vit_* and deit_*",
    .recognise = vit_recognise,
    .load = vit_load,
    .free = vit_release,
    .memory = memory,
    .forward = forward,
    .blocks = blocks,
    .score_gradient = score_gradient,
    .inside = inside,
};
