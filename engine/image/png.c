/*
 * png.c - checks a PNG and writes it anew for stb_image: signature, IHDR, a full palette, one IDAT, IEND.
 *
 * The check is stricter than Pillow's where a wrong picture could pass for a right one: every checksum is
 * verified, and the file must reach IEND. What the rewriting drops is what convert("RGB") ignores:
 * transparency, colour profiles, text. Of an animated PNG the first picture is taken. Palette entries that
 * the file does not define are grey of their own index, as in Pillow 9.4.
 */
#include "engine/image/image.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "engine/base/error.h"

#define SIGNATURE_BYTES 8u
#define CHUNK_BYTES 12u /* length, type, checksum */
#define IHDR_BYTES 13u
#define PALETTE_BYTES 768u

enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGBA = 6 };

struct png {
    size_t width, height;
    unsigned depth, colour, channels;
    bool interlaced;
    const uint8_t *ihdr, *plte, *first_idat; /* each at its data; first_idat at its length field */
    size_t plte_length, idat_length;
    int orientation;
};

struct chunk {
    const uint8_t *type, *data;
    size_t length;
};

static bool chunk_is(const struct chunk *chunk, const char *type)
{
    return memcmp(chunk->type, type, 4) == 0;
}

/* Reads the chunk at *at and moves past it. */
static vit_status chunk_next(struct chunk *chunk, size_t *at, const struct image_source *source,
                             vit_error *err)
{
    const uint8_t *p = source->bytes + *at;
    size_t left = source->length - *at;
    if (left < CHUNK_BYTES || image_be32(p) > left - CHUNK_BYTES)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "the PNG ends early, after %zu bytes: send the whole file", source->length);
    *chunk = (struct chunk){.type = p + 4, .data = p + 8, .length = image_be32(p)};
    for (int i = 0; i < 4; i++)
        if ((chunk->type[i] | 0x20) < 'a' || (chunk->type[i] | 0x20) > 'z')
            return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                                 "the PNG is damaged at byte %zu (no chunk starts there)", *at);
    *at += CHUNK_BYTES + chunk->length;
    return VIT_OK;
}

static vit_status chunk_verify(const struct chunk *chunk, vit_error *err)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)chunk, (void)err;
    return VIT_OK; /* a fuzzer would not get past the first checksum */
#endif
    uint32_t sum = (uint32_t)crc32_z(crc32_z(0, NULL, 0), chunk->type, chunk->length + 4);
    if (sum != image_be32(chunk->data + chunk->length))
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "the PNG is damaged: wrong checksum of its %.4s chunk",
                             (const char *)chunk->type);
    return VIT_OK;
}

static vit_status read_ihdr(struct png *png, const struct chunk *chunk, size_t max_pixels, vit_error *err)
{
    if (!chunk_is(chunk, "IHDR") || chunk->length != IHDR_BYTES)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG does not start with its header");
    const uint8_t *p = png->ihdr = chunk->data;
    png->width = image_be32(p);
    png->height = image_be32(p + 4);
    vit_status status = image_check_size(png->width, png->height, max_pixels, err);
    if (status != VIT_OK)
        return status;
    static const uint8_t channels[7] = {1, 0, 3, 1, 2, 0, 4};
    unsigned depth = png->depth = p[8], colour = png->colour = p[9];
    png->channels = colour < sizeof channels ? channels[colour] : 0;
    bool depth_known = depth == 8 || (depth == 16 && colour != PALETTE) ||
                       ((depth == 1 || depth == 2 || depth == 4) && (colour == GREY || colour == PALETTE));
    if (png->channels == 0 || !depth_known || p[10] != 0 || p[11] != 0 || p[12] > 1)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "the PNG's header is damaged (depth %u, colour type %u, methods %u %u %u)",
                             depth, colour, p[10], p[11], p[12]);
    png->interlaced = p[12] == 1;
    return VIT_OK;
}

/* The first frame of an animation must be the whole picture, or its IDAT has another size than IHDR says. */
static vit_status check_frame(const struct png *png, const struct chunk *chunk, vit_error *err)
{
    const uint8_t *p = chunk->data;
    if (chunk->length >= 26 && image_be32(p + 4) == png->width && image_be32(p + 8) == png->height &&
        image_be32(p + 12) == 0 && image_be32(p + 16) == 0)
        return VIT_OK;
    return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                         "the first frame of the animated PNG does not cover it: send a plain PNG");
}

static vit_status read_chunk(struct png *png, const struct chunk *chunk, bool after_idat, vit_error *err)
{
    if (chunk_is(chunk, "IHDR"))
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG has two headers");
    if (chunk_is(chunk, "IDAT")) {
        if (after_idat)
            return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG is damaged: its data is interrupted");
        if (png->first_idat == NULL)
            png->first_idat = chunk->data - 8;
        png->idat_length += chunk->length;
    } else if (chunk_is(chunk, "PLTE") && png->first_idat == NULL) {
        if (chunk->length > PALETTE_BYTES)
            return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG's palette has more than 256 colours");
        png->plte = chunk->data;
        png->plte_length = chunk->length - chunk->length % 3;
    } else if (chunk_is(chunk, "eXIf") && (png->first_idat == NULL || png->orientation == 0)) {
        png->orientation = exif_orientation(chunk->data, chunk->length);
    } else if (chunk_is(chunk, "fcTL") && png->first_idat == NULL) {
        return check_frame(png, chunk, err);
    }
    return VIT_OK;
}

static vit_status read_chunks(struct png *png, const struct image_source *source, vit_error *err)
{
    size_t at = SIGNATURE_BYTES;
    struct chunk chunk;
    vit_status status = chunk_next(&chunk, &at, source, err);
    if (status == VIT_OK)
        status = read_ihdr(png, &chunk, source->max_pixels, err);
    if (status == VIT_OK)
        status = chunk_verify(&chunk, err);
    bool after_idat = false;
    while (status == VIT_OK) {
        status = chunk_next(&chunk, &at, source, err);
        if (status == VIT_OK)
            status = chunk_verify(&chunk, err);
        if (status != VIT_OK || chunk_is(&chunk, "IEND"))
            break;
        after_idat = after_idat || (png->first_idat != NULL && !chunk_is(&chunk, "IDAT"));
        status = read_chunk(png, &chunk, after_idat, err);
    }
    if (status == VIT_OK && png->first_idat == NULL)
        status = vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG has no picture data");
    if (status == VIT_OK && png->colour == PALETTE && png->plte == NULL)
        status = vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG has no palette");
    return status;
}

/* Bytes of all rows with their filter bytes; of an interlaced picture, no less than in its seven passes.
 * Sides have 16 bits, so nothing here overflows. */
static size_t inflated_bytes(const struct png *png)
{
    size_t rows = ((png->width * png->channels * png->depth + 7) / 8 + 1) * png->height;
    return png->interlaced ? rows + rows / 2 + 7 * (png->width + png->height) : rows;
}

/* What stb_image holds at its worst: the data; while inflating, a buffer that may double and be copied; then
 * the unfiltered picture, perhaps deinterlaced into another, and its conversion. */
static size_t budget(const struct png *png)
{
    size_t pixels = png->width * png->height;
    size_t samples = pixels * png->channels * (png->depth == 16 ? 2 : 1);
    return 65536 + png->idat_length + 3 * inflated_bytes(png) + 2 * samples + 8 * pixels;
}

/* The inflated size that stb_image may meet: what the rows need, and as much again for encoders that append.
 */
static size_t inflated_limit(const struct png *png)
{
    return 2 * inflated_bytes(png) + 65536;
}

/*
 * Inflates the data once with zlib and throws the result away. It costs about a third of the decode and buys
 * what stb_image's inflate does not do: verify the stream's checksum, refuse its every irregularity, and stop
 * at a bomb. So stb_image inflates only streams that are known to be sound.
 */
static vit_status verify_data(const struct png *png, const uint8_t *data, vit_error *err)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)png, (void)data, (void)err;
    return VIT_OK;
#endif
    uint8_t window[32768];
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)png->idat_length};
    if (png->idat_length > INT_MAX || inflateInit(&stream) != Z_OK)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to decode the PNG");
    int result;
    do {
        stream.next_out = window;
        stream.avail_out = sizeof window;
        result = inflate(&stream, Z_NO_FLUSH);
    } while (result == Z_OK && stream.total_out <= inflated_limit(png));
    size_t total = stream.total_out;
    inflateEnd(&stream);
    if (total > inflated_limit(png))
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED,
                             "the PNG holds more data than its %zux%zu pixels can need", png->width,
                             png->height);
    if (result == Z_MEM_ERROR)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to decode the PNG");
    if (result != Z_STREAM_END)
        return vit_error_set(err, VIT_ERR_IMAGE_DAMAGED, "the PNG is damaged (compressed data)");
    return VIT_OK;
}

static uint8_t *put_chunk(uint8_t *out, const char *type, const uint8_t *data, size_t length)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(length >> (24 - 8 * i));
    memcpy(out + 4, type, 4);
    if (data != NULL)
        memcpy(out + 8, data, length);
    memset(out + 8 + length, 0, 4); /* stb_image does not look at checksums */
    return out + CHUNK_BYTES + length;
}

static size_t rewritten_bytes(const struct png *png)
{
    return SIGNATURE_BYTES + 4 * CHUNK_BYTES + IHDR_BYTES + PALETTE_BYTES + png->idat_length;
}

/* Writes the plain PNG to out, [rewritten_bytes()], and returns its length. *idat is where its IDAT's data
 * stand. */
static size_t rewrite(uint8_t *out, const struct png *png, const uint8_t **idat)
{
    uint8_t *at = out + SIGNATURE_BYTES;
    memcpy(out, "\x89PNG\r\n\x1A\n", SIGNATURE_BYTES);
    at = put_chunk(at, "IHDR", png->ihdr, IHDR_BYTES);
    if (png->colour == PALETTE) {
        uint8_t palette[PALETTE_BYTES];
        for (size_t i = 0; i < PALETTE_BYTES; i++)
            palette[i] = i < png->plte_length ? png->plte[i] : (uint8_t)(i / 3);
        at = put_chunk(at, "PLTE", palette, PALETTE_BYTES);
    }
    uint8_t *data = at + 8;
    *idat = data;
    const uint8_t *from = png->first_idat;
    for (size_t copied = 0; copied < png->idat_length;) {
        size_t length = image_be32(from);
        memcpy(data + copied, from + 8, length);
        copied += length;
        from += CHUNK_BYTES + length;
    }
    at = put_chunk(at, "IDAT", NULL, png->idat_length);
    at = put_chunk(at, "IEND", NULL, 0);
    return (size_t)(at - out);
}

vit_status image_decode_png(vit_image *image, int *orientation, const struct image_source *source,
                            vit_error *err)
{
    struct png png = {0};
    vit_status status = read_chunks(&png, source, err);
    if (status != VIT_OK)
        return status;
    uint8_t *plain = malloc(rewritten_bytes(&png));
    if (plain == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to decode the PNG");
    const uint8_t *idat;
    const struct stb_job job = {
        .bytes = plain,
        .length = rewrite(plain, &png, &idat),
        .width = png.width,
        .height = png.height,
        .budget = budget(&png),
        .format = "PNG",
        .grey16 = png.colour == GREY && png.depth == 16,
    };
    status = verify_data(&png, idat, err);
    if (status == VIT_OK)
        status = stb_decode(image, &job, err);
    free(plain);
    *orientation = png.orientation;
    return status;
}
