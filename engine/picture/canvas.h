/*
 * canvas.h - drawing into an RGB picture: what the files of engine/picture share. Everything is clipped to the picture;
 * coordinates are pixels from the top left corner.
 */
#ifndef ENGINE_PICTURE_CANVAS_H
#define ENGINE_PICTURE_CANVAS_H

#include <stddef.h>
#include <stdint.h>

#include "vit_image.h"
#include "vit_picture.h"

struct colour {
    uint8_t r, g, b;
};

extern const struct colour colour_paper, colour_ink, colour_faint;

/* A picture filled with one colour. VIT_ERR_NO_MEMORY, VIT_ERR_ARGUMENT beyond max_pixels. */
vit_status canvas_create(vit_image *canvas, size_t width, size_t height, size_t max_pixels, struct colour colour,
                         vit_error *err);

void canvas_fill(vit_image *canvas, double left, double top, double width, double height, struct colour colour);
/* Anti-aliased, its colour mixed in with opacity 0 to 1. */
void canvas_disc(vit_image *canvas, double x, double y, double radius, struct colour colour, double opacity);

/* ---- text.c: one line of text, every letter scale times as large as its smallest form ---- */

enum { TEXT_HEIGHT = 7 }; /* of a capital letter at scale 1; descenders reach 2 further down */

/* What is not printable ASCII counts, and is drawn, as '?': one for each character of the UTF-8 text, and one for each
 * byte that is no UTF-8. */
size_t text_width(const char *text, size_t scale);
/* x, y: the top left corner. Text wider than max_width is cut and ends in "..". */
void text_draw(vit_image *canvas, double x, double y, size_t scale, struct colour colour, const char *text,
               size_t max_width);

/* ---- colormap.c: a value has a level, from 0 to COLORMAP_SIZE - 1; the level an entry of the table ---- */

enum { COLORMAP_SIZE = 256 };

struct range {
    double low, high, gain; /* level = (value - low) * gain */
};

void colormap_table(struct colour table[COLORMAP_SIZE], vit_colormap colormap);
/* From the lowest to the highest of the finite values; of equal values each is the lowest. */
struct range range_of(const float *values, size_t count);
/* NaN is drawn as the lowest value. */
float range_level(const struct range *range, float value);
/* level: in the table */
size_t level_index(double level);

#endif
