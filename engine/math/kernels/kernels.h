/*
 * kernels.h - the elementwise and row-wise operations between matrix products: one table per instruction set.
 *
 * generic.c is plain C on libm: it always builds and is what the others are tested against. avx2.c and avx512.c
 * compile vector.h for 8 and 16 lanes. A row's result depends on that row alone.
 */
#ifndef ENGINE_MATH_KERNELS_KERNELS_H
#define ENGINE_MATH_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

enum activation {
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_GELU_QUICK,
    ACTIVATION_RELU,
    ACTIVATION_SWIGLU, /* gated: n inputs give n / 2 results */
    ACTIVATION_COUNT
};

struct kernels {
    const char *name;

    /* In place, each row of x [rows, n]: exp(x - max) / sum. */
    void (*softmax)(float *x, size_t rows, size_t n);

    /* y [rows, n] = (x - mean) / sqrt(variance + eps) * weight + bias, per row; weight, bias [n]. y may be x. */
    void (*layernorm)(float *y, const float *x, const float *weight, const float *bias, float eps, size_t rows,
                      size_t n);

    /* x [rows, n] += bias [n]. */
    void (*add_bias)(float *x, const float *bias, size_t rows, size_t n);

    /* x [rows, n] = f(x + bias [n]).
     * GELU:       x/2 (1 + erf(x / sqrt 2))                                (arXiv 1606.08415)
     * GELU_TANH:  x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))            (the paper's approximation, "gelu_new")
     * GELU_QUICK: x sigmoid(1.702 x)
     * RELU:       max(0, x)
     * SWIGLU:     with a row's halves a and b: a sigmoid(a) b              (arXiv 2002.05202); rows of n / 2, closed up */
    void (*activate[ACTIVATION_COUNT])(float *x, const float *bias, size_t rows, size_t n);

    /* y [rows, n] = f'(x + bias [n]) * gradient [n], with the f of `activate`. y may be x.
     * SWIGLU: gradient [n / 2] of the results, y with respect to both halves. */
    void (*activate_gradient[ACTIVATION_COUNT])(float *y, const float *x, const float *bias, const float *gradient,
                                                size_t rows, size_t n);

    /* gradient [rows, n], in place: with respect to layernorm's result on entry, to its x on return. */
    void (*layernorm_gradient)(float *gradient, const float *x, const float *weight, float eps, size_t rows, size_t n);

    /* sums [n] += the sum over the rows of x [rows, n]; with means [n] (not NULL), of (x - means)^2. */
    void (*column_sums)(float *sums, const float *x, const float *means, size_t rows, size_t n);

    /* x [rows, n] = max(scale [n] x + shift [n], floor); here and below NaN wins over everything. */
    void (*affine)(float *x, const float *scale, const float *shift, float floor, size_t rows, size_t n);

    /* y [n] = max(y + x, floor) */
    void (*add)(float *y, const float *x, float floor, size_t n);

    /* y [n] = max(y, x) */
    void (*maximum)(float *y, const float *x, size_t n);

    /* y [n] += w x, element by element */
    void (*multiply_add)(float *y, const float *x, const float *w, size_t n);

    /* y [rows, n] = scale exp(y - |x|^2 / 2) with x [rows, width], x_stride from row to row: the positive random features
     * of Performers (arXiv 2009.14794) from y = w x. */
    void (*random_features)(float *y, const float *x, size_t x_stride, size_t width, float scale, size_t rows, size_t n);

    /* sums [n] += the sum over the rows of max(0, x [rows, n]). */
    void (*add_positive)(float *sums, const float *x, size_t rows, size_t n);
};

extern const struct kernels kernels_generic;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2;   /* needs AVX2 and FMA */
extern const struct kernels kernels_avx512; /* needs AVX-512F */
#endif

#endif
