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

/* Sees the attention probabilities of one image as they are computed, head by head, layer by layer. */
struct attention_observer {
    void (*observe)(void *context, size_t layer, size_t head, const float *probabilities /* [T, T] */, size_t tokens);
    void *context;
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
};

/* y [rows, out] = x [rows, in] weight^T + bias; y has `out` floats per row, x has x_stride. */
void linear_forward(const struct linear *linear, const struct compute *compute, float *y, const float *x,
                    size_t x_stride, size_t rows);

/* In place on one image, x [T, C]. observer may be NULL. */
void block_forward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                   float *x, size_t tokens, size_t layer, const struct attention_observer *observer);

/* Splits an image [3, H, W] into non-overlapping P x P patches, row by row: patches [gh*gw, 3*P*P], each in the order
 * (channel, row, column) of a convolution kernel, so that a Linear over it is the patch embedding. */
void patches_unfold(float *patches, const float *pixels, size_t height, size_t width, size_t patch);

#endif
