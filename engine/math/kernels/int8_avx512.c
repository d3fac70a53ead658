/* int8_avx512.c - int8 products by AVX-512 VNNI; the Makefile compiles this file for the instruction set. */
#if defined(__x86_64__)
#define LANES 16
#define PRODUCTS products_int8_avx512
#define PRODUCTS_NAME "int8 avx512-vnni"
#include "engine/math/kernels/lanes.h"

static inline ivec dot(ivec sum, ivec a, ivec b)
{
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}

static inline ivec round_to_int(vec x)
{
    return (ivec)_mm512_cvtps_epi32((__m512)x);
}

static inline vec multiply_add(vec a, vec b, vec c)
{
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

static inline void store_bytes(uint8_t *out, ivec values)
{
    const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_max_epi32((__m512i)values, _mm512_setzero_si512()));
    memcpy(out, &bytes, sizeof bytes);
}

#include "engine/math/kernels/int8.h"
#endif
