/* canvas.c - rectangles and discs. */
#include "engine/picture/canvas.h"

#include <math.h>
#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/base/size.h"

const struct colour colour_paper = {255, 255, 255}, colour_ink = {51, 51, 51}, colour_faint = {225, 225, 225};

vit_status canvas_create(vit_image *canvas, size_t width, size_t height, size_t max_pixels, struct colour colour,
                         vit_error *err)
{
    size_t pixels, bytes;
    if (!size_multiply(width, height, &pixels) || pixels > max_pixels || !size_multiply(pixels, 3, &bytes))
        return vit_error_set(err, VIT_ERR_ARGUMENT, "a picture of %zux%zu pixels would be larger than the %zu allowed",
                             width, height, max_pixels);
    uint8_t *memory = malloc(bytes);
    if (memory == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a picture of %zux%zu pixels", width, height);
    for (size_t i = 0; i < bytes; i += 3) {
        memory[i] = colour.r;
        memory[i + 1] = colour.g;
        memory[i + 2] = colour.b;
    }
    *canvas = (vit_image){.pixels = memory, .width = width, .height = height};
    return VIT_OK;
}

/* value, as an index between 0 and size */
static size_t clip(double value, size_t size)
{
    return value > 0 ? (value < (double)size ? (size_t)value : size) : 0;
}

void canvas_fill(vit_image *canvas, double left, double top, double width, double height, struct colour colour)
{
    const size_t x0 = clip(left, canvas->width), x1 = clip(left + width, canvas->width);
    const size_t y0 = clip(top, canvas->height), y1 = clip(top + height, canvas->height);
    for (size_t y = y0; y < y1; y++)
        for (size_t x = x0; x < x1; x++) {
            uint8_t *pixel = canvas->pixels + (y * canvas->width + x) * 3;
            pixel[0] = colour.r;
            pixel[1] = colour.g;
            pixel[2] = colour.b;
        }
}

static uint8_t mix(uint8_t below, uint8_t above, double opacity)
{
    return (uint8_t)(below + (above - below) * opacity + 0.5);
}

void canvas_disc(vit_image *canvas, double x, double y, double radius, struct colour colour, double opacity)
{
    const size_t x0 = clip(x - radius - 1, canvas->width), x1 = clip(x + radius + 2, canvas->width);
    const size_t y0 = clip(y - radius - 1, canvas->height), y1 = clip(y + radius + 2, canvas->height);
    for (size_t py = y0; py < y1; py++)
        for (size_t px = x0; px < x1; px++) {
            /* how much of the pixel the disc covers, near enough: its edge is one pixel wide */
            const double inside = radius + 0.5 - hypot((double)px + 0.5 - x, (double)py + 0.5 - y);
            const double cover = opacity * (inside < 0 ? 0 : inside > 1 ? 1 : inside);
            uint8_t *pixel = canvas->pixels + (py * canvas->width + px) * 3;
            pixel[0] = mix(pixel[0], colour.r, cover);
            pixel[1] = mix(pixel[1], colour.g, cover);
            pixel[2] = mix(pixel[2], colour.b, cover);
        }
}
