/*
 * attention.c - multi-head self-attention (arXiv 1706.03762, section 3.2) over one image's tokens, or within windows
 * of them, a tile of query rows at a time: the probabilities never leave the cache.
 */
#include <string.h>

#include "engine/layers/layers.h"

enum {
    TILE_FLOATS = 128 * 1024, /* half of a common L2 cache */
    TILE_STEP = 16
};

/* Tokens that attend to one another: all of an image, or a window's. */
struct group {
    const float *qkv; /* [n, 3*C] */
    float *out;       /* [n, C] */
    size_t tokens;    /* n */
    const int32_t *places;  /* [n], or NULL without windows */
    const uint8_t *regions; /* [n], or NULL */
};

/* What does not change over the tiles of a run. */
struct run {
    const struct attention *attention;
    const struct compute *compute;
    const struct observer *observer;
    size_t width, layer;
    size_t wanted;        /* queries */
    float *probabilities; /* [rows, n], with mixing [NH, rows, n] */
    float *mixed;         /* [NH, rows, n] with mixing */
};

static size_t tile_heads(const struct attention *attention)
{
    return attention->mixing != NULL ? attention->heads : 1;
}

size_t attention_rows(const struct attention *attention, size_t tokens)
{
    const size_t copies = attention->mixing != NULL ? 2 * attention->heads : 1;
    const size_t fitting = TILE_FLOATS / (copies * tokens) / TILE_STEP * TILE_STEP;
    const size_t rows = fitting > TILE_STEP ? fitting : TILE_STEP;
    return rows < tokens ? rows : tokens;
}

/* The parts of the memory: probabilities, mixed ones, and a window's qkv and outputs. */
static size_t lay_out(const struct attention *attention, size_t tokens, size_t width, size_t starts[4])
{
    const struct windows *windows = attention->windows;
    const size_t n = windows != NULL ? windows->size : tokens;
    const size_t tile = tile_heads(attention) * attention_rows(attention, n) * n;
    const size_t sizes[] = {tile, attention->mixing != NULL ? tile : 0, windows != NULL ? 3 * n * width : 0,
                            windows != NULL ? n * width : 0};
    return parts_lay_out(starts, sizes, 4);
}

size_t attention_floats(const struct attention *attention, size_t tokens, size_t width)
{
    size_t starts[4];
    return lay_out(attention, tokens, width, starts);
}

/* Strangers in a shifted window, as the references mask them. */
static void mask_regions(float *scores, const uint8_t *regions, size_t first, size_t rows, size_t tokens)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < tokens; j++)
            scores[i * tokens + j] += regions[first + i] != regions[j] ? -100.0f : 0;
}

/* probabilities [rows, n] of one head for the queries from `first` on */
static void attend(const struct run *run, const struct group *group, size_t head, size_t first, size_t rows,
                   float *probabilities)
{
    const struct attention *attention = run->attention;
    const size_t n = group->tokens, head_width = run->width / attention->heads, stride = 3 * run->width;
    const float *q = group->qkv + first * stride + head * head_width, *k = group->qkv + run->width + head * head_width;
    gemm_run(&(struct gemm){.m = rows, .n = n, .k = head_width, .alpha = attention->scale, .beta = 0, .a = q,
                            .lda = stride, .b = k, .ldb = stride, .b_transposed = true, .c = probabilities, .ldc = n},
             run->compute->trace);
    if (attention->bias != NULL)
        run->compute->kernels->add_bias(probabilities, attention->bias + (head * n + first) * n, 1, rows * n);
    if (group->regions != NULL)
        mask_regions(probabilities, group->regions, first, rows, n);
    run->compute->kernels->softmax(probabilities, rows, n);
}

/* mixed [NH, rows * n] = mixing [NH, NH] probabilities + mixing_bias */
static void mix(const struct run *run, size_t size)
{
    const struct attention *attention = run->attention;
    for (size_t head = 0; head < attention->heads; head++)
        for (size_t i = 0; i < size; i++)
            run->mixed[head * size + i] = attention->mixing_bias[head];
    gemm_run(&(struct gemm){.m = attention->heads, .n = size, .k = attention->heads, .alpha = 1, .beta = 1,
                            .a = attention->mixing, .lda = attention->heads, .b = run->probabilities, .ldb = size,
                            .c = run->mixed, .ldc = size},
             run->compute->trace);
}

/* Shows a head's probabilities [rows, n] and multiplies the values by them. */
static void gather_values(const struct run *run, const struct group *group, size_t head, size_t first, size_t rows,
                          const float *probabilities)
{
    const struct observer *observer = run->observer;
    const size_t n = group->tokens, head_width = run->width / run->attention->heads;
    if (observer != NULL && observer->attention != NULL)
        observer->attention(observer->context,
                            &(struct attention_view){.layer = run->layer, .head = head, .matrix = probabilities,
                                                     .first = first, .rows = rows, .queries = n, .keys = n,
                                                     .prefix = run->attention->prefix, .places = group->places});
    gemm_run(&(struct gemm){.m = rows, .n = head_width, .k = n, .alpha = 1, .beta = 0, .a = probabilities, .lda = n,
                            .b = group->qkv + 2 * run->width + head * head_width, .ldb = 3 * run->width,
                            .c = group->out + first * run->width + head * head_width, .ldc = run->width},
             run->compute->trace);
}

static void run_group(const struct run *run, const struct group *group)
{
    const struct attention *attention = run->attention;
    const size_t n = group->tokens, tile = attention_rows(attention, n);
    for (size_t first = 0; first < run->wanted; first += tile) {
        const size_t rows = tile < run->wanted - first ? tile : run->wanted - first;
        if (attention->mixing == NULL) {
            for (size_t head = 0; head < attention->heads; head++) {
                attend(run, group, head, first, rows, run->probabilities);
                gather_values(run, group, head, first, rows, run->probabilities);
            }
            continue;
        }
        for (size_t head = 0; head < attention->heads; head++)
            attend(run, group, head, first, rows, run->probabilities + head * rows * n);
        mix(run, rows * n);
        for (size_t head = 0; head < attention->heads; head++)
            gather_values(run, group, head, first, rows, run->mixed + head * rows * n);
    }
}

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

void attention_forward(const struct attention *attention, const struct compute *compute, float *memory, float *out,
                       const float *qkv, size_t tokens, size_t wanted, size_t width, size_t layer,
                       const struct observer *observer)
{
    const struct windows *windows = attention->windows;
    size_t starts[4];
    lay_out(attention, tokens, width, starts);
    const struct run run = {.attention = attention, .compute = compute, .observer = observer, .width = width,
                            .layer = layer, .wanted = windows != NULL ? windows->size : wanted, .probabilities = memory + starts[0], .mixed = memory + starts[1]};
    if (windows == NULL) {
        run_group(&run, &(struct group){.qkv = qkv, .out = out, .tokens = tokens});
        return;
    }
    float *window_qkv = memory + starts[2], *window_out = memory + starts[3];
    for (size_t i = 0; i < windows->count; i++) {
        const size_t slots = i * windows->size;
        const struct group group = {.qkv = window_qkv, .out = window_out, .tokens = windows->size,
                                    .places = windows->places + slots,
                                    .regions = windows->regions != NULL ? windows->regions + slots : NULL};
        gather_rows(window_qkv, qkv, attention->padding, group.places, windows->size, 3 * width);
        run_group(&run, &group);
        scatter_rows(out, window_out, group.places, windows->size, width);
    }
}
