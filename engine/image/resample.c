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
 * The inner loops multiply by the 16-bit halves of the weights, because SSE2, which every x86-64 has,
 * multiplies and adds pairs of 16-bit numbers in one instruction. Sums are taken modulo 2^32: both halves may
 * wrap on the way to a result that fits.
 */
#include "engine/image/image.h"

#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__) && !defined(RESAMPLE_PORTABLE)
#define VECTORS 1
#include <immintrin.h>
#endif

#include "engine/base/error.h"
#include "engine/image/taps.h"

/* 3 GiB; nobody asks for more, and every size computed here stays far from overflow. */
#define MAX_RESULT_PIXELS ((size_t)1 << 30)
#define HALF (1u << (TAPS_PRECISION_BITS - 1))

/* ---- inner loops ---- */

static uint8_t clip(uint32_t sum)
{
    int32_t value = (int32_t)sum >> TAPS_PRECISION_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static uint32_t weigh(const struct pair *pair, unsigned first, unsigned second)
{
    uint32_t low = (uint32_t)(pair->low[0] * (int)first + pair->low[1] * (int)second);
    uint32_t high = (uint32_t)(pair->high[0] * (int)first + pair->high[1] * (int)second);
    return low + (high << 16);
}

#ifdef VECTORS

static __m128i load4(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm_cvtsi32_si128(four);
}

static __m128i splat(const int16_t *two)
{
    int32_t both;
    memcpy(&both, two, 4);
    return _mm_set1_epi32(both);
}

static __m128i finish(__m128i low, __m128i high)
{
    __m128i sum = _mm_add_epi32(low, _mm_slli_epi32(high, 16));
    return _mm_srai_epi32(sum, TAPS_PRECISION_BITS);
}

/* One row [n, 3]. Four bytes are read and written for each pixel's three: up to 4 bytes behind both rows, and
 * with an odd last tap 3 more behind the input, must be there. */
static void row_horizontal(uint8_t *out, const uint8_t *in, const struct taps *taps)
{
    const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi32(HALF);
    for (size_t i = 0; i < taps->outputs; i++, out += 3) {
        const uint8_t *p = in + taps->first[i] * 3;
        const struct pair *pair = taps->pairs + i * taps->pairs_each, *end = pair + (taps->count[i] + 1) / 2;
        __m128i low = half, high = zero;
        for (; pair < end; pair++, p += 6) {
            __m128i v = _mm_unpacklo_epi8(_mm_unpacklo_epi8(load4(p), load4(p + 3)),
                                          zero); /* r r g g b b - - */
            low = _mm_add_epi32(low, _mm_madd_epi16(v, splat(pair->low)));
            high = _mm_add_epi32(high, _mm_madd_epi16(v, splat(pair->high)));
        }
        __m128i words = _mm_packs_epi32(finish(low, high), zero);
        int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(words, zero));
        memcpy(out, &four, 4);
    }
}

static bool two_rows_at_once(void)
{
    return __builtin_cpu_supports("avx2");
}

/* Two rows, one in each half of the vectors; eight bytes are read where row_horizontal() reads four. */
__attribute__((target("avx2"))) static void two_rows_horizontal(uint8_t *out, const uint8_t *in,
                                                                size_t stride, const struct taps *taps)
{
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(HALF);
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1)); /* r r g g b b - - */
    uint8_t *below = out + taps->outputs * 3;
    for (size_t i = 0; i < taps->outputs; i++, out += 3, below += 3) {
        const uint8_t *p = in + taps->first[i] * 3;
        const struct pair *pair = taps->pairs + i * taps->pairs_each, *end = pair + (taps->count[i] + 1) / 2;
        __m256i low = half, high = zero;
        for (; pair < end; pair++, p += 6) {
            __m128i upper = _mm_loadl_epi64((const __m128i *)p);
            __m128i lower = _mm_loadl_epi64((const __m128i *)(p + stride));
            __m256i v = _mm256_shuffle_epi8(_mm256_set_m128i(lower, upper), spread);
            int32_t weights[2];
            memcpy(weights, pair, sizeof weights);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(v, _mm256_set1_epi32(weights[0])));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(v, _mm256_set1_epi32(weights[1])));
        }
        __m256i sum = _mm256_add_epi32(low, _mm256_slli_epi32(high, 16));
        __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(sum, TAPS_PRECISION_BITS), zero);
        __m256i bytes = _mm256_packus_epi16(words, zero);
        int32_t four[2] = {_mm_cvtsi128_si32(_mm256_castsi256_si128(bytes)),
                           _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1))};
        if (i + 1 < taps->outputs)
            memcpy(out, four, 4);
        else
            memcpy(out, four, 3); /* the first pixel of the row below is done */
        memcpy(below, four + 1, 4);
    }
}

/* Eight columns of bytes at a time; returns how many were done. */
static size_t row_vertical_fast(uint8_t *out, const uint8_t *in, size_t stride, size_t bytes, size_t count,
                                const struct pair *pairs)
{
    const __m128i zero = _mm_setzero_si128(), half = _mm_set1_epi32(HALF);
    size_t x = 0;
    for (; x + 8 <= bytes; x += 8) {
        const uint8_t *p = in + x;
        __m128i low0 = half, low1 = half, high0 = zero, high1 = zero;
        for (size_t y = 0; y < count; y += 2, p += 2 * stride) {
            const struct pair *pair = &pairs[y / 2];
            __m128i a = _mm_loadl_epi64((const __m128i *)p);
            __m128i b = y + 1 < count ? _mm_loadl_epi64((const __m128i *)(p + stride)) : zero;
            __m128i both = _mm_unpacklo_epi8(a, b);
            __m128i v0 = _mm_unpacklo_epi8(both, zero), v1 = _mm_unpackhi_epi8(both, zero);
            __m128i low = splat(pair->low), high = splat(pair->high);
            low0 = _mm_add_epi32(low0, _mm_madd_epi16(v0, low));
            low1 = _mm_add_epi32(low1, _mm_madd_epi16(v1, low));
            high0 = _mm_add_epi32(high0, _mm_madd_epi16(v0, high));
            high1 = _mm_add_epi32(high1, _mm_madd_epi16(v1, high));
        }
        __m128i words = _mm_packs_epi32(finish(low0, high0), finish(low1, high1));
        _mm_storel_epi64((__m128i *)(out + x), _mm_packus_epi16(words, zero));
    }
    return x;
}

#else

static bool two_rows_at_once(void)
{
    return false;
}

static void two_rows_horizontal(uint8_t *out, const uint8_t *in, size_t stride, const struct taps *taps)
{
    (void)out, (void)in, (void)stride, (void)taps;
}

static void row_horizontal(uint8_t *out, const uint8_t *in, const struct taps *taps)
{
    for (size_t i = 0; i < taps->outputs; i++, out += 3) {
        const uint8_t *p = in + taps->first[i] * 3;
        const struct pair *pairs = taps->pairs + i * taps->pairs_each;
        uint32_t sum[3] = {HALF, HALF, HALF};
        for (size_t x = 0; x < taps->count[i]; x += 2, p += 6)
            for (int c = 0; c < 3; c++)
                sum[c] += weigh(&pairs[x / 2], p[c], p[c + 3]);
        for (int c = 0; c < 3; c++)
            out[c] = clip(sum[c]);
    }
}

static size_t row_vertical_fast(uint8_t *out, const uint8_t *in, size_t stride, size_t bytes, size_t count,
                                const struct pair *pairs)
{
    (void)out, (void)in, (void)stride, (void)bytes, (void)count, (void)pairs;
    return 0;
}

#endif

/* One row of bytes from `count` rows at in, stride apart. */
static void row_vertical(uint8_t *out, const uint8_t *in, size_t stride, size_t bytes, size_t count,
                         const struct pair *pairs)
{
    for (size_t x = row_vertical_fast(out, in, stride, bytes, count, pairs); x < bytes; x++) {
        const uint8_t *p = in + x;
        uint32_t sum = HALF;
        for (size_t y = 0; y < count; y += 2, p += 2 * stride)
            sum += weigh(&pairs[y / 2], p[0], y + 1 < count ? p[stride] : 0);
        out[x] = clip(sum);
    }
}

/* ---- passes ---- */

/* Rows [top, top + rows) of in, each resampled to taps->outputs pixels. */
static vit_status pass_horizontal(vit_image *out, const vit_image *in, size_t top, size_t rows,
                                  const struct taps *taps, vit_error *err)
{
    size_t stride = in->width * 3;
    uint8_t *last = calloc(stride + IMAGE_SLACK, 1);
    if (last == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory to resize the image");
    vit_status status = image_allocate(out, taps->outputs, rows, err);
    bool vectors = two_rows_at_once();
    for (size_t y = 0; status == VIT_OK && y < rows; y++) {
        const uint8_t *row = in->pixels + (top + y) * stride;
        uint8_t *to = out->pixels + y * taps->outputs * 3;
        size_t behind = (in->height - top - y - 1) * stride;
        if (vectors && y + 1 < rows && behind >= stride + IMAGE_SLACK) {
            two_rows_horizontal(to, row, stride, taps);
            y++;
            continue;
        }
        if (behind < IMAGE_SLACK) /* too near the end to read past the row */
            row = memcpy(last, row, stride);
        row_horizontal(to, row, taps);
    }
    free(last);
    return status;
}

/* Columns [left, left + width) of in, resampled to taps->outputs rows; taps count rows from `top` on. */
static vit_status pass_vertical(vit_image *out, const vit_image *in, size_t left, size_t width, size_t top,
                                const struct taps *taps, vit_error *err)
{
    vit_status status = image_allocate(out, width, taps->outputs, err);
    if (status != VIT_OK)
        return status;
    size_t stride = in->width * 3;
    for (size_t i = 0; i < taps->outputs; i++)
        row_vertical(out->pixels + i * width * 3, in->pixels + (taps->first[i] - top) * stride + left * 3,
                     stride, width * 3, taps->count[i], taps->pairs + i * taps->pairs_each);
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
        status = pass_horizontal(down ? &narrowed : out, in, top, height, &columns, err);
    if (status == VIT_OK && down)
        status = across ? pass_vertical(out, &narrowed, 0, w->width, top, &rows, err)
                        : pass_vertical(out, in, w->x, w->width, 0, &rows, err);
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
