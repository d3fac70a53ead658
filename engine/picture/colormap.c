/* colormap.c - from a value to a colour. */
#include "engine/picture/canvas.h"

/* Viridis at 33 equal steps; in between linearly, at most 2 of 255 off its 256 colours. */
static struct colour viridis(double x)
{
    static const uint8_t knots[33][3] = {
        {68, 1, 84}, {71, 13, 96}, {72, 24, 106}, {72, 35, 116}, {71, 45, 123}, {69, 54, 129},
        {66, 64, 134}, {63, 73, 137}, {59, 82, 139}, {55, 90, 141}, {51, 99, 141}, {47, 106, 142},
        {44, 114, 142}, {41, 122, 142}, {38, 129, 142}, {35, 137, 142}, {33, 144, 140}, {31, 152, 139},
        {31, 159, 136}, {33, 166, 133}, {40, 174, 128}, {49, 181, 123}, {62, 188, 116}, {76, 194, 108},
        {93, 201, 99}, {110, 206, 88}, {130, 211, 76}, {150, 216, 63}, {171, 220, 50}, {192, 223, 36},
        {213, 226, 26}, {234, 229, 26}, {253, 231, 37}};
    const double place = x * 32;
    const int i = place < 31 ? (int)place : 31;
    const double t = place - i;
    uint8_t mixed[3];
    for (int c = 0; c < 3; c++)
        mixed[c] = (uint8_t)(knots[i][c] + (knots[i + 1][c] - knots[i][c]) * t + 0.5);
    return (struct colour){mixed[0], mixed[1], mixed[2]};
}

static uint8_t polynomial(const double coefficients[6], double x)
{
    double value = 0;
    for (int i = 6; i-- > 0;)
        value = value * x + coefficients[i];
    return (uint8_t)(255 * (value < 0 ? 0 : value > 1 ? 1 : value) + 0.5);
}

/* Turbo by the polynomial that its authors give for it. */
static struct colour turbo(double x)
{
    static const double red[6] = {0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943};
    static const double green[6] = {0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604};
    static const double blue[6] = {0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973};
    return (struct colour){polynomial(red, x), polynomial(green, x), polynomial(blue, x)};
}

void colormap_table(struct colour table[COLORMAP_SIZE], vit_colormap colormap)
{
    for (int i = 0; i < COLORMAP_SIZE; i++) {
        const double x = i / (double)(COLORMAP_SIZE - 1);
        table[i] = colormap == VIT_COLORMAP_TURBO ? turbo(x) : viridis(x);
    }
}

size_t colormap_index(double value)
{
    if (!(value > 0))
        return 0;
    return value < 1 ? (size_t)(value * (COLORMAP_SIZE - 1) + 0.5) : COLORMAP_SIZE - 1;
}
