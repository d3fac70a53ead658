/*
 * mvit.c - the forward pass of MViTv2 (arXiv 2112.01526), timm's: an encoder whose grid shrinks and whose width grows
 * from stage to stage. Image by image.
 *
 *     x = [class, conv7x7 / 4 (picture)];  x = block(x) L times;  logits = head(norm(x)[class] or mean(norm(x)))
 *
 * A block pools q, k and v by depthwise convolutions with strides; the stride of q shrinks the grid. Decomposed relative
 * positions: the score of a query at (y, x) and a key at (i, j) gains q . R_rows[y, i] + q . R_columns[x, j].
 */
#include <math.h>
#include <string.h>

#include "engine/arch/mvit_network.h"
#include "engine/base/size.h"

enum { TILE_FLOATS = 128 * 1024 };

/* Working memory for one image, sized for the block that needs the most of each. */
struct mvit_memory {
    float *tokens[3]; /* x, and what becomes of it; tokens[1] begins as the picture */
    float *normed;
    float *qkv;
    float *query, *key, *value; /* pooled, [T, width] */
    float *rows, *columns;      /* [T, NH, key rows] and [T, NH, key columns]: what relative positions add */
    float *scores;              /* a tile of [rows, keys] */
    float *hidden;
};

enum { PARTS = 12 };

static size_t tile_rows(size_t queries, size_t keys)
{
    const size_t rows = size_larger(TILE_FLOATS / keys, 16);
    return rows < queries ? rows : queries;
}

static size_t tokens_in(const struct mvit *mvit, const struct mvit_block *block)
{
    return mvit->prefix + block->query.sliding.height * block->query.sliding.width;
}

static size_t tokens_of(const struct mvit *mvit, const struct pooling_conv *pool)
{
    return mvit->prefix + sliding_positions(&pool->sliding);
}

static void measure(const struct mvit *mvit, const struct mvit_block *block, size_t sizes[PARTS])
{
    const size_t in = tokens_in(mvit, block), queries = tokens_of(mvit, &block->query);
    const size_t keys = tokens_of(mvit, &block->key), width = block->width;
    const struct sliding *key = &block->key.sliding;
    const size_t tokens = in * size_larger(block->in, size_larger(width, block->out));
    const size_t normed = size_larger(in * block->in, queries * size_larger(width, block->out));
    const size_t needed[PARTS] = {tokens, tokens, tokens, normed, in * 3 * width,
                                  queries * width, keys * width, keys * width,
                                  queries * block->heads * key->out_height, queries * block->heads * key->out_width,
                                  tile_rows(queries, keys) * keys, queries * block->mlp.fc1.out};
    for (size_t i = 0; i < PARTS; i++)
        sizes[i] = size_larger(sizes[i], needed[i]);
}

static size_t lay_out(const struct mvit *mvit, float *memory, struct mvit_memory *parts)
{
    size_t sizes[PARTS] = {[1] = 3 * mvit->image_height * mvit->image_width};
    for (size_t i = 0; i < mvit->layers; i++)
        measure(mvit, &mvit->blocks[i], sizes);
    size_t at[PARTS];
    const size_t floats = parts_lay_out(at, sizes, PARTS);
    if (memory != NULL)
        *parts = (struct mvit_memory){.tokens = {memory + at[0], memory + at[1], memory + at[2]}, .normed = memory + at[3],
                                      .qkv = memory + at[4], .query = memory + at[5], .key = memory + at[6],
                                      .value = memory + at[7], .rows = memory + at[8], .columns = memory + at[9],
                                      .scores = memory + at[10], .hidden = memory + at[11]};
    return floats;
}

static size_t memory(const void *state, size_t batch)
{
    (void)batch; /* image by image */
    return lay_out(state, NULL, NULL);
}

/* One image's run. */
struct pass {
    const struct mvit *mvit;
    const struct compute *compute;
    const struct observer *observer;
    struct mvit_memory memory;
};

/* ---- pooling ---- */

/* out [width] = the weighted sum of the tokens under the kernel at position i; tokens are `stride` floats apart. */
static void convolve(const struct pooling_conv *pool, const struct compute *compute, float *out, const float *tokens,
                     size_t stride, size_t width, size_t i)
{
    const struct sliding *s = &pool->sliding;
    const ptrdiff_t top = (ptrdiff_t)(i / s->out_width * s->stride) - (ptrdiff_t)s->top;
    const ptrdiff_t left = (ptrdiff_t)(i % s->out_width * s->stride) - (ptrdiff_t)s->left;
    memset(out, 0, width * sizeof *out);
    for (size_t tap = 0; tap < s->kernel * s->kernel; tap++) {
        const ptrdiff_t y = top + (ptrdiff_t)(tap / s->kernel), x = left + (ptrdiff_t)(tap % s->kernel);
        if (y >= 0 && y < (ptrdiff_t)s->height && x >= 0 && x < (ptrdiff_t)s->width)
            compute->kernels->multiply_add(out, tokens + ((size_t)y * s->width + (size_t)x) * stride,
                                           pool->weight + tap * width, width);
    }
}

/* out [prefix + positions, width] from a third of qkv */
static void pool_tokens(const struct pass *pass, const struct mvit_block *block, const struct pooling_conv *pool,
                        float *out, const float *qkv)
{
    const size_t width = block->width, stride = 3 * width, prefix = pass->mvit->prefix;
    const size_t tokens = tokens_of(pass->mvit, pool);
    if (prefix > 0)
        memcpy(out, qkv, width * sizeof *out);
    for (size_t i = prefix; i < tokens; i++)
        convolve(pool, pass->compute, out + i * width, qkv + prefix * stride, stride, width, i - prefix);
    norm_forward(&pool->norm, pass->compute, out, out, tokens * block->heads, width / block->heads);
}

/* The shortcut around attention, in one of the token buffers: x or its projection, pooled as the queries are. */
static float *shortcut(const struct pass *pass, const struct mvit_block *block)
{
    const struct mvit_memory *memory = &pass->memory;
    const size_t prefix = pass->mvit->prefix * block->width;
    float *from = memory->tokens[0];
    if (block->shortcut_attention.out > 0) {
        from = memory->tokens[1];
        linear_forward(&block->shortcut_attention, pass->compute, from, memory->normed, block->in,
                       tokens_in(pass->mvit, block));
    }
    if (block->shortcut_pool.kernel == 0)
        return from;
    float *to = memory->tokens[2];
    memcpy(to, from, prefix * sizeof *to);
    max_pool(to + prefix, from + prefix, &block->shortcut_pool, pass->compute, block->width, -INFINITY);
    return to;
}

/* ---- attention ---- */

/* memory->rows and columns, for all heads: every query of a grid row has the same R_rows, of a column R_columns. */
static void relate(const struct pass *pass, const struct mvit_block *block)
{
    const struct mvit_memory *memory = &pass->memory;
    const struct sliding *query = &block->query.sliding, *key = &block->key.sliding;
    const size_t heads = block->heads, head_width = block->width / heads;
    const float *q = memory->query + pass->mvit->prefix * block->width;
    const size_t line = query->out_width * heads; /* queries and heads in a row of the grid */
    for (size_t y = 0; y < query->out_height; y++)
        compute_gemm(pass->compute,
                     &(struct gemm){.m = line, .n = key->out_height, .k = head_width, .alpha = 1, .beta = 0,
                                    .a = q + y * line * head_width, .lda = head_width,
                                    .b = block->relative_rows + y * key->out_height * head_width, .ldb = head_width,
                                    .b_transposed = true, .c = memory->rows + y * line * key->out_height,
                                    .ldc = key->out_height});
    for (size_t i = 0; i < line; i++) /* down a column, for one head */
        compute_gemm(pass->compute,
                     &(struct gemm){.m = query->out_height, .n = key->out_width, .k = head_width, .alpha = 1,
                                    .beta = 0, .a = q + i * head_width, .lda = line * head_width,
                                    .b = block->relative_columns + i / heads * key->out_width * head_width,
                                    .ldb = head_width, .b_transposed = true,
                                    .c = memory->columns + i * key->out_width, .ldc = line * key->out_width});
}

/* Adds what relative positions give to the scores of the queries first .. first + rows - 1; class tokens have none. */
static void add_relations(const struct pass *pass, const struct mvit_block *block, size_t head, size_t first, size_t rows)
{
    const size_t height = block->key.sliding.out_height, width = block->key.sliding.out_width;
    const size_t prefix = pass->mvit->prefix, keys = prefix + height * width;
    for (size_t i = 0; i < rows; i++) {
        if (first + i < prefix)
            continue;
        const size_t index = (first + i - prefix) * block->heads + head;
        const float *down = pass->memory.rows + index * height, *across = pass->memory.columns + index * width;
        float *scores = pass->memory.scores + i * keys + prefix;
        for (size_t y = 0; y < height; y++, scores += width)
            for (size_t x = 0; x < width; x++)
                scores[x] += down[y] + across[x];
    }
}

/* A tile of queries of one head: memory->normed += A v */
static void attend(const struct pass *pass, const struct mvit_block *block, size_t layer, size_t head, size_t first,
                   size_t rows)
{
    const struct mvit_memory *memory = &pass->memory;
    const struct observer *observer = pass->observer;
    const size_t width = block->width, head_width = width / block->heads, keys = tokens_of(pass->mvit, &block->key);
    compute_gemm(pass->compute,
                 &(struct gemm){.m = rows, .n = keys, .k = head_width, .alpha = 1 / sqrtf((float)head_width),
                                .beta = 0, .a = memory->query + first * width + head * head_width, .lda = width,
                                .b = memory->key + head * head_width, .ldb = width, .b_transposed = true,
                                .c = memory->scores, .ldc = keys});
    add_relations(pass, block, head, first, rows);
    pass->compute->kernels->softmax(memory->scores, rows, keys);
    if (observer != NULL && observer->attention != NULL)
        observer->attention(observer->context,
                            &(struct attention_view){.layer = layer, .head = head, .matrix = memory->scores,
                                                     .first = first, .rows = rows,
                                                     .queries = tokens_of(pass->mvit, &block->query), .keys = keys,
                                                     .prefix = pass->mvit->prefix});
    compute_gemm(pass->compute,
                 &(struct gemm){.m = rows, .n = head_width, .k = keys, .alpha = 1, .beta = 1, .a = memory->scores,
                                .lda = keys, .b = memory->value + head * head_width, .ldb = width,
                                .c = memory->normed + first * width + head * head_width, .ldc = width});
}

/* memory->normed [queries, width], from memory->qkv; the pooled queries are added to it (residual pooling). */
static void attention(const struct pass *pass, const struct mvit_block *block, size_t layer)
{
    const struct mvit_memory *memory = &pass->memory;
    const size_t queries = tokens_of(pass->mvit, &block->query), width = block->width;
    const size_t tile = tile_rows(queries, tokens_of(pass->mvit, &block->key));
    pool_tokens(pass, block, &block->query, memory->query, memory->qkv);
    pool_tokens(pass, block, &block->key, memory->key, memory->qkv + width);
    pool_tokens(pass, block, &block->value, memory->value, memory->qkv + 2 * width);
    relate(pass, block);
    memcpy(memory->normed, memory->query, queries * width * sizeof *memory->normed);
    for (size_t first = 0; first < queries; first += tile)
        for (size_t head = 0; head < block->heads; head++)
            attend(pass, block, layer, head, first, tile < queries - first ? tile : queries - first);
}

/* ---- the block ---- */

/* memory->tokens[0] to memory->tokens[0], the buffers changing places. */
static void run_block(struct pass *pass, const struct mvit_block *block, size_t layer)
{
    struct mvit_memory *memory = &pass->memory;
    const struct compute *compute = pass->compute;
    const size_t in = tokens_in(pass->mvit, block), queries = tokens_of(pass->mvit, &block->query);
    norm_forward(&block->norm1, compute, memory->normed, memory->tokens[0], in, block->in);
    linear_forward(&block->qkv, compute, memory->qkv, memory->normed, block->in, in);
    float *x = shortcut(pass, block);
    attention(pass, block, layer);
    linear_add(&block->proj, compute, x, memory->normed, queries);

    norm_forward(&block->norm2, compute, memory->normed, x, queries, block->width);
    if (block->shortcut_mlp.out > 0) {
        x = x == memory->tokens[1] ? memory->tokens[2] : memory->tokens[1];
        linear_forward(&block->shortcut_mlp, compute, x, memory->normed, block->width, queries);
    }
    mlp_forward(&block->mlp, compute, memory->hidden, x, memory->normed, queries, NULL);
    for (size_t i = 1; i < 3; i++)
        if (memory->tokens[i] == x) {
            memory->tokens[i] = memory->tokens[0];
            memory->tokens[0] = x;
        }
}

/* ---- the network ---- */

static void embed(const struct pass *pass, const float *pixels)
{
    const struct mvit *mvit = pass->mvit;
    const size_t prefix = mvit->prefix * mvit->patches.out;
    float *x = pass->memory.tokens[0], *picture = pass->memory.tokens[1];
    pixels_to_map(picture, pixels, mvit->image_height, mvit->image_width);
    if (prefix > 0)
        memcpy(x, mvit->class_token, prefix * sizeof *x);
    conv_forward(&mvit->patches, pass->compute, x + prefix, picture, false);
}

static void classify(const struct pass *pass, const struct arch_image *image)
{
    const struct mvit *mvit = pass->mvit;
    const struct mvit_block *last = &mvit->blocks[mvit->layers - 1];
    const size_t tokens = tokens_of(mvit, &last->query), width = last->out;
    float *x = pass->memory.tokens[0], *pooled = pass->memory.normed;
    norm_forward(&mvit->norm, pass->compute, x, x, tokens, width);
    if (mvit->pool_token)
        memcpy(pooled, x, width * sizeof *x);
    else
        mean_rows(pooled, x + mvit->prefix * width, tokens - mvit->prefix, width);
    linear_forward(&mvit->head, pass->compute, image->logits, pooled, width, 1);
    if (image->features != NULL)
        memcpy(image->features, pooled, width * sizeof *pooled);
}

static void forward_image(const struct mvit *mvit, const struct compute *compute, float *floats,
                          const struct arch_image *image)
{
    struct pass pass = {.mvit = mvit, .compute = compute, .observer = image->observer};
    lay_out(mvit, floats, &pass.memory);
    embed(&pass, image->pixels);
    for (size_t i = 0; i < mvit->layers; i++)
        run_block(&pass, &mvit->blocks[i], i);
    classify(&pass, image);
}

static void forward(const void *state, const struct compute *compute, float *floats, const struct arch_image *images,
                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        forward_image(state, compute, floats, &images[i]);
}

static bool recognise(const struct folder *folder)
{
    return folder->layout == LAYOUT_TIMM && strncmp(folder->name, "mvitv2_", 7) == 0;
}

const struct arch arch_mvit = {
    .name = "mvitv2",
    .runs = {[LAYOUT_TIMM] = "mvitv2_*"},
    .recognise = recognise,
    .load = mvit_load,
    .free = mvit_release,
    .memory = memory,
    .forward = forward,
};
