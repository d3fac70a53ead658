/* inside.c - pictures of a model's weights: its filters, its position embeddings. */
#include <math.h>
#include <stdio.h>

#include "engine/base/error.h"
#include "engine/picture/canvas.h"

enum {
    FILTER_COLUMNS = 7,
    FILTER_WIDTH = 78,     /* of a tile, about: seven make 600 pixels */
    POSITIONS_SIDE = 868,  /* of the grid of grids, at most if it can be */
    SPACE = 4, MARGIN = 16,
    TEXT = 2, BAR_HEIGHT = 12, BAR_LEAST = 240, /* so that there is room for both numbers */
    MAX_PIXELS = 1 << 26
};

static void draw_filter(vit_image *canvas, size_t left, size_t top, const float *filter, size_t patch, size_t scale)
{
    const size_t n = patch * patch;
    float largest = 0;
    for (size_t i = 0; i < 3 * n; i++)
        if (isfinite(filter[i]))
            largest = fmaxf(largest, fabsf(filter[i]));
    /* -largest .. largest, with 0 at the middle of the levels */
    const struct range range = {.low = -(double)largest, .gain = largest > 0 ? 127.5 / (double)largest : 0};
    for (size_t i = 0; i < n; i++) {
        uint8_t rgb[3] = {127, 127, 127};
        for (size_t c = 0; largest > 0 && c < 3; c++)
            rgb[c] = (uint8_t)range_level(&range, filter[c * n + i]);
        canvas_fill(canvas, (double)(left + i % patch * scale), (double)(top + i / patch * scale), (double)scale,
                    (double)scale, (struct colour){rgb[0], rgb[1], rgb[2]});
    }
}

vit_status vit_filters_draw(vit_image *out, const float *filters, size_t count, size_t patch, vit_error *err)
{
    if (count == 0 || patch == 0 || patch > 4096 || count > MAX_PIXELS)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "%zu filters of %zux%zu pixels cannot be drawn", count, patch,
                             patch);
    const size_t scale = patch < FILTER_WIDTH ? (FILTER_WIDTH + patch / 2) / patch : 1, tile = scale * patch + SPACE;
    const size_t columns = count < FILTER_COLUMNS ? count : FILTER_COLUMNS, rows = (count + columns - 1) / columns;
    vit_image canvas;
    vit_status status = canvas_create(&canvas, 2 * MARGIN + columns * tile - SPACE, 2 * MARGIN + rows * tile - SPACE,
                                      MAX_PIXELS, colour_paper, err);
    if (status != VIT_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        draw_filter(&canvas, MARGIN + i % columns * tile, MARGIN + i / columns * tile, filters + i * 3 * patch * patch,
                    patch, scale);
    *out = canvas;
    return VIT_OK;
}

/* ---- position embeddings ---- */

/* The colours along a bar, the lowest value written before it and the highest behind it. */
static void draw_bar(vit_image *canvas, size_t top, const struct colour *colours, const struct range *range)
{
    char low[32], high[32];
    snprintf(low, sizeof low, "%.2f", range->low > -0.005 && range->low < 0 ? 0 : range->low);
    snprintf(high, sizeof high, "%.2f", range->high > -0.005 && range->high < 0 ? 0 : range->high);
    const size_t left = MARGIN + text_width(low, TEXT) + 10;
    const size_t right = canvas->width - MARGIN - text_width(high, TEXT) - 10;
    text_draw(canvas, MARGIN, (double)top, TEXT, colour_ink, low, SIZE_MAX);
    text_draw(canvas, (double)(right + 10), (double)top, TEXT, colour_ink, high, SIZE_MAX);
    for (size_t x = left; x < right; x++)
        canvas_fill(canvas, (double)x, (double)top + 1, 1, BAR_HEIGHT,
                    colours[(x - left) * (COLORMAP_SIZE - 1) / (right - left - 1)]);
}

/* Pixels from one tile to the next. */
struct tiles {
    size_t scale, space, x, y;
};

static struct tiles choose_tiles(size_t grid_height, size_t grid_width)
{
    const size_t longer = grid_height > grid_width ? grid_height : grid_width;
    const size_t space = longer > 10 ? 2 : SPACE, room = POSITIONS_SIDE - (longer < 100 ? longer * space : 0);
    const size_t scale = longer * longer < room ? room / (longer * longer) : 1;
    return (struct tiles){scale, space, scale * grid_width + space, scale * grid_height + space};
}

static void draw_cells(vit_image *canvas, const float *similarity, size_t grid_height, size_t grid_width,
                       const struct tiles *tiles, const struct colour *colours, const struct range *range)
{
    const size_t patches = grid_height * grid_width;
    for (size_t from = 0; from < patches; from++)
        for (size_t to = 0; to < patches; to++) {
            const size_t left = MARGIN + from % grid_width * tiles->x + to % grid_width * tiles->scale;
            const size_t top = MARGIN + from / grid_width * tiles->y + to / grid_width * tiles->scale;
            const float level = range_level(range, similarity[from * patches + to]);
            canvas_fill(canvas, (double)left, (double)top, (double)tiles->scale, (double)tiles->scale,
                        colours[level_index((double)level)]);
        }
}

vit_status vit_positions_draw(vit_image *out, const float *similarity, size_t grid_height, size_t grid_width,
                              vit_colormap colormap, vit_error *err)
{
    if (grid_height == 0 || grid_width == 0 || grid_height > 1024 || grid_width > 1024)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a grid of %zux%zu positions cannot be drawn", grid_width,
                             grid_height);
    const struct tiles tiles = choose_tiles(grid_height, grid_width);
    const size_t width = grid_width * tiles.x - tiles.space, height = grid_height * tiles.y - tiles.space;
    vit_image canvas;
    vit_status status =
        canvas_create(&canvas, (width > BAR_LEAST ? width : BAR_LEAST) + 2 * MARGIN,
                      height + 3 * MARGIN + TEXT * TEXT_HEIGHT, MAX_PIXELS, colour_paper, err);
    if (status != VIT_OK)
        return status;
    struct colour colours[COLORMAP_SIZE];
    colormap_table(colours, colormap);
    const size_t patches = grid_height * grid_width;
    const struct range range = range_of(similarity, patches * patches);
    draw_cells(&canvas, similarity, grid_height, grid_width, &tiles, colours, &range);
    draw_bar(&canvas, height + 2 * MARGIN, colours, &range);
    *out = canvas;
    return VIT_OK;
}
