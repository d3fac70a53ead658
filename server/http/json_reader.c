/* json_reader.c - a pull parser: the grammar of RFC 8259, one function for each thing that can come next. */
#include "server/http/json_reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/hex.h"
#include "server/utf8.h"

void json_reader_begin(struct json_reader *reader, const void *text, size_t length)
{
    *reader = (struct json_reader){.text = text, .at = text, .end = length ? (const char *)text + length : text};
}

size_t json_reader_offset(const struct json_reader *reader)
{
    return (size_t)(reader->at - reader->text);
}

/* The first fault stays. */
static bool fault(struct json_reader *reader, const char *why)
{
    if (!reader->why)
        reader->why = why;
    return false;
}

static void skip_space(struct json_reader *reader)
{
    while (reader->at < reader->end &&
           (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
        reader->at++;
}

bool json_reader_end(struct json_reader *reader)
{
    if (reader->why)
        return false;
    skip_space(reader);
    return reader->at == reader->end || fault(reader, "something follows the value");
}

enum json_type json_reader_peek(struct json_reader *reader)
{
    if (reader->why)
        return JSON_INVALID;
    skip_space(reader);
    if (reader->at == reader->end) {
        fault(reader, "it ends where a value belongs");
        return JSON_INVALID;
    }
    switch (*reader->at) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_LIST;
    case '"':
        return JSON_STRING;
    case 't':
    case 'f':
        return JSON_BOOL;
    case 'n':
        return JSON_NULL;
    default:
        if (*reader->at == '-' || (*reader->at >= '0' && *reader->at <= '9'))
            return JSON_NUMBER;
        fault(reader, "a value belongs here");
        return JSON_INVALID;
    }
}

/* ---- lists and objects ---- */

bool json_reader_open(struct json_reader *reader, enum json_type type)
{
    if (json_reader_peek(reader) != type)
        return false;
    if (reader->depth == JSON_MAX_DEPTH)
        return fault(reader, "lists and objects are nested deeper than 64 levels");
    reader->at++;
    reader->depth++;
    reader->first = true;
    return true;
}

/* Past the comma before the next element or member, or past the bracket that closes. */
static bool next(struct json_reader *reader, char closing)
{
    if (reader->why)
        return false;
    skip_space(reader);
    if (reader->at == reader->end)
        return fault(reader, closing == ']' ? "it ends within a list" : "it ends within an object");
    if (*reader->at == closing) {
        reader->at++;
        reader->depth--;
        reader->first = false; /* what encloses it has had this one */
        return false;
    }
    if (!reader->first) {
        if (*reader->at != ',')
            return fault(reader, closing == ']' ? "a comma or ] belongs here" : "a comma or } belongs here");
        reader->at++;
    }
    reader->first = false;
    return true;
}

bool json_reader_next_element(struct json_reader *reader)
{
    return next(reader, ']');
}

bool json_reader_next_member(struct json_reader *reader, struct json_text *name)
{
    if (!next(reader, '}'))
        return false;
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != '"')
        return fault(reader, "a member's name in double quotes belongs here");
    if (!json_reader_string(reader, name))
        return false;
    skip_space(reader);
    if (reader->at == reader->end || *reader->at != ':')
        return fault(reader, "a colon belongs here");
    reader->at++;
    return true;
}

/* ---- strings ---- */

/* Bytes of the character at text; 0: no UTF-8, or a control character, which must be escaped. */
static size_t character_length(const char *text, const char *end)
{
    return (unsigned char)*text < 0x20 ? 0 : utf8_length(text, (size_t)(end - text));
}

/* The value of \uXXXX at p, or -1. */
static int32_t hex_escape(const char *p, const char *end)
{
    int32_t value = 0;
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
        return -1;
    for (size_t i = 2; i < 6; i++) {
        const int digit = hex_digit(p[i]);
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";

/* Bytes of the escape at p and the character it means, or 0. A surrogate counts with its other half only. */
static size_t escape_length(const char *p, const char *end, uint32_t *character)
{
    const char *letter = end - p >= 2 ? memchr(letters, p[1], sizeof letters - 1) : NULL;
    if (letter) {
        *character = (uint32_t)meanings[letter - letters];
        return 2;
    }
    const int32_t high = hex_escape(p, end);
    if (high < 0 || (high >= 0xDC00 && high <= 0xDFFF))
        return 0;
    if (high < 0xD800 || high > 0xDFFF) {
        *character = (uint32_t)high;
        return 6;
    }
    const int32_t low = hex_escape(p + 6, end);
    if (low < 0xDC00 || low > 0xDFFF)
        return 0;
    *character = 0x10000u + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
    return 12;
}

/* Past the characters that stand for themselves in one byte. */
static const char *skip_plain(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

bool json_reader_string(struct json_reader *reader, struct json_text *text)
{
    if (json_reader_peek(reader) != JSON_STRING)
        return false;
    const char *start = reader->at + 1;
    bool escaped = false;
    for (reader->at = skip_plain(start, reader->end); reader->at < reader->end && *reader->at != '"';
         reader->at = skip_plain(reader->at, reader->end)) {
        uint32_t character;
        const bool escape = *reader->at == '\\';
        const size_t length = escape ? escape_length(reader->at, reader->end, &character)
                                     : character_length(reader->at, reader->end);
        if (!length)
            return fault(reader, escape                               ? "a string has an escape that JSON does not know"
                                 : (unsigned char)*reader->at < 0x20 ? "a string has a control character in it"
                                                                     : "a string has bytes that are not UTF-8");
        escaped |= escape;
        reader->at += length;
    }
    if (reader->at == reader->end)
        return fault(reader, "it ends within a string");
    *text = (struct json_text){start, (size_t)(reader->at - start), escaped};
    reader->at++;
    return true;
}

static size_t put_utf8(char out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    const size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00u >> length & 0xF0) | c);
    return length;
}

bool json_text_copy(const struct json_text *text, char *out, size_t capacity, size_t *length)
{
    const char *at = text->at, *end = text->at + text->length;
    size_t used = 0;
    while (at < end) {
        const char *escape = text->escaped ? memchr(at, '\\', (size_t)(end - at)) : NULL;
        const size_t plain = (size_t)((escape ? escape : end) - at);
        if (plain > capacity - used)
            return false;
        memcpy(out + used, at, plain);
        used += plain;
        at += plain;
        if (escape) {
            char bytes[4];
            uint32_t character = 0;
            at += escape_length(escape, end, &character);
            const size_t size = put_utf8(bytes, character);
            if (size > capacity - used)
                return false;
            memcpy(out + used, bytes, size);
            used += size;
        }
    }
    *length = used;
    return true;
}

bool json_text_is(const struct json_text *text, const char *string)
{
    char copy[64];
    size_t length;
    return json_text_copy(text, copy, sizeof copy, &length) && length == strlen(string) &&
           memcmp(copy, string, length) == 0;
}

/* ---- numbers, and what has a name ---- */

static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

bool json_reader_number(struct json_reader *reader, struct json_text *text)
{
    if (json_reader_peek(reader) != JSON_NUMBER)
        return false;
    const char *end = reader->end, *whole = reader->at + (*reader->at == '-'), *p = skip_digits(whole, end);
    bool sound = p > whole && (*whole != '0' || p == whole + 1);
    if (p < end && *p == '.') {
        const char *fraction = p + 1;
        p = skip_digits(fraction, end);
        sound &= p > fraction;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        const char *exponent = p + 1;
        exponent += exponent < end && (*exponent == '+' || *exponent == '-');
        p = skip_digits(exponent, end);
        sound &= p > exponent;
    }
    if (!sound)
        return fault(reader, "a number is not spelt as JSON spells it");
    *text = (struct json_text){reader->at, (size_t)(p - reader->at), false};
    reader->at = p;
    return true;
}

bool json_text_unsigned(const struct json_text *text, uint64_t max, uint64_t *value)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < text->length; i++) {
        const char c = text->at[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(sum, 10u, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(c - '0'), &sum))
            return false;
    }
    if (sum > max)
        return false;
    *value = sum;
    return true;
}

bool json_text_float(const struct json_text *text, float *value)
{
    char copy[JSON_MAX_NUMBER + 1];
    if (text->length > JSON_MAX_NUMBER)
        return false;
    memcpy(copy, text->at, text->length);
    copy[text->length] = '\0';
    const float parsed = strtof(copy, NULL);
    if (!isfinite(parsed))
        return false;
    *value = parsed;
    return true;
}

static bool word(struct json_reader *reader, const char *name)
{
    const size_t length = strlen(name);
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, name, length) != 0)
        return fault(reader, "a value belongs here");
    reader->at += length;
    return true;
}

bool json_reader_bool(struct json_reader *reader, bool *value)
{
    if (json_reader_peek(reader) != JSON_BOOL)
        return false;
    const bool is_true = *reader->at == 't';
    if (!word(reader, is_true ? "true" : "false"))
        return false;
    *value = is_true;
    return true;
}

/* Past a value, or into it where it is a list or an object. */
static bool step(struct json_reader *reader, enum json_type type)
{
    struct json_text text;
    bool truth;
    switch (type) {
    case JSON_OBJECT:
    case JSON_LIST:
        return json_reader_open(reader, type);
    case JSON_STRING:
        return json_reader_string(reader, &text);
    case JSON_NUMBER:
        return json_reader_number(reader, &text);
    case JSON_BOOL:
        return json_reader_bool(reader, &truth);
    case JSON_NULL:
        return word(reader, "null");
    case JSON_INVALID:
        break;
    }
    return false;
}

bool json_reader_skip(struct json_reader *reader)
{
    const unsigned outside = reader->depth;
    uint64_t objects = 0; /* a bit for each level entered, the innermost lowest */
    struct json_text name;
    _Static_assert(JSON_MAX_DEPTH <= 64, "a bit for each level");
    do {
        const enum json_type type = json_reader_peek(reader);
        if (!step(reader, type))
            return false;
        if (type == JSON_OBJECT || type == JSON_LIST)
            objects = objects << 1 | (type == JSON_OBJECT);
        while (reader->depth > outside &&
               !(objects & 1 ? json_reader_next_member(reader, &name) : json_reader_next_element(reader))) {
            if (reader->why)
                return false;
            objects >>= 1;
        }
    } while (reader->depth > outside);
    return true;
}
