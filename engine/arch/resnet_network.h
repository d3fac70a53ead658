/*
 * resnet_network.h - ResNetV2 with group normalisation and weight standardisation, as BiT (arXiv 1912.11370) and the
 * hybrid ViTs use it: read by resnet_load.c, run by resnet.c.
 */
#ifndef ENGINE_ARCH_RESNET_NETWORK_H
#define ENGINE_ARCH_RESNET_NETWORK_H

#include "engine/arch/load.h"

/* Which of timm's two ResNetV2: the classifier normalises before each convolution and pads as PyTorch does, the hybrids'
 * stem normalises after it and pads as TensorFlow does. */
enum resnet_kind { RESNET_BIT, RESNET_HYBRID };

/* 1x1, 3x3, 1x1, around it a shortcut. Before each convolution (BIT) or after it (HYBRID) a norm. */
struct bottleneck {
    struct conv conv1, conv2, conv3, shortcut; /* shortcut.out 0: the input itself */
    struct norm norm1, norm2, norm3, shortcut_norm; /* shortcut_norm: HYBRID */
};

struct resnet {
    enum resnet_kind kind;
    size_t image_height, image_width;
    struct conv stem;
    struct norm stem_norm; /* HYBRID */
    struct sliding pool;
    struct bottleneck *blocks;
    size_t count;
    size_t out_height, out_width, channels; /* of the last map */
    size_t map_floats;                      /* the largest map */
    size_t most_channels;
};

/* Everything below "<prefix>": "stem.conv" (or, without stages, "conv") and "stages.<i>.blocks.<j>". */
vit_status resnet_load(struct resnet *resnet, const struct loader *loader, const char *prefix, enum resnet_kind kind,
                       size_t height, size_t width);
void resnet_free(struct resnet *resnet);

/* Pixels from one position of the last map to the next. */
size_t resnet_stride(const struct resnet *resnet);

/* Floats of working memory. */
size_t resnet_floats(const struct resnet *resnet);
/* The last map [out_height*out_width, channels], somewhere in memory. */
float *resnet_forward(const struct resnet *resnet, const struct compute *compute, float *memory, const float *pixels);

#endif
