/* test_picture.c - what is drawn, pixel by pixel where it can be told. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/picture/canvas.h"
#include "tests/suite.h"

/* A picture whose every pixel is different. */
static vit_image make_picture(size_t width, size_t height)
{
    vit_image image = {.pixels = malloc(3 * width * height), .width = width, .height = height};
    for (size_t i = 0; i < 3 * width * height; i++)
        image.pixels[i] = (uint8_t)(i * 37 % 251);
    return image;
}

static vit_heatmap heatmap_over(const vit_image *picture, const vit_map *maps, size_t count)
{
    return (vit_heatmap){.picture = picture,
                         .region = {0, 0, (double)picture->width, (double)picture->height},
                         .grid_height = 2,
                         .grid_width = 2,
                         .maps = maps,
                         .count = count,
                         .scale = 1,
                         .max_pixels = 1 << 24,
                         .alpha = 0.5f,
                         .overlay = true};
}

static vit_image draw(const vit_heatmap *heatmap)
{
    vit_image out = {0};
    vit_error err = {""};
    ck_assert_msg(vit_heatmap_draw(&out, heatmap, &err) == VIT_OK, "%s", err.message);
    return out;
}

static void assert_pixel(const vit_image *image, size_t x, size_t y, int r, int g, int b)
{
    const uint8_t *p = image->pixels + (y * image->width + x) * 3;
    ck_assert_msg(p[0] == r && p[1] == g && p[2] == b, "pixel %zu, %zu is %d %d %d, not %d %d %d", x, y, p[0], p[1],
                  p[2], r, g, b);
}

static void assert_colour(const vit_image *image, size_t x, size_t y, struct colour colour)
{
    assert_pixel(image, x, y, colour.r, colour.g, colour.b);
}

static const float corners[4] = {0, 1, 2, 4};
static const vit_map corner_map = {corners, NULL};

/* ---- colours ---- */

/* Entries of matplotlib's tables. */
static const struct {
    size_t index;
    uint8_t viridis[3], turbo[3];
} known_colours[] = {
    {0, {68, 1, 84}, {48, 18, 59}},      {32, {71, 45, 123}, {70, 107, 227}},  {64, {59, 82, 139}, {40, 188, 235}},
    {96, {44, 114, 142}, {50, 242, 152}}, {128, {33, 145, 140}, {164, 252, 60}}, {160, {40, 174, 128}, {238, 207, 58}},
    {192, {94, 201, 98}, {251, 126, 33}}, {224, {173, 220, 48}, {208, 47, 5}},   {255, {253, 231, 37}, {122, 4, 3}},
};

static void assert_near(struct colour colour, const uint8_t expected[3], int most)
{
    ck_assert_msg(abs(colour.r - expected[0]) <= most && abs(colour.g - expected[1]) <= most &&
                      abs(colour.b - expected[2]) <= most,
                  "%d %d %d instead of %d %d %d", colour.r, colour.g, colour.b, expected[0], expected[1], expected[2]);
}

START_TEST(test_colormaps)
{
    struct colour viridis[COLORMAP_SIZE], turbo[COLORMAP_SIZE];
    colormap_table(viridis, VIT_COLORMAP_VIRIDIS);
    colormap_table(turbo, VIT_COLORMAP_TURBO);
    for (size_t i = 0; i < sizeof known_colours / sizeof known_colours[0]; i++) {
        const size_t index = known_colours[i].index;
        const int most = index > 0 && index < 255;
        assert_near(viridis[index], known_colours[i].viridis, most);
        assert_near(turbo[index], known_colours[i].turbo, most);
    }
    double before = 0;
    for (size_t i = 0; i < COLORMAP_SIZE; i++) { /* viridis grows lighter throughout */
        const double light = 0.2126 * viridis[i].r + 0.7152 * viridis[i].g + 0.0722 * viridis[i].b;
        ck_assert_double_ge(light, before - 0.5);
        before = light;
    }
}
END_TEST

START_TEST(test_levels)
{
    const float values[] = {NAN, -2, 6, 0, INFINITY, -INFINITY};
    const struct range range = range_of(values, 6);
    ck_assert_double_eq(range.low, -2);
    ck_assert_double_eq(range.high, 6);
    const float expected[] = {0, 0, 255, 63.75f, 255, 0};
    for (int i = 0; i < 6; i++)
        ck_assert_float_eq_tol(range_level(&range, values[i]), expected[i], 1e-4f);
    ck_assert_uint_eq(level_index(0), 0);
    ck_assert_uint_eq(level_index(127.5), 128);
    ck_assert_uint_eq(level_index(255), 255);

    const float far[] = {-3.4e38f, 0, 3.4e38f}; /* their difference is no float */
    const struct range wide = range_of(far, 3);
    ck_assert_float_eq_tol(range_level(&wide, far[1]), 127.5f, 1e-3f);
    const float near[] = {0, 1e-45f}; /* nor is its reciprocal */
    const struct range narrow = range_of(near, 2);
    ck_assert_float_eq_tol(range_level(&narrow, near[1]), 255, 1e-3f);
    const float nothing[] = {NAN, INFINITY};
    const struct range none = range_of(nothing, 2);
    ck_assert_float_eq(range_level(&none, INFINITY), 0);
}
END_TEST

/* ---- heatmaps ---- */

START_TEST(test_transparent_map_is_the_picture)
{
    vit_image picture = make_picture(33, 17);
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    heatmap.alpha = 0;
    vit_image out = draw(&heatmap);
    ck_assert(out.width == 33 && out.height == 17);
    ck_assert_mem_eq(out.pixels, picture.pixels, 3 * 33 * 17);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

/* Bilinear between the centres of the cells, which lie at a quarter and three quarters. */
START_TEST(test_bare_map_is_bilinear)
{
    struct colour colours[COLORMAP_SIZE];
    colormap_table(colours, VIT_COLORMAP_VIRIDIS);
    vit_image picture = make_picture(8, 8);
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    heatmap.overlay = false;
    vit_image out = draw(&heatmap);
    for (size_t y = 0; y < 8; y++)
        for (size_t x = 0; x < 8; x++) {
            const double u = fmin(fmax(((double)x + 0.5) / 4 - 0.5, 0), 1);
            const double v = fmin(fmax(((double)y + 0.5) / 4 - 0.5, 0), 1);
            const double value = (1 - v) * (u * 1) + v * ((1 - u) * 2 + u * 4);
            assert_colour(&out, x, y, colours[level_index(value / 4 * 255)]);
        }
    assert_pixel(&out, 0, 0, 68, 1, 84);
    assert_pixel(&out, 7, 7, 253, 231, 37);
    vit_image_release(&out);
    heatmap.overlay = true;
    heatmap.alpha = 1;
    out = draw(&heatmap);
    assert_pixel(&out, 0, 0, 68, 1, 84);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_half_opacity_mixes_with_grey)
{
    vit_image picture = make_picture(4, 4);
    memset(picture.pixels, 0, 48);
    picture.pixels[0] = 200; /* red: of the lightness 200 * 54 / 256 */
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    vit_image out = draw(&heatmap);
    assert_pixel(&out, 0, 0, (42 + 68 + 1) / 2, (42 + 1 + 1) / 2, (42 + 84 + 1) / 2);
    assert_pixel(&out, 3, 3, (253 + 1) / 2, (231 + 1) / 2, (37 + 1) / 2);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_constant_map)
{
    static const float same[4] = {3, 3, 3, 3}, nothing[4] = {NAN, NAN, INFINITY, NAN};
    const vit_map maps[] = {{same, NULL}, {nothing, NULL}};
    vit_image picture = make_picture(4, 4);
    for (int i = 0; i < 2; i++) {
        vit_heatmap heatmap = heatmap_over(&picture, &maps[i], 1);
        heatmap.overlay = false;
        vit_image out = draw(&heatmap);
        for (size_t k = 0; k < 16; k++)
            assert_pixel(&out, k % 4, k / 4, 68, 1, 84);
        vit_image_release(&out);
    }
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_nan_is_the_minimum)
{
    static const float with_nan[4] = {NAN, 1, 2, 4}, without[4] = {1, 1, 2, 4};
    const vit_map maps[] = {{with_nan, NULL}, {without, NULL}};
    vit_image picture = make_picture(16, 16);
    vit_heatmap heatmap = heatmap_over(&picture, &maps[0], 1), expected = heatmap_over(&picture, &maps[1], 1);
    vit_image out = draw(&heatmap), other = draw(&expected);
    ck_assert_mem_eq(out.pixels, other.pixels, 3 * 16 * 16);
    vit_image_release(&out);
    vit_image_release(&other);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_region)
{
    vit_image picture = make_picture(16, 8);
    memset(picture.pixels, 100, 3 * 16 * 8);
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    heatmap.region = (vit_region){4, 0, 8, 8};
    heatmap.alpha = 1;
    vit_image out = draw(&heatmap);
    assert_pixel(&out, 3, 4, 35, 35, 35);
    assert_pixel(&out, 12, 4, 35, 35, 35);
    assert_pixel(&out, 4, 0, 68, 1, 84);
    assert_pixel(&out, 11, 7, 253, 231, 37);
    vit_image_release(&out);
    heatmap.overlay = false;
    out = draw(&heatmap);
    assert_pixel(&out, 3, 4, 0, 0, 0);
    assert_pixel(&out, 4, 0, 68, 1, 84);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_region_beyond_the_picture)
{
    struct colour colours[COLORMAP_SIZE];
    colormap_table(colours, VIT_COLORMAP_VIRIDIS);
    vit_image picture = make_picture(16, 8);
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    heatmap.overlay = false;
    heatmap.region = (vit_region){-8, -8, 32, 24}; /* the middle of the map */
    vit_image out = draw(&heatmap);
    const double u = 8.5 / 16 - 0.5, v = 8.5 / 12 - 0.5; /* of the first pixel, between the cells' centres */
    const double value = (1 - v) * (u * 1) + v * ((1 - u) * 2 + u * 4);
    assert_colour(&out, 0, 0, colours[level_index(value / 4 * 255)]);
    vit_image_release(&out);
    heatmap.region = (vit_region){-100, -100, 50, 50}; /* none of it is in the picture */
    out = draw(&heatmap);
    for (size_t i = 0; i < 16 * 8; i++)
        assert_pixel(&out, i % 16, i / 16, 0, 0, 0);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_scale)
{
    vit_image picture = make_picture(5, 3);
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    heatmap.scale = 4;
    heatmap.alpha = 0;
    vit_image out = draw(&heatmap);
    ck_assert(out.width == 20 && out.height == 12);
    for (size_t y = 0; y < 12; y++)
        for (size_t x = 0; x < 20; x++)
            ck_assert_mem_eq(out.pixels + (y * 20 + x) * 3, picture.pixels + (y / 4 * 5 + x / 4) * 3, 3);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

/* Dark pixels in a part of a picture. */
static size_t ink_in(const vit_image *image, size_t left, size_t top, size_t width, size_t height)
{
    size_t ink = 0;
    for (size_t y = top; y < top + height; y++)
        for (size_t x = left; x < left + width; x++)
            ink += image->pixels[(y * image->width + x) * 3] < 100;
    return ink;
}

START_TEST(test_montage)
{
    const vit_map maps[] = {{corners, "one"}, {corners, "a label that is far too long for its tile"}, {corners, ""},
                            {corners, NULL}, {corners, "\xc3\x89gyptian \xff\x80 cat"}};
    vit_image picture = make_picture(40, 30);
    vit_heatmap heatmap = heatmap_over(&picture, maps, 5);
    heatmap.alpha = 0;
    vit_image out = draw(&heatmap); /* three columns, two rows */
    const size_t across = 40 + 8, down = 30 + 13 + 8;
    ck_assert_uint_eq(out.width, 8 + 3 * across);
    ck_assert_uint_eq(out.height, 8 + 2 * down);
    for (size_t i = 0; i < 5; i++)
        for (size_t y = 0; y < 30; y++) {
            const size_t left = 8 + i % 3 * across, top = 8 + i / 3 * down + 13 + y;
            ck_assert_mem_eq(out.pixels + (top * out.width + left) * 3, picture.pixels + y * 120, 120);
        }
    ck_assert_uint_gt(ink_in(&out, 8, 8, 40, 13), 10);
    ck_assert_uint_gt(ink_in(&out, 8 + across, 8, 40, 13), 10);
    ck_assert_uint_eq(ink_in(&out, 8 + across + 40, 8, 8 + 40, 13), 0); /* the long label is cut, the next empty */
    ck_assert_uint_eq(ink_in(&out, 8, 8 + down, 40, 13), 0);
    ck_assert_uint_gt(ink_in(&out, 8 + across, 8 + down, 40, 13), 10);
    ck_assert_uint_eq(ink_in(&out, 8 + 2 * across, 8 + down, 40, down - 8), 0); /* there is no sixth */
    assert_colour(&out, 2, 2, colour_paper);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_montage_shapes)
{
    const vit_map maps[] = {{corners, NULL}, {corners, NULL}, {corners, NULL}, {corners, "x"}};
    vit_image picture = make_picture(20, 10);
    static const struct {
        size_t first, count, columns, across, down, label;
    } cases[] = {{0, 1, 0, 0, 0, 0}, {0, 1, 5, 0, 0, 0}, {0, 3, 0, 2, 2, 0}, {0, 3, 1, 1, 3, 0},
                 {0, 3, 9, 3, 1, 0}, {3, 1, 0, 1, 1, 13}, {0, 4, 4, 4, 1, 13}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vit_heatmap heatmap = heatmap_over(&picture, maps + cases[i].first, cases[i].count);
        heatmap.columns = cases[i].columns;
        vit_image out = draw(&heatmap);
        ck_assert_uint_eq(out.width, cases[i].across > 0 ? 8 + cases[i].across * 28 : 20);
        ck_assert_uint_eq(out.height, cases[i].down > 0 ? 8 + cases[i].down * (18 + cases[i].label) : 10);
        vit_image_release(&out);
    }
    vit_image_release(&picture);
}
END_TEST

/* Letters are as large as fits: twice as large on a tile of 224 pixels, unless a label is too long for that. */
START_TEST(test_label_size)
{
    vit_image picture = make_picture(224, 2);
    vit_map maps[] = {{corners, "layer 3, head 11"}, {corners, "Egyptian cat, layer 3, head 11"}};
    vit_heatmap heatmap = heatmap_over(&picture, maps, 1);
    vit_image out = draw(&heatmap);
    ck_assert_uint_eq(out.height, 8 + 26 + 2 + 8);
    vit_image_release(&out);
    heatmap.count = 2;
    heatmap.columns = 2;
    out = draw(&heatmap);
    ck_assert_uint_eq(out.height, 8 + 13 + 2 + 8);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

static void expect_refusal(const vit_heatmap *heatmap, const char *sentence)
{
    vit_image out = {0};
    vit_error err = {""};
    ck_assert_int_eq(vit_heatmap_draw(&out, heatmap, &err), VIT_ERR_ARGUMENT);
    ck_assert_msg(strstr(err.message, sentence) != NULL, "\"%s\" does not say \"%s\"", err.message, sentence);
    ck_assert_ptr_null(out.pixels);
    ck_assert_int_eq(vit_heatmap_draw(&out, heatmap, NULL), VIT_ERR_ARGUMENT);
}

START_TEST(test_too_large)
{
    vit_image picture = make_picture(10, 10);
    const vit_map maps[] = {corner_map, corner_map};
    vit_heatmap heatmap = heatmap_over(&picture, maps, 1);
    heatmap.max_pixels = 100;
    vit_image fits = draw(&heatmap);
    vit_image_release(&fits);
    heatmap.max_pixels = 99;
    expect_refusal(&heatmap, "a picture of 10x10 pixels, each 1 times as large, has more than the 99 allowed");
    heatmap.count = 2;
    heatmap.max_pixels = (8 + 2 * 18) * (8 + 18);
    fits = draw(&heatmap);
    vit_image_release(&fits);
    heatmap.max_pixels--;
    expect_refusal(&heatmap, "allowed");
    heatmap.max_pixels = SIZE_MAX;
    const size_t scales[] = {SIZE_MAX, SIZE_MAX / 8, SIZE_MAX / 10, (size_t)1 << 32};
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        heatmap.scale = scales[i];
        expect_refusal(&heatmap, "allowed");
    }
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_heatmap_refusals)
{
    vit_image picture = make_picture(10, 10), empty = {picture.pixels, 0, 10};
    const vit_heatmap good = heatmap_over(&picture, &corner_map, 1);
    vit_heatmap heatmap = good;
    static const vit_region regions[] = {{0, 0, 0, 10},   {0, 0, 10, -1},      {0, 0, NAN, 10},
                                         {NAN, 0, 10, 10}, {0, INFINITY, 10, 10}};
    for (size_t i = 0; i < sizeof regions / sizeof regions[0]; i++) {
        heatmap.region = regions[i];
        expect_refusal(&heatmap, "cannot cover");
    }
    static const float alphas[] = {NAN, -0.1f, 1.1f, INFINITY};
    heatmap = good;
    for (size_t i = 0; i < sizeof alphas / sizeof alphas[0]; i++) {
        heatmap.alpha = alphas[i];
        expect_refusal(&heatmap, "alpha");
    }
    heatmap = good, heatmap.count = 0;
    expect_refusal(&heatmap, "needs");
    heatmap = good, heatmap.scale = 0;
    expect_refusal(&heatmap, "needs");
    heatmap = good, heatmap.grid_width = 0;
    expect_refusal(&heatmap, "needs");
    heatmap = good, heatmap.picture = &empty;
    expect_refusal(&heatmap, "needs");
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_smallest_heatmap)
{
    static const float one[1] = {7};
    const vit_map map = {one, "x"}, unlabelled = {one, NULL};
    vit_image picture = make_picture(1, 1);
    vit_heatmap heatmap = heatmap_over(&picture, &map, 1);
    heatmap.grid_height = heatmap.grid_width = 1;
    vit_image out = draw(&heatmap);
    ck_assert(out.width == 17 && out.height == 8 + 13 + 1 + 8);
    vit_image_release(&out);
    heatmap.maps = &unlabelled;
    heatmap.alpha = 1;
    out = draw(&heatmap);
    ck_assert(out.width == 1 && out.height == 1);
    assert_pixel(&out, 0, 0, 68, 1, 84);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

/* ---- text ---- */

static vit_image paper(size_t width, size_t height)
{
    vit_image canvas = {0};
    ck_assert_int_eq(canvas_create(&canvas, width, height, SIZE_MAX, colour_paper, NULL), VIT_OK);
    return canvas;
}

/* Both texts look the same within max_width. */
static void expect_same_text(const char *text, const char *other, size_t max_width)
{
    vit_image first = paper(80, 16), second = paper(80, 16);
    text_draw(&first, 2, 2, 1, colour_ink, text, max_width);
    text_draw(&second, 2, 2, 1, colour_ink, other, SIZE_MAX);
    ck_assert_msg(memcmp(first.pixels, second.pixels, 3 * 80 * 16) == 0, "\"%s\" is not drawn as \"%s\"", text, other);
    vit_image_release(&first);
    vit_image_release(&second);
}

START_TEST(test_text_width)
{
    ck_assert_uint_eq(text_width("", 1), 0);
    ck_assert_uint_eq(text_width("ab", 3), 3 * text_width("ab", 1));
    vit_image canvas = paper(80, 16);
    text_draw(&canvas, 2, 2, 1, colour_ink, "head 11", SIZE_MAX);
    ck_assert_uint_gt(ink_in(&canvas, 2, 0, text_width("head 11", 1), 16), 30);
    ck_assert_uint_eq(ink_in(&canvas, 2 + text_width("head 11", 1), 0, 20, 16), 0);
    vit_image_release(&canvas);
    canvas = paper(80, 16);
    text_draw(&canvas, 2, 2, 1, colour_ink, "HH", SIZE_MAX); /* no space before the first, none behind the last */
    ck_assert_uint_gt(ink_in(&canvas, 2, 0, 1, 16), 5);
    ck_assert_uint_gt(ink_in(&canvas, 2 + text_width("HH", 1) - 1, 0, 1, 16), 5);
    vit_image_release(&canvas);
}
END_TEST

START_TEST(test_text_beyond_ascii)
{
    expect_same_text("caf\xc3\xa9", "caf?", SIZE_MAX);
    expect_same_text("\xe2\x82\xac\xf0\x9f\x98\x80", "??", SIZE_MAX);
    expect_same_text("\n\x7f\x01", "???", SIZE_MAX);
    expect_same_text("\xc3(\xff\x80\xe2\x82", "?(????", SIZE_MAX); /* bytes that are no characters, one by one */
    expect_same_text("\xc3", "?", SIZE_MAX);                        /* cut off in the middle */
    expect_same_text("\xf0\x9f\x98", "???", SIZE_MAX);
}
END_TEST

START_TEST(test_text_is_cut)
{
    expect_same_text("mmmmmmmmmm", "mmm..", 30);
    expect_same_text("mmmm", "mmmm", text_width("mmmm", 1));
    expect_same_text("mmmm", "mmm..", text_width("mmmm", 1) - 1);
    expect_same_text("mmmm", "mm..", text_width("mmm..", 1) - 1);
    expect_same_text("mmmm", "", 3);
    expect_same_text("mmmm", "", 0);
    char *longest = malloc(10001), cut[161];
    memset(longest, 'm', 10000);
    longest[10000] = '\0';
    snprintf(cut, sizeof cut, "%.158s..", longest);
    ck_assert_uint_eq(text_width(longest, 1), text_width(cut, 1));
    expect_same_text(longest, longest, 20000);
    free(longest);
}
END_TEST

START_TEST(test_text_is_clipped)
{
    vit_image canvas = paper(50, 20);
    text_draw(&canvas, -20, -3, 5, colour_ink, "clipped at every side", SIZE_MAX);
    text_draw(&canvas, 45, 18, 5, colour_ink, "clipped", SIZE_MAX);
    text_draw(&canvas, -1e9, 1e9, 1, colour_ink, "away", SIZE_MAX);
    canvas_disc(&canvas, 0, 20, 4, colour_ink, 1);
    canvas_disc(&canvas, NAN, INFINITY, 4, colour_ink, 1);
    assert_colour(&canvas, 0, 19, colour_ink);
    assert_colour(&canvas, 0, 10, colour_paper);
    vit_image_release(&canvas);
}
END_TEST

START_TEST(test_disc)
{
    vit_image canvas = paper(20, 20);
    canvas_disc(&canvas, 10, 10, 5, (struct colour){0, 0, 0}, 1);
    double ink = 0;
    for (size_t i = 0; i < 400; i++)
        ink += (255 - canvas.pixels[3 * i]) / 255.0;
    ck_assert_double_eq_tol(ink, 25 * acos(-1), 1.5);
    assert_pixel(&canvas, 10, 10, 0, 0, 0);
    assert_pixel(&canvas, 3, 10, 255, 255, 255);
    canvas_disc(&canvas, 10, 10, 3, (struct colour){255, 0, 0}, 0.5);
    assert_pixel(&canvas, 10, 10, 128, 0, 0);
    vit_image_release(&canvas);
}
END_TEST

/* ---- plots ---- */

START_TEST(test_filters)
{
    enum { P = 4, COUNT = 9 };
    float filters[COUNT * 3 * P * P] = {0};
    filters[0] = 2;                  /* the first filter's first pixel: all red */
    filters[3 * P * P + P * P] = -1; /* the second's: green at its least */
    filters[2 * 3 * P * P] = 1e-30f; /* the third's: red, however small */
    filters[2 * 3 * P * P + 1] = -5e-31f;
    vit_image out;
    ck_assert_int_eq(vit_filters_draw(&out, filters, COUNT, P, NULL), VIT_OK);
    ck_assert(out.width > 550 && out.width < 700);
    const size_t tile = (out.width - 2 * 16 + 4) / 7, cell = (tile - 4) / P;
    ck_assert_uint_eq(out.height, 2 * 16 + 2 * tile - 4);
    assert_pixel(&out, 16, 16, 255, 127, 127);
    assert_pixel(&out, 16 + cell - 1, 16 + cell - 1, 255, 127, 127);
    assert_pixel(&out, 16 + cell, 16, 127, 127, 127);
    assert_pixel(&out, 16 + tile - 1, 16, 255, 255, 255);
    assert_pixel(&out, 16 + tile, 16, 127, 0, 127);
    assert_pixel(&out, 16 + 2 * tile, 16, 255, 127, 127);
    assert_pixel(&out, 16 + 2 * tile + cell, 16, 63, 127, 127);
    assert_pixel(&out, 16 + 3 * tile, 16, 127, 127, 127);
    assert_pixel(&out, 16 + 5 * tile, 16 + tile, 255, 255, 255); /* there are nine */
    assert_pixel(&out, 2, 2, 255, 255, 255);
    vit_image_release(&out);
    filters[1] = NAN;
    filters[2] = INFINITY;
    ck_assert_int_eq(vit_filters_draw(&out, filters, 1, P, NULL), VIT_OK);
    assert_pixel(&out, 16, 16, 255, 127, 127);
    vit_image_release(&out);
    ck_assert_int_eq(vit_filters_draw(&out, filters, 1, 1, NULL), VIT_OK);
    vit_image_release(&out);
    ck_assert_int_eq(vit_filters_draw(&out, filters, 0, P, NULL), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_filters_draw(&out, filters, 1, SIZE_MAX / 2, NULL), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_filters_draw(&out, filters, SIZE_MAX / 2, P, NULL), VIT_ERR_ARGUMENT);
}
END_TEST

/* Two rows of three patches: of patch 1 (row 0, column 1) all is low, but what it shares with patch 5 (1, 2). */
START_TEST(test_positions)
{
    float similarity[36];
    for (int i = 0; i < 36; i++)
        similarity[i] = i % 7 == 0 ? 1 : -0.5f;
    similarity[1 * 6 + 1] = -0.5f;
    similarity[1 * 6 + 5] = 1;
    vit_image out;
    ck_assert_int_eq(vit_positions_draw(&out, similarity, 2, 3, VIT_COLORMAP_VIRIDIS, NULL), VIT_OK);
    ck_assert(out.width > 700 && out.width <= 900);
    const size_t tile = (out.width - 2 * 16 + 4) / 3, cell = (tile - 4) / 3, middle = cell / 2;
    assert_pixel(&out, 16 + middle, 16 + middle, 253, 231, 37);        /* patch 0 and itself */
    assert_pixel(&out, 16 + cell + middle, 16 + middle, 68, 1, 84);    /* patch 0 and patch 1 */
    assert_pixel(&out, 16 + tile - 2, 16, 255, 255, 255);              /* between two tiles */
    assert_pixel(&out, 16 + tile + cell + middle, 16 + middle, 68, 1, 84);
    assert_pixel(&out, 16 + tile + 2 * cell + middle, 16 + cell + middle, 253, 231, 37); /* patch 1 and patch 5 */
    assert_pixel(&out, 16 + 2 * tile + 2 * cell + middle, 16 + 2 * cell + 4 + cell + middle, 253, 231, 37);
    const size_t bar = out.height - 16 - 10;
    ck_assert_uint_gt(ink_in(&out, 16, out.height - 32, 50, 16), 20); /* "-0.50" */
    assert_pixel(&out, 16 + text_width("-0.50", 2) + 10, bar, 68, 1, 84);
    assert_pixel(&out, out.width - 16 - text_width("1.00", 2) - 11, bar, 253, 231, 37);
    vit_image_release(&out);
}
END_TEST

START_TEST(test_position_sizes)
{
    float *similarity = calloc((size_t)48 * 48 * 48 * 48, sizeof *similarity);
    similarity[0] = NAN;
    static const size_t sizes[][2] = {{1, 1}, {1, 9}, {40, 1}, {14, 14}, {24, 24}, {48, 48}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        vit_image out;
        const vit_status status =
            vit_positions_draw(&out, similarity, sizes[i][0], sizes[i][1], VIT_COLORMAP_TURBO, NULL);
        ck_assert_int_eq(status, VIT_OK);
        assert_pixel(&out, 16, 16, 48, 18, 59);
        if (i == 3 || i == 4) /* the usual ones */
            ck_assert_msg(out.width >= 600 && out.width <= 900, "%zu pixels", out.width);
        vit_image_release(&out);
    }
    vit_image out;
    ck_assert_int_eq(vit_positions_draw(&out, similarity, 0, 48, VIT_COLORMAP_TURBO, NULL), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_positions_draw(&out, similarity, 2, SIZE_MAX / 4, VIT_COLORMAP_TURBO, NULL), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_positions_draw(&out, similarity, 1000, 1000, VIT_COLORMAP_TURBO, NULL), VIT_ERR_ARGUMENT);
    free(similarity);
}
END_TEST

/* The axes end at 50: dots at the bottom of layer 0, at the top of layer 1. */
START_TEST(test_distances)
{
    const float distances[4] = {0, 20, 50, 30};
    vit_image out;
    ck_assert_int_eq(vit_distances_draw(&out, distances, 2, 2, NULL), VIT_OK);
    ck_assert(out.width == 900 && out.height == 560);
    const size_t left = 76, right = 900 - 96, top = 52, bottom = 560 - 64;
    const size_t ten = bottom - 89, twenty = bottom - 178; /* a fifth is 88.8 pixels */
    const size_t x[2] = {left + (right - left) / 4, left + (right - left) * 3 / 4};
    const uint8_t *p = out.pixels + ((bottom - 1) * 900 + x[0]) * 3;
    ck_assert_msg(p[0] < 100 && p[1] < 40 && p[2] < 110, "head 0 is %d %d %d", p[0], p[1], p[2]);
    p = out.pixels + (twenty * 900 + x[0]) * 3;
    ck_assert_msg(p[1] > 200 && p[2] < 100, "head 1 is %d %d %d", p[0], p[1], p[2]);
    ck_assert_uint_gt(ink_in(&out, x[1] - 3, top - 3, 6, 6), 30);
    ck_assert_uint_eq(ink_in(&out, x[1] - 3, top + 20, 6, bottom - top - 20), 0); /* 30 is head 1's, light */
    assert_colour(&out, left + 20, ten, colour_faint);
    assert_colour(&out, left + 20, ten + 1, colour_paper);
    assert_colour(&out, left + 20, bottom, colour_ink);
    ck_assert_uint_gt(ink_in(&out, right + 10, top, 80, 80), 50); /* the legend */
    vit_image_release(&out);
}
END_TEST

START_TEST(test_distance_sizes)
{
    static const size_t sizes[][2] = {{1, 1}, {12, 3}, {24, 16}, {200, 64}, {1, 4096}};
    static const float tops[] = {100, 1e-45f, 3e38f, 0, -5, NAN, INFINITY};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t k = 0; k < sizeof tops / sizeof tops[0]; k++) {
            const size_t count = sizes[i][0] * sizes[i][1];
            float *distances = malloc(count * sizeof *distances);
            for (size_t n = 0; n < count; n++)
                distances[n] = tops[k];
            vit_image out;
            ck_assert_int_eq(vit_distances_draw(&out, distances, sizes[i][0], sizes[i][1], NULL), VIT_OK);
            vit_image_release(&out);
            free(distances);
        }
    vit_image out;
    ck_assert_int_eq(vit_distances_draw(&out, tops, 0, 1, NULL), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_distances_draw(&out, tops, 1, 0, NULL), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_distances_draw(&out, tops, SIZE_MAX, 2, NULL), VIT_ERR_ARGUMENT);
}
END_TEST

/* ---- PNG ---- */

START_TEST(test_png_round_trip)
{
    static const size_t sizes[][2] = {{1, 1}, {1, 300}, {300, 1}, {64, 64}, {257, 123}};
    for (size_t i = 0; i < 5; i++) {
        vit_image picture = make_picture(sizes[i][0], sizes[i][1]), back;
        vit_error err = {""};
        uint8_t *png;
        size_t length;
        ck_assert_int_eq(vit_png_encode(&png, &length, &picture, &err), VIT_OK);
        ck_assert_msg(vit_image_decode(&back, png, length, 1 << 20, &err) == VIT_OK, "%s", err.message);
        ck_assert(back.width == picture.width && back.height == picture.height);
        ck_assert_mem_eq(back.pixels, picture.pixels, 3 * picture.width * picture.height);
        vit_image_release(&back);
        vit_image_release(&picture);
        free(png);
    }
}
END_TEST

START_TEST(test_png_refusals)
{
    vit_image picture = make_picture(1, 1);
    static const size_t sizes[][2] = {{0, 1}, {1, 0}, {SIZE_MAX, 2}, {SIZE_MAX / 2, 1}, {1 << 30, 1}, {40000, 40000}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const vit_image absurd = {picture.pixels, sizes[i][0], sizes[i][1]};
        uint8_t *png = NULL;
        size_t length = 0;
        ck_assert_int_eq(vit_png_encode(&png, &length, &absurd, NULL), VIT_ERR_ARGUMENT);
        ck_assert(png == NULL && length == 0);
    }
    vit_image_release(&picture);
}
END_TEST

int main(void)
{
    const TTest *const all[] = {
        test_colormaps, test_levels, test_transparent_map_is_the_picture, test_bare_map_is_bilinear,
        test_half_opacity_mixes_with_grey, test_constant_map, test_nan_is_the_minimum, test_region,
        test_region_beyond_the_picture, test_scale, test_montage, test_montage_shapes, test_label_size, test_too_large,
        test_heatmap_refusals, test_smallest_heatmap, test_text_width, test_text_beyond_ascii, test_text_is_cut,
        test_text_is_clipped, test_disc, test_filters, test_positions, test_position_sizes, test_distances,
        test_distance_sizes, test_png_round_trip, test_png_refusals,
    };
    Suite *suite = suite_create("picture");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
