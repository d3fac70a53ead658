/*
 * layers.h - the pieces every Vision Transformer is built from, as plain structs of borrowed weights.
 *
 * Legend: T tokens, C width, NH heads, HD = C / NH head width, M MLP width. All matrices row-major fp32.
 */
#ifndef ENGINE_LAYERS_LAYERS_H
#define ENGINE_LAYERS_LAYERS_H

#include <stddef.h>

#include "engine/math/gemm.h"
#include "engine/math/kernels/kernels.h"

/* How to compute: fixed for one run of one session. */
struct compute {
    const struct kernels *kernels;
    struct gemm_trace *trace; /* NULL except in benchmarks */
};

/* y = x weight^T + bias */
struct linear {
    const float *weight; /* [out, in] */
    const float *bias;   /* [out] or NULL */
    size_t in, out;
};

struct norm {
    const float *weight, *bias; /* [C] */
    float eps;
};

/* What a block's forward pass keeps for block_backward(). */
struct block_tape {
    float *values;   /* [T, C]: v of all heads, side by side */
    float *residual; /* [T, C]: the tokens between attention and MLP */
    float *hidden;   /* [T, M]: fc1's result before bias and activation */
    float *mean;     /* [C]: the block's result, averaged over the tokens */
};

/* Whoever wants to know more of one image's run than its result. Members are NULL where not wanted. */
struct observer {
    /* Sees the attention probabilities (in block_backward(): their gradient) as they are computed, head by head, layer
     * by layer; matrix [T, T] has a row for each query. */
    void (*attention)(void *context, size_t layer, size_t head, const float *matrix, size_t tokens);
    void *context;
    const struct block_tape *tapes; /* [L], filled in */
};

/* Pre-norm encoder block (arXiv 2010.11929, equations 2 and 3):
 *     x = x + proj(attention(norm1(x)));  x = x + fc2(activation(fc1(norm2(x)))) */
struct block {
    struct norm norm1, norm2;
    struct linear qkv; /* [3*C, C]: queries, keys, values */
    struct linear proj;
    struct linear fc1; /* [M, C] */
    struct linear fc2; /* [C, M] */
    size_t heads;
    enum activation activation;
};

/* Working memory of one image in one block; reused for every image and layer. */
struct block_scratch {
    float *normed;        /* [T, C], then the heads' outputs */
    float *qkv;           /* [T, 3*C] */
    float *probabilities; /* [T, T], of one head */
    float *hidden;        /* [T, M] */
    float *row;           /* [M]; block_backward() alone */
};

/* y [rows, out] = x [rows, in] weight^T + bias; y has `out` floats per row, x has x_stride. */
void linear_forward(const struct linear *linear, const struct compute *compute, float *y, const float *x,
                    size_t x_stride, size_t rows);

/* In place on one image, x [T, C]. observer may be NULL. */
void block_forward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                   float *x, size_t tokens, size_t layer, const struct observer *observer);

/* The gradient of a score with respect to the block's attention probabilities, shown to observer->attention head by
 * head. mean_gradient [C]: the score's gradient with respect to the block's result averaged over the tokens (tape->mean).
 * tape: of a forward pass of this block. */
void block_backward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                    const struct block_tape *tape, const float *mean_gradient, size_t tokens, size_t layer,
                    const struct observer *observer);

/* mean [width] of rows [count, width] */
void mean_rows(float *mean, const float *rows, size_t count, size_t width);

/* Splits an image [3, H, W] into non-overlapping P x P patches, row by row: patches [gh*gw, 3*P*P], each in the order
 * (channel, row, column) of a convolution kernel, so that a Linear over it is the patch embedding. */
void patches_unfold(float *patches, const float *pixels, size_t height, size_t width, size_t patch);

#endif
