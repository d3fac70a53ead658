/*
 * layers.h - the pieces every Vision Transformer is built from, as plain structs of borrowed weights.
 *
 * Legend: T tokens, C width, NH heads, HD = C / NH head width, M MLP width. All matrices row-major fp32.
 */
#ifndef ENGINE_LAYERS_LAYERS_H
#define ENGINE_LAYERS_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/layers/compute.h"

/* y = x weight^T + bias */
struct linear {
    const float *weight; /* [out, in]; may be NULL once it is packed */
    const float *bias;   /* [out] or NULL */
    size_t in, out;
    struct packed packed; /* for vitd's own products; products NULL: OpenBLAS reads the weight as it is */
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

/* Some rows of one head's attention probabilities; a row for each query. */
struct attention_view {
    size_t layer, head;
    const float *matrix;   /* [rows, keys] */
    size_t first, rows;    /* queries first .. first + rows - 1 of `queries` */
    size_t queries, keys;
    size_t prefix;         /* keys before the patches: class token and the like */
    const int32_t *places; /* NULL: the patches in order; a window's: [keys] the patch of each key, -1 for padding, and
                              the queries are the same */
};

/* Whoever wants to know more of one image's run than its result. Members are NULL where not wanted. */
struct observer {
    /* Sees the attention probabilities (in block_backward(): their gradient) as they are computed: layer by layer, every
     * row once, and for each row the heads in order. */
    void (*attention)(void *context, const struct attention_view *view);
    bool first_query_only; /* it has no use for the rows after the first */
    void *context;
    const struct block_tape *tapes; /* [L], filled in */
};

/* Windows of a grid, whose tokens attend only to one another (Swin, arXiv 2103.14030). */
struct windows {
    size_t count, size;     /* size: slots in each */
    const int32_t *places;  /* [count, size]: the token in each slot, -1 for padding */
    const uint8_t *regions; /* [count, size]: a shifted window's slots of different regions are strangers; or NULL */
};

/* Texts that lie one after the other: the tokens starts[i] .. starts[i + 1] - 1 attend to one another alone. */
struct sequences {
    size_t count;
    const size_t *starts; /* [count + 1], the first of them 0 */
    bool ends_only;       /* of each only its last token's result is wanted */
};

/* softmax(scale q k^T + bias) v for each head. With mixing (DeepViT's re-attention, arXiv 2103.11886) the heads'
 * probabilities A are replaced by mixing A + mixing_bias before they meet v. */
struct attention {
    size_t heads;
    size_t prefix; /* tokens before the patches */
    float scale;
    bool causal; /* a token attends to itself and to those before it; not with mixing, which would add to the others */
    const float *bias;             /* [NH, n, n] for the n slots of a window; or NULL */
    const struct windows *windows; /* NULL: every token attends to every token */
    const float *padding;          /* [3*C]: q, k and v of a padded slot, the qkv bias; NULL: zeros */
    const float *mixing, *mixing_bias; /* [NH, NH], [NH]; or NULL */
    const struct products *products;   /* for q k^T and A v; NULL: OpenBLAS */
};

/* fc2(activation(fc1(x))) */
struct mlp {
    struct linear fc1; /* [M, in] */
    struct linear fc2; /* [out, M], or [out, M/2] with a gated activation */
    enum activation activation;
};

/* Pre-norm encoder block (arXiv 2010.11929, equations 2 and 3):
 *     x = x + proj(attention(norm1(x)));  x = x + mlp(norm2(x)) */
struct block {
    struct norm norm1, norm2;
    struct linear qkv; /* [3*C, C]: queries, keys, values */
    struct attention attention;
    struct linear proj;
    struct mlp mlp;
};

/* Working memory of one image, or of some sequences, in one block; reused for every image and layer. */
struct block_scratch {
    float *normed;    /* [T, C], then the heads' outputs */
    float *qkv;       /* [T, 3*C] */
    float *attention; /* attention_floats(); not for sequences */
    float *hidden;    /* [T, M] */
    float *row;       /* [M]; block_backward() alone */
};

/* Places parts of a memory one after another, each on 64 bytes: fills in starts [count] and returns the whole, both in
 * floats. */
size_t parts_lay_out(size_t *starts, const size_t *sizes, size_t count);

/* Whether a part of the linear may begin there: anywhere, but in a packed one at a panel. */
bool linear_divides(const struct linear *linear, size_t first);

/* y [rows, out] = x [rows, in] weight^T + bias, of a linear's rows of weight first .. first + count - 1 alone; y's rows are
 * those of a whole result. */
void linear_part(const struct linear *linear, const struct compute *compute, float *y, const float *x, size_t rows,
                 size_t first, size_t count);

/* y [rows, out] = x [rows, in] weight^T + bias; y has `out` floats per row, x has x_stride. */
void linear_forward(const struct linear *linear, const struct compute *compute, float *y, const float *x,
                    size_t x_stride, size_t rows);

/* x += h weight^T + bias, on the residual stream x [rows, out]; h has `in` floats per row. */
void linear_add(const struct linear *linear, const struct compute *compute, float *x, const float *h, size_t rows);

/* y [rows, width] = the norm of x; y may be x. */
void norm_forward(const struct norm *norm, const struct compute *compute, float *y, const float *x, size_t rows,
                  size_t width);

/* x [rows, out] += mlp(normed [rows, in]). hidden [rows, M] is scratch; kept [rows, M], if not NULL, takes fc1's result
 * before bias and activation. */
void mlp_forward(const struct mlp *mlp, const struct compute *compute, float *hidden, float *x, const float *normed,
                 size_t rows, float *kept);

/* Floats of working memory for attention_forward(), and of each thread's scratch. */
size_t attention_floats(const struct attention *attention, size_t tokens, size_t width);
size_t attention_scratch(const struct attention *attention, size_t tokens, size_t width);

/* out [T, C] (heads side by side) from qkv [T, 3*C]; without windows only the first `wanted` rows, whose q is all of q
 * that is read. observer may be NULL. */
void attention_forward(const struct attention *attention, const struct compute *compute, float *memory, float *out,
                       const float *qkv, size_t tokens, size_t wanted, size_t width, size_t layer,
                       const struct observer *observer);

/* out [T, C] from qkv [T, 3*C] of all the sequences' tokens, T = starts[count]; with ends_only the other rows of out
 * are left as they are. A sequence's result depends on its tokens alone. Scratch: for the longest of them. */
void attention_sequences(const struct attention *attention, const struct compute *compute, float *out, const float *qkv,
                         const struct sequences *sequences, size_t width);
size_t attention_sequence_scratch(const struct attention *attention, size_t longest, size_t width);

/* The rows of probabilities that are computed at a time, so that they stay in cache. */
size_t attention_rows(const struct attention *attention, size_t tokens);

/* In place on one image, x [T, C]. Only the first `wanted` tokens of the result are needed (T: all, as with windows
 * or a tape it must be); the others are left as they are. observer may be NULL, and sees the wanted queries. */
void block_forward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                   float *x, size_t tokens, size_t wanted, size_t layer, const struct observer *observer);

/* In place on the tokens of several sequences, x [T, C], T = starts[count]: all but attention runs over all of them at
 * once, and a sequence's result depends on its tokens alone where the block's products are packed. With ends_only x
 * becomes the last token of each, [count, C]. */
void block_forward_sequences(const struct block *block, const struct compute *compute,
                             const struct block_scratch *scratch, float *x, const struct sequences *sequences);

/* The gradient of a score with respect to the block's attention probabilities, shown to observer->attention head by
 * head. mean_gradient [C]: the score's gradient with respect to the block's result averaged over the tokens (tape->mean).
 * tape: of a forward pass of this block. */
void block_backward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                    const struct block_tape *tape, const float *mean_gradient, size_t tokens, size_t layer,
                    const struct observer *observer);

/* ---- position embeddings (posembed.c) ---- */

/* positions [count, width], arXiv 1706.03762, section 3.5. */
void positions_sinusoidal(float *positions, size_t count, size_t width);

/* positions [height * width, channels]: sines and cosines of the column, then of the row, in channels / 4 frequencies
 * from 1 down to 1 / 10000: either the last is that (SimpleViT, arXiv 2205.01580), or the one after it would be (MAE,
 * arXiv 2111.06377). Channels beyond a multiple of four are 0. */
void positions_sincos2d(float *positions, size_t height, size_t width, size_t channels, bool full_range);

enum { MAX_GRID = 1 << 12 };

/* BICUBIC is PyTorch's interpolate(mode="bicubic", align_corners=False), as transformers resizes position embeddings;
 * ANTIALIASED is the same with antialias=True, as timm does. */
enum interpolation { INTERPOLATE_BICUBIC, INTERPOLATE_ANTIALIASED };

/* out [out_height * out_width, channels] from in [in_height * in_width, channels]; no side above MAX_GRID. */
void positions_resize(float *out, size_t out_height, size_t out_width, const float *in, size_t in_height,
                      size_t in_width, size_t channels, enum interpolation interpolation);

/* mean [width] of rows [count, width] */
void mean_rows(float *mean, const float *rows, size_t count, size_t width);

/* y [width] = x / |x|; y may be x. Returns |x|. */
float unit_length(float *y, const float *x, size_t width);

/* Splits an image [3, H, W] into non-overlapping P x P patches, row by row: patches [gh*gw, 3*P*P], each in the order
 * (channel, row, column) of a convolution kernel, so that a Linear over it is the patch embedding. */
void patches_unfold(float *patches, const float *pixels, size_t height, size_t width, size_t patch);

#endif
