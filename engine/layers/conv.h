/*
 * conv.h - what slides over a map: convolutions, pooling, and the unfolding both are made of. A map is [H*W, C], a row
 * for each pixel, so that a 1x1 convolution is a Linear and a map is a list of tokens.
 */
#ifndef ENGINE_LAYERS_CONV_H
#define ENGINE_LAYERS_CONV_H

#include "engine/layers/layers.h"

/* Where a square kernel stands on a map; positions outside are padding. */
struct sliding {
    size_t kernel, stride;
    size_t height, width;         /* of the map */
    size_t out_height, out_width; /* positions */
    size_t top, left;             /* padding before the first row and column */
};

/* `padding` on every side, as PyTorch counts. */
struct sliding sliding_padded(size_t kernel, size_t stride, size_t padding, size_t height, size_t width);
/* As many positions as strides fit, the odd padding at the end, as TensorFlow's "SAME". */
struct sliding sliding_same(size_t kernel, size_t stride, size_t height, size_t width);
size_t sliding_positions(const struct sliding *sliding);

struct conv {
    const float *weight; /* [out, k*k*in], in the order (row, column, channel) */
    const float *bias;   /* [out] or NULL */
    size_t in, out;
    struct packed packed; /* see struct linear */
    struct sliding sliding;
};

/* map [H*W, 3] from pixels [3, H, W] */
void pixels_to_map(float *map, const float *pixels, size_t height, size_t width);

/* rows [count, k*k*C] of the positions from `first` on, each in the order (row, column, channel), padded with 0. */
void unfold(float *rows, const float *map, const struct sliding *sliding, size_t channels, size_t first, size_t count);

/* Floats of each thread's scratch for conv_forward(). */
size_t conv_scratch(const struct conv *conv);
/* out [positions, conv->out]; with add it is added to. */
void conv_forward(const struct conv *conv, const struct compute *compute, float *out, const float *map, bool add);

/* Each channel's largest value in the window; padding counts as `padding`. */
void max_pool(float *out, const float *map, const struct sliding *sliding, const struct compute *compute,
              size_t channels, float padding);

/* In place on a map [rows, C]: GroupNorm (arXiv 1803.08494) of 32 groups, then max(, floor): 0 for a ReLU, -INFINITY for
 * none. scratch [3*C] */
enum { NORM_GROUPS = 32 };
void group_norm(const struct norm *norm, const struct compute *compute, float *scratch, float *map, size_t rows,
                size_t channels, float floor);

#endif
