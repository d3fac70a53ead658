/* finite.h - numbers that came from outside, or out of the arithmetic. */
#ifndef ENGINE_BASE_FINITE_H
#define ENGINE_BASE_FINITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Without a branch, so that the compiler vectorises it. */
static inline bool all_finite(const float *values, size_t count)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

#endif
