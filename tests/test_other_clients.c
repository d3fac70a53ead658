/* test_other_clients.c - the shapes of Hugging Face's inference API and of TorchServe, over HTTP. */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/suite.h"
#include "tests/upload.h"

#define SMALL "tests/golden/vit-hf"

enum { CLASSES = 10 };

static const char *const small_model[] = {"--model", "small=" SMALL, "--threads", "2", NULL};

static void expect_code(struct reply reply, long status, const char *code)
{
    reply_assert_error(&reply, status, code);
    reply_free(&reply);
}

static cJSON *classify(const struct daemon *daemon, const char *query, const struct bytes *file)
{
    char path[128];
    snprintf(path, sizeof path, "/classify?model=small%s", query);
    return json_of(daemon_post(daemon, path, file->at, file->length), 200);
}

static struct upload hf_message(const struct bytes *file, const char *members)
{
    struct bytes base64 = bytes_of_base64(file);
    struct upload upload = upload_text("{\"inputs\": \"%s\"%s}", (char *)base64.at, members);
    free(base64.at);
    return upload;
}

/* [{"label","score"},...] as "predictions" of /classify are. */
static void assert_hf(const cJSON *found, const cJSON *classified, int count)
{
    const cJSON *predictions = cJSON_GetObjectItem(classified, "predictions");
    ck_assert_int_eq(cJSON_GetArraySize(found), count);
    ck_assert_int_eq(cJSON_GetArraySize(predictions), count);
    for (int i = 0; i < count; i++) {
        const cJSON *a = cJSON_GetArrayItem(found, i), *b = cJSON_GetArrayItem(predictions, i);
        ck_assert_str_eq(member_string(a, "label"), member_string(b, "label"));
        ck_assert_double_eq(member_number(a, "score"), member_number(b, "score"));
        ck_assert_int_eq(cJSON_GetArraySize(a), 2);
    }
}

/* ---- Hugging Face ---- */

START_TEST(test_hf_bytes_and_json)
{
    static const struct {
        const char *members, *query, *same;
        int count;
    } cases[] = {
        {"", "", "", 5},
        {", \"parameters\": {\"top_k\": 3}", "?top_k=3", "&top_k=3", 3},
        {", \"parameters\": {\"top_k\": 2, \"function_to_apply\": \"none\"}", "?top_k=2&function_to_apply=none",
         "&top_k=2&function_to_apply=none", 2},
        {", \"parameters\": {\"function_to_apply\": \"sigmoid\", \"top_k\": 99}, \"options\": {\"wait_for_model\": true}",
         "?function_to_apply=sigmoid&top_k=99", "&function_to_apply=sigmoid&top_k=99", CLASSES},
    };
    char path[128];
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    const void *const parts[] = {file.at, file.at};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *wanted = classify(&daemon, cases[i].same, &file);
        struct upload upload = hf_message(&file, cases[i].members);
        cJSON *json = json_of(upload_post(&daemon, "/hf/small", &upload, NULL), 200);
        assert_hf(json, wanted, cases[i].count);
        cJSON_Delete(json);
        snprintf(path, sizeof path, "/hf/small%s", cases[i].query);
        json = json_of(daemon_request(&daemon, "POST", path, "image/png", file.at, file.length, NULL), 200);
        assert_hf(json, wanted, cases[i].count);
        cJSON_Delete(json);
        json = json_of(daemon_post_files(&daemon, path, parts, &file.length, 1), 200);
        assert_hf(json, wanted, cases[i].count);
        cJSON_Delete(json);
        cJSON_Delete(wanted);
        upload_free(&upload);
    }
    expect_plain(daemon_post_files(&daemon, "/hf/small", parts, (size_t[]){file.length, file.length}, 2), 400,
                 "there are 2 images");
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* What the message says counts more than the query. */
START_TEST(test_hf_message_beats_the_query)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload both = hf_message(&file, ", \"parameters\": {\"top_k\": 2}"), query = hf_message(&file, "");
    cJSON *json = json_of(upload_post(&daemon, "/hf/small?top_k=4", &both, NULL), 200);
    ck_assert_int_eq(cJSON_GetArraySize(json), 2);
    cJSON_Delete(json);
    json = json_of(upload_post(&daemon, "/hf/small?top_k=4", &query, NULL), 200);
    ck_assert_int_eq(cJSON_GetArraySize(json), 4);
    cJSON_Delete(json);
    upload_free(&both);
    upload_free(&query);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_hf_refusals)
{
    static const struct {
        const char *path, *type, *body;
        long status;
        const char *part;
    } cases[] = {
        {"/hf/small", "application/json", "{\"inputs\": \"b*d=\"}", 400, "inputs: not base64"},
        {"/hf/small", "application/json", "{\"inputs\": 7}", 400, "inputs"},
        {"/hf/small", "application/x-www-form-urlencoded", "{\"inputs\": 7}", 400, "inputs: found 7"}, /* curl -d */
        {"/hf/small", "application/json", "{}", 400, "inputs: missing"},
        {"/hf/small", "application/json", "", 400, ""},
        {"/hf/small", "application/json; charset=utf-8", "{", 400, ""},
        {"/hf/small", "application/json", "{\"inputs\": \"anVuaw==\", \"parameters\": {\"top_k\": 0}}", 400, "top_k"},
        {"/hf/small", "application/json", "{\"inputs\": \"anVuaw==\", \"parameters\": {\"function_to_apply\": \"max\"}}", 400,
         "function_to_apply"},
        {"/hf/small", "application/json", "{\"inputs\": \"anVuaw==\", \"unknown\": 1}", 400, "unknown"},
        {"/hf/small", "application/json", "{\"inputs\": \"anVuaw==\"}", 415, "not a JPEG"},
        {"/hf/small", "image/jpeg", "junk", 415, "not a JPEG"},
        {"/hf/small", "image/jpeg", "", 400, "the body is empty"},
        {"/hf/small?layer=1", "image/jpeg", "junk", 400, "layer"},
        {"/hf/none", "image/jpeg", "junk", 404, "there is no model 'none'"},
    };
    struct daemon daemon = daemon_start(NULL, small_model);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_plain(daemon_request(&daemon, "POST", cases[i].path, cases[i].type, cases[i].body, strlen(cases[i].body), NULL),
                     cases[i].status, cases[i].part);
    expect_plain(daemon_get(&daemon, "/hf/small"), 405, "takes POST");
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"hf\",model=\"small\",code=\"415\"}"), 2);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_hf_cache)
{
    static const char *const caches[] = {"miss", "hit", "miss"};
    struct daemon daemon = daemon_start("{\"cache\": {\"max_bytes\": 1000000}}", small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload upload = hf_message(&file, "");
    char *first = NULL;
    for (size_t i = 0; i < 3; i++) {
        struct reply reply = upload_post(&daemon, i < 2 ? "/hf/small" : "/hf/small?top_k=2", &upload, NULL);
        ck_assert_int_eq(reply.status, 200);
        ck_assert_str_eq(reply_header(&reply, "X-Cache"), caches[i]);
        if (i == 1)
            ck_assert_str_eq(reply.body, first);
        free(first);
        first = strdup(reply.body);
        reply_free(&reply);
    }
    free(first);
    upload_free(&upload);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- TorchServe ---- */

/* {label: probability}, best first, as the predictions of /classify. */
static void assert_predictions(const cJSON *found, const cJSON *classified, int count)
{
    const cJSON *predictions = cJSON_GetObjectItem(classified, "predictions");
    ck_assert_int_eq(cJSON_GetArraySize(found), count);
    for (int i = 0; i < count; i++) {
        const cJSON *a = cJSON_GetArrayItem(found, i), *b = cJSON_GetArrayItem(predictions, i);
        ck_assert_str_eq(a->string, member_string(b, "label"));
        ck_assert_double_eq(a->valuedouble, member_number(b, "score"));
    }
}

START_TEST(test_predictions)
{
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    const void *const parts[] = {file.at, file.at};
    cJSON *five = classify(&daemon, "", &file), *two = classify(&daemon, "&top_k=2&function_to_apply=none", &file);
    cJSON *json = json_of(daemon_post(&daemon, "/predictions/small", file.at, file.length), 200);
    assert_predictions(json, five, 5);
    cJSON_Delete(json);
    json = json_of(daemon_post_files(&daemon, "/predictions/small", parts, &file.length, 1), 200); /* curl -F data=@ */
    assert_predictions(json, five, 5);
    cJSON_Delete(json);
    json = json_of(daemon_request(&daemon, "PUT", "/predictions/small", NULL, file.at, file.length, NULL), 200); /* curl -T */
    assert_predictions(json, five, 5);
    cJSON_Delete(json);
    json = json_of(daemon_post(&daemon, "/predictions/small?top_k=2&function_to_apply=none", file.at, file.length), 200);
    assert_predictions(json, two, 2);
    cJSON_Delete(json);
    expect_code(daemon_post_files(&daemon, "/predictions/small", parts, (size_t[]){file.length, file.length}, 2), 400,
                "one_image_only");
    expect_code(daemon_post(&daemon, "/predictions/none", file.at, file.length), 404, "model_not_found");
    expect_code(daemon_post(&daemon, "/predictions/small", "junk", 4), 415, "unsupported_image_type");
    expect_code(daemon_post(&daemon, "/predictions/small", file.at, file.length / 2), 422, "undecodable_image");
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_requests_total{route=\"predictions\",model=\"small\",code=\"200\"}"), 4);
    cJSON_Delete(five);
    cJSON_Delete(two);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_predictions_of_a_version)
{
    char config[2048], here[512];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(config, sizeof config,
             "{\"models\": [{\"name\": \"m\", \"version\": 1, \"path\": \"%s/" SMALL "\"}, {\"name\": \"m\", \"version\": 2, "
             "\"path\": \"%s/tests/golden/dinov2-hf\"}]}", here, here);
    struct daemon daemon = daemon_start(config, NULL);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    static const struct {
        const char *path;
        int classes;
    } cases[] = {{"/predictions/m/1?top_k=99", 10}, {"/predictions/m/2?top_k=99", 6}, {"/predictions/m?top_k=99", 6}};
    for (size_t i = 0; i < 3; i++) {
        cJSON *json = json_of(daemon_post(&daemon, cases[i].path, file.at, file.length), 200);
        ck_assert_int_eq(cJSON_GetArraySize(json), cases[i].classes);
        cJSON_Delete(json);
    }
    expect_code(daemon_post(&daemon, "/predictions/m/3", file.at, file.length), 404, "model_not_found");
    expect_code(daemon_post(&daemon, "/predictions/m/1/2", file.at, file.length), 404, "route_not_found");
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

static void expect_ping(const struct daemon *daemon, long status, const char *word)
{
    cJSON *json = json_of(daemon_get(daemon, "/ping"), status);
    ck_assert_str_eq(member_string(json, "status"), word);
    cJSON_Delete(json);
}

START_TEST(test_ping)
{
    enum { MODELS = 24 };
    char *config = NULL, here[512];
    size_t length = 0;
    FILE *out = open_memstream(&config, &length);
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    for (int i = 0; i < MODELS; i++)
        fprintf(out, "%s{\"name\": \"m%d\", \"path\": \"%s/config/models/vit-tiny-64\"}", i ? "," : "{\"models\": [", i, here);
    fputs("], \"drain_delay_ms\": 1000}", out);
    fclose(out);
    struct daemon daemon = daemon_start_loading(config);
    expect_ping(&daemon, 503, "Unhealthy");
    const double start = test_clock();
    for (bool ready = false; !ready && test_clock() < start + 60; usleep(20000)) {
        struct reply reply = daemon_get(&daemon, "/readyz");
        ready = reply.status == 200;
        reply_free(&reply);
    }
    expect_ping(&daemon, 200, "Healthy");
    ck_assert_int_eq(kill(daemon.pid, SIGTERM), 0);
    usleep(300000);
    expect_ping(&daemon, 503, "Unhealthy");
    daemon_end(&daemon);
    free(config);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_hf_bytes_and_json, test_hf_message_beats_the_query, test_hf_refusals, test_hf_cache,
                                  test_predictions, test_predictions_of_a_version, test_ping};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("other clients");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(all, tests[i]);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}
