/*
 * test_words_http.c - CLIP as its clients meet it: the real daemon over HTTP. The engine's numbers are tested in
 * test_clip.c, the parsers in test_words.c; here it is that the same words give the same bits whichever way they come, that
 * texts are embedded once and wait as images do, and that nothing a client says of words harms the daemon.
 *
 * Most cases serve a tiny CLIP with random weights (tiny_clip.h): "clip", "fixed", which is the same with labels of its
 * own, and "small", a classifier (golden/vit-hf). Published truth is ../shared/golden/clip-hf, where it is there.
 */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/golden.h"
#include "tests/photos.h"
#include "tests/suite.h"
#include "tests/tiny_clip.h"
#include "tests/upload.h"

#define SMALL "tests/golden/vit-hf"
#define JSON "application/json"
#define FORM "multipart/form-data; boundary=B"
#define LOGITS "top_k=0&function_to_apply=none"

enum { ROOM = 8192 };

static char folder[FOLDER_BYTES];
static struct bytes picture, base64;
static struct daemon vitd;

static const char operator_key[] = "Authorization: Bearer boss";

static void prepare(void)
{
    folder_make(folder);
    tiny_clip_write(folder);
    picture = bytes_of_file(SMALL "/input.png");
    base64 = bytes_of_base64(&picture);
}

static void clean_up(void)
{
    folder_remove(folder);
    free(picture.at);
    free(base64.at);
}

/* models: more of them, beginning with a comma, or "". more: ", ..." or "". */
static void start_with(const char *models, const char *more, const char *threads)
{
    char config[8192], text[4096];
    snprintf(text, sizeof text,
             "{\"models\": [{\"name\": \"clip\", \"path\": \"%s\"}, {\"name\": \"fixed\", \"path\": \"%s\", \"labels\": "
             "[\"a cat\", \"a dog\", \"x, y\"], \"template\": \"the {}!\"}, {\"name\": \"small\", \"path\": \"@/vit-hf\"}%s]%s}",
             folder, folder, models, more);
    folder_expand(config, sizeof config, text);
    vitd = daemon_start(config, (const char *const[]){"--threads", threads, NULL});
}

static void start(const char *more)
{
    start_with("", more, "2");
}

/* ---- requests ---- */

static struct reply post(const char *path)
{
    return daemon_post(&vitd, path, picture.at, picture.length);
}

/* JSON in which each @ is the picture in base64. */
static struct bytes json_body(const char *text)
{
    char *body = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&body, &length);
    for (; *text != '\0'; text++)
        if (*text == '@')
            fwrite(base64.at, 1, base64.length, out);
        else
            fputc(*text, out);
    fclose(out);
    return (struct bytes){(unsigned char *)body, length};
}

static struct reply post_json(const char *path, const char *text)
{
    struct bytes body = json_body(text);
    struct reply reply = daemon_request(&vitd, "POST", path, JSON, body.at, body.length, NULL);
    free(body.at);
    return reply;
}

/* A form with the picture `images` times, and a field of labels (NULL: none) after the first. */
static struct reply post_form(const char *path, const char *labels, int images)
{
    char *body = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&body, &length);
    for (int i = 0; i < images || i == 0; i++) {
        if (i < images) {
            fputs("--B\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n", out);
            fwrite(picture.at, 1, picture.length, out);
            fputs("\r\n", out);
        }
        if (i == 0 && labels != NULL)
            fprintf(out, "--B\r\nContent-Disposition: form-data; name=\"labels\"\r\n\r\n%s\r\n", labels);
    }
    fputs("--B--\r\n", out);
    fclose(out);
    struct reply reply = daemon_request(&vitd, "POST", path, FORM, body, length, NULL);
    free(body);
    return reply;
}

static void expect_error(struct reply reply, long status, const char *code)
{
    reply_assert_error(&reply, status, code);
    reply_free(&reply);
}

/* ---- answers ---- */

/* Scores by the labels' places; their number. labels: theirs in the same order, or NULL. */
static size_t take_scores(const cJSON *json, float *scores, const char *const *labels)
{
    const cJSON *prediction;
    size_t count = 0;
    cJSON_ArrayForEach(prediction, cJSON_GetObjectItem(json, "predictions"))
    {
        const size_t i = (size_t)cJSON_GetObjectItem(prediction, "index")->valuedouble;
        ck_assert_uint_lt(i, ROOM);
        scores[i] = (float)cJSON_GetObjectItem(prediction, "score")->valuedouble;
        if (labels != NULL)
            ck_assert_str_eq(cJSON_GetObjectItem(prediction, "label")->valuestring, labels[i]);
        count++;
    }
    return count;
}

static size_t scores_of(struct reply reply, float *scores, const char *const *labels)
{
    cJSON *json = json_of(reply, 200);
    const size_t count = take_scores(json, scores, labels);
    cJSON_Delete(json);
    return count;
}

/* All numbers in lists in lists, in order. */
static size_t flatten(const cJSON *list, float *values, size_t count)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, list)
    {
        ck_assert_uint_lt(count, ROOM);
        if (cJSON_IsArray(item))
            count = flatten(item, values, count);
        else
            values[count++] = (float)item->valuedouble;
    }
    return count;
}

/* The list of that name in the reply, or in the object `inside` of it. */
static size_t values_of(struct reply reply, const char *inside, const char *name, float *values)
{
    cJSON *json = json_of(reply, 200);
    const cJSON *object = inside != NULL ? cJSON_GetObjectItem(json, inside) : json;
    const size_t count = flatten(cJSON_GetObjectItem(object, name), values, 0);
    cJSON_Delete(json);
    return count;
}

static void assert_same(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            ck_abort_msg("value %zu: %.9g and %.9g", i, (double)a[i], (double)b[i]);
}

static double texts_total(const char *model)
{
    char name[64];
    snprintf(name, sizeof name, "vitd_texts_total{model=\"%s\"}", model);
    return daemon_metric(&vitd, name);
}

/* ---- published truth ---- */

enum { PROMPTS = 4, LAYERS = 3, PATCHES = 36, WIDTH = 24 };

static void assert_near(const float *got, const float *wanted, size_t count, double tolerance)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)wanted[i]));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabs((double)got[i] - wanted[i]) <= tolerance * largest, "value %zu of %zu: %g, not %g", i, count,
                      (double)got[i], (double)wanted[i]);
}

static const float *expected(struct golden *golden, const char *name, size_t count)
{
    size_t found;
    const float *values = golden_get(golden, name, "F32", &found);
    ck_assert_msg(values != NULL && found == count, "%s", name);
    return values;
}

START_TEST(test_answers_are_those_of_transformers)
{
    static const char prompts[] = "a+photo+of+a+jaguar,jump,a%20frisbee%20over%20the%20water,dog";
    char path[1024], option[600];
    float values[ROOM];
    snprintf(path, sizeof path, "%s/golden/clip-hf/expected.safetensors", shared_folder());
    struct golden *golden = golden_open(path);
    if (golden == NULL) {
        printf("skipped: there is no %s\n", path);
        return;
    }
    snprintf(path, sizeof path, "%s/golden/clip-hf/input.png", shared_folder());
    struct bytes file = bytes_of_file(path);
    snprintf(option, sizeof option, "clip=%s/golden/clip-hf", shared_folder());
    vitd = daemon_start(NULL, (const char *const[]){"--model", option, "--threads", "2", NULL});

    ck_assert_uint_eq(values_of(daemon_post(&vitd, "/embed", file.at, file.length), NULL, "embedding", values), WIDTH);
    assert_near(values, expected(golden, "image_embeds", WIDTH), WIDTH, 1e-4);
    ck_assert_uint_eq(values_of(post_json("/embed", "{\"text\": [\"a photo of a jaguar\", \"jump\", "
                                                    "\"a frisbee over the water\", \"dog\"]}"),
                                NULL, "embeddings", values), PROMPTS * WIDTH);
    assert_near(values, expected(golden, "text_embeds", PROMPTS * WIDTH), PROMPTS * WIDTH, 1e-4);
    snprintf(path, sizeof path, "/classify?" LOGITS "&labels=%s", prompts);
    ck_assert_uint_eq(scores_of(daemon_post(&vitd, path, file.at, file.length), values, NULL), PROMPTS);
    assert_near(values, expected(golden, "logits", PROMPTS), PROMPTS, 1e-4);
    snprintf(path, sizeof path, "/classify?labels=%s", prompts);
    ck_assert_uint_eq(scores_of(daemon_post(&vitd, path, file.at, file.length), values, NULL), PROMPTS);
    assert_near(values, expected(golden, "probs", PROMPTS), PROMPTS, 1e-4);
    snprintf(path, sizeof path, "/classify?labels=dog&attention=legrad&layer=all&target=%s", prompts);
    ck_assert_uint_eq(values_of(daemon_post(&vitd, path, file.at, file.length), "attention", "values", values),
                      PROMPTS * LAYERS * PATCHES);
    const float *maps = expected(golden, "legrad", PROMPTS * LAYERS * PATCHES);
    for (size_t i = 0; i < PROMPTS * LAYERS; i++)
        assert_near(values + i * PATCHES, maps + i * PATCHES, PATCHES, 1e-3);
    free(file.at);
    golden_free(golden);
    daemon_stop(&vitd);
}
END_TEST

/* ---- the same words, whichever way they come ---- */

static const char *const three[] = {"a cat", "a dog", "x, y"};

START_TEST(test_scores_do_not_depend_on_the_way)
{
    float wanted[ROOM], got[ROOM];
    start("");
    ck_assert_uint_eq(scores_of(post("/classify?model=fixed&" LOGITS), wanted, three), 3);
    ck_assert(wanted[0] != wanted[1] && wanted[1] != wanted[2]);
    ck_assert_double_eq(texts_total("fixed"), 0); /* they were embedded when it was loaded */
    ck_assert_uint_eq(scores_of(post_json("/classify?" LOGITS, "{\"image\": \"@\", \"template\": \"the {}!\", "
                                                               "\"labels\": [\"a cat\", \"a dog\", \"x, y\"]}"),
                                got, three), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(scores_of(post_json("/classify?" LOGITS "&template=the+%7b%7D!",
                                          " {\"labels\": [\" a cat\", \"\\u0061 dog\\n\", \"x, y\"], \"image\": [\"@\"]}\n"),
                                got, three), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(scores_of(post_form("/classify?" LOGITS "&template=the%20%7B%7D!", "a cat\na dog\nx, y", 1), got,
                                three), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(scores_of(post_form("/classify?" LOGITS "&template=the%20{}!", "a cat\r\n a dog\r\nx, y\r\n\n", 1),
                                got, three), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&template=the+{}!&labels=a+cat,%20a%20dog"), got, three), 2);
    assert_same(got, wanted, 2);
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=the+a+cat!%2Cthe+a+dog!"), got, NULL), 2);
    assert_same(got, wanted, 2);
    /* the body's come before the query's */
    ck_assert_uint_eq(scores_of(post_form("/classify?" LOGITS "&template=the+{}!&labels=a+dog", "a cat", 1), got, three), 2);
    assert_same(got, wanted, 2);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_order_and_repetition)
{
    static const char *const labels[] = {"dog", "cat", "dog", "and"};
    float first[ROOM], second[ROOM];
    start("");
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=dog,cat,dog,and"), first, labels), 4);
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=and,cat,dog"), second, NULL), 3);
    assert_same(&first[0], &first[2], 1);
    assert_same(&first[0], &second[2], 1);
    assert_same(&first[1], &second[1], 1);
    assert_same(&first[3], &second[0], 1);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_functions_and_top_k)
{
    float logits[ROOM], scores[ROOM];
    double sum = 0;
    start("");
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a,b,c,d,e,f,g"), logits, NULL), 7);
    for (size_t i = 0; i < 7; i++)
        sum += exp((double)logits[i]);
    ck_assert_uint_eq(scores_of(post("/classify?top_k=0&labels=a,b,c,d,e,f,g"), scores, NULL), 7);
    for (size_t i = 0; i < 7; i++)
        ck_assert_double_eq_tol((double)scores[i], exp((double)logits[i]) / sum, 1e-6);
    ck_assert_uint_eq(scores_of(post("/classify?top_k=0&function_to_apply=sigmoid&labels=a,b,c,d,e,f,g"), scores, NULL), 7);
    for (size_t i = 0; i < 7; i++)
        ck_assert_double_eq_tol((double)scores[i], 1 / (1 + exp(-(double)logits[i])), 1e-6);
    ck_assert_uint_eq(scores_of(post("/classify?labels=a,b,c,d,e,f,g"), scores, NULL), 5);
    cJSON *json = json_of(post("/classify?top_k=2&labels=a,b,c,d,e,f,g"), 200);
    const cJSON *predictions = cJSON_GetObjectItem(json, "predictions");
    ck_assert_int_eq(cJSON_GetArraySize(predictions), 2);
    for (int place = 0; place < 2; place++) {
        const int found = cJSON_GetObjectItem(cJSON_GetArrayItem(predictions, place), "index")->valueint;
        int better = 0;
        for (int i = 0; i < 7; i++)
            better += logits[i] > logits[found];
        ck_assert_int_eq(better, place);
    }
    cJSON_Delete(json);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_several_images)
{
    float wanted[ROOM], got[ROOM];
    const cJSON *result;
    start("");
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a+cat,a+dog"), wanted, three), 2);
    for (int way = 0; way < 3; way++) {
        struct reply reply = way == 0 ? post_form("/classify?" LOGITS, "a cat\na dog", 3)
                             : way == 1 ? post_form("/classify?" LOGITS "&labels=a+cat,a+dog", NULL, 3)
                                        : post_json("/classify?" LOGITS,
                                                    "{\"image\":[\"@\",\"@\",\"@\"],\"labels\":[\"a cat\",\"a dog\"]}");
        cJSON *json = json_of(reply, 200);
        ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "results")), 3);
        cJSON_ArrayForEach(result, cJSON_GetObjectItem(json, "results"))
        {
            ck_assert_uint_eq(take_scores(result, got, three), 2);
            assert_same(got, wanted, 2);
        }
        cJSON_Delete(json);
    }
    /* one that is no picture fails alone */
    cJSON *json = json_of(post_json("/classify?" LOGITS, "{\"image\":[\"@\",\"AAEC\"],\"labels\":[\"a cat\",\"a dog\"]}"), 200);
    result = cJSON_GetObjectItem(json, "results")->child;
    ck_assert_uint_eq(take_scores(result, got, three), 2);
    assert_same(got, wanted, 2);
    ck_assert_ptr_nonnull(cJSON_GetObjectItem(result->next, "error"));
    cJSON_Delete(json);
    daemon_stop(&vitd);
}
END_TEST

/* ---- other protocols ---- */

static float score_of(const cJSON *json, const char *label)
{
    const cJSON *item;
    if (cJSON_IsObject(json))
        return (float)cJSON_GetObjectItemCaseSensitive(json, label)->valuedouble;
    cJSON_ArrayForEach(item, json) if (strcmp(cJSON_GetObjectItem(item, "label")->valuestring, label) == 0)
        return (float)cJSON_GetObjectItem(item, "score")->valuedouble;
    ck_abort_msg("no score of %s", label);
}

START_TEST(test_hugging_face_and_torchserve)
{
    static const char *const paths[] = {"/hf/clip?labels=a+cat,a+dog&template=the+{}!", "/hf/fixed",
                                        "/predictions/clip?labels=a+cat,a+dog&template=the+{}!", "/predictions/fixed"};
    float wanted[2][ROOM], got[2];
    start("");
    ck_assert_uint_eq(scores_of(post("/classify?labels=a+cat,a+dog&template=the+{}!"), wanted[0], three), 2);
    ck_assert_uint_eq(scores_of(post("/classify?model=fixed"), wanted[1], three), 3);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        cJSON *json = json_of(post(paths[i]), 200);
        ck_assert_int_eq(cJSON_GetArraySize(json), i % 2 == 0 ? 2 : 3);
        for (int k = 0; k < 2; k++)
            got[k] = score_of(json, three[k]);
        assert_same(got, wanted[i % 2], 2);
        cJSON_Delete(json);
        if (i >= 2)
            continue;
        json = json_of(post_json(paths[i], "{\"inputs\": \"@\"}"), 200);
        for (int k = 0; k < 2; k++)
            got[k] = score_of(json, three[k]);
        assert_same(got, wanted[i % 2], 2);
        cJSON_Delete(json);
    }
    expect_error(post("/predictions/clip"), 400, "labels_needed");
    struct reply reply = post("/hf/clip");
    reply_assert_plain(&reply, 400, "labels=");
    reply_free(&reply);
    reply = post_json("/hf/clip", "{\"inputs\": \"@\"}");
    reply_assert_plain(&reply, 400, "labels=");
    reply_free(&reply);
    daemon_stop(&vitd);
}
END_TEST

static size_t infer(const char *model, struct upload upload, const char *output, float *values)
{
    char path[64];
    snprintf(path, sizeof path, "/v2/models/%s/infer", model);
    struct reply reply = upload_post(&vitd, path, &upload, NULL);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    const size_t count = reply_values(&reply, output, values, ROOM);
    reply_free(&reply);
    upload_free(&upload);
    return count;
}

static void expect_outputs(const char *model, const char *wanted)
{
    char path[64];
    snprintf(path, sizeof path, "/v2/models/%s", model);
    cJSON *json = json_of(daemon_get(&vitd, path), 200);
    char *found = cJSON_PrintUnformatted(cJSON_GetObjectItem(json, "outputs"));
    ck_assert_str_eq(found, wanted);
    free(found);
    cJSON_Delete(json);
}

#define EMBEDDING_OUTPUT "{\"name\":\"embedding\",\"datatype\":\"FP32\",\"shape\":[-1,24]}"

START_TEST(test_open_inference_protocol)
{
    float wanted[ROOM], embedding[ROOM], got[ROOM];
    start("");
    expect_outputs("clip", "[" EMBEDDING_OUTPUT "]");
    expect_outputs("fixed", "[{\"name\":\"logits\",\"datatype\":\"FP32\",\"shape\":[-1,3]},"
                            "{\"name\":\"probabilities\",\"datatype\":\"FP32\",\"shape\":[-1,3]}," EMBEDDING_OUTPUT "]");
    ck_assert_uint_eq(scores_of(post("/classify?model=fixed&" LOGITS), wanted, three), 3);
    ck_assert_uint_eq(values_of(post("/embed"), NULL, "embedding", embedding), TINY_EMBEDDING);
    ck_assert_uint_eq(infer("fixed", upload_files(&picture, 1, ""), "logits", got), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(infer("fixed", upload_raw(&picture), "logits", got), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(scores_of(post("/classify?model=fixed&top_k=0"), wanted, three), 3);
    ck_assert_uint_eq(infer("fixed", upload_files_binary(&picture, 1, ""), "probabilities", got), 3);
    assert_same(got, wanted, 3);
    ck_assert_uint_eq(infer("fixed", upload_raw(&picture), "embedding", got), TINY_EMBEDDING);
    assert_same(got, embedding, TINY_EMBEDDING);
    /* without labels there is the embedding, named or not */
    static const char only[] = ",\"outputs\":[{\"name\":\"embedding\"}]";
    ck_assert_uint_eq(infer("clip", upload_files(&picture, 1, only), "embedding", got), TINY_EMBEDDING);
    assert_same(got, embedding, TINY_EMBEDDING);
    ck_assert_uint_eq(infer("clip", upload_files(&picture, 1, ""), "embedding", got), TINY_EMBEDDING);
    assert_same(got, embedding, TINY_EMBEDDING);
    ck_assert_uint_eq(infer("clip", upload_raw(&picture), "embedding", got), TINY_EMBEDDING);
    assert_same(got, embedding, TINY_EMBEDDING);
    static const char *const scores[] = {",\"outputs\":[{\"name\":\"logits\"}]",
                                         ",\"outputs\":[{\"name\":\"embedding\"},{\"name\":\"probabilities\"}]"};
    for (size_t i = 0; i < 2; i++) {
        struct upload upload = upload_files(&picture, 1, scores[i]);
        struct reply reply = upload_post(&vitd, "/v2/models/clip/infer", &upload, NULL);
        reply_assert_plain(&reply, 400, "configure labels");
        reply_free(&reply);
        upload_free(&upload);
    }
    struct upload upload = upload_files(&picture, 1, ",\"outputs\":[{\"name\":\"probabilities\",\"parameters\":"
                                                     "{\"classification\":1}}]");
    struct reply reply = upload_post(&vitd, "/v2/models/fixed/infer", &upload, NULL);
    ck_assert_msg(reply.status == 200 && strstr(reply.body, wanted[0] > wanted[1] && wanted[0] > wanted[2]   ? ":a cat\""
                                                            : wanted[1] > wanted[0] && wanted[1] > wanted[2] ? ":a dog\""
                                                                                                             : ":x, y\"") != NULL,
                  "%ld %s", reply.status, reply.body);
    reply_free(&reply);
    upload_free(&upload);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_models_are_described)
{
    start("");
    cJSON *json = json_of(daemon_get(&vitd, "/models/clip"), 200);
    const cJSON *text = cJSON_GetObjectItem(json, "text");
    ck_assert_str_eq(cJSON_GetObjectItem(json, "architecture")->valuestring, "clip");
    ck_assert_int_eq(cJSON_GetObjectItem(json, "classes")->valueint, 0);
    ck_assert_int_eq(cJSON_GetObjectItem(json, "embedding_dim")->valueint, TINY_EMBEDDING);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "labels")), 0);
    ck_assert_int_eq(cJSON_GetObjectItem(text, "layers")->valueint, TINY_LAYERS);
    ck_assert_int_eq(cJSON_GetObjectItem(text, "heads")->valueint, TINY_TEXT_HEADS);
    ck_assert_int_eq(cJSON_GetObjectItem(text, "width")->valueint, TINY_TEXT_WIDTH);
    ck_assert_int_eq(cJSON_GetObjectItem(text, "context_length")->valueint, TINY_CONTEXT);
    ck_assert_int_eq(cJSON_GetObjectItem(text, "vocabulary")->valueint, TINY_VOCABULARY);
    cJSON_Delete(json);
    json = json_of(daemon_get(&vitd, "/models/fixed"), 200);
    ck_assert_int_eq(cJSON_GetObjectItem(json, "classes")->valueint, 3);
    for (int i = 0; i < 3; i++)
        ck_assert_str_eq(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "labels"), i)->valuestring, three[i]);
    cJSON_Delete(json);
    json = json_of(daemon_get(&vitd, "/models"), 200);
    const cJSON *models = cJSON_GetObjectItem(json, "models");
    ck_assert(cJSON_GetObjectItem(models->child, "text") != NULL);
    ck_assert(cJSON_GetObjectItem(cJSON_GetArrayItem(models, 2), "text") == NULL);
    cJSON_Delete(json);
    daemon_stop(&vitd);
}
END_TEST

/* ---- explanations ---- */

static char *text_of(struct reply reply, const char *inside, const char *name)
{
    cJSON *json = json_of(reply, 200);
    char *text = cJSON_PrintUnformatted(cJSON_GetObjectItem(cJSON_GetObjectItem(json, inside), name));
    ck_assert_msg(text != NULL, "no %s", name);
    cJSON_Delete(json);
    return text;
}

static void expect_text(struct reply reply, const char *name, const char *wanted)
{
    char *text = text_of(reply, "attention", name);
    ck_assert_str_eq(text, wanted);
    free(text);
}

START_TEST(test_explanations_of_words)
{
    enum { GRID = (TINY_IMAGE / TINY_PATCH) * (TINY_IMAGE / TINY_PATCH) };
    float one[ROOM], both[ROOM], got[ROOM];
    start("");
    ck_assert_uint_eq(values_of(post("/classify?labels=a&attention=legrad&target=dog"), "attention", "values", one), GRID);
    ck_assert_uint_eq(values_of(post("/classify?labels=a&attention=legrad&target=cat,dog"), "attention", "values", both),
                      2 * GRID);
    assert_same(both + GRID, one, GRID);
    ck_assert(memcmp(both, one, GRID * sizeof *one) != 0);
    /* without targets the labels; in JSON; without labels */
    ck_assert_uint_eq(values_of(post("/classify?labels=cat,dog&attention=legrad"), "attention", "values", got), 2 * GRID);
    assert_same(got, both, 2 * GRID);
    struct bytes body = json_body("{\"image\": \"@\", \"target\": [\"cat\", \"dog\"]}");
    ck_assert_uint_eq(values_of(daemon_request(&vitd, "POST", "/explain", JSON, body.at, body.length, "Accept: " JSON),
                                "attention", "values", got), 2 * GRID);
    free(body.at);
    assert_same(got, both, 2 * GRID);
    expect_text(post_json("/classify?attention=legrad", "{\"image\": \"@\", \"labels\": [\"x\"], \"target\": \"cat, dog\"}"),
                "target", "{\"label\":\"cat, dog\"}");
    expect_text(post_json("/classify?attention=legrad&target=dog", "{\"image\":\"@\",\"labels\":[\"x\"],\"target\":\"cat\"}"),
                "targets", "[{\"label\":\"cat\"},{\"label\":\"dog\"}]");
    /* a template is for targets too */
    ck_assert_uint_eq(values_of(post("/classify?labels=a&attention=legrad&target=do&template={}g"), "attention", "values",
                                got), GRID);
    assert_same(got, one, GRID);
    /* other maps need no words */
    expect_text(daemon_request(&vitd, "POST", "/explain?attention=rollout", NULL, picture.at, picture.length, "Accept: " JSON),
                "method", "\"rollout\"");
    expect_text(post("/classify?labels=a&attention=raw"), "method", "\"raw\"");
    struct reply reply = post("/explain?target=cat,dog,x");
    ck_assert_msg(reply.status == 200 && memcmp(reply.body, "\x89PNG", 4) == 0, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
    daemon_stop(&vitd);
}
END_TEST

/* Labels that have their embeddings are targets as they are. */
START_TEST(test_labels_are_embedded_once_for_scores_and_maps)
{
    float wanted[ROOM], got[ROOM];
    start(", \"cache\": {\"max_text_bytes\": 0}");
    const size_t count = values_of(post("/classify?labels=a+cat,a+dog,x&template=the+{}!&attention=legrad"), "attention",
                                   "values", wanted);
    ck_assert_double_eq(texts_total("clip"), 3);
    ck_assert_uint_eq(values_of(post("/classify?model=fixed&attention=legrad"), "attention", "values", got), count);
    ck_assert_double_eq(texts_total("fixed"), 0);
    assert_same(got, wanted, count / 3 * 2);
    daemon_stop(&vitd);
}
END_TEST

/* ---- what is known costs nothing ---- */

START_TEST(test_known_texts_are_not_embedded_again)
{
    float first[ROOM], again[ROOM];
    start("");
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a+cat,a+dog"), first, three), 2);
    ck_assert_double_eq(texts_total("clip"), 2);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_text_duration_seconds_count{model=\"clip\"}"), 1);
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a+cat,a+dog"), again, three), 2);
    assert_same(again, first, 2);
    ck_assert_uint_eq(scores_of(post_form("/classify?" LOGITS, "a cat\na dog", 1), again, three), 2);
    assert_same(again, first, 2);
    ck_assert_double_eq(texts_total("clip"), 2);
    cJSON_Delete(json_of(post_json("/embed", "{\"text\": [\"a dog\", \"new\"]}"), 200));
    ck_assert_double_eq(texts_total("clip"), 3);
    cJSON_Delete(json_of(post("/classify?labels=a+cat&template=a+{}"), 200)); /* another sentence */
    ck_assert_double_eq(texts_total("clip"), 4);
    cJSON_Delete(json_of(post("/classify?labels=a+a+cat,new&attention=legrad&target=a+dog"), 200));
    ck_assert_double_eq(texts_total("clip"), 4);
    cJSON_Delete(json_of(post("/classify?model=fixed&labels=a+cat"), 200)); /* another model */
    ck_assert_double_eq(texts_total("clip"), 4);
    ck_assert_double_eq(texts_total("fixed"), 1);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_without_a_cache)
{
    float first[ROOM], again[ROOM];
    start(", \"cache\": {\"max_text_bytes\": 0}");
    for (int round = 1; round <= 3; round++) {
        ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a+cat,a+dog"), round == 1 ? first : again, three), 2);
        ck_assert_double_eq(texts_total("clip"), 2 * round);
    }
    assert_same(again, first, 2);
    daemon_stop(&vitd);
}
END_TEST

/* Replies with words are kept as any other; embeddings of texts have a cache of their own. */
START_TEST(test_replies_are_kept)
{
    start(", \"cache\": {\"max_bytes\": 1000000}");
    static const char *const wanted[] = {"miss", "hit"};
    for (int round = 0; round < 2; round++) {
        struct reply replies[] = {post("/classify?labels=a,b"), post_form("/classify", "a\nb", 1),
                                  post_form("/classify", "a\nc", 1),
                                  post_json("/classify", "{\"image\": \"@\", \"labels\": [\"a\"]}"),
                                  post_json("/classify", "{\"image\": \"@\", \"labels\": [\"b\"]}")};
        for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
            ck_assert_int_eq(replies[i].status, 200);
            ck_assert_str_eq(reply_header(&replies[i], "X-Cache"), wanted[round]);
            reply_free(&replies[i]);
        }
    }
    const double misses = daemon_metric(&vitd, "vitd_cache_misses_total{model=\"clip\"}");
    struct reply reply = post_json("/embed", "{\"text\": \"a\"}");
    ck_assert(reply.status == 200 && reply_header(&reply, "X-Cache") == NULL);
    reply_free(&reply);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_cache_misses_total{model=\"clip\"}"), misses);
    daemon_stop(&vitd);
}
END_TEST

/* The last tensor of the folder is the scale of the logits: another one. */
static void write_other_weights(const char *path)
{
    char name[256];
    const float scale = 2;
    tiny_clip_write(path);
    snprintf(name, sizeof name, "%s/model.safetensors", path);
    FILE *file = fopen(name, "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, -(long)sizeof scale, SEEK_END);
    fwrite(&scale, sizeof scale, 1, file);
    fclose(file);
}

START_TEST(test_other_weights_know_nothing)
{
    char path[64] = "", config[256], other[FOLDER_BYTES];
    float first[ROOM], second[ROOM];
    folder_make(other);
    write_other_weights(other);
    snprintf(config, sizeof config, "{\"models\": [{\"name\": \"clip\", \"path\": \"%s\"}]}", folder);
    daemon_write_config(path, config);
    vitd = daemon_start_file(path, (const char *const[]){"--threads", "1", NULL});
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a+cat,a+dog"), first, three), 2);
    snprintf(config, sizeof config, "{\"models\": [{\"name\": \"clip\", \"path\": \"%s\"}]}", other);
    daemon_write_config(path, config);
    ck_assert(daemon_reload(&vitd));
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS "&labels=a+cat,a+dog"), second, three), 2);
    ck_assert_double_eq(texts_total("clip"), 4);
    for (int i = 0; i < 2; i++)
        ck_assert_double_eq_tol((double)second[i], (double)first[i] * exp(-1), 1e-4 * fabs((double)first[i]));
    /* labels come with a reload, too, and change */
    snprintf(config, sizeof config, "{\"models\": [{\"name\": \"clip\", \"path\": \"%s\", \"labels\": [\"a cat\"]}]}", other);
    daemon_write_config(path, config);
    ck_assert(daemon_reload(&vitd));
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS), first, three), 1);
    assert_same(first, second, 1);
    snprintf(config, sizeof config, "{\"models\": [{\"name\": \"clip\", \"path\": \"%s\", \"labels\": [\"a dog\"]}]}", other);
    daemon_write_config(path, config);
    ck_assert(daemon_reload(&vitd));
    ck_assert_uint_eq(scores_of(post("/classify?" LOGITS), first, three + 1), 1);
    assert_same(first, second + 1, 1);
    daemon_stop(&vitd);
    unlink(path);
    folder_remove(other);
}
END_TEST

/* ---- many ---- */

/* {"image": ..., "labels": ["l0", ...]} */
static char *many_labels(size_t count)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    fputs("{\"image\": \"@\", \"labels\": [", out);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%s\"l%zu\"", i > 0 ? "," : "", i);
    fputs("]}", out);
    fclose(out);
    return text;
}

/* As many as there may be, in a queue of any size. */
START_TEST(test_many_labels)
{
    enum { COUNT = 4096 };
    static const char *const queues[] = {"", ", \"batching\": {\"max_queue_size\": 3}", ", \"batching\": {\"max_queue_size\": 1}"};
    static float scores[ROOM], one[ROOM];
    char path[128];
    char *text = many_labels(COUNT), *more = many_labels(COUNT + 1), *most = many_labels(10000);
    for (size_t k = 0; k < sizeof queues / sizeof queues[0]; k++) {
        start(queues[k]);
        ck_assert_uint_eq(scores_of(post_json("/classify?" LOGITS, text), scores, NULL), COUNT);
        ck_assert_double_eq(texts_total("clip"), COUNT);
        for (size_t i = 0; i < COUNT; i += 103) { /* by the other model, which has the same weights and nothing in the cache */
            snprintf(path, sizeof path, "/classify?model=fixed&" LOGITS "&labels=x,l%zu", i);
            ck_assert_uint_eq(scores_of(post(path), one, NULL), 2);
            assert_same(&one[1], &scores[i], 1);
        }
        ck_assert_double_eq(texts_total("clip"), COUNT);
        expect_error(post_json("/classify", more), 413, "too_many_texts");
        expect_error(post_json("/classify", most), 413, "too_many_texts");
        ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
        daemon_stop(&vitd);
    }
    free(text);
    free(more);
    free(most);
}
END_TEST

/* ---- many at once ---- */

/* Requests whose answers are known. */
static struct known {
    const char *path, *type, *text; /* NULL: the picture */
    struct bytes body, answer;
} known[] = {{.path = "/classify?labels=a,b,c,d&top_k=0"},
             {.path = "/classify?labels=d,c,e,a+cat&top_k=0"},
             {.path = "/classify?labels=a,b,c,d&template=a+{}"},
             {.path = "/classify?labels=e,f,g&attention=legrad"},
             {.path = "/classify?labels=f&attention=legrad&target=a,b,dog"},
             {.path = "/explain?target=cat,dog,g"},
             {.path = "/hf/clip?labels=a,g,cat"},
             {.path = "/predictions/clip?labels=a,g,dog"},
             {.path = "/classify?model=fixed"},
             {.path = "/classify?model=fixed&labels=a,b,c,d"},
             {.path = "/classify?model=small"},
             {.path = "/embed", .type = JSON, .text = "{\"text\": [\"a\", \"b\", \"cat\", \"h\"]}"},
             {.path = "/embed"},
             {.path = "/classify", .type = JSON, .text = "{\"image\": \"@\", \"labels\": [\"h\", \"g\", \"f\", \"e\"]}"},
             {.path = "/classify", .type = JSON, .text = "{\"image\": [\"@\", \"@\"], \"labels\": [\"a\", \"i\"]}"},
             {.path = "/explain", .type = JSON, .text = "{\"image\": \"@\", \"target\": [\"i\", \"j\"]}"},
             {.path = "/hf/clip?labels=i,j", .type = JSON, .text = "{\"inputs\": \"@\"}"}};

enum { KNOWN = sizeof known / sizeof known[0], CLIENTS = 8 };

/* Without the times, which differ. */
static struct bytes without_times(const struct reply *reply)
{
    struct bytes bytes = {malloc(reply->length + 1), 0};
    for (size_t i = 0; i < reply->length;) {
        const char *at = reply->body + i;
        if (reply->length - i > 10 && memcmp(at, "\"timing\":{", 10) == 0)
            i += (size_t)(strchr(at, '}') - at);
        else
            bytes.at[bytes.length++] = (unsigned char)reply->body[i++];
    }
    return bytes;
}

static struct reply ask(const struct known *request)
{
    return daemon_request(&vitd, "POST", request->path, request->type, request->body.at, request->body.length, NULL);
}

static atomic_int wrong;
static char first_wrong[400];

static void *ask_all(void *argument)
{
    const size_t first = *(const size_t *)argument;
    const size_t rounds = getenv("VITD_SANITIZED") != NULL ? 1 : 3;
    for (size_t i = 0; i < rounds * KNOWN; i++) {
        const struct known *request = &known[(first + i * (first % 3 + 1)) % KNOWN];
        struct reply reply = ask(request);
        struct bytes answer = reply.status == 200 ? without_times(&reply) : (struct bytes){0};
        const bool same = reply.status == 200 && answer.length == request->answer.length &&
                          memcmp(answer.at, request->answer.at, answer.length) == 0;
        if (!same && atomic_fetch_add(&wrong, 1) == 0)
            snprintf(first_wrong, sizeof first_wrong, "%s: %d, %ld %.300s", request->path, (int)reply.curl, reply.status,
                     reply.status != 0 ? reply.body : "");
        free(answer.at);
        reply_free(&reply);
    }
    return NULL;
}

/* Many clients at once get the answers that they get one after the other, whatever is in the cache. */
START_TEST(test_many_clients)
{
    static const char *const caches[] = {"", ", \"cache\": {\"max_text_bytes\": 0}", ", \"cache\": {\"max_text_bytes\": 1500}"};
    pthread_t threads[CLIENTS];
    size_t firsts[CLIENTS];
    start("");
    for (size_t i = 0; i < KNOWN; i++) {
        known[i].body = known[i].text != NULL ? json_body(known[i].text) : picture;
        struct reply reply = ask(&known[i]);
        ck_assert_msg(reply.status == 200, "%s: %ld %s", known[i].path, reply.status, reply.body);
        known[i].answer = without_times(&reply);
        reply_free(&reply);
    }
    daemon_stop(&vitd);
    for (size_t k = getenv("VITD_SANITIZED") != NULL ? 1 : 0; k < sizeof caches / sizeof caches[0]; k++) {
        start(caches[k]);
        for (size_t i = 0; i < CLIENTS; i++) {
            firsts[i] = i;
            ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_all, &firsts[i]), 0);
        }
        for (size_t i = 0; i < CLIENTS; i++)
            pthread_join(threads[i], NULL);
        ck_assert_msg(atomic_load(&wrong) == 0, "%d wrong: %s", atomic_load(&wrong), first_wrong);
        ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
        ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
        daemon_stop(&vitd);
    }
    for (size_t i = 0; i < KNOWN; i++) {
        if (known[i].text != NULL)
            free(known[i].body.at);
        free(known[i].answer.at);
    }
}
END_TEST

/* Models come and go while their texts are embedded. */
START_TEST(test_reloads_under_load)
{
    static const char *const paths[] = {"/classify?labels=a,b,c", "/classify?labels=d&attention=legrad&target=a,e",
                                        "/explain?target=f", NULL};
    const int rounds = getenv("VITD_SANITIZED") != NULL ? 4 : 10;
    char path[64] = "", config[512], other[FOLDER_BYTES];
    struct crowd crowd = {.daemon = &vitd, .paths = paths, .body = picture.at, .length = picture.length};
    folder_make(other);
    write_other_weights(other);
    for (int round = 0; round < rounds; round++) {
        snprintf(config, sizeof config,
                 "{\"models\": [{\"name\": \"clip\", \"path\": \"%s\", \"labels\": [\"l%d\", \"a\"]}], "
                 "\"cache\": {\"max_text_bytes\": %d}}", round % 2 != 0 ? other : folder, round, round % 3 * 1500);
        daemon_write_config(path, config);
        if (round == 0) {
            vitd = daemon_start_file(path, (const char *const[]){"--threads", "2", NULL});
            crowd_begin(&crowd, 4);
        } else {
            ck_assert(daemon_reload(&vitd));
        }
        usleep(20000);
    }
    crowd_end(&crowd);
    ck_assert_msg(atomic_load(&crowd.wrong) == 0, "%s", crowd.first_wrong);
    ck_assert_int_eq(atomic_load(&crowd.lost) + atomic_load(&crowd.refused), 0);
    ck_assert_int_gt(atomic_load(&crowd.ok), rounds);
    daemon_stop(&vitd);
    unlink(path);
    folder_remove(other);
}
END_TEST

/* ---- what is refused ---- */

static void expect_alive(void)
{
    float scores[ROOM];
    ck_assert_uint_eq(scores_of(post("/classify?labels=a+cat,a+dog"), scores, three), 2);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
}

static const struct refused {
    const char *path;
    long status;
    const char *code, *says;
} refused_queries[] = {
    {"/classify", 400, "labels_needed", "labels=a cat,a dog"},
    {"/classify?labels=", 400, "invalid_parameter", "labels"},
    {"/classify?labels=,", 400, "invalid_text", "labels, text 0: found an empty text"},
    {"/classify?labels=,,,,", 400, "invalid_text", "empty"},
    {"/classify?labels=a,", 400, "invalid_text", "text 1"},
    {"/classify?labels=+", 400, "invalid_text", "empty"},
    {"/classify?labels=a,%09%0C,b", 400, "invalid_text", "empty"},
    {"/classify?labels=a,%C2%A0", 400, "invalid_text", "empty"}, /* blank for the tokenizer */
    {"/classify?labels=%E2%80%83", 400, "invalid_text", "empty"},
    {"/classify?labels=%FF", 400, "invalid_text", "UTF-8"},
    {"/classify?labels=a%ED%A0%80", 400, "invalid_text", "UTF-8"},
    {"/classify?labels=a%C3", 400, "invalid_text", "UTF-8"},
    {"/classify?labels=a%00b", 400, "malformed_query", "escape"},
    {"/classify?labels=a%4", 400, "malformed_query", "escape"},
    {"/classify?labels=a&labels=b", 400, "duplicate_parameter", "labels"},
    {"/classify?labels=a&template=", 400, "invalid_parameter", "{}"},
    {"/classify?labels=a&template=a+photo", 400, "invalid_parameter", "{}"},
    {"/classify?labels=a&template=%FF{}", 400, "invalid_parameter", "UTF-8"},
    {"/classify?labels=a&target=b", 400, "invalid_parameter", "attention=legrad"},
    {"/classify?labels=a&attention=raw&target=b", 400, "invalid_parameter", "target"},
    {"/classify?labels=a&attention=legrad&target=%FF", 400, "invalid_text", "UTF-8"},
    {"/classify?labels=a&attention=legrad&target=b,,c", 400, "invalid_text", "target, text 1"},
    {"/classify?labels=a&attention=legrad&target=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20", 400,
     "invalid_parameter", "20 texts"},
    {"/classify?labels=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17&attention=legrad", 400, "target_needed", "16"},
    {"/explain", 400, "target_needed", "target="},
    {"/explain?attention=legrad&layer=9&target=a", 400, "invalid_parameter", "layer"},
    {"/classify?model=small&labels=a", 400, "invalid_parameter", "text tower"},
    {"/classify?model=small&template={}", 400, "invalid_parameter", "text tower"},
    {"/explain?model=small&labels=a", 400, "invalid_parameter", "text tower"},
    {"/predictions/small?labels=a", 400, "invalid_parameter", "text tower"},
    {"/embed?labels=a", 400, "unknown_parameter", "labels"}};

static void expect_refusal(struct reply reply, const char *what, long status, const char *code, const char *says)
{
    ck_assert_msg(reply.status == status && strstr(reply.body, code) != NULL && strstr(reply.body, says) != NULL,
                  "%.100s: %ld %s, not %ld %s, %s", what, reply.status, reply.body, status, code, says);
    reply_free(&reply);
}

START_TEST(test_queries_that_are_refused)
{
    start("");
    for (size_t i = 0; i < sizeof refused_queries / sizeof refused_queries[0]; i++) {
        const struct refused *r = &refused_queries[i];
        expect_refusal(post(r->path), r->path, r->status, r->code, r->says);
    }
    expect_alive();
    daemon_stop(&vitd);
}
END_TEST

static const struct refused_body {
    const char *path, *text;
    long status;
    const char *code, *says;
} refused_messages[] = {
    {"/classify", "{}", 400, "no_image", "image"},
    {"/classify", "{\"labels\": [\"a\"]}", 400, "no_image", "image"},
    {"/classify", "{\"image\": []}", 400, "no_image", "image"},
    {"/classify", "{\"image\": \"@\"}", 400, "labels_needed", "labels"},
    {"/classify", "{\"image\": \"@\", \"labels\": []}", 400, "labels_needed", "labels"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"a\", \"\"]}", 400, "invalid_text", "text 1"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"\\u00a0\"]}", 400, "invalid_text", "empty"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"a\\u0000\"]}", 400, "invalid_text", "zero byte"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"\xFF\"]}", 400, "malformed_json", "UTF-8"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"\\ud83d\"]}", 400, "malformed_json", "byte"},
    {"/classify", "{\"image\": \"@\", \"labels\": \"a\"}", 400, "invalid_request", "labels"},
    {"/classify", "{\"image\": \"@\", \"labels\": [1]}", 400, "invalid_request", "labels[0]"},
    {"/classify", "{\"image\": \"@\", \"labels\": {\"a\": 1}}", 400, "invalid_request", "labels"},
    {"/classify", "{\"image\": 5, \"labels\": [\"a\"]}", 400, "invalid_request", "image"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"a\"], \"template\": \"b\"}", 400, "invalid_request", "{}"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"a\"], \"other\": 1}", 400, "invalid_request", "other"},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"a\"]", 400, "malformed_json", "byte"},
    {"/classify", "{\"image\": \"@", 400, "malformed_json", "byte"},
    {"/classify", "{", 400, "malformed_json", "byte"},
    {"/classify", "{\"image\": \"AAEC\", \"labels\": [\"a\"]}", 415, "unsupported_image_type", ""},
    {"/classify", "{\"image\": \"@\", \"labels\": [\"a\"], \"target\": [\"b\"]}", 400, "invalid_parameter", "legrad"},
    {"/classify?attention=raw", "{\"image\": \"@\", \"labels\": [\"a\"], \"target\": [\"b\"]}", 400, "invalid_parameter",
     "legrad"},
    {"/classify?attention=legrad", "{\"image\": \"@\", \"target\": [\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"a\","
     "\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\",\"j\",\"k\"], \"labels\": [\"a\"]}", 400, "invalid_parameter", "20 texts"},
    {"/classify", "{\"text\": \"a cat\"}", 400, "invalid_request", "/embed"},
    {"/explain", "{\"text\": \"a cat\"}", 400, "invalid_request", "/embed"},
    {"/classify", "{\"text\": \"a cat\", \"image\": \"@\"}", 400, "invalid_request", "text"},
    {"/embed", "{\"text\": \"a cat\", \"image\": \"@\"}", 400, "invalid_request", "text"},
    {"/embed", "{\"text\": \"\"}", 400, "invalid_text", "empty"},
    {"/embed", "{\"text\": \"\\u3000\"}", 400, "invalid_text", "empty"},
    {"/embed", "{\"text\": []}", 400, "no_image", "image"},
    {"/embed", "{\"text\": [\"a\", 2]}", 400, "invalid_request", "text[1]"},
    {"/embed", "{\"image\": \"@\", \"labels\": [\"a\"]}", 400, "invalid_request", "/classify"},
    {"/embed", "{\"image\": \"@\", \"target\": [\"a\"]}", 400, "invalid_request", "/classify"},
    {"/attention-distance", "{\"image\": \"@\", \"labels\": [\"a\"]}", 400, "invalid_request", "/classify"},
    {"/embed?model=small", "{\"text\": \"a cat\"}", 400, "invalid_request", "text tower"},
    {"/classify?model=small", "{\"image\": \"@\", \"labels\": [\"a\"]}", 400, "invalid_parameter", "text tower"},
    {"/classify?model=small&attention=legrad", "{\"image\": \"@\", \"target\": \"class 77\"}", 400, "invalid_parameter",
     "no class is called 'class 77'"}};

START_TEST(test_bodies_that_are_refused)
{
    start("");
    for (size_t i = 0; i < sizeof refused_messages / sizeof refused_messages[0]; i++) {
        const struct refused_body *r = &refused_messages[i];
        expect_refusal(post_json(r->path, r->text), r->text, r->status, r->code, r->says);
    }
    expect_refusal(post_form("/classify", "", 1), "empty field", 400, "invalid_text", "empty");
    expect_refusal(post_form("/classify", "a\n\nb", 1), "empty line", 400, "invalid_text", "text 1");
    expect_refusal(post_form("/classify", "a\xFF", 1), "form", 400, "invalid_text", "UTF-8");
    expect_refusal(post_form("/classify", "a\nb", 0), "no picture", 400, "no_image", "file");
    expect_refusal(post_form("/embed", "a", 1), "labels to /embed", 400, "invalid_request", "/classify");
    expect_refusal(post_form("/classify?model=small", "a", 1), "small", 400, "invalid_parameter", "text tower");
    expect_alive();
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_too_much_text)
{
    enum { MEGABYTE = 1 << 20, LABELS = 10000 };
    char *text = malloc(MEGABYTE + 64), *end, query[1200];
    start("");
    memset(text, 'a', MEGABYTE);
    text[MEGABYTE] = '\0';
    expect_refusal(post_form("/classify", text, 1), "a megabyte", 400, "invalid_text", "4096");
    end = stpcpy(text, "{\"text\": \"");
    memset(end, 'a', MEGABYTE);
    strcpy(end + MEGABYTE, "\"}");
    expect_refusal(post_json("/embed", text), "a megabyte", 400, "invalid_text", "4096");
    end = text;
    for (int i = 0; i < LABELS; i++)
        end += sprintf(end, "%sl%d", i > 0 ? "\n" : "", i);
    expect_refusal(post_form("/classify", text, 1), "many", 413, "too_many_texts", "4096");
    strcpy(query, "/classify?labels=");
    memset(query + strlen(query), 'a', 1100);
    query[strlen("/classify?labels=") + 1100] = '\0';
    expect_refusal(post(query), "a long query", 400, "malformed_query", "more than 1023 bytes");
    ck_assert_double_eq(texts_total("clip"), 0);
    /* the longest that may be */
    end = stpcpy(text, "{\"text\": \"");
    memset(end, 'a', 4096);
    strcpy(end + 4096, "\"}");
    cJSON_Delete(json_of(post_json("/embed", text), 200));
    free(text);
    expect_alive();
    daemon_stop(&vitd);
    start(", \"limits\": {\"max_texts_per_request\": 3}");
    cJSON_Delete(json_of(post("/classify?labels=a,b,c"), 200));
    expect_refusal(post("/classify?labels=a,b,c,d"), "query", 413, "too_many_texts", "carry 3 texts");
    expect_refusal(post("/classify?labels=a,b&attention=legrad&target=c,d"), "both", 413, "too_many_texts", "carry 3 texts");
    expect_refusal(post_form("/classify?labels=a,b", "c\nd", 1), "both", 413, "too_many_texts", "carry 3 texts");
    expect_refusal(post_json("/embed", "{\"text\": [\"a\", \"b\", \"c\", \"d\"]}"), "JSON", 413, "too_many_texts", "text[3]");
    cJSON_Delete(json_of(post("/classify?labels=a,b,c&attention=legrad"), 200)); /* targets that are labels are no more */
    daemon_stop(&vitd);
}
END_TEST

/* The bytes decide what a body is, where its Content-Type says something else. */
START_TEST(test_wrong_content_types)
{
    float wanted[ROOM], got[ROOM];
    start("");
    struct bytes jpeg = bytes_of_file("config/samples/cat.jpg");
    static const char labels[] = "/classify?" LOGITS "&labels=a+cat,a+dog";
    ck_assert_uint_eq(scores_of(daemon_post(&vitd, labels, jpeg.at, jpeg.length), wanted, three), 2);
    ck_assert_uint_eq(scores_of(daemon_request(&vitd, "POST", labels, JSON, jpeg.at, jpeg.length, NULL), got, three), 2);
    assert_same(got, wanted, 2);
    ck_assert_uint_eq(scores_of(daemon_request(&vitd, "POST", "/classify?model=small", JSON "; charset=utf-8", jpeg.at,
                                               jpeg.length, NULL), got, NULL), 5);
    struct bytes body = json_body("{\"image\": \"@\", \"labels\": [\"a cat\", \"a dog\"]}");
    expect_error(daemon_request(&vitd, "POST", labels, "image/jpeg", body.at, body.length, NULL), 415,
                 "unsupported_image_type");
    expect_error(daemon_request(&vitd, "POST", "/classify?model=small", NULL, body.at, body.length, NULL), 415,
                 "unsupported_image_type");
    expect_error(daemon_request(&vitd, "POST", labels, JSON, "[1]", 3, NULL), 415, "unsupported_image_type");
    expect_error(daemon_request(&vitd, "POST", labels, JSON, " \t\n", 3, NULL), 415, "unsupported_image_type");
    expect_error(daemon_request(&vitd, "POST", labels, JSON, "", 0, NULL), 400, "empty_body");
    free(body.at);
    free(jpeg.at);
    expect_alive();
    daemon_stop(&vitd);
}
END_TEST

/* Labels that cannot be are told at the start. */
START_TEST(test_configured_labels_that_are_refused)
{
    static const struct {
        const char *path, *entry, *says;
    } cases[] = {{NULL, "\"labels\": [\"a\"]", "model m: labels: it has classes of its own"},
                 {NULL, "\"template\": \"a {}\"", "model m: template: it has classes of its own"},
                 {folder, "\"labels\": [\" \"]", "model m: labels: found an empty text"},
                 {folder, "\"labels\": [\"\"]", "labels"},
                 {folder, "\"labels\": [\"a\\nb\"]", "labels"},
                 {folder, "\"labels\": [1]", "labels"},
                 {folder, "\"labels\": \"a\"", "labels: "},
                 {folder, "\"labels\": [\"\\u00a0\"]", "empty"},
                 {folder, "\"labels\": [\"a\"], \"template\": \"a photo\"", "models[0]: found the template \"a photo\", allowed is"},
                 {folder, "\"labels\": [\"a\"], \"template\": 5", "template"},
                 {folder, "\"template\": \"a {}\"", "model m: template: there are no labels"}};
    char path[64] = "", here[512], config[1024];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(config, sizeof config, "{\"models\": [{\"name\": \"m\", \"path\": \"%s%s\", %s}]}",
                 cases[i].path != NULL ? "" : here, cases[i].path != NULL ? cases[i].path : "/" SMALL, cases[i].entry);
        daemon_write_config(path, config);
        char *log = daemon_fail(path);
        ck_assert_msg(strstr(log, cases[i].says) != NULL, "%s: %s", cases[i].entry, log);
        free(log);
    }
    unlink(path);
}
END_TEST

/* ---- texts wait as images do ---- */

static struct client busy;

static void start_slow(const char *more)
{
    char model[128];
    snprintf(model, sizeof model, ", {\"name\": \"long\", \"path\": \"@/vit-hf\", \"image_size\": %d, \"max_batch_size\": 1}",
             getenv("VITD_SANITIZED") != NULL ? 320 : 560);
    start_with(model, more, "1");
}

static void keep_busy(void)
{
    client_begin(&busy, &vitd, "POST", "/classify?model=long", picture.at, picture.length, NULL);
    const double start_time = test_clock();
    while (daemon_metric(&vitd, "vitd_preprocess_duration_seconds_count{model=\"long\"}") != 1 ||
           daemon_metric(&vitd, "vitd_queue_depth") != 0)
        ck_assert_double_lt(test_clock() - start_time, 20);
}

static void await_waiting(int pieces)
{
    const double start_time = test_clock();
    while (daemon_metric(&vitd, "vitd_queue_depth") != pieces)
        ck_assert_msg(test_clock() - start_time < 20, "%g wait, not %d", daemon_metric(&vitd, "vitd_queue_depth"), pieces);
}

static void begin_words(struct client *client, const char *path, const char *header)
{
    client_begin(client, &vitd, "POST", path, picture.at, picture.length, header);
}

static void end_with(struct client *client, long status)
{
    struct reply reply = client_end(client);
    ck_assert_msg(reply.status == status, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
}

START_TEST(test_texts_that_wait_too_long)
{
    struct client patient, hasty, text;
    start_slow("");
    keep_busy();
    begin_words(&patient, "/classify?labels=a,b", NULL);
    await_waiting(1);
    begin_words(&hasty, "/classify?labels=c", "X-Request-Timeout-Ms: 10");
    await_waiting(2);
    client_begin(&text, &vitd, "POST", "/embed", "{\"text\": \"d\"}", 13,
                 "Content-Type: " JSON "\r\nX-Request-Timeout-Ms: 10");
    await_waiting(3);
    struct reply reply = client_end(&hasty);
    reply_assert_error(&reply, 504, "deadline_exceeded");
    reply_free(&reply);
    end_with(&text, 504);
    end_with(&patient, 200);
    end_with(&busy, 200);
    ck_assert_double_eq(texts_total("clip"), 2);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"timeout\"}"), 2);
    expect_alive();
    daemon_stop(&vitd);
}
END_TEST

/* The room that words have waited in is their images' room: who was let in is not refused half way. */
START_TEST(test_full_queue)
{
    static const char *const others[] = {"/classify?model=small", NULL};
    struct client waiting[2];
    struct crowd crowd;
    start_slow(", \"batching\": {\"max_queue_size\": 2}");
    crowd = (struct crowd){.daemon = &vitd, .paths = others, .body = picture.at, .length = picture.length};
    keep_busy();
    begin_words(&waiting[0], "/classify?labels=a,b", NULL);
    await_waiting(1);
    begin_words(&waiting[1], "/classify?labels=a,c&attention=legrad&target=d", NULL);
    await_waiting(2);
    struct reply reply = post("/classify?labels=e");
    reply_assert_error(&reply, 429, "queue_full");
    ck_assert_ptr_nonnull(reply_header(&reply, "Retry-After"));
    reply_free(&reply);
    expect_error(post_json("/embed", "{\"text\": \"f\"}"), 429, "queue_full");
    crowd_begin(&crowd, 4); /* who would take it */
    end_with(&waiting[0], 200);
    end_with(&waiting[1], 200);
    end_with(&busy, 200);
    crowd_end(&crowd);
    ck_assert_int_eq(atomic_load(&crowd.lost), 0);
    expect_alive();
    daemon_stop(&vitd);
}
END_TEST

static void write_keys(char more[512], const char *rest)
{
    folder_write(folder, "keys", "admin a5e7c002443743c5836758c7d1cd8ddefd9fcf2061daa0efaac683fb99966057 boss\n");
    snprintf(more, 512, ", \"access\": {\"keys\": \"%s/keys\", \"admin\": true}%s", folder, rest);
}

/* Of GET /debug/queue: a number, or what its worker does. */
static double look(const char *key, const char *doing)
{
    struct reply reply = daemon_request(&vitd, "GET", "/debug/queue", NULL, NULL, 0, operator_key);
    cJSON *json = json_of(reply, 200);
    const cJSON *item = json;
    double found = 0;
    if (doing != NULL)
        item = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "workers")->child, "doing");
    else if (strcmp(key, "pending") == 0)
        item = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "pending"), "normal");
    else
        item = cJSON_GetObjectItem(json, key);
    found = doing != NULL ? strcmp(item->valuestring, doing) == 0 : item->valuedouble;
    cJSON_Delete(json);
    return found;
}

static void await_look(const char *key, const char *doing, double wanted)
{
    const double start_time = test_clock();
    while (look(key, doing) != wanted)
        ck_assert_msg(test_clock() - start_time < 20, "%s %s", key, doing != NULL ? doing : "");
}

START_TEST(test_waiting_texts_are_shown)
{
    enum { LABELS = 130 };
    char more[512];
    struct client waiting;
    write_keys(more, "");
    start_slow(more);
    char *text = many_labels(LABELS);
    struct bytes body = json_body(text);
    client_begin(&busy, &vitd, "POST", "/classify?model=long", picture.at, picture.length, operator_key);
    await_look("", "running", 1);
    client_begin(&waiting, &vitd, "POST", "/classify?labels=a,b", picture.at, picture.length, operator_key);
    await_look("pending", NULL, 1);
    ck_assert_double_eq(look("waiting", NULL), 1);
    ck_assert_double_eq(look("bytes", NULL), (double)(2 * picture.length + 2 * TINY_EMBEDDING * sizeof(float)));
    end_with(&waiting, 200);
    end_with(&busy, 200);
    await_look("waiting", NULL, 0);
    await_look("bytes", NULL, 0);
    free(body.at);
    free(text);
    daemon_stop(&vitd);
}
END_TEST

/* A client that leaves while its words wait costs no work, and nothing of it stays. */
START_TEST(test_clients_that_leave)
{
    char head[256];
    start_slow("");
    keep_busy();
    int fds[3];
    static const char *const paths[] = {"/classify?labels=a,b", "/explain?target=c", "/predictions/clip?labels=d"};
    for (int i = 0; i < 3; i++) {
        fds[i] = daemon_connect(&vitd);
        snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", paths[i], picture.length);
        say(fds[i], head);
        ck_assert_int_eq(write(fds[i], picture.at, picture.length), (ssize_t)picture.length);
        await_waiting(i + 1);
    }
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    end_with(&busy, 200);
    await_waiting(0);
    expect_alive();
    ck_assert_double_eq(texts_total("clip"), 2); /* of expect_alive() */
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"client_gone\"}"), 3);
    daemon_stop(&vitd);
}
END_TEST

/* A daemon that is told to stop embeds and classifies what it has accepted. */
START_TEST(test_words_that_wait_are_answered_at_the_end)
{
    struct client waiting[3];
    start_slow("");
    keep_busy();
    begin_words(&waiting[0], "/classify?labels=a,b", NULL);
    begin_words(&waiting[1], "/explain?target=c,d", NULL);
    client_begin(&waiting[2], &vitd, "POST", "/embed", "{\"text\": \"e\"}", 13, "Content-Type: " JSON);
    await_waiting(3);
    ck_assert_int_eq(kill(vitd.pid, SIGTERM), 0);
    for (int i = 0; i < 3; i++)
        end_with(&waiting[i], 200);
    end_with(&busy, 200);
    daemon_end(&vitd);
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_test(tests, test_answers_are_those_of_transformers);
    tcase_add_test(tests, test_scores_do_not_depend_on_the_way);
    tcase_add_test(tests, test_order_and_repetition);
    tcase_add_test(tests, test_functions_and_top_k);
    tcase_add_test(tests, test_several_images);
    tcase_add_test(tests, test_hugging_face_and_torchserve);
    tcase_add_test(tests, test_open_inference_protocol);
    tcase_add_test(tests, test_models_are_described);
    tcase_add_test(tests, test_explanations_of_words);
    tcase_add_test(tests, test_labels_are_embedded_once_for_scores_and_maps);
    tcase_add_test(tests, test_known_texts_are_not_embedded_again);
    tcase_add_test(tests, test_without_a_cache);
    tcase_add_test(tests, test_replies_are_kept);
    tcase_add_test(tests, test_other_weights_know_nothing);
    tcase_add_test(tests, test_many_labels);
    tcase_add_test(tests, test_many_clients);
    tcase_add_test(tests, test_reloads_under_load);
    tcase_add_test(tests, test_queries_that_are_refused);
    tcase_add_test(tests, test_bodies_that_are_refused);
    tcase_add_test(tests, test_too_much_text);
    tcase_add_test(tests, test_wrong_content_types);
    tcase_add_test(tests, test_configured_labels_that_are_refused);
    tcase_add_test(tests, test_texts_that_wait_too_long);
    tcase_add_test(tests, test_full_queue);
    tcase_add_test(tests, test_waiting_texts_are_shown);
    tcase_add_test(tests, test_clients_that_leave);
    tcase_add_test(tests, test_words_that_wait_are_answered_at_the_end);
}

int main(void)
{
    Suite *suite = suite_create("words over HTTP");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, prepare, clean_up);
    add_tests(tests);
    suite_add_tcase(suite, tests);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return suite_run(suite);
}
