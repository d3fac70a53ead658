/* windows.c - see windows.h; arXiv 2103.14030, section 3.2. */
#include "engine/arch/windows.h"

#include <stdlib.h>

#include "engine/base/error.h"

void windows_release(struct windows *windows)
{
    free((void *)windows->places);
    free((void *)windows->regions);
    *windows = (struct windows){0};
}

/* A row or column of the rolled, padded grid: where it comes from; at least `length` for padding. */
static size_t source_of(size_t position, size_t length, size_t padded, size_t shift, bool roll_first)
{
    if (roll_first)
        return position < length ? (position + shift) % length : length;
    return (position + shift) % padded;
}

/* Rolling brings both ends of the grid into the last windows, as strangers. */
static unsigned region_of(size_t position, size_t padded, size_t side, size_t shift)
{
    if (shift == 0 || position < padded - side)
        return 0;
    return position < padded - shift ? 1 : 2;
}

static void fill(int32_t *places, uint8_t *regions, const struct window_plan *plan, size_t rows, size_t columns)
{
    const size_t side = plan->side, height = rows * side, width = columns * side;
    for (size_t i = 0; i < rows * columns * side * side; i++) {
        const size_t window = i / (side * side), slot = i % (side * side);
        const size_t y = window / columns * side + slot / side, x = window % columns * side + slot % side;
        const size_t from_y = source_of(y, plan->grid_height, height, plan->shift_down, plan->roll_first);
        const size_t from_x = source_of(x, plan->grid_width, width, plan->shift_right, plan->roll_first);
        const bool inside = from_y < plan->grid_height && from_x < plan->grid_width;
        places[i] = inside ? (int32_t)(from_y * plan->grid_width + from_x) : -1;
        regions[i] = (uint8_t)(3 * region_of(y, height, side, plan->shift_down) +
                               region_of(x, width, side, plan->shift_right));
    }
}

vit_status windows_init(struct windows *windows, const struct window_plan *plan, vit_error *err)
{
    const size_t rows = (plan->grid_height + plan->side - 1) / plan->side;
    const size_t columns = (plan->grid_width + plan->side - 1) / plan->side;
    const size_t slots = rows * columns * plan->side * plan->side;
    int32_t *places = calloc(slots, sizeof *places);
    uint8_t *regions = calloc(slots, sizeof *regions);
    if (places == NULL || regions == NULL) {
        free(places);
        free(regions);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for %zu windows", rows * columns);
    }
    fill(places, regions, plan, rows, columns);
    if (plan->shift_down == 0 && plan->shift_right == 0) {
        free(regions);
        regions = NULL;
    }
    *windows = (struct windows){.count = rows * columns, .size = plan->side * plan->side, .places = places,
                                .regions = regions};
    return VIT_OK;
}

void windows_expand_bias(float *bias, const float *table, size_t side, size_t heads)
{
    const size_t n = side * side, span = 2 * side - 1;
    for (size_t head = 0; head < heads; head++)
        for (size_t query = 0; query < n; query++)
            for (size_t key = 0; key < n; key++) {
                const size_t down = query / side + side - 1 - key / side, right = query % side + side - 1 - key % side;
                *bias++ = table[(down * span + right) * heads + head];
            }
}
