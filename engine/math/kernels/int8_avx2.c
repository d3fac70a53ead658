/* int8_avx2.c - int8 products by AVX-VNNI; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 8
#define PRODUCTS products_int8_avx2
#define PRODUCTS_NAME "int8 avx-vnni"
#include "engine/math/kernels/lanes.h"

static inline ivec dot(ivec sum, ivec a, ivec b)
{
    return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
}

static inline ivec round_to_int(vec x)
{
    return (ivec)_mm256_cvtps_epi32((__m256)x);
}

static inline vec multiply_add(vec a, vec b, vec c)
{
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

static inline void store_bytes(uint8_t *out, ivec values)
{
    const __m128i low = _mm256_castsi256_si128((__m256i)values), high = _mm256_extracti128_si256((__m256i)values, 1);
    const __m128i words = _mm_packs_epi32(low, high), bytes = _mm_packus_epi16(words, words);
    memcpy(out, &bytes, LANES);
}

#include "engine/math/kernels/int8.h"
#endif
