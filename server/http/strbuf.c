/* strbuf.c - text that grows by doubling, and the JSON spelling of strings and numbers. */
#include "server/http/strbuf.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/utf8.h"

void strbuf_release(struct strbuf *buffer)
{
    free(buffer->data);
    *buffer = (struct strbuf){0};
}

/* Room for `more` bytes and the terminator. */
static bool grow(struct strbuf *buffer, size_t more)
{
    if (buffer->failed)
        return false;
    if (more < buffer->capacity - buffer->length)
        return true;
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity - buffer->length <= more) {
        if (capacity > SIZE_MAX / 2) {
            buffer->failed = true;
            return false;
        }
        capacity *= 2;
    }
    char *data = realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return false;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void strbuf_add(struct strbuf *buffer, const void *bytes, size_t length)
{
    if (!grow(buffer, length))
        return;
    if (length)
        memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void strbuf_text(struct strbuf *buffer, const char *text)
{
    strbuf_add(buffer, text, strlen(text));
}

void strbuf_printf(struct strbuf *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        buffer->failed = true;
        return;
    }
    if (!grow(buffer, (size_t)length))
        return;
    va_start(arguments, format);
    vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

void strbuf_json_string(struct strbuf *buffer, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    strbuf_add(buffer, "\"", 1);
    while (*at) {
        const unsigned char *plain = at;
        while (*at >= 0x20 && *at < 0x7F && *at != '"' && *at != '\\')
            at++;
        strbuf_add(buffer, plain, (size_t)(at - plain));
        if (!*at)
            break;
        size_t length = utf8_length(at, SIZE_MAX);
        if (length == 1 && (*at == '"' || *at == '\\'))
            strbuf_printf(buffer, "\\%c", *at);
        else if (length == 1)
            strbuf_printf(buffer, "\\u%04x", *at);
        else if (length)
            strbuf_add(buffer, at, length);
        else
            strbuf_text(buffer, "\xEF\xBF\xBD");
        at += length ? length : 1;
    }
    strbuf_add(buffer, "\"", 1);
}

void strbuf_json_float(struct strbuf *buffer, double value)
{
    char text[32];
    if (!isfinite(value)) {
        strbuf_text(buffer, "null");
        return;
    }
    const int length = strfromd(text, sizeof text, "%.9g", value); /* as snprintf(), without reading a format */
    strbuf_add(buffer, text, (size_t)length);
}

void strbuf_json_floats(struct strbuf *buffer, const float *values, size_t count)
{
    strbuf_add(buffer, "[", 1);
    for (size_t i = 0; i < count; i++) {
        if (i)
            strbuf_add(buffer, ",", 1);
        strbuf_json_float(buffer, (double)values[i]);
    }
    strbuf_add(buffer, "]", 1);
}

static const float *add_nested(struct strbuf *buffer, const float *values, const size_t *shape, size_t dimensions)
{
    if (dimensions == 1) {
        strbuf_json_floats(buffer, values, shape[0]);
        return values + shape[0];
    }
    strbuf_add(buffer, "[", 1);
    for (size_t i = 0; i < shape[0]; i++) {
        if (i)
            strbuf_add(buffer, ",", 1);
        values = add_nested(buffer, values, shape + 1, dimensions - 1);
    }
    strbuf_add(buffer, "]", 1);
    return values;
}

void strbuf_json_nested(struct strbuf *buffer, const float *values, const size_t *shape, size_t dimensions)
{
    add_nested(buffer, values, shape, dimensions);
}

void strbuf_put_size(struct strbuf *buffer, const char *key, size_t value)
{
    strbuf_printf(buffer, ",\"%s\":%zu", key, value);
}

void strbuf_put_text(struct strbuf *buffer, const char *key, const char *value)
{
    strbuf_printf(buffer, ",\"%s\":", key);
    strbuf_json_string(buffer, value ? value : "");
}
