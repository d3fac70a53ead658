/*
 * vit_family.c - the plain ViTs: transformers' vit, deit and dinov2, timm's vit_*, deit_* and deit3_*.
 */
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/store/json.h"

/* ---- timm ---- */

/* By what comes after "vit_", "deit_" or "deit3_". */
static const struct vit_size timm_sizes[] = {
    {"tiny_", 192, 3},
    {"wee_", 256, 4},
    {"xsmall_", 256, 4},
    {"little_", 320, 5},
    {"small_", 384, 6},
    {"medium_", 512, 8},
    {"mediumd_", 512, 8},
    {"betwixt_", 640, 10},
    {"base_patch16_gap_", 768, 16},
    {"base_patch16_plus_", 896, 14},
    {"base_patch32_plus_", 896, 14},
    {"base_", 768, 12},
    {"so150m_", 896, 14},
    {"so150m2_", 832, 13},
    {"so400m_", 1152, 16},
    {"large_", 1024, 16},
    {"huge_", 1280, 16},
    {"giant_patch14_dinov2", 1536, 24},
    {"giant_patch14_reg4_dinov2", 1536, 24},
    {"giant_", 1408, 16},
    {"giantopt_", 1536, 16},
    {"gigantic_", 1664, 16},
};

vit_status vit_read_heads(struct vit_loader *loader, const char *text, const struct vit_size *sizes, size_t count)
{
    const struct folder *folder = loader->base.folder;
    struct vit *vit = loader->vit;
    bool found = false;
    size_t i = 0;
    vit_status status =
        json_size(folder->model_args, "num_heads", 1, MAX_WIDTH, &vit->heads, &found, loader->base.err);
    if (status != VIT_OK || found)
        return status;
    while (i < count && strncmp(text, sizes[i].name, strlen(sizes[i].name)) != 0)
        i++;
    if (i == count)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "config.json: \"model_args.num_heads\" is missing, and the architecture's name '%.64s' does "
                             "not tell the number of heads",
                             folder->name);
    if (sizes[i].width != vit->width && json_get(folder->model_args, "embed_dim") == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "config.json: \"model_args.num_heads\" is missing; the architecture's name '%.64s' stands for "
                             "%zu heads in a width of %zu, and the tensors have %zu",
                             folder->name, sizes[i].heads, sizes[i].width, vit->width);
    vit->heads = sizes[i].heads;
    return VIT_OK;
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

/* The activation that timm gives the architecture of this name. */
static const char *activation_by_name(const char *architecture)
{
    static const char *const tanh_siglips[] = {"base_patch32_siglip", "large_patch16_siglip_gap_512",
                                               "so400m_patch16_siglip", "giantopt_patch16_siglip"};
    for (size_t i = 0; i < sizeof tanh_siglips / sizeof tanh_siglips[0]; i++)
        if (strstr(architecture, tanh_siglips[i]) != NULL)
            return "gelu_tanh";
    return strstr(architecture, "quickgelu") != NULL ? "quick_gelu" : "gelu";
}

/* Two matrices of equal rank tell a gated MLP: fc1 gives twice what fc2 takes. */
static bool has_gated_mlp(const struct loader *loader)
{
    const struct tensor *fc1 = load_find(loader, "blocks.0.mlp.fc1.weight");
    const struct tensor *fc2 = load_find(loader, "blocks.0.mlp.fc2.weight");
    return fc1 != NULL && fc2 != NULL && fc1->rank == 2 && fc2->rank == 2 && fc2->shape[1] <= MAX_WIDTH &&
           fc1->shape[0] == 2 * fc2->shape[1];
}

static vit_status read_activation(struct loader *loader)
{
    const char *const name = loader->folder->name, *said = NULL;
    vit_status status = json_string(loader->folder->model_args, "act_layer", &said, NULL, loader->err);
    if (status != VIT_OK)
        return status;
    if (!has_gated_mlp(loader))
        return load_activation(loader, &loader->activation, said != NULL ? said : activation_by_name(name));
    loader->activation = ACTIVATION_SWIGLU;
    if (said != NULL && strcmp(said, "silu") != 0 && strcmp(said, "swish") != 0)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                             "config.json: \"model_args.act_layer\" is \"%.40s\"; the MLPs are gated, and vitd gates by silu",
                             said);
    return VIT_OK;
}

vit_status vit_configure_timm(struct vit_loader *loader)
{
    static const char *const known[] = {
        "img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias",
        "class_token", "global_pool", "fc_norm", "act_layer", "drop_rate", "attn_drop_rate", "drop_path_rate",
        "proj_drop_rate", "pos_drop_rate", "weight_init", "init_values", "reg_tokens", "no_embed_class", "pre_norm",
        "pos_embed", "dynamic_img_size"};
    struct loader *base = &loader->base;
    const char *name = base->folder->name;
    base->eps = strstr(name, "_clip_") != NULL ? 1e-5f : 1e-6f;
    vit_status status =
        load_check_model_args(base, loader->family->architecture, known, sizeof known / sizeof known[0]);
    if (status == VIT_OK)
        status = check_registers(base);
    if (status == VIT_OK)
        status = read_activation(base);
    return status == VIT_OK ? vit_read_heads(loader, strchr(name, '_') + 1, timm_sizes,
                                             sizeof timm_sizes / sizeof timm_sizes[0])
                            : status;
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

vit_status vit_configure_transformers(struct vit_loader *loader)
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
    vit_status status = vit_configure_transformers(loader);
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

/* Variants of timm's whose tensors could pass for a plain ViT's, or fail for a reason that helps nobody. */
static vit_status refuse_variants(const struct folder *folder, vit_error *err)
{
    static const struct {
        const char *part, *what;
    } variants[] = {{"_rpn_", "norms after attention and MLP"},    {"_rope_", "rotary positions"},
                    {"vit_pe_", "rotary positions"},               {"relpos_", "relative positions"},
                    {"_xp_", "attention and MLP side by side"},    {"_18x2_", "blocks side by side"},
                    {"_pwee_", "attention and MLP side by side"},  {"_dwee_", "differential attention"},
                    {"_dpwee_", "differential attention"},         {"_dlittle_", "differential attention"},
                    {"_resnet26d_", "another backbone"},           {"_resnet50d_", "another backbone"},
                    {"_mci_", "another backbone"}};
    for (size_t i = 0; folder->layout == LAYOUT_TIMM && i < sizeof variants / sizeof variants[0]; i++)
        if (strstr(folder->name, variants[i].part) != NULL)
            return vit_error_set(err, VIT_ERR_UNSUPPORTED, "architecture '%.64s' has %s, which vitd does not run",
                                 folder->name, variants[i].what);
    return VIT_OK;
}

static vit_status load_vit(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    static const struct vit_family timm = {.architecture = "vit", .names = &vit_timm_names,
                                           .configure = vit_configure_timm, .load_stem = patch_stem_load};
    static const struct vit_family transformers = {.architecture = "vit", .names = &vit_names,
                                                   .configure = vit_configure_transformers,
                                                   .load_stem = patch_stem_load};
    vit_status status = refuse_variants(folder, err);
    if (status != VIT_OK)
        return status;
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
