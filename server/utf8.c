#include "server/utf8.h"

size_t utf8_length(const void *text, size_t room)
{
    const unsigned char *p = text;
    if (room == 0)
        return 0;
    const size_t length = p[0] < 0x80 ? 1 : p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : (p[0] & 0xF0) == 0xE0 ? 3
                          : p[0] >= 0xF0 && p[0] < 0xF5                 ? 4 : 0;
    if (room < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] >= 0x90))
        return 0;
    return length;
}

bool utf8_is_valid(const char *text, size_t length)
{
    for (size_t at = 0, size; at < length; at += size)
        if ((size = utf8_length(text + at, length - at)) == 0)
            return false;
    return true;
}
