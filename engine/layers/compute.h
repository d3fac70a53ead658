/*
 * compute.h - how a run computes: with which kernels, on how many threads, under which clock.
 *
 * Layers split their work into parts that write to different places; compute_parts() hands them to the team, or runs them
 * one after the other where there is none. How the work is split never shows in a result.
 */
#ifndef ENGINE_LAYERS_COMPUTE_H
#define ENGINE_LAYERS_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/math/gemm.h"
#include "engine/math/kernels/kernels.h"
#include "engine/math/packed.h"
#include "vit.h"

/* Where a run spends its time; of the calling thread, without a team. */
struct profile {
    bool counts_only; /* products write zeros instead of computing */
    double flops;     /* in products, 2 for each multiply-add */
    double seconds[VIT_STAGE_COUNT];
    vit_stage stage;  /* now */
    double since;     /* clock_seconds() */
};

/* Fixed for one run of one session. */
struct compute {
    const struct kernels *kernels;
    float *scratch;          /* the calling thread's; others of the team bring their own */
    const vit_team *team;    /* NULL: the calling thread alone */
    struct profile *profile; /* NULL except in benchmarks */
};

/* Calls function(argument, i, scratch) for every i < parts. */
void compute_parts(const struct compute *compute, size_t parts,
                   void (*function)(void *argument, size_t index, float *scratch), void *argument);
/* Calls function(argument, first, count, scratch) for ranges that make up 0 .. rows - 1, one for each thread. */
void compute_rows(const struct compute *compute, size_t rows,
                  void (*function)(void *argument, size_t first, size_t count, float *scratch), void *argument);

/* c [rows, b->n] (+)= factor a [rows, k] b, with scratch of packed_scratch(); and OpenBLAS's products. */
void compute_packed(const struct compute *compute, const struct packed *b, float *c, size_t ldc, const float *a, size_t lda,
                    float factor, size_t rows, bool add, float *scratch);
void compute_gemm(const struct compute *compute, const struct gemm *gemm);

/* Time passes for `stage` from now on; returns the one it passed for. */
vit_stage compute_enter(const struct compute *compute, vit_stage stage);

#endif
