/*
 * mvit_load.c - reads MViTv2 in timm's names. Strides are the same in every published model: q by 2 where a stage begins
 * but the first, k and v by 4, then half as much from stage to stage.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/mvit_network.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

enum { KERNEL = 3, FIRST_KEY_STRIDE = 4 };

struct mvit_loader {
    struct loader base;
    struct mvit *mvit;
    size_t height, width, channels; /* of the map so far */
};

/* ---- pooling ---- */

/* "<name>" [HD, 1, 3, 3] as [9, heads * HD], and "<norm>". */
static vit_status load_pool(const struct mvit_loader *loader, struct pooling_conv *pool, const char *prefix,
                            const char *part, size_t heads, size_t head_width, size_t stride)
{
    const struct loader *base = &loader->base;
    const size_t area = KERNEL * KERNEL, width = heads * head_width;
    const float *weight;
    float *repeated;
    pool->sliding = sliding_padded(KERNEL, stride, KERNEL / 2, loader->height, loader->width);
    vit_status status = load_tensor(base, &weight, name_of("%sattn.pool_%s.weight", prefix, part).text,
                                    (size_t[]){head_width, 1, KERNEL, KERNEL}, 4);
    if (status == VIT_OK)
        status = load_norm(base, &pool->norm, name_of("%sattn.norm_%s", prefix, part).text, head_width);
    if (status == VIT_OK)
        status = load_derived(base, &repeated, area * width);
    if (status != VIT_OK)
        return status;
    for (size_t tap = 0; tap < area; tap++)
        for (size_t c = 0; c < width; c++)
            repeated[tap * width + c] = weight[c % head_width * area + tap];
    pool->weight = repeated;
    return VIT_OK;
}

/* ---- relative positions ---- */

/* The table's row for a query and a key: their distance, in steps of the finer of both grids, from its least value; in
 * single precision and in this order, as timm has it. */
static size_t relation(size_t query, size_t queries, size_t key, size_t keys)
{
    const double query_step = fmax((double)keys / (double)queries, 1), key_step = fmax((double)queries / (double)keys, 1);
    const float distance = (float)query * (float)query_step - (float)key * (float)key_step;
    return (size_t)(distance + (float)((double)(keys - 1) * key_step));
}

/* relations [queries, keys, HD] of the table "<name>" [rows, HD] */
static vit_status load_relations(const struct mvit_loader *loader, const float **relations, const char *name,
                                 size_t queries, size_t keys, size_t head_width)
{
    const struct loader *base = &loader->base;
    const struct tensor *tensor = load_find(base, name);
    const size_t rows = tensor != NULL && tensor->rank == 2 ? tensor->shape[0] : 1;
    const float *table;
    float *gathered;
    size_t count;
    vit_status status = load_tensor(base, &table, name, (size_t[]){rows, head_width}, 2);
    if (status == VIT_OK && relation(queries - 1, queries, 0, keys) >= rows)
        return vit_error_set(base->err, VIT_ERR_UNSUPPORTED,
                             "tensor '%s': %zu relative positions do not reach over a grid of %zu", name, rows,
                             queries > keys ? queries : keys);
    if (status == VIT_OK && !size_multiply(queries * keys, head_width, &count))
        return vit_error_set(base->err, VIT_ERR_UNSUPPORTED, "a grid of %zu is too large", queries);
    if (status == VIT_OK)
        status = load_derived(base, &gathered, count);
    if (status != VIT_OK)
        return status;
    for (size_t i = 0; i < queries * keys; i++)
        memcpy(gathered + i * head_width, table + relation(i / keys, queries, i % keys, keys) * head_width,
               head_width * sizeof *gathered);
    *relations = gathered;
    return VIT_OK;
}

/* ---- blocks ---- */

/* The rows of "<prefix><name>", at most `most`. */
static vit_status read_rows(const struct mvit_loader *loader, size_t *rows, const char *prefix, const char *name,
                            size_t most)
{
    const struct name text = name_of("%s%s", prefix, name);
    const struct tensor *tensor = load_find(&loader->base, text.text);
    if (tensor == NULL || tensor->rank < 1 || tensor->shape[0] < 1 || tensor->shape[0] > most)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT, "tensor '%s' is missing or has another shape", text.text);
    *rows = tensor->shape[0];
    return VIT_OK;
}

/* The width of attention off qkv, the heads off the queries' norm, the MLP's result off fc2. */
static vit_status measure_block(const struct mvit_loader *loader, struct mvit_block *block, const char *prefix)
{
    size_t qkv = 0, head_width = 1, hidden = 0;
    vit_status status = read_rows(loader, &qkv, prefix, "attn.qkv.weight", 3 * MAX_WIDTH);
    if (status == VIT_OK)
        status = read_rows(loader, &head_width, prefix, "attn.norm_q.weight", MAX_WIDTH);
    if (status == VIT_OK)
        status = read_rows(loader, &hidden, prefix, "mlp.fc1.weight", MAX_WIDTH);
    if (status == VIT_OK)
        status = read_rows(loader, &block->out, prefix, "mlp.fc2.weight", MAX_WIDTH);
    if (status == VIT_OK && qkv % (3 * head_width) != 0)
        status = vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                               "tensor '%sattn.qkv.weight' has %zu rows, which are not three times heads of %zu", prefix, qkv,
                               head_width);
    block->in = loader->channels;
    block->width = qkv / 3;
    block->heads = block->width / head_width;
    block->mlp = (struct mlp){.fc1 = {.out = hidden}, .activation = ACTIVATION_GELU};
    return status;
}

static vit_status load_attention(const struct mvit_loader *loader, struct mvit_block *block, const char *prefix,
                                 size_t query_stride, size_t key_stride)
{
    const struct loader *base = &loader->base;
    const size_t head_width = block->width / block->heads;
    vit_status status = load_norm(base, &block->norm1, name_of("%snorm1", prefix).text, block->in);
    if (status == VIT_OK)
        status = load_linear(base, &block->qkv, name_of("%sattn.qkv", prefix).text, 3 * block->width, block->in,
                             BIAS_OPTIONAL);
    if (status == VIT_OK)
        status = load_pool(loader, &block->query, prefix, "q", block->heads, head_width, query_stride);
    if (status == VIT_OK)
        status = load_pool(loader, &block->key, prefix, "k", block->heads, head_width, key_stride);
    if (status == VIT_OK)
        status = load_pool(loader, &block->value, prefix, "v", block->heads, head_width, key_stride);
    const struct sliding *query = &block->query.sliding, *key = &block->key.sliding;
    if (status == VIT_OK)
        status = load_relations(loader, &block->relative_rows, name_of("%sattn.rel_pos_h", prefix).text,
                                query->out_height, key->out_height, head_width);
    if (status == VIT_OK)
        status = load_relations(loader, &block->relative_columns, name_of("%sattn.rel_pos_w", prefix).text,
                                query->out_width, key->out_width, head_width);
    return status == VIT_OK ? load_linear(base, &block->proj, name_of("%sattn.proj", prefix).text, block->width,
                                          block->width, BIAS_REQUIRED)
                            : status;
}

/* A projection where the width changes; it must be there then. */
static vit_status load_shortcut(const struct mvit_loader *loader, struct linear *shortcut, const char *name, size_t out,
                                size_t in)
{
    return out != in ? load_linear(&loader->base, shortcut, name, out, in, BIAS_REQUIRED) : VIT_OK;
}

static vit_status load_block_of(struct mvit_loader *loader, struct mvit_block *block, const char *prefix,
                                size_t query_stride, size_t key_stride)
{
    const struct loader *base = &loader->base;
    vit_status status = measure_block(loader, block, prefix);
    if (status == VIT_OK)
        status = load_attention(loader, block, prefix, query_stride, key_stride);
    if (status == VIT_OK)
        status = load_shortcut(loader, &block->shortcut_attention, name_of("%sshortcut_proj_attn", prefix).text,
                               block->width, block->in);
    if (status == VIT_OK && query_stride > 1)
        block->shortcut_pool = sliding_padded(query_stride + 1, query_stride, (query_stride + 1) / 2, loader->height,
                                              loader->width);
    if (status == VIT_OK)
        status = load_norm(base, &block->norm2, name_of("%snorm2", prefix).text, block->width);
    const size_t hidden = block->mlp.fc1.out;
    if (status == VIT_OK)
        status = load_linear(base, &block->mlp.fc1, name_of("%smlp.fc1", prefix).text, hidden, block->width, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_linear(base, &block->mlp.fc2, name_of("%smlp.fc2", prefix).text, block->out, hidden, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_shortcut(loader, &block->shortcut_mlp, name_of("%sshortcut_proj_mlp", prefix).text, block->out,
                               block->width);
    loader->height = block->query.sliding.out_height;
    loader->width = block->query.sliding.out_width;
    loader->channels = block->out;
    struct linear *const linears[] = {&block->qkv, &block->proj, &block->mlp.fc1, &block->mlp.fc2,
                                      &block->shortcut_attention, &block->shortcut_mlp};
    return status == VIT_OK ? load_packed_all(base, linears, 6) : status;
}

static vit_status load_blocks(struct mvit_loader *loader)
{
    struct mvit *mvit = loader->mvit;
    size_t index = 0, key_stride = FIRST_KEY_STRIDE;
    vit_status status = VIT_OK;
    mvit->layers = load_count_staged(&loader->base, "", "norm1.weight");
    if (mvit->layers == 0)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT, "tensor 'stages.0.blocks.0.norm1.weight' is missing");
    mvit->blocks = calloc(mvit->layers, sizeof *mvit->blocks);
    if (mvit->blocks == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for %zu blocks", mvit->layers);
    for (size_t stage = 0; status == VIT_OK && index < mvit->layers; stage++) {
        const struct name blocks = name_of("stages.%zu.blocks.", stage);
        const size_t count = load_count(&loader->base, blocks.text, "norm1.weight");
        if (stage > 0)
            key_stride = key_stride > 1 ? key_stride / 2 : 1;
        for (size_t i = 0; status == VIT_OK && i < count; i++)
            status = load_block_of(loader, &mvit->blocks[index++], name_of("%s%zu.", blocks.text, i).text,
                                   stage > 0 && i == 0 ? 2 : 1, key_stride);
    }
    return status;
}

/* ---- all of it ---- */

static bool ends_in(const char *text, const char *ending)
{
    const size_t length = strlen(text), tail = strlen(ending);
    return length >= tail && strcmp(text + length - tail, ending) == 0;
}

/* The class token, by model_args.use_cls_token, else by the name; and with it the pooling, unless model_args says (the
 * config's own global_pool is not what timm goes by here). */
static vit_status read_pooling(struct mvit_loader *loader)
{
    const struct folder *folder = loader->base.folder;
    struct mvit *mvit = loader->mvit;
    bool class_token = ends_in(folder->name, "_cls");
    vit_status status = json_bool(folder->model_args, "use_cls_token", &class_token, NULL, loader->base.err);
    const char *pool = class_token ? "token" : "avg";
    if (status == VIT_OK)
        status = json_string(folder->model_args, "global_pool", &pool, NULL, loader->base.err);
    if (status != VIT_OK)
        return status;
    mvit->prefix = class_token;
    mvit->pool_token = strcmp(pool, "token") == 0;
    if (!mvit->pool_token && strcmp(pool, "avg") != 0)
        return load_refuse_pool(&loader->base, pool, "token or avg");
    if (mvit->pool_token && !class_token)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT, "config.json: \"global_pool\" is \"token\", and the model has "
                             "no class token");
    return VIT_OK;
}

/* Relative positions are for one size of the grid. */
static vit_status read_size(struct mvit_loader *loader)
{
    struct mvit *mvit = loader->mvit;
    const size_t wanted = loader->base.folder->image_size;
    vit_status status = load_image_size(&loader->base, &mvit->image_height, &mvit->image_width);
    if (status == VIT_OK && wanted > 0 && (wanted != mvit->image_height || wanted != mvit->image_width))
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED,
                             "an image size of %zu: MViTv2 runs in its own size only, this one in %zux%zu", wanted,
                             mvit->image_height, mvit->image_width);
    return status;
}

static vit_status configure(struct mvit_loader *loader)
{
    static const char *const known[] = {"img_size", "in_chans", "num_classes", "embed_dim", "depths", "num_heads",
                                        "mlp_ratio", "expand_attn", "qkv_bias", "use_cls_token", "global_pool",
                                        "drop_rate", "drop_path_rate"};
    vit_status status = load_check_model_args(&loader->base, "mvitv2", known, sizeof known / sizeof known[0]);
    if (status == VIT_OK)
        status = read_pooling(loader);
    return status == VIT_OK ? read_size(loader) : status;
}

static vit_status load_patches(struct mvit_loader *loader)
{
    struct mvit *mvit = loader->mvit;
    mvit->patches.sliding = sliding_padded(7, 4, 3, mvit->image_height, mvit->image_width);
    vit_status status = load_conv(&loader->base, &mvit->patches, "patch_embed.proj", 3, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_packed_conv(&loader->base, &mvit->patches);
    loader->height = mvit->patches.sliding.out_height;
    loader->width = mvit->patches.sliding.out_width;
    loader->channels = mvit->patches.out;
    if (status == VIT_OK && loader->height * loader->width > MAX_TOKENS)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED, "%zux%zu patches per image are more than %d",
                             loader->height, loader->width, MAX_TOKENS);
    if (status == VIT_OK && mvit->prefix > 0)
        status = load_tensor(&loader->base, &mvit->class_token, "cls_token", (size_t[]){1, 1, loader->channels}, 3);
    return status;
}

void mvit_release(void *state)
{
    struct mvit *mvit = state;
    if (mvit == NULL)
        return;
    free(mvit->blocks);
    free(mvit->layer_info);
    free(mvit);
}

static vit_status describe(struct mvit *mvit, vit_model_info *info, vit_error *err)
{
    const struct mvit_block *last = &mvit->blocks[mvit->layers - 1];
    mvit->layer_info = calloc(mvit->layers, sizeof *mvit->layer_info);
    if (mvit->layer_info == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for %zu layers", mvit->layers);
    for (size_t i = 0; i < mvit->layers; i++)
        mvit->layer_info[i] = (vit_layer_info){.width = mvit->blocks[i].width, .heads = mvit->blocks[i].heads,
                                               .grid_height = mvit->blocks[i].key.sliding.out_height,
                                               .grid_width = mvit->blocks[i].key.sliding.out_width};
    info->pooling = mvit->pool_token ? "token" : "avg";
    info->activation = activation_name(last->mlp.activation);
    info->image_height = mvit->image_height;
    info->image_width = mvit->image_width;
    info->patch_size = mvit->patches.sliding.stride;
    info->grid_height = last->key.sliding.out_height;
    info->grid_width = last->key.sliding.out_width;
    info->tokens = mvit->prefix + sliding_positions(&last->query.sliding);
    info->prefix_tokens = mvit->prefix;
    info->class_token = mvit->prefix > 0;
    info->layers = mvit->layers;
    info->layer_info = mvit->layer_info;
    info->width = info->embedding_width = last->out;
    info->heads = last->heads;
    info->mlp_width = last->mlp.fc2.in;
    info->classes = mvit->head.out;
    info->explanations = 1u << VIT_ATTENTION_RAW;
    return VIT_OK;
}

static vit_status load_all(struct mvit_loader *loader)
{
    struct mvit *mvit = loader->mvit;
    vit_status status = configure(loader);
    if (status == VIT_OK)
        status = load_patches(loader);
    if (status == VIT_OK)
        status = load_blocks(loader);
    if (status == VIT_OK)
        status = load_norm(&loader->base, &mvit->norm, "norm", loader->channels);
    return status == VIT_OK ? load_head(&loader->base, &mvit->head, "head.fc", loader->channels) : status;
}

vit_status mvit_load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    struct mvit *mvit = calloc(1, sizeof *mvit);
    if (mvit == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the model");
    struct mvit_loader loader = {.base = {.folder = folder, .err = err, .eps = 1e-6f}, .mvit = mvit};
    vit_status status = load_all(&loader);
    if (status == VIT_OK)
        status = weights_finish(folder->weights, "mvitv2", NULL, 0, err);
    if (status == VIT_OK)
        status = describe(mvit, info, err);
    if (status != VIT_OK) {
        mvit_release(mvit);
        return status;
    }
    *state = mvit;
    return VIT_OK;
}
