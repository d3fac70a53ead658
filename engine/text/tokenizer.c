/*
 * tokenizer.c - see tokenizer.h. The stages, each in its own file:
 *
 *     characters.c  bytes -> code points, composed (NFC) and in lower case
 *     split.c       code points -> words, numbers' digits, runs of symbols
 *     bpe.c         each of these -> tokens, by the merges of vocabulary.c
 */
#include "engine/text/tokenizer.h"

#include <stdlib.h>

#include "engine/base/error.h"
#include "engine/text/bpe.h"
#include "engine/text/characters.h"
#include "engine/text/split.h"
#include "engine/text/vocabulary.h"

struct tokenizer {
    struct vocabulary vocabulary;
};

vit_status tokenizer_open(struct tokenizer **tokenizer, const char *folder, size_t vocabulary_size, vit_error *err)
{
    struct tokenizer *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the tokenizer");
    vit_status status = vocabulary_load(&opened->vocabulary, folder, vocabulary_size, err);
    if (status != VIT_OK) {
        tokenizer_free(opened);
        return status;
    }
    *tokenizer = opened;
    return VIT_OK;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    vocabulary_release(&tokenizer->vocabulary);
    free(tokenizer);
}

/* The tokens between begin and end: at most `capacity`. No pieces: there is nothing in the text. */
static vit_status encode_pieces(const struct vocabulary *vocabulary, struct split *split, int32_t *ids, size_t capacity,
                                size_t *count, vit_error *err)
{
    struct bpe bpe = {.vocabulary = vocabulary};
    struct piece piece;
    vit_status status = VIT_OK;
    if (!split_next(split, &piece))
        return vit_error_set(err, VIT_ERR_ARGUMENT,
                             "the text is empty: it must have a character other than white space");
    *count = 0;
    do {
        if (piece.kind == PIECE_WORD)
            status = bpe_encode(&bpe, piece.points, piece.count, ids, capacity, count, err);
        else if (*count < capacity)
            ids[(*count)++] = piece.kind == PIECE_BEGIN ? vocabulary->begin : vocabulary->end;
    } while (status == VIT_OK && *count < capacity && split_next(split, &piece));
    bpe_release(&bpe);
    return status;
}

vit_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length, int32_t *ids,
                            size_t capacity, size_t *count, vit_error *err)
{
    if (capacity < 2)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "there is room for %zu tokens; begin and end need 2", capacity);
    if (length > TOKENIZER_MAX_BYTES)
        return vit_error_set(err, VIT_ERR_ARGUMENT, "the text has %zu bytes; at most %d are allowed", length,
                             TOKENIZER_MAX_BYTES);
    int32_t *points = NULL;
    size_t point_count = 0, inner = 0;
    vit_status status = characters_read(&points, &point_count, text, length, err);
    if (status != VIT_OK)
        return status;
    struct split split;
    split_begin(&split, points, point_count);
    status = encode_pieces(&tokenizer->vocabulary, &split, ids + 1, capacity - 2, &inner, err);
    free(points);
    if (status != VIT_OK)
        return status;
    ids[0] = tokenizer->vocabulary.begin;
    ids[inner + 1] = tokenizer->vocabulary.end;
    *count = inner + 2;
    return VIT_OK;
}
