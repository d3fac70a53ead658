/* base64.c - four characters at a time; only the last four may have padding. */
#include "server/http/base64.h"

#include <string.h>

/* The value of each character and 1 (0: it has none). */
static const uint8_t values[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,  ['I'] = 9,
    ['J'] = 10, ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18,
    ['S'] = 19, ['T'] = 20, ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27,
    ['b'] = 28, ['c'] = 29, ['d'] = 30, ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36,
    ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40, ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45,
    ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49, ['x'] = 50, ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54,
    ['2'] = 55, ['3'] = 56, ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60, ['8'] = 61, ['9'] = 62, ['+'] = 63,
    ['/'] = 64,
};

/* How many of the four characters have a value; *bits is them in order, 6 bits each, from the top of 24. */
static size_t read_group(const char *text, uint32_t *bits)
{
    *bits = 0;
    for (size_t i = 0; i < 4; i++) {
        const unsigned value = values[(unsigned char)text[i]];
        if (!value)
            return i;
        *bits |= (value - 1) << (18 - 6 * i);
    }
    return 4;
}

bool base64_decode(uint8_t *out, size_t *out_length, const char *text, size_t length, size_t *used)
{
    size_t at = 0, written = 0, characters = 4;
    while (characters == 4 && length - at >= 4) {
        uint32_t bits;
        characters = read_group(text + at, &bits);
        if (characters < 4) {
            const bool padded = characters >= 2 && memcmp(text + at + characters, "==", 4 - characters) == 0;
            /* the last character's bits beyond the last byte must be zero: one text for each content */
            if (!padded || length - at > 4 || bits & (characters == 2 ? 0xFFFFu : 0xFFu)) {
                *used = at + characters;
                return false;
            }
        }
        for (size_t i = 0; i + 1 < characters; i++)
            out[written++] = (uint8_t)(bits >> (16 - 8 * i));
        at += 4;
    }
    *used = at;
    *out_length = written;
    return at == length;
}
