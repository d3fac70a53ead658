/*
 * bpe.c - see bpe.h. A word begins as one symbol for each of its UTF-8 bytes, the last with the end of the word. Then,
 * as long as two neighbours have a merge, the pair with the lowest rank becomes one symbol, of equals the leftmost.
 *
 * The symbols are a linked list in an array, and the merges that might be done wait in a heap. A word of n bytes has
 * n - 1 pairs and is merged at most n - 1 times, each time making at most two new pairs: so never more than 2n merges
 * wait, 3n are taken in all, and the whole is O(n log n). A merge whose symbols have changed while it waited is dropped
 * when its turn comes.
 *
 * The whole word is encoded even where only its first tokens fit: a merge at its end could reach to its beginning.
 */
#include "engine/text/bpe.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "engine/base/error.h"

enum { NONE = -1, FIRST_ROOM = 64 };

struct bpe_symbol {
    int32_t token;         /* NONE: became part of a symbol to the left */
    int32_t before, after; /* the neighbours' indices, or NONE */
};

void bpe_release(struct bpe *bpe)
{
    free(bpe->symbols);
    free(bpe->heap);
}

static vit_status reserve(struct bpe *bpe, size_t bytes, vit_error *err)
{
    if (bytes <= bpe->room)
        return VIT_OK;
    bpe_release(bpe);
    bpe->room = bytes > FIRST_ROOM ? bytes : FIRST_ROOM;
    bpe->symbols = malloc(bpe->room * sizeof *bpe->symbols);
    bpe->heap = malloc(2 * bpe->room * sizeof *bpe->heap);
    if (bpe->symbols == NULL || bpe->heap == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for a word of %zu bytes", bytes);
    return VIT_OK;
}

static void heap_push(struct bpe *bpe, uint64_t entry)
{
    uint64_t *heap = bpe->heap;
    size_t at = bpe->waiting++;
    for (; at > 0 && heap[(at - 1) / 2] > entry; at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = entry;
}

static uint64_t heap_pop(struct bpe *bpe)
{
    uint64_t *heap = bpe->heap;
    const uint64_t least = heap[0], moved = heap[--bpe->waiting];
    size_t at = 0;
    for (size_t child = 1; child < bpe->waiting; child = 2 * at + 1) {
        child += child + 1 < bpe->waiting && heap[child + 1] < heap[child];
        if (moved <= heap[child])
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
    return least;
}

/* The merge of a symbol with the next; NULL: there is none. */
static const struct merge *merge_at(const struct bpe *bpe, int32_t left)
{
    const struct bpe_symbol *symbol = &bpe->symbols[left];
    if (symbol->token == NONE || symbol->after == NONE)
        return NULL;
    return vocabulary_merge(bpe->vocabulary, symbol->token, bpe->symbols[symbol->after].token);
}

/* By rank, then from left to right. */
static void offer(struct bpe *bpe, int32_t left)
{
    const struct merge *merge = merge_at(bpe, left);
    if (merge != NULL)
        heap_push(bpe, (uint64_t)merge->rank << 32 | (uint32_t)left);
}

static size_t utf8_bytes(int32_t point)
{
    return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

/* One symbol for each byte. */
static void lay_out(struct bpe *bpe, const int32_t *points, size_t length)
{
    int32_t at = 0;
    uint8_t bytes[4], last = 0;
    for (size_t i = 0; i < length; i++) {
        const utf8proc_ssize_t n = utf8proc_encode_char(points[i], bytes);
        for (utf8proc_ssize_t j = 0; j < n; j++, at++) {
            last = bytes[j];
            bpe->symbols[at] = (struct bpe_symbol){bpe->vocabulary->bytes[last], at - 1, at + 1};
        }
    }
    bpe->symbols[at - 1] = (struct bpe_symbol){bpe->vocabulary->last_bytes[last], at - 2, NONE};
}

static void merge_all(struct bpe *bpe, size_t bytes)
{
    bpe->waiting = 0;
    for (size_t i = 0; i < bytes; i++)
        offer(bpe, (int32_t)i);
    while (bpe->waiting > 0) {
        const uint64_t entry = heap_pop(bpe);
        const int32_t left = (int32_t)(uint32_t)entry;
        const struct merge *merge = merge_at(bpe, left);
        if (merge == NULL || merge->rank != entry >> 32)
            continue;
        struct bpe_symbol *symbol = &bpe->symbols[left], *next = &bpe->symbols[symbol->after];
        symbol->token = merge->token;
        symbol->after = next->after;
        next->token = NONE;
        if (symbol->after != NONE)
            bpe->symbols[symbol->after].before = left;
        if (symbol->before != NONE)
            offer(bpe, symbol->before);
        offer(bpe, left);
    }
}

vit_status bpe_encode(struct bpe *bpe, const int32_t *points, size_t length, int32_t *ids, size_t capacity,
                      size_t *count, vit_error *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < length; i++)
        bytes += utf8_bytes(points[i]);
    vit_status status = reserve(bpe, bytes, err);
    if (status != VIT_OK)
        return status;
    lay_out(bpe, points, length);
    merge_all(bpe, bytes);
    for (int32_t at = 0; at != NONE && *count < capacity; at = bpe->symbols[at].after)
        ids[(*count)++] = bpe->symbols[at].token;
    return VIT_OK;
}
