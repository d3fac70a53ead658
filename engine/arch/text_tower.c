/*
 * text_tower.c - CLIP's text encoder (arXiv 2103.00020).
 *
 *     tokens = table[ids] + positions
 *     tokens = block(tokens)                                        L times, each token seeing those before it
 *     embedding = projection(norm(tokens)[end]) at unit length
 *
 * Labels are short, and the mask hides what comes after the end: texts are not padded to the context's length but lie
 * one after the other, so that products see many rows at a time. Attention alone goes text by text. The last block
 * computes nothing but the ends.
 */
#include "engine/arch/text_tower.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

/* Tokens that run together: enough rows to pay for reading a layer's weights, in tens of megabytes. */
enum { TOGETHER = 1024, MAX_CONTEXT = 1 << 12, MAX_VOCABULARY = 1 << 22 };

#define PREFIX "text_model."

/* ---- loading ---- */

static vit_status load_embeddings(struct text_tower *tower, const struct loader *loader)
{
    const char *const names[] = {PREFIX "embeddings.token_embedding.weight",
                                 PREFIX "embeddings.position_embedding.weight"};
    const struct tensor *tokens = load_find(loader, names[0]), *positions = load_find(loader, names[1]);
    if (tokens == NULL)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                             "tensor '%s' [vocabulary, width] is missing: the folder holds no text tower, and vitd "
                             "runs whole CLIP models", names[0]);
    if (tokens->rank != 2 || tokens->shape[0] < 1 || tokens->shape[0] > MAX_VOCABULARY || tokens->shape[1] < 1 ||
        tokens->shape[1] > MAX_WIDTH)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s': [vocabulary, width] was expected", names[0]);
    tower->vocabulary = tokens->shape[0];
    tower->width = tokens->shape[1];
    tower->context = positions != NULL && positions->rank == 2 ? positions->shape[0] : 0;
    if (tower->context < 2 || tower->context > MAX_CONTEXT)
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "tensor '%s' [positions, %zu] is missing or has another shape; 2 to %d positions are "
                             "possible", names[1], tower->width, MAX_CONTEXT);
    vit_status status = load_tensor(loader, &tower->tokens, names[0], tokens->shape, 2);
    if (status == VIT_OK)
        status = load_tensor(loader, &tower->positions, names[1], (size_t[]){tower->context, tower->width}, 2);
    if (status == VIT_OK && (const void *)tower->tokens == (const void *)tokens->data)
        *loader->folder->mapped += tokens->bytes;
    return status;
}

static vit_status check_size(const struct loader *loader, const cJSON *config, const char *key, size_t found)
{
    size_t said = found;
    vit_status status = json_size(config, key, 1, SIZE_MAX >> 12, &said, NULL, loader->err);
    if (status == VIT_OK && said != found)
        status = vit_error_set(loader->err, VIT_ERR_FORMAT,
                               "config.json: \"text_config.%s\" is %zu, the tensors say %zu", key, said, found);
    return status;
}

/* What the tensors do not tell, and whether they are what the config says. */
static vit_status configure(struct text_tower *tower, struct loader *loader, const cJSON *config)
{
    tower->layers = load_count(loader, PREFIX "encoder.layers.", "layer_norm1.weight");
    vit_status status = load_transformers_keys(loader);
    if (status == VIT_OK)
        status = json_size(config, "num_attention_heads", 1, MAX_WIDTH, &tower->heads, NULL, loader->err);
    if (status == VIT_OK)
        status = load_check_heads(loader, tower->width, tower->heads);
    if (status == VIT_OK)
        status = json_size(config, "eos_token_id", 0, MAX_VOCABULARY, &tower->end, NULL, loader->err);
    if (status == VIT_OK)
        status = check_size(loader, config, "num_hidden_layers", tower->layers);
    if (status == VIT_OK)
        status = check_size(loader, config, "vocab_size", tower->vocabulary);
    return status == VIT_OK ? check_size(loader, config, "max_position_embeddings", tower->context) : status;
}

static vit_status load_blocks(struct text_tower *tower, struct loader *loader)
{
    const float scale = 1 / sqrtf((float)(tower->width / tower->heads));
    tower->blocks = calloc(tower->layers, sizeof *tower->blocks);
    if (tower->blocks == NULL)
        return vit_error_set(loader->err, VIT_ERR_NO_MEMORY, "no memory for %zu layers", tower->layers);
    vit_status status = VIT_OK;
    for (size_t i = 0; i < tower->layers && status == VIT_OK; i++) {
        struct block *block = &tower->blocks[i];
        block->attention = (struct attention){.heads = tower->heads, .scale = scale, .causal = true};
        status = load_block(loader, block, name_of(PREFIX "encoder.layers.%zu.", i).text, &clip_block_names,
                            tower->width);
        if (status == VIT_OK && block->mlp.fc1.out != tower->blocks[0].mlp.fc1.out)
            status = vit_error_set(loader->err, VIT_ERR_UNSUPPORTED, "the text tower's MLPs differ in width");
        if (status == VIT_OK)
            status = load_packed_block(loader, block);
        load_attention_products(loader, &block->attention, tower->context, tower->width);
    }
    return status;
}

vit_status text_tower_load(struct text_tower *tower, const struct folder *folder, const cJSON *config, vit_error *err)
{
    struct folder section = *folder;
    section.config = config;
    struct loader loader = {.folder = &section, .err = err};
    vit_status status = load_embeddings(tower, &loader);
    if (status == VIT_OK)
        status = configure(tower, &loader, config);
    if (status == VIT_OK)
        status = load_blocks(tower, &loader);
    if (status == VIT_OK)
        status = load_norm(&loader, &tower->norm, PREFIX "final_layer_norm", tower->width);
    return status == VIT_OK ? load_projection(&loader, &tower->projection, "text_projection", tower->width) : status;
}

void text_tower_release(struct text_tower *tower)
{
    free(tower->blocks);
    *tower = (struct text_tower){0};
}

/* ---- running ---- */

struct layout_in_memory {
    float *tokens; /* [T, C] */
    struct block_scratch scratch; /* hidden also holds the embeddings */
    size_t floats;
};

static struct layout_in_memory lay_out(const struct text_tower *tower, float *memory)
{
    const size_t tokens = text_tower_capacity(tower), width = tower->width;
    const size_t hidden = size_larger(tower->blocks[0].mlp.fc1.out, tower->projection.out);
    const size_t sizes[] = {tokens * width, tokens * width, tokens * 3 * width, tokens * hidden};
    size_t starts[sizeof sizes / sizeof sizes[0]];
    struct layout_in_memory layout = {.floats = parts_lay_out(starts, sizes, sizeof sizes / sizeof sizes[0])};
    if (memory != NULL) {
        layout.tokens = memory + starts[0];
        layout.scratch = (struct block_scratch){.normed = memory + starts[1], .qkv = memory + starts[2],
                                                .hidden = memory + starts[3]};
    }
    return layout;
}

size_t text_tower_memory(const struct text_tower *tower)
{
    return lay_out(tower, NULL).floats;
}

size_t text_tower_capacity(const struct text_tower *tower)
{
    return size_larger(TOGETHER, tower->context);
}

/* As transformers pools: the first of the largest ids, or the first end token, and the first token if there is none. */
size_t text_tower_length(const struct text_tower *tower, const int32_t *ids, size_t count)
{
    size_t end = 0;
    if (tower->end == LARGEST_ID) {
        for (size_t i = 1; i < count; i++)
            end = ids[i] > ids[end] ? i : end;
        return end + 1;
    }
    while (end < count && (size_t)ids[end] != tower->end)
        end++;
    return end < count ? end + 1 : 1;
}

/* tokens [T, C] */
static void embed(const struct text_tower *tower, const struct compute *compute, float *tokens, const int32_t *ids,
                  const struct sequences *sequences)
{
    const size_t width = tower->width;
    for (size_t i = 0; i < sequences->count; i++) {
        const size_t start = sequences->starts[i], length = sequences->starts[i + 1] - start;
        for (size_t j = start; j < start + length; j++)
            memcpy(tokens + j * width, tower->tokens + (size_t)ids[j] * width, width * sizeof *tokens);
        compute->kernels->add(tokens + start * width, tower->positions, -INFINITY, length * width);
    }
}

static void run(const struct text_tower *tower, const struct compute *compute, const struct layout_in_memory *layout,
                const int32_t *ids, const struct sequences *sequences, float *const *embeddings)
{
    const struct sequences ends = {sequences->count, sequences->starts, true};
    const struct block_scratch *scratch = &layout->scratch;
    float *tokens = layout->tokens;
    embed(tower, compute, tokens, ids, sequences);
    for (size_t layer = 0; layer < tower->layers; layer++)
        block_forward_sequences(&tower->blocks[layer], compute, scratch, tokens,
                                layer + 1 < tower->layers ? sequences : &ends);
    norm_forward(&tower->norm, compute, scratch->normed, tokens, sequences->count, tower->width);
    linear_forward(&tower->projection, compute, scratch->hidden, scratch->normed, tower->width, sequences->count);
    for (size_t i = 0; i < sequences->count; i++)
        unit_length(embeddings[i], scratch->hidden + i * tower->projection.out, tower->projection.out);
}

/* OpenBLAS's results depend on the number of rows: it gets one text at a time. */
void text_tower_forward(const struct text_tower *tower, const struct compute *compute, float *memory,
                        const struct arch_texts *texts)
{
    const struct layout_in_memory layout = lay_out(tower, memory);
    if (tower->projection.packed.products != NULL) {
        run(tower, compute, &layout, texts->ids, &(struct sequences){texts->count, texts->starts, false},
            texts->embeddings);
        return;
    }
    for (size_t i = 0; i < texts->count; i++) {
        const size_t starts[] = {0, texts->starts[i + 1] - texts->starts[i]};
        run(tower, compute, &layout, texts->ids + texts->starts[i], &(struct sequences){1, starts, false},
            texts->embeddings + i);
    }
}
