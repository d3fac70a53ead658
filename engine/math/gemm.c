#include "engine/math/gemm.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>

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
    trace->calls[trace->count++] = *gemm;
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
