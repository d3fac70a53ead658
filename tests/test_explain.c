/* test_explain.c - the parts of explanations: one block's gradient, classes by name, filters and positions. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/explain/explain.h"
#include "engine/math/cpu.h"
#include "engine/math/eigen.h"
#include "engine/model/model.h"
#include "tests/golden.h"
#include "tests/suite.h"

/* ---- the gradient of one block against central differences in double ---- */

enum { T = 7, C = 12, NH = 3, HD = C / NH, M = 22 };

/* A block with random weights, and everything that a run of it needs. */
struct lab {
    float norm1[2 * C], qkv[3 * C * C], qkv_bias[3 * C], proj[C * C], proj_bias[C];
    float norm2[2 * C], fc1[M * C], fc1_bias[M], fc2[C * M], fc2_bias[C];
    struct block block;
    float normed[T * C], qkv_out[T * 3 * C], probabilities[T * T], hidden[T * M], row[M];
    struct block_scratch scratch;
    float values[T * C], residual[T * C], tape_hidden[T * M], mean[C];
    struct block_tape tape;
    float input[T * C], gradient[C];        /* gradient: of the score, with respect to the mean */
    float attention[NH][T * T], backward[NH][T * T];
};

static float next_random(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / 8388608.0f - 1.0f;
}

static void fill(float *x, size_t n, float scale, unsigned *seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = scale * next_random(seed);
}

static void make_lab(struct lab *lab, enum activation activation, unsigned seed)
{
    fill(lab->norm1, 2 * C, 1, &seed);
    fill(lab->qkv, 3 * C * C, 0.8f, &seed);
    fill(lab->qkv_bias, 3 * C, 0.5f, &seed);
    fill(lab->proj, C * C, 0.5f, &seed);
    fill(lab->proj_bias, C, 0.5f, &seed);
    fill(lab->norm2, 2 * C, 1, &seed);
    fill(lab->fc1, M * C, 0.6f, &seed);
    fill(lab->fc1_bias, M, 0.5f, &seed);
    fill(lab->fc2, C * M, 0.6f, &seed);
    fill(lab->fc2_bias, C, 0.5f, &seed);
    fill(lab->input, T * C, 2, &seed);
    fill(lab->gradient, C, 1, &seed);
    lab->block = (struct block){
        .norm1 = {lab->norm1, lab->norm1 + C, 1e-6f},
        .norm2 = {lab->norm2, lab->norm2 + C, 1e-5f},
        .qkv = {lab->qkv, lab->qkv_bias, C, 3 * C},
        .proj = {lab->proj, lab->proj_bias, C, C},
        .mlp = {.fc1 = {lab->fc1, lab->fc1_bias, C, M},
                .fc2 = {lab->fc2, lab->fc2_bias, activation == ACTIVATION_SWIGLU ? M / 2 : M, C},
                .activation = activation},
        .attention = {.heads = NH, .scale = 1 / sqrtf(HD)},
    };
    lab->scratch = (struct block_scratch){lab->normed, lab->qkv_out, lab->probabilities, lab->hidden, lab->row};
    lab->tape = (struct block_tape){lab->values, lab->residual, lab->tape_hidden, lab->mean};
}

static void keep(void *context, const struct attention_view *view)
{
    ck_assert_uint_eq(view->layer, 0);
    ck_assert_uint_eq(view->queries, T);
    ck_assert_uint_eq(view->keys, T);
    memcpy((float *)context + view->head * T * T + view->first * T, view->matrix, view->rows * T * sizeof(float));
}

static double activation_of(enum activation activation, double x)
{
    if (activation == ACTIVATION_GELU)
        return 0.5 * x * erfc(-x / sqrt(2));
    if (activation == ACTIVATION_GELU_TANH)
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    if (activation == ACTIVATION_RELU)
        return x > 0 ? x : 0;
    return x / (1 + exp(-1.702 * x));
}

static void norm_of(const float *weights, double eps, const double *x, double *y)
{
    double mean = 0, variance = 0;
    for (size_t c = 0; c < C; c++)
        mean += x[c] / C;
    for (size_t c = 0; c < C; c++)
        variance += (x[c] - mean) * (x[c] - mean) / C;
    for (size_t c = 0; c < C; c++)
        y[c] = (x[c] - mean) / sqrt(variance + eps) * weights[c] + weights[C + c];
}

/* y [out] = weight x + bias */
static void linear_of(const float *weight, const float *bias, size_t in, size_t out, const double *x, double *y)
{
    for (size_t o = 0; o < out; o++) {
        y[o] = bias[o];
        for (size_t i = 0; i < in; i++)
            y[o] += weight[o * in + i] * x[i];
    }
}

/* The score, gradient . mean(tokens), of a block whose attention probabilities are given; all in double. */
static double score_of(const struct lab *lab, const double attention[NH][T * T])
{
    double values[T][C], score = 0;
    for (size_t t = 0; t < T; t++) {
        double input[C], normed[C], qkv[3 * C];
        for (size_t c = 0; c < C; c++)
            input[c] = lab->input[t * C + c];
        norm_of(lab->norm1, 1e-6f, input, normed);
        linear_of(lab->qkv, lab->qkv_bias, C, 3 * C, normed, qkv);
        memcpy(values[t], qkv + 2 * C, sizeof values[t]);
    }
    for (size_t t = 0; t < T; t++) {
        double heads[C] = {0}, x[C], normed[C], hidden[M], y[C];
        for (size_t c = 0; c < C; c++)
            for (size_t k = 0; k < T; k++)
                heads[c] += attention[c / HD][t * T + k] * values[k][c];
        linear_of(lab->proj, lab->proj_bias, C, C, heads, x);
        for (size_t c = 0; c < C; c++)
            x[c] += lab->input[t * C + c];
        norm_of(lab->norm2, 1e-5f, x, normed);
        linear_of(lab->fc1, lab->fc1_bias, C, M, normed, hidden);
        for (size_t m = 0; m < lab->block.mlp.fc2.in; m++)
            hidden[m] = lab->block.mlp.activation == ACTIVATION_SWIGLU
                            ? hidden[m] / (1 + exp(-hidden[m])) * hidden[M / 2 + m]
                            : activation_of(lab->block.mlp.activation, hidden[m]);
        linear_of(lab->fc2, lab->fc2_bias, lab->block.mlp.fc2.in, C, hidden, y);
        for (size_t c = 0; c < C; c++)
            score += lab->gradient[c] * (x[c] + y[c]) / T;
    }
    return score;
}

static void check_gradient(const struct lab *lab, const char *kernels)
{
    double attention[NH][T * T], wanted[NH][T * T], largest = 0;
    for (size_t i = 0; i < NH * T * T; i++)
        attention[i / (T * T)][i % (T * T)] = lab->attention[i / (T * T)][i % (T * T)];
    for (size_t head = 0; head < NH; head++)
        for (size_t i = 0; i < T * T; i++) {
            const double step = 1e-5, here = attention[head][i];
            attention[head][i] = here + step;
            const double above = score_of(lab, attention);
            attention[head][i] = here - step;
            const double below = score_of(lab, attention);
            attention[head][i] = here;
            wanted[head][i] = (above - below) / (2 * step);
            largest = fmax(largest, fabs(wanted[head][i]));
        }
    ck_assert_double_gt(largest, 0.01);
    for (size_t head = 0; head < NH; head++)
        for (size_t i = 0; i < T * T; i++)
            ck_assert_msg(fabs(lab->backward[head][i] - wanted[head][i]) <= 1e-4 * largest,
                          "%s, activation %d, head %zu, entry %zu: %.9g, not %.9g", kernels, lab->block.mlp.activation, head,
                          i, (double)lab->backward[head][i], wanted[head][i]);
}

START_TEST(test_block_gradient_equals_central_differences)
{
    const struct kernels *tables[3];
    const size_t count = kernels_available(tables);
    for (size_t i = 0; i < count; i++)
        for (int activation = 0; activation < ACTIVATION_COUNT; activation++)
            for (unsigned seed = 1; seed <= 5; seed++) {
                static struct lab lab;
                const struct compute compute = {.kernels = tables[i], .scratch = lab.probabilities};
                float x[T * C], plain[T * C];
                make_lab(&lab, (enum activation)activation, seed);
                memcpy(x, lab.input, sizeof x);
                memcpy(plain, lab.input, sizeof plain);
                block_forward(&lab.block, &compute, &lab.scratch, plain, T, T, 0, NULL);
                block_forward(&lab.block, &compute, &lab.scratch, x, T, T, 0,
                              &(struct observer){.attention = keep, .context = lab.attention, .tapes = &lab.tape});
                ck_assert_mem_eq(x, plain, sizeof x); /* being watched changes nothing */
                block_backward(&lab.block, &compute, &lab.scratch, &lab.tape, lab.gradient, T, 0,
                               &(struct observer){.attention = keep, .context = lab.backward});
                check_gradient(&lab, tables[i]->name);
            }
}
END_TEST

/* ---- classes by name ---- */

static vit_model *open_golden(const char *name)
{
    char path[600];
    vit_model *model = NULL;
    vit_error err = {""};
    const char *tests = getenv("VITD_TESTS");
    snprintf(path, sizeof path, "%s/golden/%s", tests != NULL ? tests : "tests", name);
    ck_assert_msg(vit_model_open(&model, path, NULL, &err) == VIT_OK, "%s", err.message);
    return model;
}

/* A model whose labels are `labels`. */
static vit_model *with_labels(const char *const *labels, size_t count)
{
    vit_model *model = open_golden("vit-hf");
    ck_assert_uint_ge(model->info.classes, count);
    for (size_t i = 0; i < model->info.classes; i++) {
        free(model->labels[i]);
        model->labels[i] = strdup(i < count ? labels[i] : "");
    }
    return model;
}

static const char *const animals[] = {"tabby, tabby cat", "crane", "crane, lifting device", "Égyptian cat",
                                      "black, white", "white"};

START_TEST(test_class_by_name)
{
    static const struct {
        const char *text;
        size_t index;
    } good[] = {{"0", 0}, {"9", 9}, {"tabby", 0}, {" Tabby Cat ", 0}, {"tabby, tabby cat", 0}, {"crane", 1},
                {"LIFTING DEVICE", 2}, {"Égyptian cat", 3}, {"white", 5}, {"black", 4}};
    static const struct {
        const char *text, *message;
    } bad[] = {{"10", "class 10 does not exist: the model has classes 0 to 9"},
               {"99999999999", "no class is called '99999999999': give one of the model's labels, or an index from 0 to 9"},
               {"tab", "no class is called 'tab': give one of the model's labels, or an index from 0 to 9"},
               {"-1", "no class is called '-1': give one of the model's labels, or an index from 0 to 9"},
               {"", "a class without a name: give a label or an index"}};
    vit_model *model = with_labels(animals, 6);
    size_t index = 77;
    vit_error err;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(vit_model_find_class(model, good[i].text, &index, &err) == VIT_OK, "%s", good[i].text);
        ck_assert_uint_eq(index, good[i].index);
    }
    index = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(vit_model_find_class(model, bad[i].text, &index, &err), VIT_ERR_ARGUMENT);
        ck_assert_str_eq(err.message, bad[i].message);
        ck_assert_uint_eq(index, 77);
    }
    vit_model_free(model);
}
END_TEST

START_TEST(test_ambiguous_class)
{
    static const char *const twice[] = {"crane, bird", "crane, device", "same", "same"};
    vit_model *model = with_labels(twice, 4);
    size_t index;
    vit_error err;
    ck_assert_int_eq(vit_model_find_class(model, "crane", &index, &err), VIT_ERR_ARGUMENT);
    ck_assert_str_eq(err.message, "several classes are called 'crane', 0 and 1 among them: give an index");
    ck_assert_int_eq(vit_model_find_class(model, "same", &index, &err), VIT_ERR_ARGUMENT);
    vit_model_free(model);
}
END_TEST

START_TEST(test_list_of_classes)
{
    static const struct {
        const char *text;
        size_t count, indices[4];
    } lists[] = {{"tabby", 1, {0}},
                 {"tabby, tabby cat", 1, {0}},
                 {"tabby,tabby cat,0", 1, {0}},
                 {"crane, lifting device, crane", 2, {2, 1}},
                 {"black, white, white", 2, {4, 5}},
                 {"white,3,tabby, tabby cat,1", 4, {5, 3, 0, 1}}};
    vit_model *model = with_labels(animals, 6);
    vit_error err;
    size_t indices[4], count;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        ck_assert_int_eq(vit_model_find_classes(model, lists[i].text, indices, 4, &count, &err), VIT_OK);
        ck_assert_uint_eq(count, lists[i].count);
        ck_assert_mem_eq(indices, lists[i].indices, count * sizeof *indices);
    }
    ck_assert_int_eq(vit_model_find_classes(model, "0,1,2,3,4", indices, 4, &count, &err), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_model_find_classes(model, "tabby,,1", indices, 4, &count, &err), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_model_find_classes(model, "tabby,", indices, 4, &count, &err), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_model_find_classes(model, "", indices, 4, &count, &err), VIT_ERR_ARGUMENT);
    vit_model_free(model);
}
END_TEST

/* ---- which explanations ---- */

START_TEST(test_shapes)
{
    vit_model *model = open_golden("vit-hf"); /* 3 layers, 4 heads, 6x6 patches, 10 classes */
    const vit_explain explain = {.layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
    vit_explain e = explain;
    vit_map_shape shape;
    vit_error err;
    e.method = VIT_ATTENTION_RAW, e.layer = VIT_ALL, e.head = VIT_ALL;
    ck_assert_int_eq(vit_explain_shape(model, &e, &shape, &err), VIT_OK);
    ck_assert(shape.targets == 1 && shape.layers == 3 && shape.heads == 4 && shape.floats == 3 * 4 * 36);
    e = explain, e.method = VIT_ATTENTION_LEGRAD, e.target_count = 2, e.targets[0] = 9, e.layer = VIT_ALL;
    ck_assert_int_eq(vit_explain_shape(model, &e, &shape, &err), VIT_OK);
    ck_assert(shape.targets == 2 && shape.layers == 3 && shape.heads == 1 && shape.floats == 2 * 3 * 36);

    const struct {
        vit_explain explain;
        const char *message;
    } bad[] = {
        {{.method = VIT_ATTENTION_NONE}, "no such attention method"},
        {{.method = VIT_ATTENTION_ROLLOUT, .head = 1}, "head only goes with attention=raw"},
        {{.method = VIT_ATTENTION_LEGRAD, .head = VIT_ALL}, "head only goes with attention=raw"},
        {{.method = VIT_ATTENTION_ROLLOUT, .layer = 1, .head = VIT_HEAD_MEAN},
         "layer only goes with attention=raw and attention=legrad"},
        {{.method = VIT_ATTENTION_RAW, .last_layers = 1}, "layers only goes with attention=legrad"},
        {{.method = VIT_ATTENTION_RAW, .target_count = 1}, "target only goes with attention=legrad"},
        {{.method = VIT_ATTENTION_LEGRAD, .layer = 3, .head = VIT_HEAD_MEAN},
         "layer 3 does not exist: the model has layers 0 to 2"},
        {{.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .last_layers = 4, .head = VIT_HEAD_MEAN},
         "the last 4 layers: the model has 3"},
        {{.method = VIT_ATTENTION_LEGRAD, .layer = 1, .last_layers = 1, .head = VIT_HEAD_MEAN},
         "layer and layers exclude each other"},
        {{.method = VIT_ATTENTION_LEGRAD, .target_count = 1, .targets = {10}, .head = VIT_HEAD_MEAN},
         "class 10 does not exist: the model has classes 0 to 9"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(vit_explain_shape(model, &bad[i].explain, &shape, &err), VIT_ERR_ARGUMENT);
        ck_assert_str_eq(err.message, bad[i].message);
    }
    vit_model_free(model);
}
END_TEST

/* A row of the table without a method refuses it and says so. */
START_TEST(test_method_that_is_not_defined)
{
    vit_model *model = open_golden("vit-hf");
    const vit_explain legrad = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
    vit_map_shape shape;
    vit_error err;
    model->info.explanations &= ~(1u << VIT_ATTENTION_LEGRAD);
    ck_assert_int_eq(vit_explain_shape(model, &legrad, &shape, &err), VIT_ERR_UNSUPPORTED);
    ck_assert_str_eq(err.message, "legrad is not defined for this model (architecture vit): ask for raw");
    model->info.explanations = 0;
    model->info.distances = false;
    vit_session *session;
    float logits[10], distances[12], *pixels = calloc(3 * 48 * 48, sizeof *pixels);
    ck_assert_int_eq(vit_session_create(&session, model, 1, &err), VIT_OK);
    const vit_item item = {.pixels = pixels, .logits = logits, .distances = distances};
    ck_assert_int_eq(vit_session_run(session, &item, 1, &err), VIT_ERR_UNSUPPORTED);
    vit_session_free(session);
    vit_model_free(model);
    free(pixels);
}
END_TEST

/* ---- inside the model ---- */

/* matrix v = value v for every pair, the vectors are orthonormal, and the values come largest first. */
START_TEST(test_eigenvectors)
{
    enum { N = 40, COUNT = 7 };
    double matrix[N * N], copy[N * N], values[COUNT], vectors[COUNT * N];
    unsigned seed = 3;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j <= i; j++)
            matrix[i * N + j] = matrix[j * N + i] = (double)next_random(&seed);
    memcpy(copy, matrix, sizeof copy);
    ck_assert(eigen_largest(values, vectors, copy, N, COUNT));
    for (size_t k = 0; k < COUNT; k++) {
        ck_assert(k == 0 || values[k] <= values[k - 1]);
        for (size_t i = 0; i < N; i++) {
            double product = 0;
            for (size_t j = 0; j < N; j++)
                product += matrix[i * N + j] * vectors[k * N + j];
            ck_assert_double_eq_tol(product, values[k] * vectors[k * N + i], 1e-10);
        }
        for (size_t other = 0; other <= k; other++) {
            double product = 0;
            for (size_t j = 0; j < N; j++)
                product += vectors[other * N + j] * vectors[k * N + j];
            ck_assert_double_eq_tol(product, other == k, 1e-10);
        }
    }
}
END_TEST

/* The components against their definition: c^T X^T X c, with X the centred filters, is the variance they claim. */
static void check_filters(const vit_model *model)
{
    const vit_model_info *info = vit_model_describe(model);
    const size_t size = 3 * info->patch_size * info->patch_size;
    const struct arch_inside inside = model->arch->inside(model->state);
    float *components = malloc(VIT_FILTERS * size * sizeof *components), variances[VIT_FILTERS], sum = 0;
    size_t count = 0;
    vit_error err = {""};
    ck_assert_msg(vit_model_filters(model, components, variances, &count, &err) == VIT_OK, "%s", err.message);
    ck_assert_uint_eq(count, inside.filter_count < VIT_FILTERS ? inside.filter_count : VIT_FILTERS);
    double *mean = calloc(size, sizeof *mean), total = 0;
    for (size_t i = 0; i < inside.filter_count * size; i++)
        mean[i % size] += inside.filters[i] / (double)inside.filter_count;
    for (size_t i = 0; i < inside.filter_count * size; i++)
        total += pow(inside.filters[i] - mean[i % size], 2);
    for (size_t k = 0; k < count; k++) {
        double variance = 0, square = 0;
        for (size_t i = 0; i < inside.filter_count; i++) {
            double product = 0;
            for (size_t j = 0; j < size; j++)
                product += components[k * size + j] * (inside.filters[i * size + j] - mean[j]);
            variance += product * product;
        }
        for (size_t j = 0; j < size; j++)
            square += (double)components[k * size + j] * components[k * size + j];
        ck_assert_double_eq_tol(square, variances[k] > 1e-6f ? 1 : square, 1e-5);
        ck_assert_double_eq_tol(variance / total, variances[k], 1e-5);
        ck_assert(k == 0 || variances[k] <= variances[k - 1]);
        sum += variances[k];
    }
    ck_assert_double_le(sum, 1 + 1e-5);
    free(components);
    free(mean);
}

START_TEST(test_filters)
{
    static const char *const folders[] = {"vit-hf", "vit-timm", "deit-distilled-hf"};
    for (size_t i = 0; i < 3; i++) {
        vit_model *model = open_golden(folders[i]);
        check_filters(model);
        vit_model_free(model);
    }
}
END_TEST

START_TEST(test_positions)
{
    vit_model *model = open_golden("deit-distilled-timm");
    const vit_model_info *info = vit_model_describe(model);
    const size_t patches = info->grid_height * info->grid_width;
    const struct arch_inside inside = model->arch->inside(model->state);
    float *similarity = malloc(patches * patches * sizeof *similarity);
    vit_error err;
    ck_assert_int_eq(vit_model_positions(model, similarity, &err), VIT_OK);
    for (size_t i = 0; i < patches; i++)
        for (size_t j = 0; j < patches; j++) {
            double product = 0, a = 0, b = 0;
            for (size_t c = 0; c < info->width; c++) {
                const double x = inside.positions[i * info->width + c], y = inside.positions[j * info->width + c];
                product += x * y;
                a += x * x;
                b += y * y;
            }
            ck_assert_double_eq_tol(similarity[i * patches + j], product / sqrt(a * b), 1e-5);
        }
    free(similarity);
    vit_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("explain");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, test_block_gradient_equals_central_differences);
    tcase_add_test(tests, test_class_by_name);
    tcase_add_test(tests, test_ambiguous_class);
    tcase_add_test(tests, test_list_of_classes);
    tcase_add_test(tests, test_shapes);
    tcase_add_test(tests, test_method_that_is_not_defined);
    tcase_add_test(tests, test_eigenvectors);
    tcase_add_test(tests, test_filters);
    tcase_add_test(tests, test_positions);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
