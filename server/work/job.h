/*
 * job.h - one accepted request on its way through the queue and the workers.
 *
 * A job owns the request's bytes and everything computed from them. It is created by the HTTP side, belongs to the
 * queue from queue_push() until `done` is called on a worker's thread, and belongs to the HTTP side again from then on.
 * Its images travel one by one: each is decoded, batched and run on its own, beside images of other jobs, and one
 * bad image fails alone. Whoever finishes the last image calls `done`.
 */
#ifndef SERVER_WORK_JOB_H
#define SERVER_WORK_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vit.h"

struct job;
struct model;
struct words;

enum image_state { IMAGE_PENDING, IMAGE_READY, IMAGE_DONE, IMAGE_FAILED };

/* Why an image has no result, for the one place that maps it to HTTP. */
enum image_failure {
    FAILURE_NONE,
    FAILURE_IMAGE,      /* status and error say what is wrong with the bytes */
    FAILURE_PREPROCESS, /* and here, why the picture in them does not suit the model */
    FAILURE_INTERNAL,   /* no memory, or the engine refused: status and error */
    FAILURE_DEADLINE,   /* the job's deadline passed before its turn */
    FAILURE_CLIENT_GONE
};

enum job_priority { PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_COUNT };

struct job_image {
    struct job *job;
    struct job_image *next;      /* in the queue's list */
    const char *const *texts;    /* [text_count] to embed, in place of an image; NULL: it is one. Borrowed */
    size_t text_count;
    float *vectors;              /* [text_count, D], borrowed: where their embeddings go */
    const uint8_t *bytes;        /* [length], inside job->body; NULL when that is gone */
    size_t length;
    size_t width, height;        /* of bytes that are RGB pixels [height, width, 3]; 0: an encoded picture */
    bool is_tensor;              /* bytes are float [3, H, W], as preprocessing would have made it */
    enum image_state state;
    enum image_failure failure;
    vit_status status;
    vit_error error;
    float *pixels;               /* [3, H, W], from the worker's decode until the batch has run, or with keep_pixels */
    float *logits;               /* [job_class_count()] */
    float *features;             /* [embedding_width] when job->want_features, or with a text tower */
    float *map;                  /* [map_floats] when job->explain.method is not NONE */
    float *distances;            /* [L, NH] when job->want_distances */
    int64_t ready_us;            /* when it became ready for a batch */
    double queue_ms, preprocess_ms, inference_ms;
    size_t batch_size;
};

struct job {
    /* set by the HTTP side before the push, constant afterwards */
    struct model *model;         /* borrowed */
    enum job_priority priority;
    size_t max_pixels;           /* of a picture */
    uint8_t *body;               /* owned; NULL once every image is decoded, but with keep_body */
    size_t body_length;
    bool without_image;          /* its one image has no bytes: it waits for its turn, and `done` does the work */
    bool keep_room;              /* the room of an image without bytes is the owner's once it is done, if it did not fail */
    const struct words *words;   /* the classes of a model with a text tower; NULL: its own, or none. Borrowed */
    const struct words *targets; /* of an explanation in words; NULL: none. Borrowed */
    bool want_features, want_distances;
    bool keep_pixels, keep_body; /* `done` wants the images' pixels, their bytes */
    vit_explain explain;
    size_t map_floats;           /* 0 without explanation */
    int client_fd;               /* the suspended connection's socket, open until `done` returns; -1: none */
    int64_t accepted_us, deadline_us; /* CLOCK_MONOTONIC */
    double waited_ms;            /* before it was accepted, for its body to be read; part of its images' queue_ms */
    void (*done)(struct job *job);    /* exactly once, when every image is done or failed; on a worker's thread, or that of
                                         workers_sweep() */
    void *owner;                 /* for done */

    atomic_size_t undecoded;     /* images whose bytes are still needed; the body is freed when none is */
    atomic_size_t unfinished;    /* images without a result yet */
    size_t image_count;
    struct job_image images[];
};

/* A job with image_count empty images, all pending; body is taken over. NULL when memory is short (body not freed). */
struct job *job_create(uint8_t *body, size_t body_length, size_t image_count);
/* Frees the job, its body and all results; accepts NULL. */
void job_free(struct job *job);

/* Whether nobody waits for the result any more. Half-closing counts as leaving: from here, a client that shut down its
 * writing side cannot be told from one whose process has ended. Only for the owner of an unfinished image. */
bool job_client_gone(const struct job *job);
/* The same of a socket for which there is no job yet. */
bool job_socket_left(int fd);

/* The classes that its images are scored for: their number, and the label of one. */
size_t job_class_count(const struct job *job);
const char *job_class_label(const struct job *job, size_t index);

/* Microseconds of CLOCK_MONOTONIC. */
int64_t job_clock_us(void);

#endif
