/* generic.c - the reference: plain C, libm, sums in double. */
#include <math.h>

#include "engine/math/kernels/kernels.h"

static void softmax(float *x, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n) {
        float max = x[0];
        for (size_t i = 1; i < n; i++)
            max = x[i] > max ? x[i] : max;
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += x[i] = expf(x[i] - max);
        for (size_t i = 0; i < n; i++)
            x[i] = (float)(x[i] / sum);
    }
}

static void layernorm(float *y, const float *x, const float *weight, const float *bias, float eps, size_t rows,
                      size_t n)
{
    for (; rows > 0; rows--, x += n, y += n) {
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n; i++)
            mean += x[i];
        mean /= (double)n;
        for (size_t i = 0; i < n; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        variance /= (double)n;
        double scale = 1 / sqrt(variance + eps);
        for (size_t i = 0; i < n; i++)
            y[i] = (float)((x[i] - mean) * scale * weight[i] + bias[i]);
    }
}

static void add_bias(float *x, const float *bias, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++)
            x[i] += bias[i];
}

static void gelu(float *x, const float *bias, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++) {
            float v = x[i] + bias[i];
            x[i] = 0.5f * v * (1 + erff(v * 0.70710678f));
        }
}

static void gelu_tanh(float *x, const float *bias, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++) {
            float v = x[i] + bias[i];
            x[i] = 0.5f * v * (1 + tanhf(0.79788456f * (v + 0.044715f * v * v * v)));
        }
}

static void gelu_quick(float *x, const float *bias, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++) {
            float v = x[i] + bias[i];
            x[i] = v / (1 + expf(-1.702f * v));
        }
}

const struct kernels kernels_generic = {
    .name = "generic",
    .softmax = softmax,
    .layernorm = layernorm,
    .add_bias = add_bias,
    .activate = {[ACTIVATION_GELU] = gelu, [ACTIVATION_GELU_TANH] = gelu_tanh, [ACTIVATION_GELU_QUICK] = gelu_quick},
};
