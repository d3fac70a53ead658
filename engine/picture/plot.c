/* plot.c - the mean attention distances as a scatter plot. */
#include <math.h>
#include <stdio.h>

#include "engine/base/error.h"
#include "engine/picture/canvas.h"

enum { WIDTH = 900, HEIGHT = 560, LEFT = 84, RIGHT = 96, TOP = 48, BOTTOM = 64, TEXT = 2, MAX_LAYERS = 4096 };

/* From what is plotted to pixels. */
struct axes {
    size_t layers;
    double top_value;
};

static double x_of(const struct axes *axes, double layer)
{
    return LEFT + (layer + 0.5) / (double)axes->layers * (WIDTH - LEFT - RIGHT);
}

static double y_of(const struct axes *axes, double value)
{
    return HEIGHT - BOTTOM - value / axes->top_value * (HEIGHT - BOTTOM - TOP);
}

/* 1, 2 or 5 times a power of ten, so that `most` is about five of them. */
static double tick_step(double most)
{
    const double power = pow(10, floor(log10(most / 5))), share = most / 5 / power;
    return power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
}

static void draw_centred(vit_image *canvas, double x, double y, const char *text)
{
    text_draw(canvas, x - (double)text_width(text, TEXT) / 2, y, TEXT, colour_ink, text, WIDTH);
}

static void draw_axes(vit_image *canvas, const struct axes *axes, double step)
{
    char text[32];
    for (double value = 0; value <= axes->top_value + step / 2; value += step) {
        canvas_fill(canvas, LEFT, floor(y_of(axes, value)), WIDTH - LEFT - RIGHT, 1, value > 0 ? colour_faint : colour_ink);
        snprintf(text, sizeof text, "%g", value);
        text_draw(canvas, LEFT - 12 - (double)text_width(text, TEXT), y_of(axes, value) - TEXT_HEIGHT, TEXT, colour_ink,
                  text, WIDTH);
    }
    const size_t every = (axes->layers + 23) / 24;
    for (size_t layer = 0; layer < axes->layers; layer += every) {
        snprintf(text, sizeof text, "%zu", layer);
        draw_centred(canvas, x_of(axes, (double)layer), HEIGHT - BOTTOM + 10, text);
    }
    draw_centred(canvas, LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 26, "layer");
    text_draw(canvas, 20, 14, TEXT, colour_ink, "mean attention distance (pixels)", WIDTH);
}

static struct colour colour_of(const struct colour *colours, size_t head, size_t heads)
{
    /* the lightest tenth of the colours is hard to see on white */
    return colours[colormap_index(heads > 1 ? 0.9 * (double)head / (double)(heads - 1) : 0)];
}

static void draw_legend(vit_image *canvas, const struct colour *colours, size_t heads)
{
    const double left = WIDTH - RIGHT + 24, room = HEIGHT - TOP - BOTTOM - 24, row = fmin(24, room / (double)heads);
    char text[32];
    size_t every = 1;
    while ((double)every * row < 18)
        every++;
    text_draw(canvas, left - 6, TOP - 2, TEXT, colour_ink, "head", RIGHT);
    for (size_t head = 0; head < heads; head++) {
        const double y = TOP + 30 + (double)head * row;
        canvas_disc(canvas, left, y, fmin(6, row * 0.4), colour_of(colours, head, heads), 1);
        snprintf(text, sizeof text, "%zu", head);
        if (head % every == 0)
            text_draw(canvas, left + 14, y - TEXT_HEIGHT + 1, TEXT, colour_ink, text, RIGHT);
    }
}

vit_status vit_distances_draw(vit_image *out, const float *distances, size_t layers, size_t heads, vit_error *err)
{
    double most = 0;
    if (layers == 0 || heads == 0 || layers > MAX_LAYERS || heads > MAX_LAYERS)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "there are no distances to draw");
    for (size_t i = 0; i < layers * heads; i++)
        most = (double)distances[i] > most ? (double)distances[i] : most;
    most = most > 0 ? most : 1;
    const double step = tick_step(most);
    const struct axes axes = {.layers = layers, .top_value = ceil(most / step) * step};
    vit_image canvas;
    vit_status status = canvas_create(&canvas, WIDTH, HEIGHT, SIZE_MAX, colour_paper, err);
    if (status != VIT_OK)
        return status;
    struct colour colours[COLORMAP_SIZE];
    colormap_table(colours, VIT_COLORMAP_VIRIDIS);
    draw_axes(&canvas, &axes, step);
    const double radius = fmax(2.5, fmin(7, (WIDTH - LEFT - RIGHT) / (double)layers / 5));
    for (size_t i = 0; i < layers * heads; i++)
        canvas_disc(&canvas, x_of(&axes, (double)(i / heads)), y_of(&axes, (double)distances[i]), radius,
                    colour_of(colours, i % heads, heads), 0.85);
    draw_legend(&canvas, colours, heads);
    *out = canvas;
    return VIT_OK;
}
