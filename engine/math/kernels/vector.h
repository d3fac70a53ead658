/*
 * vector.h - the kernels in GCC's vector extensions. A file that defines LANES (8 or 16), KERNELS (the
 * table's variable) and KERNELS_NAME, and is compiled for the instruction set, includes this once.
 *
 * The end of a row that does not fill a vector is loaded into a full one padded with a neutral value and goes
 * through the same code, so a row's result never depends on its address or on other rows.
 *
 * Accuracy against generic.c, tested in tests/test_kernels.c: exp 2e-7 relative; GELU and its variants
 * 4e-7 * max(1, |x|); layernorm and softmax 1e-6 of the row's largest value.
 */
#include <math.h>
#include <stdbool.h>

#include "engine/math/kernels/kernels.h"
#include "engine/math/kernels/lanes.h"

static inline vec vec_abs(vec x)
{
    return (vec)((ivec)x & 0x7fffffff);
}

/* exp(x) = 2^n exp(r), n = round(x log2 e), |r| <= ln(2)/2, exp(r) by its Taylor series to r^7 (remainder below
 * 6e-9). Arguments are clamped to where the result is a normal float. */
static inline vec vec_exp(vec x)
{
    x = vec_min(splat(88.0f), vec_max(splat(-87.3f), x));
    const vec round_to_integer = splat(12582912.0f); /* 1.5 * 2^23: adding it leaves no fraction bits */
    vec n = (x * 1.44269504f + round_to_integer) - round_to_integer;
    vec r = x - n * 0.693359375f; /* ln 2 in two parts, the first exact in products with n */
    r = r - n * -2.12194440e-4f;
    vec p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    ivec exponent = (__builtin_convertvector(n, ivec) + 127) << 23;
    return p * (vec)exponent;
}

/* Phi(x), and with it exp(-x^2/2). With z = |x|/sqrt 2 and t = 1/(1 + 0.35 z): erfc(z) = t q(t) exp(-z^2), the form of
 * Abramowitz & Stegun 7.1.26; q of degree 8 was fitted here by weighted least squares (error of Phi below 1e-10 before
 * rounding). */
static inline vec vec_phi(vec x, vec *bell)
{
    vec t = 1.0f / (1.0f + vec_abs(x) * (0.35f * 0.70710678f));
    vec q = splat(0.07351343333721161f);
    q = q * t - 0.4321613907814026f;
    q = q * t + 0.8965386152267456f;
    q = q * t - 0.7840962409973145f;
    q = q * t + 0.6748197078704834f;
    q = q * t - 0.05288155376911163f;
    q = q * t + 0.23500776290893555f;
    q = q * t + 0.1915624886751175f;
    q = q * t + 0.19769717752933502f;
    *bell = vec_exp(-0.5f * x * x);
    vec tail = 0.5f * t * q * *bell;
    return choose(x < splat(0), tail, 1.0f - tail);
}

static inline vec vec_gelu(vec x)
{
    vec bell;
    return x * vec_phi(x, &bell);
}

static inline vec vec_gelu_slope(vec x)
{
    vec bell, phi = vec_phi(x, &bell);
    return phi + x * 0.39894228f * bell;
}

static inline vec vec_gelu_tanh(vec x)
{
    /* (1 + tanh u)/2 = 1/(1 + exp(-2u)) */
    return x / (1.0f + vec_exp(-1.59576912f * (x + 0.044715f * x * x * x)));
}

static inline vec vec_gelu_tanh_slope(vec x)
{
    vec s = 1.0f / (1.0f + vec_exp(-1.59576912f * (x + 0.044715f * x * x * x)));
    return s + x * s * (1.0f - s) * 1.59576912f * (1.0f + 3 * 0.044715f * x * x);
}

static inline vec vec_gelu_quick_slope(vec x)
{
    vec s = 1.0f / (1.0f + vec_exp(-1.702f * x));
    return s + 1.702f * x * s * (1.0f - s);
}

static inline vec vec_gelu_quick(vec x)
{
    return x / (1.0f + vec_exp(-1.702f * x));
}

/* NaN stays NaN, so that an overflow shows in the result. */
static inline vec at_least(vec x, float floor)
{
    return vec_max(splat(floor), x);
}

static inline vec vec_relu(vec x)
{
    return at_least(x, 0);
}

static inline vec vec_relu_slope(vec x)
{
    return choose(x > splat(0), splat(1), splat(0));
}

static void softmax_row(float *x, size_t n)
{
    const size_t whole = n - n % LANES, rest = n - whole;
    vec max = splat(-INFINITY), sum = splat(0);
    for (size_t i = 0; i < whole; i += LANES)
        max = vec_max(max, load(x + i));
    if (rest > 0)
        max = vec_max(max, load_part(x + whole, rest, -INFINITY));
    const float largest = max_lanes(max);

    for (size_t i = 0; i < whole; i += LANES) {
        vec e = vec_exp(load(x + i) - largest);
        store(x + i, e);
        sum += e;
    }
    if (rest > 0) {
        store_part(x + whole, vec_exp(load_part(x + whole, rest, 0) - largest), rest);
        sum += load_part(x + whole, rest, 0);
    }
    const float scale = 1.0f / sum_lanes(sum);
    for (size_t i = 0; i < whole; i += LANES)
        store(x + i, load(x + i) * scale);
    for (size_t i = whole; i < n; i++)
        x[i] *= scale;
}

static void softmax(float *x, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n)
        softmax_row(x, n);
}

static void layernorm_statistics(const float *x, float eps, size_t n, float *mean_of_row, float *scale)
{
    const size_t whole = n - n % LANES, rest = n - whole;
    vec sum = splat(0);
    for (size_t i = 0; i < whole; i += LANES)
        sum += load(x + i);
    if (rest > 0)
        sum += load_part(x + whole, rest, 0);
    const float mean = sum_lanes(sum) / (float)n;

    vec squares = splat(0);
    for (size_t i = 0; i < whole; i += LANES) {
        vec d = load(x + i) - mean;
        squares += d * d;
    }
    if (rest > 0) {
        vec d = load_part(x + whole, rest, mean) - mean;
        squares += d * d;
    }
    *mean_of_row = mean;
    *scale = 1.0f / sqrtf(sum_lanes(squares) / (float)n + eps);
}

static void layernorm_row(float *y, const float *x, const float *weight, const float *bias, float eps, size_t n)
{
    const size_t whole = n - n % LANES;
    float mean, scale;
    layernorm_statistics(x, eps, n, &mean, &scale);
    for (size_t i = 0; i < whole; i += LANES)
        store(y + i, (load(x + i) - mean) * scale * load(weight + i) + load(bias + i));
    for (size_t i = whole; i < n; i++)
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

static void layernorm(float *y, const float *x, const float *weight, const float *bias, float eps, size_t rows,
                      size_t n)
{
    for (; rows > 0; rows--, x += n, y += n)
        layernorm_row(y, x, weight, bias, eps, n);
}

static void add_bias(float *x, const float *bias, size_t rows, size_t n)
{
    const size_t whole = n - n % LANES;
    for (; rows > 0; rows--, x += n) {
        for (size_t i = 0; i < whole; i += LANES)
            store(x + i, load(x + i) + load(bias + i));
        for (size_t i = whole; i < n; i++)
            x[i] += bias[i];
    }
}

static inline __attribute__((always_inline)) void activate_rows(float *x, const float *bias, size_t rows, size_t n,
                                                                vec (*function)(vec))
{
    const size_t whole = n - n % LANES, rest = n - whole;
    for (; rows > 0; rows--, x += n) {
        for (size_t i = 0; i < whole; i += LANES)
            store(x + i, function(load(x + i) + load(bias + i)));
        if (rest > 0)
            store_part(x + whole, function(load_part(x + whole, rest, 0) + load_part(bias + whole, rest, 0)), rest);
    }
}

static void gelu(float *x, const float *bias, size_t rows, size_t n)
{
    activate_rows(x, bias, rows, n, vec_gelu);
}

static void gelu_tanh(float *x, const float *bias, size_t rows, size_t n)
{
    activate_rows(x, bias, rows, n, vec_gelu_tanh);
}

static void gelu_quick(float *x, const float *bias, size_t rows, size_t n)
{
    activate_rows(x, bias, rows, n, vec_gelu_quick);
}

static void relu(float *x, const float *bias, size_t rows, size_t n)
{
    activate_rows(x, bias, rows, n, vec_relu);
}

/* The halves of a row at i, with their biases; `count` lanes of them. */
static inline void load_halves(vec *a, vec *b, const float *x, const float *bias, size_t half, size_t i, size_t count)
{
    if (count == LANES) {
        *a = load(x + i) + load(bias + i);
        *b = load(x + half + i) + load(bias + half + i);
    } else {
        *a = load_part(x + i, count, 0) + load_part(bias + i, count, 0);
        *b = load_part(x + half + i, count, 0) + load_part(bias + half + i, count, 0);
    }
}

static void swiglu(float *x, const float *bias, size_t rows, size_t n)
{
    const size_t half = n / 2;
    float *y = x;
    for (; rows > 0; rows--, x += n, y += half)
        for (size_t i = 0; i < half; i += LANES) {
            const size_t count = half - i < LANES ? half - i : LANES;
            vec a, b;
            load_halves(&a, &b, x, bias, half, i, count);
            store_part(y + i, a / (1.0f + vec_exp(-a)) * b, count);
        }
}

static void swiglu_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n)
{
    const size_t half = n / 2;
    for (; rows > 0; rows--, x += n, y += n)
        for (size_t i = 0; i < half; i += LANES) {
            const size_t count = half - i < LANES ? half - i : LANES;
            vec a, b, g = load_part(gradient + i, count, 0);
            load_halves(&a, &b, x, bias, half, i, count);
            vec s = 1.0f / (1.0f + vec_exp(-a));
            store_part(y + i, s * (1.0f + a * (1.0f - s)) * b * g, count);
            store_part(y + half + i, a * s * g, count);
        }
}

static inline __attribute__((always_inline)) void gradient_rows(float *y, const float *x, const float *bias,
                                                                 const float *gradient, size_t rows, size_t n,
                                                                 vec (*slope)(vec))
{
    const size_t whole = n - n % LANES, rest = n - whole;
    for (; rows > 0; rows--, x += n, y += n) {
        for (size_t i = 0; i < whole; i += LANES)
            store(y + i, slope(load(x + i) + load(bias + i)) * load(gradient + i));
        if (rest > 0)
            store_part(y + whole, slope(load_part(x + whole, rest, 0) + load_part(bias + whole, rest, 0)) *
                                      load_part(gradient + whole, rest, 0), rest);
    }
}

static void gelu_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, vec_gelu_slope);
}

static void gelu_tanh_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows,
                               size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, vec_gelu_tanh_slope);
}

static void gelu_quick_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows,
                                size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, vec_gelu_quick_slope);
}

static void relu_gradient(float *y, const float *x, const float *bias, const float *gradient, size_t rows, size_t n)
{
    gradient_rows(y, x, bias, gradient, rows, n, vec_relu_slope);
}

/* With x' = (x - mean) scale and g' = g weight: scale (g' - mean(g') - x' mean(g' x')). */
static void layernorm_gradient_row(float *g, const float *x, const float *weight, float eps, size_t n)
{
    const size_t whole = n - n % LANES, rest = n - whole;
    float mean, scale;
    layernorm_statistics(x, eps, n, &mean, &scale);
    vec sum_g = splat(0), sum_gx = splat(0);
    for (size_t i = 0; i < whole; i += LANES) {
        vec weighted = load(g + i) * load(weight + i);
        sum_g += weighted;
        sum_gx += weighted * (load(x + i) - mean);
    }
    if (rest > 0) {
        vec weighted = load_part(g + whole, rest, 0) * load_part(weight + whole, rest, 0);
        sum_g += weighted;
        sum_gx += weighted * (load_part(x + whole, rest, mean) - mean);
    }
    const float mean_g = sum_lanes(sum_g) / (float)n, mean_gx = sum_lanes(sum_gx) * scale / (float)n;
    for (size_t i = 0; i < whole; i += LANES)
        store(g + i, scale * (load(g + i) * load(weight + i) - mean_g - (load(x + i) - mean) * (scale * mean_gx)));
    for (size_t i = whole; i < n; i++)
        g[i] = scale * (g[i] * weight[i] - mean_g - (x[i] - mean) * (scale * mean_gx));
}

static void layernorm_gradient(float *gradient, const float *x, const float *weight, float eps, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += n, gradient += n)
        layernorm_gradient_row(gradient, x, weight, eps, n);
}

static void column_sums(float *sums, const float *x, const float *means, size_t rows, size_t n)
{
    const size_t whole = n - n % LANES;
    for (; rows > 0; rows--, x += n) {
        for (size_t i = 0; i < whole; i += LANES) {
            const vec d = means != NULL ? load(x + i) - load(means + i) : load(x + i);
            store(sums + i, load(sums + i) + (means != NULL ? d * d : d));
        }
        for (size_t i = whole; i < n; i++)
            sums[i] += means != NULL ? (x[i] - means[i]) * (x[i] - means[i]) : x[i];
    }
}

static void affine(float *x, const float *scale, const float *shift, float floor, size_t rows, size_t n)
{
    const size_t whole = n - n % LANES;
    for (; rows > 0; rows--, x += n) {
        for (size_t i = 0; i < whole; i += LANES)
            store(x + i, at_least(load(scale + i) * load(x + i) + load(shift + i), floor));
        for (size_t i = whole; i < n; i++)
            x[i] = at_least(splat(scale[i] * x[i] + shift[i]), floor)[0];
    }
}

static void add(float *y, const float *x, float floor, size_t n)
{
    const size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        store(y + i, at_least(load(y + i) + load(x + i), floor));
    for (size_t i = whole; i < n; i++)
        y[i] = at_least(splat(y[i] + x[i]), floor)[0];
}

static void maximum(float *y, const float *x, size_t n)
{
    const size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        store(y + i, choose((load(x + i) > load(y + i)) | (load(x + i) != load(x + i)), load(x + i), load(y + i)));
    for (size_t i = whole; i < n; i++)
        y[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
}

static void multiply_add(float *y, const float *x, const float *w, size_t n)
{
    const size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i += LANES)
        store(y + i, load(y + i) + load(w + i) * load(x + i));
    for (size_t i = whole; i < n; i++)
        y[i] += w[i] * x[i];
}

static void random_features(float *y, const float *x, size_t x_stride, size_t width, float scale, size_t rows, size_t n)
{
    for (; rows > 0; rows--, x += x_stride, y += n) {
        vec squares = splat(0);
        for (size_t i = 0; i < width; i += LANES) {
            const vec part = load_part(x + i, width - i < LANES ? width - i : LANES, 0);
            squares += part * part;
        }
        const float half = 0.5f * sum_lanes(squares);
        for (size_t i = 0; i < n; i += LANES) {
            const size_t count = n - i < LANES ? n - i : LANES;
            store_part(y + i, scale * vec_exp(load_part(y + i, count, 0) - half), count);
        }
    }
}

static void add_positive(float *sums, const float *x, size_t rows, size_t n)
{
    const size_t whole = n - n % LANES;
    for (; rows > 0; rows--, x += n) {
        for (size_t i = 0; i < whole; i += LANES)
            store(sums + i, load(sums + i) + vec_max(load(x + i), splat(0)));
        for (size_t i = whole; i < n; i++)
            sums[i] += x[i] > 0 ? x[i] : 0;
    }
}

const struct kernels KERNELS = {
    .name = KERNELS_NAME,
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
