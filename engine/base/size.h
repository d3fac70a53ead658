/* size.h - size arithmetic that cannot wrap, for numbers that come from files. */
#ifndef ENGINE_BASE_SIZE_H
#define ENGINE_BASE_SIZE_H

#include <stdbool.h>
#include <stddef.h>

/* *product = a * b; false when it does not fit. */
static inline bool size_multiply(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline size_t size_larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
