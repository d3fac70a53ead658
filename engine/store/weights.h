/*
 * weights.h - tensors by name as fp32 matrices, with their shapes checked and their use recorded.
 *
 * F32 tensors are borrowed from the mapping; F16, BF16 and unaligned ones are converted once into memory that the
 * struct owns. At the end weights_finish() refuses a file with tensors that nothing asked for: a model that carries
 * more than the architecture computes would otherwise run and answer wrongly.
 */
#ifndef ENGINE_STORE_WEIGHTS_H
#define ENGINE_STORE_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/store/safetensors.h"

struct weights {
    struct tensors tensors;
    bool *used;          /* [tensors.count] */
    float **owned;       /* memory behind converted tensors and what is derived from them */
    size_t owned_count, owned_capacity;
    uint64_t parameters; /* numbers in the tensors handed out */
};

/* Takes over *tensors, also on failure. Release with weights_release(), which accepts a zeroed struct. */
vit_status weights_init(struct weights *weights, struct tensors *tensors, vit_error *err);
void weights_release(struct weights *weights);

/* A tensor of exactly this shape. Missing, of another shape or dtype, or with a value that is not finite: an error
 * that names it. */
vit_status weights_get(struct weights *weights, const float **values, const char *name, const size_t *shape,
                       size_t rank, vit_error *err);

/* `parts` tensors of shape [rows, columns] (columns 0: [rows]) stacked into one [parts * rows, columns]. */
vit_status weights_stack(struct weights *weights, const float **values, const char *const *names, size_t parts,
                         size_t rows, size_t columns, vit_error *err);

/* Memory for numbers derived from the weights, 64-byte aligned, that lives as long as they do. NULL: there is none. */
float *weights_allocate(struct weights *weights, size_t count);

/* Gives such memory back, that of a converted tensor included; does nothing for values in the mapping. */
void weights_drop(struct weights *weights, const float *values);

/* Bytes of the memory that the struct owns. */
size_t weights_owned_bytes(const struct weights *weights);

/* VIT_ERR_UNSUPPORTED naming the first tensor that was not asked for and does not end in one of `ignored`. */
vit_status weights_finish(const struct weights *weights, const char *architecture, const char *const *ignored,
                          size_t ignored_count, vit_error *err);

#endif
