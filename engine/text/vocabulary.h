/* vocabulary.h - the tokens of a byte pair encoding and what may be merged, from vocab.json and merges.txt. */
#ifndef ENGINE_TEXT_VOCABULARY_H
#define ENGINE_TEXT_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include "vit_status.h"

/* Of the tokens (left, right); the merges of one left token stand together. */
struct merge {
    int32_t right;
    int32_t token; /* what they become */
    uint32_t rank; /* the lower, the earlier */
};

struct vocabulary {
    size_t size;             /* every id is below */
    int32_t begin, end;      /* <|startoftext|>, <|endoftext|> */
    int32_t bytes[256];      /* the token of a byte within a word */
    int32_t last_bytes[256]; /* and as the last of a word */
    uint32_t *first;         /* [size + 1] the merges of left: first[left] to first[left + 1] */
    struct merge *merges;    /* by left, then by right */
};

/* The vocabulary must be zero; after an error it may be half-filled, and is to be released all the same. */
vit_status vocabulary_load(struct vocabulary *vocabulary, const char *folder, size_t size, vit_error *err);
void vocabulary_release(struct vocabulary *vocabulary);

/* NULL: the two are not merged. */
const struct merge *vocabulary_merge(const struct vocabulary *vocabulary, int32_t left, int32_t right);

#endif
