/* bpe.h - byte pair encoding of one word (Sennrich et al. 2016), over bytes. */
#ifndef ENGINE_TEXT_BPE_H
#define ENGINE_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/vocabulary.h"

struct bpe_symbol;

/* One call's working memory, which grows to its longest word. Begin with {.vocabulary = ...}, all else zero. */
struct bpe {
    const struct vocabulary *vocabulary;
    struct bpe_symbol *symbols; /* [room] */
    uint64_t *heap;             /* [2 * room], the least merge first */
    size_t room, waiting;
};

/* Appends the tokens of the word points [length], length at least 1, to ids [*count of capacity], as many as fit. */
vit_status bpe_encode(struct bpe *bpe, const int32_t *points, size_t length, int32_t *ids, size_t capacity,
                      size_t *count, vit_error *err);
void bpe_release(struct bpe *bpe);

#endif
