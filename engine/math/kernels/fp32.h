/*
 * fp32.h - the fp32 products. A file that defines LANES (8 or 16), PRODUCTS (the table's variable) and PRODUCTS_NAME, and is
 * compiled for the instruction set, includes this once.
 */
#include "engine/math/kernels/float_sums.h"

enum { DEPTH = 1 };

static inline vec dot(vec sum, ivec a, ivec b)
{
    return sum + (vec)a * (vec)b;
}

#include "engine/math/kernels/panels.h"

static void convert(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k)
{
    for (size_t row = 0; row < rows; row++, a += lda) {
        float *out = (float *)(void *)(operand->words + row * operand->stride);
        for (size_t i = 0; i < k; i++)
            out[i] = factor * a[i];
    }
}

static void interleave(word *panel, const float *b, size_t ldb, size_t columns, size_t k)
{
    for (size_t i = 0; i < k; i++)
        memcpy(panel + i * PANEL, b + i * ldb, columns * sizeof *b);
}

const struct products PRODUCTS = {
    .name = PRODUCTS_NAME,
    .depth = DEPTH,
    .columns = PANEL,
    .convert = convert,
    .interleave = interleave,
    .multiply = multiply,
    .multiply_adds = multiply_adds,
};
