/* test_workers.c - the pool of workers with a real model and no HTTP: what images that fail or come too late count for. */
#include <check.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/work/workers.h"
#include "tests/daemon.h"
#include "tests/suite.h"

static struct metrics *metrics;
static struct queue *queue;
static struct workers *workers;
static struct model *model;
static sem_t done;

static void start(void)
{
    struct config config;
    struct config_error why;
    vit_error error = {""};
    config_init(&config);
    ck_assert(config_set(&config, "batching.max_batch_size", "1", &why));
    ck_assert(config_add_model(&config, "small=tests/golden/vit-hf", &why));
    metrics = metrics_create();
    queue = queue_create(1, &(struct queue_limits){.capacity = SIZE_MAX / 2});
    ck_assert_msg(model_open(&model, &config.models[0], 1, metrics, &error) == VIT_OK, "%s", error.message);
    ck_assert_msg(workers_start(&workers, queue, metrics, 1, &error) == VIT_OK, "%s", error.message);
    config_release(&config);
    sem_init(&done, 0, 0);
}

static void end(void)
{
    workers_stop(workers);
    queue_free(queue);
    model_unref(model);
    metrics_free(metrics);
    sem_destroy(&done);
}

static void job_done(struct job *job)
{
    job_free(job);
    sem_post(&done);
}

/* Serves `count` jobs, one after the other, each with the first 1/`part` of the file. */
static void serve(size_t count, const char *path, size_t part, int64_t deadline_us)
{
    for (size_t i = 0; i < count; i++) {
        size_t length;
        unsigned char *bytes = test_file(path, &length);
        struct job *job = job_create(bytes, length, 1);
        job->images[0].bytes = bytes;
        job->images[0].length = length / part;
        job->model = model;
        job->max_pixels = 1 << 24;
        job->deadline_us = deadline_us;
        job->done = job_done;
        ck_assert(queue_reserve(queue, 1, PRIORITY_NORMAL));
        queue_push(queue, job);
        sem_wait(&done);
    }
}

/* What Retry-After would be with so many images waiting. */
static unsigned retry_after(size_t waiting)
{
    ck_assert(queue_reserve(queue, waiting, PRIORITY_NORMAL));
    const unsigned seconds = queue_retry_after(queue);
    queue_unreserve(queue, waiting);
    return seconds;
}

START_TEST(test_retry_after_counts_broken_images)
{
    serve(20, "config/samples/cat.jpg", 2, INT64_MAX);
    ck_assert_uint_gt(retry_after(1000000), 10); /* 10 us for half a JPEG would be too good to be true */
}
END_TEST

START_TEST(test_retry_after_counts_expired_images)
{
    serve(1, "config/samples/cat.jpg", 1, INT64_MAX);
    const unsigned before = retry_after(100000);
    serve(200, "config/samples/cat.jpg", 1, 0);
    ck_assert_uint_gt(before, 10);
    ck_assert_uint_lt(retry_after(100000), before / 2);
}
END_TEST

static sem_t go_on;

static void job_done_late(struct job *job)
{
    sem_wait(&go_on);
    job_done(job);
}

/* What the watchdog goes by. */
START_TEST(test_a_stuck_worker_shows)
{
    struct job *job = job_create(NULL, 0, 1);
    sem_init(&go_on, 0, 0);
    job->model = model;
    job->without_image = true;
    job->deadline_us = INT64_MAX;
    job->done = job_done_late;
    ck_assert(queue_reserve(queue, 1, PRIORITY_NORMAL));
    ck_assert_int_eq(workers_longest_us(workers), 0);
    queue_push(queue, job);
    usleep(300000);
    ck_assert_int_ge(workers_longest_us(workers), 200000);
    struct worker_state state;
    ck_assert(workers_look(workers, 0, &state) && !workers_look(workers, 1, &state));
    ck_assert_int_eq(state.work, QUEUE_DECODE);
    sem_post(&go_on);
    sem_wait(&done);
    for (int i = 0; i < 100 && workers_longest_us(workers) > 0; i++)
        usleep(10000);
    ck_assert_int_eq(workers_longest_us(workers), 0);
    sem_destroy(&go_on);
}
END_TEST

int main(void)
{
    vit_blas_init();
    Suite *suite = suite_create("workers");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, start, end);
    tcase_add_test(tests, test_retry_after_counts_broken_images);
    tcase_add_test(tests, test_retry_after_counts_expired_images);
    tcase_add_test(tests, test_a_stuck_worker_shows);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
