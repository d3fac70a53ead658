/*
 * characters.c - UTF-8 to composed, lower-case code points, with the tables of utf8proc.
 *
 * NFC is done in its three steps rather than by utf8proc_map(): that sorts combining marks by exchanging neighbours, so
 * that 60 kB of marks in the wrong order would take seconds. Here it is a counting sort, and everything is linear.
 */
#include "engine/text/characters.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"

enum { DOTTED_CAPITAL_I = 0x130, DOT_ABOVE = 0x307, NEXT_LINE = 0x85 };
enum { COMBINING_CLASSES = 256 };

enum character_kind character_kind(int32_t point)
{
    switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return CHARACTER_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return CHARACTER_NUMBER;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return CHARACTER_BLANK;
    default: return (point >= '\t' && point <= '\r') || point == NEXT_LINE ? CHARACTER_BLANK : CHARACTER_OTHER;
    }
}

/* The canonical decomposition of a character; how many code points it is, of which at most `room` are written. */
static size_t decompose(int32_t point, int32_t *points, size_t room)
{
    int boundary = 0;
    return (size_t)utf8proc_decompose_char(point, points, (utf8proc_ssize_t)room, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE,
                                           &boundary);
}

/* How many code points the text decomposes to. */
static vit_status measure(const uint8_t *text, size_t length, size_t *count, vit_error *err)
{
    *count = 0;
    for (size_t at = 0; at < length;) {
        int32_t point;
        const utf8proc_ssize_t bytes = utf8proc_iterate(text + at, (utf8proc_ssize_t)(length - at), &point);
        if (bytes <= 0)
            return vit_error_set(err, VIT_ERR_ARGUMENT, "the text is not UTF-8: byte %zu (0x%02x) begins no character",
                                 at, text[at]);
        *count += decompose(point, NULL, 0);
        at += (size_t)bytes;
    }
    return VIT_OK;
}

static size_t combining_class(int32_t point)
{
    return (size_t)utf8proc_get_property(point)->combining_class;
}

/* Stable, by combining class. */
static bool sort_marks(int32_t *marks, size_t count)
{
    size_t place[COMBINING_CLASSES + 1] = {0};
    int32_t *copy = malloc(count * sizeof *copy);
    if (copy == NULL)
        return false;
    memcpy(copy, marks, count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        place[combining_class(copy[i]) + 1]++;
    for (size_t i = 0; i < COMBINING_CLASSES; i++)
        place[i + 1] += place[i];
    for (size_t i = 0; i < count; i++)
        marks[place[combining_class(copy[i])]++] = copy[i];
    free(copy);
    return true;
}

/* Each run of marks (of a class other than 0) into the canonical order. */
static bool order_marks(int32_t *points, size_t count)
{
    for (size_t at = 0; at < count;) {
        size_t end = at, last = 0, class;
        bool ordered = true;
        while (end < count && (class = combining_class(points[end])) != 0) {
            ordered = ordered && class >= last;
            last = class;
            end++;
        }
        if (!ordered && !sort_marks(points + at, end - at))
            return false;
        at = end + 1;
    }
    return true;
}

/*
 * Each character alone, as Rust's char::to_lowercase() has it: no final sigma. Only U+0130 becomes two, and in composed
 * text it stands for two that were decomposed, so there is room; from the end, so that nothing is overwritten unread.
 */
static size_t lower_case(int32_t *points, size_t count)
{
    size_t longer = count;
    for (size_t i = 0; i < count; i++)
        longer += points[i] == DOTTED_CAPITAL_I;
    for (size_t from = count, to = longer; from-- > 0;) {
        if (points[from] == DOTTED_CAPITAL_I)
            points[--to] = DOT_ABOVE;
        points[--to] = utf8proc_tolower(points[from]);
    }
    return longer;
}

vit_status characters_read(int32_t **points, size_t *count, const char *text, size_t length, vit_error *err)
{
    const uint8_t *bytes = (const uint8_t *)text;
    size_t decomposed = 0, filled = 0;
    vit_status status = measure(bytes, length, &decomposed, err);
    *points = NULL;
    *count = 0;
    if (status != VIT_OK || decomposed == 0)
        return status;
    int32_t *read = malloc(decomposed * sizeof *read);
    if (read == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a text of %zu bytes", length);
    for (size_t at = 0; at < length;) {
        int32_t point;
        at += (size_t)utf8proc_iterate(bytes + at, (utf8proc_ssize_t)(length - at), &point);
        filled += decompose(point, read + filled, decomposed - filled);
    }
    if (!order_marks(read, decomposed)) {
        free(read);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a text of %zu bytes", length);
    }
    const size_t composed = (size_t)utf8proc_normalize_utf32(read, (utf8proc_ssize_t)decomposed,
                                                             UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    *points = read;
    *count = lower_case(read, composed);
    return VIT_OK;
}
