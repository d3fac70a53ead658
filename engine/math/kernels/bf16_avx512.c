/* bf16_avx512.c - bf16 products by VDPBF16PS; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 16
#include "engine/math/kernels/float_sums.h"

enum { DEPTH = 2 };

static inline vec dot(vec sum, ivec a, ivec b)
{
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

#include "engine/math/kernels/panels.h"

static void convert(const struct operand *operand, const float *a, size_t lda, float factor, size_t rows, size_t k)
{
    const size_t whole = k - k % PANEL, rest = k - whole;
    for (size_t row = 0; row < rows; row++, a += lda) {
        word *out = operand->words + row * operand->stride;
        for (size_t i = 0; i < whole; i += PANEL)
            _mm512_storeu_si512(out + i / 2, (__m512i)_mm512_cvtne2ps_pbh((__m512)(factor * load(a + i + LANES)),
                                                                         (__m512)(factor * load(a + i))));
        if (rest == 0)
            continue;
        float tail[PANEL] = {0};
        memcpy(tail, a + whole, rest * sizeof *tail);
        const __m512i last = (__m512i)_mm512_cvtne2ps_pbh((__m512)(factor * load(tail + LANES)),
                                                          (__m512)(factor * load(tail)));
        memcpy(out + whole / 2, &last, (rest + 1) / 2 * sizeof *out);
    }
}

/* The words of 16 columns of two rows. */
static inline __m512i pairs(vec first, vec second)
{
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

static void interleave(word *panel, const float *b, size_t ldb, size_t columns, size_t k)
{
    for (size_t i = 0; i < k; i += 2, b += 2 * ldb, panel += PANEL)
        for (size_t j = 0; j < columns; j += LANES) {
            const size_t count = columns - j < LANES ? columns - j : LANES;
            const vec second = i + 1 < k ? load_part(b + ldb + j, count, 0) : (vec){0};
            const __m512i words = pairs(load_part(b + j, count, 0), second);
            memcpy(panel + j, &words, count * sizeof *panel);
        }
}

const struct products products_bf16_avx512 = {
    .name = "bf16 avx512",
    .depth = DEPTH,
    .columns = PANEL,
    .convert = convert,
    .interleave = interleave,
    .multiply = multiply,
    .multiply_adds = multiply_adds,
};
#endif
