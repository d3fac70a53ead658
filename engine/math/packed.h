/*
 * packed.h - matrices packed for the kernels that multiply by them (see kernels/products.h).
 *
 * Weights are packed once, at load; attention's keys and values for every image. A row of the result depends on its row of
 * a alone, so callers may split rows as they like.
 */
#ifndef ENGINE_MATH_PACKED_H
#define ENGINE_MATH_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/math/kernels/products.h"

/* A matrix b [k, n]; it borrows its memory. */
struct packed {
    const struct products *products; /* NULL: not packed */
    size_t n, k;
    const word *words;     /* panels, one after the other */
    const float *scales;   /* int8: [n], filled up to whole panels */
    const float *sums;     /* int8: the same */
};

/* Columns are packed, and cut off, in whole panels; rows are best split in steps of this. */
enum { PACKED_ROWS = 12 };

/* Above this k the int32 sums of int8 products could overflow. */
enum { PACKED_INT8_MAX_K = 66000 };

/* Floats of the memory of a packed b [k, n]. */
size_t packed_floats(const struct products *products, size_t n, size_t k);

/* Packs b^T [n, k], as PyTorch stores a Linear's weight, ldb floats from row to row, into that memory, 64-byte aligned. */
struct packed packed_weight(const struct products *products, float *memory, const float *transposed, size_t ldb, size_t n,
                            size_t k);
/* The same for numbers of one run, by the products' own conversion: of b^T [n, k], and of b [k, n]. Not for int8. */
struct packed packed_transposed(const struct products *products, float *memory, const float *transposed, size_t ldb,
                                size_t n, size_t k);
struct packed packed_rows(const struct products *products, float *memory, const float *b, size_t ldb, size_t n, size_t k);

/* What is packed, or will be, in that memory. */
struct packed packed_view(const struct products *products, float *memory, size_t n, size_t k);

/* The columns first .. first + count - 1, first at a panel's beginning; else not packed. */
struct packed packed_columns(const struct packed *packed, size_t first, size_t count);

/* A panel's columns, from `first` on, as fp32: values [k, products->columns]; in memory [packed_panel_floats()] if they
 * are not so already. */
size_t packed_panel_floats(const struct packed *packed);
const float *packed_panel(const struct packed *packed, size_t first, float *memory);

/* What is converted and multiplied at a time stays in the L2 cache while the panels pass: so many rows of a at most, and of
 * each so much of k. packed_scratch(): the floats of memory that this needs; packed_operand(): the operand in that memory,
 * 64-byte aligned. */
size_t packed_block_rows(const struct products *products, size_t k);
size_t packed_block_k(const struct products *products, size_t k);
size_t packed_scratch(const struct products *products, size_t k);
struct operand packed_operand(const struct packed *b, float *scratch);

/* Whether the kernels read rows of a as they stand, lda floats apart: the operand then is what packed_as_it_is() gives. Rows
 * one behind the other on a page would share a few sets of the cache. */
bool packed_takes(const struct packed *b, size_t lda, float factor);
struct operand packed_as_it_is(const float *a, size_t lda);

/* c [rows, n] (+)= operand b, of b's rows first_k .. first_k + count_k - 1 alone; ldc floats from row to row of c. */
void packed_multiply(const struct packed *b, float *c, size_t ldc, const struct operand *operand, size_t rows, size_t first_k,
                     size_t count_k, bool add);

#endif
