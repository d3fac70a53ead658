/* trace.c - see trace.h. */
#include "server/http/trace.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 */
enum { VERSION = 0, ID = 3, ID_DIGITS = 32, PARENT = 36, PARENT_DIGITS = 16, FLAGS = 53, BYTE_DIGITS = 2 };

static const char digits[] = "0123456789abcdef";

static bool are_digits(const char *text, size_t count)
{
    return strspn(text, digits) >= count;
}

static bool is_id(const char *text, size_t count)
{
    return are_digits(text, count) && strspn(text, "0") < count;
}

/* Of two digits. */
static unsigned byte_at(const char *text)
{
    return (unsigned)((strchr(digits, text[0]) - digits) * 16 + (strchr(digits, text[1]) - digits));
}

/* Of a value that has all of its 55 characters, and may have more. */
static bool is_valid(const char *value, size_t length)
{
    if (!are_digits(value + VERSION, BYTE_DIGITS) || value[ID - 1] != '-' || !is_id(value + ID, ID_DIGITS) ||
        value[PARENT - 1] != '-' || !is_id(value + PARENT, PARENT_DIGITS) || value[FLAGS - 1] != '-' ||
        !are_digits(value + FLAGS, BYTE_DIGITS))
        return false;
    const unsigned version = byte_at(value + VERSION);
    return version != 0xff && (length == TRACEPARENT_LENGTH || (version > 0 && value[TRACEPARENT_LENGTH] == '-'));
}

static bool make_span(char span[PARENT_DIGITS + 1])
{
    uint64_t number = 0;
    while (number == 0)
        if (getrandom(&number, sizeof number, 0) != sizeof number)
            return false;
    snprintf(span, PARENT_DIGITS + 1, "%016llx", (unsigned long long)number);
    return true;
}

bool trace_read(struct trace *trace, const char *header)
{
    struct trace read = {0};
    const char *value = header ? header + strspn(header, " \t") : "";
    size_t length = strlen(value);
    while (length > 0 && strchr(" \t", value[length - 1]))
        length--;
    if (length < TRACEPARENT_LENGTH || !is_valid(value, length) || !make_span(read.span))
        return false;
    memcpy(read.id, value + ID, ID_DIGITS);
    memcpy(read.parent, value + PARENT, PARENT_DIGITS);
    const unsigned known = byte_at(value + VERSION) == 0 ? TRACE_SAMPLED | TRACE_RANDOM_ID : TRACE_SAMPLED;
    read.flags = (unsigned char)(byte_at(value + FLAGS) & known);
    *trace = read;
    return true;
}

void trace_write(const struct trace *trace, char header[TRACEPARENT_LENGTH + 1])
{
    snprintf(header, TRACEPARENT_LENGTH + 1, "00-%.32s-%.16s-%02x", trace->id, trace->span, trace->flags);
}
