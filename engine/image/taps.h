/*
 * taps.h - which inputs a resampled pixel is made of, and their weights. Private to the image module.
 */
#ifndef ENGINE_IMAGE_TAPS_H
#define ENGINE_IMAGE_TAPS_H

#include "vit_image.h"

#define TAPS_PRECISION_BITS 22

/* Two neighbouring inputs' weights, each high * 65536 + low with both halves signed. An odd last input is
 * paired with a weight of zero. */
struct pair {
    int16_t low[2], high[2];
};

/* For each output: its first input, its number of inputs, its weights from pairs + i * pairs_each on. */
struct taps {
    size_t outputs, pairs_each;
    size_t *first, *count;
    struct pair *pairs;
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
