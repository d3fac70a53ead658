/*
 * test_waiting.c - what waits in the real daemon's queue: for how long, how much of it, and who is let in. One worker is kept
 * busy with an image of a model that takes long, so that all the others wait.
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/folders.h"
#include "tests/suite.h"
#include "tests/upload.h"

static char folder[FOLDER_BYTES];
static unsigned char *picture;
static size_t picture_length;
static struct daemon vitd;
static struct client busy;

static const char operator_key[] = "Authorization: Bearer boss";

static void prepare(void)
{
    picture = test_file("tests/golden/vit-hf/input.png", &picture_length);
    folder_make(folder);
}

static void clean_up(void)
{
    folder_remove(folder);
    free(picture);
}

/* One worker, a small model "a" and one that takes long; `more`: ", ..." or "". */
static void start(const char *more)
{
    char config[8192], text[1024];
    snprintf(text, sizeof text,
             "{\"models\": [{\"name\": \"a\", \"path\": \"@/vit-hf\"}, {\"name\": \"long\", \"path\": \"@/vit-hf\", "
             "\"image_size\": %d, \"max_batch_size\": 1}]%s}", getenv("VITD_SANITIZED") != NULL ? 400 : 640, more);
    folder_expand(config, sizeof config, text);
    vitd = daemon_start(config, (const char *const[]){"--threads", "1", NULL});
}

/* Lets the worker begin with the image that takes long, and nothing wait. */
static void keep_busy(void)
{
    client_begin(&busy, &vitd, "POST", "/classify?model=long", picture, picture_length, NULL);
    const double start_time = test_clock();
    while (daemon_metric(&vitd, "vitd_preprocess_duration_seconds_count{model=\"long\"}") != 1 ||
           daemon_metric(&vitd, "vitd_queue_depth") != 0)
        ck_assert_double_lt(test_clock() - start_time, 20);
}

static void end_busy(void)
{
    struct reply reply = client_end(&busy);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
}

/* Until so many images wait. */
static void await_waiting(int images)
{
    const double start_time = test_clock();
    while (daemon_metric(&vitd, "vitd_queue_depth") != images)
        ck_assert_msg(test_clock() - start_time < 20, "%g wait, not %d", daemon_metric(&vitd, "vitd_queue_depth"), images);
}

/* A request that will wait, and is answered by client_end(). */
static void wait_in_queue(struct client *client, const char *header, int images_then)
{
    client_begin(client, &vitd, "POST", "/classify", picture, picture_length, header);
    await_waiting(images_then);
}

static void end_with(struct client *client, long status)
{
    struct reply reply = client_end(client);
    ck_assert_msg(reply.status == status, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
}

/* One request that is refused, while others wait. */
static void assert_refused(const char *header, long status, const char *code)
{
    struct reply reply = daemon_request(&vitd, "POST", "/classify", NULL, picture, picture_length, header);
    reply_assert_error(&reply, status, code);
    ck_assert_int_eq(strcasestr(reply.headers, "\nretry-after: ") != NULL, status == 429);
    reply_free(&reply);
}

/* ---- for how long ---- */

/* Nobody is told late that it is too late. */
START_TEST(test_deadline_passes_while_every_worker_is_busy)
{
    start("");
    keep_busy();
    assert_refused("X-Request-Timeout-Ms: 10", 504, "deadline_exceeded");
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_inference_duration_seconds_count{model=\"long\"}"), 0); /* still at it */
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), (double)picture_length); /* of the one that is busy */
    end_busy();
    daemon_stop(&vitd);
}
END_TEST

/* Whoever leaves makes room, whether a worker would come to it or not: here there is always something of normal priority. */
START_TEST(test_low_priority_that_leaves_makes_room)
{
    struct client normal;
    char head[128];
    start(", \"batching\": {\"max_queue_size\": 4}");
    const int low = daemon_connect(&vitd);
    snprintf(head, sizeof head, "POST /classify HTTP/1.1\r\nHost: a\r\nPriority: u=5\r\nContent-Length: %zu\r\n\r\n",
             picture_length);
    keep_busy();
    wait_in_queue(&normal, NULL, 1);
    say(low, head);
    ck_assert_int_eq(send(low, picture, picture_length, MSG_NOSIGNAL), (ssize_t)picture_length);
    await_waiting(2);
    close(low);
    await_waiting(1);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_inference_duration_seconds_count{model=\"long\"}"), 0);
    end_busy();
    end_with(&normal, 200);
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_timeouts_that_are_none)
{
    static const char *const bad[] = {"0", "-1", "+5", "1x", "1.5", "0x10", "86400001", "99999999999999999999", "ten", "1 2"};
    static const char *const good[] = {"86400000", "5000", "05000", "5000 \t"};
    char header[64];
    start("");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(header, sizeof header, "X-Request-Timeout-Ms: %s", bad[i]);
        assert_refused(header, 400, "invalid_header");
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char head[256];
        const int fd = daemon_connect(&vitd);
        snprintf(head, sizeof head, "POST /classify HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: %s\r\nConnection: close\r\n"
                                    "Content-Length: %zu\r\n\r\n", good[i], picture_length);
        say(fd, head);
        ck_assert_int_eq(send(fd, picture, picture_length, MSG_NOSIGNAL), (ssize_t)picture_length);
        const char *answer = hear(fd, NULL);
        ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0, "\"%s\": %s", good[i], answer);
        close(fd);
    }
    daemon_stop(&vitd);
}
END_TEST

START_TEST(test_timeout_shorter_than_the_queue)
{
    struct client patient, hasty;
    start("");
    keep_busy();
    wait_in_queue(&patient, "X-Request-Timeout-Ms: 600000", 1);
    wait_in_queue(&hasty, "X-Request-Timeout-Ms: 10", 2);
    struct reply reply = client_end(&hasty);
    reply_assert_error(&reply, 504, "deadline_exceeded");
    ck_assert_msg(strstr(reply.body, "X-Request-Timeout-Ms") != NULL, "%s", reply.body);
    reply_free(&reply);
    end_with(&patient, 200);
    end_busy();
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"timeout\"}"), 1);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_bytes"), 0);
    daemon_stop(&vitd);
}
END_TEST

/* Nobody waits longer than the operator allows. */
START_TEST(test_timeout_longer_than_configured)
{
    struct client waiting;
    start(", \"batching\": {\"request_timeout_ms\": 150}");
    keep_busy();
    wait_in_queue(&waiting, "X-Request-Timeout-Ms: 600000", 1);
    end_with(&waiting, 504);
    end_busy();
    daemon_stop(&vitd);
}
END_TEST

/* ---- how many ---- */

/* Low priority may take half of the room. */
START_TEST(test_low_priority_leaves_room)
{
    static const char *const low[] = {"Priority: u=7", "Priority: u=4, i", "Priority: i, u=6", "Priority: xu=1, u=7"};
    static const char *const normal[] = {"Priority: u=3", "Priority: u=0", "Priority: xu=7", "Priority: nonsense"};
    struct client clients[4];
    start(", \"batching\": {\"max_queue_size\": 4}");
    keep_busy();
    wait_in_queue(&clients[0], low[0], 1);
    wait_in_queue(&clients[1], low[1], 2);
    for (size_t i = 0; i < 4; i++)
        assert_refused(low[i], 429, "queue_full");
    wait_in_queue(&clients[2], normal[2], 3);
    wait_in_queue(&clients[3], NULL, 4);
    for (size_t i = 0; i < 4; i++)
        assert_refused(normal[i], 429, "queue_full");
    for (int i = 0; i < 4; i++)
        end_with(&clients[i], 200);
    end_busy();
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"queue_full\"}"), 8);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
    daemon_stop(&vitd);
}
END_TEST

/* A body that has waited to be read is not refused for the one image in it, though the half that low priority may take has been
 * filled by others meanwhile. */
START_TEST(test_low_priority_keeps_its_room)
{
    const struct bytes file = {picture, picture_length};
    struct upload upload = upload_files(&file, 1, "");
    struct client low, clients[3];
    start(", \"batching\": {\"max_queue_size\": 4, \"max_queue_delay_us\": 1000000}");
    keep_busy();
    client_begin(&low, &vitd, "POST", "/v2/models/a/infer", upload.body.at, upload.body.length, "Priority: u=7");
    await_waiting(1);
    for (int i = 0; i < 3; i++) /* these are decoded first, and wait for a batch with it */
        wait_in_queue(&clients[i], NULL, i + 2);
    end_with(&low, 200);
    for (int i = 0; i < 3; i++)
        end_with(&clients[i], 200);
    end_busy();
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_queue_depth"), 0);
    daemon_stop(&vitd);
    upload_free(&upload);
}
END_TEST

/* A full queue is told once the header is in; then the body need not come, or is thrown away. */
START_TEST(test_full_queue_is_told_early)
{
    struct client waiting;
    start(", \"batching\": {\"max_queue_size\": 1}");
    keep_busy();
    wait_in_queue(&waiting, NULL, 1);
    const int polite = daemon_connect(&vitd), rash = daemon_connect(&vitd);
    say(polite, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    const char *answer = hear(polite, NULL);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 429 ", 13) == 0, "%s", answer);
    ck_assert_ptr_nonnull(strcasestr(answer, "\nretry-after: "));
    ck_assert_ptr_nonnull(strstr(answer, "\"queue_full\""));
    say(rash, "POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    usleep(20000);
    say(rash, "12345");
    answer = hear(rash, "}}");
    ck_assert_msg(strncmp(answer, "HTTP/1.1 429 ", 13) == 0, "%s", answer);
    say(rash, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    answer = hear(rash, NULL);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 200 ", 13) == 0, "%s", answer);
    close(polite);
    close(rash);
    end_with(&waiting, 200);
    end_busy();
    daemon_stop(&vitd);
}
END_TEST

/* ---- how much ---- */

/* The start of an upload with its first `length` bytes, chunked or not. */
static int upload(bool chunked, size_t length)
{
    char head[256];
    const int fd = daemon_connect(&vitd);
    say(fd, "POST /classify HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
    if (chunked)
        snprintf(head, sizeof head, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", picture_length);
    else
        snprintf(head, sizeof head, "Content-Length: %zu\r\n\r\n", picture_length);
    say(fd, head);
    ck_assert_int_eq(send(fd, picture, length, MSG_NOSIGNAL), (ssize_t)length);
    return fd;
}

static void await_bytes(size_t bytes)
{
    const double start_time = test_clock();
    while (daemon_metric(&vitd, "vitd_queue_bytes") != (double)bytes)
        ck_assert_msg(test_clock() - start_time < 10, "%g bytes, not %zu", daemon_metric(&vitd, "vitd_queue_bytes"), bytes);
}

static void assert_answered(int fd, const char *status, const char *says)
{
    const char *answer = hear(fd, NULL);
    ck_assert_msg(strncmp(answer, "HTTP/1.1 ", 9) == 0 && strncmp(answer + 9, status, 3) == 0 && strcasestr(answer, says) != NULL,
                  "%s", answer);
    close(fd);
}

/* Every byte counts from when it is read until its job is done, it is refused, or its client leaves. */
START_TEST(test_bytes_of_uploads_are_bounded)
{
    const size_t one = picture_length;
    char more[256];
    snprintf(more, sizeof more, ", \"limits\": {\"max_body_bytes\": 20000}, \"batching\": {\"max_queue_bytes\": %zu}",
             2 * one + 1000);
    start(more);
    keep_busy();
    await_bytes(one);
    const int chunked = upload(true, one);
    await_bytes(2 * one);
    assert_answered(upload(false, one), "429", "\nretry-after: ");
    await_bytes(2 * one);
    const int refused = upload(true, one);
    say(refused, "\r\n0\r\n\r\n");
    assert_answered(refused, "429", "queue_full");
    const int part = upload(false, 900);
    await_bytes(2 * one + 900);
    close(part);
    await_bytes(2 * one);
    say(chunked, "\r\n0\r\n\r\n");
    assert_answered(chunked, "200", "predictions");
    end_busy();
    await_bytes(0);
    ck_assert_double_eq(daemon_metric(&vitd, "vitd_rejected_total{reason=\"queue_full\"}"), 2);
    assert_answered(upload(false, one), "200", "predictions");
    await_bytes(0);
    daemon_stop(&vitd);
}
END_TEST

/* ---- looking at it ---- */

/* GET /debug/queue. */
static cJSON *look(void)
{
    struct reply reply = daemon_request(&vitd, "GET", "/debug/queue", NULL, NULL, 0, operator_key);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    cJSON *json = reply_json(&reply);
    reply_free(&reply);
    return json;
}

/* A number of it, or of what is in it: "waiting", "pending.low". */
static double number(const cJSON *json, const char *key)
{
    char first[32];
    const char *dot = strchr(key, '.');
    snprintf(first, sizeof first, "%.*s", dot != NULL ? (int)(dot - key) : 31, key);
    const cJSON *item = cJSON_GetObjectItem(json, first);
    if (dot != NULL)
        return number(item, dot + 1);
    ck_assert_msg(cJSON_IsNumber(item), "%s", key);
    return item->valuedouble;
}

static void await_number(const char *key, double expected)
{
    const double start_time = test_clock();
    for (double found = -1; found != expected;) {
        cJSON *json = look();
        found = number(json, key);
        cJSON_Delete(json);
        ck_assert_msg(test_clock() - start_time < 20, "%s: %g, not %g", key, found, expected);
    }
}

static const char *doing(const cJSON *json)
{
    const cJSON *workers = cJSON_GetObjectItem(json, "workers");
    ck_assert_int_eq(cJSON_GetArraySize(workers), 1);
    return cJSON_GetObjectItem(workers->child, "doing")->valuestring;
}

START_TEST(test_queue_is_shown)
{
    char more[512];
    struct client normal, low;
    folder_write(folder, "keys", "admin a5e7c002443743c5836758c7d1cd8ddefd9fcf2061daa0efaac683fb99966057 boss\ninfer 6c1ff09db3a73dc4a854f695d20d174a848d55f2d743bab2ee1f8fc75be454f3 low\n");
    snprintf(more, sizeof more, ", \"access\": {\"keys\": \"%s/keys\", \"admin\": true}, "
                                "\"batching\": {\"max_queue_size\": 9, \"max_queue_bytes\": 20000000}", folder);
    start(more);
    cJSON *json = look();
    ck_assert_str_eq(doing(json), "idle");
    ck_assert_double_eq(number(json, "waiting"), 0);
    ck_assert_double_eq(number(json, "capacity"), 9);
    ck_assert_double_eq(number(json, "bytes"), 0);
    ck_assert_double_eq(number(json, "max_bytes"), 20000000);
    cJSON_Delete(json);
    client_begin(&busy, &vitd, "POST", "/classify?model=long", picture, picture_length, operator_key);
    for (bool running = false; !running;) {
        json = look();
        running = strcmp(doing(json), "running") == 0;
        cJSON_Delete(json);
    }
    client_begin(&normal, &vitd, "POST", "/classify", picture, picture_length, operator_key);
    await_number("pending.normal", 1);
    client_begin(&low, &vitd, "POST", "/classify", picture, picture_length,
                 "Authorization: Bearer low\r\nPriority: u=7");
    await_number("pending.low", 1);
    json = look();
    ck_assert_double_eq(number(json, "waiting"), 2);
    ck_assert_double_eq(number(json, "pending.normal"), 1);
    ck_assert_double_eq(number(json, "bytes"), 3 * (double)picture_length);
    ck_assert_double_ge(number(json, "retry_after_s"), 1);
    ck_assert_str_eq(doing(json), "running");
    ck_assert_double_gt(number(cJSON_GetObjectItem(json, "workers")->child, "for_ms"), 0);
    cJSON_Delete(json);
    end_with(&normal, 200);
    end_with(&low, 200);
    end_busy();
    await_number("bytes", 0);
    await_number("waiting", 0);
    daemon_stop(&vitd);
}
END_TEST

int main(void)
{
    const TTest *const all[] = {test_deadline_passes_while_every_worker_is_busy,
                                test_low_priority_that_leaves_makes_room, test_timeouts_that_are_none,
                                test_timeout_shorter_than_the_queue,
                                test_timeout_longer_than_configured, test_low_priority_leaves_room,
                                test_low_priority_keeps_its_room, test_full_queue_is_told_early,
                                test_bytes_of_uploads_are_bounded, test_queue_is_shown};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("waiting");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, prepare, clean_up);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
