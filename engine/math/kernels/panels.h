/*
 * panels.h - multiply() of a products table, for a file that is compiled for the instruction set. Before including this
 * it defines, after lanes.h,
 *
 *     sum_vec                              a vector of sums
 *     sum_vec dot(sum_vec, ivec, ivec)     adds the product of words of a and of b
 *     void store_sums(float *c, sum_vec, sum_vec, const struct operand *, size_t row, const struct panel *, bool add)
 *                                          a whole row of the panel's columns
 *
 * A tile of rows stays in registers over all of k: 12 x 2 vectors of AVX-512's 32, 6 x 2 of AVX2's 16.
 */
#if LANES == 16
#define TILE 12
#else
#define TILE 6
#endif

enum { PANEL = 2 * LANES };

/* c [rows, columns], rows <= TILE a constant, for the rows of the operand from `first` on. */
static inline __attribute__((always_inline)) void multiply_tile(float *c, size_t ldc, const struct operand *operand,
                                                                 const struct panel *panel, size_t first, size_t rows,
                                                                 size_t columns, size_t words, bool add)
{
    const word *a = operand->words + first * operand->stride, *b = panel->words;
    const size_t stride = operand->stride;
    sum_vec sums[TILE][2];
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++)
        sums[i][0] = sums[i][1] = (sum_vec){0};
    for (size_t w = 0; w < words; w++, b += PANEL) {
        const ivec left = load_words(b), right = load_words(b + LANES);
#pragma GCC unroll 12
        for (size_t i = 0; i < rows; i++) {
            const ivec x = (ivec){0} + (int32_t)a[i * stride + w];
            sums[i][0] = dot(sums[i][0], x, left);
            sums[i][1] = dot(sums[i][1], x, right);
        }
    }
#pragma GCC unroll 12
    for (size_t i = 0; i < rows; i++) {
        float row[PANEL] = {0}, *out = c + (first + i) * ldc;
        if (columns == PANEL) {
            store_sums(out, sums[i][0], sums[i][1], operand, first + i, panel, add);
            continue;
        }
        if (add)
            memcpy(row, out, columns * sizeof *row);
        store_sums(row, sums[i][0], sums[i][1], operand, first + i, panel, add);
        memcpy(out, row, columns * sizeof *row);
    }
}

/* Whole tiles, then fours, then single rows: constants to the compiler. */
static void multiply(float *c, size_t ldc, const struct operand *operand, const struct panel *panel, size_t rows,
                     size_t columns, size_t words, bool add)
{
    size_t i = 0;
    for (; i + TILE <= rows; i += TILE)
        multiply_tile(c, ldc, operand, panel, i, TILE, columns, words, add);
    for (; i + 4 <= rows; i += 4)
        multiply_tile(c, ldc, operand, panel, i, 4, columns, words, add);
    for (; i < rows; i++)
        multiply_tile(c, ldc, operand, panel, i, 1, columns, words, add);
}

static size_t multiply_adds(size_t rounds)
{
    enum { REGISTERS = 12 };
    volatile int32_t source = 0x01010101; /* no constant to the compiler */
    const ivec a = (ivec){0} + source, b = a;
    sum_vec sums[REGISTERS], total = {0};
    for (int i = 0; i < REGISTERS; i++)
        sums[i] = (sum_vec){0};
    for (size_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
        for (int i = 0; i < REGISTERS; i++)
            sums[i] = dot(sums[i], a, b);
    }
    for (int i = 0; i < REGISTERS; i++)
        total += sums[i];
    source = total[0] > 0; /* nor a result nobody wants */
    return REGISTERS * LANES * DEPTH * rounds;
}
