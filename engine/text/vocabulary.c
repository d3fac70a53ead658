/*
 * vocabulary.c - reading vocab.json ({"token": id, ...}) and merges.txt (a header, then "left right", the most
 * important first).
 *
 * The files' tokens are not bytes but 256 printable characters that stand for them, as in GPT-2: "Ã©" is the two bytes
 * of an e with acute. A token that ends a word ends in "</w>". The strings are needed only while the files are read;
 * what remains are ids, and the merges. Both are looked up in sorted arrays: the files may come from anywhere, and
 * these, unlike a hash table, have no bad case.
 */
#include "engine/text/vocabulary.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/error.h"
#include "engine/store/json.h"
#include "engine/text/split.h"

enum { MERGES_MAX_BYTES = 8 << 20 };

struct token {
    const char *text;
    int32_t id;
};

/* The strings of vocab.json while merges.txt is read. */
struct tokens {
    char path[4096];
    cJSON *json; /* owns the texts */
    struct token *items;
    size_t count;
};

/* A line of merges.txt. */
struct pair {
    int32_t left;
    struct merge merge;
    size_t line;
};

static int compare_tokens(const void *a, const void *b)
{
    return strcmp(((const struct token *)a)->text, ((const struct token *)b)->text);
}

static int compare_pairs(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->left != y->left)
        return x->left < y->left ? -1 : 1;
    return (x->merge.right > y->merge.right) - (x->merge.right < y->merge.right);
}

/* -1: there is no such token. */
static int32_t find(const struct tokens *tokens, const char *text)
{
    const struct token *token = bsearch(&(struct token){.text = text}, tokens->items, tokens->count,
                                        sizeof *tokens->items, compare_tokens);
    return token == NULL ? -1 : token->id;
}

static void tokens_release(struct tokens *tokens)
{
    cJSON_Delete(tokens->json);
    free(tokens->items);
}

/* Every id a whole number below `size`, and no two alike. owners [size], all NULL. */
static vit_status read_ids(struct tokens *tokens, const char **owners, size_t size, vit_error *err)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, tokens->json) {
        const double id = item->valuedouble;
        if (!cJSON_IsNumber(item) || id != floor(id) || id < 0 || id >= (double)size)
            return vit_error_set(err, VIT_ERR_FORMAT,
                                 "%s: the id of \"%.40s\" must be a whole number below %zu, the model's rows",
                                 tokens->path, item->string, size);
        if (owners[(size_t)id] != NULL)
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: \"%.40s\" and \"%.40s\" both have the id %zu", tokens->path,
                                 owners[(size_t)id], item->string, (size_t)id);
        owners[(size_t)id] = item->string;
        tokens->items[tokens->count++] = (struct token){item->string, (int32_t)id};
    }
    qsort(tokens->items, tokens->count, sizeof *tokens->items, compare_tokens);
    for (size_t i = 1; i < tokens->count; i++)
        if (compare_tokens(&tokens->items[i - 1], &tokens->items[i]) == 0)
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: \"%.40s\" is there twice", tokens->path,
                                 tokens->items[i].text);
    return VIT_OK;
}

static vit_status read_tokens(struct tokens *tokens, const char *folder, size_t size, vit_error *err)
{
    snprintf(tokens->path, sizeof tokens->path, "%s/vocab.json", folder);
    vit_status status = json_load(&tokens->json, tokens->path, err);
    if (status != VIT_OK)
        return status;
    const size_t count = (size_t)cJSON_GetArraySize(tokens->json);
    if (count == 0 || count > size)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: has %zu tokens; the model has rows for 1 to %zu", tokens->path,
                             count, size);
    const char **owners = calloc(size, sizeof *owners);
    tokens->items = malloc(count * sizeof *tokens->items);
    if (owners == NULL || tokens->items == NULL)
        status = vit_error_set(err, VIT_ERR_NO_MEMORY, "%s: no memory for %zu tokens", tokens->path, count);
    else
        status = read_ids(tokens, owners, size, err);
    free(owners);
    return status;
}

/* Printable characters of Latin-1 stand for themselves, the other bytes for U+0100 and on, in their order. */
static bool stands_for_itself(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

static vit_status find_bytes(struct vocabulary *vocabulary, const struct tokens *tokens, vit_error *err)
{
    int32_t other = 256;
    for (int byte = 0; byte < 256; byte++) {
        char text[16];
        const utf8proc_ssize_t n = utf8proc_encode_char(stands_for_itself(byte) ? byte : other++, (uint8_t *)text);
        text[n] = '\0';
        vocabulary->bytes[byte] = find(tokens, text);
        strcpy(text + n, "</w>");
        vocabulary->last_bytes[byte] = find(tokens, text);
        if (vocabulary->bytes[byte] < 0)
            text[n] = '\0';
        if (vocabulary->bytes[byte] < 0 || vocabulary->last_bytes[byte] < 0)
            return vit_error_set(err, VIT_ERR_FORMAT,
                                 "%s: has no token \"%s\"; byte 0x%02x, as every byte, needs two, one with </w>",
                                 tokens->path, text, byte);
    }
    return VIT_OK;
}

static vit_status find_specials(struct vocabulary *vocabulary, const struct tokens *tokens, vit_error *err)
{
    vocabulary->begin = find(tokens, piece_special(PIECE_BEGIN));
    vocabulary->end = find(tokens, piece_special(PIECE_END));
    if (vocabulary->begin < 0 || vocabulary->end < 0)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s: has no token \"%s\"", tokens->path,
                             piece_special(vocabulary->begin < 0 ? PIECE_BEGIN : PIECE_END));
    return VIT_OK;
}

/* "left right", zero-terminated; the line is changed. */
static vit_status read_pair(struct pair *pair, char *line, const struct tokens *tokens, const char *path,
                            vit_error *err)
{
    char *blank = strchr(line, ' ');
    if (blank == NULL || blank == line || blank[1] == '\0' || strchr(blank + 1, ' ') != NULL)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s:%zu: \"%.40s\" is not two tokens with a blank between", path,
                             pair->line, line);
    *blank = '\0';
    const char *missing = NULL, *right = blank + 1;
    if ((pair->left = find(tokens, line)) < 0)
        missing = line;
    else if ((pair->merge.right = find(tokens, right)) < 0)
        missing = right;
    else {
        memmove(blank, right, strlen(right) + 1);
        if ((pair->merge.token = find(tokens, line)) < 0)
            missing = line;
    }
    if (missing != NULL)
        return vit_error_set(err, VIT_ERR_FORMAT, "%s:%zu: \"%.40s\" is not a token of vocab.json", path, pair->line,
                             missing);
    return VIT_OK;
}

/* pairs [as many as there are lines] */
static vit_status read_pairs(struct pair *pairs, size_t *count, char *text, const struct tokens *tokens,
                             const char *path, vit_error *err)
{
    static const char header[] = "#version";
    vit_status status = VIT_OK;
    size_t line = 1;
    *count = 0;
    for (char *next; text != NULL && status == VIT_OK; text = next, line++) {
        next = strchr(text, '\n');
        if (next != NULL)
            *next++ = '\0';
        text[strcspn(text, "\r")] = '\0';
        if (text[0] == '\0' || (line == 1 && strncmp(text, header, strlen(header)) == 0))
            continue;
        struct pair *pair = &pairs[*count];
        *pair = (struct pair){.line = line, .merge.rank = (uint32_t)(*count)++};
        status = read_pair(pair, text, tokens, path, err);
    }
    return status;
}

/* The pairs, by left token, into the arrays that vocabulary_merge() looks into. */
static vit_status keep_pairs(struct vocabulary *vocabulary, struct pair *pairs, size_t count, const char *path,
                             vit_error *err)
{
    qsort(pairs, count, sizeof *pairs, compare_pairs);
    vocabulary->first = calloc(vocabulary->size + 1, sizeof *vocabulary->first);
    vocabulary->merges = malloc((count + 1) * sizeof *vocabulary->merges);
    if (vocabulary->first == NULL || vocabulary->merges == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "%s: no memory for %zu merges", path, count);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && compare_pairs(&pairs[i - 1], &pairs[i]) == 0)
            return vit_error_set(err, VIT_ERR_FORMAT, "%s: the lines %zu and %zu are the same merge", path,
                                 pairs[i - 1].line, pairs[i].line);
        vocabulary->first[pairs[i].left + 1]++;
        vocabulary->merges[i] = pairs[i].merge;
    }
    for (size_t i = 0; i < vocabulary->size; i++)
        vocabulary->first[i + 1] += vocabulary->first[i];
    return VIT_OK;
}

static vit_status read_merges(struct vocabulary *vocabulary, const char *folder, const struct tokens *tokens,
                              vit_error *err)
{
    char path[4096], *text = NULL;
    size_t length = 0, lines = 1, count = 0;
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    vit_status status = file_read(&text, &length, path, MERGES_MAX_BYTES, err);
    if (status != VIT_OK)
        return status;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    struct pair *pairs = malloc(lines * sizeof *pairs);
    if (pairs == NULL)
        status = vit_error_set(err, VIT_ERR_NO_MEMORY, "%s: no memory for %zu lines", path, lines);
    else if (strlen(text) != length)
        status = vit_error_set(err, VIT_ERR_FORMAT, "%s: has a zero byte at %zu; it must be text", path, strlen(text));
    else
        status = read_pairs(pairs, &count, text, tokens, path, err);
    if (status == VIT_OK)
        status = keep_pairs(vocabulary, pairs, count, path, err);
    free(pairs);
    free(text);
    return status;
}

vit_status vocabulary_load(struct vocabulary *vocabulary, const char *folder, size_t size, vit_error *err)
{
    struct tokens tokens = {.json = NULL};
    if (size == 0 || size > INT32_MAX)
        return vit_error_set(err, VIT_ERR_FORMAT, "the token embedding has %zu rows; 1 to %d are allowed", size,
                             INT32_MAX);
    vocabulary->size = size;
    vit_status status = read_tokens(&tokens, folder, size, err);
    if (status == VIT_OK)
        status = find_bytes(vocabulary, &tokens, err);
    if (status == VIT_OK)
        status = find_specials(vocabulary, &tokens, err);
    if (status == VIT_OK)
        status = read_merges(vocabulary, folder, &tokens, err);
    tokens_release(&tokens);
    return status;
}

void vocabulary_release(struct vocabulary *vocabulary)
{
    free(vocabulary->first);
    free(vocabulary->merges);
}

const struct merge *vocabulary_merge(const struct vocabulary *vocabulary, int32_t left, int32_t right)
{
    uint32_t low = vocabulary->first[left], high = vocabulary->first[left + 1];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (vocabulary->merges[middle].right < right)
            low = middle + 1;
        else
            high = middle;
    }
    const struct merge *merge = &vocabulary->merges[low];
    return low < vocabulary->first[left + 1] && merge->right == right ? merge : NULL;
}
