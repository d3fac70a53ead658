/*
 * int8.h - the int8 products, on VNNI's VPDPBUSD. A file that defines LANES (8 or 16), PRODUCTS (the table's variable) and
 * PRODUCTS_NAME, and is compiled for the instruction set, includes this once, after lanes.h and these four:
 *
 *     dot(sum, a, b)           VPDPBUSD
 *     multiply_add(a, b, c)    a * b + c in one rounding
 *     round_to_int(x)
 *     store_bytes(out, lanes)  bounded to 0 .. 255
 */
#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "engine/math/kernels/products.h"

enum { DEPTH = 4 };
typedef ivec sum_vec;

static inline vec scaled(ivec sums, const struct operand *operand, size_t row, const struct panel *panel, size_t column)
{
    return operand->scales[row] * multiply_add(__builtin_convertvector(sums, vec), load(panel->scales + column),
                                               operand->zeros[row] * load(panel->sums + column));
}

static inline void store_sums(float *c, ivec left, ivec right, const struct operand *operand, size_t row,
                              const struct panel *panel, bool add)
{
    const vec first = scaled(left, operand, row, panel, 0), second = scaled(right, operand, row, panel, LANES);
    store(c, add ? load(c) + first : first);
    store(c + LANES, add ? load(c + LANES) + second : second);
}

#include "engine/math/kernels/panels.h"

/* The smallest and largest of factor * x and 0; *broken is NaN if x holds what is not finite, else 0. */
static void find_range(const float *x, float factor, size_t k, float *least, float *most, float *broken)
{
    vec low = {0}, high = {0}, nothing = {0};
    for (size_t i = 0; i < k; i += LANES) {
        const vec v = factor * (k - i >= LANES ? load(x + i) : load_part(x + i, k - i, 0));
        low = vec_min(v, low);
        high = vec_max(v, high);
        nothing += v * 0.0f;
    }
    *least = -max_lanes(-low);
    *most = max_lanes(high);
    *broken = sum_lanes(nothing);
}

static void convert(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k)
{
    for (size_t row = 0; row < rows; row++, a += lda) {
        float least, most, broken;
        find_range(a, factor, k, &least, &most, &broken);
        const float scale = (most - least) / 255.0f, inverse = scale > FLT_MIN ? 1.0f / scale : 0;
        const float offset = broken == 0 ? rintf(-least * inverse) : 0;
        uint8_t *out = (uint8_t *)(operand->words + row * operand->stride);
        operand->scales[row] = scale + broken;
        operand->zeros[row] = -offset;
        const int32_t zero = (int32_t)offset;
        size_t i = 0;
        for (; i + LANES <= k; i += LANES)
            store_bytes(out + i, round_to_int(factor * load(a + i) * inverse) + zero);
        if (i < k) {
            uint8_t last[LANES];
            store_bytes(last, round_to_int(factor * load_part(a + i, k - i, 0) * inverse) + zero);
            memcpy(out + i, last, k - i);
        }
        memset(out + k, 0, (4 - k % 4) % 4);
    }
}

const struct products PRODUCTS = {
    .name = PRODUCTS_NAME,
    .depth = DEPTH,
    .columns = PANEL,
    .convert = convert,
    .multiply = multiply,
    .multiply_adds = multiply_adds,
};
