/*
 * vit.c - the forward pass of the plain encoder: ViT (arXiv 2010.11929), DeiT (arXiv 2012.12877), DINOv2
 * (arXiv 2304.07193), and what the hybrids, T2T-ViT and DeepViT build on it.
 *
 *     tokens = [class, distillation, registers, stem(pixels)] + positions
 *     tokens = norm_pre(tokens)                                     where there is one
 *     tokens = block(tokens)                                        L times
 *     token pooling:        features = norm(tokens)[class]
 *     token + distillation: the mean of both tokens' heads, (head(class) + head_dist(distillation)) / 2
 *     average pooling:      features = fc_norm(mean(patches)), or mean(norm(patches)) without fc_norm
 *     token + average:      features = [norm(tokens)[class], mean(norm(patches))]
 *     logits = head(features)
 *     CLIP (arXiv 2103.00020):  features = head(norm(tokens)[class]) at unit length, and no logits
 *
 * Where the head sees nothing but the first tokens, the last block computes nothing but those: keys and values of all
 * tokens, queries and all that follows of the few.
 */
#include <math.h>
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/size.h"

/* The memory of a run: the batch's tokens, then one image's scratch, where the stem works before the blocks do. */
struct layout_in_memory {
    float *tokens; /* [B, T, C] */
    float *watched; /* [T, C]: an observed image's, in the last block */
    float *stem;
    struct block_scratch scratch; /* hidden also holds a second head's logits */
    size_t floats; /* all together */
};

static struct layout_in_memory lay_out(const struct vit *vit, float *memory, size_t batch)
{
    const struct block *block = &vit->blocks[0];
    size_t attention = 0;
    for (size_t i = 0; i < vit->layers; i++)
        attention = size_larger(attention, attention_floats(&vit->blocks[i].attention, vit->tokens, vit->width));
    const size_t sizes[] = {batch * vit->tokens * vit->width, vit->tokens * vit->width, vit->tokens * 3 * vit->width,
                            attention, size_larger(vit->tokens * block->mlp.fc1.out, vit->classes),
                            vit->tokens * vit->width};
    size_t starts[sizeof sizes / sizeof sizes[0]];
    const size_t blocks = parts_lay_out(starts, sizes, sizeof sizes / sizeof sizes[0]);
    struct layout_in_memory layout = {.floats = size_larger(blocks, starts[1] + vit->stem.memory(vit->stem.state))};
    if (memory != NULL) {
        layout.tokens = memory + starts[0];
        layout.stem = memory + starts[1];
        layout.watched = memory + starts[5];
        layout.scratch = (struct block_scratch){.normed = memory + starts[1], .qkv = memory + starts[2],
                                                .attention = memory + starts[3], .hidden = memory + starts[4]};
    }
    return layout;
}

size_t vit_memory(const void *state, size_t batch)
{
    return lay_out(state, NULL, batch).floats;
}

/* tokens [T, C] */
static void embed(const struct vit *vit, const struct compute *compute, float *memory, float *tokens,
                  const float *pixels)
{
    const size_t prefix = vit->prefix * vit->width;
    memcpy(tokens, vit->prefix_tokens, prefix * sizeof *tokens);
    vit->stem.forward(vit->stem.state, compute, memory, tokens + prefix, pixels);
    if (vit->positions != NULL)
        compute->kernels->add(tokens + prefix, vit->positions, -INFINITY, vit->tokens * vit->width - prefix);
    if (vit->norm_pre.weight != NULL)
        norm_forward(&vit->norm_pre, compute, tokens, tokens, vit->tokens, vit->width);
}

/* pooled [features] (with distillation two rows) from the last block's tokens [T, C], which are overwritten. */
static void pool(const struct vit *vit, const struct compute *compute, float *pooled, float *tokens)
{
    const size_t width = vit->width, count = vit->tokens - vit->prefix;
    float *patches = tokens + vit->prefix * width;
    if (vit->pooling == POOL_TOKEN || vit->pooling == POOL_TOKEN_AND_AVERAGE)
        norm_forward(&vit->norm, compute, pooled, tokens, 1, width);
    if (vit->pooling == POOL_DISTILLED)
        norm_forward(&vit->norm, compute, pooled, tokens, 2, width);
    if (vit->pooling == POOL_TOKEN_AND_AVERAGE || (vit->pooling == POOL_AVERAGE && vit->norm_first)) {
        norm_forward(&vit->norm, compute, patches, patches, count, width);
        mean_rows(vit->pooling == POOL_AVERAGE ? pooled : pooled + width, patches, count, width);
    } else if (vit->pooling == POOL_AVERAGE) {
        mean_rows(pooled, patches, count, width);
        norm_forward(&vit->norm, compute, pooled, pooled, 1, width);
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
    if (vit->projects) {
        linear_forward(&vit->head, compute, image->features, pooled, vit->head.in, 1);
        unit_length(image->features, image->features, vit->head.out);
        return;
    }
    linear_forward(&vit->head, compute, image->logits, pooled, vit->head.in, 1);
    if (vit->pooling == POOL_DISTILLED) {
        float *logits = scratch->hidden;
        linear_forward(&vit->head_distilled, compute, logits, second, vit->width, 1);
        halve_sum(image->logits, logits, vit->classes);
        halve_sum(pooled, second, vit->width);
    }
    if (image->features != NULL)
        memcpy(image->features, pooled, vit->head.in * sizeof *pooled);
}

/* The tokens that the head sees of the last block's. */
static size_t tokens_wanted(const struct vit *vit)
{
    return vit->pooling == POOL_TOKEN ? 1 : vit->pooling == POOL_DISTILLED ? 2 : vit->tokens;
}

/* Whoever watches more than the first query sees a whole block, on a copy: an image's result does not depend on being
 * watched. */
static void run_last_block(const struct vit *vit, const struct compute *compute, const struct layout_in_memory *layout,
                           float *tokens, const struct observer *observer)
{
    const size_t last = vit->layers - 1, wanted = tokens_wanted(vit);
    const struct block *block = &vit->blocks[last];
    if (wanted < vit->tokens && observer != NULL && !observer->first_query_only) {
        memcpy(layout->watched, tokens, vit->tokens * vit->width * sizeof *tokens);
        block_forward(block, compute, &layout->scratch, layout->watched, vit->tokens, vit->tokens, last, observer);
        observer = NULL;
    }
    block_forward(block, compute, &layout->scratch, tokens, vit->tokens, wanted, last, observer);
}

/* Layer by layer, and in each layer image by image: the layer's weights are used while they are in cache. */
void vit_forward(const void *state, const struct compute *compute, float *memory, const struct arch_image *images,
                 size_t count)
{
    const struct vit *vit = state;
    const struct layout_in_memory layout = lay_out(vit, memory, count);
    const size_t image_floats = vit->tokens * vit->width;

    for (size_t i = 0; i < count; i++)
        embed(vit, compute, layout.stem, layout.tokens + i * image_floats, images[i].pixels);
    for (size_t layer = 0; layer + 1 < vit->layers; layer++)
        for (size_t i = 0; i < count; i++)
            block_forward(&vit->blocks[layer], compute, &layout.scratch, layout.tokens + i * image_floats, vit->tokens,
                          vit->tokens, layer, images[i].observer);
    for (size_t i = 0; i < count; i++)
        run_last_block(vit, compute, &layout, layout.tokens + i * image_floats, images[i].observer);
    for (size_t i = 0; i < count; i++)
        classify(vit, compute, &layout.scratch, layout.tokens + i * image_floats, &images[i]);
}

const struct block *vit_blocks(const void *state)
{
    return ((const struct vit *)state)->blocks;
}

/* gradient [C] of a class's logit with respect to the normed token. Where the head sees two tokens, LeGrad's mean token
 * stands for both. */
static void class_gradient(const struct vit *vit, const struct compute *compute, float *gradient, size_t class_index)
{
    const size_t width = vit->width;
    const float *row = vit->head.weight + class_index * vit->head.in;
    memcpy(gradient, row, width * sizeof *gradient);
    if (vit->pooling == POOL_TOKEN_AND_AVERAGE)
        compute->kernels->add(gradient, row + width, -INFINITY, width);
    if (vit->pooling == POOL_DISTILLED)
        halve_sum(gradient, vit->head_distilled.weight + class_index * width, width);
}

/* gradient [C] of the cosine text [D] . e / |e|, e = head(norm(mean)), with respect to the normed token: with
 * u = e / |e| that is W^T (text - (text . u) u) / |e|. */
static void cosine_gradient(const struct vit *vit, const struct compute *compute, float *memory, float *gradient,
                            const float *mean, const float *text)
{
    const struct linear *head = &vit->head;
    float *normed = memory, *embedding = memory + head->in, cosine = 0;
    norm_forward(&vit->norm, compute, normed, mean, 1, head->in);
    linear_forward(head, compute, embedding, normed, head->in, 1);
    const float length = unit_length(embedding, embedding, head->out);
    for (size_t d = 0; d < head->out; d++)
        cosine += text[d] * embedding[d];
    memset(gradient, 0, head->in * sizeof *gradient);
    for (size_t d = 0; d < head->out; d++) {
        const float share = (text[d] - cosine * embedding[d]) / length, *row = head->weight + d * head->in;
        for (size_t c = 0; c < head->in; c++)
            gradient[c] += share * row[c];
    }
}

void vit_score_gradient(const void *state, const struct compute *compute, float *memory, float *gradient,
                        const float *mean, size_t class_index, const float *text)
{
    const struct vit *vit = state;
    const size_t width = vit->width;
    if (vit->projects)
        cosine_gradient(vit, compute, memory, gradient, mean, text);
    else
        class_gradient(vit, compute, gradient, class_index);
    compute->kernels->layernorm_gradient(gradient, mean, vit->norm.weight, vit->norm.eps, 1, width);
}

struct arch_inside vit_inside(const void *state)
{
    const struct vit *vit = state;
    return (struct arch_inside){.filters = vit->stem.filters, .filter_count = vit->width, .positions = vit->positions};
}
