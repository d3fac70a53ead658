#include "server/http/accept.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

/* How much a media type is wanted: its quality in thousandths, by the range that names it most exactly. */
struct wish {
    int exactness; /* 0: not at all, 1: by * / *, 2: by its kind, 3: by its name */
    int quality;
};

/* 0.123 in thousandths; what is no quality counts as 1. */
static int read_quality(const char *text, size_t length)
{
    int value = 0, scale = 1000;
    if (length == 0 || (text[0] != '0' && text[0] != '1'))
        return 1000;
    value = (text[0] - '0') * 1000;
    for (size_t i = 2; i < length && i < 5 && text[1] == '.' && text[i] >= '0' && text[i] <= '9'; i++)
        value += (text[i] - '0') * (scale /= 10);
    return value < 1000 ? value : 1000;
}

/* The q of "type/subtype; level=1; q=0.5". */
static int quality_of(const char *range, size_t length)
{
    for (size_t i = 0; i + 2 < length; i++) {
        if (range[i] != ';')
            continue;
        size_t start = i + 1;
        while (start < length && (range[start] == ' ' || range[start] == '\t'))
            start++;
        if (start + 2 <= length && strncasecmp(range + start, "q=", 2) == 0)
            return read_quality(range + start + 2, length - start - 2);
    }
    return 1000;
}

static void consider(struct wish *wish, const char *range, size_t length, const char *type)
{
    const size_t kind = strcspn(type, "/") + 1;
    size_t name = 0;
    while (name < length && range[name] != ';' && range[name] != ' ' && range[name] != '\t')
        name++;
    int exactness = 0;
    if (name == strlen(type) && strncasecmp(range, type, name) == 0)
        exactness = 3;
    else if (name == kind + 1 && strncasecmp(range, type, kind) == 0 && range[kind] == '*')
        exactness = 2;
    else if (name == 3 && memcmp(range, "*/*", 3) == 0)
        exactness = 1;
    if (exactness > wish->exactness)
        *wish = (struct wish){exactness, quality_of(range, length)};
}

bool accepts_picture(const char *accept, bool preferred)
{
    struct wish png = {0}, json = {0};
    while (accept && *accept) {
        const size_t blanks = strspn(accept, " \t"), length = strcspn(accept, ",");
        if (length > blanks) {
            consider(&png, accept + blanks, length - blanks, "image/png");
            consider(&json, accept + blanks, length - blanks, "application/json");
        }
        accept += length + (accept[length] == ',');
    }
    if (png.quality != json.quality)
        return png.quality > json.quality;
    if (png.exactness != json.exactness)
        return png.exactness > json.exactness;
    return preferred;
}
