/*
 * vit_family.c - the plain ViTs: transformers' vit, deit and dinov2, timm's vit_*, deit_* and deit3_*.
 */
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/store/json.h"

/* ---- timm ---- */

/* Heads by what comes after "vit_", "deit_" or "deit3_"; the first that fits counts. */
static size_t heads_by_name(const char *architecture)
{
    static const struct {
        const char *size;
        size_t heads;
    } known[] = {{"tiny_", 3},
                 {"wee_", 4},
                 {"little_", 5},
                 {"small_", 6},
                 {"medium_", 8},
                 {"mediumd_", 8},
                 {"betwixt_", 10},
                 {"base_patch16_gap_", 16},
                 {"base_patch16_plus_", 14},
                 {"base_patch32_plus_", 14},
                 {"base_", 12},
                 {"so150m_", 14},
                 {"so150m2_", 13},
                 {"so400m_", 16},
                 {"large_", 16},
                 {"huge_", 16},
                 {"giant_patch14_dinov2", 24},
                 {"giant_patch14_reg4_dinov2", 24},
                 {"giant_", 16},
                 {"gigantic_", 16}};
    const char *size = strchr(architecture, '_') + 1;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(size, known[i].size, strlen(known[i].size)) == 0)
            return known[i].heads;
    return 0;
}

/* The registers that model_args, else a name like vit_small_patch14_reg4_dinov2, promises must be there. */
static vit_status check_registers(const struct loader *loader)
{
    const char *in_name = strstr(loader->folder->name, "_reg");
    const bool named = in_name != NULL && in_name[4] >= '1' && in_name[4] <= '9' && in_name[5] == '_';
    const struct tensor *tensor = load_find(loader, "reg_token");
    size_t promised = named ? (size_t)(in_name[4] - '0') : 0;
    const size_t found = tensor != NULL && tensor->rank == 3 ? tensor->shape[1] : 0;
    vit_status status = json_size(loader->folder->model_args, "reg_tokens", 0, MAX_TOKENS, &promised, NULL, loader->err);
    if (status == VIT_OK && found != promised)
        status = vit_error_set(loader->err, VIT_ERR_FORMAT,
                               "tensor 'reg_token' holds %zu register tokens, \"model_args.reg_tokens\" or the "
                               "architecture's name says %zu", found, promised);
    return status;
}

/* What timm's architectures of these names have that neither tensors nor model_args show. */
static vit_status configure_by_name(struct vit_loader *loader, const char **activation)
{
    struct loader *base = &loader->base;
    const char *name = base->folder->name;
    base->eps = strstr(name, "_clip_") != NULL ? 1e-5f : 1e-6f;
    *activation = strstr(name, "quickgelu") != NULL ? "quick_gelu" : "gelu";
    if (strstr(name, "_rpn_") != NULL)
        return vit_error_set(base->err, VIT_ERR_UNSUPPORTED,
                             "architecture '%.64s' has its norms after attention and MLP, which vitd does not run", name);
    if ((strstr(name, "siglip") != NULL || strstr(name, "so400m") != NULL) &&
        json_get(base->folder->model_args, "act_layer") == NULL)
        return vit_error_set(base->err, VIT_ERR_UNSUPPORTED,
                             "config.json: \"model_args.act_layer\" is missing, and architectures like '%.64s' differ in "
                             "their activation: set it to gelu or gelu_tanh",
                             name);
    return VIT_OK;
}

vit_status vit_read_heads(struct vit_loader *loader, size_t (*known)(const char *architecture))
{
    const struct folder *folder = loader->base.folder;
    struct vit *vit = loader->vit;
    bool found = false;
    vit_status status =
        json_size(folder->model_args, "num_heads", 1, MAX_WIDTH, &vit->heads, &found, loader->base.err);
    if (status != VIT_OK || found)
        return status;
    vit->heads = known(folder->name);
    if (vit->heads == 0)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "config.json: \"model_args.num_heads\" is missing, and the architecture's name '%.64s' does "
                             "not tell the number of heads",
                             folder->name);
    return VIT_OK;
}

/* Two matrices of equal rank tell a gated MLP: fc1 gives twice what fc2 takes. */
static bool has_gated_mlp(const struct loader *loader)
{
    const struct tensor *fc1 = load_find(loader, "blocks.0.mlp.fc1.weight");
    const struct tensor *fc2 = load_find(loader, "blocks.0.mlp.fc2.weight");
    return fc1 != NULL && fc2 != NULL && fc1->rank == 2 && fc2->rank == 2 && fc2->shape[1] <= MAX_WIDTH &&
           fc1->shape[0] == 2 * fc2->shape[1];
}

vit_status vit_configure_timm(struct vit_loader *loader)
{
    static const char *const known[] = {
        "img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias",
        "class_token", "global_pool", "fc_norm", "act_layer", "drop_rate", "attn_drop_rate", "drop_path_rate",
        "proj_drop_rate", "pos_drop_rate", "weight_init", "init_values", "reg_tokens", "no_embed_class", "pre_norm",
        "pos_embed", "dynamic_img_size"};
    struct loader *base = &loader->base;
    const char *activation;
    vit_status status =
        load_check_model_args(base, loader->family->architecture, known, sizeof known / sizeof known[0]);
    if (status == VIT_OK)
        status = check_registers(base);
    if (status == VIT_OK)
        status = configure_by_name(loader, &activation);
    if (status == VIT_OK)
        status = json_string(base->folder->model_args, "act_layer", &activation, NULL, base->err);
    if (status == VIT_OK)
        status = load_activation(base, &base->activation, activation);
    if (has_gated_mlp(base))
        base->activation = ACTIVATION_SWIGLU;
    return status == VIT_OK ? vit_read_heads(loader, heads_by_name) : status;
}

/* ---- transformers ---- */

/* All but the heads come after "<model_type>.". */
static const struct vit_names vit_names = {
    .class_token = "embeddings.cls_token", .distillation_token = "embeddings.distillation_token",
    .positions = "embeddings.position_embeddings", .patches = "embeddings.patch_embeddings.projection",
    .blocks = "encoder.layer.",
    .block = {.norm1 = "layernorm_before", .query = "attention.attention.query", .key = "attention.attention.key",
              .value = "attention.attention.value", .proj = "attention.output.dense", .norm2 = "layernorm_after",
              .fc1 = "intermediate.dense", .fc2 = "output.dense"},
    .norm = "layernorm", .head = "classifier",
};

static const struct vit_names dinov2_names = {
    .class_token = "embeddings.cls_token", .positions = "embeddings.position_embeddings",
    .patches = "embeddings.patch_embeddings.projection", .blocks = "encoder.layer.",
    .block = {.norm1 = "norm1", .query = "attention.attention.query", .key = "attention.attention.key",
              .value = "attention.attention.value", .proj = "attention.output.dense", .scale1 = "layer_scale1.lambda1",
              .norm2 = "norm2", .fc1 = "mlp.fc1", .fc2 = "mlp.fc2", .scale2 = "layer_scale2.lambda1"},
    .norm = "layernorm", .head = "classifier",
};

static vit_status configure_transformers(struct vit_loader *loader)
{
    struct loader *base = &loader->base;
    struct vit *vit = loader->vit;
    const cJSON *config = base->folder->config;
    size_t layers = vit->layers;
    bool found = false;
    vit_status status = json_size(config, "num_attention_heads", 1, MAX_WIDTH, &vit->heads, &found, base->err);
    if (status == VIT_OK && !found)
        return load_missing_key(base, "num_attention_heads");
    if (status == VIT_OK)
        status = load_transformers_keys(base);
    if (status == VIT_OK)
        status = json_size(config, "num_hidden_layers", 1, MAX_LAYERS, &layers, NULL, base->err);
    if (status == VIT_OK && layers != vit->layers)
        return vit_error_set(base->err, VIT_ERR_FORMAT,
                             "config.json: \"num_hidden_layers\" is %zu, the tensors hold %zu layers", layers,
                             vit->layers);
    return status;
}

static vit_status configure_dinov2(struct vit_loader *loader)
{
    bool gated = false;
    vit_status status = configure_transformers(loader);
    if (status == VIT_OK)
        status = json_bool(loader->base.folder->config, "use_swiglu_ffn", &gated, NULL, loader->base.err);
    if (gated) {
        loader->base.activation = ACTIVATION_SWIGLU;
        loader->names.block.fc1 = "mlp.weights_in";
        loader->names.block.fc2 = "mlp.weights_out";
    }
    return status;
}

/* ---- the rows ---- */

static bool is_vit(const struct folder *folder)
{
    if (folder->layout == LAYOUT_TRANSFORMERS)
        return strcmp(folder->name, "vit") == 0 || strcmp(folder->name, "deit") == 0;
    return strncmp(folder->name, "vit_", 4) == 0 || strncmp(folder->name, "deit_", 5) == 0 ||
           strncmp(folder->name, "deit3_", 6) == 0;
}

static vit_status load_vit(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    static const struct vit_family timm = {.architecture = "vit", .names = &vit_timm_names,
                                           .configure = vit_configure_timm, .load_stem = patch_stem_load};
    static const struct vit_family transformers = {.architecture = "vit", .names = &vit_names,
                                                   .configure = configure_transformers, .load_stem = patch_stem_load};
    return vit_load_family(state, folder, info, folder->layout == LAYOUT_TIMM ? &timm : &transformers, err);
}

const struct arch arch_vit = {
    .name = "vit",
    .runs = {[LAYOUT_TRANSFORMERS] = "vit, deit", [LAYOUT_TIMM] = "vit_*, deit_*, deit3_*"},
    .recognise = is_vit,
    .load = load_vit,
    VIT_FAMILY_FUNCTIONS,
};

static bool is_dinov2(const struct folder *folder)
{
    return folder->layout == LAYOUT_TRANSFORMERS && strcmp(folder->name, "dinov2") == 0;
}

static vit_status load_dinov2(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    static const struct vit_family family = {.architecture = "dinov2", .names = &dinov2_names,
                                             .pooling = POOL_TOKEN_AND_AVERAGE, .any_size = true,
                                             .configure = configure_dinov2, .load_stem = patch_stem_load};
    return vit_load_family(state, folder, info, &family, err);
}

const struct arch arch_dinov2 = {
    .name = "dinov2",
    .runs = {[LAYOUT_TRANSFORMERS] = "dinov2"},
    .recognise = is_dinov2,
    .load = load_dinov2,
    VIT_FAMILY_FUNCTIONS,
};
