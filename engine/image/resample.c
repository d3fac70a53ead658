/*
 * resample.c - Pillow's Image.resize(), bit for bit.
 *
 * Antialiased resampling in two passes, horizontal then vertical, each output a weighted sum (taps.h) of the
 * inputs under the filter's support. The picture between the passes has 8 bits. A pass whose size does not
 * change is skipped. Nearest is Pillow's affine scaling, which adds up its step in double from the left edge.
 *
 * Only the rows and columns under the wanted window are computed: after a resize to 256 and a centre crop to
 * 224 that saves a third of the work, and each output pixel is independent of the others, so the bits stay
 * the same.
 *
 * The vertical pass sums whole lines of bytes (weigh.h). So does the horizontal one: it turns 16 rows on their
 * side, where the three channels of a pixel are a line of 48 bytes, sums those, and turns the sums back.
 */
#include "engine/image/image.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/image/taps.h"
#include "engine/image/weigh.h"

/* 3 GiB; nobody asks for more, and every size computed here stays far from overflow. */
#define MAX_RESULT_PIXELS ((size_t)1 << 30)

/* ---- rows on their side ---- */

#define ROWS 16u
#define PIXEL (3 * ROWS) /* bytes from a pixel to the next of rows on their side */
_Static_assert(PIXEL == WEIGH_LANES, "a pixel of all rows is summed at once");

typedef uint8_t lane __attribute__((vector_size(ROWS)));
struct tile {
    lane lanes[ROWS];
};

/* Interleaves the upper half of the lanes with the lower, as a riffle does cards. */
static inline void riffle(struct tile *to, const struct tile *from)
{
    for (unsigned i = 0; i < ROWS / 2; i++) {
        const lane a = from->lanes[i], b = from->lanes[i + ROWS / 2];
        to->lanes[2 * i] =
            __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        to->lanes[2 * i + 1] =
            __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
}

/* Byte i of lane k becomes byte k of lane i: a byte's number k * 16 + i, 8 bits, is turned by 4 of them. */
static inline void transpose(struct tile *tile)
{
    struct tile other;
    riffle(&other, tile);
    riffle(tile, &other);
    riffle(&other, tile);
    riffle(tile, &other);
}

/* Byte x of row r goes to sides[x * ROWS + r]. sides is as long as whole tiles. */
static void turn_rows(uint8_t *sides, const uint8_t *const rows[ROWS], size_t bytes)
{
    struct tile tile = {0};
    size_t x = 0;
    for (; x + ROWS <= bytes; x += ROWS) {
        for (unsigned r = 0; r < ROWS; r++)
            memcpy(&tile.lanes[r], rows[r] + x, ROWS);
        transpose(&tile);
        memcpy(sides + x * ROWS, &tile, sizeof tile);
    }
    if (x == bytes)
        return;
    for (unsigned r = 0; r < ROWS; r++)
        memcpy(&tile.lanes[r], rows[r] + x, bytes - x);
    transpose(&tile);
    memcpy(sides + x * ROWS, &tile, sizeof tile);
}

/* The way back: `bytes` (up to ROWS) of each of `rows` rows, stride apart. */
static void turn_back(uint8_t *out, size_t stride, size_t rows, const uint8_t *sides, size_t bytes)
{
    struct tile tile;
    memcpy(&tile, sides, sizeof tile);
    transpose(&tile);
    for (size_t r = 0; r < rows; r++, out += stride)
        if (bytes == ROWS)
            memcpy(out, &tile.lanes[r], ROWS);
        else
            memcpy(out, &tile.lanes[r], bytes);
}

/* ---- passes ---- */

/* Up to ROWS rows of taps->outputs pixels from inputs on their side, of which the first is taps->first[0]. */
static void weigh_sides(weigher *weigh, uint8_t *out, size_t rows, const uint8_t *sides, const struct taps *taps)
{
    uint8_t sums[ROWS * PIXEL]; /* of 16 pixels, on their side */
    const size_t stride = taps->outputs * 3;
    for (size_t i = 0; i < taps->outputs; i += ROWS) {
        const size_t pixels = taps->outputs - i < ROWS ? taps->outputs - i : ROWS;
        for (size_t k = i; k < i + pixels; k++)
            weigh(sums + (k - i) * PIXEL, sides + (taps->first[k] - taps->first[0]) * PIXEL, PIXEL,
                  taps->weights + k * taps->weights_each, taps->count[k]);
        for (size_t x = 0; x < pixels * 3; x += ROWS)
            turn_back(out + i * 3 + x, stride, rows, sums + x * ROWS, pixels * 3 - x < ROWS ? pixels * 3 - x : ROWS);
    }
}

/* Rows [top, top + height) of in, each resampled to taps->outputs pixels. */
static vit_status pass_horizontal(weigher *weigh, vit_image *out, const vit_image *in, size_t top, size_t height,
                                  const struct taps *taps, vit_error *err)
{
    const size_t last = taps->outputs - 1, first = taps->first[0];
    const size_t bytes = (taps->first[last] + taps->count[last] - first) * 3;
    uint8_t *sides = malloc((bytes + ROWS) * ROWS);
    if (sides == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to resize the image");
    vit_status status = image_allocate(out, taps->outputs, height, err);
    for (size_t y = 0; status == VIT_OK && y < height; y += ROWS) {
        const size_t count = height - y < ROWS ? height - y : ROWS;
        const uint8_t *rows[ROWS];
        for (size_t r = 0; r < ROWS; r++) /* where rows are missing, the last one stands in */
            rows[r] = in->pixels + ((top + y + (r < count ? r : count - 1)) * in->width + first) * 3;
        turn_rows(sides, rows, bytes);
        weigh_sides(weigh, out->pixels + y * taps->outputs * 3, count, sides, taps);
    }
    free(sides);
    return status;
}

/* Columns [left, left + width) of in, resampled to taps->outputs rows; taps count rows from `top` on. */
static vit_status pass_vertical(weigher *weigh, vit_image *out, const vit_image *in, size_t left, size_t width,
                                size_t top, const struct taps *taps, vit_error *err)
{
    vit_status status = image_allocate(out, width, taps->outputs, err);
    if (status != VIT_OK)
        return status;
    const size_t stride = in->width * 3;
    for (size_t i = 0; i < taps->outputs; i++)
        weigh_lines(weigh, out->pixels + i * width * 3, in->pixels + (taps->first[i] - top) * stride + left * 3,
                    stride, width * 3, taps->weights + i * taps->weights_each, taps->count[i]);
    return VIT_OK;
}

static vit_status resize_filtered(vit_image *out, const vit_image *in, const struct image_window *w,
                                  vit_filter filter, vit_error *err)
{
    bool across = w->full_width != in->width, down = w->full_height != in->height;
    struct taps columns = {0}, rows = {0};
    vit_image narrowed = {0};
    vit_status status = VIT_OK;
    size_t top = w->y, height = w->height;
    weigher *list[2];
    weighers_available(list);
    if (down)
        status = taps_init(&rows, &(struct taps_range){in->height, w->full_height, w->y, w->height}, filter,
                           err);
    if (status == VIT_OK && down) {
        top = rows.first[0];
        height = rows.first[w->height - 1] + rows.count[w->height - 1] - top;
    }
    if (status == VIT_OK && across)
        status = taps_init(&columns, &(struct taps_range){in->width, w->full_width, w->x, w->width}, filter,
                           err);
    if (status == VIT_OK && across)
        status = pass_horizontal(list[0], down ? &narrowed : out, in, top, height, &columns, err);
    if (status == VIT_OK && down)
        status = across ? pass_vertical(list[0], out, &narrowed, 0, w->width, top, &rows, err)
                        : pass_vertical(list[0], out, in, w->x, w->width, 0, &rows, err);
    vit_image_release(&narrowed);
    taps_release(&columns);
    taps_release(&rows);
    return status;
}

/* ---- nearest and copies ---- */

/* Input of outputs [start, start + outputs), SIZE_MAX where rounding pushed the sum over the edge. */
static void nearest_positions(size_t *positions, size_t in_size, size_t out_size, size_t start,
                              size_t outputs)
{
    double step = (double)in_size / (double)out_size, at = step * 0.5;
    for (size_t i = 0; i < start + outputs; i++, at += step)
        if (i >= start)
            positions[i - start] = at < (double)in_size ? (size_t)at : SIZE_MAX;
}

static vit_status resize_nearest(vit_image *out, const vit_image *in, const struct image_window *w,
                                 vit_error *err)
{
    size_t *columns = calloc(w->width, sizeof *columns), *rows = calloc(w->height, sizeof *rows);
    vit_status status = VIT_ERR_NO_MEMORY;
    if (columns == NULL || rows == NULL)
        vit_error_set(err, status, "no memory to resize the image");
    else
        status = image_allocate(out, w->width, w->height, err);
    if (status == VIT_OK) {
        nearest_positions(columns, in->width, w->full_width, w->x, w->width);
        nearest_positions(rows, in->height, w->full_height, w->y, w->height);
        uint8_t *to = out->pixels;
        for (size_t y = 0; y < w->height; y++)
            for (size_t x = 0; x < w->width; x++, to += 3)
                if (rows[y] == SIZE_MAX || columns[x] == SIZE_MAX)
                    memset(to, 0, 3);
                else
                    memcpy(to, in->pixels + (rows[y] * in->width + columns[x]) * 3, 3);
    }
    free(columns);
    free(rows);
    return status;
}

static vit_status copy_window(vit_image *out, const vit_image *in, const struct image_window *w,
                              vit_error *err)
{
    vit_status status = image_allocate(out, w->width, w->height, err);
    for (size_t y = 0; status == VIT_OK && y < w->height; y++)
        memcpy(out->pixels + y * w->width * 3, in->pixels + ((w->y + y) * in->width + w->x) * 3,
               w->width * 3);
    return status;
}

vit_status image_resize_window(vit_image *out, const vit_image *in, const struct image_window *window,
                               vit_filter filter, vit_error *err)
{
    vit_image resized = {0};
    vit_status status;
    if (window->full_width == in->width && window->full_height == in->height)
        status = copy_window(&resized, in, window, err);
    else if (filter == VIT_FILTER_NEAREST)
        status = resize_nearest(&resized, in, window, err);
    else
        status = resize_filtered(&resized, in, window, filter, err);
    if (status == VIT_OK)
        *out = resized;
    else
        vit_image_release(&resized);
    return status;
}

vit_status vit_image_resize(vit_image *out, const vit_image *in, size_t width, size_t height,
                            vit_filter filter, vit_error *err)
{
    if (width == 0 || height == 0 || in->width == 0 || in->height == 0 ||
        (unsigned)filter > VIT_FILTER_LANCZOS)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "cannot resize %zux%zu to %zux%zu with filter %d",
                             in->width, in->height, width, height, (int)filter);
    size_t pixels;
    if (__builtin_mul_overflow(width, height, &pixels) || pixels > MAX_RESULT_PIXELS)
        return vit_error_set(err, VIT_ERR_IMAGE_SIZE, "%zux%zu pixels are more than a resized image may have",
                             width, height);
    const struct image_window whole = {width, height, 0, 0, width, height};
    return image_resize_window(out, in, &whole, filter, err);
}

const char *vit_filter_name(vit_filter filter)
{
    static const char *const names[] = {
        [VIT_FILTER_NEAREST] = "nearest", [VIT_FILTER_BOX] = "box",         [VIT_FILTER_BILINEAR] = "bilinear",
        [VIT_FILTER_HAMMING] = "hamming", [VIT_FILTER_BICUBIC] = "bicubic", [VIT_FILTER_LANCZOS] = "lanczos",
    };
    return names[filter];
}
