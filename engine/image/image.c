/*
 * image.c - encoded bytes to upright RGB pixels: recognises the format by its first bytes, hands over to the
 * decoder, applies the EXIF orientation.
 */
#include "engine/image/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/error.h"

#define HUGE_PAGE ((size_t)2 << 20)

typedef vit_status decoder(vit_image *image, int *orientation, const struct image_source *source,
                           vit_error *err);

/* A format's first bytes: magic at offset; name is what the message calls it, decode NULL if we only know its
 * name. */
struct format {
    const char *name;
    const char *magic;
    size_t offset, length;
    decoder *decode;
};

static const struct format formats[] = {
    {"a JPEG", "\xFF\xD8\xFF", 0, 3, image_decode_jpeg},
    {"a PNG", "\x89PNG\r\n\x1A\n", 0, 8, image_decode_png},
    {"a BMP", "BM", 0, 2, image_decode_bmp},
    {"a GIF", "GIF8", 0, 4, NULL},
    {"a WebP", "WEBP", 8, 4, NULL},
    {"an AVIF", "ftypavi", 4, 7, NULL},
    {"a HEIC", "ftyphe", 4, 6, NULL},
    {"a HEIF", "ftypm", 4, 5, NULL},
    {"a TIFF", "II*\0", 0, 4, NULL},
    {"a TIFF", "MM\0*", 0, 4, NULL},
    {"a JPEG XL", "\xFF\x0A", 0, 2, NULL},
    {"a JPEG XL", "\0\0\0\x0CJXL ", 0, 8, NULL},
    {"a JPEG 2000", "\0\0\0\x0CjP  ", 0, 8, NULL},
    {"a Photoshop file", "8BPS", 0, 4, NULL},
    {"a PDF", "%PDF", 0, 4, NULL},
    {"an SVG", "<svg", 0, 4, NULL},
};

static const struct format *format_find(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const struct format *f = &formats[i];
        if (length >= f->offset + f->length && memcmp(bytes + f->offset, f->magic, f->length) == 0)
            return f;
    }
    return NULL;
}

static vit_status refuse_type(const struct format *format, const uint8_t *bytes, size_t length,
                              vit_error *err)
{
    char first[16] = "none";
    for (size_t i = 0; i < length && i < 4; i++)
        snprintf(first + 3 * i, 4, "%02X%s", bytes[i], i + 1 < length && i < 3 ? " " : "");
    return vit_error_set(err, VIT_ERR_IMAGE_TYPE,
                         "%s%snot a JPEG, PNG or BMP (first bytes %s): convert the image to one of these",
                         format != NULL ? format->name : "", format != NULL ? ", " : "", first);
}

vit_status image_check_size(size_t width, size_t height, size_t max_pixels, vit_error *err)
{
    if (width == 0 || height == 0)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "the image says it is %zux%zu: send a picture with pixels", width, height);
    size_t pixels = 0;
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || __builtin_mul_overflow(width, height, &pixels))
        return vit_error_set(err, VIT_ERR_IMAGE_SIZE,
                             "the image is %zux%zu; a side may have at most %u pixels: send a smaller one",
                             width, height, IMAGE_MAX_SIDE);
    if (pixels > max_pixels)
        return vit_error_set(
            err, VIT_ERR_IMAGE_SIZE,
            "the image has %zu pixels (%zux%zu); at most %zu are allowed: send a smaller one", pixels, width,
            height, max_pixels);
    return VIT_OK;
}

/* Big pictures in huge pages: a fault for each 4 KiB of a fresh 36 MB costs more than to resize them. */
static uint8_t *allocate_bytes(size_t count)
{
    void *block = NULL;
    if (count < 2 * HUGE_PAGE)
        return malloc(count);
    if (posix_memalign(&block, HUGE_PAGE, count) != 0)
        return NULL;
    (void)madvise(block, count, MADV_HUGEPAGE); /* where there are none, small ones do */
    return block;
}

vit_status image_allocate(vit_image *image, size_t width, size_t height, vit_error *err)
{
    size_t bytes;
    uint8_t *pixels = NULL;
    if (!__builtin_mul_overflow(width, height, &bytes) && !__builtin_mul_overflow(bytes, 3, &bytes))
        pixels = allocate_bytes(bytes);
    if (pixels == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for an image of %zux%zu pixels", width,
                             height);
    *image = (vit_image){.pixels = pixels, .width = width, .height = height};
    return VIT_OK;
}

vit_status image_decode(vit_image *image, const struct image_source *source, vit_error *err)
{
    if (source->length == 0)
        return vit_error_set(err, VIT_ERR_IMAGE_TYPE, "there are no bytes: send a JPEG, PNG or BMP");
    const struct format *format = format_find(source->bytes, source->length);
    if (format == NULL || format->decode == NULL)
        return refuse_type(format, source->bytes, source->length, err);

    vit_image decoded = {0};
    int orientation = 1;
    vit_status status = format->decode(&decoded, &orientation, source, err);
    if (status == VIT_OK)
        status = image_orient(&decoded, orientation, err);
    if (status != VIT_OK) {
        vit_image_release(&decoded);
        return status;
    }
    *image = decoded;
    return VIT_OK;
}

vit_status vit_image_decode(vit_image *image, const void *bytes, size_t length, size_t max_pixels,
                            vit_error *err)
{
    const struct image_source source = {.bytes = bytes, .length = length, .max_pixels = max_pixels};
    return image_decode(image, &source, err);
}

void vit_image_release(vit_image *image)
{
    if (image == NULL)
        return;
    free(image->pixels);
    *image = (vit_image){0};
}
