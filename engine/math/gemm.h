/*
 * gemm.h - matrix products of fp32 matrices by OpenBLAS on the calling thread, for what vitd has no kernels of its own for.
 *
 * A result element depends only on the operands and on (m, n, k): callers that give every image products of its own shape
 * get the same bits whatever else is in the batch.
 */
#ifndef ENGINE_MATH_GEMM_H
#define ENGINE_MATH_GEMM_H

#include <stdbool.h>
#include <stddef.h>

/* c [m, n] = alpha a b + beta c, row-major; a is [m, k], or [k, m] when a_transposed; b is [k, n], or [n, k] when
 * b_transposed (as PyTorch stores a Linear's weight). lda, ldb, ldc: floats from one row to the next. */
struct gemm {
    size_t m, n, k;
    float alpha, beta;
    const float *a;
    size_t lda;
    bool a_transposed;
    const float *b;
    size_t ldb;
    bool b_transposed;
    float *c;
    size_t ldc;
};

void gemm_run(const struct gemm *gemm);

#endif
