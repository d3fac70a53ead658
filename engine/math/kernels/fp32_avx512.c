/* fp32_avx512.c - fp32 products with 16 lanes; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 16
#include "engine/math/kernels/fp32.h"

const struct products products_fp32_avx512 = {
    .name = "fp32 avx512",
    .depth = DEPTH,
    .columns = PANEL,
    .convert = convert,
    .interleave = interleave,
    .multiply = multiply,
    .multiply_adds = multiply_adds,
};
#endif
