/* swin_network.h - Swin as its loader (swin_load.c) leaves it for its forward pass (swin.c). */
#ifndef ENGINE_ARCH_SWIN_NETWORK_H
#define ENGINE_ARCH_SWIN_NETWORK_H

#include "engine/arch/load.h"

/* Blocks on one grid. Before it, except for the first, patch merging: the four tokens of each 2x2 square side by side,
 * normed, and reduced to half as many channels. */
struct swin_stage {
    size_t grid_height, grid_width, width;
    struct norm merge_norm;        /* [4*C of the stage before] */
    struct linear merge_reduction;
    struct block *blocks;
    size_t depth;
    struct windows regular, shifted; /* even blocks, odd blocks; both alike where the grid is one window */
};

struct swin {
    size_t image_height, image_width;
    struct conv patches;
    struct norm patch_norm;
    const float *positions; /* [gh*gw, C] of the first stage, or NULL */
    struct swin_stage *stages;
    size_t stage_count, layers;
    struct norm norm;
    struct linear head;
    vit_layer_info *layer_info; /* [layers] */
};

vit_status swin_load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err);
void swin_release(void *state);

#endif
