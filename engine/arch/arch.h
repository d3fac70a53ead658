/*
 * arch.h - the table of architectures. An architecture is one file that fills in one row.
 *
 * The row's functions see a model folder that is already open and checked as JSON and as safetensors; they read
 * weights by name, say what the model is, and compute. They know nothing of threads, sessions or files.
 */
#ifndef ENGINE_ARCH_ARCH_H
#define ENGINE_ARCH_ARCH_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/layers/layers.h"
#include "engine/store/weights.h"
#include "vit.h"

enum layout { LAYOUT_TRANSFORMERS, LAYOUT_TIMM, LAYOUTS };

/* An opened folder, as the architecture's loader sees it. */
struct folder {
    enum layout layout;
    const cJSON *config;      /* config.json */
    const cJSON *model_args;  /* timm's model_args, or NULL */
    const cJSON *pretrained;  /* timm's pretrained_cfg, or config itself */
    const char *name;         /* model_type (transformers) or architecture (timm) */
    struct weights *weights;
    const vit_preprocess *preprocess; /* as the folder has it; height 0: pictures must come in the model's size */
    vit_dtype dtype;                  /* of the products */
    size_t *scratch;                  /* out: the floats of scratch that the most demanding layer needs of a thread */
    size_t *mapped;                   /* out: bytes that runs read all over where the file is mapped */
    size_t image_size;                /* the side of the square input that the caller asks for; 0: the folder's own */
};

/* One image of a run, as the forward pass sees it. */
struct arch_image {
    const float *pixels; /* [3, H, W] */
    float *logits;       /* [N], or NULL where there are no classes */
    float *features;     /* [embedding_width] or NULL; not NULL where there are no classes */
    const struct observer *observer; /* or NULL */
};

/* Texts of a run: the ids of text i's tokens, up to its end, are ids[starts[i]] .. ids[starts[i + 1] - 1]. */
struct arch_texts {
    size_t count;
    const size_t *starts; /* [count + 1], the first of them 0 */
    const int32_t *ids;
    float *const *embeddings; /* [count] of [embedding_width], out, at unit length */
};

/* The tower of a model that embeds texts beside images. */
struct arch_text {
    /* How many of a text's tokens count, 1 .. count: those up to its end. */
    size_t (*length)(const void *state, const int32_t *ids, size_t count);
    /* The most tokens that a run's memory is for: at least one text's. */
    size_t (*capacity)(const void *state);
    /* Runs texts of so many tokens at most in the memory of a batch, 64-byte aligned. A text's embedding depends on its
     * tokens alone. */
    void (*encode)(const void *state, const struct compute *compute, float *memory, const struct arch_texts *texts);
};

/* Weights that people like to look at; a member is NULL where the architecture has no such thing. */
struct arch_inside {
    const float *filters;   /* [filter_count, 3, P, P]: the patch embedding */
    size_t filter_count;
    const float *positions; /* [gh*gw, width]: the patches' position embeddings */
};

struct arch {
    const char *name;
    const char *runs[LAYOUTS]; /* the names it covers in a layout, for the error of a folder nothing covers; or NULL */

    bool (*recognise)(const struct folder *folder);

    /* *state: the architecture's own view of the weights (borrowed from folder->weights); fills in the fields of
     * *info that describe the network, explanations included; all but preprocess, layout and the dtypes. What info
     * points to belongs to the state. */
    vit_status (*load)(void **state, const struct folder *folder, vit_model_info *info, vit_error *err);
    void (*free)(void *state);

    /* Floats of working memory for a batch, and for texts. Loaders bound tokens, widths and pixels so that it fits in a
     * size_t. */
    size_t (*memory)(const void *state, size_t batch);

    /* Runs the batch in that memory, 64-byte aligned. */
    void (*forward)(const void *state, const struct compute *compute, float *memory, const struct arch_image *images,
                    size_t count);

    /* For LeGrad, NULL where info->explanations lacks it. The blocks [L] that observers see, and the gradient [C], at
     * mean [C], of what the head would give for that mean token: the class's logit or, where there are no classes, the
     * cosine with a text's embedding [D] of unit length. memory: [C + D]. */
    const struct block *(*blocks)(const void *state);
    void (*score_gradient)(const void *state, const struct compute *compute, float *memory, float *gradient,
                           const float *mean, size_t class_index, const float *text);

    const struct arch_text *text; /* NULL: images alone */

    struct arch_inside (*inside)(const void *state); /* NULL: nothing of it */
};

/* The row that recognises the folder, or NULL. */
const struct arch *arch_find(const struct folder *folder);

/* Why a folder that no row recognises is not run, where there is more to say than its name; or NULL. */
const char *arch_refusal(const struct folder *folder);

/* "vit, deit, dinov2, ...": the names that the table covers in a layout, for error messages. */
void arch_list(char *text, size_t size, enum layout layout);

extern const struct arch arch_hybrid, arch_vit, arch_dinov2, arch_clip, arch_t2t, arch_deepvit, arch_swin, arch_mvit,
    arch_resnet;

#endif
