/* test_queue.c - the scheduling policy, on one thread and without an engine: what queue_take() gives, in what order. */
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/work/model.h"
#include "server/work/queue.h"
#include "tests/suite.h"

enum { MAX_BATCH = 4, CAPACITY = 10 };

static struct model models[2];

static struct queue *make(int64_t delay_us)
{
    struct queue *queue = queue_create(1, &(struct queue_limits){.capacity = CAPACITY, .max_bytes = 1000});
    ck_assert_ptr_nonnull(queue);
    for (size_t i = 0; i < 2; i++)
        models[i].lane = (struct lane){.max_batch = MAX_BATCH, .max_delay_us = delay_us};
    return queue;
}

static struct job *push_as(struct queue *queue, size_t model, size_t images, enum job_priority priority)
{
    struct job *job = job_create(NULL, 0, images);
    job->model = &models[model];
    job->priority = priority;
    ck_assert(queue_reserve(queue, images, priority));
    queue_push(queue, job);
    return job;
}

static struct job *push(struct queue *queue, size_t model, size_t images)
{
    return push_as(queue, model, images, PRIORITY_NORMAL);
}

static size_t depth(struct queue *queue)
{
    struct queue_state state;
    queue_look(queue, &state);
    return state.waiting;
}

/* Takes an image that must be to decode, and makes it ready. */
static struct job_image *decode_one(struct queue *queue, int64_t ready_us)
{
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    ck_assert_int_eq(queue_take(queue, &task), QUEUE_DECODE);
    ck_assert_uint_eq(task.count, 1);
    images[0]->ready_us = ready_us;
    queue_ready(queue, images[0]);
    return images[0];
}

static void assert_runs(struct queue *queue, size_t count, const struct job_image *first)
{
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    ck_assert_int_eq(queue_take(queue, &task), QUEUE_RUN);
    ck_assert_uint_eq(task.count, count);
    ck_assert_ptr_eq(images[0], first);
}

START_TEST(test_full_batch_goes_before_decoding)
{
    struct queue *queue = make(1000000);
    struct job *job = push(queue, 0, 5);
    for (int i = 0; i < MAX_BATCH; i++)
        ck_assert_ptr_eq(decode_one(queue, job_clock_us()), &job->images[i]);
    assert_runs(queue, MAX_BATCH, &job->images[0]);
    decode_one(queue, job_clock_us());
    assert_runs(queue, 1, &job->images[4]);
    ck_assert_uint_eq(depth(queue), 0);
    job_free(job);
    queue_free(queue);
}
END_TEST

START_TEST(test_partial_batch_waits_for_decoding_only_so_long)
{
    struct queue *queue = make(1000000);
    struct job *job = push(queue, 0, 3);
    decode_one(queue, job_clock_us());           /* young: decode on */
    decode_one(queue, job_clock_us() - 2000000); /* the oldest decides, and it is young still */
    decode_one(queue, job_clock_us());
    assert_runs(queue, 3, &job->images[0]); /* nothing left to decode: at once */
    struct job *late = push(queue, 0, 2);
    decode_one(queue, job_clock_us() - 2000000);
    assert_runs(queue, 1, &late->images[0]); /* waited too long, though one is left to decode */
    decode_one(queue, job_clock_us());
    assert_runs(queue, 1, &late->images[1]);
    job_free(job);
    job_free(late);
    queue_free(queue);
}
END_TEST

START_TEST(test_batch_holds_one_model)
{
    struct queue *queue = make(1000000);
    struct job *a = push(queue, 0, 2), *b = push(queue, 1, 2);
    const int64_t now = job_clock_us();
    for (int i = 0; i < 4; i++)
        decode_one(queue, now + (i < 2 ? 10 : 0)); /* model 1 has waited longer */
    assert_runs(queue, 2, &b->images[0]);
    assert_runs(queue, 2, &a->images[0]);
    job_free(a);
    job_free(b);
    queue_free(queue);
}
END_TEST

START_TEST(test_capacity_is_counted_in_images)
{
    struct queue *queue = make(0);
    struct job *job = push(queue, 0, CAPACITY - 1);
    ck_assert(!queue_reserve(queue, 2, PRIORITY_NORMAL));
    ck_assert_uint_eq(depth(queue), CAPACITY - 1);
    ck_assert(queue_reserve(queue, 1, PRIORITY_NORMAL));
    ck_assert(!queue_reserve(queue, 1, PRIORITY_NORMAL));
    queue_unreserve(queue, 1);
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    for (int i = 0; i < CAPACITY - 1; i++) { /* dropped images free their room */
        ck_assert_int_eq(queue_take(queue, &task), QUEUE_DECODE);
        queue_dropped(queue);
    }
    ck_assert_uint_eq(depth(queue), 0);
    ck_assert(queue_reserve(queue, CAPACITY, PRIORITY_NORMAL));
    queue_unreserve(queue, CAPACITY);
    job_free(job);
    queue_free(queue);
}
END_TEST

START_TEST(test_close_drains_and_stops)
{
    struct queue *queue = make(0);
    struct job *job = push(queue, 0, 1);
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    queue_close(queue);
    decode_one(queue, job_clock_us());
    assert_runs(queue, 1, &job->images[0]);
    ck_assert_int_eq(queue_take(queue, &task), QUEUE_STOP);
    job_free(job);
    queue_free(queue);
}
END_TEST

static void *taker(void *context)
{
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    return (void *)(intptr_t)queue_take(context, &task);
}

START_TEST(test_take_sleeps_until_closed)
{
    struct queue *queue = make(0);
    pthread_t thread;
    void *work = NULL;
    ck_assert_int_eq(pthread_create(&thread, NULL, taker, queue), 0);
    usleep(50000);
    queue_close(queue);
    pthread_join(thread, &work);
    ck_assert_int_eq((int)(intptr_t)work, QUEUE_STOP);
    queue_free(queue);
}
END_TEST

/* An idle worker answers a call, and is gone from the team when that closes; with work about nobody is called. */
static void *helper(void *context)
{
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    enum queue_work work = queue_take(context, &task);
    if (work == QUEUE_HELP)
        team_help(task.team, NULL, queue_has_work, context);
    return (void *)(intptr_t)work;
}

START_TEST(test_idle_worker_is_called_to_a_team)
{
    struct queue *queue = make(0);
    struct team *team = team_create();
    pthread_t thread;
    vit_team lent;
    void *work = NULL;
    ck_assert_uint_eq(queue_call(queue, team), 0); /* nobody is there */
    ck_assert_int_eq(pthread_create(&thread, NULL, helper, queue), 0);
    team_open(team, &lent, 0);
    size_t called = 0;
    while (called == 0)
        called = queue_call(queue, team);
    ck_assert_uint_eq(called, 1);
    ck_assert_uint_eq(queue_call(queue, team), 0); /* it is called already, or has come */
    usleep(50000);
    ck_assert(!queue_has_work(queue));
    struct job *job = push(queue, 0, 1); /* the helper had better take that */
    ck_assert(queue_has_work(queue));
    pthread_join(thread, &work);
    decode_one(queue, job_clock_us());
    assert_runs(queue, 1, &job->images[0]);
    ck_assert(!queue_has_work(queue));
    job_free(job);
    queue_dismiss(queue, team);
    team_close(team);
    ck_assert_int_eq((int)(intptr_t)work, QUEUE_HELP);
    team_free(team);
    queue_free(queue);
}
END_TEST

START_TEST(test_retry_after_follows_the_cost)
{
    struct queue *queue = make(0);
    ck_assert_uint_eq(queue_retry_after(queue), 1);
    queue_record_cost(queue, 2.0);
    ck_assert(queue_reserve(queue, 5, PRIORITY_NORMAL));
    ck_assert_uint_eq(queue_retry_after(queue), 10);
    queue_unreserve(queue, 5);
    queue_free(queue);
}
END_TEST

START_TEST(test_low_priority_is_decoded_last_and_takes_half_the_room)
{
    struct queue *queue = make(0);
    struct job *low = push_as(queue, 0, CAPACITY / 2, PRIORITY_LOW);
    ck_assert(!queue_reserve(queue, 1, PRIORITY_LOW));
    ck_assert(!queue_has_room(queue, PRIORITY_LOW));
    ck_assert(queue_has_room(queue, PRIORITY_NORMAL));
    struct job *normal = push(queue, 1, CAPACITY - CAPACITY / 2);
    ck_assert(!queue_has_room(queue, PRIORITY_NORMAL));
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    for (size_t i = 0; i < CAPACITY; i++) {
        const struct job_image *expected =
            i < normal->image_count ? &normal->images[i] : &low->images[i - normal->image_count];
        ck_assert_int_eq(queue_take(queue, &task), QUEUE_DECODE);
        ck_assert_ptr_eq(images[0], expected);
        queue_dropped(queue);
    }
    job_free(low);
    job_free(normal);
    queue_free(queue);
}
END_TEST

START_TEST(test_what_is_late_is_taken_out)
{
    struct queue *queue = make(0);
    struct queue_state state;
    struct job *late = push(queue, 0, 2), *low = push_as(queue, 0, 1, PRIORITY_LOW), *other = push(queue, 0, 2);
    const int64_t now = job_clock_us();
    other->deadline_us = now + 1;
    late->deadline_us = low->deadline_us = now;
    struct job_image *taken = queue_take_stale(queue, now);
    ck_assert_ptr_eq(taken, &late->images[0]);
    ck_assert_ptr_eq(taken->next, &late->images[1]);
    ck_assert_ptr_eq(taken->next->next, &low->images[0]);
    ck_assert_ptr_null(taken->next->next->next);
    ck_assert_ptr_null(queue_take_stale(queue, now));
    queue_look(queue, &state);
    ck_assert_uint_eq(state.waiting, 2);
    ck_assert_uint_eq(state.pending[PRIORITY_NORMAL], 2);
    ck_assert_uint_eq(state.pending[PRIORITY_LOW], 0);
    struct job_image *images[MAX_BATCH];
    struct queue_task task = {.images = images};
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(queue_take(queue, &task), QUEUE_DECODE);
        ck_assert_ptr_eq(images[0], &other->images[i]);
        queue_dropped(queue);
    }
    ck_assert(!queue_has_work(queue));
    job_free(late);
    job_free(low);
    job_free(other);
    queue_free(queue);
}
END_TEST

START_TEST(test_limits_change_for_what_comes)
{
    struct queue *queue = make(0);
    ck_assert(queue_reserve(queue, CAPACITY, PRIORITY_NORMAL));
    queue_set_limits(queue, &(struct queue_limits){.capacity = 2, .max_bytes = 10});
    ck_assert(!queue_has_room(queue, PRIORITY_NORMAL));
    queue_unreserve(queue, CAPACITY - 1);
    ck_assert(queue_reserve(queue, 1, PRIORITY_NORMAL));
    ck_assert(!queue_reserve(queue, 1, PRIORITY_NORMAL));
    queue_unreserve(queue, 2);
    queue_free(queue);
}
END_TEST

START_TEST(test_bytes_are_bounded)
{
    struct queue *queue = make(0);
    struct queue_state state;
    ck_assert(queue_hold_bytes(queue, 600));
    ck_assert(!queue_hold_bytes(queue, 401));
    ck_assert(queue_hold_bytes(queue, 400));
    queue_look(queue, &state);
    ck_assert_uint_eq(state.bytes, 1000);
    ck_assert(!queue_hold_bytes(queue, 1));
    queue_release_bytes(queue, 600);
    ck_assert(queue_hold_bytes(queue, 1));
    queue_release_bytes(queue, 401);
    queue_free(queue);
}
END_TEST

/* A model's own batching: one of 2 is full sooner than one of MAX_BATCH. */
START_TEST(test_lanes_batch_as_their_models_say)
{
    struct queue *queue = make(1000000);
    models[1].lane.max_batch = 2;
    struct job *a = push(queue, 0, 3), *b = push(queue, 1, 3);
    for (int i = 0; i < 5; i++)
        decode_one(queue, job_clock_us());
    assert_runs(queue, 2, &b->images[0]);
    decode_one(queue, job_clock_us());
    assert_runs(queue, 3, &a->images[0]);
    assert_runs(queue, 1, &b->images[2]);
    job_free(a);
    job_free(b);
    queue_free(queue);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("queue");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, test_full_batch_goes_before_decoding);
    tcase_add_test(tests, test_partial_batch_waits_for_decoding_only_so_long);
    tcase_add_test(tests, test_batch_holds_one_model);
    tcase_add_test(tests, test_capacity_is_counted_in_images);
    tcase_add_test(tests, test_close_drains_and_stops);
    tcase_add_test(tests, test_take_sleeps_until_closed);
    tcase_add_test(tests, test_idle_worker_is_called_to_a_team);
    tcase_add_test(tests, test_retry_after_follows_the_cost);
    tcase_add_test(tests, test_low_priority_is_decoded_last_and_takes_half_the_room);
    tcase_add_test(tests, test_what_is_late_is_taken_out);
    tcase_add_test(tests, test_limits_change_for_what_comes);
    tcase_add_test(tests, test_bytes_are_bounded);
    tcase_add_test(tests, test_lanes_batch_as_their_models_say);
    suite_add_tcase(suite, tests);
    return suite_run(suite);
}
