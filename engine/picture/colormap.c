/*
 * colormap.c - from values to colours. Each map is 33 colours at equal steps, linear in between; the knots were fitted
 * so that none of the 256 colours of matplotlib's tables is missed by more than 1 of 255.
 */
#include <math.h>

#include "engine/picture/canvas.h"

enum { KNOTS = 33 };

static const uint8_t viridis[KNOTS][3] = {
    {68, 1, 84}, {71, 12, 96}, {72, 25, 106}, {72, 34, 116}, {71, 45, 123}, {69, 54, 129}, {66, 64, 134},
    {63, 73, 137}, {59, 82, 139}, {55, 91, 141}, {51, 99, 141}, {47, 107, 142}, {44, 114, 142},
    {41, 122, 142}, {38, 129, 142}, {35, 137, 142}, {32, 144, 140}, {31, 151, 139}, {30, 159, 136},
    {33, 166, 133}, {39, 174, 128}, {49, 181, 123}, {61, 188, 116}, {77, 194, 108}, {92, 201, 99},
    {111, 206, 88}, {129, 212, 77}, {150, 216, 63}, {171, 220, 50}, {192, 223, 36}, {213, 226, 25},
    {234, 229, 25}, {253, 231, 37},
};

static const uint8_t turbo[KNOTS][3] = {
    {48, 18, 59}, {57, 42, 116}, {64, 64, 162}, {69, 86, 199}, {70, 107, 228}, {71, 128, 247},
    {67, 147, 255}, {55, 167, 251}, {41, 187, 237}, {28, 205, 216}, {23, 221, 195}, {29, 232, 176},
    {48, 242, 153}, {76, 249, 126}, {107, 254, 99}, {138, 255, 76}, {163, 253, 59}, {184, 247, 52},
    {204, 237, 52}, {222, 224, 55}, {237, 208, 58}, {248, 192, 58}, {253, 174, 53}, {255, 152, 44},
    {251, 128, 34}, {245, 104, 23}, {237, 82, 15}, {224, 64, 8}, {210, 49, 5}, {193, 34, 2}, {172, 23, 1},
    {149, 12, 1}, {122, 4, 3},
};

void colormap_table(struct colour table[COLORMAP_SIZE], vit_colormap colormap)
{
    const uint8_t(*knots)[3] = colormap == VIT_COLORMAP_TURBO ? turbo : viridis;
    for (int i = 0; i < COLORMAP_SIZE; i++) {
        const int place = i * (KNOTS - 1), last = COLORMAP_SIZE - 1;
        const int left = place < (KNOTS - 2) * last ? place / last : KNOTS - 2, part = place - left * last;
        uint8_t mixed[3];
        for (int c = 0; c < 3; c++)
            mixed[c] = (uint8_t)((knots[left][c] * (last - part) + knots[left + 1][c] * part + last / 2) / last);
        table[i] = (struct colour){mixed[0], mixed[1], mixed[2]};
    }
}

struct range range_of(const float *values, size_t count)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < count; i++)
        if (isfinite(values[i])) {
            low = fmin(low, (double)values[i]);
            high = fmax(high, (double)values[i]);
        }
    if (low > high)
        low = high = 0;
    return (struct range){.low = low, .high = high, .gain = high > low ? (COLORMAP_SIZE - 1) / (high - low) : 0};
}

float range_level(const struct range *range, float value)
{
    const double level = ((double)value - range->low) * range->gain, most = COLORMAP_SIZE - 1;
    return level > 0 ? (float)(level < most ? level : most) : 0;
}

size_t level_index(double level)
{
    return (size_t)(level + 0.5);
}
