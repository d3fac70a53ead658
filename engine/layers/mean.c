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
