/* cpu.h - which kernels this CPU runs. Chosen once per model; nothing global changes. */
#ifndef ENGINE_MATH_CPU_H
#define ENGINE_MATH_CPU_H

#include <stddef.h>

#include "engine/math/kernels/kernels.h"
#include "engine/math/kernels/products.h"
#include "vit.h"

/* The tables this CPU can run, best first; the last is always the generic one. */
size_t kernels_available(const struct kernels *tables[3]);

/* The first of them. */
const struct kernels *kernels_best(void);

/* The same of products; the last is the plain C reference. */
enum { MAX_PRODUCTS = 3 };
size_t products_available(const struct products *tables[MAX_PRODUCTS], vit_dtype dtype);

/* The products to run; NULL: for fp32 this CPU has none that would be faster than OpenBLAS. */
const struct products *products_best(vit_dtype dtype);

#endif
