/* cpu.h - which kernels this CPU runs. Chosen once per model; nothing global changes. */
#ifndef ENGINE_MATH_CPU_H
#define ENGINE_MATH_CPU_H

#include <stddef.h>

#include "engine/math/kernels/kernels.h"

/* The tables this CPU can run, best first; the last is always the generic one. */
size_t kernels_available(const struct kernels *tables[3]);

/* The first of them. */
const struct kernels *kernels_best(void);

#endif
