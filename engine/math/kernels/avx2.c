/* avx2.c - the vector kernels with 8 lanes; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 8
#define KERNELS kernels_avx2
#define KERNELS_NAME "avx2"
#include "engine/math/kernels/vector.h"
#endif
