/* fp32_avx512.c - fp32 products with 16 lanes; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 16
#define PRODUCTS products_fp32_avx512
#define PRODUCTS_NAME "fp32 avx512"
#include "engine/math/kernels/fp32.h"
#endif
