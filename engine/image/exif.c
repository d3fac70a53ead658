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

/* ---- turning ---- */

struct image_turn image_turn_make(size_t width, size_t height, int orientation)
{
    const bool turned = orientation >= 5;
    struct image_turn turn = {.width = turned ? height : width, .height = turned ? width : height};
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const ptrdiff_t line = (ptrdiff_t)turn.width;
    turn.right = (turned ? line : 1) * (from_right ? -1 : 1);
    turn.down = (turned ? 1 : line) * (from_below ? -1 : 1);
    turn.start = (from_right ? -turn.right * (ptrdiff_t)(width - 1) : 0) +
                 (from_below ? -turn.down * (ptrdiff_t)(height - 1) : 0);
    return turn;
}

/* Writes along the upright picture's rows, whichever way they lie in the stored one. */
void image_turn_rows(vit_image *upright, const struct image_turn *turn, const uint8_t *rows, size_t width, size_t y,
                     size_t count)
{
    uint8_t *to = upright->pixels + (turn->start + (ptrdiff_t)y * turn->down) * 3;
    const ptrdiff_t right = turn->right * 3, down = turn->down * 3;
    if (turn->right == 1 || turn->right == -1) {
        for (size_t r = 0; r < count; r++)
            for (size_t x = 0; x < width; x++, rows += 3)
                memcpy(to + (ptrdiff_t)r * down + (ptrdiff_t)x * right, rows, 3);
        return;
    }
    for (size_t x = 0; x < width; x++, rows += 3)
        for (size_t r = 0; r < count; r++)
            memcpy(to + (ptrdiff_t)x * right + (ptrdiff_t)r * down, rows + r * width * 3, 3);
}

vit_status image_orient(vit_image *image, int orientation, vit_error *err)
{
    if (orientation <= 1 || orientation > 8)
        return VIT_OK;
    const struct image_turn turn = image_turn_make(image->width, image->height, orientation);
    vit_image upright;
    vit_status status = image_allocate(&upright, turn.width, turn.height, err);
    if (status != VIT_OK)
        return status;
    for (size_t y = 0; y < image->height; y += IMAGE_STRIP) {
        const size_t left = image->height - y;
        image_turn_rows(&upright, &turn, image->pixels + y * image->width * 3, image->width, y,
                        left < IMAGE_STRIP ? left : IMAGE_STRIP);
    }
    vit_image_release(image);
    *image = upright;
    return VIT_OK;
}
