/*
 * clip.c - CLIP (arXiv 2103.00020), transformers' CLIPModel: a ViT and a text encoder whose embeddings are compared.
 *
 *     image = visual_projection(post_layernorm(tokens)[class]) at unit length    vit.c
 *     text  = text_projection(final_layer_norm(tokens)[end]) at unit length      text_tower.c
 *     logit = exp(logit_scale) image . text
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/text_tower.h"
#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

struct clip {
    void *image; /* vit.c's */
    struct text_tower text;
    float logit_scale;
};

/* ---- the config ---- */

/* What transformers 4.47 takes for the keys that a published config leaves out, of those that are read. */
static const char vision_defaults[] = "{\"num_hidden_layers\": 12, \"num_attention_heads\": 12, \"image_size\": 224, "
                                      "\"hidden_act\": \"quick_gelu\", \"layer_norm_eps\": 1e-5}";
static const char text_defaults[] = "{\"num_hidden_layers\": 12, \"num_attention_heads\": 8, \"eos_token_id\": 49407, "
                                    "\"vocab_size\": 49408, \"max_position_embeddings\": 77, "
                                    "\"hidden_act\": \"quick_gelu\", \"layer_norm_eps\": 1e-5}";

/* A tower's section with its defaults, to be deleted. Old configs have it twice, and "<section>_dict" counts. */
static vit_status read_section(cJSON **section, const cJSON *config, const char *name, const char *defaults,
                               vit_error *err)
{
    const struct name old = name_of("%s_dict", name);
    const cJSON *said = json_get(config, old.text) != NULL ? json_get(config, old.text) : json_get(config, name), *item;
    if (said != NULL && !cJSON_IsObject(said))
        return vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"%s\" must be an object", name);
    cJSON *read = cJSON_Parse(defaults);
    bool good = read != NULL;
    cJSON_ArrayForEach(item, said)
        if (good && !cJSON_IsNull(item)) {
            cJSON_DeleteItemFromObjectCaseSensitive(read, item->string);
            cJSON *copy = cJSON_Duplicate(item, true);
            good = cJSON_AddItemToObject(read, item->string, copy);
            if (!good)
                cJSON_Delete(copy);
        }
    if (!good) {
        cJSON_Delete(read);
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for \"%s\" of config.json", name);
    }
    *section = read;
    return VIT_OK;
}

/* ---- loading ---- */

const struct block_names clip_block_names = {
    .norm1 = "layer_norm1", .query = "self_attn.q_proj", .key = "self_attn.k_proj", .value = "self_attn.v_proj",
    .proj = "self_attn.out_proj", .norm2 = "layer_norm2", .fc1 = "mlp.fc1", .fc2 = "mlp.fc2",
};

static vit_status load_image_tower(struct clip *clip, const struct folder *folder, const cJSON *config,
                                   vit_model_info *info, vit_error *err)
{
    struct vit_names names = {
        .class_token = "embeddings.class_embedding", .positions = "embeddings.position_embedding.weight",
        .patches = "embeddings.patch_embedding", .blocks = "encoder.layers.", .block = clip_block_names,
        .norm_pre = "pre_layrnorm", /* as it is spelt */
        .norm = "post_layernorm", .head = "visual_projection",
    };
    const struct vit_family family = {.architecture = "clip", .names = &names, .prefix = "vision_model.",
                                      .projects = true, .configure = vit_configure_transformers,
                                      .load_stem = patch_stem_load};
    struct folder section = *folder;
    section.config = config;
    return vit_load_family(&clip->image, &section, info, &family, err);
}

static vit_status load_logit_scale(struct clip *clip, const struct loader *loader)
{
    const float *stored;
    const size_t scalar[1] = {0}; /* of rank 0 */
    vit_status status = load_tensor(loader, &stored, "logit_scale", scalar, 0);
    if (status != VIT_OK)
        return status;
    clip->logit_scale = expf(*stored);
    if (!isfinite(clip->logit_scale))
        return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor 'logit_scale': its exponential is not finite");
    return VIT_OK;
}

static void describe(const struct clip *clip, vit_model_info *info)
{
    const struct text_tower *text = &clip->text;
    info->text = true;
    info->context_length = text->context;
    info->vocabulary = text->vocabulary;
    info->text_layers = text->layers;
    info->text_width = text->width;
    info->text_heads = text->heads;
    info->logit_scale = clip->logit_scale;
}

static vit_status check_projections(const struct clip *clip, const struct folder *folder, size_t width, vit_error *err)
{
    size_t said = width;
    if (width != clip->text.projection.out)
        return vit_error_set(err, VIT_ERR_FORMAT, "the embeddings of images have %zu numbers, those of texts %zu",
                             width, clip->text.projection.out);
    vit_status status = json_size(folder->config, "projection_dim", 1, MAX_WIDTH, &said, NULL, err);
    if (status == VIT_OK && said != width)
        status = vit_error_set(err, VIT_ERR_FORMAT, "config.json: \"projection_dim\" is %zu, the tensors say %zu", said,
                               width);
    return status;
}

/* The text tower first: the image tower's loader then refuses the tensors that nothing asked for. */
static vit_status load_towers(struct clip *clip, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    const struct loader loader = {.folder = folder, .err = err};
    cJSON *text = NULL, *vision = NULL;
    vit_status status = read_section(&text, folder->config, "text_config", text_defaults, err);
    if (status == VIT_OK)
        status = read_section(&vision, folder->config, "vision_config", vision_defaults, err);
    if (status == VIT_OK)
        status = text_tower_load(&clip->text, folder, text, err);
    if (status == VIT_OK)
        status = load_logit_scale(clip, &loader);
    if (status == VIT_OK)
        status = load_image_tower(clip, folder, vision, info, err);
    if (status == VIT_OK)
        status = check_projections(clip, folder, info->embedding_width, err);
    cJSON_Delete(text);
    cJSON_Delete(vision);
    return status;
}

static void release(void *state)
{
    struct clip *clip = state;
    vit_release(clip->image);
    text_tower_release(&clip->text);
    free(clip);
}

static vit_status load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    struct clip *clip = calloc(1, sizeof *clip);
    if (clip == NULL)
        return vit_error_set(err, VIT_ERR_NO_MEMORY, "no memory for the model");
    vit_status status = load_towers(clip, folder, info, err);
    if (status != VIT_OK) {
        release(clip);
        return status;
    }
    describe(clip, info);
    *state = clip;
    return VIT_OK;
}

static bool recognise(const struct folder *folder)
{
    return folder->layout == LAYOUT_TRANSFORMERS && strcmp(folder->name, "clip") == 0;
}

/* ---- running ---- */

/* A session runs images or texts at a time: both in the same memory. */
static size_t memory_floats(const void *state, size_t batch)
{
    const struct clip *clip = state;
    return size_larger(vit_memory(clip->image, batch), text_tower_memory(&clip->text));
}

static void forward(const void *state, const struct compute *compute, float *memory, const struct arch_image *images,
                    size_t count)
{
    vit_forward(((const struct clip *)state)->image, compute, memory, images, count);
}

static const struct block *blocks(const void *state)
{
    return vit_blocks(((const struct clip *)state)->image);
}

static void score_gradient(const void *state, const struct compute *compute, float *memory, float *gradient,
                           const float *mean, size_t class_index, const float *text)
{
    vit_score_gradient(((const struct clip *)state)->image, compute, memory, gradient, mean, class_index, text);
}

static struct arch_inside inside(const void *state)
{
    return vit_inside(((const struct clip *)state)->image);
}

static size_t text_length(const void *state, const int32_t *ids, size_t count)
{
    return text_tower_length(&((const struct clip *)state)->text, ids, count);
}

static size_t text_capacity(const void *state)
{
    return text_tower_capacity(&((const struct clip *)state)->text);
}

static void encode(const void *state, const struct compute *compute, float *memory, const struct arch_texts *texts)
{
    text_tower_forward(&((const struct clip *)state)->text, compute, memory, texts);
}

static const struct arch_text text_functions = {.length = text_length, .capacity = text_capacity, .encode = encode};

const struct arch arch_clip = {
    .name = "clip",
    .runs = {[LAYOUT_TRANSFORMERS] = "clip"},
    .recognise = recognise,
    .load = load,
    .free = release,
    .memory = memory_floats,
    .forward = forward,
    .blocks = blocks,
    .score_gradient = score_gradient,
    .text = &text_functions,
    .inside = inside,
};
