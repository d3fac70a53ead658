/*
 * queue.h - what waits between the HTTP thread and the workers: images to decode, and images ready for a batch.
 *
 * Room is counted in images and reserved before the push, so that a full queue is known while the HTTP thread can
 * still answer 429, and a push cannot fail. An image occupies its room until a worker takes it to run it (or drops it).
 * All functions are thread-safe.
 */
#ifndef SERVER_WORK_QUEUE_H
#define SERVER_WORK_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "server/work/job.h"
#include "server/work/team.h"

struct queue;

struct queue_limits {
    size_t models;
    size_t workers;         /* threads that call queue_take() */
    size_t max_batch;       /* images */
    int64_t max_delay_us;   /* how long a ready image may wait while there is something to decode */
    size_t capacity;        /* images */
};

struct queue *queue_create(const struct queue_limits *limits);
/* Accepts NULL. Nothing may wait in it. */
void queue_free(struct queue *queue);

/* Takes room for count images; false when there is not enough. */
bool queue_reserve(struct queue *queue, size_t count);
/* Gives reserved room back when there will be no push. */
void queue_unreserve(struct queue *queue, size_t count);
/* Hands over a job for whose images room is reserved. It belongs to the workers until job->done. */
void queue_push(struct queue *queue, struct job *job);

enum queue_work { QUEUE_STOP, QUEUE_DECODE, QUEUE_RUN, QUEUE_HELP };

/* What a worker takes. */
struct queue_task {
    struct job_image **images; /* room for max_batch, the worker's */
    size_t count;
    struct team *team;
};

/* Blocks until there is something to do. QUEUE_DECODE: images[0] is to be decoded and returned by queue_ready() or
 * queue_dropped(). QUEUE_RUN: images[0 .. *count) (room for max_batch) of one model are to be run, and no longer
 * belong to the queue. QUEUE_HELP: team is joined, and to be helped by team_help() until queue_has_work(). QUEUE_STOP:
 * closed and nothing left for this worker. */
enum queue_work queue_take(struct queue *queue, struct queue_task *task);

/* Calls the workers that have nothing to do to an open team; returns how many may come. Nobody comes any more after
 * queue_dismiss(), which must precede team_close(). */
size_t queue_call(struct queue *queue, struct team *team);
void queue_dismiss(struct queue *queue, struct team *team);
/* Whether a helper had better take something; the argument is the queue. */
bool queue_has_work(void *queue);
/* The image taken for decoding waits for a batch from now on; image->ready_us says since when. */
void queue_ready(struct queue *queue, struct job_image *image);
/* The image taken for decoding will not be run. */
void queue_dropped(struct queue *queue);

/* What one image cost a worker, all stages, if it failed or was dropped too; feeds the estimate of queue_retry_after(). */
void queue_record_cost(struct queue *queue, double seconds);
/* Seconds until what waits now should have been served, at least 1. */
unsigned queue_retry_after(struct queue *queue);
/* Images waiting, including those being decoded. */
size_t queue_depth(struct queue *queue);

/* No more jobs will come; what waits is still served. */
void queue_close(struct queue *queue);

#endif
