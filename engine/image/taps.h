/*
 * taps.h - which inputs a resampled pixel is made of, and their weights. Private to the image module.
 */
#ifndef ENGINE_IMAGE_TAPS_H
#define ENGINE_IMAGE_TAPS_H

#include "vit_image.h"

/* For each output: its first input, its number of inputs, its weights (of WEIGHT_BITS fraction bits) from
 * weights + i * weights_each on. First inputs, and ends, never decrease from one output to the next. */
struct taps {
    size_t outputs, weights_each;
    size_t *first, *count;
    int32_t *weights;
};

/* Outputs [start, start + outputs) of in_size inputs resized to out_size. */
struct taps_range {
    size_t in_size, out_size, start, outputs;
};

/* Any filter but nearest. VIT_ERR_IMAGE_SIZE where Pillow's table would overflow; VIT_ERR_NO_MEMORY. */
vit_status taps_init(struct taps *taps, const struct taps_range *range, vit_filter filter, vit_error *err);
/* Accepts a zeroed struct and leaves one. */
void taps_release(struct taps *taps);

#endif
