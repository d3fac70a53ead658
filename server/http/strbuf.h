/*
 * strbuf.h - a growing text buffer for replies. Memory running short is remembered, not reported: callers append
 * without checking and look at `failed` once, at the end.
 */
#ifndef SERVER_HTTP_STRBUF_H
#define SERVER_HTTP_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
    char *data; /* terminated, unless NULL; owned */
    size_t length, capacity;
    bool failed;
};

void strbuf_release(struct strbuf *buffer);
void strbuf_add(struct strbuf *buffer, const void *bytes, size_t length);
void strbuf_text(struct strbuf *buffer, const char *text);
void strbuf_printf(struct strbuf *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void strbuf_json_string(struct strbuf *buffer, const char *text);
/* A JSON number with 9 significant digits, which give a float back exactly; what JSON has no number for is null. */
void strbuf_json_float(struct strbuf *buffer, double value);
/* [v0,v1,...] */
void strbuf_json_floats(struct strbuf *buffer, const float *values, size_t count);
/* Arrays in arrays, outermost dimension first. */
void strbuf_json_nested(struct strbuf *buffer, const float *values, const size_t *shape, size_t dimensions);
/* ,"key":value - the second and later members of an object */
void strbuf_put_size(struct strbuf *buffer, const char *key, size_t value);
void strbuf_put_text(struct strbuf *buffer, const char *key, const char *value);

#endif
