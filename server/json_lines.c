#include "server/json_lines.h"

#include <string.h>

/* Past the string that begins at p. */
static const char *skip_string(const char *p)
{
    for (p++; *p != '\0' && *p != '"'; p++)
        if (*p == '\\' && p[1] != '\0')
            p++;
    return *p == '"' ? p + 1 : p;
}

static void blank(char *from, const char *to)
{
    for (; from < to; from++)
        if (*from != '\n')
            *from = ' ';
}

bool json_blank_comments(char *text, const char **at)
{
    static const char mark[] = "\xEF\xBB\xBF";
    char *p = text;
    if (strncmp(p, mark, 3) == 0)
        blank(p, p + 3);
    while (*p != '\0') {
        char *end = p + 1;
        if (*p == '"') {
            end = p + (skip_string(p) - p);
        } else if (p[0] == '/' && p[1] == '/') {
            end = p + strcspn(p, "\n");
            blank(p, end);
        } else if (p[0] == '/' && p[1] == '*') {
            end = strstr(p + 2, "*/");
            if (end == NULL) {
                *at = p;
                return false;
            }
            end += 2;
            blank(p, end);
        }
        p = end;
    }
    return true;
}

size_t json_line(const char *text, const char *at)
{
    size_t line = 1;
    for (const char *p = text; p < at && *p != '\0'; p++)
        line += *p == '\n';
    return line;
}

/* cJSON takes every control character for white space. */
static const char *skip_space(const char *p)
{
    while (*p != '\0' && (unsigned char)*p <= ' ')
        p++;
    return p;
}

static const char *skip_value(const char *p)
{
    size_t open = 0;
    if (*p == '"')
        return skip_string(p);
    if (*p != '{' && *p != '[') {
        while ((unsigned char)*p > ' ' && strchr(",]}", *p) == NULL)
            p++;
        return p;
    }
    do {
        if (*p == '"') {
            p = skip_string(p);
            continue;
        }
        if (*p == '{' || *p == '[')
            open++;
        else if (*p == '}' || *p == ']')
            open--;
        else if (*p == '\0')
            return p;
        p++;
    } while (open > 0);
    return p;
}

/* The value of the member that starts at p; p itself in a list. */
static const char *member_value(const char *p, bool in_object)
{
    if (!in_object)
        return p;
    p = skip_space(skip_string(p));
    return skip_space(*p == ':' ? p + 1 : p);
}

struct json_place json_locate(const char *text, const size_t *path, size_t depth)
{
    const char *start = skip_space(text), *value = start;
    for (size_t level = 0; level < depth; level++) {
        const bool in_object = *value == '{';
        start = skip_space(value + 1);
        value = member_value(start, in_object);
        for (size_t i = 0; i < path[level]; i++) {
            const char *after = skip_space(skip_value(value));
            start = skip_space(*after == ',' ? after + 1 : after);
            value = member_value(start, in_object);
        }
    }
    return (struct json_place){.start = start, .value = value, .length = (size_t)(skip_value(value) - value)};
}
