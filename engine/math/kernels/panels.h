/*
 * panels.h - products with a matrix that was packed once, for the instruction set whose file includes this after vector.h.
 *
 * Panels: the columns of b [k, n] in groups of PANEL = 2 * LANES, each group [k, PANEL], the last filled up with zeros.
 * A tile of rows of c stays in registers over all of k: 12 x 2 of AVX-512's 32, 6 x 2 of AVX2's 16. An element is the sum
 * over k in order, one multiply-add after the other: its bits depend on its row of a and its column of b, not on m.
 */
#if LANES == 16
#define TILE 12
#else
#define TILE 6
#endif

enum { PANEL = 2 * LANES, BLOCK_ROWS = 96 }; /* BLOCK_ROWS rows of a stay in cache while the panels pass */

/* c [rows, columns], rows <= TILE a constant, from a panel. */
static inline __attribute__((always_inline)) void multiply_tile(float *c, size_t ldc, const float *a, size_t lda,
                                                                 const float *panel, size_t rows, size_t columns,
                                                                 size_t k, bool add)
{
    vec sums[TILE][2];
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
        sums[i][0] = sums[i][1] = splat(0);
    for (size_t q = 0; q < k; q++, panel += PANEL) {
        const vec left = load(panel), right = load(panel + LANES);
#pragma GCC unroll 12
        for (size_t i = 0; i < rows; i++) {
            sums[i][0] += a[i * lda + q] * left;
            sums[i][1] += a[i * lda + q] * right;
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++) {
        float row[PANEL], *out = c + i * ldc;
        if (columns == PANEL) {
            store(out, add ? load(out) + sums[i][0] : sums[i][0]);
            store(out + LANES, add ? load(out + LANES) + sums[i][1] : sums[i][1]);
            continue;
        }
        store(row, sums[i][0]);
        store(row + LANES, sums[i][1]);
        for (size_t j = 0; j < columns; j++)
            out[j] = add ? out[j] + row[j] : row[j];
    }
}

/* Whole tiles, then fours, then single rows: constants to the compiler. */
static void multiply_panel(float *c, size_t ldc, const float *a, size_t lda, const float *panel, size_t rows,
                           size_t columns, size_t k, bool add)
{
    size_t i = 0;
    for (; i + TILE <= rows; i += TILE)
        multiply_tile(c + i * ldc, ldc, a + i * lda, lda, panel, TILE, columns, k, add);
    for (; i + 4 <= rows; i += 4)
        multiply_tile(c + i * ldc, ldc, a + i * lda, lda, panel, 4, columns, k, add);
    for (; i < rows; i++)
        multiply_tile(c + i * ldc, ldc, a + i * lda, lda, panel, 1, columns, k, add);
}

static void multiply_panels(float *c, size_t ldc, const float *a, size_t lda, const float *panels, size_t m, size_t n,
                            size_t k, bool add)
{
    for (size_t row = 0; row < m; row += BLOCK_ROWS) {
        const size_t rows = m - row < BLOCK_ROWS ? m - row : BLOCK_ROWS;
        for (size_t column = 0; column < n; column += PANEL)
            multiply_panel(c + row * ldc + column, ldc, a + row * lda, lda, panels + column * k, rows,
                           n - column < PANEL ? n - column : PANEL, k, add);
    }
}
