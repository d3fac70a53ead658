/* draw.h - results of the engine as PNG pictures, for HTTP and for the command line. Thread-safe. */
#ifndef SERVER_DRAW_H
#define SERVER_DRAW_H

#include <stddef.h>
#include <stdint.h>

#include "server/parameters.h"

/* A PNG, or room for one; png is to be freed. */
struct drawing {
    uint8_t *png; /* [length] */
    size_t length;
};

/* One image and its map. */
struct explained {
    const vit_model *model;
    const struct choices *choices; /* resolved; which map, and how to draw it */
    const char *const *target_texts; /* of targets in words; NULL: they are classes */
    const float *map;              /* as vit_explain_shape() says */
    const float *pixels;           /* [3, H, W], as the model took them; for size=model */
    const void *encoded;           /* [encoded_length], the upload; for size=original */
    size_t encoded_length;
    size_t max_pixels;             /* of the upload, and of the drawing */
};

/* Errors: as vit_heatmap_draw() and, for size=original, vit_image_decode(). */
vit_status draw_explanation(struct drawing *drawing, const struct explained *explained, vit_error *err);

/* Errors as vit_model_filters(), vit_model_positions(). */
vit_status draw_filters(struct drawing *drawing, const vit_model *model, vit_error *err);
vit_status draw_positions(struct drawing *drawing, const vit_model *model, vit_error *err);

/* distances [L, NH] */
vit_status draw_distances(struct drawing *drawing, const vit_model *model, const float *distances, vit_error *err);

#endif
