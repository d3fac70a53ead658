/*
 * test_models_http.c - many models behind one daemon: versions, models loaded for the request that needs them, the memory
 * that they share, and operators who load and unload them.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/suite.h"

/* A lazy model that takes a while to be opened: its input is large (###, see start_with()). */
#define SLOW "{\"name\": \"slow\", \"path\": \"@/vit-hf\", \"image_size\": ###, \"max_batch_size\": 1, \"lazy\": true}"
#define ORDINARY "{\"name\": \"a\", \"path\": \"@/vit-hf\"}"
#define LAZY(name) "{\"name\": \"" name "\", \"path\": \"@/vit-hf\", \"max_batch_size\": 1, \"lazy\": true}"

static unsigned char *picture;
static size_t picture_length;
static struct daemon vitd;

static void prepare(void)
{
    picture = test_file("tests/golden/vit-hf/input.png", &picture_length);
}

static void clean_up(void)
{
    free(picture);
}

static void start_with(const char *threads, const char *more)
{
    char text[16384], whole[4096];
    ck_assert_int_lt(snprintf(whole, sizeof whole, "{%s}", more), (int)sizeof whole);
    char *size = strstr(whole, "###");
    if (size != NULL)
        memcpy(size, getenv("VITD_SANITIZED") != NULL ? "400" : "640", 3);
    folder_expand(text, sizeof text, whole);
    vitd = daemon_start(text, (const char *const[]){"--threads", threads, NULL});
}

static void start(const char *more)
{
    start_with("2", more);
}

static void client_post(struct client *client, const char *path, const char *header)
{
    client_begin(client, &vitd, "POST", path, picture, picture_length, header);
}

static long post(const char *path)
{
    struct reply reply = daemon_post(&vitd, path, picture, picture_length);
    ck_assert_msg(reply.curl == CURLE_OK, "%s", curl_easy_strerror(reply.curl));
    const long status = reply.status;
    reply_free(&reply);
    return status;
}

static void assert_error(const char *method, const char *path, const char *header, long status, const char *code)
{
    struct reply reply =
        daemon_request(&vitd, method, path, NULL, strcmp(method, "POST") == 0 ? picture : NULL,
                       strcmp(method, "POST") == 0 ? picture_length : 0, header);
    reply_assert_error(&reply, status, code);
    reply_free(&reply);
}

/* A text of a model's description; to be freed. */
static char *field(const char *path, const char *key)
{
    struct reply reply = daemon_get(&vitd, path);
    cJSON *json = reply_json(&reply);
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    char *text = cJSON_IsString(item) ? strdup(item->valuestring) : item != NULL ? cJSON_PrintUnformatted(item) : strdup("none");
    cJSON_Delete(json);
    reply_free(&reply);
    return text;
}

static void assert_field(const char *path, const char *key, const char *expected)
{
    char *found = field(path, key);
    ck_assert_msg(strcmp(found, expected) == 0, "%s %s: %s, not %s", path, key, found, expected);
    free(found);
}

/* Asserts that exactly these models are in /metrics as loaded; names separated by blanks. */
static void assert_loaded(const char *names)
{
    struct reply reply = daemon_get(&vitd, "/metrics");
    char found[256] = "";
    for (const char *line = reply.body; (line = strstr(line, "\nvitd_model_info{model=\"")) != NULL;) {
        line += strlen("\nvitd_model_info{model=\"");
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%.*s", *found ? " " : "", (int)strcspn(line, "\""),
                 line);
    }
    ck_assert_msg(strcmp(found, names) == 0, "loaded: %s, not %s", found, names);
    reply_free(&reply);
}

/* How often it was opened. */
static int loads(const char *name)
{
    char line[64];
    snprintf(line, sizeof line, "model %s: vit, ", name);
    return daemon_logged(&vitd, line);
}

/* ---- versions, and what each model has for itself ---- */

START_TEST(test_versions)
{
    start("\"models\": [{\"name\": \"a\", \"version\": 1, \"path\": \"@/vit-hf\"},"
          "{\"name\": \"a\", \"version\": 2, \"path\": \"@/swin-hf\", \"lazy\": true}, {\"name\": \"b\", \"path\": \"@/vit-hf\"}]");
    ck_assert_int_eq(post("/classify?model=a:1"), 200);
    ck_assert_int_eq(loads("a:1"), 1);
    assert_loaded("a:1 b");
    assert_field("/models/a:1", "version", "1");
    assert_field("/models/a:1", "architecture", "vit");
    assert_field("/models/a", "version", "2");
    assert_field("/models/a", "state", "unloaded");
    assert_field("/models/a", "architecture", "none");
    assert_loaded("a:1 b"); /* nobody loads by looking */
    ck_assert_int_eq(post("/classify?model=a"), 200);
    assert_loaded("a:1 b a:2");
    assert_field("/models/a%3A2", "architecture", "swin");
    ck_assert_int_eq(post("/classify?model=a%3a2"), 200);
    ck_assert_int_eq(post("/classify"), 200); /* the first configured, of which 2 is the highest */
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_images_total{model=\"a:2\"}"), 3);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_images_total{model=\"a:1\"}"), 1);
    static const char *const answering[][2] = {{"/classify?model=a:1", "\"version\":1"}, {"/classify", "\"version\":2"},
                                               {"/embed?model=a:1", "\"version\":1"}, {"/classify?model=b", NULL}};
    for (size_t i = 0; i < sizeof answering / sizeof answering[0]; i++) {
        struct reply reply = daemon_post(&vitd, answering[i][0], picture, picture_length);
        ck_assert_msg(answering[i][1] ? strstr(reply.body, answering[i][1]) != NULL : strstr(reply.body, "version") == NULL,
                      "%s: %s", answering[i][0], reply.body);
        reply_free(&reply);
    }
    assert_error("POST", "/classify?model=a:3", NULL, 404, "model_not_found");
    assert_error("GET", "/models/a:3", NULL, 404, "model_not_found");
    assert_error("POST", "/classify?model=b:2", NULL, 404, "model_not_found");
    ck_assert_int_eq(post("/classify?model=b:1"), 200);
    daemon_stop(&vitd);
}
END_TEST

/* How many of the images ran in one batch, of a form with four. */
static double batch_of_four(const char *path)
{
    const void *files[] = {picture, picture, picture, picture};
    const size_t lengths[] = {picture_length, picture_length, picture_length, picture_length};
    struct reply reply = daemon_post_files(&vitd, path, files, lengths, 4);
    cJSON *json = reply_json(&reply);
    double largest = 0;
    const cJSON *result;
    ck_assert_msg(reply.status == 200, "%s", reply.body);
    cJSON_ArrayForEach(result, cJSON_GetObjectItem(json, "results")) {
        const cJSON *size = cJSON_GetObjectItem(cJSON_GetObjectItem(result, "timing"), "batch_size");
        largest = size->valuedouble > largest ? size->valuedouble : largest;
    }
    cJSON_Delete(json);
    reply_free(&reply);
    return largest;
}

START_TEST(test_batching_of_one_model)
{
    start_with("1", "\"batching\": {\"max_queue_delay_us\": 1000000}, \"models\": [" ORDINARY ","
                    "{\"name\": \"two\", \"path\": \"@/vit-hf\", \"max_batch_size\": 2},"
                    "{\"name\": \"hasty\", \"path\": \"@/vit-hf\", \"max_queue_delay_us\": 0}]");
    ck_assert_double_eq(batch_of_four("/classify?model=a"), 4);
    ck_assert_double_eq(batch_of_four("/classify?model=two"), 2);
    ck_assert_double_eq(batch_of_four("/classify?model=hasty"), 1);
    assert_field("/models/two", "max_batch_size", "2");
    assert_field("/models/hasty", "max_queue_delay_us", "0");
    assert_field("/models/a", "max_queue_delay_us", "1000000");
    daemon_stop(&vitd);
}
END_TEST

/* ---- lazy models ---- */

START_TEST(test_first_request_loads)
{
    start("\"models\": [" ORDINARY ", " LAZY("l") "]");
    ck_assert_int_eq(loads("l"), 0);
    assert_field("/models/l", "state", "unloaded");
    assert_field("/models/l", "lazy", "true");
    ck_assert_int_eq(post("/classify?model=l"), 200);
    assert_field("/models/l", "state", "ready");
    ck_assert_int_eq(post("/classify?model=l"), 200);
    ck_assert_int_eq(loads("l"), 1);
    daemon_stop(&vitd);
}
END_TEST

/* Whatever kind of request is the first. */
START_TEST(test_any_request_loads)
{
    const void *files[] = {picture, "no picture", picture};
    start("\"models\": [" ORDINARY ", " LAZY("form") ", " LAZY("filters") ", " LAZY("png") ", " LAZY("head") ", " LAZY("map")
          ", " LAZY("far") ", " LAZY("v2") "]");
    struct reply reply = daemon_post_files(&vitd, "/classify?model=form", files,
                                           (size_t[]){picture_length, 10, picture_length}, 3);
    cJSON *json = reply_json(&reply);
    const cJSON *results = cJSON_GetObjectItem(json, "results");
    ck_assert_int_eq(cJSON_GetArraySize(results), 3);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(cJSON_GetObjectItem(cJSON_GetArrayItem(results, i), "predictions") != NULL, i != 1);
    cJSON_Delete(json);
    reply_free(&reply);
    reply = daemon_get(&vitd, "/models/filters/filters");
    ck_assert_msg(reply.status == 200 && strstr(reply.body, "\"components\":[") != NULL, "%.300s", reply.body);
    reply_free(&reply);
    reply = daemon_get(&vitd, "/models/png/positions.png");
    ck_assert_msg(reply.status == 200 && strcasestr(reply.headers, "image/png") != NULL, "%.300s", reply.body);
    reply_free(&reply);
    reply = daemon_request(&vitd, "HEAD", "/models/head/filters", NULL, NULL, 0, NULL);
    ck_assert_int_eq(reply.status, 200);
    reply_free(&reply);
    reply = daemon_post(&vitd, "/explain?model=map&layer=0&attention=raw", picture, picture_length);
    ck_assert_msg(reply.status == 200 && strcasestr(reply.headers, "image/png") != NULL, "%.300s", reply.body);
    reply_free(&reply);
    ck_assert_int_eq(post("/attention-distance?model=far"), 200);
    reply = daemon_get(&vitd, "/v2/models/v2");
    ck_assert_msg(reply.status == 200 && strstr(reply.body, "\"inputs\":[") != NULL, "%.300s", reply.body);
    reply_free(&reply);
    assert_loaded("a form filters png head map far v2");
    daemon_stop(&vitd);
}
END_TEST

/* Before it is loaded nobody knows what a model can explain. */
START_TEST(test_parameters_are_checked_once_it_is_loaded)
{
    static const struct {
        const char *model, *path;
        long status;
        const char *code;
    } cases[] = {
        {"vit-hf", "/explain?model=l&attention=raw&layer=3", 400, "invalid_parameter"},
        {"vit-hf", "/explain?model=l&attention=raw&head=4", 400, "invalid_parameter"},
        {"vit-hf", "/explain?model=l&attention=none", 400, "invalid_parameter"},
        {"vit-hf", "/classify?model=l&attention=legrad&target=no-such-class", 400, "invalid_parameter"},
        {"resnetv2-timm", "/explain?model=l&attention=raw", 422, "unsupported_explanation"},
        {"swin-hf", "/attention-distance?model=l", 422, "unsupported_explanation"},
        {"swin-hf", "/models/l/positions", 422, "unsupported_explanation"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char models[256];
        const bool inside = strncmp(cases[i].path, "/models", 7) == 0;
        snprintf(models, sizeof models, "\"models\": [" ORDINARY ", {\"name\": \"l\", \"path\": \"@/%s\", \"lazy\": true}]",
                 cases[i].model);
        start(models);
        for (int loaded = 0; loaded < 2; loaded++)
            assert_error(inside ? "GET" : "POST", cases[i].path, NULL, cases[i].status, cases[i].code);
        assert_loaded("a l");
        ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
        ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
        daemon_stop(&vitd);
    }
}
END_TEST

START_TEST(test_several_first_requests_at_once)
{
    enum { CLIENTS = 8 };
    struct client clients[CLIENTS];
    start("\"models\": [" ORDINARY ", " SLOW "]");
    for (int i = 0; i < CLIENTS; i++)
        client_post(&clients[i], i % 2 ? "/classify?model=slow" : "/embed?model=slow", NULL);
    const double start_time = test_clock();
    ck_assert_int_eq(post("/classify"), 200); /* others do not wait */
    const double other = test_clock() - start_time;
    for (int i = 0; i < CLIENTS; i++) {
        struct reply reply = client_end(&clients[i]);
        ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
        reply_free(&reply);
    }
    ck_assert_double_lt(other, test_clock() - start_time);
    ck_assert_int_eq(loads("slow"), 1);
    daemon_stop(&vitd);
}
END_TEST

/* A folder that is broken fails its own requests only, and is tried again when it has been repaired. */
START_TEST(test_broken_lazy_model)
{
    enum { CLIENTS = 6 };
    struct client clients[CLIENTS];
    char folder[FOLDER_BYTES], models[512];
    folder_make(folder);
    folder_add(folder, "m", "tests/golden/vit-hf");
    folder_write(folder, "m/config.json", "{\"model_type\": ");
    snprintf(models, sizeof models,
             "\"models\": [" ORDINARY ", {\"name\": \"l\", \"path\": \"%s/m\", \"lazy\": true}]", folder);
    start(models);
    for (int i = 0; i < CLIENTS; i++)
        client_post(&clients[i], "/classify?model=l", NULL);
    struct reply reply;
    for (int i = 0; i < CLIENTS; i++) {
        reply = client_end(&clients[i]);
        reply_assert_error(&reply, 503, "model_failed");
        ck_assert_msg(strstr(reply.body, "model l: ") && strstr(reply.body, "config.json"), "%s", reply.body);
        reply_free(&reply);
    }
    assert_error("GET", "/models/l/filters", NULL, 503, "model_failed");
    assert_field("/models/l", "state", "failed");
    char *reason = field("/models/l", "reason");
    ck_assert_msg(strstr(reason, "config.json") != NULL, "%s", reason);
    free(reason);
    ck_assert_int_eq(daemon_logged(&vitd, "error model l: "), 1); /* one attempt for all */
    /* whose failure it was is told everywhere */
    reply = daemon_get(&vitd, "/v2/models/l/ready");
    ck_assert_int_eq(reply.status, 503);
    reply_free(&reply);
    ck_assert_int_ge(daemon_logged(&vitd, "error=model_failed model=l "), CLIENTS);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_requests_total{route=\"classify\",model=\"l\",code=\"503\"}"), CLIENTS);
    ck_assert_int_eq(post("/classify"), 200);
    assert_loaded("a");
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
    folder_add(folder, "m", "tests/golden/vit-hf");
    ck_assert_int_eq(post("/classify?model=l"), 200);
    assert_field("/models/l", "reason", "none");
    daemon_stop(&vitd);
    folder_remove(folder);
}
END_TEST

static void await_loading(void)
{
    const double start_time = test_clock();
    for (bool loading = false; !loading;) {
        ck_assert_double_lt(test_clock() - start_time, 20);
        char *state = field("/models/slow", "state");
        loading = strcmp(state, "loading") == 0;
        free(state);
    }
}

static void await_idle(void)
{
    const double start_time = test_clock();
    while (daemon_metric(&vitd, "vitd_inflight_requests") != 1) {
        ck_assert_double_lt(test_clock() - start_time, 20);
        usleep(20000);
    }
}

/* A client that leaves meanwhile is let go of at once, and the model serves others. */
START_TEST(test_client_leaves_while_it_loads)
{
    char head[256];
    start("\"models\": [" ORDINARY ", " SLOW "]");
    const int fd = daemon_connect(&vitd);
    snprintf(head, sizeof head, "POST /classify?model=slow HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
             picture_length);
    say(fd, head);
    ck_assert_int_eq(write(fd, picture, picture_length), (ssize_t)picture_length);
    await_loading();
    close(fd);
    await_idle();
    assert_field("/models/slow", "state", "loading");
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"client_gone\"}"), 1);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
    ck_assert_int_eq(post("/classify?model=slow"), 200);
    ck_assert_int_eq(loads("slow"), 1);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_deadline_passes_while_it_loads)
{
    start("\"models\": [" ORDINARY ", " SLOW "]");
    assert_error("POST", "/classify?model=slow", "X-Request-Timeout-Ms: 20", 504, "deadline_exceeded");
    assert_field("/models/slow", "state", "loading"); /* it did not wait for that */
    assert_error("GET", "/models/slow/filters", "X-Request-Timeout-Ms: 20", 504, "deadline_exceeded"); /* no upload, as little */
    assert_field("/models/slow", "state", "loading");
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"timeout\"}"), 2);
    ck_assert_int_eq(post("/classify?model=slow"), 200);
    ck_assert_int_eq(loads("slow"), 1);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_sigterm_while_one_loads)
{
    struct client client;
    start("\"models\": [" ORDINARY ", " SLOW "]");
    client_post(&client, "/classify?model=slow", NULL);
    await_loading();
    ck_assert_int_eq(kill(vitd.pid, SIGTERM), 0);
    struct reply reply = client_end(&client);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    ck_assert_ptr_nonnull(strcasestr(reply.headers, "connection: close"));
    reply_free(&reply);
    daemon_end(&vitd);
}
END_TEST

/* Nobody waits for it any more, so the end does not, either. */
START_TEST(test_sigterm_while_one_loads_for_nobody)
{
    start("\"models\": [" ORDINARY ", " SLOW "]");
    assert_error("POST", "/classify?model=slow", "X-Request-Timeout-Ms: 20", 504, "deadline_exceeded");
    assert_field("/models/slow", "state", "loading");
    ck_assert_int_eq(kill(vitd.pid, SIGTERM), 0);
    daemon_await_log(&vitd, "stopped while loading", 1);
    daemon_end(&vitd);
}
END_TEST

/* ---- memory ---- */

/* What one of the small lazy models takes. */
static double bytes_of_one(void)
{
    start("\"models\": [" ORDINARY ", " LAZY("l") "]");
    const double before = daemon_metric(&vitd, "vitd_models_bytes");
    ck_assert_int_eq(post("/classify?model=l"), 200);
    char *told = field("/models/l", "memory_bytes");
    const double bytes = daemon_metric(&vitd, "vitd_models_bytes") - before;
    ck_assert_double_eq(bytes, atof(told));
    ck_assert_double_gt(bytes, 100000);
    free(told);
    daemon_stop(&vitd);
    return bytes;
}

START_TEST(test_least_recently_used_makes_room)
{
    char more[1024];
    const double one = bytes_of_one();
    snprintf(more, sizeof more, "\"model_memory_bytes\": %.0f, \"models\": [" LAZY("x") ", " LAZY("y") ", " LAZY("z") "]",
             2.5 * one);
    start(more);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_models_bytes"), 0);
    ck_assert_int_eq(post("/classify?model=x"), 200);
    ck_assert_int_eq(post("/classify?model=y"), 200);
    assert_loaded("x y");
    ck_assert_int_eq(post("/classify?model=x"), 200);
    for (int i = 0; i < 3; i++) { /* a probe does not count */
        assert_field("/models/y", "state", "ready");
        usleep(1000);
    }
    ck_assert_int_eq(post("/classify?model=z"), 200);
    assert_loaded("x z");
    assert_field("/models/y", "state", "unloaded");
    ck_assert_int_eq(post("/classify?model=y"), 200);
    assert_loaded("y z");
    ck_assert_double_le(daemon_metric(&vitd, "vitd_models_bytes"), 2.5 * one);
    ck_assert_double_gt(daemon_metric(&vitd, "vitd_models_bytes"), 1.5 * one);
    ck_assert_int_eq(daemon_logged(&vitd, "unloaded, others need its memory"), 2);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_model_that_never_fits)
{
    char more[2048];
    const double one = bytes_of_one();
    snprintf(more, sizeof more,
             "\"model_memory_bytes\": %.0f, \"models\": [" LAZY("x") ", " LAZY("y") ", {\"name\": \"large\", "
             "\"path\": \"@/vit-hf\", \"image_size\": 192, \"lazy\": true}]",
             2.5 * one);
    start(more);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(post("/classify?model=x"), 200);
        ck_assert_int_eq(post("/classify?model=y"), 200);
        struct reply reply = daemon_post(&vitd, "/classify?model=large", picture, picture_length);
        reply_assert_error(&reply, 503, "out_of_memory");
        ck_assert_msg(strstr(reply.body, "model large: needs ") && strstr(reply.body, "model_memory_bytes"), "%s", reply.body);
        reply_free(&reply);
    }
    assert_loaded("x y"); /* the first time it was opened to find out, and one had made room for its weights */
    ck_assert_int_eq(loads("large"), 1);
    assert_field("/models/large", "state", "failed");
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
    daemon_stop(&vitd);
}
END_TEST

/* Three that take turns in the room of two, with requests for all: slow, but nothing fails. */
START_TEST(test_crowd_in_too_little_room)
{
    static const char *const paths[] = {"/classify?model=x", "/classify?model=y", "/explain?model=z", "/embed?model=x",
                                        "/classify?model=z", NULL};
    struct crowd crowd = {.daemon = &vitd, .paths = paths, .body = picture, .length = picture_length};
    char more[1024];
    const double one = bytes_of_one();
    snprintf(more, sizeof more, "\"model_memory_bytes\": %.0f, \"models\": [" LAZY("x") ", " LAZY("y") ", " LAZY("z") "]",
             2.5 * one);
    start(more);
    const double start_time = test_clock();
    crowd_begin(&crowd, 5);
    while (loads("x") + loads("y") + loads("z") <= 6) {
        usleep(50000);
        ck_assert_double_le(daemon_metric(&vitd, "vitd_models_bytes"), 2.5 * one);
        ck_assert_double_lt(test_clock() - start_time, 60);
    }
    crowd_end(&crowd);
    ck_assert_msg(crowd.wrong + crowd.lost + crowd.refused == 0, "%d wrong (%s), %d lost of %d", crowd.wrong,
                  crowd.first_wrong, crowd.lost, crowd.ok);
    daemon_stop(&vitd);
}
END_TEST

/* ---- operators ---- */

static char keys[FOLDER_BYTES];

static const char operator_key[] = "Authorization: Bearer boss", client_key[] = "Authorization: Bearer secret";

/* With the admin routes, for a key "boss"; "secret" may only infer. */
static void start_admin(const char *models)
{
    char more[2048];
    folder_make(keys);
    folder_write(keys, "keys",
                 "admin a5e7c002443743c5836758c7d1cd8ddefd9fcf2061daa0efaac683fb99966057 boss\n"
                 "infer,metrics 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b client\n");
    snprintf(more, sizeof more, "\"access\": {\"keys\": \"%s/keys\", \"admin\": true}, \"models\": [%s]", keys, models);
    start(more);
}

static void stop_admin(void)
{
    daemon_stop(&vitd);
    folder_remove(keys);
}

/* An operator's wish; asserts the status, and that the reply tells this of the model. */
static void wish(const char *path, long status, const char *says)
{
    struct reply reply = daemon_request(&vitd, "POST", path, NULL, "", 0, operator_key);
    ck_assert_msg(reply.status == status && strstr(reply.body, says) != NULL, "%s: %ld %s", path, reply.status, reply.body);
    reply_free(&reply);
}

/* The status of a request with the client's key. */
static long ask(const char *path)
{
    struct reply reply = daemon_request(&vitd, "POST", path, NULL, picture, picture_length, client_key);
    const long status = reply.status;
    reply_free(&reply);
    return status;
}

static const char *const operator_paths[] = {"/models/a/load", "/models/a/reload", "/models/a/unload",
                                             "/v2/repository/models/a/load", "/v2/repository/models/a/unload"};
enum { OPERATOR_PATHS = sizeof operator_paths / sizeof operator_paths[0] };

START_TEST(test_operators_routes_are_not_there_by_default)
{
    start("\"models\": [" ORDINARY "]");
    for (size_t i = 0; i < OPERATOR_PATHS; i++) {
        struct reply reply = daemon_request(&vitd, "POST", operator_paths[i], NULL, "", 0, NULL);
        ck_assert_msg(reply.status == 404 && strstr(reply.body, "only there with access.admin") != NULL, "%s", reply.body);
        reply_free(&reply);
    }
    assert_error("GET", "/debug/queue", NULL, 404, "route_not_found");
    ck_assert_int_eq(post("/classify"), 200);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_operators_say_which_version)
{
    start_admin("{\"name\": \"a\", \"version\": 1, \"path\": \"@/vit-hf\"}, "
                "{\"name\": \"a\", \"version\": 2, \"path\": \"@/vit-hf\"}");
    assert_error("POST", "/models/a/unload", operator_key, 400, "version_needed");
    assert_error("POST", "/models/a/load", operator_key, 400, "version_needed");
    struct reply reply = daemon_request(&vitd, "POST", "/models/a:2/unload", NULL, "", 0, operator_key);
    ck_assert_str_eq(reply.body, "{\"model\":\"a:2\",\"state\":\"unloaded\"}");
    reply_free(&reply);
}
END_TEST

START_TEST(test_operators_need_their_key)
{
    start_admin(ORDINARY);
    for (size_t i = 0; i < OPERATOR_PATHS; i++) {
        static const struct {
            const char *header;
            long status;
        } cases[] = {{NULL, 401}, {"Authorization: Bearer nobody", 401}, {client_key, 403}};
        for (size_t k = 0; k < 3; k++) {
            struct reply reply = daemon_request(&vitd, "POST", operator_paths[i], NULL, "", 0, cases[k].header);
            ck_assert_msg(reply.status == cases[k].status, "%s: %ld %s", operator_paths[i], reply.status, reply.body);
            ck_assert_int_eq(strcasestr(reply.headers, "www-authenticate: bearer") != NULL, reply.status == 401);
            reply_free(&reply);
        }
    }
    assert_error("GET", "/debug/queue", client_key, 403, "forbidden");
    ck_assert_int_eq(ask("/classify"), 200);
    ck_assert_int_eq(loads("a"), 1);
    stop_admin();
}
END_TEST

START_TEST(test_operator_unloads_and_loads)
{
    start_admin(ORDINARY ", " LAZY("l") ", {\"name\": \"v\", \"version\": 3, \"path\": \"@/vit-hf\"}");
    wish("/models/a/unload", 200, "{\"model\":\"a\",\"state\":\"unloaded\"}");
    struct reply reply = daemon_request(&vitd, "POST", "/classify", NULL, picture, picture_length, client_key);
    reply_assert_error(&reply, 503, "model_unloaded");
    ck_assert_msg(strstr(reply.body, "POST /models/a/load loads it") != NULL, "%s", reply.body);
    reply_free(&reply);
    wish("/models/a/unload", 200, "{\"model\":\"a\",\"state\":\"unloaded\"}");
    wish("/models/a/load", 200, "{\"model\":\"a\",\"state\":\"ready\"}");
    ck_assert_int_eq(ask("/classify"), 200);
    wish("/models/a/load", 200, "{\"model\":\"a\",\"state\":\"ready\"}");
    ck_assert_int_eq(loads("a"), 2);
    wish("/models/l/load", 200, "{\"model\":\"l\",\"state\":\"ready\"}");
    ck_assert_int_eq(ask("/classify?model=l"), 200);
    ck_assert_int_eq(loads("l"), 1);
    wish("/models/l/unload", 200, "{\"model\":\"l\",\"state\":\"unloaded\"}");
    ck_assert_int_eq(ask("/classify?model=l"), 200);
    ck_assert_int_eq(loads("l"), 2);
    wish("/models/v/unload", 200, "{\"model\":\"v:3\",\"state\":\"unloaded\"}");
    ck_assert_int_eq(ask("/classify?model=v"), 503);
    wish("/models/v:3/load", 200, "{\"model\":\"v:3\",\"state\":\"ready\"}");
    ck_assert_int_eq(ask("/classify?model=v"), 200);
    wish("/models/none/load", 404, "\"model_not_found\"");
    wish("/models/v:4/unload", 404, "\"model_not_found\"");
    stop_admin();
}
END_TEST

START_TEST(test_operator_reloads)
{
    char folder[FOLDER_BYTES], models[512];
    folder_make(folder);
    folder_add(folder, "m", "tests/golden/vit-hf");
    snprintf(models, sizeof models, "{\"name\": \"a\", \"path\": \"%s/m\"}", folder);
    start_admin(models);
    wish("/models/a/reload", 200, "\"ready\"");
    ck_assert_int_eq(loads("a"), 1);
    folder_add(folder, "m", "tests/golden/vit-hf");
    wish("/models/a/load", 200, "\"ready\"");
    ck_assert_int_eq(loads("a"), 1);
    wish("/models/a/reload", 200, "\"ready\"");
    ck_assert_int_eq(loads("a"), 2);
    folder_write(folder, "m/config.json", "{");
    wish("/models/a/reload", 503, "\"model_failed\"");
    ck_assert_int_eq(ask("/classify"), 200); /* the old one */
    wish("/models/a/unload", 200, "\"unloaded\"");
    wish("/models/a/load", 503, "\"model_failed\"");
    ck_assert_int_eq(ask("/classify"), 503);
    folder_add(folder, "m", "tests/golden/vit-hf");
    wish("/models/a/load", 200, "\"ready\"");
    ck_assert_int_eq(ask("/classify"), 200);
    stop_admin();
    folder_remove(folder);
}
END_TEST

/* What has found a model before it is unloaded is answered; a lazy one comes back for the next. */
START_TEST(test_unloading_under_load_fails_nobody)
{
    static const char *const paths[] = {"/classify?model=l", "/explain?model=l", "/embed?model=l", NULL};
    struct crowd crowd = {.daemon = &vitd, .paths = paths, .body = picture, .length = picture_length, .header = client_key};
    start_admin(ORDINARY ", " LAZY("l"));
    crowd_begin(&crowd, 5);
    for (int i = 0; i < 30; i++) {
        usleep(5000);
        wish("/models/l/unload", 200, "\"model\":\"l\"");
    }
    crowd_end(&crowd);
    ck_assert_msg(crowd.wrong + crowd.lost + crowd.refused == 0, "%d wrong (%s), %d lost of %d", crowd.wrong,
                  crowd.first_wrong, crowd.lost, crowd.ok);
    ck_assert_int_ge(loads("l"), 2);
    stop_admin();
}
END_TEST

int main(void)
{
    const TTest *const all[] = {
        test_versions, test_batching_of_one_model, test_first_request_loads, test_any_request_loads,
        test_parameters_are_checked_once_it_is_loaded, test_several_first_requests_at_once, test_broken_lazy_model,
        test_client_leaves_while_it_loads, test_deadline_passes_while_it_loads, test_sigterm_while_one_loads,
        test_sigterm_while_one_loads_for_nobody, test_least_recently_used_makes_room, test_model_that_never_fits,
        test_crowd_in_too_little_room, test_operators_routes_are_not_there_by_default, test_operators_say_which_version,
        test_operators_need_their_key, test_operator_unloads_and_loads,
        test_operator_reloads, test_unloading_under_load_fails_nobody};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("models_http");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, prepare, clean_up);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
