/* mean.c - mean and length of rows. */
#include <math.h>
#include <string.h>

#include "engine/layers/layers.h"

void mean_rows(float *mean, const float *rows, size_t count, size_t width)
{
    memset(mean, 0, width * sizeof *mean);
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < width; c++)
            mean[c] += rows[i * width + c];
    for (size_t c = 0; c < width; c++)
        mean[c] /= (float)count;
}

float unit_length(float *y, const float *x, size_t width)
{
    double square = 0;
    for (size_t c = 0; c < width; c++)
        square += (double)x[c] * x[c];
    const float length = (float)sqrt(square);
    for (size_t c = 0; c < width; c++)
        y[c] = x[c] / length;
    return length;
}
