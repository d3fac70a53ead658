/*
 * explain.h - turns what an observer sees of one image's run into what callers ask for: one file for each method.
 *
 * A method's struct is filled in by the caller, is the context of the observer that the method makes, and has to
 * outlive the run.
 */
#ifndef ENGINE_EXPLAIN_EXPLAIN_H
#define ENGINE_EXPLAIN_EXPLAIN_H

#include "engine/layers/layers.h"
#include "vit.h"

/* shape.c: see vit_explain_shape(). */
vit_status explain_shape(const vit_model_info *info, const vit_explain *explain, vit_map_shape *shape, vit_error *err);

/* ---- raw.c ---- */

struct raw_map {
    const vit_model_info *info;
    const vit_explain *explain;
    float *map; /* [layers, heads, gh, gw], complete after the run */
};

/* Zeroes the map. */
struct observer raw_observer(struct raw_map *raw);

/* ---- distance.c ---- */

struct distance_map {
    const vit_model_info *info;
    float *table;     /* [gh, 2*gw - 1] of the caller: the distances by row and by column difference */
    float *distances; /* [L, NH], complete after the run */
};

/* Fills in the table and zeroes the distances. */
struct observer distance_observer(struct distance_map *map);

/* ---- rollout.c ---- */

struct rollout {
    const vit_model_info *info;
    float *layers; /* [L, T, T]: the mean attention of each layer */
    float *row, *next; /* [T] */
};

struct observer rollout_observer(struct rollout *rollout);
/* map [gh, gw], once the run is over. */
void rollout_finish(struct rollout *rollout, float *map);

/* ---- legrad.c ---- */

struct legrad {
    const vit_model_info *info;
    const struct block *blocks; /* [L] */
    const void *state;          /* for score_gradient, see arch.h */
    void (*score_gradient)(const void *state, const struct compute *compute, float *memory, float *gradient,
                           const float *mean, size_t class_index, const float *text);
    struct block_tape *tapes;     /* [L], for the run's observer */
    struct block_scratch scratch; /* for block_backward() */
    float *head;                  /* [C + embedding_width], for score_gradient */
    float *gradient;              /* [C] */
    float *relevance;             /* [T] */
};

struct observer legrad_observer(struct legrad *legrad);
/* Once the run is over: map [layers, gh, gw] of one class or, where text [embedding_width] is not NULL, of a text;
 * explain gives the layers. */
void legrad_finish(struct legrad *legrad, const struct compute *compute, const vit_explain *explain,
                   size_t class_index, const float *text, float *map);

#endif
