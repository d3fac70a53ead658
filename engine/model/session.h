/* session.h - what a vit_session is made of; shared by session.c and texts.c. */
#ifndef ENGINE_MODEL_SESSION_H
#define ENGINE_MODEL_SESSION_H

#include "engine/explain/explain.h"
#include "engine/model/model.h"

/* The texts that run together, of a model with a text tower; `capacity` tokens at most, and texts. */
struct text_chunk {
    size_t capacity, count;
    int32_t *ids;       /* [capacity + context_length]: room to read one more text */
    size_t *starts;     /* [capacity + 1] */
    size_t *indices;    /* [capacity]: which of the caller's texts */
    float **embeddings; /* [capacity]: where they go */
};

struct vit_session {
    const vit_model *model;
    size_t max_batch;
    float *memory; /* as arch->memory() says for max_batch */
    float *scratch; /* of vit_model_scratch() bytes */
    const vit_team *team; /* or NULL */
    struct arch_image *images;  /* [max_batch] */
    struct raw_map *raw;        /* [max_batch] */
    struct distance_map *distances; /* [max_batch] */
    struct observer *observers; /* [max_batch] */
    struct text_chunk texts;

    /* One image's rollout or LeGrad. Large, but not resident before it is used. */
    float *explain_memory;
    struct rollout rollout;
    struct legrad legrad;
};

/* texts.c. false: no memory; release then, too. */
bool text_chunk_init(struct text_chunk *chunk, const vit_model *model);
void text_chunk_release(struct text_chunk *chunk);
size_t text_chunk_bytes(const struct text_chunk *chunk);

#endif
