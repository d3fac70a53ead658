/*
 * words.h - texts that a model with a text tower is asked about: labels of a classifier, targets of an explanation, or
 * texts to embed. Filled by one thread, constant once every text has its embedding.
 */
#ifndef SERVER_WORK_WORDS_H
#define SERVER_WORK_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "vit.h"

enum { WORDS_MAX_BYTES = 4096 }; /* of a text; the tower reads some 77 tokens */

struct words {
    size_t count, capacity;
    char **texts;      /* [count], as they were given */
    char *template;    /* what the tower reads: {} stands for the text; "": the text itself */
    size_t width;      /* D */
    float *embeddings; /* [count, D]; once words_allocate() was called */
    bool *known;       /* [count]: which rows are there */
};

/* NULL when memory is short. template may be NULL. */
struct words *words_create(size_t width, const char *template);
/* Accepts NULL. */
void words_free(struct words *words);

/* Appends a text without the blanks around it. false: *why says what is wrong with it (a literal, "found ..., allowed
 * is ..."), or that memory is short. */
bool words_add(struct words *words, const char *text, size_t length, const char **why);
/* The same of texts between commas, or between line feeds. */
bool words_add_list(struct words *words, const char *list, char separator, const char **why);

/* Room for the embeddings. */
bool words_allocate(struct words *words);
/* What the tower reads for the i-th text, to be freed; NULL when memory is short. */
char *words_sentence(const struct words *words, size_t i);

/* Embeds all that are not known, in a session of the model. */
vit_status words_encode(struct words *words, vit_session *session, vit_error *err);

#endif
