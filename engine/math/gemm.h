/*
 * gemm.h - matrix products on the calling thread: by vitd's own kernels with weights packed for them, else by OpenBLAS.
 *
 * A result element depends only on the operands and on (m, n, k): callers that give every image a product of its own
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
    const float *panels; /* b packed for kernels_best(), or NULL; then alpha is 1, beta 0 or 1, and a not transposed */
    bool b_transposed;
    float *c;
    size_t ldc;
};

/* Floats of the panels of a matrix b [k, n] for kernels_best(); 0: it has no use for them. */
size_t gemm_panel_floats(size_t n, size_t k);
/* Fills panels from b^T [n, k], as PyTorch stores a Linear's weight. */
void gemm_pack(float *panels, const float *transposed, size_t n, size_t k);
/* The panels from a column on; NULL if none begins there. */
const float *gemm_panels_from(const float *panels, size_t column, size_t k);

/* A list of calls, for benchmarks that repeat just the products of a forward pass, or that only count them: then a call
 * writes zeros instead of computing. */
struct gemm_trace {
    bool counts_only;
    struct gemm *calls;
    size_t count, capacity;
    bool out_of_memory;
};

/* Computes; with a trace (may be NULL) also appends the call to it. */
void gemm_run(const struct gemm *gemm, struct gemm_trace *trace);

/* Multiplications and additions of the traced calls. */
double gemm_trace_flops(const struct gemm_trace *trace);
void gemm_trace_release(struct gemm_trace *trace);

#endif
