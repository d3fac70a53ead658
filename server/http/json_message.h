/*
 * json_message.h - a JSON body whose members are known by name, read in one pass over json_reader.h.
 *
 * A table says which members an object has and what reads each; each may come once, in any order. Whatever is refused
 * is refused with its place and what is allowed there: "inputs[0].shape[1]: found -3, allowed is ...". Functions that
 * return bool return false with a 400 in *problem, and the message is not read any further. It owns nothing.
 */
#ifndef SERVER_HTTP_JSON_MESSAGE_H
#define SERVER_HTTP_JSON_MESSAGE_H

#include "server/http/json_reader.h"
#include "server/http/query.h"

struct json_message {
    struct json_reader reader;
    struct problem *problem;
    char path[96]; /* of the value at hand; "": the body itself */
};

/* Reads the value at hand into what `into` points to. */
typedef bool json_read(struct json_message *message, void *into);

struct json_member {
    const char *name;
    json_read *read;
};

enum json_others { JSON_IGNORE_OTHERS, JSON_REFUSE_OTHERS };

void json_message_begin(struct json_message *message, const void *text, size_t length, struct problem *problem);
/* After the last value: nothing may follow. */
bool json_message_end(struct json_message *message);

/* Appends to the path, and cuts it back to what it was. */
size_t json_message_enter(struct json_message *message, const char *format, ...) __attribute__((format(printf, 2, 3)));
void json_message_leave(struct json_message *message, size_t entered);

/* Return false. refuse: "path: found <the value at hand>, allowed is ..."; say: "path: ...". Where the text is no JSON,
 * that is the problem. */
bool json_message_refuse(struct json_message *message, const char *allowed);
bool json_message_say(struct json_message *message, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A 503. */
bool json_message_no_memory(struct json_message *message);

/* An object; members [count <= 32]. */
bool json_message_object(struct json_message *message, const struct json_member *members, size_t count,
                         enum json_others others, void *into);
/* A list of at most `max` elements; `allowed` says of what it is. */
bool json_message_list(struct json_message *message, const char *allowed, size_t max, json_read *read, void *into);
/* Any value, which is checked and passed over. */
bool json_message_skip(struct json_message *message, void *unused);
/* A string that is names[*choice]. */
bool json_message_choice(struct json_message *message, const char *const *names, size_t count, const char *allowed,
                         int *choice);
/* A string without NUL, terminated. */
bool json_message_string(struct json_message *message, char *out, size_t capacity);
bool json_message_unsigned(struct json_message *message, uint64_t min, uint64_t max, uint64_t *value);
bool json_message_bool(struct json_message *message, bool *value);
/* A string of base64 of one byte or more; out has room for the string as it is spelt. */
bool json_message_base64(struct json_message *message, uint8_t *out, size_t *length);

#endif
