/* fp32.h - the fp32 products for LANES lanes; see panels.h. */
#include <stdbool.h>

#include "engine/math/kernels/lanes.h"
#include "engine/math/kernels/products.h"

enum { DEPTH = 1 };
typedef vec sum_vec;

static inline vec dot(vec sum, ivec a, ivec b)
{
    return sum + (vec)a * (vec)b;
}

static inline void store_sums(float *c, vec left, vec right, const struct operand *operand, size_t row,
                              const struct panel *panel, bool add)
{
    (void)operand, (void)row, (void)panel;
    store(c, add ? load(c) + left : left);
    store(c + LANES, add ? load(c + LANES) + right : right);
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
