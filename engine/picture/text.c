/* text.c - letters by stb_easy_font: rectangles, so that they stay sharp at every whole scale. */
#include <string.h>

#include "engine/picture/canvas.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include <stb/stb_easy_font.h>
#pragma GCC diagnostic pop

enum { MAX_LETTERS = 160 };

/* As stb_easy_font lays its vertices out. */
struct corner {
    float x, y, z;
    unsigned char colour[4];
};

/* Printable ASCII only; returns how many letters. */
static size_t plain_letters(char letters[MAX_LETTERS + 1], const char *text)
{
    size_t count = 0;
    for (; *text != '\0' && count < MAX_LETTERS; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c >= 0x80 && c < 0xc0 && count > 0 && (unsigned char)text[-1] >= 0x80)
            continue; /* the rest of a character that has been counted */
        letters[count++] = c >= ' ' && c < 0x7f ? *text : '?';
    }
    letters[count] = '\0';
    return count;
}

static size_t width_of(char *letters, size_t scale)
{
    return (size_t)stb_easy_font_width(letters) * scale;
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
    struct corner corners[64 * 4];
    fit(letters, plain_letters(letters, text), scale, max_width);
    double left = x;
    for (const char *letter = letters; *letter != '\0'; letter++) {
        char one[2] = {*letter, '\0'};
        const int quads = stb_easy_font_print(0, 0, one, NULL, corners, (int)sizeof corners);
        for (int i = 0; i < quads; i++) {
            const struct corner *from = &corners[4 * i], *to = from + 2;
            canvas_fill(canvas, left + (double)from->x * (double)scale, y + (double)from->y * (double)scale,
                        (double)(to->x - from->x) * (double)scale, (double)(to->y - from->y) * (double)scale, colour);
        }
        left += (double)width_of(one, scale);
    }
}
