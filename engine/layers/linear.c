#include "engine/layers/layers.h"

void linear_multiply(const struct linear *linear, const struct compute *compute, float *y, size_t y_stride,
                     const float *x, size_t x_stride, size_t rows, bool add)
{
    gemm_run(&(struct gemm){.m = rows, .n = linear->out, .k = linear->in, .alpha = 1, .beta = add ? 1 : 0, .a = x,
                            .lda = x_stride, .b = linear->weight, .ldb = linear->in, .b_transposed = true,
                            .panels = linear->panels, .c = y, .ldc = y_stride},
             compute->trace);
}

void linear_forward(const struct linear *linear, const struct compute *compute, float *y, const float *x,
                    size_t x_stride, size_t rows)
{
    linear_multiply(linear, compute, y, linear->out, x, x_stride, rows, false);
    if (linear->bias != NULL)
        compute->kernels->add_bias(y, linear->bias, rows, linear->out);
}

void linear_add(const struct linear *linear, const struct compute *compute, float *x, const float *h, size_t rows)
{
    linear_multiply(linear, compute, x, linear->out, h, linear->in, rows, true);
    if (linear->bias != NULL)
        compute->kernels->add_bias(x, linear->bias, rows, linear->out);
}
