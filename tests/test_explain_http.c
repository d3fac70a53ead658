/* test_explain_http.c - explanations as clients get them from a live daemon: maps, pictures, the inside of a model, the
 * page. */
#include <check.h>
#include <curl/curl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/golden.h"
#include "tests/suite.h"
#include "tests/upload.h"
#include "vit_image.h"

static const char *const small_model[] = {"--model", "small=tests/golden/vit-hf", "--model",
                                          "gap=tests/golden/vit-timm-gap", "--threads", "2", NULL};

static const char small_input[] = "tests/golden/vit-hf/input.png";

static struct reply post_file(const struct daemon *daemon, const char *path, const char *file, const char *header)
{
    size_t length;
    unsigned char *bytes = test_file(file, &length);
    struct reply reply = daemon_request(daemon, "POST", path, NULL, bytes, length, header);
    free(bytes);
    return reply;
}

static cJSON *post_json(const struct daemon *daemon, const char *path, const char *file)
{
    struct reply reply = post_file(daemon, path, file, NULL);
    ck_assert_msg(reply.curl == CURLE_OK && reply.status == 200, "%s: %ld %.300s", path, reply.status,
                  reply.body ? reply.body : "");
    cJSON *json = reply_json(&reply);
    reply_free(&reply);
    return json;
}

/* The picture in a reply. */
static vit_image picture_of(struct reply *reply)
{
    vit_image image = {0};
    vit_error err = {""};
    ck_assert_msg(reply->status == 200, "%ld %.300s", reply->status, reply->body);
    ck_assert_ptr_nonnull(strcasestr(reply->headers, "content-type: image/png\r\n"));
    ck_assert_mem_eq(reply->body, "\x89PNG", 4);
    ck_assert_msg(vit_image_decode(&image, reply->body, reply->length, 1 << 26, &err) == VIT_OK, "%s", err.message);
    reply_free(reply);
    return image;
}

static vit_image post_picture(const struct daemon *daemon, const char *path, const char *file)
{
    struct reply reply = post_file(daemon, path, file, NULL);
    return picture_of(&reply);
}

static bool same_pixels(const vit_image *a, const vit_image *b)
{
    return a->width == b->width && a->height == b->height &&
           memcmp(a->pixels, b->pixels, 3 * a->width * a->height) == 0;
}

/* The numbers of nested arrays, in order; returns how many. */
static size_t flatten(const cJSON *array, float *out, size_t capacity)
{
    size_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array) {
        if (cJSON_IsArray(item)) {
            count += flatten(item, out + count, capacity - count);
        } else {
            ck_assert(cJSON_IsNumber(item) && count < capacity);
            out[count++] = (float)item->valuedouble;
        }
    }
    return count;
}

static const cJSON *attention_of(const cJSON *json)
{
    const cJSON *attention = cJSON_GetObjectItem(json, "attention");
    ck_assert_ptr_nonnull(attention);
    return attention;
}

static void assert_close(const char *what, const float *got, const float *wanted, size_t count)
{
    double largest = 0, error = 0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)wanted[i]));
        error = fmax(error, fabs((double)got[i] - wanted[i]));
    }
    ck_assert_msg(error <= 1e-3 * largest, "%s: differs by %g of %g", what, error, largest);
}

/* ---- maps ---- */

/* The golden folders with a plain encoder; the others' maps are compared in test_model. */
static const char *const folders[] = {
    "vit-hf", "vit-hf-f16", "vit-hf-bf16", "vit-timm", "vit-timm-gap", "deit-hf", "deit-distilled-hf",
    "deit-distilled-timm", "deit3-timm", "vit-reg-timm", "vit-swiglu-timm", "vit-clip-timm", "dinov2-hf",
    "dinov2-swiglu-hf", "hybrid-stem-timm", "hybrid-resnet-timm", "hybrid-r50-odd-timm", "t2t-vit-performer",
    "t2t-vit-transformer", "t2t-80", "t2t-qkscale", "deepvit", "deepvit-s", "deepvit-cnn"};
enum { FOLDERS = sizeof folders / sizeof folders[0], MAX_VALUES = 1 << 14 };

static void check_map(const struct daemon *daemon, const char *folder, const char *query, const float *wanted,
                      size_t count)
{
    char path[200], input[100];
    float *got = malloc(MAX_VALUES * sizeof *got);
    snprintf(path, sizeof path, "/classify?model=%s&top_k=1&%s", folder, query);
    snprintf(input, sizeof input, "tests/golden/%s/input.png", folder);
    cJSON *json = post_json(daemon, path, input);
    const size_t values = flatten(cJSON_GetObjectItem(attention_of(json), "values"), got, MAX_VALUES);
    ck_assert_msg(values == count, "%s: %zu values, not %zu", path, values, count);
    assert_close(path, got, wanted, count);
    cJSON_Delete(json);
    free(got);
}

/* All raw maps of a golden folder: [L, NH, gh, gw] from attentions.<layer> [NH, T, T]. */
static size_t reference_raw(struct golden *golden, size_t patches, float *maps)
{
    char name[32];
    size_t count = 0, shape[3];
    for (size_t layer = 0;; layer++) {
        snprintf(name, sizeof name, "attentions.%zu", layer);
        if (golden_shape(golden, name, shape, 3) != 3)
            return count;
        size_t floats;
        const float *a = golden_get(golden, name, "F32", &floats);
        const size_t tokens = shape[1], prefix = tokens - patches, queries = prefix ? 1 : tokens;
        for (size_t head = 0; head < shape[0]; head++)
            for (size_t i = 0; i < patches; i++, count++) {
                double sum = 0;
                for (size_t q = 0; q < queries; q++)
                    sum += a[(head * tokens + q) * tokens + prefix + i];
                maps[count] = (float)(sum / (double)queries);
            }
    }
}

START_TEST(test_golden_maps_over_http)
{
    const char *arguments[2 * FOLDERS + 1] = {NULL};
    char models[FOLDERS][64], path[640];
    for (int i = 0; i < FOLDERS; i++) {
        snprintf(models[i], sizeof models[i], "tests/golden/%.40s", folders[i]);
        arguments[2 * i] = "--model";
        arguments[2 * i + 1] = models[i];
    }
    struct daemon daemon = daemon_start(NULL, arguments);
    float *raw = malloc(MAX_VALUES * sizeof *raw);
    for (int i = 0; i < FOLDERS; i++) {
        size_t count, patches, shape[3];
        snprintf(path, sizeof path, "%.60s/expected.safetensors", models[i]);
        struct golden *golden = golden_open(path);
        ck_assert_uint_eq(golden_shape(golden, "legrad", shape, 3), 3);
        patches = shape[1] * shape[2];
        const float *legrad = golden_get(golden, "legrad", "F32", &count);
        check_map(&daemon, folders[i], "attention=legrad&layer=all", legrad, count);
        check_map(&daemon, folders[i], "attention=legrad&layer=1", legrad + patches, patches);
        const float *rollout = golden_get(golden, "rollout", "F32", &count);
        if (rollout)
            check_map(&daemon, folders[i], "attention=rollout", rollout, count);
        count = reference_raw(golden, patches, raw);
        check_map(&daemon, folders[i], "attention=raw&layer=all&head=all", raw, count);
        golden_free(golden);
    }
    free(raw);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_targets)
{
    struct daemon daemon = daemon_start(NULL, (const char *const[]){"--threads", "1", NULL});
    float both[128], one[64], sum[64];
    cJSON *json = post_json(&daemon, "/classify?attention=legrad&target=Egyptian%20cat,30,tabby&top_k=1",
                            "config/samples/cat.jpg");
    const cJSON *attention = attention_of(json), *targets = cJSON_GetObjectItem(attention, "targets");
    ck_assert_int_eq(cJSON_GetArraySize(targets), 2); /* 30 is the tabby */
    ck_assert_str_eq(cJSON_GetObjectItem(targets->child, "label")->valuestring, "Egyptian cat");
    ck_assert_int_eq(cJSON_GetObjectItem(targets->child->next, "index")->valueint, 30);
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(attention, "values"), both, 128), 128);
    cJSON_Delete(json);

    json = post_json(&daemon, "/classify?attention=legrad&top_k=1", "config/samples/cat.jpg");
    attention = attention_of(json);
    ck_assert_str_eq(cJSON_GetObjectItem(cJSON_GetObjectItem(attention, "target"), "label")->valuestring, "tabby");
    ck_assert_int_eq(cJSON_GetObjectItem(attention, "layers")->valueint, 12);
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(attention, "values"), one, 64), 64);
    ck_assert_mem_eq(both + 64, one, sizeof one);
    ck_assert_mem_ne(both, one, sizeof one);
    float low = 1, high = 0;
    for (int i = 0; i < 64; i++) {
        low = fminf(low, one[i]);
        high = fmaxf(high, one[i]);
    }
    ck_assert(low == 0 && high == 1);
    cJSON_Delete(json);

    /* the same in JSON, which takes the place of the query's */
    struct bytes file = bytes_of_file("config/samples/cat.jpg"), base64 = bytes_of_base64(&file);
    struct upload upload =
        upload_text("{\"image\": \"%s\", \"target\": [\"Egyptian cat\", \"30\", \"tabby\"]}", (char *)base64.at);
    json = json_of(upload_post(&daemon, "/classify?attention=legrad&target=1&top_k=1", &upload,
                               "Content-Type: application/json"), 200);
    float again[128];
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(attention_of(json), "values"), again, 128), 128);
    ck_assert_mem_eq(again, both, sizeof both);
    cJSON_Delete(json);
    struct reply reply = upload_post(&daemon, "/classify?attention=raw", &upload, "Content-Type: application/json");
    reply_assert_error(&reply, 400, "invalid_parameter");
    reply_free(&reply);
    upload_free(&upload);
    upload = upload_text("{\"image\": \"%s\", \"target\": \"frog\"}", (char *)base64.at);
    reply = upload_post(&daemon, "/classify?attention=legrad", &upload, "Content-Type: application/json");
    reply_assert_error(&reply, 400, "invalid_parameter");
    ck_assert_msg(strstr(reply.body, "no class is called 'frog'") != NULL, "%s", reply.body);
    reply_free(&reply);
    static const char json_text[] = " {\"image\": 1}";
    reply = daemon_post(&daemon, "/classify", json_text, strlen(json_text));
    reply_assert_error(&reply, 415, "unsupported_image_type");
    ck_assert_msg(strstr(reply.body, "Content-Type: application/json") != NULL, "%s", reply.body);
    reply_free(&reply);
    upload_free(&upload);
    free(base64.at);
    free(file.at);

    json = post_json(&daemon, "/classify?attention=legrad&layers=3&top_k=1", "config/samples/cat.jpg");
    ck_assert_int_eq(cJSON_GetObjectItem(attention_of(json), "layers")->valueint, 3);
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(attention_of(json), "values"), sum, 64), 64);
    ck_assert_mem_ne(sum, one, sizeof one);
    cJSON_Delete(json);
    daemon_stop(&daemon);
}
END_TEST

static void refuse(const struct daemon *daemon, const char *path, long status, const char *code, const char *said)
{
    struct reply reply = post_file(daemon, path, small_input, NULL);
    reply_assert_error(&reply, status, code);
    ck_assert_msg(strstr(reply.body, said) != NULL, "%s: %s", path, reply.body);
    reply_free(&reply);
}

START_TEST(test_bad_choices_are_named)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    refuse(&daemon, "/classify?attention=rollout&model=gap", 422, "unsupported_explanation", "no class token");
    refuse(&daemon, "/explain?attention=rollout&model=gap", 422, "unsupported_explanation", "no class token");
    refuse(&daemon, "/classify?attention=legrad&target=frog", 400, "invalid_parameter", "no class is called 'frog'");
    refuse(&daemon, "/classify?attention=legrad&target=10", 400, "invalid_parameter", "classes 0 to 9");
    refuse(&daemon, "/classify?attention=raw&target=1", 400, "invalid_parameter", "target only goes with");
    refuse(&daemon, "/classify?target=1", 400, "invalid_parameter", "target only goes with");
    refuse(&daemon, "/classify?layer=1", 400, "invalid_parameter", "layer only goes with");
    refuse(&daemon, "/classify?attention=legrad&head=1", 400, "invalid_parameter", "head only goes with");
    refuse(&daemon, "/classify?attention=rollout&layer=1", 400, "invalid_parameter", "layer only goes with");
    refuse(&daemon, "/classify?attention=legrad&layers=4", 400, "invalid_parameter", "the model has 3");
    refuse(&daemon, "/classify?attention=legrad&layers=2&layer=1", 400, "invalid_parameter", "exclude");
    refuse(&daemon, "/classify?attention=raw&layer=3", 400, "invalid_parameter", "layers 0 to 2");
    refuse(&daemon, "/classify?attention=legrad&target=0,1,2,3,4,5,6,7,8,9,", 400, "invalid_parameter", "without a name");
    refuse(&daemon, "/classify?alpha=1", 400, "unknown_parameter", "alpha");
    refuse(&daemon, "/explain?attention=none", 400, "invalid_parameter", "nothing to explain");
    refuse(&daemon, "/explain?alpha=2", 400, "invalid_parameter", "0 to 1");
    refuse(&daemon, "/attention-distance?attention=raw", 400, "unknown_parameter", "attention");
    daemon_stop(&daemon);
}
END_TEST

/* ---- requests of every kind at once ---- */

struct wanted {
    const struct daemon *daemon;
    const char *path;
    char *answer; /* without the timing, which differs */
    int wrong;
};

static char *answer_to(const struct daemon *daemon, const char *path)
{
    struct reply reply = post_file(daemon, path, small_input, NULL);
    char *text = NULL;
    if (reply.curl == CURLE_OK && reply.status == 200)
        text = strndup(reply.body, (size_t)(strstr(reply.body, ",\"timing\"") - reply.body));
    reply_free(&reply);
    return text;
}

static void *repeat(void *context)
{
    struct wanted *wanted = context;
    for (int i = 0; i < 20; i++) {
        char *answer = answer_to(wanted->daemon, wanted->path);
        wanted->wrong += answer == NULL || strcmp(answer, wanted->answer) != 0;
        free(answer);
    }
    return NULL;
}

START_TEST(test_mixed_requests_do_not_disturb_each_other)
{
    static const char *const paths[] = {"/classify", "/classify?attention=raw", "/classify?attention=rollout",
                                        "/classify?attention=legrad", "/classify?attention=legrad&target=1,2&layers=2",
                                        "/attention-distance", "/embed", "/classify?attention=legrad&model=gap"};
    enum { COUNT = sizeof paths / sizeof paths[0] };
    struct daemon daemon = daemon_start(NULL, small_model);
    struct wanted wanted[COUNT];
    pthread_t threads[COUNT];
    for (int i = 0; i < COUNT; i++) {
        wanted[i] = (struct wanted){.daemon = &daemon, .path = paths[i], .answer = answer_to(&daemon, paths[i])};
        ck_assert_ptr_nonnull(wanted[i].answer);
    }
    for (int i = 0; i < COUNT; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, repeat, &wanted[i]), 0);
    for (int i = 0; i < COUNT; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_msg(wanted[i].wrong == 0, "%s: %d of 20 answers differ", paths[i], wanted[i].wrong);
        free(wanted[i].answer);
    }
    daemon_stop(&daemon);
}
END_TEST

/* ---- pictures ---- */

START_TEST(test_pictures)
{
    struct daemon daemon = daemon_start(NULL, NULL); /* vit-tiny-64: 64x64, enlarged to 256x256 */
    const char *const cat = "config/samples/cat.jpg";
    size_t length;
    vit_error err;
    vit_image upload, plain = post_picture(&daemon, "/explain?alpha=0", cat);
    vit_image legrad = post_picture(&daemon, "/explain", cat), again = post_picture(&daemon, "/explain?attention=legrad", cat);
    vit_image raw = post_picture(&daemon, "/explain?attention=raw", cat);
    vit_image rollout = post_picture(&daemon, "/explain?attention=rollout", cat);
    vit_image turbo = post_picture(&daemon, "/explain?colormap=turbo", cat);
    vit_image bare = post_picture(&daemon, "/explain?overlay=false", cat);
    vit_image original = post_picture(&daemon, "/explain?alpha=0&size=original", cat);
    ck_assert(legrad.width == 256 && legrad.height == 256);
    ck_assert(same_pixels(&legrad, &again)); /* legrad is the default */
    const vit_image *const different[] = {&plain, &legrad, &raw, &rollout, &turbo, &bare};
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < i; j++)
            ck_assert_msg(!same_pixels(different[i], different[j]), "pictures %d and %d are the same", i, j);

    unsigned char *bytes = test_file(cat, &length);
    ck_assert_int_eq(vit_image_decode(&upload, bytes, length, 1 << 26, &err), VIT_OK);
    ck_assert(same_pixels(&original, &upload)); /* the model sees all of it: no part is drawn darker */
    free(bytes);
    vit_image *const all[] = {&plain, &legrad, &again, &raw, &rollout, &turbo, &bare, &original, &upload};
    for (int i = 0; i < 9; i++)
        vit_image_release(all[i]);

    vit_image heads = post_picture(&daemon, "/explain?attention=raw&layer=all&head=all", cat);
    vit_image targets = post_picture(&daemon, "/explain?target=tabby,Egyptian%20cat", cat);
    ck_assert(heads.width >= 3 * 256 && heads.width < 4 * 256);       /* a column for each head, */
    ck_assert(heads.height >= 12 * 256 && heads.height < 14 * 256);   /* a row for each layer, and labels */
    ck_assert(targets.width >= 2 * 256 && targets.height > 256 && targets.height < 2 * 256);
    vit_image_release(&heads);
    vit_image_release(&targets);
    daemon_stop(&daemon);
}
END_TEST

/* --draft changes what the model sees, never the original. */
START_TEST(test_draft_keeps_the_original)
{
    static const char *const cat = "config/samples/cat.jpg";
    vit_image seen[2], original[2];
    for (int draft = 0; draft < 2; draft++) {
        struct daemon daemon = daemon_start(NULL, (const char *const[]){draft ? "--draft" : NULL, NULL});
        seen[draft] = post_picture(&daemon, "/explain?alpha=0", cat);
        original[draft] = post_picture(&daemon, "/explain?alpha=0&size=original", cat);
        struct reply models = daemon_get(&daemon, "/models");
        ck_assert_ptr_nonnull(strstr(models.body, draft ? "\"draft\":true" : "\"draft\":false"));
        reply_free(&models);
        daemon_stop(&daemon);
    }
    ck_assert(same_pixels(&original[0], &original[1]));
    ck_assert(seen[0].width == seen[1].width && !same_pixels(&seen[0], &seen[1]));
    for (int draft = 0; draft < 2; draft++) {
        vit_image_release(&seen[draft]);
        vit_image_release(&original[draft]);
    }
}
END_TEST

START_TEST(test_picture_or_json)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    struct reply reply = post_file(&daemon, "/explain?top_k=2", small_input, "Accept: application/json");
    cJSON *json = reply_json(&reply);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "predictions")), 2);
    ck_assert_str_eq(cJSON_GetObjectItem(attention_of(json), "method")->valuestring, "legrad");
    cJSON_Delete(json);
    reply_free(&reply);

    size_t length;
    unsigned char *bytes = test_file(small_input, &length);
    const void *const files[] = {bytes, bytes, "broken"};
    const size_t lengths[] = {length, length, 6};
    reply = daemon_post_files(&daemon, "/explain", files, lengths, 2);
    reply_assert_error(&reply, 400, "one_image_only");
    reply_free(&reply);
    reply = daemon_post_files(&daemon, "/explain", files, lengths, 1);
    vit_image image = picture_of(&reply);
    vit_image_release(&image);
    reply = daemon_post_files(&daemon, "/classify?attention=legrad", files, lengths, 3);
    json = reply_json(&reply);
    const cJSON *results = cJSON_GetObjectItem(json, "results");
    ck_assert_int_eq(cJSON_GetArraySize(results), 3);
    ck_assert_ptr_nonnull(cJSON_GetObjectItem(cJSON_GetArrayItem(results, 1), "attention"));
    ck_assert_ptr_nonnull(cJSON_GetObjectItem(cJSON_GetArrayItem(results, 2), "error"));
    cJSON_Delete(json);
    reply_free(&reply);
    free(bytes);

    reply = daemon_post(&daemon, "/explain", "not a picture", 13);
    reply_assert_error(&reply, 415, "unsupported_image_type");
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_picture_that_would_be_too_large)
{
    struct daemon daemon = daemon_start("{\"limits\": {\"max_pixels\": 400000}}", NULL);
    struct reply reply = post_file(&daemon, "/explain?attention=raw&layer=all&head=all", "config/samples/cat.jpg", NULL);
    reply_assert_error(&reply, 422, "picture_too_large");
    reply_free(&reply);
    vit_image one = post_picture(&daemon, "/explain", "config/samples/cat.jpg");
    vit_image_release(&one);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the inside of a model ---- */

static cJSON *get_json(const struct daemon *daemon, const char *path)
{
    struct reply reply = daemon_get(daemon, path);
    ck_assert_msg(reply.status == 200, "%s: %ld", path, reply.status);
    cJSON *json = reply_json(&reply);
    reply_free(&reply);
    return json;
}

START_TEST(test_inside)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    static float values[1 << 16];
    static const char *const pictures[] = {"/models/small/filters.png", "/models/small/positions.png",
                                           "/models/gap/filters.png", "/models/gap/positions.png"};
    for (int i = 0; i < 4; i++) {
        struct reply reply = daemon_get(&daemon, pictures[i]);
        vit_image picture = picture_of(&reply);
        ck_assert(picture.width > 100 && picture.height > 100);
        vit_image_release(&picture);
    }
    cJSON *json = get_json(&daemon, "/models/small/filters");
    const size_t patch = (size_t)cJSON_GetObjectItem(json, "patch_size")->valueint;
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "variances")), 28);
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(json, "components"), values, 1 << 16), 28 * 3 * patch * patch);
    cJSON_Delete(json);
    json = get_json(&daemon, "/models/small/positions");
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(json, "similarity"), values, 1 << 16), 36 * 36);
    for (int i = 0; i < 36; i++)
        ck_assert_float_eq_tol(values[i * 36 + i], 1, 1e-5f);
    cJSON_Delete(json);
    struct reply reply = daemon_get(&daemon, "/models/none/filters.png");
    reply_assert_error(&reply, 404, "model_not_found");
    reply_free(&reply);

    json = post_json(&daemon, "/attention-distance", small_input);
    ck_assert_uint_eq(flatten(cJSON_GetObjectItem(json, "distances"), values, 1 << 16), 3 * 4);
    for (int i = 0; i < 12; i++)
        ck_assert(values[i] > 0 && values[i] < 48 * 1.4142f);
    cJSON_Delete(json);
    reply = post_file(&daemon, "/attention-distance", small_input, "Accept: image/png");
    vit_image plot = picture_of(&reply);
    vit_image_release(&plot);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the page ---- */

/* The value of a header; to be freed. */
static char *header_of(const struct reply *reply, const char *name)
{
    const char *line = strcasestr(reply->headers, name);
    ck_assert_msg(line != NULL, "no %s", name);
    line += strlen(name);
    return strndup(line, strcspn(line, "\r\n"));
}

START_TEST(test_page)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    char nonces[2][40];
    for (int i = 0; i < 2; i++) {
        struct reply reply = daemon_get(&daemon, "/");
        ck_assert_int_eq(reply.status, 200);
        char *type = header_of(&reply, "content-type: "), *policy = header_of(&reply, "content-security-policy: ");
        ck_assert_str_eq(type, "text/html; charset=utf-8");
        ck_assert_ptr_nonnull(strstr(policy, "default-src 'none'"));
        ck_assert_ptr_null(strstr(policy, "unsafe"));
        ck_assert_int_eq(sscanf(strstr(policy, "'nonce-"), "'nonce-%39[0-9a-f]'", nonces[i]), 1);
        ck_assert_uint_eq(strlen(nonces[i]), 32);
        ck_assert_ptr_nonnull(strstr(reply.body, nonces[i]));
        ck_assert_ptr_null(strstr(reply.body, "@NONCE@"));
        ck_assert_ptr_null(strstr(reply.body, "src=\"http"));
        free(type);
        free(policy);
        reply_free(&reply);
    }
    ck_assert_str_ne(nonces[0], nonces[1]);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the command line ---- */

static int run_command(const char *arguments)
{
    char command[800];
    const char *binary = getenv("VITD_BINARY");
    snprintf(command, sizeof command, "%s classify %s >/dev/null 2>&1", binary ? binary : "build/vitd", arguments);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The command line draws what the daemon draws. */
START_TEST(test_classify_writes_a_picture)
{
    char folder[] = "/tmp/vitd-test-XXXXXX", file[64], arguments[300];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/map.png", folder);
    snprintf(arguments, sizeof arguments,
             "--attention legrad --target 32 --colormap turbo --output %s config/samples/cat.jpg", file);
    ck_assert_int_eq(run_command(arguments), 0);
    size_t length;
    unsigned char *bytes = test_file(file, &length);
    struct daemon daemon = daemon_start(NULL, NULL);
    struct reply reply = post_file(&daemon, "/explain?target=32&colormap=turbo", "config/samples/cat.jpg", NULL);
    ck_assert_uint_eq(reply.length, length);
    ck_assert_mem_eq(reply.body, bytes, length);
    reply_free(&reply);
    daemon_stop(&daemon);
    free(bytes);
    unlink(file);

    ck_assert_int_eq(run_command("--attention legrad config/samples/cat.jpg"), 2);
    ck_assert_int_eq(run_command("--output /tmp/x.png config/samples/cat.jpg"), 2);
    ck_assert_int_eq(run_command("--attention legrad --output /tmp/x.png a.jpg b.jpg"), 2);
    ck_assert_int_eq(run_command("--attention gradcam --output /tmp/x.png config/samples/cat.jpg"), 2);
    snprintf(arguments, sizeof arguments, "--attention legrad --target frog --output %s config/samples/cat.jpg", file);
    ck_assert_int_eq(run_command(arguments), 1);
    snprintf(arguments, sizeof arguments, "--attention raw --output %s/no/map.png config/samples/cat.jpg", folder);
    ck_assert_int_eq(run_command(arguments), 1);
    ck_assert_int_eq(access(file, F_OK), -1);
    rmdir(folder);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        test_golden_maps_over_http, test_targets, test_bad_choices_are_named,
        test_mixed_requests_do_not_disturb_each_other, test_pictures, test_draft_keeps_the_original, test_picture_or_json,
        test_picture_that_would_be_too_large, test_inside, test_page, test_classify_writes_a_picture,
    };
    Suite *suite = suite_create("explain over HTTP");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(all, tests[i]);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}
