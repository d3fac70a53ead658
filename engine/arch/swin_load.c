/* swin_load.c - reads a Swin folder, in the names of transformers or of timm. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/swin_network.h"
#include "engine/arch/windows.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

enum { MAX_SIDE = 32 }; /* of a window; its biases take the fourth power */

static const float fixed_eps = 1e-5f; /* of the norms of patches and merging, and of all in timm: nn.LayerNorm's default */

/* The tensors' names in a layout. Stages are "<prefix><stages><i>.", their blocks "blocks.<j>." below. */
struct swin_names {
    const char *prefix, *patches, *patch_norm, *positions, *stages, *table, *norm, *head;
    bool merge_ends_stage; /* patch merging is in the stage before the merged one */
    struct block_names block;
};

static const struct swin_names timm_names = {
    .prefix = "", .patches = "patch_embed.proj", .patch_norm = "patch_embed.norm", .positions = "absolute_pos_embed",
    .stages = "layers.", .table = "attn.relative_position_bias_table", .norm = "norm", .head = "head.fc",
    .block = {.norm1 = "norm1", .qkv = "attn.qkv", .proj = "attn.proj", .norm2 = "norm2", .fc1 = "mlp.fc1",
              .fc2 = "mlp.fc2"},
};

static const struct swin_names transformers_names = {
    .prefix = "swin.", .patches = "embeddings.patch_embeddings.projection", .patch_norm = "embeddings.norm",
    .positions = "embeddings.position_embeddings", .stages = "encoder.layers.",
    .table = "attention.self.relative_position_bias_table", .norm = "layernorm", .head = "classifier",
    .merge_ends_stage = true,
    .block = {.norm1 = "layernorm_before", .query = "attention.self.query", .key = "attention.self.key",
              .value = "attention.self.value", .proj = "attention.output.dense", .norm2 = "layernorm_after",
              .fc1 = "intermediate.dense", .fc2 = "output.dense"},
};

struct swin_loader {
    struct loader base;
    const struct swin_names *names;
    struct swin *swin;
};

static struct name stage_name(const struct swin_loader *loader, size_t stage)
{
    return name_of("%s%s%zu.", loader->names->prefix, loader->names->stages, stage);
}

/* ---- config ---- */

static vit_status configure(struct swin_loader *loader)
{
    static const char *const known[] = {"img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depths",
                                        "num_heads", "window_size", "mlp_ratio", "qkv_bias", "global_pool", "drop_rate",
                                        "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init"};
    const struct folder *folder = loader->base.folder;
    struct swin *swin = loader->swin;
    loader->base.eps = fixed_eps;
    loader->base.activation = ACTIVATION_GELU;
    const char *pool = "avg";
    vit_status status = folder->layout == LAYOUT_TIMM
                            ? load_check_model_args(&loader->base, "swin", known, sizeof known / sizeof known[0])
                            : load_transformers_keys(&loader->base);
    if (status == VIT_OK && folder->layout == LAYOUT_TIMM)
        status = load_global_pool(&loader->base, &pool);
    if (status == VIT_OK && strcmp(pool, "avg") != 0)
        return load_refuse_pool(&loader->base, pool, "avg");
    swin->image_height = swin->image_width = folder->image_size;
    if (status == VIT_OK && folder->image_size == 0)
        status = load_image_size(&loader->base, &swin->image_height, &swin->image_width);
    return status;
}

/* ---- windows ---- */

/* The side of the windows, and the heads, off a block's bias table [(2*side-1)^2, heads]. */
static vit_status measure_table(const struct swin_loader *loader, const char *name, size_t *side, size_t *heads)
{
    const struct tensor *table = load_find(&loader->base, name);
    const size_t rows = table != NULL && table->rank == 2 ? table->shape[0] : 0;
    const size_t span = (size_t)lround(sqrt((double)rows));
    if (rows == 0 || span > 2 * MAX_SIDE - 1 || span * span != rows || span % 2 == 0 || table->shape[1] < 1 ||
        table->shape[1] > MAX_WIDTH)
        return vit_error_set(loader->base.err, table == NULL ? VIT_ERR_FORMAT : VIT_ERR_UNSUPPORTED,
                             "tensor '%s' %s: [(2 * window - 1)^2, heads] was expected, for windows of at most %d", name,
                             table == NULL ? "is missing" : "has another shape", MAX_SIDE);
    *side = (span + 1) / 2;
    *heads = table->shape[1];
    return VIT_OK;
}

/* transformers goes by the grid itself, and shifts either way or neither; timm by what halving with loss would leave of
 * the first grid. A grid of one window is not shifted. */
static struct window_plan plan_windows(const struct swin_loader *loader, size_t stage, size_t side, bool shifted)
{
    const struct swin *swin = loader->swin;
    const struct swin_stage *first = &swin->stages[0], *here = &swin->stages[stage];
    struct window_plan plan = {.grid_height = here->grid_height, .grid_width = here->grid_width, .side = side};
    size_t height = here->grid_height, width = here->grid_width;
    if (loader->base.folder->layout == LAYOUT_TIMM) {
        plan.roll_first = true;
        height = first->grid_height >> stage;
        width = first->grid_width >> stage;
    } else {
        height = width = height < width ? height : width;
    }
    if (shifted && height > side)
        plan.shift_down = side / 2;
    if (shifted && width > side)
        plan.shift_right = side / 2;
    return plan;
}

/* The references shrink windows to a smaller grid, but not the table of their biases: transformers fails then, and timm
 * resamples the table. */
static vit_status check_window(const struct swin_loader *loader, size_t stage, size_t side)
{
    const struct swin_stage *first = &loader->swin->stages[0], *here = &loader->swin->stages[stage];
    const bool timm = loader->base.folder->layout == LAYOUT_TIMM;
    const size_t height = timm ? first->grid_height >> stage : here->grid_height;
    const size_t width = timm ? first->grid_width >> stage : here->grid_width;
    size_t said = side;
    if (height < side || width < side)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED,
                             "a grid of %zux%zu is smaller than the model's windows of %zu: the images are too small",
                             height, width, side);
    vit_status status =
        timm ? VIT_OK : json_size(loader->base.folder->config, "window_size", 1, MAX_WIDTH, &said, NULL, loader->base.err);
    if (status == VIT_OK && said != side)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "config.json: \"window_size\" is %zu, the tables of relative positions are for %zu", said, side);
    return status;
}

static vit_status make_windows(const struct swin_loader *loader, size_t stage, size_t side)
{
    struct swin_stage *here = &loader->swin->stages[stage];
    const struct window_plan regular = plan_windows(loader, stage, side, false);
    const struct window_plan shifted = plan_windows(loader, stage, side, true);
    vit_status status = check_window(loader, stage, side);
    if (status == VIT_OK)
        status = windows_init(&here->regular, &regular, loader->base.err);
    return status == VIT_OK ? windows_init(&here->shifted, &shifted, loader->base.err) : status;
}

/* ---- blocks ---- */

static vit_status load_attention(const struct swin_loader *loader, struct attention *attention, const char *prefix,
                                 const struct swin_stage *stage, size_t side, bool shifted)
{
    const struct name name = name_of("%s%s", prefix, loader->names->table);
    const float *table;
    float *bias;
    size_t block_side, heads;
    vit_status status = measure_table(loader, name.text, &block_side, &heads);
    if (status == VIT_OK && block_side != side)
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED, "the windows of a stage differ in size");
    if (status == VIT_OK)
        status = load_check_heads(&loader->base, stage->width, heads);
    if (status == VIT_OK)
        status = load_tensor(&loader->base, &table, name.text,
                             (size_t[]){(2 * side - 1) * (2 * side - 1), heads}, 2);
    if (status == VIT_OK)
        status = load_derived(&loader->base, &bias, heads * side * side * side * side);
    if (status != VIT_OK)
        return status;
    windows_expand_bias(bias, table, side, heads);
    *attention = (struct attention){.heads = heads, .scale = 1 / sqrtf((float)(stage->width / heads)), .bias = bias,
                                    .windows = shifted ? &stage->shifted : &stage->regular};
    load_attention_products(&loader->base, attention, stage->grid_height * stage->grid_width, stage->width);
    return VIT_OK;
}

static vit_status load_blocks(struct swin_loader *loader, size_t index)
{
    struct swin_stage *stage = &loader->swin->stages[index];
    const struct name blocks = name_of("%sblocks.", stage_name(loader, index).text);
    size_t side, heads;
    stage->depth = load_count(&loader->base, blocks.text, name_of("%s.weight", loader->names->block.norm1).text);
    stage->blocks = calloc(stage->depth + 1, sizeof *stage->blocks);
    if (stage->blocks == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for %zu blocks", stage->depth);
    vit_status status =
        measure_table(loader, name_of("%s0.%s", blocks.text, loader->names->table).text, &side, &heads);
    if (status == VIT_OK)
        status = make_windows(loader, index, side);
    for (size_t i = 0; status == VIT_OK && i < stage->depth; i++) {
        const struct name prefix = name_of("%s%zu.", blocks.text, i);
        struct block *block = &stage->blocks[i];
        status = load_attention(loader, &block->attention, prefix.text, stage, side, i % 2 == 1);
        if (status == VIT_OK)
            status = load_block(&loader->base, block, prefix.text, &loader->names->block, stage->width);
        block->attention.padding = block->qkv.bias;
        if (status == VIT_OK)
            status = load_packed_block(&loader->base, block);
    }
    return status;
}

/* ---- stages ---- */

static vit_status load_patches(const struct swin_loader *loader)
{
    struct swin *swin = loader->swin;
    const struct swin_names *names = loader->names;
    struct swin_stage *first = &swin->stages[0];
    const struct name name = name_of("%s%s", names->prefix, names->patches);
    const struct tensor *weight = load_find(&loader->base, name_of("%s.weight", name.text).text);
    const size_t patch = weight != NULL && weight->rank == 4 && weight->shape[2] >= 1 && weight->shape[2] <= MAX_IMAGE
                             ? weight->shape[2] : 1;
    swin->patches.sliding = sliding_padded(patch, patch, 0, swin->image_height, swin->image_width);
    if (loader->base.folder->layout == LAYOUT_TRANSFORMERS) { /* pads incomplete patches, where timm leaves them out */
        swin->patches.sliding = sliding_same(patch, patch, swin->image_height, swin->image_width);
        swin->patches.sliding.top = swin->patches.sliding.left = 0;
    }
    vit_status status = load_conv(&loader->base, &swin->patches, name.text, 3, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_packed_conv(&loader->base, &swin->patches);
    first->grid_height = swin->patches.sliding.out_height;
    first->grid_width = swin->patches.sliding.out_width;
    first->width = swin->patches.out;
    const size_t tokens = first->grid_height * first->grid_width;
    if (status == VIT_OK && (tokens == 0 || tokens > MAX_TOKENS))
        return vit_error_set(loader->base.err, VIT_ERR_UNSUPPORTED, "%zux%zu patches per image: 1 to %d are possible",
                             first->grid_height, first->grid_width, MAX_TOKENS);
    struct loader fixed = loader->base;
    fixed.eps = fixed_eps;
    if (status == VIT_OK)
        status = load_norm(&fixed, &swin->patch_norm, name_of("%s%s", names->prefix, names->patch_norm).text, first->width);
    const struct name positions = name_of("%s%s", names->prefix, names->positions);
    if (status == VIT_OK && load_find(&loader->base, positions.text) != NULL)
        status = load_tensor(&loader->base, &swin->positions, positions.text,
                             (size_t[]){1, first->grid_height * first->grid_width, first->width}, 3);
    return status;
}

static vit_status load_merge(const struct swin_loader *loader, size_t index)
{
    struct swin_stage *from = &loader->swin->stages[index - 1], *to = &loader->swin->stages[index];
    const struct name prefix =
        name_of("%sdownsample.", stage_name(loader, loader->names->merge_ends_stage ? index - 1 : index).text);
    const struct tensor *reduction = load_find(&loader->base, name_of("%sreduction.weight", prefix.text).text);
    struct loader fixed = loader->base;
    fixed.eps = fixed_eps;
    to->grid_height = (from->grid_height + 1) / 2;
    to->grid_width = (from->grid_width + 1) / 2;
    const bool sound = reduction != NULL && reduction->rank == 2 && reduction->shape[0] >= 1 &&
                       reduction->shape[0] <= MAX_WIDTH;
    to->width = sound ? reduction->shape[0] : 2 * from->width;
    vit_status status = load_norm(&fixed, &to->merge_norm, name_of("%snorm", prefix.text).text, 4 * from->width);
    if (status == VIT_OK)
        status = load_linear(&loader->base, &to->merge_reduction, name_of("%sreduction", prefix.text).text, to->width,
                             4 * from->width, BIAS_OPTIONAL);
    return status == VIT_OK ? load_packed(&loader->base, &to->merge_reduction) : status;
}

static vit_status load_stages(struct swin_loader *loader)
{
    struct swin *swin = loader->swin;
    const struct name first = name_of("blocks.0.%s.weight", loader->names->block.norm1);
    swin->stage_count =
        load_count(&loader->base, name_of("%s%s", loader->names->prefix, loader->names->stages).text, first.text);
    if (swin->stage_count == 0)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT, "tensor '%s%s' is missing", stage_name(loader, 0).text,
                             first.text);
    swin->stages = calloc(swin->stage_count, sizeof *swin->stages);
    if (swin->stages == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for %zu stages", swin->stage_count);
    vit_status status = load_patches(loader);
    for (size_t i = 0; status == VIT_OK && i < swin->stage_count; i++) {
        if (i > 0)
            status = load_merge(loader, i);
        if (status == VIT_OK)
            status = load_blocks(loader, i);
        swin->layers += swin->stages[i].depth;
    }
    return status;
}

/* ---- all of it ---- */

void swin_release(void *state)
{
    struct swin *swin = state;
    if (swin == NULL)
        return;
    for (size_t i = 0; swin->stages != NULL && i < swin->stage_count; i++) {
        windows_release(&swin->stages[i].regular);
        windows_release(&swin->stages[i].shifted);
        free(swin->stages[i].blocks);
    }
    free(swin->stages);
    free(swin->layer_info);
    free(swin);
}

static vit_status describe(struct swin *swin, vit_model_info *info, vit_error *err)
{
    const struct swin_stage *last = &swin->stages[swin->stage_count - 1];
    size_t layer = 0;
    swin->layer_info = calloc(swin->layers, sizeof *swin->layer_info);
    if (swin->layer_info == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for %zu layers", swin->layers);
    for (size_t i = 0; i < swin->stage_count; i++)
        for (size_t j = 0; j < swin->stages[i].depth; j++)
            swin->layer_info[layer++] = (vit_layer_info){.width = swin->stages[i].width,
                                                         .heads = swin->stages[i].blocks[j].attention.heads,
                                                         .grid_height = swin->stages[i].grid_height,
                                                         .grid_width = swin->stages[i].grid_width};
    info->pooling = "avg";
    info->activation = activation_name(last->blocks[0].mlp.activation);
    info->image_height = swin->image_height;
    info->image_width = swin->image_width;
    info->patch_size = swin->patches.sliding.kernel;
    info->grid_height = last->grid_height;
    info->grid_width = last->grid_width;
    info->tokens = last->grid_height * last->grid_width;
    info->layers = swin->layers;
    info->layer_info = swin->layer_info;
    info->width = info->embedding_width = last->width;
    info->heads = last->blocks[0].attention.heads;
    info->mlp_width = last->blocks[0].mlp.fc2.in;
    info->classes = swin->head.out;
    info->explanations = 1u << VIT_ATTENTION_RAW;
    return VIT_OK;
}

static vit_status load_all(struct swin_loader *loader)
{
    struct swin *swin = loader->swin;
    vit_status status = configure(loader);
    if (status == VIT_OK)
        status = load_stages(loader);
    if (status != VIT_OK)
        return status;
    const size_t width = swin->stages[swin->stage_count - 1].width;
    status = load_norm(&loader->base, &swin->norm, name_of("%s%s", loader->names->prefix, loader->names->norm).text, width);
    return status == VIT_OK ? load_head(&loader->base, &swin->head, loader->names->head, width) : status;
}

vit_status swin_load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    /* derived from the window's size, and computed here */
    static const char *const ignored[] = {"relative_position_index", "attn_mask"};
    struct swin *swin = calloc(1, sizeof *swin);
    if (swin == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the model");
    struct swin_loader loader = {.base = {.folder = folder, .err = err}, .swin = swin,
                                 .names = folder->layout == LAYOUT_TIMM ? &timm_names : &transformers_names};
    vit_status status = load_all(&loader);
    if (status == VIT_OK)
        status = weights_finish(folder->weights, "swin", ignored, sizeof ignored / sizeof ignored[0], err);
    if (status == VIT_OK)
        status = describe(swin, info, err);
    if (status != VIT_OK) {
        swin_release(swin);
        return status;
    }
    *state = swin;
    return VIT_OK;
}
