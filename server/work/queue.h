/*
 * queue.h - what waits between the HTTP threads and the workers: images to decode, and images ready for a batch.
 *
 * Room is counted in images and reserved before the push, so that a full queue is known while the HTTP thread can
 * still answer 429, and a push cannot fail. An image occupies its room until a worker takes it to run it (or drops it).
 * Beside the images the bytes of the uploads are counted, from the first that is read until the job is done.
 * All functions are thread-safe.
 */
#ifndef SERVER_WORK_QUEUE_H
#define SERVER_WORK_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "server/work/job.h"
#include "server/work/lane.h"
#include "server/work/team.h"

struct queue;

enum { QUEUE_MAX_BATCH = 256 };

struct queue_limits {
    size_t capacity;  /* images; those of low priority may take half of it */
    size_t max_bytes; /* of uploads */
};

/* workers: threads that call queue_take(). NULL when memory is short. */
struct queue *queue_create(size_t workers, const struct queue_limits *limits);
/* Accepts NULL. Nothing may wait in it. */
void queue_free(struct queue *queue);

/* For what comes from now on. */
void queue_set_limits(struct queue *queue, const struct queue_limits *limits);

/* Whether there is room for an image now, and takes room for count images; false when there is not enough. */
bool queue_has_room(struct queue *queue, enum job_priority priority);
bool queue_reserve(struct queue *queue, size_t count, enum job_priority priority);
/* Gives reserved room back when there will be no push. */
void queue_unreserve(struct queue *queue, size_t count);
/* Hands over a job for whose images room is reserved. It belongs to the workers until job->done. */
void queue_push(struct queue *queue, struct job *job);

/* The same for bytes of an upload, which whoever holds them gives back. */
bool queue_hold_bytes(struct queue *queue, size_t count);
void queue_release_bytes(struct queue *queue, size_t count);

enum queue_work { QUEUE_STOP, QUEUE_DECODE, QUEUE_RUN, QUEUE_HELP };

/* What a worker takes. */
struct queue_task {
    struct job_image **images; /* room for QUEUE_MAX_BATCH, the worker's */
    size_t count;
    struct team *team;
};

/* Blocks until there is something to do. QUEUE_DECODE: images[0] is to be decoded and returned by queue_ready() or
 * queue_dropped(). QUEUE_RUN: images[0 .. count) of one model are to be run, and no longer belong to the queue. QUEUE_HELP:
 * team is joined, and to be helped by team_help() until queue_has_work(). QUEUE_STOP: closed and nothing left for this
 * worker. */
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
/* Neither will it, but its room stays taken: what is found in it will come in its place. */
void queue_kept(struct queue *queue);

/* What one image cost a worker, all stages, if it failed or was dropped too; feeds the estimate of queue_retry_after(). */
void queue_record_cost(struct queue *queue, double seconds);
/* Seconds until what waits now should have been served, at least 1. */
unsigned queue_retry_after(struct queue *queue);

/* What is in it now. */
struct queue_state {
    size_t waiting;                 /* images: those below, those being decoded, and room reserved for more */
    size_t pending[PRIORITY_COUNT]; /* images to decode */
    size_t decoding, ready;         /* images */
    size_t idle;                    /* workers */
    size_t bytes;                   /* of uploads */
    double image_seconds;           /* what an image costs a worker, on average */
};
void queue_look(struct queue *queue, struct queue_state *state);

/* Takes out images to decode for which nobody waits any more, linked by `next`; they are the caller's, to be finished. These
 * are those whose deadline has passed and, of the first 64 of each priority, those whose client has left. */
struct job_image *queue_take_stale(struct queue *queue, int64_t now_us);

/* No more jobs will come; what waits is still served. */
void queue_close(struct queue *queue);

#endif
