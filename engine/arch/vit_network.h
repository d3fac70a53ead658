/* vit_network.h - the plain ViT as its loader (vit_load.c) leaves it for its forward pass (vit.c). */
#ifndef ENGINE_ARCH_VIT_NETWORK_H
#define ENGINE_ARCH_VIT_NETWORK_H

#include "engine/arch/arch.h"

enum pooling { POOL_TOKEN, POOL_DISTILLED, POOL_AVERAGE };

struct vit {
    size_t image_height, image_width, patch, grid_height, grid_width;
    size_t prefix, tokens, width, mlp_width, heads, layers, classes;
    enum pooling pooling;
    enum activation activation;
    float eps;
    bool norm_first; /* average pooling: the final norm runs before the mean, not after it */

    struct linear patches;           /* [C, 3*P*P] */
    const float *class_token, *distillation_token; /* [C] or NULL */
    const float *positions;          /* [T, C] */
    struct block *blocks;            /* [L] */
    struct norm norm;
    struct linear head, head_distilled;
};

bool vit_recognise(const struct folder *folder);
vit_status vit_load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err);
void vit_release(void *state);

#endif
