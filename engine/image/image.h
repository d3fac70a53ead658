/*
 * image.h - what the files of the image module share. Private: users include vit_image.h.
 *
 * Every decoder fills an image it is given only on success, hands back the EXIF orientation that is left to
 * image_orient(), and has checked the size with image_check_size() before it decodes or allocates anything of
 * that size.
 */
#ifndef ENGINE_IMAGE_IMAGE_H
#define ENGINE_IMAGE_IMAGE_H

#include "vit_image.h"

/* JPEG ends at 65500 by its own standard; the same bound for all keeps every side in 16 bits. */
#define IMAGE_MAX_SIDE 65535u

vit_status image_check_size(size_t width, size_t height, size_t max_pixels, vit_error *err);
/* Uninitialised pixels [height, width, 3]; release with vit_image_release(). */
vit_status image_allocate(vit_image *image, size_t width, size_t height, vit_error *err);
/* Turns the picture upright (its pixels may be replaced). orientation as in EXIF, 1 to 8. */
vit_status image_orient(vit_image *image, int orientation, vit_error *err);

/* A file in memory with the limit to hold it to. */
struct image_source {
    const uint8_t *bytes;
    size_t length, max_pixels;
    const vit_preprocess *purpose; /* NULL: decode it whole; else for vit_preprocess_decode() */
};

vit_status image_decode_jpeg(vit_image *image, int *orientation, const struct image_source *source,
                             vit_error *err);
vit_status image_decode_png(vit_image *image, int *orientation, const struct image_source *source,
                            vit_error *err);
vit_status image_decode_bmp(vit_image *image, int *orientation, const struct image_source *source,
                            vit_error *err);

/* decode_stb.c: a file that png.c or bmp.c has written anew for stb_image. budget bounds the bytes it may
 * hold. */
struct stb_job {
    const uint8_t *bytes;
    size_t length, width, height, budget;
    const char *format; /* for messages */
    bool grey16;        /* a 16-bit grey PNG, which Pillow clips where it cuts every other kind */
};
vit_status stb_decode(vit_image *image, const struct stb_job *job, vit_error *err);

/* exif.c: the orientation, 1 to 8, that a TIFF structure (EXIF without its "Exif\0\0") asks for; 1 if none.
 */
int exif_orientation(const uint8_t *tiff, size_t length);

/* Where a stored picture's pixels are in the upright one of width x height: (x, y) at start + x * right + y * down. */
struct image_turn {
    size_t width, height;
    ptrdiff_t start, right, down;
};
struct image_turn image_turn_make(size_t width, size_t height, int orientation);
/* Stored rows [y, y + count) of `width` pixels to their places. A few at a time, up to IMAGE_STRIP, stay in cache. */
void image_turn_rows(vit_image *upright, const struct image_turn *turn, const uint8_t *rows, size_t width, size_t y,
                     size_t count);
#define IMAGE_STRIP 64u

/* preprocess.c: by how much an upright picture of this size may be decoded smaller, 1, 2, 4 or 8, to be preprocessed so. */
unsigned image_reduction(const vit_preprocess *preprocess, size_t width, size_t height);

/* image.c: recognises the format, decodes and turns upright. */
vit_status image_decode(vit_image *image, const struct image_source *source, vit_error *err);

/* resample.c: the pixels [y, y+height) x [x, x+width) of the picture resized to full_width x full_height. */
struct image_window {
    size_t full_width, full_height;
    size_t x, y, width, height;
};
vit_status image_resize_window(vit_image *out, const vit_image *in, const struct image_window *window,
                               vit_filter filter, vit_error *err);

static inline uint32_t image_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t image_le16(const uint8_t *p)
{
    return (uint32_t)p[1] << 8 | p[0];
}

static inline uint32_t image_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

#endif
