/*
 * workers.h - the pool of threads that decode, preprocess and run images, until the queue is closed.
 */
#ifndef SERVER_WORK_WORKERS_H
#define SERVER_WORK_WORKERS_H

#include <stddef.h>

#include "server/metrics.h"
#include "server/registry.h"
#include "server/work/queue.h"
#include "vit.h"

struct workers;

/* Everything is borrowed and outlives the pool. */
struct workers_setup {
    const struct registry *registry;
    struct queue *queue;
    struct metrics *metrics;
    size_t threads;
    size_t max_batch;
    size_t max_pixels;
};

/* Starts the threads and returns when each has allocated its sessions and run every model once. On failure every
 * thread has ended; the queue is closed. */
vit_status workers_start(struct workers **workers, const struct workers_setup *setup, vit_error *err);

/* Closes the queue, serves what waits in it, joins and frees. Accepts NULL. */
void workers_stop(struct workers *workers);

#endif
