/*
 * vit_load.c - reads a folder of the plain encoder's family: what comes before the blocks, the blocks, the head.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

const struct vit_names vit_timm_names = {
    .class_token = "cls_token", .distillation_token = "dist_token", .registers = "reg_token", .positions = "pos_embed",
    .patches = "patch_embed.proj", .blocks = "blocks.",
    .block = {.norm1 = "norm1", .qkv = "attn.qkv", .proj = "attn.proj", .scale1 = "ls1.gamma", .norm2 = "norm2",
              .fc1 = "mlp.fc1", .fc2 = "mlp.fc2", .scale2 = "ls2.gamma"},
    .norm_pre = "norm_pre", .norm = "norm", .fc_norm = "fc_norm", .head = "head", .head_distilled = "head_dist",
};

/* ---- sizes ---- */

vit_status vit_check_grid(const struct vit_loader *loader)
{
    const struct vit *vit = loader->vit;
    size_t patches;
    if (vit->grid_height == 0 || vit->grid_width == 0)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT, "an image of %zux%zu holds no patch of %zu",
                             vit->image_height, vit->image_width, vit->patch);
    if (!size_multiply(vit->grid_height, vit->grid_width, &patches) || patches > MAX_TOKENS)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED, "%zux%zu patches per image are more than %d",
                             vit->grid_height, vit->grid_width, MAX_TOKENS);
    return VIT_OK;
}

/* The number of layers, and C off the first of them. */
static vit_status measure_blocks(const struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    const struct vit_names *names = &loader->names;
    const struct name blocks = name_of("%s%s", loader->prefix, names->blocks);
    const struct name first = name_of("%s0.%s.weight", blocks.text, names->block.norm1);
    const struct tensor *norm = load_find(&loader->base, first.text);
    if (norm == NULL || norm->rank != 1 || norm->shape[0] < 1 || norm->shape[0] > MAX_WIDTH)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT, "tensor '%s' [width] is missing or has another shape",
                             first.text);
    vit->width = norm->shape[0];
    vit->layers = load_count(&loader->base, blocks.text, name_of("%s.weight", names->block.norm1).text);
    return VIT_OK;
}

/* The size that pictures are fed in: what the caller asks for, else what a family that interpolates is sent, else what
 * the model was trained with. */
static vit_status choose_image_size(struct vit_loader *loader)
{
    const struct folder *folder = loader->base.folder;
    struct vit *vit = loader->vit;
    vit_status status = load_image_size(&loader->base, &loader->trained_height, &loader->trained_width);
    if (status != VIT_OK)
        return status;
    vit->image_height = loader->trained_height;
    vit->image_width = loader->trained_width;
    if (folder->image_size > 0) {
        vit->image_height = vit->image_width = folder->image_size;
    } else if (loader->family->any_size && folder->preprocess->height > 0) {
        vit->image_height = folder->preprocess->height;
        vit->image_width = folder->preprocess->width;
    }
    return VIT_OK;
}

/* ---- tokens and positions ---- */

enum encoding { ENCODING_LEARNED, ENCODING_NONE, ENCODING_SINUSOIDAL, ENCODING_SINCOS2D, ENCODING_SINCOS2D_MAE };

static vit_status read_encoding(const struct vit_loader *loader, enum encoding *encoding)
{
    static const struct {
        const char *name;
        enum encoding encoding;
    } known[] = {{"learn", ENCODING_LEARNED},           {"learned", ENCODING_LEARNED},   {"absolute", ENCODING_LEARNED},
                 {"none", ENCODING_NONE},               {"", ENCODING_NONE},             {"sinusoidal", ENCODING_SINUSOIDAL},
                 {"sincos2d", ENCODING_SINCOS2D},       {"sincos2d_mae", ENCODING_SINCOS2D_MAE}};
    const struct folder *folder = loader->base.folder;
    const bool timm = folder->layout == LAYOUT_TIMM;
    const char *key = timm ? "pos_embed" : "position_embedding_type", *name = "learn";
    vit_status status = json_string(timm ? folder->model_args : folder->config, key, &name, NULL, loader->base.err);
    for (size_t i = 0; status == VIT_OK && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            *encoding = known[i].encoding;
            return VIT_OK;
        }
    return status != VIT_OK ? status
                            : vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED,
                                            "config.json: \"%s\" is \"%.32s\"; learn, none, sinusoidal, sincos2d and "
                                            "sincos2d_mae are supported", key, name);
}

/* Position embeddings as the model was trained with them. */
struct trained {
    const float *rows;     /* [covered + height * width, C] */
    size_t covered;        /* prefix tokens that have one */
    size_t height, width;  /* the grid */
};

/* Off the file: with a row for each prefix token, for the class token alone, or for patches only (DeiT III). */
static vit_status load_positions(const struct vit_loader *loader, const char *name, struct trained *trained)
{
    const struct vit *vit = loader->vit;
    const size_t patches = trained->height * trained->width;
    const size_t rank = loader->family->projects ? 2 : 3;
    const struct tensor *tensor = load_find(&loader->base, name);
    const size_t rows = tensor != NULL && tensor->rank == rank ? tensor->shape[rank - 2] : 0;
    trained->covered = rows == patches                       ? 0
                       : vit->class_token && rows == patches + 1 ? 1
                                                             : vit->prefix;
    const size_t shape[] = {1, trained->covered + patches, vit->width};
    return load_tensor(&loader->base, &trained->rows, name, shape + 3 - rank, rank);
}

static vit_status compute_positions(const struct vit_loader *loader, enum encoding encoding, struct trained *trained)
{
    const struct vit *vit = loader->vit;
    const size_t patches = trained->height * trained->width;
    trained->covered = encoding == ENCODING_SINUSOIDAL ? vit->prefix : 0;
    float *rows;
    vit_status status = load_derived(&loader->base, &rows, (trained->covered + patches) * vit->width);
    if (status != VIT_OK)
        return status;
    if (encoding == ENCODING_SINUSOIDAL)
        positions_sinusoidal(rows, trained->covered + patches, vit->width);
    else
        positions_sincos2d(rows, trained->height, trained->width, vit->width, encoding == ENCODING_SINCOS2D);
    trained->rows = rows;
    return VIT_OK;
}

/* vit->positions for the grid at hand */
static vit_status fit_positions(const struct vit_loader *loader, const struct trained *trained)
{
    struct vit *vit = loader->vit;
    const bool timm = loader->base.folder->layout == LAYOUT_TIMM;
    const float *patches = trained->rows + trained->covered * vit->width;
    if (trained->height == vit->grid_height && trained->width == vit->grid_width) {
        vit->positions = patches;
        return VIT_OK;
    }
    if (trained->height > MAX_GRID || trained->width > MAX_GRID || vit->grid_height > MAX_GRID ||
        vit->grid_width > MAX_GRID)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED, "a grid with a side above %d", MAX_GRID);
    float *resized;
    vit_status status = load_derived(&loader->base, &resized, vit->grid_height * vit->grid_width * vit->width);
    if (status == VIT_OK)
        positions_resize(resized, vit->grid_height, vit->grid_width, patches, trained->height, trained->width, vit->width,
                         timm ? INTERPOLATE_ANTIALIASED : INTERPOLATE_BICUBIC);
    vit->positions = resized;
    return status;
}

static void measure_trained(const struct vit_loader *loader, struct trained *trained)
{
    const struct vit *vit = loader->vit;
    if (loader->trained_height == vit->image_height && loader->trained_width == vit->image_width) {
        trained->height = vit->grid_height;
        trained->width = vit->grid_width;
        return;
    }
    const size_t extra = vit->stem.rounds_up ? vit->patch - 1 : 0;
    trained->height = (loader->trained_height + extra) / vit->patch;
    trained->width = (loader->trained_width + extra) / vit->patch;
}

/* A tensor [1, count, C] of tokens before the patches, if the folder has it; CLIP's, [C], it must have. */
static vit_status load_token(const struct vit_loader *loader, const float **tokens, size_t *count, const char *name)
{
    const struct name text = name_of("%s%s", loader->prefix, name != NULL ? name : "");
    const struct tensor *tensor = name != NULL ? load_find(&loader->base, text.text) : NULL;
    *count = 0;
    if (name != NULL && loader->family->projects) {
        loader->vit->prefix += *count = 1;
        return load_tensor(&loader->base, tokens, text.text, &loader->vit->width, 1);
    }
    if (tensor == NULL)
        return VIT_OK;
    *count = tensor->rank == 3 && tensor->shape[1] >= 1 && tensor->shape[1] <= MAX_TOKENS ? tensor->shape[1] : 1;
    loader->vit->prefix += *count;
    return load_tensor(&loader->base, tokens, text.text, (size_t[]){1, *count, loader->vit->width}, 3);
}

enum { PREFIX_KINDS = 3 }; /* class, distillation, registers */

/* vit->prefix_tokens: the tokens before the patches, with their position embeddings. */
static vit_status join_prefix(const struct vit_loader *loader, const float *const tokens[PREFIX_KINDS],
                              const size_t counts[PREFIX_KINDS], const struct trained *trained)
{
    struct vit *vit = loader->vit;
    float *prefix, *next;
    vit_status status = load_derived(&loader->base, &prefix, vit->prefix * vit->width);
    if (status != VIT_OK)
        return status;
    next = prefix;
    for (size_t i = 0; i < PREFIX_KINDS; next += counts[i++] * vit->width)
        if (counts[i] > 0)
            memcpy(next, tokens[i], counts[i] * vit->width * sizeof *next);
    for (size_t i = 0; i < trained->covered * vit->width; i++)
        prefix[i] += trained->rows[i];
    vit->prefix_tokens = prefix;
    return VIT_OK;
}

static vit_status load_tokens(struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    const char *const kinds[PREFIX_KINDS] = {loader->names.class_token, loader->names.distillation_token,
                                             loader->names.registers};
    const float *tokens[PREFIX_KINDS];
    size_t counts[PREFIX_KINDS] = {0};
    vit_status status = VIT_OK;
    for (size_t i = 0; status == VIT_OK && i < PREFIX_KINDS; i++)
        status = load_token(loader, &tokens[i], &counts[i], kinds[i]);
    vit->class_token = counts[0] > 0;
    vit->tokens = vit->prefix + vit->grid_height * vit->grid_width;

    struct trained trained = {0};
    measure_trained(loader, &trained);
    enum encoding encoding = ENCODING_LEARNED;
    const struct name name = name_of("%s%s", loader->prefix, loader->names.positions);
    if (status == VIT_OK)
        status = read_encoding(loader, &encoding);
    if (status == VIT_OK && encoding == ENCODING_NONE && vit->prefix > 0 && loader->base.folder->layout == LAYOUT_TIMM)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED,
                             "config.json: \"pos_embed\" is \"none\" beside class or register tokens, which timm then leaves "
                             "out; vitd does not run that");
    if (status == VIT_OK && encoding != ENCODING_NONE) {
        const bool computed = encoding != ENCODING_LEARNED && load_find(&loader->base, name.text) == NULL;
        status = computed ? compute_positions(loader, encoding, &trained) : load_positions(loader, name.text, &trained);
        if (status == VIT_OK)
            status = fit_positions(loader, &trained);
    }
    return status == VIT_OK ? join_prefix(loader, tokens, counts, &trained) : status;
}

/* ---- blocks ---- */

static vit_status load_blocks(struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    vit->blocks = calloc(vit->layers, sizeof *vit->blocks);
    vit->layer_info = calloc(vit->layers, sizeof *vit->layer_info);
    if (vit->blocks == NULL || vit->layer_info == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for %zu layers", vit->layers);
    vit_status status = VIT_OK;
    for (size_t i = 0; status == VIT_OK && i < vit->layers; i++) {
        const struct name prefix = name_of("%s%s%zu.", loader->prefix, loader->names.blocks, i);
        vit->layer_info[i] = (vit_layer_info){.width = vit->width, .heads = vit->heads, .grid_height = vit->grid_height,
                                              .grid_width = vit->grid_width};
        vit->blocks[i].attention = (struct attention){.heads = vit->heads, .prefix = vit->prefix,
                                                      .scale = loader->attention_scale};
        status = load_block(&loader->base, &vit->blocks[i], prefix.text, &loader->names.block, vit->width);
        if (status == VIT_OK && vit->blocks[i].mlp.fc1.out != vit->blocks[0].mlp.fc1.out)
            status = vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED, "the layers' MLPs differ in width");
        if (status == VIT_OK && loader->family->finish_block != NULL)
            status = loader->family->finish_block(loader, &vit->blocks[i], prefix.text);
        if (status == VIT_OK)
            status = load_packed_block(&loader->base, &vit->blocks[i]);
        load_attention_products(&loader->base, &vit->blocks[i].attention, vit->tokens, vit->width);
    }
    vit->mlp_width = status == VIT_OK ? vit->blocks[0].mlp.fc2.in : 0;
    return status;
}

/* ---- pooling and head ---- */

/* Which token or mean the head sees, from the tensors that are there and from timm's global_pool. */
static vit_status choose_pooling(struct vit_loader *loader)
{
    struct vit_names *names = &loader->names;
    const struct loader *base = &loader->base;
    const bool timm = base->folder->layout == LAYOUT_TIMM;
    const char *pool = "token";
    vit_status status = VIT_OK;
    if (timm) {
        status = load_global_pool(base, &pool);
        if (load_find(base, "head_dist.weight") == NULL)
            names->head_distilled = NULL;
    } else if (load_find(base, "cls_classifier.weight") != NULL) { /* DeiTForImageClassificationWithTeacher */
        names->head = "cls_classifier";
        names->head_distilled = "distillation_classifier";
    }
    if (status != VIT_OK)
        return status;
    loader->vit->norm_first = names->fc_norm == NULL || load_find(base, "fc_norm.weight") == NULL;
    if (strcmp(pool, "avg") == 0)
        loader->vit->pooling = POOL_AVERAGE;
    else if (strcmp(pool, "token") == 0)
        loader->vit->pooling = names->head_distilled != NULL ? POOL_DISTILLED : loader->family->pooling;
    else
        return load_refuse_pool(base, pool, "token or avg");
    return VIT_OK;
}

static vit_status check_pooling(const struct vit_loader *loader)
{
    const struct vit *vit = loader->vit;
    if (vit->pooling != POOL_AVERAGE && !vit->class_token)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "tensor '%s%s' is missing, and the pooling is \"token\"", loader->prefix,
                             loader->names.class_token);
    if (vit->pooling == POOL_DISTILLED && vit->prefix != 2)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "a head for distillation is there, but not both the class and the distillation token");
    return VIT_OK;
}

static vit_status load_heads(const struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    const struct loader *base = &loader->base;
    const bool averaged = vit->pooling == POOL_AVERAGE && !vit->norm_first, projects = loader->family->projects;
    const size_t features = vit->pooling == POOL_TOKEN_AND_AVERAGE ? 2 * vit->width : vit->width;
    vit_status status = load_norm(base, &vit->norm, averaged ? loader->names.fc_norm
                                                             : name_of("%s%s", loader->prefix, loader->names.norm).text,
                                  vit->width);
    if (status == VIT_OK)
        status = projects ? load_projection(base, &vit->head, loader->names.head, features)
                          : load_head(base, &vit->head, loader->names.head, features);
    vit->projects = projects;
    vit->classes = projects ? 0 : vit->head.out;
    if (status == VIT_OK && vit->pooling == POOL_DISTILLED)
        status = load_linear(base, &vit->head_distilled, loader->names.head_distilled, vit->classes, vit->width,
                             BIAS_REQUIRED);
    if (status == VIT_OK && vit->pooling == POOL_DISTILLED)
        status = load_packed_kept(base, &vit->head_distilled);
    return status;
}

/* ---- all of it ---- */

void vit_release(void *state)
{
    struct vit *vit = state;
    if (vit == NULL)
        return;
    if (vit->stem.free != NULL)
        vit->stem.free(vit->stem.state);
    free(vit->blocks);
    free(vit->layer_info);
    free(vit);
}

static vit_status load_norm_pre(const struct vit_loader *loader)
{
    const bool optional = loader->base.folder->layout == LAYOUT_TIMM;
    if (loader->names.norm_pre == NULL)
        return VIT_OK;
    const struct name name = name_of("%s%s", loader->prefix, loader->names.norm_pre);
    if (optional && load_find(&loader->base, name_of("%s.weight", name.text).text) == NULL)
        return VIT_OK;
    return load_norm(&loader->base, &loader->vit->norm_pre, name.text, loader->vit->width);
}

/* Backbones are published beside classifiers, often with other prefixes: what they lack is said first. */
static vit_status check_head(const struct vit_loader *loader)
{
    const struct name head = name_of("%s.weight", loader->names.head);
    if (!loader->family->projects && load_find(&loader->base, head.text) == NULL &&
        load_find(&loader->base, "cls_classifier.weight") == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED,
                             "tensor '%s' [classes, width] is missing: the folder holds no classification head", head.text);
    return VIT_OK;
}

static vit_status load_all(struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    vit_status status = check_head(loader);
    if (status == VIT_OK)
        status = measure_blocks(loader);
    if (status == VIT_OK)
        status = choose_image_size(loader);
    if (status == VIT_OK)
        status = loader->family->configure(loader);
    if (status == VIT_OK)
        status = load_check_heads(&loader->base, vit->width, vit->heads);
    if (status == VIT_OK && loader->attention_scale == 0)
        loader->attention_scale = 1 / sqrtf((float)(vit->width / vit->heads));
    if (status == VIT_OK)
        status = choose_pooling(loader);
    if (status == VIT_OK)
        status = load_norm_pre(loader);
    if (status == VIT_OK)
        status = loader->family->load_stem(loader);
    if (status == VIT_OK)
        status = load_tokens(loader);
    if (status == VIT_OK)
        status = check_pooling(loader);
    if (status == VIT_OK)
        status = load_blocks(loader);
    return status == VIT_OK ? load_heads(loader) : status;
}

enum { MAX_ROLLOUT_FLOATS = 1 << 29 }; /* all layers' attention of one image: 2 GiB */

static void describe(const struct vit *vit, vit_model_info *info)
{
    static const char *const poolings[] = {[POOL_TOKEN] = "token", [POOL_DISTILLED] = "token+distillation",
                                           [POOL_AVERAGE] = "avg", [POOL_TOKEN_AND_AVERAGE] = "token+avg"};
    info->pooling = poolings[vit->pooling];
    info->activation = activation_name(vit->blocks[0].mlp.activation);
    info->image_height = vit->image_height;
    info->image_width = vit->image_width;
    info->patch_size = vit->patch;
    info->grid_height = vit->grid_height;
    info->grid_width = vit->grid_width;
    info->tokens = vit->tokens;
    info->prefix_tokens = vit->prefix;
    info->class_token = vit->class_token;
    info->layers = vit->layers;
    info->layer_info = vit->layer_info;
    info->width = vit->width;
    info->heads = vit->heads;
    info->mlp_width = vit->mlp_width;
    info->classes = vit->classes;
    info->embedding_width = vit->projects ? vit->head.out : vit->head.in;
    /* re-attention's rows are no distributions: nothing to average or to multiply */
    bool mixes = false;
    for (size_t i = 0; i < vit->layers; i++)
        mixes = mixes || vit->blocks[i].attention.mixing != NULL;
    info->distances = !mixes;
    info->explanations = 1u << VIT_ATTENTION_RAW | 1u << VIT_ATTENTION_LEGRAD;
    if (vit->class_token && !mixes && vit->layers * vit->tokens <= MAX_ROLLOUT_FLOATS / vit->tokens)
        info->explanations |= 1u << VIT_ATTENTION_ROLLOUT;
}

vit_status vit_load_family(void **state, const struct folder *folder, vit_model_info *info,
                           const struct vit_family *family, vit_error *err)
{
    /* the pooler and the mask token serve other tasks than classification; BatchNorm counts for its training; old files
     * of CLIP number their positions */
    static const char *const ignored[] = {"pooler.dense.weight", "pooler.dense.bias", "mask_token",
                                          "num_batches_tracked", "embeddings.position_ids"};
    struct vit *vit = calloc(1, sizeof *vit);
    if (vit == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the model");
    struct vit_loader loader = {.base = {.folder = folder, .err = err}, .family = family, .names = *family->names,
                                .vit = vit};
    if (family->prefix != NULL)
        snprintf(loader.prefix, sizeof loader.prefix, "%s", family->prefix);
    else if (folder->layout == LAYOUT_TRANSFORMERS)
        snprintf(loader.prefix, sizeof loader.prefix, "%s.", folder->name);
    vit_status status = load_all(&loader);
    if (status == VIT_OK)
        status = weights_finish(folder->weights, family->architecture, ignored, sizeof ignored / sizeof ignored[0], err);
    if (status != VIT_OK) {
        vit_release(vit);
        return status;
    }
    describe(vit, info);
    *state = vit;
    return VIT_OK;
}
