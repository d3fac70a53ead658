/*
 * bmp.c - checks a BMP and writes it anew for stb_image: one header of 40 bytes, a full palette or three
 * masks, the rows. stb_image alone would read a damaged BMP as zeros and mistake several headers; of the
 * layouts that Pillow knows, all but the run-length coded ones are rewritten, and the rest are refused by
 * name.
 *
 * stb_image widens 5- and 6-bit samples by repeating bits where Pillow scales them; widen_as_pillow() mends
 * that.
 */
#include "engine/image/image.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"

#define FILE_HEADER_BYTES 14u
#define HEADER_BYTES 40u
#define MASK_BYTES 12u
#define PALETTE_ENTRIES 256u

enum { COMPRESSION_NONE = 0, COMPRESSION_RLE8 = 1, COMPRESSION_RLE4 = 2, COMPRESSION_MASKS = 3 };

struct bmp {
    size_t header_bytes, width, height, stride;
    unsigned bits;
    uint32_t compression;
    uint32_t masks[3]; /* red, green, blue; of 16 and 32 bits */
    bool top_down;
    size_t colours, colour_bytes, palette_at, rows_at;
};

static vit_status damaged(const struct image_source *source, vit_error *err)
{
    return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                         "the BMP ends early, after %zu bytes: send the whole file", source->length);
}

static vit_status unknown(const char *what, size_t value, vit_error *err)
{
    return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "a BMP with %s %zu cannot be decoded: save it as a PNG",
                         what, value);
}

/* Pillow takes the height as negative only when its top byte is 255. */
static void read_size(struct bmp *bmp, const uint8_t *header)
{
    if (bmp->header_bytes == 12) {
        bmp->width = image_le16(header + 4);
        bmp->height = image_le16(header + 6);
        bmp->bits = image_le16(header + 10);
        return;
    }
    uint32_t height = image_le32(header + 8);
    bmp->top_down = height >> 24 == 0xFF;
    bmp->width = image_le32(header + 4);
    bmp->height = bmp->top_down ? 0u - height : height;
    bmp->bits = image_le16(header + 14);
    bmp->compression = image_le32(header + 16);
}

/* The masks stand behind a 40-byte header and inside a longer one, in both cases at the same offset. */
static vit_status read_masks(struct bmp *bmp, const struct image_source *source, vit_error *err)
{
    static const uint32_t known[][4] = {
        {32, 0xFF0000, 0xFF00, 0xFF}, {32, 0xFF000000, 0xFF0000, 0xFF00}, {32, 0xFF, 0xFF00, 0xFF0000},
        {24, 0xFF0000, 0xFF00, 0xFF}, {16, 0xF800, 0x7E0, 0x1F},          {16, 0x7C00, 0x3E0, 0x1F},
    };
    size_t at = FILE_HEADER_BYTES + HEADER_BYTES;
    if (source->length < at + MASK_BYTES)
        return damaged(source, err);
    for (int i = 0; i < 3; i++)
        bmp->masks[i] = image_le32(source->bytes + at + 4 * i);
    bool none = bmp->masks[0] == 0 && bmp->masks[1] == 0 && bmp->masks[2] == 0;
    if (none && bmp->bits == 32)
        memcpy(bmp->masks, known[0] + 1, sizeof bmp->masks);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i][0] == bmp->bits && memcmp(bmp->masks, known[i] + 1, sizeof bmp->masks) == 0)
            return VIT_OK;
    return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                         "a %u-bit BMP with the masks %08X %08X %08X cannot be decoded: save it as a PNG",
                         bmp->bits, bmp->masks[0], bmp->masks[1], bmp->masks[2]);
}

static vit_status read_kind(struct bmp *bmp, const struct image_source *source, vit_error *err)
{
    unsigned bits = bmp->bits;
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return unknown("a depth of", bits, err);
    if (bmp->compression == COMPRESSION_RLE8 || bmp->compression == COMPRESSION_RLE4)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "a run-length coded BMP cannot be decoded: save it uncompressed or as a PNG");
    if (bmp->compression == COMPRESSION_MASKS && bmp->header_bytes != 64)
        return read_masks(bmp, source, err);
    if (bmp->compression != COMPRESSION_NONE)
        return unknown("compression", bmp->compression, err);
    static const uint32_t rgb555[3] = {0x7C00, 0x3E0, 0x1F}, rgb888[3] = {0xFF0000, 0xFF00, 0xFF};
    memcpy(bmp->masks, bits == 16 ? rgb555 : rgb888, sizeof bmp->masks);
    return VIT_OK;
}

static vit_status read_layout(struct bmp *bmp, const struct image_source *source, vit_error *err)
{
    const uint8_t *header = source->bytes + FILE_HEADER_BYTES;
    size_t behind = FILE_HEADER_BYTES + bmp->header_bytes;
    size_t at = image_le32(source->bytes + 10);
    bmp->palette_at = behind;
    if (bmp->bits <= 8) {
        bmp->colour_bytes = bmp->header_bytes == 12 ? 3 : 4;
        bmp->colours = bmp->header_bytes == 12 ? 0 : image_le32(header + 32);
        if (bmp->colours == 0)
            bmp->colours = (size_t)1 << bmp->bits;
        if (bmp->colours > PALETTE_ENTRIES)
            return unknown("a palette of", bmp->colours, err);
        /* as Pillow: some writers forget to count the palette */
        if (at == behind)
            at += 4 * bmp->colours;
        behind += bmp->colours * bmp->colour_bytes;
    } else if (bmp->compression == COMPRESSION_MASKS && bmp->header_bytes == HEADER_BYTES) {
        behind += MASK_BYTES;
    }
    bmp->rows_at = at != 0 ? at : behind;
    bmp->stride = (bmp->width * bmp->bits + 31) / 32 * 4;
    size_t needed = bmp->stride * (bmp->height - 1) + (bmp->width * bmp->bits + 7) / 8;
    if (behind > source->length || bmp->rows_at > source->length || source->length - bmp->rows_at < needed)
        return damaged(source, err);
    return VIT_OK;
}

static vit_status read_header(struct bmp *bmp, const struct image_source *source, vit_error *err)
{
    if (source->length < FILE_HEADER_BYTES + 4)
        return damaged(source, err);
    const uint8_t *header = source->bytes + FILE_HEADER_BYTES;
    size_t size = bmp->header_bytes = image_le32(header);
    if (size != 12 && size != 40 && size != 52 && size != 56 && size != 64 && size != 108 && size != 124)
        return unknown("a header of", size, err);
    if (source->length < FILE_HEADER_BYTES + size)
        return damaged(source, err);
    read_size(bmp, header);
    vit_status status = image_check_size(bmp->width, bmp->height, source->max_pixels, err);
    if (status == VIT_OK)
        status = read_kind(bmp, source, err);
    if (status == VIT_OK)
        status = read_layout(bmp, source, err);
    return status;
}

static void put(uint8_t *out, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* stb_image has a fast path for 32 bits in the usual order and needs masks for every other 16 and 32. */
static bool needs_masks(const struct bmp *bmp)
{
    return bmp->bits == 16 || (bmp->bits == 32 && bmp->masks[0] != 0xFF0000);
}

static size_t rows_offset(const struct bmp *bmp)
{
    return FILE_HEADER_BYTES + HEADER_BYTES +
           (bmp->bits <= 8     ? 4 * PALETTE_ENTRIES
            : needs_masks(bmp) ? MASK_BYTES
                               : 0);
}

/* out is zeroed, [rows_offset() + stride * height]. */
static void rewrite(uint8_t *out, const struct bmp *bmp, const struct image_source *source)
{
    uint32_t height = (uint32_t)bmp->height;
    memcpy(out, "BM", 2);
    put(out + 10, (uint32_t)rows_offset(bmp), 4);
    put(out + 14, HEADER_BYTES, 4);
    put(out + 18, (uint32_t)bmp->width, 4);
    put(out + 22, bmp->top_down ? 0u - height : height, 4);
    put(out + 26, 1, 2);
    put(out + 28, bmp->bits, 2);
    uint8_t *at = out + FILE_HEADER_BYTES + HEADER_BYTES;
    if (bmp->bits <= 8) {
        for (size_t i = 0; i < PALETTE_ENTRIES; i++, at += 4)
            if (i < bmp->colours)
                memcpy(at, source->bytes + bmp->palette_at + i * bmp->colour_bytes, 3);
            else
                memset(at, (int)i, 3); /* as Pillow 9.4 shows an index without a colour */
    } else if (needs_masks(bmp)) {
        put(out + 30, COMPRESSION_MASKS, 4);
        for (int i = 0; i < 3; i++, at += 4)
            put(at, bmp->masks[i], 4);
    }
    size_t rows = bmp->stride * bmp->height, left = source->length - bmp->rows_at;
    memcpy(at, source->bytes + bmp->rows_at, rows < left ? rows : left);
}

static void widen_as_pillow(vit_image *image, const struct bmp *bmp)
{
    uint8_t widened[3][256]; /* from stb_image's widening to Pillow's, by channel */
    for (int c = 0; c < 3; c++) {
        int bits = __builtin_popcount(bmp->masks[c]), most = (1 << bits) - 1;
        for (int v = 0; v < 256; v++)
            widened[c][v] = (uint8_t)((v >> (8 - bits)) * 255 / most);
    }
    uint8_t *p = image->pixels;
    for (size_t i = 0; i < image->width * image->height; i++, p += 3)
        for (int c = 0; c < 3; c++)
            p[c] = widened[c][p[c]];
}

vit_status image_decode_bmp(vit_image *image, int *orientation, const struct image_source *source,
                            vit_error *err)
{
    struct bmp bmp = {0};
    vit_status status = read_header(&bmp, source, err);
    if (status != VIT_OK)
        return status;
    size_t length = rows_offset(&bmp) + bmp.stride * bmp.height;
    uint8_t *plain = calloc(length, 1);
    if (plain == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to decode the BMP");
    rewrite(plain, &bmp, source);
    const struct stb_job job = {
        .bytes = plain,
        .length = length,
        .width = bmp.width,
        .height = bmp.height,
        .budget = 65536 + 3 * bmp.width * bmp.height,
        .format = "BMP",
    };
    status = stb_decode(image, &job, err);
    free(plain);
    if (status == VIT_OK && bmp.bits == 16)
        widen_as_pillow(image, &bmp);
    *orientation = 1;
    return status;
}
