/*
 * test_draft.c - JPEGs decoded smaller for a preprocessing that shrinks them: by how much, which way up, and how close to
 * the exact picture. The JPEGs are written here.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "tests/suite.h"
#include "vit_image.h"

#define PLENTY ((size_t)50000000)

struct jpeg {
    unsigned char *data;
    unsigned long length;
};

/* ---- helpers ---- */

/* Waves of several lengths, other ones in each channel and in no way symmetric. */
static void fill_row(unsigned char *row, size_t width, size_t y, int channels)
{
    for (size_t x = 0; x < width; x++)
        for (int c = 0; c < channels; c++)
            row[x * (size_t)channels + (size_t)c] =
                (unsigned char)(128 + 60 * sin((double)x * 0.02 * (c + 1) + (double)y * 0.01) +
                                50 * cos((double)y * 0.04 + (double)(x * y) * 0.00005 + c));
}

static struct jpeg jpeg_make(size_t width, size_t height, int channels, int orientation)
{
    unsigned char exif[] = "Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0";
    struct jpeg jpeg = {NULL, 0};
    struct jpeg_compress_struct writer;
    struct jpeg_error_mgr errors;
    writer.err = jpeg_std_error(&errors);
    jpeg_create_compress(&writer);
    jpeg_mem_dest(&writer, &jpeg.data, &jpeg.length);
    writer.image_width = (JDIMENSION)width;
    writer.image_height = (JDIMENSION)height;
    writer.input_components = channels;
    writer.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&writer);
    jpeg_set_quality(&writer, 90, TRUE);
    jpeg_start_compress(&writer, TRUE);
    exif[25] = (unsigned char)orientation;
    if (orientation != 0)
        jpeg_write_marker(&writer, JPEG_APP0 + 1, exif, sizeof exif);
    unsigned char *row = malloc(width * (size_t)channels);
    while (writer.next_scanline < height) {
        fill_row(row, width, writer.next_scanline, channels);
        jpeg_write_scanlines(&writer, &row, 1);
    }
    free(row);
    jpeg_finish_compress(&writer);
    jpeg_destroy_compress(&writer);
    return jpeg;
}

static vit_preprocess resize_to(vit_resize resize, size_t width, size_t height)
{
    return (vit_preprocess){.resize = resize,
                            .resize_width = width,
                            .resize_height = height,
                            .filter = VIT_FILTER_BICUBIC,
                            .crop = VIT_CROP_FLOOR,
                            .width = width,
                            .height = height,
                            .rescale_factor = 1,
                            .std = {1, 1, 1}};
}

static vit_image decode(struct jpeg jpeg, const vit_preprocess *preprocess)
{
    vit_image image = {0};
    vit_error err = {""};
    ck_assert_msg(vit_preprocess_decode(preprocess, &image, jpeg.data, jpeg.length, PLENTY, &err) == VIT_OK, "%s",
                  err.message);
    return image;
}

static void expect_size(size_t width, size_t height, vit_preprocess preprocess, size_t to_width, size_t to_height)
{
    struct jpeg jpeg = jpeg_make(width, height, 3, 0);
    vit_image image = decode(jpeg, &preprocess);
    ck_assert_msg(image.width == to_width && image.height == to_height, "%zux%zu came as %zux%zu, not %zux%zu", width,
                  height, image.width, image.height, to_width, to_height);
    vit_image_release(&image);
    free(jpeg.data);
}

/* ---- how much ---- */

START_TEST(test_draft_is_never_smaller_than_the_resize)
{
    const vit_preprocess exact = resize_to(VIT_RESIZE_EXACT, 32, 24);
    expect_size(64, 48, exact, 32, 24); /* exactly twice */
    expect_size(63, 48, exact, 63, 48); /* just below, in one direction or the other */
    expect_size(64, 47, exact, 64, 47);
    expect_size(65, 49, exact, 33, 25); /* sizes are rounded up */
    expect_size(127, 96, exact, 64, 48);
    expect_size(128, 96, exact, 32, 24);
    expect_size(255, 400, exact, 64, 100);
    expect_size(256, 192, exact, 32, 24);
    expect_size(1021, 777, exact, 128, 98); /* an eighth is the least there is */
    expect_size(1000, 30, exact, 1000, 30);
    expect_size(16, 12, exact, 16, 12);
}
END_TEST

START_TEST(test_draft_follows_the_kind_of_resize)
{
    vit_preprocess shortest = resize_to(VIT_RESIZE_SHORTEST_EDGE, 32, 32);
    expect_size(64, 100, shortest, 32, 50);
    expect_size(100, 64, shortest, 50, 32);
    expect_size(63, 200, shortest, 63, 200);
    shortest.width = shortest.height = 28; /* the crop does not count */
    expect_size(63, 200, shortest, 63, 200);
    expect_size(80, 60, resize_to(VIT_RESIZE_LONGEST_EDGE, 40, 40), 40, 30);
    expect_size(79, 60, resize_to(VIT_RESIZE_LONGEST_EDGE, 40, 40), 79, 60);
    expect_size(300, 300, resize_to(VIT_RESIZE_NONE, 32, 32), 300, 300);
    expect_size(300, 300, resize_to(VIT_RESIZE_EXACT, 0, 0), 300, 300); /* cannot be: for vit_preprocess_apply() to say */
}
END_TEST

START_TEST(test_draft_is_only_for_jpegs_and_on_demand)
{
    const vit_preprocess exact = resize_to(VIT_RESIZE_EXACT, 8, 8);
    struct jpeg jpeg = jpeg_make(200, 100, 3, 0);
    vit_image whole = {0}, image = decode(jpeg, NULL);
    ck_assert_int_eq(vit_image_decode(&whole, jpeg.data, jpeg.length, PLENTY, NULL), VIT_OK);
    ck_assert(whole.width == 200 && whole.height == 100 && image.width == 200 && image.height == 100);
    ck_assert_mem_eq(whole.pixels, image.pixels, 200 * 100 * 3);
    vit_image_release(&whole);
    vit_image_release(&image);
    free(jpeg.data);

    unsigned char bmp[54 + 64 * 64 * 3] = "BM";
    memcpy(bmp + 10, "\x36\0\0\0\x28\0\0\0\x40\0\0\0\x40\0\0\0\1\0\x18", 19);
    image = decode((struct jpeg){bmp, sizeof bmp}, &exact);
    ck_assert(image.width == 64 && image.height == 64);
    vit_image_release(&image);
}
END_TEST

START_TEST(test_draft_limits_the_size_in_the_file)
{
    const vit_preprocess exact = resize_to(VIT_RESIZE_EXACT, 8, 8);
    struct jpeg jpeg = jpeg_make(200, 100, 3, 0);
    vit_image image = {0};
    vit_error err = {""};
    ck_assert_int_eq(vit_preprocess_decode(&exact, &image, jpeg.data, jpeg.length, 200 * 100 - 1, &err),
                     VIT_ERR_IMAGE_SIZE);
    ck_assert_ptr_nonnull(strstr(err.message, "has 20000 pixels (200x100)"));
    ck_assert_int_eq(vit_preprocess_decode(&exact, &image, jpeg.data, jpeg.length / 2, PLENTY, &err),
                     VIT_ERR_IMAGE_DAMAGED);
    ck_assert_ptr_null(image.pixels);
    free(jpeg.data);
}
END_TEST

/* ---- which way up ---- */

/* b is a as the EXIF orientation turns it. */
static void expect_turned(const vit_image *a, const vit_image *b, int orientation)
{
    ck_assert_uint_eq(b->width, orientation >= 5 ? a->height : a->width);
    ck_assert_uint_eq(b->height, orientation >= 5 ? a->width : a->height);
    for (size_t y = 0; y < a->height; y++)
        for (size_t x = 0; x < a->width; x++) {
            const size_t mx = a->width - 1 - x, my = a->height - 1 - y;
            const size_t to_x[] = {x, mx, mx, x, y, my, my, y}, to_y[] = {y, y, my, my, x, x, mx, mx};
            const size_t to = to_y[orientation - 1] * b->width + to_x[orientation - 1];
            ck_assert_mem_eq(a->pixels + (y * a->width + x) * 3, b->pixels + to * 3, 3);
        }
}

/* 397x301 is decoded in several strips of rows, whole and at a half. */
START_TEST(test_draft_turns_as_exif_asks)
{
    struct jpeg plain = jpeg_make(397, 301, 3, 0);
    for (int orientation = 1; orientation <= 8; orientation++) {
        const bool turned = orientation >= 5;
        const vit_preprocess lying = resize_to(VIT_RESIZE_EXACT, 190, 80),
                             standing = resize_to(VIT_RESIZE_EXACT, turned ? 80 : 190, turned ? 190 : 80);
        struct jpeg jpeg = jpeg_make(397, 301, 3, orientation);
        for (int draft = 0; draft < 2; draft++) {
            vit_image a = decode(plain, draft ? &lying : NULL), b = decode(jpeg, draft ? &standing : NULL);
            ck_assert_uint_eq(a.width, draft ? 199 : 397);
            expect_turned(&a, &b, orientation);
            vit_image_release(&a);
            vit_image_release(&b);
        }
        /* the upright picture is compared, not the stored one */
        vit_image other = decode(jpeg, &lying);
        ck_assert_uint_eq(other.height, orientation >= 5 ? 397 : 151);
        vit_image_release(&other);
        free(jpeg.data);
    }
    free(plain.data);
}
END_TEST

/* ---- how close ---- */

/* Mean difference of the tensors, in steps of a pixel. */
static double difference(struct jpeg jpeg, const vit_preprocess *preprocess)
{
    const size_t count = 3 * preprocess->width * preprocess->height;
    float *tensors = malloc(2 * count * sizeof *tensors);
    double sum = 0;
    for (size_t draft = 0; draft < 2; draft++) {
        vit_image image = decode(jpeg, draft == 1 ? preprocess : NULL);
        ck_assert_int_eq(vit_preprocess_apply(preprocess, &image, tensors + draft * count, NULL), VIT_OK);
        vit_image_release(&image);
    }
    for (size_t i = 0; i < count; i++)
        sum += fabs((double)tensors[i] - (double)tensors[count + i]);
    free(tensors);
    return sum / (double)count;
}

static void expect_close(size_t width, size_t height, double bound)
{
    static const size_t sizes[][2] = {{200, 150}, {100, 75}, {99, 60}, {64, 64}, {47, 41}, {25, 18}};
    for (int channels = 1; channels <= 4; channels += channels == 1 ? 2 : 1) {
        struct jpeg jpeg = jpeg_make(width, height, channels, channels == 4 ? 6 : 3);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const vit_preprocess p = resize_to(VIT_RESIZE_EXACT, sizes[i][0], sizes[i][1]);
            const double mean = difference(jpeg, &p);
            if (channels < 4 || i > 0) /* standing, it is not twice as wide as 200 */
                ck_assert_msg(mean > 0 && mean < bound, "%d channels, %zux%zu to %zux%zu: %.3f", channels, width, height,
                              p.width, p.height, mean);
        }
        free(jpeg.data);
    }
}

/* Where the reduction does not divide a side, the decoded picture reaches up to 7 pixels over the edge. */
START_TEST(test_draft_is_close_to_exact)
{
    expect_close(400, 304, 1);
    expect_close(403, 301, 6);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("draft");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, test_draft_is_never_smaller_than_the_resize);
    tcase_add_test(tcase, test_draft_follows_the_kind_of_resize);
    tcase_add_test(tcase, test_draft_is_only_for_jpegs_and_on_demand);
    tcase_add_test(tcase, test_draft_limits_the_size_in_the_file);
    tcase_add_test(tcase, test_draft_turns_as_exif_asks);
    tcase_add_test(tcase, test_draft_is_close_to_exact);
    Suite *suite = suite_create("draft");
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
