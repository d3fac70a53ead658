#include "engine/layers/layers.h"

size_t parts_lay_out(size_t *starts, const size_t *sizes, size_t count)
{
    size_t next = 0;
    for (size_t i = 0; i < count; i++) {
        starts[i] = next;
        next += (sizes[i] + 15) / 16 * 16;
    }
    return next;
}
