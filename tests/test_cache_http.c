/* test_cache_http.c - cache.max_bytes in the real daemon: what is answered again, what is not, and how much is kept. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/clients.h"
#include "tests/daemon.h"
#include "tests/scratch.h"
#include "tests/suite.h"
#include "tests/upload.h"

#define JSON "application/json"
#define MODELS "\"models\": [{\"name\": \"a\", \"path\": \"%s/tests/golden/vit-hf\"}, " \
               "{\"name\": \"b\", \"path\": \"%s/tests/golden/vit-hf\"}]"

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

/* Of the model "a", and "b" of the same weights; `more` are members. */
static const char *write_config(long max_bytes, const char *more)
{
    char here[4000];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    return scratch_text("vitd.json", "{\"cache\": {\"max_bytes\": %ld}, \"threads\": 2, %s" MODELS "}", max_bytes, more,
                        here, here);
}

static struct daemon start(long max_bytes)
{
    return daemon_start_file(write_config(max_bytes, ""), NULL);
}

/* "hit", "miss", or "" where there is no such header; the reply is kept in *kept, or freed. */
static const char *post(const struct daemon *daemon, const char *path, const struct picture *p, const char *accept,
                        struct reply *kept)
{
    static char found[16];
    struct reply reply = daemon_request(daemon, "POST", path, "application/octet-stream", p->bytes, p->length, accept);
    ck_assert_msg(reply.curl == CURLE_OK && reply.status == 200, "%s: %ld %s", path, reply.status, reply.body);
    const char *header = reply_header(&reply, "X-Cache");
    snprintf(found, sizeof found, "%s", header ? header : "");
    if (kept != NULL)
        *kept = reply;
    else
        reply_free(&reply);
    return found;
}

static void assert_same(struct reply *a, struct reply *b)
{
    ck_assert_uint_eq(a->length, b->length);
    ck_assert_mem_eq(a->body, b->body, a->length);
    ck_assert_str_eq(strdupa(reply_header(a, "Content-Type")), reply_header(b, "Content-Type"));
    reply_free(a);
    reply_free(b);
}

/* ---- hits and misses ---- */

START_TEST(test_the_same_again_is_a_hit)
{
    struct daemon daemon = start(10000000);
    struct picture p = picture("tests/golden/vit-hf/input.png");
    const char *const paths[] = {"/classify", "/classify?top_k=3&attention=raw", "/embed", "/attention-distance",
                                 "/explain"};
    for (size_t i = 0; i < 5; i++) {
        struct reply first, second;
        ck_assert_str_eq(post(&daemon, paths[i], &p, NULL, &first), "miss");
        ck_assert_str_eq(post(&daemon, paths[i], &p, NULL, &second), "hit");
        ck_assert_str_ne(strdupa(reply_header(&first, "X-Request-Id")), reply_header(&second, "X-Request-Id"));
        ck_assert_int_eq(strcmp(reply_header(&second, "Content-Type"), "image/png") == 0, i == 4);
        assert_same(&first, &second);
    }
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_cache_hits_total{model=\"a\"}"), 5);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_cache_misses_total{model=\"a\"}"), 5);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_images_total{model=\"a\"}"), 5); /* what the model did */
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_cache_entries"), 5);
    daemon_await_log(&daemon, " cache=hit", 1);
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_what_differs_is_a_miss)
{
    struct daemon daemon = start(10000000);
    struct picture p = picture("tests/golden/vit-hf/input.png"), other = picture("tests/golden/vit-hf/larger.png");
    struct reply reply;
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/classify?top_k=1", &p, NULL, NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/classify?top_k=2", &p, NULL, NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/classify?model=b", &p, NULL, &reply), "miss");
    cJSON *json = reply_json(&reply);
    ck_assert_str_eq(cJSON_GetObjectItem(json, "model")->valuestring, "b");
    cJSON_Delete(json);
    reply_free(&reply);
    ck_assert_str_eq(post(&daemon, "/embed", &p, NULL, NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/classify", &other, NULL, NULL), "miss");
    p.bytes[p.length] = 0; /* test_file() leaves room for one more */
    p.length++;
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "miss");
    p.length--;
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "hit");
    ck_assert_str_eq(post(&daemon, "/explain", &p, NULL, NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/explain", &p, "Accept: application/json", &reply), "miss");
    ck_assert_str_eq(reply_header(&reply, "Content-Type"), "application/json");
    reply_free(&reply);
    ck_assert_str_eq(post(&daemon, "/explain", &p, "Accept: application/json", &reply), "hit");
    ck_assert_str_eq(reply_header(&reply, "Content-Type"), "application/json");
    reply_free(&reply);
    ck_assert_str_eq(post(&daemon, "/explain", &p, "Accept: image/png", &reply), "hit");
    ck_assert_str_eq(reply_header(&reply, "Content-Type"), "image/png");
    reply_free(&reply);
    free(p.bytes);
    free(other.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* A form is its files: what else curl puts into it changes every time. */
START_TEST(test_forms_are_their_files)
{
    struct daemon daemon = start(10000000);
    struct picture p = picture("tests/golden/vit-hf/input.png"), other = picture("tests/golden/vit-hf/larger.png");
    const void *files[] = {p.bytes, other.bytes, p.bytes};
    const size_t lengths[] = {p.length, other.length, p.length};
    struct reply replies[4];
    for (int i = 0; i < 4; i++) { /* both, again, in the other order, one alone */
        replies[i] = daemon_post_files(&daemon, "/classify", files + (i == 2), lengths + (i == 2), i == 3 ? 1 : 2);
        ck_assert_int_eq(replies[i].status, 200);
        ck_assert_str_eq(reply_header(&replies[i], "X-Cache"), i == 1 ? "hit" : "miss");
    }
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "hit"); /* of the one alone */
    assert_same(&replies[0], &replies[1]);
    reply_free(&replies[2]);
    reply_free(&replies[3]);
    free(p.bytes);
    free(other.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_errors_are_not_kept)
{
    struct daemon daemon = start(10000000);
    struct picture p = picture("tests/golden/vit-hf/input.png");
    const void *files[] = {p.bytes, "not a picture"};
    const size_t lengths[] = {p.length, 13};
    for (int i = 0; i < 3; i++) {
        struct reply reply = daemon_post(&daemon, "/classify", "not a picture", 13);
        reply_assert_error(&reply, 415, "unsupported_image_type");
        ck_assert_ptr_null(reply_header(&reply, "X-Cache"));
        reply_free(&reply);
        reply = daemon_post_files(&daemon, "/classify", files, lengths, 2); /* 200, and one of both is an error */
        ck_assert_int_eq(reply.status, 200);
        ck_assert_str_eq(reply_header(&reply, "X-Cache"), "miss");
        reply_free(&reply);
        reply = daemon_post(&daemon, "/classify", p.bytes, p.length / 2);
        reply_assert_error(&reply, 422, "undecodable_image");
        reply_free(&reply);
    }
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_cache_entries"), 0);
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* ---- bounds ---- */

START_TEST(test_the_newest_stay)
{
    enum { ROUNDS = 60, MAX_BYTES = 20000 };
    char path[64];
    struct daemon daemon = start(MAX_BYTES);
    struct picture p = picture("tests/golden/vit-hf/input.png");
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(path, sizeof path, "/classify?attention=raw&layer=%d&head=%d&top_k=%d", i % 3, i / 3 % 4, 1 + i / 12);
        ck_assert_str_eq(post(&daemon, path, &p, NULL, NULL), "miss");
        ck_assert_double_le(daemon_metric(&daemon, "vitd_cache_bytes"), MAX_BYTES);
    }
    ck_assert_double_gt(daemon_metric(&daemon, "vitd_cache_entries"), 4);
    ck_assert_double_lt(daemon_metric(&daemon, "vitd_cache_entries"), ROUNDS);
    ck_assert_str_eq(post(&daemon, path, &p, NULL, NULL), "hit");
    ck_assert_str_eq(post(&daemon, "/classify?attention=raw&layer=0&head=0&top_k=1", &p, NULL, NULL), "miss");
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_reload_turns_it_off_and_on)
{
    struct daemon daemon = start(10000000);
    struct picture p = picture("tests/golden/vit-hf/input.png");
    post(&daemon, "/classify", &p, NULL, NULL);
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "hit");
    ck_assert(daemon_reload(&daemon));
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "hit"); /* nothing has changed */
    write_config(0, "");
    ck_assert(daemon_reload(&daemon));
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "");
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_cache_entries"), 0);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_cache_bytes"), 0);
    write_config(10000000, "");
    ck_assert(daemon_reload(&daemon));
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "hit");
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(test_without_cache_nothing_is_said_of_it)
{
    struct daemon daemon = daemon_start("{}", (const char *[]){"--model", "tests/golden/vit-hf", NULL});
    struct picture p = picture("tests/golden/vit-hf/input.png");
    for (int i = 0; i < 2; i++)
        ck_assert_str_eq(post(&daemon, "/classify", &p, NULL, NULL), "");
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* ---- what else changes an answer ---- */

/* A model folder of the test's; with other weights each time. */
static void write_model(unsigned char flip)
{
    static const char *const names[] = {"config.json", "preprocessor_config.json"};
    size_t length;
    char path[128];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "tests/golden/vit-hf/%s", names[i]);
        unsigned char *bytes = test_file(path, &length);
        scratch_write(names[i], bytes, length);
        free(bytes);
    }
    unsigned char *weights = test_file("tests/golden/vit-hf/model.safetensors", &length);
    for (size_t i = length / 2 + 3 - length / 2 % 4; i < length; i += 4) /* signs, in the last byte of a float */
        weights[i] ^= flip;
    scratch_write("model.safetensors", weights, length);
    free(weights);
}

START_TEST(test_other_weights_are_a_miss)
{
    struct picture p = picture("tests/golden/vit-hf/input.png");
    struct reply before, after;
    write_model(0);
    scratch_text("vitd.json", "{\"cache\": {\"max_bytes\": 1000000}, "
                              "\"models\": [{\"name\": \"a\", \"path\": \"%s\"}]}", scratch_path(""));
    struct daemon daemon = daemon_start_file(scratch_path("vitd.json"), NULL);
    post(&daemon, "/embed", &p, NULL, NULL);
    ck_assert_str_eq(post(&daemon, "/embed", &p, NULL, &before), "hit");
    write_model(0x80);
    ck_assert_str_eq(post(&daemon, "/embed", &p, NULL, NULL), "hit"); /* nobody has asked for a reload */
    ck_assert(daemon_reload(&daemon));
    ck_assert_str_eq(post(&daemon, "/embed", &p, NULL, &after), "miss");
    cJSON *was = reply_json(&before), *is = reply_json(&after);
    ck_assert(!cJSON_Compare(cJSON_GetObjectItem(was, "embedding"), cJSON_GetObjectItem(is, "embedding"), 1));
    cJSON_Delete(was);
    cJSON_Delete(is);
    reply_free(&before);
    reply_free(&after);
    ck_assert_str_eq(post(&daemon, "/embed", &p, NULL, NULL), "hit");
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* SHA-256 of "secret". */
#define KEYS "infer 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b ivy\n"

START_TEST(test_hits_need_a_key_too)
{
    char more[300];
    snprintf(more, sizeof more, "\"access\": {\"keys\": \"%s\"},", scratch_text("keys", KEYS));
    struct daemon daemon = daemon_start_file(write_config(1000000, more), NULL);
    struct picture p = picture("tests/golden/vit-hf/input.png");
    ck_assert_str_eq(post(&daemon, "/classify", &p, "Authorization: Bearer secret", NULL), "miss");
    ck_assert_str_eq(post(&daemon, "/classify", &p, "Authorization: Bearer secret", NULL), "hit");
    struct reply reply = daemon_post(&daemon, "/classify", p.bytes, p.length);
    reply_assert_error(&reply, 401, "unauthorized");
    ck_assert_ptr_null(reply_header(&reply, "X-Cache"));
    reply_free(&reply);
    free(p.bytes);
    daemon_stop(&daemon);
}
END_TEST

/* ---- while the queue is full ---- */

struct load {
    const struct daemon *daemon;
    struct picture picture;
    atomic_uint number;
    atomic_int stop, refused, wrong;
};

/* Posts pictures that nobody has posted before: bytes after the end of a JPEG do not count. */
/* Posts JSON and reads nothing; the socket. */
static int ask_and_wait(const struct daemon *daemon, const char *path, const char *json, size_t length)
{
    char head[256];
    const int room = 4096, fd = daemon_connect(daemon);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: " JSON "\r\nContent-Length: %zu\r\n\r\n", path,
             length);
    say(fd, head);
    ck_assert_int_eq(send(fd, json, length, MSG_NOSIGNAL), (ssize_t)length);
    return fd;
}

static void await_bytes(const struct daemon *daemon, double bytes)
{
    const double start_time = test_clock();
    while (daemon_metric(daemon, "vitd_queue_bytes") != bytes)
        ck_assert_msg(test_clock() - start_time < 20, "%g", daemon_metric(daemon, "vitd_queue_bytes"));
}

/* A large reply costs nothing to make again, so whoever does not read it is counted; what was sent for it is not kept. */
START_TEST(test_slow_readers_of_hits_are_counted)
{
    enum { IMAGES = 16, READERS = 2 };
    static const char path[] = "/classify?attention=raw&layer=all&head=all";
    char here[4000];
    int fds[READERS];
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    struct daemon daemon = daemon_start_file(
        scratch_text("vitd.json",
                     "{\"cache\": {\"max_bytes\": 100000000}, \"limits\": {\"max_body_bytes\": 1000000}, "
                     "\"batching\": {\"max_queue_bytes\": 17000000}, "
                     "\"models\": [{\"name\": \"a\", \"path\": \"%s/tests/golden/vit-hf\", \"image_size\": 384}]}",
                     here), NULL);
    struct bytes pixels = bytes_of_pixels(8, 8, 1), bmp = bytes_of_bmp(&pixels, 8, 8), base64 = bytes_of_base64(&bmp);
    char *json = malloc(IMAGES * (base64.length + 16) + 64), *end = stpcpy(json, "{\"image\": [");
    for (int i = 0; i < IMAGES; i++)
        end += sprintf(end, "%s\"%s\"", i ? "," : "", (char *)base64.at);
    end = stpcpy(end, "]}");
    const size_t length = (size_t)(end - json);
    struct reply reply = daemon_request(&daemon, "POST", path, JSON, json, length, NULL);
    ck_assert_msg(reply.status == 200, "%ld %.300s", reply.status, reply.body);
    const double large = (double)reply.length;
    ck_assert_msg(large > 6e6 && large < 17e6 / READERS, "%g", large);
    reply_free(&reply);
    for (int i = 0; i < READERS; i++) {
        fds[i] = ask_and_wait(&daemon, path, json, length);
        await_bytes(&daemon, large * (i + 1));
    }
    reply = daemon_request(&daemon, "POST", path, JSON, json, length, NULL);
    reply_assert_error(&reply, 429, "queue_full");
    reply_free(&reply);
    close(fds[0]);
    await_bytes(&daemon, large);
    reply = daemon_request(&daemon, "POST", path, JSON, json, length, NULL);
    ck_assert_int_eq(reply.status, 200);
    ck_assert_str_eq(reply_header(&reply, "X-Cache"), "hit");
    reply_free(&reply);
    close(fds[1]);
    await_bytes(&daemon, 0);
    free(json);
    free(base64.at);
    free(bmp.at);
    free(pixels.at);
    daemon_stop(&daemon);
}
END_TEST

static void *fill_queue(void *context)
{
    struct load *load = context;
    unsigned char *bytes = malloc(load->picture.length + sizeof(unsigned));
    memcpy(bytes, load->picture.bytes, load->picture.length);
    while (!atomic_load(&load->stop)) {
        const unsigned number = atomic_fetch_add(&load->number, 1);
        memcpy(bytes + load->picture.length, &number, sizeof number);
        struct reply reply = daemon_post(load->daemon, "/classify", bytes, load->picture.length + sizeof number);
        atomic_fetch_add(&load->refused, reply.status == 429);
        atomic_fetch_add(&load->wrong, reply.status != 429 && reply.status != 200);
        reply_free(&reply);
    }
    free(bytes);
    return NULL;
}

START_TEST(test_hits_need_no_room_in_the_queue)
{
    enum { CLIENTS = 6 };
    pthread_t threads[CLIENTS];
    struct daemon daemon = daemon_start("{\"cache\": {\"max_bytes\": 100000}, \"threads\": 1,"
                                        "\"batching\": {\"max_queue_size\": 1, \"max_batch_size\": 1}}", NULL);
    struct load load = {.daemon = &daemon, .picture = picture("config/samples/cat.jpg")};
    struct picture known = picture("config/samples/coffee.jpg");
    ck_assert_str_eq(post(&daemon, "/classify", &known, NULL, NULL), "miss");
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fill_queue, &load), 0);
    for (int i = 0; i < 100 || atomic_load(&load.refused) < 20; i++) {
        ck_assert_str_eq(post(&daemon, "/classify", &known, NULL, NULL), "hit"); /* and 200 */
        ck_assert_int_lt(i, 10000);
    }
    atomic_store(&load.stop, 1);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(load.wrong, 0);
    free(load.picture.bytes);
    free(known.bytes);
    daemon_stop(&daemon);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache over HTTP");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, scratch_make, scratch_remove);
    tcase_add_test(tests, test_the_same_again_is_a_hit);
    tcase_add_test(tests, test_what_differs_is_a_miss);
    tcase_add_test(tests, test_forms_are_their_files);
    tcase_add_test(tests, test_errors_are_not_kept);
    tcase_add_test(tests, test_the_newest_stay);
    tcase_add_test(tests, test_reload_turns_it_off_and_on);
    tcase_add_test(tests, test_without_cache_nothing_is_said_of_it);
    tcase_add_test(tests, test_other_weights_are_a_miss);
    tcase_add_test(tests, test_hits_need_a_key_too);
    tcase_add_test(tests, test_hits_need_no_room_in_the_queue);
    tcase_add_test(tests, test_slow_readers_of_hits_are_counted);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
