/* test_picture.c - what is drawn, pixel by pixel where it can be told. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/picture/canvas.h"

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

START_TEST(test_colormaps)
{
    struct colour viridis[COLORMAP_SIZE], turbo[COLORMAP_SIZE];
    colormap_table(viridis, VIT_COLORMAP_VIRIDIS);
    colormap_table(turbo, VIT_COLORMAP_TURBO);
    /* of matplotlib's table, by index */
    static const int known[][4] = {{0, 68, 1, 84}, {64, 59, 82, 139}, {128, 33, 145, 140}, {192, 94, 201, 98}, {255, 253, 231, 37}};
    for (size_t i = 0; i < 5; i++) {
        const struct colour *c = &viridis[known[i][0]];
        ck_assert(abs(c->r - known[i][1]) <= 2 && abs(c->g - known[i][2]) <= 2 && abs(c->b - known[i][3]) <= 2);
    }
    double before = -1;
    for (size_t i = 0; i < COLORMAP_SIZE; i++) { /* viridis grows lighter throughout */
        const double light = 0.2126 * viridis[i].r + 0.7152 * viridis[i].g + 0.0722 * viridis[i].b;
        ck_assert_double_ge(light, before - 0.5);
        before = light;
    }
    ck_assert(turbo[20].b > turbo[20].r && turbo[128].g > 240 && turbo[250].r > turbo[250].b + 100);
    ck_assert_uint_eq(colormap_index(-1), 0);
    ck_assert_uint_eq(colormap_index(NAN), 0);
    ck_assert_uint_eq(colormap_index(0.5), 128);
    ck_assert_uint_eq(colormap_index(INFINITY), 255);
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
            const double u = fmin(fmax(((double)x + 0.5) / 4 - 0.5, 0), 1), v = fmin(fmax(((double)y + 0.5) / 4 - 0.5, 0), 1);
            const double value = (1 - v) * (u * 1) + v * ((1 - u) * 2 + u * 4);
            assert_colour(&out, x, y, colours[colormap_index(value / 4)]);
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
    static const float same[4] = {3, 3, 3, 3}, odd[4] = {NAN, 0, 1, NAN};
    const vit_map maps[] = {{same, NULL}, {odd, NULL}};
    vit_image picture = make_picture(4, 4);
    for (int i = 0; i < 2; i++) {
        vit_heatmap heatmap = heatmap_over(&picture, &maps[i], 1);
        heatmap.overlay = false;
        vit_image out = draw(&heatmap);
        assert_pixel(&out, 0, 0, 68, 1, 84);
        vit_image_release(&out);
    }
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
    heatmap.region = (vit_region){-8, -8, 32, 24}; /* the middle of the map, enlarged */
    out = draw(&heatmap);
    const uint8_t *p = out.pixels;
    ck_assert(!(p[0] == 68 && p[1] == 1 && p[2] == 84));
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

START_TEST(test_montage)
{
    const vit_map maps[] = {{corners, "one"}, {corners, "a label that is far too long for its tile"}, {corners, ""},
                            {corners, NULL}, {corners, "\xc3\x89gyptian \xff\x80 cat"}};
    vit_image picture = make_picture(40, 30);
    vit_heatmap heatmap = heatmap_over(&picture, maps, 5);
    heatmap.alpha = 0;
    vit_image out = draw(&heatmap); /* three columns, two rows */
    ck_assert_uint_eq(out.width, 8 + 3 * (40 + 8));
    ck_assert_uint_eq(out.height, 8 + 2 * (30 + 12 + 8));
    for (size_t i = 0; i < 5; i++)
        for (size_t y = 0; y < 30; y++) {
            const size_t left = 8 + i % 3 * 48, top = 8 + i / 3 * 50 + 12 + y;
            ck_assert_mem_eq(out.pixels + (top * out.width + left) * 3, picture.pixels + y * 120, 120);
        }
    size_t ink[6] = {0}; /* dark pixels above each tile, and to the right of the second tile's label */
    for (size_t y = 8; y < 20; y++)
        for (size_t x = 0; x < out.width; x++)
            ink[x % 48 < 8 ? 5 : x / 48] += out.pixels[(y * out.width + x) * 3] < 100;
    ck_assert(ink[0] > 10 && ink[1] > 10 && ink[2] == 0 && ink[5] == 0);
    assert_colour(&out, 2, 2, colour_paper);
    vit_image_release(&out);
    heatmap.columns = 1;
    out = draw(&heatmap);
    ck_assert_uint_eq(out.width, 8 + 48);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_heatmap_refusals)
{
    vit_image picture = make_picture(10, 10), out = {0};
    vit_error err;
    vit_heatmap heatmap = heatmap_over(&picture, &corner_map, 1);
    heatmap.max_pixels = 100;
    vit_image fits = draw(&heatmap);
    vit_image_release(&fits);
    heatmap.max_pixels = 99;
    ck_assert_int_eq(vit_heatmap_draw(&out, &heatmap, &err), VIT_ERR_ARGUMENT);
    heatmap.max_pixels = 1 << 24;
    heatmap.scale = SIZE_MAX / 8;
    ck_assert_int_eq(vit_heatmap_draw(&out, &heatmap, &err), VIT_ERR_ARGUMENT);
    heatmap.scale = 1;
    heatmap.region.width = 0;
    ck_assert_int_eq(vit_heatmap_draw(&out, &heatmap, &err), VIT_ERR_ARGUMENT);
    heatmap.region.width = 10;
    heatmap.alpha = NAN;
    ck_assert_int_eq(vit_heatmap_draw(&out, &heatmap, &err), VIT_ERR_ARGUMENT);
    heatmap.alpha = 1;
    heatmap.count = 0;
    ck_assert_int_eq(vit_heatmap_draw(&out, &heatmap, &err), VIT_ERR_ARGUMENT);
    ck_assert_ptr_null(out.pixels);
    vit_image_release(&picture);
}
END_TEST

START_TEST(test_smallest_heatmap)
{
    static const float one[1] = {7};
    const vit_map map = {one, "x"};
    vit_image picture = make_picture(1, 1);
    vit_heatmap heatmap = heatmap_over(&picture, &map, 1);
    heatmap.grid_height = heatmap.grid_width = 1;
    vit_image out = draw(&heatmap);
    ck_assert(out.width == 17 && out.height == 8 + 1 + 12 + 8);
    vit_image_release(&out);
    vit_image_release(&picture);
}
END_TEST

/* ---- text ---- */

START_TEST(test_text)
{
    ck_assert_uint_eq(text_width("", 1), 0);
    ck_assert_uint_eq(text_width("ab", 3), 3 * text_width("ab", 1));
    ck_assert_uint_eq(text_width("\xc3\xa9", 1), text_width("?", 1));
    ck_assert_uint_eq(text_width("\xe2\x82\xac\xf0\x9f\x98\x80", 1), text_width("??", 1));
    ck_assert_uint_eq(text_width("\n\x7f", 1), text_width("??", 1));
    char *longest = malloc(10001);
    memset(longest, 'm', 10000);
    longest[10000] = '\0';
    vit_image canvas;
    vit_error err;
    ck_assert_int_eq(canvas_create(&canvas, 50, 20, 1000, colour_paper, &err), VIT_OK);
    text_draw(&canvas, 0, 2, 1, colour_ink, longest, 30);
    text_draw(&canvas, -20, -3, 5, colour_ink, "clipped at every side", 1000);
    text_draw(&canvas, 45, 18, 5, colour_ink, "clipped", 1000);
    text_draw(&canvas, 0, 0, 1, colour_ink, "no room", 0);
    vit_image_release(&canvas);
    ck_assert_int_eq(canvas_create(&canvas, 50, 20, 1000, colour_paper, &err), VIT_OK);
    text_draw(&canvas, 0, 2, 1, colour_ink, longest, 30);
    for (size_t y = 0; y < 20; y++)
        for (size_t x = 30; x < 50; x++)
            assert_colour(&canvas, x, y, colour_paper);
    vit_image_release(&canvas);
    free(longest);
}
END_TEST

/* ---- plots ---- */

START_TEST(test_filters)
{
    enum { P = 4, COUNT = 9 };
    float filters[COUNT * 3 * P * P] = {0};
    filters[0] = 2;                 /* the first filter's first pixel: all red */
    filters[3 * P * P + P * P] = -1; /* the second's: green at its least */
    vit_image out;
    vit_error err;
    ck_assert_int_eq(vit_filters_draw(&out, filters, COUNT, P, &err), VIT_OK);
    assert_pixel(&out, 16, 16, 255, 127, 127);
    const size_t tile = (out.width - 2 * 16 + 4) / 7;
    assert_pixel(&out, 16 + tile, 16, 127, 0, 127);
    assert_pixel(&out, 16 + 2 * tile, 16, 127, 127, 127);
    assert_pixel(&out, 16 + 5 * tile, 16 + tile, 255, 255, 255); /* there are nine */
    assert_pixel(&out, 2, 2, 255, 255, 255);
    vit_image_release(&out);
    ck_assert_int_eq(vit_filters_draw(&out, filters, 0, P, &err), VIT_ERR_ARGUMENT);
}
END_TEST

START_TEST(test_positions)
{
    float similarity[16];
    for (int i = 0; i < 16; i++)
        similarity[i] = i % 5 == 0 ? 1 : -0.5f;
    vit_image out;
    vit_error err;
    ck_assert_int_eq(vit_positions_draw(&out, similarity, 2, 2, VIT_COLORMAP_VIRIDIS, &err), VIT_OK);
    assert_pixel(&out, 20, 20, 253, 231, 37); /* the first patch, most like itself */
    assert_pixel(&out, 16 + 300, 20, 68, 1, 84);
    vit_image_release(&out);
    static float grid[48 * 48 * 48 * 48];
    ck_assert_int_eq(vit_positions_draw(&out, grid, 48, 48, VIT_COLORMAP_TURBO, &err), VIT_OK);
    ck_assert(out.width > 48 * 48 && out.width < 3000);
    vit_image_release(&out);
    ck_assert_int_eq(vit_positions_draw(&out, grid, 0, 48, VIT_COLORMAP_TURBO, &err), VIT_ERR_ARGUMENT);
}
END_TEST

START_TEST(test_distances)
{
    static const struct {
        size_t layers, heads;
    } sizes[] = {{1, 1}, {12, 3}, {24, 16}, {200, 64}};
    for (size_t i = 0; i < 4; i++) {
        const size_t count = sizes[i].layers * sizes[i].heads;
        float *distances = malloc(count * sizeof *distances);
        for (size_t k = 0; k < count; k++)
            distances[k] = 100;
        vit_image out;
        vit_error err;
        ck_assert_int_eq(vit_distances_draw(&out, distances, sizes[i].layers, sizes[i].heads, &err), VIT_OK);
        /* all dots lie on one line, the topmost: below it, above the axis, there is no dot */
        size_t high = 0, low = 0;
        for (size_t y = 30; y < 480; y++)
            for (size_t x = 90; x < 800; x++) {
                const uint8_t *p = out.pixels + (y * out.width + x) * 3;
                if (p[0] < 200 || p[2] < 200)
                    *(y < 60 ? &high : &low) += 1;
            }
        ck_assert_msg(high > 0 && low == 0, "%zu high, %zu low", high, low);
        vit_image_release(&out);
        free(distances);
    }
    const float none[2] = {0, 0};
    vit_image out;
    vit_error err;
    ck_assert_int_eq(vit_distances_draw(&out, none, 2, 1, &err), VIT_OK);
    vit_image_release(&out);
    ck_assert_int_eq(vit_distances_draw(&out, none, 0, 1, &err), VIT_ERR_ARGUMENT);
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

int main(void)
{
    const TTest *const all[] = {
        test_colormaps, test_transparent_map_is_the_picture, test_bare_map_is_bilinear, test_half_opacity_mixes_with_grey,
        test_constant_map, test_region, test_scale, test_montage, test_heatmap_refusals, test_smallest_heatmap, test_text,
        test_filters, test_positions, test_distances, test_png_round_trip,
    };
    Suite *suite = suite_create("picture");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
