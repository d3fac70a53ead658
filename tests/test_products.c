/* test_products.c - every products table this CPU runs against the plain C reference: bf16 and int8 to the bit. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/math/cpu.h"
#include "engine/math/packed.h"
#include "tests/suite.h"

enum { M = 101, N = 70, K = 200, GAP = 5, DTYPES = 3 };

/* c [m, n] from a [m, k], lda and ldc floats from row to row, and b^T [n, k]. */
struct product {
    size_t m, n, k, lda, ldc;
    float a[M * (K + GAP)], b[N * K], c[M * (N + GAP)];
};

/* Deterministic values in [-scale, scale]. */
static void fill(float *x, size_t n, float scale, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = scale * ((float)(seed >> 8) / 8388608.0f - 1.0f);
    }
}

static void make_product(struct product *p, size_t m, size_t n, size_t k, unsigned seed)
{
    *p = (struct product){.m = m, .n = n, .k = k, .lda = k + seed % 2 * GAP, .ldc = n + seed % 3 / 2 * GAP};
    fill(p->a, M * (K + GAP), seed % 5 == 0 ? 100 : 1, seed);
    fill(p->b, N * K, 1, seed + 1);
    fill(p->c, M * (N + GAP), 1, seed + 2);
}

/* The rows first .. first + count - 1 of p->c, block by block as the layers do it. */
static void multiply(const struct packed *packed, struct product *p, float factor, size_t first, size_t count, bool add)
{
    const size_t step = packed_block_rows(packed->products, p->k);
    float *scratch = aligned_alloc(64, (packed_scratch(packed->products, p->k) + 15) / 16 * 64);
    for (size_t row = first; row < first + count; row += step) {
        const size_t here = first + count - row < step ? first + count - row : step;
        struct operand operand = packed_as_it_is(p->a + row * p->lda, p->lda);
        if (!packed_takes(packed, p->lda, factor)) {
            operand = packed_operand(packed, scratch);
            packed->products->convert(&operand, p->a + row * p->lda, p->lda, factor, here, p->k);
        }
        packed_multiply(packed, p->c + row * p->ldc, p->ldc, &operand, here, 0, p->k, add);
    }
    free(scratch);
}

static float *panels(const struct products *products, size_t n, size_t k)
{
    return aligned_alloc(64, (packed_floats(products, n, k) + 15) / 16 * 64);
}

/* All rows by a table. */
static void run(const struct products *products, struct product *p, float factor, bool add)
{
    float *memory = panels(products, p->n, p->k);
    const struct packed packed = packed_weight(products, memory, p->b, p->k, p->n, p->k);
    multiply(&packed, p, factor, 0, p->m, add);
    free(memory);
}

static void check_close(const struct products *products, const struct product *got, const struct product *before,
                        float factor, bool add)
{
    for (size_t i = 0; i < got->m; i++)
        for (size_t j = 0; j < got->n; j++) {
            const double old = add ? (double)before->c[i * got->ldc + j] : 0;
            double wanted = old, size = fabs(old);
            for (size_t q = 0; q < got->k; q++) {
                const double term = (double)factor * (double)got->a[i * got->lda + q] * (double)got->b[j * got->k + q];
                wanted += term;
                size += fabs(term);
            }
            ck_assert_msg(fabs((double)got->c[i * got->ldc + j] - wanted) <= 2e-6 * size,
                          "%s: [%zu, %zu, %zu], row %zu, column %zu: %.9g, not %.9g", products->name, got->m, got->n, got->k,
                          i, j, (double)got->c[i * got->ldc + j], wanted);
        }
}

static void check_same(const struct products *products, const struct product *got, const struct product *wanted)
{
    for (size_t i = 0; i < M * (N + GAP); i++) /* what lies between the rows included */
        ck_assert_msg(memcmp(&got->c[i], &wanted->c[i], sizeof(float)) == 0, "%s: [%zu, %zu, %zu], %zu: %.9g, not %.9g",
                      products->name, got->m, got->n, got->k, i, (double)got->c[i], (double)wanted->c[i]);
}

/* A row alone has the bits it has among others. */
static void check_rows(const struct products *products, const struct product *all, const struct product *before,
                       float factor, bool add)
{
    static struct product one;
    float *memory = panels(products, all->n, all->k);
    const struct packed packed = packed_weight(products, memory, all->b, all->k, all->n, all->k);
    one = *before;
    for (size_t i = 0; i < all->m; i++)
        multiply(&packed, &one, factor, i, 1, add);
    check_same(products, &one, all);
    free(memory);
}

static void check_table(const struct products *products, vit_dtype dtype, const struct product *p, float factor, bool add)
{
    static const struct products *const references[] = {&products_fp32_generic, &products_bf16_generic,
                                                        &products_int8_generic};
    static struct product got, wanted;
    got = wanted = *p;
    run(products, &got, factor, add);
    check_rows(products, &got, p, factor, add);
    if (dtype == VIT_DTYPE_FP32) {
        check_close(products, &got, p, factor, add);
    } else {
        run(references[dtype], &wanted, factor, add);
        check_same(products, &got, &wanted);
    }
}

START_TEST(test_products_equal_reference)
{
    static const size_t ms[] = {1, 3, 4, 6, 11, 12, 13, 29, 96, 100}, ns[] = {1, 15, 16, 17, 31, 32, 33, 48, 69};
    static const size_t ks[] = {1, 2, 3, 7, 33, 64, 67, 200};
    static struct product p;
    const unsigned step = getenv("VITD_SANITIZED") != NULL ? 13 : 1; /* fewer shapes: they take minutes */
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        const struct products *tables[MAX_PRODUCTS];
        const size_t count = products_available(tables, (vit_dtype)dtype);
        for (size_t t = 0; t < count; t++)
            for (unsigned shape = 0; shape < 10 * 9 * 8; shape += step * (shape % 7 + 1)) {
                make_product(&p, ms[shape % 10], ns[shape / 10 % 9], ks[shape / 90], shape);
                check_table(tables[t], (vit_dtype)dtype, &p, shape % 4 == 0 ? 0.125f : 1, shape % 2 == 1);
            }
    }
}
END_TEST

/* Rows a page apart are read through a copy; more rows of a large k than one block holds. */
START_TEST(test_long_rows)
{
    enum { ROWS = 40, COLUMNS = 40, LONG = 4096 };
    float *a = malloc(ROWS * LONG * sizeof *a), *b = malloc(COLUMNS * LONG * sizeof *b);
    float c[ROWS * COLUMNS];
    fill(a, ROWS * LONG, 1, 1);
    fill(b, COLUMNS * LONG, 1, 2);
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        const struct products *tables[MAX_PRODUCTS];
        products_available(tables, (vit_dtype)dtype);
        float *memory = panels(tables[0], COLUMNS, LONG);
        float *scratch = aligned_alloc(64, (packed_scratch(tables[0], LONG) + 15) / 16 * 64);
        const struct packed packed = packed_weight(tables[0], memory, b, LONG, COLUMNS, LONG);
        const struct operand operand = packed_operand(&packed, scratch);
        const size_t rows = packed_block_rows(tables[0], LONG) < ROWS ? packed_block_rows(tables[0], LONG) : ROWS;
        ck_assert(!packed_takes(&packed, LONG, 1));
        for (size_t k = 0, step = packed_block_k(tables[0], LONG); k < LONG; k += step) {
            tables[0]->convert(&operand, a + k, LONG, 1, rows, step);
            packed_multiply(&packed, c, COLUMNS, &operand, rows, k, step, k > 0);
        }
        for (size_t i = 0; i < rows * COLUMNS; i++) {
            double wanted = 0;
            for (size_t q = 0; q < LONG; q++)
                wanted += (double)a[i / COLUMNS * LONG + q] * (double)b[i % COLUMNS * LONG + q];
            ck_assert_double_eq_tol((double)c[i], wanted, dtype == VIT_DTYPE_FP32 ? 1e-3 : dtype == VIT_DTYPE_BF16 ? 1 : 3);
        }
        free(memory);
        free(scratch);
    }
    free(a);
    free(b);
}
END_TEST

/* Keys and values are packed in two ways: both give what the weight's way gives. */
START_TEST(test_run_time_packing_equals_load_time_packing)
{
    static struct product p;
    for (int dtype = VIT_DTYPE_FP32; dtype <= VIT_DTYPE_BF16; dtype++) {
        const struct products *tables[MAX_PRODUCTS];
        const size_t count = products_available(tables, (vit_dtype)dtype);
        for (size_t t = 0; t < count; t++)
            for (unsigned i = 0; i < 30; i++) {
                make_product(&p, 7, 1 + i * 2, 1 + i * 5, i);
                float *weight = panels(tables[t], p.n, p.k), *rows = panels(tables[t], p.n, p.k);
                float straight[N * K];
                for (size_t j = 0; j < p.n; j++)
                    for (size_t q = 0; q < p.k; q++)
                        straight[q * p.n + j] = p.b[j * p.k + q];
                packed_weight(tables[t], weight, p.b, p.k, p.n, p.k);
                const struct packed packed = packed_rows(tables[t], rows, straight, p.n, p.n, p.k);
                ck_assert_mem_eq(weight, rows, packed_floats(tables[t], p.n, p.k) * sizeof *rows);
                const struct packed view = packed_view(tables[t], rows, p.n, p.k);
                ck_assert_ptr_eq(view.words, packed.words);
                free(weight);
                free(rows);
            }
    }
}
END_TEST

/* Columns cut off at a panel's beginning are those of the whole. */
START_TEST(test_columns_of_a_packed_matrix)
{
    static struct product p, part;
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        const struct products *tables[MAX_PRODUCTS];
        products_available(tables, (vit_dtype)dtype);
        make_product(&p, 5, N, 33, 1);
        part = p;
        float *memory = panels(tables[0], p.n, p.k);
        const struct packed packed = packed_weight(tables[0], memory, p.b, p.k, p.n, p.k);
        const size_t first = tables[0]->columns, count = N - first - 3;
        const struct packed columns = packed_columns(&packed, first, count);
        multiply(&packed, &p, 1, 0, p.m, false);
        multiply(&columns, &part, 1, 0, p.m, false);
        for (size_t i = 0; i < p.m; i++)
            ck_assert_mem_eq(part.c + i * p.ldc, p.c + i * p.ldc + first, count * sizeof(float));
        ck_assert_ptr_null(packed_columns(&packed, first / 2, count).products);
        ck_assert_ptr_null(packed_columns(&(struct packed){0}, 0, 1).products);
        free(memory);
    }
}
END_TEST

/* What is not finite shows in its row, and in no other. */
START_TEST(test_what_is_not_finite_shows)
{
    static struct product p;
    const float broken[] = {INFINITY, -INFINITY, NAN};
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        const struct products *tables[MAX_PRODUCTS];
        const size_t count = products_available(tables, (vit_dtype)dtype);
        for (size_t i = 0; i < 3 * count; i++) {
            make_product(&p, 5, 20, 37, 3);
            p.a[2 * p.lda + 11] = broken[i % 3];
            run(tables[i / 3], &p, 1, false);
            for (size_t row = 0; row < p.m; row++)
                for (size_t j = 0; j < p.n; j++)
                    ck_assert_msg((isfinite(p.c[row * p.ldc + j]) != 0) == (row != 2), "%s, row %zu", tables[i / 3]->name, row);
        }
    }
}
END_TEST

/* int8 is as near as its steps allow: half a step of a row and half of a column, for each of k terms. */
START_TEST(test_int8_error_is_bounded)
{
    static struct product p;
    make_product(&p, 20, 30, 150, 7);
    for (size_t i = 0; i < p.m * p.lda; i++)
        p.a[i] = p.a[i] > 0 ? p.a[i] : 0.1f * p.a[i]; /* as after a GELU: the zero point matters */
    run(products_best(VIT_DTYPE_INT8), &p, 1, false);
    for (size_t i = 0; i < p.m; i++)
        for (size_t j = 0; j < p.n; j++) {
            double wanted = 0, sizes = 0;
            for (size_t q = 0; q < p.k; q++) {
                wanted += (double)p.a[i * p.lda + q] * (double)p.b[j * p.k + q];
                sizes += 0.5 * 1.1 / 255 * fabs((double)p.b[j * p.k + q]) + 0.5 / 127 * fabs((double)p.a[i * p.lda + q]) + 1e-4;
            }
            ck_assert_double_eq_tol((double)p.c[i * p.ldc + j], wanted, sizes);
        }
}
END_TEST

START_TEST(test_zeros_stay_zeros)
{
    static struct product p;
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        make_product(&p, 3, 20, 40, 1);
        memset(p.a, 0, sizeof p.a);
        memset(p.b, 0, p.k * sizeof(float)); /* and a column of zeros */
        const struct products *tables[MAX_PRODUCTS];
        products_available(tables, (vit_dtype)dtype);
        run(tables[0], &p, 1, false);
        for (size_t i = 0; i < p.m; i++)
            for (size_t j = 0; j < p.n; j++)
                ck_assert_float_eq(p.c[i * p.ldc + j], 0);
    }
}
END_TEST

START_TEST(test_peaks_are_measured)
{
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        const struct products *tables[MAX_PRODUCTS];
        const size_t count = products_available(tables, (vit_dtype)dtype);
        for (size_t t = 0; t < count; t++)
            ck_assert_uint_ge(tables[t]->multiply_adds(10), 10);
        ck_assert_double_gt(vit_peak_flops((vit_dtype)dtype), 1e8);
        ck_assert_int_eq(vit_dtype_is_fast((vit_dtype)dtype), count > 1);
        ck_assert_str_eq(tables[count - 1]->name + 5, "generic");
        ck_assert_int_eq(strncmp(tables[0]->name, vit_dtype_name((vit_dtype)dtype), 4), 0);
    }
    ck_assert(vit_dtype_auto() == VIT_DTYPE_FP32 || vit_dtype_is_fast(vit_dtype_auto()));
    ck_assert_double_gt(vit_peak_bandwidth(), 1e8);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("products");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_products_equal_reference);
    tcase_add_test(tests, test_long_rows);
    tcase_add_test(tests, test_run_time_packing_equals_load_time_packing);
    tcase_add_test(tests, test_columns_of_a_packed_matrix);
    tcase_add_test(tests, test_what_is_not_finite_shows);
    tcase_add_test(tests, test_int8_error_is_bounded);
    tcase_add_test(tests, test_zeros_stay_zeros);
    tcase_add_test(tests, test_peaks_are_measured);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
