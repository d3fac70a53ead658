/* windows.h - how Swin cuts a grid into windows. */
#ifndef ENGINE_ARCH_WINDOWS_H
#define ENGINE_ARCH_WINDOWS_H

#include "engine/layers/layers.h"
#include "vit_status.h"

/* A grid that is rolled by shift_* and padded at its bottom and right to whole windows of side x side. timm rolls first,
 * transformers pads first. */
struct window_plan {
    size_t grid_height, grid_width, side;
    size_t shift_down, shift_right;
    bool roll_first;
};

/* Free with windows_release(), which accepts a zeroed struct. VIT_ERR_NO_MEMORY. */
vit_status windows_init(struct windows *windows, const struct window_plan *plan, vit_error *err);
void windows_release(struct windows *windows);

/* bias [NH, n, n], n = side^2, from a table [(2*side-1)^2, NH] by the difference of rows and columns. */
void windows_expand_bias(float *bias, const float *table, size_t side, size_t heads);

#endif
