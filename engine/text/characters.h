/* characters.h - the characters of a text, as the tokenizer sees them. */
#ifndef ENGINE_TEXT_CHARACTERS_H
#define ENGINE_TEXT_CHARACTERS_H

#include <stddef.h>
#include <stdint.h>

#include "vit_status.h"

/* The classes of the published pattern: \s, \p{L}, \p{N} and the rest (punctuation, symbols, marks, controls). */
enum character_kind { CHARACTER_BLANK, CHARACTER_LETTER, CHARACTER_NUMBER, CHARACTER_OTHER };

enum character_kind character_kind(int32_t point);

/* UTF-8 to code points: composed (NFC), then lower case. *points [*count], to be freed; NULL where there are none.
 * VIT_ERR_ARGUMENT: not UTF-8. VIT_ERR_NO_MEMORY. */
vit_status characters_read(int32_t **points, size_t *count, const char *text, size_t length, vit_error *err);

#endif
