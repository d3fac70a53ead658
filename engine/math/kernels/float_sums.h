/* float_sums.h - what panels.h wants to know of products whose sums are fp32 numbers, and are the result as they are. */
#include <stdbool.h>

#include "engine/math/kernels/lanes.h"
#include "engine/math/kernels/products.h"

typedef vec sum_vec;

static inline void store_sums(float *c, vec left, vec right, const struct operand *operand, size_t row,
                              const struct panel *panel, bool add)
{
    (void)operand, (void)row, (void)panel;
    store(c, add ? load(c) + left : left);
    store(c + LANES, add ? load(c + LANES) + right : right);
}
