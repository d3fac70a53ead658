/*
 * vit_network.h - the plain encoder that ViT, DeiT, DINOv2, CLIP's images, the hybrids, T2T-ViT and DeepViT share, as
 * its loader (vit_load.c) leaves it for its forward pass (vit.c). What tells them apart is their family: names, keys,
 * and a stem.
 */
#ifndef ENGINE_ARCH_VIT_NETWORK_H
#define ENGINE_ARCH_VIT_NETWORK_H

#include "engine/arch/load.h"

/* What the head sees: the class token; the class and the distillation token, each with a head of its own; the mean of
 * the patches; or the class token beside that mean. */
enum pooling { POOL_TOKEN, POOL_DISTILLED, POOL_AVERAGE, POOL_TOKEN_AND_AVERAGE };

/* Turns an image into one token for each patch. */
struct stem {
    void *state;
    void (*free)(void *state);
    size_t (*memory)(const void *state); /* floats */
    /* tokens [gh*gw, C] from pixels [3, H, W] */
    void (*forward)(const void *state, const struct compute *compute, float *memory, float *tokens, const float *pixels);
    bool rounds_up;       /* pixels that do not fill a patch get one */
    const float *filters; /* [C, 3, P, P]; NULL where patches are not embedded by one convolution */
};

struct vit {
    size_t image_height, image_width, patch, grid_height, grid_width;
    size_t prefix, tokens, width, mlp_width, heads, layers, classes;
    enum pooling pooling;
    bool projects;   /* the head's result, at unit length, is an embedding: there are no classes */
    bool norm_first; /* average pooling: the final norm runs before the mean, not after it */

    struct stem stem;
    bool class_token;
    const float *prefix_tokens;  /* [prefix, C], their position embeddings added */
    const float *positions;      /* [gh*gw, C] or NULL */
    struct norm norm_pre;        /* weight NULL: none */
    struct block *blocks;        /* [L] */
    vit_layer_info *layer_info;  /* [L] */
    struct norm norm;
    struct linear head, head_distilled;
};

/* The tensors' names in a layout; all but the heads come after the loader's prefix. NULL: not in this layout. */
struct vit_names {
    const char *class_token, *distillation_token, *registers, *positions, *patches;
    const char *blocks; /* "blocks.", with the layer's number and a dot after it */
    struct block_names block;
    const char *norm_pre, *norm, *fc_norm, *head, *head_distilled;
};

struct vit_family;

/* State of a load: what every step needs. */
struct vit_loader {
    struct loader base;
    const struct vit_family *family;
    struct vit_names names;
    char prefix[80];
    float attention_scale; /* of the products of queries and keys; 1 / sqrt(HD) unless configure() says otherwise */
    size_t trained_height, trained_width; /* the input size that the position embeddings are for */
    struct vit *vit; /* the image size and the width are known from the start */
};

struct vit_family {
    const char *architecture;
    const struct vit_names *names;
    const char *prefix;   /* of the tensors' names; NULL: "<model_type>." in the transformers layout */
    enum pooling pooling; /* where neither config nor tensors say otherwise */
    bool projects;        /* as CLIP (see struct vit); its class token is stored as [C], its positions as [T, C] */
    bool any_size;        /* takes pictures in the size that the preprocessing ends in */
    /* What the tensors do not tell: vit->heads, the loader's eps, activation and scale. */
    vit_status (*configure)(struct vit_loader *loader);
    /* vit->stem, patch and grid. */
    vit_status (*load_stem)(struct vit_loader *loader);
    /* What else is in the block below "<prefix>"; may be NULL. */
    vit_status (*finish_block)(struct vit_loader *loader, struct block *block, const char *prefix);
};

extern const struct vit_names vit_timm_names;

vit_status vit_load_family(void **state, const struct folder *folder, vit_model_info *info,
                           const struct vit_family *family, vit_error *err);

/* ---- what families share ---- */

/* load_stem of non-overlapping square patches (patch_stem.c). */
vit_status patch_stem_load(struct vit_loader *loader);
/* configure for timm's ViTs, and for transformers'. */
vit_status vit_configure_timm(struct vit_loader *loader);
vit_status vit_configure_transformers(struct vit_loader *loader);

/* What an architecture's name stands for: `name` is how it goes on after the first part (see vit_read_heads()). */
struct vit_size {
    const char *name;
    size_t width, heads;
};
/* vit->heads: model_args.num_heads, else those of the first of the sizes that `text`, a part of the architecture's name,
 * begins with. The width must be that size's too, unless model_args.embed_dim says that it is not. */
vit_status vit_read_heads(struct vit_loader *loader, const char *text, const struct vit_size *sizes, size_t count);
/* The grid is vit->grid_height x grid_width; too many tokens are an error. */
vit_status vit_check_grid(const struct vit_loader *loader);

/* A row's functions, whatever the family. */
void vit_release(void *state);
size_t vit_memory(const void *state, size_t batch);
void vit_forward(const void *state, const struct compute *compute, float *memory, const struct arch_image *images,
                 size_t count);
const struct block *vit_blocks(const void *state);
void vit_score_gradient(const void *state, const struct compute *compute, float *memory, float *gradient,
                        const float *mean, size_t class_index, const float *text);
struct arch_inside vit_inside(const void *state);

#define VIT_FAMILY_FUNCTIONS                                                                                     \
    .free = vit_release, .memory = vit_memory, .forward = vit_forward, .blocks = vit_blocks,                     \
    .score_gradient = vit_score_gradient, .inside = vit_inside

#endif
