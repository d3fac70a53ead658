/* test_model.c - every golden folder against its reference, through the public API. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden.h"
#include "tests/suite.h"
#include "tests/turns.h"
#include "vit.h"

enum {
    RAW = 1 << VIT_ATTENTION_RAW,
    LEGRAD = 1 << VIT_ATTENTION_LEGRAD,
    ROLLOUT = 1 << VIT_ATTENTION_ROLLOUT,
    ALL = RAW | LEGRAD | ROLLOUT
};

/* What a folder's model can explain, and its expected.safetensors holds. */
static const struct {
    const char *name;
    unsigned explanations;
} folders[] = {
    {"vit-hf", ALL},
    {"vit-hf-f16", ALL},
    {"vit-hf-bf16", ALL},
    {"vit-timm", ALL},
    {"vit-timm-gap", RAW | LEGRAD},
    {"deit-hf", ALL},
    {"deit-distilled-hf", ALL},
    {"deit-distilled-timm", ALL},
    {"deit3-timm", ALL},
    {"vit-reg-timm", ALL},
    {"vit-swiglu-timm", ALL},
    {"vit-clip-timm", ALL},
    {"dinov2-hf", ALL},
    {"dinov2-swiglu-hf", ALL},
    {"t2t-vit-performer", ALL},
    {"t2t-vit-transformer", ALL},
    {"t2t-80", ALL},
    {"t2t-qkscale", ALL},
    {"deepvit", RAW | LEGRAD},
    {"deepvit-s", RAW | LEGRAD},
    {"deepvit-cnn", RAW | LEGRAD},
    {"hybrid-stem-timm", ALL},
    {"hybrid-resnet-timm", ALL},
    {"hybrid-r50-odd-timm", ALL},
    {"resnetv2-timm", 0},
    {"resnetv2-odd-timm", 0},
    {"swin-hf", RAW},
    {"swin-hf-pad", RAW},
    {"swin-timm", RAW},
    {"swin-pad-timm", RAW},
    {"mvitv2-timm", RAW},
    {"mvitv2-cls-timm", RAW},
    {"mvitv2-odd-timm", RAW},
    {"mvitv2-noexpand-timm", RAW},
};

enum { FOLDER_COUNT = sizeof folders / sizeof folders[0] };

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

/* The expectations and the picture are "<stem>.safetensors" and ".png", for "expected" "input.png". */
static void fixture_open_with(struct fixture *f, const char *name, const char *stem, const vit_options *options)
{
    vit_error err = {""};
    char path[600];
    const char *tests = getenv("VITD_TESTS");
    snprintf(f->path, sizeof f->path, "%s/golden/%s", tests != NULL ? tests : "tests", name);
    ck_assert_msg(vit_model_open(&f->model, f->path, options, &err) == VIT_OK, "%s", err.message);
    f->info = vit_model_describe(f->model);
    snprintf(path, sizeof path, "%s/%s.safetensors", f->path, stem);
    f->golden = golden_open(path);
    ck_assert_ptr_nonnull(f->golden);

    size_t length;
    vit_image image;
    snprintf(path, sizeof path, "%s/%s.png", f->path, strcmp(stem, "expected") == 0 ? "input" : stem);
    void *bytes = read_file(path, &length);
    ck_assert_msg(vit_image_decode(&image, bytes, length, 1 << 20, &err) == VIT_OK, "%s", err.message);
    f->pixels = malloc(3 * f->info->image_height * f->info->image_width * sizeof *f->pixels);
    ck_assert_msg(vit_preprocess_apply(f->info->preprocess, &image, f->pixels, &err) == VIT_OK, "%s", err.message);
    vit_image_release(&image);
    free(bytes);
}

static void fixture_open(struct fixture *f, const char *name)
{
    fixture_open_with(f, name, "expected", NULL);
}

static void fixture_open_as(struct fixture *f, const char *name, vit_dtype dtype)
{
    fixture_open_with(f, name, "expected", &(vit_options){.dtype = dtype});
    ck_assert_str_eq(f->info->dtype, vit_dtype_name(dtype));
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

static void check_preprocess(const struct fixture *f)
{
    const size_t count = 3 * f->info->image_height * f->info->image_width;
    double difference = largest_difference(f->pixels, expected(f, "pixel_values", count), count);
    ck_assert_msg(difference <= 1e-6, "%s: pixel_values differ by %g", f->path, difference);
}

START_TEST(test_preprocess_equals_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    check_preprocess(&f);
    fixture_close(&f);
}
END_TEST

static void check_logits(const struct fixture *f)
{
    const size_t n = f->info->classes;
    const float *wanted = expected(f, "logits", n);
    float *logits = calloc(n, sizeof *logits), *features = calloc(f->info->embedding_width, sizeof *features);
    run_one(f, &(vit_item){.pixels = f->pixels, .logits = logits, .features = features});
    double error = largest_difference(logits, wanted, n) / largest_value(wanted, n);
    ck_assert_msg(error <= 1e-4, "%s: logits differ by %g of the largest", f->path, error);

    vit_scores(logits, logits, n, VIT_SOFTMAX);
    ck_assert_double_le(largest_difference(logits, expected(f, "probs", n), n), 1e-4);
    size_t width;
    const float *golden_features = golden_get(f->golden, "features", "F32", &width);
    if (golden_features != NULL) {
        ck_assert_uint_eq(width, f->info->embedding_width);
        ck_assert_double_le(largest_difference(features, golden_features, width) /
                                largest_value(golden_features, width),
                            1e-4);
    }
    free(logits);
    free(features);
}

START_TEST(test_logits_equal_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    check_logits(&f);
    ck_assert_uint_eq(f.info->explanations, folders[_i].explanations);
    fixture_close(&f);
}
END_TEST

/* got and wanted [count] within 1e-3 of the largest wanted value. */
static void assert_map(const struct fixture *f, const char *what, const float *got, const float *wanted, size_t count)
{
    double error = largest_difference(got, wanted, count) / largest_value(wanted, count);
    ck_assert_msg(error <= 1e-3, "%s: %s differs by %g", f->path, what, error);
}

/* The reference's attention [NH, queries, keys] of a layer. */
static const float *reference_attention(const struct fixture *f, size_t layer, size_t *queries, size_t *keys)
{
    char name[32];
    size_t shape[3];
    snprintf(name, sizeof name, "attentions.%zu", layer);
    ck_assert_msg(golden_shape(f->golden, name, shape, 3) == 3, "%s: %s", f->path, name);
    ck_assert_uint_eq(shape[0], f->info->layer_info[layer].heads);
    *queries = shape[1];
    *keys = shape[2];
    return expected(f, name, shape[0] * shape[1] * shape[2]);
}

/* A side of Swin's grid, padded to whole windows and rolled: where a place of it comes from; -1: padding. */
static long window_source(size_t at, size_t length, size_t side, size_t shift, bool timm)
{
    const size_t padded = (length + side - 1) / side * side;
    if (timm) /* rolls before it pads */
        return at < length ? (long)((at + shift) % length) : -1;
    return (at + shift) % padded < length ? (long)((at + shift) % padded) : -1;
}

/* Odd blocks of a stage are shifted, unless the grid is one window; timm's idea of the grid rounds down. */
static size_t window_shift(const struct fixture *f, size_t layer, size_t side)
{
    const vit_layer_info *at = &f->info->layer_info[layer];
    size_t in_stage = 0, stage = 0, grid = f->info->layer_info[0].grid_height;
    for (size_t i = 1; i <= layer; i++) {
        const bool next = f->info->layer_info[i].width != f->info->layer_info[i - 1].width;
        in_stage = next ? 0 : in_stage + 1;
        stage += next;
    }
    grid = strcmp(f->info->layout, "timm") == 0 ? grid >> stage : at->grid_height;
    return in_stage % 2 == 1 && grid > side ? side / 2 : 0;
}

/* The reference's map [gh, gw] of windows' attention [windows, NH, n, n]: each key's share of its window's mean row. */
static void reference_window_map(const struct fixture *f, size_t layer, size_t head, float *map)
{
    char name[32];
    size_t shape[4];
    const vit_layer_info *at = &f->info->layer_info[layer];
    const bool timm = strcmp(f->info->layout, "timm") == 0;
    snprintf(name, sizeof name, "attentions.%zu", layer);
    ck_assert_uint_eq(golden_shape(f->golden, name, shape, 4), 4);
    const size_t n = shape[2], side = (size_t)lround(sqrt((double)n)), shift = window_shift(f, layer, side);
    const size_t across = (at->grid_width + side - 1) / side;
    const float *all = expected(f, name, shape[0] * at->heads * n * n);
    for (size_t window = 0; window < shape[0]; window++) {
        const float *attention = all + (window * at->heads + head) * n * n;
        long places[256];
        size_t queries = 0;
        for (size_t slot = 0; slot < n; slot++) {
            const long y = window_source(window / across * side + slot / side, at->grid_height, side, shift, timm);
            const long x = window_source(window % across * side + slot % side, at->grid_width, side, shift, timm);
            places[slot] = y >= 0 && x >= 0 ? y * (long)at->grid_width + x : -1;
            queries += places[slot] >= 0;
        }
        for (size_t key = 0; key < n; key++) {
            double sum = 0;
            for (size_t query = 0; query < n; query++)
                sum += places[query] >= 0 ? attention[query * n + key] : 0;
            if (places[key] >= 0)
                map[places[key]] = (float)(sum / (double)queries);
        }
    }
}

/* The reference's map for a layer and head: the class token's row, or the mean row without a class token. */
static void reference_map(const struct fixture *f, size_t layer, size_t head, float *map)
{
    const vit_model_info *info = f->info;
    const vit_layer_info *at = &info->layer_info[layer];
    if (strcmp(info->architecture, "swin") == 0) {
        reference_window_map(f, layer, head, map);
        return;
    }
    size_t all, keys;
    const float *attention = reference_attention(f, layer, &all, &keys);
    ck_assert_uint_eq(keys, info->prefix_tokens + at->grid_height * at->grid_width);
    attention += head * all * keys;
    const size_t queries = info->class_token ? 1 : all;
    for (size_t i = 0; i < keys - info->prefix_tokens; i++) {
        double sum = 0;
        for (size_t query = 0; query < queries; query++)
            sum += attention[query * keys + info->prefix_tokens + i];
        map[i] = (float)(sum / (double)queries);
    }
}

/* One layer's heads, and their mean. */
static void check_raw_layer(const struct fixture *f, size_t layer, bool by_default)
{
    const vit_layer_info *at = &f->info->layer_info[layer];
    const size_t patches = at->grid_height * at->grid_width, heads = at->heads;
    vit_explain explain = {.method = VIT_ATTENTION_RAW, .layer = by_default ? VIT_LAYER_DEFAULT : (int)layer,
                           .head = VIT_ALL};
    float *maps = malloc(heads * patches * sizeof *maps), *mean = malloc(patches * sizeof *mean);
    float *wanted = malloc(patches * sizeof *wanted), *logits = malloc(f->info->classes * sizeof *logits);
    run_one(f, &(vit_item){.pixels = f->pixels, .logits = logits, .explain = &explain, .map = maps});
    for (size_t head = 0; head < heads; head++) {
        char what[64];
        snprintf(what, sizeof what, "layer %zu head %zu", layer, head);
        reference_map(f, layer, head, wanted);
        assert_map(f, what, maps + head * patches, wanted, patches);
    }
    explain.head = VIT_HEAD_MEAN;
    run_one(f, &(vit_item){.pixels = f->pixels, .logits = logits, .explain = &explain, .map = mean});
    for (size_t i = 0; i < patches; i++) {
        double sum = 0;
        for (size_t head = 0; head < heads; head++)
            sum += maps[head * patches + i];
        ck_assert_double_eq_tol(mean[i], sum / (double)heads, 1e-6);
    }
    free(maps);
    free(mean);
    free(wanted);
    free(logits);
}

static void check_raw(const struct fixture *f)
{
    for (size_t layer = 0; layer < f->info->layers; layer++)
        check_raw_layer(f, layer, false);
    check_raw_layer(f, f->info->layers - 1, true);
}

START_TEST(test_raw_attention_equals_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    if (folders[_i].explanations & RAW)
        check_raw(&f);
    fixture_close(&f);
}
END_TEST

/* All layers and heads at once are what each is alone. */
START_TEST(test_raw_attention_of_all_layers)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    const vit_explain all = {.method = VIT_ATTENTION_RAW, .layer = VIT_ALL, .head = VIT_ALL};
    vit_map_shape shape;
    vit_error err;
    vit_status status = vit_explain_shape(f.model, &all, &shape, &err);
    if (status == VIT_OK) {
        const size_t layer_floats = shape.floats / shape.layers;
        float *maps = malloc(shape.floats * sizeof *maps), *one = malloc(layer_floats * sizeof *one);
        float *logits = malloc(f.info->classes * sizeof *logits);
        run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits, .explain = &all, .map = maps});
        for (size_t layer = 0; layer < f.info->layers; layer++) {
            const vit_explain explain = {.method = VIT_ATTENTION_RAW, .layer = (int)layer, .head = VIT_ALL};
            run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits, .explain = &explain, .map = one});
            ck_assert_mem_eq(maps + layer * layer_floats, one, layer_floats * sizeof *one);
        }
        free(maps);
        free(one);
        free(logits);
    } else {
        const char *name = f.info->architecture;
        ck_assert_int_eq(status, VIT_ERR_UNSUPPORTED);
        ck_assert(strcmp(name, "swin") == 0 || strcmp(name, "mvitv2") == 0 || strcmp(name, "resnetv2") == 0);
    }
    fixture_close(&f);
}
END_TEST

static void check_rollout(const struct fixture *f)
{
    const vit_explain explain = {.method = VIT_ATTENTION_ROLLOUT, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
    const size_t patches = f->info->grid_height * f->info->grid_width;
    float *map = malloc(patches * sizeof *map), *logits = malloc(f->info->classes * sizeof *logits);
    run_one(f, &(vit_item){.pixels = f->pixels, .logits = logits, .explain = &explain, .map = map});
    assert_map(f, "rollout", map, expected(f, "rollout", patches), patches);
    free(map);
    free(logits);
}

START_TEST(test_rollout_equals_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    if (folders[_i].explanations & ROLLOUT)
        check_rollout(&f);
    fixture_close(&f);
}
END_TEST

START_TEST(test_rollout_needs_a_class_token)
{
    struct fixture f;
    vit_error err;
    vit_map_shape shape;
    const vit_explain explain = {.method = VIT_ATTENTION_ROLLOUT, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
    fixture_open(&f, "vit-timm-gap");
    ck_assert_int_eq(vit_explain_shape(f.model, &explain, &shape, &err), VIT_ERR_UNSUPPORTED);
    ck_assert_str_eq(err.message,
                     "rollout is the class token's row, and this model has no class token: ask for raw or legrad");
    fixture_close(&f);
}
END_TEST

/* The sum of the last layers' maps, scaled to [0, 1]. */
static void reference_sum(const float *layers, size_t count, size_t patches, float *map)
{
    double low = INFINITY, high = -INFINITY;
    double *sum = calloc(patches, sizeof *sum);
    for (size_t i = 0; i < count * patches; i++)
        sum[i % patches] += layers[i];
    for (size_t i = 0; i < patches; i++) {
        low = fmin(low, sum[i]);
        high = fmax(high, sum[i]);
    }
    for (size_t i = 0; i < patches; i++)
        map[i] = (float)((sum[i] - low) / (high - low));
    free(sum);
}

static void check_legrad(const struct fixture *f)
{
    const size_t patches = f->info->grid_height * f->info->grid_width, layers = f->info->layers;
    const float *reference = expected(f, "legrad", layers * patches);
    vit_explain explain = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_ALL, .head = VIT_HEAD_MEAN};
    float *maps = malloc(layers * patches * sizeof *maps), *logits = malloc(f->info->classes * sizeof *logits);
    float *wanted = malloc(patches * sizeof *wanted);
    const vit_item item = {.pixels = f->pixels, .logits = logits, .explain = &explain, .map = maps};
    run_one(f, &item);
    for (size_t i = 0; i < layers; i++)
        assert_map(f, "legrad of a layer", maps + i * patches, reference + i * patches, patches);
    explain.layer = 1;
    run_one(f, &item);
    assert_map(f, "legrad of layer 1", maps, reference + patches, patches);
    explain.layer = VIT_LAYER_DEFAULT;
    run_one(f, &item);
    reference_sum(reference, layers, patches, wanted);
    assert_map(f, "legrad", maps, wanted, patches);
    explain.last_layers = 1;
    run_one(f, &item);
    reference_sum(reference + (layers - 1) * patches, 1, patches, wanted);
    assert_map(f, "legrad of the last layer", maps, wanted, patches);
    free(maps);
    free(logits);
    free(wanted);
}

START_TEST(test_legrad_equals_reference)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    if (folders[_i].explanations & LEGRAD)
        check_legrad(&f);
    fixture_close(&f);
}
END_TEST

/* Position embeddings interpolated to a larger input, as each layout's reference does it. */
START_TEST(test_larger_images_equal_reference)
{
    static const struct {
        const char *name;
        size_t image_size;
    } cases[] = {{"vit-timm", 96}, {"vit-hf", 72}};
    struct fixture f;
    fixture_open_with(&f, cases[_i].name, "larger", &(vit_options){.image_size = cases[_i].image_size});
    ck_assert_uint_eq(f.info->image_height, cases[_i].image_size);
    const size_t count = 3 * cases[_i].image_size * cases[_i].image_size;
    memcpy(f.pixels, expected(&f, "pixel_values", count), count * sizeof *f.pixels);
    check_logits(&f);
    check_raw(&f);
    check_rollout(&f);
    check_legrad(&f);
    fixture_close(&f);
}
END_TEST


/* Several targets give each what it gives alone, and the top class is the default. */
START_TEST(test_legrad_targets)
{
    struct fixture f;
    if (!(folders[_i].explanations & LEGRAD))
        return;
    fixture_open(&f, folders[_i].name);
    const size_t patches = f.info->grid_height * f.info->grid_width, last = f.info->classes - 1;
    float *maps = malloc(2 * patches * sizeof *maps), *map = malloc(patches * sizeof *map);
    float *logits = malloc(f.info->classes * sizeof *logits);
    size_t top;
    vit_explain explain = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN};
    vit_item item = {.pixels = f.pixels, .logits = logits, .explain = &explain, .map = map};
    run_one(&f, &item);
    vit_top_k(&top, logits, f.info->classes, 1);
    explain.target_count = 2;
    explain.targets[0] = top == last ? 0 : last;
    explain.targets[1] = top;
    item.map = maps;
    run_one(&f, &item);
    ck_assert_mem_eq(maps + patches, map, patches * sizeof *map);
    explain.target_count = 1;
    item.map = map;
    run_one(&f, &item);
    ck_assert_mem_eq(maps, map, patches * sizeof *map);
    ck_assert_mem_ne(maps, maps + patches, patches * sizeof *map);
    free(maps);
    free(map);
    free(logits);
    fixture_close(&f);
}
END_TEST

/* The distances by their definition, from the reference's attention probabilities. */
START_TEST(test_attention_distances)
{
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    const vit_model_info *info = f.info;
    if (!info->distances) {
        ck_assert_uint_ne(folders[_i].explanations, ALL);
        fixture_close(&f);
        return;
    }
    const size_t tokens = info->tokens, prefix = info->prefix_tokens, width = info->grid_width;
    float *distances = malloc(info->layers * info->heads * sizeof *distances);
    float *logits = malloc(info->classes * sizeof *logits);
    run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits, .distances = distances});
    for (size_t i = 0; i < info->layers * info->heads; i++) {
        char name[32];
        snprintf(name, sizeof name, "attentions.%zu", i / info->heads);
        const float *a = expected(&f, name, info->heads * tokens * tokens) + i % info->heads * tokens * tokens;
        double mean = 0;
        for (size_t q = prefix; q < tokens; q++) {
            double sum = 0, weighted = 0;
            for (size_t k = prefix; k < tokens; k++) {
                const double dy = (double)((q - prefix) / width) - (double)((k - prefix) / width);
                const double dx = (double)((q - prefix) % width) - (double)((k - prefix) % width);
                sum += a[q * tokens + k];
                weighted += a[q * tokens + k] * hypot(dy, dx) * (double)info->patch_size;
            }
            mean += weighted / sum / (double)(tokens - prefix);
        }
        ck_assert_double_eq_tol(distances[i], mean, 1e-3 * mean);
    }
    free(distances);
    free(logits);
    fixture_close(&f);
}
END_TEST

enum { KINDS = 6, MAP_FLOATS = 2048 };

/* What each place of a mixed batch asks for, where the model has it. */
static vit_item item_of_kind(size_t kind, const vit_model_info *info)
{
    static const vit_explain explanations[KINDS - 2] = {
        {.method = VIT_ATTENTION_RAW, .layer = 0, .head = VIT_HEAD_MEAN},
        {.method = VIT_ATTENTION_ROLLOUT, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN},
        {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN},
        {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN, .targets = {1},
         .target_count = 1},
    };
    vit_item item = {.logits = calloc(info->classes, sizeof(float)), .map = calloc(MAP_FLOATS, sizeof(float))};
    if (kind == KINDS - 1 && info->distances)
        item.distances = calloc(MAP_FLOATS, sizeof(float));
    else if (kind > 0 && kind < KINDS - 1 && info->explanations & 1u << explanations[kind - 1].method)
        item.explain = &explanations[kind - 1];
    return item;
}

static void free_item(vit_item *item)
{
    free(item->logits);
    free(item->map);
    free(item->distances);
}

enum { DTYPES = VIT_DTYPE_INT8 + 1 };

/* Under a sanitizer, which makes minutes of it, the other arithmetics are for some of the folders. */
static bool is_spared(int test)
{
    return getenv("VITD_SANITIZED") != NULL && test % DTYPES != VIT_DTYPE_FP32 && test / DTYPES % 6 != 0;
}

/* Images with and without explanations of every kind, in every order of one batch: each result, scores and map, is
 * bit for bit what the image gives alone without and with its explanation. In each arithmetic, and
 * whoever computes what. */
START_TEST(test_mixed_batch_is_bit_identical)
{
    struct fixture f;
    if (is_spared(_i))
        return;
    fixture_open_as(&f, folders[_i / DTYPES].name, (vit_dtype)(_i % DTYPES));
    vit_error err;
    vit_session *session;
    const size_t n = f.info->classes, floats = 3 * f.info->image_height * f.info->image_width;
    float *others = malloc(floats * sizeof *others);
    for (size_t j = 0; j < floats; j++)
        others[j] = -f.pixels[(j * 7 + 5) % floats];
    vit_item alone[KINDS], plain = item_of_kind(0, f.info);
    plain.pixels = f.pixels;
    run_one(&f, &plain);
    for (size_t kind = 0; kind < KINDS; kind++) {
        alone[kind] = item_of_kind(kind, f.info);
        alone[kind].pixels = f.pixels;
        run_one(&f, &alone[kind]);
        ck_assert_mem_eq(alone[kind].logits, plain.logits, n * sizeof(float));
    }
    struct turns turns;
    turns_init(&turns, vit_model_scratch(f.model));
    ck_assert_int_eq(vit_session_create(&session, f.model, KINDS + 2, &err), VIT_OK);
    for (size_t count = 1; count <= KINDS + 2; count++)
        for (size_t shift = 0; shift < KINDS; shift++) {
            vit_item items[KINDS + 2];
            vit_session_set_team(session, count % 2 ? &turns.team : NULL);
            for (size_t i = 0; i < count; i++) {
                const size_t kind = (i + shift) % KINDS;
                items[i] = item_of_kind(kind, f.info);
                items[i].pixels = i % 2 == shift % 2 ? f.pixels : others;
            }
            ck_assert_int_eq(vit_session_run(session, items, count, &err), VIT_OK);
            for (size_t i = 0; i < count; i++) {
                const vit_item *wanted = &alone[(i + shift) % KINDS];
                if (items[i].pixels == f.pixels) {
                    ck_assert_mem_eq(items[i].logits, wanted->logits, n * sizeof(float));
                    ck_assert_mem_eq(items[i].map, wanted->map, MAP_FLOATS * sizeof(float));
                    if (wanted->distances != NULL)
                        ck_assert_mem_eq(items[i].distances, wanted->distances, MAP_FLOATS * sizeof(float));
                }
                free_item(&items[i]);
            }
        }
    vit_session_free(session);
    turns_release(&turns);
    for (size_t kind = 0; kind < KINDS; kind++)
        free_item(&alone[kind]);
    free_item(&plain);
    free(others);
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
    const vit_explain no_layer = {.method = VIT_ATTENTION_RAW, .layer = 3}, no_head = {.method = VIT_ATTENTION_RAW, .head = 4};
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

/* bf16 and int8 lose digits, and no more than digits: random weights are the worst that can happen to them. */
START_TEST(test_dtypes_are_near_fp32)
{
    static const double bounds[DTYPES] = {0, 0.06, 0.12};
    struct fixture f;
    fixture_open(&f, folders[_i].name);
    const size_t n = f.info->classes;
    float *logits = malloc(2 * n * sizeof *logits);
    run_one(&f, &(vit_item){.pixels = f.pixels, .logits = logits});
    for (int dtype = VIT_DTYPE_BF16; dtype < DTYPES; dtype++) {
        struct fixture other;
        double largest = 0, difference = 0;
        fixture_open_as(&other, folders[_i].name, (vit_dtype)dtype);
        run_one(&other, &(vit_item){.pixels = f.pixels, .logits = logits + n});
        for (size_t i = 0; i < n; i++) {
            largest = fmax(largest, fabs((double)logits[i]));
            difference = fmax(difference, fabs((double)logits[i] - (double)logits[n + i]));
        }
        ck_assert_double_gt(difference, 0); /* it is another arithmetic */
        ck_assert_msg(difference <= bounds[dtype] * largest, "%s in %s: off by %g of the largest logit", folders[_i].name,
                      other.info->dtype, difference / largest);
        fixture_close(&other);
    }
    free(logits);
    fixture_close(&f);
}
END_TEST

/* Infinite pixels, between two sound images; merely huge ones survive the generic table, which sums in double. */
START_TEST(test_overflowing_image_fails_alone)
{
    enum { COUNT = 3 };
    struct fixture f;
    fixture_open_as(&f, folders[_i / DTYPES].name, (vit_dtype)(_i % DTYPES));
    vit_error err = {""};
    vit_session *session = NULL;
    const size_t n = f.info->classes, floats = 3 * f.info->image_height * f.info->image_width;
    float *huge = malloc(floats * sizeof *huge), *logits = malloc((COUNT + 1) * n * sizeof *logits);
    vit_status statuses[COUNT] = {VIT_ERR_IO, VIT_ERR_IO, VIT_ERR_IO};
    vit_item items[COUNT], alone = {.pixels = f.pixels, .logits = logits + COUNT * n};
    for (size_t j = 0; j < floats; j++)
        huge[j] = j % 2 == 0 ? INFINITY : -INFINITY;
    for (size_t i = 0; i < COUNT; i++)
        items[i] = (vit_item){.pixels = i == 1 ? huge : f.pixels, .logits = logits + i * n, .status = &statuses[i]};
    run_one(&f, &alone);
    ck_assert_int_eq(vit_session_create(&session, f.model, COUNT, &err), VIT_OK);
    ck_assert_int_eq(vit_session_run(session, items, COUNT, &err), VIT_ERR_FORMAT);
    ck_assert_str_eq(err.message, "the model's weights give a logit that is not finite");
    ck_assert_int_eq(statuses[0], VIT_OK);
    ck_assert_int_eq(statuses[1], VIT_ERR_FORMAT);
    ck_assert_int_eq(statuses[2], VIT_OK);
    ck_assert_mem_eq(items[0].logits, alone.logits, n * sizeof(float));
    ck_assert_mem_eq(items[2].logits, alone.logits, n * sizeof(float));
    items[2].distances = logits;
    items[2].explain = &(vit_explain){.method = VIT_ATTENTION_RAW};
    ck_assert_int_eq(vit_session_run(session, items, COUNT, &err), VIT_ERR_ARGUMENT);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_int_eq(statuses[i], VIT_ERR_ARGUMENT);
    vit_session_free(session);
    free(huge);
    free(logits);
    fixture_close(&f);
}
END_TEST

START_TEST(test_profile_counts_the_products)
{
    struct fixture f;
    fixture_open(&f, "vit-hf");
    vit_error err;
    vit_session *session;
    double flops, seconds[VIT_STAGE_COUNT], whole = 0;
    ck_assert_int_eq(vit_session_create(&session, f.model, 2, &err), VIT_OK);
    ck_assert_int_eq(vit_session_profile(session, 2, &flops, seconds, &err), VIT_OK);
    const vit_model_info *info = f.info;
    double t = (double)info->tokens, c = (double)info->width, m = (double)info->mlp_width;
    double block = 2 * t * c * 3 * c + 4 * t * t * c + 2 * t * c * c + 4 * t * c * m;
    double last = 2 * t * c * 2 * c + 2 * c * c + 4 * t * c + 2 * c * c + 4 * c * m; /* for the class token alone */
    double wanted = 2 * (2 * 36 * 192 * c + 2 * block + last + 2 * c * 10);
    ck_assert_double_eq(flops, wanted);
    for (int i = 0; i < VIT_STAGE_COUNT; i++) {
        ck_assert_double_ge(seconds[i], 0);
        whole += seconds[i];
        ck_assert_ptr_nonnull(vit_stage_name((vit_stage)i));
    }
    ck_assert_double_gt(seconds[VIT_STAGE_GEMM], 0);
    ck_assert_double_gt(seconds[VIT_STAGE_SOFTMAX], 0);
    ck_assert_double_lt(seconds[VIT_STAGE_GEMM], whole);
    flops = 0;
    ck_assert_int_eq(vit_session_profile(session, 2, &flops, NULL, &err), VIT_OK);
    ck_assert_double_eq(flops, wanted);
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
    tcase_add_loop_test(tests, test_raw_attention_of_all_layers, 0, FOLDER_COUNT);
    tcase_add_test(tests, test_rollout_needs_a_class_token);
    tcase_add_loop_test(tests, test_larger_images_equal_reference, 0, 2);
    tcase_add_loop_test(tests, test_rollout_equals_reference, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_legrad_equals_reference, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_legrad_targets, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_attention_distances, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_mixed_batch_is_bit_identical, 0, DTYPES *FOLDER_COUNT);
    tcase_add_loop_test(tests, test_dtypes_are_near_fp32, 0, FOLDER_COUNT);
    tcase_add_loop_test(tests, test_overflowing_image_fails_alone, 0, DTYPES *FOLDER_COUNT);
    tcase_add_test(tests, test_session_refuses_bad_arguments);
    tcase_add_test(tests, test_profile_counts_the_products);
    tcase_add_test(tests, test_scores_and_top_k);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
