/*
 * lanes.h - vectors of LANES (8 or 16) numbers in GCC's vector extensions, for a file that is compiled for the instruction
 * set. Loads and stores need no alignment.
 */
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

static inline vec load_part(const float *p, size_t count, float padding)
{
    vec value = splat(padding);
    memcpy(&value, p, count * sizeof *p);
    return value;
}

static inline void store_part(float *p, vec value, size_t count)
{
    memcpy(p, &value, count * sizeof *p);
}

/* mask ? a : b, lane by lane; mask is all ones or all zeros as comparisons give it. */
static inline vec choose(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static inline float sum_lanes(vec x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}
