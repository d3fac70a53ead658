#include "engine/math/packed.h"

#include <math.h>
#include <string.h>

/* Of the smallest L2 cache that is common, 1 MiB, the block may have five eighths. */
enum { BLOCK_ROWS = 24 * PACKED_ROWS, BLOCK_WORDS = 160 * 1024, BLOCK_K = 1024, PAGE_WORDS = 1024, LINE_WORDS = 16 };

static size_t words_of(const struct products *products, size_t k)
{
    return (k + products->depth - 1) / products->depth;
}

static size_t padded(const struct products *products, size_t n)
{
    return (n + products->columns - 1) / products->columns * products->columns;
}

static size_t rounded(size_t floats)
{
    return (floats + LINE_WORDS - 1) / LINE_WORDS * LINE_WORDS;
}

static bool is_scaled(const struct products *products)
{
    return products->depth == 4;
}

/* ---- packing ---- */

size_t packed_floats(const struct products *products, size_t n, size_t k)
{
    const size_t columns = padded(products, n);
    return columns * words_of(products, k) + (is_scaled(products) ? 2 * columns : 0);
}

struct packed packed_view(const struct products *products, float *memory, size_t n, size_t k)
{
    const size_t columns = padded(products, n);
    struct packed packed = {.products = products, .n = n, .k = k, .words = (word *)(void *)memory};
    if (is_scaled(products)) {
        packed.scales = memory + columns * words_of(products, k);
        packed.sums = memory + columns * words_of(products, k) + columns;
    }
    return packed;
}

/* One row of b^T in its column of a panel. */
static void place_column(word *panel, size_t columns, size_t column, const word *words, size_t count)
{
    for (size_t w = 0; w < count; w++)
        panel[w * columns + column] = words[w];
}

static void clear_columns(word *panel, size_t columns, size_t first, size_t words)
{
    for (size_t w = 0; w < words && first < columns; w++)
        memset(panel + w * columns + first, 0, (columns - first) * sizeof *panel);
}

enum { CHUNK = 64 }; /* words converted at a time */

struct packed packed_transposed(const struct products *products, float *memory, const float *transposed, size_t ldb,
                                size_t n, size_t k)
{
    const size_t words = words_of(products, k), columns = products->columns, step = CHUNK * products->depth;
    word chunk[CHUNK], *panel = (word *)(void *)memory;
    const struct operand operand = {.words = chunk, .stride = CHUNK};
    for (size_t first = 0; first < n; first += columns, panel += words * columns) {
        const size_t here = n - first < columns ? n - first : columns;
        for (size_t j = 0; j < here; j++)
            for (size_t q = 0; q < k; q += step) {
                const size_t count = k - q < step ? k - q : step;
                products->convert(&operand, transposed + (first + j) * ldb + q, 0, 1, 1, count);
                place_column(panel + q / products->depth * columns, columns, j, chunk, words_of(products, count));
            }
        clear_columns(panel, columns, here, words);
    }
    return packed_view(products, memory, n, k);
}

struct packed packed_rows(const struct products *products, float *memory, const float *b, size_t ldb, size_t n, size_t k)
{
    const size_t words = words_of(products, k), columns = products->columns;
    word *panel = (word *)(void *)memory;
    for (size_t first = 0; first < n; first += columns, panel += words * columns) {
        const size_t here = n - first < columns ? n - first : columns;
        products->interleave(panel, b + first, ldb, here, k);
        clear_columns(panel, columns, here, words);
    }
    return packed_view(products, memory, n, k);
}

/* One column's weights, symmetric to 0, into its place in a panel. */
static void quantise(int8_t *panel, size_t columns, size_t column, float *scale, float *sum, const float *weight,
                     size_t k)
{
    float largest = 0;
    for (size_t i = 0; i < k; i++)
        largest = fmaxf(largest, fabsf(weight[i]));
    *scale = largest / 127.0f;
    int32_t whole = 0;
    for (size_t i = 0; i < k; i++) {
        const float q = *scale > 0 ? fmaxf(-127, fminf(127, rintf(weight[i] / *scale))) : 0;
        panel[(i / 4 * columns + column) * 4 + i % 4] = (int8_t)q;
        whole += (int32_t)q;
    }
    *sum = (float)whole * *scale;
}

static struct packed pack_int8(const struct products *products, float *memory, const float *transposed, size_t ldb,
                               size_t n, size_t k)
{
    const size_t words = words_of(products, k), columns = products->columns, all = padded(products, n);
    float *scales = memory + all * words, *sums = scales + all;
    memset(memory, 0, packed_floats(products, n, k) * sizeof *memory);
    for (size_t column = 0; column < n; column++)
        quantise((int8_t *)((word *)(void *)memory + column / columns * columns * words), columns, column % columns,
                 &scales[column], &sums[column], transposed + column * ldb, k);
    return packed_view(products, memory, n, k);
}

struct packed packed_weight(const struct products *products, float *memory, const float *transposed, size_t ldb, size_t n,
                            size_t k)
{
    return is_scaled(products) ? pack_int8(products, memory, transposed, ldb, n, k)
                               : packed_transposed(products, memory, transposed, ldb, n, k);
}

struct packed packed_columns(const struct packed *packed, size_t first, size_t count)
{
    struct packed part = *packed;
    if (packed->products == NULL || first % packed->products->columns != 0)
        return (struct packed){0};
    part.n = count;
    part.words += first * words_of(packed->products, packed->k);
    if (is_scaled(packed->products)) {
        part.scales += first;
        part.sums += first;
    }
    return part;
}

/* ---- unpacking ---- */

size_t packed_panel_floats(const struct packed *packed)
{
    return packed->products->depth > 1 ? packed->k * packed->products->columns : 0;
}

static float value_of(const struct packed *packed, const word *panel, size_t first, size_t q, size_t column)
{
    const size_t depth = packed->products->depth;
    const word *place = panel + q / depth * packed->products->columns + column;
    if (is_scaled(packed->products))
        return packed->scales[first + column] * (float)((const int8_t *)place)[q % depth];
    const uint32_t bits = q % depth == 0 ? *place << 16 : *place & 0xffff0000u;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

const float *packed_panel(const struct packed *packed, size_t first, float *memory)
{
    const word *panel = packed->words + first * words_of(packed->products, packed->k);
    const size_t columns = packed->products->columns;
    if (packed->products->depth == 1)
        return (const float *)(const void *)panel;
    for (size_t q = 0; q < packed->k; q++)
        for (size_t column = 0; column < columns; column++)
            memory[q * columns + column] = value_of(packed, panel, first, q, column);
    return memory;
}

/* ---- multiplying ---- */

size_t packed_block_k(const struct products *products, size_t k)
{
    return products->depth == 1 && k > BLOCK_K ? BLOCK_K : k;
}

/* Words from one converted row to the next. */
static size_t stride_of(const struct products *products, size_t k)
{
    const size_t words = rounded(words_of(products, packed_block_k(products, k)));
    return words % (PAGE_WORDS / 4) == 0 ? words + LINE_WORDS : words;
}

size_t packed_block_rows(const struct products *products, size_t k)
{
    const size_t rows = BLOCK_WORDS / stride_of(products, k) / PACKED_ROWS * PACKED_ROWS;
    return rows < PACKED_ROWS ? PACKED_ROWS : rows < BLOCK_ROWS ? rows : BLOCK_ROWS;
}

size_t packed_scratch(const struct products *products, size_t k)
{
    return packed_block_rows(products, k) * stride_of(products, k) + 2 * BLOCK_ROWS;
}

struct operand packed_operand(const struct packed *b, float *scratch)
{
    const size_t stride = stride_of(b->products, b->k);
    float *scales = scratch + packed_block_rows(b->products, b->k) * stride;
    return (struct operand){.words = (word *)(void *)scratch, .stride = stride, .scales = scales,
                            .zeros = scales + BLOCK_ROWS};
}

bool packed_takes(const struct packed *b, size_t lda, float factor)
{
    return b->products->depth == 1 && factor == 1 && lda % PAGE_WORDS != 0;
}

struct operand packed_as_it_is(const float *a, size_t lda)
{
    return (struct operand){.words = (word *)(uintptr_t)a, .stride = lda};
}

void packed_multiply(const struct packed *b, float *c, size_t ldc, const struct operand *operand, size_t rows, size_t first_k,
                     size_t count_k, bool add)
{
    const struct products *products = b->products;
    const size_t words = words_of(products, b->k), skipped = first_k / products->depth * products->columns;
    for (size_t first = 0; first < b->n; first += products->columns) {
        const struct panel panel = {.words = b->words + first * words + skipped,
                                    .scales = b->scales != NULL ? b->scales + first : NULL,
                                    .sums = b->sums != NULL ? b->sums + first : NULL};
        products->multiply(c + first, ldc, operand, &panel, rows,
                           b->n - first < products->columns ? b->n - first : products->columns,
                           words_of(products, count_k), add);
    }
}
