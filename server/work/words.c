/* words.c - see words.h. */
#include "server/work/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/utf8.h"

static const char out_of_memory[] = "out of memory";

struct words *words_create(size_t width, const char *template)
{
    struct words *words = calloc(1, sizeof *words);
    if (!words)
        return NULL;
    words->width = width;
    words->template = strdup(template ? template : "");
    if (words->template)
        return words;
    free(words);
    return NULL;
}

void words_free(struct words *words)
{
    if (!words)
        return;
    for (size_t i = 0; i < words->count; i++)
        free(words->texts[i]);
    free(words->texts);
    free(words->template);
    free(words->embeddings);
    free(words->known);
    free(words);
}

/* ---- filling ---- */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool grow(struct words *words)
{
    const size_t capacity = words->capacity ? 2 * words->capacity : 16;
    char **texts = reallocarray(words->texts, capacity, sizeof *texts);
    if (!texts)
        return false;
    words->texts = texts;
    words->capacity = capacity;
    return true;
}

bool words_add(struct words *words, const char *text, size_t length, const char **why)
{
    while (length && is_blank(*text)) {
        text++;
        length--;
    }
    while (length && is_blank(text[length - 1]))
        length--;
    *why = length == 0                       ? "found an empty text, allowed is one with words in it"
           : length > WORDS_MAX_BYTES        ? "found a text of more than 4096 bytes, allowed is up to 4096"
           : memchr(text, 0, length)         ? "found a zero byte, allowed is text"
           : !utf8_is_valid(text, length)    ? "found bytes that are not UTF-8, allowed is text in UTF-8"
                                             : NULL;
    if (*why)
        return false;
    char *copy = strndup(text, length);
    if (!copy || (words->count == words->capacity && !grow(words))) {
        free(copy);
        *why = out_of_memory;
        return false;
    }
    words->texts[words->count++] = copy;
    return true;
}

bool words_add_list(struct words *words, const char *list, char separator, const char **why)
{
    for (;;) {
        const char *end = strchrnul(list, separator);
        if (!words_add(words, list, (size_t)(end - list), why))
            return false;
        if (!*end)
            return true;
        list = end + 1;
    }
}

bool words_allocate(struct words *words)
{
    words->embeddings = reallocarray(NULL, words->count * words->width, sizeof *words->embeddings);
    words->known = calloc(words->count + 1, sizeof *words->known);
    return words->embeddings && words->known;
}

char *words_sentence(const struct words *words, size_t i)
{
    char *sentence = NULL;
    const char *place = strstr(words->template, "{}");
    if (!place)
        return strdup(words->texts[i]);
    if (asprintf(&sentence, "%.*s%s%s", (int)(place - words->template), words->template, words->texts[i], place + 2) < 0)
        return NULL;
    return sentence;
}

/* ---- encoding ---- */

static vit_status encode(struct words *words, char **sentences, vit_session *session, vit_error *err)
{
    for (size_t i = 0; i < words->count; i++)
        if (!(sentences[i] = words_sentence(words, i))) {
            snprintf(err->message, sizeof err->message, "%s", out_of_memory);
            return VIT_ERR_NO_MEMORY;
        }
    return vit_session_encode_texts(session, (const char *const *)sentences, words->count, words->embeddings, NULL, err);
}

vit_status words_encode(struct words *words, vit_session *session, vit_error *err)
{
    char **sentences = calloc(words->count + 1, sizeof *sentences);
    vit_status status = VIT_ERR_NO_MEMORY;
    if (sentences && words_allocate(words))
        status = encode(words, sentences, session, err);
    else
        snprintf(err->message, sizeof err->message, "%s", out_of_memory);
    for (size_t i = 0; sentences && i < words->count; i++)
        free(sentences[i]);
    free(sentences);
    for (size_t i = 0; status == VIT_OK && i < words->count; i++)
        words->known[i] = true;
    return status;
}
