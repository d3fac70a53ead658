/*
 * heatmap.c - maps over the picture that they are about.
 *
 * The result may have many millions of pixels, so everything that a column or a row determines is computed once, into
 * tables; a pixel then costs one interpolation between two cells of a row, a look-up and a mix in integers.
 */
#include <math.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/picture/canvas.h"

enum { GAP = 8, LETTERS_ACROSS_A_TILE = 18, LETTER_WIDTH = 6, UNSEEN_PER_CENT = 35 };

/* Where a column or row of a tile falls in the map: between the centres of two neighbouring cells. */
struct between {
    size_t first;
    float weight; /* of the second */
    bool seen;    /* inside of the region */
};

/* A drawing on its way: what all tiles share. */
struct plan {
    const vit_heatmap *heatmap;
    size_t tile_width, tile_height;
    size_t margin, label_height, text_scale; /* 0 for a single picture */
    size_t columns, rows;
    struct between *x, *y; /* [tile_width], [tile_height] */
    float *levels;         /* [gh, gw], of the map under way */
    float *row;            /* [gw + 1]: the last cell twice, so that every cell has a neighbour */
    struct colour colours[COLORMAP_SIZE];
    unsigned opacity, grey; /* of 256: of the map's colours; how much of its own the picture loses */
};

/* ---- layout ---- */

static vit_status check(const vit_heatmap *h, vit_error *err)
{
    const vit_region *region = &h->region;
    if (h->count == 0 || h->scale == 0 || h->grid_height == 0 || h->grid_width == 0 || h->picture->width == 0 ||
        h->picture->height == 0)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a heatmap needs a picture and a map");
    if (!isfinite(region->left) || !isfinite(region->top) || !(region->width > 0) || !(region->height > 0))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a heatmap cannot cover %gx%g pixels from %g, %g on",
                             region->width, region->height, region->left, region->top);
    if (!(h->alpha >= 0 && h->alpha <= 1))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "alpha is from 0 to 1, not %g", (double)h->alpha);
    return VIT_OK;
}

/* The largest letters in which every label fits its tile, within reason. */
static size_t choose_text_scale(const struct plan *plan)
{
    size_t scale = plan->tile_width / (LETTERS_ACROSS_A_TILE * LETTER_WIDTH);
    for (size_t i = 0; i < plan->heatmap->count; i++) {
        const char *label = plan->heatmap->maps[i].label;
        const size_t width = label != NULL ? text_width(label, 1) : 0;
        if (width > 0 && plan->tile_width / width < scale)
            scale = plan->tile_width / width;
    }
    return scale > 0 ? scale : 1;
}

static void lay_out(struct plan *plan)
{
    const vit_heatmap *h = plan->heatmap;
    bool labelled = false;
    for (size_t i = 0; i < h->count; i++)
        labelled = labelled || h->maps[i].label != NULL;
    plan->columns = h->columns > 0 ? h->columns : (size_t)ceil(sqrt((double)h->count));
    plan->columns = plan->columns < h->count ? plan->columns : h->count;
    plan->rows = (h->count + plan->columns - 1) / plan->columns;
    plan->margin = h->count > 1 || labelled ? GAP : 0;
    plan->text_scale = labelled ? choose_text_scale(plan) : 0;
    plan->label_height = (TEXT_HEIGHT + 6) * plan->text_scale;
}

/* `count` tiles with margins before, between and behind them; false when that cannot be a size. */
static bool grid_size(size_t count, size_t tile, size_t label, size_t margin, size_t *size)
{
    size_t step, all;
    return !__builtin_add_overflow(tile, label + margin, &step) && size_multiply(count, step, &all) &&
           !__builtin_add_overflow(all, margin, size);
}

static vit_status create_canvas(struct plan *plan, vit_image *canvas, vit_error *err)
{
    const vit_heatmap *h = plan->heatmap;
    size_t width, height, pixels;
    if (!size_multiply(h->picture->width, h->scale, &plan->tile_width) ||
        !size_multiply(h->picture->height, h->scale, &plan->tile_height) ||
        !size_multiply(plan->tile_width, plan->tile_height, &pixels) || pixels > h->max_pixels)
        return vit_error_set(err, VIT_ERR_ARGUMENT,
                             "a picture of %zux%zu pixels, each %zu times as large, has more than the %zu allowed",
                             h->picture->width, h->picture->height, h->scale, h->max_pixels);
    lay_out(plan);
    if (!grid_size(plan->columns, plan->tile_width, 0, plan->margin, &width) ||
        !grid_size(plan->rows, plan->tile_height, plan->label_height, plan->margin, &height))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a picture of %zu maps would be too large", h->count);
    return canvas_create(canvas, width, height, h->max_pixels, colour_paper, err);
}

/* ---- tables ---- */

/* Half-pixel centres; beyond the outermost centres their values are repeated. */
static void place(struct between *between, size_t count, size_t scale, double start, double length, size_t cells)
{
    for (size_t i = 0; i < count; i++) {
        const double share = (((double)i + 0.5) / (double)scale - start) / length;
        double cell = share * (double)cells - 0.5;
        cell = cell > 0 ? cell : 0;
        cell = cell < (double)(cells - 1) ? cell : (double)(cells - 1);
        between[i] = (struct between){.first = (size_t)cell,
                                      .weight = (float)(cell - floor(cell)),
                                      .seen = share >= 0 && share <= 1};
    }
}

static vit_status make_tables(struct plan *plan, vit_error *err)
{
    const vit_heatmap *h = plan->heatmap;
    const vit_region *region = &h->region;
    size_t cells;
    if (size_multiply(h->grid_height, h->grid_width, &cells)) {
        plan->x = calloc(plan->tile_width, sizeof *plan->x);
        plan->y = calloc(plan->tile_height, sizeof *plan->y);
        plan->levels = calloc(cells, sizeof *plan->levels);
        plan->row = calloc(h->grid_width + 1, sizeof *plan->row);
    }
    if (plan->x == NULL || plan->y == NULL || plan->levels == NULL || plan->row == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a heatmap");
    place(plan->x, plan->tile_width, h->scale, region->left, region->width, h->grid_width);
    place(plan->y, plan->tile_height, h->scale, region->top, region->height, h->grid_height);
    colormap_table(plan->colours, h->colormap);
    plan->opacity = h->overlay ? (unsigned)(h->alpha * 256 + 0.5f) : 256;
    plan->grey = plan->opacity < 128 ? 2 * plan->opacity : 256;
    return VIT_OK;
}

/* ---- drawing ---- */

static void draw_unseen(const struct plan *plan, uint8_t *out, const uint8_t *below)
{
    for (int c = 0; c < 3; c++)
        out[c] = plan->heatmap->overlay ? (uint8_t)(below[c] * UNSEEN_PER_CENT / 100) : 0;
}

static void draw_seen(const struct plan *plan, uint8_t *out, const uint8_t *below, float level)
{
    const struct colour colour = plan->colours[level_index((double)level)];
    const unsigned above = plan->opacity, under = 256 - above, grey = plan->grey;
    const unsigned light = (54 * below[0] + 183 * below[1] + 19 * below[2] + 128) >> 8; /* BT.709 */
    const uint8_t over[3] = {colour.r, colour.g, colour.b};
    for (int c = 0; c < 3; c++) {
        const unsigned muted = (below[c] * (256 - grey) + light * grey + 128) >> 8;
        out[c] = (uint8_t)((muted * under + over[c] * above + 128) >> 8);
    }
}

/* plan->row: the map along a row of pixels */
static void interpolate_row(struct plan *plan, const struct between *y)
{
    const size_t cells = plan->heatmap->grid_width;
    const float *first = plan->levels + y->first * cells;
    const float *second = y->first + 1 < plan->heatmap->grid_height ? first + cells : first;
    for (size_t i = 0; i < cells; i++)
        plan->row[i] = first[i] + y->weight * (second[i] - first[i]);
    plan->row[cells] = plan->row[cells - 1];
}

static void draw_row(const struct plan *plan, uint8_t *out, const uint8_t *below, bool seen)
{
    const size_t scale = plan->heatmap->scale;
    size_t within = 0; /* of the picture's pixel */
    for (size_t i = 0; i < plan->tile_width; i++, out += 3) {
        const struct between *x = &plan->x[i];
        const float *cell = plan->row + x->first;
        if (seen && x->seen)
            draw_seen(plan, out, below, cell[0] + x->weight * (cell[1] - cell[0]));
        else
            draw_unseen(plan, out, below);
        if (++within == scale) {
            within = 0;
            below += 3;
        }
    }
}

static void draw_tile(struct plan *plan, vit_image *out, size_t left, size_t top, const float *values)
{
    const vit_heatmap *h = plan->heatmap;
    const size_t cells = h->grid_height * h->grid_width;
    const struct range range = range_of(values, cells);
    for (size_t i = 0; i < cells; i++)
        plan->levels[i] = range_level(&range, values[i]);
    for (size_t y = 0; y < plan->tile_height; y++) {
        interpolate_row(plan, &plan->y[y]);
        draw_row(plan, out->pixels + ((top + y) * out->width + left) * 3,
                 h->picture->pixels + y / h->scale * h->picture->width * 3, plan->y[y].seen);
    }
}

static void draw_tiles(struct plan *plan, vit_image *out)
{
    for (size_t i = 0; i < plan->heatmap->count; i++) {
        const vit_map *map = &plan->heatmap->maps[i];
        const size_t left = plan->margin + i % plan->columns * (plan->tile_width + plan->margin);
        const size_t top = plan->margin + i / plan->columns * (plan->tile_height + plan->label_height + plan->margin);
        if (map->label != NULL)
            text_draw(out, (double)left, (double)(top + 2 * plan->text_scale), plan->text_scale, colour_ink, map->label,
                      plan->tile_width);
        draw_tile(plan, out, left, top + plan->label_height, map->values);
    }
}

vit_status vit_heatmap_draw(vit_image *out, const vit_heatmap *heatmap, vit_error *err)
{
    struct plan plan = {.heatmap = heatmap};
    vit_image canvas = {0};
    vit_status status = check(heatmap, err);
    if (status == VIT_OK)
        status = create_canvas(&plan, &canvas, err);
    if (status == VIT_OK)
        status = make_tables(&plan, err);
    if (status == VIT_OK) {
        draw_tiles(&plan, &canvas);
        *out = canvas;
    } else {
        vit_image_release(&canvas);
    }
    free(plan.x);
    free(plan.y);
    free(plan.levels);
    free(plan.row);
    return status;
}
