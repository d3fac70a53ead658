#include <string.h>

#include "engine/layers/layers.h"

void patches_unfold(float *patches, const float *pixels, size_t height, size_t width, size_t patch)
{
    for (size_t top = 0; top + patch <= height; top += patch)
        for (size_t left = 0; left + patch <= width; left += patch)
            for (size_t channel = 0; channel < 3; channel++)
                for (size_t row = 0; row < patch; row++, patches += patch)
                    memcpy(patches, pixels + (channel * height + top + row) * width + left, patch * sizeof *patches);
}
