/* text.c - letters by stb_easy_font: rectangles, so that they stay sharp at every whole scale. */
#include <string.h>

#include "engine/picture/canvas.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb/stb_easy_font.h>
#pragma GCC diagnostic pop

enum { MAX_LETTERS = 160, MAX_STROKES = 64, SPACE_BEHIND = 2 };

/* As stb_easy_font lays its vertices out. */
struct corner {
    float x, y, z;
    unsigned char colour[4];
};

/* Bytes of the UTF-8 character at text; 1 where there is none. */
static size_t character_length(const char *text)
{
    const unsigned char lead = (unsigned char)*text;
    const size_t length = lead >= 0xf0 && lead < 0xf5 ? 4 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xc2 ? 2 : 1;
    for (size_t i = 1; i < length; i++)
        if (lead >= 0xf5 || ((unsigned char)text[i] & 0xc0) != 0x80)
            return 1;
    return length;
}

/* Printable ASCII only, and no more than can be drawn; returns how many letters. */
static size_t plain_letters(char letters[MAX_LETTERS + 1], const char *text)
{
    size_t count = 0;
    for (; *text != '\0' && count < MAX_LETTERS; text += character_length(text))
        letters[count++] = *text >= ' ' && *text <= '~' ? *text : '?';
    if (*text != '\0')
        memcpy(letters + MAX_LETTERS - 2, "..", 2);
    letters[count] = '\0';
    return count;
}

/* Without the space behind the last letter. */
static size_t width_of(char *letters, size_t scale)
{
    return *letters != '\0' ? (size_t)(stb_easy_font_width(letters) - SPACE_BEHIND) * scale : 0;
}

size_t text_width(const char *text, size_t scale)
{
    char letters[MAX_LETTERS + 1];
    plain_letters(letters, text);
    return width_of(letters, scale);
}

/* Shortens the letters until they fit; ".." takes the place of what was cut off. */
static void fit(char letters[MAX_LETTERS + 3], size_t count, size_t scale, size_t max_width)
{
    while (count > 0 && width_of(letters, scale) > max_width)
        memcpy(letters + --count, "..", 3);
    if (count == 0)
        letters[0] = '\0';
}

void text_draw(vit_image *canvas, double x, double y, size_t scale, struct colour colour, const char *text,
               size_t max_width)
{
    char letters[MAX_LETTERS + 3];
    struct corner corners[MAX_STROKES * 4];
    const double size = (double)scale;
    fit(letters, plain_letters(letters, text), scale, max_width);
    for (const char *letter = letters; *letter != '\0'; letter++) {
        char one[2] = {*letter, '\0'};
        const int strokes = stb_easy_font_print(0, 0, one, NULL, corners, (int)sizeof corners);
        for (int i = 0; i < strokes; i++) {
            const struct corner *from = &corners[4 * i], *to = from + 2;
            canvas_fill(canvas, x + (double)from->x * size, y + (double)from->y * size,
                        (double)(to->x - from->x) * size, (double)(to->y - from->y) * size, colour);
        }
        x += stb_easy_font_width(one) * size;
    }
}
