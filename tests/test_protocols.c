/*
 * test_protocols.c - many clients of several protocols at once. What distinguishes them from /classify is that a worker
 * reads their bodies first, and then pushes what it found there as a second job while the connection stays suspended: so
 * clients leave during the reading, bodies are broken, memory runs short, and the daemon ends, all at that moment.
 */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/daemon.h"
#include "tests/suite.h"
#include "tests/upload.h"

#define SMALL "tests/golden/vit-hf"
#define INFER "/v2/models/small/infer"

static const char *const small_model[] = {"--model", "small=" SMALL, "--threads", "2", NULL};

static bool sanitized(void)
{
    return getenv("VITD_SANITIZED") != NULL;
}

/* ---- the same question in many ways ---- */

enum { WAYS = 11, MODELS = 2, QUESTIONS = WAYS * MODELS };

struct question {
    char path[64];
    struct upload upload;
    const char *type; /* NULL: the upload's */
    char *answer;     /* what came when it was asked alone */
    size_t length;
};

/* Of an answer, what does not tell the time. */
static size_t timeless(const struct reply *reply)
{
    const char *timing = strstr(reply->body, "\"timing\"");
    return timing != NULL ? (size_t)(timing - reply->body) : reply->length;
}

static struct reply ask(const struct daemon *daemon, const struct question *question)
{
    if (question->type == NULL)
        return upload_post(daemon, question->path, &question->upload, NULL);
    return daemon_request(daemon, "POST", question->path, question->type, question->upload.body.at,
                          question->upload.body.length, NULL);
}

static void put(struct question *question, const char *before, const char *model, const char *behind, struct upload upload,
                const char *type)
{
    *question = (struct question){.upload = upload, .type = type};
    snprintf(question->path, sizeof question->path, "%s%s%s", before, model, behind);
}

static void make_questions(struct question *q, const char *model)
{
    struct bytes files[3] = {bytes_of_file(SMALL "/input.png"), bytes_of_file("config/samples/cat.jpg"),
                             bytes_of_file("tests/golden/dinov2-hf/input.png")};
    struct bytes pixels = bytes_of_pixels(61, 47, 3), base64 = bytes_of_base64(&files[0]);
    put(q++, "/classify?model=", model, "", upload_raw(&files[0]), "image/png");
    put(q++, "/classify?model=", model, "", upload_raw(&files[1]), "image/jpeg");
    put(q++, "/v2/models/", model, "/infer", upload_files(&files[0], 1, ""), NULL);
    put(q++, "/v2/models/", model, "/infer", upload_files(files, 3, ",\"id\":\"three\""), NULL);
    put(q++, "/v2/models/", model, "/infer", upload_files_binary(files, 3, ""), NULL);
    put(q++, "/v2/models/", model, "/infer", upload_raw(&files[1]), NULL);
    put(q++, "/v2/models/", model, "/infer", upload_pixels(pixels.at, "[1,47,61,3]", pixels.length, ""), NULL);
    put(q++, "/v2/models/", model, "/infer",
        upload_tensor_binary("pixels", "UINT8", "[47,61,3]", pixels.at, pixels.length,
                             ",\"parameters\":{\"binary_data_output\":true}"), NULL);
    put(q++, "/hf/", model, "", upload_raw(&files[0]), "image/png");
    put(q++, "/hf/", model, "", upload_text("{\"inputs\":\"%s\"}", (char *)base64.at), NULL);
    put(q++, "/predictions/", model, "", upload_raw(&files[2]), "image/png");
    free(base64.at);
    free(pixels.at);
    for (int i = 0; i < 3; i++)
        free(files[i].at);
}

struct exam {
    const struct daemon *daemon;
    struct question questions[QUESTIONS];
    int rounds;
    atomic_uint next;
    atomic_int right, wrong;
};

static void *examine(void *context)
{
    struct exam *exam = context;
    for (int i = 0; i < exam->rounds; i++) {
        const struct question *question = &exam->questions[atomic_fetch_add(&exam->next, 7) % QUESTIONS];
        struct reply reply = ask(exam->daemon, question);
        const bool same = reply.status == 200 && timeless(&reply) == question->length &&
                          memcmp(reply.body, question->answer, question->length) == 0;
        atomic_fetch_add(same ? &exam->right : &exam->wrong, 1);
        if (!same)
            fprintf(stderr, "%s: %ld %.300s\n", question->path, reply.status, reply.body);
        reply_free(&reply);
    }
    return NULL;
}

START_TEST(test_mixed_clients_get_what_one_alone_gets)
{
    enum { CLIENTS = 16 };
    pthread_t threads[CLIENTS];
    const char *const models[] = {"--model", "small=" SMALL, "--model", "other=tests/golden/dinov2-hf", "--threads", "2", NULL};
    struct daemon daemon = daemon_start(NULL, models);
    struct exam exam = {.daemon = &daemon, .rounds = sanitized() ? 22 : 66};
    make_questions(exam.questions, "small");
    make_questions(exam.questions + WAYS, "other");
    for (int i = 0; i < QUESTIONS; i++) {
        struct question *question = &exam.questions[i];
        struct reply reply = ask(&daemon, question);
        ck_assert_msg(reply.status == 200, "%s: %ld %s", question->path, reply.status, reply.body);
        question->length = timeless(&reply);
        question->answer = reply.body;
        reply.body = NULL;
        reply_free(&reply);
    }
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, examine, &exam), 0);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(exam.wrong, 0);
    ck_assert_int_eq(exam.right, CLIENTS * exam.rounds);
    ck_assert_double_gt(daemon_metric(&daemon, "vitd_batch_size_sum{model=\"small\"}"),
                        1.2 * daemon_metric(&daemon, "vitd_batch_size_count{model=\"small\"}")); /* they shared batches */
    for (int i = 0; i < QUESTIONS; i++) {
        upload_free(&exam.questions[i].upload);
        free(exam.questions[i].answer);
    }
    daemon_stop(&daemon);
}
END_TEST

/* ---- clients that leave, or wait ---- */

/* A connection on which `length` bytes of the upload have been sent. */
static int begin(const struct daemon *daemon, const struct upload *upload, size_t length, int segment)
{
    char head[256];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)daemon->port)};
    int room = 4096, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    if (segment) { /* a client that takes little at a time */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    int n = snprintf(head, sizeof head, "POST " INFER " HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n", upload->body.length);
    if (upload->json_length != SIZE_MAX)
        n += snprintf(head + n, sizeof head - (size_t)n, "Inference-Header-Content-Length: %zu\r\n", upload->json_length);
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    ck_assert_int_eq(send(fd, head, (size_t)n, MSG_NOSIGNAL), n);
    for (size_t sent = 0; sent < length;) {
        const ssize_t more = send(fd, upload->body.at + sent, length - sent, MSG_NOSIGNAL);
        ck_assert_int_gt(more, 0);
        sent += (size_t)more;
    }
    return fd;
}

/* A tensor of `images` in JSON, that takes a while to read. */
static struct upload long_tensor(size_t images)
{
    const size_t count = images * 3 * 48 * 48;
    char shape[64];
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(i % 1013) / 507.3f - 1;
    snprintf(shape, sizeof shape, "[%zu,3,48,48]", images);
    struct upload upload = upload_floats(values, shape, count, "");
    free(values);
    return upload;
}

/* Waits until the gauge has that value. */
static void await_metric(const struct daemon *daemon, const char *name, double value)
{
    const double start = test_clock();
    while (daemon_metric(daemon, name) != value) {
        ck_assert_msg(test_clock() < start + 20, "%s is %g, not %g", name, daemon_metric(daemon, name), value);
        usleep(20000);
    }
}

static void assert_idle(const struct daemon *daemon)
{
    await_metric(daemon, "vitd_inflight_requests", 1); /* that asks */
    ck_assert_double_eq(daemon_metric(daemon, "vitd_queue_depth"), 0);
    ck_assert_double_eq(daemon_metric(daemon, "vitd_queue_bytes"), 0);
}

START_TEST(test_clients_that_leave_while_a_worker_reads)
{
    enum { ROUNDS = 40 };
    struct daemon daemon = daemon_start(NULL, small_model);
    struct upload upload = long_tensor(sanitized() ? 4 : 32);
    for (int i = 0; i < ROUNDS; i++) {
        const int fd = begin(&daemon, &upload, i % 8 == 7 ? upload.body.length / 2 : upload.body.length, 0);
        usleep((useconds_t)(i % 8) * 4000);
        close(fd);
    }
    assert_idle(&daemon);
    ck_assert_double_gt(daemon_metric(&daemon, "vitd_rejected_total{reason=\"client_gone\"}"), ROUNDS / 4.0);
    struct reply reply = upload_post(&daemon, INFER, &upload, NULL);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
    upload_free(&upload);
    daemon_stop(&daemon);
}
END_TEST

static double ns_of(const cJSON *stats, const char *name)
{
    const cJSON *durations = cJSON_GetObjectItem(stats, "inference_stats");
    return cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetObjectItem(durations, name), "ns"));
}

/* The time in the queue is all of it: until a worker reads the body, and until one takes what was in it. */
START_TEST(test_time_in_the_queue_begins_with_the_body)
{
    enum { LARGE = 4, ZEROES = 12 << 20 };
    int fds[LARGE];
    const char *const models[] = {"--model", "small=" SMALL, "--model", "other=tests/golden/dinov2-hf", "--threads", "1", NULL};
    struct daemon daemon = daemon_start(NULL, models);
    char *zeroes = malloc(ZEROES);
    strcpy(zeroes, ",\"ignored\":[0");
    for (size_t at = strlen(zeroes); at + 4 < ZEROES; at += 2)
        strcpy(zeroes + at, ",0");
    strcat(zeroes, "]");
    struct upload large = upload_pixels((unsigned char[]){1, 2, 3}, "[1,1,1,3]", 3, zeroes);
    struct bytes file = bytes_of_file(SMALL "/input.png");
    struct upload small = upload_files(&file, 1, "");
    free(zeroes);
    for (int i = 0; i < LARGE; i++)
        fds[i] = begin(&daemon, &large, large.body.length, 0);
    for (const double start = test_clock(); daemon_metric(&daemon, "vitd_queue_depth") < 1;) /* the only worker is busy */
        ck_assert_double_lt(test_clock() - start, 20);
    struct reply reply = upload_post(&daemon, "/v2/models/other/infer", &small, NULL);
    ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
    reply_free(&reply);
    reply = daemon_get(&daemon, "/v2/models/other/stats");
    cJSON *json = reply_json(&reply);
    const cJSON *stats = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "model_stats"), 0);
    ck_assert_msg(ns_of(stats, "queue") > 0.7 * ns_of(stats, "success"), "%s", reply.body);
    cJSON_Delete(json);
    reply_free(&reply);
    for (int i = 0; i < LARGE; i++)
        close(fds[i]);
    upload_free(&large);
    upload_free(&small);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- memory ---- */

/* Whoever reads slowly has the reply held for it, not what it sent. */
START_TEST(test_slow_readers_hold_no_bodies)
{
    enum { CLIENTS = 8, IMAGES = 200, MEGABYTE = 1 << 20 };
    int fds[CLIENTS];
    struct daemon daemon = daemon_start("{\"limits\": {\"max_images_per_request\": 200}, \"batching\": {\"max_queue_size\": 2000}}",
                                        small_model);
    struct bytes pixels = bytes_of_pixels(1, IMAGES, 1);
    char *blanks = malloc(14 * MEGABYTE); /* in the JSON; the pixels behind it are used where they are */
    memset(blanks, ' ', 14 * MEGABYTE);
    blanks[14 * MEGABYTE - 1] = '\0';
    struct upload upload = upload_tensor_binary("pixels", "UINT8", "[200,1,1,3]", pixels.at, pixels.length, blanks);
    free(blanks);
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = begin(&daemon, &upload, upload.body.length, 536);
    await_metric(&daemon, "vitd_images_total{model=\"small\"}", CLIENTS * IMAGES);
    await_metric(&daemon, "vitd_queue_bytes", 0);
    ck_assert_double_eq(daemon_metric(&daemon, "vitd_inflight_requests"), CLIENTS + 1); /* none has read its reply */
    if (!sanitized())
        ck_assert_msg(daemon_memory(&daemon, "VmRSS:") < 60 * 1024, "%ld KiB", daemon_memory(&daemon, "VmRSS:"));
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    assert_idle(&daemon);
    free(pixels.at);
    upload_free(&upload);
    daemon_stop(&daemon);
}
END_TEST

/* The bytes that may wait are bounded, and are given back. */
START_TEST(test_bytes_beyond_the_bound)
{
    struct daemon daemon = daemon_start("{\"limits\": {\"max_body_bytes\": 100000}, \"batching\": {\"max_queue_bytes\": 100000}}",
                                        small_model);
    struct bytes pixels = bytes_of_pixels(200, 100, 1);
    struct upload large = upload_tensor_binary("pixels", "UINT8", "[100,200,3]", pixels.at, pixels.length, "");
    for (int i = 0; i < 3; i++) {
        const int fd = begin(&daemon, &large, large.body.length - 1, 0); /* that one byte is missing */
        await_metric(&daemon, "vitd_queue_bytes", (double)(large.body.length - 1));
        struct reply reply = upload_post(&daemon, INFER, &large, NULL);
        reply_assert_plain(&reply, 429, "the queue is full");
        ck_assert_ptr_nonnull(reply_header(&reply, "Retry-After"));
        reply_free(&reply);
        close(fd);
        assert_idle(&daemon);
    }
    for (int i = 0; i < 10; i++) { /* more than fit at once */
        struct reply reply = upload_post(&daemon, INFER, &large, NULL);
        ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
        reply_free(&reply);
    }
    assert_idle(&daemon);
    upload_free(&large);
    free(pixels.at);
    daemon_stop(&daemon);
}
END_TEST

/* Room for the body, but not for what is in it; then for neither. Both are more than the 64 MiB that malloc may have set
 * aside for a thread. */
START_TEST(test_memory_runs_short)
{
    enum { MEGABYTE = 1 << 20, BODY = 72 * MEGABYTE };
    struct rlimit before, tight;
    if (sanitized()) {
        puts("SKIPPED: sanitizers take all the addresses there are");
        return;
    }
    struct daemon daemon = daemon_start("{\"limits\": {\"max_body_bytes\": 80000000}}", small_model);
    struct bytes file = {calloc(BODY / 4 * 3 - 1024, 1), BODY / 4 * 3 - 1024}, good = bytes_of_file(SMALL "/input.png");
    struct upload upload = upload_files(&file, 1, ""), small = upload_files(&good, 1, "");
    struct reply reply;
    ck_assert_int_eq(prlimit(daemon.pid, RLIMIT_AS, NULL, &before), 0);
    for (long room = 100; room > 0; room -= 80) {
        tight = before;
        tight.rlim_cur = (rlim_t)(daemon_memory(&daemon, "VmSize:") * 1024 + room * MEGABYTE);
        ck_assert_int_eq(prlimit(daemon.pid, RLIMIT_AS, &tight, NULL), 0);
        reply = upload_post(&daemon, INFER, &upload, NULL);
        reply_assert_plain(&reply, 503, "short of memory");
        reply_free(&reply);
        reply = upload_post(&daemon, INFER, &small, NULL); /* others are served */
        ck_assert_msg(reply.status == 200, "%ld %s", reply.status, reply.body);
        reply_free(&reply);
        ck_assert_int_eq(prlimit(daemon.pid, RLIMIT_AS, &before, NULL), 0);
    }
    assert_idle(&daemon);
    upload_free(&upload);
    upload_free(&small);
    free(file.at);
    free(good.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- broken bodies ---- */

struct vandals {
    const struct daemon *daemon;
    struct upload json, binary, hf, good;
    int rounds;
    atomic_uint seed;
    atomic_int statuses[600], wrong;
};

/* Cuts the upload, or writes something else into it. */
static struct upload broken(const struct upload *upload, unsigned *seed)
{
    static const char marks[] = "\"[]{},:-0.e\\";
    struct upload copy = {{malloc(upload->body.length + 1), upload->body.length}, upload->json_length};
    memcpy(copy.body.at, upload->body.at, upload->body.length + 1);
    const size_t head = upload->body.length < 300 ? upload->body.length : 300;
    switch (rand_r(seed) % 3) {
    case 0:
        copy.body.length = (size_t)rand_r(seed) % upload->body.length;
        break;
    case 1:
        for (int i = 0; i < 3; i++)
            copy.body.at[(size_t)rand_r(seed) % head] = (unsigned char)marks[(size_t)rand_r(seed) % (sizeof marks - 1)];
        break;
    default:
        copy.body.at[(size_t)rand_r(seed) % upload->body.length] = (unsigned char)rand_r(seed);
        if (copy.json_length != SIZE_MAX)
            copy.json_length += (size_t)rand_r(seed) % 3;
    }
    return copy;
}

static void *break_things(void *context)
{
    struct vandals *vandals = context;
    unsigned seed = atomic_fetch_add(&vandals->seed, 1);
    for (int i = 0; i < vandals->rounds; i++) {
        const struct upload *const kinds[] = {&vandals->json, &vandals->binary, &vandals->hf};
        const unsigned kind = (unsigned)rand_r(&seed) % 3;
        struct upload upload = broken(kinds[kind], &seed);
        struct reply reply = upload_post(vandals->daemon, kind == 2 ? "/hf/small" : INFER, &upload, NULL);
        const bool expected = reply.status == 200 || reply.status == 400 || reply.status == 415 || reply.status == 422;
        vandals->wrong += !expected || (reply.status != 200 && strncmp(reply.body, "{\"error\":\"", 10) != 0);
        if (!expected)
            fprintf(stderr, "%ld %d %.200s\n", reply.status, (int)reply.curl, reply.body);
        else
            vandals->statuses[reply.status]++;
        reply_free(&reply);
        upload_free(&upload);
        reply = upload_post(vandals->daemon, INFER, &vandals->good, NULL);
        vandals->wrong += reply.status != 200;
        reply_free(&reply);
    }
    return NULL;
}

START_TEST(test_broken_bodies_under_load)
{
    enum { CLIENTS = 8 };
    pthread_t threads[CLIENTS];
    struct daemon daemon = daemon_start(NULL, small_model);
    struct bytes file = bytes_of_file(SMALL "/input.png"), base64 = bytes_of_base64(&file);
    struct bytes files[2] = {file, file};
    struct vandals vandals = {.daemon = &daemon, .json = upload_files(files, 2, ""),
                              .binary = upload_files_binary(files, 2, ""), .good = upload_files(&file, 1, ""),
                              .hf = upload_text("{\"inputs\": \"%s\"}", (char *)base64.at),
                              .rounds = sanitized() ? 25 : 150};
    for (int i = 0; i < CLIENTS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, break_things, &vandals), 0);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(vandals.wrong, 0);
    ck_assert_int_gt(vandals.statuses[400], CLIENTS * vandals.rounds / 4);
    assert_idle(&daemon);
    upload_free(&vandals.json);
    upload_free(&vandals.binary);
    upload_free(&vandals.hf);
    upload_free(&vandals.good);
    free(base64.at);
    free(file.at);
    daemon_stop(&daemon);
}
END_TEST

/* ---- the end ---- */

struct crowd {
    const struct daemon *daemon;
    struct upload upload;
    atomic_int stop, ok, lost, wrong;
};

static void *ask_until_told(void *context)
{
    struct crowd *crowd = context;
    while (!atomic_load(&crowd->stop)) {
        struct reply reply = upload_post(crowd->daemon, INFER, &crowd->upload, NULL);
        const bool refused = reply.curl == CURLE_COULDNT_CONNECT;
        if (!refused)
            atomic_fetch_add(reply.curl != CURLE_OK ? &crowd->lost : reply.status == 200 ? &crowd->ok : &crowd->wrong, 1);
        reply_free(&reply);
        if (refused)
            break;
    }
    return NULL;
}

/* Whoever has been let in is answered, also with its body at a worker or between its two jobs. */
START_TEST(test_sigterm_while_workers_read)
{
    enum { CLIENTS = 16 };
    for (int round = 0; round < 3; round++) {
        pthread_t threads[CLIENTS];
        struct daemon daemon = daemon_start(NULL, small_model);
        struct crowd crowd = {.daemon = &daemon, .upload = long_tensor(2)};
        for (int i = 0; i < CLIENTS; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_until_told, &crowd), 0);
        usleep(200000 + 30000 * (useconds_t)round);
        while (atomic_load(&crowd.ok) == 0)
            usleep(10000);
        daemon_stop(&daemon);
        atomic_store(&crowd.stop, 1);
        for (int i = 0; i < CLIENTS; i++)
            pthread_join(threads[i], NULL);
        ck_assert_int_gt(crowd.ok, 0);
        ck_assert_msg(crowd.lost == 0 && crowd.wrong == 0, "%d lost, %d wrong of %d", crowd.lost, crowd.wrong, crowd.ok);
        upload_free(&crowd.upload);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_mixed_clients_get_what_one_alone_gets, test_clients_that_leave_while_a_worker_reads,
                                  test_time_in_the_queue_begins_with_the_body,
                                  test_slow_readers_hold_no_bodies, test_bytes_beyond_the_bound, test_memory_runs_short,
                                  test_broken_bodies_under_load, test_sigterm_while_workers_read};
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    Suite *suite = suite_create("protocols");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 180);
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++)
        tcase_add_test(all, tests[i]);
    suite_add_tcase(suite, all);
    return suite_run(suite);
}
