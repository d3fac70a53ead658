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

/* NaN stays NaN, so that an overflow shows in the result. */
static float at_least(float x, float floor)
{
    return x < floor ? floor : x;
}

static void relu(float *x, const float *bias, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++)
            x[i] = at_least(x[i] + bias[i], 0);
}

static void swiglu(float *x, const float *bias, size_t rows, size_t n)
{
    const size_t half = n / 2;
    float *y = x;
    for (; rows > 0; rows--, x += n, y += half)
        for (size_t i = 0; i < half; i++) {
            const float a = x[i] + bias[i], b = x[half + i] + bias[half + i];
            y[i] = a / (1 + expf(-a)) * b;
        }
}

static double gelu_slope(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752) + x * 0.39894228040143268 * exp(-0.5 * x * x);
}

static double gelu_tanh_slope(double x)
{
    const double s = 1 / (1 + exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
    return s + x * s * (1 - s) * 1.5957691216057308 * (1 + 3 * 0.044715 * x * x);
}

static double gelu_quick_slope(double x)
{
    const double s = 1 / (1 + exp(-1.702 * x));
    return s + 1.702 * x * s * (1 - s);
}

static double relu_slope(double x)
{
    return x > 0;
}

static void gradient_rows(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n,
                          double (*slope)(double))
{
    for (; rows > 0; rows--, x += n, y += n)
        for (size_t i = 0; i < n; i++)
            y[i] = (float)(slope(x[i] + bias[i]) * gradient[i]);
}

static void gelu_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, gelu_slope);
}

static void gelu_tanh_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows,
                               size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, gelu_tanh_slope);
}

static void gelu_quick_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows,
                                size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, gelu_quick_slope);
}

static void relu_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, relu_slope);
}

static void swiglu_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n)
{
    const size_t half = n / 2;
    for (; rows > 0; rows--, x += n, y += n)
        for (size_t i = 0; i < half; i++) {
            const double a = x[i] + bias[i], b = x[half + i] + bias[half + i], s = 1 / (1 + exp(-a));
            y[i] = (float)(s * (1 + a * (1 - s)) * b * gradient[i]);
            y[half + i] = (float)(a * s * gradient[i]);
        }
}

static void layernorm_gradient(float *gradient, const float *x, const float *weight, float eps, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n, gradient += n) {
        double mean = 0, variance = 0, mean_g = 0, mean_gx = 0;
        for (size_t i = 0; i < n; i++)
            mean += x[i];
        mean /= (double)n;
        for (size_t i = 0; i < n; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        const double scale = 1 / sqrt(variance / (double)n + eps);
        for (size_t i = 0; i < n; i++) {
            mean_g += gradient[i] * weight[i];
            mean_gx += gradient[i] * weight[i] * (x[i] - mean) * scale;
        }
        mean_g /= (double)n;
        mean_gx /= (double)n;
        for (size_t i = 0; i < n; i++)
            gradient[i] =
                (float)(scale * (gradient[i] * weight[i] - mean_g - (x[i] - mean) * scale * mean_gx));
    }
}

static void column_sums(float *sums, const float *x, const float *means, size_t rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double mean = means != NULL ? means[i] : 0;
        double sum = sums[i];
        for (size_t row = 0; row < rows; row++)
            sum += means != NULL ? (x[row * n + i] - mean) * (x[row * n + i] - mean) : x[row * n + i];
        sums[i] = (float)sum;
    }
}

static void affine(float *x, const float *scale, const float *shift, float floor, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++)
            x[i] = at_least(scale[i] * x[i] + shift[i], floor);
}

static void add(float *y, const float *x, float floor, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = at_least(y[i] + x[i], floor);
}

static void maximum(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > y[i] || isnan(x[i]) ? x[i] : y[i];
}

static void multiply_add(float *y, const float *x, const float *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += w[i] * x[i];
}

static void random_features(float *y, const float *x, size_t x_stride, size_t width, float scale, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += x_stride, y += n) {
        double square = 0;
        for (size_t i = 0; i < width; i++)
            square += (double)x[i] * x[i];
        for (size_t i = 0; i < n; i++)
            y[i] = (float)(scale * exp(y[i] - square / 2));
    }
}

static void add_positive(float *sums, const float *x, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        for (size_t i = 0; i < n; i++)
            sums[i] += x[i] > 0 ? x[i] : 0;
}

const struct kernels kernels_generic = {
    .name = "generic",
    .softmax = softmax,
    .layernorm = layernorm,
    .add_bias = add_bias,
    .activate = {[ACTIVATION_GELU] = gelu,
                 [ACTIVATION_GELU_TANH] = gelu_tanh,
                 [ACTIVATION_GELU_QUICK] = gelu_quick,
                 [ACTIVATION_RELU] = relu,
                 [ACTIVATION_SWIGLU] = swiglu},
    .activate_gradient = {[ACTIVATION_GELU] = gelu_gradient,
                          [ACTIVATION_GELU_TANH] = gelu_tanh_gradient,
                          [ACTIVATION_GELU_QUICK] = gelu_quick_gradient,
                          [ACTIVATION_RELU] = relu_gradient,
                          [ACTIVATION_SWIGLU] = swiglu_gradient},
    .layernorm_gradient = layernorm_gradient,
    .column_sums = column_sums,
    .affine = affine,
    .add = add,
    .maximum = maximum,
    .multiply_add = multiply_add,
    .random_features = random_features,
    .add_positive = add_positive,
};
