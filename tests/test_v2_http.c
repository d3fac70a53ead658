/*
 * test_v2_http.c - the Open Inference Protocol v2 as its clients meet it: the real daemon over HTTP. The codec alone is
 * tested in test_v2_message.c; here it is that the same picture gives the same bits whichever way it comes, that
 * refusals have the protocol's shape, and that models, statistics and the cache are told as they are.
 *
 * Most cases serve golden/vit-hf (48x48, 10 classes, 64 features).
 */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/golden.h"
#include "tests/suite.h"
#include "tests/upload.h"

#define SMALL "tests/golden/vit-hf"
#define INFER "/v2/models/small/infer"
#define LOGITS ",\"outputs\":[{\"name\":\"logits\"}]"
#define ADMIN_HASH "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" /* of the key "test" */
#define ALICE_HASH "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90" /* of the key "alice" */

enum { CLASSES = 10, WIDTH = 64, ROOM = 4096 };

static const char *const small_model[] = {"--model", "small=" SMALL, "--threads", "2", NULL};

/* The logits as /classify tells them, by class. */
static size_t classify(const struct daemon *daemon, const char *model, const struct bytes *file, float *logits)
{
    char path[128];
    const cJSON *prediction;
    size_t count = 0;
    snprintf(path, sizeof path, "/classify?model=%s&top_k=1000&function_to_apply=none", model);
    cJSON *json = json_of(daemon_post(daemon, path, file->at, file->length), 200);
    cJSON_ArrayForEach(prediction, cJSON_GetObjectItem(json, "predictions"))
    {
        logits[(size_t)member_number(prediction, "index")] = (float)member_number(prediction, "score");
        count++;
    }
    cJSON_Delete(json);
    return count;
}

/* Posts the upload, frees it, and takes the values of one output. */
static size_t infer(const struct daemon *daemon, const char *path, struct upload upload, const char *output, float *values)
{
    struct reply reply = upload_post(daemon, path, &upload, NULL);
    const size_t count = reply_values(&reply, output, values, ROOM);
    reply_free(&reply);
    upload_free(&upload);
    return count;
}

static void assert_same(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(memcmp(&a[i], &b[i], sizeof *a) == 0, "value %zu: %.9g and %.9g", i, (double)a[i], (double)b[i]);
}

/* ---- the server and its models ---- */

START_TEST(test_server_and_health)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    cJSON *json = json_of(daemon_get(&daemon, "/v2"), 200);
    const cJSON *extensions = cJSON_GetObjectItem(json, "extensions");
    ck_assert_str_eq(member_string(json, "name"), "vitd");
    ck_assert_str_eq(member_string(json, "version"), VITD_VERSION);
    ck_assert_str_eq(cJSON_GetArrayItem(extensions, 0)->valuestring, "binary_tensor_data");
    cJSON_Delete(json);
    json = json_of(daemon_get(&daemon, "/v2/health/live"), 200);
    ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(json, "live")));
    cJSON_Delete(json);
    json = json_of(daemon_get(&daemon, "/v2/health/ready"), 200);
    ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(json, "ready")));
    cJSON_Delete(json);
    json = json_of(daemon_get(&daemon, "/v2/models/small/ready"), 200);
    ck_assert_str_eq(member_string(json, "name"), "small");
    ck_assert(cJSON_IsTrue(cJSON_GetObjectItem(json, "ready")));
    cJSON_Delete(json);
    struct reply reply = daemon_request(&daemon, "HEAD", "/v2/health/ready", NULL, NULL, 0, NULL);
    ck_assert(reply.status == 200 && reply.length == 0);
    reply_free(&reply);
    expect_plain(daemon_get(&daemon, "/v2/models/none/ready"), 404, "'none'; this server has small");
    daemon_stop(&daemon);
}
END_TEST

/* While it drains it is not ready, and serves all the same. */
START_TEST(test_draining)
{
    struct daemon daemon = daemon_start("{\"drain_delay_ms\": 1500}", small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_files(&file, 1, "");
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    usleep(300000);
    cJSON *json = json_of(daemon_get(&daemon, "/v2/health/ready"), 503);
    ck_assert(cJSON_IsFalse(cJSON_GetObjectItem(json, "ready")));
    cJSON_Delete(json);
    json = json_of(daemon_get(&daemon, "/v2/models/small/ready"), 503);
    ck_assert(cJSON_IsFalse(cJSON_GetObjectItem(json, "ready")));
    cJSON_Delete(json);
    cJSON_Delete(json_of(daemon_get(&daemon, "/v2/health/live"), 200));
    struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    ck_assert_str_eq(reply_header(&reply, "Connection"), "close");
    reply_free(&reply);
    upload_free(&upload);
    free(file.at);
    daemon_end(&daemon);
}
END_TEST

START_TEST(test_loading)
{
    enum { MODELS = 64 };
    char *config = NULL, here[512];
    size_t length = 0;
    FILE *out = open_memstream(&config, &length);
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    for (int i = 0; i < MODELS; i++)
        fprintf(out, "%s{\"name\": \"m%d\", \"path\": \"%s/config/models/vit-tiny-64\"}", i ? "," : "{\"models\": [", i,
                here);
    fputs("]}", out);
    fclose(out);
    struct daemon daemon = daemon_start_loading(config);
    cJSON *json = json_of(daemon_get(&daemon, "/v2/health/ready"), 503);
    ck_assert(cJSON_IsFalse(cJSON_GetObjectItem(json, "ready")));
    cJSON_Delete(json);
    cJSON_Delete(json_of(daemon_get(&daemon, "/v2/health/live"), 200));
    expect_plain(daemon_post(&daemon, "/v2/models/m0/infer", "{}", 2), 503, "the models are still loading");
    expect_plain(daemon_get(&daemon, "/v2/models/m0/ready"), 503, "the models are still loading");
    daemon_stop(&daemon);
    free(config);
}
END_TEST

/* {"name","datatype","shape"} as it should be */
static void check_tensor(const cJSON *tensor, const char *name, const char *datatype, const char *shape)
{
    char *found = cJSON_PrintUnformatted(cJSON_GetObjectItem(tensor, "shape"));
    ck_assert_str_eq(member_string(tensor, "name"), name);
    ck_assert_str_eq(member_string(tensor, "datatype"), datatype);
    ck_assert_str_eq(found, shape);
    free(found);
}

START_TEST(test_metadata)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    const char *const paths[] = {"/v2/models/small", "/v2/models/small/versions/1"};
    for (size_t i = 0; i < 2; i++) {
        cJSON *json = json_of(daemon_get(&daemon, paths[i]), 200);
        const cJSON *inputs = cJSON_GetObjectItem(json, "inputs"), *outputs = cJSON_GetObjectItem(json, "outputs");
        ck_assert_str_eq(member_string(json, "name"), "small");
        ck_assert_str_eq(member_string(json, "platform"), "vitd");
        ck_assert_int_eq(cJSON_GetArraySize(inputs), 3);
        check_tensor(cJSON_GetArrayItem(inputs, 0), "image", "BYTES", "[-1]");
        check_tensor(cJSON_GetArrayItem(inputs, 1), "pixels", "UINT8", "[-1,-1,-1,3]");
        check_tensor(cJSON_GetArrayItem(inputs, 2), "pixel_values", "FP32", "[-1,3,48,48]");
        ck_assert_int_eq(cJSON_GetArraySize(outputs), 3);
        check_tensor(cJSON_GetArrayItem(outputs, 0), "logits", "FP32", "[-1,10]");
        check_tensor(cJSON_GetArrayItem(outputs, 1), "probabilities", "FP32", "[-1,10]");
        check_tensor(cJSON_GetArrayItem(outputs, 2), "embedding", "FP32", "[-1,64]");
        cJSON_Delete(json);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_versions_in_the_path)
{
    static const struct {
        const char *path, *version;
        size_t classes;
    } cases[] = {{"/v2/models/m/versions/1/infer", "1", 10},
                 {"/v2/models/m/versions/2/infer", "2", 6},
                 {"/v2/models/m/infer", "2", 6},
                 {"/v2/models/m:1/infer", "1", 10}};
    float logits[ROOM];
    char config[2048], here[512];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(config, sizeof config,
             "{\"models\": [{\"name\": \"m\", \"version\": 1, \"path\": \"%s/" SMALL "\"}, {\"name\": \"m\", \"version\": 2, "
             "\"path\": \"%s/tests/golden/dinov2-hf\"}]}", here, here);
    struct daemon daemon = daemon_start(config, NULL);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_files(&file, 1, LOGITS);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply reply = upload_post(&daemon, cases[i].path, &upload, NULL);
        ck_assert_uint_eq(reply_values(&reply, "logits", logits, ROOM), cases[i].classes);
        cJSON *json = reply_json(&reply);
        ck_assert_str_eq(member_string(json, "model_name"), "m");
        ck_assert_str_eq(member_string(json, "model_version"), cases[i].version);
        cJSON_Delete(json);
        reply_free(&reply);
    }
    cJSON *json = json_of(daemon_get(&daemon, "/v2/models/m/versions/1"), 200);
    check_tensor(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "inputs"), 2), "pixel_values", "FP32", "[-1,3,48,48]");
    const cJSON *versions = cJSON_GetObjectItem(json, "versions");
    ck_assert_int_eq(cJSON_GetArraySize(versions), 2); /* all that may be asked for */
    ck_assert_str_eq(cJSON_GetArrayItem(versions, 0)->valuestring, "1");
    ck_assert_str_eq(cJSON_GetArrayItem(versions, 1)->valuestring, "2");
    cJSON_Delete(json);
    cJSON_Delete(json_of(daemon_get(&daemon, "/v2/models/m/versions/2/ready"), 200));
    expect_plain(upload_post(&daemon, "/v2/models/m/versions/3/infer", &upload, NULL), 404, "'m:3'; this server has m:1, m:2");
    expect_plain(daemon_get(&daemon, "/v2/models/m/versions/x"), 404, "'m:x'");
    expect_plain(daemon_get(&daemon, "/v2/models/m/versions/3/ready"), 404, "'m:3'");
    expect_plain(daemon_get(&daemon, "/v2/models/m/versions/3/stats"), 404, "'m:3'");
    upload_free(&upload);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- inference ---- */

/* A file gives the same bits in JSON, in binary, raw and through /classify. */
START_TEST(test_files_equal_classify)
{
    float wanted[ROOM], got[ROOM];
    struct daemon daemon = daemon_start(NULL, small_model);
    const char *const files[] = {SMALL "/input.png", SMALL "/larger.png", "config/samples/cat.jpg"};
    for (size_t i = 0; i < 3; i++) {
        struct bytes file = bytes_of_file(files[i]);
        ck_assert_uint_eq(classify(&daemon, "small", &file, wanted), CLASSES);
        ck_assert_uint_eq(infer(&daemon, INFER, upload_files(&file, 1, ""), "logits", got), CLASSES);
        assert_same(got, wanted, CLASSES);
        ck_assert_uint_eq(infer(&daemon, INFER, upload_files_binary(&file, 1, ""), "logits", got), CLASSES);
        assert_same(got, wanted, CLASSES);
        ck_assert_uint_eq(infer(&daemon, INFER, upload_raw(&file), "logits", got), CLASSES);
        assert_same(got, wanted, CLASSES);
        free(file.at);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_probabilities_and_embedding)
{
    float logits[ROOM], probabilities[ROOM], embedding[ROOM];
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_raw(&file); /* all outputs in one reply */
    struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
    double sum = 0;
    ck_assert_uint_eq(reply_values(&reply, "logits", logits, ROOM), CLASSES);
    ck_assert_uint_eq(reply_values(&reply, "probabilities", probabilities, ROOM), CLASSES);
    ck_assert_uint_eq(reply_values(&reply, "embedding", embedding, ROOM), WIDTH);
    ck_assert_str_eq(reply_header(&reply, "Content-Type"), "application/octet-stream");
    reply_free(&reply);
    upload_free(&upload);
    for (size_t i = 0; i < CLASSES; i++)
        sum += exp((double)logits[i]);
    for (size_t i = 0; i < CLASSES; i++)
        ck_assert_double_eq_tol((double)probabilities[i], exp((double)logits[i]) / sum, 1e-6);
    cJSON *json = json_of(daemon_post(&daemon, "/embed", file.at, file.length), 200);
    const cJSON *value, *vector = cJSON_GetObjectItem(json, "embedding");
    size_t i = 0;
    ck_assert_int_eq(cJSON_GetArraySize(vector), WIDTH);
    cJSON_ArrayForEach(value, vector)
    {
        const float wanted = (float)value->valuedouble;
        assert_same(&embedding[i++], &wanted, 1);
    }
    cJSON_Delete(json);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* Pixels that are there already, and the same in a file, of sizes that rows of BMP must be padded for. */
START_TEST(test_pixels_equal_a_file)
{
    static const unsigned sizes[][2] = {{48, 48}, {37, 53}, {130, 61}, {1, 1}};
    float wanted[ROOM], got[ROOM];
    char shape[64];
    struct daemon daemon = daemon_start(NULL, small_model);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const unsigned width = sizes[i][0], height = sizes[i][1];
        struct bytes pixels = bytes_of_pixels(width, height, i), file = bytes_of_bmp(&pixels, width, height);
        classify(&daemon, "small", &file, wanted);
        snprintf(shape, sizeof shape, "[1,%u,%u,3]", height, width);
        infer(&daemon, INFER, upload_pixels(pixels.at, shape, pixels.length, ""), "logits", got);
        assert_same(got, wanted, CLASSES);
        infer(&daemon, INFER, upload_tensor_binary("pixels", "UINT8", shape, pixels.at, pixels.length, ""), "logits", got);
        assert_same(got, wanted, CLASSES);
        snprintf(shape, sizeof shape, "[%u,%u,3]", height, width);
        infer(&daemon, INFER, upload_pixels(pixels.at, shape, pixels.length, ""), "logits", got);
        assert_same(got, wanted, CLASSES);
        free(pixels.at);
        free(file.at);
    }
    daemon_stop(&daemon);
}
END_TEST

/* What the reference implementation preprocessed gives what it computed from that, and what /classify gives. */
START_TEST(test_pixel_values_equal_the_reference)
{
    static const char *const names[] = {"vit-hf", "vit-timm", "dinov2-hf", "swin-hf", "deit-distilled-hf"};
    for (size_t m = 0; m < sizeof names / sizeof names[0]; m++) {
        char path[128], model[128], shape[64];
        float wanted[ROOM], got[ROOM], binary[ROOM];
        size_t count, classes, sides[4];
        snprintf(path, sizeof path, "tests/golden/%s/expected.safetensors", names[m]);
        struct golden *golden = golden_open(path);
        const float *values = golden_get(golden, "pixel_values", "F32", &count);
        const float *logits = golden_get(golden, "logits", "F32", &classes);
        ck_assert(values != NULL && logits != NULL && golden_shape(golden, "pixel_values", sides, 4) == 4);
        snprintf(model, sizeof model, "m=tests/golden/%s", names[m]);
        struct daemon daemon = daemon_start(NULL, (const char *[]){"--model", model, NULL});
        snprintf(path, sizeof path, "tests/golden/%s/input.png", names[m]);
        struct bytes file = bytes_of_file(path);
        ck_assert_uint_eq(classify(&daemon, "m", &file, wanted), classes);
        snprintf(shape, sizeof shape, "[1,3,%zu,%zu]", sides[2], sides[3]);
        infer(&daemon, "/v2/models/m/infer", upload_floats(values, shape, count, ""), "logits", got);
        infer(&daemon, "/v2/models/m/infer",
              upload_tensor_binary("pixel_values", "FP32", shape, values, count * sizeof *values, ""), "logits", binary);
        assert_same(got, binary, classes);
        for (size_t i = 0; i < classes; i++) {
            ck_assert_double_eq_tol((double)got[i], (double)logits[i], 1e-4);
            ck_assert_double_eq_tol((double)got[i], (double)wanted[i], 1e-4);
        }
        free(file.at);
        golden_free(golden);
        daemon_stop(&daemon);
    }
}
END_TEST

START_TEST(test_several_images_equal_one_by_one)
{
    enum { COUNT = 5 };
    float together[ROOM], embeddings[ROOM], alone[ROOM];
    struct daemon daemon = daemon_start(NULL, (const char *[]){"--model", "small=" SMALL, "--threads", "1", NULL});
    struct bytes files[COUNT] = {bytes_of_file(SMALL "/input.png"), bytes_of_file("config/samples/cat.jpg"),
                                 bytes_of_file(SMALL "/larger.png"), bytes_of_file("config/samples/coffee.jpg"),
                                 bytes_of_file("tests/golden/dinov2-hf/input.png")};
    for (int binary = 0; binary < 2; binary++) {
        struct upload upload = (binary ? upload_files_binary : upload_files)(files, COUNT, "");
        struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
        ck_assert_uint_eq(reply_values(&reply, "logits", together, ROOM), (size_t)COUNT * CLASSES);
        ck_assert_uint_eq(reply_values(&reply, "embedding", embeddings, ROOM), (size_t)COUNT * WIDTH);
        reply_free(&reply);
        upload_free(&upload);
        for (size_t i = 0; i < COUNT; i++) {
            infer(&daemon, INFER, upload_files(&files[i], 1, ""), "logits", alone);
            assert_same(together + i * CLASSES, alone, CLASSES);
            infer(&daemon, INFER, upload_files(&files[i], 1, ""), "embedding", alone);
            assert_same(embeddings + i * WIDTH, alone, WIDTH);
        }
    }
    ck_assert_double_gt(daemon_metric(&daemon, "vitd_batch_size_sum{model=\"small\"}"),
                        daemon_metric(&daemon, "vitd_batch_size_count{model=\"small\"}")); /* they did share a batch */
    for (size_t i = 0; i < COUNT; i++)
        free(files[i].at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_outputs_as_asked)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload =
        upload_files(&file, 1, ",\"id\":\"n\\u00e9 7\",\"outputs\":[{\"name\":\"embedding\"},{\"name\":\"probabilities\","
                               "\"parameters\":{\"classification\":3}}]");
    struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
    ck_assert_ptr_null(reply_header(&reply, "Inference-Header-Content-Length"));
    ck_assert_str_eq(reply_header(&reply, "Content-Type"), "application/json");
    cJSON *json = json_of(reply, 200), *classified, *best;
    const cJSON *outputs = cJSON_GetObjectItem(json, "outputs"), *classes = cJSON_GetArrayItem(outputs, 1);
    ck_assert_str_eq(member_string(json, "id"), "n\xc3\xa9 7");
    ck_assert_str_eq(member_string(json, "model_name"), "small");
    ck_assert_int_eq(cJSON_GetArraySize(outputs), 2);
    check_tensor(cJSON_GetArrayItem(outputs, 0), "embedding", "FP32", "[1,64]");
    check_tensor(classes, "probabilities", "BYTES", "[1,3]");
    classified = json_of(daemon_post(&daemon, "/classify?top_k=3", file.at, file.length), 200);
    int i = 0;
    cJSON_ArrayForEach(best, cJSON_GetObjectItem(classified, "predictions"))
    {
        char wanted[128];
        snprintf(wanted, sizeof wanted, "%.9g:%.0f:%s", member_number(best, "score"), member_number(best, "index"), member_string(best, "label"));
        ck_assert_str_eq(cJSON_GetArrayItem(cJSON_GetObjectItem(classes, "data"), i++)->valuestring, wanted);
    }
    ck_assert_int_eq(i, 3);
    cJSON_Delete(classified);
    cJSON_Delete(json);
    upload_free(&upload);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* One output in binary, one not, and classes in binary: what stands behind the JSON is in the order of the outputs. */
START_TEST(test_binary_outputs)
{
    float logits[ROOM], embedding[ROOM], wanted[ROOM];
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_files(
        &file, 1, ",\"parameters\":{\"binary_data_output\":true},\"outputs\":[{\"name\":\"logits\"},{\"name\":\"embedding\","
                  "\"parameters\":{\"binary_data\":false}},{\"name\":\"probabilities\",\"parameters\":{\"classification\":1}}]");
    struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
    ck_assert_uint_eq(reply_values(&reply, "logits", logits, ROOM), CLASSES);
    ck_assert_uint_eq(reply_values(&reply, "embedding", embedding, ROOM), WIDTH);
    classify(&daemon, "small", &file, wanted);
    assert_same(logits, wanted, CLASSES);
    size_t best = 0;
    for (size_t i = 0; i < CLASSES; i++)
        best = wanted[i] > wanted[best] ? i : best;
    char text[64] = "", label[64];
    unsigned length, at = (unsigned)strtoul(reply_header(&reply, "Inference-Header-Content-Length"), NULL, 10) + 40;
    memcpy(&length, reply.body + at, sizeof length);
    ck_assert_uint_eq(at + 4 + length, reply.length);
    memcpy(text, reply.body + at + 4, length < 63 ? length : 63);
    snprintf(label, sizeof label, ":%zu:class %zu", best, best);
    ck_assert_msg(strstr(text, label) != NULL, "%s has no %s", text, label);
    reply_free(&reply);
    upload_free(&upload);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_timeout_and_priority)
{
    static const char *const good[] = {
        ",\"parameters\":{\"timeout\":30000000}", ",\"parameters\":{\"timeout\":0}",
        ",\"parameters\":{\"timeout\":9223372036854775807}", /* later than any clock */
        ",\"parameters\":{\"priority\":1}", ",\"parameters\":{\"priority\":7,\"sequence_id\":1}"};
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct upload upload = upload_files(&file, 1, good[i]);
        struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
        ck_assert_msg(reply.status == 200, "%s: %ld %s", good[i], reply.status, reply.body);
        reply_free(&reply);
        upload_free(&upload);
    }
    struct upload late = upload_files(&file, 1, ",\"parameters\":{\"timeout\":1}");
    expect_plain(upload_post(&daemon, INFER, &late, NULL), 504, "waited longer");
    upload_free(&late);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_rejected_total{reason=\"timeout\"}"), 1);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- refusals ---- */

START_TEST(test_one_bad_image_fails_the_request)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes good = bytes_of_file(SMALL "/input.png"), cut = good, junk = {(unsigned char *)"junk", 4};
    cut.length /= 2;
    for (int binary = 0; binary < 2; binary++) {
        struct upload upload = (binary ? upload_files_binary : upload_files)((struct bytes[]){good, good, cut}, 3, "");
        expect_plain(upload_post(&daemon, INFER, &upload, NULL), 422, "image 2: ");
        upload_free(&upload);
        upload = (binary ? upload_files_binary : upload_files)((struct bytes[]){good, junk, cut}, 3, "");
        expect_plain(upload_post(&daemon, INFER, &upload, NULL), 415, "image 1: not a JPEG");
        upload_free(&upload);
        upload = (binary ? upload_files_binary : upload_files)(&cut, 1, "");
        struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
        reply_assert_plain(&reply, 422, "");
        ck_assert_ptr_null(strstr(reply.body, "image 0"));
        reply_free(&reply);
        upload_free(&upload);
    }
    struct upload raw = upload_raw(&junk);
    expect_plain(upload_post(&daemon, INFER, &raw, NULL), 415, "not a JPEG");
    upload_free(&raw);
    free(good.at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_bad_requests_have_the_protocols_shape)
{
    static const struct {
        const char *path, *body, *header;
        long status;
        const char *part;
    } cases[] = {
        {"/v2/models/none/infer", "{}", NULL, 404, "there is no model 'none'"},
        {INFER, "", NULL, 400, ""},
        {INFER, "\x89PNG", NULL, 400, ""},
        {INFER, "{}", NULL, 400, "inputs"},
        {INFER, "[]", NULL, 400, ""},
        {INFER, "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"*\"]}]}", NULL, 400,
         "inputs[0].data"},
        {INFER, "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[-3],\"data\":[]}]}", NULL, 400,
         "inputs[0].shape[0]"},
        {INFER, "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[33],\"data\":[]}]}", NULL, 400,
         "found 33 images, allowed are 32 in one request"},
        {INFER, "{\"inputs\":[{\"name\":\"pixel_values\",\"datatype\":\"FP32\",\"shape\":[1,3,32,32],\"data\":[]}]}", NULL,
         400, "[N,3,48,48]"},
        {INFER, "{}", "Inference-Header-Content-Length: 3", 400, "found 3, and the body has 2 bytes"},
        {INFER, "", "Inference-Header-Content-Length: 3", 400, "found 3, and the body has 0 bytes"},
        {INFER, "", "Inference-Header-Content-Length: 0", 400, "the body is empty"},
        {INFER, "{}", "Inference-Header-Content-Length: -1", 400, "takes a number of bytes"},
        {INFER, "{}", "Inference-Header-Content-Length: 2x", 400, "takes a number of bytes"},
        {INFER "?top_k=3", "{}", NULL, 400, "top_k"},
        {INFER, "{}", "X-Request-Timeout-Ms: soon", 400, "X-Request-Timeout-Ms"},
    };
    struct daemon daemon = daemon_start(NULL, small_model);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_plain(daemon_request(&daemon, "POST", cases[i].path, "application/json", cases[i].body,
                                    strlen(cases[i].body), cases[i].header),
                     cases[i].status, cases[i].part);
    struct reply reply = daemon_get(&daemon, INFER);
    reply_assert_plain(&reply, 405, "takes POST, not GET");
    ck_assert_str_eq(reply_header(&reply, "Allow"), "POST");
    reply_free(&reply);
    expect_plain(daemon_request(&daemon, "POST", INFER, NULL, NULL, 0, NULL), 411, "there is no body");
    expect_plain(daemon_request(&daemon, "DELETE", "/v2", NULL, NULL, 0, NULL), 405, "takes GET, HEAD");
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_limits)
{
    struct daemon daemon = daemon_start("{\"limits\": {\"max_body_bytes\": 30000, \"max_pixels\": 2400}, "
                                        "\"batching\": {\"max_queue_size\": 2}}", small_model);
    struct bytes pixels = bytes_of_pixels(48, 51, 1), file = bytes_of_bmp(&pixels, 48, 50);
    struct upload upload = upload_tensor_binary("pixels", "UINT8", "[1,51,48,3]", pixels.at, pixels.length, "");
    expect_plain(upload_post(&daemon, INFER, &upload, NULL), 422, "the image has 2448 pixels (48x51); at most 2400");
    upload_free(&upload);
    upload = upload_tensor_binary("pixels", "UINT8", "[1,50,48,3]", pixels.at, 48 * 50 * 3, "");
    cJSON_Delete(json_of(upload_post(&daemon, INFER, &upload, NULL), 200));
    upload_free(&upload);
    struct bytes large = {malloc(30001), 30001};
    memset(large.at, ' ', large.length);
    upload = upload_raw(&large);
    expect_plain(upload_post(&daemon, INFER, &upload, NULL), 413, "limits.max_body_bytes, 30000");
    upload_free(&upload);
    /* more than the queue could ever hold is not a matter of trying again */
    upload = upload_text("{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[3],\"data\":[\"AA==\",\"AA==\","
                         "\"AA==\"]}]}");
    struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
    reply_assert_plain(&reply, 413, "one request may carry 2 images (batching.max_queue_size");
    ck_assert_ptr_null(reply_header(&reply, "Retry-After"));
    reply_free(&reply);
    upload_free(&upload);
    upload = upload_text("{\"inputs\":[{\"name\":\"image\",\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"aaaa\",\"aaaa\"]}],"
                         "\"parameters\":{\"priority\":2}}"); /* half of it */
    reply = upload_post(&daemon, INFER, &upload, NULL);
    reply_assert_plain(&reply, 413, "one request may carry 1 images (batching.max_queue_size");
    reply_free(&reply);
    upload_free(&upload);
    free(large.at);
    free(pixels.at);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* What comes back for a body in chunks of that many bytes. */
static struct reply post_in_chunks(const struct daemon *daemon, const struct upload *upload, size_t chunk)
{
    char head[256], *answer = calloc(1, 1 << 16);
    const int fd = daemon_connect(daemon);
    int length = snprintf(head, sizeof head, "POST " INFER " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                          "Transfer-Encoding: chunked\r\n");
    if (upload->json_length != SIZE_MAX)
        length += snprintf(head + length, sizeof head - (size_t)length, "Inference-Header-Content-Length: %zu\r\n",
                           upload->json_length);
    length += snprintf(head + length, sizeof head - (size_t)length, "\r\n");
    ck_assert_int_eq(send(fd, head, (size_t)length, MSG_NOSIGNAL), length);
    for (size_t at = 0; at < upload->body.length; at += chunk) {
        const size_t n = upload->body.length - at < chunk ? upload->body.length - at : chunk;
        dprintf(fd, "%zx\r\n", n);
        ck_assert_int_eq(send(fd, upload->body.at + at, n, MSG_NOSIGNAL), (ssize_t)n);
        dprintf(fd, "\r\n");
    }
    dprintf(fd, "0\r\n\r\n");
    size_t got = 0;
    for (ssize_t n; got < (1 << 16) - 1 && (n = recv(fd, answer + got, (1 << 16) - 1 - got, 0)) > 0;)
        got += (size_t)n;
    close(fd);
    char *body = memmem(answer, got, "\r\n\r\n", 4);
    ck_assert_msg(body != NULL, "%s", answer);
    struct reply reply = {.status = strtol(answer + 9, NULL, 10), .length = got - (size_t)(body + 4 - answer)};
    reply.headers = strndup(answer, (size_t)(body + 2 - answer));
    reply.body = calloc(1, reply.length + 1);
    memcpy(reply.body, body + 4, reply.length);
    free(answer);
    return reply;
}

START_TEST(test_chunked_bodies)
{
    float wanted[ROOM], got[ROOM];
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload uploads[] = {upload_files(&file, 1, ""), upload_files_binary(&file, 1, ""), upload_raw(&file)};
    classify(&daemon, "small", &file, wanted);
    for (size_t i = 0; i < 3; i++) {
        struct reply reply = post_in_chunks(&daemon, &uploads[i], i == 0 ? 117 : 4000);
        ck_assert_uint_eq(reply_values(&reply, "logits", got, ROOM), CLASSES);
        assert_same(got, wanted, CLASSES);
        reply_free(&reply);
        upload_free(&uploads[i]);
    }
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

struct crowd {
    const struct daemon *daemon;
    const struct upload *upload;
    atomic_int ok, busy, wrong;
};

static void *ask_again(void *context)
{
    struct crowd *crowd = context;
    for (int i = 0; i < 8; i++) {
        struct reply reply = upload_post(crowd->daemon, "/v2/models/vit-tiny-64/infer", crowd->upload, NULL);
        const char *wait = reply.status == 429 ? reply_header(&reply, "Retry-After") : NULL;
        if (reply.status == 200)
            crowd->ok++;
        else if (wait != NULL && atoi(wait) >= 1 && strncmp(reply.body, "{\"error\":\"the queue is full", 27) == 0)
            crowd->busy++;
        else
            crowd->wrong++;
        reply_free(&reply);
    }
    return NULL;
}

START_TEST(test_full_queue)
{
    enum { CLIENTS = 16, PADDED = 2 << 20 };
    pthread_t threads[CLIENTS];
    struct daemon daemon =
        daemon_start("{\"batching\": {\"max_queue_size\": 1, \"max_batch_size\": 1}, \"threads\": 1}", NULL);
    struct bytes file = bytes_of_file("config/samples/coffee.jpg");
    struct upload upload = upload_files(&file, 1, LOGITS);
    upload.body.at = realloc(upload.body.at, PADDED); /* blanks may follow, and take a while to read */
    memset(upload.body.at + upload.body.length, ' ', PADDED - upload.body.length);
    upload.body.length = PADDED;
    struct crowd crowd = {.daemon = &daemon, .upload = &upload};
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_again, &crowd), 0);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(crowd.wrong, 0);
    ck_assert_int_gt(crowd.ok, 0);
    ck_assert_int_gt(crowd.busy, 0);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_rejected_total{reason=\"queue_full\"}"), crowd.busy);
    char *log = daemon_log(&daemon); /* nobody waited for a worker to read the body, and was refused then */
    for (char *line = strtok(log, "\n"); line != NULL; line = strtok(NULL, "\n"))
        ck_assert_msg(strstr(line, " 429 ") == NULL || strstr(line, " images=") == NULL, "%s", line);
    free(log);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_queue_depth"), 0);
    upload_free(&upload);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the repository ---- */

/* The state that the index tells of a model. */
static const char *state_of(const struct daemon *daemon, const char *name)
{
    static char state[32];
    cJSON *json = json_of(daemon_request(daemon, "POST", "/v2/repository/index", "application/json", "{}", 2, NULL), 200);
    const cJSON *entry;
    strcpy(state, "none");
    cJSON_ArrayForEach(entry, json)
        if (strcmp(member_string(entry, "name"), name) == 0)
            snprintf(state, sizeof state, "%s", member_string(entry, "state"));
    cJSON_Delete(json);
    return state;
}

START_TEST(test_lazy_model)
{
    float wanted[ROOM], got[ROOM];
    char config[2048], here[512];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(config, sizeof config,
             "{\"models\": [{\"name\": \"small\", \"path\": \"%s/" SMALL "\"}, {\"name\": \"lazy\", \"path\": \"%s/" SMALL
             "\", \"lazy\": true}]}", here, here);
    struct daemon daemon = daemon_start(config, NULL);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    ck_assert_str_eq(state_of(&daemon, "small"), "READY");
    ck_assert_str_eq(state_of(&daemon, "lazy"), "UNAVAILABLE");
    cJSON_Delete(json_of(daemon_get(&daemon, "/v2/models/lazy/ready"), 200)); /* it will answer */
    cJSON *json = json_of(daemon_get(&daemon, "/v2/models/lazy/stats"), 200); /* nor do its counters need it */
    ck_assert_str_eq(member_string(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "model_stats"), 0), "name"), "lazy");
    cJSON_Delete(json);
    ck_assert_str_eq(state_of(&daemon, "lazy"), "UNAVAILABLE");
    classify(&daemon, "small", &file, wanted);
    infer(&daemon, "/v2/models/lazy/infer", upload_files(&file, 1, ""), "logits", got);
    assert_same(got, wanted, CLASSES);
    ck_assert_str_eq(state_of(&daemon, "lazy"), "READY");
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

static struct reply post(const struct daemon *daemon, const char *path, const char *key)
{
    char header[64];
    snprintf(header, sizeof header, "Authorization: Bearer %s", key != NULL ? key : "");
    return daemon_request(daemon, "POST", path, "application/json", "{}", 2, key != NULL ? header : NULL);
}

START_TEST(test_load_and_unload)
{
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_files(&file, 1, "");
    struct daemon daemon = daemon_start(NULL, small_model);
    struct reply reply = post(&daemon, "/v2/repository/models/small/unload", NULL); /* not without config.access.admin */
    ck_assert_int_eq(reply.status, 404);
    reply_free(&reply);
    cJSON_Delete(json_of(upload_post(&daemon, INFER, &upload, NULL), 200));
    daemon_stop(&daemon);

    char keys[] = "/tmp/vitd-keys-XXXXXX", config[256];
    const int fd = mkstemp(keys);
    dprintf(fd, "admin " ADMIN_HASH " root\ninfer " ALICE_HASH " alice\n");
    close(fd);
    snprintf(config, sizeof config, "{\"access\": {\"admin\": true, \"keys\": \"%s\"}}", keys);
    daemon = daemon_start(config, small_model);
    expect_plain(post(&daemon, "/v2/repository/models/small/unload", NULL), 401, "send a key");
    expect_plain(post(&daemon, "/v2/repository/models/small/unload", "alice"), 403, "needs the role admin");
    cJSON_Delete(json_of(post(&daemon, "/v2/repository/models/small/unload", "test"), 200));
    expect_plain(upload_post(&daemon, INFER, &upload, "Authorization: Bearer alice"), 503, "is not loaded");
    cJSON *json = json_of(daemon_get(&daemon, "/v2/models/small/ready"), 503);
    ck_assert(cJSON_IsFalse(cJSON_GetObjectItem(json, "ready")));
    cJSON_Delete(json);
    json = json_of(post(&daemon, "/v2/repository/index", "alice"), 200);
    ck_assert_str_eq(member_string(cJSON_GetArrayItem(json, 0), "state"), "UNAVAILABLE");
    ck_assert_str_eq(member_string(cJSON_GetArrayItem(json, 0), "reason"), "unloaded");
    cJSON_Delete(json);
    cJSON_Delete(json_of(post(&daemon, "/v2/repository/models/small/load", "test"), 200));
    cJSON_Delete(json_of(upload_post(&daemon, INFER, &upload, "Authorization: Bearer alice"), 200));
    expect_plain(post(&daemon, "/v2/repository/models/none/load", "test"), 404, "'none'");
    upload_free(&upload);
    free(file.at);
    unlink(keys);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_roles)
{
    static const struct {
        const char *method, *path;
        long nobody, alice, admin;
    } cases[] = {
        {"GET", "/v2", 200, 200, 200},
        {"GET", "/v2/health/live", 200, 200, 200},
        {"GET", "/v2/health/ready", 200, 200, 200},
        {"GET", "/v2/models/small/ready", 200, 200, 200},
        {"GET", "/v2/models/small", 401, 200, 200},
        {"POST", INFER, 401, 400, 400},
        {"GET", "/v2/models/stats", 401, 403, 200},
        {"POST", "/v2/repository/index", 401, 200, 200},
        {"POST", "/hf/small", 401, 400, 400},
        {"GET", "/ping", 200, 200, 200},
    };
    char keys[] = "/tmp/vitd-keys-XXXXXX", config[256];
    const char *const headers[] = {NULL, "Authorization: Bearer alice", "Authorization: Bearer test"};
    const int fd = mkstemp(keys);
    dprintf(fd, "admin " ADMIN_HASH " root\ninfer " ALICE_HASH " alice\n");
    close(fd);
    snprintf(config, sizeof config, "{\"access\": {\"keys\": \"%s\"}}", keys);
    struct daemon daemon = daemon_start(config, small_model);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const long wanted[] = {cases[i].nobody, cases[i].alice, cases[i].admin};
        const bool posts = cases[i].method[0] == 'P';
        for (size_t k = 0; k < 3; k++) {
            struct reply reply = daemon_request(&daemon, cases[i].method, cases[i].path, posts ? "application/json" : NULL,
                                                posts ? "{}" : NULL, 2, headers[k]);
            ck_assert_msg(reply.status == wanted[k], "%s as %zu: %ld %s", cases[i].path, k, reply.status, reply.body);
            reply_free(&reply);
        }
    }
    unlink(keys);
    daemon_stop(&daemon);
}
END_TEST

/* ---- what is counted ---- */

static double count_of(const cJSON *stats, const char *name)
{
    const cJSON *duration = cJSON_GetObjectItem(cJSON_GetObjectItem(stats, "inference_stats"), name);
    ck_assert_msg((member_number(duration, "count") > 0) == (member_number(duration, "ns") > 0) || strncmp(name, "cache", 5) == 0,
                  "%s: %.0f in %.0f ns", name, member_number(duration, "count"), member_number(duration, "ns"));
    return member_number(duration, "count");
}

static double ns_of(const cJSON *stats, const char *name)
{
    return member_number(cJSON_GetObjectItem(cJSON_GetObjectItem(stats, "inference_stats"), name), "ns");
}

START_TEST(test_statistics_add_up)
{
    enum { ONE = 4, THREE = 3, BAD = 2 };
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png"), junk = {(unsigned char *)"junk", 4};
    struct upload one = upload_files(&file, 1, ""), bad = upload_files(&junk, 1, "");
    struct upload three = upload_files_binary((struct bytes[]){file, file, file}, 3, "");
    const double start = test_clock();
    for (int i = 0; i < ONE; i++)
        cJSON_Delete(json_of(upload_post(&daemon, INFER, &one, NULL), 200));
    for (int i = 0; i < THREE; i++)
        cJSON_Delete(json_of(upload_post(&daemon, INFER, &three, NULL), 200));
    const double served = test_clock() - start;
    for (int i = 0; i < BAD; i++)
        expect_plain(upload_post(&daemon, INFER, &bad, NULL), 415, "");
    for (int i = 0; i < 3; i++) /* looking is not inference */
        cJSON_Delete(json_of(daemon_get(&daemon, i ? "/v2/models/small/stats" : "/v2/models/small"), 200));
    cJSON *json = json_of(daemon_get(&daemon, "/v2/models/small/stats"), 200), *batch;
    const cJSON *stats = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "model_stats"), 0);
    ck_assert_str_eq(member_string(stats, "name"), "small");
    ck_assert_double_eq(count_of(stats, "success"), ONE + THREE);
    ck_assert_double_eq(count_of(stats, "fail"), BAD);
    ck_assert_double_eq(member_number(stats, "inference_count"), ONE + 3 * THREE);
    ck_assert_double_eq(count_of(stats, "queue"), ONE + 3 * THREE);
    ck_assert_double_eq(count_of(stats, "compute_input"), ONE + 3 * THREE);
    ck_assert_double_eq(count_of(stats, "compute_infer"), member_number(stats, "execution_count"));
    ck_assert_double_eq(count_of(stats, "cache_hit") + count_of(stats, "cache_miss"), 0);
    ck_assert_double_lt(ns_of(stats, "success"), served * 1e9);
    ck_assert_double_gt(ns_of(stats, "success"), ns_of(stats, "compute_infer"));
    ck_assert_double_gt(member_number(stats, "last_inference"), 1.7e12);
    double images = 0, batches = 0, ns = 0;
    cJSON_ArrayForEach(batch, cJSON_GetObjectItem(stats, "batch_stats"))
    {
        const cJSON *infer_stats = cJSON_GetObjectItem(batch, "compute_infer");
        images += member_number(batch, "batch_size") * member_number(infer_stats, "count");
        batches += member_number(infer_stats, "count");
        ns += member_number(infer_stats, "ns");
    }
    ck_assert_double_eq(images, ONE + 3 * THREE);
    ck_assert_double_eq(batches, member_number(stats, "execution_count"));
    ck_assert_double_eq_tol(ns, ns_of(stats, "compute_infer"), 1000);
    cJSON_Delete(json);
    json = json_of(daemon_get(&daemon, "/v2/models/stats"), 200);
    ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(json, "model_stats")), 1);
    cJSON_Delete(json);
    upload_free(&one);
    upload_free(&three);
    upload_free(&bad);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* JSON is kept, under all that it depends on; what has binary outputs is not. */
START_TEST(test_cache)
{
    struct daemon daemon = daemon_start("{\"cache\": {\"max_bytes\": 1000000}}", small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png"), junk = {(unsigned char *)"junk", 4};
    struct upload same = upload_files(&file, 1, LOGITS), other = upload_files(&file, 1, ",\"id\":\"x\"" LOGITS);
    struct upload raw = upload_raw(&file), binary = upload_files_binary(&file, 1, LOGITS), bad = upload_files(&junk, 1, "");
    const struct {
        const struct upload *upload;
        const char *cache;
    } cases[] = {{&same, "miss"}, {&same, "hit"}, {&other, "miss"}, {&same, "hit"}, {&raw, NULL}, {&raw, NULL},
                 {&binary, "miss"}, {&binary, "hit"}, {&bad, NULL}, {&bad, NULL}};
    char *first = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply reply = upload_post(&daemon, INFER, cases[i].upload, NULL);
        const char *cache = reply_header(&reply, "X-Cache");
        ck_assert_int_eq(reply.status, cases[i].upload == &bad ? 415 : 200);
        ck_assert_msg((cache == NULL) == (cases[i].cache == NULL) && (cache == NULL || strcmp(cache, cases[i].cache) == 0),
                      "%zu: %s", i, cache != NULL ? cache : "none");
        if (i == 0)
            first = strdup(reply.body);
        if (cases[i].upload == &same)
            ck_assert_str_eq(reply.body, first);
        if (cases[i].upload == &other)
            ck_assert_ptr_nonnull(strstr(reply.body, "\"id\":\"x\""));
        reply_free(&reply);
    }
    cJSON *json = json_of(daemon_get(&daemon, "/v2/models/small/stats"), 200);
    const cJSON *stats = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "model_stats"), 0);
    ck_assert_double_eq(count_of(stats, "cache_hit"), 3);
    ck_assert_double_eq(count_of(stats, "cache_miss"), 5);
    ck_assert_double_eq(member_number(stats, "inference_count"), 5);
    cJSON_Delete(json);
    free(first);
    upload_free(&same);
    upload_free(&other);
    upload_free(&raw);
    upload_free(&binary);
    upload_free(&bad);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_ids_and_traces)
{
    struct daemon daemon = daemon_start("{\"log\": {\"format\": \"json\"}}", small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_files(&file, 1, ",\"id\":\"mine\"" LOGITS);
    struct reply reply = upload_post(&daemon, INFER, &upload,
                                     "X-Request-Id: abc-7\r\n"
                                     "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(reply_header(&reply, "X-Request-Id"), "abc-7");
    ck_assert_ptr_nonnull(strstr(reply_header(&reply, "Traceparent"), "00-0af7651916cd43dd8448eb211c80319c-"));
    reply_free(&reply);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"v2-infer\",model=\"small\",code=\"200\"}"), 1);
    char *log = daemon_log(&daemon), *line = strstr(log, "\"abc-7\"");
    ck_assert_msg(line != NULL, "%s", log);
    line = (char *)memrchr(log, '\n', (size_t)(line - log)) + 1;
    ck_assert_ptr_nonnull(strstr(line, "\"v2-infer\""));
    ck_assert_ptr_nonnull(strstr(line, "\"small\""));
    ck_assert_ptr_nonnull(strstr(log, "0af7651916cd43dd8448eb211c80319c"));
    free(log);
    upload_free(&upload);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_metrics_name_the_routes)
{
    static const struct {
        const char *method, *path, *sample;
    } cases[] = {
        {"GET", "/v2", "route=\"v2\",model=\"\",code=\"200\""},
        {"GET", "/v2/health/live", "route=\"v2-live\",model=\"\",code=\"200\""},
        {"GET", "/v2/health/ready", "route=\"v2-ready\",model=\"\",code=\"200\""},
        {"GET", "/v2/models/small", "route=\"v2-model\",model=\"small\",code=\"200\""},
        {"GET", "/v2/models/small/versions/1/ready", "route=\"v2-model-ready\",model=\"\",code=\"200\""},
        {"GET", "/v2/models/none", "route=\"v2-model\",model=\"\",code=\"404\""},
        {"GET", "/v2/models/stats", "route=\"v2-stats\",model=\"\",code=\"200\""},
        {"POST", "/v2/repository/index", "route=\"v2-index\",model=\"\",code=\"200\""},
        {"POST", INFER, "route=\"v2-infer\",model=\"small\",code=\"400\""},
        {"GET", "/v2/nothing", "route=\"other\",model=\"\",code=\"404\""},
    };
    struct daemon daemon = daemon_start(NULL, small_model);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[128];
        const bool posts = cases[i].method[0] == 'P';
        struct reply reply = daemon_request(&daemon, cases[i].method, cases[i].path, NULL, posts ? "{}" : NULL, 2, NULL);
        reply_free(&reply);
        snprintf(name, sizeof name, "vitd_requests_total{%s}", cases[i].sample);
        ck_assert_msg(daemon_metric(&daemon, name) == 1, "%s", name);
    }
    daemon_stop(&daemon);
}
END_TEST

static void add(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    const TTest *const server[] = {test_server_and_health, test_draining, test_loading, test_metadata,
                                   test_versions_in_the_path, test_lazy_model, test_load_and_unload, test_roles};
    const TTest *const inference[] = {test_files_equal_classify, test_probabilities_and_embedding,
                                      test_pixels_equal_a_file, test_pixel_values_equal_the_reference,
                                      test_several_images_equal_one_by_one, test_outputs_as_asked, test_binary_outputs,
                                      test_timeout_and_priority, test_chunked_bodies};
    const TTest *const refusals[] = {test_one_bad_image_fails_the_request, test_bad_requests_have_the_protocols_shape,
                                     test_limits, test_full_queue};
    const TTest *const counts[] = {test_statistics_add_up, test_cache, test_ids_and_traces, test_metrics_name_the_routes};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("v2 over HTTP");
    add(suite, "server", server, sizeof server / sizeof server[0]);
    add(suite, "inference", inference, sizeof inference / sizeof inference[0]);
    add(suite, "refusals", refusals, sizeof refusals / sizeof refusals[0]);
    add(suite, "counts", counts, sizeof counts / sizeof counts[0]);
    return suite_run(suite);
}
