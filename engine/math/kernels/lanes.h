/*
 * lanes.h - vectors of LANES (8 or 16) numbers in GCC's vector extensions, for a file that is compiled for the instruction
 * set. Loads and stores need no alignment.
 */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline vec splat(float value)
{
    return value - (vec){0};
}

static inline vec load(const float *p)
{
    return *(const vec_unaligned *)p;
}

static inline ivec load_words(const void *p)
{
    return *(const ivec_unaligned *)p;
}

static inline void store(float *p, vec value)
{
    *(vec_unaligned *)p = value;
}

static const ivec lane_numbers = {0, 1, 2, 3, 4, 5, 6, 7,
#if LANES == 16
                                  8, 9, 10, 11, 12, 13, 14, 15
#endif
};

/* The first `count` lanes, the others `padding`. */
static inline vec load_part(const float *p, size_t count, float padding)
{
#if LANES == 16
    return (vec)_mm512_mask_loadu_ps((__m512)splat(padding), (__mmask16)((1u << count) - 1), p);
#else
    const ivec mask = lane_numbers < (int32_t)count;
    return (vec)_mm256_blendv_ps((__m256)splat(padding), _mm256_maskload_ps(p, (__m256i)mask), (__m256)mask);
#endif
}

static inline void store_part(float *p, vec value, size_t count)
{
#if LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)value);
#else
    _mm256_maskstore_ps(p, (__m256i)(lane_numbers < (int32_t)count), (__m256)value);
#endif
}

/* Where a or b is NaN: b. */
static inline vec vec_max(vec a, vec b)
{
#if LANES == 16
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#endif
}

static inline vec vec_min(vec a, vec b)
{
#if LANES == 16
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#else
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#endif
}

/* mask ? a : b, lane by lane; mask is all ones or all zeros as comparisons give it. */
static inline vec choose(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static inline float sum_lanes(vec x)
{
    for (int32_t half = LANES / 2; half > 0; half /= 2)
        x += __builtin_shuffle(x, lane_numbers ^ half);
    return x[0];
}

static inline float max_lanes(vec x)
{
    for (int32_t half = LANES / 2; half > 0; half /= 2)
        x = vec_max(x, __builtin_shuffle(x, lane_numbers ^ half));
    return x[0];
}
