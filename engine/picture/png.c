/*
 * png.c - PNG files by stb_image_write, deflated by zlib. stb's settings are variables that nobody here writes, so
 * that encoding is thread-safe.
 */
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "vit_picture.h"

/* Level 6 makes a heatmap 5 % smaller, in twice the time. */
enum { DEFLATE_LEVEL = 4 };

/* For stb_image_write: a buffer to be freed with free(), or NULL. */
static unsigned char *deflate_all(const unsigned char *data, int length, int *out_length, int quality)
{
    (void)quality;
    uLongf size = compressBound((uLong)length);
    unsigned char *out = malloc(size);
    if (out == NULL || size > INT_MAX || compress2(out, &size, data, (uLong)length, DEFLATE_LEVEL) != Z_OK) {
        free(out);
        return NULL;
    }
    *out_length = (int)size;
    return out;
}

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STBIW_ZLIB_COMPRESS deflate_all
#define STBIW_ASSERT(x) ((void)0)
/* not popped: what is never defined is only noticed at the end of the file */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

vit_status vit_png_encode(uint8_t **bytes, size_t *length, const vit_image *image, vit_error *err)
{
    const size_t width = image->width, height = image->height, most = INT_MAX / 2; /* stb counts in int */
    size_t pixels;
    if (!size_multiply(width, height, &pixels) || pixels == 0 || pixels > most / 3)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "no PNG is made of %zux%zu pixels", width, height);
    int size = 0;
    unsigned char *png = stbi_write_png_to_mem(image->pixels, 0, (int)width, (int)height, 3, &size);
    if (png == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a PNG of %zux%zu pixels", width, height);
    *bytes = png;
    *length = (size_t)size;
    return VIT_OK;
}
