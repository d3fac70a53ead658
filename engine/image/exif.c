/*
 * exif.c - the one EXIF tag that matters here, and what it asks for. Reads the tag as Pillow 9.4 does, down
 * to where it stops in a damaged directory, so that both turn the same files the same way; where Pillow
 * refuses the whole picture for an unreadable EXIF header, we show it as it lies.
 */
#include "engine/image/image.h"

#include <string.h>

#define TAG_ORIENTATION 0x0112u
#define ENTRY_BYTES 12u

struct tiff {
    const uint8_t *bytes;
    size_t length;
    bool big_endian;
};

static uint32_t read16(const struct tiff *tiff, const uint8_t *p)
{
    return tiff->big_endian ? (uint32_t)p[0] << 8 | p[1] : image_le16(p);
}

static uint32_t read32(const struct tiff *tiff, const uint8_t *p)
{
    return tiff->big_endian ? image_be32(p) : image_le32(p);
}

/* Bytes per value of a TIFF type; 0 for the types that Pillow skips. */
static unsigned type_size(uint32_t type)
{
    static const uint8_t sizes[17] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

static int entry_orientation(const struct tiff *tiff, uint32_t type, const uint8_t *value)
{
    uint32_t number = 0;
    if (type == 3 || type == 8)
        number = read16(tiff, value);
    else if (type == 4 || type == 9)
        number = read32(tiff, value);
    return number >= 1 && number <= 8 ? (int)number : 1;
}

int exif_orientation(const uint8_t *bytes, size_t length)
{
    if (length < 8 || (memcmp(bytes, "II*\0", 4) != 0 && memcmp(bytes, "MM\0*", 4) != 0))
        return 1;
    const struct tiff tiff = {bytes, length, bytes[0] == 'M'};
    size_t at = read32(&tiff, bytes + 4);
    if (at > length || length - at < 2)
        return 1;
    size_t entries = read16(&tiff, bytes + at);
    int orientation = 1;
    at += 2;
    for (size_t i = 0; i < entries && length - at >= ENTRY_BYTES; i++, at += ENTRY_BYTES) {
        const uint8_t *entry = bytes + at;
        uint32_t type = read16(&tiff, entry + 2), count = read32(&tiff, entry + 4);
        uint64_t size = (uint64_t)count * type_size(type);
        /* Pillow gives up on the directory at a value that lies outside the file. */
        if (size > 4 && read32(&tiff, entry + 8) + size > length)
            break;
        if (read16(&tiff, entry) == TAG_ORIENTATION && size > 0)
            orientation = count == 1 ? entry_orientation(&tiff, type, entry + 8) : 1;
    }
    return orientation;
}

/* Where the upright picture's pixel (0, 0) lies in the stored one, and the steps to its neighbours, in
 * pixels. */
struct walk {
    size_t width, height;
    ptrdiff_t start, right, down;
};

static struct walk walk_for(const vit_image *image, int orientation)
{
    ptrdiff_t w = (ptrdiff_t)image->width, last_row = (ptrdiff_t)(image->height - 1) * w;
    bool turned = orientation >= 5;
    struct walk walk = {turned ? image->height : image->width, turned ? image->width : image->height, 0, 0,
                        0};
    ptrdiff_t along = 1, across = w; /* steps within and between stored rows, before mirroring */
    if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) {
        walk.start += w - 1;
        along = -1;
    }
    if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) {
        walk.start += last_row;
        across = -w;
    }
    walk.right = turned ? across : along;
    walk.down = turned ? along : across;
    return walk;
}

/* Squares, so that walking down stored columns stays within the cache. */
#define TILE 32u

static void copy_tile(uint8_t *to, const uint8_t *from, const struct walk *walk, size_t x0, size_t y0)
{
    size_t x1 = x0 + TILE < walk->width ? x0 + TILE : walk->width;
    size_t y1 = y0 + TILE < walk->height ? y0 + TILE : walk->height;
    for (size_t y = y0; y < y1; y++) {
        ptrdiff_t at = walk->start + (ptrdiff_t)y * walk->down + (ptrdiff_t)x0 * walk->right;
        uint8_t *out = to + (y * walk->width + x0) * 3;
        for (size_t x = x0; x < x1; x++, out += 3, at += walk->right)
            memcpy(out, from + at * 3, 3);
    }
}

vit_status image_orient(vit_image *image, int orientation, vit_error *err)
{
    if (orientation <= 1 || orientation > 8)
        return VIT_OK;
    struct walk walk = walk_for(image, orientation);
    vit_image upright;
    vit_status status = image_allocate(&upright, walk.width, walk.height, err);
    if (status != VIT_OK)
        return status;
    for (size_t y = 0; y < walk.height; y += TILE)
        for (size_t x = 0; x < walk.width; x += TILE)
            copy_tile(upright.pixels, image->pixels, &walk, x, y);
    vit_image_release(image);
    *image = upright;
    return VIT_OK;
}
