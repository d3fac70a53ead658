/* fp32_avx2.c - fp32 products with 8 lanes; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 8
#include "engine/math/kernels/fp32.h"

const struct products products_fp32_avx2 = {
    .name = "fp32 avx2",
    .depth = DEPTH,
    .columns = PANEL,
    .convert = convert,
    .interleave = interleave,
    .multiply = multiply,
    .multiply_adds = multiply_adds,
};
#endif
