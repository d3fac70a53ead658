/*
 * decode_jpeg.c - JPEG through libjpeg-turbo, set up as Pillow sets it up, so that pixels are equal bit for
 * bit: the islow DCT, fancy upsampling, and a source that suspends at the end of the bytes. Like Pillow we
 * refuse a file that ends before its last row and accept one that only lacks its end marker or draws
 * libjpeg's warnings. Only vit_preprocess_decode() has the DCT give fewer pixels than the file states.
 *
 * What an upload can cost is bounded: the size is checked after the header; libjpeg then holds a few rows or,
 * for progressive files, about two bytes per coefficient; and a file with more scans than any encoder writes
 * is refused.
 *
 * libjpeg reports errors by longjmp. Everything that must survive the jump lives in struct reader, which
 * belongs to the function above the one that calls setjmp, so that no local variable is ever clobbered or
 * leaked.
 */
#include "engine/image/image.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "engine/base/error.h"

/* Encoders write about 10. 2,000 scans fit into 100 KB and would keep a core busy for seconds. */
#define MAX_SCANS 100
#define EXIF_PREFIX "Exif\0"
#define EXIF_PREFIX_BYTES 6u /* with its second zero */

struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    struct jpeg_source_mgr source;
    jmp_buf trap;
    const struct image_source *input;
    vit_image image;
    uint8_t *cmyk_row; /* [w, 4], CMYK only */
    uint8_t *strip;    /* [IMAGE_STRIP, w, 3], where the picture is to be turned */
    vit_error *err;
    vit_status status;
};

/* ---- libjpeg's callbacks ---- */

static void on_error(j_common_ptr jpeg)
{
    struct reader *r = jpeg->client_data;
    char message[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, message);
    if (jpeg->err->msg_code == JERR_OUT_OF_MEMORY)
        r->status = vit_error_set(r->err, VIT_ERR_NO_MEMORY, "no memory to decode the JPEG");
    else
        r->status = vit_error_set(r->err, VIT_ERR_IMAGE_DAMAGED, "the JPEG cannot be decoded: %.200s",
                                  message);
    longjmp(r->trap, 1);
}

static void on_message(j_common_ptr jpeg)
{
    (void)jpeg; /* the library must not print */
}

static void on_progress(j_common_ptr jpeg)
{
    struct reader *r = jpeg->client_data;
    if (r->jpeg.input_scan_number <= MAX_SCANS)
        return;
    r->status = vit_error_set(r->err, VIT_ERR_IMAGE_DAMAGED,
                              "the JPEG has more than %d scans: save it again as a baseline JPEG", MAX_SCANS);
    longjmp(r->trap, 1);
}

static void source_nothing(j_decompress_ptr jpeg)
{
    (void)jpeg;
}

static boolean source_fill(j_decompress_ptr jpeg)
{
    (void)jpeg;
    return FALSE; /* all bytes were there from the start: suspend, and the caller sees a truncated file */
}

static void source_skip(j_decompress_ptr jpeg, long count)
{
    struct jpeg_source_mgr *source = jpeg->src;
    size_t skip = count > 0 ? (size_t)count : 0;
    if (skip > source->bytes_in_buffer)
        skip = source->bytes_in_buffer;
    source->next_input_byte += skip;
    source->bytes_in_buffer -= skip;
}

/* ---- the steps of a decode ---- */

static vit_status truncated(struct reader *r)
{
    return vit_error_set(r->err, VIT_ERR_IMAGE_DAMAGED,
                         "the JPEG ends early, after %zu bytes: send the whole file", r->input->length);
}

static void reader_start(struct reader *r)
{
    r->source = (struct jpeg_source_mgr){
        .next_input_byte = r->input->bytes,
        .bytes_in_buffer = r->input->length,
        .init_source = source_nothing,
        .fill_input_buffer = source_fill,
        .skip_input_data = source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = source_nothing,
    };
    r->progress.progress_monitor = on_progress;
    jpeg_create_decompress(&r->jpeg);
    r->jpeg.src = &r->source;
    r->jpeg.progress = &r->progress;
    jpeg_save_markers(&r->jpeg, JPEG_APP0 + 1, 0xFFFF);
}

static vit_status read_header(struct reader *r)
{
    int found;
    do
        found = jpeg_read_header(&r->jpeg, FALSE);
    while (found == JPEG_HEADER_TABLES_ONLY);
    if (found == JPEG_SUSPENDED)
        return truncated(r);
    vit_status status = image_check_size(r->jpeg.image_width, r->jpeg.image_height, r->input->max_pixels,
                                         r->err);
    if (status != VIT_OK)
        return status;
    switch (r->jpeg.num_components) {
    case 1:
    case 3:
        r->jpeg.out_color_space = JCS_RGB;
        return VIT_OK;
    case 4:
        r->jpeg.out_color_space = JCS_CMYK;
        return VIT_OK;
    default:
        return vit_error_set(r->err, VIT_ERR_IMAGE_DAMAGED,
                             "the JPEG has %d components; 1 (grey), 3 (colour) or 4 (CMYK) can be decoded",
                             r->jpeg.num_components);
    }
}

static int marker_orientation(const struct reader *r)
{
    for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m != NULL; m = m->next)
        if (m->data_length >= EXIF_PREFIX_BYTES - 1 &&
            memcmp(m->data, EXIF_PREFIX, EXIF_PREFIX_BYTES - 1) == 0)
            /* only the first EXIF block counts; the second zero is part of the prefix that Pillow strips */
            return m->data_length > EXIF_PREFIX_BYTES && m->data[EXIF_PREFIX_BYTES - 1] == 0
                       ? exif_orientation(m->data + EXIF_PREFIX_BYTES, m->data_length - EXIF_PREFIX_BYTES)
                       : 1;
    return 1;
}

/* Adobe stores CMYK inverted; Pillow takes every CMYK JPEG so. Its formula, with k' = 255 - k stored in
 * in[3]: rgb = k' - round((255 - in) * k' / 255). */
static void cmyk_to_rgb(uint8_t *out, const uint8_t *in, size_t width)
{
    for (size_t x = 0; x < width; x++, in += 4, out += 3)
        for (int c = 0; c < 3; c++) {
            unsigned product = (255u - in[c]) * in[3] + 128;
            out[c] = (uint8_t)(in[3] - (((product >> 8) + product) >> 8));
        }
}

static void reduce(struct reader *r, int orientation)
{
    const size_t width = r->jpeg.image_width, height = r->jpeg.image_height;
    const bool turned = orientation >= 5;
    if (r->input->purpose != NULL)
        r->jpeg.scale_denom = image_reduction(r->input->purpose, turned ? height : width, turned ? width : height);
}

/* One row [w, 3]. */
static bool read_row(struct reader *r, uint8_t *row)
{
    JSAMPROW into = r->cmyk_row != NULL ? r->cmyk_row : row;
    if (jpeg_read_scanlines(&r->jpeg, &into, 1) != 1)
        return false;
    if (r->cmyk_row != NULL)
        cmyk_to_rgb(row, r->cmyk_row, r->jpeg.output_width);
    return true;
}

/* Straight into the picture where it is upright, else a strip at a time. */
static vit_status read_rows(struct reader *r, int orientation)
{
    const size_t width = r->jpeg.output_width, height = r->jpeg.output_height;
    const struct image_turn turn = image_turn_make(width, height, orientation);
    vit_status status = image_allocate(&r->image, turn.width, turn.height, r->err);
    if (status != VIT_OK)
        return status;
    if ((r->jpeg.out_color_space == JCS_CMYK && (r->cmyk_row = malloc(width * 4)) == NULL) ||
        (orientation != 1 && (r->strip = malloc(IMAGE_STRIP * width * 3)) == NULL))
        return vit_error_set(r->err, VIT_ERR_NO_MEMORY, "no memory to decode the JPEG");
    for (size_t y = 0, count; y < height; y += count) {
        uint8_t *rows = r->strip != NULL ? r->strip : r->image.pixels + y * width * 3;
        count = height - y < IMAGE_STRIP ? height - y : IMAGE_STRIP;
        for (size_t i = 0; i < count; i++)
            if (!read_row(r, rows + i * width * 3))
                return truncated(r);
        if (r->strip != NULL)
            image_turn_rows(&r->image, &turn, rows, width, y, count);
    }
    return VIT_OK;
}

static vit_status reader_run(struct reader *r)
{
    if (setjmp(r->trap))
        return r->status;
    reader_start(r);
    vit_status status = read_header(r);
    if (status != VIT_OK)
        return status;
    const int orientation = marker_orientation(r);
    reduce(r, orientation);
    if (!jpeg_start_decompress(&r->jpeg))
        return truncated(r);
    status = read_rows(r, orientation);
    /* Reports damage behind the last row; a missing end marker suspends, which Pillow accepts. */
    if (status == VIT_OK)
        (void)jpeg_finish_decompress(&r->jpeg);
    return status;
}

vit_status image_decode_jpeg(vit_image *image, int *orientation, const struct image_source *source,
                             vit_error *err)
{
    struct reader r = {.input = source, .err = err};
    r.jpeg.err = jpeg_std_error(&r.errors);
    r.jpeg.client_data = &r;
    r.errors.error_exit = on_error;
    r.errors.output_message = on_message;

    vit_status status = reader_run(&r);
    jpeg_destroy_decompress(&r.jpeg);
    free(r.cmyk_row);
    free(r.strip);
    *orientation = 1; /* the picture is upright already */
    if (status == VIT_OK)
        *image = r.image;
    else
        vit_image_release(&r.image);
    return status;
}
