/* test_reload.c - the real daemon on SIGHUP: a configuration comes into force as a whole, or nothing of it does. */
#include <check.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/suite.h"

static char config_path[64];
static unsigned char *picture;
static size_t picture_length;
static struct daemon vitd;

static void prepare(void)
{
    picture = test_file("tests/golden/vit-hf/input.png", &picture_length);
    config_path[0] = '\0';
}

static void clean_up(void)
{
    unlink(config_path);
    free(picture);
}

/* Writes a configuration of two threads and `more`, in which every @ is the folder with the golden models. */
static void configure(const char *more)
{
    char text[16384], whole[4096];
    ck_assert_int_lt(snprintf(whole, sizeof whole, "{\"threads\": 2, %s}", more), (int)sizeof whole);
    folder_expand(text, sizeof text, whole);
    daemon_write_config(config_path, text);
}

static void start(const char *more, const char *const *arguments)
{
    configure(more);
    vitd = daemon_start_file(config_path, arguments);
}

static void hang_up(void)
{
    ck_assert_int_eq(kill(vitd.pid, SIGHUP), 0);
}

/* Until it is in force. */
static void reload(const char *more)
{
    const int before = daemon_logged(&vitd, "reloaded: ");
    configure(more);
    hang_up();
    daemon_await_log(&vitd, "reloaded: ", before + 1);
}

/* Posts the picture; the status. */
static long post(const char *path)
{
    struct reply reply = daemon_post(&vitd, path, picture, picture_length);
    ck_assert_msg(reply.curl == CURLE_OK, "%s", curl_easy_strerror(reply.curl));
    const long status = reply.status;
    reply_free(&reply);
    return status;
}

static void assert_architecture(const char *path, const char *expected)
{
    struct reply reply = daemon_get(&vitd, path);
    cJSON *json = reply_json(&reply);
    const cJSON *found = cJSON_GetObjectItem(json, "architecture");
    ck_assert_msg(cJSON_IsString(found) && strcmp(found->valuestring, expected) == 0, "%s: %.300s", path, reply.body);
    cJSON_Delete(json);
    reply_free(&reply);
}

/* ---- models ---- */

START_TEST(test_models_come_change_and_go)
{
    start("\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}]", NULL);
    assert_architecture("/models/a", "vit");
    ck_assert_int_eq(post("/classify"), 200);
    reload("\"models\": [{\"name\": \"a\", \"path\": \"@/swin-hf\"}, {\"name\": \"b\", \"path\": \"@/vit-hf\"}]");
    assert_architecture("/models/a", "swin");
    assert_architecture("/models/b", "vit");
    ck_assert_int_eq(post("/classify?model=a"), 200);
    ck_assert_int_eq(post("/classify?model=b"), 200);
    reload("\"models\": [{\"name\": \"c\", \"path\": \"@/vit-hf\", \"version\": 2}]");
    ck_assert_int_eq(post("/classify?model=a"), 404);
    ck_assert_int_eq(post("/classify?model=b"), 404);
    ck_assert_int_eq(post("/classify?model=c:2"), 200);
    ck_assert_int_eq(post("/classify"), 200);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_images_total{model=\"c:2\"}"), 2);
    struct reply reply = daemon_get(&vitd, "/metrics");
    ck_assert_ptr_nonnull(strstr(reply.body, "vitd_model_info{model=\"c:2\""));
    ck_assert_ptr_null(strstr(reply.body, "vitd_model_info{model=\"a\""));
    ck_assert_ptr_null(strstr(reply.body, "vitd_model_info{model=\"b\""));
    reply_free(&reply);
    daemon_stop(&vitd);
}
END_TEST

/* A deployment moves a link. What has not changed is not opened again. */
START_TEST(test_folder_behind_a_link)
{
    char folder[FOLDER_BYTES], models[512];
    folder_make(folder);
    folder_add(folder, "1", "tests/golden/vit-hf");
    folder_add(folder, "2", "tests/golden/swin-hf");
    folder_link(folder, "1", "current");
    snprintf(models, sizeof models,
             "\"models\": [{\"name\": \"a\", \"path\": \"%s/current\"}, {\"name\": \"b\", \"path\": \"@/vit-hf\"}]", folder);
    start(models, NULL);
    reload(models);
    ck_assert_int_eq(daemon_logged(&vitd, "model a: "), 1);
    ck_assert_int_eq(daemon_logged(&vitd, "model b: "), 1);
    folder_link(folder, "2", "current");
    assert_architecture("/models/a", "vit");
    reload(models);
    assert_architecture("/models/a", "swin");
    ck_assert_int_eq(daemon_logged(&vitd, "model a: "), 2);
    ck_assert_int_eq(daemon_logged(&vitd, "model b: "), 1);
    ck_assert_int_eq(post("/classify?model=a"), 200);
    daemon_stop(&vitd);
    folder_remove(folder);
}
END_TEST

/* A model that is replaced goes on serving those that found it. */
START_TEST(test_requests_never_fail_across_swaps)
{
    static const char *const paths[] = {"/classify?model=a", "/explain?model=a", "/embed", "/classify?model=b", NULL};
    static const char *const versions[] = {"1", "2"};
    const int rounds = getenv("VITD_SANITIZED") != NULL ? 6 : 20;
    char folder[FOLDER_BYTES], models[512];
    struct crowd crowd = {.daemon = &vitd, .paths = paths, .body = picture, .length = picture_length};
    folder_make(folder);
    folder_add(folder, "1", "tests/golden/vit-hf");
    folder_add(folder, "2", "tests/golden/swin-hf");
    folder_link(folder, "1", "current");
    snprintf(models, sizeof models,
             "\"models\": [{\"name\": \"a\", \"path\": \"%s/current\"}, {\"name\": \"b\", \"path\": \"@/vit-hf\"}]", folder);
    start(models, NULL);
    crowd_begin(&crowd, 6);
    for (int i = 0; i < rounds; i++) {
        usleep(20000);
        folder_link(folder, versions[(i + 1) % 2], "current");
        reload(models);
    }
    crowd_end(&crowd);
    ck_assert_msg(crowd.wrong + crowd.lost + crowd.refused == 0, "%d wrong (%s), %d lost, %d refused of %d", crowd.wrong,
                  crowd.first_wrong, crowd.lost, crowd.refused, crowd.ok);
    ck_assert_int_gt(crowd.ok, rounds);
    ck_assert_int_eq(daemon_logged(&vitd, "model a: "), rounds + 1);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
    daemon_stop(&vitd);
    folder_remove(folder);
}
END_TEST

/* --model is said again at each reload, whatever the file says; the rest of the file counts. */
START_TEST(test_command_line_survives)
{
    start("\"models\": [{\"name\": \"b\", \"path\": \"@/swin-hf\"}]",
          (const char *const[]){"--model", "a=tests/golden/vit-hf", NULL});
    reload("\"models\": [{\"name\": \"c\", \"path\": \"@/swin-hf\"}], \"limits\": {\"max_body_bytes\": 2000}");
    struct reply reply = daemon_get(&vitd, "/models/c");
    reply_assert_error(&reply, 404, "model_not_found");
    reply_free(&reply);
    ck_assert_int_eq(post("/classify?model=a"), 413);
    assert_architecture("/models/a", "vit");
    ck_assert_int_eq(daemon_logged(&vitd, "model a: "), 1);
    daemon_stop(&vitd);
}
END_TEST

/* ---- what is refused ---- */

/* The lines of /metrics that tell which models are in memory. */
static char *model_infos(void)
{
    struct reply reply = daemon_get(&vitd, "/metrics");
    char *lines = calloc(1, reply.length + 1);
    for (const char *line = reply.body; (line = strstr(line, "\nvitd_model_info{")) != NULL; line++)
        strncat(lines, line, strcspn(line + 1, "\n") + 1);
    reply_free(&reply);
    return lines;
}

START_TEST(test_broken_configuration_changes_nothing)
{
#define OTHER "\"limits\": {\"max_body_bytes\": 2000}, \"models\": [{\"name\": \"b\", \"path\": \"@/swin-hf\"}"
    static const struct {
        const char *more, *says;
    } cases[] = {
        {OTHER "], \"cache\": {", ": "},
        {OTHER "], \"limit\": {}", "limit: found an unknown key"},
        {OTHER ", {\"name\": \"x\", \"path\": \"/nonexistent\"}]", "model x: /nonexistent"},
        {OTHER ", {\"name\": \"a\", \"path\": \"@/swin-hf\"}, {\"name\": \"x\", \"path\": \"/nonexistent\"}]", "model x: "},
        {OTHER ", {\"name\": \"b\", \"path\": \"@/vit-hf\"}]", "found the name b twice"},
        {OTHER "], \"access\": {\"keys\": \"/tmp/vitd-no-such-keys\"}", "access.keys: "},
        {OTHER "], \"access\": {\"admin\": true}", "access.admin: found true without access.keys"},
        {OTHER "], \"model_memory_bytes\": 100000", "bytes; of model_memory_bytes, 100000, models that are not lazy keep "},
    };
    start("\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}]", NULL);
    struct reply before = daemon_get(&vitd, "/models");
    char *infos_before = model_infos();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        configure(cases[i].more);
        hang_up();
        daemon_await_log(&vitd, "reload refused, all is as it was: ", (int)i + 1);
        char *log = daemon_log(&vitd), *infos = model_infos();
        const char *line = log;
        for (const char *next; (next = strstr(line + 1, "reload refused")) != NULL;)
            line = next;
        ck_assert_msg(strstr(line, cases[i].says) != NULL, "case %zu: %s", i, line);
        struct reply now = daemon_get(&vitd, "/models");
        ck_assert_str_eq(now.body, before.body);
        ck_assert_str_eq(infos, infos_before);
        ck_assert_int_eq(post("/classify?model=a"), 200);
        reply_free(&now);
        free(infos);
        free(log);
    }
    ck_assert_int_eq(daemon_logged(&vitd, "model a: vit"), 1);
    ck_assert_int_eq(daemon_logged(&vitd, "reloaded: "), 0);
    reload(OTHER "]");
    ck_assert_int_eq(post("/classify?model=b"), 413);
    reply_free(&before);
    free(infos_before);
    daemon_stop(&vitd);
}
END_TEST

/* A file of keys that has become worse is not taken; the old keys hold. */
START_TEST(test_broken_keys_change_nothing)
{
    /* printf %s secret | sha256sum */
    static const char sound[] = "infer 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b me\n";
    char folder[FOLDER_BYTES], more[512];
    folder_make(folder);
    folder_write(folder, "keys", sound);
    snprintf(more, sizeof more,
             "\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}], \"access\": {\"keys\": \"%s/keys\"}", folder);
    start(more, NULL);
    for (int broken = 0; broken < 2; broken++) {
        if (broken) {
            folder_write(folder, "keys", "infer 2bb80d\n");
            hang_up();
            daemon_await_log(&vitd, "reload refused, all is as it was: access.keys: ", 1);
        }
        ck_assert_int_eq(post("/classify"), 401);
        struct reply reply = daemon_request(&vitd, "POST", "/classify", NULL, picture, picture_length,
                                            "Authorization: Bearer secret");
        ck_assert_int_eq(reply.status, 200);
        reply_free(&reply);
    }
    daemon_stop(&vitd);
    folder_remove(folder);
}
END_TEST

/* ---- signals at any time ---- */

START_TEST(test_last_of_many_signals_counts)
{
    char more[256];
    start("\"models\": [{\"name\": \"m0\", \"path\": \"@/vit-hf\"}]", NULL);
    for (int round = 1; round <= 20; round++) {
        snprintf(more, sizeof more, "\"models\": [{\"name\": \"m%d\", \"path\": \"@/vit-hf\"}]", round);
        configure(more);
        hang_up();
        usleep((useconds_t)(round % 4) * 3000);
    }
    daemon_await_log(&vitd, "model m20: ", 1);
    const double start_time = test_clock();
    while (post("/classify?model=m20") != 200)
        ck_assert_double_lt(test_clock() - start_time, 20);
    ck_assert_int_eq(post("/classify?model=m19"), 404);
    daemon_stop(&vitd);
}
END_TEST

/* How large an input makes vit-hf take about a second to be warm. */
#define SLOW "\"image_size\": 512, \"max_batch_size\": 1"

START_TEST(test_signal_while_it_starts)
{
    configure("\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\", " SLOW "}]");
    vitd = daemon_start_file_loading(config_path);
    ck_assert_int_eq(post("/classify"), 503);
    configure("\"models\": [{\"name\": \"b\", \"path\": \"@/vit-hf\"}]");
    hang_up();
    daemon_await_log(&vitd, "reloaded: ", 1);
    ck_assert_int_eq(post("/classify?model=b"), 200);
    ck_assert_int_eq(post("/classify?model=a"), 404);
    ck_assert_int_eq(daemon_logged(&vitd, "listening on "), 1);
    daemon_stop(&vitd);
}
END_TEST

/* Nobody waits for models that nobody will use. */
START_TEST(test_sigterm_during_a_reload)
{
    char more[2048] = "\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}";
    start("\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}]", NULL);
    for (int i = 0; i < 8; i++)
        sprintf(more + strlen(more), ", {\"name\": \"m%d\", \"path\": \"@/vit-hf\", " SLOW "}", i);
    configure(strcat(more, "]"));
    hang_up();
    daemon_await_log(&vitd, "reading the configuration again", 1);
    ck_assert_int_eq(post("/classify"), 200);
    ck_assert_int_eq(kill(vitd.pid, SIGTERM), 0);
    daemon_await_log(&vitd, "stopped while loading", 1);
    ck_assert_int_eq(daemon_logged(&vitd, "reloaded: "), 0);
    ck_assert_double_lt(daemon_end(&vitd), 1);
}
END_TEST

/* ---- what comes into force ---- */

START_TEST(test_keys_for_the_next_start_are_named)
{
#define MODEL "\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}]"
    static const char *const named[] = {"listen.address", "listen.socket", "limits.max_connections"};
    char line[128];
    start(MODEL, NULL);
    reload(MODEL);
    ck_assert_int_eq(daemon_logged(&vitd, "takes effect at the next start"), 0);
    for (int times = 1; times <= 2; times++) { /* as long as it is true */
        reload(MODEL ", \"listen\": {\"address\": \"127.0.0.2\", \"port\": 1, \"socket\": \"/tmp/vitd-other\"}, "
                     "\"limits\": {\"max_connections\": 7}");
        for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
            snprintf(line, sizeof line, "%s: the new value takes effect at the next start", named[i]);
            ck_assert_msg(daemon_logged(&vitd, line) == times, "%s: %d times", line, daemon_logged(&vitd, line));
        }
        ck_assert_int_eq(daemon_logged(&vitd, "takes effect at the next start"), 3 * times); /* --port is still said */
    }
    reload(MODEL);
    ck_assert_int_eq(daemon_logged(&vitd, "takes effect at the next start"), 6);
    ck_assert_int_eq(post("/classify"), 200);
    daemon_stop(&vitd);
}
END_TEST

/* They say nothing of the files in use, so that whatever they name, a later reload is as free as this one. */
START_TEST(test_a_certificate_for_the_next_start_does_not_end_reloads)
{
    start(MODEL, NULL);
    reload(MODEL ", \"tls\": {\"certificate\": \"/nonexistent\", \"key\": \"/nonexistent\"}");
    ck_assert_int_eq(daemon_logged(&vitd, "tls.certificate: the new value takes effect at the next start"), 1);
    reload(MODEL ", \"limits\": {\"max_body_bytes\": 2000}");
    ck_assert_int_eq(post("/classify"), 413);
    ck_assert_int_eq(daemon_logged(&vitd, "reload refused"), 0);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_limits_come_into_force)
{
    start(MODEL, NULL);
    ck_assert_int_eq(post("/classify"), 200);
    reload(MODEL ", \"limits\": {\"max_pixels\": 10}");
    ck_assert_int_eq(post("/classify"), 422);
    reload(MODEL ", \"limits\": {\"max_body_bytes\": 2000}, \"batching\": {\"max_queue_bytes\": 3000}");
    ck_assert_int_eq(post("/classify"), 413);
    reload(MODEL ", \"limits\": {\"max_body_bytes\": 11000}, \"batching\": {\"max_queue_bytes\": 11000}");
    ck_assert_int_eq(post("/classify"), 200);
    const void *files[] = {picture, picture};
    reload(MODEL ", \"limits\": {\"max_images_per_request\": 1}");
    struct reply reply = daemon_post_files(&vitd, "/classify", files, (size_t[]){picture_length, picture_length}, 2);
    reply_assert_error(&reply, 413, "too_many_images");
    reply_free(&reply);
    reload(MODEL ", \"batching\": {\"max_queue_size\": 1}");
    reply = daemon_post_files(&vitd, "/classify", files, (size_t[]){picture_length, picture_length}, 2);
    reply_assert_error(&reply, 413, "too_many_images");
    reply_free(&reply);
    reload(MODEL ", \"cache\": {\"max_bytes\": 1000000}");
    ck_assert_int_eq(post("/classify"), 200);
    ck_assert_int_eq(post("/classify"), 200);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_cache_hits_total{model=\"a\"}"), 1);
    reload(MODEL);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_cache_entries"), 0);
    daemon_stop(&vitd);
}
END_TEST

/* Until the daemon ends a connection on which nothing is said. */
static double idle_seconds(void)
{
    const double start_time = test_clock();
    const int fd = daemon_connect(&vitd);
    ck_assert_str_eq(hear(fd, NULL), "");
    close(fd);
    return test_clock() - start_time;
}

START_TEST(test_timeouts_come_into_force)
{
    start(MODEL ", \"limits\": {\"header_timeout_ms\": 1500}", NULL);
    ck_assert_double_gt(idle_seconds(), 1.3);
    reload(MODEL ", \"limits\": {\"header_timeout_ms\": 200, \"body_timeout_ms\": 200}");
    ck_assert_double_lt(idle_seconds(), 1.3);
    const int upload = daemon_connect(&vitd);
    say(upload, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
    ck_assert_int_eq(strncmp(hear(upload, NULL), "HTTP/1.1 408 ", 13), 0);
    close(upload);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_log_comes_into_force)
{
    start(MODEL, NULL);
    struct reply reply = daemon_request(&vitd, "GET", "/healthz", NULL, NULL, 0, "X-Request-Id: as-text");
    reply_free(&reply);
    reload(MODEL ", \"log\": {\"format\": \"json\"}");
    reply = daemon_request(&vitd, "GET", "/healthz", NULL, NULL, 0, "X-Request-Id: as-json");
    reply_free(&reply);
    reload(MODEL ", \"log\": {\"access\": false}");
    reply = daemon_request(&vitd, "GET", "/healthz", NULL, NULL, 0, "X-Request-Id: not-at-all");
    reply_free(&reply);
    daemon_await_log(&vitd, "\"as-json\"", 1);
    ck_assert_int_eq(daemon_logged(&vitd, "id=as-text"), 1);
    ck_assert_int_eq(daemon_logged(&vitd, "not-at-all"), 0);
    configure(MODEL ", \"log\": {\"level\": \"error\"}");
    const int before = daemon_logged(&vitd, "reading the configuration again");
    hang_up();
    daemon_await_log(&vitd, "reading the configuration again", before + 1);
    usleep(300000);
    configure("\"nonsense\": 1");
    hang_up();
    daemon_await_log(&vitd, "reload refused", 1);
    ck_assert_int_eq(daemon_logged(&vitd, "reading the configuration again"), before + 1);
    daemon_stop(&vitd);
}
END_TEST

/* A request that has begun ends under the limits that it began with. */
START_TEST(test_requests_keep_their_settings)
{
    char head[256];
    start(MODEL ", \"access\": {\"cors_origins\": [\"https://a.example\"]}", NULL);
    const int fd = daemon_connect(&vitd);
    snprintf(head, sizeof head, "POST /classify HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nConnection: close\r\n"
                                "Content-Length: %zu\r\n\r\n", picture_length);
    say(fd, head);
    usleep(100000);
    reload(MODEL ", \"limits\": {\"max_body_bytes\": 2000}");
    ck_assert_int_eq(post("/classify"), 413);
    ck_assert_int_eq(write(fd, picture, picture_length), (ssize_t)picture_length);
    const char *answer = hear(fd, NULL);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0, "%s", answer);
    ck_assert_msg(strcasestr(answer, "Access-Control-Allow-Origin: https://a.example") != NULL, "%s", answer);
    close(fd);
    daemon_stop(&vitd);
}
END_TEST

/* What kills a process without a word by default. */
START_TEST(test_file_cut_off_in_place_is_named)
{
    char folder[FOLDER_BYTES], models[256];
    if (getenv("VITD_SANITIZED") != NULL)
        return; /* sanitizers have words of their own */
    folder_make(folder);
    folder_add(folder, "m", "tests/golden/vit-hf");
    snprintf(models, sizeof models, "\"models\": [{\"name\": \"m\", \"path\": \"%s/m\"}]", folder);
    start(models, NULL);
    folder_write(folder, "m/model.safetensors", "");
    for (int i = 0; i < 3; i++) {
        struct reply reply = daemon_post(&vitd, "/classify", picture, picture_length);
        reply_free(&reply);
    }
    char *log = daemon_log(&vitd);
    ck_assert_msg(strstr(log, "changed in place while it was in use") != NULL, "%s", log);
    free(log);
    const int status = daemon_wait(&vitd);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    folder_remove(folder);
}
END_TEST

int main(void)
{
    const TTest *const all[] = {
        test_models_come_change_and_go, test_folder_behind_a_link, test_requests_never_fail_across_swaps,
        test_command_line_survives, test_broken_configuration_changes_nothing, test_broken_keys_change_nothing,
        test_last_of_many_signals_counts, test_signal_while_it_starts, test_sigterm_during_a_reload,
        test_keys_for_the_next_start_are_named, test_a_certificate_for_the_next_start_does_not_end_reloads,
        test_limits_come_into_force, test_timeouts_come_into_force, test_log_comes_into_force,
        test_requests_keep_their_settings, test_file_cut_off_in_place_is_named};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("reload");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, prepare, clean_up);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
