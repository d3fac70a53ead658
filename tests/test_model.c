/* test_model.c - every golden ViT and DeiT folder against its reference, through the public API. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden.h"
#include "vit.h"

static const char *const folders[] = {"vit-hf",    "vit-hf-f16",   "vit-hf-bf16",       "vit-timm",
                                      "vit-timm-gap", "deit-hf", "deit-distilled-hf", "deit-distilled-timm"};

enum { FOLDER_COUNT = sizeof folders / sizeof folders[0], BATCH = 5 };

/* A golden folder, opened, and the picture it was recorded with. */
struct fixture {
    char path[512];
    vit_model *model;
    const vit_model_info *info;
    struct golden *golden;
    float *pixels; /* [3, H, W] through our own decoding and preprocessing */
};

static void *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    void *bytes = malloc(1 << 20);
    *length = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void fixture_open(struct fixture *f, const char *name)
{
    vit_error err = {""};
    char path[600];
    const char *tests = getenv("VITD_TESTS");
    snprintf(f->path, sizeof f->path, "%s/golden/%s", tests != NULL ? tests : "tests", name);
    ck_assert_msg(vit_model_open(&f->model, f->path, &err) == VIT_OK, "%s", err.message);
    f->info = vit_model_describe(f->model);
    snprintf(path, sizeof path, "%s/expected.safetensors", f->path);
    f->golden = golden_open(path);
    ck_assert_ptr_nonnull(f->golden);

    size_t length;
    vit_image image;
    snprintf(path, sizeof path, "%s/input.png", f->path);
    void *bytes = read_file(path, &length);
    ck_assert_msg(vit_image_decode(&image, bytes, length, 1 << 20, &err) == VIT_OK, "%s", err.message);
    f->pixels = malloc(3 * f->info->image_height * f->info->image_width * sizeof *f->pixels);
    ck_assert_msg(vit_preprocess_apply(f->info->preprocess, &image, f->pixels, &err) == VIT_OK, "%s", err.message);
    vit_image_release(&image);
    free(bytes);
}

static void fixture_close(struct fixture *f)
{
    free(f->pixels);
    golden_free(f->golden);
    vit_model_free(f->model);
}

static const float *expected(const struct fixture *f, const char *name, size_t count)
{
    size_t found;
    const float *values = golden_get(f->golden, name, "F32", &found);
    ck_assert_msg(values != NULL && found == count, "%s: %s", f->path, name);
    return values;
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)a[i] - b[i]));
    return largest;
}

static double largest_value(const float *a, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)a[i]));
    return largest;
}

static void run_one(const struct fixture *f, const vit_item *item)
{
    vit_error err = {""};
    vit_session *session;
    ck_assert_int_eq(vit_session_create(&session, f->model, 1, &err), VIT_OK);
    ck_assert_msg(vit_session_run(session, item, 1, &err) == VIT_OK, "%s", err.message);
    vit_session_free(session);
}

START_TEST(test_preprocess_equals_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i]);
    const size_t count = 3 * f.info->image_height * f.info->image_width;
    double difference = largest_difference(f.pixels, expected(&f, "pixel_values", count), count);
    ck_assert_msg(difference <= 1e-6, "%s: pixel_values differ by %g", f.path, difference);
    fixture_close(&f);
}
END_TEST

START_TEST(test_logits_equal_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i]);
    const size_t n = f.info->classes;
    const float *wanted = expected(&f, "logits", n);
    float *logits = calloc(n, sizeof *logits), *features = calloc(f.info->embedding_width, sizeof *features);
    run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits, .features = features});
    double error = largest_difference(logits, wanted, n) / largest_value(wanted, n);
    ck_assert_msg(error <= 1e-4, "%s: logits differ by %g of the largest", f.path, error);

    vit_scores(logits, logits, n, VIT_SOFTMAX);
    ck_assert_double_le(largest_difference(logits, expected(&f, "probs", n), n), 1e-4);
    size_t width;
    const float *golden_features = golden_get(f.golden, "features", "F32", &width);
    if (golden_features != NULL) {
        ck_assert_uint_eq(width, f.info->embedding_width);
        ck_assert_double_le(largest_difference(features, golden_features, width) /
                                largest_value(golden_features, width),
                            1e-4);
    }
    free(logits);
    free(features);
    fixture_close(&f);
}
END_TEST

/* The reference's map for a layer and head: the class token's row, or the mean row without a class token. */
static void reference_map(const struct fixture *f, size_t layer, size_t head, float *map)
{
    const vit_model_info *info = f->info;
    const size_t tokens = info->tokens, patches = info->grid_height * info->grid_width;
    char name[32];
    snprintf(name, sizeof name, "attentions.%zu", layer);
    const float *all = expected(f, name, info->heads * tokens * tokens) + head * tokens * tokens;
    const size_t queries = info->prefix_tokens > 0 ? 1 : tokens;
    for (size_t i = 0; i < patches; i++) {
        double sum = 0;
        for (size_t query = 0; query < queries; query++)
            sum += all[query * tokens + info->prefix_tokens + i];
        map[i] = (float)(sum / (double)queries);
    }
}

START_TEST(test_raw_attention_equals_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i]);
    const size_t patches = f.info->grid_height * f.info->grid_width, layers = f.info->layers, heads = f.info->heads;
    const vit_explain all = {VIT_ATTENTION_RAW, VIT_ALL, VIT_ALL}, last = {VIT_ATTENTION_RAW, VIT_LAYER_LAST, VIT_HEAD_MEAN};
    float *map = malloc(layers * heads * patches * sizeof *map), *mean = malloc(patches * sizeof *mean);
    float *wanted = malloc(patches * sizeof *wanted), *logits = malloc(f.info->classes * sizeof *logits);
    run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits, .explain = &all, .map = map});
    for (size_t i = 0; i < layers * heads; i++) {
        reference_map(&f, i / heads, i % heads, wanted);
        double error = largest_difference(map + i * patches, wanted, patches) / largest_value(wanted, patches);
        ck_assert_msg(error <= 1e-3, "%s: layer %zu head %zu differs by %g", f.path, i / heads, i % heads, error);
    }
    run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits, .explain = &last, .map = mean});
    for (size_t i = 0; i < patches; i++) {
        double sum = 0;
        for (size_t head = 0; head < heads; head++)
            sum += map[((layers - 1) * heads + head) * patches + i];
        ck_assert_double_eq_tol(mean[i], sum / (double)heads, 1e-6);
    }
    free(map);
    free(mean);
    free(wanted);
    free(logits);
    fixture_close(&f);
}
END_TEST

START_TEST(test_batch_is_bit_identical)
{
    struct fixture f;
    fixture_open(&f, folders[_i]);
    vit_error err;
    vit_session *session;
    const size_t n = f.info->classes, floats = 3 * f.info->image_height * f.info->image_width;
    const size_t patches = f.info->grid_height * f.info->grid_width;
    const vit_explain raw = {VIT_ATTENTION_RAW, 0, VIT_HEAD_MEAN};
    float *alone = malloc(n * sizeof *alone), *logits = malloc(BATCH * n * sizeof *logits);
    float *pixels = malloc(BATCH * floats * sizeof *pixels), *map = malloc(patches * sizeof *map);
    run_one(&f, &(vit_item){.pixels = f.pixels, .logits = alone});
    ck_assert_int_eq(vit_session_create(&session, f.model, BATCH, &err), VIT_OK);
    for (size_t count = 1; count <= BATCH; count++)
        for (size_t place = 0; place < count; place++) {
            vit_item items[BATCH] = {{0}};
            for (size_t i = 0; i < count; i++) {
                for (size_t j = 0; j < floats; j++) /* every other image of the batch is another one */
                    pixels[i * floats + j] = i == place ? f.pixels[j] : -f.pixels[(j * 7 + i) % floats];
                items[i] = (vit_item){.pixels = pixels + i * floats, .logits = logits + i * n};
            }
            items[0].explain = &raw;
            items[0].map = map;
            ck_assert_int_eq(vit_session_run(session, items, count, &err), VIT_OK);
            ck_assert_mem_eq(logits + place * n, alone, n * sizeof *alone);
        }
    vit_session_free(session);
    free(alone);
    free(logits);
    free(pixels);
    free(map);
    fixture_close(&f);
}
END_TEST

START_TEST(test_session_refuses_bad_arguments)
{
    struct fixture f;
    fixture_open(&f, "vit-hf");
    vit_error err = {""};
    vit_session *session = NULL;
    float logits[10], map[36];
    const vit_explain no_layer = {VIT_ATTENTION_RAW, 3, 0}, no_head = {VIT_ATTENTION_RAW, 0, 4};
    vit_item items[2] = {{.pixels = f.pixels, .logits = logits, .explain = &no_layer, .map = map}};
    ck_assert_int_eq(vit_session_create(&session, f.model, 0, &err), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_session_create(&session, f.model, 1, &err), VIT_OK);
    ck_assert_int_eq(vit_session_run(session, items, 1, &err), VIT_ERR_ARGUMENT);
    ck_assert_str_eq(err.message, "layer 3 does not exist: the model has layers 0 to 2");
    items[0].explain = &no_head;
    ck_assert_int_eq(vit_session_run(session, items, 1, &err), VIT_ERR_ARGUMENT);
    ck_assert_str_eq(err.message, "head 4 does not exist: the model has heads 0 to 3");
    ck_assert_int_eq(vit_session_run(session, items, 0, &err), VIT_ERR_ARGUMENT);
    ck_assert_int_eq(vit_session_run(session, items, 2, &err), VIT_ERR_ARGUMENT);
    vit_session_free(session);
    fixture_close(&f);
}
END_TEST

START_TEST(test_gemm_floor_counts_the_products)
{
    struct fixture f;
    fixture_open(&f, "vit-hf");
    vit_error err;
    vit_session *session;
    double flops, seconds;
    ck_assert_int_eq(vit_session_create(&session, f.model, 2, &err), VIT_OK);
    ck_assert_int_eq(vit_session_gemm_floor(session, 2, &flops, &seconds, &err), VIT_OK);
    const vit_model_info *i = f.info;
    double t = (double)i->tokens, c = (double)i->width, m = (double)i->mlp_width;
    double block = 2 * t * c * 3 * c + 4 * t * t * c + 2 * t * c * c + 4 * t * c * m;
    double wanted = 2 * (2 * 36 * 192 * c + 3 * block + 2 * c * 10);
    ck_assert_double_eq(flops, wanted);
    ck_assert(seconds > 0);
    vit_session_free(session);
    fixture_close(&f);
}
END_TEST

START_TEST(test_scores_and_top_k)
{
    const float logits[] = {1, 3, 2, 3, -1};
    float scores[5];
    size_t order[5];
    vit_scores(scores, logits, 5, VIT_SOFTMAX);
    double sum = 0;
    for (int i = 0; i < 5; i++)
        sum += scores[i];
    ck_assert_double_eq_tol(sum, 1, 1e-6);
    ck_assert_double_eq_tol(scores[1] / scores[0], exp(2), 1e-5);
    vit_scores(scores, logits, 5, VIT_SIGMOID);
    ck_assert_double_eq_tol(scores[4], 1 / (1 + exp(1)), 1e-7);
    for (size_t k = 1; k <= 5; k++) {
        const size_t wanted[] = {1, 3, 2, 0, 4};
        vit_top_k(order, logits, 5, k);
        ck_assert_mem_eq(order, wanted, k * sizeof *order);
    }
}
END_TEST

int main(void)
{
    vit_blas_init();
    Suite *suite = suite_create("model");
    TCase *tests = tcase_create("golden");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_preprocess_equals_reference, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_logits_equal_reference, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_raw_attention_equals_reference, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_batch_is_bit_identical, 0, FOLDER_COUNT);
    tcase_add_test(tests, test_session_refuses_bad_arguments);
    tcase_add_test(tests, test_gemm_floor_counts_the_products);
    tcase_add_test(tests, test_scores_and_top_k);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
