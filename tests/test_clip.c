/*
 * test_clip.c - CLIP: embeddings, logits and LeGrad against transformers (../shared/golden/clip-hf, where it is there)
 * and against the definition (plain_clip.c) on a tiny model with random weights; the causal mask on every table of
 * products; texts in batches; folders that are refused.
 */
#include <cjson/cJSON.h>
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/arch/text_tower.h"
#include "engine/math/cpu.h"
#include "engine/model/session.h"
#include "tests/folders.h"
#include "tests/golden.h"
#include "tests/photos.h"
#include "tests/plain_clip.h"
#include "tests/suite.h"
#include "tests/tiny_clip.h"
#include "tests/turns.h"
#include "vit.h"

enum { DTYPES = VIT_DTYPE_INT8 + 1, MAX_EMBEDDING = 64 };

/* A model, opened, and a session of it. */
struct fixture {
    char folder[512];
    vit_model *model;
    const vit_model_info *info;
    vit_session *session;
};

static void fixture_open(struct fixture *f, const char *folder, const vit_options *options, size_t max_batch)
{
    vit_error err = {""};
    snprintf(f->folder, sizeof f->folder, "%s", folder);
    ck_assert_msg(vit_model_open(&f->model, folder, options, &err) == VIT_OK, "%s", err.message);
    f->info = vit_model_describe(f->model);
    ck_assert_uint_le(f->info->embedding_width, MAX_EMBEDDING);
    ck_assert_msg(vit_session_create(&f->session, f->model, max_batch, &err) == VIT_OK, "%s", err.message);
}

static void fixture_close(struct fixture *f)
{
    vit_session_free(f->session);
    vit_model_free(f->model);
}

/* The tiny model in a folder of its own. */
static void tiny_open(struct fixture *f, const vit_options *options, size_t max_batch)
{
    char folder[FOLDER_BYTES];
    folder_make(folder);
    tiny_clip_write(folder);
    fixture_open(f, folder, options, max_batch);
}

static void tiny_close(struct fixture *f)
{
    fixture_close(f);
    folder_remove(f->folder);
}

static void encode(const struct fixture *f, const char *const *texts, size_t count, float *embeddings)
{
    vit_error err = {""};
    ck_assert_msg(vit_session_encode_texts(f->session, texts, count, embeddings, NULL, &err) == VIT_OK, "%s",
                  err.message);
}

static void embed_image(const struct fixture *f, const float *pixels, float *embedding)
{
    vit_error err = {""};
    const vit_item item = {.pixels = pixels, .features = embedding};
    ck_assert_msg(vit_session_run(f->session, &item, 1, &err) == VIT_OK, "%s", err.message);
}

static double largest_value(const float *a, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)a[i]));
    return largest;
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)a[i] - b[i]));
    return largest;
}

static void assert_near(const char *what, const float *got, const float *wanted, size_t n, double tolerance)
{
    const double error = largest_difference(got, wanted, n) / largest_value(wanted, n);
    ck_assert_msg(error <= tolerance, "%s: off by %g of the largest", what, error);
}

static void assert_plain(const char *what, const float *got, const double *wanted, size_t n, double tolerance)
{
    float rounded[MAX_EMBEDDING];
    for (size_t i = 0; i < n; i++)
        rounded[i] = (float)wanted[i];
    assert_near(what, got, rounded, n, tolerance);
}

static void fill(float *values, size_t count, unsigned seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)(seed >> 8) / (1 << 23) - 1;
    }
}

/* ---- transformers ---- */

/* The golden folder; false, with a line, where it is not there. */
static bool golden_folder(char path[512])
{
    snprintf(path, 512, "%s/golden/clip-hf", shared_folder());
    if (access(path, R_OK) == 0)
        return true;
    printf("skipped: there is no %s\n", path);
    return false;
}

/* What transformers gave for the golden folder's picture and prompts. */
struct truth {
    struct golden *expected;
    cJSON *tokens;
    size_t prompts;
    const char *texts[16];
    float *pixels;
};

static const float *expected(const struct truth *truth, const char *name, size_t count)
{
    size_t found;
    const float *values = golden_get(truth->expected, name, "F32", &found);
    ck_assert_msg(values != NULL && found == count, "%s", name);
    return values;
}

static char *read_text(const char *folder, const char *name, size_t *length)
{
    char path[600], *bytes = malloc(1 << 20);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    *length = fread(bytes, 1, (1 << 20) - 1, file);
    bytes[*length] = '\0';
    fclose(file);
    return bytes;
}

static void truth_open(struct truth *truth, const struct fixture *f)
{
    char path[600];
    size_t length;
    vit_image image;
    vit_error err = {""};
    snprintf(path, sizeof path, "%s/expected.safetensors", f->folder);
    truth->expected = golden_open(path);
    ck_assert_ptr_nonnull(truth->expected);
    char *text = read_text(f->folder, "tokens.json", &length);
    truth->tokens = cJSON_Parse(text);
    truth->prompts = 0;
    const cJSON *prompt;
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(truth->tokens, "prompts"))
        truth->texts[truth->prompts++] = cJSON_GetStringValue(cJSON_GetObjectItem(prompt, "text"));
    free(text);
    char *bytes = read_text(f->folder, "input.png", &length);
    ck_assert_msg(vit_image_decode(&image, (const uint8_t *)bytes, length, 1 << 20, &err) == VIT_OK, "%s", err.message);
    truth->pixels = malloc(3 * f->info->image_height * f->info->image_width * sizeof *truth->pixels);
    ck_assert_int_eq(vit_preprocess_apply(f->info->preprocess, &image, truth->pixels, &err), VIT_OK);
    vit_image_release(&image);
    free(bytes);
}

static void truth_close(struct truth *truth)
{
    golden_free(truth->expected);
    cJSON_Delete(truth->tokens);
    free(truth->pixels);
}

START_TEST(test_golden_embeddings_and_logits)
{
    static const double bounds[DTYPES] = {1e-4, 0.06, 0.12};
    char path[512];
    struct fixture f;
    struct truth truth;
    if (!golden_folder(path))
        return;
    fixture_open(&f, path, &(vit_options){.dtype = (vit_dtype)_i}, 1);
    truth_open(&truth, &f);
    const size_t width = f.info->embedding_width, count = truth.prompts;
    float image[MAX_EMBEDDING], *texts = malloc(count * width * sizeof *texts), logits[16];
    assert_near("pixel_values", truth.pixels, expected(&truth, "pixel_values", 3 * 48 * 48), 3 * 48 * 48, 1e-6);
    embed_image(&f, truth.pixels, image);
    encode(&f, truth.texts, count, texts);
    vit_text_logits(f.model, image, texts, count, logits);
    assert_near("image_embeds", image, expected(&truth, "image_embeds", width), width, bounds[_i]);
    assert_near("text_embeds", texts, expected(&truth, "text_embeds", count * width), count * width, bounds[_i]);
    assert_near("logits", logits, expected(&truth, "logits", count), count, bounds[_i]);
    vit_scores(logits, logits, count, VIT_SOFTMAX);
    assert_near("probs", logits, expected(&truth, "probs", count), count, _i == VIT_DTYPE_FP32 ? 1e-4 : 0.5);
    free(texts);
    truth_close(&truth);
    fixture_close(&f);
}
END_TEST

/* Each prompt's map, layer by layer, as transformers' autograd gives it; and raw attention. */
START_TEST(test_golden_explanations)
{
    char path[512];
    struct fixture f;
    struct truth truth;
    if (!golden_folder(path))
        return;
    fixture_open(&f, path, NULL, 1);
    truth_open(&truth, &f);
    const vit_model_info *info = f.info;
    const size_t patches = info->grid_height * info->grid_width, tokens = info->tokens, count = truth.prompts;
    float *texts = malloc(count * info->embedding_width * sizeof *texts), embedding[MAX_EMBEDDING];
    float *maps = malloc(count * info->layers * patches * sizeof *maps);
    vit_error err = {""};
    encode(&f, truth.texts, count, texts);
    const vit_explain legrad = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_ALL, .head = VIT_HEAD_MEAN,
                                .target_count = count, .target_vectors = texts};
    vit_item item = {.pixels = truth.pixels, .features = embedding, .explain = &legrad, .map = maps};
    ck_assert_msg(vit_session_run(f.session, &item, 1, &err) == VIT_OK, "%s", err.message);
    const float *wanted = expected(&truth, "legrad", count * info->layers * patches);
    for (size_t i = 0; i < count * info->layers; i++)
        assert_near("legrad", maps + i * patches, wanted + i * patches, patches, 1e-3);

    const vit_explain raw = {.method = VIT_ATTENTION_RAW, .layer = VIT_ALL, .head = VIT_ALL};
    float *heads = malloc(info->layers * info->heads * patches * sizeof *heads);
    item.explain = &raw;
    item.map = heads;
    ck_assert_msg(vit_session_run(f.session, &item, 1, &err) == VIT_OK, "%s", err.message);
    for (size_t i = 0; i < info->layers * info->heads; i++) {
        char name[32];
        snprintf(name, sizeof name, "attentions.%zu", i / info->heads);
        const float *attention = expected(&truth, name, info->heads * tokens * tokens);
        assert_near("raw", heads + i * patches, attention + i % info->heads * tokens * tokens + 1, patches, 1e-3);
    }
    free(heads);
    free(maps);
    free(texts);
    truth_close(&truth);
    fixture_close(&f);
}
END_TEST

/* ---- the definition ---- */

static const char *const few_texts[] = {"cat", "a dog and a cat", "x", "dog!",
                                        "the quick brown fox, and more than it reads", "do", "and and and"};

enum { FEW = sizeof few_texts / sizeof few_texts[0] };

static struct golden *tensors_of(const struct fixture *f)
{
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", f->folder);
    struct golden *tensors = golden_open(path);
    ck_assert_ptr_nonnull(tensors);
    return tensors;
}

START_TEST(test_texts_equal_definition)
{
    static const double bounds[DTYPES] = {1e-5, 0.06, 0.12};
    struct fixture f;
    float embeddings[FEW * TINY_EMBEDDING];
    double wanted[TINY_EMBEDDING];
    vit_error err = {""};
    tiny_open(&f, &(vit_options){.dtype = (vit_dtype)_i}, 1);
    struct golden *tensors = tensors_of(&f);
    encode(&f, few_texts, FEW, embeddings);
    for (size_t i = 0; i < FEW; i++) {
        int32_t ids[TINY_CONTEXT];
        size_t count;
        ck_assert_int_eq(tokenizer_encode(f.model->tokenizer, few_texts[i], strlen(few_texts[i]), ids, TINY_CONTEXT,
                                          &count, &err), VIT_OK);
        ck_assert_int_eq(ids[count - 1], TINY_VOCABULARY - 1);
        ck_assert_uint_eq(count == TINY_CONTEXT, i == 4); /* cut off */
        plain_clip_text(wanted, tensors, TINY_TEXT_HEADS, true, ids, count);
        assert_plain(few_texts[i], embeddings + i * TINY_EMBEDDING, wanted, TINY_EMBEDDING, bounds[_i]);
    }
    golden_free(tensors);
    tiny_close(&f);
}
END_TEST

START_TEST(test_image_equals_definition)
{
    static const double bounds[DTYPES] = {1e-5, 0.06, 0.12};
    struct fixture f;
    float pixels[3 * TINY_IMAGE * TINY_IMAGE], embedding[TINY_EMBEDDING];
    double wanted[TINY_EMBEDDING], square = 0;
    tiny_open(&f, &(vit_options){.dtype = (vit_dtype)_i}, 1);
    struct golden *tensors = tensors_of(&f);
    fill(pixels, 3 * TINY_IMAGE * TINY_IMAGE, 5);
    embed_image(&f, pixels, embedding);
    plain_clip_image(wanted, tensors, TINY_HEADS, false, pixels, TINY_IMAGE);
    assert_plain("image", embedding, wanted, TINY_EMBEDDING, bounds[_i]);
    for (size_t i = 0; i < TINY_EMBEDDING; i++)
        square += (double)embedding[i] * embedding[i];
    ck_assert_double_eq_tol(square, 1, 1e-6);
    golden_free(tensors);
    tiny_close(&f);
}
END_TEST

START_TEST(test_logits_are_scaled_products)
{
    struct fixture f;
    float image[TINY_EMBEDDING], texts[5 * TINY_EMBEDDING], logits[5];
    tiny_open(&f, NULL, 1);
    fill(image, TINY_EMBEDDING, 1);
    fill(texts, 5 * TINY_EMBEDDING, 2);
    vit_text_logits(f.model, image, texts, 5, logits);
    for (size_t i = 0; i < 5; i++) {
        double dot = 0;
        for (size_t c = 0; c < TINY_EMBEDDING; c++)
            dot += (double)image[c] * texts[i * TINY_EMBEDDING + c];
        ck_assert_double_eq_tol(logits[i], exp(3) * dot, 1e-4);
    }
    ck_assert_double_eq_tol(f.info->logit_scale, exp(3), 1e-5);
    tiny_close(&f);
}
END_TEST

START_TEST(test_describes_both_towers)
{
    struct fixture f;
    tiny_open(&f, NULL, 1);
    ck_assert(f.info->text);
    ck_assert_str_eq(f.info->architecture, "clip");
    ck_assert_str_eq(f.info->activation, "gelu");
    ck_assert_uint_eq(f.info->classes, 0);
    ck_assert_uint_eq(f.info->embedding_width, TINY_EMBEDDING);
    ck_assert_uint_eq(f.info->context_length, TINY_CONTEXT);
    ck_assert_uint_eq(f.info->vocabulary, TINY_VOCABULARY);
    ck_assert_uint_eq(f.info->text_layers, TINY_LAYERS);
    ck_assert_uint_eq(f.info->text_width, TINY_TEXT_WIDTH);
    ck_assert_uint_eq(f.info->text_heads, TINY_TEXT_HEADS);
    ck_assert_uint_eq(f.info->heads, TINY_HEADS);
    ck_assert_uint_eq(f.info->tokens, 17);
    ck_assert_uint_eq(f.info->explanations,
                      1u << VIT_ATTENTION_RAW | 1u << VIT_ATTENTION_ROLLOUT | 1u << VIT_ATTENTION_LEGRAD);
    ck_assert_str_eq(vit_model_label(f.model, 0), "");
    size_t index;
    vit_error err = {""};
    ck_assert_int_eq(vit_model_find_class(f.model, "0", &index, &err), VIT_ERR_ARGUMENT);
    ck_assert_str_eq(err.message, "this model (architecture clip) has no classes of its own");
    tiny_close(&f);
}
END_TEST

/* ---- the causal mask ---- */

enum { TOKENS = 300, HEADS = 3, WIDTH = 24, LONGEST = 130 };

static const size_t starts[] = {0, 1, 3, 10, 27, 104, 234, 235, 300}; /* 1, 2, 7, 17, 77, 130, 1 and 65 tokens */

enum { SEQUENCES = sizeof starts / sizeof starts[0] - 1 };

/* out of queries first .. first + count - 1 of the tokens from `start` on */
static void check_causal(const float *out, const float *qkv, size_t start, size_t first, size_t count, double tolerance)
{
    double *exact = malloc(TOKENS * 3 * WIDTH * sizeof *exact), wanted[WIDTH];
    for (size_t i = 0; i < TOKENS * 3 * WIDTH; i++)
        exact[i] = qkv[i];
    for (size_t query = first; query < first + count; query++) {
        plain_attention(wanted, exact + start * 3 * WIDTH, query, query + 1, WIDTH, HEADS, 0.5);
        for (size_t c = 0; c < WIDTH; c++)
            ck_assert_double_eq_tol(out[(start + query) * WIDTH + c], wanted[c], tolerance);
    }
    free(exact);
}

/* All tokens as one text, in several tiles, and as several texts; alone and by a team, whole and their ends. */
static void check_attention(const struct attention *attention, const struct kernels *kernels, const float *qkv,
                            double tolerance)
{
    float *out = calloc(TOKENS * WIDTH, sizeof *out), *shared = calloc(TOKENS * WIDTH, sizeof *shared);
    float *memory = aligned_alloc(64, attention_floats(attention, TOKENS, WIDTH) / 16 * 64 + 64);
    const size_t one = attention_scratch(attention, TOKENS, WIDTH);
    const size_t several = attention_sequence_scratch(attention, LONGEST, WIDTH);
    struct sequences sequences = {SEQUENCES, starts, false};
    struct turns turns;
    turns_init(&turns, (one > several ? one : several) * sizeof(float));
    struct compute compute = {.kernels = kernels, .scratch = turns.scratch[0]};
    ck_assert_uint_lt(attention_rows(attention, TOKENS), TOKENS);
    attention_forward(attention, &compute, memory, out, qkv, TOKENS, TOKENS, WIDTH, 0, NULL);
    check_causal(out, qkv, 0, 0, TOKENS, tolerance);
    attention_sequences(attention, &compute, out, qkv, &sequences, WIDTH);
    for (size_t i = 0; i < SEQUENCES; i++)
        check_causal(out, qkv, starts[i], 0, starts[i + 1] - starts[i], tolerance);
    compute.team = &turns.team;
    attention_sequences(attention, &compute, shared, qkv, &sequences, WIDTH);
    ck_assert_mem_eq(out, shared, TOKENS * WIDTH * sizeof *out);
    memset(shared, 0, TOKENS * WIDTH * sizeof *shared);
    sequences.ends_only = true;
    attention_sequences(attention, &compute, shared, qkv, &sequences, WIDTH);
    for (size_t i = 0; i < SEQUENCES; i++)
        check_causal(shared, qkv, starts[i], starts[i + 1] - starts[i] - 1, 1, tolerance);
    turns_release(&turns);
    free(memory);
    free(out);
    free(shared);
}

START_TEST(test_causal_attention)
{
    const struct products *tables[2 * MAX_PRODUCTS + 1] = {NULL}; /* OpenBLAS first */
    const struct kernels *kernels[3];
    const size_t exact = 1 + products_available(tables + 1, VIT_DTYPE_FP32);
    const size_t count = exact + products_available(tables + exact,
                                                    VIT_DTYPE_BF16), kernel_count = kernels_available(kernels);
    float *qkv = malloc(TOKENS * 3 * WIDTH * sizeof *qkv);
    fill(qkv, TOKENS * 3 * WIDTH, 9);
    for (size_t i = 0; i < count * kernel_count; i++) {
        const struct attention attention = {.heads = HEADS, .scale = 0.5f, .causal = true,
                                            .products = tables[i % count]};
        check_attention(&attention, kernels[i / count], qkv, i % count < exact ? 1e-5 : 2e-2);
    }
    free(qkv);
}
END_TEST

/* ---- batches ---- */

enum { MANY = 1500, MAX_TEXT = 64 };

/* Texts of 1 to about 25 tokens between start and end. */
static void write_texts(char (*texts)[MAX_TEXT], const char **pointers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const size_t letters = 1 + i * 7 % 25;
        for (size_t j = 0; j < letters; j++)
            texts[i][j] = (char)('a' + (i * 31 + j * 17 + j * j) % 26);
        texts[i][letters] = '\0';
        pointers[i] = texts[i];
    }
}

/* Many texts together, more than a chunk holds, each to the bit as it is alone, whoever computes what. */
START_TEST(test_text_is_bit_identical_in_any_batch)
{
    struct fixture f;
    static char texts[MANY][MAX_TEXT];
    const char *pointers[MANY];
    float *all = malloc(MANY * TINY_EMBEDDING * sizeof *all), *some = malloc(MANY * TINY_EMBEDDING * sizeof *some);
    float alone[TINY_EMBEDDING];
    struct turns turns;
    tiny_open(&f, &(vit_options){.dtype = (vit_dtype)_i}, 1);
    write_texts(texts, pointers, MANY);
    turns_init(&turns, vit_model_scratch(f.model));
    const size_t bytes = vit_session_bytes(f.session);
    encode(&f, pointers, MANY, all);
    for (size_t i = 0; i < MANY; i += 61) {
        encode(&f, &pointers[i], 1, alone);
        ck_assert_mem_eq(alone, all + i * TINY_EMBEDDING, sizeof alone);
    }
    vit_session_set_team(f.session, &turns.team);
    encode(&f, pointers + 3, MANY - 3, some);
    ck_assert_uint_gt(turns.calls, TEAM);
    ck_assert_mem_eq(some, all + 3 * TINY_EMBEDDING, (MANY - 3) * TINY_EMBEDDING * sizeof *some);
    ck_assert_mem_ne(some, all, TINY_EMBEDDING * sizeof *some);
    ck_assert_uint_eq(vit_session_bytes(f.session), bytes);
    vit_session_set_team(f.session, NULL);
    turns_release(&turns);
    free(all);
    free(some);
    tiny_close(&f);
}
END_TEST

static const float *get(struct golden *tensors, const char *name)
{
    size_t count;
    const float *values = golden_get(tensors, name, "F32", &count);
    ck_assert_msg(values != NULL, "%s", name);
    return values;
}

static const float *get_of_layer(struct golden *tensors, size_t layer, const char *name)
{
    char whole[128];
    snprintf(whole, sizeof whole, "text_model.encoder.layers.%zu.%s", layer, name);
    return get(tensors, whole);
}

static struct linear linear_of(const float *weight, const float *bias, size_t out, size_t in)
{
    return (struct linear){.weight = weight, .bias = bias, .in = in, .out = out};
}

static struct linear linear_of_layer(struct golden *tensors, size_t layer, const char *name, size_t out, size_t in)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    return linear_of(get_of_layer(tensors, layer, weight), get_of_layer(tensors, layer, bias), out, in);
}

/* A block of the tiny text tower whose weights are not packed; its qkv is the caller's to free. */
static struct block unpacked_block(struct golden *tensors, size_t layer)
{
    static const char *const projections[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    enum { C = TINY_TEXT_WIDTH, M = TINY_TEXT_MLP };
    float *qkv = malloc(3 * (C * C + C) * sizeof *qkv), *bias = qkv + 3 * C * C;
    for (size_t i = 0; i < 3; i++) {
        const struct linear part = linear_of_layer(tensors, layer, projections[i], C, C);
        memcpy(qkv + i * C * C, part.weight, C * C * sizeof *qkv);
        memcpy(bias + i * C, part.bias, C * sizeof *qkv);
    }
    return (struct block){
        .norm1 = {get_of_layer(tensors, layer, "layer_norm1.weight"), get_of_layer(tensors, layer, "layer_norm1.bias"),
                  1e-5f},
        .norm2 = {get_of_layer(tensors, layer, "layer_norm2.weight"), get_of_layer(tensors, layer, "layer_norm2.bias"),
                  1e-5f},
        .qkv = linear_of(qkv, bias, 3 * C, C),
        .attention = {.heads = TINY_TEXT_HEADS, .scale = 0.25f, .causal = true},
        .proj = linear_of_layer(tensors, layer, "self_attn.out_proj", C, C),
        .mlp = {.fc1 = linear_of_layer(tensors, layer, "mlp.fc1", M, C),
                .fc2 = linear_of_layer(tensors, layer, "mlp.fc2", C, M),
                .activation = ACTIVATION_GELU_QUICK},
    };
}

/* On a CPU without products of our own OpenBLAS has every text's to itself. */
START_TEST(test_text_tower_on_openblas)
{
    static const size_t text_starts[] = {0, 4, 7, 27};
    struct fixture f;
    int32_t ids[27];
    float together[3][TINY_EMBEDDING], alone[TINY_EMBEDDING], *embeddings[] = {together[0], together[1], together[2]};
    double wanted[TINY_EMBEDDING];
    tiny_open(&f, NULL, 1);
    struct golden *tensors = tensors_of(&f);
    struct block tower_blocks[TINY_LAYERS];
    struct text_tower tower = {
        .vocabulary = TINY_VOCABULARY, .context = TINY_CONTEXT, .width = TINY_TEXT_WIDTH, .heads = TINY_TEXT_HEADS,
        .layers = TINY_LAYERS, .end = TINY_VOCABULARY - 1, .blocks = tower_blocks,
        .tokens = get(tensors, "text_model.embeddings.token_embedding.weight"),
        .positions = get(tensors, "text_model.embeddings.position_embedding.weight"),
        .norm = {get(tensors, "text_model.final_layer_norm.weight"), get(tensors, "text_model.final_layer_norm.bias"),
                 1e-5f},
        .projection = linear_of(get(tensors, "text_projection.weight"), NULL, TINY_EMBEDDING, TINY_TEXT_WIDTH)};
    for (size_t i = 0; i < TINY_LAYERS; i++)
        tower_blocks[i] = unpacked_block(tensors, i);
    for (size_t i = 0; i < 27; i++)
        ids[i] = (int32_t)(i * 97 % TINY_VOCABULARY);
    float *memory = aligned_alloc(64, (text_tower_memory(&tower) * sizeof(float) + 63) / 64 * 64);
    const size_t scratch = attention_sequence_scratch(&tower_blocks[0].attention, TINY_CONTEXT, TINY_TEXT_WIDTH);
    const struct compute compute = {.kernels = kernels_best(), .scratch = aligned_alloc(64, scratch / 16 * 64 + 64)};
    text_tower_forward(&tower, &compute, memory, &(struct arch_texts){3, text_starts, ids, embeddings});
    for (size_t i = 0; i < 3; i++) {
        const size_t own_starts[] = {0, text_starts[i + 1] - text_starts[i]};
        float *own = alone;
        text_tower_forward(&tower, &compute, memory, &(struct arch_texts){1, own_starts, ids + text_starts[i], &own});
        ck_assert_mem_eq(alone, together[i], sizeof alone);
        plain_clip_text(wanted, tensors, TINY_TEXT_HEADS, true, ids + text_starts[i], own_starts[1]);
        assert_plain("text", alone, wanted, TINY_EMBEDDING, 1e-5);
    }
    for (size_t i = 0; i < TINY_LAYERS; i++)
        free((float *)(uintptr_t)tower_blocks[i].qkv.weight);
    free(compute.scratch);
    free(memory);
    golden_free(tensors);
    tiny_close(&f);
}
END_TEST

/* The end is the first end token, or the first of the largest ids; without an end the first token is all there is. */
START_TEST(test_length_of_a_text)
{
    const int32_t ids[] = {7, 3, 9, 5, 9, 2};
    const size_t ends[] = {9, 5, 4, LARGEST_ID}, wanted[] = {3, 4, 1, 3};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        ck_assert_uint_eq(text_tower_length(&(struct text_tower){.end = ends[i]}, ids, 6), wanted[i]);
}
END_TEST

/* Images share the session's memory with texts. */
START_TEST(test_images_and_texts_take_turns)
{
    struct fixture f;
    const size_t floats = 3 * TINY_IMAGE * TINY_IMAGE;
    float *pixels = malloc(3 * floats * sizeof *pixels), first[TINY_EMBEDDING], images[3 * TINY_EMBEDDING];
    float texts[FEW * TINY_EMBEDDING], again[FEW * TINY_EMBEDDING];
    vit_item items[3];
    vit_status statuses[3];
    vit_error err = {""};
    tiny_open(&f, NULL, 3);
    fill(pixels, 3 * floats, 77);
    embed_image(&f, pixels, first);
    encode(&f, few_texts, FEW, texts);
    for (size_t i = 0; i < 3; i++)
        items[i] = (vit_item){.pixels = pixels + i * floats, .features = images + i * TINY_EMBEDDING,
                              .status = &statuses[i]};
    ck_assert_int_eq(vit_session_run(f.session, items, 3, &err), VIT_OK);
    encode(&f, few_texts, FEW, again);
    ck_assert_mem_eq(first, images, sizeof first);
    ck_assert_mem_ne(first, images + TINY_EMBEDDING, sizeof first);
    ck_assert_mem_eq(texts, again, sizeof texts);
    pixels[floats] = INFINITY;
    ck_assert_int_eq(vit_session_run(f.session, items, 3, &err), VIT_ERR_FORMAT);
    ck_assert_str_eq(err.message, "the model's weights give an embedding that is not finite");
    ck_assert_int_eq(statuses[0], VIT_OK);
    ck_assert_int_eq(statuses[1], VIT_ERR_FORMAT);
    items[2].features = NULL;
    ck_assert_int_eq(vit_session_run(f.session, items, 3, &err), VIT_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "each image needs room for its own"));
    free(pixels);
    tiny_close(&f);
}
END_TEST

START_TEST(test_bad_texts_fail_alone)
{
    enum { COUNT = 5 };
    struct fixture f;
    const char *const texts[COUNT] = {"cat", " \t", "dog", "caf\xe9", "do"};
    float embeddings[COUNT * TINY_EMBEDDING], sound[TINY_EMBEDDING], untouched[TINY_EMBEDDING];
    vit_status statuses[COUNT];
    vit_error err = {""};
    tiny_open(&f, NULL, 1);
    memset(embeddings, 0x7f, sizeof embeddings);
    memset(untouched, 0x7f, sizeof untouched);
    ck_assert_int_eq(vit_session_encode_texts(f.session, texts, COUNT, embeddings, statuses, &err), VIT_ERR_ARGUMENT);
    ck_assert_msg(strstr(err.message, "text 1: ") == err.message, "%s", err.message);
    for (size_t i = 0; i < COUNT; i++) {
        const bool bad = i == 1 || i == 3;
        ck_assert_int_eq(statuses[i], bad ? VIT_ERR_ARGUMENT : VIT_OK);
        if (!bad)
            encode(&f, &texts[i], 1, sound);
        ck_assert_mem_eq(embeddings + i * TINY_EMBEDDING, bad ? untouched : sound, sizeof sound);
    }
    ck_assert_int_eq(vit_session_encode_texts(f.session, texts + 3, 1, embeddings, NULL, &err), VIT_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "UTF-8"));
    ck_assert_int_eq(vit_session_encode_texts(f.session, NULL, 0, NULL, NULL, &err), VIT_OK);
    tiny_close(&f);
}
END_TEST

START_TEST(test_profile_counts_the_products_of_texts)
{
    struct fixture f;
    double flops, seconds[VIT_STAGE_COUNT], wanted = 0, c = TINY_TEXT_WIDTH, m = TINY_TEXT_MLP;
    const char *const texts[] = {"x", "cat dog", "abc"}; /* 3, 4 and 5 tokens */
    vit_error err = {""};
    tiny_open(&f, NULL, 1);
    ck_assert_int_eq(vit_session_profile_texts(f.session, texts, 3, &flops, seconds, &err), VIT_OK);
    for (double t = 3; t <= 5; t++) {
        wanted += 2 * t * c * 3 * c + 4 * t * t * c + 2 * t * c * c + 4 * t * c * m;
        wanted += 2 * t * c * 3 * c + 4 * t * c + 2 * c * c + 4 * c * m; /* of the end alone */
        wanted += 2 * c * TINY_EMBEDDING;
    }
    ck_assert_double_eq(flops, wanted);
    ck_assert_double_gt(seconds[VIT_STAGE_GEMM], 0);
    flops = 0;
    ck_assert_int_eq(vit_session_profile_texts(f.session, texts, 3, &flops, NULL, &err), VIT_OK);
    ck_assert_double_eq(flops, wanted);
    tiny_close(&f);
}
END_TEST

/* ---- explanations ---- */

/* The gradient that LeGrad begins with, by differences of the score. */
START_TEST(test_score_gradient)
{
    struct fixture f;
    float mean[TINY_WIDTH], text[TINY_EMBEDDING], memory[TINY_WIDTH + TINY_EMBEDDING], gradient[TINY_WIDTH];
    double square = 0;
    tiny_open(&f, NULL, 1);
    const struct compute compute = {.kernels = f.model->kernels, .scratch = f.session->scratch};
    fill(mean, TINY_WIDTH, 3);
    fill(text, TINY_EMBEDDING, 4);
    f.model->arch->score_gradient(f.model->state, &compute, memory, gradient, mean, 0, text);
    struct golden *tensors = tensors_of(&f);
    size_t count;
    const float *weight = golden_get(tensors, "visual_projection.weight", "F32", &count);
    const float *gain = golden_get(tensors, "vision_model.post_layernorm.weight", "F32", &count);
    const float *shift = golden_get(tensors, "vision_model.post_layernorm.bias", "F32", &count);
    for (size_t at = 0; at < TINY_WIDTH; at++) {
        double scores[2];
        for (int side = 0; side < 2; side++) {
            double token[TINY_WIDTH], average = 0, variance = 0, dot = 0;
            for (size_t c = 0; c < TINY_WIDTH; c++) {
                token[c] = mean[c] + (c == at ? side == 0 ? -1e-4 : 1e-4 : 0);
                average += token[c] / TINY_WIDTH;
            }
            for (size_t c = 0; c < TINY_WIDTH; c++)
                variance += (token[c] - average) * (token[c] - average) / TINY_WIDTH;
            square = 0;
            for (size_t d = 0; d < TINY_EMBEDDING; d++) {
                double e = 0;
                for (size_t c = 0; c < TINY_WIDTH; c++)
                    e += weight[d * TINY_WIDTH + c] *
                         ((token[c] - average) / sqrt(variance + 1e-5) * gain[c] + shift[c]);
                square += e * e;
                dot += e * text[d];
            }
            scores[side] = dot / sqrt(square);
        }
        ck_assert_double_eq_tol(gradient[at], (scores[1] - scores[0]) / 2e-4, 1e-5);
    }
    golden_free(tensors);
    tiny_close(&f);
}
END_TEST

/* Several texts give each what it gives alone, and none of it changes the embedding. */
START_TEST(test_legrad_of_texts)
{
    struct fixture f;
    float pixels[3 * TINY_IMAGE * TINY_IMAGE], plain[TINY_EMBEDDING], embedding[TINY_EMBEDDING];
    float texts[FEW * TINY_EMBEDDING], maps[FEW * 16], map[16];
    vit_error err = {""};
    tiny_open(&f, NULL, 1);
    fill(pixels, 3 * TINY_IMAGE * TINY_IMAGE, 12);
    embed_image(&f, pixels, plain);
    encode(&f, few_texts, FEW, texts);
    vit_explain explain = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN,
                           .target_count = FEW, .target_vectors = texts};
    vit_item item = {.pixels = pixels, .features = embedding, .explain = &explain, .map = maps};
    ck_assert_msg(vit_session_run(f.session, &item, 1, &err) == VIT_OK, "%s", err.message);
    ck_assert_mem_eq(plain, embedding, sizeof plain);
    explain.target_count = 1;
    item.map = map;
    for (size_t i = 0; i < FEW; i++) {
        explain.target_vectors = texts + i * TINY_EMBEDDING;
        ck_assert_int_eq(vit_session_run(f.session, &item, 1, &err), VIT_OK);
        ck_assert_mem_eq(map, maps + i * 16, sizeof map);
    }
    ck_assert_mem_ne(maps, maps + 16, sizeof map);
    tiny_close(&f);
}
END_TEST

START_TEST(test_explanations_are_refused)
{
    struct fixture f;
    float text[TINY_EMBEDDING] = {1};
    const struct {
        vit_explain explain;
        const char *words;
    } cases[] = {
        {{.method = VIT_ATTENTION_LEGRAD, .target_count = 0, .target_vectors = text},
         "is of texts: it needs at least one"},
        {{.method = VIT_ATTENTION_LEGRAD, .target_count = 1}, "is of texts: it needs at least one"},
        {{.method = VIT_ATTENTION_LEGRAD, .target_count = 17, .target_vectors = text}, "17 targets: 16 are possible"},
        {{.method = VIT_ATTENTION_RAW, .target_count = 1, .target_vectors = text},
         "target only goes with attention=legrad"},
    };
    vit_map_shape shape;
    vit_error err = {""};
    tiny_open(&f, NULL, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vit_explain explain = cases[i].explain;
        explain.layer = VIT_LAYER_DEFAULT;
        explain.head = VIT_HEAD_MEAN;
        ck_assert_int_eq(vit_explain_shape(f.model, &explain, &shape, &err), VIT_ERR_ARGUMENT);
        ck_assert_msg(strstr(err.message, cases[i].words) != NULL, "%s", err.message);
    }
    tiny_close(&f);
}
END_TEST

/* A model of classes neither takes texts for targets nor embeds them. */
START_TEST(test_models_without_a_text_tower)
{
    struct fixture f;
    char path[512];
    const char *tests = getenv("VITD_TESTS"), *const texts[] = {"cat", "dog"};
    float vector[MAX_EMBEDDING] = {0};
    vit_status statuses[2] = {VIT_OK, VIT_OK};
    vit_map_shape shape;
    vit_error err = {""};
    snprintf(path, sizeof path, "%s/golden/vit-hf", tests != NULL ? tests : "tests");
    fixture_open(&f, path, NULL, 1);
    ck_assert(!f.info->text);
    ck_assert_int_eq(vit_session_encode_texts(f.session, texts, 2, vector, statuses, &err), VIT_ERR_UNSUPPORTED);
    ck_assert_str_eq(err.message, "this model (architecture vit) has no text tower");
    ck_assert_int_eq(statuses[1], VIT_ERR_UNSUPPORTED);
    const vit_explain explain = {.method = VIT_ATTENTION_LEGRAD, .layer = VIT_LAYER_DEFAULT, .head = VIT_HEAD_MEAN,
                                 .target_count = 1, .target_vectors = vector};
    ck_assert_int_eq(vit_explain_shape(f.model, &explain, &shape, &err), VIT_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(err.message, "it has no text tower"));
    fixture_close(&f);
}
END_TEST

/* ---- folders ---- */

static void write_file(const char *folder, const char *name, const void *bytes, size_t length)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, length, file), length);
    fclose(file);
}

/* section: of config.json, or NULL; value: JSON, NULL removes the key. */
static void edit_config(const char *folder, const char *section, const char *key, const char *value)
{
    size_t length;
    char *text = read_text(folder, "config.json", &length);
    cJSON *root = cJSON_Parse(text), *object = section != NULL ? cJSON_GetObjectItem(root, section) : root;
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    if (value != NULL)
        cJSON_AddItemToObject(object, key, cJSON_Parse(value));
    char *changed = cJSON_Print(root);
    write_file(folder, "config.json", changed, strlen(changed));
    free(changed);
    free(text);
    cJSON_Delete(root);
}

/* Renames a tensor, or, where `to` is NULL, its second half of rows. */
static void edit_tensor(const char *folder, const char *from, const char *to)
{
    size_t length;
    uint64_t size;
    char *file = read_text(folder, "model.safetensors", &length);
    memcpy(&size, file, 8);
    cJSON *header = cJSON_ParseWithLength(file + 8, size), *tensor = cJSON_GetObjectItemCaseSensitive(header, from);
    ck_assert_msg(tensor != NULL, "%s", from);
    if (to != NULL) {
        cJSON_AddItemToObject(header, to, cJSON_DetachItemViaPointer(header, tensor));
    } else {
        cJSON *rest = cJSON_Duplicate(tensor, true);
        cJSON *rows = cJSON_GetArrayItem(cJSON_GetObjectItem(tensor, "shape"), 0);
        cJSON *begin = cJSON_GetArrayItem(cJSON_GetObjectItem(tensor, "data_offsets"), 0);
        cJSON_SetNumberValue(rows, rows->valuedouble / 2);
        cJSON_SetNumberValue(begin->next, (begin->valuedouble + begin->next->valuedouble) / 2);
        cJSON_SetNumberValue(cJSON_GetArrayItem(cJSON_GetObjectItem(rest, "shape"), 0), rows->valuedouble);
        cJSON_SetNumberValue(cJSON_GetArrayItem(cJSON_GetObjectItem(rest, "data_offsets"), 0),
                             begin->next->valuedouble);
        cJSON_AddItemToObject(header, "rest.embeddings.position_ids", rest);
    }
    char *text = cJSON_PrintUnformatted(header), *changed = malloc(length + 4096);
    const uint64_t new_size = strlen(text);
    memcpy(changed, &new_size, 8);
    memcpy(changed + 8, text, new_size);
    memcpy(changed + 8 + new_size, file + 8 + size, length - 8 - size);
    write_file(folder, "model.safetensors", changed, length - size + new_size);
    free(changed);
    free(text);
    free(file);
    cJSON_Delete(header);
}

static void assert_refused(const char *folder, vit_status wanted, const char *words)
{
    vit_model *model = NULL;
    vit_error err = {""};
    const vit_status status = vit_model_open(&model, folder, NULL, &err);
    ck_assert_msg(status == wanted, "status %d, not %d: %s", status, wanted, err.message);
    ck_assert_msg(strstr(err.message, words) != NULL, "\"%s\" does not hold \"%s\"", err.message, words);
    ck_assert_ptr_null(model);
    folder_remove(folder);
}

START_TEST(test_config_is_checked)
{
    static const struct {
        const char *section, *key, *value;
        vit_status status;
        const char *words;
    } cases[] = {
        {NULL, "model_type", "\"clip_vision_model\"", VIT_ERR_UNSUPPORTED, "it is CLIP's image tower alone"},
        {NULL, "model_type", "\"clip_text_model\"", VIT_ERR_UNSUPPORTED, "it is CLIP's text tower alone"},
        {NULL, "model_type", "\"siglip\"", VIT_ERR_UNSUPPORTED, "it is no CLIP"},
        {NULL, "projection_dim", "512", VIT_ERR_FORMAT, "\"projection_dim\" is 512, the tensors say 24"},
        {NULL, "text_config", "[1]", VIT_ERR_FORMAT, "\"text_config\" must be an object"},
        {NULL, "vision_config", "3", VIT_ERR_FORMAT, "\"vision_config\" must be an object"},
        {NULL, "text_config_dict", "{}", VIT_ERR_FORMAT, "\"text_config.num_hidden_layers\" is 12, the tensors say 2"},
        {"text_config", "num_attention_heads", "3", VIT_ERR_FORMAT, "a width of 32 cannot be split into 3 heads"},
        {"text_config", "num_hidden_layers", NULL, VIT_ERR_FORMAT, "\"text_config.num_hidden_layers\" is 12"},
        {"text_config", "vocab_size", NULL, VIT_ERR_FORMAT, "\"text_config.vocab_size\" is 49408, the tensors say 520"},
        {"text_config", "max_position_embeddings", NULL, VIT_ERR_FORMAT,
         "\"text_config.max_position_embeddings\" is 77"},
        {"text_config", "hidden_act", "\"relu\"", VIT_ERR_UNSUPPORTED, "activation \"relu\" is not supported"},
        {"text_config", "layer_norm_eps", "2", VIT_ERR_FORMAT, "\"layer_norm_eps\" must be from 0 to 1"},
        {"text_config", "eos_token_id", NULL, VIT_ERR_FORMAT, "\"text_config.eos_token_id\" is not 519"},
        {"text_config", "eos_token_id", "-1", VIT_ERR_FORMAT, "\"eos_token_id\" must be a whole number"},
        {"vision_config", "num_attention_heads", "5", VIT_ERR_FORMAT, "a width of 48 cannot be split into 5 heads"},
        {"vision_config", "num_hidden_layers", NULL, VIT_ERR_FORMAT, "\"num_hidden_layers\" is 12, the tensors hold 2"},
        {"vision_config", "image_size", "64", VIT_ERR_FORMAT, "[65, 48] was expected, [17, 48] was found"},
        {"vision_config", "layer_norm_eps", "\"x\"", VIT_ERR_FORMAT, "\"layer_norm_eps\" must be a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char folder[FOLDER_BYTES];
        folder_make(folder);
        tiny_clip_write(folder);
        edit_config(folder, cases[i].section, cases[i].key, cases[i].value);
        assert_refused(folder, cases[i].status, cases[i].words);
    }
}
END_TEST

START_TEST(test_tensors_are_checked)
{
    static const struct {
        const char *from, *to;
        vit_status status;
        const char *words;
    } cases[] = {
        {"text_model.embeddings.token_embedding.weight", "x", VIT_ERR_UNSUPPORTED, "the folder holds no text tower"},
        {"text_model.embeddings.position_embedding.weight", "x", VIT_ERR_FORMAT,
         "'text_model.embeddings.position_embedding.weight' [positions, 32] is missing"},
        {"text_model.encoder.layers.1.self_attn.q_proj.bias", "x", VIT_ERR_FORMAT,
         "layers.1.self_attn.q_proj.bias' is missing"},
        {"text_model.encoder.layers.0.mlp.fc2.weight", "x", VIT_ERR_FORMAT,
         "layers.0.mlp.fc2.weight' [32, 64] is missing"},
        {"text_model.final_layer_norm.weight", "x", VIT_ERR_FORMAT,
         "'text_model.final_layer_norm.weight' [32] is missing"},
        {"text_projection.weight", "x", VIT_ERR_FORMAT, "'text_projection.weight' [embedding width, 32] is missing"},
        {"logit_scale", "x", VIT_ERR_FORMAT, "'logit_scale' [] is missing"},
        {"visual_projection.weight", "x", VIT_ERR_FORMAT,
         "'visual_projection.weight' [embedding width, 48] is missing"},
        {"vision_model.embeddings.class_embedding", "x", VIT_ERR_FORMAT, "class_embedding' [48] is missing"},
        {"vision_model.embeddings.position_embedding.weight", "x", VIT_ERR_FORMAT,
         "'vision_model.embeddings.position_embedding.weight' [17, 48] is missing"},
        {"vision_model.embeddings.patch_embedding.weight", "x", VIT_ERR_FORMAT, "patch_embedding.weight' is missing"},
        {"vision_model.pre_layrnorm.weight", "x", VIT_ERR_FORMAT, "'vision_model.pre_layrnorm.weight' [48] is missing"},
        {"vision_model.post_layernorm.bias", "x", VIT_ERR_FORMAT, "'vision_model.post_layernorm.bias' [48] is missing"},
        {"vision_model.encoder.layers.0.layer_norm1.weight", "x", VIT_ERR_FORMAT,
         "layer_norm1.weight' [width] is missing"},
        {"vision_model.encoder.layers.1.self_attn.out_proj.weight", "x", VIT_ERR_FORMAT,
         "out_proj.weight' [48, 48] is missing"},
        {"text_projection.weight", NULL, VIT_ERR_FORMAT, "the embeddings of images have 24 numbers, those of texts 12"},
        {"text_model.embeddings.token_embedding.weight", NULL, VIT_ERR_FORMAT, "is 520, the tensors say 260"},
        {"text_model.encoder.layers.1.mlp.fc1.bias", NULL, VIT_ERR_FORMAT, "[64] was expected, [32] was found"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char folder[FOLDER_BYTES];
        folder_make(folder);
        tiny_clip_write(folder);
        edit_tensor(folder, cases[i].from, cases[i].to);
        assert_refused(folder, cases[i].status, cases[i].words);
    }
}
END_TEST

/* What nothing asks for is refused, but for the numbered positions of old files. */
START_TEST(test_other_tensors)
{
    char folder[FOLDER_BYTES];
    for (int i = 0; i < 2; i++) {
        size_t length;
        uint64_t size;
        folder_make(folder);
        tiny_clip_write(folder);
        char *file = read_text(folder, "model.safetensors", &length), *changed = malloc(length + 200);
        memcpy(&size, file, 8);
        const int added = sprintf(changed + 8, "{\"text_model.embeddings.%s\":{\"dtype\":\"I64\",\"shape\":[0],"
                                  "\"data_offsets\":[0,0]},", i == 0 ? "position_ids" : "others");
        memcpy(changed + 8 + added, file + 8 + 1, length - 8 - 1);
        size += (uint64_t)added - 1;
        memcpy(changed, &size, 8);
        write_file(folder, "model.safetensors", changed, length + (size_t)added - 1);
        free(changed);
        free(file);
        if (i > 0) {
            assert_refused(folder, VIT_ERR_UNSUPPORTED,
                           "'text_model.embeddings.others' is no part of architecture 'clip'");
        } else {
            struct fixture f;
            fixture_open(&f, folder, NULL, 1);
            tiny_close(&f);
        }
    }
}
END_TEST

START_TEST(test_tokenizer_files_are_needed)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "preprocessor_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char folder[FOLDER_BYTES], path[64];
        folder_make(folder);
        tiny_clip_write(folder);
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        ck_assert_int_eq(unlink(path), 0);
        assert_refused(folder, VIT_ERR_IO, names[i]);
    }
}
END_TEST

/* transformers pools old models, whose eos_token_id is 2, at the largest id: with CLIP's vocabulary that is the end as
 * well. An end in the middle of a text is its end. */
START_TEST(test_pools_at_the_first_end)
{
    static const char *const texts[] = {"cat", "cat<|endoftext|>dog"};
    float embeddings[2][2 * TINY_EMBEDDING];
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        char folder[FOLDER_BYTES];
        folder_make(folder);
        tiny_clip_write(folder);
        if (i > 0)
            edit_config(folder, "text_config", "eos_token_id", "2");
        fixture_open(&f, folder, NULL, 1);
        encode(&f, texts, 2, embeddings[i]);
        tiny_close(&f);
    }
    ck_assert_mem_eq(embeddings[0], embeddings[1], sizeof embeddings[0]);
    ck_assert_mem_eq(embeddings[0], embeddings[0] + TINY_EMBEDDING, TINY_EMBEDDING * sizeof(float));
}
END_TEST

/* Sizes as numbers, as published with CLIPFeatureExtractor, and as today's CLIPImageProcessor writes them. */
START_TEST(test_preprocessing_dialects)
{
    vit_preprocess preprocess[2];
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        char folder[FOLDER_BYTES];
        folder_make(folder);
        tiny_clip_write(folder);
        if (i > 0)
            folder_write(folder, "preprocessor_config.json",
                         "{\"crop_size\": {\"height\": 32, \"width\": 32}, \"do_center_crop\": true,"
                         "\"do_convert_rgb\": true,"
                         "\"do_normalize\": true, \"do_rescale\": true, \"do_resize\": true, \"resample\": 3,"
                         "\"image_mean\": [0.48145466, 0.4578275, 0.40821073], \"rescale_factor\": 0.00392156862745098,"
                         "\"image_std\": [0.26862954, 0.26130258, 0.27577711],"
                         "\"image_processor_type\": \"CLIPImageProcessor\", \"size\": {\"shortest_edge\": 32}}");
        fixture_open(&f, folder, NULL, 1);
        preprocess[i] = *f.info->preprocess;
        tiny_close(&f);
    }
    ck_assert_int_eq(preprocess[0].resize, VIT_RESIZE_SHORTEST_EDGE);
    ck_assert_int_eq(preprocess[0].filter, VIT_FILTER_BICUBIC);
    ck_assert_int_eq(preprocess[0].crop, VIT_CROP_FLOOR);
    ck_assert_uint_eq(preprocess[0].resize_height, 32);
    for (int i = 0; i < 2; i++)
        ck_assert_uint_eq(preprocess[i].height, 32);
    ck_assert_int_eq(preprocess[1].resize, preprocess[0].resize);
    ck_assert_uint_eq(preprocess[1].resize_height, preprocess[0].resize_height);
    ck_assert_int_eq(preprocess[1].crop, preprocess[0].crop);
    ck_assert_mem_eq(preprocess[1].mean, preprocess[0].mean, sizeof preprocess[0].mean);
    ck_assert_mem_eq(preprocess[1].std, preprocess[0].std, sizeof preprocess[0].std);
    ck_assert_double_eq_tol(preprocess[1].rescale_factor, preprocess[0].rescale_factor, 1e-12);
}
END_TEST

/* Positions are interpolated, but for the class token's. A grid of positions that are all alike stays so. */
START_TEST(test_image_size)
{
    enum { SIDE = 48 };
    struct fixture f;
    float pixels[3 * SIDE * SIDE], embedding[TINY_EMBEDDING], similarity[36 * 36];
    vit_error err = {""};
    tiny_open(&f, &(vit_options){.image_size = SIDE}, 1);
    ck_assert_uint_eq(f.info->image_height, SIDE);
    ck_assert_uint_eq(f.info->tokens, 37);
    ck_assert_uint_eq(f.info->preprocess->resize_height, SIDE);
    fill(pixels, 3 * SIDE * SIDE, 5);
    embed_image(&f, pixels, embedding);
    struct golden *tensors = tensors_of(&f);
    size_t count;
    const float *trained = golden_get(tensors, "vision_model.embeddings.position_embedding.weight", "F32", &count);
    const float *positions = f.model->arch->inside(f.model->state).positions;
    float wanted[36 * TINY_WIDTH];
    positions_resize(wanted, 6, 6, trained + TINY_WIDTH, 4, 4, TINY_WIDTH, INTERPOLATE_BICUBIC);
    ck_assert_mem_eq(positions, wanted, sizeof wanted);
    ck_assert_int_eq(vit_model_positions(f.model, similarity, &err), VIT_OK);
    golden_free(tensors);
    tiny_close(&f);
}
END_TEST

/* The table of tokens is read where the file is mapped, and counts beside what is packed. */
START_TEST(test_bytes)
{
    struct fixture f;
    tiny_open(&f, NULL, 1);
    const size_t table = TINY_VOCABULARY * TINY_TEXT_WIDTH * sizeof(float);
    const size_t owned = weights_owned_bytes(&f.model->weights);
    if (f.model->packed)
        ck_assert_uint_eq(vit_model_bytes(f.model), owned + table);
    else
        ck_assert_uint_ge(vit_model_bytes(f.model), owned + table);
    ck_assert_uint_ge(vit_session_bytes(f.session), 1024 * 5 * TINY_TEXT_WIDTH * sizeof(float));
    tiny_close(&f);
}
END_TEST

int main(void)
{
    vit_blas_init();
    Suite *suite = suite_create("clip");
    TCase *tests = tcase_create("clip");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_golden_embeddings_and_logits, 0, DTYPES);
    tcase_add_test(tests, test_golden_explanations);
    tcase_add_loop_test(tests, test_texts_equal_definition, 0, DTYPES);
    tcase_add_loop_test(tests, test_image_equals_definition, 0, DTYPES);
    tcase_add_test(tests, test_logits_are_scaled_products);
    tcase_add_test(tests, test_describes_both_towers);
    tcase_add_test(tests, test_causal_attention);
    tcase_add_loop_test(tests, test_text_is_bit_identical_in_any_batch, 0, DTYPES);
    tcase_add_test(tests, test_text_tower_on_openblas);
    tcase_add_test(tests, test_length_of_a_text);
    tcase_add_test(tests, test_images_and_texts_take_turns);
    tcase_add_test(tests, test_bad_texts_fail_alone);
    tcase_add_test(tests, test_profile_counts_the_products_of_texts);
    tcase_add_test(tests, test_score_gradient);
    tcase_add_test(tests, test_legrad_of_texts);
    tcase_add_test(tests, test_explanations_are_refused);
    tcase_add_test(tests, test_models_without_a_text_tower);
    tcase_add_test(tests, test_config_is_checked);
    tcase_add_test(tests, test_tensors_are_checked);
    tcase_add_test(tests, test_other_tensors);
    tcase_add_test(tests, test_tokenizer_files_are_needed);
    tcase_add_test(tests, test_pools_at_the_first_end);
    tcase_add_test(tests, test_preprocessing_dialects);
    tcase_add_test(tests, test_image_size);
    tcase_add_test(tests, test_bytes);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
