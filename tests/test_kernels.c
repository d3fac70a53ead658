/* test_kernels.c - every instruction set this CPU runs against the plain C reference. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/math/cpu.h"
#include "tests/suite.h"
#include "vit.h"

enum { ROWS = 3, MAX_N = 300 };

/* Deterministic values in [-scale, scale]. */
static void fill(float *x, size_t n, float scale, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = scale * ((float)(seed >> 8) / 8388608.0f - 1.0f);
    }
}

/* Calls `check` for every fast table and every row length that meets a vector's end differently. */
static void for_each(void (*check)(const struct kernels *kernels, size_t n))
{
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables);
    ck_assert_str_eq(tables[count - 1]->name, "generic");
    for (size_t i = 0; i + 1 < count; i++)
        for (size_t n = 1; n <= MAX_N; n += n < 70 ? 1 : 23)
            check(tables[i], n);
}

static void assert_close(const char *name, size_t n, const float *got, const float *wanted, size_t count, double bound)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabs((double)got[i] - wanted[i]) <= bound, "%s, n %zu, element %zu: %.9g, not %.9g", name, n, i,
                      (double)got[i], (double)wanted[i]);
}

static void check_softmax(const struct kernels *kernels, size_t n)
{
    float got[ROWS * MAX_N] = {0}, wanted[ROWS * MAX_N] = {0};
    for (float scale = 0.01f; scale < 200; scale *= 10) {
        fill(got, ROWS * n, scale, (unsigned)n);
        memcpy(wanted, got, sizeof wanted);
        kernels->softmax(got, ROWS, n);
        kernels_generic.softmax(wanted, ROWS, n);
        assert_close(kernels->name, n, got, wanted, ROWS * n, 1e-6);
    }
}

static void check_layernorm(const struct kernels *kernels, size_t n)
{
    float x[ROWS * MAX_N] = {0}, weight[MAX_N] = {0}, bias[MAX_N] = {0}, got[ROWS * MAX_N], wanted[ROWS * MAX_N];
    fill(x, ROWS * n, 3, 1);
    fill(weight, n, 1, 2);
    fill(bias, n, 1, 3);
    for (size_t i = 0; i < n; i++)
        x[i] += 10; /* a mean far from zero in the first row */
    kernels->layernorm(got, x, weight, bias, 1e-6f, ROWS, n);
    kernels_generic.layernorm(wanted, x, weight, bias, 1e-6f, ROWS, n);
    assert_close(kernels->name, n, got, wanted, ROWS * n, n == 1 ? 2e-2 : 1e-5);
    kernels->layernorm(x, x, weight, bias, 1e-6f, ROWS, n); /* in place */
    ck_assert_mem_eq(x, got, ROWS * n * sizeof *x);
}

static void check_add_bias(const struct kernels *kernels, size_t n)
{
    float got[ROWS * MAX_N] = {0}, wanted[ROWS * MAX_N] = {0}, bias[MAX_N] = {0};
    fill(got, ROWS * n, 5, 1);
    fill(bias, n, 5, 2);
    memcpy(wanted, got, sizeof wanted);
    kernels->add_bias(got, bias, ROWS, n);
    kernels_generic.add_bias(wanted, bias, ROWS, n);
    ck_assert_mem_eq(got, wanted, ROWS * n * sizeof *got);
}

/* A gated activation takes pairs, and multiplies two of them. */
static size_t inputs_of(int activation, size_t n)
{
    return activation == ACTIVATION_SWIGLU ? 2 * (n / 2) : n;
}

static double size_of(int activation, double scale)
{
    return fmax(1, activation == ACTIVATION_SWIGLU ? scale * scale : scale);
}

static void check_activations(const struct kernels *kernels, size_t n)
{
    float got[ROWS * MAX_N] = {0}, wanted[ROWS * MAX_N] = {0}, bias[MAX_N] = {0};
    for (int activation = 0; activation < ACTIVATION_COUNT; activation++)
        for (float scale = 0.1f; scale < 200; scale *= 3) {
            const size_t inputs = inputs_of(activation, n);
            fill(got, ROWS * inputs, scale, (unsigned)n);
            fill(bias, inputs, 0.1f, 7);
            memcpy(wanted, got, sizeof wanted);
            kernels->activate[activation](got, bias, ROWS, inputs);
            kernels_generic.activate[activation](wanted, bias, ROWS, inputs);
            assert_close(kernels->name, n, got, wanted, ROWS * inputs, 4e-7 * size_of(activation, scale));
        }
}

static void check_activation_gradients(const struct kernels *kernels, size_t n)
{
    float x[ROWS * MAX_N] = {0}, got[ROWS * MAX_N], wanted[ROWS * MAX_N], bias[MAX_N] = {0}, gradient[MAX_N] = {0};
    fill(bias, n, 0.1f, 7);
    fill(gradient, n, 2, 8);
    for (int activation = 0; activation < ACTIVATION_COUNT; activation++)
        for (float scale = 0.1f; scale < 200; scale *= 3) {
            const size_t inputs = inputs_of(activation, n);
            const double bound = 4e-6 * (activation == ACTIVATION_SWIGLU ? fmax(1, scale) : 1);
            fill(x, ROWS * inputs, scale, (unsigned)n);
            kernels->activate_gradient[activation](got, x, bias, gradient, ROWS, inputs);
            kernels_generic.activate_gradient[activation](wanted, x, bias, gradient, ROWS, inputs);
            assert_close(kernels->name, n, got, wanted, ROWS * inputs, bound);
            kernels->activate_gradient[activation](x, x, bias, gradient, ROWS, inputs); /* in place */
            ck_assert_mem_eq(x, got, ROWS * inputs * sizeof *x);
        }
}

static void check_layernorm_gradient(const struct kernels *kernels, size_t n)
{
    float x[ROWS * MAX_N] = {0}, weight[MAX_N] = {0}, got[ROWS * MAX_N] = {0}, wanted[ROWS * MAX_N];
    fill(x, ROWS * n, 3, 1);
    fill(weight, n, 1, 2);
    fill(got, ROWS * n, 2, 3);
    memcpy(wanted, got, sizeof wanted);
    kernels->layernorm_gradient(got, x, weight, 1e-3f, ROWS, n);
    kernels_generic.layernorm_gradient(wanted, x, weight, 1e-3f, ROWS, n);
    assert_close(kernels->name, n, got, wanted, ROWS * n, 1e-4);
}

static void check_add_positive(const struct kernels *kernels, size_t n)
{
    float x[ROWS * MAX_N] = {0}, got[MAX_N] = {0}, wanted[MAX_N] = {0};
    fill(x, ROWS * n, 3, 1);
    fill(got, n, 1, 2);
    memcpy(wanted, got, sizeof wanted);
    kernels->add_positive(got, x, ROWS, n);
    kernels_generic.add_positive(wanted, x, ROWS, n);
    ck_assert_mem_eq(got, wanted, n * sizeof *got);
}

START_TEST(test_activation_gradients_equal_reference) { for_each(check_activation_gradients); }
END_TEST
START_TEST(test_layernorm_gradient_equals_reference) { for_each(check_layernorm_gradient); }
END_TEST
START_TEST(test_add_positive_equals_reference) { for_each(check_add_positive); }
END_TEST
START_TEST(test_softmax_equals_reference) { for_each(check_softmax); }
END_TEST
START_TEST(test_layernorm_equals_reference) { for_each(check_layernorm); }
END_TEST
START_TEST(test_add_bias_equals_reference) { for_each(check_add_bias); }
END_TEST
START_TEST(test_activations_equal_reference) { for_each(check_activations); }
END_TEST

/* GELU at every float of a dense sweep against double precision: the reference itself is held to account. */
START_TEST(test_gelu_is_accurate)
{
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables);
    const float bias[1] = {0};
    for (size_t i = 0; i < count; i++)
        for (float x = -12; x <= 12; x += 0.0007f) {
            float y = x;
            tables[i]->activate[ACTIVATION_GELU](&y, bias, 1, 1);
            double wanted = 0.5 * (double)x * erfc(-(double)x / sqrt(2));
            ck_assert_msg(fabs((double)y - wanted) <= 3e-7 * fmax(1, fabs((double)x)), "%s: gelu(%.9g) = %.9g, not %.9g",
                          tables[i]->name, (double)x, (double)y, wanted);
        }
}
END_TEST

/* Sums of columns, also of squared differences, over the sums that are there. */
static void check_column_sums(const struct kernels *kernels, size_t n)
{
    float x[ROWS * MAX_N] = {0}, means[MAX_N] = {0}, got[MAX_N] = {0}, wanted[MAX_N];
    fill(x, ROWS * n, 3, 1);
    fill(means, n, 1, 2);
    for (int squared = 0; squared < 2; squared++) {
        fill(got, n, 1, 3);
        memcpy(wanted, got, sizeof wanted);
        kernels->column_sums(got, x, squared ? means : NULL, ROWS, n);
        kernels_generic.column_sums(wanted, x, squared ? means : NULL, ROWS, n);
        assert_close(kernels->name, n, got, wanted, n, 1e-5);
    }
}

static void check_elementwise(const struct kernels *kernels, size_t n)
{
    float x[ROWS * MAX_N] = {0}, scale[MAX_N] = {0}, shift[MAX_N] = {0}, got[ROWS * MAX_N], wanted[ROWS * MAX_N];
    fill(x, ROWS * n, 3, 1);
    fill(scale, n, 2, 2);
    fill(shift, n, 1, 3);
    x[n / 2] = NAN;
    for (int rectified = 0; rectified < 2; rectified++) {
        const float floor = rectified ? 0 : -INFINITY;
        memcpy(got, x, sizeof got);
        memcpy(wanted, x, sizeof wanted);
        kernels->affine(got, scale, shift, floor, ROWS, n);
        kernels_generic.affine(wanted, scale, shift, floor, ROWS, n);
        ck_assert(isnan(got[n / 2]) && isnan(wanted[n / 2]));
        kernels->add(got, x, floor, ROWS * n);
        kernels_generic.add(wanted, x, floor, ROWS * n);
        ck_assert(isnan(got[n / 2]) && isnan(wanted[n / 2]));
        kernels->maximum(got, shift, n);
        kernels_generic.maximum(wanted, shift, n);
        kernels->multiply_add(got, scale, shift, n);
        kernels_generic.multiply_add(wanted, scale, shift, n);
        ck_assert(isnan(got[n / 2]) && isnan(wanted[n / 2]));
        got[n / 2] = wanted[n / 2] = 0;
        assert_close(kernels->name, n, got, wanted, ROWS * n, 4e-6);
    }
    kernels->maximum(got, x, n);
    ck_assert(isnan(got[n / 2]));
}

static void check_random_features(const struct kernels *kernels, size_t n)
{
    float x[ROWS * 3 * 40], got[ROWS * MAX_N] = {0}, wanted[ROWS * MAX_N];
    for (size_t width = 1; width <= 40; width += 13) {
        fill(x, ROWS * 3 * width, 0.5f, (unsigned)width);
        fill(got, ROWS * n, 4, 2);
        memcpy(wanted, got, sizeof wanted);
        kernels->random_features(got, x, 3 * width, width, 0.25f, ROWS, n);
        kernels_generic.random_features(wanted, x, 3 * width, width, 0.25f, ROWS, n);
        assert_close(kernels->name, n, got, wanted, ROWS * n, 3e-5);
    }
}

START_TEST(test_column_sums_equal_reference) { for_each(check_column_sums); }
END_TEST

START_TEST(test_elementwise_operations_equal_reference) { for_each(check_elementwise); }
END_TEST

START_TEST(test_random_features_equal_reference) { for_each(check_random_features); }
END_TEST

/* The slopes against central differences in double of the activations' definitions. */
START_TEST(test_gelu_slope_is_accurate)
{
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables);
    const float bias[1] = {0}, one[1] = {1};
    for (size_t i = 0; i < count; i++)
        for (float x = -12; x <= 12; x += 0.0031f) {
            float y;
            tables[i]->activate_gradient[ACTIVATION_GELU](&y, &x, bias, one, 1, 1);
            const double h = 1e-5, a = (double)x + h, b = (double)x - h;
            double wanted = 0.5 * (a * erfc(-a / sqrt(2)) - b * erfc(-b / sqrt(2))) / (2 * h);
            ck_assert_msg(fabs((double)y - wanted) <= 1e-6, "%s: gelu'(%.9g) = %.9g, not %.9g", tables[i]->name,
                          (double)x, (double)y, wanted);
        }
}
END_TEST

/* A row's result must not depend on its address or on its neighbours. */
START_TEST(test_rows_are_independent)
{
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables), n = 37;
    float many[4 * 37], one[38];
    for (size_t i = 0; i < count; i++) {
        fill(many, 4 * n, 2, 9);
        memcpy(one + 1, many + 2 * n, n * sizeof *one);
        tables[i]->softmax(many, 4, n);
        tables[i]->softmax(one + 1, 1, n);
        ck_assert_mem_eq(one + 1, many + 2 * n, n * sizeof *one);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kernels");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_softmax_equals_reference);
    tcase_add_test(tests, test_layernorm_equals_reference);
    tcase_add_test(tests, test_add_bias_equals_reference);
    tcase_add_test(tests, test_activations_equal_reference);
    tcase_add_test(tests, test_column_sums_equal_reference);
    tcase_add_test(tests, test_elementwise_operations_equal_reference);
    tcase_add_test(tests, test_random_features_equal_reference);
    tcase_add_test(tests, test_activation_gradients_equal_reference);
    tcase_add_test(tests, test_layernorm_gradient_equals_reference);
    tcase_add_test(tests, test_add_positive_equals_reference);
    tcase_add_test(tests, test_gelu_is_accurate);
    tcase_add_test(tests, test_gelu_slope_is_accurate);
    tcase_add_test(tests, test_rows_are_independent);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
