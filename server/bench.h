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

/* Texts to embed. */
struct bench_texts {
    const char *const *texts;
    size_t count;
};

/* How to run: each of the threads its own batches, as busy workers do, or all of them together one batch, as one worker
 * and idle ones do. */
struct bench_way {
    size_t threads, batch;
    bool together;
    const struct bench_image *image; /* NULL: forward passes alone */
    const struct bench_texts *texts; /* a batch is these texts, and `batch` 1; NULL: images */
};

/* Seconds of a clock that only goes forward. */
double bench_now(void);
/* Sorts the values. */
double bench_median(double *values, size_t count);

/* bench_runs.c: the median seconds of a batch; of several threads' medians the mean. false, with a line on standard error,
 * when something fails. */
bool bench_run(const vit_model *model, const struct bench_way *way, double *seconds);
/* Operations in a forward pass of one image, or of texts (not NULL), and the least seconds that each stage took of
 * several passes. */
bool bench_profile(const vit_model *model, const struct bench_texts *texts, double *flops,
                   double seconds[VIT_STAGE_COUNT]);

/* bench_texts.c: prints how fast the text tower is on one thread and on all, `peak` being the operations per second of
 * one, and adds it to `json`; false, with a line on standard error, when something fails. */
bool bench_text_tower(const vit_model *model, size_t threads, double peak, cJSON *json);

/* bench_explain.c: prints a table, and adds it to `json`; false, with a line on standard error, when something fails. */
bool bench_explanations(const vit_model *model, cJSON *json);

#endif
