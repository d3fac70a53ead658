/* json_message.c - see json_message.h. */
#include "server/http/json_message.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/http/base64.h"

void json_message_begin(struct json_message *message, const void *text, size_t length, struct problem *problem)
{
    *message = (struct json_message){.problem = problem};
    json_reader_begin(&message->reader, text, length);
}

/* Whether the text has been JSON so far. */
static bool is_sound(struct json_message *message)
{
    if (!message->reader.why)
        return true;
    return problem_set(message->problem, 400, "malformed_json", "the JSON is malformed at byte %zu: %s",
                       json_reader_offset(&message->reader), message->reader.why);
}

bool json_message_end(struct json_message *message)
{
    json_reader_end(&message->reader);
    return is_sound(message);
}

/* ---- where, and what is wrong ---- */

size_t json_message_enter(struct json_message *message, const char *format, ...)
{
    const size_t entered = strlen(message->path);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->path + entered, sizeof message->path - entered, format, arguments);
    va_end(arguments);
    return entered;
}

void json_message_leave(struct json_message *message, size_t entered)
{
    message->path[entered] = '\0';
}

bool json_message_say(struct json_message *message, const char *format, ...)
{
    char text[400];
    va_list arguments;
    if (!is_sound(message))
        return false;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return problem_set(message->problem, 400, "invalid_request", "%s: %s", *message->path ? message->path : "the body",
                       text);
}

/* What the value at hand is, in a few words. */
static void describe(struct json_reader *reader, char *out, size_t capacity)
{
    enum { SHOWN = 40 };
    static const char *const types[] = {[JSON_OBJECT] = "an object", [JSON_LIST] = "a list", [JSON_NULL] = "null"};
    const enum json_type type = json_reader_peek(reader);
    struct json_text text = {.at = ""};
    bool truth = false;
    if (type == JSON_STRING)
        json_reader_string(reader, &text);
    else if (type == JSON_NUMBER)
        json_reader_number(reader, &text);
    else if (type == JSON_BOOL)
        json_reader_bool(reader, &truth);
    const char *quote = type == JSON_STRING ? "\"" : "", *more = text.length > SHOWN ? "..." : "";
    if (type == JSON_STRING || type == JSON_NUMBER)
        snprintf(out, capacity, "%s%.*s%s%s", quote, *more ? SHOWN : (int)text.length, text.at, more, quote);
    else
        snprintf(out, capacity, "%s", type == JSON_BOOL ? (truth ? "true" : "false") : type ? types[type] : "nothing");
}

bool json_message_refuse(struct json_message *message, const char *allowed)
{
    char found[64];
    if (!message->reader.why)
        describe(&message->reader, found, sizeof found);
    return is_sound(message) && json_message_say(message, "found %s, allowed is %s", found, allowed);
}

/* The same of the value that `start` is at, which has been read since. */
static bool refuse_at(struct json_message *message, const struct json_reader *start, const char *allowed)
{
    if (!message->reader.why)
        message->reader = *start;
    return json_message_refuse(message, allowed);
}

bool json_message_no_memory(struct json_message *message)
{
    return problem_set(message->problem, 503, "out_of_memory", "the server is short of memory; retry later");
}

/* ---- objects and lists ---- */

static size_t find_member(const struct json_text *name, const struct json_member *members, size_t count)
{
    size_t i = 0;
    while (i < count && !json_text_is(name, members[i].name))
        i++;
    return i;
}

static bool refuse_other(struct json_message *message, const struct json_text *name, const struct json_member *members,
                         size_t count)
{
    char names[200] = "";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", members[i].name);
    return json_message_say(message, "unknown member \"%.*s\", allowed here: %s",
                            name->length > 40 ? 40 : (int)name->length, name->at, names);
}

bool json_message_object(struct json_message *message, const struct json_member *members, size_t count,
                         enum json_others others, void *into)
{
    struct json_text name;
    uint32_t seen = 0;
    if (!json_reader_open(&message->reader, JSON_OBJECT))
        return json_message_refuse(message, "an object");
    while (json_reader_next_member(&message->reader, &name)) {
        const size_t i = find_member(&name, members, count);
        if (i == count) {
            if (others == JSON_REFUSE_OTHERS)
                return refuse_other(message, &name, members, count);
            json_reader_skip(&message->reader);
            continue;
        }
        const size_t entered = json_message_enter(message, "%s%s", *message->path ? "." : "", members[i].name);
        if (seen & UINT32_C(1) << i)
            return json_message_say(message, "given more than once");
        seen |= UINT32_C(1) << i;
        if (!members[i].read(message, into))
            return false;
        json_message_leave(message, entered);
    }
    return is_sound(message);
}

bool json_message_list(struct json_message *message, const char *allowed, size_t max, json_read *read, void *into)
{
    if (!json_reader_open(&message->reader, JSON_LIST))
        return json_message_refuse(message, allowed);
    for (size_t i = 0; json_reader_next_element(&message->reader); i++) {
        if (i == max)
            return json_message_say(message, "found more than %zu, allowed is %s", max, allowed);
        const size_t entered = json_message_enter(message, "[%zu]", i);
        if (!read(message, into))
            return false;
        json_message_leave(message, entered);
    }
    return is_sound(message);
}

/* ---- values ---- */

bool json_message_skip(struct json_message *message, void *unused)
{
    (void)unused;
    json_reader_skip(&message->reader);
    return is_sound(message);
}

bool json_message_choice(struct json_message *message, const char *const *names, size_t count, const char *allowed,
                         int *choice)
{
    const struct json_reader start = message->reader;
    struct json_text text;
    if (json_reader_string(&message->reader, &text))
        for (size_t i = 0; i < count; i++)
            if (json_text_is(&text, names[i])) {
                *choice = (int)i;
                return true;
            }
    return refuse_at(message, &start, allowed);
}

bool json_message_string(struct json_message *message, char *out, size_t capacity)
{
    const struct json_reader start = message->reader;
    struct json_text text;
    size_t length;
    char allowed[64];
    if (json_reader_string(&message->reader, &text) && json_text_copy(&text, out, capacity - 1, &length) &&
        !memchr(out, '\0', length)) {
        out[length] = '\0';
        return true;
    }
    snprintf(allowed, sizeof allowed, "a string of at most %zu bytes, none of them NUL", capacity - 1);
    return refuse_at(message, &start, allowed);
}

bool json_message_unsigned(struct json_message *message, uint64_t min, uint64_t max, uint64_t *value)
{
    const struct json_reader start = message->reader;
    struct json_text text;
    uint64_t found;
    char allowed[80];
    if (json_reader_number(&message->reader, &text) && json_text_unsigned(&text, max, &found) && found >= min) {
        *value = found;
        return true;
    }
    snprintf(allowed, sizeof allowed, "a whole number from %" PRIu64 " to %" PRIu64, min, max);
    return refuse_at(message, &start, allowed);
}

bool json_message_bool(struct json_message *message, bool *value)
{
    return json_reader_bool(&message->reader, value) || json_message_refuse(message, "true or false");
}

/* Most tools break base64 into lines. */
static size_t without_line_breaks(char *text, size_t length)
{
    size_t kept = 0;
    if (!memchr(text, '\n', length))
        return length;
    for (size_t i = 0; i < length; i++)
        if (text[i] != '\n' && text[i] != '\r')
            text[kept++] = text[i];
    return kept;
}

bool json_message_base64(struct json_message *message, uint8_t *out, size_t *length)
{
    const struct json_reader start = message->reader;
    struct json_text text;
    size_t spelt, sound;
    if (!json_reader_string(&message->reader, &text) || !text.length)
        return refuse_at(message, &start, "a picture as a string of base64");
    json_text_copy(&text, (char *)out, text.length, &spelt);
    spelt = without_line_breaks((char *)out, spelt);
    return base64_decode(out, length, (const char *)out, spelt, &sound) ||
           json_message_say(message,
                            "not base64 after %zu of its %zu characters, allowed are A-Z a-z 0-9 + / in groups of "
                            "four, the last one filled up with =",
                            sound, spelt);
}
