/* split.h - cutting a text into the pieces whose tokens do not depend on one another. */
#ifndef ENGINE_TEXT_SPLIT_H
#define ENGINE_TEXT_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum piece_kind { PIECE_WORD, PIECE_BEGIN, PIECE_END };

/* A special token as vocab.json and texts have it; PIECE_BEGIN or PIECE_END. */
const char *piece_special(enum piece_kind kind);

struct piece {
    enum piece_kind kind;
    const int32_t *points; /* [count], within the text; never empty */
    size_t count;
};

/* Where the splitting of a text has come to; the text is borrowed. */
struct split {
    const int32_t *points; /* [count] */
    size_t count;
    size_t at;
    size_t end;              /* of what stands before the next special token */
    enum piece_kind special; /* which stands at `end`; PIECE_WORD: none, the text ends */
};

void split_begin(struct split *split, const int32_t *points, size_t count);
/* false: there are no more. White space between pieces is left out. */
bool split_next(struct split *split, struct piece *piece);

#endif
