/*
 * vit_load.c - reads a ViT or DeiT folder, in the names of transformers or of timm.
 *
 * Sizes are read off the tensors; what they do not tell (heads, eps, activation, image size) comes from config.json,
 * else from timm's naming of sizes, else is an error that names the key.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/store/json.h"

enum {
    MAX_LAYERS = 1000,
    MAX_WIDTH = 1 << 16,
    MAX_TOKENS = 1 << 16,
    MAX_CLASSES = 1 << 20,
    MAX_IMAGE = 1 << 14,
    NAME_BYTES = 128
};

/* The tensors' names in each layout; ".weight" and ".bias" are added where there are two. */
struct names {
    const char *class_token, *distillation_token, *positions, *patches;
    const char *block, *norm1, *norm2, *query, *key, *value, *qkv, *proj, *fc1, *fc2;
    const char *norm, *fc_norm, *head, *head_distilled;
};

static const struct names timm_names = {
    .class_token = "cls_token", .distillation_token = "dist_token", .positions = "pos_embed",
    .patches = "patch_embed.proj", .block = "blocks.", .norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv",
    .proj = "attn.proj", .fc1 = "mlp.fc1", .fc2 = "mlp.fc2", .norm = "norm", .fc_norm = "fc_norm", .head = "head",
    .head_distilled = "head_dist",
};

/* All but the heads come after "<model_type>.". */
static const struct names transformers_names = {
    .class_token = "embeddings.cls_token", .distillation_token = "embeddings.distillation_token",
    .positions = "embeddings.position_embeddings", .patches = "embeddings.patch_embeddings.projection",
    .block = "encoder.layer.", .norm1 = "layernorm_before", .norm2 = "layernorm_after",
    .query = "attention.attention.query", .key = "attention.attention.key", .value = "attention.attention.value",
    .proj = "attention.output.dense", .fc1 = "intermediate.dense", .fc2 = "output.dense", .norm = "layernorm",
    .head = "classifier",
};

/* DeiTForImageClassificationWithTeacher has two heads. */
static const char *const teacher_head = "cls_classifier", *const teacher_head_distilled = "distillation_classifier";

/* State of a load: what every step needs. */
struct loader {
    const struct folder *folder;
    struct names names;
    char prefix[NAME_BYTES];
    struct vit *vit;
    vit_error *err;
};

bool vit_recognise(const struct folder *folder)
{
    if (folder->layout == LAYOUT_TRANSFORMERS)
        return strcmp(folder->name, "vit") == 0 || strcmp(folder->name, "deit") == 0;
    return strncmp(folder->name, "vit_", 4) == 0 || strncmp(folder->name, "deit_", 5) == 0 ||
           strncmp(folder->name, "deit3_", 6) == 0;
}

static const struct tensor *find(const struct loader *loader, const char *name)
{
    return tensors_find(&loader->folder->weights->tensors, name);
}

static vit_status get(const struct loader *loader, const float **values, const char *name, const size_t *shape,
                      size_t rank)
{
    return weights_get(loader->folder->weights, values, name, shape, rank, loader->err);
}

/* Reads "<prefix><name>.weight" [out, in] and ".bias" [out]. */
static vit_status load_linear(const struct loader *loader, struct linear *linear, const char *prefix, const char *name,
                              size_t out, size_t in)
{
    char text[3 * NAME_BYTES];
    *linear = (struct linear){.in = in, .out = out};
    snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    vit_status status = get(loader, &linear->weight, text, (size_t[]){out, in}, 2);
    snprintf(text, sizeof text, "%s%s.bias", prefix, name);
    if (status == VIT_OK)
        status = get(loader, &linear->bias, text, (size_t[]){out}, 1);
    return status;
}

static vit_status load_norm(const struct loader *loader, struct norm *norm, const char *prefix, const char *name)
{
    char text[3 * NAME_BYTES];
    const size_t shape[] = {loader->vit->width};
    norm->eps = loader->vit->eps;
    snprintf(text, sizeof text, "%s%s.weight", prefix, name);
    vit_status status = get(loader, &norm->weight, text, shape, 1);
    snprintf(text, sizeof text, "%s%s.bias", prefix, name);
    if (status == VIT_OK)
        status = get(loader, &norm->bias, text, shape, 1);
    return status;
}

/* timm keeps queries, keys and values in one matrix, transformers in three; either may lack the bias. */
static vit_status load_qkv(const struct loader *loader, struct linear *qkv, const char *block)
{
    const size_t width = loader->vit->width;
    const struct names *names = &loader->names;
    char text[6][3 * NAME_BYTES];
    *qkv = (struct linear){.in = width, .out = 3 * width};
    if (names->qkv != NULL) {
        snprintf(text[0], sizeof text[0], "%s%s.weight", block, names->qkv);
        snprintf(text[1], sizeof text[1], "%s%s.bias", block, names->qkv);
        vit_status status = get(loader, &qkv->weight, text[0], (size_t[]){3 * width, width}, 2);
        if (status == VIT_OK && find(loader, text[1]) != NULL)
            status = get(loader, &qkv->bias, text[1], (size_t[]){3 * width}, 1);
        return status;
    }
    const char *parts[] = {names->query, names->key, names->value};
    const char *weights[3], *biases[3];
    for (size_t i = 0; i < 3; i++) {
        snprintf(text[i], sizeof text[i], "%s%s.weight", block, parts[i]);
        snprintf(text[3 + i], sizeof text[i], "%s%s.bias", block, parts[i]);
        weights[i] = text[i];
        biases[i] = text[3 + i];
    }
    vit_status status =
        weights_stack(loader->folder->weights, &qkv->weight, weights, 3, width, width, loader->err);
    if (status == VIT_OK && find(loader, biases[0]) != NULL)
        status = weights_stack(loader->folder->weights, &qkv->bias, biases, 3, width, 0, loader->err);
    return status;
}

static vit_status load_block(const struct loader *loader, struct block *block, size_t layer)
{
    const struct vit *vit = loader->vit;
    const struct names *names = &loader->names;
    char prefix[2 * NAME_BYTES];
    snprintf(prefix, sizeof prefix, "%s%s%zu.", loader->prefix, names->block, layer);
    block->heads = vit->heads;
    block->activation = vit->activation;
    vit_status status = load_norm(loader, &block->norm1, prefix, names->norm1);
    if (status == VIT_OK)
        status = load_qkv(loader, &block->qkv, prefix);
    if (status == VIT_OK)
        status = load_linear(loader, &block->proj, prefix, names->proj, vit->width, vit->width);
    if (status == VIT_OK)
        status = load_norm(loader, &block->norm2, prefix, names->norm2);
    if (status == VIT_OK)
        status = load_linear(loader, &block->fc1, prefix, names->fc1, vit->mlp_width, vit->width);
    if (status == VIT_OK)
        status = load_linear(loader, &block->fc2, prefix, names->fc2, vit->width, vit->mlp_width);
    return status;
}

static vit_status load_patches(const struct loader *loader)
{
    struct vit *vit = loader->vit;
    char text[2 * NAME_BYTES];
    vit->patches = (struct linear){.in = 3 * vit->patch * vit->patch, .out = vit->width};
    snprintf(text, sizeof text, "%s%s.weight", loader->prefix, loader->names.patches);
    vit_status status = get(loader, &vit->patches.weight, text, (size_t[]){vit->width, 3, vit->patch, vit->patch}, 4);
    snprintf(text, sizeof text, "%s%s.bias", loader->prefix, loader->names.patches);
    if (status == VIT_OK)
        status = get(loader, &vit->patches.bias, text, (size_t[]){vit->width}, 1);
    return status;
}

/* The class or distillation token [1, 1, C], if the folder has it. */
static vit_status load_token(const struct loader *loader, const float **token, const char *name)
{
    char text[2 * NAME_BYTES];
    snprintf(text, sizeof text, "%s%s", loader->prefix, name);
    if (find(loader, text) == NULL)
        return VIT_OK;
    loader->vit->prefix++;
    return get(loader, token, text, (size_t[]){1, 1, loader->vit->width}, 3);
}

static vit_status load_tokens(const struct loader *loader)
{
    struct vit *vit = loader->vit;
    char text[2 * NAME_BYTES];
    vit_status status = load_token(loader, &vit->class_token, loader->names.class_token);
    if (status == VIT_OK)
        status = load_token(loader, &vit->distillation_token, loader->names.distillation_token);
    if (status != VIT_OK)
        return status;
    vit->tokens = vit->prefix + vit->grid_height * vit->grid_width;
    if (vit->tokens > MAX_TOKENS)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED, "%zu tokens per image are more than %d", vit->tokens,
                             MAX_TOKENS);
    snprintf(text, sizeof text, "%s%s", loader->prefix, loader->names.positions);
    return get(loader, &vit->positions, text, (size_t[]){1, vit->tokens, vit->width}, 3);
}

static vit_status load_head(const struct loader *loader)
{
    struct vit *vit = loader->vit;
    const struct names *names = &loader->names;
    char text[NAME_BYTES];
    snprintf(text, sizeof text, "%s.weight", names->head);
    const struct tensor *head = find(loader, text);
    if (head == NULL || head->rank != 2 || head->shape[0] < 1 || head->shape[0] > MAX_CLASSES)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                             "tensor '%s' [classes, %zu] is missing: the folder holds no classification head", text,
                             vit->width);
    vit->classes = head->shape[0];
    vit_status status = load_linear(loader, &vit->head, "", names->head, vit->classes, vit->width);
    if (status == VIT_OK && vit->pooling == POOL_DISTILLED)
        status = load_linear(loader, &vit->head_distilled, "", names->head_distilled, vit->classes, vit->width);
    return status;
}

/* Which token or mean the head sees, from the tensors that are there and from timm's global_pool. */
static vit_status choose_pooling(struct loader *loader)
{
    struct names *names = &loader->names;
    const char *pool = "token";
    vit_status status = VIT_OK;
    if (loader->folder->layout == LAYOUT_TRANSFORMERS) {
        char text[NAME_BYTES];
        snprintf(text, sizeof text, "%s.weight", teacher_head);
        if (find(loader, text) != NULL) {
            names->head = teacher_head;
            names->head_distilled = teacher_head_distilled;
        }
    } else {
        status = json_string(loader->folder->config, "global_pool", &pool, NULL, loader->err);
        if (status == VIT_OK)
            status = json_string(loader->folder->model_args, "global_pool", &pool, NULL, loader->err);
        if (find(loader, "head_dist.weight") == NULL)
            names->head_distilled = NULL;
    }
    if (status != VIT_OK)
        return status;
    loader->vit->norm_first = names->fc_norm == NULL || find(loader, "fc_norm.weight") == NULL;
    if (strcmp(pool, "avg") == 0)
        loader->vit->pooling = POOL_AVERAGE;
    else if (strcmp(pool, "token") == 0)
        loader->vit->pooling = names->head_distilled != NULL ? POOL_DISTILLED : POOL_TOKEN;
    else
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                             "config.json: \"global_pool\" is \"%.32s\"; \"token\" and \"avg\" are supported", pool);
    return VIT_OK;
}

static vit_status check_pooling(const struct loader *loader)
{
    const struct vit *vit = loader->vit;
    if (vit->pooling == POOL_TOKEN && vit->class_token == NULL)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s%s' is missing, and the pooling is \"token\"",
                             loader->prefix, loader->names.class_token);
    if (vit->pooling == POOL_DISTILLED && vit->prefix != 2)
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "a head for distillation is there, but not both the class and the distillation token");
    return VIT_OK;
}

/* C, P, L and M are read off the tensors. */
static vit_status measure_tensors(const struct loader *loader)
{
    struct vit *vit = loader->vit;
    char text[2 * NAME_BYTES];
    snprintf(text, sizeof text, "%s%s.weight", loader->prefix, loader->names.patches);
    const struct tensor *patches = find(loader, text);
    if (patches == NULL || patches->rank != 4 || patches->shape[1] != 3 || patches->shape[2] != patches->shape[3] ||
        patches->shape[0] < 1 || patches->shape[0] > MAX_WIDTH || patches->shape[2] < 1 ||
        patches->shape[2] > MAX_IMAGE)
        return vit_error_set(loader->err, patches == NULL ? VIT_ERR_FORMAT : VIT_ERR_UNSUPPORTED,
                             "tensor '%s' %s: [width, 3, patch, patch] was expected", text,
                             patches == NULL ? "is missing" : "has another shape");
    vit->width = patches->shape[0];
    vit->patch = patches->shape[2];
    for (vit->layers = 0; vit->layers < MAX_LAYERS; vit->layers++) {
        snprintf(text, sizeof text, "%s%s%zu.%s.weight", loader->prefix, loader->names.block, vit->layers,
                 loader->names.norm1);
        if (find(loader, text) == NULL)
            break;
    }
    snprintf(text, sizeof text, "%s%s0.%s.weight", loader->prefix, loader->names.block, loader->names.fc1);
    const struct tensor *fc1 = find(loader, text);
    if (vit->layers == 0 || fc1 == NULL || fc1->rank != 2 || fc1->shape[0] < 1 || fc1->shape[0] > MAX_WIDTH)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s' [mlp width, %zu] is missing or has another shape",
                             text, vit->width);
    vit->mlp_width = fc1->shape[0];
    return VIT_OK;
}

/* ---- what the tensors do not tell ---- */

static vit_status read_activation(const struct loader *loader, const char *name)
{
    static const struct {
        const char *name;
        enum activation activation;
    } known[] = {{"gelu", ACTIVATION_GELU},           {"gelu_new", ACTIVATION_GELU_TANH},
                 {"gelu_tanh", ACTIVATION_GELU_TANH}, {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
                 {"quick_gelu", ACTIVATION_GELU_QUICK}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) {
            loader->vit->activation = known[i].activation;
            return VIT_OK;
        }
    return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                         "config.json: activation \"%.40s\" is not supported; gelu, gelu_new and quick_gelu are", name);
}

/* Sizes that timm's names stand for: the heads of vit_tiny_*, deit_small_* and so on. */
static size_t heads_by_name(const char *architecture)
{
    static const struct {
        const char *size;
        size_t heads;
    } known[] = {{"tiny_", 3},   {"small_", 6},  {"medium_", 8},    {"base_", 12},
                 {"large_", 16}, {"huge_", 16},  {"giant_", 16},    {"gigantic_", 16}};
    const char *size = strchr(architecture, '_') + 1;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(size, known[i].size, strlen(known[i].size)) == 0)
            return known[i].heads;
    return 0;
}

/* A key of model_args that changes the network in a way the tensors do not show must not be passed over. */
static vit_status check_model_args(const struct loader *loader)
{
    static const char *const known[] = {"img_size",    "patch_size", "in_chans",   "num_classes", "embed_dim",
                                        "depth",       "num_heads",  "mlp_ratio",  "qkv_bias",    "class_token",
                                        "global_pool", "fc_norm",    "act_layer",  "drop_rate",   "attn_drop_rate",
                                        "drop_path_rate", "proj_drop_rate", "pos_drop_rate", "weight_init"};
    const cJSON *item;
    cJSON_ArrayForEach(item, loader->folder->model_args) {
        bool found = cJSON_IsNull(item);
        for (size_t i = 0; i < sizeof known / sizeof known[0] && !found; i++)
            found = strcmp(item->string, known[i]) == 0;
        if (!found)
            return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                                 "config.json: \"model_args.%.64s\" is not supported by architecture 'vit'",
                                 item->string);
    }
    return VIT_OK;
}

static vit_status read_timm(const struct loader *loader)
{
    struct vit *vit = loader->vit;
    const struct folder *folder = loader->folder;
    const char *activation = strstr(folder->name, "quickgelu") != NULL ? "quick_gelu" : "gelu";
    bool found = false;
    vit->eps = 1e-6f; /* timm's default for every ViT of these names */
    vit_status status = check_model_args(loader);
    if (status == VIT_OK)
        status = json_string(folder->model_args, "act_layer", &activation, NULL, loader->err);
    if (status == VIT_OK)
        status = read_activation(loader, activation);
    if (status == VIT_OK)
        status = json_size(folder->model_args, "num_heads", 1, MAX_WIDTH, &vit->heads, &found, loader->err);
    if (status != VIT_OK || found)
        return status;
    vit->heads = heads_by_name(folder->name);
    if (vit->heads == 0)
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "config.json: \"model_args.num_heads\" is missing, and the architecture's name '%.64s' does "
                             "not tell the number of heads",
                             folder->name);
    return VIT_OK;
}

static vit_status missing_key(const struct loader *loader, const char *key)
{
    return vit_error_set(loader->err, VIT_ERR_FORMAT, "config.json: \"%s\" is missing", key);
}

static vit_status read_transformers(const struct loader *loader)
{
    struct vit *vit = loader->vit;
    const cJSON *config = loader->folder->config;
    const char *activation = NULL;
    double eps = 0;
    size_t layers = vit->layers;
    bool found = false;
    vit_status status = json_size(config, "num_attention_heads", 1, MAX_WIDTH, &vit->heads, &found, loader->err);
    if (status == VIT_OK && !found)
        return missing_key(loader, "num_attention_heads");
    if (status == VIT_OK)
        status = json_number(config, "layer_norm_eps", &eps, &found, loader->err);
    if (status == VIT_OK && !found)
        return missing_key(loader, "layer_norm_eps");
    if (status == VIT_OK)
        status = json_string(config, "hidden_act", &activation, &found, loader->err);
    if (status == VIT_OK && !found)
        return missing_key(loader, "hidden_act");
    if (status == VIT_OK)
        status = read_activation(loader, activation);
    if (status == VIT_OK)
        status = json_size(config, "num_hidden_layers", 1, MAX_LAYERS, &layers, NULL, loader->err);
    if (status != VIT_OK)
        return status;
    vit->eps = (float)eps;
    if (eps < 0 || eps > 1)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "config.json: \"layer_norm_eps\" must be from 0 to 1");
    if (layers != vit->layers)
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "config.json: \"num_hidden_layers\" is %zu, the tensors hold %zu layers", layers,
                             vit->layers);
    return VIT_OK;
}

/* A size given as one number or as [height, width]; `skip` leading entries (timm's channels) are passed over. */
static vit_status read_image_size(const struct loader *loader, const cJSON *size, int skip)
{
    struct vit *vit = loader->vit;
    const cJSON *height = cJSON_IsArray(size) ? cJSON_GetArrayItem(size, skip) : size;
    const cJSON *width = cJSON_IsArray(size) ? cJSON_GetArrayItem(size, skip + 1) : size;
    if (!cJSON_IsNumber(height) || !cJSON_IsNumber(width) || height->valuedouble < 1 || width->valuedouble < 1 ||
        height->valuedouble > MAX_IMAGE || width->valuedouble > MAX_IMAGE)
        return vit_error_set(loader->err, VIT_ERR_FORMAT,
                             "config.json: the image size (\"image_size\", or timm's \"img_size\" or \"input_size\") is "
                             "missing or out of range");
    vit->image_height = (size_t)height->valuedouble;
    vit->image_width = (size_t)width->valuedouble;
    vit->grid_height = vit->image_height / vit->patch;
    vit->grid_width = vit->image_width / vit->patch;
    if (vit->grid_height == 0 || vit->grid_width == 0)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "an image of %zux%zu holds no patch of %zu",
                             vit->image_height, vit->image_width, vit->patch);
    return VIT_OK;
}

static vit_status read_config(const struct loader *loader)
{
    const struct folder *folder = loader->folder;
    struct vit *vit = loader->vit;
    const cJSON *size = json_get(folder->config, "image_size");
    int skip = 0;
    vit_status status;
    if (folder->layout == LAYOUT_TIMM) {
        status = read_timm(loader);
        size = json_get(folder->model_args, "img_size");
        if (size == NULL) {
            size = json_get(folder->pretrained, "input_size");
            skip = 1;
        }
    } else {
        status = read_transformers(loader);
    }
    if (status == VIT_OK)
        status = read_image_size(loader, size, skip);
    if (status == VIT_OK && vit->width % vit->heads != 0)
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "a width of %zu cannot be split into %zu heads", vit->width,
                             vit->heads);
    return status;
}

/* ---- all of it ---- */

void vit_release(void *state)
{
    struct vit *vit = state;
    if (vit != NULL)
        free(vit->blocks);
    free(vit);
}

static vit_status load_all(struct loader *loader)
{
    struct vit *vit = loader->vit;
    vit_status status = measure_tensors(loader);
    if (status == VIT_OK)
        status = read_config(loader);
    if (status == VIT_OK)
        status = choose_pooling(loader);
    if (status == VIT_OK)
        status = load_tokens(loader);
    if (status == VIT_OK)
        status = check_pooling(loader);
    if (status == VIT_OK)
        status = load_patches(loader);
    if (status == VIT_OK && (vit->blocks = calloc(vit->layers, sizeof *vit->blocks)) == NULL)
        status = vit_error_set(loader->err, VIT_ERR_NO_MEMORY, "no memory for %zu layers", vit->layers);
    for (size_t i = 0; status == VIT_OK && i < vit->layers; i++)
        status = load_block(loader, &vit->blocks[i], i);
    if (status == VIT_OK && vit->pooling == POOL_AVERAGE && !vit->norm_first)
        status = load_norm(loader, &vit->norm, "", loader->names.fc_norm);
    else if (status == VIT_OK)
        status = load_norm(loader, &vit->norm, loader->prefix, loader->names.norm);
    if (status == VIT_OK)
        status = load_head(loader);
    return status;
}

static void describe(const struct vit *vit, vit_model_info *info)
{
    static const char *const activations[] = {[ACTIVATION_GELU] = "gelu", [ACTIVATION_GELU_TANH] = "gelu_new",
                                              [ACTIVATION_GELU_QUICK] = "quick_gelu"};
    static const char *const poolings[] = {[POOL_TOKEN] = "token", [POOL_DISTILLED] = "token+distillation",
                                           [POOL_AVERAGE] = "avg"};
    info->pooling = poolings[vit->pooling];
    info->activation = activations[vit->activation];
    info->image_height = vit->image_height;
    info->image_width = vit->image_width;
    info->patch_size = vit->patch;
    info->grid_height = vit->grid_height;
    info->grid_width = vit->grid_width;
    info->tokens = vit->tokens;
    info->prefix_tokens = vit->prefix;
    info->layers = vit->layers;
    info->width = vit->width;
    info->heads = vit->heads;
    info->mlp_width = vit->mlp_width;
    info->classes = vit->classes;
    info->embedding_width = vit->width;
    info->explanations = 1u << VIT_ATTENTION_RAW | 1u << VIT_ATTENTION_LEGRAD;
    if (vit->class_token != NULL)
        info->explanations |= 1u << VIT_ATTENTION_ROLLOUT;
}

vit_status vit_load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    /* the pooler and the mask token serve other tasks than classification */
    static const char *const ignored[] = {"pooler.dense.weight", "pooler.dense.bias", "mask_token"};
    struct vit *vit = calloc(1, sizeof *vit);
    if (vit == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the model");
    struct loader loader = {.folder = folder, .vit = vit, .err = err};
    loader.names = folder->layout == LAYOUT_TIMM ? timm_names : transformers_names;
    if (folder->layout == LAYOUT_TRANSFORMERS)
        snprintf(loader.prefix, sizeof loader.prefix, "%s.", folder->name);
    vit_status status = load_all(&loader);
    if (status == VIT_OK)
        status = weights_finish(folder->weights, "vit", ignored, sizeof ignored / sizeof ignored[0], err);
    if (status != VIT_OK) {
        vit_release(vit);
        return status;
    }
    describe(vit, info);
    *state = vit;
    return VIT_OK;
}
