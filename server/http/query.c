/* query.c - see query.h; the parameters themselves are in server/parameters.c. */
#include "server/http/query.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/hex.h"

bool problem_set(struct problem *problem, int status, const char *code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem->message, sizeof problem->message, format, arguments);
    va_end(arguments);
    problem->status = status;
    problem->code = code;
    return false;
}

bool percent_decode(const char *text, size_t length, bool plus_is_space, char *out, size_t capacity)
{
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        int c = (unsigned char)text[i];
        if (c == '+' && plus_is_space) {
            c = ' ';
        } else if (c == '%') {
            if (length - i < 3 || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0)
                return false;
            c = hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]);
            i += 2;
        }
        if (!c || used + 1 >= capacity)
            return false;
        out[used++] = (char)c;
    }
    out[used] = '\0';
    return true;
}

static bool unknown(const char *name, unsigned allowed, struct problem *problem)
{
    char names[160] = "none";
    size_t used = 0;
    for (int id = 0; id < PARAMETER_COUNT; id++)
        if (allowed & 1u << id)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", parameters[id].name);
    return problem_set(problem, 400, "unknown_parameter", "unknown query parameter '%.80s'; allowed here: %s", name,
                       names);
}

static bool set(const char *name, const char *value, unsigned allowed, struct choices *choices,
                struct problem *problem)
{
    int id = 0;
    while (id < PARAMETER_COUNT && (!(allowed & 1u << id) || strcmp(parameters[id].name, name) != 0))
        id++;
    if (id == PARAMETER_COUNT)
        return unknown(name, allowed, problem);
    if (choices->given & 1u << id)
        return problem_set(problem, 400, "duplicate_parameter", "query parameter '%s' is given more than once", name);
    choices->given |= 1u << id;
    if (!parameters[id].read(value, choices))
        return problem_set(problem, 400, "invalid_parameter", "query parameter %s: '%.80s' is not allowed, it takes %s",
                           name, value, parameters[id].values);
    return true;
}

bool query_parse(const char *text, unsigned allowed, struct choices *choices, struct problem *problem)
{
    *choices = choices_default();
    while (text && *text) {
        size_t length = strcspn(text, "&");
        const char *equals = memchr(text, '=', length);
        size_t name_length = equals ? (size_t)(equals - text) : length;
        const char *value_text = equals ? equals + 1 : text + length;
        char name[64], value[1024];
        if (!percent_decode(text, name_length, true, name, sizeof name) ||
            !percent_decode(value_text, (size_t)(text + length - value_text), true, value, sizeof value))
            return problem_set(problem, 400, "malformed_query",
                               "the query string has a broken %%-escape, or a value of more than %zu bytes (labels and "
                               "targets may be in the body instead), near '%.40s'", sizeof value - 1, text);
        if (length && !set(name, value, allowed, choices, problem))
            return false;
        text += length + (text[length] == '&');
    }
    return true;
}
