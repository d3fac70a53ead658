/* bench.h - what the files of `vitd bench` share. */
#ifndef SERVER_BENCH_H
#define SERVER_BENCH_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vit.h"

/* An image file to decode and preprocess before each forward pass. */
struct bench_image {
    const uint8_t *bytes;
    size_t length, max_pixels;
    bool draft; /* see vit_preprocess_decode() */
};

/* How to run: each of the threads its own batches, as busy workers do, or all of them together one batch, as one worker
 * and idle ones do. */
struct bench_way {
    size_t threads, batch;
    bool together;
    const struct bench_image *image; /* NULL: forward passes alone */
};

/* Seconds of a clock that only goes forward. */
double bench_now(void);
/* Sorts the values. */
double bench_median(double *values, size_t count);

/* bench_runs.c: the median seconds of a batch; of several threads' medians the mean. false, with a line on standard error,
 * when something fails. */
bool bench_run(const vit_model *model, const struct bench_way *way, double *seconds);
/* Operations in a forward pass of one image, and the least seconds that each stage took of several passes. */
bool bench_profile(const vit_model *model, double *flops, double seconds[VIT_STAGE_COUNT]);

/* bench_explain.c: prints a table, and adds it to `json`; false, with a line on standard error, when something fails. */
bool bench_explanations(const vit_model *model, cJSON *json);

#endif
