/*
 * vit.h - the whole public API of libvit: open a model folder, run batches of images, embed texts, explain results.
 *
 *     vit_model    what was learned: weights, labels, preprocessing. Immutable once opened; any number of
 *                  threads may use one model at the same time.
 *     vit_session  the working memory of one thread for one model (one arena, sized for the largest batch).
 *                  Nothing is allocated while a batch runs. One thread at a time per session.
 *
 * Ownership: whoever opens or creates frees; free functions accept NULL. A model outlives its sessions.
 * Errors: fallible functions return a vit_status and, when it is not VIT_OK, write a sentence into *err that
 * names the subject, what was expected and what was found. Outputs are untouched on failure.
 * The library never logs, prints or exits, and starts no thread. It calls OpenBLAS and expects it to run with
 * one thread per call: set OPENBLAS_NUM_THREADS=1 before the process starts, or call vit_blas_init() first.
 *
 * Legend used in every comment: B batch, T tokens, C width, NH heads, HD head width, L layers, P patch,
 * N classes, D the embedding's width, H and W the input's height and width in pixels, gh x gw the grid of patches.
 */
#ifndef VIT_H
#define VIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vit_image.h"
#include "vit_status.h"

/* The arithmetic of matrix products. Their sums, the head, and all that is no product is fp32.
 *   bf16: both operands in 8 significant bits.
 *   int8: weights in 8 bits for each output, activations in 8 bits for each token, as they come. In the blocks of plain
 *         encoders and Swin, attention and the projection of its result are bf16 where the CPU has instructions for it, else
 *         fp32. */
typedef enum vit_dtype { VIT_DTYPE_FP32, VIT_DTYPE_BF16, VIT_DTYPE_INT8 } vit_dtype;

typedef struct vit_model vit_model;
typedef struct vit_session vit_session;

/* A layer (encoder block), where layers differ. */
typedef struct vit_layer_info {
    size_t width, heads;
    size_t grid_height, grid_width; /* of the patches that are attended to, and so of the layer's map */
} vit_layer_info;

/* What a model is, for people and for callers that size buffers. Borrowed from the model. */
typedef struct vit_model_info {
    const char *architecture; /* the table row that runs it, e.g. "vit" */
    const char *layout;       /* "transformers" or "timm" */
    const char *dtype;        /* arithmetic: "fp32", "bf16" or "int8" */
    const char *stored_dtype; /* of the file's matrices: "F32", "F16" or "BF16" */
    const char *pooling;      /* "token", "avg", "token+avg" or "token+distillation" */
    const char *activation;   /* "gelu", "gelu_new", "quick_gelu", "swiglu" or "relu" */
    size_t image_height, image_width; /* H, W */
    size_t patch_size;                /* P: pixels from one patch to the next, where the picture is cut up; of a ResNet,
                                         from one position of its last map to the next */
    size_t grid_height, grid_width;   /* gh, gw */
    size_t tokens;                    /* T, prefix tokens included */
    size_t prefix_tokens;             /* class, distillation and register tokens, before the patches */
    bool class_token;                 /* the first of them is a class token */
    size_t layers, width, heads, mlp_width;
    const vit_layer_info *layer_info; /* [layers]; where layers differ, the sizes above are the last one's */
    size_t classes;         /* 0 for a model with a text tower: any texts are its classes */
    size_t embedding_width; /* D: floats in vit_item.features */
    bool text;              /* it has a text tower, see vit_session_encode_texts(); else the next six are 0 */
    size_t context_length;  /* the tokens of a text that it reads, those of start and end included */
    size_t vocabulary;      /* different tokens */
    size_t text_layers, text_width, text_heads;
    float logit_scale;      /* a logit is that many times the cosine of image and text */
    uint64_t parameters;    /* numbers in the tensors the model uses */
    unsigned explanations; /* bits 1 << vit_attention: the maps it can give */
    bool filters, positions; /* whether vit_model_filters() and vit_model_positions() are defined for it */
    bool distances;        /* whether it can give attention distances: every patch can attend to every patch */
    const vit_preprocess *preprocess;
} vit_model_info;

/* How to open a model; zeroed: as its folder says, in fp32. */
typedef struct vit_options {
    vit_dtype dtype;
    size_t image_size; /* the side of the square input; 0: the folder's. Position embeddings are interpolated */
} vit_options;

/* Opens a model folder in the transformers or the timm layout (config.json, model.safetensors or its shards,
 * preprocessor_config.json for transformers). The folder is untrusted: everything in it is checked.
 * options may be NULL. VIT_ERR_IO, VIT_ERR_FORMAT (damaged), VIT_ERR_UNSUPPORTED (sound, but not a model vitd runs, or not
 * with these options), VIT_ERR_ARGUMENT, VIT_ERR_NO_MEMORY. */
vit_status vit_model_open(vit_model **model, const char *folder, const vit_options *options, vit_error *err);
void vit_model_free(vit_model *model);

const vit_model_info *vit_model_describe(const vit_model *model);
/* The label of class `index` (< classes): id2label, else label_names, else labels.txt, else the index itself. */
const char *vit_model_label(const vit_model *model, size_t index);

/* The class that `text` names: an index, a label, or one of the names in a label like "tabby, tabby cat"; letter case
 * does not matter. VIT_ERR_ARGUMENT: no class, or several. */
vit_status vit_model_find_class(const vit_model *model, const char *text, size_t *index, vit_error *err);
/* The classes in a comma-separated list of such names, each class once, in the order of the list. A label with commas in
 * it is taken as a whole where it stands. VIT_ERR_ARGUMENT also for more than `capacity` classes. */
vit_status vit_model_find_classes(const vit_model *model, const char *text, size_t *indices, size_t capacity,
                                  size_t *count, vit_error *err);

/* ---- explanations: where the model looked ---- */

typedef enum vit_attention { VIT_ATTENTION_NONE, VIT_ATTENTION_RAW, VIT_ATTENTION_ROLLOUT, VIT_ATTENTION_LEGRAD } vit_attention;

enum { VIT_ATTENTION_COUNT = VIT_ATTENTION_LEGRAD + 1 };
enum { VIT_LAYER_DEFAULT = -1, VIT_ALL = -2, VIT_HEAD_MEAN = -3 };
enum { VIT_MAX_TARGETS = 16 };

/*
 * Which maps of an image are wanted.
 *   raw      the class token's attention to the patches at one layer (default: the last) or each, and one head, their
 *            mean (default) or each. A model without a class token: the mean over its query tokens.
 *   rollout  Abnar & Zuidema, arXiv 2005.00928: heads averaged, identity added, rows normalised, layers multiplied; the
 *            class token's row. Models with a class token only.
 *   legrad   Bousselham et al., arXiv 2404.03214. For layer l, s is the target's logit as the head gives it for the final
 *            norm of the mean over the tokens that leave the layer; the layer's map is max(0, ds/dA) of its attention
 *            probabilities A, averaged over heads and query tokens. By default the layers' (or the last_layers') maps
 *            are added and scaled to [0, 1]; with a layer (or VIT_ALL) they are that layer's (each layer's) as they are.
 *            A model with a text tower takes texts for targets: s is the cosine of a text's embedding with that of the
 *            mean token, the projection of its final norm.
 */
typedef struct vit_explain {
    vit_attention method;
    int layer;          /* 0 .. L-1, VIT_LAYER_DEFAULT or VIT_ALL; raw and legrad */
    int head;           /* 0 .. NH-1, VIT_HEAD_MEAN or VIT_ALL; raw */
    size_t last_layers; /* legrad's sum: the last 1 .. L; 0: all */
    size_t targets[VIT_MAX_TARGETS]; /* legrad: classes */
    size_t target_count;             /* 0: the image's top class, where there are classes */
    const float *target_vectors;     /* [target_count, D] legrad of a model with a text tower: the embeddings of texts,
                                        as vit_session_encode_texts() gives them, in place of classes; else NULL */
} vit_explain;

/* A map is float [targets, layers, heads, gh, gw]; what is not asked for in the plural counts 1. */
typedef struct vit_map_shape {
    size_t targets, layers, heads;
    size_t grid_height, grid_width;
    size_t floats; /* the product of all */
} vit_map_shape;

/* VIT_ERR_ARGUMENT: no such layer, head or class, or one that the method does not take, or no text where one is needed.
 * VIT_ERR_UNSUPPORTED: the model has no such map (see vit_model_info.explanations). */
vit_status vit_explain_shape(const vit_model *model, const vit_explain *explain, vit_map_shape *shape, vit_error *err);

/* "none", "raw", "rollout", "legrad". */
const char *vit_attention_name(vit_attention method);

/* ---- running ---- */

/* One image of a batch. The buffers are the caller's. */
typedef struct vit_item {
    const float *pixels;        /* [3, H, W] as vit_preprocess_apply() gives them */
    float *logits;              /* [N] out; NULL where there are no classes */
    float *features;            /* [D] out: what the head sees; NULL if not wanted. Where there are no classes: the
                                   image's embedding, of unit length; never NULL */
    const vit_explain *explain; /* NULL: no explanation */
    float *map;                 /* out, when explain is given; see vit_map_shape */
    float *distances;           /* [L, NH] out: how far from its query a head attends, in pixels; NULL if not wanted */
    vit_status *status;         /* out, always: whether this image has results; NULL if not wanted */
} vit_item;

/* Allocates everything that batches of up to max_batch images need, and some texts at a time where there is a text
 * tower. */
vit_status vit_session_create(vit_session **session, const vit_model *model, size_t max_batch, vit_error *err);
void vit_session_free(vit_session *session);

/* Bytes of memory that the model, and that the session, hold until they are freed; what of a model's files is only mapped
 * counts where the weights are used as they are stored. */
size_t vit_model_bytes(const vit_model *model);
size_t vit_session_bytes(const vit_session *session);

/* Runs `count` (1 .. max_batch) images. An image's results are bit-identical whatever else is in the batch and
 * however large it is. VIT_ERR_ARGUMENT: count out of range, or no room for an embedding. An explanation that
 * vit_explain_shape() refuses, with its status: no image is run. VIT_ERR_FORMAT: the model gives an image a logit, or
 * an embedding, that is not finite; the other images have their results, and each image's status says which it is.
 *
 * distances: for each layer and head the distance between the centres of two patches, averaged over all query patches
 * and, with the attention as weight, over the key patches; prefix tokens are left out and the rows normalised
 * (arXiv 2010.11929, figure 7; arXiv 2108.08810, section 4). Needs info->distances. */
vit_status vit_session_run(vit_session *session, const vit_item *items, size_t count, vit_error *err);

/*
 * Embeds any number of texts, UTF-8 and zero-terminated: embeddings [count, D], each of unit length. Of a text with
 * more tokens than the model's context_length the first are read. An embedding is bit-identical whatever else is in the
 * call, and however many texts there are: they run in chunks of the session's memory, on its team.
 *
 * statuses [count], or NULL: whether each text has its embedding; a text without one does not keep others from theirs.
 * The result is the first failure that is found, and names the text's index. VIT_ERR_ARGUMENT: it is not UTF-8, holds
 * nothing but white space, or is far too long. VIT_ERR_FORMAT: the model gives an embedding that is not finite.
 * VIT_ERR_NO_MEMORY. VIT_ERR_UNSUPPORTED: the model has no text tower.
 */
vit_status vit_session_encode_texts(vit_session *session, const char *const *texts, size_t count, float *embeddings,
                                    vit_status *statuses, vit_error *err);

/* logits [count] = logit_scale times the products of an image's embedding [D] with those of texts [count, D], of a
 * model with a text tower. A text's logit does not depend on the others. */
void vit_text_logits(const vit_model *model, const float *image, const float *texts, size_t count, float *logits);

/* Threads that a run may use besides the caller's own. run() calls part(argument, index, scratch) once for each
 * index < parts, on any of them, and returns when all calls have returned. scratch: vit_model_scratch() bytes, 64-byte
 * aligned, that no other call uses meanwhile; NULL from the thread that runs the session, which has its own. The engine's
 * results do not depend on who runs what. */
typedef struct vit_team {
    size_t threads; /* the caller's included: into how many parts work is best split */
    void (*run)(void *context, size_t parts, void (*part)(void *argument, size_t index, void *scratch), void *argument);
    void *context;
} vit_team;

size_t vit_model_scratch(const vit_model *model);

/* Runs from now on use that team, which the session borrows; NULL: the calling thread alone. */
void vit_session_set_team(vit_session *session, const vit_team *team);

/* Where a forward pass spends its time. GEMM: products with weights; PACKING: conversion of activations, keys and values. */
typedef enum vit_stage {
    VIT_STAGE_GEMM,
    VIT_STAGE_ATTENTION,
    VIT_STAGE_SOFTMAX,
    VIT_STAGE_NORM,
    VIT_STAGE_ACTIVATION,
    VIT_STAGE_PACKING,
    VIT_STAGE_OTHER
} vit_stage;

enum { VIT_STAGE_COUNT = VIT_STAGE_OTHER + 1 };

const char *vit_stage_name(vit_stage stage);

/* One forward pass of `count` black images on the calling thread: the operations in matrix products (2 per multiply-add),
 * and, if seconds [VIT_STAGE_COUNT] is not NULL, how long each stage took. Without it the products are left out, and the
 * pass is as quick as it can be. */
vit_status vit_session_profile(vit_session *session, size_t count, double *flops, double *seconds, vit_error *err);
/* The same of texts, which are embedded as vit_session_encode_texts() does it. */
vit_status vit_session_profile_texts(vit_session *session, const char *const *texts, size_t count, double *flops,
                                     double *seconds, vit_error *err);

/* ---- inside the model: what its weights show without an image ---- */

enum { VIT_FILTERS = 28 };

/* The first principal components of the patch embedding's filters: components [*count, 3, P, P] of unit length, and
 * variances [*count], the share of the filters' variance that each explains. Room for VIT_FILTERS is needed; there are
 * fewer only if there are fewer filters or pixels. VIT_ERR_UNSUPPORTED: the model has no such filters. */
vit_status vit_model_filters(const vit_model *model, float *components, float *variances, size_t *count, vit_error *err);

/* similarity [gh, gw, gh, gw]: the cosine between the position embeddings of any two patches.
 * VIT_ERR_UNSUPPORTED: the model has no position embeddings. */
vit_status vit_model_positions(const vit_model *model, float *similarity, vit_error *err);

/* ---- scores ---- */

typedef enum vit_function { VIT_SOFTMAX, VIT_SIGMOID, VIT_IDENTITY } vit_function;

/* scores[i] = function(logits)[i]; scores may be logits. Computed in double. */
void vit_scores(float *scores, const float *logits, size_t n, vit_function function);
/* Writes the indices of the k (<= n) largest scores, largest first, ties by lower index; O(n log k). */
void vit_top_k(size_t *indices, const float *scores, size_t n, size_t k);

/* ---- the machine ---- */

/* One BLAS thread per call, whatever the environment says. Call once, before any thread starts. */
void vit_blas_init(void);
/* The kernels OpenBLAS runs, e.g. "SkylakeX". */
const char *vit_blas_core(void);
/* NULL when they suit this CPU; else the name of faster ones, to be set as OPENBLAS_CORETYPE before the process
 * starts. Either that variable already names slower ones, or OpenBLAS does not know the CPU. */
const char *vit_blas_better_core(void);
/* Whether this CPU has instructions for the dtype's products; without, bf16 and int8 are plain C, and slower than fp32. */
bool vit_dtype_is_fast(vit_dtype dtype);
/* The fastest on this CPU that answers as fp32 does (see README). */
vit_dtype vit_dtype_auto(void);
const char *vit_dtype_name(vit_dtype dtype);
/* What the calling thread can do at most, measured now, in about a second: operations per second in the instruction of the
 * dtype's products (2 for each multiply-add), and bytes per second read from memory (0: none to be had). */
double vit_peak_flops(vit_dtype dtype);
double vit_peak_bandwidth(void);
/* The instruction set of vitd's own kernels: "avx512", "avx2" or "generic". */
const char *vit_kernels_name(void);

#endif
