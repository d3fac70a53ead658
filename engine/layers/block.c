/*
 * block.c - the encoder block, one image at a time: the image's activations and the layer's weights stay in cache,
 * and every product has the same shape whatever the batch, so results are bit-identical (see gemm.h).
 */
#include <math.h>

#include "engine/layers/layers.h"

static void norm_forward(const struct norm *norm, const struct compute *compute, float *y, const float *x,
                         size_t tokens, size_t width)
{
    compute->kernels->layernorm(y, x, norm->weight, norm->bias, norm->eps, tokens, width);
}

/* x += h weight^T + bias, on the residual stream x [T, out]. */
static void linear_add(const struct linear *linear, const struct compute *compute, float *x, const float *h,
                       size_t tokens)
{
    gemm_run(&(struct gemm){.m = tokens, .n = linear->out, .k = linear->in, .alpha = 1, .beta = 1, .a = h,
                            .lda = linear->in, .b = linear->weight, .ldb = linear->in, .b_transposed = true, .c = x,
                            .ldc = linear->out},
             compute->trace);
    compute->kernels->add_bias(x, linear->bias, tokens, linear->out);
}

/* softmax(q k^T / sqrt(HD)) v for each head; out [T, C] holds the heads side by side. */
static void attention(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                      float *out, size_t tokens, size_t layer, const struct attention_observer *observer)
{
    const size_t width = block->proj.in, head_width = width / block->heads, stride = 3 * width;
    for (size_t head = 0; head < block->heads; head++) {
        const float *q = scratch->qkv + head * head_width, *k = q + width, *v = k + width;
        float *probabilities = scratch->probabilities;
        gemm_run(&(struct gemm){.m = tokens, .n = tokens, .k = head_width, .alpha = 1 / sqrtf((float)head_width),
                                .beta = 0, .a = q, .lda = stride, .b = k, .ldb = stride, .b_transposed = true,
                                .c = probabilities, .ldc = tokens},
                 compute->trace);
        compute->kernels->softmax(probabilities, tokens, tokens);
        if (observer != NULL)
            observer->observe(observer->context, layer, head, probabilities, tokens);
        gemm_run(&(struct gemm){.m = tokens, .n = head_width, .k = tokens, .alpha = 1, .beta = 0, .a = probabilities,
                                .lda = tokens, .b = v, .ldb = stride, .b_transposed = false,
                                .c = out + head * head_width, .ldc = width},
                 compute->trace);
    }
}

static void mlp(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                float *x, size_t tokens)
{
    const struct linear *fc1 = &block->fc1;
    gemm_run(&(struct gemm){.m = tokens, .n = fc1->out, .k = fc1->in, .alpha = 1, .beta = 0, .a = scratch->normed,
                            .lda = fc1->in, .b = fc1->weight, .ldb = fc1->in, .b_transposed = true,
                            .c = scratch->hidden, .ldc = fc1->out},
             compute->trace);
    compute->kernels->activate[block->activation](scratch->hidden, fc1->bias, tokens, fc1->out);
    linear_add(&block->fc2, compute, x, scratch->hidden, tokens);
}

void block_forward(const struct block *block, const struct compute *compute, const struct block_scratch *scratch,
                   float *x, size_t tokens, size_t layer, const struct attention_observer *observer)
{
    const size_t width = block->proj.in;
    norm_forward(&block->norm1, compute, scratch->normed, x, tokens, width);
    linear_forward(&block->qkv, compute, scratch->qkv, scratch->normed, width, tokens);
    attention(block, compute, scratch, scratch->normed, tokens, layer, observer);
    linear_add(&block->proj, compute, x, scratch->normed, tokens);

    norm_forward(&block->norm2, compute, scratch->normed, x, tokens, width);
    mlp(block, compute, scratch, x, tokens);
}
