/*
 * weigh.c - weighted sums of lines of bytes, in AVX2 and in plain C, bit for bit the same: Pillow multiplies in 32 bits,
 * and so do both. (AVX-512 saved 8 % of a resize to 256 on Zen 4, and nothing on 12 megapixels: not worth a third loop.)
 */
#include "engine/image/weigh.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define HALF (1u << (WEIGHT_BITS - 1))

static uint8_t clip(uint32_t sum)
{
    const int32_t value = (int32_t)sum >> WEIGHT_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

static void weigh_plain(uint8_t *restrict out, const uint8_t *restrict in, size_t stride, const int32_t *restrict weights,
                        size_t count)
{
    uint32_t sums[WEIGH_LANES];
    for (size_t i = 0; i < WEIGH_LANES; i++)
        sums[i] = HALF;
    for (size_t k = 0; k < count; k++, in += stride)
        for (size_t i = 0; i < WEIGH_LANES; i++)
            sums[i] += (uint32_t)weights[k] * in[i];
    for (size_t i = 0; i < WEIGH_LANES; i++)
        out[i] = clip(sums[i]);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static inline __m256i add_product_8(__m256i sum, __m256i weight, const uint8_t *in)
{
    const __m256i values = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)in));
    return _mm256_add_epi32(sum, _mm256_mullo_epi32(weight, values));
}

__attribute__((target("avx2"))) static inline void store_16(uint8_t *out, __m256i low, __m256i high)
{
    const __m256i mixed = _mm256_packs_epi32(_mm256_srai_epi32(low, WEIGHT_BITS), _mm256_srai_epi32(high, WEIGHT_BITS));
    const __m256i words = _mm256_permute4x64_epi64(mixed, 0xD8); /* packing goes by halves */
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)out, bytes);
}

__attribute__((target("avx2"))) static void weigh_avx2(uint8_t *out, const uint8_t *in, size_t stride,
                                                       const int32_t *weights, size_t count)
{
    __m256i a = _mm256_set1_epi32(HALF), b = a, c = a, d = a, e = a, f = a;
    for (size_t k = 0; k < count; k++, in += stride) {
        const __m256i weight = _mm256_set1_epi32(weights[k]);
        a = add_product_8(a, weight, in);
        b = add_product_8(b, weight, in + 8);
        c = add_product_8(c, weight, in + 16);
        d = add_product_8(d, weight, in + 24);
        e = add_product_8(e, weight, in + 32);
        f = add_product_8(f, weight, in + 40);
    }
    store_16(out, a, b);
    store_16(out + 16, c, d);
    store_16(out + 32, e, f);
}

#endif

size_t weighers_available(weigher *list[2])
{
    size_t count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        list[count++] = weigh_avx2;
#endif
    list[count++] = weigh_plain;
    return count;
}

void weigh_lines(weigher *weigh, uint8_t *out, const uint8_t *in, size_t stride, size_t bytes, const int32_t *weights,
                 size_t count)
{
    size_t x = 0;
    for (; x + WEIGH_LANES <= bytes; x += WEIGH_LANES)
        weigh(out + x, in + x, stride, weights, count);
    if (x < bytes && bytes >= WEIGH_LANES) { /* the end, with bytes that are done already */
        weigh(out + bytes - WEIGH_LANES, in + bytes - WEIGH_LANES, stride, weights, count);
        return;
    }
    for (; x < bytes; x++) {
        uint32_t sum = HALF;
        for (size_t k = 0; k < count; k++)
            sum += (uint32_t)weights[k] * in[k * stride + x];
        out[x] = clip(sum);
    }
}
