/*
 * safetensors.h - the tensors of a model folder, mapped read-only and checked.
 *
 * Format: github.com/huggingface/safetensors, "Format": 8 bytes of little-endian header length, a JSON header
 * {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}, then the data, which the
 * tensors cover without gap or overlap. Every field is untrusted. A folder holds model.safetensors, or several
 * shards named by the "weight_map" of model.safetensors.index.json.
 *
 * The files must not be changed in place while they are mapped; replace them by rename.
 */
#ifndef ENGINE_STORE_SAFETENSORS_H
#define ENGINE_STORE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "vit_status.h"

enum { TENSOR_MAX_RANK = 8 };

struct tensor {
    char *name;
    const char *dtype; /* "F32", "F16", "BF16", ... as the format spells it; a constant */
    size_t rank, shape[TENSOR_MAX_RANK];
    const uint8_t *data; /* little-endian, possibly unaligned */
    size_t count, bytes; /* numbers, and their size */
};

struct mapping {
    void *address;
    size_t length;
};

struct tensors {
    struct tensor *items; /* sorted by name */
    size_t count, capacity;
    struct mapping *mappings; /* one per file */
    size_t mapping_count;
};

/* Maps every file of the folder. Release with tensors_release(), which accepts a zeroed struct. */
vit_status tensors_open(struct tensors *tensors, const char *folder, vit_error *err);
void tensors_release(struct tensors *tensors);

/* Takes the files' pages out of the process's resident memory; the next read of one brings it back. */
void tensors_forget_pages(const struct tensors *tensors);

/* NULL when there is none of that name. */
const struct tensor *tensors_find(const struct tensors *tensors, const char *name);

/* "[3, 16, 16]" into text. */
void shape_format(char *text, size_t size, const size_t *shape, size_t rank);

#endif
