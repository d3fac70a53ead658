/* test_layers.c - convolution, pooling and normalisation of maps, re-attention, and position embeddings, against their
 * definitions in double. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/layers/conv.h"
#include "engine/math/cpu.h"
#include "tests/suite.h"
#include "tests/turns.h"

static void fill(float *x, size_t n, float scale, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = scale * ((float)(seed >> 8) / 8388608.0f - 1.0f);
    }
}

/* ---- convolution ---- */

/* The picture's value at (y, x), `padding` outside. */
static double value_at(const float *map, const struct sliding *s, size_t channels, long y, long x, size_t c, double padding)
{
    if (y < 0 || x < 0 || y >= (long)s->height || x >= (long)s->width)
        return padding;
    return map[((size_t)y * s->width + (size_t)x) * channels + c];
}

static double convolution_at(const struct conv *conv, const float *map, size_t position, size_t out)
{
    const struct sliding *s = &conv->sliding;
    double sum = conv->bias != NULL ? conv->bias[out] : 0;
    for (size_t ky = 0; ky < s->kernel; ky++)
        for (size_t kx = 0; kx < s->kernel; kx++)
            for (size_t c = 0; c < conv->in; c++)
                sum += conv->weight[((out * s->kernel + ky) * s->kernel + kx) * conv->in + c] *
                       value_at(map, s, conv->in, (long)(position / s->out_width * s->stride + ky) - (long)s->top,
                                (long)(position % s->out_width * s->stride + kx) - (long)s->left, c, 0);
    return sum;
}

static void check_conv(const struct sliding sliding, size_t in, size_t out)
{
    const size_t pixels = sliding.height * sliding.width, positions = sliding_positions(&sliding);
    const size_t weights = out * sliding.kernel * sliding.kernel * in;
    float *map = malloc(pixels * in * sizeof *map), *weight = malloc(weights * sizeof *weight);
    float *bias = malloc(out * sizeof *bias), *result = malloc(positions * out * sizeof *result);
    fill(map, pixels * in, 1, 1);
    fill(weight, weights, 0.2f, 2);
    fill(bias, out, 1, 3);
    const struct conv conv = {.weight = weight, .bias = bias, .in = in, .out = out, .sliding = sliding};
    float *scratch = malloc((conv_scratch(&conv) + 1) * sizeof *scratch);
    const struct compute compute = {.kernels = kernels_best(), .scratch = scratch};
    for (int add = 0; add < 2; add++) {
        for (size_t i = 0; i < positions * out; i++)
            result[i] = 7;
        conv_forward(&conv, &compute, result, map, add);
        for (size_t i = 0; i < positions * out; i++)
            ck_assert_double_eq_tol(result[i], convolution_at(&conv, map, i / out, i % out) + (add ? 7 : 0), 2e-4);
    }
    free(map);
    free(weight);
    free(bias);
    free(result);
    free(scratch);
}

START_TEST(test_convolution_equals_definition)
{
    check_conv(sliding_padded(3, 1, 1, 9, 7), 5, 6);
    check_conv(sliding_padded(3, 2, 1, 9, 8), 4, 3);
    check_conv(sliding_padded(7, 4, 3, 21, 18), 3, 8);
    check_conv(sliding_padded(1, 1, 0, 6, 5), 8, 4);
    check_conv(sliding_padded(1, 2, 0, 7, 5), 8, 4);
    check_conv(sliding_same(7, 2, 13, 10), 3, 4);
    check_conv(sliding_same(3, 2, 8, 8), 3, 4);
    check_conv(sliding_same(4, 4, 9, 10), 3, 4); /* the last patches reach beyond the picture */
    check_conv(sliding_padded(3, 1, 1, 60, 50), 40, 2); /* more than one tile */
}
END_TEST

START_TEST(test_sliding_counts_positions)
{
    const struct sliding padded = sliding_padded(3, 2, 1, 224, 111), same = sliding_same(3, 2, 18, 9);
    ck_assert_uint_eq(padded.out_height, 112);
    ck_assert_uint_eq(padded.out_width, 56);
    ck_assert_uint_eq(same.out_height, 9);
    ck_assert_uint_eq(same.out_width, 5);
    ck_assert_uint_eq(same.top, 0); /* one row of padding in all: at the end */
    ck_assert_uint_eq(same.left, 1);
    const struct sliding nothing = sliding_padded(7, 4, 0, 3, 3);
    ck_assert_uint_eq(sliding_positions(&nothing), 0);
}
END_TEST

START_TEST(test_max_pool_equals_definition)
{
    const struct compute compute = {.kernels = kernels_best()};
    const struct sliding cases[] = {sliding_padded(3, 2, 1, 9, 8), sliding_same(3, 2, 10, 7)};
    enum { CHANNELS = 19 };
    float map[10 * 9 * CHANNELS], out[5 * 5 * CHANNELS];
    fill(map, sizeof map / sizeof *map, 1, 5);
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        map[i] -= 2; /* below zero: padding with zeros wins where it is */
    for (int i = 0; i < 4; i++) {
        const struct sliding *s = &cases[i / 2];
        const float padding = i % 2 == 0 ? 0 : -INFINITY;
        max_pool(out, map, s, &compute, CHANNELS, padding);
        for (size_t j = 0; j < sliding_positions(s) * CHANNELS; j++) {
            const size_t position = j / CHANNELS;
            double largest = -INFINITY;
            for (long k = 0; k < 9; k++)
                largest = fmax(largest, value_at(map, s, CHANNELS,
                                                 (long)(position / s->out_width * 2) - (long)s->top + k / 3,
                                                 (long)(position % s->out_width * 2) - (long)s->left + k % 3,
                                                 j % CHANNELS, (double)padding));
            ck_assert_double_eq(out[j], largest);
        }
    }
}
END_TEST

START_TEST(test_group_norm_equals_definition)
{
    enum { CHANNELS = 96, EACH = CHANNELS / NORM_GROUPS, COUNT = 300 };
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables);
    static float map[COUNT * CHANNELS], got[COUNT * CHANNELS], scratch[3 * CHANNELS];
    float weight[CHANNELS], bias[CHANNELS];
    fill(map, COUNT * CHANNELS, 1, 1);
    fill(weight, CHANNELS, 2, 2);
    fill(bias, CHANNELS, 1, 3);
    for (size_t i = 0; i < COUNT * CHANNELS; i++)
        map[i] += 50; /* a mean far from zero */
    const struct norm norm = {.weight = weight, .bias = bias, .eps = 1e-5f};
    for (size_t table = 0; table < count; table++)
        for (int relu = 0; relu < 2; relu++) {
            memcpy(got, map, sizeof got);
            group_norm(&norm, &(struct compute){.kernels = tables[table]}, scratch, got, COUNT, CHANNELS,
                       relu ? 0 : -INFINITY);
            for (size_t group = 0; group < NORM_GROUPS; group++) {
                double mean = 0, variance = 0;
                for (size_t i = 0; i < COUNT * EACH; i++)
                    mean += map[i / EACH * CHANNELS + group * EACH + i % EACH] / (double)(COUNT * EACH);
                for (size_t i = 0; i < COUNT * EACH; i++)
                    variance += pow(map[i / EACH * CHANNELS + group * EACH + i % EACH] - mean, 2) / (COUNT * EACH);
                for (size_t i = 0; i < COUNT * EACH; i++) {
                    const size_t c = group * EACH + i % EACH, at = i / EACH * CHANNELS + c;
                    const double value = (map[at] - mean) / sqrt(variance + 1e-5f) * weight[c] + bias[c];
                    ck_assert_double_eq_tol(got[at], relu ? fmax(0, value) : value, 2e-4);
                }
            }
        }
}
END_TEST

/* ---- attention ---- */

enum { TOKENS = 700, HEADS = 3, WIDTH = 24, HEAD = WIDTH / HEADS };

static const float mixing[] = {0.5f, -1, 0.25f, 1, 0.5f, 0.5f, -0.5f, 0.75f, 1}, mixing_bias[] = {0.1f, -0.2f, 0.3f};

/* One query at a time, by the definition. */
static void check_attention(const float *out, const float *qkv, bool mixed, double tolerance)
{
    for (size_t query = 0; query < TOKENS; query += 53) {
        static double a[HEADS][TOKENS];
        for (size_t head = 0; head < HEADS; head++) {
            double sum = 0;
            for (size_t key = 0; key < TOKENS; key++) {
                double dot = 0;
                for (size_t c = 0; c < HEAD; c++)
                    dot += qkv[query * 3 * WIDTH + head * HEAD + c] * qkv[key * 3 * WIDTH + WIDTH + head * HEAD + c];
                sum += a[head][key] = exp(dot / 2);
            }
            for (size_t key = 0; key < TOKENS; key++)
                a[head][key] /= sum;
        }
        for (size_t i = 0; i < WIDTH; i++) {
            const size_t head = i / HEAD;
            double wanted = 0;
            for (size_t key = 0; key < TOKENS; key++) {
                double weight = mixed ? mixing_bias[head] : a[head][key];
                for (size_t other = 0; mixed && other < HEADS; other++)
                    weight += mixing[head * HEADS + other] * a[other][key];
                wanted += weight * qkv[key * 3 * WIDTH + 2 * WIDTH + i];
            }
            ck_assert_double_eq_tol(out[query * WIDTH + i], wanted, tolerance);
        }
    }
}

/* The results of a team are to the bit those of one thread. */
static void run_attention(const struct attention *attention, const float *qkv, bool mixed, double tolerance)
{
    float *out = malloc(TOKENS * WIDTH * sizeof *out), *shared = malloc(TOKENS * WIDTH * sizeof *shared);
    float *memory = aligned_alloc(64, attention_floats(attention, TOKENS, WIDTH) / 16 * 64 + 64);
    struct turns turns;
    turns_init(&turns, attention_scratch(attention, TOKENS, WIDTH) * sizeof(float));
    struct compute compute = {.kernels = kernels_best(), .scratch = turns.scratch[0]};
    ck_assert_uint_lt(attention_rows(attention, TOKENS), TOKENS);
    attention_forward(attention, &compute, memory, out, qkv, TOKENS, TOKENS, WIDTH, 0, NULL);
    check_attention(out, qkv, mixed, tolerance);
    compute.team = &turns.team;
    attention_forward(attention, &compute, memory, shared, qkv, TOKENS, TOKENS, WIDTH, 0, NULL);
    ck_assert_uint_gt(turns.calls, TEAM);
    ck_assert_mem_eq(out, shared, TOKENS * WIDTH * sizeof *out);
    turns_release(&turns);
    free(memory);
    free(out);
    free(shared);
}

/* Tokens enough for several tiles, with and without mixed heads, on OpenBLAS and on every table of products. */
START_TEST(test_attention_in_tiles)
{
    const struct products *tables[2 * MAX_PRODUCTS + 1] = {NULL};
    size_t count = 1 + products_available(tables + 1, VIT_DTYPE_FP32);
    const size_t exact = count;
    count += products_available(tables + count, VIT_DTYPE_BF16);
    float *qkv = malloc(TOKENS * 3 * WIDTH * sizeof *qkv);
    fill(qkv, TOKENS * 3 * WIDTH, 1, 9);
    for (size_t i = 0; i < 2 * count; i++) {
        const struct attention attention = {.heads = HEADS, .scale = 0.5f, .mixing = i % 2 ? mixing : NULL,
                                            .mixing_bias = mixing_bias, .products = tables[i / 2]};
        run_attention(&attention, qkv, i % 2, i / 2 < exact ? 2e-4 : i % 2 ? 0.2 : 5e-3);
    }
    free(qkv);
}
END_TEST

/* More rows than one block holds and an inner dimension in several parts: near the definition, and every row has the bits
 * that it has alone. */
START_TEST(test_large_linear)
{
    enum { ROWS = 300, IN = 2100, OUT = 40 };
    float *weight = malloc(OUT * IN * sizeof *weight), *x = malloc(ROWS * IN * sizeof *x);
    static float y[ROWS * OUT], one[OUT];
    const struct products *tables[MAX_PRODUCTS];
    const size_t count = products_available(tables, VIT_DTYPE_FP32);
    fill(weight, OUT * IN, 0.1f, 1);
    fill(x, ROWS * IN, 1, 2);
    for (size_t t = 0; t < count; t++) {
        float *memory = aligned_alloc(64, packed_floats(tables[t], OUT, IN) * sizeof(float) / 64 * 64 + 64);
        float *scratch = aligned_alloc(64, packed_scratch(tables[t], IN) * sizeof(float) / 64 * 64 + 64);
        const struct linear linear = {.in = IN, .out = OUT,
                                      .packed = packed_weight(tables[t], memory, weight, IN, OUT, IN)};
        const struct compute compute = {.kernels = kernels_best(), .scratch = scratch};
        linear_forward(&linear, &compute, y, x, IN, ROWS);
        for (size_t i = 0; i < ROWS; i += 7) {
            linear_forward(&linear, &compute, one, x + i * IN, IN, 1);
            ck_assert_mem_eq(one, y + i * OUT, sizeof one);
            for (size_t j = 0; j < OUT; j++) {
                double wanted = 0, size = 0;
                for (size_t k = 0; k < IN; k++) {
                    wanted += (double)x[i * IN + k] * (double)weight[j * IN + k];
                    size += fabs((double)x[i * IN + k] * (double)weight[j * IN + k]);
                }
                ck_assert_double_eq_tol((double)y[i * OUT + j], wanted, 2e-6 * size);
            }
        }
        free(memory);
        free(scratch);
    }
    free(weight);
    free(x);
}
END_TEST

/* Rows split among threads give the same bits. */
START_TEST(test_team_does_not_change_results)
{
    enum { ROWS = 150, IN = 40, HIDDEN = 72 };
    static float weights[2 * IN * HIDDEN], bias[HIDDEN + IN], x[2][ROWS * IN], normed[ROWS * IN], hidden[ROWS * HIDDEN];
    struct turns turns;
    fill(weights, 2 * IN * HIDDEN, 0.2f, 1);
    fill(bias, HIDDEN + IN, 1, 2);
    for (int dtype = VIT_DTYPE_FP32; dtype <= VIT_DTYPE_INT8; dtype++) {
        const struct products *products = products_best((vit_dtype)dtype);
        struct mlp mlp = {.fc1 = {.weight = weights, .bias = bias, .in = IN, .out = HIDDEN},
                          .fc2 = {.weight = weights + IN * HIDDEN, .bias = bias + HIDDEN, .in = HIDDEN, .out = IN}};
        float *memory[2] = {NULL, NULL};
        turns_init(&turns, products ? packed_scratch(products, HIDDEN) * sizeof(float) : 0);
        struct linear *const linears[] = {&mlp.fc1, &mlp.fc2};
        for (size_t i = 0; products && i < 2; i++) {
            struct linear *l = linears[i];
            memory[i] = aligned_alloc(64, packed_floats(products, l->out, l->in) * sizeof(float) / 64 * 64 + 64);
            l->packed = packed_weight(products, memory[i], l->weight, l->in, l->out, l->in);
        }
        for (size_t i = 0; i < 2; i++) {
            const struct compute compute = {.kernels = kernels_best(), .scratch = turns.scratch[0],
                                            .team = i ? &turns.team : NULL};
            const struct norm norm = {.weight = bias, .bias = bias, .eps = 1e-6f};
            fill(x[i], ROWS * IN, 1, 3);
            norm_forward(&norm, &compute, normed, x[i], ROWS, IN);
            mlp_forward(&mlp, &compute, hidden, x[i], normed, ROWS, NULL);
        }
        ck_assert_mem_eq(x[0], x[1], sizeof x[0]);
        ck_assert_uint_ge(turns.calls, TEAM);
        turns_release(&turns);
        free(memory[0]);
        free(memory[1]);
    }
}
END_TEST

/* ---- positions ---- */

START_TEST(test_sinusoidal_positions)
{
    float positions[5 * 6];
    positions_sinusoidal(positions, 5, 6);
    for (size_t i = 0; i < 5; i++)
        for (size_t pair = 0; pair < 3; pair++) {
            const double angle = (double)i / pow(10000, (double)pair / 3);
            ck_assert_double_eq_tol(positions[6 * i + 2 * pair], sin(angle), 1e-6);
            ck_assert_double_eq_tol(positions[6 * i + 2 * pair + 1], cos(angle), 1e-6);
        }
}
END_TEST

/* [sin x, cos x, sin y, cos y], frequencies to 1/10000 for SimpleViT, to the step before it for MAE. */
START_TEST(test_sincos2d_positions)
{
    float positions[6 * 16];
    for (int full = 0; full < 2; full++) {
        positions_sincos2d(positions, 2, 3, 16, full);
        for (size_t i = 0; i < 6; i++)
            for (size_t k = 0; k < 4; k++) {
                const double frequency = pow(10000, -(double)k / (full ? 3 : 4));
                const double x = (double)(i % 3) * frequency, y = (double)(i / 3) * frequency;
                const float *row = positions + 16 * i;
                ck_assert_double_eq_tol(row[k], sin(x), 1e-6);
                ck_assert_double_eq_tol(row[4 + k], cos(x), 1e-6);
                ck_assert_double_eq_tol(row[8 + k], sin(y), 1e-6);
                ck_assert_double_eq_tol(row[12 + k], cos(y), 1e-6);
            }
    }
}
END_TEST

/* The same grid gives the same numbers, a constant stays one, in either way and in both directions. */
START_TEST(test_positions_resized)
{
    float in[4 * 5 * 3], out[9 * 8 * 3];
    for (int way = 0; way < 2; way++) {
        fill(in, 60, 1, 4);
        positions_resize(out, 4, 5, in, 4, 5, 3, (enum interpolation)way);
        for (size_t i = 0; i < 60; i++)
            ck_assert_double_eq_tol(out[i], in[i], 1e-6);
        for (size_t i = 0; i < 60; i++)
            in[i] = (float)(i % 3) + 1;
        for (size_t side = 2; side <= 8; side += 2) {
            positions_resize(out, side + 1, side, in, 4, 5, 3, (enum interpolation)way);
            for (size_t i = 0; i < (side + 1) * side * 3; i++)
                ck_assert_double_eq_tol(out[i], (double)(i % 3) + 1, 1e-5);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("layers");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_convolution_equals_definition);
    tcase_add_test(tests, test_sliding_counts_positions);
    tcase_add_test(tests, test_max_pool_equals_definition);
    tcase_add_test(tests, test_group_norm_equals_definition);
    tcase_add_test(tests, test_attention_in_tiles);
    tcase_add_test(tests, test_large_linear);
    tcase_add_test(tests, test_team_does_not_change_results);
    tcase_add_test(tests, test_sinusoidal_positions);
    tcase_add_test(tests, test_sincos2d_positions);
    tcase_add_test(tests, test_positions_resized);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
