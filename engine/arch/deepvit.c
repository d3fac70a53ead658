/*
 * deepvit.c - DeepViT (arXiv 2103.11886) in the names of its authors' code (dvit_repo): the plain encoder, in whose
 * later blocks a 1x1 convolution and a BatchNorm mix the heads' attention probabilities (re-attention).
 *
 *     A = softmax(q k^T / sqrt(HD));  A = BatchNorm(W A + b) s
 *
 * BatchNorm and s are folded into W and b. Blocks see their input times a factor (scale_adjustment) and give theirs
 * divided by it; in front of a LayerNorm that is a smaller eps, and behind a Linear smaller weights.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"
#include "engine/base/size.h"
#include "engine/store/json.h"

static const float batch_norm_eps = 1e-5f; /* PyTorch's default */

struct settings {
    double adjustment;    /* scale_adjustment */
    bool transform_scale; /* whether s is 1 / sqrt(HD) instead of 1 */
};

/* By what comes after "deepvit_". */
static const struct vit_size published[] = {{"patch16_", 384, 12}, {"S", 396, 12}, {"L", 420, 12}};

static vit_status read_settings(const struct vit_loader *loader, struct settings *settings)
{
    const struct folder *folder = loader->base.folder;
    const bool small = strcmp(folder->name, "deepvit_S") == 0, large = strncmp(folder->name, "deepvit_L", 9) == 0;
    *settings = (struct settings){.adjustment = small || large ? 0.5 : 1, .transform_scale = small};
    vit_status status =
        json_number(folder->model_args, "scale_adjustment", &settings->adjustment, NULL, loader->base.err);
    if (status == VIT_OK)
        status = json_bool(folder->model_args, "transform_scale", &settings->transform_scale, NULL, loader->base.err);
    if (status == VIT_OK && !(settings->adjustment >= 1e-3 && settings->adjustment <= 1e3))
        return vit_error_set(loader->base.err, VIT_ERR_FORMAT,
                             "config.json: \"model_args.scale_adjustment\" must be from 0.001 to 1000");
    return status;
}

static vit_status configure(struct vit_loader *loader)
{
    static const char *const known[] = {"img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth",
                                        "num_heads", "mlp_ratio", "qkv_bias", "scale_adjustment", "transform_scale",
                                        "use_cnn_embed", "drop_rate", "attn_drop_rate", "drop_path_rate"};
    struct loader *base = &loader->base;
    base->eps = 1e-6f;
    base->activation = ACTIVATION_GELU;
    vit_status status =
        load_check_model_args(base, loader->family->architecture, known, sizeof known / sizeof known[0]);
    return status == VIT_OK ? vit_read_heads(loader, base->folder->name + strlen("deepvit_"), published,
                                             sizeof published / sizeof published[0])
                            : status;
}

/* ---- BatchNorm ---- */

/* What a BatchNorm does in inference: scale [n] x + shift [n], both to be added to the loader's derived memory. */
static vit_status load_batch_norm(const struct loader *loader, float **scale, float **shift, const char *name, size_t n)
{
    static const char *const parts[] = {"weight", "bias", "running_mean", "running_var"};
    const float *values[4];
    vit_status status = load_derived(loader, scale, n);
    if (status == VIT_OK)
        status = load_derived(loader, shift, n);
    for (size_t i = 0; status == VIT_OK && i < 4; i++)
        status = load_tensor(loader, &values[i], name_of("%s.%s", name, parts[i]).text, &n, 1);
    for (size_t i = 0; status == VIT_OK && i < n; i++) {
        if (!(values[3][i] >= 0))
            return vit_error_set(loader->err, VIT_ERR_FORMAT, "tensor '%s.running_var' holds a negative variance", name);
        (*scale)[i] = values[0][i] / sqrtf(values[3][i] + batch_norm_eps);
        (*shift)[i] = values[1][i] - values[2][i] * (*scale)[i];
    }
    return status;
}

/* ---- re-attention ---- */

static vit_status load_mixing(const struct vit_loader *loader, struct attention *attention, const char *prefix, double s)
{
    const struct loader *base = &loader->base;
    const size_t heads = attention->heads;
    const float *weight, *bias;
    float *scale, *shift, *mixing;
    vit_status status = load_tensor(base, &weight, name_of("%sattn.reatten_matrix.weight", prefix).text,
                                    (size_t[]){heads, heads, 1, 1}, 4);
    if (status == VIT_OK)
        status = load_tensor(base, &bias, name_of("%sattn.reatten_matrix.bias", prefix).text, &heads, 1);
    if (status == VIT_OK)
        status = load_batch_norm(base, &scale, &shift, name_of("%sattn.var_norm", prefix).text, heads);
    if (status == VIT_OK)
        status = load_derived(base, &mixing, heads * heads);
    if (status != VIT_OK)
        return status;
    for (size_t i = 0; i < heads; i++) {
        for (size_t j = 0; j < heads; j++)
            mixing[i * heads + j] = (float)(s * scale[i] * weight[i * heads + j]);
        shift[i] = (float)(s * (scale[i] * bias[i] + shift[i]));
    }
    attention->mixing = mixing;
    attention->mixing_bias = shift;
    return VIT_OK;
}

static vit_status finish_block(struct vit_loader *loader, struct block *block, const char *prefix)
{
    struct settings settings;
    vit_status status = read_settings(loader, &settings);
    if (status == VIT_OK && settings.adjustment != 1) {
        const double factor = settings.adjustment;
        block->norm1.eps = block->norm2.eps = (float)(loader->base.eps / (factor * factor));
        status = load_scaled(&loader->base, &block->proj, NULL, (float)(1 / factor));
        if (status == VIT_OK)
            status = load_scaled(&loader->base, &block->mlp.fc2, NULL, (float)(1 / factor));
    }
    if (status != VIT_OK || load_find(&loader->base, name_of("%sattn.reatten_matrix.weight", prefix).text) == NULL)
        return status;
    const double s = settings.transform_scale ? 1 / sqrt((double)loader->vit->width / (double)loader->vit->heads) : 1;
    return load_mixing(loader, &block->attention, prefix, s);
}

/* ---- the convolutional stem of deepvit_S and deepvit_L ---- */

/* relu(bn(conv 7x7 / 2)), relu(bn(conv 3x3)), then patches of half the size. */
struct conv_stem {
    size_t image_height, image_width;
    struct conv conv1, conv2, proj;
};

enum { PICTURE, MAP, STEM_PARTS }; /* PICTURE becomes the second convolution's map */

static size_t lay_out(const struct conv_stem *stem, size_t starts[STEM_PARTS])
{
    const size_t sizes[STEM_PARTS] = {
        [PICTURE] = size_larger(3 * stem->image_height * stem->image_width,
                                sliding_positions(&stem->conv2.sliding) * stem->conv2.out),
        [MAP] = sliding_positions(&stem->conv1.sliding) * stem->conv1.out,
    };
    return parts_lay_out(starts, sizes, STEM_PARTS);
}

static size_t stem_memory(const void *state)
{
    size_t starts[STEM_PARTS];
    return lay_out(state, starts);
}

static void stem_forward(const void *state, const struct compute *compute, float *memory, float *tokens,
                         const float *pixels)
{
    const struct conv_stem *stem = state;
    size_t starts[STEM_PARTS];
    lay_out(stem, starts);
    float *picture = memory + starts[PICTURE], *map = memory + starts[MAP];
    const size_t rows = sliding_positions(&stem->conv1.sliding);
    pixels_to_map(picture, pixels, stem->image_height, stem->image_width);
    struct conv conv1 = stem->conv1, conv2 = stem->conv2;
    conv1.bias = conv2.bias = NULL; /* BatchNorm's, added by the activation */
    conv_forward(&conv1, compute, map, picture, false);
    compute->kernels->activate[ACTIVATION_RELU](map, stem->conv1.bias, rows, conv1.out);
    conv_forward(&conv2, compute, picture, map, false);
    compute->kernels->activate[ACTIVATION_RELU](picture, stem->conv2.bias, rows, conv2.out);
    conv_forward(&stem->proj, compute, tokens, picture, false);
}

/* A convolution without bias and the BatchNorm after it, as one with a bias. */
static vit_status load_normed_conv(const struct loader *loader, struct conv *conv, const char *name, const char *norm,
                                   size_t in)
{
    float *scale, *shift;
    vit_status status = load_conv(loader, conv, name, in, BIAS_NONE);
    if (status == VIT_OK)
        status = load_batch_norm(loader, &scale, &shift, norm, conv->out);
    if (status != VIT_OK)
        return status;
    struct linear linear = {.weight = conv->weight, .in = conv->sliding.kernel * conv->sliding.kernel * in,
                            .out = conv->out};
    status = load_scaled(loader, &linear, scale, 1);
    conv->weight = linear.weight;
    conv->bias = shift;
    return status == VIT_OK ? load_packed_conv(loader, conv) : status;
}

static vit_status load_convolutions(const struct vit_loader *loader, struct conv_stem *stem)
{
    const struct loader *base = &loader->base;
    const struct tensor *proj = load_find(base, "patch_embed.proj.weight");
    const size_t patch = proj != NULL && proj->rank == 4 && proj->shape[2] >= 1 && proj->shape[2] <= MAX_IMAGE
                             ? proj->shape[2] : 1;
    stem->conv1.sliding = sliding_padded(7, 2, 3, stem->image_height, stem->image_width);
    const size_t height = stem->conv1.sliding.out_height, width = stem->conv1.sliding.out_width;
    stem->conv2.sliding = sliding_padded(3, 1, 1, height, width);
    stem->proj.sliding = sliding_padded(patch, patch, 0, height, width);
    vit_status status = load_normed_conv(base, &stem->conv1, "patch_embed.conv1", "patch_embed.bn1", 3);
    if (status == VIT_OK)
        status = load_normed_conv(base, &stem->conv2, "patch_embed.conv2", "patch_embed.bn2", stem->conv1.out);
    if (status == VIT_OK)
        status = load_conv(base, &stem->proj, "patch_embed.proj", stem->conv2.out, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_packed_conv(base, &stem->proj);
    if (status == VIT_OK && stem->proj.out != loader->vit->width)
        status = vit_error_set(base->err, VIT_ERR_FORMAT, "tensor 'patch_embed.proj.weight' has %zu rows, the blocks %zu",
                               stem->proj.out, loader->vit->width);
    return status;
}

static vit_status load_stem(struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    if (load_find(&loader->base, "patch_embed.conv1.weight") == NULL)
        return patch_stem_load(loader);
    struct conv_stem *stem = calloc(1, sizeof *stem);
    if (stem == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for the stem");
    *stem = (struct conv_stem){.image_height = vit->image_height, .image_width = vit->image_width};
    vit->stem = (struct stem){.state = stem, .free = free, .memory = stem_memory, .forward = stem_forward};
    vit_status status = load_convolutions(loader, stem);
    vit->patch = 2 * stem->proj.sliding.kernel;
    vit->grid_height = stem->proj.sliding.out_height;
    vit->grid_width = stem->proj.sliding.out_width;
    return status == VIT_OK ? vit_check_grid(loader) : status;
}

/* ---- the row ---- */

static bool recognise(const struct folder *folder)
{
    return folder->layout == LAYOUT_TIMM && strncmp(folder->name, "deepvit_", 8) == 0;
}

static vit_status load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    static const struct vit_family family = {.architecture = "deepvit", .names = &vit_timm_names, .configure = configure,
                                             .load_stem = load_stem, .finish_block = finish_block};
    return vit_load_family(state, folder, info, &family, err);
}

const struct arch arch_deepvit = {
    .name = "deepvit",
    .runs = {[LAYOUT_TIMM] = "deepvit_*"},
    .recognise = recognise,
    .load = load,
    VIT_FAMILY_FUNCTIONS,
};
