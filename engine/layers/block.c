/*
 * block.c - the encoder block, one image at a time: the image's activations and the layer's weights stay in cache,
 * and results are bit-identical whatever the batch (see gemm.h and packed.h). Short sequences run together instead: one
 * alone would not pay for reading the weights.
 */
#include <string.h>

#include "engine/layers/layers.h"

static void keep_values(const struct block_tape *tape, const float *qkv, size_t tokens, size_t width)
{
    for (size_t i = 0; i < tokens; i++)
        memcpy(tape->values + i * width, qkv + (3 * i + 2) * width, width * sizeof *qkv);
}

/* From the attention's result in scratch->normed [rows, C] to the block's, x [rows, C]. */
static void finish(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                   float *x, size_t rows, const struct block_tape *tape)
{
    const size_t width = block->proj.in;
    linear_add(&block->proj, compute, x, scratch->normed, rows);
    if (tape != NULL)
        memcpy(tape->residual, x, rows * width * sizeof *x);
    norm_forward(&block->norm2, compute, scratch->normed, x, rows, width);
    mlp_forward(&block->mlp, compute, scratch->hidden, x, scratch->normed, rows, tape != NULL ? tape->hidden : NULL);
    if (tape != NULL)
        mean_rows(tape->mean, x, rows, width);
}

void block_forward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                   float *x, size_t tokens, size_t wanted, size_t layer, const struct observer *observer)
{
    const size_t width = block->proj.in;
    const struct block_tape *tape = observer != NULL && observer->tapes != NULL ? &observer->tapes[layer] : NULL;
    norm_forward(&block->norm1, compute, scratch->normed, x, tokens, width);
    if (wanted == tokens || !linear_divides(&block->qkv, width)) {
        linear_forward(&block->qkv, compute, scratch->qkv, scratch->normed, width, tokens);
    } else {
        linear_part(&block->qkv, compute, scratch->qkv, scratch->normed, wanted, 0, width);
        linear_part(&block->qkv, compute, scratch->qkv, scratch->normed, tokens, width, 2 * width);
    }
    attention_forward(&block->attention, compute, scratch->attention, scratch->normed, scratch->qkv, tokens, wanted, width,
                      layer, observer);
    if (tape != NULL)
        keep_values(tape, scratch->qkv, tokens, width);
    finish(block, compute, scratch, x, wanted, tape);
}

/* x [count, C] = the last row of each sequence in x [T, C] */
static void keep_ends(float *x, const struct sequences *sequences, size_t width)
{
    for (size_t i = 0; i < sequences->count; i++)
        memmove(x + i * width, x + (sequences->starts[i + 1] - 1) * width, width * sizeof *x);
}

void block_forward_sequences(const struct block *block, const struct compute *compute,
                             const struct block_scratch *scratch, float *x, const struct sequences *sequences)
{
    const size_t width = block->proj.in, tokens = sequences->starts[sequences->count];
    norm_forward(&block->norm1, compute, scratch->normed, x, tokens, width);
    linear_forward(&block->qkv, compute, scratch->qkv, scratch->normed, width, tokens);
    attention_sequences(&block->attention, compute, scratch->normed, scratch->qkv, sequences, width);
    if (sequences->ends_only) {
        keep_ends(x, sequences, width);
        keep_ends(scratch->normed, sequences, width);
    }
    finish(block, compute, scratch, x, sequences->ends_only ? sequences->count : tokens, NULL);
}

/* ---- backward ---- */

/* y [rows, in] = scale * gradient [rows, out] weight; of a packed weight panel by panel, each [in, columns]. */
static void linear_backward(const struct linear *linear, const struct compute *compute, float *y, const float *gradient,
                            float scale, size_t rows)
{
    const struct packed *packed = &linear->packed;
    struct gemm gemm = {.m = rows, .n = linear->in, .k = linear->out, .alpha = scale, .a = gradient, .lda = linear->out,
                        .b = linear->weight, .ldb = linear->in, .c = y, .ldc = linear->in};
    if (packed->products == NULL) {
        compute_gemm(compute, &gemm);
        return;
    }
    gemm.b_transposed = true;
    gemm.ldb = packed->products->columns;
    for (size_t first = 0; first < linear->out; first += gemm.ldb) {
        gemm.k = linear->out - first < gemm.ldb ? linear->out - first : gemm.ldb;
        gemm.a = gradient + first;
        gemm.b = packed_panel(packed, first, compute->scratch);
        gemm.beta = first > 0 ? 1 : 0;
        compute_gemm(compute, &gemm);
    }
}

/* d score / d probabilities = d score / d output v^T, for each head */
static void attention_backward(const struct block *block, const struct compute *compute, float *probabilities,
                               const float *output_gradient, const float *values, size_t tokens, size_t layer,
                               const struct observer *observer)
{
    const size_t width = block->proj.in, heads = block->attention.heads, head_width = width / heads;
    const size_t tile = attention_rows(&block->attention, tokens);
    for (size_t first = 0; first < tokens; first += tile)
        for (size_t head = 0; head < heads; head++) {
            const size_t rows = tile < tokens - first ? tile : tokens - first;
            compute_gemm(compute, &(struct gemm){.m = rows, .n = tokens, .k = head_width, .alpha = 1, .beta = 0,
                                                 .a = output_gradient + first * width + head * head_width, .lda = width,
                                                 .b = values + head * head_width, .ldb = width, .b_transposed = true,
                                                 .c = probabilities, .ldc = tokens});
            observer->attention(observer->context,
                                &(struct attention_view){.layer = layer, .head = head, .matrix = probabilities,
                                                         .first = first, .rows = rows, .queries = tokens,
                                                         .keys = tokens, .prefix = block->attention.prefix});
        }
}

/*
 * The score sees the mean of the block's result, so every token's result has the same gradient g = mean_gradient / T,
 * and fc2 is passed once for all tokens. From there back, token by token: activation, fc1, norm2, and, with the
 * residual around the MLP, proj and the attention.
 */
void block_backward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                    const struct block_tape *tape, const float *mean_gradient, size_t tokens, size_t layer,
                    const struct observer *observer)
{
    const size_t width = block->proj.in;
    const float share = 1.0f / (float)tokens;
    linear_backward(&block->mlp.fc2, compute, scratch->row, mean_gradient, share, 1);
    compute->kernels->activate_gradient[block->mlp.activation](scratch->hidden, tape->hidden, block->mlp.fc1.bias,
                                                           scratch->row, tokens, block->mlp.fc1.out);
    float *gradient = scratch->normed; /* [T, C] */
    linear_backward(&block->mlp.fc1, compute, gradient, scratch->hidden, 1, tokens);
    compute->kernels->layernorm_gradient(gradient, tape->residual, block->norm2.weight, block->norm2.eps, tokens,
                                         width);
    for (size_t i = 0; i < tokens; i++)
        for (size_t c = 0; c < width; c++)
            gradient[i * width + c] += share * mean_gradient[c];

    float *output_gradient = scratch->qkv; /* [T, C] */
    linear_backward(&block->proj, compute, output_gradient, gradient, 1, tokens);
    attention_backward(block, compute, compute->scratch, output_gradient, tape->values, tokens, layer, observer);
}
