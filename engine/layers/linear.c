/* linear.c - products with weights, and what belongs to their results' rows: each thread takes
 * some of the rows. */
#include <string.h>

#include "engine/layers/layers.h"

enum { MLP_ROWS = 240 };

struct call {
    const struct linear *linear;
    const struct compute *compute;
    float *y;
    size_t y_stride;
    const float *x;
    size_t x_stride;
    bool add;
};

/* y (+)= x weight^T, without the bias */
static void multiply(const struct call *call, size_t rows, float *scratch)
{
    const struct linear *linear = call->linear;
    if (linear->packed.products != NULL)
        compute_packed(call->compute, &linear->packed, call->y, call->y_stride, call->x, call->x_stride, 1, rows, call->add,
                       scratch);
    else
        compute_gemm(call->compute, &(struct gemm){.m = rows, .n = linear->out, .k = linear->in, .alpha = 1,
                                                   .beta = call->add ? 1 : 0, .a = call->x, .lda = call->x_stride,
                                                   .b = linear->weight, .ldb = linear->in, .b_transposed = true,
                                                   .c = call->y, .ldc = call->y_stride});
}

static void run_rows(void *argument, size_t first, size_t count, float *scratch)
{
    struct call call = *(const struct call *)argument;
    call.x += first * call.x_stride;
    call.y += first * call.y_stride;
    multiply(&call, count, scratch);
    if (call.linear->bias == NULL)
        return;
    if (call.y_stride == call.linear->out)
        call.compute->kernels->add_bias(call.y, call.linear->bias, count, call.linear->out);
    else
        for (size_t i = 0; i < count; i++)
            call.compute->kernels->add_bias(call.y + i * call.y_stride, call.linear->bias, 1, call.linear->out);
}

/* OpenBLAS's results depend on the number of rows: it gets all of them. */
static void run(struct call *call, size_t rows)
{
    const vit_stage before = compute_enter(call->compute, VIT_STAGE_GEMM);
    if (call->linear->packed.products != NULL)
        compute_rows(call->compute, rows, run_rows, call);
    else
        run_rows(call, 0, rows, NULL);
    compute_enter(call->compute, before);
}

void linear_forward(const struct linear *linear, const struct compute *compute, float *y, const float *x,
                    size_t x_stride, size_t rows)
{
    run(&(struct call){linear, compute, y, linear->out, x, x_stride, false}, rows);
}

void linear_add(const struct linear *linear, const struct compute *compute, float *x, const float *h, size_t rows)
{
    run(&(struct call){linear, compute, x, linear->out, h, linear->in, true}, rows);
}

bool linear_divides(const struct linear *linear, size_t first)
{
    return linear->packed.products == NULL || first % linear->packed.products->columns == 0;
}

void linear_part(const struct linear *linear, const struct compute *compute, float *y, const float *x, size_t rows,
                 size_t first, size_t count)
{
    const struct linear part = {.weight = linear->weight != NULL ? linear->weight + first * linear->in : NULL,
                                .bias = linear->bias != NULL ? linear->bias + first : NULL,
                                .in = linear->in,
                                .out = count,
                                .packed = packed_columns(&linear->packed, first, count)};
    run(&(struct call){&part, compute, y + first, linear->out, x, linear->in, false}, rows);
}

/* ---- norms ---- */

struct norm_call {
    const struct norm *norm;
    const struct compute *compute;
    float *y;
    const float *x;
    size_t width;
};

static void norm_rows(void *argument, size_t first, size_t count, float *scratch)
{
    const struct norm_call *call = argument;
    const size_t offset = first * call->width;
    (void)scratch;
    call->compute->kernels->layernorm(call->y + offset, call->x + offset, call->norm->weight, call->norm->bias,
                                      call->norm->eps, count, call->width);
}

void norm_forward(const struct norm *norm, const struct compute *compute, float *y, const float *x, size_t rows,
                  size_t width)
{
    struct norm_call call = {norm, compute, y, x, width};
    const vit_stage before = compute_enter(compute, VIT_STAGE_NORM);
    compute_rows(compute, rows, norm_rows, &call);
    compute_enter(compute, before);
}

/* ---- the MLP ---- */

struct mlp_call {
    const struct mlp *mlp;
    const struct compute *compute;
    float *hidden, *x, *kept;
    const float *normed;
};

/* Some rows all the way through, while their hidden values are in cache. */
static void mlp_block(const struct mlp_call *call, size_t first, size_t count, float *scratch)
{
    const struct linear *fc1 = &call->mlp->fc1, *fc2 = &call->mlp->fc2;
    const struct compute *compute = call->compute;
    float *hidden = call->hidden + first * fc1->out;
    struct call in = {fc1, compute, hidden, fc1->out, call->normed + first * fc1->in, fc1->in, false};
    struct call out = {fc2, compute, call->x + first * fc2->out, fc2->out, hidden, fc2->in, true};
    multiply(&in, count, scratch);
    if (call->kept != NULL)
        memcpy(call->kept + first * fc1->out, hidden, count * fc1->out * sizeof *hidden);
    const vit_stage before = compute_enter(compute, VIT_STAGE_ACTIVATION);
    compute->kernels->activate[call->mlp->activation](hidden, fc1->bias, count, fc1->out);
    compute_enter(compute, before);
    multiply(&out, count, scratch);
    compute->kernels->add_bias(out.y, fc2->bias, count, fc2->out);
}

static void mlp_rows(void *argument, size_t first, size_t count, float *scratch)
{
    const size_t end = first + count;
    for (; first < end; first += MLP_ROWS)
        mlp_block(argument, first, end - first < MLP_ROWS ? end - first : MLP_ROWS, scratch);
}

void mlp_forward(const struct mlp *mlp, const struct compute *compute, float *hidden, float *x, const float *normed,
                 size_t rows, float *kept)
{
    struct mlp_call call = {mlp, compute, hidden, x, kept, normed};
    const vit_stage before = compute_enter(compute, VIT_STAGE_GEMM);
    if (mlp->fc1.packed.products != NULL)
        compute_rows(compute, rows, mlp_rows, &call);
    else
        mlp_block(&call, 0, rows, NULL);
    compute_enter(compute, before);
}
