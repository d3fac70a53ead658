/* fp32_avx2.c - fp32 products with 8 lanes; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 8
#define PRODUCTS products_fp32_avx2
#define PRODUCTS_NAME "fp32 avx2"
#include "engine/math/kernels/fp32.h"
#endif
