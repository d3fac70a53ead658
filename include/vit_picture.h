/*
 * vit_picture.h - pictures of what a model does: heatmaps over photographs, its filters, plots; all as RGB and PNG.
 *
 * Every function is thread-safe and keeps no state. Pictures that are handed out are to be released with
 * vit_image_release(). Errors: VIT_ERR_NO_MEMORY, and what each function adds.
 */
#ifndef VIT_PICTURE_H
#define VIT_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vit_image.h"
#include "vit_status.h"

/* viridis (van der Walt & Smith) is perceptually uniform; turbo (Mikhailov, Google AI 2019) separates more values. */
typedef enum vit_colormap { VIT_COLORMAP_VIRIDIS, VIT_COLORMAP_TURBO } vit_colormap;

typedef struct vit_map {
    const float *values; /* [gh, gw]; drawn from its own minimum to its own maximum, NaN as the minimum */
    const char *label;   /* UTF-8, drawn above the tile, cut to its width, '?' for what is not ASCII; NULL: none */
} vit_map;

/* What vit_heatmap_draw() draws: the picture once for each map, with the map over it. Under a map the picture turns
 * grey, the more the more opaque the map is, so that colours are the map's. */
typedef struct vit_heatmap {
    const vit_image *picture;
    vit_region region;      /* the part of the picture that the maps cover; the rest is drawn darker, without map */
    size_t grid_height, grid_width;
    const vit_map *maps;    /* [count] */
    size_t count;
    size_t columns;         /* of the grid of tiles; 0: about as many as rows */
    size_t scale;           /* every pixel of the picture becomes scale x scale pixels */
    size_t max_pixels;      /* of the result */
    vit_colormap colormap;
    float alpha;            /* opacity of the map, 0 to 1 */
    bool overlay;           /* false: the bare map, opaque, on black */
} vit_heatmap;

/* One map without label: a picture of scale * w x scale * h pixels. Otherwise a grid of such tiles, row by row, each
 * with its label above it. Maps are upsampled bilinearly (half-pixel centres, edges repeated).
 * VIT_ERR_ARGUMENT: more than max_pixels; a field that cannot be. */
vit_status vit_heatmap_draw(vit_image *out, const vit_heatmap *heatmap, vit_error *err);

/* Tiles of RGB filters [count, 3, P, P], each scaled by its own largest magnitude around grey.
 * VIT_ERR_ARGUMENT here and below: none to draw, or far too many. */
vit_status vit_filters_draw(vit_image *out, const float *filters, size_t count, size_t patch, vit_error *err);

/* similarity [gh, gw, gh, gw]: a grid of grids, from the lowest value to the highest, with a scale beside it. */
vit_status vit_positions_draw(vit_image *out, const float *similarity, size_t grid_height, size_t grid_width,
                              vit_colormap colormap, vit_error *err);

/* Mean attention distances [L, NH] in pixels as a scatter plot: layer on x, distance on y, the head as colour. */
vit_status vit_distances_draw(vit_image *out, const float *distances, size_t layers, size_t heads, vit_error *err);

/* *bytes [*length] is a PNG (8-bit RGB), to be freed with free().
 * VIT_ERR_ARGUMENT: no pixels, or more than 1 GiB of them. */
vit_status vit_png_encode(uint8_t **bytes, size_t *length, const vit_image *image, vit_error *err);

#endif
