/*
 * products.h - products with a matrix that was packed once: one table per arithmetic and instruction set.
 *
 * A word is 32 bits: 1 fp32, 2 bf16 or 4 int8 numbers that follow one another along k, the inner dimension. A panel is
 * [words, columns]: some columns of b [k, n], filled up with zeros where k or n end. An element of the product is the sum
 * over the words in order, so its bits depend on its row of a and its column of b alone.
 *
 *   fp32  a multiply-add for each word.
 *   bf16  both operands rounded to nearest even, subnormals to zero; for each word the product of the second numbers is
 *         added to the fp32 sum, then that of the first, each rounded to nearest even and subnormals flushed: what
 *         AVX512-BF16's VDPBF16PS does (Intel's Software Developer's Manual).
 *   int8  a row of a as unsigned q = round(x / scale) + zero with the scale and zero that fit its range, a column of b
 *         symmetric to -127 .. 127; summed up in int32, and then scale of the row * fma(sum, scale of the column,
 *         -zero * (sum of the column * its scale)).
 *
 * products_generic.c is plain C and the reference: bf16 and int8 tables equal it bit for bit.
 */
#ifndef ENGINE_MATH_KERNELS_PRODUCTS_H
#define ENGINE_MATH_KERNELS_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t word __attribute__((may_alias));

/* Rows of a. */
struct operand {
    word *words; /* [rows, stride] */
    size_t stride;
    float *scales;   /* int8: [rows] */
    float *zeros;    /* int8: [rows], the negative of each */
};

struct panel {
    const word *words;     /* [words, columns] */
    const float *scales;   /* int8: [columns] */
    const float *sums;     /* int8: [columns], over k, times the scale */
};

struct products {
    const char *name;
    size_t depth;   /* numbers in a word */
    size_t columns; /* of a panel */

    /* operand = factor * a [rows, k], lda floats from row to row; the last word is filled up with zeros. What is not finite
     * makes its row of the product NaN or infinite. */
    void (*convert)(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k);

    /* panel = b [k, columns], ldb floats from row to row, its columns beyond these as they were. int8: NULL */
    void (*interleave)(word *panel, const float *b, size_t ldb, size_t columns, size_t k);

    /* c [rows, columns] (+)= operand panel, the first `columns` of the panel; ldc floats from row to row. */
    void (*multiply)(float *c, size_t ldc, const struct operand *operand, const struct panel *panel, size_t rows,
                     size_t columns, size_t words, bool add);

    /* For benchmarks: the kernel's own instruction in as many independent registers as keep the units busy. Returns the
     * number of multiply-adds. */
    size_t (*multiply_adds)(size_t rounds);
};

extern const struct products products_fp32_generic, products_bf16_generic, products_int8_generic;
#if defined(__x86_64__)
extern const struct products products_fp32_avx2;   /* needs AVX2 and FMA */
extern const struct products products_fp32_avx512; /* needs AVX-512F */
extern const struct products products_bf16_avx512; /* needs AVX-512F, BW and BF16 */
extern const struct products products_int8_avx2;   /* needs AVX2 and AVX-VNNI */
extern const struct products products_int8_avx512; /* needs AVX-512F, BW and VNNI */
#endif

#endif
