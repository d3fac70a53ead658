#include "engine/layers/compute.h"

#include <string.h>

#include "engine/base/clock.h"

/* ---- threads ---- */

/* What the team's threads see of a call. */
struct parts {
    const struct compute *compute;
    void (*function)(void *argument, size_t index, float *scratch);
    void *argument;
};

static void run_part(void *argument, size_t index, void *scratch)
{
    const struct parts *parts = argument;
    parts->function(parts->argument, index, scratch != NULL ? scratch : parts->compute->scratch);
}

void compute_parts(const struct compute *compute, size_t parts,
                   void (*function)(void *argument, size_t index, float *scratch), void *argument)
{
    struct parts call = {compute, function, argument};
    if (compute->team != NULL && parts > 1)
        compute->team->run(compute->team->context, parts, run_part, &call);
    else
        for (size_t i = 0; i < parts; i++)
            function(argument, i, compute->scratch);
}

struct ranges {
    size_t rows, each;
    void (*function)(void *argument, size_t first, size_t count, float *scratch);
    void *argument;
};

static void run_range(void *argument, size_t index, float *scratch)
{
    const struct ranges *ranges = argument;
    const size_t first = index * ranges->each, left = ranges->rows - first;
    ranges->function(ranges->argument, first, left < ranges->each ? left : ranges->each, scratch);
}

void compute_rows(const struct compute *compute, size_t rows,
                  void (*function)(void *argument, size_t first, size_t count, float *scratch), void *argument)
{
    enum { STEP = 4 }; /* rows that products take together */
    const size_t threads = compute->team != NULL ? compute->team->threads : 1;
    const size_t each = ((rows + threads - 1) / threads + STEP - 1) / STEP * STEP;
    struct ranges ranges = {rows, each, function, argument};
    if (rows > 0)
        compute_parts(compute, (rows + each - 1) / each, run_range, &ranges);
}

/* ---- products ---- */

static void count(const struct compute *compute, size_t m, size_t n, size_t k)
{
    if (compute->profile != NULL)
        compute->profile->flops += 2.0 * (double)m * (double)n * (double)k;
}

static bool counts_only(const struct compute *compute)
{
    return compute->profile != NULL && compute->profile->counts_only;
}

static void clear(float *c, size_t ldc, size_t rows, size_t n)
{
    for (size_t row = 0; row < rows; row++)
        memset(c + row * ldc, 0, n * sizeof *c);
}

/* A block of rows, as much of k at a time as stays in cache. */
static void multiply_block(const struct compute *compute, const struct packed *b, float *c, size_t ldc, const float *a,
                           size_t lda, float factor, size_t rows, bool add, float *scratch)
{
    const size_t step = packed_block_k(b->products, b->k);
    for (size_t first = 0; first < b->k; first += step) {
        const size_t count = b->k - first < step ? b->k - first : step;
        struct operand operand = packed_as_it_is(a + first, lda);
        if (!packed_takes(b, lda, factor)) {
            const vit_stage before = compute_enter(compute, VIT_STAGE_PACKING);
            operand = packed_operand(b, scratch);
            b->products->convert(&operand, a + first, lda, factor, rows, count);
            compute_enter(compute, before);
        }
        packed_multiply(b, c, ldc, &operand, rows, first, count, add || first > 0);
    }
}

/* Blocks of about the same size. */
void compute_packed(const struct compute *compute, const struct packed *b, float *c, size_t ldc, const float *a, size_t lda,
                    float factor, size_t rows, bool add, float *scratch)
{
    const size_t most = packed_block_rows(b->products, b->k), blocks = (rows + most - 1) / most;
    count(compute, rows, b->n, b->k);
    if (counts_only(compute)) {
        clear(c, ldc, rows, b->n);
        return;
    }
    for (size_t first = 0, block = 0; block < blocks; block++) {
        const size_t left = rows - first, even = (left + blocks - block - 1) / (blocks - block);
        const size_t rounded = (even + PACKED_ROWS - 1) / PACKED_ROWS * PACKED_ROWS, here = rounded < left ? rounded : left;
        multiply_block(compute, b, c + first * ldc, ldc, a + first * lda, lda, factor, here, add, scratch);
        first += here;
    }
}

void compute_gemm(const struct compute *compute, const struct gemm *gemm)
{
    count(compute, gemm->m, gemm->n, gemm->k);
    if (counts_only(compute))
        clear(gemm->c, gemm->ldc, gemm->m, gemm->n);
    else
        gemm_run(gemm);
}

/* ---- the clock ---- */

vit_stage compute_enter(const struct compute *compute, vit_stage stage)
{
    struct profile *profile = compute->profile;
    if (profile == NULL)
        return VIT_STAGE_OTHER;
    const vit_stage before = profile->stage;
    const double now = clock_seconds();
    profile->seconds[before] += now - profile->since;
    profile->since = now;
    profile->stage = stage;
    return before;
}
