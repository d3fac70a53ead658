/*
 * query.h - the query string of a request, strictly: a parameter that is unknown, given twice or out of range is an
 * error that names it and says what is allowed.
 */
#ifndef SERVER_HTTP_QUERY_H
#define SERVER_HTTP_QUERY_H

#include <stdbool.h>
#include <stddef.h>

#include "server/parameters.h"

/* Why a request is refused: everything an error reply says. */
struct problem {
    int status;       /* 0: no problem */
    const char *code; /* a literal */
    char message[600];
};

/* Sets *problem and returns false. */
bool problem_set(struct problem *problem, int status, const char *code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Parses the text after '?' (NULL: none). allowed: the route's parameters, bits 1 << parameter_id. Choices that are not in
 * it have their defaults. */
bool query_parse(const char *text, unsigned allowed, struct choices *choices, struct problem *problem);

/* Decodes %XX (and, in queries, + as a space) of text[0 .. length) into out. False when an escape is broken, the result
 * does not fit, or it would hold a NUL. */
bool percent_decode(const char *text, size_t length, bool plus_is_space, char *out, size_t capacity);

#endif
