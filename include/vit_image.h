/*
 * vit_image.h - from the bytes of an upload to the tensor a model takes:
 *
 *     encoded bytes --vit_image_decode--> RGB pixels --vit_preprocess_apply--> normalised [3, H, W] floats
 *
 * or, faster and a little less exact, with vit_preprocess_decode() for the first step.
 *
 * Every function is thread-safe and keeps no state. Input bytes are untrusted.
 * Legend: h, w the picture's own size; H, W the size the model takes.
 */
#ifndef VIT_IMAGE_H
#define VIT_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vit_status.h"

/* 8-bit RGB, rows top to bottom, no padding. */
typedef struct vit_image {
    uint8_t *pixels; /* [h, w, 3] */
    size_t width, height;
} vit_image;

/* Decodes a JPEG (baseline or progressive), PNG or BMP; the bytes decide, not a name. The result is what
 * Pillow 9.4 gives after ImageOps.exif_transpose() and convert("RGB"), bit for bit: EXIF orientation applied,
 * alpha dropped, palettes and grey expanded, CMYK taken as Adobe writes it, 16-bit samples cut as Pillow cuts
 * them. The size is read from the header first: more than max_pixels (w * h), or a side above 65535, is refused
 * before anything is decoded.
 * VIT_ERR_IMAGE_TYPE, VIT_ERR_IMAGE_DAMAGED (truncated files too), VIT_ERR_IMAGE_SIZE, VIT_ERR_NO_MEMORY.
 * On success release with vit_image_release(). */
vit_status vit_image_decode(vit_image *image, const void *bytes, size_t length, size_t max_pixels, vit_error *err);
/* Frees the pixels and zeroes the struct; a zeroed struct is accepted. */
void vit_image_release(vit_image *image);

/* Pillow's resampling filters. */
typedef enum vit_filter {
    VIT_FILTER_NEAREST,
    VIT_FILTER_BOX,
    VIT_FILTER_BILINEAR,
    VIT_FILTER_HAMMING,
    VIT_FILTER_BICUBIC,
    VIT_FILTER_LANCZOS
} vit_filter;

/* Pillow's Image.resize((width, height), filter), bit for bit: antialiased, 8-bit fixed point, horizontal pass first.
 * width and height >= 1. *out is a fresh image to release; in and out must differ.
 * VIT_ERR_ARGUMENT for a size or filter that cannot be, VIT_ERR_IMAGE_SIZE beyond 2^30 pixels, VIT_ERR_NO_MEMORY. */
vit_status vit_image_resize(vit_image *out, const vit_image *in, size_t width, size_t height,
                            vit_filter filter, vit_error *err);

/* How the picture's size becomes the resized size, before the crop. */
typedef enum vit_resize {
    VIT_RESIZE_NONE,
    VIT_RESIZE_EXACT,         /* to resize_height x resize_width; the aspect ratio is not kept */
    VIT_RESIZE_SHORTEST_EDGE, /* shorter side to resize_height, the other int(size * long / short) */
    VIT_RESIZE_LONGEST_EDGE   /* timm's crop_mode "border": fits inside resize_height x resize_width, each side
                                 round(side / ratio), half to even */
} vit_resize;

typedef enum vit_crop {
    VIT_CROP_NONE,
    VIT_CROP_FLOOR, /* transformers: offset (h - H) / 2 rounded down, zero padding before normalisation */
    VIT_CROP_ROUND  /* torchvision: offset round((h - H) / 2.0), half to even; pads as torchvision's CenterCrop */
} vit_crop;

/* The steps of a model's preprocessing, as preprocessor_config.json (transformers) or pretrained_cfg (timm) asks.
 * Filled by vit_model_open(); plain data, may also be written by hand. */
typedef struct vit_preprocess {
    vit_resize resize;
    size_t resize_height, resize_width;
    vit_filter filter;
    vit_crop crop;
    size_t height, width;  /* H, W of the result; a picture of another size after these steps is an error */
    uint8_t fill[3];       /* colour where the crop is larger than the picture; black but for timm's "border" */
    double rescale_factor; /* usually 1/255; 1 when do_rescale is false */
    float mean[3], std[3]; /* 0 and 1 when do_normalize is false */
} vit_preprocess;

/* tensor [3, H, W] = (pixel * rescale_factor - mean) / std of the resized, cropped picture.
 * VIT_ERR_IMAGE_SIZE if no crop or resize step brings the picture to H x W, or its shape is so extreme that it
 * would be resized to nothing; VIT_ERR_ARGUMENT for steps that cannot be; VIT_ERR_NO_MEMORY. */
vit_status vit_preprocess_apply(const vit_preprocess *preprocess, const vit_image *image, float *tensor,
                                vit_error *err);

/* vit_image_decode() for a picture that is decoded only to be preprocessed so. A JPEG that the resize shrinks to a half
 * or less in both directions is decoded at 1/2, 1/4 or 1/8 of its size: the least that is no smaller than what the
 * resize makes of it, as Pillow's Image.draft() chooses. About twice as fast for 12 megapixels; what
 * vit_preprocess_apply() makes of the result is close to what it makes of the whole picture, not equal. Other pictures,
 * and all with preprocess NULL, are decoded whole. max_pixels bounds the size that the file states.
 * Errors as vit_image_decode(). */
vit_status vit_preprocess_decode(const vit_preprocess *preprocess, vit_image *image, const void *bytes, size_t length,
                                 size_t max_pixels, vit_error *err);

/* The picture that a tensor [3, H, W] of vit_preprocess_apply() was made from: what the model sees, bit for bit.
 * VIT_ERR_NO_MEMORY. *out is a fresh image to release. */
vit_status vit_preprocess_undo(const vit_preprocess *preprocess, const float *tensor, vit_image *out, vit_error *err);

/* A part of a picture in its pixels; may begin or end outside of it. */
typedef struct vit_region {
    double left, top, width, height;
} vit_region;

/* The part of a picture of w x h pixels that the model sees of it. Errors as vit_preprocess_apply(). */
vit_status vit_preprocess_region(const vit_preprocess *preprocess, size_t width, size_t height, vit_region *region,
                                 vit_error *err);

/* "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos". */
const char *vit_filter_name(vit_filter filter);

#endif
