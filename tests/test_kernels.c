/* test_kernels.c - every instruction set this CPU runs against the plain C reference. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/math/cpu.h"
#include "engine/math/gemm.h"
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

/* 0.5 is where x = 0.5 x + 0.25 stays, and every register gets there. */
START_TEST(test_peak_is_computed)
{
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables);
    for (size_t i = 0; i < count; i++) {
        float x[PEAK_FLOATS] = {0};
        const size_t done = tables[i]->multiply_adds(x, 3), lanes = done / 3;
        ck_assert_uint_le(lanes, PEAK_FLOATS);
        for (size_t j = 0; j < PEAK_FLOATS; j++)
            ck_assert_float_eq(x[j], j < lanes ? 0.4375f : 0);
    }
    ck_assert_double_gt(vit_peak_flops(), 1e7);
    ck_assert_double_gt(vit_peak_bandwidth(), 1e6);
}
END_TEST

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

enum { PANEL_M = 101, PANEL_N = 70, PANEL_K = 65, GAP = 5 };

struct product {
    size_t m, n, k, lda, ldc;
    float a[PANEL_M * (PANEL_K + GAP)], b[PANEL_N * PANEL_K], panels[(PANEL_N + 32) * PANEL_K];
    float c[PANEL_M * (PANEL_N + GAP)];
};

/* From the definition in kernels.h, and not by gemm_pack(), which packs for the best table alone. */
static void pack(struct product *p, size_t columns)
{
    memset(p->panels, 0, sizeof p->panels);
    for (size_t j = 0; j < p->n; j++)
        for (size_t q = 0; q < p->k; q++)
            p->panels[(j / columns * p->k + q) * columns + j % columns] = p->b[j * p->k + q];
}

static void check_product(const struct kernels *kernels, struct product *p, bool add)
{
    float before[PANEL_M * (PANEL_N + GAP)], row[PANEL_N];
    fill(p->c, PANEL_M * (PANEL_N + GAP), 1, 3);
    memcpy(before, p->c, sizeof before);
    kernels->multiply_panels(p->c, p->ldc, p->a, p->lda, p->panels, p->m, p->n, p->k, add);
    for (size_t i = 0; i < p->m; i++) {
        const float *got = p->c + i * p->ldc, *old = before + i * p->ldc;
        memcpy(row, old, p->n * sizeof *row);
        kernels->multiply_panels(row, p->n, p->a + i * p->lda, p->lda, p->panels, 1, p->n, p->k, add);
        ck_assert_mem_eq(got, row, p->n * sizeof *row); /* the bits of a row alone */
        ck_assert_mem_eq(got + p->n, old + p->n, (p->ldc - p->n) * sizeof *old);
        for (size_t j = 0; j < p->n; j++) {
            double wanted = add ? (double)old[j] : 0;
            for (size_t q = 0; q < p->k; q++)
                wanted += (double)p->a[i * p->lda + q] * (double)p->b[j * p->k + q];
            ck_assert_msg(fabs((double)got[j] - wanted) <= 1e-5, "%s: [%zu, %zu, %zu], row %zu, column %zu: %.9g, not %.9g",
                          kernels->name, p->m, p->n, p->k, i, j, (double)got[j], wanted);
        }
    }
    ck_assert_mem_eq(p->c + p->m * p->ldc, before + p->m * p->ldc, sizeof before - p->m * p->ldc * sizeof *before);
}

START_TEST(test_packed_products_are_accurate)
{
    static const size_t ms[] = {1, 3, 4, 6, 11, 12, 13, 29, 96, 100}, ns[] = {1, 15, 16, 17, 31, 32, 33, 48, 69}, ks[] = {1, 2, 7, 64};
    static struct product p;
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables), shapes = 10 * 9 * 4;
    for (size_t t = 0; t < count; t++)
        for (size_t shape = 0; shape < shapes && tables[t]->panel_columns > 0; shape++) {
            p.m = ms[shape % 10], p.n = ns[shape / 10 % 9], p.k = ks[shape / 90];
            p.lda = p.k + shape % 2 * GAP, p.ldc = p.n + shape % 3 / 2 * GAP;
            fill(p.a, PANEL_M * (PANEL_K + GAP), 1, (unsigned)shape);
            fill(p.b, PANEL_N * PANEL_K, 1, (unsigned)shape + 1);
            pack(&p, tables[t]->panel_columns);
            check_product(tables[t], &p, false);
            check_product(tables[t], &p, true);
        }
    ck_assert_ptr_null(tables[count - 1]->multiply_panels);
}
END_TEST

START_TEST(test_gemm_packs_for_the_best_table)
{
    static struct product p;
    const size_t columns = kernels_best()->panel_columns;
    float packed[(PANEL_N + 32) * PANEL_K];
    for (p.n = 1; p.n < PANEL_N && columns > 0; p.n++) {
        p.k = 7;
        fill(p.b, p.n * p.k, 1, 1);
        pack(&p, columns);
        const size_t floats = gemm_panel_floats(p.n, p.k);
        ck_assert_uint_eq(floats, (p.n + columns - 1) / columns * columns * p.k);
        gemm_pack(packed, p.b, p.n, p.k);
        ck_assert_mem_eq(packed, p.panels, floats * sizeof *packed);
        ck_assert_ptr_eq(gemm_panels_from(packed, columns, p.k), packed + columns * p.k);
        ck_assert_ptr_null(gemm_panels_from(packed, columns / 2, p.k));
    }
    ck_assert_uint_eq(gemm_panel_floats(5, 7) == 0, columns == 0);
    ck_assert_ptr_null(gemm_panels_from(NULL, 0, 7));
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
    tcase_add_test(tests, test_peak_is_computed);
    tcase_add_test(tests, test_column_sums_equal_reference);
    tcase_add_test(tests, test_elementwise_operations_equal_reference);
    tcase_add_test(tests, test_random_features_equal_reference);
    tcase_add_test(tests, test_activation_gradients_equal_reference);
    tcase_add_test(tests, test_layernorm_gradient_equals_reference);
    tcase_add_test(tests, test_add_positive_equals_reference);
    tcase_add_test(tests, test_gelu_is_accurate);
    tcase_add_test(tests, test_gelu_slope_is_accurate);
    tcase_add_test(tests, test_packed_products_are_accurate);
    tcase_add_test(tests, test_gemm_packs_for_the_best_table);
    tcase_add_test(tests, test_rows_are_independent);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
