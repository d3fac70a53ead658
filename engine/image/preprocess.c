/*
 * preprocess.c - pixels to the tensor a model takes: resize, centre crop or pad, rescale, normalise, exactly
 * as transformers, torchvision and timm do it on Pillow images. Only what the crop keeps is ever resampled,
 * so a 1 x 65535 picture whose longer side would grow to 16 million pixels costs no more than any other.
 */
#include "engine/image/image.h"

#include <math.h>
#include <stdlib.h>

#include "engine/base/error.h"

#ifdef __FAST_MATH__
#error "preprocess.c must not be compiled with -ffast-math: its values would no longer be the references'"
#endif

/* Sides after a resize, in pixels; beyond this a float's integers and Pillow's coordinates end. */
#define MAX_RESIZED_SIDE ((double)(1u << 30))

/* One axis: the resized side, and where the result starts in it (negative where it is padded). */
struct axis {
    size_t size;
    ptrdiff_t origin;
    size_t pad, begin, count; /* result pixels before the picture; picture pixels shown */
};

/* In: a picture's sides; out: those after the resize. */
static vit_status resized_size(const vit_preprocess *p, size_t *width, size_t *height, vit_error *err)
{
    double w = (double)*width, h = (double)*height;
    double to_w = (double)p->resize_width, to_h = (double)p->resize_height, ratio;
    switch (p->resize) {
    case VIT_RESIZE_EXACT:
        w = to_w;
        h = to_h;
        break;
    case VIT_RESIZE_SHORTEST_EDGE:
        ratio = to_h * fmax(w, h) / fmin(w, h);
        h = *width <= *height ? floor(ratio) : to_h;
        w = *width <= *height ? to_h : floor(ratio);
        break;
    case VIT_RESIZE_LONGEST_EDGE:
        ratio = fmax(h / to_h, w / to_w);
        w = nearbyint(w / ratio);
        h = nearbyint(h / ratio);
        break;
    case VIT_RESIZE_NONE:
        break;
    }
    if (!(w >= 1 && h >= 1 && w <= MAX_RESIZED_SIDE && h <= MAX_RESIZED_SIDE))
        return vit_error_set(
            err, VIT_ERR_IMAGE_SIZE,
            "an image of %zux%zu would be resized to %.0fx%.0f: send one of a more usual shape", *width, *height, w, h);
    *width = (size_t)w;
    *height = (size_t)h;
    return VIT_OK;
}

/* Where the crop of `wanted` starts in a side of `size`. Both libraries pad before and after where it is
 * larger. */
static ptrdiff_t crop_origin(vit_crop crop, size_t size, size_t wanted)
{
    ptrdiff_t spare = (ptrdiff_t)size - (ptrdiff_t)wanted;
    if (crop ==
        VIT_CROP_FLOOR) /* floor(spare / 2), also below zero: transformers pads ceil(-spare / 2) in front */
        return spare >= 0 ? spare / 2 : -((1 - spare) / 2);
    if (spare < 0) /* torchvision, timm: (wanted - size) // 2 in front, the odd pixel behind */
        return -(-spare / 2);
    return (ptrdiff_t)nearbyint((double)spare / 2.0);
}

static struct axis axis_make(vit_crop crop, size_t size, size_t wanted)
{
    struct axis axis = {.size = size, .origin = crop == VIT_CROP_NONE ? 0 : crop_origin(crop, size, wanted)};
    axis.pad = axis.origin < 0 ? (size_t)-axis.origin : 0;
    axis.begin = axis.origin > 0 ? (size_t)axis.origin : 0;
    axis.count = size < wanted ? size : wanted;
    return axis;
}

/* table[c][u] is what pixel value u of channel c becomes. The order of roundings is the references': the
 * product in double, cut to float, then float arithmetic. */
static void table_fill(float table[3][256], const vit_preprocess *p)
{
    for (int c = 0; c < 3; c++)
        for (int u = 0; u < 256; u++)
            table[c][u] = ((float)(u * p->rescale_factor) - p->mean[c]) / p->std[c];
}

static void row_normalise(float *out, const uint8_t *row, const float *table, const struct axis *x,
                          size_t width, float padding)
{
    size_t i = 0;
    for (; i < x->pad; i++)
        out[i] = padding;
    for (size_t k = 0; k < x->count; k++, i++)
        out[i] = table[row[k * 3]];
    for (; i < width; i++)
        out[i] = padding;
}

/* pixels is the shown part's first pixel, its rows stride bytes apart. */
static void normalise(float *tensor, const uint8_t *pixels, size_t stride, const struct axis *x,
                      const struct axis *y, const vit_preprocess *p)
{
    float table[3][256];
    table_fill(table, p);
    for (int c = 0; c < 3; c++)
        for (size_t i = 0; i < p->height; i++, tensor += p->width) {
            float padding = table[c][p->fill[c]];
            if (i >= y->pad && i - y->pad < y->count)
                row_normalise(tensor, pixels + (i - y->pad) * stride + c, table[c], x, p->width, padding);
            else
                for (size_t k = 0; k < p->width; k++)
                    tensor[k] = padding;
        }
}

static vit_status check(const vit_preprocess *p, vit_error *err)
{
    bool resizes = p->resize != VIT_RESIZE_NONE;
    bool both = p->resize == VIT_RESIZE_EXACT || p->resize == VIT_RESIZE_LONGEST_EDGE;
    if (p->width == 0 || p->height == 0 || p->width > IMAGE_MAX_SIDE || p->height > IMAGE_MAX_SIDE ||
        (unsigned)p->filter > VIT_FILTER_LANCZOS || (unsigned)p->resize > VIT_RESIZE_LONGEST_EDGE ||
        (unsigned)p->crop > VIT_CROP_ROUND || (resizes && p->resize_height == 0) ||
        (both && p->resize_width == 0))
        return vit_error_set(err, VIT_ERR_ARGUMENT,
                             "preprocessing to %zux%zu over %zux%zu is not something that can be done",
                             p->width, p->height, p->resize_width, p->resize_height);
    return VIT_OK;
}

/* Both axes of a picture of width x height, from its resize to the crop. */
static vit_status plan(const vit_preprocess *p, size_t width, size_t height, struct axis *x, struct axis *y,
                       vit_error *err)
{
    vit_status status = check(p, err);
    if (status == VIT_OK && (width == 0 || height == 0))
        status = vit_error_set(err, VIT_ERR_ARGUMENT, "an image without pixels cannot be preprocessed");
    if (status == VIT_OK)
        status = resized_size(p, &width, &height, err);
    if (status != VIT_OK)
        return status;
    if (p->crop == VIT_CROP_NONE && (width != p->width || height != p->height))
        return vit_error_set(
            err, VIT_ERR_IMAGE_SIZE,
            "the model takes %zux%zu and neither resizes nor crops; this image comes to %zux%zu", p->width,
            p->height, width, height);
    *x = axis_make(p->crop, width, p->width);
    *y = axis_make(p->crop, height, p->height);
    return VIT_OK;
}

vit_status vit_preprocess_apply(const vit_preprocess *preprocess, const vit_image *image, float *tensor,
                                vit_error *err)
{
    const vit_preprocess *p = preprocess;
    struct axis x = {0}, y = {0};
    vit_status status = plan(p, image->pixels == NULL ? 0 : image->width, image->height, &x, &y, err);
    if (status != VIT_OK)
        return status;
    if (x.size == image->width && y.size == image->height) {
        const uint8_t *shown = image->pixels + (y.begin * image->width + x.begin) * 3;
        normalise(tensor, shown, image->width * 3, &x, &y, p);
        return VIT_OK;
    }
    const struct image_window window = {x.size, y.size, x.begin, y.begin, x.count, y.count};
    vit_image resized;
    status = image_resize_window(&resized, image, &window, p->filter, err);
    if (status != VIT_OK)
        return status;
    normalise(tensor, resized.pixels, resized.width * 3, &x, &y, p);
    vit_image_release(&resized);
    return VIT_OK;
}

unsigned image_reduction(const vit_preprocess *preprocess, size_t width, size_t height)
{
    size_t to_width = width, to_height = height;
    unsigned by = 8;
    if (check(preprocess, NULL) != VIT_OK || resized_size(preprocess, &to_width, &to_height, NULL) != VIT_OK)
        return 1; /* vit_preprocess_apply() says why, of the picture as it is */
    while (by > 1 && (width / by < to_width || height / by < to_height))
        by /= 2;
    return by;
}

vit_status vit_preprocess_decode(const vit_preprocess *preprocess, vit_image *image, const void *bytes, size_t length,
                                 size_t max_pixels, vit_error *err)
{
    const struct image_source source = {bytes, length, max_pixels, preprocess};
    return image_decode(image, &source, err);
}

vit_status vit_preprocess_undo(const vit_preprocess *preprocess, const float *tensor, vit_image *out, vit_error *err)
{
    const vit_preprocess *p = preprocess;
    const size_t n = p->width * p->height;
    vit_image image = {.pixels = malloc(3 * n), .width = p->width, .height = p->height};
    if (image.pixels == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a picture of %zux%zu", p->width, p->height);
    for (size_t i = 0; i < 3 * n; i++) {
        const size_t channel = i % 3;
        const double value =
            ((double)tensor[channel * n + i / 3] * p->std[channel] + p->mean[channel]) / p->rescale_factor;
        image.pixels[i] = value > 0 ? (uint8_t)(fmin(value, 255) + 0.5) : 0;
    }
    *out = image;
    return VIT_OK;
}

vit_status vit_preprocess_region(const vit_preprocess *preprocess, size_t width, size_t height, vit_region *region,
                                 vit_error *err)
{
    struct axis x = {0}, y = {0};
    vit_status status = plan(preprocess, width, height, &x, &y, err);
    if (status != VIT_OK)
        return status;
    const double to_width = (double)width / (double)x.size, to_height = (double)height / (double)y.size;
    *region = (vit_region){.left = (double)x.origin * to_width,
                           .top = (double)y.origin * to_height,
                           .width = (double)preprocess->width * to_width,
                           .height = (double)preprocess->height * to_height};
    return VIT_OK;
}
