/* products_generic.c - the products in plain C: the reference of every table, and what runs where no other does. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "engine/math/kernels/products.h"

enum { COLUMNS = 32 };

static size_t multiply_adds(size_t rounds)
{
    enum { CHAINS = 16 };
    volatile float factor = 0.5f;
    const float f = factor;
    float x[CHAINS] = {0};
    for (size_t round = 0; round < rounds; round++)
        for (size_t i = 0; i < CHAINS; i++)
            x[i] = f * x[i] + f;
    for (size_t i = 0; i < CHAINS; i++)
        factor = x[i];
    return CHAINS * rounds;
}

/* ---- fp32 ---- */

static void convert_fp32(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k)
{
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < k; i++) {
            const float value = factor * a[row * lda + i];
            memcpy(operand->words + row * operand->stride + i, &value, sizeof value);
        }
}

static void interleave_fp32(word *panel, const float *b, size_t ldb, size_t columns, size_t k)
{
    for (size_t i = 0; i < k; i++)
        memcpy(panel + i * COLUMNS, b + i * ldb, columns * sizeof *b);
}

static void multiply_fp32(float *c, size_t ldc, const struct operand *operand, const struct panel *panel, size_t rows,
                          size_t columns, size_t words, bool add)
{
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++) {
            double sum = 0;
            for (size_t w = 0; w < words; w++) {
                float a, b;
                memcpy(&a, operand->words + row * operand->stride + w, sizeof a);
                memcpy(&b, panel->words + w * COLUMNS + column, sizeof b);
                sum += (double)a * (double)b;
            }
            c[row * ldc + column] = (float)(sum + (add ? (double)c[row * ldc + column] : 0));
        }
}

const struct products products_fp32_generic = {
    .name = "fp32 generic",
    .depth = 1,
    .columns = COLUMNS,
    .convert = convert_fp32,
    .interleave = interleave_fp32,
    .multiply = multiply_fp32,
    .multiply_adds = multiply_adds,
};

/* ---- bf16 ---- */

static float flush(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0, x) : x;
}

static uint32_t to_bf16(float x)
{
    uint32_t bits;
    x = flush(x);
    memcpy(&bits, &x, sizeof bits);
    if (isnan(x))
        return (bits >> 16) | 0x40; /* rounding could make it an infinity */
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void convert_bf16(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k)
{
    for (size_t row = 0; row < rows; row++, a += lda)
        for (size_t i = 0; i < k; i += 2)
            operand->words[row * operand->stride + i / 2] =
                to_bf16(factor * a[i]) | (i + 1 < k ? to_bf16(factor * a[i + 1]) << 16 : 0);
}

static void interleave_bf16(word *panel, const float *b, size_t ldb, size_t columns, size_t k)
{
    for (size_t i = 0; i < k; i += 2, b += 2 * ldb, panel += COLUMNS)
        for (size_t j = 0; j < columns; j++)
            panel[j] = to_bf16(b[j]) | (i + 1 < k ? to_bf16(b[ldb + j]) << 16 : 0);
}

static void multiply_bf16(float *c, size_t ldc, const struct operand *operand, const struct panel *panel, size_t rows,
                          size_t columns, size_t words, bool add)
{
    for (size_t row = 0; row < rows; row++, c += ldc) {
        float sums[COLUMNS] = {0};
        for (size_t w = 0; w < words; w++) {
            const word pair = operand->words[row * operand->stride + w], *b = panel->words + w * COLUMNS;
            const float first = from_bits(pair << 16), second = from_bits(pair & 0xffff0000u);
            for (size_t j = 0; j < COLUMNS; j++) { /* the products are exact */
                sums[j] = flush(sums[j] + second * from_bits(b[j] & 0xffff0000u));
                sums[j] = flush(sums[j] + first * from_bits(b[j] << 16));
            }
        }
        for (size_t j = 0; j < columns; j++)
            c[j] = add ? c[j] + sums[j] : sums[j];
    }
}

const struct products products_bf16_generic = {
    .name = "bf16 generic",
    .depth = 2,
    .columns = COLUMNS,
    .convert = convert_bf16,
    .interleave = interleave_bf16,
    .multiply = multiply_bf16,
    .multiply_adds = multiply_adds,
};

/* ---- int8 ---- */

static void convert_int8(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k)
{
    for (size_t row = 0; row < rows; row++, a += lda) {
        float least = 0, most = 0, broken = 0;
        for (size_t i = 0; i < k; i++) {
            const float x = factor * a[i];
            least = x < least ? x : least;
            most = x > most ? x : most;
            broken += x * 0.0f; /* NaN if x is not finite */
        }
        const float scale = (most - least) / 255.0f, inverse = scale > FLT_MIN ? 1.0f / scale : 0;
        const float offset = broken == 0 ? rintf(-least * inverse) : 0;
        uint8_t *out = (uint8_t *)(operand->words + row * operand->stride);
        operand->scales[row] = scale + broken;
        operand->zeros[row] = -offset;
        for (size_t i = 0; i < k; i++) {
            const float q = fmaxf(0, fminf(255, rintf(factor * a[i] * inverse) + offset));
            out[i] = (uint8_t)q;
        }
        memset(out + k, 0, (4 - k % 4) % 4);
    }
}

static void multiply_int8(float *c, size_t ldc, const struct operand *operand, const struct panel *panel, size_t rows,
                          size_t columns, size_t words, bool add)
{
    const int8_t *b = (const int8_t *)panel->words;
    for (size_t row = 0; row < rows; row++, c += ldc) {
        const uint8_t *a = (const uint8_t *)(operand->words + row * operand->stride);
        for (size_t j = 0; j < columns; j++) {
            int32_t sum = 0;
            for (size_t w = 0; w < words; w++)
                for (size_t i = 0; i < 4; i++)
                    sum += a[4 * w + i] * b[4 * (w * COLUMNS + j) + i];
            const float value =
                operand->scales[row] * fmaf((float)sum, panel->scales[j], operand->zeros[row] * panel->sums[j]);
            c[j] = add ? c[j] + value : value;
        }
    }
}

const struct products products_int8_generic = {
    .name = "int8 generic",
    .depth = 4,
    .columns = COLUMNS,
    .convert = convert_int8,
    .multiply = multiply_int8,
    .multiply_adds = multiply_adds,
};
