/* tiny_vocabulary.h - a vocab.json with every byte, the tokens that a test adds and the special tokens, and nothing
 * else. Without Check, for the fuzzer. */
#ifndef TESTS_TINY_VOCABULARY_H
#define TESTS_TINY_VOCABULARY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

/* Byte b is token b, and as the last of a word LAST + b; what is added is ADDED, ADDED + 1 and so on; then the begin
 * and the end token. */
enum { LAST = 256, ADDED = 512 };

static inline void tiny_vocabulary_write(const char *folder, const char *const *added, size_t count)
{
    char path[256], text[8];
    snprintf(path, sizeof path, "%s/vocab.json", folder);
    FILE *file = fopen(path, "w");
    if (file == NULL)
        abort();
    fputs("{", file);
    for (int byte = 0, other = 256; byte < 256; byte++) {
        const int self = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
        const char *escape = byte == '"' || byte == '\\' ? "\\" : "";
        text[utf8proc_encode_char(self ? byte : other++, (uint8_t *)text)] = '\0';
        fprintf(file, "\"%s%s\": %d, \"%s%s</w>\": %d,\n", escape, text, byte, escape, text, LAST + byte);
    }
    for (size_t i = 0; i < count; i++)
        fprintf(file, "\"%s\": %zu, ", added[i], ADDED + i);
    fprintf(file, "\"<|startoftext|>\": %zu, \"<|endoftext|>\": %zu}\n", ADDED + count, ADDED + count + 1);
    fclose(file);
}

#endif
