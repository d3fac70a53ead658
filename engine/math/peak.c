/* peak.c - what this machine can do at most, on the calling thread: multiply-adds in registers, and memory read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/clock.h"
#include "engine/math/cpu.h"
#include "vit.h"

enum { TRIES = 5, ROUNDS = 2000000, MEMORY_FLOATS = 32 << 20 };

double vit_peak_flops(vit_dtype dtype)
{
    const struct products *tables[MAX_PRODUCTS];
    double best = 0;
    products_available(tables, dtype);
    for (int i = 0; i < TRIES; i++) {
        const double start = clock_seconds();
        const double flops = 2.0 * (double)tables[0]->multiply_adds(ROUNDS);
        const double rate = flops / (clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

double vit_peak_bandwidth(void)
{
    const struct kernels *kernels = kernels_best();
    enum { ROW = 4096 };
    float *memory = malloc(MEMORY_FLOATS * sizeof *memory), sums[ROW] = {0};
    double best = 0;
    if (memory == NULL)
        return 0;
    memset(memory, 0, MEMORY_FLOATS * sizeof *memory);
    for (int i = 0; i < TRIES; i++) {
        const double start = clock_seconds();
        kernels->column_sums(sums, memory, NULL, MEMORY_FLOATS / ROW, ROW);
        const double rate = MEMORY_FLOATS * sizeof *memory / (clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    free(memory);
    return best;
}
