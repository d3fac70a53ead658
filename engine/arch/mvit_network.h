/* mvit_network.h - MViTv2 as its loader (mvit_load.c) leaves it for its forward pass (mvit.c). */
#ifndef ENGINE_ARCH_MVIT_NETWORK_H
#define ENGINE_ARCH_MVIT_NETWORK_H

#include "engine/arch/load.h"

/* A depthwise convolution, the same for each head, and a norm of each head's result; class tokens pass it by. */
struct pooling_conv {
    const float *weight; /* [k*k, C], the heads' weights repeated */
    struct norm norm;    /* [HD] */
    struct sliding sliding;
};

/* x = shortcut + proj(softmax(q k^T / sqrt(HD) + relative positions) v + q),  q, k, v pooled
 * x = shortcut + mlp(norm2(x)) */
struct mvit_block {
    size_t heads, in, width, out; /* channels: of x, of attention, of the result */
    struct norm norm1, norm2;
    struct linear qkv; /* [3*width, in] */
    struct pooling_conv query, key, value;
    const float *relative_rows;    /* [query rows, key rows, HD] */
    const float *relative_columns; /* [query columns, key columns, HD] */
    struct linear proj;
    struct linear shortcut_attention; /* of norm1(x); out 0: x itself */
    struct sliding shortcut_pool;     /* kernel 0: none */
    struct mlp mlp;
    struct linear shortcut_mlp; /* of norm2(x); out 0: x itself */
};

struct mvit {
    size_t image_height, image_width, prefix;
    bool pool_token; /* the head sees the class token, else the mean of the patches */
    struct conv patches;
    const float *class_token; /* [C] or NULL */
    struct mvit_block *blocks;
    size_t layers;
    struct norm norm;
    struct linear head;
    vit_layer_info *layer_info; /* [layers] */
};

vit_status mvit_load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err);
void mvit_release(void *state);

#endif
