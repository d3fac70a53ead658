/*
 * test_image.c - decoding against Pillow's pixels, resampling against Pillow's, preprocessing by hand, and
 * what damaged, hostile and absurd files must not do. Expected tensors are described in tests/golden.h.
 */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <zlib.h>

#include "tests/golden.h"
#include "tests/suite.h"
#include "vit_image.h"

#define PLENTY ((size_t)50000000)

struct bytes {
    unsigned char *data;
    size_t length;
};

/* ---- helpers ---- */

static const char *fixture(const char *folder, const char *name)
{
    static char path[1024];
    const char *tests = getenv("VITD_TESTS");
    snprintf(path, sizeof path, "%s/%s/%s", tests != NULL ? tests : "tests", folder, name);
    return path;
}

static struct bytes read_fixture(const char *folder, const char *name)
{
    FILE *file = fopen(fixture(folder, name), "rb");
    ck_assert_msg(file != NULL, "cannot open %s", fixture(folder, name));
    struct bytes file_bytes = {malloc(1 << 20), 0};
    file_bytes.length = fread(file_bytes.data, 1, 1 << 20, file);
    fclose(file);
    return file_bytes;
}

static void append(struct bytes *to, const void *data, size_t length)
{
    ck_assert_uint_lt(length, 1 << 30);
    to->data = realloc(to->data, to->length + length + 1);
    if (length > 0)
        memcpy(to->data + to->length, data, length);
    to->length += length;
}

static void append_be32(struct bytes *to, unsigned long value)
{
    unsigned char four[4] = {value >> 24 & 255, value >> 16 & 255, value >> 8 & 255, value & 255};
    append(to, four, 4);
}

static void append_chunk(struct bytes *to, const char *type, const void *data, size_t length)
{
    append_be32(to, length);
    append(to, type, 4);
    append(to, data, length);
    append_be32(to,
                crc32(crc32(0, (const Bytef *)type, 4), length > 0 ? data : (const void *)"", (uInt)length));
}

/* A PNG whose data is `raw` compressed; raw NULL stands for that many zeros. */
static struct bytes png_make(unsigned long w, unsigned long h, int depth, int colour, const void *raw,
                             size_t length)
{
    struct bytes png = {NULL, 0};
    unsigned char header[13] = {w >> 24 & 255, w >> 16 & 255, w >> 8 & 255, w & 255, h >> 24 & 255,
                                h >> 16 & 255, h >> 8 & 255,  h & 255,      depth,   colour};
    unsigned char *zeros = raw == NULL ? calloc(length, 1) : NULL;
    uLongf packed_length = compressBound(length);
    unsigned char *packed = malloc(packed_length);
    ck_assert_int_eq(compress2(packed, &packed_length, raw != NULL ? raw : zeros, length, 9), Z_OK);
    append(&png, "\x89PNG\r\n\x1A\n", 8);
    append_chunk(&png, "IHDR", header, 13);
    append_chunk(&png, "IDAT", packed, packed_length);
    append_chunk(&png, "IEND", NULL, 0);
    free(packed);
    free(zeros);
    return png;
}

static vit_status decode(vit_image *image, struct bytes file, size_t max_pixels, vit_error *err)
{
    /* an exact copy, so that a sanitizer sees a read behind the end */
    unsigned char *copy = malloc(file.length + 1);
    memcpy(copy + 1, file.data, file.length);
    memset(err, 0, sizeof *err);
    vit_status status = vit_image_decode(image, copy + 1, file.length, max_pixels, err);
    free(copy);
    return status;
}

/* Decodes a file that must be refused, with a message that says `sentence` and an image left alone. */
static void expect_refusal(struct bytes file, size_t max_pixels, vit_status status, const char *sentence)
{
    vit_image image = {0};
    vit_error err;
    ck_assert_int_eq(decode(&image, file, max_pixels, &err), status);
    ck_assert_msg(strstr(err.message, sentence) != NULL, "\"%s\" does not say \"%s\"", err.message, sentence);
    ck_assert_ptr_null(image.pixels);
    ck_assert_uint_eq(image.width, 0);
}

static void expect_pixels(const vit_image *image, struct golden *golden, const char *name)
{
    size_t shape[3] = {0, 0, 0}, count = 0;
    const unsigned char *expected = golden_get(golden, name, "U8", &count);
    ck_assert_msg(expected != NULL, "no tensor %s", name);
    ck_assert_uint_eq(golden_shape(golden, name, shape, 3), 3);
    ck_assert_msg(image->height == shape[0] && image->width == shape[1], "%s is %zux%zu, not %zux%zu", name,
                  image->width, image->height, shape[1], shape[0]);
    size_t differing = 0;
    for (size_t i = 0; i < count; i++)
        differing += image->pixels[i] != expected[i];
    ck_assert_msg(differing == 0, "%s: %zu of %zu bytes differ", name, differing, count);
}

static void expect_golden_decodes(const char *tensors, size_t at_least)
{
    struct golden *golden = golden_open(fixture("golden/decode", tensors));
    ck_assert_ptr_nonnull(golden);
    size_t n = 0;
    for (const char *name; (name = golden_name(golden, n)) != NULL; n++) {
        struct bytes file = read_fixture("golden/decode", name);
        vit_image image = {0};
        vit_error err;
        vit_status status = decode(&image, file, PLENTY, &err);
        ck_assert_msg(status == VIT_OK, "%s: %s", name, err.message);
        expect_pixels(&image, golden, name);
        vit_image_release(&image);
        free(file.data);
    }
    ck_assert_uint_ge(n, at_least);
    golden_free(golden);
}

static vit_image image_of(size_t w, size_t h, const unsigned char *pixels)
{
    vit_image image = {malloc(w * h * 3), w, h};
    memcpy(image.pixels, pixels, w * h * 3);
    return image;
}

/* ---- decoding ---- */

START_TEST(test_decode_equals_pillow)
{
    expect_golden_decodes("expected.safetensors", 19);
}
END_TEST

START_TEST(test_decode_equals_pillow_on_rare_encodings)
{
    expect_golden_decodes("extra.safetensors", 60);
}
END_TEST

START_TEST(test_decode_checks_size_first)
{
    struct bytes jpeg = read_fixture("golden/decode", "q75-420.jpg"),
                 bmp = read_fixture("golden/decode", "rgb.bmp");
    struct bytes png = read_fixture("golden/decode", "rgb.png"),
                 huge = png_make(60000, 60000, 8, 2, NULL, 100);
    const char *sentence = "has 2745 pixels (61x45); at most 2744 are allowed";
    expect_refusal(jpeg, 2744, VIT_ERR_IMAGE_SIZE, sentence);
    expect_refusal(png, 2744, VIT_ERR_IMAGE_SIZE, sentence);
    expect_refusal(bmp, 2744, VIT_ERR_IMAGE_SIZE, sentence);
    expect_refusal(huge, PLENTY, VIT_ERR_IMAGE_SIZE, "send a smaller one");
    free(huge.data);
    huge = png_make(0xFFFFFFFF, 0xFFFFFFFF, 8, 2, NULL, 100);
    expect_refusal(huge, (size_t)-1, VIT_ERR_IMAGE_SIZE, "at most 65535");
    free(huge.data);
    huge = png_make(0, 7, 8, 2, NULL, 100);
    expect_refusal(huge, PLENTY, VIT_ERR_IMAGE_DAMAGED, "0x7");
    /* a height and a width of 65535 in the JPEG's frame header and the BMP's */
    for (size_t i = 0; i + 9 < jpeg.length; i++)
        if (jpeg.data[i] == 0xFF && jpeg.data[i + 1] == 0xC0)
            memset(jpeg.data + i + 5, 0xFF, 4);
    memcpy(bmp.data + 18, "\xFF\xFF\0\0\xFF\xFF\0\0", 8);
    expect_refusal(jpeg, PLENTY, VIT_ERR_IMAGE_DAMAGED, "65500");
    expect_refusal(bmp, PLENTY, VIT_ERR_IMAGE_SIZE, "4294836225 pixels");
    expect_refusal(bmp, (size_t)-1, VIT_ERR_IMAGE_DAMAGED, "ends early");
    free(jpeg.data);
    free(png.data);
    free(bmp.data);
    free(huge.data);
}
END_TEST

START_TEST(test_decode_names_what_it_does_not_know)
{
    static const struct {
        const char *bytes;
        size_t length;
        const char *sentence;
    } cases[] = {
        {"", 0, "there are no bytes"},
        {"GIF89a??", 8, "a GIF, not a JPEG, PNG or BMP (first bytes 47 49 46 38): convert"},
        {"RIFF\1\2\3\4WEBPVP8 ", 16, "a WebP, not"},
        {"\0\0\0\x20"
         "ftypheic",
         12, "a HEIC, not"},
        {"\0\0\0\x20"
         "ftypavif",
         12, "an AVIF, not"},
        {"II*\0\1\2", 6, "a TIFF, not"},
        {"\xFF", 1, "not a JPEG, PNG or BMP (first bytes FF)"},
        {"hello", 5, "(first bytes 68 65 6C 6C): convert the image to one of these"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bytes file = {(unsigned char *)cases[i].bytes, cases[i].length};
        expect_refusal(file, PLENTY, VIT_ERR_IMAGE_TYPE, cases[i].sentence);
    }
    vit_image image;
    ck_assert_int_eq(vit_image_decode(&image, "abc", 3, PLENTY, NULL), VIT_ERR_IMAGE_TYPE);
    ck_assert_int_eq(vit_image_decode(&image, NULL, 0, PLENTY, NULL), VIT_ERR_IMAGE_TYPE);
}
END_TEST

/* A file cut at any length is refused, or (only its end mark missing) gives the same picture. */
START_TEST(test_decode_refuses_truncation)
{
    static const char *const names[] = {"q75-420.jpg",
                                        "extra-0.jpg",
                                        "extra-2.jpg",
                                        "extra-8bit-palette-i1.png",
                                        "extra-16bit-type6-i0.png",
                                        "extra-4bit.bmp",
                                        "extra-565.bmp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct bytes file = read_fixture("golden/decode", names[i]);
        vit_image whole = {0}, cut = {0};
        vit_error err;
        ck_assert_int_eq(decode(&whole, file, PLENTY, &err), VIT_OK);
        size_t bytes = whole.width * whole.height * 3, full = file.length;
        for (file.length = 0; file.length < full; file.length++) {
            vit_status status = decode(&cut, file, PLENTY, &err);
            if (status == VIT_OK) {
                ck_assert_msg(file.length + 4 >= full, "%s accepted at %zu of %zu", names[i], file.length,
                              full);
                ck_assert_mem_eq(cut.pixels, whole.pixels, bytes);
                vit_image_release(&cut);
            } else {
                ck_assert(status == VIT_ERR_IMAGE_DAMAGED ||
                          (status == VIT_ERR_IMAGE_TYPE && file.length < 8));
                ck_assert_str_ne(err.message, "");
            }
        }
        vit_image_release(&whole);
        free(file.data);
    }
}
END_TEST

START_TEST(test_png_inflates_no_further_than_its_size)
{
    struct bytes bomb = png_make(1, 1, 8, 2, NULL, (size_t)64 << 20);
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    expect_refusal(bomb, PLENTY, VIT_ERR_IMAGE_DAMAGED, "more data than its 1x1 pixels can need");
    getrusage(RUSAGE_SELF, &after);
    ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 16 << 10);
    free(bomb.data);
}
END_TEST

START_TEST(test_png_damage_is_named)
{
    unsigned char raw[4 * 4 * 3 + 4] = {0};
    struct bytes png = png_make(4, 4, 8, 2, raw, sizeof raw), changed = {NULL, 0};
    png.data[29] ^= 1;
    expect_refusal(png, PLENTY, VIT_ERR_IMAGE_DAMAGED, "wrong checksum of its IHDR chunk");
    png.data[29] ^= 1;
    png.data[44] ^= 1;
    expect_refusal(png, PLENTY, VIT_ERR_IMAGE_DAMAGED, "wrong checksum of its IDAT chunk");
    png.data[44] ^= 1;
    append(&changed, png.data, 33);
    append_chunk(&changed, "IEND", NULL, 0);
    expect_refusal(changed, PLENTY, VIT_ERR_IMAGE_DAMAGED, "no picture data");
    changed.length = 33;
    append(&changed, png.data + 8, png.length - 8);
    expect_refusal(changed, PLENTY, VIT_ERR_IMAGE_DAMAGED, "two headers");
    changed.length = 33;
    append(&changed, png.data + 33, png.length - 33 - 12);
    append_chunk(&changed, "tEXt", "a\0b", 3);
    append_chunk(&changed, "IDAT", "x", 1);
    append_chunk(&changed, "IEND", NULL, 0);
    expect_refusal(changed, PLENTY, VIT_ERR_IMAGE_DAMAGED, "interrupted");
    free(png.data);
    png = png_make(4, 4, 8, 3, raw, sizeof raw);
    expect_refusal(png, PLENTY, VIT_ERR_IMAGE_DAMAGED, "no palette");
    free(png.data);
    png = png_make(4, 4, 3, 2, raw, sizeof raw);
    expect_refusal(png, PLENTY, VIT_ERR_IMAGE_DAMAGED, "depth 3, colour type 2");
    free(png.data);
    png = png_make(4, 40, 8, 2, raw, sizeof raw);
    expect_refusal(png, PLENTY, VIT_ERR_IMAGE_DAMAGED, "not enough pixels");
    free(png.data);
    free(changed.data);
}
END_TEST

START_TEST(test_bmp_unknown_layouts_are_named)
{
    struct bytes bmp = read_fixture("golden/decode", "extra-565.bmp");
    bmp.data[54] ^= 1;
    expect_refusal(bmp, PLENTY, VIT_ERR_IMAGE_DAMAGED, "the masks 0000F801");
    bmp.data[30] = 1;
    expect_refusal(bmp, PLENTY, VIT_ERR_IMAGE_DAMAGED, "run-length");
    bmp.data[30] = 5;
    expect_refusal(bmp, PLENTY, VIT_ERR_IMAGE_DAMAGED, "compression 5");
    bmp.data[28] = 2;
    expect_refusal(bmp, PLENTY, VIT_ERR_IMAGE_DAMAGED, "a depth of 2");
    bmp.data[14] = 41;
    expect_refusal(bmp, PLENTY, VIT_ERR_IMAGE_DAMAGED, "a header of 41");
    free(bmp.data);
}
END_TEST

/* 3,000 copies of the last scan: 2 MB would keep a core busy for seconds. */
START_TEST(test_jpeg_scans_are_capped)
{
    struct bytes jpeg = read_fixture("golden/decode", "progressive.jpg"), bomb = {NULL, 0};
    size_t scan = jpeg.length - 3;
    while (jpeg.data[scan] != 0xFF || jpeg.data[scan + 1] != 0xDA)
        scan--;
    append(&bomb, jpeg.data, scan);
    for (int i = 0; i < 3000; i++)
        append(&bomb, jpeg.data + scan, jpeg.length - 2 - scan);
    append(&bomb, "\xFF\xD9", 2);
    expect_refusal(bomb, PLENTY, VIT_ERR_IMAGE_DAMAGED, "more than 100 scans");
    free(jpeg.data);
    free(bomb.data);
}
END_TEST

START_TEST(test_jpeg_first_exif_turns_the_picture)
{
    static const unsigned char exif[] = "\xFF\xE1\0\x22"
                                        "Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0";
    struct bytes plain = read_fixture("golden/decode", "q75-420.jpg"), turned = {NULL, 0};
    for (unsigned char orientation = 0; orientation < 10; orientation++) {
        turned.length = 0;
        append(&turned, plain.data, 2);
        append(&turned, exif, 36);
        turned.data[2 + 29] = orientation;
        append(&turned, exif, 36); /* a second block, asking for 6: ignored */
        append(&turned, plain.data + 2, plain.length - 2);
        vit_image a = {0}, b = {0};
        vit_error err;
        ck_assert_int_eq(decode(&a, plain, PLENTY, &err), VIT_OK);
        ck_assert_int_eq(decode(&b, turned, PLENTY, &err), VIT_OK);
        int o = orientation >= 1 && orientation <= 8 ? orientation : 1;
        ck_assert_uint_eq(b.width, o >= 5 ? a.height : a.width);
        for (size_t y = 0; y < a.height; y++)
            for (size_t x = 0; x < a.width; x++) {
                size_t mx = a.width - 1 - x, my = a.height - 1 - y;
                size_t to_x[] = {x, mx, mx, x, y, my, my, y}, to_y[] = {y, y, my, my, x, x, mx, mx};
                const unsigned char *p = a.pixels + (y * a.width + x) * 3;
                ck_assert_mem_eq(p, b.pixels + (to_y[o - 1] * b.width + to_x[o - 1]) * 3, 3);
            }
        vit_image_release(&a);
        vit_image_release(&b);
    }
    free(plain.data);
    free(turned.data);
}
END_TEST

static void mutate_and_decode(struct bytes file, unsigned seed, int times)
{
    struct bytes changed = {malloc(file.length), file.length};
    unsigned state = seed * 2654435761u + 1;
    for (int i = 0; i < times; i++) {
        memcpy(changed.data, file.data, file.length);
        for (unsigned n = 0; n < 1 + (unsigned)i % 4; n++) {
            state = state * 1664525u + 1013904223u;
            size_t at = (state >> 4) % (i % 2 ? file.length : file.length < 100 ? file.length : 100);
            state = state * 1664525u + 1013904223u;
            changed.data[at] = state >> 31 ? (unsigned char)(state >> 16)
                                           : changed.data[at] ^ (1u << (state >> 16 & 7));
        }
        /* half the PNGs get right checksums again, or nothing behind them is ever reached */
        for (size_t at = 8; i % 4 < 2 && memcmp(file.data, "\x89PNG", 4) == 0 && at + 12 <= file.length;) {
            size_t length = (size_t)changed.data[at + 2] << 8 | changed.data[at + 3];
            if (length > file.length - at - 12)
                break;
            unsigned long sum = crc32(0, changed.data + at + 4, (uInt)length + 4);
            for (int k = 0; k < 4; k++)
                changed.data[at + 8 + length + k] = (unsigned char)(sum >> (24 - 8 * k));
            at += 12 + length;
        }
        vit_image image = {0};
        vit_error err;
        vit_status status = decode(&image, changed, 1000000, &err);
        ck_assert((status == VIT_OK) == (image.pixels != NULL));
        ck_assert((status == VIT_OK) == (err.message[0] == '\0'));
        vit_image_release(&image);
    }
    free(changed.data);
}

START_TEST(test_decode_survives_mutation)
{
    const char *wanted = getenv("VITD_TEST_MUTATIONS");
    int times = wanted != NULL ? atoi(wanted) : 500;
    DIR *folder = opendir(fixture("fuzz/corpus-image", ""));
    ck_assert_ptr_nonnull(folder);
    unsigned files = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        struct bytes file = read_fixture("fuzz/corpus-image", entry->d_name);
        mutate_and_decode(file, (unsigned)crc32(0, file.data, (uInt)file.length),
                          file.length > 0 ? times : 0);
        free(file.data);
        files++;
    }
    closedir(folder);
    ck_assert_uint_ge(files, 20);
}
END_TEST

START_TEST(test_release_accepts_nothing)
{
    vit_image image = {0};
    vit_image_release(&image);
    vit_image_release(NULL);
}
END_TEST

/* ---- resampling ---- */

START_TEST(test_resize_equals_pillow)
{
    static const char *const filters[] = {"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"};
    struct golden *golden = golden_open(fixture("golden/resample", "expected.safetensors"));
    ck_assert_ptr_nonnull(golden);
    size_t n = 0;
    for (const char *name; (name = golden_name(golden, n)) != NULL; n++) {
        char input[16];
        snprintf(input, sizeof input, "in%c.png", name[0]);
        struct bytes file = read_fixture("golden/resample", input);
        size_t shape[3], filter = 0;
        while (filter < 6 && strcmp(filters[filter], name + 2) != 0)
            filter++;
        golden_shape(golden, name, shape, 3);
        vit_image in = {0}, out = {0};
        vit_error err;
        ck_assert_int_eq(decode(&in, file, PLENTY, &err), VIT_OK);
        ck_assert_int_eq(vit_image_resize(&out, &in, shape[1], shape[0], (vit_filter)filter, &err), VIT_OK);
        expect_pixels(&out, golden, name);
        vit_image_release(&in);
        vit_image_release(&out);
        free(file.data);
    }
    ck_assert_uint_eq(n, 30);
    golden_free(golden);
}
END_TEST

START_TEST(test_resize_to_the_same_size_copies)
{
    static const unsigned char pixels[] = {1, 2, 3, 4, 5, 6};
    vit_image in = image_of(2, 1, pixels), out = {0};
    for (int filter = VIT_FILTER_NEAREST; filter <= VIT_FILTER_LANCZOS; filter++) {
        ck_assert_int_eq(vit_image_resize(&out, &in, 2, 1, (vit_filter)filter, NULL), VIT_OK);
        ck_assert_ptr_ne(out.pixels, in.pixels);
        ck_assert_mem_eq(out.pixels, pixels, sizeof pixels);
        vit_image_release(&out);
    }
    vit_image_release(&in);
}
END_TEST

START_TEST(test_resize_refuses_the_impossible)
{
    static const unsigned char pixels[] = {1, 2, 3, 4, 5, 6};
    vit_image in = image_of(2, 1, pixels), out = {0};
    vit_error err;
    ck_assert_int_eq(vit_image_resize(&out, &in, 0, 1, VIT_FILTER_BOX, &err), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_image_resize(&out, &in, 1, 1, (vit_filter)6, &err), VIT_ERR_ARGUMENT);
    /* 2^31 coefficients and more would not fit Pillow's tables either */
    ck_assert_int_eq(vit_image_resize(&out, &in, (size_t)1 << 29, 1, VIT_FILTER_BICUBIC, &err),
                     VIT_ERR_IMAGE_SIZE);
    ck_assert_int_ne(vit_image_resize(&out, &in, (size_t)1 << 40, (size_t)1 << 40, VIT_FILTER_NEAREST, &err),
                     VIT_OK);
    ck_assert_ptr_null(out.pixels);
    vit_image_release(&in);
}
END_TEST

/* ---- preprocessing ---- */

/* A picture whose pixel (x, y) is (10 x, 10 y, 7), preprocessed without resizing to W x H; red and green of
 * the result, divided by 10, are the coordinates it shows, and -1 the padding. */
static void expect_crop(vit_crop crop, size_t w, size_t h, size_t W, size_t H, int left, int top)
{
    unsigned char pixels[3 * 64];
    for (size_t i = 0; i < w * h; i++)
        memcpy(pixels + 3 * i, (unsigned char[]){(i % w) * 10, (i / w) * 10, 7}, 3);
    vit_image image = image_of(w, h, pixels);
    vit_preprocess p = {
        .crop = crop, .width = W, .height = H, .fill = {1, 2, 3}, .rescale_factor = 1, .std = {1, 1, 1}};
    float tensor[3 * 64];
    ck_assert_int_eq(vit_preprocess_apply(&p, &image, tensor, NULL), VIT_OK);
    for (int y = 0; y < (int)H; y++)
        for (int x = 0; x < (int)W; x++) {
            int from_x = x + left, from_y = y + top;
            int inside = from_x >= 0 && from_x < (int)w && from_y >= 0 && from_y < (int)h;
            size_t i = (size_t)y * W + (size_t)x;
            ck_assert_float_eq(tensor[i], inside ? 10.0f * (float)from_x : 1.0f);
            ck_assert_float_eq(tensor[W * H + i], inside ? 10.0f * (float)from_y : 2.0f);
            ck_assert_float_eq(tensor[2 * W * H + i], inside ? 7.0f : 3.0f);
        }
    vit_image_release(&image);
}

START_TEST(test_preprocess_crops_as_the_references)
{
    expect_crop(VIT_CROP_FLOOR, 7, 6, 4, 4, 1, 1);
    expect_crop(VIT_CROP_ROUND, 7, 6, 4, 4, 2, 1);   /* round(1.5) = 2 */
    expect_crop(VIT_CROP_ROUND, 5, 5, 4, 4, 0, 0);   /* round(0.5) = 0, half to even */
    expect_crop(VIT_CROP_FLOOR, 3, 2, 6, 7, -2, -3); /* transformers: the odd pixel in front */
    expect_crop(VIT_CROP_ROUND, 3, 2, 6, 7, -1, -2); /* torchvision: the odd pixel behind */
    expect_crop(VIT_CROP_FLOOR, 7, 3, 4, 6, 1, -2);
    expect_crop(VIT_CROP_ROUND, 7, 3, 4, 6, 2, -1);
    expect_crop(VIT_CROP_NONE, 5, 4, 5, 4, 0, 0);
}
END_TEST

START_TEST(test_preprocess_normalises_in_float)
{
    static const unsigned char pixels[] = {0, 128, 255, 255, 1, 100};
    vit_image image = image_of(2, 1, pixels);
    vit_preprocess p = {.width = 2,
                        .height = 1,
                        .rescale_factor = 1 / 255.0,
                        .mean = {0.485f, 0.456f, 0.406f},
                        .std = {0.229f, 0.224f, 0.225f}};
    float t[6];
    ck_assert_int_eq(vit_preprocess_apply(&p, &image, t, NULL), VIT_OK);
    ck_assert_float_eq(t[0], (0.0f - 0.485f) / 0.229f);
    ck_assert_float_eq(t[1], (1.0f - 0.485f) / 0.229f);
    ck_assert_float_eq(t[2], ((float)(128 / 255.0) - 0.456f) / 0.224f);
    ck_assert_float_eq(t[3], ((float)(1 / 255.0) - 0.456f) / 0.224f);
    ck_assert_float_eq(t[4], (1.0f - 0.406f) / 0.225f);
    ck_assert_float_eq(t[5], ((float)(100 / 255.0) - 0.406f) / 0.225f);
    vit_image_release(&image);
}
END_TEST

/* The window that preprocessing computes is, bit for bit, the crop of the whole picture resized. */
static void expect_window(const vit_image *image, vit_preprocess p, size_t full_w, size_t full_h, long left,
                          long top)
{
    vit_image full = {0};
    float *tensor = malloc(3 * p.width * p.height * sizeof *tensor);
    vit_error err = {""};
    for (int filter = VIT_FILTER_NEAREST; filter <= VIT_FILTER_LANCZOS; filter++) {
        p.filter = (vit_filter)filter;
        ck_assert_msg(vit_preprocess_apply(&p, image, tensor, &err) == VIT_OK, "%s", err.message);
        ck_assert_int_eq(vit_image_resize(&full, image, full_w, full_h, p.filter, NULL), VIT_OK);
        for (size_t y = 0; y < p.height; y++)
            for (size_t x = 0; x < p.width; x++) {
                long fx = (long)x + left, fy = (long)y + top;
                int inside = fx >= 0 && fy >= 0 && fx < (long)full_w && fy < (long)full_h;
                for (size_t c = 0; c < 3; c++)
                    ck_assert_float_eq(tensor[(c * p.height + y) * p.width + x],
                                       inside ? full.pixels[((size_t)fy * full_w + (size_t)fx) * 3 + c]
                                              : p.fill[c]);
            }
        vit_image_release(&full);
    }
    free(tensor);
}

START_TEST(test_preprocess_resizes_as_the_references)
{
    struct bytes file = read_fixture("golden/resample", "in2.png");
    vit_image image = {0}, tall = {0};
    vit_error err;
    ck_assert_int_eq(decode(&image, file, PLENTY, &err), VIT_OK);
    ck_assert_int_eq(vit_image_resize(&tall, &image, 61, 147, VIT_FILTER_BOX, &err), VIT_OK);
    vit_preprocess p = {.resize = VIT_RESIZE_EXACT,
                        .resize_width = 33,
                        .resize_height = 47,
                        .width = 33,
                        .height = 47,
                        .fill = {9, 8, 7},
                        .rescale_factor = 1,
                        .std = {1, 1, 1}};
    expect_window(&tall, p, 33, 47, 0, 0);
    p.resize_width = 61; /* only the vertical pass */
    p.crop = VIT_CROP_ROUND;
    expect_window(&tall, p, 61, 47, 14, 0);
    p.resize_width = 33, p.resize_height = 147; /* only the horizontal one */
    expect_window(&tall, p, 33, 147, 0, 50);
    p = (vit_preprocess){.resize = VIT_RESIZE_SHORTEST_EDGE,
                         .resize_height = 40,
                         .crop = VIT_CROP_FLOOR,
                         .width = 31,
                         .height = 36,
                         .rescale_factor = 1,
                         .std = {1, 1, 1}};
    expect_window(&tall, p, 40, 96, 4, 30); /* int(40 * 147 / 61) = int(96.39) */
    p.width = 50, p.height = 120;
    expect_window(&tall, p, 40, 96, -5, -12);
    p = (vit_preprocess){.resize = VIT_RESIZE_LONGEST_EDGE,
                         .resize_height = 64,
                         .resize_width = 64,
                         .width = 64,
                         .height = 64,
                         .crop = VIT_CROP_ROUND,
                         .fill = {4, 5, 6},
                         .rescale_factor = 1,
                         .std = {1, 1, 1}};
    expect_window(&tall, p, 27, 64, -18, 0); /* round(61 * 64 / 147) = round(26.56) */
    vit_image_release(&image);
    vit_image_release(&tall);
    free(file.data);
}
END_TEST

/* Every pixel value of every channel comes back from its normalised float. */
START_TEST(test_preprocess_can_be_undone)
{
    static const vit_preprocess kinds[] = {
        {.rescale_factor = 1 / 255.0, .mean = {0.485f, 0.456f, 0.406f}, .std = {0.229f, 0.224f, 0.225f}},
        {.rescale_factor = 0.00392156862745098, .mean = {0.5f, 0.5f, 0.5f}, .std = {0.5f, 0.5f, 0.5f}},
        {.rescale_factor = 1, .std = {1, 1, 1}},
        {.rescale_factor = 1 / 127.5, .mean = {1, 1, 1}, .std = {1, 1, 1}},
    };
    unsigned char pixels[3 * 256];
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (unsigned char)(i / 3 + i % 3 * 85);
    vit_image image = image_of(16, 16, pixels), back;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        vit_preprocess p = kinds[i];
        float tensor[3 * 256];
        p.width = p.height = 16;
        ck_assert_int_eq(vit_preprocess_apply(&p, &image, tensor, NULL), VIT_OK);
        ck_assert_int_eq(vit_preprocess_undo(&p, tensor, &back, NULL), VIT_OK);
        ck_assert(back.width == 16 && back.height == 16);
        ck_assert_mem_eq(back.pixels, pixels, sizeof pixels);
        vit_image_release(&back);
    }
    vit_image_release(&image);
}
END_TEST

static void expect_region(vit_preprocess p, size_t width, size_t height, double left, double top, double w, double h)
{
    vit_region region;
    vit_error err = {""};
    ck_assert_msg(vit_preprocess_region(&p, width, height, &region, &err) == VIT_OK, "%s", err.message);
    ck_assert_double_eq_tol(region.left, left, 1e-9);
    ck_assert_double_eq_tol(region.top, top, 1e-9);
    ck_assert_double_eq_tol(region.width, w, 1e-9);
    ck_assert_double_eq_tol(region.height, h, 1e-9);
}

START_TEST(test_region_the_model_sees)
{
    const vit_preprocess exact = {.resize = VIT_RESIZE_EXACT, .resize_height = 10, .resize_width = 20, .width = 20,
                                  .height = 10};
    expect_region(exact, 300, 200, 0, 0, 300, 200); /* all of it, whatever its shape */
    const vit_preprocess crop = {.resize = VIT_RESIZE_SHORTEST_EDGE, .resize_height = 256, .crop = VIT_CROP_FLOOR,
                                 .width = 224, .height = 224};
    expect_region(crop, 512, 512, 32, 32, 448, 448);
    expect_region(crop, 1024, 512, 288, 32, 448, 448); /* the middle of a wide picture */
    const vit_preprocess pad = {.crop = VIT_CROP_ROUND, .width = 8, .height = 8};
    expect_region(pad, 4, 4, -2, -2, 8, 8); /* padded around */
    vit_region region;
    ck_assert_int_eq(vit_preprocess_region(&crop, 0, 4, &region, NULL), VIT_ERR_ARGUMENT);
}
END_TEST

START_TEST(test_preprocess_refuses_other_sizes)
{
    static const unsigned char pixels[12] = {0};
    vit_image image = image_of(2, 2, pixels), line = image_of(4, 1, pixels);
    vit_preprocess p = {.width = 3, .height = 2, .rescale_factor = 1, .std = {1, 1, 1}};
    float t[64];
    vit_error err;
    ck_assert_int_eq(vit_preprocess_apply(&p, &image, t, &err), VIT_ERR_IMAGE_SIZE);
    ck_assert_ptr_nonnull(strstr(err.message, "takes 3x2"));
    p.resize = VIT_RESIZE_SHORTEST_EDGE;
    p.resize_height = 3;
    ck_assert_int_eq(vit_preprocess_apply(&p, &image, t, &err), VIT_ERR_IMAGE_SIZE);
    p.resize = VIT_RESIZE_LONGEST_EDGE; /* 4x1 within 1x1 rounds to 1x0 */
    p.resize_height = p.resize_width = 1;
    ck_assert_int_eq(vit_preprocess_apply(&p, &line, t, &err), VIT_ERR_IMAGE_SIZE);
    p.resize = VIT_RESIZE_EXACT;
    p.resize_width = 0;
    ck_assert_int_eq(vit_preprocess_apply(&p, &image, t, &err), VIT_ERR_ARGUMENT);
    vit_image_release(&image);
    vit_image_release(&line);
}
END_TEST

/* A 1 x 65535 picture to a shortest edge of 256 would be 256 x 16,776,960: only the crop may be computed. */
START_TEST(test_preprocess_computes_only_the_crop)
{
    vit_image image = {calloc(65535, 3), 1, 65535};
    vit_preprocess p = {.resize = VIT_RESIZE_SHORTEST_EDGE,
                        .resize_height = 256,
                        .crop = VIT_CROP_FLOOR,
                        .width = 8,
                        .height = 8,
                        .filter = VIT_FILTER_BICUBIC,
                        .rescale_factor = 1,
                        .std = {1, 1, 1}};
    float t[3 * 8 * 8];
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    clock_t start = clock();
    ck_assert_int_eq(vit_preprocess_apply(&p, &image, t, NULL), VIT_OK);
    ck_assert_int_lt(clock() - start, CLOCKS_PER_SEC);
    getrusage(RUSAGE_SELF, &after);
    ck_assert_int_lt(after.ru_maxrss - before.ru_maxrss, 16 << 10);
    ck_assert_float_eq(t[100], 0.0f);
    vit_image_release(&image);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_decode_equals_pillow,
        test_decode_equals_pillow_on_rare_encodings,
        test_decode_checks_size_first,
        test_decode_names_what_it_does_not_know,
        test_decode_refuses_truncation,
        test_png_inflates_no_further_than_its_size,
        test_png_damage_is_named,
        test_bmp_unknown_layouts_are_named,
        test_jpeg_scans_are_capped,
        test_jpeg_first_exif_turns_the_picture,
        test_decode_survives_mutation,
        test_release_accepts_nothing,
        test_resize_equals_pillow,
        test_resize_to_the_same_size_copies,
        test_resize_refuses_the_impossible,
        test_preprocess_crops_as_the_references,
        test_preprocess_normalises_in_float,
        test_preprocess_resizes_as_the_references,
        test_preprocess_can_be_undone,
        test_region_the_model_sees,
        test_preprocess_refuses_other_sizes,
        test_preprocess_computes_only_the_crop,
    };
    TCase *tcase = tcase_create("image");
    tcase_set_timeout(tcase, 600);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    Suite *suite = suite_create("image");
    suite_add_tcase(suite, tcase);
    return suite_run(suite);
}
