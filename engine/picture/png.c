/* png.c - PNG files by stb_image_write, deflated by zlib. */
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#include "engine/base/error.h"
#include "vit_picture.h"

/* Photographs gain little above this, and take several times as long. */
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
    int size = 0;
    unsigned char *png = NULL;
    if (image->width < INT_MAX / 4 && image->height < INT_MAX / 4 && 3 * image->width * image->height < INT_MAX / 2)
        png = stbi_write_png_to_mem(image->pixels, (int)(3 * image->width), (int)image->width, (int)image->height, 3,
                                    &size);
    if (png == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a PNG of %zux%zu pixels", image->width,
                             image->height);
    *bytes = png;
    *length = (size_t)size;
    return VIT_OK;
}
