/* query.c - one row per parameter: its name, how it is read, and what an error says is allowed. */
#include "server/http/query.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
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

/* ---- values ---- */

/* Decimal digits only, at most max. */
static bool read_integer(const char *text, size_t max, size_t *value)
{
    size_t result = 0, length = strlen(text);
    if (!length || length > 9 || strspn(text, "0123456789") != length)
        return false;
    for (; *text; text++)
        result = result * 10 + (size_t)(*text - '0');
    if (result > max)
        return false;
    *value = result;
    return true;
}

static bool read_model(const char *text, struct query *query)
{
    if (!*text || strlen(text) >= sizeof query->model)
        return false;
    memcpy(query->model, text, strlen(text) + 1);
    return true;
}

static bool read_top_k(const char *text, struct query *query)
{
    return read_integer(text, 999999999, &query->top_k);
}

static bool read_function(const char *text, struct query *query)
{
    static const char *const names[] = {[VIT_SOFTMAX] = "softmax", [VIT_SIGMOID] = "sigmoid", [VIT_IDENTITY] = "none"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            query->function = (vit_function)i;
            return true;
        }
    }
    return false;
}

/* The methods that the engine has; one more row for each it learns. */
static bool read_attention(const char *text, struct query *query)
{
    static const char *const names[] = {[VIT_ATTENTION_NONE] = "none", [VIT_ATTENTION_RAW] = "raw"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            query->explain.method = (vit_attention)i;
            return true;
        }
    }
    return false;
}

static bool read_index_or_all(const char *text, int *value)
{
    size_t index;
    if (strcmp(text, "all") == 0)
        *value = VIT_ALL;
    else if (read_integer(text, 99999, &index))
        *value = (int)index;
    else
        return false;
    return true;
}

static bool read_layer(const char *text, struct query *query)
{
    return read_index_or_all(text, &query->explain.layer);
}

static bool read_head(const char *text, struct query *query)
{
    if (strcmp(text, "mean") == 0) {
        query->explain.head = VIT_HEAD_MEAN;
        return true;
    }
    return read_index_or_all(text, &query->explain.head);
}

static const struct parameter {
    enum query_parameter flag;
    const char *name, *values;
    bool (*read)(const char *text, struct query *query);
} parameters[] = {
    {QUERY_MODEL, "model", "the name of a model, as GET /models lists them", read_model},
    {QUERY_TOP_K, "top_k", "an integer from 0 (all classes)", read_top_k},
    {QUERY_FUNCTION, "function_to_apply", "softmax, sigmoid or none", read_function},
    {QUERY_ATTENTION, "attention", "none or raw", read_attention},
    {QUERY_LAYER, "layer", "a layer's index from 0, or all", read_layer},
    {QUERY_HEAD, "head", "a head's index from 0, mean or all", read_head},
};
enum { PARAMETER_COUNT = sizeof parameters / sizeof parameters[0] };

/* ---- the query ---- */

static bool unknown(const char *name, unsigned allowed, struct problem *problem)
{
    char names[160] = "none";
    size_t used = 0;
    for (size_t i = 0; i < PARAMETER_COUNT; i++)
        if (allowed & parameters[i].flag)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", parameters[i].name);
    return problem_set(problem, 400, "unknown_parameter", "unknown query parameter '%.80s'; allowed here: %s", name,
                       names);
}

static bool set(const char *name, const char *value, unsigned allowed, struct query *query, struct problem *problem)
{
    const struct parameter *row = parameters;
    while (row < parameters + PARAMETER_COUNT && (!(allowed & row->flag) || strcmp(row->name, name) != 0))
        row++;
    if (row == parameters + PARAMETER_COUNT)
        return unknown(name, allowed, problem);
    if (query->given & row->flag)
        return problem_set(problem, 400, "duplicate_parameter", "query parameter '%s' is given more than once", name);
    query->given |= row->flag;
    if (!row->read(value, query))
        return problem_set(problem, 400, "invalid_parameter", "query parameter %s: '%.80s' is not allowed, it takes %s",
                           name, value, row->values);
    return true;
}

bool query_parse(const char *text, unsigned allowed, struct query *query, struct problem *problem)
{
    *query = (struct query){
        .top_k = 5, .explain = {.method = VIT_ATTENTION_NONE, .layer = VIT_LAYER_LAST, .head = VIT_HEAD_MEAN}};
    while (text && *text) {
        size_t length = strcspn(text, "&");
        const char *equals = memchr(text, '=', length);
        size_t name_length = equals ? (size_t)(equals - text) : length;
        const char *value_text = equals ? equals + 1 : text + length;
        char name[64], value[512];
        if (!percent_decode(text, name_length, true, name, sizeof name) ||
            !percent_decode(value_text, (size_t)(text + length - value_text), true, value, sizeof value))
            return problem_set(problem, 400, "malformed_query",
                               "the query string has a broken %%-escape or a part that is too long near '%.40s'", text);
        if (length && !set(name, value, allowed, query, problem))
            return false;
        text += length + (text[length] == '&');
    }
    if ((query->given & (QUERY_LAYER | QUERY_HEAD)) && query->explain.method == VIT_ATTENTION_NONE)
        return problem_set(problem, 400, "invalid_parameter",
                           "query parameter %s only goes with attention=raw",
                           query->given & QUERY_LAYER ? "layer" : "head");
    return true;
}
