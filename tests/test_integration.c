/*
 * test_integration.c - the real daemon, started on a free port, spoken to over sockets.
 *
 * Most cases serve golden/vit-hf (48x48, three layers), so that they are quick under the sanitizers too.
 */
#include <arpa/inet.h>
#include <check.h>
#include <fcntl.h>
#include <glob.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/golden.h"
#include "tests/suite.h"

static const char *const small_model[] = {"--model", "small=tests/golden/vit-hf", "--threads", "2", NULL};

struct picture {
    unsigned char *bytes;
    size_t length;
};

static struct picture picture(const char *path)
{
    struct picture p;
    p.bytes = test_file(path, &p.length);
    return p;
}

static struct reply post_picture(const struct daemon *daemon, const char *path, const char *file)
{
    struct picture p = picture(file);
    struct reply reply = daemon_post(daemon, path, p.bytes, p.length);
    free(p.bytes);
    return reply;
}

/* ---- answers ---- */

START_TEST(test_bundled_model_names_the_samples)
{
    const char *const files[] = {"cat.jpg", "coffee.jpg"};
    size_t length;
    char *text = (char *)test_file("tests/golden/samples-expected.json", &length);
    cJSON *expected = cJSON_Parse(text);
    struct daemon daemon = daemon_start(NULL, NULL);
    for (size_t i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "config/samples/%s", files[i]);
        struct reply reply = post_picture(&daemon, "/classify", path);
        ck_assert_int_eq(reply.status, 200);
        cJSON *json = reply_json(&reply);
        ck_assert_str_eq(member_string(json, "model"), "vit-tiny-64");
        const cJSON *predictions = cJSON_GetObjectItem(json, "predictions");
        const cJSON *wanted = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "vit-tiny-64"), files[i]);
        ck_assert_int_eq(cJSON_GetArraySize(predictions), 5);
        for (int k = 0; k < 5; k++) {
            const cJSON *got = cJSON_GetArrayItem(predictions, k), *want = cJSON_GetArrayItem(wanted, k);
            ck_assert_str_eq(member_string(got, "label"), member_string(want, "label"));
            ck_assert_double_eq(member_number(got, "index"), member_number(want, "index"));
            ck_assert_double_eq_tol(member_number(got, "score"), member_number(want, "score"), 1e-4);
        }
        const cJSON *timing = cJSON_GetObjectItem(json, "timing");
        ck_assert_double_ge(member_number(timing, "queue_ms"), 0);
        ck_assert_double_gt(member_number(timing, "preprocess_ms"), 0);
        ck_assert_double_gt(member_number(timing, "inference_ms"), 0);
        ck_assert_double_eq(member_number(timing, "batch_size"), 1);
        cJSON_Delete(json);
        reply_free(&reply);
    }
    daemon_stop(&daemon);
    cJSON_Delete(expected);
    free(text);
}
END_TEST

enum { MOST_FOLDERS = 64 };

/* Starts a daemon with every golden model folder; their names go to *folders, to be freed with globfree(). */
static struct daemon serve_golden(glob_t *folders)
{
    const char *arguments[2 * MOST_FOLDERS + 1] = {NULL};
    ck_assert_int_eq(glob("tests/golden/*/config.json", 0, NULL, folders), 0);
    ck_assert_uint_ge(folders->gl_pathc, 34);
    ck_assert_uint_le(folders->gl_pathc, MOST_FOLDERS);
    for (size_t i = 0; i < folders->gl_pathc; i++) {
        *strrchr(folders->gl_pathv[i], '/') = '\0';
        arguments[2 * i] = "--model";
        arguments[2 * i + 1] = folders->gl_pathv[i];
    }
    return daemon_start(NULL, arguments);
}

/* All logits in a reply to function_to_apply=none and top_k=0, within 1e-4 of the largest. */
static void check_logits(const cJSON *json, const char *name, const float *logits, size_t count)
{
    const cJSON *predictions = cJSON_GetObjectItem(json, "predictions"), *item;
    double largest = 0, error = 0, previous = INFINITY;
    ck_assert_uint_eq((size_t)cJSON_GetArraySize(predictions), count);
    cJSON_ArrayForEach(item, predictions) {
        double score = member_number(item, "score"), want = (double)logits[(size_t)member_number(item, "index")];
        ck_assert_double_le(score, previous);
        previous = score;
        largest = fmax(largest, fabs(want));
        error = fmax(error, fabs(score - want));
    }
    ck_assert_msg(error <= 1e-4 * largest, "%s: %g of %g", name, error, largest);
}

/* The raw map is there and fits its grid, or, for a ResNet, is refused. */
static void check_raw_map(const struct daemon *daemon, const char *folder)
{
    char path[200], input[200];
    const char *name = strrchr(folder, '/') + 1;
    snprintf(path, sizeof path, "/classify?model=%s&attention=raw", name);
    snprintf(input, sizeof input, "%s/input.png", folder);
    struct reply reply = post_picture(daemon, path, input);
    if (strncmp(name, "resnet", 6) == 0) {
        reply_assert_error(&reply, 422, "unsupported_explanation");
    } else {
        cJSON *json = reply_json(&reply);
        const cJSON *attention = cJSON_GetObjectItem(json, "attention");
        const cJSON *grid = cJSON_GetObjectItem(attention, "grid"), *values = cJSON_GetObjectItem(attention, "values");
        ck_assert_msg(attention != NULL, "%s: %.300s", name, reply.body);
        ck_assert_str_eq(member_string(attention, "method"), "raw");
        ck_assert_int_eq(cJSON_GetArraySize(values), cJSON_GetArrayItem(grid, 0)->valueint);
        ck_assert_int_eq(cJSON_GetArraySize(values->child), cJSON_GetArrayItem(grid, 1)->valueint);
        cJSON_Delete(json);
    }
    reply_free(&reply);
}

/* Distances are there where GET /models says so, and else refused. */
static void check_distances(const struct daemon *daemon, const char *folder)
{
    char path[200], input[200];
    const char *name = strrchr(folder, '/') + 1;
    snprintf(path, sizeof path, "/models/%s", name);
    struct reply reply = daemon_get(daemon, path);
    cJSON *model = reply_json(&reply);
    const bool defined = cJSON_IsTrue(cJSON_GetObjectItem(model, "attention_distances"));
    reply_free(&reply);
    cJSON_Delete(model);
    ck_assert_int_eq(defined, strncmp(name, "swin", 4) != 0 && strncmp(name, "mvit", 4) != 0 &&
                                  strncmp(name, "resnet", 6) != 0 && strncmp(name, "deepvit", 7) != 0);
    snprintf(path, sizeof path, "/attention-distance?model=%s", name);
    snprintf(input, sizeof input, "%s/input.png", folder);
    reply = post_picture(daemon, path, input);
    if (defined)
        ck_assert_msg(reply.status == 200, "%.500s", reply.body);
    else
        reply_assert_error(&reply, 422, "unsupported_explanation");
    reply_free(&reply);
}

/* The logits of every golden folder, over HTTP, and its attention map. */
START_TEST(test_golden_folders_over_http)
{
    glob_t folders;
    struct daemon daemon = serve_golden(&folders);
    for (size_t i = 0; i < folders.gl_pathc; i++) {
        const char *folder = folders.gl_pathv[i];
        char path[640], input[200];
        size_t count;
        snprintf(path, sizeof path, "%s/expected.safetensors", folder);
        struct golden *golden = golden_open(path);
        const float *logits = golden_get(golden, "logits", "F32", &count);
        snprintf(path, sizeof path, "/classify?model=%s&top_k=0&function_to_apply=none", strrchr(folder, '/') + 1);
        snprintf(input, sizeof input, "%s/input.png", folder);
        struct reply reply = post_picture(&daemon, path, input);
        ck_assert_msg(reply.status == 200, "%.500s", reply.body);
        cJSON *json = reply_json(&reply);
        check_logits(json, folder, logits, count);
        check_raw_map(&daemon, folder);
        check_distances(&daemon, folder);
        cJSON_Delete(json);
        reply_free(&reply);
        golden_free(golden);
    }
    daemon_stop(&daemon);
    globfree(&folders);
}
END_TEST

/* A model in its own size beside the same in a larger one, set by the file; and by the command line for all. */
START_TEST(test_image_size)
{
    size_t count;
    struct golden *own = golden_open("tests/golden/vit-hf/expected.safetensors");
    struct golden *larger = golden_open("tests/golden/vit-hf/larger.safetensors");
    char text[9000], here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(text, sizeof text,
             "{\"models\": [{\"name\": \"own\", \"path\": \"%s/tests/golden/vit-hf\"},\n"
             "{\"name\": \"larger\", \"path\": \"%s/tests/golden/vit-hf\", \"image_size\": 72}]}", here, here);
    for (int overridden = 0; overridden < 2; overridden++) {
        struct daemon daemon =
            daemon_start(text, overridden ? (const char *const[]){"--image-size", "72", NULL} : (const char *const[]){NULL});
        struct reply reply = post_picture(&daemon, "/classify?model=larger&top_k=0&function_to_apply=none",
                                          "tests/golden/vit-hf/larger.png");
        cJSON *json = reply_json(&reply);
        check_logits(json, "larger", golden_get(larger, "logits", "F32", &count), 10);
        cJSON_Delete(json);
        reply_free(&reply);
        reply = post_picture(&daemon, "/classify?model=own&top_k=0&function_to_apply=none",
                             overridden ? "tests/golden/vit-hf/larger.png" : "tests/golden/vit-hf/input.png");
        json = reply_json(&reply);
        check_logits(json, "own", golden_get(overridden ? larger : own, "logits", "F32", &count), 10);
        cJSON_Delete(json);
        reply_free(&reply);
        reply = daemon_get(&daemon, "/models/own");
        ck_assert_ptr_nonnull(strstr(reply.body, overridden ? "\"grid\":[9,9],\"tokens\":82" : "\"grid\":[6,6],\"tokens\":37"));
        ck_assert_ptr_nonnull(strstr(reply.body, overridden ? "\"image_size\":[72,72]" : "\"image_size\":[48,48]"));
        reply_free(&reply);
        daemon_stop(&daemon);
    }
    golden_free(own);
    golden_free(larger);
}
END_TEST

START_TEST(test_attention_shapes_and_values)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    size_t count;
    struct golden *golden = golden_open("tests/golden/vit-hf/expected.safetensors");
    const float *all = golden_get(golden, "attentions.1", "F32", &count); /* [4, 37, 37] */
    struct reply reply =
        post_picture(&daemon, "/classify?attention=raw&layer=all&head=all", "tests/golden/vit-hf/input.png");
    cJSON *json = reply_json(&reply);
    const cJSON *values = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "attention"), "values");
    ck_assert_int_eq(cJSON_GetArraySize(values), 3);
    ck_assert_int_eq(cJSON_GetArraySize(values->child), 4);
    const cJSON *map = cJSON_GetArrayItem(cJSON_GetArrayItem(values, 1), 2);
    for (int i = 0; i < 36; i++) {
        double got = cJSON_GetArrayItem(cJSON_GetArrayItem(map, i / 6), i % 6)->valuedouble;
        ck_assert_double_eq_tol(got, all[2 * 37 * 37 + 1 + i], 1e-5);
    }
    cJSON_Delete(json);
    reply_free(&reply);
    reply = post_picture(&daemon, "/classify?attention=raw&layer=1&head=2", "tests/golden/vit-hf/input.png");
    json = reply_json(&reply);
    map = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "attention"), "values");
    ck_assert_double_eq_tol(cJSON_GetArrayItem(cJSON_GetArrayItem(map, 5), 5)->valuedouble,
                            all[2 * 37 * 37 + 36], 1e-5);
    cJSON_Delete(json);
    reply_free(&reply);
    golden_free(golden);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_embed_equals_reference)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    size_t count;
    struct golden *golden = golden_open("tests/golden/vit-hf/expected.safetensors");
    const float *features = golden_get(golden, "features", "F32", &count);
    struct reply reply = post_picture(&daemon, "/embed", "tests/golden/vit-hf/input.png");
    ck_assert_int_eq(reply.status, 200);
    cJSON *json = reply_json(&reply);
    const cJSON *embedding = cJSON_GetObjectItem(json, "embedding");
    ck_assert_double_eq(member_number(json, "dim"), (double)count);
    ck_assert_uint_eq((size_t)cJSON_GetArraySize(embedding), count);
    for (size_t i = 0; i < count; i++)
        ck_assert_double_eq_tol(cJSON_GetArrayItem(embedding, (int)i)->valuedouble, features[i], 1e-4);
    cJSON_Delete(json);
    reply_free(&reply);
    golden_free(golden);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_multipart_answers_in_order)
{
    struct daemon daemon = daemon_start(NULL, NULL);
    struct picture cat = picture("config/samples/cat.jpg"), coffee = picture("config/samples/coffee.jpg");
    const void *files[] = {cat.bytes, "not a picture", coffee.bytes, cat.bytes};
    const size_t lengths[] = {cat.length, 13, coffee.length, cat.length / 2};
    struct reply reply = daemon_post_files(&daemon, "/classify?top_k=1", files, lengths, 4);
    ck_assert_int_eq(reply.status, 200);
    cJSON *json = reply_json(&reply);
    const cJSON *results = cJSON_GetObjectItem(json, "results");
    ck_assert_int_eq(cJSON_GetArraySize(results), 4);
    ck_assert_str_eq(top_label(cJSON_GetArrayItem(results, 0)), "tabby");
    ck_assert_str_eq(member_string(cJSON_GetObjectItem(cJSON_GetArrayItem(results, 1), "error"), "code"),
                     "unsupported_image_type");
    ck_assert_str_eq(top_label(cJSON_GetArrayItem(results, 2)), "espresso");
    ck_assert_str_eq(member_string(cJSON_GetObjectItem(cJSON_GetArrayItem(results, 3), "error"), "code"),
                     "undecodable_image");
    cJSON_Delete(json);
    reply_free(&reply);
    free(cat.bytes);
    free(coffee.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_models_and_probes)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    const char *const paths[] = {"/healthz", "/readyz", "/models", "/models/small", "/metrics"};
    for (size_t i = 0; i < 5; i++) {
        struct reply reply = daemon_get(&daemon, paths[i]);
        ck_assert_msg(reply.curl == CURLE_OK && reply.status == 200, "%s: %ld", paths[i], reply.status);
        ck_assert_ptr_nonnull(strcasestr(reply.headers, "x-request-id: "));
        reply_free(&reply);
        reply = daemon_request(&daemon, "HEAD", paths[i], NULL, NULL, 0, NULL);
        ck_assert_msg(reply.curl == CURLE_OK && reply.status == 200 && reply.length == 0, "HEAD %s", paths[i]);
        reply_free(&reply);
    }
    struct reply reply = daemon_get(&daemon, "/models/small");
    cJSON *json = reply_json(&reply);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "labels")), 10);
    cJSON_Delete(json);
    reply_free(&reply);
    reply = daemon_request(&daemon, "GET", "/healthz", NULL, NULL, 0, "X-Request-Id: my-own-id.7");
    ck_assert_ptr_nonnull(strcasestr(reply.headers, "x-request-id: my-own-id.7\r\n"));
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_metrics_count)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    for (int i = 0; i < 3; i++) {
        struct reply reply = post_picture(&daemon, "/classify", "tests/golden/vit-hf/input.png");
        reply_free(&reply);
    }
    struct reply bad = daemon_post(&daemon, "/classify", "junk", 4);
    reply_free(&bad);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"classify\",model=\"small\",code=\"200\"}"), 3);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"classify\",model=\"small\",code=\"415\"}"), 1);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_images_total{model=\"small\"}"), 3);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_queue_depth"), 0);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_inference_duration_seconds_count{model=\"small\"}"), 3);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_batch_size_count{model=\"small\"}"), 3);
    ck_assert_double_gt(daemon_metric(&daemon, "process_resident_memory_bytes"), 1e6);
    daemon_stop(&daemon);
}
END_TEST

/* ---- refusals ---- */

START_TEST(test_errors_say_what_to_do)
{
    struct daemon daemon = daemon_start("{\"limits\": {\"max_body_bytes\": 100000, \"max_pixels\": 10000}}", small_model);
    struct picture good = picture("tests/golden/vit-hf/input.png"), cat = picture("config/samples/cat.jpg");
    static const struct {
        const char *method, *path;
        long status;
        const char *code;
    } cases[] = {{"GET", "/nowhere", 404, "route_not_found"},
                 {"POST", "/nowhere", 404, "route_not_found"},
                 {"GET", "/models/none", 404, "model_not_found"},
                 {"POST", "/classify?model=none", 404, "model_not_found"},
                 {"GET", "/classify", 405, "method_not_allowed"},
                 {"POST", "/healthz", 405, "method_not_allowed"},
                 {"DELETE", "/models/small", 405, "method_not_allowed"},
                 {"POST", "/classify?top_k=x", 400, NULL},
                 {"POST", "/classify?top_k=-1", 400, NULL},
                 {"POST", "/classify?topk=1", 400, NULL},
                 {"POST", "/classify?top_k=1&top_k=2", 400, NULL},
                 {"POST", "/classify?function_to_apply=relu", 400, NULL},
                 {"POST", "/classify?attention=magic", 400, NULL},
                 {"POST", "/classify?attention=raw&layer=3", 400, NULL},
                 {"POST", "/classify?attention=raw&head=4", 400, NULL},
                 {"POST", "/classify?attention=raw&head=9999999999", 400, NULL},
                 {"POST", "/classify?%zz", 400, NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool post = strcmp(cases[i].method, "POST") == 0;
        struct reply reply = daemon_request(&daemon, cases[i].method, cases[i].path, NULL,
                                            post ? good.bytes : NULL, post ? good.length : 0, NULL);
        ck_assert_msg(reply.status == cases[i].status, "%s %s: %ld %s", cases[i].method, cases[i].path, reply.status,
                      reply.body);
        if (cases[i].code != NULL)
            reply_assert_error(&reply, cases[i].status, cases[i].code);
        ck_assert_ptr_nonnull(strcasestr(reply.headers, "x-request-id: "));
        if (cases[i].status == 405)
            ck_assert_ptr_nonnull(strcasestr(reply.headers, "allow: "));
        reply_free(&reply);
    }
    struct reply reply = daemon_post(&daemon, "/classify", "", 0);
    ck_assert_int_eq(reply.status, 400);
    reply_free(&reply);
    reply = daemon_post(&daemon, "/classify", "GIF89a..........", 16);
    reply_assert_error(&reply, 415, "unsupported_image_type");
    reply_free(&reply);
    reply = daemon_post(&daemon, "/classify", good.bytes, good.length - 100);
    reply_assert_error(&reply, 422, "undecodable_image");
    reply_free(&reply);
    reply = daemon_post(&daemon, "/classify", cat.bytes, cat.length / 2);
    ck_assert_int_eq(reply.status, 422);
    reply_free(&reply);
    reply = daemon_post(&daemon, "/classify", cat.bytes, cat.length); /* 451x300 */
    reply_assert_error(&reply, 422, "too_many_pixels");
    reply_free(&reply);
    unsigned char *large = calloc(1, 100001);
    reply = daemon_post(&daemon, "/classify", large, 100001);
    ck_assert_msg(reply.status == 413, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
    free(large);
    reply = daemon_post(&daemon, "/classify", good.bytes, good.length); /* and it still works */
    ck_assert_int_eq(reply.status, 200);
    reply_free(&reply);
    free(good.bytes);
    free(cat.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* A BMP, 24 bits per pixel, of one grey; the width is a multiple of 4, so that rows need no padding. */
static struct picture grey_bmp(unsigned width, unsigned height, unsigned char grey)
{
    const unsigned length = 54 + 3 * width * height;
    struct picture p = {malloc(length), length};
    const unsigned header[] = {length, 0, 54, 40, width, height, 24u << 16 | 1, 0, length - 54, 0, 0, 0, 0};
    memcpy(p.bytes, "BM", 2);
    memcpy(p.bytes + 2, header, sizeof header);
    memset(p.bytes + 54, grey, length - 54);
    return p;
}

/* golden/vit-hf with other preprocessing, in a temporary folder. */
static void make_model(char folder[32], const char *preprocessing)
{
    char command[128], path[64];
    strcpy(folder, "/tmp/vitd-model-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(command, sizeof command, "cp tests/golden/vit-hf/config.json tests/golden/vit-hf/model.safetensors %s", folder);
    ck_assert_int_eq(system(command), 0);
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(preprocessing, file);
    fclose(file);
}

static void remove_model(const char *folder)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

/* This preprocessing makes white overflow in the model, and black not. */
START_TEST(test_overflow_fails_one_image_of_a_batch)
{
    char folder[32];
    make_model(folder, "{\"do_resize\": true, \"size\": {\"height\": 48, \"width\": 48}, \"rescale_factor\": 1e36, "
                       "\"image_mean\": [0, 0, 0], \"image_std\": [1, 1, 1]}");
    struct daemon daemon = daemon_start("{\"batching\": {\"max_queue_delay_us\": 1000000}}",
                                        (const char *[]){"--model", folder, "--threads", "1", NULL});
    struct picture black = grey_bmp(48, 48, 0), white = grey_bmp(48, 48, 255);
    const void *files[] = {black.bytes, white.bytes, black.bytes};
    struct reply reply =
        daemon_post_files(&daemon, "/classify", files, (size_t[]){black.length, white.length, black.length}, 3);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    cJSON *json = reply_json(&reply);
    const cJSON *results = cJSON_GetObjectItem(json, "results"), *bad = cJSON_GetArrayItem(results, 1);
    for (int i = 0; i < 3; i += 2) {
        const cJSON *good = cJSON_GetArrayItem(results, i);
        ck_assert_msg(cJSON_GetObjectItem(good, "predictions") != NULL, "%s", reply.body);
        ck_assert_double_eq(member_number(cJSON_GetObjectItem(good, "timing"), "batch_size"), 3);
    }
    ck_assert_str_eq(member_string(cJSON_GetObjectItem(bad, "error"), "code"), "internal_error");
    ck_assert_str_eq(member_string(cJSON_GetObjectItem(bad, "error"), "message"),
                     "the model's weights give a logit that is not finite");
    cJSON_Delete(json);
    reply_free(&reply);
    reply = daemon_post(&daemon, "/classify", white.bytes, white.length);
    reply_assert_error(&reply, 500, "internal_error");
    reply_free(&reply);
    free(black.bytes);
    free(white.bytes);
    daemon_stop(&daemon);
    remove_model(folder);
}
END_TEST

/* What is wrong with a picture's size: each error says its own cause, and only that. */
START_TEST(test_size_errors_name_their_cause)
{
    static const struct {
        unsigned width, height;
        const char *code, *says;
    } cases[] = {
        {72, 72, "too_many_pixels", "5184 pixels (72x72); at most 5000 are allowed"},
        {70000, 1, "too_many_pixels", "70000x1; a side may have at most 65535 pixels"},
        {52, 52, "unsuitable_size", "neither resizes nor crops; this image comes to 52x52"},
    };
    char folder[32];
    make_model(folder, "{\"do_resize\": false, \"image_mean\": [0, 0, 0], \"image_std\": [1, 1, 1]}");
    struct daemon daemon = daemon_start("{\"limits\": {\"max_pixels\": 5000}}",
                                        (const char *[]){"--model", folder, "--threads", "1", NULL});
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct picture p = grey_bmp(cases[i].width, cases[i].height, 99);
        struct reply reply = daemon_post(&daemon, "/classify", p.bytes, p.length);
        reply_assert_error(&reply, 422, cases[i].code);
        ck_assert_msg(strstr(reply.body, cases[i].says) != NULL, "%s", reply.body);
        ck_assert_msg(strstr(reply.body, "max_pixels") == NULL, "%s", reply.body);
        reply_free(&reply);
        free(p.bytes);
    }
    daemon_stop(&daemon);
    remove_model(folder);
}
END_TEST

START_TEST(test_too_many_images_names_the_limit)
{
    static const struct {
        const char *config, *says;
    } cases[] = {
        {"{\"batching\": {\"max_queue_size\": 2}}", "may carry 2 images (batching.max_queue_size"},
        {"{\"limits\": {\"max_images_per_request\": 2}}", "may carry 2 images (limits.max_images_per_request)"},
    };
    const void *files[] = {"a", "b", "c"};
    for (size_t i = 0; i < 2; i++) {
        struct daemon daemon = daemon_start(cases[i].config, small_model);
        struct reply reply = daemon_post_files(&daemon, "/classify", files, (size_t[]){1, 1, 1}, 3);
        reply_assert_error(&reply, 413, "too_many_images");
        ck_assert_msg(strstr(reply.body, cases[i].says) != NULL, "%s", reply.body);
        reply_free(&reply);
        daemon_stop(&daemon);
    }
}
END_TEST

START_TEST(test_ambiguous_framing_is_refused)
{
    static const char *const cases[] = {
        "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\njunk",
        "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    };
    struct daemon daemon = daemon_start("{\"limits\": {\"header_timeout_ms\": 2000, \"body_timeout_ms\": 2000}}", small_model);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *answer = daemon_exchange(&daemon, cases[i], strlen(cases[i]));
        ck_assert_msg(strncmp(answer, "HTTP/1.1 400 ", 13) == 0, "case %zu: %s", i, answer);
        ck_assert_msg(strstr(answer + 13, "HTTP/1.1 ") == NULL, "case %zu was answered twice: %s", i, answer);
        free(answer);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_missing_length_answers_411)
{
    const char *text = "POST /classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    struct daemon daemon = daemon_start(NULL, small_model);
    char *answer = daemon_exchange(&daemon, text, strlen(text));
    ck_assert_msg(strncmp(answer, "HTTP/1.1 411 ", 13) == 0, "%.500s", answer);
    ck_assert_ptr_nonnull(strstr(answer, "\"code\":\"length_required\""));
    free(answer);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_refusal_comes_before_the_body)
{
    const char *text = "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n";
    struct daemon daemon = daemon_start(NULL, small_model);
    char *answer = daemon_exchange(&daemon, text, strlen(text));
    ck_assert_msg(strncmp(answer, "HTTP/1.1 413 ", 13) == 0, "%s", answer);
    free(answer);
    daemon_stop(&daemon);
}
END_TEST

/* Blanks after a value do not count. Where libmicrohttpd counts them, the request is refused, and not misread. */
START_TEST(test_blanks_after_header_values)
{
    static const struct {
        const char *text, *status, *says;
    } cases[] = {
        {"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Request-Id: my-own-id \t\r\n\r\n", "200",
         "X-Request-Id: my-own-id\r\n"},
        {"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue \r\n\r\n", "404",
         "Connection: close\r\n"},
        {"POST /classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked \r\n\r\n4\r\njunk\r\n0\r\n\r\n", "400",
         "no blanks after it"},
        {"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 4 \r\n\r\njunk", "400", ""},
    };
    struct daemon daemon = daemon_start(NULL, small_model);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const double start = test_clock();
        char *answer = daemon_exchange(&daemon, cases[i].text, strlen(cases[i].text));
        ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && strncmp(answer + 9, cases[i].status, 3) == 0,
                      "case %zu: %s", i, answer);
        ck_assert_msg(strstr(answer, cases[i].says) != NULL, "case %zu: %s", i, answer);
        ck_assert_double_lt(test_clock() - start, 5);
        free(answer);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_chunked_upload_works)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    struct picture good = picture("tests/golden/vit-hf/input.png");
    char *text = malloc(good.length + 512);
    int n = sprintf(text, "POST /classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n",
                    good.length);
    memcpy(text + n, good.bytes, good.length);
    memcpy(text + n + good.length, "\r\n0\r\n\r\n", 7);
    char *answer = daemon_exchange(&daemon, text, (size_t)n + good.length + 7);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0, "%s", answer);
    free(answer);
    free(text);
    free(good.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* ---- slow and vanishing clients ---- */

/* Seconds until the daemon ends a connection on which `head` was sent at once and then `drip` every 50 ms. */
static double drip(const struct daemon *daemon, const char *head, char byte, char *answer, size_t size)
{
    const double start = test_clock();
    int fd = daemon_connect(daemon);
    size_t got = 0;
    ck_assert_int_eq(send(fd, head, strlen(head), MSG_NOSIGNAL), (ssize_t)strlen(head));
    while (test_clock() - start < 20) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        if (poll(&poller, 1, 50) > 0) {
            ssize_t n = recv(fd, answer + got, size - 1 - got, 0);
            if (n <= 0)
                break;
            got += (size_t)n;
        } else if (send(fd, &byte, 1, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    answer[got] = '\0';
    close(fd);
    return test_clock() - start;
}

START_TEST(test_slow_clients_are_ended)
{
    char answer[4096];
    struct daemon daemon =
        daemon_start("{\"limits\": {\"header_timeout_ms\": 700, \"body_timeout_ms\": 700}}", small_model);
    double seconds = drip(&daemon, "GET /healthz HTTP/1.1\r\nHost: a\r\nX: ", 'x', answer, sizeof answer);
    ck_assert_msg(seconds > 0.5 && seconds < 5, "header: %g s", seconds);
    seconds = drip(&daemon, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n", 'x', answer, sizeof answer);
    ck_assert_msg(seconds > 0.5 && seconds < 5, "body: %g s", seconds);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 408 ", 13) == 0, "%s", answer);
    ck_assert_ptr_nonnull(strcasestr(answer, "x-request-id: "));
    ck_assert_ptr_nonnull(strstr(answer, "\"code\":\"request_timeout\""));
    seconds = drip(&daemon, "", '\r', answer, sizeof answer);
    ck_assert_msg(seconds > 0.5 && seconds < 5, "nothing: %g s", seconds);
    struct reply reply = post_picture(&daemon, "/classify", "tests/golden/vit-hf/input.png");
    ck_assert_int_eq(reply.status, 200);
    reply_free(&reply);
    daemon_stop(&daemon);
}
END_TEST

/* Sends the start of an upload, `bytes` of the picture's body, and leaves. */
static void leave(const struct daemon *daemon, const struct picture *p, size_t bytes)
{
    char head[128];
    int fd = daemon_connect(daemon);
    int n = snprintf(head, sizeof head, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", p->length);
    ck_assert_int_eq(send(fd, head, (size_t)n, MSG_NOSIGNAL), n);
    ck_assert_int_eq(send(fd, p->bytes, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
    close(fd);
}

START_TEST(test_clients_that_leave_do_no_harm)
{
    struct daemon daemon = daemon_start(NULL, NULL);
    struct picture cat = picture("config/samples/cat.jpg");
    for (int i = 0; i < 50; i++) {
        leave(&daemon, &cat, cat.length / 2); /* mid-upload */
        leave(&daemon, &cat, cat.length);     /* mid-inference */
    }
    for (int i = 0; i < 20; i++)
        leave(&daemon, &cat, 500); /* with the first bytes of the body */
    const double start = test_clock();
    while (daemon_metric(&daemon, "vitd_inflight_requests") > 1 && test_clock() < start + 10)
        usleep(50000);
    ck_assert_double_lt(test_clock() - start, 5); /* far from body_timeout_ms */
    struct reply reply = daemon_post(&daemon, "/classify", cat.bytes, cat.length);
    cJSON *json = reply_json(&reply);
    ck_assert_str_eq(top_label(json), "tabby");
    cJSON_Delete(json);
    reply_free(&reply);
    ck_assert_double_gt(daemon_metric(&daemon, "vitd_rejected_total{reason=\"client_gone\"}"), 0);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_queue_depth"), 0);
    free(cat.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* ---- load ---- */

/* Clients that post until told to stop, each checking every reply; some uploads are broken on purpose. */
struct load {
    const struct daemon *daemon;
    struct picture good, broken;
    const char *path;
    int requests; /* per client; 0: until `stop` */
    atomic_int stop, ok, refused, busy, wrong, lost, connect_failed;
};

static void *client(void *context)
{
    struct load *load = context;
    for (int i = 0; load->requests == 0 ? !atomic_load(&load->stop) : i < load->requests; i++) {
        const bool broken = load->broken.bytes != NULL && i % 3 == 2;
        const struct picture *p = broken ? &load->broken : &load->good;
        struct reply reply = daemon_post(load->daemon, load->path, p->bytes, p->length);
        if (reply.curl == CURLE_COULDNT_CONNECT)
            atomic_fetch_add(&load->connect_failed, 1);
        else if (reply.curl != CURLE_OK)
            atomic_fetch_add(&load->lost, 1);
        else if (reply.status == 429)
            atomic_fetch_add(strcasestr(reply.headers, "retry-after: ") != NULL ? &load->busy : &load->wrong, 1);
        else if (reply.status == (broken ? 422 : 200))
            atomic_fetch_add(broken ? &load->refused : &load->ok, 1);
        else
            atomic_fetch_add(&load->wrong, 1);
        if (reply.curl == CURLE_OK && reply.status == 200) {
            cJSON *json = cJSON_Parse(reply.body);
            if (json == NULL || cJSON_GetObjectItem(json, "predictions") == NULL)
                atomic_fetch_add(&load->wrong, 1);
            cJSON_Delete(json);
        }
        const bool refused_connection = reply.curl == CURLE_COULDNT_CONNECT;
        reply_free(&reply);
        if (refused_connection && load->requests == 0)
            break;
    }
    return NULL;
}

static void run_clients(struct load *load, pthread_t *threads, int count)
{
    for (int i = 0; i < count; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, client, load), 0);
}

static void join_clients(pthread_t *threads, int count)
{
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

START_TEST(test_64_clients_with_broken_uploads)
{
    enum { CLIENTS = 64, REQUESTS = 9 };
    pthread_t threads[CLIENTS];
    struct daemon daemon = daemon_start(NULL, small_model);
    struct load load = {.daemon = &daemon, .path = "/classify", .requests = REQUESTS,
                        .good = picture("tests/golden/vit-hf/input.png"), .broken = picture("config/samples/cat.jpg")};
    load.broken.length /= 2;
    run_clients(&load, threads, CLIENTS);
    join_clients(threads, CLIENTS);
    ck_assert_int_eq(load.ok, CLIENTS * REQUESTS * 2 / 3);
    ck_assert_int_eq(load.refused, CLIENTS * REQUESTS / 3);
    ck_assert_int_eq(load.wrong + load.lost + load.busy + load.connect_failed, 0);
    free(load.good.bytes);
    free(load.broken.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_full_queue_answers_429)
{
    enum { CLIENTS = 32 };
    pthread_t threads[CLIENTS];
    struct daemon daemon = daemon_start("{\"batching\": {\"max_queue_size\": 2, \"max_batch_size\": 1}, \"threads\": 1}",
                                        NULL);
    struct load load = {.daemon = &daemon, .path = "/classify", .requests = 6, .good = picture("config/samples/coffee.jpg")};
    run_clients(&load, threads, CLIENTS);
    join_clients(threads, CLIENTS);
    ck_assert_int_gt(load.busy, 0);
    ck_assert_int_gt(load.ok, 0);
    ck_assert_int_eq(load.wrong + load.lost + load.connect_failed, 0);
    ck_assert_int_eq(load.ok + load.busy, CLIENTS * 6);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_rejected_total{reason=\"queue_full\"}"), load.busy);
    free(load.good.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_deadline_answers_504)
{
    enum { CLIENTS = 24 };
    pthread_t threads[CLIENTS];
    struct daemon daemon =
        daemon_start("{\"batching\": {\"request_timeout_ms\": 1, \"max_batch_size\": 1}, \"threads\": 1}", NULL);
    struct load load = {.daemon = &daemon, .path = "/classify", .requests = 2, .good = picture("config/samples/coffee.jpg")};
    run_clients(&load, threads, CLIENTS);
    join_clients(threads, CLIENTS);
    ck_assert_int_gt(load.wrong, 0); /* 504 */
    ck_assert_int_eq(load.lost + load.connect_failed, 0);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"classify\",model=\"vit-tiny-64\",code=\"504\"}"),
                        load.wrong);
    free(load.good.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* Every request that the daemon took is answered: a client may find the door closed, never an empty or cut reply. */
START_TEST(test_sigterm_under_load_loses_nothing)
{
    enum { CLIENTS = 32 };
    for (int round = 0; round < 3; round++) {
        pthread_t threads[CLIENTS];
        struct daemon daemon = daemon_start(NULL, small_model);
        struct load load = {.daemon = &daemon, .path = "/classify", .good = picture("tests/golden/vit-hf/input.png")};
        run_clients(&load, threads, CLIENTS);
        usleep(200000 + 30000 * (useconds_t)round);
        double seconds = daemon_stop(&daemon);
        atomic_store(&load.stop, 1);
        join_clients(threads, CLIENTS);
        ck_assert_int_gt(load.ok, 0);
        ck_assert_msg(load.lost == 0 && load.wrong == 0, "%d lost, %d wrong of %d", load.lost, load.wrong, load.ok);
        ck_assert_msg(seconds < 5, "%g s to end", seconds);
        free(load.good.bytes);
    }
}
END_TEST

START_TEST(test_second_signal_ends_at_once)
{
    struct daemon daemon = daemon_start("{\"limits\": {\"body_timeout_ms\": 60000}}", small_model);
    const char *head = "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
    int fd = daemon_connect(&daemon); /* an upload that never ends holds the drain */
    ck_assert_int_eq(send(fd, head, strlen(head), MSG_NOSIGNAL), (ssize_t)strlen(head));
    usleep(100000);
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    usleep(700000);
    ck_assert_int_eq(waitpid(daemon.pid, NULL, WNOHANG), 0);
    const double start = test_clock();
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    int status = daemon_wait(&daemon);
    ck_assert_double_lt(test_clock() - start, 1);
    ck_assert(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
    close(fd);
    close(daemon.log_fd);
    unlink(daemon.log_path);
}
END_TEST

/* ---- endurance ---- */

START_TEST(test_random_bytes_to_every_endpoint)
{
    static const char *const paths[] = {"/classify", "/embed", "/models", "/models/small", "/healthz", "/readyz",
                                        "/metrics", "/"};
    enum { LENGTH = 1000000, PIECES = 20 };
    unsigned char *noise = malloc(LENGTH);
    unsigned seed = 7;
    for (size_t i = 0; i < LENGTH; i++)
        noise[i] = (unsigned char)((seed = seed * 1664525u + 1013904223u) >> 24);
    struct daemon daemon = daemon_start("{\"limits\": {\"header_timeout_ms\": 300}}", small_model);
    for (size_t p = 0; p < 8; p++)
        for (size_t i = 0; i < PIECES; i++) {
            const unsigned char *bytes = noise + i * (LENGTH / PIECES);
            const char *type = i % 2 == 0 ? NULL : "multipart/form-data; boundary=x";
            struct reply reply = daemon_request(&daemon, "POST", paths[p], type, bytes, LENGTH / PIECES, NULL);
            ck_assert_msg(reply.status >= 400 && reply.status < 500, "%s: %ld", paths[p], reply.status);
            reply_free(&reply);
        }
    for (size_t i = 0; i < LENGTH; i += 10000) { /* and as the stream itself */
        int fd = daemon_connect(&daemon);
        ck_assert_int_ge(send(fd, noise + i, 10000, MSG_NOSIGNAL), 0);
        close(fd);
    }
    struct reply reply = post_picture(&daemon, "/classify", "tests/golden/vit-hf/input.png");
    ck_assert_int_eq(reply.status, 200);
    reply_free(&reply);
    free(noise);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_10000_requests_leave_memory_flat)
{
    enum { CLIENTS = 8 };
    pthread_t threads[CLIENTS];
    const bool sanitized = getenv("VITD_SANITIZED") != NULL; /* their quarantines grow: count fewer, compare not */
    struct daemon daemon = daemon_start(NULL, small_model);
    struct load load = {.daemon = &daemon, .path = "/classify?attention=raw",
                        .good = picture("tests/golden/vit-hf/input.png"), .broken = picture("config/samples/cat.jpg")};
    load.broken.length /= 2;
    load.requests = sanitized ? 50 : 250;
    run_clients(&load, threads, CLIENTS);
    join_clients(threads, CLIENTS);
    const long before = daemon_memory(&daemon, "VmRSS:");
    load.requests = sanitized ? 50 : 1000;
    run_clients(&load, threads, CLIENTS);
    join_clients(threads, CLIENTS);
    const long after = daemon_memory(&daemon, "VmRSS:");
    ck_assert_int_eq(load.wrong + load.lost + load.busy + load.connect_failed, 0);
    if (!sanitized)
        ck_assert_msg(after - before < 1024, "resident memory grew from %ld to %ld KiB", before, after);
    free(load.good.bytes);
    free(load.broken.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_100_starts_and_stops)
{
    const int rounds = getenv("VITD_SANITIZED") != NULL ? 10 : 100;
    for (int i = 0; i < rounds; i++) {
        struct daemon daemon = daemon_start(NULL, small_model);
        struct reply reply = post_picture(&daemon, "/classify", "tests/golden/vit-hf/input.png");
        ck_assert_int_eq(reply.status, 200);
        reply_free(&reply);
        daemon_stop(&daemon);
    }
}
END_TEST

/* ---- real weights, real photographs: with ../shared only ---- */

static const char *shared(void)
{
    const char *path = getenv("VITD_SHARED") != NULL ? getenv("VITD_SHARED") : "../shared";
    return access(path, R_OK) == 0 ? path : NULL;
}

START_TEST(test_photographs_equal_transformers)
{
    if (shared() == NULL) {
        puts("SKIPPED: the photographs need the folder named by VITD_SHARED");
        return;
    }
    char path[512], model[512];
    size_t length;
    snprintf(path, sizeof path, "%s/photos/expected.json", shared());
    char *text = (char *)test_file(path, &length);
    cJSON *expected = cJSON_Parse(text), *photo;
    snprintf(model, sizeof model, "%s/models/deit-tiny-patch16-224", shared());
    struct daemon daemon = daemon_start(NULL, (const char *[]){"--model", model, "--threads", "2", NULL});
    int count = 0;
    cJSON_ArrayForEach(photo, expected) {
        snprintf(path, sizeof path, "%s/photos/%s", shared(), member_string(photo, "file"));
        struct reply reply = post_picture(&daemon, "/classify", path);
        ck_assert_msg(reply.status == 200, "%s: %s", path, reply.body);
        cJSON *json = reply_json(&reply);
        const cJSON *predictions = cJSON_GetObjectItem(json, "predictions"), *top5 = cJSON_GetObjectItem(photo, "top5");
        for (int k = 0; k < 5; k++) {
            const cJSON *got = cJSON_GetArrayItem(predictions, k), *want = cJSON_GetArrayItem(top5, k);
            if (k == 0)
                ck_assert_msg(member_number(got, "index") == want->child->valuedouble, "%s", path);
            ck_assert_double_eq_tol(member_number(got, "score"), want->child->next->valuedouble, 0.002);
        }
        cJSON_Delete(json);
        reply_free(&reply);
        count++;
    }
    ck_assert_int_eq(count, 100);
    if (getenv("VITD_SANITIZED") == NULL)
        ck_assert_msg(daemon_memory(&daemon, "VmHWM:") < 120 * 1024, "peak memory %ld KiB",
                      daemon_memory(&daemon, "VmHWM:"));
    daemon_stop(&daemon);
    cJSON_Delete(expected);
    free(text);
}
END_TEST

static void add(Suite *suite, const char *name, const TTest *const *tests, size_t count, double timeout)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, timeout);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    const TTest *const answers[] = {test_bundled_model_names_the_samples, test_golden_folders_over_http, test_image_size,
                                           test_attention_shapes_and_values, test_embed_equals_reference,
                                           test_multipart_answers_in_order, test_models_and_probes, test_metrics_count,
                                           test_photographs_equal_transformers};
    const TTest *const refusals[] = {test_errors_say_what_to_do, test_overflow_fails_one_image_of_a_batch,
                                            test_size_errors_name_their_cause, test_too_many_images_names_the_limit,
                                            test_ambiguous_framing_is_refused,
                                            test_missing_length_answers_411, test_refusal_comes_before_the_body,
                                            test_blanks_after_header_values, test_chunked_upload_works,
                                            test_slow_clients_are_ended, test_clients_that_leave_do_no_harm};
    const TTest *const load[] = {test_64_clients_with_broken_uploads, test_full_queue_answers_429,
                                        test_deadline_answers_504, test_sigterm_under_load_loses_nothing,
                                        test_second_signal_ends_at_once, test_random_bytes_to_every_endpoint,
                                        test_10000_requests_leave_memory_flat, test_100_starts_and_stops};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("integration");
    add(suite, "answers", answers, sizeof answers / sizeof answers[0], 300);
    add(suite, "refusals", refusals, sizeof refusals / sizeof refusals[0], 120);
    add(suite, "load", load, sizeof load / sizeof load[0], 300);
    return suite_run(suite);
}
