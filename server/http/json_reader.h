/*
 * json_reader.h - JSON (RFC 8259), strictly, one value after the other, straight from the bytes that were sent.
 *
 * For bodies that carry tensors: a tree takes 64 bytes for each number, this takes none. Nothing is allocated, nothing
 * is copied, nesting is bounded, and what is not JSON (trailing commas, 01, NaN, raw control characters, bytes that are
 * no UTF-8, lone surrogates, bytes after the value) is a fault. A reader is a plain value: a copy of it can read from
 * the same place again, for members that must wait for others. The text must outlive its readers.
 *
 * A function returns false for a fault (`why` says which, `at` is where; every later call returns false too), or
 * without one: the value at hand is of another type (nothing is consumed), the list or object is over.
 */
#ifndef SERVER_HTTP_JSON_READER_H
#define SERVER_HTTP_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    JSON_MAX_DEPTH = 64,  /* lists and objects in each other */
    JSON_MAX_NUMBER = 127 /* characters of a number that is read as a float */
};

struct json_reader {
    const char *text, *at, *end;
    const char *why; /* a literal; NULL: no fault */
    unsigned depth;
    bool first;      /* of a list or an object: no comma before what comes next */
};

enum json_type { JSON_INVALID, JSON_OBJECT, JSON_LIST, JSON_STRING, JSON_NUMBER, JSON_BOOL, JSON_NULL };

/* As spelt in the text: a string without its quotes, or a number. */
struct json_text {
    const char *at;
    size_t length;
    bool escaped; /* there are escapes in it */
};

void json_reader_begin(struct json_reader *reader, const void *text, size_t length);
/* Whether nothing but white space is left. */
bool json_reader_end(struct json_reader *reader);
/* Bytes before `at`. */
size_t json_reader_offset(const struct json_reader *reader);

/* The type of the value at hand, by its first character. JSON_INVALID: a fault. */
enum json_type json_reader_peek(struct json_reader *reader);
/* Enters a list or an object. */
bool json_reader_open(struct json_reader *reader, enum json_type type);
/* Whether there is one more; false and no fault: the list or object is left. Its value must be read next. */
bool json_reader_next_element(struct json_reader *reader);
bool json_reader_next_member(struct json_reader *reader, struct json_text *name);

bool json_reader_string(struct json_reader *reader, struct json_text *text);
bool json_reader_number(struct json_reader *reader, struct json_text *text);
bool json_reader_bool(struct json_reader *reader, bool *value);
/* Any value, whole; it is checked all the same. */
bool json_reader_skip(struct json_reader *reader);

/* Writes the string without its escapes, not terminated; text->length bytes always suffice. False: it does not fit. */
bool json_text_copy(const struct json_text *text, char *out, size_t capacity, size_t *length);
/* string: of at most 64 bytes. */
bool json_text_is(const struct json_text *text, const char *string);
/* The number as digits alone: no sign, fraction or exponent. False: spelt otherwise, or above max. */
bool json_text_unsigned(const struct json_text *text, uint64_t max, uint64_t *value);
/* The nearest float. False: infinite, or longer than JSON_MAX_NUMBER. */
bool json_text_float(const struct json_text *text, float *value);

#endif
