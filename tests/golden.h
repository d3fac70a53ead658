/*
 * golden.h - reads the expected tensors under tests/golden: an 8-byte little-endian length, that many bytes
 * of JSON (name -> dtype, shape, data_offsets), then the data. A reader of its own, so that the engine's does
 * not judge itself.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <stddef.h>

struct golden;

/* NULL if the file cannot be read or is no safetensors file. */
struct golden *golden_open(const char *path);
/* The elements of a tensor, and their number; NULL if there is no tensor of that name and dtype ("F32", "U8",
 * ...). */
const void *golden_get(struct golden *golden, const char *name, const char *dtype, size_t *count);
/* A tensor's number of dimensions, the first `most` of them in shape; 0 if there is no such tensor. */
size_t golden_shape(struct golden *golden, const char *name, size_t *shape, size_t most);
/* The i-th tensor's name, NULL past the last. */
const char *golden_name(struct golden *golden, size_t i);
/* Accepts NULL. */
void golden_free(struct golden *golden);

#endif
