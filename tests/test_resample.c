/*
 * test_resample.c - the vector loops of resampling against plain C, and whole resizes against Pillow's two passes
 * written out pixel by pixel. That these are Pillow's is what the golden tensors of test_image.c show.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/image/taps.h"
#include "engine/image/weigh.h"
#include "tests/suite.h"

static uint32_t state = 1;

static uint32_t random_below(uint32_t limit)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)state * limit) >> 32);
}

/* Blocks of exactly so many bytes, so that a sanitizer sees a read behind the end. */
static uint8_t *random_bytes(size_t count)
{
    uint8_t *bytes = malloc(count);
    for (size_t i = 0; i < count; i++) /* the extremes often, since they overshoot */
        bytes[i] = random_below(3) == 0 ? (uint8_t)(0u - random_below(2)) : (uint8_t)random_below(256);
    return bytes;
}

/* Sums are modulo 2^32; those of a filter fit. */
static uint8_t rounded(int64_t sum)
{
    const int32_t value = (int32_t)(uint32_t)(uint64_t)(sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* ---- the inner loop ---- */

START_TEST(test_weighers_equal_plain_sums)
{
    enum { MOST = 70 };
    weigher *list[2];
    const size_t available = weighers_available(list);
    ck_assert_uint_ge(available, 1);
    for (int round = 0; round < 3000; round++) {
        const size_t count = random_below(MOST), stride = WEIGH_LANES + random_below(9);
        uint8_t *in = random_bytes(MOST * stride);
        int32_t weights[MOST];
        for (size_t k = 0; k < count; k++) /* sums that fit, that clip and that wrap */
            weights[k] = ((int32_t)random_below(1u << 25) - (1 << 24)) / (int32_t)(1 + random_below((uint32_t)count));
        for (size_t n = 0; n < available; n++) {
            uint8_t out[WEIGH_LANES];
            list[n](out, in, stride, weights, count);
            for (size_t i = 0; i < WEIGH_LANES; i++) {
                int64_t sum = 0;
                for (size_t k = 0; k < count; k++)
                    sum += (int64_t)weights[k] * in[k * stride + i];
                ck_assert_msg(out[i] == rounded(sum), "weigher %zu, %zu lines: %d, not %d", n, count, out[i],
                              rounded(sum));
            }
        }
        free(in);
    }
}
END_TEST

/* One weight at a time, every value of a byte. */
START_TEST(test_weighers_equal_plain_products)
{
    weigher *list[2];
    const size_t available = weighers_available(list);
    uint8_t values[256 + WEIGH_LANES], out[WEIGH_LANES], plain[WEIGH_LANES];
    for (size_t i = 0; i < sizeof values; i++)
        values[i] = (uint8_t)i;
    for (int round = 0; round < 20000; round++) {
        const int32_t weight = (int32_t)(random_below(1u << 31) << 1) >> random_below(12);
        for (size_t at = 0; at < 256; at += WEIGH_LANES)
            for (size_t n = 0; n + 1 < available; n++) {
                list[n](out, values + at, 0, &weight, 1);
                list[available - 1](plain, values + at, 0, &weight, 1);
                ck_assert_mem_eq(out, plain, WEIGH_LANES);
            }
    }
}
END_TEST

START_TEST(test_lines_of_any_length)
{
    weigher *list[2];
    const size_t available = weighers_available(list);
    const int32_t weights[3] = {-(1 << 20), 3 << 20, 1 << 21};
    for (size_t bytes = 1; bytes < 4 * WEIGH_LANES; bytes++) {
        uint8_t *in = random_bytes(3 * bytes), out[4 * WEIGH_LANES + 1];
        for (size_t n = 0; n < available; n++) {
            memset(out, 77, sizeof out);
            weigh_lines(list[n], out, in, bytes, bytes, weights, 3);
            for (size_t i = 0; i < bytes; i++)
                ck_assert_uint_eq(out[i], rounded((int64_t)weights[0] * in[i] + (int64_t)weights[1] * in[bytes + i] +
                                                  (int64_t)weights[2] * in[2 * bytes + i]));
            ck_assert_uint_eq(out[bytes], 77);
        }
        free(in);
    }
}
END_TEST

/* ---- whole pictures ---- */

/* One line of count inputs, step bytes apart, to taps->outputs outputs, to_step apart. */
static void resize_line(uint8_t *out, size_t to_step, const uint8_t *in, size_t step, const struct taps *taps)
{
    for (size_t i = 0; i < taps->outputs; i++) {
        int64_t sum = 0;
        for (size_t k = 0; k < taps->count[i]; k++)
            sum += (int64_t)taps->weights[i * taps->weights_each + k] * in[(taps->first[i] + k) * step];
        out[i * to_step] = rounded(sum);
    }
}

static uint8_t *resize_slowly(const vit_image *in, size_t width, size_t height, vit_filter filter)
{
    struct taps columns = {0}, rows = {0};
    uint8_t *narrowed = malloc(width * in->height * 3), *out = malloc(width * height * 3);
    ck_assert_int_eq(taps_init(&columns, &(struct taps_range){in->width, width, 0, width}, filter, NULL), VIT_OK);
    ck_assert_int_eq(taps_init(&rows, &(struct taps_range){in->height, height, 0, height}, filter, NULL), VIT_OK);
    for (size_t y = 0; y < in->height; y++)
        for (size_t c = 0; c < 3; c++)
            if (width != in->width)
                resize_line(narrowed + y * width * 3 + c, 3, in->pixels + y * in->width * 3 + c, 3, &columns);
    if (width == in->width)
        memcpy(narrowed, in->pixels, width * in->height * 3);
    for (size_t x = 0; x < width * 3; x++)
        if (height != in->height)
            resize_line(out + x, width * 3, narrowed + x, width * 3, &rows);
    if (height == in->height)
        memcpy(out, narrowed, width * height * 3);
    free(narrowed);
    taps_release(&columns);
    taps_release(&rows);
    return out;
}

START_TEST(test_resize_equals_the_sums_written_out)
{
    for (int round = 0; round < 600; round++) {
        const size_t most = round % 10 == 0 ? 400 : 60;
        vit_image in = {NULL, 1 + random_below((uint32_t)most), 1 + random_below((uint32_t)most)}, out = {0};
        const size_t width = round % 7 == 0 ? in.width : 1 + random_below(90);
        const size_t height = round % 11 == 0 ? in.height : 1 + random_below(90);
        in.pixels = random_bytes(in.width * in.height * 3);
        for (int filter = VIT_FILTER_BOX; filter <= VIT_FILTER_LANCZOS; filter++) {
            uint8_t *expected = resize_slowly(&in, width, height, (vit_filter)filter);
            ck_assert_int_eq(vit_image_resize(&out, &in, width, height, (vit_filter)filter, NULL), VIT_OK);
            ck_assert_msg(memcmp(out.pixels, expected, width * height * 3) == 0, "%zux%zu to %zux%zu, %s", in.width,
                          in.height, width, height, vit_filter_name((vit_filter)filter));
            free(expected);
            vit_image_release(&out);
        }
        free(in.pixels);
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("resample");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, test_weighers_equal_plain_sums);
    tcase_add_test(tcase, test_weighers_equal_plain_products);
    tcase_add_test(tcase, test_lines_of_any_length);
    tcase_add_test(tcase, test_resize_equals_the_sums_written_out);
    Suite *suite = suite_create("resample");
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
