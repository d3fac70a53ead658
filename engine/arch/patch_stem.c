/* patch_stem.c - the patch embedding of the plain ViT (arXiv 2010.11929): square patches side by side, one Linear. */
#include <stdlib.h>

#include "engine/arch/vit_network.h"
#include "engine/base/error.h"

struct patch_stem {
    size_t image_height, image_width, patch, grid;
    struct linear embedding; /* [C, 3*P*P] */
};

static size_t memory(const void *state)
{
    const struct patch_stem *stem = state;
    return stem->grid * stem->embedding.in;
}

static void forward(const void *state, const struct compute *compute, float *patches, float *tokens,
                    const float *pixels)
{
    const struct patch_stem *stem = state;
    patches_unfold(patches, pixels, stem->image_height, stem->image_width, stem->patch);
    linear_forward(&stem->embedding, compute, tokens, patches, stem->embedding.in, stem->grid);
}

vit_status patch_stem_load(struct vit_loader *loader)
{
    const struct loader *base = &loader->base;
    struct vit *vit = loader->vit;
    const struct name name = name_of("%s%s", loader->prefix, loader->names.patches);
    const struct name weight = name_of("%s.weight", name.text);
    const struct tensor *patches = load_find(base, weight.text);
    if (patches == NULL || patches->rank != 4 || patches->shape[1] != 3 || patches->shape[2] != patches->shape[3] ||
        patches->shape[2] < 1 || patches->shape[2] > MAX_IMAGE)
        return vit_error_set(base->err, patches == NULL ? VIT_ERR_FORMAT : VIT_ERR_UNSUPPORTED,
                             "tensor '%s' %s: [width, 3, patch, patch] was expected", weight.text,
                             patches == NULL ? "is missing" : "has another shape");
    const size_t patch = patches->shape[2];
    vit->patch = patch;
    vit->grid_height = vit->image_height / patch;
    vit->grid_width = vit->image_width / patch;
    vit_status status = vit_check_grid(loader);
    struct patch_stem *stem = status == VIT_OK ? calloc(1, sizeof *stem) : NULL;
    if (stem == NULL)
        return status != VIT_OK ? status : vit_error_set(base->err, VIT_ERR_NO_MEMORY, "no memory for the stem");
    *stem = (struct patch_stem){.image_height = vit->image_height, .image_width = vit->image_width, .patch = patch,
                                .grid = vit->grid_height * vit->grid_width,
                                .embedding = {.in = 3 * patch * patch, .out = vit->width}};
    vit->stem = (struct stem){.state = stem, .free = free, .memory = memory, .forward = forward};
    status = load_tensor(base, &stem->embedding.weight, weight.text, (size_t[]){vit->width, 3, patch, patch}, 4);
    const struct name bias = name_of("%s.bias", name.text);
    /* CLIP's patch embedding has none: a norm follows */
    if (status == VIT_OK && !(vit->norm_pre.weight != NULL && load_find(base, bias.text) == NULL))
        status = load_tensor(base, &stem->embedding.bias, bias.text, &vit->width, 1);
    vit->stem.filters = stem->embedding.weight;
    return status == VIT_OK ? load_packed_kept(base, &stem->embedding) : status;
}
