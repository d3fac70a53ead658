/*
 * hybrid.c - hybrid ViTs (arXiv 2010.11929, section 3.1; timm's vit_*_r_s16_*, vit_*_r26_* and vit_*_r50_*): the plain
 * encoder on patches of a ResNet's last map instead of the picture's.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/arch/resnet_network.h"
#include "engine/arch/vit_network.h"
#include "engine/base/error.h"

struct hybrid_stem {
    struct resnet resnet;
    struct conv patches;
};

static void stem_free(void *state)
{
    struct hybrid_stem *stem = state;
    resnet_free(&stem->resnet);
    free(stem);
}

static size_t stem_memory(const void *state)
{
    const struct hybrid_stem *stem = state;
    return resnet_floats(&stem->resnet);
}

static void stem_forward(const void *state, const struct compute *compute, float *memory, float *tokens,
                         const float *pixels)
{
    const struct hybrid_stem *stem = state;
    const float *map = resnet_forward(&stem->resnet, compute, memory, pixels);
    conv_forward(&stem->patches, compute, tokens, map, false);
}

static vit_status load_patches(const struct vit_loader *loader, struct hybrid_stem *stem)
{
    const struct loader *base = &loader->base;
    const struct tensor *proj = load_find(base, "patch_embed.proj.weight");
    const size_t patch = proj != NULL && proj->rank == 4 && proj->shape[2] >= 1 && proj->shape[2] <= MAX_IMAGE
                             ? proj->shape[2] : 1;
    stem->patches.sliding = sliding_padded(patch, patch, 0, stem->resnet.out_height, stem->resnet.out_width);
    vit_status status = load_conv(base, &stem->patches, "patch_embed.proj", stem->resnet.channels, BIAS_REQUIRED);
    if (status == VIT_OK)
        status = load_packed_conv(base, &stem->patches);
    if (status == VIT_OK && stem->patches.out != loader->vit->width)
        status = vit_error_set(base->err, VIT_ERR_FORMAT, "tensor 'patch_embed.proj.weight' has %zu rows, the blocks %zu",
                               stem->patches.out, loader->vit->width);
    return status;
}

static vit_status load_stem(struct vit_loader *loader)
{
    struct vit *vit = loader->vit;
    struct hybrid_stem *stem = calloc(1, sizeof *stem);
    if (stem == NULL)
        return vit_error_set(loader->base.err, VIT_ERR_NO_MEMORY, "no memory for the stem");
    vit->stem = (struct stem){.state = stem, .free = stem_free, .memory = stem_memory, .forward = stem_forward,
                              .rounds_up = true};
    struct loader resnet_loader = loader->base;
    resnet_loader.eps = 1e-5f; /* GroupNorm's */
    vit_status status = resnet_load(&stem->resnet, &resnet_loader, "patch_embed.backbone.", RESNET_HYBRID,
                                    vit->image_height, vit->image_width);
    if (status == VIT_OK)
        status = load_patches(loader, stem);
    if (status != VIT_OK)
        return status;
    vit->grid_height = stem->patches.sliding.out_height;
    vit->grid_width = stem->patches.sliding.out_width;
    vit->patch = stem->patches.sliding.kernel * resnet_stride(&stem->resnet);
    return vit_check_grid(loader);
}

/* "vit_", a size, and then "r_s16", "r26_s32" or "r50_s16" and the like. */
static bool recognise(const struct folder *folder)
{
    const char *size = strncmp(folder->name, "vit_", 4) == 0 ? strchr(folder->name + 4, '_') : NULL;
    return folder->layout == LAYOUT_TIMM && size != NULL &&
           (strncmp(size, "_r_s", 4) == 0 || strncmp(size, "_r26_s", 6) == 0 || strncmp(size, "_r50_s", 6) == 0);
}

static vit_status load(void **state, const struct folder *folder, vit_model_info *info, vit_error *err)
{
    static const struct vit_family family = {.architecture = "hybrid", .names = &vit_timm_names,
                                             .configure = vit_configure_timm, .load_stem = load_stem};
    return vit_load_family(state, folder, info, &family, err);
}

const struct arch arch_hybrid = {
    .name = "hybrid",
    .runs = {[LAYOUT_TIMM] = "vit_*_r_s16_*, vit_*_r26_*, vit_*_r50_*"},
    .recognise = recognise,
    .load = load,
    VIT_FAMILY_FUNCTIONS,
};
