/*
 * attention.c - multi-head self-attention (arXiv 1706.03762, section 3.2) over one image's tokens, within windows of
 * them, or within each of several sequences, a tile of query rows at a time: the probabilities never leave the cache.
 *
 * Keys and values of each head are packed once (all tokens: by the heads' threads; a window or a sequence: by the
 * thread that has it). Then every tile of a head, or with mixing every tile of all heads, or every window or sequence,
 * is one thread's.
 */
#include <string.h>

#include "engine/base/size.h"
#include "engine/layers/layers.h"

enum {
    TILE_FLOATS = 128 * 1024, /* half of a common L2 cache */
    TILE_MOST = 96 /* rows: several tiles for several threads */
};

/* Tokens that attend to one another: all of an image, a window's, or a sequence's. */
struct group {
    const float *qkv; /* [n, 3*C] */
    float *out;       /* [n, C] */
    size_t tokens;    /* n */
    float *panels;    /* [panel_floats()] for each head, or for one head at a time */
    size_t panel_stride;    /* floats from one head's to the next; 0: one at a time */
    const int32_t *places;  /* [n], or NULL without windows */
    const uint8_t *regions; /* [n], or NULL */
};

/* What does not change over the tiles of a run. */
struct run {
    const struct attention *attention;
    const struct compute *compute;
    const struct observer *observer;
    size_t width, layer;
    size_t wanted; /* queries */
    size_t tile;   /* rows; of an image attended to as one */
    const struct sequences *sequences; /* or NULL */
    struct group all; /* all tokens; attended to as one where there are neither windows nor sequences */
};

/* A thread's scratch. */
struct memory {
    float *probabilities; /* [rows, n], with mixing [NH, rows, n] */
    float *mixed;         /* [NH, rows, n] with mixing */
    float *operand;       /* of products */
    float *qkv, *out;     /* a window's */
    float *panels;        /* a window's or a sequence's keys and values, of one head */
};

static size_t tile_heads(const struct attention *attention)
{
    return attention->mixing != NULL ? attention->heads : 1;
}

size_t attention_rows(const struct attention *attention, size_t tokens)
{
    const size_t copies = attention->mixing != NULL ? 2 * attention->heads : 1;
    const size_t fitting = TILE_FLOATS / (copies * tokens), most = fitting < TILE_MOST ? fitting : TILE_MOST;
    const size_t count = most > PACKED_ROWS ? (tokens + most - 1) / most : (tokens + PACKED_ROWS - 1) / PACKED_ROWS;
    const size_t rows = ((tokens + count - 1) / count + PACKED_ROWS - 1) / PACKED_ROWS * PACKED_ROWS;
    return rows < tokens ? rows : tokens;
}

/* Where keys and values of a head are in its panels; returns the floats of both. */
static size_t place_panels(const struct products *products, size_t tokens, size_t head_width, size_t starts[2])
{
    const size_t sizes[] = {packed_floats(products, tokens, head_width), packed_floats(products, head_width, tokens)};
    return parts_lay_out(starts, sizes, 2);
}

static size_t panel_floats(const struct attention *attention, size_t tokens, size_t head_width)
{
    size_t starts[2];
    return attention->products != NULL ? place_panels(attention->products, tokens, head_width, starts) : 0;
}

size_t attention_floats(const struct attention *attention, size_t tokens, size_t width)
{
    return attention->windows != NULL ? 0
                                      : attention->heads * panel_floats(attention, tokens, width / attention->heads);
}

/* alone: the tokens are a sequence's, packed where they are attended to. */
static size_t lay_out(const struct attention *attention, size_t tokens, size_t width, bool alone, float *scratch,
                      struct memory *memory)
{
    const struct windows *windows = attention->windows;
    const struct products *products = attention->products;
    const size_t n = windows != NULL ? windows->size : tokens, head_width = width / attention->heads;
    const size_t tile = tile_heads(attention) * attention_rows(attention, n) * n;
    const size_t sizes[] = {
        tile,
        attention->mixing != NULL ? tile : 0,
        products != NULL ? size_larger(packed_scratch(products, n), packed_scratch(products, head_width)) : 0,
        windows != NULL ? 3 * n * width : 0,
        windows != NULL ? n * width : 0,
        windows != NULL || alone ? panel_floats(attention, n, head_width) : 0,
    };
    size_t starts[6];
    const size_t floats = parts_lay_out(starts, sizes, 6);
    if (scratch != NULL)
        *memory = (struct memory){.probabilities = scratch + starts[0], .mixed = scratch + starts[1],
                                  .operand = scratch + starts[2], .qkv = scratch + starts[3], .out = scratch + starts[4],
                                  .panels = scratch + starts[5]};
    return floats;
}

size_t attention_scratch(const struct attention *attention, size_t tokens, size_t width)
{
    return lay_out(attention, tokens, width, false, NULL, NULL);
}

size_t attention_sequence_scratch(const struct attention *attention, size_t longest, size_t width)
{
    return lay_out(attention, longest, width, true, NULL, NULL);
}

/* ---- one head ---- */

static void pack_head(const struct run *run, const struct group *group, size_t head)
{
    const struct products *products = run->attention->products;
    const size_t n = group->tokens, head_width = run->width / run->attention->heads, stride = 3 * run->width;
    const float *k = group->qkv + run->width + head * head_width, *v = k + run->width;
    float *panels = group->panels + head * group->panel_stride;
    size_t starts[2];
    const vit_stage before = compute_enter(run->compute, VIT_STAGE_PACKING);
    place_panels(products, n, head_width, starts);
    packed_transposed(products, panels + starts[0], k, stride, n, head_width);
    packed_rows(products, panels + starts[1], v, stride, head_width, n);
    compute_enter(run->compute, before);
}

/* The packed keys (which 0) or values (1) of a head. */
static struct packed panel_of(const struct run *run, const struct group *group, size_t head, size_t which)
{
    const struct products *products = run->attention->products;
    const size_t n = group->tokens, head_width = run->width / run->attention->heads;
    size_t starts[2];
    place_panels(products, n, head_width, starts);
    return packed_view(products, group->panels + head * group->panel_stride + starts[which],
                       which == 0 ? n : head_width, which == 0 ? head_width : n);
}

/* Strangers in a shifted window, as the references mask them. */
static void mask_regions(float *scores, const uint8_t *regions, size_t first, size_t rows, size_t tokens)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < tokens; j++)
            scores[i * tokens + j] += regions[first + i] != regions[j] ? -100.0f : 0;
}

/* softmax over what each query may see: itself and what comes before it. */
static void softmax_causal(const struct kernels *kernels, float *scores, size_t first, size_t rows, size_t tokens)
{
    for (size_t i = 0; i < rows; i++, scores += tokens) {
        const size_t seen = first + i + 1;
        kernels->softmax(scores, 1, seen);
        memset(scores + seen, 0, (tokens - seen) * sizeof *scores);
    }
}

/* scores [rows, n] = scale q k^T for the queries from `first` on */
static void compare(const struct run *run, const struct group *group, size_t head, size_t first, size_t rows, float *scores,
                    const struct memory *memory)
{
    const struct attention *attention = run->attention;
    const size_t n = group->tokens, head_width = run->width / attention->heads, stride = 3 * run->width;
    const float *q = group->qkv + first * stride + head * head_width, *k = group->qkv + run->width + head * head_width;
    if (attention->products != NULL) {
        const struct packed keys = panel_of(run, group, head, 0);
        compute_packed(run->compute, &keys, scores, n, q, stride, attention->scale, rows, false, memory->operand);
    } else {
        compute_gemm(run->compute, &(struct gemm){.m = rows, .n = n, .k = head_width, .alpha = attention->scale, .beta = 0,
                                                  .a = q, .lda = stride, .b = k, .ldb = stride, .b_transposed = true,
                                                  .c = scores, .ldc = n});
    }
}

/* probabilities [rows, n] of one head for the queries from `first` on */
static void attend(const struct run *run, const struct group *group, size_t head, size_t first, size_t rows,
                   float *probabilities, const struct memory *memory)
{
    const struct attention *attention = run->attention;
    const struct kernels *kernels = run->compute->kernels;
    const size_t n = group->tokens;
    compare(run, group, head, first, rows, probabilities, memory);
    const vit_stage before = compute_enter(run->compute, VIT_STAGE_SOFTMAX);
    if (attention->bias != NULL)
        kernels->add_bias(probabilities, attention->bias + (head * n + first) * n, 1, rows * n);
    if (group->regions != NULL)
        mask_regions(probabilities, group->regions, first, rows, n);
    if (attention->causal)
        softmax_causal(kernels, probabilities, first, rows, n);
    else
        kernels->softmax(probabilities, rows, n);
    compute_enter(run->compute, before);
}

/* mixed [NH, rows * n] = mixing [NH, NH] probabilities + mixing_bias */
static void mix(const struct run *run, size_t size, const struct memory *memory)
{
    const struct attention *attention = run->attention;
    for (size_t head = 0; head < attention->heads; head++)
        for (size_t i = 0; i < size; i++)
            memory->mixed[head * size + i] = attention->mixing_bias[head];
    compute_gemm(run->compute, &(struct gemm){.m = attention->heads, .n = size, .k = attention->heads, .alpha = 1,
                                              .beta = 1, .a = attention->mixing, .lda = attention->heads,
                                              .b = memory->probabilities, .ldb = size, .c = memory->mixed, .ldc = size});
}

/* Shows a head's probabilities [rows, n] and multiplies the values by them. */
static void gather_values(const struct run *run, const struct group *group, size_t head, size_t first, size_t rows,
                          const float *probabilities, const struct memory *memory)
{
    const struct observer *observer = run->observer;
    const size_t n = group->tokens, head_width = run->width / run->attention->heads;
    float *out = group->out + first * run->width + head * head_width;
    if (observer != NULL && observer->attention != NULL)
        observer->attention(observer->context,
                            &(struct attention_view){.layer = run->layer, .head = head, .matrix = probabilities,
                                                     .first = first, .rows = rows, .queries = n, .keys = n,
                                                     .prefix = run->attention->prefix, .places = group->places});
    if (run->attention->products != NULL) {
        const struct packed values = panel_of(run, group, head, 1);
        compute_packed(run->compute, &values, out, run->width, probabilities, n, 1, rows, false, memory->operand);
    } else {
        compute_gemm(run->compute, &(struct gemm){.m = rows, .n = head_width, .k = n, .alpha = 1, .beta = 0,
                                                  .a = probabilities, .lda = n,
                                                  .b = group->qkv + 2 * run->width + head * head_width,
                                                  .ldb = 3 * run->width, .c = out, .ldc = run->width});
    }
}

/* ---- tiles ---- */

static void run_tile(const struct run *run, const struct group *group, size_t head, size_t first, size_t rows,
                     const struct memory *memory)
{
    attend(run, group, head, first, rows, memory->probabilities, memory);
    gather_values(run, group, head, first, rows, memory->probabilities, memory);
}

/* All heads at once, since they are mixed. */
static void run_mixed_tile(const struct run *run, const struct group *group, size_t first, size_t rows,
                           const struct memory *memory)
{
    const size_t heads = run->attention->heads, size = rows * group->tokens;
    for (size_t head = 0; head < heads; head++)
        attend(run, group, head, first, rows, memory->probabilities + head * size, memory);
    mix(run, size, memory);
    for (size_t head = 0; head < heads; head++)
        gather_values(run, group, head, first, rows, memory->mixed + head * size, memory);
}

static void pack_part(void *argument, size_t head, float *scratch)
{
    const struct run *run = argument;
    (void)scratch;
    pack_head(run, &run->all, head);
}

static void tile_part(void *argument, size_t index, float *scratch)
{
    const struct run *run = argument;
    const size_t heads = run->attention->mixing != NULL ? 1 : run->attention->heads;
    const size_t first = index / heads * run->tile, left = run->wanted - first;
    const size_t rows = left < run->tile ? left : run->tile;
    struct memory memory;
    lay_out(run->attention, run->all.tokens, run->width, false, scratch, &memory);
    if (run->attention->mixing != NULL)
        run_mixed_tile(run, &run->all, first, rows, &memory);
    else
        run_tile(run, &run->all, index % heads, first, rows, &memory);
}

static void run_all(struct run *run)
{
    const size_t tiles = (run->wanted + run->tile - 1) / run->tile;
    if (run->attention->products != NULL)
        compute_parts(run->compute, run->attention->heads, pack_part, run);
    compute_parts(run->compute, tiles * (run->attention->mixing != NULL ? 1 : run->attention->heads), tile_part, run);
}

/* The queries of a group from `from` on, by one thread. */
static void run_group(const struct run *run, const struct group *group, size_t from, const struct memory *memory)
{
    const struct attention *attention = run->attention;
    const size_t n = group->tokens, tile = attention_rows(attention, n);
    for (size_t first = from; first < n; first += tile)
        for (size_t head = 0; head < attention->heads; head++) {
            if (attention->products != NULL)
                pack_head(run, group, head);
            run_tile(run, group, head, first, n - first < tile ? n - first : tile, memory);
        }
}

/* ---- windows ---- */

/* rows [size, floats] of the tokens in a window; padding [floats] or NULL for zeros. */
static void gather_rows(float *rows, const float *tokens, const float *padding, const int32_t *places, size_t size,
                        size_t floats)
{
    for (size_t slot = 0; slot < size; slot++, rows += floats)
        if (places[slot] >= 0)
            memcpy(rows, tokens + (size_t)places[slot] * floats, floats * sizeof *rows);
        else if (padding != NULL)
            memcpy(rows, padding, floats * sizeof *rows);
        else
            memset(rows, 0, floats * sizeof *rows);
}

static void scatter_rows(float *tokens, const float *rows, const int32_t *places, size_t size, size_t floats)
{
    for (size_t slot = 0; slot < size; slot++)
        if (places[slot] >= 0)
            memcpy(tokens + (size_t)places[slot] * floats, rows + slot * floats, floats * sizeof *rows);
}

static void window_part(void *argument, size_t index, float *scratch)
{
    const struct run *run = argument;
    const struct attention *attention = run->attention;
    const struct windows *windows = attention->windows;
    const size_t n = windows->size, slots = index * n;
    struct memory memory;
    lay_out(attention, n, run->width, false, scratch, &memory);
    const struct group group = {.qkv = memory.qkv, .out = memory.out, .tokens = n, .panels = memory.panels,
                                .places = windows->places + slots,
                                .regions = windows->regions != NULL ? windows->regions + slots : NULL};
    gather_rows(memory.qkv, run->all.qkv, attention->padding, windows->places + slots, n, 3 * run->width);
    run_group(run, &group, 0, &memory);
    scatter_rows(run->all.out, memory.out, windows->places + slots, n, run->width);
}

/* ---- sequences ---- */

static void sequence_part(void *argument, size_t index, float *scratch)
{
    const struct run *run = argument;
    const size_t start = run->sequences->starts[index], n = run->sequences->starts[index + 1] - start;
    struct memory memory;
    lay_out(run->attention, n, run->width, true, scratch, &memory);
    const struct group group = {.qkv = run->all.qkv + 3 * start * run->width, .out = run->all.out + start * run->width,
                                .tokens = n, .panels = memory.panels};
    run_group(run, &group, run->sequences->ends_only ? n - 1 : 0, &memory);
}

void attention_sequences(const struct attention *attention, const struct compute *compute, float *out, const float *qkv,
                         const struct sequences *sequences, size_t width)
{
    struct run run = {.attention = attention, .compute = compute, .width = width, .sequences = sequences,
                      .all = {.qkv = qkv, .out = out}};
    const vit_stage before = compute_enter(compute, VIT_STAGE_ATTENTION);
    compute_parts(compute, sequences->count, sequence_part, &run);
    compute_enter(compute, before);
}

/* ---- all ---- */

void attention_forward(const struct attention *attention, const struct compute *compute, float *memory, float *out,
                       const float *qkv, size_t tokens, size_t wanted, size_t width, size_t layer,
                       const struct observer *observer)
{
    const struct windows *windows = attention->windows;
    struct compute own = *compute;
    if (observer != NULL && observer->attention != NULL)
        own.team = NULL; /* it sees tile by tile, in order */
    struct run run = {.attention = attention, .compute = &own, .observer = observer, .width = width, .layer = layer,
                      .wanted = wanted, .tile = attention_rows(attention, tokens),
                      .all = {.qkv = qkv, .out = out, .tokens = tokens, .panels = memory,
                              .panel_stride = panel_floats(attention, tokens, width / attention->heads)}};
    const vit_stage before = compute_enter(compute, VIT_STAGE_ATTENTION);
    if (windows == NULL)
        run_all(&run);
    else
        compute_parts(&own, windows->count, window_part, &run);
    compute_enter(compute, before);
}
