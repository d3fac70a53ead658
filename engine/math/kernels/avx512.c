/* avx512.c - the vector kernels with 16 lanes; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 16
#define KERNELS kernels_avx512
#define KERNELS_NAME "avx512"
#include "engine/math/kernels/vector.h"
#endif
