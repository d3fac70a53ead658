/*
 * workers.h - the pool of threads that decode, preprocess and run images, until the queue is closed.
 */
#ifndef SERVER_WORK_WORKERS_H
#define SERVER_WORK_WORKERS_H

#include <stddef.h>
#include <stdint.h>

#include "server/metrics.h"
#include "server/work/model.h"
#include "server/work/queue.h"
#include "vit.h"

struct workers;

/* Starts the threads; queue and metrics are borrowed and outlive the pool. VIT_ERR_NO_MEMORY: every thread has ended, the
 * queue is closed. */
vit_status workers_start(struct workers **workers, struct queue *queue, struct metrics *metrics, size_t threads,
                         vit_error *err);

/* Fails what waits for a worker after its deadline, or its client, has gone, however long all of them will be busy. For any one
 * thread, on which `done` of these jobs is called. */
void workers_sweep(struct workers *workers);

/* Closes the queue, serves what waits in it, joins and frees. Accepts NULL. */
void workers_stop(struct workers *workers);

/* What a worker is doing, and since when on job_clock_us(). */
struct worker_state {
    enum queue_work work; /* QUEUE_STOP: nothing */
    int64_t since_us;
};
/* Of the i-th of `threads` workers; false past the last. Thread-safe. */
bool workers_look(const struct workers *workers, size_t i, struct worker_state *state);

/* For how long the worker that is longest at one piece of work has been at it; 0: none is at work. A piece is one image
 * decoded, or one batch run: seconds at most, unless it is stuck. */
int64_t workers_longest_us(const struct workers *workers);

#endif
