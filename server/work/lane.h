/*
 * lane.h - the images of one model that are ready for a batch, and how they may be batched. Part of a struct model; the
 * queue keeps what is in it, under its mutex.
 */
#ifndef SERVER_WORK_LANE_H
#define SERVER_WORK_LANE_H

#include <stddef.h>
#include <stdint.h>

struct job_image;

struct lane {
    size_t max_batch;     /* images in one run, at most QUEUE_MAX_BATCH; constant */
    int64_t max_delay_us; /* how long a ready image may wait while there is something to decode; constant */

    struct job_image *first, *last; /* in the order in which they became ready */
    size_t count;
    struct lane *previous, *next; /* among the lanes that are not empty */
};

#endif
