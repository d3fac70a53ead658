#include "engine/math/gemm.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

#include "engine/math/cpu.h"

static void record(struct gemm_trace *trace, const struct gemm *gemm)
{
    if (trace->count == trace->capacity) {
        size_t capacity = trace->capacity == 0 ? 256 : 2 * trace->capacity;
        struct gemm *calls = realloc(trace->calls, capacity * sizeof *calls);
        if (calls == NULL) {
            trace->out_of_memory = true;
            return;
        }
        trace->calls = calls;
        trace->capacity = capacity;
    }
    trace->calls[trace->count] = *gemm;
    trace->calls[trace->count++].panels = NULL; /* the floor is OpenBLAS's */
}

size_t gemm_panel_floats(size_t n, size_t k)
{
    const size_t columns = kernels_best()->panel_columns;
    return columns > 0 ? (n + columns - 1) / columns * columns * k : 0;
}

void gemm_pack(float *panels, const float *transposed, size_t n, size_t k)
{
    const size_t columns = kernels_best()->panel_columns;
    for (size_t first = 0; first < n; first += columns)
        for (size_t q = 0; q < k; q++)
            for (size_t column = first; column < first + columns; column++)
                *panels++ = column < n ? transposed[column * k + q] : 0;
}

const float *gemm_panels_from(const float *panels, size_t column, size_t k)
{
    return panels != NULL && column % kernels_best()->panel_columns == 0 ? panels + column * k : NULL;
}

void gemm_run(const struct gemm *g, struct gemm_trace *trace)
{
    if (trace != NULL)
        record(trace, g);
    if (trace != NULL && trace->counts_only) {
        for (size_t row = 0; row < g->m; row++)
            memset(g->c + row * g->ldc, 0, g->n * sizeof *g->c);
        return;
    }
    if (g->panels != NULL) {
        kernels_best()->multiply_panels(g->c, g->ldc, g->a, g->lda, g->panels, g->m, g->n, g->k, g->beta != 0);
        return;
    }
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (blasint)g->m, (blasint)g->n, (blasint)g->k, g->alpha,
                g->a, (blasint)g->lda, g->b, (blasint)g->ldb, g->beta, g->c, (blasint)g->ldc);
}

double gemm_trace_flops(const struct gemm_trace *trace)
{
    double flops = 0;
    for (size_t i = 0; i < trace->count; i++)
        flops += 2.0 * (double)trace->calls[i].m * (double)trace->calls[i].n * (double)trace->calls[i].k;
    return flops;
}

void gemm_trace_release(struct gemm_trace *trace)
{
    free(trace->calls);
    *trace = (struct gemm_trace){0};
}
