/*
 * load.h - what the loaders of all architectures share: tensors by name, and keys of the config.
 *
 * A loader reads a folder that is already known to be JSON and safetensors. Sizes are read off the tensors; what they
 * do not tell comes from config.json, else from the names that the reference implementations give their sizes, else is
 * an error that names the key.
 */
#ifndef ENGINE_ARCH_LOAD_H
#define ENGINE_ARCH_LOAD_H

#include "engine/arch/arch.h"
#include "engine/layers/conv.h"

enum {
    MAX_LAYERS = 1000,
    MAX_WIDTH = 1 << 16,
    MAX_TOKENS = 1 << 16,
    MAX_CLASSES = 1 << 20,
    MAX_IMAGE = 1 << 14
};

struct loader {
    const struct folder *folder;
    vit_error *err;
    float eps; /* of the norms that load_norm() reads */
    enum activation activation; /* of the blocks that load_block() reads */
    unsigned optional_parts;    /* what the first of them has of what a model may lack; 0: none was read yet */
};

/* A tensor's name in the making; name_of("%s.%zu", ...).text lives to the end of the full expression. */
struct name {
    char text[256];
};
struct name name_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- tensors ---- */

const struct tensor *load_find(const struct loader *loader, const char *name);
vit_status load_tensor(const struct loader *loader, const float **values, const char *name, const size_t *shape,
                       size_t rank);
/* "<name>.weight" [out, in] and "<name>.bias" [out]; the bias may be missing only if it is optional, and is
 * not looked for with BIAS_NONE. */
enum bias { BIAS_REQUIRED, BIAS_OPTIONAL, BIAS_NONE };
vit_status load_linear(const struct loader *loader, struct linear *linear, const char *name, size_t out, size_t in,
                       enum bias bias);
/* "<name>.weight" and "<name>.bias", both [width]. */
vit_status load_norm(const struct loader *loader, struct norm *norm, const char *name, size_t width);
/* "<name>.weight" [classes, in] (or [classes, in, 1, 1]) with its bias, packed; the number of classes is read off it. */
vit_status load_head(const struct loader *loader, struct linear *head, const char *name, size_t in);
/* "<name>.weight" [out, in] alone, packed; out is read off it. */
vit_status load_projection(const struct loader *loader, struct linear *projection, const char *name, size_t in);
/* "<name>.weight" [out, in, k, k] (and bias) where conv->sliding says k; out is read off it. */
vit_status load_conv(const struct loader *loader, struct conv *conv, const char *name, size_t in, enum bias bias);
/* *values [rows, channels, area] as [rows, area, channels]: from a file's order to that of unfold(). */
vit_status load_reordered(const struct loader *loader, const float **values, size_t rows, size_t channels, size_t area);
/* The number of "<prefix><i>.<name>", i from 0 on, at most MAX_LAYERS. */
size_t load_count(const struct loader *loader, const char *prefix, const char *name);

/* The number of "<prefix>stages.<i>.blocks.<j>.<name>", i and j from 0 on. */
size_t load_count_staged(const struct loader *loader, const char *prefix, const char *name);

/* Memory for `count` derived numbers that lives as long as the weights. */
vit_status load_derived(const struct loader *loader, float **values, size_t count);
/* Replaces the linear by one whose results are scale [out] (or, where it is NULL, factor) times as large. */
vit_status load_scaled(const struct loader *loader, struct linear *linear, const float *scale, float factor);

/* Packs a linear's weight, or a convolution's, for vitd's own products in the folder's dtype (see packed.h), once it is
 * what it will be; the weight itself is then gone, and NULL. load_packed_kept() keeps it for those who look at it beside, and
 * packs in fp32: for heads, whose rounding nothing evens out, and the plain patch embedding. */
vit_status load_packed(const struct loader *loader, struct linear *linear);
vit_status load_packed_conv(const struct loader *loader, struct conv *conv);
vit_status load_packed_kept(const struct loader *loader, struct linear *linear);
/* Those that are there (out > 0); and the four of a block, proj as attention's products: it is a twelfth of the work, and
 * in int8 it would make a quarter of the error. */
vit_status load_packed_all(const struct loader *loader, struct linear *const *linears, size_t count);
vit_status load_packed_block(const struct loader *loader, struct block *block);
/* The last step of an attention over so many tokens, of an image or, if it is causal, of sequences as long: which
 * products it uses. fp32 in fp32, bf16 in bf16; with int8 weights bf16 where the CPU has instructions for it, else
 * fp32. */
void load_attention_products(const struct loader *loader, struct attention *attention, size_t tokens, size_t width);

/* How a layout calls the parts of an encoder block; q, k and v are one matrix or three. */
struct block_names {
    const char *norm1, *qkv, *query, *key, *value, *proj, *scale1; /* scale: LayerScale, where the folder has it */
    const char *norm2, *fc1, *fc2, *scale2;
};

/* All of a block's weights below "<prefix>"; its attention is the caller's. LayerScale (arXiv 2103.17239) is folded into
 * proj and fc2. A block that has not the same optional parts as the first is an error. */
vit_status load_block(struct loader *loader, struct block *block, const char *prefix,
                      const struct block_names *names, size_t width);

/* ---- the config ---- */

vit_status load_missing_key(const struct loader *loader, const char *key);
vit_status load_activation(const struct loader *loader, enum activation *activation, const char *name);
const char *activation_name(enum activation activation);
/* transformers' hidden_act and layer_norm_eps, into the loader. */
vit_status load_transformers_keys(struct loader *loader);
/* VIT_ERR_UNSUPPORTED for a key of timm's model_args that is not among `known` and not null: it may change the network
 * in a way the tensors do not show. */
vit_status load_check_model_args(const struct loader *loader, const char *architecture, const char *const *known,
                                 size_t count);
/* The input size of the config: transformers' image_size, timm's img_size or input_size. */
vit_status load_image_size(const struct loader *loader, size_t *height, size_t *width);
/* timm's global_pool, model_args before config; *pool stays as it is where neither says. */
vit_status load_global_pool(const struct loader *loader, const char **pool);
/* The error of a pooling that the architecture does not have; allowed: which it has. */
vit_status load_refuse_pool(const struct loader *loader, const char *pool, const char *allowed);
vit_status load_check_heads(const struct loader *loader, size_t width, size_t heads);

#endif
