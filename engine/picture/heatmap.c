/* heatmap.c - maps over the picture that they are about. */
#include <math.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/picture/canvas.h"

enum { GAP = 8, LETTERS_ACROSS_A_TILE = 28, LETTER_WIDTH = 6, UNSEEN_PER_CENT = 35 };

/* Where a column or row of a tile falls in the map: between two of its cells. */
struct between {
    size_t first, second;
    float weight; /* of the second */
    bool seen;    /* inside of the region */
};

/* A drawing on its way: what all tiles share. */
struct plan {
    const vit_heatmap *heatmap;
    size_t tile_width, tile_height, label_height, text_scale, columns, rows;
    struct between *x, *y; /* [tile_width], [tile_height] */
    float *row;            /* [gw] */
    struct colour colours[COLORMAP_SIZE];
    unsigned opacity, grey; /* of 256: of the map's colours; how much of its own the picture loses */
};

/* Half-pixel centres; beyond the outermost centres their values are repeated. */
static void place(struct between *between, size_t count, size_t scale, double start, double length, size_t cells)
{
    for (size_t i = 0; i < count; i++) {
        const double share = (((double)i + 0.5) / (double)scale - start) / length;
        double cell = share * (double)cells - 0.5;
        cell = cell > 0 ? cell : 0;
        cell = cell < (double)(cells - 1) ? cell : (double)(cells - 1);
        const size_t first = (size_t)cell;
        between[i] = (struct between){.first = first,
                                      .second = first + 1 < cells ? first + 1 : first,
                                      .weight = (float)(cell - (double)first),
                                      .seen = share >= 0 && share <= 1};
    }
}

static vit_status make_plan(struct plan *plan, const vit_heatmap *h, vit_error *err)
{
    const vit_region *region = &h->region;
    const unsigned opacity = h->overlay ? (unsigned)(h->alpha * 256 + 0.5f) : 256;
    *plan = (struct plan){.heatmap = h, .opacity = opacity, .grey = opacity < 128 ? 2 * opacity : 256};
    if (h->count == 0 || h->scale == 0 || h->grid_height == 0 || h->grid_width == 0 ||
        !(region->width > 0 && region->height > 0) || !(h->alpha >= 0 && h->alpha <= 1))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "this is not something that can be drawn");
    if (!size_multiply(h->picture->width, h->scale, &plan->tile_width) ||
        !size_multiply(h->picture->height, h->scale, &plan->tile_height) || plan->tile_width > h->max_pixels ||
        plan->tile_height > h->max_pixels)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a picture of %zux%zu pixels, each %zu times as large, is too large",
                             h->picture->width, h->picture->height, h->scale);
    plan->x = calloc(plan->tile_width, sizeof *plan->x);
    plan->y = calloc(plan->tile_height, sizeof *plan->y);
    plan->row = calloc(h->grid_width, sizeof *plan->row);
    if (plan->x == NULL || plan->y == NULL || plan->row == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a heatmap");
    place(plan->x, plan->tile_width, h->scale, region->left, region->width, h->grid_width);
    place(plan->y, plan->tile_height, h->scale, region->top, region->height, h->grid_height);
    colormap_table(plan->colours, h->colormap);
    return VIT_OK;
}

/* The largest letters in which every label fits its tile, within reason. */
static size_t choose_text_scale(const struct plan *plan)
{
    size_t scale = plan->tile_width / (LETTERS_ACROSS_A_TILE * LETTER_WIDTH);
    for (size_t i = 0; i < plan->heatmap->count; i++) {
        const char *label = plan->heatmap->maps[i].label;
        while (scale > 1 && label != NULL && text_width(label, scale) > plan->tile_width)
            scale--;
    }
    return scale > 0 ? scale : 1;
}

static vit_status lay_out(struct plan *plan, vit_image *out, vit_error *err)
{
    const vit_heatmap *h = plan->heatmap;
    bool labelled = false;
    for (size_t i = 0; i < h->count; i++)
        labelled = labelled || h->maps[i].label != NULL;
    if (h->count == 1 && !labelled) {
        plan->columns = plan->rows = 1;
        return canvas_create(out, plan->tile_width, plan->tile_height, h->max_pixels, colour_paper, err);
    }
    plan->text_scale = choose_text_scale(plan);
    plan->label_height = labelled ? (TEXT_HEIGHT + 4) * plan->text_scale : 0;
    plan->columns = h->columns > 0 ? h->columns : (size_t)ceil(sqrt((double)h->count));
    plan->columns = plan->columns < h->count ? plan->columns : h->count;
    plan->rows = (h->count + plan->columns - 1) / plan->columns;
    size_t width, height;
    if (!size_multiply(plan->columns, plan->tile_width + GAP, &width) ||
        !size_multiply(plan->rows, plan->tile_height + plan->label_height + GAP, &height))
        width = height = SIZE_MAX;
    return canvas_create(out, width < SIZE_MAX ? width + GAP : width, height < SIZE_MAX ? height + GAP : height,
                         h->max_pixels, colour_paper, err);
}

/* From a map's values to [0, 1): scale * (value - low); a map of one value only is all 0. */
static void value_range(const float *values, size_t count, float *low, float *scale)
{
    float smallest = INFINITY, largest = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        smallest = values[i] < smallest ? values[i] : smallest;
        largest = values[i] > largest ? values[i] : largest;
    }
    *low = smallest;
    *scale = largest > smallest ? 1 / (largest - smallest) : 0;
}

static void draw_pixel(const struct plan *plan, uint8_t *out, const uint8_t *below, double value, bool seen)
{
    if (!seen) {
        for (int c = 0; c < 3; c++)
            out[c] = plan->heatmap->overlay ? (uint8_t)(below[c] * UNSEEN_PER_CENT / 100) : 0;
        return;
    }
    const struct colour colour = plan->colours[colormap_index(value)];
    const unsigned above = plan->opacity, under = 256 - above, grey = plan->grey;
    const unsigned light = (54 * below[0] + 183 * below[1] + 19 * below[2] + 128) >> 8; /* BT.709 */
    const uint8_t over[3] = {colour.r, colour.g, colour.b};
    for (int c = 0; c < 3; c++) {
        const unsigned muted = (below[c] * (256 - grey) + light * grey + 128) >> 8;
        out[c] = (uint8_t)((muted * under + over[c] * above + 128) >> 8);
    }
}

static void draw_tile(struct plan *plan, vit_image *out, size_t left, size_t top, const float *values)
{
    const vit_heatmap *h = plan->heatmap;
    float low, scale;
    value_range(values, h->grid_height * h->grid_width, &low, &scale);
    for (size_t y = 0; y < plan->tile_height; y++) {
        const struct between *row = &plan->y[y];
        const float *first = values + row->first * h->grid_width, *second = values + row->second * h->grid_width;
        for (size_t i = 0; i < h->grid_width; i++)
            plan->row[i] = (first[i] + row->weight * (second[i] - first[i]) - low) * scale;
        const uint8_t *below = h->picture->pixels + y / h->scale * h->picture->width * 3;
        uint8_t *pixel = out->pixels + ((top + y) * out->width + left) * 3;
        size_t within = 0; /* of the picture's pixel */
        for (size_t x = 0; x < plan->tile_width; x++, pixel += 3) {
            const struct between *column = &plan->x[x];
            const float value =
                plan->row[column->first] + column->weight * (plan->row[column->second] - plan->row[column->first]);
            draw_pixel(plan, pixel, below, (double)value, row->seen && column->seen);
            if (++within == h->scale) {
                within = 0;
                below += 3;
            }
        }
    }
}

static void draw_tiles(struct plan *plan, vit_image *out)
{
    const vit_heatmap *h = plan->heatmap;
    const size_t margin = plan->text_scale > 0 ? GAP : 0; /* none around a single picture */
    for (size_t i = 0; i < h->count; i++) {
        const size_t left = margin + i % plan->columns * (plan->tile_width + GAP);
        const size_t top = margin + i / plan->columns * (plan->tile_height + plan->label_height + GAP);
        if (h->maps[i].label != NULL)
            text_draw(out, (double)left, (double)(top + plan->text_scale), plan->text_scale, colour_ink,
                      h->maps[i].label, plan->tile_width);
        draw_tile(plan, out, left, top + plan->label_height, h->maps[i].values);
    }
}

vit_status vit_heatmap_draw(vit_image *out, const vit_heatmap *heatmap, vit_error *err)
{
    struct plan plan;
    vit_image canvas = {0};
    vit_status status = make_plan(&plan, heatmap, err);
    if (status == VIT_OK)
        status = lay_out(&plan, &canvas, err);
    if (status == VIT_OK) {
        draw_tiles(&plan, &canvas);
        *out = canvas;
    }
    free(plan.x);
    free(plan.y);
    free(plan.row);
    return status;
}
