/*
 * trace.h - W3C Trace Context: which trace a request is part of, and which part of it ours is
 * (https://www.w3.org/TR/trace-context/, the header traceparent). Thread-safe.
 */
#ifndef SERVER_HTTP_TRACE_H
#define SERVER_HTTP_TRACE_H

#include <stdbool.h>

enum { TRACEPARENT_LENGTH = 55 };

/* The flags that the specification names, level 2's included; it wants others to go on as 0. */
enum { TRACE_SAMPLED = 1, TRACE_RANDOM_ID = 2 };

/* A zeroed trace is none. */
struct trace {
    char id[33];     /* 32 lower case hexadecimal digits; "": none */
    char parent[17]; /* the caller's span */
    char span[17];   /* ours */
    unsigned char flags;
};

/* Reads traceparent's value (NULL: none came), strictly but for blanks around it: lower case, no id all zeros, no
 * version ff; a version later than 00 may go on after a dash, and of its flags only the sampled one is known. Makes a
 * span. False, with *trace untouched, where there is no such value (the header is then to be ignored) or no random
 * number. The specification wants the header ignored, too, where it came twice: that is for the caller to see. */
bool trace_read(struct trace *trace, const char *header);

/* The header that names our span as the parent, in version 00. The trace must not be none. */
void trace_write(const struct trace *trace, char header[TRACEPARENT_LENGTH + 1]);

#endif
