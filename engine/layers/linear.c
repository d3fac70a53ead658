#include "engine/layers/layers.h"

void linear_forward(const struct linear *linear, const struct compute *compute, float *y, const float *x,
                    size_t x_stride, size_t rows)
{
    gemm_run(&(struct gemm){.m = rows, .n = linear->out, .k = linear->in, .alpha = 1, .beta = 0, .a = x, .lda = x_stride,
                            .b = linear->weight, .ldb = linear->in, .b_transposed = true, .panels = linear->panels,
                            .c = y, .ldc = linear->out},
             compute->trace);
    if (linear->bias != NULL)
        compute->kernels->add_bias(y, linear->bias, rows, linear->out);
}

void linear_add(const struct linear *linear, const struct compute *compute, float *x, const float *h, size_t rows)
{
    gemm_run(&(struct gemm){.m = rows, .n = linear->out, .k = linear->in, .alpha = 1, .beta = 1, .a = h,
                            .lda = linear->in, .b = linear->weight, .ldb = linear->in, .b_transposed = true,
                            .panels = linear->panels, .c = x, .ldc = linear->out},
             compute->trace);
    if (linear->bias != NULL)
        compute->kernels->add_bias(x, linear->bias, rows, linear->out);
}
