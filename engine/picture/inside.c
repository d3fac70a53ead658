/* inside.c - pictures of a model's weights. */
#include <math.h>
#include <stdio.h>

#include "engine/base/error.h"
#include "engine/picture/canvas.h"

enum {
    FILTER_COLUMNS = 7, FILTER_WIDTH = 84, /* pixels of a tile, about */
    POSITIONS_WIDTH = 840,                 /* of the grid of grids, about */
    SPACE = 4, MARGIN = 16, BAR_WIDTH = 16, BAR_TEXT = 56, MAX_CELLS = 1 << 26
};

static void draw_filter(vit_image *canvas, size_t left, size_t top, const float *filter, size_t patch, size_t scale)
{
    const size_t n = patch * patch;
    float largest = 0;
    for (size_t i = 0; i < 3 * n; i++)
        largest = fabsf(filter[i]) > largest ? fabsf(filter[i]) : largest;
    const float gain = largest > 0 ? 127.5f / largest : 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t rgb[3];
        for (size_t c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(127.5f + gain * filter[c * n + i]);
        canvas_fill(canvas, (double)(left + i % patch * scale), (double)(top + i / patch * scale), (double)scale,
                    (double)scale, (struct colour){rgb[0], rgb[1], rgb[2]});
    }
}

vit_status vit_filters_draw(vit_image *out, const float *filters, size_t count, size_t patch, vit_error *err)
{
    if (count == 0 || patch == 0 || patch > 4096)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "there are no filters to draw");
    const size_t scale = patch < FILTER_WIDTH ? (FILTER_WIDTH + patch / 2) / patch : 1, tile = scale * patch + SPACE;
    const size_t columns = count < FILTER_COLUMNS ? count : FILTER_COLUMNS, rows = (count + columns - 1) / columns;
    vit_image canvas;
    vit_status status = canvas_create(&canvas, 2 * MARGIN + columns * tile - SPACE, 2 * MARGIN + rows * tile - SPACE,
                                      MAX_CELLS, colour_paper, err);
    if (status != VIT_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        draw_filter(&canvas, MARGIN + i % columns * tile, MARGIN + i / columns * tile, filters + i * 3 * patch * patch,
                    patch, scale);
    *out = canvas;
    return VIT_OK;
}

/* ---- position embeddings ---- */

/* The colours from the lowest value at the bottom to the highest, with both written beside it. */
static void draw_bar(vit_image *canvas, size_t left, size_t top, size_t height, const struct colour *colours, float low,
                     float high)
{
    char text[32];
    for (size_t i = 0; i < height; i++)
        canvas_fill(canvas, (double)left, (double)(top + i), BAR_WIDTH, 1,
                    colours[colormap_index(1 - (double)i / (double)(height - 1))]);
    snprintf(text, sizeof text, "%.2f", (double)high);
    text_draw(canvas, (double)(left + BAR_WIDTH + 6), (double)top, 2, colour_ink, text, BAR_TEXT);
    snprintf(text, sizeof text, "%.2f", (double)low);
    text_draw(canvas, (double)(left + BAR_WIDTH + 6), (double)(top + height) - 2 * TEXT_HEIGHT, 2, colour_ink, text,
              BAR_TEXT);
}

vit_status vit_positions_draw(vit_image *out, const float *similarity, size_t grid_height, size_t grid_width,
                              vit_colormap colormap, vit_error *err)
{
    const size_t patches = grid_height * grid_width;
    if (patches == 0 || grid_height > 1024 || grid_width > 1024)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "there is no grid of positions to draw");
    const size_t cells = grid_width * grid_width;
    const size_t scale = cells < POSITIONS_WIDTH ? POSITIONS_WIDTH / cells : 1;
    const size_t space = grid_width > 16 ? 2 : SPACE;
    const size_t tile_width = scale * grid_width + space, tile_height = scale * grid_height + space;
    const size_t width = grid_width * tile_width - space, height = grid_height * tile_height - space;
    vit_image canvas;
    vit_status status = canvas_create(&canvas, width + 3 * MARGIN + BAR_WIDTH + BAR_TEXT, height + 2 * MARGIN, MAX_CELLS,
                                      colour_paper, err);
    if (status != VIT_OK)
        return status;
    struct colour colours[COLORMAP_SIZE];
    float low = similarity[0], high = similarity[0];
    colormap_table(colours, colormap);
    for (size_t i = 0; i < patches * patches; i++) {
        low = similarity[i] < low ? similarity[i] : low;
        high = similarity[i] > high ? similarity[i] : high;
    }
    const double gain = high > low ? 1 / (double)(high - low) : 0;
    for (size_t i = 0; i < patches * patches; i++) {
        const size_t from = i / patches, to = i % patches;
        const size_t left = MARGIN + from % grid_width * tile_width + to % grid_width * scale;
        const size_t top = MARGIN + from / grid_width * tile_height + to / grid_width * scale;
        canvas_fill(&canvas, (double)left, (double)top, (double)scale, (double)scale,
                    colours[colormap_index((double)(similarity[i] - low) * gain)]);
    }
    draw_bar(&canvas, width + 2 * MARGIN, MARGIN, height, colours, low, high);
    *out = canvas;
    return VIT_OK;
}
