/* fuzz_image.c - any bytes may be uploaded: decodes them, capped at one megapixel, whole or as a draft, and
 * preprocesses what comes out. */
#include <stdint.h>
#include <stdlib.h>

#include "vit_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    vit_image image = {0};
    vit_error err;
    static float tensor[3 * 32 * 32];
    vit_preprocess preprocess = {
        .resize = VIT_RESIZE_SHORTEST_EDGE,
        .resize_height = 40,
        .resize_width = 40,
        .filter = (vit_filter)(length % 6),
        .crop = VIT_CROP_FLOOR,
        .height = 32,
        .width = 32,
        .rescale_factor = 1 / 255.0,
        .std = {1, 1, 1},
    };
    if (vit_preprocess_decode(length % 2 ? &preprocess : NULL, &image, bytes, length, 1000000, &err) != VIT_OK)
        return 0;
    (void)vit_preprocess_apply(&preprocess, &image, tensor, &err);
    vit_image_release(&image);
    return 0;
}
