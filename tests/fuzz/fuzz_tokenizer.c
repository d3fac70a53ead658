/* fuzz_tokenizer.c - merges.txt up to the first zero byte, then a text: an error, or tokens that there are. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/text/tokenizer.h"
#include "tests/tiny_vocabulary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {"lo", "low", "low</w>", "aa", "aaaa", "aaa</w>", "ab", "bc", "abc", "bc</w>", "\u00c3\u00a9"}; /* the last: an e with acute */
enum { TOKENS = ADDED + sizeof words / sizeof *words + 2, CAPACITY = 77 };

static char folder[] = "/tmp/vitd-fuzz-XXXXXX";
static char vocabulary[sizeof folder + 32], merges[sizeof folder + 32];

static void remove_folder(void)
{
    unlink(vocabulary);
    unlink(merges);
    rmdir(folder);
}

static void make_folder(void)
{
    if (mkdtemp(folder) == NULL)
        abort();
    snprintf(vocabulary, sizeof vocabulary, "%s/vocab.json", folder);
    snprintf(merges, sizeof merges, "%s/merges.txt", folder);
    tiny_vocabulary_write(folder, words, sizeof words / sizeof *words);
    atexit(remove_folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *zero = size == 0 ? NULL : memchr(data, 0, size);
    const size_t length = zero == NULL ? size : (size_t)(zero - data);
    const char *text = (const char *)data + length + (zero != NULL);
    const size_t text_length = size - length - (zero != NULL);
    if (merges[0] == '\0')
        make_folder();
    FILE *file = fopen(merges, "wb");
    if (file == NULL || fwrite(data, 1, length, file) != length || fclose(file) != 0)
        abort();

    struct tokenizer *tokenizer = NULL;
    vit_error err = {""};
    int32_t ids[CAPACITY];
    size_t count = 0;
    if (tokenizer_open(&tokenizer, folder, TOKENS, &err) != VIT_OK)
        return err.message[0] == '\0' ? abort(), 0 : 0;
    if (tokenizer_encode(tokenizer, text, text_length, ids, CAPACITY, &count, &err) == VIT_OK) {
        if (count < 2 || count > CAPACITY || ids[0] != TOKENS - 2 || ids[count - 1] != TOKENS - 1)
            abort();
        for (size_t i = 0; i < count; i++)
            if (ids[i] < 0 || ids[i] >= TOKENS)
                abort();
    } else if (err.message[0] == '\0') {
        abort();
    }
    tokenizer_free(tokenizer);
    return 0;
}
