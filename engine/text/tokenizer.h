/*
 * tokenizer.h - CLIP's tokenizer: a text becomes the ids of the tokens that the text encoder embeds.
 *
 * Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021): byte-level byte pair
 * encoding of lower-cased text. The ids are those of transformers' CLIPTokenizerFast. (OpenAI's own tokenizer and the
 * Python CLIPTokenizer clean the text first, in ways that depend on what is installed; the ids of ordinary text are the
 * same.) The characters' properties are those of utf8proc's Unicode version.
 */
#ifndef ENGINE_TEXT_TOKENIZER_H
#define ENGINE_TEXT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "vit_status.h"

/* Far more than any text encoder attends to: CLIP's 77 tokens are some 300 letters. A call takes O(n log n) time and,
 * for one word of n bytes, about 30n bytes of memory (90n at worst, for characters that decompose). */
enum { TOKENIZER_MAX_BYTES = 128 << 10 };

struct tokenizer;

/*
 * Reads folder/vocab.json and folder/merges.txt. vocabulary_size: the rows of the token embedding; every id is below.
 * VIT_ERR_IO, VIT_ERR_FORMAT (the message names file and fault), VIT_ERR_NO_MEMORY; *tokenizer is then untouched.
 */
vit_status tokenizer_open(struct tokenizer **tokenizer, const char *folder, size_t vocabulary_size, vit_error *err);
void tokenizer_free(struct tokenizer *tokenizer); /* accepts NULL */

/*
 * Writes the begin token, the text's tokens and the end token into ids [capacity], capacity at least 2. Of a longer
 * text the first capacity - 2 tokens are kept. The text need not be zero-terminated.
 *
 * "<|startoftext|>" and "<|endoftext|>" in a text, in any case, are the special tokens themselves, as in transformers.
 * So the end token may be there more than once: CLIP pools at the first.
 *
 * VIT_ERR_ARGUMENT: not UTF-8, nothing but white space, or more than TOKENIZER_MAX_BYTES. VIT_ERR_NO_MEMORY.
 * Thread-safe; what it allocates it frees.
 */
vit_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length, int32_t *ids,
                            size_t capacity, size_t *count, vit_error *err);

#endif
