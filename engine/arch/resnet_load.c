/* resnet_load.c - reads ResNetV2 in timm's names; weights are standardised once, here. */
#include <math.h>
#include <stdlib.h>

#include "engine/arch/resnet_network.h"
#include "engine/base/error.h"

enum { MAX_PIXELS = 1 << 24, MAX_STAGES = 8 };

static const double standardisation_eps = 1e-8; /* timm's for BiT and the hybrids */

/* Weight standardisation (arXiv 1903.10520): each output's weights get mean 0 and variance 1. */
static vit_status standardise(const struct loader *loader, struct conv *conv)
{
    const size_t n = conv->sliding.kernel * conv->sliding.kernel * conv->in;
    float *standard;
    vit_status status = load_derived(loader, &standard, conv->out * n);
    for (size_t row = 0; status == VIT_OK && row < conv->out; row++) {
        const float *weight = conv->weight + row * n;
        double mean = 0, variance = 0;
        for (size_t i = 0; i < n; i++)
            mean += weight[i] / (double)n;
        for (size_t i = 0; i < n; i++)
            variance += (weight[i] - mean) * (weight[i] - mean) / (double)n;
        for (size_t i = 0; i < n; i++)
            standard[row * n + i] = (float)((weight[i] - mean) / sqrt(variance + standardisation_eps));
    }
    if (status == VIT_OK) {
        weights_drop(loader->folder->weights, conv->weight);
        conv->weight = standard;
    }
    return status;
}

static void note_size(struct resnet *resnet, const struct conv *conv)
{
    const size_t map = sliding_positions(&conv->sliding) * conv->out;
    resnet->map_floats = map > resnet->map_floats ? map : resnet->map_floats;
    resnet->most_channels = conv->out > resnet->most_channels ? conv->out : resnet->most_channels;
}

/* Where a kernel stands on the map so far; both kinds of network pad the input size, in their way. */
static struct sliding slide(const struct resnet *resnet, size_t kernel, size_t stride, size_t height, size_t width)
{
    return resnet->kind == RESNET_HYBRID ? sliding_same(kernel, stride, height, width)
                                         : sliding_padded(kernel, stride, (kernel - 1) / 2, height, width);
}

/* conv->sliding is the caller's. */
static vit_status load_standard_conv(const struct loader *loader, struct resnet *resnet, struct conv *conv,
                                     const char *name, size_t in)
{
    vit_status status = load_conv(loader, conv, name, in, BIAS_NONE);
    if (status == VIT_OK && conv->out % NORM_GROUPS != 0)
        status = vit_error_set(loader->err, VIT_ERR_UNSUPPORTED,
                               "tensor '%s.weight': %zu channels do not form %d groups", name, conv->out, NORM_GROUPS);
    if (status == VIT_OK)
        status = standardise(loader, conv);
    if (status == VIT_OK)
        status = load_packed_conv(loader, conv);
    note_size(resnet, conv);
    return status;
}

/* The norm of a convolution: of its input before it (BIT), of its output after it (HYBRID). */
static vit_status load_conv_norm(const struct loader *loader, const struct resnet *resnet, struct norm *norm,
                                 const char *name, const struct conv *conv)
{
    return load_norm(loader, norm, name, resnet->kind == RESNET_BIT ? conv->in : conv->out);
}

/* The first block of a stage has a convolution in its shortcut. */
static vit_status load_bottleneck(const struct loader *loader, struct resnet *resnet, struct bottleneck *block,
                                  const char *prefix, size_t stride, bool projected)
{
    const size_t height = resnet->out_height, width = resnet->out_width, in = resnet->channels;
    struct conv *const convs[] = {&block->conv1, &block->conv2, &block->conv3};
    struct norm *const norms[] = {&block->norm1, &block->norm2, &block->norm3};
    size_t channels = in, y = height, x = width;
    vit_status status = VIT_OK;
    for (size_t i = 0; status == VIT_OK && i < 3; i++) {
        convs[i]->sliding = slide(resnet, i == 1 ? 3 : 1, i == 1 ? stride : 1, y, x);
        status = load_standard_conv(loader, resnet, convs[i], name_of("%sconv%zu", prefix, i + 1).text, channels);
        if (status == VIT_OK)
            status = load_conv_norm(loader, resnet, norms[i], name_of("%snorm%zu", prefix, i + 1).text, convs[i]);
        channels = convs[i]->out;
        y = convs[i]->sliding.out_height;
        x = convs[i]->sliding.out_width;
    }
    block->shortcut.sliding = slide(resnet, 1, stride, height, width);
    if (status == VIT_OK && projected)
        status = load_standard_conv(loader, resnet, &block->shortcut, name_of("%sdownsample.conv", prefix).text, in);
    if (status == VIT_OK && projected && resnet->kind == RESNET_HYBRID)
        status = load_norm(loader, &block->shortcut_norm, name_of("%sdownsample.norm", prefix).text, block->shortcut.out);
    if (status == VIT_OK && (projected ? block->shortcut.out : in) != channels)
        status = vit_error_set(loader->err, VIT_ERR_FORMAT, "'%sconv3' gives %zu channels, its shortcut %zu", prefix,
                               channels, projected ? block->shortcut.out : in);
    resnet->channels = channels;
    resnet->out_height = y;
    resnet->out_width = x;
    return status;
}

static vit_status load_stem(const struct loader *loader, struct resnet *resnet, const char *prefix)
{
    const bool nested = load_find(loader, name_of("%sstem.conv.weight", prefix).text) != NULL;
    const struct name stem = name_of("%s%s", prefix, nested ? "stem." : "");
    resnet->stem.sliding = slide(resnet, 7, 2, resnet->image_height, resnet->image_width);
    vit_status status = load_standard_conv(loader, resnet, &resnet->stem, name_of("%sconv", stem.text).text, 3);
    if (status == VIT_OK && resnet->kind == RESNET_HYBRID)
        status = load_norm(loader, &resnet->stem_norm, name_of("%snorm", stem.text).text, resnet->stem.out);
    const size_t height = resnet->stem.sliding.out_height, width = resnet->stem.sliding.out_width;
    resnet->pool = slide(resnet, 3, 2, height, width);
    resnet->out_height = resnet->pool.out_height;
    resnet->out_width = resnet->pool.out_width;
    resnet->channels = resnet->stem.out;
    return status;
}

vit_status resnet_load(struct resnet *resnet, const struct loader *loader, const char *prefix, enum resnet_kind kind,
                       size_t height, size_t width)
{
    size_t index = 0;
    *resnet = (struct resnet){.kind = kind, .image_height = height, .image_width = width,
                              .count = load_count_staged(loader, prefix, "conv1.weight")};
    if (height * width > MAX_PIXELS)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED, "an image of %zux%zu has more than %d pixels", width, height,
                             MAX_PIXELS);
    resnet->map_floats = 3 * height * width; /* the picture is the first map */
    resnet->blocks = calloc(resnet->count + 1, sizeof *resnet->blocks);
    if (resnet->blocks == NULL)
        return vit_error_set(loader->err, VIT_ERR_NO_MEMORY, "no memory for %zu blocks", resnet->count);
    if (load_find(loader, name_of("%sstages.%d.blocks.0.conv1.weight", prefix, MAX_STAGES).text) != NULL)
        return vit_error_set(loader->err, VIT_ERR_UNSUPPORTED, "a ResNet of more than %d stages", MAX_STAGES);
    vit_status status = load_stem(loader, resnet, prefix);
    for (size_t stage = 0; status == VIT_OK && index < resnet->count; stage++) {
        const struct name blocks = name_of("%sstages.%zu.blocks.", prefix, stage);
        const size_t count = load_count(loader, blocks.text, "conv1.weight");
        for (size_t i = 0; status == VIT_OK && i < count; i++)
            status = load_bottleneck(loader, resnet, &resnet->blocks[index++], name_of("%s%zu.", blocks.text, i).text,
                                     stage > 0 && i == 0 ? 2 : 1, i == 0);
    }
    return status;
}

void resnet_free(struct resnet *resnet)
{
    free(resnet->blocks);
    resnet->blocks = NULL;
}
