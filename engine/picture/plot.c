/* plot.c - the mean attention distances as a scatter plot. */
#include <math.h>
#include <stdio.h>

#include "engine/base/error.h"
#include "engine/picture/canvas.h"

enum {
    WIDTH = 900, HEIGHT = 560,
    LEFT = 76, RIGHT = 96, TOP = 52, BOTTOM = 64, /* around the plot itself */
    ACROSS = WIDTH - LEFT - RIGHT, DOWN = HEIGHT - TOP - BOTTOM,
    TEXT = 2, HALF_TEXT = TEXT * TEXT_HEIGHT / 2,
    MOST_TICKS = 7, TICK_WIDTH = 36, LEGEND_ROW = 24, LEGEND_LEAST = 18, MAX_ROWS = 4096
};

/* From what is plotted to pixels. */
struct axes {
    size_t layers;
    double step, top_value;
};

/* 1, 2 or 5 times a power of ten, not below `least`. */
static double round_step(double least)
{
    const double power = pow(10, floor(log10(least))), share = least / power;
    return power * (share <= 1 ? 1 : share <= 2 ? 2 : share <= 5 ? 5 : 10);
}

static size_t whole_step(double least)
{
    return least > 1 ? (size_t)(round_step(least) + 0.5) : 1;
}

static struct axes make_axes(const float *distances, size_t layers, size_t heads)
{
    const struct range range = range_of(distances, layers * heads);
    const double most = range.high > 0 ? range.high : 1, step = round_step(most / MOST_TICKS);
    return (struct axes){.layers = layers, .step = step, .top_value = ceil(most / step) * step};
}

static double x_of(const struct axes *axes, size_t layer)
{
    return LEFT + ((double)layer + 0.5) / (double)axes->layers * ACROSS;
}

static double y_of(const struct axes *axes, double value)
{
    return HEIGHT - BOTTOM - value / axes->top_value * DOWN;
}

/* ---- axes ---- */

static void draw_centred(vit_image *canvas, double x, double y, const char *text)
{
    text_draw(canvas, round(x - (double)text_width(text, TEXT) / 2), y, TEXT, colour_ink, text, WIDTH);
}

static void draw_axes(vit_image *canvas, const struct axes *axes)
{
    char text[32];
    for (int i = 0; i * axes->step <= axes->top_value + axes->step / 2; i++) {
        const double value = i * axes->step, y = floor(y_of(axes, value));
        canvas_fill(canvas, LEFT, y, ACROSS, 1, i > 0 ? colour_faint : colour_ink);
        snprintf(text, sizeof text, "%g", value);
        text_draw(canvas, LEFT - 10 - (double)text_width(text, TEXT), y - HALF_TEXT, TEXT, colour_ink, text,
                  WIDTH);
    }
    const size_t every = whole_step((double)axes->layers * TICK_WIDTH / ACROSS);
    for (size_t layer = 0; layer < axes->layers; layer += every) {
        snprintf(text, sizeof text, "%zu", layer);
        canvas_fill(canvas, floor(x_of(axes, layer)), HEIGHT - BOTTOM, 1, 5, colour_ink);
        draw_centred(canvas, x_of(axes, layer), HEIGHT - BOTTOM + 10, text);
    }
    draw_centred(canvas, LEFT + ACROSS / 2.0, HEIGHT - 28, "layer");
    text_draw(canvas, 20, 14, TEXT, colour_ink, "mean attention distance (pixels)", WIDTH);
}

/* ---- heads ---- */

static struct colour colour_of(const struct colour *colours, size_t head, size_t heads)
{
    /* the lightest tenth of the colours is hard to see on white */
    return colours[heads > 1 ? head * (COLORMAP_SIZE - 1) * 9 / (10 * (heads - 1)) : 0];
}

static void draw_legend(vit_image *canvas, const struct colour *colours, size_t heads)
{
    const double left = WIDTH - RIGHT + 26, row = fmin(LEGEND_ROW, (DOWN - LEGEND_ROW) / (double)heads);
    const size_t every = whole_step(LEGEND_LEAST / row);
    char text[32];
    text_draw(canvas, left - 6, TOP - HALF_TEXT, TEXT, colour_ink, "head", RIGHT);
    for (size_t head = 0; head < heads; head++) {
        const double y = TOP + LEGEND_ROW + ((double)head + 0.5) * row;
        canvas_disc(canvas, left, y, fmin(6, fmax(2, row * 0.4)), colour_of(colours, head, heads), 1);
        if (head % every != 0)
            continue;
        snprintf(text, sizeof text, "%zu", head);
        text_draw(canvas, left + 14, round(y) - HALF_TEXT, TEXT, colour_ink, text, RIGHT);
    }
}

/* White rings keep dots apart that overlap. */
static void draw_dots(vit_image *canvas, const struct axes *axes, const float *distances, size_t heads,
                      const struct colour *colours)
{
    const double radius = fmax(2.5, fmin(6, ACROSS / (double)axes->layers / 5));
    for (size_t i = 0; i < axes->layers * heads; i++) {
        const double x = x_of(axes, i / heads), y = y_of(axes, (double)distances[i]);
        canvas_disc(canvas, x, y, radius * 1.15, colour_paper, 0.8);
        canvas_disc(canvas, x, y, radius, colour_of(colours, i % heads, heads), 0.9);
    }
}

vit_status vit_distances_draw(vit_image *out, const float *distances, size_t layers, size_t heads, vit_error *err)
{
    if (layers == 0 || heads == 0 || layers > MAX_ROWS || heads > MAX_ROWS)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "the distances of %zu heads in %zu layers cannot be drawn", heads,
                             layers);
    vit_image canvas;
    vit_status status = canvas_create(&canvas, WIDTH, HEIGHT, SIZE_MAX, colour_paper, err);
    if (status != VIT_OK)
        return status;
    struct colour colours[COLORMAP_SIZE];
    const struct axes axes = make_axes(distances, layers, heads);
    colormap_table(colours, VIT_COLORMAP_VIRIDIS);
    draw_axes(&canvas, &axes);
    draw_dots(&canvas, &axes, distances, heads, colours);
    draw_legend(&canvas, colours, heads);
    *out = canvas;
    return VIT_OK;
}
