/* test_workers.c - the pool of workers with a real model and no HTTP: what images that fail or come too late count for. */
#include <check.h>
#include <semaphore.h>
#include <stdlib.h>

#include "server/work/workers.h"
#include "tests/daemon.h"
#include "tests/suite.h"

static struct config config;
static struct registry registry;
static struct metrics *metrics;
static struct queue *queue;
static struct workers *workers;
static sem_t done;

static void start(void)
{
    struct config_error why;
    vit_error error = {""};
    config_init(&config);
    ck_assert(config_add_model(&config, "small=tests/golden/vit-hf", &why));
    ck_assert_msg(registry_open(&registry, &config, &error) == VIT_OK, "%s", error.message);
    metrics = metrics_create((const char *const[]){"small"}, 1);
    queue = queue_create(&(struct queue_limits){
        .models = 1, .workers = 1, .max_batch = 1, .capacity = SIZE_MAX / 2});
    const struct workers_setup setup = {.registry = &registry, .queue = queue, .metrics = metrics, .threads = 1,
                                        .max_batch = 1, .max_pixels = 1 << 24};
    ck_assert_msg(workers_start(&workers, &setup, &error) == VIT_OK, "%s", error.message);
    sem_init(&done, 0, 0);
}

static void end(void)
{
    workers_stop(workers);
    queue_free(queue);
    metrics_free(metrics);
    registry_release(&registry);
    config_release(&config);
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
        job->deadline_us = deadline_us;
        job->done = job_done;
        ck_assert(queue_reserve(queue, 1));
        queue_push(queue, job);
        sem_wait(&done);
    }
}

/* What Retry-After would be with so many images waiting. */
static unsigned retry_after(size_t waiting)
{
    ck_assert(queue_reserve(queue, waiting));
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

int main(void)
{
    vit_blas_init();
    Suite *suite = suite_create("workers");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, start, end);
    tcase_add_test(tests, test_retry_after_counts_broken_images);
    tcase_add_test(tests, test_retry_after_counts_expired_images);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
