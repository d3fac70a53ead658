/*
 * swin.c - the forward pass of Swin (arXiv 2103.14030), transformers' and timm's:
 *
 *     x = norm(patches W + b) (+ positions)
 *     for each stage:  x = merge(x)                 but for the first
 *                      x = block(x)                 attention in windows, in odd blocks in shifted ones
 *     logits = head(mean(norm(x)))
 *
 * Image by image. Blocks are the plain encoder's (layers/block.c); their attention gathers windows from x and puts the
 * results back, so that x stays in the order of the grid throughout.
 */
#include <string.h>

#include "engine/arch/swin_network.h"
#include "engine/base/size.h"

/* Working memory for one image, sized for the stage that needs the most of each. */
struct swin_memory {
    float *tokens; /* [T, C] */
    float *merged; /* [T/4, 4*C]; at first the picture [H*W, 3] */
    struct block_scratch scratch;
};

static size_t tokens_of(const struct swin_stage *stage)
{
    return stage->grid_height * stage->grid_width;
}

static size_t lay_out(const struct swin *swin, float *memory, struct swin_memory *parts)
{
    size_t sizes[6] = {0, 3 * swin->image_height * swin->image_width, 0, 0, 0, 0};
    for (size_t i = 0; i < swin->stage_count; i++) {
        const struct swin_stage *stage = &swin->stages[i];
        const size_t tokens = tokens_of(stage), width = stage->width;
        sizes[0] = size_larger(sizes[0], tokens * width);
        sizes[1] = size_larger(sizes[1], tokens * stage->merge_reduction.in);
        sizes[2] = size_larger(sizes[2], tokens * width);
        sizes[3] = size_larger(sizes[3], tokens * 3 * width);
        for (size_t j = 0; j < stage->depth; j++) {
            sizes[4] = size_larger(sizes[4], attention_floats(&stage->blocks[j].attention, tokens, width));
            sizes[5] = size_larger(sizes[5], tokens * stage->blocks[j].mlp.fc1.out);
        }
    }
    size_t starts[6];
    const size_t floats = parts_lay_out(starts, sizes, 6);
    if (memory != NULL)
        *parts = (struct swin_memory){.tokens = memory + starts[0], .merged = memory + starts[1],
                                      .scratch = {.normed = memory + starts[2], .qkv = memory + starts[3],
                                                  .attention = memory + starts[4], .hidden = memory + starts[5]}};
    return floats;
}

static size_t memory(const void *state, size_t batch)
{
    (void)batch; /* image by image */
    return lay_out(state, NULL, NULL);
}

static void embed(const struct swin *swin, const struct compute *compute, const struct swin_memory *memory,
                  const float *pixels)
{
    const struct swin_stage *first = &swin->stages[0];
    pixels_to_map(memory->merged, pixels, swin->image_height, swin->image_width);
    conv_forward(&swin->patches, compute, memory->tokens, memory->merged, false);
    norm_forward(&swin->patch_norm, compute, memory->tokens, memory->tokens, tokens_of(first), first->width);
    if (swin->positions != NULL)
        compute->kernels->add_bias(memory->tokens, swin->positions, 1, tokens_of(first) * first->width);
}

/* merged [gh*gw, 4*C] of a grid half as high and wide: top left, bottom left, top right, bottom right; zeros beyond an
 * odd grid's end. */
static void gather_squares(float *merged, const float *tokens, const struct swin_stage *from, const struct swin_stage *to)
{
    const size_t width = from->width;
    for (size_t i = 0; i < tokens_of(to); i++)
        for (size_t corner = 0; corner < 4; corner++, merged += width) {
            const size_t y = 2 * (i / to->grid_width) + corner % 2, x = 2 * (i % to->grid_width) + corner / 2;
            if (y < from->grid_height && x < from->grid_width)
                memcpy(merged, tokens + (y * from->grid_width + x) * width, width * sizeof *merged);
            else
                memset(merged, 0, width * sizeof *merged);
        }
}

static void merge(const struct swin_stage *from, const struct swin_stage *to, const struct compute *compute,
                  const struct swin_memory *memory)
{
    gather_squares(memory->merged, memory->tokens, from, to);
    norm_forward(&to->merge_norm, compute, memory->merged, memory->merged, tokens_of(to), to->merge_reduction.in);
    linear_forward(&to->merge_reduction, compute, memory->tokens, memory->merged, to->merge_reduction.in, tokens_of(to));
}

static void forward_image(const struct swin *swin, const struct compute *compute, const struct swin_memory *memory,
                          const struct arch_image *image)
{
    const struct swin_stage *last = &swin->stages[swin->stage_count - 1];
    float *pooled = memory->scratch.normed;
    size_t layer = 0;
    embed(swin, compute, memory, image->pixels);
    for (size_t i = 0; i < swin->stage_count; i++) {
        const struct swin_stage *stage = &swin->stages[i];
        if (i > 0)
            merge(stage - 1, stage, compute, memory);
        for (size_t j = 0; j < stage->depth; j++)
            block_forward(&stage->blocks[j], compute, &memory->scratch, memory->tokens, tokens_of(stage),
                          tokens_of(stage), layer++, image->observer);
    }
    norm_forward(&swin->norm, compute, memory->tokens, memory->tokens, tokens_of(last), last->width);
    mean_rows(pooled, memory->tokens, tokens_of(last), last->width);
    linear_forward(&swin->head, compute, image->logits, pooled, last->width, 1);
    if (image->features != NULL)
        memcpy(image->features, pooled, last->width * sizeof *pooled);
}

static void forward(const void *state, const struct compute *compute, float *floats, const struct arch_image *images,
                    size_t count)
{
    struct swin_memory parts;
    lay_out(state, floats, &parts);
    for (size_t i = 0; i < count; i++)
        forward_image(state, compute, &parts, &images[i]);
}

static bool recognise(const struct folder *folder)
{
    return folder->layout == LAYOUT_TRANSFORMERS ? strcmp(folder->name, "swin") == 0
                                                 : strncmp(folder->name, "swin_", 5) == 0;
}

const struct arch arch_swin = {
    .name = "swin",
    .runs = {[LAYOUT_TRANSFORMERS] = "swin", [LAYOUT_TIMM] = "swin_*"},
    .recognise = recognise,
    .load = swin_load,
    .free = swin_release,
    .memory = memory,
    .forward = forward,
};
