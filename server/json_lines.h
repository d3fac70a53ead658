/*
 * json_lines.h - what cJSON does not do for a configuration file: comments, and the line of a value.
 */
#ifndef SERVER_JSON_LINES_H
#define SERVER_JSON_LINES_H

#include <stdbool.h>
#include <stddef.h>

/* Overwrites // and block comments, and a leading byte order mark, with spaces; newlines stay, so that line numbers
 * do. false: a block comment has no end; *at is where it begins. */
bool json_blank_comments(char *text, const char **at);

/* 1 for the first line. */
size_t json_line(const char *text, const char *at);

/* A member or element inside a text that cJSON accepted. */
struct json_place {
    const char *start; /* the member's key, or the element */
    const char *value; /* the value's first character */
    size_t length;     /* of the value as written */
};
/* Follows positions (0 is the first member or element) down from the root: {2, 0} is the third member's first.
 * Positions rather than names, because a duplicate key has the name of the first. */
struct json_place json_locate(const char *text, const size_t *path, size_t depth);

#endif
