/*
 * split.c - CLIP's pattern over lower-cased text, after the special tokens are taken out:
 *
 *     's|'t|'re|'ve|'m|'ll|'d | [\p{L}]+ | [\p{N}] | [^\s\p{L}\p{N}]+
 *
 * transformers applies GPT-2's pattern to each piece once more, which changes none. It also turns each run of white
 * space into one blank first; as no piece holds any, leaving it out comes to the same.
 */
#include "engine/text/split.h"

#include <string.h>

#include "engine/text/characters.h"

const char *piece_special(enum piece_kind kind)
{
    return kind == PIECE_BEGIN ? "<|startoftext|>" : "<|endoftext|>";
}

/* Do the points begin with this (ASCII)? */
static bool begins_with(const int32_t *points, size_t count, const char *prefix)
{
    for (size_t i = 0; prefix[i] != '\0'; i++)
        if (i == count || points[i] != prefix[i])
            return false;
    return true;
}

/* 0: it is no contraction's end. */
static size_t contraction_length(const int32_t *points, size_t count)
{
    static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (begins_with(points, count, endings[i]))
            return strlen(endings[i]);
    return 0;
}

/* points [count], the first not blank */
static size_t word_length(const int32_t *points, size_t count)
{
    const enum character_kind kind = character_kind(points[0]);
    size_t length = contraction_length(points, count);
    if (length > 0 || kind == CHARACTER_NUMBER)
        return length > 0 ? length : 1;
    while (length < count && character_kind(points[length]) == kind)
        length++;
    return length;
}

static void find_special(struct split *split)
{
    split->special = PIECE_WORD;
    for (split->end = split->at; split->end < split->count; split->end++)
        for (enum piece_kind kind = PIECE_BEGIN; kind <= PIECE_END; kind++)
            if (begins_with(split->points + split->end, split->count - split->end, piece_special(kind))) {
                split->special = kind;
                return;
            }
}

void split_begin(struct split *split, const int32_t *points, size_t count)
{
    *split = (struct split){.points = points, .count = count};
    find_special(split);
}

bool split_next(struct split *split, struct piece *piece)
{
    while (split->at < split->end && character_kind(split->points[split->at]) == CHARACTER_BLANK)
        split->at++;
    if (split->at < split->end) {
        const int32_t *points = split->points + split->at;
        *piece = (struct piece){PIECE_WORD, points, word_length(points, split->end - split->at)};
        split->at += piece->count;
        return true;
    }
    if (split->special == PIECE_WORD)
        return false;
    *piece = (struct piece){split->special, split->points + split->at, strlen(piece_special(split->special))};
    split->at += piece->count;
    find_special(split);
    return true;
}
